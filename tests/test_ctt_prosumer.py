"""Who measures whom: certifying, naming and confirming meters (S-3, S-8)."""

import pytest

from ctt_state.abi import Revert
from ctt_state.modules.ctt.module import (
    AlreadyConfirmed,
    ConcentratorFixed,
    InvalidMeter,
    InvalidSource,
    MeterCertified,
    MeterNotCertified,
    MeterRevoked,
    MeterTaken,
    NotConfirmedMeter,
    NotCreated,
    NotOperator,
    NotProsumersMeter,
    NotRegistered,
    ProsumerConfirmed,
    ProsumerRegistered,
)
from ctt_state.records import Reading
from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address
from tests.world import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    MALLORY,
    OPERATOR,
    START_MS,
    World,
    address,
    check_invariants,
)

CERTIFY = "certifyMeter(address,uint8,uint64,bool)"
REVOKE = "revokeMeter(address)"
REGISTER = "register(address)"
CONFIRM = "confirm(address)"
REFILL = "refill(uint256,address)"

METER = address("meter")
OTHER_METER = address("other meter")
CONCENTRATOR = address("concentrator")


def make_meters() -> World:
    """Two certified meters and a concentrator, free."""
    world = World()
    for meter in (METER, OTHER_METER):
        world.done(OPERATOR, CERTIFY, meter, 1, 0, False)
    world.done(OPERATOR, CERTIFY, CONCENTRATOR, 1, 0, True)
    return world


def pair(world: World, prosumer: Address, meter: Address) -> None:
    """The prosumer names the meter, the meter confirms."""
    world.done(prosumer, REGISTER, meter)
    world.done(meter, CONFIRM, prosumer)


def prosumer_of(world: World, meter: Address) -> Address:
    """Whom the meter has confirmed."""
    prosumer: Address = world.call("meters(address)", meter)[-1]
    return prosumer


def meter_of(world: World, prosumer: Address) -> tuple[Address, bool]:
    """The prosumer's meter and whether it has confirmed."""
    meter, confirmed, *_ = world.call("prosumers(address)", prosumer)
    return meter, confirmed


# --- certifyMeter ---


@pytest.mark.parametrize("source", range(6))
@pytest.mark.parametrize("max_power_w", [0, UINT64_MAX])
def test_an_operator_certifies_a_meter(source: int, max_power_w: int) -> None:
    world = World()

    outcome = world.send(OPERATOR, CERTIFY, METER, source, max_power_w, True)

    assert outcome.emissions == [MeterCertified(METER, OPERATOR, source, max_power_w, True)]
    assert world.call("meters(address)", METER) == (OPERATOR, source, max_power_w, True, True, ZERO_ADDRESS)


def test_an_unknown_meter_is_all_zero() -> None:
    unknown = World().call("meters(address)", METER)

    assert unknown == (ZERO_ADDRESS, 0, 0, False, False, ZERO_ADDRESS)


def test_certifying_again_changes_source_and_power_and_keeps_the_prosumer() -> None:
    world = make_meters()
    pair(world, ALICE, METER)
    world.done(ADMIN, "setOperator(address,bool)", CAROL, True)

    world.done(CAROL, CERTIFY, METER, 2, 500, False)

    assert world.call("meters(address)", METER) == (CAROL, 2, 500, False, True, ALICE)
    world.done(METER, REFILL, 0, ALICE)
    check_invariants(world)


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize(("meter", "is_concentrator"), [(METER, False), (CONCENTRATOR, True)])
def test_a_meters_kind_never_changes(meter: Address, is_concentrator: bool, revoked: bool) -> None:
    """S-8: not even after it was revoked."""
    world = make_meters()
    if revoked:
        world.done(OPERATOR, REVOKE, meter)

    refusal = world.refusal(OPERATOR, CERTIFY, meter, 1, 0, not is_concentrator)

    assert refusal == ConcentratorFixed(meter, is_concentrator)
    world.done(OPERATOR, CERTIFY, meter, 1, 0, is_concentrator)


@pytest.mark.parametrize(
    ("sender", "meter", "source", "refusal"),
    [
        (MALLORY, ZERO_ADDRESS, 6, NotOperator(MALLORY)),
        (ADMIN, METER, 1, NotOperator(ADMIN)),
        (OPERATOR, ZERO_ADDRESS, 6, InvalidMeter(ZERO_ADDRESS)),
        (OPERATOR, METER, 6, InvalidSource(6, 5)),
        (OPERATOR, METER, 255, InvalidSource(255, 5)),
        (OPERATOR, METER, 1, ConcentratorFixed(METER, False)),
    ],
)
def test_certifying_is_refused_in_order(
    sender: Address, meter: Address, source: int, refusal: Revert
) -> None:
    """The operator's role, the meter, the source, the kind: all would change METER's kind."""
    world = make_meters()

    assert world.refusal(sender, CERTIFY, meter, source, 0, True) == refusal


