"""Messages: one form each, every field typed and bounded, and nothing built before its size is known."""

import tracemalloc
from collections.abc import Iterator
from typing import Any, cast

import msgpack
import pytest

from ctt_state.block import Block
from ctt_state.units import Height
from ctt_state.votes import Kind
from p2p.errors import MalformedMessage, PeerMisbehaved, Reason
from p2p.fields import (
    BLOCK_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    DEPTH_MAX,
    NUMBER_MAX,
    TRANSACTIONS_BYTES_MAX,
    check_shape,
    decode_block,
)
from p2p.framing import FRAME_BYTES_MAX
from p2p.messages import (
    BLOCKS_MAX,
    EPOCHS_MAX,
    GOSSIP_BYTES_MAX,
    GOSSIP_TRANSACTIONS_MAX,
    MESSAGES,
    ROWS_BYTES_MAX,
    ROWS_MAX,
    BlockReply,
    BlocksReply,
    EpochEnd,
    EpochsReply,
    GetBlocks,
    GetCertificates,
    Hello,
    Message,
    ProposalMessage,
    Refused,
    SnapshotChunk,
    StatusMessage,
    Transactions,
    VoteMessage,
    decode_message,
    encode_message,
)
from tests.p2p_world import (
    BLOCK_HASH,
    EXAMPLES,
    make_block,
    make_certificate,
    make_header,
    make_hello,
    make_set,
    make_vote,
)

Path = tuple[int, ...]
by_name = pytest.mark.parametrize("message", EXAMPLES, ids=lambda each: each.NAME)

STRANGE: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(True, False, None, 0.0, 1.5, float("nan"), float("inf")),
    *("", "text", "\n", "\u2028", b"", b"x", bytes(31), bytes(33), bytes(64), bytes(1_000)),
    *((), (0,), ((),), ((((),),),), (b"", b""), (None,) * 20),
)
FOREIGN: tuple[Any, ...] = ({}, {1: 2}, msgpack.ExtType(5, b""), msgpack.Timestamp(1), [{}], [[{"a": {}}]])


