"""The advisor: what it knows, expects and advises, and how far that is from the best that could be done."""

import json
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.advisor.answer import in_words
from apps.advisor.backtest import RECORD_DAYS, Record, follow, hold, optimum, sell_all, track_record
from apps.advisor.forecast import HORIZON, LEAST_HOURS, SHARE_OF_VOLUME, Outlook, forecast
from apps.advisor.optimum import Stock, Terms, solve
from apps.advisor.policy import Action, Advice, advise
from apps.advisor.series import Cleared, History, Metered, make_history
from apps.meter.greenbutton import read_espi
from bench import advisor
from ctt_state.units import MS_PER_HOUR

DATA: Final = Path(__file__).parents[2] / "shared" / "data" / "greenbutton"
TERMS: Final = Terms(feed_in=0.08, retail=0.30, grid_fee=0.04, fee=0.001, token_kwh=10.0, token_price=100.0)
DAY: Final = 24


def make_home(
    days: int, *, load: float = 0.5, noon: float = 0.0, price: float = 0.15, volume: float = 50.0
) -> History:
    """The same each day: a load in every hour, production from 11 to 14, one price by day and a higher one from 18."""
    hours = np.arange(days * DAY) % DAY
    production = np.where((hours >= 11) & (hours < 15), noon, 0.0)
    prices = np.where(hours >= 18, price + 0.10, price)
    return History(0, np.full(len(hours), load), production, prices, np.full(len(hours), volume))


# --- what is known ---


def test_a_reading_counts_for_the_time_since_the_one_before() -> None:
    half = MS_PER_HOUR // 2
    readings = [Metered(half, 9_999, 0), Metered(3 * half, 600, 200), Metered(4 * half, 100, 0)]

    history = make_history(readings, [Cleared(MS_PER_HOUR, 10**14, 3_000)], 2 * MS_PER_HOUR)

    assert history.load == pytest.approx([0.3, 0.4]) and history.production == pytest.approx([0.1, 0.1])
    assert np.isnan(history.price[0]) and history.price[1] == pytest.approx(0.10)
    assert list(history.volume) == [0, 3]


def test_an_hour_that_is_not_over_is_not_known() -> None:
    readings = [Metered(0, 0, 0), Metered(MS_PER_HOUR, 500, 0), Metered(MS_PER_HOUR + 1, 77, 0)]

    assert list(make_history(readings, [], 2 * MS_PER_HOUR - 1).load) == [0.5]
    assert not len(make_history([], [], MS_PER_HOUR).load)


@pytest.mark.skipif(not DATA.is_dir(), reason="the readings of ../shared/data are not here")
def test_no_energy_of_a_real_home_is_lost_when_the_clock_changes() -> None:
    found = [each for file in sorted(DATA.glob("day_*.xml")) for each in read_espi(file.read_bytes())]
    readings = [Metered(found[0].start_ms, 0, 0), *[Metered(each.end_ms, int(each.wh), 0) for each in found]]

    history = make_history(readings, [], found[-1].end_ms)

    assert len(history.load) == 14 * DAY - 1  # day 11 has 23 hours
    assert history.load.sum() * 1_000 == pytest.approx(sum(int(each.wh) for each in found))
    assert history.load[:DAY].sum() == pytest.approx(93.846)
    assert forecast(history).load.min() > 0


# --- what is expected ---


def test_what_is_the_same_every_day_is_expected_again() -> None:
    outlook = forecast(make_home(12, noon=2.0))

    assert outlook.load == pytest.approx(np.full(HORIZON, 0.5))
    assert outlook.production.sum() == pytest.approx(8.0)
    assert outlook.price[17] == pytest.approx(0.15) and outlook.price[18] == pytest.approx(0.25)
    assert outlook.volume == pytest.approx(np.full(HORIZON, 50 * SHARE_OF_VOLUME))


def test_a_dull_morning_corrects_the_afternoon_and_not_the_morning_after() -> None:
    home = make_home(12, noon=2.0)
    home.production[11 * DAY + 11 : 11 * DAY + 13] = 0.5

    outlook = forecast(home.until(11 * DAY + 13))

    assert list(outlook.production[:3]) == [0.5, 0.5, 0]  # 13:00 and 14:00: a quarter of yesterday's
    assert list(outlook.production[-2:]) == [0.5, 0.5]  # 11:00 and 12:00: as today


