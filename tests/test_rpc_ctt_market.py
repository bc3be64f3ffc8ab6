"""The market by JSON-RPC without an ABI: tariff and auction, book, orders, mandates, results, and a look ahead."""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from ctt_state.crypto import address_of
from ctt_state.modules.call import MarketRules
from ctt_state.modules.market import MARKET
from ctt_state.records import MarketTariff
from ctt_state.units import UINT64_MAX, Address, Wei, hex_of
from rpc import ctt_market
from tests.rpc_world import (
    ADMIN,
    ADMIN_KEY,
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    OPERATOR,
    OPERATOR_KEY,
    POOR,
    RpcWorld,
    Served,
    private_key,
    served,
)

pytestmark = pytest.mark.asyncio

METER_KEY: Final = private_key("meter")
AUCTION_BLOCKS: Final = 4
CENT: Final = 10**13  # of a currency unit a kWh, in wei per Wh
TARIFF: Final = MarketTariff(Wei(8 * CENT), Wei(30 * CENT), Wei(4 * CENT), OPERATOR)
BID: Final = "bid(uint256,uint256,uint64)"
ASK: Final = "ask(uint256,uint256,uint64)"
WISHES: Final = "bid(uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
GRANT: Final = "grantMandate(address,uint256,uint256,uint256,uint256,uint64)"


def order(node: Served, key: bytes, signature: str, *arguments: Any) -> None:
    node.world.send_call(key, signature, *arguments, module=MARKET)


def settle_in(node: Served) -> None:
    """Six blocks: ALICE has solar energy of 9 kWh in one of two tokens, BOB and ADMIN have an empty token each."""
    world, send = node.world, node.world.send_call
    send(OPERATOR_KEY, "certifyMeter(address,uint8,uint64,bool)", address_of(METER_KEY), 1, 0, False)
    for key, tokens in ((ALICE_KEY, 2), (BOB_KEY, 1), (ADMIN_KEY, 1)):
        send(key, "buyEmptyTokens(uint256)", tokens)
    send(ALICE_KEY, "register(address)", address_of(METER_KEY))
    world.make_block()
    send(METER_KEY, "confirm(address)", ALICE)
    world.make_block()
    send(METER_KEY, "refill(uint256,address)", 9_000, ALICE)
    world.make_blocks(3)


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    world = RpcWorld(market=MarketRules(AUCTION_BLOCKS, 100, 200), tariff=TARIFF)
    async with served(world) as node:
        settle_in(node)
        yield node


def call_of(sender: Address, signature: str, *arguments: Any) -> dict[str, str]:
    data = MARKET.named(signature).encode_arguments(*arguments)
    return {"from": hex_of(sender), "to": hex_of(MARKET.address), "data": hex_of(data)}


def trade(buyer: Address, seller: Address, energy_wh: int, cents: int) -> dict[str, str]:
    return {
        "buyer": hex_of(buyer),
        "seller": hex_of(seller),
        "energyWh": str(energy_wh),
        "energy": f"{energy_wh / 1_000:.3f} kWh",
        "priceWeiPerWh": str(cents * CENT),
        "price": f"{cents / 100} per kWh",
    }


async def test_the_market_is_readable(node: Served) -> None:
    order(node, BOB_KEY, BID, 1_000, 20 * CENT, 9)
    node.world.make_block()
    assert await node.call("ctt_market") == {
        "height": 7,
        "floorWeiPerWh": "80000000000000",
        "floor": "0.08 per kWh",
        "ceilingWeiPerWh": "300000000000000",
        "ceiling": "0.3 per kWh",
        "gridFeeWeiPerWh": "40000000000000",
        "gridFee": "0.04 per kWh",
        "gridOperator": hex_of(OPERATOR),
        "auction": 2,
        "lastBlock": 8,
        "blocksLeft": 1,
        "auctionBlocks": AUCTION_BLOCKS,
        "orders": 1,
        "ordersMax": 100,
    }
    before = await node.call("ctt_market", "0x4")
    assert (before["auction"], before["lastBlock"], before["blocksLeft"], before["orders"]) == (2, 8, 4, 0)
    assert (await node.call("ctt_market", "0x3"))["auction"] == 1


