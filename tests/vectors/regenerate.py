"""What the vectors should say, and their regeneration.

    python -m tests.vectors.regenerate            prints how the code of now differs from the files; exit 1 if it does
    python -m tests.vectors.regenerate --write    writes the files

A difference means that nodes of the old and the new code part. Write only when you can explain each line of it.
"""

import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ctt_state.block import Block, Header, Log, Receipt, evidence_root, merkle_branch, merkle_root
from ctt_state.crypto import sha256
from ctt_state.modules.ctt import CTT
from ctt_state.records import (
    ROLE_OPERATOR,
    Account,
    Approval,
    Auction,
    Barred,
    Booking,
    BookingKind,
    BookPage,
    Change,
    CttConfig,
    CttSupply,
    EpochSet,
    Governance,
    Mandate,
    MarketBook,
    MarketTariff,
    Meter,
    Offence,
    Order,
    Outcome,
    Proposal,
    Prosumer,
    Reading,
    Record,
    Role,
    ShelfPage,
    Standing,
    Token,
    TreasuryTotals,
)
from ctt_state.transition import apply_transaction
from ctt_state.tree import update
from ctt_state.units import (
    UINT64_MAX,
    UINT256_MAX,
    Address,
    Gas,
    Hash,
    Height,
    Ms,
    TokenId,
    Watt,
    Wei,
    Wh,
    hex_of,
)
from ctt_state.validators import Member
from ctt_state.view import Overlay
from tests.world import ADMIN, ALICE, BOB, OPERATOR, START_MS, World, address, make_signed

FOLDER: Final = Path(__file__).parent

METER: Final = address("meter")
KEY: Final = b"\x02" + bytes(32)


# --- records (B-1) ---

RECORDS: Final[list[tuple[bytes, Record]]] = [
    (Account.key(ALICE), Account()),
    (Account.key(ALICE), Account(1, Wei(255))),
    (Account.key(ALICE), Account(UINT64_MAX, Wei(UINT256_MAX))),
    (CttConfig.key(), CttConfig("Sun", "CTT", ADMIN, BOB, 100_000_000, Wh(10_000), Wh(20_000), Wei(10**18))),
    (CttSupply.key(), CttSupply()),
    (CttSupply.key(), CttSupply(3, Wh(UINT64_MAX), Wh(UINT64_MAX + 5), Wh(5), (9, 0, 300), (0, 255))),
    (Token.key(TokenId(1)), Token(ALICE, 0)),
    (
        Token.key(TokenId(UINT64_MAX)),
        Token(ALICE, 64, Wh(10_000), True, Wei(2**128 - 1), Wei(1), BOB, 7, (0, 4_000)),
    ),
    (Prosumer.key(ALICE), Prosumer()),
    (
        Prosumer.key(ALICE),
        Prosumer(
            METER,
            True,
            1,
            2,
            3,
            4,
            Wh(10_000),
            Wh(10_000),
            Wh(500),
            Wh(9),
            Wh(8),
            Wh(7),
            Wh(6),
            (1, 0, 0, 0, 5),
        ),
    ),
    (ShelfPage.key(ALICE, 1), ShelfPage((1, 128, 65_536, UINT64_MAX))),
    (Approval.key(ALICE, BOB), Approval()),
    (Meter.key(METER), Meter(OPERATOR, 1, Watt(5_000), concentrator=False, certified=True, prosumer=ALICE)),
    (Reading.key(METER, ALICE), Reading(START_MS, Wh(7), Wh(9), Ms(START_MS + 1), Ms(START_MS + 2))),
    (Role.key(ROLE_OPERATOR, OPERATOR), Role()),
    (EpochSet.key(258), EpochSet((Member(ALICE, KEY), Member(BOB, b"\x03" + bytes(32))))),
    (Governance.key(), Governance(258, 3, ((257, ALICE), (258, BOB)))),
    (Proposal.key(257), Proposal(Change.ADD, METER, KEY, ALICE, Height(70_000))),
    (Proposal.key(258), Proposal(Change.REMOVE, METER, b"", BOB, Height(9), (BOB, ALICE), Height(10))),
    (
        Proposal.key(UINT64_MAX),
        Proposal(
            Change.ROTATE,
            BOB,
            KEY,
            ALICE,
            Height(9),
            (ALICE,),
            Height(9),
            Height(10),
            Outcome.APPLIED,
            Height(11),
        ),
    ),
    (Offence.key(3), Offence(BOB, KEY, 4, 5, Height(6))),
    (Barred.key(KEY), Barred(3)),
    (TreasuryTotals.key(), TreasuryTotals(Wei(10**21), Wei(0))),
    (Booking.key(ALICE, b"r" * 32), Booking(BookingKind.ISSUED, BOB, Wei(10**18), Height(7))),
    (MarketTariff.key(), MarketTariff(Wei(8), Wei(2**128 - 1), Wei(4), OPERATOR)),
    (MarketBook.key(), MarketBook(70_000, 258)),
    (BookPage.key(4), BookPage((1, 128, 65_536, UINT64_MAX))),
    (Standing.key(ALICE), Standing(0, 70_000)),
    (Order.key(69_999), Order(ALICE, False, Wh(10_000), Wei(10**14), 258, 64, ALICE)),
    (
        Order.key(70_000),
        Order(
            BOB,
            True,
            Wh(1),
            Wei(0),
            UINT64_MAX,
            0,
            ADMIN,
            ((1, Wei(255)), (0, Wei(0))),
            ((ALICE, Wei(2**128 - 1)),),
        ),
    ),
    (Auction.key(4_097), Auction(4_097, Height(12_292), Wei(10**14), Wh(UINT64_MAX + 1), 3, 2)),
    (Mandate.key(ALICE, BOB), Mandate(Wh(50_000), Wei(UINT256_MAX), Wei(10**14), Wei(0), 258)),
]


