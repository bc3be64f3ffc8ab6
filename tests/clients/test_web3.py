"""An unmodified web3.py against a real node: a prosumer's whole life, from the meter's certificate to a sale."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.exceptions import ContractCustomError, Web3RPCError
from web3.logs import DISCARD

from tests.clients import expected
from tests.clients.expected import ADMIN, ALICE, BOB, PRICE_WEI
from tests.clients.recorder import Recorder
from tests.ledger_world import CHAIN_ID

CAPABILITY_WH: Final = 10_000
SECONDS_MAX: Final = 30
IN_A_ROW: Final = 100


class Client:
    """web3.py with the CTT as the node describes it."""

    def __init__(self, url: str) -> None:
        self.w3 = Web3(Web3.HTTPProvider(url))
        described: Any = self.w3.provider.make_request("ctt_abi", [])["result"]["CTT"]  # type: ignore[arg-type]
        address = Web3.to_checksum_address(described["address"])
        self.ctt: Any = self.w3.eth.contract(address=address, abi=described["abi"])

    def send(self, account: LocalAccount, call: Any, **fields: Any) -> Any:
        """Signs as applications do, waits, and gives the receipt."""
        fields |= {"from": account.address, "nonce": self.w3.eth.get_transaction_count(account.address)}
        return self.wait(account, call.build_transaction(fields))

    def wait(self, account: LocalAccount, transaction: Any) -> Any:
        raw = account.sign_transaction(transaction).raw_transaction
        sent = self.w3.eth.send_raw_transaction(raw)
        return self.w3.eth.wait_for_transaction_receipt(sent, SECONDS_MAX, 0.05)

    def events(self, name: str, receipt: Any) -> list[dict[str, Any]]:
        """The arguments of the receipt's events of this name."""
        assert receipt["status"] == 1
        return [dict(event["args"]) for event in self.ctt.events[name]().process_receipt(receipt, DISCARD)]


@pytest.fixture(scope="module")
def client(recorder: Recorder) -> Client:
    return Client(recorder.url)


def test_it_connects_and_reads(client: Client) -> None:
    eth = client.w3.eth
    assert client.w3.is_connected()
    assert eth.chain_id == CHAIN_ID == int(client.w3.net.version)
    assert client.w3.client_version.startswith("ctt/v")
    assert eth.gas_price == 0
    assert eth.get_balance(ALICE.address) > 0
    genesis = eth.get_block(0)
    assert genesis["number"] == 0 and eth.get_block(genesis["hash"]) == genesis
    assert client.ctt.functions.symbol().call() == "CTT"


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_it_sends_each_type_of_transaction(client: Client, kind: int) -> None:
    """Legacy, with an access list, with two fees: 5 wei go to a stranger."""
    stranger = Web3.to_checksum_address(bytes([kind + 1]) * 20)
    fields: dict[str, Any] = {
        "chainId": CHAIN_ID,
        "nonce": client.w3.eth.get_transaction_count(BOB.address),
        "to": stranger,
        "value": 5,
        "gas": 30_000,
    }
    if kind == 2:
        fields |= {"maxFeePerGas": 10, "maxPriorityFeePerGas": 1}
    else:
        fields |= {"gasPrice": 0}
    if kind == 1:
        fields |= {"accessList": []}

    receipt = client.wait(BOB, fields)

    assert (receipt["status"], receipt["type"], receipt["gasUsed"]) == (1, kind, 21_000)
    assert client.w3.eth.get_balance(stranger) == 5
    transaction = client.w3.eth.get_transaction(receipt["transactionHash"])
    assert (transaction["from"], transaction["to"], transaction["type"]) == (BOB.address, stranger, kind)
    block = client.w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
    assert transaction in block["transactions"]


