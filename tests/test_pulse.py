"""The pulse tells how late the event loop is, and where it stands still."""

import asyncio
import time
from contextlib import suppress

import pytest

from node.pulse import BEAT_S, Pulse


async def beat(pulse: Pulse, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(pulse.run(), seconds)


def test_nothing_is_late_before_the_first_beat() -> None:
    lag = Pulse().lag()
    assert (lag.beats, lag.p50_ms, lag.p99_ms, lag.max_ms) == (0, 0, 0, 0)


@pytest.mark.asyncio
async def test_what_holds_the_loop_shows() -> None:
    pulse = Pulse()

    async def hold() -> None:
        await asyncio.sleep(4 * BEAT_S)
        time.sleep(0.3)  # noqa: ASYNC251  the loop stands still on purpose

    await asyncio.gather(beat(pulse, 12 * BEAT_S), hold())
    lag = pulse.lag()
    assert 200 <= lag.max_ms
    assert lag.p50_ms < lag.max_ms
    assert 3 <= lag.beats <= 12


@pytest.mark.asyncio
async def test_a_standstill_is_told_once_with_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.pulse.STANDSTILL_S", 0.1)

    async def stand_still_here() -> None:
        await asyncio.sleep(BEAT_S)
        time.sleep(0.5)  # noqa: ASYNC251  the loop stands still on purpose

    await asyncio.gather(beat(Pulse(), 0.7), stand_still_here())
    told = [record.getMessage() for record in caplog.records if "stood still" in record.getMessage()]
    assert len(told) == 1
    assert "stand_still_here" in told[0]
