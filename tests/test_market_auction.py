"""The auction's arithmetic against its definition: every price tried, every flow found the slow way."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.modules.market.auction import Ask, Bid, Result, clear

PRICES = range(8)
MAX_GROUPS = 3


def served(bids: Sequence[Bid], asks: Sequence[Ask], result: Result) -> tuple[list[int], list[int]]:
    """What each bid and each ask got."""
    bought, sold = [0] * len(bids), [0] * len(asks)
    for bid, ask, energy in result.trades:
        bought[bid] += energy
        sold[ask] += energy
    return bought, sold


def most_at(price: int, bids: Sequence[Bid], asks: Sequence[Ask]) -> int:
    """The most energy that can go from asks to bids that accept each other at this price: paths, a Wh at a time."""
    given_by = [ask.energy_wh if ask.limit <= price else 0 for ask in asks]
    needed = [bid.energy_wh for bid in bids]
    flow = [[0] * len(asks) for _ in bids]

    def serve(bid: int, seen: set[int]) -> bool:
        for place, ask in enumerate(asks):
            if bids[bid].limits[ask.group] < price or place in seen:
                continue
            seen.add(place)
            if given_by[place]:
                given_by[place] -= 1
                flow[bid][place] += 1
                return True
            for other in range(len(bids)):
                if other != bid and flow[other][place] and serve(other, seen):
                    flow[other][place] -= 1
                    flow[bid][place] += 1
                    return True
        return False

    total = 0
    for bid in range(len(bids)):
        while needed[bid] and serve(bid, set()):
            needed[bid] -= 1
            total += 1
    return total


def imbalance_at(price: int, bids: Sequence[Bid], asks: Sequence[Ask]) -> int:
    demand = sum(bid.energy_wh for bid in bids if max(bid.limits) >= price)
    return abs(demand - sum(ask.energy_wh for ask in asks if ask.limit <= price))


def price_by_definition(bids: Sequence[Bid], asks: Sequence[Ask]) -> tuple[int, int]:
    """The price, and what it moves; every price is tried."""
    score = {p: (most_at(p, bids, asks), -imbalance_at(p, bids, asks)) for p in PRICES}
    best = max(score.values())
    if not best[0]:
        return 0, 0
    low = next(p for p in PRICES if score[p] == best)
    high = low
    while score.get(high + 1) == best:
        high += 1
    return (low + high) // 2, best[0]


@st.composite
def books(draw: st.DrawFn) -> tuple[list[Bid], list[Ask], int]:
    groups = draw(st.integers(1, MAX_GROUPS))
    limits = st.integers(0, PRICES[-1] - 1)
    bids = st.builds(Bid, st.integers(1, 5), st.tuples(*[limits] * groups))
    asks = st.builds(Ask, st.integers(1, 5), st.integers(0, PRICES[-1]), st.integers(0, groups - 1))
    return draw(st.lists(bids, max_size=5)), draw(st.lists(asks, max_size=5)), groups


@given(book=books())
def test_the_price_moves_the_most_energy_and_nobody_trades_outside_its_limits(
    book: tuple[list[Bid], list[Ask], int],
) -> None:
    """M-5: against the definition."""
    bids, asks, groups = book
    result = clear(bids, asks, groups)
    bought, sold = served(bids, asks, result)

    assert (result.price, sum(bought)) == price_by_definition(bids, asks)
    assert all(got <= bid.energy_wh for got, bid in zip(bought, bids, strict=True))
    assert all(gave <= ask.energy_wh for gave, ask in zip(sold, asks, strict=True))
    for bid, ask, energy in result.trades:
        assert energy > 0
        assert asks[ask].limit <= result.price <= bids[bid].limits[asks[ask].group]


@given(book=books())
def test_each_is_served_as_far_as_all_with_more_right_leave_it_room(
    book: tuple[list[Bid], list[Ask], int],
) -> None:
    """M-6, M-9: in the order of right, better limits first, then earlier ones, each gets what can be moved more with it
    than without it."""
    bids, asks, groups = book
    result = clear(bids, asks, groups)
    bought, sold = served(bids, asks, result)
    price = result.price

    def right(at: int) -> tuple[int, int]:
        return -min([limit for limit in bids[at].limits if limit >= price], default=0), at

    before = 0
    for count, at in enumerate(buyers := sorted(range(len(bids)), key=right), 1):
        most = most_at(price, [bids[each] for each in buyers[:count]], asks) if result.trades else 0
        assert bought[at] == most - before
        before = most
    before = 0
    for count, at in enumerate(sellers := sorted(range(len(asks)), key=lambda at: (asks[at].limit, at)), 1):
        most = most_at(price, bids, [asks[each] for each in sellers[:count]]) if result.trades else 0
        assert sold[at] == most - before
        before = most


@given(book=books(), data=st.data())
def test_an_order_in_pieces_gets_what_it_would_get_whole(
    book: tuple[list[Bid], list[Ask], int], data: st.DataObject
) -> None:
    """M-7: pieces with the order's limits in its place in time: the same price, the same energy, for everybody."""
    bids, asks, groups = book
    result = clear(bids, asks, groups)
    bought, sold = served(bids, asks, result)
    energies = [bid.energy_wh for bid in bids] + [ask.energy_wh for ask in asks]
    cuts = [data.draw(st.integers(0, energy - 1)) for energy in energies]
    pieces = [
        (place, wh)
        for place, (energy, cut) in enumerate(zip(energies, cuts, strict=True))
        for wh in (cut, energy - cut)
        if wh
    ]
    buying = [(place, wh) for place, wh in pieces if place < len(bids)]
    selling = [(place - len(bids), wh) for place, wh in pieces if place >= len(bids)]

    split = clear(
        [bids[place]._replace(energy_wh=wh) for place, wh in buying],
        [asks[place]._replace(energy_wh=wh) for place, wh in selling],
        groups,
    )

    assert split.price == result.price
    got, gave = [0] * len(bids), [0] * len(asks)
    for bid, ask, energy in split.trades:
        got[buying[bid][0]] += energy
        gave[selling[ask][0]] += energy
    assert (got, gave) == (bought, sold)


