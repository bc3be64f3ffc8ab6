"""What a transaction told of a prosumer's meter: out of its calldata and its logs, which receipts prove.

The logs say how much was counted and what tokens took or gave, the calldata of `report` and `reportBatch` says when.
A reading that grew by nothing, and the first of a meter, change nothing: they are no readings here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ctt_state.abi import MalformedCalldata, decode_values, parse_params
from ctt_state.block import Log
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import EnergyConsumed, EnergyRefilled, ReadingRejected
from ctt_state.units import Address

_AMOUNTS: Final = parse_params("uint256,uint256")
_REPORT: Final = CTT.named("report(address,uint64,uint256,uint256)")
_BATCH: Final = CTT.named("reportBatch((address,uint64,uint256,uint256)[])")
_AT_ONCE: Final = frozenset(
    CTT.named(signature).selector
    for signature in ("refill(uint256,address)", "recharge(uint256,address)", "consume(uint256,address)")
)


class Unexplained(ValueError):
    """The logs of a transaction are not those that its calldata brings about."""


class Place(NamedTuple):
    """Where a reading stands in the chain: block, transaction in it, item in a batch."""

    height: int
    transaction: int
    item: int = 0


class Reading(NamedTuple):
    """What a meter counted up to `time_ms` since the reading before, in Wh."""

    time_ms: int
    place: Place
    meter: Address
    produced_wh: int = 0
    stored_wh: int = 0
    consumed_wh: int = 0
    covered_wh: int = 0

    @property
    def grid_wh(self) -> int:
        """What tokens did not cover: the operator bills it."""
        return self.consumed_wh - self.covered_wh


class _Counted(NamedTuple):
    """One log of a meter: what it counted, and what of it tokens took or gave."""

    is_production: bool
    meter: Address
    counted_wh: int
    moved_wh: int


def readings_of(
    prosumer: Address, calldata: bytes, logs: Sequence[Log], place: Place, block_time_ms: int
) -> list[Reading]:
    """The prosumer's readings that this transaction to the CTT brought, in order. Raises: Unexplained."""
    counted = _counted(prosumer, logs)
    if not counted:
        return []
    selector = calldata[:4]
    if selector in _AT_ONCE:
        return [_reading(block_time_ms, place, counted)]
    try:
        if selector == _REPORT.selector:
            time_ms = _REPORT.decode_arguments(calldata)[1]
            return [_reading(time_ms, place, counted)]
        if selector == _BATCH.selector:
            (items,) = _BATCH.decode_arguments(calldata)
            return _of_batch(prosumer, items, logs, counted, place)
    except MalformedCalldata as fault:
        raise Unexplained(str(fault)) from None
    raise Unexplained(f"function 0x{selector.hex()} counts no energy")


def _counted(prosumer: Address, logs: Sequence[Log]) -> list[_Counted]:
    found = []
    for log in logs:
        is_ours = log.address == CTT.address and log.topics[0] in (EnergyRefilled.topic, EnergyConsumed.topic)
        if is_ours and log.topics[1][12:] == prosumer:
            counted, moved = decode_values(_AMOUNTS, log.data)
            if counted:
                meter = Address(log.topics[2][12:])
                found.append(_Counted(log.topics[0] == EnergyRefilled.topic, meter, counted, moved))
    return found


def _of_batch(
    prosumer: Address,
    items: Sequence[tuple[Address, int, int, int]],
    logs: Sequence[Log],
    counted: list[_Counted],
    place: Place,
) -> list[Reading]:
    """Which item of a batch brought which logs. An item after another of the same prosumer counts what its registers
    show more than that one; what then is left, the first has brought."""
    rejected = {
        int.from_bytes(log.topics[1], "big")
        for log in logs
        if log.address == CTT.address and log.topics[0] == ReadingRejected.topic
    }
    taken = [
        (index, item) for index, item in enumerate(items) if item[0] == prosumer and index not in rejected
    ]
    left, found = list(counted), []
    for at in range(len(taken) - 1, -1, -1):
        index, (_, time_ms, imported, exported) = taken[at]
        if at:
            _, _, import_before, export_before = taken[at - 1][1]
            count = (imported > import_before) + (exported > export_before)
            brought = left[len(left) - count :]
        else:
            brought = left
        if brought:
            found.append(_reading(time_ms, place._replace(item=index), brought))
        left = left[: len(left) - len(brought)]
    if left:
        raise Unexplained(f"{len(counted)} logs of {len(taken)} readings")
    return found[::-1]


def _reading(time_ms: int, place: Place, counted: Sequence[_Counted]) -> Reading:
    """Raises: Unexplained when there is more than one production, or one consumption."""
    reading = Reading(time_ms, place, counted[0].meter)
    kinds = [each.is_production for each in counted]
    if len(set(kinds)) != len(kinds):
        raise Unexplained(f"{len(kinds)} logs of one reading")
    for each in counted:
        if each.is_production:
            reading = reading._replace(produced_wh=each.counted_wh, stored_wh=each.moved_wh)
        else:
            reading = reading._replace(consumed_wh=each.counted_wh, covered_wh=each.moved_wh)
    return reading
