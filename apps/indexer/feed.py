"""Final blocks with their receipts, in order, from one node.

Its WebSocket tells of new heads; where there is none, the node is asked for its height. Blocks come in batches, several
on their way at once, of as many blocks as seem to fit; what comes of one is at most what a node answers at once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import takewhile
from typing import Any, Final

import aiohttp

from apps.client import Client, RpcError
from apps.indexer.rows import Fetched

IN_FLIGHT: Final = 4
BLOCKS_PER_REQUEST_MAX: Final = 50  # a batch has up to 100 calls, two a block
CALLS_PER_REQUEST_MAX: Final = 100
WEIGHT_PER_REQUEST: Final = 4_000  # transactions and logs, about: some 4 MB
POLL_SECONDS: Final = 0.3
PAUSE_SECONDS_MAX: Final = 60.0  # whatever the node asks for
POLLS_PER_SUBSCRIPTION: Final = 30  # before another one is tried
TRY_LATER: Final = -32005
LOST: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)  # what clients of a lost node see

log = logging.getLogger(__name__)


class NodeAway(Exception):
    """The node cannot be reached, or cannot answer just now. One line."""


class Feed:
    """Of one node."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._head = -1
        self._news = asyncio.Event()
        self._count = BLOCKS_PER_REQUEST_MAX

    @property
    def height(self) -> int:
        """The newest block's that it knows of."""
        return self._head

    async def head(self) -> int:
        """The newest block's height. Raises: NodeAway, RpcError."""
        (head,) = await self._ask([("eth_blockNumber", [])])
        return int(head, 16)

    async def genesis_hash(self) -> str:
        """Raises: NodeAway, RpcError."""
        (status,) = await self._ask([("ctt_chainStatus", [])])
        genesis_hash: str = status["genesisHash"]
        return genesis_hash

    async def hash_of(self, height: int) -> str:
        """Raises: NodeAway where there is no such block yet, RpcError."""
        (block,) = await self._ask([("eth_getBlockByNumber", [hex(height), False])])
        if block is None:
            raise NodeAway(f"{self._client.url} has no block {height} yet")
        block_hash: str = block["hash"]
        return block_hash

    async def blocks(self, first: int) -> AsyncGenerator[list[Fetched], None]:
        """From this height on, for ever. Raises: NodeAway, RpcError."""
        watching = asyncio.create_task(self._watch())
        fetching: deque[tuple[int, int, asyncio.Task[list[Fetched]]]] = deque()
        try:
            while True:
                while len(fetching) < IN_FLIGHT and first <= self._head:
                    count = min(self._count, self._head - first + 1)
                    fetching.append(self._start(first, count))
                    first += count
                if not fetching:
                    await self._wait_for(first, watching)
                    continue
                start, count, task = fetching.popleft()
                blocks = await task
                if len(blocks) < count:
                    fetching.appendleft(self._start(start + len(blocks), count - len(blocks)))
                weight = sum(each.weight for each in blocks)
                self._count = min(max(len(blocks) * WEIGHT_PER_REQUEST // weight, 1), BLOCKS_PER_REQUEST_MAX)
                yield blocks
        finally:
            watching.cancel()
            for _, _, task in fetching:
                task.cancel()
            await asyncio.gather(watching, *[task for _, _, task in fetching], return_exceptions=True)

    # --- where the head is ---

    async def _watch(self) -> None:
        """Follows the head. Raises: NodeAway, RpcError."""
        while True:
            try:
                async with self._client.subscription("newHeads") as heads:
                    self._see(await self.head())
                    async for head in heads:
                        self._see(int(head["number"], 16))
            except (*LOST, RpcError) as fault:
                log.info("no subscription, so the node is asked: %s", fault)
            for _ in range(POLLS_PER_SUBSCRIPTION):
                self._see(await self.head())
                await asyncio.sleep(POLL_SECONDS)

    def _see(self, height: int) -> None:
        self._head = max(self._head, height)
        self._news.set()

    async def _wait_for(self, height: int, watching: "asyncio.Task[None]") -> None:
        while self._head < height:
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait((news, watching), return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if watching.done():
                watching.result()

    # --- what is asked ---

    def _start(self, first: int, count: int) -> "tuple[int, int, asyncio.Task[list[Fetched]]]":
        return first, count, asyncio.create_task(self._fetch(first, count))

    async def _fetch(self, first: int, count: int) -> list[Fetched]:
        """So many blocks, or the first of them, as the node's reply has room."""
        calls: list[tuple[str, Sequence[Any]]] = []
        for height in range(first, first + count):
            calls += [
                ("eth_getBlockByNumber", [hex(height), True]),
                ("eth_getBlockReceipts", [hex(height)]),
            ]
        answers = await self._ask(calls)
        if len(answers) == 1 and answers[0] is not None:
            answers.append(await self._receipts(answers[0]))
        if None in answers:
            raise NodeAway(f"{self._client.url} has no blocks {first} to {first + count - 1} any more")
        return [Fetched(*each) for each in zip(answers[::2], answers[1::2], strict=False)]

    async def _receipts(self, block: dict[str, Any]) -> list[Any]:
        """One by one, of a block that has too many for one reply."""
        calls = [("eth_getTransactionReceipt", [each["hash"]]) for each in block["transactions"]]
        receipts: list[Any] = []
        while len(receipts) < len(calls):
            receipts += await self._ask(calls[len(receipts) :][:CALLS_PER_REQUEST_MAX])
        return receipts

    async def _ask(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The answers to these calls, or to the first of them, at least one."""
        while True:
            answers: list[Any]
            try:
                answers = await self._client.batch(calls)
            except RpcError as refusal:
                answers = [refusal]
            except LOST as fault:
                cause = " ".join(str(fault).split())[:200] or type(fault).__name__
                raise NodeAway(f"{self._client.url} does not answer as a node: {cause}") from fault
            given = [*takewhile(lambda each: not isinstance(each, RpcError), answers)]
            if given:
                return given
            await self._pause(answers[0])

    async def _pause(self, refusal: RpcError) -> None:
        """As long as the node asks for. Raises: RpcError for a refusal that time does not help."""
        if refusal.code != TRY_LATER:
            raise refusal
        if not isinstance(refusal.data, dict):
            raise NodeAway(f"{self._client.url}: {refusal}")
        await asyncio.sleep(min(refusal.data["retry_after_ms"] / 1_000, PAUSE_SECONDS_MAX))
