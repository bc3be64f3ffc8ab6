"""Blocks over blocks that are not final: each sees what its own ancestors did and nothing of their rivals, whatever
becomes final meanwhile."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctt_state.crypto import sha256
from ctt_state.records import Account, decode_record
from ctt_state.transaction import Signed
from ctt_state.tree import build as build_tree
from ctt_state.units import Address, Hash
from node import ledger as ledger_module
from node import unfinal as unfinal_module
from node.ledger import Ledger
from node.unfinal import Executed, TooManyUnfinal, UnknownParent
from tests.ledger_world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    METER_KEYS,
    OWNERS,
    account,
    finish,
    make_ledger,
    make_plan,
    sign,
    sign_call,
)

Rows = dict[bytes, bytes | None]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = make_ledger(tmp_path / "one")
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ledger]:
    """The same chain on another node."""
    opened = make_ledger(tmp_path / "other")
    yield opened
    opened.close()


def build_on(
    ledger: Ledger, parent: Executed | None, transactions: Sequence[Signed] = (), view: int | None = None
) -> Executed:
    """A block over this one, or over the head."""
    plan = make_plan(ledger, parent=parent.final if parent else None, view=view)
    executed, dropped = ledger.build(plan, transactions)
    assert not dropped
    return executed


def build_path(ledger: Ledger, blocks: int) -> list[Executed]:
    """One over the other, each with readings of all meters and a transfer."""
    path: list[Executed] = []
    for nonce in range(blocks):
        path.append(build_on(ledger, path[-1] if path else None, work(nonce)))
    return path


def work(nonce: int) -> list[Signed]:
    function, amount = ("consume(uint256,address)", 200) if nonce % 2 else ("refill(uint256,address)", 300)
    calls = [sign_call(key, nonce, function, amount, OWNERS[i]) for i, key in enumerate(METER_KEYS)]
    return [*calls, sign(ALICE_KEY, nonce, value=7)]


def account_after(ledger: Ledger, executed: Executed, address: Address) -> Account:
    """As a child of this block finds it."""
    found = ledger._parent(executed.hash).lookup(Account.key(address))
    assert isinstance(found, Account)
    return found


def rows_after(ledger: Ledger, block_hash: Hash, keys: Sequence[bytes]) -> Rows:
    parent = ledger._parent(block_hash)
    return {key: data for key in keys if (data := parent.row(key)) is not None}


# --- standing on what is not final ---


def test_blocks_over_blocks_are_those_of_a_ledger_that_makes_each_final_at_once(
    ledger: Ledger, other: Ledger
) -> None:
    """Same headers, same rows to write, same values to go back to."""
    path = build_path(ledger, 5)
    for nonce, ahead in enumerate(path):
        alone = build_on(other, None, work(nonce))
        assert alone == ahead
        finish(other, alone)
        finish(ledger, ahead)
        assert ledger.store.undo(nonce + 1) == other.store.undo(nonce + 1)
    for rows in ("state_rows", "node_rows"):
        assert dict(getattr(ledger.store, rows)()) == dict(getattr(other.store, rows)())


def test_another_node_executes_them_ahead_too(ledger: Ledger, other: Ledger) -> None:
    path = build_path(ledger, 4)
    assert [other.execute(each.final.block, work(nonce)) for nonce, each in enumerate(path)] == path
    assert [other.executed(each.hash) for each in path] == path


def test_nothing_ahead_of_the_head_is_seen_by_readers(ledger: Ledger) -> None:
    before = account(ledger, ALICE)
    first, second = build_path(ledger, 2)
    assert account(ledger, ALICE) == before
    assert ledger.head.block.header.height == ledger.store.head.height == 0
    finish(ledger, first)
    assert account(ledger, ALICE).nonce == 1
    assert account_after(ledger, second, ALICE).nonce == 2


def test_rivals_do_not_see_each_other(ledger: Ledger) -> None:
    root = build_on(ledger, None, [sign(ALICE_KEY, 0, value=1)])
    left = build_on(ledger, root, [sign(ALICE_KEY, 1, value=10)], view=2)
    right = build_on(ledger, root, [sign(ALICE_KEY, 1, value=100)], view=3)
    below_left = build_on(ledger, left, [sign(BOB_KEY, 0, to=ALICE, value=5)])
    start = account(ledger, BOB).balance
    assert account_after(ledger, right, BOB) == Account(0, start + 101)  # type: ignore[arg-type]
    assert account_after(ledger, below_left, BOB) == Account(1, start + 11 - 5)  # type: ignore[arg-type]


def test_a_record_that_an_ancestor_deleted_is_gone(ledger: Ledger) -> None:
    """Though the head still has it."""
    approve, revoke = (
        sign_call(ALICE_KEY, nonce, "setApprovalForAll(address,bool)", BOB, nonce == 0) for nonce in range(2)
    )
    first = build_on(ledger, None, [approve])
    finish(ledger, first)
    (key,) = [key for key in first.state if key[0] == 7]
    second = build_on(ledger, None, [revoke])
    third = build_on(ledger, second)
    assert second.state[key] is None
    assert ledger._parent(third.hash).lookup(key) is None
    assert ledger.lookup(key) is not None


def test_an_executed_block_is_not_executed_again(ledger: Ledger) -> None:
    built = build_on(ledger, None, work(0))
    assert ledger.execute(built.final.block, work(0)) is built


def test_another_body_under_an_executed_blocks_header_is_refused(ledger: Ledger) -> None:
    block = build_on(ledger, None, work(0)).final.block
    with pytest.raises(ledger_module.WrongField):
        ledger.execute(block._replace(transactions=block.transactions[:-1]), work(0)[:-1])


# --- what becomes of them ---


def test_a_new_head_leaves_only_what_stands_on_it(ledger: Ledger) -> None:
    first = build_on(ledger, None, view=1)
    second, rival = build_on(ledger, first, view=2), build_on(ledger, first, view=3)
    orphan = build_on(ledger, None, view=4)
    below_rival = build_on(ledger, rival)

    finish(ledger, first)
    assert [ledger.executed(each.hash) for each in (first, orphan)] == [None, None]
    assert ledger.path_to(below_rival.hash) == [rival, below_rival]

    finish(ledger, second)
    assert [ledger.executed(each.hash) for each in (rival, below_rival)] == [None, None]
    assert ledger.path_to(second.hash) == []


def test_a_path_goes_up_from_the_head(ledger: Ledger) -> None:
    path = build_path(ledger, 3)
    assert ledger.path_to(path[-1].hash) == path
    assert ledger.path_to(ledger.head.hash) == []
    finish(ledger, path[0])
    assert ledger.path_to(path[-1].hash) == path[1:]
    with pytest.raises(UnknownParent):
        ledger.path_to(Hash(b"?" * 32))


def test_a_block_stands_on_the_head_or_above_it(ledger: Ledger, other: Ledger) -> None:
    genesis = ledger.head
    first, rival = build_on(ledger, None, view=1), build_on(ledger, None, view=2)
    child_of_rival = build_on(ledger, rival)
    finish(ledger, first)
    for block in (rival, child_of_rival):
        with pytest.raises(UnknownParent):
            ledger.execute(block.final.block, [])
    with pytest.raises(UnknownParent, match="neither the head nor an executed block above it"):
        ledger.build(make_plan(ledger, parent=genesis), [])
    with pytest.raises(UnknownParent):
        other.execute(child_of_rival.final.block, [])


def test_a_rival_of_a_block_being_written_is_late_though_nobody_has_seen_it_yet(ledger: Ledger) -> None:
    first, rival = build_on(ledger, None, view=1), build_on(ledger, None, view=2)
    ledger.commit(first, None)
    with pytest.raises(UnknownParent):
        build_on(ledger, rival)
    child = build_on(ledger, first, [sign(ALICE_KEY, 0)])
    ledger.publish(first)
    finish(ledger, child)
    assert account(ledger, ALICE).nonce == 1


def test_only_a_child_of_the_head_is_written(ledger: Ledger) -> None:
    _, second = build_path(ledger, 2)
    with pytest.raises(AssertionError, match="does not stand on the head"):
        ledger.commit(second, None)


def test_there_is_a_greatest_depth(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinal_module, "UNFINAL_BLOCKS_MAX", 3)
    path = build_path(ledger, 3)
    with pytest.raises(TooManyUnfinal, match="block 4 would stand on 3 blocks that are not final"):
        build_on(ledger, path[-1])
    finish(ledger, path[0])
    build_on(ledger, path[-1])


def test_of_too_many_rivals_the_oldest_goes_that_nothing_stands_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaders of views that came to nothing may not stop the next; what was dropped can be executed again."""
    monkeypatch.setattr(unfinal_module, "UNFINAL_BLOCKS_MAX", 3)
    root = build_on(ledger, None, view=1)
    rivals = [build_on(ledger, root, view=view) for view in range(2, 6)]
    assert [ledger.executed(each.hash) for each in rivals] == [None, None, *rivals[2:]]
    assert ledger.executed(root.hash) == root
    assert ledger.execute(rivals[0].final.block, []) == rivals[0]


