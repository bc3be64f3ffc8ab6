"""Whole nodes under virtual time: engine, runner, journal, ledger, pool, catching up and peering as they run in a
process, joined by a network of messages that is seeded and can be cut. Only sockets, threads, processes and the clock are not real.

The event loop jumps to the next timer when nothing is ready, and does the work of threads at once. So a run depends on
its seed alone, and a minute of a network takes a second.
"""

import asyncio
import random
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ctt_state.crypto import address_of, public_key
from ctt_state.genesis import development_genesis, development_key, load_genesis
from ctt_state.units import Address, Height, Ms
from node.consensus.events import Now
from node.consensus.settings import Settings
from node.journal import Journal
from node.ledger import Ledger, create_ledger
from node.mempool import MempoolLimits
from node.node import Node
from node.peering import Peering
from node.recoverer import recover
from node.recovery import Entry, SenderRecovery
from node.signer import OwnKey
from p2p import messages as wire
from p2p.framing import FrameReader
from p2p.messages import decode_message, encode_message
from p2p.network import PeerId, PeerInfo

WALL_MS: Final = 1_800_000_000_000
GENESIS: Final = Path(__file__).parent.parent.parent / "genesis.json"


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when nobody has anything to do. What would run on a thread runs at once."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now_s = 1_000.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(  # type: ignore[override]  # the type of the library says no more than this one
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as fault:  # noqa: BLE001  # as a thread would bring it
            future.set_exception(fault)
        return future


class AtOnce:
    """Recovers senders when it is asked, in place of a process."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[list[bytes]] = asyncio.Queue()

    @classmethod
    async def start(cls) -> Self:
        return cls()

    def ask(self, chunk: Sequence[Entry]) -> None:
        self._answers.put_nowait([recover(transaction.raw) for transaction, _, _ in chunk])

    async def answers(self) -> AsyncIterator[list[bytes]]:
        while True:
            yield await self._answers.get()

    def end(self) -> str:
        return "ended"


@dataclass
class Faults:
    """What the network does to messages, by the seed."""

    random: random.Random
    delay_s: tuple[float, float] = (0.001, 0.01)
    loss: float = 0.0
    cuts: set[tuple[str, str]] = field(default_factory=set)  # from, to

    def cut(self, group: set[str], names: list[str]) -> None:
        """The group and the others do not hear each other."""
        self.cuts = {(a, b) for a in names for b in names if (a in group) != (b in group)}


class Place:
    """One node's directory, key and what runs on it."""

    def __init__(self, world: "NodeWorld", number: int, *, is_validator: bool) -> None:
        self.world = world
        self.name = f"validator-{number + 1}" if is_validator else f"follower-{number + 1}"
        self.key = development_key(number) if is_validator else None
        self.validator: Address | None = address_of(self.key) if self.key else None
        self.directory = world.directory / self.name
        self.failure: BaseException | None = None
        self.wall_offset_ms = 0
        self._task: asyncio.Task[None] | None = None
        self._ledger: Ledger | None = None
        self._journal: Journal | None = None
        genesis = create_ledger(self.directory, world.document)
        if self.key:
            Journal.create(self.directory, genesis.hash, public_key(self.key))

    @property
    def is_up(self) -> bool:
        return self._task is not None

    @property
    def height(self) -> int:
        return self.node.head.block.header.height

    def clocks(self) -> Now:
        mono_ms = int(asyncio.get_running_loop().time() * 1_000)
        return Now(mono_ms, Ms(WALL_MS + mono_ms - 1_000_000 + self.wall_offset_ms))

    def start(self) -> None:
        ledger = self._ledger = Ledger.open(self.directory)
        if self.key:
            header = ledger.head.block.header
            final = header.epoch, header.view, header.height
            self._journal = Journal.open(self.directory, ledger.genesis.hash, public_key(self.key), final)
        self.peering = Peering(ledger, self.clocks)
        listen_ms = 0 if self._journal is None or self._journal.was_clean else 2_000
        self.node = Node(
            ledger,
            journal=self._journal,
            signer=OwnKey(self.key, ledger.genesis.hash) if self.key else None,
            limits=MempoolLimits(),
            outside=self.peering,
            settings=Settings(ledger.chain.block_period_ms, listen_ms=listen_ms),
            clocks=self.clocks,
            recovery=SenderRecovery(AtOnce.start),
        )
        self.peering.join(self.node, Mouth(self))
        self._task = asyncio.ensure_future(self._run())
        for other in self.world.places:
            if other is not self and other.is_up and self.world.is_open(self, other):
                self.world.connect(self, other)

    async def _run(self) -> None:
        peering = asyncio.ensure_future(self.peering.run())
        try:
            await self.node.run()
        except asyncio.CancelledError:
            raise
        except BaseException as fault:  # noqa: BLE001  # what a process would end with
            self.failure = fault
        finally:
            peering.cancel()
            await asyncio.gather(peering, return_exceptions=True)

    async def crash(self) -> None:
        """The process is gone; its files stay as they are."""
        if self._task is None or self._ledger is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self.world.forget(self)
        self._ledger.close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None


