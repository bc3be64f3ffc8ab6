"""The audit finds each fault that it can name: one planted, one told."""

from collections.abc import Callable
from typing import Any

import pytest

from ctt_state.audit import audit
from ctt_state.records import (
    PAGE_TOKENS,
    Account,
    Auction,
    Barred,
    BookPage,
    CttConfig,
    CttSupply,
    EpochSet,
    Governance,
    MarketBook,
    MarketTariff,
    Meter,
    Offence,
    Order,
    Outcome,
    Proposal,
    Prosumer,
    Record,
    ShelfPage,
    Standing,
    Token,
)
from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address, TokenId, Wei
from tests.authority_world import Consortium, member, node_key, set_of
from tests.market_world import MarketWorld
from tests.world import ADMIN, ALICE, BOB, CAROL, WEALTH_WEI, World, address, check_invariants

Plant = Callable[[World], None]


def make_world() -> World:
    """Alice: token 1 full, 2 with 400 Wh, 3 empty, 4 on sale. Bob: token 5 with 100 Wh. Carol: a meter only."""
    world = World(max_supply=10, capability_wh=1_000)
    world.give_tokens(ALICE, 4)
    world.done(ALICE, "setOnSale(uint256)", 4)
    world.charge(ALICE, 1_500)
    world.done(world.get(Prosumer.key(ALICE)).meter, "consume(uint256,address)", 100, ALICE)
    world.give_tokens(BOB)
    world.charge(BOB, 100)
    world.give_meter(CAROL)
    return world


def faults_of(world: World) -> list[str]:
    records = [(key, record) for key, record in world.overlay.changes.items() if record is not None]
    return list(audit(records, world.issued_wei))


def change(key: bytes, **fields: Any) -> Plant:
    """Changes these fields of the record past all rules."""

    def plant(world: World) -> None:
        world.put(key, world.get(key)._replace(**fields))

    return plant


def put(key: bytes, record: Record | None) -> Plant:
    return lambda world: world.put(key, record)


def token(token_id: int) -> bytes:
    return Token.key(TokenId(token_id))


def hex_of(owner: bytes) -> str:
    return "0x" + owner.hex()


def meter_of(owner: bytes) -> Address:
    return address("meter of " + owner.hex())


ALICES_SHELF = f"shelf of {hex_of(ALICE)}: pages, tokens and the count 4 do not agree"
ADDS_UP_NOT = f"energy of the shelf of {hex_of(ALICE)} does not add up"

