"""Real networks over loopback TLS: who stays connected, in which order messages come, and what hostile peers reach."""

import asyncio
import errno
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Self

import pytest

from ctt_state.units import Address, Hash, Height
from node.cli.certificates import Authority, create_authority
from p2p.errors import PeerLeft, Reason
from p2p.framing import FrameReader, encode_frame
from p2p.identity import REVOKED_FILE, Identity, load_identity, show_serial
from p2p.messages import (
    MESSAGES,
    BlockReply,
    GetBlock,
    Goodbye,
    Hello,
    Message,
    Ping,
    ProposalMessage,
    Transactions,
    VoteMessage,
    decode_message,
    encode_message,
)
from p2p.network import (
    DEFAULT_SETTINGS,
    Chain,
    Delivered,
    Endpoint,
    Network,
    PeerId,
    PeerInfo,
    Settings,
    describe,
)
from p2p.session import Limits
from tests.p2p_world import BLOCK_HASH, GENESIS_HASH, make_block, make_hello, make_vote

NOW: Final = datetime.now(UTC)
CHAIN: Final = Chain(7, GENESIS_HASH)
SOON_S: Final = 10
Identities = Mapping[str, Identity]
LOCAL: Final = Endpoint("127.0.0.1", 0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(
        tmp_path_factory.mktemp("consortium") / "ca", "Consortium", now=NOW - timedelta(days=1), days=30
    )


@pytest.fixture(scope="module")
def identities(authority: Authority) -> Identities:
    """Validators v1 to v4 and followers f1 to f4."""
    return {
        f"{kind}{number}": issue(authority, f"{kind}{number}", bytes([number]) * 20 if kind == "v" else None)
        for kind in "vf"
        for number in range(1, 5)
    }


def issue(authority: Authority, name: str, validator: bytes | None) -> Identity:
    out = authority.directory.parent / name
    authority.issue(out, name, Address(validator) if validator else None, now=NOW, days=10)
    return load_identity(out, NOW)


class Recorder:
    """A node that keeps what it is told."""

    def __init__(self) -> None:
        self.connected: list[PeerInfo] = []
        self.messages: list[tuple[PeerId, Delivered]] = []
        self.disconnected: list[tuple[PeerId, str]] = []
        self.on_vote: Callable[[PeerInfo], object] | None = None
        self._changed = asyncio.Event()

    def on_connected(self, peer: PeerInfo) -> None:
        self.connected.append(peer)
        self._changed.set()

    def on_message(self, peer: PeerInfo, message: Delivered) -> None:
        self.messages.append((peer.name, message))
        if self.on_vote is not None and isinstance(message, VoteMessage):
            self.on_vote(peer)
        self._changed.set()

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None:
        self.disconnected.append((peer.name, reason))
        self._changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not is_true():
                self._changed.clear()
                await self._changed.wait()


class Lines:
    """What the network has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def text(self) -> str:
        return "\n".join(self._caplog.messages)

    async def until(self, pattern: str) -> None:
        async with asyncio.timeout(SOON_S):
            while not re.search(pattern, self.text):
                await asyncio.sleep(0.01)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.INFO, "p2p")
    return Lines(caplog)


def free_endpoint() -> Endpoint:
    """Where nobody listens."""
    with socket.create_server(LOCAL) as listener:
        return Endpoint(*listener.getsockname())


class Node:
    """A network with its recorder, bound to a free port before anyone dials it."""

    def __init__(
        self,
        identity: Identity,
        peers: Mapping[str, Sequence[Endpoint]] | None = None,
        *,
        settings: Settings = DEFAULT_SETTINGS,
        chain: Chain = CHAIN,
        seed: int = 1,
        listen: Endpoint | None = LOCAL,
    ) -> None:
        self.identity = identity
        self.name = PeerId(identity.own.name)
        self.recorder = Recorder()
        self.network = Network(
            identity,
            chain,
            peers or {},
            self.recorder,
            listen=listen,
            height=lambda: Height(0),
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            rng=Random(f"{self.name} {seed}"),
            settings=settings,
        )
        self.endpoint = self.network.bind()


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(node.network.run()) for node in nodes]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


def at(node: Node) -> dict[str, Sequence[Endpoint]]:
    """Where others dial it."""
    assert node.endpoint is not None
    return {node.name: [node.endpoint]}


async def connect_both(one: Node, two: Node) -> None:
    await one.recorder.until(lambda: bool(one.network.peers()))
    await two.recorder.until(lambda: bool(two.network.peers()))


class Stranger:
    """A connection that speaks frames itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()

    @classmethod
    async def dial(cls, node: Node, identity: Identity | None) -> Self:
        """Without an identity it does not speak TLS."""
        assert node.endpoint is not None
        context = identity.client_context() if identity else None
        return cls(*await asyncio.open_connection(*node.endpoint, ssl=context))

    async def say(self, *messages: Message) -> None:
        self.writer.write(b"".join(map(encode_message, messages)))
        await self.writer.drain()

    async def hear_all(self) -> list[Message]:
        """Until the other side ends the connection."""
        heard: list[Message] = []
        async with asyncio.timeout(SOON_S):
            while data := await self._read():
                heard += [decode_message(*frame) for frame in self._frames.feed(data)]
        return heard

    async def hear(self) -> Message:
        async with asyncio.timeout(SOON_S):
            while True:
                for frame in self._frames.feed(await self._read()):
                    return decode_message(*frame)

    async def _read(self) -> bytes:
        try:
            return await self.reader.read(65_536)
        except OSError:
            return b""

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def stranger(node: Node, identity: Identity | None) -> AsyncIterator[Stranger]:
    found = await Stranger.dial(node, identity)
    try:
        yield found
    finally:
        await found.close()


# Talking


@pytest.mark.asyncio
async def test_two_networks_exchange_votes(identities: Identities) -> None:
    one = Node(identities["v1"])
    two = Node(identities["v2"], at(one))

    async with running(one, two):
        await connect_both(one, two)
        two.network.send(one.name, VoteMessage(make_vote(5)))
        one.network.broadcast(VoteMessage(make_vote(6)))
        await one.recorder.until(lambda: bool(one.recorder.messages))
        await two.recorder.until(lambda: bool(two.recorder.messages))

    assert one.recorder.messages == [("v2", VoteMessage(make_vote(5)))]
    assert two.recorder.messages == [("v1", VoteMessage(make_vote(6)))]


@pytest.mark.asyncio
async def test_peers_are_known_by_their_certificates(identities: Identities) -> None:
    one = Node(identities["v1"])
    two = Node(identities["f1"], at(one))

    async with running(one, two):
        await connect_both(one, two)
        (of_one,), (of_two,) = one.network.peers(), two.network.peers()

    assert (of_one.name, of_one.validator, of_one.outbound) == ("f1", None, False)
    assert (of_two.name, of_two.validator, of_two.outbound) == ("v1", bytes([1]) * 20, True)
    assert of_two.address == str(one.endpoint)
    assert one.recorder.connected == [of_one]


@pytest.mark.asyncio
async def test_ten_thousand_messages_come_in_their_order_both_ways(identities: Identities) -> None:
    settings = Settings(limits_of_validators=Limits(consensus_per_second=1_000_000))
    one = Node(identities["v1"], settings=settings)
    two = Node(identities["v2"], at(one), settings=settings)
    votes = [VoteMessage(make_vote(view)) for view in range(1, 10_001)]

    async with running(one, two):
        await connect_both(one, two)
        for vote in votes:
            one.network.send(two.name, vote)
            two.network.broadcast(vote)
        await one.recorder.until(lambda: len(one.recorder.messages) == len(votes))
        await two.recorder.until(lambda: len(two.recorder.messages) == len(votes))

    assert one.recorder.messages == [(two.name, vote) for vote in votes]
    assert two.recorder.messages == [(one.name, vote) for vote in votes]


@pytest.mark.asyncio
async def test_large_messages_pass_and_requests_are_answered(identities: Identities) -> None:
    block = make_block(transactions=5_000, size=400)
    one = Node(identities["v1"])
    two = Node(identities["v2"], at(one))

    async with running(one, two):
        await connect_both(one, two)
        two.network.send(one.name, GetBlock(1, BLOCK_HASH))
        await one.recorder.until(lambda: bool(one.recorder.messages))
        one.network.send(two.name, BlockReply(1, block))
        await two.recorder.until(lambda: bool(two.recorder.messages))

    assert two.recorder.messages == [("v1", BlockReply(1, block))]


@pytest.mark.asyncio
async def test_a_broadcast_to_validators_does_not_reach_followers(identities: Identities) -> None:
    one = Node(identities["v1"])
    two, follower = Node(identities["v2"], at(one)), Node(identities["f1"], at(one))

    async with running(one, two, follower):
        await one.recorder.until(lambda: len(one.network.peers()) == 2)
        one.network.broadcast(VoteMessage(make_vote(5)), only_validators=True)
        one.network.broadcast(VoteMessage(make_vote(6)))
        await two.recorder.until(lambda: len(two.recorder.messages) == 2)
        await follower.recorder.until(lambda: bool(follower.recorder.messages))

    assert follower.recorder.messages == [("v1", VoteMessage(make_vote(6)))]


@pytest.mark.asyncio
async def test_a_message_to_nobody_goes_nowhere(identities: Identities) -> None:
    one = Node(identities["v1"])

    one.network.send(PeerId("v2"), VoteMessage(make_vote()))
    one.network.broadcast(VoteMessage(make_vote()))
    one.network.punish(PeerId("v2"), "it is not there")
    async with running(one):
        await asyncio.sleep(0)
        assert one.network.peers() == []


# Coming and going


@pytest.mark.asyncio
async def test_who_ends_is_dialled_again_until_it_is_back(identities: Identities) -> None:
    one = Node(identities["v1"])
    two = Node(identities["v2"], at(one))

    async with running(two):
        async with running(one):
            await connect_both(one, two)
        await two.recorder.until(lambda: bool(two.recorder.disconnected))
        assert two.network.peers() == []
        back = Node(identities["v1"], listen=one.endpoint, seed=2)
        async with running(back):
            await connect_both(back, two)

    assert two.recorder.disconnected[0] == ("v1", "it closed the connection: shutdown")
    assert [peer.name for peer in two.recorder.connected] == ["v1", "v1"]


@pytest.mark.asyncio
async def test_a_peer_is_dialled_at_each_of_its_addresses(identities: Identities) -> None:
    one = Node(identities["v1"])
    assert one.endpoint is not None
    two = Node(identities["v2"], {"v1": [free_endpoint(), one.endpoint]})

    async with running(one, two):
        await connect_both(one, two)

    assert two.recorder.connected[0].address == str(one.endpoint)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_both_dialling_at_once_end_with_one_session(identities: Identities, seed: int) -> None:
    """The one that the lesser name dialled, on both sides."""
    endpoints = [free_endpoint(), free_endpoint()]
    one = Node(identities["v1"], {"v2": [endpoints[1]]}, listen=endpoints[0], seed=seed)
    two = Node(identities["v2"], {"v1": [endpoints[0]]}, listen=endpoints[1], seed=seed + 100)

    async with running(one, two):
        await connect_both(one, two)
        await asyncio.sleep(0.5)  # for whatever else would come
        (of_one,), (of_two,) = one.network.peers(), two.network.peers()
        one.network.send(two.name, VoteMessage(make_vote(5)))
        two.network.send(one.name, VoteMessage(make_vote(6)))
        await one.recorder.until(lambda: bool(one.recorder.messages))
        await two.recorder.until(lambda: bool(two.recorder.messages))

    assert of_one.outbound != of_two.outbound
    for node in (one, two):
        assert len(node.recorder.connected) <= 2
        assert len(node.recorder.disconnected) == len(node.recorder.connected)


@asynccontextmanager
async def dialled(
    identity: Identity, node_of: Callable[[Endpoint], Node]
) -> AsyncIterator[tuple[Node, Stranger]]:
    """A node that runs, and the connection that it dialled."""
    arrived: asyncio.Queue[Stranger] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda reader, writer: arrived.put_nowait(Stranger(reader, writer)),
        *LOCAL,
        ssl=identity.server_context(),
    )
    async with server:
        node = node_of(Endpoint(*server.sockets[0].getsockname()))
        async with running(node), asyncio.timeout(SOON_S):
            found = await arrived.get()
            try:
                yield node, found
            finally:
                await found.close()
                while not arrived.empty():
                    await arrived.get_nowait().close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "is_newer_kept"), [("v1", True), ("v3", False)])
