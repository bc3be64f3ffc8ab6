"""The door shows what a light client needs, from genesis on, over a change of the validators; and a node that lies in
any field is found out by `ctt_state/light.py`."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from ctt_state.block import FinalBlock, Header, Receipt
from ctt_state.crypto import keccak, public_key
from ctt_state.errors import StatePruned
from ctt_state.genesis import development_key, load_genesis
from ctt_state.light import (
    ChainRules,
    LightClient,
    LightRejected,
    check_receipt,
    check_record,
    check_transaction,
    decode_header,
    genesis_checkpoint,
)
from ctt_state.records import Account, Approval, CttConfig, CttSupply, Prosumer, Token
from ctt_state.units import Address, TokenId, hex_of
from ctt_state.validators import Member, ValidatorSet, boundary_of
from ctt_state.votes import Certificate, MalformedVote
from node import ledger as ledger_module
from node import proofs as proofs_module
from node import store as store_module
from node.ledger import Ledger
from node.proofs import prove_records
from tests.ledger_world import ALICE, ALICE_KEY, BOB, OWNERS, document, make_ledger, sign, sign_call, state_of
from tests.proof_world import EPOCH_BLOCKS, add, change_set, served_ledger
from tests.rpc_world import RpcClient
from tests.test_snapshot import load

pytestmark = pytest.mark.asyncio

KEYS: Final = [
    Account.key(ALICE),
    Account.key(Address(b"\x77" * 20)),  # there is none
    CttConfig.key(),
    CttSupply.key(),
    Token.key(TokenId(21)),  # from block 3 on
    Token.key(TokenId(1_000)),  # never
    Approval.key(ALICE, BOB),  # in blocks 4 to 12
    Prosumer.key(OWNERS[0]),
]
HEAD: Final = 25
BUSY: Final = 4  # the block with several transactions


def grow(ledger: Ledger) -> None:
    """25 blocks in three epochs, the set of the last two with a member more; tokens and approvals come and go."""
    change_set(ledger, 0)
    add(ledger, [sign_call(ALICE_KEY, 0, "buyEmptyTokens(uint256)", 2, value=2 * 10**16)])
    add(
        ledger,
        [
            sign(ALICE_KEY, 1, to=BOB, value=7),
            sign_call(ALICE_KEY, 2, "setApprovalForAll(address,bool)", BOB, True),
            sign_call(ALICE_KEY, 3, "approve(address,uint256)", BOB, 1),  # not hers: it reverts
        ],
    )
    add(ledger, count=8)
    add(ledger, [sign_call(ALICE_KEY, 4, "setApprovalForAll(address,bool)", BOB, False)])
    add(ledger, count=10)
    add(ledger, [sign(ALICE_KEY, 5, to=BOB, value=8)], is_certified=False)
    add(ledger)
    assert ledger.head.block.header.height == HEAD


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = make_ledger(tmp_path / "node", epochBlocks=EPOCH_BLOCKS)
    yield opened
    opened.close()


@pytest_asyncio.fixture
async def node(ledger: Ledger) -> AsyncIterator[RpcClient]:
    grow(ledger)
    async with served_ledger(ledger) as client:
        yield client


def ledger_block(ledger: Ledger, height: int) -> FinalBlock:
    block = ledger.block(height)
    assert block is not None
    return block


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def set_of(members: list[Any]) -> ValidatorSet:
    listed = [Member(Address(unhex(each["address"])), unhex(each["consensusKey"])) for each in members]
    return ValidatorSet(tuple(listed))


async def follow(node: RpcClient) -> LightClient:
    """A client at the present epoch, which began with nothing but the genesis document."""
    genesis = load_genesis(document(epochBlocks=EPOCH_BLOCKS))
    rules = ChainRules(genesis.hash, genesis.epoch_blocks, genesis.parameters.block_period_ms)
    first = await node.call("ctt_finalityCertificate", "0x0")
    assert first["certificate"] is None and first["signers"] is None and first["descendants"] == []
    light = LightClient(
        rules, genesis_checkpoint(rules, decode_header(unhex(first["header"])), genesis.validator_set)
    )
    for _ in range((await node.call("ctt_validators"))["epoch"]):
        last = hex(boundary_of(light.epoch, EPOCH_BLOCKS))
        finality = await node.call("ctt_finalityCertificate", last)
        members = (await node.call("ctt_validators", last))["next"]["validators"]
        light.advance(*proof_of(finality)[:2], set_of(members))
    return light


def proof_of(finality: Any) -> tuple[Header, Certificate, list[Header]]:
    header, *descendants = [
        decode_header(unhex(each)) for each in (finality["header"], *finality["descendants"])
    ]
    return header, Certificate.decode(unhex(finality["certificate"])), descendants


def accept(light: LightClient, finality: Any) -> Header:
    header, certificate, descendants = proof_of(finality)
    light.accept(header, certificate, descendants)
    return header


def check_records(light: LightClient, answer: Any) -> list[bytes | None]:
    """The records' bytes. Raises: LightRejected, MalformedVote."""
    header = accept(light, answer["finality"])
    values = []
    for each in answer["records"]:
        values.append(None if each["value"] is None else unhex(each["value"]))
        check_record(header, unhex(each["key"]), values[-1], list(map(unhex, each["proof"])))
    return values


