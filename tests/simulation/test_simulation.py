"""Seeds and twins for each commit, and that a seed says all: the same run again, in another process as well."""

import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from ctt_state.units import ZERO_HASH
from ctt_state.validators import boundary_of
from ctt_state.votes import Kind, Statement, sign_vote
from tests.simulation import test_field_failures
from tests.simulation.behaviours import (
    ALL,
    Amnesiac,
    Behaviour,
    EquivocatingLeader,
    EquivocatingVoter,
    NullifyAndFinalize,
)
from tests.simulation.cluster import Cluster, quick_signatures, secret_of
from tests.simulation.disk import GENESIS_HASH
from tests.simulation.disks import run_disks
from tests.simulation.restores import run_restores
from tests.simulation.stage import Stage
from tests.simulation.twins import run_twins
from tests.simulation.world import FAULTS, Outcome, Run, run_seed

SHARDS = 50
SEEDS = 200
TWINS = 2_000
DISKS = 60
RESTORED = 16
BOUNDARIES = 120
VIEWS_MIN = 10  # of a run, on the mean
SAME = 300  # sets change, a key is barred, the power fails

Record = Callable[[str, object], None]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_seed_keeps_the_rules_and_heals(shard: int, record_property: Record) -> None:
    outcomes = play("seeds", run_seed, range(shard, SEEDS, SHARDS), record_property)
    assert len(outcomes) == SEEDS // SHARDS


@pytest.mark.parametrize("shard", range(SHARDS))
def test_twins_break_nothing(shard: int, record_property: Record) -> None:
    outcomes = play("twins", run_twins, range(shard, TWINS, SHARDS), record_property)
    assert len(outcomes) == TWINS // SHARDS


def test_power_cuts_and_flipped_bits_lose_no_vote(record_property: Record) -> None:
    """C-8: the node's own code reads what is left, or refuses it; then the validator votes again in a later epoch."""
    outcomes = play("disks", run_disks, range(DISKS), record_property)
    damages = sum((each.damages for each in outcomes), Counter[str]())
    assert damages["power cut in a write"] >= 100
    assert damages["flipped bit, refused"] >= 40
    assert damages["flipped bit"] == 0


def test_a_validator_from_an_old_backup_signs_nothing_twice(record_property: Record) -> None:
    """C-14: it has no votes and knows none, until its key can have cast none where it votes."""
    outcomes = play("restores", run_restores, range(RESTORED), record_property)
    crashes = sum((each.crashes for each in outcomes), Counter[str]())
    assert min(crashes["before silence"], crashes["after silence"]) >= 3


def play(what: str, run: Callable[[int], Outcome], numbers: range, record_property: Record) -> list[Outcome]:
    """Plays all of them, tells how many, and holds that none broke a rule and that they went on for a while."""
    outcomes = {number: run(number) for number in numbers}
    record_property(f"played: {what}", len(outcomes))
    assert {number: each.violations for number, each in outcomes.items() if each.violations} == {}
    assert sum(each.views for each in outcomes.values()) >= VIEWS_MIN * len(outcomes)
    return list(outcomes.values())


def test_the_seeds_draw_every_size_fault_and_liar() -> None:
    with quick_signatures():
        runs = [Run(seed) for seed in range(SEEDS)]
    sizes = Counter(run.world.size for run in runs)
    faults = Counter(fault for run in runs for fault in run.faults)
    liars = Counter(type(each.behaviour) for run in runs for each in run.world.machines)
    assert set(sizes) == {1, 4, 5, 6, 7, 10, 21}
    assert set(faults) == set(FAULTS)
    assert min(faults.values()) >= SEEDS // 3
    assert set(liars) == {type(None), Behaviour, Amnesiac, *ALL}  # an honest one, a twin, and the liars


def test_each_story_of_another_chain_names_where_it_happened() -> None:
    """ "where: what", an issue, an advisory or a report; several stories may be of one place."""
    stories = {
        name: inspect.getdoc(each) or ""
        for name, each in vars(test_field_failures).items()
        if name.startswith("test_")
    }
    assert len(stories) >= 55
    assert [name for name, told in stories.items() if not re.match(r"[^:]{4,120}:\s", told)] == []
    assert len(set(re.findall(r"#\d+", " ".join(stories.values())))) >= 90


def test_who_is_needed_and_lags_a_little_catches_up_when_consensus_cannot_help() -> None:
    """Too near for ranges at first; the others have forgotten the epoch that it is in, and are no quorum without it."""
    with quick_signatures():
        stage = Stage(epoch_blocks=10)
        late, gone = stage.machines[:2]
        last = boundary_of(0, 10)
        stage.play_until(lambda: min(stage.heights) == last - 1, 20_000)
        stage.cut(late)
        stage.play_until(lambda: stage.heights == [last - 1, last + 1, last + 1, last + 1], 20_000)
        stage.crash_all()
        stage.join()
        for machine in stage.machines:
            if machine is not gone:
                stage.restart(machine.number)
        stage.goes_on()


@pytest.mark.parametrize("size", [5, 7])
@pytest.mark.parametrize("liar", [EquivocatingLeader, EquivocatingVoter, NullifyAndFinalize, None])
def test_who_votes_twice_is_proved_guilty_by_a_block_and_leaves(
    liar: type[Behaviour] | None, size: int
) -> None:
    """C-12, A-7: one piece of evidence, one key barred, out with the next set that is fixed; None are twins."""
    guilty = 2
    with quick_signatures():
        world = Cluster(
            1,
            size=size,
            epoch_blocks=10,
            behaviours={guilty: liar(Random(1))} if liar else {},
            twins=() if liar else (guilty,),
            acts_on_evidence=True,
        )
        assert world.run_ms(20_000, lambda: guilty not in world.sets.owners[-1])
        height = world.checker.height
        assert world.run_ms(20_000, lambda: world.checker.height >= height + 30)
        world.checker.finish()
    assert world.checker.violations == []
    final = next(each for each in world.machines if each.is_honest).disk.final
    assert [len(block.evidence) for block in final if block.evidence] == [1]
    assert set(world.sets.owners[-1]) == set(range(size)) - {guilty}


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
