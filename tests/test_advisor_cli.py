"""`ctt advise` against a real node, with its own past and with an indexer's."""

import asyncio
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from apps.advisor.forecast import LEAST_HOURS
from apps.advisor.series import Cleared, Metered
from apps.advisor.sources import read_auctions, read_readings
from apps.client import Client
from apps.indexer.database import connect
from apps.indexer.schema import AUCTIONS, CHAIN, READINGS
from ctt_state.units import MS_PER_HOUR, hex_of
from node.keys import create_key
from tests.cli_world import Ctt
from tests.ledger_world import OWNER_KEYS, OWNERS, document
from tests.live_node import LiveNode, free_port
from tests.test_bill_live import HOME, live_a_month, october
from tests.test_kpi_cli import write

OWNER: Final = hex_of(OWNERS[0])  # has five charged tokens
BOT: Final = Path(__file__).parent.parent / "docs" / "examples" / "bot.py"
STRANGER: Final = "0x" + "99" * 20
HOURS: Final = LEAST_HOURS + 42  # a day more, and until six in the evening
CEILING: Final = 3 * 10**14


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("advise") / "node", genesis=document()) as node:
        yield node


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "advise", one_line=True)


def make_database(file: Path) -> str:
    """A home that uses 500 Wh an hour, and auctions that are dear from six in the evening; of the node's first block."""
    readings: list[dict[str, Any]] = []
    auctions: list[dict[str, Any]] = []
    tariff = {"floor_wei_per_wh": 0, "ceiling_wei_per_wh": CEILING, "grid_fee_wei_per_wh": 0}
    for hour in range(HOURS + 1):
        place = {"height": 1, "position": hour, "item": 0, "time_ms": hour * MS_PER_HOUR}
        amounts = {"produced_wh": 0, "stored_wh": 0, "consumed_wh": 500, "covered_wh": 0}
        readings.append({"prosumer": OWNERS[0], "meter": bytes(20), **place, **amounts})
        price = CEILING * 9 // 10 if (hour - 1) % 24 >= 18 else CEILING // 2
        cleared = {"price_wei_per_wh": price, "energy_wh": 40_000, "bids": 9, "asks": 9}
        auctions.append(
            {"auction": hour + 1, "height": 1, "time_ms": hour * MS_PER_HOUR - 1, **cleared, **tariff}
        )
    url = write(f"sqlite:///{file}", {READINGS: readings, AUCTIONS: auctions}, time_ms=HOURS * MS_PER_HOUR)
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(CHAIN.update().values(height=1))
    engine.dispose()
    return url


def test_with_too_little_history_it_says_hold_and_why(ctt: Ctt, node: LiveNode) -> None:
    result = ctt(OWNER, "--rpc", node.url)

    assert (result.code, result.err) == (0, "")
    first, *reasons = result.out.splitlines()
    assert first.startswith(f"HOLD  {OWNER}, from data until block ")
    assert reasons[0] == f"  - 0 hours of readings are known, and a forecast takes {LEAST_HOURS}"
    assert reasons[1].startswith("  no track record yet")


def test_the_same_past_gives_the_same_card(ctt: Ctt, node: LiveNode, tmp_path: Path) -> None:
    flags = (OWNER, "--rpc", node.url, "--database", make_database(tmp_path / "index.db"))

    told = json.loads(ctt(*flags, "--json").out)
    card = ctt(*flags).out.splitlines()

    assert json.loads(ctt(*flags, "--json").out) == told
    assert (told["home"], told["height"]) == (OWNER, 1)
    assert (told["action"], told["energyWh"]) == ("SELL", 4_000)  # a tenth of what the auctions move
    assert 0.15 < told["limitPerKwh"] <= 0.27 and 0 < told["gainP10"] <= told["gain"] <= told["gainP90"]
    assert card[0] == f"SELL  {OWNER}, from data until block 1"
    assert card[1] == f"  4.000 kWh, limit {told['limitPerKwh']:.4f} a kWh"
    assert card[3:-1] == [f"  - {reason}" for reason in told["reasons"]]
    record = told["record"]
    assert record["days"] == 1 and 0 < record["gain"] <= record["possible"]
    assert card[-1] == f"  {record['text']}" and "followed for the last day" in record["text"]


