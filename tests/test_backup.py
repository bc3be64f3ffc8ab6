"""`ctt backup` and `ctt restore`: what comes back is what was there, or nothing comes back."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.crypto import public_key
from ctt_state.genesis import development_key
from node import backup, datadir
from node.backup import MAGIC, BackupDamaged, BackupReader, Frame, load_backup, offer_backups, read_store
from node.cli import backup as backup_command
from node.cli import restore as restore_command
from node.cli.init import initialise
from node.exits import Exit
from node.journal import is_guarded
from node.ledger import Ledger
from node.store import SCHEMA_VERSION, Store
from tests.cli_world import Ctt
from tests.ledger_world import (
    ALICE_KEY,
    GENESIS,
    METER_KEYS,
    OWNERS,
    add_block,
    document,
    finish,
    make_ledger,
    make_plan,
    sign,
    sign_call,
    state_of,
)

BLOCKS: Final = 4
KEY: Final = public_key(development_key(0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validator's directory, stopped, with transfers and readings in its chain."""
    directory = tmp_path_factory.mktemp("made") / "node"
    initialise(directory, document(), development_key(0))
    ledger = Ledger.open(directory)
    for nonce in range(BLOCKS):
        add_readings(ledger, nonce)
    ledger.close()
    return directory


@pytest.fixture(scope="module")
def content(made: Path) -> bytes:
    """Its backup."""
    return backup_of(made)


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, one_line=True)


def add_readings(ledger: Ledger, nonce: int) -> None:
    calls = [
        sign_call(key, nonce, "refill(uint256,address)", 100, OWNERS[index])
        for index, key in enumerate(METER_KEYS)
    ]
    add_block(ledger, [sign(ALICE_KEY, nonce), *calls])


def backup_of(directory: Path) -> bytes:
    store = Store.open(directory)
    try:
        return MAGIC + b"".join(frame.encode() for frame in read_store(store, KEY).frames)
    finally:
        store.close()


def rows_of(directory: Path) -> list[tuple[bytes, bytes]]:
    store = Store.open(directory)
    try:
        return list(store.image()[1])
    finally:
        store.close()


# --- there and back ---


def test_what_is_restored_is_what_was_there(made: Path, tmp_path: Path, ctt: Ctt) -> None:
    file, directory = tmp_path / "grid.backup", tmp_path / "restored"
    told = json.loads(ctt("backup", made, file, "--json").out)
    assert (told["height"], told["consensusKey"]) == (BLOCKS, f"0x{KEY.hex()}")
    assert told["bytes"] == file.stat().st_size
    assert json.loads(ctt("restore", file, directory, "--json").out)["blockHash"] == told["blockHash"]
    assert rows_of(directory) == rows_of(made)
    assert ctt("verify", "--dir", directory).code == 0


def test_a_backup_has_neither_key_nor_votes(made: Path, tmp_path: Path, ctt: Ctt) -> None:
    file, directory = tmp_path / "grid.backup", tmp_path / "restored"
    ctt("backup", made, file)
    assert file.stat().st_mode & 0o777 == 0o600
    for secret in (
        development_key(0),
        development_key(0).hex().encode(),
        (made / "validator.key").read_bytes(),
    ):
        assert secret.strip() not in file.read_bytes()
    ctt("restore", file, directory)
    assert {each.name for each in directory.iterdir()} == {"db", "anchor", "votes", "node.lock"}
    assert is_guarded(directory)


def test_the_directory_may_be_named_by_its_settings(made: Path, tmp_path: Path, ctt: Ctt) -> None:
    directory = Path(shutil.copytree(made, tmp_path / "node"))
    (directory / "node.toml").write_text("rpc-port = 8545\n")
    assert ctt("backup", directory / "node.toml", tmp_path / "grid.backup").code == 0


