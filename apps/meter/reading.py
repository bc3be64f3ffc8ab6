"""What a meter says, and every reason not to pass it on.

Registers are cumulative, so a reading that is refused loses no energy: the next one that is taken makes up for it.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Final, NamedTuple

from ctt_state.units import Ms, Wh

REGISTER_WH_MAX: Final = 2**63 - 1  # what SQLite keeps, half of what the chain takes
WH_PER_UNIT: Final = {"Wh": Decimal(1), "kWh": Decimal(1_000), "MWh": Decimal(1_000_000)}

_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?", re.ASCII)


class Registers(NamedTuple):
    """Energy drawn (OBIS 1.8.0) and fed in (2.8.0) since the meter was made, at a moment."""

    time_ms: Ms
    import_wh: Wh
    export_wh: Wh


class ReadingRefused(Exception):
    """What came is not passed on; the text says why. `kind` is counted and stable."""

    kind = "refused"


class Malformed(ReadingRefused):
    """It is not what its source promises."""

    kind = "malformed"


class BadChecksum(ReadingRefused):
    """What came is not what the meter sent."""

    kind = "checksum"


class NoRegisters(ReadingRefused):
    """A well-formed message without the energy registers: another kind of meter."""

    kind = "no_registers"


class ImplausibleClock(ReadingRefused):
    """The meter's clock and ours disagree."""

    kind = "clock"


class RanBackwards(ReadingRefused):
    """A register is below what it was."""

    kind = "backwards"


class NotNewer(ReadingRefused):
    """The time is not after that of the last reading."""

    kind = "not_newer"


def energy(number: str, unit: str) -> Decimal:
    """In Wh, exact. Raises: Malformed."""
    if not _NUMBER.fullmatch(number) or unit not in WH_PER_UNIT:
        raise Malformed(f"{number[:40]!a} {unit[:10]!a} is no energy")
    return Decimal(number) * WH_PER_UNIT[unit]


def whole_wh(parts: Iterable[Decimal]) -> Wh:
    """The sum in whole Wh, rounded down once: a register never shows what it has not counted. Raises: Malformed."""
    total = int(sum(parts, Decimal(0)).to_integral_value(ROUND_FLOOR))
    if not 0 <= total <= REGISTER_WH_MAX:
        raise Malformed(f"{total} Wh do not fit a register")
    return Wh(total)


def check_follows(last: Registers | None, now: Registers) -> None:
    """Raises: NotNewer, RanBackwards, in that order; import before export."""
    if last is None:
        return
    if now.time_ms <= last.time_ms:
        raise NotNewer(f"a reading of {format_time(now.time_ms)} after one of {format_time(last.time_ms)}")
    for name, before, after in (
        ("import", last.import_wh, now.import_wh),
        ("export", last.export_wh, now.export_wh),
    ):
        if after < before:
            raise RanBackwards(f"the {name} register stood at {before} Wh and shows {after} Wh")


def check_clock(time_ms: Ms, now_ms: Ms, *, ahead_ms_max: int, behind_ms_max: int) -> None:
    """Raises: ImplausibleClock."""
    if time_ms - now_ms > ahead_ms_max:
        off_ms, how, most_s = time_ms - now_ms, "ahead of", ahead_ms_max // 1_000
    elif now_ms - time_ms > behind_ms_max:
        off_ms, how, most_s = now_ms - time_ms, "behind", behind_ms_max // 1_000
    else:
        return
    raise ImplausibleClock(f"the meter's clock is {off_ms // 1_000} s {how} ours; {most_s} s are allowed")


def format_time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
