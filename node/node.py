"""A node: ledger, pool, sender recovery and consensus joined, as JSON-RPC (`rpc.chain.Chain`) and its peers see it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from ctt_state.block import Block, FinalBlock, Header, Place
from ctt_state.crypto import keccak
from ctt_state.errors import InvalidBlock, InvalidTransaction, NonceTooLow, NotTakenNow
from ctt_state.modules.call import ChainParameters
from ctt_state.records import ROLE_OPERATOR, Account, CttConfig, Meter, Role
from ctt_state.transaction import Signed, Transaction, decode_transaction
from ctt_state.units import Address, Hash, Height, Ms, hex_of
from ctt_state.validators import ValidatorSet, epoch_of
from ctt_state.view import Lookup
from ctt_state.votes import Certificate, Evidence
from node import VERSION, runner
from node.consensus.engine import Engine
from node.consensus.events import (
    NOTHING_RESTORED,
    BlockFinal,
    Fetch,
    Message,
    Now,
    Restored,
    Source,
)
from node.consensus.settings import Settings
from node.datadir import free_bytes
from node.journal import Journal
from node.ledger import Ledger, decode_transactions
from node.mempool import AlreadyKnown, Mempool, MempoolLimits, PoolRole
from node.proofs import Pause, RecordProof, prove_records
from node.pulse import Pulse, Times
from node.recovery import SenderRecovery
from node.runner import Runner, head_of, read_clocks
from node.signer import VoteSigner

log = logging.getLogger(__name__)

SYNCING_BLOCKS: Final = 30  # this far behind the node takes no transactions from clients
TURN_DECODED_MAX: Final = 256  # transactions, before others on the loop have their turn: about 2 ms
STALLED_MS: Final = 10_000  # without a final block, and so many periods, it takes none either
STALLED_PERIODS: Final = 10

CLIENT_VERSION: Final = f"ctt/v{VERSION}"


class Trouble(NotTakenNow):
    """Why clients had better turn to another node: one word of `state` for programs, and a line for people."""

    def __init__(self, state: str, what: str, advice: str = "send it to another or later") -> None:
        super().__init__(f"{what}; {advice}")
        self.line = f"{state}: {what}"


class ShortOfSpace(Trouble):
    """The node's disk is nearly full."""

    def __init__(self) -> None:
        super().__init__("disk", "the node is short of disk space and takes no transactions")


class Stopping(Trouble):
    """The node is about to end."""

    def __init__(self) -> None:
        super().__init__("stopping", "the node is stopping")


class Syncing(Trouble):
    """The node's state is too old to judge transactions by."""

    def __init__(self, *, height: int, target: int) -> None:
        super().__init__("syncing", f"the node is syncing: at block {height:,} of {target:,}")


class NoQuorum(Trouble):
    """No block has become final for long: too few validators reach each other, or this node reaches too few."""

    def __init__(self, *, seconds: int) -> None:
        what = f"no quorum: no block has become final for {seconds} s"
        super().__init__("stalled", what, "send it later")


class Signer(NamedTuple):
    """How a validator is doing, as this node hears it: None of what it cannot tell."""

    address: Address
    name: str | None  # of those of the genesis document
    heard_ms: int | None  # ago; None of this node itself
    votes_missed: int | None  # None on a follower


class Listeners:
    """Functions to call with each of something, in the order in which it comes."""

    def __init__(self) -> None:
        self._functions: dict[object, Callable[[Any], None]] = {}

    def add(self, function: Callable[[Any], None]) -> Callable[[], None]:
        """Gives the function that ends it."""
        name = object()
        self._functions[name] = function

        def end() -> None:
            self._functions.pop(name, None)

        return end

    def tell(self, news: object) -> None:
        for function in tuple(self._functions.values()):
            function(news)


class Outside(runner.Outside, Protocol):
    """What a node asks of the rest of the network."""

    def gossip(self, raw: bytes) -> None:
        """Tells the peers of a transaction that is new here."""

    def peer_count(self) -> int: ...
    def is_syncing(self) -> bool: ...
    def target(self) -> Height:
        """The highest height that is plausibly final: the head's, or above."""


