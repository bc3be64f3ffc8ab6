"""The chain on this machine: execute blocks over the head or over one another, write them, read them back.

What is not final is only in memory, as the changes of each block over its parent (`node.unfinal`); what is final is on
disk before anyone is told. `build`, `execute` and `commit` run on the node's one storage thread, `publish` and the
other reads on the event loop; reads see the published head and nothing of a block that is being written.

A block becomes the head in the middle of whatever the storage thread does, and that is exact. What is executed stands
on the last committed block, so all that a publishing changes below it is rows that one of its ancestors hides, and
`publish` moves the head's rows before it drops that ancestor.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from ctt_state.block import (
    EVIDENCE_MAX,
    HEADER_VERSION,
    Block,
    BlockContext,
    FinalBlock,
    Header,
    Receipt,
    evidence_root,
    merkle_root,
)
from ctt_state.crypto import sha256
from ctt_state.epoch import apply_evidence, begin_block, close_block
from ctt_state.errors import InvalidBlock, InvalidTransaction, StateBuried, StatePruned, StateUnready
from ctt_state.genesis import Genesis, genesis_block, genesis_records, load_genesis
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Account, EpochSet, Record, decode_record
from ctt_state.transaction import SYSTEM, Signed, Transaction, decode_included
from ctt_state.transition import apply_due, apply_transaction, due_transaction
from ctt_state.tree import build, update
from ctt_state.units import Address, Gas, Hash, Height, Ms
from ctt_state.validators import ValidatorSet, boundary_of, epoch_of, fixing_height
from ctt_state.view import Lookup, Overlay
from node.cache import RowCache
from node.leaves import Leaves
from node.populate import Report, plan_of, populate
from node.store import UNDO_BLOCKS, BlockPruned, BlockWrite, Creation, Store
from node.unfinal import Executed, RowReader, UnfinalBlocks, UnknownParent, read_through

_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack
_unpack: Final = msgpack.unpackb

BLOCK_TRANSACTIONS_MAX: Final = 5_000
BLOCK_BYTES_MAX: Final = 2 * 1024 * 1024
RANGE_BLOCKS_MAX: Final = 128  # that a peer gets at once
CERTIFICATES_KEPT: Final = 512  # of the last blocks; below them, some (see `Store.commit`)
RECORDS_CACHED_MAX: Final = 60_000  # twice that, of about 300 bytes each
NODES_CACHED_MAX: Final = 70_000  # twice that, of about 500 bytes each
BLOCKS_CACHED_MAX: Final = 16  # decoded final blocks, for receipts and logs just asked for
SETS_CACHED_MAX: Final = 4  # of validators, one an epoch
STATES_CACHED_MAX: Final = 8  # past states, each what changed since
CHANGES_CACHED_MAX: Final = 500_000  # records in all of them, about 250 bytes each
BLOCKS_AT_ONCE: Final = 2  # whose changes a past state takes in without letting others in between


class BlockPlan(NamedTuple):
    """Where a block is to stand, before it has a body. `evidence` is what is at hand: the block takes what is valid."""

    parent_hash: Hash
    epoch: int
    view: int
    timestamp_ms: Ms
    proposer: Address
    evidence: tuple[bytes, ...] = ()


class Parent(NamedTuple):
    """A block to stand on, and the rows as it left them."""

    header: Header
    hash: Hash
    row: RowReader
    node: RowReader

    def lookup(self, key: bytes) -> Record | None:
        data = self.row(key)
        return None if data is None else decode_record(key, data)


class Dropped(NamedTuple):
    """A transaction that cannot be included now, and why."""

    signed: Signed
    reason: InvalidTransaction


class Applied(NamedTuple):
    """A block's evidence and transactions after their execution, and those that could not be included."""

    plan: BlockPlan
    parent: Parent
    overlay: Overlay
    evidence: list[bytes]
    transactions: list[Signed]
    receipts: list[Receipt]
    dropped: list[Dropped]


class FinalRange(NamedTuple):
    """Final blocks that follow one another in one epoch. The certificate makes the last of them final; None when it
    lies further on."""

    blocks: list[Block]
    certificate: bytes | None


