"""The blocks above the ledger's head that consensus has heard of, and how far each has come."""

from enum import Enum, auto

from ctt_state.block import Block
from ctt_state.units import Hash
from node.consensus.events import Head

BLOCKS_MAX = 256


class Stage(Enum):
    """How far a block has come."""

    KNOWN = auto()  # its bytes are here
    EXECUTING = auto()
    EXECUTED = auto()  # on its parent's state, with the roots its header names
    INVALID = auto()


class Unfinal:
    """Blocks by hash. A block that does not descend from the head goes when the head moves."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._blocks: dict[Hash, Block] = {}
        self._stages: dict[Hash, Stage] = {}

    def __contains__(self, block_hash: Hash) -> bool:
        return block_hash in self._blocks

    def add(self, block: Block, stage: Stage = Stage.KNOWN) -> None:
        """Takes the block in, unless it is here, at or below the head, or there are too many."""
        block_hash = block.header.hash
        if block_hash in self._blocks:
            if stage is Stage.EXECUTED:
                self._stages[block_hash] = stage
        elif block.header.height > self.head.header.height and len(self._blocks) < BLOCKS_MAX:
            self._blocks[block_hash] = block
            self._stages[block_hash] = stage

    def drop(self, block_hash: Hash) -> None:
        """Forgets a block that nobody has certified; should a certificate come, it can be fetched."""
        self._blocks.pop(block_hash, None)
        self._stages.pop(block_hash, None)

    def block(self, block_hash: Hash) -> Block | None:
        return self._blocks.get(block_hash)

    def stage(self, block_hash: Hash) -> Stage | None:
        """None for a block that is not here. The head is executed."""
        return Stage.EXECUTED if block_hash == self.head.block_hash else self._stages.get(block_hash)

    def set_stage(self, block_hash: Hash, stage: Stage) -> None:
        if block_hash in self._stages:
            self._stages[block_hash] = stage

    def unplace(self, block_hash: Hash) -> None:
        """The ledger could not execute the block because it lacks the parent; both have to be executed again."""
        self.set_stage(block_hash, Stage.KNOWN)
        block = self._blocks.get(block_hash)
        if block is not None:
            self.set_stage(block.header.parent_hash, Stage.KNOWN)

    def place(self, block_hash: Hash) -> Head | None:
        """The block as something to stand on: the head itself, or one that is here."""
        if block_hash == self.head.block_hash:
            return self.head
        block = self._blocks.get(block_hash)
        return None if block is None else Head(block.header, block_hash)

    def move_head(self, head: Head) -> None:
        """What is at or below the new head goes, and what stands on something else, as far as can be told."""
        self.head = head
        kept: dict[Hash, Block] = {}
        stages = self._stages
        for block_hash, block in sorted(self._blocks.items(), key=lambda item: item[1].header.height):
            header = block.header
            if header.height <= head.header.height:
                continue
            stands = header.parent_hash in kept or header.parent_hash == head.block_hash
            if stands or (header.height > head.header.height + 1 and stages[block_hash] is Stage.KNOWN):
                kept[block_hash] = block
        self._blocks = kept
        self._stages = {block_hash: stages[block_hash] for block_hash in kept}
