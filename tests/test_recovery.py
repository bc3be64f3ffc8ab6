"""Sender recovery on worker threads: each client gets its own answers, whatever becomes of the others."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest
import pytest_asyncio

from ctt_state.crypto import address_of, sha256
from ctt_state.transaction import (
    InvalidSender,
    Transaction,
    decode_transaction,
    recover_sender,
    sign_transaction,
)
from ctt_state.units import Address
from node import recovery
from node.recovery import CHUNK_TRANSACTIONS, THREADS, RecoveryBusy, SenderRecovery

CHAIN_ID: Final = 4_242
KEYS: Final = tuple(sha256(b"key %d" % number) for number in range(20))
SENDERS: Final = tuple(address_of(key) for key in KEYS)


def make_transaction(number: int) -> Transaction:
    """Of the key with this number."""
    raw = sign_transaction(
        KEYS[number % 20], chain_id=CHAIN_ID, nonce=number, gas_limit=21_000, to=SENDERS[0]
    )
    return decode_transaction(raw, CHAIN_ID)


def make_forged() -> Transaction:
    """An r that is no point's x, so no key made this signature."""
    return make_transaction(0)._replace(r=5)


TRANSACTIONS: Final = tuple(map(make_transaction, range(20)))


class Worker:
    """Stands in for the slow step: it waits for `release`, and remembers who asked for what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Event()
        self.threads: set[int] = set()
        self.calls = 0
        self.entered = threading.Semaphore(0)
        monkeypatch.setattr(recovery, "recover_sender", self.recover_sender)

    def recover_sender(self, transaction: Transaction) -> Address:
        self.threads.add(threading.get_ident())
        self.calls += 1
        self.entered.release()
        assert self.release.wait(10)
        return recover_sender(transaction)

    async def wait_for(self, count: int) -> None:
        """Until so many calls have begun."""
        for _ in range(count):
            assert await asyncio.to_thread(self.entered.acquire, timeout=10)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(monkeypatch)


@pytest_asyncio.fixture
async def senders() -> AsyncIterator[SenderRecovery]:
    senders = SenderRecovery()
    yield senders
    senders.close()


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many transactions each hand-over to a thread had."""
    sizes: list[int] = []
    recover_all = recovery._recover_all

    def recorded(transactions: Sequence[Transaction]) -> list[recovery.Outcome]:
        sizes.append(len(transactions))
        return recover_all(transactions)

    monkeypatch.setattr(recovery, "_recover_all", recorded)
    return sizes


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [0, 1, 2, CHUNK_TRANSACTIONS, 2 * CHUNK_TRANSACTIONS + 1, 500])
async def test_senders_come_in_the_order_of_their_transactions(senders: SenderRecovery, count: int) -> None:
    outcomes = await senders.recover([TRANSACTIONS[number % 20] for number in range(count)])

    assert outcomes == [SENDERS[number % 20] for number in range(count)]


@pytest.mark.asyncio
async def test_a_forged_signature_is_refused_in_its_place(senders: SenderRecovery) -> None:
    first, second, third = await senders.recover([TRANSACTIONS[0], make_forged(), TRANSACTIONS[2]])

    assert (first, third) == (SENDERS[0], SENDERS[2])
    assert isinstance(second, InvalidSender) and str(second) == "invalid sender"


@pytest.mark.asyncio
async def test_a_refusal_is_gone_when_nobody_holds_it(senders: SenderRecovery) -> None:
    """A flood of forged signatures leaves nothing that only the garbage collector finds."""
    gc.disable()
    try:
        (refusal,) = await senders.recover([make_forged()])
        held = weakref.ref(refusal)
        del refusal
        await senders.recover([TRANSACTIONS[0]])  # the executor forgets its last work when it gets new one
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.asyncio
async def test_requests_at_the_same_time_each_get_their_own_answers(senders: SenderRecovery) -> None:
    requests = [[TRANSACTIONS[(first + each) % 20] for each in range(first % 7)] for first in range(100)]

    answers = await asyncio.gather(*map(senders.recover, requests))

    assert answers == [[SENDERS[(first + each) % 20] for each in range(first % 7)] for first in range(100)]


@pytest.mark.asyncio
async def test_requests_of_one_moment_share_a_hand_over_to_each_thread(
    senders: SenderRecovery, handed_over: list[int]
) -> None:
    await asyncio.gather(*(senders.recover([TRANSACTIONS[0]]) for _ in range(100)))

    assert handed_over == [50, 50]


@pytest.mark.asyncio
async def test_a_large_request_goes_in_parts_so_that_others_come_in_between(
    senders: SenderRecovery, handed_over: list[int]
) -> None:
    await senders.recover([TRANSACTIONS[0]] * 1_000)

    assert sum(handed_over) == 1_000
    assert max(handed_over) == CHUNK_TRANSACTIONS


