"""The pulse tells how late the event loop is, and where it stands still."""

import asyncio
import time
from contextlib import suppress

import pytest

from ctt_state.units import Hash
from node.pulse import BEAT_S, BLOCKS_KEPT, PROPOSALS_KEPT, Finality, Pulse


async def beat(pulse: Pulse, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(pulse.run(), seconds)


def test_nothing_is_late_before_the_first_beat() -> None:
    lag = Pulse().late.times()
    assert (lag.count, lag.p50_ms, lag.p99_ms, lag.max_ms) == (0, 0, 0, 0)


@pytest.mark.asyncio
async def test_what_holds_the_loop_shows() -> None:
    pulse = Pulse()

    async def hold() -> None:
        await asyncio.sleep(4 * BEAT_S)
        time.sleep(0.3)  # noqa: ASYNC251  the loop stands still on purpose

    await asyncio.gather(beat(pulse, 12 * BEAT_S), hold())
    lag = pulse.late.times()
    assert 200 <= lag.max_ms
    assert lag.p50_ms < lag.max_ms
    assert 3 <= lag.count <= 12


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


def test_finality_is_from_the_first_proposal_to_the_certificate() -> None:
    finality = Finality()
    a, b = (Hash(bytes([each]) * 32) for each in (1, 2))
    finality.propose(a, 100)
    finality.propose(b, 120)
    finality.propose(a, 130)
    finality.finalize(a, 150)
    finality.finalize(a, 190)
    times = finality.took.times()
    assert (times.count, times.p50_ms, times.max_ms) == (1, 50, 50)


def test_proposals_that_never_become_final_are_forgotten() -> None:
    finality = Finality()
    for number in range(2 * BLOCKS_KEPT):
        finality.propose(Hash(number.to_bytes(32, "big")), number)
    assert len(finality._proposed_ms) == PROPOSALS_KEPT
    for number in range(2 * BLOCKS_KEPT):
        finality.finalize(Hash(number.to_bytes(32, "big")), 2 * BLOCKS_KEPT)
    assert finality.took.times().count == PROPOSALS_KEPT
