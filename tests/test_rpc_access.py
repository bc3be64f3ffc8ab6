"""Who may ask what of JSON-RPC, and how much: roles, API tokens, quotas, and places kept for meters."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc.access import (
    LOCAL,
    QUOTAS,
    ROLES,
    Access,
    AccessRules,
    Bucket,
    Client,
    NotAdmitted,
    Role,
    Token,
    hash_token,
    network_of,
    read_tokens,
    write_token,
)
from rpc.discovery import METHODS
from rpc.errors import RateLimited
from rpc.jsonrpc import EnvelopeLimits
from rpc.server import ServerLimits
from tests.rpc_world import ALICE_KEY, BOB, START_MS, RpcWorld, Served, make_config, served
from tests.test_rpc_http import CHAIN_ID_CALL, closes_within, exchange, post, status_of, until
from tests.test_rpc_websocket import connect, upgrade

TODAY: Final = date(2023, 11, 14)  # of the world's clock
assert START_MS // 86_400_000 == (TODAY - date(1970, 1, 1)).days

METER, PLATFORM, OPERATOR, EXPIRED = "ctt_m", "ctt_p", "ctt_o", "ctt_e"
TOKENS: Final = (
    Token(hash_token(METER), Role.METER, "street-7", date(2023, 11, 15)),
    Token(hash_token(PLATFORM), Role.PLATFORM, "exchange", None),
    Token(hash_token(OPERATOR), Role.OPERATOR, "control-room", None),
    Token(hash_token(EXPIRED), Role.OPERATOR, "summer", TODAY),
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make_access(
    tokens: Sequence[Token] | None = TOKENS,
    *,
    least: Role = Role.PUBLIC,
    clock: Any = lambda: 0.0,
    **quotas: int | None,
) -> Access:
    named = {ROLES[name]: units for name, units in quotas.items()}
    return Access(AccessRules(least, {**QUOTAS, **named}), clock, lambda: TODAY, tokens)


def ask(
    access: Access, *authorization: str, address: str = "192.0.2.1", certificate: str | None = None
) -> Client:
    return access.client(address, certificate, authorization)


def refusal(access: Access, *authorization: str, **who: Any) -> tuple[int, str]:
    with pytest.raises(NotAdmitted) as caught:
        ask(access, *authorization, **who)
    return caught.value.status, str(caught.value)


# --- roles ----------------------------------------------------------------------------------------------------------


def test_without_a_list_of_tokens_this_machine_is_an_operator_and_others_are_the_public() -> None:
    access = make_access(None)

    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert ask(access, address=address) is LOCAL
    for address in ("192.0.2.1", "2001:db8::1", "10.0.0.1", "local"):
        assert ask(access, address=address).role is Role.PUBLIC


def test_with_a_list_of_tokens_nobody_is_trusted_for_being_near() -> None:
    """A proxy on the same machine would make everyone near."""
    for tokens in (TOKENS, ()):
        assert ask(make_access(tokens), address="127.0.0.1").role is Role.PUBLIC


@pytest.mark.parametrize(
    ("secret", "role"), [(METER, Role.METER), (PLATFORM, Role.PLATFORM), (OPERATOR, Role.OPERATOR)]
)
def test_a_token_gives_its_role_from_anywhere(secret: str, role: Role) -> None:
    access = make_access()

    client = ask(access, f"Bearer {secret}")

    assert client.role is role
    assert ask(access, f"bearer  {secret}", address="10.0.0.9") is client


@pytest.mark.parametrize(
    ("authorization", "text"),
    [
        (["Bearer ctt_x"], "unknown token; it may be revoked"),
        ([f"Bearer {EXPIRED}"], "token expired at 2023-11-14"),
        ([f"Bearer {METER}", f"Bearer {METER}"], "two Authorization headers; send one"),
        (["Basic YTpi"], "malformed Authorization header; send 'Bearer TOKEN'"),
        (["Bearer"], "malformed Authorization header; send 'Bearer TOKEN'"),
        ([""], "malformed Authorization header; send 'Bearer TOKEN'"),
        (["Bearer " + "x" * 300], "malformed Authorization header; send 'Bearer TOKEN'"),
        (["Bearer ctt_m\u0661"], "malformed Authorization header; send 'Bearer TOKEN'"),
    ],
)
def test_a_wrong_token_is_no_role_at_all(authorization: list[str], text: str) -> None:
    assert refusal(make_access(), *authorization) == (401, text)


def test_who_must_have_a_token_is_told_which() -> None:
    access = make_access(least=Role.PLATFORM)

    needed = "a token of role platform is needed: 'Authorization: Bearer TOKEN'"
    assert refusal(access) == (401, needed)
    assert refusal(access, f"Bearer {METER}") == (403, "role meter is not served here; platform is needed")
    assert ask(access, f"Bearer {PLATFORM}").role is Role.PLATFORM
    assert ask(access, f"Bearer {OPERATOR}").role is Role.OPERATOR


def test_a_certificate_makes_a_platform_and_a_token_counts_for_more() -> None:
    access = make_access()

    client = ask(access, certificate="exchange")

    assert (client.role, client.name) == (Role.PLATFORM, "certificate exchange")
    assert ask(access, certificate="exchange", address="10.0.0.1") is client
    assert ask(access, f"Bearer {OPERATOR}", certificate="exchange").role is Role.OPERATOR


def test_a_new_list_ends_those_that_are_not_on_it() -> None:
    access = make_access()
    meter, platform = ask(access, f"Bearer {METER}"), ask(access, f"Bearer {PLATFORM}")

    access.set_tokens(TOKENS[:1])

    assert access.ended(meter) is None and access.ended(platform) == "the token is revoked"
    assert ask(access, f"Bearer {METER}") is meter
    assert refusal(access, f"Bearer {PLATFORM}")[0] == 401


def test_the_first_list_ends_the_trust_in_this_machine() -> None:
    access = make_access(None)
    near, far = ask(access, address="127.0.0.1"), ask(access)
    assert access.ended(near) is access.ended(far) is None

    access.set_tokens(())

    assert access.ended(near) == "the node asks for tokens now" and access.ended(far) is None


def test_an_expired_token_ends_its_client() -> None:
    today = [date(2023, 11, 14)]
    access = Access(AccessRules(), lambda: 0.0, lambda: today[0], TOKENS)
    meter = ask(access, f"Bearer {METER}")
    assert access.ended(meter) is None

    today[0] = date(2023, 11, 15)

    assert access.ended(meter) == "token expired at 2023-11-15"


# --- the list -------------------------------------------------------------------------------------------------------


def test_a_list_is_read_as_it_was_written() -> None:
    text = "# a comment\n\n" + "".join(map(write_token, TOKENS))

    assert read_tokens(text) == list(TOKENS)
    assert METER not in text


HASH: Final = "0" * 64


@pytest.mark.parametrize(
    "line",
    ["x", f"{HASH} meter a", f"{HASH} meter a never b", f"{HASH[1:]} meter a never", f"{HASH[1:]}G meter a never",
     f"{HASH} king a never", f"{HASH} meter -a never", f"{HASH} meter {'a' * 64} never", f"{HASH} meter a 2030-13-01",
     f"{HASH} meter a soon", f"{HASH.replace('0', 'A')} meter a never", f"{HASH}  meter a never"],
)  # fmt: skip
def test_a_damaged_list_is_refused_with_the_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no token"):
        read_tokens(f"# begin\n{line}\n")


def test_two_tokens_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="line 2: the name street-7 appears twice"):
        read_tokens(write_token(TOKENS[0]) * 2)


def test_a_list_has_a_limit() -> None:
    lines = [f"{n:064x} meter m{n} never\n" for n in range(5_001)]

    assert len(read_tokens("".join(lines[:5_000]))) == 5_000
    with pytest.raises(ValueError, match="has 5,001 tokens; limit 5,000"):
        read_tokens("".join(lines))


# --- quotas ---------------------------------------------------------------------------------------------------------


def test_a_client_that_asks_too_much_is_told_when_to_come_back() -> None:
    now = [0.0]
    client = ask(make_access(clock=lambda: now[0], public=50))
    client.charge(490)
    client.charge(10)  # ten seconds' worth

    with pytest.raises(RateLimited) as caught:
        client.charge(12)

    assert caught.value.to_json() == {
        "code": -32005,
        "message": "rate limit 50/s for this client; retry in 240 ms",
        "data": {"retry_after_ms": 240},
    }
    now[0] = 0.24
    client.charge(12)


def test_what_costs_more_than_a_full_bucket_takes_all_of_it() -> None:
    client = ask(make_access(public=1))
    client.charge(1_000)
    with pytest.raises(RateLimited):
        client.charge(1)


def test_each_client_has_a_quota_of_its_own() -> None:
    access = make_access(public=1, meter=1)
    for who in (ask(access), ask(access, address="192.0.2.2"), ask(access, f"Bearer {METER}")):
        who.charge(10)
        with pytest.raises(RateLimited):
            who.charge(1)
    ask(access, f"Bearer {OPERATOR}").charge(10**9)
    LOCAL.charge(10**9)


def test_a_line_of_ipv6_is_one_client() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == network_of("2001:db8::1%eth0")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")


def test_a_new_list_does_not_refill_buckets() -> None:
    access = make_access(meter=1, public=1)
    ask(access, f"Bearer {METER}").charge(10)
    ask(access).charge(10)

    access.set_tokens(TOKENS[:1])

    for authorization in ([f"Bearer {METER}"], []):
        with pytest.raises(RateLimited):
            ask(access, *authorization).charge(1)


def test_only_so_many_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpc.access.CLIENTS_MAX", 3)
    access = make_access(public=1)
    for n in (1, 2, 3, 1, 4):  # 2 is idle for longest
        ask(access, address=f"192.0.2.{n}").charge(1)

    assert list(access._others) == ["192.0.2.3", "192.0.2.1", "192.0.2.4"]


@given(
    per_s=st.integers(1, 1_000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3_000)), max_size=60),
)
def test_no_client_gets_more_than_its_quota(per_s: int, steps: list[tuple[float, int]]) -> None:
    """Whatever it asks for, whenever: never more than a full bucket and what has flown in since, nor less."""
    bucket, now, taken = Bucket(per_s, per_s * 10, 0.0), 0.0, 0.0
    for pause_s, units in steps:
        now += pause_s
        wait_s = bucket.take(units, now)
        if wait_s:
            assert bucket.take(units, now + wait_s * 1.001 + 1e-6) == 0
            now += wait_s * 1.001 + 1e-6
        taken += min(units, per_s * 10)
        assert taken <= per_s * (10 + now) * (1 + 1e-9) + 1e-6


def test_costly_methods_cost_more() -> None:
    costs = {
        name: METHODS[name].cost
        for name in ("eth_blockNumber", "eth_sendRawTransaction", "eth_call", "eth_getLogs")
    }
    assert costs == {"eth_blockNumber": 1, "eth_sendRawTransaction": 2, "eth_call": 5, "eth_getLogs": 20}


# --- over HTTP ------------------------------------------------------------------------------------------------------


def serve(
    world: RpcWorld | None = None,
    *,
    least: Role = Role.PUBLIC,
    limits: ServerLimits | None = None,
    **quotas: int | None,
) -> AbstractAsyncContextManager[Served]:
    """A node with tokens."""
    rules = AccessRules(least, {**QUOTAS, **{ROLES[name]: units for name, units in quotas.items()}})
    return served(world, make_config(limits, rules=rules, tokens=TOKENS))


CALL: Final = {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId", "params": []}
POOL: Final = {"jsonrpc": "2.0", "id": 7, "method": "txpool_content", "params": []}


@pytest.mark.asyncio
async def test_a_token_is_shown_with_each_request() -> None:
    async with serve(least=Role.METER) as node:
        assert (await node.post(CALL, **bearer(METER)))["result"] == "0x1092"
        said = await exchange(node, post())
        assert status_of(said) == 401 and b"WWW-Authenticate: Bearer\r\n" in said
        assert b"a token of role meter is needed" in said
        assert status_of(await exchange(node, post(b"{}", f"Authorization: Bearer {EXPIRED}"))) == 401


@pytest.mark.asyncio
async def test_another_role_is_forbidden() -> None:
    async with serve(least=Role.OPERATOR) as node:
        said = await exchange(node, post(b"{}", f"Authorization: Bearer {METER}"))
        assert status_of(said) == 403 and b"role meter is not served here; operator is needed" in said


@pytest.mark.asyncio
async def test_a_token_in_the_url_is_none() -> None:
    async with serve(least=Role.METER) as node:
        request = post().replace(b"POST /", f"POST /?token={METER}&access_token={METER}".encode(), 1)
        assert status_of(await exchange(node, request)) == 401


@pytest.mark.asyncio
async def test_health_and_page_need_no_token() -> None:
    async with serve(least=Role.OPERATOR) as node, node.http.get(node.url + "/health") as response:
        assert response.status == 200


@pytest.mark.asyncio
async def test_an_operators_method_does_not_exist_for_others() -> None:
    async with serve() as node:
        for headers in ({}, bearer(METER), bearer(PLATFORM)):
            reply = await node.post(POOL, **headers)
            assert reply["error"] == {
                "code": -32601,
                "message": "the method txpool_content does not exist/is not available",
            }
            unknown = await node.post(POOL | {"method": "txpool_contenu"}, **headers)
            assert unknown["error"] == {
                "code": -32601,
                "message": "the method txpool_contenu does not exist/is not available",
            }
        assert "result" in await node.post(POOL, **bearer(OPERATOR))


@pytest.mark.asyncio
async def test_on_this_machine_every_method_exists_while_there_are_no_tokens() -> None:
    async with served() as node:
        assert await node.call("txpool_content") == {"pending": {}, "queued": {}}


@pytest.mark.asyncio
async def test_a_batch_is_answered_as_far_as_the_quota_goes() -> None:
    async with serve(public=1) as node:
        replies = await node.post([CALL | {"id": n} for n in range(12)])
        assert [("result" in reply) for reply in replies] == [True] * 10 + [False] * 2
        error = replies[-1]["error"]
        assert error["code"] == -32005 and error["message"].startswith(
            "rate limit 1/s for this client; retry in "
        )
        assert 0 < error["data"]["retry_after_ms"] <= 1_000
        assert "result" in await node.post(CALL, **bearer(METER))


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [{}, "x", POOL | {"method": "nothing"}, CALL | {"params": [1]}])
async def test_what_is_refused_costs_as_well(body: Any) -> None:
    async with serve(public=1) as node:
        await node.post([body] * 10)
        assert (await node.post(CALL))["error"]["code"] == -32005


@pytest.mark.asyncio
async def test_a_large_body_is_paid_for_before_it_is_read() -> None:
    async with serve(public=1) as node:
        await node.post(b"[" + b" " * 200_000)
        error = (await node.post(b"[" + b" " * 200_000))["error"]
        assert error["code"] == -32005 and error["message"].startswith("rate limit 1/s")


@pytest.mark.asyncio
async def test_pages_may_send_a_token() -> None:
    async with serve() as node, node.http.options(node.url, headers={"Origin": node.url}) as response:
        assert "authorization" in response.headers["Access-Control-Allow-Headers"]


# --- over WebSocket -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_websocket_has_the_role_of_its_upgrade() -> None:
    async with serve(least=Role.METER) as node:
        async with connect(node, headers=bearer(OPERATOR)) as socket:
            assert await socket.call("txpool_content") == {"pending": {}, "queued": {}}
        async with connect(node, headers=bearer(METER)) as socket:
            assert (await socket.answer("txpool_content"))["error"]["code"] == -32601


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "status"),
    [([], 401), (["Authorization: Bearer ctt_x"], 401), ([f"Authorization: Bearer {EXPIRED}"], 401),
     ([f"Authorization: Bearer {METER}"], 403)],
)  # fmt: skip
async def test_an_upgrade_without_the_role_is_refused(headers: list[str], status: int) -> None:
    async with serve(least=Role.PLATFORM) as node:
        _, writer, head = await upgrade(node, *headers)
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        writer.close()


@pytest.mark.asyncio
async def test_a_websocket_has_a_quota() -> None:
    async with serve(public=1) as node, connect(node) as socket:
        for _ in range(10):
            await socket.call("eth_chainId")
        assert (await socket.answer("eth_chainId"))["error"]["code"] == -32005


@pytest.mark.asyncio
async def test_a_websocket_ends_with_its_token() -> None:
    async with serve() as node, connect(node, headers=bearer(METER)) as meter, connect(node) as public:
        await meter.call("eth_subscribe", "newHeads")
        node.server.set_tokens(TOKENS[1:])
        assert await meter.closed() == (1008, "the token is revoked")
        assert await public.call("eth_chainId") == "0x1092"


@pytest.mark.asyncio
async def test_a_websocket_ends_with_its_tokens_last_day(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as node, connect(node, headers=bearer(METER)) as meter:
        node.server.part_with_ended()
        assert await meter.call("eth_chainId") == "0x1092"
        monkeypatch.setattr(node.world, "now_ms", lambda: START_MS + 2 * 3_600_000)
        node.server.part_with_ended()
        assert await meter.closed() == (1008, "token expired at 2023-11-15")


# --- places kept for meters -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_meter_is_served_while_the_public_holds_every_place_it_may() -> None:
    limits = ServerLimits(connections_max=10, ordinary_percent=70)
    async with serve(limits=limits) as node:
        public = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(7)]
        for reader, writer in public:
            writer.write(post())
            assert b"0x1092" in await reader.readuntil(b"}")

        said = await exchange(node, post())
        assert (
            status_of(said) == 200 and b'"code":-32005,"message":"overloaded: the places of clients' in said
        )
        _, eighth, head = await upgrade(node)
        assert head.startswith(b"HTTP/1.1 503 ")
        for secret in (METER, OPERATOR, METER):
            assert (await node.post(CALL, **bearer(secret)))["result"] == "0x1092"
        assert b"0x1092" in await exchange(node, post(CHAIN_ID_CALL, f"Authorization: Bearer {METER}"))
        for _, writer in [*public, (None, eighth)]:
            writer.close()


@pytest.mark.asyncio
async def test_a_meter_gets_in_where_silent_connections_hold_every_place() -> None:
    limits = ServerLimits(connections_max=10)
    async with serve(limits=limits) as node:
        silent = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(10)]
        await until(lambda: node.server.gate.total == 10)

        assert (await node.post(CALL, **bearer(METER)))["result"] == "0x1092"

        assert await closes_within(silent[0][0], 2)
        assert node.server.gate.total == 10
        for _, writer in silent:
            writer.close()


@pytest.mark.asyncio
async def test_a_meter_is_heard_while_the_public_waits_for_receipts() -> None:
    limits = ServerLimits(envelope=EnvelopeLimits(ordinary_calls_max=3))
    world = RpcWorld()
    async with serve(world, limits=limits) as node, connect(node) as socket:
        raws = ["0x" + world.sign(ALICE_KEY, BOB, nonce=nonce).hex() for nonce in range(4)]
        for number, raw in enumerate(raws[:3]):
            await socket.raw.send_json(
                CALL | {"id": f"w{number}", "method": "eth_sendRawTransactionSync", "params": [raw]}
            )
        await until(lambda: world.pool_counts()[0] == 3)

        assert (await node.post([CALL, CALL]))[1]["error"] == {
            "code": -32005,
            "message": "overloaded: 3 calls are at work",
        }
        sent = CALL | {"method": "eth_sendRawTransaction", "params": [raws[3]]}
        assert "result" in await node.post(sent, **bearer(METER))
        world.make_block()
        assert {(await socket.read())["id"] for _ in range(3)} == {"w0", "w1", "w2"}
        assert (await node.post(CALL))["result"] == "0x1092"


@pytest.mark.asyncio
async def test_a_meter_overtakes_the_public_that_waits_for_its_turn() -> None:
    async with serve() as node:
        line = node.server._turnstile
        for _ in range(10_000):
            line.enter(lambda: None)

        assert (await node.post(CALL, **bearer(METER)))["result"] == "0x1092"
        assert len(line) > 1_000

        assert (await node.post(CALL))["result"] == "0x1092"
        assert not len(line)


@pytest.mark.asyncio
async def test_one_platform_leaves_room_for_others() -> None:
    limits = ServerLimits(envelope=EnvelopeLimits(client_calls_max=2))
    async with serve(limits=limits) as node, connect(node, headers=bearer(PLATFORM)) as socket:
        for nonce in range(2):
            raw = "0x" + node.world.sign(ALICE_KEY, BOB, nonce=nonce).hex()
            await socket.raw.send_json(CALL | {"method": "eth_sendRawTransactionSync", "params": [raw]})
        await until(lambda: node.world.pool_counts()[0] == 2)

        assert (await node.post(CALL, **bearer(PLATFORM)))["error"] == {
            "code": -32005,
            "message": "overloaded: 2 calls of this client are at work",
        }
        assert (await node.post(CALL))["result"] == "0x1092"
        node.world.make_block()
        assert [(await socket.read())["result"]["status"] for _ in range(2)] == ["0x1"] * 2
        assert (await node.post(CALL, **bearer(PLATFORM)))["result"] == "0x1092"


@pytest.mark.asyncio
async def test_in_a_storm_of_connections_only_so_many_come_in() -> None:
    limits = ServerLimits(accepts_per_s=20, connections_per_address_max=10_000)
    async with serve(limits=limits) as node:
        started = asyncio.get_running_loop().time()
        storm = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(100)]
        await until(lambda: node.server.gate.total + node.server.gate.refused == 100)
        seconds = asyncio.get_running_loop().time() - started
        assert 20 <= node.server.gate.total <= 20 + 20 * seconds
        for _, writer in storm:
            writer.close()


@pytest.mark.asyncio
async def test_a_storm_from_a_trusted_machine_comes_in() -> None:
    limits = ServerLimits(accepts_per_s=1)
    async with served(config=make_config(limits)) as node:
        for _ in range(5):
            assert status_of(await exchange(node, post())) == 200
