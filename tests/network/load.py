"""Transfers at a steady rate to every node of a network, whatever becomes of the nodes meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Final

from apps.client import Client, Wallet
from apps.demo.street import TREASURER_KEY
from bench.workload import bench_key
from ctt_state.crypto import address_of
from tests.network.chronicle import LOST

BUDGET_WEI: Final = 10**18
PAUSE_SECONDS: Final = 0.5  # after a refusal or a connection that broke


class Load:
    """A sender of its own for each node: its nonces do not depend on what another node lost."""

    def __init__(self, clients: Sequence[Client], *, per_second: float) -> None:
        self.accepted = 0
        self.refused = 0
        self._clients = clients
        self._chain_id = 0
        self._keys = [bench_key("network", "sender", number) for number in range(len(clients))]
        self.senders = [address_of(key) for key in self._keys]
        self._interval = len(clients) / per_second

    async def prepare(self) -> None:
        """Gives the senders their money. Raises: one of LOST."""
        client = self._clients[0]
        self._chain_id = int(await client.call("eth_chainId"), 16)
        treasurer = Wallet(client, TREASURER_KEY, self._chain_id)
        for key in self._keys:
            await client.receipt(
                await treasurer.send_raw(Wallet(client, key, self._chain_id).address, BUDGET_WEI)
            )

    async def run(self) -> None:
        """Until it is cancelled; after `prepare`."""
        async with asyncio.TaskGroup() as tasks:
            for client, key in zip(self._clients, self._keys, strict=True):
                tasks.create_task(self._send(client, key))

    async def _send(self, client: Client, key: bytes) -> None:
        wallet = Wallet(client, key, self._chain_id)
        while True:
            try:
                await wallet.send_raw(wallet.address, 0)
            except LOST:
                self.refused += 1
                wallet = Wallet(client, key, self._chain_id)  # which asks for its nonce again
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.accepted += 1
                await asyncio.sleep(self._interval)
