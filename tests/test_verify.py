"""`ctt verify` names what is wrong: a clean chain passes, and each planted fault is told with its place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack
import plyvel
import pytest

from ctt_state.block import Block
from ctt_state.crypto import public_key, sign_compact
from ctt_state.genesis import development_key
from ctt_state.records import Account, CttSupply, EpochSet, Prosumer, Token
from ctt_state.units import TokenId
from ctt_state.validators import Member
from ctt_state.votes import Certificate, Kind, Statement
from node.cli.main import main
from node.exits import Exit
from node.ledger import Ledger
from tests.cli_world import Result
from tests.ledger_world import (
    ALICE,
    ALICE_KEY,
    BOB,
    METER_KEYS,
    OWNERS,
    add_block,
    make_certificate,
    make_ledger,
    make_plan,
    sign,
    sign_call,
)

BLOCKS: Final = 4
Plant = Callable[[Any], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain with transfers and readings; copy it before a change."""
    directory = tmp_path_factory.mktemp("made") / "node"
    ledger = make_ledger(directory)
    for nonce in range(BLOCKS):
        calls = [
            sign_call(key, nonce, "refill(uint256,address)", 100, OWNERS[i])
            for i, key in enumerate(METER_KEYS)
        ]
        add_block(ledger, [sign(ALICE_KEY, nonce), *calls])
    ledger.close()
    return directory


@pytest.fixture
def verify_with(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[Plant | None], Result]:
    """Runs the command on a copy of the chain into whose database a fault was planted, with good checksums."""
    return lambda plant: verify_copy(made, tmp_path, capsys, plant)


def verify_copy(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], plant: Plant | None
) -> Result:
    directory = Path(shutil.copytree(made, tmp_path / "copy"))
    if plant:
        database = plyvel.DB(str(directory / "db"))
        plant(database)
        database.close()
    code = main(["verify", "--dir", str(directory)])
    result = Result(code, *capsys.readouterr())
    assert "Traceback" not in result.err
    return result


Verify = Callable[[Plant | None], Result]


def at(prefix: bytes, height: int) -> bytes:
    return prefix + height.to_bytes(8, "big")


def change(key: bytes, edit: Callable[[bytes], bytes]) -> Plant:
    def plant(database: Any) -> None:
        database.put(key, edit(database.get(key)))

    return plant


def flip(data: bytes) -> bytes:
    """The last byte changed."""
    return data[:-1] + bytes((data[-1] ^ 1,))


def edit_header(**fields: Any) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        block = Block.decode(data)
        return block._replace(header=block.header._replace(**fields)).encode()

    return edit


def edit_transactions(data: bytes) -> bytes:
    block = Block.decode(data)
    return block._replace(transactions=block.transactions[::-1]).encode()


def edit_receipt(data: bytes) -> bytes:
    """The first receipt says that it failed."""
    senders, hashes, receipts = msgpack.unpackb(data)
    succeeded, *rest = msgpack.unpackb(receipts[0])
    return bytes(msgpack.packb((senders, hashes, [msgpack.packb((not succeeded, *rest)), *receipts[1:]])))


def drop_sender(data: bytes) -> bytes:
    senders, hashes, receipts = msgpack.unpackb(data)
    return bytes(msgpack.packb((senders[1:], hashes, receipts)))


def edit_certificate(*signatures: tuple[int, bytes]) -> Callable[[bytes], bytes]:
    """The same statement under other signatures."""
    return lambda data: Certificate.decode(data)._replace(signatures=signatures).encode()


def other_certificate(database: Any) -> None:
    database.put(at(b"c", 2), database.get(at(b"c", 3)))


def edit_any_node(edit: Callable[[bytes], bytes | None]) -> Plant:
    """The last node, which lies the deepest on its path; None deletes it."""

    def plant(database: Any) -> None:
        key, data = list(database.iterator(prefix=b"t"))[-1]
        changed = edit(data)
        if changed is None:
            database.delete(key)
        else:
            database.put(key, changed)

    return plant


