"""The clients of npm, as `package-lock.json` names them, beside the tests: installed once, and found again after that."""

import fcntl
import json
import shutil
import subprocess
import time
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"
INSTALL_SECONDS_MAX: Final = 80.0
SCRIPT_SECONDS_MAX: Final = 80.0
INSTALL: Final = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
QUICKLY: Final = [
    "--prefer-offline",
    "--fetch-timeout=20000",
    "--fetch-retry-mintimeout=500",
    "--fetch-retry-maxtimeout=1000",
]


def install(directory: Path = HERE) -> None:
    """The packages that are named in this directory are in it, or the test is skipped with the reason."""
    reason = _install(directory)
    if reason:
        pytest.skip(reason)


@cache
def _install(directory: Path) -> str:
    """Why not; empty when it is done. Test processes take turns, and believe one that tried while they waited."""
    lock, modules = directory / "package-lock.json", directory / "node_modules"
    installed, failed = modules / ".installed", modules / ".failed"  # the digest of the lock; why
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"no {program}"
    digest = sha256(lock.read_bytes()).hexdigest()
    began = time.time()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if installed.exists() and installed.read_text() == digest:
            return ""
        if failed.exists() and failed.stat().st_mtime > began:
            return failed.read_text()
        reason = _run_npm(directory)
        modules.mkdir(exist_ok=True)
        if reason:
            failed.write_text(reason)
        else:
            installed.write_text(digest)
    return reason


def _run_npm(directory: Path) -> str:
    """Why it did not install; empty when it did."""
    try:
        done = subprocess.run(
            [*INSTALL, *QUICKLY],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"npm did not install {directory.name} within {INSTALL_SECONDS_MAX:g} s"
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        return f"npm could not install {directory.name}: {'; '.join(faults[:3])}"
    return ""


class Told:
    """What a script of named checks told: a value of each, or the error that ended it."""

    def __init__(self, output: str) -> None:
        self._lines: dict[str, dict[str, Any]] = {
            line["name"]: line for line in map(json.loads, output.splitlines())
        }

    def __getitem__(self, name: str) -> Any:
        line = self._lines[name]
        assert "error" not in line, line["error"]
        return line["value"]


def run_script(name: str, task: dict[str, Any]) -> Told:
    """Runs `name`, which finds `task` in its only argument."""
    command = ["node", str(HERE / name), json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_SECONDS_MAX, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return Told(done.stdout)


def cast_program() -> Path:
    """Foundry's cast itself; the test is skipped where the registry has none for this machine."""
    install()
    found = sorted(MODULES.glob("@foundry-rs/cast-*/bin/cast"))
    if not found:
        pytest.skip("the registry has no cast for this machine")
    return found[0]
