"""Makes `.venv` from a lock file, once: `python .ci/environment.py requirements.lock` (`make` calls it).

Every file that is installed must have a hash of the lock. An installation that was interrupted leaves a mark, and the
next call starts afresh; two calls at once wait for each other. Standard library only: nothing is installed yet.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
PYTHON: Final = VENV / "bin" / "python"
UNFINISHED: Final = VENV / "unfinished"
IS_SUPPORTED: Final = "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))"

# Where a package has no wheel for a platform it is built from its source, with a compiler (and LevelDB) found there.
BUILT_FROM_SOURCE: Final = {
    ("Linux", "x86_64"): [],
    ("Linux", "aarch64"): ["plyvel"],
    ("Darwin", "arm64"): ["plyvel", "safe-pysha3"],
}


class Failed(Exception):
    """No environment; the text says why and what to do."""


def main(lock: Path) -> None:
    """Raises: Failed."""
    stamp = VENV / f"{lock.name}.done"
    with only_one():
        if not is_current(stamp, [lock, ROOT / "pyproject.toml", Path(__file__)]):
            install(lock)
            stamp.touch()


@contextmanager
def only_one() -> Iterator[None]:
    with Path(__file__).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_current(stamp: Path, sources: list[Path]) -> bool:
    if UNFINISHED.exists() or not stamp.exists():
        return False
    return stamp.stat().st_mtime_ns >= max(source.stat().st_mtime_ns for source in sources)


def install(lock: Path) -> None:
    if UNFINISHED.exists() or not is_usable():
        create()
    UNFINISHED.touch()
    print(f"installing {lock.name} into .venv (Python {platform.python_version()})", flush=True)
    sources = BUILT_FROM_SOURCE.get((platform.system(), platform.machine()), ["plyvel", "safe-pysha3"])
    if sources:
        pip_install("--require-hashes", "--only-binary", ":all:", "--requirement", build_tools(lock))
    pip_install("--require-hashes", *binaries(sources), "--requirement", str(lock))
    pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    UNFINISHED.unlink()


def is_usable() -> bool:
    """Whether there is an environment with a supported Python and pip."""
    return (
        PYTHON.exists() and subprocess.run([PYTHON, "-c", IS_SUPPORTED], capture_output=True).returncode == 0
    )


def create() -> None:
    print(f"making .venv with {sys.executable}", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True)
    if made.returncode == 0:
        return
    message = (made.stdout + made.stderr).strip()
    if "ensurepip" in message or "No module named venv" in message:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        remedy = f"install them (Debian, Ubuntu: apt-get install python{version}-venv)"
        raise Failed(f"{sys.executable} has no venv or ensurepip; {remedy}")
    raise Failed(f"{sys.executable} -m venv failed: {message}")


def binaries(sources: list[str]) -> list[str]:
    options = ["--only-binary", ":all:"]
    for name in sources:
        options += ["--no-binary", name]
    return [*options, "--no-build-isolation"]


def build_tools(lock: Path) -> str:
    """A file with the lock's lines of setuptools, which builds the packages that have no wheel."""
    lines, is_wanted = [], False
    for line in lock.read_text().splitlines(keepends=True):
        is_wanted = line.startswith("setuptools==") or (is_wanted and line.startswith("    --hash"))
        lines += [line] if is_wanted else []
    file = VENV / "build-tools.lock"
    file.write_text("".join(lines))
    return str(file)


def pip_install(*arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    # setuptools warns at every editable installation that it is one.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    code = subprocess.run([PYTHON, "-m", "pip", "install", *quiet, *arguments], env=environment).returncode
    if code > 0:
        UNFINISHED.unlink()  # pip undoes what it began, unless it was killed
        raise Failed("pip could not install; its message is above")
    if code < 0:
        raise Failed(f"pip was ended by signal {-code}; the next make starts afresh")


if __name__ == "__main__":
    try:
        main(ROOT / sys.argv[1])
    except Failed as failure:
        sys.exit(f"environment: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
