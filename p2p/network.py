"""The only streams: who is connected, who is dialled, and how what they say reaches the node.

Everything runs on one event loop; each connection is a task that reads and a task that writes. Whatever a peer does
ends its own connection only. Mistakes of the handler are ours: they end `Network.run`.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from random import Random
from typing import Final, NamedTuple, NewType, Protocol

from ctt_state.units import Address, Hash, Height
from p2p.bans import Bans
from p2p.chatter import Chatter
from p2p.errors import (
    Banned,
    Distrusted,
    DuplicateSession,
    HandshakeTooLate,
    NoRoom,
    OtherPeer,
    PeerLeft,
    PeerMisbehaved,
    PeerTooSlow,
    SessionEnded,
    ShutDown,
)
from p2p.identity import PeerIdentity, UntrustedPeer
from p2p.messages import (
    VERSION,
    Consensus,
    Hello,
    Message,
    Reply,
    Request,
    Transactions,
    encode_message,
)
from p2p.session import DEFAULT_LIMITS, VALIDATOR_LIMITS, Limits, Session

log = logging.getLogger(__name__)

PeerId = NewType("PeerId", str)  # the name in the peer's certificate

AGENT: Final = "ctt/1"
READ_BYTES: Final = 256 * 1024
BUFFER_BYTES: Final = 64 * 1024  # what streams hold of a connection each way, beside the session's queue
TICK_S: Final = 1.0
DIAL_S: Final = 3.0  # for the connection and TLS; a lost first packet is sent again after 1 and 3 s
PARTING_S: Final = 1.0  # for the last bytes and the end of TLS
ACCEPT_PAUSE_S: Final = 0.2  # after a connection could not be taken: there are too many open files
BACK_OFF_FIRST_MS: Final = 200
BACK_OFF_MAX_MS: Final = 1_000
BACK_OFF_OF_FOLLOWERS_MAX_MS: Final = 10_000
NOT_OURS: Final = (  # of what OpenSSL says: no TLS at all, or one that is too old
    *("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"),
    "UNSUPPORTED_PROTOCOL",
)


class Endpoint(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Chain(NamedTuple):
    """What both sides of a session must agree on."""

    chain_id: int
    genesis_hash: Hash


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer with which there is a session. Who is no validator has no address of one."""

    name: PeerId
    validator: Address | None
    address: str
    outbound: bool
    since_ms: int
    agent: str
    height: Height  # when it said hello


Delivered = Consensus | Request | Reply | Transactions


class Handler(Protocol):
    """The node, as the network needs it. Called on the event loop, for each peer in the order of its messages.

    Between `on_connected` and `on_disconnected` of a peer there is one session with it. `on_disconnected` may be called
    from within `send` and `broadcast`, which end the session of a peer that is too slow.
    """

    def on_connected(self, peer: PeerInfo) -> None: ...

    def on_message(self, peer: PeerInfo, message: Delivered) -> None: ...

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None: ...


class Identity(Protocol):
    """Who this node is, and how it tells who others are (p2p/identity.py)."""

    @property
    def own(self) -> PeerIdentity: ...

    def server_context(self) -> ssl.SSLContext: ...

    def client_context(self) -> ssl.SSLContext: ...

    def identify(self, connection: ssl.SSLObject) -> PeerIdentity:
        """Raises: UntrustedPeer."""
        ...

    def is_revoked(self, peer: PeerIdentity) -> bool: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How many may come, and how long they have to say who they are."""

    handshake_ms: int = 5_000
    pending_max: int = 50
    pending_per_host_max: int = 16
    followers_max: int = 32  # that connect to this node
    limits: Limits = DEFAULT_LIMITS
    limits_of_validators: Limits = VALIDATOR_LIMITS


DEFAULT_SETTINGS: Final = Settings()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A connection with a peer whose certificate is known to be good. It has `info` while it is the peer's session."""

    def __init__(
        self,
        streams: Streams,
        peer: PeerIdentity,
        session: Session,
        address: Endpoint,
        deadline: asyncio.Timeout,
        *,
        outbound: bool,
    ) -> None:
        self.reader, self.writer = streams
        self.peer = peer
        self.session = session
        self.address = address
        self.outbound = outbound
        self.info: PeerInfo | None = None
        self.opened_ms = 0
        self.instance: int | None = None  # of the peer's process, once it has said hello
        self.writing: asyncio.Task[None] | None = None
        self.fault: SessionEnded | None = None
        self.has_more = asyncio.Event()
        self._deadline = deadline

    def open(self, info: PeerInfo, instance: int) -> None:
        self.info = info
        self.opened_ms = info.since_ms
        self.instance = instance
        self._deadline.reschedule(None)

    def end(self, fault: SessionEnded) -> None:
        """Lets the task that reads end at once, with this reason."""
        self.fault = fault
        self._deadline.reschedule(0)


