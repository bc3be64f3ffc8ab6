"""Readings: production charges a prosumer's tokens, consumption drains them (user stories REA and CEA).

`refill` and `consume` take amounts, `report` the cumulative registers a real meter shows. All check who speaks first,
then the figures, and only then change anything. What a reading may amount to is bounded by the meter's certified
power; what tokens cannot take is fed to the grid, what they cannot cover the operator bills.

Energy keeps its origin (S-12): the meter's source when it is stored, retired once when it is consumed.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ctt_state.abi import Revert
from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import (
    CTT,
    EnergyConsumed,
    EnergyRefilled,
    ImplausibleReading,
    InvalidAmount,
    MetadataUpdate,
    MeterNotCertified,
    NotConcentrator,
    NotConfirmedMeter,
    NotRegistered,
    OriginRetired,
    ReadingInFuture,
    ReadingNotNewer,
    ReadingRejected,
    RegisterRanBackwards,
    config_of,
    supply_of,
    token_of,
)
from ctt_state.modules.ctt.shelf import refresh, token_at
from ctt_state.origin import NO_ORIGIN, Origin, add, by_source, from_parts, from_source, share, subtract
from ctt_state.records import CttSupply, Meter, Prosumer, Reading, Token
from ctt_state.units import MS_PER_HOUR, UINT64_MAX, ZERO_ADDRESS, Address, Ms, TokenId, Watt, Wh
from ctt_state.view import OutOfGas

CLOCK_AHEAD_MAX_MS: Final = 60_000  # of a reading against its block
TOKENS_PER_READING_MAX: Final = 256  # charged or drained by one reading


class Shelf(NamedTuple):
    """The part of a prosumer that charging and draining change, and what they moved."""

    owner: Prosumer
    moved_wh: Wh
    origin: Origin  # of what was moved


_BY_SOURCE: Final = "uint256 none,uint256 solar,uint256 wind,uint256 hydro,uint256 biomass,uint256 other"


@CTT.function("refill(uint256 amount,address prosumer) returns (uint256 stored)")
@CTT.function("recharge(uint256 amount,address prosumer) returns (uint256 stored)")
def refill(call: Call, amount: Wh, prosumer: Address) -> Wh:
    """Stores measured production (Wh) in the prosumer's tokens; returns the Wh stored.

    Raises: NotRegistered, NotConfirmedMeter, MeterNotCertified, InvalidAmount, ImplausibleReading, in that order.
    """
    owner, meter = _check_meter(call, prosumer)
    _check_total(amount, owner.produced_wh)
    if meter.max_power_w:
        _count_reading(call, prosumer, meter.max_power_w, amount, produced=True)
    return _produce(call, prosumer, owner, amount, meter.source)


@CTT.function("consume(uint256 maxAmount,address prosumer) returns (uint256 covered)")
def consume(call: Call, max_amount: Wh, prosumer: Address) -> Wh:
    """Covers measured consumption (Wh) from the prosumer's tokens; returns the Wh covered, the operator bills the rest.

    Raises: NotRegistered, NotConfirmedMeter, MeterNotCertified, InvalidAmount, ImplausibleReading, in that order.
    """
    owner, meter = _check_meter(call, prosumer)
    _check_total(max_amount, owner.consumed_wh)
    if meter.max_power_w:
        _count_reading(call, prosumer, meter.max_power_w, max_amount, produced=False)
    return _consume(call, prosumer, owner, max_amount)


@CTT.function(
    "report(address prosumer,uint64 readingTime,uint256 importTotal,uint256 exportTotal)"
    " returns (uint256 stored,uint256 covered)"
)
def report(
    call: Call, prosumer: Address, reading_time: Ms, import_total: Wh, export_total: Wh
) -> tuple[Wh, Wh]:
    """Takes the registers of a real meter (OBIS 1.8.0 and 2.8.0, Wh; time in ms) and counts what they grew by.

    The first reading since the meter confirmed the prosumer is the baseline. Export is stored before import is
    covered. A lost reading is made up by the next, a repeated one reverts and so does no harm.

    Raises: NotRegistered, NotConfirmedMeter, MeterNotCertified, InvalidAmount, ReadingNotNewer, ReadingInFuture,
    RegisterRanBackwards, ImplausibleReading, InvalidAmount for the prosumer's totals, in that order; import before
    export.
    """
    owner, meter = _check_meter(call, prosumer)
    key = Reading.key(call.sender, prosumer)
    last = call.get(Reading, key) or Reading()
    for total in (import_total, export_total):
        if total > UINT64_MAX:
            raise InvalidAmount(total, 0, UINT64_MAX)
    if reading_time <= last.time_ms:
        raise ReadingNotNewer(last.time_ms, reading_time)
    if reading_time > call.block.time_ms + CLOCK_AHEAD_MAX_MS:
        raise ReadingInFuture(call.block.time_ms, reading_time)

    imported = exported = Wh(0)
    if last.time_ms:
        for before, now in ((last.import_wh, import_total), (last.export_wh, export_total)):
            if now < before:
                raise RegisterRanBackwards(before, now)
        imported, exported = Wh(import_total - last.import_wh), Wh(export_total - last.export_wh)
        for amount in (imported, exported):
            _check_plausible(amount, meter.max_power_w, Ms(reading_time - last.time_ms))
        _check_total(imported, owner.consumed_wh)
        _check_total(exported, owner.produced_wh)

    # Nothing below refuses.
    call.put(key, last._replace(time_ms=reading_time, import_wh=import_total, export_wh=export_total))
    stored = _produce(call, prosumer, owner, exported, meter.source) if exported else Wh(0)
    if not imported:
        return stored, Wh(0)
    owner = call.get(Prosumer, Prosumer.key(prosumer)) or owner
    return stored, _consume(call, prosumer, owner, imported)


@CTT.function(
    "reportBatch((address prosumer,uint64 readingTime,uint256 importTotal,uint256 exportTotal)[] readings)"
    " returns (uint256 accepted)"
)
def report_batch(call: Call, readings: tuple[tuple[Address, Ms, Wh, Wh], ...]) -> int:
    """A concentrator's `report` for many prosumers at once. Each stands alone: one that is refused leaves nothing
    but `ReadingRejected(index, reason)`, where reason is its ABI error. Returns how many were taken.

    Raises: NotConcentrator, and OutOfGas for all of them together.
    """
    meter = call.get(Meter, Meter.key(call.sender))
    if meter is None or not (meter.certified and meter.concentrator):
        raise NotConcentrator(call.sender)
    accepted = 0
    for index, reading in enumerate(readings):
        before = call.view.checkpoint()
        try:
            report(call, *reading)
            accepted += 1
        except OutOfGas:
            raise
        except Revert as refusal:
            call.view.revert(before)
            call.emit(ReadingRejected(index, refusal.data))
    return accepted


@CTT.function("energyOf(address owner) view returns (uint256 stored,uint256 spare)")
def energy_of(call: Call, owner: Address) -> tuple[int, int]:
    """The Wh in the owner's tokens that are not on sale, and the Wh that these could still take.

    After the capability was lowered, a partly charged token may hold more than it; until a refill comes to it, its
    excess lowers `spare`, never below zero.
    """
    shelf = refresh(call.get(Prosumer, Prosumer.key(owner)) or Prosumer(), config_of(call).capability_wh)
    return shelf.full_wh + shelf.partial_wh, _spare_wh(shelf)


@CTT.function(
    "lastReading(address prosumer) view returns (uint64 readingTime,uint256 importTotal,uint256 exportTotal)"
)
def last_reading(call: Call, prosumer: Address) -> tuple[int, int, int]:
    """The registers its meter last reported; all zero before the baseline."""
    owner = call.get(Prosumer, Prosumer.key(prosumer)) or Prosumer()
    reading = call.get(Reading, Reading.key(owner.meter, prosumer)) or Reading()
    return reading.time_ms, reading.import_wh, reading.export_wh


@CTT.function(f"originOf(uint256 tokenId) view returns ({_BY_SOURCE})")
def origin_of(call: Call, token_id: TokenId) -> tuple[int, ...]:
    """The Wh in the token by source. Raises: ERC721NonexistentToken."""
    token = token_of(call, token_id)
    return by_source(token.origin, token.energy_wh)


@CTT.function(f"retiredOf(address owner) view returns ({_BY_SOURCE})")
def retired_of(call: Call, owner: Address) -> tuple[int, ...]:
    """What tokens ever covered of the owner's consumption, by source."""
    prosumer = call.get(Prosumer, Prosumer.key(owner)) or Prosumer()
    return by_source(prosumer.retired, prosumer.covered_wh)


