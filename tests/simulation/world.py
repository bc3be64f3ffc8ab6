"""A run: the faults that a seed draws, then their end, then the time in which the chain must go on."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from node.consensus.engine import Engine
from node.consensus.events import Build, Cast, Finalize, Validate
from tests.simulation.behaviours import ALL, Amnesiac, Behaviour
from tests.simulation.cluster import PERIOD_MS, WALL_MS, Apply, Cluster, Machine, quick_signatures
from tests.simulation.network import Conditions

SIZES: Final = {1: 8, 4: 44, 5: 18, 6: 9, 7: 13, 10: 6, 21: 2}  # how many of a hundred seeds
FAULTS: Final = (
    "loss",
    "duplication",
    "delay",
    "spikes",
    "partition",
    "crash",
    "crash all",
    "skew",
    "jump",
    "drift",
    "slow disk",
    "damaged disk",
    "sets",
    "byzantine",
    "twins",
    "evidence",
    "followers",
    "long",
)
HEAL_MS_MAX: Final = 5_000
HEAL_BYZANTINE_MS_MAX: Final = 10_000
BLOCKS_AFTER: Final = 20
BLOCKS_AFTER_MS: Final = 20_000
LAG_MAX: Final = 10
CATCH_UP_SPEED: Final = 10  # times that of the chain, at least
FAULTY_MS_MAX: Final = 150_000
STEPS_MAX: Final = 30_000  # of engines in the time of the faults
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `heal_ms` is from the end of the faults to the first new final block, None if none came."""

    violations: list[str]
    views: int
    blocks: int
    trace_hash: str  # "" if none was kept
    heal_ms: int | None
    crashes: Counter[str] = field(default_factory=Counter)  # by the effect boundary where they happened
    damages: Counter[str] = field(default_factory=Counter)  # of journals
    size: int = 4  # of the first set
    barred: int = 0  # keys


def run_seed(
    seed: int, *, engine: type[Engine] = Engine, views: int = 60, real_signatures: bool = False
) -> Outcome:
    """One world with the faults that the seed draws; at least so many views before the faults stop."""
    with quick_signatures(real_signatures):
        return Run(seed, engine).run(views)


