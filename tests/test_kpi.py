"""Key figures: small cases reckoned by hand, bounds that no history breaks, factors from a file."""

import csv
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kpi.factors import Factors, InvalidFactors, read_factors
from apps.kpi.indicators import (
    NOTHING,
    Home,
    Indicators,
    Span,
    Sums,
    Tariffs,
    Terms,
    indicators,
    ratio,
)
from ctt_state.settlement import Tariff
from ctt_state.units import MS_PER_HOUR, Wei
from tests.world import address

ADA, BEA, CEM = sorted(address(name) for name in ("ada", "bea", "cem"))
CENT: Final = 10**13  # wei per Wh
FACTORS: Final = Factors({"grid": 400, "solar": 40, "wind": 10})
TARIFFS: Final = Tariffs([(0, Tariff(Wei(30 * CENT), Wei(8 * CENT)))])
TERMS: Final = Terms(TARIFFS, FACTORS)
WHOLE: Final = Span(0, 24 * MS_PER_HOUR)
SOLAR, WIND, OTHER = 1, 2, 5


def hour(number: int, **sums: int) -> Sums:
    return NOTHING._replace(start_ms=number * MS_PER_HOUR, **sums)


def home(address: bytes, *hours: Sums, before: tuple[Sums, ...] = (), **solar_wh: int) -> Home:
    """`at_9=50`: of what was used after nine, 50 Wh were solar energy."""
    retired = {int(at.removeprefix("at_")) * MS_PER_HOUR: {SOLAR: wh} for at, wh in solar_wh.items()}
    return Home(address, before, hours, retired)


def whole(_: int) -> Span:
    return WHOLE


def by_hour(start_ms: int) -> Span:
    return Span(start_ms, start_ms + MS_PER_HOUR)


def figures(*homes: Home) -> dict[bytes | None, Indicators]:
    return {row.home: row for row in indicators(homes, TERMS, whole)}


# --- by hand ---

# At noon Ada stores 1,000 Wh of 1,200 and sells Bea 600 of them for 19 cents and the fee of 4; in the evening both draw.
STREET: Final = (
    home(
        ADA,
        hour(12, produced_wh=1_200, stored_wh=1_000, consumed_wh=100, covered_wh=100),
        hour(13, auction_sold_wh=600, auction_sold_wei=600 * 19 * CENT),
        hour(20, consumed_wh=500, covered_wh=300),
        at_12=100,
        at_20=300,
    ),
    home(
        BEA,
        hour(12, consumed_wh=900),
        hour(
            13,
            auction_bought_wh=600,
            auction_bought_wei=600 * 19 * CENT,
            grid_fee_wei=600 * 4 * CENT,
        ),
        hour(20, consumed_wh=1_000, covered_wh=600),
        at_20=600,
    ),
)


def test_a_home_that_produces_and_sells() -> None:
    ada = figures(*STREET)[ADA]
    assert (ada.produced_wh, ada.stored_wh, ada.fed_in_wh, ada.sold_wh) == (1_200, 1_000, 200, 600)
    assert (ada.consumed_wh, ada.own_used_wh, ada.billed_wh) == (600, 400, 200)
    assert ada.self_consumption == Decimal("0.333333")  # 400 of 1,200
    assert ada.self_sufficiency == Decimal("0.666667")  # 400 of 600
    assert ada.shared_wh == 100  # at noon
    assert ada.cost_wei == (200 * 30 - 200 * 8 - 600 * 19) * CENT
    assert ada.cost_without_market_wei == (600 * 30 - 1_200 * 8) * CENT
    assert ada.savings_wei == 15_400 * CENT  # 8,400 she would have paid; 7,000 she got
    assert (ada.renewable_wh, ada.renewable_share) == (400, Decimal("0.666667"))
    assert (ada.consuming_hours, ada.renewable_hours) == (2, 1)  # at noon
    assert ada.co2_mg == 400 * 40 + 200 * 400
    assert ada.co2_avoided_mg == 400 * (400 - 40)


def test_a_home_that_only_buys() -> None:
    bea = figures(*STREET)[BEA]
    assert (bea.consumed_wh, bea.auction_used_wh, bea.billed_wh) == (1_900, 600, 1_300)
    assert (bea.self_consumption, bea.self_sufficiency, bea.shared_wh) == (None, Decimal(0), 0)
    assert bea.cost_wei == (1_300 * 30 + 600 * 23) * CENT
    assert bea.savings_wei == 600 * 7 * CENT
    assert (bea.renewable_share, bea.renewable_hours) == (Decimal("0.315789"), 0)
    assert bea.co2_mg == 1_300 * 400 + 600 * 40


