"""How a network of validators on this machine does: `python -m bench.network`.

Starts `ctt devnet`, then looks at it idle, under an open loop of readings, with one validator stopped, after its
return, and after a kill -9. A block's finality is the time from its slot, when its leader begins to build it, until a
client that listens to newHeads hears of it: execution on every validator, two rounds of votes, three journals and the
commit are in it. What the node itself measures, from proposals to certificates, is of the last minute: 60 seconds a
look keep the looks apart. JSON on standard output, progress on standard error.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from apps.client import Client
from bench.throughput import BATCH, bodies_of, open_loop, prepare_meters
from bench.workload import percentile, sign_readings

SLOTS: Final = "4096"
STOP_SECONDS_MAX: Final = 15.0
SETTLE_SECONDS: Final = 10.0  # after which a stopped validator shall cost nothing any more
RETURN_SECONDS_MAX: Final = 60.0


@dataclass
class Heads:
    """What a listener at one node heard: when, and how long after the slot."""

    arrivals: list[float] = field(default_factory=list)  # on the monotonic clock, s
    heights: list[int] = field(default_factory=list)
    finality_ms: list[float] = field(default_factory=list)
    proposers: list[str] = field(default_factory=list)

    async def listen(self, url: str) -> None:
        """For ever; cancel it."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url.replace("http", "ws")) as socket,
        ):
            await socket.send_json(
                {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
            )
            async for message in socket:
                content = json.loads(message.data)
                if "params" not in content:
                    continue
                head = content["params"]["result"]
                self.arrivals.append(time.monotonic())
                self.heights.append(int(head["number"], 16))
                self.finality_ms.append(time.time() * 1_000 - int(head["timestampMilliseconds"], 16))
                self.proposers.append(head["miner"])

    def report(self) -> dict[str, Any]:
        intervals = [(b - a) * 1_000 for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]
        span = self.arrivals[-1] - self.arrivals[0] if len(self.arrivals) > 1 else 0.0
        return {
            "blocks": len(self.heights),
            "blocks_per_second": round((self.heights[-1] - self.heights[0]) / span, 3) if span else 0.0,
            "interval_ms": {
                "mean": round(statistics.fmean(intervals), 2) if intervals else 0.0,
                "p99": round(percentile(intervals, 0.99), 1),
                "max": round(max(intervals, default=0.0), 1),
            },
            "finality_ms": {
                f"p{int(share * 100)}": round(percentile(self.finality_ms, share), 1)
                for share in (0.5, 0.95, 0.99)
            },
        }


async def look(url: str, seconds: float) -> dict[str, Any]:
    """So long at one node."""
    heads = Heads()
    listening = asyncio.create_task(heads.listen(url))
    await asyncio.sleep(seconds)
    if listening.done():
        await listening
    listening.cancel()
    async with Client(url) as client:
        status = await client.call("ctt_nodeStatus")
    return heads.report() | {"proposal_to_certificate_ms": status["finalityMs"]}


async def look_under_load(url: str, seconds: float, per_second: int) -> dict[str, Any]:
    """The same while readings come at this rate, in batches."""
    async with Client(url) as client, aiohttp.ClientSession() as session:
        chain_id = int(await client.call("eth_chainId"), 16)
        meters = await prepare_meters(client, chain_id, f"{os.getpid()}-{time.time_ns()}")
        raws = list(sign_readings(meters, int(per_second * seconds), chain_id))
        batch = BATCH // 10
        looking = asyncio.create_task(look(url, seconds))
        load = await open_loop(session, url, bodies_of(raws, batch), per_second / batch)
        report = await looking
        await asyncio.sleep(2)
        receipts = [
            await client.call("eth_getTransactionReceipt", each)
            for each in list(load.sent)[:: len(load.sent) // 100 or 1]
        ]
    return report | {
        "accepted": load.accepted,
        "refused": load.refused,
        "included_of_sample": f"{sum(receipt is not None for receipt in receipts)}/{len(receipts)}",
    }


async def until_it_votes(url: str, address: str) -> float:
    """Seconds until a validator that starts has a certificate with its own vote. Raises: RuntimeError."""
    start = time.monotonic()
    async with Client(url) as client:
        while time.monotonic() - start < RETURN_SECONDS_MAX:
            with suppress(aiohttp.ClientError):  # not yet
                certificate = await client.call("ctt_finalityCertificate", "latest")
                if address in (certificate["signers"] or ()):
                    return round(time.monotonic() - start, 3)
            await asyncio.sleep(0.005)
    raise RuntimeError(f"{address} does not vote")


async def until_it_proposes(url: str, address: str) -> float:
    """Seconds until a block of this proposer is final. Raises: RuntimeError."""
    heads, start = Heads(), time.monotonic()
    listening = asyncio.create_task(heads.listen(url))
    try:
        while time.monotonic() - start < RETURN_SECONDS_MAX:
            if address in heads.proposers:
                return round(time.monotonic() - start, 3)
            await asyncio.sleep(0.005)
    finally:
        listening.cancel()
    raise RuntimeError(f"{address} does not propose")


@contextmanager
def local_network(validators: int, rpc_port: int, p2p_port: int, directory: Path) -> Iterator[list[str]]:
    """Gives the validators' URLs. Raises: RuntimeError when they do not answer."""
    ports = ("--rpc-port", str(rpc_port), "--p2p-port", str(p2p_port))
    command = [
        sys.executable,
        "-m",
        "node.cli.main",
        "devnet",
        "--no-demo",
        "--json",
        "--dir",
        str(directory),
    ]
    process = subprocess.Popen(
        [*command, "--validators", str(validators), *ports], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError("the network does not start")
        urls: list[str] = json.loads(line)["rpc"]
        yield urls
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS_MAX)


def process_of(rpc_port: int) -> int:
    """The validator that listens there."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if b"run" in words and str(rpc_port).encode() in words:
            return int(path.parent.name)
    raise RuntimeError(f"no validator listens at {rpc_port}")


async def until_it_starts(rpc_port: int) -> None:
    """Until the network has started again the process that listens there. Raises: RuntimeError."""
    deadline = time.monotonic() + RETURN_SECONDS_MAX
    while True:
        try:
            process_of(rpc_port)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return


async def run(options: argparse.Namespace, urls: list[str]) -> dict[str, Any]:
    seconds = options.seconds
    result: dict[str, Any] = {"validators": len(urls), "cpu_count": os.cpu_count()}
    await asyncio.sleep(3)
    _say("idle")
    result["idle"] = await look(urls[0], seconds)
    _say(f"{options.rate} tx/s")
    result[f"at_{options.rate}_tx_per_second"] = await look_under_load(urls[0], seconds, options.rate)
    if len(urls) < 4:
        return result
    last = options.rpc_port + len(urls) - 1
    _say("one stopped")
    victim = process_of(last)
    os.kill(victim, signal.SIGSTOP)
    await asyncio.sleep(SETTLE_SECONDS)
    result["one_stopped"] = await look(urls[0], seconds)
    seen = set(await proposers(urls[0], 8))
    os.kill(victim, signal.SIGCONT)
    start = time.monotonic()
    stopped = await newcomer(urls[0], seen)
    result["stopped_one_proposes_after_s"] = round(time.monotonic() - start, 3)
    _say("one killed")
    os.kill(process_of(last), signal.SIGKILL)
    await until_it_starts(last)
    votes, proposes = await asyncio.gather(
        until_it_votes(urls[-1], stopped), until_it_proposes(urls[0], stopped)
    )
    result["killed_one_votes_after_s"], result["killed_one_proposes_after_s"] = votes, proposes
    return result


async def proposers(url: str, count: int) -> list[str]:
    """Of the last blocks."""
    async with Client(url) as client:
        height = int(await client.call("eth_blockNumber"), 16)
        blocks = [
            await client.call("eth_getBlockByNumber", hex(height - back), False) for back in range(count)
        ]
    return [block["miner"] for block in blocks]


async def newcomer(url: str, seen: set[str]) -> str:
    """Waits for a proposer that is not among those. Raises: RuntimeError."""
    heads, deadline = Heads(), time.monotonic() + RETURN_SECONDS_MAX
    listening = asyncio.create_task(heads.listen(url))
    try:
        while time.monotonic() < deadline:
            new = [each for each in heads.proposers if each not in seen]
            if new:
                return new[0]
            await asyncio.sleep(0.005)
    finally:
        listening.cancel()
    raise RuntimeError("the validator never came back")


def _say(text: str) -> None:
    print(f"bench.network: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each look (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="tx/s of the load (default: %(default)s)")
    parser.add_argument("--rpc-port", type=int, default=28545)
    parser.add_argument("--p2p-port", type=int, default=28645)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ctt-bench-") as directory,
        local_network(
            options.validators, options.rpc_port, options.p2p_port, Path(directory) / "net"
        ) as urls,
    ):
        print(json.dumps(asyncio.run(run(options, urls)), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
