"""The bill: a tariff applied to the readings of a period, exact to the last digit, and rounded once, at its end."""

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple

from apps.bill.exact import EXACT, kwh, text_of, times, total
from apps.bill.period import Period, local_before
from apps.bill.readings import Reading
from apps.bill.tariff import Charge, Tariff, Tax
from ctt_state.units import Address, hex_of

FORMAT: Final = "ctt-bill/1"
COVERED: Final = "Electricity covered by Crypto-Trading tokens"


class Account(NamedTuple):
    """Who the operator sends the bill to, by its own books; the chain knows an address only."""

    name: str = ""
    number: str = ""


class Line(NamedTuple):
    """What is asked for one thing. `key` says where in the tariff its price stands."""

    key: str
    name: str
    amount: Decimal
    quantity: Decimal | None = None  # kWh, days or the amount that a percentage is of
    unit: str = ""
    price: Decimal | None = None


class Purchase(NamedTuple):
    """Energy that the prosumer bought in the market, and paid for there."""

    time_ms: int
    energy_wh: int
    paid_wei: int


class Day(NamedTuple):
    """A local day's energy, in Wh."""

    date: date
    consumed_wh: int = 0
    covered_wh: int = 0
    bought_wh: int = 0

    @property
    def grid_wh(self) -> int:
        return self.consumed_wh - self.covered_wh


