"""The HTTP door: what is served, what is refused with which status, and how long a client may take."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from rpc.server import ServerLimits
from tests.rpc_world import ALICE_KEY, BOB, Served, make_config, served

pytestmark = pytest.mark.asyncio

CHAIN_ID_REPLY = b'"result":"0x1092"'
CHAIN_ID_CALL = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'
QUICK = ServerLimits(headers_s=0.2, body_s=0.2, idle_s=0.4, reply_s=0.3)


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Served]:
    async with served(config=make_config(origins=frozenset({"https://wallet.example"}))) as node:
        yield node


async def exchange(node: Served, request: bytes, timeout_s: float = 5.0) -> bytes:
    """What the server says to these bytes until it closes or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(request)
    said = b""
    try:
        async with asyncio.timeout(timeout_s):
            while chunk := await reader.read(65_536):
                said += chunk
                if b"keep-alive" in said or (said.count(b"\r\n\r\n") and b"Content-Length" in said):
                    break
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return said


def post(
    body: bytes = CHAIN_ID_CALL, *headers: str, host: str = "localhost", length: int | None = None
) -> bytes:
    """A POST as raw bytes."""
    lines = [
        "POST / HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        *headers,
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.") else 0


# --- what is served ------------------------------------------------------------------------------------------------


async def test_health_tells_the_height_and_whether_it_syncs(node: Served) -> None:
    async with node.http.get(node.url + "/health") as response:
        assert (response.status, await response.text()) == (200, "ok height 1\n")
    node.world.syncing = True
    async with node.http.get(node.url) as response:
        assert (response.status, await response.text()) == (200, "syncing height 1\n")


async def test_a_browser_gets_the_pages_and_nothing_from_elsewhere() -> None:
    pages = {"/": ("text/html", b"<p>\xc3\xa9</p>"), "/static/a.js": ("text/javascript", b"let a")}
    async with served(config=make_config(pages=pages)) as node:
        for path, accept, content_type, text in (
            ("/", "text/html,*/*", "text/html", "<p>\xe9</p>"),
            ("/static/a.js", "*/*", "text/javascript", "let a"),
            ("/", "*/*", "text/plain", "ok height 1\n"),
        ):
            async with node.http.get(node.url + path, headers={"Accept": accept}) as response:
                assert (response.status, response.content_type) == (200, content_type)
                assert await response.text() == text
                if content_type != "text/plain":
                    policy = response.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        async with node.http.get(node.url + "/static/b.js") as response:
            assert response.status == 404


async def test_a_page_that_the_browser_has_is_not_sent_again() -> None:
    pages = {"/static/a.js": ("text/javascript", b"let a")}
    async with served(config=make_config(pages=pages)) as node:
        async with node.http.get(node.url + "/static/a.js") as response:
            tag = response.headers["ETag"]
        for known, status, length in ((tag, 304, 0), ('"another"', 200, 5)):
            async with node.http.get(node.url + "/static/a.js", headers={"If-None-Match": known}) as response:
                assert (response.status, len(await response.read())) == (status, length)


async def test_a_notification_has_no_reply(node: Served) -> None:
    async with node.http.post(
        node.url,
        data=b'{"jsonrpc":"2.0","method":"eth_chainId"}',
        headers={"Content-Type": "application/json"},
    ) as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_a_chunked_body_is_read(node: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield CHAIN_ID_CALL[:10]
        yield CHAIN_ID_CALL[10:]

    async with node.http.post(
        node.url, data=chunks(), headers={"Content-Type": "application/json"}
    ) as response:
        assert (await response.json())["result"] == "0x1092"


async def test_pipelined_requests_are_answered_in_order(node: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    for number in range(200):
        writer.write(post(b'{"jsonrpc":"2.0","id":%d,"method":"eth_chainId"}' % number))
    said, ids = b"", list[int]()
    async with asyncio.timeout(10):
        while len(ids) < 200:
            said += await reader.read(65_536)
            ids = [int(part.split(b",")[0]) for part in said.split(b'"id":')[1:] if b"}" in part]
    assert ids == list(range(200))
    writer.close()


def waiting_call(node: Served) -> bytes:
    """A request that is answered with the next block."""
    raw = "0x" + node.world.sign(ALICE_KEY, BOB).hex()
    call = {"jsonrpc": "2.0", "id": 0, "method": "eth_sendRawTransactionSync", "params": [raw, 30_000]}
    return post(json.dumps(call).encode())


async def test_only_so_many_requests_are_read_ahead(node: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(waiting_call(node) + post() * 999)
    await until(lambda: node.world.pool_counts()[0] == 1)
    (connection,) = node.server._http.connections
    await until(lambda: len(connection._messages) == 16)
    await asyncio.sleep(0.05)
    assert len(connection._messages) == 16

    node.world.make_block()

    said = b""
    async with asyncio.timeout(10):
        while said.count(b"HTTP/1.1 200 OK") < 1_000 or not said.endswith(b"}"):
            said += await reader.read(65_536)
    writer.close()


async def test_a_client_that_leaves_waits_no_more(node: Served) -> None:
    """What it has sent stays."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(waiting_call(node))
    await until(lambda: node.server.door.inclusion._waiting)
    writer.close()
    await until(lambda: not node.server.door.inclusion._waiting)
    assert node.world.pool_counts() == (1, 0) and node.server.gate.total == 0


async def test_expect_continue_is_answered_before_the_body(node: Served) -> None:
    head = post(b"", "Expect: 100-continue", length=len(CHAIN_ID_CALL))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(head)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(CHAIN_ID_CALL)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
async def test_other_methods_are_told_to_post(node: Served, method: str) -> None:
    said = await exchange(node, f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status_of(said) == 405
    assert b"use POST" in said and b"Allow: GET, HEAD, POST, OPTIONS" in said


@pytest.mark.parametrize(
    "path", ["/rpc", "/../etc/passwd", "/%2e%2e/etc/passwd", "//", "/explorer/index.html", "/health/x"]
)
async def test_unknown_paths_are_not_found(node: Served, path: str) -> None:
    assert status_of(await exchange(node, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())) == 404


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                     "application/json; charset=utf-16", "application/jsonp"]
)  # fmt: skip
async def test_only_json_is_taken(node: Served, content_type: str | None) -> None:
    line = f"Content-Type: {content_type}\r\n" if content_type else ""
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: {len(CHAIN_ID_CALL)}\r\n\r\n"
    said = await exchange(node, head.encode() + CHAIN_ID_CALL)
    assert status_of(said) == 415 and b"send application/json" in said


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
async def test_compressed_bodies_are_refused_unread(node: Served, encoding: str) -> None:
    bomb = gzip.compress(b"0" * 1_000_000)
    said = await exchange(node, post(bomb, f"Content-Encoding: {encoding}"))
    assert status_of(said) == 415 and b"compressed bodies are not accepted" in said


@pytest.mark.parametrize(
    "header",
    ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6",
     "Content-Length: +5", "Content-Length: -1", "Content-Length: 0x5", "Transfer-Encoding: chunked, identity",
     "Transfer-Encoding: chunked", "Content-Length : 5", "X: a\r\n b\r\nContent-Length: 5", "X: a\0b\r\nContent-Length: 5"],
)  # fmt: skip
async def test_ambiguous_framing_is_refused_and_closed(node: Served, header: str) -> None:
    request = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\nhello"
    said = await exchange(node, request.encode())
    assert status_of(said) == 400 and (b"HTTP/1.0" in said or b"Connection: close" in said)


@pytest.mark.parametrize(
    "request_", [b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\nHost: localhost\n\n",
                 b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"nonsense\r\n\r\n"]
)  # fmt: skip
async def test_what_is_no_plain_http_1_1_is_refused(node: Served, request_: bytes) -> None:
    assert status_of(await exchange(node, request_, timeout_s=1)) in (0, 400, 405)


async def test_an_offer_of_http_2_is_passed_over(node: Served) -> None:
    """Java's own client makes it with every first request; who makes it speaks HTTP/1.1 as well."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    assert (await exchange(node, post(CHAIN_ID_CALL, *offer))).startswith(b"HTTP/1.1 200 OK")


async def test_connect_is_refused(node: Served) -> None:
    said = await exchange(node, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n")
    assert status_of(said) in (400, 405)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_large_body_is_refused_with_its_size(node: Served, declared: bool) -> None:
    size = 3_000_000
    if declared:
        said = await exchange(node, post(b"", length=size))
        assert b"body 3,000,000 bytes; limit 1,048,576" in said
    else:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        said = await exchange(node, head + b"%x\r\n" % size + b" " * size)
        assert b"limit 1,048,576" in said
    assert status_of(said) == 413


async def test_a_too_large_body_is_refused_before_it_is_sent(node: Served) -> None:
    said = await exchange(node, post(b"", "Expect: 100-continue", length=3_000_000))
    assert status_of(said) == 413


async def test_oversized_heads_are_refused(node: Served) -> None:
    assert status_of(await exchange(node, post(CHAIN_ID_CALL, "X: " + "a" * 9_000))) == 431
    assert status_of(await exchange(node, post(CHAIN_ID_CALL, *[f"X{n}: y" for n in range(100)]))) == 431
    long_uri = f"GET /{'a' * 3_000} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert status_of(await exchange(node, long_uri.encode())) == 414


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8545", "127.0.0.1:1", "[::1]:8545"])
async def test_the_loopback_is_a_known_host(node: Served, host: str) -> None:
    assert status_of(await exchange(node, post(host=host))) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil", "0x7f000001", "localhost.", "localhost:evil", "2130706433", "[::2]", "localhost:8545:1"]
)  # fmt: skip
async def test_other_hosts_are_refused(node: Served, host: str) -> None:
    said = await exchange(node, post(host=host))
    assert status_of(said) == 403 and b"is not allowed; see --rpc-hosts" in said


async def test_a_request_needs_exactly_one_host(node: Served) -> None:
    assert status_of(await exchange(node, b"GET / HTTP/1.1\r\n\r\n")) == 400
    assert (
        status_of(await exchange(node, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"))
        == 400
    )


async def test_configured_hosts_are_known() -> None:
    async with served(config=make_config(hosts=frozenset({"node.example"}))) as node:
        assert status_of(await exchange(node, post(host="node.example:80"))) == 200


# --- browsers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["https://wallet.example", "http://localhost", "chrome-extension://abcdefghijklmnop", "moz-extension://0-1"]
)  # fmt: skip
async def test_known_origins_may_read_the_answer(node: Served, origin: str) -> None:
    said = await exchange(node, post(CHAIN_ID_CALL, f"Origin: {origin}"))
    assert status_of(said) == 200 and f"Access-Control-Allow-Origin: {origin}\r\n".encode() in said


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://wallet.example.evil", "http://localhost:1"]
)
async def test_pages_from_elsewhere_are_refused(node: Served, origin: str) -> None:
    for method in ("POST", "OPTIONS", "GET"):
        request = post(CHAIN_ID_CALL, f"Origin: {origin}").replace(b"POST", method.encode(), 1)
        said = await exchange(node, request)
        assert status_of(said) == 403 and b"Access-Control" not in said


async def test_a_preflight_tells_what_is_allowed(node: Served) -> None:
    headers = {"Origin": "https://wallet.example", "Access-Control-Request-Method": "POST"}
    async with node.http.options(node.url, headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "https://wallet.example"
        assert response.headers["Access-Control-Allow-Headers"] == "content-type, authorization"


# --- slow and many -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"], ids=["nothing", "half a line", "headers"]
)  # fmt: skip
async def test_a_head_that_does_not_come_in_time_closes_the_connection(start: bytes) -> None:
    async with served(config=make_config(QUICK)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        writer.write(start)
        assert await closes_within(reader, 2)
        assert node.server.gate.total == 0
        writer.close()


async def test_a_second_slow_head_closes_the_connection() -> None:
    """The deadline is each request's, not only the first one's."""
    limits = ServerLimits(headers_s=0.2, idle_s=30)
    async with served(config=make_config(limits)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        writer.write(post())
        await reader.readuntil(b"}")
        writer.write(b"POST / HTTP/1.1\r\nHo")
        assert await closes_within(reader, 2)
        writer.close()


async def test_a_body_that_does_not_come_in_time_is_answered_and_closed() -> None:
    async with served(config=make_config(QUICK)) as node:
        said = await exchange(node, post(b'{"jsonrpc"', length=100))
        assert status_of(said) == 408 and b"body not received within 0.2 s" in said


async def test_an_idle_connection_is_closed() -> None:
    async with served(config=make_config(QUICK)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        writer.write(post())
        await reader.readuntil(b"}")
        assert await closes_within(reader, 2)
        writer.close()


async def test_a_client_that_does_not_read_its_reply_is_cut_off() -> None:
    limits = ServerLimits(reply_s=0.3)
    async with served(config=make_config(limits)) as node:
        for _ in range(400):
            node.world.take(node.world.sign(ALICE_KEY, BOB, data=b"x" * 4_000))
        node.world.make_block()
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["latest",true]}'
        _reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, limit=1_024)
        for _ in range(8):
            writer.write(post(body))
        await until(lambda: node.server.gate.total == 1)
        await until(lambda: node.server.gate.total == 0, timeout_s=10)
        assert node.server._held_bytes == 0
        writer.close()


async def test_a_slow_client_does_not_hold_up_another() -> None:
    async with served() as node:
        slow = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(20)]
        for _, writer in slow:
            writer.write(b"POST / HTTP/1.1\r\n")
        assert await node.call("eth_chainId") == "0x1092"
        for _, writer in slow:
            writer.close()


async def test_one_connection_too_many_is_closed_at_accept() -> None:
    async with served(config=make_config(ServerLimits(connections_per_address_max=3))) as node:
        kept = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(3)]
        await until(lambda: node.server.gate.total == 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        assert await closes_within(reader, 2)
        assert node.server.gate.refused == 1
        for _, held in [*kept, (reader, writer)]:
            held.close()
        await until(lambda: node.server.gate.total == 0)
        assert await node.call("eth_chainId") == "0x1092"


async def test_connections_that_libraries_keep_give_way_to_new_ones() -> None:
    async with served(config=make_config(ServerLimits(connections_per_address_max=3))) as node:
        kept = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(3)]
        for reader, writer in kept:
            writer.write(post())
            await reader.readuntil(b'"result":"0x1092"}')
        assert CHAIN_ID_REPLY in await exchange(node, post())
        assert await closes_within(kept[0][0], 2)
        for reader, writer in kept[1:]:
            writer.write(post())
            await reader.readuntil(b'"result":"0x1092"}')
        for _, writer in kept:
            writer.close()


async def test_bodies_that_never_end_take_bounded_memory() -> None:
    """What they have sent counts until they are gone; a small request of somebody else's is served all the while."""
    limits = ServerLimits(held_bytes_max=100_000, body_s=0.5, accepts_per_s=1_000)
    async with served(config=make_config(limits)) as node:
        half = post(b"[" * 60_000, length=200_000)
        talks = [asyncio.create_task(exchange(node, half)) for _ in range(4)]
        await asyncio.sleep(0.2)
        assert await node.call("eth_chainId") == "0x1092"
        statuses = sorted(status_of(said) for said in await asyncio.gather(*talks))
        assert statuses in ([408, 503, 503, 503], [503] * 4)
        assert node.server._held_bytes == 0


async def test_too_many_unread_replies_make_others_wait() -> None:
    async with served(config=make_config(ServerLimits(held_bytes_max=-1))) as node:
        error = await node.error("eth_chainId")
        assert error["code"] == -32005 and "overloaded" in error["message"]


async def test_stop_ends_open_connections() -> None:
    async with served() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        await until(lambda: node.server.gate.total == 1)
        await node.server.stop()
        assert await closes_within(reader, 3)
        with pytest.raises(aiohttp.ClientConnectionError):
            await node.call("eth_chainId")
        writer.close()


async def closes_within(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(65_536):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def until(condition: Any, timeout_s: float = 3.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
