"""Tokens, prosumers and meters as their owners and vendors ask for them: no ABI, figures exact and in words.

Each answer is of one block, whose height it names; `block` is the newest unless it is given. What the chain does not
know is null.
"""

from typing import Final, NamedTuple, TypeVar

from ctt_state.modules.ctt.shelf import refresh
from ctt_state.origin import SOURCES
from ctt_state.records import (
    PAGE_TOKENS,
    CttConfig,
    CttSupply,
    Meter,
    Prosumer,
    Reading,
    Record,
    ShelfPage,
    Token,
)
from ctt_state.units import ZERO_ADDRESS, Address, Height, TokenId, hex_of
from ctt_state.view import Lookup, find
from rpc import schemas
from rpc.door import Caller
from rpc.figures import energy, energy_price, money, origin, power
from rpc.jsontext import Json
from rpc.methods import Registry
from rpc.params import ADDRESS, BLOCK, COUNT, PAGE_SIZE, TOKENS_PAGE_MAX, BlockRef, Param, Tag

R = TypeVar("R", bound=Record)

ENERGY: Final = Registry()

_BLOCK: Final = Param("block", BLOCK, Tag.LATEST)


class _State(NamedTuple):
    """The records as a block left them, and what the CTT is there."""

    height: Height
    lookup: Lookup
    config: CttConfig


def _state(caller: Caller, block: BlockRef) -> _State | None:
    """None while there is no CTT. Raises: Refused, StatePruned."""
    height = Height(caller.blocks.known_height(block))
    lookup = caller.chain.state(height)
    config = find(lookup, CttConfig, CttConfig.key())
    return None if config is None else _State(height, lookup, config)


def _find(caller: Caller, block: BlockRef, kind: type[R], key: bytes) -> tuple[_State, R] | None:
    """A record in its state, if there is one. Raises: Refused, StatePruned."""
    state = _state(caller, block)
    found = None if state is None else find(state.lookup, kind, key)
    return None if state is None or found is None else (state, found)


@ENERGY.method("ctt_supply", _BLOCK, result=schemas.maybe(schemas.SUPPLY))
def supply(caller: Caller, block: BlockRef) -> Json:
    """The CTT: its name and admin, how many tokens there are and may be, what one holds and costs empty, and the energy
    in all of them: what was ever stored less what was ever covered. `origin` is the energy in tokens by source,
    `retired` what was covered. Null while it is not created."""
    state = _state(caller, block)
    if state is None:
        return None
    config, held = state.config, find(state.lookup, CttSupply, CttSupply.key()) or CttSupply()
    return {
        "height": state.height,
        "name": config.name,
        "symbol": config.symbol,
        "admin": hex_of(config.admin),
        "tokens": held.last_token_id,
        "maxTokens": str(config.max_supply),
        **energy("tokenCapability", config.capability_wh),
        **money("emptyTokenPrice", config.empty_price_wei),
        **energy("energyStored", held.energy_wh),
        **origin("origin", held.origin, held.energy_wh),
        **energy("everStored", held.refilled_wh),
        **energy("everCovered", held.covered_wh),
        **origin("retired", held.retired, held.covered_wh),
    }


@ENERGY.method("ctt_token", Param("tokenId", COUNT), _BLOCK, result=schemas.maybe(schemas.TOKEN))
def token(caller: Caller, token_id: int, block: BlockRef) -> Json:
    """A token: whose it is, the energy in it and where that comes from, whether it is on sale and for how much. The
    selling price is the token's price and that of its energy together; prices are those last set, also while it is not
    on sale. Null when there is no such token."""
    found = _find(caller, block, Token, Token.key(TokenId(token_id)))
    if found is None:
        return None
    state, record = found
    return {"height": state.height} | _token(token_id, record, state.config)


@ENERGY.method(
    "ctt_tokensOf",
    Param("owner", ADDRESS),
    Param("offset", COUNT, 0),
    Param("limit", PAGE_SIZE, TOKENS_PAGE_MAX),
    _BLOCK,
    cost=10,
    result=schemas.maybe(schemas.TOKENS),
)
def tokens_of(caller: Caller, owner: Address, offset: int, limit: int, block: BlockRef) -> Json:
    """The owner's tokens from `offset` on, 1 to 100 of them, in the order of its shelf: full, partly charged, empty, on
    sale. Charging and transfers change the order, so ask for the next page, from `next` on, at this answer's `height`.
    `next` is null on the last page. Null for an owner that the chain has never seen."""
    found = _find(caller, block, Prosumer, Prosumer.key(owner))
    if found is None:
        return None
    state, shelf = found
    end = min(offset + limit, shelf.tokens)
    listed: list[Json] = [_token_at(state, owner, slot) for slot in range(offset, end)]
    return {
        "height": state.height,
        "owner": hex_of(owner),
        "count": shelf.tokens,
        "tokens": listed,
        "next": end if end < shelf.tokens else None,
    }


