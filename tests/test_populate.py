"""A large first state made piece by piece: what an ordinary creation makes, whatever stops it on the way."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.crypto import sha256
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import genesis_block, load_genesis
from ctt_state.preload import preload_key
from ctt_state.records import EpochSet
from ctt_state.units import Address, Hash, hex_of
from node import populate as populate_module
from node import store as store_module
from node.cli.main import main
from node.datadir import DATABASE, UNFINISHED_PARTS, StorageExists, StorageFailed
from node.exits import Failure
from node.ledger import base_write, create_ledger
from node.populate import (
    HASHING,
    MAKING,
    PARTS_MAX,
    TOKENS_MIN,
    WRITING_NODES,
    WRITING_RECORDS,
    Plan,
    Report,
    plan_of,
    populate,
)
from node.store import Store
from tests.ledger_world import GENESIS

STAGES: Final = (MAKING, HASHING, WRITING_RECORDS, WRITING_NODES)
TOKENS: Final = 400
PROSUMERS: Final = TOKENS // 10
RECORDS: Final = 14 * PROSUMERS

Rows = dict[bytes, bytes]


def document(**preload: Any) -> bytes:
    content = json.loads(GENESIS.read_bytes())
    content["preload"] = preload
    content["ctt"]["maxSupply"] = 10**9
    content["ctt"]["capabilityWh"] = 10_000
    return json.dumps(content).encode()


def generated(count: int = TOKENS, **rule: Any) -> bytes:
    return document(generate={"count": count, "seed": 5, "signing": False} | rule)


def make(
    directory: Path, text: bytes, plan: Plan, report: Report = lambda *_: None, workers: int = 1
) -> None:
    """As `create_ledger` does it with a state that is large by its figures."""
    genesis = load_genesis(text)
    with Store.create(directory, text, genesis.hash, plan.encode(genesis.hash)) as creation:
        root = populate(creation, genesis, plan, report, workers)
        members = EpochSet(genesis.validator_set.members).encode()
        creation.finish(base_write(genesis_block(genesis, root), None, [(0, members)]))


def found(directory: Path) -> tuple[Hash, Rows, Rows]:
    """State root, records and nodes."""
    store = Store.open(directory)
    try:
        return store.head.state_root, dict(store.state_rows()), dict(store.node_rows())
    finally:
        store.close()


def ordinary(directory: Path, text: bytes) -> tuple[Hash, Rows, Rows]:
    create_ledger(directory, text)
    return found(directory)


@contextmanager
def directories() -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory(prefix="ctt-") as name:
        yield Path(name) / "one", Path(name) / "other"


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 300),
    tokens=st.integers(1, 150),
    seed=st.integers(0, 2**53),
    prosumers_a_part=st.integers(1, 40),
    depth=st.integers(1, 2),
    listed=st.integers(0, 70),
)
def test_piece_by_piece_it_is_the_state_that_it_is_at_once(
    count: int, tokens: int, seed: int, prosumers_a_part: int, depth: int, listed: int
) -> None:
    """Root, every record and every node."""
    rule = {"count": count, "seed": seed, "tokensPerProsumer": tokens, "signing": False}
    owners = [{"owner": "0x" + "22" * 20, "count": listed, "energyWh": 7}] if listed else []
    text = document(generate=rule, tokens=owners)
    plan = Plan(-(-count // tokens), 2 * count, prosumers_a_part, depth)
    with directories() as (one, other):
        make(one, text, plan)

        assert found(one) == ordinary(other, text)
        assert not (one / UNFINISHED_PARTS).exists()


class Stopped(Exception):
    """As a crash, but for what the process has in its hands."""


def stopping(after: int) -> Report:
    """Raises Stopped at this report."""
    reports = iter(range(1, after))

    def report(stage: str, done: int, total: int) -> None:
        if next(reports, None) is None:
            raise Stopped

    return report


@settings(max_examples=15, deadline=None)
@given(stops=st.lists(st.integers(1, 45), min_size=1, max_size=6))
def test_it_goes_on_where_it_was_stopped(stops: list[int]) -> None:
    """After so many reports each time, at whatever stage these come."""
    text, plan = generated(), Plan(PROSUMERS, RECORDS, 4, 1)
    with directories() as (one, other):
        for stop in [*stops, 1_000]:
            with suppress(Stopped):
                make(one, text, plan, stopping(stop))
                break

        assert found(one) == ordinary(other, text)


def test_rows_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is stopped between two batches of them, each row comes after the one that is there."""
    monkeypatch.setattr(store_module, "LOAD_BATCH_BYTES", 2_000)
    monkeypatch.setattr(populate_module, "REPORTED_ROWS", 60)
    text, plan = generated(), Plan(PROSUMERS, RECORDS, 4, 1)
    starts: list[tuple[bytes | None, bytes | None]] = []
    while not (tmp_path / "one" / DATABASE).exists():
        # With each start one report more, so that each gets further.
        with suppress(Stopped):
            make(tmp_path / "one", text, plan, stopping(len(starts) + 3))
        with (
            suppress(StorageExists),
            Store.create(
                tmp_path / "one", text, load_genesis(text).hash, plan.encode(load_genesis(text).hash)
            ) as creation,
        ):
            starts.append((creation.last_state_key(), creation.last_node_path()))

    assert found(tmp_path / "one") == ordinary(tmp_path / "other", text)
    keys, paths = ([each for each in column if each is not None] for column in zip(*starts, strict=True))
    assert len(set(keys)) > 3 and keys == sorted(keys)
    assert len(set(paths)) > 3 and paths == sorted(paths)


