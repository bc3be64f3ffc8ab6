"""Readings: production charges a prosumer's tokens, consumption drains them (user stories REA and CEA).

`refill` and `consume` take amounts, `report` the cumulative registers a real meter shows. All check who speaks first,
then the figures, and only then change anything. What a reading may amount to is bounded by the meter's certified
power; what tokens cannot take is fed to the grid, what they cannot cover the operator bills.
"""

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
    ReadingInFuture,
    ReadingNotNewer,
    ReadingRejected,
    RegisterRanBackwards,
    config_of,
    supply_of,
)
from ctt_state.modules.ctt.shelf import refresh, token_at
from ctt_state.records import CttSupply, Meter, Prosumer, Reading, Token
from ctt_state.units import MS_PER_HOUR, UINT64_MAX, ZERO_ADDRESS, Address, Ms, Watt, Wh
from ctt_state.view import OutOfGas

CLOCK_AHEAD_MAX_MS: Final = 60_000  # of a reading against its block
TOKENS_PER_READING_MAX: Final = 256  # charged or drained by one reading


class Shelf(NamedTuple):
    """The part of a prosumer that charging and draining change, and what they moved."""

    owner: Prosumer
    moved_wh: Wh


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
    return _produce(call, prosumer, owner, amount)


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
    stored = _produce(call, prosumer, owner, exported) if exported else Wh(0)
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


def _produce(call: Call, prosumer: Address, owner: Prosumer, amount: Wh) -> Wh:
    shelf = charge(call, prosumer, refresh(owner, config_of(call).capability_wh), amount)
    stored = shelf.moved_wh
    call.put(
        Prosumer.key(prosumer),
        shelf.owner._replace(
            produced_wh=Wh(owner.produced_wh + amount), stored_wh=Wh(owner.stored_wh + stored)
        ),
    )
    if stored:
        last_id, energy, refilled, covered = supply_of(call)
        call.put(CttSupply.key(), CttSupply(last_id, Wh(energy + stored), Wh(refilled + stored), covered))
    call.emit(EnergyRefilled(prosumer, call.sender, amount, stored))
    return stored


def _consume(call: Call, prosumer: Address, owner: Prosumer, amount: Wh) -> Wh:
    shelf = drain(call, prosumer, refresh(owner, config_of(call).capability_wh), amount)
    covered = shelf.moved_wh
    call.put(
        Prosumer.key(prosumer),
        shelf.owner._replace(
            consumed_wh=Wh(owner.consumed_wh + amount), covered_wh=Wh(owner.covered_wh + covered)
        ),
    )
    if covered:
        last_id, energy, refilled, drained = supply_of(call)
        call.put(CttSupply.key(), CttSupply(last_id, Wh(energy - covered), refilled, Wh(drained + covered)))
    call.emit(EnergyConsumed(prosumer, call.sender, amount, covered))
    return covered


def charge(call: Call, address: Address, owner: Prosumer, amount: Wh) -> Shelf:
    """Fills the token behind the full ones until the amount or the room is used up. Moves borders, not tokens."""
    full, partial, empty = owner.full, owner.partial, owner.empty
    full_wh, partial_wh, capability = int(owner.full_wh), int(owner.partial_wh), owner.capability_wh
    left = int(amount)
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
            left -= room
            partial_wh += room
            call.put(key, token._replace(energy_wh=energy))
            call.emit(MetadataUpdate(token_id))
        if energy >= capability:
            full, partial = full + 1, partial - 1
            full_wh, partial_wh = full_wh + energy, partial_wh - energy
    changed = owner._replace(
        full=full, partial=partial, empty=empty, full_wh=Wh(full_wh), partial_wh=Wh(partial_wh)
    )
    return Shelf(changed, Wh(amount - left))


def drain(call: Call, address: Address, owner: Prosumer, amount: Wh) -> Shelf:
    """Empties the token before the empty ones until the amount or the energy is used up. Moves borders, not tokens."""
    full, partial, empty = owner.full, owner.partial, owner.empty
    full_wh, partial_wh = int(owner.full_wh), int(owner.partial_wh)
    left = int(amount)
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
        energy = Wh(token.energy_wh - taken)
        left -= taken
        partial_wh -= taken
        call.put(key, token._replace(energy_wh=energy))
        call.emit(MetadataUpdate(token_id))
        if not energy:
            partial, empty = partial - 1, empty + 1
    changed = owner._replace(
        full=full, partial=partial, empty=empty, full_wh=Wh(full_wh), partial_wh=Wh(partial_wh)
    )
    return Shelf(changed, Wh(amount - left))


def drainable(call: Call, address: Address, owner: Prosumer, amount: Wh, tokens_max: int) -> Wh:
    """How much of the amount `drain` takes from at most so many tokens; `owner` is refreshed. An owner of no more
    tokens than that costs no read."""
    charged = owner.full + owner.partial
    if charged <= tokens_max:
        return Wh(min(amount, owner.full_wh + owner.partial_wh))
    found = 0
    for slot in range(charged - 1, charged - 1 - tokens_max, -1):
        if found >= amount:
            break
        found += _token(call, Token.key(token_at(call, address, slot))).energy_wh
    return Wh(min(amount, found))


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


def _spare_wh(owner: Prosumer) -> int:
    return max((owner.partial + owner.empty) * owner.capability_wh - owner.partial_wh, 0)


def _token(call: Call, key: bytes) -> Token:
    token = call.get(Token, key)
    if token is None:
        raise AssertionError(f"a shelf names a token that does not exist: 0x{key.hex()}")
    return token