async def test_of_two_sessions_dialled_at_once_both_sides_keep_the_one_of_the_lesser_name(
    identities: Identities, name: str, is_newer_kept: bool
) -> None:
    """v2 dials the node, and then greets it where the node has dialled v2."""
    async with (
        dialled(identities["v2"], lambda endpoint: Node(identities[name], {"v2": [endpoint]})) as (
            node,
            newer,
        ),
        stranger(node, identities["v2"]) as older,
    ):
        await older.say(make_hello(instance=5))
        await node.recorder.until(lambda: bool(node.network.peers()))
        await newer.say(make_hello(instance=5))
        loser, winner = (older, newer) if is_newer_kept else (newer, older)

        assert (await loser.hear_all())[-1] == Goodbye(Reason.DUPLICATE)
        (peer,) = node.network.peers()
        assert peer.outbound is is_newer_kept
        await winner.say(VoteMessage(make_vote()))
        await node.recorder.until(lambda: bool(node.recorder.messages))


@pytest.mark.asyncio
async def test_who_dials_again_later_has_lost_the_older_session(identities: Identities) -> None:
    """Whichever name is the lesser."""
    settings = Settings(handshake_ms=500)
    async with (
        dialled(
            identities["v2"], lambda endpoint: Node(identities["v1"], {"v2": [endpoint]}, settings=settings)
        ) as (node, older),
    ):
        await older.say(make_hello(instance=5))
        await node.recorder.until(lambda: bool(node.network.peers()))
        await asyncio.sleep(0.6)
        async with stranger(node, identities["v2"]) as newer:
            await newer.say(make_hello(instance=5))
            assert (await older.hear_all())[-1] == Goodbye(Reason.DUPLICATE)
            (peer,) = node.network.peers()

    assert not peer.outbound


