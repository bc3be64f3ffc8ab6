"""The cable between a node and its peers, which a development network cuts by a signal to see the others go on.

Cut, the node ends its sessions with peers, listens for none and dials none; its JSON-RPC answers as before. Mended, it
joins again.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)


class Cable:
    """Whole, until it is cut."""

    def __init__(self) -> None:
        self._whole = asyncio.Event()
        self._whole.set()
        self._running: asyncio.Task[None] | None = None

    def heed_signals(self) -> None:
        """SIGUSR1 cuts, SIGUSR2 mends, while the event loop runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.cut)
        loop.add_signal_handler(signal.SIGUSR2, self.mend)

    def cut(self) -> None:
        log.warning("cut off from the peers by a signal")
        self._whole.clear()
        if self._running is not None:
            self._running.cancel()

    def mend(self) -> None:
        log.info("with the peers again")
        self._whole.set()

    async def keep(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Runs while the cable is whole, anew after each cut, until it is cancelled itself or `run` ends."""
        while True:
            await self._whole.wait()
            self._running = asyncio.create_task(run())
            try:
                return await self._running
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
