"""`ctt genesis check`: explains every fault of a genesis document by its JSON path."""

import argparse
from pathlib import Path

from ctt_state.genesis import load_genesis
from ctt_state.preload import check_generator
from ctt_state.units import hex_of
from node.cli.init import read_genesis

EPILOG = """\
example:
  ctt genesis check genesis.json

The members of the document: docs/GENESIS.md. Exit code 78 when it is refused.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("genesis", help="check a genesis document", epilog=EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="explain every fault by its JSON path", epilog=EPILOG)
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what the document is. Raises: Failure, InvalidGenesis."""
    genesis = load_genesis(read_genesis(options.file))
    check_generator(genesis.preload)
    count = len(genesis.validators)
    kind = "development chain" if genesis.is_development else "chain"
    print(
        f"{options.file}: ok: {kind} {genesis.parameters.chain_id}, "
        f"{count} validator{'s' if count != 1 else ''}, hash {hex_of(genesis.hash)}"
    )
    return 0
