"""Reading a JSON document that people write: every fault is collected with its JSON path, none stops the reading.

A `Field` names a value and where it stands; asking it for an integer or an address either gives one or notes the
fault and gives a stand-in, so one run explains a whole document.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ctt_state.crypto import checksum_address
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS, Address, Wei

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
SAFE_INTEGER_MAX: Final = 2**53  # what every JSON reader keeps exactly
TEXT_BYTES_MAX: Final = 64

Faults = list[tuple[str, str]]


class MalformedJson(ValueError):
    """The text is not one JSON document in our sense."""


def parse_json(text: bytes) -> Any:
    """The document: UTF-8 without a mark, members once, integers only. Raises: MalformedJson."""
    if len(text) > DOCUMENT_BYTES_MAX:
        raise MalformedJson(f"{len(text)} bytes; limit {DOCUMENT_BYTES_MAX}")
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_members, parse_float=_no_float, parse_constant=_no_float
        )
    except UnicodeDecodeError as fault:
        raise MalformedJson(f"not UTF-8 at byte {fault.start}") from None
    except json.JSONDecodeError as fault:
        raise MalformedJson(f"line {fault.lineno}, column {fault.colno}: {fault.msg}") from None
    except RecursionError:
        raise MalformedJson("nested too deep") from None


def canonical_json(document: Any) -> bytes:
    """The one text of a document: members by name, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise MalformedJson(f"member {twice!r} appears twice")
    return members


def _no_float(text: str) -> Any:
    raise MalformedJson(f"{text} is not a whole number")


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
        if not isinstance(self.value, dict):
            self.fault(f"expected an object, got {_kind(self.value)}")
            return {name: Field(value, f"{self.path}.{name}", []) for name, value in optional.items()} | {
                name: Field(None, f"{self.path}.{name}", []) for name in required
            }
        known = {*required, *optional}
        for name in self.value.keys() - known:
            self._child(name).fault(f"unknown member; known: {', '.join(sorted(known))}")
        for name in required:
            if name not in self.value:
                self._child(name).fault("missing")
        return {
            name: self._child(name)
            if name in self.value
            else Field(optional.get(name), f"{self.path}.{name}", [])
            for name in sorted(known)
        }

    def entries(self) -> Iterator[tuple["Field", "Field"]]:
        """An object's names and values, where the names are data."""
        if not isinstance(self.value, dict):
            self.fault(f"expected an object, got {_kind(self.value)}")
            return
        for name in self.value:
            yield Field(name, f"{self.path}.{name}", self.faults), self._child(name)

    def items(self, count_max: int) -> list["Field"]:
        """A list's items."""
        if not isinstance(self.value, list):
            self.fault(f"expected a list, got {_kind(self.value)}")
            return []
        if len(self.value) > count_max:
            self.fault(f"{len(self.value)} items; limit {count_max}")
            return []
        return [Field(item, f"{self.path}[{index}]", self.faults) for index, item in enumerate(self.value)]

    def integer(self, low: int, high: int = SAFE_INTEGER_MAX) -> int:
        if type(self.value) is not int:
            self.fault(f"expected a whole number, got {_kind(self.value)}")
        elif not low <= self.value <= high:
            self.fault(f"{self.value} is not between {low} and {high}")
        else:
            return self.value
        return low

    def wei(self) -> Wei:
        """An amount as a whole number or, above 2**53, as its decimal digits in a string."""
        text = self.value
        if type(text) is int and 0 <= text <= SAFE_INTEGER_MAX:
            return Wei(text)
        if (
            isinstance(text, str)
            and text.isascii()
            and text.isdigit()
            and len(text) <= 78
            and int(text) <= UINT256_MAX
        ):
            return Wei(int(text))
        self.fault(f"{text!r} is not an amount of wei: decimal digits in a string, below 2**256")
        return Wei(0)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fault(f"expected true or false, got {_kind(self.value)}")
        return self.value is True

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fault(f"expected a string, got {_kind(self.value)}")
            return ""
        if not 0 < len(self.value.encode()) <= TEXT_BYTES_MAX or not self.value.isprintable():
            self.fault(f"{self.value!r} is not 1 to {TEXT_BYTES_MAX} bytes of printable text")
        return self.value

    def address(self) -> Address:
        """20 bytes, not zero; with capital letters only where its checksum puts them."""
        data = self.hexadecimal(20)
        if data == ZERO_ADDRESS:
            self.fault("the zero address belongs to nobody")
        elif data and self.value not in (self.value.lower(), checksum_address(Address(data))):
            self.fault(f"checksum of {self.value} is wrong: it would be {checksum_address(Address(data))}")
        return Address(data or ZERO_ADDRESS)

    def hexadecimal(self, size: int) -> bytes:
        """Exactly `size` bytes as 0x and digits, or no bytes."""
        text = self.value
        if not isinstance(text, str) or not text.startswith("0x"):
            self.fault(f"expected {size} bytes as 0x and {2 * size} digits, got {_kind(text)}")
            return b""
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            data = b""
        if len(data) != size or len(text) != 2 + 2 * size:
            self.fault(f"{text} is not {size} bytes as 0x and {2 * size} digits")
            return b""
        return data

    def _child(self, name: str) -> "Field":
        return Field(self.value.get(name), f"{self.path}.{name}", self.faults)


def _kind(value: Any) -> str:
    """What a value is, in JSON's words, short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else json.dumps(value)[:80]
