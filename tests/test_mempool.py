"""The pool: what it takes and in which order it refuses, who gives way when it is full, and the order for a block."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

import pytest

from ctt_state.crypto import sha256
from ctt_state.errors import (
    ExceedsBlockGasLimit,
    FeeBelowMinimum,
    InsufficientFunds,
    IntrinsicGasTooLow,
    InvalidTransaction,
    NonceTooHigh,
    NonceTooLow,
)
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Account
from ctt_state.transaction import DYNAMIC_FEE, Signed, Transaction
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Address, Gas, Hash, Ms, Wei
from node.mempool import (
    AccountLimitExceeded,
    AlreadyKnown,
    Mempool,
    MempoolLimits,
    PoolFull,
    PoolRole,
    ReplacementUnderpriced,
)
from tests.world import address

ALICE, BOB, CAROL, METER, METER_2, CONCENTRATOR, OPERATOR = PEOPLE = tuple(
    address(name) for name in ("alice", "bob", "carol", "meter", "meter 2", "concentrator", "operator")
)
ROLES: Final = {
    METER: PoolRole.METER,
    METER_2: PoolRole.METER,
    CONCENTRATOR: PoolRole.CONCENTRATOR,
    OPERATOR: PoolRole.OPERATOR,
}
BLOCK_GAS: Final = Gas(30_000_000)
TX_BYTES: Final = 200
CHAIN: Final = ChainParameters(
    chain_id=4_242,
    genesis_hash=ZERO_HASH,
    block_period_ms=Ms(1_000),
    epoch_blocks=900,
    is_development=True,
    block_gas_limit=BLOCK_GAS,
    minimum_gas_price_wei=Wei(0),
    fee_receiver=None,
    first_admin=ZERO_ADDRESS,
)
DEFAULT: Final = MempoolLimits()
WIDE: Final = MempoolLimits(ordinary_percent=100, ordinary_places=1_000, gap_max=1_000)


def make_transaction(
    sender: Address,
    nonce: int,
    *,
    value: int = 0,
    max_fee: int = 0,
    gas_limit: int = 100_000,
    data_bytes: int = 0,
    size_bytes: int = TX_BYTES,
    label: str = "",
) -> Signed:
    """Looks as if decoded and recovered; nothing in the pool looks at the signature. A `label` makes it another
    transaction of the same content."""
    fields = (sender, nonce, value, max_fee, gas_limit, data_bytes, size_bytes, label)
    transaction = Transaction(
        DYNAMIC_FEE,
        CHAIN.chain_id,
        nonce,
        Wei(max_fee),
        Wei(0),
        Wei(max_fee),
        Gas(gas_limit),
        ZERO_ADDRESS,
        Wei(value),
        bytes(data_bytes),
        (),
        0,
        1,
        1,
        Hash(sha256(repr(fields).encode())),
        bytes(size_bytes),
    )
    return Signed(transaction, sender)


class Pool:
    """A pool with the accounts that its node would look up, and the time."""

    def __init__(self, limits: MempoolLimits = DEFAULT, *, minimum_price_wei: int = 0) -> None:
        chain = replace(CHAIN, minimum_gas_price_wei=Wei(minimum_price_wei))
        self.roles = dict(ROLES)
        self.mempool = Mempool(chain, limits, lambda who: self.roles.get(who, PoolRole.ORDINARY))
        self.accounts: dict[Address, Account] = {}
        self.now_ms = 1_000_000

    def add(self, *transactions: Signed) -> None:
        for signed in transactions:
            self.mempool.add(signed, self.accounts.get(signed.sender, Account()), self.now_ms)

    def send(self, sender: Address, nonces: Iterable[int]) -> list[Signed]:
        transactions = [make_transaction(sender, nonce) for nonce in nonces]
        self.add(*transactions)
        return transactions

    def refuse(self, signed: Signed, reason: type[InvalidTransaction]) -> str:
        """The text of the refusal, which must have changed nothing."""
        before = self.mempool.content(), self.mempool.counts(), self.mempool.size_bytes()
        with pytest.raises(reason) as caught:
            self.add(signed)
        assert (self.mempool.content(), self.mempool.counts(), self.mempool.size_bytes()) == before
        assert type(caught.value) is reason
        return str(caught.value)

    def block(self, nonces: dict[Address, int]) -> None:
        """A block after which the senders have these nonces."""
        for sender, nonce in nonces.items():
            self.accounts[sender] = self.accounts.get(sender, Account())._replace(nonce=nonce)
        self.mempool.on_block(nonces.items(), self.now_ms)

    def candidates(self, count: int | None = None) -> list[Signed]:
        return list(islice(self.mempool.candidates(), count))

    def pending(self, sender: Address) -> list[int]:
        return [each.transaction.nonce for each in self.mempool.content().pending.get(sender, [])]

    def queued(self, sender: Address) -> list[int]:
        return [each.transaction.nonce for each in self.mempool.content().queued.get(sender, [])]


# --- admission: texts, order, boundaries ---


@pytest.mark.parametrize(
    ("signed", "reason", "text"),
    [
        (make_transaction(ALICE, 5), AlreadyKnown, "already known"),
        (make_transaction(ALICE, 4), NonceTooLow, "nonce too low: next nonce 5, tx nonce 4"),
        (
            make_transaction(ALICE, 6, gas_limit=20_999),
            IntrinsicGasTooLow,
            "intrinsic gas too low: have 20999 want 21000",
        ),
        (
            make_transaction(ALICE, 6, gas_limit=BLOCK_GAS + 1),
            ExceedsBlockGasLimit,
            "exceeds block gas limit: have 30000001 limit 30000000",
        ),
        (
            make_transaction(ALICE, 6, value=1_001),
            InsufficientFunds,
            "insufficient funds for gas * price + value: have 1000 want 1001",
        ),
        (make_transaction(ALICE, 23), NonceTooHigh, "nonce too high: next nonce 6, tx nonce 23"),
        (
            make_transaction(ALICE, 5, label="other"),
            ReplacementUnderpriced,
            "replacement transaction underpriced",
        ),
    ],
)
def test_each_refusal_has_its_text_and_changes_nothing(
    signed: Signed, reason: type[InvalidTransaction], text: str
) -> None:
    """Wallets match geth's words."""
    pool = Pool()
    pool.accounts[ALICE] = Account(5, Wei(1_000))
    pool.send(ALICE, [5])

    assert pool.refuse(signed, reason) == text


