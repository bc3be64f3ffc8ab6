"""A terminal that is taken over for a while: a screen of its own, and keys as they are pressed.

However that ends, the terminal is as it was. While it is suspended (Ctrl-Z) it belongs to the shell.
"""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.live import Live

FRAMES_PER_SECOND: Final = 4
ARROWS: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}


class Terminal:
    """Shows what `draw` gives, and hands each key to `on_key`; there are none when stdin is no terminal."""

    def __init__(
        self, console: Console, draw: Callable[[], RenderableType], on_key: Callable[[str], None]
    ) -> None:
        self._console = console
        self._draw = draw
        self._on_key = on_key
        self._live: Live | None = None
        self._mode: list[Any] | None = None  # of the terminal before
        self._pressed = asyncio.Event()

    async def show(self) -> None:
        """Until it is cancelled."""
        with self._taken():
            while True:
                if self._live is not None:
                    self._live.update(self._draw(), refresh=True)
                self._pressed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1 / FRAMES_PER_SECOND):
                        await self._pressed.wait()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        try:
            self._take()
            yield
        finally:
            self._give_back()
            loop.remove_signal_handler(signal.SIGTSTP)

    def _suspend(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _take(self) -> None:
        if has_keys():
            descriptor = sys.stdin.fileno()
            self._mode = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor, termios.TCSANOW)
            asyncio.get_running_loop().add_reader(descriptor, self._read)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live.start()

    def _give_back(self) -> None:
        """Also of a terminal that is gone."""
        live, self._live = self._live, None
        mode, self._mode = self._mode, None
        with suppress(OSError):
            if live is not None:
                live.stop()
        if mode is not None:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            with suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, mode)

    def _read(self) -> None:
        try:
            data = os.read(sys.stdin.fileno(), 64)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        elif data.startswith(b"\x1b"):
            if data in ARROWS:
                self._on_key(ARROWS[data])
        else:
            for key in data.decode(errors="replace"):
                self._on_key(key)
        self._pressed.set()


def is_ours(console: Console) -> bool:
    """Whether it shows to a terminal that no other job of the shell's has now."""
    return console.is_terminal and _is_foreground(sys.stdout.fileno())


def has_keys() -> bool:
    """Whether standard input is a terminal that no other job of the shell's has now."""
    return sys.stdin is not None and sys.stdin.isatty() and _is_foreground(sys.stdin.fileno())


def _is_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return True  # it is no shell's at all
