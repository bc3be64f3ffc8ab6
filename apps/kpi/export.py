"""Key figures as rows of a table: CSV, Parquet and JSON, with the same names and figures in each.

Nothing is rounded. Times are those of UTC, addresses 0x and 40 digits, and the community has an empty one. In Parquet
energy has 64 bits and money 38 digits; JSON has both as text, since its readers are exact up to 2**53 only.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from apps.kpi.indicators import Indicators
from ctt_state.units import hex_of

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MONEY_DIGITS: Final = 38

_RATIOS: Final = ("self_consumption", "self_sufficiency", "renewable_share")
_FIGURES: Final = (*Indicators._fields[2:], "savings_wei")
COLUMNS: Final = ("start", "end", "home", *_FIGURES)

Row = tuple[Any, ...]


class TooLarge(ValueError):
    """A figure has more digits than the file's columns."""


def row_of(indicators: Indicators) -> Row:
    """In the order of COLUMNS."""
    span, home = indicators.span, indicators.home
    return (
        _moment(span.start_ms),
        _moment(span.end_ms),
        None if home is None else hex_of(home),
        *[getattr(indicators, name) for name in _FIGURES],
    )


def write_csv(rows: Iterable[Indicators], file: Path) -> None:
    """What there is none of is empty. Raises: OSError."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_plain(value) for value in row_of(each)] for each in rows)


def write_parquet(rows: Sequence[Indicators], file: Path) -> None:
    """Raises: ImportError where pyarrow is not installed, TooLarge, OSError."""
    import pyarrow
    import pyarrow.parquet

    columns = zip(*[row_of(each) for each in rows], strict=True) if rows else [()] * len(COLUMNS)
    schema = pyarrow.schema([(name, _parquet_type(name)) for name in COLUMNS])
    try:
        table = pyarrow.table(
            [pyarrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema
        )
    except (pyarrow.ArrowInvalid, OverflowError) as fault:
        raise TooLarge(str(fault)) from None
    pyarrow.parquet.write_table(table, file)


def as_json(rows: Iterable[Indicators]) -> str:
    told = [
        {
            name: None if value is None else _plain(value)
            for name, value in zip(COLUMNS, row_of(each), strict=True)
        }
        for each in rows
    ]
    return json.dumps(told, indent=2)


def _parquet_type(name: str) -> Any:
    import pyarrow

    if name in ("start", "end"):
        return pyarrow.timestamp("ms", tz="UTC")
    if name == "home":
        return pyarrow.string()
    if name in _RATIOS:
        return pyarrow.decimal128(7, 6)
    return pyarrow.decimal128(MONEY_DIGITS, 0) if name.endswith("_wei") else pyarrow.int64()


def _moment(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time_ms)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else str(value)