def add_wealth(data: bytes) -> bytes:
    account = Account.decode(data)
    return account._replace(balance=account.balance + 5).encode()  # type: ignore[arg-type]


def move_transaction(database: Any) -> None:
    """One of block 2 is filed as if it were elsewhere in it."""
    key = next(key for key, value in database.iterator(prefix=b"x") if value[:8] == (2).to_bytes(8, "big"))
    database.put(key, (2).to_bytes(8, "big") + (99).to_bytes(4, "big"))


def lose_transaction(database: Any) -> None:
    key = next(key for key, value in database.iterator(prefix=b"x") if value[:8] == (2).to_bytes(8, "big"))
    database.delete(key)


def test_a_clean_chain_passes(verify_with: Verify) -> None:
    result = verify_with(None)
    assert (result.code, result.err) == (0, "")
    assert "ok: 5 blocks, the state root and every invariant hold" in result.out


def resign(database: Any) -> None:
    """Block 2's certificate is for another view, truly signed."""
    block = Block.decode(database.get(at(b"b", 2)))
    header = block.header
    statement = Statement(Kind.FINALIZE, header.epoch, header.view + 7, header.view - 1, header.hash)
    signature = sign_compact(development_key(0), statement.digest(header.genesis_hash))
    database.put(at(b"c", 2), Certificate(statement, ((0, signature),)).encode())


