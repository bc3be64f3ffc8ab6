"""An unmodified web3.py connects, reads, sends, waits, decodes events and sees why a rule refused."""

import asyncio
import json
from typing import Any, cast

import pytest
from eth_account import Account
from eth_typing import HexStr
from web3 import AsyncHTTPProvider, AsyncWeb3, WebSocketProvider
from web3.exceptions import ContractCustomError, ContractLogicError, TransactionNotFound, Web3RPCError

from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import NotAdmin
from tests.rpc_world import ALICE, ALICE_KEY, BOB, CHAIN_ID, RpcWorld, Served, served

pytestmark = pytest.mark.asyncio

ABI: Any = json.loads(json.dumps(CTT.abi_json()))


def contract(w3: AsyncWeb3[Any]) -> Any:
    return w3.eth.contract(address=w3.to_checksum_address(CTT.address), abi=ABI)


def socket_url(node: Served) -> str:
    return node.url.replace("http", "ws")


async def send(w3: AsyncWeb3[Any], transaction: Any) -> Any:
    """Signs with Alice's key as an application does, sends, and waits for the receipt."""
    account = Account.from_key(ALICE_KEY)
    sent = await w3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
    return await w3.eth.wait_for_transaction_receipt(sent, timeout=5, poll_latency=0.01)


async def test_it_reads_the_chain_over_http() -> None:
    async with served() as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        assert await w3.is_connected()
        assert await w3.eth.chain_id == CHAIN_ID
        assert await w3.eth.block_number == 1
        assert await w3.eth.gas_price == await w3.eth.max_priority_fee == 0
        assert (await w3.eth.fee_history(1, "latest", [25.0]))["baseFeePerGas"] == [0, 0]
        assert await w3.eth.get_balance(w3.to_checksum_address(BOB)) == 10**24
        assert bytes(await w3.eth.get_code(w3.to_checksum_address(CTT.address))) == b"\xfe"
        block = await w3.eth.get_block("latest", full_transactions=True)
        assert (block["number"], len(block["transactions"])) == (1, 2)
        assert (await w3.eth.get_block_receipts(1))[0]["status"] == 1
        with pytest.raises(TransactionNotFound):
            await w3.eth.get_transaction(bytes(32))  # type: ignore[arg-type]  # any 32 bytes will do
        await w3.provider.disconnect()


@pytest.mark.parametrize("kind", ["legacy", "dynamic fee", "filled in by the library"])
async def test_it_sends_each_kind_and_decodes_the_events(kind: str) -> None:
    async with served(RpcWorld(automatic=True)) as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        ctt = contract(w3)
        fields: dict[str, Any] = {"from": w3.to_checksum_address(ALICE)}
        fields["nonce"] = await w3.eth.get_transaction_count(fields["from"], "pending")
        if kind == "legacy":
            fields |= {"gasPrice": 0}
        elif kind == "dynamic fee":
            fields |= {"maxFeePerGas": 10, "maxPriorityFeePerGas": 1}

        receipt = await send(w3, await ctt.functions.buyEmptyTokens(2).build_transaction(fields))

        assert receipt["status"] == 1 and receipt["effectiveGasPrice"] == 0
        assert receipt["type"] == (0 if kind == "legacy" else 2)
        events = ctt.events.Transfer().process_receipt(receipt)
        assert [event["args"]["tokenId"] for event in events] == [1, 2]
        assert await ctt.functions.ownerOf(1).call() == w3.to_checksum_address(ALICE)
        logs = await ctt.events.Transfer().get_logs(from_block=0, argument_filters={"to": fields["from"]})
        assert [log["args"]["tokenId"] for log in logs] == [1, 2]
        transaction = await w3.eth.get_transaction(receipt["transactionHash"])
        assert transaction["from"] == fields["from"]
        await w3.provider.disconnect()


async def test_it_sees_why_a_rule_refused() -> None:
    """It raises the ABI error's bytes where there are any, and else the message."""
    async with served() as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        refused = contract(w3).functions.setTokenCapability(5)
        for attempt in (refused.call, refused.estimate_gas):
            with pytest.raises(ContractCustomError) as refusal:
                await attempt({"from": w3.to_checksum_address(ALICE)})
            assert refusal.value.data == "0x" + NotAdmin(ALICE).data.hex()
        with pytest.raises(ContractLogicError, match="execution reverted: CTT: unknown function 0x12345678"):
            await w3.eth.call({"to": w3.to_checksum_address(CTT.address), "data": HexStr("0x12345678")})
        await w3.provider.disconnect()


async def test_it_sees_the_ledgers_refusals() -> None:
    async with served() as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        raw = node.world.sign(ALICE_KEY, BOB)
        await w3.eth.send_raw_transaction(raw)
        with pytest.raises(Web3RPCError, match="already known"):
            await w3.eth.send_raw_transaction(raw)
        node.world.make_block()
        with pytest.raises(Web3RPCError, match="nonce too low: next nonce 1, tx nonce 0"):
            await w3.eth.send_raw_transaction(raw)
        await w3.provider.disconnect()


async def test_it_polls_filters() -> None:
    async with served() as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        blocks = await w3.eth.filter("latest")
        transfers = await contract(w3).events.Transfer.create_filter(from_block="latest")
        node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 2)
        made = node.world.make_block()
        assert [bytes(h) for h in await blocks.get_new_entries()] == [made.hash]  # type: ignore[arg-type]  # hashes
        assert [entry["args"]["tokenId"] for entry in await transfers.get_new_entries()] == [1, 2]
        await w3.provider.disconnect()


async def test_it_batches() -> None:
    async with served() as node:
        w3 = AsyncWeb3(AsyncHTTPProvider(node.url))
        async with w3.batch_requests() as batch:
            batch.add(w3.eth.get_block("latest"))
            batch.add(w3.eth.get_balance(w3.to_checksum_address(BOB)))
            block, balance = cast("list[Any]", await batch.async_execute())
        assert (block["number"], balance) == (1, 10**24)
        await w3.provider.disconnect()


async def test_it_subscribes_over_websocket() -> None:
    async with served(RpcWorld()) as node, AsyncWeb3(WebSocketProvider(socket_url(node))) as w3:
        heads = await w3.eth.subscribe("newHeads")
        transfer = contract(w3).events.Transfer
        logs = await w3.eth.subscribe(
            "logs", {"address": w3.to_checksum_address(CTT.address), "topics": [transfer().topic]}
        )
        node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 2)
        node.world.make_block()

        told: list[Any] = []
        async with asyncio.timeout(5):
            async for message in w3.socket.process_subscriptions():
                told.append(message)
                if len(told) == 3:
                    break

        assert [message["subscription"] for message in told] == [heads, logs, logs]
        assert told[0]["result"]["number"] == 2
        assert transfer().process_log(told[1]["result"])["args"]["tokenId"] == 1
        assert await w3.eth.unsubscribe(heads)
        assert await w3.eth.block_number == 2


async def test_it_sends_over_websocket() -> None:
    async with served(RpcWorld(automatic=True)) as node, AsyncWeb3(WebSocketProvider(socket_url(node))) as w3:
        fields: dict[str, Any] = {"from": w3.to_checksum_address(ALICE), "nonce": 0}
        receipt = await send(w3, await contract(w3).functions.buyEmptyToken().build_transaction(fields))
        assert receipt["status"] == 1
