"""Consensus of one validator (C-3): slots, votes, and clocks that misbehave."""

import pytest

from ctt_state.units import Hash, Height, Ms
from ctt_state.votes import Kind
from node.consensus.solo import (
    BlockBuilt,
    BlockFinal,
    Build,
    Engine,
    Event,
    Finalize,
    Head,
    Now,
    Sign,
    Tick,
    VoteSigned,
)

PERIOD_MS = Ms(333)
GENESIS = Head(Height(0), 0, 0, Hash(b"g" * 32), Ms(1_000_000))


def make_engine(head: Head = GENESIS) -> Engine:
    return Engine(head, period_ms=PERIOD_MS, validators=1, signer=0)


def at(ms: int) -> Now:
    """Both clocks `ms` after the genesis block."""
    return Now(ms, Ms(GENESIS.timestamp_ms + ms))


def make_block(build: Build) -> Head:
    height = Height(build.parent.height + 1)
    return Head(height, build.epoch, build.view, Hash(bytes([height % 256]) * 32), build.timestamp_ms)


def finish(engine: Engine, build: Build, now: Now) -> Head:
    """Carries one block from its build to the disk."""
    block = make_block(build)
    (sign,) = engine.step(BlockBuilt(block), now)
    assert isinstance(sign, Sign)
    (finalize,) = engine.step(VoteSigned(sign.statement, b"s" * 64), now)
    assert isinstance(finalize, Finalize)
    assert finalize.block_hash == block.block_hash
    assert engine.step(BlockFinal(block), now) == []
    return block


def tick(engine: Engine, now: Now) -> Build:
    (build,) = engine.step(Tick(), now)
    assert isinstance(build, Build)
    return build


def test_a_block_is_built_one_period_after_its_parent_and_not_before() -> None:
    engine = make_engine()

    assert engine.step(Tick(), at(332)) == []
    assert engine.deadline_ms(at(332)) == 333

    assert tick(engine, at(333)) == Build(0, 1, GENESIS, Ms(GENESIS.timestamp_ms + 333))


def test_a_vote_names_the_view_its_parents_view_and_the_block() -> None:
    engine = make_engine()
    block = make_block(tick(engine, at(333)))

    (sign,) = engine.step(BlockBuilt(block), at(340))

    assert isinstance(sign, Sign)
    assert sign.statement == (Kind.FINALIZE, 0, 1, 0, block.block_hash)


def test_nothing_else_starts_while_a_block_is_under_way() -> None:
    engine = make_engine()
    tick(engine, at(333))

    assert engine.deadline_ms(at(5_000)) is None
    assert engine.step(Tick(), at(5_000)) == []


def test_events_that_do_not_belong_have_no_effect() -> None:
    engine = make_engine()
    stray = Head(Height(9), 0, 9, Hash(b"x" * 32), Ms(5))
    strays: list[Event] = [BlockBuilt(stray), BlockFinal(stray)]

    assert [engine.step(event, at(10)) for event in strays] == [[], []]
    finish(engine, tick(engine, at(333)), at(340))
    assert engine.step(BlockFinal(stray), at(341)) == []
    assert engine.deadline_ms(at(341)) == 666


def test_short_delays_are_made_up_so_the_mean_interval_is_the_period() -> None:
    engine = make_engine()
    now, last = 0, GENESIS
    for height in range(1, 301):
        due = engine.deadline_ms(at(now))
        assert due is not None
        now = due + (height * 7) % 90  # each slot is noticed late, by less than a period
        last = finish(engine, tick(engine, at(now)), at(now + 20))

    assert last.timestamp_ms == GENESIS.timestamp_ms + 300 * PERIOD_MS


def test_after_a_long_delay_the_chain_starts_again_from_the_clock() -> None:
    engine = make_engine()

    build = tick(engine, at(60_000))

    assert build.timestamp_ms == GENESIS.timestamp_ms + 60_000


def test_a_clock_set_back_does_not_stop_the_chain() -> None:
    engine = make_engine()
    block = finish(engine, tick(engine, at(333)), at(340))
    hour_back = Now(340 + 333, Ms(block.timestamp_ms - 3_600_000))

    assert tick(engine, hour_back).timestamp_ms == block.timestamp_ms + PERIOD_MS


def test_the_engine_of_one_refuses_a_larger_set() -> None:
    with pytest.raises(ValueError, match="4 validators need the votes of others"):
        Engine(GENESIS, period_ms=PERIOD_MS, validators=4, signer=0)
