"""Any history of transactions with a market in it: the ledger clears as the definition does, keeps its invariants,
conserves energy and money (S-1, S-10, S-12, M-1 to M-10)."""

from typing import Any, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from ctt_state.block import Log
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import OriginTraded, PartnerTraded, Traded
from ctt_state.records import Account, Auction, MarketBook
from ctt_state.records import Mandate as MandateRecord
from ctt_state.records import Order as OrderRecord
from ctt_state.transition import apply_due, due_transaction
from ctt_state.units import Address, Wei
from tests.market_world import MarketWorld
from tests.properties.ctt_model import NOTHING
from tests.properties.market_model import HIGHEST_PRICE, Mandate, MarketModel, Order, Trade
from tests.properties.test_ctt_machine import (
    CAPABILITY,
    MAX_SUPPLY,
    OWNERS,
    CttMachine,
    often,
    owners,
    powers,
)
from tests.world import ADMIN, ALICE, BOB, CAROL, MALLORY, OPERATOR, START_MS, WEALTH_WEI, World

PLATFORM: Final = MALLORY
BID: Final = "bid(uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
ASK: Final = "ask(uint256,uint256,uint64,(address,uint256)[])"
BID_FOR: Final = "bidFor(address,uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
ASK_FOR: Final = "askFor(address,uint256,uint256,uint64,(address,uint256)[])"
GRANT: Final = "grantMandate(address,uint256,uint256,uint256,uint256,uint64)"

traders = st.sampled_from((*OWNERS, *OWNERS, ADMIN, OPERATOR))


class Wanted(NamedTuple):
    """An order that somebody may want to place; it lasts for so many auctions after the present one."""

    owner: Address
    is_bid: bool
    energy: int
    price: int
    lasting: int
    sources: dict[int, int]
    partners: dict[Address, int]
    by_platform: bool


def wish(is_bid: bool, energies: st.SearchStrategy[int]) -> st.SearchStrategy[Wanted]:
    """Bids high and asks low, mostly, so that they meet."""
    prices = st.integers(3, HIGHEST_PRICE + 1) if is_bid else st.integers(0, 8)
    return st.builds(
        Wanted,
        traders if is_bid else st.sampled_from(OWNERS),
        st.just(is_bid),
        energies,
        prices,
        st.sampled_from((4, 4, 4, 1, 0, -1)),
        st.dictionaries(st.sampled_from((1, 2, 0)), st.integers(0, HIGHEST_PRICE), max_size=2),
        st.dictionaries(traders, prices, max_size=3),
        st.sampled_from((False, False, True)),
    )


sensible = st.sampled_from((100, 40, 130, 250)) | st.integers(1, 300)
wishes = st.booleans().flatmap(lambda is_bid: wish(is_bid, sensible | st.sampled_from((0, 2**64))))
books = st.lists(
    st.booleans().flatmap(lambda is_bid: wish(is_bid, sensible)),
    min_size=4,
    max_size=8,
    unique_by=lambda wanted: (wanted.owner, wanted.is_bid),
)


def trades_of(logs: tuple[Log, ...]) -> list[Trade]:
    """What the clearing told: of each trade the energy, and behind it how much of that is of which source."""
    trades: list[Trade] = []
    for _, (topic, *topics), data in logs:
        if topic in (Traded.topic, PartnerTraded.topic):
            buyer, seller = (Address(each[12:]) for each in topics)
            energy, price = int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")
            trades.append(Trade(buyer, seller, price, (energy, *NOTHING[1:])))
        elif topic == OriginTraded.topic:
            source, energy = int.from_bytes(topics[2], "big"), int.from_bytes(data, "big")
            parts = list(trades[-1].parts)
            parts[0], parts[source] = parts[0] - energy, energy
            trades[-1] = trades[-1]._replace(parts=tuple(parts))
    return trades


