"""What the methods of one node share: chain, blocks, filters, subscriptions and those who wait for a receipt."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ctt_state.block import FinalBlock
from ctt_state.transaction import Signed
from ctt_state.units import Hash
from rpc.access import Role
from rpc.advisor import Advisor
from rpc.blocks import Blocks
from rpc.chain import Chain
from rpc.errors import TryLater
from rpc.filters import Filters
from rpc.subscriptions import Session, Subscriptions

WAITERS_MAX: Final = 10_000


class Inclusion:
    """Those who wait for their transaction's block."""

    def __init__(self) -> None:
        self._waiting: dict[Hash, list[asyncio.Future[None]]] = {}
        self._count = 0

    async def wait(self, transaction_hash: Hash, timeout_s: float) -> None:
        """Until the transaction is in a final block. Raises: TimeoutError; TryLater when too many wait."""
        if self._count >= WAITERS_MAX:
            raise TryLater(f"{WAITERS_MAX:,} clients wait for a receipt; the transaction is in the pool")
        included: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(transaction_hash, [])
        waiting.append(included)
        self._count += 1
        try:
            async with asyncio.timeout(timeout_s):
                await included
        finally:
            self._count -= 1
            waiting.remove(included)
            if not waiting:
                self._waiting.pop(transaction_hash, None)

    def on_final(self, final: FinalBlock) -> None:
        if self._waiting:
            for transaction_hash in self._waiting.keys() & set(final.transaction_hashes):
                for included in self._waiting[transaction_hash]:
                    if not included.done():
                        included.set_result(None)


class Door:
    """One per node. `open` and `close` frame its use; the clock is monotonic, in seconds."""

    def __init__(self, chain: Chain, clock: Callable[[], float], advisor: Advisor | None = None) -> None:
        self.chain = chain
        self.advisor = advisor
        self.blocks = Blocks(chain)
        self.filters = Filters(self.blocks, clock)
        self.subscriptions = Subscriptions(self.blocks)
        self.inclusion = Inclusion()
        self._stops: list[Callable[[], None]] = []

    def open(self) -> None:
        """Starts to listen to the chain."""
        self._stops = [self.chain.on_final(self._on_final), self.chain.on_pending(self._on_pending)]

    def close(self) -> None:
        while self._stops:
            self._stops.pop()()

    def _on_final(self, final: FinalBlock) -> None:
        self.inclusion.on_final(final)
        self.subscriptions.on_final(final)

    def _on_pending(self, signed: Signed) -> None:
        self.filters.on_pending(signed.transaction.hash)
        self.subscriptions.on_pending(signed)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name by which the client is counted, and its WebSocket's session if it came by one."""

    door: Door
    client: str
    session: Session | None = None
    role: Role = Role.PUBLIC

    @property
    def chain(self) -> Chain:
        return self.door.chain

    @property
    def blocks(self) -> Blocks:
        return self.door.blocks
