"""A node that runs: blocks come at their period, transactions are included once, and trouble with the disk ends it."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.block import FinalBlock
from ctt_state.crypto import public_key
from ctt_state.errors import InvalidTransaction, NonceTooLow
from ctt_state.genesis import development_key
from ctt_state.records import Account
from ctt_state.transaction import Signed
from ctt_state.units import Hash, Wei, hex_of
from ctt_state.votes import Certificate, Kind, Statement
from node import runner as runner_module
from node.consensus.settings import Settings
from node.datadir import Space
from node.exits import Exit
from node.journal import JOURNAL_FILE, VOTES, Journal
from node.ledger import Ledger
from node.mempool import AlreadyKnown, MempoolLimits
from node.node import Node, ShortOfSpace
from node.recovery import RecoveryBusy
from node.runner import DiskSilent, Halted
from node.signer import OwnKey
from node.store import StorageFailed
from tests.ledger_world import ADMIN_KEY, ALICE, ALICE_KEY, BOB, BOB_KEY, account, make_ledger, sign

pytestmark = pytest.mark.asyncio

PERIOD_MS: Final = 50
SECONDS_MAX: Final = 20.0  # for anything here: the machine may be busy


def open_journal(ledger: Ledger) -> Journal:
    directory, key = ledger.store.directory, public_key(development_key(0))
    header = ledger.head.block.header
    if not (directory / VOTES / JOURNAL_FILE).exists():
        Journal.create(directory, ledger.genesis.hash, key)
    return Journal.open(directory, ledger.genesis.hash, key, (header.epoch, header.view, header.height))


class Running:
    """A node with its ledger, under a running loop."""

    def __init__(self, ledger: Ledger, settings: Settings | None = None) -> None:
        self.ledger = ledger
        self.journal = open_journal(ledger)
        self.node = Node(
            ledger,
            journal=self.journal,
            signer=OwnKey(development_key(0), ledger.genesis.hash),
            limits=MempoolLimits(),
            settings=settings,
        )
        self.finals: list[FinalBlock] = []
        self.node.on_final(self.finals.append)
        self.task = asyncio.create_task(self.node.run())

    @property
    def height(self) -> int:
        return self.node.head.block.header.height

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for it; the node's own end comes first."""
        async with asyncio.timeout(SECONDS_MAX):
            while not holds():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.005)

    async def blocks(self, count: int) -> None:
        goal = self.height + count
        await self.until(lambda: self.height >= goal)

    async def included(self, *signed: Signed) -> None:
        hashes = [each.transaction.hash for each in signed]
        await self.until(lambda: all(self.node.place_of(each) for each in hashes))

    async def failure(self) -> BaseException:
        """What `run` ends with."""
        with pytest.raises(BaseException) as caught:  # noqa: PT011  # the caller looks at it
            await asyncio.wait_for(self.task, SECONDS_MAX)
        return caught.value

    async def stop(self) -> None:
        self.node.stop()
        await asyncio.wait_for(self.task, SECONDS_MAX)
        self.journal.close()


@asynccontextmanager
async def running(
    directory: Path, *, fast: bool = True, settings: Settings | None = None
) -> AsyncIterator[Running]:
    """A node on a new chain of short periods; it is stopped unless it has ended."""
    genesis = {"blockPeriodMs": PERIOD_MS} if fast else {}
    ledger = make_ledger(directory / "node", **genesis)
    world = Running(ledger, settings)
    try:
        yield world
    finally:
        world.node.stop()
        with suppress(Exception):
            await asyncio.wait_for(world.task, SECONDS_MAX)
        ledger.close()


# --- blocks ---


async def test_blocks_come_at_their_period(tmp_path: Path) -> None:
    """C-3: one period apart by their stamps, and no faster by the clock; busy machines are slower."""
    async with running(tmp_path) as world:
        await world.blocks(2)
        start, first = time.monotonic(), world.height
        await world.blocks(20)
        assert (time.monotonic() - start) * 1_000 >= (world.height - first - 2) * PERIOD_MS * 0.9

        stamps = [each.block.header.timestamp_ms for each in world.finals]
        gaps = [later - earlier for earlier, later in pairwise(stamps)]
        assert min(gaps) >= PERIOD_MS
        assert world.finals[0].block.header.timestamp_ms <= time.time_ns() // 1_000_000


