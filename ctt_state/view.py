"""What a rule sees of the state: records by key, with gas metered and changes that can be taken back.

A `StateView` belongs to one transaction. Its changes stay in it until `Overlay.absorb` takes them into the block's,
and the block's stay in memory until the block is final. So a rule needs no undo, and a refused block leaves nothing.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

from ctt_state.abi import Emission, Revert
from ctt_state.block import Log
from ctt_state.records import Record
from ctt_state.units import Address, Gas

GAS_PER_RECORD_READ: Final = 1_000  # at the first touch in the transaction
GAS_PER_RECORD_WRITTEN: Final = 5_000  # at the first change in the transaction

Lookup = Callable[[bytes], Record | None]

R = TypeVar("R", bound=Record)


def find(lookup: Lookup, kind: type[R], key: bytes) -> R | None:
    """The record of this key, which is of this kind, or None."""
    found: Any = lookup(key)
    return cast(R | None, found)


class _Absent:
    """Marks a key with no entry, where None means that the record is deleted."""


_ABSENT: Final = _Absent()


class OutOfGas(Revert):
    """The transaction's gas limit is used up."""

    def __init__(self, limit_gas: int) -> None:
        super().__init__(f"out of gas: limit {limit_gas}")


class Overlay:
    """The changes of a block over the state below it. What was read once is kept decoded: many of a block's
    transactions read the same records."""

    __slots__ = ("_below", "_read", "changes")

    def __init__(self, below: Lookup) -> None:
        self._below = below
        self._read: dict[bytes, Record | None] = {}
        self.changes: dict[bytes, Record | None] = {}

    def lookup(self, key: bytes) -> Record | None:
        if key in self.changes:
            return self.changes[key]
        if key not in self._read:
            self._read[key] = self._below(key)
        return self._read[key]

    def absorb(self, view: "StateView") -> None:
        """Takes over what a finished transaction changed."""
        self.changes.update(view.changes)


class Checkpoint(NamedTuple):
    """A state of a view to which it can go back."""

    changes: int
    logs: int


class StateView:
    """One transaction's view: `get` and `put` are metered, `peek` and `poke` are not."""

    __slots__ = ("_below", "_touched", "_undo", "_written", "changes", "gas_limit", "gas_used", "logs")

    def __init__(self, below: Lookup, gas_limit: int) -> None:
        self._below: Callable[[bytes], Any] = below
        self._touched: set[bytes] = set()
        self._written: set[bytes] = set()
        self._undo: list[tuple[bytes, Record | _Absent | None]] = []
        self.changes: dict[bytes, Any] = {}  # Any: a record of the kind that the key names, or None
        self.logs: list[Log] = []
        self.gas_used = Gas(0)
        self.gas_limit = Gas(gas_limit)

    def charge(self, gas: int) -> None:
        """Raises: OutOfGas."""
        self.gas_used = Gas(self.gas_used + gas)
        if self.gas_used > self.gas_limit:
            self.gas_used = self.gas_limit
            raise OutOfGas(self.gas_limit)

    def prepay(self, *keys: bytes) -> None:
        """Makes these records free of gas: the transaction's flat 21,000 pay for them."""
        self._touched.update(keys)
        self._written.update(keys)

    def get(self, kind: type[R], key: bytes) -> R | None:
        """The record of this key, which is of this kind, or None. Raises: OutOfGas."""
        if key not in self._touched:
            self._touched.add(key)
            self.charge(GAS_PER_RECORD_READ)
        found: R | None = self.changes[key] if key in self.changes else self._below(key)
        return found

    def put(self, key: bytes, record: Record | None) -> None:
        """Sets or, with None, deletes. Raises: OutOfGas."""
        if key not in self._written:
            self._written.add(key)
            self.charge(GAS_PER_RECORD_WRITTEN)
        self.poke(key, record)

    def peek(self, kind: type[R], key: bytes) -> R | None:
        """`get` without gas: for what a transaction's flat 21,000 gas already pay."""
        found: R | None = self.changes[key] if key in self.changes else self._below(key)
        return found

    def poke(self, key: bytes, record: Record | None) -> None:
        """`put` without gas."""
        self._undo.append((key, self.changes.get(key, _ABSENT)))
        self.changes[key] = record

    def emit(self, address: Address, emission: Emission) -> None:
        self.logs.append(Log(address, emission.topics, emission.data))

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(len(self._undo), len(self.logs))

    def revert(self, checkpoint: Checkpoint) -> None:
        """Takes back every change and log since the checkpoint; gas stays used."""
        while len(self._undo) > checkpoint.changes:
            key, before = self._undo.pop()
            if isinstance(before, _Absent):
                del self.changes[key]
            else:
                self.changes[key] = before
        del self.logs[checkpoint.logs :]
