"""Readings: who may speak for a prosumer, what a reading may amount to, and which tokens it charges and drains."""

from collections.abc import Callable
from typing import Any

import pytest

from ctt_state.abi import Revert
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.energy import TOKENS_PER_READING_MAX
from ctt_state.modules.ctt.module import (
    EnergyConsumed,
    EnergyRefilled,
    ImplausibleReading,
    InvalidAmount,
    MetadataUpdate,
    MeterNotCertified,
    NotConcentrator,
    NotConfirmedMeter,
    NotRegistered,
    OriginRetired,
    ReadingInFuture,
    ReadingNotNewer,
    ReadingRejected,
    RegisterRanBackwards,
)
from ctt_state.records import CttSupply, Prosumer, Reading
from ctt_state.transition import call
from ctt_state.units import UINT64_MAX, UINT256_MAX, Address, Gas, Wei
from ctt_state.view import OutOfGas
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

REFILL = "refill(uint256,address)"
CONSUME = "consume(uint256,address)"
REPORT = "report(address,uint64,uint256,uint256)"
BATCH = "reportBatch((address,uint64,uint256,uint256)[])"
HOUR_MS = 3_600_000
SOLAR = 1  # what `give_meter` certifies


def make_home(*, tokens: int = 3, max_power_w: int = 0, capability_wh: int = 1_000) -> tuple[World, Address]:
    """Alice with empty tokens 1 to `tokens` and a confirmed meter."""
    world = World(capability_wh=capability_wh)
    meter = world.give_meter(ALICE, max_power_w=max_power_w)
    if tokens:
        world.give_tokens(ALICE, tokens)
    return world, meter


def energies(world: World) -> list[int]:
    """The Wh of all tokens, in the order of their ids."""
    return [world.token(number).energy_wh for number in range(1, world.call("lastTokenId()") + 1)]


def regions(world: World, owner: Address) -> tuple[int, int, int, int]:
    prosumer = world.get(Prosumer.key(owner))
    return prosumer.full, prosumer.partial, prosumer.empty, prosumer.on_sale


def totals(world: World, owner: Address) -> tuple[int, int, int, int]:
    """Produced, stored, consumed, covered in Wh."""
    prosumer = world.get(Prosumer.key(owner))
    return prosumer.produced_wh, prosumer.stored_wh, prosumer.consumed_wh, prosumer.covered_wh


# --- refill ---


def test_a_refill_fills_one_token_after_the_other_and_tells_the_rest() -> None:
    """S-4: what no token can take is fed to the grid."""
    world, meter = make_home(tokens=2)

    first = world.send(meter, REFILL, 1_400, ALICE)
    second = world.send(meter, REFILL, 900, ALICE)

    assert (first.result, second.result) == (1_400, 600)
    assert first.emissions == [
        MetadataUpdate(1),
        MetadataUpdate(2),
        EnergyRefilled(ALICE, meter, 1_400, 1_400),
    ]
    assert second.emissions == [MetadataUpdate(2), EnergyRefilled(ALICE, meter, 900, 600)]
    assert energies(world) == [1_000, 1_000]
    assert totals(world, ALICE) == (2_300, 2_000, 0, 0)
    assert world.call("totalEnergy()") == 2_000
    check_invariants(world)


def test_a_refill_takes_the_partly_charged_token_before_an_empty_one() -> None:
    world, meter = make_home()
    world.done(meter, REFILL, 300, ALICE)

    world.done(meter, REFILL, 700, ALICE)

    assert energies(world) == [1_000, 0, 0]
    assert regions(world, ALICE) == (1, 0, 2, 0)
    check_invariants(world)


def test_recharge_is_another_name_of_refill() -> None:
    world, meter = make_home()

    assert world.done(meter, "recharge(uint256,address)", 10, ALICE) == 10
    assert energies(world) == [10, 0, 0]


@pytest.mark.parametrize("amount", [0, 5])
def test_a_refill_without_tokens_feeds_the_grid(amount: int) -> None:
    world, meter = make_home(tokens=0)

    outcome = world.send(meter, REFILL, amount, ALICE)

    assert outcome.result == 0
    assert outcome.emissions == [EnergyRefilled(ALICE, meter, amount, 0)]
    assert totals(world, ALICE) == (amount, 0, 0, 0)
    check_invariants(world)


