"""The door: JSON-RPC over HTTP POST and WebSocket on one port, and the explorer's page.

Every JSON-RPC answer is HTTP 200, errors too: some libraries lose the error otherwise. What is not JSON-RPC at all
gets an HTTP status and one line of text. Browsers are let in by Host and Origin: a page from elsewhere may not talk to
a node on its reader's machine. Each wait on a client has a deadline and each thing a client sends a limit.
"""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rpc.access import Access, AccessRules, Client, NotAdmitted, Role, Token
from rpc.advisor import Advisor
from rpc.chain import Chain
from rpc.discovery import METHODS
from rpc.door import Caller, Door
from rpc.errors import TryLater
from rpc.guard import READS_PER_PASS, Doorstep, Gate, GateLimits, Guarded, Hush, Place
from rpc.jsonrpc import Dispatcher, EnvelopeLimits, error_reply
from rpc.metrics import DoorState, make_registry
from rpc.subscriptions import Session, SubscriptionLimits
from rpc.turns import PIECE_BYTES, Turnstile, turnstile

HOSTS_ALWAYS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Wallets that live in the browser send the origin of their extension, which no page can pretend to be.
EXTENSION_SCHEMES: Final = ("chrome-extension://", "moz-extension://", "safari-web-extension://")

GOODBYE_S: Final = 1.0  # for WebSockets to hear that the node stops, before they are cut off

_PAGES: Final = ("/health", "/ready", "/metrics")
_FULL: Final = "overloaded: the places of clients without a meter's or an operator's token are taken"
_HOLDS_ENOUGH: Final = "overloaded: the node holds as many requests and unread replies as it may"
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What clients may ask of the door; seconds, bytes and counts."""

    connections_max: int = 512
    connections_per_address_max: int = 32
    accepts_per_s: int = 200
    ordinary_percent: int = 70  # of connections and held bytes, for clients without reserved places
    headers_s: float = 5.0
    body_s: float = 10.0
    idle_s: float = 75.0
    reply_s: float = 30.0
    pong_s: float = 60.0
    line_bytes_max: int = 8_190
    headers_max: int = 64
    uri_chars_max: int = 2_048
    body_bytes_max: int = 1_048_576
    held_bytes_max: int = (
        48_000_000  # requests that come in or wait and replies that nobody reads, all together
    )
    socket_requests_max: int = 32  # at work at once for one WebSocket; more wait unread
    envelope: EnvelopeLimits = field(default_factory=EnvelopeLimits)
    subscriptions: SubscriptionLimits = field(default_factory=SubscriptionLimits)


@dataclass(frozen=True, slots=True)
class Tls:
    """How the door speaks TLS, and when its certificate ends."""

    context: ssl.SSLContext
    ends: datetime


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the door is, and whom it knows. Port 0 takes a free one; "*" in `hosts` or `origins` allows all."""

    host: str = "127.0.0.1"
    port: int = 8545
    hosts: frozenset[str] = frozenset()  # names in the Host header, besides the loopback's
    origins: frozenset[str] = frozenset()  # of pages that may call, besides the node's own
    limits: ServerLimits = field(default_factory=ServerLimits)
    rules: AccessRules = field(default_factory=AccessRules)
    tokens: Sequence[Token] | None = None  # None: whoever is on this machine is trusted
    tls: Tls | None = None
    advisor: str | None = None  # the URL of a program that answers ctt_advise
    pages: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)  # content type and content by path


