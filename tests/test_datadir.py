"""The data directory: its lock, its entries, its room, and what storage errors say."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.datadir import (
    GIB,
    MIB,
    DirectoryLock,
    Space,
    SpaceLimits,
    StorageDamaged,
    StorageFailed,
    StorageForbidden,
    StorageInUse,
    check_entries,
    check_room,
    explain_failure,
    explain_os_error,
    free_space,
    replace_file,
    show_bytes,
)

OTHER_PROCESS = """
import sys
from pathlib import Path
from node.datadir import DirectoryLock
from node.exits import Failure
try:
    DirectoryLock.acquire(Path(sys.argv[1]))
except Failure as failure:
    print(failure)
    sys.exit(failure.exit_code)
"""


def lock_elsewhere(directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(directory)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_second_lock_names_the_process_that_holds_the_first(tmp_path: Path) -> None:
    lock = DirectoryLock.acquire(tmp_path)

    with pytest.raises(StorageInUse, match=rf"another node \(pid {os.getpid()}\) uses {tmp_path}") as refusal:
        DirectoryLock.acquire(tmp_path)

    assert refusal.value.exit_code == 69
    lock.release()


def test_a_refused_second_lock_in_the_same_process_does_not_open_the_door_to_others(tmp_path: Path) -> None:
    """The lock of LevelDB does: it falls with any descriptor of its file."""
    lock = DirectoryLock.acquire(tmp_path)
    with pytest.raises(StorageInUse):
        DirectoryLock.acquire(tmp_path)

    other = lock_elsewhere(tmp_path)

    assert (other.returncode, f"pid {os.getpid()}" in other.stdout) == (69, True)
    lock.release()


def test_the_lock_ends_with_its_release_and_with_its_process(tmp_path: Path) -> None:
    DirectoryLock.acquire(tmp_path).release()
    assert lock_elsewhere(tmp_path).returncode == 0

    lock = DirectoryLock.acquire(tmp_path)

    lock.release()
    lock.release()  # releasing twice is no error


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "node.lock"
    make_entry(path, kind)

    with pytest.raises(StorageDamaged, match="node.lock is not a regular file"):
        DirectoryLock.acquire(tmp_path)


def make_entry(path: Path, kind: str) -> None:
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "file":
            path.touch()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("validator.key", "link"),
        ("votes", "pipe"),
        ("db/CURRENT", "link"),
        ("db/notes.txt", "file"),
        ("db/000005.ldb.bak", "file"),
        ("db/lost", "folder"),  # what LevelDB's repair leaves: a repaired database vouches for nothing
    ],
)
def test_what_does_not_belong_in_the_directory_is_named(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "db").mkdir()
    make_entry(tmp_path / name, kind)

    with pytest.raises(StorageDamaged, match=rf"{name} \(.*\) does not belong here; remove it") as refusal:
        check_entries(tmp_path)

    assert refusal.value.exit_code == 65


def test_the_files_of_leveldb_and_of_the_node_belong(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for name in ("CURRENT", "LOCK", "LOG", "LOG.old", "MANIFEST-000004", "000123.log", "1000000.ldb"):
        (tmp_path / "db" / name).touch()
    for name in ("node.lock", "anchor", "validator.key", "config.toml"):
        (tmp_path / name).touch()

    check_entries(tmp_path)


@pytest.mark.parametrize(
    ("free_bytes", "rung"),
    [
        (512 * MIB - 1, Space.STOP),
        (512 * MIB, Space.NO_CLIENTS),
        (2 * GIB - 1, Space.NO_CLIENTS),
        (2 * GIB, Space.LOW),
        (10 * GIB - 1, Space.LOW),
        (10 * GIB, Space.LOW),  # less than a tenth of the disk
        (25 * GIB - 1, Space.LOW),
        (25 * GIB, Space.AMPLE),
    ],
)
def test_each_rung_of_the_space_ladder_begins_below_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, rung: Space
) -> None:
    monkeypatch.setattr("node.datadir.free_bytes", lambda _: (free_bytes, 250 * GIB))

    assert free_space(tmp_path) is rung


def test_a_start_without_room_says_how_much_is_there_and_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.datadir.free_bytes", lambda _: (210 * MIB, 250 * GIB))

    with pytest.raises(StorageFailed, match="only 210 MiB free; need 512 MiB. Free space") as refusal:
        check_room(tmp_path)

    assert refusal.value.exit_code == 74


def test_there_is_room_for_a_node_that_asks_for_none(tmp_path: Path) -> None:
    check_room(tmp_path, SpaceLimits(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space, then restart."),
        (errno.EIO, "do not restart on it before checking it (smartctl)."),
        (errno.EROFS, "Mount it writable"),
        (errno.EMFILE, "ulimit -n 4096"),
        (errno.EBUSY, "Check the disk, then restart."),
    ],
)
def test_a_failure_is_one_line_of_path_cause_room_safety_and_remedy(
    tmp_path: Path, number: int, remedy: str
) -> None:
    path = tmp_path / "db" / "000123.log"  # need not exist

    failure = explain_failure("write to", path, os.strerror(number), final_height=81_234)

    text = str(failure)
    assert text.startswith(f"write to {path} failed: {os.strerror(number)}; ")
    assert " free. Last final block 81,234 is safe. " in text
    assert text.endswith(remedy) or remedy in text
    assert "\n" not in text
    assert failure.exit_code == 74


def test_a_missing_permission_is_told_apart_from_a_failing_disk(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    failure = explain_os_error("opening", tmp_path, error)

    assert isinstance(failure, StorageForbidden)
    assert failure.exit_code == 77
    assert str(failure).startswith(f"opening {tmp_path} failed: Permission denied. Give the path")


def test_a_replaced_file_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")

    replace_file(path, b"new")

    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_the_disk_takes_only_partly_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:1]))

    with pytest.raises(OSError, match="No space left on device"):
        replace_file(path, b"new")

    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (210 * MIB + 5, "210 MiB"), (2500 * GIB, "2,500 GiB")],
)
def test_sizes_are_shown_rounded_down(count: int, shown: str) -> None:
    assert show_bytes(count) == shown
