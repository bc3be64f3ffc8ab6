"""One connection's conversation, without I/O: hello first, then messages, each within its peer's budgets.

Bytes go in by `receive` and come out by `take`; time is told. Whatever ends the session is raised as SessionEnded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

from p2p.budget import Budget
from p2p.errors import (
    FrameSizeRefused,
    NotOurProtocol,
    OtherChainId,
    OtherGenesis,
    OtherVersion,
    PeerLeft,
    PeerSilent,
    PeerTooSlow,
    Reason,
    TooManyMessages,
    UnexpectedMessage,
)
from p2p.framing import FRAME_BYTES_MAX, FrameReader
from p2p.messages import (
    ANSWERS,
    SHORT_BYTES_MAX,
    Consensus,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Priority,
    Refused,
    Reply,
    Request,
    Transactions,
    decode_message,
    encode_message,
    message_type,
)
from p2p.outbox import QUEUE_BYTES_MAX, Outbox, Outcome

ASKED_MAX: Final = 256  # requests without an answer; older ones are forgotten
REFUSALS_PER_REQUEST: Final = 10  # so many times its budget a peer may ask before it misbehaves

Delivered = Hello | Consensus | Request | Reply | Transactions


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may send in a second, and how long it may be silent."""

    transactions_per_second: int = 1_000
    requests_per_second: int = 20
    consensus_per_second: int = 2_000
    replies_per_second: int = 100  # several times what the other side's budget of requests lets us ask for
    control_per_second: int = 10
    bytes_per_second: int = 16 * 1024 * 1024
    ping_ms: int = 5_000
    silence_ms: int = 15_000
    queue_bytes: int = QUEUE_BYTES_MAX


DEFAULT_LIMITS: Final = Limits()
# Each passes on what all its clients send. It speaks every second; after an outage a new session is there sooner than
# the next retransmission of an old one, which may take as long as the outage took.
VALIDATOR_LIMITS: Final = Limits(transactions_per_second=10_000, ping_ms=1_000, silence_ms=4_000)


class State(Enum):
    """Where the conversation stands."""

    GREETING = "greeting"  # ours is sent, theirs awaited
    OPEN = "open"


