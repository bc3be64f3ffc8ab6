"""A backup: a node's whole database in one file, as it was after one block (docs/OPERATIONS.md, Backup and restore).

    cttbackup
    H  what the backup is of: the fields of `Summary`
    R  rows of the database, in the order of keys: key, value, key, value, ...; any number of such frames
    E  how many rows there are, and the SHA-256 of what all frames before hold

A frame is a kind, a length of 4 bytes, a MessagePack array of so many bytes, and the CRC-32 of these three. Keys,
vote journal, certificates and settings are no part of it.

LevelDB lets one process in, so a node that runs makes the backup itself: it sends these bytes through a socket in its
data directory (mode 0600, in a directory of mode 0700) to whoever connects, one after the other. A thread reads them
from a LevelDB snapshot, pieces of 64 KiB or so; each costs about a millisecond, after which the thread sleeps three
times as long, so the event loop waits for the interpreter no longer than for one piece. The client takes what comes
at its own pace: what it does not take within `STALL_SECONDS` ends the backup, and with it the snapshot.
"""

import asyncio
import logging
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import load_genesis
from ctt_state.units import Hash, Height, hex_of
from node.datadir import DATABASE, KIB, MIB, StorageDamaged
from node.exits import Exit, Failure
from node.store import SCHEMA_VERSION, Creation, Head, Store, check_schema

SOCKET: Final = "backup.sock"  # in the data directory of a node that runs
MAGIC: Final = b"cttbackup\n"
FORMAT: Final = 1
PIECE_BYTES: Final = 64 * KIB
PIECE_ROWS: Final = 256
FRAME_BYTES_MAX: Final = 256 * MIB
REST: Final = 3  # so many times as long as a piece took the thread sleeps after it
STALL_SECONDS: Final = 30.0
STALL_STEPS: Final = 60  # in which it looks whether the node stops
STOP_SECONDS: Final = 3.0  # for which a node that stops waits for its thread

_START: Final = struct.Struct(">cI")  # kind, bytes of the content
_CHECKSUM: Final = struct.Struct(">I")
_SUMMARY, _ROWS, _END = b"H", b"R", b"E"
_UNREADABLE: Final = (ValueError, TypeError, IndexError, msgpack.UnpackException)

log = logging.getLogger(__name__)


