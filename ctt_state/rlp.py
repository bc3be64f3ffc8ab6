"""Recursive Length Prefix, Ethereum's serialisation, with a budget.

The decoder is a loop, not a recursion, and stops at a depth and a number of items, so the work a stranger can ask
for is bounded by the budget and not by the length of his message. It takes the canonical form only: one value, one
encoding, no bytes left over. RLP knows byte strings and lists; what a byte string means is the caller's business.
"""

from collections.abc import Sequence
from typing import TypeAlias

DEPTH_MAX = 4
ITEMS_MAX = 64

Item: TypeAlias = bytes | list["Item"]
Encodable: TypeAlias = int | bytes | Sequence["Encodable"]


class MalformedRlp(ValueError):
    """The bytes are not one canonical RLP item within the budget; `offset` is the byte where that showed."""

    def __init__(self, fault: str, offset: int) -> None:
        super().__init__(f"{fault} at byte {offset}")
        self.offset = offset


def decode(data: bytes, *, start: int = 0, depth_max: int = DEPTH_MAX, items_max: int = ITEMS_MAX) -> Item:
    """The one item that `data` encodes from byte `start` to its end: bytes, or lists of items.

    A list counts as an item, and so does each thing in it. Lists nest `depth_max` deep, the outermost included.

    Raises: MalformedRlp, at the first fault from the left.
    """
    found: list[Item] = []
    container, end = found, len(data)
    enclosing: list[tuple[list[Item], int]] = []  # of the list being read: where each outer list goes on
    at = start
    for _ in range(items_max):
        if at == end:
            raise MalformedRlp("no item", at)
        prefix = data[at]
        if prefix < 0x80:
            container.append(data[at : at + 1])
            at += 1
        else:
            first, stop = at + 1, at + prefix - (0x7F if prefix < 0xC0 else 0xBF)
            if 0xB8 <= prefix < 0xC0 or prefix >= 0xF8:
                first, stop = _long_extent(data, at, end)
            if stop > end:
                raise MalformedRlp("item overruns its container", at)
            if prefix < 0xC0:
                if prefix == 0x81 and data[first] < 0x80:
                    raise MalformedRlp("byte below 0x80 with a needless prefix", at)
                container.append(data[first:stop])
                at = stop
            else:
                if len(enclosing) == depth_max:
                    raise MalformedRlp(f"lists nested deeper than {depth_max}", at)
                enclosing.append((container, end))
                inner: list[Item] = []
                container.append(inner)
                container, end, at = inner, stop, first
        while at == end and enclosing:
            container, end = enclosing.pop()
        if not enclosing:
            if at != end:
                raise MalformedRlp(f"{end - at} bytes after the item", at)
            return found[0]
    raise MalformedRlp(f"more than {items_max} items", at)


def encode(item: Encodable) -> bytes:
    """`item` in canonical form; an integer becomes its shortest big-endian bytes, so 0 is the empty string.

    Raises: OverflowError for a negative integer.
    """
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _header(0x80, len(item)) + item
    return encode_list_of(b"".join(map(encode, item)))


def encode_list_of(payload: bytes) -> bytes:
    """The list whose items are already encoded, one after another, in `payload`."""
    return _header(0xC0, len(payload)) + payload


def payload_start(data: bytes, at: int) -> int:
    """Where the contents begin of the string or list whose prefix, 0x80 or above, is at `at`; `data` was decoded."""
    prefix = data[at]
    length_bytes = max(0, prefix - (0xB7 if prefix < 0xC0 else 0xF7))
    return at + 1 + length_bytes


def _long_extent(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Start and stop of the contents of an item of 56 bytes or more, whose length has bytes of its own."""
    first = payload_start(data, at)
    if first > end:
        raise MalformedRlp("length overruns its container", at)
    if data[at + 1] == 0:
        raise MalformedRlp("length with a leading zero", at)
    length = int.from_bytes(data[at + 1 : first], "big")
    if length < 56:
        raise MalformedRlp("long length for a short item", at)
    return first, first + length


def _header(base: int, length: int) -> bytes:
    if length < 56:
        return bytes((base + length,))
    length_bytes = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((base + 55 + len(length_bytes),)) + length_bytes
