"""The examples of docs/RPC.md and of `rpc.discover`: real requests to a small chain that is the same each time.

python -m tests.rpc_examples    writes rpc/examples.json anew; `make docs` does, and then docs/RPC.md
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ctt_state.crypto import address_of
from ctt_state.modules.market import MARKET
from ctt_state.records import CttConfig
from ctt_state.transaction import Signed
from ctt_state.units import Hash, hex_of
from node.ledger import Ledger
from rpc.jsontext import dumps
from tests.ledger_world import (
    ALICE,
    ALICE_KEY,
    BOB,
    METER_KEYS,
    OWNER_KEYS,
    OWNERS,
    make_ledger,
    sign,
    sign_call,
)
from tests.proof_world import EPOCH_BLOCKS, add, served_ledger

FILE: Final = Path(__file__).parent.parent / "rpc" / "examples.json"
LENGTH_MAX: Final = 2_500  # characters of an answer; a longer one explains nothing
HEAD: Final = 5

CENT: Final = 10**13  # of a currency unit a kWh, in wei per Wh
ASK: Final = "ask(uint256,uint256,uint64,(address,uint256)[])"
BID: Final = "bid(uint256,uint256,uint64,(uint8,uint256)[],(address,uint256)[])"
REPORT: Final = "report(address,uint64,uint256,uint256)"


def grow(ledger: Ledger) -> Hash:
    """Five blocks: ALICE buys a token, a meter reports, its prosumer offers a token, ALICE pays BOB. Two prosumers trade
    in the auction that block 4 clears, and what is left of the ask stands on. Gives the hash of the payment."""
    time_ms = ledger.head.block.header.timestamp_ms
    add(
        ledger,
        [
            sign_call(ALICE_KEY, 0, "buyEmptyTokens(uint256)", 1, value=10**16),
            sign_call(METER_KEYS[0], 0, REPORT, OWNERS[0], time_ms, 5_000_000, 1_000_000),
        ],
    )
    add(
        ledger,
        [
            sign_call(METER_KEYS[0], 1, REPORT, OWNERS[0], time_ms + 1_000, 5_000_002, 1_000_001),
            _sign_market(OWNER_KEYS[1], ASK, 2_000, 16 * CENT, 100, [(OWNERS[3], 15 * CENT)]),
            _sign_market(OWNER_KEYS[2], BID, 500, 20 * CENT, 100, [(1, 25 * CENT)], []),
        ],
    )
    add(ledger, [sign_call(OWNER_KEYS[0], 0, "setOnSale(uint256,uint256,uint256)", 1, 2 * 10**16, 10**14)])
    payment = sign(ALICE_KEY, 1, to=BOB, value=10**18)
    add(ledger, [payment])
    add(ledger)
    return payment.transaction.hash


def _sign_market(key: bytes, signature: str, *arguments: Any) -> Signed:
    return sign(key, 0, to=MARKET.address, value=0, data=MARKET.named(signature).encode_arguments(*arguments))


def requests(payment: Hash) -> list[tuple[str, Sequence[Any]]]:
    """What is asked, in this order."""
    owner, alice, paid = hex_of(OWNERS[0]), hex_of(ALICE), hex_of(payment)
    transfer = {"from": alice, "to": hex_of(BOB), "value": "0x1"}
    block_of = hex(HEAD - 1)
    return [
        ("web3_sha3", ["0x68656c6c6f"]),
        ("net_version", []),
        ("net_listening", []),
        ("net_peerCount", []),
        ("eth_chainId", []),
        ("eth_syncing", []),
        ("eth_blockNumber", []),
        ("eth_accounts", []),
        ("eth_capabilities", []),
        ("eth_gasPrice", []),
        ("eth_maxPriorityFeePerGas", []),
        ("eth_feeHistory", ["0x2", "latest", [50]]),
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_getBlockTransactionCountByNumber", [block_of]),
        ("eth_getTransactionByHash", [paid]),
        ("eth_getTransactionReceipt", [paid]),
        ("eth_getBalance", [alice, "latest"]),
        ("eth_getTransactionCount", [alice, "pending"]),
        ("eth_getCode", [alice, "latest"]),
        ("eth_getStorageAt", [alice, "0x0", "latest"]),
        ("eth_call", [transfer, "latest"]),
        ("eth_estimateGas", [transfer]),
        ("eth_createAccessList", [transfer, "latest"]),
        ("eth_getLogs", [{"fromBlock": "0x3", "toBlock": "0x3"}]),
        ("eth_sendRawTransaction", [hex_of(sign(ALICE_KEY, 2, to=BOB, value=5).transaction.raw)]),
        ("txpool_status", []),
        ("txpool_content", []),
        ("ctt_chainStatus", []),
        ("ctt_validators", ["latest"]),
        ("ctt_finalityCertificate", ["latest"]),
        ("ctt_getProof", [hex_of(CttConfig.key()), "latest"]),
        ("ctt_getReceiptProof", [paid]),
        ("ctt_supply", []),
        ("ctt_token", [1]),
        ("ctt_tokensOf", [owner, 0, 2]),
        ("ctt_prosumer", [owner]),
        ("ctt_energyOf", [owner]),
        ("ctt_meter", [hex_of(address_of(METER_KEYS[0]))]),
        ("ctt_market", []),
        ("ctt_orderBook", [0, 10]),
        ("ctt_order", [1]),
        ("ctt_ordersOf", [hex_of(OWNERS[1])]),
        ("ctt_auctions", [1, 10]),
        ("ctt_clearing", [_bid_call()]),
        ("ctt_readings", [owner, "0x1", "latest"]),
    ]


def _bid_call() -> dict[str, str]:
    """A bid that is not sent."""
    data = MARKET.named("bid(uint256,uint256,uint64)").encode_arguments(750, 18 * CENT, 100)
    return {"from": hex_of(OWNERS[3]), "to": hex_of(MARKET.address), "data": hex_of(data)}


async def answer(directory: Path) -> dict[str, dict[str, Any]]:
    """The requests with their answers, by method."""
    ledger = make_ledger(directory, epochBlocks=EPOCH_BLOCKS)
    try:
        payment = grow(ledger)
        async with served_ledger(ledger) as node:
            return {
                method: {"params": list(params), "result": await node.call(method, *params)}
                for method, params in requests(payment)
            }
    finally:
        ledger.close()


def as_text(answers: dict[str, dict[str, Any]]) -> str:
    """The file: those that are short enough, a line each."""
    lines = [
        f"{json.dumps(method)}: {dumps(example)}"
        for method, example in answers.items()
        if len(dumps(example["result"])) <= LENGTH_MAX
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        FILE.write_text(as_text(asyncio.run(answer(Path(scratch) / "node"))))