FAULTS: list[tuple[str, Plant, list[str]]] = [
    (
        "a wei too much",
        change(Account.key(ALICE), balance=Wei(WEALTH_WEI + 1)),
        [f"all balances are {6 * WEALTH_WEI + 1} wei, {6 * WEALTH_WEI} wei were issued"],
    ),
    ("no CTT", put(CttConfig.key(), None), ["5 tokens exist, but the CTT was not created"]),
    (
        "a token more than minted",
        change(CttSupply.key(), last_token_id=4),
        ["token ids are not 1 to 4: 5 tokens"],
    ),
    (
        "a gap in the ids",
        change(CttSupply.key(), last_token_id=6),
        ["token ids are not 1 to 6: 5 tokens"],
    ),
    ("too many tokens", change(CttConfig.key(), max_supply=4), ["5 tokens are minted, the maximum is 4"]),
    (
        "sums beyond 64 bits",
        change(CttConfig.key(), max_supply=UINT64_MAX // 1_000 + 1),
        [f"{UINT64_MAX // 1_000 + 1} tokens of 1000 Wh pass 64 bits"],
    ),
    (
        "energy from nowhere",
        change(CttSupply.key(), energy_wh=1_501, refilled_wh=1_601),
        ["the tokens hold 1500 Wh, the supply says 1501 Wh"],
    ),
    (
        "energy never stored",
        change(CttSupply.key(), refilled_wh=1_599),
        ["refilled 1599 Wh - covered 100 Wh is not 1500 Wh"],
    ),
    (
        "cover never given",
        change(CttSupply.key(), refilled_wh=1_601, covered_wh=101),
        ["prosumers were covered 100 Wh, the supply says 101 Wh"],
    ),
    (
        "origin of more than there is",
        change(token(5), origin=(101,)),
        [
            "token 5 holds 100 Wh, which cannot be of origin (101,)",
            "what tokens hold is of origin (1501,), the supply says (1500,)",
        ],
    ),
    (
        "less than nothing of a source",
        change(token(5), origin=(101, -1, 1)),
        [
            "token 5 holds 100 Wh, which cannot be of origin (101, -1, 1)",
            "what tokens hold is of origin (1501, -1, 1), the supply says (1500,)",
        ],
    ),
    (
        "an origin in another form",
        change(token(5), origin=(100, 0)),
        [
            "token 5 holds 100 Wh, which cannot be of origin (100, 0)",
            "what tokens hold is of origin (1500, 0), the supply says (1500,)",
        ],
    ),
    (
        "a source that does not exist",
        change(token(5), origin=(99, 0, 0, 0, 0, 1)),
        [
            "token 5 holds 100 Wh, which cannot be of origin (99, 0, 0, 0, 0, 1)",
            "what tokens hold is of origin (1499, 0, 0, 0, 0, 1), the supply says (1500,)",
        ],
    ),
    (
        "another source than was stored",
        change(token(5), origin=(0, 100)),
        ["what tokens hold is of origin (1400, 100), the supply says (1500,)"],
    ),
    (
        "more retired than was covered",
        change(Prosumer.key(ALICE), retired=(101,)),
        [
            f"{hex_of(ALICE)} was covered 100 Wh, not of origin (101,)",
            "what was retired is of origin (101,), the supply says (100,)",
        ],
    ),
    (
        "something retired by nobody",
        change(CttSupply.key(), retired=(99, 1)),
        ["what was retired is of origin (100,), the supply says (99, 1)"],
    ),
    (
        "a token above the highest capability",
        change(CttConfig.key(), highest_capability_wh=999),
        ["token 1 holds 1000 Wh, above 999 Wh"],
    ),
    (
        "two tokens in a slot",
        change(token(2), slot=0),
        [f"tokens 1 and 2 are both in slot 0 of {hex_of(ALICE)}", ALICES_SHELF],
    ),
    (
        "an owner without a shelf",
        change(token(5), owner=ADMIN),
        [
            f"{hex_of(ADMIN)} owns tokens, but has no shelf",
            f"shelf of {hex_of(BOB)}: pages, tokens and the count 1 do not agree",
        ],
    ),
    (
        "a count too high",
        change(Prosumer.key(ALICE), on_sale=2),
        [f"shelf of {hex_of(ALICE)}: pages, tokens and the count 5 do not agree"],
    ),
    (
        "a page with tokens changed round",
        put(ShelfPage.key(ALICE, 0), ShelfPage((2, 1, 3, 4))),
        [ALICES_SHELF],
    ),
    ("a page lost", put(ShelfPage.key(ALICE, 0), None), [ALICES_SHELF]),
    ("a page too many", put(ShelfPage.key(ALICE, 1), ShelfPage((9,))), [ALICES_SHELF]),
    ("an empty page", put(ShelfPage.key(ALICE, 1), ShelfPage(())), [ALICES_SHELF]),
    (
        "pages of nobody",
        put(ShelfPage.key(ADMIN, 0), ShelfPage((9,))),
        [f"{hex_of(ADMIN)} has shelf pages, but no shelf"],
    ),
    (
        "a partly charged token among the full ones",
        change(Prosumer.key(ALICE), full=2, partial=0, full_wh=1_400, partial_wh=0),
        [f"token 2 with 400 Wh is in region FULL of {hex_of(ALICE)}"],
    ),
    (
        "an empty token among the partly charged ones",
        change(Prosumer.key(ALICE), partial=2, empty=0),
        [f"token 3 with 0 Wh is in region PARTIAL of {hex_of(ALICE)}"],
    ),
    (
        "a partly charged token among the empty ones",
        change(Prosumer.key(ALICE), partial=0, empty=2, partial_wh=0),
        [f"token 2 with 400 Wh is in region EMPTY of {hex_of(ALICE)}"],
    ),
    (
        "a token on sale among the empty ones",
        change(Prosumer.key(ALICE), empty=2, on_sale=0),
        [f"token 4 with 0 Wh is in region EMPTY of {hex_of(ALICE)}"],
    ),
    (
        "a token among those on sale that is not",
        change(token(4), on_sale=False),
        [f"token 4 with 0 Wh is in region ON_SALE of {hex_of(ALICE)}"],
    ),
    ("a wrong sum of full tokens", change(Prosumer.key(ALICE), full_wh=999), [ADDS_UP_NOT]),
    ("a wrong sum of partly charged tokens", change(Prosumer.key(ALICE), partial_wh=401), [ADDS_UP_NOT]),
    (
        "more stored than produced",
        change(Prosumer.key(ALICE), stored_wh=1_501),
        [f"{hex_of(ALICE)} stored more than it produced or covered more than it consumed"],
    ),
    (
        "more covered than consumed",
        change(Prosumer.key(ALICE), consumed_wh=99),
        [f"{hex_of(ALICE)} stored more than it produced or covered more than it consumed"],
    ),
    (
        "a meter of a stranger",
        change(Meter.key(meter_of(CAROL)), prosumer=ADMIN),
        [
            f"meter {hex_of(meter_of(CAROL))} serves {hex_of(ADMIN)}, which does not know it",
            f"{hex_of(CAROL)} is confirmed by meter {hex_of(meter_of(CAROL))}, which does not know it",
        ],
    ),
    (
        "a meter whose prosumer has another",
        change(Meter.key(meter_of(CAROL)), prosumer=BOB),
        [
            f"meter {hex_of(meter_of(CAROL))} serves {hex_of(BOB)}, which does not know it",
            f"{hex_of(CAROL)} is confirmed by meter {hex_of(meter_of(CAROL))}, which does not know it",
        ],
    ),
    (
        "a meter of one who is not confirmed",
        change(Prosumer.key(CAROL), confirmed=False),
        [f"meter {hex_of(meter_of(CAROL))} serves {hex_of(CAROL)}, which does not know it"],
    ),
    (
        "a meter that forgot its prosumer",
        change(Meter.key(meter_of(CAROL)), prosumer=ZERO_ADDRESS),
        [f"{hex_of(CAROL)} is confirmed by meter {hex_of(meter_of(CAROL))}, which does not know it"],
    ),
    (
        "a meter lost",
        put(Meter.key(meter_of(CAROL)), None),
        [f"{hex_of(CAROL)} is confirmed by meter {hex_of(meter_of(CAROL))}, which does not know it"],
    ),
]


def test_a_sound_ledger_has_no_fault() -> None:
    check_invariants(make_world())


def test_a_ledger_without_anything_has_no_fault() -> None:
    assert list(audit([], Wei(0))) == []


@pytest.mark.parametrize(
    ("plant", "told"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_a_planted_fault_is_told(plant: Plant, told: list[str]) -> None:
    world = make_world()

    plant(world)

    assert faults_of(world) == told


SEVEN = ("ann", "ben", "cat", "dan", "eve", "fay", "gus")


def make_consortium() -> Consortium:
    """Two epochs' sets: the second without gus, who voted twice. Proposal 1 is open with two votes, 2 withdrawn."""
    world = Consortium(*SEVEN)
    world.vote(world.propose("ann", "hal"), "ben")
    world.propose("ann", "ida")
    world.done(address("ann"), "withdraw(uint256)", 2)
    world.next_block(world.evidence_against("gus"))
    world.fix()
    return world


def sets(*names: str) -> EpochSet:
    return EpochSet(set_of(*names))


CHANGED = "members change after epoch 0, the most is 2"
UNORDERED = "the set of epoch 1 is not in order, or holds a key or an address twice"

AUTHORITY_FAULTS: list[tuple[str, Plant, list[str]]] = [
    (
        "a set lost",
        put(EpochSet.key(3), sets(*SEVEN[:6])),
        ["the sets of epochs 0 to 3 are not all there: 3 sets"],
    ),
    ("a set of none", put(EpochSet.key(1), sets()), ["7 " + CHANGED, "the set of epoch 1 has 0 members"]),
    (
        "a set out of order",
        put(EpochSet.key(1), EpochSet(set_of(*SEVEN)[::-1])),
        [UNORDERED],
    ),
    (
        "a validator with two keys",
        put(EpochSet.key(1), EpochSet(tuple(each._replace(address=ALICE) for each in set_of("ann", "ben")))),
        ["8 " + CHANGED, UNORDERED],
    ),
    (
        "a key twice",
        put(EpochSet.key(1), EpochSet((*set_of(*SEVEN)[:-1], *[set_of(*SEVEN)[-1]] * 2))),
        [UNORDERED],
    ),
    ("too many changes", put(EpochSet.key(1), sets(*SEVEN[3:])), ["3 " + CHANGED]),
    (
        "too many changes of keys",
        put(
            EpochSet.key(1),
            EpochSet(
                tuple(
                    sorted(
                        [
                            *set_of(*SEVEN[3:]),
                            *(
                                member(name)._replace(consensus_key=node_key(name + "2"))
                                for name in SEVEN[:3]
                            ),
                        ],
                        key=lambda each: each.consensus_key,
                    )
                )
            ),
        ),
        ["3 " + CHANGED],
    ),
    (
        "a proposal lost",
        put(Proposal.key(2), None),
        ["proposals are not 1 to 2: 1 proposals"],
    ),
    (
        "an open proposal that nobody looks at",
        change(Governance.key(), open=()),
        ["0 proposals are listed as open, 1 are"],
    ),
    (
        "a proposer who is another",
        change(Governance.key(), open=((1, ALICE),)),
        ["1 proposals are listed as open, 1 are"],
    ),
    ("a vote twice", change(Proposal.key(1), voters=(ALICE, ALICE)), ["a vote for proposal 1 counts twice"]),
    (
        "a closed proposal without a height",
        change(Proposal.key(2), closed_height=0),
        ["proposal 2 is WITHDRAWN, but was closed by block 0"],
    ),
    (
        "an open proposal with one",
        change(Proposal.key(1), closed_height=7),
        ["proposal 1 is OPEN, but was closed by block 7"],
    ),
    (
        "an outcome that its list does not know",
        change(Proposal.key(1), outcome=Outcome.EXPIRED, closed_height=7),
        ["1 proposals are listed as open, 0 are"],
    ),
    (
        "an offence lost",
        put(Offence.key(1), None),
        ["offences are not 1 to 1: 0 offences", "1 keys are barred, which are not those of 0 offences"],
    ),
    (
        "a key barred for nothing",
        put(Barred.key(node_key("ann")), Barred(2)),
        ["2 keys are barred, which are not those of 1 offences"],
    ),
    (
        "a key that goes free",
        put(Barred.key(node_key("gus")), None),
        ["0 keys are barred, which are not those of 1 offences"],
    ),
]


def test_a_sound_consortium_has_no_fault() -> None:
    assert faults_of(make_consortium()) == []


@pytest.mark.parametrize(
    ("plant", "told"), [fault[1:] for fault in AUTHORITY_FAULTS], ids=[fault[0] for fault in AUTHORITY_FAULTS]
)
def test_a_fault_of_the_consortium_is_told(plant: Plant, told: list[str]) -> None:
    """A-4 to A-7"""
    world = make_consortium()

    plant(world)

    assert faults_of(world) == told


def test_a_page_too_long_is_told() -> None:
    """All tokens are listed in their slots, but not where a rule looks for them."""
    world = World()
    world.give_tokens(ALICE, PAGE_TOKENS + 1)

    world.put(ShelfPage.key(ALICE, 0), ShelfPage(tuple(range(1, PAGE_TOKENS + 2))))
    world.put(ShelfPage.key(ALICE, 1), None)

    count = PAGE_TOKENS + 1
    told = f"shelf of {hex_of(ALICE)}: pages, tokens and the count {count} do not agree"
    assert faults_of(world) == [told]


def test_all_faults_are_told_at_once() -> None:
    world = make_world()
    change(CttConfig.key(), max_supply=4)(world)
    change(Account.key(ALICE), balance=Wei(0))(world)

    assert len(faults_of(world)) == 2


def make_market() -> MarketWorld:
    """Alice's bid 1 and ask 2, and Bob's ask 3 stand; auction 1 is over."""
    world = MarketWorld()
    world.settle_in(ALICE, 2, 5_000)
    world.settle_in(BOB, 1, 5_000)
    world.bid(ALICE, 100, 9)
    world.ask(ALICE, 100, 10)
    world.ask(BOB, 100, 10)
    world.clear()
    return world


BOOK_DISAGREES = "the order book: pages, orders and the count 3 do not agree"
NOT_THOSE = "3 orders stand, which are not those of 2 accounts"

MARKET_FAULTS: list[tuple[str, Plant, list[str]]] = [
    (
        "a floor above the ceiling",
        put(MarketTariff.key(), MarketTariff(Wei(6), Wei(5))),
        ["the floor of 6 wei per Wh is above the ceiling"],
    ),
    ("a page of orders lost", put(BookPage.key(0), None), [BOOK_DISAGREES]),
    ("a page of orders too many", put(BookPage.key(1), BookPage((3,))), [BOOK_DISAGREES]),
    ("orders changed round", put(BookPage.key(0), BookPage((2, 1, 3))), [BOOK_DISAGREES]),
    ("two orders in a slot", change(Order.key(3), slot=1), [BOOK_DISAGREES]),
    (
        "an order that is not counted",
        change(MarketBook.key(), standing=2),
        ["the order book: pages, orders and the count 2 do not agree"],
    ),
    (
        "an order of another",
        change(Order.key(3), owner=CAROL),
        [NOT_THOSE, f"order 3 was placed by {hex_of(BOB)}, which has no mandate"],
    ),
    ("a second ask", change(Order.key(1), is_bid=False, limit_wei_per_wh=Wei(11)), [NOT_THOSE]),
    ("an account that forgot its ask", change(Standing.key(ALICE), ask=0), [NOT_THOSE]),
    (
        "an account without orders",
        put(Standing.key(CAROL), Standing()),
        ["3 orders stand, which are not those of 3 accounts"],
    ),
    ("an order for nothing", change(Order.key(3), energy_wh=0), ["order 3 of 0 Wh cannot stand"]),
    ("an order never placed", change(MarketBook.key(), last_order_id=2), ["order 3 of 100 Wh cannot stand"]),
    (
        "a bid at one's own ask",
        change(Order.key(1), limit_wei_per_wh=Wei(10)),
        ["order 1 crosses its owner's ask"],
    ),
    (
        "an auction in another's place",
        change(Auction.key(1), number=2),
        ["auction 2 is kept in another's place"],
    ),
]


def test_a_sound_market_has_no_fault() -> None:
    make_market().check()


@pytest.mark.parametrize(
    ("plant", "told"), [fault[1:] for fault in MARKET_FAULTS], ids=[fault[0] for fault in MARKET_FAULTS]
)
def test_a_planted_fault_of_the_market_is_told(plant: Plant, told: list[str]) -> None:
    world = make_market()

    plant(world)

    assert faults_of(world) == told
