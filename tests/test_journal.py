"""The vote journal: what it keeps, what a crash may do to it, what counts as damage, and what is never signed."""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from ctt_state.block import Block
from ctt_state.crypto import sha256
from ctt_state.units import ZERO_HASH, Hash, Height, hex_of
from ctt_state.votes import Certificate, Kind, Statement, Vote, sign_vote
from node import journal as journal_module
from node.consensus.events import NOTHING_RESTORED, Restored
from node.datadir import StorageDamaged, StorageExists, StorageFailed, StorageForbidden, StorageInUse
from node.exits import Failure
from node.journal import (
    BEHIND_BLOCKS_MAX,
    FLOOR_BLOCKS,
    NOWHERE,
    BelowFloor,
    DoubleSign,
    Journal,
    Marks,
    Place,
    is_guarded,
    lift_guard,
    raise_guard,
    read_journal,
    silent_through,
)
from tests.consensus_world import GENESIS_HASH, make_header, make_set

MEMBERS, SECRETS = make_set(4)
ME: Final = 1
KEY: Final = MEMBERS.members[ME].consensus_key
GENESIS: Final = make_header(None, members=MEMBERS, epoch=0, view=0, timestamp_ms=0)
START: Final = (0, 0, 0)
OTHER_HASH: Final = Hash(sha256(b"another chain"))


def make_block(view: int, epoch: int = 0, transactions: int = 2, height: int | None = None) -> Block:
    header = GENESIS._replace(height=Height(height or view), epoch=epoch, view=view)
    return Block(header, tuple(sha256(b"%d %d" % (view, index)) for index in range(transactions)))


def notarize(view: int, epoch: int = 0, block_hash: Hash | None = None) -> Statement:
    block_hash = make_block(view, epoch).header.hash if block_hash is None else block_hash
    return Statement(Kind.NOTARIZE, epoch, view, max(view - 1, 0), block_hash)


def nullify(view: int, epoch: int = 0) -> Statement:
    return Statement(Kind.NULLIFY, epoch, view, 0, ZERO_HASH)


def finalize(view: int, epoch: int = 0, block_hash: Hash | None = None) -> Statement:
    return notarize(view, epoch, block_hash)._replace(kind=Kind.FINALIZE)


def certificate(statement: Statement) -> Certificate:
    return Certificate(statement, tuple((signer, bytes([signer]) * 64) for signer in range(3)))


def sign(statement: Statement) -> Vote:
    return sign_vote(statement, ME, SECRETS[ME], GENESIS_HASH)


def refuse_to_sign(statement: Statement) -> Vote:
    raise AssertionError(f"{statement} is signed")


def cast(journal: Journal, statement: Statement, *reliance: Certificate, block: Block | None = None) -> Vote:
    return journal.cast(statement, reliance, block, sign)


def open_journal(directory: Path, final: tuple[int, int, int] = START, **options: int) -> Journal:
    return Journal.open(directory, GENESIS_HASH, KEY, final, **options)


def file_of(directory: Path) -> Path:
    return directory / "votes" / "journal"


