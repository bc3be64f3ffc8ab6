"""The store: one batch a block, reads of the published head, and refusal of everything that is not whole."""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import plyvel
import pytest

from ctt_state.units import Hash
from node import store as store_module
from node.anchor import Anchor
from node.datadir import (
    StorageDamaged,
    StorageExists,
    StorageFailed,
    StorageInUse,
    StorageMissing,
)
from node.exits import Failure
from node.store import UNDO_BLOCKS, Store
from tests.store_rows import (
    DOCUMENT,
    GENESIS_HASH,
    NO_LIMITS,
    OTHER_GENESIS_HASH,
    account,
    check_chain,
    commit_blocks,
    create_chain,
    genesis_records,
    make_bytes,
    make_chain,
    make_head,
    make_write,
    open_chain,
)

FLIPS = int(os.environ.get("FLIPS", "240"))


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def only(directory: Path, pattern: str) -> Path:
    """The largest of the database's files of this pattern."""
    return max((directory / "db").glob(pattern), key=lambda path: path.stat().st_size)


def refused(directory: Path, expected: Hash = GENESIS_HASH) -> Failure:
    with pytest.raises(Failure) as refusal:
        Store.open(directory, expected, NO_LIMITS)
    assert "\n" not in str(refusal.value)
    return refusal.value


def put_raw(directory: Path, key: bytes, value: bytes) -> None:
    database = plyvel.DB(str(directory / "db"))
    database.put(key, value, sync=True)
    database.close()


def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    options = store_module.LEVELDB_OPTIONS | {"write_buffer_size": 64 * 1024}
    monkeypatch.setattr(store_module, "LEVELDB_OPTIONS", options)


# --- creation -------------------------------------------------------------------------------------------------


def test_a_created_chain_opens_at_block_0_with_all_its_rows(tmp_path: Path) -> None:
    create_chain(tmp_path / "new" / "data")

    store = open_chain(tmp_path / "new" / "data")

    assert store.head == make_head(0)
    check_chain(store)
    store.close()


def test_genesis_rows_beyond_one_batch_all_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOAD_BATCH_BYTES", 1_000)
    small_tables(monkeypatch)
    rows = {make_bytes("key", number): make_bytes("value", number, 300) for number in range(5_000)}

    with Store.create(tmp_path, DOCUMENT, GENESIS_HASH) as creation:
        creation.load_state(iter(rows.items()))
        creation.finish(replace(make_write(0), state=[]))

    store = open_chain(tmp_path)
    assert dict(store.state_rows()) == rows
    store.close()


def test_an_existing_chain_is_never_replaced(tmp_path: Path) -> None:
    make_chain(tmp_path, 5).close()

    with pytest.raises(StorageExists, match="already holds a chain") as refusal:
        create_chain(tmp_path)

    assert refusal.value.exit_code == 73
    store = open_chain(tmp_path)
    assert store.head == make_head(5)
    store.close()


def test_an_interrupted_creation_is_refused_in_words_and_can_be_begun_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Store.create(tmp_path, DOCUMENT, GENESIS_HASH) as creation:
        creation.load_state(genesis_records())
        raise KeyboardInterrupt

    refusal = refused(tmp_path)

    assert str(refusal) == f"the creation of {tmp_path} was interrupted; run 'ctt init' again"
    assert refusal.exit_code == 66
    create_chain(tmp_path)
    store = open_chain(tmp_path)
    check_chain(store)
    store.close()


def test_a_chain_whose_database_was_removed_is_not_begun_again(tmp_path: Path) -> None:
    """Its validator may have voted; starting at block 0 could sign twice."""
    make_chain(tmp_path, 5).close()
    shutil.rmtree(tmp_path / "db")

    assert isinstance(refused(tmp_path), StorageDamaged)
    with pytest.raises(StorageExists, match="block 5 was final here"):
        create_chain(tmp_path)


def test_another_chains_anchor_keeps_a_new_chain_out(tmp_path: Path) -> None:
    Anchor(tmp_path / "anchor", OTHER_GENESIS_HASH, make_head(0)).close()

    with pytest.raises(StorageExists, match="already holds a chain"):
        create_chain(tmp_path)