@pytest.mark.asyncio
async def test_both_threads_work_at_the_same_time_and_the_loop_goes_on(
    senders: SenderRecovery, worker: Worker
) -> None:
    """Two calls are under way that both wait, while this coroutine runs; there is no third."""
    work = asyncio.create_task(senders.recover(TRANSACTIONS))

    await worker.wait_for(THREADS)
    await asyncio.sleep(0)
    assert (worker.calls, len(worker.threads)) == (THREADS, THREADS)
    assert threading.get_ident() not in worker.threads
    worker.release.set()

    assert await work == list(SENDERS)
    assert len(worker.threads) == THREADS


# --- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_as_many_wait_as_the_bound_allows_and_no_more(
    senders: SenderRecovery, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "WAITING_MAX", 10)
    busy = asyncio.create_task(senders.recover(TRANSACTIONS[:2]))
    await worker.wait_for(THREADS)  # these two wait no more

    waiting = asyncio.create_task(senders.recover(TRANSACTIONS[2:12]))
    await asyncio.sleep(0)
    with pytest.raises(RecoveryBusy, match="^txpool is full$"):
        await senders.recover(TRANSACTIONS[:1])
    assert await senders.recover([]) == []
    worker.release.set()

    assert await busy == list(SENDERS[:2])
    assert await waiting == list(SENDERS[2:12])
    assert await senders.recover(TRANSACTIONS[:10]) == list(SENDERS[:10])


@pytest.mark.asyncio
async def test_a_request_above_the_bound_is_refused_whole(
    senders: SenderRecovery, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "WAITING_MAX", 10)

    with pytest.raises(RecoveryBusy):
        await senders.recover(TRANSACTIONS[:11])

    assert worker.calls == 0


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_client_that_goes_away_takes_nobody_along(senders: SenderRecovery, worker: Worker) -> None:
    """Neither one whose work is under way nor one that still waits; both share their hand-over with others."""
    early = [asyncio.create_task(senders.recover([TRANSACTIONS[number]])) for number in range(4)]
    await worker.wait_for(THREADS)
    late = [asyncio.create_task(senders.recover(TRANSACTIONS[number : number + 3])) for number in range(4)]
    await asyncio.sleep(0)

    for gone in (early[0], early[2], late[0], late[2]):
        gone.cancel()
    worker.release.set()

    assert [await early[1], await early[3]] == [[SENDERS[1]], [SENDERS[3]]]
    assert [await late[1], await late[3]] == [list(SENDERS[1:4]), list(SENDERS[3:6])]
    assert early[0].cancelled() and late[2].cancelled()
    assert await senders.recover(TRANSACTIONS) == list(SENDERS)


@pytest.mark.asyncio
async def test_a_mistake_of_ours_reaches_who_waits_for_it_and_nobody_else(
    senders: SenderRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_five(transaction: Transaction) -> Address:
        if transaction.nonce == 5:
            raise ZeroDivisionError
        return recover_sender(transaction)

    monkeypatch.setattr(recovery, "recover_sender", fail_at_five)

    with pytest.raises(ZeroDivisionError):
        await senders.recover(TRANSACTIONS)
    assert await senders.recover(TRANSACTIONS[6:]) == list(SENDERS[6:])


# --- closing ------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_closing_refuses_who_waits_and_whoever_comes_later(worker: Worker) -> None:
    senders = SenderRecovery()
    begun = [asyncio.create_task(senders.recover([TRANSACTIONS[number]])) for number in range(2)]
    await worker.wait_for(THREADS)
    waiting = asyncio.create_task(senders.recover(TRANSACTIONS[2:5]))
    await asyncio.sleep(0)

    worker.release.set()
    senders.close()

    with pytest.raises(RecoveryBusy):
        await waiting
    with pytest.raises(RecoveryBusy):
        await senders.recover(TRANSACTIONS[:1])
    assert [await each for each in begun] == [[SENDERS[0]], [SENDERS[1]]]


@pytest.mark.asyncio
async def test_a_request_that_is_half_done_at_the_close_is_refused_once(worker: Worker) -> None:
    senders = SenderRecovery()
    work = asyncio.create_task(senders.recover(TRANSACTIONS * 20))
    await worker.wait_for(THREADS)

    worker.release.set()
    senders.close()

    with pytest.raises(RecoveryBusy):
        await work


@pytest.mark.asyncio
async def test_closing_ends_the_threads_and_may_be_repeated() -> None:
    senders = SenderRecovery()
    await senders.recover(TRANSACTIONS)

    senders.close()
    senders.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recover")]