def fields_of(message: Message) -> tuple[Any, ...]:
    return cast(tuple[Any, ...], msgpack.unpackb(message.encode(), use_list=False))


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Of everything within a value."""
    yield at
    if isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from paths(inner, (*at, index))


def put(value: Any, at: Path, new: Any) -> Any:
    if not at:
        return new
    index, *rest = at
    return (*value[:index], put(value[index], tuple(rest), new), *value[index + 1 :])


def get(value: Any, at: Path) -> Any:
    for index in at:
        value = value[index]
    return value


def is_taken(kind: int, payload: bytes) -> bool:
    """Whether it is a message, which then has these very bytes; else it is refused as it should be."""
    try:
        message = decode_message(kind, payload)
    except PeerMisbehaved:
        return False
    assert message.encode() == payload
    return True


@by_name
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode_message(message.KIND, message.encode()) == message


def test_there_is_an_example_of_each_kind() -> None:
    assert {each.KIND for each in EXAMPLES} == set(MESSAGES)
    assert len({each.NAME for each in EXAMPLES}) == len(MESSAGES)


def test_no_kind_may_be_larger_than_a_frame() -> None:
    assert all(each.BYTES_MAX < FRAME_BYTES_MAX for each in MESSAGES.values())


@by_name
def test_a_strange_value_in_any_place_is_refused_or_means_itself(message: Message) -> None:
    fields = fields_of(message)
    for at in paths(fields):
        for strange in STRANGE:
            is_taken(message.KIND, msgpack.packb(put(fields, at, strange)))
        for strange in FOREIGN:
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, strange)))


@by_name
def test_a_boolean_is_no_number_and_a_number_no_boolean(message: Message) -> None:
    fields = fields_of(message)
    for at in paths(fields):
        if isinstance(get(fields, at), bool):
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, 1)))
        elif isinstance(get(fields, at), int):
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, True)))
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, -1)))
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, 1.0)))


@by_name
def test_bytes_are_no_text_and_text_no_bytes(message: Message) -> None:
    fields = fields_of(message)
    for at in paths(fields):
        value = get(fields, at)
        if isinstance(value, bytes):
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, "x" * len(value))))
        elif isinstance(value, str):
            assert not is_taken(message.KIND, msgpack.packb(put(fields, at, value.encode())))


@by_name
def test_a_field_too_many_or_too_few_is_refused(message: Message) -> None:
    fields = fields_of(message)

    for wrong in (fields[:-1], (*fields, 0), (*fields, None), (), ((fields,),), fields[0]):
        assert not is_taken(message.KIND, msgpack.packb(wrong))


@by_name
def test_bytes_cut_short_or_added_are_refused(message: Message) -> None:
    payload = message.encode()

    for end in range(0, len(payload), max(1, len(payload) // 200)):
        assert not is_taken(message.KIND, payload[:end])
    for more in (b"\0", b"\xc0", payload):
        assert not is_taken(message.KIND, payload + more)


@by_name
def test_another_form_of_the_same_values_is_refused(message: Message) -> None:
    """The outer array with a longer count, which msgpack allows and we do not."""
    payload = message.encode()

    assert payload[0] & 0xF0 == 0x90
    assert not is_taken(message.KIND, b"\xdc\0" + bytes([payload[0] & 0x0F]) + payload[1:])


def test_a_number_in_a_longer_form_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="malformed ping: not in the shortest form"):
        decode_message(0x02, b"\x91\xcd\x00\x05")


# Texts


@pytest.mark.parametrize(
    ("message", "place", "value", "text"),
    [
        (StatusMessage, 1, True, "malformed status: field 'view' is bool"),
        (StatusMessage, 1, -1, f"malformed status: field 'view' is -1; 0 to {NUMBER_MAX} allowed"),
        (StatusMessage, 1, 2**63, f"malformed status: field 'view' is {2**63}; 0 to {NUMBER_MAX} allowed"),
        (
            StatusMessage,
            3,
            b"short",
            "malformed status: field 'finalized_hash' has 5 bytes; 32 allowed",
        ),
        (StatusMessage, 3, None, "malformed status: field 'finalized_hash' is nil"),
        (
            StatusMessage,
            4,
            (1, 2),
            "malformed status: field 'finalization' certificate is not an array of 4",
        ),
        (GetBlocks, 0, 2**32, f"malformed get blocks: field 'request' is {2**32}; 0 to {2**32 - 1} allowed"),
        (GetBlocks, 1, 0, f"malformed get blocks: field 'from_height' is 0; 1 to {NUMBER_MAX} allowed"),
        (GetBlocks, 2, 129, "malformed get blocks: field 'count' is 129; 1 to 128 allowed"),
        (GetBlocks, 2, 0, "malformed get blocks: field 'count' is 0; 1 to 128 allowed"),
        (
            GetCertificates,
            2,
            73,
            "malformed get certificates: field 'to_view' is 73; 9 to 72 allowed",
        ),
        (GetCertificates, 2, 8, "malformed get certificates: field 'to_view' is 8; 9 to 72 allowed"),
        (Hello, 4, "x" * 65, "malformed hello: field 'agent' has 65 characters; limit 64"),
        (Hello, 4, "new\nline", "malformed hello: field 'agent' is not printable ASCII"),
        (Hello, 4, "caf\u00e9", "malformed hello: field 'agent' is not printable ASCII"),
        (Refused, 1, 5, "malformed refused: field 'text' is a number"),
        (Transactions, 0, (), "malformed transactions: field 'raws' has 0 elements; 1 to 1,000 allowed"),
        (
            Transactions,
            0,
            (b"",),
            "malformed transactions: field 'raws' has 0 bytes; 1 to 131,072 allowed",
        ),
        (
            SnapshotChunk,
            1,
            ((b"b", b""), (b"a", b"")),
            "malformed snapshot chunk: field 'rows' is not in the order of its keys",
        ),
        (
            SnapshotChunk,
            1,
            ((b"a", b""), (b"a", b"")),
            "malformed snapshot chunk: field 'rows' is not in the order of its keys",
        ),
        (
            SnapshotChunk,
            1,
            ((b"", b""),),
            "malformed snapshot chunk: field 'key' has 0 bytes; 1 to 256 allowed",
        ),
        (SnapshotChunk, 2, 1, "malformed snapshot chunk: field 'is_last' is a number"),
        (ProposalMessage, 0, b"\x93\xc0\x90\x90", "malformed block: field 'header' is nil, not an array"),
    ],
)
def test_what_is_malformed_is_named(message: type[Message], place: int, value: Any, text: str) -> None:
    example = next(each for each in EXAMPLES if type(each) is message)
    payload = msgpack.packb(put(fields_of(example), (place,), value))

    with pytest.raises(MalformedMessage) as caught:
        decode_message(message.KIND, payload)

    assert str(caught.value) == text
    assert caught.value.reason is Reason.MALFORMED


# Shapes


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cut short"),
        (b"\x91", "cut short"),
        (b"\x92\x01", "cut short"),
        (b"\xc4", "cut short"),
        (b"\xc4\x05abcd", "cut short"),
        (b"\xdc\x00", "cut short"),
        (b"\xcf\x00", "cut short"),
        (b"\x01\x01", "1 bytes too many"),
        (b"\x80", "byte 0x80 begins no value of ours"),
        (b"\xde\x00\x00", "byte 0xde begins"),
        (b"\xc1", "byte 0xc1 begins"),
        (b"\xc7\x00\x05", "byte 0xc7 begins"),
        (b"\xd4\x05\x00", "byte 0xd4 begins"),
        (b"\x91" * DEPTH_MAX + b"\x91\x00", "arrays more than 8 deep"),
        (b"\xdd\xff\xff\xff\xff", "more than 100 values"),
        (b"\xdc\x00\x64" + bytes(100), "more than 100 values"),
    ],
)
def test_a_shape_that_is_not_ours_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(MalformedMessage, match=f"^malformed thing: {text}"):
        check_shape("thing", data, 100)


@pytest.mark.parametrize(
    "data", [b"\x91" * DEPTH_MAX + b"\x00", b"\xdc\x00\x63" + bytes(99), b"\xda\x00\x01a"]
)
def test_a_shape_within_its_bounds_passes(data: bytes) -> None:
    check_shape("thing", data, 100)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\x00\x40\x00\x00" * 800,
        b"\x91" * 100_000,
        b"\xdd\x00\x1f\xff\xff" + b"\x91\x90" * 1_000_000,
        b"\xdc\x03\xe8" * 1_000 + b"\x90" * 1_000_000,
    ],
    ids=["nested counts", "depth", "many", "both"],
)
@pytest.mark.parametrize(
    "kind", [ProposalMessage.KIND, SnapshotChunk.KIND, Transactions.KIND, VoteMessage.KIND]
)
def test_a_bomb_takes_no_memory(kind: int, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            decode_message(kind, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000


# Limits of what is large: the most is taken, one more is not


def test_a_block_may_be_as_large_as_the_ledgers() -> None:
    full = make_block(
        transactions=BLOCK_TRANSACTIONS_MAX, size=TRANSACTIONS_BYTES_MAX // BLOCK_TRANSACTIONS_MAX
    )
    assert decode_block(full.encode()) == full

    with pytest.raises(MalformedMessage, match="malformed block: .*5,0"):
        decode_block(make_block(transactions=BLOCK_TRANSACTIONS_MAX + 1).encode())
    with pytest.raises(MalformedMessage, match="field 'transactions' has 131,073 bytes"):
        decode_block(make_block(transactions=1, size=131_073).encode())
    with pytest.raises(
        MalformedMessage, match="field 'transactions' has 2,228,224 bytes; limit 2,097,152|block: has"
    ):
        decode_block(make_block(transactions=17, size=131_072).encode())
    with pytest.raises(MalformedMessage, match="malformed block: has 3,"):
        decode_block(make_block(transactions=30, size=131_072).encode())


def test_a_block_has_little_evidence() -> None:
    header = make_header()
    assert decode_block(Block(header, (), (b"e" * 512,) * 4).encode()).evidence == (b"e" * 512,) * 4

    with pytest.raises(MalformedMessage, match="field 'evidence' has 5 elements; 0 to 4 allowed"):
        decode_block(Block(header, (), (b"e",) * 5).encode())
    with pytest.raises(MalformedMessage, match="field 'evidence' has 513 bytes; 1 to 512 allowed"):
        decode_block(Block(header, (), (b"e" * 513,)).encode())


@pytest.mark.parametrize("field", make_header()._fields)
@pytest.mark.parametrize("value", [None, True, -1, 2**63, "x", b"x", bytes(21), ()])
def test_each_field_of_a_header_is_checked(field: str, value: Any) -> None:
    block = make_block()._replace(header=make_header()._replace(**{field: value}))

    with pytest.raises(MalformedMessage, match=f"malformed block: field '{field}' "):
        decode_block(block.encode())


def test_the_largest_messages_fit_their_kind_and_a_frame() -> None:
    full = make_block(
        transactions=BLOCK_TRANSACTIONS_MAX, size=TRANSACTIONS_BYTES_MAX // BLOCK_TRANSACTIONS_MAX
    )
    full = full._replace(evidence=(b"e" * 512,) * 4)
    certificate = make_certificate(2**60, Kind.FINALIZE, signers=100)
    largest: tuple[Message, ...] = (
        ProposalMessage(full, make_vote(2**60), certificate, (certificate,) * 16),
        BlockReply(1, full),
        BlocksReply(1, (full,), certificate),
        StatusMessage(2**62, 2**62, Height(2**62), BLOCK_HASH, certificate),
        EpochsReply(1, (EpochEnd(make_header(2**62), certificate, make_set(100)),) * EPOCHS_MAX),
        SnapshotChunk(1, tuple((n.to_bytes(2, "big"), b"v" * 126) for n in range(ROWS_MAX)), is_last=True),
        Transactions((b"r" * (GOSSIP_BYTES_MAX // GOSSIP_TRANSACTIONS_MAX),) * GOSSIP_TRANSACTIONS_MAX),
        Refused(2**32 - 1, "x" * 200),
        Hello(2**62, 2**62, BLOCK_HASH, 2**62, "x" * 64, Height(2**62)),
    )

    for message in largest:
        frame = encode_message(message)
        assert decode_message(frame[4], frame[5:]) == message


@pytest.mark.parametrize(
    "message",
    [
        ProposalMessage(make_block(), make_vote(), None, (make_certificate(),) * 17),
        BlocksReply(1, (), None),
        BlocksReply(1, (make_block(transactions=0),) * (BLOCKS_MAX + 1), None),
        EpochsReply(1, (EpochEnd(make_header(), make_certificate(), make_set(1)),) * (EPOCHS_MAX + 1)),
        EpochsReply(1, (EpochEnd(make_header(), make_certificate(), make_set(0)),)),
        EpochsReply(1, (EpochEnd(make_header(), make_certificate(), make_set(101)),)),
        SnapshotChunk(1, tuple((n.to_bytes(2, "big"), b"") for n in range(ROWS_MAX + 1)), is_last=True),
        SnapshotChunk(1, ((b"k", b"v" * ROWS_BYTES_MAX),), is_last=True),
        Transactions((b"r",) * (GOSSIP_TRANSACTIONS_MAX + 1)),
        Transactions((b"r" * 131_072,) * 9),
        Transactions((b"r" * 131_073,)),
    ],
)
def test_one_more_than_the_most_is_refused(message: Message) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(message.KIND, message.encode())


def test_the_members_of_a_set_come_in_the_order_of_their_keys() -> None:
    members = make_set(4)
    reversed_set = members._replace(members=members.members[::-1])
    message = EpochsReply(1, (EpochEnd(make_header(), make_certificate(), reversed_set),))

    with pytest.raises(MalformedMessage, match="field 'next_set' is not in the order of its keys"):
        decode_message(message.KIND, message.encode())


# What this node sends


def test_more_views_than_may_be_asked_for_are_asked_for_in_part() -> None:
    asked = GetCertificates(1, 10, 1_000)

    assert decode_message(asked.KIND, asked.encode()) == GetCertificates(1, 10, 73)


def test_a_refusals_text_is_made_fit_to_send() -> None:
    refused = Refused(1, "caf\u00e9\n" + "x" * 300)

    assert decode_message(refused.KIND, refused.encode()) == Refused(1, "caf??" + "x" * 195)


def test_blocks_are_cut_to_what_a_reply_may_carry() -> None:
    small, large = make_block(transactions=0), make_block(transactions=4_000, size=500)

    assert BlocksReply.fit([]) == ()
    assert len(BlocksReply.fit([small] * 200)) == BLOCKS_MAX
    assert BlocksReply.fit([small, large, small]) == (small, large, small)
    assert BlocksReply.fit([large, large]) == (large,)
    assert BlocksReply.fit([small, large, large]) == (small, large)
    assert len(large.encode()) < BLOCK_BYTES_MAX


def test_transactions_are_sent_in_as_few_messages_as_carry_them() -> None:
    assert list(Transactions.batches([])) == []
    assert [len(each.raws) for each in Transactions.batches([b"r"] * 2_001)] == [1_000, 1_000, 1]
    assert [len(each.raws) for each in Transactions.batches([b"r" * 131_072] * 17)] == [8, 8, 1]


def test_a_message_too_large_to_send_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="transactions of 1,"):
        encode_message(Transactions((b"r" * 1_100_000,)))


def test_a_hello_is_small() -> None:
    assert len(encode_message(make_hello())) < 100