def test_of_several_faults_the_first_in_the_order_is_told() -> None:
    """Each transaction has the fault of its row and of all rows below that can go with it."""
    pool = Pool(
        MempoolLimits(ordinary_places=2, transactions_max=2, ordinary_percent=100), minimum_price_wei=2
    )
    pool.accounts[ALICE] = Account(5, Wei(500_000))
    known = make_transaction(ALICE, 5, max_fee=2)
    pool.add(known, make_transaction(ALICE, 6, max_fee=2))
    pool.accounts[ALICE] = Account(5, Wei(300_000))
    rich_in_faults = [
        (known, AlreadyKnown),
        (make_transaction(ALICE, 4, gas_limit=1, max_fee=1), NonceTooLow),
        (make_transaction(ALICE, 99, gas_limit=1, max_fee=1, value=10**9), IntrinsicGasTooLow),
        (make_transaction(ALICE, 99, gas_limit=10**9, max_fee=1, value=10**9), ExceedsBlockGasLimit),
        (make_transaction(ALICE, 99, max_fee=1, value=10**9), FeeBelowMinimum),
        (make_transaction(ALICE, 99, max_fee=2, value=10**9), InsufficientFunds),
        (make_transaction(ALICE, 99, max_fee=2, value=1), NonceTooHigh),
        (make_transaction(ALICE, 6, max_fee=2, value=1), ReplacementUnderpriced),
        (make_transaction(ALICE, 7, max_fee=2, value=1), AccountLimitExceeded),
        (make_transaction(ALICE, 6, max_fee=3, value=1, size_bytes=10**9), InsufficientFunds),
        (make_transaction(BOB, 0, max_fee=2, gas_limit=21_000), PoolFull),
    ]
    pool.accounts[BOB] = Account(0, Wei(42_000))

    for signed, reason in rich_in_faults:
        pool.refuse(signed, reason)


@pytest.mark.parametrize(
    ("sender", "places"), [(ALICE, 16), (METER, 64), (CONCENTRATOR, 4_096), (OPERATOR, 1_024)]
)
def test_a_sender_has_the_places_of_its_role_and_no_more(sender: Address, places: int) -> None:
    pool = Pool()
    pool.send(sender, range(places))

    text = pool.refuse(make_transaction(sender, places), AccountLimitExceeded)

    assert text == f"account limit exceeded: {places} pending"
    assert pool.mempool.counts() == (places, 0)