def test_a_token_on_sale_is_never_charged_or_drained() -> None:
    """S-4: the price a buyer sees is the price that is paid."""
    world, meter = make_home(tokens=2)
    world.done(meter, REFILL, 1_000, ALICE)
    world.done(ALICE, "setOnSale(uint256)", 1)

    assert world.done(meter, REFILL, 1_500, ALICE) == 1_000
    assert world.done(meter, CONSUME, 1_500, ALICE) == 1_000
    assert energies(world) == [1_000, 0]
    check_invariants(world)


@pytest.mark.parametrize(("spare", "stored"), [(0, TOKENS_PER_READING_MAX), (1, TOKENS_PER_READING_MAX)])
def test_one_refill_charges_at_most_256_tokens(spare: int, stored: int) -> None:
    """S-4: the 257th token stays as it is, its share goes to the grid."""
    tokens = TOKENS_PER_READING_MAX + spare
    world, meter = make_home(tokens=tokens, capability_wh=1)

    assert world.done(meter, REFILL, tokens, ALICE) == stored
    assert regions(world, ALICE) == (stored, 0, spare, 0)
    check_invariants(world)


@pytest.mark.parametrize("spare", [0, 1])
def test_one_consumption_drains_at_most_256_tokens(spare: int) -> None:
    tokens = TOKENS_PER_READING_MAX + spare
    world, meter = make_home(tokens=tokens, capability_wh=1)
    world.done(meter, REFILL, tokens, ALICE)
    world.done(meter, REFILL, spare, ALICE)

    assert world.done(meter, CONSUME, tokens, ALICE) == TOKENS_PER_READING_MAX
    assert regions(world, ALICE) == (spare, 0, TOKENS_PER_READING_MAX, 0)
    check_invariants(world)


# --- consume ---


def test_a_consumption_drains_partly_charged_tokens_then_full_ones() -> None:
    """S-4: the last partly charged token, then the last full one; the operator bills the rest."""
    world, meter = make_home()
    world.done(meter, REFILL, 2_300, ALICE)

    first = world.send(meter, CONSUME, 800, ALICE)
    second = world.send(meter, CONSUME, 5_000, ALICE)

    assert (first.result, second.result) == (800, 1_500)
    assert first.emissions == [
        MetadataUpdate(3),
        MetadataUpdate(2),
        EnergyConsumed(ALICE, meter, 800, 800),
        OriginRetired(ALICE, SOLAR, 800),
    ]
    assert second.emissions == [
        MetadataUpdate(2),
        MetadataUpdate(1),
        EnergyConsumed(ALICE, meter, 5_000, 1_500),
        OriginRetired(ALICE, SOLAR, 1_500),
    ]
    assert totals(world, ALICE) == (2_300, 2_300, 5_800, 2_300)
    assert regions(world, ALICE) == (0, 0, 3, 0)
    check_invariants(world)


@pytest.mark.parametrize(("amount", "left"), [(999, 1), (1_000, 0)])
def test_the_last_wh_makes_a_token_empty(amount: int, left: int) -> None:
    world, meter = make_home(tokens=1)
    world.done(meter, REFILL, 1_000, ALICE)

    world.done(meter, CONSUME, amount, ALICE)

    assert energies(world) == [left]
    assert regions(world, ALICE) == (0, left, 1 - left, 0)
    check_invariants(world)


@pytest.mark.parametrize(("amount", "full"), [(999, 0), (1_000, 1)])
def test_the_last_wh_makes_a_token_full(amount: int, full: int) -> None:
    world, meter = make_home(tokens=1)

    world.done(meter, REFILL, amount, ALICE)

    assert regions(world, ALICE) == (full, 1 - full, 0, 0)
    check_invariants(world)


# --- who may speak (S-3) ---


def speak(function: str, prosumer: Address) -> tuple[Any, ...]:
    """The function's arguments for this prosumer."""
    return (prosumer, START_MS, 0, 0) if function == REPORT else (1, prosumer)


