"""Why a session ends.

`PeerMisbehaved`: no honest node does this; who did it waits before it may come again. Every other reason may be an
operator's mistake or the network's. Before a session ends, its reason is told to the other side in one byte.
"""

from enum import IntEnum

from ctt_state.units import Hash, hex_of


class Reason(IntEnum):
    """The one byte of `Goodbye`."""

    SHUTDOWN = 1
    NOT_OUR_PROTOCOL = 2
    OTHER_VERSION = 3
    OTHER_CHAIN = 4
    UNTRUSTED = 5
    DUPLICATE = 6
    FULL = 7
    BANNED = 8
    MALFORMED = 9
    UNEXPECTED = 10
    TOO_MANY = 11
    TOO_SLOW = 12
    SILENT = 13
    TOO_LATE = 14
    DROPPED = 15


class SessionEnded(Exception):
    """The session cannot go on; `reason` is what the other side is told."""

    reason = Reason.DROPPED


class PeerMisbehaved(SessionEnded):
    """The peer did what no honest node does."""

    reason = Reason.UNEXPECTED


class NotOurProtocol(PeerMisbehaved):
    """What came first is no frame of ours."""

    reason = Reason.NOT_OUR_PROTOCOL

    def __init__(self, first: bytes) -> None:
        super().__init__(f"not our protocol: it begins with {first[:16]!a}")


class FrameSizeRefused(PeerMisbehaved):
    """A frame says that it is empty, or longer than any may be."""

    reason = Reason.MALFORMED

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"frame of {size:,} bytes; limit {limit:,}")
        self.size = size
        self.limit = limit


class MalformedMessage(PeerMisbehaved):
    """A message is not in the one accepted form: which kind, which field, and what is wrong with it."""

    reason = Reason.MALFORMED

    def __init__(self, kind: str, text: str, *, field: str | None = None) -> None:
        place = "" if field is None else f"field '{field}' "
        super().__init__(f"malformed {kind}: {place}{text}")
        self.kind = kind
        self.field = field


class UnexpectedMessage(PeerMisbehaved):
    """A message that has no place here: of no known kind, a second hello, or something before the first."""


class TooManyMessages(PeerMisbehaved):
    """The peer sent more of a class of messages in a second than any honest node does."""

    reason = Reason.TOO_MANY

    def __init__(self, what: str, per_second: int) -> None:
        super().__init__(f"more than {per_second:,} {what} messages in a second")


class OtherVersion(SessionEnded):
    """The peer speaks another version of the protocol."""

    reason = Reason.OTHER_VERSION

    def __init__(self, *, ours: int, theirs: int) -> None:
        super().__init__(f"protocol version differs: ours {ours}, theirs {theirs}")


class OtherChain(SessionEnded):
    """The peer is of another chain."""

    reason = Reason.OTHER_CHAIN


class OtherChainId(OtherChain):
    """The peer's chain has another number."""

    def __init__(self, *, ours: int, theirs: int) -> None:
        super().__init__(f"chain id differs: ours {ours}, theirs {theirs}")


class OtherGenesis(OtherChain):
    """The peer's chain began otherwise."""

    def __init__(self, *, ours: Hash, theirs: Hash) -> None:
        super().__init__(f"genesis differs: ours {hex_of(ours)}, theirs {hex_of(theirs)}")


class OtherPeer(SessionEnded):
    """Somebody else answered at the address of a peer."""

    reason = Reason.UNTRUSTED

    def __init__(self, *, wanted: str, found: str) -> None:
        super().__init__(f"{wanted} was dialled, {found} answered")


class Distrusted(SessionEnded):
    """The peer's certificate is not, or no longer, trusted."""

    reason = Reason.UNTRUSTED


class DuplicateSession(SessionEnded):
    """Of two sessions with one peer this one goes."""

    reason = Reason.DUPLICATE

    def __init__(self) -> None:
        super().__init__("another session with this peer is kept")


class NoRoom(SessionEnded):
    """There are as many sessions with followers as may be."""

    reason = Reason.FULL

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} followers are connected already")


class Banned(SessionEnded):
    """The peer misbehaved a short time ago."""

    reason = Reason.BANNED

    def __init__(self, left_ms: int) -> None:
        super().__init__(f"banned for another {-(-left_ms // 1_000):,} s")


class PeerTooSlow(SessionEnded):
    """The peer does not take what is sent to it."""

    reason = Reason.TOO_SLOW

    def __init__(self) -> None:
        super().__init__("peer too slow")


class PeerSilent(SessionEnded):
    """Nothing has come from the peer, not even the answer to a ping."""

    reason = Reason.SILENT

    def __init__(self, limit_ms: int) -> None:
        super().__init__(f"nothing heard for {limit_ms // 1_000} s")


class HandshakeTooLate(SessionEnded):
    """The peer took too long to say who it is."""

    reason = Reason.TOO_LATE

    def __init__(self, limit_ms: int) -> None:
        super().__init__(f"handshake not finished in {limit_ms // 1_000} s")


class PeerLeft(SessionEnded):
    """The peer ended the session."""

    def __init__(self, told: Reason | None = None) -> None:
        super().__init__("it closed the connection" + (f": {told.name.lower()}" if told else ""))
        self.told = told


class Dropped(SessionEnded):
    """This node ended the session of its own accord."""


class ShutDown(SessionEnded):
    """This node stops."""

    reason = Reason.SHUTDOWN

    def __init__(self) -> None:
        super().__init__("this node stops")
