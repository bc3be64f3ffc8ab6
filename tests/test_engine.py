"""The engine's rules, one by one, and sets of engines in virtual time (docs/PROTOCOL.md, C-3 to C-12)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ctt_state.block import Block
from ctt_state.crypto import sha256
from ctt_state.units import ZERO_HASH, Hash, Height, Ms
from ctt_state.validators import ValidatorSet
from ctt_state.votes import Certificate, Kind, Statement, Vote, sign_vote
from node.consensus.engine import VIEWS_AHEAD_MAX, Engine
from node.consensus.events import (
    Accuse,
    BlockBuilt,
    BlockFinal,
    BlockValidated,
    Broadcast,
    Build,
    BuildFailed,
    Cast,
    Effect,
    Fetch,
    Finalize,
    GetCertificates,
    Halt,
    Head,
    Message,
    Now,
    Proposal,
    Received,
    Restored,
    Send,
    Status,
    Tick,
    Validate,
    VoteSigned,
)
from node.consensus.settings import Settings, back_off
from tests.consensus_world import GENESIS_HASH, PERIOD_MS, World, make_header, make_set

MEMBERS, SECRETS = make_set(4)
START = Now(1_000, Ms(1_800_000_000_000))
GENESIS = make_header(None, members=MEMBERS, epoch=0, view=0, timestamp_ms=START.wall_ms - PERIOD_MS)
ME = 0  # leads views 4, 8, ...
SETTINGS = Settings(PERIOD_MS)


class Talk:
    """One engine and what it is told; the rest of the set is played by the test."""

    def __init__(self, *, restored: Restored | None = None, secret: bytes | None = SECRETS[ME]) -> None:
        self.now = START
        self.engine = Engine(
            SETTINGS,
            genesis_hash=GENESIS_HASH,
            epoch_blocks=900,
            head=Head(GENESIS, GENESIS.hash),
            epoch=0,
            validators=MEMBERS,
            consensus_key=None if secret is None else MEMBERS.keys[ME],
            restored=restored or Restored((), (), ()),
            now=self.now,
        )
        self.tell(Tick())

    def tell(self, event: object, after_ms: int = 0) -> list[Effect]:
        self.now = Now(self.now.mono_ms + after_ms, Ms(self.now.wall_ms + after_ms))
        return self.engine.step(event, self.now)  # type: ignore[arg-type]

    def hear(self, message: Message, signer: int | None = 1) -> list[Effect]:
        return self.tell(Received(message, source=f"peer {signer}", signer=signer))

    def propose(
        self, block: Block, view: int = 1, parent: Certificate | None = None, **changes: Any
    ) -> list[Effect]:
        return self.hear(make_proposal(block, view, parent, **changes), MEMBERS.leader(0, view))

    def validate(self, block: Block) -> list[Effect]:
        return self.tell(BlockValidated(block.header.hash, None))


def make_block(view: int = 1, parent: Block | None = None, **changes: Any) -> Block:
    stands_on = parent.header if parent else GENESIS
    header = make_header(
        Head(stands_on, stands_on.hash),
        members=MEMBERS,
        epoch=0,
        view=view,
        timestamp_ms=stands_on.timestamp_ms + PERIOD_MS,
    )
    return Block(header._replace(**changes), ())


def vote(kind: Kind, view: int, signer: int, block: Block | None = None, parent_view: int = 0) -> Vote:
    block_hash = block.header.hash if block else ZERO_HASH
    return sign_vote(Statement(kind, 0, view, parent_view, block_hash), signer, SECRETS[signer], GENESIS_HASH)


def certificate(
    kind: Kind,
    view: int,
    block: Block | None = None,
    parent_view: int = 0,
    signers: tuple[int, ...] = (1, 2, 3),
) -> Certificate:
    votes = [vote(kind, view, signer, block, parent_view) for signer in signers]
    return Certificate(votes[0].statement, tuple((each.signer, each.signature) for each in votes))


def make_proposal(
    block: Block,
    view: int = 1,
    parent: Certificate | None = None,
    *,
    parent_view: int | None = None,
    gaps: tuple[Certificate, ...] = (),
    signer: int | None = None,
) -> Proposal:
    stands_in = parent.statement.view if parent else 0
    signed = vote(
        Kind.NOTARIZE,
        view,
        MEMBERS.leader(0, view) if signer is None else signer,
        block,
        stands_in if parent_view is None else parent_view,
    )
    return Proposal(block, signed, parent, gaps)


def casts(effects: list[Effect]) -> list[tuple[Kind, int]]:
    return [(each.statement.kind, each.statement.view) for each in effects if isinstance(each, Cast)]


def of(effects: list[Effect], kind: type) -> list[Effect]:
    return [each for each in effects if isinstance(each, kind)]


# --- NOTARIZE -------------------------------------------------------------------------------------------------------


def test_a_good_proposal_is_executed_then_notarized() -> None:
    talk, block = Talk(), make_block()

    assert of(talk.propose(block), Validate) == [Validate(block)]
    (cast,) = of(talk.validate(block), Cast)

    assert cast == Cast(Statement(Kind.NOTARIZE, 0, 1, 0, block.header.hash), (), block)


def test_n1_a_proposal_of_another_than_the_leader_is_ignored() -> None:
    talk, block = Talk(), make_block()

    assert of(talk.hear(make_proposal(block, signer=2), 2), Validate) == []


def test_n1_a_proposal_whose_block_is_not_the_one_voted_for_is_ignored() -> None:
    talk = Talk()
    proposal = make_proposal(make_block())

    assert of(talk.hear(replace(proposal, block=make_block(gas_used=1))), Validate) == []


def test_n1_a_proposal_with_another_body_than_its_header_stands_for_is_ignored() -> None:
    """Else whoever passes it on could make the block invalid here, and this node stop when a quorum signs it."""
    talk, block = Talk(), make_block()
    assert of(talk.propose(block._replace(transactions=(b"another",))), Validate) == []

    assert of(talk.propose(block), Validate) == [Validate(block)]


def test_n1_a_proposal_for_a_later_view_waits_for_it() -> None:
    talk, block = Talk(), make_block(2)
    nullified = certificate(Kind.NULLIFY, 1)

    assert of(talk.propose(block, 2), Validate) == []
    assert of(talk.hear(nullified), Validate) == [Validate(block)]


def test_n1_a_proposal_too_far_ahead_is_dropped() -> None:
    talk = Talk()
    view = 1 + VIEWS_AHEAD_MAX + 1
    talk.propose(make_block(view), view)

    effects = [each for gone in range(1, view) for each in talk.hear(certificate(Kind.NULLIFY, gone))]

    assert of(effects, Validate) == []


def test_n2_a_second_block_in_one_view_is_never_notarized() -> None:
    talk, block = Talk(), make_block()
    talk.propose(block)
    talk.validate(block)

    other = make_block(gas_used=1)
    effects = talk.propose(other) + talk.validate(other)

    assert (Kind.NOTARIZE, 1) not in casts(effects)


def test_n3_a_view_given_up_is_not_notarized() -> None:
    talk, block = Talk(), make_block()
    assert casts(talk.tell(Tick(), SETTINGS.propose_ms)) == [(Kind.NULLIFY, 1)]

    assert casts(talk.propose(block) + talk.validate(block)) == []


def test_n4_a_parent_that_is_not_notarized_is_asked_for() -> None:
    talk, first = Talk(), make_block()
    talk.hear(certificate(Kind.NULLIFY, 1))

    effects = talk.propose(make_block(2, first), 2, parent_view=1)

    assert of(effects, Validate) == []
    assert of(effects, Send) == [Send("peer 2", GetCertificates(0, 1, 1))]


def test_n4_a_parent_below_the_last_final_view_is_refused() -> None:
    talk, first = Talk(), make_block()
    talk.hear(certificate(Kind.FINALIZE, 1, first))

    assert casts(talk.propose(make_block(2), 2)) == [(Kind.NULLIFY, 2)]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_n5_every_view_between_must_be_nullified(missing: int) -> None:
    """Not only the last one. The proposal carries what is held; one is left out."""
    talk, block = Talk(), make_block(5)
    gaps = tuple(certificate(Kind.NULLIFY, view) for view in (1, 2, 3, 4) if view != missing)
    assert of(talk.hear(gaps[-1]), Validate) == []

    effects = talk.propose(block, 5, gaps=gaps)

    assert of(effects, Validate) == []
    assert GetCertificates(0, missing, 4) in [each.message for each in effects if isinstance(each, Send)]


def test_n5_the_gap_in_the_proposal_is_enough() -> None:
    talk, block = Talk(), make_block(5)
    gaps = tuple(certificate(Kind.NULLIFY, view) for view in (1, 2, 3, 4))
    talk.propose(block, 5, gaps=gaps)

    (cast,) = of(talk.validate(block), Cast)

    assert isinstance(cast, Cast)
    assert cast.reliance == gaps


@pytest.mark.parametrize(
    "changes",
    [
        {"view": 2},
        {"epoch": 1},
        {"height": Height(2)},
        {"parent_hash": Hash(sha256(b"another"))},
        {"genesis_hash": Hash(sha256(b"another"))},
        {"timestamp_ms": Ms(GENESIS.timestamp_ms + PERIOD_MS - 1)},
        {"proposer": MEMBERS.members[2].address},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_n6_a_header_out_of_place_gives_the_view_up(changes: dict[str, Any]) -> None:
    talk = Talk()

    effects = talk.propose(make_block(**changes))

    assert of(effects, Validate) == []
    assert casts(effects) == [(Kind.NULLIFY, 1)]


def test_n7_two_blocks_of_one_leader_give_the_view_up_and_accuse_it() -> None:
    talk = Talk()
    talk.propose(make_block())

    effects = talk.propose(make_block(gas_used=1))

    assert casts(effects) == [(Kind.NULLIFY, 1)]
    (accusation,) = of(effects, Accuse)
    assert isinstance(accusation, Accuse)
    assert accusation.evidence.first.signer == MEMBERS.leader(0, 1)


def test_n8_a_block_that_executes_differently_gives_the_view_up() -> None:
    talk, block = Talk(), make_block()
    talk.propose(block)

    assert casts(talk.tell(BlockValidated(block.header.hash, "state root differs"))) == [(Kind.NULLIFY, 1)]


def test_a_block_from_the_future_is_held_until_our_clock_is_near() -> None:
    talk = Talk()
    ahead = SETTINGS.ahead_ms_max + 100
    block = make_block(timestamp_ms=Ms(START.wall_ms + ahead))

    assert of(talk.propose(block), Validate) == []
    assert talk.engine.deadline_ms == START.mono_ms + 100
    assert of(talk.tell(Tick(), 100), Validate) == [Validate(block)]


def test_a_block_whose_hold_would_take_the_whole_view_gives_it_up_at_once() -> None:
    talk = Talk()
    block = make_block(timestamp_ms=Ms(START.wall_ms + 10_000))

    assert casts(talk.propose(block)) == [(Kind.NULLIFY, 1)]


def test_a_block_that_cannot_be_earlier_is_held_no_longer_than_an_honest_leader_waits() -> None:
    """Its parent is ahead of our clock. Without the wait one hasty leader could drive the chain's time ahead for ever."""
    talk = Talk()
    patience_ms = PERIOD_MS + PERIOD_MS // 8
    talk.now = Now(talk.now.mono_ms, Ms(START.wall_ms - 3_600_000))

    assert of(talk.propose(make_block()), Validate) == []
    assert of(talk.tell(Tick(), patience_ms - 1), Validate) == []
    assert of(talk.tell(Tick(), 1), Validate) != []


