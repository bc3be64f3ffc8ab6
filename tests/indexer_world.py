"""A chain on disk with some of everything that the indexer keeps, as JSON-RPC tells it, and its tables read back."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from apps.indexer.database import connect
from apps.indexer.rows import Fetched
from apps.indexer.schema import CHAIN, METADATA
from ctt_state.abi import Module
from ctt_state.crypto import address_of, sha256
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.modules.treasury import TREASURY
from ctt_state.records import Prosumer
from ctt_state.units import Address
from node.ledger import Ledger
from rpc.jsontext import array
from rpc.render import BlockView
from tests.ledger_world import (
    ADMIN_KEY,
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    METER_KEYS,
    OWNER_KEYS,
    OWNERS,
    add_block,
    document,
    make_ledger,
    sign,
)

CONCENTRATOR_KEY: Final = sha256(b"concentrator")
CONCENTRATOR: Final = address_of(CONCENTRATOR_KEY)
PROSUMERS: Final = (ALICE, BOB, *OWNERS)
FOREVER: Final = 2**64 - 1
PRICE: Final = 10**14
QUARTER_MS: Final = 900_000
OWN_TOKENS: Final = (11, 12, 13)  # of the third of the preloaded prosumers, who have five each
CHARGED: Final = 16  # one of the fourth's


class Call:
    """A call that is to be in the next block."""

    def __init__(self, key: bytes, module: Module, signature: str, *arguments: Any, value: int = 0) -> None:
        self.key, self.module, self.value = key, module, value
        self.data = module.named(signature).encode_arguments(*arguments)


class History:
    """Blocks are added; `fetched` has them all, as a node answers."""

    def __init__(self, directory: Path) -> None:
        self.genesis: Genesis = load_genesis(document())
        self.ledger: Ledger = make_ledger(directory)
        self._nonces = Counter[bytes]()
        self.fetched = [self._fetch()]

    @property
    def time_ms(self) -> int:
        return self.ledger.head.block.header.timestamp_ms

    def block(self, *calls: Call, after_ms: int = 333) -> None:
        signed = []
        for call in calls:
            nonce = self._nonces[call.key]
            self._nonces[call.key] += 1
            signed.append(sign(call.key, nonce, to=call.module.address, value=call.value, data=call.data))
        add_block(self.ledger, signed, after_ms)
        self.fetched.append(self._fetch())

    def prosumer(self, owner: Address) -> Prosumer:
        found = self.ledger.lookup(Prosumer.key(owner))
        assert isinstance(found, Prosumer)
        return found

    def _fetch(self) -> Fetched:
        view = BlockView(self.ledger.head, self.ledger.chain)
        places = range(view.count)
        whole = view.block(array([view.transaction(place) for place in places]))
        return Fetched(json.loads(whole), json.loads(array([view.receipt(place) for place in places])))


REPORT: Final = "report(address,uint64,uint256,uint256)"
REPORT_BATCH: Final = "reportBatch((address,uint64,uint256,uint256)[])"
ASK: Final = "ask(uint256,uint256,uint64,(address,uint256)[])"
BID: Final = "bid(uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"


def make_history(directory: Path) -> History:
    """Readings of all kinds, an auction with a partner and a gift, tokens sold and given away, bookings, meters."""
    history = History(directory)
    _meters(history)
    _readings(history)
    _market(history)
    _tokens(history)
    _treasury(history)
    history.block()
    return history


def _meters(history: History) -> None:
    certify = "certifyMeter(address,uint8,uint64,bool)"
    history.block(
        Call(ADMIN_KEY, CTT, certify, CONCENTRATOR, 1, 0, True),
        Call(ADMIN_KEY, CTT, certify, BOB, 2, 5_000, False),
        *[Call(key, CTT, "buyEmptyTokens(uint256)", 3, value=10**18) for key in (ALICE_KEY, BOB_KEY)],
        *[Call(key, CTT, "register(address)", CONCENTRATOR) for key in (ALICE_KEY, BOB_KEY)],
        after_ms=QUARTER_MS,
    )
    history.block(
        *[Call(CONCENTRATOR_KEY, CTT, "confirm(address)", owner) for owner in (ALICE, BOB)],
        Call(ADMIN_KEY, CTT, "revokeMeter(address)", BOB),
    )


def _readings(history: History) -> None:
    """The first reading of each is the baseline. One of the batch is refused, and three are of one prosumer; a report
    is refused whole."""
    now = history.time_ms
    history.block(
        Call(METER_KEYS[0], CTT, REPORT, OWNERS[0], now, 100, 200),
        Call(CONCENTRATOR_KEY, CTT, REPORT_BATCH, [(ALICE, now, 50, 0), (BOB, now, 0, 70)]),
        Call(METER_KEYS[1], CTT, "consume(uint256,address)", 400, OWNERS[1]),
        Call(METER_KEYS[2], CTT, "refill(uint256,address)", 600, OWNERS[2]),
        after_ms=QUARTER_MS,
    )
    history.block(
        Call(METER_KEYS[0], CTT, REPORT, OWNERS[0], now + 1, 130, 255),
        Call(METER_KEYS[0], CTT, REPORT, OWNERS[0], now + 1, 130, 255),
        Call(METER_KEYS[0], CTT, REPORT, OWNERS[0], now + QUARTER_MS, 130, 255),
        Call(
            CONCENTRATOR_KEY,
            CTT,
            REPORT_BATCH,
            [
                (ALICE, now + 10, 60, 1_000),
                (BOB, now + 10, 5, 60),
                (ALICE, now + 20, 61, 1_000),
                (BOB, now + 10, 5, 75),
                (ALICE, now + QUARTER_MS + 1, 90, 1_001),
            ],
        ),
    )


def _market(history: History) -> None:
    history.block(
        Call(ADMIN_KEY, MARKET, "setTariff(uint256,uint256,uint256,address)", 0, 3 * PRICE, PRICE // 10, BOB),
        Call(OWNER_KEYS[0], MARKET, ASK, 900, PRICE, FOREVER, [(ALICE, PRICE // 2), (BOB, 0)]),
        Call(OWNER_KEYS[1], MARKET, ASK, 3_000, PRICE, FOREVER, []),
        Call(ALICE_KEY, MARKET, BID, 800, 2 * PRICE, FOREVER, [], []),
        Call(BOB_KEY, MARKET, BID, 1_500, 2 * PRICE, FOREVER, [], []),
    )
    history.block()
    history.block()
    history.block()


def _tokens(history: History) -> None:
    """One is sold by the later of two offers, one by an offer in the same block, one is taken back, one given away."""
    sale = "setOnSale(uint256,uint256,uint256)"
    first, second, third = OWN_TOKENS
    history.block(
        Call(OWNER_KEYS[2], CTT, sale, first, 1, 1),
        Call(OWNER_KEYS[2], CTT, sale, first, 7 * 10**17, 5),
        Call(OWNER_KEYS[2], CTT, sale, third, 1, 1),
    )
    history.block(
        Call(ALICE_KEY, CTT, "buyToken(uint256)", first, value=10**18),
        Call(OWNER_KEYS[2], CTT, sale, second, 2, 3),
        Call(BOB_KEY, CTT, "buyToken(uint256)", second, value=10**18),
        Call(OWNER_KEYS[2], CTT, "cancelSale(uint256)", third),
        Call(OWNER_KEYS[3], CTT, "transferFrom(address,address,uint256)", OWNERS[3], BOB, CHARGED),
    )


def _treasury(history: History) -> None:
    """And a meter that is certified anew."""
    history.block(
        Call(ADMIN_KEY, CTT, "revokeMeter(address)", CONCENTRATOR),
        Call(ADMIN_KEY, CTT, "certifyMeter(address,uint8,uint64,bool)", CONCENTRATOR, 3, 0, True),
        Call(ADMIN_KEY, TREASURY, "issue(address,uint256,bytes32)", ALICE, 10**30, b"deposit".ljust(32)),
        Call(ADMIN_KEY, TREASURY, "redeem(uint256,bytes32)", 10**18, b"payout".ljust(32)),
    )


def read_tables(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of the keys."""
    engine = connect(url)
    with engine.connect() as connection:
        tables = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in METADATA.sorted_tables
        }
    engine.dispose()
    return tables


def position_of(url: str) -> int:
    """The height of the last block that the database has."""
    with connect(url).connect() as connection:
        height: int = connection.execute(select(CHAIN.c.height)).scalar_one()
    return height
