"""How a transaction changes the state: what keeps it out of a block (T-2), reverts (T-3), gas and fees (T-4)."""

from dataclasses import replace
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.abi import Revert
from ctt_state.block import BlockContext, Receipt
from ctt_state.errors import (
    ExceedsBlockGasLimit,
    FeeBelowMinimum,
    InsufficientFunds,
    IntrinsicGasTooLow,
    InvalidTransaction,
    NonceTooHigh,
    NonceTooLow,
)
from ctt_state.modules.call import ChainParameters, debit
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import InsufficientPayment, MeterNotCertified, NotAdmin
from ctt_state.records import Account, Record
from ctt_state.transaction import DYNAMIC_FEE, LEGACY, Signed
from ctt_state.transition import apply_transaction, call, check_affordable, check_transaction
from ctt_state.units import Address, Gas, Wei
from ctt_state.view import OutOfGas, Overlay, StateView
from tests.world import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    GAS,
    OPERATOR,
    World,
    address,
    check_invariants,
    make_signed,
)

PROPOSER = address("proposer")
STRANGER = address("stranger")
RICH: Final = Wei(10**18)
PRICE: Final = 7  # wei a unit of gas, where a test has fees


class Chain(NamedTuple):
    """The state, and what a transaction is applied with."""

    overlay: Overlay
    block: BlockContext
    parameters: ChainParameters

    def apply(self, signed: Signed) -> Receipt:
        return apply_transaction(self.overlay, signed, self.block, self.parameters)

    def account(self, owner: Address) -> Account:
        account = self.overlay.lookup(Account.key(owner))
        return account if isinstance(account, Account) else Account()

    def balance(self, owner: Address) -> int:
        return self.account(owner).balance


def make_chain(
    *, price: int = 0, fee_receiver: Address | None = None, gas_limit: int = GAS, created: bool = False
) -> Chain:
    """A chain with this minimum gas price on which ALICE has 10^18 wei; a CTT and five others if created."""
    world = World(created=created)
    if created:
        world.done(ADMIN, "setEmptyTokenPrice(uint256)", 1_000)
    else:
        world.overlay.changes.clear()
    world.put(Account.key(ALICE), Account(0, RICH))
    parameters = replace(
        world.chain,
        minimum_gas_price_wei=Wei(price),
        fee_receiver=fee_receiver,
        block_gas_limit=Gas(gas_limit),
    )
    return Chain(world.overlay, world.block, parameters)


def calldata(signature: str, *arguments: object) -> bytes:
    return CTT.named(signature).encode_arguments(*arguments)


def without(changes: dict[bytes, Record | None], *owners: Address) -> dict[bytes, Record | None]:
    """The changes to all records but these accounts."""
    return {key: record for key, record in changes.items() if key not in map(Account.key, owners)}


# --- what keeps a transaction out of a block (T-2) ---

ACCOUNT = Account(5, Wei(1_000_000))
CHECKED = make_chain(price=PRICE, gas_limit=100_000).parameters
GOOD = make_signed(nonce=5, gas_limit=21_000, value=1_000_000 - 21_000 * PRICE)

# The order is protocol: each fault with what it changes in a good transaction, and its refusal.
FAULTS: list[tuple[dict[str, int], InvalidTransaction]] = [
    ({"nonce": 4}, NonceTooLow(next_nonce=5, nonce=4)),
    ({"nonce": 6}, NonceTooHigh(next_nonce=5, nonce=6)),
    ({"gas_limit": 20_999}, IntrinsicGasTooLow(have_gas=20_999, want_gas=21_000)),
    ({"gas_limit": 100_001}, ExceedsBlockGasLimit(have_gas=100_001, limit_gas=100_000)),
    ({"max_fee": PRICE - 1}, FeeBelowMinimum(have_wei=PRICE - 1, want_wei=PRICE)),
    ({"value": 1_000_000 - 21_000 * PRICE + 1}, InsufficientFunds(have_wei=1_000_000, want_wei=1_000_001)),
]
PAIRS = [
    ({**later[0], **earlier[0]}, earlier[1])
    for at, earlier in enumerate(FAULTS)
    for later in FAULTS[at + 1 :]
    if not earlier[0].keys() & later[0].keys()
]


def make_checked(changes: dict[str, int]) -> Signed:
    """`GOOD` with these fields changed."""
    fields = {"nonce": 5, "gas_limit": 21_000, "value": GOOD.transaction.value, "max_fee": PRICE, **changes}
    return make_signed(**fields)  # type: ignore[arg-type]  # all keywords are integers