# --- FINALIZE -------------------------------------------------------------------------------------------------------


def notarized(talk: Talk, block: Block) -> list[Effect]:
    talk.propose(block)
    (cast,) = [each for each in talk.validate(block) if isinstance(each, Cast)]
    talk.tell(VoteSigned(sign_vote(cast.statement, ME, SECRETS[ME], GENESIS_HASH)))
    return [
        effect for signer in (1, 2) for effect in talk.hear(vote(Kind.NOTARIZE, 1, signer, block), signer)
    ]


def test_a_notarized_block_is_finalized_with_the_certificate_it_relies_on() -> None:
    talk, block = Talk(), make_block()

    casts_made = [each for each in notarized(talk, block) if isinstance(each, Cast)]

    assert [(each.statement.kind, each.statement.view) for each in casts_made] == [(Kind.FINALIZE, 1)]
    assert casts_made[0].reliance[0].statement == casts_made[0].statement._replace(kind=Kind.NOTARIZE)
    assert talk.engine.view == 2


def test_a_view_given_up_is_never_finalized() -> None:
    """NULLIFY and FINALIZE exclude each other for ever."""
    talk, block = Talk(), make_block()
    talk.propose(block)
    talk.tell(Tick(), SETTINGS.notarize_ms)

    effects = talk.validate(block) + talk.hear(certificate(Kind.NOTARIZE, 1, block))

    assert (Kind.FINALIZE, 1) not in casts(effects)


