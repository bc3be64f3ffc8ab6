"""Each broken rule is noticed by a test, many also by chance, and where they are noticed the sound engine passes."""

from typing import Final

import pytest

from tests.simulation.liars import LIARS, run_liar
from tests.simulation.mutants import MUTANTS, Mutant, planted, play

CASES_EACH: Final = 8  # of each liar


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed_and_the_sound_one_is_not(mutant: Mutant) -> None:
    with planted(mutant):
        assert play(mutant.noticed_by) is not None
    assert play(mutant.noticed_by) is None


def test_names_are_different() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("number", range(len(LIARS)), ids=[each.__name__ for each in LIARS])
def test_a_liar_breaks_nothing(number: int) -> None:
    cases = range(number, CASES_EACH * len(LIARS), len(LIARS))
    assert {case: found for case in cases if (found := run_liar(case).violations)} == {}
