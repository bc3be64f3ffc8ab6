"""The connection guard: who may connect, and how long a client may take to say what it wants.

aiohttp has no deadline for a request's line and headers, and no limit on connections. So each connection counts
against a total and against its address, and is cut off when its headers, or one WebSocket message, take too long.
However many send at once, only so much of it is read in one pass of the event loop. TLS comes after the gate, so that a
handshake that never ends takes up a place like any other connection.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import hdrs, web, web_protocol
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_websocket import WebSocketReader
from aiohttp.web_protocol import RequestHandler

from rpc.access import Bucket, network_of
from rpc.turns import Turnstile

READS_PER_PASS: Final = 32
PIPELINED_MAX: Final = 16  # requests of one connection that are read while an earlier one is answered

_log: Final = logging.getLogger(__name__)

web_protocol.MAX_MSG_QUEUE_SIZE = PIPELINED_MAX  # aiohttp knows no other way to say so


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How many may be connected."""

    connections_max: int
    connections_per_address_max: int
    accepts_per_s: int
    ordinary_percent: int


class Place:
    """What one connection takes up, until it ends. Nobody knows whose it is until its client has shown who it is."""

    __slots__ = ("abort", "is_gone", "is_reserved", "network")

    def __init__(self, network: str, abort: Callable[[], object]) -> None:
        self.network = network
        self.abort = abort
        self.is_reserved: bool | None = None
        self.is_gone = False


