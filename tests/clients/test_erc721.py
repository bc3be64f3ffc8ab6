"""What OpenZeppelin's own suite asks of an ERC-721 contract, asked through JSON-RPC by web3.py.

Retold, not copied: balances and owners, each way to transfer by each kind of caller, approvals, operators, enumeration,
interfaces, metadata; each refusal by its ERC-6093 name and arguments, and their order.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import Web3
from web3.exceptions import ContractCustomError

from tests.clients.expected import ALICE, CTT_ADDRESS, PRICE_WEI, ZERO
from tests.clients.recorder import Recorder
from tests.ledger_world import CHAIN_ID, GENESIS
from tests.live_node import LiveNode

PERIOD_MS: Final = 50  # the shortest: nothing here is about time
GAS: Final = 200_000
UNKNOWN: Final = 10**9  # a token that nobody has

APPROVE: Final = "approve(address,uint256)"
APPROVE_ALL: Final = "setApprovalForAll(address,bool)"
TRANSFERS: Final = {
    "transferFrom(address,address,uint256)": (),
    "safeTransferFrom(address,address,uint256)": (),
    "safeTransferFrom(address,address,uint256,bytes)": (b"\x42",),
}
each_transfer = pytest.mark.parametrize("transfer", TRANSFERS)

OWNER: Final = ALICE
APPROVED, OPERATOR, STRANGER = (
    Account.create() for _ in range(3)
)  # the chain takes no fee, so they need no money


class Token:
    """The contract as the node describes it."""

    def __init__(self, url: str) -> None:
        self._w3 = Web3(Web3.HTTPProvider(url))
        abi: Any = self._request("ctt_abi")["CTT"]["abi"]
        self._contract: Any = self._w3.eth.contract(CTT_ADDRESS, abi=abi)
        self._errors = {entry["name"]: entry for entry in abi if entry["type"] == "error"}
        self._events = [entry["name"] for entry in abi if entry["type"] == "event"]

    def _request(self, method: str, *params: Any) -> Any:
        answer: Any = self._w3.provider.make_request(method, list(params))  # type: ignore[arg-type]  # not web3's name
        return answer["result"]

    def _function(self, signature: str, *arguments: Any) -> Any:
        return self._contract.get_function_by_signature(signature)(*arguments)

    def error(self, call: dict[str, str]) -> Any:
        """Of a call as it stands."""
        answer: Any = self._w3.provider.make_request("eth_call", [call, "latest"])  # type: ignore[arg-type]  # as above
        return answer["error"]

    def read(self, signature: str, *arguments: Any) -> Any:
        return self._function(signature, *arguments).call()

    def mine(self, sender: LocalAccount, data: str, value: int = 0) -> Any:
        """The receipt, whether the rule agreed or not."""
        fields: dict[str, Any] = {
            "to": CTT_ADDRESS,
            "data": data,
            "value": value,
            "gas": GAS,
            "gasPrice": 0,
            "chainId": CHAIN_ID,
        }
        nonce = self._w3.eth.get_transaction_count(sender.address)
        raw = sender.sign_transaction(fields | {"nonce": nonce}).raw_transaction
        return self._request("eth_sendRawTransactionSync", "0x" + raw.hex())

    def encode(self, signature: str, *arguments: Any) -> str:
        data: str = self._contract.encode_abi(signature, list(arguments))
        return data

    def send(
        self, sender: LocalAccount, signature: str, *arguments: Any, value: int = 0
    ) -> list[tuple[Any, ...]]:
        """What it tells: name and arguments of each event."""
        return self.send_raw(sender, self.encode(signature, *arguments), value)

    def send_raw(self, sender: LocalAccount, data: str, value: int = 0) -> list[tuple[Any, ...]]:
        receipt = self.mine(sender, data, value)
        assert receipt["status"] == "0x1"
        logs = self._w3.eth.get_transaction_receipt(receipt["transactionHash"])["logs"]
        return [self._event(log) for log in logs]

    def _event(self, log: Any) -> tuple[Any, ...]:
        (name,) = (
            name
            for name in self._events
            if self._contract.events[name]().topic == log["topics"][0].to_0x_hex()
        )
        return (name, *self._contract.events[name]().process_log(log)["args"].values())

    def refusal(self, sender: str, signature: str, *arguments: Any) -> tuple[Any, ...]:
        """Name and arguments of the error that a call and an estimate both end with."""
        function = self._function(signature, *arguments)
        errors = {self._error(attempt, sender) for attempt in (function.call, function.estimate_gas)}
        (error,) = errors
        return error

    def _error(self, attempt: Callable[[Any], Any], sender: str) -> tuple[Any, ...]:
        with pytest.raises(ContractCustomError) as refused:
            attempt({"from": sender})
        data = bytes.fromhex(str(refused.value.data)[2:])
        for name, entry in self._errors.items():
            kinds = [each["type"] for each in entry["inputs"]]
            if Web3.keccak(text=f"{name}({','.join(kinds)})")[:4] == data[:4]:
                values = self._w3.codec.decode(kinds, data[4:])
                return (
                    name,
                    *(
                        Web3.to_checksum_address(v) if k == "address" else v
                        for k, v in zip(kinds, values, strict=True)
                    ),
                )
        raise AssertionError(f"no error of the ABI: {data.hex()}")

    def mint(self) -> int:
        """A new token of the owner's."""
        ((name, source, owner, token_id),) = self.send(OWNER, "buyEmptyToken()", value=PRICE_WEI)
        assert (name, source, owner) == ("Transfer", ZERO, OWNER.address)
        return int(token_id)

    def tokens_of(self, owner: str) -> list[int]:
        """By enumeration."""
        count = self.read("balanceOf(address)", owner)
        return [self.read("tokenOfOwnerByIndex(address,uint256)", owner, index) for index in range(count)]

    def estimate(self, signature: str, *arguments: Any) -> int:
        used: int = self._function(signature, *arguments).estimate_gas()
        return used


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    genesis = json.loads(GENESIS.read_bytes()) | {"blockPeriodMs": PERIOD_MS}
    directory = Path(tmp_path_factory.mktemp("erc721")) / "node"
    with LiveNode(directory, genesis=json.dumps(genesis).encode()) as running:
        yield running


