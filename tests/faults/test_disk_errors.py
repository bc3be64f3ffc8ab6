"""A disk that fails while the node runs: one line that says so, code 74, and no final block lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store_rows import check_chain, commit_blocks, open_chain

PROJECT = Path(__file__).parents[2]


def run_on_failing_disk(directory: Path, fault: str) -> "subprocess.CompletedProcess[str]":
    """The chain program, with this fault injected into its system calls."""
    program = (sys.executable, "-m", "tests.faults.chain_program", str(directory), "160", "synced")
    command = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={fault}", *program)
    try:
        run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if "PTRACE" in run.stderr.upper():
        pytest.skip(f"strace may not trace here: {run.stderr.strip()}")
    return run


@pytest.mark.parametrize("call", range(100, 106))  # batches and lines of the anchor, in turn
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("EIO", "Input/output error; {room}. The disk reported an error; do not restart on it"),
        ("ENOSPC", "No space left on device; {room}. Free space, then restart."),
        ("EROFS", "Read-only file system; {room}. Mount it writable"),
    ],
)
def test_a_failed_sync_ends_the_node_with_one_line_and_loses_no_final_block(
    tmp_path: Path, call: int, error: str, words: str
) -> None:
    directory = tmp_path / "data"

    run = run_on_failing_disk(directory, f"fdatasync:error={error}:when={call}")

    *_, last_final, failure = run.stdout.splitlines()
    final = int(last_final.removeprefix("final "))
    before, after = words.split("{room}")
    assert run.returncode == 74
    assert failure.startswith(f"failed 74 write to {directory}/")
    assert f" failed: {before}" in failure
    assert after.replace(". ", f". Last final block {final:,} is safe. ", 1) in failure
    assert run.stderr == ""
    store = open_chain(directory)
    assert final <= store.head.height <= final + 1
    check_chain(store)
    commit_blocks(store, 1)
    store.close()
