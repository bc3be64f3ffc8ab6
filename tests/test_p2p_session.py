"""One conversation, without sockets and with time as an argument."""

import pytest

from ctt_state.units import Hash, Height
from p2p.errors import (
    FrameSizeRefused,
    MalformedMessage,
    NotOurProtocol,
    OtherChainId,
    OtherGenesis,
    OtherVersion,
    PeerLeft,
    PeerSilent,
    PeerTooSlow,
    Reason,
    SessionEnded,
    TooManyMessages,
    UnexpectedMessage,
)
from p2p.framing import FrameReader, encode_frame
from p2p.messages import (
    MESSAGES,
    BlockReply,
    BlocksReply,
    Control,
    GetBlock,
    GetBlocks,
    GetEpochs,
    GetSnapshot,
    GetSnapshotChunk,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    SnapshotReply,
    StatusMessage,
    Transactions,
    VoteMessage,
    decode_message,
    encode_message,
)
from p2p.session import DEFAULT_LIMITS, Limits, Session
from tests.p2p_world import (
    BLOCK_HASH,
    EXAMPLES,
    GENESIS_HASH,
    make_block,
    make_certificate,
    make_header,
    make_hello,
    make_vote,
)

VOTE = VoteMessage(make_vote())
EVERYTHING = 10**9
REQUESTS = (  # that the replies among the examples answer
    GetBlock(4, BLOCK_HASH),
    GetBlocks(5, Height(1), 2),
    GetSnapshot(6),
    GetSnapshotChunk(7, Height(9), b""),
    GetEpochs(8, 0, 1),
    GetSnapshot(9),
)


def make_session(limits: Limits = DEFAULT_LIMITS) -> Session:
    """Opened at time 0 by a peer's hello; its own hello is sent."""
    session = Session(make_hello(instance=1), 0, limits)
    assert receive(session, make_hello(instance=2)) == [make_hello(instance=2)]
    session.take(EVERYTHING)
    return session


def receive(session: Session, *messages: Message, now_ms: int = 0) -> list[Message]:
    return list(session.receive(b"".join(map(encode_message, messages)), now_ms))


def sent(session: Session) -> list[Message]:
    return [decode_message(kind, payload) for kind, payload in FrameReader().feed(session.take(EVERYTHING))]


def test_a_session_begins_with_its_hello() -> None:
    assert sent(Session(make_hello(instance=1), 0)) == [make_hello(instance=1)]


def test_two_sessions_greet_each_other_and_talk() -> None:
    one, two = Session(make_hello(instance=1), 0), Session(make_hello(instance=2), 0)

    assert list(one.receive(two.take(EVERYTHING), 0)) == [make_hello(instance=2)]
    assert list(two.receive(one.take(EVERYTHING), 0)) == [make_hello(instance=1)]
    one.send(VOTE)
    assert list(two.receive(one.take(EVERYTHING), 0)) == [VOTE]


def test_messages_fed_byte_by_byte_come_whole() -> None:
    session = Session(make_hello(instance=1), 0)
    stream = encode_message(make_hello(instance=2)) + encode_message(VOTE)

    heard = [message for byte in stream for message in session.receive(bytes([byte]), 0)]

    assert heard == [make_hello(instance=2), VOTE]


@pytest.mark.parametrize(
    ("theirs", "error", "text"),
    [
        (make_hello(2, version=2), OtherVersion, "protocol version differs: ours 1, theirs 2"),
        (make_hello(2, chain_id=8), OtherChainId, "chain id differs: ours 7, theirs 8"),
        (
            make_hello(2, genesis_hash=Hash(b"g" * 32)),
            OtherGenesis,
            f"genesis differs: ours 0x{GENESIS_HASH.hex()}, theirs 0x{'67' * 32}",
        ),
    ],
)
def test_a_hello_of_another_world_is_refused(theirs: Hello, error: type[SessionEnded], text: str) -> None:
    session = Session(make_hello(instance=1), 0)

    with pytest.raises(error, match=f"^{text}$"):
        receive(session, theirs)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        bytes(16),
        b"\xff" * 16,
    ],
)
def test_what_is_not_our_protocol_is_seen_at_its_first_bytes(garbage: bytes) -> None:
    with pytest.raises(NotOurProtocol, match="^not our protocol: it begins with b"):
        list(Session(make_hello(), 0).receive(garbage, 0))


