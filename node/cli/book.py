"""The order book and other lists of the market on a terminal, out of the answers of `ctt_*` methods."""

import sys
from typing import Any, Final

from rich.console import Console

from apps.curves import Step, stairs
from node.cli.options import format_energy, format_price
from node.cli.output import columns, print_table

CHART_COLUMNS: Final = 64
CHART_ROWS: Final = 11
WIDE_COLUMNS: Final = 130  # from which on wishes have room


def print_book(book: dict[str, Any], rows: int) -> None:
    """Bids on the left, asks on the right, the best of both on top. Where there is no room for wishes, a star says that
    an order has some."""
    is_wide = not sys.stdout.isatty() or Console().width >= WIDE_COLUMNS
    left = ["buyer", *(["wishes"] if is_wide else []), "order>", "kWh>", "bid>"]
    right = ["ask", *left[-2:0:-1], "seller"]
    table = columns(*left, *right)
    for row in range(min(rows, max(len(book["bids"]), len(book["asks"])))):
        bid, ask = (side[row] if row < len(side) else None for side in (book["bids"], book["asks"]))
        table.add_row(*_side(bid, is_wide=is_wide), *reversed(_side(ask, is_wide=is_wide)))
    if table.row_count:
        print()
        print_table(table)
        hidden = max(book["bidCount"], book["askCount"]) - table.row_count
        if hidden > 0:
            print(f"and {hidden} more: --orders 100, or ctt_orderBook")


def _side(order: dict[str, Any] | None, *, is_wide: bool) -> list[str]:
    if order is None:
        return [""] * (5 if is_wide else 4)
    owner = f"{order['owner'][:6]}…{order['owner'][-4:]}"
    wishes, limit = wishes_of(order), price_of(order, "limit")
    figures = [str(order["orderId"]), kwh_of(order)]
    if is_wide:
        return [owner, wishes, *figures, limit]
    return [owner, *figures, f"{limit}{'*' if wishes else ''}"]


def print_stairs(book: dict[str, Any]) -> None:
    bids, asks = (
        [Step(int(each["energyWh"]), int(each["limitWeiPerWh"])) for each in book[side]]
        for side in ("bids", "asks")
    )
    rows = stairs(bids, asks, columns=CHART_COLUMNS, rows=CHART_ROWS)
    if not rows:
        return
    most = max(sum(step.energy_wh for step in side) for side in (bids, asks))
    print("\n  per kWh   demand ━━━   supply ═══   (limits and whole orders, wishes apart)")
    for at, (price, row) in enumerate(rows):
        label = rounded_price(price) if at % 2 == 0 else ""
        print(f"{label:>9} ┤{row}")
    print(f"{'':>9} └{'─' * CHART_COLUMNS}")
    end = f"{format_energy(most)} kWh"
    print(f"{'':>10} 0{end:>{CHART_COLUMNS - 1}}")


def rounded_price(price: int) -> str:
    """Three decimals, rounded down: for axes and ranges."""
    thousandths = price * 1_000 // 10**15
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def price_of(members: dict[str, Any], name: str) -> str:
    return format_price(int(members[f"{name}WeiPerWh"]))


def kwh_of(members: dict[str, Any]) -> str:
    return format_energy(int(members["energyWh"]))


def wishes_of(order: dict[str, Any]) -> str:
    sources = [f"{each['source']} {price_of(each, 'limit')}" for each in order["sources"]]
    partners = [f"{each['partner'][:8]}… {price_of(each, 'limit')}" for each in order["partners"]]
    return ", ".join([*sources, *partners])
