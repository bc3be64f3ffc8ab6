"""`ctt journal`: the record of a validator's votes, without which it must not vote."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ctt_state.block import Block, Header
from ctt_state.crypto import public_key
from ctt_state.units import UINT64_MAX, Height, hex_of
from node.cli.options import add_directory, add_leaf, positive_int
from node.cli.output import show
from node.datadir import DirectoryLock, StorageDamaged
from node.exits import Exit, Failure
from node.journal import (
    NOWHERE,
    Contents,
    Journal,
    Marks,
    Place,
    describe,
    find_journal,
    journal_path,
    lift_guard,
    read_journal,
    silent_through,
)
from node.keys import KEY_FILE, load_key
from node.store import Store

FORMAT: Final = "ctt-journal-1"
FILE_BYTES_MAX: Final = 64 * 1024
EPOCHS_AHEAD_MIN: Final = (
    2  # a key may have voted in the epoch after that of the database's last block, not beyond
)

EPILOG: Final = """\
`export` gives the marks up to which the key has voted, in the manner of EIP-3076; `import` makes a node cast nothing at
or below them. Stop the old node for good before you export: votes that it casts later are in nobody's marks.

examples:
  ctt journal show --dir /var/lib/ctt
  ctt journal export --dir /var/lib/ctt > marks.json        # on the old machine
  ctt journal import --dir /var/lib/ctt marks.json          # on the new one, after ctt init with the same key
  ctt journal init --dir /var/lib/ctt --i-am-sure           # for a key that has never voted
  ctt journal init --dir /var/lib/ctt --first-epoch 1042    # for one that has, and whose journal is lost
"""

Command = Callable[[argparse.Namespace], int]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "journal",
        help="look at, move or begin the record of a validator's votes",
        description=__doc__,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_command(commands, "show", run_show, "show what the journal says; a node may be running")
    _add_command(commands, "export", run_export, "print the marks, always as JSON, while no node runs")
    bring = _add_command(commands, "import", run_import, "cast nothing at or below exported marks any more")
    bring.add_argument("file", type=Path, metavar="FILE")
    begin = _add_command(commands, "init", run_init, "begin a journal where there is none")
    begin.add_argument("--i-am-sure", action="store_true", help="the key has never voted, on no machine")
    begin.add_argument(
        "--first-epoch",
        type=positive_int,
        metavar="N",
        help="the key may have voted: cast nothing before epoch N, which no node has reached yet",
    )


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Command, text: str
) -> argparse.ArgumentParser:
    parser = add_leaf(commands, name, run, text)
    add_directory(parser)
    return parser


def run_show(options: argparse.Namespace) -> int:
    contents = read_journal(options.dir)
    lines = [f"{name:<16} {text}" for name, text in _describe(options.dir, contents)]
    show(options, lines, _summarise(options.dir, contents))
    return 0


def run_export(options: argparse.Namespace) -> int:
    """The lock shows that nobody votes meanwhile."""
    lock = DirectoryLock.acquire(find_journal(options.dir).parent)
    try:
        contents = read_journal(options.dir)
    finally:
        lock.release()
    exported = {"format": FORMAT, **_name_owner(contents), "marks": _encode_marks(contents)}
    print(json.dumps(exported, indent=2))
    return 0


def run_import(options: argparse.Namespace) -> int:
    exported = read_exported(options.file)
    with _validator(options.dir) as (store, key, head):
        ours = {"genesisHash": hex_of(store.genesis_hash), "consensusKey": hex_of(key)}
        for name, value in ours.items():
            if exported[name] != value:
                raise StorageDamaged(
                    f"{options.file}: {name} is {exported[name]!s:.80}, that of {options.dir} is {value}"
                )
        marks = exported["marks"]
        if journal_path(options.dir).exists():
            final = (head.epoch, head.view, head.height)
            journal = Journal.open(options.dir, store.genesis_hash, key, final)
            try:
                journal.raise_marks(marks)
            finally:
                journal.close()
        else:
            Journal.create(options.dir, store.genesis_hash, key, marks._replace(height=head.height))
    return _tell_start(options)


def run_init(options: argparse.Namespace) -> int:
    if options.i_am_sure == (options.first_epoch is not None):
        raise Failure(
            Exit.USAGE,
            "journal init needs one of: --i-am-sure, if the key has never voted on any machine; "
            "--first-epoch N, if it may have (docs/OPERATIONS.md, The vote journal)",
        )
    with _validator(options.dir) as (store, key, head):
        marks = Marks(floor=Place(head.epoch, head.view))
        if options.first_epoch is not None:
            _check_first_epoch(options.first_epoch, head)
            marks = silent_through(Place(options.first_epoch, 0))
        Journal.create(options.dir, store.genesis_hash, key, marks._replace(height=head.height))
    return _tell_start(options)


def _check_first_epoch(epoch: int, head: Header) -> None:
    least = head.epoch + EPOCHS_AHEAD_MIN
    if epoch < least:
        raise Failure(
            Exit.USAGE,
            f"the database ends in epoch {head.epoch}, so the key may have voted in epoch {least - 1}: "
            f"--first-epoch {least} at least, and 2 above the network's present epoch",
        )


def _tell_start(options: argparse.Namespace) -> int:
    """The operator vouches for the journal, so no restore guard is needed."""
    lift_guard(options.dir)
    (epoch, view), path = read_journal(options.dir).unused_above, journal_path(options.dir)
    text = f"{path}: ready; this key votes from epoch {epoch}, view {view + 1} on"
    show(options, [text], {"path": str(path), "epoch": epoch, "view": view + 1})
    return 0


@contextmanager
def _validator(directory: Path) -> Iterator[tuple[Store, bytes, Header]]:
    """The open database, the public key and the last final block's header, while no node runs. Raises: Failure."""
    key = public_key(load_key(directory / KEY_FILE))
    store = Store.open(directory)
    try:
        yield store, key, Block.decode(store.header_block(store.head.height)).header
    finally:
        store.close()


