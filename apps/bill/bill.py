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
    """Energy that the prosumer bought in the auction, and paid for there."""

    time_ms: int
    energy_wh: int
    paid_wei: int


class Origin(NamedTuple):
    """Where the energy came from that tokens covered up to `time_ms`, in Wh."""

    time_ms: int
    own_wh: int  # stored from its own production
    partner_wh: int
    auction_wh: int  # or inside a token that was bought


class KeyFigures(NamedTuple):
    """How the prosumer did in the period."""

    self_sufficiency: Decimal | None  # None where nothing was consumed
    self_consumption: Decimal | None  # None where nothing was produced
    renewable_share: Decimal | None  # of what was consumed
    savings_wei: int  # against a home that trades with the operator alone
    co2_avoided_mg: int  # against one that draws all from the grid


class Background(NamedTuple):
    """What a bill shows and asks nothing for. None where nobody was asked who knows."""

    purchases: tuple[Purchase, ...]
    origins: tuple[Origin, ...] | None = None
    figures: KeyFigures | None = None


class Day(NamedTuple):
    """A local day's energy, in Wh."""

    date: date
    consumed_wh: int = 0
    covered_wh: int = 0
    bought_wh: int = 0
    own_wh: int = 0  # these three are what was covered, where origins are known
    partner_wh: int = 0
    auction_wh: int = 0

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
    background: Background | None
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
    background: Background | None = None,
) -> Bill:
    """Of the readings and of the background what is of the period counts. The period's zone is the tariff's."""
    ours = tuple([reading for reading in readings if period.has(reading.time_ms)])
    electricity = (*_energy_lines(tariff, ours), _charge("delivery", "Delivery", tariff.delivery, period))
    other = _other_lines(tariff, period, ours, electricity)
    return Bill(
        prosumer,
        account or Account(),
        period,
        tariff,
        as_of_block,
        ours,
        _within(background, period),
        electricity,
        other,
    )


def days_of(bill: Bill) -> list[Day]:
    """Each day of the period, in order."""
    days = {day: [0] * len(Day._fields[1:]) for day in bill.period.dates()}

    def count(time_ms: int, *energy_wh: int) -> None:
        day = days[local_before(time_ms, bill.period.zone).date()]
        day[:] = [known + more for known, more in zip(day, energy_wh, strict=True)]

    for reading in bill.readings:
        count(reading.time_ms, reading.consumed_wh, reading.covered_wh, 0, 0, 0, 0)
    for purchase in bill.background.purchases if bill.background else ():
        count(purchase.time_ms, 0, 0, purchase.energy_wh, 0, 0, 0)
    for origin in (bill.background.origins if bill.background else None) or ():
        count(origin.time_ms, 0, 0, 0, *origin[1:])
    return [Day(day, *energy_wh) for day, energy_wh in days.items()]


def _within(background: Background | None, period: Period) -> Background | None:
    if background is None:
        return None
    purchases, origins, figures = background
    return Background(
        tuple([each for each in purchases if period.has(each.time_ms)]),
        None if origins is None else tuple([each for each in origins if period.has(each.time_ms)]),
        figures,
    )


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
    if bill.background is not None:
        document["background"] = _background_document(bill, bill.background)
    return document


def _background_document(bill: Bill, background: Background) -> dict[str, Any]:
    names = ["boughtWh"] if background.origins is None else ["boughtWh", "ownWh", "partnerWh", "auctionWh"]
    document: dict[str, Any] = {
        "boughtWh": str(sum(each.energy_wh for each in background.purchases)),
        "paidWei": str(sum(each.paid_wei for each in background.purchases)),
        "days": [
            {"date": day.date.isoformat()} | dict(zip(names, map(str, day[3:]), strict=False))
            for day in days_of(bill)
        ],
    }
    if background.figures is not None:
        sufficiency, consumption, renewable, savings_wei, co2_mg = background.figures
        document["keyFigures"] = {
            "selfSufficiency": None if sufficiency is None else str(sufficiency),
            "selfConsumption": None if consumption is None else str(consumption),
            "renewableShare": None if renewable is None else str(renewable),
            "savingsWei": str(savings_wei),
            "co2AvoidedMg": str(co2_mg),
        }
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
