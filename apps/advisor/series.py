"""A home's meter and the market's auctions, hour by hour, up to the moment of a decision.

Energy in kWh and prices in the currency's units a kWh, as floats: an advice is no account.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctt_state.units import MS_PER_HOUR

HOURS_A_DAY: Final = 24
WH_PER_KWH: Final = 1_000
WEI_PER_WH: Final = 10**15  # one unit of the currency a kWh

Hours = NDArray[np.float64]


class Metered(NamedTuple):
    """What a meter counted since its last reading."""

    time_ms: int
    consumed_wh: int
    produced_wh: int


class Cleared(NamedTuple):
    """What an auction came to."""

    time_ms: int
    price_wei_per_wh: int
    energy_wh: int


class History(NamedTuple):
    """Whole hours that are over, one value each from `start_hour` (since 1970) on."""

    start_hour: int
    load: Hours
    production: Hours
    price: Hours  # NaN where nothing was traded
    volume: Hours  # of the market

    @property
    def end_hour(self) -> int:
        return self.start_hour + len(self.load)

    def until(self, hour: int) -> "History":
        """What was sealed when this hour began: nothing of it, and nothing after it."""
        return History(self.start_hour, *[each[: max(hour - self.start_hour, 0)].copy() for each in self[1:]])


def make_history(readings: Sequence[Metered], auctions: Iterable[Cleared], now_ms: int) -> History:
    """The hours from the first reading's to the last that was over at this time. Readings are in the order of time;
    what a reading counted is spread evenly over the time since the one before, so the first counts nothing."""
    if not readings:
        return History(0, *[np.zeros(0)] * 4)
    start = readings[0].time_ms // MS_PER_HOUR
    hours = max(now_ms // MS_PER_HOUR - start, 0)
    used, made = np.zeros(hours + 1), np.zeros(hours + 1)
    for before, reading in pairwise(readings):
        for hour, part in _spread(before.time_ms, reading.time_ms):
            place = min(hour - start, hours)  # the last place is of the hour that is not over
            used[place] += part * reading.consumed_wh / WH_PER_KWH
            made[place] += part * reading.produced_wh / WH_PER_KWH
    money, energy = np.zeros(hours), np.zeros(hours)
    for auction in auctions:
        place = auction.time_ms // MS_PER_HOUR - start
        if 0 <= place < hours:
            kwh = auction.energy_wh / WH_PER_KWH
            money[place] += auction.price_wei_per_wh / WEI_PER_WH * kwh
            energy[place] += kwh
    price = np.divide(money, energy, out=np.full(hours, np.nan), where=energy > 0)
    return History(start, used[:hours], made[:hours], price, energy)


def _spread(start_ms: int, end_ms: int) -> Iterable[tuple[int, float]]:
    """The hours between two moments, each with its part of the time between them."""
    if start_ms >= end_ms:
        yield (end_ms - 1) // MS_PER_HOUR, 1.0
        return
    for hour in range(start_ms // MS_PER_HOUR, (end_ms - 1) // MS_PER_HOUR + 1):
        first_ms, last_ms = max(hour * MS_PER_HOUR, start_ms), min((hour + 1) * MS_PER_HOUR, end_ms)
        yield hour, (last_ms - first_ms) / (end_ms - start_ms)