async def test_listeners_hear_of_each_block_in_order_and_until_they_end(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        heard: list[FinalBlock] = []
        end = world.node.on_final(heard.append)
        await world.blocks(4)
        end()
        count = len(heard)
        await world.blocks(2)

        assert len(heard) == count
        heights = [each.block.header.height for each in world.finals]
        assert heights == list(range(1, len(heights) + 1))
        for parent, block in pairwise(world.finals):
            assert block.block.header.parent_hash == parent.hash


async def test_a_listener_sees_the_block_as_the_head(tmp_path: Path) -> None:
    """C-4: who is told can read it, and it is on disk."""
    async with running(tmp_path) as world:
        seen: list[bool] = []

        def look(final: FinalBlock) -> None:
            height = final.block.header.height
            seen.append(
                world.node.head == final == world.node.block(height)
                and world.node.height_of(final.hash) == height == world.ledger.store.head.height
            )

        world.node.on_final(look)
        await world.blocks(3)
        assert seen and all(seen)


async def test_a_block_takes_what_there_is_time_for_and_at_least_one(tmp_path: Path) -> None:
    """C-3a: the rest has its turn in the blocks after it."""
    signed = [sign(key, nonce) for nonce in range(4) for key in (ALICE_KEY, BOB_KEY)]
    async with running(tmp_path, settings=Settings(PERIOD_MS, execute_ms_max=0)) as world:
        await world.node.submit_many([each.transaction.raw for each in signed])
        await world.included(*signed)
        counts = [len(each.transaction_hashes) for each in world.finals]
        assert [count for count in counts if count] == [1] * len(signed)


async def test_the_pool_follows_a_block_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.runner.TURN_ACCOUNTS_MAX", 2)
    signed = [sign(key, 0) for key in (ALICE_KEY, BOB_KEY, ADMIN_KEY)]
    later = [sign(key, 2) for key in (ALICE_KEY, BOB_KEY, ADMIN_KEY)]
    async with running(tmp_path) as world:
        await world.node.submit_many([each.transaction.raw for each in (*later, *signed)])
        assert world.node.pool_counts() == (3, 3)
        await world.included(*signed)
        await world.until(lambda: world.node.pool_counts() == (0, 3))


async def test_stopping_finishes_the_block_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is final; a restart goes on from there."""
    started = threading.Event()
    commit = Ledger.commit

    def slow(self: Ledger, *arguments: Any) -> None:
        started.set()
        time.sleep(0.1)
        commit(self, *arguments)

    async with running(tmp_path) as world:
        await world.blocks(1)
        monkeypatch.setattr(Ledger, "commit", slow)
        await world.until(started.is_set)
        before = world.height
        await world.stop()
        assert world.height == before + 1 == world.ledger.store.head.height
        assert world.finals[-1] == world.node.head
        head = world.node.head
    ledger = Ledger.open(tmp_path / "node")
    assert ledger.head == head
    ledger.close()


async def test_stopping_does_not_wait_for_the_next_slot(tmp_path: Path) -> None:
    async with running(tmp_path, fast=False) as world:
        await world.blocks(1)
        await world.stop()


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.blocks(3)
        await world.stop()
        head = world.node.head
    again = Running(Ledger.open(tmp_path / "node"))
    await again.blocks(2)
    await again.stop()
    assert again.finals[0].block.header.parent_hash == head.hash
    again.ledger.close()


# --- transactions ---


async def test_transactions_sent_at_once_are_each_included_once(tmp_path: Path) -> None:
    """By several senders, in any order, singly and together."""
    sets = [[sign(key, nonce) for nonce in range(12)] for key in (ALICE_KEY, BOB_KEY, ADMIN_KEY)]
    everything = [signed for group in sets for signed in group]
    async with running(tmp_path) as world:
        single = [world.node.submit(signed.transaction.raw) for signed in reversed(sets[0])]
        together = [
            world.node.submit_many([signed.transaction.raw for signed in group]) for group in sets[1:]
        ]
        async with asyncio.timeout(SECONDS_MAX):
            hashes, outcomes = await asyncio.gather(asyncio.gather(*single), asyncio.gather(*together))

        assert set(hashes) == {signed.transaction.hash for signed in sets[0]}
        assert outcomes == [[signed.transaction.hash for signed in group] for group in sets[1:]]
        await world.included(*everything)
        found = [each for final in world.finals for each in final.transaction_hashes]
        assert sorted(found) == sorted(signed.transaction.hash for signed in everything)
        assert world.node.pool_counts() == (0, 0)
        assert account(world.ledger, ALICE).nonce == 12


async def test_refused_ones_are_refused_in_their_places(tmp_path: Path) -> None:
    good, other = sign(ALICE_KEY, 0), sign(ALICE_KEY, 1)
    async with running(tmp_path, fast=False) as world:
        outcomes = await world.node.submit_many(
            [b"\x02junk", good.transaction.raw, good.transaction.raw, b"", other.transaction.raw]
        )
        assert [outcomes[1], outcomes[4]] == [good.transaction.hash, other.transaction.hash]
        assert isinstance(outcomes[2], AlreadyKnown)
        assert isinstance(outcomes[0], InvalidTransaction) and isinstance(outcomes[3], InvalidTransaction)
        await world.included(good, other)

        with pytest.raises(AlreadyKnown):
            await world.node.submit(good.transaction.raw)
        with pytest.raises(NonceTooLow, match="nonce too low: next nonce 2, tx nonce 0"):
            await world.node.submit(sign(ALICE_KEY, 0, value=2).transaction.raw)


async def test_a_node_that_is_too_busy_says_so_before_it_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.recovery.WAITING_MAX", 2)
    async with running(tmp_path) as world:
        with pytest.raises(RecoveryBusy):
            await world.node.submit_many([b"no transaction at all"] * 3)
        refused = await world.node.submit_many([b"no transaction at all"] * 2)
        assert [type(each) for each in refused] != [RecoveryBusy] * 2


async def test_listeners_hear_of_pending_ones_before_their_block(tmp_path: Path) -> None:
    signed = sign(ALICE_KEY, 0)
    news: list[Hash] = []
    async with running(tmp_path) as world:
        world.node.on_pending(lambda told: news.append(told.transaction.hash))
        world.node.on_final(lambda final: news.extend(final.transaction_hashes))
        await world.node.submit(signed.transaction.raw)
        assert news == [signed.transaction.hash]
        await world.included(signed)
        assert news == [signed.transaction.hash] * 2


async def test_one_that_can_no_longer_stand_leaves_the_pool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender's money went elsewhere after it came; what follows it waits for its nonce."""
    broke, later = sign(BOB_KEY, 0, to=ALICE, value=10**24), sign(BOB_KEY, 1, to=ALICE, value=0)
    caplog.set_level(logging.INFO)
    async with running(tmp_path) as world:
        take_balance(world, BOB)
        for signed in (broke, later):
            await world.node.submit(signed.transaction.raw)
        await world.until(lambda: world.node.pool_counts() == (0, 1))
        assert world.node.pending_transaction(broke.transaction.hash) is None
        assert world.node.pending_transaction(later.transaction.hash) == later
        assert f"dropped transaction {hex_of(broke.transaction.hash)}: insufficient funds" in caplog.text


def take_balance(world: Running, address: Any) -> None:
    """When blocks are built the account is poor, as if the block before had paid it away."""
    rows = world.ledger._rows
    read, apply = rows.get, world.ledger.apply

    def poor(key: bytes) -> bytes | None:
        data = read(key)
        if data is None or key != Account.key(address):
            return data
        return Account.decode(data)._replace(balance=Wei(1)).encode()

    def apply_poor(*arguments: Any) -> Any:
        rows.get = poor  # type: ignore[method-assign]
        try:
            return apply(*arguments)
        finally:
            rows.get = read  # type: ignore[method-assign]

    world.ledger.apply = apply_poor  # type: ignore[method-assign,assignment]


async def test_a_clock_that_is_set_forward_expires_no_queued_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool's lives are of the clock that never jumps."""
    queued = sign(ALICE_KEY, 1)
    async with running(tmp_path) as world:
        await world.node.submit(queued.transaction.raw)
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + 3_600 * 10**9)
        await world.blocks(3)
        assert world.node.pool_counts() == (0, 1)