@pytest.mark.parametrize(("sender", "gap"), [(ALICE, 16), (METER, 16), (CONCENTRATOR, 256), (OPERATOR, 16)])
def test_a_gap_may_be_as_wide_as_the_role_allows_and_no_wider(sender: Address, gap: int) -> None:
    pool = Pool()
    pool.send(sender, [0])

    pool.send(sender, [1 + gap])
    pool.refuse(make_transaction(sender, 2 + gap), NonceTooHigh)

    assert pool.mempool.counts() == (1, 1)


def test_all_that_a_sender_has_here_must_be_affordable_together_gas_included() -> None:
    """Value and gas limit times the minimum price, of pending and queued ones."""
    pool = Pool(minimum_price_wei=1)
    pool.accounts[ALICE] = Account(0, Wei(3 * 21_000 + 10))
    pool.add(
        make_transaction(ALICE, 0, max_fee=1, gas_limit=21_000, value=4),
        make_transaction(ALICE, 2, max_fee=1, gas_limit=21_000, value=3),
    )

    text = pool.refuse(make_transaction(ALICE, 1, max_fee=1, gas_limit=21_000, value=4), InsufficientFunds)
    pool.add(make_transaction(ALICE, 1, max_fee=1, gas_limit=21_000, value=3))

    assert text == "insufficient funds for gas * price + value: have 63010 want 63011"
    assert pool.pending(ALICE) == [0, 1, 2]


def test_what_leaves_no_longer_counts_against_the_balance() -> None:
    """By a block, by a drop and by a replacement; one that stays here keeps the books open all along."""
    pool = Pool()
    pool.accounts[ALICE] = Account(0, Wei(10))
    third = make_transaction(ALICE, 2, value=4)
    pool.add(make_transaction(ALICE, 0, value=4), make_transaction(ALICE, 1, value=2), third)

    pool.accounts[ALICE] = Account(0, Wei(6))
    pool.block({ALICE: 1})
    pool.mempool.drop(third.transaction.hash)
    pool.add(make_transaction(ALICE, 2, value=4, label="again"))
    pool.add(make_transaction(ALICE, 2, value=3, max_fee=1))
    pool.add(make_transaction(ALICE, 3, value=1))

    pool.refuse(make_transaction(ALICE, 4, value=1), InsufficientFunds)


# --- replacement ---


@pytest.mark.parametrize(
    ("price", "too_little", "enough"), [(0, 0, 1), (1, 1, 2), (9, 9, 10), (10, 10, 11), (1_000, 1_099, 1_100)]
)
def test_a_replacement_offers_a_tenth_more_and_more_in_any_case(
    price: int, too_little: int, enough: int
) -> None:
    pool = Pool()
    pool.add(make_transaction(ALICE, 0, max_fee=price), make_transaction(ALICE, 1))
    better = make_transaction(ALICE, 0, max_fee=enough)

    pool.refuse(make_transaction(ALICE, 0, max_fee=too_little, label="other"), ReplacementUnderpriced)
    pool.add(better)

    assert pool.candidates()[0] is better
    assert pool.pending(ALICE) == [0, 1]


def test_the_replaced_one_is_gone_and_its_bytes_with_it() -> None:
    """Pending or queued."""
    pool = Pool()
    old = [make_transaction(ALICE, nonce) for nonce in (0, 2)]
    new = [make_transaction(ALICE, nonce, max_fee=1, size_bytes=333) for nonce in (0, 2)]

    pool.add(*old, *new)

    assert [pool.mempool.get(each.transaction.hash) for each in (*old, *new)] == [None, None, *new]
    assert pool.mempool.size_bytes() == 666
    assert pool.mempool.counts() == (1, 1)


def test_a_sender_without_a_free_place_may_replace() -> None:
    pool = Pool()
    pool.send(ALICE, range(16))

    pool.add(make_transaction(ALICE, 15, max_fee=1))

    assert pool.mempool.counts() == (16, 0)


def test_a_full_pool_takes_a_replacement_and_displaces_nothing_for_it() -> None:
    pool = Pool(replace(WIDE, transactions_max=2))
    pool.send(ALICE, [0, 2])

    pool.add(make_transaction(ALICE, 0, max_fee=1), make_transaction(ALICE, 2, max_fee=1))

    assert pool.mempool.counts() == (1, 1)


