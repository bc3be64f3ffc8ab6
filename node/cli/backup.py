"""`ctt backup`: a consistent copy of a node's database in one file, of a node that runs or is stopped."""

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ctt_state.units import hex_of
from node.backup import MAGIC, Backup, BackupDamaged, BackupReader, Summary, connect, read_store
from node.cli.options import add_json, add_progress
from node.cli.output import show
from node.cli.progress import progress
from node.datadir import (
    SPACE_LIMITS,
    StorageExists,
    StorageFailed,
    StorageInUse,
    explain_os_error,
    free_bytes,
    show_bytes,
    sync_directory,
)
from node.exits import Exit, Failure
from node.journal import read_owner
from node.store import Store

EPILOG = """\
NODE is the data directory, or the node.toml in it. A node that runs makes the backup itself, from one moment, a piece
at a time, and goes on meanwhile; run this as the node's user, on its machine. FILE is there only when it is whole, and
is never overwritten. It holds the chain and its state; keys, the vote journal, certificates and node.toml are not in
it: keep copies of those apart, once.

examples:
  ctt backup /var/lib/ctt /backup/ctt-$(date +%F).backup
  ctt backup /var/lib/ctt /backup/now.backup --json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "backup", help="copy a node's database into one file", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("node", type=Path, metavar="NODE")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_json(parser)
    add_progress(parser, "backup")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    directory = options.node.parent if options.node.is_file() else options.node
    if os.path.lexists(options.file):
        raise _exists(options.file)
    try:
        with _frames(directory) as backup:
            size = _write(options, backup)
    except OSError as error:
        raise explain_os_error("writing", options.file, error) from None
    head = backup.summary.head
    text = f"{options.file}: block {head.height:,} {hex_of(head.block_hash)}, {show_bytes(size)}"
    show(options, [text], {"file": str(options.file), "bytes": size, **summarise(backup.summary)})
    return 0


def summarise(summary: Summary) -> dict[str, Any]:
    """What it is of, as JSON."""
    head, key = summary.head, summary.consensus_key
    return {
        "genesisHash": hex_of(summary.genesis_hash),
        "height": head.height,
        "blockHash": hex_of(head.block_hash),
        "stateRoot": hex_of(head.state_root),
        "schema": summary.schema,
        "consensusKey": hex_of(key) if key else None,
    }


@contextmanager
def _frames(directory: Path) -> Iterator[Backup]:
    """Of the node that runs there, else of the database itself. Raises: Failure, OSError."""
    try:
        store = Store.open(directory)
    except StorageInUse as busy:
        with _running(directory, busy) as backup:
            yield backup
        return
    try:
        yield read_store(store, read_owner(directory))
    finally:
        store.close()


@contextmanager
def _running(directory: Path, busy: StorageInUse) -> Iterator[Backup]:
    """Raises: StorageInUse of something that is no node; Failure (69) of a node that ended meanwhile."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connect(directory))
        except (FileNotFoundError, ConnectionRefusedError):
            raise StorageInUse(f"{busy}, and offers no backup; try again when it has stopped") from None
        stream = stack.enter_context(connection.makefile("rb"))
        try:
            reader = BackupReader(stream.read, f"from {directory}")
            yield Backup(reader.summary, reader.frames())
        except (BackupDamaged, ConnectionError, TimeoutError) as fault:
            raise Failure(
                Exit.UNAVAILABLE, f"the node on {directory} ended before its backup was whole: {fault}"
            ) from None


def _write(options: argparse.Namespace, backup: Backup) -> int:
    """How many bytes it has. The file gets its name when it is on the disk. Raises: Failure, OSError."""
    path: Path = options.file
    _check_room(path, backup)
    unfinished = path.with_name(f"{path.name}.part")
    descriptor = os.open(
        unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file, progress(options) as tell:
            file.write(MAGIC)
            for frame in backup.frames:
                file.write(frame.encode())
                tell(file.tell(), backup.summary.database_bytes)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if os.path.lexists(path):
            raise _exists(path)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return size


def _check_room(path: Path, backup: Backup) -> None:
    """Raises: StorageFailed, OSError."""
    needed = backup.summary.database_bytes + SPACE_LIMITS.stop_bytes
    free, _ = free_bytes(path.parent)
    if free < needed:
        raise StorageFailed(
            f"{path}: only {show_bytes(free)} free; need {show_bytes(needed)}. Free space, then try again."
        )


def _exists(path: Path) -> StorageExists:
    return StorageExists(f"{path} exists already; a backup overwrites nothing")
