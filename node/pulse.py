"""The event loop's pulse: how late the loop comes to what is due, whatever keeps it.

Consensus shares the loop with clients and peers, so this is what their load may cost it. A loop that stands still
cannot tell of it; a thread beside it does, with the place where it stands.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import Final

BEAT_S: Final = 0.05
BEATS_KEPT: Final = 1_200  # a minute
STANDSTILL_S: Final = 1.0  # above it the log has the loop's stack, once a standstill

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the beats of the last minute were, in ms."""

    beats: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Pulse:
    """One event loop's. `run` beats for ever."""

    def __init__(self) -> None:
        self._late_ms: deque[float] = deque(maxlen=BEATS_KEPT)
        self._last = 0.0

    def lag(self) -> Lag:
        late = sorted(self._late_ms)
        if not late:
            return Lag(0, 0.0, 0.0, 0.0)
        return Lag(len(late), late[len(late) // 2], late[(len(late) - 1) * 99 // 100], late[-1])

    async def run(self) -> None:
        """Cancel it to end it."""
        self._last = time.monotonic()
        over = threading.Event()
        watch = threading.Thread(
            target=self._watch, args=(over, threading.get_ident()), name="pulse", daemon=True
        )
        watch.start()
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                now = time.monotonic()
                self._late_ms.append(max(0.0, (now - self._last - BEAT_S) * 1_000))
                self._last = now
        finally:
            over.set()

    def _watch(self, over: threading.Event, loop_thread: int) -> None:
        told = 0.0
        while not over.wait(STANDSTILL_S / 2):
            last = self._last
            if last != told and time.monotonic() - last > STANDSTILL_S:
                told = last
                frame = sys._current_frames().get(loop_thread)
                stack = "".join(traceback.format_stack(frame)) if frame else "(unknown)\n"
                log.warning(
                    "the event loop has stood still for over %g s at\n%s", STANDSTILL_S, stack.rstrip()
                )
