"""Rows of the database that were read or written last, as bytes: half the memory of decoded records, and nothing
that the garbage collector has to walk."""

from collections.abc import Callable, Iterable


class RowCache:
    """Rows in two generations: when the young one is full it becomes the old one, and what nobody asked for since is
    gone. So never more than twice `limit` rows, and no bookkeeping at a hit."""

    def __init__(self, read: Callable[[bytes], bytes | None], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._young: dict[bytes, bytes | None] = {}
        self._old: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The row, None when there is none."""
        if key in self._young:
            return self._young[key]
        data = self._old[key] if key in self._old else self._read(key)
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[key] = data
        return data

    def update(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Takes over rows that were written."""
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young.update(rows)
