"""Rules of consensus broken on purpose, one at a time: what no test and no seed notices, nothing guards.

A mutant is a change of a line or two in the engine's text, planted into the running functions and taken out again, so
every test and every seed can be played against it. A text that is not there any more is an error: the rule has changed,
and so must its mutant.

`python -m tests.simulation.mutants` says as JSON which test and which liars, twins, disks, restores and seeds notice each.
"""

import argparse
import inspect
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple, cast

from ctt_state import votes
from node import journal
from node.consensus import settings
from node.consensus.answers import AnswerBudget
from node.consensus.engine import Engine
from node.consensus.guard import Guard, watermark
from node.consensus.rounds import Round, Rounds
from tests import test_engine, test_guard
from tests.simulation import test_field_failures, test_guards
from tests.simulation.cluster import quick_signatures
from tests.simulation.disks import run_disks
from tests.simulation.liars import run_liar
from tests.simulation.restores import run_restores
from tests.simulation.twins import run_twins
from tests.simulation.world import run_seed

Function = Callable[..., object]


class Edit(NamedTuple):
    """In the text of this function, each `old` becomes `new`."""

    function: Function
    old: str
    new: str


class Mutant(NamedTuple):
    """What is broken, how, and which test of `SUITES` notices it."""

    name: str
    edits: tuple[Edit, ...]
    noticed_by: str


def _mutant(name: str, noticed_by: str, *edits: tuple[Function, str, str]) -> Mutant:
    return Mutant(name, tuple(Edit(*each) for each in edits), noticed_by)


