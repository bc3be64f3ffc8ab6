"""Nodes that differ in all that machines differ in compute the same; one that does not stops and says so (P5)."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import plyvel
import pytest

from apps.client import Client
from ctt_state.records import Account
from ctt_state.units import Address, Wei
from node.exits import Exit
from tests.network import interpreters
from tests.network.harness import Harness
from tests.network.load import Load
from tests.network.wiring import ProxyWiring

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

VALIDATORS: Final = 4
BLOCKS: Final = 8
PATIENCE_SECONDS: Final = 30.0
STATE_ROW: Final = b"s"  # the store's prefix


@asynccontextmanager
async def under_load(directory: Path) -> AsyncIterator[tuple[Harness, Load]]:
    async with Harness(directory, ProxyWiring(VALIDATORS), validators=VALIDATORS) as network:
        await network.start()
        load = Load([node.client for node in network.nodes], per_second=40)
        await load.prepare()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(load.run())
            await network.wait_for_blocks(BLOCKS, seconds_max=PATIENCE_SECONDS)
            yield network, load
            sending.cancel()


async def test_nodes_on_two_pythons_agree_on_every_root(tmp_path: Path) -> None:
    other = interpreters.require()
    async with under_load(tmp_path) as (network, _):
        programs = [program(f"/proc/{network.pid(place)}/exe") for place in range(VALIDATORS)]
        roots = [await read_roots(node.client) for node in network.nodes]

    assert programs == [program(sys.executable), program(other)] * 2
    compared = min(map(len, roots))
    assert compared > BLOCKS
    assert len({tuple(told[:compared]) for told in roots}) == 1
    assert len({transactions for _, transactions, _ in roots[0]}) > 3


def program(path: str) -> Path:
    """The interpreter that an environment's is a link to."""
    return Path(path).resolve()


async def read_roots(client: Client) -> list[tuple[str, str, str]]:
    """Of state, transactions and receipts, of each final block."""
    newest = int(await client.call("eth_blockNumber"), 16)
    calls = [("eth_getBlockByNumber", [hex(height), False]) for height in range(newest + 1)]
    return [
        (block["stateRoot"], block["transactionsRoot"], block["receiptsRoot"])
        for block in await client.batch(calls)
    ]


async def test_a_node_that_computes_another_root_stops_and_the_others_go_on(tmp_path: Path) -> None:
    """Of one sender it believes that it has a wei more: a bit that flipped in memory, a library that rounds."""
    async with under_load(tmp_path) as (network, load):
        await network.terminate(3)
        give_a_wei(network.nodes[3].directory, load.senders[0])
        await network.launch(3)

        assert (await network.wait_ended(3)).code == Exit.BROKEN
        last = network.log(3).splitlines()[-1]
        (dump,) = network.nodes[3].directory.glob("halted-*.json")
        assert "invalid here" in last
        assert "state_root is" in last
        assert str(dump) in last
        await network.wait_for_blocks(2, 0, 1, 2, seconds_max=PATIENCE_SECONDS)


def give_a_wei(directory: Path, owner: Address) -> None:
    database = plyvel.DB(str(directory / "db"))
    key = STATE_ROW + Account.key(owner)
    account = Account.decode(database.get(key))
    database.put(key, account._replace(balance=Wei(account.balance + 1)).encode())
    database.close()