# --- revokeMeter ---


def test_any_operator_revokes_a_meter() -> None:
    world = make_meters()
    pair(world, ALICE, METER)
    world.done(ADMIN, "setOperator(address,bool)", CAROL, True)

    outcome = world.send(CAROL, REVOKE, METER)

    assert outcome.emissions == [MeterRevoked(METER, CAROL)]
    assert world.call("meters(address)", METER) == (OPERATOR, 1, 0, False, False, ALICE)
    check_invariants(world)


def test_revoking_is_refused_in_order() -> None:
    world = make_meters()
    world.done(OPERATOR, REVOKE, METER)

    assert world.refusal(MALLORY, REVOKE, METER) == NotOperator(MALLORY)
    assert world.refusal(OPERATOR, REVOKE, METER) == MeterNotCertified(METER)
    assert world.refusal(OPERATOR, REVOKE, MALLORY) == MeterNotCertified(MALLORY)


def test_an_operator_that_lost_the_role_certifies_nothing() -> None:
    """What it certified stays certified."""
    world = make_meters()
    world.done(ADMIN, "setOperator(address,bool)", OPERATOR, False)

    assert world.refusal(OPERATOR, CERTIFY, METER, 1, 0, False) == NotOperator(OPERATOR)
    assert world.refusal(OPERATOR, REVOKE, METER) == NotOperator(OPERATOR)
    pair(world, ALICE, METER)


# --- register ---


def test_a_prosumer_names_a_meter_that_has_yet_to_confirm() -> None:
    world = make_meters()

    outcome = world.send(ALICE, REGISTER, METER)

    assert outcome.emissions == [ProsumerRegistered(ALICE, METER)]
    assert meter_of(world, ALICE) == (METER, False)
    assert prosumer_of(world, METER) == ZERO_ADDRESS
    check_invariants(world)


@pytest.mark.parametrize("meter", [METER, MALLORY, ZERO_ADDRESS])
def test_only_a_certified_meter_can_be_named(meter: Address) -> None:
    world = make_meters()
    world.done(OPERATOR, REVOKE, METER)

    assert world.refusal(ALICE, REGISTER, meter) == MeterNotCertified(meter)


def test_a_meter_that_serves_another_cannot_be_named() -> None:
    world = make_meters()
    pair(world, ALICE, METER)

    assert world.refusal(BOB, REGISTER, METER) == MeterTaken(METER, ALICE)


def test_a_taken_meter_that_was_revoked_is_told_as_revoked() -> None:
    world = make_meters()
    pair(world, ALICE, METER)
    world.done(OPERATOR, REVOKE, METER)

    assert world.refusal(BOB, REGISTER, METER) == MeterNotCertified(METER)


def test_naming_another_meter_frees_the_one_before() -> None:
    world = make_meters()
    pair(world, ALICE, METER)

    world.done(ALICE, REGISTER, OTHER_METER)

    assert meter_of(world, ALICE) == (OTHER_METER, False)
    assert prosumer_of(world, METER) == ZERO_ADDRESS
    assert world.refusal(METER, REFILL, 1, ALICE) == NotConfirmedMeter(ALICE, METER)
    pair(world, BOB, METER)
    check_invariants(world)


def test_naming_the_same_meter_again_asks_for_its_confirmation_again() -> None:
    world = make_meters()
    pair(world, ALICE, METER)

    world.done(ALICE, REGISTER, METER)

    assert meter_of(world, ALICE) == (METER, False)
    assert prosumer_of(world, METER) == ZERO_ADDRESS
    world.done(METER, CONFIRM, ALICE)
    assert prosumer_of(world, METER) == ALICE
    check_invariants(world)


def test_a_revoked_meter_is_freed_as_well() -> None:
    world = make_meters()
    pair(world, ALICE, METER)
    world.done(OPERATOR, REVOKE, METER)

    world.done(ALICE, REGISTER, OTHER_METER)

    assert world.call("meters(address)", METER) == (OPERATOR, 1, 0, False, False, ZERO_ADDRESS)
    check_invariants(world)


def test_a_meter_that_was_only_named_is_not_freed_by_the_one_who_named_it() -> None:
    """Bob's confirmed meter stays his when Alice, who only named it, turns to another."""
    world = make_meters()
    world.done(ALICE, REGISTER, METER)
    pair(world, BOB, METER)

    world.done(ALICE, REGISTER, OTHER_METER)

    assert prosumer_of(world, METER) == BOB
    check_invariants(world)


