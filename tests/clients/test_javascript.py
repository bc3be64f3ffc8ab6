"""Unmodified ethers and viem against a real node: each runs one script, and tells the same of the same chain."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from ctt_state.transaction import SYSTEM
from tests.clients import expected
from tests.clients.expected import ALICE, BOB, PRICE_WEI, ZERO
from tests.clients.packages import Told, install, run_script
from tests.clients.recorder import Recorder
from tests.ledger_world import CHAIN_ID
from tests.live_node import LiveNode

TRANSFER_GAS: Final = "21000"
SUCCESS: Final = {"ethers": 1, "viem": "success"}


class Run(NamedTuple):
    """A script that ran, the traffic of it, and whose it is."""

    client: str
    told: Told
    recorded: Recorder


@pytest.fixture(scope="module", params=["ethers", "viem"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    install()
    client: str = request.param
    directory = Path(tmp_path_factory.mktemp(client)) / "node"
    with LiveNode(directory) as node, Recorder(node.url) as recorded:
        return Run(client, run_script(f"{client}.mjs", expected.task(recorded)), recorded)


def transfers(*token_ids: int) -> list[dict[str, str]]:
    """New tokens of Alice's, as the libraries decode the events."""
    return [{"from": ZERO, "to": ALICE.address, "tokenId": str(token_id)} for token_id in token_ids]


def test_it_connects_and_reads(run: Run) -> None:
    told = run.told["connect"]
    assert told["chainId"] == str(CHAIN_ID)
    assert told["isAhead"] and told["genesisIsFoundByHash"]
    assert told["balance"] == str(10**24)
    assert told["codes"] == ["0xfe", "0x"]
    assert told["slot"] == "0x" + "00" * 32
    assert told["unknownReceipt"] == {"ethers": None, "viem": "TransactionReceiptNotFoundError"}[run.client]


def test_fees_are_zero(run: Run) -> None:
    """ethers takes that for a chain without EIP-1559."""
    told = run.told["fees"]
    assert (told["gasPrice"], told["estimate"]) == ("0", TRANSFER_GAS)
    fees = (told["maxFeePerGas"], told["maxPriorityFeePerGas"])
    assert fees == {"ethers": (None, None), "viem": ("0", "0")}[run.client]


def test_viem_reads_the_history_of_fees_and_an_access_list(run: Run) -> None:
    if run.client == "viem":
        told = run.told["fees"]
        assert told["history"] == [["0", "0"], ["0", "0"]]  # one block's: the chain is young
        assert told["accessList"] == []


def test_it_batches(run: Run) -> None:
    """ethers by default, viem when it is told to."""
    assert run.told["batches"] == 20
    assert any(size >= 20 for size in run.recorded.batches)


def test_it_sends_each_kind_of_transaction_and_waits(run: Run) -> None:
    """Legacy, with an access list, with two fees, and as it does by itself."""
    by_default = {"ethers": 0, "viem": 2}[run.client]
    for sent, kind in zip(run.told["kinds"], (0, 1, 2, by_default), strict=True):
        assert sent == {
            "type": kind if run.client == "ethers" else sent["type"],
            "status": SUCCESS[run.client],
            "price": "0",
            "value": "5",
            "sender": True,
            "accessList": int(kind == 1),
            "confirmed": True,
        }
        assert sent["type"] == kind


def test_it_decodes_events_and_finds_them_again(run: Run) -> None:
    told = run.told["events"]
    assert told["told"] == told["found"] == transfers(1, 2)
    assert told["others"] == 0


def test_it_polls_filters(run: Run) -> None:
    told = run.told["filters"]
    assert told["told"] == told["heard"] == transfers(3, 4)
    assert run.recorded.results("eth_newFilter") and run.recorded.results("eth_getFilterChanges")
    if run.client == "ethers":
        first = told["blocks"][0]
        assert told["blocks"] == [first, first + 1, first + 2]
    else:
        assert told["polled"] == told["told"]
        assert told["block"] and told["pending"] == [told["hash"]]
        assert told["gone"] == [True] * 3 and told["again"] is False


