"""What the nodes of a network have told of final blocks: a node may be behind, but none may take anything back."""

from typing import Any, Final

import aiohttp

from apps.client import Client, RpcError

BATCH: Final = 100  # blocks a request
LOST: Final = (aiohttp.ClientError, TimeoutError, RpcError)  # what a node that is gone looks like


class Chronicle:
    """Hashes of final blocks by height, from whoever told of them first, and what contradicts them."""

    def __init__(self) -> None:
        self.told: dict[int, str] = {}
        self.contradictions: list[str] = []
        self._first: dict[int, str] = {}  # who told
        self._newest: dict[str, int] = {}

    def record(self, who: str, height: int, block_hash: str) -> None:
        known = self.told.setdefault(height, block_hash)
        first = self._first.setdefault(height, who)
        if known != block_hash:
            self.contradictions.append(f"block {height} is {known} to {first}, {block_hash} to {who}")

    def record_height(self, who: str, height: int) -> None:
        """Reads of one node never go back, not even across a restart."""
        newest = self._newest.get(who, 0)
        if height < newest:
            self.contradictions.append(f"{who} is at block {height} after block {newest}")
        self._newest[who] = height

    def newest(self, who: str) -> int:
        return self._newest.get(who, 0)

    def forgive(self, who: str) -> None:
        """Its data directory was taken away or is an older one: it may be behind."""
        self._newest.pop(who, None)


async def read_height(client: Client) -> int:
    """Raises: one of LOST."""
    return int(await client.call("eth_blockNumber"), 16)


async def read_hashes(client: Client, first: int, last: int) -> dict[int, str]:
    """Of the blocks from the first to the last. Raises: one of LOST."""
    hashes = {}
    for start in range(first, last + 1, BATCH):
        heights = range(start, min(start + BATCH, last + 1))
        calls: list[tuple[str, list[Any]]] = [("eth_getBlockByNumber", [hex(h), False]) for h in heights]
        for height, block in zip(heights, await client.batch(calls), strict=True):
            if isinstance(block, RpcError):
                raise block
            hashes[height] = str(block["hash"])
    return hashes
