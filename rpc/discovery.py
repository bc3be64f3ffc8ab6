"""The table of all methods, and the document that describes it to programs (OpenRPC 1.3)."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from inspect import getdoc
from typing import Any, Final

from rpc import schemas
from rpc.access import Role
from rpc.ctt import CTT_METHODS
from rpc.ctt_energy import ENERGY
from rpc.ctt_market import MARKET_METHODS
from rpc.door import Caller
from rpc.errors import InvalidParams, Refused, RpcError
from rpc.eth import ETH
from rpc.jsontext import RawJson, dumps
from rpc.methods import Method, Registry, join
from rpc.node_status import NODE_METHODS
from rpc.params import REQUIRED, Param, Tag
from rpc.proofs import PROOFS
from rpc.readings import READINGS

DISCOVERY: Final = Registry()

OPENRPC: Final = "1.3.2"


@DISCOVERY.method("rpc.discover", cost=20, result={"type": "object", "description": "an OpenRPC document"})
def discover(caller: Caller) -> RawJson:
    """All methods of this node with their parameters, results, errors and examples, as an OpenRPC document."""
    return _document_text(caller.chain.client_version)


METHODS: Final[Mapping[str, Method]] = join(
    ETH, CTT_METHODS, NODE_METHODS, ENERGY, MARKET_METHODS, READINGS, PROOFS, DISCOVERY
)


@cache
def _document_text(version: str) -> RawJson:
    return RawJson(dumps(document(version)))


@cache
def examples() -> dict[str, dict[str, Any]]:
    """A request's `params` and their real `result`, by method, for methods that have a short one."""
    found: dict[str, dict[str, Any]] = json.loads((files("rpc") / "examples.json").read_bytes())
    return found


def document(version: str) -> dict[str, Any]:
    """The OpenRPC document; `version` is the node's."""
    return {
        "openrpc": OPENRPC,
        "info": {
            "title": "Crypto-Trading node",
            "version": version,
            "description": "JSON-RPC 2.0 over HTTP POST and WebSocket: Ethereum's methods, and the energy market's",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "methods": [_describe(method) for method in METHODS.values()],
        "components": {"schemas": {title: _refer(each, inside=True) for title, each in shapes().items()}},
    }


def shapes() -> dict[str, schemas.Schema]:
    """Every schema with a title, by it, in the order in which methods name them.

    Raises: ValueError when two have one title.
    """
    found: dict[str, schemas.Schema] = {}
    for method in METHODS.values():
        for schema in (*[param.kind.schema for param in method.params], method.result):
            for each in _titled(schema):
                if found.setdefault(each["title"], each) != each:
                    raise ValueError(f"two schemas have the title {each['title']}")
    return found


def errors_of(method: Method) -> tuple[type[RpcError], ...]:
    """How a method may refuse. Any request may also find the node too busy, or a mistake of ours."""
    return (*((InvalidParams, Refused) if method.params else ()), *method.errors)


def default_of(param: Param) -> str | None:
    """What an absent parameter means, as JSON; None when it must be there, or means nothing."""
    if param.default is REQUIRED or param.default is None:
        return None
    return dumps(param.default.value if isinstance(param.default, Tag) else param.default)


def _describe(method: Method) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": method.name,
        "description": method.description,
        "params": [_describe_param(param) for param in method.params],
        "result": {"name": "result", "schema": _refer(method.result)},
        "errors": [{"code": each.code, "message": getdoc(each) or ""} for each in errors_of(method)],
        "x-cost": method.cost,
    }
    if method.role is not Role.PUBLIC:
        described["x-role"] = method.role.name.lower()
    example = examples().get(method.name)
    if example is not None:
        described["examples"] = [_describe_example(method, example)]
    return described


def _describe_param(param: Param) -> dict[str, Any]:
    described = {
        "name": param.name,
        "required": param.default is REQUIRED,
        "schema": _refer(param.kind.schema),
    }
    default = default_of(param)
    return described | ({} if default is None else {"description": f"when left out: {default}"})


def _describe_example(method: Method, example: dict[str, Any]) -> dict[str, Any]:
    given = zip(method.params, example["params"], strict=False)
    return {
        "name": method.name,
        "params": [{"name": param.name, "value": value} for param, value in given],
        "result": {"name": "result", "value": example["result"]},
    }


def _titled(schema: Any) -> Iterator[schemas.Schema]:
    """The schemas with a title in this one, itself included."""
    if isinstance(schema, list):
        for each in schema:
            yield from _titled(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            yield schema
        for each in schema.values():
            yield from _titled(each)


def _refer(schema: Any, *, inside: bool = False) -> Any:
    """The schema with references in place of those with a title; `inside` leaves its own as it is."""
    if isinstance(schema, list):
        return [_refer(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("title"), str) and not inside:
        return {"$ref": f"#/components/schemas/{schema['title']}"}
    return {name: _refer(each) for name, each in schema.items()}