def test_it_hears_of_heads_events_and_pending_transactions_over_websocket(run: Run) -> None:
    told = run.told["sockets"]
    first = told["heads"][0]
    assert told["heads"] == [first, first + 1, first + 2]
    assert told["told"] == told["heard"] == transfers(5, 6)
    assert told["isPending"] and told["read"]
    kinds = {kind for kind, _ in run.recorded.notifications}
    assert kinds >= {"newHeads", "logs", "newPendingTransactions"}
    if run.client == "viem":
        assert "ctt_finalized" in kinds and told["isCertified"]


def test_it_sees_why_a_rule_refused(run: Run) -> None:
    """By call and by estimate, with the error's name and figures; what was sent in spite of it is in a block, failed."""
    told = run.told["reverts"]
    assert told["call"] == told["estimate"] == ["NotAdmin", ALICE.address]
    assert told["figures"] == ["InsufficientPayment", str(3 * PRICE_WEI), "1"]
    data, message = told["unknown"]
    assert data == "0x" and "execution reverted: CTT: unknown function 0x12345678" in message
    assert told["mined"] == [0, 0]
    assert told["notACaller"] == "0x"


def test_it_knows_the_nodes_refusals_by_their_text(run: Run) -> None:
    told = run.told["refusals"]
    if run.client == "ethers":
        assert told == {
            "replacement": "REPLACEMENT_UNDERPRICED",
            "nonce": "NONCE_EXPIRED",
            "funds": "INSUFFICIENT_FUNDS",
            "chain": "INVALID_ARGUMENT",
            "creation": "UNKNOWN_ERROR",
        }
        return
    assert {name: kind for name, (kind, _) in told.items()} == {
        "replacement": "InvalidInputRpcError",
        "nonce": "NonceTooLowError",
        "funds": "InsufficientFundsError",
        "gas": "IntrinsicGasTooLowError",
        "creation": "InvalidInputRpcError",
    }
    assert told["creation"][1] == "contract creation is not supported: this chain runs native modules"


def test_its_permit_is_that_of_every_library_and_the_chain_takes_both_lengths(run: Run) -> None:
    told = run.told["permits"]
    signature = expected.permit_signature()
    assert told["signature"] == "0x" + signature.hex()
    assert told["compact"] == "0x" + expected.compact(signature).hex()
    assert told["approved"] == [BOB.address] * 2


def test_it_calls_overloaded_functions_and_reads_the_past(run: Run) -> None:
    told = run.told["contracts"]
    assert told == {
        "symbol": "CTT",
        "isErc721": True,
        "uri": "data:application/json;base64,",
        "price": "70",
        "token": [ALICE.address, "0", False],
        "domain": str(CHAIN_ID),
        "past": "0",
    }


def test_it_reads_the_clearing_that_nobody_sent(run: Run) -> None:
    """A transaction of a type that the library does not know."""
    assert run.told["clearing"] == {
        "types": [SYSTEM] * 3,
        "from": ZERO,
        "isFirst": True,
        "status": SUCCESS[run.client],
        "bids": "1",
    }


def test_viem_gets_the_receipt_in_one_round_trip(run: Run) -> None:
    """EIP-7966; before it asks once to have the transaction filled in, and takes -32601 for never."""
    if run.client == "viem":
        told = run.told["synchronous"]
        assert told == {"statuses": ["success"] * 3, "type": "eip1559", "value": "14", "approved": True}
        assert len(run.recorded.results("eth_sendRawTransactionSync")) == 3
        assert {error["code"] for error in run.recorded.errors("eth_fillTransaction")} == {-32601}
        assert run.told["permits"]["isValid"]


def test_a_hundred_in_a_row_are_all_included(run: Run) -> None:
    """By an operator, who may have so many pending, with the library's own count of nonces."""
    assert run.told["hundred"] == {"nonces": True, "included": 100, "value": "100"}


def test_its_traffic_is_as_published(run: Run, check_traffic: Callable[[Recorder], None]) -> None:
    check_traffic(run.recorded)
