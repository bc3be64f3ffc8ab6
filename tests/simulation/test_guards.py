"""Short conversations, each for one rule whose loss no other test tells from its presence (tests/simulation/mutants.py)."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ctt_state.block import Block
from ctt_state.units import ZERO_HASH, Height, Ms
from ctt_state.votes import Certificate, Kind, Statement, sign_vote
from node.consensus.answers import ANSWERS_PER_SECOND_MAX
from node.consensus.engine import CERTIFICATES_SENT_MAX, VIEWS_AHEAD_MAX, Engine
from node.consensus.events import (
    NOTHING_RESTORED,
    Accuse,
    BlockArrived,
    BlockFinal,
    Broadcast,
    Build,
    BuildFailed,
    Cast,
    GetCertificates,
    Halt,
    Head,
    Message,
    Received,
    Restored,
    Send,
    Status,
    Tick,
    Validate,
)
from tests.consensus_world import GENESIS_HASH, PERIOD_MS
from tests.simulation.cluster import Apply, quick_signatures
from tests.simulation.stage import Stage, statement_in
from tests.test_engine import (
    GENESIS,
    ME,
    MEMBERS,
    SECRETS,
    SETTINGS,
    START,
    Talk,
    casts,
    certificate,
    make_block,
    make_proposal,
    of,
    vote,
)

# --- votes ----------------------------------------------------------------------------------------------------------


def test_a_final_vote_of_before_a_restart_forbids_giving_the_view_up() -> None:
    """Even if the notarization that it relies on were lost, which alone keeps the engine from the view otherwise."""
    mine = vote(Kind.FINALIZE, 1, ME, make_block())
    talk = Talk(restored=Restored((mine,), (), ()))

    assert casts(talk.tell(Tick(), 60_000)) == []


def test_a_block_is_finalized_only_when_it_is_executed() -> None:
    talk, block = Talk(), make_block()

    heard = talk.hear(certificate(Kind.NOTARIZE, 1, block)) + talk.tell(BlockArrived(block))

    assert casts(heard) == []
    assert casts(talk.validate(block)) == [(Kind.FINALIZE, 1)]


def test_an_own_vote_is_no_quorum() -> None:
    talk, block = Talk(), make_block()
    talk.propose(block)

    assert casts(talk.validate(block) + talk.tell(Tick(), 1)) == [(Kind.NOTARIZE, 1)]


@pytest.mark.parametrize("is_forged", [False, True])
def test_a_quorum_needs_the_signature_of_each(is_forged: bool) -> None:
    talk = Talk()
    talk.hear(vote(Kind.NULLIFY, 1, 1), 1)
    talk.hear(vote(Kind.NULLIFY, 1, 2), 2)
    third = vote(Kind.NULLIFY, 1, 3)

    talk.hear(third._replace(signature=b"s" * 64) if is_forged else third, 3)

    assert talk.engine.view == (1 if is_forged else 2)


def test_a_vote_that_another_passes_on_is_not_counted() -> None:
    """It would be genuine. But then one peer could fill the slots of all, and a vote not be told from its echo."""
    talk = Talk()
    for signer in (1, 2, 3):
        talk.hear(vote(Kind.NULLIFY, 1, signer), 1)

    assert talk.engine.view == 1


def test_votes_for_different_blocks_are_not_added_up() -> None:
    talk, one, two = Talk(), make_block(), make_block(gas_used=1)
    for signer, block in ((1, one), (2, one), (3, two)):
        talk.hear(vote(Kind.NOTARIZE, 1, signer, block), signer)

    assert talk.engine.view == 1


def test_votes_far_ahead_are_dropped() -> None:
    talk = Talk()
    for signer in (1, 2, 3):
        talk.hear(vote(Kind.NULLIFY, 1 + VIEWS_AHEAD_MAX, signer), signer)
    assert talk.engine.view == 2 + VIEWS_AHEAD_MAX

    ahead = talk.engine.view + VIEWS_AHEAD_MAX + 1
    for signer in (1, 2, 3):
        talk.hear(vote(Kind.NULLIFY, ahead, signer), signer)

    assert talk.engine.view == 2 + VIEWS_AHEAD_MAX


def test_three_votes_of_one_validator_are_one_accusation() -> None:
    talk = Talk()
    effects = [each for gas in range(4) for each in talk.propose(make_block(gas_used=gas))]

    assert len(of(effects, Accuse)) == 1


def test_giving_up_after_notarizing_is_no_fault() -> None:
    talk = Talk()
    effects = talk.hear(vote(Kind.NOTARIZE, 1, 2, make_block()), 2) + talk.hear(vote(Kind.NULLIFY, 1, 2), 2)

    assert of(effects, Accuse) == []


# --- proposals ------------------------------------------------------------------------------------------------------


def test_a_proposal_with_another_block_never_reaches_the_journal() -> None:
    talk, block = Talk(), make_block()
    talk.hear(replace(make_proposal(block), block=make_block(gas_used=1)))

    effects = talk.tell(BlockArrived(block)) + talk.validate(block) + talk.tell(Tick(), 1)

    assert of(effects, Cast) == []


def test_a_proposal_needs_its_leaders_signature() -> None:
    talk, proposal = Talk(), make_proposal(make_block())
    forged = replace(proposal, vote=proposal.vote._replace(signature=b"s" * 64))

    assert of(talk.hear(forged), Validate) == []


def test_a_proposal_too_far_ahead_is_dropped_whoever_leads() -> None:
    talk = Talk()
    view = 1 + VIEWS_AHEAD_MAX + 2
    assert MEMBERS.leader(0, view) != ME
    talk.propose(make_block(view), view)

    effects = [each for gone in range(1, view) for each in talk.hear(certificate(Kind.NULLIFY, gone))]

    assert of(effects, Validate) == []


def test_a_block_on_another_parent_than_the_vote_says_is_refused() -> None:
    """Both stand: the vote's parent is notarized, the block's parent is the final head."""
    talk, first = Talk(), make_block()
    notarized = certificate(Kind.NOTARIZE, 1, first)
    talk.propose(first)
    talk.validate(first)
    talk.hear(notarized)

    later_ms = Ms(first.header.timestamp_ms + PERIOD_MS)
    effects = talk.propose(make_block(2, height=Height(2), timestamp_ms=later_ms), 2, parent=notarized)

    assert of(effects, Validate) == []
    assert casts(effects) == [(Kind.NULLIFY, 2)]


def test_a_leader_stands_on_the_highest_notarized_block() -> None:
    talk, first = Talk(), make_block()
    second = make_block(2, first)
    for view, block, parent_view in ((1, first, 0), (2, second, 1)):
        talk.hear(certificate(Kind.NOTARIZE, view, block, parent_view))
        talk.tell(BlockArrived(block))
        talk.validate(block)
    effects = talk.hear(certificate(Kind.NULLIFY, 3)) + talk.tell(Tick(), PERIOD_MS + PERIOD_MS // 8)

    (build,) = of(effects, Build)
    assert isinstance(build, Build)
    assert build.parent_hash == second.header.hash


def test_a_leader_whose_clock_is_behind_stamps_what_its_parent_demands() -> None:
    talk = Talk()
    talk.now = START._replace(wall_ms=Ms(START.wall_ms - 10_000))
    talk.tell(Tick(), 2 * PERIOD_MS)

    effects = [each for view in (1, 2, 3) for each in talk.hear(certificate(Kind.NULLIFY, view))]

    (build,) = of(effects, Build)
    assert isinstance(build, Build)
    assert build.timestamp_ms == GENESIS.timestamp_ms + PERIOD_MS


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signers", [(1, 1, 1), (1, 2, 2), (1, 1, 2, 2)])
def test_a_signer_counts_once_in_a_certificate(signers: tuple[int, ...]) -> None:
    talk = Talk()
    talk.hear(certificate(Kind.NULLIFY, 1, signers=signers))

    assert talk.engine.view == 1


@pytest.mark.parametrize("stranger", [4, 5, 99, 2**31, 2**63, -1])
def test_a_certificate_with_a_signer_outside_the_set_changes_nothing(stranger: int) -> None:
    """ASA-2024-011, ASA-2025-003 of CometBFT: indices and lengths that did not fit the set."""
    talk = Talk()
    good = certificate(Kind.NULLIFY, 1)
    talk.hear(good._replace(signatures=(*good.signatures, (stranger, b"s" * 64))))
    talk.hear(good._replace(signatures=((stranger, b"s" * 64), *good.signatures)))

    assert talk.engine.view == 1


def test_a_certificate_of_another_epoch_changes_nothing_wherever_it_stands() -> None:
    talk = Talk()
    statement = Statement(Kind.NULLIFY, 1, 7, 0, ZERO_HASH)
    votes = [sign_vote(statement, signer, SECRETS[signer], GENESIS_HASH) for signer in (1, 2, 3)]
    foreign = Certificate(statement, tuple((each.signer, each.signature) for each in votes))

    talk.hear(Status(0, 9, Height(0), GENESIS.hash, foreign))

    assert talk.engine.view == 1


def test_a_view_may_be_nullified_and_notarized() -> None:
    """Some hold the one, some the other. Who builds on the block must find its proof with everyone."""
    talk, block = Talk(), make_block()
    notarized = certificate(Kind.NOTARIZE, 1, block)
    talk.hear(certificate(Kind.NULLIFY, 1))

    assert Broadcast(notarized) in talk.hear(notarized)
    talk.tell(BlockArrived(block))
    talk.validate(block)
    child = make_block(2, block)
    assert of(talk.propose(child, 2, notarized), Validate) == [Validate(child)]


def test_an_own_nullify_does_not_end_the_interest_in_the_views_block() -> None:
    talk, block = Talk(), make_block()
    talk.tell(Tick(), SETTINGS.propose_ms)
    for signer in (1, 2, 3):
        talk.hear(vote(Kind.NOTARIZE, 1, signer, block), signer)

    assert talk.engine.view == 2


# --- the end of an epoch --------------------------------------------------------------------------------------------


def at_the_epochs_end(talk: Talk) -> tuple[Block, Certificate]:
    """The last block is notarized in view 2 and executed. It is view 3."""
    before = make_block(1, height=Height(899))
    talk.tell(BlockFinal(Head(before.header, before.header.hash), None))
    last = make_block(2, before)
    notarized = certificate(Kind.NOTARIZE, 2, last, 1)
    talk.hear(notarized)
    talk.tell(BlockArrived(last))
    talk.validate(last)
    return last, notarized


def test_the_epochs_last_block_is_notarized_again_until_it_is_final() -> None:
    talk = Talk()
    last, notarized = at_the_epochs_end(talk)

    (cast,) = of(talk.propose(last, 3, notarized), Cast)

    assert isinstance(cast, Cast)
    assert cast.statement == Statement(Kind.NOTARIZE, 0, 3, 2, last.header.hash)


def test_nothing_else_follows_the_epochs_last_block() -> None:
    talk = Talk()
    last, notarized = at_the_epochs_end(talk)

    effects = talk.propose(make_block(3, last), 3, notarized)

    assert of(effects, Validate) == []
    assert casts(effects) == [(Kind.NULLIFY, 3)]


def test_a_leader_proposes_the_epochs_last_block_again() -> None:
    talk = Talk()
    last, _ = at_the_epochs_end(talk)

    effects = talk.hear(certificate(Kind.NULLIFY, 3)) + talk.tell(Tick(), PERIOD_MS)

    assert of(effects, Build) == []
    (cast,) = of(effects, Cast)
    assert isinstance(cast, Cast)
    assert cast.statement == Statement(Kind.NOTARIZE, 0, 4, 2, last.header.hash)


def test_who_is_still_in_the_epoch_before_is_told_how_it_ended() -> None:
    talk = Talk()
    last, _ = at_the_epochs_end(talk)
    final = certificate(Kind.FINALIZE, 2, last, 1)
    talk.hear(final)
    talk.tell(BlockFinal(Head(last.header, last.header.hash), MEMBERS))
    assert talk.engine.epoch == 1

    effects = talk.hear(Status(0, 3, Height(899), ZERO_HASH, None), 2)

    assert Send("peer 2", final) in effects


def test_the_epochs_last_block_may_become_final_in_a_later_view() -> None:
    """Who gave its view up never says FINALIZE there. If f+1 did, only a later view can end the epoch."""
    with quick_signatures():
        stage = Stage(epoch_blocks=10)

        def lets_through(source: int, to: int, message: Message) -> bool:
            """Nobody hears of a FINALIZE of a last block in the view that it was made for."""
            statement = statement_in(message)
            if statement is None or statement.kind is not Kind.FINALIZE:
                return True
            block = stage.machines[source].engine.block(statement.block_hash)
            is_first = block is not None and block.header.view == statement.view
            return not (is_first and block is not None and block.header.height % 10 == 0)

        stage.lets_through = lets_through
        stage.goes_on(25)


# --- restarts -------------------------------------------------------------------------------------------------------


def test_a_build_that_fails_after_its_epochs_end_costs_nothing() -> None:
    """A leader whose clock is behind waits for its slot. Meanwhile it is catching up, which ends the epoch."""
    with quick_signatures():
        stage = Stage(epoch_blocks=10)
        leader, view = stage.leader(9), 9
        stage.play_until(lambda: leader.disk.head.height == view - 1, 5_000)
        stage.crash(leader.number, None)
        stage.play_until(lambda: stage.checker.height == 11, 10_000)
        stage.run_ms(500)  # it is soon that the others tell their status
        failed: list[tuple[object, int]] = []

        def happen(number: int, life: int, what: object) -> None:
            if isinstance(what, BuildFailed):
                failed.append((what, leader.engine.epoch))
            Stage._happen(stage, number, life, what)

        stage._happen = happen  # type: ignore[method-assign]
        stage.lets_through = lambda source, to, message: (
            not isinstance(message, Certificate) or to != leader.number or leader.engine.epoch > 0
        )
        stage.work_ms[Apply] = (300, 300)
        leader.clock.offset_ms = -10_000
        stage.restart(leader.number)
        stage.goes_on(20)
        assert failed == [(BuildFailed(0, view), 1)]


def test_an_engine_begins_above_the_view_of_its_final_head() -> None:
    """Whatever the journal remembers: commonware#3727, tempo#7255."""
    head = make_block(5)
    engine = Engine(
        SETTINGS,
        genesis_hash=GENESIS_HASH,
        epoch_blocks=900,
        head=Head(head.header, head.header.hash),
        epoch=0,
        validators=MEMBERS,
        consensus_key=MEMBERS.keys[ME],
        restored=NOTHING_RESTORED,
        now=START,
    )

    assert (engine.finalized_view, engine.view) == (5, 6)


