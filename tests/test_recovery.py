"""Sender recovery in a process beside the node: each client gets its own answers, whatever becomes of the others, and
of the process."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgpack
import pytest
import pytest_asyncio

from ctt_state import rlp
from ctt_state.crypto import address_of, sha256
from ctt_state.transaction import (
    InvalidSender,
    Transaction,
    decode_transaction,
    sign_transaction,
    system_transaction,
)
from ctt_state.units import ZERO_ADDRESS
from node import recoverer, recovery
from node.recovery import CHUNK_TRANSACTIONS, DEATHS_MAX, RecoveryBusy, RecoveryLost, SenderRecovery

CHAIN_ID: Final = 4_242
KEYS: Final = tuple(sha256(b"key %d" % number) for number in range(20))
SENDERS: Final = tuple(address_of(key) for key in KEYS)
SECONDS_MAX: Final = 30

pytestmark = pytest.mark.asyncio


def make_transaction(number: int) -> Transaction:
    """Of the key with this number."""
    raw = sign_transaction(
        KEYS[number % 20], chain_id=CHAIN_ID, nonce=number, gas_limit=21_000, to=SENDERS[0]
    )
    return decode_transaction(raw, CHAIN_ID)


def make_forged() -> Transaction:
    """An r that is no point's x, so no key made this signature."""
    fields = rlp.decode(TRANSACTIONS[0].raw[1:])
    assert isinstance(fields, list)
    *signed, _, s = fields
    return decode_transaction(TRANSACTIONS[0].raw[:1] + rlp.encode((*signed, 5, s)), CHAIN_ID)


TRANSACTIONS: Final = tuple(map(make_transaction, range(20)))


def pid_of(senders: SenderRecovery) -> int:
    assert isinstance(senders._worker, recovery.Process)
    return senders._worker._process.pid


@contextmanager
def held(senders: SenderRecovery) -> Iterator[int]:
    """The process stands still meanwhile; it may be killed."""
    pid = pid_of(senders)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest_asyncio.fixture
async def senders() -> AsyncIterator[SenderRecovery]:
    """One whose process runs."""
    senders = SenderRecovery()
    await senders.recover(TRANSACTIONS[:1])
    yield senders
    senders.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Transaction]]:
    """What each hand-over to the process had."""
    chunks: list[list[Transaction]] = []
    ask = recovery.Process.ask

    def recorded(worker: recovery.Process, chunk: Sequence[Any]) -> None:
        chunks.append([transaction for transaction, _, _ in chunk])
        ask(worker, chunk)

    monkeypatch.setattr(recovery.Process, "ask", recorded)
    return chunks


@pytest.mark.parametrize("count", [0, 1, 2, CHUNK_TRANSACTIONS, 2 * CHUNK_TRANSACTIONS + 1, 500])
async def test_senders_come_in_the_order_of_their_transactions(senders: SenderRecovery, count: int) -> None:
    outcomes = await senders.recover([TRANSACTIONS[number % 20] for number in range(count)])

    assert outcomes == [SENDERS[number % 20] for number in range(count)]


async def test_a_forged_signature_is_refused_in_its_place(senders: SenderRecovery) -> None:
    first, second, third = await senders.recover([TRANSACTIONS[0], make_forged(), TRANSACTIONS[2]])

    assert (first, third) == (SENDERS[0], SENDERS[2])
    assert isinstance(second, InvalidSender) and str(second) == "invalid sender"


async def test_what_a_block_does_by_itself_has_no_sender(senders: SenderRecovery) -> None:
    own = system_transaction(CHAIN_ID, 7, 21_000, SENDERS[0], b"")

    assert await senders.recover([own, TRANSACTIONS[1]], is_urgent=True) == [ZERO_ADDRESS, SENDERS[1]]


async def test_a_refusal_is_gone_when_nobody_holds_it(senders: SenderRecovery) -> None:
    """A flood of forged signatures leaves nothing that only the garbage collector finds."""
    gc.disable()
    try:
        (refusal,) = await senders.recover([make_forged()])
        held = weakref.ref(refusal)
        del refusal
        await asyncio.sleep(0)  # until then the task holds what it waited for
        assert held() is None
    finally:
        gc.enable()


async def test_requests_at_the_same_time_each_get_their_own_answers(senders: SenderRecovery) -> None:
    requests = [[TRANSACTIONS[(first + each) % 20] for each in range(first % 7)] for first in range(100)]

    answers = await asyncio.gather(*map(senders.recover, requests))

    assert answers == [[SENDERS[(first + each) % 20] for each in range(first % 7)] for first in range(100)]


async def test_requests_of_one_moment_share_a_hand_over(
    senders: SenderRecovery, asked: list[list[Transaction]]
) -> None:
    await asyncio.gather(*(senders.recover([TRANSACTIONS[0]]) for _ in range(100)))

    assert list(map(len, asked)) == [CHUNK_TRANSACTIONS, 100 - CHUNK_TRANSACTIONS]


async def test_a_large_request_goes_in_parts_so_that_others_come_in_between(
    senders: SenderRecovery, asked: list[list[Transaction]]
) -> None:
    await senders.recover([TRANSACTIONS[0]] * 1_000)

    assert sum(map(len, asked)) == 1_000
    assert max(map(len, asked)) == CHUNK_TRANSACTIONS


async def test_what_a_block_waits_for_goes_before_what_clients_sent(
    senders: SenderRecovery, asked: list[list[Transaction]]
) -> None:
    with held(senders):
        clients = asyncio.create_task(senders.recover([TRANSACTIONS[0]] * 1_000))
        await asyncio.sleep(0.01)
        block = asyncio.create_task(senders.recover(TRANSACTIONS[1:3], is_urgent=True))
        await asyncio.sleep(0.01)

    assert await block == list(SENDERS[1:3])
    assert not clients.done()
    assert asked[recovery.CHUNKS_UNDER_WAY] == list(TRANSACTIONS[1:3])
    assert await clients == [SENDERS[0]] * 1_000


