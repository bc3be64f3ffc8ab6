"""What settlements and key figures are made of, out of the indexer's tables."""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, CursorResult, Table, func, make_url, or_, select
from sqlalchemy.exc import SQLAlchemyError

from apps.indexer.database import UnknownDatabase, connect
from apps.indexer.schema import (
    AUCTIONS,
    CHAIN,
    DAYS,
    HOURS,
    READINGS,
    RETIRED,
    TARIFFS,
    TRADES,
    TRANSACTIONS,
    VERSION,
)
from apps.kpi.indicators import Home, Span, Sums, Tariffs
from ctt_state.settlement import Event, Kind, Reading, Tariff, Trade
from ctt_state.units import Address, Ms, Wei, Wh

MS_PER_SECOND: Final = 1_000
KINDS: Final = {"auction": Kind.AUCTION, "partner": Kind.PARTNER, "gift": Kind.PARTNER, "sale": Kind.TOKEN}


class NoHistory(Exception):
    """The database has no history to read. One line."""


@contextmanager
def open_history(url: str) -> "Iterator[History]":
    """All that is read is of one moment. Raises: NoHistory, also for what fails within."""
    try:
        file = make_url(url).database if url.startswith("sqlite") else None
        if file is not None and not Path(file).exists():
            raise NoHistory(f"there is no file {file}")
        with connect(url).connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield History(connection)
    except (SQLAlchemyError, UnknownDatabase) as fault:
        cause = getattr(fault, "orig", None) or fault
        raise NoHistory(" ".join(str(cause).split())[:200]) from None


