"""Real engines on modelled machines in virtual time: everything that happens follows from one seed."""

from dataclasses import dataclass

from node.consensus.engine import Engine


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. `heal_ms` is from the end of the faults to the first new final block, None if none came."""

    violations: list[str]
    views: int
    blocks: int
    trace_hash: str
    heal_ms: int | None


def run_seed(seed: int, *, engine: type[Engine] = Engine, views: int = 60) -> Outcome:
    """One world with the faults that the seed draws; at least so many views before the faults stop."""
    raise NotImplementedError