class Gate:
    """Counts connections: in all, by address, by how many come in a second, and by whose they are.

    Clients without reserved places have at most their percentage of all places. Who has one shows it with the first
    request only; so when every place is taken, the newcomer gets that of the connection that has shown nothing for
    longest, else of the ordinary one that has rested for longest since its last answer. Libraries keep connections in
    case they need them: those that rest give way to newcomers from their own address too. From trusted addresses any
    number may come in a second.
    """

    def __init__(
        self,
        limits: GateLimits,
        clock: Callable[[], float],
        is_trusted: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._is_trusted = is_trusted
        self._accepts = Bucket(limits.accepts_per_s, limits.accepts_per_s, clock())
        self._by_network: Counter[str] = Counter()
        self._by_lane: Counter[bool] = Counter()
        self._unknown: OrderedDict[Place, None] = OrderedDict()
        self._resting: OrderedDict[Place, None] = OrderedDict()
        self.refused = 0

    @property
    def total(self) -> int:
        return self._by_lane.total() + len(self._unknown)

    def enter(self, address: str, abort: Callable[[], object]) -> Place | None:
        """The newcomer's place, which it must leave; None when there is none. `abort` cuts it off."""
        place = Place(network_of(address), abort)
        if not (self._is_in_time(address) and self._make_share(place.network) and self._make_room()):
            self.refused += 1
            return None
        self._by_network[place.network] += 1
        self._unknown[place] = None
        return place

    def settle(self, place: Place, is_reserved: bool) -> bool:
        """Whose place it is has turned out, or changed. Whether the client may stay."""
        if place.is_gone or place.is_reserved is is_reserved:
            return not place.is_gone
        if not is_reserved and self._by_lane[False] >= self._ordinary_max:
            self.refused += 1
            return False
        self._leave_lane(place)
        self._by_lane[is_reserved] += 1
        place.is_reserved = is_reserved
        return True

    def rest(self, place: Place) -> None:
        """Its client has its answer, and has not asked for more."""
        if not place.is_gone:
            self._resting[place] = None

    def work(self, place: Place) -> None:
        """Its client asks."""
        self._resting.pop(place, None)

    def leave(self, place: Place) -> None:
        """Again does nothing: the place may have been given away."""
        if place.is_gone:
            return
        place.is_gone = True
        self.work(place)
        self._leave_lane(place)
        self._by_network[place.network] -= 1
        if not self._by_network[place.network]:
            del self._by_network[place.network]

    def _leave_lane(self, place: Place) -> None:
        if place.is_reserved is None:
            del self._unknown[place]
        else:
            self._by_lane[place.is_reserved] -= 1

    @property
    def _ordinary_max(self) -> int:
        return self._limits.connections_max * self._limits.ordinary_percent // 100

    def _make_share(self, network: str) -> bool:
        if self._by_network[network] < self._limits.connections_per_address_max:
            return True
        return self._give_away(next((place for place in self._resting if place.network == network), None))

    def _is_in_time(self, address: str) -> bool:
        return self._is_trusted(address) or not self._accepts.take(1, self._clock())

    def _make_room(self) -> bool:
        if self.total < self._limits.connections_max:
            return True
        ordinary = (place for place in self._resting if not place.is_reserved)
        return self._give_away(next(iter(self._unknown), None) or next(ordinary, None))

    def _give_away(self, place: Place | None) -> bool:
        if place is None:
            return False
        self.leave(place)
        place.abort()
        return True


class Guarded(RequestHandler):
    """aiohttp's connection, with the guard around it."""

    __slots__ = (
        "_clock",
        "_gate",
        "_headers_s",
        "_heard_at",
        "_held",
        "_message_s",
        "_place",
        "_reads",
        "_timer",
        "_waits_for_message",
        "address",
        "certificate",
    )

    def __init__(
        self,
        server: web.Server,
        gate: Gate,
        reads: Turnstile,
        clock: Callable[[], float],
        place: Place | None,
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
        self._clock = clock
        self._headers_s = headers_s
        self._message_s = message_s
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_message = False
        self._place = place  # which it has already, after TLS
        self.address = ""
        self.certificate: str | None = None  # the common name in the client's
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # whatever its class
        self.address = address_of(stream)
        if self._place is None:
            self._place = self._gate.enter(self.address, stream.abort)
        if self._place is None or self._place.is_gone:  # given away while TLS began
            stream.abort()
            return
        self._place.abort = stream.abort
        self.certificate = _common_name(stream)
        super().connection_made(stream)
        self._start(self._headers_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop()
        if self._place is not None:
            self._gate.leave(self._place)
        super().connection_lost(exc)

    def hear(self) -> None:
        """A WebSocket's bytes have come."""
        self._heard_at = self._clock()

    def silent_s(self) -> float:
        """For how long a WebSocket has been silent."""
        return self._clock() - self._heard_at

    def settle(self, is_reserved: bool) -> bool:
        """Who the client is has turned out: whether it may stay."""
        return self._place is not None and self._gate.settle(self._place, is_reserved)

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
            self.hear()
            if self._waits_for_message and self._timer is None:
                self._start(self._message_s)
            super().data_received(data)
            return
        is_idle = self._current_request is None and not self._messages
        if is_idle and data and self._place is not None:
            self._gate.work(self._place)
            if self._timer is None:
                self._start(self._headers_s)
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop()

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        super().set_parser(MaskedFrames(parser), data_received_cb)  # type: ignore[arg-type]  # it feeds it only

    def head_came(self) -> None:
        """A request is being handled. Its body may have come in before that was known, and started the time."""
        self._stop()

    def rest(self) -> None:
        """A request is answered, and no other has come."""
        if self._place is not None and not self._messages:
            self._gate.rest(self._place)

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


class MaskedFrames:
    """A WebSocket's parser that refuses frames without a mask, which no client may send (RFC 6455, 5.1)."""

    __slots__ = ("_held", "_left", "_parser")

    def __init__(self, parser: WebSocketReader) -> None:
        self._parser = parser
        self._held = b""  # of a frame's head that has not come as a whole
        self._left = 0  # bytes of the present frame that are still to come

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        data, at = self._held + data, self._left
        while at + 2 <= len(data):
            if not data[at + 1] & 0x80:
                self._parser.feed_data(data[:at])
                return self._parser.feed_data(_RESERVED_FRAME)  # which it refuses in the same way
            size, length_ends = data[at + 1] & 0x7F, at + 2
            if size >= 126:
                length_ends += 2 if size == 126 else 8
                if length_ends > len(data):
                    break
                size = int.from_bytes(data[at + 2 : length_ends], "big")
            at = length_ends + 4 + size  # after the length comes the mask
        whole = min(at, len(data))
        self._held, self._left = data[whole:], max(at - len(data), 0)
        return self._parser.feed_data(data[:whole])

    def feed_eof(self) -> None:
        self._parser.feed_eof()


_RESERVED_FRAME: Final = b"\x83\x00"


class Doorstep(asyncio.Protocol):
    """A connection before its TLS handshake: at the gate first, then given to the guard."""

    def __init__(
        self,
        gate: Gate,
        context: ssl.SSLContext,
        make_guard: Callable[[Place], Guarded],
        handshakes: "set[asyncio.Task[None]]",
        hush: "Hush",
        handshake_s: float,
    ) -> None:
        """`handshakes` holds those that are under way."""
        self._gate = gate
        self._context = context
        self._make_guard = make_guard
        self._handshakes = handshakes
        self._hush = hush
        self._handshake_s = handshake_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)  # a stream's, whatever its class
        address = address_of(plain)
        place = self._gate.enter(address, plain.abort)
        if place is not None:
            self._begin(plain, place, address)
        plain.abort()

    def _begin(self, plain: asyncio.Transport, place: Place, address: str) -> None:
        """The loop does TLS from the first byte on, on a descriptor of its own: a transport that is reading already may
        have taken the first bytes."""
        try:
            line = socket.socket(fileno=os.dup(plain.get_extra_info("socket").fileno()))
        except OSError:  # no descriptor is left
            self._gate.leave(place)
            return
        task = asyncio.ensure_future(self._shake_hands(line, place, address))
        place.abort = task.cancel
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, line: socket.socket, place: Place, address: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_guard(place),
                line,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._handshake_s,
            )
        except OSError as fault:  # of which an ssl.SSLError is one
            self._gate.leave(place)
            self._hush.say(f"{address}: no TLS: {_describe(fault)}")
        except asyncio.CancelledError:
            self._gate.leave(place)
            raise


class Hush:
    """Says what anyone can cause at any rate: a line in so many seconds, and how many were left out."""

    def __init__(self, clock: Callable[[], float], seconds: float = 10.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._next = 0.0
        self._left_out = 0

    def say(self, text: str) -> None:
        if self._clock() < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more before)" if self._left_out else ""
        _log.warning("%(event)s%(more)s", {"event": text, "more": more})
        self._next, self._left_out = self._clock() + self._seconds, 0


def address_of(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else "local"


def _common_name(transport: asyncio.BaseTransport) -> str | None:
    """Of the certificate that the client has shown, which TLS has checked."""
    certificate = transport.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return str(names[-1]) if names else None


def _describe(fault: OSError) -> str:
    match fault:
        case ssl.SSLCertVerificationError():
            return f"the client's certificate: {fault.verify_message}"
        case ssl.SSLError(reason=str() as reason):
            return reason.lower().replace("_", " ")
        case _:
            return fault.strerror or str(fault) or type(fault).__name__
