"""The market module: orders, the book, the clearing and what it moves (M-1 to M-7)."""

import dataclasses
from typing import Any

import pytest

from ctt_state.abi import Revert
from ctt_state.block import Log
from ctt_state.modules.call import MarketRules
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import MetadataUpdate
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.clearing import clearing_gas_max
from ctt_state.modules.market.module import (
    AuctionCleared,
    AuctionOver,
    BookFull,
    CrossesOwnOrder,
    InvalidAmount,
    InvalidGridOperator,
    InvalidLimit,
    NoMarket,
    NotAdmin,
    NotCreated,
    NoTokens,
    NotOwner,
    NotTheChain,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OriginTraded,
    TariffSet,
    Traded,
    UnknownAuction,
    UnknownOrder,
)
from ctt_state.records import (
    AUCTIONS_KEPT,
    Auction,
    BookPage,
    CttConfig,
    MarketBook,
    Standing,
)
from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address, Height
from tests.market_world import ASK, BID, FOREVER, MarketWorld
from tests.world import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    MALLORY,
    OPERATOR,
    WEALTH_WEI,
    World,
    address,
)

SOLAR = 1  # what `settle_in` certifies
CENT = 10**13  # wei per Wh: a cent of an 18-decimal currency per kWh


def make_street(**options: Any) -> MarketWorld:
    """Alice has three tokens with 15 kWh, Bob and Carol have two empty ones each."""
    world = MarketWorld(**options)
    world.settle_in(ALICE, 3, 15_000)
    world.settle_in(BOB, 2, 0)
    world.settle_in(CAROL, 2, 0)
    return world


def told(*emissions: Any, by: Address = MARKET.address) -> list[Log]:
    return [Log(by, *emission) for emission in emissions]


def of_market(logs: tuple[Log, ...]) -> list[Log]:
    return [log for log in logs if log.address == MARKET.address]


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_order_stands_in_the_book() -> None:
    world = make_street()

    outcome = world.send(ALICE, ASK, 5_000, 10 * CENT, 7)

    assert outcome.result == 1
    assert outcome.emissions == [OrderPlaced(1, ALICE, ALICE, False, 5_000, 10 * CENT, 7)]
    shown = (1, ALICE, ALICE, False, 5_000, 10 * CENT, 7, (), ())
    assert world.call("order(uint256)", 1) == shown
    assert world.call("orderBook(uint256,uint256)", 0, 10) == (shown,)
    assert world.call("standingOrders(address)", ALICE) == (0, 1)
    world.check()


def test_a_new_order_replaces_the_old_and_goes_behind_in_time() -> None:
    world = make_street()
    first, other = world.ask(ALICE, 5_000, 10), world.bid(BOB, 100, 1)

    outcome = world.send(ALICE, ASK, 6_000, 11, FOREVER)

    assert outcome.result > other > first
    assert outcome.emissions == [
        OrderCancelled(first, ALICE, 5_000),
        OrderPlaced(outcome.result, ALICE, ALICE, False, 6_000, 11, FOREVER),
    ]
    assert world.refusal(ALICE, "cancel(uint256)", first) == UnknownOrder(first)
    assert len(world.call("orderBook(uint256,uint256)", 0, 10)) == 2
    world.check()


def test_a_bid_and_an_ask_may_stand_side_by_side() -> None:
    world = make_street()
    bid, ask = world.bid(ALICE, 100, 9), world.ask(ALICE, 100, 10)

    assert world.call("standingOrders(address)", ALICE) == (bid, ask)
    world.check()


def test_a_cancelled_order_leaves_nothing() -> None:
    world = make_street()
    order_id = world.bid(BOB, 700, 1)

    outcome = world.send(BOB, "cancel(uint256)", order_id)

    assert outcome.emissions == [OrderCancelled(order_id, BOB, 700)]
    assert world.get(MarketBook.key()) == MarketBook(1, 0)
    assert world.get(Standing.key(BOB)) is None
    assert world.get(BookPage.key(0)) is None
    world.check()