@pytest.fixture(scope="module")
def token(recorder: Recorder) -> Token:
    made = Token(recorder.url)
    made.send(OWNER, APPROVE_ALL, OPERATOR.address, True)
    return made


@pytest.fixture
def minted(token: Token) -> int:
    """A token of the owner's, with an approved account and an operator."""
    token_id = token.mint()
    token.send(OWNER, APPROVE, APPROVED.address, token_id)
    return token_id


def newcomer() -> str:
    """An address that nobody has seen."""
    address: str = Account.create().address
    return address


# --- balanceOf, ownerOf ---


def test_a_balance_counts_an_owners_tokens(token: Token, minted: int) -> None:
    before = token.read("balanceOf(address)", OWNER.address)
    token.mint()
    assert token.read("balanceOf(address)", OWNER.address) == before + 1
    assert token.read("balanceOf(address)", newcomer()) == 0
    assert token.refusal(ZERO, "balanceOf(address)", ZERO) == ("ERC721InvalidOwner", ZERO)


def test_a_token_that_exists_has_an_owner(token: Token, minted: int) -> None:
    assert token.read("ownerOf(uint256)", minted) == OWNER.address
    assert token.refusal(ZERO, "ownerOf(uint256)", UNKNOWN) == ("ERC721NonexistentToken", UNKNOWN)


# --- transfers ---


@each_transfer
@pytest.mark.parametrize("sender", [OWNER, APPROVED, OPERATOR], ids=["owner", "approved", "operator"])
def test_a_transfer_moves_the_token_and_clears_its_approval(
    token: Token, minted: int, transfer: str, sender: LocalAccount
) -> None:
    """One event: the approval goes without a word."""
    receiver = newcomer()
    before = token.tokens_of(OWNER.address)

    told = token.send(sender, transfer, OWNER.address, receiver, minted, *TRANSFERS[transfer])

    assert told == [("Transfer", OWNER.address, receiver, minted)]
    assert token.read("ownerOf(uint256)", minted) == receiver
    assert token.read("getApproved(uint256)", minted) == ZERO
    assert token.tokens_of(receiver) == [minted]
    assert sorted(token.tokens_of(OWNER.address)) == sorted(set(before) - {minted})


@each_transfer
def test_an_operator_transfers_a_token_without_an_approved_account(token: Token, transfer: str) -> None:
    minted, receiver = token.mint(), newcomer()
    told = token.send(OPERATOR, transfer, OWNER.address, receiver, minted, *TRANSFERS[transfer])
    assert told == [("Transfer", OWNER.address, receiver, minted)]


@each_transfer
def test_a_transfer_to_the_owner_keeps_all_but_the_approval(token: Token, minted: int, transfer: str) -> None:
    before = token.tokens_of(OWNER.address)

    told = token.send(OWNER, transfer, OWNER.address, OWNER.address, minted, *TRANSFERS[transfer])

    assert told == [("Transfer", OWNER.address, OWNER.address, minted)]
    assert token.read("ownerOf(uint256)", minted) == OWNER.address
    assert token.read("getApproved(uint256)", minted) == ZERO
    assert sorted(token.tokens_of(OWNER.address)) == sorted(before)


