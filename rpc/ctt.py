"""The project's own methods: what a person or a program of this chain asks that Ethereum has no word for."""

from functools import cache
from typing import Final

from ctt_state.crypto import checksum_address
from ctt_state.modules import MODULES
from ctt_state.records import CttConfig, CttSupply
from rpc.door import Caller
from rpc.jsontext import Json, RawJson, dumps
from rpc.methods import Registry
from rpc.proofs import PROOFS

CTT_METHODS: Final = Registry(PROOFS.methods.copy())

WH_PER_KWH: Final = 1_000


@CTT_METHODS.method("ctt_abi")
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


@CTT_METHODS.method("ctt_chainStatus")
def chain_status(caller: Caller) -> Json:
    """The chain at a glance: which it is, height, time, pool, peers, tokens and the energy they hold."""
    header = caller.chain.head.block.header
    lookup = caller.chain.state(header.height)
    pending, queued = caller.chain.pool_counts()
    status: dict[str, Json] = {
        "chainId": caller.chain.parameters.chain_id,
        "genesisHash": "0x" + caller.chain.parameters.genesis_hash.hex(),
        "height": header.height,
        "blockHash": "0x" + caller.chain.head.hash.hex(),
        "timeMs": header.timestamp_ms,
        "syncing": caller.chain.is_syncing(),
        "peers": caller.chain.peer_count(),
        "pool": {"pending": pending, "queued": queued},
    }
    config, supply = lookup(CttConfig.key()), lookup(CttSupply.key())
    if isinstance(config, CttConfig):
        held = supply if isinstance(supply, CttSupply) else CttSupply()
        status["ctt"] = {
            "name": config.name,
            "symbol": config.symbol,
            "tokens": held.last_token_id,
            "maxTokens": config.max_supply,
            "tokenCapability": _energy(config.capability_wh),
            "energyStored": _energy(held.energy_wh),
        }
    return status


def _energy(wh: int) -> str:
    """Wh as kWh for people: exact, three decimals."""
    return f"{wh // WH_PER_KWH:,}.{wh % WH_PER_KWH:03d} kWh"