def test_a_prosumers_life(client: Client) -> None:
    """Each step's events, decoded with the ABI that the node tells."""
    functions = client.ctt.functions
    meter: LocalAccount = Account.create()
    first_block = client.w3.eth.block_number

    certified = client.send(ADMIN, functions.certifyMeter(meter.address, 1, 0, False))
    (event,) = client.events("MeterCertified", certified)
    assert (event["meter"], event["operator"], event["source"]) == (meter.address, ADMIN.address, 1)
    registered = client.send(ALICE, functions.register(meter.address))
    (event,) = client.events("ProsumerRegistered", registered)
    assert event == {"prosumer": ALICE.address, "meter": meter.address}
    confirmed = client.send(meter, functions.confirm(ALICE.address))
    (event,) = client.events("ProsumerConfirmed", confirmed)
    assert event == {"prosumer": ALICE.address, "meter": meter.address}

    bought = client.send(ALICE, functions.buyEmptyTokens(2), value=2 * PRICE_WEI)
    transfers = client.events("Transfer", bought)
    assert [each["to"] for each in transfers] == [ALICE.address] * 2
    ids = {each["tokenId"] for each in transfers}

    refilled = client.send(meter, functions.refill(12_000, ALICE.address))
    (event,) = client.events("EnergyRefilled", refilled)
    assert (event["meter"], event["offered"], event["stored"]) == (meter.address, 12_000, 12_000)
    assert functions.energyOf(ALICE.address).call() == [12_000, 8_000]
    consumed = client.send(meter, functions.consume(3_000, ALICE.address))
    (event,) = client.events("EnergyConsumed", consumed)
    assert (event["meter"], event["requested"], event["covered"]) == (meter.address, 3_000, 3_000)
    stored, _ = functions.energyOf(ALICE.address).call()
    assert stored == 9_000

    full = functions.tokensOf(ALICE.address, 0, 2).call()[0]
    offered = client.send(ALICE, functions.setOnSale(full, 10**15, 10**11))
    (event,) = client.events("TokenOnSale", offered)
    assert (event["tokenId"], event["tokenPrice"], event["energyPrice"]) == (full, 10**15, 10**11)
    assert full in ids
    price = functions.sellingPrice(full).call()
    sold = client.send(BOB, functions.buyToken(full), value=price)
    (event,) = client.events("Transfer", sold)
    assert (event["from"], event["to"], event["tokenId"]) == (ALICE.address, BOB.address, full)
    (event,) = client.events("TokenSold", sold)
    assert (event["seller"], event["buyer"], event["price"]) == (ALICE.address, BOB.address, price)
    assert functions.ownerOf(full).call() == BOB.address

    # The past is as it was.
    before = bought["blockNumber"]
    assert functions.energyOf(ALICE.address).call(block_identifier=before) == [0, 2 * CAPABILITY_WH]
    assert functions.ownerOf(full).call(block_identifier=before) == ALICE.address
    assert functions.balanceOf(ALICE.address).call(block_identifier=first_block) == 0
    logs = client.ctt.events.Transfer().get_logs(from_block=first_block, argument_filters={"tokenId": full})
    assert [log["args"]["to"] for log in logs] == [ALICE.address, BOB.address]


def test_it_sees_why_a_rule_refused(client: Client) -> None:
    """By call and by estimate; one that was sent in spite of it is in a block, failed."""
    refused = client.ctt.functions.setTokenCapability(5)
    for attempt in (refused.call, refused.estimate_gas):
        with pytest.raises(ContractCustomError) as refusal:
            attempt({"from": BOB.address})
        assert str(refusal.value.data).startswith("0x")
        assert BOB.address.lower()[2:] in str(refusal.value.data)
    receipt = client.send(BOB, refused, gas=100_000)
    assert receipt["status"] == 0 and not receipt["logs"]


def test_it_sees_what_the_node_refuses(client: Client) -> None:
    stale = {"chainId": CHAIN_ID, "nonce": 0, "to": ALICE.address, "value": 9, "gas": 21_000, "gasPrice": 0}
    if not client.w3.eth.get_transaction_count(BOB.address):
        client.wait(BOB, stale | {"value": 1})
    raw = BOB.sign_transaction(stale).raw_transaction
    with pytest.raises(Web3RPCError, match="nonce too low: next nonce"):
        client.w3.eth.send_raw_transaction(raw)
    with pytest.raises(Web3RPCError, match="invalid chain id"):
        client.w3.eth.send_raw_transaction(BOB.sign_transaction(stale | {"chainId": 1}).raw_transaction)


def test_it_batches(client: Client) -> None:
    with client.w3.batch_requests() as batch:
        for height in (0, 1):
            batch.add(client.w3.eth.get_block(height))
        batch.add(client.ctt.functions.symbol())
        first, second, symbol = cast("list[Any]", batch.execute())
    assert (first["number"], second["number"], symbol) == (0, 1, "CTT")
    assert second["parentHash"] == first["hash"]


def test_it_polls_filters(client: Client) -> None:
    """Of blocks, of pending transactions and of events."""
    blocks, pending = client.w3.eth.filter("latest"), client.w3.eth.filter("pending")
    transfers = client.ctt.events.Transfer.create_filter(
        from_block="latest", argument_filters={"to": ALICE.address}
    )

    receipt = client.send(ALICE, client.ctt.functions.buyEmptyToken(), value=PRICE_WEI)

    assert receipt["blockHash"] in blocks.get_new_entries()
    assert pending.get_new_entries() == [receipt["transactionHash"]]
    (entry,) = transfers.get_new_entries()
    assert (entry["transactionHash"], entry["args"]["to"]) == (receipt["transactionHash"], ALICE.address)
    assert transfers.get_new_entries() == []
    assert client.w3.eth.uninstall_filter(transfers.filter_id)


