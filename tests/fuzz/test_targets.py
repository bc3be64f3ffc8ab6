"""Every target over its seeds, what was once found, and bytes made of them by chance: the same ones in every run."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import mutations
from tests.fuzz.targets import TARGETS

RUNS, SLOW_RUNS = 4_000, 400
FOUND = sorted((Path(__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bytes_break_it(name: str) -> None:
    """Each seed decodes, and of what chance makes of them some does and some does not: else the runs said little."""
    target = TARGETS[name]
    assert all(map(target.check, target.seeds)) and target.seeds
    runs = SLOW_RUNS if target.slow else RUNS
    outcomes = Counter(target.check(data) for data in mutations(target.seeds, Random(name), runs))
    assert outcomes.total() >= runs
    assert outcomes[True] > len(target.seeds) and outcomes[False]


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_once_found_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())
