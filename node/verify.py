"""Checks everything that a data directory holds against itself and against the rules, without running it."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from ctt_state.audit import audit
from ctt_state.block import Block, Header, merkle_root
from ctt_state.crypto import keccak, sha256
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.records import Record, decode_record
from ctt_state.tree import build
from ctt_state.units import hex_of
from ctt_state.votes import Certificate, Kind, Statement, check_certificate
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
    parent: Header | None = None
    for height in progress.track(range(store.head.height + 1), description="blocks"):
        try:
            block = Block.decode(store.block(height))
            faults = list(_block_faults(store, genesis, block, parent, height))
            parent = block.header
        except UNREADABLE as fault:
            faults, parent = [f"cannot be read: {fault!r}"], None
        yield from (f"block {height}: {fault}" for fault in faults)
    if parent is not None and (parent.hash, parent.state_root) != store.head[1:]:
        yield f"the head is not block {store.head.height}"
    yield from _tree_faults(store)
    yield from _record_faults(store, genesis)


def _block_faults(
    store: Store, genesis: Genesis, block: Block, parent: Header | None, height: int
) -> Iterator[str]:
    header = block.header
    receipts, senders, hashes = decode_receipts_row(store.receipts(height))
    if header.height != height or header.genesis_hash != genesis.hash:
        yield f"header is of block {header.height} of chain {hex_of(header.genesis_hash)}"
    if store.hash_at(height) != header.hash or store.height_of(header.hash) != height:
        yield "the hash of its header is not the one it is filed under"
    if parent is not None and header.parent_hash != parent.hash:
        yield "does not name the block below it as its parent"
    if parent is not None and header.timestamp_ms < parent.timestamp_ms + genesis.parameters.block_period_ms:
        yield f"comes {header.timestamp_ms - parent.timestamp_ms} ms after its parent"
    if hashes != tuple(map(keccak, block.transactions)) or merkle_root(hashes) != header.transactions_root:
        yield "transactions do not have the root in its header"
    if merkle_root([receipt.encode() for receipt in receipts]) != header.receipts_root:
        yield "receipts do not have the root in its header"
    if sum(receipt.gas_used for receipt in receipts) != header.gas_used or not (
        len(receipts) == len(senders) == len(hashes)
    ):
        yield "receipts do not match its transactions"
    for index, transaction_hash in enumerate(hashes):
        if store.place_of(transaction_hash) != (height, index):
            yield f"transaction {index} is not filed under its hash"
    if height:
        yield from _certificate_faults(store.certificate(height), genesis, header, parent)


def _certificate_faults(
    data: bytes, genesis: Genesis, header: Header, parent: Header | None
) -> Iterator[str]:
    keys = tuple(validator.consensus_key for validator in genesis.validators)
    try:
        certificate = Certificate.decode(data)
        check_certificate(certificate, keys, genesis.hash)
    except UNREADABLE as fault:
        yield f"certificate: {fault}"
        return
    signed = certificate.statement
    parent_view = parent.view if parent else signed.parent_view
    if signed != Statement(Kind.FINALIZE, header.epoch, header.view, parent_view, header.hash):
        yield "its certificate finalizes another block"


def _tree_faults(store: Store) -> Iterator[str]:
    """The tree built anew from the records has the head's root, and its nodes are the stored ones."""
    leaves = sorted((sha256(key), sha256(data)) for key, data in store.state_rows())
    built = dict(build(leaves))
    root = sha256(built[b""])
    head = store.head
    if root != head.state_root:
        yield f"the records have state root {hex_of(root)}, block {head.height} has {hex_of(head.state_root)}"
    for path, data in store.node_rows():
        if built.pop(path, None) != data:
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
