"""Executed blocks above the head: a small tree in memory, of which consensus makes one path final.

A block keeps what it changed over its parent, so its children read through it: the nearest ancestor that has a row
decides, below them all the head's rows. The storage thread adds blocks while the event loop drops what the new head
leaves behind.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple

from ctt_state.block import FinalBlock, Header
from ctt_state.tree import NodeChanges
from ctt_state.units import Address, Hash, Height

UNFINAL_BLOCKS_MAX: Final = 128

RowReader = Callable[[bytes], bytes | None]
RowChanges = Mapping[bytes, bytes | None]


class UnknownParent(LookupError):
    """The parent is neither the head nor an executed block above it."""

    def __init__(self, parent_hash: Hash) -> None:
        super().__init__(f"block 0x{parent_hash.hex()} is neither the head nor an executed block above it")
        self.parent_hash = parent_hash


class TooManyUnfinal(RuntimeError):
    """So many blocks stand on one another that none of them can be dropped for one more."""

    def __init__(self, height: Height) -> None:
        super().__init__(f"block {height} would stand on {UNFINAL_BLOCKS_MAX} blocks that are not final")


class Executed(NamedTuple):
    """A block with all that it does, not yet final. Rows are what the disk will hold."""

    final: FinalBlock
    state: dict[bytes, bytes | None]  # what it changed over its parent; None deletes
    nodes: NodeChanges
    receipt_rows: list[bytes]
    nonces: dict[Address, int]  # that its senders' accounts have after it

    @property
    def header(self) -> Header:
        return self.final.block.header

    @property
    def hash(self) -> Hash:
        return self.final.hash

    @property
    def parent_hash(self) -> Hash:
        return self.final.block.header.parent_hash


class UnfinalBlocks:
    """Executed blocks by hash, at most `UNFINAL_BLOCKS_MAX`; a block comes after its parent."""

    def __init__(self) -> None:
        self._blocks: dict[Hash, Executed] = {}
        self._changing = Lock()

    def get(self, block_hash: Hash) -> Executed | None:
        return self._blocks.get(block_hash)

    def __len__(self) -> int:
        return len(self._blocks)

    def ancestors(self, block_hash: Hash) -> list[Executed]:
        """The block and those that it stands on, nearest first; none when it is not here."""
        path: list[Executed] = []
        found = self._blocks.get(block_hash)
        while found is not None:
            path.append(found)
            found = self._blocks.get(found.parent_hash)
        return path

    def add(self, executed: Executed) -> None:
        """Keeps the block. When there are too many, the oldest goes that neither this one nor any other stands on:
        should it become final, it has to be executed again.

        Raises: TooManyUnfinal.
        """
        with self._changing:
            if len(self._blocks) >= UNFINAL_BLOCKS_MAX:
                self._drop_one(executed)
            self._blocks[executed.hash] = executed

    def settle(self, block_hash: Hash) -> None:
        """The block is the head now: only what stands on it stays."""
        with self._changing:
            staying = {block_hash}
            for each in tuple(self._blocks.values()):
                if each.parent_hash in staying:
                    staying.add(each.hash)
                else:
                    del self._blocks[each.hash]

    def _drop_one(self, newcomer: Executed) -> None:
        parents = {each.parent_hash for each in self._blocks.values()} | {newcomer.parent_hash}
        for block_hash in self._blocks:
            if block_hash not in parents:
                del self._blocks[block_hash]
                return
        raise TooManyUnfinal(newcomer.header.height)


def read_through(layers: Sequence[RowChanges], below: RowReader) -> RowReader:
    """Reads a row as the first of these changes that has it left it, else from below."""
    if not layers:
        return below

    def read(key: bytes) -> bytes | None:
        for layer in layers:
            if key in layer:
                return layer[key]
        return below(key)

    return read
