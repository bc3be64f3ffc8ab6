"""How quick the node is: how late its event loop comes to what is due, and how soon proposals become final.

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

from ctt_state.units import Hash

BEAT_S: Final = 0.05
BEATS_KEPT: Final = 1_200  # a minute
BLOCKS_KEPT: Final = 180
PROPOSALS_KEPT: Final = 64  # without a certificate
STANDSTILL_S: Final = 1.0  # above it the log has the loop's stack, once a standstill

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """How long what happened lately took."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Lately:
    """How long one thing took each time: the latest `kept` of them, and count and sum of all since the start."""

    def __init__(self, kept: int) -> None:
        self._took_ms: deque[float] = deque(maxlen=kept)
        self.count = 0
        self.sum_ms = 0.0

    def add(self, took_ms: float) -> None:
        self._took_ms.append(took_ms)
        self.count += 1
        self.sum_ms += took_ms

    def times(self) -> Times:
        """Of the latest; all zero of none."""
        ordered = sorted(self._took_ms) or [0.0]
        p99 = ordered[(len(ordered) - 1) * 99 // 100]
        return Times(len(self._took_ms), ordered[len(ordered) // 2], p99, ordered[-1])


class Finality:
    """From a block's proposal, made or received here, to its certificate."""

    def __init__(self) -> None:
        self._proposed_ms: dict[Hash, int] = {}  # of blocks that are not final yet
        self.took = Lately(BLOCKS_KEPT)

    def propose(self, block_hash: Hash, now_ms: int) -> None:
        self._proposed_ms.setdefault(block_hash, now_ms)
        if len(self._proposed_ms) > PROPOSALS_KEPT:
            del self._proposed_ms[next(iter(self._proposed_ms))]

    def finalize(self, block_hash: Hash, now_ms: int) -> None:
        proposed_ms = self._proposed_ms.pop(block_hash, None)
        if proposed_ms is not None:
            self.took.add(now_ms - proposed_ms)


class Pulse:
    """One event loop's. `run` beats for ever."""

    def __init__(self) -> None:
        self.late = Lately(BEATS_KEPT)
        self._last = 0.0

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
                self.late.add(max(0.0, (now - self._last - BEAT_S) * 1_000))
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
                    "the event loop has stood still for over %(seconds)g s at\n%(stack)s",
                    {"seconds": STANDSTILL_S, "stack": stack.rstrip()},
                )
