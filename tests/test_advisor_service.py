"""`ctt_advise`: the advisor as a program, and the node that passes questions on to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from apps.advisor import service
from apps.advisor.service import Advisors, read_call
from apps.advisor.sources import NoAdvice
from apps.client import TRY_LATER, Client, RpcError
from ctt_state.units import Address, hex_of
from rpc import schemas
from rpc.advisor import ANSWER_BYTES_MAX, Advisor
from rpc.errors import Refused, TryLater
from rpc.errors import RpcError as NodeError
from tests.cli_world import Ctt
from tests.ledger_world import document
from tests.live_node import GENESIS, LiveNode, free_port
from tests.test_advisor_cli import OWNER, STRANGER, make_database

WAIT_S: Final = 60.0
HOME: Final = Address(bytes(19) + b"\x01")
OTHER: Final = Address(bytes(19) + b"\x02")


def ask(url: str, home: str, *, method: str = "ctt_advise") -> Any:
    async def call() -> Any:
        async with Client(url) as client:
            return await client.call(method, home)

    return asyncio.run(call())


def ask_refused(url: str, home: str) -> tuple[int, str]:
    with pytest.raises(RpcError) as refused:
        ask(url, home)
    return refused.value.code, str(refused.value)


class LiveAdvisor:
    """`ctt advisor` in a process of its own."""

    def __init__(self, port: int, *flags: str) -> None:
        command = [sys.executable, "-m", "node.cli.main", "advisor", "--port", str(port), *flags]
        self.process = subprocess.Popen(
            command, cwd=GENESIS.parent, env=os.environ | {"PYTHONPATH": str(GENESIS.parent)}
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=WAIT_S)


@pytest.fixture(scope="module")
def advisor_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, advisor_port: int) -> Iterator[LiveNode]:
    flags = ("--advisor", f"http://127.0.0.1:{advisor_port}")
    with LiveNode(tmp_path_factory.mktemp("advised") / "node", genesis=document(), flags=flags) as node:
        yield node


def test_a_node_answers_with_what_its_advisor_says(
    node: LiveNode, advisor_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same as `ctt advise` says; and while there is no advisor, that there is none."""
    database = make_database(tmp_path / "index.db")
    assert ask_refused(node.url, OWNER) == (TRY_LATER, "the advisor does not answer")
    advisor = LiveAdvisor(advisor_port, "--rpc", node.url, "--database", database)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                told = ask(node.url, OWNER)
                break
            except RpcError as refused:
                if refused.code != TRY_LATER or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

        card = Ctt(capsys, "advise")(OWNER, "--rpc", node.url, "--database", database, "--json")
        assert told == json.loads(card.out)
        assert (told["action"], told["record"]["days"]) == ("SELL", 1)
        jsonschema.Draft7Validator(schemas.ADVICE).validate(told)
        assert ask_refused(node.url, STRANGER) == (-32000, f"the chain does not know {STRANGER}")
        direct = f"http://127.0.0.1:{advisor_port}"
        assert ask(direct, OWNER) == told
        with pytest.raises(RpcError, match="answers ctt_advise alone"):
            ask(direct, OWNER, method="eth_getBalance")
    finally:
        assert advisor.stop() == 0
    assert ask_refused(node.url, OWNER) == (TRY_LATER, "the advisor does not answer")


def test_a_node_without_an_advisor_says_so(tmp_path: Path) -> None:
    with LiveNode(tmp_path / "node") as node:
        assert ask_refused(node.url, OWNER) == (-32601, "this node has no advisor: ctt run --advisor")


def test_a_port_that_is_taken_is_told_in_a_line(node: LiveNode, capsys: pytest.CaptureFixture[str]) -> None:
    result = Ctt(capsys, "advisor")("--port", node.port)

    assert (
        result.code == 69 and f"cannot listen on 127.0.0.1:{node.port}: Address already in use" in result.err
    )


# --- the advisor: one home at a time, each advice for a while ---------------------------------------------------------


