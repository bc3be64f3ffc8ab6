"""What an operator asks for electricity, read from a document that tariff.schema.json describes (docs/BILL.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jsonschema

from apps.bill.exact import rounded
from apps.bill.period import local_before
from ctt_state.crypto import sha256
from ctt_state.document import MalformedJson, canonical_json, parse_json
from ctt_state.units import hex_of

SCHEMA_FILE: Final = Path(__file__).with_name("tariff.schema.json")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
MODES: Final = {"down": ROUND_DOWN, "half-up": ROUND_HALF_UP, "half-even": ROUND_HALF_EVEN}
VALUE_CHARS_MAX: Final = 60  # of a wrong value, in the line that refuses it

Band = int  # the place of a price in `energy`


class InvalidTariff(ValueError):
    """The document is no tariff: where, and why."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")


class EnergyPrice(NamedTuple):
    """What a kWh from the grid costs at some times of the week."""

    name: str
    per_kwh: Decimal


class Charge(NamedTuple):
    """An amount for each bill, or for each of its days."""

    amount: Decimal
    is_daily: bool


class Tax(NamedTuple):
    """On energy, or on all the money that stands before it."""

    name: str
    rate: Decimal  # money per kWh, or percent
    on: str  # "grid", "consumption" or "money"


class Rounding(NamedTuple):
    """How the total due is rounded; nothing else is."""

    decimals: int
    mode: str

    def apply(self, amount: Decimal) -> Decimal:
        return rounded(amount, self.decimals, self.mode)


@dataclass(frozen=True, slots=True)
class Tariff:
    """A checked tariff document."""

    document: dict[str, Any]
    name: str
    currency: str
    zone: ZoneInfo
    covered_per_kwh: Decimal
    energy: tuple[EnergyPrice, ...]
    week: tuple[Band, ...]  # which price holds in each minute from Monday, 00:00, on
    delivery: Charge
    meter_rental: Charge
    taxes: tuple[Tax, ...]
    rounding: Rounding

    @property
    def digest(self) -> str:
        """SHA-256 of the document's canonical JSON: who knows it knows the tariff."""
        return hex_of(sha256(canonical_json(self.document)))

    def band_at(self, time_ms: int) -> Band:
        """Which price holds for the energy of a reading, by what local clocks showed just before it."""
        moment = local_before(time_ms, self.zone)
        return self.week[moment.weekday() * DAY_MINUTES + moment.hour * 60 + moment.minute]


def load_tariff(text: bytes) -> Tariff:
    """Raises: InvalidTariff."""
    try:
        document = parse_json(text)
    except MalformedJson as fault:
        raise InvalidTariff("$", str(fault)) from None
    return read_tariff(document)


def read_tariff(document: Any) -> Tariff:
    """From a document that is parsed already. Raises: InvalidTariff with the first fault."""
    fault = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    if fault is not None:
        raise InvalidTariff(fault.json_path, _explain(fault))
    return Tariff(
        document=document,
        name=document["name"],
        currency=document["currency"],
        zone=_zone(document["timeZone"]),
        covered_per_kwh=Decimal(document["covered"]["pricePerKwh"]),
        energy=tuple(
            [EnergyPrice(each["name"], Decimal(each["pricePerKwh"])) for each in document["energy"]]
        ),
        week=_week(document["energy"]),
        delivery=_charge(document["delivery"]),
        meter_rental=_charge(document["meterRental"]),
        taxes=tuple([_tax(each) for each in document.get("taxes", [])]),
        rounding=Rounding(document["rounding"]["decimals"], MODES[document["rounding"]["mode"]]),
    )


@cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(parse_json(SCHEMA_FILE.read_bytes()))


def _explain(fault: Any) -> str:
    """A value that is not what the schema describes, else what the library says."""
    described = fault.schema.get("description")
    if described and fault.validator in (
        "type",
        "pattern",
        "enum",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
    ):
        return f"{fault.instance!a:.{VALUE_CHARS_MAX}} is not {described}"
    return str(fault.message)[:200]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTariff("$.timeZone", f"no time zone {name!r} is known here") from None


def _charge(given: dict[str, str]) -> Charge:
    return Charge(Decimal(given["amount"]), given["per"] == "day")


def _tax(given: dict[str, str]) -> Tax:
    if "percent" in given:
        return Tax(given["name"], Decimal(given["percent"]), "money")
    return Tax(given["name"], Decimal(given["perKwh"]), given["on"])


def _week(prices: list[dict[str, Any]]) -> tuple[Band, ...]:
    """Raises: InvalidTariff for the first minute of the week that no window holds, or two."""
    week: list[Band | None] = [None] * WEEK_MINUTES
    for band, price in enumerate(prices):
        for path, minutes in _windows(band, price):
            for minute in minutes:
                other = week[minute]
                if other is not None:
                    raise InvalidTariff(
                        path, f"{_when(minute)} is in {prices[other]['name']!r} and in {price['name']!r}"
                    )
                week[minute] = band
    if None in week:
        raise InvalidTariff("$.energy", f"{_when(week.index(None))} is in no window")
    return tuple([band for band in week if band is not None])


def _windows(band: Band, price: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """The minutes of the week of each of a price's windows. Raises: InvalidTariff."""
    for number, window in enumerate(price.get("windows", [{"from": "00:00", "to": "24:00"}])):
        path = f"$.energy[{band}].windows[{number}]"
        first, end = _minute(window["from"]), _minute(window["to"])
        if first >= end:
            raise InvalidTariff(
                path,
                f"to {window['to']} is not after from {window['from']}; over midnight, write two windows",
            )
        starts = [DAYS.index(day) * DAY_MINUTES for day in window.get("days", DAYS)]
        yield path, [start + minute for start in starts for minute in range(first, end)]


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _when(minute: int) -> str:
    """A minute of the week, in words."""
    day, of_day = divmod(minute, DAY_MINUTES)
    return f"{DAYS[day]} {of_day // 60:02}:{of_day % 60:02}"
