"""`ctt validators`, `ctt block` and `ctt tx` at a real node show what JSON-RPC says, decoded."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, hex_of
from tests.cli_world import Ctt
from tests.ledger_world import ALICE, ALICE_KEY, BOB, CHAIN_ID, document
from tests.live_node import LiveNode

BOUGHT, PAID, REFUSED = range(3)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("look") / "node", genesis=document()) as node:
        yield node


@pytest.fixture(scope="module")
def sent(node: LiveNode) -> list[Any]:
    """The receipts of Alice's purchase, of her payment, and of an offer of a token that is not hers."""

    def send(nonce: int, to: Address, value: int, data: bytes = b"") -> Any:
        raw = sign_transaction(
            ALICE_KEY, chain_id=CHAIN_ID, nonce=nonce, gas_limit=1_000_000, to=to, value=value, data=data
        )
        return node.call("eth_sendRawTransactionSync", hex_of(raw))

    buy = CTT.named("buyEmptyTokens(uint256)").encode_arguments(2)
    offer = CTT.named("setOnSale(uint256,uint256,uint256)").encode_arguments(1, 5, 7)
    return [send(0, CTT.address, 2 * 10**16, buy), send(1, BOB, 10**18), send(2, CTT.address, 0, offer)]


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str], node: LiveNode) -> Ctt:
    return Ctt(capsys, one_line=True)


def told(ctt: Ctt, node: LiveNode, *words: object) -> Any:
    return json.loads(done(ctt, node, *words, "--json"))


def done(ctt: Ctt, node: LiveNode, *words: object) -> str:
    result = ctt(*words, "--rpc", node.url)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_validators_are_shown_with_their_presence(ctt: Ctt, node: LiveNode) -> None:
    (validator,) = node.call("ctt_validators", "latest")["validators"]
    line = done(ctt, node, "validators").splitlines()[-1].split()
    name = node.call("ctt_nodeStatus")["validators"][0]["name"]
    assert line[:4] == [name, validator["address"], "this", "node"]
    assert told(ctt, node, "validators")["validators"] == [validator]


def test_a_block_is_shown_by_height_by_hash_and_the_newest(ctt: Ctt, node: LiveNode, sent: list[Any]) -> None:
    receipt = sent[BOUGHT]
    height, block_hash = int(receipt["blockNumber"], 16), receipt["blockHash"]
    shown = done(ctt, node, "block", height)
    assert shown == done(ctt, node, "block", block_hash)
    assert f"block {height:,}, final" in shown and block_hash in shown
    row = next(line for line in shown.splitlines() if receipt["transactionHash"] in line)
    assert row.split()[1:] == [
        "CTT.buyEmptyTokens",
        hex_of(ALICE),
        f"{int(receipt['gasUsed'], 16):,}",
        "done",
    ]
    found = told(ctt, node, "block", height)
    assert (found["hash"], found["receipts"]) == (block_hash, [receipt])
    assert int(told(ctt, node, "block")["number"], 16) >= height


def test_a_transaction_is_shown_decoded(ctt: Ctt, node: LiveNode, sent: list[Any]) -> None:
    shown = done(ctt, node, "tx", sent[BOUGHT]["transactionHash"])
    assert shown.startswith("CTT.buyEmptyTokens: done\n")
    assert "  count        2\n" in shown and "value        0.02\n" in shown
    assert shown.count("event        CTT.Transfer(") == 2
    assert done(ctt, node, "tx", sent[PAID]["transactionHash"]).startswith("pays 1.00: done\n")


def test_a_refusal_has_its_reason(ctt: Ctt, node: LiveNode, sent: list[Any]) -> None:
    name = sent[REFUSED]["transactionHash"]
    reason = f"ERC721InsufficientApproval(operator {hex_of(ALICE)}, tokenId 1)"
    shown = done(ctt, node, "tx", name)
    assert shown.startswith(f"CTT.setOnSale: refused\nreason       {reason}\n")
    assert told(ctt, node, "tx", name)["reason"] == reason


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("block", "999999999"), 66, "there is no final block 999,999,999"),
        (("block", "0x" + "ab" * 32), 66, f"there is no final block 0x{'ab' * 32}"),
        (("block", "-1"), 64, "'-1' is no height, no hash of a block and not latest"),
        (("block", "1.5"), 64, "'1.5' is no height, no hash of a block and not latest"),
        (("tx", "0x12"), 64, "'0x12' is no hash: 0x and 64 hexadecimal digits"),
        (("tx", "0x" + "ab" * 32), 66, f"knows no transaction 0x{'ab' * 32}"),
        (("validators", "7"), 64, "unexpected argument '7'"),
    ],
)
def test_what_is_not_there_is_named(
    ctt: Ctt, node: LiveNode, words: tuple[str, ...], code: int, said: str
) -> None:
    result = ctt(*words, "--rpc", node.url)
    assert (result.code, said in result.err) == (code, True), result.err


@pytest.mark.parametrize("command", [("validators",), ("block",), ("tx", "0x" + "ab" * 32)])
def test_a_node_that_is_not_there_is_named(ctt: Ctt, command: tuple[str, ...]) -> None:
    result = ctt(*command, "--rpc", "http://127.0.0.1:9")
    assert (result.code, "http://127.0.0.1:9 does not answer as a node" in result.err) == (69, True)