@pytest.mark.parametrize("function", [REFILL, CONSUME, REPORT])
class TestWhoMaySpeak:
    """S-3, for each function that takes a reading."""

    def test_nobody_speaks_for_one_who_never_registered(self, function: str) -> None:
        world, meter = make_home()
        world.give_tokens(BOB)  # known as an owner, not as a prosumer

        for stranger in (BOB, CAROL):
            assert world.refusal(meter, function, *speak(function, stranger)) == NotRegistered(stranger)

    def test_another_meter_is_refused(self, function: str) -> None:
        world, _ = make_home()
        other = world.give_meter(BOB)

        for caller in (other, ALICE, MALLORY):
            refusal = world.refusal(caller, function, *speak(function, ALICE))
            assert refusal == NotConfirmedMeter(ALICE, caller)

    def test_a_meter_that_was_only_named_is_refused(self, function: str) -> None:
        world, meter = make_home()
        world.done(ALICE, "register(address)", meter)

        assert world.refusal(meter, function, *speak(function, ALICE)) == NotConfirmedMeter(ALICE, meter)

    def test_a_revoked_meter_is_refused_until_certified_again(self, function: str) -> None:
        world, meter = make_home()
        world.done(OPERATOR, "revokeMeter(address)", meter)
        refusal = world.refusal(meter, function, *speak(function, ALICE))
        world.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, 1, 0, False)

        assert refusal == MeterNotCertified(meter)
        world.done(meter, function, *speak(function, ALICE))

    def test_the_speaker_is_checked_before_the_figures(self, function: str) -> None:
        """Each fault masks those behind it: all figures here are absurd."""
        world, meter = make_home(max_power_w=1)
        absurd = (ALICE, 0, UINT256_MAX, 0) if function == REPORT else (UINT256_MAX, ALICE)
        world.done(OPERATOR, "revokeMeter(address)", meter)

        assert world.refusal(MALLORY, function, *absurd) == NotConfirmedMeter(ALICE, MALLORY)
        assert world.refusal(meter, function, *absurd) == MeterNotCertified(meter)


# --- plausibility of amounts (S-6) ---


@pytest.mark.parametrize("function", [REFILL, CONSUME])
@pytest.mark.parametrize(
    ("max_power_w", "elapsed_ms", "limit"),
    [
        (5_000, 0, 0),
        (5_000, 720, 1),  # exactly 1 Wh
        (5_000, 721, 2),  # a millisecond more rounds up
        (5_000, 719, 1),
        (5_000, HOUR_MS, 5_000),
        (1, 1, 1),
        (1, HOUR_MS, 1),
        (1, HOUR_MS + 1, 2),
        (UINT64_MAX, HOUR_MS, UINT64_MAX),
    ],
)
def test_an_amount_is_bounded_by_power_and_time(
    function: str, max_power_w: int, elapsed_ms: int, limit: int
) -> None:
    """S-6: rounded up to a whole Wh; the limit itself is accepted."""
    world, meter = make_home(max_power_w=max_power_w)
    world.pass_ms(elapsed_ms)

    refusal = world.refusal(meter, function, limit + 1, ALICE)
    world.done(meter, function, limit, ALICE)

    too_much = limit == UINT64_MAX
    assert refusal == (
        InvalidAmount(limit + 1, 0, UINT64_MAX) if too_much else ImplausibleReading(limit + 1, limit)
    )
    check_invariants(world)


def test_each_direction_counts_its_own_time() -> None:
    """S-6: a refill does not use up the time of a consumption."""
    world, meter = make_home(max_power_w=1_000)
    world.pass_ms(HOUR_MS)
    world.done(meter, REFILL, 1_000, ALICE)

    assert world.refusal(meter, REFILL, 1, ALICE) == ImplausibleReading(1, 0)
    world.done(meter, CONSUME, 1_000, ALICE)
    assert world.refusal(meter, CONSUME, 1, ALICE) == ImplausibleReading(1, 0)
    world.pass_ms(HOUR_MS)
    world.done(meter, REFILL, 1_000, ALICE)


def test_a_small_amount_uses_up_all_the_time() -> None:
    world, meter = make_home(max_power_w=1_000)
    world.pass_ms(HOUR_MS)
    world.done(meter, REFILL, 0, ALICE)
    world.pass_ms(HOUR_MS // 2)

    assert world.refusal(meter, REFILL, 501, ALICE) == ImplausibleReading(501, 500)


def test_a_refused_amount_uses_up_no_time() -> None:
    world, meter = make_home(max_power_w=1_000)
    world.pass_ms(HOUR_MS)
    world.refusal(meter, REFILL, 1_001, ALICE)

    assert world.done(meter, REFILL, 1_000, ALICE) == 1_000


def test_a_new_confirmation_starts_the_time_anew() -> None:
    """S-6: registering again wins nobody the hour before."""
    world, meter = make_home(max_power_w=1_000)
    world.pass_ms(HOUR_MS)
    world.done(ALICE, "register(address)", meter)
    world.done(meter, "confirm(address)", ALICE)

    assert world.refusal(meter, REFILL, 1, ALICE) == ImplausibleReading(1, 0)


def test_no_certified_power_is_no_limit() -> None:
    """S-6: 0 W; and what came then leaves no mark for a limit certified later."""
    world, meter = make_home(tokens=10)
    world.done(meter, REFILL, 5_000, ALICE)
    world.pass_ms(HOUR_MS)
    world.done(meter, REFILL, 5_000, ALICE)
    world.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, 1, 100, False)

    assert world.refusal(meter, REFILL, 101, ALICE) == ImplausibleReading(101, 100)