@pytest.mark.parametrize("message", [each for each in EXAMPLES if not isinstance(each, Hello | Goodbye)])
def test_nothing_is_taken_before_the_hello(message: Message) -> None:
    with pytest.raises((UnexpectedMessage, NotOurProtocol), match="before the hello|^not our protocol"):
        receive(Session(make_hello(), 0), message)


def test_a_large_frame_before_the_hello_is_not_waited_for() -> None:
    with pytest.raises(NotOurProtocol):
        list(Session(make_hello(), 0).receive((2_000).to_bytes(4, "big"), 0))


def test_a_second_hello_is_refused() -> None:
    with pytest.raises(UnexpectedMessage, match="a second hello"):
        receive(make_session(), make_hello(instance=2))


def test_a_goodbye_ends_the_session_before_and_after_the_hello() -> None:
    for session in (Session(make_hello(), 0), make_session()):
        with pytest.raises(PeerLeft, match="it closed the connection: banned") as caught:
            receive(session, Goodbye(Reason.BANNED))
        assert caught.value.told is Reason.BANNED


def test_the_messages_before_a_fault_are_delivered() -> None:
    heard = []

    with pytest.raises(MalformedMessage):
        for message in make_session().receive(encode_message(VOTE) + encode_frame(0x11, b"\x90"), 0):
            heard.append(message)  # noqa: PERF402 - extend would lose what came before the fault

    assert heard == [VOTE]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnexpectedMessage, match="message of unknown kind 0x77"):
        list(make_session().receive(encode_frame(0x77, b"\x90"), 0))


def test_a_frame_too_large_is_refused_before_it_comes() -> None:
    with pytest.raises(FrameSizeRefused, match="frame of 4,294,967,295 bytes; limit 4,194,304"):
        list(make_session().receive(b"\xff\xff\xff\xff", 0))


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_no_payload_beyond_its_kinds_limit_is_looked_at(kind: int) -> None:
    limit = MESSAGES[kind].BYTES_MAX

    with pytest.raises(MalformedMessage, match=f"has {limit + 1:,} bytes; limit {limit:,}"):
        decode_message(kind, bytes(limit + 1))


# Time


def test_a_ping_is_answered() -> None:
    session = make_session()

    assert receive(session, Ping(7)) == []
    assert sent(session) == [Pong(7)]


def test_a_ping_is_sent_every_five_seconds() -> None:
    session = make_session()

    for now_ms in range(0, 20_001, 1_000):
        receive(session, Pong(0), now_ms=now_ms)
        session.on_time(now_ms)

    assert sent(session) == [Ping(1), Ping(2), Ping(3), Ping(4)]


def test_a_peer_is_dead_after_fifteen_seconds_without_a_byte() -> None:
    session = make_session()
    list(session.receive(b"\0", 1_000))  # a single byte is a sign of life

    session.on_time(15_999)
    with pytest.raises(PeerSilent, match="nothing heard for 15 s"):
        session.on_time(16_000)


# Budgets


def test_more_consensus_messages_than_the_budget_end_the_session() -> None:
    session = make_session(Limits(consensus_per_second=5))

    assert receive(session, *[VOTE] * 5) == [VOTE] * 5
    assert receive(session, VOTE, now_ms=200) == [VOTE]
    with pytest.raises(TooManyMessages, match="more than 5 consensus messages in a second"):
        receive(session, VOTE, now_ms=200)