def check_receipts(light: LightClient, answer: Any) -> None:
    """Raises: LightRejected, MalformedVote."""
    header = accept(light, answer["finality"])
    place = answer["index"], answer["count"]
    for check, name in ((check_transaction, "transaction"), (check_receipt, "receipt")):
        check(header, unhex(answer[name]), *place, list(map(unhex, answer[f"{name}Branch"])))


# --- what is proven --------------------------------------------------------------------------------------------------


async def test_a_client_follows_from_genesis_over_a_change_of_the_set(node: RpcClient) -> None:
    light = await follow(node)
    assert light.epoch == 2 and len(light.validators.members) == 2
    assert accept(light, await node.call("ctt_finalityCertificate")).height == HEAD
    for height in range(1, HEAD + 1):
        assert accept(light, await node.call("ctt_finalityCertificate", hex(height))).height == height


async def test_records_and_their_absence_are_proven_at_each_height(node: RpcClient, ledger: Ledger) -> None:
    light = await follow(node)
    for height in range(1, HEAD + 1):
        answer = await node.call("ctt_getProof", list(map(hex_of, KEYS)), hex(height))
        assert answer["finality"]["height"] == height
        records = [state_of(ledger, height)(key) for key in KEYS]
        assert check_records(light, answer) == [None if each is None else each.encode() for each in records]
    assert [state_of(ledger, height)(KEYS[6]) for height in (3, 4, 12, 13)] == [
        None,
        Approval(),
        Approval(),
        None,
    ]


async def test_an_address_names_its_account_and_latest_is_the_head(node: RpcClient, ledger: Ledger) -> None:
    answer = await node.call("ctt_getProof", hex_of(ALICE))
    assert answer["finality"]["height"] == HEAD
    assert [each["key"] for each in answer["records"]] == [hex_of(Account.key(ALICE))]
    account = ledger.lookup(Account.key(ALICE))
    assert account is not None
    assert check_records(await follow(node), answer) == [account.encode()]


async def test_latest_waits_for_no_certificate(node: RpcClient, ledger: Ledger) -> None:
    """The head may be final by a descendant that is being written: the newest that shows its own votes is taken."""
    add(ledger, is_certified=False)
    answer = await node.call("ctt_getProof", hex_of(ALICE))
    assert answer["finality"]["height"] == answer["finality"]["certifiedHeight"] == HEAD
    check_records(await follow(node), answer)
    uncertain = await node.call("ctt_finalityCertificate", hex(HEAD + 1))
    assert (uncertain["height"], uncertain["certificate"], uncertain["descendants"]) == (HEAD + 1, None, [])


async def test_a_block_without_votes_of_its_own_is_final_by_a_descendant(node: RpcClient) -> None:
    finality = await node.call("ctt_finalityCertificate", hex(HEAD - 1))
    assert (finality["certifiedHeight"], len(finality["descendants"])) == (HEAD, 1)
    accept(await follow(node), finality)