def test_the_book_stays_without_gaps_over_pages() -> None:
    world = MarketWorld(orders_max=200)
    people = [address(f"person {number}") for number in range(130)]
    for person in people:
        world.put_account(person)
        world.settle_in(person, 1, 0)
        world.bid(person, 1, 0)

    for number in (0, 64, 129, 63, 1):
        world.done(people[number], "cancel(uint256)", number + 1)
        world.check()

    assert len(world.call("orderBook(uint256,uint256)", 0, 100)) == 100
    found = [
        *world.call("orderBook(uint256,uint256)", 0, 60),
        *world.call("orderBook(uint256,uint256)", 60, 100),
    ]
    assert sorted(order[0] for order in found) == sorted({*range(1, 131)} - {1, 65, 130, 64, 2})
    assert world.call("orderBook(uint256,uint256)", 125, 100) == ()


REFUSED: list[tuple[str, Address, tuple[Any, ...], Revert]] = [
    ("no energy", ALICE, (0, 1, FOREVER), InvalidAmount(0, 1, UINT64_MAX)),
    ("too much energy", ALICE, (2**64, 1, FOREVER), InvalidAmount(2**64, 1, UINT64_MAX)),
    ("too high a price", ALICE, (1, PRICE_MAX + 1, FOREVER), InvalidAmount(PRICE_MAX + 1, 0, PRICE_MAX)),
    ("energy before price", ALICE, (0, PRICE_MAX + 1, 0), InvalidAmount(0, 1, UINT64_MAX)),
    ("an auction that is over", ALICE, (1, 1, 1), AuctionOver(1, 2)),
    ("price before auction", MALLORY, (1, PRICE_MAX + 1, 0), InvalidAmount(PRICE_MAX + 1, 0, PRICE_MAX)),
    ("no tokens", MALLORY, (1, 1, FOREVER), NoTokens(MALLORY)),
    ("auction before tokens", MALLORY, (1, 1, 1), AuctionOver(1, 2)),
]


