"""Mandates: what a platform may do in the market for an owner, and what not (M-10)."""

from typing import Any, Final

import pytest

from ctt_state.abi import Revert
from ctt_state.modules.market.module import (
    AuctionOver,
    InvalidAmount,
    InvalidPlatform,
    MandateGranted,
    MandateRevoked,
    NoMandate,
    NotPlacer,
    OrderCancelled,
    OrderPlaced,
    OutsideMandate,
    UnknownOrder,
)
from ctt_state.units import PRICE_MAX, UINT64_MAX, UINT256_MAX, ZERO_ADDRESS, Address
from tests.market_world import FOREVER, MarketWorld
from tests.world import ALICE, BOB, CAROL, MALLORY, WEALTH_WEI

GRANT: Final = "grantMandate(address,uint256,uint256,uint256,uint256,uint64)"
REVOKE: Final = "revokeMandate(address)"
BID_FOR: Final = "bidFor(address,uint256,uint256,uint64)"
ASK_FOR: Final = "askFor(address,uint256,uint256,uint64)"
BID_FOR_WITH: Final = "bidFor(address,uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
ASK_FOR_WITH: Final = "askFor(address,uint256,uint256,uint64,(address,uint256)[])"
PLATFORM: Final = CAROL
LIMITS: Final = (3_000, 100_000, 20, 10, 9)  # energy, spend, no bid above, no ask below, last auction


def make_street(**options: Any) -> MarketWorld:
    """Alice has 15 kWh, Bob room for 20 kWh; both let Carol's platform trade for them."""
    world = MarketWorld(**options)
    world.settle_in(ALICE, 3, 15_000)
    world.settle_in(BOB, 2, 0)
    for owner in (ALICE, BOB):
        world.done(owner, GRANT, PLATFORM, *LIMITS)
    return world


def mandate_of(world: MarketWorld, owner: Address) -> Any:
    return world.call("mandate(address,address)", owner, PLATFORM)


def test_a_mandate_is_granted_and_revoked() -> None:
    world = make_street()

    granted = world.send(ALICE, GRANT, MALLORY, 1, 2, 3, 4, 5)
    revoked = world.send(ALICE, REVOKE, MALLORY)

    assert granted.emissions == [MandateGranted(ALICE, MALLORY, 1, 2, 3, 4, 5)]
    assert revoked.emissions == [MandateRevoked(ALICE, MALLORY)]
    assert mandate_of(world, ALICE) == LIMITS
    with pytest.raises(Revert) as refusal:
        world.call("mandate(address,address)", ALICE, MALLORY)
    assert refusal.value == NoMandate(ALICE, MALLORY)
    world.check()


def test_a_platform_trades_for_two_owners() -> None:
    """M-10: the orders are the owners', and so are energy and money; what was traded is taken from the mandates."""
    world = make_street(grid_fee=5)
    asked = world.send(PLATFORM, ASK_FOR, ALICE, 2_000, 10, 9)
    world.done(PLATFORM, BID_FOR, BOB, 2_500, 20, 9)
    assert asked.emissions == [OrderPlaced(asked.result, ALICE, PLATFORM, False, 2_000, 10, 9)]
    world.check()

    world.clear()

    assert world.balance(ALICE) == WEALTH_WEI + 2_000 * 15
    assert world.balance(BOB) == WEALTH_WEI - 2_000 * 20
    assert world.balance(PLATFORM) == WEALTH_WEI
    assert mandate_of(world, ALICE) == (1_000, 100_000, 20, 10, 9)
    assert mandate_of(world, BOB) == (1_000, 60_000, 20, 10, 9)
    world.check()


