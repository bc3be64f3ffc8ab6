"""`ctt_advise` by JSON-RPC over HTTP: a program beside the node, which passes its clients' questions on
(decisions/0020). Homes are advised one after the other, and an advice is kept for a minute."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiohttp import web

from apps.advisor.sources import NoAdvice
from apps.client import TRY_LATER, RpcError
from apps.kpi.history import NoHistory
from ctt_state.units import Address

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
REFUSED: Final = -32000

ANSWER_S: Final = 10.0  # then the client hears that it may ask again; the work goes on
WORK_S: Final = 300.0  # for one home: a month of blocks is long to look through
KEPT_S: Final = 60.0
KEPT_MAX: Final = 1_000
WAITING_MAX: Final = 100  # homes
BODY_BYTES_MAX: Final = 4_096
ADDRESS_BYTES: Final = 20

Ask = Callable[[Address], Awaitable[dict[str, Any]]]


class Advisors:
    """Advice by home, of now or of a minute ago at most. `ask` works one out."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._one = asyncio.Lock()
        self._works: dict[Address, asyncio.Task[dict[str, Any]]] = {}  # those that are done for KEPT_S

    async def advise(self, home: Address) -> dict[str, Any]:
        """Raises: RpcError, whose code says whether to ask again."""
        work = self._works.get(home) or self._begin(home)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.shield(work)
        except TimeoutError:
            raise refusal(TRY_LATER, "the advice is being worked out: ask again") from None

    async def stop(self) -> None:
        for work in self._works.values():
            work.cancel()
        await asyncio.gather(*self._works.values(), return_exceptions=True)

    def _begin(self, home: Address) -> asyncio.Task[dict[str, Any]]:
        if sum(not work.done() for work in self._works.values()) >= WAITING_MAX:
            raise refusal(TRY_LATER, f"{WAITING_MAX} homes wait for advice")
        if len(self._works) >= KEPT_MAX:
            del self._works[next(home for home, work in self._works.items() if work.done())]
        work = self._works[home] = asyncio.create_task(self._work(home))
        work.add_done_callback(lambda done: self._on_done(home, done))
        return work

    async def _work(self, home: Address) -> dict[str, Any]:
        """Raises: RpcError."""
        try:
            async with self._one, asyncio.timeout(WORK_S):
                return await self._ask(home)
        except (NoAdvice, NoHistory) as reason:
            raise refusal(REFUSED, str(reason)) from None
        except TimeoutError:
            raise refusal(TRY_LATER, f"the node does not tell enough within {WORK_S:g} s") from None
        except (aiohttp.ClientError, json.JSONDecodeError):
            raise refusal(TRY_LATER, "the advisor's node does not answer") from None

    def _on_done(self, home: Address, work: asyncio.Task[dict[str, Any]]) -> None:
        """What failed is tried again by the next who asks."""
        if work.cancelled() or work.exception() is not None:
            self._works.pop(home, None)
        else:
            asyncio.get_running_loop().call_later(KEPT_S, self._forget, home, work)

    def _forget(self, home: Address, work: asyncio.Task[dict[str, Any]]) -> None:
        if self._works.get(home) is work:
            del self._works[home]


def refusal(code: int, text: str) -> RpcError:
    return RpcError({"code": code, "message": text})


@asynccontextmanager
async def served(ask: Ask, port: int) -> AsyncIterator[str]:
    """At http://127.0.0.1:port, which it gives. Raises: OSError."""
    advisors = Advisors(ask)

    async def answer(request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # a page elsewhere cannot send that unasked
            raise web.HTTPUnsupportedMediaType(text="expected application/json\n")
        identity, said = None, {}
        try:
            identity, home = read_call(await request.read())
            said = {"result": await advisors.advise(home)}
        except RpcError as refused:
            said = {"error": {"code": refused.code, "message": str(refused)}}
        return web.json_response({"jsonrpc": "2.0", "id": identity, **said})

    application = web.Application(client_max_size=BODY_BYTES_MAX)
    application.router.add_post("/", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield site.name
    finally:
        await advisors.stop()
        await runner.cleanup()


def read_call(body: bytes) -> tuple[Any, Address]:
    """The id and the home that is asked for. Raises: RpcError."""
    try:
        call = json.loads(body)
    except ValueError:
        call = None
    match call:
        case {"method": "ctt_advise", "params": [str(home)] | {"prosumer": str(home)}}:
            return call.get("id"), _read_address(home)
        case {"method": "ctt_advise"}:
            raise refusal(INVALID_PARAMS, "ctt_advise takes one parameter, prosumer")
        case {"method": _}:
            raise refusal(METHOD_NOT_FOUND, "an advisor answers ctt_advise alone")
        case _:
            raise refusal(INVALID_REQUEST, "expected one JSON-RPC request")


def _read_address(text: str) -> Address:
    """Raises: RpcError."""
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        address = b""
    if len(address) != ADDRESS_BYTES or not text.startswith("0x"):
        raise refusal(INVALID_PARAMS, "prosumer is not an address: expected 0x and 40 hexadecimal digits")
    return Address(address)
