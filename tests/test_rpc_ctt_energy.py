"""Tokens, prosumers and meters by JSON-RPC without an ABI: exact figures, figures in words, pages with a maximum."""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from ctt_state.abi import decode_values
from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from rpc.figures import energy, energy_price, money, power
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
    Served,
    private_key,
    served,
)

pytestmark = pytest.mark.asyncio

METER_KEY, CONCENTRATOR_KEY = private_key("meter"), private_key("concentrator")
METER, CONCENTRATOR = address_of(METER_KEY), address_of(CONCENTRATOR_KEY)
COIN: Final = 10**18
TOKENS: Final = 7
UNKNOWN: Final = hex_of(POOR)


def grow(node: Served) -> None:
    """ALICE has seven tokens, one on sale, and a meter that measured 25.5 kWh of production and 1.25 kWh of use."""
    send, world = node.world.send_call, node.world
    send(ADMIN_KEY, "setEmptyTokenPrice(uint256)", COIN // 50)
    send(OPERATOR_KEY, "certifyMeter(address,uint8,uint64,bool)", METER, 1, 11_000, False)
    send(OPERATOR_KEY, "certifyMeter(address,uint8,uint64,bool)", CONCENTRATOR, 0, 0, True)
    world.make_block()
    send(ALICE_KEY, "register(address)", METER)
    send(ALICE_KEY, "buyEmptyTokens(uint256)", TOKENS, value=TOKENS * COIN // 50)
    world.make_block()
    send(METER_KEY, "confirm(address)", ALICE)
    world.make_block()
    for time_s, imported, exported in ((1, 100, 200), (10_001, 1_350, 25_700)):
        send(METER_KEY, "report(address,uint64,uint256,uint256)", ALICE, time_s * 1_000, imported, exported)
    world.make_block()
    send(ALICE_KEY, "setOnSale(uint256,uint256,uint256)", 2, COIN // 50, COIN // 10_000)
    world.make_block()


def of_the_sun(wh: int) -> dict[str, Any]:
    """So much solar energy and none of any other source, as figures and in words."""
    nothing = ("none", "wind", "hydro", "biomass", "other")
    return energy("solar", wh) | {name: text for each in nothing for name, text in energy(each, 0).items()}


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        grow(node)
        yield node


async def view(node: Served, signature: str, *arguments: Any) -> tuple[Any, ...]:
    """What the CTT's own view says."""
    function = CTT.named(signature)
    call = {"to": hex_of(CTT.address), "data": hex_of(function.encode_arguments(*arguments))}
    return decode_values(function.outputs, bytes.fromhex((await node.call("eth_call", call, "latest"))[2:]))


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "exact", "words"),
    [
        (energy("sum", 0), "0", "0.000 kWh"),
        (energy("sum", 999), "999", "0.999 kWh"),
        (energy("sum", 1_234_567), "1234567", "1,234.567 kWh"),
        (energy("sum", 2**64 - 1), "18446744073709551615", "18,446,744,073,709,551.615 kWh"),
        (power("sum", 11_000), "11000", "11.000 kW"),
        (money("sum", 0), "0", "0"),
        (money("sum", 1), "1", "0.000000000000000001"),
        (money("sum", COIN), "1000000000000000000", "1"),
        (money("sum", 1_234 * COIN + COIN // 4), "1234250000000000000000", "1,234.25"),
        (energy_price("sum", COIN // 10_000), "100000000000000", "0.1 per kWh"),
    ],
)
async def test_figures_are_exact_and_in_words(members: dict[str, Any], exact: str, words: str) -> None:
    assert list(members.values()) == [exact, words]


# --- the views -------------------------------------------------------------------------------------------------------


async def test_a_token_is_readable(node: Served) -> None:
    token = await node.call("ctt_token", 2)
    assert token == {
        "height": 6,
        "tokenId": 2,
        "owner": hex_of(ALICE),
        "energyWh": "10000",
        "energy": "10.000 kWh",
        "origin": of_the_sun(10_000),
        "chargePercent": 100,
        "onSale": True,
        "tokenPriceWei": "20000000000000000",
        "tokenPrice": "0.02",
        "energyPriceWeiPerWh": "100000000000000",
        "energyPrice": "0.1 per kWh",
        "sellingPriceWei": "1020000000000000000",
        "sellingPrice": "1.02",
        "approved": None,
        "permitNonce": 0,
        "index": 6,
    }
    assert await node.call("ctt_token", "0x2") == token
    assert (await node.call("ctt_token", 2, "0x3"))["onSale"] is False


async def test_a_token_names_whom_it_approves(node: Served) -> None:
    node.world.send_call(ALICE_KEY, "approve(address,uint256)", BOB, 1)
    node.world.make_block()
    assert (await node.call("ctt_token", 1))["approved"] == hex_of(BOB)


async def test_a_prosumer_is_readable(node: Served) -> None:
    found = await node.call("ctt_prosumer", hex_of(ALICE))
    assert found["tokens"] == {"count": 7, "full": 1, "partlyCharged": 1, "empty": 4, "onSale": 1}
    assert (found["height"], found["meter"], found["confirmed"]) == (6, hex_of(METER), True)
    totals = {
        name: found[f"ever{name}Wh"]
        for name in ("Produced", "Stored", "FedToGrid", "Consumed", "Covered", "Billed")
    }
    assert list(totals.values()) == ["25500", "25500", "0", "1250", "1250", "0"]
    assert (found["storedWh"], found["stored"], found["spareWh"]) == ("14250", "14.250 kWh", "45750")
    assert found["retired"] == of_the_sun(1_250)
    assert found["lastReading"] == {
        "timeMs": 10_001_000,
        "importWh": "1350",
        "import": "1.350 kWh",
        "exportWh": "25700",
        "export": "25.700 kWh",
    }


async def test_what_tokens_cannot_take_or_cover_is_told(node: Served) -> None:
    node.world.send_call(
        METER_KEY, "report(address,uint64,uint256,uint256)", ALICE, 50_000_000, 1_350, 80_000
    )
    node.world.send_call(
        METER_KEY, "report(address,uint64,uint256,uint256)", ALICE, 90_000_000, 80_000, 80_000
    )
    node.world.make_block()
    found = await node.call("ctt_prosumer", hex_of(ALICE))
    assert (found["everProducedWh"], found["everStoredWh"], found["everFedToGridWh"]) == (
        "79800",
        "71250",
        "8550",
    )
    assert (found["everConsumedWh"], found["everCoveredWh"], found["everBilledWh"]) == (
        "79900",
        "61250",
        "18650",
    )
    assert found["everBilled"] == "18.650 kWh"


async def test_a_prosumer_before_its_baseline_has_no_reading(node: Served) -> None:
    node.world.send_call(BOB_KEY, "register(address)", CONCENTRATOR)
    node.world.make_block()
    found = await node.call("ctt_prosumer", hex_of(BOB))
    assert (found["meter"], found["confirmed"], found["lastReading"]) == (hex_of(CONCENTRATOR), False, None)


async def test_energy_is_what_the_module_says(node: Served) -> None:
    """Also after the capability was changed: full tokens have room again, or more than they may hold."""
    for capability in (10_000, 12_000, 4_000):
        node.world.send_call(ADMIN_KEY, "setTokenCapability(uint256)", capability)
        node.world.make_block()
        found = await node.call("ctt_energyOf", hex_of(ALICE))
        stored, spare = await view(node, "energyOf(address)", ALICE)
        assert (found["storedWh"], found["spareWh"]) == (str(stored), str(spare))


async def test_a_meter_is_readable(node: Served) -> None:
    assert await node.call("ctt_meter", hex_of(METER)) == {
        "height": 6,
        "address": hex_of(METER),
        "operator": hex_of(OPERATOR),
        "source": "solar",
        "maxPowerW": "11000",
        "maxPower": "11.000 kW",
        "concentrator": False,
        "certified": True,
        "prosumer": hex_of(ALICE),
    }
    other = await node.call("ctt_meter", hex_of(CONCENTRATOR))
    assert (other["source"], other["maxPowerW"], other["maxPower"]) == ("none", None, None)
    assert (other["concentrator"], other["prosumer"]) == (True, None)


async def test_the_supply_is_readable(node: Served) -> None:
    assert await node.call("ctt_supply") == {
        "height": 6,
        "name": "Sun",
        "symbol": "CTT",
        "admin": hex_of(ADMIN),
        "tokens": 7,
        "maxTokens": "1000",
        "tokenCapabilityWh": "10000",
        "tokenCapability": "10.000 kWh",
        "emptyTokenPriceWei": "20000000000000000",
        "emptyTokenPrice": "0.02",
        "energyStoredWh": "24250",
        "energyStored": "24.250 kWh",
        "origin": of_the_sun(24_250),
        "everStoredWh": "25500",
        "everStored": "25.500 kWh",
        "everCoveredWh": "1250",
        "everCovered": "1.250 kWh",
        "retired": of_the_sun(1_250),
    }


async def test_what_is_unknown_is_null(node: Served) -> None:
    assert await node.call("ctt_supply", "0x0") is None
    for token_id in (0, TOKENS + 1, 2**64 - 1):
        assert await node.call("ctt_token", token_id) is None
    for method in ("ctt_prosumer", "ctt_meter", "ctt_energyOf", "ctt_tokensOf", "ctt_readings"):
        assert await node.call(method, UNKNOWN) is None


async def test_a_block_that_is_not_there_is_refused(node: Served) -> None:
    for method, subject in (
        ("ctt_token", 1),
        ("ctt_prosumer", UNKNOWN),
        ("ctt_meter", UNKNOWN),
        ("ctt_energyOf", UNKNOWN),
    ):
        error = await node.error(method, subject, "0x7")
        assert (error["code"], error["message"]) == (-32000, "header not found: block 7 is above the head 6")


# --- pages -----------------------------------------------------------------------------------------------------------


async def test_tokens_come_in_pages_in_the_order_of_the_shelf(node: Served) -> None:
    (shelf,) = await view(node, "tokensOf(address,uint256,uint256)", ALICE, 0, 100)
    whole = await node.call("ctt_tokensOf", hex_of(ALICE))
    assert [each["tokenId"] for each in whole["tokens"]] == list(shelf)
    assert (whole["count"], whole["next"]) == (TOKENS, None)
    assert [await node.call("ctt_token", each) for each in shelf] == [
        {"height": 6} | each for each in whole["tokens"]
    ]
    paged, offset = [], 0
    while offset is not None:
        page = await node.call("ctt_tokensOf", hex_of(ALICE), offset, 3, hex(whole["height"]))
        paged += page["tokens"]
        offset = page["next"]
    assert paged == whole["tokens"]


@pytest.mark.parametrize(
    ("offset", "limit", "count", "following"),
    [
        (0, 1, 1, 1),
        (0, 7, 7, None),
        (0, 6, 6, 6),
        (6, 100, 1, None),
        (7, 1, 0, None),
        (2**64 - 1, 100, 0, None),
    ],
)
async def test_a_page_ends_with_the_shelf(
    node: Served, offset: int, limit: int, count: int, following: int | None
) -> None:
    page = await node.call("ctt_tokensOf", hex_of(ALICE), offset, limit)
    assert (len(page["tokens"]), page["next"]) == (count, following)


async def test_a_page_has_its_bounds(node: Served) -> None:
    for limit in (0, 101, "0x65"):
        error = await node.error("ctt_tokensOf", hex_of(ALICE), 0, limit)
        number = limit if isinstance(limit, int) else 101
        assert error["code"] == -32602
        assert error["message"] == f"params[2]: a page has 1 to 100 items, not {number}"


@pytest.mark.parametrize("number", [-1, 1.0, True, "1", "0x01", 2**64, hex(2**64), [], {}])
async def test_what_is_no_number_is_refused(node: Served, number: Any) -> None:
    for method, parameters in (("ctt_token", [number]), ("ctt_tokensOf", [hex_of(ALICE), number])):
        error = await node.error(method, *parameters)
        assert error["code"] == -32602 and error["message"].startswith(f"params[{len(parameters) - 1}]: ")
