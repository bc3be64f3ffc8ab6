"""RLP by example: the standard's own cases, one refusal per fault, and the budget's edges."""

import time

import pytest

from ctt_state import rlp

LOREM = b"Lorem ipsum dolor sit amet, consectetur adipisicing elit"
EXAMPLES: list[tuple[rlp.Encodable, str]] = [
    (b"dog", "83646f67"),
    ([b"cat", b"dog"], "c88363617483646f67"),
    (b"", "80"),
    ([], "c0"),
    (b"\x00", "00"),
    (b"\x0f", "0f"),
    (b"\x7f", "7f"),
    (b"\x80", "8180"),
    (b"\x04\x00", "820400"),
    ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
    (b"a" * 55, "b7" + "61" * 55),
    (LOREM, "b838" + LOREM.hex()),
    ([b"a"] * 55, "f7" + "61" * 55),
    ([b"a"] * 56, "f838" + "61" * 56),
    (b"a" * 256, "b90100" + "61" * 256),
]


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = rlp.encode_list_of(data)
    return data


def cpu_ms_of_refusal(data: bytes) -> float:
    """The best of three: another process may steal the time of one."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(rlp.MalformedRlp):
            rlp.decode(data, items_max=1_024)
        best = min(best, (time.process_time() - start) * 1_000)
    return best


@pytest.mark.parametrize(("item", "encoded"), EXAMPLES)
def test_examples_encode_and_decode(item: rlp.Encodable, encoded: str) -> None:
    assert rlp.encode(item).hex() == encoded
    assert rlp.decode(bytes.fromhex(encoded), items_max=100) == item


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "80"), (15, "0f"), (127, "7f"), (128, "8180"), (1024, "820400")]
)
def test_integers_encode_without_leading_zeros(number: int, encoded: str) -> None:
    assert rlp.encode(number).hex() == encoded


def test_a_negative_integer_has_no_encoding() -> None:
    with pytest.raises(OverflowError):
        rlp.encode(-1)


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("", "no item at byte 0"),
        ("83646f", "item overruns its container at byte 0"),
        ("c183", "item overruns its container at byte 1"),
        ("c3648264", "item overruns its container at byte 2"),
        ("c18183", "item overruns its container at byte 1"),
        ("c4c182646f", "item overruns its container at byte 2"),
        ("8000", "1 bytes after the item at byte 1"),
        ("c000c0", "2 bytes after the item at byte 1"),
        ("8105", "byte below 0x80 with a needless prefix at byte 0"),
        ("c28100", "byte below 0x80 with a needless prefix at byte 1"),
        ("b800", "length with a leading zero at byte 0"),
        ("b837" + "61" * 55, "long length for a short item at byte 0"),
        ("b90038" + "61" * 56, "length with a leading zero at byte 0"),
        ("f837" + "61" * 55, "long length for a short item at byte 0"),
        ("b9", "length overruns its container at byte 0"),
        ("c2b938", "length overruns its container at byte 1"),
        ("bf" + "ff" * 8, "item overruns its container at byte 0"),
        ("ff" + "ff" * 8, "item overruns its container at byte 0"),
        ("c4c3c2c1c1", "item overruns its container at byte 4"),
        ("c5c4c3c2c1c0", "lists nested deeper than 4 at byte 4"),
    ],
)
def test_each_fault_is_named_with_its_byte(encoded: str, text: str) -> None:
    with pytest.raises(rlp.MalformedRlp) as refusal:
        rlp.decode(bytes.fromhex(encoded))

    assert str(refusal.value) == text
    assert text.endswith(f"at byte {refusal.value.offset}")


@pytest.mark.parametrize(("item", "encoded"), EXAMPLES)
def test_an_item_cut_short_or_continued_is_refused(item: rlp.Encodable, encoded: str) -> None:
    whole = bytes.fromhex(encoded)

    for cut in [*(whole[:end] for end in range(len(whole))), whole + b"\x00"]:
        with pytest.raises(rlp.MalformedRlp):
            rlp.decode(cut, items_max=100)


def test_decoding_may_start_behind_a_prefix() -> None:
    assert rlp.decode(b"\x02\xc1\x05", start=1) == [b"\x05"]
    with pytest.raises(rlp.MalformedRlp, match="no item at byte 1"):
        rlp.decode(b"\x02", start=1)


def test_the_payload_of_a_long_and_a_short_list_is_found() -> None:
    for payload in (b"", b"a" * 55, b"a" * 56, b"a" * 70_000):
        data = rlp.encode_list_of(payload)
        assert data[rlp.payload_start(data, 0) :] == payload


def test_lists_nest_as_deep_as_the_budget_and_no_deeper() -> None:
    assert rlp.decode(nested(4)) == [[[[]]]]
    with pytest.raises(rlp.MalformedRlp, match="lists nested deeper than 4 at byte 4"):
        rlp.decode(nested(5))
    assert rlp.decode(nested(5), depth_max=5) == [[[[[]]]]]


def test_a_list_counts_as_one_item_of_the_budget() -> None:
    assert rlp.decode(rlp.encode([b"a"] * 63)) == [b"a"] * 63
    with pytest.raises(rlp.MalformedRlp, match="more than 64 items at byte 65"):
        rlp.decode(rlp.encode([b"a"] * 64))


def test_hostile_input_costs_next_to_nothing() -> None:
    """A reader without a budget is held up for over 100 ms by the first, and falls over its recursion limit in the second."""
    wide = rlp.encode_list_of(b"\x01" * 131_068)
    deep = nested(1_500)
    empties = rlp.encode_list_of(b"\xc0" * 131_068)

    for data in (wide, deep, empties, b"\xff" * 131_072, b"\xc1" * 131_072):
        assert cpu_ms_of_refusal(data) < 5
