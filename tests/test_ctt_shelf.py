"""An owner's shelf: its regions, and tokens that come and go (S-4)."""

import pytest

from ctt_state.modules.ctt.shelf import Region, region_for, region_of
from ctt_state.records import PAGE_TOKENS, Prosumer, ShelfPage, Token
from ctt_state.units import Address, Wh
from tests.world import ADMIN, ALICE, BOB, World, check_invariants

TRANSFER = "transferFrom(address,address,uint256)"
OFFER = "setOnSale(uint256)"
CANCEL = "cancelSale(uint256)"
CAPABILITY = 100

FULL, PARTIAL, EMPTY, ON_SALE = Region


def make_shelf(full: int, partial: int, empty: int, on_sale: int) -> World:
    """Alice with these tokens, all of which Bob has charged: full, partly charged (40 Wh), empty, on sale."""
    world = World(capability_wh=CAPABILITY)
    charges = [CAPABILITY] * full + [40] * partial + [0] * (empty + on_sale)
    for token_id, energy in enumerate(charges, 1):
        world.give_tokens(BOB)
        world.charge(BOB, energy)
        world.done(BOB, TRANSFER, BOB, ALICE, token_id)
    for token_id in range(len(charges) - on_sale + 1, len(charges) + 1):
        world.done(ALICE, OFFER, token_id)
    assert regions(world, ALICE) == (full, partial, empty, on_sale)
    return world


def regions(world: World, owner: Address) -> tuple[int, int, int, int]:
    prosumer = world.get(Prosumer.key(owner))
    return prosumer.full, prosumer.partial, prosumer.empty, prosumer.on_sale


def shelf(world: World, owner: Address) -> tuple[int, ...]:
    """The owner's tokens in the order of their slots."""
    ids: tuple[int, ...] = world.call("tokensOf(address,uint256,uint256)", owner, 0, 1_000)
    return ids


# --- regions ---


@pytest.mark.parametrize(
    ("slot", "region"),
    [(0, FULL), (1, FULL), (2, PARTIAL), (4, PARTIAL), (5, EMPTY), (8, EMPTY), (9, ON_SALE), (10, ON_SALE)],
)
def test_the_regions_follow_each_other(slot: int, region: Region) -> None:
    assert region_of(Prosumer(full=2, partial=3, empty=4, on_sale=2), slot) is region


@pytest.mark.parametrize("empty_region", Region)
def test_a_region_without_tokens_has_no_slot(empty_region: Region) -> None:
    full, partial, empty, on_sale = (int(region is not empty_region) for region in Region)
    owner = Prosumer(full=full, partial=partial, empty=empty, on_sale=on_sale)

    assert [region_of(owner, slot) for slot in range(3)] == [r for r in Region if r is not empty_region]


@pytest.mark.parametrize(
    ("energy_wh", "on_sale", "region"),
    [(0, False, EMPTY), (1, False, PARTIAL), (99, False, PARTIAL), (100, False, FULL), (101, False, FULL)]
    + [(energy, True, ON_SALE) for energy in (0, 1, 100)],
)
def test_a_tokens_region_is_told_by_its_charge(energy_wh: int, on_sale: bool, region: Region) -> None:
    owner = Prosumer(capability_wh=Wh(CAPABILITY))

    assert region_for(owner, Token(ALICE, 0, Wh(energy_wh), on_sale)) is region


# --- tokens come and go ---

SHELVES = [(2, 2, 2, 2), (1, 1, 1, 1), (0, 2, 0, 1), (2, 0, 0, 2), (3, 0, 2, 0), (1, 0, 0, 0), (0, 0, 0, 1)]


@pytest.mark.parametrize("counts", SHELVES)
def test_any_token_can_leave_and_come_back(counts: tuple[int, int, int, int]) -> None:
    """The giver's and the taker's regions agree with the charge after each step."""
    for token_id in range(1, sum(counts) + 1):
        world = make_shelf(*counts)
        energy = world.token(token_id).energy_wh

        world.done(ALICE, TRANSFER, ALICE, BOB, token_id)
        check_invariants(world)
        world.done(BOB, TRANSFER, BOB, ALICE, token_id)

        check_invariants(world)
        assert world.token(token_id).energy_wh == energy


@pytest.mark.parametrize("counts", SHELVES)
def test_any_token_can_go_on_sale_and_back(counts: tuple[int, int, int, int]) -> None:
    for token_id in range(1, sum(counts) + 1):
        world = make_shelf(*counts)
        was_on_sale = world.token(token_id).on_sale

        for step in (CANCEL, OFFER) if was_on_sale else (OFFER, CANCEL):
            world.done(ALICE, step, token_id)
            check_invariants(world)

        assert regions(world, ALICE) == counts