def test_a_creation_waits_for_no_other_node(tmp_path: Path) -> None:
    store = make_chain(tmp_path, 1)

    with pytest.raises(StorageInUse, match=f"pid {os.getpid()}"):
        create_chain(tmp_path)
    store.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageExists, match=f"cannot make {tmp_path}/file/data: Not a directory"):
        create_chain(tmp_path / "file" / "data")


# --- commit, publish, read ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A chain of ten blocks."""
    store = make_chain(tmp_path, 10)
    yield store
    store.close()


def test_a_committed_block_is_seen_only_after_publish(store: Store) -> None:
    key, before = account(10)
    write = replace(make_write(11), state=[(key, b"after"), (b"new", b"row")])

    store.commit(write)

    assert store.head == make_head(10)
    assert (store.state(key), store.state(b"new"), store.height_of(write.block_hash)) == (before, None, None)
    with pytest.raises(LookupError):
        store.block(11)

    store.publish()

    assert store.head == write.head
    assert (store.state(key), store.state(b"new")) == (b"after", b"row")
    assert (store.height_of(write.block_hash), store.block(11)) == (11, write.block)


def test_a_walk_through_the_state_stays_at_the_block_it_began_with(store: Store) -> None:
    walk = store.state_rows()
    first = next(walk)

    commit_blocks(store, 20)

    notes = [key for key, _ in [first, *walk] if key.startswith(b"note")]
    assert notes == [b"note10"]


def test_readers_on_other_threads_never_see_a_part_of_a_block(store: Store) -> None:
    """Each block deletes the note of the one before and leaves its own, so a whole state has one note."""
    counts: Counter[int] = Counter()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            counts[sum(key.startswith(b"note") for key, _ in store.state_rows())] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    commit_blocks(store, 200)
    stop.set()
    for reader in readers:
        reader.join()

    assert set(counts) == {1}


def test_what_is_not_there_is_none_or_a_lookup_error(store: Store) -> None:
    assert store.state(b"nothing") is None
    assert store.node(b"nothing") is None
    assert store.place_of(bytes(32)) is None
    assert store.height_of(bytes(32)) is None
    assert store.certificate(11) is None
    for read in (store.block, store.receipts, store.undo, store.hash_at):
        for height in (-1, 11):
            with pytest.raises(LookupError):
                read(height)
    store.commit(make_write(11))  # and the store is still usable


def test_blocks_that_do_not_follow_are_our_own_mistake(store: Store) -> None:
    for height in (10, 12):
        with pytest.raises(AssertionError):
            store.commit(make_write(height))
    store.commit(make_write(11))
    with pytest.raises(AssertionError):
        store.commit(make_write(12))  # before 11 is published


def test_the_undo_rows_of_the_last_blocks_are_kept_and_older_ones_deleted(tmp_path: Path) -> None:
    store = make_chain(tmp_path, UNDO_BLOCKS + 20)

    assert store.undo(21) == make_write(21).undo
    with pytest.raises(LookupError, match="the undo row of block 20 is pruned"):
        store.undo(20)

    store.close()
    database = plyvel.DB(str(tmp_path / "db"))
    assert len(list(database.iterator(prefix=b"u"))) == UNDO_BLOCKS
    database.close()


def test_a_reopened_chain_is_whole_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tables(monkeypatch)
    make_chain(tmp_path, 0).close()
    for _ in range(5):
        store = open_chain(tmp_path)
        commit_blocks(store, 100)
        store.close()

    store = open_chain(tmp_path)

    assert store.head == make_head(500)
    check_chain(store)
    assert store.check_rows() > 500 * 8
    store.close()


# --- nothing there, not ours, not free ------------------------------------------------------------------------


def test_a_missing_database_is_refused_and_not_created(tmp_path: Path) -> None:
    refusal = refused(tmp_path / "data")

    assert isinstance(refusal, StorageMissing)
    assert str(refusal) == f"no database at {tmp_path}/data; run 'ctt init' first"
    assert refusal.exit_code == 66
    assert not (tmp_path / "data").exists()


def test_another_chains_database_is_refused_with_both_genesis_hashes(tmp_path: Path) -> None:
    make_chain(tmp_path, 1).close()

    refusal = refused(tmp_path, OTHER_GENESIS_HASH)

    assert refusal.exit_code == 65
    assert f"0x{OTHER_GENESIS_HASH.hex()} differs from database 0x{GENESIS_HASH.hex()}" in str(refusal)


