"""Changing the set: a validator proposes, validators vote, a new key shows that it is there (docs/PROTOCOL.md, A-1 to
A-3).

Nothing here changes a set: the block at the epoch's fixing height does (`ctt_state/succession.py`).
"""

from typing import Final

from ctt_state.crypto import InvalidKey, address_of_public_key, sha256, verify
from ctt_state.modules.authority.module import (
    AUTHORITY,
    AlreadyCarried,
    AlreadyVoted,
    InvalidKeyLength,
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
    ProposalWithdrawn,
    StaleReady,
    TooManyProposals,
    ValidatorProposed,
    ValidatorReady,
    ValidatorVoted,
    epoch_now,
    governance_of,
    latest_set,
    open_proposal,
    present_set,
)
from ctt_state.modules.call import Call
from ctt_state.records import Barred, Change, Governance, Outcome, Proposal
from ctt_state.succession import READY_BLOCKS_MAX, is_majority, votes_of
from ctt_state.units import ZERO_ADDRESS, Address, Hash, Height
from ctt_state.validators import ValidatorSet

READY_DOMAIN: Final = b"poa/ready/v1"
KEY_BYTES: Final = 33
OPEN_PROPOSALS: Final = 64  # that a set's members have among them
OPEN_PROPOSALS_MIN: Final = 2  # that each member may have, however large the set


def open_proposals_max(validators: int) -> int:
    """How many open proposals one validator may have: no member can keep the others from proposing."""
    return max(OPEN_PROPOSALS_MIN, OPEN_PROPOSALS // validators)


def ready_digest(genesis_hash: Hash, validator: Address, proposal: int, height: int) -> Hash:
    """What a new consensus key signs to show that it is held and has seen the chain up to this height."""
    numbers = proposal.to_bytes(8, "big") + height.to_bytes(8, "big")
    return sha256(READY_DOMAIN + genesis_hash + validator + numbers)


@AUTHORITY.function("propose(address validator,bytes nodeKey,bool add) returns (uint256 proposal)")
def propose(call: Call, validator: Address, node_key: bytes, add: bool) -> int:
    """Proposes to add a validator, to give a member another key, or, with no key, to remove a member; the proposer's
    vote is in it.

    Raises: NotValidator, InvalidValidator, InvalidKeyLength, InvalidNodeKey, KeyBarred, KeyTaken, NotMember,
    TooManyProposals, in that order; those of keys only for an addition, NotMember only for a removal.
    """
    present = _check_validator(call)
    if validator == ZERO_ADDRESS:
        raise InvalidValidator(validator)
    _check_key_length(node_key, KEY_BYTES if add else 0)
    change = _check_addition(call, validator, node_key) if add else _check_removal(call, validator)
    governance = governance_of(call)
    _check_open(governance, call.sender, open_proposals_max(len(present.members)))

    number = governance.last_proposal + 1
    still_open = (*governance.open, (number, call.sender))
    call.put(Governance.key(), governance._replace(last_proposal=number, open=still_open))
    call.emit(ValidatorProposed(number, call.sender, validator, node_key, change))
    _count_vote(call, number, Proposal(change, validator, node_key, call.sender, call.block.height), present)
    return number


@AUTHORITY.function("vote(uint256 proposal)")
def vote(call: Call, number: int) -> None:
    """The sender is for the proposal; more than half of the present set carries it.

    Raises: NotValidator, UnknownProposal, ProposalClosed, AlreadyVoted, in that order.
    """
    present = _check_validator(call)
    proposal = open_proposal(call, number)
    if call.sender in proposal.voters:
        raise AlreadyVoted(number, call.sender)
    _count_vote(call, number, proposal, present)


@AUTHORITY.function("ready(uint256 proposal,uint64 height,bytes signature)")
def ready(call: Call, number: int, height: Height, signature: bytes) -> None:
    """The proposed key shows that it is held and its validator follows the chain. Anyone may bring it, and again with
    a later height: the change is made only while it is fresh.

    Raises: UnknownProposal, ProposalClosed, NoKeyProposed, StaleReady, InvalidReadySignature, in that order.
    """
    proposal = open_proposal(call, number)
    if proposal.change is Change.REMOVE:
        raise NoKeyProposed(number)
    oldest = max(proposal.ready_height + 1, call.block.height - READY_BLOCKS_MAX)
    if not oldest <= height <= call.block.height:
        raise StaleReady(height, oldest, call.block.height)
    digest = ready_digest(call.chain.genesis_hash, proposal.validator, number, height)
    if not verify(proposal.consensus_key, digest, signature):
        raise InvalidReadySignature(number, height)
    call.put(Proposal.key(number), proposal._replace(ready_height=height))
    call.emit(ValidatorReady(number, proposal.validator, height))


@AUTHORITY.function("withdraw(uint256 proposal)")
def withdraw(call: Call, number: int) -> None:
    """The proposer takes back what is not carried yet.

    Raises: UnknownProposal, ProposalClosed, NotProposer, AlreadyCarried, in that order.
    """
    proposal = open_proposal(call, number)
    if proposal.proposer != call.sender:
        raise NotProposer(number, proposal.proposer, call.sender)
    if proposal.carried_height:
        raise AlreadyCarried(number, proposal.carried_height)
    governance = governance_of(call)
    still_open = tuple([each for each in governance.open if each[0] != number])
    call.put(Governance.key(), governance._replace(open=still_open))
    closed = proposal._replace(outcome=Outcome.WITHDRAWN, closed_height=call.block.height)
    call.put(Proposal.key(number), closed)
    call.emit(ProposalWithdrawn(number))


def _check_validator(call: Call) -> ValidatorSet:
    """The present set, which the sender is in. Raises: NotValidator."""
    present = present_set(call)
    if present.place_of_address(call.sender) is None:
        raise NotValidator(call.sender, epoch_now(call))
    return present


def _check_key_length(node_key: bytes, required: int) -> None:
    if len(node_key) != required:
        raise InvalidKeyLength(len(node_key), required)


def _check_addition(call: Call, validator: Address, node_key: bytes) -> Change:
    """An addition or, of a member, a rotation. Raises: InvalidNodeKey, KeyBarred, KeyTaken."""
    try:
        address_of_public_key(node_key)
    except InvalidKey:
        raise InvalidNodeKey(node_key) from None
    barred = call.get(Barred, Barred.key(node_key))
    if barred is not None:
        raise KeyBarred(node_key, barred.offence)
    latest = latest_set(call)
    place = latest.place_of_key(node_key)
    if place is not None:
        raise KeyTaken(node_key, latest.members[place].address)
    return Change.ADD if latest.place_of_address(validator) is None else Change.ROTATE


def _check_removal(call: Call, validator: Address) -> Change:
    if latest_set(call).place_of_address(validator) is None:
        raise NotMember(validator)
    return Change.REMOVE


def _check_open(governance: Governance, proposer: Address, limit: int) -> None:
    count = sum(1 for _, each in governance.open if each == proposer)
    if count >= limit:
        raise TooManyProposals(proposer, count, limit)


def _count_vote(call: Call, number: int, proposal: Proposal, present: ValidatorSet) -> None:
    """Adds the sender's vote, and says so when it is the one that carries."""
    voted = proposal._replace(voters=(*proposal.voters, call.sender))
    carries = not voted.carried_height and is_majority(voted.voters, present)
    if carries:
        voted = voted._replace(carried_height=call.block.height)
    call.put(Proposal.key(number), voted)
    votes = votes_of(voted.voters, present)
    call.emit(ValidatorVoted(number, call.sender, votes, len(present.members)))
    if carries:
        call.emit(ProposalCarried(number))
