"""Subscriptions over WebSocket: new heads, logs, pending transactions, and what makes blocks final.

A session keeps its place in the chain, not a queue: what it is owed is read from final blocks as fast as its client
takes it, so a slow client costs no memory. One that falls too far behind is closed and told the last block sent, from
which it can resume. Only pending transactions wait in a queue, and it closes the session when full. There are no
silent gaps.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ctt_state.block import FinalBlock
from ctt_state.transaction import Signed
from ctt_state.units import Height
from rpc.blocks import Blocks
from rpc.errors import TryLater
from rpc.finality import own_finality_of
from rpc.jsontext import RawJson, dumps, hex_text
from rpc.logs import logs_of
from rpc.params import LogCriteria, SubscriptionKind
from rpc.render import BlockView, pending_transaction

SUBSCRIPTIONS_PER_SESSION_MAX: Final = 32
SUBSCRIPTIONS_MAX: Final = 2_000

EVERY_LOG: Final = LogCriteria(frozenset(), ())


@dataclass(frozen=True, slots=True)
class SubscriptionLimits:
    """How far a reader may fall behind."""

    blocks_behind_max: int = 100  # half a minute of three blocks a second
    pending_waiting_max: int = 1_000


class Subscription(NamedTuple):
    """What is told: of blocks above `since`, or each pending transaction, whole or by its hash."""

    identity: str
    kind: SubscriptionKind
    since: Height
    criteria: LogCriteria
    whole: bool

    def notification(self, result: str) -> str:
        return (
            '{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"'
            f'{self.identity}","result":{result}}}}}'
        )


class Session:
    """One WebSocket's subscriptions. `pump` sends what they are owed; `slow` is set when the client cannot follow."""

    def __init__(self, subscriptions: "Subscriptions", limits: SubscriptionLimits) -> None:
        self._all = subscriptions
        self._limits = limits
        self._sent = subscriptions.blocks.chain.head.block.header.height
        self._active: dict[str, Subscription] = {}
        self._announced: dict[str, Subscription] = {}
        self._pending: asyncio.Queue[str] = asyncio.Queue(limits.pending_waiting_max)
        self._wake = asyncio.Event()
        self.hears_pending = False
        self.slow = asyncio.Event()

    def __len__(self) -> int:
        return len(self._active) + len(self._announced)

    @property
    def slow_text(self) -> str:
        return f"subscriber too slow; last block sent {self._sent} — resume from there"

    def subscribe(
        self, kind: SubscriptionKind, criteria: LogCriteria = EVERY_LOG, whole: bool = False
    ) -> str:
        """The new subscription's id. It speaks after `activate`. Raises: TryLater."""
        if len(self) >= SUBSCRIPTIONS_PER_SESSION_MAX:
            raise TryLater(
                f"{len(self)} subscriptions on this connection; limit {SUBSCRIPTIONS_PER_SESSION_MAX}"
            )
        if self._all.count() >= SUBSCRIPTIONS_MAX:
            raise TryLater(f"{SUBSCRIPTIONS_MAX:,} subscriptions are in use; limit {SUBSCRIPTIONS_MAX:,}")
        identity = hex(secrets.randbits(128))  # a quantity: some clients keep it as a number
        since = self._all.blocks.chain.head.block.header.height
        self._announced[identity] = Subscription(identity, kind, since, criteria, whole)
        return identity

    def unsubscribe(self, identity: str) -> bool:
        found = self._active.pop(identity, None) or self._announced.pop(identity, None)
        self._look_for_pending()
        return found is not None

    def activate(self) -> None:
        """Call it when the replies so far are sent: no notification comes before the id it carries."""
        if self._announced:
            self._active.update(self._announced)
            self._announced.clear()
            self._look_for_pending()
            self._wake.set()

    def _look_for_pending(self) -> None:
        self.hears_pending = any(s.kind is SubscriptionKind.PENDING for s in self._active.values())

    def on_final(self, height: int) -> None:
        if not self._active:
            if not self._announced:
                self._sent = Height(height)
            return
        if height - self._sent > self._limits.blocks_behind_max:
            self.slow.set()
        self._wake.set()

    def on_pending(self, signed: Signed, short: RawJson) -> None:
        for subscription in self._active.values():
            if subscription.kind is SubscriptionKind.PENDING:
                text = pending_transaction(signed) if subscription.whole else short
                try:
                    self._pending.put_nowait(subscription.notification(text))
                except asyncio.QueueFull:
                    self.slow.set()
                    return
                self._wake.set()

    async def pump(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Sends for ever: blocks in order, pending transactions as they come."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send_blocks(send)
            while not self._pending.empty():
                await send(self._pending.get_nowait())

    async def _send_blocks(self, send: Callable[[str], Awaitable[None]]) -> None:
        blocks = self._all.blocks
        while self._active and self._sent < blocks.chain.head.block.header.height:
            view = blocks.at(self._sent + 1)
            if view is not None:
                for text in self._notifications(view):
                    await send(text)
            self._sent = Height(self._sent + 1)

    def _notifications(self, view: BlockView) -> Iterator[str]:
        for subscription in list(self._active.values()):
            if view.height <= subscription.since:
                continue
            if subscription.kind is SubscriptionKind.NEW_HEADS:
                yield subscription.notification(view.header())
            elif subscription.kind is SubscriptionKind.FINALIZED:
                proof = own_finality_of(self._all.blocks.chain, view.height)
                if proof is not None:
                    yield subscription.notification(dumps(proof))
            elif subscription.kind is SubscriptionKind.LOGS:
                for log in logs_of(view, subscription.criteria):
                    yield subscription.notification(log)


class Subscriptions:
    """All sessions."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._sessions: set[Session] = set()

    def open(self, limits: SubscriptionLimits) -> Session:
        session = Session(self, limits)
        self._sessions.add(session)
        return session

    def close(self, session: Session) -> None:
        self._sessions.discard(session)

    def count(self) -> int:
        return sum(len(session) for session in self._sessions)

    def on_final(self, final: FinalBlock) -> None:
        for session in self._sessions:
            session.on_final(final.block.header.height)

    def on_pending(self, signed: Signed) -> None:
        hearing = [session for session in self._sessions if session.hears_pending]
        if hearing:
            short = hex_text(signed.transaction.hash)
            for session in hearing:
                session.on_pending(signed, short)
