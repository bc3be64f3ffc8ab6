"""The market told again as plain dicts, and its clearing by its definition: every price is tried, every flow found by
looking for paths. What the state machine's market is held against."""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address
from tests.properties.ctt_model import NOTHING, Model, Owner, by_source, minus, plus, pro_rata, require

HIGHEST_PRICE = 12  # that the machine draws, and the tariff's ceiling


@dataclass
class Order:
    owner: Address
    placer: Address
    is_bid: bool
    energy: int
    price: int
    expiry: int
    sources: dict[int, int]
    partners: dict[Address, int]

    def top(self) -> int:
        return max([self.price, *self.sources.values(), *self.partners.values()])

    def bottom(self) -> int:
        return min([self.price, *self.partners.values()])


class Lot(NamedTuple):
    """What an ask offers of sources that no bid tells apart."""

    ask: int
    sources: tuple[int, ...]


class Trade(NamedTuple):
    """What the ledger tells of a trade: Wh by source."""

    buyer: Address
    seller: Address
    price: int
    parts: tuple[int, ...]


Name = int | Lot  # of what has a weight: an order's id, or a lot


@dataclass
class Mandate:
    energy: int
    spend: int
    buy: int
    sell: int
    expiry: int


class MarketModel(Model):
    """A method a rule, as `Model`."""

    floor = 2
    ceiling = HIGHEST_PRICE
    fee = 1
    blocks = 2
    orders_max = 5
    tokens_max = 8

    def begin(self, grid_operator: Address) -> None:
        self.grid_operator = grid_operator
        self.height, self.last_order = 1, 0
        self.orders: dict[int, Order] = {}
        self.mandates: dict[tuple[Address, Address], Mandate] = {}
        self.auctions: dict[int, tuple[int, int, int, int]] = {}

    @property
    def auction(self) -> int:
        return -(-self.height // self.blocks)

    # --- orders ---

    def place(self, order: Order) -> None:
        require(1 <= order.energy <= UINT64_MAX, "InvalidAmount")
        require(order.top() <= PRICE_MAX, "InvalidAmount")
        require(not {ZERO_ADDRESS, order.owner} & {*order.partners}, "InvalidPartner")
        require(order.expiry >= self.auction, "AuctionOver")
        require(any(token.owner == order.owner for token in self.tokens.values()), "NoTokens")
        other = self.standing(order.owner, not order.is_bid)
        if other:
            bid, ask = (order, self.orders[other]) if order.is_bid else (self.orders[other], order)
            require(bid.top() < ask.bottom(), "CrossesOwnOrder")
        old = self.standing(order.owner, order.is_bid)
        require(old or len(self.orders) < self.orders_max, "BookFull")
        self.orders.pop(old, None)
        self.last_order += 1
        self.orders[self.last_order] = order

    def place_for(self, order: Order) -> None:
        mandate = self.mandates.get((order.owner, order.placer))
        require(mandate, "NoMandate")
        assert mandate is not None
        inside = order.expiry <= mandate.expiry and order.energy <= mandate.energy
        priced = order.top() <= mandate.buy if order.is_bid else order.bottom() >= mandate.sell
        require(inside and priced, "OutsideMandate")
        old = self.standing(order.owner, order.is_bid)
        require(not old or self.orders[old].placer == order.placer, "NotPlacer")
        self.place(order)

    def cancel_order(self, sender: Address, order_id: int) -> None:
        require(order_id in self.orders, "UnknownOrder")
        require(self.orders[order_id].owner == sender, "NotOwner")
        del self.orders[order_id]

    def cancel_for(self, sender: Address, order_id: int) -> None:
        require(order_id in self.orders, "UnknownOrder")
        order = self.orders[order_id]
        require(order.placer == sender != order.owner, "NotPlacer")
        del self.orders[order_id]

    def standing(self, owner: Address, is_bid: bool) -> int:
        """The id of the account's bid or ask; 0 for none."""
        found = [name for name, each in self.orders.items() if (each.owner, each.is_bid) == (owner, is_bid)]
        assert len(found) <= 1
        return found[0] if found else 0

    # --- mandates ---

    def grant(self, owner: Address, platform: Address, mandate: Mandate) -> None:
        require(platform not in (ZERO_ADDRESS, owner), "InvalidPlatform")
        require(mandate.expiry >= self.auction, "AuctionOver")
        self.end_orders(owner, platform)
        self.mandates[owner, platform] = mandate

    def revoke_mandate(self, owner: Address, platform: Address) -> None:
        require((owner, platform) in self.mandates, "NoMandate")
        self.end_orders(owner, platform)
        del self.mandates[owner, platform]

    def end_orders(self, owner: Address, platform: Address) -> None:
        self.orders = {
            name: each for name, each in self.orders.items() if (each.owner, each.placer) != (owner, platform)
        }

    # --- the clearing ---

    def next_block(self, trades: Sequence[Trade]) -> None:
        """`trades` are those that the ledger told: the model checks who got which energy rather than finding it."""
        self.height += 1
        if self.height % self.blocks == 1 and self.orders:
            self.clear((self.height - 1) // self.blocks, trades)

    def clear(self, number: int, trades: Sequence[Trade]) -> None:
        share = max(self.tokens_max // len(self.orders), 1)
        owning = {token.owner for token in self.tokens.values()}
        self.orders = {name: each for name, each in sorted(self.orders.items()) if each.owner in owning}
        bids = [name for name, each in self.orders.items() if each.is_bid]
        asks = [name for name, each in self.orders.items() if not each.is_bid]
        weight: dict[Name, int] = {bid: self.room(self.orders[bid], share) for bid in bids}
        offers = {ask: self.deliverable(self.orders[ask], share) for ask in asks}
        left = dict(offers)

        deals: list[Trade] = []
        for ask in asks:
            owner = self.orders[ask].owner
            for partner, price in self.orders[ask].partners.items():
                bid = self.standing(partner, True)
                if not bid:
                    continue
                accepted = [
                    wh if self.partners_limit(bid, ask, source) >= price else 0
                    for source, wh in enumerate(left[ask])
                ]
                energy = min(sum(accepted), weight[bid])
                if energy:
                    parts = pro_rata(accepted, energy)
                    deals.append(Trade(partner, owner, price, parts))
                    left[ask] = minus(left[ask], parts)
                    weight[bid] -= energy
                    # From now on each is on one side only.
                    weight[self.standing(owner, True)] = 0
                    left[self.standing(partner, False)] = NOTHING
        assert list(trades[: len(deals)]) == deals
        pooled = trades[len(deals) :]
        lots = self.lots(bids, asks, weight, left)
        price, volume = self.price_of(bids, lots, weight)
        served = self.served(bids, lots, weight, price) if volume else {}
        self.check_pooled(pooled, price, served, left)
        self.settle(trades, offers)
        self.auctions[number] = (price, sum(sum(each.parts) for each in trades), len(bids), len(asks))
        self.orders = {
            name: each for name, each in self.orders.items() if each.energy and each.expiry > number
        }

    def lots(
        self,
        bids: list[int],
        asks: list[int],
        weight: dict[Name, int],
        left: dict[int, tuple[int, ...]],
    ) -> list[Lot]:
        """Of each ask what bids that still count tell apart: a source that one of them names, or all others."""
        named = sorted({source for bid in bids if weight[bid] for source in self.orders[bid].sources})
        others = tuple(source for source in range(6) if source not in named)
        found = [Lot(ask, sources) for ask in asks for sources in (*((each,) for each in named), others)]
        for lot in found:
            weight[lot] = sum(left[lot.ask][source] for source in lot.sources)
        return [lot for lot in found if weight[lot]]

    def check_pooled(
        self,
        pooled: Sequence[Trade],
        price: int,
        served: dict[Name, int],
        left: dict[int, tuple[int, ...]],
    ) -> None:
        """Each bid and each lot trades what it has a right to, at the price, and no bid gets what it does not accept."""
        bought: Counter[Name] = Counter()
        sold: dict[int, tuple[int, ...]] = dict.fromkeys(left, NOTHING)
        for trade in pooled:
            bid, ask = self.standing(trade.buyer, True), self.standing(trade.seller, False)
            assert trade.price == price
            bought[bid] += sum(trade.parts)
            sold[ask] = plus(sold[ask], trade.parts)
            for source, wh in enumerate(trade.parts):
                assert not wh or self.accepts(bid, Lot(ask, (source,)), price)
        for name, energy in served.items():
            if isinstance(name, Lot):
                parts = [sold[name.ask][source] for source in name.sources]
                assert sum(parts) == energy
                whole = [left[name.ask][source] for source in name.sources]
                # Each trade rounds by less than a Wh.
                for part, wh in zip(parts, whole, strict=True):
                    assert part <= wh
                    assert abs(part * sum(whole) - wh * energy) <= len(pooled) * sum(whole)
            else:
                assert bought[name] == energy
        assert sum(bought.values()) == sum(wh for name, wh in served.items() if not isinstance(name, Lot))

    def mandate(self, order: Order) -> Mandate | None:
        return self.mandates[order.owner, order.placer] if order.placer != order.owner else None

    def allowed(self, order: Order) -> int:
        mandate = self.mandate(order)
        return min(order.energy, mandate.energy) if mandate else order.energy

    def deliverable(self, order: Order, share: int) -> tuple[int, ...]:
        """What of an ask counts, by source."""
        full, partial, _, _ = self.touch(deepcopy(self.owners[order.owner]))
        return self.takings([*full, *partial][-share:], self.allowed(order))

    def takings(self, charged: list[int], energy: int) -> tuple[int, ...]:
        """What so much energy, from the last of these tokens on, is by source."""
        found = NOTHING
        for token in reversed(charged):
            taken = min(energy - sum(found), self.tokens[token].energy)
            found = plus(found, pro_rata(self.tokens[token].parts, taken))
        return found

    def room(self, order: Order, share: int) -> int:
        """What of a bid counts."""
        _, partial, empty, _ = self.touch(deepcopy(self.owners[order.owner]))
        mandate, energy = self.mandate(order), self.allowed(order)
        general = min(max([order.price, *order.sources.values()]), self.ceiling)
        cost = max([general, *order.partners.values()]) + self.fee
        purse = self.balances[order.owner]
        energy = min(energy, (min(purse, mandate.spend) if mandate else purse) // cost)
        rooms = [self.capability - self.tokens[token].energy for token in [*partial, *empty]]
        room = max(sum(rooms), 0) if len(rooms) <= share else sum(max(each, 0) for each in rooms[:share])
        return min(energy, room)

    def limit(self, bid: int, sources: tuple[int, ...]) -> int:
        """The bid's maximum in the auction for energy of these sources, which it does not tell apart."""
        wanted = self.orders[bid]
        return min(wanted.sources.get(sources[0], wanted.price), self.ceiling)

    def partners_limit(self, bid: int, ask: int, source: int) -> int:
        """The same where partners meet."""
        return self.orders[bid].partners.get(self.orders[ask].owner, self.limit(bid, (source,)))

    def accepts(self, bid: int, lot: Lot, price: int) -> bool:
        return self.limit(bid, lot.sources) >= price >= self.orders[lot.ask].price

    def price_of(self, bids: list[int], lots: list[Lot], weight: dict[Name, int]) -> tuple[int, int]:
        """The price and what it moves."""
        score = {}
        for price in range(self.floor, self.ceiling + 1):
            # Who wants no energy that anybody offers, or offers what is above every price, does not count as one side.
            demand = sum(
                weight[bid] for bid in bids if any(self.limit(bid, lot.sources) >= price for lot in lots)
            )
            supply = sum(weight[lot] for lot in lots if self.orders[lot.ask].price <= price)
            volume = sum(self.flow(bids, lots, weight, price).values())
            score[price] = (volume, -abs(demand - supply))
        best = max(score.values())
        if not best[0]:
            return 0, 0
        low = high = min(price for price in score if score[price] == best)
        while score.get(high + 1) == best:
            high += 1
        return (low + high) // 2, best[0]

    def served(
        self, bids: list[int], lots: list[Lot], weight: dict[Name, int], price: int
    ) -> dict[Name, int]:
        """In the order of right, each gets as much more as there can be with it than without."""

        def right(bid: int) -> tuple[int, int]:
            limits = [limit for lot in lots if (limit := self.limit(bid, lot.sources)) >= price]
            return -min(limits, default=0), bid

        def cheap(lot: Lot) -> int:
            return max(self.orders[lot.ask].price, self.floor)

        got: dict[Name, int] = {}
        before = 0
        for count, bid in enumerate(buyers := sorted(bids, key=right), 1):
            most = sum(self.flow(buyers[:count], lots, weight, price).values())
            got[bid], before = most - before, most
        before = 0
        for count, lot in enumerate(sellers := sorted(lots, key=cheap), 1):
            most = sum(self.flow(bids, sellers[:count], weight, price).values())
            got[lot], before = most - before, most
        return got

    def flow(
        self, bids: Sequence[int], lots: Sequence[Lot], weight: dict[Name, int], price: int
    ) -> dict[tuple[int, Lot], int]:
        """The most energy that can go from these lots to these bids, found path by path."""
        left: dict[Name, int] = {name: weight[name] for name in weight}
        sent: dict[tuple[int, Lot], int] = {}

        def push(bid: int, energy: int, seen: set[Lot]) -> int:
            for lot in lots:
                if lot in seen or not self.accepts(bid, lot, price):
                    continue
                seen.add(lot)
                found = min(energy, left[lot])
                left[lot] -= found
                if not found:
                    for other in bids:
                        if other != bid and sent.get((other, lot)):
                            found = push(other, min(energy, sent[other, lot]), seen)
                            sent[other, lot] -= found
                            if found:
                                break
                if found:
                    sent[bid, lot] = sent.get((bid, lot), 0) + found
                    return found
            return 0

        for bid in bids:
            while left[bid] and (found := push(bid, left[bid], set())):
                left[bid] -= found
        return sent

    def settle(self, trades: Sequence[Trade], offers: dict[int, tuple[int, ...]]) -> None:
        for name, order in self.orders.items():
            mine = [each for each in trades if order.owner == (each.buyer if order.is_bid else each.seller)]
            parts = by_source([each.parts for each in mine])
            energy = sum(parts)
            if not energy:
                continue
            money = sum(sum(each.parts) * each.price for each in mine)
            spent = money + energy * self.fee if order.is_bid else 0
            if order.is_bid:
                assert self.charge(self.owners[order.owner], parts) == energy
                self.pay(order.owner, self.grid_operator, energy * self.fee)
                self.balances[order.owner] -= money
            else:
                self.sell(self.owners[order.owner], sum(offers[name]), parts)
                self.balances[order.owner] += money
            order.energy -= energy
            mandate = self.mandate(order)
            if mandate:
                mandate.energy -= energy
                mandate.spend -= spent
                assert min(mandate.energy, mandate.spend) >= 0
            assert self.balances[order.owner] >= 0

    def sell(self, owner: Owner, offered: int, sold: tuple[int, ...]) -> None:
        """Drains as a consumption does; what the tokens of the offer then still hold becomes what was not sold."""
        full, partial, _, _ = self.touch(owner)
        charged = [*full, *partial]
        holding = [
            at for at in charged if sum(self.takings(charged[charged.index(at) + 1 :], offered)) < offered
        ]
        drained = self.drain(owner, sum(sold))
        if drained == sold:
            return
        rest = minus(by_source([drained, *[self.tokens[at].parts for at in holding]]), sold)
        for at in reversed(holding):
            self.tokens[at].parts = pro_rata(rest, self.tokens[at].energy)
            rest = minus(rest, self.tokens[at].parts)
