"""The data directory: one node at a time, room to write, durable names, and what a storage error means.

    node.lock       held with flock for the node's whole life; holds the process id
    anchor          the last final blocks, outside the database (node/anchor.py)
    db/             LevelDB (node/store.py)
    db.new/         a creation that has not finished; `ctt init` starts it anew, or goes on with it where there is
    db.parts/       what a large first state is made of (node/populate.py)

Other files of the node (keys, vote journal, configuration) live beside them.

LevelDB's own lock falls as soon as the same process opens the database a second time, because POSIX record locks end
when any descriptor of the file is closed. Two nodes on one directory sign twice, so the lock that counts is ours.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from node.exits import Exit, Failure

LOCK_FILE: Final = "node.lock"
ANCHOR_FILE: Final = "anchor"
DATABASE: Final = "db"
UNFINISHED_DATABASE: Final = "db.new"
UNFINISHED_PARTS: Final = "db.parts"

RESTORE_REMEDY: Final = "move it aside and restore a backup or fetch the chain anew (docs/OPERATIONS.md)"

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_REMEDIES: Final = {
    errno.ENOSPC: "Free space, then restart.",
    errno.EDQUOT: "Free space or raise the quota, then restart.",
    errno.EROFS: "Mount it writable, then restart; if the system made it read-only, check the disk (dmesg).",
    errno.EIO: "The disk reported an error; do not restart on it before checking it (smartctl).",
    errno.EMFILE: "Allow more open files (ulimit -n 4096), then restart.",
    errno.ENFILE: "Allow more open files (fs.file-max), then restart.",
    errno.EACCES: "Give the path to the user the node runs as, then restart.",
    errno.EPERM: "Give the path to the user the node runs as, then restart.",
}
_REMEDY_BY_CAUSE: Final = {os.strerror(number): remedy for number, remedy in _REMEDIES.items()}


class StorageMissing(Failure):
    """There is no database, or its creation never finished."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.MISSING, text)


class StorageExists(Failure):
    """There is a chain already where one is to be made, or it cannot be made here."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.CANNOT_CREATE, text)


class StorageInUse(Failure):
    """Another node works on this data directory."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.UNAVAILABLE, text)


class StorageForbidden(Failure):
    """The node's user may not use the data directory."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.PERMISSION, text)


class StorageDamaged(Failure):
    """What is on the disk is not what was written, or not this chain's."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.DAMAGED, text)


class StorageFailed(Failure):
    """The disk is full, read-only, failing or too slow. The node stops; it never tries again in the same process."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.STORAGE, text)


def explain_failure(action: str, path: Path, cause: str, final_height: int | None = None) -> StorageFailed:
    """What failed, where, why, how full the file system is, what is safe, and what to do: in one line.

    `cause` is the system's text for the error; LevelDB passes on nothing else.
    """
    safe = "" if final_height is None else f" Last final block {final_height:,} is safe."
    remedy = _REMEDY_BY_CAUSE.get(cause, "Check the disk, then restart.")
    return StorageFailed(f"{action} {path} failed: {cause}; {_describe_filesystem(path)}.{safe} {remedy}")


def explain_os_error(
    action: str, path: Path, error: OSError, final_height: int | None = None
) -> StorageFailed | StorageForbidden:
    """The same for an error that still has its number."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageForbidden(f"{action} {path} failed: {error.strerror}. {_REMEDIES[errno.EACCES]}")
    return explain_failure(action, path, error.strerror or str(error), final_height)


# --- one node at a time -------------------------------------------------------------------------------------