class _NotServed(Exception):
    """The request is answered with this HTTP status and the connection closed."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}


class _SocketEnded(Exception):
    """The WebSocket is closed: whatever still works for it stops."""


class RpcServer:
    """One listening port. `start` and `stop` frame its life."""

    def __init__(self, chain: Chain, config: ServerConfig) -> None:
        loop = asyncio.get_running_loop()
        self.config = config
        self.door = Door(chain, loop.time, Advisor(config.advisor) if config.advisor else None)
        self._tls = config.tls
        self.access = Access(config.rules, loop.time, self._today, config.tokens)
        limits = GateLimits(
            config.limits.connections_max,
            config.limits.connections_per_address_max,
            config.limits.accepts_per_s,
            config.limits.ordinary_percent,
        )
        self.gate = Gate(limits, loop.time, self.access.is_trusted)
        self._clock = loop.time
        self._hush = Hush(loop.time)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._reads = Turnstile(READS_PER_PASS)
        self._turnstile = turnstile()
        self._dispatcher = Dispatcher(METHODS, config.limits.envelope, loop.time)
        self._http = web.Server(self._handle, handler_cancellation=True)
        self._listener: asyncio.Server | None = None
        self._sockets: set[_Socket] = set()
        self._held_bytes = 0
        self._refused: Counter[int] = Counter()  # by HTTP status
        self.metrics = make_registry(self._state)
        self._tags = {path: f'"{sha256(body).hexdigest()}"' for path, (_, body) in config.pages.items()}

    async def start(self) -> None:
        """Raises: OSError when the address cannot be had."""
        self._listener = await asyncio.get_running_loop().create_server(
            self._guarded if self._tls is None else self._doorstep, self.config.host, self.config.port
        )
        self.door.open()

    async def stop(self) -> None:
        """Takes no more connections, tells the WebSockets, ends what is left: in three seconds, whatever they do."""
        if self._listener is not None:
            self._listener.close()
        self.door.close()
        for handshake in self._handshakes:
            handshake.cancel()
        if goodbyes := [asyncio.create_task(socket.say_goodbye()) for socket in self._sockets]:
            await asyncio.wait(goodbyes)
        await self._http.shutdown(timeout=1.0)
        if self._listener is not None:
            await self._listener.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on. Only between `start` and `stop`."""
        if self._listener is None:
            raise RuntimeError("the server is not started")
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}"

    def set_tls(self, tls: Tls) -> None:
        """For connections from now on. Only of a server that began with TLS."""
        if self._tls is None:
            raise RuntimeError("the server speaks no TLS")
        self._tls = tls

    def set_tokens(self, tokens: Sequence[Token] | None) -> None:
        """Takes a new list, and parts with those that are on it no more."""
        self.access.set_tokens(tokens)
        self.part_with_ended()

    def part_with_ended(self) -> None:
        """Closes the WebSockets whose token is revoked or expired; a request by HTTP shows its token anyway."""
        for socket in self._sockets:
            if reason := self.access.ended(socket.client):
                socket.end(reason)

    def _today(self) -> date:
        return datetime.fromtimestamp(self.door.chain.now_ms() // 1_000, UTC).date()

    def _doorstep(self) -> Doorstep:
        if self._tls is None:
            raise RuntimeError("the server speaks no TLS")
        handshake_s = self.config.limits.headers_s
        return Doorstep(
            self.gate, self._tls.context, self._guarded, self._handshakes, self._hush, handshake_s
        )

    def _guarded(self, place: Place | None = None) -> Guarded:
        limits = self.config.limits
        return Guarded(
            self._http,
            self.gate,
            self._reads,
            self._clock,
            place,
            headers_s=limits.headers_s,
            message_s=limits.body_s,
            idle_s=limits.idle_s,
            line_bytes_max=limits.line_bytes_max,
            headers_max=limits.headers_max,
        )

    # --- HTTP -----------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        _guard_of(request).head_came()
        try:
            allowed = self._check_request(request)
            response = await self._route(request, allowed)
        except _NotServed as reason:
            self._refused[reason.status] += 1
            response = web.Response(status=reason.status, text=reason.text + "\n", headers=reason.headers)
            response.force_close()
        if isinstance(response, web.Response):
            response.headers[hdrs.SERVER] = "ctt"
            await self._send(request, response)
            _guard_of(request).rest()
        return response

    def _check_request(self, request: web.BaseRequest) -> dict[str, str]:
        """Host, Origin and path. Gives the headers that let a page from an allowed origin read the answer."""
        limits = self.config.limits
        if len(request.raw_path) > limits.uri_chars_max:
            raise _NotServed(
                414, f"URI of {len(request.raw_path):,} characters; limit {limits.uri_chars_max:,}"
            )
        if request.method == hdrs.METH_CONNECT:
            raise _NotServed(405, "use POST", {"Allow": "GET, HEAD, POST, OPTIONS"})
        if not request.raw_path.startswith("/"):
            raise _NotServed(400, "the request target must be a path")
        host = self._check_host(request.headers.getall(hdrs.HOST, []))
        return self._check_origin(request.headers.getall(hdrs.ORIGIN, []), host)

    def _check_host(self, given: list[str]) -> str:
        if len(given) != 1:
            raise _NotServed(400, "one Host header is needed")
        match = _HOST.fullmatch(given[0])
        name = match["name"].lower() if match else ""
        allowed = self.config.hosts
        if not match or not (name in HOSTS_ALWAYS or name in allowed or "*" in allowed):
            shown = given[0][:100]
            raise _NotServed(403, f"host {shown!r} is not allowed; see --rpc-hosts")
        return given[0]

    def _check_origin(self, given: list[str], host: str) -> dict[str, str]:
        if not given:
            return {}
        origin, allowed = given[0], self.config.origins
        is_own = origin in (f"http://{host}", f"https://{host}")
        is_known = is_own or origin in allowed or "*" in allowed or origin.startswith(EXTENSION_SCHEMES)
        if len(given) > 1 or not is_known:
            raise _NotServed(403, f"origin {origin[:100]!r} is not allowed; see --rpc-origins")
        return {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin, hdrs.VARY: "Origin"}

    async def _route(self, request: web.BaseRequest, allowed: dict[str, str]) -> web.StreamResponse:
        if request.path not in ("/", *_PAGES) and request.path not in self.config.pages:
            raise _NotServed(404, "not found: JSON-RPC is at /")
        if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
            if request.path == "/" and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                return await self._serve_socket(request, self._admit(request, allowed))
            if request.path == "/metrics":
                return self._serve_metrics(request, allowed)
            return self._serve_readiness() if request.path == "/ready" else self._serve_page(request)
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers={**allowed, **_PREFLIGHT})
        if request.method == hdrs.METH_POST and request.path == "/":
            return await self._serve_rpc(request, allowed)
        raise _NotServed(405, "use POST", {"Allow": "GET, HEAD, POST, OPTIONS"})

    def _serve_page(self, request: web.BaseRequest) -> web.Response:
        """The explorer to a browser, one line of health to everyone else."""
        page = self.config.pages.get(request.path)
        if page and (request.path != "/" or "text/html" in request.headers.get(hdrs.ACCEPT, "")):
            content_type, body = page
            headers = {**_PAGE_HEADERS, hdrs.ETAG: self._tags[request.path]}
            if request.headers.get(hdrs.IF_NONE_MATCH) == headers[hdrs.ETAG]:
                return web.Response(status=304, headers=headers)
            return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)
        chain = self.door.chain
        state = "syncing" if chain.is_syncing() else "ok"
        return web.Response(text=f"{state} height {chain.head.block.header.height}\n")

    def _serve_readiness(self) -> web.Response:
        """For whoever passes clients on to several nodes: whether this one is as good as another."""
        chain = self.door.chain
        if trouble := chain.trouble():
            return web.Response(status=503, text=f"{trouble}\n")
        return web.Response(text=f"ready height {chain.head.block.header.height}\n")

    def _serve_metrics(self, request: web.BaseRequest, allowed: Mapping[str, str]) -> web.Response:
        """Raises: _NotServed to whoever is no operator."""
        client = self._admit(request, allowed, Role.OPERATOR)
        if not _guard_of(request).settle(client.is_reserved):
            raise _NotServed(503, _FULL)
        return web.Response(
            body=generate_latest(self.metrics), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )

    def _state(self) -> DoorState:
        return DoorState(
            self.gate.total,
            len(self._sockets),
            self._held_bytes,
            self.gate.refused,
            self._refused,
            self._dispatcher.answered,
            None if self._tls is None else self._tls.ends,
        )

    async def _serve_rpc(self, request: web.BaseRequest, allowed: dict[str, str]) -> web.Response:
        client = self._admit(request, allowed)
        if not _guard_of(request).settle(client.is_reserved):
            return self._refuse_full(allowed)
        body = await self._read_body(request, client)
        reply = await self._answer(body, Caller(self.door, client.name, role=client.role), client)
        if reply is None:
            return web.Response(status=204, headers=allowed)
        return web.Response(body=reply.encode(), content_type="application/json", headers=allowed)

    def _admit(
        self, request: web.BaseRequest, allowed: Mapping[str, str], least: Role = Role.PUBLIC
    ) -> Client:
        """Raises: _NotServed."""
        guard = _guard_of(request)
        shown = request.headers.getall(hdrs.AUTHORIZATION, [])
        try:
            return self.access.client(guard.address, guard.certificate, shown, least)
        except NotAdmitted as refusal:
            asks: dict[str, str] = {hdrs.WWW_AUTHENTICATE: "Bearer"} if refusal.status == 401 else {}
            raise _NotServed(refusal.status, str(refusal), {**allowed, **asks}) from None

    def _refuse_full(self, allowed: Mapping[str, str]) -> web.Response:
        reply = error_reply(None, TryLater(_FULL)) or ""
        response = web.Response(body=reply.encode(), content_type="application/json", headers=allowed)
        response.force_close()
        return response

    async def _answer(self, body: bytes, caller: Caller, client: Client) -> str | None:
        unread = self._dispatcher.unread(body)
        if unread and (refusal := unread.refuse(caller)):
            return refusal
        if self._holds_enough(client):
            return error_reply(None, TryLater(_HOLDS_ENOUGH))
        self._held_bytes += len(body)
        try:
            with unread or nullcontext():
                await self._turnstile.turn(1 + len(body) // PIECE_BYTES, is_reserved=client.is_reserved)
            return await self._dispatcher.answer(body, caller, client)
        finally:
            self._held_bytes -= len(body)

    def _holds_enough(self, client: Client) -> bool:
        limits = self.config.limits
        share = 100 if client.is_reserved else limits.ordinary_percent
        return self._held_bytes * 100 > limits.held_bytes_max * share

    async def _read_body(self, request: web.BaseRequest, client: Client) -> bytes:
        """Raises: _NotServed for what is no JSON body of bounded size, sent in time."""
        limits = self.config.limits
        if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
            raise _NotServed(415, "send application/json")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise _NotServed(415, "compressed bodies are not accepted")
        if (request.content_length or 0) > limits.body_bytes_max:
            raise _too_large(request.content_length or 0, limits.body_bytes_max)
        if request.content.is_eof():
            return request.content.read_nowait()
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(limits.body_s):
                return await self._read_all(request, client)
        except TimeoutError:
            raise _NotServed(408, f"body not received within {limits.body_s:g} s") from None
        except (HttpProcessingError, web.RequestPayloadError):
            raise _NotServed(400, "malformed body") from None

    async def _read_all(self, request: web.BaseRequest, client: Client) -> bytes:
        body, bytes_max = bytearray(), self.config.limits.body_bytes_max
        try:
            while chunk := await request.content.readany():
                body += chunk
                self._held_bytes += len(chunk)
                if len(body) > bytes_max:
                    raise _too_large(len(body), bytes_max)
                if self._holds_enough(client):
                    raise _NotServed(503, _HOLDS_ENOUGH)
            return bytes(body)
        finally:
            self._held_bytes -= len(body)

    async def _send(self, request: web.BaseRequest, response: web.Response) -> None:
        """Writes the response; a client that does not read it in time is cut off."""
        size = len(response.body) if isinstance(response.body, bytes) else 0
        self._held_bytes += size
        try:
            async with asyncio.timeout(self.config.limits.reply_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._held_bytes -= size

    # --- WebSocket ------------------------------------------------------------------------------------------------

    async def _serve_socket(self, request: web.BaseRequest, client: Client) -> web.StreamResponse:
        limits = self.config.limits
        if not _guard_of(request).settle(client.is_reserved):
            raise _NotServed(503, _FULL)
        response = web.WebSocketResponse(
            max_msg_size=limits.body_bytes_max,
            autoping=False,
            compress=False,
            timeout=limits.body_s,
        )
        try:
            await response.prepare(request)
        except HTTPException as refusal:
            raise _NotServed(
                426 if "version" in (refusal.text or "") else 400, refusal.text or "bad upgrade"
            ) from None
        except ValueError:  # aiohttp's, of a key that is not ASCII
            raise _NotServed(400, "bad upgrade: malformed Sec-WebSocket-Key") from None
        session = self.door.subscriptions.open(limits.subscriptions)
        socket = _Socket(self, request, response, session, client)
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)
            self.door.subscriptions.close(session)
        return response


class _Socket:
    """One WebSocket at work: it reads requests, answers up to so many at once, and tells what is subscribed."""

    def __init__(
        self,
        server: RpcServer,
        request: web.BaseRequest,
        socket: web.WebSocketResponse,
        session: Session,
        client: Client,
    ) -> None:
        self.client = client
        self._server = server
        self._limits = server.config.limits
        self._guard = _guard_of(request)
        self._guard.hear()
        self._socket = socket
        self._session = session
        self._caller = Caller(server.door, client.name, session, client.role)
        self._free = asyncio.Semaphore(self._limits.socket_requests_max)
        self._one_reply = asyncio.Lock()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._session.pump(self._send))
                tasks.create_task(self._close_when_slow())
                tasks.create_task(self._close_when_silent())
                tasks.create_task(self._close_when_ended())
                await self._read(tasks)
                raise _SocketEnded
        except* (_SocketEnded, ConnectionError, TimeoutError):
            pass

    def end(self, reason: str) -> None:
        """The client is not served any more."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def say_goodbye(self) -> None:
        """Cuts off whoever does not take it at once."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the node stops")
        except (
            TimeoutError,
            asyncio.CancelledError,
        ):  # who waits for room to write may be cancelled by another's end
            self._cut_off()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Until the client goes. While too many of its requests are at work, nothing more is read."""
        while True:
            await self._free.acquire()
            body = await self._next_message()
            if body is None:
                return
            tasks.create_task(self._answer(body))

    async def _next_message(self) -> bytes | None:
        self._guard.wait_for_message()
        while True:
            message = await self._socket.receive()
            self._guard.message_came()
            if message.type is WSMsgType.TEXT:
                return str(message.data).encode()
            if message.type is WSMsgType.BINARY:
                return bytes(message.data)
            if message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return None
            self._guard.wait_for_message()

    async def _answer(self, body: bytes) -> None:
        try:
            reply = await self._server._answer(body, self._caller, self.client)
            if reply is not None:
                async with self._one_reply:
                    await self._send(reply)
            self._session.activate()
        finally:
            self._free.release()

    async def _send(self, text: str) -> None:
        """Raises: ConnectionError; TimeoutError when the client takes nothing for too long."""
        try:
            async with asyncio.timeout(self._limits.reply_s):
                await self._socket.send_str(text)
        except TimeoutError:
            self._cut_off()
            raise

    async def _close_when_slow(self) -> None:
        """Raises: _SocketEnded."""
        await self._session.slow.wait()
        await self._close(WSCloseCode.TRY_AGAIN_LATER, self._session.slow_text)

    async def _close_when_ended(self) -> None:
        """Raises: _SocketEnded."""
        await self._close(WSCloseCode.POLICY_VIOLATION, await self._ended)

    async def _close_when_silent(self) -> None:
        """Asks a silent client for a sign of life, twice. Raises: _SocketEnded."""
        pong_s = self._limits.pong_s
        while (silent_s := self._guard.silent_s()) < pong_s:
            if silent_s >= pong_s / 4:
                await self._socket.ping()
            await asyncio.sleep(pong_s / 3)
        await self._close(WSCloseCode.INTERNAL_ERROR, f"no pong for {pong_s:g} s")

    async def _close(self, code: WSCloseCode, reason: str) -> None:
        """Raises: _SocketEnded."""
        try:
            async with asyncio.timeout(self._limits.body_s):
                await self._socket.close(code=code, message=reason.encode())
        except TimeoutError:
            self._cut_off()
        raise _SocketEnded

    def _cut_off(self) -> None:
        if self._guard.transport is not None:
            self._guard.transport.abort()


def _guard_of(request: web.BaseRequest) -> Guarded:
    if not isinstance(request.protocol, Guarded):
        raise TypeError("a connection outside the guard")
    return request.protocol


def _too_large(size: int, limit: int) -> _NotServed:
    return _NotServed(413, f"body {size:,} bytes; limit {limit:,}")


_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
    "Access-Control-Allow-Headers": "content-type, authorization",
    "Access-Control-Max-Age": "600",
    "Allow": "GET, HEAD, POST, OPTIONS",
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@asynccontextmanager
async def serve(chain: Chain, config: ServerConfig | None = None) -> AsyncIterator[RpcServer]:
    """A started server, stopped on leaving."""
    server = RpcServer(chain, config or ServerConfig())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
