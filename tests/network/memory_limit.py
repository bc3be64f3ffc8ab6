"""The kernel's memory limits on one process: it is killed for want of memory (cgroup v1 or v2; needs root), or refused
more of it."""

import os
import resource
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

LIMIT_BYTES: Final = 64 * 1024
EMPTY_SECONDS_MAX: Final = 5.0

_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = Path("/sys/fs/cgroup")


@cache
def why_not() -> str | None:
    """Why memory cannot be limited here; None when it can."""
    try:
        with MemoryLimit():
            return None
    except OSError as fault:
        return f"no memory cgroup can be made here: {fault.strerror}"


def require() -> None:
    """Skips the test where it cannot."""
    if reason := why_not():
        pytest.skip(reason)


class MemoryLimit:
    """A control group of its own, between `with` and its end."""

    def __init__(self) -> None:
        parent, limit = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
        self._group = parent / f"ctt-{os.getpid()}"
        self._limit = self._group / limit

    def __enter__(self) -> Self:
        self._group.mkdir()
        try:
            self._limit.write_text(str(LIMIT_BYTES))
        except OSError:
            self._group.rmdir()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Who still lives goes back to where it came from."""
        deadline = time.monotonic() + EMPTY_SECONDS_MAX
        while True:  # a process that has just ended may still be counted
            for pid in (self._group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (self._group.parent / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                self._group.rmdir()
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._group} is not empty")
            time.sleep(0.05)

    def starve(self, pid: int) -> None:
        """What the process has it keeps; it gets no more than LIMIT_BYTES. Raises: OSError."""
        (self._group / "cgroup.procs").write_text(str(pid))


def refuse_more(pid: int) -> None:
    """What the process has it keeps; asked for much more, the system says no. Raises: OSError."""
    (data,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmData" in line]
    limit = int(data.split()[1]) * 1024 + LIMIT_BYTES
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