class WrongField(InvalidBlock):
    """The header says something else than it must."""

    def __init__(self, height: int, field: str, claimed: Any, expected: Any) -> None:
        shown = [value.hex() if isinstance(value, bytes) else value for value in (claimed, expected)]
        super().__init__(f"header of block {height}: {field} is {shown[0]}, must be {shown[1]}")
        self.field = field
        self.claimed = claimed
        self.expected = expected


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
        self._sets: OrderedDict[int, ValidatorSet] = OrderedDict()
        self._unfinal = UnfinalBlocks()
        self.head = self._read_block(store.head.height)
        self._committed = self.head  # the storage thread's head: at most one block above the published one

    @classmethod
    def open(cls, directory: Path) -> "Ledger":
        """Raises: StorageFailed, StorageDamaged and their kin; see `Store.open`."""
        return cls(Store.open(directory))

    def close(self) -> None:
        """Call it when no other thread is in the ledger."""
        self.store.close()

    # --- the storage thread ---------------------------------------------------------------------------------------

    def build(
        self, plan: BlockPlan, candidates: Iterable[Signed], charge: Callable[[Gas], None] = lambda gas: None
    ) -> tuple[Executed, list[Dropped]]:
        """A block of as many candidates, in their order, as fit; and those that can never stand here. `charge` hears
        what each has used before the next is taken.

        Raises: UnknownParent, TooManyUnfinal.
        """
        applied = self.apply(plan, candidates, charge)
        executed = self.seal(applied)
        self._unfinal.add(executed)
        return executed, applied.dropped

    def apply(
        self, plan: BlockPlan, candidates: Iterable[Signed], charge: Callable[[Gas], None] = lambda gas: None
    ) -> Applied:
        """The first half of `build`: the effects of evidence and transactions, without roots. Raises: UnknownParent."""
        parent = self._parent(plan.parent_hash)
        applied = Applied(plan, parent, Overlay(parent.lookup), [], [], [], [])
        context = _context(applied)
        if plan.epoch != epoch_of(context.height, self.chain.epoch_blocks):
            raise AssertionError(f"a plan for block {context.height} in epoch {plan.epoch}")
        self._apply_evidence(applied, context.height)
        gas_left, bytes_left = self.chain.block_gas_limit, BLOCK_BYTES_MAX
        due = due_transaction(applied.overlay.lookup, context, self.chain)
        if due is not None:
            receipt = apply_due(applied.overlay, due, context, self.chain)
            applied.transactions.append(due)
            applied.receipts.append(receipt)
            gas_left, bytes_left = (
                Gas(gas_left - receipt.gas_used),
                bytes_left - len(due.transaction.raw),
            )
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
            charge(receipt.gas_used)
        return applied

    def execute(self, block: Block, transactions: Sequence[Signed]) -> Executed:
        """Executes a block made elsewhere: everything is checked but whose turn it was and that its time is not ahead
        of ours. `transactions` are the block's own, from `decode_transactions`, with their senders.

        Raises: UnknownParent, InvalidBlock, TooManyUnfinal.
        """
        known = self._unfinal.get(block.header.hash)
        if known is not None and known.final.block == block:
            return known
        parent = self._parent(block.header.parent_hash)
        self._check_place(block.header, parent.header)
        self._check_size(block)
        executed = self.seal(self._replay(block, transactions, parent))
        _check_computed(block.header, executed.header)
        self._unfinal.add(executed)
        return executed

    def commit(self, executed: Executed, certificate: bytes | None) -> None:
        """Writes a child of the head and all that it changed in one synced batch. `publish` it before the next.

        Raises: StorageFailed.
        """
        final, header = executed.final, executed.header
        if executed.parent_hash != self.store.head.block_hash:
            raise AssertionError(f"commit of block {header.height}, which does not stand on the head")
        self.store.commit(
            BlockWrite(
                height=header.height,
                block_hash=final.hash,
                state_root=header.state_root,
                block=final.block.encode(),
                receipts=_pack((final.senders, final.transaction_hashes, executed.receipt_rows)),
                certificate=certificate,
                transactions=final.transaction_hashes,
                state=executed.state.items(),
                nodes=executed.nodes.items(),
                undo=_pack([(key, self._rows.get(key)) for key in executed.state]),
                sets=self._fixed_set(executed),
                expiring=self._expiring(header.height),
            )
        )
        self._committed = final

    def seal(self, applied: Applied) -> Executed:
        """The second half of `build`: sets, tree, roots, header and rows. Nothing is kept."""
        plan, parent, overlay, evidence, transactions, receipts, _ = applied
        height = Height(parent.header.height + 1)
        validators_hash, next_validators_hash = close_block(overlay, height, self.chain)
        state = {key: None if record is None else record.encode() for key, record in overlay.changes.items()}
        leaves = [(sha256(key), None if data is None else sha256(data)) for key, data in state.items()]
        state_root, nodes = update(parent.node, leaves)
        receipt_rows = [receipt.encode() for receipt in receipts]
        hashes = tuple([signed.transaction.hash for signed in transactions])
        header = Header(
            version=HEADER_VERSION,
            genesis_hash=self.genesis.hash,
            height=height,
            epoch=plan.epoch,
            view=plan.view,
            parent_hash=parent.hash,
            timestamp_ms=plan.timestamp_ms,
            proposer=plan.proposer,
            gas_used=Gas(sum(receipt.gas_used for receipt in receipts)),
            transactions_root=merkle_root(hashes),
            receipts_root=merkle_root(receipt_rows),
            state_root=state_root,
            evidence_root=evidence_root(evidence),
            validators_hash=validators_hash,
            next_validators_hash=next_validators_hash,
        )
        block = Block(header, tuple([signed.transaction.raw for signed in transactions]), tuple(evidence))
        senders = tuple([signed.sender for signed in transactions])
        final = FinalBlock(block, header.hash, tuple(receipts), senders, hashes)
        return Executed(final, state, nodes, receipt_rows, _nonces(overlay, senders))

    def _parent(self, parent_hash: Hash) -> Parent:
        """The block to stand on: the committed head, or one above it. Raises: UnknownParent."""
        ancestors = self._unfinal.ancestors(parent_hash)
        final = ancestors[0].final if ancestors else self._committed
        lowest = ancestors[-1].parent_hash if ancestors else parent_hash
        if self._committed.hash not in (lowest, *[each.hash for each in ancestors]):
            raise UnknownParent(parent_hash)
        return Parent(
            final.block.header,
            final.hash,
            read_through([each.state for each in ancestors], self._rows.get),
            read_through([each.nodes for each in ancestors], self._nodes.get),
        )

    def _apply_evidence(self, applied: Applied, height: Height) -> None:
        """Takes the valid pieces of what is at hand."""
        for piece in applied.plan.evidence:
            if len(applied.evidence) == EVIDENCE_MAX:
                return
            try:
                apply_evidence(applied.overlay, piece, height, self.chain)
            except InvalidBlock:
                continue
            applied.evidence.append(piece)

    def _replay(self, block: Block, transactions: Sequence[Signed], parent: Parent) -> Applied:
        """The effects of a block's evidence and transactions, all of which must be allowed. Raises: InvalidBlock."""
        header = block.header
        place = header.parent_hash, header.epoch, header.view, header.timestamp_ms, header.proposer
        plan = BlockPlan(*place, block.evidence)
        applied = Applied(
            plan, parent, Overlay(parent.lookup), list(block.evidence), list(transactions), [], []
        )
        context = _context(applied)
        begin_block(applied.overlay, block.evidence, context.height, self.chain)
        due = due_transaction(applied.overlay.lookup, context, self.chain)
        _check_due(block, due)
        gas_used = 0
        for index, signed in enumerate(transactions):
            apply = apply_due if due is not None and index == 0 else apply_transaction
            try:
                receipt = apply(applied.overlay, signed, context, self.chain)
            except InvalidTransaction as reason:
                raise InvalidBlock(f"transaction {index} of block {header.height}: {reason}") from reason
            gas_used += receipt.gas_used
            if gas_used > header.gas_used:
                raise WrongField(header.height, "gas_used", header.gas_used, f"at least {gas_used}")
            applied.receipts.append(receipt)
        return applied

    def _check_place(self, header: Header, parent: Header) -> None:
        """What the header says of its place in the chain. Raises: InvalidBlock."""
        height = parent.height + 1
        due = {
            "version": HEADER_VERSION,
            "genesis_hash": self.genesis.hash,
            "height": height,
            "epoch": epoch_of(height, self.chain.epoch_blocks),
        }
        for field, expected in due.items():
            claimed = getattr(header, field)
            if claimed != expected:
                raise WrongField(height, field, claimed, expected)
        earliest_ms = parent.timestamp_ms + self.chain.block_period_ms
        if header.timestamp_ms < earliest_ms:
            raise WrongField(height, "timestamp_ms", header.timestamp_ms, f"at least {earliest_ms}")

    def _check_size(self, block: Block) -> None:
        """Raises: InvalidBlock."""
        sizes = {
            "transactions": (len(block.transactions), BLOCK_TRANSACTIONS_MAX),
            "bytes of transactions": (sum(map(len, block.transactions)), BLOCK_BYTES_MAX),
            "pieces of evidence": (len(block.evidence), EVIDENCE_MAX),
            "gas used": (block.header.gas_used, self.chain.block_gas_limit),
        }
        for what, (count, limit) in sizes.items():
            if count > limit:
                raise InvalidBlock(f"block {block.header.height}: {what}: {count}, limit {limit}")

    def _fixed_set(self, executed: Executed) -> tuple[tuple[int, bytes], ...]:
        """The set of the next epoch, in the block that fixes it."""
        epoch, height = executed.header.epoch, executed.header.height
        if height != fixing_height(epoch, self.chain.epoch_blocks):
            return ()
        members = executed.state[EpochSet.key(epoch + 1)]
        if members is None:
            raise AssertionError(f"block {height} fixes no set")
        return ((epoch + 1, members),)

    def _expiring(self, height: int) -> int | None:
        """The height that leaves the window in which every certificate is kept, unless it is an epoch's boundary."""
        leaving = height - CERTIFICATES_KEPT
        return leaving if leaving > 0 and leaving % self.chain.epoch_blocks else None

    # --- the event loop -------------------------------------------------------------------------------------------

    def publish(self, executed: Executed) -> None:
        """Makes the committed block the head that every read sees, and drops what does not stand on it."""
        self.store.publish()
        self._rows.update(executed.state.items())
        self._nodes.update(executed.nodes.items())
        self.head = executed.final
        self._remember(executed.final)
        self._unfinal.settle(executed.hash)  # last: until here it hides what changes below it

    def executed(self, block_hash: Hash) -> Executed | None:
        """The executed block above the head with this hash."""
        return self._unfinal.get(block_hash)

    def path_to(self, block_hash: Hash) -> list[Executed]:
        """The executed blocks from above the head up to this one, lowest first: what to commit for it to be final.

        Raises: UnknownParent for a block that is not here or does not stand on the head.
        """
        path = self._unfinal.ancestors(block_hash)[::-1]
        lowest = path[0].parent_hash if path else block_hash
        if lowest != self.head.hash:
            raise UnknownParent(lowest)
        return path

    def validators(self, epoch: int) -> ValidatorSet:
        """The set of any epoch up to the head's, or the next once it is fixed. Raises: LookupError."""
        found = self._sets.get(epoch)
        if found is None:
            found = EpochSet.decode(self.store.validators(epoch)).validators
            self._sets[epoch] = found
            if len(self._sets) > SETS_CACHED_MAX:
                self._sets.popitem(last=False)
        return found

    def next_validators(self) -> ValidatorSet:
        """The set of the block after the head."""
        return self.validators(epoch_of(self.head.block.header.height + 1, self.chain.epoch_blocks))

    def lookup(self, key: bytes) -> Record | None:
        """A record of the head's state."""
        data = self._rows.get(key)
        return None if data is None else decode_record(key, data)

    def state(self, height: int) -> Lookup:
        """The records as block `height` left them. Raises: StateUnready, StatePruned."""
        if height == self.head.block.header.height:
            return self.lookup
        if not self.oldest_state() <= height < self.head.block.header.height:
            raise StatePruned(height=height, kept=UNDO_BLOCKS)
        past = self._past.pop(height) if height in self._past else PastState(self, height)
        is_ready = past.catch_up()
        self._past[height] = past
        while len(self._past) > STATES_CACHED_MAX or sum(map(len, self._past.values())) > CHANGES_CACHED_MAX:
            oldest, _ = self._past.popitem(last=False)
            if oldest == height:
                raise StateBuried(height=height, records_max=CHANGES_CACHED_MAX)
        if not is_ready:
            raise StateUnready(past.catch_up)
        return past.lookup

    def oldest_state(self) -> Height:
        """The lowest height whose state can still be read."""
        return Height(max(self.store.base, self.head.block.header.height - UNDO_BLOCKS))

    def oldest_block(self) -> Height:
        """The lowest height whose whole block is here, be it the next."""
        return Height(self.store.base + 1) if self.store.base else self.store.base

    def block(self, height: int) -> FinalBlock | None:
        """The final block at this height, None above the head.

        Raises: BlockPruned at and below the snapshot that this chain began with here.
        """
        if not 0 <= height <= self.head.block.header.height:
            return None
        if height <= self.store.base != 0:
            raise BlockPruned(height=height, base=self.store.base)
        cached = self._blocks.get(height)
        return cached or self._remember(self._read_block(height))

    def range(self, from_height: int, count: int, bytes_max: int) -> FinalRange | None:
        """Final blocks from this height on, for a peer: up to the last certified one among the first `count`, or to
        the next certified one if there is none so near, or, when that does not fit, as many as do, without proof. At
        most `RANGE_BLOCKS_MAX` blocks of one epoch, together at most `bytes_max` unless there is only one.

        None when that is not to be had here: the height is below the first whole block or above the last certified
        one.
        """
        covering = None if from_height <= self.store.base else self.store.certificate_covering(from_height)
        if covering is None:
            return None
        boundary = boundary_of(epoch_of(from_height, self.chain.epoch_blocks), self.chain.epoch_blocks)
        reach = max(count, covering[0] - from_height + 1)
        last = min(from_height + min(reach, RANGE_BLOCKS_MAX) - 1, boundary, self.store.head.height)
        blocks: list[bytes] = []
        size, proven = 0, 0
        certificate: bytes | None = None
        for height in range(from_height, last + 1):
            block, found = self.store.block(height), self.store.certificate(height)
            size += len(block)
            if blocks and size > bytes_max:
                break
            blocks.append(block)
            if found is not None:
                proven, certificate = len(blocks), found
        return FinalRange([Block.decode(data) for data in blocks[: proven or None]], certificate)

    def _remember(self, final: FinalBlock) -> FinalBlock:
        self._blocks[final.block.header.height] = final
        while len(self._blocks) > BLOCKS_CACHED_MAX:
            self._blocks.popitem(last=False)
        return final

    def _read_block(self, height: int) -> FinalBlock:
        if height == self.store.base:
            block = Block.decode(self.store.header_block(height))
            return FinalBlock(block, block.header.hash, (), (), ())
        block = Block.decode(self.store.block(height))
        return FinalBlock(block, block.header.hash, *decode_receipts_row(self.store.receipts(height)))