class Session:
    """The conversation with one peer. It begins with our hello in its queue."""

    def __init__(self, hello: Hello, now_ms: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.state = State.GREETING
        self._hello = hello
        self.limits = limits
        self._frames = FrameReader(SHORT_BYTES_MAX)
        self._outbox = Outbox(limits.queue_bytes)
        self._heard_ms = self._pinged_ms = now_ms
        self._pings = 0
        self._asked: dict[int, type[Request]] = {}  # by the number of the request, oldest first
        self._bytes = Budget(limits.bytes_per_second, now_ms)
        self._refusals = Budget(REFUSALS_PER_REQUEST * limits.requests_per_second, now_ms)
        self._budgets = {
            Priority.CONTROL: Budget(limits.control_per_second, now_ms),
            Priority.CONSENSUS: Budget(limits.consensus_per_second, now_ms),
            Priority.REQUEST: Budget(limits.requests_per_second, now_ms),
            Priority.REPLY: Budget(limits.replies_per_second, now_ms),
            Priority.TRANSACTIONS: Budget(limits.transactions_per_second, now_ms),
        }
        self.send(hello)

    # What comes

    def receive(self, data: bytes, now_ms: int) -> Iterator[Delivered]:
        """The messages that are whole now, their hello first. Pings are answered here.

        Raises: SessionEnded, after the messages before its cause.
        """
        self._heard_ms = now_ms
        self._bytes.spend(len(data), now_ms)
        try:
            for kind, payload in self._frames.feed(data):
                message = self._on_frame(kind, payload, now_ms)
                if message is not None:
                    yield message
        except FrameSizeRefused:
            if self.state is State.GREETING:
                raise NotOurProtocol(data) from None
            raise

    def _on_frame(self, kind: int, payload: bytes, now_ms: int) -> Delivered | None:
        if self.state is State.GREETING and kind not in (Hello.KIND, Goodbye.KIND):
            raise UnexpectedMessage(f"message of kind {kind:#04x} before the hello")
        if not self._is_within_budget(kind, payload, now_ms):
            return None
        match decode_message(kind, payload):
            case Hello() as hello:
                return self._on_hello(hello)
            case Goodbye(reason):
                raise PeerLeft(reason)
            case Ping(number):
                self.send(Pong(number))
                return None
            case Pong():
                return None
            case Transactions() as transactions:
                return self._on_transactions(transactions, now_ms)
            case message if isinstance(message, Reply):
                return self._on_reply(message)
            case message:
                return message

    def _on_transactions(self, transactions: Transactions, now_ms: int) -> Transactions:
        """A message that begins within the budget is taken whole; the next ones wait for its rest."""
        self._budgets[Priority.TRANSACTIONS].spend(len(transactions.raws), now_ms)
        return transactions

    def _on_hello(self, theirs: Hello) -> Hello:
        ours = self._hello
        if self.state is not State.GREETING:
            raise UnexpectedMessage("a second hello")
        if theirs.version != ours.version:
            raise OtherVersion(ours=ours.version, theirs=theirs.version)
        if theirs.chain_id != ours.chain_id:
            raise OtherChainId(ours=ours.chain_id, theirs=theirs.chain_id)
        if theirs.genesis_hash != ours.genesis_hash:
            raise OtherGenesis(ours=ours.genesis_hash, theirs=theirs.genesis_hash)
        self.state = State.OPEN
        self._frames.bytes_max = FRAME_BYTES_MAX
        return theirs

    def _is_within_budget(self, kind: int, payload: bytes, now_ms: int) -> bool:
        """Whether the message is looked at. Transactions beyond the budget are dropped, requests are refused.

        Raises: TooManyMessages for the other classes, UnexpectedMessage, MalformedMessage.
        """
        priority = message_type(kind).PRIORITY
        budget = self._budgets[priority]
        if priority is Priority.TRANSACTIONS:  # counted one by one, when they are decoded
            return not budget.is_spent(now_ms)
        if budget.take(1, now_ms):
            return True
        if priority is not Priority.REQUEST or not self._refusals.take(1, now_ms):
            raise TooManyMessages(priority.name.lower(), budget.per_second)
        request = cast(Request, decode_message(kind, payload)).request
        self.send(Refused(request, f"more than {budget.per_second} requests in a second"))
        return False

    def _on_reply(self, reply: Reply) -> Reply:
        asked = self._asked.pop(reply.request, None)
        if asked is None:
            raise UnexpectedMessage(f"{reply.NAME} to request {reply.request}, which was not sent")
        if not isinstance(reply, (ANSWERS[asked], Refused)):
            raise UnexpectedMessage(f"{reply.NAME} to request {reply.request}, which was {asked.NAME}")
        return reply

    # What goes

    def send(self, message: Message, frame: bytes | None = None) -> None:
        """Queues the message; `frame` are its bytes if they are made already.

        A reply that has no room is replaced by a refusal: the peer asked for more than it takes.
        Raises: PeerTooSlow.
        """
        if isinstance(message, Request):
            self._note_request(message)
        outcome = self._outbox.put(frame or encode_message(message), message.PRIORITY)
        if outcome is Outcome.OVERFLOW and isinstance(message, Reply) and not isinstance(message, Refused):
            self.send(Refused(message.request, "too much is asked for and not taken"))
        elif outcome is Outcome.OVERFLOW:
            raise PeerTooSlow

    def take(self, bytes_max: int) -> bytes:
        """The next bytes for the peer, at most so many; none if nothing waits."""
        return self._outbox.take(bytes_max)

    def take_goodbye(self, reason: Reason) -> bytes:
        """The last bytes for the peer; none if a frame has begun to leave, which only its own rest can follow."""
        return b"" if self._outbox.is_within_frame else encode_message(Goodbye(reason))

    def _note_request(self, request: Request) -> None:
        self._asked[request.request] = type(request)
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]

    # Time

    def on_time(self, now_ms: int) -> None:
        """Pings when it is time to; to be called every second or so. Raises: PeerSilent, PeerTooSlow."""
        if now_ms - self._heard_ms >= self.limits.silence_ms:
            raise PeerSilent(self.limits.silence_ms)
        if self.state is State.OPEN and now_ms - self._pinged_ms >= self.limits.ping_ms:
            self._pinged_ms = now_ms
            self._pings += 1
            self.send(Ping(self._pings))

    def pause_ms(self, now_ms: int) -> int:
        """How long not to read from the peer, for what it has sent so far."""
        return self._bytes.wait_ms(now_ms)
