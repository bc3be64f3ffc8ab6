"""An owner's tokens in one list of four regions: full | partly charged | empty | on sale.

A reading takes tokens at the borders between regions, so charging and draining move a border and never a token: a
refill takes the first partly charged token, else the first empty one; a consumption the last partly charged one,
else the last full one. Adding or removing a token moves at most one token a region. So the cost is that of the tokens
whose charge changes, however many the owner has. Tokens on sale are never charged or drained.

When the admin raises the capability, an owner's full tokens have room again: at the next touch the border between
full and partly charged goes to the front (`refresh`). When it is lowered, partly charged tokens that now hold at
least the capability become full one by one, as refills come to them.
"""

from enum import IntEnum

from ctt_state.modules.call import Call
from ctt_state.records import PAGE_TOKENS, Prosumer, ShelfPage, Token
from ctt_state.units import Address, TokenId, Wh


class Region(IntEnum):
    """Where in its owner's shelf a token stands, in the order of the slots."""

    FULL = 0
    PARTIAL = 1
    EMPTY = 2
    ON_SALE = 3


def region_of(owner: Prosumer, slot: int) -> Region:
    """The region that this slot belongs to."""
    if slot < owner.full:
        return Region.FULL
    if slot < owner.full + owner.partial:
        return Region.PARTIAL
    if slot < owner.full + owner.partial + owner.empty:
        return Region.EMPTY
    return Region.ON_SALE


def region_for(owner: Prosumer, token: Token) -> Region:
    """The region its charge demands in this owner's shelf, which was refreshed."""
    if token.on_sale:
        return Region.ON_SALE
    if token.energy_wh >= owner.capability_wh:
        return Region.FULL
    return Region.PARTIAL if token.energy_wh else Region.EMPTY


def refresh(owner: Prosumer, capability_wh: Wh) -> Prosumer:
    """Tells full from partly charged by the capability of now. O(1): only a border moves."""
    if owner.capability_wh == capability_wh:
        return owner
    if capability_wh < owner.capability_wh:
        return owner._replace(capability_wh=capability_wh)
    return owner._replace(
        capability_wh=capability_wh,
        full=0,
        full_wh=Wh(0),
        partial=owner.full + owner.partial,
        partial_wh=Wh(owner.full_wh + owner.partial_wh),
    )


def token_at(call: Call, owner: Address, slot: int) -> TokenId:
    """The token in this slot, which is below the number of the owner's tokens."""
    page = call.get(ShelfPage, ShelfPage.key(owner, slot // PAGE_TOKENS))
    if page is None:
        raise AssertionError(f"shelf of 0x{owner.hex()} has no slot {slot}")
    return TokenId(page.token_ids[slot % PAGE_TOKENS])


def add(call: Call, address: Address, owner: Prosumer, token_id: TokenId, token: Token) -> Prosumer:
    """Puts the token into the owner's refreshed shelf, at the end of its region, and gives the owner with its new
    borders and energy. Each region behind makes room by moving its first token to its end. Writes the token, not
    the owner."""
    region = region_for(owner, token)
    counts = _counts(owner)
    hole = sum(counts)
    for behind in range(Region.ON_SALE, region, -1):
        first = sum(counts[:behind])
        if counts[behind]:
            _move(call, address, first, hole)
            hole = first
    _set_slot(call, address, hole, token_id)
    call.put(Token.key(token_id), token._replace(owner=address, slot=hole))
    return _with(owner, region, 1, token.energy_wh)


def remove(call: Call, address: Address, owner: Prosumer, token: Token) -> Prosumer:
    """Takes the token out of the owner's shelf and gives the owner with its new borders and energy. The last token
    of its region fills the hole, and each region behind moves its last token to its front. Writes neither the
    token nor the owner."""
    region = region_of(owner, token.slot)
    counts = _counts(owner)
    hole = token.slot
    for at in range(region, Region.ON_SALE + 1):
        last = sum(counts[: at + 1]) - 1
        if counts[at] and last != hole:
            _move(call, address, last, hole)
            hole = last
    _drop_last(call, address, sum(counts) - 1)
    return _with(owner, region, -1, token.energy_wh)


def _counts(owner: Prosumer) -> tuple[int, int, int, int]:
    return owner.full, owner.partial, owner.empty, owner.on_sale


def _with(owner: Prosumer, region: Region, count: int, energy_wh: Wh) -> Prosumer:
    """The owner with `count` (1 or -1) tokens of this energy more in the region."""
    if region is Region.FULL:
        return owner._replace(full=owner.full + count, full_wh=Wh(owner.full_wh + count * energy_wh))
    if region is Region.PARTIAL:
        return owner._replace(
            partial=owner.partial + count, partial_wh=Wh(owner.partial_wh + count * energy_wh)
        )
    if region is Region.EMPTY:
        return owner._replace(empty=owner.empty + count)
    return owner._replace(on_sale=owner.on_sale + count)


def _move(call: Call, owner: Address, source: int, target: int) -> None:
    token_id = token_at(call, owner, source)
    _set_slot(call, owner, target, token_id)
    key = Token.key(token_id)
    token = call.get(Token, key)
    if token is None:
        raise AssertionError(f"slot {source} of 0x{owner.hex()} names no token: {token_id}")
    call.put(key, token._replace(slot=target))


def _set_slot(call: Call, owner: Address, slot: int, token_id: TokenId) -> None:
    """Writes one slot; the slot just behind the last one makes the shelf longer."""
    key = ShelfPage.key(owner, slot // PAGE_TOKENS)
    page = call.get(ShelfPage, key)
    ids = page.token_ids if page else ()
    at = slot % PAGE_TOKENS
    call.put(key, ShelfPage((*ids[:at], token_id, *ids[at + 1 :])))


def _drop_last(call: Call, owner: Address, slot: int) -> None:
    key = ShelfPage.key(owner, slot // PAGE_TOKENS)
    page = call.get(ShelfPage, key)
    if page is None:
        raise AssertionError(f"shelf of 0x{owner.hex()} has no slot {slot}")
    call.put(key, ShelfPage(page.token_ids[:-1]) if len(page.token_ids) > 1 else None)