@pytest.mark.asyncio
async def test_a_restarted_peer_replaces_its_older_session(identities: Identities) -> None:
    one = Node(identities["v1"])
    async with (
        running(one),
        stranger(one, identities["v2"]) as first,
        stranger(one, identities["v2"]) as second,
    ):
        await first.say(make_hello(instance=1))
        await one.recorder.until(lambda: len(one.recorder.connected) == 1)
        await second.say(make_hello(instance=2))
        await one.recorder.until(lambda: len(one.recorder.connected) == 2)

        assert (await first.hear_all())[-1] == Goodbye(Reason.DUPLICATE)
        assert len(one.network.peers()) == 1
        await first.say(VoteMessage(make_vote(5)))
        await second.say(VoteMessage(make_vote(6)))
        await one.recorder.until(lambda: bool(one.recorder.messages))

    assert one.recorder.messages == [("v2", VoteMessage(make_vote(6)))]
    assert one.recorder.disconnected[0] == ("v2", "another session with this peer is kept")


@pytest.mark.asyncio
async def test_a_node_that_dials_itself_gives_up_the_connection(identities: Identities, lines: Lines) -> None:
    endpoint = free_endpoint()
    one = Node(identities["v1"], {"v2": [endpoint], "v1": [endpoint]}, listen=endpoint)

    async with running(one):
        await lines.until("is our own identity")

    assert one.recorder.connected == []