# --- trouble with the disk ---


async def test_a_storage_failure_ends_the_run_and_nothing_is_written_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fail(self: Ledger, *arguments: Any) -> None:
        calls.append(1)
        raise StorageFailed("the disk is full")

    async with running(tmp_path) as world:
        await world.blocks(2)
        monkeypatch.setattr(Ledger, "commit", fail)
        failure = await world.failure()
        assert isinstance(failure, StorageFailed) and str(failure) == "the disk is full"
        assert len(calls) == 1
        assert world.finals[-1] == world.node.head
        assert world.ledger.store.head.height == world.height
        with pytest.raises(InvalidTransaction, match="txpool is full"):
            await world.node.submit(sign(ALICE_KEY, 0).transaction.raw)


async def test_a_disk_that_does_not_answer_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage thread hangs: nobody waits for it."""
    released = threading.Event()
    monkeypatch.setattr(Ledger, "commit", lambda self, *arguments: released.wait(SECONDS_MAX))
    async with running(tmp_path) as world:
        monkeypatch.setattr(runner_module, "STORAGE_SECONDS_MAX", 0.2)
        failure = await world.failure()
        assert isinstance(failure, DiskSilent)
        assert "the disk does not answer for" in str(failure)
        assert "the last final block 0 is safe" in str(failure)
        assert world.finals == []
        released.set()
        await asyncio.sleep(0.05)  # the thread is out of the store before it is closed


async def test_a_process_that_was_stopped_blames_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP, or a machine that is put to sleep, while the disk was asked for something."""
    commit = Ledger.commit

    def commit_slowly(ledger: Ledger, *arguments: Any) -> Any:
        time.sleep(0.1)
        return commit(ledger, *arguments)

    monkeypatch.setattr(Ledger, "commit", commit_slowly)
    async with running(tmp_path) as world:
        monkeypatch.setattr(runner_module, "STORAGE_SECONDS_MAX", 0.4)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await asyncio.sleep(0.15)
            loop.call_soon(time.sleep, 0.6)
        await world.blocks(2)


