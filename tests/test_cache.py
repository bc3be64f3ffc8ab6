"""The row cache: what it gives is what the database holds, it stays small, and what is asked for stays in it."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from node.cache import RowCache

Rows = dict[bytes, bytes | None]

keys = st.integers(0, 9).map(lambda number: bytes((number,)))
writes = st.dictionaries(keys, st.none() | st.binary(max_size=1), max_size=5)


class Disk:
    """Rows, and which were read."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.reads: list[bytes] = []

    def read(self, key: bytes) -> bytes | None:
        self.reads.append(key)
        return self.rows.get(key)


@settings(deadline=None)
@given(steps=st.lists(keys | writes, max_size=60), limit=st.integers(1, 12))
def test_a_row_is_never_an_old_one(steps: Sequence[bytes | Rows], limit: int) -> None:
    """Whatever was read, written, deleted and pushed out before: absence is remembered and forgotten alike."""
    disk = Disk()
    cache = RowCache(disk.read, limit)

    for step in steps:
        if isinstance(step, bytes):
            assert cache.get(step) == disk.rows.get(step)
        else:
            disk.rows.update(step)
            cache.update(step.items())

    for number in range(10):
        assert cache.get(bytes((number,))) == disk.rows.get(bytes((number,)))


def test_a_row_asked_for_again_and_again_is_read_once() -> None:
    """Through any number of generations; so is one that does not exist."""
    disk = Disk()
    cache = RowCache(disk.read, 10)

    for number in range(1_000):
        cache.get(b"often")
        cache.get(number.to_bytes(2, "big"))

    assert disk.reads.count(b"often") == 1


def test_what_nobody_asks_for_is_forgotten_after_two_generations() -> None:
    disk = Disk()
    cache = RowCache(disk.read, 10)
    cache.get(b"once")

    for number in range(20):
        cache.get(number.to_bytes(2, "big"))
    cache.get(b"once")

    assert disk.reads.count(b"once") == 2
    assert len(disk.reads) == 22


def test_a_written_row_is_not_read() -> None:
    disk = Disk()
    cache = RowCache(disk.read, 10)

    cache.update([(b"new", b"row"), (b"gone", None)])

    assert (cache.get(b"new"), cache.get(b"gone")) == (b"row", None)
    assert disk.reads == []


class Interrupted(bytes):
    """A key at each of whose looks another thread comes in between and fills the cache."""

    cache: RowCache

    def __hash__(self) -> int:
        for number in range(3):
            self.cache.get(number.to_bytes(2, "big"))
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def test_threads_may_ask_at_once() -> None:
    """Between any two looks of one, others may have changed the generations."""
    cache = Interrupted.cache = RowCache(lambda key: b"row of " + key, 3)
    for _ in range(10):
        cache.get(b"wanted")
        assert cache.get(Interrupted(b"wanted")) == b"row of wanted"
