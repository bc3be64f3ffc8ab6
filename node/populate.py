"""A first state of any size, straight into the database: what the generator of a genesis document makes, in little
memory, by several processes, to be stopped at any moment and gone on with (decisions/0025).

Prosumers are made part by part: of each part one file has the rows in the order of their keys, another the leaves of
the state tree in the order of their key hashes. Then the leaves of all parts that lie under one path of a few nibbles
make the tree below it, path by path, a file each. At last the rows of all parts are merged into the database, and the
nodes of all paths with those above them. So LevelDB gets every row in the order of keys and never sorts any again.

A file bears its name only when it is whole and on the disk, and whoever makes it first, makes the same. So what is
there need not be made again, and what has been loaded tells by its last key where to go on.
"""

import os
import signal
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from heapq import merge
from itertools import chain, dropwhile
from mmap import ACCESS_READ, mmap
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final, NamedTuple

import msgpack

from ctt_state.crypto import sha256
from ctt_state.genesis import Genesis, generated_part, named_records, supply_records
from ctt_state.records import PAGE_TOKENS, Record, Token
from ctt_state.tree import HASH_BYTES, LEAF_BYTES, build_above, build_below
from ctt_state.units import Hash, Wh
from node.datadir import StorageFailed, explain_os_error, free_bytes, replace_file, show_bytes
from node.exits import Exit, Failure
from node.store import SCHEMA_VERSION, Creation

_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack

FORMAT: Final = 1  # of the files here and of what is in them
TOKENS_MIN: Final = 200_000  # generated: fewer are made faster in memory
PART_RECORDS: Final = 1 << 18  # about 600 bytes of memory each while the part is made
PARTS_MAX: Final = 512  # whose files are open at once
LEAVES_AT_ONCE: Final = 1 << 16  # under one path, in the mean at most
BYTES_PER_RECORD: Final = 250  # of the disk at the most at once; 150 stay
READ_BYTES: Final = 1 << 16  # of a file at once; as many files are open as there are parts
REPORTED_ROWS: Final = 50_000  # between two reports

MAKING: Final = "making records"
HASHING: Final = "hashing the tree"
WRITING_RECORDS: Final = "writing records"
WRITING_NODES: Final = "writing the tree"

