"""Documents that people write: what is no JSON for us, and what a field says of what it finds."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from ctt_state.document import (
    DOCUMENT_BYTES_MAX,
    NESTING_MAX,
    SAFE_INTEGER_MAX,
    Field,
    MalformedJson,
    canonical_json,
    parse_json,
)
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS

ALICE = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
BOB = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "line 1, column 1: Expecting value"),
        (b'{"a": 1,}', "line 1, column 9: Expecting property name enclosed in double quotes"),
        (b'{\n  "a" 1}', "line 2, column 7: Expecting ':' delimiter"),
        (b"{} {}", "line 1, column 4: Extra data"),
        (b"{} // why", "line 1, column 4: Extra data"),
        (b'"\0"', "line 1, column 2: Invalid control character at"),
        (b"{}\0", "line 1, column 3: Extra data"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark; save it as UTF-8 without one"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'"\\ud800"', '"\\ud800" holds half a surrogate pair'),
        (b'{"\\udfff": 1}', '"\\udfff" holds half a surrogate pair'),
        (b'[{"a": ["\\ud800x"]}]', '"\\ud800x" holds half a surrogate pair'),
        (b"1.0", "1.0 is not a whole number"),
        (b"1e3", "1e3 is not a whole number"),
        (b"[NaN]", "NaN is not a whole number"),
        (b"-Infinity", "-Infinity is not a whole number"),
        (b"1_000", "line 1, column 2: Extra data"),
        (b"0x10", "line 1, column 2: Extra data"),
        (b"1" * 5_000, "a number of 5000 digits; limit 78"),
        (b'{"a": 1, "b": 2, "a": 1}', 'member "a" appears twice'),
        (b'[{"x": {"a\\n": 1, "a\\n": 2}}]', 'member "a\\n" appears twice'),
        (b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1), "nested deeper than 16"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 16"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested deeper than 16"),
        (b" " * DOCUMENT_BYTES_MAX + b"1", "larger than 16777216 bytes"),
    ],
)
def test_what_is_no_document_is_told_in_one_line(text: bytes, fault: str) -> None:
    with pytest.raises(MalformedJson) as refusal:
        parse_json(text)

    assert str(refusal.value) == fault
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a": [1, -2, true, null, "\xc3\xa9"]}\n', {"a": [1, -2, True, None, "é"]}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"9" * 78, int("9" * 78)),
        (b"[" * NESTING_MAX + b"]" * NESTING_MAX, None),
        (b" " * (DOCUMENT_BYTES_MAX - 1) + b"1", 1),
    ],
)
def test_a_document_within_the_limits_is_read(text: bytes, value: object) -> None:
    assert value is None or parse_json(text) == value
    assert parse_json(canonical_json(parse_json(text))) == parse_json(text)


def test_the_canonical_text_knows_neither_order_nor_spaces_nor_escapes() -> None:
    written = [b'{"b": 1, "a": "\\u00e9\\/"}', '{ "a":"é/",\n"b":1 }'.encode()]

    assert {canonical_json(parse_json(text)) for text in written} == {'{"a":"é/","b":1}'.encode()}


def test_deep_nesting_does_not_end_a_process_that_may_recurse_deeply() -> None:
    """Some libraries raise the limit for the whole process; the parser in C then outgrows its stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(MalformedJson, match="nested deeper than 16"):
            parse_json(b'["[",' * 1_000_000)
    finally:
        sys.setrecursionlimit(limit)


def test_brackets_in_strings_are_no_nesting() -> None:
    assert parse_json(b'["' + b"[" * 100 + b'\\"{{{{"]') == ["[" * 100 + '"{{{{']


def test_finding_a_member_twice_takes_no_longer_the_later_it_comes() -> None:
    """A search for each member would take hours here."""
    names = ",".join(f'"{number}":0' for number in range(300_000))

    with pytest.raises(MalformedJson, match='member "299999" appears twice'):
        parse_json(f'{{{names},"299999":0}}'.encode())


def faults_of(value: Any, read: Callable[[Field], object]) -> list[tuple[str, str]]:
    field = Field(value)
    read(field)
    return field.faults


@pytest.mark.parametrize("value", [5, 9])
def test_an_integer_at_its_bound_is_read(value: int) -> None:
    field = Field(value)

    assert (field.integer(5, 9), field.faults) == (value, [])


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (4, "4 is not between 5 and 9"),
        (10, "10 is not between 5 and 9"),
        (True, "expected a whole number, got true"),
        ("5", 'expected a whole number, got "5"'),
        (None, "expected a whole number, got null"),
        ([5], "expected a whole number, got a list"),
        ({}, "expected a whole number, got an object"),
    ],
)
def test_another_integer_is_a_fault(value: object, fault: str) -> None:
    assert faults_of(value, lambda field: field.integer(5, 9)) == [("$", fault)]


@pytest.mark.parametrize(
    ("value", "wei"),
    [
        (0, 0),
        (SAFE_INTEGER_MAX, SAFE_INTEGER_MAX),
        ("0", 0),
        (str(SAFE_INTEGER_MAX + 1), SAFE_INTEGER_MAX + 1),
        (str(UINT256_MAX), UINT256_MAX),
    ],
)
def test_an_amount_of_wei_is_digits_or_a_safe_integer(value: int | str, wei: int) -> None:
    field = Field(value)

    assert (field.wei(), field.faults) == (wei, [])


@pytest.mark.parametrize(
    "value",
    [-1, SAFE_INTEGER_MAX + 1, True, None, "", "-1", "1e18", "0x10", " 1", "1_0", "\u0661", "1" * 79, {}],
)
def test_anything_else_is_no_amount(value: object) -> None:
    ((path, fault),) = faults_of(value, Field.wei)

    assert path == "$"
    assert fault.endswith(" is not an amount of wei: its digits in a string, or up to 2**53 a whole number")


