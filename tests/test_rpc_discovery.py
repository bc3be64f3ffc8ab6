"""One table of methods, and the server, the OpenRPC document and docs/RPC.md all say what is in it."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import pytest_asyncio
from referencing import Registry
from referencing.jsonschema import DRAFT7

from rpc.access import Role
from rpc.discovery import METHODS, document, examples, shapes
from rpc.handbook import handbook
from rpc.params import REQUIRED, bind
from tests.rpc_examples import answer
from tests.rpc_world import ALICE, ALICE_KEY, BOB, Served, served

ROOT: Final = Path(__file__).parent.parent
META_SCHEMA: Final = json.loads((Path(__file__).parent / "openrpc-1.3.json").read_bytes())
DOCUMENT: Final = document("test")


def resolved(reference: str) -> Any:
    """What a reference in the document names."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def members(value: Any, name: str) -> Iterator[Any]:
    """Every member of this name, at any depth."""
    if isinstance(value, list):
        for each in value:
            yield from members(each, name)
    elif isinstance(value, dict):
        if name in value:
            yield value[name]
        for each in value.values():
            yield from members(each, name)


# --- the document ------------------------------------------------------------------------------------------------


def test_the_document_is_openrpc() -> None:
    """By the meta-schema that the OpenRPC project publishes (@open-rpc/meta-schema, Apache-2.0)."""
    known = Registry().with_resource("https://meta.json-schema.tools", DRAFT7.create_resource({}))
    jsonschema.Draft7Validator(META_SCHEMA, registry=known).validate(DOCUMENT)


def test_it_names_every_method_and_nothing_else() -> None:
    assert [each["name"] for each in DOCUMENT["methods"]] == list(METHODS)


def test_every_reference_leads_to_a_schema() -> None:
    for reference in members(DOCUMENT, "$ref"):
        assert isinstance(resolved(reference), dict)
    for title, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["title"] == title
        jsonschema.Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described(name: str) -> None:
    method = METHODS[name]
    assert method.description and method.result
    for param in method.params:
        assert param.kind.schema or param.name == "stateOverride" or param.name == "options"
    required = [param.default is REQUIRED for param in method.params]
    assert required == sorted(required, reverse=True), "optional parameters come last"


def test_it_says_what_a_parameter_means_when_it_is_left_out() -> None:
    described = next(each for each in DOCUMENT["methods"] if each["name"] == "ctt_tokensOf")
    owner, offset, limit, block = described["params"]
    assert (owner["required"], offset["required"]) == (True, False) and "description" not in owner
    assert [each["description"] for each in (offset, limit, block)] == [
        "when left out: 0",
        "when left out: 100",
        'when left out: "latest"',
    ]


def test_it_says_how_a_method_refuses_and_for_whom_it_is() -> None:
    described = {each["name"]: each for each in DOCUMENT["methods"]}
    codes = {name: [fault["code"] for fault in each["errors"]] for name, each in described.items()}
    assert codes["eth_chainId"] == []
    assert codes["eth_getBalance"] == [-32602, -32000]
    assert codes["eth_call"] == [-32602, -32000, 3, -32601]
    assert codes["eth_sendRawTransactionSync"] == [-32602, -32000, 4]
    for name, method in METHODS.items():
        assert described[name].get("x-role") == (
            None if method.role is Role.PUBLIC else method.role.name.lower()
        )
        assert described[name]["x-cost"] == method.cost


def test_two_shapes_of_one_name_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    chain_id = METHODS["eth_chainId"]
    other = {**METHODS, "eth_chainId": replace(chain_id, result={"title": "Token", "type": "string"})}
    monkeypatch.setattr("rpc.discovery.METHODS", other)
    with pytest.raises(ValueError, match="two schemas have the title Token"):
        shapes()


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_is_the_tables() -> None:
    """Write it anew with `make docs`."""
    assert (ROOT / "docs" / "RPC.md").read_text(encoding="utf-8") == handbook()


def test_its_links_lead_somewhere() -> None:
    headings = set(re.findall(r"^#+ (.+)$", handbook(), re.MULTILINE))
    for target in set(re.findall(r"\]\(#([^)]+)\)", handbook())):
        assert target in {heading.lower() for heading in headings}
    for file in set(re.findall(r"\]\(([A-Z]+\.md)\)", handbook())):
        assert (ROOT / "docs" / file).exists()


# --- answers -----------------------------------------------------------------------------------------------------


def check_answer(method: str, params: list[Any], result: Any) -> None:
    """Both are what the document says. Raises: jsonschema.ValidationError."""
    described = next(each for each in DOCUMENT["methods"] if each["name"] == method)
    for param, value in zip(described["params"], params, strict=False):
        check_schema(param["schema"], value)
    check_schema(described["result"]["schema"], result)


