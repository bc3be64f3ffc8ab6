"""The ABI codec against eth_abi, hostile calldata, and the ABI's JSON in web3."""

import sys
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.contract import Contract

from ctt_state.abi import (
    ARRAY_ITEMS_MAX,
    WORD,
    Error,
    Event,
    Function,
    MalformedCalldata,
    Module,
    Param,
    Revert,
    Type,
    decode_values,
    encode_values,
    parse_params,
)
from ctt_state.crypto import checksum_address, keccak
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import EnergyRefilled, InsufficientPayment, Transfer
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS, Address
from tests.world import ALICE, BOB

READINGS = "(address,uint64,uint256,uint256)[]"
CALLDATA_BYTES_MAX = 131_072
CALLS_PER_WORD_MAX = 2

BASIC_TYPES = st.one_of(
    st.sampled_from(["address", "bool", "bytes", "string", "uint8", "uint64", "uint256"]),
    st.integers(1, 32).map(lambda size: f"bytes{size}"),
    st.integers(1, 32).map(lambda size: f"uint{size * 8}"),
)
ALL_TYPES = st.recursive(
    BASIC_TYPES,
    lambda inner: st.one_of(
        inner.map(lambda text: text + "[]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda texts: f"({','.join(texts)})"),
    ),
    max_leaves=5,
)


def values_of(kind: Type) -> st.SearchStrategy[Any]:
    """Values of a type, in the form that both codecs take and give."""
    match kind.kind:
        case "uint":
            return st.integers(0, 2**kind.size - 1)
        case "address":
            return st.binary(min_size=20, max_size=20)
        case "bool":
            return st.booleans()
        case "fixed":
            return st.binary(min_size=kind.size, max_size=kind.size)
        case "bytes":
            return st.binary(max_size=70)
        case "string":
            return st.text(max_size=40)
        case "array":
            return st.lists(values_of(kind.parts[0].type), max_size=4).map(tuple)
    return st.tuples(*(values_of(part.type) for part in kind.parts))


def values_of_all(params: tuple[Param, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(values_of(param.type) for param in params))


def texts(params: tuple[Param, ...]) -> list[str]:
    return [param.type.text for param in params]


def shown(kind: Type, value: Any) -> Any:
    """eth_abi and web3 take an address as text; web3 insists on the checksum."""
    if kind.kind == "address":
        return checksum_address(value)
    if kind.kind == "array":
        return tuple(shown(kind.parts[0].type, item) for item in value)
    return all_shown(kind.parts, value) if kind.kind == "tuple" else value


def all_shown(params: tuple[Param, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(shown(param.type, value) for param, value in zip(params, values, strict=True))


def signatures() -> list[str]:
    return sorted(function.signature for function in CTT.functions.values())


# --- against eth_abi ---


@settings(deadline=None)
@given(data=st.data(), declared=st.lists(ALL_TYPES, max_size=4))
def test_values_encode_as_eth_abi_encodes_them_and_come_back(
    data: st.DataObject, declared: list[str]
) -> None:
    params = parse_params(",".join(declared))
    values = data.draw(values_of_all(params))

    encoded = encode_values(params, values)

    assert encoded == encode(texts(params), all_shown(params, values))
    assert decode_values(params, encoded) == values


@settings(deadline=None)
@given(values=values_of_all(parse_params(READINGS)))
@example(values=((),))
def test_an_array_of_tuples_is_as_eth_abi_has_it(values: tuple[Any, ...]) -> None:
    """What a concentrator sends."""
    params = parse_params(READINGS)
    encoded = encode([READINGS], all_shown(params, values))

    assert decode_values(params, encoded) == values
    assert encode_values(params, values) == encoded


@pytest.mark.parametrize("event", CTT.events.values(), ids=lambda event: event.name)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_every_event_is_as_eth_abi_and_web3_have_it(event: Event, data: st.DataObject) -> None:
    """Indexed values are topics, the others data."""
    values = data.draw(values_of_all(event.params))
    texts_shown = all_shown(event.params, values)
    plain = [i for i, param in enumerate(event.params) if not param.indexed]
    indexed = [i for i, param in enumerate(event.params) if param.indexed]

    topics, body = event(*values)

    assert topics[0] == keccak(f"{event.name}({','.join(texts(event.params))})".encode())
    assert list(topics[1:]) == [encode([event.params[i].type.text], [texts_shown[i]]) for i in indexed]
    assert len(indexed) <= 3
    assert body == encode([event.params[i].type.text for i in plain], [texts_shown[i] for i in plain])


@pytest.mark.parametrize("error", CTT.errors.values(), ids=lambda error: error.name)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_every_error_is_as_eth_abi_has_it(error: Error, data: st.DataObject) -> None:
    """The selector and the figures; the text names both."""
    values = data.draw(values_of_all(error.params))

    refusal = error(*values)

    assert refusal.data[:4] == keccak(f"{error.name}({','.join(texts(error.params))})".encode())[:4]
    expected = encode(texts(error.params), all_shown(error.params, values))
    assert refusal.data[4:] == expected
    assert refusal.reason.startswith(error.name + "(")


def test_known_topics_and_selectors() -> None:
    """As other chains have them, so that explorers and wallets know them."""
    assert Transfer.topic.hex() == "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert CTT.named("transferFrom(address,address,uint256)").selector.hex() == "23b872dd"
    assert CTT.named("safeTransferFrom(address,address,uint256,bytes)").selector.hex() == "b88d4fde"
    (not_found,) = [error for error in CTT.errors.values() if error.name == "ERC721NonexistentToken"]
    assert not_found.selector.hex() == "7e273289"


def test_a_refusal_reads_well() -> None:
    assert InsufficientPayment(5, 4).reason == "InsufficientPayment(required=5, sent=4)"
    assert InsufficientPayment(5, 4) == InsufficientPayment(5, 4) != InsufficientPayment(5, 3)
    assert hash(InsufficientPayment(5, 4)) == hash(InsufficientPayment(5, 4))
    assert InsufficientPayment(5, 4) != Revert("InsufficientPayment(required=5, sent=4)")
    assert InsufficientPayment(5, 4) != "InsufficientPayment(required=5, sent=4)"


# --- hostile calldata ---


def decodes_or_is_refused(function: Function, arguments: bytes) -> tuple[Any, ...] | None:
    """The only two things that may happen."""
    try:
        return function.decode_arguments(function.selector + arguments)
    except MalformedCalldata:
        return None


def check_against_eth_abi(function: Function, arguments: bytes) -> None:
    """What both accept they read alike."""
    values = decodes_or_is_refused(function, arguments)
    if values is None:
        return
    try:
        expected = decode(texts(function.inputs), arguments)
    except (DecodingError, OverflowError, UnicodeDecodeError):
        return
    assert decode(texts(function.inputs), encode_values(function.inputs, values)) == expected


EDGES = st.sampled_from((0, 1, 2, 31, 32, 33, 64, 96, 2**31, 2**63, 2**64 - 1, 2**255, UINT256_MAX))
WORDS = st.one_of(EDGES, st.integers(0, 200), st.integers(0, UINT256_MAX))


@settings(max_examples=400, deadline=None)
@given(data=st.data(), signature=st.sampled_from(signatures()))
def test_any_words_decode_or_are_malformed(data: st.DataObject, signature: str) -> None:
    """Lengths and offsets out of range, onto themselves, or over one another."""
    words = data.draw(st.lists(WORDS, max_size=12))

    arguments = b"".join(word.to_bytes(WORD, "big") for word in words)

    check_against_eth_abi(CTT.named(signature), arguments)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), signature=st.sampled_from(signatures()))
def test_a_damaged_call_decodes_or_is_malformed(data: st.DataObject, signature: str) -> None:
    """One word replaced, then cut anywhere."""
    function = CTT.named(signature)
    arguments = encode_values(function.inputs, data.draw(values_of_all(function.inputs)))
    at = data.draw(st.integers(0, len(arguments) // WORD)) * WORD
    damaged = arguments[:at] + data.draw(WORDS).to_bytes(WORD, "big") + arguments[at + WORD :]

    check_against_eth_abi(function, damaged[: data.draw(st.integers(0, len(damaged)))])


@given(data=st.data(), signature=st.sampled_from(signatures()))
@settings(deadline=None)
def test_every_cut_call_is_malformed(data: st.DataObject, signature: str) -> None:
    """Byte by byte: only what pads the last bytes may be missing."""
    function = CTT.named(signature)
    values = data.draw(values_of_all(function.inputs))
    arguments = encode_values(function.inputs, values)

    for size in range(len(arguments)):
        decoded = decodes_or_is_refused(function, arguments[:size])
        assert decoded is None or (decoded == values and not any(arguments[size:]))


def readings_head(offset: int, count: int) -> bytes:
    return offset.to_bytes(WORD, "big") + count.to_bytes(WORD, "big")


@pytest.mark.parametrize(
    "arguments",
    [
        readings_head(WORD, 1),
        readings_head(WORD, 2) + bytes(4 * WORD),
        readings_head(WORD, 2**255) + bytes(4 * WORD),
        readings_head(WORD, UINT256_MAX) + bytes(4 * WORD),
        readings_head(2 * WORD, 0),
        readings_head(UINT256_MAX, 0),
        readings_head(WORD, 1) + b"\x01" + bytes(4 * WORD - 1),
        readings_head(WORD, 1) + bytes(WORD) + b"\x01" + bytes(3 * WORD - 1),
    ],
)
def test_hostile_arrays_are_malformed(arguments: bytes) -> None:
    """Counts and offsets past the end, dirty bits inside an item."""
    function = CTT.named("reportBatch((address,uint64,uint256,uint256)[])")

    with pytest.raises(MalformedCalldata, match="reportBatch: argument 1: "):
        function.decode_arguments(function.selector + arguments)


def test_an_array_has_a_maximum_of_items() -> None:
    params = parse_params("uint8[]")
    at_most = encode_values(params, ((0,) * ARRAY_ITEMS_MAX,))
    above = encode_values(params, ((0,) * (ARRAY_ITEMS_MAX + 1),))

    assert len(decode_values(params, at_most)[0]) == ARRAY_ITEMS_MAX
    with pytest.raises(MalformedCalldata, match="array of 10001 items"):
        decode_values(params, above)


def test_text_that_is_not_utf8_is_malformed() -> None:
    arguments = encode_values(parse_params("bytes"), (b"\xff\xfe",))

    with pytest.raises(MalformedCalldata, match="argument 1: string is not UTF-8"):
        decode_values(parse_params("string"), arguments)


@pytest.mark.parametrize("signature", signatures())
@pytest.mark.parametrize("word", [0, WORD, CALLDATA_BYTES_MAX // 2, 1_000])
def test_the_longest_calldata_takes_no_time(signature: str, word: int) -> None:
    """The whole of it one repeated word: at most 4,000 items, each read once. Counted, as a busy machine's time says
    little."""
    function, data = CTT.named(signature), word.to_bytes(WORD, "big") * (CALLDATA_BYTES_MAX // WORD)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        decodes_or_is_refused(function, data)
    finally:
        sys.setprofile(None)

    assert calls < CALLS_PER_WORD_MAX * (CALLDATA_BYTES_MAX // WORD)


@pytest.mark.parametrize("text", ["string[]", "uint256[][]", "(uint256,bytes)[]", "(string[])"])
def test_no_function_may_take_an_array_of_dynamic_items(text: str) -> None:
    """Each item's offset could point at the same long data."""
    module = Module("Test", ZERO_ADDRESS)

    with pytest.raises(ValueError, match="would take unbounded time to decode"):
        module.function(f"f(uint256 a,{text} b)")


def test_a_function_is_declared_once() -> None:
    module = Module("Test", ZERO_ADDRESS)
    module.function("f(uint256 a)")(print)

    with pytest.raises(ValueError, match=r"f\(uint256\) is declared twice"):
        module.function("f(uint256 b) view")(print)
    with pytest.raises(ValueError, match="no such ABI type: 'float'"):
        module.event("E(float x)")


# --- the ABI's JSON ---


@cache
def contract() -> Contract:
    address = Web3.to_checksum_address(CTT.address)
    found: Contract = Web3().eth.contract(address=address, abi=CTT.abi_json())
    return found


@pytest.mark.parametrize("signature", signatures())
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_web3_encodes_every_call_as_we_decode_it(signature: str, data: st.DataObject) -> None:
    """From the JSON alone."""
    function = CTT.named(signature)
    values = data.draw(values_of_all(function.inputs))
    called = contract().get_function_by_signature(signature)
    calldata = bytes.fromhex(called(*all_shown(function.inputs, values))._encode_transaction_data()[2:])

    assert calldata == function.encode_arguments(*values)


def test_web3_reads_our_logs() -> None:
    """A log as JSON-RPC gives it."""
    topics, body = EnergyRefilled(ALICE, BOB, 500, 400)
    log: Any = {
        "address": Web3.to_checksum_address(CTT.address),
        "topics": topics,
        "data": body,
        "blockNumber": 1,
        "blockHash": bytes(32),
        "transactionHash": bytes(32),
        "transactionIndex": 0,
        "logIndex": 0,
        "removed": False,
    }

    arguments = contract().events.EnergyRefilled().process_log(log)["args"]

    assert Address(bytes.fromhex(arguments["prosumer"][2:])) == ALICE
    assert (arguments["offered"], arguments["stored"]) == (500, 400)


def test_the_json_names_every_declaration() -> None:
    entries = CTT.abi_json()

    assert {entry["type"] for entry in entries} == {"function", "event", "error"}
    assert len(entries) == len(CTT.functions) + len(CTT.events) + len(CTT.errors)
    (batch,) = [entry for entry in entries if entry["name"] == "reportBatch"]
    assert batch["inputs"][0]["type"] == "tuple[]"
    assert [part["name"] for part in batch["inputs"][0]["components"]] == [
        "prosumer",
        "readingTime",
        "importTotal",
        "exportTotal",
    ]
