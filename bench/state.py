"""What a transaction costs the ledger as the state grows: `python -m bench.state --tokens 10000,100000,1000000`.

For each size a chain is made by the genesis generator in a directory of its own; then blocks of refills and
consumptions of random prosumers are built, committed and published as the node does it, without network and
signatures. CPU time is the whole process's, LevelDB's own threads included, so what a figure names it pays for. JSON on
standard output.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.workload import AMOUNT_WH, CONSUME, GAS_LIMIT, REFILL
from ctt_state.crypto import sha256
from ctt_state.modules.ctt import CTT
from ctt_state.preload import Generator, preload_address
from ctt_state.transaction import DYNAMIC_FEE, Signed, Transaction
from ctt_state.units import Address, Gas, Hash, Ms, Wei
from ctt_state.validators import epoch_of
from node.interpreter import settle_interpreter
from node.ledger import BlockPlan, Ledger, create_ledger

SEED: Final = 7
TOKENS_PER_PROSUMER: Final = 10
RAW_BYTES: Final = 180  # of a signed reading

T = TypeVar("T")


class Stopwatch:
    """CPU seconds of the process by step, or of another clock."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._clock = clock

    def time(self, step: str, work: Callable[[], T]) -> T:
        start = self._clock()
        result = work()
        self.seconds.setdefault(step, []).append(self._clock() - start)
        return result


def make_ledger(directory: Path, genesis: Path, tokens: int) -> Ledger:
    """A chain with so many tokens, ten a prosumer."""
    document = json.loads(genesis.read_bytes())
    document["ctt"]["maxSupply"] = max(document["ctt"]["maxSupply"], tokens)
    rule = {"count": tokens, "seed": SEED, "tokensPerProsumer": TOKENS_PER_PROSUMER, "signing": False}
    document["preload"] = {"generate": rule}
    # In a process of its own: what making a chain takes does not count as what running it does.
    making = get_context("spawn").Process(
        target=create_ledger, args=(directory, json.dumps(document).encode())
    )
    making.start()
    making.join()
    if making.exitcode:
        raise RuntimeError(f"making a chain of {tokens:,} tokens ended with code {making.exitcode}")
    return Ledger.open(directory)


class Fleet:
    """The generated prosumers and their meters, with the meters' nonces."""

    def __init__(self, tokens: int) -> None:
        self._generator = Generator(tokens, SEED, TOKENS_PER_PROSUMER, is_signing=False)
        self.nonces: dict[int, int] = {}
        self._random = random.Random(SEED)

    def block(self, count: int) -> list[Signed]:
        """So many readings of random prosumers, refill and consume half and half."""
        return [self._reading(number) for number in range(count)]

    def _reading(self, number: int) -> Signed:
        index = self._random.randrange(self._generator.prosumers)
        nonce = self.nonces.get(index, 0)
        self.nonces[index] = nonce + 1
        prosumer, meter = (preload_address(self._generator, role, index) for role in ("prosumer", "meter"))
        data = (CONSUME if number % 2 else REFILL).encode_arguments(AMOUNT_WH, prosumer)
        return Signed(make_transaction(meter, nonce, data), meter)


def make_transaction(sender: Address, nonce: int, data: bytes, to: Address = CTT.address) -> Transaction:
    """A transaction as decoding gives it, but for its signature, which the ledger no longer looks at."""
    name = sha256(sender + nonce.to_bytes(8, "big"))
    return Transaction(
        type=DYNAMIC_FEE,
        chain_id=0,
        nonce=nonce,
        gas_price=Wei(0),
        max_priority_fee=Wei(0),
        max_fee=Wei(0),
        gas_limit=Gas(GAS_LIMIT),
        to=to,
        value=Wei(0),
        data=data,
        access_list=(),
        y_parity=0,
        r=1,
        s=1,
        hash=Hash(name),
        raw=name.ljust(RAW_BYTES, b"\0"),
    )


def run_block(ledger: Ledger, transactions: list[Signed], watch: Stopwatch) -> int:
    """Builds, commits and publishes one block; gives how many transactions succeeded."""
    head = ledger.head
    header = head.block.header
    time_ms = Ms(header.timestamp_ms + ledger.chain.block_period_ms)
    epoch = epoch_of(header.height + 1, ledger.chain.epoch_blocks)
    plan = BlockPlan(head.hash, epoch, header.view + 1, time_ms, ledger.genesis.validators[0].address)
    applied = watch.time("apply", lambda: ledger.apply(plan, transactions))
    executed = watch.time("tree_and_roots", lambda: ledger.seal(applied))
    watch.time("commit", lambda: ledger.commit(executed, None))
    watch.time("publish", lambda: ledger.publish(executed))
    return sum(receipt.succeeded for receipt in executed.final.receipts)


def measure(tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    directory = Path(tempfile.mkdtemp(prefix="ctt-bench-", dir=options.dir))
    try:
        start = time.monotonic()
        ledger = make_ledger(directory / "node", options.genesis, tokens)
        made_seconds = time.monotonic() - start
        fleet, watch = Fleet(tokens), Stopwatch()
        settle_interpreter()
        for _ in range(options.warm_blocks):
            run_block(ledger, fleet.block(options.transactions), Stopwatch())
        succeeded = 0
        for _ in range(options.blocks):
            succeeded += run_block(ledger, fleet.block(options.transactions), watch)
        ledger.close()
        start = time.monotonic()
        ledger = Ledger.open(directory / "node")
        restart_seconds = time.monotonic() - start
        ledger.close()
        disk = sum(file.stat().st_size for file in (directory / "node").rglob("*") if file.is_file())
    finally:
        shutil.rmtree(directory)
    steps = {
        step: round(statistics.median(times) / options.transactions * 1e6, 2)
        for step, times in watch.seconds.items()
    }
    return {
        "tokens": tokens,
        "succeeded": succeeded,
        "of": options.blocks * options.transactions,
        "cpu_us_per_transaction": {
            **steps,
            "total": round(
                sum(map(sum, watch.seconds.values())) / options.blocks / options.transactions * 1e6, 2
            ),
        },
        "genesis_seconds": round(made_seconds, 2),
        "restart_seconds": round(restart_seconds, 3),
        "disk_mib": round(disk / 2**20, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.state", description=__doc__)
    parser.add_argument("--tokens", default="10000,100000,1000000", help="state sizes (default %(default)s)")
    parser.add_argument("--blocks", type=int, default=60, help="measured, after as many as --warm-blocks")
    parser.add_argument("--warm-blocks", type=int, default=20)
    parser.add_argument("--transactions", type=int, default=700, help="of each block")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    parser.add_argument(
        "--dir", type=Path, help="where the chains are made (default: the temporary directory)"
    )
    options = parser.parse_args()
    results = []
    for tokens in map(int, options.tokens.split(",")):
        print(f"bench.state: {tokens:,} tokens", file=sys.stderr, flush=True)
        results.append(measure(tokens, options))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"sizes": results, "peak_rss_mib": round(memory, 1)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
