"""How much may come in a second: a bucket of tokens that time fills again."""

from typing import Final

_MILLI: Final = 1_000


class Budget:
    """Holds at most what comes in one second, and begins full. Whole numbers: tokens are counted in thousandths."""

    __slots__ = ("_at_ms", "_left_milli", "per_second")

    def __init__(self, per_second: int, now_ms: int) -> None:
        self.per_second = per_second
        self._left_milli = per_second * _MILLI
        self._at_ms = now_ms

    def take(self, count: int, now_ms: int) -> bool:
        """Whether there is enough; if not, nothing is taken."""
        self._fill(now_ms)
        if self._left_milli < count * _MILLI:
            return False
        self._left_milli -= count * _MILLI
        return True

    def spend(self, count: int, now_ms: int) -> None:
        """Takes what has come already, be it more than there is: the debt is paid by the time that follows."""
        self._fill(now_ms)
        self._left_milli -= count * _MILLI

    def wait_ms(self, now_ms: int) -> int:
        """Until no debt is left, rounded up."""
        self._fill(now_ms)
        return -(min(self._left_milli, 0) // self.per_second)

    def is_spent(self, now_ms: int) -> bool:
        """Whether not even one is left."""
        self._fill(now_ms)
        return self._left_milli < _MILLI

    def _fill(self, now_ms: int) -> None:
        gained = max(now_ms - self._at_ms, 0) * self.per_second
        self._left_milli = min(self._left_milli + gained, self.per_second * _MILLI)
        self._at_ms = now_ms