# --- while another block becomes final ---


def test_a_head_that_moves_at_any_instant_of_an_execution_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop publishes a block at each of the reads below the children on the storage thread, one run each."""
    for name in ("RECORDS_CACHED_MAX", "NODES_CACHED_MAX"):
        monkeypatch.setattr(ledger_module, name, 3)
    expected = Interrupted(tmp_path / "undisturbed", None).run()
    reads, disturbed = 0, Interrupted(tmp_path / "0", 0)
    while disturbed.run() == expected and disturbed.is_published:
        reads += 1
        disturbed = Interrupted(tmp_path / str(reads), reads)
    assert not disturbed.is_published  # there were no more reads to disturb
    assert reads > 30


class Interrupted:
    """A ledger in which the second of three blocks is published at the n-th read below the third's execution."""

    def __init__(self, directory: Path, at: int | None) -> None:
        self._ledger = make_ledger(directory)
        self._at = at
        self.is_published = False

    def run(self) -> tuple[Executed, Rows, Rows]:
        """The third block, and what all records and nodes are when it is final."""
        ledger = self._ledger
        first = build_on(ledger, None, work(0))
        finish(ledger, first)
        second = build_on(ledger, None, work(1))
        ledger.commit(second, None)
        remaining = self._at

        def publish_in_time() -> None:
            nonlocal remaining
            if remaining == 0:
                ledger.publish(second)
                self.is_published = True
            if remaining is not None:
                remaining -= 1

        for cache in (ledger._rows, ledger._nodes):
            cache._read = interrupting(cache._read, publish_in_time)
            cache.get = interrupting(cache.get, publish_in_time)  # type: ignore[method-assign,assignment]
        third = build_on(ledger, second, work(2))
        remaining = None
        if not self.is_published:
            ledger.publish(second)
        finish(ledger, third)
        found = third, dict(ledger.store.state_rows()), dict(ledger.store.node_rows())
        assert {key: ledger._rows.get(key) for key in found[1]} == found[1]
        assert {path: ledger._nodes.get(path) for path in found[2]} == found[2]
        ledger.close()
        return found  # type: ignore[return-value]


