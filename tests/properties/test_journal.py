"""The vote journal through crashes: no vote that was shown is ever lost, and none contradicts another.

The disk is one that forgets: what was not synced when the power goes may be cut anywhere, filled with zeros, and a name
that was not synced may be the old one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ctt_state.block import Block
from ctt_state.units import ZERO_HASH, Hash
from ctt_state.votes import Certificate, Kind, Statement, Vote
from node.datadir import StorageDamaged
from node.journal import BelowFloor, DoubleSign, Journal, Place, place_of, read_journal
from tests.consensus_world import GENESIS_HASH
from tests.test_journal import KEY, certificate, file_of, make_block, nullify, open_journal, sign

VIEWS: Final = 6
EPOCHS: Final = 3
REWRITE_BYTES: Final = 2_500
ELSE: Final = Hash(b"else".ljust(32, b"."))


class PowerCut(Exception):
    """The machine is off."""


class ForgetfulDisk:
    """Stands before the calls that make things durable, and remembers what is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = os.fdatasync, os.fsync, os.rename
        self.calls_left: int | None = None  # until the power goes
        self.replaced = b""  # the file that had the name before, until the name is synced
        self.synced_bytes: dict[int, int] = {}

    @contextmanager
    def inserted(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fdatasync", self._sync)
            patch.setattr(os, "fsync", self._sync)
            patch.setattr(os, "rename", self._rename)
            yield

    def cut_power(self, kept: float, zeros: int, *, keeps_old_name: bool) -> None:
        """What is left of the journal: at least what was synced of it."""
        self.calls_left = None
        content, synced = self._path.read_bytes(), self.synced_bytes[self._path.stat().st_ino]
        if self.replaced and keeps_old_name:
            content, synced = self.replaced, len(self.replaced)
        cut = synced + int(kept * (len(content) - synced))
        if cut < len(content):
            content = content[:cut] + bytes(min(zeros, len(content) - cut))
        self.replaced = b""
        self._path.write_bytes(content)
        self.synced_bytes[self._path.stat().st_ino] = len(content)

    def _count(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise PowerCut

    def _sync(self, descriptor: int) -> None:
        self._count()
        status = os.fstat(descriptor)
        self.synced_bytes[status.st_ino] = status.st_size
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(self._path.parent):
            self.replaced = b""

    def _rename(self, old: Path, new: Path) -> None:
        self._count()
        if new.exists():
            self.replaced = new.read_bytes()
        self._calls[2](old, new)


def height_of(epoch: int, view: int) -> int:
    return 100 * epoch + view


def block_of(statement: Statement) -> Block:
    epoch, view = place_of(statement)
    return make_block(view, epoch, height=height_of(epoch, view))


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Few places and few blocks, so that many collide."""
    kind = draw(st.sampled_from(Kind))
    epoch, view = draw(st.integers(0, EPOCHS - 1)), draw(st.integers(1, VIEWS))
    if kind is Kind.NULLIFY:
        return nullify(view, epoch)
    statement = Statement(kind, epoch, view, draw(st.sampled_from((0, view - 1))), ZERO_HASH)
    block_hash = draw(st.sampled_from((block_of(statement).header.hash, ELSE)))
    return statement._replace(block_hash=block_hash)


def may_not_stand_together(a: Statement, b: Statement) -> bool:
    """The rules in as many words as they have."""
    if place_of(a) != place_of(b) or a == b:
        return False
    if Kind.NULLIFY in (a.kind, b.kind):
        return Kind.FINALIZE in (a.kind, b.kind)
    return (a.parent_view, a.block_hash) != (b.parent_view, b.block_hash)


class JournalMachine(RuleBasedStateMachine):
    """The journal beside a list of all that it ever cast."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.disk = ForgetfulDisk(file_of(self.directory))
        self.guard = self.disk.inserted()
        self.guard.__enter__()
        self.final = (0, 0, 0)  # of the database
        self.cast: list[Statement] = []
        self.cast_when_stopped: list[Statement] | None = None
        self.relied_on: dict[Statement, Certificate] = {}
        self.blocks: dict[Hash, Block] = {}
        Journal.create(self.directory, GENESIS_HASH, KEY)
        self.journal = self.open()

    def teardown(self) -> None:
        self.journal.close()
        self.guard.__exit__(None, None, None)
        shutil.rmtree(self.directory)

    def open(self) -> Journal:
        journal = open_journal(self.directory, self.final, rewrite_bytes=REWRITE_BYTES)
        path = file_of(self.directory)
        assert self.disk.synced_bytes[path.stat().st_ino] == path.stat().st_size
        assert not self.disk.replaced
        return journal

    # --- what the journal should do ---

    def floor(self) -> Place:
        return Place(*self.final[:2])

    def expected_refusal(self, statement: Statement) -> type[DoubleSign] | None:
        place = place_of(statement)
        if place <= self.floor():
            return BelowFloor
        if statement in self.cast:
            return None
        for earlier in self.cast:
            if may_not_stand_together(earlier, statement):
                return DoubleSign
            if earlier.kind is statement.kind is not Kind.FINALIZE and place_of(earlier) >= place:
                return DoubleSign
        return None

    def ask(self, statement: Statement, relied: list[Statement]) -> Vote:
        reliance = [certificate(each) for each in relied]
        return self.journal.cast(statement, reliance, self.block_for(statement), sign)

    def block_for(self, statement: Statement) -> Block | None:
        is_ours = statement.kind is Kind.NOTARIZE and statement.block_hash != ELSE
        return block_of(statement) if is_ours else None

    def note(self, statement: Statement, relied: list[Statement]) -> None:
        if statement in self.cast:
            return
        self.cast.append(statement)
        self.relied_on |= {each: certificate(each) for each in relied if place_of(each) > self.floor()}
        block = self.block_for(statement)
        if block is not None:
            self.blocks[block.header.hash] = block

    # --- what may happen ---

    @rule(statement=statements(), relied=st.lists(statements(), max_size=3))
    def vote(self, statement: Statement, relied: list[Statement]) -> None:
        refusal = self.expected_refusal(statement)
        if refusal is None:
            assert self.ask(statement, relied) == sign(statement)
            self.note(statement, relied)
            return
        with pytest.raises(DoubleSign) as refused:
            self.ask(statement, relied)
        assert refused.type is refusal

    @rule(steps=st.integers(1, 3))
    def vote_in_the_next_views(self, steps: int) -> None:
        """As an honest validator does; without this rule most examples get stuck."""
        for _ in range(steps):
            epoch, view = max([self.floor(), *map(place_of, self.cast)])
            epoch, view = (epoch + 1, 1) if view == VIEWS else (epoch, view + 1)
            statement = nullify(view, epoch)
            notarized = Statement(Kind.NOTARIZE, epoch, view, view - 1, block_of(statement).header.hash)
            for each in (notarized, notarized._replace(kind=Kind.FINALIZE)):
                assert self.ask(each, [notarized]) == sign(each)
                self.note(each, [notarized])

    @rule(
        statement=statements(),
        relied=st.lists(statements(), max_size=3),
        kept=st.floats(0, 1),
        zeros=st.sampled_from((0, 1, 10_000)),
    )
    def vote_while_the_power_goes(
        self, statement: Statement, relied: list[Statement], kept: float, zeros: int
    ) -> None:
        """The vote was not shown; it may be there afterwards, with all that it relied on, or not at all."""
        self.disk.calls_left = 0
        with suppress(PowerCut, DoubleSign):
            self.ask(statement, relied)
        self.start_after_power_cut(kept, zeros, keeps_old_name=False)
        if statement in [vote.statement for vote in self.journal.restored().votes]:
            self.note(statement, relied)

    @rule(
        views=st.integers(0, 2),
        calls=st.integers(0, 4),
        kept=st.floats(0, 1),
        keeps_old_name=st.booleans(),
    )
    def become_final_while_the_power_goes(
        self, views: int, calls: int, kept: float, *, keeps_old_name: bool
    ) -> None:
        self.disk.calls_left = calls
        with suppress(PowerCut):
            self.become_final(views)
        self.start_after_power_cut(kept, 0, keeps_old_name=keeps_old_name)

    @rule(views=st.integers(0, 2))
    def become_final(self, views: int) -> None:
        epoch, view, _ = self.final
        epoch, view = (epoch + 1, 1) if view + views > VIEWS else (epoch, view + views)
        self.final = (epoch, view, height_of(epoch, view))
        self.journal.advance(*self.final)

    def start_after_power_cut(self, kept: float, zeros: int, *, keeps_old_name: bool) -> None:
        self.journal.close()
        self.disk.cut_power(kept, zeros, keeps_old_name=keeps_old_name)
        self.journal = self.open()
        assert not (self.journal.was_clean and self.cast_when_stopped != self.cast)

    @rule(calls=st.integers(0, 3))
    def start_after_a_kill(self, calls: int) -> None:
        """What was written stays, synced or not; the power goes while the next start works on it."""
        self.journal.close()
        self.disk.calls_left = calls
        with suppress(PowerCut):
            self.open().close()
        self.disk.cut_power(1.0, 0, keeps_old_name=False)
        self.journal = self.open()

    @rule()
    def start_after_a_clean_stop(self) -> None:
        self.journal.note_clean()
        self.cast_when_stopped = list(self.cast)
        self.journal.close()
        self.journal = self.open()
        assert self.journal.was_clean

    @rule(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def damage(self, at: float, bit: int) -> None:
        """A flipped bit anywhere in what was synced is found."""
        path = file_of(self.directory)
        whole = path.read_bytes()
        content = bytearray(whole)
        content[int(at * len(whole))] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(StorageDamaged):
            read_journal(self.directory)
        path.write_bytes(whole)

    # --- what always holds ---

    @invariant()
    def what_was_cast_above_the_floor_is_there_and_nothing_else(self) -> None:
        restored = self.journal.restored()
        held = [vote.statement for vote in restored.votes]
        assert sorted(held) == sorted(each for each in self.cast if place_of(each) > self.floor())
        assert all(vote == sign(vote.statement) for vote in restored.votes)
        relied_on = {each for each in self.relied_on if place_of(each) > self.floor()}
        assert {each.statement for each in restored.certificates} == relied_on
        blocks = {each for each in self.blocks.values() if each.header.height > self.final[2]}
        assert set(restored.blocks) == blocks

    @invariant()
    def no_two_votes_contradict_each_other(self) -> None:
        for a, b in combinations(self.cast, 2):
            assert not may_not_stand_together(a, b)

    @invariant()
    def the_marks_are_the_greatest(self) -> None:
        for kind in Kind:
            places = [place_of(each) for each in self.cast if each.kind is kind]
            assert self.journal.marks.of(kind) == max(places, default=Place(0, 0))

    @invariant()
    def its_own_votes_are_its_own(self) -> None:
        for statement in self.cast:
            assert self.journal.is_mine(sign(statement))


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