def refusal_of(signed: Signed) -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        check_transaction(ACCOUNT, signed, CHECKED)
    return refusal.value


def test_a_transaction_at_every_bound_is_accepted() -> None:
    check_transaction(ACCOUNT, GOOD, CHECKED)
    check_transaction(ACCOUNT, make_checked({"gas_limit": 100_000, "value": 300_000}), CHECKED)


@pytest.mark.parametrize(("changes", "refusal"), FAULTS)
def test_each_fault_is_told_with_its_figures(changes: dict[str, int], refusal: InvalidTransaction) -> None:
    told = refusal_of(make_checked(changes))

    assert (type(told), str(told)) == (type(refusal), str(refusal))


@pytest.mark.parametrize(("changes", "refusal"), PAIRS)
def test_of_two_faults_the_earlier_is_told(changes: dict[str, int], refusal: InvalidTransaction) -> None:
    assert str(refusal_of(make_checked(changes))) == str(refusal)


def test_the_texts_are_those_wallets_know() -> None:
    assert [str(refusal) for _, refusal in FAULTS] == [
        "nonce too low: next nonce 5, tx nonce 4",
        "nonce too high: next nonce 5, tx nonce 6",
        "intrinsic gas too low: have 20999 want 21000",
        "exceeds block gas limit: have 100001 limit 100000",
        "max fee per gas less than block base fee: maxFeePerGas: 6, baseFee: 7",
        "insufficient funds for gas * price + value: have 1000000 want 1000001",
    ]


def test_affordable_asks_for_no_nonce() -> None:
    check_affordable(ACCOUNT, make_checked({"nonce": 99}), CHECKED)


@pytest.mark.parametrize(("size", "gas_limit"), [(1, 21_016), (100, 22_600)])
def test_calldata_must_be_covered(size: int, gas_limit: int) -> None:
    """T-4: 16 gas a byte, zero or not."""
    for data in (bytes(size), b"\xff" * size):
        check_transaction(Account(0, RICH), make_signed(data=data, gas_limit=gas_limit), CHECKED)
        with pytest.raises(IntrinsicGasTooLow):
            check_transaction(Account(0, RICH), make_signed(data=data, gas_limit=gas_limit - 1), CHECKED)


def test_what_is_offered_above_the_minimum_need_not_be_covered() -> None:
    """T-2, T-4: only the minimum is ever charged."""
    check_transaction(ACCOUNT, make_checked({"max_fee": 10**30}), CHECKED)


@pytest.mark.parametrize(("changes", "refusal"), FAULTS)
def test_a_refused_transaction_changes_nothing(changes: dict[str, int], refusal: InvalidTransaction) -> None:
    overlay = Overlay({Account.key(ALICE): ACCOUNT}.get)
    chain = make_chain(price=PRICE, gas_limit=100_000)._replace(overlay=overlay)

    with pytest.raises(type(refusal)):
        chain.apply(make_checked(changes))

    assert overlay.changes == {}


def test_one_who_has_nothing_can_send_when_gas_is_free() -> None:
    chain = make_chain()

    receipt = chain.apply(make_signed(STRANGER, max_fee=0))

    assert receipt == Receipt(True, Gas(21_000), ())
    assert chain.account(STRANGER) == Account(1)


# --- plain transfers ---


@pytest.mark.parametrize("kind", [LEGACY, DYNAMIC_FEE])
@pytest.mark.parametrize("value", [0, 1, RICH])
def test_a_plain_transfer_costs_21_000_gas(kind: int, value: int) -> None:
    """T-4: the accounts of sender and recipient are paid by it."""
    chain = make_chain()

    receipt = chain.apply(make_signed(value=value, kind=kind, gas_limit=21_000))

    assert receipt == Receipt(True, Gas(21_000), ())
    assert chain.account(ALICE) == Account(1, Wei(RICH - value))
    assert chain.balance(BOB) == value


def test_a_transfer_of_nothing_makes_no_account() -> None:
    chain = make_chain()

    chain.apply(make_signed())

    assert chain.overlay.lookup(Account.key(BOB)) is None


def test_a_transfer_may_carry_data() -> None:
    chain = make_chain()

    receipt = chain.apply(make_signed(value=5, data=b"invoice", gas_limit=21_000 + 7 * 16))

    assert receipt == Receipt(True, Gas(21_112), ())
    assert chain.balance(BOB) == 5


def test_a_transfer_to_oneself_changes_the_nonce_only() -> None:
    chain = make_chain()

    chain.apply(make_signed(ALICE, ALICE, value=RICH))

    assert chain.account(ALICE) == Account(1, RICH)


