"""The key figures of homes and of all of them together, from their sums an hour (docs/KPI.md).

Pure. Energy in Wh, money in wei, CO2 in mg, all whole; ratios are decimals from 0 to 1.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from operator import add
from typing import Final, NamedTuple

from apps.kpi.factors import NO_SOURCE, RENEWABLE, Factors
from ctt_state.settlement import (
    Event,
    Kind,
    Position,
    Reading,
    Settlement,
    Stock,
    Tariff,
    Trade,
    join,
    least_stock_wh,
    settle,
)
from ctt_state.units import MS_PER_HOUR, ZERO_ADDRESS, Ms, Wei, Wh

RATIO_STEP: Final = Decimal("0.000001")


class Sums(NamedTuple):
    """What a home came to in a period, as the indexer's roll-ups have it."""

    start_ms: int
    produced_wh: int
    stored_wh: int
    consumed_wh: int
    covered_wh: int
    auction_bought_wh: int = 0
    auction_bought_wei: int = 0
    auction_sold_wh: int = 0
    auction_sold_wei: int = 0
    partner_bought_wh: int = 0
    partner_bought_wei: int = 0
    partner_sold_wh: int = 0
    partner_sold_wei: int = 0
    token_bought_wh: int = 0
    token_bought_wei: int = 0
    token_sold_wh: int = 0
    token_sold_wei: int = 0
    token_paid_wei: int = 0
    token_received_wei: int = 0
    grid_fee_wei: int = 0


NOTHING: Final = Sums(0, 0, 0, 0, 0)

# Of what tokens covered, the Wh of each source that is known, by its number (factors.SOURCES); the rest is of none.
Retired = Mapping[int, int]
NONE_RETIRED: Final[Retired] = {}


class Home(NamedTuple):
    """A prosumer's history."""

    address: bytes
    before: Sequence[Sums]  # all that came before the hours, in periods of any length, in order
    hours: Sequence[Sums]  # in order
    retired: Mapping[int, Retired]  # by the hour's start


class Tariffs:
    """The operator's tariff over time; nothing before the first."""

    def __init__(self, since: Iterable[tuple[int, Tariff]]) -> None:
        """Each with the time in ms from which on it holds, in order."""
        self._times_ms, self._tariffs = [0], [Tariff()]
        for time_ms, tariff in since:
            self._times_ms.append(time_ms)
            self._tariffs.append(tariff)

    def at(self, time_ms: int) -> Tariff:
        return self._tariffs[bisect_right(self._times_ms, time_ms) - 1]


class Span(NamedTuple):
    """From after `start_ms` up to `end_ms`."""

    start_ms: int
    end_ms: int


class Indicators(NamedTuple):
    """The key figures of a home, or of all together."""

    span: Span
    home: bytes | None  # None: the community
    produced_wh: int
    stored_wh: int
    fed_in_wh: int
    consumed_wh: int
    own_used_wh: int
    partner_used_wh: int
    auction_used_wh: int
    billed_wh: int
    bought_wh: int
    sold_wh: int
    shared_wh: int
    self_consumption: Decimal | None  # None where nothing was produced
    self_sufficiency: Decimal | None  # None where nothing was consumed
    renewable_wh: int
    renewable_share: Decimal | None  # None where nothing was consumed
    consuming_hours: int
    renewable_hours: int
    cost_wei: int
    cost_without_market_wei: int
    co2_mg: int
    co2_avoided_mg: int

    @property
    def savings_wei(self) -> int:
        return self.cost_without_market_wei - self.cost_wei


class Terms(NamedTuple):
    """What money and CO2 are reckoned by."""

    tariffs: Tariffs
    factors: Factors


class _Hour(NamedTuple):
    """What of an hour, of one home or of all, its settlement does not say."""

    produced_wh: int = 0
    consumed_wh: int = 0
    renewable_wh: int = 0
    without_market_wei: int = 0
    co2_mg: int = 0

    @property
    def shared_wh(self) -> int:
        return min(self.produced_wh, self.consumed_wh)

    @property
    def is_renewable(self) -> bool:
        return 0 < self.consumed_wh <= self.renewable_wh


def indicators(homes: Iterable[Home], terms: Terms, span_of: Callable[[int], Span]) -> list[Indicators]:
    """By span, the homes that did something in it, in their order, and then all of them together: what came out of
    their tokens was produced among themselves.

    `span_of` gives the span that an hour lies in, by the hour's start. The homes' hours are not kept.
    """
    rows: dict[Span, list[Indicators]] = defaultdict(list)
    totals: dict[Span, list[Settlement]] = defaultdict(list)
    together: dict[Span, dict[int, _Hour]] = defaultdict(dict)
    for home in homes:
        for span, (settled, hours) in _spans(home, terms, span_of).items():
            total = _total(settled)
            totals[span].append(total)
            rows[span].append(
                _indicators(span, home.address, total, total.own_used_wh, hours.values(), terms)
            )
            for start_ms, hour in hours.items():
                known = together[span].get(start_ms, _Hour())
                together[span][start_ms] = _Hour(*map(add, known, hour))
    for span, of_homes in rows.items():
        total = _total(totals[span])
        covered_wh = total.consumed_wh - total.billed_wh
        of_homes.append(_indicators(span, None, total, covered_wh, together[span].values(), terms))
    return [row for span in sorted(rows) for row in rows[span]]


def ratio(part: int, whole: int) -> Decimal | None:
    """To six decimals, half to even; None of nothing."""
    return (Decimal(part) / Decimal(whole)).quantize(RATIO_STEP) if whole else None


