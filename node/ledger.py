"""The chain on this machine: execute blocks over the last final state, write them, read them back.

What is not final is only in memory, as the changes of one block over its parent; what is final is on disk before
anyone is told. `build`, `execute` and `commit` run on the node's one storage thread, `publish` and the reads on the
event loop; reads see the published head and nothing of a block that is being written.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgpack

from ctt_state.block import (
    HEADER_VERSION,
    NO_EVIDENCE_ROOT,
    Block,
    BlockContext,
    FinalBlock,
    Header,
    Receipt,
    merkle_root,
)
from ctt_state.crypto import sha256
from ctt_state.errors import InvalidBlock, InvalidTransaction, StatePruned
from ctt_state.genesis import Genesis, genesis_block, genesis_records, load_genesis
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Record, decode_record
from ctt_state.transaction import Signed
from ctt_state.transition import apply_transaction
from ctt_state.tree import NodeChanges, build, update
from ctt_state.units import Address, Gas, Hash, Height, Ms
from ctt_state.view import Lookup, Overlay
from node.cache import RowCache
from node.store import UNDO_BLOCKS, BlockWrite, Store

_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack
_unpack: Final = msgpack.unpackb

BLOCK_TRANSACTIONS_MAX: Final = 5_000
BLOCK_BYTES_MAX: Final = 2 * 1024 * 1024
RECORDS_CACHED_MAX: Final = 60_000  # twice that, of about 300 bytes each
NODES_CACHED_MAX: Final = 70_000  # twice that, of about 500 bytes each
BLOCKS_CACHED_MAX: Final = 16  # decoded final blocks, for receipts and logs just asked for
STATES_CACHED_MAX: Final = 8  # past states, each what changed since


class BlockPlan(NamedTuple):
    """Where a block is to stand, before it has a body."""

    parent: FinalBlock
    view: int
    timestamp_ms: Ms
    proposer: Address


class Executed(NamedTuple):
    """A block with all that it does, not yet final. Rows are what the disk will hold."""

    final: FinalBlock
    state_rows: list[tuple[bytes, bytes | None]]
    receipt_rows: list[bytes]
    nodes: NodeChanges


class Dropped(NamedTuple):
    """A transaction that cannot be included now, and why."""

    signed: Signed
    reason: InvalidTransaction


class Applied(NamedTuple):
    """The transactions of a block after their execution, and those that could not be included."""

    plan: BlockPlan
    overlay: Overlay
    transactions: list[Signed]
    receipts: list[Receipt]
    dropped: list[Dropped]


class Ledger:
    """The chain in one data directory. See the module for which thread calls what."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.genesis: Genesis = load_genesis(store.genesis_document)
        self.chain: ChainParameters = self.genesis.parameters
        self._rows = RowCache(store.state, RECORDS_CACHED_MAX)
        self._nodes = RowCache(store.node, NODES_CACHED_MAX)
        self._blocks: OrderedDict[int, FinalBlock] = OrderedDict()
        self._past: OrderedDict[int, PastState] = OrderedDict()
        self.head = self._read_block(store.head.height)

    @classmethod
    def open(cls, directory: Path) -> "Ledger":
        """Raises: StorageFailed, StorageDamaged and their kin; see `Store.open`."""
        return cls(Store.open(directory))

    def close(self) -> None:
        """Call it when no other thread is in the ledger."""
        self.store.close()

    # --- the storage thread ---------------------------------------------------------------------------------------

    def build(self, plan: BlockPlan, candidates: Iterable[Signed]) -> tuple[Executed, list[Dropped]]:
        """A block of as many candidates, in their order, as fit; and those that can never stand here."""
        applied = self.apply(plan, candidates)
        return self.seal(applied), applied.dropped

    def apply(self, plan: BlockPlan, candidates: Iterable[Signed]) -> Applied:
        """The first half of `build`: the transactions' effects, without roots."""
        applied = Applied(plan, Overlay(self.lookup), [], [], [])
        context = _context(plan)
        gas_left, bytes_left = self.chain.block_gas_limit, BLOCK_BYTES_MAX
        refused: set[Address] = set()  # their later nonces have to wait
        for signed in candidates:
            if signed.sender in refused:
                continue
            size = len(signed.transaction.raw)
            if size > bytes_left or len(applied.transactions) == BLOCK_TRANSACTIONS_MAX:
                break
            # A block's gas is what its transactions use, not what they offer; one that may pass the limit is tried
            # apart, and waits for the next block if it does.
            overlay = applied.overlay
            may_pass = signed.transaction.gas_limit > gas_left
            target = Overlay(overlay.lookup) if may_pass else overlay
            try:
                receipt = apply_transaction(target, signed, context, self.chain)
            except InvalidTransaction as reason:
                applied.dropped.append(Dropped(signed, reason))
                refused.add(signed.sender)
                continue
            if receipt.gas_used > gas_left:
                break
            if may_pass:
                overlay.changes.update(target.changes)
            gas_left, bytes_left = Gas(gas_left - receipt.gas_used), bytes_left - size
            applied.transactions.append(signed)
            applied.receipts.append(receipt)
        return applied

    def execute(self, block: Block, transactions: Sequence[Signed]) -> Executed:
        """Executes a block made elsewhere on the head. Raises: InvalidBlock."""
        header = block.header
        plan = BlockPlan(self.head, header.view, header.timestamp_ms, header.proposer)
        applied = Applied(plan, Overlay(self.lookup), list(transactions), [], [])
        context = _context(plan)
        for index, signed in enumerate(transactions):
            try:
                applied.receipts.append(apply_transaction(applied.overlay, signed, context, self.chain))
            except InvalidTransaction as reason:
                raise InvalidBlock(f"transaction {index} of block {header.height}: {reason}") from reason
        executed = self.seal(applied)
        if executed.final.block.header != header:
            raise InvalidBlock(_first_difference(header, executed.final.block.header))
        if header.gas_used > self.chain.block_gas_limit:
            raise InvalidBlock(f"gas used {header.gas_used}; limit {self.chain.block_gas_limit}")
        return executed

    def commit(self, executed: Executed, certificate: bytes) -> None:
        """Writes the block and all that it changed in one synced batch. Raises: StorageFailed."""
        final = executed.final
        self.store.commit(
            BlockWrite(
                height=final.block.header.height,
                block_hash=final.hash,
                state_root=final.block.header.state_root,
                block=final.block.encode(),
                receipts=_pack((final.senders, final.transaction_hashes, executed.receipt_rows)),
                certificate=certificate,
                transactions=final.transaction_hashes,
                state=executed.state_rows,
                nodes=executed.nodes.items(),
                undo=_pack([(key, self._rows.get(key)) for key, _ in executed.state_rows]),
            )
        )

    def seal(self, applied: Applied) -> Executed:
        """The second half of `build`: tree, roots, header and rows."""
        plan, overlay, transactions, receipts, _ = applied
        state_rows = [
            (key, None if record is None else record.encode()) for key, record in overlay.changes.items()
        ]
        leaves = [(sha256(key), None if data is None else sha256(data)) for key, data in state_rows]
        state_root, nodes = update(self._nodes.get, leaves)
        receipt_rows = [receipt.encode() for receipt in receipts]
        hashes = tuple([signed.transaction.hash for signed in transactions])
        parent = plan.parent.block.header
        header = Header(
            version=HEADER_VERSION,
            genesis_hash=self.genesis.hash,
            height=Height(parent.height + 1),
            epoch=parent.epoch,
            view=plan.view,
            parent_hash=plan.parent.hash,
            timestamp_ms=plan.timestamp_ms,
            proposer=plan.proposer,
            gas_used=Gas(sum(receipt.gas_used for receipt in receipts)),
            transactions_root=merkle_root(hashes),
            receipts_root=merkle_root(receipt_rows),
            state_root=state_root,
            evidence_root=NO_EVIDENCE_ROOT,
            validators_hash=parent.validators_hash,
            next_validators_hash=parent.next_validators_hash,
        )
        block = Block(header, tuple([signed.transaction.raw for signed in transactions]))
        senders = tuple([signed.sender for signed in transactions])
        final = FinalBlock(block, header.hash, tuple(receipts), senders, hashes)
        return Executed(final, state_rows, receipt_rows, nodes)

    # --- the event loop -------------------------------------------------------------------------------------------

    def publish(self, executed: Executed) -> None:
        """Makes a committed block the head that every read sees."""
        self.store.publish()
        self._rows.update(executed.state_rows)
        self._nodes.update(executed.nodes.items())
        self.head = executed.final
        self._remember(executed.final)

    def lookup(self, key: bytes) -> Record | None:
        """A record of the head's state."""
        data = self._rows.get(key)
        return None if data is None else decode_record(key, data)

    def state(self, height: int) -> Lookup:
        """The records as block `height` left them. Raises: StatePruned."""
        if height == self.head.block.header.height:
            return self.lookup
        if not self.oldest_state() <= height < self.head.block.header.height:
            raise StatePruned(height=height, kept=UNDO_BLOCKS)
        past = self._past.pop(height, None) or PastState(self, height)
        past.catch_up()
        self._past[height] = past
        while len(self._past) > STATES_CACHED_MAX:
            self._past.popitem(last=False)
        return past.lookup

    def oldest_state(self) -> Height:
        """The lowest height whose state can still be read."""
        return Height(max(0, self.head.block.header.height - UNDO_BLOCKS))

    def block(self, height: int) -> FinalBlock | None:
        """The final block at this height, None above the head."""
        if not 0 <= height <= self.head.block.header.height:
            return None
        cached = self._blocks.get(height)
        return cached or self._remember(self._read_block(height))

    def _remember(self, final: FinalBlock) -> FinalBlock:
        self._blocks[final.block.header.height] = final
        while len(self._blocks) > BLOCKS_CACHED_MAX:
            self._blocks.popitem(last=False)
        return final

    def _read_block(self, height: int) -> FinalBlock:
        block = Block.decode(self.store.block(height))
        return FinalBlock(block, block.header.hash, *decode_receipts_row(self.store.receipts(height)))


