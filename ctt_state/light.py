"""What a client that executes nothing can be sure of: final headers, and what their roots stand for (docs/PROTOCOL.md,
C-11).

Known are the genesis hash and the first set of validators, or a checkpoint that the client trusts. A header is final
if a quorum of its epoch's set signed a FINALIZE for it, or for a descendant in the same epoch that headers link to it.
The view of the certificate may differ from the header's: the last block of an epoch is proposed again until it is
final. That last block names the hash of the next set, so one header, certificate and list for each epoch lead to the
tip. Against keys that leaked long ago only a checkpoint helps.

Pure. What comes in may be hostile; every refusal is a `LightRejected`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgpack

from ctt_state.block import HEADER_VERSION, Block, Header, evidence_root, is_in_merkle_root, merkle_root
from ctt_state.crypto import keccak, sha256
from ctt_state.tree import InvalidProof, check_proof
from ctt_state.units import UINT64_MAX, Hash, Height
from ctt_state.validators import VALIDATORS_MAX, ValidatorSet, boundary_of, epoch_of, fixing_height
from ctt_state.votes import Certificate, InvalidCertificate, Kind, check_certificate

EPOCHS_KNOWN_MAX: Final = (
    2_000  # sets kept behind the present one; the chain itself takes evidence for as long
)

_ADDRESS_BYTES: Final = 20
_HASH_BYTES: Final = 32
_KEY_BYTES: Final = 33
_NUMBERS: Final = frozenset(("version", "height", "epoch", "view", "timestamp_ms", "gas_used"))


class LightRejected(ValueError):
    """What was shown does not prove what it claims to."""


class ChainRules(NamedTuple):
    """What genesis says of every header."""

    genesis_hash: Hash
    epoch_blocks: int
    period_ms: int


class Checkpoint(NamedTuple):
    """A final block that is trusted without proof, and the set of the block after it."""

    height: Height
    block_hash: Hash
    validators: ValidatorSet


def genesis_checkpoint(rules: ChainRules, header: Header, first_set: ValidatorSet) -> Checkpoint:
    """Block 0 with the set of epoch 0. Raises: LightRejected if they do not belong together."""
    check_chain(rules, (header,))
    if header.height != 0:
        raise LightRejected(f"genesis header has height {header.height}, not 0")
    if header.validators_hash != first_set.hash:
        raise LightRejected(
            f"genesis header names the set {header.validators_hash.hex()}, given is {first_set.hash.hex()}"
        )
    return Checkpoint(header.height, header.hash, first_set)


class LightClient:
    """Follows a chain by its headers, from a checkpoint. A refusal changes nothing."""

    def __init__(self, rules: ChainRules, checkpoint: Checkpoint) -> None:
        self.rules = rules
        self.epoch = epoch_of(checkpoint.height + 1, rules.epoch_blocks)
        self._checkpoint = checkpoint
        self._sets: dict[int, ValidatorSet] = {self.epoch: checkpoint.validators}
        # What is final besides the checkpoint: the last block of each epoch in `_sets`, and the highest block.
        self._boundaries: dict[Height, Hash] = {}
        self.highest: tuple[Height, Hash] = checkpoint.height, checkpoint.block_hash

    @property
    def validators(self) -> ValidatorSet:
        """The set of the present epoch."""
        return self._sets[self.epoch]

    def advance(self, boundary: Header, certificate: Certificate, next_set: ValidatorSet) -> None:
        """Moves to the next epoch: the present one's last block, its finalization, and the set that it names.

        Raises: LightRejected.
        """
        _check_form(boundary)
        if boundary.epoch != self.epoch:
            raise LightRejected(
                f"boundary of epoch {boundary.epoch}; the client stands in epoch {self.epoch}"
            )
        last = boundary_of(self.epoch, self.rules.epoch_blocks)
        if boundary.height != last:
            raise LightRejected(f"block {boundary.height} is not the last of epoch {self.epoch}, {last} is")
        self._check_accepted((boundary,), certificate)
        _check_members(next_set)
        if next_set.hash != boundary.next_validators_hash:
            raise LightRejected(
                f"set {next_set.hash.hex()} is not the one that block {boundary.height} names for the next epoch, "
                f"{boundary.next_validators_hash.hex()}"
            )
        self._note(boundary)
        self._boundaries[boundary.height] = boundary.hash
        known = self.validators
        self.epoch += 1
        self._sets[self.epoch] = known if next_set == known else next_set  # most epochs change nothing
        self._forget()

    def accept(self, header: Header, certificate: Certificate, descendants: Sequence[Header] = ()) -> None:
        """Makes sure that the header is final: by its own certificate, or by that of the last descendant.

        Raises: LightRejected.
        """
        headers = (header, *descendants)
        self._check_accepted(headers, certificate)
        self._note(headers[-1])

    def _check_accepted(self, headers: Sequence[Header], certificate: Certificate) -> None:
        _check_form(headers[0])
        first = headers[0]
        validators = self._sets.get(first.epoch)
        if validators is None:
            raise LightRejected(
                f"block {first.height} is of epoch {first.epoch}; known are {min(self._sets)} to {self.epoch}"
            )
        if first.height <= self._checkpoint.height and first.hash != self._checkpoint.block_hash:
            raise LightRejected(
                f"block {first.height} is not above the checkpoint, block {self._checkpoint.height}"
            )
        check_final(self.rules, validators, headers, certificate)
        for header in headers:
            self._check_agrees(header)

    def _check_agrees(self, header: Header) -> None:
        """Two final blocks at one height: more than a third of a set is faulty, and no client can say who is right."""
        for height, ours, theirs in (
            (header.height, self._final_hash(header.height), header.hash),
            (header.height - 1, self._final_hash(Height(header.height - 1)), header.parent_hash),
        ):
            if ours is not None and ours != theirs:
                raise LightRejected(
                    f"block {height} is {theirs.hex()}; final here is {ours.hex()}: "
                    "more than a third of the validators are faulty"
                )

    def _final_hash(self, height: Height) -> Hash | None:
        for known, block_hash in ((self._checkpoint.height, self._checkpoint.block_hash), self.highest):
            if known == height:
                return block_hash
        return self._boundaries.get(height)

    def _note(self, header: Header) -> None:
        if header.height > self.highest[0]:
            self.highest = header.height, header.hash

    def _forget(self) -> None:
        oldest = self.epoch - EPOCHS_KNOWN_MAX
        if self._sets.pop(oldest - 1, None) is not None:
            self._boundaries.pop(boundary_of(oldest - 1, self.rules.epoch_blocks), None)


def check_final(
    rules: ChainRules, validators: ValidatorSet, headers: Sequence[Header], certificate: Certificate
) -> None:
    """Whether these headers, each the child of the one before, are final in the epoch of this set, the last by the
    certificate and the others as its ancestors.

    Raises: LightRejected.
    """
    if not 1 <= len(headers) <= rules.epoch_blocks:
        raise LightRejected(f"{len(headers)} headers; an epoch has {rules.epoch_blocks} blocks")
    check_chain(rules, headers)
    first, last = headers[0], headers[-1]
    if first.height == 0:
        raise LightRejected("block 0 is never voted on")
    if last.epoch != first.epoch:
        raise LightRejected(
            f"block {last.height} is of epoch {last.epoch}, block {first.height} of {first.epoch}"
        )
    if first.validators_hash != validators.hash:
        raise LightRejected(
            f"block {first.height} names the set {first.validators_hash.hex()}, that of epoch {first.epoch} is "
            f"{validators.hash.hex()}"
        )
    statement = certificate.statement
    if statement.kind is not Kind.FINALIZE:
        raise LightRejected(f"a certificate of {statement.kind.name} proves nothing final")
    if statement.epoch != last.epoch:
        raise LightRejected(f"certificate of epoch {statement.epoch} for a block of epoch {last.epoch}")
    if statement.block_hash != last.hash:
        raise LightRejected(
            f"certificate of block {statement.block_hash.hex()}, block {last.height} is {last.hash.hex()}"
        )
    try:
        check_certificate(certificate, validators.keys, rules.genesis_hash)
    except InvalidCertificate as fault:
        raise LightRejected(f"certificate of block {last.height}: {fault}") from None


def check_chain(rules: ChainRules, headers: Sequence[Header]) -> None:
    """Whether each header stands where it says, and on the one before. Says nothing about who signed them.

    Raises: LightRejected.
    """
    for header in headers:
        _check_form(header)
        _check_place(rules, header)
    for parent, child in pairwise(headers):
        _check_child(rules, parent, child)


def check_body(block: Block) -> None:
    """Whether the transactions and the evidence are those that the header stands for: a block's hash is its header's,
    so whoever passes a block on can put others in.

    Raises: LightRejected.
    """
    header = block.header
    if merkle_root([keccak(raw) for raw in block.transactions]) != header.transactions_root:
        raise LightRejected(
            f"the {len(block.transactions)} transactions are not those of block {header.height}"
        )
    if evidence_root(block.evidence) != header.evidence_root:
        raise LightRejected(
            f"the {len(block.evidence)} pieces of evidence are not those of block {header.height}"
        )


def check_receipt(header: Header, receipt: bytes, index: int, count: int, branch: Sequence[bytes]) -> None:
    """Whether the block has this receipt, as its transaction number `index` of `count`. The header is one accepted.

    A header does not say how many transactions there are, so `index` and `count` only name the way through the tree.
    But a receipt and a transaction that are shown with the same two numbers belong to each other.

    Raises: LightRejected.
    """
    if not is_in_merkle_root(header.receipts_root, receipt, index, count, branch):
        raise LightRejected(
            f"receipt {sha256(receipt).hex()} is not number {index} of {count} in block {header.height}"
        )


def check_transaction(header: Header, raw: bytes, index: int, count: int, branch: Sequence[bytes]) -> None:
    """Whether the block has this transaction, as number `index` of `count`, which `check_receipt` explains.

    Raises: LightRejected.
    """
    transaction_hash = keccak(raw)
    if not is_in_merkle_root(header.transactions_root, transaction_hash, index, count, branch):
        raise LightRejected(
            f"transaction {transaction_hash.hex()} is not number {index} of {count} in block {header.height}"
        )


def check_record(header: Header, key: bytes, value: bytes | None, proof: Sequence[bytes]) -> None:
    """Whether the state after the block holds this record; with None, that it holds none. The header is one accepted.

    Raises: LightRejected.
    """
    value_hash = None if value is None else sha256(value)
    try:
        check_proof(header.state_root, sha256(key), value_hash, proof)
    except InvalidProof as fault:
        raise LightRejected(f"record {key.hex()} in block {header.height}: {fault}") from None


def decode_header(data: bytes) -> Header:
    """The header of these bytes, in its one accepted form. Raises: LightRejected."""
    try:
        header = Header.decode(data)
    except (ValueError, TypeError, msgpack.UnpackException) as fault:
        raise LightRejected(f"{len(data)} bytes are no header: {fault}") from None
    _check_form(header)
    if header.encode() != data:
        raise LightRejected("header is not in the shortest form")
    return header


def _check_form(header: Header) -> None:
    """Every field has its type and length, so that nothing below can fail for another reason than it says."""
    for name, value in zip(header._fields, header, strict=True):
        if name in _NUMBERS:
            if type(value) is not int or not 0 <= value <= UINT64_MAX:
                raise LightRejected(f"header field {name} is {value!r:.40}, no 64-bit number")
        else:
            _check_bytes(f"header field {name}", value, _ADDRESS_BYTES if name == "proposer" else _HASH_BYTES)


def _check_members(validators: ValidatorSet) -> None:
    if not 1 <= len(validators.members) <= VALIDATORS_MAX:
        raise LightRejected(
            f"a set of {len(validators.members)} validators; allowed are 1 to {VALIDATORS_MAX}"
        )
    for place, member in enumerate(validators.members):
        _check_bytes(f"address of validator {place}", member.address, _ADDRESS_BYTES)
        _check_bytes(f"key of validator {place}", member.consensus_key, _KEY_BYTES)


def _check_bytes(name: str, value: Any, length: int) -> None:
    if type(value) is not bytes or len(value) != length:
        raise LightRejected(f"{name} is {value!r:.40}, not {length} bytes")


def _check_place(rules: ChainRules, header: Header) -> None:
    """What a header must say without regard to its neighbours."""
    if header.version != HEADER_VERSION:
        raise LightRejected(f"header of version {header.version}; known: {HEADER_VERSION}")
    if header.genesis_hash != rules.genesis_hash:
        raise LightRejected(
            f"block {header.height} is of the chain {header.genesis_hash.hex()}, not {rules.genesis_hash.hex()}"
        )
    epoch = epoch_of(header.height, rules.epoch_blocks)
    if header.epoch != epoch:
        raise LightRejected(f"block {header.height} says epoch {header.epoch}, it lies in {epoch}")
    is_fixed = header.height >= fixing_height(epoch, rules.epoch_blocks)
    if not is_fixed and header.next_validators_hash != header.validators_hash:
        raise LightRejected(
            f"block {header.height} names another next set before block {fixing_height(epoch, rules.epoch_blocks)}"
        )


def _check_child(rules: ChainRules, parent: Header, child: Header) -> None:
    """What a header must say after its parent's."""
    if child.height != parent.height + 1:
        raise LightRejected(f"block {child.height} comes after block {parent.height}")
    if child.parent_hash != parent.hash:
        raise LightRejected(
            f"block {child.height} stands on {child.parent_hash.hex()}, block {parent.height} is {parent.hash.hex()}"
        )
    earliest_ms = parent.timestamp_ms + rules.period_ms
    if child.timestamp_ms < earliest_ms:
        raise LightRejected(
            f"time of block {child.height} is {child.timestamp_ms} ms, allowed from {earliest_ms} ms"
        )
    is_next_epoch = child.epoch != parent.epoch
    validators_hash = parent.next_validators_hash if is_next_epoch else parent.validators_hash
    if child.validators_hash != validators_hash:
        raise LightRejected(
            f"block {child.height} names the set {child.validators_hash.hex()}, its parent says {validators_hash.hex()}"
        )
    if not is_next_epoch and child.view <= parent.view:
        raise LightRejected(
            f"view {child.view} of block {child.height} is not above its parent's {parent.view}"
        )
    is_after_fixing = child.height > fixing_height(child.epoch, rules.epoch_blocks)
    if is_after_fixing and child.next_validators_hash != parent.next_validators_hash:
        raise LightRejected(f"block {child.height} names another next set than its parent")
