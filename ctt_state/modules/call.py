"""A call to a native module: who calls, with what value, in which block, and the state the rule may change."""

from dataclasses import dataclass
from typing import Any, Final

from ctt_state.abi import Emission, Function, MalformedCalldata, Module, Revert
from ctt_state.block import BlockContext
from ctt_state.records import Account
from ctt_state.units import Address, Gas, Hash, Ms, Wei
from ctt_state.view import StateView

NO_ACCOUNT: Final = Account()


@dataclass(frozen=True, slots=True)
class MarketRules:
    """How the energy market runs."""

    auction_blocks: int  # from one clearing to the next
    orders_max: int  # that stand at once
    tokens_max: int  # that one clearing may charge or drain, shared out evenly among the orders


@dataclass(frozen=True, slots=True)
class ChainParameters:
    """What genesis fixes for every block."""

    chain_id: int
    genesis_hash: Hash
    block_period_ms: Ms
    epoch_blocks: int
    is_development: bool  # so small sets are allowed
    block_gas_limit: Gas
    minimum_gas_price_wei: Wei
    fee_receiver: Address | None  # None: the block's proposer
    first_admin: Address  # who may create the CTT when genesis has not
    market: MarketRules | None = None  # None: nobody can trade energy


class Call:
    """One call. `get`, `put` and `emit` are the metered doors to the state."""

    __slots__ = ("block", "chain", "get", "put", "sender", "to", "value", "view")

    def __init__(
        self,
        view: StateView,
        sender: Address,
        to: Address,
        value: Wei,
        block: BlockContext,
        chain: ChainParameters,
    ) -> None:
        self.view = view
        self.sender = sender
        self.to = to  # the module's own address
        self.value = value
        self.block = block
        self.chain = chain
        self.get = view.get
        self.put = view.put

    def emit(self, emission: Emission) -> None:
        self.view.emit(self.to, emission)

    def pay(self, to: Address, amount: Wei) -> None:
        """Pays out of the value that came with the call."""
        if amount:
            self.add_balance(self.to, -amount)
            self.add_balance(to, amount)

    def balance(self, address: Address) -> Wei:
        return (self.get(Account, Account.key(address)) or NO_ACCOUNT).balance

    def add_balance(self, address: Address, amount: int) -> None:
        """Changes it by so much; whoever calls has made sure that it is covered and conserved."""
        key = Account.key(address)
        account = self.get(Account, key) or NO_ACCOUNT
        self.put(key, Account(account.nonce, Wei(account.balance + amount)))

    def run(self, module: Module, data: bytes) -> tuple[Function, Any]:
        """Finds the function in the module's table, decodes, calls. Gives it with what it returned: to encode that is
        for who asks for it, and nobody does of a transaction.

        Raises: Revert, with no data where the call itself is malformed, as a Solidity contract answers: no selector
        or an unknown one, value to a function that takes none, arguments that do not decode.
        """
        function = module.functions.get(data[:4])
        if function is None:
            raise Revert(f"{module.name}: unknown function 0x{data[:4].hex()}")
        if self.value and function.mutability != "payable":
            raise Revert(f"{function.name}: takes no value, got {self.value} wei")
        try:
            arguments = function.decode_arguments(data)
        except MalformedCalldata as fault:
            raise Revert(str(fault)) from None
        return function, function.handler(self, *arguments)


def credit(view: StateView, address: Address, amount: Wei) -> None:
    """Adds to a balance, without gas. Cannot overflow: all balances together are what was issued."""
    if amount:
        key = Account.key(address)
        account = view.peek(Account, key) or NO_ACCOUNT
        view.poke(key, Account(account.nonce, Wei(account.balance + amount)))


def debit(view: StateView, address: Address, amount: Wei) -> None:
    """Takes from a balance, without gas. Raises: Revert when it does not cover the amount."""
    key = Account.key(address)
    account = view.peek(Account, key) or NO_ACCOUNT
    if account.balance < amount:
        raise Revert(f"balance {account.balance} wei, payment {amount} wei")
    view.poke(key, Account(account.nonce, Wei(account.balance - amount)))
