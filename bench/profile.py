"""Where a transaction's microseconds go, step by step: `python -m bench.profile`.

Signed readings of meters take the way of every transaction, one step at a time for a whole block of them, against a
chain of the given size. A step's figure is the least CPU time over several blocks: what it costs when nothing disturbs
it. JSON on standard output, microseconds a transaction.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.throughput import BATCH, bodies_of
from bench.workload import BenchMeter, sign_readings
from ctt_state.preload import Generator, preload_address, preload_key
from ctt_state.records import Account
from ctt_state.transaction import Signed, decode_transaction, recover_sender
from ctt_state.units import Ms
from ctt_state.validators import epoch_of
from node.ledger import BlockPlan, Ledger, create_ledger
from node.memory import settle_memory
from node.mempool import Mempool, MempoolLimits, PoolRole
from rpc.jsonrpc import parse_json
from rpc.render import BlockView

SEED: Final = 7
TOKENS_PER_PROSUMER: Final = 10

T = TypeVar("T")


class Steps:
    """The least CPU time of each step, in the order of their first run."""

    def __init__(self, transactions: int) -> None:
        self._transactions = transactions
        self.least_us: dict[str, float] = {}

    def run(self, step: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        us = (time.process_time() - start) / self._transactions * 1e6
        self.least_us[step] = min(self.least_us.get(step, us), us)
        return result


def run_block(ledger: Ledger, raws: list[bytes], steps: Steps) -> None:
    """One block of these transactions, from the requests that carry them to the answers about them."""
    chain = ledger.chain
    bodies = bodies_of(raws, BATCH)
    batches: list[Any] = steps.run("parse_json", lambda: [parse_json(body) for body in bodies])
    texts = [request["params"][0] for batch in batches for request in batch]
    data = steps.run("read_hex", lambda: [bytes.fromhex(text[2:]) for text in texts])
    decoded = steps.run("decode_and_hash", lambda: [decode_transaction(raw, chain.chain_id) for raw in data])
    senders = steps.run("recover_sender", lambda: [recover_sender(each) for each in decoded])
    signed = [Signed(*pair) for pair in zip(decoded, senders, strict=True)]

    limits = MempoolLimits(meter_places=len(raws))
    pool = Mempool(chain, limits, lambda address: PoolRole.METER)
    steps.run("pool_add", lambda: add_all(pool, ledger, signed))
    candidates = steps.run("pool_candidates", lambda: list(pool.candidates()))

    head = ledger.head.block.header
    time_ms = Ms(head.timestamp_ms + chain.block_period_ms)
    epoch = epoch_of(head.height + 1, chain.epoch_blocks)
    plan = BlockPlan(ledger.head.hash, epoch, head.view + 1, time_ms, ledger.genesis.validators[0].address)
    applied = steps.run("apply", lambda: ledger.apply(plan, candidates))
    executed = steps.run("tree_roots_rows", lambda: ledger.seal(applied))
    steps.run("commit", lambda: ledger.commit(executed, None))
    steps.run("publish", lambda: ledger.publish(executed))
    nonces = [(each.sender, each.transaction.nonce + 1) for each in signed]
    steps.run("pool_on_block", lambda: pool.on_block(nonces, 0))
    if len(executed.final.receipts) != len(raws) or not all(r.succeeded for r in executed.final.receipts):
        raise RuntimeError("a reading of the benchmark was dropped or refused")
    view = BlockView(executed.final, chain)
    steps.run("render_receipt", lambda: [view.receipt(index) for index in range(len(raws))])


def add_all(pool: Mempool, ledger: Ledger, transactions: list[Signed]) -> None:
    for signed in transactions:
        pool.add(signed, _account(ledger, signed), 0)


def _account(ledger: Ledger, signed: Signed) -> Account:
    account = ledger.lookup(Account.key(signed.sender))
    return account if isinstance(account, Account) else Account()


def run(options: argparse.Namespace) -> dict[str, Any]:
    directory = Path(tempfile.mkdtemp(prefix="ctt-bench-", dir=options.dir))
    rule = {"count": options.tokens, "seed": SEED, "tokensPerProsumer": TOKENS_PER_PROSUMER}
    document = json.loads(options.genesis.read_bytes()) | {"preload": {"generate": rule}}
    try:
        create_ledger(directory / "node", json.dumps(document).encode())
        ledger = Ledger.open(directory / "node")
        generator = Generator(options.tokens, SEED, TOKENS_PER_PROSUMER, is_signing=True)
        meters = [
            BenchMeter(preload_key(SEED, "meter", index), preload_address(generator, "prosumer", index))
            for index in range(generator.prosumers)
        ]
        steps = Steps(options.transactions)
        settle_memory()
        for block in range(options.blocks):
            share = block * options.transactions % len(meters)
            turn = meters[share:] + meters[:share]
            run_block(ledger, list(sign_readings(turn, options.transactions, ledger.chain.chain_id)), steps)
        ledger.close()
    finally:
        shutil.rmtree(directory)
    least = {step: round(us, 2) for step, us in steps.least_us.items()}
    return {"tokens": options.tokens, "cpu_us": least, "total_us": round(sum(least.values()), 1)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--transactions", type=int, default=700, help="of each block")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    parser.add_argument("--dir", type=Path, help="where the chain is made (default: the temporary directory)")
    print(json.dumps(run(parser.parse_args()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
