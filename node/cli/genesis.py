"""`ctt genesis check`: explains every fault of a genesis document by its JSON path."""

import argparse
import sys
from pathlib import Path

from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import load_genesis
from ctt_state.units import hex_of
from node.cli.init import read_genesis
from node.exits import Exit


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("genesis", help="check a genesis document")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="explain every fault by its JSON path")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        genesis = load_genesis(read_genesis(options.file))
    except InvalidGenesis as invalid:
        for path, text in invalid.faults:
            print(f"{options.file}: {path}: {text}", file=sys.stderr)
        return Exit.CONFIGURATION
    count = len(genesis.validators)
    print(
        f"{options.file}: ok: chain {genesis.parameters.chain_id}, {count} validator{'s' if count != 1 else ''}, "
        f"hash {hex_of(genesis.hash)}"
    )
    return 0