# --- totals ---


@pytest.mark.parametrize(("function", "event"), [(REFILL, EnergyRefilled), (CONSUME, EnergyConsumed)])
def test_a_prosumers_totals_fill_64_bits_and_no_more(function: str, event: Callable[..., Any]) -> None:
    world, meter = make_home(tokens=0)
    assert world.refusal(meter, function, UINT64_MAX + 1, ALICE) == InvalidAmount(
        UINT64_MAX + 1, 0, UINT64_MAX
    )
    assert world.refusal(meter, function, UINT256_MAX, ALICE) == InvalidAmount(UINT256_MAX, 0, UINT64_MAX)

    outcome = world.send(meter, function, UINT64_MAX, ALICE)

    assert outcome.emissions == [event(ALICE, meter, UINT64_MAX, 0)]
    assert world.refusal(meter, function, 1, ALICE) == InvalidAmount(1, 0, 0)
    world.done(meter, function, 0, ALICE)
    check_invariants(world)


def test_the_figures_of_an_amount_are_checked_in_order() -> None:
    """InvalidAmount before ImplausibleReading."""
    world, meter = make_home(max_power_w=1)

    for function in (REFILL, CONSUME):
        refusal = world.refusal(meter, function, UINT64_MAX + 1, ALICE)
        assert refusal == InvalidAmount(UINT64_MAX + 1, 0, UINT64_MAX)


def test_what_all_owners_ever_stored_may_pass_64_bits() -> None:
    """B-1: one token of 2^64 - 1 Wh, filled and drained by two owners."""
    world = World(max_supply=1, capability_wh=UINT64_MAX)
    world.give_tokens(ALICE)
    for owner in (ALICE, BOB):
        meter = world.give_meter(owner)
        assert world.done(meter, REFILL, UINT64_MAX, owner) == UINT64_MAX
        assert world.done(meter, CONSUME, UINT64_MAX, owner) == UINT64_MAX
        if owner == ALICE:
            world.done(ALICE, "transferFrom(address,address,uint256)", ALICE, BOB, 1)

    assert world.get(CttSupply.key()) == (1, 0, 2 * UINT64_MAX, 2 * UINT64_MAX, (), (2 * UINT64_MAX,))
    check_invariants(world)


# --- report (S-7) ---


def test_the_first_report_is_the_baseline() -> None:
    world, meter = make_home()

    outcome = world.send(meter, REPORT, ALICE, START_MS, 7_000, 9_000)

    assert outcome.result == (0, 0)
    assert outcome.emissions == []
    assert world.call("lastReading(address)", ALICE) == (START_MS, 7_000, 9_000)
    assert totals(world, ALICE) == (0, 0, 0, 0)


def test_a_report_stores_export_before_it_covers_import() -> None:
    """S-7: so the same reading's own production covers its consumption."""
    world, meter = make_home(tokens=1)
    world.done(meter, REPORT, ALICE, START_MS, 100, 200)

    outcome = world.send(meter, REPORT, ALICE, START_MS + 1, 100 + 1_500, 200 + 1_200)

    assert outcome.result == (1_000, 1_000)
    assert outcome.emissions == [
        MetadataUpdate(1),
        EnergyRefilled(ALICE, meter, 1_200, 1_000),
        MetadataUpdate(1),
        EnergyConsumed(ALICE, meter, 1_500, 1_000),
        OriginRetired(ALICE, SOLAR, 1_000),
    ]
    assert totals(world, ALICE) == (1_200, 1_000, 1_500, 1_000)
    check_invariants(world)


@pytest.mark.parametrize(
    ("imported", "exported", "result"), [(0, 0, (0, 0)), (0, 30, (30, 0)), (20, 0, (0, 20))]
)
def test_a_register_that_stands_still_tells_nothing(
    imported: int, exported: int, result: tuple[int, int]
) -> None:
    world, meter = make_home()
    world.charge(ALICE, 500)
    world.done(meter, REPORT, ALICE, START_MS, 5, 5)

    outcome = world.send(meter, REPORT, ALICE, START_MS + 1, 5 + imported, 5 + exported)

    assert outcome.result == result
    told = [emission.topics[0] for emission in outcome.emissions]
    assert told.count(EnergyConsumed.topic) == (imported > 0)
    assert told.count(EnergyRefilled.topic) == (exported > 0)
    check_invariants(world)


