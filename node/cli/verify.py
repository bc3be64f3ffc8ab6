"""`ctt verify`: checks a whole data directory offline: every block, every record, every invariant."""

import argparse
import sys

from rich.console import Console
from rich.progress import Progress

from node.cli.options import add_directory
from node.exits import Exit
from node.store import Store
from node.verify import verify

FAULTS_SHOWN_MAX = 100


EPILOG = """\
It re-hashes every block, checks every certificate, builds the state tree anew and recomputes every invariant. It
takes the directory's lock: stop the node first, or verify a copy made while it was stopped.

example:
  ctt verify --dir data/node

Exit code 0 when all is well, 65 when anything is wrong.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a whole data directory, while no node runs on it",
        description=__doc__,
        epilog=EPILOG,
    )
    add_directory(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    store = Store.open(options.dir)
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            faults = 0
            for fault in verify(store, progress):
                faults += 1
                if faults <= FAULTS_SHOWN_MAX:
                    print(f"{options.dir}: {fault}", file=sys.stderr)
        height, count = store.head.height, store.head.height - store.base + 1
    finally:
        store.close()
    if faults:
        shown = f", the first {FAULTS_SHOWN_MAX} shown" if faults > FAULTS_SHOWN_MAX else ""
        print(f"{options.dir}: faults up to block {height:,}: {faults}{shown}", file=sys.stderr)
        return Exit.DAMAGED
    blocks = f"block {height:,}" if count == 1 else f"{count:,} blocks"
    print(f"{options.dir}: ok: {blocks}, the state root and every invariant hold")
    return 0
