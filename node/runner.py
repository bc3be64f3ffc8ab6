"""The loop that waits: it brings consensus the time and what came of its effects, and carries the effects out.

The only place in a running node that reads a clock. Executing and writing happen on one storage thread, so the loop
goes on answering while a block is made; there is never more than one block in that thread.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar, assert_never

from ctt_state.block import FinalBlock
from ctt_state.crypto import sign_compact
from ctt_state.records import Account
from ctt_state.units import Address, Ms
from ctt_state.validators import epoch_of
from node.consensus.solo import (
    BlockBuilt,
    BlockFinal,
    Build,
    Effect,
    Engine,
    Event,
    Finalize,
    Head,
    Now,
    Sign,
    Tick,
    VoteSigned,
)
from node.datadir import Space, check_room, free_space
from node.ledger import BLOCK_TRANSACTIONS_MAX, BlockPlan, Ledger
from node.mempool import Mempool
from node.store import StorageFailed
from node.unfinal import Executed

STORAGE_SECONDS_MAX: Final = 10.0  # a disk that answers later than this stops the node
SPACE_BLOCKS: Final = 30  # how often the free space is looked at: every ten seconds

log = logging.getLogger(__name__)


class DiskSilent(StorageFailed):
    """The disk does not answer. The storage thread may hang for ever: nobody may wait for it, nor close the store."""


T = TypeVar("T")


def read_clocks() -> Now:
    """Both clocks, in whole milliseconds."""
    return Now(time.monotonic_ns() // 1_000_000, Ms(time.time_ns() // 1_000_000))


def head_of(final: FinalBlock) -> Head:
    """What consensus needs to know of a block to build on it."""
    header = final.block.header
    return Head(header.height, header.epoch, header.view, final.hash, header.timestamp_ms)


class Runner:
    """Runs one validator's engine over its ledger and pool, until it is stopped or its storage fails."""

    def __init__(
        self,
        ledger: Ledger,
        pool: Mempool,
        engine: Engine,
        *,
        proposer: Address,
        consensus_key: bytes,
        on_final: Callable[[FinalBlock], None],
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._engine = engine
        self._proposer = proposer
        self._consensus_key = consensus_key
        self._on_final = on_final
        self._storage = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._stopping = asyncio.Event()
        self._built: Executed | None = None
        self._space = Space.AMPLE

    def stop(self) -> None:
        """Lets the block under way become final, then ends `run`."""
        self._stopping.set()

    @property
    def takes_transactions(self) -> bool:
        """Not while the disk has room for little more than what is already under way."""
        return self._space > Space.NO_CLIENTS

    async def run(self) -> None:
        """Raises: StorageFailed; nothing is then signed or written any more."""
        is_answering = True
        try:
            while not self._stopping.is_set():
                await self._sleep_until_due()
                await self._feed(Tick())
        except DiskSilent:
            is_answering = False
            raise
        finally:
            self._storage.shutdown(wait=is_answering)

    async def _sleep_until_due(self) -> None:
        """Until the engine's deadline, or until `stop`. Effects are carried out before the next call, so the engine
        is never busy here and always has one."""
        clocks = read_clocks()
        due_ms = self._engine.deadline_ms(clocks)
        if due_ms is None:
            raise AssertionError("the engine waits for an effect that was already carried out")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(due_ms - clocks.mono_ms, 0) / 1_000)

    async def _feed(self, event: Event) -> None:
        """One event, and those that its effects lead to."""
        events = deque((event,))
        while events:
            effects = self._engine.step(events.popleft(), read_clocks())
            events.extend([await self._carry_out(effect) for effect in effects])

    async def _carry_out(self, effect: Effect) -> Event:
        match effect:
            case Build():
                return await self._build(effect)
            case Sign(statement):
                digest = statement.digest(self._ledger.genesis.hash)
                return VoteSigned(statement, sign_compact(self._consensus_key, digest))
            case Finalize():
                return await self._finalize(effect)
            case _:
                assert_never(effect)

    async def _build(self, effect: Build) -> Event:
        candidates = list(islice(self._pool.candidates(), BLOCK_TRANSACTIONS_MAX))
        head = self._ledger.head
        epoch = epoch_of(head.block.header.height + 1, self._ledger.chain.epoch_blocks)
        plan = BlockPlan(head.hash, epoch, effect.view, effect.timestamp_ms, self._proposer)
        executed, dropped = await self._on_storage(self._ledger.build, plan, candidates)
        for signed, reason in dropped:
            log.info("dropped transaction 0x%s: %s", signed.transaction.hash.hex(), reason)
            self._pool.drop(signed.transaction.hash)
        self._built = executed
        return BlockBuilt(head_of(executed.final))

    async def _finalize(self, effect: Finalize) -> Event:
        executed = self._built
        if executed is None or executed.final.hash != effect.block_hash:
            raise AssertionError(
                f"consensus finalizes a block that was not built: 0x{effect.block_hash.hex()}"
            )
        await self._on_storage(self._ledger.commit, executed, effect.certificate.encode())
        self._built = None
        self._ledger.publish(executed)
        final = executed.final
        self._pool.on_block(self._nonces(final), read_clocks().mono_ms)
        self._on_final(final)
        if final.block.header.height % SPACE_BLOCKS == 0:
            await self._look_at_space()
        return BlockFinal(head_of(final))

    async def _look_at_space(self) -> None:
        """Tells the operator when the disk fills up. Raises: StorageFailed when the node must stop while it can."""
        directory = self._ledger.store.directory
        before, self._space = self._space, await self._on_storage(free_space, directory)
        if self._space is Space.STOP:
            await self._on_storage(check_room, directory)
        if self._space < before:
            log.warning(
                "%s: the file system is filling up%s; free space",
                directory,
                "" if self.takes_transactions else ", clients' transactions are refused",
            )

    def _nonces(self, final: FinalBlock) -> Iterator[tuple[Address, int]]:
        """The senders of the block with the nonces that their accounts now have."""
        for sender in dict.fromkeys(final.senders):
            account = self._ledger.lookup(Account.key(sender))
            if isinstance(account, Account):
                yield sender, account.nonce

    async def _on_storage(self, work: Callable[..., T], *arguments: object) -> T:
        """Raises: StorageFailed, also when the disk does not answer in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(STORAGE_SECONDS_MAX):
                return await loop.run_in_executor(self._storage, work, *arguments)
        except TimeoutError:
            raise DiskSilent(
                f"{self._ledger.store.directory}: the disk does not answer for {STORAGE_SECONDS_MAX:.0f} s; the last "
                f"final block {self._ledger.store.head.height:,} is safe. Check the disk before a restart."
            ) from None