# --- planting -------------------------------------------------------------------------------------------------------


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The rule is broken for all engines meanwhile. Raises: ValueError for a text that is not there."""
    sources: dict[FunctionType, str] = {}
    for function, old, new in mutant.edits:
        function = cast(FunctionType, function)
        source = sources.get(function) or textwrap.dedent(inspect.getsource(function))
        if old not in source:
            raise ValueError(f"{function.__qualname__} has no text {old!r} for the mutant {mutant.name!r}")
        sources[function] = source.replace(old, new)
    sound = {function: function.__code__ for function in sources}
    for function, source in sources.items():
        function.__code__ = _compiled(function.__name__, source)
    try:
        yield
    finally:
        for function, code in sound.items():
            function.__code__ = code


def _compiled(name: str, source: str) -> CodeType:
    constants = compile(source, f"<mutant of {name}>", "exec").co_consts
    return next(each for each in constants if isinstance(each, CodeType) and each.co_name == name)


# --- what may notice ------------------------------------------------------------------------------------------------

SUITES: Final[dict[str, ModuleType]] = {
    "engine": test_engine,
    "field": test_field_failures,
    "guards": test_guards,
    "restore": test_guard,
}


def tests() -> dict[str, Callable[[], None]]:
    """The tests that need no fixture, by suite and name; one with parameters is played with all of them."""
    return {
        f"{suite}: {name.removeprefix('test_')}": partial(_play, function, is_quick=suite == "field")
        for suite, module in SUITES.items()
        for name, function in vars(module).items()
        if name.startswith("test_") and _arguments(function) is not None
    }


def _play(function: Callable[..., None], *, is_quick: bool) -> None:
    for arguments in _arguments(function) or []:
        with quick_signatures(not is_quick):
            function(**arguments)


def _arguments(function: Callable[..., None]) -> list[dict[str, Any]] | None:
    """What `parametrize` gives the test, None if it needs more than that."""
    choices: list[list[dict[str, Any]]] = []
    marks = getattr(function, "pytestmark", [])
    for mark in [each for each in marks if each.name == "parametrize"]:
        names, values = mark.args
        names = names if isinstance(names, tuple) else (names,)
        choices.append(
            [dict(zip(names, each if len(names) > 1 else (each,), strict=True)) for each in values]
        )
    sets = [{name: value for each in chosen for name, value in each.items()} for chosen in product(*choices)]
    return sets if sets and set(sets[0]) == set(inspect.signature(function).parameters) else None


def noticed_in(run: Callable[[], object]) -> str | None:
    """What went wrong in this test or run, None if nothing did."""
    try:
        outcome = run()
    except Exception as fault:  # noqa: BLE001  whatever a broken rule leads to
        return f"{type(fault).__name__}: {fault}".splitlines()[0]
    violations = getattr(outcome, "violations", None)
    return violations[0] if violations else None


def first_noticed(run: Callable[[int], object], numbers: range) -> tuple[int, str] | None:
    """The first of these seeds or twins in which something goes wrong, and what."""
    for number in numbers:
        fault = noticed_in(partial(run, number))
        if fault is not None:
            return number, fault
    return None


RUNS: Final[dict[str, Callable[[int], object]]] = {
    "liars": run_liar,
    "twins": run_twins,
    "disks": run_disks,
    "restores": run_restores,
    "seeds": run_seed,
}


def play(noticed_by: str) -> str | None:
    """What goes wrong in a test, in one of the first so many runs ("liars up to 20") or in one run ("seeds at 9"); None
    if nothing does."""
    kind, how, number = noticed_by.rpartition(" at " if " at " in noticed_by else " up to ")
    if kind not in RUNS:
        return noticed_in(tests()[noticed_by])
    last = int(number)
    found = first_noticed(RUNS[kind], range(0 if how == " up to " else last, last + 1))
    return None if found is None else f"{kind} {found[0]}: {found[1]}"


# --- the mutants ----------------------------------------------------------------------------------------------------

MUTANTS: Final = (
    # Safety: one block a view, and never NULLIFY with FINALIZE.
    _mutant(
        "FINALIZE after NULLIFY",
        "engine: a_view_given_up_is_never_finalized",
        (Engine._cast_finalize, "Kind.NULLIFY in current.mine or ", ""),
    ),
    _mutant(
        "NULLIFY after FINALIZE",
        "guards: a_final_vote_of_before_a_restart_forbids_giving_the_view_up",
        (Engine._give_up, "Kind.FINALIZE in current.mine or ", ""),
    ),
    _mutant(
        "NULLIFY after FINALIZE in a view that its notarization does not end",
        "engine: a_view_finalized_is_never_given_up",
        (Engine._give_up, "Kind.FINALIZE in current.mine or ", ""),
        (
            Engine._hold,
            "if statement.view >= self._view:",
            "if statement.view >= self._view and statement.kind is not Kind.NOTARIZE:",
        ),
    ),
    _mutant(
        "NOTARIZE after NULLIFY",
        "engine: n3_a_view_given_up_is_not_notarized",
        (Engine._follow_leader, " or Kind.NULLIFY in current.mine", ""),
    ),
    _mutant(
        "NOTARIZE for each block that the leader shows",
        "engine: n2_a_second_block_in_one_view_is_never_notarized",
        (Engine._on_proposal, "if current.proposal is None:", "if True:"),
        (
            Engine._follow_leader,
            "Kind.NOTARIZE in current.mine or",
            "current.mine.get(Kind.NOTARIZE) == current.proposal.vote.statement or",
        ),
        (Engine._on_evidence, "current.is_contested = True", "pass"),
    ),
    _mutant(
        "FINALIZE of another block than the own NOTARIZE",
        "field: who_notarized_one_block_adopts_the_certificate_of_the_other",
        (Engine._cast_finalize, "if mine is not None and mine != said:", "if False:"),
    ),
    _mutant(
        "FINALIZE of the own NOTARIZE without a quorum's",
        "guards: an_own_vote_is_no_quorum",
        (
            Engine._cast_finalize,
            "current.certificates.get(Kind.NOTARIZE)",
            (
                "current.certificates.get(Kind.NOTARIZE) or "
                "(Kind.NOTARIZE in current.mine and Certificate(current.mine[Kind.NOTARIZE], ())) or None"
            ),
        ),
    ),
    _mutant(
        "FINALIZE of a block that is not executed",
        "guards: a_block_is_finalized_only_when_it_is_executed",
        (Engine._cast_finalize, "if self._unfinal.stage(said.block_hash) is Stage.EXECUTED:", "if True:"),
    ),
    _mutant(
        "a notarization taken for a finalization",
        "field: notarize_votes_that_only_journals_hold_count_again",
        (Engine._hold, "if statement.kind is Kind.FINALIZE:", "if statement.kind is not Kind.NULLIFY:"),
    ),
    # Safety: what a block stands on.
    _mutant(
        "no view between is looked at",
        "engine: n5_every_view_between_must_be_nullified",
        (
            Engine._is_justified,
            "missing = self._rounds.not_nullified(parent_view, self._view)",
            "missing: list[int] = []",
        ),
    ),
    _mutant(
        "only the last view between is looked at",
        "engine: n5_every_view_between_must_be_nullified",
        (
            Engine._is_justified,
            "not_nullified(parent_view, self._view)",
            "not_nullified(max(parent_view, self._view - 2), self._view)",
        ),
    ),
    _mutant(
        "a parent that is not notarized",
        "engine: n4_a_parent_that_is_not_notarized_is_asked_for",
        (Engine._is_justified, "if self._parent_hash(parent_view) is None:", "if False:"),
        (
            Engine._follow_leader,
            "parent_hash = self._parent_hash(statement.parent_view)",
            "parent_hash = current.proposal.block.header.parent_hash",
        ),
    ),
    _mutant(
        "a parent below the last final view",
        "engine: n4_a_parent_below_the_last_final_view_is_refused",
        (Engine._follow_leader, "if statement.parent_view < self._final_view:", "if False:"),
    ),
    _mutant(
        "a block on another parent than its vote says",
        "guards: a_block_on_another_parent_than_the_vote_says_is_refused",
        (Engine._is_well_placed, "and header.parent_hash == parent.block_hash", ""),
    ),
    _mutant(
        "a block on any parent",
        "guards: a_block_on_another_parent_than_the_vote_says_is_refused",
        (Engine._is_well_placed, "and header.parent_hash == parent.block_hash", ""),
        (Engine._is_well_placed, "and header.height == parent.header.height + 1", ""),
    ),
    _mutant(
        "any proposer",
        "engine: n6_a_header_out_of_place_gives_the_view_up",
        (
            Engine._is_well_placed,
            "and header.proposer == self._validators.members[self._leader(statement.view)].address",
            "",
        ),
    ),
    _mutant(
        "proposals of others than the leader",
        "engine: n1_a_proposal_of_another_than_the_leader_is_ignored",
        (Engine._on_proposal, "or vote.signer != self._leader(statement.view)", ""),
    ),
    _mutant(
        "a proposal whose block is not the one voted for",
        "guards: a_proposal_with_another_block_never_reaches_the_journal",
        (Engine._on_proposal, "or proposal.block.header.hash != statement.block_hash", ""),
    ),
    _mutant(
        "a proposal that its leader did not sign",
        "guards: a_proposal_needs_its_leaders_signature",
        (Engine._on_proposal, "or not self._is_signed(vote)", ""),
    ),
    _mutant(
        "a body that is not the header's",
        "engine: n1_a_proposal_with_another_body_than_its_header_stands_for_is_ignored",
        (Engine._on_proposal, "or not _is_whole(proposal.block)", ""),
    ),
    _mutant(
        "a contested leader is followed",
        "engine: n7_two_blocks_of_one_leader_give_the_view_up_and_accuse_it",
        (Engine._on_evidence, "current.is_contested = True", "pass"),
    ),
    _mutant(
        "NOTARIZE before the block is executed",
        "engine: a_good_proposal_is_executed_then_notarized",
        (
            Engine._follow_leader,
            "elif self._unfinal.stage(statement.block_hash) is Stage.EXECUTED:",
            "elif statement.block_hash in self._unfinal:",
        ),
    ),
    _mutant(
        "roots that differ are not looked at",
        "engine: n8_a_block_that_executes_differently_gives_the_view_up",
        (Engine._on_validated, "if fault is None else Stage.INVALID", ""),
    ),
    # Safety: what makes a quorum.
    _mutant(
        "a quorum of 2f + 1",
        "field: two_quorums_share_an_honest_validator_whatever_the_size",
        (votes.quorum, "validators - (validators - 1) // 3", "2 * ((validators - 1) // 3) + 1"),
    ),
    _mutant(
        "a quorum of all but none",
        "guards: a_quorum_needs_the_signature_of_each",
        (votes.quorum, "validators - (validators - 1) // 3", "validators - (validators - 2) // 3"),
    ),
    _mutant(
        "a quorum of those who are heard",
        "field: a_quorum_does_not_shrink_to_those_who_are_there",
        (
            Engine._count,
            "len(votes) >= self._quorum and",
            "len(votes) >= quorum(sum(each > now.mono_ms - 5_000 for each in self._heard_ms)) and",
        ),
    ),
    _mutant(
        "certificates are not checked",
        "engine: an_invalid_certificate_changes_nothing",
        (Engine._is_valid, "return False", "return True"),
    ),
    _mutant(
        "signatures of certificates are not checked",
        "engine: an_invalid_certificate_changes_nothing",
        (
            Engine._is_valid,
            "check_certificate(certificate, self._keys, self._genesis_hash)",
            "check_signers(certificate, len(self._keys))",
        ),
    ),
    _mutant(
        "a signer counts twice",
        "guards: a_signer_counts_once_in_a_certificate",
        (votes.check_signers, "sorted(set(signers)) != signers or", ""),
    ),
    _mutant(
        "signers outside the set",
        "guards: a_certificate_with_a_signer_outside_the_set_changes_nothing",
        (
            votes.check_signers,
            "if sorted(set(signers)) != signers or (signers and not 0 <= signers[0] <= signers[-1] < validators):",
            "if sorted(set(signers)) != signers:",
        ),
    ),
    _mutant(
        "votes without a signature",
        "guards: a_quorum_needs_the_signature_of_each",
        (Engine._on_vote, " and self._is_signed(vote)", ""),
    ),
    _mutant(
        "votes that others pass on",
        "guards: a_vote_that_another_passes_on_is_not_counted",
        (Engine._on_message, "if signer == message.signer:", "if True:"),
    ),
    _mutant(
        "votes for different blocks are added up",
        "guards: votes_for_different_blocks_are_not_added_up",
        (Round.tally, " if votes[signer].statement == statement", ""),
    ),
    _mutant(
        "certificates that contradict each other",
        "engine: two_finalizations_of_one_view_stop_the_node",
        (Engine._check_agreement, "held.statement != other.statement and", "False and"),
    ),
    _mutant(
        "a certified block that is invalid here",
        "engine: a_quorum_for_a_block_that_is_invalid_here_stops_the_node",
        (Engine._execute_certified, "if self._unfinal.stage(block_hash) is Stage.INVALID:", "if False:"),
    ),
    _mutant(
        "a final block beside the head",
        "engine: a_final_block_beside_the_final_head_stops_the_node",
        (Engine._check_extends, "certificate is not None and", "False and"),
    ),
    # Epochs.
    _mutant(
        "the keys of the epoch before",
        "field: the_turns_after_a_change_of_validators_are_the_same_for_all",
        (
            Engine._start_epoch,
            "self._keys = validators.keys",
            'self._keys = getattr(self, "_keys", validators.keys)',
        ),
    ),
    _mutant(
        "the quorum of the first epoch",
        "field: the_turns_after_a_change_of_validators_are_the_same_for_all",
        (
            Engine._start_epoch,
            "self._quorum = quorum(len(validators.members))",
            'self._quorum = getattr(self, "_quorum", quorum(len(validators.members)))',
        ),
    ),
    _mutant(
        "who has left keeps its place",
        "field: a_validator_may_leave_in_any_state",
        (Engine._start_epoch, "self._me = None", 'self._me = self._me if hasattr(self, "_me") else None'),
    ),
    _mutant(
        "certificates of another epoch",
        "guards: a_certificate_of_another_epoch_changes_nothing_wherever_it_stands",
        (Engine._on_certificate, "if statement.epoch != self._epoch:", "if False:"),
    ),
    _mutant(
        "a leader goes on after the epoch's last block",
        "guards: a_leader_proposes_the_epochs_last_block_again",
        (
            Engine._lead,
            "if parent.header.height == boundary_of(self._epoch, self._epoch_blocks):",
            "if False:",
        ),
    ),
    _mutant(
        "the epoch's last block is not followed twice",
        "guards: the_epochs_last_block_is_notarized_again_until_it_is_final",
        (
            Engine._is_well_placed,
            "if parent.header.height == boundary_of(self._epoch, self._epoch_blocks):",
            "if False:",
        ),
    ),
    _mutant(
        "any block after the epoch's last",
        "guards: nothing_else_follows_the_epochs_last_block",
        (Engine._is_well_placed, "return statement.block_hash == parent.block_hash", "pass"),
    ),
    _mutant(
        "messages of the next epoch are dropped",
        "engine: a_vote_that_comes_before_its_epoch_counts_by_its_signers_place_there",
        (Engine._on_message, "self._early.append(received)", "pass"),
    ),
    _mutant(
        "messages of the next epoch keep their signer's old place",
        "engine: a_vote_that_comes_before_its_epoch_counts_by_its_signers_place_there",
        (Engine._with_present_place, "if received.address is None:", "if True:"),
    ),
    _mutant(
        "who is in the epoch before gets no answer",
        "guards: who_is_still_in_the_epoch_before_is_told_how_it_ended",
        (Engine._on_message, "source is not None and self._last_boundary and", "False and"),
    ),
    # Restarts and the disk.
    _mutant(
        "own votes are forgotten in a restart",
        "engine: after_a_restart_own_votes_count_and_bind",
        (Engine._restore, "and vote.signer == self._me", "and False"),
    ),
    _mutant(
        "own votes bind after a restart and do not count",
        "engine: after_a_restart_own_votes_count_and_bind",
        (Engine._restore, "if vote.statement.view > self._final_view:", "if False:"),
    ),
    _mutant(
        "certificates are forgotten in a restart",
        "guards: certificates_of_before_a_restart_are_held_after_it",
        (Engine._restore, "for certificate in restored.certificates:", "for certificate in ():"),
    ),
    _mutant(
        "blocks are forgotten in a restart",
        "engine: after_a_restart_a_leader_sends_its_old_block_and_builds_no_other",
        (Engine._restore, "for block in restored.blocks:", "for block in ():"),
    ),
    _mutant(
        "the head's view is not the floor",
        "guards: an_engine_begins_above_the_view_of_its_final_head",
        (
            Engine._restore,
            "if head.header.height and head.header.epoch == self._epoch:",
            "if False:",
        ),
    ),
    _mutant(
        "catching up does not end the views of the blocks",
        "guards: a_final_block_from_a_peer_ends_its_view",
        (Engine._on_final, "self._raise_floor(header.view, now)", "pass"),
    ),
    _mutant(
        "a leader builds again after a restart",
        "field: notarize_votes_that_only_journals_hold_count_again",
        (Engine._lead, "if current.mine or current.building_on", "if current.building_on"),
    ),
    _mutant(
        "NOTARIZE without what it relies on",
        "engine: n5_the_gap_in_the_proposal_is_enough",
        (
            Engine._reliance,
            "return tuple(dict.fromkeys([each for each in held if each is not None]))",
            "return ()",
        ),
    ),
    _mutant(
        "FINALIZE without what it relies on",
        "engine: a_notarized_block_is_finalized_with_the_certificate_it_relies_on",
        (Engine._cast_finalize, "(notarization,), None", "(), None"),
    ),
    _mutant(
        "NOTARIZE without its block",
        "engine: a_good_proposal_is_executed_then_notarized",
        (
            Engine._follow_leader,
            "self._reliance(statement.parent_view), block)",
            "self._reliance(statement.parent_view), None)",
        ),
    ),
    _mutant(
        "a damaged step of the journal is read",
        "disks up to 5",
        (journal._read_step, " and _is_whole(step[: -len(_END)])", ""),
    ),
    _mutant(
        "a damaged journal ends where it is damaged",
        "disks up to 5",
        (journal._read_step, "if _content_end(descriptor, at, size) < end:", "if True:"),
    ),
    _mutant(
        "a step that was never synced is damage",
        "disks up to 20",
        (journal._read_step, "if _content_end(descriptor, at, size) < end:", "if False:"),
    ),
    _mutant(
        "another process with the same key",
        "engine: a_vote_with_our_key_that_we_did_not_cast_stops_the_node",
        (Engine._watch_own, "vote.signer == self._me", "False"),
    ),
    _mutant(
        "old votes of a key whose journal was lost",
        "engine: an_own_vote_below_what_the_journal_keeps_is_nobody_elses",
        (Engine._watch_own, "and (vote.statement.epoch, vote.statement.view) > self._silent_through", ""),
    ),
    _mutant(
        "voting before listening",
        "engine: a_validator_that_listens_first_follows_but_does_not_vote",
        (Engine._act, "now.mono_ms < self._votes_from_ms", "False"),
    ),
    # After a restore.
    _mutant(
        "voting right after a restore",
        "restores at 0",
        (Engine._act, " and not self.keeps_silent", ""),
    ),
    _mutant(
        "FINALIZE below the watermark",
        "restore: no_view_up_to_the_watermark_is_finalized_later",
        (Engine._cast_finalize, "(self._epoch, view) <= self._silent_through", "False"),
    ),
    _mutant(
        "a guard that hears too few",
        "restore: fewer_than_a_quorum_of_others_end_nothing",
        (Engine._lower_guard, "self.guard_heard >= self.guard_quorum", "self.guard_heard >= 2"),
    ),
    _mutant(
        "a guard that hears who is further",
        "restore: who_is_further_is_not_heard_before_its_certificates_are",
        (Guard.passed, " and self._told[each] <= place", ""),
    ),
    _mutant(
        "a guard without silence",
        "restore: the_guard_ends_after_the_silence_when_a_quorum_of_others_is_heard",
        (Engine._lower_guard, "now.mono_ms < guard.silent_at_ms", "False"),
    ),
    _mutant(
        "a guard that another process does not keep up",
        "restore: an_own_vote_that_was_not_cast_here_begins_the_silence_anew",
        (Engine._watch_own, "self._guard.hear_own(now)", "pass"),
    ),
    _mutant(
        "a watermark that ends with the epoch",
        "restore: the_watermark_goes_on_into_the_next_epoch_where_this_one_may_end",
        (watermark, "return epoch + 1, GUARD_VIEWS", "return epoch, view + GUARD_VIEWS"),
    ),
    # Time.
    _mutant(
        "blocks earlier than a period after their parent",
        "engine: n6_a_header_out_of_place_gives_the_view_up",
        (
            Engine._is_well_placed,
            "and header.timestamp_ms >= parent.header.timestamp_ms + self._settings.period_ms",
            "",
        ),
    ),
    _mutant(
        "blocks from the future at once",
        "engine: a_block_from_the_future_is_held_until_our_clock_is_near",
        (Engine._is_timely, "if hold_ms <= 0:", "if True:"),
    ),
    _mutant(
        "blocks from the future never",
        "engine: a_block_from_the_future_is_held_until_our_clock_is_near",
        (
            Engine._is_timely,
            "if now.mono_ms + hold_ms > self._entered_ms + self._scale(self._settings.notarize_ms):",
            "if True:",
        ),
    ),
    _mutant(
        "a chain ahead of all clocks waits for them",
        "engine: a_block_that_cannot_be_earlier_is_held_no_longer_than_an_honest_leader_waits",
        (Engine._is_timely, "hold_ms = min(hold_ms, self._patience_ends_ms(parent) - now.mono_ms)", "pass"),
    ),
    _mutant(
        "leaders do not wait for their slot",
        "engine: a_leader_waits_for_its_slot",
        (Engine._lead, "if wait_ms > 0:", "if False:"),
    ),
    _mutant(
        "leaders stamp what their clocks show",
        "guards: a_leader_whose_clock_is_behind_stamps_what_its_parent_demands",
        (
            Engine._timestamp,
            "Ms(slot_ms if now.wall_ms < slot_ms + self._settings.period_ms else now.wall_ms)",
            "now.wall_ms",
        ),
    ),
    _mutant(
        "waiting grows without a bound",
        "engine: waiting_grows_only_with_views_that_end_without_finality",
        (
            settings.back_off,
            "min(max(views_without_finality - (faulty + 3), 0), BACK_OFF_VIEWS_MAX)",
            "max(views_without_finality - (faulty + 3), 0)",
        ),
        (
            settings.back_off,
            "min(wait_ms * factor >> steps, wait_ms * BACK_OFF_MAX)",
            "wait_ms * factor >> steps",
        ),
    ),
    _mutant(
        "what is repeated comes half as often each time",
        "field: a_parted_network_has_one_history",
        (
            Engine._repeat,
            "self._repeated_ms + self._settings.retry_ms",
            "self._repeated_ms + max(self._settings.retry_ms, self._repeated_ms - self._entered_ms)",
        ),
        (
            Engine._stand_still,
            "standstill_ms = self._settings.standstill_ms",
            "standstill_ms = max(self._settings.standstill_ms, self._stood_still_ms - self._final_seen_ms)",
        ),
    ),
    _mutant(
        "a view is given up before its period is over",
        "field: a_quiet_network_gives_no_view_up",
        (
            Engine._give_up,
            "self._settings.notarize_ms if has_proposal else self._settings.propose_ms",
            "self._settings.period_ms // 2",
        ),
    ),
    _mutant(
        "leaders hurry and nobody minds",
        "field: times_are_at_least_a_period_apart_and_never_refused_for_it",
        (Engine._lead, "if wait_ms > 0:", "if False:"),
        (Engine._timestamp, "Ms(slot_ms if", "Ms(slot_ms - 1 if"),
        (
            Engine._is_well_placed,
            "and header.timestamp_ms >= parent.header.timestamp_ms + self._settings.period_ms",
            "",
        ),
    ),
    _mutant(
        "waiting never grows",
        "engine: waiting_grows_only_with_views_that_end_without_finality",
        (
            settings.back_off,
            "return min(wait_ms * factor >> steps, wait_ms * BACK_OFF_MAX)",
            "return wait_ms",
        ),
    ),
    _mutant(
        "a leader that is late keeps to its old slots",
        "engine: a_leader_that_is_more_than_a_period_late_starts_from_its_clock",
        (Engine._timestamp, "now.wall_ms < slot_ms + self._settings.period_ms", "True"),
    ),
    _mutant(
        "a view is never given up",
        "engine: a_view_without_a_proposal_is_given_up_when_it_is_overdue",
        (Engine._give_up, "if now.mono_ms >= overdue_ms:", "if False:"),
    ),
    _mutant(
        "a proposal does not prolong its view",
        "engine: a_view_with_a_proposal_has_longer",
        (Engine._give_up, "self._settings.notarize_ms if has_proposal else", ""),
    ),
    _mutant(
        "a view that its leader gave up goes on",
        "engine: a_view_that_its_leader_gives_up_is_given_up_at_once",
        (Engine._give_up, "or leader in current.votes[Kind.NULLIFY]", ""),
    ),
    _mutant(
        "a notarization does not end its view",
        "engine: each_kind_of_certificate_ends_its_view_however_far",
        (
            Engine._hold,
            "if statement.view >= self._view:",
            "if statement.view >= self._view and statement.kind is not Kind.NOTARIZE:",
        ),
    ),
    _mutant(
        "a leader waits for its parent as long as it takes",
        "engine: a_leader_without_its_parent_gives_its_view_up_early",
        (Engine._lead, "if now.mono_ms >= self._entered_ms + half_ms:", "if False:"),
    ),
    _mutant(
        "a leader that cannot build goes on with its view",
        "engine: a_leader_that_cannot_build_gives_its_view_up",
        (Engine._on_build_failed, "current.building_on, current.is_refused = None, True", "pass"),
    ),
    _mutant(
        "a build that failed in another epoch ends the view",
        "engine: a_late_failure_to_build_says_nothing_of_the_next_epoch",
        (Engine._on_build_failed, "epoch == self._epoch and ", ""),
    ),
    _mutant(
        "a leader does not ask for the nullifications that it lacks",
        "engine: a_leader_that_lacks_a_nullification_asks_everyone",
        (Engine._lead, "if self._is_due(self._view, now):", "if False:"),
    ),
    _mutant(
        "views that end at once spin",
        "engine: views_that_end_at_once_do_not_spin",
        (Engine._give_up, "self._settings.period_ms if self._is_long_without_finality() else 0", "0"),
    ),
    _mutant(
        "who hears nobody skips everybody",
        "engine: a_node_that_hears_nobody_skips_nobody",
        (Engine._is_silent, " and others >= self._quorum - 1", ""),
    ),
    _mutant(
        "who is heard a moment later after an outage is skipped",
        "engine: after_an_outage_a_leader_is_silent_when_it_had_the_time_to_tell_its_status",
        (Engine._on_message, "self._returned_ms = now.mono_ms", "pass"),
    ),
    _mutant(
        "silent leaders are always waited for",
        "engine: a_silent_leader_is_skipped_while_the_others_are_heard",
        (Engine._is_silent, "return leader != self._me and", "return False and"),
    ),
    # What is told, asked and kept.
    _mutant(
        "standstill is not answered",
        "engine: after_a_restart_a_leader_sends_its_old_block_and_builds_no_other",
        (Engine._stand_still, "if now.mono_ms < due_ms:", "if True:"),
    ),
    _mutant(
        "a view given up is not told again",
        "engine: what_was_given_up_is_said_again_each_second",
        (Engine._repeat, "if Kind.NULLIFY not in current.mine:", "if True:"),
    ),
    _mutant(
        "laggards are not answered",
        "guards: who_shows_a_lower_view_is_sent_what_brings_it_here",
        (Engine._answer_laggard, "if view < self._view and", "if False and"),
    ),
    _mutant(
        "who asks for certificates gets none",
        "guards: certificates_of_before_a_restart_are_held_after_it",
        (Engine._answer, "if self._answers.take(source, now.mono_ms):", "if False:"),
    ),
    _mutant(
        "a nullification ends the interest in the view's notarization",
        "guards: a_view_may_be_nullified_and_notarized",
        (
            Engine._on_certificate,
            "elif self._is_valid(certificate):",
            (
                "elif (statement.kind is not Kind.NOTARIZE or self._rounds.nullification(statement.view) is None) "
                "and self._is_valid(certificate):"
            ),
        ),
    ),
    _mutant(
        "an own NULLIFY ends the interest in the view's block",
        "guards: an_own_nullify_does_not_end_the_interest_in_the_views_block",
        (
            Engine._on_certificate,
            "elif self._is_valid(certificate):",
            (
                "elif (statement.kind is Kind.NULLIFY or Kind.NULLIFY not in self._rounds[statement.view].mine) "
                "and self._is_valid(certificate):"
            ),
        ),
        (
            Engine._count,
            "len(votes) >= self._quorum and",
            (
                "len(votes) >= self._quorum and "
                "(statement.kind is Kind.NULLIFY or Kind.NULLIFY not in current.mine) and"
            ),
        ),
    ),
    _mutant(
        "certificates are not passed on",
        "engine: a_certificate_is_passed_on_once",
        (Engine._hold, "self._effects.append(Broadcast(certificate))", "pass"),
    ),
    _mutant(
        "certificates stay where they were made",
        "field: one_with_the_notarization_and_the_others_with_the_nullification_go_on_at_once",
        (Engine._hold, "self._effects.append(Broadcast(certificate))", "pass"),
        (Engine._own_message, "self._certificate_of(statement.parent_view), inline", "None, ()"),
        (Engine._answer, "if self._answers.take(source, now.mono_ms):", "if False:"),
        (Engine._certificates_above_final, "[*final, *above]", "[*final]"),
        (Engine._repeat, "if self._entry is not None:", "if False:"),
        (Engine._stand_still, "for view in list(self._rounds)[-CERTIFICATES_SENT_MAX:]:", "for view in ():"),
    ),
    _mutant(
        "certificates are passed on each time",
        "engine: a_certificate_is_passed_on_once",
        (
            Engine._on_certificate,
            "self._check_agreement(held, certificate)",
            "self._effects.append(Broadcast(certificate))",
        ),
    ),
    _mutant(
        "votes of any later view are kept",
        "guards: votes_far_ahead_are_dropped",
        (
            Engine._on_vote,
            "self._final_view < view <= self._view + VIEWS_AHEAD_MAX",
            "self._final_view < view",
        ),
    ),
    _mutant(
        "proposals of any later view are kept",
        "guards: a_proposal_too_far_ahead_is_dropped_whoever_leads",
        (
            Engine._on_proposal,
            "self._final_view < statement.view <= self._view + VIEWS_AHEAD_MAX",
            "self._final_view < statement.view",
        ),
    ),
    _mutant(
        "rounds below the final view are kept",
        "field: who_gave_a_view_up_still_follows_its_notarization",
        (Rounds.forget_below, "if each >= view", ""),
    ),
    _mutant(
        "any number of messages waits for the next epoch",
        "field: a_flood_of_later_views_fills_no_memory",
        (Engine.__init__, "deque(maxlen=EARLY_MAX)", "deque()"),
    ),
    _mutant(
        "a peer is answered as often as it asks",
        "guards: a_peer_is_answered_so_often_a_second",
        (AnswerBudget.take, "if count >= ANSWERS_PER_SECOND_MAX:", "if False:"),
    ),
    _mutant(
        "an answer of any length",
        "guards: an_answer_is_bounded",
        (Engine._certificates_above_final, "[:CERTIFICATES_SENT_MAX]", ""),
    ),
    _mutant(
        "a proposal without the nullifications of its gap",
        "engine: a_leader_builds_at_its_slot_and_proposes_when_its_vote_is_on_the_disk",
        (Engine._own_message, "tuple(gaps[:GAPS_INLINE_MAX])", "()"),
    ),
    _mutant(
        "a leader stands on the lowest notarized block",
        "guards: a_leader_stands_on_the_highest_notarized_block",
        (Engine._highest_notarized, "return views[-1] if views", "return views[0] if views"),
    ),
    _mutant(
        "a missing block is asked for once",
        "engine: a_notarized_block_that_is_not_here_is_fetched_from_its_signers_and_again",
        (Engine._is_due, " and now.mono_ms < asked_ms + self._settings.retry_ms", ""),
    ),
    _mutant(
        "a final block is written twice",
        "engine: a_finalization_commits_the_executed_block_once",
        (Engine._commit, " or self._finalizing is not None", ""),
    ),
    _mutant(
        "who votes twice is not accused",
        "engine: n7_two_blocks_of_one_leader_give_the_view_up_and_accuse_it",
        (Engine._on_evidence, "self._effects.append(Accuse(evidence))", "pass"),
    ),
    _mutant(
        "who votes twice is accused each time",
        "guards: three_votes_of_one_validator_are_one_accusation",
        (Engine._on_evidence, "current.accused.add(evidence.first.signer)", "pass"),
    ),
    _mutant(
        "NOTARIZE and NULLIFY are taken for a contradiction",
        "guards: giving_up_after_notarizing_is_no_fault",
        (votes.contradict, "return kinds == {Kind.NULLIFY, Kind.FINALIZE}", "return len(kinds) == 2"),
    ),
    _mutant(
        "the last vote of a validator replaces its first",
        "engine: n7_two_blocks_of_one_leader_give_the_view_up_and_accuse_it",
        (
            Round.add,
            "self.votes[vote.statement.kind].setdefault(vote.signer, vote)",
            "self.votes[vote.statement.kind][vote.signer] = vote",
        ),
    ),
)


# --- as a program ---------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Exits with 1 if any mutant is noticed nowhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    for kind, count in (("liars", 200), ("twins", 100), ("disks", 20), ("restores", 10), ("seeds", 20)):
        parser.add_argument(f"--{kind}", type=int, default=count, help="at most so many for each mutant")
    parser.add_argument("--only", default="", help="the mutants whose name contains this")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    counts = {kind: getattr(options, kind) for kind in RUNS}
    report = {each.name: _report(each, counts) for each in MUTANTS if options.only in each.name}
    survivors = [name for name, found in report.items() if not any(found.values())]
    by_chance = sum(any(found[kind] for kind in RUNS) for found in report.values())
    summary = {
        "mutants": len(report),
        "noticed by their test": sum(found["test"] is not None for found in report.values()),
        "noticed by liars, twins or seeds": by_chance,
        "survivors": survivors,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps({**summary, "each": report}, indent=2))
    return 1 if survivors else 0


def _report(mutant: Mutant, counts: dict[str, int]) -> dict[str, object]:
    """What its test says, and the first liar, the first twins and the first seed that notice."""
    with planted(mutant):
        fault = play(mutant.noticed_by)
        runs = {kind: first_noticed(run, range(counts[kind])) for kind, run in RUNS.items()}
    return {"test": None if fault is None else [mutant.noticed_by, fault], **runs}


if __name__ == "__main__":
    sys.exit(main())
