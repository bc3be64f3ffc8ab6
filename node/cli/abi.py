"""`ctt abi`: the ABI of the native modules as JSON, generated from the code; `docs/abi.json` is its output."""

import argparse
import json

from ctt_state.crypto import checksum_address
from ctt_state.modules import MODULES
from node.cli.options import add_json

EPILOG = """\
example:
  ctt abi > abi.json

It is JSON, with --json and without.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "abi",
        help="print the ABI of the native modules",
        description="The native modules' ABI, by name, as JSON.",
        epilog=EPILOG,
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    print(modules_json())
    return 0


def modules_json() -> str:
    """Each module's address and ABI, by its name."""
    modules = {
        module.name: {"address": checksum_address(module.address), "abi": module.abi_json()}
        for module in MODULES.values()
    }
    return json.dumps(modules, indent=1)
