"""A ledger on disk for tests: the development network with a few preloaded prosumers, and signed calls to put into
its blocks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ctt_state.block import FinalBlock, Header
from ctt_state.crypto import address_of, sign_compact
from ctt_state.errors import StateUnready
from ctt_state.genesis import development_key
from ctt_state.modules.ctt import CTT
from ctt_state.preload import preload_key
from ctt_state.records import Account, Record, decode_record
from ctt_state.transaction import Signed, decode_transaction, recover_sender, sign_transaction
from ctt_state.units import Address, Ms, hex_of
from ctt_state.validators import epoch_of
from ctt_state.view import Lookup
from ctt_state.votes import Certificate, Kind, Statement
from node.ledger import BlockPlan, Ledger, create_ledger
from node.unfinal import Executed

GENESIS: Final = Path(__file__).parent.parent / "genesis.json"
CHAIN_ID: Final = 7_788
PERIOD_MS: Final = 333
SEED: Final = 5
PROSUMERS: Final = 4  # of five tokens each
GAS_LIMIT: Final = 1_000_000

# The first of the development accounts is admin, operator and treasurer; these two only have money.
ALICE_KEY: Final = bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
BOB_KEY: Final = bytes.fromhex("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a")
ADMIN_KEY: Final = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
ALICE, BOB, ADMIN = (address_of(key) for key in (ALICE_KEY, BOB_KEY, ADMIN_KEY))
METER_KEYS: Final = [preload_key(SEED, "meter", index) for index in range(PROSUMERS)]
OWNER_KEYS: Final = [preload_key(SEED, "prosumer", index) for index in range(PROSUMERS)]
OWNERS: Final = [address_of(key) for key in OWNER_KEYS]


def document(**changes: Any) -> bytes:
    """The development network's genesis document with preloaded prosumers, who have some money too."""
    content = json.loads(GENESIS.read_bytes())
    content["preload"] = {"generate": {"count": PROSUMERS * 5, "seed": SEED, "tokensPerProsumer": 5}}
    content["accounts"] |= {hex_of(owner): {"balanceWei": str(10**20)} for owner in OWNERS}
    return json.dumps(content | changes).encode()


def make_ledger(directory: Path, **changes: Any) -> Ledger:
    """A new chain, open."""
    create_ledger(directory, document(**changes))
    return Ledger.open(directory)


def sign(
    key: bytes,
    nonce: int,
    *,
    to: Address = BOB,
    value: int = 1,
    data: bytes = b"",
    gas_limit: int = GAS_LIMIT,
) -> Signed:
    """A transaction as it comes out of sender recovery."""
    raw = sign_transaction(
        key, chain_id=CHAIN_ID, nonce=nonce, gas_limit=gas_limit, to=to, value=value, data=data
    )
    transaction = decode_transaction(raw, CHAIN_ID)
    return Signed(transaction, recover_sender(transaction))


def sign_call(
    key: bytes, nonce: int, signature: str, *arguments: Any, value: int = 0, gas_limit: int = GAS_LIMIT
) -> Signed:
    """A call to the CTT."""
    data = CTT.named(signature).encode_arguments(*arguments)
    return sign(key, nonce, to=CTT.address, value=value, data=data, gas_limit=gas_limit)


def make_plan(
    ledger: Ledger,
    after_ms: int = PERIOD_MS,
    *,
    parent: FinalBlock | None = None,
    view: int | None = None,
    evidence: Sequence[bytes] = (),
) -> BlockPlan:
    """The next block over the head, or over another, in the next view, by the only validator."""
    parent = parent or ledger.head
    header = parent.block.header
    epoch = epoch_of(header.height + 1, ledger.chain.epoch_blocks)
    return BlockPlan(
        parent.hash,
        epoch,
        view or (header.view if epoch == header.epoch else 0) + 1,
        Ms(header.timestamp_ms + after_ms),
        ledger.genesis.validators[0].address,
        tuple(evidence),
    )


def make_certificate(executed: Executed, parent: Header, *, view: int | None = None) -> bytes:
    """The development validator's, for this block; `view` is a later one in which it was proposed again."""
    header = executed.header
    parent_view = parent.view if parent.epoch == header.epoch else 0
    if view is not None:
        parent_view = header.view
    statement = Statement(Kind.FINALIZE, header.epoch, view or header.view, parent_view, executed.hash)
    signature = sign_compact(development_key(0), statement.digest(header.genesis_hash))
    return Certificate(statement, ((0, signature),)).encode()


def add_block(ledger: Ledger, transactions: Sequence[Signed] = (), after_ms: int = PERIOD_MS) -> Executed:
    """Builds, commits and publishes a block of these, none of which is dropped."""
    executed, dropped = ledger.build(make_plan(ledger, after_ms), transactions)
    assert not dropped
    finish(ledger, executed)
    return executed


def finish(ledger: Ledger, executed: Executed, *, is_certified: bool = True) -> None:
    """Commits and publishes."""
    certificate = make_certificate(executed, ledger.head.block.header) if is_certified else None
    ledger.commit(executed, certificate)
    ledger.publish(executed)


def records_of(ledger: Ledger) -> dict[bytes, Record]:
    """The head's whole state."""
    return {key: decode_record(key, data) for key, data in ledger.store.state_rows()}


def account(ledger: Ledger, address: Address) -> Account:
    found = ledger.lookup(Account.key(address))
    assert isinstance(found, Account)
    return found


def state_of(ledger: Ledger, height: int) -> Lookup:
    """The state as the door gets it, however much has to be worked out."""
    while True:
        try:
            return ledger.state(height)
        except StateUnready as state:
            while not state.work():
                pass
