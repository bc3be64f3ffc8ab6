"""What a power cut and a failing disk make of a journal, and what the node's own code then reads of it.

In most of these worlds a journal is a model. Here it becomes the file that the node would have written, some of its
bytes change, and `node.journal` opens it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from ctt_state.block import Header
from ctt_state.units import Height
from ctt_state.votes import Statement, Vote
from node import journal as real
from node.consensus.events import Restored
from node.datadir import StorageDamaged
from tests.simulation.disk import GENESIS_HASH, Journal, Step

MEMORY: Final = Path("/dev/shm")
SECTOR_BYTES: Final = 512

Damage = Callable[[bytearray, int], None]  # of the file, so many bytes of which are synced


def cut_power(chance: Random, *, in_order: bool) -> Damage:
    """What was not synced is there, is missing from some byte on, or reads as zeros in any of its sectors; `in_order`
    in all from the first such on."""

    def damage(content: bytearray, synced: int) -> None:
        is_lost = False
        for start in range(synced - synced % SECTOR_BYTES, len(content), SECTOR_BYTES):
            is_lost = chance.random() < 0.5 or (in_order and is_lost)
            if is_lost:
                first, end = max(start, synced), min(start + SECTOR_BYTES, len(content))
                content[first:end] = bytes(end - first)
        if chance.random() < 0.5:
            del content[chance.randint(synced, len(content)) :]

    return damage


def flip_bit(chance: Random) -> Damage:
    def damage(content: bytearray, synced: int) -> None:
        content[chance.randrange(synced)] ^= 1 << chance.randrange(8)

    return damage


def read_after(damage: Damage, journal: Journal, key: bytes, head: Header) -> Restored | None:
    """What the node finds when it starts, None if it refuses the journal."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        directory = Path(name)
        with _file_of(journal, key, directory) as written:
            _write(written, journal.past)
            path = real.journal_path(directory)
            synced = path.stat().st_size
            _write(written, [] if journal.unsynced is None else [journal.unsynced])
        content = bytearray(path.read_bytes())
        damage(content, synced)
        path.write_bytes(content)
        try:
            found = real.Journal.open(directory, GENESIS_HASH, key, (head.epoch, head.view, head.height))
        except StorageDamaged:
            return None
        found.close()
        return found.restored()


@contextmanager
def _file_of(journal: Journal, key: bytes, directory: Path) -> Iterator[real.Journal]:
    place, height = real.Place(journal.first_epoch, 0), Height(journal.began_height)
    marks = real.silent_through(place)._replace(height=height)
    real.Journal.create(directory, GENESIS_HASH, key, marks)
    opened = real.Journal.open(directory, GENESIS_HASH, key, (*place, height))
    try:
        yield opened
    finally:
        opened.close()


def _write(journal: real.Journal, past: list[Step] | list[Step | Header]) -> None:
    for each in past:
        match each:
            case Step(vote, reliance, block):
                journal.cast(vote.statement, reliance, block, _signs(vote))
            case Header():
                journal.advance(each.epoch, each.view, each.height)


def _signs(vote: Vote) -> Callable[[Statement], Vote]:
    return lambda statement: vote


def agrees(found: Restored, journal: Journal) -> bool:
    """Whether the file holds what the model does, above the same floor."""
    return (
        set(found.votes) == set(journal.votes.values())
        and set(found.certificates) == set(journal.certificates.values())
        and set(found.blocks) == set(journal.blocks.values())
        and found.forgotten == journal.floor
    )
