"""`ctt restore`: makes a data directory of a backup, once everything in it is checked."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ctt_state.genesis import load_genesis
from ctt_state.units import hex_of
from node.backup import BackupDamaged, BackupReader, Summary, load_backup
from node.cli.backup import summarise
from node.cli.init import read_genesis
from node.cli.options import add_json, add_progress
from node.cli.output import complain, show
from node.cli.progress import bars
from node.cli.verify import FAULTS_SHOWN_MAX
from node.datadir import (
    ANCHOR_FILE,
    DATABASE,
    LOCK_FILE,
    SPACE_LIMITS,
    DirectoryLock,
    StorageDamaged,
    StorageExists,
    StorageFailed,
    explain_os_error,
    free_bytes,
    show_bytes,
    sync_directory,
)
from node.exits import Exit, Failure
from node.journal import raise_guard
from node.store import Store
from node.verify import verify

UNFINISHED: Final = "restoring"  # in the data directory
SPACE: Final = 2  # times the backup's size: LevelDB sorts what was loaded into new files
EPILOG: Final = """\
It rebuilds the database and checks it as `ctt verify` does, the whole chain of hashes, every certificate, the state
root and all invariants, before there is a database in DIR that a node could serve. DIR must be empty or absent.

No key is in a backup. A validator's may have voted since, so what is restored has a guard: with the key put back, the
node first listens to the others, and votes only above everything that the key can have voted. If its latest vote
journal is still there, carry its marks over instead (ctt journal export, import): then nothing is waited for.

example:
  ctt restore /backup/ctt-2026-01-31.backup /var/lib/ctt --genesis grid.json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "restore", help="make a data directory of a backup", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("backup", type=Path, metavar="FILE")
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument(
        "--genesis",
        type=Path,
        metavar="GENESIS",
        help="refuse the backup of another chain than this document's",
    )
    add_json(parser)
    add_progress(parser, "rows")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    expected = load_genesis(read_genesis(options.genesis)).hash if options.genesis else None
    try:
        with options.backup.open("rb") as file:
            reader = BackupReader(file.read, str(options.backup), expected)
            with _work_place(options.dir) as unfinished:
                _check_room(options)
                _rebuild(options, reader, unfinished)
                _put_in_place(unfinished, options.dir)
    except FileNotFoundError as fault:
        raise Failure(Exit.MISSING, f"no such file: {fault.filename}") from None
    except OSError as error:
        raise explain_os_error("restoring to", options.dir, error) from None
    _tell(options, reader.summary)
    return 0


@contextmanager
def _work_place(directory: Path) -> Iterator[Path]:
    """A directory in the data directory, which nothing else is in. Neither stays after a failure.

    Raises: StorageExists, StorageInUse, StorageForbidden, StorageFailed, OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    others = sorted({each.name for each in directory.iterdir()} - {LOCK_FILE, UNFINISHED})
    if others:
        raise StorageExists(f"{directory} is not empty (it has {others[0]}); restore into an empty directory")
    lock = DirectoryLock.acquire(directory)
    unfinished = directory / UNFINISHED
    try:
        if unfinished.exists():  # an interrupted restore
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        lock.release()


def _check_room(options: argparse.Namespace) -> None:
    """Raises: StorageFailed, OSError."""
    needed = SPACE * options.backup.stat().st_size + SPACE_LIMITS.stop_bytes
    free, _ = free_bytes(options.dir)
    if free < needed:
        raise StorageFailed(
            f"{options.dir}: only {show_bytes(free)} free; need {show_bytes(needed)}. Free space, then try again."
        )


def _rebuild(options: argparse.Namespace, reader: BackupReader, directory: Path) -> None:
    """The database, checked. Raises: Failure (65) for one in which anything is wrong."""
    path = options.backup
    with bars() as progress:
        task = progress.add_task(options.doing, total=path.stat().st_size)
        load_backup(reader, directory, lambda at: progress.update(task, completed=at))
        try:
            store = Store.open(directory, reader.summary.genesis_hash)
        except StorageDamaged as damage:
            raise BackupDamaged(str(path), f"does not have the blocks that it says: {damage}") from None
        try:
            count = 0
            for count, fault in enumerate(verify(store, progress), 1):
                if count <= FAULTS_SHOWN_MAX:
                    complain(options, f"{path}: {fault}")
        finally:
            store.close()
    if count:
        raise BackupDamaged(str(path), f"is not a sound chain ({count:,} faults); nothing was restored")


def _put_in_place(unfinished: Path, directory: Path) -> None:
    """The guard first and the database last, so there never is one without the other. Raises: Failure, OSError."""
    raise_guard(directory)
    (unfinished / ANCHOR_FILE).rename(directory / ANCHOR_FILE)
    (unfinished / DATABASE).rename(directory / DATABASE)
    sync_directory(directory)


def _tell(options: argparse.Namespace, summary: Summary) -> None:
    lines = [
        f"{options.dir}: block {summary.head.height:,} {hex_of(summary.head.block_hash)}, checked",
        f"put its node.toml, tls and key back, then: ctt run --dir {options.dir}",
        "a validator casts no votes there until the restore guard has listened to the others",
    ]
    show(options, lines, {"directory": str(options.dir), **summarise(summary)})