@CTT.function(f"totalOrigin() view returns (({_BY_SOURCE}) stored,({_BY_SOURCE}) retired)")
def total_origin(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The Wh in all tokens, and what tokens ever covered, by source."""
    supply = supply_of(call)
    return by_source(supply.origin, supply.energy_wh), by_source(supply.retired, supply.covered_wh)


def _check_meter(call: Call, prosumer: Address) -> tuple[Prosumer, Meter]:
    """Only the prosumer's confirmed meter may speak, while it is certified (OSMP)."""
    owner = call.get(Prosumer, Prosumer.key(prosumer))
    if owner is None or owner.meter == ZERO_ADDRESS:
        raise NotRegistered(prosumer)
    if owner.meter != call.sender or not owner.confirmed:
        raise NotConfirmedMeter(prosumer, call.sender)
    meter = call.get(Meter, Meter.key(call.sender))
    if meter is None or not meter.certified:
        raise MeterNotCertified(call.sender)
    return owner, meter


def _check_total(amount: Wh, total_wh: Wh) -> None:
    """The prosumer's running total must go on fitting 64 bits."""
    if amount > UINT64_MAX - total_wh:
        raise InvalidAmount(amount, 0, UINT64_MAX - total_wh)


def _check_plausible(amount: Wh, max_power_w: Watt, elapsed_ms: Ms) -> None:
    """At most the certified power over the time, rounded up to whole Wh; 0 W certified is no limit."""
    limit = -(-max_power_w * elapsed_ms // MS_PER_HOUR)
    if max_power_w and amount > limit:
        raise ImplausibleReading(amount, limit)


def _count_reading(call: Call, prosumer: Address, max_power_w: Watt, amount: Wh, *, produced: bool) -> None:
    """Refuses an amount that the certified power cannot make in the time since the last one of its direction."""
    key = Reading.key(call.sender, prosumer)
    reading = call.get(Reading, key) or Reading()
    since = reading.refilled_ms if produced else reading.consumed_ms
    _check_plausible(amount, max_power_w, Ms(call.block.time_ms - since))
    now = call.block.time_ms
    call.put(key, reading._replace(refilled_ms=now) if produced else reading._replace(consumed_ms=now))


def _produce(call: Call, prosumer: Address, owner: Prosumer, amount: Wh, source: int) -> Wh:
    shelf = refresh(owner, config_of(call).capability_wh)
    changed, stored, origin = charge(call, prosumer, shelf, amount, from_source(source, amount))
    call.put(Prosumer.key(prosumer), changed.with_production(amount, stored))
    if stored:
        last_id, energy, refilled, covered, held, retired = supply_of(call)
        totals = Wh(energy + stored), Wh(refilled + stored), covered
        call.put(CttSupply.key(), CttSupply(last_id, *totals, add(held, origin), retired))
    call.emit(EnergyRefilled(prosumer, call.sender, amount, stored))
    return stored


def _consume(call: Call, prosumer: Address, owner: Prosumer, amount: Wh) -> Wh:
    shelf = refresh(owner, config_of(call).capability_wh)
    changed, covered, origin = drain(call, prosumer, shelf, amount)
    call.put(Prosumer.key(prosumer), changed.with_consumption(amount, covered, origin))
    if covered:
        last_id, energy, refilled, drained, held, retired = supply_of(call)
        totals = Wh(energy - covered), refilled, Wh(drained + covered)
        call.put(CttSupply.key(), CttSupply(last_id, *totals, subtract(held, origin), add(retired, origin)))
    call.emit(EnergyConsumed(prosumer, call.sender, amount, covered))
    for source, retired_wh in enumerate(origin, 1):
        if retired_wh:
            call.emit(OriginRetired(prosumer, source, retired_wh))
    return covered


def charge(call: Call, address: Address, owner: Prosumer, amount: Wh, origin: Origin) -> Shelf:
    """Fills the token behind the full ones until the amount, of this origin, or the room is used up. Moves borders,
    not tokens."""
    full, partial, empty = owner.full, owner.partial, owner.empty
    full_wh, partial_wh, capability = int(owner.full_wh), int(owner.partial_wh), owner.capability_wh
    left, rest = int(amount), origin
    for _ in range(TOKENS_PER_READING_MAX):
        if not left or not partial + empty:
            break
        token_id = token_at(call, address, full)
        key = Token.key(token_id)
        token = _token(call, key)
        if not partial:
            partial, empty = 1, empty - 1
        room = min(left, max(capability - token.energy_wh, 0))
        energy = Wh(token.energy_wh + room)
        if room:
            part = share(rest, left, room)
            left, rest = left - room, subtract(rest, part)
            partial_wh += room
            call.put(key, token.with_energy(energy, add(token.origin, part)))
            call.emit(MetadataUpdate(token_id))
        if energy >= capability:
            full, partial = full + 1, partial - 1
            full_wh, partial_wh = full_wh + energy, partial_wh - energy
    changed = owner.with_charges(full, partial, empty, Wh(full_wh), Wh(partial_wh))
    return Shelf(changed, Wh(amount - left), subtract(origin, rest))


def drain(call: Call, address: Address, owner: Prosumer, amount: Wh) -> Shelf:
    """Empties the token before the empty ones until the amount or the energy is used up. Moves borders, not tokens."""
    full, partial, empty = owner.full, owner.partial, owner.empty
    full_wh, partial_wh = int(owner.full_wh), int(owner.partial_wh)
    left, origin = int(amount), NO_ORIGIN
    for _ in range(TOKENS_PER_READING_MAX):
        if not left or not full + partial:
            break
        token_id = token_at(call, address, full + partial - 1)
        key = Token.key(token_id)
        token = _token(call, key)
        if not partial:
            full, partial = full - 1, 1
            full_wh, partial_wh = full_wh - token.energy_wh, partial_wh + token.energy_wh
        taken = min(left, token.energy_wh)
        part = share(token.origin, token.energy_wh, taken)
        origin = add(origin, part)
        energy = Wh(token.energy_wh - taken)
        left -= taken
        partial_wh -= taken
        call.put(key, token.with_energy(energy, subtract(token.origin, part)))
        call.emit(MetadataUpdate(token_id))
        if not energy:
            partial, empty = partial - 1, empty + 1
    changed = owner.with_charges(full, partial, empty, Wh(full_wh), Wh(partial_wh))
    return Shelf(changed, Wh(amount - left), origin)


def sell(call: Call, address: Address, owner: Prosumer, offered: Wh, parts: Sequence[int]) -> Shelf:
    """`drain` of these Wh by source, a part of what `offer` told of the amount `offered`. If a drain takes others, what
    stays in the tokens that held the offer is mixed anew among them."""
    shelf, sold = drain(call, address, owner, Wh(sum(parts))), from_parts(parts)
    if shelf.origin != sold:
        unsold = Wh(offered - shelf.moved_wh)
        holding = [*_takings(call, address, shelf.owner, unsold, TOKENS_PER_READING_MAX)]
        _mix(call, [(token_id, token) for token_id, token, _ in holding], shelf.origin, sold)
    return shelf._replace(origin=sold)


def offer(call: Call, address: Address, owner: Prosumer, amount: Wh, tokens_max: int) -> tuple[int, ...]:
    """How much of the amount `drain` takes from at most so many tokens, by source; `owner` is refreshed."""
    found, origin = 0, NO_ORIGIN
    for _, token, taken in _takings(call, address, owner, amount, tokens_max):
        found += taken
        origin = add(origin, share(token.origin, token.energy_wh, taken))
    return by_source(origin, found)


def chargeable(call: Call, address: Address, owner: Prosumer, amount: Wh, tokens_max: int) -> Wh:
    """How much of the amount `charge` stores in at most so many tokens, never too much (see `energyOf`); `owner` is
    refreshed. An owner of no more tokens than that costs no read."""
    if owner.partial + owner.empty <= tokens_max:
        return Wh(min(amount, _spare_wh(owner)))
    found, border = 0, owner.full + owner.partial
    for slot in range(owner.full, owner.full + tokens_max):
        if found >= amount:
            break
        is_partial = slot < border
        energy = _token(call, Token.key(token_at(call, address, slot))).energy_wh if is_partial else Wh(0)
        found += max(owner.capability_wh - energy, 0)
    return Wh(min(amount, found))


def _takings(
    call: Call, address: Address, owner: Prosumer, amount: Wh, tokens_max: int
) -> Iterator[tuple[TokenId, Token, int]]:
    """The tokens that `drain` would take the amount from, with what it would take of each."""
    charged, left = owner.full + owner.partial, int(amount)
    for slot in range(charged - 1, max(charged - tokens_max, 0) - 1, -1):
        if not left:
            return
        token_id = token_at(call, address, slot)
        token = _token(call, Token.key(token_id))
        taken = min(left, token.energy_wh)
        left -= taken
        yield token_id, token, taken


def _mix(call: Call, tokens: list[tuple[TokenId, Token]], taken: Origin, sold: Origin) -> None:
    """Gives these tokens back what was taken and takes what was sold, as much of either; each gets its share."""
    left, origin = sum([int(token.energy_wh) for _, token in tokens]), taken
    for _, token in tokens:
        origin = add(origin, token.origin)
    origin = subtract(origin, sold)
    for token_id, token in tokens:
        part = share(origin, left, token.energy_wh)
        left, origin = left - token.energy_wh, subtract(origin, part)
        if part != token.origin:
            call.put(Token.key(token_id), token.with_energy(token.energy_wh, part))
            call.emit(MetadataUpdate(token_id))


def _spare_wh(owner: Prosumer) -> int:
    return max((owner.partial + owner.empty) * owner.capability_wh - owner.partial_wh, 0)


def _token(call: Call, key: bytes) -> Token:
    token = call.get(Token, key)
    if token is None:
        raise AssertionError(f"a shelf names a token that does not exist: 0x{key.hex()}")
    return token
