"""A JSON-RPC client for the project's own programs: batches, wallets with local nonces, calls to the native modules."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from ctt_state.abi import Function, Module, decode_values
from ctt_state.crypto import address_of
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, Hash, hex_of

REQUEST_SECONDS_MAX: Final = 30.0
CONNECTIONS_MAX: Final = 16
RECEIPT_POLL_SECONDS: Final = 0.1
HEARTBEAT_SECONDS: Final = 10.0
TRY_LATER: Final = -32005  # the node's code for what may pass


class RpcError(Exception):
    """The node answered with an error; its text is the node's."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message")))
        self.code = int(error.get("code", 0))
        self.data = error.get("data")


class Client:
    """One node's door, with an API token if it asks for one. An async context manager."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, *params: Any) -> Any:
        """Raises: RpcError, aiohttp.ClientError, TimeoutError."""
        answer = await self._post(self._request(method, params))
        return _result(answer)

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results in order; a call that failed has its RpcError in its place. Raises: as `call`, where the node
        refuses all of it."""
        requests = [self._request(method, params) for method, params in calls]
        replies = await self._post(requests)
        if isinstance(replies, dict):
            raise RpcError(replies["error"])
        answers = {answer["id"]: answer for answer in replies}
        return [_outcome(answers[request["id"]]) for request in requests]

    async def read(
        self, module: Module, signature: str, *arguments: Any, block: str = "latest"
    ) -> tuple[Any, ...]:
        """A view's results at this block."""
        function = module.named(signature)
        return decode_output(
            function, await self.call("eth_call", call_object(module, function, *arguments), block)
        )

    @asynccontextmanager
    async def subscription(self, kind: str) -> AsyncIterator[AsyncIterator[Any]]:
        """What the node tells of this kind over a WebSocket, until either closes it. Raises: as `call`."""
        async with self._open().ws_connect(self.url, heartbeat=HEARTBEAT_SECONDS) as socket:
            await socket.send_json(self._request("eth_subscribe", [kind]))
            _result(await socket.receive_json(timeout=REQUEST_SECONDS_MAX))
            yield _told(socket)

    async def receipt(
        self, transaction_hash: str, seconds_max: float = REQUEST_SECONDS_MAX
    ) -> dict[str, Any]:
        """Waits for the transaction's receipt. Raises: TimeoutError."""
        async with asyncio.timeout(seconds_max):
            while True:
                receipt: dict[str, Any] | None = await self.call(
                    "eth_getTransactionReceipt", transaction_hash
                )
                if receipt is not None:
                    return receipt
                await asyncio.sleep(RECEIPT_POLL_SECONDS)

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    async def _post(self, body: Any) -> Any:
        async with self._open().post(self.url, json=body) as response:
            if response.status in (429, 503):
                raise _try_later(response)
            return await response.json()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in 'async with'")
        return self._session


class Wallet:
    """A key with its next nonce. Not for two programs at once: the nonce is counted here."""

    def __init__(self, client: Client, key: bytes, chain_id: int) -> None:
        self.client = client
        self.address = address_of(key)
        self._key = key
        self._chain_id = chain_id
        self._nonce: int | None = None

    async def send(
        self, module: Module, signature: str, *arguments: Any, value: int = 0, gas_limit: int = 1_000_000
    ) -> str:
        """Sends a call to a module and gives the transaction's hash. Raises: RpcError."""
        data = module.named(signature).encode_arguments(*arguments)
        return await self.send_raw(module.address, value, data, gas_limit)

    async def send_raw(self, to: Address, value: int, data: bytes = b"", gas_limit: int = 21_000) -> str:
        if self._nonce is None:
            count = await self.client.call("eth_getTransactionCount", hex_of(self.address), "pending")
            self._nonce = int(count, 16)
        raw = sign_transaction(
            self._key,
            chain_id=self._chain_id,
            nonce=self._nonce,
            gas_limit=gas_limit,
            to=to,
            value=value,
            data=data,
        )
        try:
            transaction_hash: str = await self.client.call("eth_sendRawTransaction", hex_of(raw))
        except RpcError:
            self._nonce = None  # ask again: the node knows better
            raise
        self._nonce += 1
        return transaction_hash


def call_object(module: Module, function: Function, *arguments: Any) -> dict[str, str]:
    """The first parameter of eth_call."""
    return {"to": hex_of(module.address), "data": hex_of(function.encode_arguments(*arguments))}


def decode_output(function: Function, output: str) -> tuple[Any, ...]:
    return decode_values(function.outputs, bytes.fromhex(output.removeprefix("0x")))


def decode_log(module: Module, log: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """An event of the module by name with its values by name, None for another's."""
    topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
    event = module.events.get(Hash(topics[0])) if topics else None
    if event is None or log["address"] != hex_of(module.address):
        return None
    indexed = [param for param in event.params if param.indexed]
    plain = [param for param in event.params if not param.indexed]
    values = dict(
        zip([param.name for param in indexed], decode_values(indexed, b"".join(topics[1:])), strict=True)
    )
    data = decode_values(plain, bytes.fromhex(log["data"][2:]))
    return event.name, values | dict(zip([param.name for param in plain], data, strict=True))


async def _told(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Any]:
    async for message in socket:
        yield json.loads(message.data)["params"]["result"]


def _try_later(response: aiohttp.ClientResponse) -> RpcError:
    """What a proxy before the node says in HTTP, as the node says it itself."""
    error: dict[str, Any] = {"code": TRY_LATER, "message": f"{response.status} {response.reason}"}
    after_s = response.headers.get("Retry-After", "")
    if after_s.isascii() and after_s.isdigit():
        error["data"] = {"retry_after_ms": int(after_s) * 1_000}
    return RpcError(error)


def _result(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise RpcError(answer["error"])
    return answer["result"]


def _outcome(answer: dict[str, Any]) -> Any:
    return RpcError(answer["error"]) if "error" in answer else answer["result"]
