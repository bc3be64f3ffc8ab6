"""Requests made from nothing but the document: whoever follows it is understood, and gets what it promises."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from rpc.discovery import METHODS
from rpc.door import Caller
from rpc.errors import InvalidParams
from rpc.params import REQUIRED, Param
from tests.rpc_world import ADMIN, ALICE, ALICE_KEY, BOB, RpcWorld, check_result, served

# What a schema cannot say of a value: the parser does.
UNSAID: Final = re.compile(
    r"|.*(wrong checksum|above \d+ bits|is not a percentile from|data and input differ|more than \d+ bytes|"
    r"cannot specify both BlockHash|the timeout must be above 0|a page has 1 to|give either blockNumber or blockHash).*",
    re.DOTALL,
)
# Of each, some that the world knows; the others come from the schema.
KNOWN: Final[dict[str, list[Any]]] = {
    "Address": list(map(hex_of, (ADMIN, ALICE, BOB, CTT.address))),
    "Quantity": ["0x0", "0x1", "0x2", "0x3", "0x4", "0x7fffffff"],
    "Number": [0, 1, 2, 3, 100],
    "Hash": [hex_of(RpcWorld().head.hash)],
    "Data": ["0x", hex_of(CTT.named("totalSupply()").encode_arguments())],
}


def values_of(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows."""
    described = _described(schema)
    known = KNOWN.get(schema.get("title", ""))
    return described if known is None else st.sampled_from(known) | described


def _described(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"anyOf": choices}:
            return st.one_of(*map(values_of, choices))
        case {"enum": values}:
            return st.sampled_from(values)
        case {"type": "null"}:
            return st.none()
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer", **bounds}:
            return st.integers(bounds.get("minimum"), bounds.get("maximum", 2**53))
        case {"type": "number", "minimum": low, "maximum": high}:
            return st.floats(low, high)
        case {"type": "string", "pattern": pattern}:
            return st.from_regex(pattern, fullmatch=True)
        case {"type": "string"}:
            return st.text(max_size=10)
        case {"type": "array", "items": items, "maxItems": most}:
            return st.lists(values_of(items), max_size=min(most, 3))
        case {"type": "object", "properties": members, **rest}:
            required = rest.get("required", [])
            made = {name: values_of(each) for name, each in members.items()}
            return st.fixed_dictionaries(
                {name: made[name] for name in required},
                optional={name: each for name, each in made.items() if name not in required},
            )
        case _ if schema == {}:
            return st.none() | st.booleans() | st.just({})
    raise AssertionError(f"no values for {schema}")


def arguments_of(params: tuple[Param, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """By name; those that may be left out are, at times."""
    made = {param.name: values_of(param.kind.schema) for param in params}
    optional = {param.name for param in params if param.default is not REQUIRED}
    return st.fixed_dictionaries(
        {name: each for name, each in made.items() if name not in optional},
        optional={name: each for name, each in made.items() if name in optional},
    )


WITH_PARAMS: Final = [name for name, method in METHODS.items() if method.params]
KINDS: Final = {id(param.kind): param for name in WITH_PARAMS for param in METHODS[name].params}


def refusal_of(param: Param, value: Any) -> str:
    """The parser's; nothing when it understands the value."""
    try:
        param.kind.parse(value, "it")
    except InvalidParams as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("param", KINDS.values(), ids=lambda param: param.name)
def test_what_the_schema_allows_is_understood(param: Param) -> None:
    @settings(max_examples=30)
    @given(value=values_of(param.kind.schema))
    def check(value: Any) -> None:
        jsonschema.Draft7Validator(param.kind.schema).validate(value)
        assert UNSAID.fullmatch(refusal_of(param, value))

    check()


NOT_MEANT: Final[list[Any]] = [
    True,
    -1,
    1.5,
    "",
    "0x",
    "0xzz",
    "0x00",
    "1",
    "latest ",
    "0x" + "11" * 21,
    [[]],
    {"x": 1},
    [None],
    2**70,
]


@pytest.mark.parametrize("param", KINDS.values(), ids=lambda param: param.name)
def test_what_is_understood_is_allowed_by_the_schema(param: Param) -> None:
    """So a program that checks its requests by the document can send all that there is to ask."""
    validator = jsonschema.Draft7Validator(param.kind.schema)
    for value in NOT_MEANT:
        assert refusal_of(param, value) or validator.is_valid(value), value


def grow(world: RpcWorld) -> None:
    for _ in range(3):
        world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 2)
        world.make_block()
    world.take(world.sign(ALICE_KEY, BOB))


async def ask(caller: Caller, server: Any, requests: list[tuple[str, dict[str, Any]]]) -> None:
    """Each gets what its method promises, or a refusal that its method may give."""
    for name, params in requests:
        body = {"jsonrpc": "2.0", "id": 1, "method": name, "params": params}
        reply = json.loads(await server._dispatcher.answer(json.dumps(body).encode(), caller))
        if "result" in reply:
            check_result(name, reply["result"])
        else:
            allowed = {-32602, -32000, *[each.code for each in METHODS[name].errors]}
            assert reply["error"]["code"] in allowed, (name, params, reply)


@settings(max_examples=15)
@given(data=st.data())
def test_what_follows_the_document_gets_what_it_promises(data: st.DataObject) -> None:
    names = [name for name in WITH_PARAMS if name != "eth_sendRawTransactionSync"]  # it waits
    requests = [(name, data.draw(arguments_of(METHODS[name].params))) for name in names]

    async def run() -> None:
        async with served(RpcWorld()) as node:
            grow(node.world)
            session = node.server.door.subscriptions.open(node.server.config.limits.subscriptions)
            await ask(Caller(node.server.door, "test", session), node.server, requests)

    asyncio.run(run())