def check_schema(schema: Any, value: Any) -> None:
    jsonschema.Draft7Validator(schema | {"components": DOCUMENT["components"]}).validate(value)


def without_hashes(value: Any) -> Any:
    """The same, but for what follows from hashes, which every change of a rule changes."""
    return json.loads(re.sub(r"0x[0-9a-f]{64,}", "0x", json.dumps(value)))


@pytest.mark.asyncio
async def test_the_examples_are_what_a_node_answers(tmp_path: Path) -> None:
    """Write them anew with `make docs`."""
    answers = await answer(tmp_path / "node")
    assert without_hashes({name: answers[name] for name in examples()}) == without_hashes(examples())
    for method, example in answers.items():
        check_answer(method, example["params"], example["result"])


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        yield node


@pytest.mark.asyncio
async def test_the_server_serves_the_document(node: Served) -> None:
    assert await node.call("rpc.discover") == document(node.world.client_version)


@pytest.mark.asyncio
async def test_other_answers_are_as_described_too(node: Served) -> None:
    """What the examples leave out: transactions of each type, final and pending, filters, nulls, a syncing node."""
    world = node.world
    for kind in (0, 1, 2):
        world.take(world.sign(ALICE_KEY, BOB, type=kind))
    world.make_block()
    filters = [
        await node.call("eth_newFilter", {"fromBlock": "0x0"}),
        await node.call("eth_newBlockFilter"),
        await node.call("eth_newPendingTransactionFilter"),
    ]
    world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 2)
    world.make_block()
    pending = world.take(world.sign(ALICE_KEY, BOB, type=1))
    world.syncing = True
    head = "0x" + world.head.hash.hex()
    asked: list[tuple[str, list[Any]]] = [
        ("web3_clientVersion", []),
        ("eth_syncing", []),
        ("eth_getBlockByNumber", ["0x2", True]),
        ("eth_getBlockByHash", [head, True]),
        ("eth_getBlockByHash", ["0x" + "77" * 32]),
        ("eth_getBlockReceipts", ["0x3"]),
        ("eth_getTransactionByHash", ["0x" + pending.hex()]),
        ("eth_getTransactionByBlockNumberAndIndex", ["0x2", "0x1"]),
        ("eth_getTransactionByBlockHashAndIndex", [head, "0x9"]),
        ("eth_getBlockTransactionCountByHash", [head]),
        ("eth_getBalance", ["0x" + ALICE.hex(), {"blockHash": head}]),
        ("txpool_content", []),
        *[("eth_getFilterChanges", [each]) for each in filters],
        ("eth_getFilterLogs", [filters[0]]),
        ("eth_uninstallFilter", [filters[0]]),
        ("ctt_abi", []),
        ("ctt_nodeStatus", []),
        ("ctt_supply", ["0x0"]),
        ("ctt_finalityCertificate", ["latest"]),
        ("ctt_readings", ["0x" + ALICE.hex(), {"timeMs": 0}, {"timeMs": 5}]),
        ("ctt_getProof", [["0x02", "0x" + ALICE.hex()]]),
    ]
    for method, params in asked:
        check_answer(method, params, await node.call(method, *params))


# --- what the node says of itself --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_capabilities_are_those_of_the_table(node: Served) -> None:
    """What is enabled has its methods; Ethereum's proofs of states are not served."""
    methods = {
        "state": ("eth_getBalance", "eth_call"),
        "tx": ("eth_getTransactionByHash",),
        "logs": ("eth_getLogs",),
        "receipts": ("eth_getTransactionReceipt", "eth_getBlockReceipts"),
        "blocks": ("eth_getBlockByNumber", "eth_getBlockByHash"),
        "stateproofs": ("eth_getProof",),
    }
    capabilities = await node.call("eth_capabilities")
    for name, needed in methods.items():
        for method in needed:
            assert (method in METHODS) is not capabilities[name]["disabled"]


DECLINED: Final = (
    "eth_fillTransaction",
    "eth_getProof",
    "eth_simulateV1",
    "eth_sign",
    "eth_signTransaction",
    "eth_sendTransaction",
    "debug_traceTransaction",
    "personal_sign",
)


@pytest.mark.parametrize("method", DECLINED)
def test_what_is_declined_is_not_in_the_table(method: str) -> None:
    assert method not in METHODS


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in METHODS if name in examples()])
def test_an_examples_parameters_may_be_named(name: str) -> None:
    """By position and by name they mean the same."""
    params = METHODS[name].params
    given = examples()[name]["params"]
    named = {param.name: value for param, value in zip(params, given, strict=False)}
    assert bind(params, named) == bind(params, given)
