"""Green Button: what a utility tells of a home's past, as XML (ESPI, NAESB REQ.21) or CSV.

Pure. Both tell energy by intervals; the chain wants registers, so the intervals are summed up from where the registers
stood. ESPI tells moments in UTC. CSV tells local time, and the hour that autumn has twice in the order of its rows.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, ParseError
from zoneinfo import ZoneInfo

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from apps.meter.reading import Malformed, NoRegisters, Registers, energy, whole_wh
from ctt_state.units import MS_PER_SECOND, Ms, Wh

FILE_BYTES_MAX: Final = 64 << 20
INTERVAL_S_MAX: Final = 31 * 86_400

_ATOM: Final = "{http://www.w3.org/2005/Atom}"
_ESPI: Final = "{http://naesb.org/espi}"
_WATT_HOURS: Final = "72"
_DELTA: Final = "4"
_FORWARD, _REVERSE = "1", "19"
_ELECTRICITY: Final = ("0", "1", "2")  # where it is metered
_WHOLE: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_POWERS: Final = range(-12, 13)


class Interval(NamedTuple):
    """Energy from one moment to another, exact, in Wh."""

    start_ms: Ms
    end_ms: Ms
    is_export: bool
    wh: Decimal


def read_espi(content: bytes) -> list[Interval]:
    """The electricity intervals of an ESPI feed. Raises: Malformed, NoRegisters."""
    try:
        feed = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as fault:
        raise Malformed(f"this is no XML to be read: {fault}") from None
    entries = list(feed.iter(f"{_ATOM}entry"))
    types = {
        link: kind
        for entry in entries
        if (kind := entry.find(f".//{_ESPI}ReadingType")) is not None
        for link in _links(entry, "self")
    }
    # A MeterReading points to its ReadingType and to where its blocks are.
    of_blocks = {
        blocks: types[named]
        for entry in entries
        if entry.find(f".//{_ESPI}MeterReading") is not None
        for named in _links(entry, "related")
        if named in types
        for blocks in _links(entry, "related")
    }
    found = [interval for entry in entries for interval in _blocks(entry, of_blocks)]
    if not found:
        raise NoRegisters("no intervals of electricity in Wh in this file")
    return found


def _links(entry: Element, relation: str) -> list[str]:
    return [link.get("href", "") for link in entry.findall(f"{_ATOM}link") if link.get("rel") == relation]


def _blocks(entry: Element, of_blocks: Mapping[str, Element]) -> Iterator[Interval]:
    blocks = entry.findall(f".//{_ESPI}IntervalBlock")
    kind = next((of_blocks[link] for link in _links(entry, "up") if link in of_blocks), None)
    if not blocks or kind is None:
        return
    if _text(kind, "commodity", "1") not in _ELECTRICITY or _text(kind, "uom") != _WATT_HOURS:
        return
    direction = _text(kind, "flowDirection", _FORWARD)
    if direction not in (_FORWARD, _REVERSE) or _text(kind, "accumulationBehaviour", _DELTA) != _DELTA:
        raise Malformed(
            "the intervals are no energy of their own in one direction (behaviour 4, direction 1 or 19)"
        )
    power = int(_power(_text(kind, "powerOfTenMultiplier", "0")))
    for block in blocks:
        for reading in block.findall(f"{_ESPI}IntervalReading"):
            period = reading.find(f"{_ESPI}timePeriod")
            if period is None:
                raise Malformed("an IntervalReading without timePeriod")
            start, duration = _whole(period, "start"), _whole(period, "duration")
            wh = Decimal(_whole(reading, "value")).scaleb(power)
            yield _interval(start, start + duration, direction == _REVERSE, wh)


def _text(element: Element, name: str, default: str = "") -> str:
    return (element.findtext(f"{_ESPI}{name}") or default).strip()


def _whole(element: Element, name: str) -> int:
    text = _text(element, name)
    if not _WHOLE.fullmatch(text):
        raise Malformed(f"{name} is {text[:40]!a}, not a whole number")
    return int(text)


def _power(text: str) -> int:
    if text.removeprefix("-").isdecimal() and int(text) in _POWERS:
        return int(text)
    raise Malformed(f"powerOfTenMultiplier is {text[:40]!a}")


def _interval(start_s: int, end_s: int, is_export: bool, wh: Decimal) -> Interval:
    if not 0 < end_s - start_s <= INTERVAL_S_MAX:
        raise Malformed(f"an interval of {end_s - start_s} s")
    return Interval(Ms(start_s * MS_PER_SECOND), Ms(end_s * MS_PER_SECOND), is_export, wh)


# --- CSV ------------------------------------------------------------------------------------------------------------


def read_csv(text: str, zone: ZoneInfo) -> list[Interval]:
    """Rows of DATE, START TIME, END TIME and an energy, in local time and in order, below any preamble.

    The energy is in a column that names its unit (`USAGE (kWh)`, `EXPORT (kWh)`), or in USAGE with UNITS beside it. An
    end such as 00:14 is that minute's end. Raises: Malformed, NoRegisters.
    """
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = next(filter(None, map(_columns, rows)), None)
        if columns is None:
            raise NoRegisters("no line with the columns DATE, START TIME, END TIME and USAGE")
        intervals: list[Interval] = []
        last = None
        for number, row in enumerate(rows, rows.line_num + 1):
            if len(row) < len(columns):
                if any(row):
                    raise Malformed(f"line {number} has {len(row)} of {len(columns)} columns")
                continue
            cells = dict(zip(columns, map(str.strip, row), strict=False))
            start = _local(cells["DATE"], cells["START TIME"], zone, last)
            last = start
            intervals += _of_row(cells, start)
    except csv.Error as fault:
        raise Malformed(f"this is no CSV to be read: {fault}") from None
    if not intervals:
        raise NoRegisters("no intervals in this file")
    return intervals


def _columns(row: list[str]) -> list[str] | None:
    names = [cell.strip().upper() for cell in row]
    has_energy = any(re.match(r"(USAGE|IMPORT|EXPORT)\b", name) for name in names)
    return names if has_energy and {"DATE", "START TIME", "END TIME"} <= set(names) else None


def _of_row(cells: Mapping[str, str], start: datetime) -> Iterator[Interval]:
    begin, end = (_clock(cells[name]) for name in ("START TIME", "END TIME"))
    minutes = (end - begin) // timedelta(minutes=1) % 1440
    # 00:00 to 00:14 is a quarter of an hour as 00:00 to 00:15 is.
    minutes = minutes + 1 if minutes % 5 == 4 else minutes or 1440
    start_s = int(start.timestamp())
    for name, value in cells.items():
        column = re.fullmatch(r"(USAGE|IMPORT|EXPORT)(?: \((K?WH)\))?", name)
        if column and value:
            unit = (column[2] or cells.get("UNITS", "")).upper()
            wh = energy(value, {"KWH": "kWh", "WH": "Wh"}.get(unit, unit))
            yield _interval(start_s, start_s + minutes * 60, column[1] == "EXPORT", wh)


def _local(date: str, time: str, zone: ZoneInfo, last: datetime | None) -> datetime:
    """In UTC. Of the hour that comes twice the second is meant when the first has gone by."""
    clock = _clock(time)
    for form in ("%Y-%m-%d", "%m/%d/%Y"):
        try:
            day = datetime.strptime(date, form)  # noqa: DTZ007  the zone follows
        except ValueError:
            continue
        local = day.replace(hour=clock.hour, minute=clock.minute, tzinfo=zone)
        moment = local.astimezone(UTC)
        if last is not None and moment <= last:
            moment = local.replace(fold=1).astimezone(UTC)
        return moment
    raise Malformed(f"{date[:40]!a} is no date such as 2026-03-29 or 03/29/2026")


def _clock(text: str) -> datetime:
    for form in ("%H:%M", "%H:%M:%S", "%I:%M %p"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise Malformed(f"{text[:40]!a} is no time of day")


# --- registers ------------------------------------------------------------------------------------------------------


def registers(intervals: Iterable[Interval], last: Registers | None) -> list[Registers]:
    """The registers at each interval's end, from where they stood; with none before, from zero at the first start.

    Intervals up to the last reading are left out: they have counted. The same interval twice is one. Raises:
    Malformed for intervals that overlap each other or the last reading.
    """
    ordered = sorted(set(intervals))
    readings = []
    if last is None:
        if not ordered:
            return []
        last = Registers(ordered[0].start_ms, Wh(0), Wh(0))
        readings.append(last)
    ordered = [interval for interval in ordered if interval.end_ms > last.time_ms]
    _check_apart(ordered, last.time_ms)
    totals = [Decimal(last.import_wh), Decimal(last.export_wh)]
    for end_ms, ending in groupby(
        sorted(ordered, key=lambda each: each.end_ms), key=lambda each: each.end_ms
    ):
        for interval in ending:
            totals[interval.is_export] += interval.wh
        readings.append(Registers(end_ms, whole_wh(totals[:1]), whole_wh(totals[1:])))
    return readings


def _check_apart(ordered: Iterable[Interval], after_ms: Ms) -> None:
    ends = [after_ms, after_ms]
    for interval in ordered:
        if interval.start_ms < ends[interval.is_export]:
            start = datetime.fromtimestamp(interval.start_ms / MS_PER_SECOND, UTC)
            raise Malformed(f"the interval from {start:%Y-%m-%d %H:%M} UTC overlaps what has been counted")
        ends[interval.is_export] = interval.end_ms