def test_a_lost_reading_is_made_up_by_the_next() -> None:
    world, meter = make_home()
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    assert world.done(meter, REPORT, ALICE, START_MS + 3, 0, 300) == (300, 0)


def test_a_new_confirmation_makes_a_new_baseline() -> None:
    """S-7: the registers may be another meter's, and may stand lower."""
    world, meter = make_home()
    world.done(meter, REPORT, ALICE, START_MS, 5_000, 5_000)
    world.done(ALICE, "register(address)", meter)
    world.done(meter, "confirm(address)", ALICE)

    assert world.call("lastReading(address)", ALICE) == (0, 0, 0)
    assert world.done(meter, REPORT, ALICE, 1, 10, 10) == (0, 0)
    assert world.done(meter, REPORT, ALICE, 2, 10, 15) == (5, 0)


@pytest.mark.parametrize(("ahead_ms", "refused"), [(60_000, False), (60_001, True)])
@pytest.mark.parametrize("baseline", [False, True])
def test_a_report_is_at_most_a_minute_ahead_of_its_block(
    ahead_ms: int, refused: bool, baseline: bool
) -> None:
    world, meter = make_home()
    if baseline:
        world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    revert = world.send(meter, REPORT, ALICE, START_MS + ahead_ms, 0, 0).revert

    assert revert == (ReadingInFuture(START_MS, START_MS + ahead_ms) if refused else None)


@pytest.mark.parametrize("reading_time", [START_MS, START_MS - 1, 0])
def test_a_report_is_newer_than_the_last(reading_time: int) -> None:
    world, meter = make_home()
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    refusal = world.refusal(meter, REPORT, ALICE, reading_time, 0, 0)

    assert refusal == ReadingNotNewer(START_MS, reading_time)
    world.done(meter, REPORT, ALICE, START_MS + 1, 0, 0)


def test_a_baseline_has_a_time() -> None:
    world, meter = make_home()

    assert world.refusal(meter, REPORT, ALICE, 0, 1, 1) == ReadingNotNewer(0, 0)
    world.done(meter, REPORT, ALICE, 1, 1, 1)


def test_a_repeated_report_does_no_harm() -> None:
    world, meter = make_home()
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)
    world.done(meter, REPORT, ALICE, START_MS + 1, 0, 400)

    assert world.refusal(meter, REPORT, ALICE, START_MS + 1, 0, 400) == ReadingNotNewer(
        START_MS + 1, START_MS + 1
    )
    assert energies(world) == [400, 0, 0]


@pytest.mark.parametrize(
    ("registers", "refusal"),
    [
        ((99, 200), RegisterRanBackwards(100, 99)),
        ((100, 199), RegisterRanBackwards(200, 199)),
        ((0, 0), RegisterRanBackwards(100, 0)),  # import before export
    ],
)
def test_registers_do_not_run_backwards(registers: tuple[int, int], refusal: Revert) -> None:
    world, meter = make_home()
    world.done(meter, REPORT, ALICE, START_MS, 100, 200)

    assert world.refusal(meter, REPORT, ALICE, START_MS + 1, *registers) == refusal


@pytest.mark.parametrize("registers", [(UINT64_MAX + 1, 0), (0, UINT64_MAX + 1)])
@pytest.mark.parametrize("baseline", [False, True])
def test_registers_have_64_bits(registers: tuple[int, int], baseline: bool) -> None:
    world, meter = make_home()
    if baseline:
        world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    refusal = world.refusal(meter, REPORT, ALICE, START_MS + 1, *registers)

    assert refusal == InvalidAmount(UINT64_MAX + 1, 0, UINT64_MAX)
    world.done(meter, REPORT, ALICE, START_MS + 1, UINT64_MAX, UINT64_MAX)
    check_invariants(world)


@pytest.mark.parametrize(
    ("elapsed_ms", "imported", "exported", "refusal"),
    [
        (720, 1, 1, None),
        (720, 2, 0, ImplausibleReading(2, 1)),
        (720, 0, 2, ImplausibleReading(2, 1)),
        (721, 2, 2, None),
        (721, 3, 4, ImplausibleReading(3, 2)),  # import before export
        (60_000, 84, 84, None),
        (60_000, 84, 85, ImplausibleReading(85, 84)),
    ],
)
def test_a_reports_differences_are_bounded_by_power_and_time(
    elapsed_ms: int, imported: int, exported: int, refusal: Revert | None
) -> None:
    """S-6: by the time between the two readings, not between their blocks."""
    world, meter = make_home(max_power_w=5_000)
    world.done(meter, REPORT, ALICE, START_MS, 10, 20)

    outcome = world.send(meter, REPORT, ALICE, START_MS + elapsed_ms, 10 + imported, 20 + exported)

    assert outcome.revert == refusal


