"""The benchmarks run, small, and give the JSON that they promise. Their figures here mean nothing."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from apps.client import Client
from bench.throughput import Blocks, measure
from bench.workload import percentile
from tests.live_network import free_ports
from tests.live_node import GENESIS, LiveNode, free_port

STEPS = {"apply", "tree_and_roots", "commit", "publish", "total"}


def run(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=GENESIS.parent,
        timeout=100,
        check=False,
    )


def result(module: str, *arguments: object) -> Any:
    """The JSON that it prints."""
    done = run(module, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def check_load(load: dict[str, Any], transactions: int) -> None:
    """Everything sent was included, and was measured."""
    assert (load["accepted"], load["refused"], load["refusals"]) == (transactions, 0, {})
    assert load["included"] == transactions
    assert load["accepted_per_second"] > 0 and load["included_per_second"] > 0
    latency = load["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert load["transactions_per_block_max"] > 0
    assert set(load["block_interval_ms"]) == {"mean", "p99", "max", "blocks"}


def test_throughput_against_a_node(tmp_path: Path) -> None:
    """Twice on one chain: each run has meters of its own."""
    flags = ("--account-slots", "1024", "--rpc-connections-per-address", "256")
    with LiveNode(tmp_path / "node", flags=flags) as node:
        small = ("--url", node.url, "--pid", node.process.pid, "--transactions", 200, "--seconds", 1)
        for _ in range(2):
            told = result("bench.throughput", *small, "--rate", 100)
            check_load(told["batches_of_100"], 200)
            check_load(told["single_requests"], 200)
            check_load(told["open_loop_at_100"], 100)
            assert told["batches_of_100"]["node_cpu_us_per_transaction"] > 0
            assert (told["url"], told["meters"]) == (node.url, 256)


def test_throughput_without_a_node_is_one_line() -> None:
    done = run("bench.throughput", "--url", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("bench.throughput: ") and done.stderr.count("\n") == 1


def test_state_at_two_sizes(tmp_path: Path) -> None:
    blocks = ("--blocks", 2, "--warm-blocks", 1, "--transactions", 50)
    told = result("bench.state", "--tokens", "1000,2000", *blocks, "--dir", tmp_path)
    assert [size["tokens"] for size in told["sizes"]] == [1_000, 2_000]
    assert told["peak_rss_mib"] > 0
    for size in told["sizes"]:
        assert size["succeeded"] == size["of"] == 100
        assert set(size["cpu_us_per_transaction"]) == STEPS
        assert size["genesis_seconds"] > 0 and size["restart_seconds"] > 0 and size["disk_mib"] > 0
    assert list(tmp_path.iterdir()) == []


def test_scale_beside_a_smaller_state(tmp_path: Path) -> None:
    small = ("--tokens", 2_000, "--beside", 500, "--rounds", 2, "--warm-rounds", 1, "--blocks", 2)
    told = result("bench.scale", *small, "--transactions", 40, "--dir", tmp_path)
    assert [size["tokens"] for size in told["sizes"]] == [2_000, 500]
    for size in told["sizes"]:
        assert size["making"]["tokens_per_second"] > 0
        assert (size["ledger"]["transactions"], size["ledger"]["refused"]) == (160, 0)
        assert set(size["ledger"]["cpu_us_per_transaction"]) == STEPS | {"with_background"}
        assert size["ledger"]["snapshot"]["records_per_second"] > 0
        for node in (size["node"], size["node_after_blocks"]):
            assert node["start_seconds"] > 0 and node["memory_mib_at_start"]["resident"] > 0
            assert node["proof_bytes"]["p50"] > 500
    assert told["sizes"][0]["ledger"]["cpu_ratio_of_rounds"]["median"] > 0


def test_market_at_two_sizes(tmp_path: Path) -> None:
    told = result(
        "bench.market", "--auction-orders", 200, "--orders", "20,40", "--blocks", 2, "--dir", tmp_path
    )
    auctions = [(each["orders"], each["groups"], each["mixed"]) for each in told["auction"]]
    assert auctions == [(200, 1, False), (200, 2, False), (200, 6, False), (200, 6, True)]
    assert [each["orders"] for each in told["blocks"]] == [20, 40]
    for each in told["blocks"]:
        assert each["trades"] > each["orders"] // 4
        assert each["gas"] < each["gas_max"]
        assert set(each["cpu_ms"]) == STEPS
    assert list(tmp_path.iterdir()) == []


def test_profile_names_each_step(tmp_path: Path) -> None:
    small = ("--tokens", 1_000, "--blocks", 2, "--transactions", 50, "--seconds", 0.3)
    told = result("bench.profile", *small, "--dir", tmp_path)
    steps = told["steps"]
    assert told["tokens"] == 1_000
    assert {"http_single", "recover", "pool_add", "execute_refill", "execute_consume"} <= set(steps)
    assert {"tree_update", "proposal", "leveldb_write", "receipt_reply"} <= set(steps)
    assert all(step["limit_us"] > 0 for step in steps.values() if "limit" in step)
    assert steps["execute_refill"]["peak_bytes"] > 0 and steps["recover"]["cpu_us"] > 0
    assert 0 < told["total_us"]["http_batch"] < told["total_us"]["http_single"]
    assert told["counts"]["gas"] > 21_000 and told["counts"]["records_written"] > 2
    assert list(tmp_path.iterdir()) == []


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (51, 100, 100)
    assert (percentile([], 0.5), percentile([7.0], 0.99)) == (0, 7)


def test_a_load_whose_watch_has_ended_is_no_measurement(tmp_path: Path) -> None:
    """Its figures would say that nothing was included."""

    async def measure_without_blocks(url: str) -> None:
        async with Client(url) as client, aiohttp.ClientSession() as session:
            await measure(client, session, [], None, connections=1)

    async def fail(self: Blocks) -> None:
        raise TimeoutError("no block")

    with LiveNode(tmp_path / "node") as node, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blocks, "watch", fail)
        with pytest.raises(TimeoutError, match="no block"):
            asyncio.run(measure_without_blocks(node.url))


def test_a_fleet_reports_through_concentrators() -> None:
    small = ("--homes", 60, "--concentrators", 2, "--readings", 20, "--rounds", 2)
    told = result("bench.fleet", *small)
    assert (told["readings"], told["charged_or_drained"]) == (120, 120)
    assert told["readings_per_second"] > 0 and told["node_cpu_us_per_reading"] > 0


@pytest.mark.slow
def test_a_follower_catches_up() -> None:
    ports = ("--rpc-port", free_ports(2, 9_800), "--p2p-port", free_ports(2, 9_900))
    told = result("bench.sync", "--transactions", 200, *ports)
    assert (told["transactions"], told["cpu_count"]) == (200, os.cpu_count())
    assert told["blocks"] > 0 and told["transactions_per_second"] > 0
