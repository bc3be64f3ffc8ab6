"""What anyone may ask of the set, the proposals and the offences. The sets' changes are told here: no transaction makes
them, so no log does."""

from typing import Any, Final

from ctt_state.modules.authority.module import (
    AUTHORITY,
    InvalidLimit,
    epoch_now,
    governance_of,
    latest_set,
    present_set,
    proposal_of,
)
from ctt_state.modules.call import Call
from ctt_state.records import EpochSet, Offence, Proposal
from ctt_state.succession import changes_max, expiry_height, outcome_at
from ctt_state.units import Address, Hash, Height
from ctt_state.validators import Member, boundary_of, fixing_height

ITEMS_PER_VIEW_MAX: Final = 100

_PROPOSAL: Final = (
    "(uint256 number,uint8 change,address validator,bytes nodeKey,address proposer,uint64 proposedHeight,"
    "uint64 expiryHeight,address[] voters,uint64 carriedHeight,uint64 readyHeight,uint8 outcome,uint64 closedHeight)"
)


@AUTHORITY.function("validators() view returns ((address validator,bytes nodeKey)[] members)")
def validators(call: Call) -> tuple[Member, ...]:
    """The present set, in its order."""
    return present_set(call).members


@AUTHORITY.function("nextValidators() view returns ((address validator,bytes nodeKey)[] members)")
def next_validators(call: Call) -> tuple[Member, ...]:
    """The next epoch's set, in its order; none before it is fixed."""
    following = call.get(EpochSet, EpochSet.key(epoch_now(call) + 1))
    return following.members if following else ()


@AUTHORITY.function(
    "epoch() view returns (uint64 number,uint64 fixingHeight,uint64 lastHeight,bytes32 validatorsHash,"
    "bytes32 nextValidatorsHash,uint256 maximumChanges)"
)
def epoch(call: Call) -> tuple[int, Height, Height, Hash, Hash, int]:
    """The block's epoch; the hashes are those of a header at this state."""
    number, blocks = epoch_now(call), call.chain.epoch_blocks
    present = present_set(call)
    hashes = present.hash, latest_set(call).hash
    heights = fixing_height(number, blocks), boundary_of(number, blocks)
    return (number, *heights, *hashes, changes_max(len(present.members)))


@AUTHORITY.function("openProposals() view returns (uint256[] numbers)")
def open_proposals(call: Call) -> list[int]:
    """Those that the next fixing height looks at, lowest number first."""
    return [number for number, _ in governance_of(call).open]


@AUTHORITY.function(f"proposal(uint256 number) view returns ({_PROPOSAL} found)")
def proposal(call: Call, number: int) -> tuple[Any, ...]:
    """What is proposed, and what became of it. Raises: UnknownProposal."""
    return _shown(call, number, proposal_of(call, number))


@AUTHORITY.function(f"proposals(uint256 offset,uint256 limit) view returns ({_PROPOSAL}[] found)")
def proposals(call: Call, offset: int, limit: int) -> list[tuple[Any, ...]]:
    """Up to `limit` of all proposals after the first `offset`. Raises: InvalidLimit for a limit above 100."""
    numbers = _page(offset, limit, governance_of(call).last_proposal)
    return [_shown(call, number, proposal_of(call, number)) for number in numbers]


@AUTHORITY.function(
    "offences(uint256 offset,uint256 limit) view returns ((uint256 number,address validator,bytes nodeKey,"
    "uint64 epoch,uint64 view,uint64 height)[] found)"
)
def offences(call: Call, offset: int, limit: int) -> list[tuple[int | Address | bytes, ...]]:
    """Up to `limit` of all offences after the first `offset`. Raises: InvalidLimit for a limit above 100."""
    numbers = _page(offset, limit, governance_of(call).last_offence)
    found = [(number, call.get(Offence, Offence.key(number))) for number in numbers]
    return [(number, *offence) for number, offence in found if offence is not None]


def _page(offset: int, limit: int, last: int) -> range:
    """The numbers, which count from 1."""
    if limit > ITEMS_PER_VIEW_MAX:
        raise InvalidLimit(limit, ITEMS_PER_VIEW_MAX)
    return range(offset + 1, min(offset + limit, last) + 1)


def _shown(call: Call, number: int, proposal: Proposal) -> tuple[Any, ...]:
    outcome = outcome_at(proposal, call.block.height, call.chain)
    expiry = expiry_height(proposal, call.chain)
    content, votes = proposal[:5], proposal[5:8]
    return (number, *content, expiry, *votes, outcome, proposal.closed_height)
