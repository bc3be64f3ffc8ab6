"""The connection guard: who may connect, and how long a client may take to say what it wants.

aiohttp has no deadline for a request's line and headers, and no limit on connections. So each connection counts
against a total and against its address, and is cut off when its headers, or one WebSocket message, take too long. And
however many send at once, only so much of it is read in one pass of the event loop.
"""

import asyncio
import logging
from collections import Counter
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from rpc.turns import Turnstile

READS_PER_PASS: Final = 32

_log: Final = logging.getLogger(__name__)


class Gate:
    """Counts connections, in all and by address. One too many is refused."""

    def __init__(self, total_max: int, per_address_max: int) -> None:
        self._total_max = total_max
        self._per_address_max = per_address_max
        self._open: Counter[str] = Counter()
        self.refused = 0

    @property
    def total(self) -> int:
        return self._open.total()

    def enter(self, address: str) -> bool:
        """Whether there is room. Who enters must leave."""
        if self.total >= self._total_max or self._open[address] >= self._per_address_max:
            self.refused += 1
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class Guarded(RequestHandler):
    """aiohttp's connection, with the guard around it."""

    __slots__ = (
        "_entered",
        "_gate",
        "_headers_s",
        "_held",
        "_message_s",
        "_reads",
        "_timer",
        "_waits_for_message",
        "address",
    )

    def __init__(
        self,
        server: web.Server,
        gate: Gate,
        reads: Turnstile,
        *,
        headers_s: float,
        message_s: float,
        idle_s: float,
        line_bytes_max: int,
        headers_max: int,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=idle_s,
            max_line_size=line_bytes_max,
            max_field_size=line_bytes_max,
            max_headers=headers_max,
            lingering_time=1.0,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no access log
        )
        self._gate = gate
        self._reads = reads
        self._held = b""  # came while others were read, and waits in line
        self._headers_s = headers_s
        self._message_s = message_s
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_message = False
        self._entered = False
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "local"
        self._entered = self._gate.enter(self.address)
        if not self._entered:
            transport.abort()  # type: ignore[attr-defined]  # a stream's transport, which has it
            return
        super().connection_made(transport)
        self._start(self._headers_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop()
        if self._entered:
            self._entered = False
            self._gate.leave(self.address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
        elif not data or self._reads.enter(
            self._read_held
        ):  # without data: aiohttp looks at what it has kept
            self._read(data)
            return
        else:
            self._held = data
        self._pause_transport_reading()

    def _read_held(self) -> None:
        held, self._held = self._held, b""
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()
        if self.transport is not None:
            self._read(held)

    def _read(self, data: bytes) -> None:
        if self._upgraded:
            if self._waits_for_message and self._timer is None:
                self._start(self._message_s)
            super().data_received(data)
            return
        is_idle = self._current_request is None and not self._messages
        if is_idle and self._timer is None and data:
            self._start(self._headers_s)
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop()

    def head_came(self) -> None:
        """A request is being handled. Its body may have come in before that was known, and started the time."""
        self._stop()

    def wait_for_message(self) -> None:
        """From the first byte of the next WebSocket message on, its time runs, until `message_came`."""
        self._waits_for_message = True

    def message_came(self) -> None:
        self._waits_for_message = False
        self._stop()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP: short, and in no log, as anyone can cause it at any rate."""
        if status == 400:
            too_long = isinstance(exc, LineTooLong) or (
                "headers" in (message or "").lower() and "many" in (message or "")
            )
            response = web.Response(
                status=431 if too_long else 400, text="malformed or oversized HTTP request\n"
            )
        else:
            if not isinstance(exc, ConnectionError):  # else the client is gone
                _log.error("HTTP request failed", exc_info=exc)
            response = web.Response(status=500, text="internal error\n")
        response.headers[hdrs.SERVER] = "ctt"
        response.force_close()
        return response

    def _start(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._cut_off)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self) -> None:
        self._timer = None
        if self.transport is not None:
            self.transport.abort()