def test_a_larger_replacement_needs_the_bytes_that_it_adds() -> None:
    pool = Pool(replace(WIDE, bytes_max=2 * TX_BYTES + 100))
    pool.send(ALICE, [0, 1])

    pool.refuse(make_transaction(ALICE, 0, max_fee=1, size_bytes=TX_BYTES + 101), PoolFull)
    pool.add(make_transaction(ALICE, 0, max_fee=1, size_bytes=TX_BYTES + 100))

    assert pool.mempool.size_bytes() == 2 * TX_BYTES + 100


# --- pending and queued ---


def test_the_missing_nonce_makes_what_follows_pending() -> None:
    pool = Pool()
    pool.send(ALICE, [3, 1, 4, 0])
    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0, 1], [3, 4])
    assert pool.mempool.pending_nonce(ALICE, 0) == 2

    pool.send(ALICE, [2])

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0, 1, 2, 3, 4], [])
    assert pool.mempool.pending_nonce(ALICE, 0) == 5
    assert pool.mempool.counts() == (5, 0)


def test_the_pending_nonce_of_a_stranger_is_its_accounts() -> None:
    assert Pool().mempool.pending_nonce(BOB, 7) == 7


def test_the_pending_nonce_is_never_below_the_accounts() -> None:
    pool = Pool()
    pool.send(ALICE, [0])

    assert pool.mempool.pending_nonce(ALICE, 3) == 3


def test_a_transaction_is_found_by_its_hash_while_it_is_here() -> None:
    pool = Pool()
    (signed,) = pool.send(ALICE, [0])

    assert pool.mempool.get(signed.transaction.hash) is signed
    assert pool.mempool.get(ZERO_HASH) is None


def test_a_block_takes_out_what_it_used_up() -> None:
    pool = Pool()
    pool.send(ALICE, [0, 1, 2, 4])
    pool.send(BOB, [0])

    pool.block({ALICE: 2, CAROL: 1})

    assert (pool.pending(ALICE), pool.queued(ALICE), pool.pending(BOB)) == ([2], [4], [0])
    assert pool.mempool.size_bytes() == 3 * TX_BYTES


def test_a_block_from_elsewhere_may_use_nonces_that_were_never_here() -> None:
    """It then makes queued ones pending, or uses them up too."""
    pool = Pool()
    pool.send(ALICE, [0, 3, 4, 6])

    pool.block({ALICE: 4})

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([4], [6])
    pool.block({ALICE: 7})
    assert pool.mempool.counts() == (0, 0)
    assert pool.candidates() == []


def test_an_account_ahead_of_the_pool_counts_as_a_block() -> None:
    pool = Pool()
    pool.send(ALICE, [0, 1])
    pool.accounts[ALICE] = Account(2)

    pool.send(ALICE, [2])

    assert pool.pending(ALICE) == [2]


def test_an_account_behind_the_pool_does_not_bring_used_nonces_back() -> None:
    pool = Pool()
    pool.send(ALICE, [0, 1])
    pool.block({ALICE: 1})
    pool.accounts[ALICE] = Account(0)

    assert pool.refuse(make_transaction(ALICE, 0), NonceTooLow) == "nonce too low: next nonce 1, tx nonce 0"


def test_what_followed_a_dropped_one_waits_for_its_nonce() -> None:
    pool = Pool()
    sent = pool.send(ALICE, range(4))

    pool.mempool.drop(sent[1].transaction.hash)
    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [2, 3])
    pool.mempool.drop(sent[0].transaction.hash)
    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([], [2, 3])
    assert pool.candidates() == []

    pool.send(ALICE, [0, 1])
    assert pool.pending(ALICE) == [0, 1, 2, 3]


def test_dropping_a_queued_one_leaves_the_others_alone_and_a_stranger_nothing() -> None:
    pool = Pool()
    sent = pool.send(ALICE, [0, 2, 3])

    pool.mempool.drop(sent[1].transaction.hash)
    pool.mempool.drop(ZERO_HASH)

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [3])


# --- life ---


def test_a_queued_one_leaves_when_its_life_is_over_and_a_pending_one_stays() -> None:
    """Ten minutes; the last millisecond is still life."""
    pool = Pool()
    pool.send(ALICE, [0, 2])
    pool.send(METER, [1])

    pool.now_ms += 599_999
    pool.send(BOB, [1])
    assert pool.mempool.counts() == (1, 3)

    pool.now_ms += 1
    pool.block({})
    assert (pool.pending(ALICE), pool.queued(ALICE), pool.queued(METER)) == ([0], [], [])
    assert pool.queued(BOB) == [1]


