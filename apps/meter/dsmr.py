"""Telegrams of a P1 port: DSMR 2.2 to 5 and its relatives of Belgium, Luxembourg, Hungary, Sweden and Germany.

Pure. Only what a reading needs is looked at: the clock and the energy registers, whatever version says them. A
telegram begins with `/` and ends with `!`, behind which stands, since version 4, a CRC-16 of all from the one to the
other.
"""

import re
from binascii import Error as NoHex
from binascii import unhexlify
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from apps.meter.reading import BadChecksum, Malformed, NoRegisters, energy, whole_wh
from ctt_state.units import Ms, Wh

TELEGRAM_BYTES_MAX: Final = 16_384
STANDARD_OFFSET: Final = timedelta(hours=1)  # of W; S is an hour more

_END: Final = re.compile(rb"(?<=\n)![^\r\n]{0,8}\r?\n")
_CHECKSUM: Final = re.compile(rb"[0-9A-Fa-f]{1,4}")
_LINE: Final = re.compile(
    r"([0-9]{1,3}-[0-9]{1,3}:[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?:\*[0-9]{1,3})?\((.*)\)", re.ASCII
)
_CLOCK: Final = re.compile(r"([0-9]{12})([SW])", re.ASCII)

_CLOCK_LINE: Final = "0-0:1.0.0"
# A telegram that says one of these versions is one with a checksum.
_VERSION_LINES: Final = ("1-3:0.2.8", "0-0:96.1.4")
_EQUIPMENT_LINES: Final = ("0-0:96.1.1", "0-0:96.1.0", "0-0:42.0.0", "1-0:0.0.0")
_TARIFFS: Final = range(1, 9)


class Telegram(NamedTuple):
    """What a reading needs of it. The time is None where the meter tells none (before version 4)."""

    equipment: str
    time_ms: Ms | None
    import_wh: Wh
    export_wh: Wh


class Framer:
    """Cuts telegrams out of a stream of bytes. What is cut short or too long comes out as well, to be refused."""

    def __init__(self) -> None:
        self._buffer = b"\n"  # what comes first begins a line

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        found: list[bytes] = []
        while (begin := self._buffer.find(b"\n/")) >= 0:
            self._buffer = self._buffer[begin:]
            end = _END.search(self._buffer)
            cut = end.end() - 1 if end else len(self._buffer)  # the end of its line begins the next
            again = self._buffer.find(b"\n/", 1, cut)
            cut = min(again if again >= 0 else cut, TELEGRAM_BYTES_MAX + 1)
            if not end and again < 0 and cut <= TELEGRAM_BYTES_MAX:
                return found
            found.append(self._buffer[1 : cut + 1])
            self._buffer = self._buffer[cut:]
        self._buffer = self._buffer[-1:]
        return found


def parse(telegram: bytes, standard_offset: timedelta = STANDARD_OFFSET) -> Telegram:
    """Raises: Malformed (cut short, too long, no text), BadChecksum, Malformed (a line), NoRegisters, in that order."""
    if len(telegram) > TELEGRAM_BYTES_MAX:
        raise Malformed(f"a telegram of more than {TELEGRAM_BYTES_MAX} bytes")
    end = _END.search(telegram)
    if not telegram.startswith(b"/") or end is None:
        raise Malformed("the telegram is cut short")
    checksum = telegram[end.start() + 1 : end.end()].strip()
    if checksum:
        _check_sum(telegram[: end.start() + 1], checksum)
    lines = _lines(telegram[: end.start()])
    if not checksum and any(name in lines for name in _VERSION_LINES):
        raise BadChecksum("the telegram has lost its checksum")
    clock = lines.get(_CLOCK_LINE)
    equipment = next((lines[name] for name in _EQUIPMENT_LINES if lines.get(name)), "")
    return Telegram(
        _as_text(equipment),
        None if clock is None else _moment(clock, standard_offset),
        whole_wh(_registers(lines, "1-0:1.8")),
        whole_wh(_registers(lines, "1-0:2.8", is_optional=True)),
    )


def crc16(data: bytes) -> int:
    """CRC-16/ARC, as DSMR 5.0.2, 5.2 says: x16 + x15 + x2 + 1, least significant bit first, from 0."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ 0xA001 * (value & 1)
    return value


_CRC_TABLE: Final = tuple(_crc_of_byte(value) for value in range(256))


def _check_sum(content: bytes, checksum: bytes) -> None:
    if not _CHECKSUM.fullmatch(checksum):
        raise BadChecksum(f"{checksum!a} is no checksum")
    if (computed := crc16(content)) != int(checksum, 16):
        raise BadChecksum(f"the telegram says checksum {checksum.decode()}, its bytes have {computed:04X}")


def _lines(content: bytes) -> dict[str, str]:
    """What stands in brackets by OBIS code. Raises: Malformed for a register or clock that is there twice."""
    lines: dict[str, str] = {}
    for line in re.split("\r?\n", content.decode("latin-1")):
        match = _LINE.fullmatch(line)
        if match is None:
            if line.startswith(("1-0:1.8.", "1-0:2.8.", f"{_CLOCK_LINE}(")):
                raise Malformed(f"the line {line[:60]!a} cannot be read")
            continue
        code, value = match.groups()
        if lines.setdefault(code, value) != value:
            raise Malformed(f"{code} is there twice")
    return lines


def _registers(lines: dict[str, str], name: str, *, is_optional: bool = False) -> list[Decimal]:
    """The total where the meter tells it, else the register of each tariff. Raises: Malformed, NoRegisters."""
    codes = [code for code in (f"{name}.{tariff}" for tariff in _TARIFFS) if code in lines]
    if f"{name}.0" in lines:
        codes = [f"{name}.0"]
    if not codes and not is_optional:
        raise NoRegisters(f"no register {name}.x: this is no electricity meter")
    return [_energy(code, lines[code]) for code in codes]


def _energy(code: str, value: str) -> Decimal:
    number, _, unit = value.partition("*")
    if unit not in ("Wh", "kWh"):
        raise Malformed(f"{code} says {value[:40]!a}, not Wh or kWh")
    return energy(number, unit)


def _moment(clock: str, standard_offset: timedelta) -> Ms:
    """YYMMDDhhmmss and S for summer or W for winter time, which tells the two hours apart that the clocks' change
    in autumn makes one of."""
    match = _CLOCK.fullmatch(clock)
    try:
        if match is None:
            raise ValueError
        local = datetime.strptime(match[1], "%y%m%d%H%M%S").replace(tzinfo=UTC)
        moment = local - standard_offset - timedelta(hours=match[2] == "S")
    except ValueError:
        raise Malformed(f"the clock shows {clock[:40]!a}") from None
    return Ms(int(moment.timestamp()) * 1_000)


def _as_text(equipment: str) -> str:
    """Most meters tell their number in hexadecimal digits of ASCII."""
    try:
        text = unhexlify(equipment).decode("ascii")
    except (NoHex, ValueError):
        return equipment
    return text if text.isprintable() and text else equipment
