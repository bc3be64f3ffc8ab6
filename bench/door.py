"""How a node's door does under load: `python -m bench.door`.

On a node of its own: simple reads as fast as they are answered; a transaction to its receipt in one request
(eth_sendRawTransactionSync) on an idle chain; batches of transactions of one sender each, at a multiple of what the
node includes; and connections that only harm. The node tells how late its event loop was meanwhile (ctt_nodeStatus).
The load generator runs on the same machine, so what it uses the node does not have. JSON on standard output, progress
on standard error.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from apps.client import Client, RpcError
from bench.local_node import local_node
from bench.throughput import (
    BATCH,
    DRAIN_SECONDS_MAX,
    Blocks,
    bodies_of,
    closed_loop,
    cpu_seconds,
    prepare_meters,
)
from bench.workload import bench_key, percentile, sign_readings
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, hex_of

TIMES_CAPACITY: Final = 5
CONNECTIONS: Final = 64  # of the open loop
HOSTILE: Final = 256
CONTENT_LENGTH: Final = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)
REFUSAL: Final = re.compile(rb'"message":"([^":]*)')
READS: Final = {
    "eth_blockNumber": [],
    "eth_getBalance": ["0x" + "11" * 20, "latest"],
    "eth_call totalSupply": [{"to": "0x000000000000000000000000000000000000c700", "data": "0x18160ddd"}],
}


def request_of(body: bytes) -> bytes:
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


class Reader(asyncio.Protocol):
    """One connection that asks again as soon as it is answered. Every answer fits one segment."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.latencies_ms: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._ask()

    def _ask(self) -> None:
        self._sent_at = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if b'"result"' not in data:
            self.done.set_exception(RuntimeError(f"the node answered {data[-200:]!r}"))
            self._transport.close()
            return
        self.latencies_ms.append((now - self._sent_at) * 1_000)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def read_calls(port: int, body: bytes, connections: int, seconds: float) -> dict[str, Any]:
    """A closed loop over so many connections."""
    loop, start = asyncio.get_running_loop(), time.monotonic()
    readers = [Reader(request_of(body), start + seconds) for _ in range(connections)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + DRAIN_SECONDS_MAX):
        await asyncio.gather(*(reader.done for reader in readers))
    latencies = [each for reader in readers for each in reader.latencies_ms]
    return {
        "per_second": round(len(latencies) / (time.monotonic() - start), 1),
        "latency_ms": _percentiles(latencies),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{int(p * 100)}": round(percentile(values, p), 1) for p in (0.5, 0.99)}


async def to_receipt(client: Client, raws: list[bytes]) -> dict[str, Any]:
    """From sending to the receipt, one after the other, at times that have nothing to do with the blocks'."""
    latencies = []
    for raw in raws:
        await asyncio.sleep(random.uniform(0, 0.333))
        sent_at = time.monotonic()
        receipt = await client.call("eth_sendRawTransactionSync", hex_of(raw), 5_000)
        latencies.append((time.monotonic() - sent_at) * 1_000)
        if receipt["status"] != "0x1":
            raise RuntimeError(f"refused: {receipt['transactionHash']}")
    return {"transactions": len(raws), "latency_ms": _percentiles(latencies)}


def sign_alone(run_name: str, count: int, chain_id: int) -> list[bytes]:
    """Transactions of as many senders: one that is refused keeps no other waiting for its nonce."""
    return [
        sign_transaction(
            bench_key(run_name, "sender", number),
            chain_id=chain_id,
            nonce=0,
            gas_limit=21_000,
            to=Address(b"\x11" * 20),
        )
        for number in range(count)
    ]


class Sender(asyncio.Protocol):
    """One connection that sends a request and gives the answer's body, unread: what the generator costs the node does
    not have."""

    def __init__(self) -> None:
        self._answer = bytearray()
        self._done: asyncio.Future[bytes] | None = None  # while a request is under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    async def post(self, request: bytes) -> bytes:
        """Raises: ConnectionError when the node closes the connection."""
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._done

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        if self._done and length and len(body) >= int(length[1]):
            self._answer = bytearray()
            self._done.set_result(bytes(body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError("the node closed a connection"))


async def overload(
    client: Client, port: int, pid: int, bodies: list[bytes], per_second: float
) -> dict[str, Any]:
    """An open loop of batches: what is included, how soon what is refused is told, and how the blocks come. What finds
    no free connection waits for one."""
    loop, blocks, refused_ms = asyncio.get_running_loop(), Blocks(client), list[float]()
    free: asyncio.Queue[Sender] = asyncio.Queue()
    refusals: Counter[bytes] = Counter()
    for _ in range(CONNECTIONS):
        _, sender = await loop.create_connection(Sender, "127.0.0.1", port)
        free.put_nowait(sender)

    async def post(sender: Sender, request: bytes) -> None:
        sent_at = time.monotonic()
        answer = await sender.post(request)
        free.put_nowait(sender)
        if refused := answer.count(b'"error"'):
            refused_ms.extend([(time.monotonic() - sent_at) * 1_000] * refused)
            refusals.update(REFUSAL.findall(answer))

    requests = [request_of(body) for body in bodies]
    watching = asyncio.create_task(blocks.watch())
    work, start = Work(pid), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, request in enumerate(requests):
            await asyncio.sleep(max(0.0, start + number / per_second - time.monotonic()))
            tasks.create_task(post(await free.get(), request))
    seconds = time.monotonic() - start
    included = sum(blocks.counts)
    cost = work.report(included)
    watching.cancel()
    while not free.empty():
        free.get_nowait().transport.close()
    intervals = await header_intervals_ms(client, len(blocks.counts))
    return {
        "offered_per_second": round(len(bodies) * BATCH / seconds, 1),
        "included_per_second": round(included / seconds, 1),
        "cpu": cost,
        "refused": len(refused_ms),
        "refusals": {text.decode(): count for text, count in refusals.items()},
        "refusal_ms": _percentiles(refused_ms),
        "block_interval_ms": {"mean": round(statistics.fmean(intervals), 1), **_percentiles(intervals)},
    }


async def header_intervals_ms(client: Client, count: int) -> list[float]:
    """Of the newest so many blocks, by their own times: who asks a node under load learns of them late."""
    newest = int(await client.call("eth_blockNumber"), 16)
    heads = [
        await client.call("eth_getBlockByNumber", hex(height), False)
        for height in range(newest - count + 1, newest + 1)
    ]
    times = [int(head["timestampMilliseconds"], 16) for head in heads]
    return [float(b - a) for a, b in pairwise(times)]


async def hostile(port: int, pid: int) -> dict[str, Any]:
    """Connections that send half a request, or ask for much and read nothing."""
    before = resident_mib(pid)
    much = b",".join(b'{"jsonrpc":"2.0","id":%d,"method":"ctt_abi"}' % number for number in range(100))
    halves = [request_of(b"{" + b" " * 900_000)[:-1_000], request_of(b"[" + much + b"]") * 8]
    writers, most = [], before
    for number in range(HOSTILE):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(halves[number % 2])
        writers.append(writer)
    for _ in range(20):
        await asyncio.sleep(0.25)
        most = max(most, resident_mib(pid))
    for writer in writers:
        writer.transport.abort()
    return {
        "connections": HOSTILE,
        "before_mib": before,
        "most_mib": most,
        "more_mib": round(most - before, 1),
    }


@dataclass
class Work:
    """Processor time from here on, of the node and of this process, which share the machine."""

    pid: int
    began: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.began = self._now()

    def report(self, included: int) -> dict[str, float]:
        node_s, own_s = (now - began for now, began in zip(self._now(), self.began, strict=True))
        return {
            "node_us_per_included": round(node_s / included * 1e6, 1),
            "generator_us_per_included": round(own_s / included * 1e6, 1),
        }

    def _now(self) -> tuple[float, float]:
        return cpu_seconds(self.pid), time.process_time()


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def run(options: argparse.Namespace, url: str, pid: int) -> dict[str, Any]:
    port = int(url.rsplit(":", 1)[1])
    result: dict[str, Any] = {"cpu_count": os.cpu_count()}
    connector = aiohttp.TCPConnector(limit=128)
    async with Client(url) as client, aiohttp.ClientSession(connector=connector) as session:
        chain_id = int(await client.call("eth_chainId"), 16)
        for name, params in READS.items():
            for connections in options.connections:
                _say(f"{name} over {connections} connections")
                request = {"jsonrpc": "2.0", "id": 1, "method": name.split()[0], "params": params}
                look = await read_calls(port, json.dumps(request).encode(), connections, options.seconds)
                result[f"{name} over {connections}"] = look
        result["loop_lag_ms while reading"] = await _lag(client)
        _say("preparing meters")
        run_name = f"{os.getpid()}-{time.time_ns()}"
        meters = await prepare_meters(client, chain_id, run_name)
        _say("to the receipt on an idle chain")
        raws = list(sign_readings(meters, options.receipts, chain_id))
        result["to_receipt"] = await to_receipt(client, raws)
        _say("the peak")
        blocks = Blocks(client)
        bodies = bodies_of(sign_alone(run_name, options.transactions, chain_id), BATCH)
        watching = asyncio.create_task(blocks.watch())
        work, start = Work(pid), time.monotonic()
        await closed_loop(session, url, bodies, 8, blocks)
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            while sum(blocks.counts) < options.transactions:
                await asyncio.sleep(0.01)
        watching.cancel()
        peak = sum(blocks.counts) / (time.monotonic() - start)
        result["peak_per_second"] = round(peak, 1)
        result["cpu at the peak"] = work.report(options.transactions)
        _say(f"{TIMES_CAPACITY} times the peak of {peak:.0f} tx/s: signing")
        count = int(TIMES_CAPACITY * peak * options.seconds)
        bodies = bodies_of(sign_alone(run_name + " overload", count, chain_id), BATCH)
        _say("sending")
        look = await overload(client, port, pid, bodies, TIMES_CAPACITY * peak / BATCH)
        result["overload"] = {**look, "goodput": round(look["included_per_second"] / peak, 3)}
        result["loop_lag_ms while sending"] = await _lag(client)
        _say("hostile connections")
        result["hostile"] = await hostile(port, pid)
        await client.call("eth_blockNumber")
    return result


async def _lag(client: Client) -> Any:
    return (await client.call("ctt_nodeStatus"))["loopLagMs"]


def _say(text: str) -> None:
    print(f"bench.door: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.door", description=__doc__)
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"), help="of its node")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each look (default: %(default)s)")
    parser.add_argument("--connections", type=int, nargs="*", default=[16, 250], help="default: 16 250")
    parser.add_argument("--receipts", type=int, default=100, help="one after the other (default: 100)")
    parser.add_argument("--transactions", type=int, default=20_000, help="to find the peak (default: 20,000)")
    options = parser.parse_args()
    try:
        with local_node(options.genesis) as (url, pid):
            result = uvloop.run(run(options, url, pid))
        print(json.dumps(result, indent=2))
    except (RpcError, aiohttp.ClientError, TimeoutError, RuntimeError, OSError) as fault:
        print(f"bench.door: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