async def test_a_filling_disk_refuses_clients_then_takes_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Blocks go on: what is under way needs them."""
    space = [Space.NO_CLIENTS]
    monkeypatch.setattr(runner_module, "SPACE_BLOCKS", 1)
    monkeypatch.setattr(runner_module, "free_space", lambda directory: space[0])
    signed = sign(ALICE_KEY, 0)
    async with running(tmp_path) as world:
        await world.blocks(2)
        outcomes = await world.node.submit_many([signed.transaction.raw, b"junk"])
        assert [type(each) for each in outcomes] == [ShortOfSpace, ShortOfSpace]
        assert "clients' transactions are refused" in caplog.text
        await world.blocks(1)
        space[0] = Space.AMPLE
        await world.blocks(2)
        assert await world.node.submit(signed.transaction.raw) == signed.transaction.hash
        await world.included(signed)


async def test_a_disk_without_room_stops_the_node_while_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path) -> None:
        raise StorageFailed(f"{directory}: no room")

    async with running(tmp_path) as world:
        await world.blocks(1)
        monkeypatch.setattr(runner_module, "SPACE_BLOCKS", 1)
        monkeypatch.setattr(runner_module, "free_space", lambda directory: Space.STOP)
        monkeypatch.setattr(runner_module, "check_room", refuse)
        failure = await world.failure()
        assert isinstance(failure, StorageFailed) and "no room" in str(failure)
        assert world.ledger.store.head.height == world.height


async def test_a_node_that_differs_from_its_network_stops_and_writes_down_why(tmp_path: Path) -> None:
    """C-13. The first such file stays."""
    statement = Statement(Kind.FINALIZE, 0, 1, 0, Hash(b"h" * 32))
    certificate = Certificate(statement, ((0, b"s" * 64),))
    async with running(tmp_path) as world:
        await world.blocks(1)
        height = world.height
        world.node.runner.halt("the roots differ", certificate)
        failure = await world.failure()
    assert isinstance(failure, Halted)
    assert failure.exit_code == Exit.BROKEN
    (path,) = (tmp_path / "node").glob("halted-*.json")
    assert str(failure) == f"the roots differ; see {path}"
    dump = json.loads(path.read_text())
    assert dump["head"]["height"] >= height
    assert dump["certificates"] == [hex_of(certificate.encode())]