def test_a_view_finalized_is_never_given_up() -> None:
    talk, block = Talk(), make_block()
    notarized(talk, block)

    assert (Kind.NULLIFY, 1) not in casts(talk.tell(Tick(), 60_000))


def test_another_block_than_the_own_notarize_is_not_finalized() -> None:
    talk, block, other = Talk(), make_block(), make_block(gas_used=1)
    talk.propose(block)
    talk.validate(block)
    talk.hear(certificate(Kind.NOTARIZE, 1, other))
    talk.tell(BlockValidated(other.header.hash, None))

    assert (Kind.FINALIZE, 1) not in casts(talk.validate(other))
    assert talk.engine.view == 2


def test_a_notarized_block_that_is_not_here_is_fetched_from_its_signers_and_again() -> None:
    talk, block = Talk(), make_block()

    (fetch,) = of(talk.hear(certificate(Kind.NOTARIZE, 1, block)), Fetch)

    assert fetch == Fetch(block.header.hash, (1, 2, 3), None)
    assert of(talk.tell(Tick(), SETTINGS.retry_ms), Fetch) == [fetch]


def test_a_finalization_commits_the_executed_block_once() -> None:
    talk, block = Talk(), make_block()
    notarized(talk, block)
    final = certificate(Kind.FINALIZE, 1, block)

    assert of(talk.hear(final), Finalize) == [Finalize(block.header.hash, final)]
    assert of(talk.hear(final) + talk.tell(Tick(), 1), Finalize) == []