def interrupting(
    read: Callable[[bytes], bytes | None], interrupt: Callable[[], None]
) -> Callable[[bytes], bytes | None]:
    """The same, interrupted before and after."""

    def interrupted(key: bytes) -> bytes | None:
        interrupt()
        data = read(key)
        interrupt()
        return data

    return interrupted


@pytest.mark.parametrize("step", range(4))
def test_a_block_executed_at_any_step_of_a_publishing_is_the_same(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    *_, expected = build_path(other, 2)
    first = build_on(ledger, None, work(0))
    steps = (
        (ledger.store, "publish"),
        (ledger._rows, "update"),
        (ledger._nodes, "update"),
        (ledger._unfinal, "settle"),
    )
    owner, name = steps[step]
    go_on = getattr(owner, name)
    found: list[Executed] = []

    def execute_first(*arguments: object) -> None:
        found.append(build_on(ledger, first, work(1)))
        go_on(*arguments)

    monkeypatch.setattr(owner, name, execute_first)
    finish(ledger, first)
    assert found == [expected]


def test_two_threads_at_work_agree_with_one(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage thread executes ahead while the event loop publishes and reads."""
    path = build_path(other, 30)
    with ThreadPoolExecutor(1) as storage:
        first = storage.submit(ledger.execute, path[0].final.block, work(0)).result()
        for nonce in range(1, len(path)):
            storage.submit(ledger.commit, first, None).result()
            executing = storage.submit(ledger.execute, path[nonce].final.block, work(nonce))
            ledger.publish(first)
            while not executing.done():
                assert account(ledger, ALICE).nonce == nonce
            first = executing.result()
            assert first == path[nonce]
    assert ledger.head == path[-2].final


# --- any history ---


@pytest.mark.parametrize("seed", range(6))
def test_any_tree_of_blocks_reads_and_hashes_as_its_paths_say(tmp_path: Path, seed: int) -> None:
    """Blocks over random blocks, random ones made final: each is compared with whole states in dictionaries."""
    rng = random.Random(seed)
    ledger = make_ledger(tmp_path / "node")
    states: dict[Hash, Rows] = {ledger.head.hash: dict(ledger.store.state_rows())}
    tips: dict[Hash, Executed | None] = {ledger.head.hash: None}
    for view in range(1, 60):
        parent_hash = rng.choice(list(tips))
        parent = states[parent_hash]
        executed = build_on(ledger, tips[parent_hash], random_work(rng, parent), view=view)
        state = {**parent, **executed.state}
        states[executed.hash], tips[executed.hash] = state, executed
        check_root(executed, state)
        if rng.random() < 0.3:
            chosen = rng.choice([each for each in tips.values() if each])
            for each in ledger.path_to(chosen.hash):
                finish(ledger, each, is_certified=False)
        tips = {block: each for block, each in tips.items() if is_standing(ledger, block)}
        tips[ledger.head.hash] = None
        for block_hash in tips:
            living = {key: data for key, data in states[block_hash].items() if data is not None}
            assert rows_after(ledger, block_hash, list(states[block_hash])) == living
    assert ledger.head.block.header.height > 5
    ledger.close()


def is_standing(ledger: Ledger, block_hash: Hash) -> bool:
    return ledger.executed(block_hash) is not None


def random_work(rng: random.Random, state: Rows) -> list[Signed]:
    """A few calls, with the nonces that this state asks for."""
    calls: list[Signed] = []
    for index, key in enumerate(METER_KEYS):
        if rng.random() < 0.3:
            amount = rng.randrange(1, 500)
            nonce = nonce_in(state, key)
            function = rng.choice(("refill(uint256,address)", "consume(uint256,address)"))
            calls.append(sign_call(key, nonce, function, amount, OWNERS[index]))
    calls.append(sign(ALICE_KEY, nonce_in(state, ALICE_KEY), value=rng.randrange(100)))
    if rng.random() < 0.5:
        nonce = nonce_in(state, BOB_KEY)
        is_approved = rng.random() < 0.5
        calls.append(sign_call(BOB_KEY, nonce, "setApprovalForAll(address,bool)", ALICE, is_approved))
    return calls


def nonce_in(state: Rows, key: bytes) -> int:
    record_key = Account.key(sign(key, 0).sender)
    data = state.get(record_key)
    if data is None:
        return 0
    found = decode_record(record_key, data)
    assert isinstance(found, Account)
    return found.nonce


def check_root(executed: Executed, state: Rows) -> None:
    """The tree built anew from the whole state has the header's root."""
    leaves = sorted((sha256(key), sha256(data)) for key, data in state.items() if data is not None)
    *_, (_, root) = build_tree(leaves)
    assert sha256(root) == executed.header.state_root
