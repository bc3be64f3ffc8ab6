"""What stands in the way of another Python is told in time, and once an hour."""

import os
from pathlib import Path

import pytest

from tests.network import interpreters
from tests.network.interpreters import FORGOTTEN_SECONDS, OTHER, NotHere, find_base, find_or_make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "crypto-trading-node"


def make_base(directory: Path, script: str) -> str:
    base = directory / "python"
    base.write_text(f"#!/bin/sh\n{script}\n")
    base.chmod(0o755)
    return str(base)


def test_a_machine_without_another_python_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match=f"no Python {OTHER} with venv and ensurepip here"):
        find_base()


def test_a_python_that_cannot_be_had_is_not_asked_for_again_within_an_hour(
    tmp_path: Path, cache: Path
) -> None:
    base = make_base(tmp_path, f"echo asked >> {tmp_path}/asked; echo no disk; exit 1")

    for _ in range(2):
        with pytest.raises(NotHere, match=f"no environment for Python {OTHER}: no disk"):
            find_or_make(base)
    assert (tmp_path / "asked").read_text() == "asked\n"

    (failed,) = cache.glob("*.failed")
    hour_ago = failed.stat().st_mtime - FORGOTTEN_SECONDS
    os.utime(failed, (hour_ago, hour_ago))
    with pytest.raises(NotHere, match="no disk"):
        find_or_make(base)
    assert (tmp_path / "asked").read_text() == "asked\nasked\n"


@pytest.mark.usefixtures("cache")
def test_a_python_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "MAKE_SECONDS_MAX", 0.1)
    with pytest.raises(NotHere, match=f"Python {OTHER} was not ready in 0.1 s"):
        find_or_make(make_base(tmp_path, "exec sleep 60"))