@settings(max_examples=12, deadline=None)
@given(plan=st.lists(st.sampled_from(["empty", "transfer", "reading", "uncertified"]), max_size=25))
def test_any_chain_comes_back_with_its_root_and_its_answers(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str]
) -> None:
    place = tmp_path_factory.mktemp("chain")
    ledger = make_ledger(place / "node", epochBlocks=10)
    for index, what in enumerate(plan):
        extend(ledger, what, nonce=plan[:index].count(what))
    frames = [frame.encode() for frame in read_store(ledger.store, b"").frames]
    add_block(ledger)  # what comes later is in no backup that has begun
    (place / "file").write_bytes(MAGIC + b"".join(frames))
    with (place / "file").open("rb") as file:
        load_backup(BackupReader(file.read, "file"), place / "restored", lambda _: None)
    restored = Ledger.open(place / "restored")
    assert restored.head.block.header == ledger.block(len(plan)).block.header  # type: ignore[union-attr]
    for height in range(len(plan) + 1):
        assert restored.block(height) == ledger.block(height)
        states = state_of(restored, height), state_of(ledger, height)
        for key, _ in ledger.store.state_rows():
            assert states[0](key) == states[1](key)
    restored.close()
    ledger.close()


def extend(ledger: Ledger, what: str, *, nonce: int) -> None:
    match what:
        case "empty":
            add_block(ledger)
        case "transfer":
            add_block(ledger, [sign(ALICE_KEY, nonce)])
        case "reading":
            add_block(ledger, [sign_call(METER_KEYS[0], nonce, "refill(uint256,address)", 100, OWNERS[0])])
        case "uncertified":
            executed, _ = ledger.build(make_plan(ledger), [])
            finish(ledger, executed, is_certified=executed.header.height % 10 == 0)


# --- what is refused ---


def refused(ctt: Ctt, content: bytes, tmp_path: Path, *options: object, code: int = Exit.DAMAGED) -> str:
    """Why this file is not restored. Nothing is left of the try: a good file can be restored there."""
    file, directory = tmp_path / "grid.backup", tmp_path / "restored"
    file.write_bytes(content)
    result = ctt("restore", file, directory, *options)
    assert result.code == code, result
    assert {each.name for each in directory.iterdir()} <= {"node.lock"} if directory.exists() else True
    return result.err