def test_time_passes_with_transactions_as_with_blocks() -> None:
    pool = Pool()
    pool.send(ALICE, [1])
    pool.now_ms += 600_000

    pool.send(BOB, [0])

    assert pool.mempool.counts() == (1, 0)


def test_a_demoted_one_begins_its_life_anew() -> None:
    pool = Pool()
    sent = pool.send(ALICE, [0, 1])
    pool.now_ms += 600_000
    pool.block({})
    pool.mempool.drop(sent[0].transaction.hash)

    pool.now_ms += 599_999
    pool.block({})
    assert pool.queued(ALICE) == [1]
    pool.now_ms += 1
    pool.block({})
    assert pool.queued(ALICE) == []


def test_a_replaced_queued_one_begins_its_life_anew() -> None:
    pool = Pool()
    pool.send(ALICE, [1])
    pool.now_ms += 599_999
    pool.add(make_transaction(ALICE, 1, max_fee=1))

    pool.now_ms += 599_999
    pool.block({})

    assert pool.queued(ALICE) == [1]


# --- when full ---


def test_the_pool_holds_as_many_as_its_limit_and_no_more() -> None:
    pool = Pool(replace(WIDE, transactions_max=10))
    pool.send(ALICE, range(10))

    text = pool.refuse(make_transaction(BOB, 0), PoolFull)

    assert text == "txpool is full"


def test_the_pool_holds_as_many_bytes_as_its_limit_and_no_more() -> None:
    pool = Pool(replace(WIDE, bytes_max=1_000))
    pool.add(make_transaction(ALICE, 0, size_bytes=900), make_transaction(ALICE, 1, size_bytes=100))

    pool.refuse(make_transaction(BOB, 0, size_bytes=1), PoolFull)


def test_ordinary_senders_fill_at_most_their_share_and_the_rest_is_kept() -> None:
    """Seven of ten; the eighth is refused, while the reserved lane has three more."""
    pool = Pool(MempoolLimits(transactions_max=10))
    pool.send(ALICE, range(7))

    pool.refuse(make_transaction(BOB, 0), PoolFull)
    for sender in (METER, CONCENTRATOR, OPERATOR):
        pool.send(sender, [0])

    pool.refuse(make_transaction(METER_2, 0), PoolFull)
    assert pool.mempool.counts() == (10, 0)


def test_the_share_holds_for_bytes_too() -> None:
    pool = Pool(MempoolLimits(bytes_max=1_000))
    pool.add(make_transaction(ALICE, 0, size_bytes=700))

    pool.refuse(make_transaction(BOB, 0, size_bytes=1), PoolFull)
    pool.add(make_transaction(METER, 0, size_bytes=300))

    assert pool.mempool.size_bytes() == 1_000


def test_the_reserved_lane_may_use_all_the_room_that_is_free() -> None:
    pool = Pool(MempoolLimits(transactions_max=10))
    pool.send(METER, range(10))

    pool.refuse(make_transaction(ALICE, 0), PoolFull)


def test_a_queued_newcomer_displaces_nobody() -> None:
    pool = Pool(replace(WIDE, transactions_max=2))
    pool.send(ALICE, [0, 2])

    pool.refuse(make_transaction(BOB, 1), PoolFull)


def test_a_pending_newcomer_displaces_the_queued_one_that_waits_longest() -> None:
    pool = Pool(replace(WIDE, transactions_max=4))
    pool.send(ALICE, [0, 5])
    pool.send(CAROL, [3])
    pool.send(ALICE, [4])

    pool.send(BOB, [0, 1])

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [4])
    assert (pool.queued(CAROL), pool.pending(BOB)) == ([], [0, 1])


def test_a_pending_newcomer_displaces_as_many_as_its_bytes_need_or_none() -> None:
    pool = Pool(replace(WIDE, bytes_max=1_000))
    pool.add(make_transaction(ALICE, 0, size_bytes=400))
    for nonce in (2, 3, 4):
        pool.add(make_transaction(ALICE, nonce, size_bytes=200))

    pool.refuse(make_transaction(BOB, 0, size_bytes=601), PoolFull)
    pool.add(make_transaction(BOB, 0, size_bytes=400))

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [4])