def test_a_final_block_from_a_peer_ends_its_view() -> None:
    """Even if the certificate that came with it proves a later one."""
    talk, block = Talk(), make_block(7)

    talk.tell(BlockFinal(Head(block.header, block.header.hash), None))

    assert (talk.engine.finalized_view, talk.engine.view) == (7, 8)


def test_certificates_of_before_a_restart_are_held_after_it() -> None:
    """Else a quorum that crashed at once would not know what its own votes rely on."""
    gaps = tuple(certificate(Kind.NULLIFY, view) for view in (1, 2))

    talk = Talk(restored=Restored((), gaps, ()))

    assert talk.engine.view == 3
    assert [each for each in talk.hear(GetCertificates(0, 1, 2), 2) if isinstance(each, Send)] == [
        Send("peer 2", each) for each in gaps
    ]


def test_a_second_process_with_a_key_notices_while_it_listens() -> None:
    """blockscape (2020): an active and a standby validator signed with one key, both from what each of them knew."""
    engine = Engine(
        replace(SETTINGS, listen_ms=5_000),
        genesis_hash=GENESIS_HASH,
        epoch_blocks=900,
        head=Head(GENESIS, GENESIS.hash),
        epoch=0,
        validators=MEMBERS,
        consensus_key=MEMBERS.keys[ME],
        restored=NOTHING_RESTORED,
        now=START,
    )
    quiet = engine.step(Tick(), START._replace(mono_ms=START.mono_ms + 4_000))
    heard = Received(vote(Kind.NULLIFY, 1, ME), "peer 1", ME)

    effects = engine.step(heard, START._replace(mono_ms=START.mono_ms + 4_500))

    assert of(quiet, Cast) == of(effects, Cast) == []
    assert len(of(effects, Halt)) == 1


