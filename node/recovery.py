"""Who sent these transactions: signatures are recovered on worker threads, off the event loop.

libsecp256k1 works without the interpreter's lock, so two threads recover nearly twice as much as one. Single requests
that arrive together share a hand-over to the threads, which would otherwise cost as much as the work.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from ctt_state.errors import InvalidTransaction
from ctt_state.transaction import Transaction, recover_sender
from ctt_state.units import ZERO_ADDRESS, Address

THREADS: Final = 2
CHUNK_TRANSACTIONS: Final = 64  # about 3 ms of work
WAITING_MAX: Final = 2_000  # transactions, about 100 ms of work; a request beyond is refused at once

Outcome = Address | InvalidTransaction


class RecoveryBusy(InvalidTransaction):
    """More transactions wait for their signature check than the node keeps, or the node is stopping."""

    def __init__(self) -> None:
        super().__init__("txpool is full")


class _Request:
    """Transactions that came together, and what became of each so far. Its client may be gone before it is done."""

    __slots__ = ("done", "left", "outcomes")

    def __init__(self, count: int, done: "asyncio.Future[list[Outcome]]") -> None:
        self.outcomes: list[Outcome] = [ZERO_ADDRESS] * count
        self.left = count
        self.done = done

    def settle(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(self.outcomes)

    def fail(self, reason: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(reason)


class SenderRecovery:
    """A bounded queue of transactions in front of the worker threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="recover")
        self._waiting: deque[tuple[Transaction, _Request, int]] = deque()
        self._running = 0
        self._is_closed = False

    def check_room(self, count: int) -> None:
        """Raises: RecoveryBusy when so many would not be taken now."""
        if self._is_closed or len(self._waiting) + count > WAITING_MAX:
            raise RecoveryBusy

    async def recover(self, transactions: Sequence[Transaction]) -> list[Outcome]:
        """The sender of each, or why there is none, in order. Raises: RecoveryBusy."""
        self.check_room(len(transactions))
        if not transactions:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(len(transactions), loop.create_future())
        self._waiting.extend((transaction, request, i) for i, transaction in enumerate(transactions))
        loop.call_soon(self._start)
        return await request.done

    def close(self) -> None:
        """Refuses all that wait, and ends the threads after the work that they have begun, a few ms."""
        self._is_closed = True
        while self._waiting:
            _, request, _ = self._waiting.popleft()
            request.fail(RecoveryBusy())
        self._threads.shutdown(wait=True)

    def _start(self) -> None:
        """Keeps every thread busy while something waits."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._running < THREADS:
            share = -(-len(self._waiting) // (THREADS - self._running))
            chunk = [self._waiting.popleft() for _ in range(min(share, CHUNK_TRANSACTIONS))]
            self._running += 1
            work = loop.run_in_executor(self._threads, _recover_all, [entry[0] for entry in chunk])
            work.add_done_callback(partial(self._finish, chunk))

    def _finish(
        self, chunk: list[tuple[Transaction, _Request, int]], work: "asyncio.Future[list[Outcome]]"
    ) -> None:
        self._running -= 1
        self._start()
        fault = work.exception()
        if fault is not None:  # our own mistake: each client is told, rather than waits for ever
            for _, request, _ in chunk:
                request.fail(fault)
            return
        for (_, request, index), outcome in zip(chunk, work.result(), strict=True):
            request.settle(index, outcome)


def _recover_all(transactions: Sequence[Transaction]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for transaction in transactions:
        try:
            outcomes.append(recover_sender(transaction))
        except InvalidTransaction as refusal:
            # Their frames hold the list that holds it: a cycle, which would keep the transaction too.
            refusal.__traceback__ = refusal.__context__ = None
            outcomes.append(refusal)
    return outcomes