def test_without_an_expected_genesis_the_databases_own_is_told(tmp_path: Path) -> None:
    make_chain(tmp_path, 1).close()

    store = Store.open(tmp_path, space=NO_LIMITS)

    assert (store.genesis_hash, store.genesis_document) == (GENESIS_HASH, DOCUMENT)
    store.close()


@pytest.mark.parametrize(
    ("version", "remedy"), [(2, "make it anew with 'ctt init'"), (4, "downgrade is not supported")]
)
def test_another_schema_is_refused(tmp_path: Path, version: int, remedy: str) -> None:
    make_chain(tmp_path, 1).close()
    put_raw(tmp_path, b"mschema", version.to_bytes(8, "big"))

    refusal = refused(tmp_path)

    assert refusal.exit_code == 65
    assert f"written in schema {version}, this program reads schema 3" in str(refusal)
    assert remedy in str(refusal)


def test_a_stray_file_among_the_tables_is_refused(tmp_path: Path) -> None:
    make_chain(tmp_path, 1).close()
    (tmp_path / "db" / "000005.ldb.orig").touch()

    assert "000005.ldb.orig (stray) does not belong here" in str(refused(tmp_path))


def test_a_refused_start_leaves_the_directory_free(tmp_path: Path) -> None:
    make_chain(tmp_path, 1).close()
    refused(tmp_path, OTHER_GENESIS_HASH)

    open_chain(tmp_path).close()


