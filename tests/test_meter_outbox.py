"""The gateway's outbox: what was taken survives a crash, a full disk and a second process."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from apps.meter.outbox import (
    Counts,
    Outbox,
    OutboxFailed,
    OutboxInUse,
    OutboxMismatch,
)
from ctt_state.units import Address, Hash
from tests.meter_world import HOME, ROOT, make_taken

FLAT: Final = Address(b"\x22" * 20)


def make_signed(nonce: int, first: int, last: int) -> tuple[int, Hash, bytes, int, int]:
    return nonce, Hash(bytes([nonce]) * 32), b"signed %d" % nonce, first, last


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox") as outbox:
        yield outbox


def test_readings_come_out_in_the_order_in_which_they_were_taken(outbox: Outbox) -> None:
    assert outbox.last(HOME) is None
    outbox.take([make_taken(1), make_taken(2, FLAT), make_taken(3)])

    assert [row.registers.import_wh for row in outbox.unsigned(2)] == [1, 2]
    assert outbox.last(HOME) == make_taken(3).registers and outbox.last(FLAT) == make_taken(2).registers
    assert outbox.counts() == Counts(taken=3, waiting=3, final=0, refused=0)


def test_what_was_signed_is_sent_again_as_the_same_bytes(outbox: Outbox, tmp_path: Path) -> None:
    outbox.take([make_taken(1), make_taken(2)])
    outbox.sign([make_signed(7, 1, 1), make_signed(8, 2, 2)])
    outbox.close()

    with Outbox(tmp_path / "outbox") as again:
        assert [(each.nonce, each.raw) for each in again.pending()] == [(7, b"signed 7"), (8, b"signed 8")]
        assert again.unsigned(9) == [] and again.next_nonce() == 9 and again.settled_nonce() == 0
        again.settle(again.pending()[0], 100, [])
        assert [each.nonce for each in again.pending()] == [8] and again.settled_nonce() == 8


def test_a_refused_reading_stays_with_its_reason_and_blocks_no_other(outbox: Outbox) -> None:
    outbox.take([make_taken(number) for number in (1, 2, 3)])
    outbox.sign([make_signed(0, 1, 1), make_signed(1, 2, 3)])
    alone, both = outbox.pending()
    outbox.settle(alone, 5, [(1, "ran backwards")])
    outbox.settle(both, 6, [(3, "not newer")])

    assert outbox.counts() == Counts(taken=3, waiting=0, final=1, refused=2)
    assert [(row.id, reason) for row, reason in outbox.refusals(9)] == [
        (3, "not newer"),
        (1, "ran backwards"),
    ]
    assert outbox.pending() == []


def test_what_another_transaction_displaced_is_signed_anew_at_once(outbox: Outbox) -> None:
    outbox.take([make_taken(number) for number in (1, 2)])
    outbox.sign([make_signed(0, 1, 2)])
    (lost,) = outbox.pending()
    outbox.displace(lost, [make_signed(1, 1, 1), make_signed(2, 2, 2)])

    assert [(each.nonce, each.first, each.last) for each in outbox.pending()] == [(1, 1, 1), (2, 2, 2)]
    assert outbox.counts().waiting == 2 and outbox.unsigned(9) == []
    assert [row.id for row in outbox.of(outbox.pending()[1])] == [2]


@pytest.mark.parametrize("table", ["bound", "readings", "transactions", "outcomes", "refusals"])
def test_no_row_is_ever_changed_or_removed(outbox: Outbox, tmp_path: Path, table: str) -> None:
    outbox.bind(chain="1")
    outbox.take([make_taken(1), make_taken(2)])
    outbox.sign([make_signed(0, 1, 1)])
    outbox.settle(outbox.pending()[0], 5, [(1, "no")])

    with sqlite3.connect(tmp_path / "outbox") as other:
        column = {"bound": "value", "outcomes": "block", "refusals": "reason"}.get(table, "id")
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                other.execute(statement)
    other.close()


def test_one_process_at_a_time(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(OutboxInUse, match="in use by another process"):
        Outbox(tmp_path / "outbox")
    outbox.close()
    Outbox(tmp_path / "outbox").close()


def test_only_its_owner_reads_it(outbox: Outbox, tmp_path: Path) -> None:
    outbox.take([make_taken(1)])
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("outbox*") if path.suffix != ".lock"} == {0}


def test_it_is_of_one_chain_and_one_key(outbox: Outbox) -> None:
    outbox.bind(chain="4242", meter="0x11")
    outbox.bind(chain="4242", meter="0x11")

    with pytest.raises(OutboxMismatch, match="was made for meter 0x11, not 0x22"):
        outbox.bind(chain="4242", meter="0x22")


def test_a_full_disk_takes_nothing_more_and_loses_nothing(outbox: Outbox, tmp_path: Path) -> None:
    """SQLite's own error for a disk that is full, which the file's greatest size brings about."""
    outbox.take([make_taken(1)])
    with sqlite3.connect(tmp_path / "outbox") as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    other.close()
    limit = outbox._database.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone()
    assert limit == (pages + 2,)

    taken = 1
    with pytest.raises(OutboxFailed, match="outbox: database or disk is full"):
        for number in range(2, 100):
            outbox.take([make_taken(number, raw=bytes(1_000)), make_taken(1_000 + number, raw=bytes(1_000))])
            taken += 2
    assert outbox.counts().taken == taken == len(outbox.unsigned(999))
    with pytest.raises(OutboxFailed):
        outbox.sign([(0, Hash(bytes(32)), bytes(9_000), 1, 1)])
    assert outbox.pending() == []

    outbox._database.execute(f"PRAGMA max_page_count = {pages + 100}")  # somebody made room
    outbox.take([make_taken(5_000)])
    assert outbox.counts().taken == taken + 1


def test_a_file_that_is_no_outbox_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_bytes(b"something else" * 100)
    with pytest.raises(OutboxFailed, match="outbox: file is not a database"):
        Outbox(tmp_path / "outbox")
    with pytest.raises(OutboxFailed, match="No such file or directory"):
        Outbox(tmp_path / "nowhere" / "outbox")


TAKER: Final = """
import sys
from pathlib import Path
from apps.meter.outbox import Outbox
from tests.meter_world import make_taken
outbox = Outbox(Path(sys.argv[1]))
number = outbox.counts().taken
while True:
    number += 1
    outbox.take([make_taken(number)])
    print(number, flush=True)
"""


def test_what_was_said_to_be_taken_survives_kill_9(tmp_path: Path) -> None:
    promised = 0
    for _ in range(2):
        taker = subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path / "outbox")], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert taker.stdout is not None
        for _ in range(25):
            promised = int(taker.stdout.readline())
        taker.kill()
        rest, _ = taker.communicate()
        promised = max([promised, *map(int, rest.split())])

        with Outbox(tmp_path / "outbox") as outbox:
            rows = [row.registers.import_wh for row in outbox.unsigned(10**6)]
        assert rows == list(range(1, len(rows) + 1)) and len(rows) in (promised, promised + 1)
