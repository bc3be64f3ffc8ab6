"""`ctt key`: the consensus key with which a validator signs its votes."""

import argparse
import json
from pathlib import Path

from ctt_state.crypto import address_of, public_key
from ctt_state.units import hex_of
from node.keys import create_key, load_key, make_key

EPILOG = """\
Both commands print what the genesis document says of the validator; the key itself is never shown. Two nodes with
one key sign against each other: never copy it to a machine while another runs with it.

examples:
  ctt key new validator.key      makes the file, readable by you only
  ctt key show validator.key
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "key", help="make or show a validator's consensus key", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, text in (
        ("new", run_new, "make a key"),
        ("show", run_show, "show the public part of a key"),
    ):
        command = commands.add_parser(
            name, help=text, description=f"{text}, and print its public part as JSON"
        )
        command.add_argument("file", type=Path, metavar="FILE")
        command.set_defaults(run=run)


def run_new(options: argparse.Namespace) -> int:
    create_key(options.file, make_key())
    return run_show(options)


def run_show(options: argparse.Namespace) -> int:
    key = load_key(options.file)
    print(json.dumps({"address": hex_of(address_of(key)), "consensusKey": hex_of(public_key(key))}, indent=2))
    return 0