FAULTS: Final[dict[str, tuple[Plant, str]]] = {
    "a header's time": (
        change(at(b"b", 2), edit_header(timestamp_ms=1)),
        "block 2: the hash of its header is not the one it is filed under",
    ),
    "a header's parent": (
        change(at(b"b", 2), edit_header(parent_hash=b"p" * 32)),
        "block 2: does not name the block below it as its parent",
    ),
    "a header of another height": (
        change(at(b"b", 2), edit_header(height=7)),
        "block 2: header is of block 7 of chain 0x",
    ),
    "the head's state root": (
        change(at(b"b", BLOCKS), edit_header(state_root=b"r" * 32)),
        f"the head is not block {BLOCKS}",
    ),
    "the head": (change(b"mhead", flip), "the records have state root 0x"),
    "a block's transactions": (
        change(at(b"b", 2), edit_transactions),
        "block 2: transactions do not have the root in its header",
    ),
    "a block that is no block": (change(at(b"b", 2), lambda data: b"\xc1"), "block 2: cannot be read"),
    "a block of other fields": (change(at(b"b", 2), lambda data: b"\x92\x90\x90"), "block 2: cannot be read"),
    "a genesis block that is no block": (
        change(at(b"b", 0), lambda data: data[:-1]),
        "block 0: cannot be read",
    ),
    "the head that is no block": (
        change(at(b"b", BLOCKS), lambda data: b"\x05"),
        f"block {BLOCKS}: cannot be read",
    ),
    "a block's evidence": (
        change(at(b"b", 2), lambda data: Block.decode(data)._replace(evidence=(b"proof",)).encode()),
        "block 2: evidence does not have the root in its header",
    ),
    "a receipt": (change(at(b"r", 2), edit_receipt), "block 2: receipts do not have the root in its header"),
    "receipts cut short": (change(at(b"r", 2), lambda data: data[:-1]), "block 2: cannot be read"),
    "a sender": (change(at(b"r", 2), drop_sender), "block 2: receipts do not match its transactions"),
    "a certificate's signature": (
        change(at(b"c", 2), edit_certificate((0, b"s" * 64))),
        "block 2: certificate: signature of validator 0 does not verify",
    ),
    "a certificate without signatures": (
        change(at(b"c", 2), edit_certificate()),
        "block 2: certificate: certificate has 0 signatures of 1 needed",
    ),
    "a certificate that is none": (change(at(b"c", 2), lambda data: b"\x05"), "block 2: certificate: "),
    "no certificate": (change(at(b"c", 2), lambda data: b""), "block 2: certificate: "),
    "another block's certificate": (other_certificate, "block 2: its certificate finalizes another block"),
    "a certificate of another view": (resign, "block 2: its certificate finalizes another block"),
    "a hash": (change(at(b"n", 2), flip), "block 2: the hash of its header is not the one it is filed under"),
    "a record": (change(b"s" + Account.key(BOB), add_wealth), "the records have state root 0x"),
    "a record that is none": (
        change(b"s" + Account.key(BOB), lambda data: b"\x05"),
        f"record 0x{Account.key(BOB).hex()} cannot be read",
    ),
    "a record of no kind": (
        lambda database: database.put(b"s\xff", b"what"),
        "record 0xff cannot be read",
    ),
    "a missing record": (lambda database: database.delete(b"s" + Account.key(ALICE)), "state root 0x"),
    "a tree node": (edit_any_node(flip), "is not what its records make it"),
    "a missing tree node": (edit_any_node(lambda data: None), "is missing"),
    "a tree node too many": (
        lambda database: database.put(b"t\x00\x01\x02\x03\x04\x05", b"node"),
        "tree node at 0x000102030405 is not what its records make it",
    ),
    "a transaction's place": (move_transaction, "is not filed under its hash"),
    "a transaction without a place": (lose_transaction, "is not filed under its hash"),
    "the supply": (
        change(
            b"s" + CttSupply.key(),
            lambda data: (lambda s: s._replace(last_token_id=s.last_token_id + 1))(
                CttSupply.decode(data)
            ).encode(),
        ),
        "token ids are not 1 to 21: 20 tokens",
    ),
    "a prosumer": (
        change(
            b"s" + Prosumer.key(OWNERS[0]),
            lambda data: (lambda p: p._replace(empty=p.empty + 1))(Prosumer.decode(data)).encode(),
        ),
        "pages, tokens and the count 6 do not agree",
    ),
    "a record of other fields": (
        change(
            b"s" + Token.key(TokenId(1)), lambda data: bytes(msgpack.packb([b"x", b"x", b"x", b"x", b"x"]))
        ),
        "cannot be",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(verify_with: Verify, name: str) -> None:
    plant, told = FAULTS[name]
    result = verify_with(plant)
    assert result.code == Exit.DAMAGED
    assert told in result.err, result.err
    assert result.out == ""


# --- epochs and certificates ---


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of ten blocks: few blocks have a certificate, and the first epoch's last was proposed again."""
    directory = tmp_path_factory.mktemp("epochs") / "node"
    ledger = make_ledger(directory, epochBlocks=10)
    for nonce in range(28):
        executed, _ = ledger.build(make_plan(ledger), [sign(ALICE_KEY, nonce)])
        height = nonce + 1
        view = executed.header.view + 3 if height == 10 else None
        certificate = make_certificate(executed, ledger.head.block.header, view=view)
        ledger.commit(executed, certificate if height in (4, 10, 20, 25) else None)
        ledger.publish(executed)
    ledger.close()
    return directory


@pytest.fixture
def verify_epochs(epochs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    return lambda plant: verify_copy(epochs, tmp_path, capsys, plant)


def test_a_chain_of_several_epochs_with_few_certificates_passes(verify_epochs: Verify) -> None:
    """Each block lies below a certificate of its epoch, but for those above the last."""
    result = verify_epochs(None)
    assert (result.code, result.err) == (0, "")
    assert "ok: 29 blocks" in result.out


def lose_certificate(height: int) -> Plant:
    return lambda database: database.delete(at(b"c", height))


def recertify(height: int, **fields: Any) -> Plant:
    """A true signature under a statement with other fields."""

    def plant(database: Any) -> None:
        header = Block.decode(database.get(at(b"b", height))).header
        statement = Statement(Kind.FINALIZE, header.epoch, header.view, header.view - 1, header.hash)
        statement = statement._replace(**fields)
        signature = sign_compact(development_key(0), statement.digest(header.genesis_hash))
        database.put(at(b"c", height), Certificate(statement, ((0, signature),)).encode())

    return plant


def other_set(epoch: int) -> Plant:
    member = Member(ALICE, public_key(ALICE_KEY))
    return lambda database: database.put(at(b"v", epoch), EpochSet((member,)).encode())


ANOTHER: Final = "its certificate finalizes another block"
EPOCH_FAULTS: Final[dict[str, tuple[Plant, str]]] = {
    "an epoch that ends without a certificate": (
        lose_certificate(20),
        "block 20: no certificate covers blocks 11 to 20",
    ),
    "the first epoch that ends without a certificate": (
        lose_certificate(10),
        "block 10: no certificate covers blocks 5 to 10",
    ),
    "a certificate of the epoch before": (recertify(25, epoch=1), f"block 25: {ANOTHER}"),
    "a notarization": (recertify(25, kind=Kind.NOTARIZE), f"block 25: {ANOTHER}"),
    "a later view in the middle of an epoch": (recertify(25, view=9, parent_view=8), f"block 25: {ANOTHER}"),
    "a boundary proposed again over its parent": (
        recertify(20, view=15, parent_view=9),
        f"block 20: {ANOTHER}",
    ),
    "the set of the first epoch": (other_set(0), "block 0: the set of epoch 0 is not that of genesis"),
    "a set": (other_set(1), "block 11: does not name the kept set of epoch 1"),
    "a set that is named ahead": (other_set(1), "block 5: does not name the kept set of epoch 1 as the next"),
    "a set whose certificates are others'": (
        other_set(2),
        "block 25: certificate: signature of validator 0 does not verify",
    ),
    "a missing set": (lambda database: database.delete(at(b"v", 1)), "the set of epoch 1 is not known"),
    "a proposer whose turn it was not": (
        change(at(b"b", 12), edit_header(proposer=BOB)),
        f"block 12: is not by the leader of its view: 0x{BOB.hex()}",
    ),
    "a view that is its parent's": (
        change(at(b"b", 12), edit_header(view=1)),
        "block 12: stands in view 1 over a block of view 1",
    ),
    "an epoch that begins in view 0": (
        change(at(b"b", 11), edit_header(view=0)),
        "block 11: stands in view 0 over a block of view 10",
    ),
    "a header of another epoch": (change(at(b"b", 12), edit_header(epoch=2)), "block 12: is of epoch 2"),
}


@pytest.mark.parametrize("name", EPOCH_FAULTS)
def test_a_fault_of_epochs_is_named(verify_epochs: Verify, name: str) -> None:
    plant, told = EPOCH_FAULTS[name]
    result = verify_epochs(plant)
    assert result.code == Exit.DAMAGED
    assert told in result.err, result.err


def test_blocks_above_the_last_certificate_wait_for_theirs(verify_epochs: Verify) -> None:
    assert verify_epochs(lose_certificate(25)).code == 0


def test_a_missing_block_is_damage(verify_with: Verify) -> None:
    result = verify_with(lambda database: database.delete(at(b"b", 2)))
    assert result.code == Exit.DAMAGED
    assert result.err.count("\n") == 1


def test_all_faults_are_told(verify_with: Verify) -> None:
    """One does not hide the next."""

    def plant(database: Any) -> None:
        for name in ("a receipt", "another block's certificate", "a record", "a missing tree node"):
            FAULTS[name][0](database)

    result = verify_with(plant)
    assert "block 2: receipts" in result.err and "block 2: its certificate" in result.err
    assert "the records have state root" in result.err and "is missing" in result.err
    assert result.err.splitlines()[-1].endswith(
        f"faults up to block {BLOCKS}: {len(result.err.splitlines()) - 1}"
    )


def test_a_chain_of_genesis_alone_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_ledger(tmp_path / "node").close()
    assert main(["verify", "--dir", str(tmp_path / "node")]) == 0
    assert "ok: block 0, the state root" in capsys.readouterr().out


def test_the_chain_under_test_is_a_real_one(made: Path) -> None:
    ledger = Ledger.open(made)
    assert ledger.head.block.header.height == BLOCKS
    assert all(receipt.succeeded for receipt in ledger.head.receipts)
    ledger.close()
