"""Bills of a live node: a month and a change of clocks through a concentrator, two real weeks, the page as written."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from apps.bill import collect
from apps.bill.period import month
from apps.client import Client, Wallet
from apps.demo.street import TREASURER_KEY
from apps.meter.greenbutton import read_espi, registers
from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.units import Address, hex_of
from tests.cli_world import Ctt, Result
from tests.live_node import GENESIS, LiveNode
from tests.rpc_world import private_key
from tests.test_bill import BERLIN, DECK

ROOT: Final = Path(__file__).parent.parent
CHAIN_ID: Final = 7_788
EPOCH_BLOCKS: Final = 15
BATCH_ITEMS: Final = 150
HOUR_MS: Final = 3_600_000
HOME_KEY, WEEKS_KEY, METER_KEY = (private_key(f"bill {name}") for name in ("home", "weeks", "meter"))
HOME, WEEKS, METER = (address_of(key) for key in (HOME_KEY, WEEKS_KEY, METER_KEY))
OCTOBER: Final = month(2026, 10, BERLIN)
Item = tuple[Address, int, int, int]


class Live(NamedTuple):
    """A node with a month of readings, and the tariff of the page."""

    node: LiveNode
    directory: Path
    weeks: list[tuple[int, int]]  # of the real home: time and register


def october() -> list[Item]:
    """Registers each hour, from an hour before the month until an hour after it: 400 Wh an hour, and sun at noon."""
    items, imported, exported = [], 1_000_000, 0
    for time_ms in range(OCTOBER.start_ms - HOUR_MS, OCTOBER.end_ms + HOUR_MS + 1, HOUR_MS):
        items.append((HOME, time_ms, imported, exported))
        imported += 400
        exported += 1_500 if (time_ms // HOUR_MS) % 24 in (10, 11, 12) else 0
    return items


def real_weeks(folder: Path) -> list[tuple[int, int]]:
    intervals = [each for path in sorted(folder.glob("day_*.xml")) for each in read_espi(path.read_bytes())]
    return [(reading.time_ms, reading.import_wh) for reading in registers(intervals, None)]


async def live_a_month(url: str, items: Sequence[Item]) -> None:
    """The concentrator is certified, the homes register, it confirms and reports; the homes trade once."""
    async with Client(url) as client:
        operator, home, weeks, meter = (
            Wallet(client, key, CHAIN_ID) for key in (TREASURER_KEY, HOME_KEY, WEEKS_KEY, METER_KEY)
        )

        async def send(wallet: Wallet, signature: str, *arguments: Any, **options: Any) -> str:
            return await wallet.send(options.pop("module", CTT), signature, *arguments, **options)

        async def settle(*sent: str) -> None:
            for each in sent:
                assert (await client.receipt(each))["status"] == "0x1"

        await settle(
            await send(operator, "certifyMeter(address,uint8,uint64,bool)", METER, 1, 0, True),
            *[await operator.send_raw(each, 10**20) for each in (HOME, WEEKS)],
        )
        await settle(*[await send(each, "register(address)", METER) for each in (home, weeks)])
        await settle(*[await send(meter, "confirm(address)", each) for each in (HOME, WEEKS)])
        await settle(
            *[await send(each, "buyEmptyTokens(uint256)", 3, value=3 * 10**16) for each in (home, weeks)]
        )
        batch = "reportBatch((address,uint64,uint256,uint256)[])"
        parts = [items[start : start + BATCH_ITEMS] for start in range(0, len(items), BATCH_ITEMS)]
        await settle(*[await send(meter, batch, part, gas_limit=20_000_000) for part in parts])
        await settle(await send(meter, "refill(uint256,address)", 2_000, HOME))  # now: no longer in the month
        price = 2 * 10**14
        await settle(
            await send(home, "ask(uint256,uint256,uint64)", 500, price, 2**64 - 1, module=MARKET),
            await send(weeks, "bid(uint256,uint256,uint64)", 500, price, 2**64 - 1, module=MARKET),
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("bill-live")
    genesis = json.dumps(json.loads(GENESIS.read_bytes()) | {"epochBlocks": EPOCH_BLOCKS}).encode()
    (directory / "genesis.json").write_bytes(genesis)
    (tariff,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/BILL.md").read_text(), re.DOTALL)
    (directory / "tariff.json").write_text(tariff)
    folder = ROOT.parent / "shared" / "data" / "greenbutton"
    weeks = real_weeks(folder) if folder.is_dir() else []
    with LiveNode(directory / "node", genesis=genesis) as node:
        items = [*october(), *[(WEEKS, time_ms, imported, 0) for time_ms, imported in weeks]]
        asyncio.run(live_a_month(node.url, items))
        yield Live(node, directory, weeks)


class Desk:
    """`ctt bill` at the node's door."""

    def __init__(self, ctt: Ctt, live: Live) -> None:
        self._ctt, self._live = ctt, live

    def __call__(self, *arguments: object) -> Result:
        return self._ctt(*arguments, "--rpc", self._live.node.url)

    def told(self, *arguments: object) -> Any:
        result = self(*arguments, "--json")
        assert (result.code, result.err) == (0, ""), result
        return json.loads(result.out)


