"""How `ctt init --from-peer` comes by a chain: a final block and the state after it (docs/PROTOCOL.md, P-7 to
P-10).

Peers are asked one after the other, until one has given all of it. None is trusted: the sets of validators from genesis
or a checkpoint on prove the block, and the block proves the state. What one peer has proven holds for the next.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from rich.progress import Progress

from ctt_state.block import Header
from ctt_state.genesis import Genesis
from ctt_state.light import (
    EPOCHS_KNOWN_MAX,
    ChainRules,
    Checkpoint,
    LightClient,
    LightRejected,
    check_chain,
)
from ctt_state.units import ZERO_HASH, Hash, Height, hex_of
from ctt_state.validators import ValidatorSet, boundary_of, epoch_of
from ctt_state.votes import Certificate
from node.cli.asking import Conversation, PeerFailed, converse
from node.datadir import check_room
from node.exits import Exit, Failure
from node.snapshot import SnapshotRefused, SnapshotWriter
from p2p.identity import Identity
from p2p.messages import (
    EPOCHS_MAX,
    ROWS_BYTES_MAX,
    ROWS_MAX,
    EpochsReply,
    GetEpochs,
    GetSnapshot,
    GetSnapshotChunk,
    SnapshotChunk,
    SnapshotReply,
)
from p2p.network import Chain, Endpoint

# A piece that is not the last has this much, or all the rows it may have: a state that never ends fills the disk at
# least, where `check_room` finds it.
PIECE_BYTES_MIN: Final = ROWS_BYTES_MAX // 2


class TrustedBlock(NamedTuple):
    """The last block of an epoch, final by the operator's word."""

    height: Height
    block_hash: Hash


class Task(NamedTuple):
    """What is to be made, and as whom to ask."""

    directory: Path
    document: bytes
    genesis: Genesis
    identity: Identity
    trusted: TrustedBlock | None


class Begun(NamedTuple):
    """What the new database begins with, and who gave it; others that were asked before did not."""

    header: Header
    certificate: Certificate
    records: int
    peer: str
    failures: tuple[str, ...]


