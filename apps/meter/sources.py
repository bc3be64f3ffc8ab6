"""Where P1 telegrams come from: a file, a TCP port, a serial port.

A serial port's converter and a gateway on the network both just send what the meter says, so all three are streams of
bytes. What breaks off is opened again, after a while that has jitter.
"""

import asyncio
import os
import random
import termios
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from apps.meter.dsmr import Framer

READ_BYTES: Final = 16_384
SILENCE_S_MAX: Final = 60.0  # a meter speaks every ten seconds at least
RECONNECT_S: Final = (1.0, 5.0)
BAUD: Final = {115_200: termios.B115200, 9_600: termios.B9600}


class InvalidSource(ValueError):
    """It says no source."""


class Source(NamedTuple):
    """A source's kind (file, tcp or serial), and where it is: a path, or host and port, and its speed."""

    kind: str
    place: str
    port: int = 0
    baud: int = 115_200

    def __str__(self) -> str:
        return f"tcp://{self.place}:{self.port}" if self.kind == "tcp" else f"{self.kind}:{self.place}"


def parse_source(text: str) -> Source:
    """`tcp://HOST:PORT`, `serial:/dev/ttyUSB0?baud=9600`, or a file's name. Raises: InvalidSource."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidSource(f"{text[:80]!a} is no source") from None
    if parts.scheme == "tcp":
        if not (parts.hostname and port):
            raise InvalidSource(f"{text[:80]!a} is not tcp://HOST:PORT")
        return Source("tcp", parts.hostname, port)
    if parts.scheme == "serial":
        baud = parse_qs(parts.query).get("baud", ["115200"])[0]
        if not parts.path or baud not in map(str, BAUD):
            raise InvalidSource(f"{text[:80]!a} is not serial:DEVICE or serial:DEVICE?baud=9600")
        return Source("serial", parts.path, baud=int(baud))
    return Source("file", text)


async def telegrams(source: Source, on_state: Callable[[str], None]) -> AsyncIterator[bytes]:
    """What stands between a `/` and a `!`, forever; of a file until its end. `on_state` hears why nothing comes, and ""
    when something does. Raises: OSError for a file."""
    if source.kind == "file":
        framer = Framer()
        with await asyncio.to_thread(open, source.place, "rb") as file:
            while data := await asyncio.to_thread(file.read, READ_BYTES):
                for telegram in framer.feed(data):
                    yield telegram
        return
    while True:
        try:
            async for telegram in _connected(source):
                on_state("")
                yield telegram
            on_state(f"{source} broke off")
        except TimeoutError:
            on_state(f"{source} has been silent for {SILENCE_S_MAX:g} s")
        except OSError as fault:
            on_state(f"{source}: {fault.strerror or fault}")
        await asyncio.sleep(random.uniform(*RECONNECT_S))


async def _connected(source: Source) -> AsyncIterator[bytes]:
    """Until it breaks off or is silent for too long. Raises: OSError, TimeoutError."""
    async with asyncio.timeout(SILENCE_S_MAX):
        reader, line = await (
            asyncio.open_connection(source.place, source.port)
            if source.kind == "tcp"
            else _open_serial(source)
        )
    framer = Framer()  # half a telegram of before does not go on in what comes after
    try:
        while True:
            async with asyncio.timeout(SILENCE_S_MAX):
                data = await reader.read(READ_BYTES)
            if not data:
                return
            for telegram in framer.feed(data):
                yield telegram
    finally:
        line.close()


async def _open_serial(source: Source) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    descriptor = os.open(source.place, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _set_up(descriptor, source.baud)
    except termios.error as fault:
        os.close(descriptor)
        raise OSError(str(fault)) from None
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


def _set_up(descriptor: int, baud: int) -> None:
    """115,200 baud and 8N1 as since version 4, or 9,600 and 7E1 as before; bytes as they come."""
    speed = BAUD[baud]
    size = termios.CS8 if baud == 115_200 else termios.CS7 | termios.PARENB
    control = size | termios.CREAD | termios.CLOCAL
    *_, characters = termios.tcgetattr(descriptor)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [termios.IGNBRK, 0, control, 0, speed, speed, characters])
