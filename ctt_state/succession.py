"""Who follows: what the block at an epoch's fixing height makes of offences and proposals (docs/PROTOCOL.md, A-5,
A-6 and A-8).

Pure: the present set and the records of the authority module in, the members of the next set and changed records out.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from ctt_state.modules.call import ChainParameters
from ctt_state.records import Barred, Change, Governance, Outcome, Proposal, Record
from ctt_state.units import Address, Height
from ctt_state.validators import VALIDATORS_MAX, Member, ValidatorSet
from ctt_state.view import Lookup, find

LIFETIME_MS: Final = 14 * 24 * 3_600_000  # of a proposal, in blocks of the usual period
READY_BLOCKS_MAX: Final = 1_000  # so old may the height be that a new key has signed
VALIDATORS_MIN: Final = 4  # fewer bear no fault; a development network may have them


def expiry_height(proposal: Proposal, chain: ChainParameters) -> Height:
    """The last height at which the proposal can be voted for or applied; the days are rounded down to whole blocks."""
    return Height(proposal.proposed_height + LIFETIME_MS // chain.block_period_ms)


def outcome_at(proposal: Proposal, height: int, chain: ChainParameters) -> Outcome:
    """An expired proposal is so at once, though its record says it from the next fixing height on."""
    is_over = proposal.outcome is Outcome.OPEN and height > expiry_height(proposal, chain)
    return Outcome.EXPIRED if is_over else proposal.outcome


def votes_of(voters: Iterable[Address], present: ValidatorSet) -> int:
    """How many of these are in the set: only their votes count."""
    return len({member.address for member in present.members}.intersection(voters))


def is_majority(voters: Iterable[Address], present: ValidatorSet) -> bool:
    """Whether the voters are strictly more than half of the set."""
    return 2 * votes_of(voters, present) > len(present.members)


def changes_max(validators: int) -> int:
    """How many members an epoch may change: as many as may be faulty, and at least one."""
    return max(1, (validators - 1) // 3)


def is_fresh(ready_height: int, height: int) -> bool:
    """Whether a new key has shown lately that it is held and its validator up."""
    return ready_height > 0 and ready_height >= height - READY_BLOCKS_MAX


class Succession(NamedTuple):
    """The members of the next set, in its order, and the records that changed."""

    members: tuple[Member, ...]
    changes: dict[bytes, Record]


def succeed(lookup: Lookup, present: ValidatorSet, height: Height, chain: ChainParameters) -> Succession:
    """What the block at this fixing height decides.

    Members whose key is barred go first, in the order of their offences; then carried proposals are applied in the
    order in which they were carried. Both stop after `changes_max`; what would make the set too small or too large, or
    bring in a key that is not ready, waits. Proposals that expired or were overtaken are closed.
    """
    keys = dict(present.members)  # by address: what the next set is to be
    changes_left = changes_max(len(keys)) - _remove_barred(lookup, keys, chain)
    governance = find(lookup, Governance, Governance.key()) or Governance()
    found = {number: find(lookup, Proposal, Proposal.key(number)) for number, _ in governance.open}
    before = {number: proposal for number, proposal in found.items() if proposal is not None}
    after = {number: _recount(proposal, present, height, chain) for number, proposal in before.items()}
    for number in _carried(after):
        proposal = after[number]
        if changes_left and _is_due(lookup, proposal, keys, height, chain):
            _apply(proposal, keys)
            after[number] = _close(proposal, Outcome.APPLIED, height)
            changes_left -= 1
    for number, proposal in after.items():
        if proposal.outcome is Outcome.OPEN and is_overtaken(lookup, proposal, keys):
            after[number] = _close(proposal, Outcome.VOID, height)

    changes: dict[bytes, Record] = {
        Proposal.key(number): proposal for number, proposal in after.items() if proposal != before[number]
    }
    still_open = [each for each in governance.open if after[each[0]].outcome is Outcome.OPEN]
    if len(still_open) < len(governance.open):
        changes[Governance.key()] = governance._replace(open=tuple(still_open))
    members = [Member(address, key) for address, key in keys.items()]
    return Succession(tuple(sorted(members, key=lambda member: member.consensus_key)), changes)


def is_overtaken(lookup: Lookup, proposal: Proposal, keys: dict[Address, bytes]) -> bool:
    """Whether the change can never be made to a set with these keys: it has been, its key is barred or another's, or
    its validator is not there any more."""
    is_member = proposal.validator in keys
    if proposal.change is Change.REMOVE:
        return not is_member
    key = proposal.consensus_key
    if key in keys.values() or find(lookup, Barred, Barred.key(key)) is not None:
        return True
    return is_member if proposal.change is Change.ADD else not is_member


def _remove_barred(lookup: Lookup, keys: dict[Address, bytes], chain: ChainParameters) -> int:
    """Gives how many went."""
    found = [(find(lookup, Barred, Barred.key(key)), address) for address, key in keys.items()]
    offenders = sorted([(barred.offence, address) for barred, address in found if barred is not None])
    spare = len(keys) - _validators_min(chain)
    leaving = offenders[: max(0, min(spare, changes_max(len(keys))))]
    for _, address in leaving:
        del keys[address]
    return len(leaving)


def _recount(proposal: Proposal, present: ValidatorSet, height: Height, chain: ChainParameters) -> Proposal:
    """The proposal with the votes of present members only. It stands as long as its proposer is one of them."""
    if outcome_at(proposal, height, chain) is Outcome.EXPIRED:
        return _close(proposal, Outcome.EXPIRED, height)
    if present.place_of_address(proposal.proposer) is None:
        return _close(proposal, Outcome.VOID, height)
    members = {member.address for member in present.members}
    voters = tuple([voter for voter in proposal.voters if voter in members])
    carried = (proposal.carried_height or height) if is_majority(voters, present) else Height(0)
    return proposal._replace(voters=voters, carried_height=carried)


def _carried(proposals: dict[int, Proposal]) -> list[int]:
    """The numbers of those that a majority wants, in the order in which they were carried."""
    carried = [(each.carried_height, number) for number, each in proposals.items() if each.carried_height]
    return [number for _, number in sorted(carried)]


def _is_due(
    lookup: Lookup, proposal: Proposal, keys: dict[Address, bytes], height: Height, chain: ChainParameters
) -> bool:
    """Whether the change can be made to the set now."""
    if proposal.outcome is not Outcome.OPEN or is_overtaken(lookup, proposal, keys):
        return False
    if proposal.change is Change.REMOVE:
        return len(keys) > _validators_min(chain)
    has_room = proposal.change is Change.ROTATE or len(keys) < VALIDATORS_MAX
    return has_room and is_fresh(proposal.ready_height, height)


def _apply(proposal: Proposal, keys: dict[Address, bytes]) -> None:
    if proposal.change is Change.REMOVE:
        del keys[proposal.validator]
    else:
        keys[proposal.validator] = proposal.consensus_key


def _close(proposal: Proposal, outcome: Outcome, height: Height) -> Proposal:
    return proposal._replace(outcome=outcome, closed_height=height)


def _validators_min(chain: ChainParameters) -> int:
    return 1 if chain.is_development else VALIDATORS_MIN
