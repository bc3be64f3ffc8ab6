"""The shipped ABI is the code's, and what the node answers over JSON-RPC."""

import json
from pathlib import Path

import pytest

from node.cli.main import main
from rpc.ctt import abi

SHIPPED = Path(__file__).parent.parent / "docs" / "abi.json"


def test_the_shipped_abi_is_the_commands_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Regenerate it with `ctt abi > docs/abi.json`."""
    assert main(["abi"]) == 0
    assert capsys.readouterr().out == SHIPPED.read_text()


def test_the_node_answers_with_the_same() -> None:
    assert json.loads(abi(None)) == json.loads(SHIPPED.read_text())  # type: ignore[arg-type]  # it asks its caller nothing