async def test_old_blocks_are_proven_by_the_certificates_that_are_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "CERTIFICATES_KEPT", 5)
    monkeypatch.setattr(store_module, "CERTIFICATES_APART_MAX", 4)
    grow(ledger)
    async with served_ledger(ledger) as node:
        light = await follow(node)
        lengths = []
        for height in range(1, HEAD + 1):
            finality = await node.call("ctt_finalityCertificate", hex(height))
            assert accept(light, finality).height == height
            lengths.append(len(finality["descendants"]))
    assert max(lengths) == 3


async def test_a_receipt_and_its_transaction_are_proven_together(node: RpcClient, ledger: Ledger) -> None:
    light, block = await follow(node), ledger_block(ledger, BUSY)
    for index, transaction_hash in enumerate(block.transaction_hashes):
        answer = await node.call("ctt_getReceiptProof", hex_of(transaction_hash))
        check_receipts(light, answer)
        assert keccak(unhex(answer["transaction"])) == transaction_hash
        assert Receipt.decode(unhex(answer["receipt"])) == block.receipts[index]
        assert (answer["index"], answer["count"], answer["finality"]["height"]) == (index, 3, BUSY)
    assert [each.succeeded for each in block.receipts] == [True, True, False]


async def test_the_finality_is_told_in_words_too(node: RpcClient, ledger: Ledger) -> None:
    finality = await node.call("ctt_finalityCertificate", hex(HEAD))
    assert finality["blockHash"] == hex_of(ledger.head.hash)
    assert (finality["epoch"], finality["certifiedHeight"]) == (2, HEAD)
    assert finality["signers"] == [hex_of(each.address) for each in ledger.validators(2).members]


# --- the sets --------------------------------------------------------------------------------------------------------


async def test_validators_are_those_of_the_blocks_epoch(node: RpcClient, ledger: Ledger) -> None:
    first = await node.call("ctt_validators", "0x1")
    assert (first["epoch"], first["firstHeight"], first["lastHeight"], first["quorum"]) == (0, 1, 10, 1)
    assert [each["consensusKey"] for each in first["validators"]] == [hex_of(public_key(development_key(0)))]
    assert set_of(first["next"]["validators"]) == ledger.validators(1)
    last = await node.call("ctt_validators")
    assert (last["epoch"], last["quorum"], len(last["validators"])) == (2, 2, 2)
    assert last["hash"] == hex_of(ledger.validators(2).hash) == first["next"]["hash"]
    assert (
        await node.call("ctt_validators", hex(10)) == first
        and await node.call("ctt_validators", hex(21)) == last
    )


async def test_the_next_set_is_told_once_it_is_fixed(ledger: Ledger) -> None:
    async with served_ledger(ledger) as node:
        add(ledger, count=4)
        assert (await node.call("ctt_validators"))["next"] is None
        add(ledger)
        assert (await node.call("ctt_validators"))["next"]["hash"] == hex_of(ledger.validators(1).hash)


# --- lies ------------------------------------------------------------------------------------------------------------


def flip(text: str, byte: int = -1) -> str:
    """The same bytes but for one bit of one."""
    data = bytearray(unhex(text))
    data[byte] ^= 1
    return hex_of(bytes(data))


Lie = Callable[[Any], None]


def change(name: str, alter: Callable[[Any], Any] = flip) -> Lie:
    """Alters one member, named by its path."""
    *path, last = name.split(".")

    def lie(answer: Any) -> None:
        for step in path:
            answer = answer[int(step) if step.isdigit() else step]
        at = int(last) if last.isdigit() else last
        answer[at] = alter(answer[at])

    return lie


