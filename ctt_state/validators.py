"""The validators of an epoch: who may vote, in which order, and whose turn a view is (docs/PROTOCOL.md, C-5).

Epoch `e` is the blocks of heights `e * E + 1` to `(e + 1) * E`, the last of which is its boundary. Its set is fixed
`lead_blocks` before the boundary of the epoch before, so everyone knows it early.
"""

from typing import Final, NamedTuple

import msgpack

from ctt_state.crypto import sha256
from ctt_state.units import Address, Hash, Height

VALIDATORS_MAX: Final = 100
LEAD_BLOCKS_MAX: Final = 60


class Member(NamedTuple):
    """A validator: the address that speaks for it in governance, and the key it votes with."""

    address: Address
    consensus_key: bytes  # compressed, 33 bytes


class ValidatorSet(NamedTuple):
    """The members in order of their consensus keys; a signer is a place in this order."""

    members: tuple[Member, ...]

    @property
    def keys(self) -> tuple[bytes, ...]:
        return tuple(member.consensus_key for member in self.members)

    @property
    def hash(self) -> Hash:
        """What headers say of the set."""
        return Hash(sha256(msgpack.packb(self.members)))

    def leader(self, epoch: int, view: int) -> int:
        """The place of the validator whose turn the view is."""
        return (epoch + view) % len(self.members)

    def place_of_key(self, consensus_key: bytes) -> int | None:
        return next((i for i, each in enumerate(self.members) if each.consensus_key == consensus_key), None)

    def place_of_address(self, address: bytes) -> int | None:
        return next((i for i, each in enumerate(self.members) if each.address == address), None)


def epoch_of(height: int, epoch_blocks: int) -> int:
    """The epoch of a block; block 0 stands before the first and counts to it."""
    return max(height - 1, 0) // epoch_blocks


def boundary_of(epoch: int, epoch_blocks: int) -> Height:
    """The height of the epoch's last block."""
    return Height((epoch + 1) * epoch_blocks)


def fixing_height(epoch: int, epoch_blocks: int) -> Height:
    """The height of the block whose execution fixes the set of the next epoch."""
    return Height(boundary_of(epoch, epoch_blocks) - min(LEAD_BLOCKS_MAX, epoch_blocks // 2))
