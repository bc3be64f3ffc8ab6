"""Blocks, receipts and logs: their canonical bytes, hashes and roots.

Canonical bytes are msgpack arrays; hashes are SHA-256. The roots of a block's transactions and receipts are binary
Merkle trees in the manner of RFC 6962 (a leaf's hash starts with 00, a node's with 01), so one receipt can be proven
without the others.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgpack

from ctt_state.crypto import sha256
from ctt_state.units import ZERO_HASH, Address, Gas, Hash, Height, Ms

HEADER_VERSION: Final = 1
EVIDENCE_MAX: Final = 4  # pieces in one block
NO_EVIDENCE_ROOT: Final = ZERO_HASH  # of a block that carries no evidence of a validator's double vote

_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack
_unpack: Final = msgpack.unpackb


class Log(NamedTuple):
    """What a module told: its address, up to four topics of 32 bytes, and data."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes


class Receipt(NamedTuple):
    """What became of a transaction. `output` is the ABI error of one that failed, else empty."""

    succeeded: bool
    gas_used: Gas
    logs: tuple[Log, ...]
    output: bytes = b""

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Receipt":
        succeeded, gas_used, logs, output = _unpack(data, use_list=False)
        return cls(succeeded, gas_used, tuple(Log(*log) for log in logs), output)


class Header(NamedTuple):
    """All that a validator signs for: where the block stands, when, whose it is, and the roots."""

    version: int
    genesis_hash: Hash
    height: Height
    epoch: int
    view: int
    parent_hash: Hash
    timestamp_ms: Ms
    proposer: Address
    gas_used: Gas
    transactions_root: Hash
    receipts_root: Hash
    state_root: Hash
    evidence_root: Hash
    validators_hash: Hash
    next_validators_hash: Hash

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        return cls(*_unpack(data))

    @property
    def hash(self) -> Hash:
        return Hash(sha256(self.encode()))


class Block(NamedTuple):
    """A header, the raw transactions it orders, and the encoded evidence that it acts on (`ctt_state.votes`)."""

    header: Header
    transactions: tuple[bytes, ...]
    evidence: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def decode(cls, data: bytes) -> "Block":
        header, transactions, evidence = _unpack(data, use_list=False)
        return cls(Header(*header), transactions, evidence)


class FinalBlock(NamedTuple):
    """A block that can never be taken back, with what its transactions did: one entry a transaction in each."""

    block: Block
    hash: Hash
    receipts: tuple[Receipt, ...]
    senders: tuple[Address, ...]
    transaction_hashes: tuple[Hash, ...]


class Place(NamedTuple):
    """Where a transaction stands in the chain."""

    height: Height
    index: int  # type: ignore[assignment]  # of no use as a tuple's search


class BlockContext(NamedTuple):
    """What a rule may know of the block it runs in."""

    height: Height
    time_ms: Ms
    proposer: Address


def merkle_root(leaves: Sequence[bytes]) -> Hash:
    """The root over these leaves, in order; of none, the hash of nothing."""
    level = [sha256(b"\0" + leaf) for leaf in leaves]
    if not level:
        return Hash(sha256(b""))
    while len(level) > 1:
        paired = [sha256(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return Hash(level[0])


def evidence_root(evidence: Sequence[bytes]) -> Hash:
    """The root over a block's pieces of evidence, in order; of none, zero."""
    return merkle_root(evidence) if evidence else NO_EVIDENCE_ROOT


def merkle_branch(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes beside the way from leaf `index` to the root, lowest first."""
    level = [sha256(b"\0" + leaf) for leaf in leaves]
    branch = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            branch.append(level[index ^ 1])
        paired = [sha256(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        index //= 2
    return tuple(branch)


def is_in_merkle_root(root: Hash, leaf: bytes, index: int, count: int, branch: Sequence[bytes]) -> bool:
    """Whether the branch shows that `leaf` is number `index` of `count` under the root."""
    if not 0 <= index < count:
        return False
    node, rest = sha256(b"\0" + leaf), list(branch)
    while count > 1:
        if index ^ 1 < count:
            if not rest:
                return False
            beside = rest.pop(0)
            node = sha256(b"\1" + beside + node) if index & 1 else sha256(b"\1" + node + beside)
        index, count = index // 2, (count + 1) // 2
    return not rest and node == root
