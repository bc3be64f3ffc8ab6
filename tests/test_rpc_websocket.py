"""The WebSocket door: requests, subscriptions, slow readers and broken frames."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType

from rpc.server import ServerLimits
from rpc.subscriptions import SubscriptionLimits
from tests.rpc_world import ALICE_KEY, BOB, BOB_KEY, Served, make_config, served

pytestmark = pytest.mark.asyncio


class Socket:
    """A WebSocket client that keeps notifications apart from replies."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = raw
        self.notifications: list[Any] = []
        self._next = 0

    async def read(self) -> Any:
        message = await self.raw.receive(timeout=5)
        assert message.type is WSMsgType.TEXT, message
        return json.loads(message.data)

    async def answer(self, method: str, *params: Any) -> Any:
        self._next += 1
        await self.raw.send_str(
            json.dumps({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        )
        while True:
            said = await self.read()
            if "id" in said:
                assert said["id"] == self._next
                return said
            self.notifications.append(said["params"])

    async def call(self, method: str, *params: Any) -> Any:
        reply = await self.answer(method, *params)
        assert "error" not in reply, reply
        return reply["result"]

    async def notification(self) -> Any:
        """The next one's `params`."""
        if self.notifications:
            return self.notifications.pop(0)
        said = await self.read()
        assert said["method"] == "eth_subscription"
        return said["params"]

    async def closed(self) -> tuple[int | None, str]:
        """Code and reason, after everything that was sent before."""
        while True:
            message = await self.raw.receive(timeout=10)
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                reason = message.extra if isinstance(message.extra, str) else ""
                return self.raw.close_code, reason
            if message.type is WSMsgType.TEXT:
                self.notifications.append(json.loads(message.data).get("params"))


@asynccontextmanager
async def connect(node: Served, **options: Any) -> AsyncIterator[Socket]:
    async with node.http.ws_connect(node.url, **options) as raw:
        yield Socket(raw)


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served() as node:
        yield node


# --- requests ------------------------------------------------------------------------------------------------------


async def test_text_and_binary_frames_are_answered(node: Served) -> None:
    async with connect(node) as socket:
        assert await socket.call("eth_chainId") == "0x1092"
        await socket.raw.send_bytes(b'[{"jsonrpc":"2.0","id":"a","method":"eth_chainId"}]')
        assert await socket.read() == [{"jsonrpc": "2.0", "id": "a", "result": "0x1092"}]
        await socket.raw.send_str("{")
        assert (await socket.read())["error"]["code"] == -32700
        await socket.raw.send_str('{"jsonrpc":"2.0","method":"eth_chainId"}')
        assert await socket.call("eth_blockNumber") == "0x1"


async def test_many_requests_at_once_are_all_answered(node: Served) -> None:
    async with connect(node) as socket:
        for number in range(500):
            await socket.raw.send_str(
                json.dumps({"jsonrpc": "2.0", "id": number, "method": "eth_blockNumber"})
            )
        assert sorted([(await socket.read())["id"] for _ in range(500)]) == list(range(500))


async def test_a_waiting_request_does_not_hold_up_others(node: Served) -> None:
    async with connect(node) as socket:
        raw = "0x" + node.world.sign(ALICE_KEY, BOB).hex()
        request = {
            "jsonrpc": "2.0",
            "id": "sync",
            "method": "eth_sendRawTransactionSync",
            "params": [raw, 5_000],
        }
        await socket.raw.send_str(json.dumps(request))
        assert await socket.call("eth_blockNumber") == "0x1"
        node.world.make_block()
        reply = await socket.read()
        assert (reply["id"], reply["result"]["status"]) == ("sync", "0x1")


async def test_a_client_that_leaves_leaves_nothing_behind(node: Served) -> None:
    async with connect(node) as socket:
        await socket.call("eth_subscribe", "newHeads")
        raw = "0x" + node.world.sign(ALICE_KEY, BOB).hex()
        request = {"jsonrpc": "2.0", "id": 7, "method": "eth_sendRawTransactionSync", "params": [raw, 30_000]}
        await socket.raw.send_str(json.dumps(request))
        while not node.world.pool_counts()[0]:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(3):
        while node.server.door.subscriptions.count() or node.server.door.inclusion._waiting:
            await asyncio.sleep(0.01)
    assert node.world.pool_counts() == (1, 0)  # what was admitted stays


# --- subscriptions -------------------------------------------------------------------------------------------------


async def test_new_heads_come_in_order(node: Served) -> None:
    async with connect(node) as socket:
        identity = await socket.call("eth_subscribe", "newHeads")
        node.world.make_blocks(3)
        for height in (2, 3, 4):
            told = await socket.notification()
            assert (told["subscription"], told["result"]["number"]) == (identity, hex(height))
        block = await socket.call("eth_getBlockByNumber", "0x4", False)
        assert told["result"] == {m: v for m, v in block.items() if m not in ("transactions", "uncles")}


async def test_logs_are_told_as_eth_getlogs_tells_them(node: Served) -> None:
    async with connect(node) as socket:
        owner = "0x" + BOB.rjust(32, b"\0").hex()
        every = await socket.call("eth_subscribe", "logs")
        bobs = await socket.call("eth_subscribe", "logs", {"topics": [None, None, owner]})
        for key in (ALICE_KEY, BOB_KEY):
            node.world.send_call(key, "buyEmptyTokens(uint256)", 2)
        node.world.make_block()
        told = [await socket.notification() for _ in range(6)]
        logs = await socket.call("eth_getLogs", {"fromBlock": "0x2"})
        assert [t["result"] for t in told if t["subscription"] == every] == logs
        assert [t["result"] for t in told if t["subscription"] == bobs] == logs[2:]


async def test_pending_transactions_are_told_by_hash_or_whole(node: Served) -> None:
    async with connect(node) as socket:
        short = await socket.call("eth_subscribe", "newPendingTransactions")
        whole = await socket.call("eth_subscribe", "newPendingTransactions", True)
        sent = node.world.take(node.world.sign(ALICE_KEY, BOB))
        told = {
            t["subscription"]: t["result"] for t in [await socket.notification(), await socket.notification()]
        }
        assert told[short] == "0x" + sent.hex()
        assert (told[whole]["hash"], told[whole]["blockHash"]) == ("0x" + sent.hex(), None)


async def test_an_ended_subscription_is_silent(node: Served) -> None:
    async with connect(node) as socket:
        identity = await socket.call("eth_subscribe", "newHeads")
        assert await socket.call("eth_unsubscribe", identity) is True
        assert await socket.call("eth_unsubscribe", identity) is False
        node.world.make_block()
        assert await socket.call("eth_blockNumber") == "0x2"
        assert socket.notifications == []


async def test_a_later_subscription_hears_only_later_blocks(node: Served) -> None:
    async with connect(node) as socket:
        node.world.make_blocks(2)
        first = await socket.call("eth_subscribe", "newHeads")
        node.world.make_block()
        second = await socket.call("eth_subscribe", "newHeads")
        node.world.make_block()
        told = [await socket.notification() for _ in range(3)]
        assert [(t["subscription"] == second, t["result"]["number"]) for t in told] == [
            (False, "0x4"), (False, "0x5"), (True, "0x5"),
        ]  # fmt: skip
        assert first != second


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        (["syncing"], -32602, "no subscription 'syncing'"),
        ([], -32602, "missing params[0]"),
        (["logs", {"address": "0x1"}], -32602, "params[1].address: odd number"),
        (["logs", 5], -32602, "params[1]: 5 is not an object"),
    ],
)
async def test_bad_subscriptions_are_refused(node: Served, params: list[Any], code: int, text: str) -> None:
    async with connect(node) as socket:
        error = (await socket.answer("eth_subscribe", *params))["error"]
        assert error["code"] == code and text in error["message"]


