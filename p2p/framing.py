"""Frames: four bytes of length, big-endian, one byte of kind, and the payload. The length counts kind and payload.

No I/O: bytes go in as they come, whole frames come out.
"""

from collections.abc import Iterator
from typing import Final

from p2p.errors import FrameSizeRefused

FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
LENGTH_BYTES: Final = 4


def encode_frame(kind: int, payload: bytes) -> bytes:
    """A payload that no frame can carry is our own mistake."""
    size = len(payload) + 1
    if size > FRAME_BYTES_MAX:
        raise AssertionError(f"frame of {size:,} bytes of kind {kind:#04x}")
    return size.to_bytes(LENGTH_BYTES, "big") + bytes((kind,)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames. It never holds more than one frame and what came with its end."""

    __slots__ = ("_buffer", "bytes_max")

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The kinds and payloads of the frames that are whole now.

        A length is refused when it is read, before what it announces has come. Raises: FrameSizeRefused, after the
        frames before the fault.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= LENGTH_BYTES:
                size = int.from_bytes(buffer[start : start + LENGTH_BYTES], "big")
                if not 1 <= size <= self.bytes_max:
                    raise FrameSizeRefused(size, self.bytes_max)
                body, end = start + LENGTH_BYTES, start + LENGTH_BYTES + size
                if len(buffer) < end:
                    break
                start = end
                yield buffer[body], bytes(buffer[body + 1 : end])
        finally:
            del buffer[:start]

    @property
    def is_between(self) -> bool:
        """Whether no frame has begun that has not ended."""
        return not self._buffer
