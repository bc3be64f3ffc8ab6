"""Filters: what is new since the last question, without gaps and within limits."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rpc.blocks import Blocks
from rpc.errors import Refused
from rpc.filters import FILTER_IDLE_S_MAX, FILTERS_PER_CLIENT_MAX, Filters
from tests.rpc_world import ALICE_KEY, BOB, BOB_KEY, RpcWorld, Served, served

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        yield node


async def test_a_block_filter_tells_each_block_once(node: Served) -> None:
    identity = await node.call("eth_newBlockFilter")
    assert await node.call("eth_getFilterChanges", identity) == []
    made = [node.world.make_block() for _ in range(3)]
    assert await node.call("eth_getFilterChanges", identity) == ["0x" + block.hash.hex() for block in made]
    assert await node.call("eth_getFilterChanges", identity) == []


async def test_a_log_filter_tells_new_logs_and_all_of_its_range(node: Served) -> None:
    identity = await node.call("eth_newFilter", {"fromBlock": "0x0", "topics": []})
    since = await node.call("eth_newFilter", {})
    assert len(await node.call("eth_getFilterChanges", identity)) == 2
    node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 2)
    node.world.make_block()
    new = await node.call("eth_getFilterChanges", identity)
    assert [log["blockNumber"] for log in new] == ["0x2", "0x2"]
    assert await node.call("eth_getFilterChanges", since) == new
    assert await node.call("eth_getFilterChanges", identity) == []
    assert len(await node.call("eth_getFilterLogs", identity)) == 4


async def test_a_log_filter_ends_with_its_last_block(node: Served) -> None:
    identity = await node.call("eth_newFilter", {"fromBlock": "0x2", "toBlock": "0x2"})
    for _ in range(3):
        node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 1)
        node.world.make_block()
    assert [log["blockNumber"] for log in await node.call("eth_getFilterChanges", identity)] == ["0x2"]
    assert await node.call("eth_getFilterChanges", identity) == []


async def test_a_filter_far_behind_catches_up_in_several_answers(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpc.filters.RESULT_LOGS_MAX", 2)
    monkeypatch.setattr("rpc.filters.RANGE_BLOCKS_MAX", 4)
    logs, blocks = await node.call("eth_newFilter", {}), await node.call("eth_newBlockFilter")
    for _ in range(5):
        node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 1)
        node.world.make_block()
    answers = [len(await node.call("eth_getFilterChanges", logs)) for _ in range(4)]
    assert answers == [2, 2, 1, 0]
    assert [len(await node.call("eth_getFilterChanges", blocks)) for _ in range(3)] == [4, 1, 0]


async def test_a_pending_filter_tells_what_enters_the_pool(node: Served) -> None:
    identity = await node.call("eth_newPendingTransactionFilter")
    sent = [node.world.take(node.world.sign(key, BOB)) for key in (ALICE_KEY, BOB_KEY)]
    assert await node.call("eth_getFilterChanges", identity) == ["0x" + h.hex() for h in sent]
    assert await node.call("eth_getFilterChanges", identity) == []
    assert (await node.error("eth_getFilterLogs", identity))["message"] == "filter not found"


async def test_a_full_pending_filter_ends(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client learns of the gap, as its filter is gone."""
    monkeypatch.setattr("rpc.filters.PENDING_HASHES_MAX", 3)
    identity = await node.call("eth_newPendingTransactionFilter")
    for _ in range(4):
        node.world.take(node.world.sign(ALICE_KEY, BOB))
    error = await node.error("eth_getFilterChanges", identity)
    assert error == {"code": -32000, "message": "filter not found"}


async def test_an_uninstalled_filter_is_gone(node: Served) -> None:
    identity = await node.call("eth_newBlockFilter")
    assert await node.call("eth_uninstallFilter", identity) is True
    assert await node.call("eth_uninstallFilter", identity) is False
    for method in ("eth_getFilterChanges", "eth_getFilterLogs"):
        assert await node.error(method, identity) == {"code": -32000, "message": "filter not found"}


async def test_filters_of_one_client_are_limited(node: Served) -> None:
    for _ in range(FILTERS_PER_CLIENT_MAX):
        await node.call("eth_newBlockFilter")
    error = await node.error("eth_newFilter", {})
    assert error["code"] == -32005 and "limit 32" in error["message"]


async def test_a_filter_not_used_for_five_minutes_is_gone() -> None:
    now = 0.0
    filters = Filters(Blocks(RpcWorld()), lambda: now)
    used, forgotten = filters.add_block_filter("a"), filters.add_pending_filter("a")
    now = FILTER_IDLE_S_MAX - 1
    await filters.changes(used)
    now = FILTER_IDLE_S_MAX + 1
    assert await filters.changes(used) == []
    with pytest.raises(Refused, match="filter not found"):
        await filters.changes(forgotten)
    assert not filters._pending


@pytest.mark.parametrize("query", [{"fromBlock": "0x9", "toBlock": "0x5"}, {"blockHash": "0x" + "11" * 32}])
async def test_a_filter_needs_a_range(node: Served, query: dict[str, str]) -> None:
    assert (await node.error("eth_newFilter", query))["code"] == -32602
