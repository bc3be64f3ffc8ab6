"""What JSON-RPC answers on a node that began with a snapshot: what is not there is said not to be there, in words."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ctt_state.units import Hash, Height, hex_of
from tests.rpc_world import ALICE, ALICE_KEY, RpcWorld, Served, served

pytestmark = pytest.mark.asyncio

BASE = 6
OLD, NEW = 4, 8  # blocks with a transaction
HEAD = 10
PRUNED = "block {} is pruned: this node has whole blocks from 7 on"


def make_world() -> tuple[RpcWorld, list[Hash]]:
    """Whole blocks from 7 to 10, and the transactions of blocks 4 and 8."""
    world, hashes = RpcWorld(), []
    while world.head.block.header.height < HEAD:
        if world.head.block.header.height + 1 in (OLD, NEW):
            hashes.append(world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 1))
        world.make_block()
    world.base = Height(BASE)
    return world, hashes


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served(make_world()[0]) as node:
        yield node


@pytest.mark.parametrize("height", [0, OLD, BASE])
async def test_a_block_below_the_snapshot_is_refused_in_words(node: Served, height: int) -> None:
    number = hex(height)
    questions = (
        ("eth_getBlockByNumber", number, False),
        ("eth_getBlockByNumber", number, True),
        ("eth_getBlockTransactionCountByNumber", number),
        ("eth_getBlockReceipts", number),
        ("eth_getTransactionByBlockNumberAndIndex", number, "0x0"),
        ("eth_getLogs", {"fromBlock": number, "toBlock": hex(HEAD)}),
    )
    for method, *parameters in questions:
        error = await node.error(method, *parameters)
        assert (error["code"], error["message"]) == (-32000, PRUNED.format(height)), method


async def test_hashes_from_below_the_snapshot_are_unknown_and_its_own_is_pruned(node: Served) -> None:
    world = node.world
    old, base = hex_of(world._blocks[OLD].hash), hex_of(world._blocks[BASE].hash)
    assert await node.call("eth_getBlockByHash", old, False) is None
    assert (await node.error("eth_getLogs", {"blockHash": old}))["message"] == "unknown block"
    for method, *parameters in (
        ("eth_getBlockByHash", base, False),
        ("eth_getBlockTransactionCountByHash", base),
        ("eth_getLogs", {"blockHash": base}),
    ):
        assert (await node.error(method, *parameters))["message"] == PRUNED.format(BASE)


async def test_transactions_from_below_the_snapshot_are_unknown() -> None:
    world, (old, new) = make_world()
    async with served(world) as node:
        for method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
            assert await node.call(method, hex_of(old)) is None
            assert (await node.call(method, hex_of(new)))["blockNumber"] == hex(NEW)


async def test_the_earliest_block_is_the_first_whole_one(node: Served) -> None:
    assert (await node.call("eth_getBlockByNumber", "earliest", False))["number"] == hex(BASE + 1)
    logs = await node.call("eth_getLogs", {"fromBlock": "earliest", "toBlock": "latest"})
    assert {log["blockNumber"] for log in logs} == {hex(NEW)}
    capabilities = await node.call("eth_capabilities")
    for kept in ("blocks", "tx", "receipts", "logs"):
        assert capabilities[kept]["oldestBlock"] == hex(BASE + 1)
    assert capabilities["state"]["oldestBlock"] == hex(BASE)


async def test_fees_are_told_of_the_blocks_that_are_there(node: Served) -> None:
    history = await node.call("eth_feeHistory", "0x64", "latest", [])
    assert (history["oldestBlock"], len(history["gasUsedRatio"])) == (hex(BASE + 1), HEAD - BASE)
    below = await node.call("eth_feeHistory", "0x64", hex(OLD), [])
    assert below["gasUsedRatio"] == below["baseFeePerGas"] == []


async def test_state_ends_where_it_begins(node: Served) -> None:
    assert await node.call("eth_getBalance", hex_of(ALICE), hex(BASE)) != "0x0"
    error = await node.error("eth_getBalance", hex_of(ALICE), hex(BASE - 1))
    assert error["message"].startswith(f"state at block {BASE - 1} is pruned")
    assert (await node.error("eth_call", {"to": hex_of(ALICE)}, hex(BASE)))["message"] == PRUNED.format(BASE)
    assert await node.call("eth_call", {"to": hex_of(ALICE)}, "latest") == "0x"


async def test_filters_begin_at_the_first_whole_block(node: Served) -> None:
    earliest = await node.call("eth_newFilter", {"fromBlock": "earliest"})
    below = await node.call("eth_newFilter", {"fromBlock": hex(OLD)})
    blocks = await node.call("eth_newBlockFilter")
    made = node.world.make_block()
    assert {log["blockNumber"] for log in await node.call("eth_getFilterChanges", earliest)} == {hex(NEW)}
    assert {log["blockNumber"] for log in await node.call("eth_getFilterLogs", earliest)} == {hex(NEW)}
    for method in ("eth_getFilterChanges", "eth_getFilterLogs"):
        assert (await node.error(method, below))["message"] == PRUNED.format(OLD)
    assert await node.call("eth_getFilterChanges", blocks) == [hex_of(made.hash)]


async def test_a_node_with_nothing_but_the_snapshot_answers(node: Served) -> None:
    """Its head is the snapshot's block, of which only the header is there."""
    node.world.base = Height(HEAD)
    assert await node.call("eth_blockNumber") == hex(HEAD)
    assert await node.call("eth_getBalance", hex_of(ALICE), "latest") != "0x0"
    assert (await node.call("eth_capabilities"))["head"]["number"] == hex(HEAD)
    node.world.syncing = True
    assert (await node.call("eth_syncing"))["currentBlock"] == hex(HEAD)
    for tag in ("latest", "finalized"):
        assert (await node.error("eth_getBlockByNumber", tag, False))["message"].startswith(
            "block 10 is pruned"
        )
    assert await node.call("eth_getBlockByNumber", "earliest", False) is None
    node.world.make_block()
    assert (await node.call("eth_getBlockByNumber", "latest", False))["number"] == hex(HEAD + 1)
