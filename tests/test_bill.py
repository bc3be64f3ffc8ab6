"""The bill's arithmetic: the deck's bill to the last digit, days of 23 and 25 hours, windows, taxes, one rounding."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, FloatOperation, Inexact
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.bill.bill import (
    Account,
    Background,
    Bill,
    KeyFigures,
    Origin,
    Purchase,
    days_of,
    document_of,
    make_bill,
)
from apps.bill.exact import EXACT, kwh, rounded, text_of, times, total
from apps.bill.period import InvalidPeriod, Period, local_before, midnight_ms, month
from apps.bill.readings import Place, Reading, Unexplained, readings_of
from apps.bill.tariff import DAYS, SCHEMA_FILE, InvalidTariff, Tariff, load_tariff, read_tariff
from ctt_state.block import Log
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import EnergyConsumed, EnergyRefilled, ReadingRejected
from ctt_state.units import Address

HOME: Final = Address(b"\x11" * 20)
OTHER: Final = Address(b"\x22" * 20)
METER: Final = Address(b"\x33" * 20)
BERLIN: Final = ZoneInfo("Europe/Berlin")
QUARTER_MS: Final = 900_000
DECK: Final[dict[str, Any]] = {
    "name": "The deck's",
    "currency": "EUR",
    "timeZone": "Europe/Berlin",
    "covered": {"pricePerKwh": "0.00"},
    "energy": [{"name": "Electricity from the grid", "pricePerKwh": "0.05"}],
    "delivery": {"amount": "25.00", "per": "bill"},
    "meterRental": {"amount": "5.00", "per": "bill"},
    "rounding": {"decimals": 2, "mode": "down"},
}
DAY_AND_NIGHT: Final = [
    {"name": "day", "pricePerKwh": "0.30", "windows": [{"from": "06:00", "to": "22:00"}]},
    {
        "name": "night",
        "pricePerKwh": "0.20",
        "windows": [{"from": "00:00", "to": "06:00"}, {"from": "22:00", "to": "24:00"}],
    },
]


def tariff(**changes: Any) -> Tariff:
    return read_tariff(DECK | changes)


def reading(time_ms: int, consumed_wh: int, covered_wh: int = 0, **rest: int) -> Reading:
    return Reading(time_ms, Place(1, 0), METER, consumed_wh=consumed_wh, covered_wh=covered_wh, **rest)


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    """A local time in ms since 1970; fold=1 is written with a trailing `b`."""
    moment = datetime.fromisoformat(text.removesuffix("b")).replace(tzinfo=zone, fold=text.endswith("b"))
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def bill_of(used: Tariff, first: str, end: str, *readings: Reading) -> Bill:
    period = Period.between(date.fromisoformat(first), date.fromisoformat(end), used.zone)
    return make_bill(used, period, HOME, readings, as_of_block=9)


def amounts(bill: Bill) -> dict[str, str]:
    return {line.key: text_of(line.amount) for line in bill.lines}


# --- the golden bill -------------------------------------------------------------------------------------------------


def test_the_decks_bill_to_the_last_digit(shared_data: Path) -> None:
    golden = json.loads((shared_data / "bill-golden.json").read_text())
    asked, expected = golden["tariff"], golden["expected"]
    used = read_tariff(
        DECK
        | {
            "currency": golden["currency"],
            "covered": {"pricePerKwh": asked["ctt_energy_per_kwh"]},
            "energy": [{"name": "Grid", "pricePerKwh": asked["energy_per_kwh"]}],
            "delivery": {"amount": asked["delivery"], "per": "bill"},
            "meterRental": {"amount": asked["meter_rental"], "per": "bill"},
        }
    )
    first, end = golden["period"]["from"], golden["period"]["to"]
    consumed, covered = golden["consumption_wh"], golden["covered_by_ctt_wh"]
    bill = bill_of(used, first, end, reading(at(f"{end}T00:00"), consumed, covered))

    assert document_of(bill)["gridWh"] == str(expected["residual_wh"])
    assert amounts(bill) == {
        "covered": expected["ctt_energy"],
        "energy[0]": expected["grid_energy"],
        "delivery": expected["delivery"],
        "meterRental": expected["meter_rental"],
        "rounding": expected["discount"],
    }
    assert text_of(bill.electricity_charges) == expected["total_electricity_charges"]
    assert text_of(bill.total_due) == expected["total_due"]
    assert bill.lines[-1].name == "Discount"


def test_the_same_energy_in_a_thousand_readings_is_the_same_bill() -> None:
    start = at("2019-07-03T00:00")
    whole = bill_of(tariff(), "2019-07-03", "2019-08-03", reading(start + 1, 355_130, 340_000))
    parts = [reading(start + QUARTER_MS * n, 355, 340) for n in range(1, 1_001)]
    apart = bill_of(tariff(), "2019-07-03", "2019-08-03", *parts, reading(start + 1, 130))
    assert amounts(apart) == amounts(whole)


# --- exact -----------------------------------------------------------------------------------------------------------


def test_what_would_be_rounded_raises() -> None:
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))
    with pytest.raises(Inexact):
        times(Decimal("1." + "3" * 300), Decimal("1." + "3" * 300))
    with pytest.raises(FloatOperation):
        EXACT.create_decimal(0.5)


def test_the_largest_bill_is_exact() -> None:
    most = "9" * 12 + "." + "9" * 12
    used = tariff(
        energy=[{"name": "dear", "pricePerKwh": most}],
        taxes=[{"name": f"tax {number}", "percent": "999.999999"} for number in range(16)],
    )
    bill = bill_of(used, "2026-01-01", "2026-02-01", reading(at("2026-01-02T00:00"), 2**64 - 1))
    assert total(line.amount for line in bill.lines) == bill.total_due
    assert bill.total_due == bill.total_due.quantize(Decimal("0.01"), context=EXACT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0.00"),
        ("-0.000", "0.00"),
        ("25", "25.00"),
        ("0.75650", "0.7565"),
        ("-0.0065", "-0.0065"),
        ("1E+3", "1000.00"),
    ],
)
def test_money_as_text(text: str, expected: str) -> None:
    assert text_of(Decimal(text)) == expected


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=7), st.integers(0, 6))
def test_rounding_moves_by_less_than_one_of_its_digits(amount: Decimal, decimals: int) -> None:
    digit = Decimal(1).scaleb(-decimals)
    for mode in ("ROUND_DOWN", "ROUND_HALF_UP", "ROUND_HALF_EVEN"):
        found = rounded(amount, decimals, mode)
        assert abs(found - amount) < digit and found % digit == 0
    assert abs(rounded(amount, decimals, "ROUND_DOWN")) <= abs(amount)


@pytest.mark.parametrize(
    ("mode", "decimals", "due", "difference"),
    [
        ("down", 2, "30.12", "-0.005"),
        ("half-up", 2, "30.13", "0.005"),
        ("half-even", 2, "30.12", "-0.005"),
        ("down", 0, "30.00", "-0.125"),
        ("half-up", 3, "30.125", "0.00"),
    ],
)
def test_the_total_is_rounded_by_the_tariffs_rule(
    mode: str, decimals: int, due: str, difference: str
) -> None:
    used = tariff(rounding={"mode": mode, "decimals": decimals})
    bill = bill_of(used, "2026-01-01", "2026-02-01", reading(at("2026-01-02T00:00"), 2_500))
    assert (text_of(bill.total_due), amounts(bill)["rounding"]) == (due, difference)
    assert bill.lines[-1].name == ("Discount" if difference.startswith("-") else "Rounding")


# --- charges and taxes -----------------------------------------------------------------------------------------------


def test_charges_by_the_day_and_taxes_on_energy_and_money() -> None:
    used = tariff(
        meterRental={"amount": "0.11", "per": "day"},
        taxes=[
            {"name": "electricity tax", "perKwh": "0.0205", "on": "grid"},
            {"name": "levy", "perKwh": "0.01", "on": "consumption"},
            {"name": "VAT", "percent": "19"},
        ],
        rounding={"decimals": 2, "mode": "half-up"},
    )
    bill = bill_of(used, "2026-02-01", "2026-03-01", reading(at("2026-02-02T00:00"), 3_000, 1_000))
    # 0.10 + 25 + 28 x 0.11 + 2 x 0.0205 + 3 x 0.01 = 28.251, of it 19 % = 5.36769, together 33.61869
    assert amounts(bill) == {
        "covered": "0.00",
        "energy[0]": "0.10",
        "delivery": "25.00",
        "meterRental": "3.08",
        "taxes[0]": "0.041",
        "taxes[1]": "0.03",
        "taxes[2]": "5.36769",
        "rounding": "0.00131",
    }
    assert text_of(bill.total_due) == "33.62"


@given(
    st.lists(st.tuples(st.integers(1, 31 * 96), st.integers(0, 5_000), st.integers(0, 5_000)), max_size=30),
    st.sampled_from(["down", "half-up", "half-even"]),
)
def test_the_total_is_the_sum_of_its_lines(parts: list[tuple[int, int, int]], mode: str) -> None:
    """And every Wh that was consumed is in one line of energy."""
    start = at("2026-10-01T00:00")
    readings = [reading(start + n * QUARTER_MS, covered + grid, covered) for n, covered, grid in parts]
    used = tariff(
        energy=DAY_AND_NIGHT, taxes=[{"name": "VAT", "percent": "19"}], rounding={"decimals": 2, "mode": mode}
    )
    bill = bill_of(used, "2026-10-01", "2026-11-01", *readings)
    assert sum((line.amount for line in bill.lines), Decimal(0)) == bill.total_due
    energy = [line.quantity for line in bill.lines if line.key.startswith(("covered", "energy"))]
    assert sum((each for each in energy if each), Decimal(0)) == kwh(
        sum(each.consumed_wh for each in readings)
    )
    assert sum(day.consumed_wh for day in days_of(bill)) == bill.consumed_wh


# --- periods and days ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-07-01", "Europe/Berlin", 24),
        ("2012-03-11", "America/New_York", 23),
        ("2026-09-06", "America/Santiago", 23),  # clocks skip midnight
        ("2026-04-05", "Australia/Lord_Howe", 24.5),
    ],
)
def test_a_day_has_as_many_hours_as_clocks_say(day: str, zone: str, hours: float) -> None:
    first = date.fromisoformat(day)
    period = Period.between(first, first + timedelta(days=1), ZoneInfo(zone))
    assert period.end_ms - period.start_ms == hours * 3_600_000


def test_both_hours_of_the_night_that_has_one_more_are_billed_and_in_their_window() -> None:
    times_of_day = ["2026-10-25T02:30", "2026-10-25T02:30b", "2026-10-25T06:00", "2026-10-25T06:15"]
    readings = [reading(at(time), 1_000) for time in times_of_day]
    bill = bill_of(tariff(energy=DAY_AND_NIGHT), "2026-10-25", "2026-10-26", *readings)
    assert readings[1].time_ms - readings[0].time_ms == 3_600_000
    assert [str(line.quantity) for line in bill.lines[1:3]] == ["1.000", "3.000"]  # day, night


def test_the_reading_of_midnight_is_the_last_of_the_day_that_ends() -> None:
    midnight = at("2026-11-01T00:00")
    readings = [reading(midnight, 1), reading(midnight + 1, 10)]
    october = bill_of(tariff(), "2026-10-01", "2026-11-01", *readings)
    november = bill_of(tariff(), "2026-11-01", "2026-12-01", *readings)
    assert (october.consumed_wh, november.consumed_wh) == (1, 10)
    assert days_of(october)[-1].consumed_wh == 1 and days_of(november)[0].consumed_wh == 10


@given(
    st.integers(0, 4 * 366 * 96),
    st.sampled_from(["Europe/Berlin", "America/Santiago", "Asia/Kolkata", "UTC"]),
)
def test_each_moment_is_in_one_month_and_on_one_of_its_days(quarter: int, name: str) -> None:
    zone = ZoneInfo(name)
    time_ms = midnight_ms(date(2025, 1, 1), zone) + 1 + quarter * QUARTER_MS
    local = local_before(time_ms, zone)
    having = [
        period
        for months in range(-1, 2)
        for period in [
            month(local.year + (local.month - 1 + months) // 12, (local.month - 1 + months) % 12 + 1, zone)
        ]
        if period.has(time_ms)
    ]
    assert having == [month(local.year, local.month, zone)]
    assert local.date() in having[0].dates()


@pytest.mark.parametrize(
    ("first", "end", "text"),
    [
        (date(2026, 1, 1), date(2026, 1, 1), "are 0 days; 1 to 1100"),
        (date(2026, 1, 2), date(2026, 1, 1), "are -1 days"),
        (date(2020, 1, 1), date(2026, 1, 1), "are 2192 days"),
        (date(1969, 12, 31), date(1970, 1, 2), "years are 1970 to 8999"),
        (date(1, 1, 1), date(1, 1, 2), "years are"),
    ],
)
def test_periods_that_are_none_are_refused(first: date, end: date, text: str) -> None:
    with pytest.raises(InvalidPeriod, match=text):
        Period.between(first, end, BERLIN)


# --- tariffs ---------------------------------------------------------------------------------------------------------


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in DECK.items() if key != name}


def _energy(**changes: Any) -> dict[str, Any]:
    return DECK | {"energy": [DECK["energy"][0] | changes]}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (_without("rounding"), "$: 'rounding' is a required property"),
        (DECK | {"rental": 1}, "$: Additional properties are not allowed ('rental' was unexpected)"),
        (_energy(pricePerKwh="0,05"), "$.energy[0].pricePerKwh: '0,05' is not an amount in text"),
        (_energy(pricePerKwh="-0.05"), "'-0.05' is not an amount"),
        (_energy(pricePerKwh="1e3"), "'1e3' is not an amount"),
        (_energy(pricePerKwh=5), "5 is not an amount"),
        (_energy(pricePerKwh="\u0663.\u0664"), "is not an amount"),
        (_energy(pricePerKwh="0.05\n"), "is not an amount"),
        (_energy(name=""), "'' is not 1 to 64 characters"),
        (_energy(name="a\nb"), "is not 1 to 64 characters of text in one line"),
        (DECK | {"energy": []}, "$.energy: [] should be non-empty"),
        (DECK | {"currency": "euro"}, "$.currency: 'euro' is not a currency of three capital letters"),
        (DECK | {"timeZone": "Europe/Atlantis"}, "$.timeZone: no time zone 'Europe/Atlantis' is known here"),
        (DECK | {"timeZone": "../etc/passwd"}, "$.timeZone: '../etc/passwd' is not a time zone"),
        (DECK | {"rounding": {"decimals": 7, "mode": "down"}}, "$.rounding.decimals: 7 is not 0 to 6 decimals"),
        (DECK | {"rounding": {"decimals": True, "mode": "down"}}, "True is not 0 to 6"),
        (DECK | {"rounding": {"decimals": 2, "mode": "up"}}, "$.rounding.mode: 'up' is not down"),
        (DECK | {"delivery": {"amount": "1", "per": "week"}}, "$.delivery.per: 'week' is not bill or day"),
        (DECK | {"taxes": [{"name": "x", "percent": "1", "on": "grid"}]}, "$.taxes[0]"),
        (_energy(windows=[{"from": "00:00", "to": "23:59"}]), "$.energy: mon 23:59 is in no window"),
        (_energy(windows=[{"from": "00:00", "to": "24:01"}]), "'24:01' is not a time from 00:01 to 24:00"),
        (_energy(windows=[{"from": "22:00", "to": "06:00"}]), "over midnight, write two windows"),
        (
            _energy(windows=[{"from": "00:00", "to": "24:00"}, {"days": ["sun"], "from": "12:00", "to": "13:00"}]),
            "$.energy[0].windows[1]: sun 12:00 is in 'Electricity from the grid' and in 'Electricity from the grid'",
        ),
        ([], "$: [] is not a tariff: what"),
    ],
)  # fmt: skip
def test_a_wrong_tariff_is_refused_by_its_first_fault(document: Any, text: str) -> None:
    with pytest.raises(InvalidTariff) as refusal:
        load_tariff(json.dumps(document).encode())
    assert text in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 0.5}', b'{"a": 1, "a": 2}', b"\xff"])
def test_what_is_no_json_is_no_tariff(text: bytes) -> None:
    with pytest.raises(InvalidTariff):
        load_tariff(text)


def test_the_schema_is_one_and_takes_what_is_used_here() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(DECK | {"energy": DAY_AND_NIGHT}, schema)


@given(st.lists(st.integers(1, 24 * 60 - 1), max_size=6, unique=True), st.randoms(use_true_random=False))
def test_windows_partition_the_day(cuts: list[int], random: Any) -> None:
    """However a day is cut into windows, each minute has its one price; without one of the windows it is refused."""
    show: Callable[[int], str] = lambda minute: f"{minute // 60:02}:{minute % 60:02}"
    bounds = [0, *sorted(cuts), 24 * 60]
    windows = [{"from": show(first), "to": show(end)} for first, end in pairwise(bounds)]
    random.shuffle(windows)
    energy = [
        {"name": f"band {n}", "pricePerKwh": "1", "windows": [window]} for n, window in enumerate(windows)
    ]
    used = tariff(energy=energy)
    for _ in range(20):
        minute, weekday = random.randrange(24 * 60), random.randrange(7)
        window = windows[used.week[weekday * 24 * 60 + minute]]
        assert window["from"] <= show(minute) < window["to"]
    if len(energy) > 1:
        with pytest.raises(InvalidTariff, match="is in no window"):
            tariff(energy=energy[1:])


def test_windows_may_differ_by_day() -> None:
    weekend, working = list(DAYS[5:]), list(DAYS[:5])
    all_day = {"from": "00:00", "to": "24:00"}
    used = tariff(
        energy=[
            {"name": "weekend", "pricePerKwh": "1", "windows": [all_day | {"days": weekend}]},
            {"name": "working day", "pricePerKwh": "2", "windows": [all_day | {"days": working}]},
        ]
    )
    saturday = at("2026-10-24T00:00")
    bands = [used.band_at(saturday + offset) for offset in (0, 1, 2 * 86_400_000 + 3_600_000)]
    assert bands == [1, 0, 0]  # Friday's last reading, Saturday's first, Sunday's last: it has 25 hours


def test_a_tariff_is_known_by_its_digest() -> None:
    assert tariff().digest == read_tariff(dict(reversed(DECK.items()))).digest
    assert tariff().digest != tariff(name="another").digest


# --- readings out of transactions ------------------------------------------------------------------------------------


def log(event: Any, *topics: bytes | int, data: tuple[int, ...] = ()) -> Log:
    words = [
        topic.to_bytes(32, "big") if isinstance(topic, int) else topic.rjust(32, b"\0") for topic in topics
    ]
    return Log(CTT.address, (event.topic, *words), b"".join([value.to_bytes(32, "big") for value in data]))


def made(prosumer: Address, counted: int, stored: int) -> Log:
    return log(EnergyRefilled, prosumer, METER, data=(counted, stored))


def used_up(prosumer: Address, counted: int, covered: int) -> Log:
    return log(EnergyConsumed, prosumer, METER, data=(counted, covered))


def call(signature: str, *arguments: Any) -> bytes:
    return CTT.named(signature).encode_arguments(*arguments)


def batch(*items: tuple[Address, int, int, int]) -> bytes:
    return call("reportBatch((address,uint64,uint256,uint256)[])", items)


def found(calldata: bytes, *logs: Log) -> list[tuple[int, ...]]:
    """Of HOME: time, item, produced, stored, consumed, covered."""
    return [
        (each.time_ms, each.place.item, *each[3:])
        for each in readings_of(HOME, calldata, logs, Place(7, 3), 5_000)
    ]


def test_amounts_count_when_their_block_says_and_registers_when_the_meter_does() -> None:
    assert found(call("consume(uint256,address)", 9, HOME), used_up(HOME, 9, 4)) == [(5_000, 0, 0, 0, 9, 4)]
    assert found(call("recharge(uint256,address)", 9, HOME), made(HOME, 9, 4)) == [(5_000, 0, 9, 4, 0, 0)]
    report = call("report(address,uint64,uint256,uint256)", HOME, 1_234, 50, 60)
    assert found(report, made(HOME, 6, 5), used_up(HOME, 4, 3)) == [(1_234, 0, 6, 5, 4, 3)]
    assert found(report) == []


def test_items_of_a_batch_get_their_own_logs() -> None:
    """A baseline tells nothing, a rejected item counts nothing, another prosumer's logs are another's."""
    items = (
        (HOME, 10, 100, 0),
        (OTHER, 10, 7, 7),
        (HOME, 5, 1, 1),
        (HOME, 20, 130, 8),
        (HOME, 30, 130, 8),
        (HOME, 40, 131, 8),
    )
    logs = (
        used_up(OTHER, 7, 7),
        log(ReadingRejected, 2, data=(0x20, 0)),
        made(HOME, 8, 8),
        used_up(HOME, 30, 20),
        used_up(HOME, 1, 0),
    )
    assert found(batch(*items), *logs) == [(20, 3, 8, 8, 30, 20), (40, 5, 0, 0, 1, 0)]
    first_counts = (used_up(HOME, 2, 1), *logs)
    assert found(batch(*items), *first_counts)[0] == (10, 0, 0, 0, 2, 1)


@pytest.mark.parametrize(
    ("calldata", "logs"),
    [
        (call("transferFrom(address,address,uint256)", HOME, OTHER, 1), [used_up(HOME, 1, 1)]),
        (b"", [used_up(HOME, 1, 1)]),
        (batch(), [used_up(HOME, 1, 1)]),
        (batch((HOME, 1, 1, 1)), [used_up(HOME, 1, 1), used_up(HOME, 1, 1)]),
        (batch((OTHER, 1, 1, 1)), [used_up(HOME, 1, 1)]),
        (batch((HOME, 1, 1, 1))[:-1], [used_up(HOME, 1, 1)]),
        (call("consume(uint256,address)", 9, HOME), [used_up(HOME, 9, 4), used_up(HOME, 9, 4)]),
    ],
)  # fmt: skip
def test_logs_that_no_calldata_brings_about_are_refused(calldata: bytes, logs: list[Log]) -> None:
    with pytest.raises(Unexplained):
        found(calldata, *logs)


# --- what people see -------------------------------------------------------------------------------------------------


def example() -> Bill:
    start = at("2026-10-01T00:00")
    readings = [
        reading(start + n * 3_600_000, 400 + n % 300, 250, produced_wh=500, stored_wh=300)
        for n in range(1, 745)
    ]
    purchases = tuple(
        [Purchase(midnight_ms(day, BERLIN) + 1, 1_500, 3 * 10**17) for day in month(2026, 10, BERLIN).dates()]
    )
    return make_bill(
        tariff(energy=DAY_AND_NIGHT),
        month(2026, 10, BERLIN),
        HOME,
        readings,
        as_of_block=77,
        account=Account("<b>Ann & Søn</b>", "0231-1222"),
        background=Background(purchases),
    )


def test_text_page_and_paper_say_the_same() -> None:
    from apps.bill.present import page_of
    from apps.bill.text import show_text

    page = page_of(example())
    text = show_text(page)
    assert all(len(line) <= 96 for line in text.splitlines()[:-4])
    for row in (*page.electricity, *page.other):
        assert row.name in text and row.detail in text and row.amount in text
    assert "31 days, Europe/Berlin" in text and "Bought in the auction   46.50 kWh" in text


def test_the_page_shows_text_as_text_and_a_bar_for_each_day() -> None:
    from apps.bill.page import show_page
    from apps.bill.present import page_of

    shown = show_page(page_of(example()))
    assert "&lt;b&gt;Ann &amp; Søn&lt;/b&gt;" in shown and "<b>" not in shown
    assert "<script" not in shown and "http" not in shown.replace("http-equiv", "")
    svg = ElementTree.fromstring(shown[shown.index("<svg") : shown.index("</svg>") + 6])
    assert len(svg.findall("rect")) == 3 * 31
    assert all(
        float(bar.get("height", "-1")) >= 0 and float(bar.get("y", "-1")) >= 0 for bar in svg.findall("rect")
    )


def test_the_paper_can_be_read_and_is_the_same_each_time() -> None:
    pytest.importorskip("fpdf")
    pypdf = pytest.importorskip("pypdf")
    from io import BytesIO

    from apps.bill.paper import make_paper
    from apps.bill.present import page_of

    page = page_of(example())
    paper = make_paper(page)
    pages = pypdf.PdfReader(BytesIO(paper)).pages
    text = " ".join(" ".join(each.extract_text() for each in pages).split())
    assert len(pages) == 1
    for row in (*page.electricity, *page.other):
        assert row.name in text and row.amount in text
    assert f"{page.total_due} EUR" in text and "0231-1222" in text and "Søn" in text
    assert make_paper(page) == paper


def test_where_origins_are_known_each_has_its_part_of_the_bar() -> None:
    from apps.bill.page import show_page
    from apps.bill.present import page_of

    bill = example()
    origins = tuple([Origin(each.time_ms, 150, 0, 100) for each in bill.readings])
    figures = KeyFigures(Decimal("0.66666"), None, Decimal(1), 154 * 10**15, 12_345_678)
    bill = bill._replace(background=Background((), origins, figures))
    day = days_of(bill)[24]
    assert (day.own_wh, day.partner_wh, day.auction_wh, day.covered_wh) == (
        3_750,
        0,
        2_500,
        6_250,
    )  # 25 hours
    page = page_of(bill)
    assert page.chart.kinds == ("own production", "from partners", "bought in the auction", "from the grid")
    assert len(page.chart.bars) == 3 * 31
    assert dict(page.figures)["Self-sufficiency"] == "66.7 %" and "Self-consumption" not in dict(page.figures)
    assert dict(page.figures)["Saved by the market"] == "0.15"
    assert (dict(page.figures)["Renewable"], dict(page.figures)["CO2 avoided"]) == ("100.0 %", "12.3 kg")
    assert show_page(page).count("bought in the auction") == 1
    told = document_of(bill)["background"]
    assert told["keyFigures"] == {
        "selfSufficiency": "0.66666",
        "selfConsumption": None,
        "renewableShare": "1",
        "savingsWei": str(154 * 10**15),
        "co2AvoidedMg": "12345678",
    }
    assert told["days"][24] == {
        "date": "2026-10-25",
        "boughtWh": "0",
        "ownWh": "3750",
        "partnerWh": "0",
        "auctionWh": "2500",
    }


def test_a_name_that_the_pdfs_fonts_lack_is_named() -> None:
    pytest.importorskip("fpdf")
    from apps.bill.paper import NotInFont, make_paper
    from apps.bill.present import page_of

    bill = example()._replace(account=Account("Dvořák"))
    with pytest.raises(NotInFont, match="have no 'ř'"):
        make_paper(page_of(bill))
    font = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
    if font.exists():
        assert make_paper(page_of(bill), font).startswith(b"%PDF")


def test_one_day_is_one_day() -> None:
    from apps.bill.present import page_of
    from apps.bill.text import show_text

    text = show_text(page_of(bill_of(tariff(), "2026-10-01", "2026-10-02")))
    assert "(1 day, Europe/Berlin)" in text and "1 days" not in text


def test_an_empty_bill_has_its_pages_too() -> None:
    from apps.bill.page import show_page
    from apps.bill.present import page_of
    from apps.bill.text import show_text

    page = page_of(bill_of(tariff(), "2026-10-01", "2026-11-01"))
    assert "There is no reading in this period." in show_text(page) and "<svg" in show_page(page)
    assert page.total_due == "30.00"
