"""Loads on one peer, over connections that cost the generator little, and what the peer did and used meanwhile.

All raise RuntimeError when a transaction is refused, TimeoutError when one is not included, ConnectionError when the
peer ends; these in an ExceptionGroup.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from apps.client import Client
from bench.door import Sender, request_of
from bench.throughput import DRAIN_SECONDS_MAX, POLL_SECONDS, UNDER_WAY_MAX, Blocks, bodies_of, cpu_seconds
from bench.workload import percentile
from ctt_state.crypto import keccak
from ctt_state.units import hex_of

OPEN_LOOP_BATCH: Final = 10
OPEN_LOOP_CONNECTIONS: Final = 64


async def closed_loop(
    url: str, pid: int, raws: list[bytes], batch: int, connections: int
) -> dict[str, float]:
    """Sends them in batches of this size as fast as answers come, with at most UNDER_WAY_MAX under way."""
    requests = iter([request_of(body) for body in bodies_of(raws, batch)])
    senders, sent = await _connect(url, connections), 0

    async def send(sender: Sender, blocks: Blocks) -> None:
        nonlocal sent
        for request in requests:
            while sent - sum(blocks.counts) > UNDER_WAY_MAX:
                await asyncio.sleep(POLL_SECONDS)
            sent += batch
            await _post(sender, request)
        sender.transport.close()

    async with _watch(url) as blocks:
        cpu, start = cpu_seconds(pid), time.monotonic()
        await asyncio.gather(*(send(sender, blocks) for sender in senders))
        await _drain(blocks, len(raws))
        seconds, cpu_used = time.monotonic() - start, cpu_seconds(pid) - cpu
    return {"included_per_second": round(len(raws) / seconds, 1), "cpu_us": _each_us(cpu_used, raws)}


async def open_loop(url: str, pid: int, raws: list[bytes], per_second: float) -> dict[str, float]:
    """Sends each small batch at its time. A transaction's latency is from then until a client sees its block."""
    requests = [request_of(body) for body in bodies_of(raws, OPEN_LOOP_BATCH)]
    free: asyncio.Queue[Sender] = asyncio.Queue()
    for sender in await _connect(url, OPEN_LOOP_CONNECTIONS):
        free.put_nowait(sender)

    async def post(sender: Sender, request: bytes) -> None:
        await _post(sender, request)
        free.put_nowait(sender)

    async with _watch(url) as blocks, asyncio.TaskGroup() as posts:
        cpu, start = cpu_seconds(pid), time.monotonic()
        due = [start + number * OPEN_LOOP_BATCH / per_second for number in range(len(requests))]
        for at, request in zip(due, requests, strict=True):
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            posts.create_task(post(await free.get(), request))
        await _drain(blocks, len(raws))
        cpu_used = cpu_seconds(pid) - cpu
    while not free.empty():
        free.get_nowait().transport.close()
    latencies = [
        (blocks.final_at[hex_of(keccak(raw))] - due[number // OPEN_LOOP_BATCH]) * 1_000
        for number, raw in enumerate(raws)
    ]
    shares = {f"p{int(share * 100)}_ms": round(percentile(latencies, share), 1) for share in (0.5, 0.99)}
    return {**shares, "cpu_us": _each_us(cpu_used, raws)}


@asynccontextmanager
async def _watch(url: str) -> AsyncIterator[Blocks]:
    async with Client(url) as client, asyncio.TaskGroup() as tasks:
        blocks = Blocks(client)
        watching = tasks.create_task(blocks.watch())
        await asyncio.sleep(0.05)
        yield blocks
        watching.cancel()


async def _drain(blocks: Blocks, transactions: int) -> None:
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while sum(blocks.counts) < transactions:
            await asyncio.sleep(POLL_SECONDS)


async def _connect(url: str, connections: int) -> list[Sender]:
    loop, port = asyncio.get_running_loop(), int(url.rsplit(":", 1)[1])
    pairs = [await loop.create_connection(Sender, "127.0.0.1", port) for _ in range(connections)]
    return [sender for _, sender in pairs]


async def _post(sender: Sender, request: bytes) -> None:
    answer = await sender.post(request)
    if b'"error"' in answer:
        raise RuntimeError(f"the peer refused: {answer[:200]!r}")


def _each_us(cpu_used: float, raws: list[bytes]) -> float:
    return round(cpu_used / len(raws) * 1e6, 1)