async def test_subscriptions_need_a_websocket(node: Served) -> None:
    error = await node.error("eth_subscribe", "newHeads")
    assert error["code"] == -32000 and error["message"].startswith("notifications not supported")


async def test_subscriptions_of_a_connection_are_limited(node: Served) -> None:
    async with connect(node) as socket:
        for _ in range(32):
            await socket.call("eth_subscribe", "newHeads")
        error = (await socket.answer("eth_subscribe", "newHeads"))["error"]
        assert error == {"code": -32005, "message": "32 subscriptions on this connection; limit 32"}


async def test_all_subscriptions_are_limited(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpc.subscriptions.SUBSCRIPTIONS_MAX", 1)
    async with connect(node) as first, connect(node) as second:
        await first.call("eth_subscribe", "newHeads")
        assert (await second.answer("eth_subscribe", "newHeads"))["error"]["code"] == -32005


# --- slow readers --------------------------------------------------------------------------------------------------


async def test_a_reader_too_slow_is_closed_with_the_last_block_sent() -> None:
    limits = ServerLimits(subscriptions=SubscriptionLimits(blocks_behind_max=20))
    async with served(config=make_config(limits)) as node, connect(node) as socket:
        await socket.call("eth_subscribe", "newHeads")
        async with asyncio.timeout(20):
            while not any(session.slow.is_set() for session in node.server.door.subscriptions._sessions):
                node.world.make_blocks(5)
                await asyncio.sleep(0)
        code, reason = await socket.closed()
        numbers = [int(told["result"]["number"], 16) for told in socket.notifications]
        assert code == 1013
        told = re.fullmatch("subscriber too slow; last block sent ([0-9]+) — resume from there", reason)
        assert numbers == list(range(2, numbers[-1] + 1))
        # The one that was on its way may be told again, none is skipped.
        assert told and int(told[1]) in (numbers[-1] - 1, numbers[-1])


async def test_a_reader_of_pending_transactions_too_slow_is_closed() -> None:
    limits = ServerLimits(subscriptions=SubscriptionLimits(pending_waiting_max=10))
    async with served(config=make_config(limits)) as node, connect(node) as socket:
        await socket.call("eth_subscribe", "newPendingTransactions")
        for _ in range(11):
            node.world.take(node.world.sign(ALICE_KEY, BOB))
        assert (await socket.closed())[0] == 1013


async def test_a_fast_reader_hears_a_block_of_many_logs(node: Served) -> None:
    async with connect(node) as socket:
        await socket.call("eth_subscribe", "logs")
        for _ in range(2):
            node.world.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 450, gas_limit=10_000_000)
        node.world.make_block()
        indexes = [(await socket.notification())["result"]["logIndex"] for _ in range(900)]
        assert indexes == [hex(n) for n in range(900)]


