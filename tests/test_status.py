"""`ctt status`: what it shows of a node, to a person and to a script, and how it ends."""

import asyncio
import json
import os
import signal
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from apps.client import Client
from apps.status import Status, line, read_status, render
from ctt_state.units import Ms
from node.node import Signer
from rpc.access import AccessRules, Role
from tests.cli_world import Ctt, Result
from tests.live_node import free_port
from tests.rpc_world import ALICE, BOB, PROPOSER, RpcWorld, Served, make_config, served
from tests.test_rpc_access import OPERATOR, TOKENS

pytestmark = pytest.mark.asyncio


class Village(RpcWorld):
    """Three validators, of which one has been silent for long."""

    def signers(self) -> list[Signer]:
        return [
            Signer(PROPOSER, "grid-1", None, 0),
            Signer(ALICE, "grid-2", 10_000, 7),
            Signer(BOB, None, 10_001, 1_234),
        ]


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "status")


async def ask(ctt: Ctt, node: Served, *arguments: object) -> Result:
    """The command runs a loop of its own."""
    return await asyncio.to_thread(ctt, "--rpc", node.url, *arguments)


async def test_a_healthy_node_is_told_in_lines_on_a_pipe(ctt: Ctt) -> None:
    async with served() as node:
        node.world.make_blocks(70)
        code, out, err = await ask(ctt, node)
    assert (code, err) == (0, "")
    told = dict(row.split(maxsplit=1) for row in out.splitlines())
    assert told["state"] == "healthy"
    assert told["block"].startswith("71  0x")
    assert told["rate"] == "3.00 blocks/s"
    assert told["validators"] == "1, none is missing"
    assert told["disk"] == "20.0 GiB free of 100.0"
    assert told["pool"] == "0 pending, 0 queued"


async def test_who_is_missing_is_named(ctt: Ctt) -> None:
    """Silence of more than ten seconds; who joined later goes by its address. A healthy network bears it."""
    async with served(Village()) as node:
        told = await ask(ctt, node)
        assert told.code == 0
        assert f"validators  2 of 3; missing: 0x{BOB.hex()}\n" in told.out
        async with Client(node.url) as client:
            status = await read_status(client)
    assert line(status).endswith(f"missing: 0x{BOB.hex()}")
    page = show(status)
    assert "grid-2" in page and "10.0 s ago" in page and "1,234" in page and "this node" in page


def show(status: Status) -> str:
    console = Console(file=StringIO(), width=120, record=True)
    console.print(render(status, "http://node.example"))
    return console.export_text()


async def test_a_node_in_trouble_is_told_by_the_code(ctt: Ctt) -> None:
    async with served() as node:
        node.world.syncing = True
        told = await ask(ctt, node)
    assert told.code == 75
    assert "state       syncing: the node is syncing: at block 1 of 99\n" in told.out


async def test_a_chain_that_stands_still_has_no_rate(ctt: Ctt, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as node:
        node.world.make_blocks(5)
        head_ms = node.world.head.block.header.timestamp_ms
        monkeypatch.setattr(RpcWorld, "now_ms", lambda _: Ms(head_ms + 5_001))
        told = await ask(ctt, node, "--json")
    assert told.code == 75
    status = json.loads(told.out)
    assert (status["healthy"], status["blocksPerSecond"]) == (False, 0.0)
    assert status["trouble"] == "stalled: the newest final block is more than 5 s old"


async def test_the_disk_is_for_operators(ctt: Ctt, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{OPERATOR}\n")
    async with served(config=make_config(tokens=TOKENS)) as node:
        assert "disk        told to operators only\n" in (await ask(ctt, node)).out
        told = await ask(ctt, node, "--token-file", token, "--json")
    assert json.loads(told.out)["node"]["storage"] == {"freeBytes": 20 * 2**30, "sizeBytes": 100 * 2**30}


@pytest.mark.parametrize("least", [Role.PUBLIC, Role.METER])
async def test_who_is_no_node_or_refuses_is_unavailable(ctt: Ctt, least: Role) -> None:
    if least is Role.PUBLIC:
        told = await asyncio.to_thread(ctt, "--rpc", f"http://127.0.0.1:{free_port()}")
    else:
        async with served(config=make_config(tokens=(), rules=AccessRules(least=least))) as node:
            told = await ask(ctt, node)
    assert told.code == 69
    assert "does not answer as a node" in told.err and told.err.count("\n") == 1


async def test_a_node_of_another_release_or_one_that_lies_does_no_harm(
    ctt: Ctt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as node:
        node.world.client_version = "ctt/\x1b[2J[red]"
        assert "node        ctt/?[2J[red] at" in (await ask(ctt, node)).out
        async with Client(node.url) as client:
            assert "ctt/?[2J[red] at http" in show(await read_status(client))
        monkeypatch.setattr(RpcWorld, "peer_count", lambda _: "many")
        told = await ask(ctt, node)
        assert told.code == 69 and "does not answer as a node: Cannot specify ','" in told.err


async def test_watching_goes_on_while_the_node_is_away() -> None:
    command = [sys.executable, "-m", "node.cli.main", "status", "--watch", "--every", "0.05", "--json"]
    async with served() as node:
        watch = await asyncio.create_subprocess_exec(
            *command, "--rpc", node.url, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
        )
        assert watch.stdout is not None

        async def until(healthy: bool) -> Any:
            async with asyncio.timeout(30):
                while (told := json.loads(await watch.stdout.readline()))["healthy"] is not healthy:  # type: ignore[union-attr]
                    pass
            return told

        assert (await until(True))["chain"]["height"] == 1
    assert "does not answer as a node" in (await until(False))["trouble"]
    watch.send_signal(signal.SIGINT)
    assert await watch.wait() == 130
