"""What the demonstration shows of the chain: asked over JSON-RPC like anything else."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from apps.client import Client, RpcError, decode_log
from apps.demo.home import Home
from apps.demo.street import Street
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.units import hex_of

WINDOW_BLOCKS: Final = 60
POLL_SECONDS: Final = 0.15
HOMES_SECONDS: Final = 1.0
AUCTIONS_SECONDS: Final = 0.5
AUCTIONS_SHOWN: Final = 48


@dataclass
class HomeState:
    """A home's tokens and totals at the newest block; energy in Wh."""

    full: int = 0
    partial: int = 0
    empty: int = 0
    on_sale: int = 0
    stored_wh: int = 0  # in its tokens now
    spare_wh: int = 0
    produced_wh: int = 0
    consumed_wh: int = 0
    covered_wh: int = 0


class Trade(NamedTuple):
    """Who bought what of whom in the last auction, in wei per Wh; for nothing it is a gift."""

    buyer: str
    seller: str
    energy_wh: int
    price: int


class Auction(NamedTuple):
    """What an auction came to; the price is in wei per Wh."""

    number: int
    height: int  # of the block that cleared it
    price: int
    energy_wh: int
    bids: int
    asks: int


@dataclass
class Watch:
    """The chain's pulse over the last blocks, and the street's energy."""

    height: int = 0
    block_hash: str = ""
    times_ms: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW_BLOCKS))
    counts: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW_BLOCKS))
    transactions: int = 0
    tokens: int = 0
    energy_wh: int = 0
    homes: dict[str, HomeState] = field(default_factory=dict)
    auctions: list[Auction] = field(default_factory=list)  # in which energy moved, the newest first
    trades: list[Trade] = field(default_factory=list)  # of the newest: gifts, then the largest first

    @property
    def blocks_per_second(self) -> float:
        return (len(self.times_ms) - 1) * 1_000 / self._span_ms if self._span_ms else 0.0

    @property
    def transactions_per_second(self) -> float:
        return sum(list(self.counts)[1:]) * 1_000 / self._span_ms if self._span_ms else 0.0

    @property
    def _span_ms(self) -> int:
        return self.times_ms[-1] - self.times_ms[0] if len(self.times_ms) > 1 else 0

    def total(self, name: str) -> int:
        return sum(getattr(home, name) for home in self.homes.values())


async def follow_blocks(client: Client, watch: Watch) -> None:
    """Takes in each new block, for ever."""
    while True:
        newest = int(await client.call("eth_blockNumber"), 16)
        first = watch.height + 1 if watch.height else newest
        wanted = range(max(first, newest - WINDOW_BLOCKS + 1), newest + 1)
        for block in (
            await client.batch([("eth_getBlockByNumber", (hex(n), False)) for n in wanted]) if wanted else []
        ):
            _take_block(watch, block)
        await asyncio.sleep(POLL_SECONDS)


def _take_block(watch: Watch, block: Any) -> None:
    if isinstance(block, RpcError) or block is None:
        return
    watch.height = int(block["number"], 16)
    watch.block_hash = block["hash"]
    if watch.height == 0:
        return  # genesis is of another day
    watch.times_ms.append(int(block["timestampMilliseconds"], 16))
    watch.counts.append(len(block["transactions"]))
    watch.transactions += len(block["transactions"])


async def follow_homes(client: Client, watch: Watch, street: Street) -> None:
    """Asks for every home's figures once a second, for ever."""
    while True:
        (watch.energy_wh,) = await client.read(CTT, "totalEnergy()")
        (watch.tokens,) = await client.read(CTT, "totalSupply()")
        states = await asyncio.gather(*(_home_state(client, home) for home in street.homes))
        watch.homes = dict(zip([home.name for home in street.homes], states, strict=True))
        await asyncio.sleep(HOMES_SECONDS)


async def _home_state(client: Client, home: Home) -> HomeState:
    prosumer = await client.read(CTT, "prosumers(address)", home.owner.address)
    _, _, full, partial, empty, on_sale, produced, _, consumed, covered = prosumer
    stored, spare = await client.read(CTT, "energyOf(address)", home.owner.address)
    return HomeState(full, partial, empty, on_sale, stored, spare, produced, consumed, covered)


async def follow_auctions(client: Client, watch: Watch, street: Street) -> None:
    """Asks for what the last auctions came to, and for the trades of the newest, for ever or until there is no market
    to ask."""
    names = {hex_of(home.owner.address): home.name for home in street.homes}
    while (found := await client.call("ctt_auctions", None, AUCTIONS_SHOWN)) is not None:
        auctions = [_auction(each) for each in found["auctions"] if each["energyWh"] != "0"]
        if auctions and auctions[:1] != watch.auctions[:1]:
            watch.trades = await _trades(client, auctions[0].height, names)
        watch.auctions = auctions
        await asyncio.sleep(AUCTIONS_SECONDS)


def _auction(told: dict[str, Any]) -> Auction:
    figures = (int(told["priceWeiPerWh"]), int(told["energyWh"]), told["bids"], told["asks"])
    return Auction(told["auction"], told["clearedIn"], *figures)


async def _trades(client: Client, height: int, names: dict[str, str]) -> list[Trade]:
    """Those that a clearing made. An account of nobody in the street is named by its address."""
    block = hex(height)
    logs = await client.call(
        "eth_getLogs", {"address": hex_of(MARKET.address), "fromBlock": block, "toBlock": block}
    )
    trades = []
    for log in logs:
        name, told = decode_log(MARKET, log) or ("", {})
        if name in ("Trade", "PartnerTrade"):
            buyer, seller = (hex_of(told[side]) for side in ("buyer", "seller"))
            who = names.get(buyer, buyer[:8]), names.get(seller, seller[:8])
            trades.append(Trade(*who, told["energy"], told["price"]))
    return sorted(trades, key=lambda trade: (trade.price > 0, -trade.energy_wh))
