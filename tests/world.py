"""A small chain in memory for tests of rules: accounts with names, a created CTT, meters and prosumers, no signatures.

Everything goes through `apply_transaction`, so gas, nonce and reverts are the real ones.
"""

from typing import Any, Final, NamedTuple

from ctt_state.abi import Emission, Module, Revert, decode_values
from ctt_state.audit import audit
from ctt_state.block import BlockContext, Log
from ctt_state.crypto import keccak
from ctt_state.modules.call import ChainParameters
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.shelf import Region, region_of
from ctt_state.records import Account, CttSupply, Prosumer, Record, Token
from ctt_state.transaction import DYNAMIC_FEE, Signed, Transaction
from ctt_state.transition import CallResult, apply_transaction, call
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Address, Gas, Height, Ms, TokenId, Wei
from ctt_state.view import Overlay

CHAIN_ID: Final = 4_242
GAS: Final = Gas(10_000_000)
START_MS: Final = Ms(1_700_000_000_999)
WEALTH_WEI: Final = Wei(10**24)  # of each of PEOPLE
CAPABILITY_WH: Final = 10_000


def address(name: str) -> Address:
    """The address of a name: the same in every test."""
    return Address(keccak(name.encode())[12:])


ADMIN, OPERATOR, ALICE, BOB, CAROL, MALLORY = PEOPLE = tuple(
    address(name) for name in ("admin", "operator", "alice", "bob", "carol", "mallory")
)


class Outcome(NamedTuple):
    """What a transaction did. `result` is decoded: one value alone, several as a tuple, none as None."""

    result: Any
    revert: Revert | None
    logs: tuple[Log, ...]
    gas_used: Gas

    @property
    def emissions(self) -> list[Emission]:
        return [Emission(log.topics, log.data) for log in self.logs]


class World:
    """The state, the block that is being made, and doors to both."""

    module: Module = CTT  # that `send` and `call` go to

    def __init__(
        self,
        *,
        created: bool = True,
        max_supply: int = 1_000,
        capability_wh: int = CAPABILITY_WH,
        development: bool = True,
        epoch_blocks: int = 900,
    ) -> None:
        self.chain = ChainParameters(
            chain_id=CHAIN_ID,
            genesis_hash=ZERO_HASH,
            block_period_ms=Ms(1_000),
            epoch_blocks=epoch_blocks,
            is_development=development,
            block_gas_limit=GAS,
            minimum_gas_price_wei=Wei(0),
            fee_receiver=None,
            first_admin=ADMIN,
        )
        self.overlay = Overlay(lambda key: None)
        self.block = BlockContext(Height(1), START_MS, address("proposer"))
        self.issued_wei = Wei(len(PEOPLE) * WEALTH_WEI)
        for person in PEOPLE:
            self.put(Account.key(person), Account(0, WEALTH_WEI))
        if created:
            self.done(
                ADMIN, "createCTT(string,string,uint256,uint256)", "Sun", "CTT", max_supply, capability_wh
            )
            self.done(ADMIN, "setOperator(address,bool)", OPERATOR, True)

    # --- doors ---

    def send(self, sender: Address, signature: str, *arguments: Any, value: int = 0) -> Outcome:
        """Puts the transaction into the block. A refused one must have changed the sender's nonce only."""
        function = self.module.named(signature)
        data = function.encode_arguments(*arguments)
        foreseen = self.call_raw(sender, data, value)
        before = dict(self.overlay.changes)
        receipt = apply_transaction(
            self.overlay, self._transaction(sender, data, value), self.block, self.chain
        )

        assert receipt.succeeded == (foreseen.revert is None)
        assert (receipt.gas_used, receipt.logs) == (foreseen.gas_used, foreseen.logs)
        if foreseen.revert:
            assert receipt.output == foreseen.revert.data
            after = {**self.overlay.changes, Account.key(sender): None}
            assert after == {**before, Account.key(sender): None}
        result = None if foreseen.revert else self._decode(signature, foreseen.output)
        return Outcome(result, foreseen.revert, receipt.logs, receipt.gas_used)

    def done(self, sender: Address, signature: str, *arguments: Any, value: int = 0) -> Any:
        """`send` that must succeed; gives the decoded result."""
        outcome = self.send(sender, signature, *arguments, value=value)
        assert outcome.revert is None, outcome.revert
        return outcome.result

    def refusal(self, sender: Address, signature: str, *arguments: Any, value: int = 0) -> Revert:
        """`send` that must be refused; gives the reason."""
        revert = self.send(sender, signature, *arguments, value=value).revert
        assert revert is not None, f"{signature} went through"
        return revert

    def call(self, signature: str, *arguments: Any, sender: Address = ZERO_ADDRESS, value: int = 0) -> Any:
        """The decoded result of an eth_call. Raises: Revert."""
        outcome = self.call_raw(sender, self.module.named(signature).encode_arguments(*arguments), value)
        if outcome.revert:
            raise outcome.revert
        return self._decode(signature, outcome.output)

    def call_raw(self, sender: Address, data: bytes, value: int = 0) -> CallResult:
        """An eth_call with this calldata."""
        return call(
            self.overlay.lookup, sender, self.module.address, Wei(value), data, GAS, self.block, self.chain
        )

    def get(self, key: bytes) -> Any:
        return self.overlay.lookup(key)

    def put(self, key: bytes, record: Record | None) -> None:
        """Sets a record past all rules."""
        self.overlay.changes[key] = record

    def balance(self, person: Address) -> int:
        account = self.get(Account.key(person))
        return account.balance if account else 0

    def token(self, token_id: int) -> Token:
        token: Token = self.get(Token.key(TokenId(token_id)))
        return token

    def pass_ms(self, duration_ms: int) -> None:
        """Starts the next block that much later."""
        self.block = self.block._replace(
            height=Height(self.block.height + 1), time_ms=Ms(self.block.time_ms + duration_ms)
        )

    # --- scenes ---

    def give_tokens(self, owner: Address, count: int = 1) -> int:
        """The owner buys empty tokens; gives the first id."""
        price = self.call("emptyTokenPrice()")
        first: int = self.done(owner, "buyEmptyTokens(uint256)", count, value=price * count)
        return first

    def give_meter(self, prosumer: Address, *, max_power_w: int = 0, concentrator: bool = False) -> Address:
        """A certified meter, named by the prosumer and confirming it."""
        meter = address("meter of " + prosumer.hex())
        self.done(OPERATOR, "certifyMeter(address,uint8,uint64,bool)", meter, 1, max_power_w, concentrator)
        self.done(prosumer, "register(address)", meter)
        self.done(meter, "confirm(address)", prosumer)
        return meter

    def charge(self, owner: Address, amount_wh: int) -> int:
        """The owner's meter (made when it has none) refills; gives what was stored."""
        prosumer: Prosumer | None = self.get(Prosumer.key(owner))
        meter = prosumer.meter if prosumer and prosumer.confirmed else self.give_meter(owner)
        stored: int = self.done(meter, "refill(uint256,address)", amount_wh, owner)
        return stored

    def _transaction(self, sender: Address, data: bytes, value: int) -> Signed:
        account: Account = self.get(Account.key(sender)) or Account()
        return make_signed(sender, self.module.address, nonce=account.nonce, value=value, data=data)

    def _decode(self, signature: str, output: bytes) -> Any:
        values = decode_values(self.module.named(signature).outputs, output)
        return values[0] if len(values) == 1 else values or None


