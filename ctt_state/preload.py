"""What genesis puts into the state besides accounts: meters, prosumers and tokens, listed or generated.

The generator makes any number of tokens from a seed, a few for each of as many prosumers as it takes, each prosumer
with a confirmed meter. Keys follow from the seed, so a benchmark can sign as any of these meters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ctt_state.crypto import address_of, sha256
from ctt_state.document import SAFE_INTEGER_MAX, Field
from ctt_state.errors import InvalidGenesis
from ctt_state.origin import SOURCE_MAX
from ctt_state.records import PAGE_TOKENS, CttConfig, Meter, Prosumer, Reading, Record, ShelfPage, Token
from ctt_state.units import ZERO_ADDRESS, Address, Ms, TokenId, Watt, Wh, hex_of

LISTED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Generator:
    """So many tokens, so many a prosumer. `is_signing` false: addresses without keys, ten times faster to make."""

    count: int
    seed: int
    tokens_per_prosumer: int
    is_signing: bool

    @property
    def prosumers(self) -> int:
        """Rounded up: the last prosumer may have fewer tokens."""
        return -(-self.count // self.tokens_per_prosumer)


@dataclass(frozen=True, slots=True)
class Preload:
    """The listed records and the generator's rule."""

    meters: dict[Address, Meter]
    prosumers: dict[Address, Address]  # to their meters
    charges: dict[Address, tuple[int, ...]]  # owner to the Wh of each of its tokens
    generator: Generator | None
    operator: Address  # has certified all meters

    def owners(self) -> dict[Address, None]:
        """Who is listed with tokens or a meter, in the order in which their tokens are numbered."""
        return {**dict.fromkeys(self.charges), **dict.fromkeys(self.prosumers)}


def read_preload(preload: Field, config: CttConfig | None, operator: Address) -> Preload:
    """The `preload` member, checked; its faults go to the document's list."""
    part = preload.members((), {"meters": [], "prosumers": [], "tokens": [], "generate": None})
    capability = config.capability_wh if config else Wh(SAFE_INTEGER_MAX)
    meters = _read_meters(part["meters"], operator)
    prosumers = _read_prosumers(part["prosumers"], meters)
    charges = _read_tokens(part["tokens"], capability)
    generator = _read_generator(part["generate"]) if part["generate"].value is not None else None
    tokens = sum(map(len, charges.values())) + (generator.count if generator else 0)
    if config is None and (meters or prosumers or tokens):
        preload.fault("needs the ctt member: there is no CTT yet")
    elif config is not None and tokens > config.max_supply:
        preload.fault(f"{tokens} tokens; the maximum supply is {config.max_supply}")
    return Preload(meters, prosumers, charges, generator, operator)


def _read_meters(listed: Field, operator: Address) -> dict[Address, Meter]:
    meters: dict[Address, Meter] = {}
    seen: dict[Address, str] = {}
    for item in listed.items(LISTED_MAX):
        part = item.members(("address",), {"source": 0, "maxPowerW": 0, "concentrator": False})
        address = part["address"].distinct(part["address"].address(), seen)
        source, power = part["source"].integer(0, SOURCE_MAX), Watt(part["maxPowerW"].integer(0))
        meters[address] = Meter(operator, source, power, part["concentrator"].boolean(), certified=True)
    return meters


def _read_prosumers(listed: Field, meters: dict[Address, Meter]) -> dict[Address, Address]:
    """Each confirmed by its meter, which is one of the listed and, unless a concentrator, serves no other."""
    prosumers: dict[Address, Address] = {}
    seen: dict[Address, str] = {}
    for item in listed.items(LISTED_MAX):
        part = item.members(("address", "meter"), {})
        address = part["address"].distinct(part["address"].address(), seen)
        prosumers[address] = part["meter"].address()
        _confirm(part["meter"], meters, prosumers[address], address)
    return prosumers


def _confirm(named: Field, meters: dict[Address, Meter], meter_address: Address, prosumer: Address) -> None:
    meter = meters.get(meter_address)
    if meter is None:
        if meter_address != ZERO_ADDRESS:
            named.fault(f"{hex_of(meter_address)} is not among the meters")
    elif meter.prosumer not in (ZERO_ADDRESS, prosumer):
        named.fault(f"{hex_of(meter_address)} already serves {hex_of(meter.prosumer)}")
    elif not meter.concentrator:
        meters[meter_address] = meter._replace(prosumer=prosumer)


def _read_tokens(listed: Field, capability_wh: Wh) -> dict[Address, tuple[int, ...]]:
    """Each owner's charges. A few bytes can ask for many tokens, so all counts together are bounded."""
    charges: dict[Address, list[int]] = {}
    total = 0
    for item in listed.items(LISTED_MAX):
        part = item.members(("owner",), {"count": 1, "energyWh": 0})
        owner, count = part["owner"].address(), part["count"].integer(1, LISTED_MAX)
        energy = part["energyWh"].integer(0, capability_wh)
        total += count
        if total > LISTED_MAX:
            listed.fault(f"more than {LISTED_MAX} tokens; use the generator")
            break
        charges.setdefault(owner, []).extend([energy] * count)
    return {owner: tuple(energies) for owner, energies in charges.items()}


