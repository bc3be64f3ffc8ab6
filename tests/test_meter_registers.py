"""From what meters and utilities tell to registers: P1 telegrams, Green Button XML and CSV."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.meter.dsmr import TELEGRAM_BYTES_MAX, Framer, Telegram, parse
from apps.meter.greenbutton import Interval, read_csv, read_espi, registers
from apps.meter.reading import (
    REGISTER_WH_MAX,
    BadChecksum,
    ImplausibleClock,
    Malformed,
    NoRegisters,
    NotNewer,
    RanBackwards,
    ReadingRefused,
    Registers,
    check_clock,
    check_follows,
    energy,
    whole_wh,
)
from ctt_state.units import Ms, Wh
from tests.meter_world import DATA, make_registers, make_telegram

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the telegrams of ../shared/data are not here")

# What dsmr_parser, another reader of the same files, says of them: time in UTC, import and export in Wh.
TELEGRAMS: Final = {
    "esy5q3da1004_v304": (None, 32_549_506, 0),
    "esy5q3db1024_v304": (None, 52_185_782, 19_949_322),
    "fluvius_v171": ("2020-05-12 11:54:09", 15_792, 11),
    "fluvius_v171_alt": ("2023-11-02 11:15:48", 571_562, 5),
    "iskra_ie": ("2023-02-02 11:27:47", 20_363, 20_563),
    "sagemcom_t210_d_r": ("2022-10-06 13:50:14", 6_545_766, 58),
    "v2_2": (None, 2_002, 2_002),
    "v3": (None, 24_691_356, 24_691_356),
    "v4_2": ("2016-11-13 19:57:57", 3_016_829, 0),
    "v5": ("2017-01-02 18:20:02", 6_825, 2_444),
    "v5_eon_hu": ("2023-07-24 13:07:30", 173_640, 627_177),
    "v5_two_mbus": ("2020-04-26 20:33:25", 2_375_582, 0),
}


# --- telegrams ------------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", TELEGRAMS)
def test_each_telegram_of_a_real_meter_is_read(name: str) -> None:
    (telegram,) = Framer().feed((DATA / "dsmr" / f"telegram_{name}.txt").read_bytes())
    time, import_wh, export_wh = TELEGRAMS[name]
    time_ms = time and int(datetime.fromisoformat(f"{time}Z").timestamp()) * 1_000

    assert parse(telegram)[1:] == (time_ms, import_wh, export_wh)


@needs_data
def test_a_telegram_of_a_heat_meter_is_refused_after_its_checksum_was_found_right() -> None:
    content = (DATA / "dsmr" / "telegram_unpadded_crc.txt").read_bytes()

    with pytest.raises(NoRegisters, match=r"no register 1-0:1.8.x: this is no electricity meter"):
        parse(content)
    with pytest.raises(BadChecksum, match="says checksum B9F, its bytes have"):
        parse(content.replace(b"240.860", b"240.861"))


@needs_data
def test_no_changed_byte_goes_unnoticed() -> None:
    """A CRC-16 finds every error within 16 bits."""
    telegram = (DATA / "dsmr" / "telegram_v5.txt").read_bytes()
    for place in range(1, telegram.index(b"!")):
        with pytest.raises(ReadingRefused):
            parse(telegram[:place] + bytes([telegram[place] ^ 0x01]) + telegram[place + 1 :])


@given(
    registers=st.lists(st.integers(0, 10**9 - 1), min_size=4, max_size=4),
    second=st.integers(946_684_800, 3_092_000_000),
    is_summer=st.booleans(),
)
def test_kwh_with_three_decimals_are_whole_wh(registers: list[int], second: int, is_summer: bool) -> None:
    codes = ("1.8.1", "1.8.2", "2.8.1", "2.8.2")
    local = datetime.fromtimestamp(second, UTC) + timedelta(hours=1 + is_summer)
    lines = [
        f"1-0:{code}({wh // 1000:06d}.{wh % 1000:03d}*kWh)" for code, wh in zip(codes, registers, strict=True)
    ]
    telegram = make_telegram(f"0-0:1.0.0({local:%y%m%d%H%M%S}{'WS'[is_summer]})", *lines)

    assert parse(telegram) == Telegram("", Ms(second * 1_000), Wh(sum(registers[:2])), Wh(sum(registers[2:])))


def test_the_hour_that_autumn_has_twice_is_two_hours() -> None:
    summer, winter = (
        parse(make_telegram(f"0-0:1.0.0(261025023000{flag})", "1-0:1.8.0(000001.000*kWh)")).time_ms
        for flag in "SW"
    )

    assert summer is not None and winter == summer + 3_600_000
    assert summer == datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp() * 1_000


@pytest.mark.parametrize(
    ("lines", "refusal", "text"),
    [
        (["1-0:1.8.1(000001.000*kW)"], Malformed, "1-0:1.8.1 says '000001.000*kW', not Wh or kWh"),
        (["1-0:1.8.1(-00001.000*kWh)"], Malformed, "is no energy"),
        (["1-0:1.8.1(000001,000*kWh)"], Malformed, "is no energy"),
        (["1-0:1.8.1(000001.000*kWh"], Malformed, "the line '1-0:1.8.1(000001.000*kWh' cannot be read"),
        (["1-0:1.8.1(1*kWh)", "1-0:1.8.1(2*kWh)"], Malformed, "1-0:1.8.1 is there twice"),
        (["1-0:1.8.0(99999999999999999999*kWh)"], Malformed, "do not fit a register"),
        (["1-0:2.8.1(000001.000*kWh)"], NoRegisters, "this is no electricity meter"),
        (["0-0:1.0.0(230231120000W)", "1-0:1.8.0(1*kWh)"], Malformed, "the clock shows '230231120000W'"),
        (["0-0:1.0.0(230201120000)", "1-0:1.8.0(1*kWh)"], Malformed, "the clock shows '230201120000'"),
        (["0-0:1.0.0(230201120000X)", "1-0:1.8.0(1*kWh)"], Malformed, "the clock shows"),
    ],
)
def test_what_is_no_reading_is_refused_with_the_reason(
    lines: list[str], refusal: type[ReadingRefused], text: str
) -> None:
    with pytest.raises(refusal, match=re.escape(text)):
        parse(make_telegram(*lines))


def test_who_lost_his_checksum_is_refused_and_who_never_had_one_is_not() -> None:
    line = "1-0:1.8.1(000001.000*kWh)"

    assert parse(make_telegram(line, checksum=False)).import_wh == 1_000
    for version in ("1-3:0.2.8(50)", "0-0:96.1.4(50217)"):
        with pytest.raises(BadChecksum, match="has lost its checksum"):
            parse(make_telegram(version, line, checksum=False))
    with pytest.raises(BadChecksum, match="b'XYZ' is no checksum"):
        parse(make_telegram(line, checksum=False)[:-2] + b"XYZ\r\n")


@given(
    st.binary(max_size=400) | st.binary(max_size=400).map(lambda junk: make_telegram(junk.decode("latin-1")))
)
@example(b"/\n!\n")
def test_no_bytes_do_more_than_being_refused(content: bytes) -> None:
    for telegram in [content, *Framer().feed(content)]:
        try:
            parse(telegram)
        except ReadingRefused:
            continue


# --- cutting a stream into telegrams --------------------------------------------------------------------------------

ONE: Final = make_telegram("1-0:1.8.1(000001.000*kWh)")
TWO: Final = make_telegram("1-0:1.8.1(000002.000*kWh)")


@given(
    cuts=st.lists(st.integers(0, 500), max_size=8),
    noise=st.sampled_from([b"", b"!\r\n", b"3.000*kWh)\r\n!AB12\r\n"]),
)
def test_a_stream_is_cut_the_same_however_its_bytes_arrive(cuts: list[int], noise: bytes) -> None:
    cut_short = TWO[: TWO.index(b"!")]
    stream = noise + ONE + TWO + b"\r\n" + ONE + cut_short + ONE
    framer = Framer()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [each for begin, end in pairwise(places) for each in framer.feed(stream[begin:end])]

    assert found == [ONE, TWO, ONE, cut_short, ONE]


def test_a_telegram_that_is_cut_short_is_refused_and_the_next_is_read() -> None:
    cut = TWO[: TWO.index(b"!")]
    first, second = Framer().feed(cut + ONE)

    with pytest.raises(Malformed, match="cut short"):
        parse(first)
    assert second == ONE


def test_a_telegram_without_end_is_given_up_within_bounds() -> None:
    framer = Framer()
    found = [each for _ in range(40) for each in framer.feed(b"/" + b"x" * 1_000)]
    assert [len(each) for each in found] == [TELEGRAM_BYTES_MAX + 1]
    with pytest.raises(Malformed, match="more than 16384 bytes"):
        parse(found[0])

    assert framer.feed(b"\r\n" + ONE) == [ONE]


# --- readings -------------------------------------------------------------------------------------------------------


def test_a_register_may_stand_still_but_not_go_back_nor_time() -> None:
    last = make_registers(1_000, 5, 5)

    check_follows(None, last)
    check_follows(last, make_registers(1_001, 5, 5))
    for now, refusal, text in (
        (
            make_registers(1_000, 9, 9),
            NotNewer,
            "a reading of 1970-01-01 00:00:01 UTC after one of 1970-01-01 00:00:01 UTC",
        ),
        (make_registers(1_001, 4, 9), RanBackwards, "the import register stood at 5 Wh and shows 4 Wh"),
        (make_registers(1_001, 5, 4), RanBackwards, "the export register stood at 5 Wh and shows 4 Wh"),
    ):
        with pytest.raises(refusal, match=text):
            check_follows(last, now)


def test_a_clock_may_be_off_by_so_much_and_no_more() -> None:
    def check(time_ms: int) -> None:
        check_clock(Ms(time_ms), Ms(1_000_000), ahead_ms_max=60_000, behind_ms_max=300_000)

    for time_ms in (1_000_000 - 300_000, 1_000_000 + 60_000):
        check(time_ms)
    with pytest.raises(ImplausibleClock, match="60 s ahead of ours; 60 s are allowed"):
        check(1_060_001)
    with pytest.raises(ImplausibleClock, match="301 s behind ours; 300 s are allowed"):
        check(699_000)


def test_fractions_of_a_wh_are_cut_off_once_of_the_sum() -> None:
    assert whole_wh([energy("0.0005", "kWh"), energy("0.0005", "kWh")]) == 1
    assert whole_wh([energy("0.9999", "Wh")]) == 0
    assert whole_wh([energy(str(REGISTER_WH_MAX), "Wh")]) == REGISTER_WH_MAX
    with pytest.raises(Malformed):
        whole_wh([energy(str(REGISTER_WH_MAX), "Wh"), energy("1", "Wh")])


# --- Green Button ---------------------------------------------------------------------------------------------------


@needs_data
def test_fourteen_days_are_one_row_of_registers_and_reading_them_again_adds_nothing() -> None:
    """The spring change of clocks is on day 11, which has 92 quarter hours."""
    days = [read_espi(path.read_bytes()) for path in sorted((DATA / "greenbutton").glob("day_*.xml"))]
    readings: list[Registers] = []
    for day in days:
        readings += registers(day, readings[-1] if readings else None)

    assert [len(day) for day in days] == [96] * 10 + [92] + [96] * 3
    assert [sum(each.wh for each in days[number]) for number in (0, 10)] == [93_846, 109_403]
    assert readings[0] == make_registers(1_330_578_000_000)
    assert readings[96].import_wh == 93_846 and readings[-1].import_wh == 1_391_666
    assert readings == registers([interval for day in days for interval in day], None)
    assert registers(days[3], readings[-1]) == []
    with pytest.raises(
        Malformed, match="the interval from 2012-03-01 05:00 UTC overlaps what has been counted"
    ):
        registers(days[0], make_registers(1_330_578_000_001))


def make_feed(value: str = "10", start: str = "900", **kind: str) -> bytes:
    fields = {"commodity": "1", "flowDirection": "1", "uom": "72", "accumulationBehaviour": "4"} | kind
    tags = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    length = f"<duration>900</duration></timePeriod><value>{value}</value></IntervalReading></IntervalBlock>"
    entries = (
        ('<link rel="self" href="t"/>', f"<ReadingType xmlns='http://naesb.org/espi'>{tags}</ReadingType>"),
        (
            '<link rel="related" href="t"/><link rel="related" href="b"/>',
            "<MeterReading xmlns='http://naesb.org/espi'/>",
        ),
        (
            '<link rel="up" href="b"/>',
            f"<IntervalBlock xmlns='http://naesb.org/espi'><IntervalReading><timePeriod><start>{start}</start>{length}",
        ),
    )
    body = "".join(f"<entry>{links}<content>{content}</content></entry>" for links, content in entries)
    return f"<feed xmlns='http://www.w3.org/2005/Atom'>{body}</feed>".encode()


def test_units_and_directions_of_a_feed() -> None:
    assert read_espi(make_feed()) == [Interval(Ms(900_000), Ms(1_800_000), False, Decimal(10))]
    assert read_espi(make_feed(flowDirection="19"))[0].is_export
    assert read_espi(make_feed(powerOfTenMultiplier="3"))[0].wh == 10_000
    assert read_espi(make_feed("1234567", powerOfTenMultiplier="-3"))[0].wh == Decimal("1234.567")


@pytest.mark.parametrize(
    ("content", "refusal", "text"),
    [
        (b"<feed", Malformed, "this is no XML to be read"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", Malformed, "this is no XML to be read: DTDForbidden"),
        (b"<feed/>", NoRegisters, "no intervals of electricity in Wh"),
        (make_feed(uom="38"), NoRegisters, "no intervals of electricity in Wh"),
        (make_feed(commodity="7"), NoRegisters, "no intervals of electricity in Wh"),
        (make_feed(accumulationBehaviour="3"), Malformed, "no energy of their own in one direction"),
        (make_feed(flowDirection="4"), Malformed, "no energy of their own in one direction"),
        (make_feed(powerOfTenMultiplier="99"), Malformed, "powerOfTenMultiplier is '99'"),
        (make_feed("-1"), Malformed, "value is '-1', not a whole number"),
        (make_feed(start="now"), Malformed, "start is 'now', not a whole number"),
    ],
)
def test_a_file_that_is_no_green_button_is_refused(
    content: bytes, refusal: type[ReadingRefused], text: str
) -> None:
    with pytest.raises(refusal, match=re.escape(text)):
        read_espi(content)


NEW_YORK: Final = ZoneInfo("America/New_York")
HEAD: Final = "Name,JANE DOE\n\nTYPE,DATE,START TIME,END TIME,USAGE (kWh),COST\n"


def test_both_hours_of_autumn_are_there_in_a_csv() -> None:
    rows = [
        f"Electric usage,2026-11-01,{at},{to},0.25,$0.1"
        for at, to in (
            ("00:30", "00:59"),
            ("01:00", "01:29"),
            ("01:30", "01:59"),
            ("01:00", "01:29"),
            ("01:30", "01:59"),
            ("02:00", "02:29"),
        )
    ]
    intervals = read_csv(HEAD + "\n".join(rows), NEW_YORK)

    first = int(datetime(2026, 11, 1, 4, 30, tzinfo=UTC).timestamp()) * 1_000
    assert [each.start_ms for each in intervals] == [first + number * 1_800_000 for number in range(6)]
    assert registers(intervals, None)[-1] == make_registers(first + 6 * 1_800_000, 1_500)


def test_a_csv_may_name_its_unit_in_a_column_and_tell_export() -> None:
    text = "DATE,START TIME,END TIME,USAGE,UNITS,EXPORT (Wh)\n03/29/2026,12:00 AM,12:15 AM,0.1234,kWh,7\n"

    assert [(each.is_export, each.wh) for each in read_csv(text, NEW_YORK)] == [
        (False, Decimal("123.4")),
        (True, 7),
    ]


@pytest.mark.parametrize(
    ("text", "refusal", "reason"),
    [
        ("a,b\n", NoRegisters, "no line with the columns DATE, START TIME, END TIME and USAGE"),
        (HEAD, NoRegisters, "no intervals in this file"),
        (HEAD + "E,2026-02-30,00:00,00:15,1,0", Malformed, "'2026-02-30' is no date"),
        (HEAD + "E,2026-02-03,24:10,00:15,1,0", Malformed, "'24:10' is no time of day"),
        (HEAD + "E,2026-02-03,00:00,00:15,one,0", Malformed, "'one' 'kWh' is no energy"),
        (HEAD + "E,2026-02-03,00:00", Malformed, "line 4 has 3 of 6 columns"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused(text: str, refusal: type[ReadingRefused], reason: str) -> None:
    with pytest.raises(refusal, match=re.escape(reason)):
        read_csv(text, NEW_YORK)


@given(
    parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
    split=st.integers(0, 30),
    repeated=st.integers(0, 30),
)
def test_whatever_is_imported_twice_counts_once(parts: list[int], split: int, repeated: int) -> None:
    row = [
        Interval(Ms(900_000 * number), Ms(900_000 * (number + 1)), number % 3 == 0, Decimal(part))
        for number, part in enumerate(parts, 1)
    ]
    first = registers(row[:split], None)
    again = registers(row[max(split - repeated, 0) :], first[-1] if first else None)

    assert (
        (first + again)[-1][1:]
        == (
            sum(int(each.wh) for each in row if not each.is_export),
            sum(int(each.wh) for each in row if each.is_export),
        )
        or repeated == 0
        or split == 0
    )
