"""The vote journal: every vote this validator ever cast is on the disk before anyone sees it (docs/PROTOCOL.md, C-8).

    votes/node.lock   held while a process may vote; two processes on one directory cannot both
    votes/journal     the journal
    votes/journal.new a rewriting that did not finish; the next one replaces it
    votes/restored    the restore guard: the database is from a backup, and the key may have voted since

The file is a header (format, genesis hash, consensus public key) and steps. A step is what one `write` and one
`fdatasync` made durable: its number, its length, a checksum of these two; records; a checksum of all that and an end
mark. A record is a kind, a length and bytes: a vote, a certificate, a block, marks, a silence, or that the node was
stopped.
Numbers are big-endian. Checksums are CRC-32, as in the anchor; Python has no fast CRC-32C.

What a crash leaves and what damage leaves look different. A crash cuts the last step short, with or without zeros in
place of what is missing, so the end mark, whose last byte is not zero, is not there: the step was never synced, its
vote never shown, and it is dropped. A step with its end mark and a wrong checksum is damaged, be it the last one: the
journal is refused, whichever bit it is. (So it is if a file system keeps the end of a write without its start: to
refuse too much is the safe mistake.) The first step is never short, because it is synced before the file has its name.

Two things cannot be told from the file alone: that its end was cut off, or wiped with zeros, after it was synced, and
that it is an older copy of itself. Against those stand the height of the database (`Journal.open`), the marks that
operators carry from one machine to the next, and a validator's ear for votes with its own key.

Everything at or below the floor is durably final and forgotten; nothing is signed there any more. The marks are the
greatest places of votes; they, the floor and the silence after a restore survive each rewriting.
"""

import errno
import logging
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import msgpack

from ctt_state.block import Block
from ctt_state.units import Hash, Height, hex_of
from ctt_state.votes import Certificate, Kind, Statement, Vote, contradict
from node.consensus.events import Restored
from node.datadir import (
    MIB,
    DirectoryLock,
    StorageDamaged,
    StorageExists,
    StorageForbidden,
    explain_os_error,
    replace_file,
    sync_directory,
    write_all,
)
from node.exits import Exit, Failure

log = logging.getLogger(__name__)

VOTES: Final = "votes"  # in the data directory
JOURNAL_FILE: Final = "journal"
GUARD_FILE: Final = "restored"
FORMAT: Final = 1
REWRITE_BYTES: Final = 16 * MIB  # a larger journal is rewritten without what is final
FLOOR_BLOCKS: Final = 64  # final blocks after which the floor is written even without a vote
BEHIND_BLOCKS_MAX: Final = 1_024  # a journal in use that is further behind its database is an older copy

_MAGIC: Final = b"cttvotes"
_HEADER: Final = struct.Struct(">8sH32s33s")
_CHECKSUM: Final = struct.Struct(">I")
_STEP: Final = struct.Struct(">QI")  # number, bytes of its records
_STEP_BYTES: Final = _STEP.size + _CHECKSUM.size
_END: Final = b"done"  # the last byte is what tells a whole step from a short one: never zero
_END_BYTES: Final = _CHECKSUM.size + len(_END)
_RECORD: Final = struct.Struct(">BI")  # kind, bytes
_MARKS: Final = struct.Struct(">9Q")
_PLACE: Final = struct.Struct(">2Q")
_SCAN_BYTES: Final = MIB
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_APPEND_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class DoubleSign(Failure):
    """Consensus asked for a vote that this key must not cast beside an earlier one: our mistake."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.BROKEN, f"refused to sign {text}")


class BelowFloor(DoubleSign):
    """The view is final, or lies below a mark that was carried here. The vote would be of no use to anyone: whoever
    asked may have asked before the block became final, and may leave it out."""


class Place(NamedTuple):
    """A view of an epoch. Views start at 1, so `NOWHERE` is below every vote."""

    epoch: int
    view: int


NOWHERE: Final = Place(0, 0)


class Marks(NamedTuple):
    """Up to where this key may have voted: the floor with its block's height, and the greatest place of each vote."""

    floor: Place = NOWHERE
    height: Height = Height(0)
    notarize: Place = NOWHERE
    nullify: Place = NOWHERE
    finalize: Place = NOWHERE

    def of(self, kind: Kind) -> Place:
        match kind:
            case Kind.NOTARIZE:
                return self.notarize
            case Kind.NULLIFY:
                return self.nullify
            case Kind.FINALIZE:
                return self.finalize

    @property
    def highest(self) -> Place:
        """No vote of the key lies above."""
        return max(self.floor, self.notarize, self.nullify, self.finalize)

    def raised_by(self, statement: Statement) -> "Marks":
        place = place_of(statement)
        match statement.kind:
            case Kind.NOTARIZE:
                return self._replace(notarize=max(self.notarize, place))
            case Kind.NULLIFY:
                return self._replace(nullify=max(self.nullify, place))
            case Kind.FINALIZE:
                return self._replace(finalize=max(self.finalize, place))

    def raised_to(self, other: "Marks") -> "Marks":
        """The greater of each."""
        return Marks(
            max(self.floor, other.floor),
            max(self.height, other.height),
            max(self.notarize, other.notarize),
            max(self.nullify, other.nullify),
            max(self.finalize, other.finalize),
        )


