"""Filters: what is new since the client last asked, for clients that poll.

A block or log filter is a place in the chain and no buffer: its changes are read from final blocks, at most so many
at a time, and the rest comes with the next question. Only hashes of pending transactions are buffered; when a filter's
buffer is full the filter ends, so that its client learns of the gap. A filter not used for five minutes is gone.
"""

import secrets
from collections.abc import Callable
from typing import Final

from rpc.blocks import Blocks
from rpc.errors import InvalidParams, Refused, TryLater
from rpc.jsontext import RawJson, hex_text
from rpc.logs import RANGE_BLOCKS_MAX, RESULT_LOGS_MAX, find_logs, logs_at
from rpc.params import LogQuery, Tag
from rpc.turns import Turns

FILTERS_PER_CLIENT_MAX: Final = 32
FILTERS_MAX: Final = 2_000
FILTER_IDLE_S_MAX: Final = 300.0
PENDING_HASHES_MAX: Final = 10_000


class BlockFilter:
    """Hashes of new blocks."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._seen: int = blocks.chain.head.block.header.height

    async def changes(self) -> list[RawJson]:
        last = min(self._blocks.chain.head.block.header.height, self._seen + RANGE_BLOCKS_MAX)
        views = [self._blocks.at(height) for height in range(self._seen + 1, last + 1)]
        self._seen = last
        return [RawJson(f'"{view.hash}"') for view in views if view is not None]


class LogFilter:
    """New logs that match, from the query's first block or the block after the filter was made."""

    def __init__(self, blocks: Blocks, query: LogQuery) -> None:
        """Raises: InvalidParams."""
        if query.block_hash is not None:
            raise InvalidParams(
                "params[0].blockHash: a filter watches a range; use eth_getLogs for one block"
            )
        head = blocks.chain.head.block.header.height
        first: int = head + 1 if isinstance(query.from_block, Tag) else query.from_block
        if query.from_block is Tag.EARLIEST:
            first = blocks.chain.oldest_block()
        if not isinstance(query.to_block, Tag) and first > query.to_block:
            raise InvalidParams("invalid block range params")
        self._blocks = blocks
        self.query = query
        self._next = first

    async def changes(self) -> list[RawJson]:
        """Of as many blocks as fit the limits of one answer."""
        last: int = self._blocks.chain.head.block.header.height
        if not isinstance(self.query.to_block, Tag):
            last = min(last, self.query.to_block)
        found: list[RawJson] = []
        turns = Turns()
        for height in range(self._next, min(last, self._next + RANGE_BLOCKS_MAX - 1) + 1):
            found += logs_at(self._blocks, height, self.query.criteria)
            self._next = height + 1
            if len(found) >= RESULT_LOGS_MAX:
                break
            await turns.pause()
        return found

    async def all(self) -> list[RawJson]:
        """All logs of its range, whatever has been told."""
        return await find_logs(self._blocks, self.query)


class PendingFilter:
    """Hashes of transactions that entered the pool."""

    def __init__(self) -> None:
        self.hashes: list[RawJson] = []

    async def changes(self) -> list[RawJson]:
        hashes, self.hashes = self.hashes, []
        return hashes


Filter = BlockFilter | LogFilter | PendingFilter


class _Entry:
    """A filter with whose it is and when it was last asked."""

    __slots__ = ("client", "filter", "used_s")

    def __init__(self, client: str, made: Filter, now_s: float) -> None:
        self.client = client
        self.filter = made
        self.used_s = now_s


class Filters:
    """All filters by id. The clock is monotonic, in seconds."""

    def __init__(self, blocks: Blocks, clock: Callable[[], float]) -> None:
        self._blocks = blocks
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._pending: dict[str, PendingFilter] = {}

    def add_block_filter(self, client: str) -> str:
        """Raises: TryLater."""
        return self._add(client, BlockFilter(self._blocks))

    def add_log_filter(self, client: str, query: LogQuery) -> str:
        """Raises: InvalidParams, TryLater."""
        return self._add(client, LogFilter(self._blocks, query))

    def add_pending_filter(self, client: str) -> str:
        """Raises: TryLater."""
        made = PendingFilter()
        identity = self._add(client, made)
        self._pending[identity] = made
        return identity

    async def changes(self, identity: str) -> list[RawJson]:
        """What is new. Raises: Refused when there is no such filter, or no longer."""
        return await self._find(identity).changes()

    async def logs(self, identity: str) -> list[RawJson]:
        """Raises: Refused, also for a filter that is not of logs; InvalidParams when they are too many."""
        found = self._find(identity)
        if not isinstance(found, LogFilter):
            raise Refused("filter not found")
        return await found.all()

    def remove(self, identity: str) -> bool:
        self._pending.pop(identity, None)
        return self._entries.pop(identity, None) is not None

    def on_pending(self, transaction_hash: bytes) -> None:
        """Tells the filters of pending transactions; one that is full or forgotten ends."""
        if not self._pending:
            return
        text = hex_text(transaction_hash)
        for identity, pending in list(self._pending.items()):
            pending.hashes.append(text)
            if len(pending.hashes) > PENDING_HASHES_MAX:
                self.remove(identity)

    def _add(self, client: str, made: Filter) -> str:
        self._forget_idle()
        if len(self._entries) >= FILTERS_MAX:
            raise TryLater(f"{FILTERS_MAX:,} filters are in use; limit {FILTERS_MAX:,}")
        if sum(entry.client == client for entry in self._entries.values()) >= FILTERS_PER_CLIENT_MAX:
            raise TryLater(
                f"{FILTERS_PER_CLIENT_MAX} filters from this address; limit {FILTERS_PER_CLIENT_MAX}"
            )
        identity = hex(secrets.randbits(128))  # a quantity: some clients keep it as a number
        self._entries[identity] = _Entry(client, made, self._clock())
        return identity

    def _find(self, identity: str) -> Filter:
        self._forget_idle()
        entry = self._entries.get(identity)
        if entry is None:
            raise Refused("filter not found")
        entry.used_s = self._clock()
        return entry.filter

    def _forget_idle(self) -> None:
        oldest = self._clock() - FILTER_IDLE_S_MAX
        for identity in [identity for identity, entry in self._entries.items() if entry.used_s < oldest]:
            self.remove(identity)