def test_a_node_tells_what_was_metered_and_what_auctions_came_to(tmp_path: Path) -> None:
    """Forty quarter hours of a home arrive at once, and one auction clears 0.5 kWh at 0.20."""

    async def ask(url: str) -> tuple[list[Metered], list[Cleared]]:
        async with Client(url) as client:
            await live_a_month(url, items)
            auctions: list[Cleared] = []
            async with asyncio.timeout(20):
                while not auctions:
                    height = int(await client.call("eth_blockNumber"), 16)
                    auctions = await read_auctions(client, height)
            return await read_readings(client, HOME, height, 0), auctions

    items = october()[:40]
    with LiveNode(tmp_path / "node") as node:
        readings, (auction,) = asyncio.run(ask(node.url))

    assert sum(each.consumed_wh for each in readings) == items[-1][2] - items[0][2]
    assert sum(each.produced_wh for each in readings) == items[-1][3] - items[0][3] + 2_000  # a refill later
    assert readings[0].time_ms < readings[-1].time_ms < auction.time_ms
    assert auction[1:] == (2 * 10**14, 500)


def test_what_is_not_there_is_told_in_a_line(ctt: Ctt, node: LiveNode, tmp_path: Path) -> None:
    for arguments, text in (
        ((STRANGER, "--rpc", node.url), f"the chain does not know {STRANGER}"),
        ((OWNER, "--rpc", f"http://127.0.0.1:{free_port()}"), "does not answer as a node"),
        ((OWNER, "--database", f"sqlite:///{tmp_path}/none.db"), "no history in the database"),
    ):
        result = ctt(*arguments)
        assert result.code == 69 and result.out == "" and text in result.err


def test_without_its_libraries_it_says_what_to_install(ctt: Ctt, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("apps.advisor")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)

    result = ctt(OWNER)

    assert result.code == 66 and "pip install 'crypto-trading-node[advisor]'" in result.err


# --- the example bot ------------------------------------------------------------------------------------------------


def run_bot(node: LiveNode, *flags: str) -> "subprocess.CompletedProcess[str]":
    key = node.directory.parent / "owner.key"
    if not key.exists():
        create_key(key, OWNER_KEYS[0])
    return subprocess.run(
        [sys.executable, BOT, OWNER, key, "--rpc", node.url, "--dry-run", *flags],
        env=os.environ | {"PYTHONPATH": str(BOT.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_bot_does_what_is_advised(node: LiveNode, tmp_path: Path) -> None:
    ran = run_bot(node, "--database", make_database(tmp_path / "index.db"))
    assert ran.returncode == 0, ran.stderr
    action, *_, order = ran.stdout.splitlines()
    told = json.loads(order)
    assert (action, told["dryRun"]) == ("SELL", True)
    assert told["clearing"]["share"]["boughtWh"] == "0"


def test_the_bot_holds(node: LiveNode) -> None:
    ran = run_bot(node)
    assert (ran.returncode, ran.stdout.split("\n")[0]) == (0, "HOLD"), ran


@pytest.mark.parametrize(
    ("action", "energy_wh", "order"),
    [
        ("BUY_FULL", 2_500, ["market", "bid", "2.500", "0.1234", "--auctions", "4"]),
        ("SELL", 10, ["market", "ask", "0.010", "0.1234", "--auctions", "4"]),
        ("BUY_EMPTY", 10_001, ["token", "buy", "--empty", "2"]),
        ("HOLD", 0, []),
    ],
)
def test_the_bots_orders(action: str, energy_wh: int, order: list[str]) -> None:
    order_of = runpy.run_path(str(BOT))["order_of"]
    limit = 0.1234 if action in ("BUY_FULL", "SELL") else None
    assert order_of({"action": action, "energyWh": energy_wh, "limitPerKwh": limit}, 4) == order
