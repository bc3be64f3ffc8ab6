"""The loop: blocks of the node into the database, over whatever becomes of either.

While a batch is written in a thread, the next one is decoded and others are on their way. Whichever of node and
database goes away, the loop waits longer each time, and begins anew at what the database has.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from apps.client import Client
from apps.indexer.database import DatabaseAway, Store
from apps.indexer.feed import Feed, NodeAway
from apps.indexer.rows import Batch, OtherChain, Position
from ctt_state.genesis import Genesis
from ctt_state.units import hex_of

PAUSE_SECONDS: Final = 0.25  # before the first new attempt; each one takes twice as long
PAUSE_SECONDS_MAX: Final = 15.0
STOP_SECONDS_MAX: Final = 3.0  # for what is being written
REPORT_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """Which chain goes where."""

    rpc: str
    token: str | None
    database: str
    genesis: Genesis
    zone: ZoneInfo
    patience_seconds: float  # for a node or a database that is away, without a block between
    once: bool  # only up to the head as it is at the start
    tell: Callable[[int, int], object]  # the height that the database has, and the node's


async def run(settings: Settings, *, rebuild: bool) -> None:
    """Until it is cancelled. Raises: Refused, OtherChain, RpcError; NodeAway, DatabaseAway after the patience."""
    now = asyncio.get_running_loop().time
    progress = Progress(now, settings.tell)
    pause, away_since = PAUSE_SECONDS, now()
    while True:
        try:
            store = await asyncio.to_thread(
                Store, settings.database, settings.genesis, settings.zone, rebuild=rebuild
            )
            rebuild = False
            try:
                return await _follow(settings, store, progress)
            finally:
                await asyncio.to_thread(store.close)
        except (NodeAway, DatabaseAway) as fault:
            if progress.moved:
                pause, away_since, progress.moved = PAUSE_SECONDS, now(), False
            if now() + pause > away_since + settings.patience_seconds:
                raise
            log.warning("%s; trying again in %g s", fault, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)


async def _follow(settings: Settings, store: Store, progress: "Progress") -> None:
    """Raises: as `run`."""
    async with Client(settings.rpc, settings.token) as client:
        feed = Feed(client)
        await _check_chain(feed, store.position, settings.genesis)
        goal = await feed.head() if settings.once else None
        log.info("goes on after block %d", store.position.height)
        after, tariff = store.position, store.tariff
        writing: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0))
        try:
            async with aclosing(feed.blocks(after.height + 1)) as ranges:
                while goal is None or after.height < goal:
                    batch = await asyncio.to_thread(Batch, await anext(ranges), after, tariff)
                    after, tariff = batch.last, batch.tariff
                    await asyncio.shield(writing)
                    progress.goal = feed.height
                    writing = asyncio.create_task(_write(store, batch, progress))
            await asyncio.shield(writing)
        finally:
            await _finish(writing, store)


async def _write(store: Store, batch: Batch, progress: "Progress") -> None:
    await asyncio.to_thread(store.write, batch)
    progress.note(batch)


async def _check_chain(feed: Feed, position: Position, genesis: Genesis) -> None:
    """That the node has the database's last block. Raises: OtherChain, NodeAway, RpcError."""
    found = await feed.genesis_hash()
    if found != hex_of(genesis.hash):
        raise OtherChain(f"the node's chain is another: its genesis is {found}, not {hex_of(genesis.hash)}")
    if position.height < 0:
        return
    found, known = await feed.hash_of(position.height), hex_of(position.block_hash)
    if found != known:
        raise OtherChain(
            f"block {position.height} of the node is {found}, of the database {known}: one is of another chain"
        )


async def _finish(writing: "asyncio.Task[None]", store: Store) -> None:
    """Lets it come to its end, or stops it: a batch is written whole or not at all."""
    done, _ = await asyncio.wait((writing,), timeout=STOP_SECONDS_MAX)
    stopping = [] if done else [asyncio.to_thread(store.interrupt)]
    await asyncio.gather(writing, *stopping, return_exceptions=True)


class Progress:
    """Whether anything has moved, and how far: each batch is told, and now and then there is a line in the log."""

    def __init__(self, now: Callable[[], float], tell: Callable[[int, int], object]) -> None:
        self.moved = True
        self.goal = 0  # the node's height
        self._tell = tell
        self._now = now
        self._told, self._rows = now(), 0

    def note(self, batch: Batch) -> None:
        self.moved = True
        self._tell(batch.last.height, self.goal)
        self._rows += sum(map(len, batch.tables.values()))
        seconds = self._now() - self._told
        if seconds >= REPORT_SECONDS:
            log.info("block %d, %d rows/s", batch.last.height, self._rows / seconds)
            self._told, self._rows = self._now(), 0
