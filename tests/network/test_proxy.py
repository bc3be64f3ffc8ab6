"""The proxy does to a connection what a test asks for, and nothing else."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from node.cli.ca import issue_development
from p2p.identity import load_identity
from tests.network.proxy import (
    BOTH,
    CONSORTIUM,
    MOBILE,
    PERFECT,
    SMALL_PACKETS,
    TRICKLE,
    Conditions,
    Direction,
    Proxy,
    Streams,
    dialler,
)

pytestmark = pytest.mark.asyncio

FORWARD: Final = Direction.FORWARD
BACKWARD: Final = Direction.BACKWARD
PATIENCE_SECONDS: Final = 10.0  # for what must happen
MOMENT_SECONDS: Final = 0.15  # for what must not
PAYLOAD: Final = random.Random(1).randbytes(300_000)


class EchoServer:
    """Sends back what it gets, and remembers what it got on each connection."""

    def __init__(self) -> None:
        self.sessions: list[bytearray] = []
        self.broken = 0
        self.port = 0
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions.append(received := bytearray())
        self._open[writer] = asyncio.current_task()
        try:
            while chunk := await reader.read(65_536):
                received += chunk
                writer.write(chunk)
                await writer.drain()
            writer.close()
        except OSError:
            self.broken += 1
            writer.transport.abort()

    @property
    def connections(self) -> int:
        return len(self.sessions)

    @property
    def received(self) -> bytes:
        return b"".join(self.sessions)

    async def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*(task for task in self._open.values() if task))


@asynccontextmanager
async def echo_server() -> AsyncIterator[EchoServer]:
    echo = EchoServer()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
    finally:
        server.close()
        await echo.close()
        await server.wait_closed()


@asynccontextmanager
async def wire(conditions: Conditions = PERFECT, *, seed: int = 0) -> AsyncIterator[tuple[EchoServer, Proxy]]:
    async with (
        echo_server() as echo,
        Proxy(dialler("127.0.0.1", echo.port), seed=seed, conditions=conditions) as proxy,
    ):
        yield echo, proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def echoed(streams: Streams, content: bytes) -> bytes:
    """What comes back, as much as was sent."""
    reader, writer = streams
    writer.write(content)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readexactly(len(content))


async def is_silent(reader: asyncio.StreamReader) -> bool:
    """Neither a byte nor an end for a moment."""
    try:
        async with asyncio.timeout(MOMENT_SECONDS):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def is_broken(reader: asyncio.StreamReader) -> bool:
    """Whether the connection was reset rather than closed."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reader.read()
    except ConnectionResetError:
        return True
    return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "conditions",
    [
        PERFECT,
        CONSORTIUM,
        replace(MOBILE, stall_ms=50),
        SMALL_PACKETS,
        Conditions(bytes_per_second=3_000_000),
    ],
    ids=["perfect", "consortium", "mobile", "small packets", "bandwidth"],
)
async def test_bytes_arrive_whole_and_in_order(conditions: Conditions) -> None:
    async with wire(conditions) as (_, proxy), connected(proxy) as streams:
        assert await echoed(streams, PAYLOAD) == PAYLOAD
        assert [proxy.lanes[direction].forwarded_bytes for direction in BOTH] == [len(PAYLOAD)] * 2
        assert (proxy.connections_made, proxy.resets) == (1, 0)


async def test_the_end_passes_in_each_direction() -> None:
    async with wire() as (echo, proxy), connected(proxy) as (reader, writer):
        writer.write(PAYLOAD)
        writer.write_eof()

        assert await reader.read() == PAYLOAD
        assert echo.broken == 0
        await until(lambda: proxy.connections == 0)


async def test_who_is_not_there_is_a_reset() -> None:
    async with wire() as (echo, _):
        unused = echo.port
    async with Proxy(dialler("127.0.0.1", unused)) as proxy, connected(proxy) as (reader, _):
        assert await is_broken(reader)
        await until(lambda: proxy.connections == 0)