# --- answers --------------------------------------------------------------------------------------------------------


def test_who_shows_a_lower_view_is_sent_what_brings_it_here() -> None:
    talk, nullified = Talk(), certificate(Kind.NULLIFY, 1)
    talk.hear(nullified)

    assert Send("peer 2", nullified) in talk.hear(Status(0, 1, Height(0), GENESIS.hash, None), 2)
    assert Send("peer 3", nullified) in talk.hear(vote(Kind.NULLIFY, 1, 3), 3)
    assert of(talk.hear(Status(0, 2, Height(0), GENESIS.hash, None), 1), Send) == []


def test_a_peer_is_answered_so_often_a_second() -> None:
    talk = Talk()
    talk.hear(certificate(Kind.NULLIFY, 1))

    answers = [len(of(talk.hear(GetCertificates(0, 1, 1), 2), Send)) for _ in range(50)]

    assert sum(answers) == ANSWERS_PER_SECOND_MAX
    assert len(of(talk.hear(GetCertificates(0, 1, 1), 3), Send)) == 1
    talk.tell(Tick(), 1_000)
    assert len(of(talk.hear(GetCertificates(0, 1, 1), 2), Send)) == 1


def test_an_answer_is_bounded() -> None:
    """TON, Catchain 2.0, section 4.3: repeating all of a long standstill made it longer."""
    talk = Talk()
    for view in range(1, 2 * CERTIFICATES_SENT_MAX):
        talk.hear(certificate(Kind.NULLIFY, view))

    told = talk.hear(Status(0, 1, Height(0), GENESIS.hash, None), 2)
    asked = talk.hear(GetCertificates(0, 1, 2**64 - 1), 3)
    stood = [each for each in of(talk.tell(Tick(), 10_000), Broadcast) if isinstance(each, Broadcast)]

    assert len(of(told, Send)) == len(of(asked, Send)) == CERTIFICATES_SENT_MAX
    assert len([each for each in stood if isinstance(each.message, Certificate)]) <= CERTIFICATES_SENT_MAX + 1


