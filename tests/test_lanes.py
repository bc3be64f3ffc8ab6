"""Meters are heard while traders flood: a full pool takes them, and blocks of its transactions keep their share of gas."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import address_of, sha256
from ctt_state.records import Account
from ctt_state.transaction import Signed
from node.ledger import Ledger
from node.mempool import Candidates, Mempool, MempoolLimits, PoolFull, PoolRole
from tests.ledger_world import (
    ALICE_KEY,
    BOB_KEY,
    GENESIS,
    METER_KEYS,
    OWNERS,
    finish,
    make_ledger,
    make_plan,
    sign,
    sign_call,
)

METERS: Final = frozenset(map(address_of, METER_KEYS))
LIMITS: Final = MempoolLimits(transactions_max=100)
PRICE_WEI: Final = 10**16


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    market = json.loads(GENESIS.read_bytes())["market"] | {"ordersMax": 1, "tokensMax": 1}
    ledger = make_ledger(tmp_path / "node", blockGasLimit=8_000_000, market=market)
    yield ledger
    ledger.close()


def make_pool(ledger: Ledger, limits: MempoolLimits = LIMITS) -> Mempool:
    return Mempool(ledger.chain, limits, lambda who: PoolRole.METER if who in METERS else PoolRole.ORDINARY)


def add(pool: Mempool, ledger: Ledger, signed: Signed) -> None:
    found = ledger.lookup(Account.key(signed.sender))
    pool.add(signed, found if isinstance(found, Account) else Account(), 0)


def flood(pool: Mempool, ledger: Ledger) -> None:
    """Traders without end, as on a chain without fees anyone can be."""
    with pytest.raises(PoolFull):
        for number in range(100):
            key = sha256(b"trader %d" % number)
            for nonce in range(16):
                add(pool, ledger, sign(key, nonce, value=0))


def reading(meter: int, nonce: int) -> Signed:
    return sign_call(METER_KEYS[meter], nonce, "refill(uint256,address)", 1, OWNERS[meter])


def test_a_flooded_pool_takes_a_meters_reading_and_the_next_block_has_it(ledger: Ledger) -> None:
    pool = make_pool(ledger)
    flood(pool, ledger)

    add(pool, ledger, reading(0, 0))
    executed, dropped = ledger.build(make_plan(ledger), pool.candidates(5))
    finish(ledger, executed)

    assert pool.counts() == (71, 0) and not dropped
    assert ledger.head.senders[0] == address_of(METER_KEYS[0])
    assert ledger.head.receipts[0].succeeded


@pytest.mark.parametrize("is_charged", [True, False])
def test_costly_transactions_do_not_crowd_out_readings(ledger: Ledger, is_charged: bool) -> None:
    """A purchase uses six times the gas of a reading, with the same intrinsic gas. While both wait, readings get three
    parts of ten of the gas; did nobody tell what was used, they would not."""
    pool = make_pool(ledger, MempoolLimits())
    for nonce in range(16):
        for key in (ALICE_KEY, BOB_KEY):
            add(pool, ledger, sign_call(key, nonce, "buyEmptyTokens(uint256)", 40, value=40 * PRICE_WEI))
    for nonce in range(30):
        for meter in range(len(METER_KEYS)):
            add(pool, ledger, reading(meter, nonce))

    candidates = pool.candidates()
    if is_charged:
        executed, _ = ledger.build(make_plan(ledger), candidates, candidates.charge)
    else:
        executed, _ = ledger.build(make_plan(ledger), candidates)

    final, used = executed.final, Counter[bool]()
    for sender, receipt in zip(final.senders, final.receipts, strict=True):
        assert receipt.succeeded
        used[sender in METERS] += receipt.gas_used
    assert 0 < len(final.senders) < sum(pool.counts())  # both still wait
    assert (29 <= 100 * used[True] // used.total() <= 35) is is_charged


TRANSACTIONS: Final = [sign(key, 0, value=0) for key in (ALICE_KEY, METER_KEYS[0])]


@given(
    gas=st.lists(st.tuples(st.integers(21_000, 10**7), st.integers(21_000, 10**7)), min_size=1, max_size=60)
)
def test_neither_lane_gets_more_than_its_percentage_but_for_one_transaction(
    gas: list[tuple[int, int]],
) -> None:
    """Whatever each uses: while both wait, no lane is further ahead than by its last transaction."""
    count = len(gas)
    candidates = Candidates([TRANSACTIONS[1]] * count, [TRANSACTIONS[0]] * count, 70)
    used, given_of, largest = Counter[bool](), Counter[bool](), 0
    for signed in candidates:
        is_meter = signed.sender in METERS
        spent = gas[given_of[is_meter]][is_meter]
        candidates.charge(spent)
        used[is_meter] += spent
        given_of[is_meter] += 1
        largest = max(largest, spent)
        if count in given_of.values():
            break
        assert abs(used[True] * 70 - used[False] * 30) <= largest * 70
    assert candidates is iter(candidates)
