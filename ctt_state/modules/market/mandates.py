"""Mandates: an owner lets a platform trade for it within limits, without giving away a key.

A mandate bounds the energy that is traded, the money that is spent, the prices and the time. What is traded counts,
not what is ordered. Granting another or revoking it ends the orders that the platform has placed; the owner may
replace or cancel every order of its own, the platform only those that it has placed.
"""

from ctt_state.modules.call import Call
from ctt_state.modules.market.module import (
    MARKET,
    AuctionOver,
    InvalidAmount,
    InvalidPlatform,
    MandateGranted,
    MandateRevoked,
    NoMandate,
    NotPlacer,
    OutsideMandate,
    auction_now,
    order_of,
    standing_of,
)
from ctt_state.modules.market.orders import Prices, end, highest_price, lowest_price, make_order, place
from ctt_state.records import Mandate, Order
from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address, Wei, Wh


@MARKET.function(
    "grantMandate(address platform,uint256 energyWh,uint256 spendWei,uint256 buyLimit,uint256 sellLimit,"
    "uint64 expiryAuction)"
)
def grant_mandate(
    call: Call, platform: Address, energy: Wh, spend: Wei, buy_limit: Wei, sell_limit: Wei, expiry: int
) -> None:
    """The platform may trade up to so many Wh for the sender and spend up to so many wei, grid fees included, with
    bids of at most `buy_limit` and asks of at least `sell_limit` wei per Wh, until the end of that auction.

    Raises: NoMarket, InvalidPlatform, InvalidAmount for the energy and the two limits, AuctionOver, in that order.
    """
    now = auction_now(call)
    if platform in (ZERO_ADDRESS, call.sender):
        raise InvalidPlatform(platform)
    for amount, most in ((energy, UINT64_MAX), (buy_limit, PRICE_MAX), (sell_limit, PRICE_MAX)):
        if amount > most:
            raise InvalidAmount(amount, 0, most)
    if expiry < now:
        raise AuctionOver(expiry, now)
    _end_orders(call, call.sender, platform)
    mandate = Mandate(energy, spend, buy_limit, sell_limit, expiry)
    call.put(Mandate.key(call.sender, platform), mandate)
    call.emit(MandateGranted(call.sender, platform, *mandate))


@MARKET.function("revokeMandate(address platform)")
def revoke_mandate(call: Call, platform: Address) -> None:
    """Takes back what the platform may do for the sender, and what it has ordered. Raises: NoMandate."""
    _mandate_of(call, call.sender, platform)
    _end_orders(call, call.sender, platform)
    call.put(Mandate.key(call.sender, platform), None)
    call.emit(MandateRevoked(call.sender, platform))


@MARKET.function(
    "bidFor(address owner,uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction) returns (uint256 orderId)"
)
def bid_for(call: Call, owner: Address, energy: Wh, limit: Wei, expiry: int) -> int:
    """`bid` for an owner who has granted the sender a mandate. Raises: see `place_for`."""
    return place_for(call, make_order(owner, call.sender, True, energy, limit, expiry))


@MARKET.function(
    "askFor(address owner,uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction) returns (uint256 orderId)"
)
def ask_for(call: Call, owner: Address, energy: Wh, limit: Wei, expiry: int) -> int:
    """`ask` for an owner who has granted the sender a mandate. Raises: see `place_for`."""
    return place_for(call, make_order(owner, call.sender, False, energy, limit, expiry))


@MARKET.function(
    "bidFor(address owner,uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction,(uint8 source,uint256 weiPerWh)[]"
    " sources,(address partner,uint256 weiPerWh)[] partners) returns (uint256 orderId)"
)
def bid_for_with_wishes(
    call: Call,
    owner: Address,
    energy: Wh,
    limit: Wei,
    expiry: int,
    sources: Prices[int],
    partners: Prices[Address],
) -> int:
    """The same with wishes; no maximum may pass the mandate's. Raises: see `place_for`."""
    return place_for(call, make_order(owner, call.sender, True, energy, limit, expiry, sources, partners))


@MARKET.function(
    "askFor(address owner,uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction,"
    "(address partner,uint256 weiPerWh)[] partners) returns (uint256 orderId)"
)
def ask_for_with_wishes(
    call: Call, owner: Address, energy: Wh, limit: Wei, expiry: int, partners: Prices[Address]
) -> int:
    """The same with partners; no price may be below the mandate's. Raises: see `place_for`."""
    return place_for(call, make_order(owner, call.sender, False, energy, limit, expiry, (), partners))


@MARKET.function("cancelFor(uint256 orderId)")
def cancel_for(call: Call, order_id: int) -> None:
    """Ends a standing order that the sender has placed for somebody. Raises: UnknownOrder, NotPlacer, in that order."""
    order = order_of(call, order_id)
    _check_placer(call, order_id, order)
    end(call, order_id, order)


@MARKET.function(
    "mandate(address owner,address platform) view returns (uint256 energy,uint256 spend,uint256 buyLimit,"
    "uint256 sellLimit,uint64 expiryAuction)"
)
def mandate(call: Call, owner: Address, platform: Address) -> Mandate:
    """What is left of the mandate. Raises: NoMandate."""
    return _mandate_of(call, owner, platform)


def place_for(call: Call, order: Order) -> int:
    """Puts the order into the book for its owner. Returns its id.

    Raises: NoMandate, OutsideMandate for the expiry, the energy and the price, NotPlacer when the owner's standing
    order is not of the sender, then see `orders.place`.
    """
    given = _mandate_of(call, order.owner, call.sender)
    asked = [(order.expiry_auction, given.expiry_auction), (order.energy_wh, given.energy_wh)]
    if order.is_bid:
        asked.append((highest_price(order), given.buy_limit_wei_per_wh))
    for amount, most in asked:
        if amount > most:
            raise OutsideMandate(amount, most)
    if not order.is_bid and lowest_price(order) < given.sell_limit_wei_per_wh:
        raise OutsideMandate(lowest_price(order), given.sell_limit_wei_per_wh)
    standing = standing_of(call, order.owner)
    replaced = standing.bid if order.is_bid else standing.ask
    if replaced:
        _check_placer(call, replaced, order_of(call, replaced))
    return place(call, order)


def _mandate_of(call: Call, owner: Address, platform: Address) -> Mandate:
    found = call.get(Mandate, Mandate.key(owner, platform))
    if found is None:
        raise NoMandate(owner, platform)
    return found


def _check_placer(call: Call, order_id: int, order: Order) -> None:
    """An owner's own order is its own business. Raises: NotPlacer."""
    if order.placer != call.sender or order.owner == call.sender:
        raise NotPlacer(order_id, order.placer, call.sender)


def _end_orders(call: Call, owner: Address, platform: Address) -> None:
    for order_id in standing_of(call, owner):
        if order_id:
            order = order_of(call, order_id)
            if order.placer == platform:
                end(call, order_id, order)
