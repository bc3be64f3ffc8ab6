"""Energy and money in decimals that are never rounded by accident: what would be, raises."""

from collections.abc import Iterable
from decimal import (
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)
from typing import Final

# Digits for 64 bits of Wh at the longest price, and all percentages that a tariff may have, one on the other.
EXACT: Final = Context(
    prec=400,
    traps=[Clamped, DivisionByZero, FloatOperation, Inexact, InvalidOperation, Overflow, Underflow],
)
_ROUNDING: Final = Context(prec=400, traps=[DivisionByZero, FloatOperation, InvalidOperation, Overflow])

ZERO: Final = Decimal(0)
MONEY_DECIMALS_MIN: Final = 2  # that a text of money shows


def kwh(energy_wh: int) -> Decimal:
    """With three decimals, as meters and bills show it."""
    return Decimal(energy_wh).scaleb(-3, EXACT)


def times(factor: Decimal, other: Decimal) -> Decimal:
    return EXACT.multiply(factor, other)


def total(amounts: Iterable[Decimal]) -> Decimal:
    found = ZERO
    for amount in amounts:
        found = EXACT.add(found, amount)
    return found


def rounded(amount: Decimal, decimals: int, mode: str) -> Decimal:
    """The one place where an amount may lose digits; `mode` is one of decimal's."""
    return amount.quantize(Decimal(1).scaleb(-decimals), mode, _ROUNDING)


def text_of(amount: Decimal) -> str:
    """Every digit that counts, at least two decimals, no exponent: 0.7565, 25.00."""
    digits = f"{amount:f}"
    whole, _, decimals = digits.partition(".")
    text = f"{whole}.{decimals.rstrip('0').ljust(MONEY_DECIMALS_MIN, '0')}"
    return text.removeprefix("-") if not amount else text
