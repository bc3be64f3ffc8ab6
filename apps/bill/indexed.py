"""Readings, where their energy came from, and key figures, out of an indexer's database (docs/INDEXER.md)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from apps.bill.bill import Background, KeyFigures, Origin, Purchase
from apps.bill.collect import Found, HistoryMissing, Span, UnknownProsumer, check_over
from apps.bill.period import Period
from apps.bill.readings import Place, Reading
from apps.kpi.factors import read_factors
from apps.kpi.history import History, NoHistory, open_history
from apps.kpi.indicators import Span as TimeSpan
from apps.kpi.indicators import Terms, indicators
from ctt_state import settlement
from ctt_state.settlement import Event, Kind, Position, Stock, Trade, least_stock_wh, settle
from ctt_state.units import Address, hex_of


class IndexMissing(HistoryMissing):
    """The database has no history to read."""


class Indexed(NamedTuple):
    """What the database says of a prosumer, up to a block."""

    height: int
    readings: list[Reading]
    background: Background


def read_index(url: str, prosumer: Address, period: Period) -> Indexed:
    """Raises: IndexMissing, PeriodNotOver, UnknownProsumer."""
    with _opened(url) as history:
        check_over(history.time_ms, period)
        events = history.events(prosumer)
        readings = [_reading(event) for event in events if isinstance(event, settlement.Reading)]
        if not readings:
            raise UnknownProsumer(f"the index has no reading of {hex_of(prosumer)}")
        background = Background(_purchases(events), _origins(events), _figures(history, prosumer, period))
        return Indexed(history.height, [each for each in readings if any(each[3:])], background)


def find_indexed(url: str, prosumer: Address, span: Span) -> tuple[list[Found], Span]:
    """The transactions of these blocks that brought readings, as far as the index has come; and the blocks that it has
    not. Raises: IndexMissing."""
    with _opened(url) as history:
        last = max(min(history.height, span.closing), span.opening)
        rows = history.transactions(prosumer, span.opening + 1, last)
        return [Found(hex_of(row[0]), *row[1:]) for row in rows], Span(last, span.closing)


@contextmanager
def _opened(url: str) -> Iterator[History]:
    try:
        with open_history(url) as history:
            yield history
    except NoHistory as fault:
        raise IndexMissing(f"no history in the database: {fault}") from None


def _reading(event: settlement.Reading) -> Reading:
    time_ms, meter, *energy_wh = event
    return Reading(time_ms, Place(0, 0), meter, *energy_wh)


def _purchases(events: Sequence[Event]) -> tuple[Purchase, ...]:
    """At auctions; partners and tokens that were bought with their energy are apart."""
    return tuple(
        [
            Purchase(event.time_ms, event.energy_wh, event.energy_wei)
            for event in events
            if isinstance(event, Trade) and event.is_purchase and event.kind is Kind.AUCTION
        ]
    )


def _origins(events: Sequence[Event]) -> tuple[Origin, ...]:
    """By the waterfall of docs/SETTLEMENT.md, from the beginning of the chain on."""
    slots, _ = settle(events, Position(Stock(own_wh=least_stock_wh(events))))
    return tuple(
        [
            Origin(
                slot.start_ms + settlement.SLOT_MS,
                slot.own_used_wh,
                slot.partner_used_wh,
                slot.auction_used_wh,
            )
            for slot in slots
        ]
    )


def _figures(history: History, prosumer: Address, period: Period) -> KeyFigures | None:
    """None where the index has other days than the tariff: its sums are those of its own zone's."""
    if history.zone != period.zone:
        return None
    span = TimeSpan(period.start_ms, period.end_ms)
    homes = history.homes(span, (prosumer,))
    for row in indicators(homes, Terms(history.tariffs(), read_factors(None)), lambda _: span):
        if row.home == prosumer:
            return KeyFigures(
                row.self_sufficiency,
                row.self_consumption,
                row.renewable_share,
                row.savings_wei,
                row.co2_avoided_mg,
            )
    return None
