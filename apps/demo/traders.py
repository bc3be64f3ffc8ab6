"""The street at the energy market: each quarter hour every home has an order in the auctions, two of them by a
platform with a mandate."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from apps.client import Client, RpcError, Wallet
from apps.demo.home import GIVER, PLATFORMS_CLIENTS, RECEIVER, Home
from apps.demo.post import Post
from apps.demo.trading import Order, Situation, Tariff, make_ask, make_bid
from ctt_state.modules.market import MARKET
from ctt_state.units import hex_of

MANDATE_WH: Final = 1_000_000
MANDATE_WEI: Final = 100 * 10**18
MANDATE_AUCTIONS: Final = 100_000
ORDER_AUCTIONS: Final = 2  # an order stands in the current auction and these

_WHAT: Final = "uint256,uint256,uint64"
_PRICES: Final = "(uint8,uint256)[]"
_PARTNERS: Final = "(address,uint256)[]"
ORDERS: Final = {
    "ask": f"ask({_WHAT},{_PARTNERS})",
    "bid": f"bid({_WHAT},{_PRICES},{_PARTNERS})",
    "askFor": f"askFor(address,{_WHAT},{_PARTNERS})",
    "bidFor": f"bidFor(address,{_WHAT},{_PRICES},{_PARTNERS})",
}
GRANT: Final = "grantMandate(address,uint256,uint256,uint256,uint256,uint64)"


class Traders:
    """All homes but those that buy full tokens, and the platform. Without a market they do nothing."""

    def __init__(self, client: Client, post: Post, homes: Sequence[Home], platform: Wallet) -> None:
        self._client = client
        self._post = post
        self._homes = homes
        self.platform = platform

    async def order_all(self, quarter: int) -> None:
        """Every home's order, in place of its last one. A node that does not answer is asked again a quarter hour
        later."""
        traders = [home for home in self._homes if not home.buys_tokens]
        market, *shelves = await self._ask(
            ("ctt_market", []), *[("ctt_energyOf", [hex_of(home.owner.address)]) for home in traders]
        )
        if market is None or None in shelves:
            return
        tariff = _tariff(market)
        orders = [
            (home, order)
            for home, shelf in zip(traders, shelves, strict=True)
            if (order := self._order_of(home, quarter, tariff, shelf))
        ]
        until = market["auction"] + ORDER_AUCTIONS
        await asyncio.gather(
            *(
                self._order(home, order, until)
                for home, order in orders
                if home.number not in PLATFORMS_CLIENTS
            )
        )
        for home, order in orders:  # one after the other: they are one account's
            if home.number in PLATFORMS_CLIENTS:
                await self._order(home, order, until)

    async def renew_mandates(self) -> None:
        """Grants what has run low or out, or never was."""
        clients = [home for home in self._homes if home.number in PLATFORMS_CLIENTS]
        platform = hex_of(self.platform.address)
        market, *mandates = await self._ask(
            ("ctt_market", []), *[("ctt_mandate", [hex_of(home.owner.address), platform]) for home in clients]
        )
        if market is None:
            return
        tariff, until = _tariff(market), market["auction"] + MANDATE_AUCTIONS
        limits = (MANDATE_WH, MANDATE_WEI, tariff.ceiling, tariff.floor, until)
        for home, mandate in zip(clients, mandates, strict=True):
            if mandate is None or _is_low(mandate, until):
                await self._post.send(home.owner, MARKET, GRANT, self.platform.address, *limits)

    def _order_of(self, home: Home, quarter: int, tariff: Tariff, shelf: dict[str, str]) -> Order | None:
        made, stored, spare = home.produced_wh(quarter), int(shelf["storedWh"]), int(shelf["spareWh"])
        situation = Situation(home.number, quarter, made, stored, spare)
        if home.produces:
            receiver = self._homes[RECEIVER].owner.address if home.number == GIVER else None
            return make_ask(situation, tariff, receiver)
        return make_bid(situation, home.kwh_a_year, tariff, likes_solar=home.likes_solar)

    async def _order(self, home: Home, order: Order, until: int) -> None:
        """By its owner, or by the platform for it."""
        side = "ask" if home.produces else "bid"
        what = (order.energy_wh, order.limit, until)
        wishes = (order.partners,) if home.produces else (order.sources, order.partners)
        if home.number in PLATFORMS_CLIENTS:
            owner = home.owner.address
            await self._post.send(self.platform, MARKET, ORDERS[f"{side}For"], owner, *what, *wishes)
        else:
            await self._post.send(home.owner, MARKET, ORDERS[side], *what, *wishes)

    async def _ask(self, *calls: tuple[str, Sequence[Any]]) -> list[Any]:
        """The results; None for what is not told."""
        answers = await self._client.batch(calls)
        return [None if isinstance(answer, RpcError) else answer for answer in answers]


def _tariff(market: dict[str, str]) -> Tariff:
    return Tariff(int(market["floorWeiPerWh"]), int(market["ceilingWeiPerWh"]))


def _is_low(mandate: dict[str, str], until: int) -> bool:
    """Less than a tenth is left of one of its limits."""
    left = int(mandate["expiryAuction"]) - (until - MANDATE_AUCTIONS)
    return (
        int(mandate["energyWh"]) * 10 < MANDATE_WH
        or int(mandate["spendWei"]) * 10 < MANDATE_WEI
        or left * 10 < MANDATE_AUCTIONS
    )
