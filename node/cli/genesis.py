"""`ctt genesis check`: explains every fault of a genesis document by its JSON path."""

import argparse
from pathlib import Path

from ctt_state.genesis import load_genesis
from ctt_state.preload import check_generator
from ctt_state.units import hex_of
from node.cli.init import read_genesis
from node.cli.options import add_leaf, add_progress
from node.cli.output import show
from node.cli.progress import progress

EPILOG = """\
example:
  ctt genesis check genesis.json

The members of the document: docs/GENESIS.md. Exit code 78 when it is refused.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "genesis", help="check a genesis document", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = add_leaf(commands, "check", run, "explain every fault by its JSON path")
    check.epilog = EPILOG
    check.add_argument("file", type=Path, metavar="FILE")
    add_progress(check, "reading the document")


def run(options: argparse.Namespace) -> int:
    """Prints what the document is. Raises: Failure, InvalidGenesis."""
    with progress(options):
        genesis = load_genesis(read_genesis(options.file))
        check_generator(genesis.preload)
    count, chain = len(genesis.validators), genesis.parameters.chain_id
    kind = "development chain" if genesis.is_development else "chain"
    text = (
        f"{options.file}: ok: {kind} {chain}, {count} validator{'s' if count != 1 else ''}, "
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
