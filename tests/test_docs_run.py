"""The commands of the pages on history run as they are written, on a chain with a home and two of its days.

Read only (tests/test_docs.py): what starts a server of its own, installs a package, or needs PostgreSQL.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from apps.client import Client, Wallet
from apps.demo.street import TREASURER_KEY
from ctt_state.crypto import sha256
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from tests.ledger_world import CHAIN_ID
from tests.live_node import GENESIS, LiveNode

ROOT: Final = Path(__file__).parents[1]
HOME_KEY: Final = bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")  # 0x7099…
FIRST: Final = datetime(2026, 6, 1, tzinfo=UTC)
HOURS: Final = 48
INDEX: Final = re.compile(r"^ctt index .*sqlite.*$", re.MULTILINE)
HISTORY: Final = re.compile(r"^ctt (?:advise|kpi|settlement) .*$", re.MULTILINE)
TOLD: Final = {"ADVISOR.md": '"act', "KPI.md": "savings_wei", "SETTLEMENT.md": "Wh own"}


async def live_two_days(url: str) -> None:
    """A home with sun at noon: 400 Wh an hour imported, 900 Wh exported from nine to three."""
    async with Client(url) as client:
        operator, home, meter = (
            Wallet(client, key, CHAIN_ID)
            for key in (TREASURER_KEY, HOME_KEY, sha256(b"the meter of the pages"))
        )

        async def settle(*sent: str) -> None:
            for each in sent:
                assert (await client.receipt(each))["status"] == "0x1"

        await settle(
            await operator.send(CTT, "certifyMeter(address,uint8,uint64,bool)", meter.address, 1, 0, False)
        )
        await settle(await home.send(CTT, "register(address)", meter.address))
        await settle(await meter.send(CTT, "confirm(address)", home.address))
        await settle(await home.send(CTT, "buyEmptyTokens(uint256)", 2, value=2 * 10**16))
        imported = exported = 0
        start_ms, reports = int(FIRST.timestamp() * 1_000), []
        for hour in range(HOURS + 1):
            registers = (start_ms + hour * 3_600_000, imported, exported)
            reports.append(
                await meter.send(CTT, "report(address,uint64,uint256,uint256)", home.address, *registers)
            )
            imported += 400
            exported += 900 if 9 <= hour % 24 < 15 else 0
        await settle(*reports)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveNode, Path]]:
    """A node, and a directory with its genesis document and with the index by docs/INDEXER.md."""
    directory = tmp_path_factory.mktemp("pages")
    shutil.copy(GENESIS, directory / "genesis.json")
    with LiveNode(directory / "node") as node:
        asyncio.run(live_two_days(node.url))
        (command,) = INDEX.findall((ROOT / "docs/INDEXER.md").read_text())
        (directory / "data").mkdir()
        typed(node, directory, command.split("#")[0] + " --once")
        shutil.copy(directory / "data/index.db", directory / "history.db")  # as docs/KPI.md has it
        yield node, directory


def typed(node: LiveNode, directory: Path, script: str) -> str:
    """What these commands print, with the node at another port than the pages have."""
    asks = "advise|index"
    ctt = f'ctt() {{ case "$1" in {asks}) set -- "$@" --rpc {node.url};; esac; {sys.executable} -m node.cli.main "$@"; }}'
    ran = subprocess.run(
        ["bash", "-c", f"set -eu\n{ctt}\n{script}"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran
    return ran.stdout


@pytest.mark.parametrize("page", TOLD)
def test_the_page_is_run_as_written(street: tuple[LiveNode, Path], page: str) -> None:
    node, directory = street
    commands = HISTORY.findall((ROOT / "docs" / page).read_text())
    assert commands
    for command in commands:
        told = typed(node, directory, command)
        assert told
        if "--json" in command:
            json.loads(told)
    assert TOLD[page] in told


def test_a_table_was_written(street: tuple[LiveNode, Path]) -> None:
    """docs/KPI.md, `--parquet`."""
    parquet = pytest.importorskip("pyarrow.parquet")
    node, directory = street
    (command,) = [each for each in HISTORY.findall((ROOT / "docs/KPI.md").read_text()) if "--parquet" in each]
    typed(node, directory, command)
    assert parquet.read_table(directory / "june.parquet").num_rows > 0


def test_the_address_is_the_pages() -> None:
    wallet = Wallet(None, HOME_KEY, CHAIN_ID)  # type: ignore[arg-type]  # it is asked for nothing
    assert hex_of(wallet.address).lower() == "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
