"""An unmodified web3.py trades energy on a real node, and reads the clearing that nobody sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from web3 import Web3
from web3.logs import DISCARD

from tests.clients.test_web3 import Client
from tests.ledger_world import ADMIN_KEY, ALICE_KEY, BOB_KEY
from tests.live_node import LiveNode
from tests.market_world import FOREVER

ADMIN, ALICE, BOB = (Account.from_key(key) for key in (ADMIN_KEY, ALICE_KEY, BOB_KEY))
PRICE_WEI: Final = 10**16  # of an empty token
LIMIT: Final = 10**14
SECONDS_MAX: Final = 30


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with LiveNode(Path(tmp_path_factory.mktemp("market")) / "node") as node:
        yield Client(node.url)


def test_a_bid_meets_an_ask(client: Client) -> None:
    w3, ctt = client.w3, client.ctt.functions
    described: Any = w3.provider.make_request("ctt_abi", [])["result"]["Market"]  # type: ignore[arg-type]
    market: Any = w3.eth.contract(Web3.to_checksum_address(described["address"]), abi=described["abi"])
    meter = ADMIN  # the admin is a meter, too: it has money and a key
    for owner in (ALICE, BOB):
        client.send(owner, ctt.buyEmptyToken(), value=PRICE_WEI)
    client.send(ADMIN, ctt.certifyMeter(meter.address, 1, 0, False))
    client.send(ALICE, ctt.register(meter.address))
    client.send(meter, ctt.confirm(ALICE.address))
    client.send(meter, ctt.refill(5_000, ALICE.address))

    client.send(ALICE, market.functions.ask(3_000, LIMIT, FOREVER))
    placed = client.send(BOB, market.functions.bid(3_000, LIMIT, FOREVER))
    cleared = market.events.AuctionCleared()
    found: list[Any] = []
    while not found or found[-1]["args"]["energy"] == 0:
        found = cleared.get_logs(from_block=placed["blockNumber"])

    (args, name) = found[-1]["args"], found[-1]["transactionHash"]
    assert (args["price"], args["energy"], args["bids"], args["asks"]) == (LIMIT, 3_000, 1, 1)
    assert ctt.energyOf(BOB.address).call()[0] == 3_000
    transaction, receipt = w3.eth.get_transaction(name), w3.eth.get_transaction_receipt(name)
    assert (transaction["type"], transaction["to"], transaction["transactionIndex"]) == (
        126,
        market.address,
        0,
    )
    assert int(transaction["from"], 16) == 0
    assert market.decode_function_input(transaction["input"])[0].fn_name == "clear"
    trades = market.events.Trade().process_receipt(receipt, DISCARD)
    assert [dict(trade["args"]) for trade in trades] == [
        {"buyer": BOB.address, "seller": ALICE.address, "energy": 3_000, "price": LIMIT}
    ]
