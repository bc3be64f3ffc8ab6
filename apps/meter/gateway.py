"""The meter gateway: sources, outbox and sender joined, until it is stopped or its files have been read and sent."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Final

from apps.meter import metrics, mqtt
from apps.meter.intake import Meter, Tally
from apps.meter.outbox import Counts, Outbox, OutboxFailed
from apps.meter.reading import format_time
from apps.meter.sender import Sender
from apps.meter.settings import Settings
from apps.meter.sources import Source, telegrams

STATUS_S_MIN, STATUS_S_MAX = 1.0, 60.0
POLL_S: Final = 0.2
METRICS_S_MAX: Final = 5.0


class Gateway:
    """One key's meters, from their sources to the chain. `tell` shows a person a line."""

    def __init__(
        self, settings: Settings, outbox: Outbox, sender: Sender, tell: Callable[[str], None]
    ) -> None:
        self._settings, self._outbox, self._sender, self._tell = settings, outbox, sender, tell
        self._tally = Tally()
        self._troubles: dict[str, str] = {}  # by source
        self._meters = [self._make_meter(number) for number in range(len(settings.meters))]

    def _make_meter(self, number: int) -> Meter:
        source = self._settings.meters[number].source
        return Meter(
            self._outbox,
            self._settings.meters[number].prosumer,
            self._tally,
            slot_s=self._settings.slot_s,
            behind_s=None if source and source.kind == "file" else self._settings.behind_s,
            standard_offset=timedelta(hours=self._settings.standard_offset_h),
            on_taken=self._sender.wake,
        )

    async def run(self, metrics_port: int | None = None) -> None:
        """Until SIGTERM or SIGINT; with files alone until all that they say is settled. Raises, in a group:
        OutboxMismatch, OSError."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with ExitStack() as stack:
            if metrics_port is not None:
                stack.enter_context(metrics.served(metrics_port, self._state_elsewhere()))
            async with asyncio.TaskGroup() as group:
                forever = [
                    group.create_task(work) for work in (self._sender.run(), self._tell_often(), stop.wait())
                ]
                reading = group.create_task(self._read())
                await _first(forever[-1], reading)
                self._flush()
                settled = group.create_task(self._until_settled())
                await _first(forever[-1], settled)
                for task in (*forever, reading, settled):
                    task.cancel()
        self._tell(self.status())

    # --- sources ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        listeners = []
        async with asyncio.TaskGroup() as group:
            for each, meter in zip(self._settings.meters, self._meters, strict=True):
                if each.source is None:
                    listeners.append(mqtt.Listener(meter, each.tree, each.topic))
                else:
                    group.create_task(self._read_stream(meter, each.source))
            if self._settings.broker is not None and listeners:
                group.create_task(
                    mqtt.listen(self._settings.broker, listeners, partial(self._on_state, "mqtt"))
                )

    async def _read_stream(self, meter: Meter, source: Source) -> None:
        async for telegram in telegrams(source, partial(self._on_state, str(source))):
            meter.telegram(telegram, str(source))

    def _on_state(self, source: str, trouble: str) -> None:
        self._troubles[source] = trouble

    def _flush(self) -> None:
        try:
            for meter in self._meters:
                meter.flush()
        except OutboxFailed as fault:
            self._tally.full = str(fault)

    async def _until_settled(self) -> None:
        while self._outbox.counts().waiting:
            await asyncio.sleep(POLL_S)

    # --- what it says -----------------------------------------------------------------------------------------------

    def _state_elsewhere(self) -> Callable[[], metrics.State]:
        """For another thread: metrics have one of their own."""
        loop = asyncio.get_running_loop()
        return lambda: asyncio.run_coroutine_threadsafe(self._state(), loop).result(METRICS_S_MAX)

    async def _state(self) -> metrics.State:
        return metrics.State(self._tally, self._outbox.counts(), self._sender.health)

    async def _tell_often(self) -> None:
        """Soon after the beginning, and then no more often than is read."""
        shown, pause_s = "", STATUS_S_MIN
        while True:
            if (line := self.status()) != shown:
                self._tell(line)
                shown = line
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, STATUS_S_MAX)

    def status(self) -> str:
        """Where the registers stand, what waits, what was refused, and what is wrong."""
        tally, counts = self._tally, self._outbox.counts()
        parts = [_registers(tally), _counts(counts)]
        if refused := sum(tally.refused.values()):
            reasons = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.refused.items()))
            parts.append(f"{refused} not passed on ({reasons}), the last: {tally.last_refusal}")
        if counts.refused:
            ((_, reason),) = self._outbox.refusals(1)
            parts.append(f"{counts.refused} refused by the chain, the last: {reason}")
        if tally.full:
            parts.append(f"TAKES NOTHING MORE: {tally.full}")
        parts += filter(None, (*self._troubles.values(), self._sender.health.trouble))
        return "; ".join(parts)


def _registers(tally: Tally) -> str:
    if tally.last is None:
        return "no reading yet"
    figures = (f"{wh // 1_000}.{wh % 1_000:03d} kWh" for wh in (tally.last.import_wh, tally.last.export_wh))
    return "{} in, {} out at {}".format(*figures, format_time(tally.last.time_ms))


def _counts(counts: Counts) -> str:
    return f"{counts.final} on the chain, {counts.waiting} waiting"


async def _first(*tasks: "asyncio.Task[object]") -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
