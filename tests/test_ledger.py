"""The ledger over a real database: what one node builds another accepts, bit for bit, and nothing else."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.block import Header, evidence_root
from ctt_state.crypto import public_key
from ctt_state.errors import InvalidBlock, NonceTooLow, StateBuried, StatePruned, StateUnready
from ctt_state.genesis import development_key
from ctt_state.records import Account, Barred, EpochSet, Record, Token
from ctt_state.transaction import Signed
from ctt_state.units import Gas, Hash, Ms, TokenId
from ctt_state.votes import Evidence, Kind, Statement, sign_vote
from node import ledger as ledger_module
from node import store as store_module
from node.ledger import BLOCKS_AT_ONCE, Ledger, WrongField, decode_transactions
from node.store import StorageMissing
from node.unfinal import Executed
from tests.ledger_world import (
    ADMIN_KEY,
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    METER_KEYS,
    OWNER_KEYS,
    OWNERS,
    PERIOD_MS,
    account,
    add_block,
    finish,
    make_ledger,
    make_plan,
    records_of,
    sign,
    sign_call,
    state_of,
)

PRICE_WEI: Final = 10**16  # of an empty token
HOUR_MS: Final = 3_600_000
VALIDATOR_KEY: Final = development_key(0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The chain of the node that builds."""
    opened = make_ledger(tmp_path / "builder")
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ledger]:
    """The same chain on another node."""
    opened = make_ledger(tmp_path / "other")
    yield opened
    opened.close()


def readings(nonce: int) -> list[Signed]:
    """Each meter stores 300 Wh or, at odd nonces, takes 200 Wh; and Alice pays Bob."""
    function, amount = ("consume(uint256,address)", 200) if nonce % 2 else ("refill(uint256,address)", 300)
    calls = [sign_call(key, nonce, function, amount, OWNERS[i]) for i, key in enumerate(METER_KEYS)]
    return [*calls, sign(ALICE_KEY, nonce, value=7)]


def build(ledger: Ledger, transactions: Sequence[Signed]) -> Executed:
    executed, dropped = ledger.build(make_plan(ledger), transactions)
    assert not dropped
    return executed


# --- built here, executed elsewhere ---


def test_what_one_node_builds_another_executes_to_the_same_rows(ledger: Ledger, other: Ledger) -> None:
    for nonce in range(4):
        built = build(ledger, readings(nonce))
        executed = other.execute(built.final.block, readings(nonce))

        assert executed.final == built.final
        assert all(receipt.succeeded for receipt in built.final.receipts)
        assert executed.state == built.state
        assert executed.nodes == built.nodes
        finish(ledger, built)
        finish(other, executed)
    assert other.head == ledger.head
    assert dict(other.store.node_rows()) == dict(ledger.store.node_rows())


def test_a_block_without_transactions_keeps_the_state_root(ledger: Ledger) -> None:
    root = ledger.head.block.header.state_root
    assert add_block(ledger).final.block.header.state_root == root
    assert ledger.head.block.header.height == 1