BUYERS = [Bid(30, (14,)), Bid(20, (12,)), Bid(25, (10,)), Bid(40, (7,))]
SELLERS = [Ask(20, 5), Ask(30, 8), Ask(25, 9), Ask(30, 13)]


@pytest.mark.parametrize(
    ("bids", "asks", "price", "bought", "sold"),
    [
        pytest.param(BUYERS, SELLERS, 9, [30, 20, 25, 0], [20, 30, 25, 0], id="curves that cross"),
        pytest.param([Bid(5, (20,))], [Ask(5, 10)], 15, [5], [5], id="the middle of the range"),
        pytest.param([Bid(5, (21,))], [Ask(5, 10)], 15, [5], [5], id="rounded down"),
        pytest.param([Bid(5, (10,))], [Ask(5, 10)], 10, [5], [5], id="limits that just meet"),
        pytest.param([Bid(5, (9,))], [Ask(5, 10)], 0, [0], [0], id="limits that do not"),
        pytest.param([Bid(5, (0,))], [Ask(5, 0)], 0, [5], [5], id="for nothing"),
        pytest.param([Bid(5, (9,))] * 3, [Ask(7, 9)], 9, [5, 2, 0], [7], id="time at the margin of bids"),
        pytest.param([Bid(7, (9,))], [Ask(5, 9)] * 3, 9, [7], [5, 2, 0], id="time at the margin of asks"),
        pytest.param([Bid(9, (20,))], [Ask(5, 4), Ask(3, 10)], 15, [8], [5, 3], id="too little is offered"),
        pytest.param([Bid(5, (20,)), Bid(3, (9,))], [Ask(9, 4)], 6, [5, 3], [8], id="too much is offered"),
        # At 8 and 9 all 6 Wh of the asks move, and all 6 Wh of bids are wanted; at 7 and below 8 Wh are wanted.
        pytest.param([Bid(6, (9,)), Bid(2, (7,))], [Ask(6, 2)], 8, [6, 0], [6], id="the smallest imbalance"),
        pytest.param([], SELLERS, 0, [], [0] * 4, id="nobody buys"),
        pytest.param(BUYERS, [], 0, [0] * 4, [], id="nobody sells"),
    ],
)
def test_worked_examples(
    bids: list[Bid], asks: list[Ask], price: int, bought: list[int], sold: list[int]
) -> None:
    result = clear(bids, asks)

    assert (result.price, served(bids, asks, result)) == (price, (bought, sold))


