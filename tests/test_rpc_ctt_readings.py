"""Readings by JSON-RPC: every reading once and in order, however a client pages, with bounded work a page."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ctt_state.crypto import address_of
from ctt_state.units import hex_of
from rpc import readings as readings_module
from tests.rpc_world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    OPERATOR_KEY,
    PERIOD_MS,
    START_MS,
    Served,
    private_key,
    served,
)

pytestmark = pytest.mark.asyncio

METER_KEY = private_key("meter")
METER = address_of(METER_KEY)
FIRST, HEAD = 5, 30  # the first block with readings, and the last


def grow(node: Served) -> None:
    """One concentrator for ALICE, who has a token, and BOB, who has none. From block 5 on each block with an even
    height has a production of ALICE's, each third one a consumption, and each fifth one BOB's production."""
    send, world = node.world.send_call, node.world
    send(OPERATOR_KEY, "certifyMeter(address,uint8,uint64,bool)", METER, 1, 0, True)
    world.make_block()
    for key in (ALICE_KEY, BOB_KEY):
        send(key, "register(address)", METER)
    send(ALICE_KEY, "buyEmptyTokens(uint256)", 1)
    world.make_block()
    for owner in (ALICE, BOB):
        send(METER_KEY, "confirm(address)", owner)
    world.make_block()
    for height in range(FIRST, HEAD + 1):
        if height % 2 == 0:
            send(METER_KEY, "refill(uint256,address)", 1_000, ALICE)
        if height % 3 == 0:
            send(METER_KEY, "consume(uint256,address)", 300 * height, ALICE)
        if height % 5 == 0:
            send(METER_KEY, "refill(uint256,address)", 77, BOB)
        assert world.make_block().block.header.height == height


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        grow(node)
        yield node


def time_of(height: int) -> int:
    return START_MS + height * PERIOD_MS


EXPECTED = [
    (kind, height)
    for height in range(FIRST, HEAD + 1)
    for kind, step in (("production", 2), ("consumption", 3))
    if height % step == 0
]


async def ask(node: Served, *ends: Any) -> Any:
    return await node.call("ctt_readings", hex_of(ALICE), *ends)


async def pages(node: Served, first: Any, last: Any) -> list[tuple[str, int]]:
    """What a client gathers."""
    found = []
    while first is not None:
        page = await ask(node, first, last)
        found += [(each["kind"], each["height"]) for each in page["readings"]]
        first = None if page["next"] is None else hex(page["next"])
    return found


async def test_every_reading_is_told_in_order(node: Served) -> None:
    answer = await ask(node)
    assert [(each["kind"], each["height"]) for each in answer["readings"]] == EXPECTED
    assert (answer["to"], answer["next"]) == (HEAD, None)


async def test_a_reading_says_what_became_of_the_energy(node: Served) -> None:
    answer = await ask(node, "0x6", "0x6")
    block = node.world.block(6)
    assert block is not None
    assert answer["readings"] == [
        {
            "kind": "production",
            "height": 6,
            "timeMs": time_of(6),
            "transactionHash": hex_of(block.transaction_hashes[0]),
            "meter": hex_of(METER),
            "measuredWh": "1000",
            "measured": "1.000 kWh",
            "storedWh": "1000",
            "stored": "1.000 kWh",
            "fedToGridWh": "0",
            "fedToGrid": "0.000 kWh",
        },
        {
            "kind": "consumption",
            "height": 6,
            "timeMs": time_of(6),
            "transactionHash": hex_of(block.transaction_hashes[1]),
            "meter": hex_of(METER),
            "measuredWh": "1800",
            "measured": "1.800 kWh",
            "coveredWh": "1000",
            "covered": "1.000 kWh",
            "billedWh": "800",
            "billed": "0.800 kWh",
        },
    ]
    assert (await node.call("ctt_readings", hex_of(BOB)))["readings"][0]["fedToGrid"] == "0.077 kWh"


@pytest.mark.parametrize("blocks", [1, 2, 7, 26, 1_000])
@pytest.mark.parametrize("readings", [1, 2, 500])
async def test_pages_join_to_the_whole(
    node: Served, monkeypatch: pytest.MonkeyPatch, blocks: int, readings: int
) -> None:
    monkeypatch.setattr(readings_module, "RANGE_BLOCKS_MAX", blocks)
    monkeypatch.setattr(readings_module, "READINGS_PAGE_MIN", readings)
    assert await pages(node, "earliest", "latest") == EXPECTED


async def test_a_page_looks_through_so_many_blocks(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings_module, "RANGE_BLOCKS_MAX", 10)
    page = await ask(node, "0x5", "0x10")
    assert (page["to"], page["next"]) == (14, 15)
    page = await ask(node, "0x5", "0xe")
    assert (page["to"], page["next"]) == (14, None)


async def test_a_page_is_full_after_the_block_that_fills_it(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings_module, "READINGS_PAGE_MIN", 1)
    page = await ask(node, "0x6")
    assert ([each["kind"] for each in page["readings"]], page["to"]) == (["production", "consumption"], 6)


@pytest.mark.parametrize(
    ("first", "last", "heights"),
    [
        ({"timeMs": time_of(8)}, {"timeMs": time_of(10)}, [8, 9, 10]),
        ({"timeMs": time_of(8) + 1}, {"timeMs": time_of(10) - 1}, [9]),
        ({"timeMs": time_of(8) - 1}, {"timeMs": time_of(8)}, [8]),
        ({"timeMs": 0}, "0x6", [6, 6]),
        ("0x1e", {"timeMs": 2**64 - 1}, [30, 30]),
        ({"timeMs": hex(time_of(30))}, "latest", [30, 30]),
        ("0xa", "0x9", []),
        ("0x1f", "latest", []),  # for a client that waits for the next one
        ({"timeMs": time_of(31)}, "latest", []),
        ("0x1e", "0x77", [30, 30]),
        ("latest", "latest", [30, 30]),
    ],
)
async def test_a_range_has_heights_or_times_as_its_ends(
    node: Served, first: Any, last: Any, heights: list[int]
) -> None:
    answer = await ask(node, first, last)
    assert [each["height"] for each in answer["readings"]] == heights
    assert answer["next"] is None


async def test_who_polls_goes_on_behind_what_was_looked_through(node: Served) -> None:
    seen = (await ask(node))["to"]
    assert (await ask(node, hex(seen + 1)))["to"] == seen
    node.world.send_call(METER_KEY, "refill(uint256,address)", 5, ALICE)
    node.world.make_block()
    (reading,) = (await ask(node, hex(seen + 1)))["readings"]
    assert reading["measuredWh"] == "5"


async def test_a_range_begins_at_the_next_block_at_the_latest(node: Served) -> None:
    for first in ("0x20", hex(2**64 - 1)):
        error = await node.error("ctt_readings", hex_of(ALICE), first)
        assert (error["code"], error["message"]) == (
            -32000,
            f"header not found: block {int(first, 16)} is above the head {HEAD}",
        )


async def test_blocks_that_are_not_here_are_refused_in_words(node: Served) -> None:
    node.world.base = type(node.world.base)(7)
    error = await node.error("ctt_readings", hex_of(ALICE), "0x7")
    assert (error["code"], error["message"]) == (
        -32000,
        "block 7 is pruned: this node has whole blocks from 8 on",
    )
    for first in ("earliest", {"timeMs": 0}):
        assert (await ask(node, first, "0x8"))["readings"][0]["height"] == 8


@pytest.mark.parametrize(
    "moment",
    [
        {},
        {"timeMs": -1},
        {"timeMs": 1.5},
        {"timeMs": "10"},
        {"timeMs": 2**64},
        {"time": 1},
        {"timeMs": 1, "x": 1},
        7,
    ],
)
async def test_what_is_no_end_of_a_range_is_refused(node: Served, moment: Any) -> None:
    for ends, where in (((moment,), "params[1]"), (("0x1", moment), "params[2]")):
        error = await node.error("ctt_readings", hex_of(ALICE), *ends)
        assert error["code"] == -32602 and error["message"].startswith(where)
