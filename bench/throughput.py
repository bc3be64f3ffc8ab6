"""How many transactions a second a node includes, and how long one takes: `python -m bench.throughput`.

Meters of the benchmark's own, certified and confirmed first, send refills and consumptions half and half, signed
before the clock starts. Three loads: batches of 100 as fast as the node takes them, single requests likewise, and an
open loop at half the peak whose arrivals do not wait for answers. A closed loop keeps a bounded number of transactions
under way, so what is measured is the node and not its refusals. Without --url a node is started for the occasion.
JSON on standard output, progress on standard error.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from apps.client import Client, RpcError, Wallet
from apps.demo.street import TREASURER_KEY
from bench.local_node import local_node
from bench.workload import BenchMeter, bench_key, percentile, sign_readings
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of

METERS: Final = 256
TOKENS_PER_PROSUMER: Final = 4
BATCH: Final = 100
UNDER_WAY_MAX: Final = 6_000  # accepted, not yet included
SETUP_IN_FLIGHT: Final = 128
POLL_SECONDS: Final = 0.004
DRAIN_SECONDS_MAX: Final = 30.0


@dataclass
class Load:
    """What was sent and what became of it; times are of the benchmark's own monotonic clock, in seconds."""

    sent: dict[str, float] = field(default_factory=dict)  # hash -> when it was submitted
    accepted: int = 0
    refused: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    def take(self, answer: dict[str, Any], sent_at: float) -> None:
        if "result" in answer:
            self.accepted += 1
            self.sent[answer["result"]] = sent_at
        else:
            self.refused += 1
            text = answer["error"]["message"].split(":")[0]
            self.refusals[text] = self.refusals.get(text, 0) + 1


class Blocks:
    """Watches the chain: when each transaction became final, and how far apart the blocks came."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.arrivals: list[float] = []
        self.final_at: dict[str, float] = {}
        self.counts: list[int] = []

    async def watch(self) -> None:
        """For ever; cancel it."""
        height = int(await self._client.call("eth_blockNumber"), 16)
        while True:
            newest = int(await self._client.call("eth_blockNumber"), 16)
            seen = time.monotonic()
            for number in range(height + 1, newest + 1):
                block = await self._client.call("eth_getBlockByNumber", hex(number), False)
                self.arrivals.append(seen)
                self.counts.append(len(block["transactions"]))
                self.final_at.update(dict.fromkeys(block["transactions"], seen))
            height = newest
            await asyncio.sleep(POLL_SECONDS)

    def intervals_ms(self) -> list[float]:
        return [(b - a) * 1_000 for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


async def prepare_meters(client: Client, chain_id: int, run: str, count: int = METERS) -> list[BenchMeter]:
    """Certifies, registers and confirms so many meters and buys their prosumers empty tokens."""
    treasurer = Wallet(client, TREASURER_KEY, chain_id)
    owners = [Wallet(client, bench_key(run, "owner", number), chain_id) for number in range(count)]
    meters = [Wallet(client, bench_key(run, "meter", number), chain_id) for number in range(count)]
    (price,) = await client.read(CTT, "emptyTokenPrice()")
    value = price * TOKENS_PER_PROSUMER
    certify = "certifyMeter(address,uint8,uint64,bool)"
    for first in range(0, count, SETUP_IN_FLIGHT):
        share = range(first, min(first + SETUP_IN_FLIGHT, count))
        await settle(
            client, [await treasurer.send(CTT, certify, meters[i].address, 1, 0, False) for i in share]
        )
        await settle(client, [await treasurer.send_raw(owners[i].address, value) for i in share])
        await settle(
            client, [await owners[i].send(CTT, "register(address)", meters[i].address) for i in share]
        )
        await settle(
            client, [await meters[i].send(CTT, "confirm(address)", owners[i].address) for i in share]
        )
        buys = [
            owners[i].send(CTT, "buyEmptyTokens(uint256)", TOKENS_PER_PROSUMER, value=value) for i in share
        ]
        await settle(client, [await buy for buy in buys])
    return [
        BenchMeter(bench_key(run, "meter", number), owner.address, nonce=1)
        for number, owner in enumerate(owners)
    ]


async def settle(client: Client, hashes: list[str]) -> None:
    """Raises: RuntimeError when one of them was refused."""
    for receipt in await asyncio.gather(*(client.receipt(each) for each in hashes)):
        if receipt["status"] != "0x1":
            raise RuntimeError(f"set-up transaction failed: {receipt['transactionHash']}")


async def closed_loop(
    session: aiohttp.ClientSession, url: str, bodies: list[bytes], connections: int, blocks: Blocks
) -> Load:
    """Sends every body, as fast as answers come, with at most UNDER_WAY_MAX transactions under way."""
    load, queue = Load(), iter(bodies)

    async def sender() -> None:
        for body in queue:
            while len(load.sent) - _included(load, blocks) > UNDER_WAY_MAX:
                await asyncio.sleep(POLL_SECONDS)
            await _post(session, url, body, load)

    await asyncio.gather(*(sender() for _ in range(connections)))
    return load


async def open_loop(session: aiohttp.ClientSession, url: str, bodies: list[bytes], per_second: float) -> Load:
    """Sends each body at its time, whether or not the ones before were answered."""
    load, start = Load(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, body in enumerate(bodies):
            delay = start + number / per_second - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.create_task(_post(session, url, body, load))
    return load


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, load: Load) -> None:
    sent_at = time.monotonic()
    async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
        answer = json.loads(await response.read())
    for one in answer if isinstance(answer, list) else [answer]:
        load.take(one, sent_at)


def _included(load: Load, blocks: Blocks) -> int:
    return len(blocks.final_at.keys() & load.sent.keys()) if len(load.sent) > UNDER_WAY_MAX else 0


def bodies_of(raws: list[bytes], batch: int) -> list[bytes]:
    """Requests ready to send: single ones, or batches."""
    requests = [
        {"jsonrpc": "2.0", "id": number, "method": "eth_sendRawTransaction", "params": [hex_of(raw)]}
        for number, raw in enumerate(raws)
    ]
    if batch == 1:
        return [json.dumps(request).encode() for request in requests]
    return [json.dumps(requests[i : i + batch]).encode() for i in range(0, len(requests), batch)]


async def measure(
    client: Client, session: aiohttp.ClientSession, bodies: list[bytes], pid: int | None, **how: Any
) -> dict[str, Any]:
    """One load from its first request to its last transaction's block."""
    blocks = Blocks(client)
    watching = asyncio.create_task(blocks.watch())
    await asyncio.sleep(0.05)
    cpu, start = cpu_seconds(pid), time.monotonic()
    if "per_second" in how:
        load = await open_loop(session, client.url, bodies, how["per_second"])
    else:
        load = await closed_loop(session, client.url, bodies, how["connections"], blocks)
    sent_seconds = time.monotonic() - start
    await _drain(load, blocks, watching)
    watching.cancel()
    cpu_used = cpu_seconds(pid) - cpu
    return report(load, blocks, start, sent_seconds, cpu_used)