@pytest.mark.parametrize(
    ("fill", "imported", "exported"), [(CONSUME, 2, 0), (REFILL, 0, 2)], ids=["import", "export"]
)
def test_a_report_keeps_the_totals_within_64_bits(fill: str, imported: int, exported: int) -> None:
    world, meter = make_home(tokens=0)
    world.done(meter, fill, UINT64_MAX - 1, ALICE)
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    assert world.refusal(meter, REPORT, ALICE, START_MS + 1, imported, exported) == InvalidAmount(2, 0, 1)
    world.done(meter, REPORT, ALICE, START_MS + 1, imported // 2, exported // 2)
    check_invariants(world)


ALWAYS_LATE = START_MS + 60_001  # ahead of the block by too much
REPORT_FAULTS: list[tuple[str, dict[str, int], Revert]] = [
    ("registers above 64 bits", {"imported": UINT64_MAX + 1}, InvalidAmount(UINT64_MAX + 1, 0, UINT64_MAX)),
    ("not newer", {"time": START_MS}, ReadingNotNewer(START_MS, START_MS)),
    ("in the future", {"time": ALWAYS_LATE}, ReadingInFuture(START_MS, ALWAYS_LATE)),
    ("runs backwards", {"exported": 1}, RegisterRanBackwards(2, 1)),
    ("implausible", {"imported": 5_000}, ImplausibleReading(4_998, 1)),
]
# Pairs that one report can show: a time is not both too old and too far ahead, one register stands at one value.
REPORT_PAIRS = [
    (earlier, later)
    for at, earlier in enumerate(REPORT_FAULTS)
    for later in REPORT_FAULTS[at + 1 :]
    if not earlier[1].keys() & later[1].keys()
]


@pytest.mark.parametrize(("earlier", "later"), REPORT_PAIRS, ids=lambda fault: fault[0])
def test_of_two_faults_of_a_report_the_earlier_is_told(
    earlier: tuple[str, dict[str, int], Revert], later: tuple[str, dict[str, int], Revert]
) -> None:
    world, meter = make_home(max_power_w=1)
    world.done(meter, REPORT, ALICE, START_MS, 2, 2)
    figures = {"time": START_MS + 1_000, "imported": 2, "exported": 2}

    def refusal(**faults: int) -> Revert:
        time, imported, exported = {**figures, **faults}.values()
        return world.refusal(meter, REPORT, ALICE, time, imported, exported)

    assert refusal(**earlier[1]) == earlier[2]
    if later[0] != "implausible":  # its limit depends on the time
        assert refusal(**later[1]) == later[2]
    assert refusal(**earlier[1], **later[1]) == earlier[2]


def test_an_implausible_report_is_told_before_totals_that_overflow() -> None:
    world, meter = make_home(tokens=0)
    world.done(meter, CONSUME, UINT64_MAX, ALICE)
    world.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, 1, 1, False)
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)

    assert world.refusal(meter, REPORT, ALICE, START_MS + 1, 2, 0) == ImplausibleReading(2, 1)
    assert world.refusal(meter, REPORT, ALICE, START_MS + 1, 1, 0) == InvalidAmount(1, 0, 0)


# --- reportBatch ---


def make_street(*, homes: int = 3) -> tuple[World, Address, list[Address]]:
    """Homes with one token each and a baseline of 0, all confirmed by one concentrator."""
    world = World(capability_wh=1_000)
    concentrator = address("concentrator")
    world.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", concentrator, 1, 0, True)
    owners = [address(f"home {number}") for number in range(homes)]
    for owner in owners:
        world.give_tokens(owner)
        world.done(owner, "register(address)", concentrator)
        world.done(concentrator, "confirm(address)", owner)
        world.done(concentrator, REPORT, owner, START_MS, 0, 0)
    return world, concentrator, owners


def test_a_batch_is_the_reports_it_holds() -> None:
    together, concentrator, owners = make_street()
    apart, _, _ = make_street()
    readings = [(owner, START_MS + 1, 10, 50 + number) for number, owner in enumerate(owners)]

    outcome = together.send(concentrator, BATCH, readings)
    logs = [log for reading in readings for log in apart.send(concentrator, REPORT, *reading).logs]

    assert outcome.result == 3
    assert list(outcome.logs) == logs
    assert energies(together) == energies(apart) == [40, 41, 42]
    check_invariants(together)