FINALITY_LIES: Final[dict[str, Lie]] = {
    "header": change("finality.header"),
    "header's state root": change("finality.header", lambda text: flip(text, 300)),
    "certificate's last signature": change("finality.certificate"),
    "certificate's statement": change("finality.certificate", lambda text: flip(text, 10)),
    "a descendant": change("finality.descendants.0"),
    "no descendants": change("finality.descendants", lambda _: []),
    "one twice": change("finality.descendants", lambda headers: headers * 2),
}
RECORD_LIES: Final[dict[str, Lie]] = {
    "value": change("records.0.value"),
    "a record denied": change("records.0.value", lambda _: None),
    "a record made up": change("records.1.value", lambda _: "0x90"),
    "key": change("records.0.key"),
    "root node": change("records.0.proof.0"),
    "last node": change("records.0.proof", lambda nodes: [*nodes[:-1], flip(nodes[-1])]),
    "a node too few": change("records.0.proof", lambda nodes: nodes[:-1]),
    "a node too many": change("records.0.proof", lambda nodes: [*nodes, nodes[-1]]),
    "no proof": change("records.0.proof", lambda _: []),
    "absence without proof": change("records.1.proof", lambda _: []),
}
RECEIPT_LIES: Final[dict[str, Lie]] = {
    "transaction": change("transaction"),
    "its branch": change("transactionBranch.0"),
    "receipt": change("receipt"),
    "the receipt's branch": change("receiptBranch.0"),
    "a branch too short": change("receiptBranch", lambda hashes: hashes[:-1]),
    "a branch too long": change("receiptBranch", lambda hashes: [*hashes, hashes[0]]),
    "index": change("index", lambda index: index + 1),
    "index outside": change("index", lambda index: 3),
    "count": change("count", lambda count: 1),
}


Check = Callable[[LightClient, Any], object]


def believed(lies: dict[str, Lie], light: LightClient, answer: Any, check: Check) -> list[str]:
    """The lies that the check does not find; none of the answer itself."""
    check(light, answer)
    found = []
    for name, lie in lies.items():
        told = deepcopy(answer)
        lie(told)
        with suppress(LightRejected, MalformedVote):
            check(light, told)
            found.append(name)
    return found


async def test_no_lie_about_records_is_believed(node: RpcClient) -> None:
    answer = await node.call("ctt_getProof", list(map(hex_of, KEYS)), hex(HEAD - 1))
    assert believed(FINALITY_LIES | RECORD_LIES, await follow(node), answer, check_records) == []


async def test_no_lie_about_a_receipt_is_believed(node: RpcClient, ledger: Ledger) -> None:
    transaction_hash = ledger_block(ledger, BUSY).transaction_hashes[0]
    answer = await node.call("ctt_getReceiptProof", hex_of(transaction_hash))
    assert believed(RECEIPT_LIES, await follow(node), answer, check_receipts) == []


async def test_a_receipt_of_another_transaction_is_found_out(node: RpcClient, ledger: Ledger) -> None:
    """Each has a proof, but not at one place."""
    hashes = ledger_block(ledger, BUSY).transaction_hashes[:2]
    mine, other = [await node.call("ctt_getReceiptProof", hex_of(each)) for each in hashes]
    mine |= {name: other[name] for name in ("receipt", "receiptBranch")}
    with pytest.raises(LightRejected, match="receipt .* is not number 0 of 3"):
        check_receipts(await follow(node), mine)


# --- what is not there -----------------------------------------------------------------------------------------------


async def test_what_is_unknown_is_null(node: RpcClient) -> None:
    unknown = "0x" + "77" * 32
    assert await node.call("ctt_getReceiptProof", unknown) is None
    for method in ("ctt_finalityCertificate", "ctt_validators"):
        for block in (unknown, hex(HEAD + 1)):
            assert await node.call(method, block) is None
    for block, text in (
        (unknown, "no block has this hash"),
        (hex(HEAD + 1), "block 26 is above the head 25"),
    ):
        error = await node.error("ctt_getProof", hex_of(ALICE), block)
        assert (error["code"], error["message"]) == (-32000, f"header not found: {text}")