class Desk:
    """Works out advice when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Address] = []
        self.may_go = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(self, home: Address) -> dict[str, Any]:
        self.asked.append(home)
        await self.may_go.wait()
        if self.fault is not None:
            raise self.fault
        return {"home": hex_of(home)}


@asynccontextmanager
async def desk() -> AsyncIterator[tuple[Desk, Advisors]]:
    asked = Desk()
    advisors = Advisors(asked)
    try:
        yield asked, advisors
    finally:
        await advisors.stop()


@pytest.mark.asyncio
async def test_who_asks_too_early_asks_again_and_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as (work, advisors):
        monkeypatch.setattr(service, "ANSWER_S", 0.01)
        for _ in range(2):
            with pytest.raises(RpcError, match="ask again"):
                await advisors.advise(HOME)
        work.may_go.set()
        monkeypatch.setattr(service, "ANSWER_S", WAIT_S)

        assert await advisors.advise(HOME) == await advisors.advise(HOME) == {"home": hex_of(HOME)}
        assert work.asked == [HOME]


@pytest.mark.asyncio
async def test_homes_are_advised_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WAITING_MAX", 2)
    async with desk() as (work, advisors):
        both = [asyncio.create_task(advisors.advise(home)) for home in (HOME, OTHER)]
        while not work.asked:
            await asyncio.sleep(0)
        with pytest.raises(RpcError, match="2 homes wait for advice"):
            await advisors.advise(Address(bytes(20)))
        assert work.asked == [HOME]
        work.may_go.set()

        assert await asyncio.gather(*both) == [{"home": hex_of(home)} for home in (HOME, OTHER)]


@pytest.mark.asyncio
async def test_an_advice_is_kept_for_a_while_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEPT_MAX", 1)
    async with desk() as (work, advisors):
        work.may_go.set()
        for home in (HOME, HOME, OTHER, HOME):
            await advisors.advise(home)
        assert work.asked == [HOME, OTHER, HOME]

        monkeypatch.setattr(service, "KEPT_S", 0.0)
        async with asyncio.timeout(WAIT_S):
            while len(work.asked) < 6:
                await advisors.advise(OTHER)
                await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (NoAdvice("this chain has no market"), -32000, "this chain has no market"),
        (TimeoutError(), TRY_LATER, "the node does not tell enough within 300 s"),
        (RpcError({"code": TRY_LATER, "message": "overloaded"}), TRY_LATER, "overloaded"),
    ],
)
async def test_what_failed_is_tried_again(fault: Exception, code: int, text: str) -> None:
    async with desk() as (work, advisors):
        work.may_go.set()
        work.fault = fault
        for _ in range(2):
            with pytest.raises(RpcError, match=text) as refused:
                await advisors.advise(HOME)
            assert refused.value.code == code
        assert work.asked == [HOME, HOME]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32600),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"method":"eth_call","params":[]}', -32601),
        (b'{"method":"ctt_advise"}', -32602),
        (b'{"method":"ctt_advise","params":["0x12"]}', -32602),
        (b'{"method":"ctt_advise","params":["%s"]}' % (b"zz" * 20), -32602),
        (b'{"method":"ctt_advise","params":["%s"]}' % (b"11" * 20), -32602),
    ],
)
def test_what_is_no_question_is_refused(body: bytes, code: int) -> None:
    with pytest.raises(RpcError) as refused:
        read_call(body)
    assert refused.value.code == code


def test_a_home_is_asked_for_by_place_or_by_name() -> None:
    for params in ([hex_of(HOME)], {"prosumer": hex_of(HOME)}):
        call = {"jsonrpc": "2.0", "id": 7, "method": "ctt_advise", "params": params}
        assert read_call(json.dumps(call).encode()) == (7, HOME)


# --- the node, whatever the advisor says --------------------------------------------------------------------------------


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[Advisor]:
    """An advisor that says this to everyone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield Advisor(f"http://127.0.0.1:{port}")


def http(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", body)
    return b"\r\n".join(lines)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (b"", TryLater, "the advisor does not answer"),
        (http(b"<html>"), TryLater, "the advisor does not answer"),
        (http(b'{"result":7}'), TryLater, "the advisor does not answer"),
        (http(b'{"result":{"gain":NaN}}'), TryLater, "the advisor does not answer"),
        (http(b"", b"302 Found", b"Location: http://127.0.0.1:1/"), TryLater, "the advisor does not answer"),
        (http(b'{"result":{"a":"%s"}}' % bytes(b"x" * ANSWER_BYTES_MAX)), TryLater, "does not answer"),
        (http(b'{"error":{"code":-32000,"message":"no home"}}'), Refused, "no home"),
        (http(b'{"error":{"code":-32005,"message":"at work"}}'), TryLater, "at work"),
    ],
)
async def test_what_an_advisor_says_amiss_is_an_error(reply: bytes, kind: type[NodeError], text: str) -> None:
    async with answering(reply) as advisor:
        with pytest.raises(kind, match=text):
            await advisor.advise(HOME)


@pytest.mark.asyncio
async def test_so_many_may_wait_for_the_advisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpc.advisor.QUESTIONS_MAX", 0)
    with pytest.raises(TryLater, match="0 clients wait"):
        await Advisor("http://127.0.0.1:1").advise(HOME)
