"""`ctt advisor`: answers `ctt_advise` for nodes that run with --advisor, by JSON-RPC on a port of the loopback.

The advice is that of `ctt advise`: off consensus, never signed (docs/ADVISOR.md). Ends on a signal.
"""

import argparse
import asyncio
import logging
import os
import sys
from typing import Final

from apps.client import Client
from node.cli.advise import add_sources, check_libraries, token_of
from node.cli.options import port
from node.cli.process import until_signal
from node.exits import Exit, Failure

PORT: Final = 8650
EPILOG: Final = """\
examples:
  ctt advisor --database sqlite:///data/index.db
  ctt run --dir data/node --advisor http://127.0.0.1:8650    # in another terminal
"""

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "advisor", help="answer ctt_advise for a node", description=__doc__, epilog=EPILOG
    )
    add_sources(parser)
    parser.add_argument(
        "--port", type=port, default=PORT, metavar="PORT", help="where it listens (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Raises: Failure: 66 a library or the token is missing, 69, 77 the port cannot be had."""
    check_libraries()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    asyncio.run(until_signal(_serve(options)))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    from apps.advisor.answer import answer
    from apps.advisor.service import served

    async with Client(options.rpc, token_of(options)) as client:
        try:
            async with served(lambda home: answer(client, home, options.database), options.port) as url:
                log.info("advice at %(url)s, for nodes that run with --advisor", {"url": url})
                await asyncio.Event().wait()
        except OSError as fault:
            code = Exit.PERMISSION if isinstance(fault, PermissionError) else Exit.UNAVAILABLE
            cause = os.strerror(fault.errno or 0)
            raise Failure(code, f"cannot listen on 127.0.0.1:{options.port}: {cause}") from None
