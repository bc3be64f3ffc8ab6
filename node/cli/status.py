"""`ctt status`: how a node is, for a person or a script, from any machine that reaches its JSON-RPC."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.text import Text

from apps.client import Client, RpcError
from apps.status import Status, line, lines, read_status, render
from node.cli.options import add_json, seconds
from node.cli.transact import RPC_URL, bounded, read_token, rpc_url
from node.exits import Exit, Failure

TIMEOUT_SECONDS: Final = 5.0
T = TypeVar("T")
EPILOG: Final = """\
The exit code is 0 of a healthy node, 75 of one that is stalled, syncing, stopping or short of disk space, and 69 when
none answers. With --watch it goes on until Ctrl-C, also while the node is away, and with --json
too it prints a line each time.

examples:
  ctt status
  ctt status --watch
  ctt status --rpc https://node.example:8545 --token-file operator.token --json
  ctt status > /dev/null || echo "look after the node"
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("status", help="how a node is", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="a node's JSON-RPC (default: %(default)s)"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="an API token of the node's, in a file"
    )
    parser.add_argument("--watch", action="store_true", help="again and again: a screen, or lines on a pipe")
    parser.add_argument(
        "--every", type=seconds, default=1.0, metavar="SECONDS", help="with --watch (default: %(default)g)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the node (default: %(default)g)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    token = read_token(options.token_file) if options.token_file else None
    return asyncio.run(_watch(options, token) if options.watch else _tell(options, token))


async def _tell(options: argparse.Namespace, token: str | None) -> int:
    """Raises: Failure (69)."""
    with _answering(options):
        async with Client(options.rpc, token) as client:
            status = await bounded(read_status(client), options)
        if options.json:
            print(json.dumps(status.to_json(), indent=2))
        elif sys.stdout.isatty():
            Console().print(render(status, options.rpc))
        else:
            print(lines(status, options.rpc))
        return 0 if status.trouble is None else Exit.NOT_READY


async def _watch(options: argparse.Namespace, token: str | None) -> NoReturn:
    """A screen on a terminal, else lines."""
    if options.json or not sys.stdout.isatty():
        async for said in _again_and_again(options, token, _json_line if options.json else line):
            print(said if isinstance(said, str) else _failure_line(said, as_json=options.json), flush=True)
    with Live(screen=True, auto_refresh=False) as live:
        async for page in _again_and_again(options, token, partial(render, url=options.rpc)):
            live.update(Text(str(page), "bold red") if isinstance(page, Failure) else page, refresh=True)
    raise AssertionError("unreachable")


async def _again_and_again(
    options: argparse.Namespace, token: str | None, show: Callable[[Status], T]
) -> AsyncIterator[T | Failure]:
    """For ever: what is shown of the node, or why it cannot be."""
    async with Client(options.rpc, token) as client:
        while True:
            shown: T | Failure
            try:
                with _answering(options):
                    shown = show(await bounded(read_status(client), options))
            except Failure as failure:
                shown = failure
            yield shown
            await asyncio.sleep(options.every)


@contextmanager
def _answering(options: argparse.Namespace) -> Iterator[None]:
    """Raises: Failure (69) for what is no node, or one of a release that says something else."""
    try:
        yield
    except RpcError as refusal:
        raise Failure(Exit.UNAVAILABLE, f"the node refuses: {refusal}") from None
    except (aiohttp.ClientError, KeyError, TypeError, ValueError) as fault:
        cause = " ".join(str(fault).split())[:200] or type(fault).__name__
        raise Failure(Exit.UNAVAILABLE, f"{options.rpc} does not answer as a node: {cause}") from None


def _json_line(status: Status) -> str:
    return json.dumps(status.to_json())


def _failure_line(failure: Failure, *, as_json: bool) -> str:
    return json.dumps({"healthy": False, "trouble": str(failure)}) if as_json else str(failure)