def test_registering_keeps_tokens_and_totals() -> None:
    world = make_meters()
    world.give_tokens(ALICE, 2)
    pair(world, ALICE, METER)
    world.done(METER, REFILL, 15_000, ALICE)

    pair(world, ALICE, OTHER_METER)

    assert world.call("prosumers(address)", ALICE)[2:] == (1, 1, 0, 0, 15_000, 15_000, 0, 0)
    world.done(OTHER_METER, "consume(uint256,address)", 15_000, ALICE)
    check_invariants(world)


# --- nobody can squat a meter ---


def test_naming_a_meter_does_not_take_it() -> None:
    """S-8: whoever names it first, the meter decides."""
    world = make_meters()
    world.done(MALLORY, REGISTER, METER)

    pair(world, ALICE, METER)

    assert prosumer_of(world, METER) == ALICE
    assert world.refusal(METER, REFILL, 1, MALLORY) == NotConfirmedMeter(MALLORY, METER)
    assert world.refusal(METER, CONFIRM, MALLORY) == MeterTaken(METER, ALICE)
    check_invariants(world)


def test_one_who_named_a_meter_in_vain_is_confirmed_once_it_is_free() -> None:
    world = make_meters()
    world.done(BOB, REGISTER, METER)
    pair(world, ALICE, METER)
    world.done(ALICE, REGISTER, OTHER_METER)

    world.done(METER, CONFIRM, BOB)

    assert prosumer_of(world, METER) == BOB
    check_invariants(world)


# --- confirm ---


def test_a_confirmation_starts_the_meters_account_of_the_prosumer() -> None:
    world = make_meters()
    world.done(ALICE, REGISTER, METER)

    outcome = world.send(METER, CONFIRM, ALICE)

    assert outcome.emissions == [ProsumerConfirmed(ALICE, METER)]
    assert meter_of(world, ALICE) == (METER, True)
    assert prosumer_of(world, METER) == ALICE
    assert world.get(Reading.key(METER, ALICE)) == Reading(refilled_ms=START_MS, consumed_ms=START_MS)
    check_invariants(world)


def test_a_concentrator_serves_many_and_is_nobodys() -> None:
    world = make_meters()
    for prosumer in (ALICE, BOB, CAROL):
        pair(world, prosumer, CONCENTRATOR)

    assert prosumer_of(world, CONCENTRATOR) == ZERO_ADDRESS
    for prosumer in (ALICE, BOB, CAROL):
        world.done(CONCENTRATOR, REFILL, 0, prosumer)
    world.done(ALICE, REGISTER, METER)
    world.done(CONCENTRATOR, REFILL, 0, BOB)
    check_invariants(world)


def test_confirming_is_refused_in_order() -> None:
    """Registered, by this meter, certified, free, not yet confirmed."""
    world = make_meters()
    world.give_tokens(CAROL)
    for prosumer in (ALICE, BOB):
        world.done(prosumer, REGISTER, METER)

    assert world.refusal(METER, CONFIRM, MALLORY) == NotRegistered(MALLORY)
    assert world.refusal(METER, CONFIRM, CAROL) == NotRegistered(CAROL)
    assert world.refusal(MALLORY, CONFIRM, ALICE) == NotProsumersMeter(METER, MALLORY)
    assert world.refusal(ALICE, CONFIRM, ALICE) == NotProsumersMeter(METER, ALICE)
    world.done(METER, CONFIRM, ALICE)
    assert world.refusal(METER, CONFIRM, BOB) == MeterTaken(METER, ALICE)
    assert world.refusal(METER, CONFIRM, ALICE) == AlreadyConfirmed(ALICE)
    world.done(OPERATOR, REVOKE, METER)
    for prosumer in (ALICE, BOB):
        assert world.refusal(METER, CONFIRM, prosumer) == MeterNotCertified(METER)
    assert world.refusal(MALLORY, CONFIRM, ALICE) == NotProsumersMeter(METER, MALLORY)


def test_a_concentrator_confirms_a_prosumer_once() -> None:
    world = make_meters()
    pair(world, ALICE, CONCENTRATOR)

    assert world.refusal(CONCENTRATOR, CONFIRM, ALICE) == AlreadyConfirmed(ALICE)


# --- before the CTT is created ---


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(CERTIFY, (ZERO_ADDRESS, 9, 0, False)), (REVOKE, (METER,)), (REGISTER, (METER,))],
)
def test_without_the_ctt_there_are_no_meters(function: str, arguments: tuple[object, ...]) -> None:
    world = World(created=False)

    assert world.refusal(MALLORY, function, *arguments) == NotCreated()
    assert world.refusal(METER, CONFIRM, ALICE) == NotRegistered(ALICE)
