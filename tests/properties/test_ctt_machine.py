"""Any history of transactions: the ledger does what plain dicts do, keeps its invariants, and reverts leave nothing.

S-1 to S-10, S-12, T-3 and T-4 with fees. The model's rules stand in `ctt_model.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ctt_state import origin
from ctt_state.abi import Module
from ctt_state.modules import MODULES
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.shelf import Region, region_of
from ctt_state.records import Account, CttConfig, CttSupply, Meter, Prosumer, Reading, ShelfPage, Token
from ctt_state.transition import apply_transaction
from ctt_state.units import ZERO_ADDRESS, Address, Wei
from tests.properties.ctt_model import HOUR_MS, NOTHING, Model, Refused, by_source, plus
from tests.world import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    MALLORY,
    OPERATOR,
    START_MS,
    WEALTH_WEI,
    World,
    address,
    check_invariants,
    make_signed,
)

GAS_PRICE: Final = 3
EMPTY_PRICE: Final = 1_000
CAPABILITY: Final = 100
MAX_SUPPLY: Final = 120
PROPOSER: Final = address("proposer")
HOUSE_METER, SPARE_METER, CONCENTRATOR = METERS = tuple(map(address, ("meter 1", "meter 2", "concentrator")))
OWNERS: Final = (ALICE, BOB, CAROL)

owners = st.sampled_from(OWNERS)
anyone = st.sampled_from((*OWNERS, *METERS, ADMIN, OPERATOR, MALLORY))
admins = st.sampled_from((ADMIN,) * 9 + (MALLORY,))
operators = st.sampled_from((OPERATOR,) * 9 + (MALLORY,))
meters = st.sampled_from(METERS * 3 + (MALLORY,))
energies = st.sampled_from((0, 1, 40, 40, 100, 100, 101, 250, 350, 1_000, 10_000)) | st.integers(0, 250)
sources = st.sampled_from((1, 2, 0, 5))
powers = st.sampled_from((0, 0, 0, 100_000, 3_600_000))
payments = st.integers(-1, 2)  # what is paid above the price; below it, one wei
often = st.sampled_from((True,) * 14 + (False,))


class CttMachine(RuleBasedStateMachine):
    """Each rule sends one transaction to the ledger and tells the model the same."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self.world.done(ADMIN, "setEmptyTokenPrice(uint256)", EMPTY_PRICE)
        self.world.chain = dataclasses.replace(self.world.chain, minimum_gas_price_wei=Wei(GAS_PRICE))
        self.model = self.make_model()
        self.model.empty_price = EMPTY_PRICE
        for meter in METERS:
            self.world.put(Account.key(meter), Account(0, WEALTH_WEI))
        self.world.issued_wei = Wei(self.world.issued_wei + len(METERS) * WEALTH_WEI)
        self.model.balances = dict.fromkeys((*OWNERS, *METERS, ADMIN, OPERATOR, MALLORY), WEALTH_WEI)

    def make_world(self) -> World:
        return World(max_supply=MAX_SUPPLY, capability_wh=CAPABILITY)

    def make_model(self) -> Model:
        return Model(ADMIN, OPERATOR, max_supply=MAX_SUPPLY, capability=CAPABILITY, now=START_MS)

    def send(
        self, expect: Callable[[], None], sender: Address, signature: str, *arguments: Any, value: int = 0
    ) -> None:
        """The same rule of the ledger and of the model (`expect`): both take it, or both refuse for one reason."""
        self.send_to(CTT, expect, sender, signature, *arguments, value=value)

    def send_to(
        self,
        module: Module,
        expect: Callable[[], None],
        sender: Address,
        signature: str,
        *arguments: Any,
        value: int = 0,
    ) -> None:
        data = module.named(signature).encode_arguments(*arguments)
        refusal = self.apply(sender, module.address, value, data)
        foreseen = None
        try:
            expect()
        except Refused as refused:
            foreseen = str(refused)
        assert refusal == foreseen, signature

    def apply(self, sender: Address, to: Address, value: int, data: bytes) -> str | None:
        """Puts a transaction into the block; gives the name of the error it reverts with."""
        overlay, model = self.world.overlay, self.model
        before = dict(overlay.changes)
        nonce = self.world.get(Account.key(sender)).nonce
        signed = make_signed(sender, to, nonce=nonce, value=value, data=data, max_fee=GAS_PRICE)
        receipt = apply_transaction(overlay, signed, self.world.block, self.world.chain)

        model.pay(sender, PROPOSER, receipt.gas_used * GAS_PRICE)
        assert self.world.get(Account.key(sender)).nonce == nonce + 1
        if receipt.succeeded:
            return None
        untouched = dict.fromkeys((Account.key(sender), Account.key(PROPOSER)))
        assert {**overlay.changes, **untouched} == {**before, **untouched}
        assert receipt.logs == ()
        return MODULES[to].errors[receipt.output[:4]].name

    # --- a street to begin with ---

    @initialize(power=powers)
    def move_in(self, power: int) -> None:
        """Alice has a meter of her own, Bob and Carol share a concentrator."""
        self.certify(OPERATOR, HOUSE_METER, power, True, 1)
        self.certify(OPERATOR, SPARE_METER, 0, True, 2)
        self.certify(OPERATOR, CONCENTRATOR, 0, True, 2)
        for owner, meter in ((ALICE, HOUSE_METER), (BOB, CONCENTRATOR), (CAROL, CONCENTRATOR)):
            self.buy_empty(owner, 3, 0)
            self.register(owner, meter, True)
            self.refill(owner, 240, True, meter)

    # --- time and administration ---

    @rule(duration_ms=st.integers(0, HOUR_MS) | st.sampled_from((1, 1_000, HOUR_MS)))
    def wait(self, duration_ms: int) -> None:
        self.next_block(duration_ms)

    def next_block(self, duration_ms: int) -> None:
        self.world.pass_ms(duration_ms)
        self.model.now += duration_ms

    @rule(sender=admins, capability=st.sampled_from((1, 30, 40, 99, 100, 101, 150, 300, 0, 2**64)))
    def set_capability(self, sender: Address, capability: int) -> None:
        expect = lambda: self.model.set_capability(sender, capability)
        self.send(expect, sender, "setTokenCapability(uint256)", capability)

    @rule(sender=admins, supply=st.integers(0, MAX_SUPPLY) | st.just(2**63))
    def set_supply(self, sender: Address, supply: int) -> None:
        expect = lambda: self.model.set_supply(sender, supply)
        self.send(expect, sender, "setMaxTokenSupply(uint256)", supply)

    # --- meters ---

    @rule(sender=operators, meter=st.sampled_from(METERS), power=powers, same_kind=often, source=sources)
    def certify(self, sender: Address, meter: Address, power: int, same_kind: bool, source: int) -> None:
        concentrator = (meter == CONCENTRATOR) == same_kind
        expect = lambda: self.model.certify(sender, meter, power, concentrator, source)
        self.send(
            expect, sender, "certifyMeter(address,uint8,uint64,bool)", meter, source, power, concentrator
        )

    @rule(sender=operators, meter=st.sampled_from((SPARE_METER,) * 5 + METERS + (MALLORY,)))
    def revoke(self, sender: Address, meter: Address) -> None:
        self.send(lambda: self.model.revoke(sender, meter), sender, "revokeMeter(address)", meter)

    @rule(sender=owners, meter=meters, confirmed=often)
    def register(self, sender: Address, meter: Address, confirmed: bool) -> None:
        self.send(lambda: self.model.register(sender, meter), sender, "register(address)", meter)
        if confirmed:
            self.confirm(sender, True, meter)

    @rule(prosumer=owners, honest=often, other=anyone)
    def confirm(self, prosumer: Address, honest: bool, other: Address) -> None:
        sender = self.speaker(prosumer, honest, other)
        self.send(lambda: self.model.confirm(sender, prosumer), sender, "confirm(address)", prosumer)

    def speaker(self, prosumer: Address, honest: bool, other: Address) -> Address:
        """The prosumer's own meter, or another."""
        owner = self.model.owners.get(prosumer)
        return owner.meter if honest and owner and owner.meter != ZERO_ADDRESS else other

    # --- readings ---

    @rule(prosumer=owners, amount=energies, honest=often, other=anyone)
    def refill(self, prosumer: Address, amount: int, honest: bool, other: Address) -> None:
        sender = self.speaker(prosumer, honest, other)
        expect = lambda: self.model.amount(sender, prosumer, amount, produced=True)
        self.send(expect, sender, "refill(uint256,address)", amount, prosumer)

    @rule(prosumer=owners, amount=energies, honest=often, other=anyone)
    def consume(self, prosumer: Address, amount: int, honest: bool, other: Address) -> None:
        sender = self.speaker(prosumer, honest, other)
        expect = lambda: self.model.amount(sender, prosumer, amount, produced=False)
        self.send(expect, sender, "consume(uint256,address)", amount, prosumer)

    def registers(
        self, data: st.DataObject, sender: Address, prosumer: Address
    ) -> tuple[Address, int, int, int]:
        """A reading near to what the meter last said."""
        reading = self.model.readings.get((sender, prosumer))
        imported, exported = (reading.imported, reading.exported) if reading else (0, 0)
        ahead_ms = data.draw(st.sampled_from((0, 1, 500, 30_000, 60_000, 60_001, -1_000)))
        grown = [data.draw(energies | st.sampled_from((-1, 2**64) + (40,) * 8)) for _ in range(2)]
        return prosumer, self.model.now + ahead_ms, max(imported + grown[0], 0), max(exported + grown[1], 0)

    @rule(data=st.data(), prosumer=owners, honest=often, other=anyone)
    def report(self, data: st.DataObject, prosumer: Address, honest: bool, other: Address) -> None:
        sender = self.speaker(prosumer, honest, other)
        reading = self.registers(data, sender, prosumer)
        expect = lambda: self.model.report(sender, *reading)
        self.send(expect, sender, "report(address,uint64,uint256,uint256)", *reading)

    @rule(data=st.data(), honest=often, prosumers=st.lists(owners, max_size=5))
    def batch(self, data: st.DataObject, honest: bool, prosumers: list[Address]) -> None:
        sender = CONCENTRATOR if honest else HOUSE_METER
        readings = [self.registers(data, sender, prosumer) for prosumer in prosumers]
        expect = lambda: self.model.batch(sender, readings)
        self.send(expect, sender, "reportBatch((address,uint64,uint256,uint256)[])", readings)

    # --- tokens and money ---

    @rule(sender=owners, count=st.integers(0, 4) | st.just(66), above=payments)
    def buy_empty(self, sender: Address, count: int, above: int) -> None:
        value = max(count * EMPTY_PRICE + above, 0)
        expect = lambda: self.model.buy_empty(sender, count, value)
        self.send(expect, sender, "buyEmptyTokens(uint256)", count, value=value)

    @rule(data=st.data(), price=st.integers(0, 9), energy_price=st.integers(0, 9))
    def offer(self, data: st.DataObject, price: int, energy_price: int) -> None:
        sender, token_id = self.trader(data)
        expect = lambda: self.model.offer(sender, token_id, price, energy_price)
        self.send(expect, sender, "setOnSale(uint256,uint256,uint256)", token_id, price, energy_price)

    @precondition(lambda self: self.offered())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sender, token_id = self.trader(data, on_sale=True)
        self.send(lambda: self.model.cancel(sender, token_id), sender, "cancelSale(uint256)", token_id)

    @rule(data=st.data(), to=anyone)
    def approve(self, data: st.DataObject, to: Address) -> None:
        sender, token_id = self.trader(data)
        expect = lambda: self.model.approve(sender, to, token_id)
        self.send(expect, sender, "approve(address,uint256)", to, token_id)

    @rule(data=st.data(), source=owners, honest=often, to=owners)
    def transfer(self, data: st.DataObject, source: Address, honest: bool, to: Address) -> None:
        sender, token_id = self.trader(data)
        if honest and token_id in self.model.tokens:
            source = self.model.tokens[token_id].owner
        expect = lambda: self.model.transfer(sender, source, to, token_id)
        self.send(expect, sender, "transferFrom(address,address,uint256)", source, to, token_id)

    def trader(self, data: st.DataObject, *, on_sale: bool = False) -> tuple[Address, int]:
        """Somebody and a token: most often its owner or the one approved for it."""
        token_id = self.choose(data, on_sale=on_sale)
        who = data.draw(st.sampled_from(("owner",) * 7 + ("approved", "approved", "anyone")))
        token = self.model.tokens.get(token_id)
        if who == "anyone" or token is None:
            return data.draw(anyone), token_id
        return (
            token.approved if who == "approved" and token.approved in self.model.balances else token.owner,
            token_id,
        )

    def choose(self, data: st.DataObject, *, on_sale: bool) -> int:
        """A token; most often one that is on sale, if that is asked for. Or none at all."""
        sought = self.offered() if on_sale else self.model.tokens
        token_id: int = data.draw(st.sampled_from((*sought, *sought, *sought, 1, 0, MAX_SUPPLY + 1)))
        return token_id

    def offered(self) -> list[int]:
        return [token_id for token_id, token in self.model.tokens.items() if token.on_sale]

    @precondition(lambda self: self.offered())
    @rule(data=st.data(), sender=owners, above=payments)
    def buy(self, data: st.DataObject, sender: Address, above: int) -> None:
        token_id = self.choose(data, on_sale=True)
        min_energy = data.draw(st.sampled_from((0, 0, 0, 50)))
        value = max(self.model.price(token_id) + above, 0)
        expect = lambda: self.model.buy(sender, token_id, min_energy, value)
        self.send(expect, sender, "buyToken(uint256,uint256)", token_id, min_energy, value=value)

    @rule(sender=anyone, to=anyone, value=st.integers(0, 10**18))
    def pay(self, sender: Address, to: Address, value: int) -> None:
        assert self.apply(sender, to, value, b"") is None
        self.model.pay(sender, to, value)

    # --- what holds after every step ---

    @invariant()
    def the_invariants_hold(self) -> None:
        """The audit finds nothing; totals, views and encodings agree."""
        check_invariants(self.world)

    @invariant()
    def ledger_and_model_agree(self) -> None:
        assert told_by_ledger(self.world) == told_by_model(self.model)

    @invariant()
    def every_wh_of_a_source_is_held_or_retired_once(self) -> None:
        """S-12: what was ever stored of each source is in tokens or was covered."""
        stored, retired = self.world.call("totalOrigin()")
        assert list(plus(stored, retired)) == self.model.made


