"""Parameters: what is accepted, and the exact words for what is not."""

import re
from typing import Any

import pytest

from ctt_state.units import ZERO_ADDRESS
from rpc.errors import InvalidParams
from rpc.jsontext import Json
from rpc.params import (
    ADDRESS,
    BLOCK,
    BLOCK_NUMBER,
    CALL,
    COUNT,
    DATA,
    HASH,
    LOG_QUERY,
    PERCENTILES,
    QUANTITY,
    RAW_TRANSACTION,
    SLOT,
    SUBSCRIPTION,
    TIMEOUT_MS,
    Kind,
    SubscriptionKind,
    Tag,
)

LOWER = "0x" + "ab" * 20
CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # EIP-55's own example
TOPIC = "0x" + "11" * 32


def parse(kind: Kind[Any], value: Json) -> Any:
    return kind.parse(value, "params[0]")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (QUANTITY, "0x0", 0),
        (QUANTITY, "0x41", 65),
        (QUANTITY, "0xFf", 255),
        (QUANTITY, "0x" + "f" * 64, 2**256 - 1),
        (DATA, "0x", b""),
        (DATA, "0x00Ff", b"\x00\xff"),
        (ADDRESS, LOWER, b"\xab" * 20),
        (ADDRESS, LOWER.upper().replace("X", "x"), b"\xab" * 20),
        (ADDRESS, CHECKSUMMED, bytes.fromhex(CHECKSUMMED[2:])),
        (HASH, TOPIC, b"\x11" * 32),
        (SLOT, "0x0", bytes(32)),
        (SLOT, "0x01", bytes(31) + b"\x01"),
        (SLOT, TOPIC, b"\x11" * 32),
        (COUNT, 5, 5),
        (COUNT, "0x5", 5),
        (TIMEOUT_MS, 2_000, 2_000),
        (TIMEOUT_MS, "0x7d0", 2_000),
        (PERCENTILES, [0, 25.5, 100], [0.0, 25.5, 100.0]),
        (BLOCK_NUMBER, "latest", Tag.LATEST),
        (BLOCK_NUMBER, "0x10", 16),
        (BLOCK, "finalized", Tag.FINALIZED),
        (BLOCK, TOPIC, b"\x11" * 32),
        (BLOCK, {"blockNumber": "0x10"}, 16),
        (BLOCK, {"blockNumber": "safe"}, Tag.SAFE),
        (BLOCK, {"blockHash": TOPIC, "requireCanonical": True}, b"\x11" * 32),
        (SUBSCRIPTION, "newHeads", SubscriptionKind.NEW_HEADS),
    ],
)
def test_good_values_are_read(kind: Kind[Any], value: Json, expected: Any) -> None:
    assert parse(kind, value) == expected