WRONG: Final[dict[str, Any]] = {
    "version": 2,
    "genesis_hash": Hash(b"g" * 32),
    "height": 2,
    "epoch": 1,
    "timestamp_ms": Ms(1),
    "gas_used": Gas(1),
    "transactions_root": Hash(b"t" * 32),
    "receipts_root": Hash(b"r" * 32),
    "state_root": Hash(b"s" * 32),
    "evidence_root": Hash(b"e" * 32),
    "validators_hash": Hash(b"v" * 32),
    "next_validators_hash": Hash(b"n" * 32),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_header_that_claims_something_else_is_refused(ledger: Ledger, name: str) -> None:
    transactions = readings(0)
    block = build(ledger, transactions).final.block
    header = block.header._replace(**{name: WRONG[name]})

    with pytest.raises(WrongField, match=f"header of block .*: {name} is .*, must be") as refusal:
        ledger.execute(block._replace(header=header), transactions)
    assert (refusal.value.field, refusal.value.claimed) == (name, WRONG[name])
    assert ledger.execute(block, transactions).final.block == block
    assert ledger.executed(header.hash) is None


def test_what_consensus_decides_is_taken_as_it_is() -> None:
    """View and proposer are consensus' to judge, the parent says where the block stands."""
    assert set(Header._fields) - WRONG.keys() == {"view", "parent_hash", "proposer"}


def test_a_block_may_not_come_before_its_period_has_passed(ledger: Ledger, other: Ledger) -> None:
    early = ledger.build(make_plan(ledger, PERIOD_MS - 1), [])[0].final.block
    with pytest.raises(WrongField, match=r"timestamp_ms is \d+, must be at least \d+"):
        other.execute(early, [])
    in_time = ledger.build(make_plan(ledger, PERIOD_MS), [])[0].final.block
    assert other.execute(in_time, []).final.block == in_time


def test_a_block_without_one_of_its_transactions_is_refused(ledger: Ledger, other: Ledger) -> None:
    transactions = readings(0)
    block = build(ledger, transactions).final.block
    with pytest.raises(WrongField, match="header of block 1: gas_used"):
        other.execute(block, transactions[:-1])


def test_transactions_that_are_not_the_blocks_are_refused(ledger: Ledger, other: Ledger) -> None:
    """They cost the same gas and leave the same receipts, but they are others."""
    block = build(ledger, [sign(ALICE_KEY, 0, value=1)]).final.block
    with pytest.raises(WrongField, match="transactions_root"):
        other.execute(block, [sign(ALICE_KEY, 0, value=2)])


def test_a_transaction_that_may_not_stand_there_is_named(ledger: Ledger, other: Ledger) -> None:
    transactions = [sign(ALICE_KEY, 0), sign(ALICE_KEY, 2)]
    block = build(ledger, transactions[:1]).final.block
    with pytest.raises(
        InvalidBlock, match="transaction 1 of block 1: nonce too high: next nonce 1, tx nonce 2"
    ):
        other.execute(block, transactions)


def test_a_transaction_cannot_stand_twice(ledger: Ledger, other: Ledger) -> None:
    """Its nonce is used up, in the block as across blocks."""
    once = sign(ALICE_KEY, 0)
    block = build(ledger, [once]).final.block
    with pytest.raises(InvalidBlock, match="transaction 1 of block 1: nonce too low"):
        other.execute(block, [once, once])


def test_a_block_that_uses_more_gas_than_it_says_is_not_executed_further(
    ledger: Ledger, other: Ledger
) -> None:
    transactions = [sign(ALICE_KEY, nonce, gas_limit=21_000) for nonce in range(3)]
    block = build(ledger, transactions).final.block
    lying = block._replace(header=block.header._replace(gas_used=Gas(41_999)))
    with pytest.raises(WrongField, match="gas_used is 41999, must be at least 42000"):
        other.execute(lying, transactions)


def test_a_block_above_the_gas_limit_is_refused(ledger: Ledger, other: Ledger) -> None:
    """Its header tells the truth, but that is too much for this chain."""
    transactions = [sign(ALICE_KEY, nonce, gas_limit=21_000) for nonce in range(48)]
    block = build(ledger, transactions).final.block
    other.chain = replace(other.chain, block_gas_limit=Gas(1_000_000))
    with pytest.raises(InvalidBlock, match="block 1: gas used: 1008000, limit 1000000"):
        other.execute(block, transactions)
    other.chain = replace(other.chain, block_gas_limit=Gas(1_008_000))
    assert other.execute(block, transactions).final.block == block


def test_a_block_with_more_than_it_may_hold_is_refused(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = readings(0)
    block = build(ledger, transactions).final.block
    size = sum(map(len, block.transactions))
    for name, limit, told in (
        ("BLOCK_TRANSACTIONS_MAX", 5, "transactions: 5, limit 4"),
        ("BLOCK_BYTES_MAX", size, f"bytes of transactions: {size}, limit {size - 1}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, name, limit - 1)
            with pytest.raises(InvalidBlock, match=f"block 1: {told}"):
                other.execute(block, transactions)
    monkeypatch.setattr(ledger_module, "BLOCK_TRANSACTIONS_MAX", 5)
    monkeypatch.setattr(ledger_module, "BLOCK_BYTES_MAX", size)
    assert other.execute(block, transactions).final.block == block


def test_the_transactions_of_a_block_decode_or_the_block_is_refused(ledger: Ledger) -> None:
    transactions = readings(0)
    block = build(ledger, transactions).final.block
    assert decode_transactions(block, ledger.chain) == [each.transaction for each in transactions]
    broken = block._replace(transactions=(*block.transactions[:2], b"\x02junk"))
    with pytest.raises(InvalidBlock, match="transaction 2 of block 1: "):
        decode_transactions(broken, ledger.chain)


# --- epochs ---


def test_each_epochs_set_is_known_when_it_is_fixed(tmp_path: Path) -> None:
    """Epochs of ten blocks fix the next set in their fifth: before it nobody knows it, after it all headers name it."""
    ledger = make_ledger(tmp_path / "node", epochBlocks=10)
    members = ledger.genesis.validator_set
    for height in range(1, 26):
        epoch = (height - 1) // 10
        assert ledger.validators(epoch) == members
        executed, _ = ledger.build(make_plan(ledger), [])
        assert (executed.header.epoch, executed.header.validators_hash) == (epoch, members.hash)
        assert (EpochSet.key(epoch + 1) in executed.state) == (height % 10 == 5)
        finish(ledger, executed)
        if height % 10 < 5 and height % 10:
            with pytest.raises(LookupError, match=f"the set of epoch {epoch + 1} is not known"):
                ledger.validators(epoch + 1)
    ledger.close()


def test_a_block_over_an_unfinal_one_that_fixed_the_set_names_it(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "node", epochBlocks=10)
    for _ in range(4):
        add_block(ledger)
    parent = ledger.head
    for _ in range(9):
        executed, _ = ledger.build(make_plan(ledger, parent=parent), [])
        parent = executed.final
    assert (executed.header.height, executed.header.epoch, executed.header.view) == (13, 1, 3)
    for each in ledger.path_to(executed.hash):
        finish(ledger, each)
    assert ledger.validators(1) == ledger.genesis.validator_set
    ledger.close()


def test_a_plan_for_another_epoch_is_our_own_mistake(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="a plan for block 1 in epoch 1"):
        ledger.build(make_plan(ledger)._replace(epoch=1), [])


# --- evidence ---


def double_vote(ledger: Ledger, view: int = 7, key: bytes = VALIDATOR_KEY) -> bytes:
    """Two NOTARIZEs of the only validator in one view."""
    votes = [
        sign_vote(Statement(Kind.NOTARIZE, 0, view, 0, Hash(name * 32)), 0, key, ledger.genesis.hash)
        for name in (b"a", b"b")
    ]
    return Evidence(*votes).encode()


def test_a_block_takes_the_valid_evidence_at_hand(ledger: Ledger, other: Ledger) -> None:
    good, forged = double_vote(ledger), double_vote(ledger, key=ALICE_KEY)
    plan = make_plan(ledger, evidence=[b"junk", forged, good, double_vote(ledger, view=8)])

    executed, _ = ledger.build(plan, readings(0))

    assert executed.final.block.evidence == (good,)
    assert executed.header.evidence_root == evidence_root([good])
    assert Barred.key(public_key(VALIDATOR_KEY)) in executed.state
    assert other.execute(executed.final.block, readings(0)) == executed
    finish(ledger, executed)
    assert ledger.block(1) == executed.final
    assert ledger.build(make_plan(ledger, evidence=[good]), [])[0].final.block.evidence == ()


def test_evidence_that_is_none_makes_a_block_invalid(ledger: Ledger, other: Ledger) -> None:
    block = ledger.build(make_plan(ledger, evidence=[double_vote(ledger)]), [])[0].final.block
    forged = double_vote(ledger, key=ALICE_KEY)
    with pytest.raises(InvalidBlock, match="evidence against validator 0 of epoch 0 is not signed by it"):
        other.execute(block._replace(evidence=(forged,)), [])
    with pytest.raises(InvalidBlock, match="evidence: 5, limit 4"):
        other.execute(block._replace(evidence=(forged,) * 5), [])
    with pytest.raises(WrongField, match="state_root"):  # the key stays unbarred
        other.execute(block._replace(evidence=()), [])


# --- what fits ---


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Ledger]:
    """A chain whose blocks take a million gas."""
    opened = make_ledger(tmp_path / "tight", blockGasLimit=1_000_000, market=None)
    yield opened
    opened.close()


def test_transactions_beyond_the_gas_limit_wait_in_their_order(tight: Ledger) -> None:
    transactions = [sign(ALICE_KEY, nonce, gas_limit=21_000) for nonce in range(50)]
    executed, dropped = tight.build(make_plan(tight), transactions)
    assert not dropped
    assert executed.final.transaction_hashes == tuple(each.transaction.hash for each in transactions[:47])
    assert executed.final.block.header.gas_used == 47 * 21_000


def test_what_a_transaction_uses_counts_and_not_what_it_offers(tight: Ledger) -> None:
    """A transfer that offers a whole block's gas takes its 21,000."""
    transactions = [sign(ALICE_KEY, nonce, gas_limit=1_000_000) for nonce in range(50)]
    executed = build(tight, transactions)
    assert len(executed.final.receipts) == 47


def test_one_that_does_not_fit_leaves_nothing(tight: Ledger) -> None:
    """It is tried and passes what is left; neither it nor those behind it change anything, not even its nonce."""
    transfers = [sign(ALICE_KEY, nonce, gas_limit=21_000) for nonce in range(45)]  # 55,000 gas left
    dear = sign_call(BOB_KEY, 0, "buyEmptyTokens(uint256)", 3, value=3 * PRICE_WEI)
    behind = sign(ADMIN_KEY, 0, gas_limit=21_000)

    executed, dropped = tight.build(make_plan(tight), [*transfers, dear, behind])

    assert not dropped
    assert len(executed.final.receipts) == 45
    assert executed.state.keys() == {Account.key(ALICE), Account.key(BOB)}
    finish(tight, executed)
    assert account(tight, BOB).nonce == 0
    assert len(build(tight, [dear, behind]).final.receipts) == 2


def test_a_block_has_a_greatest_number_of_transactions(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "BLOCK_TRANSACTIONS_MAX", 3)
    assert len(build(ledger, readings(0)).final.receipts) == 3


def test_a_block_has_a_greatest_size(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is included counts."""
    stale = sign(ALICE_KEY, 1)
    transactions = [sign(BOB_KEY, nonce, to=ALICE) for nonce in range(3)]
    size = sum(len(each.transaction.raw) for each in transactions)
    monkeypatch.setattr(ledger_module, "BLOCK_BYTES_MAX", size)
    executed, _ = ledger.build(make_plan(ledger), [stale, *transactions])
    assert len(executed.final.receipts) == 3
    monkeypatch.setattr(ledger_module, "BLOCK_BYTES_MAX", size - 1)
    executed, _ = ledger.build(make_plan(ledger), transactions)
    assert len(executed.final.receipts) == 2


def test_what_can_never_stand_is_reported_and_the_rest_is_included(ledger: Ledger) -> None:
    add_block(ledger, [sign(ALICE_KEY, 0)])
    used, broke = sign(ALICE_KEY, 0, value=2), sign(BOB_KEY, 0, to=ALICE, value=10**30)
    good = sign(ADMIN_KEY, 0)

    executed, dropped = ledger.build(make_plan(ledger), [used, broke, good])

    assert [each.signed for each in dropped] == [used, broke]
    assert isinstance(dropped[0].reason, NonceTooLow)
    assert "insufficient funds" in str(dropped[1].reason)
    assert executed.final.transaction_hashes == (good.transaction.hash,)


def test_what_follows_a_dropped_one_waits_for_its_nonce(ledger: Ledger) -> None:
    """It may stand in a later block, when the sender has sent another of the dropped one's nonce."""
    broke, later, others = sign(ALICE_KEY, 0, value=10**30), sign(ALICE_KEY, 1), sign(BOB_KEY, 0)
    executed, dropped = ledger.build(make_plan(ledger), [broke, later, others])
    assert [each.signed for each in dropped] == [broke]
    assert executed.final.transaction_hashes == (others.transaction.hash,)


# --- the state of the past ---


def make_history(ledger: Ledger, blocks: int) -> list[dict[bytes, Record]]:
    """Blocks that change records again and again, create some and delete some; the state after each, from genesis."""
    states = [records_of(ledger)]
    for number in range(blocks):
        transactions = [sign(ALICE_KEY, number, value=number + 1)]
        if number % 2 == 0:
            transactions.append(sign_call(BOB_KEY, number, "buyEmptyTokens(uint256)", 2, value=2 * PRICE_WEI))
            transactions.append(sign_call(ADMIN_KEY, number, "setApprovalForAll(address,bool)", BOB, True))
        else:
            transactions.append(sign(BOB_KEY, number, to=ALICE))
            transactions.append(sign_call(ADMIN_KEY, number, "setApprovalForAll(address,bool)", BOB, False))
        transactions += readings(number)[:-1]
        executed = add_block(ledger, transactions, HOUR_MS)
        assert all(receipt.succeeded for receipt in executed.final.receipts)
        states.append(records_of(ledger))
    return states


def check_states(ledger: Ledger, states: list[dict[bytes, Record]], heights: Sequence[int]) -> None:
    """Every record that ever was reads as it was at that height, absent ones too."""
    keys = set().union(*states)
    for height in heights:
        lookup = state_of(ledger, height)
        assert {key: record for key in keys if (record := lookup(key)) is not None} == states[height]


def test_the_state_of_each_recent_block_is_what_it_was(ledger: Ledger) -> None:
    states = make_history(ledger, 12)
    check_states(ledger, states, range(13))
    check_states(ledger, states, range(12, -1, -1))
    assert len({len(state) for state in states}) > 6  # tokens came, approvals came and went


def test_an_opened_past_state_stays_right_while_blocks_come(ledger: Ledger) -> None:
    """A reader may hold it across blocks."""
    add_block(ledger, [sign(ALICE_KEY, 0)])
    held, before = ledger.state(0), ledger.state(1)
    balance = account(ledger, ALICE).balance
    add_block(ledger, [sign(ALICE_KEY, 1, value=5), sign(BOB_KEY, 0, to=ALICE, value=9)])
    assert held(Account.key(ALICE)) == Account(0, account(ledger, ALICE).balance + 5 - 9 + 1)  # type: ignore[arg-type]
    assert ledger.state(1)(Account.key(ALICE)) == Account(1, balance)
    assert before is not None


def test_states_below_the_kept_ones_are_pruned(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store_module, ledger_module):
        monkeypatch.setattr(module, "UNDO_BLOCKS", 3)
    states = make_history(ledger, 8)
    assert ledger.oldest_state() == 5
    check_states(ledger, states, range(5, 9))
    for height in (4, 0, 9, -1):
        with pytest.raises(
            StatePruned, match=f"state at block {height} is pruned: this node keeps the last 3"
        ):
            ledger.state(height)


def test_a_state_far_back_is_worked_out_in_pieces(ledger: Ledger) -> None:
    states = make_history(ledger, 12)
    with pytest.raises(StateUnready) as raised:
        ledger.state(1)
    steps = 1
    while not raised.value.work():
        steps += 1
    assert steps == -(-11 // BLOCKS_AT_ONCE) - 1
    assert ledger.state(1)(Account.key(ALICE)) == states[1][Account.key(ALICE)]
    assert ledger.state(12 - BLOCKS_AT_ONCE) is not None


def test_a_state_since_which_nothing_has_changed_is_worked_out_as_well(ledger: Ledger) -> None:
    for _ in range(6):
        add_block(ledger, [])
    with pytest.raises(StateUnready) as raised:
        ledger.state(1)
    while not raised.value.work():
        pass
    assert ledger.state(1)(Account.key(ALICE)) == account(ledger, ALICE)


def test_a_state_that_takes_too_much_memory_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = make_history(ledger, 12)
    state_of(ledger, 11)
    changed = len(ledger._past[11])
    monkeypatch.setattr(ledger_module, "CHANGES_CACHED_MAX", changed)
    check_states(ledger, states, [11])
    with pytest.raises(
        StateBuried, match=f"state at block 0 cannot be read: more than {changed} records have changed"
    ):
        state_of(ledger, 0)
    check_states(ledger, states, [11])


def test_a_state_whose_blocks_are_pruned_while_it_is_worked_out_is_pruned(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(ledger, 8)
    with pytest.raises(StateUnready) as raised:
        ledger.state(1)
    for module in (store_module, ledger_module):
        monkeypatch.setattr(module, "UNDO_BLOCKS", 3)
    assert raised.value.work()
    with pytest.raises(StatePruned):
        ledger.state(1)


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "node")
    states = make_history(ledger, 6)
    head, root = ledger.head, ledger.head.block.header.state_root
    ledger.close()

    ledger = Ledger.open(tmp_path / "node")

    assert ledger.head == head
    assert records_of(ledger) == states[-1]
    check_states(ledger, states, range(7))
    executed = add_block(ledger, [sign(ALICE_KEY, 6)])
    assert executed.final.block.header.parent_hash == head.hash
    assert executed.final.block.header.state_root != root
    ledger.close()


# --- blocks ---


def test_blocks_are_read_back_whole(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """From memory or from disk."""
    monkeypatch.setattr(ledger_module, "BLOCKS_CACHED_MAX", 2)
    genesis = ledger.head
    blocks = [genesis, *[add_block(ledger, readings(nonce)).final for nonce in range(5)]]
    for _ in range(2):
        assert [ledger.block(height) for height in range(6)] == blocks
    assert ledger.block(6) is None
    assert ledger.block(-1) is None


def test_nothing_of_a_block_is_seen_before_it_is_published(ledger: Ledger) -> None:
    executed = build(ledger, [sign(ALICE_KEY, 0)])
    ledger.commit(executed, b"certificate")
    assert ledger.head.block.header.height == ledger.store.head.height == 0
    assert account(ledger, ALICE).nonce == 0
    assert ledger.store.place_of(executed.final.transaction_hashes[0]) is None
    ledger.publish(executed)
    assert account(ledger, ALICE).nonce == 1
    assert ledger.store.place_of(executed.final.transaction_hashes[0]) == (1, 0)
    assert ledger.store.certificate(1) == b"certificate"


def test_small_caches_and_other_readers_change_nothing(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients read on one thread while a block is built on another, and rows come and go in the caches."""
    for name in ("RECORDS_CACHED_MAX", "NODES_CACHED_MAX"):
        monkeypatch.setattr(ledger_module, name, 3)
    small = make_ledger(tmp_path / "small")
    keys = [key for key, _ in ledger.store.state_rows()]
    with ThreadPoolExecutor(1) as storage:
        for nonce in range(6):
            expected = add_block(ledger, readings(nonce))
            building = storage.submit(build, small, readings(nonce))
            before = {key: small.lookup(key) for key in keys}
            while not building.done():
                assert {key: small.lookup(key) for key in keys} == before
            assert building.result().final == expected.final
            finish(small, building.result())
    assert {key: small.lookup(key) for key in keys} == {key: ledger.lookup(key) for key in keys}
    small.close()


def test_only_creating_creates(tmp_path: Path) -> None:
    with pytest.raises(StorageMissing):
        Ledger.open(tmp_path / "nothing")


# --- golden ---


def test_a_scripted_history_gives_these_hashes(ledger: Ledger) -> None:
    """What every version of this program computes for these three blocks."""
    assert ledger.head.hash.hex() == "8542c75696a8965bb1943b257240c71c90adb01bffc7129f60596886118bb705"
    first = add_block(ledger, [sign(ALICE_KEY, 0, value=10**18), *readings(0)[:-1]], HOUR_MS)
    second = add_block(
        ledger,
        [
            sign_call(BOB_KEY, 0, "buyEmptyTokens(uint256)", 2, value=2 * PRICE_WEI),
            sign_call(OWNER_KEYS[0], 0, "setOnSale(uint256,uint256,uint256)", 1, 10**15, 10**11),
            sign_call(METER_KEYS[1], 1, "consume(uint256,address)", 2_500, OWNERS[1]),
        ],
        HOUR_MS,
    )
    third = add_block(
        ledger,
        [
            sign_call(BOB_KEY, 1, "buyToken(uint256)", 1, value=10**16),
            sign_call(ALICE_KEY, 1, "setTokenCapability(uint256)", 5),  # refused: not the admin
        ],
        HOUR_MS,
    )
    assert [receipt.succeeded for receipt in third.final.receipts] == [True, False]
    assert isinstance(ledger.lookup(Token.key(TokenId(1))), Token)
    told = [
        (each.final.hash.hex(), each.final.block.header.state_root.hex()) for each in (first, second, third)
    ]
    assert told == [
        (
            "42491c8de1cd18ffae49af35966322fd4705aade623852876793276679bcfb3c",
            "b03777d1e85bb4369bae795275a58fca9fd63bdd3757fc6e6ceb7719e0ee6968",
        ),
        (
            "cd1068ed9bec897eca01b927510803db815715f0270d2942414de7958de38528",
            "45e5a1ea45279406a203698da82d4c3e996f15e38c4a027ed511bafd071ab7de",
        ),
        (
            "dc92c5f8144dc07bf7ce87697c305244bc04f7f71adbe1103db19a264714d37e",
            "e84d170be0ab584d1c7bbdb48134088332e394a62fc68fe08be046c0b51f2feb",
        ),
    ]
