"""The restore guard (C-14): after a restore a validator votes only where its key cannot have voted."""

from dataclasses import replace

import pytest

from ctt_state.block import Block
from ctt_state.units import ZERO_HASH, Ms
from ctt_state.votes import Certificate, Kind, Statement, sign_vote
from node.consensus.engine import Engine
from node.consensus.events import (
    BlockArrived,
    BlockValidated,
    Cast,
    Effect,
    Halt,
    Head,
    KeepSilent,
    Now,
    Received,
    Restored,
    Status,
    Tick,
)
from node.consensus.guard import GUARD_VIEWS, watermark
from node.consensus.settings import Settings
from tests.consensus_world import GENESIS_HASH, PERIOD_MS, World, make_header, make_set

GUARD_MS = 60_000
EPOCH_BLOCKS = 900
START = Now(1_000, Ms(1_800_000_000_000))
ME = 0


class Restorer:
    """A validator that was restored at block 0; the test plays the others."""

    def __init__(self, size: int = 4, *, epoch_blocks: int = EPOCH_BLOCKS) -> None:
        self.members, self.secrets = make_set(size)
        self.now = START
        self.casts: list[Cast] = []
        genesis = make_header(None, members=self.members, epoch=0, view=0, timestamp_ms=0)
        self.engine = Engine(
            Settings(PERIOD_MS, guard_ms=GUARD_MS),
            genesis_hash=GENESIS_HASH,
            epoch_blocks=epoch_blocks,
            head=Head(genesis, genesis.hash),
            epoch=0,
            validators=self.members,
            consensus_key=self.members.keys[ME],
            restored=Restored((), (), ()),
            now=START,
        )

    def wait(self, milliseconds: int) -> list[Effect]:
        self.now = Now(self.now.mono_ms + milliseconds, Ms(self.now.wall_ms + milliseconds))
        return self.engine.step(Tick(), self.now)

    def hear_status(self, signer: int, view: int, epoch: int = 0) -> list[Effect]:
        status = Status(epoch, view, self.engine._unfinal.head.header.height, GENESIS_HASH, None)
        return self._hear(status, signer)

    def hear_nullified(self, view: int, *signers: int) -> list[Effect]:
        statement = Statement(Kind.NULLIFY, 0, view, 0, ZERO_HASH)
        votes = [sign_vote(statement, each, self.secrets[each], GENESIS_HASH) for each in signers]
        return self._hear(Certificate(statement, tuple((each.signer, each.signature) for each in votes)), 1)

    def hear_notarized(self, parent: Head, view: int, parent_view: int = 0) -> Block:
        """A block that a quorum notarized, and that is executed here. Votes for it are in `casts`."""
        header = make_header(parent, members=self.members, epoch=0, view=view, timestamp_ms=view * PERIOD_MS)
        statement = Statement(Kind.NOTARIZE, 0, view, parent_view, header.hash)
        votes = [sign_vote(statement, each, self.secrets[each], GENESIS_HASH) for each in (1, 2, 3)]
        certificate = Certificate(statement, tuple((each.signer, each.signature) for each in votes))
        effects = self._hear(certificate, 1)
        for event in (BlockArrived(Block(header, ())), BlockValidated(header.hash, None)):
            effects += self.engine.step(event, self.now)
        self.casts += [each for each in effects if isinstance(each, Cast)]
        return Block(header, ())

    def _hear(self, message: Status | Certificate, signer: int) -> list[Effect]:
        address = self.members.members[signer].address
        return self.engine.step(Received(message, signer, signer, address), self.now)


def marks_in(effects: list[Effect]) -> list[KeepSilent]:
    return [each for each in effects if isinstance(each, KeepSilent)]


def test_the_guard_ends_after_the_silence_when_a_quorum_of_others_is_heard() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        assert marks_in(node.hear_status(signer, view=1)) == []
    assert marks_in(node.wait(GUARD_MS - 1)) == []
    assert node.engine.keeps_silent
    assert marks_in(node.wait(1)) == [KeepSilent(0, 1 + GUARD_VIEWS)]
    assert node.engine.guard is None
    assert node.engine.silent_through == (0, 1 + GUARD_VIEWS)
    assert node.engine.keeps_silent


def test_it_wakes_by_itself_when_the_silence_ends() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        node.hear_status(signer, view=1)
    node.wait(GUARD_MS - 500)
    assert node.engine.deadline_ms == START.mono_ms + GUARD_MS


