"""Wishes in an order: maxima by source, nominated partners, gifts (M-8, M-9)."""

from typing import Any, Final

import pytest

from ctt_state.abi import Revert
from ctt_state.block import Log
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import (
    AuctionCleared,
    CrossesOwnOrder,
    InvalidAmount,
    InvalidPartner,
    InvalidSource,
    OriginTraded,
    PartnerTraded,
    TooManyWishes,
    Traded,
)
from ctt_state.units import PRICE_MAX, ZERO_ADDRESS, Address
from tests.market_world import FOREVER, MarketWorld
from tests.world import ALICE, BOB, CAROL, MALLORY, OPERATOR, WEALTH_WEI, address

BID_WITH: Final = "bid(uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
ASK_WITH: Final = "ask(uint256,uint256,uint64,(address,uint256)[])"
CENT: Final = 10**13  # wei per Wh: a cent of an 18-decimal currency per kWh
SOLAR, WIND, HYDRO = 1, 2, 3


def make_street(**options: Any) -> MarketWorld:
    """Alice has 10 kWh of solar energy and Mallory 10 kWh of wind; Bob and Carol have room for 20 kWh each."""
    world = MarketWorld(**options)
    world.settle_in(ALICE, 1, 10_000, SOLAR)
    world.settle_in(MALLORY, 1, 10_000, WIND)
    world.settle_in(BOB, 2, 0)
    world.settle_in(CAROL, 2, 0)
    return world


def bid(
    world: MarketWorld, owner: Address, energy: int, price: int, *, sources: Any = (), partners: Any = ()
) -> int:
    order_id: int = world.done(owner, BID_WITH, energy, price, FOREVER, sources, partners)
    return order_id


def ask(world: MarketWorld, owner: Address, energy: int, price: int, *, partners: Any = ()) -> int:
    order_id: int = world.done(owner, ASK_WITH, energy, price, FOREVER, partners)
    return order_id


def trades_of(logs: tuple[Log, ...]) -> list[Log]:
    return [
        log
        for log in logs
        if log.address == MARKET.address and log.topics[0] in (Traded.topic, PartnerTraded.topic)
    ]


def told(*emissions: Any) -> list[Log]:
    return [Log(MARKET.address, *emission) for emission in emissions]


def origins_of(logs: tuple[Log, ...]) -> list[Log]:
    return [log for log in logs if log.topics[0] == OriginTraded.topic]


def make_mixed() -> MarketWorld:
    """As `make_street`, but Alice has one token with 4 kWh of solar energy and 4 of wind."""
    world = MarketWorld()
    world.settle_in(ALICE, 1, 4_000, SOLAR)
    meter = address("meter of " + ALICE.hex())
    world.ctt(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, WIND, 0, False)
    assert world.charge_at_ctt(ALICE, 4_000) == 4_000
    world.settle_in(BOB, 2, 0)
    world.settle_in(CAROL, 2, 0)
    return world


def origin_of(world: MarketWorld, owner: Address) -> dict[int, int]:
    """The Wh in all of the owner's tokens, by source."""
    with world.at_ctt():
        ids = world.call("tokensOf(address,uint256,uint256)", owner, 0, 100)
        parts = [world.call("originOf(uint256)", token_id) for token_id in ids]
    return {source: wh for source, wh in enumerate(map(sum, zip(*parts, strict=True))) if wh}


def test_a_bid_with_three_maxima() -> None:
    """Any energy for at most 0.20, solar for at most 0.25, a named partner's for at most 0.28. Bob's partner asks 0.27 of
    him; then he takes solar energy at 0.24, and none of the wind that is offered at 0.21."""
    world = make_street()
    partner = address("partner")
    world.put_account(partner)
    world.settle_in(partner, 1, 10_000, HYDRO)
    ask(world, partner, 1_000, 30 * CENT, partners=[(BOB, 27 * CENT)])
    ask(world, ALICE, 2_000, 23 * CENT)
    ask(world, MALLORY, 5_000, 21 * CENT)
    bid(world, BOB, 8_000, 20 * CENT, sources=[(SOLAR, 25 * CENT)], partners=[(partner, 28 * CENT)])

    logs = world.clear()

    assert trades_of(logs) == told(
        PartnerTraded(BOB, partner, 1_000, 27 * CENT), Traded(BOB, ALICE, 2_000, 24 * CENT)
    )
    assert world.balance(BOB) == WEALTH_WEI - (1_000 * 27 + 2_000 * 24) * CENT
    assert world.call("auction(uint256)", 1)[:2] == (24 * CENT, 3_000)
    world.check()