@each_transfer
def test_transfers_are_refused_in_order(token: Token, minted: int, transfer: str) -> None:
    """A receiver that is zero, a token that is not there, a sender without a right, a source that is not the owner."""
    extra, other = TRANSFERS[transfer], newcomer()

    def refusal(sender: LocalAccount, source: str, receiver: str, token_id: int) -> tuple[Any, ...]:
        return token.refusal(sender.address, transfer, source, receiver, token_id, *extra)

    assert refusal(STRANGER, other, ZERO, UNKNOWN) == ("ERC721InvalidReceiver", ZERO)
    assert refusal(STRANGER, other, other, UNKNOWN) == ("ERC721NonexistentToken", UNKNOWN)
    assert refusal(STRANGER, other, other, minted) == ("ERC721InsufficientApproval", STRANGER.address, minted)
    assert refusal(OWNER, other, other, minted) == ("ERC721IncorrectOwner", other, minted, OWNER.address)
    # Each alone.
    assert refusal(OWNER, OWNER.address, ZERO, minted) == ("ERC721InvalidReceiver", ZERO)
    assert refusal(OWNER, OWNER.address, other, UNKNOWN) == ("ERC721NonexistentToken", UNKNOWN)
    unauthorised = ("ERC721InsufficientApproval", STRANGER.address, minted)
    assert refusal(STRANGER, OWNER.address, other, minted) == unauthorised


def test_a_call_from_nobody_moves_nothing(token: Token) -> None:
    """The zero address is also what "no approved account" is written as."""
    minted = token.mint()
    refusal = token.refusal(ZERO, "transferFrom(address,address,uint256)", OWNER.address, newcomer(), minted)
    assert refusal == ("ERC721InsufficientApproval", ZERO, minted)


@pytest.mark.parametrize("transfer", [name for name in TRANSFERS if name.startswith("safe")])
def test_a_contract_that_takes_no_tokens_gets_none_by_a_safe_transfer(
    token: Token, minted: int, transfer: str
) -> None:
    """The modules are the only contracts here, and none is a receiver."""
    arguments = (OWNER.address, CTT_ADDRESS, minted, *TRANSFERS[transfer])
    assert token.refusal(OWNER.address, transfer, *arguments) == ("ERC721InvalidReceiver", CTT_ADDRESS)


def test_a_refusal_in_a_block_costs_the_nonce_and_changes_nothing_else(token: Token, minted: int) -> None:
    data = token.encode("transferFrom(address,address,uint256)", OWNER.address, STRANGER.address, minted)
    receipt = token.mine(STRANGER, data)
    assert (receipt["status"], receipt["logs"]) == ("0x0", [])
    assert token.read("ownerOf(uint256)", minted) == OWNER.address
    assert token.read("getApproved(uint256)", minted) == APPROVED.address


# --- approvals ---


def test_each_approval_is_told(token: Token) -> None:
    """With none before, the same again, another, and none."""
    minted = token.mint()
    assert token.read("getApproved(uint256)", minted) == ZERO
    for approved in (ZERO, APPROVED.address, APPROVED.address, STRANGER.address, ZERO):
        told = token.send(OWNER, APPROVE, approved, minted)
        assert told == [("Approval", OWNER.address, approved, minted)]
        assert token.read("getApproved(uint256)", minted) == approved


def test_an_operator_approves_in_the_owners_name(token: Token, minted: int) -> None:
    told = token.send(OPERATOR, APPROVE, STRANGER.address, minted)
    assert told == [("Approval", OWNER.address, STRANGER.address, minted)]


def test_approvals_are_refused_in_order(token: Token, minted: int) -> None:
    """A token that is not there, then a sender without a right: an approved account has none."""
    for sender in (STRANGER, APPROVED):
        refusal = token.refusal(sender.address, APPROVE, STRANGER.address, UNKNOWN)
        assert refusal == ("ERC721NonexistentToken", UNKNOWN)
        refusal = token.refusal(sender.address, APPROVE, STRANGER.address, minted)
        assert refusal == ("ERC721InvalidApprover", sender.address)
    assert token.refusal(ZERO, "getApproved(uint256)", UNKNOWN) == ("ERC721NonexistentToken", UNKNOWN)


