"""Where energy comes from (PROTOCOL.md, S-12): how many Wh of it are from which source, exactly.

An `Origin` goes with an amount of energy. It lists the Wh from solar, wind, hydro, biomass and other sources, without
zeros at the end; what it does not list has no known source. So most origins are one integer or none, the same energy
has one form only, and the amount itself is written once, beside it.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

SOURCES: Final = ("none", "solar", "wind", "hydro", "biomass", "other")
SOURCE_MAX: Final = len(SOURCES) - 1

Origin = tuple[int, ...]
NO_ORIGIN: Final[Origin] = ()


def from_source(source: int, energy_wh: int) -> Origin:
    """All of the energy from one source."""
    return (0,) * (source - 1) + (energy_wh,) if source and energy_wh else NO_ORIGIN


def from_parts(parts: Sequence[int]) -> Origin:
    """The Wh by source, those of none first."""
    end = len(parts)
    while end > 1 and not parts[end - 1]:
        end -= 1
    return tuple(parts[1:end])


def by_source(origin: Origin, energy_wh: int) -> tuple[int, ...]:
    """The Wh of each of `SOURCES`; together they are the energy."""
    return (energy_wh - sum(origin), *origin, *(0,) * (SOURCE_MAX - len(origin)))


def add(one: Origin, other: Origin) -> Origin:
    if not one:
        return other
    if not other:
        return one
    if len(one) == len(other) == 1:
        return (one[0] + other[0],)
    return tuple([left + right for left, right in zip_longest(one, other, fillvalue=0)])


def subtract(one: Origin, part: Origin) -> Origin:
    """What is left of an origin without a part of it."""
    if not part:
        return one
    if len(one) == 1:
        return (one[0] - part[0],) if one != part else NO_ORIGIN
    return from_parts([0, *[left - right for left, right in zip_longest(one, part, fillvalue=0)]])


def share(origin: Origin, energy_wh: int, part_wh: int) -> Origin:
    """What a part of the energy, at most all of it, takes along: see `apportion`."""
    if part_wh == energy_wh or not origin:
        return origin
    if (
        len(origin) == 1
    ):  # the same rule for two sources: to the nearest Wh, half a Wh is the unknown source's
        taken = (2 * origin[0] * part_wh + energy_wh - 1) // (2 * energy_wh)
        return (taken,) if taken else NO_ORIGIN
    return from_parts(apportion((energy_wh - sum(origin), *origin), part_wh))


def apportion(wh: Sequence[int], part_wh: int) -> list[int]:
    """A part of all this energy, at most the whole: of each its share, rounded down; what is missing then, 1 Wh each,
    from those that lost most by rounding, from the first ones where they lost the same."""
    total = sum(wh)
    if part_wh == total:
        return list(wh)
    shares = [divmod(each * part_wh, total) for each in wh]
    parts = [whole for whole, _ in shares]
    missing = part_wh - sum(parts)
    for source in sorted(range(len(wh)), key=lambda source: -shares[source][1])[:missing]:
        parts[source] += 1
    return parts