async def test_an_order_is_readable_with_its_wishes(node: Served) -> None:
    order(node, BOB_KEY, WISHES, 8_000, 20 * CENT, UINT64_MAX, [(1, 25 * CENT)], [(ALICE, 28 * CENT)])
    node.world.make_block()
    found = await node.call("ctt_order", 1)
    assert found == {
        "orderId": 1,
        "side": "bid",
        "owner": hex_of(BOB),
        "platform": None,
        "energyWh": "8000",
        "energy": "8.000 kWh",
        "limitWeiPerWh": "200000000000000",
        "limit": "0.2 per kWh",
        "sources": [{"source": "solar", "limitWeiPerWh": "250000000000000", "limit": "0.25 per kWh"}],
        "partners": [{"partner": hex_of(ALICE), "limitWeiPerWh": "280000000000000", "limit": "0.28 per kWh"}],
        "expiryAuction": str(UINT64_MAX),
    }
    standing = {"height": 7, "owner": hex_of(BOB), "bid": found, "ask": None}
    assert await node.call("ctt_ordersOf", hex_of(BOB)) == standing


async def test_the_book_has_two_sides_best_first(node: Served) -> None:
    order(node, ADMIN_KEY, BID, 1_000, 20 * CENT, 9)
    order(node, BOB_KEY, BID, 2_000, 22 * CENT, 9)
    order(node, ALICE_KEY, ASK, 3_000, 25 * CENT, 9)
    node.world.make_block()
    book = await node.call("ctt_orderBook")
    assert [each["owner"] for each in book["bids"]] == [hex_of(BOB), hex_of(ADMIN)]
    assert [each["energyWh"] for each in book["asks"]] == ["3000"]
    assert (book["bidCount"], book["askCount"], book["next"]) == (2, 1, None)

    first, second = [await node.call("ctt_orderBook", offset, 1, hex(book["height"])) for offset in (0, 1)]
    assert (first["next"], second["next"]) == (1, None)
    assert first["bids"] + second["bids"] == book["bids"]
    assert first["asks"] + second["asks"] == book["asks"]
    beyond = await node.call("ctt_orderBook", 2)
    assert (beyond["bids"], beyond["asks"], beyond["next"]) == ([], [], None)


async def test_equal_orders_stand_in_the_order_of_time(node: Served) -> None:
    for key in (BOB_KEY, ADMIN_KEY, ALICE_KEY):
        order(node, key, BID, 1_000, 20 * CENT, 9)
        node.world.make_block()
    ids = [each["orderId"] for each in (await node.call("ctt_orderBook"))["bids"]]
    assert ids == sorted(ids) and len(ids) == 3


async def test_a_clearing_is_seen_before_and_after(node: Served) -> None:
    """The trade that was foretold is the one that came, at the middle of 10 and 20."""
    order(node, ALICE_KEY, ASK, 5_000, 10 * CENT, 9)
    order(node, BOB_KEY, BID, 2_000, 20 * CENT, 9)
    node.world.make_block()
    told = await node.call("ctt_clearing")
    assert told["trades"] == [trade(BOB, ALICE, 2_000, 15)]
    assert (told["auction"], told["price"], told["energy"]) == (2, "0.15 per kWh", "2.000 kWh")
    node.world.make_blocks(2)  # the second begins with the clearing

    found = await node.call("ctt_auctions")
    assert found == {
        "height": 9,
        "auctions": [
            {
                "auction": 2,
                "clearedIn": 9,
                "priceWeiPerWh": told["priceWeiPerWh"],
                "price": told["price"],
                "energyWh": told["energyWh"],
                "energy": told["energy"],
                "bids": 1,
                "asks": 1,
            }
        ],
        "next": None,
    }
    assert await node.call("ctt_order", 2) is None  # served whole
    assert (await node.call("ctt_order", 1))["energyWh"] == "3000"


async def test_a_clearing_is_seen_with_an_order_that_is_not_sent(node: Served) -> None:
    order(node, ALICE_KEY, ASK, 5_000, 10 * CENT, 9)
    node.world.make_block()
    assert (await node.call("ctt_clearing"))["tradeCount"] == 0
    bid = call_of(BOB, BID, 2_000, 20 * CENT, 9)
    told = await node.call("ctt_clearing", bid)
    assert told["trades"] == [trade(BOB, ALICE, 2_000, 15)]
    assert told["share"] is None
    buyer, seller, other = [
        await node.call("ctt_clearing", bid, hex_of(each)) for each in (BOB, ALICE, ADMIN)
    ]
    assert [each["tradeCount"] for each in (buyer, seller, other)] == [1, 1, 0]
    figures = ("boughtWh", "paid", "gridFee", "soldWh", "earned")
    assert [buyer["share"][name] for name in figures] == ["2000", "0.3", "0.08", "0", "0"]
    assert [seller["share"][name] for name in figures] == ["0", "0", "0", "2000", "0.3"]
    assert {other["share"][name] for name in figures} == {"0"}
    assert (await node.call("ctt_market"))["orders"] == 1  # nothing has changed


