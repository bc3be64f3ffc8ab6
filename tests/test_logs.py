"""What a node says on standard error, for people and for programs."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from node.cli.logs import JsonFormatter
from tests.live_node import LiveNode

ROOT: Final = Path(__file__).parent.parent


@pytest.fixture
def record() -> logging.LogRecord:
    fields = {"peer": "grid-1", "reason": 'it said "no"\n2026 ERROR forged', "path": Path("/var")}
    return logging.LogRecord(
        "node.peering", logging.INFO, "", 0, "lost %(peer)s: %(reason)s", (fields,), None
    )


def test_fields_of_the_text_are_members_and_no_text_breaks_the_line(record: logging.LogRecord) -> None:
    record.created = 1_800_000_000.0625
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.062+00:00",
        "level": "info",
        "logger": "node.peering",
        "message": 'lost grid-1: it said "no"\n2026 ERROR forged',
        "peer": "grid-1",
        "reason": 'it said "no"\n2026 ERROR forged',
        "path": "/var",
    }


def test_a_fault_has_its_trace(record: logging.LogRecord) -> None:
    try:
        raise ZeroDivisionError("here")
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    assert "ZeroDivisionError: here" in json.loads(JsonFormatter().format(record))["trace"]


def test_each_line_of_a_run_is_an_object_to_the_last(tmp_path: Path) -> None:
    """Also the one that says why a node does not start."""
    with LiveNode(tmp_path / "node", flags=("--log-format", "json")) as node:
        command = [sys.executable, "-m", "node.cli.main", "run", "--dir", str(node.directory)]
        refused = subprocess.run(
            [*command, "--log-format", "json"], capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert node.stop() == 0
        said = objects(node.log())
    assert [each["message"] for each in said][-2:] == ["stopping", f"stopped at block {said[-1]['height']}"]
    (start,) = [each for each in said if "url" in each]
    assert (start["chain"], start["url"], start["level"]) == (7788, node.url, "info")

    last = objects(refused.stderr)[-1]
    assert refused.returncode == last["code"] == 69
    assert (last["level"], last["message"]) == ("critical", last["reason"])
    assert "another node" in last["reason"]


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]