NO_MARKS: Final = Marks()


def silent_through(place: Place) -> Marks:
    """For a journal that knows no votes, though the key may have cast some up to this place: it casts none there."""
    return Marks(floor=place, notarize=place, nullify=place, finalize=place)


def place_of(statement: Statement) -> Place:
    return Place(statement.epoch, statement.view)


class Silence(NamedTuple):
    """Casts nothing up to this place, though it is not final: the key may have voted there elsewhere."""

    through: Place


Item = Vote | Certificate | Block | Marks | Silence


@dataclass
class Contents:
    """What a journal says: the marks, and what lies above the floor."""

    genesis_hash: Hash
    public_key: bytes
    marks: Marks = NO_MARKS
    silent_through: Place = NOWHERE
    votes: dict[Place, dict[Kind, Vote]] = field(default_factory=dict)
    certificates: dict[Statement, Certificate] = field(default_factory=dict)
    blocks: dict[Hash, Block] = field(default_factory=dict)
    steps: int = 0  # so far, rewritten ones included
    whole_bytes: int = 0
    torn_bytes: int = 0  # after those; a step that a crash cut short
    is_clean: bool = False  # nothing came after the node was stopped

    def has(self, item: Certificate | Block) -> bool:
        """Whether there is no need to write it: it is here, or final."""
        match item:
            case Certificate():
                return place_of(item.statement) <= self.marks.floor or item.statement in self.certificates
            case Block():
                return item.header.height <= self.marks.height or item.header.hash in self.blocks

    def add(self, item: Item) -> None:
        match item:
            case Vote():
                self.votes.setdefault(place_of(item.statement), {})[item.statement.kind] = item
                self.marks = self.marks.raised_by(item.statement)
            case Certificate():
                self.certificates[item.statement] = item
            case Block():
                self.blocks[item.header.hash] = item
            case Marks():
                self.raise_marks(item)
            case Silence(through):
                self.silent_through = max(self.silent_through, through)

    @property
    def unused_above(self) -> Place:
        """Nothing new is cast up to here."""
        return max(self.marks.floor, self.silent_through)

    def raise_marks(self, marks: Marks) -> None:
        """Forgets what is final now."""
        self.marks = self.marks.raised_to(marks)
        floor, height = self.marks.floor, self.marks.height
        self.votes = {place: votes for place, votes in self.votes.items() if place > floor}
        self.certificates = {
            statement: each for statement, each in self.certificates.items() if place_of(statement) > floor
        }
        self.blocks = {
            block_hash: each for block_hash, each in self.blocks.items() if each.header.height > height
        }

    def restored(self) -> Restored:
        votes = tuple(vote for kinds in self.votes.values() for vote in kinds.values())
        return Restored(
            votes, tuple(self.certificates.values()), tuple(self.blocks.values()), self.unused_above
        )

    def items(self) -> Iterator[Item]:
        """What a rewritten journal holds."""
        yield self.marks
        if self.silent_through > self.marks.floor:
            yield Silence(self.silent_through)
        restored = self.restored()
        yield from restored.certificates
        yield from restored.blocks
        yield from restored.votes


