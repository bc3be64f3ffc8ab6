"""The clearing in blocks: who builds a block begins it with the clearing that is due, and who checks one insists."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from ctt_state.audit import audit
from ctt_state.block import Block
from ctt_state.crypto import address_of
from ctt_state.errors import InvalidBlock
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import AuctionCleared, Traded
from ctt_state.transaction import (
    SYSTEM,
    MalformedTransaction,
    Signed,
    UnsupportedType,
    WrongChainId,
    decode_included,
    decode_transaction,
    recover_sender,
    system_transaction,
)
from ctt_state.units import ZERO_ADDRESS, Gas, Wei
from node.ledger import Ledger, decode_transactions
from node.unfinal import Executed
from node.verify import verify
from rpc.render import BlockView
from tests.ledger_world import (
    BOB_KEY,
    CHAIN_ID,
    OWNER_KEYS,
    OWNERS,
    add_block,
    finish,
    make_ledger,
    make_plan,
    records_of,
    sign,
)
from tests.market_world import ASK, BID, FOREVER

PRICE = 10**14


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = make_ledger(tmp_path / "node")
    yield ledger
    ledger.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ledger]:
    """Another node of the same chain."""
    ledger = make_ledger(tmp_path / "other")
    yield ledger
    ledger.close()


def call(key: bytes, nonce: int, signature: str, *arguments: Any) -> Signed:
    data = MARKET.named(signature).encode_arguments(*arguments)
    return sign(key, nonce, to=MARKET.address, value=0, data=data)


def orders() -> list[Signed]:
    """The second of the generated prosumers has full tokens only, the first has room."""
    return [
        call(OWNER_KEYS[1], 0, ASK, 1_000, PRICE, FOREVER),
        call(OWNER_KEYS[0], 0, BID, 1_000, PRICE, FOREVER),
    ]


def up_to_the_clearing(*ledgers: Ledger) -> None:
    """Blocks 1 to 3, which are auction 1, with the orders in the second."""
    for ledger in ledgers:
        for transactions in ([], orders(), []):
            add_block(ledger, transactions)


def signed(block: Block, ledger: Ledger) -> list[Signed]:
    return [Signed(each, recover_sender(each)) for each in decode_transactions(block, ledger.chain)]


def build(ledger: Ledger, *transactions: Signed) -> Executed:
    executed, dropped = ledger.build(make_plan(ledger), transactions)
    assert not dropped
    return executed


def test_the_block_after_an_auction_begins_with_its_clearing(ledger: Ledger, other: Ledger) -> None:
    """M-4: first in the block, with a hash, a receipt and gas of its own, and nobody's nonce."""
    up_to_the_clearing(ledger, other)

    executed = build(ledger, sign(BOB_KEY, 0))

    block, receipts = executed.final.block, executed.final.receipts
    assert [raw[0] == SYSTEM for raw in block.transactions] == [True, False]
    assert executed.final.senders == (ZERO_ADDRESS, address_of(BOB_KEY))
    assert block.header.gas_used == sum(receipt.gas_used for receipt in receipts) > 42_000
    told = [(log.topics, log.data) for log in receipts[0].logs if log.address == MARKET.address]
    assert told == [Traded(OWNERS[0], OWNERS[1], 1_000, PRICE), AuctionCleared(1, PRICE, 1_000, 1, 1)]
    assert other.execute(block, signed(block, other)).hash == executed.hash


def test_what_is_cleared_is_sound_on_the_disk(ledger: Ledger) -> None:
    up_to_the_clearing(ledger)
    finish(ledger, build(ledger))
    add_block(ledger)

    assert list(audit(records_of(ledger).items(), ledger.genesis.issued_wei)) == []
    assert list(verify(ledger.store, Progress(disable=True))) == []


def test_an_empty_book_leaves_the_block_empty(ledger: Ledger) -> None:
    for _ in range(7):
        assert add_block(ledger).final.block.transactions == ()


def test_the_clearing_takes_its_gas_from_the_blocks(ledger: Ledger) -> None:
    up_to_the_clearing(ledger)
    clearing = build(ledger).header.gas_used
    ledger.chain = replace(ledger.chain, block_gas_limit=Gas(clearing + 21_000))

    executed, _ = ledger.build(
        make_plan(ledger, view=9), [sign(BOB_KEY, nonce, gas_limit=21_000) for nonce in (0, 1)]
    )

    assert len(executed.final.block.transactions) == 2