@pytest.mark.parametrize("signature", [BID, ASK])
@pytest.mark.parametrize(
    ("sender", "arguments", "refusal"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_an_order_is_refused(
    signature: str, sender: Address, arguments: tuple[Any, ...], refusal: Revert
) -> None:
    world = make_street()
    world.pass_ms(1)
    world.pass_ms(1)
    world.pass_ms(1)

    assert world.refusal(sender, signature, *arguments) == refusal


def test_boundaries_of_an_order_are_taken() -> None:
    world = make_street()

    world.bid(ALICE, UINT64_MAX, 0, 1)
    world.ask(BOB, 1, PRICE_MAX, 1)

    world.check()


@pytest.mark.parametrize(("bid", "ask", "crosses"), [(9, 10, False), (10, 10, True), (11, 10, True)])
def test_no_account_can_trade_with_itself(bid: int, ask: int, crosses: bool) -> None:
    """M-2, whichever comes first."""
    world, other = make_street(), make_street()
    asked, bade = world.ask(ALICE, 5, ask), other.bid(ALICE, 5, bid)

    outcomes = world.send(ALICE, BID, 5, bid, FOREVER), other.send(ALICE, ASK, 5, ask, FOREVER)

    reverts = (CrossesOwnOrder(asked), CrossesOwnOrder(bade)) if crosses else (None, None)
    assert (outcomes[0].revert, outcomes[1].revert) == reverts


def test_a_full_book_takes_replacements_only() -> None:
    world = make_street(orders_max=2)
    world.bid(BOB, 1, 1)
    world.bid(CAROL, 1, 1)

    assert world.refusal(ALICE, BID, 1, 1, FOREVER) == BookFull(2)
    assert world.bid(BOB, 2, 1) == 3


def test_a_full_book_is_told_after_what_is_wrong_with_the_order() -> None:
    world = make_street(orders_max=1)
    asked = world.ask(ALICE, 1, 1)

    assert world.refusal(MALLORY, BID, 1, 1, FOREVER) == NoTokens(MALLORY)
    assert world.refusal(ALICE, BID, 1, 1, FOREVER) == CrossesOwnOrder(asked)


def test_only_its_owner_cancels_an_order() -> None:
    world = make_street()
    order_id = world.bid(BOB, 1, 1)

    assert world.refusal(ALICE, "cancel(uint256)", order_id) == NotOwner(order_id, BOB, ALICE)
    assert world.refusal(ALICE, "cancel(uint256)", 2**64) == UnknownOrder(2**64)


def test_without_a_market_in_genesis_nothing_is_traded() -> None:
    world = World()
    world.module = MARKET

    for signature, *arguments in (
        (BID, 1, 1, 1),
        ("clear()",),
        ("setTariff(uint256,uint256,uint256,address)", 0, 0, 0, BOB),
    ):
        assert world.refusal(ALICE, signature, *arguments) == NoMarket()
    with pytest.raises(Revert, match="NoMarket"):
        world.call("currentAuction()")


# --- the clearing -----------------------------------------------------------------------------------------------------


def test_energy_and_money_change_hands_and_the_buyer_pays_the_grid() -> None:
    """M-6: the ask says 0.10 and the grid takes 0.04, so the buyer pays 0.14 and the seller gets 0.10."""
    world = make_street(grid_fee=4 * CENT)
    world.ask(ALICE, 2_000, 10 * CENT)
    world.bid(BOB, 2_000, 10 * CENT)

    logs = world.clear()

    energy = 2_000
    assert of_market(logs) == told(
        Traded(BOB, ALICE, energy, 10 * CENT),
        OriginTraded(BOB, ALICE, SOLAR, energy),
        AuctionCleared(1, 10 * CENT, energy, 1, 1),
    )
    assert world.balance(ALICE) == WEALTH_WEI + energy * 10 * CENT
    assert world.balance(BOB) == WEALTH_WEI - energy * 14 * CENT
    assert world.balance(OPERATOR) == WEALTH_WEI + energy * 4 * CENT
    assert (world.energy(ALICE), world.energy(BOB)) == (13_000, 2_000)
    assert world.call("orderBook(uint256,uint256)", 0, 10) == ()
    assert world.call("auction(uint256)", 1) == (10 * CENT, energy, 1, 1, world.block.height)
    world.check()


def test_what_is_not_served_stands_on() -> None:
    world = make_street()
    ask, bid = world.ask(ALICE, 3_000, 10), world.bid(BOB, 1_000, 20)

    world.clear()

    assert world.call("order(uint256)", ask)[4] == 2_000
    assert world.call("standingOrders(address)", BOB) == (0, 0)
    assert bid not in [order[0] for order in world.call("orderBook(uint256,uint256)", 0, 10)]
    world.check()


def test_tokens_tell_that_their_charge_changed() -> None:
    world = make_street()
    world.ask(ALICE, 12_000, 10)
    world.bid(BOB, 12_000, 10)

    logs = world.clear()

    # Alice's partly charged token, then a full one; Bob's two empty ones.
    assert [log for log in logs if log.address == CTT.address] == told(
        *map(MetadataUpdate, (2, 1, 4, 5)), by=CTT.address
    )


def test_the_middle_of_the_range_is_the_price() -> None:
    world = make_street()
    world.ask(ALICE, 1_000, 10)
    world.bid(BOB, 1_000, 21)

    world.clear()

    assert world.call("auction(uint256)", 1)[0] == 15
    assert world.balance(ALICE) == WEALTH_WEI + 15_000


@pytest.mark.parametrize(
    ("floor", "ceiling", "price"),
    [
        (0, PRICE_MAX, 15),
        (12, 18, 15),
        (17, 30, 19),
        (0, 13, 11),
        (17, 17, 17),
        (10, 10, 10),
        (22, 30, 0),
        (0, 9, 0),
    ],
)
def test_no_price_is_below_the_floor_or_above_the_ceiling(floor: int, ceiling: int, price: int) -> None:
    """M-5: a bid of 21 and an ask of 10; where the tariff leaves them no price they go to the operator."""
    world = make_street(floor=floor, ceiling=ceiling)
    world.ask(ALICE, 1_000, 10)
    world.bid(BOB, 1_000, 21)

    world.clear()

    assert world.call("auction(uint256)", 1)[:2] == (price, 1_000 if price else 0)
    world.check()


def test_an_ask_counts_for_the_energy_at_hand() -> None:
    """M-3: intents lock nothing. 15 kWh are asked, 5 kWh go on sale with their token before the clearing."""
    world = make_street()
    world.ask(ALICE, 15_000, 10)
    world.bid(BOB, 15_000, 10)
    world.ctt(ALICE, "setOnSale(uint256)", 2)

    world.clear()

    assert world.energy(BOB) == 10_000
    assert world.token(2).energy_wh == 5_000
    world.check()


def test_a_bid_counts_for_the_room_in_its_tokens() -> None:
    world = make_street()
    world.ask(ALICE, 15_000, 10)
    world.bid(BOB, 15_000, 10)
    world.ctt(BOB, "setOnSale(uint256)", 4)

    world.clear()

    assert world.energy(BOB) == 10_000
    world.check()


@pytest.mark.parametrize(("money", "energy"), [(1_399, 99), (1_400, 100), (1_401, 100), (13, 0)])
def test_a_bid_counts_for_what_its_owner_can_pay_at_its_limit(money: int, energy: int) -> None:
    """M-3: limit 10 and the grid fee 4, though the price will be 8."""
    world = make_street(grid_fee=4)
    world.ask(ALICE, 15_000, 6)
    world.bid(BOB, 15_000, 10)
    world.put_balance(BOB, money)

    world.clear()

    assert world.energy(BOB) == energy
    assert world.balance(BOB) == money - energy * 12
    world.check()


def test_a_bid_above_the_ceiling_counts_for_what_its_owner_can_pay_at_the_ceiling() -> None:
    """A bid at any price is a bid at the ceiling."""
    world = make_street(ceiling=30)
    world.ask(ALICE, 15_000, 10)
    world.bid(BOB, 15_000, PRICE_MAX)

    world.clear()

    assert world.energy(BOB) == 15_000
    assert world.call("auction(uint256)", 1)[0] == 20


def test_an_order_moves_no_more_than_its_share_of_tokens() -> None:
    """M-3: eight tokens for two orders. What is left over waits for the next auction."""
    world = MarketWorld(tokens_max=8)
    world.settle_in(ALICE, 9, 81_000)
    world.settle_in(BOB, 9, 0)
    world.ask(ALICE, 80_000, 10)
    world.bid(BOB, 80_000, 10)

    world.clear()

    # Alice's partly charged token of 1 kWh and three full ones; Bob's four empty ones take more than that.
    assert world.energy(BOB) == 31_000
    world.clear()
    assert world.energy(BOB) == 70_000
    world.check()


def test_an_order_moves_no_more_tokens_than_a_reading() -> None:
    """S-4, M-3: 256 of 300 tokens on each side, though the share is larger."""
    world = MarketWorld(tokens_max=10_000, capability_wh=10)
    world.settle_in(ALICE, 300, 2_000)
    with world.at_ctt():
        assert world.charge(ALICE, 1_000) == 1_000
    world.settle_in(BOB, 300, 0)
    world.ask(ALICE, 3_000, 10)
    world.bid(BOB, 3_000, 10)

    world.clear()
    assert world.energy(BOB) == 2_560
    world.clear()
    assert world.energy(BOB) == 3_000
    world.check()


def test_room_is_counted_token_by_token_too() -> None:
    world = MarketWorld(tokens_max=4)
    world.settle_in(ALICE, 2, 20_000)
    world.settle_in(BOB, 3, 1_000)
    world.ask(ALICE, 20_000, 10)
    world.bid(BOB, 20_000, 10)

    world.clear()

    assert world.energy(BOB) == 20_000  # 9 kWh more in the partly charged token, 10 kWh in the next
    world.check()


def test_who_owns_no_token_any_more_loses_the_place_in_the_book() -> None:
    world = make_street()
    order_id = world.bid(BOB, 500, 10)
    for token_id in (4, 5):
        world.ctt(BOB, "transferFrom(address,address,uint256)", BOB, CAROL, token_id)

    logs = world.clear()

    assert logs == tuple(told(OrderCancelled(order_id, BOB, 500), AuctionCleared(1, 0, 0, 0, 0)))
    world.check()


def test_an_order_ends_with_its_last_auction() -> None:
    world = make_street()
    kept, ended = world.bid(BOB, 500, 10, 2), world.bid(CAROL, 400, 10, 1)

    assert world.clear() == tuple(told(OrderExpired(ended, CAROL, 400), AuctionCleared(1, 0, 0, 2, 0)))
    assert world.clear() == tuple(told(OrderExpired(kept, BOB, 500), AuctionCleared(2, 0, 0, 1, 0)))
    world.check()


def test_orders_count_from_their_own_block_on() -> None:
    """M-4: auction 1 is blocks 1 to 3 and is cleared before anything else in block 4."""
    world = make_street()
    assert world.call("currentAuction()") == (1, 3)
    world.next_block()
    world.next_block()
    world.ask(ALICE, 1_000, 10)
    world.bid(BOB, 1_000, 10)
    assert world.block.height == 3

    receipt = world.next_block()

    assert receipt is not None
    assert world.energy(BOB) == 1_000
    assert world.call("currentAuction()") == (2, 6)


def test_with_an_empty_book_nothing_happens() -> None:
    world = make_street()
    before = dict(world.overlay.changes)

    assert [world.next_block() for _ in range(9)] == [None] * 9
    assert world.overlay.changes == before
    assert world.call("auction(uint256)", 2) == (0, 0, 0, 0, 0)


def test_results_are_kept_for_4096_auctions() -> None:
    world = make_street(auction_blocks=1)
    world.bid(BOB, 1, 1, 2)
    world.clear()
    world.clear()

    assert world.get(Auction.key(1)).number == 1
    world.block = world.block._replace(height=Height(AUCTIONS_KEPT + 2))
    newest = AUCTIONS_KEPT + 1
    for number in (0, 1, newest + 1):
        with pytest.raises(Revert) as refusal:
            world.call("auction(uint256)", number)
        assert refusal.value == UnknownAuction(number, 2, newest)
    assert world.call("auction(uint256)", 2)[2] == 1
    assert world.call("auction(uint256)", newest) == (0, 0, 0, 0, 0)


def test_a_view_shows_a_hundred_orders_at_most() -> None:
    with pytest.raises(Revert) as refusal:
        make_street().call("orderBook(uint256,uint256)", 0, 101)
    assert refusal.value == InvalidLimit(101, 100)


def test_anyone_sees_what_an_auction_would_come_to_and_nobody_clears_it() -> None:
    world = make_street()
    world.ask(ALICE, 1_000, 10)
    world.bid(BOB, 2_000, 20)

    assert world.call("clear()") == (15, 1_000)
    assert world.refusal(ALICE, "clear()") == NotTheChain(ALICE)
    assert world.energy(BOB) == 0


def test_a_history_played_again_gives_the_same_state_and_the_same_logs() -> None:
    def play() -> tuple[dict[bytes, Any], list[Log]]:
        world = make_street(grid_fee=3)
        logs: list[Log] = []
        for price in (10, 20, 30):
            world.ask(ALICE, 2_000, price)
            world.bid(BOB, 700, 25)
            world.bid(CAROL, 900, 20)
            logs += world.clear()
        return {key: record and record.encode() for key, record in world.overlay.changes.items()}, logs

    assert play() == play()


# --- what a clearing may cost -----------------------------------------------------------------------------------------


def test_a_full_book_keeps_to_the_gas_that_genesis_was_checked_for() -> None:
    """Every order is served, half of them whole; tokens change as many as may."""
    rules = MarketRules(1, 40, 160)
    world = MarketWorld(auction_blocks=1, orders_max=40, tokens_max=160, grid_fee=1, max_supply=10_000)
    for number in range(20):
        seller, buyer = address(f"seller {number}"), address(f"buyer {number}")
        for person in (seller, buyer):
            world.put_account(person)
        world.settle_in(seller, 4, 40_000 - 1)
        world.settle_in(buyer, 4, 0)
        world.ask(seller, 40_000, 10)
        world.bid(buyer, 40_000 - 1, 20)

    receipt = world.next_block()

    assert receipt is not None
    assert receipt.succeeded
    assert clearing_gas_max(rules) // 2 < receipt.gas_used < clearing_gas_max(rules)
    assert world.call("auction(uint256)", 1)[1] == 20 * 39_999
    world.check()


def test_a_clearing_that_fails_would_leave_all_as_it_was_and_the_chain_would_go_on() -> None:
    """None can, but if one did: here the book was filled under other rules."""
    world = MarketWorld(auction_blocks=1)
    for number in range(60):
        person = address(f"person {number}")
        world.put_account(person)
        world.settle_in(person, 1, 0)
        world.bid(person, 1, 1)
    world.chain = dataclasses.replace(world.chain, market=MarketRules(1, 1, 1))
    before = dict(world.overlay.changes)

    receipt = world.next_block()

    assert receipt is not None
    assert (receipt.succeeded, receipt.gas_used, receipt.logs) == (
        False,
        clearing_gas_max(MarketRules(1, 1, 1)),
        (),
    )
    assert world.overlay.changes == before


# --- the tariff -------------------------------------------------------------------------------------------------------

SET_TARIFF = "setTariff(uint256,uint256,uint256,address)"


def test_the_admin_sets_the_tariff() -> None:
    world = make_street()

    outcome = world.send(ADMIN, SET_TARIFF, 5, 5, 2, CAROL)

    assert outcome.emissions == [TariffSet(5, 5, 2, CAROL)]
    assert world.call("tariff()") == (5, 5, 2, CAROL)
    world.ask(ALICE, 1_000, 1)
    world.bid(BOB, 1_000, 9)
    world.clear()
    assert world.balance(CAROL) == WEALTH_WEI + 2_000
    assert world.balance(ALICE) == WEALTH_WEI + 5_000


@pytest.mark.parametrize(
    ("sender", "arguments", "refusal"),
    [
        (ALICE, (0, PRICE_MAX + 1, 0, BOB), NotAdmin(ALICE)),
        (ADMIN, (PRICE_MAX + 2, PRICE_MAX + 1, 0, BOB), InvalidAmount(PRICE_MAX + 1, 0, PRICE_MAX)),
        (ADMIN, (6, 5, PRICE_MAX + 1, BOB), InvalidAmount(6, 0, 5)),
        (ADMIN, (5, 5, PRICE_MAX + 1, ZERO_ADDRESS), InvalidAmount(PRICE_MAX + 1, 0, PRICE_MAX)),
        (ADMIN, (5, 5, PRICE_MAX, ZERO_ADDRESS), InvalidGridOperator(ZERO_ADDRESS)),
    ],
)
def test_a_tariff_is_refused(sender: Address, arguments: tuple[Any, ...], refusal: Revert) -> None:
    assert make_street().refusal(sender, SET_TARIFF, *arguments) == refusal


def test_there_is_no_tariff_to_set_before_there_is_a_ctt() -> None:
    world = make_street()
    world.put(CttConfig.key(), None)

    assert world.refusal(ADMIN, SET_TARIFF, 0, 0, 0, BOB) == NotCreated()
