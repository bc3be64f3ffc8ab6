"""`ctt init`: makes a node's data directory from a genesis document. The only command that creates a database."""

import argparse
import os
import time
from pathlib import Path

from ctt_state.crypto import public_key
from ctt_state.document import DOCUMENT_BYTES_MAX
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import Genesis, development_key, load_genesis
from node.cli.options import add_directory
from node.exits import Exit, Failure
from node.journal import JOURNAL_FILE, VOTES, Journal
from node.keys import KEY_FILE, create_key, load_key
from node.ledger import create_ledger

EPILOG = """\
The key is that of --key, or one that is in DIR already. For a development document without either it is the key of
the document's first development validator, which everyone knows. A follower has none: it checks everything, answers
clients, and never votes.

examples:
  ctt init --dir data/node                                          from ./genesis.json, for development
  ctt init --dir /var/lib/ctt --genesis grid.json --key validator.key
  ctt init --dir /var/lib/ctt --genesis grid.json --follower
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "init", help="make a data directory from a genesis document", description=__doc__, epilog=EPILOG
    )
    add_directory(parser)
    parser.add_argument(
        "--genesis",
        type=Path,
        default=Path("genesis.json"),
        metavar="FILE",
        help="the network's genesis document (default: %(default)s)",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the validator's consensus key, copied in (ctt key new FILE)"
    )
    parser.add_argument("--follower", action="store_true", help="a node that never votes, without a key")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    document = read_genesis(options.genesis)
    key = _choose_key(options, load_genesis(document))
    initialise(options.dir, document, key)
    if key is None or (options.dir / VOTES / JOURNAL_FILE).exists():
        print(f"{options.dir}: ready; start it with: ctt run --dir {options.dir}")
    else:
        print(
            f"{options.dir}: the key was here before, its vote journal is not: if it never voted, "
            f"'ctt journal init --dir {options.dir} --i-am-sure'; else see docs/OPERATIONS.md"
        )
    return 0


def read_genesis(path: Path) -> bytes:
    """Its bytes, of a file that is too large no more than shows that it is.

    Raises: Failure: 66 missing, 77 unreadable, 78 a directory.
    """
    try:
        with path.open("rb") as file:
            return file.read(DOCUMENT_BYTES_MAX + 1)
    except IsADirectoryError:
        raise Failure(Exit.CONFIGURATION, f"{path}: the genesis file is a directory") from None
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such genesis file") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the genesis file: {fault.strerror}") from None


def initialise(directory: Path, document: bytes, key: bytes | None) -> None:
    """The database, then the key and its vote journal. A key that is there already may have voted: it keeps the
    journal that it has, and gets none ('ctt journal init' makes one for who is sure).

    Raises: Failure, InvalidGenesis; nothing is made when a check fails.
    """
    genesis = load_genesis(document)
    if genesis.time_ms > time.time_ns() // 1_000_000:
        raise InvalidGenesis(
            [("$.timestampMs", f"{genesis.time_ms} is in the future by this machine's clock")]
        )
    path = directory / KEY_FILE
    has_key = os.path.lexists(path)
    if has_key and (key is None or load_key(path) != key):
        raise Failure(Exit.CANNOT_CREATE, f"{path} holds another key already; a key is never overwritten")
    create_ledger(directory, document)
    if key is not None and not has_key:
        create_key(path, key)
        Journal.create(directory, genesis.hash, public_key(key))


def _choose_key(options: argparse.Namespace, genesis: Genesis) -> bytes | None:
    """None for a follower. Raises: Failure (64) when there is none to choose."""
    if options.follower:
        if options.key is not None:
            raise Failure(Exit.USAGE, "a --follower has no --key")
        return None
    if options.key is not None:
        return load_key(options.key)
    if os.path.lexists(options.dir / KEY_FILE):
        return load_key(options.dir / KEY_FILE)
    known = {validator.consensus_key for validator in genesis.validators} if genesis.is_development else set()
    for key in map(development_key, range(len(known))):
        if public_key(key) in known:
            return key
    raise Failure(
        Exit.USAGE,
        "init needs --key FILE, the validator's consensus key ('ctt key new FILE' makes one), or --follower",
    )
