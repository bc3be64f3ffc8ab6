"""What docs/MARKET.md shows is so: its picture, and its eight homes on a chain."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.market_world import MarketWorld
from tests.world import OPERATOR, WEALTH_WEI, address

DOCS = Path(__file__).parent.parent / "docs"
CENT = 10**13  # wei per Wh


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("market_picture", DOCS / "pictures" / "market.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_the_programs() -> None:
    assert (DOCS / "pictures" / "market.svg").read_text() == program().picture() + "\n"


@pytest.mark.parametrize(("rosas_wh", "doras_wh"), [(2_500, 2_500), (1_500, 1_500)])
def test_the_eight_homes_trade_as_the_page_says(rosas_wh: int, doras_wh: int) -> None:
    homes, world = program(), MarketWorld(floor=8 * CENT, ceiling=30 * CENT, grid_fee=4 * CENT)
    for home in (*homes.BIDS, *homes.ASKS):
        world.put_account(address(home.name))
        world.settle_in(address(home.name), 1, home.energy_wh if home in homes.ASKS else 0)
    for home in homes.BIDS:
        world.bid(address(home.name), home.energy_wh, home.cents * CENT)
    for home in homes.ASKS:
        energy_wh = rosas_wh if home.name == "Rosa" else home.energy_wh
        world.ask(address(home.name), energy_wh, home.cents * CENT)

    world.clear()

    bought = {"Ben": 3_000, "Cem": 2_000, "Dora": doras_wh, "Eli": 0}
    sold = {"Pia": 2_000, "Quinn": 3_000, "Rosa": rosas_wh, "Sven": 0}
    for name, energy in bought.items():
        assert world.energy(address(name)) == energy
        assert world.balance(address(name)) == WEALTH_WEI - energy * 23 * CENT
    for name, energy in sold.items():
        assert world.balance(address(name)) == WEALTH_WEI + energy * 19 * CENT
    assert world.balance(OPERATOR) == WEALTH_WEI + sum(bought.values()) * 4 * CENT
    assert world.call("auction(uint256)", 1)[:2] == (19 * CENT, sum(sold.values()))
    world.check()