class Bill(NamedTuple):
    """A prosumer's bill, with all that it was made of."""

    prosumer: Address
    account: Account
    period: Period
    tariff: Tariff
    as_of_block: int
    readings: tuple[Reading, ...]  # of the period alone
    purchases: tuple[Purchase, ...] | None  # None: not asked for
    electricity: tuple[Line, ...]
    other: tuple[Line, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.electricity + self.other

    @property
    def electricity_charges(self) -> Decimal:
        return _sum(self.electricity)

    @property
    def total_due(self) -> Decimal:
        return _sum(self.lines)

    @property
    def consumed_wh(self) -> int:
        return sum(reading.consumed_wh for reading in self.readings)

    @property
    def covered_wh(self) -> int:
        return sum(reading.covered_wh for reading in self.readings)

    @property
    def produced_wh(self) -> int:
        return sum(reading.produced_wh for reading in self.readings)

    @property
    def stored_wh(self) -> int:
        return sum(reading.stored_wh for reading in self.readings)

    @property
    def bought_wh(self) -> int | None:
        return None if self.purchases is None else sum(each.energy_wh for each in self.purchases)

    @property
    def last_reading_ms(self) -> int | None:
        return max((reading.time_ms for reading in self.readings), default=None)


def make_bill(
    tariff: Tariff,
    period: Period,
    prosumer: Address,
    readings: Iterable[Reading],
    *,
    as_of_block: int,
    account: Account | None = None,
    purchases: Iterable[Purchase] | None = None,
) -> Bill:
    """Of the readings and purchases those of the period count. The period's zone is the tariff's."""
    ours = tuple([reading for reading in readings if period.has(reading.time_ms)])
    bought = None if purchases is None else tuple([each for each in purchases if period.has(each.time_ms)])
    electricity = (*_energy_lines(tariff, ours), _charge("delivery", "Delivery", tariff.delivery, period))
    other = _other_lines(tariff, period, ours, electricity)
    return Bill(prosumer, account or Account(), period, tariff, as_of_block, ours, bought, electricity, other)


def days_of(bill: Bill) -> list[Day]:
    """Each day of the period, in order."""
    days = {day: Day(day) for day in bill.period.dates()}
    for reading in bill.readings:
        day = days[local_before(reading.time_ms, bill.period.zone).date()]
        days[day.date] = day._replace(
            consumed_wh=day.consumed_wh + reading.consumed_wh, covered_wh=day.covered_wh + reading.covered_wh
        )
    for purchase in bill.purchases or ():
        day = days[local_before(purchase.time_ms, bill.period.zone).date()]
        days[day.date] = day._replace(bought_wh=day.bought_wh + purchase.energy_wh)
    return list(days.values())


def document_of(bill: Bill) -> dict[str, Any]:
    """The bill for programs: energy in whole Wh and money in decimals, as text where JSON's readers would round."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "prosumer": hex_of(bill.prosumer),
        "account": bill.account._asdict(),
        "period": {
            "from": bill.period.first.isoformat(),
            "to": bill.period.end.isoformat(),
            "timeZone": bill.period.zone.key,
            "startMs": bill.period.start_ms,
            "endMs": bill.period.end_ms,
        },
        "asOfBlock": bill.as_of_block,
        "tariff": {"name": bill.tariff.name, "digest": bill.tariff.digest},
        "currency": bill.tariff.currency,
        "lines": [_line_document(line) for line in bill.lines],
        "totalElectricityCharges": text_of(bill.electricity_charges),
        "totalDue": text_of(bill.total_due),
        "consumedWh": str(bill.consumed_wh),
        "coveredWh": str(bill.covered_wh),
        "gridWh": str(bill.consumed_wh - bill.covered_wh),
        "producedWh": str(bill.produced_wh),
        "storedWh": str(bill.stored_wh),
        "fedToGridWh": str(bill.produced_wh - bill.stored_wh),
        "readings": len(bill.readings),
        "lastReadingMs": bill.last_reading_ms,
        "days": [
            {
                "date": day.date.isoformat(),
                "consumedWh": str(day.consumed_wh),
                "coveredWh": str(day.covered_wh),
            }
            for day in days_of(bill)
        ],
    }
    if bill.purchases is not None:
        document["boughtWh"] = str(bill.bought_wh)
        document["paidWei"] = str(sum(each.paid_wei for each in bill.purchases))
        for shown, day in zip(document["days"], days_of(bill), strict=True):
            shown["boughtWh"] = str(day.bought_wh)
    return document


def _line_document(line: Line) -> dict[str, str | None]:
    return {
        "key": line.key,
        "name": line.name,
        "quantity": None if line.quantity is None else f"{line.quantity:f}",
        "unit": line.unit or None,
        "price": None if line.price is None else f"{line.price:f}",
        "amount": text_of(line.amount),
    }


def _sum(lines: Sequence[Line]) -> Decimal:
    return total(line.amount for line in lines)


def _energy_lines(tariff: Tariff, readings: Sequence[Reading]) -> list[Line]:
    grid_wh = [0] * len(tariff.energy)
    for reading in readings:
        if reading.grid_wh:
            grid_wh[tariff.band_at(reading.time_ms)] += reading.grid_wh
    covered_wh = sum(reading.covered_wh for reading in readings)
    return [
        _energy("covered", COVERED, covered_wh, tariff.covered_per_kwh),
        *[
            _energy(f"energy[{band}]", price.name, grid_wh[band], price.per_kwh)
            for band, price in enumerate(tariff.energy)
        ],
    ]


def _other_lines(
    tariff: Tariff, period: Period, readings: Sequence[Reading], before: Sequence[Line]
) -> tuple[Line, ...]:
    lines = [_charge("meterRental", "Meter rental", tariff.meter_rental, period)]
    for number, tax in enumerate(tariff.taxes):
        lines.append(_tax(f"taxes[{number}]", tax, readings, _sum([*before, *lines])))
    exact = _sum([*before, *lines])
    difference = EXACT.subtract(tariff.rounding.apply(exact), exact)
    lines.append(Line("rounding", "Discount" if difference < 0 else "Rounding", difference))
    return tuple(lines)


def _energy(key: str, name: str, energy_wh: int, per_kwh: Decimal) -> Line:
    return Line(key, name, times(kwh(energy_wh), per_kwh), kwh(energy_wh), "kWh", per_kwh)


def _charge(key: str, name: str, charge: Charge, period: Period) -> Line:
    if not charge.is_daily:
        return Line(key, name, charge.amount)
    days = Decimal(period.days)
    return Line(key, name, times(days, charge.amount), days, "days", charge.amount)


def _tax(key: str, tax: Tax, readings: Sequence[Reading], money: Decimal) -> Line:
    if tax.on == "money":
        return Line(key, tax.name, times(money, tax.rate.scaleb(-2, EXACT)), money, "%", tax.rate)
    energy_wh = sum(reading.grid_wh if tax.on == "grid" else reading.consumed_wh for reading in readings)
    return _energy(key, tax.name, energy_wh, tax.rate)
