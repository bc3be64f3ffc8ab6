"""The golden vectors: bytes, hashes and roots that no change may move unnoticed."""

import json
from typing import Any

import pytest

from ctt_state.records import decode_record
from tests.vectors.regenerate import FOLDER, VECTORS, differences, readable


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@pytest.mark.parametrize("name", VECTORS)
def test_the_code_says_what_the_vectors_say(name: str) -> None:
    found = differences(name)

    assert not found, "\n".join([*found, "explain it, then: python -m tests.vectors.regenerate --write"])


@pytest.mark.parametrize("vector", load("records.json"), ids=lambda vector: vector["record"])
def test_a_records_bytes_decode_to_its_fields(vector: dict[str, Any]) -> None:
    """B-1: from the file alone."""
    record = decode_record(unhex(vector["key"]), unhex(vector["bytes"]))

    assert type(record).__name__ == vector["record"]
    assert {name: readable(getattr(record, name)) for name in vector["fields"]} == vector["fields"]


def test_the_history_shows_successes_and_refusals() -> None:
    """T-3: a refusal changes its sender's account alone."""
    steps = load("history.json")["steps"]

    refused = [step for step in steps if not step["succeeded"]]
    assert len(refused) == 2
    for step in refused:
        assert list(step["changes"]) == ["0x01" + step["from"][2:]]
        assert step["output"] != "0x"


def test_every_step_of_the_history_moves_the_root() -> None:
    history = load("history.json")
    roots = [history["start"]["state_root"], *(step["state_root"] for step in history["steps"])]

    assert len(set(roots)) == len(roots)
