"""Records proven under the state root of a recent block.

On the disk is the tree of the head. An earlier block's is the same tree with the records set back that have changed
since, which the undo rows hold; only the nodes above those differ, and they are made anew for the question and not
kept. So a proof costs 6 to 9 us for each record that has changed since (processor time on a shared core, 1,400 to
11,000 of 37,000 records changed), and there is a limit to these.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple

import msgpack

from ctt_state.crypto import sha256
from ctt_state.errors import ProofPruned, StatePruned
from ctt_state.tree import Leaf, NodeChanges, NodeReader, prove, update
from node.store import UNDO_BLOCKS, PinnedState, Store
from node.unfinal import read_through

RECORDS_MAX: Final = 20_000  # changed since the block: some 0.2 s of work, and 20 MB while it is done
LEAVES_AT_ONCE: Final = 64  # set back between two pauses

Pause = Callable[[], Awaitable[None]]


class RecordProof(NamedTuple):
    """A record's bytes, None if there is none, and the tree's nodes from the root towards it."""

    value: bytes | None
    nodes: tuple[bytes, ...]


async def prove_records(store: Store, height: int, keys: Sequence[bytes], pause: Pause) -> list[RecordProof]:
    """A proof for each key, of its record or of its absence, in the state as block `height` left it. The chain may go
    on meanwhile; `pause` is awaited between pieces of work.

    Raises: StatePruned, ProofPruned.
    """
    pinned = store.pin()
    if not max(store.base, pinned.head.height - UNDO_BLOCKS) <= height <= pinned.head.height:
        raise StatePruned(height=height, kept=UNDO_BLOCKS)
    before = await _replaced_since(pinned, height, pause)
    nodes = await _set_back(pinned.node, before, pause)
    record, node = read_through([before], pinned.record), read_through([nodes], pinned.node)
    return [RecordProof(record(key), prove(node, sha256(key))) for key in keys]


async def _replaced_since(pinned: PinnedState, height: int, pause: Pause) -> dict[bytes, bytes | None]:
    """The records that have changed since this block, as it left them. Raises: ProofPruned."""
    before: dict[bytes, bytes | None] = {}
    for later in range(height + 1, pinned.head.height + 1):
        for key, value in msgpack.unpackb(pinned.undo(later)):
            before.setdefault(key, value)
        if len(before) > RECORDS_MAX:
            raise ProofPruned(height=height, records_max=RECORDS_MAX)
        await pause()
    return before


async def _set_back(read: NodeReader, before: dict[bytes, bytes | None], pause: Pause) -> NodeChanges:
    """The tree's nodes that differ with these records, in the order of their paths so that few are made twice."""
    leaves: list[Leaf] = []
    for key, value in before.items():
        leaves.append((sha256(key), None if value is None else sha256(value)))
        await pause()
    leaves.sort(key=itemgetter(0))
    nodes: NodeChanges = {}
    rest = iter(leaves)
    while some := list(islice(rest, LEAVES_AT_ONCE)):
        nodes |= update(read_through([nodes], read), some)[1]
        await pause()
    return nodes
