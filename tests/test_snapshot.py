"""A state goes from one node to another in pieces, and only the state that the certified header names arrives."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plyvel
import pytest

from ctt_state.block import Header
from ctt_state.crypto import public_key, sign_compact
from ctt_state.errors import StatePruned
from ctt_state.genesis import development_key
from ctt_state.transaction import Signed
from ctt_state.units import Hash, Height
from ctt_state.validators import Member, ValidatorSet
from ctt_state.votes import Certificate, Kind, Statement
from node.cli.main import main
from node.exits import Failure
from node.ledger import Ledger, decode_transactions
from node.snapshot import (
    HOLD_MS,
    OFFER_MS,
    Chunk,
    Offer,
    SnapshotGone,
    SnapshotRefused,
    SnapshotSource,
    SnapshotWriter,
)
from node.store import BlockPruned, StorageDamaged, StorageExists, StorageMissing, Store
from tests.ledger_world import (
    ALICE,
    ALICE_KEY,
    METER_KEYS,
    OWNERS,
    account,
    add_block,
    document,
    finish,
    make_ledger,
    make_plan,
    sign,
    sign_call,
    state_of,
)

BASE = 17  # its epoch has fixed the next set


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A chain of epochs of ten blocks, some way up."""
    opened = make_ledger(tmp_path / "source", epochBlocks=10)
    add_blocks(opened, BASE)
    yield opened
    opened.close()