async def test_delay_is_that_of_the_way_there_and_the_way_back() -> None:
    async with wire(Conditions(delay_ms=60)) as (_, proxy), connected(proxy) as streams:
        start = time.monotonic()
        await echoed(streams, b"ping")
        assert 0.120 <= time.monotonic() - start < 1.0

        proxy.set(PERFECT, BACKWARD)
        start = time.monotonic()
        await echoed(streams, b"ping")
        assert 0.060 <= time.monotonic() - start < 1.0


async def test_delay_does_not_bound_throughput() -> None:
    """What is under way does not wait for what was sent before it."""
    async with wire(Conditions(delay_ms=50)) as (_, proxy), connected(proxy) as streams:
        start = time.monotonic()
        await echoed(streams, PAYLOAD * 4)
        chunks = len(PAYLOAD) * 4 / 16_384
        assert time.monotonic() - start < chunks * 0.050 / 4


async def test_bandwidth_bounds_throughput() -> None:
    async with wire() as (_, proxy), connected(proxy) as streams:
        proxy.set(Conditions(bytes_per_second=500_000), FORWARD)
        start = time.monotonic()
        await echoed(streams, PAYLOAD[:200_000])
        assert 0.4 <= time.monotonic() - start < 2.0


async def test_bytes_trickle() -> None:
    async with wire(TRICKLE) as (_, proxy), connected(proxy) as (reader, writer):
        writer.write(b"x" * 30)
        async with asyncio.timeout(PATIENCE_SECONDS):
            pieces: list[int] = []
            while sum(pieces) < 30:
                pieces.append(len(await reader.read(100)))
        assert len(pieces) > 5


async def test_stalls_are_counted_and_end() -> None:
    conditions = Conditions(stall_percent=100, stall_ms=40)
    async with wire(conditions) as (_, proxy), connected(proxy) as streams:
        for _ in range(4):
            assert await echoed(streams, b"ping") == b"ping"
        assert [proxy.lanes[direction].stalls for direction in BOTH] == [4, 4]


async def test_what_is_cut_waits_and_then_arrives() -> None:
    async with wire() as (echo, proxy), connected(proxy) as (reader, writer):
        await echoed((reader, writer), b"before")

        proxy.cut()
        writer.write(b"during")
        assert await is_silent(reader)
        assert echo.received == b"before"

        proxy.heal()
        assert await reader.readexactly(6) == b"during"


async def test_one_way_can_be_cut() -> None:
    async with wire() as (echo, proxy), connected(proxy) as (reader, writer):
        await echoed((reader, writer), b"before")

        proxy.cut(BACKWARD)
        writer.write(b"heard")
        assert await is_silent(reader)

        assert echo.received == b"beforeheard"


@pytest.mark.parametrize("directions", [(), (FORWARD,), (BACKWARD,)])
async def test_who_dials_a_cut_wire_waits_until_it_is_healed(directions: tuple[Direction, ...]) -> None:
    """A handshake needs both directions."""
    async with wire() as (echo, proxy):
        proxy.cut(*directions)
        async with connected(proxy) as (reader, writer):
            writer.write(b"hello")
            assert await is_silent(reader)
            assert echo.connections == 0

            proxy.heal()
            assert await reader.readexactly(5) == b"hello"


async def test_who_has_given_up_is_not_connected_after_the_cut() -> None:
    async with wire() as (echo, proxy):
        proxy.cut()
        for _ in range(20):
            async with connected(proxy) as (_, writer):
                writer.write(b"hello")
                await asyncio.sleep(0)
        await until(lambda: proxy.connections == 0)

        proxy.heal()
        async with connected(proxy) as streams:
            await echoed(streams, b"hello")
        assert echo.connections == 1
        assert proxy.connections_made == 21


async def test_a_reset_reaches_both_ends_and_the_next_connection_is_good() -> None:
    async with wire() as (echo, proxy), connected(proxy) as streams:
        await echoed(streams, b"before")

        proxy.reset()

        assert await is_broken(streams[0])
        await until(lambda: echo.broken == 1)
        async with connected(proxy) as again:
            assert await echoed(again, b"after") == b"after"
        assert proxy.resets == 1


async def test_a_reset_reaches_who_waits_for_a_cut_to_end() -> None:
    async with wire() as (_, proxy), connected(proxy) as streams:
        await echoed(streams, b"before")
        proxy.cut()

        proxy.reset()

        assert await is_broken(streams[0])
        await until(lambda: proxy.connections == 0)