@pytest.mark.asyncio
async def test_somebody_else_at_a_peers_address_is_not_taken_for_it(
    identities: Identities, lines: Lines
) -> None:
    one = Node(identities["v1"])
    assert one.endpoint is not None
    two = Node(identities["v2"], {"v3": [one.endpoint]})

    async with running(one, two):
        await lines.until("v3 was dialled, v1 answered")

    assert two.recorder.connected == []


@pytest.mark.asyncio
async def test_a_node_of_another_chain_is_told_so(identities: Identities, lines: Lines) -> None:
    one = Node(identities["v1"])
    two = Node(identities["v2"], at(one), chain=Chain(7, Hash(b"g" * 32)))

    async with running(one, two):
        await lines.until(f"genesis differs: ours 0x{GENESIS_HASH.hex()}, theirs 0x{'67' * 32}")

    assert one.recorder.connected == two.recorder.connected == []


@pytest.mark.asyncio
async def test_a_revoked_peer_is_dropped_and_does_not_come_back(authority: Authority) -> None:
    one = Node(issue(authority, "r1", bytes([5]) * 20))
    revoked = issue(authority, "r2", bytes([6]) * 20)
    two = Node(revoked, at(one))

    async with running(one, two):
        await connect_both(one, two)
        path = authority.directory.parent / "r1" / REVOKED_FILE
        path.write_text(f"{show_serial(revoked.own.serial)}\n")
        one.identity.reload()
        one.network.drop_revoked()
        await one.recorder.until(lambda: bool(one.recorder.disconnected))
        await asyncio.sleep(1)

    assert one.recorder.disconnected == [("r2", "its certificate is revoked")]
    assert len(one.recorder.connected) == 1


