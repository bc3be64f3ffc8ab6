"""A state from one node to another: whole, in pieces, under the root that a certified header names (docs/PROTOCOL.md,
P-8 to P-10).

The source holds the state of a final block as it was, while the chain goes on, and gives it in the order of its keys.
The writer makes a database of it that begins with that block. What a peer sends counts for nothing until the tree
over all rows has the header's root: then it is the state, whoever sent it.

Measured with 1,000,000 tokens (1,400,000 rows of 71 MB together; with 100,000 a tenth): 171 pieces, each of which costs
the source 6.6 ms; the writer takes 3.2 s of processor time to load them and 4 s to build tree and database, with 225
MiB of its own memory, most of it LevelDB's. With more tokens leaves wait on the disk (`node/leaves.py`).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from ctt_state.block import Block, Header
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.records import EpochSet
from ctt_state.units import Height
from ctt_state.validators import ValidatorSet, epoch_of, fixing_height
from ctt_state.votes import Certificate, InvalidCertificate, Kind, MalformedVote, check_certificate
from node.leaves import Leaves
from node.ledger import Ledger, base_write, load_tree
from node.store import PinnedState, Store

CHUNK_BYTES_MAX: Final = 1024 * 1024  # keys and values
CHUNK_ROWS_MAX: Final = 8_192
OFFER_MS: Final = 300_000  # so long a state is offered to whoever asks
HOLD_MS: Final = 600_000  # so long its rows can be had


class SnapshotGone(LookupError):
    """The state of this block is not held, or no longer."""

    def __init__(self, height: int) -> None:
        super().__init__(f"no snapshot of block {height} is held here; ask which is")


class SnapshotRefused(ValueError):
    """What was sent is not the state of that block."""


class Offer(NamedTuple):
    """A final block whose state can be had."""

    header: Header
    certificate: bytes


class Chunk(NamedTuple):
    """Records by key, in the order of keys."""

    rows: tuple[tuple[bytes, bytes], ...]
    is_last: bool


class _Held(NamedTuple):
    """A state that is held since `since_ms`, on the monotonic clock."""

    offer: Offer
    state: PinnedState
    since_ms: int


class SnapshotSource:
    """Gives peers the state of a certified block. Each that asks has at least `HOLD_MS - OFFER_MS` to fetch it, so at
    most two states are held at once. One thread asks; it need not be that which publishes blocks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: dict[Height, _Held] = {}

    def offer(self, now_ms: int) -> Offer | None:
        """The newest state that is held, or the head's from now on; None when neither is there."""
        self.expire(now_ms)
        for held in reversed(self._held.values()):
            if now_ms - held.since_ms < OFFER_MS:
                return held.offer
        store = self._ledger.store
        state = store.pin()  # first: the chain goes on meanwhile
        certificate = store.certificate(state.head.height)
        if certificate is None:
            return None
        offer = Offer(Block.decode(store.header_block(state.head.height)).header, certificate)
        self._held[state.head.height] = _Held(offer, state, now_ms)
        return offer

    def chunk(self, height: int, after_key: bytes, now_ms: int, bytes_max: int = CHUNK_BYTES_MAX) -> Chunk:
        """The rows that follow this key, from the first one on after an empty key; at least one if there are any.

        Raises: SnapshotGone.
        """
        self.expire(now_ms)
        held = self._held.get(Height(height))
        if held is None:
            raise SnapshotGone(height)
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        for key, data in held.state.rows(after_key + b"\0" if after_key else b""):
            size += len(key) + len(data)
            if rows and (size > bytes_max or len(rows) == CHUNK_ROWS_MAX):
                return Chunk(tuple(rows), is_last=False)
            rows.append((key, data))
        return Chunk(tuple(rows), is_last=True)

    def expire(self, now_ms: int) -> None:
        """Lets go of what has been held for long enough: while it is held its rows stay on the disk."""
        self._held = {height: held for height, held in self._held.items() if now_ms - held.since_ms < HOLD_MS}


class SnapshotWriter:
    """Makes a database that begins with this block. Load all rows in the order of their keys, then `finish`; before
    that there is only an unfinished database, which the next writer replaces. The sets of the block's epoch and, once
    it is fixed, of the next are among the rows."""

    def __init__(
        self,
        directory: Path,
        document: bytes,
        header: Header,
        certificate: bytes,
        validators: ValidatorSet,
    ) -> None:
        """`validators` are those of the header's epoch.

        Raises: InvalidGenesis, SnapshotRefused, then the errors of `Store.create`.
        """
        genesis = load_genesis(document)
        _check_offer(genesis, header, certificate, validators)
        self._header = header
        self._certificate = certificate
        is_fixed = header.height >= fixing_height(header.epoch, genesis.epoch_blocks)
        self._epochs = {EpochSet.key(epoch): epoch for epoch in (header.epoch, header.epoch + is_fixed)}
        self._sets: list[tuple[int, bytes]] = []  # of these epochs: the rows have them
        self._leaves = Leaves(directory)
        self._last_key = b""
        self._creation = Store.create(directory, document, genesis.hash)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._creation.__exit__(kind, error, traceback)

    @property
    def last_key(self) -> bytes:
        """After this key the next rows come; empty at the start."""
        return self._last_key

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes the next rows. Raises: SnapshotRefused for a key that is not after the last, StorageFailed."""
        self._creation.load_state(self._take(rows))

    def finish(self) -> None:
        """Builds the tree and, if it is the header's, makes the database exist.

        Raises: SnapshotRefused, StorageFailed.
        """
        root = load_tree(self._creation, self._leaves)
        if root != self._header.state_root:
            raise SnapshotRefused(
                f"the rows have state root {root.hex()}, block {self._header.height} has "
                f"{self._header.state_root.hex()}"
            )
        self._creation.finish(base_write(Block(self._header, ()), self._certificate, self._sets))

    def _take(self, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, data in rows:
            if key <= self._last_key:
                raise SnapshotRefused(f"row {key.hex()} comes after row {self._last_key.hex()}")
            self._last_key = key
            self._leaves.add(key, data)
            if key in self._epochs:
                self._sets.append((self._epochs[key], data))
            yield key, data


def _check_offer(genesis: Genesis, header: Header, certificate: bytes, validators: ValidatorSet) -> None:
    """The header is of this chain, names this set, and the certificate makes it final. Raises: SnapshotRefused."""
    epoch = epoch_of(header.height, genesis.epoch_blocks)
    if (header.genesis_hash, header.epoch) != (genesis.hash, epoch) or header.height < 1:
        raise SnapshotRefused(f"block {header.height} of epoch {header.epoch} is not of this chain")
    if header.validators_hash != validators.hash:
        raise SnapshotRefused(f"block {header.height} names another set of epoch {epoch}")
    try:
        decoded = Certificate.decode(certificate)
        check_certificate(decoded, validators.keys, genesis.hash)
    except (MalformedVote, InvalidCertificate) as fault:
        raise SnapshotRefused(f"certificate of block {header.height}: {fault}") from None
    signed = decoded.statement
    if (signed.kind, signed.epoch, signed.block_hash) != (Kind.FINALIZE, epoch, header.hash):
        raise SnapshotRefused(f"the certificate finalizes another block than {header.height}")
