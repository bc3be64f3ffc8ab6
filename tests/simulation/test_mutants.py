"""Each broken rule is noticed by a test, many also by chance, and where they are noticed the sound engine passes."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.simulation.liars import LIARS, run_liar
from tests.simulation.mutants import MUTANTS, Mutant, planted, play

Record = Callable[[str, object], None]

CASES_EACH: Final = 8  # of each liar
LIARS_MAX: Final = 70
BY_CHANCE: Final = {
    f"liars up to {LIARS_MAX}": (
        "FINALIZE after NULLIFY",
        "NULLIFY after FINALIZE in a view that its notarization does not end",
        "FINALIZE of another block than the own NOTARIZE",
        "FINALIZE of the own NOTARIZE without a quorum's",
        "FINALIZE without what it relies on",
        "NOTARIZE before the block is executed",
        "NOTARIZE without what it relies on",
        "NOTARIZE without its block",
        "a notarization taken for a finalization",
        "no view between is looked at",
        "a parent that is not notarized",
        "a block on any parent",
        "a body that is not the header's",
        "a proposal that its leader did not sign",
        "roots that differ are not looked at",
        "certificates are not checked",
        "signatures of certificates are not checked",
        "signers outside the set",
        "votes without a signature",
        "votes for different blocks are added up",
        "certificates of another epoch",
        "own votes are forgotten in a restart",
        "own votes bind after a restart and do not count",
        "certificates are forgotten in a restart",
        "blocks are forgotten in a restart",
        "a leader builds again after a restart",
    ),
    "twins up to 20": ("NOTARIZE for each block that the leader shows",),
    "disks up to 0": ("a quorum of all but none",),
    "seeds at 0": ("a quorum of those who are heard",),
    "seeds at 7": ("a leader goes on after the epoch's last block",),
    "seeds at 21": ("only the last view between is looked at",),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed_and_the_sound_one_is_not(mutant: Mutant, record_property: Record) -> None:
    record_property("played: mutants", 1)
    with planted(mutant):
        assert play(mutant.noticed_by) is not None
    assert play(mutant.noticed_by) is None


@pytest.mark.parametrize(
    ("name", "runs"),
    [(name, runs) for runs, names in BY_CHANCE.items() for name in names],
    ids=lambda each: each,
)
def test_chance_finds_it_as_well(name: str, runs: str) -> None:
    """Without a script, in worlds that the sound engine bears: the liars below, and the first twins and seeds."""
    (mutant,) = [each for each in MUTANTS if each.name == name]
    with planted(mutant):
        assert play(runs) is not None


def test_the_mutants_are_as_many_as_promised_and_have_names() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS) >= 100


@pytest.mark.parametrize("number", range(len(LIARS)), ids=[each.__name__ for each in LIARS])
def test_a_liar_breaks_nothing(number: int, record_property: Record) -> None:
    cases = range(number, CASES_EACH * len(LIARS), len(LIARS))
    record_property("played: liars", len(cases))
    assert {case: found for case in cases if (found := run_liar(case).violations)} == {}