class Network:
    """Sessions with peers: those that are dialled, by name, and those that come.

    `rng` draws the times of dialling and this process's number; `now_ms` is a clock that never jumps; `height` is
    the highest final block's. `on_closed` hears of each dialled connection that ends, also when no session came of it:
    the name that was dialled, and why.
    """

    def __init__(
        self,
        identity: Identity,
        chain: Chain,
        peers: Mapping[str, Sequence[Endpoint]],
        handler: Handler,
        *,
        listen: Endpoint | None,
        height: Callable[[], Height],
        now_ms: Callable[[], int],
        rng: Random,
        settings: Settings = DEFAULT_SETTINGS,
        on_closed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._identity = identity
        self._chain = chain
        self._handler = handler
        self._height = height
        self._now_ms = now_ms
        self._rng = rng
        self._settings = settings
        self._on_closed = on_closed
        self._instance = rng.getrandbits(63)
        self._own_name = identity.own.name
        self._static = {name: tuple(each) for name, each in peers.items() if name != self._own_name and each}
        self._absent = {name: asyncio.Event() for name in self._static}
        for absent in self._absent.values():
            absent.set()
        self._listen = listen
        self._listener: socket.socket | None = None
        self._links: dict[PeerId, _Link] = {}
        self._pending: set[Endpoint] = set()  # where those are that came and have not said hello yet
        self._followers: set[str] = set()  # names whose certificate is no validator's
        self._bans = Bans()
        self._chatter = Chatter(log)
        self._tasks: asyncio.TaskGroup  # while it runs

    # The node's side

    def bind(self) -> Endpoint | None:
        """Begins to listen, before `run`; where, if anywhere. Raises: OSError."""
        if self._listen is not None and self._listener is None:
            family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
            self._listener = socket.create_server(self._listen, family=family, backlog=128)
            self._listener.setblocking(False)
        return None if self._listener is None else Endpoint(*self._listener.getsockname()[:2])

    async def run(self) -> None:
        """Until it is cancelled; it may run again then. Raises: OSError if it cannot listen."""
        self.bind()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                if self._listener is not None:
                    self._tasks.create_task(self._accept_all(self._listener))
                for name, endpoints in self._static.items():
                    self._tasks.create_task(self._keep_dialling(name, endpoints))
                self._tasks.create_task(self._watch())
        finally:
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def peers(self) -> list[PeerInfo]:
        """Those with which there is a session, in the order in which they came."""
        return [link.info for link in self._links.values() if link.info]

    def send(self, peer: PeerId, message: Message) -> None:
        """Queues a message for a peer; nothing happens if there is no session with it."""
        if link := self._links.get(peer):
            self._send(link, message, None)

    def broadcast(self, message: Message, *, only_validators: bool = False) -> None:
        """Queues a message for every peer; it is encoded once."""
        frame = encode_message(message)
        for link in list(self._links.values()):
            if link.peer.validator is not None or not only_validators:
                self._send(link, message, frame)

    def punish(self, peer: PeerId, text: str) -> None:
        """Ends the session and keeps the peer out for a while: what it sent breaks a rule, as `text` says."""
        if link := self._links.get(peer):
            self._end(link, PeerMisbehaved(text))

    def drop_revoked(self) -> None:
        """Ends the sessions with peers whose certificates are trusted no more."""
        for link in list(self._links.values()):
            if self._identity.is_revoked(link.peer):
                self._end(link, Distrusted("its certificate is revoked"))

    # Who comes and who is dialled

    async def _accept_all(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as fault:
                self._say(logging.WARNING, "listening", f"cannot take a connection: {fault.strerror}")
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if self._has_room(address[0]):
                origin = Endpoint(*address[:2])
                self._pending.add(origin)
                self._tasks.create_task(self._serve(connection, origin))
            else:
                connection.close()
                self._say(logging.WARNING, address[0], "closed: too many handshakes are unfinished")

    def _has_room(self, host: str) -> bool:
        of_host = sum(origin.host == host for origin in self._pending)
        return (
            len(self._pending) < self._settings.pending_max and of_host < self._settings.pending_per_host_max
        )

    async def _serve(self, connection: socket.socket, origin: Endpoint) -> None:
        try:
            await self._converse(partial(self._accept, connection), origin, None)
        finally:
            self._pending.discard(origin)

    async def _accept(self, connection: socket.socket) -> Streams:
        """Raises: OSError, of which an ssl.SSLError is one."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._identity.server_context()
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _dial(self, endpoint: Endpoint) -> Streams:
        """Raises: OSError."""
        async with asyncio.timeout(DIAL_S):
            return await asyncio.open_connection(
                *endpoint, ssl=self._identity.client_context(), limit=BUFFER_BYTES
            )

    async def _keep_dialling(self, name: str, endpoints: Sequence[Endpoint]) -> None:
        """Whenever there is no session with this peer, again and again, from one address to the next."""
        failures = 0
        for endpoint in cycle(endpoints):
            await self._absent[name].wait()  # bounded by the session, which ends when the peer is silent
            await asyncio.sleep(self._back_off_ms(name, failures) / 1_000)
            if name in self._links:  # it came meanwhile
                continue
            lasted_ms = await self._converse(partial(self._dial, endpoint), endpoint, name)
            failures = 0 if lasted_ms >= self._settings.handshake_ms else failures + 1

    def _back_off_ms(self, name: str, failures: int) -> int:
        """Doubles up to a limit, and half of it again by chance; a ban is waited for."""
        limit_ms = BACK_OFF_OF_FOLLOWERS_MAX_MS if name in self._followers else BACK_OFF_MAX_MS
        pause_ms = min(BACK_OFF_FIRST_MS << min(failures - 1, 16), limit_ms) if failures else 0
        pause_ms += self._rng.randint(0, max(pause_ms, BACK_OFF_FIRST_MS) // 2)
        return max(pause_ms, self._bans.left_ms(name, self._now_ms()))

    # A conversation

    async def _converse(
        self, connect: Callable[[], Awaitable[Streams]], address: Endpoint, wanted: str | None
    ) -> int:
        """From the connection to its end, whatever that is; how long there was a session, in ms."""
        link: _Link | None = None
        fault: Exception = ShutDown()
        try:
            async with asyncio.timeout(self._settings.handshake_ms / 1_000) as deadline:
                link = await self._meet(await connect(), address, deadline, outbound=wanted is not None)
                self._check_welcome(link, wanted)
                await self._listen_to(link)
        except (SessionEnded, UntrustedPeer, OSError) as caught:  # a TimeoutError is an OSError
            fault = HandshakeTooLate(self._settings.handshake_ms) if deadline.expired() else caught
        finally:
            fault = fault if link is None else link.fault or fault
            if wanted is not None and self._on_closed is not None:
                self._on_closed(wanted, fault)
            if link is None:
                self._report(wanted or address.host, address, fault)
            else:
                await self._part(link, fault)
        return 0 if link is None or link.instance is None else self._now_ms() - link.opened_ms

    async def _meet(
        self, streams: Streams, address: Endpoint, deadline: asyncio.Timeout, *, outbound: bool
    ) -> _Link:
        """After TLS: who it is. Raises: UntrustedPeer, PeerLeft, OSError."""
        _, writer = streams
        try:
            connection = writer.get_extra_info("ssl_object")
            if connection is None:
                raise PeerLeft
            peer = self._identity.identify(connection)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (UntrustedPeer, PeerLeft, OSError):
            writer.transport.abort()
            raise
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        settings = self._settings
        limits = settings.limits if peer.validator is None else settings.limits_of_validators
        session = Session(self._hello(), self._now_ms(), limits)
        return _Link(streams, peer, session, address, deadline, outbound=outbound)

    def _hello(self) -> Hello:
        return Hello(VERSION, *self._chain, self._instance, AGENT, self._height())

    def _check_welcome(self, link: _Link, wanted: str | None) -> None:
        """Raises: OtherPeer, Banned, NoRoom."""
        peer = link.peer
        if wanted is not None and peer.name != wanted:
            raise OtherPeer(wanted=wanted, found=peer.name)
        if left_ms := self._bans.left_ms(peer.name, self._now_ms()):
            raise Banned(left_ms)
        if peer.validator is None and not link.outbound and peer.name not in self._links:
            followers = [
                each for each in self._links.values() if not each.outbound and not each.peer.validator
            ]
            if len(followers) >= self._settings.followers_max:
                raise NoRoom(self._settings.followers_max)

    async def _listen_to(self, link: _Link) -> None:
        """Raises: SessionEnded, OSError. Silence is seen by `_watch`, and before the hello by the deadline."""
        link.writing = self._tasks.create_task(self._write(link))
        while data := await link.reader.read(READ_BYTES):
            for message in link.session.receive(data, self._now_ms()):
                if isinstance(message, Hello):
                    self._open(link, message)
                elif link.info is None:
                    return  # ended by an earlier message
                else:
                    self._handler.on_message(link.info, message)
            if pause_ms := link.session.pause_ms(self._now_ms()):
                await asyncio.sleep(pause_ms / 1_000)
        raise PeerLeft

    async def _write(self, link: _Link) -> None:
        """Takes what the session has for the peer, a little at a time, so that what is urgent overtakes."""
        silence_s = link.session.limits.silence_ms / 1_000
        try:
            while True:
                if data := link.session.take(BUFFER_BYTES):
                    link.writer.write(data)
                    async with asyncio.timeout(silence_s):
                        await link.writer.drain()
                else:
                    link.has_more.clear()
                    await link.has_more.wait()
        except TimeoutError:
            self._end(link, PeerTooSlow())
        except OSError:
            return  # the task that reads finds out

    def _open(self, link: _Link, hello: Hello) -> None:
        """The peer's hello has come. Raises: DuplicateSession."""
        peer, name, now_ms = link.peer, PeerId(link.peer.name), self._now_ms()
        older = self._links.get(name)
        if older is not None:
            if not self._is_kept(link, hello.instance, older):
                raise DuplicateSession
            self._end(older, DuplicateSession())
        info = PeerInfo(
            name, peer.validator, str(link.address), link.outbound, now_ms, hello.agent, hello.height
        )
        link.open(info, hello.instance)
        self._links[name] = link
        self._pending.discard(link.address)
        if name in self._absent:
            self._absent[name].clear()
        (self._followers.discard if peer.validator else self._followers.add)(name)
        self._say(logging.INFO, name, f"connected, {'to' if link.outbound else 'from'} {link.address}")
        self._handler.on_connected(info)

    def _is_kept(self, newer: _Link, instance: int, older: _Link) -> bool:
        """Of two sessions with a peer the newer is kept: who dials again has lost the older. Only when both sides dial
        at once, which a handshake's time shows, each must keep the same one: the one that the lesser name dialled."""
        is_restarted = instance != older.instance
        is_settled = self._now_ms() - older.opened_ms >= self._settings.handshake_ms
        if is_restarted or is_settled or older.outbound == newer.outbound:
            return True
        return newer.outbound == (self._own_name < newer.peer.name)

    def _send(self, link: _Link, message: Message, frame: bytes | None) -> None:
        try:
            link.session.send(message, frame)
        except PeerTooSlow as fault:
            self._end(link, fault)
        else:
            link.has_more.set()

    # The end of a session

    def _end(self, link: _Link, fault: SessionEnded) -> None:
        """Ends a session from outside of its task."""
        if link.info is not None:
            self._close(link, fault)
            link.end(fault)

    def _close(self, link: _Link, fault: Exception) -> None:
        """Takes the session off the list, and tells."""
        info, link.info = link.info, None
        if info is not None:
            del self._links[info.name]
            if info.name in self._absent:
                self._absent[info.name].set()
            self._handler.on_disconnected(info, describe(fault))

    async def _part(self, link: _Link, fault: Exception) -> None:
        """Says goodbye, if there is anyone to hear it, and closes the connection, in `PARTING_S` at most."""
        self._close(link, fault)
        if link.writing is not None:
            link.writing.cancel()
        if isinstance(fault, PeerMisbehaved):
            is_validator = link.peer.validator is not None
            self._bans.add(link.peer.name, is_validator=is_validator, now_ms=self._now_ms())
        self._report(link.peer.name, link.address, fault)
        try:
            if isinstance(fault, SessionEnded) and not isinstance(fault, PeerLeft | PeerTooSlow):
                link.writer.write(link.session.take_goodbye(fault.reason))
                link.writer.close()
                async with asyncio.timeout(PARTING_S):
                    await link.writer.wait_closed()
        except OSError:
            return  # it is gone, which is what was wanted
        finally:
            link.writer.transport.abort()

    async def _watch(self) -> None:
        """Pings who is quiet, and ends the sessions of who is silent."""
        while True:
            await asyncio.sleep(TICK_S)
            for link in list(self._links.values()):
                try:
                    link.session.on_time(self._now_ms())
                except SessionEnded as fault:
                    self._end(link, fault)
                else:
                    link.has_more.set()

    def _report(self, subject: str, address: Endpoint, fault: Exception) -> None:
        is_ordinary = isinstance(fault, SessionEnded | OSError) and not isinstance(
            fault, PeerMisbehaved | ssl.SSLError
        )
        level = logging.INFO if is_ordinary else logging.WARNING
        self._say(level, subject, f"closed ({address}): {describe(fault)}")

    def _say(self, level: int, subject: str, text: str) -> None:
        self._chatter.say(level, subject, text, self._now_ms())


def describe(fault: Exception) -> str:
    """Why a connection ended, for the log."""
    match fault:
        case ssl.SSLError(reason=reason) if reason in NOT_OURS:
            return f"not our protocol: {reason}"
        case ssl.SSLEOFError():
            return "the connection broke"
        case ssl.SSLError(reason=reason):
            return f"handshake authentication failed: {reason}"
        case OSError(strerror=str() as text) if text:
            return text
        case TimeoutError():
            return "no answer"
        case _:
            return str(fault) or type(fault).__name__
