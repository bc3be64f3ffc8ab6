"""What a block does to the validators besides its transactions: evidence bars a key, and one block an epoch fixes the
next set (docs/PROTOCOL.md, A-4 and A-7).

Whoever executes a block, whether making or checking it, calls on the block's overlay, in this order:

1. `begin_block(overlay, block.evidence, height, chain)`, or when making a block `apply_evidence` for each piece at
   hand until `EVIDENCE_MAX` are in: one that is refused has changed nothing and is left out;
2. `due_transaction`, and `apply_due` if one is; then `apply_transaction` for each other transaction;
3. `close_block(overlay, height, chain)`, which gives the header's two hashes of sets;

then come the tree over the overlay's changes and the header, with `evidence_root(block.evidence)`.
"""

from collections.abc import Sequence
from typing import Final

from ctt_state.block import EVIDENCE_MAX
from ctt_state.errors import InvalidBlock
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Barred, EpochSet, Governance, Offence
from ctt_state.succession import succeed
from ctt_state.units import Hash, Height
from ctt_state.validators import ValidatorSet, epoch_of, fixing_height
from ctt_state.view import Lookup, Overlay, find
from ctt_state.votes import Evidence, MalformedVote, is_signed

SETS_KEPT: Final = 2_001  # EpochSets: those of 2,000 epochs, seven days of the usual ones, and the next


def validators_of(lookup: Lookup, epoch: int) -> ValidatorSet:
    """The set of an epoch: one of the last 2,000, the present, or the next once it is fixed.

    Raises: LookupError for any other.
    """
    kept = find(lookup, EpochSet, EpochSet.key(epoch))
    if kept is None:
        raise LookupError(f"no set of epoch {epoch} in this state")
    return kept.validators


def begin_block(overlay: Overlay, evidence: Sequence[bytes], height: int, chain: ChainParameters) -> None:
    """What a block does before its transactions. Raises: InvalidBlock for too much evidence, then for a piece."""
    if len(evidence) > EVIDENCE_MAX:
        raise InvalidBlock(f"{len(evidence)} pieces of evidence in block {height}; limit {EVIDENCE_MAX}")
    for piece in evidence:
        apply_evidence(overlay, piece, height, chain)


def apply_evidence(overlay: Overlay, evidence: bytes, height: int, chain: ChainParameters) -> None:
    """Bars the key that signed two contradicting votes, and writes the offence down.

    A key is barred once: further evidence against it would change nothing.

    Raises: InvalidBlock for bytes that are no evidence, an epoch whose set is not kept, a signer who is not in it, a
    key that is barred, a signature that does not verify, in that order.
    """
    offence = _check_evidence(overlay.lookup, evidence, height, chain)
    governance = find(overlay.lookup, Governance, Governance.key()) or Governance()
    number = governance.last_offence + 1
    overlay.changes[Governance.key()] = governance._replace(last_offence=number)
    overlay.changes[Offence.key(number)] = offence
    overlay.changes[Barred.key(offence.consensus_key)] = Barred(number)


def _check_evidence(lookup: Lookup, evidence: bytes, height: int, chain: ChainParameters) -> Offence:
    try:
        votes = Evidence.decode(evidence)
    except MalformedVote as fault:
        raise InvalidBlock(f"evidence: {fault}") from None
    statement, signer = votes.first.statement, votes.first.signer
    kept = find(lookup, EpochSet, EpochSet.key(statement.epoch))
    if kept is None:
        raise InvalidBlock(f"evidence of epoch {statement.epoch}, whose set is not kept")
    if signer >= len(kept.members):
        raise InvalidBlock(f"evidence against validator {signer} of a set of {len(kept.members)}")
    address, key = kept.members[signer]
    if find(lookup, Barred, Barred.key(key)) is not None:
        raise InvalidBlock(f"evidence against key {key.hex()}, which is barred already")
    keys = kept.validators.keys
    if not all(is_signed(vote, keys, chain.genesis_hash) for vote in votes):
        raise InvalidBlock(
            f"evidence against validator {signer} of epoch {statement.epoch} is not signed by it"
        )
    return Offence(address, key, statement.epoch, statement.view, Height(height))


def close_block(overlay: Overlay, height: int, chain: ChainParameters) -> tuple[Hash, Hash]:
    """What a block does after its transactions: the one at the epoch's fixing height writes the next set.

    Gives what the header says: the hash of the epoch's set and, from the fixing height on, of the next one's.
    """
    epoch = epoch_of(height, chain.epoch_blocks)
    present = validators_of(overlay.lookup, epoch)
    fixing = fixing_height(epoch, chain.epoch_blocks)
    if height < fixing:
        return present.hash, present.hash
    if height == fixing:
        members, changes = succeed(overlay.lookup, present, Height(height), chain)
        overlay.changes.update(changes)
        overlay.changes[EpochSet.key(epoch + 1)] = EpochSet(members)
        if epoch + 1 >= SETS_KEPT:
            overlay.changes[EpochSet.key(epoch + 1 - SETS_KEPT)] = None
    return present.hash, validators_of(overlay.lookup, epoch + 1).hash