def test_shuffling_the_future_changes_no_decision() -> None:
    """The leak test: only what was sealed before a decision has a part in it."""
    ((home, stock), *_) = advisor.make_street(seed=7, days=12)
    first, cut = home.start_hour + LEAST_HOURS, home.start_hour + LEAST_HOURS + DAY
    chance = np.random.default_rng(0)
    shuffled = History(
        home.start_hour,
        *[
            np.concatenate([each[: LEAST_HOURS + DAY], chance.permutation(each[LEAST_HOURS + DAY :])])
            for each in home[1:]
        ],
    )
    assert not np.array_equal(home.load, shuffled.load)

    told = follow(advise, home.until(cut + DAY), first, stock, TERMS).advices
    again = follow(advise, shuffled, first, stock, TERMS).advices

    assert told[: DAY + 1] == again[: DAY + 1]  # the decision at the cut itself included
    assert {each.action for each in told} > {Action.HOLD}
    assert told != again  # what is no longer the future has its part


# --- what is advised ---


def test_energy_is_bought_when_it_is_cheap_and_will_be_lacking() -> None:
    advice = advise(make_home(12), Stock(0.0, 10.0), TERMS)

    assert advice.action is Action.BUY_FULL
    assert 0.15 <= advice.limit <= 0.26 and 0 < advice.energy <= 5.0
    assert 0 < advice.low <= advice.gain <= advice.high
    assert any("retail" in reason for reason in advice.reasons)


def test_energy_that_would_overflow_is_sold_when_the_price_is_high() -> None:
    home = make_home(12, load=0.1, noon=5.0).until(11 * DAY + 18)

    advice = advise(home, Stock(10.0, 10.0), TERMS)

    assert advice.action is Action.SELL
    assert 0.08 <= advice.limit <= 0.25 and advice.gain > 0


def test_room_is_bought_when_it_is_cheaper_than_what_overflows() -> None:
    home = make_home(12, load=0.0, noon=9.0).until(11 * DAY + 11)

    cheap = advise(home, Stock(10.0, 10.0), TERMS._replace(token_price=0.01))
    dear = advise(home, Stock(10.0, 10.0), TERMS)

    assert cheap.action is Action.BUY_EMPTY and cheap.energy % TERMS.token_kwh == 0
    assert dear.action is not Action.BUY_EMPTY


def test_below_its_fee_the_advice_is_to_hold() -> None:
    home, stock = make_home(12), Stock(0.0, 10.0)
    gain = advise(home, stock, TERMS._replace(fee=0.0)).gain

    assert advise(home, stock, TERMS._replace(fee=gain * 0.99)).action is Action.BUY_FULL
    refused = advise(home, stock, TERMS._replace(fee=gain * 1.01))
    assert refused.action is Action.HOLD and "its fee is" in refused.reasons[0]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (make_home(12).until(LEAST_HOURS - 1), f"{LEAST_HOURS - 1} hours of readings are known"),
        (make_home(12)._replace(price=np.full(12 * DAY, np.nan)), "nothing was traded"),
        (make_home(12, price=0.29), "no trade now"),
    ],
)
def test_there_are_reasons_to_hold(history: History, reason: str) -> None:
    advice = advise(history, Stock(0.0, 10.0), TERMS)

    assert advice.action is Action.HOLD and advice.energy == advice.gain == 0
    assert reason in advice.reasons[0]


# --- the best that could be done ---


def test_a_small_optimum_by_hand() -> None:
    """A home holds 1 kWh and lacks 3 in the second hour, which it can buy for 0.10 + 0.04 before, or
    for 0.13 + 0.04 then."""
    outlook = Outlook(*map(np.array, ([0.0, 3.0], [0.0, 0.0], [0.10, 0.13], [5.0, 5.0])))

    plan = solve(outlook, Stock(1.0, 10.0), TERMS, 0.0)
    small = solve(outlook, Stock(1.0, 2.0), TERMS, 0.0)

    assert plan.value == pytest.approx(-0.28) and list(plan.bought) == pytest.approx([2, 0])
    assert plan.worth == pytest.approx(0.14)
    # With room for 2 kWh only: 1 bought before. In the second hour the tokens are full, and 1 is drawn for 0.30.
    assert small.value == pytest.approx(-0.14 - 0.30)


