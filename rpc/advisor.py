"""The advisor that the node asks on behalf of its clients: a program of its own, which answers `ctt_advise` by JSON-RPC
(decisions/0020). The node only passes on, and waits a bounded time for a bounded answer."""

import asyncio
from typing import Final

import aiohttp

from ctt_state.units import Address, hex_of
from rpc.errors import TRY_LATER, Refused, RpcError, TryLater
from rpc.jsonrpc import parse_json
from rpc.jsontext import Json, dumps

WAIT_S: Final = 15.0  # longer than the advisor takes to say that it needs longer
QUESTIONS_MAX: Final = 32
ANSWER_BYTES_MAX: Final = 65_536


class Advisor:
    """The one at this address."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._questions = 0

    async def advise(self, prosumer: Address) -> Json:
        """Its answer as it came. Raises: Refused, TryLater: its own, and TryLater where it does not answer."""
        if self._questions >= QUESTIONS_MAX:
            raise TryLater(f"{QUESTIONS_MAX} clients wait for the advisor")
        self._questions += 1
        try:
            answer = parse_json(await self._ask(prosumer))
        except (aiohttp.ClientError, TimeoutError, RpcError):
            raise TryLater("the advisor does not answer") from None
        finally:
            self._questions -= 1
        match answer:
            case {"result": dict(advice)}:
                return advice
            case {"error": {"code": int(code), "message": str(text)}}:
                raise TryLater(text) if code == TRY_LATER else Refused(text)
            case _:
                raise TryLater("the advisor does not answer")

    async def _ask(self, prosumer: Address) -> bytes:
        """Raises: aiohttp.ClientError, also of an answer that is too long; TimeoutError."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "ctt_advise", "params": [hex_of(prosumer)]}
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as session,
            session.post(self._url, data=dumps(call), headers=headers, allow_redirects=False) as response,
        ):
            try:
                await response.content.readexactly(ANSWER_BYTES_MAX)
            except asyncio.IncompleteReadError as end:
                return end.partial
            raise aiohttp.ClientPayloadError(f"more than {ANSWER_BYTES_MAX:,} bytes")