def told_by_model(model: Model) -> dict[object, object]:
    """Each thing by its name, as plain tuples."""
    energy = sum(token.energy for token in model.tokens.values())
    stored, covered = (
        sum(getattr(owner, name) for owner in model.owners.values()) for name in ("stored", "covered")
    )
    retired = [owner.retired for owner in model.owners.values()]
    told: dict[object, object] = {
        "config": (model.max_supply, model.capability, model.highest),
        "supply": (len(model.tokens), energy, stored, covered),
        "origin": (by_source(token.parts for token in model.tokens.values()), by_source(retired)),
        "balances": {address: balance for address, balance in model.balances.items() if balance},
    }
    for kind in (model.tokens, model.owners, model.meters, model.readings):
        told |= {(type(thing).__name__, name): dataclasses.astuple(thing) for name, thing in kind.items()}
    return told


def told_by_ledger(world: World) -> dict[object, object]:
    """The same, read from the records."""
    told: dict[object, object] = {"supply": (0, 0, 0, 0), "origin": (NOTHING, NOTHING)}
    balances: dict[Address, int] = {}
    for key, record in world.overlay.changes.items():
        name = Address(key[1:])
        match record:
            case Account(_, balance) if balance:
                balances[name] = balance
            case CttConfig():
                told["config"] = record.max_supply, record.capability_wh, record.highest_capability_wh
            case CttSupply():
                told["supply"] = tuple(record)[:4]
                held = origin.by_source(record.origin, record.energy_wh)
                told["origin"] = held, origin.by_source(record.retired, record.covered_wh)
            case Token(owner, _, energy, on_sale, price, energy_price, approved):
                parts = origin.by_source(record.origin, energy)
                token = (owner, energy, on_sale, price, energy_price, approved, parts)
                told["Token", int.from_bytes(name, "big")] = token
            case Prosumer():
                told["Owner", name] = told_of_owner(world, name, record)
            case Meter():
                meter = (
                    record.operator,
                    record.max_power_w,
                    record.concentrator,
                    record.source,
                    record.certified,
                    record.prosumer,
                )
                told["Meter", name] = meter
            case Reading():
                told["Reading", (name[:20], name[20:])] = tuple(record)
    return {**told, "balances": balances}


def told_of_owner(world: World, name: Address, record: Prosumer) -> tuple[object, ...]:
    """The owner's shelf by region, and its totals."""
    shelf: list[list[int]] = [[] for _ in Region]
    for slot in range(record.tokens):
        page = world.get(ShelfPage.key(name, slot // 64))
        shelf[region_of(record, slot)].append(page.token_ids[slot % 64])
    totals = record.produced_wh, record.stored_wh, record.consumed_wh, record.covered_wh
    retired = origin.by_source(record.retired, record.covered_wh)
    return record.meter, record.confirmed, record.capability_wh, shelf, *totals, retired


TestCttMachine = CttMachine.TestCase
TestCttMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