def _read_generator(rule: Field) -> Generator:
    part = rule.members(("count", "seed"), {"tokensPerProsumer": 10, "signing": True})
    return Generator(
        count=part["count"].integer(1, 10**9),
        seed=part["seed"].integer(0, SAFE_INTEGER_MAX),
        tokens_per_prosumer=part["tokensPerProsumer"].integer(1, 1_000_000),
        is_signing=part["signing"].boolean(),
    )


def preload_key(seed: int, role: str, index: int) -> bytes:
    """The private key of a generated "prosumer" or "meter"."""
    return sha256(f"ctt preload {seed} {role} {index}".encode())


def preload_address(generator: Generator, role: str, index: int) -> Address:
    """The address of a generated "prosumer" or "meter"."""
    key = preload_key(generator.seed, role, index)
    return address_of(key) if generator.is_signing else Address(sha256(key)[-20:])


def listed_records(preload: Preload, config: CttConfig, time_ms: Ms) -> Iterator[tuple[bytes, Record]]:
    """Every listed record, each once. Token ids are contiguous for each owner."""
    for address, meter in preload.meters.items():
        yield Meter.key(address), meter
    next_id = 1
    for owner in preload.owners():
        meter_address = preload.prosumers.get(owner, ZERO_ADDRESS)
        energies = preload.charges.get(owner, ())
        yield from _owner_records(owner, meter_address, energies, next_id, config.capability_wh, time_ms)
        next_id += len(energies)


def check_generator(preload: Preload) -> None:
    """Makes the generated addresses when there are listed ones that they could repeat: 35 us for each prosumer with
    keys, so reading a document leaves it to whoever makes the records.

    Raises: InvalidGenesis at the first address that is listed, too.
    """
    if preload.generator is not None and (preload.meters or preload.charges):
        for _ in _generated_pairs(preload, preload.generator, range(preload.generator.prosumers)):
            pass


def generated_records(
    preload: Preload, config: CttConfig, time_ms: Ms, indexes: range
) -> Iterator[tuple[bytes, Record]]:
    """Every record of the generated prosumers with these indexes, each once; nothing without a generator. Their token
    ids follow those of the listed, so any part can be made by itself.

    Raises: InvalidGenesis when the generator comes to an address that is listed.
    """
    generator = preload.generator
    if generator is None:
        return
    listed = sum(map(len, preload.charges.values()))
    capability_wh = config.capability_wh
    for index, (owner, meter) in zip(indexes, _generated_pairs(preload, generator, indexes), strict=True):
        before = index * generator.tokens_per_prosumer
        count = min(generator.count - before, generator.tokens_per_prosumer)
        yield (
            Meter.key(meter),
            Meter(preload.operator, 1, Watt(0), concentrator=False, certified=True, prosumer=owner),
        )
        energies = _generated_charges(generator.seed, index, count, capability_wh)
        yield from _owner_records(owner, meter, energies, listed + before + 1, capability_wh, time_ms)


def _generated_pairs(
    preload: Preload, generator: Generator, indexes: range
) -> Iterator[tuple[Address, Address]]:
    """Generated prosumers, each with its meter. Raises: InvalidGenesis when one of them is listed."""
    listed = preload.owners()
    for index in indexes:
        owner, meter = (preload_address(generator, role, index) for role in ("prosumer", "meter"))
        if owner in listed or meter in preload.meters:
            raise InvalidGenesis([("$.preload.generate", f"prosumer {index} or its meter is listed, too")])
        yield owner, meter


def _generated_charges(seed: int, index: int, count: int, capability_wh: Wh) -> tuple[int, ...]:
    """Some full, the next partly charged, the others empty, by the seed."""
    draw = int.from_bytes(sha256(f"ctt charge {seed} {index}".encode())[:16], "big")
    full, partial_wh = draw % (count + 1), (draw >> 64) % capability_wh
    return (*[capability_wh] * full, *([partial_wh] + [0] * count)[: count - full])


def _owner_records(
    owner: Address, meter: Address, energies: tuple[int, ...], first_id: int, capability_wh: Wh, time_ms: Ms
) -> Iterator[tuple[bytes, Record]]:
    """A prosumer with its tokens in the order of the shelf: full, partly charged, empty."""
    ordered = sorted(energies, key=lambda energy: (energy == 0, energy < capability_wh))
    full = sum(energy >= capability_wh for energy in ordered)
    empty = ordered.count(0)
    yield (
        Prosumer.key(owner),
        Prosumer(
            meter=meter,
            confirmed=meter != ZERO_ADDRESS,
            full=full,
            partial=len(ordered) - full - empty,
            empty=empty,
            capability_wh=capability_wh,
            full_wh=Wh(sum(ordered[:full])),
            partial_wh=Wh(sum(ordered[full:])),
        ),
    )
    if meter != ZERO_ADDRESS:
        yield Reading.key(meter, owner), Reading(refilled_ms=time_ms, consumed_ms=time_ms)
    for slot, energy in enumerate(ordered):
        yield Token.key(TokenId(first_id + slot)), Token(owner, slot, Wh(energy))
    for page in range(-(-len(ordered) // PAGE_TOKENS)):
        ids = range(first_id + page * PAGE_TOKENS, first_id + min((page + 1) * PAGE_TOKENS, len(ordered)))
        yield ShelfPage.key(owner, page), ShelfPage(tuple(ids))