def test_a_recipients_nonce_stays() -> None:
    chain = make_chain()
    chain.apply(make_signed(ALICE, BOB, value=500))
    chain.apply(make_signed(BOB, ALICE, value=200))

    chain.apply(make_signed(ALICE, BOB, nonce=1, value=100))

    assert chain.account(BOB) == Account(1, Wei(400))
    assert chain.account(ALICE) == Account(2, Wei(RICH - 400))


# --- fees (T-4) ---


@pytest.mark.parametrize("fee_receiver", [None, CAROL])
def test_the_fee_goes_where_genesis_says(fee_receiver: Address | None) -> None:
    """The proposer, or one account: gas used x minimum price, not what was offered, not the limit."""
    chain = make_chain(price=PRICE, fee_receiver=fee_receiver)

    chain.apply(make_signed(value=100, max_fee=1_000 * PRICE, gas_limit=90_000))

    assert chain.account(ALICE) == Account(1, Wei(RICH - 100 - 21_000 * PRICE))
    assert chain.balance(fee_receiver or PROPOSER) == 21_000 * PRICE
    assert chain.balance(CAROL if fee_receiver is None else PROPOSER) == 0


def test_without_a_price_nobody_gets_a_fee() -> None:
    chain = make_chain(fee_receiver=CAROL)

    chain.apply(make_signed(value=100, max_fee=10**9))

    assert chain.account(ALICE) == Account(1, Wei(RICH - 100))
    assert chain.overlay.lookup(Account.key(CAROL)) is None


def test_a_sender_that_receives_the_fees_pays_itself() -> None:
    chain = make_chain(price=PRICE, fee_receiver=ALICE)

    chain.apply(make_signed(value=100))

    assert chain.account(ALICE) == Account(1, Wei(RICH - 100))


def test_a_recipient_that_receives_the_fees_gets_both() -> None:
    chain = make_chain(price=PRICE, fee_receiver=BOB)

    chain.apply(make_signed(value=100))

    assert chain.balance(BOB) == 100 + 21_000 * PRICE


def test_all_but_the_fee_can_be_sent() -> None:
    chain = make_chain(price=PRICE)
    most = RICH - 21_000 * PRICE

    with pytest.raises(InsufficientFunds):
        chain.apply(make_signed(value=most + 1, gas_limit=21_000))
    chain.apply(make_signed(value=most, gas_limit=21_000))

    assert chain.account(ALICE) == Account(1)


def test_the_fee_is_paid_in_every_outcome() -> None:
    """S-10: and the balances together stay what they were."""
    chain = make_chain(price=PRICE, created=True)
    before = sum(chain.balance(owner) for owner in (ALICE, ADMIN, PROPOSER, CTT.address))
    attempts = [
        make_signed(to=CTT.address, data=calldata("buyEmptyToken()"), value=1_700, nonce=0),
        make_signed(to=CTT.address, data=calldata("buyEmptyToken()"), value=999, nonce=1),
        make_signed(to=CTT.address, data=calldata("buyEmptyToken()"), value=1_000, nonce=2, gas_limit=30_000),
    ]

    receipts = [chain.apply(signed) for signed in attempts]

    used = sum(receipt.gas_used for receipt in receipts)
    assert [receipt.succeeded for receipt in receipts] == [True, False, False]
    assert chain.account(ALICE) == Account(3, Wei(RICH - 1_000 - used * PRICE))
    assert chain.balance(PROPOSER) == used * PRICE
    assert before == sum(chain.balance(owner) for owner in (ALICE, ADMIN, PROPOSER, CTT.address))


# --- gas of calls (T-4) ---


@pytest.mark.parametrize(
    ("sender", "signature", "arguments", "value", "reads", "writes"),
    [
        (ALICE, "supportsInterface(bytes4)", (b"\x01\xff\xc9\xa7",), 0, 0, 0),
        (ALICE, "totalSupply()", (), 0, 1, 0),
        # config, admin's account
        (ADMIN, "setEmptyTokenPrice(uint256)", (5,), 0, 1, 1),
        # config, role, meter | meter
        (OPERATOR, "certifyMeter(address,uint8,uint64,bool)", (STRANGER, 1, 0, False), 0, 3, 1),
        # config, supply, prosumer, page | token, page, prosumer, supply
        (ADMIN, "buyEmptyToken()", (), 1_000, 4, 4),
        # the same and the admin's account
        (ALICE, "buyEmptyToken()", (), 1_000, 5, 5),
        # what returns costs no more
        (ALICE, "buyEmptyToken()", (), 1_001, 5, 5),
        # three tokens
        (ALICE, "buyEmptyTokens(uint256)", (3,), 3_000, 5, 7),
    ],
)
def test_a_call_pays_for_each_record_once(
    sender: Address, signature: str, arguments: tuple[object, ...], value: int, reads: int, writes: int
) -> None:
    """T-4: the accounts of sender and module are paid by the 21,000."""
    chain = make_chain(created=True)
    data = calldata(signature, *arguments)

    receipt = chain.apply(
        make_signed(sender, CTT.address, nonce=chain.account(sender).nonce, value=value, data=data)
    )

    assert receipt.succeeded
    assert receipt.gas_used == 21_000 + 16 * len(data) + 1_000 * reads + 5_000 * writes