# --- bounds -------------------------------------------------------------------------------------------------------


async def test_as_many_wait_as_the_bound_allows_and_no_more(
    senders: SenderRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are under way wait no more; a block's are taken all the same."""
    monkeypatch.setattr(recovery, "WAITING_MAX", 10)
    monkeypatch.setattr(recovery, "CHUNK_TRANSACTIONS", 2)
    with held(senders):
        busy = asyncio.create_task(senders.recover(TRANSACTIONS[:4]))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(senders.recover(TRANSACTIONS[4:14]))
        await asyncio.sleep(0.01)
        with pytest.raises(RecoveryBusy, match="^txpool is full$"):
            await senders.recover(TRANSACTIONS[:1])
        assert await senders.recover([]) == []
        block = asyncio.create_task(senders.recover(TRANSACTIONS * 20, is_urgent=True))
        await asyncio.sleep(0.01)

    assert await busy == list(SENDERS[:4])
    assert await block == list(SENDERS) * 20
    assert await waiting == list(SENDERS[4:14])
    assert await senders.recover(TRANSACTIONS[:10]) == list(SENDERS[:10])


async def test_a_request_above_the_bound_is_refused_whole(
    senders: SenderRecovery, monkeypatch: pytest.MonkeyPatch, asked: list[list[Transaction]]
) -> None:
    monkeypatch.setattr(recovery, "WAITING_MAX", 10)

    with pytest.raises(RecoveryBusy):
        await senders.recover(TRANSACTIONS[:11])

    assert asked == []


# --- what goes wrong ----------------------------------------------------------------------------------------------


async def test_a_client_that_goes_away_takes_nobody_along(senders: SenderRecovery) -> None:
    """Neither one whose work is under way nor one that still waits; both share their hand-over with others."""
    with held(senders):
        early = [asyncio.create_task(senders.recover([TRANSACTIONS[number]] * 50)) for number in range(4)]
        await asyncio.sleep(0.01)
        late = [asyncio.create_task(senders.recover(TRANSACTIONS[at : at + 3])) for at in range(4)]
        await asyncio.sleep(0.01)
        for gone in (early[0], early[2], late[0], late[2]):
            gone.cancel()

    assert [await early[1], await early[3]] == [[SENDERS[1]] * 50, [SENDERS[3]] * 50]
    assert [await late[1], await late[3]] == [list(SENDERS[1:4]), list(SENDERS[3:6])]
    assert early[0].cancelled() and late[2].cancelled()
    assert await senders.recover(TRANSACTIONS) == list(SENDERS)


async def test_another_process_does_what_a_killed_one_left(
    senders: SenderRecovery, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(DEATHS_MAX):  # each has answered before it ends
        with held(senders) as pid:
            work = asyncio.create_task(senders.recover(TRANSACTIONS * 20))
            await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.wait_for(work, SECONDS_MAX) == list(SENDERS) * 20
        assert pid_of(senders) != pid

    assert caplog.messages == ["the process that checks signatures ended by signal 9; starting another"] * 3


async def test_who_waits_is_told_when_no_process_lasts(
    senders: SenderRecovery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And who comes later is served when one does."""
    with monkeypatch.context() as patch, held(senders) as pid:
        patch.setattr(recoverer, "__name__", "node.missing")
        work = asyncio.create_task(senders.recover(TRANSACTIONS))
        await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RecoveryLost, match="does not run"):
            await asyncio.wait_for(work, SECONDS_MAX)
    assert len(caplog.records) == DEATHS_MAX

    assert await senders.recover(TRANSACTIONS) == list(SENDERS)


async def test_a_process_that_cannot_be_started_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    senders = SenderRecovery()

    with pytest.raises(RecoveryLost):
        await senders.recover(TRANSACTIONS)

    senders.close()
    assert caplog.record_tuples[0][1:] == (
        logging.ERROR,
        "the process that checks signatures cannot be started: [Errno 2] No such file or directory: '/no/python'",
    )


async def test_signals_for_the_node_leave_the_process_at_work(senders: SenderRecovery) -> None:
    """Ctrl-C and systemd send theirs to all processes of the node."""
    before = pid_of(senders)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(before, name)

    assert await senders.recover(TRANSACTIONS) == list(SENDERS)
    assert pid_of(senders) == before


async def test_the_process_ends_when_its_node_is_gone() -> None:
    """Its input ends, in the middle of a question too."""
    question = msgpack.packb([TRANSACTIONS[0].raw])
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "node.recoverer"],
        input=question + question[:50],
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert msgpack.unpackb(ran.stdout) == [SENDERS[0]]


# --- closing ------------------------------------------------------------------------------------------------------


async def test_closing_refuses_who_waits_and_whoever_comes_later(senders: SenderRecovery) -> None:
    with held(senders):
        begun = asyncio.create_task(senders.recover(TRANSACTIONS[:1]))
        waiting = asyncio.create_task(senders.recover(TRANSACTIONS * 20))
        await asyncio.sleep(0.01)

    senders.close()

    for each in (begun, waiting):
        with pytest.raises(RecoveryBusy):
            await each
    with pytest.raises(RecoveryBusy):
        await senders.recover(TRANSACTIONS[:1])


async def test_closing_ends_the_process_and_may_be_repeated(senders: SenderRecovery) -> None:
    pid = pid_of(senders)

    senders.close()
    senders.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_closing_needs_no_process() -> None:
    senders = SenderRecovery()
    senders.close()

    with pytest.raises(RecoveryBusy):
        await senders.recover(TRANSACTIONS)
