"""No final block is lost by a power cut, whenever it comes: one traced run of the real store, hundreds of disks.

POWER_CUTS=1000 cuts at more instants.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from node.datadir import StorageMissing
from node.exits import Failure
from tests.faults.disk_states import STRACE, Call, Cut, Disk, read_trace
from tests.store_rows import check_chain, commit_blocks, create_chain, open_chain

PROJECT = Path(__file__).parents[2]
INSTANTS = int(os.environ.get("POWER_CUTS", "60"))
INSTANTS_CONTROL = 15
BLOCKS = 160


def trace_run(root: Path, mode: str) -> list[Call]:
    """What the run asked of the disk below `root`, with its words in between."""
    root.mkdir()
    trace = root.with_name("trace")
    program = (str(root / "data"), str(BLOCKS), mode)
    command = (*STRACE, str(trace), sys.executable, "-m", "tests.faults.chain_program", *program)
    try:
        run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if "PTRACE" in run.stderr.upper():
        pytest.skip(f"strace may not trace here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"final {BLOCKS}"
    return read_trace(trace, root)


def try_cuts(calls: list[Call], root: Path, instants: int) -> "Counter[tuple[Cut, str]]":
    """How many disks of each kind of cut were whole, or what was wrong with them."""
    rng = random.Random(11)
    chosen = set(rng.sample(range(len(calls)), instants))
    outcomes: Counter[tuple[Cut, str]] = Counter()
    disk, final = Disk(root), None
    for instant, call in enumerate(calls):
        if call.name == "say":
            final = int(call.content.split()[1])
        else:
            disk.apply(call)
        if instant in chosen:
            for cut in Cut:
                target = root.with_name("after the cut")
                disk.write_out(target, cut, rng)
                outcomes[cut, start_again(target / "data", final)] += 1
                shutil.rmtree(target)
    return outcomes


def start_again(directory: Path, final: int | None) -> str:
    """Starts on a disk on which block `final` was final, None if not even the creation had ended."""
    try:
        store = open_chain(directory)
    except StorageMissing as refusal:
        if final is not None:
            return f"refused: {refusal}"
        create_chain(directory)  # begins again
        return "whole"
    except Failure as refusal:
        return f"refused: {refusal}"
    try:
        if final is not None and store.head.height < final:
            return "lost"
        check_chain(store)
        commit_blocks(store, 1)
    except (AssertionError, Failure) as fault:
        return f"wrong: {fault}"
    finally:
        store.close()
    return "whole"


def test_a_power_cut_at_any_instant_loses_no_final_block(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    calls = trace_run(root, "synced")
    kinds = Counter(call.name for call in calls)
    assert kinds["say"] == BLOCKS + 1
    assert kinds["fsync"] > 2 * BLOCKS  # a batch and an anchor's line each
    assert kinds["rename"] > BLOCKS * 160 // 3_000  # the anchor starts anew, the database gets its name
    assert kinds["unlink"] > 3  # logs become tables

    outcomes = try_cuts(calls, root, INSTANTS)

    assert outcomes == {(cut, "whole"): INSTANTS for cut in Cut}


def test_the_replay_finds_the_losses_of_a_store_that_does_not_sync(tmp_path: Path) -> None:
    """Without this, the test above might be blind."""
    root = tmp_path / "disk"

    outcomes = try_cuts(trace_run(root, "unsynced"), root, INSTANTS_CONTROL)

    assert outcomes[Cut.KILLED, "whole"] == INSTANTS_CONTROL  # a kill alone loses nothing
    for cut in (Cut.SYNCED, Cut.ZEROS, Cut.NAMES):
        assert (
            outcomes[cut, "whole"] < INSTANTS_CONTROL * 2 // 3
        )  # before the first block there is nothing to lose
    assert outcomes.total() == INSTANTS_CONTROL * len(Cut)
