"""What a node asks of its process before it opens anything, what it tells whoever started it, and how a program that
runs until it is told to stop ends."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from node.exits import Exit, Failure

OPEN_FILES_MIN: Final = 1_024
NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"  # where systemd listens for units of Type=notify


def prepare_process() -> None:
    """No core dumps, which would hold the consensus key; as many open files as the system grants.

    Raises: Failure (78) when those are too few for the database and the clients.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < OPEN_FILES_MIN:
        raise Failure(
            Exit.CONFIGURATION,
            f"open files {most}; need at least {OPEN_FILES_MIN}, better 4096 (ulimit -n 4096)",
        )


def tell_service_manager(state: str) -> None:
    """`READY=1` or `STOPPING=1` to systemd (sd_notify(3)); nothing without it, and nothing fails for want of it."""
    address = os.environ.get(NOTIFY_SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        manager.send(state.encode())


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Until it ends by itself, or SIGINT or SIGTERM come."""
    working = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    with suppress(asyncio.CancelledError):
        await working