class BackupDamaged(Failure):
    """The file is no backup, not a whole one, or not as it was written."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(Exit.DAMAGED, f"backup {name} {what}; take another one")


class Summary(NamedTuple):
    """What a backup is of."""

    schema: int
    document: bytes  # of genesis
    genesis_hash: Hash
    head: Head
    consensus_key: bytes  # the public one of the node's vote journal; empty of a follower
    database_bytes: int  # of the files, which the backup hardly exceeds

    def encode(self) -> list[Any]:
        return [FORMAT, *self._replace(head=tuple(self.head))]  # type: ignore[arg-type]


class Frame(NamedTuple):
    """A piece of a backup."""

    kind: bytes
    content: bytes

    def encode(self) -> bytes:
        start = _START.pack(self.kind, len(self.content)) + self.content
        return start + _CHECKSUM.pack(zlib.crc32(start))


# --- writing --------------------------------------------------------------------------------------------------


class Backup(NamedTuple):
    """One that is being read, from a store or from a file. When the frames have ended without a fault it is whole."""

    summary: Summary
    frames: Iterator[Frame]


def read_store(store: Store, consensus_key: bytes) -> Backup:
    """The backup of what is published now, from any thread. Its frames raise: StorageDamaged, StorageFailed."""
    head, rows = store.image()
    size = _size_of(store.directory / DATABASE)
    summary = Summary(SCHEMA_VERSION, store.genesis_document, store.genesis_hash, head, consensus_key, size)
    return Backup(summary, _encode(summary, rows))


def _encode(summary: Summary, rows: Iterator[tuple[bytes, bytes]]) -> Iterator[Frame]:
    digest, count = sha256(), 0
    yield (frame := Frame(_SUMMARY, msgpack.packb(summary.encode())))
    digest.update(frame.content)
    for piece in _pieces(rows):
        yield (frame := Frame(_ROWS, msgpack.packb(piece)))
        digest.update(frame.content)
        count += len(piece) // 2
    yield Frame(_END, msgpack.packb([count, digest.digest()]))


def _pieces(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for row in rows:
        piece.extend(row)
        size += len(row[1])
        if size >= PIECE_BYTES or len(piece) == 2 * PIECE_ROWS:
            yield piece
            piece, size = [], 0
    yield piece


def _size_of(database: Path) -> int:
    """Of its files; LevelDB may delete some meanwhile."""
    size = 0
    for file in database.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


# --- reading --------------------------------------------------------------------------------------------------


class BackupReader:
    """Reads a backup from its start to its end, and stops at the first fault."""

    def __init__(self, read: Callable[[int], bytes], name: str, genesis_hash: Hash | None = None) -> None:
        """`read` gives so many bytes, or fewer at the end; `name` stands in what is said of faults. The chain is that
        of `genesis_hash`, if one is given.

        Raises: BackupDamaged; StorageDamaged of another format, schema or chain.
        """
        self._read, self._name = read, name
        self._digest = sha256()
        self._count = 0
        self.bytes = 0  # so far
        if self._take(len(MAGIC)) != MAGIC:
            raise self._damaged("is no backup of a node")
        self._first = self._next()
        self.summary = self._decode_summary(self._first)
        check_schema(Path(name), self.summary.schema)
        if genesis_hash is not None and genesis_hash != self.summary.genesis_hash:
            raise StorageDamaged(
                f"backup {name} is of genesis {hex_of(self.summary.genesis_hash)}, not of {hex_of(genesis_hash)}"
            )

    def frames(self) -> Iterator[Frame]:
        """All of them. Raises: BackupDamaged."""
        yield self._first
        while (frame := self._next()).kind == _ROWS:
            self._count += len(self._unpack(frame)) // 2
            yield frame
        self._check_end(frame)
        yield frame

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """The same, decoded. Raises: BackupDamaged."""
        for frame in self.frames():
            if frame.kind == _ROWS:
                items = self._unpack(frame)
                yield from zip(items[::2], items[1::2], strict=True)

    def _next(self) -> Frame:
        start = self._take(_START.size)
        kind, length = _START.unpack(start)
        if length > FRAME_BYTES_MAX:
            raise self._damaged(f"is damaged before byte {self.bytes:,}: a piece of {length:,} bytes")
        content = self._take(length)
        (checksum,) = _CHECKSUM.unpack(self._take(_CHECKSUM.size))
        if checksum != zlib.crc32(content, zlib.crc32(start)):
            raise self._damaged(f"is damaged before byte {self.bytes:,}: wrong checksum")
        frame = Frame(kind, content)
        if kind != _END:
            self._digest.update(content)
        return frame

    def _take(self, count: int) -> bytes:
        taken = self._read(count)
        self.bytes += len(taken)
        if len(taken) < count:
            raise self._damaged(f"is truncated: it ends at byte {self.bytes:,}")
        return taken

    def _check_end(self, frame: Frame) -> None:
        if frame.kind != _END:
            raise self._damaged(f"is damaged before byte {self.bytes:,}: a piece of an unknown kind")
        if self._unpack(frame) != [self._count, self._digest.digest()]:
            raise self._damaged("is damaged: its pieces are not those that were written")
        if self._read(1):
            raise self._damaged(f"is damaged: it goes on after its end at byte {self.bytes:,}")

    def _decode_summary(self, frame: Frame) -> Summary:
        try:
            version, schema, document, genesis_hash, head, key, size = self._unpack(frame)
            height, block_hash, root = head
            if version != FORMAT:
                raise StorageDamaged(
                    f"backup {self._name} is written in format {version}, this program reads format {FORMAT}; "
                    "restore it with the release that wrote it"
                )
            if frame.kind != _SUMMARY or load_genesis(document).hash != genesis_hash:
                raise ValueError("not a summary")
        except (*_UNREADABLE, InvalidGenesis):
            raise self._damaged("does not say what it is of") from None
        head = Head(Height(height), Hash(block_hash), Hash(root))
        return Summary(schema, document, Hash(genesis_hash), head, key, size)

    def _unpack(self, frame: Frame) -> list[Any]:
        try:
            items: list[Any] = msgpack.unpackb(frame.content, strict_map_key=True)
        except _UNREADABLE:
            raise self._damaged(f"is damaged before byte {self.bytes:,}: a piece cannot be read") from None
        return items

    def _damaged(self, what: str) -> BackupDamaged:
        return BackupDamaged(self._name, what)


def load_backup(reader: BackupReader, directory: Path, track: Callable[[int], None]) -> None:
    """Makes the database of a backup in this directory, which has none. `track` hears how many bytes were read.

    Nothing of it exists when it fails. Raises: BackupDamaged, StorageExists, StorageFailed.
    """

    def rows() -> Iterator[tuple[bytes, bytes]]:
        for row in reader.rows():
            track(reader.bytes)
            yield row

    summary = reader.summary
    with Creation(directory, summary.document, summary.genesis_hash, plan=None) as creation:
        creation.load_image(rows())
        creation.finish_image(summary.head)


# --- of a node that runs ------------------------------------------------------------------------------------------


@asynccontextmanager
async def offer_backups(store: Store, consensus_key: bytes) -> AsyncIterator[None]:
    """While the context lasts whoever connects to the socket gets a backup."""
    giver = _Giver(store, consensus_key)
    async with AsyncExitStack() as stack:
        try:
            listening = stack.enter_context(_listen(store.directory))
        except OSError as fault:
            path = store.directory / SOCKET
            log.warning("%(path)s: no backup of the running node: %(cause)s", {"path": path, "cause": fault})
        else:
            stack.push_async_callback(giver.end)
            task = asyncio.create_task(giver.serve(listening))
            stack.callback(task.cancel)
        yield


class _Giver:
    """Gives one backup after the other, on a thread of its own. The store must stay open until `end`."""

    def __init__(self, store: Store, consensus_key: bytes) -> None:
        self._store, self._consensus_key = store, consensus_key
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backup")
        self._is_stopping = threading.Event()
        self._work: asyncio.Future[None] | None = None

    async def serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as fault:  # too many open files, for one
                log.warning("no backup: %(cause)s", {"cause": fault})
                await asyncio.sleep(STALL_SECONDS / STALL_STEPS)
                continue
            self._work = loop.run_in_executor(self._thread, self._give, connection)
            await asyncio.shield(self._work)

    async def end(self) -> None:
        """A thread that hangs in a disk is not waited for: nor does anyone then wait for the storage's."""
        self._is_stopping.set()
        if self._work is not None:
            await asyncio.wait([self._work], timeout=STOP_SECONDS)
        self._thread.shutdown(wait=self._work is None or self._work.done())

    def _give(self, connection: socket.socket) -> None:
        started = time.monotonic()
        try:
            with connection:
                self._send(connection, MAGIC)
                began = time.thread_time()
                for frame in read_store(self._store, self._consensus_key).frames:
                    content = frame.encode()
                    rest = REST * (time.thread_time() - began)
                    self._send(connection, content)
                    self._is_stopping.wait(rest)
                    began = time.thread_time()
        except OSError as fault:
            log.warning("a backup was not taken to its end: %(cause)s", {"cause": fault})
        except Failure as failure:  # the store is shut for good now, and the node will say so
            log.error("no backup: %(reason)s", {"reason": failure})
        else:
            log.info("gave a backup in %(seconds).1f s", {"seconds": time.monotonic() - started})

    def _send(self, connection: socket.socket, content: bytes) -> None:
        """In steps, so that a client that takes nothing does not keep the node from stopping. Raises: OSError."""
        rest, deadline = memoryview(content), time.monotonic() + STALL_SECONDS
        connection.settimeout(STALL_SECONDS / STALL_STEPS)
        while rest:
            if self._is_stopping.is_set():
                raise OSError("the node stops")
            try:
                rest = rest[connection.send(rest) :]
                deadline = time.monotonic() + STALL_SECONDS
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise


@contextmanager
def _listen(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening, _short_path(directory) as path:
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a node that was killed: the directory's lock is ours
        listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(4)
        listening.setblocking(False)
        try:
            yield listening
        finally:
            os.unlink(path)


@contextmanager
def connect(directory: Path) -> Iterator[socket.socket]:
    """To the node that runs on this directory. Raises: OSError."""
    with socket.socket(socket.AF_UNIX) as connection, _short_path(directory) as path:
        connection.settimeout(STALL_SECONDS)
        connection.connect(path)
        yield connection


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """The socket's path, however long that of the directory is: the system takes 107 bytes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
