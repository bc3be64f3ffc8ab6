"""A whole state's leaves, in memory or put away: each once, in the order of their key hashes."""

import os
from pathlib import Path

import pytest

from ctt_state.crypto import sha256
from node import leaves as leaves_module
from node.datadir import StorageFailed
from node.leaves import Leaves


@pytest.mark.parametrize("held", [64, 6_400, 64_000, 10**9])
def test_leaves_come_in_order_whatever_memory_they_have(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put away one by one, by the hundred, all at the very end, and never."""
    monkeypatch.setattr(leaves_module, "HELD_BYTES_MAX", held)
    count = 40 if held == 64 else 1_000
    rows = [(b"key %d" % number, b"value %d" % number) for number in range(count)]
    leaves = Leaves(tmp_path)
    for key, data in rows:
        leaves.add(key, data)

    assert list(leaves) == sorted((sha256(key), sha256(data)) for key, data in rows)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_takes_no_leaves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves_module, "HELD_BYTES_MAX", 64)

    with pytest.raises(StorageFailed, match="write to .*gone failed: No such file or directory"):
        Leaves(tmp_path / "gone").add(b"key", b"value")