@pytest.mark.parametrize(
    "value", ["10", "0x", "0x01", "-0x1", "0xg", "1e3", " 0x1", "0x1 ", "0x1_0", "0x٣", "0X1", True, 1, 1.5, [], {}, "0x1\n"]
)  # fmt: skip
def test_a_quantity_has_one_form(value: Json) -> None:
    with pytest.raises(InvalidParams) as refusal:
        parse(QUANTITY, value)
    assert refusal.value.message == f"params[0]: {value!r} is not a quantity (0x… without leading zeros)"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (QUANTITY, "0x1" + "0" * 64, r"^params\[0\]: '0x10+' is above 256 bits$"),
        (DATA, "0x1", r"^params\[0\]: odd number of hex digits$"),
        (DATA, "0x 1", r"has a character that is no hex digit$"),
        (DATA, "0xzz", r"has a character that is no hex digit$"),
        (DATA, "0X00", r"is not data"),
        (DATA, "00", r"is not data"),
        (DATA, None, r"is not data"),
        (ADDRESS, "0x" + "ab" * 19, r"^params\[0\]: address must be 20 bytes, got 19$"),
        (ADDRESS, "0x" + "ab" * 21, r"address must be 20 bytes, got 21"),
        (ADDRESS, CHECKSUMMED.replace("aAeb", "AAeb"), r"has a wrong checksum \(EIP-55\)"),
        (HASH, "0x" + "ab" * 31, r"hash must be 32 bytes, got 31"),
        (RAW_TRANSACTION, "0x" + "00" * 300_000, r"more than 262144 bytes"),
        (SLOT, "0x" + "0" * 65, r"is not a storage position"),
        (TIMEOUT_MS, 0, r"is not a quantity"),
        (TIMEOUT_MS, "0x0", r"must be above 0"),
        (TIMEOUT_MS, True, r"is not a quantity"),
        (COUNT, -1, r"is not a quantity"),
        (PERCENTILES, [50, 25], r"params\[0\]\[1\]: 25 is not a percentile from 50 to 100"),
        (PERCENTILES, [101], r"not a percentile"),
        (PERCENTILES, [True], r"not a percentile"),
        (PERCENTILES, [0] * 101, r"at most 100"),
        (BLOCK_NUMBER, "newest", r"^params\[0\]: unknown block tag 'newest'$"),
        (BLOCK_NUMBER, "-0x1", r"unknown block tag"),
        (BLOCK_NUMBER, "0x10000000000000000", r"above 64 bits"),
        (BLOCK, {}, r"give either blockNumber or blockHash"),
        (BLOCK, {"blockNumber": "0x1", "blockHash": TOPIC}, r"give either"),
        (BLOCK, 5, r"is not a quantity"),
        (CALL, "0x", r"is not an object"),
        (CALL, {"to": "0x00"}, r"params\[0\]\.to: address must be 20 bytes, got 1"),
        (CALL, {"to": LOWER, "data": "0x01", "input": "0x02"}, r"data and input differ"),
        (CALL, {"to": LOWER, "gas": "0x10000000000000000"}, r"params\[0\]\.gas: .* is above 64 bits"),
        (CALL, {"to": LOWER, "value": "1"}, r"params\[0\]\.value: '1' is not a quantity"),
        (LOG_QUERY, [], r"is not an object"),
        (LOG_QUERY, {"address": [LOWER] * 101}, r"params\[0\]\.address: 101 items; limit 100"),
        (LOG_QUERY, {"topics": [TOPIC] * 5}, r"params\[0\]\.topics: 5 topics; limit 4"),
        (LOG_QUERY, {"topics": [[TOPIC] * 101]}, r"params\[0\]\.topics\[0\]: 101 items; limit 100"),
        (LOG_QUERY, {"topics": ["0x11"]}, r"hash must be 32 bytes, got 1"),
        (LOG_QUERY, {"topics": "0x11"}, r"is not an array"),
        (
            LOG_QUERY,
            {"blockHash": TOPIC, "fromBlock": "0x1"},
            r"^invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other$",
        ),
        (SUBSCRIPTION, "syncing", r"no subscription 'syncing'; there are newHeads, logs"),
        (SUBSCRIPTION, None, r"no subscription None"),
    ],
)
def test_bad_values_are_named(kind: Kind[Any], value: Json, text: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        parse(kind, value)
    assert re.search(text, refusal.value.message), refusal.value.message


def test_a_long_value_is_cut_in_the_answer() -> None:
    with pytest.raises(InvalidParams) as refusal:
        parse(QUANTITY, "z" * 100_000)
    assert len(refusal.value.message) < 200


def test_a_call_object_has_defaults_and_ignores_what_changes_nothing() -> None:
    call = parse(
        CALL,
        {"to": LOWER, "gasPrice": "nonsense", "nonce": "0x1", "accessList": [], "type": "0x2", "gas": None},
    )
    assert (call.sender, call.to, call.gas, call.value, call.data) == (
        ZERO_ADDRESS,
        b"\xab" * 20,
        None,
        0,
        b"",
    )


@pytest.mark.parametrize("members", [{"data": "0x12"}, {"input": "0x12"}, {"data": "0x12", "input": "0x12"}])
def test_calldata_may_be_called_data_or_input(members: dict[str, Json]) -> None:
    assert parse(CALL, {"to": LOWER, **members}).data == b"\x12"


def test_topics_may_be_one_several_or_any() -> None:
    criteria = parse(LOG_QUERY, {"address": LOWER, "topics": [None, TOPIC, [TOPIC, TOPIC], []]}).criteria
    assert criteria.addresses == {b"\xab" * 20}
    assert criteria.topics == (None, {b"\x11" * 32}, {b"\x11" * 32}, None)