def check_invariants(world: World) -> None:
    """Recomputes what no history may break. Raises: AssertionError with every fault."""
    records = {key: record for key, record in world.overlay.changes.items() if record is not None}
    faults = list(audit(records.items(), world.issued_wei))
    assert not faults, "\n".join(faults)
    check_totals(records)
    check_views(world, records)
    check_encoding(records)


def check_totals(records: dict[bytes, Record]) -> None:
    """What meters stored less what they covered is what the tokens hold (no genesis energy here)."""
    prosumers = [record for record in records.values() if isinstance(record, Prosumer)]
    energy = sum(record.energy_wh for record in records.values() if isinstance(record, Token))
    assert energy == sum(p.stored_wh for p in prosumers) - sum(p.covered_wh for p in prosumers)
    supply = records.get(CttSupply.key())
    assert not isinstance(supply, CttSupply) or supply.energy_wh == energy


def check_views(world: World, records: dict[bytes, Record]) -> None:
    """Enumeration, balances and `energyOf` tell the same as the tokens themselves."""
    tokens = {int.from_bytes(key[1:], "big"): r for key, r in records.items() if isinstance(r, Token)}
    assert world.call("totalSupply()") == len(tokens)
    for key, prosumer in records.items():
        if not isinstance(prosumer, Prosumer):
            continue
        owner = Address(key[1:])
        owned = {token_id: token for token_id, token in tokens.items() if token.owner == owner}
        assert world.call("balanceOf(address)", owner) == len(owned)
        ids = world.call("tokensOf(address,uint256,uint256)", owner, 0, 1_000)
        assert ids == tuple(sorted(owned, key=lambda token_id: owned[token_id].slot))[:1_000]
        at_hand = [token for token in owned.values() if not token.on_sale]
        assert world.call("energyOf(address)", owner)[0] == sum(token.energy_wh for token in at_hand)
        for token in owned.values():
            assert (region_of(prosumer, token.slot) is Region.ON_SALE) == token.on_sale


def check_encoding(records: dict[bytes, Record]) -> None:
    """Every record comes back from its bytes."""
    for record in records.values():
        assert type(record).decode(record.encode()) == record


def make_signed(
    sender: Address = ALICE,
    to: Address = BOB,
    *,
    nonce: int = 0,
    value: int = 0,
    data: bytes = b"",
    gas_limit: int = GAS,
    max_fee: int = 1_000,
    kind: int = DYNAMIC_FEE,
) -> Signed:
    """A transaction whose sender is known; no key signs it."""
    price = Wei(max_fee)
    transaction = Transaction(
        kind, CHAIN_ID, nonce, price, price, price, Gas(gas_limit), to, Wei(value), data, (), 0, 0, 0, ZERO_HASH, b""
    )  # fmt: skip
    return Signed(transaction, sender)