async def _drain(load: Load, blocks: Blocks, watching: "asyncio.Task[None]") -> None:
    """Waits for the last accepted transaction's block, within a bound. Raises what ended the watch, if anything did."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while load.sent.keys() - blocks.final_at.keys() and time.monotonic() < deadline and not watching.done():
        await asyncio.sleep(0.02)
    if watching.done():
        await watching


def report(load: Load, blocks: Blocks, start: float, sent_seconds: float, cpu_used: float) -> dict[str, Any]:
    latencies = [
        (blocks.final_at[each] - sent_at) * 1_000
        for each, sent_at in load.sent.items()
        if each in blocks.final_at
    ]
    included = len(latencies)
    last = max((blocks.final_at[each] for each in load.sent if each in blocks.final_at), default=start)
    intervals = blocks.intervals_ms()
    return {
        "accepted": load.accepted,
        "refused": load.refused,
        "refusals": load.refusals,
        "included": included,
        "accepted_per_second": round(load.accepted / sent_seconds, 1),
        "included_per_second": round(included / max(last - start, 1e-9), 1),
        "latency_ms": {f"p{int(p * 100)}": round(percentile(latencies, p), 1) for p in (0.5, 0.95, 0.99)},
        "block_interval_ms": {
            "mean": round(statistics.fmean(intervals), 2) if intervals else 0.0,
            "p99": round(percentile(intervals, 0.99), 1),
            "max": round(max(intervals, default=0.0), 1),
            "blocks": len(intervals),
        },
        "transactions_per_block_max": max(blocks.counts, default=0),
        "node_cpu_us_per_transaction": round(cpu_used / included * 1e6, 1) if included and cpu_used else None,
    }


def cpu_seconds(pid: int | None) -> float:
    """User and system time so far of the process and all that it started; 0 when it is not known."""
    if pid is None:
        return 0.0
    return sum(_ticks(each) for each in process_tree(pid)) / os.sysconf("SC_CLK_TCK")


def process_tree(pid: int) -> list[int]:
    """The process and all below it."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(each for child in children for each in process_tree(child))]


def _ticks(pid: int) -> int:
    """Those of its children that have ended count too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


async def run(options: argparse.Namespace) -> dict[str, Any]:
    connector = aiohttp.TCPConnector(limit=options.connections)
    async with Client(options.url) as client, aiohttp.ClientSession(connector=connector) as session:
        chain_id = int(await client.call("eth_chainId"), 16)
        _say("preparing meters")
        meters = await prepare_meters(client, chain_id, options.run or f"{os.getpid()}-{time.time_ns()}")
        result: dict[str, Any] = {"url": options.url, "meters": METERS, "cpu_count": os.cpu_count()}
        for name, batch in (("batches_of_100", BATCH), ("single_requests", 1)):
            _say(f"{name}: signing {options.transactions}")
            bodies = bodies_of(list(sign_readings(meters, options.transactions, chain_id)), batch)
            _say(f"{name}: sending")
            connections = options.connections if batch == 1 else min(options.connections, 8)
            result[name] = await measure(client, session, bodies, options.pid, connections=connections)
        rates = options.rate or [result["batches_of_100"]["included_per_second"] / 2]
        for rate in rates:
            _say(f"open loop at {rate:.0f} tx/s: signing")
            raws = list(sign_readings(meters, int(rate * options.seconds), chain_id))
            batch = 10
            result[f"open_loop_at_{rate:.0f}"] = await measure(
                client, session, bodies_of(raws, batch), options.pid, per_second=rate / batch
            )
    return result


def _say(text: str) -> None:
    print(f"bench.throughput: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--url", help="of a running node (default: one of its own)")
    parser.add_argument("--pid", type=int, help="the node's process with --url, to count its CPU time")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"), help="of its own node")
    parser.add_argument(
        "--transactions", type=int, default=20_000, help="of each closed loop (default 20,000)"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument(
        "--rate", type=float, action="append", help="of an open loop, tx/s (default: half the peak)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of an open loop")
    parser.add_argument("--run", help="names the meters; two runs with one name share them")
    options = parser.parse_args()
    try:
        with ExitStack() as stack:
            if options.url is None:
                options.url, options.pid = stack.enter_context(local_node(options.genesis))
            result = asyncio.run(run(options))
        print(json.dumps(result, indent=2))
    except (RpcError, aiohttp.ClientError, TimeoutError, RuntimeError) as fault:
        print(f"bench.throughput: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