def test_a_token_that_leaves_moves_one_token_a_region() -> None:
    """S-4: the last of each region takes the hole of the one before it."""
    world = make_shelf(2, 2, 2, 2)
    before = shelf(world, ALICE)

    world.done(ALICE, TRANSFER, ALICE, BOB, before[0])

    full, partial, empty, sale = before[:2], before[2:4], before[4:6], before[6:]
    after = (full[1], partial[1], partial[0], empty[1], empty[0], sale[1], sale[0])
    assert shelf(world, ALICE) == after
    assert regions(world, ALICE) == (1, 2, 2, 2)


def test_a_token_that_comes_moves_one_token_a_region() -> None:
    world = make_shelf(2, 2, 2, 2)
    before = shelf(world, ALICE)
    world.give_tokens(BOB)
    world.charge(BOB, CAPABILITY)

    world.done(BOB, TRANSFER, BOB, ALICE, 9)

    full, partial, empty, sale = before[:2], before[2:4], before[4:6], before[6:]
    after = (*full, 9, partial[1], partial[0], empty[1], empty[0], sale[1], sale[0])
    assert shelf(world, ALICE) == after
    assert regions(world, ALICE) == (3, 2, 2, 2)


def test_the_last_token_leaves_an_empty_shelf_behind() -> None:
    world = make_shelf(0, 1, 0, 0)

    world.done(ALICE, TRANSFER, ALICE, BOB, 1)

    assert regions(world, ALICE) == (0, 0, 0, 0)
    assert world.get(ShelfPage.key(ALICE, 0)) is None
    check_invariants(world)


# --- pages ---


@pytest.mark.parametrize("count", [PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1, 2 * PAGE_TOKENS + 1])
def test_a_shelf_spreads_over_pages(count: int) -> None:
    world = World()

    world.give_tokens(ALICE, count)

    pages = [world.get(ShelfPage.key(ALICE, number)) for number in range(4)]
    sizes = [len(page.token_ids) if page else 0 for page in pages]
    assert sizes == [min(max(count - number * PAGE_TOKENS, 0), PAGE_TOKENS) for number in range(4)]
    assert shelf(world, ALICE) == tuple(range(1, count + 1))
    check_invariants(world)


def test_a_shelf_gives_up_a_page_with_its_last_token() -> None:
    world = World()
    world.give_tokens(ALICE, PAGE_TOKENS + 1)

    world.done(ALICE, TRANSFER, ALICE, BOB, 1)

    assert world.get(ShelfPage.key(ALICE, 1)) is None
    assert shelf(world, ALICE) == (PAGE_TOKENS + 1, *range(2, PAGE_TOKENS + 1))
    check_invariants(world)


@pytest.mark.parametrize("count", [3, 300])
def test_a_reading_costs_the_same_however_many_tokens_there_are(count: int) -> None:
    """S-4: the work is that of the tokens whose charge changes."""
    world = World(capability_wh=CAPABILITY)
    meter = world.give_meter(ALICE)
    world.give_tokens(ALICE, count)
    world.done(meter, "refill(uint256,address)", 50, ALICE)

    refill = world.send(meter, "refill(uint256,address)", 100, ALICE)
    consume = world.send(meter, "consume(uint256,address)", 100, ALICE)

    # Reads config, supply, prosumer, meter, page and two tokens; writes supply, prosumer and two tokens.
    work = 7 * 1_000 + 4 * 5_000
    calldata = 16 * (4 + 64)
    assert refill.gas_used == consume.gas_used == 21_000 + calldata + work


# --- an owner who was away while the capability changed (S-5) ---


@pytest.mark.parametrize(
    ("capability", "expected"), [(200, (0, 2, 0, 0)), (CAPABILITY, (2, 0, 0, 0)), (50, (2, 0, 0, 0))]
)
def test_the_taker_of_a_token_sees_the_capability_of_now(
    capability: int, expected: tuple[int, int, int, int]
) -> None:
    """Bob and Alice have each a token that was full before; Bob's goes to Alice."""
    world = make_shelf(1, 0, 0, 0)
    world.give_tokens(BOB)
    world.charge(BOB, CAPABILITY)
    world.done(ADMIN, "setTokenCapability(uint256)", capability)

    world.done(BOB, TRANSFER, BOB, ALICE, 2)

    assert regions(world, ALICE) == expected
    check_invariants(world)