@pytest.fixture
def desk(capsys: pytest.CaptureFixture[str], live: Live) -> Desk:
    return Desk(Ctt(capsys, "bill", one_line=True), live)


def test_the_page_is_run_as_written(live: Live) -> None:
    """docs/BILL.md, with a node at another port; what it writes can be looked at."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/BILL.md").read_text(), re.DOTALL)
    ctt = (
        f'ctt() {{ if [ "$2" = verify ] || [ "$1" = index ]; then {sys.executable} -m node.cli.main "$@"; '
        f'else {sys.executable} -m node.cli.main "$@" --rpc {live.node.url}; fi; }}'
    )
    ran = subprocess.run(
        ["bash", "-c", "\n".join(["set -eu", ctt, *blocks])],
        cwd=live.directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME_ADDRESS": hex_of(HOME)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    hours = 745  # October has a day of 25
    consumed = Decimal(hours * 400).scaleb(-3)
    assert f"Consumption             {consumed:f}".rstrip("0") in ran.stdout
    assert "Mr. John Smith" in ran.stdout and "all there are in blocks 1 to " in ran.stdout
    (due,) = set(re.findall(r"Total due, EUR +([0-9.]+)", ran.stdout))
    assert f"proven: {due} EUR due from {hex_of(HOME)} for 2026-10-01 to 2026-11-01" in ran.stdout
    assert f"{due} EUR" in (live.directory / "bill.html").read_text()
    assert (live.directory / "bill.pdf").read_bytes().startswith(b"%PDF")


def test_a_forged_proof_is_refused_by_its_line(live: Live, desk: Desk) -> None:
    proof = live.directory / "month.proof"
    asked = ("--prosumer", hex_of(HOME), "--month", "2026-10", "--tariff", live.directory / "tariff.json")
    bill = desk.told(*asked, "--proof", proof)
    forged = json.loads(proof.read_text())
    forged["bill"]["lines"][1]["amount"] = "0.00"
    (live.directory / "forged.proof").write_text(json.dumps(forged))
    refused = desk._ctt(
        "verify", live.directory / "forged.proof", "--genesis", live.directory / "genesis.json"
    )
    assert refused.code == 65
    amount = bill["lines"][1]["amount"]
    assert refused.err.endswith(f"line 2, Day: amount: the bill says 0.00, proven is {amount}\n")


def test_two_real_weeks_of_which_one_day_has_92_readings(live: Live, desk: Desk) -> None:
    """Day 1 has 93,846 Wh, day 11, in spring when clocks change, 109,403 Wh in 23 hours; all together 1,391,666 Wh."""
    if not live.weeks:
        pytest.skip("the data of real meters is not here")
    tariff = live.directory / "eastern.json"
    tariff.write_text(json.dumps(DECK | {"timeZone": "America/New_York"}))
    asked = ("--prosumer", hex_of(WEEKS), "--from", "2012-03-01", "--to", "2012-03-15", "--tariff", tariff)
    proof = live.directory / "weeks.proof"
    bill = desk.told(*asked, "--proof", proof)
    assert [bill["days"][number]["consumedWh"] for number in (0, 10)] == ["93846", "109403"]
    assert (bill["consumedWh"], bill["readings"]) == ("1391666", 14 * 96 - 4)
    assert bill["lines"][1]["amount"] == "69.5833"  # 1,391.666 kWh at 0.05
    checked = desk._ctt("verify", proof, "--genesis", live.directory / "genesis.json", "--json")
    assert json.loads(checked.out)["bill"]["totalDue"] == bill["totalDue"]
    parts = [
        desk.told(*asked[:2], "--from", first, "--to", end, "--tariff", tariff)["consumedWh"]
        for first, end in (
            ("2012-03-01", "2012-03-11"),
            ("2012-03-11", "2012-03-12"),
            ("2012-03-12", "2012-03-15"),
        )
    ]
    assert sum(map(int, parts)) == 1_391_666


def test_what_was_bought_in_the_auction_is_found(live: Live) -> None:
    async def ask() -> list[Any]:
        async with Client(live.node.url) as client:
            head = int(await client.call("eth_blockNumber"), 16)
            return await collect.find_purchases(client, WEEKS, collect.Span(0, head))

    (purchase,) = asyncio.run(ask())
    assert (purchase.energy_wh, purchase.paid_wei) == (500, 500 * 2 * 10**14)


def test_the_index_bills_the_same_and_knows_where_the_energy_came_from(live: Live, desk: Desk) -> None:
    database = f"sqlite:///{live.directory}/index.db"
    indexed = ("--genesis", live.directory / "genesis.json", "--time-zone", "Europe/Berlin", "--once")
    command = [sys.executable, "-m", "node.cli.main", "index", "--database", database, "--rpc", live.node.url]
    subprocess.run([*command, *map(str, indexed)], cwd=ROOT, check=True, capture_output=True)
    asked = ("--month", "2026-10", "--tariff", live.directory / "tariff.json", "--prosumer")
    by_node, by_index = (
        desk.told(*asked, hex_of(HOME)),
        desk.told(*asked, hex_of(HOME), "--database", database),
    )
    background = by_index["background"]
    for name in ("background", "asOfBlock"):
        del by_node[name], by_index[name]
    assert by_index == by_node
    assert sum(int(day["ownWh"]) for day in background["days"]) == int(by_node["coveredWh"]) > 0
    assert background["keyFigures"]["selfSufficiency"] is not None

    proof = live.directory / "both.proof"
    proven = desk.told(*asked, hex_of(HOME), "--database", database, "--proof", proof)
    assert proven["background"] == background
    assert "background" not in json.loads(proof.read_text())["bill"]
    checked = desk._ctt("verify", proof, "--genesis", live.directory / "genesis.json", "--json")
    assert json.loads(checked.out)["bill"]["totalDue"] == by_node["totalDue"]
    stranger = desk(*asked, hex_of(METER), "--database", database)
    assert (stranger.code, "the index has no reading of" in stranger.err) == (66, True)
    missing = desk(*asked, hex_of(HOME), "--database", f"sqlite:///{live.directory}/none.db")
    assert (missing.code, "no history in the database" in missing.err) == (69, True)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 64, "--prosumer is missing"),
        (("--prosumer", hex_of(HOME)), 64, "--tariff is missing"),
        (("--prosumer", "0x12"), 64, "'0x12' is no address"),
        (("--month", "2026-13"), 64, "'2026-13' is no month such as 2026-10"),
        (("--from", "2026-02-30"), 64, "'2026-02-30' is no date"),
        (("--name", "a\nb"), 64, "is not a line of up to 64 characters"),
        (("--checkpoint", "7"), 64, "'7' is not HEIGHT:HASH"),
        (("--tariff", "genesis.json", "--month", "2026-10"), 78, "genesis.json: $"),
        (("--tariff", "none.json", "--month", "2026-10"), 66, "none.json: no such file"),
        (("--tariff", "tariff.json", "--month", "2999-12"), 64, "the period ends 3000-01-01 00:00 CET, the newest"),
        (("--tariff", "tariff.json", "--month", "2026-10", "--html", "no/bill.html"), 73, "cannot write it"),
        (("--tariff", "tariff.json", "--month", "2026-10", "--proof", "no/bill.proof"), 73, "cannot write it"),
        (("--tariff", "tariff.json", "--month", "2026-10", "--pdf", "b.pdf", "--font", "no.ttf"), 66, "the font"),
        (("--tariff", "tariff.json", "--month", "2026-10", "--pdf", "b.pdf", "--font", "tariff.json"), 66, "the font"),
        (("--tariff", "tariff.json", "--month", "2026-10", "--pdf", "b.pdf", "--name", "\u0159"), 64, "--font FILE"),
        (("verify", "bill.proof"), 64, "unknown option --rpc"),
        (("mark", "--prosumer", hex_of(METER), "--out", "mark.json"), 66, "the chain has no prosumer"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(
    live: Live, desk: Desk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, text: str
) -> None:
    monkeypatch.chdir(live.directory)
    is_whole = "--tariff" in arguments
    result = desk(*arguments, *(("--prosumer", hex_of(HOME)) if is_whole else ()))
    assert (result.code, text in result.err) == (code, True), result
