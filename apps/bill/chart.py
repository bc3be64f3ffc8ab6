"""The chart of a bill's days: one bar a day, of what tokens covered and what the grid gave; beside it what was bought.

Geometry alone, in shares of the chart's width and height, for paper and page alike.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from apps.bill.bill import Day

COLOURS: Final = {"covered": "#2a9d6f", "grid": "#9db0c4", "bought": "#e2a33b"}
INK: Final = "#1f2d3d"
FAINT: Final = "#d9e0e8"
TICKS_MAX: Final = 5
LABELS_MAX: Final = 16  # of days below the bars


class Bar(NamedTuple):
    """A rectangle; y grows upwards from the axis."""

    kind: str
    x: float
    width: float
    bottom: float
    height: float


class Chart(NamedTuple):
    """Bars, the kWh that each line across stands for, and which days are named where."""

    bars: list[Bar]
    ticks: list[tuple[str, float]]
    labels: list[tuple[str, float]]


def chart_of(days: Sequence[Day], *, has_purchases: bool) -> Chart:
    """Of a period with at least one day."""
    step_wh = _step_wh(max(max(day.consumed_wh, day.bought_wh) for day in days))
    top_wh = step_wh * max(-(-max(max(day.consumed_wh, day.bought_wh) for day in days) // step_wh), 1)
    slot = 1 / len(days)
    bars = [
        bar
        for number, day in enumerate(days)
        for bar in _bars(day, number * slot, slot, top_wh, has_purchases=has_purchases)
        if bar.height
    ]
    ticks = [(_kwh(energy_wh), energy_wh / top_wh) for energy_wh in range(0, top_wh + 1, step_wh)]
    every = -(-len(days) // LABELS_MAX)
    labels = [
        (
            f"{day.date.day}" if number and day.date.day != 1 else f"{day.date.day} {day.date:%b}",
            (number + 0.5) * slot,
        )
        for number, day in enumerate(days)
        if number % every == 0
    ]
    return Chart(bars, ticks, labels)


def _bars(day: Day, left: float, slot: float, top_wh: int, *, has_purchases: bool) -> Iterator[Bar]:
    width = slot * (0.48 if has_purchases else 0.72)
    x = left + slot * 0.14
    covered, grid = day.covered_wh / top_wh, day.grid_wh / top_wh
    yield Bar("covered", x, width, 0.0, covered)
    yield Bar("grid", x, width, covered, grid)
    yield Bar("bought", x + width, slot * 0.24, 0.0, day.bought_wh / top_wh)


def _step_wh(highest_wh: int) -> int:
    """1, 2 or 5 times a power of ten, such that few lines reach the top."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if highest_wh <= factor * step * TICKS_MAX:
                return factor * step
        step *= 10


def _kwh(energy_wh: int) -> str:
    text = f"{energy_wh // 1_000}.{energy_wh % 1_000:03}".rstrip("0").rstrip(".")
    return text or "0"