async def test_a_client_that_reads_no_reply_is_cut_off() -> None:
    limits = ServerLimits(reply_s=0.3)
    async with served(config=make_config(limits)) as node:
        for _ in range(400):
            node.world.take(node.world.sign(ALICE_KEY, BOB, data=b"x" * 4_000))
        node.world.make_block()
        _reader, writer, _ = await upgrade(node)
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["latest", True]}
        for _ in range(8):
            writer.write(frame(1, json.dumps(request).encode()))
        async with asyncio.timeout(10):
            while node.server.gate.total:
                await asyncio.sleep(0.05)
        writer.close()


# --- frames --------------------------------------------------------------------------------------------------------


async def upgrade(
    node: Served, *headers: str, version: str = "13"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A raw WebSocket: its streams and the answer's head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    lines = [
        "GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Version: {version}", *headers,
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


def frame(opcode: int, payload: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """One frame; the mask is zero, which masks nothing."""
    size = len(payload) if length is None else length
    head = bytes((opcode | 0x80 * final,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65_536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + bytes(4) + payload


async def close_code(reader: asyncio.StreamReader, timeout_s: float = 5) -> int | None:
    """The code of the close frame; None when the connection just ends."""
    async with asyncio.timeout(timeout_s):
        try:
            while True:
                opcode, size = await reader.readexactly(2)
                payload = await reader.readexactly(size)
                if opcode & 0x0F == 8:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(1, b"", length=2_000_000), 1009),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(3, b"x"), 1002),
        (frame(0, b"x"), 1002),
        (frame(9, b"x" * 126), 1002),
        (b"\x81\x02{}", 1002),
        (frame(9, b"") + b"\x81\x7e\0\x7e" + b" " * 126, 1002),
        (frame(0x41, b"{}"), 1002),
    ],
    ids=[
        "too long",
        "bad UTF-8",
        "bad opcode",
        "no start",
        "long ping",
        "no mask",
        "a mask, then none",
        "compressed",
    ],
)
async def test_broken_frames_close_the_socket(node: Served, sent: bytes, code: int) -> None:
    reader, writer, _ = await upgrade(node)
    writer.write(sent)
    assert await close_code(reader) == code
    writer.close()


