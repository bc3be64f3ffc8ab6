"""The same signed readings through a node and through a contract on anvil: `python -m bench.peers`.

One validator with everything on the disk against anvil with everything in memory, both with a block each period. Anvil
has the CTT's contract (`CTT.sol`, on OpenZeppelin's ERC-721) at the address of the node's module, so the bytes that are
sent are the same. They take turns; who does not have its turn is stopped (SIGSTOP) and uses nothing. After each load
both must have metered all of it and hold the same energy. Figures are medians of the rounds, ratios the medians of what
the node's figure is over anvil's in each. What anvil allocates beyond the limit ends it, and the result says so. JSON
on standard output, progress on standard error.
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
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from apps.client import Client, Wallet
from apps.demo.street import TREASURER_KEY
from bench.door import resident_mib
from bench.local_node import local_node
from bench.peers.anvil import local_anvil, place_contract
from bench.peers.contract import PackagesMissing, compile_contract
from bench.peers.load import closed_loop, open_loop
from bench.throughput import BATCH, TOKENS_PER_PROSUMER, prepare_meters, process_tree, settle
from bench.workload import AMOUNT_WH, BenchMeter, bench_key, sign_readings
from ctt_state.modules.ctt import CTT

RUN: Final = "peers"
METERS: Final = 100
BLOCK_GAS_LIMIT: Final = 250_000_000  # so that of a node it is not this that ends a block
TOKENS_PER_PURCHASE: Final = 50
BATCH_CONNECTIONS: Final = 8
SINGLE_CONNECTIONS: Final = 32
ENDED_SECONDS_MAX: Final = 2.0
CALM_SECONDS_MAX: Final = 120.0
BLOCKS_A_SECOND_MAX: Final = 4

Look = dict[str, float]


@dataclass
class Peer:
    """A chain in processes on this machine."""

    name: str
    url: str
    pid: int

    def stop(self) -> None:
        for pid in process_tree(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in process_tree(self.pid):
            os.kill(pid, signal.SIGCONT)

    async def go_on(self) -> None:
        """Until its blocks come at their pace: what it missed it may make up for by a burst of them.

        Raises: TimeoutError and what a client raises.
        """
        self.resume()
        async with Client(self.url) as client, asyncio.timeout(CALM_SECONDS_MAX):
            height, more = await _height(client), 0
            while not 0 < more <= BLOCKS_A_SECOND_MAX:
                await asyncio.sleep(1)
                before, height = height, await _height(client)
                more = height - before


class Comparison:
    """Peers on which the same has happened."""

    def __init__(self, peers: list[Peer], chain_id: int, rounds: int) -> None:
        self._peers = peers
        self._chain_id = chain_id
        self._rounds = rounds
        self._meters: list[BenchMeter] = []
        self._metered_wh = 0
        self.tokens = 0

    async def prepare(self) -> None:
        for peer in self._peers:
            async with Client(peer.url) as client:
                self._meters = await prepare_meters(client, self._chain_id, RUN, METERS)
            peer.stop()
        self.tokens = METERS * TOKENS_PER_PROSUMER

    async def grow(self, tokens: int) -> None:
        """Each prosumer buys as many empty tokens as make so many together."""
        for peer in self._peers:
            await peer.go_on()
            async with Client(peer.url) as client:
                await _buy(client, self._chain_id, (tokens - self.tokens) // METERS)
            peer.stop()
        self.tokens = tokens

    async def run(self, count: int, look: Callable[[Peer, list[bytes]], Awaitable[Look]]) -> dict[str, Any]:
        """Rounds of so many readings, and who comes first takes turns.

        Raises: RuntimeError when a reading was not counted, or they hold different energy.
        """
        looks: dict[str, list[Look]] = {peer.name: [] for peer in self._peers}
        for number in range(self._rounds):
            raws = list(sign_readings(self._meters, count, self._chain_id))
            self._metered_wh += count * AMOUNT_WH
            energy = set()
            for peer in self._peers if number % 2 else reversed(self._peers):
                await peer.go_on()
                looks[peer.name].append(await look(peer, raws))
                energy.add(await self._energy(peer))
                peer.stop()
            if len(energy) > 1:
                raise RuntimeError(f"after the same readings they hold {energy} Wh")
        node, anvil = looks.values()
        ratios = [{figure: a[figure] / b[figure] for figure in a} for a, b in zip(node, anvil, strict=True)]
        medians = {name: _medians(each) for name, each in looks.items()}
        return {**medians, "ratio": _medians(ratios), "rounds": looks}

    async def _energy(self, peer: Peer) -> int:
        metered = 0
        async with Client(peer.url) as client:
            for meter in self._meters:
                *_, produced, _, consumed, _ = await client.read(CTT, "prosumers(address)", meter.prosumer)
                metered += produced + consumed
            (energy,) = await client.read(CTT, "totalEnergy()")
        if metered != self._metered_wh:
            raise RuntimeError(f"{peer.name} metered {metered:,} Wh of {self._metered_wh:,}")
        return int(energy)


def _medians(looks: list[Look]) -> Look:
    return {figure: round(statistics.median(look[figure] for look in looks), 3) for figure in looks[0]}


async def _height(client: Client) -> int:
    return int(await client.call("eth_blockNumber"), 16)


async def _buy(client: Client, chain_id: int, each: int) -> None:
    treasurer = Wallet(client, TREASURER_KEY, chain_id)
    owners = [Wallet(client, bench_key(RUN, "owner", number), chain_id) for number in range(METERS)]
    (price,) = await client.read(CTT, "emptyTokenPrice()")
    await settle(client, [await treasurer.send_raw(owner.address, price * each) for owner in owners])
    for bought in range(0, each, TOKENS_PER_PURCHASE):
        count = min(TOKENS_PER_PURCHASE, each - bought)
        buy, value, gas = "buyEmptyTokens(uint256)", price * count, 100_000 + count * 250_000
        for first in range(0, METERS, BATCH_CONNECTIONS):
            share = owners[first : first + BATCH_CONNECTIONS]
            sent = [await owner.send(CTT, buy, count, value=value, gas_limit=gas) for owner in share]
            await settle(client, sent)


async def in_batches(peer: Peer, raws: list[bytes]) -> Look:
    look = await closed_loop(peer.url, peer.pid, raws, BATCH, BATCH_CONNECTIONS)
    return {**look, "resident_mib": resident_mib(peer.pid)}


async def one_by_one(peer: Peer, raws: list[bytes]) -> Look:
    return await closed_loop(peer.url, peer.pid, raws, 1, SINGLE_CONNECTIONS)


async def compare(comparison: Comparison, options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Fills the result, so that what was measured before a peer ended is not lost."""
    _say("preparing meters on both")
    await comparison.prepare()
    _say("batches of 100")
    batches = result["batches_of_100"] = await comparison.run(options.transactions, in_batches)
    _say("single requests")
    result["single_requests"] = await comparison.run(options.transactions, one_by_one)

    rate = min(batches[name]["included_per_second"] for name in ("node", "anvil")) / 2
    _say(f"open loop at {rate:.0f} tx/s, half the lower peak")

    async def at_half_the_peak(peer: Peer, raws: list[bytes]) -> Look:
        return await open_loop(peer.url, peer.pid, raws, rate)

    at_half = await comparison.run(int(rate * options.seconds), at_half_the_peak)
    result["half_the_peak"] = {"per_second": round(rate), **at_half}
    by_tokens = result["by_tokens"] = {comparison.tokens: batches}
    for tokens in options.tokens:
        _say(f"{tokens:,} tokens")
        await comparison.grow(tokens)
        by_tokens[tokens] = await comparison.run(options.transactions, in_batches)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises: PackagesMissing, RuntimeError, and what a client raises."""
    compile_contract()
    result: dict[str, Any] = {"cpu_count": os.cpu_count(), "anvil_memory_mib_max": options.memory_mib}
    document = json.loads(options.genesis.read_bytes()) | {"blockGasLimit": BLOCK_GAS_LIMIT}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctt-bench-")))
        genesis = directory / "genesis.json"
        genesis.write_text(json.dumps(document))
        url, pid = stack.enter_context(local_node(genesis, directory, "error"))  # stopping it is no news
        anvil_url, anvil = stack.enter_context(local_anvil(genesis, options.memory_mib))
        peers = [Peer("node", url, pid), Peer("anvil", anvil_url, anvil.pid)]

        async def place_and_compare() -> None:
            async with Client(anvil_url) as client:
                await place_contract(client, document)
            await compare(Comparison(peers, document["chainId"], options.rounds), options, result)

        try:
            uvloop.run(place_and_compare())
        except (OSError, aiohttp.ClientError, ExceptionGroup):
            if not _has_ended(anvil):
                raise
            result["anvil_ended"] = f"with code {anvil.returncode}; {options.memory_mib} MiB were its limit"
        finally:
            peers[0].resume()  # it cannot end while it is stopped
    return result


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(ENDED_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return False
    return True


def _say(text: str) -> None:
    print(f"bench.peers: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"), help="of the node")
    parser.add_argument(
        "--transactions", type=int, default=20_000, help="of each load (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of an open loop (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[10_000, 50_000], help="minted (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-mib", type=int, default=8_192, help="anvil's at most (default: %(default)s)"
    )
    try:
        print(json.dumps(run(parser.parse_args()), indent=2))
    except PackagesMissing as fault:
        print(f"bench.peers: {fault}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
