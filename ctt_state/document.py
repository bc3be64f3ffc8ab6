"""Reading a JSON document that people write: every fault is collected with its JSON path, none stops the reading.

A `Field` names a value and where it stands; asking it for an integer or an address either gives one or notes the
fault and gives a stand-in, so one run explains a whole document. A fault quotes at most 80 characters of what it
found, in ASCII: it is shown on terminals.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

from ctt_state.crypto import checksum_address
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS, Address, Wei

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
NESTING_MAX: Final = 16
DIGITS_MAX: Final = 78  # those of 2**256
SAFE_INTEGER_MAX: Final = 2**53  # what every JSON reader keeps exactly
TEXT_BYTES_MAX: Final = 64
QUOTE_MAX: Final = 80

Faults = list[tuple[str, str]]
T = TypeVar("T")


class MalformedJson(ValueError):
    """The text is not one JSON document in our sense."""


def parse_json(text: bytes, bytes_max: int = DOCUMENT_BYTES_MAX) -> Any:
    """The document: UTF-8 without a mark, members once, integers only. Raises: MalformedJson."""
    if len(text) > bytes_max:
        raise MalformedJson(f"larger than {bytes_max} bytes")
    if text.startswith(codecs.BOM_UTF8):
        raise MalformedJson("starts with a byte order mark; save it as UTF-8 without one")
    try:
        decoded = text.decode()
        _check_nesting(decoded)
        document = json.loads(
            decoded,
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except UnicodeDecodeError as fault:
        raise MalformedJson(f"not UTF-8 at byte {fault.start}") from None
    except json.JSONDecodeError as fault:
        raise MalformedJson(f"line {fault.lineno}, column {fault.colno}: {fault.msg}") from None
    _check_texts(document)
    return document


def canonical_json(document: Any) -> bytes:
    """The one text of a document: members by name, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise MalformedJson(f"member {_quote(name)} appears twice")
        members[name] = value
    return members


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX + 1:
        raise MalformedJson(f"a number of {len(text)} digits; limit {DIGITS_MAX}")
    return int(text)


def _refuse_number(text: str) -> NoReturn:
    raise MalformedJson(f"{text[:QUOTE_MAX]} is not a whole number")


def _check_nesting(text: str) -> None:
    """Before the parser runs, as it recurses: where the recursion limit is high, deep nesting ends the process.

    Raises: MalformedJson.
    """
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > NESTING_MAX:
            raise MalformedJson(f"nested deeper than {NESTING_MAX}")


