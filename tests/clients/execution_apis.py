"""Recorded traffic against the published OpenRPC schemas of Ethereum's execution APIs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft7Validator

from ctt_state.transaction import SYSTEM
from rpc.errors import INTERNAL_ERROR
from tests.clients.recorder import Recorder

# Methods that the execution APIs do not have, by how they begin.
ELSEWHERE: Final = (
    "ctt_",
    "net_listening",
    "net_peerCount",
    "web3_",
    "rpc.discover",
    "eth_subscribe",
    "eth_unsubscribe",
)
# What a head that is told has not, of a block that is asked for.
NOT_IN_A_HEAD: Final = {"transactions", "uncles"}
# Where a pending transaction stands: the published schema has none of these, clients are used to null.
PLACE: Final = ("blockHash", "blockNumber", "blockTimestamp", "transactionIndex")
NULL: Final = {"type": "null"}
ERROR: Final = {
    "type": "object",
    "properties": {
        "code": {"type": "integer", "not": {"const": INTERNAL_ERROR}},
        "message": {"type": "string", "minLength": 1},
        "data": {"type": "string"},
    },
    "required": ["code", "message"],
    "additionalProperties": False,
}


class ExecutionApis:
    """The schemas of a copy of ethereum/execution-apis: `schemas/`, and methods by folder."""

    def __init__(self, folder: Path) -> None:
        self._schemas: dict[str, Any] = {}
        for file in sorted((folder / "schemas").glob("*.yaml")):
            self._schemas |= _load(file)
        # As published, an empty array is both of logs and of hashes, which "one of" refuses.
        self._schemas["FilterResults"] = {"anyOf": self._schemas["FilterResults"]["oneOf"]}
        self._schemas["TransactionSigned"]["oneOf"].append(_system_transaction(self._schemas))
        self._results = {
            method["name"]: method["result"]["schema"]
            for file in sorted(folder.glob("*/*.yaml"))
            if file.parent.name in ("eth", "txpool")
            for method in _load(file)
        }
        self.methods = self._results.keys()
        self._validators: dict[str, Any] = {}

    def faults(self, recorder: Recorder) -> list[str]:
        """Where an answer is not as published. Equal answers are looked at once."""
        answers = {(name, json.dumps(value)) for name, value in self._answers(recorder)}
        return [
            f"{name}: {fault.json_path}: {fault.message[:300]}"
            for name, text in sorted(answers)
            for fault in self._validator(name).iter_errors(json.loads(text))
        ]

    def _answers(self, recorder: Recorder) -> Iterator[tuple[str, Any]]:
        for kept in recorder.exchanges:
            if "error" in kept.reply:
                yield "error", kept.reply["error"]
            elif not kept.method.startswith(ELSEWHERE):
                result = kept.reply["result"]
                is_pending = (
                    kept.method == "eth_getTransactionByHash" and result and result["blockHash"] is None
                )
                yield "pending" if is_pending else kept.method, result
        for kind, result in recorder.notifications:
            if not kind.startswith(ELSEWHERE):
                yield kind, result

    def _validator(self, name: str) -> Any:
        if name not in self._validators:
            schema = {"allOf": [self._schema(name)], "components": {"schemas": self._schemas}}
            self._validators[name] = Draft7Validator(schema)
        return self._validators[name]

    def _schema(self, name: str) -> Any:
        match name:
            case "error":
                return ERROR
            case "newHeads":
                block = self._schemas["Block"]
                return block | {
                    "required": [member for member in block["required"] if member not in NOT_IN_A_HEAD]
                }
            case "logs":
                return self._schemas["Log"]
            case "eth_sendRawTransactionSync":
                return self._schemas["ReceiptInfo"]
            case "newPendingTransactions":
                return self._schemas["hash32"]
            case "pending":
                return {
                    "allOf": [self._schemas["TransactionSigned"], {"properties": dict.fromkeys(PLACE, NULL)}]
                }
            case _:
                return self._results[name]


def _system_transaction(schemas: dict[str, Any]) -> Any:
    """A type of our own: members as those of a legacy transaction, and a signature of zeros."""
    legacy = schemas["TransactionLegacyUnsigned"]
    numbers = {"type": {"const": hex(SYSTEM)}} | {name: {"const": "0x0"} for name in "vrs"}
    return legacy | {
        "required": [*legacy["required"], *"vrs"],
        "properties": legacy["properties"] | numbers,
    }


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())
