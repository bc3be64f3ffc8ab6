"""The market told again as plain dicts, and its clearing by its definition: every price is tried, every flow found by
looking for paths. What the state machine's market is held against."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address
from tests.properties.ctt_model import Model, require

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

    def next_block(self) -> None:
        self.height += 1
        if self.height % self.blocks == 1 and self.orders:
            self.clear((self.height - 1) // self.blocks)

    def clear(self, number: int) -> None:
        share = max(self.tokens_max // len(self.orders), 1)
        owning = {token.owner for token in self.tokens.values()}
        self.orders = {name: each for name, each in sorted(self.orders.items()) if each.owner in owning}
        weight = {name: self.weight(each, share) for name, each in self.orders.items()}
        bids = [name for name, each in self.orders.items() if each.is_bid]
        asks = [name for name, each in self.orders.items() if not each.is_bid]

        moved = dict.fromkeys(self.orders, 0)
        money = dict.fromkeys(self.orders, 0)
        for ask in asks:
            owner = self.orders[ask].owner
            for partner, price in self.orders[ask].partners.items():
                bid = self.standing(partner, True)
                if bid and self.partners_limit(bid, ask) >= price:
                    energy = min(weight[ask], weight[bid])
                    for name in (ask, bid):
                        weight[name] -= energy
                        moved[name] += energy
                        money[name] += energy * price
                    # From now on each is on one side only.
                    for name in (self.standing(owner, True), self.standing(partner, False)):
                        if energy and name:
                            weight[name] = 0
        price, volume = self.price_of(bids, asks, weight)
        if volume:
            for name, energy in self.served(bids, asks, weight, price).items():
                moved[name] += energy
                money[name] += energy * price
        self.settle(moved, money)
        self.auctions[number] = (price, sum(moved[bid] for bid in bids), len(bids), len(asks))
        self.orders = {
            name: each for name, each in self.orders.items() if each.energy and each.expiry > number
        }

    def weight(self, order: Order, share: int) -> int:
        """What of the order counts."""
        owner = deepcopy(self.owners[order.owner])
        full, partial, empty, _ = self.touch(owner)
        mandate = self.mandates[order.owner, order.placer] if order.placer != order.owner else None
        energy = min(order.energy, mandate.energy) if mandate else order.energy
        if not order.is_bid:
            return min(energy, sum(self.tokens[token].energy for token in [*full, *partial][-share:]))
        general = min(max([order.price, *order.sources.values()]), self.ceiling)
        cost = max([general, *order.partners.values()]) + self.fee
        purse = self.balances[order.owner]
        energy = min(energy, (min(purse, mandate.spend) if mandate else purse) // cost)
        rooms = [self.capability - self.tokens[token].energy for token in [*partial, *empty]]
        room = max(sum(rooms), 0) if len(rooms) <= share else sum(max(each, 0) for each in rooms[:share])
        return min(energy, room)

    def source_of(self, owner: Address) -> int:
        prosumer = self.owners[owner]
        meter = self.meters.get(prosumer.meter)
        return meter.source if prosumer.confirmed and meter and meter.certified else 0

    def limit(self, bid: int, ask: int) -> int:
        """The bid's maximum for this ask's energy in the auction."""
        wanted = self.orders[bid]
        return min(wanted.sources.get(self.source_of(self.orders[ask].owner), wanted.price), self.ceiling)

    def partners_limit(self, bid: int, ask: int) -> int:
        """The same where partners meet."""
        return self.orders[bid].partners.get(self.orders[ask].owner, self.limit(bid, ask))

    def accepts(self, bid: int, ask: int, price: int) -> bool:
        return self.limit(bid, ask) >= price >= self.orders[ask].price

    def price_of(self, bids: list[int], asks: list[int], weight: dict[int, int]) -> tuple[int, int]:
        """The price and what it moves."""
        score = {}
        for price in range(self.floor, self.ceiling + 1):
            # Who wants no energy that anybody offers, or offers what is above every price, does not count as one side.
            demand = sum(
                weight[bid]
                for bid in bids
                if any(self.limit(bid, ask) >= price for ask in asks if weight[ask])
            )
            supply = sum(weight[ask] for ask in asks if self.orders[ask].price <= price)
            volume = sum(self.flow(bids, asks, weight, price).values())
            score[price] = (volume, -abs(demand - supply))
        best = max(score.values())
        if not best[0]:
            return 0, 0
        low = high = min(price for price in score if score[price] == best)
        while score.get(high + 1) == best:
            high += 1
        return (low + high) // 2, best[0]

    def served(self, bids: list[int], asks: list[int], weight: dict[int, int], price: int) -> dict[int, int]:
        """In the order of right, each gets as much more as there can be with it than without."""

        def right(bid: int) -> tuple[int, int]:
            limits = [self.limit(bid, ask) for ask in asks if weight[ask] and self.limit(bid, ask) >= price]
            return -min(limits, default=0), bid

        def cheap(ask: int) -> tuple[int, int]:
            return max(self.orders[ask].price, self.floor), ask

        got, before = {}, 0
        for count, bid in enumerate(ranked := sorted(bids, key=right), 1):
            most = sum(self.flow(ranked[:count], asks, weight, price).values())
            got[bid], before = most - before, most
        before = 0
        for count, ask in enumerate(ranked := sorted(asks, key=cheap), 1):
            most = sum(self.flow(bids, ranked[:count], weight, price).values())
            got[ask], before = most - before, most
        return got

    def flow(
        self, bids: Sequence[int], asks: Sequence[int], weight: dict[int, int], price: int
    ) -> dict[tuple[int, int], int]:
        """The most energy that can go from these asks to these bids, found path by path."""
        left = {name: weight[name] for name in (*bids, *asks)}
        sent: dict[tuple[int, int], int] = {}

        def push(bid: int, energy: int, seen: set[int]) -> int:
            for ask in asks:
                if ask in seen or not self.accepts(bid, ask, price):
                    continue
                seen.add(ask)
                found = min(energy, left[ask])
                left[ask] -= found
                if not found:
                    for other in bids:
                        if other != bid and sent.get((other, ask)):
                            found = push(other, min(energy, sent[other, ask]), seen)
                            sent[other, ask] -= found
                            if found:
                                break
                if found:
                    sent[bid, ask] = sent.get((bid, ask), 0) + found
                    return found
            return 0

        for bid in bids:
            while left[bid] and (found := push(bid, left[bid], set())):
                left[bid] -= found
        return sent

    def settle(self, moved: dict[int, int], money: dict[int, int]) -> None:
        for name, energy in moved.items():
            order = self.orders[name]
            if not energy:
                continue
            spent = money[name] + energy * self.fee if order.is_bid else 0
            if order.is_bid:
                assert self.charge(self.owners[order.owner], energy) == energy
                self.pay(order.owner, self.grid_operator, energy * self.fee)
                self.balances[order.owner] -= money[name]
            else:
                assert self.drain(self.owners[order.owner], energy) == energy
                self.balances[order.owner] += money[name]
            order.energy -= energy
            if order.placer != order.owner:
                mandate = self.mandates[order.owner, order.placer]
                mandate.energy -= energy
                mandate.spend -= spent
                assert min(mandate.energy, mandate.spend) >= 0
            assert self.balances[order.owner] >= 0