class Bootstrap:
    """What has been proven of the chain so far."""

    def __init__(self, task: Task, progress: Progress) -> None:
        """Raises: Failure (64) for a trusted block that does not end an epoch."""
        genesis = task.genesis
        self._task = task
        self._progress = progress
        self._chain = Chain(genesis.parameters.chain_id, genesis.hash)
        self._rules = ChainRules(genesis.hash, genesis.epoch_blocks, genesis.parameters.block_period_ms)
        self._light: LightClient | None = None
        self._sets: dict[int, ValidatorSet] = {}
        if task.trusted is None:
            # Block 0's own hash would take making its state, and only block 1 names it, which no peer is to offer.
            self._begin(Checkpoint(Height(0), ZERO_HASH, genesis.validator_set))
        elif task.trusted.height != boundary_of(self._epoch(task.trusted.height), genesis.epoch_blocks):
            raise Failure(
                Exit.USAGE,
                f"--checkpoint {task.trusted.height}: not the last block of an epoch; those are the multiples of "
                f"{genesis.epoch_blocks}",
            )

    def run(self, peers: Sequence[tuple[str, Endpoint]]) -> Begun:
        """Makes the database. Raises: Failure, when no peer gives what it takes, and those of the storage."""
        failures: list[str] = []
        codes: set[Exit] = set()
        for name, endpoint in peers:
            try:
                return self._ask(name, endpoint)._replace(failures=tuple(failures))
            except PeerFailed as fault:
                failures.append(f"{name}: {fault}")
                codes.add(fault.code)
        raise Failure(codes.pop() if len(codes) == 1 else Exit.UNAVAILABLE, "; ".join(failures))

    def _ask(self, name: str, endpoint: Endpoint) -> Begun:
        """Raises: PeerFailed; Failure."""
        self._show(f"asking {name}")
        try:
            with ExitStack() as stack:
                writer, begun = asyncio.run(self._talk(name, endpoint, stack))
                self._show(f"building the tree of {begun.records:,} records")
                writer.finish()
        except (LightRejected, SnapshotRefused) as lie:
            raise PeerFailed(Exit.DAMAGED, str(lie)) from None
        return begun

    async def _talk(self, name: str, endpoint: Endpoint, stack: ExitStack) -> tuple[SnapshotWriter, Begun]:
        """Everything that this peer is asked; the writer has all rows then.

        Raises: PeerFailed, LightRejected, SnapshotRefused; Failure.
        """
        async with converse(self._task.identity, self._chain, name, endpoint) as peer:
            light = await self._follow(peer)
            offer = await peer.ask(GetSnapshot(peer.number()), SnapshotReply)
            header, certificate = offer.header, offer.certificate
            if header.epoch > light.epoch:
                await self._follow(peer)  # an epoch has ended meanwhile
            if header.height == 1:
                raise PeerFailed(Exit.UNAVAILABLE, "has block 1 only: there is nothing to skip yet")
            light.accept(header, certificate)
            writer = SnapshotWriter(
                self._task.directory,
                self._task.document,
                header,
                certificate.encode(),
                self._sets[header.epoch],
            )
            stack.enter_context(writer)
            records = await self._load(peer, header.height, writer)
        return writer, Begun(header, certificate, records, name, ())

    # --- the sets of validators -----------------------------------------------------------------------------------

    async def _follow(self, peer: Conversation) -> LightClient:
        """To the present epoch, as this peer knows it. Raises: PeerFailed, LightRejected."""
        light = self._light or await self._begin_at_trusted(peer)
        task = self._progress.add_task("epochs", total=self._epoch((await peer.meet()).height))
        while True:
            question = GetEpochs(peer.number(), light.epoch, EPOCHS_MAX)
            ends = (await peer.ask(question, EpochsReply)).epochs
            for end in ends:
                light.advance(end.header, end.certificate, end.next_set)
                self._sets[light.epoch] = light.validators
                self._sets.pop(light.epoch - EPOCHS_KNOWN_MAX - 1, None)
            self._progress.update(task, completed=light.epoch)
            if not ends:
                return light

    async def _begin_at_trusted(self, peer: Conversation) -> LightClient:
        """Raises: PeerFailed."""
        if self._task.trusted is None:
            raise AssertionError("there is no checkpoint")
        height, block_hash = self._task.trusted
        question = GetEpochs(peer.number(), self._epoch(height), 1)
        ends = (await peer.ask(question, EpochsReply)).epochs
        if not ends:
            raise PeerFailed(Exit.UNAVAILABLE, f"has no block {height}")
        header, next_set = ends[0].header, ends[0].next_set
        check_chain(self._rules, (header,))
        if (header.height, header.hash) != self._task.trusted:
            raise PeerFailed(
                Exit.DAMAGED,
                f"has block {header.height} {hex_of(header.hash)}, not the checkpoint {height} {hex_of(block_hash)}",
            )
        if next_set.hash != header.next_validators_hash:
            raise PeerFailed(Exit.DAMAGED, f"shows another set than block {height} names")
        return self._begin(Checkpoint(height, block_hash, next_set))

    def _begin(self, checkpoint: Checkpoint) -> LightClient:
        self._light = LightClient(self._rules, checkpoint)
        self._sets[self._light.epoch] = checkpoint.validators
        return self._light

    def _epoch(self, height: int) -> int:
        return epoch_of(height, self._rules.epoch_blocks)

    # --- the state ------------------------------------------------------------------------------------------------

    async def _load(self, peer: Conversation, height: Height, writer: SnapshotWriter) -> int:
        """Loads all rows; how many. Raises: PeerFailed, SnapshotRefused, Failure (74) when the disk fills up."""
        task = self._progress.add_task(f"records of block {height:,}", total=None)
        records = 0
        while True:
            check_room(self._task.directory)
            question = GetSnapshotChunk(peer.number(), height, writer.last_key)
            piece = await peer.ask(question, SnapshotChunk)
            _check_piece(piece)
            writer.load(piece.rows)
            records += len(piece.rows)
            self._progress.update(
                task, completed=records, description=f"{records:,} records of block {height:,}"
            )
            if piece.is_last:
                return records

    def _show(self, text: str) -> None:
        """What comes now."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.add_task(text, total=None)


def _check_piece(piece: SnapshotChunk) -> None:
    """Raises: SnapshotRefused."""
    size = sum(len(key) + len(data) for key, data in piece.rows)
    if not piece.is_last and len(piece.rows) < ROWS_MAX and size < PIECE_BYTES_MIN:
        raise SnapshotRefused(f"a piece of {len(piece.rows)} rows with {size:,} bytes, which is not the last")
