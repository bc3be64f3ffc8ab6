"""What waits for a peer, what may come from it in a second, how long it stays out, and how often it is spoken of."""

import logging

import pytest

from p2p.bans import BANS_MAX, Bans
from p2p.budget import Budget
from p2p.chatter import SUBJECTS_MAX, Chatter
from p2p.messages import Priority
from p2p.outbox import Outbox, Outcome

HOUR_MS = 3_600_000


def test_what_is_urgent_leaves_first_and_each_class_in_its_order() -> None:
    outbox = Outbox()
    outbox.put(b"t1", Priority.TRANSACTIONS)
    outbox.put(b"r1", Priority.REPLY)
    outbox.put(b"c1", Priority.CONSENSUS)
    outbox.put(b"c2", Priority.CONSENSUS)
    outbox.put(b"p1", Priority.CONTROL)

    assert outbox.take(100) == b"p1c1c2r1t1"
    assert outbox.take(100) == b""
    assert outbox.size == 0


def test_a_frame_that_has_begun_is_finished_first() -> None:
    outbox = Outbox()
    outbox.put(b"transactions", Priority.TRANSACTIONS)

    assert outbox.take(5) == b"trans"
    assert outbox.is_within_frame
    outbox.put(b"vote", Priority.CONSENSUS)

    assert outbox.size == 7 + 4
    assert outbox.take(9) == b"actionsvo"
    assert outbox.take(9) == b"te"
    assert not outbox.is_within_frame


def test_transactions_give_way_first_the_oldest() -> None:
    outbox = Outbox(10)
    for frame in (b"aaaa", b"bbbb"):
        assert outbox.put(frame, Priority.TRANSACTIONS) is Outcome.QUEUED

    assert outbox.put(b"cccc", Priority.TRANSACTIONS) is Outcome.DROPPED
    assert outbox.put(b"vote", Priority.CONSENSUS) is Outcome.QUEUED
    assert outbox.take(100) == b"votebbbb"
    assert outbox.dropped == 2


def test_what_cannot_give_way_overflows() -> None:
    outbox = Outbox(10)
    outbox.put(b"v" * 10, Priority.CONSENSUS)

    assert outbox.put(b"v", Priority.CONSENSUS) is Outcome.OVERFLOW
    assert outbox.put(b"t", Priority.TRANSACTIONS) is Outcome.DROPPED
    assert outbox.take(100) == b"v" * 10


def test_a_budget_is_spent_and_filled_again_by_time() -> None:
    budget = Budget(20, now_ms=0)

    assert all(budget.take(1, 0) for _ in range(20))
    assert not budget.take(1, 49)
    assert budget.take(1, 50)
    assert not budget.take(1, 50)
    assert budget.take(20, 10_000)
    assert not budget.take(1, 10_000)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    budget = Budget(1, now_ms=1_000)

    assert budget.take(1, 1_000)
    assert not budget.take(1, 0)
    assert not budget.take(1, 999)


def test_a_debt_is_paid_by_time() -> None:
    budget = Budget(1_000, now_ms=0)

    budget.spend(1_500, 0)

    assert budget.is_spent(0)
    assert budget.wait_ms(0) == 500
    assert budget.is_spent(500)
    assert not budget.is_spent(501)
    assert budget.wait_ms(501) == 0


def test_a_followers_bans_grow_to_an_hour() -> None:
    bans = Bans()

    assert [bans.add("f1", is_validator=False, now_ms=now) for now in (0, 2_000, 70_000, 80_000)] == [
        1_000,
        60_000,
        HOUR_MS,
        HOUR_MS,
    ]
    assert bans.left_ms("f1", 80_000) == HOUR_MS
    assert bans.left_ms("f1", 80_000 + HOUR_MS) == 0
    assert bans.left_ms("f2", 80_000) == 0


def test_a_validator_is_never_banned_for_more_than_five_seconds() -> None:
    bans = Bans()

    assert [bans.add("v1", is_validator=True, now_ms=now) for now in range(4)] == [1_000, 5_000, 5_000, 5_000]


def test_good_conduct_is_forgiven() -> None:
    bans = Bans()
    bans.add("f1", is_validator=False, now_ms=0)

    assert bans.add("f1", is_validator=False, now_ms=1_000 + HOUR_MS) == 1_000


def test_bans_are_bounded() -> None:
    bans = Bans()
    for number in range(BANS_MAX + 1):
        bans.add(f"f{number}", is_validator=False, now_ms=number)

    assert bans.left_ms("f0", 0) == 0
    assert bans.left_ms("f1", 0) == 1_001


def test_one_line_a_subject_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    chatter = Chatter(logging.getLogger("chatter"))

    for now_ms in (0, 1, 59_999, 60_000):
        chatter.say(logging.WARNING, "f1", f"closed at {now_ms}", now_ms)
    chatter.say(logging.WARNING, "f2", "closed", 60_000)

    assert caplog.messages == [
        "f1: closed at 0",
        "f1: closed at 60000 (2 more in the last minutes)",
        "f2: closed",
    ]


def test_subjects_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    chatter = Chatter(logging.getLogger("chatter"))

    for number in range(SUBJECTS_MAX + 1):
        chatter.say(logging.WARNING, f"f{number}", "closed", 0)
    chatter.say(logging.WARNING, "f0", "closed", 1)
    chatter.say(logging.WARNING, "f2", "closed", 1)

    assert len(caplog.messages) == SUBJECTS_MAX + 2
