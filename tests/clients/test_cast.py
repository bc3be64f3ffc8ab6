"""An unmodified cast against a real node: each command as its documentation has it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account

from ctt_state.transaction import SYSTEM
from tests.clients import expected
from tests.clients.expected import ALICE, BOB, CTT_ADDRESS, PRICE_WEI, ZERO
from tests.clients.packages import cast_program
from tests.clients.recorder import Recorder
from tests.ledger_world import ADMIN_KEY, ALICE_KEY, BOB_KEY, CHAIN_ID
from tests.live_node import LiveNode

COMMAND_SECONDS_MAX: Final = 30
TRANSFER: Final = "Transfer(address indexed,address indexed,uint256 indexed)"
CLEARED: Final = "AuctionCleared(uint256 indexed,uint256,uint256,uint256,uint256)"
IN_A_ROW: Final = 100


class Cast:
    """The program, with the node's address in its environment."""

    def __init__(self, program: Path, url: str, home: Path) -> None:
        self._program = program
        self._environment = os.environ | {"ETH_RPC_URL": url, "HOME": str(home), "NO_COLOR": "1"}

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self._program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
            env=self._environment,
        )

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        command = [str(self._program), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)

    def __call__(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def send(self, key: bytes, *arguments: object) -> Any:
        """The receipt."""
        return json.loads(self("send", "--json", "--private-key", key.hex(), *arguments))

    def read(self, signature: str, *arguments: object) -> str:
        return self("call", CTT_ADDRESS, signature, *arguments)

    def refusal(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 1
        return done.stderr


def until(found: Callable[[], Any]) -> Any:
    """Asks until there is something."""
    deadline = time.monotonic() + COMMAND_SECONDS_MAX
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def cast(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(cast_program(), recorder.url, Path(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def token(cast: Cast) -> int:
    """Alice's first."""
    receipt = cast.send(ALICE_KEY, "--value", 2 * PRICE_WEI, CTT_ADDRESS, "buyEmptyTokens(uint256)", 2)
    assert receipt["status"] == "0x1"
    assert [log["topics"][3] for log in receipt["logs"]] == [f"0x{token_id:064x}" for token_id in (1, 2)]
    return 1


def test_it_connects_and_reads(cast: Cast, recorder: Recorder) -> None:
    assert cast("chain-id") == str(CHAIN_ID)
    assert cast("client").startswith("ctt/v")
    assert int(cast("block-number")) <= int(
        cast("block-number", "--rpc-url", recorder.url.replace("http", "ws"))
    )
    first = json.loads(cast("block", "0", "--json"))
    assert json.loads(cast("block", first["hash"], "--json"))["number"] == "0x0"
    assert cast("balance", BOB.address) == str(10**24)
    assert (cast("code", CTT_ADDRESS), cast("code", BOB.address)) == ("0xfe", "0x")
    assert int(cast("storage", CTT_ADDRESS, "0"), 16) == 0
    assert cast("rpc", "eth_syncing") == "false"
    assert json.loads(cast("tx-pool", "status")) == {"pending": "0x0", "queued": "0x0"}


def test_fees_are_zero(cast: Cast) -> None:
    assert (cast("gas-price"), cast("base-fee")) == ("0", "0")
    assert cast("estimate", BOB.address, "--value", "1", "--from", ALICE.address) == "21000"
    assert "gas used: 22064" in cast("access-list", CTT_ADDRESS, "symbol()(string)")


@pytest.mark.parametrize(
    ("kind", "options"),
    [(0, ["--legacy"]), (1, ["--legacy", "--access-list", "[]"]), (2, []), (2, ["--sync"])],
)
def test_it_sends_each_kind_of_transaction_and_waits(cast: Cast, kind: int, options: list[str]) -> None:
    """It offers 1 wei at least, and is charged nothing."""
    stranger = Account.create().address

    receipt = cast.send(BOB_KEY, *options, "--value", 5, stranger)

    assert (receipt["status"], receipt["type"], receipt["gasUsed"]) == ("0x1", hex(kind), hex(21_000))
    assert receipt["effectiveGasPrice"] == "0x0"
    assert cast("balance", stranger) == "5"
    transaction = json.loads(cast("tx", receipt["transactionHash"], "--json"))
    assert (transaction["from"], transaction["type"]) == (BOB.address.lower(), hex(kind))
    assert (
        json.loads(cast("receipt", receipt["transactionHash"], "--json"))["blockHash"] == receipt["blockHash"]
    )


def test_it_sends_over_websocket(cast: Cast, recorder: Recorder) -> None:
    url = recorder.url.replace("http", "ws")
    assert cast.send(BOB_KEY, "--rpc-url", url, "--value", 1, ALICE.address)["status"] == "0x1"


def test_it_calls_and_finds_events(cast: Cast, token: int) -> None:
    assert cast.read("symbol()(string)") == '"CTT"'
    assert cast.read("ownerOf(uint256)(address)", token) == ALICE.address
    assert cast.read("energyOf(address)(uint256,uint256)", ALICE.address).splitlines() == ["0", "20000 [2e4]"]
    logs = json.loads(
        cast("logs", "--json", "--from-block", 0, "--address", CTT_ADDRESS, TRANSFER, ZERO, ALICE.address)
    )
    assert [int(log["topics"][3], 16) for log in logs] == [1, 2]
    assert cast("logs", "--json", "--from-block", 0, "--address", CTT_ADDRESS, TRANSFER, BOB.address) == "[]"


def test_it_hears_of_events_over_websocket(cast: Cast, recorder: Recorder) -> None:
    """`cast logs --subscribe` writes them down until it is interrupted."""
    url = recorder.url.replace("http", "ws")
    buy = ("--value", PRICE_WEI, CTT_ADDRESS, "buyEmptyToken()")
    with cast.start("logs", "--subscribe", "--json", "--rpc-url", url, "--address", CTT_ADDRESS) as hears:
        until(lambda: recorder.results("eth_subscribe"))
        receipts = [cast.send(BOB_KEY, *buy) for _ in range(2)]
        hears.send_signal(signal.SIGINT)
        heard, _ = hears.communicate(timeout=COMMAND_SECONDS_MAX)
    first = json.loads(heard)[0]
    assert first == receipts[0]["logs"][0]


def test_it_sees_why_a_rule_refused(cast: Cast) -> None:
    """By call and by estimate, in the message; what was sent in spite of it is in a block, failed."""
    refused = (CTT_ADDRESS, "setTokenCapability(uint256)", 5)
    reason = f"execution reverted: NotAdmin(caller={BOB.address.lower()})"
    assert reason in cast.refusal("call", "--from", BOB.address, *refused)
    assert reason in cast.refusal("send", "--private-key", BOB_KEY.hex(), *refused)
    assert cast.send(BOB_KEY, "--gas-limit", 100_000, *refused)["status"] == "0x0"
    assert "unknown function 0x12345678" in cast.refusal("call", CTT_ADDRESS, "0x12345678")


def test_it_sees_what_the_node_refuses(cast: Cast) -> None:
    send = ("send", "--private-key", BOB_KEY.hex(), ALICE.address)
    assert "nonce too low: next nonce" in cast.refusal(*send, "--nonce", 0, "--value", 99)
    assert "insufficient funds for gas * price + value" in cast.refusal(
        *send, "--value", 10**30, "--gas-limit", 21_000
    )


def test_its_permit_is_that_of_every_library_and_the_chain_takes_both_lengths(cast: Cast, token: int) -> None:
    typed = json.dumps(expected.PERMIT)
    signature = cast("wallet", "sign", "--private-key", ALICE_KEY.hex(), "--data", typed)
    assert signature == "0x" + expected.permit_signature().hex()
    permit = (CTT_ADDRESS, "permit(address,uint256,uint256,bytes)", BOB.address, token, expected.DEADLINE)
    for form in (bytes.fromhex(signature[2:]), expected.compact(bytes.fromhex(signature[2:]))):
        assert cast.send(BOB_KEY, *permit, "0x" + form.hex())["status"] == "0x1"
        assert cast.read("getApproved(uint256)(address)", token) == BOB.address
        assert cast.send(ALICE_KEY, CTT_ADDRESS, "approve(address,uint256)", ZERO, token)["status"] == "0x1"


def test_it_reads_the_clearing_that_nobody_sent(cast: Cast, token: int) -> None:
    """A transaction of a type that it does not know."""
    market = json.loads(cast("rpc", "ctt_abi"))["Market"]["address"]
    placed = cast.send(ALICE_KEY, market, "bid(uint256,uint256,uint64)", 3_000, 10**14, 2**40)
    query = ("logs", "--json", "--from-block", int(placed["blockNumber"], 16), "--address", market, CLEARED)
    cleared = until(lambda: json.loads(cast(*query)))
    sent, height = cleared[0]["transactionHash"], int(cleared[0]["blockNumber"], 16)
    assert json.loads(cast("block", height, "--full", "--json"))["transactions"][0]["hash"] == sent
    assert json.loads(cast("tx", sent, "--json"))["type"] == hex(SYSTEM)
    assert json.loads(cast("receipt", sent, "--json"))["status"] == "0x1"
    assert f"hash                 {sent}" in cast("tx", sent)


def test_a_hundred_in_a_row_are_all_included(cast: Cast, node: LiveNode) -> None:
    """By an operator, who may have so many pending, numbered by the caller: cast asks for the nonce at `latest`."""
    stranger = Account.create().address
    first = int(cast("nonce", expected.ADMIN.address))
    common = ("send", "--async", "--private-key", ADMIN_KEY.hex(), "--value", 1, stranger)

    hashes = [cast(*common, "--nonce", first + count) for count in range(IN_A_ROW)]

    receipts = [json.loads(cast("receipt", sent, "--json")) for sent in (hashes[0], hashes[-1])]
    assert [receipt["status"] for receipt in receipts] == ["0x1"] * 2
    assert cast("balance", stranger) == str(IN_A_ROW)
    assert cast("nonce", expected.ADMIN.address) == str(first + IN_A_ROW)


def test_its_traffic_is_as_published(
    cast: Cast, recorder: Recorder, check_traffic: Callable[[Recorder], None]
) -> None:
    check_traffic(recorder)