def test_fewer_than_a_quorum_of_others_end_nothing() -> None:
    """One of the two that were heard may lie."""
    node = Restorer()
    for signer in (1, 2):
        node.hear_status(signer, view=1)
    assert marks_in(node.wait(100 * GUARD_MS)) == []
    assert (node.engine.guard_heard, node.engine.guard_quorum) == (2, 3)
    assert marks_in(node.hear_status(3, view=1)) == [KeepSilent(0, 1 + GUARD_VIEWS)]


def test_who_is_further_is_not_heard_before_its_certificates_are() -> None:
    node = Restorer()
    for signer, view in ((1, 1), (2, 2), (3, 1)):
        node.hear_status(signer, view)
    assert marks_in(node.wait(GUARD_MS)) == []
    assert marks_in(node.hear_nullified(1, 1, 2, 3)) == [KeepSilent(0, 2 + GUARD_VIEWS)]


def test_nobody_can_push_the_watermark_by_words_alone() -> None:
    """Five of six others are a quorum: the sixth may say what it likes. Who says it twice is one."""
    node = Restorer(7)
    node.hear_status(6, view=10**9, epoch=10**6)
    for signer in (1, 2, 3, 4, 4):
        node.hear_status(signer, view=1)
    assert marks_in(node.wait(GUARD_MS)) == []
    assert marks_in(node.hear_status(5, view=1)) == [KeepSilent(0, 1 + GUARD_VIEWS)]


def test_an_own_vote_that_was_not_cast_here_begins_the_silence_anew() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        node.hear_status(signer, view=1)
    node.wait(GUARD_MS - 1)
    effects = node.hear_nullified(1, ME, 1, 2)
    assert not [each for each in effects if isinstance(each, Halt)]
    assert marks_in(node.wait(GUARD_MS - 1)) == []
    assert marks_in(node.wait(1)) == [KeepSilent(0, 2 + GUARD_VIEWS)]


def test_after_the_guard_such_a_vote_halts_above_the_watermark_only() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        node.hear_status(signer, view=1)
    node.wait(GUARD_MS)
    assert [each for each in node.hear_nullified(1, ME, 1, 2) if isinstance(each, Halt)] == []
    (halt,) = [each for each in node.hear_nullified(2 + GUARD_VIEWS, ME, 1, 2) if isinstance(each, Halt)]
    assert "another process votes with this validator's key" in halt.reason


def test_nothing_is_cast_before_the_watermark_and_all_after_it() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        node.hear_status(signer, view=1)
    casts = [*node.wait(GUARD_MS)]
    for view in range(1, GUARD_VIEWS + 2):
        casts += [*node.hear_nullified(view, 1, 2, 3), *node.wait(10_000)]
        named = [each for each in casts if type(each).__name__ in ("Cast", "Build")]
        assert bool(named) == (view == GUARD_VIEWS + 1), view


def test_no_view_up_to_the_watermark_is_finalized_later() -> None:
    node = Restorer()
    for signer in (1, 2, 3):
        node.hear_status(signer, view=1)
    node.wait(GUARD_MS)
    below = node.hear_notarized(node.engine._unfinal.head, GUARD_VIEWS + 1)
    assert node.engine.view == GUARD_VIEWS + 2
    above = node.hear_notarized(Head(below.header, below.header.hash), GUARD_VIEWS + 2, GUARD_VIEWS + 1)
    assert [each.statement.block_hash for each in node.casts] == [above.header.hash]


@pytest.mark.parametrize(
    ("view", "head_view", "blocks_left", "expected"),
    [
        (1, 0, 900, (7, 101)),
        (1, 0, 102, (7, 101)),
        (1, 0, 101, (8, 100)),  # the epoch could end at view 101
        (500, 10, 592, (7, 600)),
        (500, 10, 590, (8, 100)),
        (9, 8, 0, (8, 100)),  # its last block is final here, and the next epoch is about to begin
    ],
)
def test_the_watermark_goes_on_into_the_next_epoch_where_this_one_may_end(
    view: int, head_view: int, blocks_left: int, expected: tuple[int, int]
) -> None:
    found = watermark(epoch=7, view=view, head_view=head_view, blocks_left=blocks_left, is_alone=False)
    assert found == expected


def test_the_only_validator_goes_on_after_the_silence() -> None:
    node = Restorer(1)
    assert marks_in(node.wait(GUARD_MS - 1)) == []
    assert marks_in(node.wait(1)) == [KeepSilent(0, 0)]
    assert not node.engine.keeps_silent


def test_a_node_without_a_key_has_no_guard() -> None:
    world = World(4, followers=1)
    world.settings = replace(world.settings, guard_ms=GUARD_MS)
    world.restart(4)
    assert world.machines[4].engine.guard is None
    world.restart(0)
    assert world.machines[0].engine.guard is not None
