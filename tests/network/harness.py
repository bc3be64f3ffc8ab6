"""A network of `ctt run` processes that a test kills, pauses, cuts off, robs and compares.

No two nodes have the same hash seed, time zone and language; one runs without assertions, one in development mode, and
every other one on another Python where there is one. So what differs between machines differs between them, and what is
to be equal is compared.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from apps.client import Client
from ctt_state.crypto import address_of
from ctt_state.genesis import development_genesis, development_key, load_genesis
from node.backup import SOCKET
from node.cli.ca import issue_development
from node.cli.init import initialise
from node.cli.main import main
from node.keys import KEY_FILE
from tests.live_node import GENESIS
from tests.network import interpreters
from tests.network.chronicle import LOST, Chronicle, read_hashes, read_height
from tests.network.wiring import P2P_PORT, Wiring

READY_SECONDS_MAX: Final = 60.0  # four interpreters that start at once on two cores
ANSWER_SECONDS_MAX: Final = 2.0
STOP_SECONDS_MAX: Final = 30.0
WATCH_SECONDS: Final = 0.2
POLL_SECONDS: Final = 0.05
STANDSTILL_SECONDS: Final = 5.0
UNDER_WAY_MAX: Final = 2  # blocks that were nearly final when their quorum went
TLS: Final = "tls"
KEYLOG: Final = Path(__file__).parent / "keylog"
COMMAND: Final = ("-m", "node.cli.main")
FLAGS: Final = ("--account-slots", "1024", "--rpc-connections-per-address", "256", "--guard-seconds", "3")


class Variant(NamedTuple):
    """In what the process of a node differs from the others'."""

    time_zone: str
    language: str
    flags: tuple[str, ...]
    has_other_python: bool = False


VARIANTS: Final = (
    Variant("UTC", "C", ()),
    Variant("Asia/Kathmandu", "de_DE.UTF-8", ("-O",), has_other_python=True),
    Variant("America/St_Johns", "tr_TR.UTF-8", ("-X", "dev")),
    Variant("Pacific/Apia", "ar_EG.UTF-8", (), has_other_python=True),
)


class Ended(NamedTuple):
    """How a process ended: its exit code, negative of a signal, and after how long."""

    code: int
    seconds: float


