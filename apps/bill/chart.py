"""The chart of a bill's days: one bar a day, of what tokens covered, by where it came from if that is known, and of
what the grid gave; beside it what was bought where that is not known.

Geometry alone, in shares of the chart's width and height, for paper and page alike.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from apps.bill.bill import Background, Day

COLOURS: Final = {
    "covered by tokens": "#2a9d6f",
    "own production": "#2a9d6f",
    "from partners": "#6bbf9b",
    "bought in the auction": "#e2a33b",
    "from the grid": "#9db0c4",
}
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

    kinds: tuple[str, ...]
    bars: list[Bar]
    ticks: list[tuple[str, float]]
    labels: list[tuple[str, float]]


def chart_of(days: Sequence[Day], background: Background | None) -> Chart:
    """Of a period with at least one day."""
    stacks, asides = [_stack(day, background) for day in days], [_aside(day, background) for day in days]
    highest_wh = max(sum(parts.values()) for parts in [*stacks, *asides])
    step_wh = _step_wh(highest_wh)
    top_wh = step_wh * max(-(-highest_wh // step_wh), 1)
    slot = 1 / len(days)
    width = slot * (0.48 if asides[0] else 0.72)
    bars: list[Bar] = []
    for number, (stack, aside) in enumerate(zip(stacks, asides, strict=True)):
        left = (number + 0.14) * slot
        bars += _pile(stack, left, width, top_wh)
        bars += _pile(aside, left + width, slot * 0.24, top_wh)
    ticks = [(_kwh(energy_wh), energy_wh / top_wh) for energy_wh in range(0, top_wh + 1, step_wh)]
    every = -(-len(days) // LABELS_MAX)
    named = days[::every]
    labels = [
        (_name(day, before), (number * every + 0.5) * slot)
        for number, (day, before) in enumerate(zip(named, (None, *named), strict=False))
    ]
    return Chart((*stacks[0], *asides[0]), bars, ticks, labels)


def _name(day: Day, before: Day | None) -> str:
    """With its month, unless that is the one of the day named before."""
    is_known = before is not None and before.date.month == day.date.month
    return f"{day.date.day}" if is_known else f"{day.date.day} {day.date:%b}"


def _stack(day: Day, background: Background | None) -> dict[str, int]:
    """What the day's consumption was made of, from the bottom up."""
    if background is None or background.origins is None:
        return {"covered by tokens": day.covered_wh, "from the grid": day.grid_wh}
    return {
        "own production": day.own_wh,
        "from partners": day.partner_wh,
        "bought in the auction": day.auction_wh,
        "from the grid": day.grid_wh,
    }


def _aside(day: Day, background: Background | None) -> dict[str, int]:
    is_known = background is not None and background.origins is None
    return {"bought in the auction": day.bought_wh} if is_known else {}


def _pile(parts: dict[str, int], x: float, width: float, top_wh: int) -> Iterator[Bar]:
    bottom_wh = 0
    for kind, energy_wh in parts.items():
        if energy_wh:
            yield Bar(kind, x, width, bottom_wh / top_wh, energy_wh / top_wh)
        bottom_wh += energy_wh


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
