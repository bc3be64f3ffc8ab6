"""The workload of all benchmarks: meters that refill and consume, half and half, signed before the clock starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ctt_state.crypto import address_of, sha256
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address

GAS_LIMIT: Final = 200_000
AMOUNT_WH: Final = 250

REFILL: Final = CTT.named("refill(uint256,address)")
CONSUME: Final = CTT.named("consume(uint256,address)")


@dataclass
class BenchMeter:
    """A meter's key, the prosumer it speaks for, and its next nonce."""

    key: bytes
    prosumer: Address
    nonce: int = 0

    @property
    def address(self) -> Address:
        return address_of(self.key)


def bench_key(run: str, role: str, number: int) -> bytes:
    """A key of its own for each run, so that two runs on one chain do not meet."""
    return sha256(f"ctt bench {run} {role} {number}".encode())


def reading(meter: BenchMeter, number: int) -> bytes:
    """Calldata of the meter's reading: refill when `number` is even, else consume."""
    function = CONSUME if number % 2 else REFILL
    return function.encode_arguments(AMOUNT_WH, meter.prosumer)


def sign_readings(meters: list[BenchMeter], count: int, chain_id: int) -> Iterator[bytes]:
    """`count` signed readings, round and round the meters, each in its nonce order."""
    for number in range(count):
        meter = meters[number % len(meters)]
        yield sign_transaction(
            meter.key,
            chain_id=chain_id,
            nonce=meter.nonce,
            gas_limit=GAS_LIMIT,
            to=CTT.address,
            data=reading(meter, number // len(meters)),
        )
        meter.nonce += 1


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
