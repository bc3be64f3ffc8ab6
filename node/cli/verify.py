"""`ctt verify`: checks a whole data directory offline: every block, every record, every invariant."""

import argparse

from node.cli.options import add_directory, add_json, add_progress
from node.cli.output import complain, show
from node.cli.progress import bars
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
    add_json(parser)
    add_progress(parser, "blocks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    store = Store.open(options.dir)
    faults: list[str] = []
    count = 0
    try:
        with bars() as progress:
            for count, fault in enumerate(verify(store, progress), 1):
                if count <= FAULTS_SHOWN_MAX:
                    faults.append(str(fault))
                    complain(options, f"{options.dir}: {fault}")
        height, blocks = store.head.height, store.head.height - store.base + 1
    finally:
        store.close()
    if count:
        shown = f", the first {FAULTS_SHOWN_MAX} shown" if count > FAULTS_SHOWN_MAX else ""
        complain(options, f"{options.dir}: faults up to block {height:,}: {count}{shown}")
    extent = f"block {height:,}" if blocks == 1 else f"{blocks:,} blocks"
    lines = [] if count else [f"{options.dir}: ok: {extent}, the state root and every invariant hold"]
    show(options, lines, {"height": height, "blocks": blocks, "faultCount": count, "faults": faults})
    return Exit.DAMAGED if count else 0