def test_the_fee_receivers_account_is_paid_for_when_a_rule_pays_it() -> None:
    """T-4: so gas does not depend on who proposes the block."""
    data = calldata("buyEmptyToken()")
    used = set()
    for receiver in (None, ADMIN, CAROL):
        chain = make_chain(price=PRICE, fee_receiver=receiver, created=True)
        used.add(chain.apply(make_signed(to=CTT.address, value=1_000, data=data)).gas_used)

    assert len(used) == 1


def test_a_refused_call_pays_for_what_it_read() -> None:
    chain = make_chain(created=True)
    data = calldata("setEmptyTokenPrice(uint256)", 5)

    receipt = chain.apply(make_signed(to=CTT.address, data=data))

    assert receipt == Receipt(False, Gas(21_000 + 16 * 36 + 1_000), (), NotAdmin(ALICE).data)


@pytest.mark.parametrize("missing", [0, 1, 5_000, 20_000])
def test_out_of_gas_uses_all_and_changes_nonce_and_fee_only(missing: int) -> None:
    """T-3, T-4: the gas needed is enough, a unit less is not."""
    data = calldata("buyEmptyToken()")
    chain = make_chain(price=PRICE, created=True)
    needed = foresee_buying(chain).gas_used
    before = dict(chain.overlay.changes)

    receipt = chain.apply(make_signed(to=CTT.address, value=1_000, data=data, gas_limit=needed - missing))

    if missing == 0:
        assert receipt.succeeded
        return
    assert receipt == Receipt(False, Gas(needed - missing), (), b"")
    assert without(chain.overlay.changes, ALICE, PROPOSER) == without(before, ALICE, PROPOSER)
    assert chain.account(ALICE) == Account(1, Wei(RICH - (needed - missing) * PRICE))


def foresee_buying(chain: Chain) -> Receipt:
    """What buying a token for 1,000 wei would do."""
    result = call(
        chain.overlay.lookup,
        ALICE,
        CTT.address,
        Wei(1_000),
        calldata("buyEmptyToken()"),
        GAS,
        *chain[1:],
    )
    return Receipt(result.revert is None, result.gas_used, result.logs)


# --- reverts (T-3) ---


def test_a_refused_call_changes_nonce_and_fee_only() -> None:
    chain = make_chain(price=PRICE, created=True)
    before = dict(chain.overlay.changes)

    receipt = chain.apply(make_signed(to=CTT.address, value=999, data=calldata("buyEmptyToken()")))

    assert (receipt.succeeded, receipt.logs) == (False, ())
    assert receipt.output == InsufficientPayment(1_000, 999).data
    assert without(chain.overlay.changes, ALICE, PROPOSER) == without(before, ALICE, PROPOSER)
    assert chain.account(ALICE) == Account(1, Wei(RICH - receipt.gas_used * PRICE))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"", 100),
        (b"\x01\x02\x03", 0),
        (b"\xff\xff\xff\xff", 0),
        (calldata("register(address)", STRANGER)[:-1], 0),
        (calldata("register(address)", STRANGER)[:4], 0),
        (calldata("register(address)", b"\x01" + bytes(19))[:4] + b"\xff" * 32, 0),
        (calldata("register(address)", STRANGER), 1),
    ],
    ids=[
        "no data",
        "value alone",
        "short selector",
        "unknown",
        "cut",
        "no argument",
        "dirty address",
        "not payable",
    ],
)
def test_a_malformed_call_reverts_without_data(data: bytes, value: int) -> None:
    """As a Solidity contract answers; the value returns, the nonce is spent."""
    chain = make_chain(created=True)

    receipt = chain.apply(make_signed(to=CTT.address, value=value, data=data))

    assert receipt == Receipt(False, Gas(21_000 + 16 * len(data)), (), b"")
    assert chain.account(ALICE) == Account(1, RICH)


