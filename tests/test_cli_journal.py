"""`ctt journal`: what it shows, what it moves from one machine to another, and what it will not begin."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.crypto import public_key
from ctt_state.genesis import development_key, load_genesis
from ctt_state.units import Hash, hex_of
from ctt_state.votes import Statement, Vote, sign_vote
from node.cli.init import initialise
from node.datadir import DirectoryLock
from node.journal import BelowFloor, Journal, Place, journal_path, read_journal
from tests.cli_world import Ctt
from tests.test_journal import certificate, finalize, make_block, notarize, nullify

SHIPPED: Final = (Path(__file__).parent.parent / "genesis.json").read_bytes()
GENESIS_HASH: Final = load_genesis(SHIPPED).hash
SECRET: Final = development_key(0)
KEY: Final = public_key(SECRET)
START: Final = (0, 0, 0)


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "journal")


def make_directory(path: Path) -> Path:
    """A node's, without a journal."""
    initialise(path, SHIPPED, SECRET)
    journal_path(path).unlink(missing_ok=True)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_directory(tmp_path / "node")


@pytest.fixture
def voted(directory: Path) -> Path:
    """A node's directory whose key voted in views 1 to 5, of which 3 are final."""
    Journal.create(directory, GENESIS_HASH, KEY)
    journal = open_journal(directory)
    for view in range(1, 5):
        journal.cast(notarize(view), [certificate(notarize(view - 1))], make_block(view), sign)
    journal.cast(finalize(4), [certificate(notarize(4))], None, sign)
    journal.cast(nullify(5), [], None, sign)
    journal.advance(0, 3, 3)
    journal.note_clean()
    journal.close()
    return directory


def open_journal(directory: Path, final: tuple[int, int, int] = START) -> Journal:
    return Journal.open(directory, GENESIS_HASH, KEY, final)


def sign(statement: Statement) -> Vote:
    return sign_vote(statement, 0, SECRET, GENESIS_HASH)


def never_before(directory: Path, place: Place) -> bool:
    """Whether the key votes above this place, and nowhere at or below it."""
    journal = open_journal(directory)
    try:
        with pytest.raises(BelowFloor):
            journal.cast(finalize(place.view, place.epoch), [], None, sign)
        return bool(journal.cast(finalize(place.view + 1, place.epoch), [], None, sign))
    finally:
        journal.close()


# --- show -------------------------------------------------------------------------------------------------------


def test_show_tells_an_operator_where_the_key_stands(ctt: Ctt, voted: Path) -> None:
    shown = ctt("show", "--dir", voted)

    block_hash = hex_of(make_block(4).header.hash)
    assert shown.code == 0
    assert re.sub(r"[\d,]+ bytes", "N bytes", shown.out) == (
        f"journal          {voted}/votes/journal, N bytes, 8 steps\n"
        f"genesis          {hex_of(GENESIS_HASH)}\n"
        f"consensus key    {hex_of(KEY)}\n"
        "floor            epoch 0, view 3, block 3\n"
        "last NOTARIZE    epoch 0, view 4\n"
        "last NULLIFY     epoch 0, view 5\n"
        "last FINALIZE    epoch 0, view 4\n"
        "above the floor  1 certificates, 1 blocks, votes:\n"
        f"                 NOTARIZE of epoch 0, view 4, parent view 3, block {block_hash}\n"
        f"                 FINALIZE of epoch 0, view 4, parent view 3, block {block_hash}\n"
        "                 NULLIFY of epoch 0, view 5\n"
        "stopped cleanly  yes\n"
    )


def test_show_tells_programs_the_same(ctt: Ctt, voted: Path) -> None:
    shown = json.loads(ctt("show", "--dir", voted, "--json").out)

    size = journal_path(voted).stat().st_size
    votes = shown.pop("votes")
    assert shown == {
        "path": f"{voted}/votes/journal",
        "genesisHash": hex_of(GENESIS_HASH),
        "consensusKey": hex_of(KEY),
        "marks": {
            "floor": {"epoch": 0, "view": 3},
            "notarize": {"epoch": 0, "view": 4},
            "nullify": {"epoch": 0, "view": 5},
            "finalize": {"epoch": 0, "view": 4},
        },
        "finalHeight": 3,
        "certificates": 1,
        "blocks": 1,
        "steps": 8,
        "bytes": size,
        "tornBytes": 0,
        "stoppedCleanly": True,
    }
    assert [(vote["kind"], vote["view"]) for vote in votes] == [
        ("NOTARIZE", 4),
        ("FINALIZE", 4),
        ("NULLIFY", 5),
    ]