def test_a_larger_replacement_of_a_pending_one_displaces_too_and_of_a_queued_one_does_not() -> None:
    pool = Pool(replace(WIDE, bytes_max=600))
    pool.send(ALICE, [0, 2])
    pool.send(BOB, [1])

    pool.refuse(make_transaction(BOB, 1, max_fee=1, size_bytes=201), PoolFull)
    pool.add(make_transaction(ALICE, 0, max_fee=1, size_bytes=201))

    assert (pool.pending(ALICE), pool.queued(ALICE), pool.queued(BOB)) == ([0], [], [1])


def test_an_ordinary_newcomer_leaves_the_reserved_lane_alone() -> None:
    pool = Pool(MempoolLimits(transactions_max=10))
    pool.send(METER, range(1, 11))

    pool.refuse(make_transaction(ALICE, 0), PoolFull)

    assert len(pool.queued(METER)) == 10


def test_the_reserved_lane_displaces_ordinary_ones_first_then_its_own() -> None:
    pool = Pool(MempoolLimits(transactions_max=3))
    pool.send(METER, [1, 2])
    pool.send(ALICE, [1])

    pool.send(METER_2, [0])
    assert (pool.queued(METER), pool.queued(ALICE)) == ([1, 2], [])
    pool.send(METER_2, [1])

    assert (pool.queued(METER), pool.pending(METER_2)) == ([2], [0, 1])


def test_a_pending_newcomer_may_displace_queued_ones_of_its_own_sender() -> None:
    pool = Pool(replace(WIDE, transactions_max=1))
    pool.send(ALICE, [1])

    pool.send(ALICE, [0])

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [])


def test_a_sender_without_a_free_place_gives_up_its_last_queued_one_for_a_pending_one() -> None:
    """Otherwise sixteen queued ones would shut out the nonce that they wait for."""
    pool = Pool()
    pool.send(ALICE, range(1, 17))
    pool.refuse(make_transaction(ALICE, 17), NonceTooHigh)
    pool.block({})

    pool.send(ALICE, [0])

    assert (pool.pending(ALICE), pool.queued(ALICE)) == (list(range(16)), [])
    pool.refuse(make_transaction(ALICE, 16), AccountLimitExceeded)


def test_a_sender_without_a_free_place_gives_up_none_for_one_that_must_wait() -> None:
    pool = Pool()
    pool.send(ALICE, [*range(15), 17])

    text = pool.refuse(make_transaction(ALICE, 16), AccountLimitExceeded)

    assert text == "account limit exceeded: 16 pending"


def test_a_displaced_one_of_the_same_sender_no_longer_counts_against_its_balance() -> None:
    pool = Pool(MempoolLimits(ordinary_places=1))
    pool.accounts[ALICE] = Account(0, Wei(5))
    pool.add(make_transaction(ALICE, 1, value=5))

    pool.add(make_transaction(ALICE, 0, value=5))

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [])


def test_of_a_senders_queued_ones_the_one_that_came_last_gives_way_a_replacement_included() -> None:
    pool = Pool(MempoolLimits(ordinary_places=2))
    pool.send(ALICE, [2, 3])
    pool.add(make_transaction(ALICE, 2, max_fee=1))

    pool.send(ALICE, [0])

    assert (pool.pending(ALICE), pool.queued(ALICE)) == ([0], [3])


def test_nothing_is_displaced_when_even_all_that_may_give_way_is_too_little() -> None:
    """Also not of the sender itself."""
    pool = Pool(MempoolLimits(ordinary_places=1, bytes_max=1_000, ordinary_percent=100))
    pool.add(make_transaction(BOB, 0, size_bytes=700), make_transaction(ALICE, 1, size_bytes=100))

    pool.refuse(make_transaction(ALICE, 0, size_bytes=301), PoolFull)
    pool.add(make_transaction(ALICE, 0, size_bytes=300))

    assert pool.mempool.counts() == (2, 0)


# --- the order for a block ---


def names(candidates: Iterable[Signed]) -> list[tuple[Address, int]]:
    return [(each.sender, each.transaction.nonce) for each in candidates]


def test_senders_take_turns_each_in_nonce_order() -> None:
    pool = Pool()
    pool.send(ALICE, [2, 1, 0])
    pool.send(BOB, [0, 1, 3])
    pool.send(CAROL, [0])

    assert names(pool.candidates()) == [(ALICE, 0), (BOB, 0), (CAROL, 0), (ALICE, 1), (BOB, 1), (ALICE, 2)]