def test_a_quorum_for_a_block_that_is_invalid_here_stops_the_node() -> None:
    talk, block = Talk(), make_block()
    talk.propose(block)
    talk.tell(BlockValidated(block.header.hash, "state root differs"))

    (halt,) = of(talk.hear(certificate(Kind.NOTARIZE, 1, block)), Halt)

    assert isinstance(halt, Halt)
    assert "invalid here: state root differs" in halt.reason
    assert talk.tell(Tick(), 60_000) == []


def test_two_finalizations_of_one_view_stop_the_node() -> None:
    talk = Talk()
    talk.hear(certificate(Kind.FINALIZE, 1, make_block()))

    (halt,) = of(talk.hear(certificate(Kind.FINALIZE, 1, make_block(gas_used=1))), Halt)

    assert isinstance(halt, Halt)
    assert len(halt.certificates) == 2


def test_a_final_block_beside_the_final_head_stops_the_node() -> None:
    talk, block, other = Talk(), make_block(), make_block(2)
    talk.tell(BlockFinal(Head(block.header, block.header.hash), None))
    child = make_block(3, other)
    talk.propose(child, 3)
    (halt,) = of(talk.hear(certificate(Kind.FINALIZE, 3, child, 2)), Halt)

    assert isinstance(halt, Halt)
    assert "does not stand on block 1" in halt.reason


# --- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_of_certificate_ends_its_view_however_far(kind: Kind) -> None:
    talk = Talk()
    block = None if kind is Kind.NULLIFY else make_block()

    talk.hear(certificate(kind, 1_000_000, block))

    assert talk.engine.view == 1_000_001


@pytest.mark.parametrize(
    "wrong",
    [
        certificate(Kind.NULLIFY, 1, signers=(1, 2)),
        certificate(Kind.NULLIFY, 1)._replace(statement=Statement(Kind.NULLIFY, 0, 2, 0, ZERO_HASH)),
        certificate(Kind.NULLIFY, 1)._replace(signatures=((1, b"s" * 64), (2, b"s" * 64), (3, b"s" * 64))),
    ],
    ids=["too few", "another view", "forged"],
)
def test_an_invalid_certificate_changes_nothing(wrong: Certificate) -> None:
    talk = Talk()

    assert of(talk.hear(wrong), Broadcast) == []
    assert talk.engine.view == 1