def reopen(journal: Journal, directory: Path, final: tuple[int, int, int] = START) -> Journal:
    journal.close()
    return open_journal(directory, final)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with a new journal."""
    Journal.create(tmp_path, GENESIS_HASH, KEY)
    return tmp_path


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    journal = open_journal(directory)
    yield journal
    journal.close()


# --- what it keeps ----------------------------------------------------------------------------------------------


def test_a_new_journal_holds_nothing_and_is_private(directory: Path) -> None:
    journal = open_journal(directory)

    assert journal.restored() == NOTHING_RESTORED
    assert journal.marks == Marks()
    assert not journal.was_clean  # nobody knows whether the key is in use elsewhere
    assert stat.S_IMODE((directory / "votes").stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(directory).stat().st_mode) == 0o600
    journal.close()


def test_what_was_cast_is_there_after_a_restart(directory: Path) -> None:
    journal = open_journal(directory)
    votes = (
        cast(journal, notarize(1), block=make_block(1)),
        cast(journal, finalize(1), certificate(notarize(1))),
        cast(journal, nullify(2), certificate(notarize(1))),
    )

    journal = reopen(journal, directory)

    assert journal.restored() == Restored(votes, (certificate(notarize(1)),), (make_block(1),))
    assert journal.marks == Marks(
        NOWHERE, Height(0), notarize=Place(0, 1), nullify=Place(0, 2), finalize=Place(0, 1)
    )
    journal.close()


def test_a_vote_is_synced_before_it_is_returned(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, sync = os.write, os.fdatasync

    def write_and_tell(descriptor: int, content: bytes) -> int:
        calls.append("write")
        return write(descriptor, content)

    def sync_and_tell(descriptor: int) -> None:
        calls.append("sync")
        sync(descriptor)

    monkeypatch.setattr(os, "write", write_and_tell)
    monkeypatch.setattr(os, "fdatasync", sync_and_tell)

    cast(journal, notarize(3), certificate(nullify(1)), certificate(nullify(2)), block=make_block(3))

    assert calls == ["write", "sync"]


def test_what_the_journal_has_is_not_written_again(directory: Path, journal: Journal) -> None:
    cast(journal, notarize(2), certificate(nullify(1)), block=make_block(2))
    before = file_of(directory).stat().st_size

    cast(journal, nullify(2), certificate(nullify(1)), certificate(nullify(1)))

    assert file_of(directory).stat().st_size - before < 200  # a step with the vote alone


def test_the_same_statement_gives_the_same_vote_and_writes_nothing(directory: Path, journal: Journal) -> None:
    votes = [cast(journal, statement) for statement in (notarize(1), finalize(1), nullify(2))]
    size = file_of(directory).stat().st_size

    again = [journal.cast(vote.statement, (), None, refuse_to_sign) for vote in votes]

    assert again == votes
    assert file_of(directory).stat().st_size == size


def test_a_signer_that_signs_something_else_is_our_mistake(journal: Journal) -> None:
    with pytest.raises(AssertionError, match="asked to sign"):
        journal.cast(notarize(1), (), None, lambda statement: sign(nullify(1)))

    assert journal.restored() == NOTHING_RESTORED


# --- the sign-once guard ----------------------------------------------------------------------------------------

ELSE: Final = Hash(sha256(b"another block"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([notarize(5)], notarize(5, block_hash=ELSE)),
        ([notarize(5)], notarize(5)._replace(parent_view=3)),
        ([finalize(5)], nullify(5)),
        ([nullify(5)], finalize(5)),
        ([notarize(5), nullify(5)], finalize(5)),
        ([notarize(5)], finalize(5, block_hash=ELSE)),
        ([notarize(5)], finalize(5)._replace(parent_view=3)),
        ([finalize(5)], finalize(5, block_hash=ELSE)),
        ([finalize(5)], notarize(5, block_hash=ELSE)),
        ([notarize(5)], notarize(4)),
        ([nullify(5)], nullify(4)),
        ([notarize(1, epoch=1)], notarize(9)),
        ([nullify(1, epoch=1)], nullify(9)),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_a_vote_that_contradicts_an_earlier_one_is_never_signed(
    directory: Path, before: list[Statement], after: Statement, *, restarts: bool
) -> None:
    journal = open_journal(directory)
    for statement in before:
        cast(journal, statement)
    if restarts:
        journal = reopen(journal, directory)
    content = file_of(directory).read_bytes()

    with pytest.raises(DoubleSign, match=f"refused to sign {after.kind.name} of epoch 0") as refusal:
        journal.cast(after, (), None, refuse_to_sign)

    assert refusal.value.exit_code == 70
    assert not isinstance(refusal.value, BelowFloor)
    assert file_of(directory).read_bytes() == content
    journal.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([notarize(5)], nullify(5)),
        ([nullify(5)], notarize(5)),
        ([notarize(5)], finalize(5)),
        ([], finalize(5)),
        ([finalize(5)], finalize(4)),
        ([notarize(6), nullify(6)], finalize(5)),
        ([finalize(5)], notarize(5)),
        ([notarize(9), nullify(9)], notarize(1, epoch=1)),
    ],
)
def test_a_vote_that_contradicts_nothing_is_signed(
    journal: Journal, before: list[Statement], after: Statement
) -> None:
    for statement in before:
        cast(journal, statement)

    assert cast(journal, after) == sign(after)


def test_the_refusal_names_both_votes(journal: Journal) -> None:
    cast(journal, nullify(5))

    with pytest.raises(DoubleSign) as refusal:
        cast(journal, finalize(5, block_hash=ELSE))

    assert str(refusal.value) == (
        f"refused to sign FINALIZE of epoch 0, view 5, parent view 4, block {hex_of(ELSE)}: "
        "this key has signed NULLIFY of epoch 0, view 5 in that view"
    )


@pytest.mark.parametrize("statement", [notarize(7), nullify(7), finalize(7), finalize(6), nullify(3)])
def test_nothing_is_signed_at_or_below_the_floor(journal: Journal, statement: Statement) -> None:
    journal.advance(0, 7, 7)

    with pytest.raises(BelowFloor, match="the floor is epoch 0, view 7") as refusal:
        journal.cast(statement, (), None, refuse_to_sign)

    assert refusal.value.exit_code == 70


def test_a_vote_elsewhere_with_our_key_is_told_from_ours(directory: Path) -> None:
    journal = open_journal(directory)
    cast(journal, notarize(5))
    journal = reopen(journal, directory)

    assert journal.is_mine(sign(notarize(5)))
    assert not journal.is_mine(sign(notarize(5, block_hash=ELSE)))
    assert not journal.is_mine(sign(nullify(5)))
    assert not journal.is_mine(sign(notarize(6)))

    journal.advance(0, 6, 6)  # nobody knows what was cast below, but that it was no FINALIZE
    assert journal.is_mine(sign(notarize(5, block_hash=ELSE)))
    assert not journal.is_mine(sign(notarize(6)))
    assert not journal.is_mine(sign(finalize(5)))
    journal.close()


# --- the floor --------------------------------------------------------------------------------------------------


def test_what_is_final_is_forgotten_and_the_rest_is_kept(directory: Path) -> None:
    journal = open_journal(directory)
    for view in (1, 2, 3):
        cast(journal, notarize(view), certificate(notarize(view - 1)), block=make_block(view))
    kept = Restored((sign(notarize(3)),), (), (make_block(3),), (0, 2))

    journal.advance(0, 2, 2)
    assert journal.restored() == kept

    journal = reopen(journal, directory)  # the floor is not on the disk
    assert len(journal.restored().votes) == 3
    journal = reopen(journal, directory, (0, 2, 2))  # but the database is
    assert journal.restored() == kept
    journal.close()


def test_the_floor_goes_to_the_disk_with_the_next_vote(directory: Path) -> None:
    journal = open_journal(directory)
    journal.advance(0, 2, 2)
    assert read_journal(directory).marks.floor == NOWHERE

    cast(journal, notarize(3))

    assert read_journal(directory).marks == Marks(Place(0, 2), Height(2), notarize=Place(0, 3))
    journal.close()


def test_the_floor_goes_to_the_disk_without_a_vote_after_64_blocks(directory: Path, journal: Journal) -> None:
    for height in range(1, FLOOR_BLOCKS):
        journal.advance(0, height, height)
    assert read_journal(directory).marks.height == 0

    journal.advance(0, FLOOR_BLOCKS, FLOOR_BLOCKS)

    assert read_journal(directory).marks.height == FLOOR_BLOCKS


def test_the_floor_never_moves_back(journal: Journal) -> None:
    journal.advance(1, 3, 903)

    journal.advance(0, 899, 899)

    assert journal.marks == Marks(Place(1, 3), Height(903))


def test_certificates_and_blocks_at_or_below_the_floor_are_not_written(journal: Journal) -> None:
    journal.advance(0, 2, 2)

    cast(journal, notarize(3), certificate(finalize(2)), certificate(nullify(2)), block=make_block(2))

    assert journal.restored() == Restored((sign(notarize(3)),), (), (), (0, 2))


def test_a_large_journal_is_rewritten_with_its_marks(directory: Path) -> None:
    journal = open_journal(directory, rewrite_bytes=20_000)
    sizes = []
    for view in range(1, 200):
        if view % 7:
            cast(
                journal,
                notarize(view),
                certificate(notarize(view - 1)),
                block=make_block(view, transactions=20),
            )
        else:
            cast(journal, nullify(view), certificate(notarize(view - 1)))
        journal.advance(0, view - 1, view - 1)
        sizes.append(file_of(directory).stat().st_size)
    before = journal.restored(), journal.marks
    journal = reopen(journal, directory, (0, 198, 198))

    assert max(sizes) < 23_000
    assert sum(now < last for last, now in pairwise(sizes)) > 5
    assert (journal.restored(), journal.marks) == before
    assert journal.marks == Marks(Place(0, 198), Height(198), Place(0, 199), Place(0, 196))
    assert read_journal(directory).steps > 199  # counted on
    assert sorted(os.listdir(directory / "votes")) == ["journal", "node.lock"]
    with pytest.raises(DoubleSign):
        cast(journal, notarize(199, block_hash=ELSE))
    journal.close()


def test_a_journal_that_cannot_shrink_is_not_rewritten_each_time(directory: Path) -> None:
    """Blocks without finality pile up; then the file doubles before it is rewritten."""
    journal = open_journal(directory, rewrite_bytes=4_000)
    files = set()
    for view in range(10, 110):
        cast(journal, notarize(view), block=make_block(view))
        journal.advance(0, 1, 1)
        files.add(file_of(directory).stat().st_ino)

    assert 1 < len(files) < 8
    assert len(reopen(journal, directory, (0, 1, 1)).restored().blocks) == 100


# --- stopping ---------------------------------------------------------------------------------------------------


def test_a_clean_stop_is_known_at_the_next_start_only(directory: Path) -> None:
    journal = open_journal(directory)
    cast(journal, notarize(1))
    journal.note_clean()

    journal = reopen(journal, directory)
    assert journal.was_clean
    cast(journal, notarize(2))

    journal = reopen(journal, directory)
    assert not journal.was_clean
    journal.close()


def test_a_clean_stop_takes_the_floor_along(directory: Path, journal: Journal) -> None:
    journal.advance(0, 5, 5)

    journal.note_clean()

    assert read_journal(directory).marks.floor == Place(0, 5)
    assert read_journal(directory).is_clean


def test_a_start_that_wrote_nothing_leaves_the_last_stop_clean(directory: Path) -> None:
    journal = open_journal(directory)
    journal.note_clean()
    journal = reopen(journal, directory)

    journal = reopen(journal, directory)  # killed, say

    assert journal.was_clean
    journal.close()


def test_a_step_begun_after_a_clean_stop_shows_that_a_node_ran(directory: Path) -> None:
    journal = open_journal(directory)
    journal.note_clean()
    journal.close()
    with file_of(directory).open("ab") as file:
        file.write(b"begun")

    journal = open_journal(directory)

    assert not journal.was_clean
    journal.close()


def test_a_closed_journal_casts_nothing(directory: Path) -> None:
    journal = open_journal(directory)
    journal.close()
    journal.close()

    with pytest.raises(AssertionError, match="closed"):
        cast(journal, notarize(1))


def test_two_processes_cannot_hold_one_journal(directory: Path, journal: Journal) -> None:
    with pytest.raises(StorageInUse, match=rf"another node \(pid {os.getpid()}\) uses {directory}/votes"):
        open_journal(directory)

    assert read_journal(directory).marks == journal.marks  # reading is allowed


# --- crashes and damage -----------------------------------------------------------------------------------------


@pytest.fixture
def steps(directory: Path) -> list[int]:
    """The sizes of a journal's file after its creation, and after each of three votes, with the journal closed."""
    sizes = [file_of(directory).stat().st_size]
    journal = open_journal(directory)
    for view in (1, 2, 3):
        cast(journal, notarize(view), certificate(nullify(view)), block=make_block(view))
        sizes.append(file_of(directory).stat().st_size)
    journal.close()
    return sizes