# Hostile peers. A node that is connected all the while must not notice.


@asynccontextmanager
async def witnessed(one: Node, identities: Identities) -> AsyncIterator[None]:
    """The node runs, with v4 connected to it, and votes pass between the two when it is over."""
    witness = Node(identities["v4"], at(one), seed=4)
    async with running(one, witness):
        await connect_both(one, witness)
        yield
        one.network.send(witness.name, VoteMessage(make_vote(98)))
        witness.network.send(one.name, VoteMessage(make_vote(99)))
        await witness.recorder.until(
            lambda: (one.name, VoteMessage(make_vote(98))) in witness.recorder.messages
        )
        await one.recorder.until(lambda: (witness.name, VoteMessage(make_vote(99))) in one.recorder.messages)
        assert witness.recorder.disconnected == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 100,
        b"\xff" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        encode_message(make_hello()),
    ],
)
async def test_what_is_not_tls_is_closed_at_its_first_bytes(
    identities: Identities, lines: Lines, garbage: bytes
) -> None:
    one = Node(identities["v1"])
    async with witnessed(one, identities), stranger(one, None) as other:
        other.writer.write(garbage)
        assert await other.reader.read(100) is not None
        await lines.until("not our protocol")


@pytest.mark.asyncio
async def test_a_silent_connection_is_closed_at_the_deadline(identities: Identities, lines: Lines) -> None:
    one = Node(identities["v1"], settings=Settings(handshake_ms=1_000))
    async with (
        witnessed(one, identities),
        stranger(one, None) as plain,
        stranger(one, identities["v2"]) as mute,
    ):
        assert await plain.hear_all() == []
        heard = await mute.hear_all()

    assert [type(each) for each in heard] == [Hello, Goodbye]
    assert heard[1] == Goodbye(Reason.TOO_LATE)
    assert "handshake not finished in 1 s" in lines.text


@pytest.mark.asyncio
async def test_a_byte_a_moment_does_not_stretch_the_deadline(identities: Identities) -> None:
    one = Node(identities["v1"], settings=Settings(handshake_ms=1_000))
    async with witnessed(one, identities), stranger(one, identities["v2"]) as slow:
        closed = asyncio.ensure_future(slow.hear_all())
        for byte in encode_message(make_hello()) * 100:
            if closed.done():
                break
            slow.writer.write(bytes([byte])) if not slow.writer.is_closing() else None
            await asyncio.sleep(0.03)
        assert (await closed)[-1] == Goodbye(Reason.TOO_LATE)


