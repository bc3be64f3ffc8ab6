"""The homes of the street: who lives there, what their meters say, what they trade.

Everything is a signed transaction over JSON-RPC, like any other client's. A quarter hour of the street's day passes in
a second or so, which no honest power limit would allow, so the demonstration's meters are certified without one.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from apps.client import Client, RpcError, Wallet
from apps.demo.home import FIRST_QUARTER, Home, Kind, News
from apps.demo.post import Post
from apps.demo.profiles import QUARTERS_A_DAY, consumption_wh, grid_draw_with_pv_wh
from apps.demo.traders import Traders
from ctt_state.crypto import sha256
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of

# The first development account's key, as every Ethereum tool knows it from the mnemonic "test test ... junk".
TREASURER_KEY: Final = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")

ETHER: Final = 10**18
POCKET_MONEY_WEI: Final = 1_000 * ETHER
TOKEN_PRICE_WEI: Final = ETHER // 50
ENERGY_PRICE_WEI_PER_WH: Final = ETHER // 10_000
HOMES_PER_FARM: Final = 12
SALE_EVERY_QUARTERS: Final = 4
QUARTER_BLOCKS: Final = 3  # so many pass in a quarter hour: by them the time of day is known
TOKENS_MAX: Final = 24  # that a home gets for what it produces; then the rest goes to the grid
POOR_WEI: Final = 200 * ETHER  # gets pocket money again


class Street:
    """Builds the street on a chain, then lives its days."""

    def __init__(self, client: Client, chain_id: int, homes: int, seed: int = 1) -> None:
        self.client = client
        self.news = News()
        self.homes = [self._make_home(number, chain_id, seed) for number in range(homes)]
        self._post = Post(client, self.news)
        self._treasurer = Wallet(client, TREASURER_KEY, chain_id)
        platform = Wallet(client, sha256(f"ctt demo {seed} platform".encode()), chain_id)
        self.traders = Traders(client, self._post, self.homes, platform)
        self._offers: dict[int, Home] = {}  # token id -> who sells

    def _make_home(self, number: int, chain_id: int, seed: int) -> Home:
        if number % HOMES_PER_FARM == HOMES_PER_FARM - 1:
            kind, load, made = (Kind.WIND if number // HOMES_PER_FARM % 2 else Kind.FARM), 0, 120.0
        elif number % 2:
            kind, load, made = Kind.PV, 4_000 + 150 * number, 24.0 + number % 5 * 4
        else:
            kind, load, made = Kind.HOUSEHOLD, 2_500 + 120 * number, 0.0
        owner, meter = (
            Wallet(self.client, sha256(f"ctt demo {seed} {role} {number}".encode()), chain_id)
            for role in ("owner", "meter")
        )
        return Home(number, f"{number + 1:02d} {kind.value}", kind, owner, meter, load, made)

    async def build(self) -> None:
        """Money, certified meters, registration, confirmation and the first empty tokens. What a former run has
        already done stays as it is, and the day goes on where it was. Raises: RpcError, TimeoutError."""
        news = self.news
        strangers = [home for home in self.homes if not (await self._prosumer(home))[1]]
        if strangers:
            news.tell(f"the operator certifies {len(strangers)} meters and hands out pocket money")
            await self._post.settle([await self._certify(home) for home in strangers])
            await self._post.settle(
                [await self._treasurer.send_raw(home.owner.address, POCKET_MONEY_WEI) for home in strangers]
            )
            news.tell("homes register and buy empty tokens, their meters confirm")
            await self._post.settle(
                [await home.owner.send(CTT, "register(address)", home.meter.address) for home in strangers]
            )
            await self._post.settle(
                [await home.meter.send(CTT, "confirm(address)", home.owner.address) for home in strangers]
            )
            await self._post.settle([await self._buy_empty(home, _first_tokens(home)) for home in strangers])
        for home in self.homes:
            reading = await self.client.read(CTT, "lastReading(address)", home.owner.address)
            home.last_time_ms, home.import_wh, home.export_wh = reading
            if home.kind is Kind.PV:
                await self._report(home)  # the baseline
        await self._begin_day()
        height = int(await self.client.call("eth_blockNumber"), 16)
        news.quarter = FIRST_QUARTER + height // QUARTER_BLOCKS

    async def live_quarter(self) -> None:
        """A quarter hour of every home: what its meter says, what it orders in the auction, now and then a token that
        is sold whole."""
        quarter = self.news.quarter
        if quarter % QUARTERS_A_DAY == 0:
            await self._begin_day()
        await self._together(self._measure(home, quarter) for home in self.homes)
        await self.traders.order_all(quarter)
        if quarter % SALE_EVERY_QUARTERS == SALE_EVERY_QUARTERS - 1:
            await self._together(self._trade(home) for home in self.homes)
        self.news.quarter += 1

    async def _begin_day(self) -> None:
        """Pocket money for who has spent it, and mandates for the platform that have run low or out."""
        accounts = [hex_of(home.owner.address) for home in self.homes]
        balances = await self.client.batch([("eth_getBalance", [each, "latest"]) for each in accounts])
        for home, balance in zip(self.homes, balances, strict=True):
            if not isinstance(balance, RpcError) and int(balance, 16) < POOR_WEI:
                await self._post.pay(self._treasurer, home.owner.address, POCKET_MONEY_WEI)
        await self.traders.renew_mandates()

    async def _measure(self, home: Home, quarter: int) -> None:
        used = consumption_wh(quarter, home.kwh_a_year)
        made = home.produced_wh(quarter)
        if home.kind is Kind.HOUSEHOLD:
            await self._post.send(home.meter, CTT, "consume(uint256,address)", used, home.owner.address)
        elif home.kind in (Kind.FARM, Kind.WIND) and made:
            await self._post.send(home.meter, CTT, "refill(uint256,address)", made, home.owner.address)
        elif home.kind is Kind.PV:
            drawn = grid_draw_with_pv_wh(quarter, home.kwh_a_year)
            home.import_wh += drawn
            home.export_wh += max(made - (used - drawn), 0)
            await self._report(home)

    async def _report(self, home: Home) -> None:
        block = await self.client.call("eth_getBlockByNumber", "latest", False)
        home.last_time_ms = max(int(block["timestampMilliseconds"], 16), home.last_time_ms + 1)
        registers = (home.owner.address, home.last_time_ms, home.import_wh, home.export_wh)
        await self._post.send(home.meter, CTT, "report(address,uint64,uint256,uint256)", *registers)

    async def _trade(self, home: Home) -> None:
        """Who has full tokens offers one; who is short of energy buys the next one offered."""
        _, _, full, partial, empty, on_sale, *_ = await self._prosumer(home)
        has_room = full + partial + empty + on_sale < TOKENS_MAX
        stored, spare = await self.client.read(CTT, "energyOf(address)", home.owner.address)
        if home.produces and full > 1 and not on_sale:
            await self._offer(home)
        elif home.produces and spare < 10_000 and has_room:
            (price,) = await self.client.read(CTT, "emptyTokenPrice()")
            await self._post.send(home.owner, CTT, "buyEmptyTokens(uint256)", 2, value=2 * price)
        elif home.buys_tokens and stored < 3_000:
            await self._buy_full(home)

    async def _offer(self, home: Home) -> None:
        ((token_id, *_),) = await self.client.read(
            CTT, "tokensOf(address,uint256,uint256)", home.owner.address, 0, 1
        )
        prices = (TOKEN_PRICE_WEI, ENERGY_PRICE_WEI_PER_WH)
        if await self._post.send(home.owner, CTT, "setOnSale(uint256,uint256,uint256)", token_id, *prices):
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
        if await self._post.send(home.owner, CTT, "buyToken(uint256)", token_id, value=price):
            self.news.sales += 1
            self.news.tell(f"{home.name} buys token {token_id} of {seller.name} for {price / ETHER:.3f}")

    async def _buy_empty(self, home: Home, count: int) -> str:
        (price,) = await self.client.read(CTT, "emptyTokenPrice()")
        return await home.owner.send(CTT, "buyEmptyTokens(uint256)", count, value=price * count)

    async def _certify(self, home: Home) -> str:
        source = {Kind.HOUSEHOLD: 0, Kind.WIND: 2}.get(home.kind, 1)
        return await self._treasurer.send(
            CTT, "certifyMeter(address,uint8,uint64,bool)", home.meter.address, source, 0, False
        )

    async def _prosumer(self, home: Home) -> tuple[Any, ...]:
        return await self.client.read(CTT, "prosumers(address)", home.owner.address)

    async def _together(self, steps: Iterable[Awaitable[Any]]) -> None:
        await asyncio.gather(*steps)


def _first_tokens(home: Home) -> int:
    return {Kind.HOUSEHOLD: 2, Kind.PV: 4, Kind.FARM: 12, Kind.WIND: 12}[home.kind]
