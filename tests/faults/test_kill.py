"""P1 durability: kill -9 at any moment under load loses no block that anyone was told of.

`KILLS=500 pytest tests/faults/test_kill.py` for more than the default.
"""

import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.workload import bench_key
from ctt_state.transaction import sign_transaction
from ctt_state.units import hex_of
from tests.live_node import GENESIS, LiveNode

KILLS = int(os.environ.get("KILLS", "20"))
TREASURER = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
CHAIN_ID = 7788


class Load(threading.Thread):
    """Sends transfers and remembers every block that the node told of, until it is stopped or the node is gone."""

    def __init__(self, node: LiveNode, told: dict[int, str]) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._told = told
        self._over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        with suppress(OSError, AssertionError, ValueError):  # what a killed node looks like
            nonce = int(self._node.call("eth_getTransactionCount", account(), "latest"), 16)
            while not self._over.is_set():
                block = self._node.call("eth_getBlockByNumber", "latest", False)
                self._told[int(block["number"], 16)] = block["hash"]
                for _ in range(5):
                    self._node.call("eth_sendRawTransaction", transfer(nonce))
                    nonce += 1
                    self.sent += 1

    def stop(self) -> None:
        self._over.set()
        self.join(timeout=15)


def account() -> str:
    return "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def transfer(nonce: int) -> str:
    to = bench_key("kill", "receiver", nonce)[:20]
    raw = sign_transaction(TREASURER, chain_id=CHAIN_ID, nonce=nonce, gas_limit=21_000, to=to, value=1)
    return hex_of(raw)


def verify(directory: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "node.cli.main", "verify", "--dir", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, cwd=GENESIS.parent, check=False)


@pytest.mark.timeout(600)
def test_no_block_that_was_told_of_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(7)
    told: dict[int, str] = {}
    sent = 0
    node = LiveNode(tmp_path / "node")
    for _ in range(KILLS):
        load = Load(node, told)
        load.start()
        time.sleep(chance.uniform(0.05, 0.9))
        node.kill()
        load.stop()
        sent += load.sent
        node.restart()
        check_told(node, told)
    assert node.stop() == 0

    checked = verify(tmp_path / "node")
    assert checked.returncode == 0, checked.stderr
    assert len(told) >= KILLS
    assert sent >= KILLS


def check_told(node: LiveNode, told: dict[int, str]) -> None:
    """The newest blocks that were told of are still there, each under its hash."""
    for height in sorted(told)[-5:]:
        block: dict[str, Any] | None = node.call("eth_getBlockByNumber", hex(height), False)
        assert block is not None, f"block {height} was told of and is gone"
        assert block["hash"] == told[height]