def test_more_requests_than_the_budget_are_refused_and_far_more_end_the_session() -> None:
    session = make_session(Limits(requests_per_second=2))
    requests = [GetBlock(number, BLOCK_HASH) for number in range(23)]

    assert receive(session, *requests[:22]) == requests[:2]
    assert sent(session) == [Refused(number, "more than 2 requests in a second") for number in range(2, 22)]
    with pytest.raises(TooManyMessages, match="more than 2 request messages in a second"):
        receive(session, requests[22])


def test_more_transactions_than_the_budget_are_dropped_and_the_session_goes_on() -> None:
    session = make_session(Limits(transactions_per_second=10))
    batch = Transactions((b"raw",) * 15)

    assert receive(session, batch, batch, VOTE) == [batch, VOTE]
    assert receive(session, batch, now_ms=500) == []
    assert receive(session, batch, now_ms=601) == [batch]


def test_a_peer_that_sends_too_fast_is_read_later() -> None:
    session = make_session(Limits(bytes_per_second=1_000, consensus_per_second=1_000))

    receive(session, *[VOTE] * 20)

    assert 1_200 < session.pause_ms(0) < 1_600
    assert session.pause_ms(2_000) == 0


def test_more_pings_than_the_budget_end_the_session() -> None:
    with pytest.raises(TooManyMessages, match="more than 10 control messages in a second"):
        receive(make_session(), *[Ping(1)] * 11)


# Requests and replies


@pytest.mark.parametrize("reply", [BlockReply(4, None), BlockReply(4, make_block()), Refused(4, "no")])
def test_a_reply_to_a_request_is_delivered_once(reply: Message) -> None:
    session = make_session()
    session.send(GetBlock(4, BLOCK_HASH))

    assert receive(session, reply) == [reply]
    with pytest.raises(UnexpectedMessage, match="to request 4, which was not sent"):
        receive(session, reply)


def test_a_reply_of_another_kind_is_refused() -> None:
    session = make_session()
    session.send(GetBlocks(4, Height(1), 1))

    with pytest.raises(UnexpectedMessage, match="block to request 4, which was get blocks"):
        receive(session, BlockReply(4, None))


def test_requests_without_answers_are_forgotten_in_the_end() -> None:
    session = make_session()
    for number in range(257):
        session.send(GetSnapshot(number))
    reply = SnapshotReply(1, make_header(), make_certificate())

    assert receive(session, reply) == [reply]
    with pytest.raises(UnexpectedMessage):
        receive(session, SnapshotReply(0, make_header(), make_certificate()))


# A peer that does not take what is sent


def test_a_peer_that_takes_nothing_is_too_slow() -> None:
    session = make_session(Limits(queue_bytes=1_000))

    with pytest.raises(PeerTooSlow, match="peer too slow"):
        for _ in range(100):
            session.send(VOTE)


def test_transactions_are_given_up_before_the_session() -> None:
    session = make_session(Limits(queue_bytes=1_000))
    for _ in range(10):
        session.send(Transactions((b"r" * 200,)))
    for _ in range(8):
        session.send(VOTE)

    assert sent(session) == [VOTE] * 8


def test_a_reply_without_room_becomes_a_refusal() -> None:
    session = make_session(Limits(queue_bytes=2_000))

    for number in range(4):
        session.send(BlocksReply(number, (make_block(),), None))

    replies = sent(session)
    assert [type(each) for each in replies] == [BlocksReply, BlocksReply, Refused, Refused]
    assert replies[2] == Refused(2, "too much is asked for and not taken")


def test_a_goodbye_does_not_cut_a_frame() -> None:
    session = make_session()
    assert session.take_goodbye(Reason.FULL) == encode_message(Goodbye(Reason.FULL))

    session.send(StatusMessage(0, 1, Height(0), BLOCK_HASH, None))
    session.take(3)

    assert session.take_goodbye(Reason.FULL) == b""


def test_every_kind_of_message_passes() -> None:
    session = make_session()
    for request in REQUESTS:
        session.send(request)
    passing = [each for each in EXAMPLES if not isinstance(each, Control)]

    assert receive(session, *passing) == passing