# --- what is shown ----------------------------------------------------------------------------------------------


def _describe(directory: Path, contents: Contents) -> Iterator[tuple[str, str]]:
    marks, restored = contents.marks, contents.restored()
    yield "journal", f"{journal_path(directory)}, {contents.whole_bytes:,} bytes, {contents.steps:,} steps"
    yield "genesis", hex_of(contents.genesis_hash)
    yield "consensus key", hex_of(contents.public_key)
    yield "floor", f"{_show(marks.floor)}, block {marks.height:,}"
    if contents.silent_through > marks.floor:
        yield "silent through", _show(contents.silent_through)
    yield "last NOTARIZE", _show(marks.notarize)
    yield "last NULLIFY", _show(marks.nullify)
    yield "last FINALIZE", _show(marks.finalize)
    yield (
        "above the floor",
        f"{len(restored.certificates)} certificates, {len(restored.blocks)} blocks, votes:",
    )
    for vote in restored.votes:
        yield "", describe(vote.statement)
    if contents.torn_bytes:
        yield (
            "last step",
            f"{contents.torn_bytes:,} bytes of it: it is being written, or a crash cut it short",
        )
    yield "stopped cleanly", "yes" if contents.is_clean else "no, or a node is running"


def _show(place: Place) -> str:
    return "none" if place == NOWHERE else f"epoch {place.epoch}, view {place.view}"


def _summarise(directory: Path, contents: Contents) -> dict[str, object]:
    restored = contents.restored()
    return {
        "path": str(journal_path(directory)),
        **_name_owner(contents),
        "marks": _encode_marks(contents),
        "finalHeight": contents.marks.height,
        "votes": [
            {
                "kind": vote.statement.kind.name,
                "epoch": vote.statement.epoch,
                "view": vote.statement.view,
                "parentView": vote.statement.parent_view,
                "blockHash": hex_of(vote.statement.block_hash),
            }
            for vote in restored.votes
        ],
        "certificates": len(restored.certificates),
        "blocks": len(restored.blocks),
        "steps": contents.steps,
        "bytes": contents.whole_bytes,
        "tornBytes": contents.torn_bytes,
        "stoppedCleanly": contents.is_clean,
    }


def _name_owner(contents: Contents) -> dict[str, str]:
    return {"genesisHash": hex_of(contents.genesis_hash), "consensusKey": hex_of(contents.public_key)}


# --- exported marks ---------------------------------------------------------------------------------------------

_PLACES: Final = ("floor", "notarize", "nullify", "finalize")


def _encode_marks(contents: Contents) -> dict[str, dict[str, int]]:
    """A silence counts as a floor: on another machine nothing is known of what lies below it."""
    marks = contents.marks._replace(floor=contents.unused_above)
    return {name: getattr(marks, name)._asdict() for name in _PLACES}


def read_exported(path: Path) -> dict[str, Any]:
    """What `export` printed, its marks decoded. Raises: Failure: 65 not such a file, 66 missing, 77 unreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such file") from None
    except OSError as error:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the marks: {error.strerror}") from None
    try:
        if len(content) > FILE_BYTES_MAX:
            raise ValueError(f"larger than {FILE_BYTES_MAX:,} bytes")
        exported = json.loads(content)
        _check_fields(exported, ("format", "genesisHash", "consensusKey", "marks"), "$")
        if exported["format"] != FORMAT:
            raise ValueError(f"$.format is {exported['format']!r:.40}, this release reads {FORMAT!r}")
        return {**exported, "marks": _decode_marks(exported["marks"])}
    except (ValueError, RecursionError) as fault:
        raise StorageDamaged(f"{path}: no exported marks: {fault}") from None


def _decode_marks(value: object) -> Marks:
    marks = _check_fields(value, _PLACES, "$.marks")
    floor, *of_kinds = [_decode_place(marks[name], f"$.marks.{name}") for name in _PLACES]
    return Marks(floor, Height(0), *of_kinds)


def _decode_place(value: object, where: str) -> Place:
    place = _check_fields(value, Place._fields, where)
    for name, number in place.items():
        if type(number) is not int or not 0 <= number <= UINT64_MAX:
            raise ValueError(f"{where}.{name} is no 64-bit number")
    return Place(**place)


def _check_fields(value: object, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """Raises: ValueError."""
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ValueError(f"{where} has not the members {', '.join(names)}")
    return value
