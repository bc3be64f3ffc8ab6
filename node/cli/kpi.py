"""`ctt kpi`: what homes and their community come to over a time: self-consumption, self-sufficiency, shared energy,
savings, CO2 (docs/KPI.md).

Reads a database that `ctt index` keeps. Files and JSON have exact figures, in Wh, wei and mg; the table is rounded.
"""

import argparse
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from apps.kpi.export import EPOCH, TooLarge, as_json, write_csv, write_parquet
from apps.kpi.factors import Factors, InvalidFactors, read_factors
from apps.kpi.history import History, NoHistory, day_span, open_history
from apps.kpi.indicators import Indicators, Span, Terms, indicators
from ctt_state.units import MS_PER_HOUR, hex_of
from node.cli.options import DECIMALS, add_json, add_progress, address, day
from node.cli.output import columns, print_table
from node.cli.progress import progress
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt kpi --database sqlite:///data/index.db
  ctt kpi --database sqlite:///data/index.db --from 2026-06-01 --to 2026-06-30 --by day --community
  ctt kpi --database postgresql://reader@db.example/energy --by hour --parquet june.parquet
"""
MG_PER_KG: Final = 1_000_000
WEI_PER_COIN: Final = 10**DECIMALS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "kpi", help="key figures of homes and their community", description=__doc__, epilog=EPILOG
    )
    add_database(parser)
    parser.add_argument(
        "--by",
        choices=("hour", "day", "whole"),
        default="whole",
        help="a row for each (default: %(default)s)",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--home",
        type=address,
        action="append",
        metavar="ADDRESS",
        help="this home only; may be given several times (default: each, and the community)",
    )
    who.add_argument("--community", action="store_true", help="all together only")
    parser.add_argument(
        "--factors", type=Path, metavar="FILE", help="CO2 by source, as apps/kpi/factors.csv (default: that)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a table of all figures")
    form.add_argument("--parquet", type=Path, metavar="FILE", help="the same for data tools; needs pyarrow")
    add_json(form)
    add_progress(parser, "reckoning")
    parser.set_defaults(run=run)


def add_database(parser: argparse.ArgumentParser) -> None:
    """Where the history is, and which of its days are asked for."""
    parser.add_argument(
        "--database",
        required=True,
        metavar="URL",
        help="that `ctt index` keeps: sqlite:///FILE or postgresql://USER@HOST/NAME",
    )
    parser.add_argument(
        "--from", dest="first", type=day, metavar="DAY", help="such as 2026-06-01 (default: the first)"
    )
    parser.add_argument("--to", dest="last", type=day, metavar="DAY", help="included (default: the last)")


def run(options: argparse.Namespace) -> int:
    """Raises: Failure: 64 the days or the factors, 66 a file or pyarrow is missing, 69 no history, 73 the file."""
    try:
        with progress(options), open_history(options.database) as history:
            rows = _reckon(history, options)
    except NoHistory as fault:
        raise Failure(Exit.UNAVAILABLE, f"no history in the database: {fault}") from None
    if options.csv or options.parquet:
        _write(rows, options)
    elif options.json:
        print(as_json(rows))
    else:
        _show(rows)
    return 0


def days_of(history: History, options: argparse.Namespace) -> Span:
    """Raises: Failure (64)."""
    span = history.days(options.first, options.last)
    if span.start_ms >= span.end_ms:
        raise Failure(Exit.USAGE, "--from is after --to, or after all history")
    return span


def _reckon(history: History, options: argparse.Namespace) -> list[Indicators]:
    span = days_of(history, options)
    spans: dict[str, Callable[[int], Span]] = {
        "hour": lambda start_ms: Span(start_ms, start_ms + MS_PER_HOUR),
        "day": lambda start_ms: day_span(start_ms, history.zone),
        "whole": lambda _: span,
    }
    terms = Terms(history.tariffs(), _read_factors(options.factors))
    rows = indicators(history.homes(span, options.home or ()), terms, spans[options.by])
    if options.community:
        return [row for row in rows if row.home is None]
    return [row for row in rows if row.home] if options.home else rows


def _read_factors(file: Path | None) -> Factors:
    try:
        return read_factors(file)
    except InvalidFactors as fault:
        raise Failure(Exit.USAGE, f"{file}: {fault}") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise Failure(Exit.MISSING, f"{file} cannot be read: {fault}") from None


def _write(rows: list[Indicators], options: argparse.Namespace) -> None:
    file = options.csv or options.parquet
    try:
        (write_csv if options.csv else write_parquet)(rows, file)
    except ImportError:
        raise Failure(Exit.MISSING, "pyarrow is not installed; --csv needs nothing more") from None
    except TooLarge as fault:
        raise Failure(Exit.CANNOT_CREATE, f"a figure is too large for {file}: {fault}; take --csv") from None
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{file} cannot be written: {fault}") from None
    print(f"{len(rows)} rows are in {file}")


def _show(rows: list[Indicators]) -> None:
    table = columns(
        *("from", "home", "produced kWh>", "consumed kWh>", "self-consumption>", "self-sufficiency>"),
        *("renewable>", "shared kWh>", "savings>", "CO2 kg>", "avoided kg>"),
    )
    for row in rows:
        table.add_row(
            f"{EPOCH + timedelta(milliseconds=row.span.start_ms):%Y-%m-%d %H:%M}Z",
            hex_of(row.home) if row.home else "community",
            *[f"{Decimal(wh) / 1_000:,.3f}" for wh in (row.produced_wh, row.consumed_wh)],
            *[_percent(share) for share in (row.self_consumption, row.self_sufficiency, row.renewable_share)],
            f"{Decimal(row.shared_wh) / 1_000:,.3f}",
            f"{Decimal(row.savings_wei) / WEI_PER_COIN:,.4f}",
            *[f"{Decimal(mg) / MG_PER_KG:,.3f}" for mg in (row.co2_mg, row.co2_avoided_mg)],
        )
    print_table(table)


def _percent(share: Decimal | None) -> str:
    return "" if share is None else f"{share * 100:.1f} %"
