"""Bytes made of seeds by chance, where there is no coverage to guide it."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

INTERESTING: Final = bytes.fromhex(
    "00 01 1f 20 22 2c 5b 5d 7b 7d 7f 80 81 90 9f b7 b8 bf c0 c4 dc dd f7 f8 ff"
)


def mutations(seeds: Sequence[bytes], chance: Random, count: int) -> Iterator[bytes]:
    """The seeds, then `count` others."""
    yield from seeds
    for _ in range(count):
        data = bytearray(
            chance.choice(seeds)
            if seeds and chance.random() < 0.9
            else chance.randbytes(chance.randrange(80))
        )
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
            _change(data, seeds, chance)
        yield bytes(data)


def _change(data: bytearray, seeds: Sequence[bytes], chance: Random) -> None:
    at = chance.randrange(min(len(data), chance.choice((12, 10**6))) + 1)
    match chance.randrange(6):
        case 0:
            data[at : at + 1] = bytes((chance.choice(INTERESTING),))
        case 1:
            data[at:at] = bytes((chance.randrange(256),))
        case 2:
            del data[at : at + chance.choice((1, 2, 32))]
        case 3:
            data[at:at] = data[at : at + chance.choice((1, 8, 32, 200))]
        case 4 if seeds:
            other = chance.choice(seeds)
            data[at:] = other[min(at, len(other)) :]
        case _:
            if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