def test_the_community_uses_what_its_homes_sell_each_other() -> None:
    street = figures(*STREET)[None]
    assert (street.produced_wh, street.consumed_wh, street.billed_wh) == (1_200, 2_500, 1_500)
    assert street.self_consumption == Decimal("0.833333")  # 1,000 of 1,200
    assert street.self_sufficiency == Decimal("0.4")  # 1,000 of 2,500
    assert (street.renewable_share, street.consuming_hours) == (Decimal("0.4"), 2)
    assert street.shared_wh == 1_000  # at noon 1,200 fed in and 1,000 drawn
    assert street.savings_wei == (15_400 + 4_200) * CENT
    assert street.co2_avoided_mg == 1_000 * (400 - 40)


def test_shared_energy_is_of_the_same_hour() -> None:
    ada = home(ADA, hour(1, produced_wh=500), hour(2, consumed_wh=500))
    assert [figures(ada)[who].shared_wh for who in (ADA, None)] == [0, 0]
    bea = home(BEA, hour(1, consumed_wh=200), hour(2, produced_wh=900))
    assert [figures(ada, bea)[who].shared_wh for who in (ADA, BEA, None)] == [0, 0, 700]


def test_energy_from_before_the_time_asked_for_keeps_its_origin() -> None:
    bought = NOTHING._replace(auction_bought_wh=300, auction_bought_wei=1, start_ms=-MS_PER_HOUR)
    for before, own in (((bought,), 0), ((), 300)):
        bea = figures(home(BEA, hour(1, consumed_wh=300, covered_wh=300), before=before))[BEA]
        assert (bea.own_used_wh, bea.auction_used_wh) == (own, 300 - own)
        assert bea.cost_wei == 0  # paid for before


def test_own_energy_from_before_is_no_more_than_all_that_was_produced() -> None:
    before = (hour(-5, produced_wh=800, stored_wh=800),)
    ada = figures(home(ADA, hour(1, produced_wh=100, consumed_wh=900, covered_wh=800), before=before))[ADA]
    assert (ada.own_used_wh, ada.self_consumption) == (800, Decimal(1))


def test_energy_emits_by_its_source_and_what_nobody_certified_as_the_grids() -> None:
    bought = hour(1, partner_bought_wh=20, consumed_wh=30, covered_wh=20)
    row = figures(Home(CEM, (), [bought], {MS_PER_HOUR: {SOLAR: 3, WIND: 4, OTHER: 5}}))[CEM]
    assert row.co2_mg == 3 * 40 + 4 * 10 + 5 * 400 + 8 * 400 + 10 * 400
    assert row.co2_avoided_mg == 3 * 360 + 4 * 390
    assert (row.renewable_wh, row.renewable_share) == (7, Decimal("0.233333"))


def test_an_hour_is_renewable_when_all_of_it_is() -> None:
    full, short, idle = (hour(at, consumed_wh=9, covered_wh=9) for at in (1, 2, 3))
    idle = idle._replace(consumed_wh=0, covered_wh=0)
    bea = home(BEA, full, short, idle, at_1=9, at_2=8)
    row = figures(bea)[BEA]
    assert (row.renewable_wh, row.consuming_hours, row.renewable_hours) == (17, 2, 1)
    ada = home(ADA, hour(1, consumed_wh=1))
    community = figures(ada, bea)[None]
    assert (community.consuming_hours, community.renewable_hours) == (2, 0)


def test_the_tariff_is_that_at_the_hours_end() -> None:
    tariffs = Tariffs([(MS_PER_HOUR, Tariff(Wei(2), Wei(1))), (MS_PER_HOUR + 1, Tariff(Wei(20), Wei(10)))])
    hours = [hour(number, consumed_wh=1, produced_wh=1) for number in (-1, 0, 1)]
    rows = indicators([home(ADA, *hours)], Terms(tariffs, FACTORS), by_hour)
    assert [row.cost_wei for row in rows if row.home] == [0, 1, 10]
    assert all(row.savings_wei == 0 for row in rows)


