"""Key figures of real loads: two weeks of a household's quarter hours beside one that feeds in by a standard profile.

Reads ../shared/data and skips without it.
"""

import csv
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from apps.kpi.factors import read_factors
from apps.kpi.indicators import NOTHING, Home, Indicators, Span, Sums, Tariffs, Terms, indicators
from ctt_state.settlement import Tariff
from ctt_state.units import MS_PER_HOUR, Wei
from tests.test_kpi import CENT
from tests.world import ALICE, BOB

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
ZONE: Final = ZoneInfo("America/New_York")
TERMS: Final = Terms(Tariffs([(0, Tariff(Wei(30 * CENT), Wei(8 * CENT)))]), read_factors())

pytestmark = pytest.mark.skipif(
    not (DATA / "greenbutton").exists(), reason="the data of real meters is not here"
)


def quarters(day: int) -> dict[int, int]:
    """Wh by the start of each quarter hour, in ms."""
    tree = ET.parse(DATA / "greenbutton" / f"day_{day:02d}.xml")
    found = {}
    for each in tree.iter("{http://naesb.org/espi}IntervalReading"):
        start, value = (each.findtext(path) for path in (".//{*}start", "{*}value"))
        assert start and value
        found[int(start) * 1_000] = int(value)
    return found


def load() -> list[Sums]:
    """The household's hours, of which tokens cover nothing."""
    by_hour: dict[int, int] = defaultdict(int)
    for day in range(1, 15):
        for start_ms, energy in quarters(day).items():
            by_hour[start_ms // MS_PER_HOUR * MS_PER_HOUR] += energy
    return [NOTHING._replace(start_ms=start, consumed_wh=by_hour[start]) for start in sorted(by_hour)]


def roof(hours: list[Sums]) -> list[Sums]:
    """What a roof feeds in: how much less a household with PV draws than one without on a March working day, for a
    thousandth of a million kWh a year; half of it is stored in tokens."""
    plain, sunny = (march(name) for name in ("h25", "p25"))
    made: list[Sums] = []
    for sums in hours:
        at = 4 * datetime.fromtimestamp(sums.start_ms // 1_000, ZONE).hour
        saved = sum(max(a - b, 0) for a, b in zip(plain[at : at + 4], sunny[at : at + 4], strict=True)) // 10
        made.append(NOTHING._replace(start_ms=sums.start_ms, produced_wh=saved, stored_wh=saved // 2))
    return made


def march(name: str) -> list[int]:
    """Wh of each quarter hour of a working day in March."""
    with (DATA / "profiles" / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        months, kinds, *rows = csv.reader(lines)
    column = next(at for at, pair in enumerate(zip(months, kinds, strict=True)) if pair == ("März", "WT"))
    return [int(row[column].replace(".", "")) for row in rows[:96]]


def day_of(start_ms: int) -> Span:
    midnight = datetime.fromtimestamp(start_ms // 1_000, ZONE).replace(hour=0)
    next_day = (midnight.date() + timedelta(days=1)).isoformat()
    end = datetime.fromisoformat(next_day).replace(tzinfo=ZONE)
    return Span(int(midnight.timestamp()) * 1_000, int(end.astimezone(UTC).timestamp()) * 1_000)


@pytest.fixture(scope="module")
def days() -> list[Indicators]:
    hours = load()
    return indicators([Home(ALICE, (), hours, {}), Home(BOB, (), roof(hours), {})], TERMS, day_of)


def of(days: list[Indicators], who: bytes | None) -> list[Indicators]:
    return [row for row in days if row.home == who]


def test_each_day_is_what_the_meter_counted(days: list[Indicators]) -> None:
    home = of(days, ALICE)
    assert [row.consumed_wh for row in home] == [sum(quarters(day).values()) for day in range(1, 15)]
    assert (home[0].consumed_wh, home[10].consumed_wh) == (93_846, 109_403)
    assert home[10].span.end_ms - home[10].span.start_ms == 23 * MS_PER_HOUR  # the clocks changed


def test_the_days_figures_are_those_of_their_definitions(days: list[Indicators]) -> None:
    """Reckoned anew, from quarter hours and without any of the project's functions."""
    made: dict[int, Sums] = {sums.start_ms: sums for sums in roof(load())}
    for number, row in enumerate(of(days, None), 1):
        drawn: dict[int, int] = defaultdict(int)
        for start_ms, energy in quarters(number).items():
            drawn[start_ms // MS_PER_HOUR * MS_PER_HOUR] += energy
        assert row.shared_wh == sum(min(made[start].produced_wh, energy) for start, energy in drawn.items())
        total, produced = sum(drawn.values()), sum(made[start].produced_wh for start in drawn)
        assert row.cost_without_market_wei == (total * 30 - produced * 8) * CENT
        assert row.billed_wh == row.consumed_wh == total
        assert row.self_sufficiency == 0
        assert row.co2_mg == total * 363
        assert 0 < row.shared_wh < min(total, produced)


def test_what_is_kept_and_not_sold_saves_nothing(days: list[Indicators]) -> None:
    assert all(row.savings_wei == 0 for row in of(days, ALICE))
    assert all(row.savings_wei == -row.stored_wh * 8 * CENT for row in of(days, BOB))
