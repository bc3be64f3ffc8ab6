"""The time a bill is for: whole days of the calendar where the customer lives, some of 23 or 25 hours.

A reading says how much energy went by until then, so a moment belongs to what lies before it: the reading of
midnight is the last of the day that ends, and no reading belongs to two days or to none.
"""

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple, Self
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
DAY: Final = timedelta(days=1)


DAYS_MAX: Final = 1_100  # of a period
YEARS: Final = range(1970, 9_000)


class InvalidPeriod(ValueError):
    """The two days bound no period."""


class Period(NamedTuple):
    """From midnight at the beginning of `first` to midnight at the beginning of `end`."""

    first: date
    end: date
    zone: ZoneInfo

    @classmethod
    def between(cls, first: date, end: date, zone: ZoneInfo) -> Self:
        """Raises: InvalidPeriod."""
        if first.year not in YEARS or end.year not in YEARS:
            raise InvalidPeriod(f"{first} to {end}: years are {YEARS.start} to {YEARS.stop - 1}")
        if not 1 <= (end - first).days <= DAYS_MAX:
            raise InvalidPeriod(
                f"{first} to {end} are {(end - first).days} days; 1 to {DAYS_MAX} can be billed"
            )
        return cls(first, end, zone)

    @property
    def start_ms(self) -> int:
        return midnight_ms(self.first, self.zone)

    @property
    def end_ms(self) -> int:
        return midnight_ms(self.end, self.zone)

    @property
    def days(self) -> int:
        return (self.end - self.first).days

    def dates(self) -> Iterator[date]:
        for number in range(self.days):
            yield self.first + number * DAY

    def has(self, time_ms: int) -> bool:
        return self.start_ms < time_ms <= self.end_ms


def month(year: int, number: int, zone: ZoneInfo) -> Period:
    """Raises: InvalidPeriod."""
    if year not in YEARS:
        raise InvalidPeriod(f"{year:04}-{number:02}: years are {YEARS.start} to {YEARS.stop - 1}")
    first = date(year, number, 1)
    return Period(first, first + monthrange(year, number)[1] * DAY, zone)


def midnight_ms(day: date, zone: ZoneInfo) -> int:
    """When the day begins; where clocks skip midnight, the moment at which they do."""
    begins = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (begins.astimezone(UTC) - EPOCH) // MILLISECOND


def local_time(time_ms: int, zone: ZoneInfo) -> datetime:
    return (EPOCH + time_ms * MILLISECOND).astimezone(zone)


def local_before(time_ms: int, zone: ZoneInfo) -> datetime:
    """What clocks showed in the millisecond before this moment: it tells the day and the window of a reading."""
    return local_time(time_ms - 1, zone)