def test_a_certificate_is_passed_on_once() -> None:
    talk = Talk()
    nullified = certificate(Kind.NULLIFY, 1)

    assert Broadcast(nullified) in talk.hear(nullified)
    assert Broadcast(nullified) not in talk.hear(nullified)


def test_a_vote_counts_only_from_its_signer_and_with_its_signature() -> None:
    talk = Talk()
    talk.hear(vote(Kind.NULLIFY, 1, 1), 1)
    talk.hear(vote(Kind.NULLIFY, 1, 2), 1)  # relayed
    talk.hear(vote(Kind.NULLIFY, 1, 3)._replace(signature=b"s" * 64), 3)
    assert talk.engine.view == 1

    talk.hear(vote(Kind.NULLIFY, 1, 2), 2)
    talk.hear(vote(Kind.NULLIFY, 1, 3), 3)

    assert talk.engine.view == 2


def test_a_view_without_a_proposal_is_given_up_when_it_is_overdue() -> None:
    talk = Talk()

    assert casts(talk.tell(Tick(), SETTINGS.propose_ms - 1)) == []
    assert casts(talk.tell(Tick(), 1)) == [(Kind.NULLIFY, 1)]


def test_a_view_with_a_proposal_has_longer() -> None:
    talk = Talk()
    talk.propose(make_block())

    assert casts(talk.tell(Tick(), SETTINGS.notarize_ms - 1)) == []
    assert casts(talk.tell(Tick(), 1)) == [(Kind.NULLIFY, 1)]


def test_a_view_that_its_leader_gives_up_is_given_up_at_once() -> None:
    talk = Talk()
    leader = MEMBERS.leader(0, 1)

    assert casts(talk.hear(vote(Kind.NULLIFY, 1, leader), leader)) == [(Kind.NULLIFY, 1)]


def test_what_was_given_up_is_said_again_each_second() -> None:
    talk = Talk()
    (cast,) = [each for each in talk.tell(Tick(), SETTINGS.propose_ms) if isinstance(each, Cast)]
    mine = sign_vote(cast.statement, ME, SECRETS[ME], GENESIS_HASH)
    assert Broadcast(mine) in talk.tell(VoteSigned(mine))

    assert Broadcast(mine) in talk.tell(Tick(), SETTINGS.retry_ms)
    assert Broadcast(mine) not in talk.tell(Tick(), SETTINGS.retry_ms - 1)
    assert Broadcast(mine) in talk.tell(Tick(), 1)


