"""The project's own methods: what a person or a program of this chain asks that Ethereum has no word for."""

from functools import cache
from typing import Final

from ctt_state.crypto import checksum_address
from ctt_state.modules import MODULES
from ctt_state.records import CttConfig, CttSupply
from ctt_state.units import hex_of
from ctt_state.view import find
from rpc import schemas
from rpc.door import Caller
from rpc.figures import energy
from rpc.jsontext import Json, RawJson, dumps
from rpc.methods import Registry

CTT_METHODS: Final = Registry()

STALLED_MS: Final = 5_000  # an outage of one leader costs less than a second
STALLED_PERIODS: Final = 3  # at least, where blocks are slow


@CTT_METHODS.method("ctt_abi", result=schemas.MODULES)
def abi(caller: Caller) -> RawJson:
    """Each native module's address and ABI, by its name."""
    return _abi()


@cache
def _abi() -> RawJson:
    modules: dict[str, Json] = {
        module.name: {"address": checksum_address(module.address), "abi": list(module.abi_json())}
        for module in MODULES.values()
    }
    return RawJson(dumps(modules))


@CTT_METHODS.method("ctt_chainStatus", result=schemas.CHAIN_STATUS)
def chain_status(caller: Caller) -> Json:
    """The chain at a glance: which it is, height, time, validators, pool, peers, tokens and the energy they hold.

    Finality is `stalled` when the newest final block here is more than 5 s and 3 block periods old, and then `since` is
    its time in ms: the chain stands still, or this node is cut off or `syncing`. `live`: new blocks become final;
    `since` is null. `notVoting` tells why a validator casts no votes after a restore; else it is null."""
    chain = caller.chain
    header = chain.head.block.header
    pending, queued = chain.pool_counts()
    period_ms = chain.parameters.block_period_ms
    is_stalled = chain.now_ms() - header.timestamp_ms > max(STALLED_MS, STALLED_PERIODS * period_ms)
    validators = chain.validators(header.epoch)
    status: dict[str, Json] = {
        "chainId": chain.parameters.chain_id,
        "genesisHash": hex_of(chain.parameters.genesis_hash),
        "height": header.height,
        "blockHash": hex_of(chain.head.hash),
        "timeMs": header.timestamp_ms,
        "blockPeriodMs": period_ms,
        "finality": "stalled" if is_stalled else "live",
        "since": header.timestamp_ms if is_stalled else None,
        "epoch": header.epoch,
        "view": header.view,
        "validators": None if validators is None else len(validators.members),
        "notVoting": chain.not_voting(),
        "syncing": chain.is_syncing(),
        "peers": chain.peer_count(),
        "pool": {"pending": pending, "queued": queued},
    }
    lookup = chain.state(header.height)
    config = find(lookup, CttConfig, CttConfig.key())
    if config is not None:
        held = find(lookup, CttSupply, CttSupply.key()) or CttSupply()
        status["ctt"] = {
            "name": config.name,
            "symbol": config.symbol,
            "tokens": held.last_token_id,
            "maxTokens": str(config.max_supply),
            **energy("tokenCapability", config.capability_wh),
            **energy("energyStored", held.energy_wh),
        }
    return status
