"""Hosts of a network of their own, as the kernel makes them: one namespace each, on one bridge, without proxies.

This machine's own network is left alone, and cannot be reached from inside. A cut is silent, as a broken cable is:
neither side is told, so what a program notices it notices by itself. Needs root.
"""

import asyncio
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Final, Self

import pytest

from tests.network.proxy import Streams

MTU: Final = 1_500
INTERFACE: Final = "eth0"
BRIDGE: Final = "bridge"
NOBODYS_MAC: Final = "02:00:00:00:00:ff"

_CLONE_NEWNET: Final = 0x4000_0000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NUMBERS: Final = itertools.count(1)


@cache
def why_not() -> str | None:
    """Why there can be no namespaces here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (iproute2)"
    try:
        with Namespaces(1):
            return None
    except (subprocess.CalledProcessError, OSError) as fault:
        return f"the kernel makes no network namespaces here: {getattr(fault, 'stderr', fault)}"


def require() -> None:
    """Skips the test where there can be none."""
    if reason := why_not():
        pytest.skip(reason)


class Namespaces:
    """`count` hosts, numbered from 0; between `with` and its end."""

    def __init__(self, count: int, *, mtu: int = MTU) -> None:
        self._prefix = f"ctt-{os.getpid()}-{next(_NUMBERS)}"
        self._count = count
        self._mtu = mtu

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def name(self, host: int) -> str:
        return f"{self._prefix}-{host}"

    def address(self, host: int) -> str:
        """On the bridge; besides, each host has its own 127.0.0.1."""
        return f"10.77.0.{host + 1}"

    def command(self, host: int, *command: str) -> list[str]:
        """The command as it is run on the host. `ip` becomes it, so that its process id is the command's."""
        return ["ip", "netns", "exec", self.name(host), *command]

    # Sockets of this process that live on a host

    def make_socket(self, host: int) -> socket.socket:
        """A new TCP socket. Raises: OSError."""
        made: list[socket.socket | OSError] = []

        def make() -> None:
            try:
                enter_namespace(self.name(host))
                made.append(socket.socket())
            except OSError as fault:
                made.append(fault)

        # A thread stays where it is, so it is used once.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        result = made[0]
        if isinstance(result, OSError):
            raise result
        result.setblocking(False)
        return result

    def listen(self, host: int, address: str) -> tuple[socket.socket, int]:
        """A socket that listens on the host, and its port. Raises: OSError."""
        listener = self.make_socket(host)
        listener.bind((address, 0))
        listener.listen()
        return listener, listener.getsockname()[1]

    async def connect(self, host: int, address: str, port: int) -> Streams:
        """A connection that the host opens. Raises: OSError."""
        connection = self.make_socket(host)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection)

    # What a test does to the network

    def unplug(self, host: int) -> None:
        """The host's cable comes off, at the other end."""
        run_ip("-n", self._hub, "link", "set", self._port(host), "down")

    def plug(self, host: int) -> None:
        run_ip("-n", self._hub, "link", "set", self._port(host), "up")

    def cut(self, sender: int, receiver: int) -> None:
        """What `sender` sends to `receiver` gets lost; the other direction stays."""
        # To a network card that nobody has. A blackhole route would tell the sender: connect() fails with EINVAL.
        self._set_neighbour(sender, receiver, NOBODYS_MAC)

    def mend(self, sender: int, receiver: int) -> None:
        """Ends `cut`."""
        self._set_neighbour(sender, receiver, self._mac(receiver))

    def heal(self) -> None:
        """Ends every `unplug` and `cut`."""
        for host in range(self._count):
            self.plug(host)
            self._set_neighbours(host)

    # How it is made

    @property
    def _hub(self) -> str:
        return f"{self._prefix}-hub"

    def _port(self, host: int) -> str:
        return f"port{host}"

    def _mac(self, host: int) -> str:
        return f"02:00:00:00:01:{host:02x}"

    def _make(self) -> None:
        run_ip("netns", "add", self._hub)
        run_ip("-n", self._hub, "link", "add", BRIDGE, "type", "bridge")
        run_ip("-n", self._hub, "link", "set", BRIDGE, "up")
        for host in range(self._count):
            self._make_host(host)
        for host in range(self._count):
            self._set_neighbours(host)

    def _make_host(self, host: int) -> None:
        name, port, mtu = self.name(host), self._port(host), str(self._mtu)
        run_ip("netns", "add", name)
        cable = ("type", "veth", "peer", "name", port, "netns", self._hub)
        run_ip("link", "add", INTERFACE, "netns", name, "address", self._mac(host), *cable)
        run_ip("-n", self._hub, "link", "set", port, "master", BRIDGE, "mtu", mtu, "up")
        run_ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", INTERFACE)
        run_ip("-n", name, "link", "set", INTERFACE, "mtu", mtu, "up")
        run_ip("-n", name, "link", "set", "lo", "up")

    def _set_neighbours(self, host: int) -> None:
        """Written down rather than asked for, so that after a cut nobody waits for an answer to an old question."""
        for other in range(self._count):
            if other != host:
                self.mend(host, other)

    def _set_neighbour(self, host: int, other: int, mac: str) -> None:
        entry = (self.address(other), "lladdr", mac, "dev", INTERFACE, "nud", "permanent")
        run_ip("-n", self.name(host), "neighbour", "replace", *entry)

    def _remove(self) -> None:
        """The kernel removes what was in them; of those that were never made there is nothing to remove."""
        for name in [self._hub, *map(self.name, range(self._count))]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def enter_namespace(name: str) -> None:
    """Takes the calling thread there, for good. Raises: OSError."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def run_ip(*arguments: str) -> None:
    """Raises: subprocess.CalledProcessError with what it said."""
    command: Sequence[str] = ("ip", *arguments)
    subprocess.run(command, capture_output=True, text=True, check=True)