def add_blocks(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        nonce = ledger.head.block.header.height
        calls = [
            sign_call(key, nonce, "refill(uint256,address)", 100, OWNERS[index])
            for index, key in enumerate(METER_KEYS)
        ]
        add_block(ledger, [sign(ALICE_KEY, nonce), *calls])


def sets_of(ledger: Ledger, *epochs: int) -> dict[int, ValidatorSet]:
    return {epoch: ledger.validators(epoch) for epoch in epochs}


def fetch(source: SnapshotSource, height: int, bytes_max: int = 700) -> Iterator[Chunk]:
    """All pieces, one after the other."""
    after = b""
    while True:
        chunk = source.chunk(height, after, 0, bytes_max)
        yield chunk
        if chunk.is_last:
            return
        after = chunk.rows[-1][0]


def make_writer(directory: Path, ledger: Ledger, **changes: Any) -> SnapshotWriter:
    """One for the ledger's head, or with something else instead."""
    header = ledger.head.block.header
    given: dict[str, Any] = {
        "document": ledger.store.genesis_document,
        "header": header,
        "certificate": ledger.store.certificate(header.height),
        "validators": ledger.validators(1),
    }
    return SnapshotWriter(directory, **(given | changes))


def load(directory: Path, ledger: Ledger, **changes: Any) -> Ledger:
    """A node that begins with the ledger's head."""
    source = SnapshotSource(ledger)
    offer = source.offer(0)
    assert offer is not None
    with make_writer(directory, ledger, **changes) as writer:
        for chunk in fetch(source, offer.header.height):
            writer.load(chunk.rows)
        writer.finish()
    return Ledger.open(directory)


# --- the source ---


def test_the_pieces_are_the_whole_state_in_the_order_of_keys(ledger: Ledger) -> None:
    source = SnapshotSource(ledger)
    assert source.offer(0) == Offer(ledger.head.block.header, ledger.store.certificate(BASE))  # type: ignore[arg-type]
    chunks = list(fetch(source, BASE))
    assert [row for chunk in chunks for row in chunk.rows] == list(ledger.store.state_rows())
    assert len(chunks) > 4
    for chunk in chunks:
        assert len(chunk.rows) == 1 or sum(len(key) + len(data) for key, data in chunk.rows) <= 700


def test_a_state_stays_as_it_was_while_the_chain_goes_on(ledger: Ledger) -> None:
    source, before = SnapshotSource(ledger), list(ledger.store.state_rows())
    source.offer(0)
    found: list[tuple[bytes, bytes]] = []
    for chunk in fetch(source, BASE):
        found += chunk.rows
        add_blocks(ledger, 1)
    assert found == before
    assert found != list(ledger.store.state_rows())


def test_a_piece_has_a_row_however_large_it_is(ledger: Ledger) -> None:
    source = SnapshotSource(ledger)
    source.offer(0)
    rows = list(ledger.store.state_rows())
    assert source.chunk(BASE, b"", 0, bytes_max=1) == Chunk((rows[0],), is_last=False)
    assert source.chunk(BASE, rows[-2][0], 0, bytes_max=1) == Chunk((rows[-1],), is_last=True)
    assert source.chunk(BASE, rows[-1][0], 0) == Chunk((), is_last=True)
    assert source.chunk(BASE, b"", 0) == Chunk(tuple(rows), is_last=True)


def test_a_piece_has_a_greatest_number_of_rows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.snapshot.CHUNK_ROWS_MAX", 3)
    source = SnapshotSource(ledger)
    source.offer(0)
    assert len(source.chunk(BASE, b"", 0).rows) == 3


def test_a_state_is_offered_for_a_while_and_held_for_longer(ledger: Ledger) -> None:
    source = SnapshotSource(ledger)
    source.offer(0)
    add_blocks(ledger, 1)

    assert height_of(source.offer(OFFER_MS - 1)) == BASE
    assert height_of(source.offer(OFFER_MS)) == BASE + 1
    assert height_of(source.offer(OFFER_MS + 1)) == BASE + 1

    assert source.chunk(BASE, b"", HOLD_MS - 1).rows
    with pytest.raises(SnapshotGone, match=f"no snapshot of block {BASE} is held here"):
        source.chunk(BASE, b"", HOLD_MS)
    assert source.chunk(BASE + 1, b"", HOLD_MS).rows
    source.expire(HOLD_MS + OFFER_MS)
    with pytest.raises(SnapshotGone):
        source.chunk(BASE + 1, b"", 0)


def height_of(offer: Offer | None) -> int | None:
    return None if offer is None else offer.header.height


def test_only_a_certified_state_is_offered(ledger: Ledger) -> None:
    source = SnapshotSource(ledger)
    executed, _ = ledger.build(make_plan(ledger), [])
    finish(ledger, executed, is_certified=False)
    assert source.offer(0) is None
    add_block(ledger)
    assert height_of(source.offer(0)) == BASE + 2


def test_what_was_never_offered_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(SnapshotGone):
        SnapshotSource(ledger).chunk(BASE, b"", 0)


# --- a node that begins with it ---


@pytest.fixture
def loaded(tmp_path: Path, ledger: Ledger) -> Iterator[Ledger]:
    opened = load(tmp_path / "loaded", ledger)
    yield opened
    opened.close()


def follow(ledger: Ledger, loaded: Ledger, count: int) -> None:
    """New blocks reach both."""
    for _ in range(count):
        add_blocks(ledger, 1)
        final = ledger.head
        transactions = decode_transactions(final.block, loaded.chain)
        executed = loaded.execute(final.block, list(map(Signed, transactions, final.senders)))
        loaded.commit(executed, ledger.store.certificate(final.block.header.height))
        loaded.publish(executed)


def test_a_loaded_node_has_the_sources_state_and_tree(ledger: Ledger, loaded: Ledger) -> None:
    assert (loaded.head.block.header, loaded.head.hash) == (ledger.head.block.header, ledger.head.hash)
    for rows in ("state_rows", "node_rows"):
        assert dict(getattr(loaded.store, rows)()) == dict(getattr(ledger.store, rows)())
    assert account(loaded, ALICE) == account(ledger, ALICE)
    assert loaded.store.certificate(BASE) == ledger.store.certificate(BASE)
    assert sets_of(loaded, 1, 2) == sets_of(ledger, 1, 2)


def test_before_the_next_set_is_fixed_only_the_present_one_is_known(ledger: Ledger, tmp_path: Path) -> None:
    add_blocks(ledger, 5)
    loaded = load(tmp_path / "loaded", ledger, validators=ledger.validators(2))
    assert loaded.validators(2) == ledger.validators(2)
    for opened in (ledger, loaded):
        with pytest.raises(LookupError):
            opened.validators(3)
    follow(ledger, loaded, 3)
    assert loaded.validators(3) == ledger.validators(3)
    loaded.close()


def test_a_loaded_node_goes_on_over_a_restart(ledger: Ledger, loaded: Ledger, tmp_path: Path) -> None:
    follow(ledger, loaded, 4)
    shutil.copytree(tmp_path / "loaded", tmp_path / "copy")
    again = Ledger.open(tmp_path / "copy")
    assert again.head == loaded.head
    assert again.validators(2) == ledger.validators(2)
    follow(ledger, again, 14)
    assert again.head == ledger.head
    again.close()


def test_nothing_below_its_base_can_be_read(ledger: Ledger, loaded: Ledger) -> None:
    follow(ledger, loaded, 4)
    for height in (0, 1, BASE):
        with pytest.raises(
            BlockPruned, match=f"block {height} is pruned: this node has whole blocks from 18 on"
        ):
            loaded.block(height)
        for read in (loaded.store.block, loaded.store.receipts):
            with pytest.raises(BlockPruned):
                read(height)
    for height in (0, BASE - 1):
        with pytest.raises(BlockPruned):
            loaded.store.hash_at(height)
        with pytest.raises(StatePruned):
            loaded.state(height)
    assert loaded.block(BASE + 1) == ledger.block(BASE + 1)
    assert loaded.block(BASE + 5) is None
    assert loaded.oldest_state() == BASE
    keys = [key for key, _ in ledger.store.state_rows()]
    for height in range(BASE, BASE + 5):
        assert [state_of(loaded, height)(key) for key in keys] == [
            state_of(ledger, height)(key) for key in keys
        ]


def test_it_gives_peers_the_blocks_above_its_base(ledger: Ledger, loaded: Ledger) -> None:
    follow(ledger, loaded, 6)
    assert loaded.range(BASE, 9, 10**6) is None
    assert loaded.range(BASE + 1, 9, 10**6) == ledger.range(BASE + 1, 9, 10**6)


def test_it_gives_its_state_to_the_next(ledger: Ledger, loaded: Ledger, tmp_path: Path) -> None:
    again = load(tmp_path / "next", loaded)
    assert again.head == loaded.head
    again.close()


def verify(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code = main(["verify", "--dir", str(directory)])
    err = capsys.readouterr().err
    assert (code == 0) == (err == "")
    return err


def test_verify_begins_at_the_base(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(tmp_path / "loaded", ledger)
    follow(ledger, loaded, 15)
    loaded.close()
    assert verify(tmp_path / "loaded", capsys) == ""


def test_a_lost_block_above_the_base_is_damage(ledger: Ledger, tmp_path: Path) -> None:
    loaded = load(tmp_path / "loaded", ledger)
    follow(ledger, loaded, 3)
    loaded.close()
    database = plyvel.DB(str(tmp_path / "loaded" / "db"))
    database.delete(b"n" + (BASE + 1).to_bytes(8, "big"))
    database.close()
    with pytest.raises(StorageDamaged, match=f"block {BASE + 1} is missing"):
        Ledger.open(tmp_path / "loaded")


# --- what is refused ---


def check_nothing_is_left(directory: Path) -> None:
    """But an unfinished database, of which the next writer makes another."""
    assert not (directory / "db").exists() and not (directory / "anchor").exists()
    with pytest.raises(StorageMissing):
        Store.open(directory)


@pytest.mark.parametrize("fault", ["changed", "missing", "added"])
def test_another_state_is_refused(ledger: Ledger, tmp_path: Path, fault: str) -> None:
    rows = list(ledger.store.state_rows())
    if fault == "changed":
        rows[3] = rows[3][0], rows[4][1]
    elif fault == "missing":
        del rows[3]
    else:
        rows.append((rows[-1][0] + b"\0", b"more"))
    with (
        pytest.raises(SnapshotRefused, match=f"the rows have state root .*, block {BASE} has"),
        make_writer(tmp_path / "new", ledger) as writer,
    ):
        writer.load(rows)
        writer.finish()
    check_nothing_is_left(tmp_path / "new")
    load(tmp_path / "new", ledger).close()


def test_rows_out_of_their_order_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    rows = list(ledger.store.state_rows())
    for order in ([rows[1], rows[0]], [rows[0], rows[0]], [(b"", b"no key")]):
        with (
            pytest.raises(SnapshotRefused, match="comes after row"),
            make_writer(tmp_path / "new", ledger) as writer,
        ):
            writer.load(order)
    with make_writer(tmp_path / "new", ledger) as writer:
        writer.load(rows[:2])
        assert writer.last_key == rows[1][0]
        with pytest.raises(SnapshotRefused):
            writer.load(rows[1:])
    check_nothing_is_left(tmp_path / "new")


def test_a_chain_that_is_there_is_not_replaced(ledger: Ledger, tmp_path: Path) -> None:
    make_ledger(tmp_path / "there", epochBlocks=10).close()
    with pytest.raises(StorageExists):
        make_writer(tmp_path / "there", ledger)


def certificate(header: Header, **fields: Any) -> bytes:
    statement = Statement(Kind.FINALIZE, header.epoch, header.view, header.view - 1, header.hash)
    statement = statement._replace(**fields)
    signature = sign_compact(development_key(0), statement.digest(header.genesis_hash))
    return Certificate(statement, ((0, signature),)).encode()


def test_a_header_that_is_not_shown_to_be_final_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    header = ledger.head.block.header
    other = ValidatorSet((Member(ALICE, public_key(ALICE_KEY)),))
    forged = header._replace(state_root=Hash(b"s" * 32))
    offers: dict[str, dict[str, Any]] = {
        "is not of this chain": {"document": document(epochBlocks=20)},
        "block 17 of epoch 0 is not of this chain": {"header": header._replace(epoch=0)},
        "block 0 of epoch 0 is not of this chain": {"header": header._replace(height=Height(0), epoch=0)},
        "names another set of epoch 1": {"validators": other},
        "certificate of block 17: ": {"certificate": b"\x05"},
        "signature of validator 0 does not verify": {
            "certificate": Certificate(
                Statement(Kind.FINALIZE, 1, 7, 6, header.hash), ((0, b"s" * 64),)
            ).encode()
        },
        "finalizes another block than 17": {"header": forged},
        "the certificate finalizes another block": {"certificate": certificate(header, kind=Kind.NOTARIZE)},
        "certificate finalizes another block": {"certificate": certificate(header, epoch=2)},
    }
    for told, changes in offers.items():
        with pytest.raises(SnapshotRefused, match=told):
            make_writer(tmp_path / "new", ledger, **changes)
    assert not (tmp_path / "new").exists()
    again = make_writer(tmp_path / "new", ledger, certificate=certificate(header, view=header.view + 3))
    again.__exit__(None, None, None)
    with pytest.raises(Failure):
        Store.open(tmp_path / "new")
