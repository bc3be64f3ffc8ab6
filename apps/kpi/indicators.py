"""The key figures of homes and of all of them together, from their sums an hour (docs/KPI.md).

Pure. Energy in Wh, money in wei, CO2 in mg, all whole; ratios are decimals from 0 to 1.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple

from apps.kpi.factors import Factors
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


class Home(NamedTuple):
    """A prosumer's history."""

    address: bytes
    source: int  # of what it produces, by its certified meter; 0 for none
    before: Sequence[Sums]  # all that came before the hours, in periods of any length, in order
    hours: Sequence[Sums]  # in order


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


class _Part(NamedTuple):
    """A home's hours of one span, added up."""

    home: bytes
    source: int
    settled: Settlement
    shared_wh: int
    without_market_wei: int


def indicators(homes: Iterable[Home], terms: Terms, span_of: Callable[[int], Span]) -> list[Indicators]:
    """By span, the homes that did something in it, in their order, and then all of them together.

    `span_of` gives the span that an hour lies in, by the hour's start. The homes' hours are not kept.
    """
    parts: dict[Span, list[_Part]] = defaultdict(list)
    stored_wh: dict[int, int] = defaultdict(int)
    together: dict[int, Sums] = {}
    for home in homes:
        for span, part in _parts(home, terms.tariffs, span_of):
            parts[span].append(part)
        for sums in (*home.before, *home.hours):
            stored_wh[home.source] += sums.stored_wh
        for hour in home.hours:
            known = together.get(hour.start_ms, NOTHING)
            together[hour.start_ms] = NOTHING._replace(
                start_ms=hour.start_ms,
                produced_wh=known.produced_wh + hour.produced_wh,
                consumed_wh=known.consumed_wh + hour.consumed_wh,
            )
    shared: dict[Span, int] = defaultdict(int)
    for hour in together.values():
        shared[span_of(hour.start_ms)] += shared_energy_wh(hour)
    mix = terms.factors.mix(stored_wh)
    return [
        row for span in sorted(parts) for row in _of_span(span, parts[span], shared[span], mix, terms.factors)
    ]


def shared_energy_wh(hour: Sums) -> int:
    """The smaller of what was fed in and what was drawn."""
    return min(hour.produced_wh, hour.consumed_wh)


def ratio(part: int, whole: int) -> Decimal | None:
    """To six decimals, half to even; None of nothing."""
    return (Decimal(part) / Decimal(whole)).quantize(RATIO_STEP) if whole else None


def settle_hours(home: Home, tariffs: Tariffs) -> list[Settlement]:
    """A settlement for each hour. What the tokens held when all began counts as own, and is the least that can be."""
    before = [event for sums in home.before for event in _events(sums, Tariff())]
    hours = [_events(sums, tariffs.at(sums.start_ms + MS_PER_HOUR)) for sums in home.hours]
    opening = least_stock_wh([*before, *[event for events in hours for event in events]])
    _, position = settle(before, Position(Stock(own_wh=opening)))
    found: list[Settlement] = []
    for events in hours:
        settled, position = settle(events, position)
        found += settled
    return found


def _parts(home: Home, tariffs: Tariffs, span_of: Callable[[int], Span]) -> Iterator[tuple[Span, _Part]]:
    spans: dict[Span, list[tuple[Sums, Settlement]]] = defaultdict(list)
    for hour, settled in zip(home.hours, settle_hours(home, tariffs), strict=True):
        spans[span_of(hour.start_ms)].append((hour, settled))
    for span, pairs in spans.items():
        shared_wh = sum(shared_energy_wh(hour) for hour, _ in pairs)
        without_wei = sum(_without_market_wei(hour, tariffs) for hour, _ in pairs)
        yield (
            span,
            _Part(home.address, home.source, _total(each for _, each in pairs), shared_wh, without_wei),
        )


def _of_span(
    span: Span, parts: Sequence[_Part], shared_wh: int, mix: Fraction, factors: Factors
) -> list[Indicators]:
    """Its homes, and all of them together: what came out of tokens was then produced among themselves."""
    rows = [
        _indicators(span, part.home, part, part.settled.own_used_wh, _co2_mg(part, mix, factors), factors)
        for part in parts
    ]
    without_wei = sum(part.without_market_wei for part in parts)
    all_homes = _Part(b"", 0, _total(part.settled for part in parts), shared_wh, without_wei)
    covered_wh = all_homes.settled.consumed_wh - all_homes.settled.billed_wh
    co2_mg = sum(row.co2_mg for row in rows)
    return [*rows, _indicators(span, None, all_homes, covered_wh, co2_mg, factors)]


def _co2_mg(part: _Part, mix: Fraction, factors: Factors) -> int:
    """Own production by its source, what came from others by the mix of all that was ever stored, rounded up, the rest
    by the grid."""
    settled = part.settled
    from_others_wh = settled.partner_used_wh + settled.auction_used_wh
    known_mg = settled.own_used_wh * factors.of(part.source) + settled.billed_wh * factors.grid
    return known_mg + ceil(from_others_wh * mix)


def _indicators(
    span: Span, home: bytes | None, part: _Part, self_used_wh: int, co2_mg: int, factors: Factors
) -> Indicators:
    settled = part.settled
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
        shared_wh=part.shared_wh,
        self_consumption=ratio(min(self_used_wh, settled.produced_wh), settled.produced_wh),
        self_sufficiency=ratio(self_used_wh, settled.consumed_wh),
        cost_wei=settled.paid_wei - settled.received_wei,
        cost_without_market_wei=part.without_market_wei,
        co2_mg=co2_mg,
        co2_avoided_mg=settled.consumed_wh * factors.grid - co2_mg,
    )


def _without_market_wei(hour: Sums, tariffs: Tariffs) -> int:
    """All that was consumed is bought at retail, all that was produced is fed in."""
    retail, feed_in = tariffs.at(hour.start_ms + MS_PER_HOUR)
    return hour.consumed_wh * retail - hour.produced_wh * feed_in


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
    trades = [
        Trade(
            time_ms,
            Kind.PARTNER,
            True,
            Wh(sums.partner_bought_wh),
            Wei(sums.partner_bought_wei),
            Wei(sums.grid_fee_wei),
        ),
        Trade(time_ms, Kind.AUCTION, True, Wh(sums.auction_bought_wh), Wei(sums.auction_bought_wei)),
        Trade(
            time_ms,
            Kind.TOKEN,
            True,
            Wh(sums.token_bought_wh),
            Wei(sums.token_bought_wei),
            token_wei=Wei(sums.token_paid_wei),
        ),
        Trade(time_ms, Kind.PARTNER, False, Wh(sums.partner_sold_wh), Wei(sums.partner_sold_wei)),
        Trade(time_ms, Kind.AUCTION, False, Wh(sums.auction_sold_wh), Wei(sums.auction_sold_wei)),
        Trade(
            time_ms,
            Kind.TOKEN,
            False,
            Wh(sums.token_sold_wh),
            Wei(sums.token_sold_wei),
            token_wei=Wei(sums.token_received_wei),
        ),
    ]
    return [tariff, produced, *trades, consumed]
