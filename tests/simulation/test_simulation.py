"""Seeds and twins for each commit, and that a seed says all: the same run again, in another process as well."""

import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from ctt_state.units import ZERO_HASH
from ctt_state.votes import Kind, Statement, sign_vote
from tests.simulation.behaviours import ALL, Behaviour
from tests.simulation.cluster import Cluster, quick_signatures, secret_of
from tests.simulation.disk import GENESIS_HASH
from tests.simulation.twins import run_twins
from tests.simulation.world import run_seed

SHARDS = 20
SEEDS = 200
TWINS = 2_000
BOUNDARIES = 120
SAME = 3  # a seed with many faults


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_seed_keeps_the_rules_and_heals(shard: int) -> None:
    failed = {}
    for seed in range(shard, SEEDS, SHARDS):
        outcome = run_seed(seed)
        if outcome.violations:
            failed[seed] = outcome.violations
    assert not failed


@pytest.mark.parametrize("shard", range(SHARDS))
def test_twins_break_nothing(shard: int) -> None:
    failed = {}
    for case in range(shard, TWINS, SHARDS):
        outcome = run_twins(case)
        if outcome.violations:
            failed[case] = outcome.violations
    assert not failed


@pytest.mark.parametrize("size", [1, 4])
def test_a_crash_at_each_effect_boundary_of_some_blocks(size: int) -> None:
    """One after the other, over the end of an epoch: nothing is lost, and the chain goes on."""
    crashes: Counter[str] = Counter()
    with quick_signatures():
        for boundary in range(1, BOUNDARIES + 1):
            world = Cluster(boundary, size=size, epoch_blocks=4)
            world.arm_crash(0, boundary, 0)
            world.run_ms(4_000)
            world.checker.finish()
            assert world.checker.violations == [], boundary
            assert world.checker.height >= 8, boundary
            crashes += world.crashes
    assert sum(crashes.values()) == BOUNDARIES
    effects = (
        ("Build", "Validate", "Cast", "Finalize", "Broadcast") if size > 1 else ("Build", "Cast", "Finalize")
    )
    inside = {
        "built",
        "before append",
        "before sync",
        "before signed",
        "before final block",
        "after final block",
    }
    assert {f"{when} {each}" for when in ("before", "after") for each in effects} | inside <= set(crashes)


def test_a_seed_gives_the_same_trace_again() -> None:
    first, second = run_seed(SAME, views=20), run_seed(SAME, views=20)
    assert first == second
    assert first.trace_hash != run_seed(SAME + 1, views=20).trace_hash


def test_the_trace_does_not_depend_on_how_the_process_hashes() -> None:
    script = f"from tests.simulation.world import run_seed; print(run_seed({SAME}, views=20).trace_hash)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("0", "1", "12345")
    }
    assert traces == {run_seed(SAME, views=20).trace_hash + "\n"}


@pytest.mark.parametrize("behaviour", ALL)
def test_one_liar_of_four_stops_nothing(behaviour: type[Behaviour]) -> None:
    with quick_signatures():
        world = Cluster(1, size=4, epoch_blocks=10, behaviours={2: behaviour(Random(1))})
        world.run_ms(20_000)
        world.checker.finish()
    assert world.checker.violations == []
    assert world.checker.height >= 20


def test_real_signatures_give_the_same_chain_of_events() -> None:
    """The events are the same; what is hashed into the trace names no signature."""
    assert run_seed(4, views=5).blocks == run_seed(4, views=5, real_signatures=True).blocks


def test_the_curve_is_back_when_a_run_is_over() -> None:
    statement = Statement(Kind.NULLIFY, 0, 1, 0, ZERO_HASH)
    real = sign_vote(statement, 0, secret_of(0, 0), GENESIS_HASH)
    with quick_signatures():
        assert sign_vote(statement, 0, secret_of(0, 0), GENESIS_HASH) != real
    run_seed(0, views=1)
    assert sign_vote(statement, 0, secret_of(0, 0), GENESIS_HASH) == real