IS_DUE = "does not begin with the system transaction that is due"


def test_a_block_without_the_clearing_is_refused(ledger: Ledger, other: Ledger) -> None:
    up_to_the_clearing(ledger, other)
    block = build(ledger, sign(BOB_KEY, 0)).final.block
    without = block._replace(transactions=block.transactions[1:])

    with pytest.raises(InvalidBlock, match=IS_DUE):
        other.execute(without, signed(without, other))
    with pytest.raises(InvalidBlock, match=IS_DUE):
        other.execute(block._replace(transactions=()), [])


def test_a_clearing_elsewhere_in_the_block_is_refused(ledger: Ledger, other: Ledger) -> None:
    up_to_the_clearing(ledger, other)
    block = build(ledger, sign(BOB_KEY, 0)).final.block
    first, second = block.transactions

    for transactions in ((second, first), (first, first, second), (first, second, first)):
        changed = block._replace(transactions=transactions)
        with pytest.raises(InvalidBlock, match=IS_DUE):
            other.execute(changed, signed(changed, other))


def test_another_system_transaction_is_refused(ledger: Ledger, other: Ledger) -> None:
    up_to_the_clearing(ledger, other)
    block = build(ledger).final.block
    due = decode_included(block.transactions[0], CHAIN_ID)

    for changes in ({"nonce": 5}, {"gas_limit": 1}, {"to": OWNERS[0]}, {"data": b"1234"}):
        fields = due._replace(**changes)
        raw = system_transaction(CHAIN_ID, fields.nonce, fields.gas_limit, fields.to, fields.data).raw
        changed = block._replace(transactions=(raw,))
        with pytest.raises(InvalidBlock, match=IS_DUE):
            other.execute(changed, signed(changed, other))


def test_a_clearing_that_is_not_due_is_refused(ledger: Ledger, other: Ledger) -> None:
    up_to_the_clearing(ledger)
    clearing = build(ledger).final.block.transactions
    block = build(other).final.block._replace(transactions=clearing)

    with pytest.raises(InvalidBlock, match=IS_DUE):
        other.execute(block, signed(block, other))


def test_nobody_can_send_a_system_transaction() -> None:
    raw = system_transaction(CHAIN_ID, 4, 10**6, MARKET.address, b"data").raw

    with pytest.raises(UnsupportedType):
        decode_transaction(raw, CHAIN_ID)


def test_a_system_transaction_of_a_block_decodes() -> None:
    transaction = system_transaction(CHAIN_ID, 4, 10**6, MARKET.address, b"data")

    assert decode_included(transaction.raw, CHAIN_ID) == transaction
    assert (transaction.type, transaction.nonce, transaction.value) == (SYSTEM, 4, 0)
    assert recover_sender(transaction) == ZERO_ADDRESS
    with pytest.raises(WrongChainId):
        decode_included(transaction.raw, CHAIN_ID + 1)
    for broken in (transaction.raw[:-1], transaction.raw + b"\0", bytes((SYSTEM,)), bytes((SYSTEM, 0xC0))):
        with pytest.raises(MalformedTransaction):
            decode_included(broken, CHAIN_ID)


def test_clients_see_the_clearing_as_a_transaction(ledger: Ledger) -> None:
    """It costs nobody anything, so its price of gas is 0 also where gas is not free."""
    up_to_the_clearing(ledger)
    final = build(ledger).final
    view = BlockView(final, replace(ledger.chain, minimum_gas_price_wei=Wei(7)))

    transaction, receipt = str(view.transaction(0)), str(view.receipt(0))

    assert f'"hash":"0x{final.transaction_hashes[0].hex()}","type":"0x7e","nonce":"0x4"' in transaction
    assert f'"from":"0x{ZERO_ADDRESS.hex()}","to":"0x{MARKET.address.hex()}"' in transaction
    assert '"gasPrice":"0x0"' in transaction
    assert '"effectiveGasPrice":"0x0"' in receipt
    assert '"status":"0x1","type":"0x7e"' in receipt
