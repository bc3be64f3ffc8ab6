"""The indexer as a process, behind a real node: killed, cut off, stopped; it goes on, and nothing is there twice."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from aiohttp import ClientSession, web
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError, ProgrammingError

from apps.client import Client
from apps.demo.street import Street
from apps.indexer.database import connect
from apps.indexer.feed import Feed, NodeAway
from apps.indexer.rows import Fetched
from apps.indexer.schema import CHAIN
from tests.cli_world import Ctt
from tests.indexer_world import position_of, read_tables
from tests.ledger_world import CHAIN_ID, document
from tests.live_node import GENESIS, LiveNode, free_port
from tests.postgres import running_postgres

HOMES: Final = 12
KILLS: Final = 3
SECONDS_MAX: Final = 30.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """A street lives on it for a while, so that there is something to catch up with."""
    with LiveNode(tmp_path_factory.mktemp("node") / "node", flags=("--account-slots", "1024")) as node:
        asyncio.run(live(node.url, 8))
        deadline = time.monotonic() + SECONDS_MAX
        while node.call("txpool_status")["pending"] != "0x0" or node.call("ctt_market")["orders"]:
            assert time.monotonic() < deadline, "its last orders stand on"
            time.sleep(0.1)
        yield node


async def live(url: str, quarters: int) -> None:
    async with Client(url) as client:
        street = Street(client, CHAIN_ID, HOMES)
        await street.build()
        street.news.quarter = 44
        for _ in range(quarters):
            await street.live_quarter()
            await asyncio.sleep(0.4)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/index.db"
    url: str = request.getfixturevalue("postgres")
    empty(url)
    return url


def empty(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


# A batch a block, so that a kill finds one in the middle of being written.
BLOCK_BY_BLOCK: Final = "import sys; from apps.indexer import feed; feed.BLOCKS_PER_REQUEST_MAX = 1; "
RUN: Final = "from node.cli.main import main; sys.exit(main())"


class Indexer:
    """`ctt index`."""

    def __init__(self, node: LiveNode, database: str, *flags: str, start: str = "import sys; ") -> None:
        command = [sys.executable, "-c", start + RUN, "index", "--rpc", node.url, "--database", database]
        self.process = subprocess.Popen(
            [*command, *flags], cwd=GENESIS.parent, stderr=subprocess.PIPE, text=True
        )

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        _, said = self.process.communicate(timeout=SECONDS_MAX)
        return self.process.returncode, said


def head_of(node: LiveNode) -> int:
    return int(node.call("eth_blockNumber"), 16)


def wait_until(database: str, height: int) -> None:
    """The database may have no tables yet."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        with suppress(ProgrammingError, OperationalError):
            if position_of(database) >= height:
                return
        assert time.monotonic() < deadline, f"no block {height}"
        time.sleep(0.05)