def views_of(directory: Path) -> list[int]:
    journal = open_journal(directory)
    journal.close()
    return [vote.statement.view for vote in journal.restored().votes]


def test_a_last_step_cut_short_is_dropped(directory: Path, steps: list[int]) -> None:
    whole = file_of(directory).read_bytes()
    *_, before, end = steps
    for cut in range(before, end):
        content = whole[:cut] + bytes((0, end - cut, 5_000)[cut % 3])
        file_of(directory).write_bytes(content)
        journal = open_journal(directory)
        assert [vote.statement.view for vote in journal.restored().votes] == [1, 2]
        assert journal.torn_bytes == len(content) - before
        assert file_of(directory).read_bytes() == whole[:before]
        journal.close()
    journal = open_journal(directory)
    cast(journal, notarize(3))
    journal.close()
    assert views_of(directory) == [1, 2, 3]


def test_every_flipped_bit_is_refused_the_last_steps_too(directory: Path, steps: list[int]) -> None:
    whole = file_of(directory).read_bytes()
    for at in range(len(whole)):
        for bit in (at % 8, (at + 3) % 8):
            content = bytearray(whole)
            content[at] ^= 1 << bit
            file_of(directory).write_bytes(content)
            with pytest.raises(StorageDamaged, match="damaged|format"):
                open_journal(directory)
    file_of(directory).write_bytes(whole)
    assert views_of(directory) == [1, 2, 3]