Rows = Iterable[tuple[bytes, bytes]]
Report = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class Plan(NamedTuple):
    """How the work is divided."""

    prosumers: int
    records: int
    prosumers_a_part: int
    depth: int  # nibbles of the paths below which the tree is built by itself

    @property
    def parts(self) -> int:
        return -(-self.prosumers // self.prosumers_a_part)

    @property
    def paths(self) -> int:
        return 1 << 4 * self.depth

    def indexes(self, part: int) -> range:
        start = part * self.prosumers_a_part
        return range(start, min(start + self.prosumers_a_part, self.prosumers))

    def encode(self, genesis_hash: Hash) -> bytes:
        """What has to be the same for one's files to be the other's."""
        return _pack((FORMAT, SCHEMA_VERSION, genesis_hash, self))


def plan_of(genesis: Genesis) -> Plan | None:
    """None when the first state is small enough for memory."""
    generator = genesis.preload.generator
    if generator is None or generator.count < TOKENS_MIN:
        return None
    tokens = min(generator.tokens_per_prosumer, generator.count)
    of_each = 3 + tokens + -(-tokens // PAGE_TOKENS)  # with its meter and the reading
    prosumers, records = generator.prosumers, of_each * generator.prosumers
    depth = 1
    while records > LEAVES_AT_ONCE << 4 * depth:
        depth += 1
    return Plan(prosumers, records, max(PART_RECORDS // of_each, -(-prosumers // PARTS_MAX), 1), depth)


class _Job(NamedTuple):
    """What every process knows."""

    directory: Path
    genesis: Genesis
    plan: Plan

    def rows(self, part: int) -> Path:
        return self.directory / f"rows-{part:03}"

    def leaves(self, part: int) -> Path:
        return self.directory / f"leaves-{part:03}"

    def nodes(self, number: int) -> Path:
        """Of the tree below the path of this number."""
        return self.directory / f"nodes-{number:05x}"

    @property
    def all_parts(self) -> range:
        """The generator's, and one of all records that the document names."""
        return range(self.plan.parts + 1)


class _Totals(NamedTuple):
    """Of a part, at the head of its rows."""

    records: int
    tokens: int
    energy_wh: int


def populate(creation: Creation, genesis: Genesis, plan: Plan, report: Report, workers: int = 0) -> Hash:
    """Loads the first state and its tree and gives its root. `workers` is how many processes make it, 0 for as many as
    there are processors, 1 for this one.

    Raises: InvalidGenesis when the generator comes to an address that is listed; StorageFailed, Failure.
    """
    job = _Job(creation.parts, genesis, plan)
    each = partial(_each_of, workers or len(os.sched_getaffinity(0)), report)
    try:
        _check_disk(creation.parts, plan)
        if not _is_done(job, HASHING):
            each(MAKING, partial(_make_part, job), job.rows, range(plan.parts))
            _make_named_part(job)
            each(HASHING, partial(_build_path, job), job.nodes, range(plan.paths))
            _note_done(job, HASHING, map(job.leaves, job.all_parts))
        if not _is_done(job, WRITING_RECORDS):
            _load_records(job, creation, report)
            _note_done(job, WRITING_RECORDS, map(job.rows, job.all_parts))
        return _load_nodes(job, creation, report)
    except BrokenProcessPool:
        text = "a process that makes the first state was killed; run it again, and it goes on where it was"
        raise Failure(Exit.BROKEN, text) from None
    except OSError as error:
        raise explain_os_error("write to", creation.parts, error) from None


def _check_disk(parts: Path, plan: Plan) -> None:
    """What there is already counts as free. Raises: StorageFailed, OSError."""
    there = sum(file.stat().st_size for file in parts.parent.rglob("*") if file.is_file())
    free, need = free_bytes(parts)[0] + there, plan.records * BYTES_PER_RECORD
    if free < need:
        raise StorageFailed(
            f"{parts.parent}: {plan.records:,} records take {show_bytes(need)} while they are made; "
            f"only {show_bytes(free)} free"
        )


def _is_done(job: _Job, stage: str) -> bool:
    return (job.directory / stage.replace(" ", "-")).exists()


def _note_done(job: _Job, stage: str, needless: Iterable[Path]) -> None:
    """Frees what only this stage needed. Raises: OSError."""
    replace_file(job.directory / stage.replace(" ", "-"), b"")
    for path in needless:
        path.unlink(missing_ok=True)


# --- several processes --------------------------------------------------------------------------------------------


def _each_of(
    workers: int,
    report: Report,
    stage: str,
    work: Callable[[int], None],
    path_of: Callable[[int], Path],
    numbers: range,
) -> None:
    """Makes those of the files that are not there."""
    missing = [number for number in numbers if not path_of(number).exists()]
    done = len(numbers) - len(missing)
    report(stage, done, len(numbers))
    if workers == 1:
        _count(map(work, missing), report, stage, done, len(numbers))
    elif missing:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_follow_parent)
        with pool:
            _count(pool.map(work, missing), report, stage, done, len(numbers))


def _count(results: Iterable[None], report: Report, stage: str, done: int, total: int) -> None:
    for _ in results:
        done += 1
        report(stage, done, total)


def _follow_parent() -> None:
    """A process of the pool ends when the one that began it is gone, however; the terminal's signals are for that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


# --- records ------------------------------------------------------------------------------------------------------


def _make_part(job: _Job, part: int) -> None:
    """Raises: InvalidGenesis, OSError."""
    _write_part(job, part, generated_part(job.genesis, job.plan.indexes(part)))


def _make_named_part(job: _Job) -> None:
    """The records that the document names, and the supply, which counts all others. Raises: OSError."""
    records = list(named_records(job.genesis))
    tokens = [record for _, record in records if isinstance(record, Token)]
    generated = [_Totals(*_head_of(job.rows(part))) for part in range(job.plan.parts)]
    count = len(tokens) + sum(totals.tokens for totals in generated)
    energy = sum(token.energy_wh for token in tokens) + sum(totals.energy_wh for totals in generated)
    _write_part(job, job.plan.parts, chain(records, supply_records(job.genesis, count, Wh(energy))))


def _write_part(job: _Job, part: int, records: Iterable[tuple[bytes, Record]]) -> None:
    """The leaves, then the rows, which tell that the part is there. Raises: OSError."""
    rows: list[tuple[bytes, bytes]] = []
    tokens = energy = 0
    for key, record in records:
        if isinstance(record, Token):
            tokens, energy = tokens + 1, energy + record.energy_wh
        rows.append((key, record.encode()))
    leaves = [sha256(key) + sha256(data) for key, data in rows]
    leaves.sort()
    rows.sort()
    replace_file(job.leaves(part), b"".join(leaves))
    _write_objects(job.rows(part), _Totals(len(rows), tokens, energy), rows)


# --- the tree -----------------------------------------------------------------------------------------------------


def _build_path(job: _Job, number: int) -> None:
    """The tree below the path of this number; what stands for it above is at the head of the file. Raises: OSError."""
    leaves: list[bytes] = []
    for part in job.all_parts:
        with job.leaves(part).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            leaves += _leaves_below(data, job.plan.depth, number)
    leaves.sort()
    pairs = [(leaf[:HASH_BYTES], leaf[HASH_BYTES:]) for leaf in leaves]
    _write_objects(job.nodes(number), *build_below(job.plan.depth, pairs))


def _leaves_below(data: mmap, depth: int, number: int) -> list[bytes]:
    """Of a part's sorted leaves those whose key hash begins with the nibbles of this number."""

    def path_at(index: int) -> int:
        return int.from_bytes(data[index * LEAF_BYTES : index * LEAF_BYTES + 4], "big") >> 32 - 4 * depth

    every = range(len(data) // LEAF_BYTES)
    start, stop = (bisect_left(every, path, key=path_at) for path in (number, number + 1))
    return [data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES] for index in range(start, stop)]


# --- the database -------------------------------------------------------------------------------------------------


def _load_records(job: _Job, creation: Creation, report: Report) -> None:
    """Raises: StorageFailed, OSError."""
    paths = list(map(job.rows, job.all_parts))
    total = sum(_Totals(*_head_of(path)).records for path in paths)
    rows = merge(*map(_rows_of, paths))
    counted = _counted(rows, report, WRITING_RECORDS, total)
    creation.load_state(_after(creation.last_state_key(), counted))


def _load_nodes(job: _Job, creation: Creation, report: Report) -> Hash:
    """The nodes above are few, and known when all of those below are. Raises: StorageFailed, OSError."""
    paths = list(map(job.nodes, range(job.plan.paths)))
    above = build_above([_head_of(path) for path in paths])
    nodes = merge(above, _nodes_below(paths, report))
    creation.load_nodes(_after(creation.last_node_path(), nodes))
    return sha256(above[0][1])


def _nodes_below(paths: Sequence[Path], report: Report) -> Iterator[tuple[bytes, bytes]]:
    for done, path in enumerate(paths):
        report(WRITING_NODES, done, len(paths))
        yield from _rows_of(path)
    report(WRITING_NODES, len(paths), len(paths))


def _after(last: bytes | None, rows: Rows) -> Rows:
    """Those that are not there yet, from rows in the order of keys."""
    return rows if last is None else dropwhile(lambda row: row[0] <= last, rows)


def _counted(rows: Rows, report: Report, stage: str, total: int) -> Iterator[tuple[bytes, bytes]]:
    for done, row in enumerate(rows):
        if done % REPORTED_ROWS == 0:
            report(stage, done, total)
        yield row
    report(stage, total, total)


# --- files --------------------------------------------------------------------------------------------------------


def _write_objects(path: Path, head: object, rows: Rows) -> None:
    """Raises: OSError."""
    replace_file(path, b"".join([_pack(head), *map(_pack, rows)]))


def _head_of(path: Path) -> Any:
    """Raises: OSError."""
    with path.open("rb") as file:
        return _objects_of(file).unpack()


def _rows_of(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """In their order; the file is open from the first to the last. Raises: OSError."""
    with path.open("rb") as file:
        objects = _objects_of(file)
        objects.skip()
        yield from objects


def _objects_of(file: IO[bytes]) -> Any:
    return msgpack.Unpacker(file, read_size=READ_BYTES, use_list=False, max_buffer_size=0)
