"""What the chain says of a home and the market up to a block: by JSON-RPC, history also from an indexer's database."""

from typing import Any, Final, NamedTuple

from apps.advisor.optimum import Stock, Terms
from apps.advisor.policy import DAYS_TRIED
from apps.advisor.series import (
    HOURS_A_DAY,
    WEI_PER_WH,
    WH_PER_KWH,
    Cleared,
    History,
    Metered,
    make_history,
)
from apps.client import Client, RpcError
from apps.kpi.history import open_history
from ctt_state import settlement
from ctt_state.units import MS_PER_HOUR, Address, hex_of

DAYS_READ: Final = DAYS_TRIED + 10
AUCTIONS_MAX: Final = 1_000  # that a node is asked for: ten days of quarter hours
PAGE: Final = 100
BATCH: Final = 20  # requests sent at once
ORDER_GAS: Final = 150_000
WEI_PER_UNIT: Final = 10**18


class NoAdvice(Exception):
    """There is nothing to advise on: why, in one line."""


class Past(NamedTuple):
    """Readings and auctions up to a block."""

    height: int
    history: History


class Known(NamedTuple):
    """All that an advice is made of."""

    height: int
    history: History
    stock: Stock
    terms: Terms


def read_database(url: str, home: Address) -> Past:
    """Raises: NoHistory."""
    with open_history(url) as database:
        since_ms = _since(database.time_ms)
        readings = [
            Metered(event.time_ms, event.consumed_wh, event.produced_wh)
            for event in database.events(home)
            if isinstance(event, settlement.Reading) and event.time_ms >= since_ms
        ]
        auctions = [Cleared(*row) for row in database.auctions(since_ms)]
        readings.sort(key=lambda reading: reading.time_ms)
        return Past(database.height, make_history(readings, auctions, database.time_ms))


async def read_node(client: Client, home: Address) -> Past:
    """Raises: NoAdvice, and as `Client.call`."""
    newest = await client.call("eth_getBlockByNumber", "latest", False)
    height, now_ms = int(newest["number"], 16), int(newest["timestampMilliseconds"], 16)
    readings = await read_readings(client, home, height, _since(now_ms))
    return Past(height, make_history(readings, await read_auctions(client, height), now_ms))


async def read_terms(client: Client, home: Address, past: Past) -> Known:
    """Tokens and tariff at the block up to which the past is known. Raises: NoAdvice, and as `Client.call`."""
    block = hex(past.height)
    market = await client.call("ctt_market", block)
    supply = await client.call("ctt_supply", block)
    energy = await client.call("ctt_energyOf", hex_of(home), block)
    if market is None or supply is None:
        raise NoAdvice("this chain has no market")
    if energy is None:
        raise NoAdvice(f"the chain does not know {hex_of(home)}")
    held, spare = [int(energy[name]) / WH_PER_KWH for name in ("storedWh", "spareWh")]
    prices = [int(market[f"{name}WeiPerWh"]) / WEI_PER_WH for name in ("floor", "ceiling", "gridFee")]
    gas_price = int(await client.call("eth_gasPrice"), 16)
    terms = Terms(
        feed_in=prices[0],
        retail=prices[1],
        grid_fee=prices[2],
        fee=ORDER_GAS * gas_price / WEI_PER_UNIT,
        token_kwh=int(supply["tokenCapabilityWh"]) / WH_PER_KWH,
        token_price=int(supply["emptyTokenPriceWei"]) / WEI_PER_UNIT,
    )
    return Known(past.height, past.history, Stock(held, held + spare), terms)


def _since(now_ms: int) -> int:
    return max(now_ms - DAYS_READ * HOURS_A_DAY * MS_PER_HOUR, 0)


async def read_readings(client: Client, home: Address, height: int, since_ms: int) -> list[Metered]:
    """At the times of their blocks: a node does not tell when they were measured."""
    found: dict[int, Metered] = {}
    start: Any = {"timeMs": since_ms}
    while start is not None:
        page = await client.call("ctt_readings", hex_of(home), start, hex(height))
        if page is None:
            raise NoAdvice(f"the chain does not know {hex_of(home)}")
        for each in page["readings"]:
            time_ms, measured = each["timeMs"], int(each["measuredWh"])
            _, consumed, produced = found.get(time_ms, Metered(time_ms, 0, 0))
            is_use = each["kind"] == "consumption"
            found[time_ms] = Metered(
                time_ms, consumed + measured * is_use, produced + measured * (not is_use)
            )
        start = None if page["next"] is None else hex(page["next"])
    return list(found.values())


async def read_auctions(client: Client, height: int) -> list[Cleared]:
    """The newest ones that traded, as far as the node still has their blocks."""
    pages: list[dict[str, Any]] = []
    first: int | None = 2**64 - 1
    while first is not None and len(pages) < AUCTIONS_MAX:
        page = await client.call("ctt_auctions", hex(first), PAGE, hex(height))
        if page is None:
            raise NoAdvice("this chain has no market")
        pages += [each for each in page["auctions"] if int(each["energyWh"])]
        first = page["next"]
    found: list[Cleared] = []
    for start in range(0, len(pages), BATCH):
        part = pages[start : start + BATCH]
        blocks = await client.batch(
            [("eth_getBlockByNumber", [hex(each["clearedIn"]), False]) for each in part]
        )
        for each, block in zip(part, blocks, strict=True):
            if block is not None and not isinstance(block, RpcError):
                time_ms = int(block["timestampMilliseconds"], 16)
                found.append(Cleared(time_ms, int(each["priceWeiPerWh"]), int(each["energyWh"])))
    return found