def test_a_silent_leader_is_skipped_while_the_others_are_heard() -> None:
    talk = Talk()
    for _ in range(2):
        talk.tell(Tick(), SETTINGS.skip_ms // 2)
        for signer in (1, 3):
            talk.hear(Status(0, 1, Height(0), GENESIS.hash, None), signer)
    effects = talk.hear(certificate(Kind.NULLIFY, 1), 1)  # next is view 2, led by the silent validator 2

    assert casts(effects) == [(Kind.NULLIFY, 2)]


@pytest.mark.parametrize("early_ms", [0, 1])
def test_after_an_outage_a_leader_is_silent_when_it_had_the_time_to_tell_its_status(early_ms: int) -> None:
    """Not all are heard again in one moment. Who skipped the first leader would stop those who have its proposal."""
    talk = Talk()
    talk.tell(Tick(), SETTINGS.skip_ms)
    for signer in (1, 3):
        talk.hear(Status(0, 1, Height(0), GENESIS.hash, None), signer)
    talk.tell(Tick(), SETTINGS.status_ms + 2 * SETTINGS.delay_ms - early_ms)
    effects = talk.hear(certificate(Kind.NULLIFY, 1), 1)

    assert casts(effects) == ([] if early_ms else [(Kind.NULLIFY, 2)])


def test_a_node_that_hears_nobody_skips_nobody() -> None:
    talk = Talk()
    talk.tell(Tick(), SETTINGS.skip_ms)

    assert casts(talk.hear(certificate(Kind.NULLIFY, 1), None) + talk.tell(Tick(), 1)) == []


def test_waiting_grows_only_with_views_that_end_without_finality() -> None:
    faulty = 1
    assert [back_off(100, views, faulty) for views in (0, 1, 4, 5, 6, 10, 11, 1_000)] == [
        *(100, 100, 100, 150, 225),
        *(300, 300, 300),
    ]


# --- leading --------------------------------------------------------------------------------------------------------


def lead(talk: Talk) -> list[Effect]:
    """Enters view 4, which this validator leads."""
    return [each for view in (1, 2, 3) for each in talk.hear(certificate(Kind.NULLIFY, view))]


def test_a_leader_builds_at_its_slot_and_proposes_when_its_vote_is_on_the_disk() -> None:
    talk = Talk()
    (build,) = of(lead(talk), Build)
    assert build == Build(0, 4, GENESIS.hash, Ms(GENESIS.timestamp_ms + PERIOD_MS))
    block = make_block(4)

    (cast,) = of(talk.tell(BlockBuilt(block)), Cast)
    assert isinstance(cast, Cast)
    assert [each.statement.view for each in cast.reliance] == [1, 2, 3]
    mine = sign_vote(cast.statement, ME, SECRETS[ME], GENESIS_HASH)
    (sent,) = of(talk.tell(VoteSigned(mine)), Broadcast)

    assert sent == Broadcast(Proposal(block, mine, None, cast.reliance))


def test_a_leader_waits_for_its_slot() -> None:
    talk, block = Talk(), make_block(3)
    talk.propose(block, 3, gaps=(certificate(Kind.NULLIFY, 1), certificate(Kind.NULLIFY, 2)))
    talk.validate(block)
    talk.hear(certificate(Kind.NOTARIZE, 3, block))

    assert of(talk.tell(Tick(), PERIOD_MS - 1), Build) == []
    assert of(talk.tell(Tick(), 1), Build) == [
        Build(0, 4, block.header.hash, Ms(block.header.timestamp_ms + PERIOD_MS))
    ]


def test_a_leader_that_is_more_than_a_period_late_starts_from_its_clock() -> None:
    talk = Talk()
    talk.tell(Tick(), 2 * PERIOD_MS)

    (build,) = of(lead(talk), Build)

    assert isinstance(build, Build)
    assert build.timestamp_ms == talk.now.wall_ms


def test_a_leader_that_cannot_build_gives_its_view_up() -> None:
    talk = Talk()
    lead(talk)

    assert casts(talk.tell(BuildFailed(0, 4))) == [(Kind.NULLIFY, 4)]


def test_a_late_failure_to_build_says_nothing_of_the_next_epoch() -> None:
    """This validator leads view 1 there, and has asked for its block."""
    talk = Talk()
    boundary = make_block(height=Height(900)).header
    first, second, third, fourth = MEMBERS.members
    talk.tell(BlockFinal(Head(boundary, boundary.hash), ValidatorSet((second, third, first, fourth))))
    assert len(of(talk.tell(Tick(), 2 * PERIOD_MS), Build)) == 1

    assert casts(talk.tell(BuildFailed(0, 1))) == []
    assert casts(talk.tell(BuildFailed(1, 2))) == []
    assert casts(talk.tell(BuildFailed(1, 1))) == [(Kind.NULLIFY, 1)]


def test_a_leader_without_its_parent_gives_its_view_up_early() -> None:
    talk = Talk()
    talk.hear(certificate(Kind.NOTARIZE, 3, make_block(3)))

    assert casts(talk.tell(Tick(), SETTINGS.propose_ms // 2)) == [(Kind.NULLIFY, 4)]


def test_a_leader_that_lacks_a_nullification_asks_everyone() -> None:
    talk = Talk()

    effects = talk.hear(certificate(Kind.NULLIFY, 3))

    assert Broadcast(GetCertificates(0, 1, 2)) in effects
    assert of(effects, Build) == []


# --- restarts -------------------------------------------------------------------------------------------------------


def test_after_a_restart_own_votes_count_and_bind() -> None:
    """Otherwise validators that all gave a view up and crashed would wait for each other for ever."""
    mine = vote(Kind.NULLIFY, 1, ME)
    talk = Talk(restored=Restored((mine,), (), ()))

    assert casts(talk.propose(make_block())) == []
    assert Broadcast(mine) in talk.tell(Tick(), SETTINGS.retry_ms)
    talk.hear(vote(Kind.NULLIFY, 1, 1), 1)
    talk.hear(vote(Kind.NULLIFY, 1, 2), 2)
    assert talk.engine.view == 2


def test_after_a_restart_a_leader_sends_its_old_block_and_builds_no_other() -> None:
    block = make_block(4)
    gaps = tuple(certificate(Kind.NULLIFY, view) for view in (1, 2, 3))
    mine = vote(Kind.NOTARIZE, 4, ME, block)
    talk = Talk(restored=Restored((mine,), gaps, (block,)))

    assert of(talk.tell(Tick(), 1), Build) == []
    effects = talk.tell(Tick(), SETTINGS.standstill_ms)
    assert Broadcast(Proposal(block, mine, None, gaps)) in effects


def test_a_vote_with_our_key_that_we_did_not_cast_stops_the_node() -> None:
    talk = Talk()

    (halt,) = of(talk.hear(certificate(Kind.NULLIFY, 1, signers=(0, 1, 2))), Halt)

    assert isinstance(halt, Halt)
    assert "another process votes with this validator's key" in halt.reason


def test_an_own_vote_below_what_the_journal_keeps_is_nobody_elses() -> None:
    """A key whose journal was lost votes again from a later epoch, and hears of its old votes until then."""
    old = certificate(Kind.NULLIFY, 1, signers=(0, 1, 2))

    assert of(Talk(restored=Restored((), (), (), (0, 1))).hear(old), Halt) == []
    assert of(Talk(restored=Restored((), (), (), (0, 0))).hear(old), Halt) != []


def test_a_validator_that_listens_first_follows_but_does_not_vote() -> None:
    world = World(4)
    world.settings = replace(world.settings, listen_ms=2_000)
    world.run_ms(3_000)
    world.crash(0)
    world.restart(0)
    started_ms = world.now_ms
    sent = len(world.sent)

    world.run_ms(1_900)
    assert not [
        each for source, _, each in world.sent[sent:] if source == 0 and isinstance(each, Vote | Proposal)
    ]
    world.run_ms(3_000)
    assert [
        each for source, _, each in world.sent[sent:] if source == 0 and isinstance(each, Vote | Proposal)
    ]
    assert world.now_ms - started_ms == 4_900


# --- sets of engines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7, 10])
def test_a_set_makes_three_blocks_a_second(size: int) -> None:
    world = World(size, followers=1)

    world.run_ms(10_000)

    assert world.is_one_chain()
    assert min(world.heights()) >= 29


@pytest.mark.parametrize(("size", "dead"), [(4, (2,)), (7, (1, 4)), (10, (0, 1, 2))])
def test_dead_validators_cost_no_blocks_once_they_are_skipped(size: int, dead: tuple[int, ...]) -> None:
    world = World(size)
    world.run_ms(2_000)
    for number in dead:
        world.crash(number)
    world.run_ms(10_000)
    before = max(world.heights())

    world.run_ms(10_000)

    assert world.is_one_chain()
    assert max(world.heights()) - before >= 29


def test_more_than_f_dead_stop_the_chain_and_their_return_starts_it() -> None:
    world = World(4)
    world.run_ms(2_000)
    world.crash(0)
    world.crash(1)
    world.run_ms(1_000)
    stopped = max(world.heights())
    world.run_ms(60_000)
    assert max(world.heights()) == stopped

    world.restart(0)
    world.run_ms(5_000)

    assert world.is_one_chain()
    assert max(world.heights()) > stopped + 3


def test_a_cut_off_validator_catches_up_and_votes_again() -> None:
    world = World(4)
    world.lets_through = lambda source, to, message: 3 not in (source, to)
    world.run_ms(20_000)
    assert world.heights()[3] == 0

    world.lets_through = lambda source, to, message: True
    world.run_ms(3_000)

    assert world.is_one_chain()
    assert world.heights()[3] >= max(world.heights()) - 2


def test_epochs_roll_and_the_boundary_is_final_before_the_next_begins() -> None:
    world = World(4, epoch_blocks=10, followers=1)

    world.run_ms(20_000)

    assert world.is_one_chain()
    assert {machine.engine.epoch for machine in world.machines} == {min(world.heights()) // 10}
    chain = world.machines[0].final
    assert [block.header.epoch for block in chain[1:]] == [
        (block.header.height - 1) // 10 for block in chain[1:]
    ]


def test_a_vote_that_comes_before_its_epoch_counts_by_its_signers_place_there() -> None:
    talk = Talk()
    boundary = make_block(height=Height(900))
    members, secrets = make_set(5)
    voters = [place for place in range(5) if members.keys[place] != MEMBERS.keys[ME]]
    statement = Statement(Kind.NULLIFY, 1, 1, 0, ZERO_HASH)
    for place in voters[:4]:
        early = sign_vote(statement, place, secrets[place], GENESIS_HASH)
        address = members.members[place].address
        talk.tell(Received(early, "peer", MEMBERS.place_of_address(address), address))

    talk.tell(BlockFinal(Head(boundary.header, boundary.header.hash), members))

    assert (talk.engine.epoch, talk.engine.view) == (1, 2)


def test_everyone_may_crash_at_once() -> None:
    world = World(4, epoch_blocks=10)
    world.run_ms(6_700)
    for number in range(4):
        world.crash(number)
    before = max(world.heights())
    for number in range(4):
        world.restart(number)

    world.run_ms(5_000)

    assert world.is_one_chain()
    assert min(world.heights()) > before + 3


def test_a_chain_whose_time_is_ahead_of_all_clocks_goes_on_and_comes_back_to_them() -> None:
    """More than f clocks were wrong, and were set right. Nobody waits until the right time is reached."""
    world = World(4)
    world.wall_offsets_ms = dict.fromkeys(range(4), 10_000)
    world.run_ms(2_000)
    world.wall_offsets_ms = {}
    ahead_ms = world.machines[0].final[-1].header.timestamp_ms - world.now(0).wall_ms
    before = min(world.heights())

    world.run_ms(20_000)

    assert world.is_one_chain()
    assert min(world.heights()) - before >= 50
    assert world.machines[0].final[-1].header.timestamp_ms - world.now(0).wall_ms < ahead_ms - 2_000


def test_views_that_end_at_once_do_not_spin() -> None:
    talk = Talk()
    views = range(1, 10)
    for view in views:
        talk.hear(certificate(Kind.NULLIFY, view))
    leader = MEMBERS.leader(0, 10)

    assert casts(talk.hear(vote(Kind.NULLIFY, 10, leader), leader)) == []
    assert casts(talk.tell(Tick(), PERIOD_MS)) == [(Kind.NULLIFY, 10)]


@pytest.mark.parametrize(("offset_ms", "blocks"), [(-2_000, 29), (2_000, 20), (200, 29)])
def test_a_wrong_clock_costs_its_own_slots_at_most(offset_ms: int, blocks: int) -> None:
    world = World(4)
    world.wall_offsets_ms[1] = offset_ms

    world.run_ms(10_000)

    assert world.is_one_chain()
    assert min(world.heights()) >= blocks


def test_a_lone_validator_whose_clock_was_set_back_before_a_restart_goes_on() -> None:
    world = World(1)
    world.wall_offsets_ms[0] = 3_600_000
    world.run_ms(2_000)
    world.crash(0)
    world.wall_offsets_ms[0] = 0
    world.restart(0)
    before = world.heights()[0]

    world.run_ms(2_000)

    assert world.heights()[0] >= before + 5


@pytest.mark.parametrize("lost", range(3))
def test_any_one_kind_of_vote_may_be_lost_for_a_while(lost: int) -> None:
    world = World(4)
    kind = list(Kind)[lost]
    lets: Callable[[int, int, Message], bool] = lambda source, to, message: (
        not (isinstance(message, Vote) and message.statement.kind is kind)
    )
    world.lets_through = lets
    world.run_ms(10_000)
    world.lets_through = lambda source, to, message: True
    before = max(world.heights())

    world.run_ms(10_000)

    assert world.is_one_chain()
    assert max(world.heights()) - before >= 20