def test_ids_of_filters_are_quantities(client: Client) -> None:
    """Clients that keep them as numbers write them back without leading zeros."""
    for _ in range(100):
        made: Any = client.w3.eth.filter("latest").filter_id
        assert made == hex(int(made, 16))
        assert client.w3.eth.uninstall_filter(made)


def test_the_chain_takes_a_permit_of_65_and_of_64_bytes(client: Client) -> None:
    """ERC-4494, for the account's first token, which it may have to buy."""
    functions = client.ctt.functions
    if not functions.balanceOf(ALICE.address).call():
        client.send(ALICE, functions.buyEmptyToken(), value=PRICE_WEI)
    token = functions.tokenOfOwnerByIndex(ALICE.address, 0).call()
    message = {"tokenId": token, "nonce": functions.nonces(token).call()}
    permit = expected.PERMIT | {"message": expected.PERMIT["message"] | message}
    signature = bytes(ALICE.sign_typed_data(full_message=permit).signature)
    for form in (signature, expected.compact(signature)):
        client.send(BOB, functions.permit(BOB.address, token, expected.DEADLINE, form))
        assert functions.getApproved(token).call() == BOB.address
        client.send(ALICE, functions.approve(expected.ZERO, token))


def test_a_hundred_in_a_row_are_all_included(client: Client) -> None:
    """By an operator, who may have so many pending; the count of nonces includes them."""
    stranger = Account.create().address
    fields: dict[str, Any] = {"chainId": CHAIN_ID, "to": stranger, "value": 1, "gas": 21_000, "gasPrice": 0}
    sent = []
    for _ in range(IN_A_ROW):
        nonce = client.w3.eth.get_transaction_count(ADMIN.address, "pending")
        signed = ADMIN.sign_transaction(fields | {"nonce": nonce})
        sent.append(client.w3.eth.send_raw_transaction(signed.raw_transaction))
    receipts = [client.w3.eth.wait_for_transaction_receipt(each, SECONDS_MAX, 0.05) for each in sent]
    assert [receipt["status"] for receipt in receipts] == [1] * IN_A_ROW
    assert client.w3.eth.get_balance(stranger) == IN_A_ROW


def test_it_hears_of_events_and_pending_transactions_over_websocket(
    client: Client, recorder: Recorder
) -> None:
    async def hear() -> dict[str, Any]:
        async with (
            AsyncWeb3(WebSocketProvider(recorder.url.replace("http", "ws"))) as w3,
            asyncio.timeout(SECONDS_MAX),
        ):
            transfer = client.ctt.events.Transfer()
            criteria = {"address": client.ctt.address, "topics": [transfer.topic]}
            kinds = {await w3.eth.subscribe("logs", criteria): "log"}
            kinds[await w3.eth.subscribe("newPendingTransactions")] = "pending"
            bought = asyncio.create_task(
                asyncio.to_thread(client.send, ALICE, client.ctt.functions.buyEmptyToken(), value=PRICE_WEI)
            )
            heard = {}
            async for message in w3.socket.process_subscriptions():
                heard[kinds[message["subscription"]]] = message["result"]
                if len(heard) == 2:
                    break
            return heard | {"receipt": await bought}

    heard = asyncio.run(hear())

    sent = heard["receipt"]["transactionHash"]
    assert (heard["pending"], heard["log"]["transactionHash"]) == (sent, sent)
    event = client.ctt.events.Transfer().process_log(heard["log"])
    assert event["args"]["to"] == ALICE.address


def test_it_hears_of_new_heads_over_websocket(recorder: Recorder) -> None:
    async def hear(count: int) -> list[Any]:
        heard: list[Any] = []
        async with AsyncWeb3(WebSocketProvider(recorder.url.replace("http", "ws"))) as w3:
            await w3.eth.subscribe("newHeads")
            async with asyncio.timeout(SECONDS_MAX):
                async for message in w3.socket.process_subscriptions():
                    heard.append(message["result"])
                    if len(heard) == count:
                        break
            assert await w3.eth.block_number >= heard[-1]["number"]
        return heard

    heads = asyncio.run(hear(3))

    first = heads[0]["number"]
    assert [head["number"] for head in heads] == [first, first + 1, first + 2]
    assert [head["parentHash"] for head in heads[1:]] == [head["hash"] for head in heads[:-1]]


def test_its_traffic_is_as_published(
    client: Client, recorder: Recorder, check_traffic: Callable[[Recorder], None]
) -> None:
    check_traffic(recorder)