def test_spans_have_a_row_for_each_home_that_did_something() -> None:
    rows = indicators(STREET, TERMS, by_hour)
    assert [(row.span.start_ms // MS_PER_HOUR, row.home) for row in rows] == [
        (number, who) for number in (12, 13, 20) for who in (ADA, BEA, None)
    ]
    for name in ("consumed_wh", "own_used_wh", "shared_wh", "cost_wei", "co2_mg"):
        of_hours = sum(getattr(row, name) for row in rows if row.home is None)
        assert of_hours == getattr(figures(*STREET)[None], name)


def test_no_homes_have_no_figures() -> None:
    assert indicators([], TERMS, whole) == indicators([home(ADA)], TERMS, whole) == []


def test_ratios_are_rounded_half_to_even() -> None:
    assert ratio(1, 3) == Decimal("0.333333")
    assert ratio(1, 2_000_000) == 0
    assert ratio(3, 2_000_000) == Decimal("0.000002")
    assert ratio(7, 7) == 1
    assert ratio(0, 0) is None


# --- whatever happens ---

wh = st.integers(0, 40)
hours = st.lists(
    st.builds(
        lambda produced, fed_in, consumed, billed, bought, sold, price: NOTHING._replace(
            produced_wh=produced + fed_in,
            stored_wh=produced,
            consumed_wh=consumed + billed,
            covered_wh=consumed,
            auction_bought_wh=bought,
            auction_bought_wei=bought * price,
            partner_bought_wh=sold,
            partner_bought_wei=0,
            token_sold_wh=bought,
            token_sold_wei=bought * price,
            grid_fee_wei=bought,
        ),
        *[wh] * 7,
    ),
    max_size=6,
).map(lambda made: [sums._replace(start_ms=at * MS_PER_HOUR) for at, sums in enumerate(made)])
streets = st.lists(st.tuples(hours, st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), max_size=4).map(
    lambda homes: [
        Home(
            bytes([number]) * 20,
            made[:cut],
            made[cut:],
            {sums.start_ms: {source: sums.covered_wh * halves // 2} for sums in made if source},
        )
        for number, (made, source, cut, halves) in enumerate(homes)
    ]
)


@given(streets)
def test_figures_stay_in_their_bounds(street: list[Home]) -> None:
    rows = indicators(street, TERMS, whole)
    if not rows:
        return
    *homes, community = rows
    assert community.home is None
    for row in rows:
        for share in (row.self_consumption, row.self_sufficiency, row.renewable_share):
            assert share is None or 0 <= share <= 1
        assert 0 <= row.shared_wh <= min(row.produced_wh, row.consumed_wh)
        assert row.own_used_wh + row.partner_used_wh + row.auction_used_wh + row.billed_wh == row.consumed_wh
        assert row.stored_wh + row.fed_in_wh == row.produced_wh
        assert 0 <= row.renewable_wh <= row.consumed_wh - row.billed_wh
        assert 0 <= row.renewable_hours <= row.consuming_hours
        assert 0 <= row.co2_mg <= row.consumed_wh * 400
        assert row.co2_avoided_mg == row.consumed_wh * 400 - row.co2_mg >= 0
    assert community.shared_wh >= sum(row.shared_wh for row in homes)
    assert community.savings_wei == sum(row.savings_wei for row in homes)
    assert community.co2_mg == sum(row.co2_mg for row in homes)
    own_used = sum(row.own_used_wh for row in homes)
    assert (community.self_sufficiency or 0) >= (ratio(own_used, community.consumed_wh) or 0)


@given(streets)
def test_who_never_trades_and_stores_saves_nothing(street: list[Home]) -> None:
    idle = [
        each._replace(
            hours=[
                hour(at, produced_wh=sums.produced_wh, consumed_wh=sums.consumed_wh)
                for at, sums in enumerate(each.hours)
            ],
            before=(),
            retired={},
        )
        for each in street
    ]
    for row in indicators(idle, TERMS, whole):
        assert (row.savings_wei, row.co2_avoided_mg, row.self_sufficiency or 0) == (0, 0, 0)


# --- factors ---


def test_the_projects_factors_name_their_sources() -> None:
    factors = read_factors()
    assert [factors.of(source) for source in range(6)] == [363, 41, 11, 24, 230, 363]


def test_the_page_has_every_figure_and_factor() -> None:
    page = (Path(__file__).parent.parent / "docs" / "KPI.md").read_text()
    for name in (*Indicators._fields[2:], "savings_wei"):
        assert f"`{name}`" in page
    for row in csv.DictReader(files("apps.kpi").joinpath("factors.csv").read_text().splitlines()):
        assert f"| {row['source']} | {row['g_per_kwh']} | " in page
        assert row["reference"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("source,g_per_kwh\nsolar,41\n", "no factor for 'grid'"),
        ("source,g_per_kwh\ngrid,41.5\n", "line 2: '41.5' is not a whole number of g/kWh"),
        ("source,g_per_kwh\ngrid,-1\n", "line 2: '-1' is not a whole number of g/kWh"),
        ("source,g_per_kwh\ngrid,10001\n", "line 2: '10001' is not a whole number of g/kWh"),
        ("source,g_per_kwh\ngrid\n", "line 2: '' is not a whole number of g/kWh"),
        ("source,g_per_kwh\ngrid,1\ncoal,820\n", "line 3: 'coal' is no source"),
        ("source,g_per_kwh\ngrid,1\ngrid,1\n", "line 3: 'grid' is no source, or is there twice"),
        ("", "no factor for 'grid'"),
    ],
)
def test_a_file_that_is_no_table_of_factors_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "factors.csv"
    file.write_text(text)
    with pytest.raises(InvalidFactors, match="^" + fault.replace(".", r"\.")):
        read_factors(file)


def test_a_file_of_ones_own_has_the_bounds(tmp_path: Path) -> None:
    file = tmp_path / "factors.csv"
    file.write_text("source,g_per_kwh,year\ngrid,10000,2020\nhydro,0,2021\nnone,7,2021\n")
    factors = read_factors(file)
    assert [factors.of(source) for source in range(6)] == [7, 10_000, 10_000, 0, 10_000, 10_000]
