"""Who measures whom: operators certify meters, prosumers name one, the meter confirms (user story ASM).

A meter that is no concentrator serves one prosumer: the one it has confirmed. Naming a meter does not take it, so
nobody can keep another's meter from its owner.
"""

from typing import Final

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import (
    CTT,
    AlreadyConfirmed,
    ConcentratorFixed,
    InvalidMeter,
    InvalidSource,
    MeterCertified,
    MeterNotCertified,
    MeterRevoked,
    MeterTaken,
    NotOperator,
    NotProsumersMeter,
    NotRegistered,
    ProsumerConfirmed,
    ProsumerRegistered,
    config_of,
)
from ctt_state.origin import SOURCE_MAX
from ctt_state.records import ROLE_OPERATOR, Meter, Prosumer, Reading, Role
from ctt_state.units import ZERO_ADDRESS, Address, Watt

NO_METER: Final = Meter(ZERO_ADDRESS, 0, Watt(0), concentrator=False, certified=False)


@CTT.function("certifyMeter(address meter,uint8 source,uint64 maxPowerW,bool concentrator)")
def certify_meter(call: Call, meter: Address, source: int, max_power_w: Watt, concentrator: bool) -> None:
    """Certifies a meter, or changes a known one's source and power (W; 0: no plausibility limit).

    Raises: NotCreated, NotOperator, InvalidMeter, InvalidSource, ConcentratorFixed, in that order.
    """
    _check_operator(call)
    if meter == ZERO_ADDRESS:
        raise InvalidMeter(meter)
    if source > SOURCE_MAX:
        raise InvalidSource(source, SOURCE_MAX)
    known = call.get(Meter, Meter.key(meter))
    if known is not None and known.concentrator != concentrator:
        raise ConcentratorFixed(meter, known.concentrator)
    prosumer = known.prosumer if known else ZERO_ADDRESS
    call.put(Meter.key(meter), Meter(call.sender, source, max_power_w, concentrator, True, prosumer))
    call.emit(MeterCertified(meter, call.sender, source, max_power_w, concentrator))


@CTT.function("revokeMeter(address meter)")
def revoke_meter(call: Call, meter: Address) -> None:
    """From now on nothing that the meter says counts. Raises: NotCreated, NotOperator, MeterNotCertified."""
    _check_operator(call)
    known = _certified(call, meter)
    call.put(Meter.key(meter), known._replace(certified=False))
    call.emit(MeterRevoked(meter, call.sender))


@CTT.function("register(address smartMeter)")
def register(call: Call, smart_meter: Address) -> None:
    """The sender names its meter, which has yet to confirm; a meter it had before is free again.

    Raises: NotCreated, MeterNotCertified, MeterTaken, in that order.
    """
    config_of(call)
    meter = _certified(call, smart_meter)
    _check_free(meter, smart_meter, call.sender)
    key = Prosumer.key(call.sender)
    owner = call.get(Prosumer, key) or Prosumer()
    if owner.confirmed:
        _release(call, owner.meter)
    call.put(key, owner._replace(meter=smart_meter, confirmed=False))
    call.emit(ProsumerRegistered(call.sender, smart_meter))


@CTT.function("confirm(address prosumer)")
def confirm(call: Call, prosumer: Address) -> None:
    """The meter confirms the prosumer that named it; its next report is the baseline.

    Raises: NotRegistered, NotProsumersMeter, MeterNotCertified, MeterTaken, AlreadyConfirmed, in that order.
    """
    key = Prosumer.key(prosumer)
    owner = call.get(Prosumer, key)
    if owner is None or owner.meter == ZERO_ADDRESS:
        raise NotRegistered(prosumer)
    if owner.meter != call.sender:
        raise NotProsumersMeter(owner.meter, call.sender)
    meter = _certified(call, call.sender)
    _check_free(meter, call.sender, prosumer)
    if owner.confirmed:
        raise AlreadyConfirmed(prosumer)
    call.put(key, owner._replace(confirmed=True))
    if not meter.concentrator:
        call.put(Meter.key(call.sender), meter._replace(prosumer=prosumer))
    now = call.block.time_ms
    call.put(Reading.key(call.sender, prosumer), Reading(refilled_ms=now, consumed_ms=now))
    call.emit(ProsumerConfirmed(prosumer, call.sender))


@CTT.function(
    "prosumers(address prosumer) view returns (address smartMeter,bool confirmed,uint256 full,uint256 partlyCharged,"
    "uint256 empty,uint256 onSale,uint256 produced,uint256 stored,uint256 consumed,uint256 covered)"
)
def prosumers(call: Call, prosumer: Address) -> tuple[Address | int, ...]:
    """The prosumer's meter, how its tokens are charged, and its totals in Wh; all zero for an unknown one."""
    owner = call.get(Prosumer, Prosumer.key(prosumer)) or Prosumer()
    counts = (owner.full, owner.partial, owner.empty, owner.on_sale)
    totals = (owner.produced_wh, owner.stored_wh, owner.consumed_wh, owner.covered_wh)
    return (owner.meter, owner.confirmed, *counts, *totals)


@CTT.function(
    "meters(address meter) view returns (address operator,uint8 source,uint64 maxPowerW,bool concentrator,"
    "bool certified,address prosumer)"
)
def meters(call: Call, meter: Address) -> Meter:
    """What the operator certified, and the prosumer the meter has confirmed; all zero for an unknown one."""
    return call.get(Meter, Meter.key(meter)) or NO_METER


def _check_operator(call: Call) -> None:
    config_of(call)
    if call.get(Role, Role.key(ROLE_OPERATOR, call.sender)) is None:
        raise NotOperator(call.sender)


def _certified(call: Call, address: Address) -> Meter:
    meter = call.get(Meter, Meter.key(address))
    if meter is None or not meter.certified:
        raise MeterNotCertified(address)
    return meter


def _check_free(meter: Meter, address: Address, prosumer: Address) -> None:
    if meter.prosumer not in (ZERO_ADDRESS, prosumer):
        raise MeterTaken(address, meter.prosumer)


def _release(call: Call, address: Address) -> None:
    """The meter no longer serves the prosumer it had confirmed."""
    meter = call.get(Meter, Meter.key(address))
    if meter is not None and meter.prosumer != ZERO_ADDRESS:
        call.put(Meter.key(address), meter._replace(prosumer=ZERO_ADDRESS))
