"""What consensus is told and what it asks for: `step(event, now) -> effects`.

Whoever runs the engine carries effects out in their order and brings back what came of them as events. Effects that
touch the disk (`Build`, `Validate`, `Cast`, `Finalize`) run one after the other; `Send`, `Broadcast` and `Fetch`
return at once. A `Source` is whatever the runner calls a peer; the engine only hands it back.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from ctt_state.block import Block, Header
from ctt_state.units import Address, Hash, Height, Ms
from ctt_state.validators import ValidatorSet
from ctt_state.votes import Certificate, Evidence, Statement, Vote

Source = Hashable


class Now(NamedTuple):
    """Two clocks: `mono_ms` never jumps and drives timers, `wall_ms` only stamps blocks."""

    mono_ms: int
    wall_ms: Ms


class Head(NamedTuple):
    """A final block."""

    header: Header
    block_hash: Hash


# --- messages between engines ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """The leader's block of a view, its NOTARIZE, and why the block may stand there: the certificate of the parent's
    view (absent iff that is view 0) and the nullifications of the views between, at most `GAPS_INLINE_MAX`."""

    block: Block
    vote: Vote
    parent: Certificate | None
    nullifications: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a node stands; told on connecting and every second."""

    epoch: int
    view: int
    finalized_height: Height
    finalized_hash: Hash
    finalization: Certificate | None  # of the highest view it holds in this epoch; absent before the first


@dataclass(frozen=True, slots=True)
class GetCertificates:
    """Asks for what certificates there are of these views, both included."""

    epoch: int
    from_view: int
    to_view: int


Message = Proposal | Vote | Certificate | Status | GetCertificates


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: at `deadline_ms`, or before."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a peer. `signer` is the place in the epoch's set of the validator that the peer has shown to be,
    None for others; a vote counts only from its own signer. With the validator's address the place can be found again
    when the message waits for the next epoch."""

    message: Message
    source: Source
    signer: int | None
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """A `Build` is done: the block is executed."""

    block: Block


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """A `Build` could not be done; the view is given up."""

    epoch: int
    view: int


@dataclass(frozen=True, slots=True)
class BlockValidated:
    """A `Validate` is done: executed, `fault` None if its roots match."""

    block_hash: Hash
    fault: str | None


@dataclass(frozen=True, slots=True)
class BlockUnplaced:
    """A `Validate` came to nothing: the ledger does not have the parent, because its head moved meanwhile or it keeps
    only so many blocks. Nothing is wrong with the block."""

    block_hash: Hash


@dataclass(frozen=True, slots=True)
class VoteSigned:
    """A `Cast` is done: the vote is on the disk with all that it relies on."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class BlockArrived:
    """A block that was asked for by `Fetch`. Its hash is its header's; nothing else about it is known."""

    block: Block


@dataclass(frozen=True, slots=True)
class BlockFinal:
    """The ledger's head is now this block, by a `Finalize` or by catching up. `next_set` is the set of the next epoch
    when the block is its epoch's boundary, else None."""

    head: Head
    next_set: ValidatorSet | None


Event = (
    Tick
    | Received
    | BlockBuilt
    | BuildFailed
    | BlockValidated
    | BlockUnplaced
    | VoteSigned
    | BlockArrived
    | BlockFinal
)


# --- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Build:
    """Make and execute the block of this view on its parent, which is the ledger's head or an executed block."""

    epoch: int
    view: int
    parent_hash: Hash
    timestamp_ms: Ms


@dataclass(frozen=True, slots=True)
class Validate:
    """Execute the block on its parent, which is the ledger's head or an executed block, and compare its roots."""

    block: Block


@dataclass(frozen=True, slots=True)
class Cast:
    """Append the block (for a NOTARIZE), the certificates the vote relies on and the vote to the journal, sync, sign.

    Blocks and certificates that the journal has are not written again.
    """

    statement: Statement
    reliance: tuple[Certificate, ...]
    block: Block | None


@dataclass(frozen=True, slots=True)
class Finalize:
    """Write the executed block and its ancestors above the head, with the certificate; then tell everyone."""

    block_hash: Hash
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get this block, which these validators hold; it comes as `BlockArrived`, or as `BlockFinal` if catching up was
    shorter. Asked again each `T_RETRY` while it is needed. `certificate` is a finalization of it, if there is one."""

    block_hash: Hash
    holders: tuple[int, ...]
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every connected peer."""

    message: Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one peer."""

    to: Source
    message: Message


@dataclass(frozen=True, slots=True)
class Accuse:
    """A validator voted twice: keep the proof for a block, tell the operator."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Halt:
    """The chain's safety or this machine's state is broken: stop voting for good, and say why."""

    reason: str
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class KeepSilent:
    """The restore guard ends: append to the journal that nothing is cast up to this place, and lift the guard."""

    epoch: int
    view: int


Effect = Build | Validate | Cast | Finalize | Fetch | Broadcast | Send | Accuse | Halt | KeepSilent


@dataclass(frozen=True, slots=True)
class Restored:
    """What the journal held above the last final block when the node started."""

    votes: tuple[Vote, ...]
    certificates: tuple[Certificate, ...]
    blocks: tuple[Block, ...]
    forgotten: tuple[int, int] = (
        0,
        0,
    )  # epoch and view up to which own votes are not kept, and none will be cast


NOTHING_RESTORED = Restored((), (), ())
