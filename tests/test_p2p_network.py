"""Real networks over loopback TLS: who stays connected, in which order messages come, and what hostile peers reach."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import pytest

from ctt_state.units import Address, Height
from node.cli.authority import Authority, create_authority
from p2p.identity import Identity, load_identity
from p2p.messages import VoteMessage
from p2p.network import DEFAULT_SETTINGS, Chain, Delivered, Endpoint, Network, PeerId, PeerInfo, Settings
from tests.p2p_world import GENESIS_HASH, make_vote

NOW: Final = datetime.now(UTC)
CHAIN: Final = Chain(7, GENESIS_HASH)
SOON_S: Final = 10
LOCAL: Final = Endpoint("127.0.0.1", 0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(
        tmp_path_factory.mktemp("consortium") / "ca", "Consortium", now=NOW - timedelta(days=1), days=30
    )


@pytest.fixture(scope="module")
def identities(authority: Authority) -> dict[str, Identity]:
    """Validators v1 to v4 and followers f1 to f4."""
    return {
        f"{kind}{number}": _issue(authority, f"{kind}{number}", bytes([number]) * 20 if kind == "v" else None)
        for kind in "vf"
        for number in range(1, 5)
    }


def _issue(authority: Authority, name: str, validator: bytes | None) -> Identity:
    out = authority.directory.parent / name
    authority.issue(out, name, Address(validator) if validator else None, now=NOW, days=10)
    return load_identity(out, NOW)


class Recorder:
    """A node that keeps what it is told."""

    def __init__(self) -> None:
        self.connected: list[PeerInfo] = []
        self.messages: list[tuple[PeerId, Delivered]] = []
        self.disconnected: list[tuple[PeerId, str]] = []
        self._changed = asyncio.Event()

    def on_connected(self, peer: PeerInfo) -> None:
        self.connected.append(peer)
        self._changed.set()

    def on_message(self, peer: PeerInfo, message: Delivered) -> None:
        self.messages.append((peer.name, message))
        self._changed.set()

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None:
        self.disconnected.append((peer.name, reason))
        self._changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not is_true():
                self._changed.clear()
                await self._changed.wait()


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
            rng=Random(seed),
            settings=settings,
        )
        self.endpoint = self.network.bind()


@asynccontextmanager
async def running(*networks: Network) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(network.run()) for network in networks]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


def at(node: Node) -> dict[str, Sequence[Endpoint]]:
    """Where others dial it."""
    assert node.endpoint is not None
    return {node.name: [node.endpoint]}


@pytest.mark.asyncio
async def test_two_networks_exchange_votes_in_their_order(identities: dict[str, Identity]) -> None:
    one = Node(identities["v1"], seed=1)
    two = Node(identities["v2"], at(one), seed=2)

    async with running(one.network, two.network):
        await one.recorder.until(lambda: bool(one.recorder.connected))
        await two.recorder.until(lambda: bool(two.recorder.connected))
        two.network.send(one.name, VoteMessage(make_vote(5)))
        one.network.broadcast(VoteMessage(make_vote(6)))
        await one.recorder.until(lambda: len(one.recorder.messages) == 1)
        await two.recorder.until(lambda: len(two.recorder.messages) == 1)

    assert one.recorder.messages == [("v2", VoteMessage(make_vote(5)))]
    assert two.recorder.messages == [("v1", VoteMessage(make_vote(6)))]