class PastState:
    """The state as an earlier block left it: the value before each change since, over the state of now.

    It is exact only until the next block is published; `catch_up` before each use.
    """

    def __init__(self, ledger: Ledger, height: int) -> None:
        self._ledger = ledger
        self._upto = height
        self._before: dict[bytes, bytes | None] = {}

    def catch_up(self) -> None:
        """Takes in the blocks since: of a key that changed twice, the earlier value is the one that counts."""
        store = self._ledger.store
        while self._upto < store.head.height:
            self._upto += 1
            for key, before in _unpack(store.undo(self._upto)):
                self._before.setdefault(key, before)

    def lookup(self, key: bytes) -> Record | None:
        if key not in self._before:
            return self._ledger.state(self._upto)(key)
        before = self._before[key]
        return None if before is None else decode_record(key, before)


def create_ledger(directory: Path, document: bytes) -> Genesis:
    """Makes the database of a new chain: genesis state, its tree, block 0. Only `ctt init` does.

    Raises: InvalidGenesis, then the errors of `Store.create`.
    """
    genesis = load_genesis(document)
    leaves: list[tuple[bytes, bytes]] = []
    root_node = b""

    def state_rows() -> Iterator[tuple[bytes, bytes]]:
        for key, record in genesis_records(genesis):
            data = record.encode()
            leaves.append((sha256(key), sha256(data)))
            yield key, data

    def node_rows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal root_node
        leaves.sort()
        for path, data in build(leaves):
            root_node = data  # the root comes last
            yield path, data

    with Store.create(directory, document, genesis.hash) as creation:
        creation.load_state(state_rows())
        creation.load_nodes(node_rows())
        block = genesis_block(genesis, Hash(sha256(root_node)))
        creation.finish(
            BlockWrite(
                height=0,
                block_hash=block.header.hash,
                state_root=block.header.state_root,
                block=block.encode(),
                receipts=_pack(((), (), ())),
                certificate=b"",
                transactions=(),
                state=(),
                nodes=(),
                undo=_pack(()),
            )
        )
    return genesis


def decode_receipts_row(data: bytes) -> tuple[tuple[Receipt, ...], tuple[Address, ...], tuple[Hash, ...]]:
    """A block's receipts, senders and transaction hashes, one of each a transaction."""
    senders, hashes, receipts = _unpack(data, use_list=False)
    return tuple([Receipt.decode(receipt) for receipt in receipts]), senders, hashes


def _context(plan: BlockPlan) -> BlockContext:
    height = Height(plan.parent.block.header.height + 1)
    return BlockContext(height, plan.timestamp_ms, plan.proposer)


def _first_difference(theirs: Header, ours: Header) -> str:
    for name, claimed, computed in zip(Header._fields, theirs, ours, strict=True):
        if claimed != computed:
            shown = [value.hex() if isinstance(value, bytes) else value for value in (claimed, computed)]
            return f"header of block {theirs.height}: {name} is {shown[0]}, executing it gives {shown[1]}"
    return "headers are equal"
