"""The picture of the worked example in docs/MARKET.md, as SVG: `PYTHONPATH=. python docs/pictures/market.py`.

Demand and supply are the stairs that the orders make; the price is the auction's own.
"""

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from ctt_state.modules.market.auction import Ask, Bid, clear


class Order(NamedTuple):
    """Who, how much in Wh, at what price in cents a kWh."""

    name: str
    energy_wh: int
    cents: int


BIDS: Final = (
    Order("Ben", 3_000, 28),
    Order("Cem", 2_000, 24),
    Order("Dora", 2_500, 20),
    Order("Eli", 4_000, 14),
)
ASKS: Final = (
    Order("Pia", 2_000, 10),
    Order("Quinn", 3_000, 16),
    Order("Rosa", 2_500, 18),
    Order("Sven", 3_000, 26),
)

FLOOR, CEILING = 8, 30
WIDTH, HEIGHT = 760, 420
LEFT, TOP, RIGHT, BOTTOM = 70, 30, 730, 360  # of the plot
MAX_WH, MAX_CENTS = 12_000, 32


def x_of(energy_wh: int) -> int:
    return LEFT + energy_wh * (RIGHT - LEFT) // MAX_WH


def y_of(cents: int) -> int:
    return BOTTOM - cents * (BOTTOM - TOP) // MAX_CENTS


def stairs(orders: Sequence[Order], colour: str, label_above: bool) -> list[str]:
    """The steps of one side, each with its name."""
    points, texts, energy = [], [], 0
    for order in orders:
        start, energy = energy, energy + order.energy_wh
        points += [f"{x_of(start)},{y_of(order.cents)}", f"{x_of(energy)},{y_of(order.cents)}"]
        middle, beside = x_of((start + energy) // 2), y_of(order.cents) + (-8 if label_above else 18)
        texts.append(
            f'<text x="{middle}" y="{beside}" text-anchor="middle" fill="{colour}">{order.name}</text>'
        )
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="3"/>'
    return [line, *texts]


def axes() -> list[str]:
    return [
        f'<path d="M{LEFT},{TOP} V{BOTTOM} H{RIGHT}" fill="none" stroke="#555"/>',
        *[
            f'<text x="{LEFT - 10}" y="{y_of(cents) + 4}" text-anchor="end">0.{cents:02}</text>'
            for cents in range(0, MAX_CENTS + 1, 4)
        ],
        *[
            f'<text x="{x_of(kwh * 1_000)}" y="{BOTTOM + 20}" text-anchor="middle">{kwh}</text>'
            for kwh in range(0, MAX_WH // 1_000 + 1, 2)
        ],
        f'<text x="{RIGHT}" y="{BOTTOM + 42}" text-anchor="end">energy, kWh</text>',
        f'<text x="{LEFT - 56}" y="{TOP - 12}">price, € a kWh</text>',
    ]


def tariff(cents: int, label: str) -> list[str]:
    """A price that no auction passes."""
    return [
        f'<path d="M{LEFT},{y_of(cents)} H{RIGHT}" stroke="#999" stroke-dasharray="2 3"/>',
        f'<text x="{RIGHT}" y="{y_of(cents) - 5}" text-anchor="end" fill="#777">{label}</text>',
    ]


def picture() -> str:
    result = clear(
        [Bid(order.energy_wh, (order.cents,)) for order in BIDS],
        [Ask(order.energy_wh, order.cents) for order in ASKS],
    )
    moved = sum(trade.energy_wh for trade in result.trades)
    x, y = x_of(moved), y_of(result.price)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"',
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *axes(),
        *tariff(FLOOR, "floor: what the operator pays"),
        *tariff(CEILING, "ceiling: what the operator asks"),
        *stairs(BIDS, "#1f5fa8", label_above=True),
        *stairs(ASKS, "#b3541e", label_above=False),
        f'<path d="M{LEFT},{y} H{x} V{BOTTOM}" fill="none" stroke="#333" stroke-dasharray="5 4"/>',
        f'<circle cx="{x}" cy="{y}" r="6" fill="#333"/>',
        f'<text x="{x + 12}" y="{y + 5}" font-weight="bold">{moved / 1_000} kWh at 0.{result.price:02} €</text>',
        f'<text x="{x_of(11_500)}" y="{y_of(14) + 20}" text-anchor="end" fill="#1f5fa8">demand</text>',
        f'<text x="{x_of(10_500) + 8}" y="{y_of(26) + 4}" fill="#b3541e">supply</text>',
        "</svg>",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(picture() + "\n")