CHILD: Final = "import sys; from tests.test_populate import run_child; run_child(*sys.argv[1:])"


def run_child(directory: str, stage: str) -> None:
    """Makes the state with two processes, says so when it is in the midst of this stage, and waits for its end."""

    def report(at: str, done: int, total: int) -> None:
        if at == stage and done >= total // 2:
            print("here", flush=True)
            signal.pause()

    make(Path(directory), generated(), Plan(PROSUMERS, RECORDS, 4, 1), report, workers=2)


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_costs_what_was_in_hand(stage: str, tmp_path: Path) -> None:
    """SIGKILL to the one process: those that it began end, and the next goes on at that stage."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "one"), stage]
    with subprocess.Popen(command, cwd=GENESIS.parent, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "here\n"
        begun = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun))

    heard: list[tuple[str, int, int]] = []
    text = generated()
    make(tmp_path / "one", text, Plan(PROSUMERS, RECORDS, 4, 1), lambda *told: heard.append(told))

    assert found(tmp_path / "one") == ordinary(tmp_path / "other", text)
    first = {at: done / total for at, done, total in reversed(heard)}
    assert all(first.get(at, 1) == 1 for at in STAGES[: min(STAGES.index(stage), 2)])
    assert first[stage] >= (0.4 if stage in (MAKING, HASHING) else 0)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_another_plan_made_is_thrown_away(tmp_path: Path) -> None:
    """Another document, another division, and a creation without a plan begin anew."""
    first, second = generated(), generated(seed=6)
    with suppress(Stopped):
        make(tmp_path / "one", first, Plan(PROSUMERS, RECORDS, 4, 1), stopping(40))
    with suppress(Stopped):
        make(tmp_path / "one", second, Plan(PROSUMERS, RECORDS, 4, 1), stopping(40))
    make(tmp_path / "one", second, Plan(PROSUMERS, RECORDS, 7, 2))
    with suppress(Stopped):
        make(tmp_path / "other", first, Plan(PROSUMERS, RECORDS, 4, 1), stopping(40))

    assert (tmp_path / "other" / UNFINISHED_PARTS).exists()
    assert found(tmp_path / "one") == ordinary(tmp_path / "other", second)
    assert not (tmp_path / "other" / UNFINISHED_PARTS).exists()


def test_what_is_left_of_the_parts_goes_when_the_node_starts(tmp_path: Path) -> None:
    """A stop after the database has its name, before they are removed."""
    create_ledger(tmp_path, generated())
    (tmp_path / UNFINISHED_PARTS).mkdir()
    (tmp_path / UNFINISHED_PARTS / "rows-000").write_bytes(b"rows")

    Store.open(tmp_path).close()

    assert not (tmp_path / UNFINISHED_PARTS).exists()


def test_a_generator_that_comes_to_a_listed_address_is_refused_by_any_process(tmp_path: Path) -> None:
    listed = hex_of(Address(sha256(preload_key(5, "prosumer", 3))[-20:]))
    text = document(generate={"count": TOKENS, "seed": 5, "signing": False}, tokens=[{"owner": listed}])

    with pytest.raises(InvalidGenesis) as refusal:
        make(tmp_path, text, Plan(PROSUMERS, RECORDS, 4, 1), workers=2)

    assert refusal.value.faults == (("$.preload.generate", "prosumer 3 or its meter is listed, too"),)


def test_a_process_that_is_killed_ends_it_with_a_word(tmp_path: Path) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        for process in active_children():
            process.kill()

    with pytest.raises(Failure, match="was killed; run it again, and it goes on where it was"):
        make(tmp_path, generated(), Plan(PROSUMERS, RECORDS, 1, 1), kill, workers=2)


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    def fill(stage: str, done: int, total: int) -> None:
        if (stage, done) == (MAKING, 1):
            (tmp_path / UNFINISHED_PARTS / "leaves-001.new").mkdir()  # where the file is to be

    with pytest.raises(StorageFailed, match=r"write to .*db\.parts failed"):
        make(tmp_path, generated(), Plan(PROSUMERS, RECORDS, 4, 1), fill)


def test_a_disk_without_room_for_it_is_told_before_any_work(tmp_path: Path) -> None:
    heard: list[str] = []
    with pytest.raises(
        StorageFailed, match=r"1,000,000,000,000 records take 232,830 GiB .* only [0-9,]+ GiB free"
    ):
        make(tmp_path, generated(), Plan(PROSUMERS, 10**12, 4, 1), lambda stage, *_: heard.append(stage))

    assert heard == []


@pytest.mark.parametrize(
    ("count", "tokens", "parts", "depth"),
    [
        (TOKENS_MIN, 10, 2, 1),
        (1_000_000, 10, 6, 2),
        (10_000_000, 10, 54, 2),
        (100_000_000, 10, PARTS_MAX, 3),
        (1_000_000_000, 10, PARTS_MAX, 4),
        (1_000_000_000, 1_000_000, 500, 4),
        (TOKENS_MIN, 1_000_000, 1, 1),
    ],
)
def test_parts_are_few_and_paths_have_few_leaves(count: int, tokens: int, parts: int, depth: int) -> None:
    plan = plan_of(load_genesis(generated(count, tokensPerProsumer=tokens)))

    assert plan is not None and (plan.parts, plan.depth) == (parts, depth)
    assert [index for part in range(3) for index in plan.indexes(part)] == list(
        range(min(3 * plan.prosumers_a_part, plan.prosumers))
    )


def test_few_tokens_or_none_are_made_in_memory() -> None:
    assert plan_of(load_genesis(generated(TOKENS_MIN - 1))) is None
    assert plan_of(load_genesis(GENESIS.read_bytes())) is None


def test_init_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctt init` of a state that is large enough, with as many processes as it takes."""
    monkeypatch.setattr(populate_module, "TOKENS_MIN", TOKENS)
    (tmp_path / "genesis.json").write_bytes(generated())

    code = main(["init", "--dir", str(tmp_path / "one"), "--genesis", str(tmp_path / "genesis.json")])

    told = capsys.readouterr()
    assert code == 0 and "ready; start it with" in told.out
    assert [line for line in told.err.splitlines() if "100 %" in line] == [f"{at}: 100 %" for at in STAGES]
    monkeypatch.undo()
    assert found(tmp_path / "one") == ordinary(tmp_path / "other", generated())
