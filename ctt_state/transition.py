"""How a transaction changes the state.

The order is fixed: checks that keep a transaction out of a block, then nonce and fee, then the body. A body that
reverts leaves only the nonce, the fee and a failed receipt. A transaction to a module's address calls it; to any
other it moves value. The flat 21,000 gas pay for the accounts of sender and recipient, and for crediting the fee.

A block may begin with a system transaction: the clearing of the auction that the block before has ended. Nobody signs
it, sends it or pays for it, but it is in the block like any other, with its receipt, and its gas counts.
"""

from typing import Any, NamedTuple

from ctt_state.abi import Function, Revert
from ctt_state.block import BlockContext, Log, Receipt
from ctt_state.errors import (
    ExceedsBlockGasLimit,
    FeeBelowMinimum,
    InsufficientFunds,
    IntrinsicGasTooLow,
    NonceTooHigh,
    NonceTooLow,
)
from ctt_state.modules import MODULES
from ctt_state.modules.call import NO_ACCOUNT, Call, ChainParameters, credit, debit
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.clearing import clearing_gas_max
from ctt_state.records import Account, MarketBook
from ctt_state.transaction import Signed, intrinsic_gas, intrinsic_gas_of, system_transaction
from ctt_state.units import ZERO_ADDRESS, Address, Gas, Wei
from ctt_state.view import Lookup, Overlay, StateView, find


class CallResult(NamedTuple):
    """What a call would do: `revert` is None when it succeeds."""

    returned: tuple[Function, Any] | None  # None without a function that succeeded
    gas_used: Gas
    logs: tuple[Log, ...]
    revert: Revert | None

    @property
    def output(self) -> bytes:
        """What the function returned, or the error, in the ABI's encoding."""
        if self.revert is not None:
            return self.revert.data
        if self.returned is None:
            return b""
        function, value = self.returned
        return function.encode_result(value)


def check_transaction(account: Account, signed: Signed, chain: ChainParameters) -> None:
    """The checks that need the sender's account, as mempool and block share them.

    Raises: NonceTooLow, NonceTooHigh, IntrinsicGasTooLow, ExceedsBlockGasLimit, FeeBelowMinimum, InsufficientFunds,
    in that order.
    """
    nonce = signed.transaction.nonce
    if nonce < account.nonce:
        raise NonceTooLow(next_nonce=account.nonce, nonce=nonce)
    if nonce > account.nonce:
        raise NonceTooHigh(next_nonce=account.nonce, nonce=nonce)
    check_affordable(account, signed, chain)


def check_affordable(account: Account, signed: Signed, chain: ChainParameters) -> None:
    """Gas, fee and balance, whatever the nonce.

    Raises: IntrinsicGasTooLow, ExceedsBlockGasLimit, FeeBelowMinimum, InsufficientFunds, in that order.
    """
    transaction = signed.transaction
    needed = intrinsic_gas(transaction)
    if transaction.gas_limit < needed:
        raise IntrinsicGasTooLow(have_gas=transaction.gas_limit, want_gas=needed)
    if transaction.gas_limit > chain.block_gas_limit:
        raise ExceedsBlockGasLimit(have_gas=transaction.gas_limit, limit_gas=chain.block_gas_limit)
    if transaction.max_fee < chain.minimum_gas_price_wei:
        raise FeeBelowMinimum(have_wei=transaction.max_fee, want_wei=chain.minimum_gas_price_wei)
    want = transaction.value + transaction.gas_limit * chain.minimum_gas_price_wei
    if account.balance < want:
        raise InsufficientFunds(have_wei=account.balance, want_wei=want)


def apply_transaction(
    overlay: Overlay, signed: Signed, block: BlockContext, chain: ChainParameters
) -> Receipt:
    """Applies one transaction to the block's overlay and gives its receipt.

    Raises: InvalidTransaction (see `check_transaction`); the overlay is then as before.
    """
    transaction, sender = signed
    view = StateView(overlay.lookup, transaction.gas_limit)
    key = Account.key(sender)
    account = view.peek(Account, key) or NO_ACCOUNT
    check_transaction(account, signed, chain)

    deposit = transaction.gas_limit * chain.minimum_gas_price_wei
    view.poke(key, Account(account.nonce + 1, Wei(account.balance - deposit)))
    result = _run(view, sender, transaction.to, transaction.value, transaction.data, block, chain)
    if chain.minimum_gas_price_wei:
        fee = Wei(result.gas_used * chain.minimum_gas_price_wei)
        credit(view, sender, Wei(deposit - fee))
        credit(view, chain.fee_receiver or block.proposer, fee)
    overlay.absorb(view)
    revert = result.revert
    return Receipt(revert is None, result.gas_used, result.logs, revert.data if revert else b"")


def due_transaction(lookup: Lookup, block: BlockContext, chain: ChainParameters) -> Signed | None:
    """The system transaction that the block at this state must begin with; None when it begins with none.

    An auction is over every `auction_blocks` blocks; with no order in the book there is nothing to clear.
    """
    rules = chain.market
    if rules is None or block.height == 1 or (block.height - 1) % rules.auction_blocks:
        return None
    book = find(lookup, MarketBook, MarketBook.key())
    if book is None or not book.standing:
        return None
    gas_limit = clearing_gas_max(rules)
    data = MARKET.named("clear()").selector
    transaction = system_transaction(chain.chain_id, block.height, gas_limit, MARKET.address, data)
    return Signed(transaction, ZERO_ADDRESS)


def apply_due(overlay: Overlay, due: Signed, block: BlockContext, chain: ChainParameters) -> Receipt:
    """Applies the block's system transaction to its overlay and gives the receipt."""
    transaction, sender = due
    view = StateView(overlay.lookup, transaction.gas_limit)
    result = _run(view, sender, transaction.to, transaction.value, transaction.data, block, chain)
    overlay.absorb(view)
    revert = result.revert
    return Receipt(revert is None, result.gas_used, result.logs, revert.data if revert else b"")


def call(
    below: Lookup,
    sender: Address,
    to: Address,
    value: Wei,
    data: bytes,
    gas_limit: Gas,
    block: BlockContext,
    chain: ChainParameters,
) -> CallResult:
    """What a transaction with this content would do now, nonce and fee aside; changes nothing (eth_call).

    Raises: IntrinsicGasTooLow, InsufficientFunds, in that order.
    """
    view = StateView(below, gas_limit)
    needed = intrinsic_gas_of(data)
    if gas_limit < needed:
        raise IntrinsicGasTooLow(have_gas=gas_limit, want_gas=needed)
    have = (view.peek(Account, Account.key(sender)) or NO_ACCOUNT).balance
    if have < value:
        raise InsufficientFunds(have_wei=have, want_wei=value)
    return _run(view, sender, to, value, data, block, chain)


def _run(
    view: StateView,
    sender: Address,
    to: Address,
    value: Wei,
    data: bytes,
    block: BlockContext,
    chain: ChainParameters,
) -> CallResult:
    """The body: value, then the module. A revert takes back both."""
    checkpoint = view.checkpoint()
    returned, refusal = None, None
    try:
        view.charge(intrinsic_gas_of(data))
        if value:
            debit(view, sender, value)
            credit(view, to, value)
        module = MODULES.get(to)
        if module is not None:
            view.prepay(Account.key(sender), Account.key(to))
            returned = Call(view, sender, to, value, block, chain).run(module, data)
    except Revert as revert:
        view.revert(checkpoint)
        refusal = revert
    return CallResult(returned, view.gas_used, tuple(view.logs), refusal)
