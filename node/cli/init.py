"""`ctt init`: makes a node's data directory from a genesis document, at block 0 or, with peers, near the chain's end.
Only it and `ctt restore` create databases."""

import argparse
import logging
import os
import time
from pathlib import Path
from typing import Any

from ctt_state.crypto import public_key
from ctt_state.document import DOCUMENT_BYTES_MAX
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import Genesis, development_key, load_genesis
from ctt_state.units import hex_of
from node.cli.bootstrap import Bootstrap, Task, TrustedBlock
from node.cli.network import load_node_identity
from node.cli.options import add_directory, add_json, add_progress, block_of_height, named_peer
from node.cli.output import say, show
from node.cli.progress import bars, shown_progress
from node.exits import Exit, Failure
from node.journal import JOURNAL_FILE, NO_MARKS, VOTES, Journal, Marks, Place
from node.keys import KEY_FILE, create_key, load_key
from node.ledger import create_ledger
from node.store import check_absent
from p2p.network import Endpoint

EPILOG = """\
The key is that of --key, or one that is in DIR already. For a development document without either it is the key of
the document's first development validator, which everyone knows. A follower has none: it checks everything, answers
clients, and never votes.

With --from-peer the node begins with a recent block and the state after it, which a peer gives and the validators'
signatures prove, instead of executing everything since block 0. Its certificate has to be in DIR/tls (ctt ca issue).
Peers are asked in their order until one has given all.

A first state of many generated tokens (docs/GENESIS.md) is made by all processors; when it is interrupted, the same
command goes on where it was.

examples:
  ctt init --dir data/node                                          # from ./genesis.json, for development
  ctt init --dir /var/lib/ctt --genesis grid.json --key validator.key
  ctt init --dir /var/lib/ctt --genesis grid.json --follower
  ctt init --dir /var/lib/ctt --genesis grid.json --follower --from-peer grid-1=10.0.0.1:30303
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
    parser.add_argument(
        "--from-peer",
        type=named_peer,
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="begin with a recent state, from this peer; may be repeated",
    )
    parser.add_argument(
        "--checkpoint",
        type=block_of_height,
        metavar="HEIGHT:HASH",
        help="with --from-peer: the last block of an epoch that is known to be final; proofs begin there",
    )
    add_json(parser)
    add_progress(parser, "making the first state")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    document = read_genesis(options.genesis)
    key = _choose_key(options, load_genesis(document))
    begun = None
    if options.from_peer:
        begun = _join(options, document, key)
    elif options.checkpoint is not None:
        raise Failure(
            Exit.USAGE, "--checkpoint says where proofs begin that --from-peer brings: it needs one"
        )
    else:
        initialise(options.dir, document, key)
    directory = options.dir
    is_ready = key is None or (directory / VOTES / JOURNAL_FILE).exists()
    text = (
        f"{directory}: ready; start it with: ctt run --dir {directory}"
        if is_ready
        else f"{directory}: the key was here before, its vote journal is not: if it never voted, "
        f"'ctt journal init --dir {directory} --i-am-sure'; else see docs/OPERATIONS.md"
    )
    members = {
        "directory": str(directory),
        "consensusKey": None if key is None else hex_of(public_key(key)),
        "isReady": is_ready,
        "from": begun,
    }
    show(options, [text], members)
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
    _check_time_and_key(directory, genesis, key)
    with shown_progress() as report:
        create_ledger(directory, document, report)
    _place_key(directory, genesis, key, NO_MARKS)


def _join(options: argparse.Namespace, document: bytes, key: bytes | None) -> dict[str, Any]:
    """The same with a recent state, from peers: a key that has no journal here votes above the state's block only.
    Tells where it begins."""
    directory, genesis = options.dir, load_genesis(document)
    _check_time_and_key(directory, genesis, key)
    check_absent(directory, genesis.hash)  # before anyone is asked
    identity = load_node_identity(directory, genesis, None if key is None else public_key(key))
    peers = [(name, Endpoint(host, number)) for name, host, number in options.from_peer]
    if identity.own.name in dict(peers):
        raise Failure(
            Exit.USAGE, f"--from-peer {identity.own.name}: this is the name in the certificate here"
        )
    trusted = None if options.checkpoint is None else TrustedBlock(*options.checkpoint)
    logging.getLogger("p2p").addHandler(logging.NullHandler())  # what matters of it is in the failures
    with bars() as shown:
        begun = Bootstrap(Task(directory, document, genesis, identity, trusted), shown).run(peers)
    header, view = begun.header, begun.certificate.statement.view
    marks = Marks(floor=Place(header.epoch, view), height=header.height)
    _place_key(directory, genesis, key, marks)
    for failure in begun.failures:
        say(options, str(failure))
    say(
        options,
        f"{directory}: begins with block {header.height:,} {hex_of(header.hash)} of epoch {header.epoch:,}, "
        f"{begun.records:,} records from {begun.peer}",
    )
    return {
        "peer": begun.peer,
        "height": header.height,
        "blockHash": hex_of(header.hash),
        "epoch": header.epoch,
        "records": begun.records,
    }


def _check_time_and_key(directory: Path, genesis: Genesis, key: bytes | None) -> None:
    """Raises: InvalidGenesis for a chain that begins in the future; Failure (73) where another key is."""
    if genesis.time_ms > time.time_ns() // 1_000_000:
        raise InvalidGenesis(
            [("$.timestampMs", f"{genesis.time_ms} is in the future by this machine's clock")]
        )
    path = directory / KEY_FILE
    if os.path.lexists(path) and (key is None or load_key(path) != key):
        raise Failure(Exit.CANNOT_CREATE, f"{path} holds another key already; a key is never overwritten")


def _place_key(directory: Path, genesis: Genesis, key: bytes | None, marks: Marks) -> None:
    """A key that is there already may have voted: it keeps the journal that it has, and gets none."""
    path = directory / KEY_FILE
    if key is not None and not os.path.lexists(path):
        create_key(path, key)
        Journal.create(directory, genesis.hash, public_key(key), marks)


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
