"""A proxy that passes JSON-RPC through as it is, byte for byte, and keeps what was asked, answered and told."""

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType, web

START_SECONDS_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 16  # to the node, which lets an address have 32


class Exchange(NamedTuple):
    """A request and the reply's `result` or `error`, as {"result": …} or {"error": …}."""

    method: str
    params: Any
    reply: dict[str, Any]


class Recorder:
    """Listens on a port of its own, in a thread. Read what it kept once the clients have gone."""

    def __init__(self, target: str) -> None:
        self.exchanges: list[Exchange] = []
        self.batches: list[int] = []  # sizes
        self.notifications: list[tuple[str, Any]] = []  # what was subscribed to, and what was told
        self._kinds: dict[str, str] = {}  # by subscription
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(START_SECONDS_MAX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def results(self, method: str) -> list[Any]:
        """What this method answered, errors left out."""
        return [
            kept.reply["result"]
            for kept in self.exchanges
            if kept.method == method and "result" in kept.reply
        ]

    def errors(self, method: str) -> list[Any]:
        return [
            kept.reply["error"] for kept in self.exchanges if kept.method == method and "error" in kept.reply
        ]

    async def _serve(self) -> None:
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/", self._post)
        application.router.add_get("/", self._socket)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(connector=TCPConnector(limit=CONNECTIONS_MAX)) as self._session:
            self._started.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        asked = await request.read()
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        async with self._session.post(self._target, data=asked, headers=headers) as response:
            answered = await response.read()
            pending: dict[str, tuple[str, Any]] = {}
            self._keep_asked(asked, pending)
            self._keep_answered(answered, pending)
            kind = response.headers.get("Content-Type", "application/json")
            return web.Response(body=answered, status=response.status, headers={"Content-Type": kind})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        near = web.WebSocketResponse(max_msg_size=2**24)
        await near.prepare(request)
        pending: dict[str, tuple[str, Any]] = {}
        async with self._session.ws_connect(self._target, max_msg_size=2**24) as far:
            directions = [
                asyncio.ensure_future(self._pass(near, far, self._keep_asked, pending)),
                asyncio.ensure_future(self._pass(far, near, self._keep_answered, pending)),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            await near.close()
        await asyncio.wait(directions)
        return near

    async def _pass(
        self,
        source: web.WebSocketResponse | ClientWebSocketResponse,
        target: web.WebSocketResponse | ClientWebSocketResponse,
        keep: Any,
        pending: dict[str, tuple[str, Any]],
    ) -> None:
        async for message in source:
            keep(message.data, pending)
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            else:
                await target.send_str(message.data)

    def _keep_asked(self, body: bytes | str, pending: dict[str, tuple[str, Any]]) -> None:
        """`pending` holds what was asked and not yet answered, by the id's JSON."""
        requests = json.loads(body)
        if isinstance(requests, list):
            self.batches.append(len(requests))
        for request in requests if isinstance(requests, list) else [requests]:
            pending[json.dumps(request["id"])] = (request["method"], request.get("params"))

    def _keep_answered(self, body: bytes | str, pending: dict[str, tuple[str, Any]]) -> None:
        replies = json.loads(body)
        for reply in replies if isinstance(replies, list) else [replies]:
            if reply.get("method") == "eth_subscription":
                told = reply["params"]
                self.notifications.append((self._kinds[told["subscription"]], told["result"]))
                continue
            method, params = pending.pop(json.dumps(reply.pop("id")))
            assert reply.pop("jsonrpc") == "2.0" and reply.keys() in ({"result"}, {"error"})
            if method == "eth_subscribe" and "result" in reply:
                self._kinds[reply["result"]] = params[0]
            self.exchanges.append(Exchange(method, params, reply))
