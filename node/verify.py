"""Checks everything that a data directory holds against itself and against the rules, without running it."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from ctt_state.audit import audit
from ctt_state.block import Block, Header, evidence_root, merkle_root
from ctt_state.crypto import keccak, sha256
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.records import EpochSet, Record, decode_record
from ctt_state.tree import build
from ctt_state.units import Address, hex_of
from ctt_state.validators import ValidatorSet, epoch_of, fixing_height
from ctt_state.votes import Certificate, Kind, Statement, check_certificate
from node.leaves import Leaves
from node.ledger import decode_receipts_row
from node.store import Store

# What our decoders raise for bytes that they did not write: a running node leaves those to the database's checksums.
UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


class Progress(Protocol):
    """Who shows how far it has come."""

    def track(self, sequence: Iterable[int], *, description: str) -> Iterable[int]: ...


def verify(store: Store, progress: Progress) -> Iterator[str]:
    """Every fault, in words: block by block, then the tree, then the ledger's invariants.

    Raises: StorageDamaged when a row cannot be read.
    """
    genesis = load_genesis(store.genesis_document)
    yield from _chain_faults(_Chain(store, genesis), progress)
    yield from _tree_faults(store)
    yield from _record_faults(store, genesis)


class _Chain:
    """What is known of the chain on the way up."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self.store = store
        self.genesis = genesis
        self.epoch_blocks = genesis.epoch_blocks
        self.parent: Header | None = None  # None too after a block that cannot be read
        self.certified: int = store.base  # the last height with a certificate
        self._sets: dict[int, ValidatorSet] = {}

    def validators(self, epoch: int) -> ValidatorSet:
        """Raises: LookupError."""
        if epoch not in self._sets:
            self._sets[epoch] = EpochSet.decode(self.store.validators(epoch)).validators
        return self._sets[epoch]


def _chain_faults(chain: _Chain, progress: Progress) -> Iterator[str]:
    store = chain.store
    for height in progress.track(range(store.base, store.head.height + 1), description="blocks"):
        try:
            block = Block.decode(store.header_block(height))
            faults = list(_block_faults(chain, block, height))
            chain.parent = block.header
        except UNREADABLE as fault:
            faults, chain.parent = [f"cannot be read: {fault!r}"], None
        yield from (f"block {height}: {fault}" for fault in faults)
    if chain.parent is not None and (chain.parent.hash, chain.parent.state_root) != store.head[1:]:
        yield f"the head is not block {store.head.height}"


def _block_faults(chain: _Chain, block: Block, height: int) -> Iterator[str]:
    header, store = block.header, chain.store
    if header.height != height or header.genesis_hash != chain.genesis.hash:
        yield f"header is of block {header.height} of chain {hex_of(header.genesis_hash)}"
    if store.hash_at(height) != header.hash or store.height_of(header.hash) != height:
        yield "the hash of its header is not the one it is filed under"
    yield from _place_faults(chain, header)
    yield from _set_faults(chain, header)
    if height > store.base or height == 0:
        yield from _body_faults(store, block, height)
    if height:
        yield from _certificate_faults(chain, header, height)


def _place_faults(chain: _Chain, header: Header) -> Iterator[str]:
    """Whether the header follows its parent's."""
    parent, period_ms = chain.parent, chain.genesis.parameters.block_period_ms
    if header.epoch != epoch_of(header.height, chain.epoch_blocks):
        yield f"is of epoch {header.epoch}"
    elif header.height and header.proposer != _leader_of(chain, header):
        yield f"is not by the leader of its view: {hex_of(header.proposer)}"
    if parent is None:
        return
    if header.view <= _parent_view(header, parent):
        yield f"stands in view {header.view} over a block of view {parent.view}"
    if header.parent_hash != parent.hash:
        yield "does not name the block below it as its parent"
    if header.timestamp_ms < parent.timestamp_ms + period_ms:
        yield f"comes {header.timestamp_ms - parent.timestamp_ms} ms after its parent"


def _set_faults(chain: _Chain, header: Header) -> Iterator[str]:
    """Whether the header names the sets that are kept, each epoch's first of which the one before has named."""
    epoch = header.epoch
    if epoch == 0 and chain.validators(0) != chain.genesis.validator_set:
        yield "the set of epoch 0 is not that of genesis"
    if header.validators_hash != chain.validators(epoch).hash:
        yield f"does not name the kept set of epoch {epoch}"
    is_fixed = header.height >= fixing_height(epoch, chain.epoch_blocks)
    if header.next_validators_hash != chain.validators(epoch + is_fixed).hash:
        yield f"does not name the kept set of epoch {epoch + is_fixed} as the next"