@pytest.mark.asyncio
async def test_only_so_many_handshakes_are_waited_for(identities: Identities, lines: Lines) -> None:
    one = Node(identities["v1"], settings=Settings(handshake_ms=60_000, pending_per_host_max=3))
    async with witnessed(one, identities):
        waiting = [await Stranger.dial(one, None) for _ in range(3)]
        async with stranger(one, None) as refused:
            assert await refused.hear_all() == []
        assert "too many handshakes are unfinished" in lines.text
        await waiting[0].close()
        await asyncio.sleep(0.1)
        async with stranger(one, identities["v2"]) as taken:
            await taken.say(make_hello())
            await one.recorder.until(lambda: len(one.network.peers()) == 2)
        for each in waiting:
            await each.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("bytes_", "reason", "text"),
    [
        (
            encode_frame(0x11, b"\x91\xc3"),
            Reason.MALFORMED,
            "malformed vote: field 'vote' vote is not an array of 3",
        ),
        (b"\xff\xff\xff\xff", Reason.MALFORMED, "frame of 4,294,967,295 bytes; limit 4,194,304"),
        (bytes(4), Reason.MALFORMED, "frame of 0 bytes; limit 4,194,304"),
        (encode_frame(0x77, b"\x90"), Reason.UNEXPECTED, "message of unknown kind 0x77"),
        (encode_message(make_hello()), Reason.UNEXPECTED, "a second hello"),
        (encode_message(Ping(1)) * 11, Reason.TOO_MANY, "more than 10 control messages in a second"),
    ],
)
async def test_who_misbehaves_is_told_and_kept_out_for_a_while(
    identities: Identities, lines: Lines, bytes_: bytes, reason: Reason, text: str
) -> None:
    one = Node(identities["v1"])
    async with witnessed(one, identities):
        async with stranger(one, identities["f1"]) as hostile:
            await hostile.say(make_hello())
            hostile.writer.write(bytes_)
            assert (await hostile.hear_all())[-1] == Goodbye(reason)
        async with stranger(one, identities["f1"]) as again:
            assert await again.hear_all() == [Goodbye(Reason.BANNED)]
        await asyncio.sleep(1)
        async with stranger(one, identities["f1"]) as later:
            await later.say(make_hello())
            await one.recorder.until(lambda: len(one.network.peers()) == 2)

    assert ("f1", text) in one.recorder.disconnected
    assert "f1: closed" in lines.text


@pytest.mark.asyncio
async def test_the_node_may_punish_a_peer(identities: Identities) -> None:
    one = Node(identities["v1"])
    async with witnessed(one, identities), stranger(one, identities["f1"]) as hostile:
        await hostile.say(make_hello(), VoteMessage(make_vote(5)), VoteMessage(make_vote(6)))
        one.recorder.on_vote = lambda peer: one.network.punish(peer.name, "a vote of no validator")
        assert (await hostile.hear_all())[-1] == Goodbye(Reason.UNEXPECTED)

    assert ("f1", "a vote of no validator") in one.recorder.disconnected
    assert ("f1", VoteMessage(make_vote(6))) not in one.recorder.messages


@pytest.mark.asyncio
async def test_a_peer_that_reads_nothing_is_too_slow(identities: Identities, lines: Lines) -> None:
    one = Node(identities["v1"])
    async with witnessed(one, identities), stranger(one, identities["v2"]) as deaf:
        await deaf.say(make_hello())
        await one.recorder.until(lambda: len(one.network.peers()) == 2)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
        block = ProposalMessage(make_block(transactions=5_000, size=400), make_vote(), None, ())
        for _ in range(20):
            one.network.send(PeerId("v2"), block)
            await asyncio.sleep(0.01)
        await one.recorder.until(lambda: ("v2", "peer too slow") in one.recorder.disconnected)


@pytest.mark.asyncio
async def test_a_peer_that_talks_but_does_not_read_is_too_slow(identities: Identities) -> None:
    limits = Limits(silence_ms=1_000, queue_bytes=100_000_000)
    one = Node(identities["v1"], settings=Settings(limits_of_validators=limits))
    async with running(one), stranger(one, identities["v2"]) as deaf:
        await deaf.say(make_hello())
        await one.recorder.until(lambda: bool(one.network.peers()))
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
        block = ProposalMessage(make_block(transactions=5_000, size=400), make_vote(), None, ())
        for _ in range(20):
            one.network.send(PeerId("v2"), block)
        while not one.recorder.disconnected:
            deaf.writer.write(encode_message(VoteMessage(make_vote())))
            await asyncio.sleep(0.1)

    assert one.recorder.disconnected == [("v2", "peer too slow")]


@pytest.mark.asyncio
async def test_a_peer_that_sends_too_much_is_read_later(identities: Identities) -> None:
    one = Node(identities["v1"], settings=Settings(limits_of_validators=Limits(bytes_per_second=1_000_000)))
    async with running(one), stranger(one, identities["v2"]) as eager:
        started_s = time.monotonic()
        await eager.say(make_hello(), *[Transactions((b"r" * 100_000,))] * 20, VoteMessage(make_vote()))
        await one.recorder.until(lambda: len(one.recorder.messages) == 21)

    assert time.monotonic() - started_s > 0.4


