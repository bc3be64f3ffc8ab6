"""`ctt index`: the chain's history in a database that can be asked: SQLite in a file, or PostgreSQL.

Follows the final blocks of any node by JSON-RPC, and goes on where it stopped (docs/INDEXER.md). Ends on a signal.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apps.client import RpcError
from apps.indexer import follow
from apps.indexer.database import DatabaseAway, Refused, UnknownDatabase
from apps.indexer.feed import NodeAway
from apps.indexer.rows import OtherChain
from ctt_state.genesis import load_genesis
from node.cli.init import read_genesis
from node.cli.options import add_progress, seconds
from node.cli.process import until_signal
from node.cli.progress import progress
from node.cli.transact import RPC_URL, read_token, rpc_url
from node.exits import Exit, Failure

DATABASE: Final = "sqlite:///data/index.db"
PATIENCE_SECONDS: Final = 300.0
EPILOG: Final = """\
examples:
  ctt index --database sqlite:///data/index.db
  ctt index --rpc http://node.example:8545 --token-file index.token --genesis genesis.json \\
      --database postgresql://indexer@db.example/energy --time-zone Europe/Berlin

PostgreSQL's password comes from ~/.pgpass or PGPASSWORD, like that of any of its clients.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "index", help="keep the chain's history in SQL", description=__doc__, epilog=EPILOG
    )
    parser.add_argument(
        "--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="a node's JSON-RPC (default: %(default)s)"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="an API token of the node's, in a file"
    )
    parser.add_argument(
        "--database",
        default=DATABASE,
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME (default: %(default)s)",
    )
    parser.add_argument(
        "--genesis",
        type=Path,
        default=Path("genesis.json"),
        metavar="FILE",
        help="the chain's genesis document (default: %(default)s)",
    )
    parser.add_argument(
        "--time-zone",
        type=time_zone,
        default="UTC",
        metavar="NAME",
        help="whose midnight begins a day, such as Europe/Berlin (default: %(default)s)",
    )
    parser.add_argument("--rebuild", action="store_true", help="begin anew; what the tables have is lost")
    parser.add_argument("--once", action="store_true", help="end at the node's head, rather than follow it")
    parser.add_argument(
        "--patience",
        type=seconds,
        default=PATIENCE_SECONDS,
        metavar="SECONDS",
        help="for a node or a database that is away (default: %(default)g)",
    )
    add_progress(parser, "blocks")
    parser.set_defaults(run=run)


def time_zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is no time zone such as Europe/Berlin") from None


def run(options: argparse.Namespace) -> int:
    """Raises: Failure: 64 no such kind of database, 66 no genesis document or token, 69 node or database away, 78
    another chain or schema."""
    token = read_token(options.token_file) if options.token_file else None
    genesis = load_genesis(read_genesis(options.genesis))
    try:
        with progress(options) as tell:
            # Where there is a bar, what is logged goes above it.
            logging.basicConfig(
                level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
            )
            settings = follow.Settings(
                options.rpc,
                token,
                options.database,
                genesis,
                options.time_zone,
                options.patience,
                options.once,
                tell,
            )
            asyncio.run(until_signal(follow.run(settings, rebuild=options.rebuild)))
    except UnknownDatabase as fault:
        raise Failure(Exit.USAGE, f"--database: {fault}") from None
    except (Refused, OtherChain) as fault:
        raise Failure(Exit.CONFIGURATION, str(fault)) from None
    except (NodeAway, DatabaseAway) as fault:
        raise Failure(Exit.UNAVAILABLE, f"{fault}; gave up after {options.patience:g} s") from None
    except RpcError as fault:
        raise Failure(Exit.UNAVAILABLE, f"the node refuses: {fault}") from None
    return 0