class Alone:
    """The rest of the network of a node that has no peers."""

    def send(self, to: Source, message: Message) -> None: ...
    def broadcast(self, message: Message | Evidence) -> None: ...
    def fetch(self, fetch: Fetch) -> None: ...
    def on_final(self, final: BlockFinal) -> None: ...
    def on_applied(self) -> None: ...
    def gossip(self, raw: bytes) -> None: ...
    def peer_count(self) -> int:
        return 0

    def is_syncing(self) -> bool:
        return False

    def target(self) -> Height:
        return Height(0)


async def _go_on() -> None:
    """No pause."""


class Node:
    """A node over its data directory. Everything but `run` is called on the event loop of `run`."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        journal: Journal | None,
        signer: VoteSigner | None,
        limits: MempoolLimits,
        outside: Outside | None = None,
        settings: Settings | None = None,
        clocks: Callable[[], Now] = read_clocks,
        recovery: SenderRecovery | None = None,
    ) -> None:
        """Without a signer, or with one whose key is in no set, the node follows: it checks everything and never votes.

        Raises: StorageDamaged for a certificate of the head that is none.
        """
        self._ledger = ledger
        self._clocks = clocks
        self._outside = outside or Alone()
        self.pulse = Pulse()
        self._pool = Mempool(ledger.chain, limits, self._role_of)
        self._recovery = recovery or SenderRecovery()
        settings = settings or Settings(ledger.chain.block_period_ms)
        self._final = Listeners()
        self._final.add(self._note_final)
        self._final_ms = clocks().mono_ms  # when the newest final block came
        self._pending = Listeners()
        self._names = {each.address: each.name for each in ledger.genesis.validators}
        self._proving = asyncio.Lock()  # a proof may take much memory while it is made
        self.engine = Engine(
            settings,
            genesis_hash=ledger.genesis.hash,
            epoch_blocks=ledger.genesis.epoch_blocks,
            head=head_of(ledger.head),
            epoch=epoch_of(ledger.head.block.header.height + 1, ledger.chain.epoch_blocks),
            validators=ledger.next_validators(),
            consensus_key=None if signer is None else signer.public_key,
            restored=_restore(ledger, journal),
            now=clocks(),
        )
        self.runner = Runner(
            ledger,
            self._pool,
            self.engine,
            journal=journal,
            signer=signer,
            build_ms=settings.build_ms,
            outside=self._outside,
            recover=self._recover,
            on_final=self._final.tell,
            clocks=clocks,
        )

    async def run(self) -> None:
        """Takes part until `stop`. Raises: StorageFailed, Halted."""
        try:
            await self.runner.run()
        finally:
            self._recovery.close()

    def stop(self) -> None:
        self.runner.stop()

    # --- rpc.chain.Chain ------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> ChainParameters:
        return self._ledger.chain

    @property
    def client_version(self) -> str:
        return CLIENT_VERSION

    @property
    def head(self) -> FinalBlock:
        return self._ledger.head

    def block(self, height: int) -> FinalBlock | None:
        return self._ledger.block(height)

    def oldest_block(self) -> Height:
        return self._ledger.oldest_block()

    def height_of(self, block_hash: bytes) -> Height | None:
        return self._ledger.store.height_of(block_hash)

    def place_of(self, transaction_hash: bytes) -> Place | None:
        return self._ledger.store.place_of(transaction_hash)

    def state(self, height: int) -> Lookup:
        return self._ledger.state(height)

    def oldest_state(self) -> Height:
        return self._ledger.oldest_state()

    def header(self, height: int) -> Header:
        return Block.decode(self._ledger.store.header_block(height)).header

    def certificate(self, height: int) -> tuple[Height, bytes] | None:
        return self._ledger.store.certificate_covering(height)

    def validators(self, epoch: int) -> ValidatorSet | None:
        try:
            return self._ledger.validators(epoch)
        except LookupError:
            return None

    async def prove(self, height: int, keys: Sequence[bytes], pause: Pause) -> list[RecordProof]:
        async with self._proving:
            return await prove_records(self._ledger.store, height, keys, pause)

    def check_room(self, count: int) -> None:
        """Raises: NotTakenNow, RecoveryBusy: what so many transactions of clients would meet now."""
        if trouble := self._trouble(of_clients=True):
            raise trouble
        self._recovery.check_room(count)

    async def submit(self, raw: bytes) -> Hash:
        """Checks the transaction and puts it into the pool. Raises: InvalidTransaction."""
        (outcome,) = await self.submit_many([raw])
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    async def submit_many(
        self, raws: Sequence[bytes], pause: Pause = _go_on, *, relay: bool = True
    ) -> list[Hash | ValueError]:
        """The hash of each transaction that is now in the pool, or why it is not. What can be refused without its
        sender is; the rest shares one hand-over to the recovery threads. `relay`: they come from a client, and are told
        to the peers.

        Raises: RecoveryBusy.
        """
        if trouble := self._trouble(of_clients=relay):
            return [trouble] * len(raws)
        self._recovery.check_room(len(raws))  # before the work of decoding them
        decoded = [self._decode(raw) for raw in raws]
        transactions = [each for each in decoded if isinstance(each, Transaction)]
        senders = iter(await self._recovery.recover(transactions))
        outcomes: list[Hash | ValueError] = []
        for each in decoded:
            if isinstance(each, Transaction):
                outcomes.append(self._admit(each, next(senders), relay=relay))
                await pause()  # a sender whom the cache does not know is read from the disk
            else:
                outcomes.append(each)
        return outcomes

    def _trouble(self, *, of_clients: bool) -> Trouble | None:
        """Why transactions had better go elsewhere, or come later. Those of peers only have to find room."""
        if not self.runner.takes_transactions:
            return ShortOfSpace()
        if not of_clients:
            return None
        if self.runner.is_stopping:
            return Stopping()
        height, target = self.head.block.header.height, self._outside.target()
        stalled_ms = self.since_final_ms()
        if target > height + SYNCING_BLOCKS:
            return Syncing(height=height, target=target)
        if stalled_ms > max(STALLED_MS, STALLED_PERIODS * self.parameters.block_period_ms):
            return NoQuorum(seconds=stalled_ms // 1_000)
        return None

    def since_final_ms(self) -> int:
        """How long ago the newest final block came; since the start, if none did."""
        return self._clocks().mono_ms - self._final_ms

    def _note_final(self, final: FinalBlock) -> None:
        self._final_ms = self._clocks().mono_ms

    def _decode(self, raw: bytes) -> Transaction | InvalidTransaction:
        try:
            transaction = decode_transaction(raw, self.parameters.chain_id)
        except InvalidTransaction as refusal:
            return refusal
        if self._pool.get(transaction.hash):
            return AlreadyKnown()
        return transaction

    def _admit(
        self, transaction: Transaction, sender: Address | InvalidTransaction, *, relay: bool
    ) -> Hash | ValueError:
        if isinstance(sender, InvalidTransaction):
            return sender
        signed = Signed(transaction, sender)
        try:
            self._pool.add(signed, self._account(sender), self._clocks().mono_ms)
        except NonceTooLow as refusal:  # as all that the chain has: nothing else is looked for on the disk
            return AlreadyKnown() if self.place_of(transaction.hash) else refusal
        except InvalidTransaction as refusal:
            return refusal
        self._pending.tell(signed)
        if relay:
            self._outside.gossip(transaction.raw)
        return transaction.hash

    def pending_transaction(self, transaction_hash: bytes) -> Signed | None:
        return self._pool.get(transaction_hash)

    def pending_nonce(self, address: Address) -> int:
        return self._pool.pending_nonce(address, self._account(address).nonce)

    def pool(self) -> tuple[dict[Address, list[Signed]], dict[Address, list[Signed]]]:
        return self._pool.content()

    def pool_counts(self) -> tuple[int, int]:
        return self._pool.counts()

    def peer_count(self) -> int:
        return self._outside.peer_count()

    def is_syncing(self) -> bool:
        return self._outside.is_syncing()

    def trouble(self) -> str | None:
        trouble = self._trouble(of_clients=True)
        return None if trouble is None else trouble.line

    def not_voting(self) -> str | None:
        """Why this validator casts no votes now."""
        engine = self.engine
        if engine.me is None:
            return None
        if trouble := self.runner.signer_trouble:
            return f"not voting: no signer at {trouble}"
        if not engine.keeps_silent:
            return None
        if engine.guard is not None:
            left_s = max(0, engine.guard.silent_at_ms - self._clocks().mono_ms) // 1_000
            heard = f"{engine.guard_heard} of {engine.guard_quorum} validators heard"
            return f"not voting: {heard}, {left_s:,} s of silence left (restore guard)"
        epoch, view = engine.silent_through
        of_epoch = "" if epoch == engine.epoch else f" of epoch {epoch:,}"
        return f"not voting before view {view + 1:,}{of_epoch} (restore guard)"

    def signers(self) -> list[Signer]:
        """The validators of the epoch under way, in the order of the set."""
        engine, now_ms = self.engine, self._clocks().mono_ms
        return [
            Signer(
                member.address,
                self._names.get(member.address),
                None if place == engine.me else max(0, now_ms - engine.last_heard_ms(place)),
                None if engine.me is None else engine.votes_missed(place),
            )
            for place, member in enumerate(engine.validators.members)
        ]

    def on_final(self, listener: Callable[[FinalBlock], None]) -> Callable[[], None]:
        return self._final.add(listener)

    def on_pending(self, listener: Callable[[Signed], None]) -> Callable[[], None]:
        return self._pending.add(listener)

    def now_ms(self) -> Ms:
        return self._clocks().wall_ms

    def room_bytes(self) -> tuple[int, int]:
        """Raises: OSError."""
        return free_bytes(self._ledger.store.directory)

    def name_of(self, validator: Address) -> str:
        """As in the genesis document; the address of one that joined later."""
        return self._names.get(validator, hex_of(validator))

    def loop_lag(self) -> Times:
        return self.pulse.late.times()

    def finality(self) -> Times:
        return self.runner.finality.took.times()

    # --- its peers ------------------------------------------------------------------------------------------------

    async def _recover(self, block: Block) -> list[Signed]:
        """The block's transactions with their senders: most are in the pool already. Raises: InvalidBlock."""
        known = [self._pool.get(keccak(raw)) for raw in block.transactions]
        missing = [raw for raw, signed in zip(block.transactions, known, strict=True) if signed is None]
        transactions = []
        for start in range(0, len(missing), TURN_DECODED_MAX):
            part = block._replace(transactions=tuple(missing[start : start + TURN_DECODED_MAX]))
            transactions += decode_transactions(part, self.parameters)
            await asyncio.sleep(0)
        senders = await self._recovery.recover(transactions, is_urgent=True)
        found = iter(zip(transactions, senders, strict=True))
        return [signed or _signed(*next(found)) for signed in known]

    # --------------------------------------------------------------------------------------------------------------

    def _account(self, address: Address) -> Account:
        account = self._ledger.lookup(Account.key(address))
        return account if isinstance(account, Account) else Account()

    def _role_of(self, address: Address) -> PoolRole:
        """What the sender is by the state of the head: it decides how deep its queue may be."""
        lookup = self._ledger.lookup
        meter = lookup(Meter.key(address))
        if isinstance(meter, Meter) and meter.certified:
            return PoolRole.CONCENTRATOR if meter.concentrator else PoolRole.METER
        config = lookup(CttConfig.key())
        if isinstance(config, CttConfig) and config.admin == address:
            return PoolRole.OPERATOR
        if lookup(Role.key(ROLE_OPERATOR, address)) is not None:
            return PoolRole.OPERATOR
        if self.engine.validators.place_of_address(address) is not None:
            return PoolRole.OPERATOR
        return PoolRole.ORDINARY


def _restore(ledger: Ledger, journal: Journal | None) -> Restored:
    """What the journal holds above the last final block, and what made that block final."""
    restored = NOTHING_RESTORED if journal is None else journal.restored()
    final = ledger.store.certificate(ledger.head.block.header.height)
    if final is None:
        return restored
    return replace(restored, certificates=(*restored.certificates, Certificate.decode(final)))


def _signed(transaction: Transaction, sender: Address | InvalidTransaction) -> Signed:
    """Raises: InvalidBlock."""
    if isinstance(sender, InvalidTransaction):
        raise InvalidBlock(f"transaction 0x{transaction.hash.hex()}: {sender}")
    return Signed(transaction, sender)
