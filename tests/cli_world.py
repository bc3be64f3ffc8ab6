"""The `ctt` command in this process, as a test runs it."""

from typing import NamedTuple

import pytest

from node.cli.main import main


class Result(NamedTuple):
    """How the command ended and what it said."""

    code: int
    out: str
    err: str


class Ctt:
    """Called with the arguments after `command`. Nothing that a user can do wrong may show a traceback.

    `one_line`: what fails is said in one line, and nothing beside what succeeds.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], *command: str, one_line: bool = False) -> None:
        self._capsys = capsys
        self._command = command
        self._one_line = one_line

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        try:
            code = main([*self._command, *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        result = Result(int(code), *self._capsys.readouterr())
        assert "Traceback" not in result.err
        if self._one_line:
            assert result.err.count("\n") == (1 if result.code else 0), result.err
        return result
