"""Options that several commands share, and how their values are read."""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from ctt_state.crypto import checksum_address
from ctt_state.origin import SOURCES
from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address, Hash, Height, Wei, Wh
from rpc.access import ROLES, Role

DECIMALS: Final = 18  # of the settlement currency
KWH_DECIMALS: Final = 3

_HOST: Final = re.compile(r"\*|[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_PEER: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})"
)
_BLOCK: Final = re.compile(r"(?P<height>[0-9]{1,15}):0x(?P<hash>[0-9a-f]{64})")
_AMOUNT: Final = re.compile(r"(?P<units>[0-9]{1,30})(?:\.(?P<decimals>[0-9]{1,18}))?", re.ASCII)
_KWH: Final = re.compile(r"(?P<units>[0-9]{1,15})(?:\.(?P<decimals>[0-9]{1,3}))?", re.ASCII)
_DECIMAL: Final = re.compile(r"(?P<units>[0-9]{1,40})(?:\.(?P<decimals>[0-9]{1,40}))?", re.ASCII)
_QUOTA: Final = re.compile(r"(?P<role>[a-z]+)=(?P<units>[0-9]+)")
_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s,]+")


def port(text: str) -> int:
    """A TCP port; 0 is none."""
    if not (_is_whole(text) and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a port (1-65535)")
    return int(text)


def positive_int(text: str) -> int:
    """A count from 1 to 10**9 - 1."""
    if not (_is_whole(text) and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 to 999999999")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def seconds(text: str) -> float:
    """A time span above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of seconds above 0")
    return value


def named_peer(text: str) -> tuple[str, str, int]:
    """NAME=HOST:PORT: the name in a peer's certificate, and where it listens."""
    match = _PEER.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not NAME=HOST:PORT")
    return match["name"], match["host"].strip("[]"), int(match["port"])


def block_of_height(text: str) -> tuple[Height, Hash]:
    """HEIGHT:HASH, a block other than the first."""
    match = _BLOCK.fullmatch(text)
    if match is None or int(match["height"]) == 0:
        raise argparse.ArgumentTypeError(
            f"{text[:100]!a} is not HEIGHT:HASH, such as 900:0x and 64 hexadecimal digits"
        )
    return Height(int(match["height"])), Hash(bytes.fromhex(match["hash"]))


def address(text: str) -> Address:
    """20 bytes, not zero; with capital letters only where the checksum puts them (EIP-55)."""
    try:
        parsed = Address(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        parsed = ZERO_ADDRESS
    if len(text) != 42 or len(parsed) != 20 or not text.startswith("0x") or parsed == ZERO_ADDRESS:
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is no address: 0x and 40 hexadecimal digits")
    if text not in (text.lower(), checksum_address(parsed)):
        raise argparse.ArgumentTypeError(
            f"the checksum of {text} is wrong: it would be {checksum_address(parsed)}"
        )
    return parsed


def amount(text: str) -> Wei:
    """Money in the currency's own units, with up to 18 decimals, above zero: 12.50."""
    match = _AMOUNT.fullmatch(text)
    wei = int(match["units"] + (match["decimals"] or "").ljust(DECIMALS, "0")) if match else 0
    if wei == 0:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!a} is no amount above 0 such as 12.50, with up to {DECIMALS} decimals"
        )
    return Wei(wei)


def money(text: str) -> Wei:
    """An amount, or nothing: 0."""
    return Wei(0) if re.fullmatch(r"0(\.0{1,18})?", text) else amount(text)


def format_amount(wei: int) -> str:
    """The same back, exact, with at least two decimals."""
    units, rest = divmod(abs(wei), 10**DECIMALS)
    decimals = str(rest).rjust(DECIMALS, "0").rstrip("0").ljust(2, "0")
    return f"{'-' if wei < 0 else ''}{units}.{decimals}"


def kwh(text: str) -> Wh:
    """Energy in kWh, with up to 3 decimals: whole Wh."""
    match = _KWH.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!a} is no energy such as 12.345 kWh, with up to 3 decimals"
        )
    return Wh(int(match["units"] + (match["decimals"] or "").ljust(3, "0")))


def format_origin(origin: dict[str, str]) -> str:
    """An origin in words, as in ` (6.000 kWh solar, 1.000 kWh unknown)`; nothing where there is no energy."""
    parts = [
        f"{origin[source]} {source if number else 'unknown'}"
        for number, source in enumerate(SOURCES)
        if origin[f"{source}Wh"] != "0"
    ]
    return f" ({', '.join(parts)})" if parts else ""


def format_kwh(wh: int) -> str:
    """The same back, with its unit."""
    return f"{format_energy(wh)} kWh"


