"""The homes of the street: who lives there, what their meters say, what they trade.

Everything is a signed transaction over JSON-RPC, like any other client's. A quarter hour of the street's day passes in
a second or so, which no honest power limit would allow, so the demonstration's meters are certified without one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from apps.client import Client, RpcError, Wallet
from apps.demo.profiles import consumption_wh, grid_draw_with_pv_wh, production_wh
from ctt_state.crypto import sha256
from ctt_state.modules.ctt import CTT

# The first development account's key, as every Ethereum tool knows it from the mnemonic "test test ... junk".
TREASURER_KEY: Final = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")

ETHER: Final = 10**18
POCKET_MONEY_WEI: Final = 1_000 * ETHER
TOKEN_PRICE_WEI: Final = ETHER // 50
ENERGY_PRICE_WEI_PER_WH: Final = ETHER // 10_000
HOMES_PER_FARM: Final = 12
SALE_EVERY_QUARTERS: Final = 4

log = logging.getLogger(__name__)


class Kind(Enum):
    """What a home is, and with which functions its meter speaks."""

    HOUSEHOLD = "household"  # consume
    PV = "household + PV"  # report, the registers of a two-way meter
    FARM = "solar farm"  # refill


@dataclass
class Home:
    """A prosumer and its meter."""

    name: str
    kind: Kind
    owner: Wallet
    meter: Wallet
    kwh_a_year: int
    pv_kwh_a_day: float
    import_wh: int = 0  # the meter's registers
    export_wh: int = 0
    last_time_ms: int = 0


@dataclass
class News:
    """What the street has done so far, for the screen."""

    quarter: int = 24  # the day begins at 06:00
    sent: int = 0
    failed: int = 0
    sales: int = 0
    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        self.lines = [*self.lines[-5:], line]


class Street:
    """Builds the street on a chain, then lives its days."""

    def __init__(self, client: Client, chain_id: int, homes: int, seed: int = 1) -> None:
        self.client = client
        self.news = News()
        self.homes = [self._make_home(number, chain_id, seed) for number in range(homes)]
        self._treasurer = Wallet(client, TREASURER_KEY, chain_id)
        self._offers: dict[int, Home] = {}  # token id -> who sells

    def _make_home(self, number: int, chain_id: int, seed: int) -> Home:
        if number % HOMES_PER_FARM == HOMES_PER_FARM - 1:
            kind, load, sun = Kind.FARM, 0, 120.0
        elif number % 2:
            kind, load, sun = Kind.PV, 4_000 + 150 * number, 24.0 + number % 5 * 4
        else:
            kind, load, sun = Kind.HOUSEHOLD, 2_500 + 120 * number, 0.0
        owner, meter = (
            Wallet(self.client, sha256(f"ctt demo {seed} {role} {number}".encode()), chain_id)
            for role in ("owner", "meter")
        )
        return Home(f"{number + 1:02d} {kind.value}", kind, owner, meter, load, sun)

    async def build(self) -> None:
        """Money, certified meters, registration, confirmation and the first empty tokens. What a former run has
        already done stays as it is. Raises: RpcError, TimeoutError."""
        news = self.news
        strangers = [home for home in self.homes if not (await self._prosumer(home))[1]]
        if strangers:
            news.tell(f"the operator certifies {len(strangers)} meters and hands out pocket money")
            await self._settle([await self._certify(home) for home in strangers])
            await self._settle(
                [await self._treasurer.send_raw(home.owner.address, POCKET_MONEY_WEI) for home in strangers]
            )
            news.tell("homes register and buy empty tokens, their meters confirm")
            await self._settle(
                [await home.owner.send(CTT, "register(address)", home.meter.address) for home in strangers]
            )
            await self._settle(
                [await home.meter.send(CTT, "confirm(address)", home.owner.address) for home in strangers]
            )
            await self._settle([await self._buy_empty(home, _first_tokens(home)) for home in strangers])
        for home in self.homes:
            reading = await self.client.read(CTT, "lastReading(address)", home.owner.address)
            home.last_time_ms, home.import_wh, home.export_wh = reading
            if home.kind is Kind.PV:
                await self._report(home)  # the baseline

    async def live_quarter(self) -> None:
        """A quarter hour of every home, and now and then a trade."""
        quarter = self.news.quarter
        await self._together(self._measure(home, quarter) for home in self.homes)
        if quarter % SALE_EVERY_QUARTERS == SALE_EVERY_QUARTERS - 1:
            await self._together(self._trade(home) for home in self.homes)
        self.news.quarter += 1

    async def _measure(self, home: Home, quarter: int) -> None:
        used = consumption_wh(quarter, home.kwh_a_year)
        made = production_wh(quarter, home.pv_kwh_a_day)
        if home.kind is Kind.HOUSEHOLD:
            await self._send(home.meter, "consume(uint256,address)", used, home.owner.address)
        elif home.kind is Kind.FARM and made:
            await self._send(home.meter, "refill(uint256,address)", made, home.owner.address)
        elif home.kind is Kind.PV:
            drawn = grid_draw_with_pv_wh(quarter, home.kwh_a_year)
            home.import_wh += drawn
            home.export_wh += max(made - (used - drawn), 0)
            await self._report(home)

    async def _report(self, home: Home) -> None:
        block = await self.client.call("eth_getBlockByNumber", "latest", False)
        home.last_time_ms = max(int(block["timestampMilliseconds"], 16), home.last_time_ms + 1)
        registers = (home.owner.address, home.last_time_ms, home.import_wh, home.export_wh)
        await self._send(home.meter, "report(address,uint64,uint256,uint256)", *registers)

    async def _trade(self, home: Home) -> None:
        """Who has full tokens offers one; who is short of energy buys the next one offered."""
        _, _, full, _, _, on_sale, *_ = await self._prosumer(home)
        stored, spare = await self.client.read(CTT, "energyOf(address)", home.owner.address)
        if home.kind is not Kind.HOUSEHOLD and full > 1 and not on_sale:
            await self._offer(home)
        elif home.kind is not Kind.HOUSEHOLD and spare < 10_000:
            (price,) = await self.client.read(CTT, "emptyTokenPrice()")
            await self._send(home.owner, "buyEmptyTokens(uint256)", 2, value=2 * price)
        elif home.kind is Kind.HOUSEHOLD and stored < 3_000:
            await self._buy_full(home)

    async def _offer(self, home: Home) -> None:
        ((token_id, *_),) = await self.client.read(
            CTT, "tokensOf(address,uint256,uint256)", home.owner.address, 0, 1
        )
        prices = (TOKEN_PRICE_WEI, ENERGY_PRICE_WEI_PER_WH)
        if await self._send(home.owner, "setOnSale(uint256,uint256,uint256)", token_id, *prices):
            self._offers[token_id] = home
            self.news.tell(f"{home.name} offers token {token_id}")

    async def _buy_full(self, home: Home) -> None:
        if not self._offers:
            return
        token_id, seller = self._offers.popitem()
        try:
            (price,) = await self.client.read(CTT, "sellingPrice(uint256)", token_id)
        except RpcError:
            return  # sold or withdrawn meanwhile
        if await self._send(home.owner, "buyToken(uint256)", token_id, value=price):
            self.news.sales += 1
            self.news.tell(f"{home.name} buys token {token_id} of {seller.name} for {price / ETHER:.3f}")

    async def _buy_empty(self, home: Home, count: int) -> str:
        (price,) = await self.client.read(CTT, "emptyTokenPrice()")
        return await home.owner.send(CTT, "buyEmptyTokens(uint256)", count, value=price * count)

    async def _certify(self, home: Home) -> str:
        source = 1 if home.pv_kwh_a_day else 0
        return await self._treasurer.send(
            CTT, "certifyMeter(address,uint8,uint64,bool)", home.meter.address, source, 0, False
        )

    async def _prosumer(self, home: Home) -> tuple[Any, ...]:
        return await self.client.read(CTT, "prosumers(address)", home.owner.address)

    async def _send(self, wallet: Wallet, signature: str, *arguments: Any, value: int = 0) -> bool:
        """Whether the node took it; a refusal is counted and told."""
        try:
            await wallet.send(CTT, signature, *arguments, value=value)
        except RpcError as refusal:
            self.news.failed += 1
            self.news.tell(f"refused: {refusal}")
            return False
        self.news.sent += 1
        return True

    async def _settle(self, hashes: Iterable[str]) -> None:
        """Waits until all of these are final, and says which failed."""
        for receipt in await asyncio.gather(*(self.client.receipt(each) for each in hashes)):
            self.news.sent += 1
            if receipt["status"] != "0x1":
                self.news.failed += 1
                log.warning("transaction %s failed", receipt["transactionHash"])

    async def _together(self, steps: Iterable[Awaitable[Any]]) -> None:
        await asyncio.gather(*steps)


def _first_tokens(home: Home) -> int:
    return {Kind.HOUSEHOLD: 2, Kind.PV: 4, Kind.FARM: 12}[home.kind]