def test_an_amount_has_a_limit() -> None:
    over = str(UINT256_MAX + 1)

    assert faults_of(over, Field.wei) == [("$", f"{over} is not between 0 and {UINT256_MAX}")]
    assert faults_of(8, lambda field: field.wei(7)) == [("$", "8 is not between 0 and 7")]


@pytest.mark.parametrize("text", ["x", "x" * 64, "é" * 32, "Grid operator №1"])
def test_printable_text_of_up_to_64_bytes_is_read(text: str) -> None:
    field = Field(text)

    assert (field.text(), field.faults) == (text, [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("x" * 65, f'"{"x" * 65}"'),
        ("é" * 33, '"' + ("\\u00e9" * 33)[:79] + "..."),
        ("a\x1b[2J", '"a\\u001b[2J"'),
        ("a\nb", '"a\\nb"'),
        ("a\0", '"a\\u0000"'),
        ("\u202egnp", '"\\u202egnp"'),
        ("x" * 10_000_000, '"' + "x" * 79 + "..."),
    ],
)
def test_other_text_is_quoted_harmlessly(value: str, shown: str) -> None:
    field = Field(value)

    assert field.text() == ""
    assert field.faults == [("$", f"{shown} is not 1 to 64 bytes of printable text")]


def test_a_text_is_a_string() -> None:
    assert faults_of(7, Field.text) == [("$", "expected a string, got 7")]


def test_only_true_and_false_are_boolean() -> None:
    assert (Field(True).boolean(), Field(False).boolean()) == (True, False)
    for value, shown in ((0, "0"), ("true", '"true"'), (None, "null")):
        assert faults_of(value, Field.boolean) == [("$", f"expected true or false, got {shown}")]


@pytest.mark.parametrize("text", [ALICE, ALICE.lower()])
def test_an_address_is_lower_case_or_checksummed(text: str) -> None:
    field = Field(text)

    assert (field.address().hex(), field.faults) == (ALICE[2:].lower(), [])


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (ALICE.replace("F", "f", 1), f"the checksum of {ALICE.replace('F', 'f', 1)} is wrong: it would be {ALICE}"),
        ("0x" + ALICE[2:].upper(), f"the checksum of 0x{ALICE[2:].upper()} is wrong: it would be {ALICE}"),
        ("0x" + "00" * 20, "the zero address belongs to nobody"),
        (ALICE[:-2], f'expected 20 bytes as 0x and 40 digits, got "{ALICE[:-2]}"'),
        (ALICE + "00", f'expected 20 bytes as 0x and 40 digits, got "{ALICE}00"'),
        (ALICE[2:], f'expected 20 bytes as 0x and 40 digits, got "{ALICE[2:]}"'),
        ("0X" + ALICE[2:], f'expected 20 bytes as 0x and 40 digits, got "0X{ALICE[2:]}"'),
        ("0x" + "g" * 40, f'expected 20 bytes as 0x and 40 digits, got "0x{"g" * 40}"'),
        ("0x" + "ab " * 13 + "a", f'expected 20 bytes as 0x and 40 digits, got "0x{"ab " * 13}a"'),
        (ALICE + "\n", f'expected 20 bytes as 0x and 40 digits, got "{ALICE}\\n"'),
        (None, "expected 20 bytes as 0x and 40 digits, got null"),
        (16, "expected 20 bytes as 0x and 40 digits, got 16"),
    ],
)  # fmt: skip
def test_any_other_address_is_a_fault(value: object, fault: str) -> None:
    field = Field(value)

    assert field.address() == ZERO_ADDRESS
    assert field.faults == [("$", fault)]


def test_members_are_known_and_there() -> None:
    field = Field({"a": 1, "typo": 2, "with space\n": 3})
    parts = field.members(("a", "b"), {"c": 7})

    assert {name: (part.path, part.value) for name, part in parts.items()} == {
        "a": ("$.a", 1),
        "b": ("$.b", None),
        "c": ("$.c", 7),
    }
    assert field.faults == [
        ("$.typo", "unknown member; known: a, b, c"),
        ('$["with space\\n"]', "unknown member; known: a, b, c"),
        ("$.b", "missing"),
    ]


def test_what_is_missing_is_no_second_fault() -> None:
    field = Field({})
    field.members(("a",), {})["a"].integer(1)

    assert field.faults == [("$.a", "missing")]


def test_no_object_is_one_fault() -> None:
    def read(field: Field) -> None:
        parts = field.members(("a",), {"b": 1})
        parts["a"].text()

    assert faults_of([1], read) == [("$", "expected an object, got a list")]
    assert faults_of(None, lambda field: list(field.entries())) == [("$", "expected an object, got null")]


def test_items_are_numbered_and_bounded() -> None:
    assert [(item.path, item.value) for item in Field([7, 8]).items(2)] == [("$[0]", 7), ("$[1]", 8)]
    assert faults_of([7, 8, 9], lambda field: field.items(2)) == [("$", "3 items; limit 2")]
    assert faults_of({}, lambda field: field.items(2)) == [("$", "expected a list, got an object")]


def test_a_value_that_stands_twice_is_told_with_its_first_place() -> None:
    field = Field([ALICE, BOB, ALICE.lower(), "wrong", "wrong"])
    seen: dict[Any, str] = {}

    for item in field.items(9):
        item.distinct(item.address(), seen)

    assert [path for path, _ in field.faults] == ["$[2]", "$[3]", "$[4]"]
    assert field.faults[0] == ("$[2]", "the same as $[0]")
