"""Each method that the execution APIs have and the node has, too, answers as published."""

from pathlib import Path
from typing import Any, Final

from web3 import Web3

from tests.clients.execution_apis import ExecutionApis
from tests.clients.expected import ALICE, CTT_ADDRESS, PRICE_WEI
from tests.clients.recorder import Recorder
from tests.ledger_world import CHAIN_ID

BUY: Final = Web3.keccak(text="buyEmptyToken()")[:4].to_0x_hex()
SYMBOL: Final = Web3.keccak(text="symbol()")[:4].to_0x_hex()
WITHOUT_PARAMETERS: Final = (
    "eth_accounts",
    "eth_blockNumber",
    "eth_capabilities",
    "eth_chainId",
    "eth_gasPrice",
    "eth_maxPriorityFeePerGas",
    "eth_syncing",
    "net_version",
    "txpool_content",
    "txpool_status",
)
UNKNOWN: Final = "0x" + "12" * 32


class Asking:
    """Any method, by its name."""

    def __init__(self, url: str) -> None:
        self._provider = Web3.HTTPProvider(url)

    def __call__(self, method: str, *params: Any) -> Any:
        answer: Any = self._provider.make_request(method, list(params))
        assert "error" not in answer, answer["error"]
        return answer["result"]


def send(ask: Asking, method: str, nonce: int, **fields: Any) -> Any:
    """Alice buys a token."""
    common = {
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "to": CTT_ADDRESS,
        "value": PRICE_WEI,
        "data": BUY,
        "gas": 100_000,
    }
    return ask(method, ALICE.sign_transaction(common | fields).raw_transaction.to_0x_hex())


def ask_for_blocks(ask: Asking, receipt: Any) -> None:
    """By each name of a block, with hashes and whole; of one that there is not; and what is in it."""
    number, block_hash = receipt["blockNumber"], receipt["blockHash"]
    for whole in (False, True):
        for name in (number, "earliest", "latest", "pending", "safe", "finalized", "0xffffff"):
            ask("eth_getBlockByNumber", name, whole)
        for name in (block_hash, UNKNOWN):
            ask("eth_getBlockByHash", name, whole)
    for name in (number, "0xffffff"):
        ask("eth_getBlockTransactionCountByNumber", name)
        ask("eth_getBlockReceipts", name)
        ask("eth_getTransactionByBlockNumberAndIndex", name, "0x0")
    for name in (block_hash, UNKNOWN):
        ask("eth_getBlockTransactionCountByHash", name)
        ask("eth_getTransactionByBlockHashAndIndex", name, "0x0")


def ask_for_state(ask: Asking) -> None:
    for method in ("eth_getBalance", "eth_getTransactionCount", "eth_getCode"):
        for block in ("latest", "pending", "0x0"):
            ask(method, CTT_ADDRESS, block)
    ask("eth_getStorageAt", CTT_ADDRESS, "0x0", "latest")
    call = {"from": ALICE.address, "to": CTT_ADDRESS, "input": SYMBOL}
    for method in ("eth_call", "eth_estimateGas", "eth_createAccessList"):
        ask(method, call, "latest")
    ask("eth_createAccessList", call | {"input": "0x12345678"}, "latest")  # an answer with an error in it


def ask_for_filters(ask: Asking) -> None:
    every_log = {"fromBlock": "0x0", "address": CTT_ADDRESS, "topics": []}
    assert ask("eth_getLogs", every_log)
    for made in (
        ask("eth_newFilter", every_log),
        ask("eth_newBlockFilter"),
        ask("eth_newPendingTransactionFilter"),
    ):
        ask("eth_getFilterChanges", made)
        ask("eth_uninstallFilter", made)
    logs = ask("eth_newFilter", every_log)
    assert ask("eth_getFilterLogs", logs)
    ask("eth_uninstallFilter", logs)
    ask("eth_uninstallFilter", logs)


def test_every_method_answers_as_published(recorder: Recorder, shared_data: Path) -> None:
    ask, apis = Asking(recorder.url), ExecutionApis(shared_data / "execution-apis")
    fees: tuple[dict[str, Any], ...] = (
        {"gasPrice": 0},
        {"gasPrice": 0, "accessList": []},
        {"maxFeePerGas": 3, "maxPriorityFeePerGas": 2},
    )
    receipts = [send(ask, "eth_sendRawTransactionSync", nonce, **fee) for nonce, fee in enumerate(fees)]
    assert [receipt["status"] for receipt in receipts] == ["0x1"] * len(fees)
    waiting = [send(ask, "eth_sendRawTransaction", nonce + 5, **fee) for nonce, fee in enumerate(fees)]

    for receipt in receipts:
        ask_for_blocks(ask, receipt)
    for sent in (UNKNOWN, *waiting, *(receipt["transactionHash"] for receipt in receipts)):
        ask("eth_getTransactionByHash", sent)
        ask("eth_getTransactionReceipt", sent)
    ask_for_state(ask)
    ask_for_filters(ask)
    for count, newest in (("0x0", "latest"), ("0x3", "latest"), ("0x400", "pending"), ("0x2", "0x1")):
        ask("eth_feeHistory", count, newest, [0, 12.5, 100])
    ask("eth_feeHistory", "0x1", "latest")
    for method in WITHOUT_PARAMETERS:
        ask(method)

    assert apis.faults(recorder) == []
    ours = {method["name"] for method in ask("rpc.discover")["methods"]}
    assert ours & apis.methods <= {kept.method for kept in recorder.exchanges}