class MarketMachine(CttMachine):
    """All that the CTT's machine does, and orders; every second block clears."""

    model: MarketModel

    def make_world(self) -> World:
        model = MarketModel
        world = MarketWorld(
            auction_blocks=model.blocks,
            orders_max=model.orders_max,
            tokens_max=model.tokens_max,
            floor=model.floor,
            ceiling=model.ceiling,
            grid_fee=model.fee,
            max_supply=MAX_SUPPLY,
            capability_wh=CAPABILITY,
        )
        world.module = World.module
        return world

    def make_model(self) -> MarketModel:
        model = MarketModel(ADMIN, OPERATOR, max_supply=MAX_SUPPLY, capability=CAPABILITY, now=START_MS)
        model.begin(OPERATOR)
        return model

    @initialize(power=powers)
    def move_in(self, power: int) -> None:
        """As the CTT's machine; Alice and Bob let the platform trade for them, and there is room for energy."""
        super().move_in(power)
        for owner in (ALICE, BOB):
            self.grant(owner, PLATFORM, 300, 4_000, HIGHEST_PRICE, 0, 20)
        for owner in (BOB, CAROL, ADMIN, OPERATOR):
            self.buy_empty(owner, 2, 0)

    @rule(blocks=st.integers(1, 3))
    def pass_blocks(self, blocks: int) -> None:
        for _ in range(blocks):
            self.wait(333)

    def next_block(self, duration_ms: int) -> None:
        super().next_block(duration_ms)
        due = due_transaction(self.world.overlay.lookup, self.world.block, self.world.chain)
        logs: tuple[Log, ...] = ()
        if due is not None:
            receipt = apply_due(self.world.overlay, due, self.world.block, self.world.chain)
            assert receipt.succeeded
            logs = receipt.logs
        self.model.next_block(trades_of(logs))

    # --- orders ---

    @rule(orders=books)
    def trade_until_the_clearing(self, orders: list[Wanted]) -> None:
        for wanted in orders:
            self.order(wanted)
        while self.model.height % self.model.blocks:
            self.wait(333)
        self.wait(333)

    @rule(wanted=wishes)
    def order(self, wanted: Wanted) -> None:
        owner, expiry = wanted.owner, max(self.model.auction + wanted.lasting, 0)
        is_poor = self.model.balances[owner] < WEALTH_WEI // 2  # cannot pay for a transaction of its own
        placer = PLATFORM if wanted.by_platform or is_poor else owner
        partners = {
            name: price for name, price in wanted.partners.items() if name != owner or wanted.lasting == 4
        }
        sources = wanted.sources if wanted.is_bid else {}
        order = Order(owner, placer, wanted.is_bid, wanted.energy, wanted.price, expiry, sources, partners)
        what: list[Any] = [wanted.energy, wanted.price, expiry, list(partners.items())]
        if wanted.is_bid:
            what.insert(3, list(sources.items()))
        if placer == PLATFORM:
            signature = BID_FOR if wanted.is_bid else ASK_FOR
            self.trade(lambda: self.model.place_for(order), placer, signature, owner, *what)
        else:
            self.trade(lambda: self.model.place(order), owner, BID if wanted.is_bid else ASK, *what)

    @precondition(lambda self: self.model.last_order)
    @rule(data=st.data(), honest=often, other=owners)
    def cancel_order(self, data: st.DataObject, honest: bool, other: Address) -> None:
        number = data.draw(st.sampled_from((*self.model.orders, *self.model.orders, self.model.last_order)))
        order = self.model.orders.get(number)
        if order and order.placer != order.owner and honest:
            self.trade(
                lambda: self.model.cancel_for(PLATFORM, number), PLATFORM, "cancelFor(uint256)", number
            )
            return
        sender = order.owner if order and honest else other
        self.trade(lambda: self.model.cancel_order(sender, number), sender, "cancel(uint256)", number)

    # --- mandates ---

    @rule(
        owner=owners,
        platform=st.sampled_from((PLATFORM, PLATFORM, ALICE)),
        energy=st.integers(0, 300),
        spend=st.integers(0, 3_000),
        buy=st.integers(0, HIGHEST_PRICE),
        sell=st.integers(0, HIGHEST_PRICE),
        lasting=st.integers(-1, 9),
    )
    def grant(
        self, owner: Address, platform: Address, energy: int, spend: int, buy: int, sell: int, lasting: int
    ) -> None:
        expiry = max(self.model.auction + lasting, 0)
        mandate = Mandate(energy, spend, buy, sell, expiry)
        expect = lambda: self.model.grant(owner, platform, mandate)
        self.trade(expect, owner, GRANT, platform, energy, spend, buy, sell, expiry)

    @rule(owner=owners)
    def revoke_mandate(self, owner: Address) -> None:
        expect = lambda: self.model.revoke_mandate(owner, PLATFORM)
        self.trade(expect, owner, "revokeMandate(address)", PLATFORM)

    def trade(self, expect: Any, sender: Address, signature: str, *arguments: Any) -> None:
        self.send_to(MARKET, expect, sender, signature, *arguments)

    # --- what holds after every step ---

    @invariant()
    def the_markets_agree(self) -> None:
        records = self.world.overlay.changes
        orders = {
            int.from_bytes(key[1:], "big"): Order(
                each.owner,
                each.placer,
                each.is_bid,
                each.energy_wh,
                each.limit_wei_per_wh,
                each.expiry_auction,
                dict(each.sources),
                dict(each.partners),
            )
            for key, each in records.items()
            if isinstance(each, OrderRecord)
        }
        mandates = {
            (Address(key[1:21]), Address(key[21:])): Mandate(*each)
            for key, each in records.items()
            if isinstance(each, MandateRecord)
        }
        auctions = {each.number: (*each[2:],) for each in records.values() if isinstance(each, Auction)}
        book = self.world.get(MarketBook.key()) or MarketBook()

        assert orders == self.model.orders
        assert mandates == self.model.mandates
        assert auctions == self.model.auctions
        assert book.last_order_id == self.model.last_order


TestMarketMachine = MarketMachine.TestCase
TestMarketMachine.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)


@given(days=st.lists(books, min_size=1, max_size=3), purse=st.none() | st.integers(0, 3_000))
@settings(max_examples=60, deadline=None)
def test_any_book_clears_as_the_definition_does(days: list[list[Wanted]], purse: int | None) -> None:
    """M-3 to M-10, one auction after the other, without anything in between; Alice may be poor."""
    machine = MarketMachine()
    machine.move_in(0)
    if purse is not None:
        given = machine.model.balances[ALICE] - purse
        machine.world.put(
            Account.key(ALICE), machine.world.get(Account.key(ALICE))._replace(balance=Wei(purse))
        )
        machine.world.issued_wei = Wei(machine.world.issued_wei - given)
        machine.model.balances[ALICE] = purse
    for orders in days:
        machine.trade_until_the_clearing(orders)
        machine.the_markets_agree()
        machine.ledger_and_model_agree()
    machine.the_invariants_hold()
