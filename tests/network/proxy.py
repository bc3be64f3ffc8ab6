"""A TCP proxy that makes one wire between two nodes as bad as a test needs, while it runs.

A proxy stands for the connections that one node opens to another; those in the other direction have a proxy of their
own. What it decides by chance it decides by its seed, for each connection and direction from a generator of its own:
damage by the place of the byte, times by the chunk, which the system cuts as it likes. Times are good to about 1 ms.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Final, Self

CHUNK_BYTES_MAX: Final = 16 * 1024
CHUNKS_UNDER_WAY_MAX: Final = 1_024  # of one direction of a connection; then its sender has to wait
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Streams]]
Tap = Callable[[str, bytes], None]  # the flow's name, and what its sender sent next


class Direction(Enum):
    FORWARD = "from the node that dialled"
    BACKWARD = "from the node that was dialled"


BOTH: Final = (Direction.FORWARD, Direction.BACKWARD)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one direction. Times are of one way, not of a round trip; the order of bytes never changes."""

    delay_ms: float = 0
    jitter_ms: float = 0  # at most so much more or less
    stall_percent: float = 0  # of the chunks: each holds up all that follow
    stall_ms: float = 0  # at most
    bytes_per_second: int = 0  # 0 is unbounded
    piece_bytes: int = 0  # written at most so many at a time; 0 is as they come
    piece_gap_ms: float = 0  # between two pieces
    corrupt_every_bytes: int = 0  # a bit is flipped about so often; 0 is never


PERFECT: Final = Conditions()
LAN: Final = Conditions(delay_ms=0.2)
CONSORTIUM: Final = Conditions(delay_ms=20, jitter_ms=10)
CONTINENT: Final = Conditions(delay_ms=80, jitter_ms=40)
MOBILE: Final = Conditions(delay_ms=150, jitter_ms=100, stall_percent=5, stall_ms=1_000)
SMALL_PACKETS: Final = Conditions(delay_ms=20, piece_bytes=536)  # those of an MTU of 576
TRICKLE: Final = Conditions(piece_bytes=1, piece_gap_ms=1)


@dataclass
class Lane:
    """One direction of all connections of a proxy, and what it did to them."""

    conditions: Conditions = PERFECT
    tap: Tap | None = None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    flips_due: int = 0
    forwarded_bytes: int = 0
    flipped_bits: int = 0
    stalls: int = 0

    def __post_init__(self) -> None:
        self.is_open.set()


class Proxy:
    """Listens at `host`:`port` from `async with` on; every connection goes on to where `dial` leads."""

    def __init__(
        self,
        dial: Dial,
        *,
        name: str = "",
        seed: int = 0,
        conditions: Conditions = PERFECT,
        host: str = "127.0.0.1",
        tap: Tap | None = None,
    ) -> None:
        self.host = host
        self.port = 0
        self.lanes = {direction: Lane(conditions, tap) for direction in BOTH}
        self.connections_made = 0
        self.resets = 0
        self._dial = dial
        self._seed = f"{seed} {name}"
        self._is_refusing = False
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._welcome, self.host, self.port, limit=CHUNK_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server:
            await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """That are open now, also those that wait for a cut to end."""
        return len(self._connections)

    # What a test does to the wire

    def set(self, conditions: Conditions, *directions: Direction) -> None:
        """From the next chunk on; without a direction for both."""
        for direction in directions or BOTH:
            self.lanes[direction].conditions = conditions

    def cut(self, *directions: Direction) -> None:
        """Nothing passes, and nobody is told: what is sent and who dials waits for `heal`."""
        for direction in directions or BOTH:
            self.lanes[direction].is_open.clear()

    def refuse(self) -> None:
        """Resets all connections, and each new one, until `heal`."""
        self._is_refusing = True
        self.reset()

    def heal(self, *directions: Direction) -> None:
        """Ends `cut`, and without a direction `refuse` and what `corrupt` has not done yet. Conditions stay."""
        if not directions:
            self._is_refusing = False
            for lane in self.lanes.values():
                lane.flips_due = 0
        for direction in directions or BOTH:
            self.lanes[direction].is_open.set()

    def reset(self) -> None:
        """RST to both ends of every connection."""
        for connection, task in self._connections.items():
            self.resets += 1
            connection.reset()
            task.cancel()

    def half_close(self, direction: Direction) -> None:
        """Whoever receives in this direction reads the end; what is still sent to it is lost. The other one goes on."""
        for connection in self._connections:
            connection.half_close(direction)

    def corrupt(self, direction: Direction, chunks: int = 1) -> None:
        """Flips a bit in each of so many chunks that pass next."""
        self.lanes[direction].flips_due += chunks

    # Its own work

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            self.resets += 1
            reset_stream(writer)
            return
        self.connections_made += 1
        seed = f"{self._seed} {self.connections_made}"
        connection = Connection((reader, writer), self.lanes, seed)
        task = asyncio.get_running_loop().create_task(connection.run(self._dial))
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection))