class Journal:
    """The open journal. One thread writes; `is_mine` may be asked on any."""

    def __init__(
        self, directory: Path, lock: DirectoryLock, descriptor: int, contents: Contents, rewrite_bytes: int
    ) -> None:
        """Use `Journal.open`."""
        self._path = journal_path(directory)
        self._lock: DirectoryLock | None = lock
        self._descriptor = descriptor
        self._contents = contents
        self._written = contents.marks
        self._bytes = contents.whole_bytes
        self._rewrite_bytes_min = rewrite_bytes
        self._rewrite_bytes = rewrite_bytes
        self._broken: Failure | None = None
        self.was_clean = contents.is_clean
        self.torn_bytes = contents.torn_bytes  # what a crash left of a last step, dropped

    @staticmethod
    def create(directory: Path, genesis_hash: Hash, public_key: bytes, marks: Marks = NO_MARKS) -> None:
        """A journal for a key that has never voted, or never above these marks. None is ever overwritten.

        `marks.height` is that of the database's head.
        Raises: StorageExists, StorageInUse, StorageForbidden, StorageFailed.
        """
        path = journal_path(directory)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory)
        except OSError as error:
            raise explain_os_error("creating", path.parent, error) from None
        _check_directory(path.parent)
        lock = DirectoryLock.acquire(path.parent)
        try:
            if os.path.lexists(path):
                raise StorageExists(f"{path} exists already; a vote journal is never overwritten")
            contents = Contents(genesis_hash, public_key, marks._replace(floor=marks.highest))
            replace_file(path, _encode_file(contents))
        except OSError as error:
            raise explain_os_error("creating", path, error) from None
        finally:
            lock.release()

    @classmethod
    def open(
        cls,
        directory: Path,
        genesis_hash: Hash,
        public_key: bytes,
        final: tuple[int, int, int],
        *,
        rewrite_bytes: int = REWRITE_BYTES,
    ) -> "Journal":
        """The journal of this data directory, if no vote can be missing from it; never creates.

        `final` is epoch, view and height of the database's head, as in its header. A step that a crash cut short is
        dropped. What is there is synced before anything is built on it: after a kill it may not have been.
        Raises: StorageDamaged (missing, damaged, of another key or chain, of a format that is not ours, above the
        database, in use and yet behind it by more than `BEHIND_BLOCKS_MAX`), StorageInUse, StorageForbidden,
        StorageFailed.
        """
        path = find_journal(directory)
        lock = DirectoryLock.acquire(path.parent)
        try:
            descriptor = _open_file(path, _APPEND_FLAGS)
            try:
                contents = _replay(path, descriptor)
                _check_owner(path, contents, genesis_hash, public_key)
                _check_database(path, contents, final[2])
                _settle(path, descriptor, contents)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            lock.release()
            raise explain_os_error("opening", path, error) from None
        except BaseException:
            lock.release()
            raise
        journal = cls(directory, lock, descriptor, contents, rewrite_bytes)
        contents.raise_marks(_floor(*final))
        return journal

    # --- voting -------------------------------------------------------------------------------------------------

    def cast(
        self,
        statement: Statement,
        reliance: Sequence[Certificate],
        block: Block | None,
        sign: Callable[[Statement], Vote],
    ) -> Vote:
        """The signed vote, which is on the disk with its block and all that it relies on. The same statement gives the
        same vote again.

        Raises: BelowFloor, DoubleSign, before anything is signed; StorageFailed, after which nothing is cast any more.
        """
        self._check_usable()
        held = self._find(statement)
        if held is not None:
            return held
        vote = sign(statement)
        if vote.statement != statement:
            raise AssertionError(f"asked to sign {statement}, signed {vote.statement}")
        items: list[Certificate | Block] = [*dict.fromkeys(reliance)]
        if block is not None:
            items.append(block)
        self._append([*[each for each in items if not self._contents.has(each)], vote])
        return vote

    def _find(self, statement: Statement) -> Vote | None:
        """The sign-once guard: the vote if it was cast before, None if it may be cast now.

        It asks the same function that judges evidence, so what passes here can never be held against this validator.
        """
        place = place_of(statement)
        kinds = self._contents.votes.get(place, {})
        held = kinds.get(statement.kind)
        if held is not None and held.statement == statement:
            return held
        marks, floor = self._contents.marks, self._contents.unused_above
        if place <= floor:
            raise BelowFloor(f"{describe(statement)}: the floor is epoch {floor.epoch}, view {floor.view}")
        for vote in kinds.values():
            if contradict(vote._replace(statement=statement), vote):
                raise DoubleSign(
                    f"{describe(statement)}: this key has signed {describe(vote.statement)} in that view"
                )
        mark = marks.of(statement.kind)
        if statement.kind is not Kind.FINALIZE and place <= mark:
            raise DoubleSign(
                f"{describe(statement)}: this key has signed a {statement.kind.name} in epoch {mark.epoch}, "
                f"view {mark.view}"
            )
        return None

    def is_mine(self, vote: Vote) -> bool:
        """Whether a vote that bears this key's signature may have been cast here; if not, somebody else has the key.

        What lies at or below the floor is forgotten, and is taken to be ours up to the mark of its kind.
        """
        place, kind = place_of(vote.statement), vote.statement.kind
        contents = self._contents
        if place <= contents.marks.floor:
            return place <= contents.marks.of(kind)
        held = contents.votes.get(place, {}).get(kind)
        return held is not None and held.statement == vote.statement

    def restored(self) -> Restored:
        """What was cast above the floor, with what it relied on."""
        return self._contents.restored()

    @property
    def marks(self) -> Marks:
        return self._contents.marks

    # --- the floor ----------------------------------------------------------------------------------------------

    def advance(self, epoch: int, view: int, height: int) -> None:
        """The database's head is durable: forgets what is at or below it. The three are as in its header.

        To be called for each final block, or at least for each `BEHIND_BLOCKS_MAX // 2` while catching up. The floor
        is written with the next vote, or now if that is long ago. Raises: StorageFailed.
        """
        self._check_usable()
        self._contents.raise_marks(_floor(epoch, view, height))
        if self._bytes > self._rewrite_bytes:
            self._rewrite()
        elif height >= self._written.height + FLOOR_BLOCKS:
            self._append([])

    def raise_marks(self, marks: Marks) -> None:
        """Casts nothing at or below the highest of these any more: votes that another machine cast are not here.

        Raises: StorageFailed.
        """
        self._check_usable()
        self._contents.raise_marks(marks._replace(floor=marks.highest, height=Height(0)))
        self._append([])

    def keep_silent(self, through: Place) -> None:
        """Casts nothing up to this place, and lifts the restore guard. Raises: StorageForbidden, StorageFailed."""
        self._check_usable()
        self._append([Silence(through)])
        lift_guard(self._path.parent.parent)

    def note_clean(self) -> None:
        """The node stops and votes no more: for the next `was_clean`. Raises: StorageFailed."""
        self._check_usable()
        self._write_step([_encode_record(_Kind.CLEAN, b"")])

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._descriptor)
            self._lock.release()
            self._lock = None

    # --- writing ------------------------------------------------------------------------------------------------

    def _append(self, items: Sequence[Item]) -> None:
        self._write_step([_encode_item(each) for each in items])
        for each in items:
            self._contents.add(each)

    def _write_step(self, records: list[bytes]) -> None:
        """One write, one sync; a floor that has risen goes along."""
        marks = self._contents.marks
        if (marks.floor, marks.height) != (self._written.floor, self._written.height):
            records = [_encode_item(marks), *records]
        step = _encode_step(self._contents.steps + 1, b"".join(records))
        try:
            write_all(self._descriptor, step)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._fail(error)
        self._contents.steps += 1
        self._written = marks
        self._bytes += len(step)

    def _rewrite(self) -> None:
        """A new file in the place of the old one, with what is above the floor. When little could be left out, the
        next time comes when the file has doubled."""
        contents = self._contents
        content = _encode_file(contents)
        try:
            replace_file(self._path, content)
            descriptor = os.open(self._path, _APPEND_FLAGS)
        except OSError as error:
            self._fail(error)
        os.close(self._descriptor)
        self._descriptor = descriptor
        contents.steps += 1
        self._written = contents.marks
        self._bytes = len(content)
        self._rewrite_bytes = max(self._rewrite_bytes_min, 2 * self._bytes)

    def _fail(self, error: OSError) -> NoReturn:
        self._broken = explain_os_error("write to", self._path, error, self._contents.marks.height)
        raise self._broken from None

    def _check_usable(self) -> None:
        """What a failed write or sync left on the disk is unknown, and the kernel may report its error only once."""
        if self._broken is not None:
            raise self._broken
        if self._lock is None:
            raise AssertionError("the journal is closed")


