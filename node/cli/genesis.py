"""`ctt genesis`: the document that a network begins with, made of what its members agreed on, and checked."""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

from ctt_state.document import MalformedJson, parse_json
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.preload import check_generator
from ctt_state.units import hex_of
from node.cli.ca import node_name
from node.cli.certificates import write_new
from node.cli.entry import check_entry, encode_entry, read_entry
from node.cli.init import read_genesis
from node.cli.options import add_leaf, add_progress, positive_int
from node.cli.output import show
from node.cli.progress import progress
from node.exits import Exit, Failure
from node.keys import load_key

EPILOG: Final = """\
Each operator makes the two keys of a validator (ctt key new) and the entry with their public parts. One of them joins
the entries with the terms, which are the document without its validators. Then all check the document that came of it:
the hash has to be the same everywhere.

examples:
  ctt genesis validator grid-1.json --name grid-1 --peer 10.0.0.1:30303 \\
      --consensus-key validator.key --account account.key
  ctt genesis make grid.json --terms terms.json grid-1.json grid-2.json grid-3.json grid-4.json
  ctt genesis check grid.json
  ctt genesis populate large.json --document genesis.json --tokens 1000000

The members of the document: docs/GENESIS.md. Exit code 78 when it is refused.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "genesis", help="make and check a genesis document", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = add_leaf(commands, "check", run, "explain every fault by its JSON path")
    check.add_argument("file", type=Path, metavar="FILE")
    add_progress(check, "reading the document")

    entry = add_leaf(commands, "validator", run_validator, "write a validator's entry")
    entry.add_argument("file", type=Path, metavar="FILE", help="made; it may not exist")
    entry.add_argument("--name", type=node_name, required=True, help="of the node, such as grid-1")
    entry.add_argument("--peer", required=True, metavar="HOST:PORT", help="where it listens for peers")
    entry.add_argument(
        "--consensus-key", type=Path, required=True, metavar="FILE", help="the key that signs votes"
    )
    entry.add_argument(
        "--account", type=Path, required=True, metavar="FILE", help="the key of the validator's address"
    )

    make = add_leaf(commands, "make", run_make, "make the document of terms and entries")
    make.add_argument("file", type=Path, metavar="FILE", help="made; it may not exist")
    make.add_argument(
        "--terms", type=Path, required=True, metavar="FILE", help="the document without its validators"
    )
    make.add_argument("entries", type=Path, nargs="+", metavar="ENTRY", help="a validator's, each in a file")
    add_progress(make, "reading the document")
    _add_populate(commands)


def _add_populate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    populate = add_leaf(
        commands, "populate", run_populate, "make a document with generated homes, meters and tokens"
    )
    populate.add_argument("file", type=Path, metavar="FILE", help="made; it may not exist")
    populate.add_argument("--document", type=Path, required=True, metavar="FILE", help="all the rest")
    populate.add_argument("--tokens", type=positive_int, required=True, metavar="N", help="of all homes")
    populate.add_argument(
        "--tokens-per-home", type=positive_int, default=10, metavar="N", help="default: %(default)s"
    )
    populate.add_argument(
        "--seed",
        type=positive_int,
        default=1,
        metavar="N",
        help="another, other homes (default: %(default)s)",
    )
    populate.add_argument("--no-keys", action="store_true", help="homes that no key signs for, made faster")
    add_progress(populate, "reading the document")


def run(options: argparse.Namespace) -> int:
    """Prints what the document is. Raises: Failure, InvalidGenesis."""
    return _show(options, "ok: ", _check(options, read_genesis(options.file)))


def run_validator(options: argparse.Namespace) -> int:
    """Raises: Failure: 73 there is one, 65 the peer is no host and port; as `load_key`."""
    key, account = load_key(options.consensus_key), load_key(options.account)
    text = encode_entry(options.name, options.peer, key, account)
    entry = check_entry(options.file, text)
    _write(options.file, text)
    line = f"{options.file}: {entry.name}, address {hex_of(entry.address)}, peers at {entry.peer}"
    show(options, [line], json.loads(text))
    return 0


def run_make(options: argparse.Namespace) -> int:
    """The time of block 0 is now, unless the terms have one. Raises: Failure, InvalidGenesis; then nothing is made."""
    terms = _read_terms(options.terms)
    entries = [_read_members(path) for path in options.entries]
    document = {"timestampMs": time.time_ns() // 1_000_000} | terms | {"validators": entries}
    text = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    genesis = _check(options, text)
    _write(options.file, text)
    return _show(options, "", genesis)


def run_populate(options: argparse.Namespace) -> int:
    """Another document than the one given, so another chain. Raises: Failure, InvalidGenesis; then nothing is made."""
    text = read_genesis(options.document)
    load_genesis(text)
    document = parse_json(text)
    rule = {"count": options.tokens, "seed": options.seed, "tokensPerProsumer": options.tokens_per_home}
    generate = {"generate": rule | {"signing": not options.no_keys}}
    document["preload"] = document.get("preload", {}) | generate
    text = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    genesis = _check(options, text)
    _write(options.file, text)
    return _show(options, "", genesis)


def _read_terms(path: Path) -> dict[str, Any]:
    """Raises: Failure (78)."""
    try:
        terms = parse_json(read_genesis(path))
    except MalformedJson as fault:
        raise Failure(Exit.CONFIGURATION, f"{path}: {fault}") from None
    if not isinstance(terms, dict) or "validators" in terms:
        raise Failure(Exit.CONFIGURATION, f"{path}: expected a genesis document without its validators")
    return terms


def _read_members(path: Path) -> Any:
    """As they stand there, once they are found good. Raises: as `read_entry`."""
    read_entry(path)
    return parse_json(path.read_bytes())


def _check(options: argparse.Namespace, text: bytes) -> Genesis:
    """Raises: InvalidGenesis."""
    with progress(options):
        genesis = load_genesis(text)
        check_generator(genesis.preload)
    return genesis


def _show(options: argparse.Namespace, verdict: str, genesis: Genesis) -> int:
    count, chain = len(genesis.validators), genesis.parameters.chain_id
    kind = "development chain" if genesis.is_development else "chain"
    text = (
        f"{options.file}: {verdict}{kind} {chain}, {count} validator{'s' if count != 1 else ''}, "
        f"hash {hex_of(genesis.hash)}"
    )
    members = {
        "file": str(options.file),
        "chainId": chain,
        "isDevelopment": genesis.is_development,
        "validators": count,
        "hash": hex_of(genesis.hash),
    }
    show(options, [text], members)
    return 0


def _write(path: Path, text: bytes) -> None:
    """Raises: Failure (73)."""
    try:
        write_new(path, text)
    except FileExistsError:
        raise Failure(Exit.CANNOT_CREATE, f"{path} exists already; it is never overwritten") from None
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{path}: cannot create it: {fault.strerror}") from None
