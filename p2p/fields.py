"""Reads the fields of a message from hostile bytes: a msgpack array, each value in its only form, each field typed.

The shape is walked before anything is built: a few bytes can announce arrays within arrays of gigabytes.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgpack

from ctt_state.block import EVIDENCE_MAX, Block, Header
from ctt_state.transaction import MAX_TRANSACTION_BYTES
from ctt_state.units import Address, Gas, Hash, Height, Ms
from ctt_state.votes import Certificate, Evidence, MalformedVote, Vote
from p2p.errors import MalformedMessage

T = TypeVar("T")

DEPTH_MAX: Final = 8
NUMBER_MAX: Final = 2**63 - 1  # one more still fits in 64 bits, wherever a height or a view is counted up
BLOCK_TRANSACTIONS_MAX: Final = 5_000
TRANSACTIONS_BYTES_MAX: Final = 2 * 1024 * 1024  # of one block
EVIDENCE_BYTES_MAX: Final = 512  # of one piece
HEADER_BYTES_MAX: Final = 1_024
BLOCK_BYTES_MAX: Final = (
    TRANSACTIONS_BYTES_MAX + HEADER_BYTES_MAX + 5 * BLOCK_TRANSACTIONS_MAX + EVIDENCE_MAX * EVIDENCE_BYTES_MAX
)
BLOCK_ITEMS_MAX: Final = BLOCK_TRANSACTIONS_MAX + EVIDENCE_MAX + 24

pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack


class Fields:
    """The fields of one array, read in their order by methods that check type and bounds.

    Each method raises MalformedMessage with the kind, the field and what is wrong.
    """

    __slots__ = ("_at", "_kind", "_values")

    def __init__(self, kind: str, values: Any, count: int, *, field: str | None = None) -> None:
        if type(values) is not tuple:
            raise MalformedMessage(kind, f"is {_type_of(values)}, not an array", field=field)
        if len(values) != count:
            raise MalformedMessage(kind, f"has {len(values):,} fields of {count}", field=field)
        self._kind = kind
        self._values = values
        self._at = 0

    def number(self, field: str, low: int = 0, high: int = NUMBER_MAX) -> int:
        value = self._next()
        if type(value) is not int:
            raise self._wrong(field, f"is {_type_of(value)}")
        if not low <= value <= high:
            raise self._wrong(field, f"is {value}; {low} to {high} allowed")
        return value

    def boolean(self, field: str) -> bool:
        value = self._next()
        if type(value) is not bool:
            raise self._wrong(field, f"is {_type_of(value)}")
        return value

    def data(self, field: str, low: int, high: int) -> bytes:
        return self._check_data(field, self._next(), low, high)

    def hash(self, field: str) -> Hash:
        return Hash(self.data(field, 32, 32))

    def address(self, field: str) -> Address:
        return Address(self.data(field, 20, 20))

    def text(self, field: str, high: int) -> str:
        """Printable ASCII: it goes to logs."""
        value = self._next()
        if type(value) is not str:
            raise self._wrong(field, f"is {_type_of(value)}")
        if len(value) > high:
            raise self._wrong(field, f"has {len(value):,} characters; limit {high}")
        if not (value.isascii() and value.isprintable()):
            raise self._wrong(field, "is not printable ASCII")
        return value

    def datas(
        self, field: str, *, counts: tuple[int, int], size_max: int, total_max: int
    ) -> tuple[bytes, ...]:
        """An array of byte strings, none of which is empty."""
        values = self.array(field, *counts)
        total = 0
        for value in values:
            total += len(self._check_data(field, value, 1, size_max))
        if total > total_max:
            raise self._wrong(field, f"has {total:,} bytes; limit {total_max:,}")
        return values

    def array(self, field: str, low: int, high: int) -> tuple[Any, ...]:
        """What the elements are is for the caller to find out."""
        value = self._next()
        if type(value) is not tuple:
            raise self._wrong(field, f"is {_type_of(value)}")
        if not low <= len(value) <= high:
            raise self._wrong(field, f"has {len(value):,} elements; {low:,} to {high:,} allowed")
        return value

    def nested(self, field: str, count: int) -> "Fields":
        return Fields(self._kind, self._next(), count, field=field)

    def optional(self, read: Callable[[str], T], field: str) -> T | None:
        """nil, or what `read` finds."""
        if self._values[self._at] is None:
            self._at += 1
            return None
        return read(field)

    def vote(self, field: str) -> Vote:
        return self._unpack(Vote.unpack, field, self._next())

    def certificate(self, field: str) -> Certificate:
        return self._unpack(Certificate.unpack, field, self._next())

    def evidence(self, field: str) -> Evidence:
        return self._unpack(Evidence.unpack, field, self._next())

    def certificates(self, field: str, high: int) -> tuple[Certificate, ...]:
        values = self.array(field, 0, high)
        return tuple([self._unpack(Certificate.unpack, field, value) for value in values])

    def block(self, field: str) -> Block:
        return decode_block(self.data(field, 1, BLOCK_BYTES_MAX))

    def header(self, field: str) -> Header:
        return _read_header(self.nested(field, len(Header._fields)))

    def _next(self) -> Any:
        value = self._values[self._at]
        self._at += 1
        return value

    def _unpack(self, unpack: Callable[[Any], T], field: str, value: Any) -> T:
        try:
            return unpack(value)
        except MalformedVote as fault:
            raise self._wrong(field, str(fault)) from None

    def _check_data(self, field: str, value: Any, low: int, high: int) -> bytes:
        if type(value) is not bytes:
            raise self._wrong(field, f"is {_type_of(value)}")
        if not low <= len(value) <= high:
            allowed = f"{low}" if low == high else f"{low:,} to {high:,}"
            raise self._wrong(field, f"has {len(value):,} bytes; {allowed} allowed")
        return value

    def _wrong(self, field: str, text: str) -> MalformedMessage:
        return MalformedMessage(self._kind, text, field=field)


def decode_fields(kind: str, payload: bytes, count: int, *, items_max: int) -> Fields:
    """The payload as an array of `count` fields, with at most `items_max` values in all. Raises: MalformedMessage."""
    check_shape(kind, payload, items_max)
    try:
        values = msgpack.unpackb(payload, use_list=False)
    except ValueError as fault:  # bad UTF-8; all else is refused by its shape
        raise MalformedMessage(kind, f"not msgpack: {fault}") from None
    if pack(values) != payload:
        raise MalformedMessage(kind, "not in the shortest form")
    return Fields(kind, values, count)


def decode_block(data: bytes) -> Block:
    """A block whose every field has its type and size; no rule of the ledger is looked at. Raises: MalformedMessage."""
    if len(data) > BLOCK_BYTES_MAX:
        raise MalformedMessage("block", f"has {len(data):,} bytes; limit {BLOCK_BYTES_MAX:,}")
    fields = decode_fields("block", data, len(Block._fields), items_max=BLOCK_ITEMS_MAX)
    return Block(
        fields.header("header"),
        fields.datas(
            "transactions",
            counts=(0, BLOCK_TRANSACTIONS_MAX),
            size_max=MAX_TRANSACTION_BYTES,
            total_max=TRANSACTIONS_BYTES_MAX,
        ),
        fields.datas(
            "evidence",
            counts=(0, EVIDENCE_MAX),
            size_max=EVIDENCE_BYTES_MAX,
            total_max=EVIDENCE_MAX * EVIDENCE_BYTES_MAX,
        ),
    )


def _read_header(fields: Fields) -> Header:
    return Header(
        version=fields.number("version"),
        genesis_hash=fields.hash("genesis_hash"),
        height=Height(fields.number("height")),
        epoch=fields.number("epoch"),
        view=fields.number("view"),
        parent_hash=fields.hash("parent_hash"),
        timestamp_ms=Ms(fields.number("timestamp_ms")),
        proposer=fields.address("proposer"),
        gas_used=Gas(fields.number("gas_used")),
        transactions_root=fields.hash("transactions_root"),
        receipts_root=fields.hash("receipts_root"),
        state_root=fields.hash("state_root"),
        evidence_root=fields.hash("evidence_root"),
        validators_hash=fields.hash("validators_hash"),
        next_validators_hash=fields.hash("next_validators_hash"),
    )


# The shape of msgpack. For each first byte of a value: how many bytes the value has, if that is all there is to know;
# how many bytes of length follow; or that it opens an array.
_FIXED: Final = {
    **dict.fromkeys(
        [*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3], 1
    ),  # small numbers, nil, false, true
    **{0xA0 + length: 1 + length for length in range(32)},  # short strings
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,  # numbers
}
_PREFIXED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # byte strings, strings
_ARRAYS: Final = {**{0x90 + count: 0 for count in range(16)}, 0xDC: 2, 0xDD: 4}
_FIXED_BY_TAG: Final = tuple(_FIXED.get(tag, 0) for tag in range(256))
_PREFIXED_BY_TAG: Final = tuple(_PREFIXED.get(tag, 0) for tag in range(256))


def check_shape(kind: str, data: bytes, items_max: int) -> None:
    """One msgpack value of numbers, strings, nil, booleans and arrays, and nothing after it; no maps, no extensions.

    Builds nothing. Raises: MalformedMessage, for more than `items_max` values or arrays deeper than `DEPTH_MAX` too.
    """
    at, end, items = 0, len(data), 1
    left = 1
    above: list[int] = []
    while left or above:
        if not left:
            left = above.pop()
            continue
        left -= 1
        if at >= end:
            raise MalformedMessage(kind, "cut short")
        tag = data[at]
        if size := _FIXED_BY_TAG[tag]:
            at += size
        elif width := _PREFIXED_BY_TAG[tag]:
            at += 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big")
        elif tag in _ARRAYS:
            width = _ARRAYS[tag]
            count = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else tag - 0x90
            at += 1 + width
            items += count
            above.append(left)
            left = count
            if items > items_max:
                raise MalformedMessage(kind, f"more than {items_max:,} values")
            if len(above) > DEPTH_MAX:
                raise MalformedMessage(kind, f"arrays more than {DEPTH_MAX} deep")
        else:
            raise MalformedMessage(kind, f"byte {tag:#04x} begins no value of ours")
    if at > end:
        raise MalformedMessage(kind, "cut short")
    if at < end:
        raise MalformedMessage(kind, f"{end - at:,} bytes too many")


def _type_of(value: Any) -> str:
    return {
        "NoneType": "nil",
        "tuple": "an array",
        "int": "a number",
        "str": "a string",
        "bytes": "a byte string",
    }.get(type(value).__name__, type(value).__name__)
