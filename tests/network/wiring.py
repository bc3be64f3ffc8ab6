"""How the nodes of a test's network reach one another: through proxies, or each from a host of its own."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from itertools import permutations
from types import TracebackType
from typing import Final, Protocol, Self

import pytest

from tests.live_node import free_port
from tests.network import namespaces
from tests.network.namespaces import MTU, Namespaces
from tests.network.proxy import LAN, Conditions, Direction, Proxy, Tap, dialler

LOOPBACK: Final = "127.0.0.1"
P2P_PORT: Final = 30303  # on a host of one's own
RPC_PORT: Final = 8545


class Wiring(Protocol):
    """Nodes are numbered from 0. An asynchronous context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def nodes(self) -> int: ...

    def command(self, node: int, *command: str) -> list[str]:
        """The command as it is run where the node is."""
        ...

    def listens_at(self, node: int) -> tuple[str, int]:
        """For peers: host and port."""
        ...

    def peer_address(self, node: int, peer: int) -> str:
        """host:port under which the node reaches the other."""
        ...

    def rpc_port(self, node: int) -> int:
        """At the loopback, as the node sees it."""
        ...

    def url(self, node: int) -> str:
        """Of its JSON-RPC, as this process sees it; no cut stands in the way."""
        ...

    def cut(self, sender: int, receiver: int) -> None:
        """Nothing gets from the one to the other, and nobody is told."""
        ...

    def mend(self, sender: int, receiver: int) -> None: ...


class ProxyWiring:
    """All on this machine; a proxy for every ordered pair of nodes."""

    def __init__(
        self, nodes: int, *, seed: int = 0, conditions: Conditions = LAN, tap: Tap | None = None
    ) -> None:
        self.nodes = nodes
        self._listens = [free_port() for _ in range(nodes)]
        self._rpc = [free_port() for _ in range(nodes)]
        self._stack = AsyncExitStack()
        self.proxies = {
            (node, peer): Proxy(
                dialler(LOOPBACK, self._listens[peer]),
                name=f"{node}-{peer}",
                seed=seed,
                conditions=conditions,
                tap=tap,
            )
            for node, peer in permutations(range(nodes), 2)
        }

    async def __aenter__(self) -> Self:
        for proxy in self.proxies.values():
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def command(self, node: int, *command: str) -> list[str]:
        return list(command)

    def listens_at(self, node: int) -> tuple[str, int]:
        return LOOPBACK, self._listens[node]

    def peer_address(self, node: int, peer: int) -> str:
        proxy = self.proxies[node, peer]
        return f"{proxy.host}:{proxy.port}"

    def rpc_port(self, node: int) -> int:
        return self._rpc[node]

    def url(self, node: int) -> str:
        return f"http://{LOOPBACK}:{self._rpc[node]}"

    def cut(self, sender: int, receiver: int) -> None:
        for direction, proxy in self._ways(sender, receiver):
            proxy.cut(direction)

    def mend(self, sender: int, receiver: int) -> None:
        for direction, proxy in self._ways(sender, receiver):
            proxy.heal(direction)

    def _ways(self, sender: int, receiver: int) -> Iterator[tuple[Direction, Proxy]]:
        """Bytes get there on connections of either's making."""
        yield Direction.FORWARD, self.proxies[sender, receiver]
        yield Direction.BACKWARD, self.proxies[receiver, sender]


class NamespaceWiring:
    """Each node on a host of its own; a proxy into each for JSON-RPC. Needs root: see `on_hosts`."""

    def __init__(self, nodes: int, *, mtu: int = MTU) -> None:
        self.nodes = nodes
        self.hosts = Namespaces(nodes, mtu=mtu)
        self._stack = AsyncExitStack()
        self._doors = [
            Proxy(partial(self.hosts.connect, node, LOOPBACK, RPC_PORT), name=str(node))
            for node in range(nodes)
        ]

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self.hosts)
        for door in self._doors:
            await self._stack.enter_async_context(door)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def command(self, node: int, *command: str) -> list[str]:
        return self.hosts.command(node, *command)

    def listens_at(self, node: int) -> tuple[str, int]:
        return self.hosts.address(node), P2P_PORT

    def peer_address(self, node: int, peer: int) -> str:
        return f"{self.hosts.address(peer)}:{P2P_PORT}"

    def rpc_port(self, node: int) -> int:
        return RPC_PORT

    def url(self, node: int) -> str:
        return f"http://{LOOPBACK}:{self._doors[node].port}"

    def cut(self, sender: int, receiver: int) -> None:
        self.hosts.cut(sender, receiver)

    def mend(self, sender: int, receiver: int) -> None:
        self.hosts.mend(sender, receiver)


def on_hosts(nodes: int) -> Wiring:
    """Skips the test where there can be none."""
    namespaces.require()
    return NamespaceWiring(nodes)


EVERY_WIRING: Final = (pytest.param(ProxyWiring, id="proxies"), pytest.param(on_hosts, id="namespaces"))
