"""The chain on disk: the only file that knows LevelDB. It keeps bytes; the ledger says what they mean.

Every row's key begins with one byte; heights are 8 bytes, the highest byte first, so rows lie in the order of blocks.

    m <name>        schema version, genesis document, genesis hash, head, base
    s <record key>  state: the record's bytes
    t <path>        state tree: the node's bytes
    b <height>      block
    r <height>      receipts
    c <height>      finality certificate, where there was one and it is kept
    u <height>      undo: what the block's changes replaced; of the last `UNDO_BLOCKS` blocks
    n <height>      block hash
    h <block hash>  height
    x <tx hash>     height, index in the block (4 bytes)
    v <epoch>       members of the epoch's set of validators, from when it is fixed

A database begins with its base: block 0, or the block whose state a snapshot brought. Of the latter only header, state
and certificate are here, of blocks below it nothing but sets of validators.

A block is one LevelDB batch, synced; then a line of the anchor, synced; only then may anyone call it final. One
thread commits. `publish`, on the event loop, moves the snapshot that all reads go through, so a reader never sees a
part of a newer block. After any storage error the store refuses every further call: a LevelDB that met a full disk
stays wrong when there is room again, and after a failed fsync nobody knows what is on the disk.

Measured on two shared cores, blocks of 700 transactions with 6,300 rows and 2.6 MB over a state of 250,000 rows: a
commit costs the committing thread 10 us a transaction, 2.6 of them with the interpreter held; 25 us pass, with both
syncs and while LevelDB compacts. A read of a random row takes 8-12 us, of a cached one 2, an unknown transaction
3-5 us, 7-10 without the Bloom filter. Small blocks: p50 0.35 ms, p99 4 ms. Compression is off: rows are hashes,
and snappy saved a quarter of the disk for a tenth more work. The write buffer is large because LevelDB answers reads
that look into more than one table with a compaction: what counts is how seldom there is a new table (decisions/0009).
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import plyvel

from ctt_state.block import Place
from ctt_state.errors import BlockPruned
from ctt_state.units import Hash, Height, hex_of
from node.anchor import Anchor, Head, read_anchor
from node.datadir import (
    ANCHOR_FILE,
    DATABASE,
    KIB,
    MIB,
    RESTORE_REMEDY,
    SPACE_LIMITS,
    UNFINISHED_DATABASE,
    UNFINISHED_PARTS,
    DirectoryLock,
    SpaceLimits,
    StorageDamaged,
    StorageExists,
    StorageFailed,
    StorageForbidden,
    StorageInUse,
    StorageMissing,
    check_entries,
    check_room,
    explain_failure,
    explain_os_error,
    replace_file,
    sync_directory,
    sync_file,
)
from node.exits import Failure

__all__ = [
    "UNDO_BLOCKS",
    "BlockPruned",
    "BlockWrite",
    "Creation",
    "Head",
    "StorageDamaged",
    "StorageExists",
    "StorageFailed",
    "StorageForbidden",
    "StorageInUse",
    "StorageMissing",
    "Store",
    "check_absent",
]

SCHEMA_VERSION: Final = 3  # 2 had no origin of energy
UNDO_BLOCKS: Final = 512  # how many blocks back the state can be read
CERTIFICATES_APART_MAX: Final = 30  # heights from one kept certificate to the next, where there were so many
LOAD_BATCH_BYTES: Final = 4 * MIB  # of genesis rows at once in memory

# Checksums are off in LevelDB unless asked for: without `paranoid_checks` a damaged log loses blocks in silence,
# without `verify_checksums` a damaged table is read as if it were good.
LEVELDB_OPTIONS: Final[dict[str, Any]] = {
    "paranoid_checks": True,
    "write_buffer_size": 64 * MIB,
    "lru_cache_size": 32 * MIB,
    "max_file_size": 8 * MIB,
    "block_size": 2 * KIB,  # LevelDB checks a whole block's checksum for each row it reads
    "max_open_files": 4_096,  # tables, of up to 0.2 MiB of memory each; 20 GB are 2,500 of them
    "bloom_filter_bits": 10,
    "compression": None,
}

_STATE: Final = b"s"
_NODE: Final = b"t"
_BLOCK: Final = b"b"
_RECEIPTS: Final = b"r"
_CERTIFICATE: Final = b"c"
_UNDO: Final = b"u"
_HASH_AT: Final = b"n"
_HEIGHT_OF: Final = b"h"
_PLACE_OF: Final = b"x"
_VALIDATORS: Final = b"v"

_SCHEMA: Final = b"mschema"
_DOCUMENT: Final = b"mdocument"
_GENESIS_HASH: Final = b"mgenesis"
_HEAD: Final = b"mhead"
_BASE: Final = b"mbase"

# A block's fixed rows alone take this much of LevelDB's log, so a log holds at most its size over this many blocks.
_BATCH_BYTES_MIN: Final = 200

Row = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class BlockWrite:
    """Everything that one block changes. None as a row's value deletes the row."""

    height: int
    block_hash: Hash
    state_root: Hash
    block: bytes
    receipts: bytes
    certificate: bytes | None
    transactions: Sequence[bytes]  # their hashes, in order
    state: Iterable[Row]
    nodes: Iterable[Row]
    undo: bytes
    sets: Sequence[tuple[int, bytes]] = ()  # epochs and the members of their sets
    expiring: int | None = (
        None  # the height whose certificate goes, unless others would be too far apart without it
    )

    @property
    def head(self) -> Head:
        return Head(Height(self.height), self.block_hash, self.state_root)