@pytest.mark.parametrize("step", [1, 2, 3, 7, 70_000])
async def test_frames_may_come_in_pieces(node: Served, step: int) -> None:
    """Of each form of length, whole or byte by byte."""
    call = b'{"jsonrpc":"2.0","id":%d,"method":"eth_chainId"}'
    sent = b"".join(frame(1, call % n + b" " * spaces) for n, spaces in enumerate((0, 200, 66_000)))
    reader, writer, _ = await upgrade(node)
    for at in range(0, len(sent), step):
        writer.write(sent[at : at + step])
        if at < 400:
            await writer.drain()
            await asyncio.sleep(0)
    said = b""
    async with asyncio.timeout(10):
        while said.count(b"0x1092") < 3:
            said += await reader.read(4_096)
    writer.close()


async def test_fragments_beyond_the_limit_close_the_socket(node: Served) -> None:
    reader, writer, _ = await upgrade(node)
    writer.write(frame(1, b"[" + b" " * 60_000, final=False))
    for _ in range(20):
        writer.write(frame(0, b" " * 60_000, final=False))
    assert await close_code(reader) == 1009
    writer.close()


async def test_a_message_that_does_not_end_in_time_cuts_off() -> None:
    async with served(config=make_config(ServerLimits(body_s=0.3))) as node:
        _reader, writer, _ = await upgrade(node)
        writer.write(frame(1, b'{"jsonrpc"', length=100))
        for _ in range(10):
            await asyncio.sleep(0.1)
            writer.write(b" ")
            if node.server.gate.total == 0:
                break
        assert node.server.gate.total == 0
        writer.close()


async def test_pings_are_answered_and_are_no_messages() -> None:
    async with served(config=make_config(ServerLimits(body_s=0.2))) as node:
        reader, writer, _ = await upgrade(node)
        for _ in range(5):
            writer.write(frame(9, b"hi"))
            assert await reader.readexactly(4) == b"\x8a\x02hi"
            await asyncio.sleep(0.1)
        assert node.server.gate.total == 1
        writer.close()


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    async with served(config=make_config(ServerLimits(pong_s=0.3))) as node:
        reader, writer, _ = await upgrade(node)
        assert await close_code(reader) == 1011
        writer.close()


async def test_a_bad_upgrade_is_refused(node: Served) -> None:
    for status, reply in (
        (426, await upgrade(node, version="99")),
        (403, await upgrade(node, "Origin: https://evil.example")),
    ):
        assert reply[2].startswith(b"HTTP/1.1 %d " % status), reply[2]
        reply[1].close()
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(request)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_the_nodes_own_page_may_connect(node: Served) -> None:
    _, writer, head = await upgrade(node, "Origin: http://localhost")
    assert head.startswith(b"HTTP/1.1 101 ")
    writer.close()


async def test_compression_is_not_negotiated(node: Served) -> None:
    _, writer, head = await upgrade(node, "Sec-WebSocket-Extensions: permessage-deflate")
    assert b"permessage-deflate" not in head
    writer.close()


async def test_stop_tells_the_sockets(node: Served) -> None:
    async with connect(node) as socket:
        await socket.call("eth_chainId")
        stopping = asyncio.create_task(node.server.stop())
        assert await socket.closed() == (1001, "the node stops")
        await stopping
