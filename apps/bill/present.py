"""A bill in words, for people: what its text, page and paper say alike."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import NamedTuple

from apps.bill.bill import Bill, KeyFigures, Line, days_of
from apps.bill.chart import Chart, chart_of
from apps.bill.exact import kwh, rounded, text_of
from apps.bill.period import local_time
from ctt_state.crypto import checksum_address


class Row(NamedTuple):
    """A line as it is printed: what, how it comes about, how much."""

    name: str
    detail: str
    amount: str


class Page(NamedTuple):
    """All that a bill tells, as text."""

    title: str
    created: datetime  # for a file that has to say so: the end of the period
    who: tuple[tuple[str, str], ...]
    electricity: tuple[Row, ...]
    electricity_charges: str
    other: tuple[Row, ...]
    total_due: str
    currency: str
    figures: tuple[tuple[str, str], ...]
    chart: Chart
    notes: tuple[str, ...]


def page_of(bill: Bill) -> Page:
    currency = bill.tariff.currency
    return Page(
        title="Your electricity bill",
        created=local_time(bill.period.end_ms, bill.period.zone),
        who=_who(bill),
        electricity=_rows(bill.electricity, currency),
        electricity_charges=text_of(bill.electricity_charges),
        other=_rows(bill.other, currency),
        total_due=text_of(bill.total_due),
        currency=currency,
        figures=_figures(bill),
        chart=chart_of(days_of(bill), bill.background),
        notes=_notes(bill),
    )


def show_day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def show_energy(energy_wh: int) -> str:
    return f"{text_of(kwh(energy_wh))} kWh"


def _who(bill: Bill) -> tuple[tuple[str, str], ...]:
    period = f"{show_day(bill.period.first)} to {show_day(bill.period.end)}"
    return (
        *([("Account name", bill.account.name)] if bill.account.name else []),
        *([("Account number", bill.account.number)] if bill.account.number else []),
        ("Crypto-Trading address", checksum_address(bill.prosumer)),
        ("Bill period", f"{period} ({_days(bill.period.days)}, {bill.period.zone.key})"),
        ("Tariff", bill.tariff.name),
    )


def _rows(lines: Sequence[Line], currency: str) -> tuple[Row, ...]:
    return tuple([Row(line.name, _detail(line, currency), text_of(line.amount)) for line in lines])


def _detail(line: Line, currency: str) -> str:
    if line.quantity is None or line.price is None:
        return ""
    if line.unit == "%":
        return f"{_short(line.price)} % of {text_of(line.quantity)}"
    is_energy = line.unit == "kWh"
    quantity = f"{text_of(line.quantity)} kWh" if is_energy else _days(int(line.quantity))
    return f"{quantity} @ {text_of(line.price)} {currency}/{'kWh' if is_energy else 'day'}"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _figures(bill: Bill) -> tuple[tuple[str, str], ...]:
    consumed, covered = bill.consumed_wh, bill.covered_wh
    figures = [
        ("Consumption", show_energy(consumed)),
        ("Covered by tokens", show_energy(covered) + _share(covered, consumed)),
        ("From the grid", show_energy(consumed - covered) + _share(consumed - covered, consumed)),
    ]
    if bill.background is not None:
        bought = sum(purchase.energy_wh for purchase in bill.background.purchases)
        figures.append(("Bought in the auction", show_energy(bought)))
    if bill.produced_wh:
        stored, produced = bill.stored_wh, bill.produced_wh
        figures += [
            ("Production", show_energy(produced)),
            ("Stored in tokens", show_energy(stored) + _share(stored, produced)),
            ("Fed to the grid", show_energy(produced - stored) + _share(produced - stored, produced)),
        ]
    if bill.background is not None and bill.background.figures is not None:
        figures += _key_figures(bill.background.figures)
    return tuple(figures)


def _key_figures(figures: KeyFigures) -> Iterator[tuple[str, str]]:
    """In percent, to the next tenth; money to the hundredth of the market's currency below."""
    for label, share in (
        ("Self-sufficiency", figures.self_sufficiency),
        ("Self-consumption", figures.self_consumption),
        ("Renewable", figures.renewable_share),
    ):
        if share is not None:
            yield label, f"{rounded(share.scaleb(2), 1, ROUND_HALF_UP)} %"
    savings = rounded(Decimal(figures.savings_wei).scaleb(-18), 2, ROUND_DOWN)
    yield "Saved by the market", text_of(savings)
    yield "CO2 avoided", f"{rounded(Decimal(figures.co2_avoided_mg).scaleb(-6), 1, ROUND_HALF_UP)} kg"


def _share(part: int, whole: int) -> str:
    """In percent, to the next tenth."""
    if not whole:
        return ""
    tenths = (2_000 * part + whole) // (2 * whole)
    return f" ({tenths // 10}.{tenths % 10} %)"


def _notes(bill: Bill) -> tuple[str, ...]:
    last, told = bill.last_reading_ms, "There is no reading in this period."
    if last is not None:
        when = f"{local_time(last, bill.period.zone):%d %b %Y %H:%M %Z}"
        told = f"The last of {len(bill.readings)} readings is of {when}."
    return (
        f"{told} This bill is what the chain says at block {bill.as_of_block}.",
        *(
            ["What was bought in the auction has been paid there, and is part of what tokens cover."]
            if bill.background and bill.background.purchases
            else []
        ),
        "Ask your operator for the proof of this bill: ctt bill verify checks every line of it without a node.",
    )


def _short(value: Decimal) -> str:
    """Without zeros behind the point: 19, 5.5."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