def test_a_mandate_bounds_what_is_traded_over_all_auctions() -> None:
    """Orders of 3 kWh again and again: 3 kWh are sold, however often they are placed."""
    world = make_street()
    world.bid(BOB, 20_000, 10)
    sold = []
    for energy in (2_000, 1_000, 0):
        if energy:
            world.done(PLATFORM, ASK_FOR, ALICE, energy, 10, 9)
        world.clear()
        sold.append(15_000 - world.energy(ALICE))

    assert sold == [2_000, 3_000, 3_000]
    assert world.refusal(PLATFORM, ASK_FOR, ALICE, 1, 10, 9) == OutsideMandate(1, 0)


def test_a_mandate_bounds_the_energy_of_an_order_that_stands() -> None:
    """The order outlives most of its mandate: two sides, one allowance."""
    world = make_street()
    world.done(PLATFORM, ASK_FOR, ALICE, 3_000, 10, 9)
    world.done(PLATFORM, BID_FOR, ALICE, 3_000, 9, 9)
    world.bid(BOB, 2_000, 10)
    world.clear()
    assert mandate_of(world, ALICE)[0] == 1_000
    world.bid(BOB, 9_000, 10)
    world.clear()

    assert mandate_of(world, ALICE)[0] == 0
    assert world.energy(BOB) == 3_000
    world.check()


def test_a_mandate_bounds_the_money() -> None:
    """100,000 wei at 20 and a grid fee of 30 are 2 kWh at most."""
    world = make_street(grid_fee=30)
    world.done(PLATFORM, BID_FOR, BOB, 3_000, 20, 9)
    world.ask(ALICE, 10_000, 20)

    world.clear()

    assert world.energy(BOB) == 2_000
    assert mandate_of(world, BOB)[:2] == (1_000, 0)


@pytest.mark.parametrize("end", [(REVOKE, PLATFORM), (GRANT, PLATFORM, *LIMITS)])
def test_revoking_and_granting_anew_end_the_platforms_orders(end: tuple[Any, ...]) -> None:
    world = make_street()
    asked = world.done(PLATFORM, ASK_FOR, ALICE, 2_000, 10, 9)
    own = world.bid(ALICE, 100, 5)

    outcome = world.send(ALICE, *end)

    assert outcome.emissions[0] == OrderCancelled(asked, ALICE, 2_000)
    assert world.call("standingOrders(address)", ALICE) == (own, 0)
    world.check()


def test_the_owner_replaces_and_cancels_what_the_platform_ordered() -> None:
    world = make_street()
    world.done(PLATFORM, ASK_FOR, ALICE, 2_000, 10, 9)
    replaced = world.ask(ALICE, 100, 50)
    placed = world.done(PLATFORM, BID_FOR, ALICE, 10, 11, 9)

    world.done(ALICE, "cancel(uint256)", placed)

    assert world.call("standingOrders(address)", ALICE) == (0, replaced)


def test_the_platform_touches_its_own_orders_only() -> None:
    world = make_street()
    own = world.ask(ALICE, 100, 50)
    placed = world.done(PLATFORM, BID_FOR, BOB, 10, 11, 9)

    assert world.refusal(PLATFORM, ASK_FOR, ALICE, 1, 10, 9) == NotPlacer(own, ALICE, PLATFORM)
    assert world.refusal(PLATFORM, "cancelFor(uint256)", own) == NotPlacer(own, ALICE, PLATFORM)
    assert world.refusal(MALLORY, "cancelFor(uint256)", placed) == NotPlacer(placed, PLATFORM, MALLORY)
    assert world.refusal(ALICE, "cancelFor(uint256)", own) == NotPlacer(own, ALICE, ALICE)
    assert world.refusal(PLATFORM, "cancelFor(uint256)", 99) == UnknownOrder(99)
    assert world.send(PLATFORM, "cancelFor(uint256)", placed).emissions == [OrderCancelled(placed, BOB, 10)]
    world.check()


def test_the_platform_replaces_its_own_order() -> None:
    world = make_street()
    first = world.done(PLATFORM, ASK_FOR, ALICE, 100, 10, 9)
    second = world.done(PLATFORM, ASK_FOR, ALICE, 200, 11, 9)

    assert world.call("standingOrders(address)", ALICE) == (0, second)
    assert world.refusal(ALICE, "cancel(uint256)", first) == UnknownOrder(first)


