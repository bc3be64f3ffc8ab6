"""The treasury: money against deposits, each booking once, and books that agree to the wei."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.audit import audit
from ctt_state.modules import MODULES
from ctt_state.modules.ctt.module import NotAdmin, NotCreated
from ctt_state.modules.treasury import (
    ISSUED_MAX,
    TREASURY,
    InsufficientBalance,
    InvalidAmount,
    InvalidRecipient,
    InvalidTreasurer,
    Issued,
    NotTreasurer,
    Redeemed,
    ReferenceUsed,
    TreasurerSet,
)
from ctt_state.records import Booking, BookingKind, TreasuryTotals
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS, Height, Wei
from tests.world import ADMIN, ALICE, BOB, MALLORY, WEALTH_WEI, World

SET = "setTreasurer(address,bool)"
ISSUE = "issue(address,uint256,bytes32)"
REDEEM = "redeem(uint256,bytes32)"
FIRST, SECOND = b"deposit 1".ljust(32, b"\0"), b"deposit 2".ljust(32, b"\0")


def treasury_world(*, created: bool = True) -> World:
    """ALICE is treasurer, when there is an admin to say so."""
    world = World(created=created)
    world.module = TREASURY
    if created:
        world.done(ADMIN, SET, ALICE, True)
    return world


def faults(world: World) -> list[str]:
    """What the audit says."""
    records = ((key, record) for key, record in world.overlay.changes.items() if record is not None)
    return list(audit(records, world.issued_wei))


def test_it_answers_at_its_address() -> None:
    assert MODULES[TREASURY.address] is TREASURY
    assert TREASURY.address.hex() == "000000000000000000000000000000000000c702"


def test_the_admin_names_and_dismisses_treasurers() -> None:
    world = treasury_world()
    assert world.call("isTreasurer(address)", ALICE) is True
    assert world.send(ADMIN, SET, ALICE, False).emissions == [TreasurerSet(ALICE, False)]
    assert world.call("isTreasurer(address)", ALICE) is False
    assert world.refusal(ALICE, ISSUE, BOB, 1, FIRST) == NotTreasurer(ALICE)


def test_naming_is_refused_in_a_fixed_order() -> None:
    assert treasury_world(created=False).refusal(MALLORY, SET, ZERO_ADDRESS, True) == NotCreated()
    world = treasury_world()
    assert world.refusal(MALLORY, SET, ZERO_ADDRESS, True) == NotAdmin(MALLORY)
    assert world.refusal(ADMIN, SET, ZERO_ADDRESS, True) == InvalidTreasurer(ZERO_ADDRESS)


def test_a_deposit_becomes_money() -> None:
    world = treasury_world()

    outcome = world.send(ALICE, ISSUE, BOB, 500, FIRST)

    assert outcome.emissions == [Issued(ALICE, BOB, 500, FIRST)]
    assert world.balance(BOB) == WEALTH_WEI + 500
    assert (world.call("totalIssued()"), world.call("outstanding()")) == (500, 500)
    assert world.call("booking(address,bytes32)", ALICE, FIRST) == (
        BookingKind.ISSUED,
        BOB,
        500,
        world.block.height,
    )
    assert faults(world) == []


def test_money_is_paid_back_and_gone() -> None:
    world = treasury_world()
    world.done(ALICE, ISSUE, ALICE, 500, FIRST)

    outcome = world.send(ALICE, REDEEM, 200, SECOND)

    assert outcome.emissions == [Redeemed(ALICE, 200, SECOND)]
    assert world.balance(ALICE) == WEALTH_WEI + 300
    totals = world.call("totalIssued()"), world.call("totalRedeemed()"), world.call("outstanding()")
    assert totals == (500, 200, 300)
    assert world.call("booking(address,bytes32)", ALICE, SECOND)[0] == BookingKind.REDEEMED
    assert faults(world) == []


def test_a_reference_nobody_used_has_no_booking() -> None:
    world = treasury_world()
    assert world.call("booking(address,bytes32)", ALICE, FIRST) == (BookingKind.NONE, ZERO_ADDRESS, 0, 0)


def test_issuing_is_refused_in_a_fixed_order() -> None:
    """The caller, the recipient, the amount, the reference: each masks those behind it."""
    world = treasury_world()
    world.done(ALICE, ISSUE, BOB, 1, FIRST)
    height = world.block.height
    assert world.refusal(BOB, ISSUE, ZERO_ADDRESS, 0, FIRST) == NotTreasurer(BOB)
    assert world.refusal(ALICE, ISSUE, ZERO_ADDRESS, 0, FIRST) == InvalidRecipient(ZERO_ADDRESS)
    assert world.refusal(ALICE, ISSUE, TREASURY.address, 0, FIRST) == InvalidRecipient(TREASURY.address)
    assert world.refusal(ALICE, ISSUE, BOB, 0, FIRST) == InvalidAmount(0, 1, ISSUED_MAX - 1)
    assert world.refusal(ALICE, ISSUE, BOB, 1, FIRST) == ReferenceUsed(FIRST, height)


@pytest.mark.parametrize("amount", [ISSUED_MAX + 1, UINT256_MAX])
def test_no_more_is_issued_than_balances_can_hold(amount: int) -> None:
    world = treasury_world()
    assert world.refusal(ALICE, ISSUE, BOB, amount, FIRST) == InvalidAmount(amount, 1, ISSUED_MAX)
    world.done(ALICE, ISSUE, BOB, ISSUED_MAX, FIRST)
    assert world.refusal(ALICE, ISSUE, BOB, 1, SECOND) == InvalidAmount(1, 1, 0)


def test_redeeming_is_refused_in_a_fixed_order() -> None:
    """The caller, the amount, the balance, the reference: each masks those behind it."""
    world = treasury_world()
    world.done(ALICE, ISSUE, BOB, 10 * WEALTH_WEI, FIRST)
    height = world.block.height
    much = 2 * WEALTH_WEI
    assert world.refusal(BOB, REDEEM, 0, FIRST) == NotTreasurer(BOB)
    assert world.refusal(ALICE, REDEEM, 0, FIRST) == InvalidAmount(0, 1, 10 * WEALTH_WEI)
    assert world.refusal(ALICE, REDEEM, much, FIRST) == InsufficientBalance(WEALTH_WEI, much)
    assert world.refusal(ALICE, REDEEM, 1, FIRST) == ReferenceUsed(FIRST, height)


def test_what_genesis_gave_out_has_no_deposit_to_redeem() -> None:
    world = treasury_world()
    assert world.refusal(ALICE, REDEEM, 1, FIRST) == InvalidAmount(1, 1, 0)
    world.done(ALICE, ISSUE, ALICE, 5, FIRST)
    assert world.refusal(ALICE, REDEEM, 6, SECOND) == InvalidAmount(6, 1, 5)
    world.done(ALICE, REDEEM, 5, SECOND)


def test_two_treasurers_may_use_one_reference() -> None:
    world = treasury_world()
    world.done(ADMIN, SET, BOB, True)
    world.done(ALICE, ISSUE, MALLORY, 1, FIRST)
    world.done(BOB, ISSUE, MALLORY, 2, FIRST)
    assert world.call("totalIssued()") == 3
    assert faults(world) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from((ISSUE, REDEEM)),
            st.sampled_from((ALICE, BOB, MALLORY)),
            st.integers(0, 3 * WEALTH_WEI),
            st.integers(0, 5),
        ),
        max_size=12,
    )
)
def test_the_books_agree_after_any_history(history: list[tuple[str, bytes, int, int]]) -> None:
    """Balances, totals and bookings, to the wei (the audit); MALLORY is no treasurer."""
    world = treasury_world()
    world.done(ADMIN, SET, BOB, True)
    issued = redeemed = 0
    for function, who, amount, number in history:
        reference = number.to_bytes(32, "big")
        arguments = (MALLORY, amount, reference) if function == ISSUE else (amount, reference)
        succeeded = world.send(who, function, *arguments).revert is None  # type: ignore[arg-type]
        issued += amount if succeeded and function == ISSUE else 0
        redeemed += amount if succeeded and function == REDEEM else 0
    assert (world.call("totalIssued()"), world.call("totalRedeemed()")) == (issued, redeemed)
    assert faults(world) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (
            lambda world: world.put(TreasuryTotals.key(), TreasuryTotals(Wei(499), Wei(0))),
            "treasurers issued 499 and redeemed 0 wei, but their bookings say 500 and 0 wei",
        ),
        (
            lambda world: world.put(TreasuryTotals.key(), TreasuryTotals(Wei(0), Wei(500))),
            "treasurers redeemed 500 wei, above the 0 wei ever issued",
        ),
        (
            lambda world: world.put(
                Booking.key(BOB, FIRST), Booking(BookingKind.REDEEMED, BOB, Wei(1), Height(1))
            ),
            "treasurers issued 500 and redeemed 0 wei, but their bookings say 500 and 1 wei",
        ),
    ],
)
def test_the_audit_finds_books_that_do_not_agree(spoil: Callable[[World], None], fault: str) -> None:
    world = treasury_world()
    world.done(ALICE, ISSUE, BOB, 500, FIRST)
    spoil(world)
    assert fault in faults(world)