def test_a_hole_before_the_end_is_refused(directory: Path, steps: list[int]) -> None:
    """A file system that writes the end of a step before its start is refused with what damage looks like."""
    whole = file_of(directory).read_bytes()
    for at in range(0, len(whole) - 16, 16):
        if not any(whole[at : at + 16]):
            continue
        file_of(directory).write_bytes(whole[:at] + bytes(16) + whole[at + 16 :])
        with pytest.raises(StorageDamaged, match="damaged"):
            open_journal(directory)


def test_a_missing_or_repeated_step_is_refused(directory: Path, steps: list[int]) -> None:
    whole = file_of(directory).read_bytes()
    made, first, second, _ = steps
    for content in (
        whole[:made] + whole[first:],
        whole[:second] + whole[first:],
        whole[:made] + whole[first:second] + whole[made:first] + whole[second:],
    ):
        file_of(directory).write_bytes(content)
        with pytest.raises(StorageDamaged, match=r"the step at byte [\d,]+ is damaged"):
            open_journal(directory)


def test_a_file_without_its_whole_first_step_is_refused(directory: Path, steps: list[int]) -> None:
    """It was synced before it had its name, so no crash shortens it."""
    whole = file_of(directory).read_bytes()
    for cut in range(steps[0]):
        for zeros in (0, 100):
            file_of(directory).write_bytes(whole[:cut] + bytes(zeros))
            with pytest.raises(StorageDamaged, match="damaged|not whole"):
                open_journal(directory)


