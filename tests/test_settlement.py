"""Settlement: every metered Wh has one origin, money is exact, and what is added up in pieces is the same."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.settlement import (
    SLOT_MS,
    Event,
    Kind,
    Position,
    Reading,
    Settlement,
    Stock,
    StockExceeded,
    Tariff,
    Trade,
    join,
    least_stock_wh,
    settle,
    slot_of,
)
from ctt_state.units import Address, Ms, Wei, Wh
from tests.world import address

PAGE: Final = Path(__file__).parent.parent / "docs" / "SETTLEMENT.md"
BILL: Final = Path(__file__).parents[2] / "shared" / "data" / "bill-golden.json"
METER, OTHER_METER = address("meter"), address("other meter")
CENT: Final = 10**13  # wei per Wh: a cent per kWh
TEN: Final = 10 * 3_600_000  # ten o'clock, in ms
MINUTE: Final = 60_000


def reading(
    time_ms: int, produced: int, stored: int, consumed: int, covered: int, meter: Address = METER
) -> Reading:
    return Reading(Ms(time_ms), meter, Wh(produced), Wh(stored), Wh(consumed), Wh(covered))


def trade(
    time_ms: int, kind: Kind, is_purchase: bool, energy: int, cents: int, *, fee: int = 0, token_wei: int = 0
) -> Trade:
    paid, grid = Wei(energy * cents * CENT), Wei(energy * fee * CENT)
    return Trade(Ms(time_ms), kind, is_purchase, Wh(energy), paid, grid, Wei(token_wei))


# --- the page's example ---

BEFORE: Final = Position(Stock(own_wh=Wh(500)))
EXAMPLE: Final[list[Event]] = [
    Tariff(Wei(30 * CENT), Wei(8 * CENT)),
    reading(TEN + 15 * MINUTE, 1_200, 1_000, 300, 300),
    trade(TEN + 16 * MINUTE, Kind.AUCTION, False, 800, 19),
    trade(TEN + 17 * MINUTE, Kind.PARTNER, True, 300, 10, fee=4),
    trade(TEN + 18 * MINUTE, Kind.TOKEN, True, 1_000, 15, token_wei=2 * 10**16),
    reading(TEN + 30 * MINUTE, 100, 100, 2_200, 1_800),
    trade(TEN + 31 * MINUTE, Kind.AUCTION, True, 500, 20, fee=4),
    trade(TEN + 44 * MINUTE, Kind.TOKEN, False, 200, 25, token_wei=10**16),
    reading(TEN + 45 * MINUTE, 0, 0, 100, 100),
]
SETTLED: Final = [
    Settlement(
        Ms(TEN),
        METER,
        own_used_wh=Wh(300),
        stored_wh=Wh(1_000),
        fed_in_wh=Wh(200),
        fed_in_wei=Wei(200 * 8 * CENT),
    ),
    Settlement(
        Ms(TEN + SLOT_MS),
        METER,
        own_used_wh=Wh(500),
        partner_used_wh=Wh(300),
        auction_used_wh=Wh(1_000),
        billed_wh=Wh(400),
        billed_wei=Wei(12 * 10**16),
        stored_wh=Wh(100),
        partner_bought_wh=Wh(300),
        partner_bought_wei=Wei(3 * 10**16),
        token_bought_wh=Wh(1_000),
        token_bought_wei=Wei(15 * 10**16),
        auction_sold_wh=Wh(800),
        auction_sold_wei=Wei(152 * 10**15),
        grid_fee_wei=Wei(12 * 10**15),
        token_paid_wei=Wei(2 * 10**16),
    ),
    Settlement(
        Ms(TEN + 2 * SLOT_MS),
        METER,
        auction_used_wh=Wh(100),
        auction_bought_wh=Wh(500),
        auction_bought_wei=Wei(10**17),
        token_sold_wh=Wh(200),
        token_sold_wei=Wei(5 * 10**16),
        resold_wh=Wh(200),
        grid_fee_wei=Wei(2 * 10**16),
        token_received_wei=Wei(10**16),
    ),
]


def test_the_example_is_settled_as_the_page_says() -> None:
    settled, after = settle(EXAMPLE, BEFORE)

    assert settled == SETTLED
    assert after == Position(Stock(auction_wh=Wh(200)), Tariff(Wei(30 * CENT), Wei(8 * CENT)), METER)
    page = PAGE.read_text().replace("\N{MINUS SIGN}", "-")
    rows: dict[str, list[int]] = {
        "consumed": [each.consumed_wh for each in settled],
        "own production": [each.own_used_wh for each in settled],
        "partners": [each.partner_used_wh for each in settled],
        "auction": [each.auction_used_wh for each in settled],
        "tariff": [each.billed_wh for each in settled],
        "produced": [each.produced_wh for each in settled],
        "stored": [each.stored_wh for each in settled],
        "fed in": [each.fed_in_wh for each in settled],
        "bought": [each.bought_wh for each in settled],
        "sold": [each.sold_wh for each in settled],
        "of it resold": [each.resold_wh for each in settled],
        "sold - produced": [each.sold_deviation_wh for each in settled],
        "bought - consumed": [each.bought_deviation_wh for each in settled],
    }
    for name, row in rows.items():
        assert f"| {name} | {' | '.join(f'{wh:,}' for wh in row)} |" in page
    money = {"paid": [each.paid_wei for each in settled], "received": [each.received_wei for each in settled]}
    for name, in_wei in money.items():
        assert f"| {name} | {' | '.join(f'{Decimal(wei) / 10**18:.3f}' for wei in in_wei)} |" in page


@pytest.mark.skipif(not BILL.exists(), reason="the deck's bill is not here")
def test_the_decks_bill_is_settled() -> None:
    bill = json.loads(BILL.read_text())
    price = Wei(int(Decimal(bill["tariff"]["energy_per_kwh"]) * 10**15))
    consumed, covered = bill["consumption_wh"], bill["covered_by_ctt_wh"]

    (settled,), _ = settle(
        [Tariff(price), reading(TEN, 0, 0, consumed, covered)], Position(Stock(own_wh=covered))
    )

    assert settled.billed_wh == bill["expected"]["residual_wh"]
    assert Decimal(settled.billed_wei) / 10**18 == Decimal(bill["expected"]["grid_energy"])


# --- boundaries ---


@pytest.mark.parametrize(
    ("time_ms", "start_ms"),
    [(TEN, TEN - SLOT_MS), (TEN + 1, TEN), (TEN + SLOT_MS, TEN), (TEN + SLOT_MS + 1, TEN + SLOT_MS)],
)
def test_a_slot_has_its_end_and_not_its_start(time_ms: int, start_ms: int) -> None:
    assert slot_of(time_ms) == start_ms


def test_nothing_happened_is_no_settlement() -> None:
    assert settle([]) == ([], Position())
    tariff = Tariff(Wei(2), Wei(1))
    assert settle([tariff]) == ([], Position(tariff=tariff))


def test_what_a_reading_stores_may_cover_it() -> None:
    settled, after = settle([reading(TEN, 100, 100, 100, 100)])
    assert (settled[0].own_used_wh, after.stock.total_wh) == (100, 0)


def test_no_more_leaves_the_tokens_than_they_hold() -> None:
    stock = Position(Stock(Wh(1), Wh(2), Wh(3)))
    for kind in Kind:
        assert settle([trade(TEN, kind, False, 6, 1)], stock)[1].stock == Stock()
        with pytest.raises(StockExceeded, match="stock 6 Wh, 7 Wh leave it"):
            settle([trade(TEN, kind, False, 7, 1)], stock)
    with pytest.raises(StockExceeded):
        settle([reading(TEN, 0, 0, 7, 7)], stock)


def test_a_gift_is_a_partners_and_a_token_counts_as_bought_at_an_auction() -> None:
    bought = [trade(TEN, kind, True, 10 + kind, 0) for kind in Kind]
    assert settle(bought)[1].stock == Stock(Wh(0), Wh(10), Wh(11 + 12))


def test_the_tariff_is_that_of_the_time_in_the_order_of_the_chain() -> None:
    settled, _ = settle(
        [
            reading(TEN, 1, 0, 1, 0),
            Tariff(Wei(30), Wei(8)),
            reading(TEN, 1, 0, 1, 0),
            Tariff(Wei(100), Wei(50)),
            reading(TEN, 1, 0, 1, 0),
        ]
    )
    assert [(each.billed_wh, each.billed_wei, each.fed_in_wei) for each in settled] == [(3, 130, 58)]


def test_trades_count_with_the_meter_of_the_last_reading() -> None:
    sale = trade(TEN, Kind.PARTNER, False, 5, 1)
    settled, _ = settle(
        [reading(TEN, 10, 10, 0, 0), sale, reading(TEN, 0, 0, 0, 0, OTHER_METER), sale],
    )
    assert {each.meter: each.sold_wh for each in settled} == {METER: 5, OTHER_METER: 5}


def test_a_meters_prosumers_are_added_up() -> None:
    ada, _ = settle([reading(TEN, 10, 10, 0, 0), trade(TEN, Kind.AUCTION, False, 8, 1)])
    bea, _ = settle([reading(TEN, 20, 20, 0, 0), reading(TEN, 0, 0, 7, 0, OTHER_METER)])
    of_meters = {each.meter: each for each in join([*ada, *bea])}
    assert of_meters[METER].sold_deviation_wh == 8 - 30
    assert of_meters[OTHER_METER].bought_deviation_wh == -7


# --- properties ---

amounts = st.integers(0, 50)
parts = st.tuples(amounts, amounts).map(lambda pair: (sum(pair), pair[0]))  # a whole, and a part of it
times = st.integers(0, 4 * SLOT_MS).map(lambda ms: TEN + ms)
events = st.lists(
    st.one_of(
        st.builds(
            lambda time_ms, made, used, meter: reading(time_ms, made[0], made[1], used[0], used[1], meter),
            times,
            parts,
            parts,
            st.sampled_from((METER, OTHER_METER)),
        ),
        st.builds(
            lambda time_ms, kind, is_purchase, energy, cents, fee: trade(
                time_ms, kind, is_purchase, energy, cents, fee=fee, token_wei=7 * fee
            ),
            times,
            st.sampled_from(Kind),
            st.booleans(),
            amounts,
            amounts,
            st.integers(0, 9),
        ),
        st.builds(lambda retail, feed_in: Tariff(Wei(retail), Wei(feed_in)), amounts, amounts),
    ),
    max_size=30,
)


def total(settled: list[Settlement], name: str) -> int:
    return sum(getattr(each, name) for each in settled)


@given(events)
def test_nothing_is_lost_and_nothing_comes_from_nowhere(happened: list[Event]) -> None:
    """Metered is split to the Wh, every origin's stock is what came less what went, and money is that of the trades."""
    opening = least_stock_wh(happened)
    settled, after = settle(happened, Position(Stock(own_wh=opening)))

    readings = [each for each in happened if isinstance(each, Reading)]
    trades = [each for each in happened if isinstance(each, Trade)]
    assert total(settled, "consumed_wh") == sum(each.consumed_wh for each in readings)
    assert total(settled, "produced_wh") == sum(each.produced_wh for each in readings)
    used = sum(total(settled, f"{origin}_used_wh") for origin in ("own", "partner", "auction"))
    assert used == sum(each.covered_wh for each in readings)
    assert total(settled, "bought_wh") == sum(each.energy_wh for each in trades if each.is_purchase)
    assert total(settled, "sold_wh") == sum(each.energy_wh for each in trades if not each.is_purchase)

    resold = total(settled, "resold_wh")
    own_gone = total(settled, "own_used_wh") + total(settled, "sold_wh") - resold
    assert opening + total(settled, "stored_wh") - own_gone == after.stock.own_wh
    others_used = total(settled, "partner_used_wh") + total(settled, "auction_used_wh")
    others_left = after.stock.partner_wh + after.stock.auction_wh
    assert total(settled, "bought_wh") - others_used - resold == others_left

    paid = sum(each.energy_wei + each.grid_fee_wei + each.token_wei for each in trades if each.is_purchase)
    received = sum(each.energy_wei + each.token_wei for each in trades if not each.is_purchase)
    assert total(settled, "paid_wei") - total(settled, "billed_wei") == paid
    assert total(settled, "received_wei") - total(settled, "fed_in_wei") == received
    for each in settled:
        assert min(*each[2:], *after.stock) >= 0
        assert each.start_ms % SLOT_MS == 0


@given(events, st.integers(0, 30))
def test_pieces_join_to_the_whole(happened: list[Event], cut: int) -> None:
    opening = Position(Stock(own_wh=least_stock_wh(happened)))
    whole, after = settle(happened, opening)
    head, between = settle(happened[:cut], opening)
    tail, end = settle(happened[cut:], between)
    assert (join([*tail, *head]), end) == (whole, after)


@given(events)
def test_the_least_stock_is_just_enough(happened: list[Event]) -> None:
    least = least_stock_wh(happened)
    settle(happened, Position(Stock(own_wh=least)))
    if least:
        with pytest.raises(StockExceeded):
            settle(happened, Position(Stock(own_wh=Wh(least - 1))))


@given(events)
def test_the_waterfall_takes_a_later_origin_only_when_those_before_are_empty(happened: list[Event]) -> None:
    """One event at a time: what bought energy covers or sells leaves no own production behind."""
    position = Position(Stock(own_wh=least_stock_wh(happened)))
    for event in happened:
        settled, position = settle([event], position)
        for each in settled:
            if each.partner_used_wh or each.auction_used_wh or each.resold_wh:
                assert position.stock.own_wh == 0
            if each.auction_used_wh:
                assert position.stock.partner_wh == 0
