"""The clearing: what stands in the book is capped by what its owner can deliver now, matched and settled.

The block after an auction's last one begins with it, in a transaction that nobody signed (docs/PROTOCOL.md, M-4). It
takes three steps: every order is given its weight; asks are matched with the partners they name, each at its own price,
then all that is left at one price (`auction`); energy moves from token to token and money from account to account. No
account both buys and sells: its bid lies below its ask, so never both are served at one price, and who has traded with
a partner stays on that side. So what each can deliver is known before anything moves.
"""

import operator
from collections.abc import Sequence
from typing import Final, NamedTuple

from ctt_state.modules.call import NO_ACCOUNT, Call, MarketRules
from ctt_state.modules.ctt.energy import TOKENS_PER_READING_MAX, charge, chargeable, offer, sell
from ctt_state.modules.ctt.module import CTT, config_of, prosumer_of
from ctt_state.modules.ctt.shelf import refresh
from ctt_state.modules.market import auction
from ctt_state.modules.market.auction import Ask, Bid
from ctt_state.modules.market.book import orders_in, take_out
from ctt_state.modules.market.module import (
    MARKET,
    AuctionCleared,
    NotTheChain,
    OrderExpired,
    OriginTraded,
    PartnerTraded,
    Traded,
    auction_at,
    book_of,
    order_of,
    rules_of,
    tariff_of,
)
from ctt_state.modules.market.orders import end
from ctt_state.origin import SOURCE_MAX, apportion, from_parts
from ctt_state.records import (
    PAGE_ORDERS,
    PAGE_TOKENS,
    Account,
    Auction,
    Mandate,
    MarketTariff,
    Order,
    Prosumer,
)
from ctt_state.units import ZERO_ADDRESS, Address, Gas, Wei, Wh
from ctt_state.view import GAS_PER_RECORD_READ, GAS_PER_RECORD_WRITTEN

# What a clearing touches for an order: the order, the owner's account, shelf, standing orders and mandate are read and
# written, two pages of its shelf are read. Tokens are counted apart.
READ_PER_ORDER: Final = 7
WRITTEN_PER_ORDER: Final = 5
OTHER_RECORDS: Final = 16  # tariff, CTT, book, result, grid operator; and the flat gas of a transaction

Parts = Sequence[int]  # Wh by source, those of none first
NOTHING: Final[Parts] = (0,) * (SOURCE_MAX + 1)


class Side(NamedTuple):
    """A standing order at the clearing, with what of it counts."""

    order_id: int
    order: Order
    weight_wh: Wh
    parts: Parts = NOTHING  # of an ask's weight


class Deal(NamedTuple):
    """Energy that a buyer gets from a seller, by their places among the bids and the asks."""

    bid: int
    ask: int
    parts: Parts
    price_wei_per_wh: Wei
    is_partners: bool = False

    @property
    def energy_wh(self) -> Wh:
        return Wh(sum(self.parts))


