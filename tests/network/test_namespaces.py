"""Namespaces carry what they should, and a cut is silent and ends. Skipped where the system makes none."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from tests.network.namespaces import Namespaces, require
from tests.network.proxy import Proxy, Streams

pytestmark = pytest.mark.asyncio

PATIENCE_SECONDS: Final = 20.0  # retransmissions after a cut take their time
MOMENT_SECONDS: Final = 0.3
PAYLOAD: Final = random.Random(1).randbytes(200_000)


@pytest.fixture(autouse=True)
def needs_namespaces() -> None:
    require()


@pytest.fixture
def hosts() -> Iterator[Namespaces]:
    with Namespaces(3) as namespaces:
        yield namespaces


async def serve_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def echo_on(hosts: Namespaces, host: int, address: str = "") -> AsyncIterator[int]:
    """Its port, there."""
    listener, port = hosts.listen(host, address or hosts.address(host))
    server = await asyncio.start_server(serve_echo, sock=listener)
    try:
        yield port
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def connected(hosts: Namespaces, client: int, server: int) -> AsyncIterator[Streams]:
    async with echo_on(hosts, server) as port:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await hosts.connect(client, hosts.address(server), port)
        try:
            yield reader, writer
        finally:
            hosts.heal()
            writer.write_eof()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reader.read()
            writer.close()
            await writer.wait_closed()


async def echoed(streams: Streams, content: bytes) -> bytes:
    streams[1].write(content)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await streams[0].readexactly(len(content))


async def run_on(hosts: Namespaces, host: int, *command: str) -> tuple[int, str]:
    """The process id of what was started, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *hosts.command(host, *command), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.pid, out.decode()


async def is_silent(streams: Streams, content: bytes) -> bool:
    """Nothing comes back of what is sent, and no error either."""
    streams[1].write(content)
    try:
        async with asyncio.timeout(MOMENT_SECONDS):
            await streams[0].read(1)
    except TimeoutError:
        return True
    return False


async def test_hosts_reach_one_another(hosts: Namespaces) -> None:
    for client, server in ((0, 1), (1, 0), (2, 1)):
        async with connected(hosts, client, server) as streams:
            assert await echoed(streams, PAYLOAD) == PAYLOAD


async def test_small_packets_are_small() -> None:
    with Namespaces(2, mtu=576) as hosts:
        async with connected(hosts, 0, 1) as streams:
            assert await echoed(streams, PAYLOAD) == PAYLOAD
        _, said = await run_on(hosts, 0, "ip", "link", "show", "eth0")
    assert "mtu 576" in said


async def test_an_unplugged_host_is_silent_until_it_is_plugged_in(hosts: Namespaces) -> None:
    async with connected(hosts, 0, 1) as streams, connected(hosts, 0, 2) as others:
        await echoed(streams, b"before")

        hosts.unplug(1)
        assert await is_silent(streams, b"during")
        assert await echoed(others, b"others") == b"others"

        hosts.plug(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await streams[0].readexactly(6) == b"during"


@pytest.mark.parametrize(("sender", "receiver"), [(0, 1), (1, 0)])
async def test_one_direction_can_be_cut(hosts: Namespaces, sender: int, receiver: int) -> None:
    async with connected(hosts, 0, 1) as streams, connected(hosts, 0, 2) as others:
        await echoed(streams, b"before")

        hosts.cut(sender, receiver)
        assert await is_silent(streams, b"during")
        assert await echoed(others, b"others") == b"others"

        hosts.heal()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await streams[0].readexactly(6) == b"during"


async def test_nobody_connects_to_an_unplugged_host(hosts: Namespaces) -> None:
    async with echo_on(hosts, 1) as port:
        hosts.unplug(1)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(MOMENT_SECONDS):
                await hosts.connect(0, hosts.address(1), port)


async def test_a_proxy_is_a_door_from_here_into_a_host(hosts: Namespaces) -> None:
    """To what listens on the host's own loopback, whether or not the host is plugged in."""
    async with echo_on(hosts, 0, "127.0.0.1") as port:
        hosts.unplug(0)
        async with Proxy(lambda: hosts.connect(0, "127.0.0.1", port)) as proxy:
            streams = await asyncio.open_connection(proxy.host, proxy.port)
            assert await echoed(streams, b"hello") == b"hello"
            streams[1].close()
            await streams[1].wait_closed()


async def test_a_command_runs_on_its_host(hosts: Namespaces) -> None:
    started, said = await run_on(hosts, 2, "sh", "-c", "echo $$; ip -4 -brief address show eth0")

    pid, interface = said.splitlines()
    assert int(pid) == started
    assert "10.77.0.3/24" in interface


async def test_nothing_is_left_behind() -> None:
    before = set(os.listdir("/run/netns"))
    with Namespaces(2) as hosts:
        assert {hosts.name(0), hosts.name(1)} < set(os.listdir("/run/netns")) - before

    assert set(os.listdir("/run/netns")) == before
