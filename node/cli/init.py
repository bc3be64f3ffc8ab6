"""`ctt init`: makes a node's data directory from a genesis document. The only command that creates a database."""

import argparse
from pathlib import Path

from ctt_state.errors import InvalidGenesis
from node.cli.options import add_directory
from node.exits import Exit, Failure
from node.keys import KEY_FILE, create_key, load_key
from node.ledger import create_ledger


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("init", help="make a data directory from a genesis document")
    add_directory(parser)
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"), metavar="FILE")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the validator's consensus key to copy in (default: a new key)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    document = read_genesis(options.genesis)
    initialise(options.dir, document, load_key(options.key) if options.key else None)
    print(f"{options.dir}: ready; start it with: ctt run --dir {options.dir}")
    return 0


def read_genesis(path: Path) -> bytes:
    """Raises: Failure: 66 missing, 77 unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such genesis file") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the genesis file: {fault.strerror}") from None


def initialise(directory: Path, document: bytes, key: bytes | None) -> None:
    """The database, then the key. Raises: Failure."""
    try:
        create_ledger(directory, document)
    except InvalidGenesis as invalid:
        lines = "\n".join(f"  {path}: {text}" for path, text in invalid.faults)
        raise Failure(Exit.CONFIGURATION, f"the genesis document is refused:\n{lines}") from None
    create_key(directory / KEY_FILE, key)
