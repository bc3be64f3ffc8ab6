"""What was measured and is not yet known to be on the chain, on the disk: a reading that was taken is never lost.

An SQLite file of rows that are only ever added: readings, the transactions that were signed for them, and what became
of these. Each commit is synced, so a reading is taken, and a transaction sent, only when it survives a crash; what is
sent again is the same bytes. One process at a time, for its key has one row of nonces.
"""

import fcntl
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

from apps.meter.reading import Registers
from ctt_state.units import Address, Hash, Ms

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bound (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS readings (
    id INTEGER PRIMARY KEY, prosumer BLOB NOT NULL, time_ms INTEGER NOT NULL, import_wh INTEGER NOT NULL,
    export_wh INTEGER NOT NULL, source TEXT NOT NULL, raw BLOB NOT NULL, taken_ms INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS latest ON readings (prosumer, id);
CREATE TABLE IF NOT EXISTS transactions (
    id INTEGER PRIMARY KEY, nonce INTEGER NOT NULL, hash BLOB NOT NULL, raw BLOB NOT NULL,
    first INTEGER NOT NULL REFERENCES readings, last INTEGER NOT NULL REFERENCES readings) STRICT;
CREATE TABLE IF NOT EXISTS outcomes (
    id INTEGER PRIMARY KEY REFERENCES transactions, outcome TEXT NOT NULL, block INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS refusals (
    reading INTEGER PRIMARY KEY REFERENCES readings, reason TEXT NOT NULL) STRICT;
"""
# Rows are only ever added.
TABLES: Final = ("bound", "readings", "transactions", "outcomes", "refusals")
GUARD: Final = """CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the outbox is append-only'); END;"""
RAW_BYTES_MAX: Final = 16_384

FINAL, REVERTED, DISPLACED = "final", "reverted", "displaced"


class OutboxFailed(Exception):
    """The disk takes nothing more, or cannot be written; what was taken before is safe."""


class OutboxInUse(Exception):
    """Another process has it."""


class OutboxMismatch(Exception):
    """It belongs to another chain or another key."""


class Taken(NamedTuple):
    """A reading as it comes in, with the bytes that it was read from."""

    prosumer: Address
    registers: Registers
    source: str
    raw: bytes
    taken_ms: Ms


class Row(NamedTuple):
    """A reading in the outbox."""

    id: int
    prosumer: Address
    registers: Registers
    taken_ms: Ms


class Signed(NamedTuple):
    """A transaction for the readings from `first` to `last`."""

    id: int
    nonce: int
    hash: Hash
    raw: bytes
    first: int
    last: int


class Counts(NamedTuple):
    """Readings by what became of them."""

    taken: int
    waiting: int
    final: int
    refused: int


class Outbox:
    """Raises OutboxFailed from every method that writes, when the disk does not take it."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it. Raises: OutboxInUse, OutboxFailed."""
        self._lock = _lock(path)
        try:
            with _failures(path):
                path.touch(0o600)  # what a home uses is nobody else's business
                self._database = sqlite3.connect(path, isolation_level=None)
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                guards = (
                    GUARD.format(table=table, verb=verb) for table in TABLES for verb in ("UPDATE", "DELETE")
                )
                self._database.executescript(SCHEMA + "\n".join(guards))
        except OutboxFailed:
            self._lock.close()
            raise
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    def bind(self, **owners: str) -> None:
        """Remembers whose it is the first time, and refuses any other later. Raises: OutboxMismatch, OutboxFailed."""
        with self._commit():
            for name, value in owners.items():
                row = self._one("SELECT value FROM bound WHERE name = ?", name)
                if row is None:
                    self._database.execute("INSERT INTO bound VALUES (?, ?)", (name, value))
                elif row != (value,):
                    raise OutboxMismatch(f"{self.path} was made for {name} {row[0]}, not {value}")

    # --- readings ---------------------------------------------------------------------------------------------------

    def take(self, readings: Iterable[Taken]) -> None:
        """Adds readings, in order. They are on the disk when this returns. Raises: OutboxFailed, and none is taken."""
        with self._commit():
            self._database.executemany(
                "INSERT INTO readings (prosumer, time_ms, import_wh, export_wh, source, raw, taken_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (each.prosumer, *each.registers, each.source, each.raw[:RAW_BYTES_MAX], each.taken_ms)
                    for each in readings
                ),
            )

    def last(self, prosumer: Address) -> Registers | None:
        """Where the registers stood when the prosumer's last reading was taken."""
        row = self._one(
            "SELECT time_ms, import_wh, export_wh FROM readings WHERE prosumer = ? ORDER BY id DESC LIMIT 1",
            prosumer,
        )
        return None if row is None else Registers(*row)

    def unsigned(self, count: int) -> list[Row]:
        """The oldest readings for which nothing was signed yet."""
        (signed,) = self._one("SELECT coalesce(max(last), 0) FROM transactions") or (0,)
        return self._rows("id > ? ORDER BY id LIMIT ?", signed, count)

    def of(self, transaction: Signed) -> list[Row]:
        """The transaction's readings."""
        return self._rows("id BETWEEN ? AND ? ORDER BY id", transaction.first, transaction.last)

    def counts(self) -> Counts:
        (taken,) = self._one("SELECT coalesce(max(id), 0) FROM readings") or (0,)
        (settled,) = self._one(
            "SELECT coalesce(sum(last - first + 1), 0) FROM transactions JOIN outcomes USING (id) WHERE outcome != ?",
            DISPLACED,
        ) or (0,)
        (refused,) = self._one("SELECT count(*) FROM refusals") or (0,)
        return Counts(taken, taken - settled, settled - refused, refused)

    def refusals(self, count: int) -> list[tuple[Row, str]]:
        """The last readings that the chain refused, and why, newest first."""
        rows = self._database.execute(
            "SELECT readings.id, prosumer, time_ms, import_wh, export_wh, taken_ms, reason"
            " FROM refusals JOIN readings ON reading = readings.id ORDER BY reading DESC LIMIT ?",
            (count,),
        )
        return [(_row(row[:6]), row[6]) for row in rows]

    # --- transactions -----------------------------------------------------------------------------------------------

    def sign(self, signed: Iterable[tuple[int, Hash, bytes, int, int]]) -> None:
        """Adds transactions (nonce, hash, bytes, first and last reading). They may be sent when this returns."""
        with self._commit():
            self._add_signed(signed)

    def pending(self) -> list[Signed]:
        """The transactions of which nobody knows what became, in the order of nonces."""
        rows = self._database.execute(
            "SELECT transactions.id, nonce, hash, raw, first, last FROM transactions LEFT JOIN outcomes USING (id)"
            " WHERE outcome IS NULL ORDER BY nonce"
        )
        return [Signed(*row) for row in rows]

    def next_nonce(self) -> int:
        """After the highest that was ever used here."""
        (nonce,) = self._one("SELECT coalesce(max(nonce) + 1, 0) FROM transactions") or (0,)
        return int(nonce)

    def settled_nonce(self) -> int:
        """After the highest of which it is known what became."""
        row = self._one("SELECT coalesce(max(nonce) + 1, 0) FROM transactions JOIN outcomes USING (id)")
        return int(row[0]) if row else 0

    def settle(self, transaction: Signed, block: int, refused: Sequence[tuple[int, str]]) -> None:
        """It is in a final block, which refused these readings: their ids, and why."""
        is_reverted = len(refused) == transaction.last - transaction.first + 1
        with self._commit():
            self._add_outcome(transaction, REVERTED if is_reverted else FINAL, block)
            self._database.executemany("INSERT INTO refusals VALUES (?, ?)", refused)

    def displace(self, transaction: Signed, signed: Iterable[tuple[int, Hash, bytes, int, int]]) -> None:
        """It can never be in a block, or did nothing in the one that it is in: others are signed in its place."""
        with self._commit():
            self._add_outcome(transaction, DISPLACED, None)
            self._add_signed(signed)

    def _add_signed(self, signed: Iterable[tuple[int, Hash, bytes, int, int]]) -> None:
        self._database.executemany(
            "INSERT INTO transactions (nonce, hash, raw, first, last) VALUES (?, ?, ?, ?, ?)", signed
        )

    def _add_outcome(self, transaction: Signed, outcome: str, block: int | None) -> None:
        self._database.execute("INSERT INTO outcomes VALUES (?, ?, ?)", (transaction.id, outcome, block))

    # --- SQLite -----------------------------------------------------------------------------------------------------

    def _rows(self, where: str, *values: int) -> list[Row]:
        columns = "id, prosumer, time_ms, import_wh, export_wh, taken_ms"
        return [
            _row(row)
            for row in self._database.execute(f"SELECT {columns} FROM readings WHERE {where}", values)
        ]

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
        return row

    @contextmanager
    def _commit(self) -> Iterator[None]:
        """All of it or nothing, synced."""
        with _failures(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Refused rows are our own mistake; anything else is the disk's."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.Error, OSError) as fault:
        raise OutboxFailed(f"{path}: {fault}") from None


def _lock(path: Path) -> BinaryIO:
    try:
        lock = open(f"{path}.lock", "ab")  # noqa: SIM115  it is held until the outbox is closed
    except OSError as fault:
        raise OutboxFailed(f"{path}: {fault.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OutboxInUse(f"{path} is in use by another process") from None
    return lock


def _row(row: Sequence[Any]) -> Row:
    identity, prosumer, time_ms, import_wh, export_wh, taken_ms = row
    return Row(identity, Address(prosumer), Registers(time_ms, import_wh, export_wh), taken_ms)
