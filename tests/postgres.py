"""A real PostgreSQL for tests, where Debian's package is: a cluster in a directory of its own, at a socket there."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

BINARIES: Final = Path("/usr/lib/postgresql")
USER: Final = "postgres"
# Nothing here is to outlive the test, so nothing waits for the disk.
SETTINGS: Final = "-c listen_addresses= -c fsync=off -c max_connections=20 -c shared_buffers=64MB"


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of its database. Skips the test where there is no PostgreSQL, or nobody to run it as."""
    versions = sorted(BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if not versions:
        pytest.skip(f"no PostgreSQL in {BINARIES}")
    if os.getuid() == 0 and not (shutil.which("runuser") and _has_user()):
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {USER}")
    binaries = versions[-1].parent
    directory = Path(tempfile.mkdtemp(prefix="ctt-pg-"))
    try:
        if os.getuid() == 0:
            shutil.chown(directory, USER)
        data = directory / "data"
        _run(binaries / "initdb", "-D", data, "-U", USER, "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        control = (binaries / "pg_ctl", "-D", data, "-w", "-s")
        _run(*control, "-l", directory / "log", "-o", f"{SETTINGS} -k {directory}", "start")
        try:
            yield f"postgresql://{USER}@/postgres?host={directory}"
        finally:
            _run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


def _has_user() -> bool:
    return subprocess.run(("id", USER), capture_output=True, check=False).returncode == 0


def _run(*command: object) -> None:
    as_user = ("runuser", "-u", USER, "--") if os.getuid() == 0 else ()
    subprocess.run((*as_user, *map(str, command)), check=True, cwd="/", stdout=subprocess.DEVNULL)
