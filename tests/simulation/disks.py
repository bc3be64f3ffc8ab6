"""Four validators whose disks are cut off and damaged while they stop and start, over the ends of epochs.

At most one at a time has no votes to show and waits for a later epoch; the others go on.
"""

from random import Random
from typing import Final

from node.consensus.engine import Engine
from tests.simulation.cluster import Cluster, quick_signatures
from tests.simulation.network import Conditions
from tests.simulation.world import Outcome

CRASHES: Final = 16
PAUSE_MS: Final = (20, 100, 350, 700)
AFTER_MS: Final = 30_000
EPOCHS_AFTER: Final = 3


def run_disks(case: int, *, engine: type[Engine] = Engine) -> Outcome:
    """Safety throughout, and that everyone votes again in the end."""
    chance = Random(f"{case} disks")
    with quick_signatures():
        world = Cluster(case, size=4, epoch_blocks=6, damaged=0.5, engine=engine, keeps_trace=False)
        world.network.now = Conditions(delay_ms=chance.choice([(1, 5), (5, 40)]))
        for _ in range(CRASHES):
            number, down_ms = chance.randrange(4), chance.choice([0, 100, 1_000])
            if chance.random() < 0.5:
                world.arm_crash(number, chance.randrange(1, 40), down_ms)
            else:
                world.arm_crash(number, chance.randrange(1, 4), down_ms, "before sync")
            world.run_ms(chance.choice(PAUSE_MS))
        for machine in world.machines:
            machine.crash_in = 0
            world.restart(machine.number)
        before, healed_ms = world.checker.height, world.at_ms
        came = world.run_ms(AFTER_MS, lambda: world.checker.height > before)
        heal_ms = world.at_ms - healed_ms
        blocks = EPOCHS_AFTER * world.epoch_blocks
        world.run_ms(AFTER_MS, lambda: world.checker.height >= before + blocks)
        world.checker.finish()
    violations = world.checker.violations
    if world.checker.height < before + blocks:
        violations = [*violations, f"shortfall: {world.checker.height - before} blocks, not {blocks}"]
    if world.silent():
        violations = [*violations, f"shortfall: {world.silent()} do not vote"]
    height = world.checker.height
    return Outcome(
        violations,
        world.views,
        height,
        world.trace_hash,
        heal_ms if came else None,
        world.crashes,
        world.damages,
    )