def test_a_bad_reading_harms_no_other() -> None:
    """S-7: each is told with its ABI error, and leaves nothing else."""
    world, concentrator, (first, second, third) = make_street()
    readings = [
        (first, START_MS + 1, 0, 100),
        (second, START_MS, 0, 100),
        (MALLORY, START_MS + 1, 0, 100),
        (third, START_MS + 1, 0, 100),
        (first, START_MS + 1, 0, 100),
    ]

    outcome = world.send(concentrator, BATCH, readings)

    assert outcome.result == 2
    rejected = [emission for emission in outcome.emissions if emission.topics[0] == ReadingRejected.topic]
    assert rejected == [
        ReadingRejected(1, ReadingNotNewer(START_MS, START_MS).data),
        ReadingRejected(2, NotRegistered(MALLORY).data),
        ReadingRejected(4, ReadingNotNewer(START_MS + 1, START_MS + 1).data),
    ]
    assert energies(world) == [100, 0, 100]
    assert world.call("lastReading(address)", second) == (START_MS, 0, 0)
    check_invariants(world)


BATCH_FAULTS: list[tuple[tuple[int, int, int], Revert]] = [
    ((START_MS + 1, UINT64_MAX + 1, 0), InvalidAmount(UINT64_MAX + 1, 0, UINT64_MAX)),
    ((START_MS, 5, 5), ReadingNotNewer(START_MS, START_MS)),
    ((ALWAYS_LATE, 5, 5), ReadingInFuture(START_MS, ALWAYS_LATE)),
    ((START_MS + 1, 4, 5), RegisterRanBackwards(5, 4)),
    ((START_MS + 1, 5, 7), ImplausibleReading(2, 1)),
]


@pytest.mark.parametrize(("figures", "reason"), BATCH_FAULTS)
def test_every_reason_of_a_report_is_a_reason_of_a_batch(
    figures: tuple[int, int, int], reason: Revert
) -> None:
    world = World()
    meter = world.give_meter(ALICE, max_power_w=1, concentrator=True)
    world.done(meter, REPORT, ALICE, START_MS, 5, 5)

    outcome = world.send(meter, BATCH, [(ALICE, *figures)])

    assert outcome.emissions == [ReadingRejected(0, reason.data)]
    assert outcome.result == 0


def test_an_empty_batch_is_taken() -> None:
    world, concentrator, _ = make_street(homes=1)

    assert world.done(concentrator, BATCH, []) == 0


@pytest.mark.parametrize("caller", ["ordinary", "unknown", "revoked"])
def test_only_a_certified_concentrator_sends_batches(caller: str) -> None:
    world, concentrator, owners = make_street(homes=1)
    if caller == "ordinary":
        sender = world.give_meter(ALICE)
    elif caller == "unknown":
        sender = MALLORY
    else:
        sender = concentrator
        world.done(OPERATOR, "revokeMeter(address)", concentrator)

    assert world.refusal(sender, BATCH, [(owners[0], START_MS + 1, 0, 1)]) == NotConcentrator(sender)


