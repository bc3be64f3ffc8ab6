"""The authority module: what may be proposed, who votes, how a new key shows itself (A-1 to A-3)."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from ctt_state.abi import Revert
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.module import (
    AlreadyCarried,
    AlreadyVoted,
    InvalidKeyLength,
    InvalidLimit,
    InvalidNodeKey,
    InvalidReadySignature,
    InvalidValidator,
    KeyBarred,
    KeyTaken,
    NoKeyProposed,
    NotMember,
    NotProposer,
    NotValidator,
    ProposalCarried,
    ProposalClosed,
    ProposalWithdrawn,
    StaleReady,
    TooManyProposals,
    UnknownProposal,
    ValidatorProposed,
    ValidatorReady,
    ValidatorVoted,
)
from ctt_state.modules.authority.proposals import open_proposals_max, ready_digest
from ctt_state.records import Change, Governance, Outcome, Proposal
from ctt_state.succession import LIFETIME_MS
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS, Address, Hash, Height
from tests.authority_world import (
    PROPOSE,
    READY,
    VOTE,
    WITHDRAW,
    Consortium,
    member,
    node_key,
    set_of,
)
from tests.world import address

FOUR = ("ann", "ben", "cat", "dan")
STRANGER = address("eve")
OFF_CURVE = b"\x02" + b"\xff" * 32


def make_consortium() -> Consortium:
    return Consortium(*FOUR)


# --- propose ---


def test_a_proposal_carries_its_proposers_vote() -> None:
    """A-1"""
    world = make_consortium()

    outcome = world.send(address("ann"), PROPOSE, address("eve"), node_key("eve"), True)

    assert outcome.result == 1
    assert outcome.emissions == [
        ValidatorProposed(1, address("ann"), address("eve"), node_key("eve"), Change.ADD),
        ValidatorVoted(1, address("ann"), 1, 4),
    ]
    expiry = 1 + LIFETIME_MS // 1_000
    assert world.proposal(1) == (
        1, Change.ADD, address("eve"), node_key("eve"), address("ann"), 1, expiry, (address("ann"),), 0, 0, 0, 0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("validator", "key", "change"),
    [("eve", "eve", Change.ADD), ("ben", "new", Change.ROTATE), ("ben", None, Change.REMOVE)],
)
def test_what_is_proposed_follows_from_who_is_a_member(
    validator: str, key: str | None, change: Change
) -> None:
    world = make_consortium()

    number = world.propose("ann", validator, key) if key else world.propose_removal("ann", validator)

    assert world.proposal(number).change == change


def test_the_vote_of_one_alone_carries_at_once() -> None:
    world = Consortium("ann", development=True)

    outcome = world.send(address("ann"), PROPOSE, address("eve"), node_key("eve"), True)

    assert outcome.emissions[2:] == [ProposalCarried(1)]
    assert world.proposal(1).carried_height == 1


def test_the_next_set_counts_for_what_can_be_proposed_once_it_is_fixed() -> None:
    """A member that is leaving cannot be removed again, and its key is free; the votes are still the present set's."""
    world = Consortium("ann", "ben", "cat", "dan", "eve")
    world.vote(world.propose_removal("ann", "eve"), "ben", "cat")
    world.fix()

    assert world.refusal(address("eve"), PROPOSE, address("eve"), b"", False) == NotMember(address("eve"))
    world.propose("eve", "fay", key="eve")
    world.turn()

    assert world.refusal(address("eve"), VOTE, 2) == NotValidator(address("eve"), 1)


REFUSED: list[tuple[str, str, tuple[Any, ...], Revert]] = [
    ("a stranger", "eve", (ZERO_ADDRESS, b"", True), NotValidator(STRANGER, 0)),
    ("nobody", "ann", (ZERO_ADDRESS, b"", True), InvalidValidator(ZERO_ADDRESS)),
    ("no key to add", "ann", (STRANGER, b"", True), InvalidKeyLength(0, 33)),
    ("a long key", "ann", (STRANGER, bytes(65), True), InvalidKeyLength(65, 33)),
    ("a key to remove", "ann", (STRANGER, OFF_CURVE, False), InvalidKeyLength(33, 0)),
    ("no point of the curve", "ann", (STRANGER, OFF_CURVE, True), InvalidNodeKey(OFF_CURVE)),
    ("a hybrid form", "ann", (STRANGER, b"\x06" + bytes(32), True), InvalidNodeKey(b"\x06" + bytes(32))),
    (
        "another's key",
        "ann",
        (STRANGER, node_key("ben"), True),
        KeyTaken(node_key("ben"), address("ben")),
    ),
    (
        "its own key again",
        "ann",
        (address("ann"), node_key("ann"), True),
        KeyTaken(node_key("ann"), address("ann")),
    ),
    ("who is no member", "ann", (STRANGER, b"", False), NotMember(STRANGER)),
]


