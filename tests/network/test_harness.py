"""The harness does to nodes and wires what it says, and finds chains that differ. A node alone is enough for that."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from node.exits import Exit
from tests.network import memory_limit
from tests.network.harness import Harness
from tests.network.load import Load
from tests.network.memory_limit import MemoryLimit
from tests.network.wiring import EVERY_WIRING, NamespaceWiring, ProxyWiring, Wiring

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(300),  # with another Python's environment, made once
]

PATIENCE_SECONDS: Final = 20.0
MOMENT_SECONDS: Final = 0.3


@asynccontextmanager
async def alone(directory: Path, wiring: Wiring | None = None) -> AsyncIterator[Harness]:
    async with Harness(directory, wiring or ProxyWiring(1), validators=1) as network:
        await network.start()
        yield network


# Processes


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_a_node_is_killed_and_comes_back(tmp_path: Path, make: Callable[[int], Wiring]) -> None:
    async with alone(tmp_path, make(1)) as network:
        await network.wait_for_height(2, seconds_max=PATIENCE_SECONDS)

        await network.kill()
        assert await network.heights() == [None]
        await network.start()

        await network.wait_for_blocks(2, seconds_max=PATIENCE_SECONDS)
        assert await network.one_chain() >= 5


async def test_a_node_stops_when_it_is_told_to(tmp_path: Path) -> None:
    async with alone(tmp_path) as network:
        ended = await network.terminate(0)

        assert ended.code == 0
        assert ended.seconds < 5
        assert "stopped at block" in network.log(0)


async def test_a_paused_node_is_silent_and_goes_on(tmp_path: Path) -> None:
    async with alone(tmp_path) as network:
        await network.wait_for_height(1, seconds_max=PATIENCE_SECONDS)

        network.pause(0)
        with pytest.raises(AssertionError, match="validator-1 does not answer"):
            await network.wait_for_blocks(1, seconds_max=1)
        network.resume(0)

        await network.wait_for_blocks(2, seconds_max=PATIENCE_SECONDS)
        await network.one_chain()


async def test_a_node_that_ends_at_once_is_shown_with_its_log(tmp_path: Path) -> None:
    async with Harness(tmp_path, ProxyWiring(1), validators=1) as network:
        (tmp_path / "validator-1" / "validator.key").chmod(0o644)

        with pytest.raises(AssertionError, match="validator-1 ended: .*is open to others"):
            await network.start()


async def test_no_two_nodes_are_of_one_kind(tmp_path: Path) -> None:
    """Hash seed, time zone and language; one node without assertions, one in development mode."""
    seen, flags = [], []
    async with Harness(tmp_path, ProxyWiring(4), validators=1) as network:
        for place in range(4):
            if place > 0:
                await network.add_twin(0)
            await network.launch(place)
            process = Path(f"/proc/{network.pid(place)}")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while b"node.cli.main" not in (process / "cmdline").read_bytes():
                    await asyncio.sleep(0.01)
            flags.append((process / "cmdline").read_bytes().split(b"\0-m")[0].split(b"\0")[1:])
            variables = (process / "environ").read_bytes().split(b"\0")
            names = (b"PYTHONHASHSEED=", b"TZ=", b"LC_ALL=")
            seen += [value for value in variables if value.startswith(names)]
            await network.kill(place)

    assert flags == [[], [b"-O"], [b"-X", b"dev"], []]
    assert len(set(seen)) == len(seen) == 12


async def test_a_starved_process_is_killed() -> None:
    memory_limit.require()
    program = "import sys; print(flush=True); sys.stdin.read(1); print(len(bytes(range(256)) * 200_000))"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
    assert process.stdout
    assert await process.stdout.readline() == b"\n"

    with MemoryLimit() as limit:
        limit.starve(process.pid)
        out, _ = await process.communicate(b"x")

    assert process.returncode == -signal.SIGKILL
    assert out == b""


async def test_a_process_that_lives_is_let_go_of() -> None:
    memory_limit.require()
    process = await asyncio.create_subprocess_exec("sleep", "60")

    with MemoryLimit() as limit:
        limit.starve(process.pid)

    assert process.returncode is None
    process.kill()
    await process.wait()


# Data directories


async def test_a_copy_of_the_data_is_a_node_of_its_own(tmp_path: Path) -> None:
    """And a restored one that goes another way than what was told before is found."""
    async with alone(tmp_path, ProxyWiring(2)) as network:
        await network.wait_for_height(3, seconds_max=PATIENCE_SECONDS)
        await network.terminate(0)
        network.copy_data(0, tmp_path / "backup")
        await network.start()
        await network.wait_for_blocks(3, seconds_max=PATIENCE_SECONDS)
        await asyncio.sleep(MOMENT_SECONDS)
        await network.kill()

        network.restore_data(0, tmp_path / "backup")
        await network.start()
        await network.wait_for_blocks(5, seconds_max=PATIENCE_SECONDS)

        with pytest.raises(AssertionError, match="block [0-9]+ is 0x.* to validator-1, 0x.* to validator-1"):
            await network.one_chain()


async def test_twins_of_a_lone_validator_part_and_are_found(tmp_path: Path) -> None:
    async with alone(tmp_path, ProxyWiring(2)) as network:
        await network.wait_for_height(2, seconds_max=PATIENCE_SECONDS)
        await network.kill()
        assert await network.add_twin(0) == 1
        await network.start()
        await network.wait_for_blocks(2, seconds_max=PATIENCE_SECONDS)

        with pytest.raises(AssertionError, match="to validator-1"):
            await network.one_chain()


async def test_an_emptied_node_begins_again(tmp_path: Path) -> None:
    async with alone(tmp_path) as network:
        await network.wait_for_height(4, seconds_max=PATIENCE_SECONDS)
        await network.kill()

        network.empty_data(0)

        assert (tmp_path / "validator-1" / "tls" / "node.key").exists()
        await network.launch(0)
        assert (await network.wait_ended(0)).code == Exit.DAMAGED
        network.begin_journal(0, first_epoch=2)
        await network.start()
        assert await network.heights() == [0]


async def test_a_running_nodes_data_is_left_alone(tmp_path: Path) -> None:
    async with alone(tmp_path) as network:
        for act in (network.empty_data, lambda node: network.copy_data(node, tmp_path / "backup")):
            with pytest.raises(AssertionError, match="validator-1 is running"):
                act(0)


# Load


async def test_load_makes_full_blocks_and_outlives_a_node(tmp_path: Path) -> None:
    async with alone(tmp_path) as network:
        load = Load([network.nodes[0].client], per_second=50)
        await load.prepare()
        task = asyncio.create_task(load.run())
        await asyncio.sleep(2)
        await network.kill()
        await asyncio.sleep(0.2)
        await network.start()
        accepted = load.accepted
        async with asyncio.timeout(PATIENCE_SECONDS):
            while load.accepted < accepted + 20:
                await asyncio.sleep(0.05)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        block = await network.nodes[0].client.call("eth_getBlockByNumber", "latest", False)
        assert load.refused > 0
        assert block["transactions"]


# Wires


async def serve_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.transport.abort()


class Street:
    """Echo servers where the nodes of a wiring would listen, and questions of who reaches whom."""

    def __init__(self, network: Harness) -> None:
        self._wiring = network.wiring
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        for place in range(self._wiring.nodes):
            host, port = self._wiring.listens_at(place)
            if isinstance(self._wiring, NamespaceWiring):
                listener = self._wiring.hosts.make_socket(place)
                listener.bind((host, port))
                self._servers.append(await asyncio.start_server(serve_echo, sock=listener))
            else:
                self._servers.append(await asyncio.start_server(serve_echo, host, port))

    async def close(self) -> None:
        for server in self._servers:
            server.close()

    async def reach(self) -> str:
        """Each pair that gets an answer, such as "01 10": the one who dials first."""
        pairs = [(a, b) for a in range(self._wiring.nodes) for b in range(self._wiring.nodes) if a != b]
        answers = await asyncio.gather(*(self._answers(*pair) for pair in pairs))
        return " ".join(f"{a}{b}" for (a, b), answer in zip(pairs, answers, strict=True) if answer)

    async def _answers(self, node: int, peer: int) -> bool:
        host, _, port = self._wiring.peer_address(node, peer).rpartition(":")
        writer = None
        try:
            async with asyncio.timeout(MOMENT_SECONDS):
                if isinstance(self._wiring, NamespaceWiring):
                    reader, writer = await self._wiring.hosts.connect(node, host, int(port))
                else:
                    reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"hello")
                return await reader.readexactly(5) == b"hello"
        except TimeoutError:
            return False
        finally:
            if writer:
                writer.transport.abort()


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_wires_are_cut_and_mended(tmp_path: Path, make: Callable[[int], Wiring]) -> None:
    async with Harness(tmp_path, make(3), validators=3) as network:
        street = Street(network)
        await street.open()
        assert await street.reach() == "01 02 10 12 20 21"

        network.isolate(1)
        assert await street.reach() == "02 20"
        network.partition([0, 1], [2])
        assert await street.reach() == "01 10"
        network.partition([1, 2])
        assert await street.reach() == "12 21"
        network.heal()
        assert await street.reach() == "01 02 10 12 20 21"

        network.cut(0, 1)
        assert await street.reach() == "02 12 20 21"
        network.heal()
        assert await street.reach() == "01 02 10 12 20 21"
        await street.close()