# --- the restore guard ------------------------------------------------------------------------------------------


def raise_guard(directory: Path) -> None:
    """From now on a key in this directory votes only when others have told how far it may have voted (C-14).

    Raises: StorageForbidden, StorageFailed.
    """
    path = _guard_path(directory)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory)
        replace_file(path, b"restored from a backup; votes of this key may be missing here\n")
    except OSError as error:
        raise explain_os_error("creating", path, error) from None


def is_guarded(directory: Path) -> bool:
    return os.path.lexists(_guard_path(directory))


def lift_guard(directory: Path) -> None:
    """The journal knows now up to where the key may have voted. Raises: StorageForbidden, StorageFailed."""
    path = _guard_path(directory)
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise explain_os_error("removing", path, error) from None


def _guard_path(directory: Path) -> Path:
    return directory / VOTES / GUARD_FILE


# --- reading --------------------------------------------------------------------------------------------------


def read_journal(directory: Path) -> Contents:
    """What the journal says, whole steps only; changes nothing. A node may be voting with it meanwhile.

    Raises: StorageDamaged, StorageForbidden, StorageFailed.
    """
    path = find_journal(directory)
    descriptor = _open_file(path, _READ_FLAGS)
    try:
        return _replay(path, descriptor)
    except OSError as error:
        raise explain_os_error("reading", path, error) from None
    finally:
        os.close(descriptor)


