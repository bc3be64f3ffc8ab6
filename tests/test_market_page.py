"""What docs/MARKET.md shows is so: its picture, its eight homes on a chain, and its commands at a node."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from node.keys import create_key
from rpc.discovery import METHODS
from tests.cli_world import Ctt
from tests.ledger_world import ALICE_KEY, BOB_KEY
from tests.live_node import LiveNode
from tests.market_world import MarketWorld
from tests.world import OPERATOR, WEALTH_WEI, address

DOCS = Path(__file__).parent.parent / "docs"
CENT = 10**13  # wei per Wh


PAGE = (DOCS / "MARKET.md").read_text()
JSON_RPC, COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


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


def test_the_commands_run_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this order, on a fresh development network; only the port differs."""
    monkeypatch.chdir(tmp_path)
    create_key(Path("ann.key"), ALICE_KEY)
    create_key(Path("ben.key"), BOB_KEY)
    ctt = Ctt(capsys, one_line=True)
    with LiveNode(tmp_path / "node") as node:
        for line in COMMANDS.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            result = ctt(*arguments, "--rpc", node.url)
            assert (program, result.code) == ("ctt", 0), (line, result)
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        script = JSON_RPC.replace("127.0.0.1:8545", f"127.0.0.1:{node.port}")
        done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=True)
        assert all(json.loads(line)["result"] for line in done.stdout.splitlines())


def test_the_methods_of_the_page_are_there() -> None:
    named = set(re.findall(r"`(ctt_\w+)", PAGE))
    assert named and named <= METHODS.keys()
