"""P3: no vote that was shown is lost by a power cut, a kill or a failing disk, whenever it comes.

One traced run of the real journal gives hundreds of disks; POWER_CUTS=1000 cuts at more instants, KILLS=500 kills more
often.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from ctt_state.units import Hash
from ctt_state.votes import Kind, Statement, Vote
from node.datadir import StorageDamaged
from node.exits import Failure
from node.journal import DoubleSign, Journal, Place, place_of
from tests.consensus_world import GENESIS_HASH
from tests.faults.disk_states import STRACE, Call, Cut, Disk, read_trace
from tests.test_journal import KEY, certificate, finalize, make_block, notarize, nullify, sign

PROJECT: Final = Path(__file__).parents[2]
INSTANTS: Final = int(os.environ.get("POWER_CUTS", "60"))
KILLS: Final = int(os.environ.get("KILLS", "20"))
INSTANTS_CONTROL: Final = 15
VIEWS: Final = 120
REWRITE_BYTES: Final = 6_000  # so that a short run rewrites the journal many times
FINAL_AFTER: Final = 3  # views
ELSE: Final = Hash(b"\xee" * 32)


# --- the program that is watched --------------------------------------------------------------------------------


def run(directory: Path, views: int) -> None:
    """Votes in these views, in two starts, and says each vote and what is final."""
    Journal.create(directory, GENESIS_HASH, KEY)
    say("made")
    final = (0, 0, 0)
    for first, beyond in ((1, views // 2 + 1), (views // 2 + 1, views + 1)):
        journal = Journal.open(directory, GENESIS_HASH, KEY, final, rewrite_bytes=REWRITE_BYTES)
        for view in range(first, beyond):
            final = vote_in(journal, view)
        journal.note_clean()
        journal.close()


def vote_in(journal: Journal, view: int) -> tuple[int, int, int]:
    """Every fifth view brings nothing."""
    before = certificate(notarize(view - 1))
    if view % 5:
        statement = notarize(view)
        shown(journal.cast(statement, [before], make_block(view, transactions=view % 40), sign))
        shown(journal.cast(finalize(view), [certificate(statement)], None, sign))
    else:
        shown(journal.cast(nullify(view), [before], None, sign))
    final = max(view - FINAL_AFTER, 0)
    say(f"final {final}")
    journal.advance(0, final, final)
    return (0, final, final)


def shown(vote: Vote) -> None:
    say(f"vote {vote.encode().hex()}")


def say(words: str) -> None:
    """One write, so that it is one call in the trace."""
    os.write(1, words.encode() + b"\n")


def main(directory: Path, views: int, mode: str) -> int:
    if mode == "unsynced":
        os.fdatasync = lambda fd: None
    try:
        run(directory, views)
    except Failure as failure:
        say(f"failed {failure.exit_code} {failure}")
        return failure.exit_code
    return 0


# --- what it leaves ---------------------------------------------------------------------------------------------


def program(directory: Path, views: int, mode: str) -> tuple[str, ...]:
    module = "tests.faults.test_journal_power_cut"
    return (sys.executable, "-m", module, str(directory), str(views), mode)


def strace(command: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if "PTRACE" in done.stderr.upper():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    return done


class Told:
    """What a run had said so far."""

    def __init__(self) -> None:
        self.is_made = False
        self.final = 0
        self.votes: list[Vote] = []

    def hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "made":
            self.is_made = True
        elif word == "final":
            self.final = int(rest)
        elif word == "vote":
            self.votes.append(Vote.decode(bytes.fromhex(rest)))

    def check(self, directory: Path) -> str:
        """Starts on what is left; the word for what it finds."""
        try:
            journal = Journal.open(directory, GENESIS_HASH, KEY, (0, self.final, self.final))
        except StorageDamaged as refusal:
            return "whole" if not self.is_made else f"refused: {refusal}"
        try:
            return self._compare(journal)
        finally:
            journal.close()

    def _compare(self, journal: Journal) -> str:
        held = journal.restored().votes
        shown = [vote for vote in self.votes if vote.statement.view > self.final]
        if not set(shown) <= set(held):
            return "lost"
        if len(held) > len(shown) + 1:  # one may have been synced and not yet shown
            return "wrong: votes that nobody cast"
        for vote in self.votes:
            if not is_guarded(journal, vote.statement):
                return f"wrong: could contradict {vote.statement}"
        beyond = Place(0, max([self.final, *(vote.statement.view for vote in held)]) + 1)
        new = journal.cast(notarize(beyond.view), [], make_block(beyond.view), sign)
        return "whole" if place_of(new.statement) == beyond else "wrong: another vote"


def is_guarded(journal: Journal, statement: Statement) -> bool:
    """Whether nothing can be signed against this vote."""
    if statement.kind is Kind.NULLIFY:
        against = statement._replace(kind=Kind.FINALIZE)
    else:
        against = notarize(statement.view)._replace(kind=statement.kind, parent_view=0, block_hash=ELSE)
    try:
        journal.cast(against, [], None, sign)
    except DoubleSign:
        return True
    return False


# --- power cuts -------------------------------------------------------------------------------------------------


def trace_run(root: Path, mode: str) -> list[Call]:
    """What the run asked of the disk below `root`, with its words in between."""
    (root / "data").mkdir(parents=True)
    trace = root.with_name("trace")
    done = strace((*STRACE, str(trace), *program(root / "data", VIEWS, mode)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"final {VIEWS - FINAL_AFTER}"
    return [Call("mkdir", str(root / "data")), Call("fsync", str(root)), *read_trace(trace, root)]


def try_cuts(calls: list[Call], root: Path, instants: int) -> "Counter[tuple[Cut, str]]":
    """How many disks of each kind of cut were whole, or what was wrong with them."""
    rng = random.Random(11)
    chosen = set(rng.sample(range(2, len(calls)), instants))
    outcomes: Counter[tuple[Cut, str]] = Counter()
    disk, told = Disk(root), Told()
    for instant, call in enumerate(calls):
        if call.name == "say":
            told.hear(call.content.decode().strip())
        else:
            disk.apply(call)
        if instant in chosen:
            for cut in Cut:
                target = root.with_name("after the cut")
                disk.write_out(target, cut, rng)
                if (target / "data" / "votes").exists():
                    (target / "data" / "votes").chmod(0o700)
                outcomes[cut, told.check(target / "data").split(":")[0]] += 1
                shutil.rmtree(target)
    return outcomes


def test_a_power_cut_at_any_instant_loses_no_vote(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    calls = trace_run(root, "synced")
    kinds = Counter(call.name for call in calls)
    assert kinds["fsync"] > VIEWS * 9 // 5  # a sync for each vote
    assert kinds["rename"] > 10  # rewritten

    outcomes = try_cuts(calls, root, INSTANTS)

    assert outcomes == {(cut, "whole"): INSTANTS for cut in Cut}


def test_the_replay_finds_the_losses_of_a_journal_that_does_not_sync(tmp_path: Path) -> None:
    """Without this, the test above might be blind."""
    root = tmp_path / "disk"

    outcomes = try_cuts(trace_run(root, "unsynced"), root, INSTANTS_CONTROL)

    assert outcomes[Cut.KILLED, "whole"] == INSTANTS_CONTROL  # a kill alone loses nothing
    for cut in (Cut.SYNCED, Cut.ZEROS, Cut.NAMES):
        assert outcomes[cut, "whole"] < INSTANTS_CONTROL * 2 // 3
    assert outcomes.total() == INSTANTS_CONTROL * len(Cut)


# --- kills and failing disks ------------------------------------------------------------------------------------


def test_no_vote_that_was_shown_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(7)
    votes = 0
    for number in range(KILLS):
        directory = tmp_path / str(number)
        directory.mkdir()
        with subprocess.Popen(
            program(directory, 1_000_000, "synced"), cwd=PROJECT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = Told()
            told.hear(process.stdout.readline().strip())
            time.sleep(chance.uniform(0.0, 0.1))
            process.kill()
            # A pipe keeps what was said before the kill; a last line without its end was not said.
            for line in process.stdout.read().split("\n")[:-1]:
                told.hear(line)
        assert told.check(directory) == "whole"
        votes += len(told.votes)
    assert votes > KILLS


@pytest.mark.parametrize("call", [1, 2, 60, 61, 62])
def test_a_kill_instead_of_a_sync_loses_no_vote(tmp_path: Path, call: int) -> None:
    done = strace(
        (
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject=fdatasync:signal=KILL:when={call}"),
            *program(tmp_path, VIEWS, "synced"),
        )
    )

    told = Told()
    for line in done.stdout.splitlines():
        told.hear(line)
    assert len(told.votes) == call - 1
    assert told.check(tmp_path) == "whole"


@pytest.mark.parametrize("call", ["fdatasync:error={}:when=60", "rename:error={}:when=5"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("EIO", "Input/output error; {room}. The disk reported an error; do not restart on it"),
        ("ENOSPC", "No space left on device; {room}. Free space, then restart."),
        ("EROFS", "Read-only file system; {room}. Mount it writable"),
    ],
)
def test_a_failed_call_ends_the_node_with_one_line_and_loses_no_vote(
    tmp_path: Path, call: str, error: str, words: str
) -> None:
    fault = call.format(error)
    command = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={fault}")
    done = strace((*command, *program(tmp_path, VIEWS, "synced")))

    *lines, failure = done.stdout.splitlines()
    told = Told()
    for line in lines:
        told.hear(line)
    before, after = words.split("{room}")
    assert done.returncode == 74
    assert failure.startswith(f"failed 74 write to {tmp_path}/votes/journal failed: {before}")
    assert after.replace(". ", f". Last final block {told.final} is safe. ", 1) in failure
    assert done.stderr == ""
    assert told.check(tmp_path) == "whole"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
