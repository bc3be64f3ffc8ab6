"""Another supported Python beside the one that runs the tests, with the packages of the lock.

It is made once, in the user's cache, and by its name it belongs to one interpreter and one lock. Where that cannot be
done in MAKE_SECONDS_MAX, networks run on one Python, and the reason is kept for an hour rather than found out again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.live_node import GENESIS

LOCK: Final = GENESIS.parent / "requirements.lock"
OTHER: Final = "3.11" if sys.version_info[:2] == (3, 12) else "3.12"
MAKE_SECONDS_MAX: Final = 100.0
FORGOTTEN_SECONDS: Final = 3_600.0
PROBE: Final = f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != {OTHER!r})"
PIP: Final = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10")
HASHED_WHEELS: Final = ("--require-hashes", "--only-binary", ":all:")


class NotHere(Exception):
    """There is no other Python to be had; the text says why."""


def require() -> str:
    """The other interpreter. Skips the test where there is none."""
    try:
        return find()
    except NotHere as reason:
        pytest.skip(str(reason))


def other_or_own() -> str:
    """Two nodes of a network on it are two kinds of node, where that is possible."""
    try:
        return find()
    except NotHere:
        return sys.executable


def find() -> str:
    """Its path, made if need be. Raises: NotHere."""
    found = _find()
    if isinstance(found, NotHere):
        raise found
    return found


@cache
def _find() -> str | NotHere:
    try:
        return find_or_make(find_base())
    except NotHere as reason:
        return reason
    except OSError as fault:
        return NotHere(f"no environment for Python {OTHER}: {fault}")


def find_base() -> str:
    """An interpreter of the other version that runs. Raises: NotHere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [f"python{OTHER}", *map(str, sorted(pyenv.glob(f"{OTHER}.*/bin/python"), reverse=True))]
    for path in filter(None, map(shutil.which, names)):
        if subprocess.run([path, "-c", PROBE], capture_output=True).returncode == 0:
            return path
    raise NotHere(f"no Python {OTHER} with venv and ensurepip here")


def find_or_make(base: str) -> str:
    """Raises: NotHere, OSError."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crypto-trading-node"
    key = hashlib.sha256(base.encode() + LOCK.read_bytes()).hexdigest()[:16]
    environment = caches / f"python{OTHER}-{key}"
    python, ready = environment / "bin" / "python", environment / "ready"
    failed = caches / f"{environment.name}.failed"
    caches.mkdir(parents=True, exist_ok=True)
    with _only_one(caches / f"{environment.name}.lock"):
        if not ready.exists():
            _check_failed_lately(failed)
            try:
                _make(base, environment)
            except NotHere as reason:
                failed.write_text(str(reason))
                raise
            ready.touch()
    return str(python)


def _check_failed_lately(failed: Path) -> None:
    """Raises: NotHere."""
    if failed.exists() and time.time() - failed.stat().st_mtime < FORGOTTEN_SECONDS:
        raise NotHere(failed.read_text())


def _make(base: str, environment: Path) -> None:
    """Raises: NotHere."""
    python = str(environment / "bin" / "python")
    deadline = time.monotonic() + MAKE_SECONDS_MAX
    for command in (
        [base, "-m", "venv", "--clear", str(environment)],
        [python, *PIP, "install", *HASHED_WHEELS, "--requirement", str(LOCK)],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=deadline - time.monotonic()
            )
        except subprocess.TimeoutExpired:
            raise NotHere(f"Python {OTHER} was not ready in {MAKE_SECONDS_MAX:g} s") from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["no word"]
            raise NotHere(f"no environment for Python {OTHER}: {said[-1]}")


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """Two runs of the tests at once wait for each other."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
