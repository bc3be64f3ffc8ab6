"""Validators whose disks are lost and come back from backups, old and new, while the others go on.

Whatever the key signed after the backup binds it, and nobody tells the validator what that was.
"""

from random import Random
from typing import Final

from node.consensus.engine import Engine
from tests.simulation.cluster import Cluster, quick_signatures
from tests.simulation.network import Conditions
from tests.simulation.world import Outcome

SIZES: Final = (4, 4, 5, 7)
RESTORES: Final = 3
PAUSE_MS: Final = (200, 1_000, 4_000)
GUARDED_MS_MAX: Final = 300_000  # a hundred views, up to an epoch more, and the silence
AFTER_BLOCKS: Final = 20
AFTER_MS: Final = 30_000


def run_restores(case: int, *, engine: type[Engine] = Engine) -> Outcome:
    """Safety throughout, and that everyone votes again in the end."""
    chance = Random(f"{case} restores")
    with quick_signatures():
        world = Cluster(
            case,
            size=chance.choice(SIZES),
            epoch_blocks=chance.choice([6, 20, 150, 900]),
            set_changes=chance.random() < 0.3,
            engine=engine,
            keeps_trace=False,
        )
        world.network.now = Conditions(
            delay_ms=chance.choice([(1, 5), (5, 40), (20, 150)]), loss=chance.choice([0, 10, 100])
        )
        shortfalls = [_restore_one(world, chance) for _ in range(RESTORES)]
        before, healed_ms = world.checker.height, world.at_ms
        came = world.run_ms(AFTER_MS, lambda: world.checker.height >= before + AFTER_BLOCKS)
        heal_ms = world.at_ms - healed_ms
        world.checker.finish()
    if not came:
        shortfalls.append(f"{world.checker.height - before} blocks, not {AFTER_BLOCKS}")
    violations = [*world.checker.violations, *(f"shortfall: {each}" for each in shortfalls if each)]
    return Outcome(
        violations, world.views, world.checker.height, "", heal_ms if came else None, world.crashes
    )


def _restore_one(world: Cluster, chance: Random) -> str | None:
    """One validator comes back from a backup taken a while ago, and may stop while it waits. What went wrong."""
    number = chance.randrange(world.size)
    machine = world.machines[number]
    backup = machine.disk.backup()
    world.run_ms(chance.choice(PAUSE_MS))
    if chance.random() < 0.5:
        world.arm_crash(number, chance.randrange(1, 60), 10**9)
        world.run_ms(2_000)
    world.crash(number, None)
    world.run_ms(chance.choice((0, *PAUSE_MS)))
    world.restore(number, backup)
    if chance.random() < 0.5:
        world.arm_crash(number, 1, 500, chance.choice(["before silence", "after silence"]))
    if chance.random() < 0.3:
        world.run_ms(chance.randrange(5_000))
        world.arm_crash(number, chance.randrange(1, 30), 500)
    if not world.run_ms(GUARDED_MS_MAX, lambda: number not in world.silent() and machine.is_up):
        return f"machine {number} does not vote after {GUARDED_MS_MAX} ms"
    return None
