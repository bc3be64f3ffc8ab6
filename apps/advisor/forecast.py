"""What the next day is expected to bring, from the hours that are over alone: load, production, price and volume."""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from apps.advisor.series import HOURS_A_DAY, History, Hours

HORIZON: Final = HOURS_A_DAY
LAGS: Final = (24, 48, 72, 168)  # hours; none is shorter than the horizon
WEEK: Final = 7
LEAST_HOURS: Final = 10 * HOURS_A_DAY  # a week of lags, and some days to learn from
TREES: Final = 60
CORRECTION_MAX: Final = 2.0  # of yesterday's production by today's
SHARE_OF_VOLUME: Final = 0.1  # of what the market moves: so much one home trades without moving the price


class Outlook(NamedTuple):
    """An hour each, from the one that begins now. kWh; units of the currency a kWh."""

    load: Hours
    production: Hours
    price: Hours
    volume: Hours  # that the home may trade


def forecast(history: History) -> Outlook:
    """The history has LEAST_HOURS at least."""
    price, volume = _usual(history.price), _usual(history.volume)
    return Outlook(_load(history), _production(history), price, SHARE_OF_VOLUME * volume)


def _load(history: History) -> Hours:
    """By gradient-boosted trees that learnt from all days before today (UTC)."""
    midnight = history.end_hour // HOURS_A_DAY * HOURS_A_DAY
    known = history.until(midnight).load
    model = _learn(known.tobytes(), history.start_hour)
    ahead = np.arange(len(history.load), len(history.load) + HORIZON)
    with threadpool_limits(1):
        predicted: Hours = model.predict(_features(history.load, history.start_hour, ahead))
    return np.maximum(predicted, 0.0)


@lru_cache(maxsize=4)
def _learn(load: bytes, start_hour: int) -> HistGradientBoostingRegressor:
    """Kept, since it serves for a day."""
    known = np.frombuffer(load)
    places = np.arange(max(LAGS), len(known))
    model = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=TREES, max_leaf_nodes=15, min_samples_leaf=10, random_state=0
    )
    with threadpool_limits(1):  # so little is done sooner by one thread than shared out
        return model.fit(_features(known, start_hour, places), known[places])


def _features(load: Hours, start_hour: int, places: "np.typing.NDArray[np.int64]") -> Hours:
    """For each of these places: hour of the day, day of the week, the lags, and the week's mean at this hour."""
    hours = start_hour + places
    lagged = [load[places - lag] for lag in LAGS]
    week = np.mean([load[places - day * HOURS_A_DAY] for day in range(1, WEEK + 1)], axis=0)
    return np.column_stack([hours % HOURS_A_DAY, hours // HOURS_A_DAY % WEEK, *lagged, week])


def _production(history: History) -> Hours:
    """Yesterday's, corrected by how today's compares so far; tomorrow's is today's as far as it is known."""
    yesterday = history.production[-HORIZON:].copy()
    today = history.end_hour % HOURS_A_DAY  # hours of it that are over
    before = history.production[-HOURS_A_DAY - today : -HOURS_A_DAY].sum() if today else 0.0
    if before > 0:
        ratio = history.production[-today:].sum() / before
        yesterday[: HOURS_A_DAY - today] *= min(ratio, CORRECTION_MAX)
    return yesterday


def _usual(values: Hours) -> Hours:
    """The median of the last week at each hour of the day; where nothing was traded then, of all the week's."""
    days = values[-WEEK * HOURS_A_DAY :].reshape(WEEK, HOURS_A_DAY)
    if np.isnan(days).all():
        return np.full(HOURS_A_DAY, np.nan)
    every = np.nanmedian(days)
    return np.array([every if np.isnan(hour).all() else np.nanmedian(hour) for hour in days.T])
