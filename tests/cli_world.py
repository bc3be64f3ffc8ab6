"""The `ctt` command in this process, as a test runs it."""

import json
from typing import Any, NamedTuple

import pytest

from node.cli.main import main
from tests.live_node import LiveNode


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


class Desk:
    """A command at a live node's door, as whoever's key is named: NAME.key lies beside the node's directory. `key` is
    whose it is when none is named."""

    def __init__(self, ctt: Ctt, node: LiveNode, key: str = "") -> None:
        self.node = node
        self._ctt, self._key = ctt, key

    def __call__(self, *arguments: object, key: str = "") -> Result:
        flags = ("--key", self.node.directory.parent / f"{key}.key") if key else ()
        return self._ctt(*arguments, *flags, "--rpc", self.node.url)

    def done(self, *arguments: object, key: str | None = None) -> str:
        result = self(*arguments, key=self._key if key is None else key)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def told(self, *arguments: object, key: str | None = None) -> Any:
        return json.loads(self.done(*arguments, "--json", key=key))

    def refusal(self, *arguments: object, key: str | None = None) -> str:
        result = self(*arguments, key=self._key if key is None else key)
        assert (result.code, result.out) == (77, ""), result
        return result.err.removeprefix("ctt: refused: ").rstrip("\n")
