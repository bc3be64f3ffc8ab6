"""Each broken rule is noticed, and where it is noticed the sound engine passes."""

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, planted, play


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed_and_the_sound_one_is_not(mutant: Mutant) -> None:
    with planted(mutant):
        assert play(mutant.noticed_by) is not None
    assert play(mutant.noticed_by) is None


def test_names_are_different() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS)
