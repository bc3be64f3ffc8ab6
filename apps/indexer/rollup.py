"""What a prosumer comes to in each quarter of an hour, hour and day. Pure.

A reading tells of the time up to it, so a moment belongs to the period that it lies in the end of or before: after the
start, up to the start of the next. Quarters are those of UTC, hours and days those of a time zone: days begin at its
midnight, and have 23 or 25 hours when its clocks change.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from apps.indexer.rows import Row
from apps.indexer.schema import METERED, TRADED

QUARTER_MS: Final = 900_000
MS_PER_SECOND: Final = 1_000
STARTS_CACHED_MAX: Final = 4_096


class Periods(NamedTuple):
    """Where those begin in which a moment lies, in ms."""

    quarter_ms: int
    hour_ms: int
    day_ms: int


def periods_of(time_ms: int, zone: ZoneInfo) -> Periods:
    """The same moment is in all three."""
    return _periods(_quarter_of(time_ms), zone)


@lru_cache(STARTS_CACHED_MAX)
def _periods(quarter_ms: int, zone: ZoneInfo) -> Periods:
    """Clocks differ from UTC by whole quarters, except for some before 1970."""
    local = datetime.fromtimestamp(quarter_ms // MS_PER_SECOND, zone)
    into_hour = timedelta(minutes=local.minute, seconds=local.second)
    midnight = local.replace(hour=0, minute=0, second=0, fold=0)
    return Periods(
        quarter_ms,
        quarter_ms - into_hour // timedelta(milliseconds=1),
        int(midnight.timestamp()) * MS_PER_SECOND,
    )


def sum_readings(readings: Iterable[Row], zone: ZoneInfo) -> list[Row]:
    """What these rows add: where quarter, hour and day begin, the prosumer, METERED; a row a quarter and prosumer."""
    sums: _Sums = defaultdict(lambda: [0] * len(METERED))
    for prosumer, time_ms, _, _, _, _, produced, stored, consumed, covered in readings:
        row = sums[_quarter_of(time_ms), prosumer]
        row[0] += 1
        row[1] += produced
        row[2] += stored
        row[3] += consumed
        row[4] += covered
    return _rows(sums, zone)


def sum_trades(trades: Iterable[Row], zone: ZoneInfo) -> list[Row]:
    """The same of TRADED."""
    sums: _Sums = defaultdict(lambda: [0] * len(TRADED))
    for _, _, time_ms, _, kind, _, _, buyer, seller, energy, _, energy_wei, token_wei, fee in trades:
        bought, sold = sums[_quarter_of(time_ms), buyer], sums[_quarter_of(time_ms), seller]
        way = _WAYS[kind]
        bought[way] += energy
        bought[way + 1] += energy_wei
        sold[way + 2] += energy
        sold[way + 3] += energy_wei
        bought[_TOKEN_PAID] += token_wei
        sold[_TOKEN_RECEIVED] += token_wei
        bought[_GRID_FEE] += fee
    return _rows(sums, zone)


_Sums = dict[tuple[int, bytes], list[int]]  # by the quarter's start and prosumer

# Places in TRADED: of what was bought by a trade of this kind, in Wh; wei and what was sold follow.
_WAYS: Final = {
    kind: TRADED.index(f"{way}_bought_wh")
    for kind, way in {"auction": "auction", "partner": "partner", "gift": "partner", "sale": "token"}.items()
}
_TOKEN_PAID: Final = TRADED.index("token_paid_wei")
_TOKEN_RECEIVED: Final = TRADED.index("token_received_wei")
_GRID_FEE: Final = TRADED.index("grid_fee_wei")


def _quarter_of(time_ms: int) -> int:
    return (time_ms - 1) // QUARTER_MS * QUARTER_MS


def _rows(sums: _Sums, zone: ZoneInfo) -> list[Row]:
    return [(*_periods(quarter_ms, zone), prosumer, *row) for (quarter_ms, prosumer), row in sums.items()]