def test_wishes_are_shown_as_they_were_given() -> None:
    world = make_street()
    order_id = bid(world, BOB, 5, 1, sources=[(WIND, 3), (0, 0)], partners=[(CAROL, 9), (ALICE, 8)])

    found = world.call("order(uint256)", order_id)

    assert found[7:] == (((WIND, 3), (0, 0)), ((CAROL, 9), (ALICE, 8)))
    world.check()


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("general", "solar", "price", "seller"),
    [
        (20, 25, 0, None),  # neither maximum reaches its ask
        (20, 26, 26, ALICE),
        (27, 20, 27, MALLORY),  # less for solar energy than for any other
    ],
)
def test_a_source_has_a_maximum_of_its_own(
    general: int, solar: int, price: int, seller: Address | None
) -> None:
    world = make_street()
    ask(world, ALICE, 1_000, 26)
    ask(world, MALLORY, 1_000, 27)
    bid(world, BOB, 1_000, general, sources=[(SOLAR, solar)])

    logs = world.clear()

    assert trades_of(logs) == (told(Traded(BOB, seller, 1_000, price)) if seller else [])
    world.check()


def test_preferred_energy_goes_to_who_prefers_it() -> None:
    """Both accept both at the price of 20; Carol, who is later, would pay more for solar energy."""
    world = make_street()
    ask(world, ALICE, 1_000, 20)
    ask(world, MALLORY, 1_000, 20)
    bid(world, BOB, 1_000, 20)
    bid(world, CAROL, 1_000, 20, sources=[(SOLAR, 25)])

    logs = world.clear()

    assert sorted(trades_of(logs)) == sorted(
        told(Traded(CAROL, ALICE, 1_000, 20), Traded(BOB, MALLORY, 1_000, 20))
    )