def test_show_works_beside_a_node_and_changes_nothing(ctt: Ctt, voted: Path) -> None:
    with journal_path(voted).open("ab") as file:
        file.write(b"begun")
    before = journal_path(voted).read_bytes()
    lock = DirectoryLock.acquire(voted / "votes")

    shown = ctt("show", "--dir", voted)

    lock.release()
    assert shown.code == 0
    assert "last step        5 bytes of it: it is being written, or a crash cut it short\n" in shown.out
    assert shown.out.endswith("stopped cleanly  no, or a node is running\n")
    assert journal_path(voted).read_bytes() == before


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_missing_journal_is_told_with_the_way_out(ctt: Ctt, directory: Path, command: str) -> None:
    refused = ctt(command, "--dir", directory)

    assert refused.code == 65
    assert refused.err.startswith(
        f"ctt: vote journal {directory}/votes/journal is missing; voting without it could"
    )


# --- export and import ------------------------------------------------------------------------------------------


@pytest.fixture
def marks(ctt: Ctt, voted: Path, tmp_path: Path) -> Path:
    """The marks of that key, in a file."""
    exported = ctt("export", "--dir", voted)
    assert exported.code == 0
    path = tmp_path / "marks.json"
    path.write_text(exported.out)
    return path


def test_a_key_that_moves_to_another_machine_never_votes_where_it_has_voted(
    ctt: Ctt, marks: Path, tmp_path: Path
) -> None:
    other = make_directory(tmp_path / "other")

    done = ctt("import", "--dir", other, marks)

    assert done == (0, f"{other}/votes/journal: ready; this key votes from epoch 0, view 6 on\n", "")
    assert never_before(other, Place(0, 5))


def test_marks_raise_those_of_a_journal_that_is_there(ctt: Ctt, marks: Path, tmp_path: Path) -> None:
    other = make_directory(tmp_path / "other")
    assert ctt("init", "--dir", other, "--i-am-sure").code == 0
    journal = open_journal(other)
    journal.cast(nullify(9), [], None, sign)
    journal.close()

    assert ctt("import", "--dir", other, marks).code == 0
    assert ctt("import", "--dir", other, marks).code == 0  # twice is once

    assert read_journal(other).marks.nullify == Place(0, 9)
    assert never_before(other, Place(0, 5))


def test_marks_never_lower_what_is_there(ctt: Ctt, marks: Path, tmp_path: Path) -> None:
    other = make_directory(tmp_path / "other")
    assert ctt("init", "--dir", other, "--first-epoch", 7).code == 0
    before = read_journal(other).marks

    assert ctt("import", "--dir", other, marks).out.endswith("this key votes from epoch 7, view 1 on\n")

    assert read_journal(other).marks == before


def test_a_journal_is_carried_over_to_an_older_database(ctt: Ctt, marks: Path, voted: Path) -> None:
    """That of the directory ends at block 0, and the journal at 3. The node catches up and votes above what it cast."""
    refused = ctt("import", "--dir", voted, marks)
    assert refused.code == 65
    assert "but the database ends at 0: the database is an older copy" in refused.err
    journal_path(voted).rename(voted / "aside")

    assert ctt("import", "--dir", voted, marks).code == 0

    assert never_before(voted, Place(0, 5))


def test_export_waits_for_no_running_node(ctt: Ctt, voted: Path) -> None:
    """Its next vote would not be in the marks."""
    lock = DirectoryLock.acquire(voted / "votes")

    refused = ctt("export", "--dir", voted)

    lock.release()
    assert (refused.code, refused.out) == (69, "")
    assert "another node (pid" in refused.err


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("genesisHash", hex_of(bytes(32)), "genesisHash is 0x0000"),
        ("consensusKey", hex_of(bytes(33)), "consensusKey is 0x0000"),
        ("consensusKey", 5, "consensusKey is 5, that of "),
        ("format", "ctt-journal-2", "$.format is 'ctt-journal-2', this release reads 'ctt-journal-1'"),
        ("more", 1, "$ has not the members format, genesisHash, consensusKey, marks"),
        ("marks", [], "$.marks has not the members floor, notarize, nullify, finalize"),
    ],
)
def test_others_marks_are_refused(
    ctt: Ctt, marks: Path, voted: Path, member: str, value: object, words: str
) -> None:
    marks.write_text(json.dumps(json.loads(marks.read_text()) | {member: value}))
    before = journal_path(voted).read_bytes()

    refused = ctt("import", "--dir", voted, marks)

    assert refused.code == 65
    assert refused.err.startswith(f"ctt: {marks}: ")
    assert words in refused.err
    assert journal_path(voted).read_bytes() == before