class Mouth:
    """A node's `Network`: what it says goes out as bytes and comes in as bytes."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def send(self, peer: PeerId, message: wire.Message) -> None:
        self._place.world.carry(self._place, peer, encode_message(message))

    def broadcast(self, message: wire.Message, *, only_validators: bool = False) -> None:
        frame = encode_message(message)
        for info in self.peers():
            if info.validator is not None or not only_validators:
                self._place.world.carry(self._place, info.name, frame)

    def punish(self, peer: PeerId, text: str) -> None:
        self._place.world.punished.append((self._place.name, peer, text))

    def peers(self) -> list[PeerInfo]:
        return self._place.world.peers_of(self._place)


class NodeWorld:
    """`validators` and `followers` in one virtual network. Use it inside a `VirtualLoop`."""

    def __init__(
        self, directory: Path, seed: int, *, validators: int = 4, followers: int = 0, epoch_blocks: int = 20
    ) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.faults = Faults(random.Random(seed + 1))
        text = development_genesis(GENESIS.read_bytes(), validators=validators, p2p_port=30_303)
        self.document = text.replace(b'"epochBlocks":900', b'"epochBlocks":%d' % epoch_blocks)
        self.genesis = load_genesis(self.document)
        self.punished: list[tuple[str, str, str]] = []
        self._links: dict[tuple[str, str], PeerInfo] = {}
        self._generation: dict[tuple[str, str], int] = {}
        self._last_s: dict[tuple[str, str], float] = {}
        self.places = [Place(self, number, is_validator=True) for number in range(validators)]
        self.places += [Place(self, number, is_validator=False) for number in range(followers)]
        self._by_name = {place.name: place for place in self.places}

    def start(self) -> None:
        for place in self.places:
            place.start()

    async def close(self) -> None:
        for place in self.places:
            await place.crash()

    def heights(self) -> list[int]:
        return [place.height for place in self.places]

    def set_cuts(self, group: set[str]) -> None:
        """Sessions across the cut end; they come back when it heals."""
        self.faults.cut(group, [place.name for place in self.places])
        for a in self.places:
            for b in self.places:
                if a.name < b.name and a.is_up and b.is_up:
                    if not self.is_open(a, b):
                        self._disconnect(a, b)
                    elif (a.name, b.name) not in self._links:
                        self.connect(a, b)

    def is_open(self, a: Place, b: Place) -> bool:
        return (a.name, b.name) not in self.faults.cuts

    def connect(self, a: Place, b: Place) -> None:
        for here, there in ((a, b), (b, a)):
            info = PeerInfo(PeerId(there.name), there.validator, "virtual", here is a, 0, "ctt/1", Height(0))
            self._links[here.name, there.name] = info
            self._generation[here.name, there.name] = self._generation.get((here.name, there.name), 0) + 1
            asyncio.get_running_loop().call_soon(here.peering.on_connected, info)

    def forget(self, gone: Place) -> None:
        for other in self.places:
            if other is not gone:
                self._disconnect(gone, other)

    def _disconnect(self, a: Place, b: Place) -> None:
        for here, there in ((a, b), (b, a)):
            info = self._links.pop((here.name, there.name), None)
            if info is not None and here.is_up:
                here.peering.on_disconnected(info, "gone")

    def peers_of(self, place: Place) -> list[PeerInfo]:
        return [info for (here, _), info in self._links.items() if here == place.name]

    def carry(self, source: Place, to: str, frame: bytes) -> None:
        """A session keeps the order of its messages, loses none, and ends with all that is on its way."""
        if (source.name, to) not in self._links:
            return
        loop, faults = asyncio.get_running_loop(), self.faults
        delay_s = faults.random.uniform(*faults.delay_s)
        if faults.random.random() < faults.loss:
            delay_s += faults.random.uniform(0.2, 2.0)  # sent again by the transport
        generation = self._generation[source.name, to]
        at_s = max(loop.time() + delay_s, self._last_s.get((source.name, to), 0.0) + 1e-6)
        self._last_s[source.name, to] = at_s
        loop.call_at(at_s, self._arrive, source.name, to, frame, generation)

    def _arrive(self, source: str, to: str, frame: bytes, generation: int) -> None:
        info = self._links.get((to, source))
        if info is None or self._generation[source, to] != generation:
            return
        for kind, payload in FrameReader(2**22).feed(frame):
            message: Any = decode_message(kind, payload)
            self._by_name[to].peering.on_message(info, message)
