"""What waits to be sent to one peer: the most urgent first, and never more than so many bytes.

A frame that has begun to leave is finished before another: frames do not interleave.
"""

from collections import deque
from enum import IntEnum
from typing import Final

from p2p.framing import FRAME_BYTES_MAX
from p2p.messages import Priority

QUEUE_BYTES_MAX: Final = FRAME_BYTES_MAX


class Outcome(IntEnum):
    """What became of a frame."""

    QUEUED = 0
    DROPPED = 1
    OVERFLOW = 2


class Outbox:
    """Frames by priority."""

    __slots__ = ("_begun", "_bytes_max", "_queues", "dropped", "size")

    def __init__(self, bytes_max: int = QUEUE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._queues: tuple[deque[bytes], ...] = tuple(deque() for _ in Priority)
        self._begun = memoryview(b"")  # what is left of the frame that is leaving
        self.size = 0  # bytes that wait
        self.dropped = 0  # frames of transactions

    def put(self, frame: bytes, priority: Priority) -> Outcome:
        """When it does not fit, transactions give way, first those that wait longest, or are not queued at all."""
        if self.size + len(frame) > self._bytes_max:
            if priority is Priority.TRANSACTIONS:
                self.dropped += 1
                return Outcome.DROPPED
            self._drop_transactions(self.size + len(frame) - self._bytes_max)
            if self.size + len(frame) > self._bytes_max:
                return Outcome.OVERFLOW
        self._queues[priority].append(frame)
        self.size += len(frame)
        return Outcome.QUEUED

    def take(self, bytes_max: int) -> bytes:
        """The next bytes to send, at most so many; none if nothing waits."""
        taken: list[bytes | memoryview] = []
        left = bytes_max
        while left and (self._begun or self._begin()):
            taken.append(self._begun[:left])
            self._begun = self._begun[left:]
            left -= len(taken[-1])
        self.size -= bytes_max - left
        return b"".join(taken)

    @property
    def is_within_frame(self) -> bool:
        """Whether a part of a frame has been taken and its rest has not."""
        return bool(self._begun)

    def _begin(self) -> bool:
        for queue in self._queues:
            if queue:
                self._begun = memoryview(queue.popleft())
                return True
        return False

    def _drop_transactions(self, bytes_min: int) -> None:
        queue = self._queues[Priority.TRANSACTIONS]
        while queue and bytes_min > 0:
            frame = queue.popleft()
            bytes_min -= len(frame)
            self.size -= len(frame)
            self.dropped += 1