def test_a_batch_that_runs_out_of_gas_takes_no_reading() -> None:
    """S-7: lack of gas is no fault of one reading."""
    world, concentrator, owners = make_street()
    readings = [(owner, START_MS + 1, 0, 10) for owner in owners]
    data = CTT.named(BATCH).encode_arguments(readings)

    def attempt(gas: int) -> Revert | None:
        lookup, block, chain = world.overlay.lookup, world.block, world.chain
        return call(lookup, concentrator, CTT.address, Wei(0), data, Gas(gas), block, chain).revert

    needed = world.call_raw(concentrator, data).gas_used
    assert attempt(needed) is None
    assert attempt(needed - 1) == OutOfGas(needed - 1)
    assert attempt(needed // 2) == OutOfGas(needed // 2)


# --- capability (S-5) ---


def test_a_raised_capability_gives_full_tokens_room() -> None:
    world, meter = make_home()
    world.done(meter, REFILL, 2_500, ALICE)
    world.done(ADMIN, "setTokenCapability(uint256)", 1_200)

    assert world.call("energyOf(address)", ALICE) == (2_500, 1_100)
    assert world.done(meter, REFILL, 900, ALICE) == 900
    assert energies(world) == [1_200, 1_200, 1_000]
    assert regions(world, ALICE) == (2, 1, 0, 0)
    check_invariants(world)


def test_a_lowered_capability_takes_nothing_away() -> None:
    """S-5: tokens above it keep their energy, and take no more."""
    world, meter = make_home(tokens=4)
    world.done(meter, REFILL, 1_800, ALICE)
    world.done(ADMIN, "setTokenCapability(uint256)", 800)

    outcome = world.send(meter, REFILL, 100, ALICE)

    assert outcome.emissions == [MetadataUpdate(3), EnergyRefilled(ALICE, meter, 100, 100)]
    assert energies(world) == [1_000, 800, 100, 0]
    assert regions(world, ALICE) == (2, 1, 1, 0)
    check_invariants(world)


def test_a_token_that_a_lowered_capability_made_full_is_drained_as_partly_charged() -> None:
    """S-5: until a refill comes to it."""
    world, meter = make_home()
    world.done(meter, REFILL, 1_900, ALICE)
    world.done(ADMIN, "setTokenCapability(uint256)", 800)

    assert world.done(meter, CONSUME, 950, ALICE) == 950
    assert energies(world) == [950, 0, 0]
    assert regions(world, ALICE) == (0, 1, 2, 0)
    assert world.done(meter, REFILL, 100, ALICE) == 100
    assert energies(world) == [950, 100, 0]
    check_invariants(world)


def test_a_full_token_that_is_drained_above_a_lowered_capability_takes_no_more() -> None:
    world, meter = make_home(tokens=1)
    world.done(meter, REFILL, 1_000, ALICE)
    world.done(ADMIN, "setTokenCapability(uint256)", 800)
    world.done(meter, CONSUME, 1, ALICE)
    check_invariants(world)

    assert world.call("energyOf(address)", ALICE) == (999, 0)
    assert world.done(meter, REFILL, 50, ALICE) == 0
    assert regions(world, ALICE) == (1, 0, 0, 0)
    check_invariants(world)


@pytest.mark.parametrize("touch", [False, True])
def test_a_capability_that_comes_back_leaves_all_as_it_was(touch: bool) -> None:
    world, meter = make_home()
    world.done(meter, REFILL, 2_400, ALICE)
    for capability in (5_000, 1_000, 200, 1_000):
        world.done(ADMIN, "setTokenCapability(uint256)", capability)
        if touch:
            world.done(meter, REFILL, 0, ALICE)
        check_invariants(world)

    assert world.call("energyOf(address)", ALICE) == (2_400, 600)
    assert world.done(meter, REFILL, 1_000, ALICE) == 600
    assert regions(world, ALICE) == (3, 0, 0, 0)
    check_invariants(world)


def test_tokens_that_became_full_count_among_the_256() -> None:
    """S-5 with S-4: a refill passes at most 256 tokens, also when it charges none of them."""
    tokens = TOKENS_PER_READING_MAX + 1
    world, meter = make_home(tokens=tokens, capability_wh=1)
    world.done(meter, REFILL, TOKENS_PER_READING_MAX, ALICE)
    world.done(meter, REFILL, 1, ALICE)
    for capability in (2, 1):  # raised: all are partly charged; lowered: all are full again
        world.done(ADMIN, "setTokenCapability(uint256)", capability)
        world.done(meter, REFILL, 0, ALICE)
    assert regions(world, ALICE) == (0, tokens, 0, 0)

    assert world.done(meter, REFILL, 1, ALICE) == 0
    assert regions(world, ALICE) == (TOKENS_PER_READING_MAX, 1, 0, 0)
    check_invariants(world)


# --- views ---


def test_energy_of_counts_tokens_that_are_not_on_sale() -> None:
    world, meter = make_home()
    world.done(meter, REFILL, 1_250, ALICE)
    world.done(ALICE, "setOnSale(uint256)", 1)

    assert world.call("energyOf(address)", ALICE) == (250, 1_750)
    assert world.call("energyOf(address)", MALLORY) == (0, 0)


def test_the_last_reading_of_a_stranger_is_zero() -> None:
    world, _ = make_home()

    assert world.call("lastReading(address)", MALLORY) == (0, 0, 0)


def test_a_report_leaves_the_times_of_amounts_alone() -> None:
    """S-6: reports are bounded by their own times."""
    world, meter = make_home(max_power_w=1_000)
    world.done(meter, REPORT, ALICE, START_MS, 0, 0)
    world.pass_ms(HOUR_MS)
    world.done(meter, REFILL, 7, ALICE)

    reading = world.get(Reading.key(meter, ALICE))
    assert (reading.refilled_ms, reading.consumed_ms) == (START_MS + HOUR_MS, START_MS)
