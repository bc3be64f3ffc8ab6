"""Frames: whole, byte by byte, cut short, and announced larger than may be."""

import pytest

from p2p.errors import FrameSizeRefused
from p2p.framing import FRAME_BYTES_MAX, FrameReader, encode_frame

FRAMES = [(0x11, b"first"), (0x30, b""), (0xFF, b"x" * 70_000)]
STREAM = b"".join(encode_frame(kind, payload) for kind, payload in FRAMES)


def test_frames_fed_whole_come_out() -> None:
    reader = FrameReader()

    assert list(reader.feed(STREAM)) == FRAMES
    assert reader.is_between


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1_000, 65_536])
def test_frames_fed_in_pieces_come_out(step: int) -> None:
    reader = FrameReader()
    pieces = [STREAM[cut : cut + step] for cut in range(0, len(STREAM), step)]

    assert [frame for piece in pieces for frame in reader.feed(piece)] == FRAMES
    assert reader.is_between


@pytest.mark.parametrize("cut", [1, 4, 5, 9])
def test_a_frame_cut_short_waits_for_its_rest(cut: int) -> None:
    reader = FrameReader()

    assert list(reader.feed(STREAM[:cut])) == []
    assert not reader.is_between
    assert list(reader.feed(STREAM[cut:])) == FRAMES


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
def test_a_size_out_of_range_is_refused_before_anything_else_comes(size: int) -> None:
    with pytest.raises(FrameSizeRefused, match=f"^frame of {size:,} bytes; limit 4,194,304$"):
        list(FrameReader().feed(size.to_bytes(4, "big")))


def test_the_frames_before_a_refused_one_come_out() -> None:
    found = []

    with pytest.raises(FrameSizeRefused):
        for frame in FrameReader().feed(encode_frame(1, b"a") + bytes(4)):
            found.append(frame)  # noqa: PERF402 - extend would lose what came before the fault

    assert found == [(1, b"a")]


def test_the_largest_frame_is_read_and_written() -> None:
    payload = bytes(FRAME_BYTES_MAX - 1)

    assert list(FrameReader().feed(encode_frame(1, payload))) == [(1, payload)]
    with pytest.raises(AssertionError, match="frame of 4,194,305 bytes"):
        encode_frame(1, payload + b"\0")


def test_a_limit_holds_from_the_next_frame_on() -> None:
    reader = FrameReader(10)
    kinds = []

    for kind, _ in reader.feed(encode_frame(1, b"") + encode_frame(2, bytes(10))):
        kinds.append(kind)
        reader.bytes_max = 11

    assert kinds == [1, 2]
    with pytest.raises(FrameSizeRefused, match="limit 11$"):
        list(reader.feed(encode_frame(1, bytes(11))))
