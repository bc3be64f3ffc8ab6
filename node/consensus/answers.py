"""How often a peer is answered: one that asks all the time costs a bounded share."""

from typing import Final

from node.consensus.events import Source

ANSWERS_PER_SECOND_MAX: Final = 5
SOURCES_MAX: Final = 256
ONE_SECOND_MS: Final = 1_000


class AnswerBudget:
    """So many answers a peer in each second of the monotonic clock. With too many peers the counts begin anew."""

    def __init__(self) -> None:
        self._counts: dict[Source, tuple[int, int]] = {}  # second, answers given in it

    def take(self, source: Source, mono_ms: int) -> bool:
        """Whether the peer may be answered now; then it counts."""
        second = mono_ms // ONE_SECOND_MS
        counted_in, count = self._counts.get(source, (second, 0))
        count = count if counted_in == second else 0
        if count >= ANSWERS_PER_SECOND_MAX:
            return False
        if source not in self._counts and len(self._counts) >= SOURCES_MAX:
            self._counts.clear()
        self._counts[source] = (second, count + 1)
        return True