def test_a_failed_write_leaves_a_journal_that_opens_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(directory)
    vote = cast(journal, notarize(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:50]))

    with pytest.raises(
        StorageFailed, match="journal failed: No space left on device; .*Last final block 0 is safe"
    ):
        cast(journal, notarize(2))

    monkeypatch.undo()
    journal = reopen(journal, directory)
    assert journal.restored().votes == (vote,)
    assert journal.torn_bytes == 50
    assert caplog.messages == [
        f"{file_of(directory)}: a crash cut the last step short; its 50 bytes are dropped"
    ]
    journal.close()


def test_after_a_failed_sync_the_journal_refuses_ever_after(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(directory)
    vote = cast(journal, notarize(1))

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageFailed, match="journal failed: Input/output error; .*do not restart on it"):
        cast(journal, notarize(2))
    monkeypatch.undo()

    refused: list[Callable[[], object]] = [
        lambda: cast(journal, notarize(3)),
        lambda: cast(journal, vote.statement),
        lambda: journal.advance(0, 1, 1),
        journal.note_clean,
    ]
    for action in refused:
        with pytest.raises(StorageFailed, match="Input/output error"):
            action()
    assert journal.restored().votes == (vote,)
    journal.close()


def test_a_failed_rewriting_keeps_the_old_file_and_refuses(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(directory, rewrite_bytes=1)
    vote = cast(journal, notarize(3))

    def fail(*paths: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageFailed, match="Read-only file system"):
        journal.advance(0, 1, 1)
    monkeypatch.undo()

    with pytest.raises(StorageFailed):
        cast(journal, notarize(4))
    assert reopen(journal, directory, (0, 1, 1)).restored().votes == (vote,)


def test_opening_syncs_what_a_kill_may_have_left_in_memory(
    directory: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a vote could be sent again that a power cut then takes back; the same for a new file's name."""
    synced = []
    sync = os.fsync

    def sync_and_tell(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_and_tell)

    open_journal(directory).close()

    assert synced == [str(file_of(directory)), str(directory / "votes")]


# --- refusals ---------------------------------------------------------------------------------------------------


def refusal_of(directory: Path, final: tuple[int, int, int] = START, **other: bytes) -> str:
    """All of them are of code 65."""
    with pytest.raises(StorageDamaged) as refusal:
        Journal.open(
            directory, Hash(other.get("genesis_hash", GENESIS_HASH)), other.get("public_key", KEY), final
        )
    assert refusal.value.exit_code == 65
    return str(refusal.value)


def remedy(directory: Path) -> str:
    return (
        f"To vote again from a later epoch on: ctt journal init --dir {directory} --first-epoch N "
        "(docs/OPERATIONS.md, The vote journal)"
    )


@pytest.mark.parametrize("has_directory", [True, False])
def test_a_missing_journal_is_refused_and_not_made(tmp_path: Path, *, has_directory: bool) -> None:
    if has_directory:
        (tmp_path / "votes").mkdir(0o700)

    assert refusal_of(tmp_path) == (
        f"vote journal {tmp_path}/votes/journal is missing; voting without it could contradict earlier votes. If this "
        f"key never voted: ctt journal init --dir {tmp_path} --i-am-sure. {remedy(tmp_path)}"
    )
    assert not file_of(tmp_path).exists()


def test_another_chains_journal_is_refused_with_both_genesis_hashes(directory: Path) -> None:
    assert refusal_of(directory, genesis_hash=OTHER_HASH) == (
        f"vote journal {file_of(directory)} belongs to genesis {hex_of(GENESIS_HASH)}, the database to "
        f"{hex_of(OTHER_HASH)}; put the journal of this chain in its place"
    )


def test_another_keys_journal_is_refused_with_both_keys(directory: Path) -> None:
    other = MEMBERS.members[0].consensus_key

    assert refusal_of(directory, public_key=other) == (
        f"vote journal {file_of(directory)} belongs to consensus key {hex_of(KEY)}, this node's is {hex_of(other)}; "
        "put the journal and the key of one validator in place"
    )


def carry_over(directory: Path) -> str:
    return (
        f"If it is the key's latest journal, carry its marks over: ctt journal export --dir {directory} > marks.json, "
        f"move it aside, ctt journal import --dir {directory} marks.json. If not, move it aside. {remedy(directory)}"
    )


def test_a_database_older_than_the_journal_is_refused(directory: Path) -> None:
    journal = open_journal(directory)
    journal.advance(0, 80, 80)
    journal.close()

    open_journal(directory, (0, 80, 80)).close()
    assert refusal_of(directory, (0, 79, 79)) == (
        f"vote journal {file_of(directory)}: block 80 was final when it was written, but the database ends at 79: the "
        f"database is an older copy. {carry_over(directory)}"
    )


def test_a_journal_older_than_the_database_is_refused(directory: Path) -> None:
    journal = open_journal(directory)
    cast(journal, notarize(1))
    journal.close()

    open_journal(directory, (1, 124, BEHIND_BLOCKS_MAX)).close()
    assert refusal_of(directory, (1, 125, BEHIND_BLOCKS_MAX + 1)) == (
        f"vote journal {file_of(directory)}: it ends at block 0, the database at 1,025: it is an older copy, or the "
        f"node ran without it. {carry_over(directory)}"
    )


def test_a_journal_that_nobody_has_used_may_stand_beside_any_database(directory: Path) -> None:
    """A new validator may begin with a snapshot."""
    journal = open_journal(directory, (100, 7, 90_007))

    assert cast(journal, notarize(8, epoch=100)) == sign(notarize(8, epoch=100))
    journal.close()
    open_journal(directory, (100, 8, 90_008)).close()


def test_a_damaged_journal_is_refused_with_the_way_out(directory: Path, steps: list[int]) -> None:
    content = bytearray(file_of(directory).read_bytes())
    content[steps[1] + 30] ^= 1
    file_of(directory).write_bytes(content)

    assert refusal_of(directory) == (
        f"vote journal {file_of(directory)}: the step at byte {steps[1]} is damaged; votes of this key may be missing "
        f"from it. Move it aside. {remedy(directory)}"
    )


def test_a_newer_format_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FORMAT", 0)

    assert "is written in format 1; this release reads 0" in refusal_of(directory)


def test_another_programs_file_is_refused(directory: Path) -> None:
    content = bytearray(file_of(directory).read_bytes())
    content[:8] = b"somebody"
    content[75:79] = zlib.crc32(content[:75]).to_bytes(4, "big")
    file_of(directory).write_bytes(content)

    assert "it is no vote journal" in refusal_of(directory)


@pytest.mark.parametrize(
    "record",
    [
        b"\x09\0\0\0\0",  # of no kind that we know
        b"\x01\0\0\0\x01\xff",  # no vote
        b"\x03\0\0\0\x01\x90",  # no block
        b"\x04\0\0\0\x01\x00",  # no marks
        b"\x05\0\0\0\x01",  # longer than its step
        b"\x05\0\0",
    ],
)
def test_a_record_that_cannot_be_read_is_refused(directory: Path, record: bytes) -> None:
    start = (2).to_bytes(8, "big") + len(record).to_bytes(4, "big")
    start += zlib.crc32(start).to_bytes(4, "big")
    step = start + record + zlib.crc32(start + record).to_bytes(4, "big") + b"done"
    with file_of(directory).open("ab") as file:
        file.write(step)

    assert "step 2 cannot be read: " in refusal_of(directory)


def test_links_pipes_and_directories_are_refused(directory: Path) -> None:
    path = file_of(directory)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    assert "it is a symbolic link" in refusal_of(directory)

    path.unlink()
    path.mkdir()
    with pytest.raises(Failure):
        open_journal(directory)

    path.rmdir()
    os.mkfifo(path)
    assert "it is no regular file" in refusal_of(directory)


def test_a_linked_directory_is_refused(directory: Path) -> None:
    (directory / "votes").rename(directory / "elsewhere")
    (directory / "votes").symlink_to(directory / "elsewhere")

    assert f"{directory}/votes is no directory" in refusal_of(directory)


@pytest.mark.parametrize("mode", [0o750, 0o707])
def test_a_directory_that_is_open_to_others_is_refused(directory: Path, mode: int) -> None:
    (directory / "votes").chmod(mode)

    with pytest.raises(
        StorageForbidden, match=rf"votes is open to others \({mode:04o}\); chmod 700"
    ) as refusal:
        open_journal(directory)

    assert refusal.value.exit_code == 77


def test_a_directory_of_another_user_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(StorageForbidden, match=r"votes belongs to user \d+, not to \d+"):
        open_journal(directory)


def test_a_failing_disk_is_named_when_opening(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, count: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)

    with pytest.raises(StorageFailed, match="opening .*journal failed: Input/output error"):
        open_journal(directory)
    with pytest.raises(StorageFailed, match="reading .*journal failed: Input/output error"):
        read_journal(directory)
    monkeypatch.undo()
    open_journal(directory).close()  # the lock is free


# --- making one -------------------------------------------------------------------------------------------------


def test_a_journal_is_never_overwritten(directory: Path) -> None:
    with pytest.raises(StorageExists, match="exists already; a vote journal is never overwritten"):
        Journal.create(directory, GENESIS_HASH, KEY)


def test_a_journal_is_not_made_where_one_is_in_use(directory: Path, journal: Journal) -> None:
    with pytest.raises(StorageInUse):
        Journal.create(directory, GENESIS_HASH, KEY)


def test_a_journal_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="creating .*votes failed: No such file or directory"):
        Journal.create(tmp_path / "nowhere", GENESIS_HASH, KEY)


def test_a_key_that_may_have_voted_stays_silent_up_to_its_mark(tmp_path: Path) -> None:
    Journal.create(tmp_path, GENESIS_HASH, KEY, silent_through(Place(3, 0))._replace(height=Height(900)))
    journal = open_journal(tmp_path, (1, 10, 910))

    for statement in (notarize(900, epoch=2), finalize(900, epoch=2), nullify(900, epoch=2)):
        with pytest.raises(BelowFloor):
            journal.cast(statement, (), None, refuse_to_sign)
        assert journal.is_mine(sign(statement))

    assert cast(journal, notarize(1, epoch=3)) == sign(notarize(1, epoch=3))
    assert not journal.is_mine(sign(nullify(1, epoch=3)))
    journal.close()


def test_raised_marks_bind_at_once_and_after_a_restart(directory: Path) -> None:
    journal = open_journal(directory)
    cast(journal, notarize(9))
    journal.raise_marks(Marks(Place(0, 5), Height(5), notarize=Place(0, 7), finalize=Place(0, 8)))

    for _ in range(2):
        assert journal.marks == Marks(Place(0, 8), Height(0), Place(0, 9), NOWHERE, Place(0, 8))
        with pytest.raises(BelowFloor):
            cast(journal, finalize(8))
        journal = reopen(journal, directory)
    assert journal.restored().votes == (sign(notarize(9)),)
    journal.close()


# --- after a restore --------------------------------------------------------------------------------------------


def test_below_a_silence_nothing_is_cast_and_all_that_votes_above_rely_on_is_kept(directory: Path) -> None:
    journal = open_journal(directory)
    raise_guard(directory)
    journal.keep_silent(Place(0, 5))
    assert not is_guarded(directory)
    for statement in (notarize(5), nullify(5), finalize(5), notarize(1)):
        with pytest.raises(BelowFloor):
            cast(journal, statement)
    vote = cast(journal, nullify(6), certificate(nullify(5)))

    for _ in range(2):
        journal = reopen(journal, directory)
        assert journal.restored() == Restored((vote,), (certificate(nullify(5)),), (), (0, 5))
        with pytest.raises(BelowFloor):
            cast(journal, finalize(5))
    journal.close()


def test_a_silence_survives_each_rewriting_and_ends_with_what_is_final(directory: Path) -> None:
    journal = open_journal(directory, rewrite_bytes=1)
    journal.keep_silent(Place(0, 5))
    journal.advance(0, 3, 3)
    journal = reopen(journal, directory, (0, 3, 3))
    assert read_journal(directory).silent_through == Place(0, 5)
    assert journal.restored().forgotten == (0, 5)
    journal.advance(0, 7, 7)
    assert journal.restored().forgotten == (0, 7)
    journal.close()


def test_the_guard_is_seen_until_it_is_lifted(directory: Path) -> None:
    assert not is_guarded(directory)
    raise_guard(directory)
    assert stat.S_IMODE((directory / "votes" / "restored").stat().st_mode) == 0o600
    open_journal(directory).close()
    assert is_guarded(directory)
    lift_guard(directory)
    lift_guard(directory)
    assert not is_guarded(directory)
