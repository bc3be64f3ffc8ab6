"""Any bytes: a message is decoded to what encodes to the same bytes, or its sender misbehaved; nothing else happens."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.errors import MalformedMessage, PeerMisbehaved, SessionEnded
from p2p.fields import check_shape, decode_block
from p2p.framing import FrameReader, encode_frame
from p2p.messages import MESSAGES, Message, decode_message, encode_message
from p2p.session import Session
from tests.p2p_world import EXAMPLES, make_block, make_hello

kinds = st.sampled_from(sorted(MESSAGES))
scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 1, 2, 3, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from([bytes(20), bytes(32), bytes(33), bytes(64)])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=30)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[int, bytes]:
    """A message of which up to three bytes are changed, removed or added; the first bytes are hit often."""
    message: Message = draw(st.sampled_from(EXAMPLES))
    payload = bytearray(message.encode())
    interesting = st.sampled_from(
        (0x00, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC2, 0xC3, 0xC4, 0xC7, 0xCF, 0xDC, 0xDD, 0xFF)
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(payload)) | st.integers(0, min(len(payload), 12)))
        payload[at : at + draw(st.integers(0, 1))] = bytes(
            draw(st.lists(interesting | st.integers(0, 255), max_size=1))
        )
    return message.KIND, bytes(payload)


def decoded(kind: int, payload: bytes) -> Message | None:
    try:
        return decode_message(kind, payload)
    except PeerMisbehaved:
        return None


@settings(max_examples=1_000, deadline=None)
@given(kind=kinds, payload=st.binary(max_size=200))
def test_any_bytes(kind: int, payload: bytes) -> None:
    message = decoded(kind, payload)

    assert message is None or message.encode() == payload


@settings(max_examples=1_000, deadline=None)
@given(kind=kinds, value=values)
def test_any_values(kind: int, value: Any) -> None:
    payload = msgpack.packb(value)
    message = decoded(kind, payload)

    assert message is None or message.encode() == payload


@settings(max_examples=2_000, deadline=None)
@given(found=mutated())
def test_a_damaged_message(found: tuple[int, bytes]) -> None:
    message = decoded(*found)

    assert message is None or message.encode() == found[1]


@settings(max_examples=500, deadline=None)
@given(at=st.integers(0, len(make_block().encode()) - 1), byte=st.integers(0, 255))
def test_a_damaged_block(at: int, byte: int) -> None:
    data = bytearray(make_block().encode())
    data[at] = byte
    try:
        block = decode_block(bytes(data))
    except MalformedMessage:
        return
    assert block.encode() == data


@settings(max_examples=1_000, deadline=None)
@given(data=st.binary(max_size=60) | values.map(msgpack.packb))
def test_a_shape_that_passes_is_msgpack(data: bytes) -> None:
    """An independent reader agrees; of what does not pass it may still think otherwise: there are maps in msgpack."""
    try:
        check_shape("thing", data, 1_000)
    except MalformedMessage:
        return
    try:
        msgpack.unpackb(data, strict_map_key=True)
    except UnicodeDecodeError:
        return


@settings(max_examples=500, deadline=None)
@given(
    frames=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8),
    cuts=st.lists(st.integers(0, 2_400), max_size=8),
)
def test_frames_do_not_depend_on_how_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    ends = [0, *sorted(cuts), len(stream)]
    reader = FrameReader()

    pieces = [stream[first:last] for first, last in pairwise(ends)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == frames


@settings(max_examples=500, deadline=None)
@given(
    is_open=st.booleans(),
    data=st.lists(st.binary(max_size=100) | mutated().map(lambda each: encode_frame(*each))),
)
def test_a_session_only_ever_ends(is_open: bool, data: list[bytes]) -> None:
    session = Session(make_hello(instance=1), 0)
    if is_open:
        list(session.receive(encode_message(make_hello(instance=2)), 0))
    with suppress(SessionEnded):
        for piece in data:
            for message in session.receive(piece, 0):
                assert message.encode()