class _Published(NamedTuple):
    """A head and the database as it was right after that block."""

    head: Head
    snapshot: Any


class Store:
    """The open database of one data directory."""

    def __init__(
        self, directory: Path, lock: DirectoryLock, database: Any, anchor: Anchor, head: Head
    ) -> None:
        """Use `Store.open`."""
        self.directory = directory
        self._lock = lock
        self._database = database
        self._anchor = anchor
        self._published = _Published(head, database.snapshot())
        self._committed = self._published
        self._broken: Failure | None = None
        self.genesis_document = self._required(_DOCUMENT)
        self.genesis_hash = Hash(self._required(_GENESIS_HASH))
        self.base = _decode_height(self._required(_BASE))

    @classmethod
    def create(
        cls, directory: Path, document: bytes, genesis_hash: Hash, plan: bytes | None = None
    ) -> "Creation":
        """A new database for the chain of this genesis document. Only `ctt init` and `ctt restore` create.

        A creation that was interrupted is thrown away, unless it had the same plan; a finished database never is.
        Raises: StorageExists, StorageInUse, StorageForbidden, StorageFailed.
        """
        return Creation(directory, document, genesis_hash, plan)

    @classmethod
    def open(
        cls, directory: Path, expected_genesis_hash: Hash | None = None, space: SpaceLimits = SPACE_LIMITS
    ) -> "Store":
        """Opens what is there, if it is whole; never creates.

        Raises: StorageMissing, StorageFailed (read-only, no room), StorageInUse, StorageDamaged (stray files, damage,
        newer schema, another chain, behind the anchor), StorageForbidden.
        """
        try:
            _check_present(directory)
            check_room(directory, space)
        except OSError as error:
            raise explain_os_error("opening", directory, error) from None
        lock = DirectoryLock.acquire(directory)
        try:
            return cls._open_locked(directory, lock, expected_genesis_hash)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(cls, directory: Path, lock: DirectoryLock, expected: Hash | None) -> "Store":
        check_entries(directory)
        shutil.rmtree(
            directory / UNFINISHED_PARTS, ignore_errors=True
        )  # of a creation stopped right at its end
        path = directory / DATABASE
        logs_bytes = sum(log.stat().st_size for log in path.glob("*.log"))
        database = _open_leveldb(path)
        try:
            sync_directory(path)
            head = _check_database(directory, database, expected, logs_bytes)
            anchor = Anchor(directory / ANCHOR_FILE, Hash(database.get(_GENESIS_HASH)), head)
            return cls(directory, lock, database, anchor, head)
        except OSError as error:
            database.close()
            raise explain_os_error("opening", path, error) from None
        except plyvel.Error as fault:
            database.close()
            raise _explain(path, "reading", fault) from None
        except BaseException:
            database.close()
            raise

    # --- the storage thread ---------------------------------------------------------------------------------

    def commit(self, write: BlockWrite) -> None:
        """Puts the block on the disk for good; readers see it after `publish`.

        Of the certificates at expiring heights the fewest stay that leave none further than `CERTIFICATES_APART_MAX`
        from the next: each 30th, when every block has one.

        Raises: StorageFailed, StorageDamaged; then and ever after.
        """
        self._check_usable()
        if self._committed is not self._published or write.height != self._committed.head.height + 1:
            raise AssertionError(f"commit of block {write.height} over block {self._committed.head.height}")
        batch = self._database.write_batch(sync=True)
        _fill(batch, write)
        try:
            if write.expiring is not None and self._is_dispensable(write.expiring):
                batch.delete(_CERTIFICATE + _encode_height(write.expiring))
            batch.write()
            self._anchor.append(write.head)
            self._committed = _Published(write.head, self._database.snapshot())
        except (plyvel.Error, Failure) as fault:
            raise self._fail("write to", fault) from None

    def _is_dispensable(self, height: int) -> bool:
        """Whether there is a certificate at this height, and those beside it are near enough without it."""
        rows = self._published.snapshot.iterator
        here, stop = _CERTIFICATE + _encode_height(height), _CERTIFICATE + b"\xff" * 9
        found = list(islice(rows(start=here, stop=stop, include_value=False), 2))
        if len(found) < 2 or found[0] != here:
            return False
        below = next(rows(start=_CERTIFICATE, stop=here, reverse=True, include_value=False), _CERTIFICATE)
        return _decode_height(found[1][1:]) - _decode_height(below[1:]) <= CERTIFICATES_APART_MAX

    # --- the event loop -------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Lets readers see the block committed last."""
        self._check_usable()
        # The old snapshot ends with its last reader, which may be on another thread; so it is not closed here.
        self._published = self._committed

    def close(self) -> None:
        """Call it when no other thread is in the store: LevelDB would crash under a running call."""
        self._anchor.close()
        self._database.close()
        self._lock.release()

    # --- reads, from any thread: the published head and nothing newer ---------------------------------------

    @property
    def head(self) -> Head:
        """The last final block."""
        return self._published.head

    def state(self, key: bytes) -> bytes | None:
        """A record's bytes."""
        return self._get(_STATE + key)

    def node(self, path: bytes) -> bytes | None:
        """A tree node's bytes."""
        return self._get(_NODE + path)

    def header_block(self, height: int) -> bytes:
        """The block, of which only the header counts: at the base, a snapshot's, its transactions are not here.

        Raises: LookupError above the head, BlockPruned below the base.
        """
        return self._at(_BLOCK, height)

    def block(self, height: int) -> bytes:
        """Raises: LookupError above the head, BlockPruned at and below a snapshot's block."""
        self._check_whole(height)
        return self._at(_BLOCK, height)

    def receipts(self, height: int) -> bytes:
        """Raises: LookupError above the head, BlockPruned at and below a snapshot's block."""
        self._check_whole(height)
        return self._at(_RECEIPTS, height)

    def certificate(self, height: int) -> bytes | None:
        """The finalization of exactly this block, where there is one."""
        return self._get(_CERTIFICATE + _encode_height(height))

    def certificate_covering(self, height: int) -> tuple[Height, bytes] | None:
        """The lowest certified height from this one on, with its certificate: it makes all below it final, too."""
        start = _encode_height(height)
        return next(((_decode_height(key), data) for key, data in self._rows(_CERTIFICATE, start)), None)

    def validators(self, epoch: int) -> bytes:
        """The members of an epoch's set. Raises: LookupError when it is not fixed, or was before this database."""
        members = self._get(_VALIDATORS + _encode_height(epoch))
        if members is None:
            raise LookupError(f"the set of epoch {epoch} is not known")
        return members

    def undo(self, height: int) -> bytes:
        """What block `height` replaced. Raises: LookupError above the head and `UNDO_BLOCKS` below it."""
        if height <= self.head.height - UNDO_BLOCKS:
            raise LookupError(f"the undo row of block {height} is pruned")
        return self._at(_UNDO, height)

    def hash_at(self, height: int) -> Hash:
        """Raises: LookupError above the head, BlockPruned below a snapshot's block."""
        return Hash(self._at(_HASH_AT, height))

    def height_of(self, block_hash: bytes) -> Height | None:
        """Where the block with this hash stands, if it is final."""
        data = self._get(_HEIGHT_OF + block_hash)
        return None if data is None else _decode_height(data)

    def place_of(self, transaction_hash: bytes) -> Place | None:
        """Where the transaction with this hash stands, if it is final."""
        data = self._get(_PLACE_OF + transaction_hash)
        if data is None:
            return None
        return Place(_decode_height(data[:8]), int.from_bytes(data[8:], "big"))

    def state_rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record of the head's state, by key."""
        return self._rows(_STATE)

    def pin(self) -> "PinnedState":
        """The head's state as it is now, while the chain goes on. LevelDB keeps its rows as long as this lives."""
        head, snapshot = self._published
        return PinnedState(
            head,
            partial(self._rows, _STATE, snapshot=snapshot),
            lambda key: self._get(_STATE + key, snapshot),
            lambda path: self._get(_NODE + path, snapshot),
            lambda height: self._get(_UNDO + _encode_height(height), snapshot),
        )

    def image(self) -> tuple[Head, Iterator[tuple[bytes, bytes]]]:
        """The head as it is now, and every row of the database with it, for a copy, while the chain goes on. LevelDB
        keeps the rows as long as the iterator lives."""
        head, snapshot = self._published
        return head, self._rows(b"", snapshot=snapshot)

    def node_rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Every node of the head's tree, by path."""
        return self._rows(_NODE)

    def check_rows(self) -> int:
        """Reads every row against its checksum; returns how many. Raises: StorageDamaged, StorageFailed."""
        return sum(1 for _ in self._rows(b""))

    # --------------------------------------------------------------------------------------------------------

    def _get(self, key: bytes, snapshot: Any = None) -> bytes | None:
        """A row, the published one unless others are asked for."""
        self._check_usable()
        snapshot = snapshot or self._published.snapshot
        try:
            data: bytes | None = snapshot.get(key, verify_checksums=True)
        except plyvel.Error as fault:
            raise self._fail("reading", fault) from None
        return data

    def _check_whole(self, height: int) -> None:
        if height == self.base != 0:
            raise BlockPruned(height=height, base=self.base)

    def _at(self, prefix: bytes, height: int) -> bytes:
        if 0 <= height < self.base:
            raise BlockPruned(height=height, base=self.base)
        if not 0 <= height <= self.head.height:
            raise LookupError(f"block {height} is not between 0 and the head, {self.head.height}")
        return self._required(prefix + _encode_height(height))

    def _required(self, key: bytes) -> bytes:
        data = self._get(key)
        if data is None:
            raise self._fail("reading", _damaged(self.directory / DATABASE, f"row {key!r} is missing"))
        return data

    def _rows(self, prefix: bytes, start: bytes = b"", snapshot: Any = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose keys begin with the prefix, without it, from `start` on; the published ones unless others are
        asked for."""
        self._check_usable()
        snapshot = snapshot or self._published.snapshot
        cut = len(prefix)
        try:
            rows = snapshot.iterator(prefix=prefix, verify_checksums=True, fill_cache=False)
            rows.seek(prefix + start)
            for key, value in rows:
                yield key[cut:], value
        except plyvel.Error as fault:
            raise self._fail("reading", fault) from None

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise self._broken.with_traceback(None)

    def _fail(self, action: str, fault: Exception) -> Failure:
        """Ends the use of the store, whatever happens to the error."""
        if isinstance(fault, Failure):
            self._broken = fault
        else:
            self._broken = _explain(self.directory / DATABASE, action, fault, self._committed.head.height)
        return self._broken


class PinnedState(NamedTuple):
    """The state as a block left it, while later ones come."""

    head: Head
    rows: Callable[[bytes], Iterator[tuple[bytes, bytes]]]  # from this key on, in the order of keys
    record: Callable[[bytes], bytes | None]
    node: Callable[[bytes], bytes | None]
    undo: Callable[[int], bytes | None]  # of the last `UNDO_BLOCKS` blocks up to the head


class Creation:
    """A database being made, in a directory of its own that gets its name when everything in it is on the disk.

    Load the rows in any number of calls, then `finish`; what was not finished counts as never begun. Not so one that
    has a plan: its rows come in the order of their keys and are synced as they come, and the next creation with this
    plan goes on after the last of them. `parts` is a directory for what it is made of.
    """

    def __init__(self, directory: Path, document: bytes, genesis_hash: Hash, plan: bytes | None) -> None:
        self.directory = directory
        self._document = document
        self._genesis_hash = genesis_hash
        self._path = directory / UNFINISHED_DATABASE
        self._is_planned = plan is not None
        self.parts = directory / UNFINISHED_PARTS
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageExists(f"cannot make {directory}: {error.strerror}") from None
        self._lock = DirectoryLock.acquire(directory)
        try:
            check_absent(directory, genesis_hash)
            self._clear(plan)
            self._database = plyvel.DB(str(self._path), create_if_missing=True, **LEVELDB_OPTIONS)
        except (plyvel.Error, OSError, Failure) as fault:
            self._lock.release()
            raise self._explain(fault) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
        self._lock.release()

    def load_state(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds records of the first state. Raises: StorageFailed."""
        self._load(_STATE, rows)

    def load_nodes(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds nodes of its tree. Raises: StorageFailed."""
        self._load(_NODE, rows)

    def last_state_key(self) -> bytes | None:
        """Of the record loaded last, if there is one."""
        return self._last(_STATE)

    def last_node_path(self) -> bytes | None:
        """Of the node loaded last, if there is one."""
        return self._last(_NODE)

    def load_image(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds rows of another database, as `Store.image` gives them. Raises: StorageFailed."""
        self._load(b"", rows)

    def finish(self, base: BlockWrite) -> None:
        """Adds the block of this state and makes the database exist. Raises: StorageFailed."""
        try:
            batch = self._database.write_batch(sync=True)
            _fill(batch, base)
            batch.put(_BASE, _encode_height(base.height))
            batch.put(_SCHEMA, _encode_height(SCHEMA_VERSION))
            batch.put(_DOCUMENT, self._document)
            batch.put(_GENESIS_HASH, self._genesis_hash)
            batch.write()
        except plyvel.Error as fault:
            raise self._explain(fault) from None
        self.finish_image(base.head)

    def finish_image(self, head: Head) -> None:
        """Makes the database exist: the image has all rows, up to this head. Raises: StorageFailed."""
        try:
            self._settle()
            Anchor(self.directory / ANCHOR_FILE, self._genesis_hash, head).close()
            self._path.rename(self.directory / DATABASE)
            sync_directory(self.directory)
            sync_directory(self.directory.parent)
            shutil.rmtree(self.parts, ignore_errors=True)
        except (plyvel.Error, OSError, Failure) as fault:
            raise self._explain(fault) from None

    def _clear(self, plan: bytes | None) -> None:
        """Throws away what is left of a creation that had another plan, or none. Raises: OSError."""
        note = self.parts / "plan"
        if plan is not None and note.exists() and note.read_bytes() == plan:
            return
        for rest in (self._path, self.parts):
            if rest.exists():
                shutil.rmtree(rest)
        if plan is not None:
            self.parts.mkdir(mode=0o700)
            replace_file(note, plan)

    def _last(self, prefix: bytes) -> bytes | None:
        """Raises: StorageFailed."""
        try:
            with self._database.iterator(prefix=prefix, reverse=True, include_value=False) as keys:
                key: bytes | None = next(keys, None)
        except plyvel.Error as fault:
            raise self._explain(fault) from None
        return None if key is None else key[len(prefix) :]

    def _load(self, prefix: bytes, rows: Iterable[tuple[bytes, bytes]]) -> None:
        batch = self._database.write_batch(sync=self._is_planned)
        size = 0
        try:
            for key, value in rows:
                batch.put(prefix + key, value)
                size += len(key) + len(value)
                if size >= LOAD_BATCH_BYTES:
                    batch.write()
                    batch.clear()
                    size = 0
            batch.write()
        except plyvel.Error as fault:
            raise self._explain(fault) from None

    def _settle(self) -> None:
        """Turns LevelDB's logs into tables, which closing alone does not, and makes every file durable. Rows that came
        in any order are brought into one level; tables of such as came in the order of keys do not overlap."""
        if not self._is_planned:
            self._database.compact_range()
        self._database.close()
        _open_leveldb(self._path).close()
        for file in self._path.iterdir():
            sync_file(file)
        sync_directory(self._path)

    def _explain(self, fault: Exception) -> Failure:
        if isinstance(fault, Failure):
            return fault
        if isinstance(fault, OSError):
            return explain_os_error("write to", self._path, fault)
        return _explain(self._path, "write to", fault)


# --- rows ---------------------------------------------------------------------------------------------------


def _fill(batch: Any, write: BlockWrite) -> None:
    """All rows of a block. The loops run about nine times a transaction, so they look nothing up."""
    put, delete = batch.put, batch.delete
    for prefix, rows in ((_STATE, write.state), (_NODE, write.nodes)):
        for key, value in rows:
            if value is None:
                delete(prefix + key)
            else:
                put(prefix + key, value)
    height = _encode_height(write.height)
    for index, transaction_hash in enumerate(write.transactions):
        put(_PLACE_OF + transaction_hash, height + index.to_bytes(4, "big"))
    put(_BLOCK + height, write.block)
    put(_RECEIPTS + height, write.receipts)
    if write.certificate is not None:
        put(_CERTIFICATE + height, write.certificate)
    for epoch, members in write.sets:
        put(_VALIDATORS + _encode_height(epoch), members)
    put(_UNDO + height, write.undo)
    if write.height >= UNDO_BLOCKS:
        delete(_UNDO + _encode_height(write.height - UNDO_BLOCKS))
    put(_HASH_AT + height, write.block_hash)
    put(_HEIGHT_OF + write.block_hash, height)
    put(_HEAD, height + write.block_hash + write.state_root)


def _encode_height(height: int) -> bytes:
    return height.to_bytes(8, "big")


def _decode_height(data: bytes) -> Height:
    return Height(int.from_bytes(data, "big"))


def _decode_head(data: bytes) -> Head:
    return Head(_decode_height(data[:8]), Hash(data[8:40]), Hash(data[40:72]))


# --- checks at the start ------------------------------------------------------------------------------------


def _check_present(directory: Path) -> None:
    """Raises: StorageMissing; StorageDamaged when a database was here."""
    if (directory / DATABASE).is_dir():
        return
    if (directory / UNFINISHED_DATABASE).is_dir():
        raise StorageMissing(f"the creation of {directory} was interrupted; run 'ctt init' again")
    if (directory / ANCHOR_FILE).exists():
        raise _damaged(directory / DATABASE, "the whole folder is missing")
    raise StorageMissing(f"no database at {directory}; run 'ctt init' first")


def check_absent(directory: Path, genesis_hash: Hash) -> None:
    """Nothing is here that a new chain would replace, but for the rest of an interrupted creation of it. The creation
    itself checks this again.

    Raises: StorageExists.
    """
    refusal = f"{directory} already holds a chain; 'ctt init' never replaces one: move it aside first"
    if (directory / DATABASE).exists():
        raise StorageExists(refusal)
    if (directory / ANCHOR_FILE).exists():
        try:
            anchored = read_anchor(directory / ANCHOR_FILE, genesis_hash)
        except StorageDamaged as damage:
            raise StorageExists(f"{refusal} ({damage})") from None
        if anchored.height > 0:
            raise StorageExists(f"{refusal} (block {anchored.height:,} was final here)")


def _open_leveldb(path: Path) -> Any:
    try:
        return plyvel.DB(str(path), create_if_missing=False, **LEVELDB_OPTIONS)
    except plyvel.Error as fault:
        raise _explain(path, "opening", fault) from None


def _check_database(directory: Path, database: Any, expected: Hash | None, logs_bytes: int) -> Head:
    """The head, if the database is ours, complete and not behind the anchor.

    Raises: StorageDamaged, StorageForbidden, StorageFailed, plyvel.Error.
    """
    path = directory / DATABASE
    schema, genesis_hash, base_row, head_row = (
        database.get(key, verify_checksums=True) for key in (_SCHEMA, _GENESIS_HASH, _BASE, _HEAD)
    )
    if schema is not None:
        check_schema(path, int.from_bytes(schema, "big"))
    if schema is None or genesis_hash is None or base_row is None or head_row is None:
        raise _damaged(path, "it ends before its first block; files are missing")
    if expected is not None and expected != genesis_hash:
        raise StorageDamaged(
            f"genesis hash {hex_of(expected)} differs from database {hex_of(genesis_hash)} in {directory}; "
            "start it with its own genesis document"
        )
    head = _decode_head(head_row)
    _check_anchor(path, database, head, read_anchor(directory / ANCHOR_FILE, Hash(genesis_hash)))
    _check_gapless(path, database, _decode_height(base_row), head, logs_bytes)
    return head


def check_schema(path: Path, version: int) -> None:
    """This program reads what stands at the path. Raises: StorageDamaged."""
    if version == SCHEMA_VERSION:
        return
    remedy = (
        "start the version that wrote it: downgrade is not supported"
        if version > SCHEMA_VERSION
        else "move it aside and make it anew with 'ctt init'; its peers have the chain"
    )
    raise StorageDamaged(
        f"{path} is written in schema {version}, this program reads schema {SCHEMA_VERSION}; {remedy}"
    )


def _check_anchor(path: Path, database: Any, head: Head, anchor: Head) -> None:
    """The database ends at the anchor or, after a stop between the two writes, one block above it."""
    if head == anchor:
        return
    if head.height < anchor.height:
        raise _damaged(
            path,
            f"it ends at block {head.height:,} but block {anchor.height:,} was final on this node; "
            "files are missing",
        )
    if database.get(_HASH_AT + _encode_height(anchor.height), verify_checksums=True) != anchor.block_hash:
        raise _damaged(
            path, f"block {anchor.height:,} is not {hex_of(anchor.block_hash)}, which was final here"
        )
    if head.height > anchor.height + 1:
        raise _damaged(
            path,
            f"it ends at block {head.height:,} but its anchor at {anchor.height:,}: they are not of one backup",
        )


def _check_gapless(path: Path, database: Any, base: Height, head: Head, logs_bytes: int) -> None:
    """No block is missing below those that were in LevelDB's logs.

    A damaged length at the end of a log or of the manifest looks to LevelDB like a write that a crash cut short, even
    when later logs follow it. What gets lost so are the blocks right before those of the last log.
    """
    expected = max(base, head.height - logs_bytes // _BATCH_BYTES_MIN - 64)
    start = _HASH_AT + _encode_height(expected)
    stop = _HASH_AT + b"\xff" * 9
    with database.iterator(start=start, stop=stop, include_value=False, verify_checksums=True) as keys:
        for key in keys:
            if key != _HASH_AT + _encode_height(expected):
                break
            expected += 1
    if expected != head.height + 1:
        raise _damaged(path, f"block {expected:,} is missing below the head, {head.height:,}")


# --- what LevelDB's errors mean -----------------------------------------------------------------------------

_IO_ERROR: Final = re.compile(r"(?:IO error: )?(?:lock )?(?P<path>.+?): (?P<cause>.+)")


def _explain(path: Path, action: str, fault: Exception, final_height: int | None = None) -> Failure:
    """LevelDB's error in our words; the cause is only in its text, never in `errno`."""
    text = fault.args[0].decode(errors="replace") if isinstance(fault.args[0], bytes) else str(fault)
    if not isinstance(fault, plyvel.IOError):
        return _damaged(path, text.removeprefix("Corruption: ").replace(f"{path}/", ""))
    match = _IO_ERROR.fullmatch(text)
    if match is None:
        return explain_failure(action, path, text, final_height)
    if "lock " in text and match["path"].endswith("LOCK"):
        return StorageInUse(f"another program uses {path} ({match['cause']})")
    if match["cause"] == os.strerror(2):
        return _damaged(path, f"{Path(match['path']).name} is missing")
    return explain_failure(action, Path(match["path"]), match["cause"], final_height)


def _damaged(path: Path, what: str) -> StorageDamaged:
    return StorageDamaged(f"database {path} damaged ({what}); {RESTORE_REMEDY}")