@ENERGY.method("ctt_prosumer", Param("address", ADDRESS), _BLOCK, result=schemas.maybe(schemas.PROSUMER))
def prosumer(caller: Caller, address: Address, block: BlockRef) -> Json:
    """A prosumer: its meter, how its tokens are charged, and its totals. Of what was produced, the rest that was not
    stored went to the grid; of what was consumed, the rest that tokens did not cover is billed. `retired` is what they
    covered, by source. `lastReading` are the registers its meter last reported. Null for an address without tokens or
    meter."""
    found = _find(caller, block, Prosumer, Prosumer.key(address))
    if found is None:
        return None
    state, owner = found
    counts: Json = {
        "count": owner.tokens,
        "full": owner.full,
        "partlyCharged": owner.partial,
        "empty": owner.empty,
        "onSale": owner.on_sale,
    }
    return {
        "height": state.height,
        "address": hex_of(address),
        "meter": _known(owner.meter),
        "confirmed": owner.confirmed,
        "tokens": counts,
        **_stored_and_spare(owner, state.config),
        **energy("everProduced", owner.produced_wh),
        **energy("everStored", owner.stored_wh),
        **energy("everFedToGrid", owner.produced_wh - owner.stored_wh),
        **energy("everConsumed", owner.consumed_wh),
        **energy("everCovered", owner.covered_wh),
        **origin("retired", owner.retired, owner.covered_wh),
        **energy("everBilled", owner.consumed_wh - owner.covered_wh),
        "lastReading": _last_reading(state.lookup, owner.meter, address),
    }


@ENERGY.method("ctt_energyOf", Param("owner", ADDRESS), _BLOCK, result=schemas.maybe(schemas.STORED_ENERGY))
def energy_of(caller: Caller, owner: Address, block: BlockRef) -> Json:
    """The energy in the owner's tokens that are not on sale, and what these could still take. Null for an owner that
    the chain has never seen."""
    found = _find(caller, block, Prosumer, Prosumer.key(owner))
    if found is None:
        return None
    state, shelf = found
    return {"height": state.height} | _stored_and_spare(shelf, state.config)


@ENERGY.method("ctt_meter", Param("address", ADDRESS), _BLOCK, result=schemas.maybe(schemas.METER))
def meter(caller: Caller, address: Address, block: BlockRef) -> Json:
    """A smart meter: who certified it, what it measures and up to which power (null: no limit), and the prosumer that
    it has confirmed; a concentrator names none. Null for an address that was never certified."""
    found = _find(caller, block, Meter, Meter.key(address))
    if found is None:
        return None
    state, record = found
    limit: dict[str, Json] = {"maxPowerW": None, "maxPower": None}
    return {
        "height": state.height,
        "address": hex_of(address),
        "operator": hex_of(record.operator),
        "source": SOURCES[record.source],
        **(power("maxPower", record.max_power_w) if record.max_power_w else limit),
        "concentrator": record.concentrator,
        "certified": record.certified,
        "prosumer": _known(record.prosumer),
    }


def _token_at(state: _State, owner: Address, slot: int) -> dict[str, Json]:
    """The token in this slot, which is below the number of the owner's tokens."""
    page = find(state.lookup, ShelfPage, ShelfPage.key(owner, slot // PAGE_TOKENS))
    token_id = 0 if page is None else page.token_ids[slot % PAGE_TOKENS]
    found = find(state.lookup, Token, Token.key(TokenId(token_id)))
    if found is None:
        raise AssertionError(f"slot {slot} of {hex_of(owner)} names no token: {token_id}")
    return _token(token_id, found, state.config)


def _token(token_id: int, token: Token, config: CttConfig) -> dict[str, Json]:
    return {
        "tokenId": token_id,
        "owner": hex_of(token.owner),
        **energy("energy", token.energy_wh),
        **origin("origin", token.origin, token.energy_wh),
        "chargePercent": token.energy_wh
        * 100
        // config.capability_wh,  # above 100 when the capability was lowered
        "onSale": token.on_sale,
        **money("tokenPrice", token.token_price_wei),
        **energy_price("energyPrice", token.energy_price_wei_per_wh),
        **money("sellingPrice", token.selling_price_wei),
        "approved": _known(token.approved),
        "permitNonce": token.permit_nonce,
        "index": token.slot,
    }


def _stored_and_spare(owner: Prosumer, config: CttConfig) -> dict[str, Json]:
    """As the CTT's `energyOf` says it."""
    shelf = refresh(owner, config.capability_wh)
    spare_wh = (shelf.partial + shelf.empty) * config.capability_wh - shelf.partial_wh
    return energy("stored", shelf.full_wh + shelf.partial_wh) | energy("spare", max(spare_wh, 0))


def _last_reading(lookup: Lookup, meter: Address, prosumer: Address) -> Json:
    """None before the baseline."""
    reading = find(lookup, Reading, Reading.key(meter, prosumer))
    if reading is None or not reading.time_ms:
        return None
    return {
        "timeMs": reading.time_ms,
        **energy("import", reading.import_wh),
        **energy("export", reading.export_wh),
    }


def _known(address: Address) -> str | None:
    return None if address == ZERO_ADDRESS else hex_of(address)