def energy_kwh(text: str) -> Wh:
    """Energy in kWh of whole Wh, above zero: 1.25."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is no energy in kWh such as 1.25")
    wh = _scaled(match, KWH_DECIMALS)
    if wh is None or not 1 <= wh <= UINT64_MAX:
        raise argparse.ArgumentTypeError(
            f"{text[:60]} kWh: energy is in whole Wh, so 0.001 to {format_energy(UINT64_MAX)} with up to "
            f"{KWH_DECIMALS} decimals"
        )
    return Wh(wh)


def price_per_kwh(text: str) -> Wei:
    """A price in units of the currency a kWh, as wei per Wh: 0.19."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is no price per kWh such as 0.19")
    wei_per_wh = _scaled(match, DECIMALS - KWH_DECIMALS)
    if wei_per_wh is None or wei_per_wh > PRICE_MAX:
        raise argparse.ArgumentTypeError(
            f"{text[:60]} per kWh: a price is in whole wei per Wh, so 0 to {format_price(PRICE_MAX)} with up to "
            f"{DECIMALS - KWH_DECIMALS} decimals"
        )
    return Wei(wei_per_wh)


def source_price(text: str) -> tuple[int, Wei]:
    """SOURCE=PRICE: solar=0.25."""
    name, _, price = text.partition("=")
    if name not in SOURCES or not price:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!a} is not SOURCE=PRICE, such as solar=0.25; sources: {', '.join(SOURCES)}"
        )
    return SOURCES.index(name), price_per_kwh(price)


def partner_price(text: str) -> tuple[Address, Wei]:
    """ADDRESS=PRICE."""
    account, _, price = text.partition("=")
    if not price:
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is not ADDRESS=PRICE, such as 0x…=0.28")
    return address(account), price_per_kwh(price)


def format_energy(wh: int) -> str:
    """In kWh, exact."""
    return f"{wh // 1_000}.{wh % 1_000:03d}"


def format_price(wei_per_wh: int) -> str:
    """In units of the currency a kWh, exact, with at least two decimals."""
    return format_amount(wei_per_wh * 1_000)


def _scaled(match: "re.Match[str]", decimals: int) -> int | None:
    """The number in units of 10**-decimals; None when it is not whole."""
    digits = (match["decimals"] or "").rstrip("0")
    if len(digits) > decimals:
        return None
    return int(match["units"] + digits.ljust(decimals, "0"))


def reference(text: str) -> bytes:
    """A text of 1 to 32 bytes in UTF-8, as the 32 bytes that it fills from the left; or 32 bytes in hexadecimal."""
    if re.fullmatch(r"0x[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text[2:])
    data = text.encode()
    if not 1 <= len(data) <= 32:
        raise argparse.ArgumentTypeError(f"{text[:60]!a} has {len(data)} bytes; a reference has 1 to 32")
    return data.ljust(32, b"\0")


def host_names(text: str) -> frozenset[str]:
    """Names as they stand in a Host header, without port, separated by commas."""
    return _each(text, _HOST, "host name without port, or *")


def origins(text: str) -> frozenset[str]:
    """Origins as browsers write them, separated by commas."""
    return _each(text, _ORIGIN, "origin such as https://app.example, or *")


def _each(text: str, form: re.Pattern[str], what: str) -> frozenset[str]:
    items = [item.strip().lower() for item in text.split(",")]
    for item in items:
        if not form.fullmatch(item):
            raise argparse.ArgumentTypeError(f"{item[:80]!r} is no {what}")
    return frozenset(items)


def day(text: str) -> date:
    """A day of the calendar, as ISO 8601 writes it."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is no date such as 2030-01-31") from None


def quota(text: str) -> tuple[Role, int]:
    """ROLE=N, cost units a second."""
    match = _QUOTA.fullmatch(text)
    if match is None or match["role"] not in ROLES:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a} is not ROLE=N, such as public=50; roles: {', '.join(ROLES)}"
        )
    return ROLES[match["role"]], positive_int(match["units"])


def add_leaf(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """A subcommand that prints a result. Its examples stand in the help of the command above (see `main.Parser`)."""
    parser = commands.add_parser(name, help=text, description=sentence(text))
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def add_json(parser: argparse._ActionsContainer) -> None:
    """For each command that prints a result (see `output.show`)."""
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")


def add_progress(parser: argparse.ArgumentParser, doing: str) -> None:
    """For each command that can take over a second (see `node.cli.progress`); what it does then, in words."""
    parser.set_defaults(doing=doing)


def add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the node's data directory")


def format_time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
