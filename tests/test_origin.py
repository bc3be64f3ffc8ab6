"""Where energy comes from: it stays with the energy, goes where that goes, and is retired once (S-12)."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.modules.ctt.module import EnergyConsumed, ERC721NonexistentToken, OriginRetired
from ctt_state.origin import (
    SOURCES,
    Origin,
    add,
    apportion,
    by_source,
    from_parts,
    from_source,
    share,
    subtract,
)
from ctt_state.records import Token
from ctt_state.units import Address
from tests.world import ALICE, BOB, CAROL, OPERATOR, START_MS, World, check_invariants

NONE, SOLAR, WIND, OTHER = 0, 1, 2, 5
REFILL: Final = "refill(uint256,address)"
CONSUME: Final = "consume(uint256,address)"
REPORT: Final = "report(address,uint64,uint256,uint256)"
CERTIFY: Final = "certifyMeter(address,uint8,uint64,bool)"

whole = st.lists(st.integers(0, 9) | st.integers(0, 2**64), min_size=6, max_size=6)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[Origin, int, int]:
    """An origin with its energy, and a part of that."""
    parts = draw(whole)
    energy = sum(parts)
    return from_parts(parts), energy, draw(st.integers(0, energy))


# --- the arithmetic ---


@pytest.mark.parametrize(
    ("parts", "amount", "taken"),
    [
        ((100, 100, 0, 0, 0, 0), 50, (25, 25, 0, 0, 0, 0)),
        ((100, 100, 0, 0, 0, 0), 25, (13, 12, 0, 0, 0, 0)),  # half a Wh each: the first
        ((0, 100, 0, 100, 0, 0), 25, (0, 13, 0, 12, 0, 0)),
        ((1, 299, 0, 0, 0, 0), 100, (0, 100, 0, 0, 0, 0)),
        ((10, 10, 10, 0, 0, 0), 2, (1, 1, 0, 0, 0, 0)),
        ((3, 3, 4, 0, 0, 0), 1, (0, 0, 1, 0, 0, 0)),
        ((5, 0, 0, 0, 0, 1), 6, (5, 0, 0, 0, 0, 1)),
        ((5, 0, 0, 0, 0, 1), 0, (0, 0, 0, 0, 0, 0)),
    ],
)
def test_a_part_takes_its_share_by_largest_remainder(
    parts: tuple[int, ...], amount: int, taken: tuple[int, ...]
) -> None:
    assert tuple(apportion(parts, amount)) == taken
    assert by_source(share(from_parts(parts), sum(parts), amount), amount) == taken


@given(mix=mixes())
def test_no_source_gives_more_than_it_has_or_a_wh_beside_its_share(mix: tuple[Origin, int, int]) -> None:
    origin, energy, amount = mix
    parts, taken = by_source(origin, energy), by_source(share(origin, energy, amount), amount)

    assert sum(taken) == amount
    for whole_wh, part_wh in zip(parts, taken, strict=True):
        assert 0 <= part_wh <= whole_wh
        assert abs(part_wh * energy - whole_wh * amount) < energy or not amount


@given(mix=mixes())
def test_what_is_taken_and_put_back_is_what_there_was(mix: tuple[Origin, int, int]) -> None:
    """In the one form: without zeros at the end."""
    origin, energy, amount = mix
    taken = share(origin, energy, amount)
    rest = subtract(origin, taken)

    assert add(rest, taken) == add(taken, rest) == origin
    assert share(origin, energy, energy) == origin
    for each in (taken, rest):
        assert not each or each[-1]


@given(solar=st.integers(1, 2**64), unknown=st.integers(0, 2**64), data=st.data())
def test_two_sources_are_shared_as_any_are(solar: int, unknown: int, data: st.DataObject) -> None:
    amount = data.draw(st.integers(0, solar + unknown))

    found = share((solar,), solar + unknown, amount)

    assert found == from_parts(apportion((unknown, solar), amount))


def test_energy_of_no_known_source_has_nothing_to_write_down() -> None:
    assert from_source(NONE, 5) == from_source(SOLAR, 0) == ()
    assert from_source(OTHER, 5) == (0, 0, 0, 0, 5)
    assert len(Token(ALICE, 0, origin=(10_000,)).encode()) == len(Token(ALICE, 0).encode()) + 3


# --- in tokens ---


def make_home(*sources: int, energy_wh: int = 1_000, tokens: int = 1) -> tuple[World, Address]:
    """Alice with tokens of 10 kWh, which her meter has filled with so much of each of these sources in turn."""
    world = World()
    world.give_tokens(ALICE, tokens)
    meter = world.give_meter(ALICE)
    for source in sources:
        world.done(OPERATOR, CERTIFY, meter, source, 0, False)
        world.done(meter, REFILL, energy_wh, ALICE)
    return world, meter


def origin_of(world: World, token_id: int) -> tuple[int, ...]:
    found: tuple[int, ...] = world.call("originOf(uint256)", token_id)
    return found


def retired_by(world: World, owner: Address) -> tuple[int, ...]:
    found: tuple[int, ...] = world.call("retiredOf(address)", owner)
    return found


@pytest.mark.parametrize("source", range(len(SOURCES)))
def test_what_is_stored_is_of_the_meters_source(source: int) -> None:
    world, _ = make_home(source)

    assert origin_of(world, 1)[source] == sum(origin_of(world, 1)) == 1_000
    check_invariants(world)


def test_another_certificate_changes_nothing_that_is_stored() -> None:
    world, meter = make_home(SOLAR)

    world.done(OPERATOR, CERTIFY, meter, WIND, 0, False)
    world.done(OPERATOR, "revokeMeter(address)", meter)

    assert origin_of(world, 1) == (0, 1_000, 0, 0, 0, 0)


def test_a_consumption_retires_each_source_by_its_share() -> None:
    world, meter = make_home(NONE, SOLAR, SOLAR, WIND)

    outcome = world.send(meter, CONSUME, 1_001, ALICE)

    # Their shares are 250.25, 500.5 and 250.25 Wh: the missing one is the sun's.
    assert outcome.emissions[1:] == [
        EnergyConsumed(ALICE, meter, 1_001, 1_001),
        OriginRetired(ALICE, SOLAR, 501),
        OriginRetired(ALICE, WIND, 250),
    ]
    assert retired_by(world, ALICE) == (250, 501, 250, 0, 0, 0)
    assert origin_of(world, 1) == (750, 1_499, 750, 0, 0, 0)
    assert world.call("totalOrigin()") == ((750, 1_499, 750, 0, 0, 0), (250, 501, 250, 0, 0, 0))
    check_invariants(world)


def test_what_is_retired_adds_up() -> None:
    world, meter = make_home(WIND)

    told = [world.send(meter, CONSUME, amount, ALICE).emissions[2:] for amount in (100, 20)]

    assert told == [[OriginRetired(ALICE, WIND, 100)], [OriginRetired(ALICE, WIND, 20)]]
    assert retired_by(world, ALICE) == (0, 0, 120, 0, 0, 0)
    check_invariants(world)


def test_what_no_token_takes_is_of_no_source_here() -> None:
    """S-4: it is fed to the grid."""
    world, _ = make_home(SOLAR, energy_wh=10_001)

    assert world.call("totalOrigin()")[0] == (0, 10_000, 0, 0, 0, 0)
    check_invariants(world)


def test_nothing_is_told_of_energy_without_a_source_or_that_no_token_covers() -> None:
    world, meter = make_home(NONE)

    outcome = world.send(meter, CONSUME, 1_500, ALICE)

    assert outcome.emissions[1:] == [EnergyConsumed(ALICE, meter, 1_500, 1_000)]
    assert world.send(meter, CONSUME, 1, ALICE).emissions == [EnergyConsumed(ALICE, meter, 1, 0)]
    assert retired_by(world, ALICE) == (1_000, 0, 0, 0, 0, 0)


def test_a_report_retires_what_it_has_just_stored() -> None:
    """S-7: export before import, so the own sun covers the own use."""
    world, meter = make_home()
    world.done(OPERATOR, CERTIFY, meter, SOLAR, 0, False)
    world.done(meter, REPORT, ALICE, START_MS, 100, 200)

    outcome = world.send(meter, REPORT, ALICE, START_MS + 1, 700, 1_200)

    assert outcome.emissions[-1] == OriginRetired(ALICE, SOLAR, 600)
    assert origin_of(world, 1) == (0, 400, 0, 0, 0, 0)
    check_invariants(world)


def test_several_tokens_share_out_a_refill_and_add_up_in_a_consumption() -> None:
    world, meter = make_home(SOLAR, WIND, energy_wh=7_000, tokens=2)

    assert (origin_of(world, 1), origin_of(world, 2)) == ((0, 7_000, 3_000, 0, 0, 0), (0, 0, 4_000, 0, 0, 0))
    world.done(meter, CONSUME, 5_000, ALICE)

    assert (origin_of(world, 1), origin_of(world, 2)) == ((0, 6_300, 2_700, 0, 0, 0), (0,) * 6)
    assert retired_by(world, ALICE) == (0, 700, 4_300, 0, 0, 0)
    check_invariants(world)


def test_a_reading_of_known_sources_touches_no_more_records() -> None:
    """S-12: gas counts records, so it is the same."""
    spent = []
    for sources in ((NONE,), (NONE, SOLAR, WIND, OTHER)):
        world, meter = make_home(*sources)
        spent.append([world.send(meter, name, 500, ALICE).gas_used for name in (REFILL, CONSUME)])

    assert spent[0] == spent[1]


# --- from hand to hand ---


def test_a_transfer_and_a_sale_carry_the_origin_and_retire_nothing() -> None:
    world, _ = make_home(SOLAR, WIND)

    world.done(ALICE, "transferFrom(address,address,uint256)", ALICE, BOB, 1)
    world.done(BOB, "setOnSale(uint256,uint256,uint256)", 1, 5, 0)
    world.done(CAROL, "buyToken(uint256)", 1, value=5)

    assert origin_of(world, 1) == (0, 1_000, 1_000, 0, 0, 0)
    assert retired_by(world, ALICE) == retired_by(world, BOB) == (0,) * 6
    check_invariants(world)


def test_who_consumes_bought_energy_retires_it() -> None:
    world, _ = make_home(SOLAR)
    world.done(ALICE, "transferFrom(address,address,uint256)", ALICE, BOB, 1)
    meter = world.give_meter(BOB)
    world.done(OPERATOR, CERTIFY, meter, WIND, 0, False)

    world.done(meter, CONSUME, 300, BOB)

    assert retired_by(world, BOB) == (0, 300, 0, 0, 0, 0)
    assert origin_of(world, 1) == (0, 700, 0, 0, 0, 0)
    check_invariants(world)


def test_nobody_and_nothing_has_no_origin() -> None:
    world, _ = make_home()

    assert retired_by(world, BOB) == (0,) * 6
    assert world.call("totalOrigin()") == ((0,) * 6, (0,) * 6)
    assert world.refusal(BOB, "originOf(uint256)", 2) == ERC721NonexistentToken(2)