class PastState:
    """The state as an earlier block left it: the value before each change since, over the state of now.

    It is exact only once `catch_up` is done, and until the next block is published.
    """

    def __init__(self, ledger: Ledger, height: int) -> None:
        self._ledger = ledger
        self._upto = height
        self._before: dict[bytes, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._before)

    def catch_up(self) -> bool:
        """Takes in some of the blocks since; whether no more can be. Of a key that changed twice, the earlier value is
        the one that counts."""
        store = self._ledger.store
        for _ in range(BLOCKS_AT_ONCE):
            if self._is_done():
                break
            for key, before in _unpack(store.undo(self._upto + 1)):
                self._before.setdefault(key, before)
            self._upto += 1
        return self._is_done()

    def _is_done(self) -> bool:
        """Also when that takes too much memory, or has taken so long that what it needs is pruned."""
        head = self._ledger.store.head.height
        return self._upto == head or self._upto < head - UNDO_BLOCKS or len(self) > CHANGES_CACHED_MAX

    def lookup(self, key: bytes) -> Record | None:
        if key not in self._before:
            return self._ledger.state(self._upto)(key)
        before = self._before[key]
        return None if before is None else decode_record(key, before)


def create_ledger(
    directory: Path, document: bytes, report: Report = lambda stage, done, total: None
) -> Genesis:
    """Makes the database of a new chain: genesis state, its tree, block 0. Only `ctt init` does. A large state is made
    piece by piece: `report` hears how far it is, and what was interrupted goes on where it was.

    Raises: InvalidGenesis, then the errors of `Store.create` and `populate`.
    """
    genesis = load_genesis(document)
    plan = plan_of(genesis)
    with Store.create(directory, document, genesis.hash, plan and plan.encode(genesis.hash)) as creation:
        root = populate(creation, genesis, plan, report) if plan else _load_state(creation, genesis)
        members = EpochSet(genesis.validator_set.members).encode()
        creation.finish(base_write(genesis_block(genesis, root), None, [(0, members)]))
    return genesis


