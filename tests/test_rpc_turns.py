"""The turnstile: so many pieces of clients' work a pass of the event loop, in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import keccak
from rpc.server import ServerLimits
from rpc.turns import TURN_S, Turns, Turnstile, turnstile
from tests.rpc_world import Served, make_config, served


async def passes_of(line: Turnstile, comers: int) -> list[int]:
    """The pass in which each of so many gets in that come at once, in order."""
    now, went = 0, [-1] * comers

    def go(number: int) -> None:
        went[number] = now

    for number in range(comers):
        if line.enter(lambda number=number: go(number)):  # type: ignore[misc]
            go(number)
    while len(line):
        now += 1
        await asyncio.sleep(0)
    return went


@given(per_pass=st.integers(1, 5), comers=st.integers(0, 30))
def test_so_many_a_pass_in_order(per_pass: int, comers: int) -> None:
    async def scenario() -> None:
        went = await passes_of(Turnstile(per_pass), comers)
        assert went == [number // per_pass for number in range(comers)]

    asyncio.run(scenario())


@pytest.mark.asyncio
async def test_a_large_piece_has_a_pass_to_itself() -> None:
    line, went = Turnstile(4), list[str]()
    for name, pieces in (("small", 1), ("large", 9), ("next", 1)):
        if line.enter(lambda name=name: went.append(name), pieces):  # type: ignore[misc]
            went.append(name)
    assert went == ["small", "large"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert went == ["small", "large", "next"]


@pytest.mark.asyncio
async def test_the_lines_have_turns_while_both_wait() -> None:
    line, order = Turnstile(1), list[str]()
    line.enter(lambda: None)
    for number in range(4):
        line.enter(lambda number=number: order.append(f"public {number}"))  # type: ignore[misc]
    for number in range(2):
        line.enter(lambda number=number: order.append(f"meter {number}"), is_reserved=True)  # type: ignore[misc]
    while len(line):
        await asyncio.sleep(0)
    assert order == ["meter 0", "public 0", "meter 1", "public 1", "public 2", "public 3"]


@pytest.mark.asyncio
async def test_who_comes_later_stands_behind_those_who_wait() -> None:
    line, order = Turnstile(1), list[str]()

    async def come(name: str) -> None:
        await line.turn()
        order.append(name)

    early = [asyncio.create_task(come(name)) for name in "abc"]
    await asyncio.sleep(0)
    late = asyncio.create_task(come("late"))
    await asyncio.gather(*early, late)
    assert order == ["a", "b", "c", "late"]


@pytest.mark.asyncio
async def test_one_who_goes_away_holds_up_nobody() -> None:
    line = Turnstile(1)
    first, gone, last = (asyncio.create_task(line.turn()) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 1)
    assert gone.cancelled()
    assert len(line) == 0


@pytest.mark.asyncio
async def test_it_stops_turning_when_nobody_comes() -> None:
    line = Turnstile(2)
    await line.turn()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not line._is_turning
    await line.turn()


@pytest.mark.asyncio
async def test_a_loop_has_one() -> None:
    assert turnstile() is turnstile()


@pytest.mark.asyncio
async def test_a_long_answer_stands_in_line_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, clock = asyncio.get_running_loop(), [0.0]
    monkeypatch.setattr(loop, "time", lambda: clock[0])
    turns, told = Turns(), list[str]()

    async def other() -> None:
        await turnstile().turn()
        told.append("other")

    waiting = [asyncio.create_task(other()) for _ in range(10)]
    await turns.pause()
    assert told == []  # within its turn
    clock[0] += 2 * TURN_S
    await turns.pause()
    assert told == ["other"] * 10
    await asyncio.gather(*waiting)


@pytest_asyncio.fixture
async def narrow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A door that reads from one connection a pass, and lets in one request."""
    monkeypatch.setattr("rpc.server.READS_PER_PASS", 1)
    monkeypatch.setattr("rpc.turns.PIECES_PER_PASS", 1)
    limits = ServerLimits(connections_per_address_max=200)
    async with served(config=make_config(limits)) as node:
        yield node


async def ask(node: Served, body: bytes, pieces: int = 1) -> bytes:
    """The reply to this body, sent in so many pieces over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    request = head.encode() + b"\r\nConnection: close\r\n\r\n" + body
    size = -(-len(request) // pieces)
    for start in range(0, len(request), size):
        writer.write(request[start : start + size])
        await writer.drain()
        await asyncio.sleep(0)
    reply = await reader.read()
    writer.close()
    return reply


@pytest.mark.asyncio
async def test_all_who_stand_in_line_are_answered(narrow: Served) -> None:
    bodies = [b'{"jsonrpc":"2.0","id":%d,"method":"eth_chainId"}' % number for number in range(100)]
    replies = await asyncio.gather(*(ask(narrow, body) for body in bodies))
    assert all(b'"id":%d,' % number in reply for number, reply in enumerate(replies))


@pytest.mark.asyncio
async def test_what_comes_while_it_stands_in_line_is_kept(narrow: Served) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"web3_sha3","params":["0x' + b"ab" * 200_000 + b'"]}'
    digest = '"result":"0x' + keccak(bytes.fromhex("ab") * 200_000).hex()
    replies = await asyncio.gather(*(ask(narrow, body, pieces=50) for _ in range(8)))
    assert all(digest.encode() in reply for reply in replies)


@pytest.mark.asyncio
async def test_clients_that_leave_in_their_body_are_no_error(
    narrow: Served, caplog: pytest.LogCaptureFixture
) -> None:
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", narrow.server.port)
        writer.write(head.encode() + b"[" * 10)
        await asyncio.sleep(0.005)
        writer.transport.abort()
    assert await narrow.call("eth_chainId") == "0x1092"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.asyncio
async def test_clients_that_leave_before_their_reply_are_no_error(
    narrow: Served, caplog: pytest.LogCaptureFixture
) -> None:
    request = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n"
    )
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", narrow.server.port)
        writer.write(request + b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'[:46])
        writer.transport.abort()
    assert await narrow.call("eth_chainId") == "0x1092"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