class Run:
    """Each seed switches a random half of the faults on: rare ones meet when the others are silent."""

    def __init__(self, seed: int, engine: type[Engine] = Engine) -> None:
        chance = self.chance = Random(f"{seed} run")
        self.faults = frozenset(each for each in FAULTS if chance.random() < 0.5)
        (size,) = chance.choices(list(SIZES), list(SIZES.values()))
        self.faulty = (size - 1) // 3
        behaviours, twins = self._choose_byzantine(size)
        self.world = Cluster(
            seed,
            size=size,
            followers=chance.choice([1, 2]) if "followers" in self.faults else 0,
            epoch_blocks=chance.randrange(10, 21),
            behaviours=behaviours,
            twins=twins,
            set_changes="sets" in self.faults,
            acts_on_evidence="evidence" in self.faults,
            damaged=0.1 if "damaged disk" in self.faults else 0.0,
            engine=engine,
        )
        self.honest = [each for each in self.world.machines if each.is_honest]
        self.settled_ms = 0  # when the longest outage ends

    def _choose_byzantine(self, size: int) -> tuple[dict[int, Behaviour], tuple[int, ...]]:
        chance = self.chance
        if not self.faulty or not self.faults & {"byzantine", "twins"}:
            return {}, ()
        chosen = chance.sample(range(size), chance.randint(1, self.faulty))
        twins = tuple(each for each in chosen if self._is_twin())
        liars = (*ALL, Amnesiac) if "damaged disk" in self.faults else ALL
        return {
            each: chance.choice(liars)(Random(chance.random())) for each in chosen if each not in twins
        }, twins

    def _is_twin(self) -> bool:
        if "byzantine" not in self.faults:
            return True
        return "twins" in self.faults and self.chance.random() < 0.3

    def run(self, views: int) -> Outcome:
        self._suffer(views)
        heal_ms, shortfalls = self._heal()
        world = self.world
        world.checker.finish()
        return Outcome(
            [*world.checker.violations, *shortfalls],
            world.views,
            world.checker.height,
            world.trace_hash,
            heal_ms,
            world.crashes,
            world.damages,
            world.size,
            world.checker.barred,
        )

    # --- faults ---------------------------------------------------------------------------------------------------

    def _suffer(self, views: int) -> None:
        world, chance, faults = self.world, self.chance, self.faults
        now = world.network.now = Conditions(delay_ms=chance.choice([(1, 1), (1, 5), (5, 40), (20, 150)]))
        now.loss = chance.choice([10, 50, 200, 400]) if "loss" in faults else 0
        now.duplication = chance.choice([10, 300]) if "duplication" in faults else 0
        if "delay" in faults:
            now.delay_ms = chance.choice([(1, 400), (100, 600), (300, 301)])
        if "spikes" in faults:
            now.spikes, now.spike_ms = chance.choice([(5, 10_000), (50, 2_000), (200, 600)])
        if "slow disk" in faults:
            self._slow_disks(chance.choice([30, 150, 600]))
        for machine in world.machines:
            if "skew" in faults:
                machine.clock.offset_ms = chance.choice([0, 0, -300, 300, 700, -10_000, 10_000])
            if "drift" in faults:
                machine.clock.drift = chance.randrange(-20, 21)
        end_ms = world.at_ms + FAULTY_MS_MAX
        while (
            world.views < views
            and world.at_ms < end_ms
            and world.steps < STEPS_MAX
            and not world.checker.violations
        ):
            world.run_ms(chance.choice([20, 50, 300, 1000, 3000]))
            if chance.random() < 0.7:
                end_ms += self._disturb()

    def _slow_disks(self, high_ms: int) -> None:
        for work in (Build, Validate, Cast, Finalize, Apply):
            self.world.work_ms[work] = (1, high_ms)

    def _disturb(self) -> int:
        """One more thing happens; by how much it prolongs the time of the faults, in ms."""
        world, chance = self.world, self.chance
        machine = chance.choice(world.machines)
        wanted = [each for each in ("partition", "crash", "crash all", "jump") if each in self.faults]
        match chance.choice(wanted) if wanted else None:
            case "partition":
                return self._part(machine)
            case "crash":
                down_ms = chance.choice([0, 0, 1, 100, 1000, 5000, 20_000])
                world.arm_crash(machine.number, chance.choice([1, 2, 3, 5, 8, 13, 30, 80]), down_ms)
            case "crash all":
                return self._crash_all(chance.choice([0, 1, 50, 1000, 30_000, HOUR_MS]))
            case "jump":
                machine.clock.offset_ms += chance.choice([-10_000, -1_000, -300, 300, 1_000, 10_000])
        return 0

    def _crash_all(self, down_ms: int) -> int:
        """Everyone stops within a moment, and starts again at once."""
        world, chance = self.world, self.chance
        if chance.random() < 0.5:
            for each in world.machines:
                world.arm_crash(each.number, chance.randrange(1, 10), down_ms)
            world.run_ms(chance.choice([5, 50, 300]))
        for each in world.machines:
            world.crash(each.number, down_ms)
        world.run_ms(down_ms + 1)
        return down_ms

    def _part(self, machine: Machine) -> int:
        """Partitions, some of them long; an hour only where nobody can go on, for that is quickly played."""
        world, chance, network = self.world, self.chance, self.world.network
        members = machine.engine.validators
        address = members.members[members.leader(machine.engine.epoch, machine.engine.view)].address
        leading = next((each for each in world.machines if each.address == address), machine)
        network.join()
        match chance.randrange(8):
            case 0 | 1:
                network.cut_halves()
            case 2:
                network.cut_alone(leading.number)
            case 3:
                network.cut_one_way(machine.number)
            case 4:
                network.cut_bridge()
            case 5:
                network.cut_links()
            case 6:
                network.cut_all()
            case _:
                return 0
        if "long" in self.faults and chance.random() < 0.1:
            is_all = len(network.now.cut) == network.size**2
            long_ms = chance.choice([20_000, 60_000, HOUR_MS if is_all else 120_000])
            world.run_ms(long_ms)
            return long_ms
        if chance.random() < 0.2:
            network.flap()
        return 0

    # --- their end ------------------------------------------------------------------------------------------------

    def _heal(self) -> tuple[int | None, list[str]]:
        """The faults stop among all but at most f machines of each set to come. Then the chain must go on."""
        world, chance = self.world, self.chance
        world.sets.freeze()
        assert world.room() >= 0, "more are faulty than the protocol tolerates"
        world.network.now = Conditions(delay_ms=chance.choice([(1, 5), (1, 40), (20, 80)]))
        self._slow_disks(chance.choice([5, 20]))
        dead = self._choose_dead()
        core = [each for each in self.honest if each.number not in dead]
        for machine in world.machines:
            machine.clock.offset_ms, machine.crash_in = 0, 0
            if machine.number in dead:
                world.crash(machine.number, None)
            else:
                world.restart(machine.number)
        before, started_ms = world.checker.height, world.at_ms
        # A chain whose last times are ahead of the true time waits for it, but for what voters tolerate.
        ahead_ms = max(world.checker.stamp_ms - WALL_MS - started_ms - world.settings.ahead_ms_max, 0)
        limit_ms = HEAL_BYZANTINE_MS_MAX if world.byzantine or dead or world.silent() else HEAL_MS_MAX
        if world.checker.violations:
            return None, []
        if not world.run_ms(3 * limit_ms + ahead_ms, lambda: world.checker.height > before):
            return None, [f"shortfall: no new block {3 * limit_ms + ahead_ms} ms after the faults"]
        heal_ms = world.at_ms - started_ms
        shortfalls = []
        if heal_ms > limit_ms + ahead_ms:
            shortfalls.append(f"shortfall: first new block after {heal_ms} ms, not {limit_ms + ahead_ms}")
        before = world.checker.height
        first_ms = world.at_ms
        world.run_ms(BLOCKS_AFTER_MS + ahead_ms, lambda: world.checker.height >= before + BLOCKS_AFTER)
        if world.checker.height < before + BLOCKS_AFTER:
            blocks = world.checker.height - before
            shortfalls.append(
                f"shortfall: {blocks} blocks in {world.at_ms - first_ms} ms, not {BLOCKS_AFTER}"
            )
        lag_blocks = world.checker.height - min(each.disk.head.height for each in core)
        level_ms = 2_000 + lag_blocks * PERIOD_MS // CATCH_UP_SPEED
        if not self._is_level(core) and not world.run_ms(level_ms, lambda: self._is_level(core)):
            heights = [each.disk.head.height for each in core]
            shortfalls.append(f"shortfall: heights {heights} at the end")
        return max(heal_ms - ahead_ms, 0), shortfalls

    def _is_level(self, core: list[Machine]) -> bool:
        return min(each.disk.head.height for each in core) >= self.world.checker.height - LAG_MAX

    def _choose_dead(self) -> set[int]:
        """Honest machines that stay down: with the Byzantine at most f of every set from now on."""
        world = self.world
        room = world.room()
        first = min([each.engine.epoch for each in self.honest])
        members = [
            each.number
            for each in self.honest
            if each.number not in world.silent()
            and any(each.number in owners for owners in world.sets.coming(first))
        ]
        if room <= 0 or self.chance.random() < 0.5:
            return set()
        return set(self.chance.sample(members, min(self.chance.randint(1, room), len(members))))


__all__ = ["PERIOD_MS", "Outcome", "Run", "run_seed"]
