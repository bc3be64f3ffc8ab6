"""Who sent these transactions: signatures are recovered in a process of their own, beside the event loop.

Threads would take the interpreter's lock from the loop twice for each signature, and the hand-over costs about as much
as the loop's own work (decision 0018). Requests that come in the same moment share a hand-over.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgpack

from ctt_state.errors import InvalidTransaction
from ctt_state.transaction import InvalidSender, Transaction
from ctt_state.units import ZERO_ADDRESS, Address
from node import recoverer

CHUNK_TRANSACTIONS: Final = 64  # about 3 ms of work
CHUNKS_UNDER_WAY: Final = 2  # one at work, and the next one at hand
WAITING_MAX: Final = 2_000  # transactions, about 100 ms of work; a request beyond is refused at once
DEATHS_MAX: Final = 3  # of the process, one after the other and without an answer
END_SECONDS_MAX: Final = 2.0
REPLY_BYTES_MAX: Final = 1 << 16

Outcome = Address | InvalidTransaction

_log: Final = logging.getLogger(__name__)


class RecoveryBusy(InvalidTransaction):
    """More transactions wait for their signature check than the node keeps, or the node is stopping."""

    def __init__(self) -> None:
        super().__init__("txpool is full")


class RecoveryLost(Exception):
    """The process could not be started, or ended again and again without an answer."""

    def __init__(self) -> None:
        super().__init__("the process that checks signatures does not run; the log says why")


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


Entry = tuple[Transaction, _Request, int]


class Worker(Protocol):
    """What finds the senders."""

    def ask(self, chunk: Sequence[Entry]) -> None: ...
    def answers(self) -> AsyncIterator[list[bytes]]:
        """To each question, in order, until it ends."""

    def end(self) -> str:
        """Ends it, and says how it ended."""


class SenderRecovery:
    """Two bounded lines of transactions in front of the worker, which is a process: what a block waits for goes before
    what clients and peers send. It is started when it is first needed, and again should it end."""

    def __init__(self, start: "Callable[[], Awaitable[Worker]] | None" = None) -> None:
        self._start = start or Process.start
        self._urgent: deque[Entry] = deque()
        self._ordinary: deque[Entry] = deque()
        self._under_way: deque[list[Entry]] = deque()  # chunks, in the order of their answers
        self._serving: asyncio.Task[None] | None = None
        self._worker: Worker | None = None
        self._is_closed = False

    def check_room(self, count: int) -> None:
        """Raises: RecoveryBusy when so many that are not urgent would not be taken now."""
        if self._is_closed or len(self._ordinary) + count > WAITING_MAX:
            raise RecoveryBusy

    async def recover(self, transactions: Sequence[Transaction], *, is_urgent: bool = False) -> list[Outcome]:
        """The sender of each, or why there is none, in order. Those of a block are urgent, and bounded by it.

        Raises: RecoveryBusy; RecoveryLost.
        """
        self.check_room(0 if is_urgent else len(transactions))
        if not transactions:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(len(transactions), loop.create_future())
        line = self._urgent if is_urgent else self._ordinary
        line.extend((transaction, request, i) for i, transaction in enumerate(transactions))
        if self._serving is None or self._serving.done():
            self._serving = loop.create_task(self._serve())
        loop.call_soon(self._hand_over)
        return await request.done

    def close(self) -> None:
        """Refuses all that wait, and ends the process after the work that it has begun, a few ms."""
        self._is_closed = True
        if self._serving:
            self._serving.cancel()
        if self._worker:
            self._worker.end()
        self._fail_all(RecoveryBusy)

    async def _serve(self) -> None:
        """Hands the process's answers out, and starts another one in its place when it ends."""
        deaths = 0
        try:
            while deaths < DEATHS_MAX:
                self._worker = await self._start()
                for chunk in self._under_way:  # what the last one left
                    self._worker.ask(chunk)
                self._hand_over()
                async for senders in self._worker.answers():
                    deaths = 0
                    self._finish(senders)
                deaths += 1
                _log.error(
                    "the process that checks signatures %(end)s; starting another",
                    {"end": self._worker.end()},
                )
        except OSError as fault:
            _log.error("the process that checks signatures cannot be started: %(reason)s", {"reason": fault})
        finally:
            self._worker = None
            self._fail_all(RecoveryLost)

    def _hand_over(self) -> None:
        """Keeps the process busy while something waits."""
        while (
            self._worker
            and len(self._under_way) < CHUNKS_UNDER_WAY
            and (line := self._urgent or self._ordinary)
        ):
            chunk = [line.popleft() for _ in range(min(len(line), CHUNK_TRANSACTIONS))]
            self._under_way.append(chunk)
            self._worker.ask(chunk)

    def _finish(self, senders: Sequence[bytes]) -> None:
        chunk = self._under_way.popleft()
        self._hand_over()
        for (_, request, index), sender in zip(chunk, senders, strict=True):
            request.settle(index, InvalidSender() if sender == recoverer.NO_SENDER else Address(sender))

    def _fail_all(self, reason: type[Exception]) -> None:
        for entries in (*self._under_way, self._urgent, self._ordinary):
            for _, request, _ in entries:
                request.fail(reason())
        for line in (self._under_way, self._urgent, self._ordinary):
            line.clear()


class Process:
    """The process, and the socket that is its standard input and output."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        end: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._end = end
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> "Process":
        """Raises: OSError."""
        ours, its = socket.socketpair()
        with its:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                return cls(_spawn(its.fileno()), ours, reader, writer)
            except OSError:
                writer.close()
                raise

    def ask(self, chunk: Sequence[Entry]) -> None:
        self._writer.write(msgpack.packb([transaction.raw for transaction, _, _ in chunk]))

    async def answers(self) -> AsyncIterator[list[bytes]]:
        answers = msgpack.Unpacker()
        with suppress(ConnectionError):
            while data := await self._reader.read(REPLY_BYTES_MAX):
                answers.feed(data)
                for senders in answers:
                    yield senders

    def end(self) -> str:
        """It comes with the end of its input."""
        with suppress(OSError):  # it has ended by itself
            self._end.shutdown(socket.SHUT_RDWR)  # at once; the writer closes in a later pass of the loop
        self._writer.close()
        try:
            code = self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _spawn(end: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", recoverer.__name__],
        stdin=end,
        stdout=end,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},  # the same code as this
    )