@pytest.mark.parametrize("number", [-1, 2**64, 1.0, True, None, "1"])
def test_a_mark_that_is_no_place_is_refused(ctt: Ctt, marks: Path, directory: Path, number: Any) -> None:
    exported = json.loads(marks.read_text())
    exported["marks"]["nullify"]["view"] = number
    marks.write_text(json.dumps(exported))

    refused = ctt("import", "--dir", directory, marks)

    assert (refused.code, refused.out) == (65, "")
    assert refused.err == f"ctt: {marks}: no exported marks: $.marks.nullify.view is no 64-bit number\n"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b"[" * 5_000, b" " * 70_000, b"null"])
def test_a_file_of_something_else_is_refused(
    ctt: Ctt, directory: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "marks.json"
    path.write_bytes(content)

    refused = ctt("import", "--dir", directory, path)

    assert refused.code == 65
    assert refused.err.startswith(f"ctt: {path}: no exported marks: ")


def test_a_file_that_is_not_there_is_refused(ctt: Ctt, directory: Path, tmp_path: Path) -> None:
    assert ctt("import", "--dir", directory, tmp_path / "none") == (
        66,
        "",
        f"ctt: {tmp_path}/none: no such file\n",
    )
    assert ctt("import", "--dir", directory, tmp_path) == (
        77,
        "",
        f"ctt: {tmp_path}: cannot read the marks: Is a directory\n",
    )


# --- init -------------------------------------------------------------------------------------------------------


def test_a_key_that_never_voted_may_begin_at_once(ctt: Ctt, directory: Path) -> None:
    begun = ctt("init", "--dir", directory, "--i-am-sure")

    assert begun == (0, f"{directory}/votes/journal: ready; this key votes from epoch 0, view 1 on\n", "")
    journal = open_journal(directory)
    assert journal.cast(notarize(1), [], None, sign) == sign(notarize(1))
    journal.close()


def test_a_key_whose_journal_is_lost_waits_for_an_epoch_that_has_not_begun(ctt: Ctt, directory: Path) -> None:
    begun = ctt("init", "--dir", directory, "--first-epoch", 4)

    assert begun == (0, f"{directory}/votes/journal: ready; this key votes from epoch 4, view 1 on\n", "")
    journal = open_journal(directory)
    with pytest.raises(BelowFloor):
        journal.cast(nullify(1_000_000, epoch=3), [], None, sign)
    assert journal.cast(nullify(1, epoch=4), [], None, sign) == sign(nullify(1, epoch=4))
    journal.close()


def test_an_epoch_that_the_key_may_have_seen_is_refused(ctt: Ctt, directory: Path) -> None:
    refused = ctt("init", "--dir", directory, "--first-epoch", 1)

    assert refused.code == 64
    assert (
        "the database ends in epoch 0, so the key may have voted in epoch 1: --first-epoch 2 at least"
        in refused.err
    )
    assert not journal_path(directory).exists()


@pytest.mark.parametrize("flags", [[], ["--i-am-sure", "--first-epoch", "4"]])
def test_init_asks_what_is_known_of_the_key(ctt: Ctt, directory: Path, flags: list[str]) -> None:
    refused = ctt("init", "--dir", directory, *flags)

    assert refused.code == 64
    assert "--i-am-sure, if the key has never voted on any machine; --first-epoch N" in refused.err
    assert not journal_path(directory).exists()


@pytest.mark.parametrize("flags", [["--i-am-sure"], ["--first-epoch", "9"]])
def test_init_never_overwrites_a_journal(ctt: Ctt, voted: Path, flags: list[str]) -> None:
    before = journal_path(voted).read_bytes()

    refused = ctt("init", "--dir", voted, *flags)

    assert (refused.code, refused.out) == (73, "")
    assert "exists already; a vote journal is never overwritten" in refused.err
    assert journal_path(voted).read_bytes() == before


def test_nothing_is_begun_without_a_database_or_beside_a_node(
    ctt: Ctt, directory: Path, tmp_path: Path
) -> None:
    assert ctt("init", "--dir", tmp_path / "nowhere", "--i-am-sure").code == 66
    lock = DirectoryLock.acquire(directory)

    refused = ctt("init", "--dir", directory, "--i-am-sure")

    lock.release()
    assert refused.code == 69
    assert not journal_path(directory).exists()


def test_init_makes_the_journal_of_this_chain_and_key(ctt: Ctt, directory: Path) -> None:
    ctt("init", "--dir", directory, "--i-am-sure")

    contents = read_journal(directory)
    assert (contents.genesis_hash, contents.public_key) == (Hash(GENESIS_HASH), KEY)