@pytest.mark.parametrize(
    ("sender", "arguments", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_proposal_is_refused(sender: str, arguments: tuple[Any, ...], reason: Revert) -> None:
    """A-1: the first reason that holds, in the order of this list."""
    assert make_consortium().refusal(address(sender), PROPOSE, *arguments) == reason


def test_a_barred_key_is_refused_though_it_is_in_the_set() -> None:
    """A-7: barred comes before taken."""
    world = make_consortium()
    world.next_block(world.evidence_against("ben"))

    refusal = world.refusal(address("ann"), PROPOSE, STRANGER, node_key("ben"), True)

    assert refusal == KeyBarred(node_key("ben"), 1)


@pytest.mark.parametrize(("validators", "limit"), [(1, 64), (4, 16), (7, 9), (21, 3), (32, 2), (100, 2)])
def test_a_validator_has_a_share_of_the_open_proposals(validators: int, limit: int) -> None:
    assert open_proposals_max(validators) == limit


def test_nobody_can_keep_the_others_from_proposing() -> None:
    """A-1: what is open counts, a withdrawn one no more."""
    world = make_consortium()
    for index in range(16):
        world.propose("ann", f"candidate {index}")

    refusal = world.refusal(address("ann"), PROPOSE, STRANGER, node_key("eve"), True)

    assert refusal == TooManyProposals(address("ann"), 16, 16)
    world.propose("ben", "eve")
    world.done(address("ann"), WITHDRAW, 3)
    assert world.propose("ann", "eve") == 18


# --- vote ---


def test_more_than_half_carries() -> None:
    """A-2: two of four are not enough."""
    world = make_consortium()
    number = world.propose("ann", "eve")

    second = world.send(address("ben"), VOTE, number)
    third = world.send(address("cat"), VOTE, number)
    fourth = world.send(address("dan"), VOTE, number)

    assert second.emissions == [ValidatorVoted(number, address("ben"), 2, 4)]
    assert third.emissions == [ValidatorVoted(number, address("cat"), 3, 4), ProposalCarried(number)]
    assert fourth.emissions == [ValidatorVoted(number, address("dan"), 4, 4)]
    assert world.proposal(number).voters == tuple(map(address, FOUR))
    assert world.proposal(number).carried_height == world.block.height


def test_a_vote_is_refused() -> None:
    """A-2: in this order."""
    world = make_consortium()
    number = world.propose("ann", "eve")

    assert world.refusal(STRANGER, VOTE, number + 1) == NotValidator(STRANGER, 0)
    assert world.refusal(address("ann"), VOTE, number + 1) == UnknownProposal(2, 1)
    assert world.refusal(address("ann"), VOTE, UINT256_MAX) == UnknownProposal(UINT256_MAX, 1)
    assert world.refusal(address("ann"), VOTE, 0) == UnknownProposal(0, 1)
    assert world.refusal(address("ann"), VOTE, number) == AlreadyVoted(number, address("ann"))
    world.done(address("ann"), WITHDRAW, number)
    assert world.refusal(address("ann"), VOTE, number) == ProposalClosed(number, Outcome.WITHDRAWN)


def test_votes_of_two_sets_do_not_carry_together() -> None:
    """A-2: between the fixing height and the end of the epoch, one that leaves still votes. It does not count later."""
    world = Consortium("ann", "ben", "cat", "dan", "eve")
    world.vote(world.propose_removal("ann", "eve"), "ben", "cat")
    world.fix()
    number = world.propose("ann", "fay")
    world.vote(number, "eve")
    world.turn()

    outcome = world.send(address("ben"), VOTE, number)

    assert outcome.emissions == [ValidatorVoted(number, address("ben"), 2, 4)]
    world.fix()
    assert world.proposal(number).voters == (address("ann"), address("ben"))


def test_a_proposal_lives_fourteen_days() -> None:
    """A-2: the last height at which it can be voted for is the one that it says."""
    world = make_consortium()
    number = world.propose("ann", "eve")
    expiry = world.proposal(number).expiry_height
    assert expiry == 1 + 14 * 24 * 3_600
    world.chain = replace(world.chain, epoch_blocks=10_000_000)  # one epoch is longer than a proposal's life

    world.block = world.block._replace(height=expiry)
    world.vote(number, "ben")
    world.block = world.block._replace(height=Height(expiry + 1))

    assert world.refusal(address("cat"), VOTE, number) == ProposalClosed(number, Outcome.EXPIRED)
    assert world.refusal(address("ann"), WITHDRAW, number) == ProposalClosed(number, Outcome.EXPIRED)
    assert world.outcome(number) is Outcome.EXPIRED


# --- ready ---


def test_a_new_key_shows_that_it_is_there_and_may_do_so_again() -> None:
    """A-3: anyone may bring it."""
    world = make_consortium()
    number = world.propose("ann", "eve")

    first = world.send(STRANGER, READY, number, 1, world.ready_signature(number, "eve", 1))
    world.next_block()
    world.ready(number, "eve", 2)

    assert first.emissions == [ValidatorReady(number, address("eve"), 1)]
    assert world.proposal(number).ready_height == 2


@pytest.mark.parametrize(("behind", "is_accepted"), [(0, True), (1_000, True), (1_001, False), (-1, False)])
def test_a_ready_height_is_one_of_the_last_thousand(behind: int, is_accepted: bool) -> None:
    world = Consortium(*FOUR, epoch_blocks=100_000)
    number = world.propose("ann", "eve")
    world.block = world.block._replace(height=Height(5_000))
    height = 5_000 - behind
    signature = world.ready_signature(number, "eve", height)

    revert = world.send(STRANGER, READY, number, height, signature).revert

    assert revert == (None if is_accepted else StaleReady(height, 4_000, 5_000))


def test_a_ready_is_refused() -> None:
    """A-3: in this order."""
    world = make_consortium()
    number, removal = world.propose("ann", "eve"), world.propose_removal("ann", "ben")
    world.close_until(5)
    world.ready(number, "eve", 3)
    good = world.ready_signature(number, "eve", 4)

    def refusal(proposal: int, height: int, signature: bytes) -> Revert:
        return world.refusal(STRANGER, READY, proposal, height, signature)

    assert refusal(9, 0, b"") == UnknownProposal(9, 2)
    assert refusal(removal, 0, b"") == NoKeyProposed(removal)
    assert refusal(number, 3, b"") == StaleReady(3, 4, 5)
    assert refusal(number, UINT64_MAX, b"") == StaleReady(UINT64_MAX, 4, 5)
    assert refusal(number, 4, good[:-1]) == InvalidReadySignature(number, 4)
    assert refusal(number, 5, good) == InvalidReadySignature(number, 5)
    assert refusal(number, 4, world.ready_signature(number, "ann", 4)) == InvalidReadySignature(number, 4)
    other = world.propose("ann", "eve")
    assert refusal(other, 4, good) == InvalidReadySignature(other, 4)
    world.done(address("ann"), WITHDRAW, number)
    assert refusal(number, 4, good) == ProposalClosed(number, Outcome.WITHDRAWN)


def test_a_ready_is_for_one_network_validator_proposal_and_height() -> None:
    """A-3: the bytes that are signed, and a domain that no vote shares."""
    signed = b"poa/ready/v1" + b"g" * 32 + b"v" * 20 + bytes(7) + b"\x02" + bytes(6) + b"\x01\x03"

    digest = ready_digest(Hash(b"g" * 32), Address(b"v" * 20), 2, 259)

    assert digest == hashlib.sha256(signed).digest()


def test_a_genesis_block_is_no_sign_of_life() -> None:
    world = make_consortium()
    number = world.propose("ann", "eve")

    signature = world.ready_signature(number, "eve", 0)

    assert world.refusal(STRANGER, READY, number, 0, signature) == StaleReady(0, 1, 1)


# --- withdraw ---


def test_a_proposer_takes_back_what_is_not_carried() -> None:
    world = make_consortium()
    number = world.propose("ann", "eve")

    outcome = world.send(address("ann"), WITHDRAW, number)

    assert outcome.emissions == [ProposalWithdrawn(number)]
    assert (world.outcome(number), world.proposal(number).closed_height) == (Outcome.WITHDRAWN, 1)
    assert world.call("openProposals()") == ()


def test_a_withdrawal_is_refused() -> None:
    """A-1: in this order. What more than half want is not the proposer's any more."""
    world = make_consortium()
    number = world.propose("ann", "eve")

    assert world.refusal(address("ann"), WITHDRAW, 2) == UnknownProposal(2, 1)
    assert world.refusal(address("ben"), WITHDRAW, number) == NotProposer(
        number, address("ann"), address("ben")
    )
    world.vote(number, "ben", "cat")
    assert world.refusal(address("ann"), WITHDRAW, number) == AlreadyCarried(number, 1)


# --- views ---


def test_the_sets_are_told() -> None:
    world = Consortium("ann", "ben", "cat", "dan", "eve")
    world.vote(world.propose_removal("ann", "eve"), "ben", "cat")
    five, four = set_of("ann", "ben", "cat", "dan", "eve"), set_of(*FOUR)

    assert world.call("validators()") == five
    assert world.call("nextValidators()") == ()
    world.fix()
    assert (world.call("validators()"), world.call("nextValidators()")) == (five, four)
    world.turn()
    assert (world.call("validators()"), world.call("nextValidators()")) == (four, ())


def test_the_epoch_is_told() -> None:
    world = Consortium("ann", "ben", "cat", "dan", "eve", "fay", "gus")
    world.vote(world.propose_removal("ann", "eve"), "ben", "cat", "dan")
    before = world.validators().hash

    assert world.call("epoch()") == (0, 5, 10, before, before, 2)
    world.fix()
    assert world.call("epoch()") == (0, 5, 10, before, world.validators(1).hash, 2)
    world.turn()
    after = world.validators(1).hash
    assert world.call("epoch()") == (1, 15, 20, after, after, 1)


def test_proposals_are_told_page_by_page() -> None:
    world = make_consortium()
    for index in range(5):
        world.propose("ann", f"candidate {index}")
    world.done(address("ann"), WITHDRAW, 2)

    def numbers(offset: int, limit: int) -> list[int]:
        return [found[0] for found in world.call("proposals(uint256,uint256)", offset, limit)]

    assert numbers(0, 2) == [1, 2]
    assert numbers(3, 100) == [4, 5]
    assert numbers(5, 100) == numbers(UINT256_MAX, 100) == numbers(0, 0) == []
    assert world.call("proposals(uint256,uint256)", 4, 1) == (world.proposal(5),)
    assert world.call("openProposals()") == (1, 3, 4, 5)
    for view in ("proposals(uint256,uint256)", "offences(uint256,uint256)"):
        with pytest.raises(Revert) as refusal:
            world.call(view, 0, 101)
        assert refusal.value == InvalidLimit(101, 100)
    with pytest.raises(Revert) as refusal:
        world.call("proposal(uint256)", 6)
    assert refusal.value == UnknownProposal(6, 5)


def test_offences_are_told_page_by_page() -> None:
    world = make_consortium()
    world.next_block(world.evidence_against("ann", 3), world.evidence_against("cat", 2))

    ann = (1, *member("ann"), 0, 3, 2)
    cat = (2, *member("cat"), 0, 2, 2)
    assert world.call("offences(uint256,uint256)", 0, 100) == (ann, cat)
    assert world.call("offences(uint256,uint256)", 1, 1) == (cat,)
    assert world.call("offences(uint256,uint256)", 2, 1) == ()


def test_a_chain_without_a_set_answers_with_none() -> None:
    """Views of a state that no genesis made."""
    world = Consortium()
    world.overlay.changes.clear()

    assert world.call("validators()") == ()
    assert world.call("offences(uint256,uint256)", 0, 10) == ()


# --- bytes ---


def test_each_declaration_has_its_own_selector() -> None:
    assert len(AUTHORITY.functions) == 11
    assert not set(AUTHORITY.errors) & set(AUTHORITY.functions)


def test_governance_costs_gas_by_the_records_it_touches() -> None:
    """T-4: 21,000, the calldata, three reads and two writes for a vote; no more for a set of a hundred."""
    small, large = make_consortium(), Consortium(*(f"validator {n}" for n in range(100)))
    first, second = small.propose("ann", "eve"), large.propose("validator 0", "eve")

    used = [
        small.send(address("ben"), VOTE, first).gas_used,
        large.send(address("validator 1"), VOTE, second).gas_used,
    ]

    assert used == [21_000 + 16 * 36 + 2 * 1_000 + 5_000] * 2


def test_the_records_name_the_change() -> None:
    world = make_consortium()
    world.propose_removal("ann", "ben")

    assert world.get(Proposal.key(1)).change is Change.REMOVE
    assert world.get(Governance.key()) == Governance(1, 0, ((1, address("ann")),))