def read_owner(directory: Path) -> bytes:
    """The public key that the journal is of; empty where there is no journal.

    Raises: StorageDamaged, StorageForbidden, StorageFailed.
    """
    if not os.path.lexists(journal_path(directory)):
        return b""
    path = find_journal(directory)
    descriptor = _open_file(path, _READ_FLAGS)
    try:
        return _read_header(path, descriptor).public_key
    except OSError as error:
        raise explain_os_error("reading", path, error) from None
    finally:
        os.close(descriptor)


def journal_path(directory: Path) -> Path:
    return directory / VOTES / JOURNAL_FILE


def find_journal(directory: Path) -> Path:
    """Where the journal is. Raises: StorageDamaged when it is missing, StorageForbidden when others may write it."""
    path = journal_path(directory)
    if not os.path.lexists(path):
        raise StorageDamaged(
            f"vote journal {path} is missing; voting without it could contradict earlier votes. If this key never "
            f"voted: ctt journal init --dir {directory} --i-am-sure. {_remedy(path)}"
        )
    _check_directory(path.parent)
    return path


def _check_directory(votes: Path) -> None:
    status = votes.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise StorageDamaged(f"{votes} is no directory; put the node's own in its place")
    if status.st_uid != os.geteuid():
        raise StorageForbidden(f"{votes} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if mode & 0o077:
        raise StorageForbidden(f"{votes} is open to others ({mode:04o}); chmod 700 {votes}")


def describe(statement: Statement) -> str:
    text = f"{statement.kind.name} of epoch {statement.epoch}, view {statement.view}"
    if statement.kind is Kind.NULLIFY:
        return text
    return f"{text}, parent view {statement.parent_view}, block {hex_of(statement.block_hash)}"


def _floor(epoch: int, view: int, height: int) -> Marks:
    return Marks(floor=Place(epoch, view), height=Height(height))


def _open_file(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _damaged(path, "it is a symbolic link") from None
        raise explain_os_error("opening", path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _damaged(path, "it is no regular file")
    return descriptor


def _check_owner(path: Path, contents: Contents, genesis_hash: Hash, public_key: bytes) -> None:
    if contents.genesis_hash != genesis_hash:
        raise StorageDamaged(
            f"vote journal {path} belongs to genesis {hex_of(contents.genesis_hash)}, the database to "
            f"{hex_of(genesis_hash)}; put the journal of this chain in its place"
        )
    if contents.public_key != public_key:
        raise StorageDamaged(
            f"vote journal {path} belongs to consensus key {hex_of(contents.public_key)}, this node's is "
            f"{hex_of(public_key)}; put the journal and the key of one validator in place"
        )


def _check_database(path: Path, contents: Contents, final_height: int) -> None:
    """Each must be of its time: an old database has lost final blocks, an old journal votes. A journal that nobody has
    used since it was made may stand beside any database that came later."""
    height = contents.marks.height
    if height > final_height:
        raise _outdated(
            path,
            f"block {height:,} was final when it was written, but the database ends at {final_height:,}: "
            "the database is an older copy",
        )
    if final_height > height + BEHIND_BLOCKS_MAX and contents.steps > 1:
        raise _outdated(
            path,
            f"it ends at block {height:,}, the database at {final_height:,}: it is an older copy, or the node ran "
            "without it",
        )


def _settle(path: Path, descriptor: int, contents: Contents) -> None:
    """Drops a torn step, and makes durable what is there and its name. Raises: OSError."""
    if contents.torn_bytes:
        log.warning(
            "%(path)s: a crash cut the last step short; its %(bytes)d bytes are dropped",
            {"path": path, "bytes": contents.torn_bytes},
        )
        os.ftruncate(descriptor, contents.whole_bytes)
    os.fsync(descriptor)
    sync_directory(path.parent)


def _damaged(path: Path, what: str) -> StorageDamaged:
    return StorageDamaged(
        f"vote journal {path}: {what}; votes of this key may be missing from it. Move it aside. {_remedy(path)}"
    )


def _outdated(path: Path, what: str) -> StorageDamaged:
    directory = path.parent.parent
    return StorageDamaged(
        f"vote journal {path}: {what}. If it is the key's latest journal, carry its marks over: "
        f"ctt journal export --dir {directory} > marks.json, move it aside, "
        f"ctt journal import --dir {directory} marks.json. If not, move it aside. {_remedy(path)}"
    )


def _remedy(path: Path) -> str:
    return (
        f"To vote again from a later epoch on: ctt journal init --dir {path.parent.parent} --first-epoch N "
        "(docs/OPERATIONS.md, The vote journal)"
    )


# --- the file ---------------------------------------------------------------------------------------------------


class _Kind(IntEnum):
    VOTE = 1
    CERTIFICATE = 2
    BLOCK = 3
    MARKS = 4
    CLEAN = 5
    SILENCE = 6


def _encode_file(contents: Contents) -> bytes:
    header = _HEADER.pack(_MAGIC, FORMAT, contents.genesis_hash, contents.public_key)
    records = b"".join(map(_encode_item, contents.items()))
    return _with_checksum(header) + _encode_step(contents.steps + 1, records)


def _encode_step(number: int, records: bytes) -> bytes:
    start = _with_checksum(_STEP.pack(number, len(records)))
    return _with_checksum(start + records) + _END


def _with_checksum(content: bytes) -> bytes:
    return content + _CHECKSUM.pack(zlib.crc32(content))


def _is_whole(content: bytes) -> bool:
    """Whether the checksum at its end is that of the rest."""
    (checksum,) = _CHECKSUM.unpack(content[-_CHECKSUM.size :])
    return bool(zlib.crc32(content[: -_CHECKSUM.size]) == checksum)


def _encode_item(item: Item) -> bytes:
    match item:
        case Vote():
            return _encode_record(_Kind.VOTE, item.encode())
        case Certificate():
            return _encode_record(_Kind.CERTIFICATE, item.encode())
        case Block():
            return _encode_record(_Kind.BLOCK, item.encode())
        case Marks(floor, height, notarize, nullify, finalize):
            numbers = (*floor, height, *notarize, *nullify, *finalize)
            return _encode_record(_Kind.MARKS, _MARKS.pack(*numbers))
        case Silence(through):
            return _encode_record(_Kind.SILENCE, _PLACE.pack(*through))


def _encode_record(kind: _Kind, content: bytes) -> bytes:
    return _RECORD.pack(kind, len(content)) + content


def _decode_item(kind: int, content: bytes) -> Item | None:
    """None for the record of a clean stop. Raises: ValueError, TypeError, struct.error, msgpack.UnpackException."""
    match kind:
        case _Kind.VOTE:
            return Vote.decode(content)
        case _Kind.CERTIFICATE:
            return Certificate.decode(content)
        case _Kind.BLOCK:
            return Block.decode(content)
        case _Kind.MARKS:
            a, b, height, c, d, e, f, g, h = _MARKS.unpack(content)
            return Marks(Place(a, b), Height(height), Place(c, d), Place(e, f), Place(g, h))
        case _Kind.CLEAN:
            return None
        case _Kind.SILENCE:
            return Silence(Place(*_PLACE.unpack(content)))
    raise ValueError(f"record of kind {kind}")


def _replay(path: Path, descriptor: int) -> Contents:
    """Raises: StorageDamaged, OSError."""
    size = os.fstat(descriptor).st_size
    contents = _read_header(path, descriptor)
    at = _HEADER.size + _CHECKSUM.size
    while (step := _read_step(path, descriptor, at, size, contents.steps)) is not None:
        contents.steps, records = step
        contents.is_clean = False
        for item in _decode_records(path, contents.steps, records):
            if item is None:
                contents.is_clean = True
            else:
                contents.add(item)
        at += _STEP_BYTES + len(records) + _END_BYTES
    contents.whole_bytes, contents.torn_bytes = at, size - at
    if contents.steps == 0:
        raise _damaged(path, "its first step is not whole")
    contents.is_clean = contents.is_clean and not contents.torn_bytes
    return contents


def _read_header(path: Path, descriptor: int) -> Contents:
    header = os.pread(descriptor, _HEADER.size + _CHECKSUM.size, 0)
    if len(header) < _HEADER.size + _CHECKSUM.size or not _is_whole(header):
        raise _damaged(path, "its header is damaged")
    magic, version, genesis_hash, public_key = _HEADER.unpack_from(header)
    if magic != _MAGIC:
        raise _damaged(path, "it is no vote journal")
    if version != FORMAT:
        raise StorageDamaged(
            f"vote journal {path} is written in format {version}; this release reads {FORMAT}. "
            "Run the release that wrote it: there is no way back"
        )
    return Contents(Hash(genesis_hash), public_key)


def _read_step(path: Path, descriptor: int, at: int, size: int, last: int) -> tuple[int, bytes] | None:
    """Number and records of the step that starts here; None if there is none, or one that a crash cut short.

    `last` is the number of the step before, 0 for none: the first may have any.
    """
    start = os.pread(descriptor, _STEP_BYTES, at)
    if len(start) < _STEP_BYTES:
        return None
    number, length = _STEP.unpack_from(start)
    end = at + _STEP_BYTES
    if _is_whole(start) and number == (last + 1 if last else number):
        end += length + _END_BYTES
        step = os.pread(descriptor, end - at, at) if end <= size else b""
        if step.endswith(_END) and _is_whole(step[: -len(_END)]):
            return number, step[_STEP_BYTES:-_END_BYTES]
    if _content_end(descriptor, at, size) < end:
        return None
    raise _damaged(path, f"the step at byte {at:,} is damaged")


def _content_end(descriptor: int, at: int, end: int) -> int:
    """Where the zeros begin that reach to `end`; not below `at`."""
    while end > at:
        start = max(at, end - _SCAN_BYTES)
        content = os.pread(descriptor, end - start, start).rstrip(b"\0")
        if content:
            return start + len(content)
        end = start
    return at


def _decode_records(path: Path, number: int, records: bytes) -> Iterable[Item | None]:
    at = 0
    try:
        while at < len(records):
            kind, length = _RECORD.unpack_from(records, at)
            at += _RECORD.size + length
            if at > len(records):
                raise ValueError("a record ends outside its step")
            yield _decode_item(kind, records[at - length : at])
    except (ValueError, TypeError, struct.error, msgpack.UnpackException) as fault:
        raise _damaged(path, f"step {number} cannot be read: {fault}") from None
