"""A node that had better not take a client's transaction says why, and that it will pass; what peers pass on it takes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ctt_state.errors import NotTakenNow
from ctt_state.units import Height, Ms
from node.consensus.events import Now
from node.ledger import Ledger
from node.mempool import MempoolLimits
from node.node import Alone, Node, NoQuorum, Stopping, Syncing
from tests.ledger_world import ALICE_KEY, BOB_KEY, add_block, make_ledger, sign
from tests.rpc_world import RpcWorld, served

pytestmark = pytest.mark.asyncio


class Far(Alone):
    """A network that is ahead."""

    height = 0

    def target(self) -> Height:
        return Height(self.height)


class Idle:
    """A follower that hears of nothing, and its clock."""

    def __init__(self, ledger: Ledger) -> None:
        self.now_ms = 1_000_000
        self.outside = Far()
        self.node = Node(
            ledger,
            journal=None,
            signer=None,
            limits=MempoolLimits(),
            outside=self.outside,
            clocks=lambda: Now(self.now_ms, Ms(self.now_ms)),
        )

    async def send(self, key: bytes, **how: Any) -> object:
        (answer,) = await self.node.submit_many([sign(key, 0).transaction.raw], **how)
        return answer


@asynccontextmanager
async def idle(directory: Path) -> AsyncIterator[Idle]:
    ledger = make_ledger(directory / "node")
    world = Idle(ledger)
    try:
        yield world
    finally:
        world.node.stop()
        await world.node.run()
        ledger.close()


async def test_a_node_that_is_far_behind_takes_no_transactions_of_clients(tmp_path: Path) -> None:
    async with idle(tmp_path) as world:
        world.outside.height = 30
        assert isinstance(await world.send(ALICE_KEY), bytes)

        world.outside.height = 1_031
        refusal = await world.send(BOB_KEY)
        assert isinstance(refusal, Syncing)
        assert str(refusal) == "the node is syncing: at block 0 of 1,031; send it to another or later"
        assert isinstance(await world.send(BOB_KEY, relay=False), bytes)


async def test_a_node_without_final_blocks_takes_no_transactions_of_clients(tmp_path: Path) -> None:
    async with idle(tmp_path) as world:
        world.now_ms += 10_000
        assert isinstance(await world.send(ALICE_KEY), bytes)

        world.now_ms += 2_345
        refusal = await world.send(BOB_KEY)
        assert isinstance(refusal, NoQuorum)
        assert str(refusal) == "no quorum: no block has become final for 12 s; send it later"
        assert isinstance(await world.send(BOB_KEY, relay=False), bytes)


async def test_the_next_final_block_ends_the_trouble(tmp_path: Path) -> None:
    async with idle(tmp_path) as world:
        world.now_ms += 60_000
        assert isinstance(await world.send(ALICE_KEY), NoQuorum)

        world.node._final.tell(add_block(world.node._ledger).final)

        assert isinstance(await world.send(ALICE_KEY), bytes)


async def test_a_node_that_stops_takes_no_transactions(tmp_path: Path) -> None:
    async with idle(tmp_path) as world:
        world.node.stop()
        refusal = await world.send(ALICE_KEY)
        assert isinstance(refusal, Stopping)
        assert str(refusal) == "the node is stopping; send it to another or later"


class Troubled(RpcWorld):
    """It takes nothing."""

    def take(self, raw: bytes) -> Any:
        if self.is_made:
            raise NotTakenNow("the node is syncing: at block 1 of 9; send it to another or later")
        return super().take(raw)

    is_made = False


async def test_clients_are_told_to_try_again_and_may_read() -> None:
    world = Troubled()
    world.is_made = True
    async with served(world) as node:
        raw = "0x" + world.sign(ALICE_KEY, b"\1" * 20).hex()
        for method in ("eth_sendRawTransaction", "eth_sendRawTransactionSync"):
            error = await node.error(method, raw)
            assert error == {
                "code": -32005,
                "message": "the node is syncing: at block 1 of 9; send it to another or later",
            }
        batch = [
            {"jsonrpc": "2.0", "id": n, "method": "eth_sendRawTransaction", "params": [raw]} for n in range(2)
        ]
        assert [reply["error"]["code"] for reply in await node.post(batch)] == [-32005] * 2
        assert await node.call("eth_blockNumber") == "0x1"