async def test_who_dials_a_refusing_wire_is_reset() -> None:
    async with wire() as (echo, proxy), connected(proxy) as streams:
        await echoed(streams, b"before")
        proxy.refuse()
        assert await is_broken(streams[0])

        async with connected(proxy) as (reader, _):
            assert await is_broken(reader)
        assert echo.connections == 1

        proxy.heal()
        async with connected(proxy) as again:
            assert await echoed(again, b"after") == b"after"


async def test_half_a_connection_goes_on_when_the_other_is_closed() -> None:
    async with wire() as (echo, proxy), connected(proxy) as (reader, writer):
        await echoed((reader, writer), b"before")

        proxy.half_close(BACKWARD)
        assert await reader.read() == b""
        writer.write(b"still heard")
        await until(lambda: echo.received == b"beforestill heard")

        writer.write_eof()
        await until(lambda: proxy.connections == 0)


async def test_one_bit_is_flipped_on_request() -> None:
    async with wire() as (echo, proxy), connected(proxy) as streams:
        proxy.corrupt(FORWARD)
        back = await echoed(streams, b"\0" * 100)
        assert sum(byte.bit_count() for byte in back) == 1
        assert echo.received == back

        assert await echoed(streams, b"\0" * 100) == b"\0" * 100
        assert [proxy.lanes[direction].flipped_bits for direction in BOTH] == [1, 0]

        proxy.corrupt(FORWARD)
        proxy.heal()
        assert await echoed(streams, b"\0" * 100) == b"\0" * 100


async def damage(seed: int, chunk_bytes: int) -> bytes:
    """What a wire that flips a bit in about every 1,000 bytes makes of zeros that are sent in these chunks."""
    async with wire(seed=seed) as (_, proxy), connected(proxy) as streams:
        proxy.set(Conditions(corrupt_every_bytes=1_000), BACKWARD)
        zeros = bytes(chunk_bytes)
        back = [await echoed(streams, zeros) for _ in range(60_000 // chunk_bytes)]
        assert proxy.lanes[BACKWARD].flipped_bits > 0
    return b"".join(back)


async def test_a_seed_gives_the_same_damage_however_the_bytes_come() -> None:
    whole, cut, other = await damage(7, 60_000), await damage(7, 500), await damage(8, 60_000)

    assert whole == cut
    assert whole != other
    assert 30 <= sum(byte.bit_count() for byte in whole) <= 120


async def test_damage_breaks_a_tls_session_and_not_the_next(tmp_path: Path) -> None:
    """What was damaged is never delivered, whichever byte it was."""
    issue_development(tmp_path, [("a", None), ("b", None)])
    here, there = (load_identity(tmp_path / name / "tls", datetime.now(UTC)) for name in "ab")
    echo = EchoServer()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0, ssl=there.server_context())
    port = server.sockets[0].getsockname()[1]
    async with Proxy(dialler("127.0.0.1", port)) as proxy:
        for damaged in (FORWARD, BACKWARD, None):
            reader, writer = await asyncio.open_connection(
                proxy.host, proxy.port, ssl=here.client_context(), server_hostname=""
            )
            assert await echoed((reader, writer), b"before") == b"before"
            if damaged:
                proxy.corrupt(damaged)
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await echoed((reader, writer), PAYLOAD)
            else:
                assert await echoed((reader, writer), PAYLOAD) == PAYLOAD
            writer.transport.abort()
    server.close()
    await echo.close()
    await server.wait_closed()
    assert echo.connections == 3
    assert all((b"before" + PAYLOAD).startswith(session) for session in echo.sessions)


async def test_nobody_is_left_behind() -> None:
    """The end of the proxy is the end of its connections, whatever they wait for."""
    async with echo_server() as echo:
        async with Proxy(dialler("127.0.0.1", echo.port)) as proxy:
            clients = [await asyncio.open_connection(proxy.host, proxy.port) for _ in range(3)]
            await echoed(clients[0], b"x")
            proxy.cut()
            clients[1][1].write(b"y")
        assert proxy.connections == 0
        for reader, writer in clients:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.transport.abort()
    assert len(asyncio.all_tasks()) == 1
