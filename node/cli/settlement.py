"""`ctt settlement`: what each Wh of a home's metered quarter hours was, and what it cost: own production, partners,
auction, the operator's tariff (docs/SETTLEMENT.md).

Reads a database that `ctt index` keeps; the figures are exact, in Wh and wei.
"""

import argparse
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from apps.kpi.history import NoHistory, open_history
from apps.kpi.indicators import Span
from ctt_state.settlement import (
    Event,
    Position,
    Settlement,
    Stock,
    StockExceeded,
    join,
    least_stock_wh,
    settle,
)
from ctt_state.units import ZERO_ADDRESS, Ms, Wh, hex_of
from node.cli.kpi import add_database, days_of
from node.cli.options import add_json, add_progress, address, format_amount, positive_int
from node.cli.output import columns, print_table, show
from node.cli.progress import progress
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt settlement 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --database sqlite:///data/index.db
  ctt settlement 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --database postgresql://reader@db.example/energy \\
      --from 2026-06-01 --to 2026-06-30 --json
"""
MS_PER_SECOND: Final = 1_000
PROPERTIES: Final = (
    *("consumed_wh", "produced_wh", "bought_wh", "sold_wh", "paid_wei", "received_wei"),
    *("sold_deviation_wh", "bought_deviation_wh"),
)


class Statement(NamedTuple):
    """A prosumer's slots of a time, with its stock before and after all events up to the database's last block."""

    prosumer: bytes
    height: int
    opening: Stock
    closing: Stock
    slots: list[Settlement]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "settlement", help="what each Wh of a home was, and what it cost", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("prosumer", type=address, metavar="PROSUMER")
    add_database(parser)
    parser.add_argument(
        "--opening",
        type=positive_int,
        metavar="WH",
        help="what its tokens held when the chain began (default: the least that its history allows)",
    )
    add_json(parser)
    add_progress(parser, "settling")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Raises: Failure: 64 the days or the opening, 69 there is no history."""
    try:
        with progress(options), open_history(options.database) as history:
            span, height = days_of(history, options), history.height
            events = history.events(options.prosumer)
            statement = _settle(options.prosumer, height, events, span, options.opening)
    except NoHistory as fault:
        raise Failure(Exit.UNAVAILABLE, f"no history in the database: {fault}") from None
    if options.json:
        show(options, [], summarise(statement))
    else:
        _print(statement)
    return 0


def _settle(
    prosumer: bytes, height: int, events: list[Event], span: Span, opening_wh: int | None
) -> Statement:
    opening = Stock(own_wh=least_stock_wh(events) if opening_wh is None else Wh(opening_wh))
    try:
        settled, position = settle(events, Position(opening))
    except StockExceeded as fault:
        raise Failure(Exit.USAGE, f"--opening {opening_wh} is too small: {fault}") from None
    slots = [slot for slot in settled if span.start_ms <= slot.start_ms < span.end_ms]
    return Statement(prosumer, height, opening, position.stock, slots)


def summarise(statement: Statement) -> dict[str, Any]:
    """Energy and money as text: they pass what JSON's readers take for a number."""
    return {
        "prosumer": hex_of(statement.prosumer),
        "height": statement.height,
        "opening": _figures(statement.opening._asdict()),
        "slots": [
            {
                "startMs": slot.start_ms,
                "meter": hex_of(slot.meter),
                **_figures(dict(zip(Settlement._fields[2:], slot[2:], strict=True))),
                **_figures({name: getattr(slot, name) for name in PROPERTIES}),
            }
            for slot in statement.slots
        ],
        "closing": _figures(statement.closing._asdict()),
    }


def _figures(figures: dict[str, Any]) -> dict[str, str]:
    return {_camel(name): str(value) for name, value in figures.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _print(statement: Statement) -> None:
    table = columns(
        *("slot", "consumed>", "own>", "partners>", "auction>", "tariff>", "produced>", "stored>", "fed in>"),
        *("bought>", "sold>", "sold-produced>", "paid>", "received>"),
    )
    for slot in statement.slots:
        start = datetime.fromtimestamp(slot.start_ms // MS_PER_SECOND, UTC)
        table.add_row(f"{start:%Y-%m-%d %H:%M}Z", *_cells(slot))
    if statement.slots:
        (total,) = join(slot._replace(start_ms=Ms(0), meter=ZERO_ADDRESS) for slot in statement.slots)
        table.add_row("all", *_cells(total))
    print_table(table)
    own, partners, auction = statement.closing
    print(
        f"tokens after block {statement.height}: {own:,} Wh own, {partners:,} Wh of partners, {auction:,} Wh bought"
    )


def _cells(slot: Settlement) -> list[str]:
    """In Wh, then in the currency's own units."""
    used = (slot.consumed_wh, slot.own_used_wh, slot.partner_used_wh, slot.auction_used_wh, slot.billed_wh)
    made = (slot.produced_wh, slot.stored_wh, slot.fed_in_wh)
    energy = (*used, *made, slot.bought_wh, slot.sold_wh, slot.sold_deviation_wh)
    return [*[f"{wh:,}" for wh in energy], format_amount(slot.paid_wei), format_amount(slot.received_wei)]
