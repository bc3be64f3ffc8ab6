"""Validators f of which are two machines with one key each, and a partition of all the machines in each round: mostly
four validators with one such pair, now and then seven with two."""

from random import Random
from typing import Final

from node.consensus.engine import Engine
from tests.simulation.cluster import Cluster, quick_signatures
from tests.simulation.network import Conditions
from tests.simulation.world import Outcome

LARGER_EACH: Final = 20  # cases
ROUNDS: Final = 5
BLOCKS_AFTER: Final = 5
ROUND_MS: Final = (40, 350, 700, 1_100)
AFTER_MS: Final = 10_000


def run_twins(case: int, *, engine: type[Engine] = Engine, blocks_after: int = BLOCKS_AFTER) -> Outcome:
    """Safety throughout, and so many blocks when the partitions are over."""
    chance = Random(f"{case} twins")
    with quick_signatures():
        epoch_blocks = chance.choice([4, 20])
        is_larger = case % LARGER_EACH == LARGER_EACH - 1
        size, twins = (7, tuple(chance.sample(range(7), 2))) if is_larger else (4, (case % 4,))
        world = Cluster(
            case, size=size, epoch_blocks=epoch_blocks, twins=twins, engine=engine, keeps_trace=False
        )
        network = world.network
        network.now = Conditions(delay_ms=(1, 20))
        for _ in range(ROUNDS):
            sides = [chance.randrange(chance.choice([1, 2, 2, 3])) for _ in world.machines]
            every = range(len(sides))
            network.now.cut = frozenset((a, b) for a in every for b in every if sides[a] != sides[b])
            world.run_ms(chance.choice(ROUND_MS))
        network.join()
        before, healed_ms = world.checker.height, world.at_ms
        came = world.run_ms(AFTER_MS, lambda: world.checker.height > before)
        heal_ms = world.at_ms - healed_ms
        world.run_ms(AFTER_MS, lambda: world.checker.height >= before + blocks_after)
        world.checker.finish()
    violations = world.checker.violations
    if world.checker.height < before + blocks_after:
        violations = [*violations, f"shortfall: {world.checker.height - before} blocks, not {blocks_after}"]
    height = world.checker.height
    return Outcome(violations, world.views, height, world.trace_hash, heal_ms if came else None, size=size)