def settle_hours(home: Home, tariffs: Tariffs) -> list[Settlement]:
    """A settlement for each hour. What the tokens held when all began counts as own, and is the least that can be."""
    before = [event for sums in home.before for event in _events(sums, Tariff())]
    hours = [event for sums in home.hours for event in _events(sums, tariffs.at(sums.start_ms + MS_PER_HOUR))]
    opening = Position(Stock(own_wh=least_stock_wh([*before, *hours])))
    _, position = settle(before, opening)
    settled, _ = settle(hours, position)
    return settled


def _spans(
    home: Home, terms: Terms, span_of: Callable[[int], Span]
) -> dict[Span, tuple[list[Settlement], dict[int, _Hour]]]:
    """A home's hours by span, settled, and by start what else counts of them."""
    spans: dict[Span, tuple[list[Settlement], dict[int, _Hour]]] = {}
    for sums, settled in zip(home.hours, settle_hours(home, terms.tariffs), strict=True):
        of_span, hours = spans.setdefault(span_of(sums.start_ms), ([], {}))
        of_span.append(settled)
        hours[sums.start_ms] = _hour(sums, home.retired.get(sums.start_ms, NONE_RETIRED), terms)
    return spans


def _hour(sums: Sums, retired: Retired, terms: Terms) -> _Hour:
    """Without a market all that was consumed is bought at retail, and all that was produced is fed in."""
    retail, feed_in = terms.tariffs.at(sums.start_ms + MS_PER_HOUR)
    return _Hour(
        sums.produced_wh,
        sums.consumed_wh,
        renewable_wh=sum(retired.get(source, 0) for source in RENEWABLE),
        without_market_wei=sums.consumed_wh * retail - sums.produced_wh * feed_in,
        co2_mg=_co2_mg(sums, retired, terms.factors),
    )


def _co2_mg(sums: Sums, retired: Retired, factors: Factors) -> int:
    """What tokens covered by its source, the rest by the grid."""
    unknown_wh = sums.covered_wh - sum(retired.values())
    known_mg = sum(energy * factors.of(source) for source, energy in retired.items())
    billed_mg = (sums.consumed_wh - sums.covered_wh) * factors.grid
    return known_mg + unknown_wh * factors.of(NO_SOURCE) + billed_mg


def _indicators(
    span: Span,
    home: bytes | None,
    settled: Settlement,
    self_used_wh: int,
    hours: Collection[_Hour],
    terms: Terms,
) -> Indicators:
    co2_mg, renewable_wh = (sum(hour.co2_mg for hour in hours), sum(hour.renewable_wh for hour in hours))
    return Indicators(
        span,
        home,
        produced_wh=settled.produced_wh,
        stored_wh=settled.stored_wh,
        fed_in_wh=settled.fed_in_wh,
        consumed_wh=settled.consumed_wh,
        own_used_wh=settled.own_used_wh,
        partner_used_wh=settled.partner_used_wh,
        auction_used_wh=settled.auction_used_wh,
        billed_wh=settled.billed_wh,
        bought_wh=settled.bought_wh,
        sold_wh=settled.sold_wh,
        shared_wh=sum(hour.shared_wh for hour in hours),
        self_consumption=ratio(min(self_used_wh, settled.produced_wh), settled.produced_wh),
        self_sufficiency=ratio(self_used_wh, settled.consumed_wh),
        renewable_wh=renewable_wh,
        renewable_share=ratio(renewable_wh, settled.consumed_wh),
        consuming_hours=sum(hour.consumed_wh > 0 for hour in hours),
        renewable_hours=sum(hour.is_renewable for hour in hours),
        cost_wei=settled.paid_wei - settled.received_wei,
        cost_without_market_wei=sum(hour.without_market_wei for hour in hours),
        co2_mg=co2_mg,
        co2_avoided_mg=settled.consumed_wh * terms.factors.grid - co2_mg,
    )


def _total(settled: Iterable[Settlement]) -> Settlement:
    """Of at least one."""
    (total,) = join(each._replace(start_ms=Ms(0), meter=ZERO_ADDRESS) for each in settled)
    return total


def _events(sums: Sums, tariff: Tariff) -> list[Event]:
    """A period's sums, each as one event. What comes into the tokens comes first, so that nothing goes out that is not
    there."""
    time_ms = Ms(sums.start_ms + 1)
    produced = Reading(time_ms, ZERO_ADDRESS, Wh(sums.produced_wh), Wh(sums.stored_wh), Wh(0), Wh(0))
    consumed = Reading(time_ms, ZERO_ADDRESS, Wh(0), Wh(0), Wh(sums.consumed_wh), Wh(sums.covered_wh))
    bought = (
        (Kind.PARTNER, sums.partner_bought_wh, sums.partner_bought_wei, sums.grid_fee_wei, 0),
        (Kind.AUCTION, sums.auction_bought_wh, sums.auction_bought_wei, 0, 0),
        (Kind.TOKEN, sums.token_bought_wh, sums.token_bought_wei, 0, sums.token_paid_wei),
    )
    sold = (
        (Kind.PARTNER, sums.partner_sold_wh, sums.partner_sold_wei, 0, 0),
        (Kind.AUCTION, sums.auction_sold_wh, sums.auction_sold_wei, 0, 0),
        (Kind.TOKEN, sums.token_sold_wh, sums.token_sold_wei, 0, sums.token_received_wei),
    )
    trades = [
        Trade(time_ms, kind, side is bought, Wh(energy), *map(Wei, money))
        for side in (bought, sold)
        for kind, energy, *money in side
        if energy or any(money)
    ]
    return [tariff, produced, *trades, consumed]
