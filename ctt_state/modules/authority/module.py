"""The authority module's address, events and errors, and what its rules read first."""

from typing import Final

from ctt_state.abi import Module
from ctt_state.modules.call import Call
from ctt_state.records import EpochSet, Governance, Outcome, Proposal
from ctt_state.succession import outcome_at
from ctt_state.units import UINT64_MAX, Address
from ctt_state.validators import ValidatorSet, epoch_of

AUTHORITY: Final = Module("Authority", Address(bytes.fromhex("000000000000000000000000000000000000c703")))

ValidatorProposed = AUTHORITY.event(
    "ValidatorProposed(uint256 indexed proposal,address indexed proposer,address indexed validator,bytes nodeKey,"
    "uint8 change)"
)
ValidatorVoted = AUTHORITY.event(
    "ValidatorVoted(uint256 indexed proposal,address indexed voter,uint256 votes,uint256 validators)"
)
ProposalCarried = AUTHORITY.event("ProposalCarried(uint256 indexed proposal)")
ValidatorReady = AUTHORITY.event(
    "ValidatorReady(uint256 indexed proposal,address indexed validator,uint64 height)"
)
ProposalWithdrawn = AUTHORITY.event("ProposalWithdrawn(uint256 indexed proposal)")

NotValidator = AUTHORITY.error("NotValidator(address caller,uint64 epoch)")
InvalidValidator = AUTHORITY.error("InvalidValidator(address validator)")
InvalidKeyLength = AUTHORITY.error("InvalidKeyLength(uint256 bytes,uint256 required)")
InvalidNodeKey = AUTHORITY.error("InvalidNodeKey(bytes nodeKey)")
KeyBarred = AUTHORITY.error("KeyBarred(bytes nodeKey,uint256 offence)")
KeyTaken = AUTHORITY.error("KeyTaken(bytes nodeKey,address validator)")
NotMember = AUTHORITY.error("NotMember(address validator)")
TooManyProposals = AUTHORITY.error("TooManyProposals(address proposer,uint256 open,uint256 limit)")
UnknownProposal = AUTHORITY.error("UnknownProposal(uint256 proposal,uint256 last)")
ProposalClosed = AUTHORITY.error("ProposalClosed(uint256 proposal,uint8 outcome)")
AlreadyVoted = AUTHORITY.error("AlreadyVoted(uint256 proposal,address voter)")
AlreadyCarried = AUTHORITY.error("AlreadyCarried(uint256 proposal,uint64 height)")
NotProposer = AUTHORITY.error("NotProposer(uint256 proposal,address proposer,address caller)")
NoKeyProposed = AUTHORITY.error("NoKeyProposed(uint256 proposal)")
StaleReady = AUTHORITY.error("StaleReady(uint64 height,uint64 oldest,uint64 newest)")
InvalidReadySignature = AUTHORITY.error("InvalidReadySignature(uint256 proposal,uint64 height)")
InvalidLimit = AUTHORITY.error("InvalidLimit(uint256 limit,uint256 maximum)")

NO_SET: Final = EpochSet(())
NO_GOVERNANCE: Final = Governance()


def epoch_now(call: Call) -> int:
    return epoch_of(call.block.height, call.chain.epoch_blocks)


def present_set(call: Call) -> ValidatorSet:
    """Who validates in the block's epoch."""
    return (call.get(EpochSet, EpochSet.key(epoch_now(call))) or NO_SET).validators


def latest_set(call: Call) -> ValidatorSet:
    """The set of the next epoch once it is fixed, before that the present one."""
    following = call.get(EpochSet, EpochSet.key(epoch_now(call) + 1))
    return following.validators if following else present_set(call)


def governance_of(call: Call) -> Governance:
    return call.get(Governance, Governance.key()) or NO_GOVERNANCE


def proposal_of(call: Call, number: int) -> Proposal:
    """Raises: UnknownProposal."""
    proposal = call.get(Proposal, Proposal.key(number)) if number <= UINT64_MAX else None
    if proposal is None:
        raise UnknownProposal(number, governance_of(call).last_proposal)
    return proposal


def open_proposal(call: Call, number: int) -> Proposal:
    """Raises: UnknownProposal, ProposalClosed, in that order."""
    proposal = proposal_of(call, number)
    outcome = outcome_at(proposal, call.block.height, call.chain)
    if outcome is not Outcome.OPEN:
        raise ProposalClosed(number, outcome)
    return proposal