# --- numbers that fit nothing ---------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 4, 5, 2**31, 2**32 + 1, 2**63, 2**64 - 1)


def odd_statements(kind: Kind) -> Iterator[Statement]:
    said = vote(kind, 1, 1, None if kind is Kind.NULLIFY else make_block()).statement
    for number in NUMBERS:
        yield said._replace(view=number)
        yield said._replace(epoch=number)
        yield said._replace(parent_view=number)


@pytest.mark.parametrize("kind", list(Kind))
def test_odd_numbers_in_votes_and_certificates_break_nothing(kind: Kind) -> None:
    """ASA-2024-001, ASA-2025-002, ASA-2025-003 of CometBFT: an index out of range stopped nodes."""
    talk = Talk()
    for statement in odd_statements(kind):
        for signer in (1, *NUMBERS):
            signed = sign_vote(statement, signer, SECRETS[1], GENESIS_HASH)
            effects = talk.hear(signed, signer) + talk.hear(signed, 1) + talk.hear(signed, None)
            assert of(effects, Halt) == []
            talk.hear(Certificate(statement, ((signer, signed.signature),) * 3))
    assert talk.engine.view == 1


@pytest.mark.parametrize("field", ["height", "epoch", "view", "timestamp_ms", "version", "gas_used"])
def test_odd_numbers_in_a_proposals_header_break_nothing(field: str) -> None:
    for number in NUMBERS:
        talk, change = Talk(), {field: number}
        block = make_block()
        effects = talk.propose(block._replace(header=block.header._replace(**change)))  # type: ignore[arg-type]
        assert of(effects, Halt) == []
        assert talk.engine.view == 1


@pytest.mark.parametrize("view", NUMBERS)
def test_odd_numbers_in_a_proposals_vote_break_nothing(view: int) -> None:
    talk, block = Talk(), make_block()
    good = make_proposal(block)
    for parent_view in NUMBERS:
        statement = good.vote.statement._replace(view=view, parent_view=parent_view)
        signed = sign_vote(statement, 1, SECRETS[1], GENESIS_HASH)
        assert of(talk.hear(replace(good, vote=signed)), Halt) == []
    assert talk.engine.view == 1


def test_odd_numbers_in_questions_break_nothing() -> None:
    talk = Talk()
    talk.hear(certificate(Kind.NULLIFY, 1))
    for one in NUMBERS:
        for two in NUMBERS:
            talk.hear(GetCertificates(one, two, one), 2)
            talk.hear(GetCertificates(0, one, two), 2)
            talk.hear(Status(one, two, Height(one), ZERO_HASH, None), 2)
    assert talk.engine.view == 2
    assert of(talk.hear(GetCertificates(0, 0, 2**64 - 1), 3), Send) == [
        Send("peer 3", certificate(Kind.NULLIFY, 1))
    ]
