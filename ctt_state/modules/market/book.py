"""The order book: standing orders in numbered slots without gaps, so that they can be walked through page by page.

Which slot an order has means nothing: its id is its place in time. Taking one out moves the last into its slot.
"""

from ctt_state.modules.call import Call
from ctt_state.modules.market.module import book_of, order_of, standing_of
from ctt_state.records import PAGE_ORDERS, BookPage, MarketBook, Order, Standing
from ctt_state.units import Address


def orders_in(call: Call, first: int, count: int) -> list[tuple[int, Order]]:
    """The orders in so many slots from the first on, as far as there are."""
    last = min(first + count, book_of(call).standing)
    ids: list[int] = []
    for page in range(first // PAGE_ORDERS, -(-last // PAGE_ORDERS)):
        start = page * PAGE_ORDERS
        ids += _page(call, page)[max(first - start, 0) : last - start]
    return [(order_id, order_of(call, order_id)) for order_id in ids]


def put_in(call: Call, order: Order) -> int:
    """Gives the order the next id and a slot, and makes it its owner's standing one. Returns the id."""
    book = book_of(call)
    order_id, slot = book.last_order_id + 1, book.standing
    _set_slot(call, slot, order_id)
    call.put(Order.key(order_id), order._replace(slot=slot))
    call.put(MarketBook.key(), MarketBook(order_id, slot + 1))
    _stand(call, order.owner, is_bid=order.is_bid, order_id=order_id)
    return order_id


def take_out(call: Call, order_id: int, order: Order) -> None:
    """Ends a standing order. The book's last one moves into its slot."""
    book = book_of(call)
    last = book.standing - 1
    page = last // PAGE_ORDERS
    *rest, moved_id = _page(call, page)
    call.put(BookPage.key(page), BookPage(tuple(rest)) if rest else None)
    if moved_id != order_id:
        slot = order_of(call, order_id).slot
        _set_slot(call, slot, moved_id)
        call.put(Order.key(moved_id), order_of(call, moved_id)._replace(slot=slot))
    call.put(Order.key(order_id), None)
    call.put(MarketBook.key(), book._replace(standing=last))
    _stand(call, order.owner, is_bid=order.is_bid, order_id=0)


def _page(call: Call, page: int) -> tuple[int, ...]:
    found = call.get(BookPage, BookPage.key(page))
    return found.order_ids if found else ()


def _set_slot(call: Call, slot: int, order_id: int) -> None:
    """Writes one slot; the slot just behind the last one makes the book longer."""
    page, at = divmod(slot, PAGE_ORDERS)
    ids = _page(call, page)
    call.put(BookPage.key(page), BookPage((*ids[:at], order_id, *ids[at + 1 :])))


def _stand(call: Call, owner: Address, *, is_bid: bool, order_id: int) -> None:
    standing = standing_of(call, owner)
    standing = standing._replace(bid=order_id) if is_bid else standing._replace(ask=order_id)
    call.put(Standing.key(owner), standing if any(standing) else None)
