"""How fast a node catches up from the genesis block: `python -m bench.sync`.

A network of two validators takes transactions as fast as it includes them; then a follower starts at block 0, and
checks and executes everything again: certificates, signatures, rules, roots. They go on beside it, on the
same machine. JSON on standard output, progress on standard error.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from apps.client import Client, RpcError
from bench.local_node import STOP_SECONDS_MAX, free_port, wait_ready
from bench.network import local_network
from bench.throughput import (
    BATCH,
    DRAIN_SECONDS_MAX,
    Blocks,
    bodies_of,
    closed_loop,
    cpu_seconds,
    prepare_meters,
)
from bench.workload import sign_readings

CTT: Final = (sys.executable, "-m", "node.cli.main")
VALIDATORS: Final = 2  # one alone has no peers
SYNC_SECONDS_MAX: Final = 600.0
POLL_SECONDS: Final = 0.02


async def fill(url: str, transactions: int) -> int:
    """So many transactions in blocks; gives the height of the last. Raises: RuntimeError, TimeoutError."""
    async with Client(url) as client, aiohttp.ClientSession() as session:
        chain_id = int(await client.call("eth_chainId"), 16)
        meters = await prepare_meters(client, chain_id, f"{os.getpid()}-{time.time_ns()}")
        bodies = bodies_of(list(sign_readings(meters, transactions, chain_id)), BATCH)
        blocks = Blocks(client)
        watching = asyncio.create_task(blocks.watch())
        await asyncio.sleep(0.05)
        load = await closed_loop(session, url, bodies, 8, blocks)
        if load.refused:
            raise RuntimeError(f"the node refused {load.refusals}")
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            while load.sent.keys() - blocks.final_at.keys():
                await asyncio.sleep(POLL_SECONDS)
        watching.cancel()
        return int(await client.call("eth_blockNumber"), 16)


async def catch_up(url: str, height: int) -> tuple[int, float]:
    """The height that the follower answers with first, and the seconds from then until it is at this one.

    Raises: TimeoutError.
    """
    async with Client(url) as client, asyncio.timeout(SYNC_SECONDS_MAX):
        start = time.monotonic()
        first = at = int(await client.call("eth_blockNumber"), 16)
        while at < height:
            await asyncio.sleep(POLL_SECONDS)
            with suppress(RpcError):
                at = int(await client.call("eth_blockNumber"), 16)
        return first, time.monotonic() - start


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises: RuntimeError and what the client raises."""
    with (
        tempfile.TemporaryDirectory(prefix="ctt-bench-") as parent,
        local_network(VALIDATORS, options.rpc_port, options.p2p_port, Path(parent) / "net") as urls,
    ):
        network, home = Path(parent) / "net", Path(parent) / "follower"
        _say(f"{options.transactions:,} transactions")
        height = uvloop.run(fill(urls[0], options.transactions))
        genesis = network / "validator-1.genesis.json"
        for words in (
            ("init", "--dir", home, "--genesis", genesis, "--follower"),
            ("ca", "issue", "--dir", network / "ca", "--out", home / "tls", "--name", "follower"),
        ):
            subprocess.run([*CTT, *map(str, words)], check=True, stdout=sys.stderr)
        _say(f"{height:,} blocks")
        port = free_port()
        start = time.monotonic()
        follower = subprocess.Popen([*CTT, "run", "--dir", str(home), "--rpc-port", str(port)])
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, follower)
            first, seconds = uvloop.run(catch_up(url, height))
            cpu = cpu_seconds(follower.pid)
            from_start = time.monotonic() - start
        finally:
            follower.terminate()
            follower.wait(STOP_SECONDS_MAX)
    return {
        "transactions": options.transactions,
        "blocks": height,
        "first_seen_at": first,
        "seconds": round(seconds, 2),
        "seconds_from_start": round(from_start, 2),
        "transactions_per_second": round(options.transactions / from_start, 1),
        "follower_cpu_us_per_transaction": round(cpu / options.transactions * 1e6, 1),
        "cpu_count": os.cpu_count(),
    }


def _say(text: str) -> None:
    print(f"bench.sync: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sync", description=__doc__)
    parser.add_argument("--transactions", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--rpc-port", type=int, default=28_745)
    parser.add_argument("--p2p-port", type=int, default=28_845)
    options = parser.parse_args()
    try:
        print(json.dumps(run(options), indent=2))
    except (
        RpcError,
        aiohttp.ClientError,
        TimeoutError,
        RuntimeError,
        OSError,
        subprocess.SubprocessError,
    ) as fault:
        print(f"bench.sync: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