def _check_texts(value: Any) -> None:
    """No half of a surrogate pair, which UTF-8 cannot hold. Raises: MalformedJson."""
    if isinstance(value, str):
        if not value.isascii() and _SURROGATE.search(value):
            raise MalformedJson(f"{_quote(value)} holds half a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name)
            _check_texts(item)


# A string, closed or not, or a bracket; possessive, so that no text takes more than linear time.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the document with its path, and the list that its faults go to."""

    value: Any
    path: str = "$"
    faults: Faults = field(default_factory=list)

    def fault(self, text: str) -> None:
        self.faults.append((self.path, text))

    def members(self, required: tuple[str, ...], optional: Mapping[str, Any]) -> dict[str, "Field"]:
        """Its members by name; `optional` gives the default of each that may be absent."""
        given = self.value if isinstance(self.value, dict) else {}
        if isinstance(self.value, dict):
            self._check_names(required, (*required, *optional))
        else:
            self.fault(f"expected an object, got {_quote(self.value)}")
        return {
            # What is absent has said so, or has a default: its own faults go nowhere.
            name: self._child(name) if name in given else Field(optional.get(name), self._step(name))
            for name in (*required, *optional)
        }

    def entries(self) -> Iterator[tuple["Field", "Field"]]:
        """An object's names and values, where the names are data."""
        if not isinstance(self.value, dict):
            self.fault(f"expected an object, got {_quote(self.value)}")
            return
        for name in self.value:
            yield Field(name, self._step(name), self.faults), self._child(name)

    def items(self, count_max: int) -> list["Field"]:
        """A list's items."""
        if not isinstance(self.value, list):
            self.fault(f"expected a list, got {_quote(self.value)}")
            return []
        if len(self.value) > count_max:
            self.fault(f"{len(self.value)} items; limit {count_max}")
            return []
        return [Field(item, f"{self.path}[{index}]", self.faults) for index, item in enumerate(self.value)]

    def distinct(self, value: T, seen: dict[T, str]) -> T:
        """What this field was read as, which no other field may be; `seen` remembers where each value stood.
        Stand-ins may repeat: they have their fault."""
        if value and value != ZERO_ADDRESS and seen.setdefault(value, self.path) != self.path:
            self.fault(f"the same as {seen[value]}")
        return value

    def integer(self, low: int, high: int = SAFE_INTEGER_MAX) -> int:
        if type(self.value) is not int:
            self.fault(f"expected a whole number, got {_quote(self.value)}")
        elif not low <= self.value <= high:
            self.fault(f"{self.value} is not between {low} and {high}")
        else:
            return self.value
        return low

    def wei(self, high: int = UINT256_MAX) -> Wei:
        """An amount as its decimal digits in a string or, up to 2**53, as a whole number."""
        value = self.value
        digits = value if isinstance(value, str) else str(value) if type(value) is int else ""
        if not _DIGITS.fullmatch(digits) or (value != digits and int(digits) > SAFE_INTEGER_MAX):
            self.fault(
                f"{_quote(value)} is not an amount of wei: its digits in a string, or up to 2**53 a whole number"
            )
        elif int(digits) > high:
            self.fault(f"{digits} is not between 0 and {high}")
        else:
            return Wei(int(digits))
        return Wei(0)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fault(f"expected true or false, got {_quote(self.value)}")
        return self.value is True

    def text(self) -> str:
        """1 to 64 bytes of UTF-8 without control characters; else nothing."""
        if not isinstance(self.value, str):
            self.fault(f"expected a string, got {_quote(self.value)}")
            return ""
        if not 0 < len(self.value.encode()) <= TEXT_BYTES_MAX or not self.value.isprintable():
            self.fault(f"{_quote(self.value)} is not 1 to {TEXT_BYTES_MAX} bytes of printable text")
            return ""
        return self.value

    def address(self) -> Address:
        """20 bytes, not zero; with capital letters only where its checksum puts them."""
        data = Address(self.hexadecimal(20))
        if data == ZERO_ADDRESS:
            self.fault("the zero address belongs to nobody")
        elif data and self.value not in (self.value.lower(), checksum_address(data)):
            self.fault(f"the checksum of {self.value} is wrong: it would be {checksum_address(data)}")
            return ZERO_ADDRESS
        return data or ZERO_ADDRESS

    def hexadecimal(self, size: int) -> bytes:
        """Exactly `size` bytes as 0x and digits, or no bytes."""
        if isinstance(self.value, str) and _HEX.fullmatch(self.value) and len(self.value) == 2 + 2 * size:
            return bytes.fromhex(self.value[2:])
        self.fault(f"expected {size} bytes as 0x and {2 * size} digits, got {_quote(self.value)}")
        return b""

    def _check_names(self, required: tuple[str, ...], known: tuple[str, ...]) -> None:
        for name in self.value:
            if name not in known:
                self._child(name).fault(f"unknown member; known: {', '.join(sorted(known))}")
        for name in required:
            if name not in self.value:
                self._child(name).fault("missing")

    def _child(self, name: str) -> "Field":
        return Field(self.value.get(name), self._step(name), self.faults)

    def _step(self, name: str) -> str:
        """The path to a member; names that are no plain words are quoted."""
        return f"{self.path}.{name}" if _PLAIN_NAME.fullmatch(name) else f"{self.path}[{_quote(name)}]"


_HEX: Final = re.compile("0x[0-9a-fA-F]*")
_DIGITS: Final = re.compile(f"[0-9]{{1,{DIGITS_MAX}}}")


def _quote(value: Any) -> str:
    """What a value is, in JSON's words, in ASCII and short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    quoted = json.dumps(value[:QUOTE_MAX] if isinstance(value, str) else value)
    return quoted if len(quoted) <= QUOTE_MAX else quoted[:QUOTE_MAX] + "..."