class Connection:
    """One connection through the proxy: two flows."""

    def __init__(self, near: Streams, lanes: dict[Direction, Lane], seed: str) -> None:
        self._ends = [near]
        self._lanes = lanes
        self._forward, self._backward = (
            Flow(lanes[direction], f"{seed} {direction.name}") for direction in BOTH
        )

    async def run(self, dial: Dial) -> None:
        """Until both directions have ended, or one has broken."""
        near_reader, near_writer = self._ends[0]
        try:
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(self._forward.take(near_reader))
                await self._wait_open(taking)
                far_reader, far_writer = await dial()
                self._ends.append((far_reader, far_writer))
                tasks.create_task(self._backward.take(far_reader))
                tasks.create_task(self._forward.give(far_writer))
                tasks.create_task(self._backward.give(near_writer))
        except* OSError:
            self.reset()
        finally:
            for _, writer in self._ends:
                writer.transport.abort()

    async def _wait_open(self, taking: "asyncio.Task[None]") -> None:
        """Until both directions are open. Raises: ConnectionResetError when who dialled gave up before."""
        for lane in self._lanes.values():
            opening = asyncio.ensure_future(lane.is_open.wait())
            try:
                await asyncio.wait((opening, taking), return_when=asyncio.FIRST_COMPLETED)
                if not opening.done():
                    raise ConnectionResetError
            finally:
                opening.cancel()

    def reset(self) -> None:
        for _, writer in self._ends:
            reset_stream(writer)

    def half_close(self, direction: Direction) -> None:
        (self._forward if direction == Direction.FORWARD else self._backward).end()


class Flow:
    """The bytes of one connection in one direction: taken as they come, given when they are due."""

    def __init__(self, lane: Lane, name: str) -> None:
        self._lane = lane
        self._name = name
        self._chance = random.Random(name)
        self._damage = random.Random(f"{name} damage")
        self._chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY_MAX)
        self._due = 0.0  # the newest chunk, by the loop's clock
        self._line_free = 0.0  # when the bandwidth has let through what came before
        self._given_bytes = 0
        self._next_flip: int | None = None  # its place among the bytes of this flow
        self._writer: asyncio.StreamWriter | None = None
        self._is_ended = False

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Until the sender ends. Raises: OSError."""
        while chunk := await reader.read(CHUNK_BYTES_MAX):
            if self._lane.tap:
                self._lane.tap(self._name, chunk)
            await self._chunks.put((self._arrival(len(chunk)), chunk))
        await self._chunks.put((self._arrival(0), b""))

    async def give(self, writer: asyncio.StreamWriter) -> None:
        """Until the sender ends. Raises: OSError."""
        writer.transport.set_write_buffer_limits(high=0)  # what is written has left, so a cut cuts at once
        self._writer = writer
        while True:
            due, chunk = await self._chunks.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not chunk:
                break
            await self._write(writer, self._corrupted(chunk))
        await self._lane.is_open.wait()
        self.end()

    def end(self) -> None:
        """The receiver reads the end; what is still to come is lost."""
        self._is_ended = True
        if self._writer:
            with suppress(OSError):  # it may have gone
                self._writer.write_eof()

    def _arrival(self, size: int) -> float:
        """When a chunk that was sent now is to reach the other end: never before what was sent earlier."""
        now, conditions = asyncio.get_running_loop().time(), self._lane.conditions
        if conditions.bytes_per_second:
            now = self._line_free = max(now, self._line_free) + size / conditions.bytes_per_second
        jitter = self._chance.uniform(-conditions.jitter_ms, conditions.jitter_ms)
        delay_ms = max(conditions.delay_ms + jitter, 0)
        if size and self._chance.uniform(0, 100) < conditions.stall_percent:
            self._lane.stalls += 1
            delay_ms += self._chance.uniform(0, conditions.stall_ms)
        self._due = max(self._due, now + delay_ms / 1_000)
        return self._due

    def _corrupted(self, chunk: bytes) -> bytes:
        flips = self._flips_within(len(chunk))
        if self._lane.flips_due:
            self._lane.flips_due -= 1
            flips.append((self._chance.randrange(len(chunk)), self._chance.randrange(8)))
        self._given_bytes += len(chunk)
        self._lane.flipped_bits += len(flips)
        content = bytearray(chunk)
        for place, bit in flips:
            content[place] ^= 1 << bit
        return bytes(content)

    def _flips_within(self, size: int) -> list[tuple[int, int]]:
        """Places and bits, drawn for the flow and not for the chunk: however it is cut, the damage is the same."""
        every = self._lane.conditions.corrupt_every_bytes
        if not every:
            self._next_flip = None
            return []
        if self._next_flip is None:
            self._next_flip = self._given_bytes + self._damage.randrange(2 * every)
        flips = []
        while self._next_flip < self._given_bytes + size:
            flips.append((self._next_flip - self._given_bytes, self._damage.randrange(8)))
            self._next_flip += self._damage.randint(1, 2 * every)
        return flips

    async def _write(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        """Raises: OSError."""
        conditions = self._lane.conditions
        size = conditions.piece_bytes or len(content)
        for start in range(0, len(content), size):
            await self._lane.is_open.wait()
            if self._is_ended:
                return
            piece = content[start : start + size]
            writer.write(piece)
            await writer.drain()
            self._lane.forwarded_bytes += len(piece)
            if conditions.piece_gap_ms:
                await asyncio.sleep(conditions.piece_gap_ms / 1_000)


def dialler(host: str, port: int) -> Dial:
    """Opens connections to this address."""
    return lambda: asyncio.open_connection(host, port)


def reset_stream(writer: asyncio.StreamWriter) -> None:
    """Closes with RST, if it is not closed yet."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
