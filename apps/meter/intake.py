"""From what a source brings to the outbox: checked, thinned out to one reading a slot, counted.

A slot ends on the grid, at a full quarter of an hour of UTC by default, and its reading is the last one at or before
its end (docs/SETTLEMENT.md, rule 6). The first reading of a meter is taken at once: it is the baseline.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from apps.meter import dsmr
from apps.meter.outbox import Outbox, OutboxFailed, Taken
from apps.meter.reading import ReadingRefused, Registers, check_clock, check_follows
from ctt_state.units import Address, Ms

SLOT_S: Final = 900
AHEAD_MS_MAX: Final = 60_000  # as on the chain
BEHIND_S: Final = 300


@dataclass
class Tally:
    """What came, for people and metrics."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_refusal: str = ""
    last: Registers | None = None
    full: str = ""  # why the outbox takes nothing more


class Meter:
    """One meter's readings on their way into the outbox. `behind_s` is how old they may be, None as old as they are."""

    def __init__(
        self,
        outbox: Outbox,
        prosumer: Address,
        tally: Tally,
        *,
        slot_s: int = SLOT_S,
        behind_s: int | None = BEHIND_S,
        standard_offset: timedelta = dsmr.STANDARD_OFFSET,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.prosumer = prosumer
        self._outbox, self._tally = outbox, tally
        self._slot_ms, self._behind_s = slot_s * 1_000, behind_s
        self._standard_offset, self._on_taken = standard_offset, on_taken
        self._last = outbox.last(prosumer)
        self._held: Taken | None = None

    def telegram(self, raw: bytes, source: str) -> None:
        """A P1 telegram; a meter without a clock speaks now."""
        try:
            telegram = dsmr.parse(raw, self._standard_offset)
        except ReadingRefused as refusal:
            self.refuse(refusal, source)
        else:
            time_ms = now_ms() if telegram.time_ms is None else telegram.time_ms
            self.registers(Registers(time_ms, telegram.import_wh, telegram.export_wh), raw, source)

    def registers(self, registers: Registers, raw: bytes, source: str) -> None:
        """Takes them, or counts why not. The same again is nothing new."""
        tally, now = self._tally, now_ms()
        if registers == self._last:
            return
        try:
            behind_ms_max = now if self._behind_s is None else self._behind_s * 1_000
            check_clock(registers.time_ms, now, ahead_ms_max=AHEAD_MS_MAX, behind_ms_max=behind_ms_max)
            check_follows(self._last, registers)
            self._take(Taken(self.prosumer, registers, source, raw, now))
        except ReadingRefused as refusal:
            self.refuse(refusal, source)
        except OutboxFailed as fault:
            tally.full = str(fault)
        else:
            tally.accepted, tally.last, tally.full = tally.accepted + 1, registers, ""

    def refuse(self, refusal: ReadingRefused, source: str) -> None:
        self._tally.refused[refusal.kind] += 1
        self._tally.last_refusal = f"{source}: {refusal}"

    def flush(self) -> None:
        """What is held back for the slot's end. Raises: OutboxFailed."""
        if self._held is not None:
            self._store([self._held])
            self._held = None

    def _take(self, taken: Taken) -> None:
        """Raises: OutboxFailed, and all is as before."""
        time_ms, due = taken.registers.time_ms, []
        if self._held and self._slot_end(self._held.registers.time_ms) < time_ms:
            due.append(self._held)
        is_due = self._last is None or self._slot_end(time_ms) == time_ms
        self._store([*due, *([taken] if is_due else [])])
        self._last, self._held = taken.registers, None if is_due else taken

    def _slot_end(self, time_ms: Ms) -> int:
        return -(-time_ms // self._slot_ms) * self._slot_ms if self._slot_ms else time_ms

    def _store(self, due: list[Taken]) -> None:
        if due:
            self._outbox.take(due)
            self._on_taken()


def now_ms() -> Ms:
    return Ms(time.time_ns() // 1_000_000)
