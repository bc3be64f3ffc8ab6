"""The CTT told again as plain dicts and lists: no records, no gas, no pages. What the state machine is held against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address

HOUR_MS = 3_600_000
NOTHING: tuple[int, ...] = (0,) * 6  # Wh by source


class Refused(Exception):
    """The rule refuses; the text is the name of its ABI error."""


def require(condition: object, error: str) -> None:
    if not condition:
        raise Refused(error)


def pro_rata(parts: Sequence[int], energy: int) -> tuple[int, ...]:
    """So much of these Wh by source, by largest remainder (S-12)."""
    quotas = [Fraction(wh * energy, sum(parts)) if wh else Fraction(0) for wh in parts]
    taken = [int(quota) for quota in quotas]
    by_loss = sorted(range(6), key=lambda source: (taken[source] - quotas[source], source))
    for source in by_loss[: energy - sum(taken)]:
        taken[source] += 1
    return tuple(taken)


def plus(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(left + right for left, right in zip(one, other, strict=True))


def by_source(parts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """All of these together."""
    return tuple(map(sum, zip(NOTHING, *parts, strict=True)))


def minus(one: Sequence[int], part: Sequence[int]) -> tuple[int, ...]:
    rest = tuple(left - right for left, right in zip(one, part, strict=True))
    assert min(rest) >= 0
    return rest


@dataclass
class Token:
    owner: Address
    energy: int = 0
    on_sale: bool = False
    price: int = 0
    energy_price: int = 0
    approved: Address = ZERO_ADDRESS
    parts: tuple[int, ...] = NOTHING


@dataclass
class Owner:
    """Token ids by region, in the order of the slots."""

    meter: Address = ZERO_ADDRESS
    confirmed: bool = False
    capability: int = 0
    shelf: list[list[int]] = field(default_factory=lambda: [[], [], [], []])  # full, partial, empty, on sale
    produced: int = 0
    stored: int = 0
    consumed: int = 0
    covered: int = 0
    retired: tuple[int, ...] = NOTHING


@dataclass
class Meter:
    operator: Address
    power: int
    concentrator: bool
    source: int
    certified: bool = True
    prosumer: Address = ZERO_ADDRESS


@dataclass
class Reading:
    time: int = 0
    imported: int = 0
    exported: int = 0
    refilled_ms: int = 0
    consumed_ms: int = 0


class Model:
    """A method a rule. Each refuses before it changes anything."""

    def __init__(
        self, admin: Address, operator: Address, *, max_supply: int, capability: int, now: int
    ) -> None:
        self.admin, self.operator, self.now = admin, operator, now
        self.max_supply, self.capability, self.highest = max_supply, capability, capability
        self.empty_price = 0
        self.balances: dict[Address, int] = {}
        self.tokens: dict[int, Token] = {}
        self.owners: dict[Address, Owner] = {}
        self.meters: dict[Address, Meter] = {}
        self.readings: dict[tuple[Address, Address], Reading] = {}
        self.made = [0] * 6  # Wh ever stored, by source

    # --- administration ---

    def set_capability(self, sender: Address, capability: int) -> None:
        require(sender == self.admin, "NotAdmin")
        require(1 <= capability <= UINT64_MAX // max(self.max_supply, 1), "InvalidAmount")
        self.capability, self.highest = capability, max(self.highest, capability)

    def set_supply(self, sender: Address, supply: int) -> None:
        require(sender == self.admin, "NotAdmin")
        require(supply >= len(self.tokens), "MaxSupplyBelowMinted")
        require(supply <= UINT64_MAX // self.highest, "InvalidAmount")
        self.max_supply = supply

    # --- meters ---

    def certify(self, sender: Address, meter: Address, power: int, concentrator: bool, source: int) -> None:
        require(sender == self.operator, "NotOperator")
        known = self.meters.get(meter, Meter(sender, power, concentrator, source))
        require(known.concentrator == concentrator, "ConcentratorFixed")
        self.meters[meter] = replace(known, power=power, source=source, certified=True)

    def revoke(self, sender: Address, meter: Address) -> None:
        require(sender == self.operator, "NotOperator")
        self.certified(meter).certified = False

    def register(self, sender: Address, meter: Address) -> None:
        require(self.certified(meter).prosumer in (ZERO_ADDRESS, sender), "MeterTaken")
        owner = self.owners.setdefault(sender, Owner())
        if owner.confirmed:
            self.meters[owner.meter].prosumer = ZERO_ADDRESS
        owner.meter, owner.confirmed = meter, False

    def confirm(self, sender: Address, prosumer: Address) -> None:
        owner = self.registered(prosumer)
        require(owner.meter == sender, "NotProsumersMeter")
        meter = self.certified(sender)
        require(meter.prosumer in (ZERO_ADDRESS, prosumer), "MeterTaken")
        require(not owner.confirmed, "AlreadyConfirmed")
        owner.confirmed = True
        meter.prosumer = ZERO_ADDRESS if meter.concentrator else prosumer
        self.readings[sender, prosumer] = Reading(refilled_ms=self.now, consumed_ms=self.now)

    def certified(self, meter: Address) -> Meter:
        require(meter in self.meters and self.meters[meter].certified, "MeterNotCertified")
        return self.meters[meter]

    def registered(self, prosumer: Address) -> Owner:
        owner = self.owners.get(prosumer, Owner())
        require(owner.meter != ZERO_ADDRESS, "NotRegistered")
        return owner

    # --- readings ---

    def amount(self, sender: Address, prosumer: Address, amount: int, *, produced: bool) -> None:
        """refill, or consume."""
        owner = self.speak(sender, prosumer)
        require(amount <= UINT64_MAX - (owner.produced if produced else owner.consumed), "InvalidAmount")
        power, reading = self.meters[sender].power, self.readings[sender, prosumer]
        if power:
            since = reading.refilled_ms if produced else reading.consumed_ms
            require(self.plausible(amount, power, self.now - since), "ImplausibleReading")
            setattr(reading, "refilled_ms" if produced else "consumed_ms", self.now)
        if produced:
            self.produce(owner, amount, self.meters[sender].source)
        else:
            self.consume(owner, amount)

    def report(self, sender: Address, prosumer: Address, time: int, imported: int, exported: int) -> None:
        owner = self.speak(sender, prosumer)
        last = self.readings[sender, prosumer]
        require(max(imported, exported) <= UINT64_MAX, "InvalidAmount")
        require(time > last.time, "ReadingNotNewer")
        require(time <= self.now + 60_000, "ReadingInFuture")
        bought, sold = (imported - last.imported, exported - last.exported) if last.time else (0, 0)
        require(min(bought, sold) >= 0, "RegisterRanBackwards")
        power = self.meters[sender].power
        require(not power or self.plausible(max(bought, sold), power, time - last.time), "ImplausibleReading")
        require(max(owner.consumed + bought, owner.produced + sold) <= UINT64_MAX, "InvalidAmount")
        last.time, last.imported, last.exported = time, imported, exported
        if sold:
            self.produce(owner, sold, self.meters[sender].source)
        if bought:
            self.consume(owner, bought)

    def batch(self, sender: Address, readings: list[tuple[Address, int, int, int]]) -> None:
        meter = self.meters.get(sender)
        require(meter and meter.certified and meter.concentrator, "NotConcentrator")
        for reading in readings:
            try:
                self.report(sender, *reading)
            except Refused:
                continue

    def speak(self, sender: Address, prosumer: Address) -> Owner:
        owner = self.registered(prosumer)
        require(owner.meter == sender and owner.confirmed, "NotConfirmedMeter")
        self.certified(sender)
        return owner

    @staticmethod
    def plausible(amount: int, power: int, elapsed_ms: int) -> bool:
        """Rounded up: the amount may be a part of a Wh above power x time, but not a whole one."""
        return (amount - 1) * HOUR_MS < power * elapsed_ms or amount == 0

    def produce(self, owner: Owner, amount: int, source: int) -> None:
        owner.produced += amount
        stored = self.charge(owner, [amount if each == source else 0 for each in range(6)])
        owner.stored += stored
        self.made[source] += stored

    def charge(self, owner: Owner, parts: Sequence[int]) -> int:
        """Gives what was stored of these Wh by source."""
        full, partial, empty, _ = self.touch(owner)
        amount = offered = sum(parts)
        while amount and partial + empty:
            if not partial:
                partial.append(empty.pop(0))
            token = self.tokens[partial[0]]
            room = min(amount, max(self.capability - token.energy, 0))
            stored = pro_rata(parts, room)
            token.parts, parts = plus(token.parts, stored), minus(parts, stored)
            token.energy += room
            amount -= room
            if token.energy >= self.capability:
                full.append(partial.pop(0))
        return offered - amount

    def consume(self, owner: Owner, amount: int) -> None:
        owner.consumed += amount
        covered = self.drain(owner, amount)
        owner.covered += sum(covered)
        owner.retired = plus(owner.retired, covered)

    def drain(self, owner: Owner, amount: int) -> tuple[int, ...]:
        """Gives what was covered, by source."""
        full, partial, empty, _ = self.touch(owner)
        covered = NOTHING
        while amount and full + partial:
            if not partial:
                partial.append(full.pop())
            token = self.tokens[partial[-1]]
            taken = min(amount, token.energy)
            parts = pro_rata(token.parts, taken)
            token.parts, covered = minus(token.parts, parts), plus(covered, parts)
            token.energy -= taken
            amount -= taken
            if not token.energy:
                empty.insert(0, partial.pop())
        return covered

    def touch(self, owner: Owner) -> list[list[int]]:
        """The owner's shelf by the capability of now."""
        full, partial = owner.shelf[:2]
        if self.capability > owner.capability:
            partial[:0] = full
            full.clear()
        owner.capability = self.capability
        return owner.shelf

    # --- tokens ---

    def buy_empty(self, sender: Address, count: int, value: int) -> None:
        require(count, "InvalidAmount")
        require(len(self.tokens) + count <= self.max_supply, "SupplyExhausted")
        require(value >= count * self.empty_price, "InsufficientPayment")
        for _ in range(count):
            self.tokens[len(self.tokens) + 1] = Token(sender)
            self.add(len(self.tokens))
        self.pay(sender, self.admin, count * self.empty_price)

    def offer(self, sender: Address, token_id: int, price: int, energy_price: int) -> None:
        token = self.authorised(sender, token_id)
        if not token.on_sale:
            self.move(token_id, token.owner, on_sale=True)
        token.price, token.energy_price = price, energy_price

    def cancel(self, sender: Address, token_id: int) -> None:
        token = self.authorised(sender, token_id)
        require(token.on_sale, "NotOnSale")
        self.move(token_id, token.owner, on_sale=False)

    def buy(self, sender: Address, token_id: int, min_energy: int, value: int) -> None:
        token, price = self.token(token_id), self.price(token_id)
        require(token.on_sale, "NotOnSale")
        require(token.owner != sender, "AlreadyOwner")
        require(token.energy >= min_energy, "EnergyBelowMinimum")
        require(value >= price, "InsufficientPayment")
        self.pay(sender, token.owner, price)
        self.move(token_id, sender, on_sale=False)
        token.approved = ZERO_ADDRESS

    def approve(self, sender: Address, to: Address, token_id: int) -> None:
        require(self.token(token_id).owner == sender, "ERC721InvalidApprover")
        self.tokens[token_id].approved = to

    def transfer(self, sender: Address, source: Address, to: Address, token_id: int) -> None:
        token = self.authorised(sender, token_id)
        require(token.owner == source, "ERC721IncorrectOwner")
        self.move(token_id, to, on_sale=False)
        token.approved = ZERO_ADDRESS

    def pay(self, source: Address, to: Address, amount: int) -> None:
        self.balances[source] -= amount
        self.balances[to] = self.balances.get(to, 0) + amount

    def price(self, token_id: int) -> int:
        token = self.tokens.get(token_id, Token(ZERO_ADDRESS))
        return token.price + token.energy * token.energy_price

    def token(self, token_id: int) -> Token:
        require(token_id in self.tokens, "ERC721NonexistentToken")
        return self.tokens[token_id]

    def authorised(self, sender: Address, token_id: int) -> Token:
        token = self.token(token_id)
        require(sender in (token.owner, token.approved), "ERC721InsufficientApproval")
        return token

    def move(self, token_id: int, to: Address, *, on_sale: bool) -> None:
        """Out of its region, whose last token takes the hole; those behind turn their last to the front."""
        token = self.tokens[token_id]
        shelf = self.touch(self.owners[token.owner])
        at = next(number for number, region in enumerate(shelf) if token_id in region)
        last = shelf[at].pop()
        if last != token_id:
            shelf[at][shelf[at].index(token_id)] = last
        for region in shelf[at + 1 :]:
            region[:] = region[-1:] + region[:-1]
        token.owner, token.on_sale = to, on_sale
        self.add(token_id)

    def add(self, token_id: int) -> None:
        """To the end of the region its charge demands; those behind turn their first to the end."""
        token = self.tokens[token_id]
        shelf = self.touch(self.owners.setdefault(token.owner, Owner()))
        at = 3 if token.on_sale else 0 if token.energy >= self.capability else 1 if token.energy else 2
        shelf[at].append(token_id)
        for region in shelf[at + 1 :]:
            region[:] = region[1:] + region[:1]