async def test_keys_have_their_bounds(node: RpcClient) -> None:
    key = hex_of(ALICE)
    for accepted, count in (
        (key, 1),
        ([key], 1),
        ([key] * 64, 64),
        ("0x02", 1),
        ("0x" + "02" * 64, 1),
        ([], 0),
    ):
        assert len((await node.call("ctt_getProof", accepted))["records"]) == count
    for refused, text in (
        ([key] * 65, "params[0]: 65 items; limit 64"),
        ("0x", "params[0]: a record's key has 1 to 64 bytes, got 0"),
        (["0x02", "0x" + "02" * 65], "params[0][1]: a record's key has 1 to 64 bytes, got 65"),
        ("02", "params[0]: '02' is not data (0x… with two digits a byte)"),
        ("0xF39fd6e51aad88f6f4ce6ab8827279cfffb92266", "has a wrong checksum (EIP-55)"),
    ):
        error = await node.error("ctt_getProof", refused)
        assert error["code"] == -32602 and text in error["message"]


async def nothing() -> None:
    """No pause."""


async def test_states_are_proven_as_far_back_as_they_are_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (store_module, ledger_module, proofs_module):
        monkeypatch.setattr(module, "UNDO_BLOCKS", 8)
    grow(ledger)
    (found,) = await prove_records(ledger.store, HEAD - 8, [Account.key(ALICE)], nothing)
    check_record(ledger_block(ledger, HEAD - 8).block.header, Account.key(ALICE), *found)
    for height in (HEAD - 9, HEAD + 1, -1):
        with pytest.raises(
            StatePruned, match=f"state at block {height} is pruned: this node keeps the last 8 blocks"
        ):
            await prove_records(ledger.store, height, [Account.key(ALICE)], nothing)


async def test_a_node_that_began_with_a_snapshot_proves_from_there_on(ledger: Ledger, tmp_path: Path) -> None:
    """Of its base it has header, state and certificate, of blocks before it nothing."""
    grow(ledger)
    loaded = load(tmp_path / "loaded", ledger, validators=ledger.validators(2))
    async with served_ledger(ledger) as node:
        light = await follow(node)
    add(loaded, [sign(ALICE_KEY, 6, to=BOB, value=1)])
    async with served_ledger(loaded) as node:
        for height in (HEAD, HEAD + 1):
            answer = await node.call("ctt_getProof", list(map(hex_of, KEYS)), hex(height))
            records = [state_of(loaded, height)(key) for key in KEYS]
            assert check_records(light, answer) == [
                None if each is None else each.encode() for each in records
            ]
        assert (await node.call("ctt_validators", hex(HEAD)))["hash"] == hex_of(ledger.validators(2).hash)
        for method, *params in (
            ("ctt_getProof", hex_of(ALICE), hex(HEAD - 1)),
            ("ctt_finalityCertificate", hex(HEAD - 1)),
            ("ctt_validators", hex(HEAD - 1)),
        ):
            error = await node.error(method, *params)
            assert error["code"] == -32000 and f"block {HEAD - 1} is pruned" in error["message"]
    loaded.close()


async def test_too_many_changes_are_refused_in_words(
    node: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last block fixes a set, the one before changes two accounts."""
    monkeypatch.setattr(proofs_module, "RECORDS_MAX", 3)
    await node.call("ctt_getProof", hex_of(ALICE), hex(HEAD - 2))
    monkeypatch.setattr(proofs_module, "RECORDS_MAX", 2)
    await node.call("ctt_getProof", hex_of(ALICE), hex(HEAD - 1))
    error = await node.error("ctt_getProof", hex_of(ALICE), hex(HEAD - 2))
    assert error["code"] == -32000
    assert error["message"] == (
        "state at block 23 cannot be proven: more than 2 records have changed since; take a newer block"
    )


async def test_the_chain_may_go_on_while_a_proof_is_made(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each pause the records asked for change, and what they were meanwhile."""
    monkeypatch.setattr(proofs_module, "LEAVES_AT_ONCE", 1)
    grow(ledger)
    nonce = 6

    async def pause() -> None:
        nonlocal nonce
        add(ledger, [sign(ALICE_KEY, nonce, to=BOB, value=1)])
        nonce += 1

    expected = [state_of(ledger, 3)(key) for key in KEYS]
    proofs = await prove_records(ledger.store, 3, KEYS, pause)
    assert nonce > 30
    for key, record, (value, nodes) in zip(KEYS, expected, proofs, strict=True):
        assert value == (None if record is None else record.encode())
        check_record(ledger_block(ledger, 3).block.header, key, value, nodes)