def make_records() -> list[dict[str, Any]]:
    """Each kind of record with its key, its fields and its bytes."""
    return [
        {
            "record": type(record).__name__,
            "key": hex_of(key),
            "fields": {name: readable(getattr(record, name)) for name in getattr(record, "_fields", ())},
            "bytes": hex_of(record.encode()),
        }
        for key, record in RECORDS
    ]


def readable(value: Any) -> Any:
    """A field for JSON: bytes as hexadecimal, integers as text, since JSON's own stop at 2^53."""
    if isinstance(value, bytes):
        return hex_of(value)
    if isinstance(value, tuple):
        return [readable(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- blocks (B-1, B-3, B-4) ---


def make_blocks() -> dict[str, Any]:
    """A header, a block, receipts, and the roots over some leaves with the branch of each."""
    receipts = [
        Receipt(True, Gas(21_000), ()),
        Receipt(False, Gas(30_000), (), b"\x01\x02\x03\x04"),
        Receipt(True, Gas(2**40), (Log(CTT.address, (b"t" * 32, b"u" * 32), b"data"),)),
    ]
    transactions, evidence = (b"first", b"second", b"third"), (b"proof", b"another")
    hashes = [Hash(bytes([tag]) * 32) for tag in range(1, 8)]
    header = Header(
        version=1,
        genesis_hash=hashes[0],
        height=Height(7),
        epoch=1,
        view=9,
        parent_hash=hashes[1],
        timestamp_ms=START_MS,
        proposer=ALICE,
        gas_used=Gas(sum(receipt.gas_used for receipt in receipts)),
        transactions_root=merkle_root([sha256(raw) for raw in transactions]),
        receipts_root=merkle_root([receipt.encode() for receipt in receipts]),
        state_root=hashes[2],
        evidence_root=evidence_root(evidence),
        validators_hash=hashes[3],
        next_validators_hash=hashes[4],
    )
    return {
        "header": {name: readable(value) for name, value in header._asdict().items()},
        "header_bytes": hex_of(header.encode()),
        "block_hash": hex_of(header.hash),
        "transactions": [hex_of(raw) for raw in transactions],
        "evidence": [hex_of(piece) for piece in evidence],
        "block_bytes": hex_of(Block(header, transactions, evidence).encode()),
        "receipts": [hex_of(receipt.encode()) for receipt in receipts],
        "merkle": [make_merkle(count) for count in range(8)],
    }


def make_merkle(count: int) -> dict[str, Any]:
    leaves = [bytes([number]) * number for number in range(count)]
    branches = [[hex_of(node) for node in merkle_branch(leaves, index)] for index in range(count)]
    return {
        "leaves": [hex_of(leaf) for leaf in leaves],
        "root": hex_of(merkle_root(leaves)),
        "branches": branches,
    }


# --- a short history ---

HOUR_MS: Final = 3_600_000
REPORT: Final = "report(address,uint64,uint256,uint256)"
# Sender, value, function, arguments. Each stands in a block of its own, an hour after the one before.
HISTORY: Final[list[tuple[Address, int, str, tuple[Any, ...]]]] = [
    (ADMIN, 0, "createCTT(string,string,uint256,uint256)", ("Sun", "CTT", 1_000, 10_000)),
    (ADMIN, 0, "setEmptyTokenPrice(uint256)", (10**15,)),
    (ADMIN, 0, "setOperator(address,bool)", (OPERATOR, True)),
    (OPERATOR, 0, "certifyMeter(address,uint8,uint64,bool)", (METER, 1, 20_000, False)),
    (ALICE, 0, "register(address)", (METER,)),
    (METER, 0, "confirm(address)", (ALICE,)),
    (ALICE, 3 * 10**15 + 5, "buyEmptyTokens(uint256)", (3,)),
    (METER, 0, "refill(uint256,address)", (14_000, ALICE)),
    (METER, 0, "refill(uint256,address)", (20_001, ALICE)),  # refused: above 20 kW for an hour
    (METER, 0, REPORT, (ALICE, START_MS + 9 * HOUR_MS, 500, 700)),
    (METER, 0, REPORT, (ALICE, START_MS + 10 * HOUR_MS, 2_000, 1_700)),
    (ALICE, 0, "setOnSale(uint256,uint256,uint256)", (1, 10**16, 10**12)),
    (BOB, 1, "buyToken(uint256)", (1,)),  # refused: 1 wei is not the price
    (BOB, 10**18, "buyToken(uint256)", (1,)),
    (BOB, 0, "approve(address,uint256)", (ALICE, 1)),
    (ALICE, 0, "transferFrom(address,address,uint256)", (BOB, ADMIN, 1)),
    (ADMIN, 0, "setTokenCapability(uint256)", (8_000,)),
    (METER, 0, "consume(uint256,address)", (2_000, ALICE)),
]


def make_history() -> dict[str, Any]:
    """The state before, and what each transaction leaves: its receipt, the records it changed and the state root."""
    world = World(created=False)
    records: dict[bytes, Record | None] = dict(world.overlay.changes)
    nodes: dict[bytes, bytes | None] = {}
    start = {"records": changed(records), "state_root": hex_of(root_after(nodes, records))}
    steps = []
    for number, step in enumerate(HISTORY):
        sender, value, signature, arguments = step
        overlay = Overlay(records.get)
        block = world.block._replace(height=Height(number + 1), time_ms=Ms(START_MS + number * HOUR_MS))
        account = records.get(Account.key(sender))
        nonce = account.nonce if isinstance(account, Account) else 0
        data = CTT.named(signature).encode_arguments(*arguments)
        signed = make_signed(sender, CTT.address, nonce=nonce, value=value, data=data)
        receipt = apply_transaction(overlay, signed, block, world.chain)
        records |= overlay.changes
        steps.append(
            {
                "time_ms": block.time_ms,
                "from": hex_of(sender),
                "value": str(value),
                "function": signature,
                "data": hex_of(data),
                "succeeded": receipt.succeeded,
                "gas_used": receipt.gas_used,
                "output": hex_of(receipt.output),
                "logs": [readable(tuple(log)) for log in receipt.logs],
                "receipt": hex_of(receipt.encode()),
                "changes": changed(overlay.changes),
                "state_root": hex_of(root_after(nodes, overlay.changes)),
            }
        )
    return {"chain_id": world.chain.chain_id, "to": hex_of(CTT.address), "start": start, "steps": steps}


def changed(records: dict[bytes, Record | None]) -> dict[str, str | None]:
    """The records' bytes by key, in the order of keys; null for a deleted one."""
    return {
        hex_of(key): hex_of(record.encode()) if record else None for key, record in sorted(records.items())
    }


def root_after(nodes: dict[bytes, bytes | None], changes: dict[bytes, Record | None]) -> Hash:
    """The state root with these changes (B-2); `nodes` is the tree, which takes them over."""
    leaves = [
        (sha256(key), None if record is None else sha256(record.encode())) for key, record in changes.items()
    ]
    root, changed_nodes = update(nodes.get, leaves)
    nodes |= changed_nodes
    return root


# --- files ---

VECTORS: Final[dict[str, Callable[[], Any]]] = {
    "records.json": make_records,
    "blocks.json": make_blocks,
    "history.json": make_history,
}


def text_of(name: str) -> str:
    """What the file should hold."""
    return json.dumps(VECTORS[name](), indent=1) + "\n"


def differences(name: str) -> list[str]:
    """The lines of a unified diff from the file to the code of now."""
    path = FOLDER / name
    kept = path.read_text() if path.exists() else ""
    return list(
        difflib.unified_diff(kept.splitlines(), text_of(name).splitlines(), name, "now", lineterm="", n=2)
    )


def main() -> int:
    found = [line for name in VECTORS for line in differences(name)]
    print("\n".join(found) if found else "the vectors are as the code says")
    if "--write" in sys.argv[1:]:
        for name in VECTORS:
            (FOLDER / name).write_text(text_of(name))
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
