"""The chain at a glance, and whether it goes on."""

import pytest

from ctt_state.units import Ms
from tests.rpc_world import RpcWorld, served

pytestmark = pytest.mark.asyncio


async def test_the_status_names_where_consensus_stands() -> None:
    async with served() as node:
        status = await node.call("ctt_chainStatus")
        assert (status["height"], status["epoch"], status["view"], status["validators"]) == (1, 0, 1, 1)
        assert status["blockPeriodMs"] == node.world.parameters.block_period_ms


@pytest.mark.parametrize(("late_ms", "finality"), [(-5_001, "live"), (5_000, "live"), (5_001, "stalled")])
async def test_finality_stalls_when_no_new_block_becomes_final(
    monkeypatch: pytest.MonkeyPatch, late_ms: int, finality: str
) -> None:
    """Without new blocks there is no lie about the old ones: they stay readable, and the status says since when."""
    async with served() as node:
        head_ms = node.world.head.block.header.timestamp_ms
        monkeypatch.setattr(RpcWorld, "now_ms", lambda _: Ms(head_ms + late_ms))
        status = await node.call("ctt_chainStatus")
        assert status["finality"] == finality
        assert status["since"] == (head_ms if finality == "stalled" else None)
        assert status["timeMs"] == head_ms
