"""Rows of the database that were read or written last, as bytes: half the memory of decoded records, and nothing
that the garbage collector has to walk."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

_UNKNOWN: Final = b"?"  # this very object; None means that there is no such row


class RowCache:
    """Rows in two generations: when the young one is full it becomes the old one, and what nobody asked for since is
    gone. So never more than twice `limit` rows and those of one block, and no bookkeeping at a hit.

    Several threads may `get` at once: each looks into a generation once, since another may change it in between. While
    rows are updated nobody may ask for these very rows; for any others they may."""

    def __init__(self, read: Callable[[bytes], bytes | None], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._young: dict[bytes, bytes | None] = {}
        self._old: dict[bytes, bytes | None] = {}
        self._changing = Lock()

    def get(self, key: bytes) -> bytes | None:
        """The row, None when there is none."""
        data = self._young.get(key, _UNKNOWN)
        if data is not _UNKNOWN:
            return data
        data = self._old.get(key, _UNKNOWN)
        if data is _UNKNOWN:
            data = self._read(key)
        with self._changing:
            self._make_room()
            self._young[key] = data
        return data

    def update(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Takes over rows that were written."""
        with self._changing:
            self._make_room()
            self._young.update(rows)

    def _make_room(self) -> None:
        """Without the lock one thread could throw away a generation into which another has just put its update."""
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