def _load_state(creation: Creation, genesis: Genesis) -> Hash:
    """The first state at once, in memory. Raises: InvalidGenesis, StorageFailed."""
    leaves = Leaves(creation.directory)

    def state_rows() -> Iterator[tuple[bytes, bytes]]:
        for key, record in genesis_records(genesis):
            data = record.encode()
            leaves.add(key, data)
            yield key, data

    creation.load_state(state_rows())
    return load_tree(creation, leaves)


def load_tree(creation: Creation, leaves: Leaves) -> Hash:
    """Puts the state's tree into a new database and gives its root. Raises: StorageFailed."""
    root_node = b""

    def node_rows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal root_node
        for path, data in build(leaves):
            root_node = data  # the root comes last
            yield path, data

    creation.load_nodes(node_rows())
    return Hash(sha256(root_node))


def base_write(block: Block, certificate: bytes | None, sets: Sequence[tuple[int, bytes]]) -> BlockWrite:
    """The block that a database begins with, over whose state it has nothing but these sets of validators."""
    return BlockWrite(
        height=block.header.height,
        block_hash=block.header.hash,
        state_root=block.header.state_root,
        block=block.encode(),
        receipts=_pack(((), (), ())),
        certificate=certificate,
        transactions=(),
        state=(),
        nodes=(),
        undo=_pack(()),
        sets=sets,
    )