def clearing_gas_max(rules: MarketRules) -> Gas:
    """What no clearing can pass, with the book full and every token of its share changed."""
    tokens = max(rules.tokens_max, rules.orders_max)
    pages = -(-rules.orders_max // PAGE_ORDERS)
    others = tokens + pages + OTHER_RECORDS
    read = rules.orders_max * READ_PER_ORDER + tokens // PAGE_TOKENS + others
    written = rules.orders_max * WRITTEN_PER_ORDER + others
    return Gas(read * GAS_PER_RECORD_READ + written * GAS_PER_RECORD_WRITTEN)


@MARKET.function("clear() returns (uint256 price,uint256 energy)")
def clear(call: Call) -> tuple[int, int]:
    """Clears the auction that ended with the block before. Only the chain itself does; by `eth_call` anyone sees what
    it would come to.

    Raises: NoMarket, NotTheChain, NotCreated of the CTT, in that order.
    """
    rules = rules_of(call)
    if call.sender != ZERO_ADDRESS:
        raise NotTheChain(call.sender)
    number = auction_at(call.block.height - 1, rules.auction_blocks)
    tariff = tariff_of(call)
    bids, asks = _sides(call, rules, tariff)
    deals = _nominated(bids, asks, tariff)
    price, pooled = _auctioned(bids, asks, deals, tariff)
    deals += pooled
    _settle(call, bids, asks, deals, tariff)
    _close(call, number, (*bids, *asks))

    energy = sum(deal.energy_wh for deal in deals)
    result = Auction(number, call.block.height, Wei(price), Wh(energy), len(bids), len(asks))
    call.put(Auction.key(number), result)
    call.emit(AuctionCleared(number, price, energy, len(bids), len(asks)))
    return price, energy


# --- what counts ---


def _sides(call: Call, rules: MarketRules, tariff: MarketTariff) -> tuple[list[Side], list[Side]]:
    """Bids and asks in time order. Orders of accounts that own no token any more end here."""
    standing = book_of(call).standing
    tokens_max = min(max(rules.tokens_max // max(standing, 1), 1), TOKENS_PER_READING_MAX)
    capability = config_of(call).capability_wh
    bids: list[Side] = []
    asks: list[Side] = []
    for order_id, order in sorted(orders_in(call, 0, standing), key=lambda each: each[0]):
        owner = refresh(prosumer_of(call, order.owner), capability)
        if not owner.tokens:
            end(call, order_id, order)
        elif order.is_bid:
            weight = chargeable(call, order.owner, owner, _payable(call, order, tariff), tokens_max)
            bids.append(Side(order_id, order, weight))
        else:
            parts = offer(call, order.owner, owner, _allowed(call, order), tokens_max)
            asks.append(Side(order_id, order, Wh(sum(parts)), parts))
    return bids, asks


def _allowed(call: Call, order: Order) -> Wh:
    """What of the order's energy its mandate lets through."""
    mandate = _mandate(call, order)
    return Wh(min(order.energy_wh, mandate.energy_wh)) if mandate else order.energy_wh


def _payable(call: Call, order: Order, tariff: MarketTariff) -> Wh:
    """The same for a bid, as far as its owner could pay for it at the highest price that it may come to."""
    energy = _allowed(call, order)
    general = [order.limit_wei_per_wh, *[price for _, price in order.sources]]
    dearest = max([min(max(general), tariff.ceiling_wei_per_wh), *[price for _, price in order.partners]])
    cost = dearest + tariff.grid_fee_wei_per_wh
    if not cost:
        return energy
    account, mandate = call.get(Account, Account.key(order.owner)) or NO_ACCOUNT, _mandate(call, order)
    money = min(account.balance, mandate.spend_wei) if mandate else account.balance
    return Wh(min(energy, money // cost))


def _mandate(call: Call, order: Order) -> Mandate | None:
    """Under which the order was placed; None for an owner's own."""
    if order.placer == order.owner:
        return None
    found = call.get(Mandate, Mandate.key(order.owner, order.placer))
    if found is None:
        raise AssertionError(f"an order of 0x{order.owner.hex()} has no mandate")
    return found


# --- who trades with whom ---


def _nominated(bids: list[Side], asks: list[Side], tariff: MarketTariff) -> list[Deal]:
    """Each ask in turn serves the partners that it names, in its order, at the price that it names for each, if they
    have a bid that goes so high for this seller's energy. A price of 0 makes it a gift. Who has bought sells no more,
    and who has sold buys no more."""
    places = {side.order.owner: place for place, side in enumerate(bids)}
    wanted = [side.weight_wh for side in bids]
    sold: set[Address] = set()
    bought: set[Address] = set()
    deals: list[Deal] = []
    for place, seller in enumerate(asks):
        left, owner = seller.parts, seller.order.owner
        for partner, price in seller.order.partners:
            at = places.get(partner)
            if at is None or owner in bought or partner in sold:
                continue
            accepted = [
                wh if wh and _limit_for(bids[at].order, owner, source, tariff) >= price else 0
                for source, wh in enumerate(left)
            ]
            energy = min(sum(accepted), wanted[at])
            if energy:
                parts = apportion(accepted, energy)
                deals.append(Deal(at, place, parts, price, is_partners=True))
                wanted[at], left = Wh(wanted[at] - energy), _subtract(left, parts)
                sold.add(owner)
                bought.add(partner)
    return deals


def _limit_for(order: Order, seller: Address, source: int, tariff: MarketTariff) -> Wei:
    """The bid's maximum for energy of this source from this seller: by partner, else by source, else in general, and
    these two at most the ceiling: for no more is its money counted."""
    by_source = dict(order.sources).get(source, order.limit_wei_per_wh)
    return dict(order.partners).get(seller, min(by_source, tariff.ceiling_wei_per_wh))


def _auctioned(
    bids: list[Side], asks: list[Side], deals: list[Deal], tariff: MarketTariff
) -> tuple[Wei, list[Deal]]:
    """The one price, between floor and ceiling, and the deals at it, of what is not nominated. Who has traded with
    a partner stays on that side."""
    wanted, offered = _not_nominated(bids, asks, deals)
    floor, ceiling = tariff.floor_wei_per_wh, tariff.ceiling_wei_per_wh
    buyers = [place for place, energy in enumerate(wanted) if energy]
    sellers = [
        place
        for place, parts in enumerate(offered)
        if any(parts) and asks[place].order.limit_wei_per_wh <= ceiling
    ]
    groups = _groups([bids[place].order for place in buyers], [offered[place] for place in sellers])
    lots = [
        (place, group, parts)
        for place in sellers
        for group, sources in enumerate(groups)
        if any(parts := _only(offered[place], sources))
    ]
    result = auction.clear(
        [Bid(wanted[place], _limits(bids[place].order, groups, tariff)) for place in buyers],
        [
            Ask(sum(parts), max(asks[place].order.limit_wei_per_wh, floor), group)
            for place, group, parts in lots
        ],
        len(groups),
    )
    price = Wei(result.price)
    pairs: dict[tuple[int, int], Parts] = {}
    for bid, lot, energy in result.trades:
        place, group, left = lots[lot]
        parts = apportion(left, energy)
        lots[lot] = place, group, _subtract(left, parts)
        pair = buyers[bid], place
        pairs[pair] = _add(pairs[pair], parts) if pair in pairs else parts
    return price, [Deal(bid, ask, parts, price) for (bid, ask), parts in pairs.items()]


def _not_nominated(bids: list[Side], asks: list[Side], deals: list[Deal]) -> tuple[list[Wh], list[Parts]]:
    """What bids still want and asks still offer after these deals."""
    sold = {asks[deal.ask].order.owner for deal in deals}
    bought = {bids[deal.bid].order.owner for deal in deals}
    wanted = [Wh(0) if side.order.owner in sold else side.weight_wh for side in bids]
    offered = [NOTHING if side.order.owner in bought else side.parts for side in asks]
    for deal in deals:
        wanted[deal.bid] = Wh(wanted[deal.bid] - deal.energy_wh)
        offered[deal.ask] = _subtract(offered[deal.ask], deal.parts)
    return wanted, offered


def _groups(buyers: list[Order], offers: list[Parts]) -> list[tuple[int, ...]]:
    """Sources that are told apart: each one that somebody offers and somebody names, then all others on offer."""
    wished = {source for order in buyers for source, _ in order.sources}
    offered = [source for source in range(SOURCE_MAX + 1) if any(parts[source] for parts in offers)]
    groups: list[tuple[int, ...]] = [(source,) for source in offered if source in wished]
    others = tuple([source for source in offered if source not in wished])
    return [*groups, others] if others else groups


def _limits(order: Order, groups: list[tuple[int, ...]], tariff: MarketTariff) -> tuple[int, ...]:
    """The bid's maximum for each group; what is above the ceiling counts as the ceiling."""
    own, general = dict(order.sources), order.limit_wei_per_wh
    return tuple([min(own.get(sources[0], general), tariff.ceiling_wei_per_wh) for sources in groups])


# --- what moves ---


def _settle(call: Call, bids: list[Side], asks: list[Side], deals: list[Deal], tariff: MarketTariff) -> None:
    """Each order's deals are settled as one, sellers first; the grid fee comes on top of the price."""
    fee = tariff.grid_fee_wei_per_wh
    given, earned = [NOTHING] * len(asks), [0] * len(asks)
    taken, paid = [NOTHING] * len(bids), [0] * len(bids)
    fees = 0
    for deal in deals:
        energy, price = deal.energy_wh, deal.price_wei_per_wh
        given[deal.ask] = _add(given[deal.ask], deal.parts)
        earned[deal.ask] += energy * price
        taken[deal.bid] = _add(taken[deal.bid], deal.parts)
        paid[deal.bid] += energy * (price + fee)
        fees += energy * fee
    for place, side in enumerate(asks):
        if any(given[place]):
            _serve(call, side, given[place], earned[place])
    for place, side in enumerate(bids):
        if any(taken[place]):
            _serve(call, side, taken[place], -paid[place])
    _pay(call, tariff.grid_operator, fees)
    for deal in deals:
        buyer, seller = bids[deal.bid].order.owner, asks[deal.ask].order.owner
        told = PartnerTraded if deal.is_partners else Traded
        call.emit(told(buyer, seller, deal.energy_wh, deal.price_wei_per_wh))
        for source, wh in enumerate(deal.parts):
            if source and wh:
                call.emit(OriginTraded(buyer, seller, source, wh))


def _serve(call: Call, side: Side, parts: Parts, wei: int) -> None:
    """Moves what the order has got, and keeps what is left of it and of its mandate."""
    order, energy = side.order, sum(parts)
    # For the events of tokens.
    shelves = Call(call.view, call.to, CTT.address, Wei(0), call.block, call.chain)
    owner = refresh(prosumer_of(call, order.owner), config_of(call).capability_wh)
    if order.is_bid:
        shelf = charge(shelves, order.owner, owner, Wh(energy), from_parts(parts))
    else:
        shelf = sell(shelves, order.owner, owner, side.weight_wh, parts)
    if shelf.moved_wh != energy:
        raise AssertionError(f"0x{order.owner.hex()} moved {shelf.moved_wh} Wh of {energy} Wh")
    call.put(Prosumer.key(order.owner), shelf.owner)
    _pay(call, order.owner, wei)
    left = order_of(call, side.order_id)
    call.put(Order.key(side.order_id), left._replace(energy_wh=Wh(left.energy_wh - energy)))
    mandate = _mandate(call, order)
    if mandate:
        spent = -wei if order.is_bid else 0
        after = mandate._replace(
            energy_wh=Wh(mandate.energy_wh - energy), spend_wei=Wei(mandate.spend_wei - spent)
        )
        call.put(Mandate.key(order.owner, order.placer), after)


def _only(parts: Parts, sources: tuple[int, ...]) -> Parts:
    return [wh if source in sources else 0 for source, wh in enumerate(parts)]


def _add(one: Parts, other: Parts) -> Parts:
    return [*map(operator.add, one, other)]


def _subtract(one: Parts, part: Parts) -> Parts:
    return [*map(operator.sub, one, part)]


def _pay(call: Call, to: Address, wei: int) -> None:
    if wei:
        call.add_balance(to, wei)


def _close(call: Call, number: int, sides: tuple[Side, ...]) -> None:
    """Takes out of the book what is served whole, and what ends with this auction."""
    for side in sides:
        order = order_of(call, side.order_id)
        if order.energy_wh and order.expiry_auction > number:
            continue
        take_out(call, side.order_id, order)
        if order.energy_wh:
            call.emit(OrderExpired(side.order_id, order.owner, order.energy_wh))
