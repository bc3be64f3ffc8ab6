"""Demand and supply as two stairs, and a run of prices, drawn with characters. Whole numbers in, lines out."""

from collections.abc import Sequence
from typing import Final, NamedTuple

BARS: Final = "▁▂▃▄▅▆▇█"

DEMAND: Final = "━"
SUPPLY: Final = "═"
BOTH: Final = "╬"  # where the two stairs cross or lie on each other


class Step(NamedTuple):
    """So much energy at this limit, in wei per Wh."""

    energy_wh: int
    limit: int


def stairs(
    demand: Sequence[Step], supply: Sequence[Step], *, columns: int, rows: int
) -> list[tuple[int, str]]:
    """The two stairs, a row of characters for each of so many prices, the highest first: the price of a row, and the
    row. Energy runs from the left, where nothing is traded, to the right, where all is that one side has. Demand goes
    from its highest limit down, supply from its lowest up. No rows when a side is empty."""
    most = max(_total(demand), _total(supply))
    if not _total(demand) or not _total(supply):
        return []
    wanted = _heights(sorted(demand, key=lambda step: -step.limit), most, columns)
    offered = _heights(sorted(supply, key=lambda step: step.limit), most, columns)
    prices = [price for price in (*wanted, *offered) if price is not None]
    low, high = min(prices), max(prices)
    return [
        (
            low + (high - low) * (rows - 1 - row) // max(rows - 1, 1),
            "".join(
                _cell(
                    _is_on(wanted[at], low, high, rows, row),
                    _is_on(offered[at], low, high, rows, row),
                )
                for at in range(columns)
            ).rstrip(),
        )
        for row in range(rows)
    ]


def sparkline(prices: Sequence[int]) -> str:
    """A bar for each price, from the lowest to the highest of them."""
    if not prices:
        return ""
    low, span = min(prices), max(prices) - min(prices)
    return "".join(BARS[(price - low) * (len(BARS) - 1) // span if span else 0] for price in prices)


def _total(steps: Sequence[Step]) -> int:
    return sum(step.energy_wh for step in steps)


def _heights(steps: Sequence[Step], most_wh: int, columns: int) -> list[int | None]:
    """The limit of the energy in the middle of each column; None where this side has no more."""
    heights: list[int | None] = []
    ends: list[tuple[int, int]] = []
    sum_wh = 0
    for step in steps:
        sum_wh += step.energy_wh
        ends.append((sum_wh, step.limit))
    for column in range(columns):
        middle = (2 * column + 1) * most_wh // (2 * columns)
        heights.append(next((limit for end, limit in ends if middle < end), None))
    return heights


def _is_on(price: int | None, low: int, high: int, rows: int, row: int) -> bool:
    """Whether the price lies in this row; the nearest one, the upper of two."""
    if price is None:
        return False
    if low == high:
        return row == 0
    return row == rows - 1 - (2 * (price - low) * (rows - 1) + (high - low)) // (2 * (high - low))


def _cell(is_demand: bool, is_supply: bool) -> str:
    if is_demand and is_supply:
        return BOTH
    return DEMAND if is_demand else SUPPLY if is_supply else " "