def test_wishes_for_an_owner_keep_to_the_limits() -> None:
    world = make_street()

    world.done(PLATFORM, BID_FOR_WITH, BOB, 1, 1, 9, [(1, 20)], [(ALICE, 20)])
    world.done(PLATFORM, ASK_FOR_WITH, ALICE, 1, 30, 9, [(BOB, 10)])

    too_dear: tuple[Any, ...] = (([(1, 21)], []), ([], [(ALICE, 21)]))
    for wishes in too_dear:
        assert world.refusal(PLATFORM, BID_FOR_WITH, BOB, 1, 1, 9, *wishes) == OutsideMandate(21, 20)
    assert world.refusal(PLATFORM, ASK_FOR_WITH, ALICE, 1, 30, 9, [(BOB, 9)]) == OutsideMandate(9, 10)


@pytest.mark.parametrize(
    ("sender", "signature", "arguments", "refusal"),
    [
        (MALLORY, BID_FOR, (ALICE, 3_001, 21, 10), NoMandate(ALICE, MALLORY)),
        (ALICE, BID_FOR, (ALICE, 1, 1, 1), NoMandate(ALICE, ALICE)),
        (PLATFORM, BID_FOR, (ALICE, 3_001, 21, 10), OutsideMandate(10, 9)),
        (PLATFORM, BID_FOR, (ALICE, 3_001, 21, 9), OutsideMandate(3_001, 3_000)),
        (PLATFORM, BID_FOR, (ALICE, 3_000, 21, 9), OutsideMandate(21, 20)),
        (PLATFORM, ASK_FOR, (ALICE, 3_000, 9, 9), OutsideMandate(9, 10)),
        (PLATFORM, BID_FOR, (ALICE, 0, 20, 9), InvalidAmount(0, 1, UINT64_MAX)),
        (PLATFORM, ASK_FOR, (ALICE, 1, 10, 0), AuctionOver(0, 1)),
    ],
)
def test_what_a_mandate_does_not_allow_is_refused(
    sender: Address, signature: str, arguments: tuple[Any, ...], refusal: Revert
) -> None:
    assert make_street().refusal(sender, signature, *arguments) == refusal


def test_the_limits_of_a_mandate_are_allowed() -> None:
    world = make_street()

    world.done(PLATFORM, BID_FOR, BOB, 3_000, 20, 9)
    world.done(PLATFORM, ASK_FOR, ALICE, 3_000, 10, 9)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ((ZERO_ADDRESS, 2**64, 0, 0, 0, 0), InvalidPlatform(ZERO_ADDRESS)),
        ((ALICE, 2**64, 0, 0, 0, 0), InvalidPlatform(ALICE)),
        ((BOB, 2**64, 0, PRICE_MAX + 1, 0, 0), InvalidAmount(2**64, 0, UINT64_MAX)),
        ((BOB, 1, 0, PRICE_MAX + 1, PRICE_MAX + 2, 0), InvalidAmount(PRICE_MAX + 1, 0, PRICE_MAX)),
        ((BOB, 1, 0, 1, PRICE_MAX + 2, 0), InvalidAmount(PRICE_MAX + 2, 0, PRICE_MAX)),
        ((BOB, 1, 0, 1, 1, 0), AuctionOver(0, 1)),
    ],
)
def test_a_mandate_is_refused(arguments: tuple[Any, ...], refusal: Revert) -> None:
    assert make_street().refusal(ALICE, GRANT, *arguments) == refusal


def test_the_widest_mandate_is_taken() -> None:
    world = make_street()

    world.done(ALICE, GRANT, MALLORY, UINT64_MAX, UINT256_MAX, PRICE_MAX, PRICE_MAX, FOREVER)

    assert world.refusal(ALICE, REVOKE, BOB) == NoMandate(ALICE, BOB)
    world.check()