def _body_faults(store: Store, block: Block, height: int) -> Iterator[str]:
    header = block.header
    receipts, senders, hashes = decode_receipts_row(store.receipts(height))
    if hashes != tuple(map(keccak, block.transactions)) or merkle_root(hashes) != header.transactions_root:
        yield "transactions do not have the root in its header"
    if merkle_root([receipt.encode() for receipt in receipts]) != header.receipts_root:
        yield "receipts do not have the root in its header"
    if evidence_root(block.evidence) != header.evidence_root:
        yield "evidence does not have the root in its header"
    if sum(receipt.gas_used for receipt in receipts) != header.gas_used or not (
        len(receipts) == len(senders) == len(hashes)
    ):
        yield "receipts do not match its transactions"
    for index, transaction_hash in enumerate(hashes):
        if store.place_of(transaction_hash) != (height, index):
            yield f"transaction {index} is not filed under its hash"


def _certificate_faults(chain: _Chain, header: Header, height: int) -> Iterator[str]:
    """A certificate that is here is right, and an epoch ends with one: it makes every block of the epoch final."""
    data = chain.store.certificate(height)
    if data is None:
        if height == chain.store.base:
            yield "the base has no certificate"
        if height % chain.epoch_blocks == 0 and height < chain.store.head.height:
            yield f"no certificate covers blocks {chain.certified + 1} to {height}"
        return
    chain.certified = height
    try:
        certificate = Certificate.decode(data)
        check_certificate(certificate, chain.validators(header.epoch).keys, chain.genesis.hash)
    except UNREADABLE as fault:
        yield f"certificate: {fault}"
        return
    if not _finalizes(certificate.statement, header, chain):
        yield "its certificate finalizes another block"


def _finalizes(signed: Statement, header: Header, chain: _Chain) -> bool:
    """Whether the statement is a FINALIZE of this block in its view or, for an epoch's last block, in a later one in
    which it was proposed again."""
    is_again = signed.view > header.view and header.height % chain.epoch_blocks == 0
    if is_again:
        parent_view, view = max(signed.parent_view, header.view), signed.view
    else:
        parent_view = _parent_view(header, chain.parent) if chain.parent else signed.parent_view
        view = header.view
    return signed == Statement(Kind.FINALIZE, header.epoch, view, parent_view, header.hash)


def _parent_view(header: Header, parent: Header) -> int:
    """The view of the block below: an epoch begins over view 0."""
    return parent.view if parent.epoch == header.epoch else 0


def _leader_of(chain: _Chain, header: Header) -> Address:
    validators = chain.validators(header.epoch)
    return validators.members[validators.leader(header.epoch, header.view)].address


def _tree_faults(store: Store) -> Iterator[str]:
    """The tree built anew from the records has the head's root, and its nodes are the stored ones."""
    leaves, head = Leaves(store.directory), store.head
    for key, data in store.state_rows():
        leaves.add(key, data)
    built = {path: sha256(data) for path, data in build(leaves)}
    root = built[b""]
    if root != head.state_root:
        yield f"the records have state root {hex_of(root)}, block {head.height} has {hex_of(head.state_root)}"
    for path, data in store.node_rows():
        if built.pop(path, None) != sha256(data):
            yield f"tree node at 0x{path.hex()} is not what its records make it"
    for path in built:
        yield f"tree node at 0x{path.hex()} is missing"


def _record_faults(store: Store, genesis: Genesis) -> Iterator[str]:
    """Records that are none, and what the others break of the ledger's invariants."""
    unreadable: list[str] = []
    try:
        faults = list(audit(_readable_records(store, unreadable), genesis.issued_wei))
    except UNREADABLE as fault:
        faults = [f"the records cannot be audited: {fault!r}"]
    yield from unreadable
    yield from faults


def _readable_records(store: Store, unreadable: list[str]) -> Iterator[tuple[bytes, Record]]:
    for key, data in store.state_rows():
        try:
            record = decode_record(key, data)
        except UNREADABLE as fault:
            unreadable.append(f"record {hex_of(key)} cannot be read: {fault!r}")
            continue
        yield key, record
