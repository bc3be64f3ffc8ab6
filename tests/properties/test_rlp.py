"""RLP for any input: one value has one encoding, and an independent decoder agrees on what is one."""

import rlp as pyrlp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctt_state import rlp

UNLIMITED = 10**9

items: st.SearchStrategy[rlp.Item] = st.recursive(
    st.binary(max_size=70), lambda inner: st.lists(inner, max_size=6), max_leaves=30
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An item's encoding with up to three bytes changed, removed or added; prefixes and lengths are hit often."""
    data = bytearray(rlp.encode(draw(items)))
    interesting = st.sampled_from(
        (0x00, 0x7F, 0x80, 0x81, 0xB7, 0xB8, 0xB9, 0xBF, 0xC0, 0xC1, 0xF7, 0xF8, 0xF9, 0xFF)
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        replaced = draw(st.integers(0, 1))
        added = draw(st.lists(interesting | st.integers(0, 255), max_size=1))
        data[at : at + replaced] = bytes(added)
    return bytes(data)


def ours(data: bytes) -> rlp.Item | None:
    try:
        return rlp.decode(data, depth_max=UNLIMITED, items_max=UNLIMITED)
    except rlp.MalformedRlp:
        return None


def theirs(data: bytes) -> object:
    try:
        return pyrlp.decode(data)
    except pyrlp.DecodingError:
        return None


@settings(deadline=None)
@given(item=items)
def test_what_is_encoded_is_decoded(item: rlp.Item) -> None:
    assert ours(rlp.encode(item)) == item
    assert rlp.encode(item) == pyrlp.encode(item)


@settings(max_examples=1_000, deadline=None)
@given(data=mutated() | st.binary(max_size=80))
@example(data=b"\xb8\x37" + b"a" * 55)
@example(data=b"\x81\x7f")
@example(data=b"\xc2\x81\x7f")
def test_an_independent_decoder_agrees(data: bytes) -> None:
    assert ours(data) == theirs(data)


@settings(max_examples=500, deadline=None)
@given(data=mutated())
def test_what_is_decoded_has_no_other_encoding(data: bytes) -> None:
    item = ours(data)

    assert item is None or rlp.encode(item) == data


@settings(deadline=None)
@given(data=mutated(), depth_max=st.integers(0, 3), items_max=st.integers(0, 5))
def test_a_budget_refuses_but_never_changes_the_answer(data: bytes, depth_max: int, items_max: int) -> None:
    try:
        within_budget = rlp.decode(data, depth_max=depth_max, items_max=items_max)
    except rlp.MalformedRlp:
        return
    assert within_budget == ours(data)
