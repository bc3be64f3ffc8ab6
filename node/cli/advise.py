"""`ctt advise`: what a home may do in the auction that takes orders now: buy, sell, make room, or nothing.

Off consensus: it reads a node, and an indexer's database where one is named, and never signs. What it expects comes
from the home's own past, and promises nothing (docs/ADVISOR.md).
"""

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from apps.client import Client, RpcError
from apps.kpi.history import NoHistory
from node.cli.options import add_json, add_progress, address, seconds
from node.cli.output import show
from node.cli.progress import progress
from node.cli.transact import RPC_URL, bounded, read_token, rpc_url
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt advise 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ctt advise 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --database sqlite:///data/index.db --json
"""
TIMEOUT_SECONDS: Final = 300.0  # a month of blocks is long to look through


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "advise", help="what a home may buy or sell now", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("home", type=address, metavar="HOME")
    add_sources(parser)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the node (default: %(default)g)",
    )
    add_json(parser)
    add_progress(parser, "looking through the past")
    parser.set_defaults(run=run)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Where the past comes from."""
    parser.add_argument(
        "--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="a node's JSON-RPC (default: %(default)s)"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="an API token of the node's, in a file"
    )
    parser.add_argument(
        "--database", metavar="URL", help="that `ctt index` keeps: the past from there, and much sooner"
    )


def token_of(options: argparse.Namespace) -> str | None:
    """Raises: Failure (66)."""
    return read_token(options.token_file) if options.token_file else None


def check_libraries() -> None:
    """Raises: Failure (66)."""
    try:
        import apps.advisor.policy  # noqa: F401
    except ImportError:
        raise Failure(
            Exit.MISSING, "advice needs scikit-learn and scipy: pip install 'crypto-trading-node[advisor]'"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Raises: Failure: 66 a library or the token is missing, 69 the node, the database or the home is not there."""
    check_libraries()
    with progress(options):
        said = asyncio.run(_advise(options))
    show(options, describe(said), said)
    return 0


async def _advise(options: argparse.Namespace) -> dict[str, Any]:
    from apps.advisor.answer import answer
    from apps.advisor.sources import NoAdvice

    try:
        async with Client(options.rpc, token_of(options)) as client:
            return await bounded(answer(client, options.home, options.database), options)
    except NoAdvice as fault:
        raise Failure(Exit.UNAVAILABLE, str(fault)) from None
    except NoHistory as fault:
        raise Failure(Exit.UNAVAILABLE, f"no history in the database: {fault}") from None
    except RpcError as refusal:
        raise Failure(Exit.UNAVAILABLE, f"the node refuses: {refusal}") from None
    except (aiohttp.ClientError, json.JSONDecodeError) as fault:
        cause = " ".join(str(fault).split())[:200] or type(fault).__name__
        raise Failure(Exit.UNAVAILABLE, f"{options.rpc} does not answer as a node: {cause}") from None


def describe(said: dict[str, Any]) -> Iterator[str]:
    """The card."""
    yield (f"{said['action']}  {said['home']}, from data until block {said['height']:,}")
    if said["action"] != "HOLD":
        limit = said["limitPerKwh"]
        price = f"limit {limit:.4f} a kWh" if limit is not None else f"{said['pricePerToken']:.4f} a token"
        yield (f"  {said['energyWh'] / 1_000:,.3f} kWh, {price}")
        yield (
            f"  expected gain {said['gain']:.4f}, {said['gainP10']:.4f} to {said['gainP90']:.4f} (P10 to P90)"
        )
    for reason in said["reasons"]:
        yield f"  - {reason}"
    yield f"  {said['record']['text']}"
