"""Ethereum's methods: each one's happy path and its refusals, against a chain in memory with the real rules."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ctt_state.crypto import keccak
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from tests.rpc_world import (
    ADMIN,
    ADMIN_KEY,
    ALICE,
    ALICE_KEY,
    BLOCK_GAS_LIMIT,
    BOB,
    BOB_KEY,
    CHAIN_ID,
    OPERATOR,
    POOR,
    POOR_KEY,
    PROPOSER,
    START_MS,
    RpcWorld,
    Served,
    served,
)

pytestmark = pytest.mark.asyncio

BLOCK_MEMBERS = {
    "number", "hash", "parentHash", "nonce", "sha3Uncles", "logsBloom", "transactionsRoot", "stateRoot",
    "receiptsRoot", "miner", "difficulty", "totalDifficulty", "extraData", "size", "gasLimit", "gasUsed",
    "timestamp", "timestampMilliseconds", "mixHash", "baseFeePerGas", "transactions", "uncles", "view",
}  # fmt: skip
RECEIPT_MEMBERS = {
    "transactionHash", "transactionIndex", "blockHash", "blockNumber", "from", "to", "cumulativeGasUsed", "gasUsed",
    "effectiveGasPrice", "contractAddress", "logs", "logsBloom", "status", "type",
}  # fmt: skip
LOG_MEMBERS = {
    "address", "topics", "data", "blockNumber", "blockHash", "blockTimestamp", "transactionHash",
    "transactionIndex", "logIndex", "removed",
}  # fmt: skip
TRANSACTION_MEMBERS = {
    "hash", "type", "nonce", "gas", "to", "value", "input", "from", "chainId", "v", "r", "s", "gasPrice",
    "blockHash", "blockNumber", "transactionIndex", "blockTimestamp",
}  # fmt: skip

CTT_HEX = "0x" + CTT.address.hex()


def hexed(data: bytes) -> str:
    return "0x" + data.hex()


def calldata(signature: str, *arguments: Any) -> str:
    return hexed(CTT.named(signature).encode_arguments(*arguments))


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        yield node


# --- the node and the chain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("web3_clientVersion", [], "ctt/test"),
        ("web3_sha3", ["0x"], hexed(keccak(b""))),
        ("net_version", [], "4242"),
        ("net_listening", [], True),
        ("net_peerCount", [], "0x3"),
        ("eth_chainId", [], "0x1092"),
        ("eth_syncing", [], False),
        ("eth_blockNumber", [], "0x1"),
        ("eth_accounts", [], []),
        ("eth_gasPrice", [], "0x0"),
        ("eth_maxPriorityFeePerGas", [], "0x0"),
        ("eth_getBalance", [hexed(ALICE), "latest"], hex(10**24)),
        ("eth_getBalance", [hexed(POOR)], "0x0"),
        ("eth_getTransactionCount", [hexed(ALICE), "latest"], "0x0"),
        ("eth_getCode", [CTT_HEX, "latest"], "0xfe"),
        ("eth_getCode", [hexed(ALICE), "latest"], "0x"),
        ("eth_getStorageAt", [CTT_HEX, "0x0", "latest"], "0x" + "00" * 32),
        ("eth_getBlockTransactionCountByNumber", ["latest"], "0x2"),
        ("eth_getBlockTransactionCountByNumber", ["0x5"], None),
        ("eth_getBlockTransactionCountByHash", ["0x" + "11" * 32], None),
        ("eth_getBlockByNumber", ["0x5", False], None),
        ("eth_getBlockByHash", ["0x" + "11" * 32, True], None),
        ("eth_getBlockReceipts", ["0x5"], None),
        ("eth_getTransactionByHash", ["0x" + "11" * 32], None),
        ("eth_getTransactionReceipt", ["0x" + "11" * 32], None),
        ("eth_getTransactionByBlockNumberAndIndex", ["latest", "0x2"], None),
        ("eth_getTransactionByBlockHashAndIndex", ["0x" + "11" * 32, "0x0"], None),
        ("eth_uninstallFilter", ["0x1"], False),
        ("eth_unsubscribe", ["0x1"], False),
        ("txpool_status", [], {"pending": "0x0", "queued": "0x0"}),
    ],
)
async def test_simple_answers(node: Served, method: str, params: list[Any], expected: Any) -> None:
    assert await node.call(method, *params) == expected


@pytest.mark.parametrize(
    "method",
    ["eth_fillTransaction", "eth_getProof", "eth_simulateV1", "eth_sign", "eth_signTransaction", "eth_sendTransaction",
     "debug_traceTransaction", "personal_listAccounts", "eth_getUncleCountByBlockNumber"],
)  # fmt: skip
async def test_what_this_chain_does_not_do_is_no_method(node: Served, method: str) -> None:
    error = await node.error(method)
    assert error == {"code": -32601, "message": f"the method {method} does not exist/is not available"}


async def test_syncing_tells_where_the_node_is(node: Served) -> None:
    node.world.syncing = True
    assert (await node.call("eth_syncing"))["currentBlock"] == "0x1"


async def test_capabilities_name_the_oldest_state(node: Served) -> None:
    node.world.make_blocks(600)
    capabilities = await node.call("eth_capabilities")
    assert capabilities["head"]["number"] == hex(601)
    assert capabilities["state"] == {"disabled": False, "oldestBlock": hex(601 - 512)}
    assert capabilities["stateproofs"]["disabled"] is True
    assert capabilities["logs"]["oldestBlock"] == "0x0"


async def test_fee_history_is_all_zeros(node: Served) -> None:
    node.world.make_blocks(5)
    history = await node.call("eth_feeHistory", "0x3", "latest", [10, 50.5])
    assert history["oldestBlock"] == "0x4"
    assert history["baseFeePerGas"] == ["0x0"] * 4
    assert history["gasUsedRatio"] == [0.0] * 3
    assert history["reward"] == [["0x0", "0x0"]] * 3
    assert "reward" not in await node.call("eth_feeHistory", 3, "latest")
    assert len((await node.call("eth_feeHistory", "0xffff", "0x1", []))["gasUsedRatio"]) == 2


async def test_a_chain_with_a_minimum_price_says_so() -> None:
    async with served(RpcWorld(minimum_gas_price_wei=7)) as node:
        assert await node.call("eth_gasPrice") == "0x7"
        assert (await node.call("eth_getBlockByNumber", "latest", False))["baseFeePerGas"] == "0x7"


# --- blocks --------------------------------------------------------------------------------------------------------


async def test_a_block_has_every_member_and_none_is_null(node: Served) -> None:
    block = await node.call("eth_getBlockByNumber", "latest", False)
    assert block.keys() == BLOCK_MEMBERS and None not in block.values()
    assert block["miner"] == hexed(PROPOSER)
    assert len(block["logsBloom"]) == 2 + 512 and len(block["extraData"]) <= 2 + 64
    assert block["sha3Uncles"] == hexed(keccak(b"\xc0"))
    assert int(block["timestampMilliseconds"], 16) == START_MS + 333
    assert int(block["timestamp"], 16) == (START_MS + 333) // 1_000
    assert int(block["gasLimit"], 16) == BLOCK_GAS_LIMIT
    assert int(block["size"], 16) == len(node.world.head.block.encode())
    assert block["transactions"] == [hexed(h) for h in node.world.head.transaction_hashes]
    assert block["parentHash"] == (await node.call("eth_getBlockByNumber", "earliest", False))["hash"]


async def test_a_block_is_found_by_every_name(node: Served) -> None:
    node.world.make_blocks(3)
    newest = await node.call("eth_getBlockByNumber", "0x4", True)
    for tag in ("latest", "pending", "safe", "finalized"):
        assert await node.call("eth_getBlockByNumber", tag, True) == newest
    assert await node.call("eth_getBlockByHash", newest["hash"], True) == newest
    assert await node.call("eth_getBlockTransactionCountByHash", newest["hash"]) == "0x0"


async def test_a_whole_block_holds_its_transactions_and_receipts(node: Served) -> None:
    block = await node.call("eth_getBlockByNumber", "0x1", True)
    receipts = await node.call("eth_getBlockReceipts", "0x1")
    for index, transaction in enumerate(block["transactions"]):
        by_number = await node.call("eth_getTransactionByBlockNumberAndIndex", "0x1", hex(index))
        by_hash = await node.call("eth_getTransactionByBlockHashAndIndex", block["hash"], hex(index))
        assert (
            transaction
            == by_number
            == by_hash
            == await node.call("eth_getTransactionByHash", transaction["hash"])
        )
        assert receipts[index] == await node.call("eth_getTransactionReceipt", transaction["hash"])
    assert receipts[1]["cumulativeGasUsed"] == block["gasUsed"]
    assert [log["logIndex"] for receipt in receipts for log in receipt["logs"]] == ["0x0", "0x1"]
    assert await node.call("eth_getBlockReceipts", block["hash"]) == receipts
    assert await node.call("eth_getBlockReceipts", {"blockHash": block["hash"]}) == receipts


async def test_a_blooms_bits_are_those_of_its_addresses_and_topics(node: Served) -> None:
    block = await node.call("eth_getBlockByNumber", "0x1", False)
    receipts = await node.call("eth_getBlockReceipts", "0x1")
    expected = 0
    for value in {v for r in receipts for log in r["logs"] for v in (log["address"], *log["topics"])}:
        digest = keccak(bytes.fromhex(value[2:]))
        for at in (0, 2, 4):
            expected |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 2047)
    assert int(block["logsBloom"], 16) == expected
    assert int(receipts[0]["logsBloom"], 16) | int(receipts[1]["logsBloom"], 16) == expected


# --- transactions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "extra"),
    [
        (0, {"gas_price": 3}, set()),
        (1, {"gas_price": 3, "access_list": [(BOB, [b"\x01" * 32])]}, {"accessList", "yParity"}),
        (
            2,
            {"max_fee": 9, "max_priority_fee": 2},
            {"accessList", "yParity", "maxFeePerGas", "maxPriorityFeePerGas"},
        ),
    ],
)
async def test_a_transaction_of_each_type_has_its_members(
    node: Served, kind: int, fields: dict[str, Any], extra: set[str]
) -> None:
    raw = node.world.sign(ALICE_KEY, BOB, value=5, type=kind, **fields)
    sent = await node.call("eth_sendRawTransaction", hexed(raw))
    assert sent == hexed(keccak(raw))

    pending = await node.call("eth_getTransactionByHash", sent)
    assert pending.keys() == TRANSACTION_MEMBERS | extra
    assert [pending[m] for m in ("blockHash", "blockNumber", "transactionIndex", "blockTimestamp")] == [
        None
    ] * 4
    assert pending["gasPrice"] == ("0x9" if kind == 2 else "0x3")

    node.world.make_block()
    mined = await node.call("eth_getTransactionByHash", sent)
    assert mined.keys() == TRANSACTION_MEMBERS | extra
    assert (mined["from"], mined["to"], mined["value"], mined["input"]) == (
        hexed(ALICE),
        hexed(BOB),
        "0x5",
        "0x",
    )
    assert (mined["type"], mined["chainId"], mined["blockNumber"]) == (hex(kind), hex(CHAIN_ID), "0x2")
    if kind == 0:
        assert int(mined["v"], 16) in (35 + 2 * CHAIN_ID, 36 + 2 * CHAIN_ID)
    else:
        assert mined["v"] == mined["yParity"] in ("0x0", "0x1")
        listed = [{"address": hexed(BOB), "storageKeys": ["0x" + "01" * 32]}] if kind == 1 else []
        assert mined["accessList"] == listed

    receipt = await node.call("eth_getTransactionReceipt", sent)
    assert receipt.keys() == RECEIPT_MEMBERS
    assert (receipt["effectiveGasPrice"], receipt["contractAddress"], receipt["type"]) == (
        "0x0",
        None,
        hex(kind),
    )


async def test_a_log_has_every_member(node: Served) -> None:
    receipt = (await node.call("eth_getBlockReceipts", "0x1"))[0]
    (log,) = receipt["logs"]
    assert log.keys() == LOG_MEMBERS
    assert (log["address"], log["removed"], log["transactionHash"]) == (
        CTT_HEX,
        False,
        receipt["transactionHash"],
    )
    assert log["blockTimestamp"] == (await node.call("eth_getBlockByNumber", "0x1", False))["timestamp"]


async def test_a_refused_rule_leaves_a_failed_receipt(node: Served) -> None:
    sent = node.world.send_call(ALICE_KEY, "setTokenCapability(uint256)", 5)
    node.world.make_block()
    receipt = await node.call("eth_getTransactionReceipt", hexed(sent))
    assert (receipt["status"], receipt["logs"], receipt["logsBloom"]) == ("0x0", [], "0x" + "00" * 256)


async def test_the_ledgers_refusals_are_told_in_geths_words(node: Served) -> None:
    world = node.world
    good = world.sign(ALICE_KEY, BOB)

    async def refusal(raw: bytes) -> str:
        error = await node.error("eth_sendRawTransaction", hexed(raw))
        assert error["code"] == -32000
        return str(error["message"])

    assert await refusal(b"") == "rlp: no bytes"
    assert re.match("rlp: .*", await refusal(good + b"\0"))
    assert await refusal(b"\x03" + good[1:]) == "transaction type not supported"
    assert await refusal(sign_transaction(ALICE_KEY, chain_id=5, nonce=0, gas_limit=21_000, to=BOB)) == (
        "invalid chain id for signer: have 5 want 4242"
    )
    assert await refusal(world.sign(ALICE_KEY, b"")) == (
        "contract creation is not supported: this chain runs native modules"
    )
    assert await refusal(world.sign(POOR_KEY, BOB, value=1)) == (
        "insufficient funds for gas * price + value: have 0 want 1"
    )
    assert (
        await refusal(world.sign(ALICE_KEY, BOB, gas_limit=20_999))
        == "intrinsic gas too low: have 20999 want 21000"
    )
    assert (await refusal(world.sign(ALICE_KEY, BOB, gas_limit=2**40))).startswith("exceeds block gas limit")
    await node.call("eth_sendRawTransaction", hexed(good))
    assert await refusal(good) == "already known"
    assert (
        await refusal(world.sign(ALICE_KEY, BOB, value=1, nonce=0)) == "replacement transaction underpriced"
    )
    world.make_block()
    assert await refusal(good) == "nonce too low: next nonce 1, tx nonce 0"
    assert await refusal(bytes(200_000)) == "oversized data: 200000 bytes; limit 131072"


async def test_a_batch_of_transactions_is_one_hand_over(node: Served) -> None:
    raws = [node.world.sign(ALICE_KEY, BOB, nonce=nonce) for nonce in range(99)]
    before = node.world.hand_overs
    replies = await node.post(
        [
            {"jsonrpc": "2.0", "id": at, "method": "eth_sendRawTransaction", "params": [hexed(raw)]}
            for at, raw in enumerate([*raws, raws[0]])
        ]
    )
    assert node.world.hand_overs == before + 1
    assert [reply["id"] for reply in replies] == list(range(100))
    assert [reply["result"] for reply in replies[:99]] == [hexed(keccak(raw)) for raw in raws]
    assert replies[99]["error"] == {"code": -32000, "message": "already known"}
    assert await node.call("txpool_status") == {"pending": hex(99), "queued": "0x0"}


async def test_the_synchronous_send_answers_with_the_receipt() -> None:
    async with served(RpcWorld(automatic=False)) as node:
        raw = hexed(node.world.sign(ALICE_KEY, BOB))
        asked = asyncio.create_task(node.call("eth_sendRawTransactionSync", raw, 5_000))
        while not node.world.pool_counts()[0]:
            await asyncio.sleep(0.01)
        node.world.make_block()
        receipt = await asked
        assert (receipt["status"], receipt["blockNumber"]) == ("0x1", "0x2")
        assert not node.server.door.inclusion._waiting


async def test_who_sends_again_synchronously_gets_the_receipt_as_well() -> None:
    async with served(RpcWorld(automatic=False)) as node:
        raw = hexed(node.world.sign(ALICE_KEY, BOB))
        transaction_hash = await node.call("eth_sendRawTransaction", raw)
        asked = asyncio.create_task(node.call("eth_sendRawTransactionSync", raw, 5_000))
        await asyncio.sleep(0.05)
        assert not asked.done()
        node.world.make_block()
        receipt = await asked
        assert receipt["transactionHash"] == transaction_hash
        assert await node.call("eth_sendRawTransactionSync", raw, 5_000) == receipt
        late = await node.error(
            "eth_sendRawTransactionSync", hexed(node.world.sign(ALICE_KEY, OPERATOR, nonce=0))
        )
        assert late["message"].startswith("nonce too low")


async def test_the_synchronous_send_gives_up_with_the_hash(node: Served) -> None:
    raw = node.world.sign(ALICE_KEY, BOB)
    error = await node.error("eth_sendRawTransactionSync", hexed(raw), 20)
    assert (error["code"], error["data"]) == (4, hexed(keccak(raw)))
    assert "0.02 s" in error["message"]
    assert not node.server.door.inclusion._waiting


async def test_the_pools_content_is_listed_by_sender_and_nonce(node: Served) -> None:
    world = node.world
    for key, nonce in ((ALICE_KEY, 0), (ALICE_KEY, 1), (ALICE_KEY, 5), (BOB_KEY, 3)):
        world.take(world.sign(key, OPERATOR, nonce=nonce))
    content = await node.call("txpool_content")
    assert list(content["pending"][hexed(ALICE)]) == ["0", "1"]
    assert content["pending"][hexed(ALICE)]["1"]["nonce"] == "0x1"
    assert {sender: list(run) for sender, run in content["queued"].items()} == {
        hexed(ALICE): ["5"],
        hexed(BOB): ["3"],
    }
    assert await node.call("txpool_status") == {"pending": "0x2", "queued": "0x2"}
    assert await node.call("eth_getTransactionCount", hexed(ALICE), "pending") == "0x2"
    assert await node.call("eth_getTransactionCount", hexed(ALICE), "latest") == "0x0"


# --- state and calls -----------------------------------------------------------------------------------------------


async def test_state_is_read_at_any_kept_block(node: Served) -> None:
    world = node.world
    world.take(world.sign(ALICE_KEY, BOB, value=5))
    block = world.make_block()
    world.make_block()
    for ref, expected in (("0x1", 10**24), ("0x2", 10**24 + 5), ("latest", 10**24 + 5), ("earliest", 10**24)):
        assert await node.call("eth_getBalance", hexed(BOB), ref) == hex(expected)
    assert await node.call("eth_getBalance", hexed(BOB), {"blockHash": hexed(block.hash)}) == hex(10**24 + 5)
    assert await node.call("eth_getTransactionCount", hexed(ALICE), "0x2") == "0x1"


async def test_pruned_and_future_states_are_refused_in_words(node: Served) -> None:
    node.world.make_blocks(519)  # the head is 520
    assert await node.call("eth_getBalance", hexed(BOB), hex(8))
    for method in ("eth_getBalance", "eth_getTransactionCount"):
        assert await node.error(method, hexed(BOB), hex(7)) == {
            "code": -32000,
            "message": "state at block 7 is pruned: this node keeps the last 512 blocks",
        }
    assert (await node.error("eth_call", {"to": CTT_HEX}, "0x7"))["message"].startswith(
        "state at block 7 is pruned"
    )
    for method in ("eth_getBalance", "eth_getCode"):
        error = await node.error(method, hexed(BOB), hex(521))
        assert error == {"code": -32000, "message": "header not found: block 521 is above the head 520"}
    assert (await node.error("eth_getBalance", hexed(BOB), "0x" + "11" * 32))["message"].startswith(
        "header not found"
    )


async def test_a_call_gives_the_encoded_result(node: Served) -> None:
    for block in ("latest", "0x1", "pending"):
        for member in ("data", "input"):
            answer = await node.call("eth_call", {"to": CTT_HEX, member: calldata("symbol()")}, block)
            assert bytes.fromhex(answer[2:])[64:67] == b"CTT"


async def test_a_call_to_an_address_without_code_gives_nothing(node: Served) -> None:
    assert await node.call("eth_call", {"to": hexed(BOB), "data": "0x12345678"}) == "0x"


async def test_a_revert_has_its_reason_in_words_and_as_an_abi_error(node: Served) -> None:
    request = {"from": hexed(ALICE), "to": CTT_HEX, "data": calldata("setTokenCapability(uint256)", 5)}
    for method in ("eth_call", "eth_estimateGas"):
        error = await node.error(method, request)
        assert error["code"] == 3
        assert error["message"] == f"execution reverted: NotAdmin(caller={hexed(ALICE)})"
        assert error["data"] == hexed(keccak(b"NotAdmin(address)")[:4] + bytes(12) + ALICE)
    listed = await node.call("eth_createAccessList", request)
    assert listed["accessList"] == [] and listed["error"].startswith("execution reverted: NotAdmin")


async def test_a_malformed_call_reverts_with_no_data(node: Served) -> None:
    for data in ("0x", "0x12", "0x12345678", calldata("ownerOf(uint256)", 1)[:-2]):
        error = await node.error("eth_call", {"to": CTT_HEX, "data": data})
        assert (error["code"], error["data"]) == (3, "0x") and error["message"].startswith(
            "execution reverted: "
        )
    assert re.search(
        "unknown function 0x12345678",
        (await node.error("eth_call", {"to": CTT_HEX, "data": "0x12345678"}))["message"],
    )


async def test_a_call_without_from_is_from_address_zero(node: Served) -> None:
    error = await node.error("eth_call", {"to": CTT_HEX, "data": calldata("setTokenCapability(uint256)", 5)})
    assert "0x" + "00" * 20 in error["message"]


async def test_a_call_changes_nothing(node: Served) -> None:
    request = {"from": hexed(ADMIN), "to": CTT_HEX, "data": calldata("setTokenCapability(uint256)", 5)}
    assert await node.call("eth_call", request) == "0x"
    assert (
        int(await node.call("eth_call", {"to": CTT_HEX, "data": calldata("tokenCapability()")}), 16) == 10_000
    )


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        ({"data": "0x60"}, -32000, r"^contract creation is not supported: this chain runs native modules$"),
        ({"to": CTT_HEX, "gas": "0x0"}, -32000, r"^intrinsic gas too low: have 0 want 21000$"),
        (
            {"to": CTT_HEX, "value": "0x1"},
            -32000,
            r"^insufficient funds for gas \* price \+ value: have 0 want 1$",
        ),
        ({"to": CTT_HEX, "gas": "0x10000000000000000"}, -32602, r"above 64 bits"),
        (
            {"to": CTT_HEX, "data": calldata("symbol()"), "gas": "0x52f0"},
            3,
            r"^execution reverted: out of gas",
        ),
    ],
)
async def test_calls_that_cannot_run_say_why(
    node: Served, request_: dict[str, Any], code: int, text: str
) -> None:
    error = await node.error("eth_call", request_)
    assert error["code"] == code and re.search(text, error["message"]), error


async def test_a_state_override_is_declined_and_an_empty_one_ignored(node: Served) -> None:
    request = {"to": CTT_HEX, "data": calldata("symbol()")}
    assert await node.call("eth_call", request, "latest", {})
    error = await node.error("eth_call", request, "latest", {CTT_HEX: {"code": "0x"}})
    assert error["code"] == -32601 and error["message"].startswith("state override is not supported")


async def test_an_estimate_is_the_gas_used_and_a_quarter_more_when_records_are_touched(node: Served) -> None:
    request = {"from": hexed(ALICE), "to": CTT_HEX, "data": calldata("buyEmptyTokens(uint256)", 3)}
    estimate = int(await node.call("eth_estimateGas", request), 16)
    sent = node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 3, gas_limit=estimate)
    node.world.make_block()
    receipt = await node.call("eth_getTransactionReceipt", hexed(sent))
    used = int(receipt["gasUsed"], 16)
    assert (receipt["status"], estimate) == ("0x1", used + used // 4)
    assert await node.call("eth_estimateGas", {"to": hexed(BOB)}) == "0x5208"


async def test_an_estimate_above_the_callers_own_limit_is_refused(node: Served) -> None:
    request = {"from": hexed(ALICE), "to": CTT_HEX, "data": calldata("buyEmptyTokens(uint256)", 3)}
    estimate = await node.call("eth_estimateGas", request)
    used = (await node.call("eth_createAccessList", request))["gasUsed"]
    assert await node.call("eth_estimateGas", request | {"gas": estimate}) == estimate
    assert await node.call("eth_estimateGas", request | {"gas": used}) == used
    error = await node.error("eth_estimateGas", request | {"gas": "0x6000"})
    assert error == {"code": -32000, "message": "gas required exceeds allowance (24576)"}


# --- logs ----------------------------------------------------------------------------------------------------------


async def test_logs_are_found_by_address_topics_and_place(node: Served) -> None:
    world = node.world
    for key in (ALICE_KEY, BOB_KEY):
        world.send_call(key, "buyEmptyTokens(uint256)", 2)
        world.make_block()
    transfer = hexed(keccak(b"Transfer(address,address,uint256)"))
    to_bob = hexed(BOB.rjust(32, b"\0"))

    async def find(**query: Any) -> list[Any]:
        logs: list[Any] = await node.call("eth_getLogs", query)
        return logs

    everything = await find(fromBlock="0x0", toBlock="latest")
    assert [log["blockNumber"] for log in everything] == ["0x1"] * 2 + ["0x2"] * 2 + ["0x3"] * 2
    assert len(await find(fromBlock="0x0", toBlock="latest", topics=[transfer])) == 4
    bobs = await find(
        fromBlock="earliest", address=[CTT_HEX, hexed(BOB)], topics=[[transfer, to_bob], None, to_bob]
    )
    assert [log["blockNumber"] for log in bobs] == ["0x3", "0x3"]
    assert await find(blockHash=everything[-1]["blockHash"], topics=[transfer]) == bobs
    assert await find(fromBlock="0x2", toBlock="0x2", topics=[None, None, to_bob]) == []
    assert await find(fromBlock="0x0", address=hexed(BOB)) == []
    assert await find(
        fromBlock="0x0",
        topics=[
            transfer,
            None,
            None,
            None,
        ],
    ) == [log for log in everything if log["topics"][0] == transfer]
    assert await find() == bobs
    assert await find(fromBlock="0x0", toBlock="latest") == everything  # now by the blooms


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ({"fromBlock": "0x2", "toBlock": "0x1"}, -32602, r"^invalid block range params$"),
        (
            {"fromBlock": "0x0", "toBlock": "0xffff"},
            -32602,
            r"^block range extends beyond current head block$",
        ),
        (
            {"fromBlock": "0x9999", "toBlock": "0xffff"},
            -32602,
            r"^block range extends beyond current head block$",
        ),
        ({"fromBlock": "0x0", "toBlock": hex(1_000)}, -32602, r"^range 1,001 blocks; limit 1,000$"),
        ({"blockHash": "0x" + "11" * 32}, -32000, r"^unknown block$"),
    ],
)
async def test_log_ranges_are_bounded(node: Served, query: dict[str, Any], code: int, text: str) -> None:
    node.world.make_blocks(1_100)
    error = await node.error("eth_getLogs", query)
    assert error["code"] == code and re.search(text, error["message"]), error
    assert await node.call("eth_getLogs", {"fromBlock": "0x1", "toBlock": hex(1_000)}) != []


async def test_too_many_logs_say_the_limit(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpc.logs.RESULT_LOGS_MAX", 1)
    error = await node.error("eth_getLogs", {"fromBlock": "0x0"})
    assert error["code"] == -32602 and "limit 1" in error["message"]


# --- the project's own ---------------------------------------------------------------------------------------------


async def test_the_modules_abi_is_served(node: Served) -> None:
    modules = await node.call("ctt_abi")
    assert modules["CTT"]["address"].lower() == CTT_HEX
    names = {entry["name"] for entry in modules["CTT"]["abi"] if entry["type"] == "function"}
    assert {"ownerOf", "refill", "buyToken"} <= names
    assert json.dumps(modules["CTT"]["abi"]) == json.dumps(CTT.abi_json())


async def test_the_chains_status_is_readable(node: Served) -> None:
    node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 3)
    node.world.make_block()
    node.world.send_call(ADMIN_KEY, "setTokenCapability(uint256)", 12_345)
    status = await node.call("ctt_chainStatus")
    assert (status["height"], status["peers"], status["syncing"]) == (2, 3, False)
    assert status["pool"] == {"pending": 1, "queued": 0}
    assert status["ctt"] == {
        "name": "Sun",
        "symbol": "CTT",
        "tokens": 3,
        "maxTokens": "1000",
        "tokenCapabilityWh": "10000",
        "tokenCapability": "10.000 kWh",
        "energyStoredWh": "0",
        "energyStored": "0.000 kWh",
    }