async def test_the_order_before_a_clearing_may_be_refused(node: Served) -> None:
    refused = await node.error("ctt_clearing", call_of(POOR, BID, 1_000, 20 * CENT, 9))
    assert refused["code"] == 3 and refused["message"].startswith("execution reverted: NoTokens(owner=0x")
    elsewhere = await node.error("ctt_clearing", {"from": hex_of(BOB), "to": hex_of(BOB), "data": "0x"})
    assert elsewhere["code"] == -32602
    assert elsewhere["message"].startswith("call.to: only the market, 0x")


async def test_a_mandate_is_readable_until_it_is_revoked(node: Served) -> None:
    order(node, BOB_KEY, GRANT, ADMIN, 10_000, 2 * 10**18, 25 * CENT, 12 * CENT, 100)
    node.world.make_block()
    assert await node.call("ctt_mandate", hex_of(BOB), hex_of(ADMIN)) == {
        "height": 7,
        "owner": hex_of(BOB),
        "platform": hex_of(ADMIN),
        "energyWh": "10000",
        "energy": "10.000 kWh",
        "spendWei": "2000000000000000000",
        "spend": "2",
        "buyLimitWeiPerWh": "250000000000000",
        "buyLimit": "0.25 per kWh",
        "sellLimitWeiPerWh": "120000000000000",
        "sellLimit": "0.12 per kWh",
        "expiryAuction": "100",
    }
    order(node, ADMIN_KEY, "bidFor(address,uint256,uint256,uint64)", BOB, 1_000, 20 * CENT, 9)
    node.world.make_block()
    assert (await node.call("ctt_ordersOf", hex_of(BOB)))["bid"]["platform"] == hex_of(ADMIN)
    order(node, BOB_KEY, "revokeMandate(address)", ADMIN)
    node.world.make_block()
    assert await node.call("ctt_mandate", hex_of(BOB), hex_of(ADMIN)) is None


async def test_results_come_in_pages_newest_first(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Auctions 2 and 5 had orders; those between left nothing, and a page looks only so far back."""
    for _ in range(2):
        order(node, BOB_KEY, BID, 1_000, 20 * CENT, 0 + node.world.head.block.header.height // 4 + 1)
        node.world.make_blocks(3 * AUCTION_BLOCKS)
    whole = await node.call("ctt_auctions")
    assert [each["auction"] for each in whole["auctions"]] == [5, 2]
    assert (whole["auctions"][0]["bids"], whole["auctions"][0]["price"], whole["next"]) == (
        1,
        "0 per kWh",
        None,
    )

    newest = await node.call("ctt_auctions", None, 1)
    assert ([each["auction"] for each in newest["auctions"]], newest["next"]) == ([5], 4)
    assert (await node.call("ctt_auctions", newest["next"]))["auctions"] == whole["auctions"][1:]
    monkeypatch.setattr(ctt_market, "AUCTIONS_LOOKED_AT_MAX", 2)
    empty = await node.call("ctt_auctions", 4)
    assert (empty["auctions"], empty["next"]) == ([], 2)


async def test_no_auction_is_cleared_in_the_beginning(node: Served) -> None:
    for block in ("0x0", "0x1", "0x4"):
        found = await node.call("ctt_auctions", None, None, block)
        assert (found["auctions"], found["next"]) == ([], None)


async def test_what_is_unknown_is_null() -> None:
    async with served() as node:  # without a market
        someone = hex_of(BOB)
        assert node.world.head.block.header.height
        for method, *params in (
            ("ctt_market",),
            ("ctt_orderBook",),
            ("ctt_order", 1),
            ("ctt_ordersOf", someone),
            ("ctt_mandate", someone, hex_of(ALICE)),
            ("ctt_auctions",),
            ("ctt_clearing",),
        ):
            assert await node.call(method, *params) is None


async def test_bounds_are_named(node: Served) -> None:
    for method, params in (("ctt_orderBook", (0, 101)), ("ctt_auctions", (9, 0))):
        error = await node.error(method, *params)
        assert error["code"] == -32602
        assert error["message"] == f"params[1]: a page has 1 to 100 items, not {params[1]}"
    assert (await node.call("ctt_order", UINT64_MAX)) is None
    gone = await node.error("ctt_market", "0x7")
    assert gone["message"] == "header not found: block 7 is above the head 6"
