"""A chain of made-up rows, computable at any height, and the comparison of a store with it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ctt_state.units import Hash, Height
from node.datadir import SpaceLimits
from node.store import CERTIFICATES_APART_MAX, UNDO_BLOCKS, BlockWrite, Head, Store

DOCUMENT = b'{"name":"made up"}'
GENESIS_HASH = Hash(hashlib.sha256(DOCUMENT).digest())
OTHER_GENESIS_HASH = Hash(hashlib.sha256(b"another chain").digest())
GENESIS_RECORDS = 100
ACCOUNTS = 16
TRANSACTIONS = 3
CERTIFICATES = 40  # of the last blocks; below them each 30th
NO_LIMITS = SpaceLimits(0, 0, 0, 0)


def make_bytes(what: str, height: int, length: int = 32) -> bytes:
    """Bytes that look random and follow from their name."""
    return hashlib.shake_128(f"{what} {height}".encode()).digest(length)


def make_head(height: int) -> Head:
    return Head(Height(height), Hash(make_bytes("block", height)), Hash(make_bytes("root", height)))


def make_write(height: int, block_bytes: int = 600) -> BlockWrite:
    """Changes one account, deletes the last block's note and leaves its own."""
    head = make_head(height)
    return BlockWrite(
        height=height,
        block_hash=head.block_hash,
        state_root=head.state_root,
        block=make_bytes("body", height, block_bytes),
        receipts=make_bytes("receipts", height, 100),
        certificate=make_bytes("certificate", height, 100),
        transactions=[make_bytes(f"transaction {index}", height) for index in range(TRANSACTIONS)],
        state=[account(height), (b"note%d" % height, b"here"), (b"note%d" % (height - 1), None)],
        nodes=[(bytes([height % ACCOUNTS]), make_bytes("node", height, 200)), (b"gone", None)],
        undo=make_bytes("undo", height, 50),
        expiring=height - CERTIFICATES if height > CERTIFICATES else None,
    )


def account(height: int) -> tuple[bytes, bytes]:
    """The account that a block changes."""
    return b"account%d" % (height % ACCOUNTS), make_bytes("account", height, 80)


def genesis_records() -> Iterator[tuple[bytes, bytes]]:
    return ((b"record%05d" % number, make_bytes("record", number, 80)) for number in range(GENESIS_RECORDS))


def genesis_nodes() -> Iterator[tuple[bytes, bytes]]:
    return ((b"path%05d" % number, make_bytes("path", number, 200)) for number in range(GENESIS_RECORDS))


def create_chain(directory: Path, block_bytes: int = 600) -> None:
    with Store.create(directory, DOCUMENT, GENESIS_HASH) as creation:
        creation.load_state(genesis_records())
        creation.load_nodes(genesis_nodes())
        creation.finish(make_write(0, block_bytes))


def open_chain(directory: Path) -> Store:
    return Store.open(directory, GENESIS_HASH, NO_LIMITS)


def commit_blocks(store: Store, count: int, block_bytes: int = 600) -> None:
    for _ in range(count):
        store.commit(make_write(store.head.height + 1, block_bytes))
        store.publish()


def make_chain(directory: Path, blocks: int, block_bytes: int = 600) -> Store:
    """A new chain with this many blocks over genesis, open."""
    create_chain(directory, block_bytes)
    store = open_chain(directory)
    commit_blocks(store, blocks, block_bytes)
    return store


def check_chain(store: Store, block_bytes: int = 600) -> None:
    """Every row that the store serves is the one that was written; nothing is missing, nothing is over."""
    height = store.head.height
    assert store.head == make_head(height)
    assert (store.genesis_document, store.genesis_hash) == (DOCUMENT, GENESIS_HASH)
    for at in range(height + 1):
        _check_block(store, at, block_bytes)
    recent = range(max(0, height - ACCOUNTS + 1), height + 1)
    state = dict(genesis_records()) | dict(account(at) for at in recent) | {b"note%d" % height: b"here"}
    assert dict(store.state_rows()) == state
    nodes = {bytes([at % ACCOUNTS]): make_bytes("node", at, 200) for at in recent}
    assert dict(store.node_rows()) == dict(genesis_nodes()) | nodes
    for key, data in state.items():
        assert store.state(key) == data
    for path, data in nodes.items():
        assert store.node(path) == data


def _check_block(store: Store, height: int, block_bytes: int) -> None:
    write = make_write(height, block_bytes)
    assert store.block(height) == write.block
    assert store.receipts(height) == write.receipts
    is_kept = height > store.head.height - CERTIFICATES or height % CERTIFICATES_APART_MAX == 0
    assert store.certificate(height) == (write.certificate if is_kept else None)
    assert store.hash_at(height) == write.block_hash
    assert store.height_of(write.block_hash) == height
    for index, transaction_hash in enumerate(write.transactions):
        assert store.place_of(transaction_hash) == (height, index)
    if height > store.head.height - UNDO_BLOCKS:
        assert store.undo(height) == write.undo