def test_what_would_overflow_is_sold_first_by_hand() -> None:
    """1 kWh held, room for 1, production of 2 in the second hour: 1 is sold at 0.23 before, 1 stored, 1 fed in at 0.08;
    the stored one is sold at 0.25. With room for one more, that one is sold for 0.25 too."""
    outlook = Outlook(*map(np.array, ([0.0] * 3, [0.0, 2.0, 0.0], [0.20, 0.23, 0.25], [5.0] * 3)))

    assert solve(outlook, Stock(1.0, 1.0), TERMS, 0.0).value == pytest.approx(0.23 + 0.08 + 0.25)
    roomy = TERMS._replace(token_price=0.02, token_kwh=1.0)
    assert solve(outlook, Stock(1.0, 1.0), roomy, 0.0).value == pytest.approx(0.23 + 2 * 0.25 - 0.02)


KWH = st.floats(0, 5)
ADVICES = st.builds(Advice, st.sampled_from(Action), st.just(()), energy=KWH, limit=st.floats(0.05, 0.35))


@settings(max_examples=60, deadline=None)
@given(
    hours=st.lists(
        st.tuples(KWH, KWH, st.floats(0.08, 0.30) | st.just(float("nan")), KWH), min_size=1, max_size=8
    ),
    advices=st.lists(ADVICES, min_size=8, max_size=8),
    capacity=st.floats(0, 10),
)
def test_no_rule_does_better_than_the_optimum(
    hours: list[tuple[float, float, float, float]], advices: list[Advice], capacity: float
) -> None:
    past = (0.0, 0.0, 0.2, 1.0)
    home = History(0, *np.array([past, *hours]).T)
    stock, terms = Stock(capacity / 2, capacity), TERMS._replace(token_price=0.01, fee=0.0)
    best = optimum(home, 1, stock, terms)

    for rule in (lambda history, *_: advices[len(history.load) - 1], hold, sell_all):
        assert follow(rule, home, 1, stock, terms).value <= best + 1e-6


@pytest.mark.parametrize(("days_known", "days"), [(10, 0), (11, 1), (18, RECORD_DAYS)])
def test_the_track_record_is_of_the_last_days_that_advice_could_have_begun(
    days_known: int, days: int
) -> None:
    home, stock = make_home(days_known), Stock(5.0, 10.0)

    record = track_record(home, stock, TERMS)

    if not days:
        assert record is None
        return
    first = home.end_hour - days * DAY
    held = follow(hold, home, first, stock, TERMS).value
    assert record is not None and record.days == days
    assert record.gain == pytest.approx(follow(advise, home, first, stock, TERMS).value - held)
    assert 0 < record.gain <= record.possible == pytest.approx(optimum(home, first, stock, TERMS) - held)


def test_where_nothing_was_traded_there_is_no_track_record() -> None:
    home = make_home(12)
    home.price[: 10 * DAY] = np.nan

    assert track_record(home, Stock(5.0, 10.0), TERMS) is None


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (None, "no track record yet: too few days of readings and auctions are known to try the advice on"),
        (
            Record(7, 1.23, 2.0),
            "followed for the last 7 days it would have gained 1.23 against holding, 62 % of what was possible",
        ),
        (
            Record(1, -0.5, 2.0),
            "followed for the last day it would have lost 0.50 against holding, where 2.00 could have been gained",
        ),
        (
            Record(2, 0.0, 0.0),
            "followed for the last 2 days it would have gained 0.00 against holding, and nothing was to be gained",
        ),
    ],
)
def test_the_track_record_in_words(record: Record | None, text: str) -> None:
    assert in_words(record) == text


def test_a_back_test_sums_up_what_the_rules_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert advisor.main(["--streets", "1", "--days", "1"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["homes"] == len(told["homes"]) == advisor.HOMES_A_STREET
    for home in told["homes"]:
        assert home["optimum"] >= max(home[rule] for rule in ("hold", "sell_all", "advice"))
        assert sum(home["actions"].values()) == DAY
    assert told["summary"]["captured"] == pytest.approx(
        sum(home["advice"] - home["hold"] for home in told["homes"])
        / sum(home["optimum"] - home["hold"] for home in told["homes"]),
        abs=1e-3,
    )