def test_operators_come_and_go(token: Token) -> None:
    """Told each time, the same again too; an owner may even be their own."""
    owner = Account.create()
    for operator in (STRANGER.address, owner.address):
        for approved in (False, True, True, False):
            told = token.send(owner, APPROVE_ALL, operator, approved)
            assert told == [("ApprovalForAll", owner.address, operator, approved)]
            assert token.read("isApprovedForAll(address,address)", owner.address, operator) is approved
    assert token.refusal(owner.address, APPROVE_ALL, ZERO, True) == ("ERC721InvalidOperator", ZERO)


# --- enumeration ---


def test_all_tokens_are_enumerated(token: Token, minted: int) -> None:
    total = token.read("totalSupply()")
    listed = [token.read("tokenByIndex(uint256)", index) for index in range(total)]
    assert len(set(listed)) == total and minted in listed
    assert token.refusal(ZERO, "tokenByIndex(uint256)", total) == ("ERC721OutOfBoundsIndex", ZERO, total)


def test_an_owners_tokens_are_enumerated(token: Token) -> None:
    """Also after all went elsewhere."""
    first, second, receiver = token.mint(), token.mint(), Account.create()
    by_index = "tokenOfOwnerByIndex(address,uint256)"
    assert token.refusal(ZERO, by_index, receiver.address, 0) == (
        "ERC721OutOfBoundsIndex",
        receiver.address,
        0,
    )
    for minted in (first, second):
        token.send(OWNER, "transferFrom(address,address,uint256)", OWNER.address, receiver.address, minted)
    assert sorted(token.tokens_of(receiver.address)) == [first, second]
    assert token.refusal(ZERO, by_index, receiver.address, 2) == (
        "ERC721OutOfBoundsIndex",
        receiver.address,
        2,
    )
    for minted in (first, second):
        token.send(receiver, "transferFrom(address,address,uint256)", receiver.address, newcomer(), minted)
    assert token.tokens_of(receiver.address) == []
    assert token.refusal(ZERO, by_index, ZERO, 0) == ("ERC721OutOfBoundsIndex", ZERO, 0)


# --- interfaces, metadata ---


@pytest.mark.parametrize("interface", ["01ffc9a7", "80ac58cd", "5b5e139f", "780e9d63", "49064906"])
def test_an_interface_is_told_for_at_most_30_000_gas(token: Token, interface: str) -> None:
    """ERC-165, ERC-721, its metadata and enumeration, ERC-4906."""
    assert token.read("supportsInterface(bytes4)", bytes.fromhex(interface)) is True
    assert token.estimate("supportsInterface(bytes4)", bytes.fromhex(interface)) <= 30_000


def test_no_other_interface_is_told(token: Token) -> None:
    assert token.read("supportsInterface(bytes4)", bytes.fromhex("ffffffff")) is False


def test_a_token_describes_itself(token: Token, minted: int) -> None:
    assert (token.read("name()"), token.read("symbol()")) == ("Crypto-Trading Token", "CTT")
    form, _, body = token.read("tokenURI(uint256)", minted).partition(",")
    assert form == "data:application/json;base64"
    described = json.loads(b64decode(body, validate=True))
    assert described["name"] == f"CTT #{minted}"
    assert described["image"].startswith("data:image/svg+xml;base64,")
    assert token.refusal(ZERO, "tokenURI(uint256)", UNKNOWN) == ("ERC721NonexistentToken", UNKNOWN)


# --- malformed calls ---


@pytest.mark.parametrize(
    "data",
    [
        "0x",
        "0x01",
        "0xffffffff",
        "0x6352211e" + "00" * 31,  # ownerOf, cut short
        "0x70a08231" + "01" + "00" * 31,  # balanceOf, with bits above the address
        "0xa22cb465" + "00" * 63 + "02",  # setApprovalForAll, with a bool of 2
    ],
)
def test_a_malformed_call_reverts_with_no_data(token: Token, data: str) -> None:
    error = token.error({"from": OWNER.address, "to": CTT_ADDRESS, "data": data})
    assert (error["code"], error["data"]) == (3, "0x")


def test_value_to_a_function_that_takes_none_reverts_with_no_data(token: Token, minted: int) -> None:
    """And bytes behind the arguments are nothing to it."""
    call = {"from": OWNER.address, "to": CTT_ADDRESS, "data": f"0x095ea7b3{0:064x}{minted:064x}"}
    assert token.error(call | {"value": "0x1"})["data"] == "0x"
    assert token.send_raw(OWNER, call["data"] + "746167") == [("Approval", OWNER.address, ZERO, minted)]


def test_its_traffic_is_as_published(recorder: Recorder, check_traffic: Callable[[Recorder], None]) -> None:
    check_traffic(recorder)