@pytest.mark.parametrize("change", ["revoked", "another meter", "another source"])
def test_a_source_is_what_the_tokens_hold_whatever_the_meter_is_now(change: str) -> None:
    """S-12: a certificate says what is stored while it holds."""
    world = make_street()
    ask(world, ALICE, 1_000, 22)
    bid(world, BOB, 1_000, 20, sources=[(SOLAR, 25)])
    meter = address("meter of " + ALICE.hex())
    if change == "revoked":
        world.ctt(OPERATOR, "revokeMeter(address)", meter)
    elif change == "another meter":
        world.ctt(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", address("new"), WIND, 0, False)
        world.ctt(ALICE, "register(address)", address("new"))
    else:
        world.ctt(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, WIND, 0, False)

    assert trades_of(world.clear()) == told(Traded(BOB, ALICE, 1_000, 23))
    assert origin_of(world, BOB) == {SOLAR: 1_000}


def test_who_takes_solar_energy_only_gets_just_that_out_of_mixed_tokens() -> None:
    """M-9: Alice has 4 kWh of each in one token, and offers 3 of each."""
    world = make_mixed()
    ask(world, ALICE, 6_000, 10)
    bid(world, BOB, 5_000, 0, sources=[(SOLAR, 20)])

    logs = world.clear()

    assert trades_of(logs) == told(Traded(BOB, ALICE, 3_000, 15))
    assert origins_of(logs) == told(OriginTraded(BOB, ALICE, SOLAR, 3_000))
    assert origin_of(world, BOB) == {SOLAR: 3_000}
    assert origin_of(world, ALICE) == {SOLAR: 1_000, WIND: 4_000}
    world.check()


def test_who_takes_anything_gets_what_the_tokens_hold() -> None:
    world = make_mixed()
    ask(world, ALICE, 3_001, 10)
    bid(world, BOB, 5_000, 20)

    logs = world.clear()

    assert origins_of(logs) == told(
        OriginTraded(BOB, ALICE, SOLAR, 1_501), OriginTraded(BOB, ALICE, WIND, 1_500)
    )
    assert origin_of(world, BOB) == {SOLAR: 1_501, WIND: 1_500}
    world.check()


def test_one_seller_serves_each_buyer_with_what_it_accepts() -> None:
    """M-9: one trade with each, and Carol, who takes anything, leaves the sun to Bob."""
    world = make_mixed()
    ask(world, ALICE, 8_000, 10)
    bid(world, CAROL, 4_000, 20)
    bid(world, BOB, 4_000, 0, sources=[(SOLAR, 20)])

    logs = world.clear()

    assert sorted(trades_of(logs)) == sorted(
        told(Traded(BOB, ALICE, 4_000, 15), Traded(CAROL, ALICE, 4_000, 15))
    )
    assert (origin_of(world, BOB), origin_of(world, CAROL)) == ({SOLAR: 4_000}, {WIND: 4_000})
    world.check()


def test_what_a_buyer_gets_of_one_seller_is_one_trade() -> None:
    """However many sources are told apart in it; there is an `OriginTraded` for each."""
    world = make_mixed()
    ask(world, ALICE, 6_000, 10)
    bid(world, BOB, 6_000, 20, sources=[(SOLAR, 25)])

    logs = world.clear()

    assert trades_of(logs) == told(Traded(BOB, ALICE, 6_000, 15))
    assert origins_of(logs) == told(
        OriginTraded(BOB, ALICE, SOLAR, 3_000), OriginTraded(BOB, ALICE, WIND, 3_000)
    )
    world.check()


@pytest.mark.parametrize("source", [0, WIND])
def test_only_a_known_source_is_told(source: int) -> None:
    world = MarketWorld()
    world.settle_in(ALICE, 1, 1_000, source)
    world.settle_in(BOB, 1, 0)
    ask(world, ALICE, 1_000, 10)
    bid(world, BOB, 1_000, 10)

    logs = world.clear()

    assert origins_of(logs) == (told(OriginTraded(BOB, ALICE, WIND, 1_000)) if source else [])
    assert origin_of(world, BOB) == {source: 1_000}


@pytest.mark.parametrize("partners", [[], [(BOB, 20)]])
def test_nothing_of_an_offer_is_sold_twice(partners: Any) -> None:
    """Of one Wh of each source Bob gets the first, in the auction or before it, and Carol the other."""
    world = make_mixed()
    ask(world, ALICE, 2, 10, partners=partners)
    bid(world, BOB, 1, 20)
    bid(world, CAROL, 1, 20)

    logs = world.clear()

    assert origins_of(logs) == told(OriginTraded(BOB, ALICE, SOLAR, 1), OriginTraded(CAROL, ALICE, WIND, 1))
    world.check()


def test_tokens_behind_the_offer_keep_what_they_hold() -> None:
    """Alice's full token of solar energy is not in her offer out of the mixed one."""
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    meter = address("meter of " + ALICE.hex())
    for source in (SOLAR, WIND):
        world.ctt(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, source, 0, False)
        assert world.charge_at_ctt(ALICE, 4_000) == 4_000
    ask(world, ALICE, 6_000, 10)
    bid(world, BOB, 3_000, 0, sources=[(SOLAR, 20)])

    world.clear()

    full, mixed = sorted((token.energy_wh, token.origin) for token in map(world.token, (1, 7)))[::-1]
    assert (full, mixed) == ((10_000, (10_000,)), (5_000, (1_000, 4_000)))
    world.check()


def test_what_is_not_sold_of_an_offer_is_mixed_anew_in_its_tokens() -> None:
    """M-9: Alice has 10 kWh of solar energy in a full token and 6 of wind in the next, which is drained first. Only
    the sun of her 12 kWh is wanted: the tokens have 6 kWh less between them, and the wind is all there."""
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    meter = address("meter of " + ALICE.hex())
    world.ctt(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, WIND, 0, False)
    assert world.charge_at_ctt(ALICE, 6_000) == 6_000
    ask(world, ALICE, 12_000, 10)
    bid(world, BOB, 9_000, 0, sources=[(SOLAR, 20)])

    logs = world.clear()

    assert origins_of(logs) == told(OriginTraded(BOB, ALICE, SOLAR, 6_000))
    assert origin_of(world, BOB) == {SOLAR: 6_000}
    assert origin_of(world, ALICE) == {SOLAR: 4_000, WIND: 6_000}
    world.check()


def test_partners_get_the_sources_that_the_buyer_accepts_each_its_share() -> None:
    """M-8: at 12 Bob accepts no wind from Alice, whom he does not name; Carol names her and takes both."""
    world = make_mixed()
    ask(world, ALICE, 6_000, 99, partners=[(BOB, 12), (CAROL, 12)])
    bid(world, BOB, 2_000, 20, sources=[(WIND, 11)])
    bid(world, CAROL, 2_000, 0, partners=[(ALICE, 12)])

    logs = world.clear()

    assert trades_of(logs) == told(
        PartnerTraded(BOB, ALICE, 2_000, 12), PartnerTraded(CAROL, ALICE, 2_000, 12)
    )
    assert origin_of(world, BOB) == {SOLAR: 2_000}
    assert origin_of(world, CAROL) == {SOLAR: 500, WIND: 1_500}
    world.check()


def test_every_source_can_have_its_maximum() -> None:
    world = make_street()
    for number, source in enumerate((0, 3, 4, 5)):
        person = address(f"person {number}")
        world.put_account(person)
        world.settle_in(person, 1, 1_000, source)
        ask(world, person, 1_000, 10)
    ask(world, ALICE, 1_000, 10)
    ask(world, MALLORY, 1_000, 10)
    bid(world, BOB, 9_000, 0, sources=[(source, 10 + source) for source in range(6)])

    logs = world.clear()

    # At 10 six kWh move, at 11 all but those without a source, and so on.
    assert world.call("auction(uint256)", 1)[:2] == (10, 6_000)
    assert len(trades_of(logs)) == 6
    world.check()


# --- partners and gifts -----------------------------------------------------------------------------------------------


def test_a_gift_costs_its_receiver_the_grid_fee() -> None:
    """M-8: the tariff's floor is no matter between partners."""
    world = make_street(grid_fee=4, floor=8)
    ask(world, ALICE, 1_000, 30, partners=[(BOB, 0)])
    bid(world, BOB, 1_500, 10)

    logs = world.clear()

    assert trades_of(logs) == told(PartnerTraded(BOB, ALICE, 1_000, 0))
    assert world.balance(BOB) == WEALTH_WEI - 1_000 * 4
    assert world.balance(ALICE) == WEALTH_WEI
    assert world.energy(BOB) == 1_000
    assert world.call("auction(uint256)", 1)[:2] == (0, 1_000)
    world.check()


def test_partners_come_before_the_auction_in_the_sellers_order() -> None:
    world = make_street()
    ask(world, ALICE, 5_000, 10, partners=[(CAROL, 12), (BOB, 11)])
    bid(world, BOB, 2_000, 30)
    bid(world, CAROL, 2_000, 14)

    logs = world.clear()

    # The rest of Alice's energy finds no buyer: both are served.
    assert trades_of(logs) == told(
        PartnerTraded(CAROL, ALICE, 2_000, 12), PartnerTraded(BOB, ALICE, 2_000, 11)
    )
    assert logs[-1] == told(AuctionCleared(1, 0, 4_000, 2, 1))[0]


def test_what_partners_leave_goes_to_the_auction() -> None:
    world = make_street()
    ask(world, ALICE, 5_000, 10, partners=[(CAROL, 12)])
    bid(world, BOB, 2_000, 30)
    bid(world, CAROL, 1_000, 14)

    logs = world.clear()

    assert trades_of(logs) == told(PartnerTraded(CAROL, ALICE, 1_000, 12), Traded(BOB, ALICE, 2_000, 20))


def test_a_partner_who_does_not_go_so_high_is_left_out() -> None:
    """Carol's general maximum of 14 counts for a partner that she does not name; Bob names Alice with less."""
    world = make_street()
    ask(world, ALICE, 5_000, 40, partners=[(CAROL, 15), (BOB, 12)])
    bid(world, BOB, 2_000, 30, partners=[(ALICE, 11)])
    bid(world, CAROL, 1_000, 14)

    assert trades_of(world.clear()) == []


@pytest.mark.parametrize(("limit", "meets"), [(11, False), (12, True), (13, True)])
@pytest.mark.parametrize("kind", ["general", "source", "partner"])
def test_partners_meet_when_the_buyers_maximum_reaches_the_sellers_price(
    kind: str, limit: int, meets: bool
) -> None:
    """M-8: a partner's maximum counts before a source's, and that before the general one, higher or lower."""
    world = make_street()
    ask(world, ALICE, 1_000, 99, partners=[(BOB, 12)])
    partners = {"general": [], "source": [], "partner": [(ALICE, limit)]}[kind]
    sources = {"general": [], "source": [(SOLAR, limit)], "partner": [(SOLAR, 24 - limit)]}[kind]
    bid(world, BOB, 1_000, limit if kind == "general" else 24 - limit, sources=sources, partners=partners)

    assert trades_of(world.clear()) == (told(PartnerTraded(BOB, ALICE, 1_000, 12)) if meets else [])


def test_who_sold_to_a_partner_buys_nothing_in_the_auction() -> None:
    """M-2: Alice sells to Carol at 20; the wind at 10 is cheap enough for her, but waits."""
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    ask(world, ALICE, 1_000, 30, partners=[(CAROL, 20)])
    bid(world, ALICE, 1_000, 15)
    bid(world, CAROL, 1_000, 25)
    ask(world, MALLORY, 1_000, 10)

    assert trades_of(world.clear()) == told(PartnerTraded(CAROL, ALICE, 1_000, 20))
    assert trades_of(world.clear()) == told(Traded(ALICE, MALLORY, 1_000, 12))
    world.check()


def test_who_bought_from_a_partner_sells_nothing_in_the_auction() -> None:
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    ask(world, MALLORY, 500, 30, partners=[(ALICE, 10)])
    ask(world, ALICE, 1_000, 16)
    bid(world, ALICE, 1_000, 15)
    bid(world, BOB, 1_000, 16)

    assert trades_of(world.clear()) == told(PartnerTraded(ALICE, MALLORY, 500, 10))
    assert trades_of(world.clear()) == told(Traded(BOB, ALICE, 1_000, 16))


@pytest.mark.parametrize("first", [ALICE, MALLORY])
def test_between_partners_too_nobody_is_on_both_sides(first: Address) -> None:
    """Alice would sell to Carol and buy from Mallory; the ask that stands longer decides."""
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    partners = {ALICE: (CAROL, 20), MALLORY: (ALICE, 10)}
    for seller in (first, ALICE if first == MALLORY else MALLORY):
        ask(world, seller, 1_000, 30, partners=[partners[seller]])
    bid(world, ALICE, 1_000, 15)
    bid(world, CAROL, 1_000, 25)

    sale, purchase = PartnerTraded(CAROL, ALICE, 1_000, 20), PartnerTraded(ALICE, MALLORY, 1_000, 10)
    assert trades_of(world.clear()) == told(sale if first == ALICE else purchase)
    assert trades_of(world.clear()) == told(purchase if first == ALICE else sale)


def test_a_mandate_is_not_spent_on_both_sides() -> None:
    """Energy for 1 kWh: Alice's platform sells it to Carol, and does not buy as much from Mallory."""
    world = make_street()
    world.ctt(ALICE, "buyEmptyToken()")
    world.done(
        ALICE, "grantMandate(address,uint256,uint256,uint256,uint256,uint64)", BOB, 1_000, 10**6, 15, 20, 9
    )
    ask_for = "askFor(address,uint256,uint256,uint64,(address,uint256)[])"
    world.done(BOB, ask_for, ALICE, 1_000, 30, 9, [(CAROL, 20)])
    world.done(BOB, "bidFor(address,uint256,uint256,uint64)", ALICE, 1_000, 15, 9)
    bid(world, CAROL, 1_000, 25)
    ask(world, MALLORY, 1_000, 10)

    world.clear()
    world.clear()

    assert world.call("mandate(address,address)", ALICE, BOB)[0] == 0
    assert world.energy(ALICE) == 9_000
    world.check()


@pytest.mark.parametrize(("named", "meets"), [(False, False), (True, True)])
def test_above_the_ceiling_only_who_names_the_partner_buys(named: bool, meets: bool) -> None:
    """M-8: what is above the ceiling counts as the ceiling, and so does the money; a partner's maximum counts whole."""
    world = make_street(ceiling=30)
    ask(world, ALICE, 10_000, 99, partners=[(BOB, 45)])
    bid(world, BOB, 10_000, 50, partners=[(ALICE, 50)] if named else [])
    world.put_balance(BOB, 10_000 * 30)

    logs = world.clear()

    assert trades_of(logs) == (told(PartnerTraded(BOB, ALICE, 6_000, 45)) if meets else [])
    assert world.balance(BOB) == 300_000 - (6_000 * 45 if meets else 0)
    world.check()


def test_a_buyers_naming_alone_buys_nothing() -> None:
    """M-8: a seller who names nobody is sold for the one price, so no buyer can come before the others."""
    world = make_street()
    ask(world, ALICE, 1_000, 10)
    bid(world, CAROL, 1_000, 20)
    bid(world, BOB, 1_000, 19, partners=[(ALICE, 100)])

    assert trades_of(world.clear()) == told(Traded(CAROL, ALICE, 1_000, 20))


def test_the_money_of_a_bid_is_counted_at_its_highest_maximum() -> None:
    """Whoever names a partner with a high price must have it."""
    world = make_street()
    ask(world, ALICE, 9_000, 10)
    bid(world, BOB, 9_000, 10, partners=[(ALICE, WEALTH_WEI // 1_000)])

    world.clear()

    assert world.energy(BOB) == 1_000


# --- refusals ---------------------------------------------------------------------------------------------------------


FOUR = [(address(f"partner {number}"), 1) for number in range(4)]
TOO_DEAR = PRICE_MAX + 1


@pytest.mark.parametrize(
    ("sources", "partners", "refusal"),
    [
        ([(1, TOO_DEAR)], [], InvalidAmount(TOO_DEAR, 0, PRICE_MAX)),
        ([], [(CAROL, TOO_DEAR)], InvalidAmount(TOO_DEAR, 0, PRICE_MAX)),
        ([(1, 1)] * 7, [(CAROL, TOO_DEAR)], InvalidAmount(TOO_DEAR, 0, PRICE_MAX)),
        ([(6, 1)] * 7, [], TooManyWishes(7, 6)),
        ([(6, 1)], [*FOUR, (CAROL, 1)], TooManyWishes(5, 4)),
        ([(6, 1)], [(ZERO_ADDRESS, 1)], InvalidSource(6, 5)),
        ([(1, 1), (1, 2)], [], InvalidSource(1, 5)),
        ([], [(ZERO_ADDRESS, 1)], InvalidPartner(ZERO_ADDRESS)),
        ([], [(BOB, 1)], InvalidPartner(BOB)),
        ([], [(CAROL, 1), (CAROL, 2)], InvalidPartner(CAROL)),
    ],
)
def test_wishes_are_refused(sources: Any, partners: Any, refusal: Revert) -> None:
    assert make_street().refusal(BOB, BID_WITH, 1, 1, 0, sources, partners) == refusal


def test_as_many_wishes_as_may_be_are_taken() -> None:
    world = make_street()

    bid(world, BOB, 1, 1, sources=[(source, PRICE_MAX) for source in range(6)], partners=FOUR)
    ask(world, ALICE, 1, 1, partners=FOUR)

    world.check()


@pytest.mark.parametrize(
    ("wishes", "crosses"),
    [
        (([(WIND, 9)], []), False),
        (([(WIND, 10)], []), True),
        (([], [(CAROL, 9)]), False),
        (([], [(CAROL, 10)]), True),
    ],
)
def test_no_wish_of_a_bid_reaches_ones_own_ask(wishes: Any, crosses: bool) -> None:
    world = make_street()
    asked = ask(world, ALICE, 1, 10)

    revert = world.send(ALICE, BID_WITH, 1, 1, FOREVER, *wishes).revert

    assert revert == (CrossesOwnOrder(asked) if crosses else None)


def test_who_gives_away_cannot_bid() -> None:
    world = make_street()
    given = ask(world, ALICE, 1, 10, partners=[(BOB, 0)])

    assert world.refusal(ALICE, BID_WITH, 1, 0, FOREVER, [], []) == CrossesOwnOrder(given)
