"""How long consensus waits. All of it is local: a wrong value costs time, never safety (docs/PROTOCOL.md, C-9)."""

from dataclasses import dataclass
from typing import Final

BACK_OFF_MAX: Final = 3  # so that a chain goes on within 5 s after whatever made views fail has ended
BACK_OFF_VIEWS_MAX: Final = 3  # 1.5 ** 3 > 3


@dataclass(frozen=True, slots=True)
class Settings:
    """In ms. `period_ms` is the chain's; the others may differ from node to node."""

    period_ms: int
    delay_ms: int = 100  # one way between two validators, with what handling a message takes
    execute_ms_max: int = 300  # of a block
    retry_ms: int = 1_000  # between two sendings of what was perhaps lost
    skip_ms: int = 5_000  # a leader unheard for so long is not waited for
    standstill_ms: int = 3_000  # without a finalization, until everything above the last one is sent again
    status_ms: int = 1_000
    ahead_ms_max: int = 500  # how far a block's time may be ahead of our clock
    listen_ms: int = 0  # at the start, before the first vote: another process may be voting with our key
    guard_ms: int = 0  # of silence of our key after a restore; 0: the journal has all votes

    @property
    def build_ms(self) -> int:
        """What a leader executes transactions for, before it seals its block: so that neither it nor a validator on a
        slower machine, which has to do the same again, takes longer than a view has time for."""
        return self.execute_ms_max // 2

    @property
    def propose_ms(self) -> int:
        """From entering a view until its leader's proposal is overdue."""
        return self.period_ms + 2 * self.delay_ms + 67

    @property
    def notarize_ms(self) -> int:
        """From entering a view until it is given up."""
        return self.propose_ms + 2 * self.delay_ms + self.execute_ms_max


def back_off(wait_ms: int, views_without_finality: int, faulty: int) -> int:
    """The wait, half as long again for each view without finality beyond what faulty leaders explain, at most
    threefold. Without a quorum no view ends, so an outage does not lengthen it."""
    steps = min(max(views_without_finality - (faulty + 3), 0), BACK_OFF_VIEWS_MAX)
    factor: int = 3**steps
    return min(wait_ms * factor >> steps, wait_ms * BACK_OFF_MAX)
