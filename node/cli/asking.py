"""Questions to one peer, for a command that has no chain yet. Each wait has an end, and says which it was."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, Final, TypeVar

from ctt_state.units import Height
from node.exits import Exit
from node.runner import read_clocks
from p2p.budget import Budget
from p2p.errors import OtherChain, OtherPeer, OtherVersion, PeerLeft, PeerMisbehaved, Reason
from p2p.identity import RevokedPeer, UntrustedPeer
from p2p.messages import EpochsReply, Refused, Reply, Request, SnapshotChunk, SnapshotReply
from p2p.network import Chain, Delivered, Endpoint, Identity, Network, PeerInfo, describe

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0
QUESTIONS_PER_SECOND: Final = 18  # a peer answers 20

Answer = TypeVar("Answer", EpochsReply, SnapshotReply, SnapshotChunk)


class PeerFailed(Exception):
    """Nothing more is to be had from this peer: why, and the exit code if there is no other."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code


class Conversation:
    """One question at a time (p2p.network.Handler). The first fault ends it."""

    def __init__(self) -> None:
        self.network: Network  # before anything else is called
        self._peer: PeerInfo | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._fault: PeerFailed | None = None
        self._numbers = 0
        self._budget = Budget(QUESTIONS_PER_SECOND, _now_ms())

    async def meet(self) -> PeerInfo:
        """Raises: PeerFailed."""
        if self._peer is None:
            await self._wait(CONNECT_SECONDS, "no connection")
        if self._peer is None:
            raise AssertionError("met nobody")
        return self._peer

    def number(self) -> int:
        """Of the next question."""
        self._numbers += 1
        return self._numbers

    async def ask(self, question: Request, expected: type[Answer]) -> Answer:
        """The answer; that it is one to this question, the network has seen. Raises: PeerFailed."""
        self._budget.spend(1, _now_ms())
        await asyncio.sleep(self._budget.wait_ms(_now_ms()) / 1_000)
        peer = await self.meet()
        self.network.send(peer.name, question)
        answer = await self._wait(ANSWER_SECONDS, f"no answer to '{question.NAME}'")
        if isinstance(answer, Refused):
            raise PeerFailed(Exit.UNAVAILABLE, f"refused '{question.NAME}': {answer.text}")
        if not isinstance(answer, expected):
            raise AssertionError(f"asked for {expected.NAME}, got {type(answer).__name__}")
        return answer

    async def _wait(self, seconds: float, missing: str) -> Any:
        if self._fault is not None:
            raise self._fault
        self._awaited = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                return await self._awaited
        except TimeoutError:
            raise PeerFailed(Exit.UNAVAILABLE, f"{missing} within {seconds:g} s") from None

    def _give(self, found: object) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(found)

    # --- what the network calls -----------------------------------------------------------------------------------

    def on_connected(self, peer: PeerInfo) -> None:
        self._peer = peer
        self._give(peer)

    def on_message(self, peer: PeerInfo, message: Delivered) -> None:
        """Of all that a peer says only answers matter."""
        if isinstance(message, Reply):
            self._give(message)
        elif isinstance(message, Request):
            self.network.send(peer.name, Refused(message.request, "no chain is here yet"))

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None:
        """`on_closed` knows more."""

    def on_closed(self, name: str, fault: Exception) -> None:
        if self._fault is None:
            self._fault = _explain(fault, was_met=self._peer is not None)
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(self._fault)


@asynccontextmanager
async def converse(
    identity: Identity, chain: Chain, name: str, endpoint: Endpoint
) -> AsyncIterator[Conversation]:
    """Dials the peer, once."""
    conversation = Conversation()
    conversation.network = Network(
        identity,
        chain,
        {name: [endpoint]},
        conversation,
        listen=None,
        height=lambda: Height(0),
        now_ms=_now_ms,
        rng=Random(secrets.randbits(128)),
        on_closed=conversation.on_closed,
    )
    running = asyncio.create_task(conversation.network.run())
    try:
        yield conversation
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def _explain(fault: Exception, *, was_met: bool) -> PeerFailed:
    """Why there is no session with the peer, or no more."""
    text = describe(fault)
    match fault:
        case RevokedPeer() | ssl.SSLCertVerificationError():
            return PeerFailed(Exit.PERMISSION, text)
        case UntrustedPeer() | ssl.SSLError() | OtherChain() | OtherVersion() | OtherPeer():
            return PeerFailed(Exit.CONFIGURATION, text)
        case PeerLeft(told=Reason.OTHER_CHAIN | Reason.OTHER_VERSION):  # it was the first to see it
            return PeerFailed(Exit.CONFIGURATION, text)
        case PeerMisbehaved():
            return PeerFailed(Exit.DAMAGED, text)
        case PeerLeft(told=None) | ConnectionResetError() if not was_met:
            return PeerFailed(Exit.UNAVAILABLE, f"{text}; perhaps it does not trust this node's certificate")
        case _:
            return PeerFailed(Exit.UNAVAILABLE, text)


def _now_ms() -> int:
    return read_clocks().mono_ms