@dataclass
class Node:
    """A data directory, and the process that runs on it, if one does."""

    place: int  # in the wiring
    seat: int  # of the validator whose key it holds
    directory: Path
    client: Client
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def log_file(self) -> Path:
        return self.directory.parent / f"{self.name}.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Harness:
    """`validators` nodes, numbered from 0; places of the wiring beyond those are for twins and rivals.

    Methods that take nodes take all of them when none is named.
    """

    def __init__(
        self,
        directory: Path,
        wiring: Wiring,
        *,
        validators: int,
        tls_keys: Path | None = None,
        epoch_blocks: int | None = None,
    ) -> None:
        """`tls_keys`: a file to which all nodes write the keys of their sessions. `epoch_blocks`: other than usual."""
        self.wiring = wiring
        self.validators = validators
        self.chronicle = Chronicle()
        self.nodes: list[Node] = []
        self._directory = directory
        self._tls_keys = tls_keys
        self._other_python = interpreters.other_or_own() if wiring.nodes > 1 else sys.executable
        changes = {} if epoch_blocks is None else {"epochBlocks": epoch_blocks}
        template = json.dumps(json.loads(GENESIS.read_bytes()) | changes).encode()
        self._document = development_genesis(template, validators=validators, p2p_port=P2P_PORT)
        self.genesis = load_genesis(self._document)
        self._stack = AsyncExitStack()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.wiring)
        keys = [development_key(seat) for seat in range(self.validators)]
        issue_development(
            self._directory, [(validator_name(seat), address_of(key)) for seat, key in enumerate(keys)]
        )
        for seat, key in enumerate(keys):
            node = await self._add_node(seat, validator_name(seat))
            initialise(node.directory, self._document, key)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        try:
            await self.kill()
        finally:
            await self._stack.aclose()

    # Processes

    async def start(self, *nodes: int) -> None:
        """Returns when all answer. A node that ends instead is an AssertionError with the end of its log."""
        await self.launch(*nodes)
        for node in self._choose(nodes):
            await self._wait_ready(node)

    async def launch(self, *nodes: int) -> None:
        """Starts them and leaves open what becomes of them."""
        for node in self._choose(nodes):
            self._spawn(node)

    async def kill(self, *nodes: int) -> None:
        """SIGKILL, to all at once."""
        chosen = [node for node in self._choose(nodes) if node.is_running]
        for node in chosen:
            self._signal(node.place, signal.SIGKILL)
        for node in chosen:
            await self.wait_ended(node.place)

    async def terminate(self, node: int) -> Ended:
        """SIGTERM."""
        self._signal(node, signal.SIGTERM)
        return await self.wait_ended(node)

    async def wait_ended(self, node: int) -> Ended:
        """AssertionError when it goes on for more than STOP_SECONDS_MAX."""
        process = self._process(node)
        start = time.monotonic()
        while (code := process.poll()) is None:
            assert time.monotonic() - start < STOP_SECONDS_MAX, f"{self.nodes[node].name} does not end"
            await asyncio.sleep(POLL_SECONDS / 5)
        return Ended(code, time.monotonic() - start)

    def pause(self, node: int) -> None:
        """SIGSTOP: it is there and does nothing."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)

    def pid(self, node: int) -> int:
        return self._process(node).pid

    def log(self, node: int) -> str:
        file = self.nodes[node].log_file
        return file.read_text(errors="replace") if file.exists() else ""

    # Wires

    def isolate(self, node: int) -> None:
        """From all others, both ways."""
        self.partition([node], [other.place for other in self.nodes if other.place != node])

    def partition(self, *groups: Sequence[int]) -> None:
        """Only within each group does anything get through; who is in none is alone."""
        for sender, receiver in permutations(range(self.wiring.nodes), 2):
            if any(sender in group and receiver in group for group in groups):
                self.wiring.mend(sender, receiver)
            else:
                self.wiring.cut(sender, receiver)

    def cut(self, sender: int, receiver: int) -> None:
        """One way only."""
        self.wiring.cut(sender, receiver)

    def heal(self) -> None:
        """Ends every cut."""
        self.partition(range(self.wiring.nodes))

    # Data directories, of nodes that do not run

    def empty_data(self, node: int) -> None:
        """All but its key and its TLS files is lost, and somebody runs `ctt init` again. That makes no vote journal."""
        directory = self._stopped(node).directory
        for path in directory.iterdir():
            if path.name not in (KEY_FILE, TLS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        initialise(directory, self._document, development_key(self.nodes[node].seat))
        self.chronicle.forgive(self.nodes[node].name)

    def begin_journal(self, node: int, first_epoch: int) -> None:
        """A new vote journal for a key that may have voted: it casts nothing before that epoch."""
        command = ["journal", "init", "--dir", str(self._stopped(node).directory)]
        assert main([*command, "--first-epoch", str(first_epoch)]) == 0

    def copy_data(self, node: int, backup: Path) -> None:
        """But for the socket that a node leaves when it is killed."""
        shutil.copytree(self._stopped(node).directory, backup, ignore=shutil.ignore_patterns(SOCKET))

    def restore_data(self, node: int, backup: Path) -> None:
        """The copy takes the place of what is there."""
        directory = self._stopped(node).directory
        shutil.rmtree(directory)
        shutil.copytree(backup, directory)
        self.chronicle.forgive(self.nodes[node].name)

    async def back_up(self, node: int, file: Path) -> None:
        """`ctt backup`, of one that runs too."""
        assert await asyncio.to_thread(main, ["backup", str(self.nodes[node].directory), str(file)]) == 0

    def restore_backup(self, node: int, file: Path) -> None:
        """`ctt restore` to a new disk, on which somebody puts the key and the TLS files back."""
        directory = self._stopped(node).directory
        lost = directory.rename(directory.with_name(f"{directory.name}.lost"))
        assert main(["restore", str(file), str(directory)]) == 0
        shutil.copy2(lost / KEY_FILE, directory)
        shutil.copytree(lost / TLS, directory / TLS)
        self.chronicle.forgive(self.nodes[node].name)

    async def add_twin(self, node: int) -> int:
        """A second node with this one's data directory and so its keys; gives its number. It is not started."""
        twin = await self._add_node(self.nodes[node].seat, f"{self.nodes[node].name}-twin-{len(self.nodes)}")
        self.copy_data(node, twin.directory)
        return twin.place

    async def add_rival(self, node: int) -> int:
        """A second process on this node's very directory; gives its number. It is not started."""
        rival = await self._add_node(self.nodes[node].seat, self.nodes[node].name)
        return rival.place

    def shared_seats(self) -> set[int]:
        """Those whose key is in more than one data directory."""
        directories = {(node.seat, node.directory) for node in self.nodes}
        return {seat for seat, count in Counter(seat for seat, _ in directories).items() if count > 1}

    # The chain

    async def heights(self) -> list[int | None]:
        """Of each node its newest final block; None of those that do not answer."""
        return await asyncio.gather(*(self._height(node) for node in self.nodes))

    async def wait_for_height(self, height: int, *nodes: int, seconds_max: float) -> float:
        """Until all of the nodes are there. Gives the seconds that it took; AssertionError when it takes longer."""
        start = time.monotonic()
        while True:
            heights = await asyncio.gather(*(self._height(node) for node in self._choose(nodes)))
            seconds = time.monotonic() - start
            if all((reached or 0) >= height for reached in heights):
                return seconds
            assert seconds < seconds_max, (
                f"not at block {height} in {seconds:.1f} s: {self._describe(await self.heights())}"
            )
            await asyncio.sleep(POLL_SECONDS)

    async def wait_for_blocks(self, count: int, *nodes: int, seconds_max: float) -> float:
        """Until all of the nodes are so many blocks beyond the highest of them."""
        heights = await asyncio.gather(*(self._height(node) for node in self._choose(nodes)))
        newest = max(height or 0 for height in heights)
        return await self.wait_for_height(newest + count, *nodes, seconds_max=seconds_max)

    async def check_standstill(self, *nodes: int) -> None:
        """No quorum, no block."""
        before = await self.heights()
        await asyncio.sleep(STANDSTILL_SECONDS)
        after = await self.heights()
        for node in nodes:
            assert (after[node] or 0) <= (before[node] or 0) + UNDER_WAY_MAX, (before, after)

    async def one_chain(self) -> int:
        """Compares all blocks of all nodes that answer, and what any node ever told: the heights that were compared.

        What differs is an AssertionError. Hashes cover state roots, so equal chains are equal states.
        """
        heights = await self.heights()
        answering = [
            (node, height) for node, height in zip(self.nodes, heights, strict=True) if height is not None
        ]
        assert answering, "no node answers"
        for node, height in answering:
            hashes = await read_hashes(node.client, 0, height)
            for number, block_hash in hashes.items():
                self.chronicle.record(node.name, number, block_hash)
        assert not self.chronicle.contradictions, "\n".join(self.chronicle.contradictions)
        return min(height for _, height in answering) + 1

    async def proposers(self, node: int, count: int) -> list[int]:
        """The seats of those who proposed the newest blocks, the newest last."""
        client = self.nodes[node].client
        newest = await read_height(client)
        seats = {f"0x{address_of(development_key(seat)).hex()}": seat for seat in range(self.validators)}
        calls = [("eth_getBlockByNumber", [hex(newest - back), False]) for back in reversed(range(count))]
        return [seats[block["miner"]] for block in await client.batch(calls)]

    # Its own work

    def _choose(self, nodes: Sequence[int]) -> list[Node]:
        return [self.nodes[place] for place in nodes] if nodes else self.nodes

    async def _add_node(self, seat: int, name: str) -> Node:
        place = len(self.nodes)
        client = await self._stack.enter_async_context(Client(self.wiring.url(place)))
        self.nodes.append(Node(place, seat, self._directory / name, client))
        return self.nodes[place]

    def _stopped(self, node: int) -> Node:
        assert not self.nodes[node].is_running, f"{self.nodes[node].name} is running"
        return self.nodes[node]

    def _process(self, node: int) -> "subprocess.Popen[bytes]":
        process = self.nodes[node].process
        assert process is not None, f"{self.nodes[node].name} was never started"
        return process

    def _signal(self, node: int, number: int) -> None:
        self._process(node).send_signal(number)

    def _spawn(self, node: Node) -> None:
        assert not node.is_running, f"{node.name} is running"
        variant = VARIANTS[node.place % len(VARIANTS)]
        python = self._other_python if variant.has_other_python else sys.executable
        command = [python, *variant.flags, *COMMAND, "run", "--dir", str(node.directory)]
        environment = {
            "PYTHONPATH": str(GENESIS.parent),
            "PYTHONHASHSEED": str(node.place + 1),
            "TZ": variant.time_zone,
            "LANG": variant.language,
            "LC_ALL": variant.language,
        }
        if self._tls_keys:
            environment["PYTHONPATH"] = f"{KEYLOG}{os.pathsep}{environment['PYTHONPATH']}"
            environment["SSLKEYLOGFILE"] = str(self._tls_keys)
        with node.log_file.open("ab") as log:
            node.process = subprocess.Popen(
                self.wiring.command(node.place, *command, *FLAGS, *self._addresses(node)),
                stdout=log,
                stderr=log,
                cwd=GENESIS.parent,
                env=os.environ | environment,
            )

    def _addresses(self, node: Node) -> list[str]:
        arguments = ["--rpc-port", str(self.wiring.rpc_port(node.place))]
        host, port = self.wiring.listens_at(node.place)
        arguments += ["--p2p-host", host, "--p2p-port", str(port)]
        for seat in range(self.validators):
            if seat != node.seat:
                arguments += [
                    "--peer",
                    f"{validator_name(seat)}={self.wiring.peer_address(node.place, seat)}",
                ]
        return arguments

    async def _wait_ready(self, node: Node) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while await self._height(node) is None:
            assert node.is_running, f"{node.name} ended: {self.log(node.place)[-2_000:]}"
            assert time.monotonic() < deadline, (
                f"{node.name} does not answer: {self.log(node.place)[-2_000:]}"
            )
            await asyncio.sleep(POLL_SECONDS)

    async def _height(self, node: Node) -> int | None:
        if not node.is_running:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await read_height(node.client)
        except LOST:
            return None

    async def _watch(self) -> None:
        """Writes down what every node tells, for as long as the network is there."""
        while True:
            await asyncio.gather(*(self._note(node) for node in self.nodes))
            await asyncio.sleep(WATCH_SECONDS)

    async def _note(self, node: Node) -> None:
        """A node that is behind is followed a batch at a time."""
        if not node.is_running:
            return
        with suppress(*LOST):
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                height = await read_height(node.client)
                first = min(self.chronicle.newest(node.name) + 1, height)
                for number, block_hash in (await read_hashes(node.client, first, height)).items():
                    self.chronicle.record(node.name, number, block_hash)
                self.chronicle.record_height(node.name, height)

    def _describe(self, heights: Sequence[int | None]) -> str:
        """Where each is, and the last line of its log."""
        described = []
        for node, height in zip(self.nodes, heights, strict=True):
            last = (self.log(node.place).splitlines() or ["no word in its log"])[-1]
            where = "does not answer" if height is None else f"at block {height}"
            described.append(f"\n  {node.name} {where}: {last}")
        return "".join(described)


def validator_name(seat: int) -> str:
    """As in a development network's genesis document."""
    return f"validator-{seat + 1}"