ANY_20_SOLAR_25 = (25, 20)


@pytest.mark.parametrize(
    ("bids", "asks", "price", "bought", "sold"),
    [
        pytest.param([Bid(5, ANY_20_SOLAR_25)], [Ask(5, 22, 1)], 0, [0], [0], id="not for any energy"),
        pytest.param([Bid(5, ANY_20_SOLAR_25)], [Ask(5, 22, 0)], 23, [5], [5], id="for solar energy"),
        pytest.param(
            [Bid(5, (24, 24)), Bid(5, ANY_20_SOLAR_25)],
            [Ask(5, 22, 0), Ask(5, 22, 1)],
            23,
            [5, 5],
            [5, 5],
            id="who takes anything leaves the solar energy to who does not",
        ),
        pytest.param(
            [Bid(5, (24, 24)), Bid(5, ANY_20_SOLAR_25)],
            [Ask(5, 18, 0), Ask(5, 18, 1)],
            21,
            [5, 5],
            [5, 5],
            id="at a price above a general maximum",
        ),
        pytest.param([Bid(5, (0, 20))], [Ask(5, 10, 0)], 0, [0], [0], id="hardly solar"),
    ],
)
def test_worked_examples_with_a_preference(
    bids: list[Bid], asks: list[Ask], price: int, bought: list[int], sold: list[int]
) -> None:
    """Group 0 is solar, group 1 the rest."""
    result = clear(bids, asks, 2)

    assert (result.price, served(bids, asks, result)) == (price, (bought, sold))


def test_preferred_energy_goes_to_those_who_prefer_it() -> None:
    """All would take anything at the price. Groups: solar, wind, the rest."""
    bids = [Bid(5, (20, 25, 20)), Bid(5, (20, 20, 20)), Bid(5, (25, 20, 20))]
    asks = [Ask(5, 10, 0), Ask(5, 10, 1), Ask(5, 10, 2)]

    assert sorted(clear(bids, asks, 3).trades) == [(0, 1, 5), (1, 2, 5), (2, 0, 5)]


def test_the_lower_of_two_ranges_counts() -> None:
    """At 2 and 3 the first energy moves, at 5 and 6 the second, at 4 none: the bid's maxima are apart."""
    assert clear([Bid(3, (3, 6))], [Ask(2, 5, 1), Ask(2, 2, 0)], 2).price == 2


def test_energy_is_dealt_out_in_one_order() -> None:
    """The bid that accepts the first two groups is dealt with before the one that accepts all three."""
    bids = [Bid(2, (9, 9, 9)), Bid(2, (9, 9, 0))]
    asks = [Ask(2, 5, 0), Ask(1, 5, 1), Ask(1, 5, 2)]

    assert sorted(clear(bids, asks, 3).trades) == [(0, 1, 1), (0, 2, 1), (1, 0, 2)]


def test_who_prefers_other_energy_leaves_this_to_who_does_not_care() -> None:
    """Groups: solar, wind. The first would pay more for wind, the second for neither."""
    bids, asks = [Bid(5, (20, 25)), Bid(5, (20, 20))], [Ask(5, 10, 0), Ask(5, 10, 1)]

    assert sorted(clear(bids, asks, 2).trades) == [(0, 1, 5), (1, 0, 5)]