def test_trailing_bytes_do_not_matter() -> None:
    chain = make_chain(created=True)

    receipt = chain.apply(make_signed(to=CTT.address, data=calldata("register(address)", STRANGER) + b"tail"))

    assert receipt.output == MeterNotCertified(STRANGER).data


def test_a_transaction_sees_those_before_it_in_the_block() -> None:
    chain = make_chain(created=True)

    for nonce in range(3):
        chain.apply(make_signed(to=CTT.address, nonce=nonce, value=1_000, data=calldata("buyEmptyToken()")))

    total = call(chain.overlay.lookup, BOB, CTT.address, Wei(0), calldata("totalSupply()"), GAS, *chain[1:])
    assert int.from_bytes(total.output, "big") == 3
    with pytest.raises(NonceTooLow):
        chain.apply(make_signed(nonce=2))


# --- calls that stay out of blocks ---


def test_a_call_foresees_the_transaction_and_changes_nothing() -> None:
    chain = make_chain(created=True)
    before = dict(chain.overlay.changes)

    foreseen = foresee_buying(chain)

    assert chain.overlay.changes == before
    done = chain.apply(make_signed(to=CTT.address, value=1_000, data=calldata("buyEmptyToken()")))
    assert foreseen == done


def test_a_call_asks_for_no_nonce_and_no_fee() -> None:
    """But for gas that covers its bytes, then for the value."""
    chain = make_chain(price=10**30)
    arguments = (b"", Gas(21_000), chain.block, chain.parameters)

    assert call(chain.overlay.lookup, ALICE, BOB, RICH, *arguments).gas_used == 21_000
    with pytest.raises(InsufficientFunds, match="have 0 want 1$"):
        call(chain.overlay.lookup, STRANGER, BOB, Wei(1), *arguments)
    with pytest.raises(IntrinsicGasTooLow, match="have 21000 want 21016"):
        call(chain.overlay.lookup, STRANGER, BOB, Wei(1), b"x", Gas(21_000), chain.block, chain.parameters)


def test_a_call_tells_why_it_would_revert() -> None:
    chain = make_chain(created=True)
    data = calldata("setEmptyTokenPrice(uint256)", 5)

    refused = call(chain.overlay.lookup, ALICE, CTT.address, Wei(0), data, GAS, *chain[1:])
    starved = call(chain.overlay.lookup, ALICE, CTT.address, Wei(0), data, Gas(21_600), *chain[1:])

    assert refused.revert == NotAdmin(ALICE)
    assert refused.output == NotAdmin(ALICE).data
    assert starved.revert == OutOfGas(21_600)
    assert starved.output == b""


def test_nobody_pays_more_than_there_is() -> None:
    view = StateView({Account.key(ALICE): Account(0, Wei(5))}.get, GAS)

    debit(view, ALICE, Wei(5))

    with pytest.raises(Revert, match="balance 0 wei, payment 1 wei"):
        debit(view, ALICE, Wei(1))


# --- conservation (S-10) ---

actors = st.sampled_from((ALICE, BOB, CAROL, PROPOSER, CTT.address))
transfers = st.lists(
    st.tuples(
        st.sampled_from((ALICE, BOB, CAROL, PROPOSER)),
        actors,
        st.integers(0, 10**18),
        st.integers(20_000, 60_000),
        st.sampled_from((b"", calldata("buyEmptyToken()"), calldata("totalSupply()"))),
    ),
    max_size=12,
)


@given(transfers=transfers, price=st.integers(0, 10**9), fee_receiver=st.none() | actors)
def test_no_transfer_makes_or_loses_money(
    transfers: list[tuple[Address, Address, int, int, bytes]], price: int, fee_receiver: Address | None
) -> None:
    """Whoever proposes, receives fees, runs out of gas or is refused."""
    world = World()
    world.done(ADMIN, "setEmptyTokenPrice(uint256)", 10**15)
    parameters = replace(world.chain, minimum_gas_price_wei=Wei(price), fee_receiver=fee_receiver)
    chain = Chain(world.overlay, world.block, parameters)
    for sender, to, value, gas_limit, data in transfers:
        nonce = chain.account(sender).nonce
        signed = make_signed(
            sender, to, nonce=nonce, value=value, data=data, gas_limit=gas_limit, max_fee=price
        )
        try:
            chain.apply(signed)
        except InvalidTransaction:
            assert chain.account(sender).nonce == nonce
        else:
            assert chain.account(sender).nonce == nonce + 1

    check_invariants(world)
