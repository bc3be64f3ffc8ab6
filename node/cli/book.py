"""The order book and other lists of the market on a terminal, out of the answers of `ctt_*` methods."""

import sys
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from apps.curves import Step, stairs
from node.cli.options import format_energy, format_price

CHART_COLUMNS: Final = 64
CHART_ROWS: Final = 11
FILE_COLUMNS: Final = 500


def print_book(book: dict[str, Any], rows: int) -> None:
    """Bids on the left, asks on the right, the best of both on top."""
    table = columns(
        "buyer", "wishes~", "order>", "kWh>", "bid>", "ask", "kWh>", "order>", "wishes~", "seller"
    )
    for row in range(min(rows, max(len(book["bids"]), len(book["asks"])))):
        bid, ask = (side[row] if row < len(side) else None for side in (book["bids"], book["asks"]))
        left = _side(bid)
        table.add_row(*left, *reversed(_side(ask)))
    if table.row_count:
        print()
        print_table(table)
        hidden = max(book["bidCount"], book["askCount"]) - table.row_count
        if hidden > 0:
            print(f"and {hidden} more: --orders 100, or ctt_orderBook")


def _side(order: dict[str, Any] | None) -> list[str]:
    if order is None:
        return [""] * 5
    owner = f"{order['owner'][:8]}…{order['owner'][-4:]}"
    return [owner, wishes_of(order), str(order["orderId"]), kwh_of(order), price_of(order, "limit")]


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
        label = _rounded(price) if at % 2 == 0 else ""
        print(f"{label:>9} ┤{row}")
    print(f"{'':>9} └{'─' * CHART_COLUMNS}")
    end = f"{format_energy(most)} kWh"
    print(f"{'':>10} 0{end:>{CHART_COLUMNS - 1}}")


def _rounded(price: int) -> str:
    """Three decimals, rounded down: a place on an axis."""
    thousandths = price * 1_000 // 10**15
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def columns(*titles: str) -> Table:
    """Columns whose title ends with > are aligned to the right; one that ends with ~ is wrapped where room is short."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title.endswith(">") else "left"
        table.add_column(title.rstrip(">~"), justify=justify, no_wrap=not title.endswith("~"))
    return table


def print_table(table: Table) -> None:
    """A file or a pipe is as wide as it takes."""
    width = None if sys.stdout.isatty() else FILE_COLUMNS
    Console(highlight=False, width=width).print(table)


def price_of(members: dict[str, Any], name: str) -> str:
    return format_price(int(members[f"{name}WeiPerWh"]))


def kwh_of(members: dict[str, Any]) -> str:
    return format_energy(int(members["energyWh"]))


def wishes_of(order: dict[str, Any]) -> str:
    sources = [f"{each['source']} {price_of(each, 'limit')}" for each in order["sources"]]
    partners = [f"{each['partner'][:8]}… {price_of(each, 'limit')}" for each in order["partners"]]
    return ", ".join([*sources, *partners])