def test_a_second_open_in_the_same_process_lets_nobody_else_in(tmp_path: Path) -> None:
    """LevelDB's own lock would be gone now, and another process could open the same database."""
    store = make_chain(tmp_path, 1)

    assert isinstance(refused(tmp_path), StorageInUse)

    program = (
        "import sys, plyvel\n"
        "from pathlib import Path\n"
        "from node.exits import Failure\n"
        "from node.store import Store\n"
        "directory = Path(sys.argv[1])\n"
        "try: Store.open(directory)\n"
        "except Failure as failure: print(failure.exit_code, failure)\n"
        "try: plyvel.DB(str(directory / 'db'))\n"
        "except plyvel.IOError as error: print(error)\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ours, leveldbs = other.stdout.splitlines()
    assert ours == f"69 another node (pid {os.getpid()}) uses {tmp_path}"
    assert "Resource temporarily unavailable" in leveldbs
    commit_blocks(store, 1)
    store.close()


def test_leveldbs_own_lock_still_holds_when_ours_was_removed(tmp_path: Path) -> None:
    make_chain(tmp_path, 1).close()
    database = plyvel.DB(str(tmp_path / "db"))

    refusal = refused(tmp_path)

    assert isinstance(refusal, StorageInUse)
    assert "another program uses" in str(refusal)
    database.close()


# --- damage ---------------------------------------------------------------------------------------------------


def heights_without_checks(directory: Path) -> list[int]:
    """What LevelDB serves of the chain when nobody asks it to be careful."""
    copy = directory.with_name("careless")
    shutil.copytree(directory / "db", copy)
    database = plyvel.DB(str(copy))
    heights = [int.from_bytes(key[1:], "big") for key in database.iterator(prefix=b"n", include_value=False)]
    database.close()
    return heights


def test_a_flipped_byte_in_the_middle_of_the_log_is_refused(tmp_path: Path) -> None:
    make_chain(tmp_path / "data", 200).close()
    log = only(tmp_path / "data", "*.log")
    flip(log, log.stat().st_size // 2)

    assert 100 < len(heights_without_checks(tmp_path / "data")) < 201  # with a gap, and no error

    refusal = refused(tmp_path / "data")
    assert refusal.exit_code == 65
    assert "checksum mismatch" in str(refusal)
    assert "move it aside and restore" in str(refusal)


def test_a_lost_log_is_found_by_the_anchor(tmp_path: Path) -> None:
    make_chain(tmp_path, 200).close()
    only(tmp_path, "*.log").unlink()

    refusal = refused(tmp_path)

    assert refusal.exit_code == 65
    assert "it ends at block 0 but block 200 was final on this node; files are missing" in str(refusal)
    assert str(refused(tmp_path)) == str(refusal)  # the refused start has not made it look whole


def test_a_log_cut_at_the_end_is_found_by_the_anchor(tmp_path: Path) -> None:
    """LevelDB takes it for a write that a crash cut short."""
    make_chain(tmp_path, 200).close()
    log = only(tmp_path, "*.log")
    os.truncate(log, log.stat().st_size - 1)

    assert "it ends at block 199 but block 200 was final" in str(refused(tmp_path))


def test_a_lost_current_file_does_not_begin_a_new_database(tmp_path: Path) -> None:
    make_chain(tmp_path, 10).close()
    (tmp_path / "db" / "CURRENT").unlink()
    names = sorted(os.listdir(tmp_path / "db"))

    refusal = refused(tmp_path)

    assert refusal.exit_code == 65
    assert sorted(os.listdir(tmp_path / "db")) == names


def test_a_lost_manifest_and_a_lost_table_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tables(monkeypatch)
    make_chain(tmp_path / "a", 300).close()
    open_chain(tmp_path / "a").close()  # what is left of the log becomes a table
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    only(tmp_path / "a", "MANIFEST-*").unlink()
    for table in (tmp_path / "b").rglob("*.ldb"):
        table.unlink()

    for name in ("a", "b"):
        refusal = refused(tmp_path / name)
        assert refusal.exit_code == 65
        assert "damaged (" in str(refusal)


def test_a_flipped_byte_in_a_table_is_found_on_read_and_ends_the_use_of_the_store(tmp_path: Path) -> None:
    make_chain(tmp_path, 300).close()
    open_chain(tmp_path).close()  # the log becomes a table
    table = only(tmp_path, "*.ldb")
    at = table.read_bytes().index(make_write(150).block[:20])
    flip(table, at)
    store = open_chain(tmp_path)
    assert store.block(20) == make_write(20).block

    with pytest.raises(StorageDamaged, match="block checksum mismatch"):
        store.block(150)

    for call in later_calls(store):
        with pytest.raises(StorageDamaged, match="block checksum mismatch"):
            call()
    store.close()


def later_calls(store: Store) -> tuple[Callable[[], object], ...]:
    return (
        lambda: store.block(1),
        lambda: store.state(b"account1"),
        lambda: next(store.state_rows()),
        lambda: store.commit(make_write(store.head.height + 1)),
        store.publish,
    )


def test_a_flipped_byte_is_found_by_walking_over_all_rows(tmp_path: Path) -> None:
    make_chain(tmp_path, 300).close()
    open_chain(tmp_path).close()
    table = only(tmp_path, "*.ldb")
    flip(table, table.stat().st_size // 2)
    store = open_chain(tmp_path)

    with pytest.raises(StorageDamaged):
        store.check_rows()
    store.close()


def test_a_row_that_must_exist_and_does_not_is_damage(tmp_path: Path) -> None:
    make_chain(tmp_path, 5).close()
    database = plyvel.DB(str(tmp_path / "db"))
    database.delete(b"r" + (3).to_bytes(8, "big"))
    database.close()
    store = open_chain(tmp_path)

    with pytest.raises(StorageDamaged, match="row .* is missing"):
        store.receipts(3)
    store.close()


def test_a_damaged_end_of_an_earlier_log_is_found_as_a_gap(tmp_path: Path) -> None:
    """After a crash there may be two logs. LevelDB takes the damaged end of the first for a write cut short and goes
    on with the second: head and anchor agree, and blocks are missing below them."""
    first, second = tmp_path / "first", tmp_path / "second"
    make_chain(first, 10).close()
    shutil.copytree(first, second)
    store = open_chain(second)  # takes the first log into a table and begins another
    commit_blocks(store, 10)
    shutil.copy(only(second, "*.log"), first / "db")
    shutil.copy(second / "anchor", first / "anchor")
    store.close()
    shutil.copytree(first, tmp_path / "good")
    earlier = min((first / "db").glob("*.log"))
    os.truncate(earlier, earlier.stat().st_size - 1)

    good = open_chain(tmp_path / "good")
    check_chain(good)
    good.close()
    assert heights_without_checks(first) == [*range(10), *range(11, 21)]
    assert "block 10 is missing below the head, 20" in str(refused(first))


def move_anchor(directory: Path, height: int, fork: bool = False) -> None:
    head = make_head(height)
    if fork:
        head = head._replace(block_hash=Hash(make_bytes("fork", height)))
    Anchor(directory / "anchor", GENESIS_HASH, head).close()


def test_an_anchor_one_block_behind_is_caught_up_with(tmp_path: Path) -> None:
    """The node stopped between the batch and the anchor's line."""
    make_chain(tmp_path, 10).close()
    move_anchor(tmp_path, 9)

    store = open_chain(tmp_path)

    assert store.head == make_head(10)
    commit_blocks(store, 1)
    store.close()
    store = open_chain(tmp_path)
    assert store.head == make_head(11)
    store.close()


@pytest.mark.parametrize(
    ("height", "fork", "words"),
    [
        (11, False, "it ends at block 10 but block 11 was final on this node; files are missing"),
        (8, False, "it ends at block 10 but its anchor at 8: they are not of one backup"),
        (10, True, "block 10 is not 0x"),
        (9, True, "block 9 is not 0x"),
    ],
)
def test_an_anchor_that_does_not_fit_the_database_is_refused(
    tmp_path: Path, height: int, fork: bool, words: str
) -> None:
    make_chain(tmp_path, 10).close()
    move_anchor(tmp_path, height, fork)

    refusal = refused(tmp_path)

    assert refusal.exit_code == 65
    assert words in str(refusal)


def test_a_lost_anchor_is_refused(tmp_path: Path) -> None:
    make_chain(tmp_path, 10).close()
    (tmp_path / "anchor").unlink()

    refusal = refused(tmp_path)

    assert refusal.exit_code == 65
    assert "it is missing" in str(refusal)


# --- failing disks --------------------------------------------------------------------------------------------


def test_a_failing_anchor_ends_the_use_of_the_store_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_chain(tmp_path, 10)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageFailed, match="Last final block 10 is safe. The disk reported an error"):
            store.commit(make_write(11))

    for call in later_calls(store):
        with pytest.raises(StorageFailed, match="Input/output error"):
            call()
    store.close()
    store = open_chain(tmp_path)
    assert store.head in (make_head(10), make_head(11))
    check_chain(store)
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a small file system: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def test_a_full_disk_is_named_with_its_cause_and_remedy_and_loses_no_final_block(small_disk: Path) -> None:
    directory = small_disk / "data"
    store = make_chain(directory, 10, block_bytes=10_000)

    with pytest.raises(StorageFailed) as failure:
        commit_blocks(store, 1_000, block_bytes=10_000)

    final = store.head.height
    text = str(failure.value)
    assert f"write to {directory}" in text
    assert f"failed: No space left on device; 0 B of 2 MiB free. Last final block {final:,} is safe. " in text
    assert text.endswith("Free space, then restart.")
    remount(small_disk, "size=64m")
    with pytest.raises(StorageFailed, match="No space left on device"):
        store.commit(make_write(final + 1))  # also when there is room again
    store.close()
    store = open_chain(directory)
    assert final <= store.head.height <= final + 1
    check_chain(store, block_bytes=10_000)
    commit_blocks(store, 10, block_bytes=10_000)
    store.close()


def test_a_disk_that_fills_during_creation_is_named_and_leaves_no_database(small_disk: Path) -> None:
    rows = ((make_bytes("key", number), make_bytes("value", number, 1_000)) for number in range(10_000))

    with (
        pytest.raises(StorageFailed, match="No space left on device"),
        Store.create(small_disk / "data", DOCUMENT, GENESIS_HASH) as creation,
    ):
        creation.load_state(rows)

    remount(small_disk, "size=64m")
    assert isinstance(refused(small_disk / "data"), StorageMissing)
    create_chain(small_disk / "data")


def test_a_read_only_disk_is_refused_at_the_start(small_disk: Path) -> None:
    directory = small_disk / "data"
    make_chain(directory, 1).close()
    remount(small_disk, "ro")

    refusal = refused(directory)

    assert refusal.exit_code == 74
    assert str(refusal).startswith(f"{directory} is on a read-only file system. Mount it writable")
    remount(small_disk, "rw")


def test_a_disk_that_turns_read_only_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LevelDB gives a text and no number; the text is what the operator's remedy is found by."""
    store = make_chain(tmp_path, 1)

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

        def write(self) -> None:
            raise plyvel.IOError(f"IO error: {tmp_path}/db/000123.log: Read-only file system".encode())

    class Database:
        def write_batch(self, sync: bool) -> Failing:
            return Failing()

        def close(self) -> None:
            database.close()

    database = store._database
    monkeypatch.setattr(store, "_database", Database())

    with pytest.raises(
        StorageFailed, match=f"write to {tmp_path}/db/000123.log failed: Read-only file system; .* Mount it"
    ):
        store.commit(make_write(2))
    store.close()


# --- bit flips ------------------------------------------------------------------------------------------------


PROJECT = Path(__file__).parents[1]
DIE_AT_BLOCK_300 = """
import os, sys
from pathlib import Path
from node import store
from tests.store_rows import commit_blocks, make_chain, open_chain
store.LEVELDB_OPTIONS["write_buffer_size"] = 88 * 1024
make_chain(Path(sys.argv[1]), 150).close()
commit_blocks(open_chain(Path(sys.argv[1])), 150)
os._exit(0)
"""


@pytest.fixture(scope="module")
def killed_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an end without closing leaves of a chain: tables, a long manifest, a log, an anchor of many lines. The write
    buffer is of a size at which the last thing the manifest says is a new table, not a compaction."""
    directory = tmp_path_factory.mktemp("killed") / "data"
    subprocess.run(
        [sys.executable, "-c", DIE_AT_BLOCK_300, str(directory)], cwd=PROJECT, check=True, timeout=60
    )
    return directory


def record_ends(manifest: bytes) -> list[int]:
    """Where the records of a file in LevelDB's log format end: 4 bytes of checksum, 2 of length, 1 of type, data."""
    ends = [0]
    while ends[-1] < len(manifest):
        at = ends[-1]
        ends.append(at + 7 + int.from_bytes(manifest[at + 4 : at + 6], "little"))
    return ends[1:]


def test_a_manifest_that_lost_its_last_records_is_refused(killed_chain: Path, tmp_path: Path) -> None:
    """One flipped bit in a length does it. LevelDB then forgets whole tables and may serve a chain with a gap, whose
    head agrees with the anchor because it is in the log."""
    name = only(killed_chain, "MANIFEST-*").name
    ends = record_ends((killed_chain / "db" / name).read_bytes())
    assert len(ends) > 4
    words = []
    for end in ends[:-1]:
        copy = tmp_path / str(end)
        shutil.copytree(killed_chain, copy)
        os.truncate(copy / "db" / name, end)
        words.append(str(refused(copy)))

    assert any("missing files" in text for text in words)
    assert any("is missing below the head, 300" in text for text in words)


def test_every_flipped_bit_is_found_at_the_start_or_on_read_or_harmless(
    killed_chain: Path, tmp_path: Path
) -> None:
    """Files are chosen first, so that the small ones get their share. FLIPS=10000 for more."""
    rng = random.Random(7)
    files = sorted(path for path in killed_chain.rglob("*") if path.is_file() and path.stat().st_size)
    outcomes: Counter[str] = Counter()
    for number in range(FLIPS):
        file = files[number % len(files)]
        at, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
        copy = tmp_path / "copy"
        shutil.copytree(killed_chain, copy)
        flip(copy / file.relative_to(killed_chain), at, bit)
        outcomes[find_damage(copy, f"{file.name} byte {at} bit {bit}")] += 1
        shutil.rmtree(copy)

    assert outcomes.total() == FLIPS
    assert outcomes["at the start"] > FLIPS // 5
    assert outcomes["on read"] > FLIPS // 20
    assert outcomes["harmless"] < FLIPS // 2


def find_damage(directory: Path, where: str) -> str:
    """Where the damage is found; fails when wrong rows are served as good."""
    try:
        store = open_chain(directory)
    except (StorageDamaged, StorageMissing):
        return "at the start"
    try:
        assert store.head == make_head(300), where
        check_chain(store)
        store.check_rows()
    except StorageDamaged:
        return "on read"
    except AssertionError as difference:
        raise AssertionError(f"{where}: {difference}") from difference
    finally:
        store.close()
    return "harmless"
