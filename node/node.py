"""A node: ledger, pool, sender recovery and consensus joined, as JSON-RPC sees them (`rpc.chain.Chain`)."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from ctt_state.block import FinalBlock, Place
from ctt_state.errors import InvalidTransaction
from ctt_state.modules.call import ChainParameters
from ctt_state.records import ROLE_OPERATOR, Account, CttConfig, Meter, Role
from ctt_state.transaction import Signed, Transaction, decode_transaction
from ctt_state.units import Address, Hash, Height, Ms
from ctt_state.view import Lookup
from node import VERSION
from node.consensus.solo import Engine
from node.ledger import Ledger
from node.mempool import AlreadyKnown, Mempool, MempoolLimits, PoolRole
from node.recovery import SenderRecovery
from node.runner import Runner, head_of, read_clocks

log = logging.getLogger(__name__)

CLIENT_VERSION: Final = f"ctt/v{VERSION}"


class ShortOfSpace(InvalidTransaction):
    """The node's disk is nearly full."""

    def __init__(self) -> None:
        super().__init__(
            "the node is short of disk space and takes no transactions; send it to another or later"
        )


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


class Node:
    """One validator over its data directory. Everything but `run` is called on the event loop of `run`."""

    def __init__(self, ledger: Ledger, *, consensus_key: bytes, signer: int, limits: MempoolLimits) -> None:
        self._ledger = ledger
        self._pool = Mempool(ledger.chain, limits, self._role_of)
        self._recovery = SenderRecovery()
        self._final = Listeners()
        self._pending = Listeners()
        validators = ledger.genesis.validators
        engine = Engine(
            head_of(ledger.head),
            period_ms=ledger.chain.block_period_ms,
            validators=len(validators),
            signer=signer,
        )
        self._runner = Runner(
            ledger,
            self._pool,
            engine,
            proposer=validators[signer].address,
            consensus_key=consensus_key,
            on_final=self._final.tell,
        )

    async def run(self) -> None:
        """Makes blocks until `stop`. Raises: StorageFailed."""
        try:
            await self._runner.run()
        finally:
            self._recovery.close()

    def stop(self) -> None:
        self._runner.stop()

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

    def height_of(self, block_hash: bytes) -> Height | None:
        return self._ledger.store.height_of(block_hash)

    def place_of(self, transaction_hash: bytes) -> Place | None:
        return self._ledger.store.place_of(transaction_hash)

    def state(self, height: int) -> Lookup:
        return self._ledger.state(height)

    def oldest_state(self) -> Height:
        return self._ledger.oldest_state()

    async def submit(self, raw: bytes) -> Hash:
        """Checks the transaction and puts it into the pool. Raises: InvalidTransaction."""
        (outcome,) = await self.submit_many([raw])
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    async def submit_many(self, raws: Sequence[bytes]) -> list[Hash | ValueError]:
        """The hash of each transaction that is now in the pool, or why it is not. What can be refused without its
        sender is; the rest shares one hand-over to the recovery threads.

        Raises: RecoveryBusy.
        """
        if not self._runner.takes_transactions:
            return [ShortOfSpace()] * len(raws)
        decoded = [self._decode(raw) for raw in raws]
        transactions = [each for each in decoded if isinstance(each, Transaction)]
        senders = iter(await self._recovery.recover(transactions))
        return [
            self._admit(each, next(senders)) if isinstance(each, Transaction) else each for each in decoded
        ]

    def _decode(self, raw: bytes) -> Transaction | InvalidTransaction:
        try:
            transaction = decode_transaction(raw, self.parameters.chain_id)
        except InvalidTransaction as refusal:
            return refusal
        if self._pool.get(transaction.hash) or self.place_of(transaction.hash):
            return AlreadyKnown()
        return transaction

    def _admit(self, transaction: Transaction, sender: Address | InvalidTransaction) -> Hash | ValueError:
        if isinstance(sender, InvalidTransaction):
            return sender
        signed = Signed(transaction, sender)
        try:
            self._pool.add(signed, self._account(sender), read_clocks().mono_ms)
        except InvalidTransaction as refusal:
            return refusal
        self._pending.tell(signed)
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
        return 0

    def is_syncing(self) -> bool:
        return False

    def on_final(self, listener: Callable[[FinalBlock], None]) -> Callable[[], None]:
        return self._final.add(listener)

    def on_pending(self, listener: Callable[[Signed], None]) -> Callable[[], None]:
        return self._pending.add(listener)

    def now_ms(self) -> Ms:
        return read_clocks().wall_ms

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
        return PoolRole.ORDINARY