@pytest.mark.parametrize("kept", [0, 5, len(MAGIC), 14, 100, 0.3, 0.9, -100, -5, -1])
def test_a_truncated_backup_is_refused(content: bytes, tmp_path: Path, ctt: Ctt, kept: float) -> None:
    size = int(len(content) * kept) if 0 < kept < 1 else int(kept) % len(content)
    assert f"is truncated: it ends at byte {size:,}" in refused(ctt, content[:size], tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_flipped_bit_is_found(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[at // 8] ^= 1 << at % 8
    with pytest.raises(BackupDamaged):
        read_all(bytes(damaged))


def read_all(content: bytes) -> int:
    """How many rows it has."""
    return sum(1 for _ in BackupReader(BytesIO(content).read, "grid.backup").rows())


def test_a_damaged_backup_is_refused(content: bytes, tmp_path: Path, ctt: Ctt) -> None:
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    assert "wrong checksum; take another one" in refused(ctt, bytes(damaged), tmp_path)


def test_what_goes_on_after_its_end_is_refused(content: bytes, tmp_path: Path, ctt: Ctt) -> None:
    assert f"goes on after its end at byte {len(content):,}" in refused(ctt, content + b"\0", tmp_path)


def test_what_is_no_backup_is_refused(tmp_path: Path, ctt: Ctt) -> None:
    assert "is no backup of a node" in refused(ctt, GENESIS.read_bytes(), tmp_path)


def test_pieces_of_two_backups_are_refused(content: bytes, tmp_path: Path, ctt: Ctt) -> None:
    """Each piece has its checksum, all of them together another one."""

    def swap(frames: list[Frame]) -> None:
        frames[1] = Frame(b"R", msgpack.packb([b"mhead", b"another"]))

    error = refused(ctt, changed(content, swap), tmp_path)
    assert "its pieces are not those that were written" in error


def changed(content: bytes, change: Callable[[list[Frame]], None], *, is_sealed: bool = False) -> bytes:
    """With other frames; the end still says what the frames before were, unless it is sealed anew."""
    at, frames = len(MAGIC), []
    while at < len(content):
        length = int.from_bytes(content[at + 1 : at + 5], "big")
        frames.append(Frame(content[at : at + 1], content[at + 5 : at + 5 + length]))
        at += 9 + length
    change(frames)
    if is_sealed:
        rows = sum(len(msgpack.unpackb(each.content)) // 2 for each in frames[1:-1])
        digest = sha256(b"".join(each.content for each in frames[:-1])).digest()
        frames[-1] = Frame(b"E", msgpack.packb([rows, digest]))
    return MAGIC + b"".join(each.encode() for each in frames)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (0, backup.FORMAT + 1, f"is written in format {backup.FORMAT + 1}, this program reads format 1"),
        (1, SCHEMA_VERSION + 1, f"is written in schema {SCHEMA_VERSION + 1}, this program reads schema"),
        (1, SCHEMA_VERSION - 1, f"is written in schema {SCHEMA_VERSION - 1}, this program reads schema"),
        (2, b"{}", "does not say what it is of"),
        (3, bytes(32), "does not say what it is of"),
        (4, [1, bytes(32), bytes(32)], "does not have the blocks that it says"),
    ],
)
def test_a_backup_of_another_kind_is_refused(
    content: bytes, tmp_path: Path, ctt: Ctt, field: int, value: Any, text: str
) -> None:
    def change(frames: list[Frame]) -> None:
        summary = msgpack.unpackb(frames[0].content)
        summary[field] = value
        frames[0] = Frame(b"H", msgpack.packb(summary))

    assert text in refused(ctt, changed(content, change, is_sealed=True), tmp_path)


def test_the_backup_of_another_chain_is_refused(content: bytes, tmp_path: Path, ctt: Ctt) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(document(chainId=5))
    assert "is of genesis 0x" in refused(ctt, content, tmp_path, "--genesis", other)
    own = tmp_path / "own.json"
    own.write_bytes(document())
    assert ctt("restore", tmp_path / "grid.backup", tmp_path / "restored", "--genesis", own).code == 0


def test_a_chain_that_is_not_sound_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever made it knew how to write a backup, not the validators' keys."""

    def forge(frames: list[Frame]) -> None:
        items = msgpack.unpackb(frames[1].content)
        at = next(index for index in range(0, len(items), 2) if items[index][:1] == b"s")
        items[at + 1] = items[at + 1][:-1] + bytes([items[at + 1][-1] ^ 1])
        frames[1] = Frame(b"R", msgpack.packb(items))

    error = refused(Ctt(capsys), changed(content, forge, is_sealed=True), tmp_path)
    assert "the records have state root" in error
    assert "is not a sound chain" in error
    assert "nothing was restored" in error


def test_only_an_empty_directory_is_restored_into(
    content: bytes, made: Path, tmp_path: Path, ctt: Ctt
) -> None:
    file, directory = tmp_path / "grid.backup", tmp_path / "restored"
    file.write_bytes(content)
    directory.mkdir()
    (directory / "validator.key").touch()
    result = ctt("restore", file, directory)
    assert (result.code, "is not empty (it has validator.key)" in result.err) == (Exit.CANNOT_CREATE, True)
    assert "is not empty" in ctt("restore", file, made).err
    (directory / "validator.key").unlink()
    (directory / "restoring").mkdir()  # of an interrupted restore
    (directory / "restoring" / "db.new").mkdir()
    assert ctt("restore", file, directory).code == 0


def test_no_file_is_overwritten(made: Path, tmp_path: Path, ctt: Ctt) -> None:
    file = tmp_path / "grid.backup"
    file.write_text("mine")
    result = ctt("backup", made, file)
    assert (result.code, file.read_text()) == (Exit.CANNOT_CREATE, "mine")
    assert "exists already; a backup overwrites nothing" in result.err


def test_there_has_to_be_room(
    made: Path, content: bytes, tmp_path: Path, ctt: Ctt, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (backup_command, restore_command):
        monkeypatch.setattr(command, "free_bytes", lambda _: (datadir.SPACE_LIMITS.stop_bytes, 1 << 40))
    result = ctt("backup", made, tmp_path / "new.backup")
    assert (result.code, "only 512 MiB free; need 512 MiB" in result.err) == (Exit.STORAGE, True)
    assert list(tmp_path.iterdir()) == []
    assert "only 512 MiB free" in refused(ctt, content, tmp_path, code=Exit.STORAGE)


def test_what_is_not_there_is_said(tmp_path: Path, ctt: Ctt) -> None:
    assert ctt("restore", tmp_path / "none", tmp_path / "restored").code == Exit.MISSING
    assert ctt("backup", tmp_path / "none", tmp_path / "file").code == Exit.MISSING
    assert ctt("backup", tmp_path, tmp_path / "file").code == Exit.MISSING


# --- a node that runs ---


@pytest.mark.asyncio
async def test_who_connects_gets_the_backup_of_a_running_node(made: Path, tmp_path: Path) -> None:
    long = tmp_path / ("long-" * 20) / ("path-" * 20)  # no socket's name may be so long
    store = Store.open(Path(shutil.copytree(made, long)))
    try:
        async with offer_backups(store, KEY):
            assert (long / backup.SOCKET).stat().st_mode & 0o777 == 0o600
            got = await asyncio.gather(*(asyncio.to_thread(take, long) for _ in range(3)))
        assert not (long / backup.SOCKET).exists()
    finally:
        store.close()
    assert {read_all(each) for each in got} == {len(rows_of(made))}


def take(directory: Path) -> bytes:
    with backup.connect(directory) as connection, connection.makefile("rb") as stream:
        return stream.read()


@pytest.mark.asyncio
async def test_a_node_that_stops_does_not_wait_for_a_slow_client(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(Path(shutil.copytree(made, tmp_path / "node")))
    monkeypatch.setattr(backup, "PIECE_ROWS", 1)
    monkeypatch.setattr(backup, "REST", 100_000)
    try:
        async with offer_backups(store, KEY):
            with backup.connect(tmp_path / "node") as connection:
                await asyncio.to_thread(connection.recv, 20)
        assert [each for each in threading.enumerate() if each.name.startswith("backup")] == []
    finally:
        store.close()


def test_a_directory_in_use_without_a_node_is_refused(made: Path, tmp_path: Path, ctt: Ctt) -> None:
    lock = datadir.DirectoryLock.acquire(made)
    try:
        result = ctt("backup", made, tmp_path / "file")
    finally:
        lock.release()
    assert (result.code, "offers no backup" in result.err) == (Exit.UNAVAILABLE, True)


def test_what_ends_before_it_is_whole_leaves_no_file(
    made: Path, content: bytes, tmp_path: Path, ctt: Ctt
) -> None:
    directory = Path(shutil.copytree(made, tmp_path / "node"))
    lock = datadir.DirectoryLock.acquire(directory)
    with backup._listen(directory) as listening:
        listening.setblocking(True)
        node = threading.Thread(target=lambda: send(listening, content[:-9]))
        node.start()
        result = ctt("backup", directory, tmp_path / "file")
        node.join()
    lock.release()
    assert (result.code, "ended before its backup was whole" in result.err) == (Exit.UNAVAILABLE, True)
    assert [each.name for each in tmp_path.iterdir()] == ["node"]


def send(listening: Any, content: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(content)


# --- the guard's file ---


def test_a_journal_that_the_operator_vouches_for_lifts_the_guard(
    made: Path, content: bytes, tmp_path: Path, ctt: Ctt
) -> None:
    file, directory, marks = tmp_path / "file", tmp_path / "restored", tmp_path / "marks.json"
    file.write_bytes(content)
    ctt("restore", file, directory)
    shutil.copy(made / "validator.key", directory)
    marks.write_text(ctt("journal", "export", "--dir", made).out)
    assert ctt("journal", "import", "--dir", directory, marks).code == 0
    assert not is_guarded(directory)
    assert os.path.lexists(directory / "votes" / "journal")
