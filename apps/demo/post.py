"""The street's transactions on their way: counted, and told when one is refused."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

from apps.client import Client, RpcError, Wallet
from apps.demo.home import News
from ctt_state.abi import Module
from ctt_state.units import Address

log = logging.getLogger(__name__)


class Post:
    """Sends for all accounts of the street."""

    def __init__(self, client: Client, news: News) -> None:
        self._client = client
        self._news = news

    async def send(
        self, wallet: Wallet, module: Module, signature: str, *arguments: Any, value: int = 0
    ) -> bool:
        """Whether the node took it; a refusal is counted and told."""
        return await self._count(wallet.send(module, signature, *arguments, value=value))

    async def pay(self, wallet: Wallet, to: Address, wei: int) -> bool:
        """The same for money."""
        return await self._count(wallet.send_raw(to, wei))

    async def settle(self, hashes: Iterable[str]) -> None:
        """Waits until all of these are final, and says which failed. Raises: RpcError, TimeoutError."""
        for receipt in await asyncio.gather(*(self._client.receipt(each) for each in hashes)):
            self._news.sent += 1
            if receipt["status"] != "0x1":
                self._news.failed += 1
                log.warning("transaction %s failed", receipt["transactionHash"])

    async def _count(self, sending: Awaitable[str]) -> bool:
        try:
            await sending
        except RpcError as refusal:
            self._news.failed += 1
            self._news.tell(f"refused: {refusal}")
            return False
        self._news.sent += 1
        return True
