"""How fast the indexer takes events: `python -m bench.indexer --database postgresql://HOST/NAME`, JSON out.

The blocks are JSON text as a node writes it: every prosumer's meter reports once a quarter of an hour, by itself or
through a concentrator, and each quarter begins with an auction. The time is from the text to the commit: parsed,
decoded, copied and rolled up. Events are those that become rows; `MetadataUpdate`, which tells of each token charged or
drained, is in the text too and counts for nothing. What the database had is lost.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from apps.indexer.database import Store
from apps.indexer.rows import REPORT, REPORT_BATCH, Batch, Fetched
from ctt_state.abi import Emission
from ctt_state.block import Block, FinalBlock, Header, Log, Receipt
from ctt_state.crypto import sha256
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import EnergyConsumed, EnergyRefilled, MetadataUpdate
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import AuctionCleared, Traded
from ctt_state.transaction import decode_included, sign_transaction, system_transaction
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Address, Gas, Hash, Height, Ms
from rpc.jsontext import array
from rpc.render import BlockView

SEED: Final = 7
KEY: Final = sha256(b"concentrator")
METER: Final = Address(sha256(b"meter")[12:])
READINGS_PER_BLOCK: Final = 500
QUARTER_MS: Final = 900_000
ENERGY_WH_MAX: Final = 3_000
PRICE: Final = 10**14


class Street:
    """Blocks of so many prosumers' readings, for ever; nobody executes them."""

    def __init__(self, genesis: Genesis, prosumers: int, readings_per_transaction: int) -> None:
        self._genesis = genesis
        self._chance = random.Random(SEED)
        self._per_transaction = readings_per_transaction
        self._prosumers = [Address(sha256(b"%d" % number)[12:]) for number in range(prosumers)]
        self._registers = [[0, 0] for _ in range(prosumers)]
        self._height, self._parent, self._nonce = 0, ZERO_HASH, 0
        self.events = 0

    def blocks(self) -> Iterator[str]:
        """Each as a JSON array of the block and its receipts."""
        yield self._block(0, [])
        quarter = self._genesis.time_ms // QUARTER_MS + 1
        while True:
            auction = [self._clearing(quarter)]
            for start in range(0, len(self._prosumers), READINGS_PER_BLOCK):
                numbers = range(start, min(start + READINGS_PER_BLOCK, len(self._prosumers)))
                yield self._block(quarter * QUARTER_MS, auction + self._reports(numbers, quarter))
                auction = []
            quarter += 1

    def _block(self, time_ms: int, told: list[tuple[bytes, Address, list[Log]]]) -> str:
        chain = self._genesis.parameters
        header = Header(
            1,
            self._genesis.hash,
            Height(self._height),
            0,
            self._height,
            self._parent,
            Ms(time_ms or self._genesis.time_ms),
            METER,
            Gas(0),
            *[ZERO_HASH] * 6,
        )
        block = Block(header, tuple([raw for raw, _, _ in told]))
        hashes = tuple([decode_included(raw, chain.chain_id).hash for raw, _, _ in told])
        own_hash = Hash(sha256(b"block %d" % self._height))
        receipts = tuple([Receipt(True, Gas(50_000), tuple(logs)) for _, _, logs in told])
        final = FinalBlock(block, own_hash, receipts, tuple([sender for _, sender, _ in told]), hashes)
        self._height, self._parent = self._height + 1, own_hash
        view, places = BlockView(final, chain), range(len(told))
        whole = view.block(array([view.transaction(place) for place in places]))
        return f"[{whole},{array([view.receipt(place) for place in places])}]"

    def _clearing(self, quarter: int) -> tuple[bytes, Address, list[Log]]:
        """Every tenth prosumer buys from the next one."""
        traders = self._prosumers[:: max(len(self._prosumers) // 100, 1)]
        logs = [
            _log(MARKET.address, Traded(buyer, seller, 500, PRICE))
            for buyer, seller in zip(traders[::2], traders[1::2], strict=False)
        ]
        logs.append(
            _log(MARKET.address, AuctionCleared(quarter, PRICE, 500 * len(logs), len(logs), len(logs)))
        )
        self.events += len(logs)
        data = MARKET.named("clear()").encode_arguments()
        chain_id = self._genesis.parameters.chain_id
        return system_transaction(chain_id, self._height, 0, MARKET.address, data).raw, ZERO_ADDRESS, logs

    def _reports(self, numbers: Sequence[int], quarter: int) -> list[tuple[bytes, Address, list[Log]]]:
        step = self._per_transaction
        return [
            self._report(numbers[start : start + step], quarter) for start in range(0, len(numbers), step)
        ]

    def _report(self, numbers: Sequence[int], quarter: int) -> tuple[bytes, Address, list[Log]]:
        readings, logs = [], []
        for number in numbers:
            prosumer, registers = self._prosumers[number], self._registers[number]
            is_export = number % 2
            energy = self._chance.randrange(1, ENERGY_WH_MAX)
            registers[is_export] += energy
            readings.append((prosumer, quarter * QUARTER_MS, *registers))
            kind = EnergyRefilled if is_export else EnergyConsumed
            logs += [
                _log(CTT.address, MetadataUpdate(number)),
                _log(CTT.address, kind(prosumer, METER, energy, energy)),
            ]
            self.events += 1
        one = len(readings) == 1
        data = REPORT.encode_arguments(*readings[0]) if one else REPORT_BATCH.encode_arguments(readings)
        self._nonce += 1
        raw = sign_transaction(
            KEY,
            chain_id=self._genesis.parameters.chain_id,
            nonce=self._nonce,
            gas_limit=10**7,
            to=CTT.address,
            data=data,
        )
        return raw, METER, logs


def _log(address: Address, told: Emission) -> Log:
    return Log(address, *told)


def measure(options: argparse.Namespace, per_transaction: int) -> dict[str, Any]:
    """One thread reads and decodes, the other writes what was decoded before, as in the indexer."""
    genesis = load_genesis(options.genesis.read_bytes())
    street = Street(genesis, options.prosumers, per_transaction)
    texts: list[str] = []
    for text in street.blocks():
        texts.append(text)
        if street.events >= options.events:
            break
    store = Store(options.database, genesis, ZoneInfo("UTC"), rebuild=True)
    after, tariff = store.position, store.tariff
    start, cpu_start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(1) as writer:
        writing: list[Future[None]] = []
        for first in range(0, len(texts), options.blocks):
            blocks = [Fetched(*json.loads(text)) for text in texts[first : first + options.blocks]]
            batch = Batch(blocks, after, tariff)
            after, tariff = batch.last, batch.tariff
            if writing:
                writing.pop().result()
            writing.append(writer.submit(store.write, batch))
        writing.pop().result()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    store.close()
    return {
        "readings_per_transaction": per_transaction,
        "prosumers": options.prosumers,
        "blocks": len(texts),
        "events": street.events,
        "json_mb": round(sum(map(len, texts)) / 1e6, 1),
        "seconds": round(seconds, 2),
        "indexer_cpu_us_per_event": round(cpu_seconds / street.events * 1e6, 1),
        "events_per_s": round(street.events / seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.indexer", description=__doc__)
    parser.add_argument("--database", required=True, metavar="URL", help="what it has is lost")
    parser.add_argument("--events", type=int, default=60_000, help="at least (default %(default)s)")
    parser.add_argument("--prosumers", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--blocks", type=int, default=20, help="in a transaction (default %(default)s)")
    parser.add_argument(
        "--readings", default="100,1", help="in a transaction of the chain (default %(default)s)"
    )
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"))
    options = parser.parse_args()
    results = [measure(options, int(count)) for count in options.readings.split(",")]
    print(json.dumps({"database": options.database.split(":")[0], "indexer": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
