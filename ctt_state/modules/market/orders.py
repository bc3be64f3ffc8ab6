"""Placing and cancelling orders. An order is an intent: nothing is locked, and it counts at each clearing for what its
owner can deliver then.

An account has at most one standing bid and one standing ask; a new one replaces the old and goes behind the others in
time. A place in the book takes a token: who owns none can neither give nor take energy, and a book cannot be filled
for nothing.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import prosumer_of
from ctt_state.modules.market.book import put_in, take_out
from ctt_state.modules.market.module import (
    MARKET,
    AuctionOver,
    BookFull,
    CrossesOwnOrder,
    InvalidAmount,
    InvalidPartner,
    InvalidSource,
    NoTokens,
    NotOwner,
    OrderCancelled,
    OrderPlaced,
    TooManyWishes,
    auction_now,
    book_of,
    order_of,
    rules_of,
    standing_of,
)
from ctt_state.origin import SOURCE_MAX
from ctt_state.records import Order
from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address, Wei, Wh

PARTNERS_MAX: Final = 4  # that one order names

Name = TypeVar("Name", int, Address)
Prices = Sequence[tuple[Name, Wei]]


@MARKET.function("bid(uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction) returns (uint256 orderId)")
def bid(call: Call, energy: Wh, limit: Wei, expiry: int) -> int:
    """The sender buys up to so many Wh, each for at most so many wei and the grid fee on top, until the end of that
    auction.

    Raises: see `place`.
    """
    return place(call, make_order(call.sender, call.sender, True, energy, limit, expiry))


@MARKET.function("ask(uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction) returns (uint256 orderId)")
def ask(call: Call, energy: Wh, limit: Wei, expiry: int) -> int:
    """The sender sells up to so many Wh, each for at least so many wei, until the end of that auction.

    Raises: see `place`.
    """
    return place(call, make_order(call.sender, call.sender, False, energy, limit, expiry))


@MARKET.function(
    "bid(uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction,(uint8 source,uint256 weiPerWh)[] sources,"
    "(address partner,uint256 weiPerWh)[] partners) returns (uint256 orderId)"
)
def bid_with_wishes(
    call: Call, energy: Wh, limit: Wei, expiry: int, sources: Prices[int], partners: Prices[Address]
) -> int:
    """`bid` with other maxima for energy of some sources, and for what these partners nominate to the sender. A
    partner's counts before a source's, and that before the general one.

    Raises: see `place`.
    """
    return place(call, make_order(call.sender, call.sender, True, energy, limit, expiry, sources, partners))


@MARKET.function(
    "ask(uint256 energyWh,uint256 weiPerWh,uint64 expiryAuction,(address partner,uint256 weiPerWh)[] partners)"
    " returns (uint256 orderId)"
)
def ask_with_wishes(call: Call, energy: Wh, limit: Wei, expiry: int, partners: Prices[Address]) -> int:
    """`ask` that serves these partners first, in this order and each at its price; 0 makes it a gift.

    Raises: see `place`.
    """
    return place(call, make_order(call.sender, call.sender, False, energy, limit, expiry, (), partners))


@MARKET.function("cancel(uint256 orderId)")
def cancel(call: Call, order_id: int) -> None:
    """Ends a standing order of the sender's, whoever placed it. Raises: UnknownOrder, NotOwner, in that order."""
    order = order_of(call, order_id)
    if order.owner != call.sender:
        raise NotOwner(order_id, order.owner, call.sender)
    end(call, order_id, order)


def make_order(
    owner: Address,
    placer: Address,
    is_bid: bool,
    energy: Wh,
    limit: Wei,
    expiry: int,
    sources: Prices[int] = (),
    partners: Prices[Address] = (),
) -> Order:
    """An order that has no slot yet."""
    return Order(owner, is_bid, energy, limit, expiry, 0, placer, tuple(sources), tuple(partners))


def place(call: Call, order: Order) -> int:
    """Puts the order into the book in place of its owner's standing one. Returns its id.

    Raises: NoMarket, InvalidAmount for the energy, the price and each wish's price, TooManyWishes, InvalidSource,
    InvalidPartner, AuctionOver, NoTokens, CrossesOwnOrder, BookFull, in that order.
    """
    rules = rules_of(call)
    _check_amount(order.energy_wh, 1, UINT64_MAX)
    for price in (order.limit_wei_per_wh, *[price for _, price in (*order.sources, *order.partners)]):
        _check_amount(price, 0, PRICE_MAX)
    _check_wishes(order)
    if order.expiry_auction < auction_now(call):
        raise AuctionOver(order.expiry_auction, auction_now(call))
    if not prosumer_of(call, order.owner).tokens:
        raise NoTokens(order.owner)
    standing = standing_of(call, order.owner)
    other = standing.ask if order.is_bid else standing.bid
    if other and crosses(order, order_of(call, other)):
        raise CrossesOwnOrder(other)
    replaced = standing.bid if order.is_bid else standing.ask
    if not replaced and book_of(call).standing >= rules.orders_max:
        raise BookFull(rules.orders_max)

    if replaced:
        end(call, replaced, order_of(call, replaced))
    order_id = put_in(call, order)
    what = order.is_bid, order.energy_wh, order.limit_wei_per_wh, order.expiry_auction
    call.emit(OrderPlaced(order_id, order.owner, order.placer, *what))
    return order_id


def end(call: Call, order_id: int, order: Order) -> None:
    """Takes an order out of the book before its time."""
    take_out(call, order_id, order)
    call.emit(OrderCancelled(order_id, order.owner, order.energy_wh))


def crosses(order: Order, other: Order) -> bool:
    """Whether a bid and an ask of one account could both be served in one auction, even with each other."""
    wanted, offered = (order, other) if order.is_bid else (other, order)
    return highest_price(wanted) >= lowest_price(offered)


def highest_price(order: Order) -> Wei:
    """The most that a bid pays for a Wh of any energy, grid fee apart."""
    return max([order.limit_wei_per_wh, *[price for _, price in (*order.sources, *order.partners)]])


def lowest_price(order: Order) -> Wei:
    """The least for which an ask gives a Wh to anybody."""
    return min([order.limit_wei_per_wh, *[price for _, price in order.partners]])


def _check_amount(amount: int, minimum: int, maximum: int) -> None:
    if not minimum <= amount <= maximum:
        raise InvalidAmount(amount, minimum, maximum)


def _check_wishes(order: Order) -> None:
    """Each source and each partner at most once. Raises: TooManyWishes, InvalidSource, InvalidPartner."""
    for wishes, most in ((order.sources, SOURCE_MAX + 1), (order.partners, PARTNERS_MAX)):
        if len(wishes) > most:
            raise TooManyWishes(len(wishes), most)
    sources = [source for source, _ in order.sources]
    partners = [partner for partner, _ in order.partners]
    for at, source in enumerate(sources):
        if source > SOURCE_MAX or source in sources[:at]:
            raise InvalidSource(source, SOURCE_MAX)
    for at, partner in enumerate(partners):
        if partner in (ZERO_ADDRESS, order.owner) or partner in partners[:at]:
            raise InvalidPartner(partner)
