"""How a command ends: exit codes as operators and systemd read them (docs/OPERATIONS.md).

Every expected failure of the command line is a `Failure`: one line on standard error and its code.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The meaning of a code other than 0; the numbers are those of sysexits.h."""

    USAGE = 64
    DAMAGED = 65
    MISSING = 66
    UNAVAILABLE = 69
    BROKEN = 70
    CANNOT_CREATE = 73
    STORAGE = 74
    NOT_READY = 75
    PERMISSION = 77
    CONFIGURATION = 78


class Failure(Exception):
    """An expected failure: what is wrong, where, and what to do, in one line."""

    def __init__(self, code: Exit | int, text: str) -> None:
        super().__init__(text)
        self.exit_code = code
