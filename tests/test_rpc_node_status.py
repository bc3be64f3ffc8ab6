"""What a node tells its operator of itself."""

import time
from pathlib import Path

import pytest

from node.node import CLIENT_VERSION
from node.pulse import BEAT_S, Times
from tests.live_node import LiveNode
from tests.rpc_world import served


@pytest.mark.asyncio
async def test_times_are_told_in_tenths_of_a_millisecond() -> None:
    async with served() as node:
        node.world.lag = Times(1_200, 0.04, 12.34, 250.0)
        node.world.finality_times = Times(180, 15, 40, 61)
        told = await node.call("ctt_nodeStatus")
    assert told["finalityMs"] == {"blocks": 180, "p50": 15, "p99": 40, "max": 61}
    assert told["loopLagMs"] == {"beats": 1_200, "p50": 0.0, "p99": 12.3, "max": 250.0}


def test_a_running_node_feels_its_pulse(tmp_path: Path) -> None:
    with LiveNode(tmp_path / "node") as node:
        time.sleep(5 * BEAT_S)
        while int(node.call("eth_blockNumber"), 16) < 3:
            time.sleep(BEAT_S)
        status = node.call("ctt_nodeStatus")
    assert status["clientVersion"] == CLIENT_VERSION
    assert status["loopLagMs"]["beats"] > 0
    assert status["finalityMs"]["blocks"] >= 2
    assert 0 <= status["finalityMs"]["p50"] <= status["finalityMs"]["max"]
    assert 0 <= status["loopLagMs"]["p50"] <= status["loopLagMs"]["p99"] <= status["loopLagMs"]["max"]