def test_who_was_served_goes_behind_those_who_were_not() -> None:
    """So that senders who never stop cannot keep a block's first places."""
    pool = Pool()
    for sender in (ALICE, BOB, CAROL):
        pool.send(sender, [0, 1])

    pool.block({ALICE: 1})
    assert [each.sender for each in pool.candidates(3)] == [BOB, CAROL, ALICE]

    pool.block({BOB: 1})
    assert [each.sender for each in pool.candidates(3)] == [CAROL, ALICE, BOB]


def test_looking_at_candidates_changes_nothing() -> None:
    pool = Pool()
    pool.send(ALICE, range(5))
    pool.send(METER, range(5))

    assert pool.candidates(3) == pool.candidates()[:3]
    assert pool.candidates() == pool.candidates()


def is_reserved(signed: Signed) -> bool:
    return signed.sender in ROLES


def test_the_reserved_lane_has_three_places_of_ten_while_traders_flood() -> None:
    pool = Pool(replace(WIDE, ordinary_percent=70))
    for sender in (ALICE, BOB, CAROL):
        pool.send(sender, range(300))
    pool.send(CONCENTRATOR, range(300))

    lanes = [is_reserved(each) for each in pool.candidates(900)]

    assert lanes[0]
    assert all(sum(lanes[:count]) >= count * 3 // 10 for count in range(901))
    assert sum(lanes) == 270


def test_traders_have_their_part_while_meters_flood() -> None:
    pool = Pool(replace(WIDE, ordinary_percent=70))
    pool.send(CONCENTRATOR, range(300))
    pool.send(ALICE, range(100))

    assert sum(is_reserved(each) for each in pool.candidates(100)) == 30


@pytest.mark.parametrize("sender", [ALICE, METER])
def test_a_lane_alone_has_every_place(sender: Address) -> None:
    pool = Pool()
    sent = pool.send(sender, range(16))

    assert pool.candidates() == sent


def test_large_transactions_of_traders_do_not_crowd_out_meters() -> None:
    """The share is of intrinsic gas: 100,000 bytes of data weigh as much as 77 transactions without."""
    pool = Pool(replace(WIDE, ordinary_percent=70))
    pool.send(CONCENTRATOR, range(200))
    for nonce in range(100):
        pool.add(make_transaction(ALICE, nonce, gas_limit=2_000_000, data_bytes=100_000, size_bytes=100_000))

    lanes = [is_reserved(each) for each in pool.candidates(100)]

    assert lanes.count(False) == 3


# --- roles ---


def test_a_senders_new_role_counts_after_the_next_block_with_it() -> None:
    """A meter that is revoked keeps what it has here, in the ordinary lane; more is refused."""
    pool = Pool(MempoolLimits(transactions_max=100))
    pool.send(METER, range(64))
    pool.send(ALICE, range(16))
    pool.roles[METER] = PoolRole.ORDINARY

    pool.block({METER: 10})

    assert len(pool.pending(METER)) == 54
    text = pool.refuse(make_transaction(METER, 64), AccountLimitExceeded)
    assert text == "account limit exceeded: 16 pending"
    pool.refuse(make_transaction(BOB, 0), PoolFull)
    pool.send(METER_2, range(30))


def test_a_sender_that_becomes_a_meter_frees_the_ordinary_lane() -> None:
    pool = Pool(MempoolLimits(transactions_max=10))
    pool.send(ALICE, [0, 1, 2, 4])
    pool.send(BOB, [0, 1])
    pool.roles[ALICE] = PoolRole.METER

    pool.block({ALICE: 1})
    pool.send(CAROL, range(5))

    assert (pool.pending(ALICE), pool.queued(ALICE), len(pool.pending(CAROL))) == ([1, 2], [4], 5)
    assert [each.sender for each in pool.candidates(2)] == [ALICE, BOB]
    assert pool.mempool.counts() == (9, 1)


def test_a_sender_that_comes_back_has_the_role_of_now() -> None:
    pool = Pool()
    pool.send(METER, [0])
    pool.block({METER: 1})
    pool.roles[METER] = PoolRole.ORDINARY

    pool.send(METER, range(1, 17))

    pool.refuse(make_transaction(METER, 17), AccountLimitExceeded)