@pytest.mark.asyncio
async def test_too_many_open_files_are_waited_out(
    identities: Identities, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Node(identities["v1"])
    loop = asyncio.get_running_loop()
    accept, faults = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")] * 2

    async def refuse_first(listener: socket.socket) -> tuple[socket.socket, Any]:
        if faults:
            raise faults.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", refuse_first)
    async with witnessed(one, identities):
        assert "cannot take a connection: Too many open files" in lines.text


def make_ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "as OpenSSL says it")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (ConnectionResetError("Connection lost"), "Connection lost"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "the connection broke"),
        (make_ssl_error("UNSUPPORTED_PROTOCOL"), "not our protocol: UNSUPPORTED_PROTOCOL"),
        (make_ssl_error("CERTIFICATE_REQUIRED"), "handshake authentication failed: CERTIFICATE_REQUIRED"),
        (TimeoutError(110, "Connection timed out"), "Connection timed out"),
        (TimeoutError(), "no answer"),
        (PeerLeft(), "it closed the connection"),
        (ValueError("anything"), "anything"),
    ],
)
def test_why_a_connection_ended_is_said(fault: Exception, text: str) -> None:
    assert describe(fault) == text


@pytest.mark.asyncio
async def test_a_peer_that_goes_silent_is_found_dead(identities: Identities) -> None:
    one = Node(
        identities["v1"], settings=Settings(limits_of_validators=Limits(ping_ms=500, silence_ms=2_000))
    )
    async with witnessed(one, identities), stranger(one, identities["v2"]) as silent:
        await silent.say(make_hello())
        heard = await silent.hear_all()

    assert ("v2", "nothing heard for 2 s") in one.recorder.disconnected
    assert Ping(1) in heard
    assert heard[-1] == Goodbye(Reason.SILENT)


@pytest.mark.asyncio
async def test_followers_fill_only_their_places(identities: Identities) -> None:
    one = Node(identities["v1"], settings=Settings(followers_max=2))
    async with witnessed(one, identities), AsyncExitStack() as stack:
        for count, name in enumerate(["f1", "f2"], 2):
            follower = await stack.enter_async_context(stranger(one, identities[name]))
            await follower.say(make_hello())
            await one.recorder.until(lambda: len(one.network.peers()) == count)  # noqa: B023 - awaited here
        late = await stack.enter_async_context(stranger(one, identities["f3"]))
        assert await late.hear_all() == [Goodbye(Reason.FULL)]
        validator = await stack.enter_async_context(stranger(one, identities["v2"]))
        await validator.say(make_hello())
        await one.recorder.until(lambda: len(one.network.peers()) == 4)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_noise_of_an_authenticated_peer_harms_nobody(identities: Identities, seed: int) -> None:
    noise = Random(seed)
    one = Node(identities["v1"])
    async with witnessed(one, identities):
        for _ in range(20):
            async with stranger(one, identities["v2"]) as noisy:
                if noise.random() < 0.5:
                    await noisy.say(make_hello())
                payload = noise.randbytes(noise.randint(0, 3_000))
                frames = noise.random() < 0.5
                noisy.writer.write(
                    encode_frame(noise.choice(sorted(MESSAGES)), payload) if frames else payload
                )
                noisy.writer.write_eof() if noisy.writer.can_write_eof() else None
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_mistake_of_the_handler_ends_the_network(identities: Identities) -> None:
    """It is ours, and nothing that a peer should be blamed for."""
    one = Node(identities["v1"])
    one.recorder.on_vote = lambda peer: exec("raise KeyError(peer)")
    with pytest.raises(ExceptionGroup) as caught:
        async with running(one), stranger(one, identities["v2"]) as other:
            await other.say(make_hello(), VoteMessage(make_vote()))
            await asyncio.sleep(SOON_S)  # until it is cancelled

    assert caught.group_contains(KeyError)


@pytest.mark.asyncio
async def test_an_address_that_is_taken_is_refused_before_anything_runs(identities: Identities) -> None:
    one = Node(identities["v1"])
    async with running(one):
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="in use"):
            Node(identities["v2"], listen=one.endpoint)


def test_addresses_are_shown_as_they_are_written() -> None:
    assert str(Endpoint("127.0.0.1", 9_000)) == "127.0.0.1:9000"
    assert str(Endpoint("::1", 9_000)) == "[::1]:9000"