_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class DirectoryLock:
    """The right to work on a data directory. The kernel gives it up when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> "DirectoryLock":
        """Raises: StorageInUse with the holder's process id, StorageDamaged, StorageForbidden, StorageFailed."""
        path = directory / LOCK_FILE
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise StorageDamaged(f"{path} is not a regular file; remove it, then restart")
        try:
            descriptor = os.open(path, _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise explain_os_error("opening", path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StorageInUse(f"another node (pid {holder or 'unknown'}) uses {directory}") from None
        except OSError as error:
            os.close(descriptor)
            raise explain_os_error("locking", path, error) from None
        return cls(descriptor)

    def release(self) -> None:
        """Closing is releasing. The file stays: removing it would let two nodes lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


# --- durable names ------------------------------------------------------------------------------------------


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable. Raises: OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Makes what others wrote to a file durable. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Puts a new file in the place of `path`; after a power cut it is the old one or the new one. Raises: OSError."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    sync_directory(path.parent)


def write_all(descriptor: int, content: bytes) -> None:
    """Raises: OSError, also when the disk takes only a part."""
    if os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- what belongs here --------------------------------------------------------------------------------------

_LEVELDB_NAME: Final = re.compile(r"CURRENT|LOCK|LOG(\.old)?|MANIFEST-\d{6,}|\d{6,}\.(log|ldb|sst|dbtmp)")


def check_entries(directory: Path) -> None:
    """Refuses what could lead the node outside its directory or stop it: links, pipes, devices; and, among the
    database's files, anything that LevelDB did not make.

    Raises: StorageDamaged naming the entry, StorageForbidden, StorageFailed.
    """
    _check_each(directory, lambda _, mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode))
    _check_each(
        directory / DATABASE,
        lambda name, mode: stat.S_ISREG(mode) and _LEVELDB_NAME.fullmatch(name) is not None,
    )


def _check_each(directory: Path, belongs: Callable[[str, int], bool]) -> None:
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
    except OSError as error:
        raise explain_os_error("reading", directory, error) from None
    for name, mode in found:
        if not belongs(name, mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "stray")
            raise StorageDamaged(f"{directory / name} ({kind}) does not belong here; remove it, then restart")


_KINDS: Final = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


# --- room ---------------------------------------------------------------------------------------------------


class Space(IntEnum):
    """How much room is left, from worst to best: what the node still does."""

    STOP = 0  # stop cleanly while there is room to do so
    NO_CLIENTS = 1  # final blocks only: refuse clients' transactions
    LOW = 2  # warn
    AMPLE = 3


@dataclass(frozen=True, slots=True)
class SpaceLimits:
    """Below which free space each rung of the ladder begins."""

    stop_bytes: int = 512 * MIB
    no_clients_bytes: int = 2 * GIB
    low_bytes: int = 10 * GIB
    low_percent: int = 10


SPACE_LIMITS: Final = SpaceLimits()


def free_space(directory: Path, limits: SpaceLimits = SPACE_LIMITS) -> Space:
    """Raises: StorageFailed."""
    try:
        free, total = free_bytes(directory)
    except OSError as error:
        raise explain_os_error("reading", directory, error) from None
    if free < limits.stop_bytes:
        return Space.STOP
    if free < limits.no_clients_bytes:
        return Space.NO_CLIENTS
    if free < limits.low_bytes or free * 100 < total * limits.low_percent:
        return Space.LOW
    return Space.AMPLE


def check_room(directory: Path, limits: SpaceLimits = SPACE_LIMITS) -> None:
    """Refuses to start where the node could not write. Raises: StorageFailed, OSError."""
    if _is_read_only(directory):
        raise StorageFailed(f"{directory} is on a read-only file system. {_REMEDIES[errno.EROFS]}")
    free, _ = free_bytes(directory)
    if free < limits.stop_bytes:
        room = f"only {show_bytes(free)} free; need {show_bytes(limits.stop_bytes)}"
        raise StorageFailed(f"{directory}: {room}. {_REMEDIES[errno.ENOSPC]}")


def show_bytes(count: int) -> str:
    """A size for people, rounded down: 210 MiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count // unit:,} {name}"
    return f"{count} B"


def free_bytes(directory: Path) -> tuple[int, int]:
    """What the node's user may still write, and the size of the file system. Raises: OSError."""
    filesystem = os.statvfs(directory)
    return filesystem.f_bavail * filesystem.f_frsize, filesystem.f_blocks * filesystem.f_frsize


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _describe_filesystem(path: Path) -> str:
    """The path itself may be gone, so its nearest existing parent is asked."""
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        free, total = free_bytes(path)
        mount = ", mounted read-only" if _is_read_only(path) else ""
    except OSError:
        return "the file system does not answer"
    return f"{show_bytes(free)} of {show_bytes(total)} free{mount}"