def wait_for_waiting(connection: "psycopg.Connection[Any]") -> None:
    """Until somebody waits for a lock."""
    deadline = time.monotonic() + SECONDS_MAX
    while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def up_to(height: int, tables: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without the blocks above, in which nothing happens any more."""
    assert all(row[0] <= height for row in tables["transactions"])
    return tables | {"chain": [], "blocks": [row for row in tables["blocks"] if row[0] <= height]}


def test_kills_at_any_moment_leave_what_a_rebuild_has(node: LiveNode, database: str, tmp_path: Path) -> None:
    """Nothing twice, nothing lost, and the sums are those of the rows."""
    chance = random.Random(database)
    height = 0
    for _ in range(KILLS):
        indexer = Indexer(node, database, start=BLOCK_BY_BLOCK)
        wait_until(database, height)
        time.sleep(chance.uniform(0.0, 0.2))
        assert indexer.end(signal.SIGKILL)[0] == -signal.SIGKILL
        height = position_of(database) + 1
    assert Indexer(node, database, "--once").wait()[0] == 0
    rebuilt = f"sqlite:///{tmp_path}/rebuilt.db"
    assert Indexer(node, rebuilt, "--once", "--rebuild").wait()[0] == 0
    height = position_of(database)
    tables = up_to(height, read_tables(database))
    assert tables == up_to(height, read_tables(rebuilt))
    assert len(tables["blocks"]) == height + 1
    assert len(tables["readings"]) > 8 * HOMES


def test_it_goes_on_when_node_and_database_come_back(node: LiveNode, postgres: str) -> None:
    """And ends at a block's end on SIGTERM, also where its database keeps it waiting."""
    empty(postgres)
    indexer = Indexer(node, postgres)
    wait_until(postgres, head_of(node))
    with psycopg.connect(postgres) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    wait_until(postgres, head_of(node) + 2)
    node.kill()
    node.restart()
    wait_until(postgres, head_of(node) + 2)
    with psycopg.connect(postgres) as connection:
        connection.execute("LOCK TABLE chain IN EXCLUSIVE MODE")
        height = position_of(postgres)
        wait_for_waiting(connection)
        code, said = indexer.end(signal.SIGTERM)
    assert code == 0
    assert "trying again" in said and "Traceback" not in said
    tables = read_tables(postgres)
    assert len(tables["blocks"]) == position_of(postgres) + 1 == height + 1


def test_what_stays_away_is_given_up(ctt: Ctt, tmp_path: Path) -> None:
    nobody, nowhere = f"http://127.0.0.1:{free_port()}", f"postgresql://x@/x?host={tmp_path}"
    flags = ("--patience", "0.6", "--rpc", nobody)
    found = ctt(*flags, "--database", f"sqlite:///{tmp_path}/index.db")
    assert found.code == 69
    assert found.err.startswith(f"ctt: {nobody} does not answer as a node: ")
    assert found.err.endswith("; gave up after 0.6 s\n")
    found = ctt(*flags, "--database", nowhere)
    assert found.code == 69
    assert found.err.startswith("ctt: the database: ")


def test_another_chain_is_refused_in_one_line(ctt: Ctt, node: LiveNode, tmp_path: Path) -> None:
    url, other = f"sqlite:///{tmp_path}/index.db", tmp_path / "other.json"
    other.write_bytes(document())
    flags = ("--rpc", node.url, "--database", url, "--once")
    found = ctt(*flags, "--genesis", other)
    assert found.code == 78
    assert found.err.startswith("ctt: the node's chain is another: its genesis is 0x")
    assert ctt(*flags, "--rebuild").code == 0
    with connect(url).begin() as connection:
        connection.execute(update(CHAIN).values(block_hash=bytes(32)))
    found = ctt(*flags)
    assert found.code == 78
    assert f"of the database 0x{bytes(32).hex()}: one is of another chain" in found.err


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctt:
    """`ctt index` in this process, beside the genesis document."""
    monkeypatch.chdir(GENESIS.parent)
    return Ctt(capsys, "index", one_line=True)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (("--database", "mysql://x/y"), 64, "--database: mysql: a database is sqlite:///FILE or postgresql:"),
        (("--time-zone", "Mars/Olympus"), 64, "--time-zone: 'Mars/Olympus' is no time zone"),
        (("--token-file", "/none"), 66, "no token in /none"),
        (("--genesis", "/none"), 66, "/none"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    ctt: Ctt, tmp_path: Path, flags: tuple[str, ...], code: int, text: str
) -> None:
    found = ctt("--database", f"sqlite:///{tmp_path}/index.db", *flags)
    assert found.code == code
    assert text in found.err


# --- the feed, at a door that gives little ---


class Door:
    """Passes on what a node says, but no WebSocket, only some calls of a batch, not the receipts of every block at
    once, and now and then nothing before a while has passed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._requests = 0
        self.tokens: set[str | None] = set()

    async def answer(self, request: web.Request) -> web.Response:
        calls = await request.json()
        self.tokens.add(request.headers.get("Authorization"))
        self._requests += 1
        if self._requests % 3 == 0:
            return web.json_response([refusal(call, retry_after_ms=5) for call in calls])
        async with ClientSession() as session, session.post(self._url, json=calls) as response:
            answers = await response.json()
        stop = next((at for at, call in enumerate(calls) if is_too_large(call)), 7)
        return web.json_response(answers[:stop] + [refusal(call) for call in calls[stop:]])


def is_too_large(call: dict[str, Any]) -> bool:
    return call["method"] == "eth_getBlockReceipts" and int(call["params"][0], 16) % 5 == 0


def refusal(call: dict[str, Any], **data: int) -> dict[str, Any]:
    error = {"code": -32005, "message": "not now"} | ({"data": data} if data else {})
    return {"jsonrpc": "2.0", "id": call["id"], "error": error}


async def fetch(url: str, count: int, token: str | None = None) -> list[Fetched]:
    async with Client(url, token) as client, aclosing(Feed(client).blocks(0)) as ranges:
        found: list[Fetched] = []
        while len(found) < count:
            found += await anext(ranges)
        return found[:count]


def test_a_door_that_gives_little_gives_the_same_blocks(node: LiveNode) -> None:
    async def compare() -> None:
        app, door = web.Application(), Door(node.url)
        app.router.add_post("/", door.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            found = await fetch(f"http://127.0.0.1:{port}", 60, "ctt_secret")
        finally:
            await runner.cleanup()
        assert door.tokens == {"Bearer ctt_secret"}
        assert found == await fetch(node.url, 60)

    asyncio.run(compare())


def test_a_node_that_lost_its_blocks_is_waited_for(node: LiveNode) -> None:
    async def ask() -> None:
        async with Client(node.url) as client:
            await Feed(client).hash_of(10**6)

    with pytest.raises(NodeAway, match="has no block 1000000 yet"):
        asyncio.run(ask())


def test_a_database_that_takes_nothing_is_given_up(ctt: Ctt, node: LiveNode, tmp_path: Path) -> None:
    """It opens each time, so opening is no progress."""
    url = f"sqlite:///{tmp_path}/index.db"
    assert ctt("--rpc", node.url, "--database", url, "--once").code == 0
    with connect(url).begin() as connection:
        connection.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON blocks BEGIN SELECT whole_add('x', 1); END")
        )
    found = ctt("--rpc", node.url, "--database", url, "--patience", "0.6")
    assert found.code == 69
    assert found.err.startswith("ctt: the database: user-defined function raised exception; gave up")