def decode_receipts_row(data: bytes) -> tuple[tuple[Receipt, ...], tuple[Address, ...], tuple[Hash, ...]]:
    """A block's receipts, senders and transaction hashes, one of each a transaction."""
    senders, hashes, receipts = _unpack(data, use_list=False)
    return tuple([Receipt.decode(receipt) for receipt in receipts]), senders, hashes


def decode_transactions(block: Block, chain: ChainParameters) -> list[Transaction]:
    """The block's transactions, for the recovery of their senders. Raises: InvalidBlock."""
    transactions = []
    for index, raw in enumerate(block.transactions):
        try:
            transactions.append(decode_included(raw, chain.chain_id))
        except InvalidTransaction as reason:
            raise InvalidBlock(f"transaction {index} of block {block.header.height}: {reason}") from reason
    return transactions


def _check_due(block: Block, due: Signed | None) -> None:
    """The block's system transaction stands first, and nowhere else. Raises: InvalidBlock."""
    systems = [raw for raw in block.transactions if raw[:1] == bytes((SYSTEM,))]
    if systems != ([] if due is None else [due.transaction.raw]) or systems != list(
        block.transactions[: len(systems)]
    ):
        raise InvalidBlock(
            f"block {block.header.height} does not begin with the system transaction that is due"
        )


def _nonces(overlay: Overlay, senders: Iterable[Address]) -> dict[Address, int]:
    """Those that the accounts of a block's senders have after it."""
    accounts = ((sender, overlay.lookup(Account.key(sender))) for sender in dict.fromkeys(senders))
    return {sender: account.nonce for sender, account in accounts if isinstance(account, Account)}


def _context(applied: Applied) -> BlockContext:
    height = Height(applied.parent.header.height + 1)
    return BlockContext(height, applied.plan.timestamp_ms, applied.plan.proposer)


def _check_computed(claimed: Header, computed: Header) -> None:
    """Raises: InvalidBlock."""
    for field, theirs, ours in zip(Header._fields, claimed, computed, strict=True):
        if theirs != ours:
            raise WrongField(claimed.height, field, theirs, ours)
