"""`ctt run`: runs the node of a data directory until it is told to stop."""

import argparse
import asyncio
import logging
import signal
import sys
from dataclasses import replace
from typing import Final

import uvloop

from ctt_state.crypto import public_key
from ctt_state.genesis import Genesis
from ctt_state.units import hex_of
from node.cli.options import add_directory, port, positive_int
from node.exits import Exit, Failure
from node.keys import KEY_FILE, load_key
from node.ledger import Ledger
from node.mempool import MempoolLimits
from node.node import Node
from rpc.server import ServerConfig, ServerLimits, serve

POOL: Final = MempoolLimits()
DOOR: Final = ServerLimits()

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("run", help="run the node of a data directory")
    add_directory(parser)
    parser.add_argument("--rpc-host", default="127.0.0.1", metavar="HOST", help="where JSON-RPC listens")
    parser.add_argument("--rpc-port", type=port, default=8545, metavar="PORT")
    parser.add_argument(
        "--rpc-connections-per-address",
        type=positive_int,
        default=DOOR.connections_per_address_max,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--account-slots",
        type=positive_int,
        default=POOL.ordinary_places,
        metavar="N",
        help="transactions of one ordinary sender in the pool (default: %(default)s)",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    key = load_key(options.dir / KEY_FILE)
    ledger = Ledger.open(options.dir)
    try:
        signer = find_signer(ledger.genesis, key)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options, ledger, key, signer))
    finally:
        ledger.close()
    return 0


def find_signer(genesis: Genesis, key: bytes) -> int:
    """The place of this consensus key in the validator set. Raises: Failure."""
    ours = public_key(key)
    for place, validator in enumerate(genesis.validators):
        if validator.consensus_key == ours:
            return place
    raise Failure(
        Exit.CONFIGURATION,
        f"key {hex_of(ours)} is none of the genesis document's validators, and this release runs validators only",
    )


async def _run(options: argparse.Namespace, ledger: Ledger, key: bytes, signer: int) -> None:
    slots = options.account_slots
    limits = replace(POOL, ordinary_places=slots, meter_places=max(slots, POOL.meter_places))
    node = Node(ledger, consensus_key=key, signer=signer, limits=limits)
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, node.stop)
    config = ServerConfig(
        host=options.rpc_host,
        port=options.rpc_port,
        limits=replace(DOOR, connections_per_address_max=options.rpc_connections_per_address),
    )
    try:
        async with serve(node, config) as server:
            log.info(
                "chain %d at block %d, JSON-RPC at %s",
                ledger.chain.chain_id,
                node.head.block.header.height,
                server.url,
            )
            await node.run()
    except OSError as fault:
        raise Failure(
            Exit.UNAVAILABLE, f"cannot listen on {options.rpc_host}:{options.rpc_port}: {fault.strerror}"
        ) from None
    log.info("stopped at block %d", node.head.block.header.height)
