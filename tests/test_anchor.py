"""The anchor file: what it keeps, what a power cut may do to it, and what counts as damage."""

import errno
import os
from pathlib import Path

import pytest

from node import anchor as anchor_module
from node.anchor import ANCHOR_BYTES_MAX, Anchor, read_anchor
from node.datadir import StorageDamaged, StorageFailed
from tests.store_rows import GENESIS_HASH, OTHER_GENESIS_HASH, make_head

LINE_BYTES = 160


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An anchor of blocks 7 to 17."""
    path = tmp_path / "anchor"
    anchor = Anchor(path, GENESIS_HASH, make_head(7))
    for height in range(8, 18):
        anchor.append(make_head(height))
    anchor.close()
    return path


def test_the_last_appended_head_is_read_back(path: Path) -> None:
    assert read_anchor(path, GENESIS_HASH) == make_head(17)


def test_a_last_line_of_any_length_counts_as_absent(path: Path) -> None:
    whole = path.read_bytes()
    for cut in range(1, LINE_BYTES + 1):
        path.write_bytes(whole[:-cut])
        assert read_anchor(path, GENESIS_HASH) == make_head(16)


def test_a_last_line_of_zeros_counts_as_absent(path: Path) -> None:
    """A file system may keep the new length and lose the content."""
    path.write_bytes(path.read_bytes()[:-LINE_BYTES] + bytes(LINE_BYTES))

    assert read_anchor(path, GENESIS_HASH) == make_head(16)


def test_every_flipped_bit_is_damage_or_the_absence_of_the_last_line(path: Path) -> None:
    whole = path.read_bytes()
    last_line = len(whole) - LINE_BYTES
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        if at >= last_line:
            assert read_anchor(path, GENESIS_HASH) == make_head(16)
        else:
            with pytest.raises(StorageDamaged, match=r"line \d+ is damaged"):
                read_anchor(path, GENESIS_HASH)


def test_a_missing_line_in_the_middle_is_damage(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))

    with pytest.raises(StorageDamaged, match="line 6 is damaged"):
        read_anchor(path, GENESIS_HASH)


def test_a_header_without_a_line_is_damage(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    with pytest.raises(StorageDamaged, match="line 2 is damaged"):
        read_anchor(path, GENESIS_HASH)


def test_an_empty_anchor_is_damage(path: Path) -> None:
    path.write_bytes(b"")

    with pytest.raises(StorageDamaged, match="line 1 is damaged"):
        read_anchor(path, GENESIS_HASH)


def test_an_anchor_beyond_its_bound_is_refused_before_it_fills_the_memory(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(10 * ANCHOR_BYTES_MAX)

    with pytest.raises(StorageDamaged, match="it is larger than 262,144 bytes"):
        read_anchor(path, GENESIS_HASH)


def test_a_missing_anchor_is_damage(tmp_path: Path) -> None:
    with pytest.raises(StorageDamaged, match="it is missing; whether every final block") as refusal:
        read_anchor(tmp_path / "anchor", GENESIS_HASH)

    assert refusal.value.exit_code == 65


def test_another_chains_anchor_is_refused_with_both_genesis_hashes(path: Path) -> None:
    with pytest.raises(StorageDamaged, match=f"0x{GENESIS_HASH.hex()}.*0x{OTHER_GENESIS_HASH.hex()}"):
        read_anchor(path, OTHER_GENESIS_HASH)


def test_a_linked_anchor_is_not_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)

    with pytest.raises(StorageFailed):
        read_anchor(link, GENESIS_HASH)


def test_an_anchor_starts_anew_before_it_passes_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor_module, "ANCHOR_BYTES_MAX", 1_000)
    path = tmp_path / "anchor"
    anchor = Anchor(path, GENESIS_HASH, make_head(0))
    sizes = []

    for height in range(1, 50):
        anchor.append(make_head(height))
        sizes.append(path.stat().st_size)
        assert read_anchor(path, GENESIS_HASH) == make_head(height)

    assert max(sizes) <= 1_000
    assert sizes.count(min(sizes)) > 5  # restarts
    assert os.listdir(tmp_path) == ["anchor"]
    anchor.close()


def test_a_failing_disk_is_named_with_the_last_safe_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = Anchor(tmp_path / "anchor", GENESIS_HASH, make_head(7))

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)

    with pytest.raises(
        StorageFailed, match="anchor failed: Input/output error; .*Last final block 7 is safe"
    ):
        anchor.append(make_head(8))
    anchor.close()
