"""What a clearing costs: `python -m bench.market --orders 500,1000`, JSON out.

`auction`: the arithmetic alone, the least CPU time of several runs: half bids and half asks with random limits, of
energy that is told apart by so many groups of sources. `blocks`: blocks that begin with a clearing, over a chain of
generated prosumers who all trade; CPU time of the whole process to apply, to make tree, roots and rows, and to commit,
without network and signatures.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.state import SEED, TOKENS_PER_PROSUMER, Stopwatch, make_ledger, make_transaction, run_block
from ctt_state.modules.call import MarketRules
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.auction import Ask, Bid, clear
from ctt_state.modules.market.clearing import clearing_gas_max
from ctt_state.modules.market.module import Traded
from ctt_state.preload import Generator, preload_address
from ctt_state.transaction import Signed
from ctt_state.units import Address, hex_of
from node.interpreter import settle_interpreter
from node.ledger import Ledger

AUCTION_RUNS: Final = 7
AUCTION_BLOCKS: Final = 30
PLACED_PER_BLOCK: Final = 500
ENERGY_WH: Final = 3_000  # of an order: a home's quarter of an hour
PRICE: Final = 10**14
FOREVER: Final = 2**64 - 1


def measure_auction(orders: int, groups: int, *, mixed: bool = False) -> dict[str, Any]:
    """Milliseconds of `clear`. Mixed: each ask has energy of every group, which are as many lots."""
    chance = random.Random(SEED)
    bids = [
        Bid(
            chance.randrange(1, 5_000),
            tuple([chance.randrange(100_000, 300_000) for _ in range(groups)]),
        )
        for _ in range(orders // 2)
    ]
    asks = [
        Ask(chance.randrange(1, 5_000), chance.randrange(80_000, 250_000), chance.randrange(groups))
        for _ in range(orders // 2)
    ]
    if mixed:
        asks = [
            Ask(-(-each.energy_wh // groups), each.limit, group) for each in asks for group in range(groups)
        ]
    best = float("inf")
    for _ in range(AUCTION_RUNS):
        start = time.process_time()
        result = clear(bids, asks, groups)
        best = min(best, time.process_time() - start)
    return {
        "orders": orders,
        "groups": groups,
        "mixed": mixed,
        "trades": len(result.trades),
        "ms": round(best * 1e3, 1),
    }


class Street:
    """The generated prosumers, of whom every other one sells, and the next round the others."""

    def __init__(self, orders: int) -> None:
        generator = Generator(orders * TOKENS_PER_PROSUMER, SEED, TOKENS_PER_PROSUMER, is_signing=False)
        self.owners: list[Address] = [preload_address(generator, "prosumer", each) for each in range(orders)]

    def orders(self, round_number: int) -> list[Signed]:
        """One order an owner."""
        signed = []
        for number, owner in enumerate(self.owners):
            name = ("bid", "ask")[(number + round_number) % 2]
            function = MARKET.named(f"{name}(uint256,uint256,uint64)")
            # Asks below bids, and the bids of one round below the asks that may still stand from the one before.
            price = PRICE * (3 - round_number % 2) - (name == "ask")
            data = function.encode_arguments(ENERGY_WH, price, FOREVER)
            transaction = make_transaction(owner, round_number, data, MARKET.address)
            signed.append(Signed(transaction, owner))
        return signed


def document(genesis: Path, orders: int, owners: list[Address]) -> bytes:
    """The genesis document with a market for so many orders, and money for everybody."""
    content = json.loads(genesis.read_bytes())
    rules = MarketRules(AUCTION_BLOCKS, orders, 2 * orders)
    content["market"] = {"auctionBlocks": AUCTION_BLOCKS, "ordersMax": orders, "tokensMax": 2 * orders}
    content["blockGasLimit"] = max(content["blockGasLimit"], 2 * clearing_gas_max(rules))
    content["accounts"] |= {hex_of(owner): {"balanceWei": str(10**24)} for owner in owners}
    return json.dumps(content).encode()


def clear_once(ledger: Ledger, transactions: list[Signed], watch: Stopwatch) -> tuple[int, int]:
    """Places these orders, then runs the block that clears them under the watch; gives its gas and its trades."""
    for start in range(0, len(transactions), PLACED_PER_BLOCK):
        run_block(ledger, transactions[start : start + PLACED_PER_BLOCK], Stopwatch())
    while ledger.head.block.header.height % AUCTION_BLOCKS:
        run_block(ledger, [], Stopwatch())
    run_block(ledger, [], watch)
    logs = ledger.head.receipts[0].logs
    return ledger.head.block.header.gas_used, sum(log.topics[0] == Traded.topic for log in logs)


def measure_blocks(orders: int, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of the block that clears so many orders."""
    directory = Path(tempfile.mkdtemp(prefix="ctt-bench-", dir=options.dir))
    try:
        street, watch = Street(orders), Stopwatch()
        genesis = directory / "genesis.json"
        genesis.write_bytes(document(options.genesis, orders, street.owners))
        ledger = make_ledger(directory / "node", genesis, orders * TOKENS_PER_PROSUMER)
        settle_interpreter()
        told = [clear_once(ledger, street.orders(number), watch) for number in range(options.blocks)]
        ledger.close()
    finally:
        shutil.rmtree(directory)
    steps = {step: round(statistics.median(times) * 1e3, 1) for step, times in watch.seconds.items()}
    return {
        "orders": orders,
        "gas": max(gas for gas, _ in told),
        "gas_max": clearing_gas_max(MarketRules(AUCTION_BLOCKS, orders, 2 * orders)),
        "trades": max(trades for _, trades in told),
        "cpu_ms": {**steps, "total": round(sum(steps.values()), 1)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.market", description=__doc__)
    parser.add_argument("--orders", default="500,1000", help="in the book (default %(default)s)")
    parser.add_argument(
        "--auction-orders", type=int, default=10_000, help="of the arithmetic (default %(default)s)"
    )
    parser.add_argument("--blocks", type=int, default=4, help="clearings measured (default %(default)s)")
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    parser.add_argument(
        "--dir", type=Path, help="where the chains are made (default: the temporary directory)"
    )
    options = parser.parse_args()
    auctions = [measure_auction(options.auction_orders, groups) for groups in (1, 2, 6)]
    auctions.append(measure_auction(options.auction_orders, 6, mixed=True))
    blocks = []
    for orders in map(int, options.orders.split(",")):
        print(f"bench.market: {orders:,} orders", file=sys.stderr, flush=True)
        blocks.append(measure_blocks(orders, options))
    print(json.dumps({"auction": auctions, "blocks": blocks}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
