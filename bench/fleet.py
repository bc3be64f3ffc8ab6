"""How many readings a second a node includes: `python -m bench.fleet`.

Concentrators report for homes, each home's registers once a round, by `reportBatch`: every second home produces, the
others consume. Homes, tokens and concentrators are in the genesis, the transactions are signed before the clock starts,
and a closed loop keeps a bounded number of them under way. JSON on standard output, progress on standard error.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from apps.client import Client, RpcError
from bench.local_node import local_node
from bench.throughput import Blocks, bodies_of, closed_loop, cpu_seconds
from bench.workload import AMOUNT_WH, bench_key
from ctt_state.crypto import address_of, sha256
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import intrinsic_gas_of, sign_transaction
from ctt_state.units import Address, hex_of

RUN: Final = "fleet"
REPORT_BATCH: Final = CTT.named("reportBatch((address,uint64,uint256,uint256)[])")
BLOCK_GAS_LIMIT: Final = 500_000_000  # of its node: no block ends for gas
GAS_PER_READING: Final = 30_000
TOKENS_PER_HOME: Final = 2
TRANSACTIONS_PER_REQUEST: Final = 8
CONNECTIONS: Final = 4
DRAIN_SECONDS_MAX: Final = 60.0


def home(number: int) -> Address:
    return Address(sha256(b"bench home %d" % number)[12:])


def write_genesis(path: Path, base: Path, homes: int, concentrators: int) -> None:
    """The base's chain, with these homes, tokens and concentrators."""
    keys = [bench_key(RUN, "concentrator", number) for number in range(concentrators)]
    meters = [hex_of(address_of(key)) for key in keys]
    document = json.loads(base.read_bytes()) | {
        "blockGasLimit": BLOCK_GAS_LIMIT,
        "preload": {
            "meters": [{"address": meter, "source": 1, "concentrator": True} for meter in meters],
            "prosumers": [
                {"address": hex_of(home(number)), "meter": meters[number % concentrators]}
                for number in range(homes)
            ],
            "tokens": [
                {"owner": hex_of(home(number)), "count": TOKENS_PER_HOME, "energyWh": 5_000}
                for number in range(homes)
            ],
        },
    }
    path.write_text(json.dumps(document))


def sign_reports(options: argparse.Namespace, chain_id: int, time_ms: int) -> Iterator[bytes]:
    """Each round's transactions, the concentrators in turn. The first round is everybody's baseline."""
    nonces = [0] * options.concentrators
    for number in range(options.rounds + 1):
        for who in range(options.concentrators):
            homes = range(who, options.homes, options.concentrators)
            for start in range(0, len(homes), options.readings):
                data = REPORT_BATCH.encode_arguments(
                    [
                        (home(each), time_ms + number, *_registers(each // options.concentrators, number))
                        for each in homes[start : start + options.readings]
                    ]
                )
                yield sign_transaction(
                    bench_key(RUN, "concentrator", who),
                    chain_id=chain_id,
                    nonce=nonces[who],
                    gas_limit=intrinsic_gas_of(data) + GAS_PER_READING * options.readings,
                    to=CTT.address,
                    data=data,
                )
                nonces[who] += 1


def _registers(home_number: int, rounds: int) -> tuple[int, int]:
    """Import and export (Wh) after so many rounds: a home produces in one and consumes in the next, its neighbour the
    other way round, so that tokens neither fill up nor run dry."""
    more, less = (rounds + 1) // 2 * AMOUNT_WH, rounds // 2 * AMOUNT_WH
    return (more, less) if home_number % 2 else (less, more)


async def run(options: argparse.Namespace, url: str, pid: int) -> dict[str, Any]:
    async with Client(url) as client, aiohttp.ClientSession() as session:
        chain_id = int(await client.call("eth_chainId"), 16)
        _say("signing")
        raws = list(sign_reports(options, chain_id, int(time.time() * 1_000)))
        per_round = len(raws) // (options.rounds + 1)
        _say("the baseline")
        await _send(client, session, raws[:per_round])
        _say(f"{len(raws) - per_round:,} transactions")
        cpu, start = cpu_seconds(pid), time.monotonic()
        blocks = await _send(client, session, raws[per_round:])
        seconds = time.monotonic() - start
        cpu = cpu_seconds(pid) - cpu
        accepted = await _accepted(client, blocks)
    readings = options.homes * options.rounds
    intervals = blocks.intervals_ms()
    return {
        "homes": options.homes,
        "concentrators": options.concentrators,
        "readings_per_transaction": options.readings,
        "readings": readings,
        "charged_or_drained": accepted,
        "readings_per_second": round(readings / seconds, 1),
        "node_cpu_us_per_reading": round(cpu / readings * 1e6, 1),
        "block_interval_ms_mean": round(sum(intervals) / max(1, len(intervals)), 1),
        "cpu_count": os.cpu_count(),
    }


async def _send(client: Client, session: aiohttp.ClientSession, raws: list[bytes]) -> Blocks:
    """Until all are in blocks. Raises: RuntimeError when one is refused; TimeoutError."""
    blocks = Blocks(client)
    watching = asyncio.create_task(blocks.watch())
    await asyncio.sleep(0.05)
    load = await closed_loop(
        session, client.url, bodies_of(raws, TRANSACTIONS_PER_REQUEST), CONNECTIONS, blocks
    )
    if load.refused:
        raise RuntimeError(f"the node refused {load.refusals}")
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while load.sent.keys() - blocks.final_at.keys():
            await asyncio.sleep(0.01)
    watching.cancel()
    return blocks


async def _accepted(client: Client, blocks: Blocks) -> int:
    """How many readings moved energy, by the logs of the transactions' receipts."""
    total = 0
    for transaction in blocks.final_at:
        receipt = await client.receipt(transaction)
        if receipt["status"] != "0x1":
            raise RuntimeError(f"reverted: {transaction}")
        total += sum(len(log["topics"]) == 3 for log in receipt["logs"])
    return total


def _say(text: str) -> None:
    print(f"bench.fleet: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument(
        "--genesis", type=Path, default=Path("genesis.json"), help="that its node's is made from"
    )
    parser.add_argument("--homes", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--concentrators", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--readings", type=int, default=100, help="of a transaction (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="after the baseline (default: %(default)s)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="ctt-bench-") as directory:
            genesis = Path(directory) / "genesis.json"
            write_genesis(genesis, options.genesis, options.homes, options.concentrators)
            with local_node(genesis) as (url, pid):
                result = uvloop.run(run(options, url, pid))
        print(json.dumps(result, indent=2))
    except (RpcError, aiohttp.ClientError, TimeoutError, RuntimeError, OSError) as fault:
        print(f"bench.fleet: {type(fault).__name__}: {fault}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
