"""What anyone may ask of the book, of orders and of auctions."""

from typing import Any, Final

from ctt_state.modules.call import Call
from ctt_state.modules.market.book import orders_in
from ctt_state.modules.market.module import (
    MARKET,
    InvalidLimit,
    UnknownAuction,
    auction_now,
    order_of,
    rules_of,
    standing_of,
)
from ctt_state.records import AUCTIONS_KEPT, Auction, Order
from ctt_state.units import Address

ORDERS_PER_VIEW_MAX: Final = 100

_ORDER: Final = (
    "(uint256 id,address owner,address placer,bool isBid,uint256 energy,uint256 price,uint64 expiryAuction,"
    "(uint8 source,uint256 price)[] sources,(address partner,uint256 price)[] partners)"
)


@MARKET.function("currentAuction() view returns (uint256 auction,uint64 lastBlock)")
def current_auction(call: Call) -> tuple[int, int]:
    """The auction that takes orders in this block, and its last block: the one after that begins with its clearing.

    Raises: NoMarket.
    """
    auction = auction_now(call)
    return auction, auction * rules_of(call).auction_blocks


@MARKET.function(
    "auction(uint256 number) view returns (uint256 price,uint256 energy,uint256 bids,uint256 asks,uint64 height)"
)
def auction(call: Call, number: int) -> tuple[int, int, int, int, int]:
    """What a past auction came to; all zero when no order stood. `height` is of the block that cleared it.

    Raises: NoMarket, UnknownAuction for one that is not cleared, or older than the last 4,096.
    """
    newest = auction_now(call) - 1
    oldest = max(newest - AUCTIONS_KEPT + 1, 1)
    if not oldest <= number <= newest:
        raise UnknownAuction(number, oldest, newest)
    found = call.get(Auction, Auction.key(number))
    if found is None or found.number != number:
        return 0, 0, 0, 0, 0
    return found.price_wei_per_wh, found.energy_wh, found.bids, found.asks, found.height


@MARKET.function(f"order(uint256 orderId) view returns ({_ORDER} found)")
def order(call: Call, order_id: int) -> tuple[Any, ...]:
    """A standing order, with the energy that is still to be traded. Raises: UnknownOrder."""
    return _shown(order_id, order_of(call, order_id))


@MARKET.function(f"orderBook(uint256 offset,uint256 limit) view returns ({_ORDER}[] found)")
def order_book(call: Call, offset: int, limit: int) -> list[tuple[Any, ...]]:
    """Up to `limit` standing orders from that place in the book on; places mean nothing. Raises: InvalidLimit."""
    if limit > ORDERS_PER_VIEW_MAX:
        raise InvalidLimit(limit, ORDERS_PER_VIEW_MAX)
    return [_shown(order_id, found) for order_id, found in orders_in(call, offset, limit)]


@MARKET.function("standingOrders(address owner) view returns (uint256 bid,uint256 ask)")
def standing_orders(call: Call, owner: Address) -> tuple[int, int]:
    """The ids of the account's standing orders, 0 for none."""
    return standing_of(call, owner)


def _shown(order_id: int, found: Order) -> tuple[Any, ...]:
    what = found.is_bid, found.energy_wh, found.limit_wei_per_wh, found.expiry_auction
    return (order_id, found.owner, found.placer, *what, found.sources, found.partners)