class History:
    """An indexer's database."""

    def __init__(self, connection: Connection) -> None:
        """Raises: NoHistory, SQLAlchemyError."""
        self._connection = connection
        chain = self._rows(CHAIN).one()
        if chain.version != VERSION:
            raise NoHistory(f"its tables are of schema {chain.version}, this program's of {VERSION}")
        self.zone = ZoneInfo(chain.time_zone)
        self.height: int = chain.height
        self.time_ms: int = chain.time_ms  # of the last block

    def days(self, first: date | None, last: date | None) -> Span:
        """Whole days, both included; else from the first that has something, and at most to that of the last block."""
        newest = day_of(self.time_ms - 1, self.zone)  # midnight itself still belongs to the day before
        if first is None:
            start_ms = self._connection.execute(select(func.min(DAYS.c.start_ms))).scalar()
            first = newest if start_ms is None else day_of(start_ms, self.zone)
        end = min(last or newest, newest) + timedelta(days=1)
        return Span(midnight_ms(first, self.zone), midnight_ms(end, self.zone))

    def events(self, prosumer: Address) -> list[Event]:
        """All of a prosumer's, and the tariffs, in the order of the chain."""
        readings = self._rows(READINGS, READINGS.c.prosumer == prosumer)
        trades = self._rows(TRADES, or_(TRADES.c.buyer == prosumer, TRADES.c.seller == prosumer))
        found: list[tuple[int, int, int, Event]] = [
            *[(row.height, row.position, row.log_index, _tariff(row)) for row in self._rows(TARIFFS)],
            *[(row.height, row.position, row.item, _reading(row)) for row in readings],
            *[
                (row.height, row.position, row.log_index, _trade(row, row.buyer == prosumer))
                for row in trades
            ],
        ]
        return [event for *_, event in sorted(found, key=lambda each: each[:3])]

    def transactions(self, prosumer: Address, first: int, last: int) -> list[tuple[bytes, int, int]]:
        """Those that brought readings of the prosumer in these blocks, in the order of the chain: hash, height, and
        time of the block in ms."""
        is_one = (READINGS.c.height == TRANSACTIONS.c.height) & (
            READINGS.c.position == TRANSACTIONS.c.position
        )
        asked = (
            select(
                TRANSACTIONS.c.hash, TRANSACTIONS.c.height, TRANSACTIONS.c.time_ms, TRANSACTIONS.c.position
            )
            .join(READINGS, is_one)
            .where(READINGS.c.prosumer == prosumer, READINGS.c.height.between(first, last))
            .distinct()
            .order_by(TRANSACTIONS.c.height, TRANSACTIONS.c.position)
        )
        return [(row.hash, row.height, row.time_ms) for row in self._connection.execute(asked)]

    def tariffs(self) -> Tariffs:
        rows = sorted(self._rows(TARIFFS), key=lambda row: (row.height, row.log_index))
        return Tariffs((row.time_ms, _tariff(row)) for row in rows)

    def auctions(self, since_ms: int) -> list[tuple[int, int, int]]:
        """Those that traded from this time on: when in ms, wei per Wh, Wh."""
        columns = (AUCTIONS.c.time_ms, AUCTIONS.c.price_wei_per_wh, AUCTIONS.c.energy_wh)
        rows = self._connection.execute(
            select(*columns).where(AUCTIONS.c.time_ms >= since_ms).order_by(AUCTIONS.c.time_ms)
        )
        return [tuple(row) for row in rows if row.energy_wh]

    def homes(self, span: Span, only: Collection[bytes] = ()) -> Iterator[Home]:
        """All, or these, by address: what each hour of the span came to, and each day before it."""
        found = self._connection.execute(select(DAYS.c.prosumer).distinct()).scalars()
        for address in sorted(set(found).intersection(only) if only else found):
            before = self._sums(DAYS, address, Span(0, span.start_ms))
            hours = self._sums(HOURS, address, span)
            yield Home(
                address, before, hours, self._retired(address, span, [hour.start_ms for hour in hours])
            )

    def _sums(self, table: Table, address: bytes, span: Span) -> list[Sums]:
        columns = [table.c[name] for name in Sums._fields]
        within = (
            table.c.prosumer == address,
            table.c.start_ms >= span.start_ms,
            table.c.start_ms < span.end_ms,
        )
        rows = self._connection.execute(select(*columns).where(*within).order_by(table.c.start_ms))
        return [Sums(*row) for row in rows]

    def _retired(self, address: bytes, span: Span, starts_ms: list[int]) -> dict[int, dict[int, int]]:
        """By the hour's start and source. There is an hour wherever there is a reading."""
        found: dict[int, dict[int, int]] = {}
        within = (RETIRED.c.time_ms > span.start_ms, RETIRED.c.time_ms <= span.end_ms)
        for row in self._rows(RETIRED, RETIRED.c.prosumer == address, *within):
            hour = found.setdefault(starts_ms[bisect_left(starts_ms, row.time_ms) - 1], {})
            hour[row.source] = hour.get(row.source, 0) + row.energy_wh
        return found

    def _rows(self, table: Table, *conditions: Any) -> CursorResult[Any]:
        return self._connection.execute(select(table).where(*conditions))


def _tariff(row: Any) -> Tariff:
    return Tariff(Wei(row.ceiling_wei_per_wh), Wei(row.floor_wei_per_wh))


def _reading(row: Any) -> Reading:
    amounts = (row.produced_wh, row.stored_wh, row.consumed_wh, row.covered_wh)
    return Reading(Ms(row.time_ms), Address(row.meter), *map(Wh, amounts))


def _trade(row: Any, is_purchase: bool) -> Trade:
    money = (row.energy_wei, row.grid_fee_wei, row.token_wei)
    return Trade(Ms(row.time_ms), KINDS[row.kind], is_purchase, Wh(row.energy_wh), *map(Wei, money))


# --- days of a time zone ---


def midnight_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * MS_PER_SECOND


def day_of(time_ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(time_ms // MS_PER_SECOND, zone).date()


def day_span(time_ms: int, zone: ZoneInfo) -> Span:
    """The day that this moment is in, of 23 to 25 hours."""
    day = day_of(time_ms, zone)
    return Span(midnight_ms(day, zone), midnight_ms(day + timedelta(days=1), zone))
