"""Records: keys that never meet, canonical bytes that come back (B-1)."""

from collections.abc import Mapping
from typing import Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import sha256
from ctt_state.records import (
    AUCTIONS_KEPT,
    PAGE_ORDERS,
    PAGE_TOKENS,
    ROLE_OPERATOR,
    ROLE_TREASURER,
    Account,
    Approval,
    Auction,
    Barred,
    Booking,
    BookingKind,
    BookPage,
    Change,
    CttConfig,
    CttSupply,
    EpochSet,
    Governance,
    Mandate,
    MarketBook,
    MarketTariff,
    Meter,
    Offence,
    Order,
    Outcome,
    Proposal,
    Prosumer,
    Reading,
    Record,
    Role,
    ShelfPage,
    Standing,
    Token,
    TreasuryTotals,
    decode_record,
)
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS, Address, Height, Ms, TokenId, Watt, Wei, Wh
from ctt_state.validators import Member, ValidatorSet

ALICE = Address(b"a" * 20)
BOB = Address(b"b" * 20)

addresses = st.binary(min_size=20, max_size=20).map(Address) | st.just(ZERO_ADDRESS)
uint64 = st.integers(0, UINT64_MAX) | st.sampled_from((0, 127, 128, 255, 256, 2**32, UINT64_MAX))
wide = st.integers(0, UINT256_MAX) | st.sampled_from(
    (0, 1, 255, 256, UINT64_MAX, UINT64_MAX + 1, UINT256_MAX)
)
energies = uint64.map(Wh)
prices = wide.map(Wei)
origins = st.lists(uint64, max_size=5).map(tuple)
ids = st.integers(1, UINT64_MAX).map(TokenId)
heights = uint64.map(Height)
consensus_keys = st.binary(min_size=32, max_size=32).map(lambda x: b"\x03" + x)
KEY = b"\x02" + bytes(32)

records: Final[Mapping[bytes, st.SearchStrategy[Record]]] = {
    Account.key(ALICE): st.builds(Account, uint64, prices),
    CttConfig.key(): st.builds(
        CttConfig,
        st.text(max_size=64),
        st.text(max_size=64),
        addresses,
        addresses,
        uint64,
        energies,
        energies,
        prices,
    ),
    CttSupply.key(): st.builds(
        CttSupply,
        uint64,
        energies,
        wide.map(Wh),
        wide.map(Wh),
        origins,
        st.lists(wide, max_size=5).map(tuple),
    ),
    Token.key(TokenId(1)): st.builds(
        Token, addresses, uint64, energies, st.booleans(), prices, prices, addresses, uint64, origins
    ),
    Prosumer.key(ALICE): st.builds(
        Prosumer, addresses, st.booleans(), uint64, uint64, uint64, uint64, *[energies] * 7, origins
    ),
    ShelfPage.key(ALICE, 0): st.builds(ShelfPage, st.lists(ids, min_size=1, max_size=PAGE_TOKENS).map(tuple)),
    Approval.key(ALICE, BOB): st.just(Approval()),
    Meter.key(ALICE): st.builds(
        Meter, addresses, st.integers(0, 5), uint64.map(Watt), st.booleans(), st.booleans(), addresses
    ),
    Reading.key(ALICE, BOB): st.builds(
        Reading, uint64.map(Ms), energies, energies, uint64.map(Ms), uint64.map(Ms)
    ),
    Role.key(ROLE_OPERATOR, ALICE): st.just(Role()),
    EpochSet.key(1): st.builds(
        EpochSet, st.lists(st.builds(Member, addresses, consensus_keys), max_size=5).map(tuple)
    ),
    Governance.key(): st.builds(
        Governance, uint64, uint64, st.lists(st.tuples(uint64, addresses), max_size=5).map(tuple)
    ),
    Proposal.key(1): st.builds(
        Proposal,
        st.sampled_from(Change),
        addresses,
        consensus_keys | st.just(b""),
        addresses,
        heights,
        st.lists(addresses, max_size=5).map(tuple),
        heights,
        heights,
        st.sampled_from(Outcome),
        heights,
    ),
    Offence.key(1): st.builds(Offence, addresses, consensus_keys, uint64, uint64, heights),
    Barred.key(KEY): st.builds(Barred, uint64),
    TreasuryTotals.key(): st.builds(TreasuryTotals, prices, prices),
    Booking.key(ALICE, bytes(32)): st.builds(
        Booking, st.sampled_from(BookingKind), addresses, prices, heights
    ),
    MarketTariff.key(): st.builds(MarketTariff, prices, prices, prices, addresses),
    MarketBook.key(): st.builds(MarketBook, uint64, uint64),
    BookPage.key(0): st.builds(BookPage, st.lists(uint64, min_size=1, max_size=PAGE_ORDERS).map(tuple)),
    Standing.key(ALICE): st.builds(Standing, uint64, uint64),
    Order.key(1): st.builds(
        Order,
        addresses,
        st.booleans(),
        energies,
        prices,
        uint64,
        uint64,
        addresses,
        st.lists(st.tuples(st.integers(0, 5), prices), max_size=3).map(tuple),
        st.lists(st.tuples(addresses, prices), max_size=3).map(tuple),
    ),
    Auction.key(1): st.builds(Auction, uint64, heights, prices, wide.map(Wh), uint64, uint64),
    Mandate.key(ALICE, BOB): st.builds(Mandate, energies, prices, prices, prices, uint64),
}
keyed = st.sampled_from(sorted(records)).flatmap(lambda key: st.tuples(st.just(key), records[key]))


@given(keyed=keyed)
def test_a_record_comes_back_from_its_bytes(keyed: tuple[bytes, Record]) -> None:
    """B-1: with its own type, and bytes that are the same again."""
    key, record = keyed
    data = record.encode()

    again = decode_record(key, data)

    assert again == record
    assert type(again) is type(record)
    assert again.encode() == data


@given(keyed=keyed)
def test_bytes_are_the_msgpack_array_of_the_fields(keyed: tuple[bytes, Record]) -> None:
    """B-1: as many items as fields, integers as short as msgpack and big-endian allow."""
    _, record = keyed
    data = record.encode()
    items = msgpack.unpackb(data, use_list=False)

    assert msgpack.packb(items) == data
    fields = getattr(record, "_fields", ())
    if isinstance(record, ShelfPage | EpochSet | BookPage):
        (fields,) = record  # the one field is the array
    assert len(items) == len(fields)
    assert not any(item[:1] == b"\0" and len(item) != 20 for item in items if isinstance(item, bytes))


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (0, b""),
        (1, b"\x01"),
        (255, b"\xff"),
        (256, b"\x01\x00"),
        (UINT64_MAX + 1, b"\x01" + bytes(8)),
        (UINT256_MAX, b"\xff" * 32),
    ],
)
def test_a_wide_integer_is_minimal_big_endian(number: int, data: bytes) -> None:
    assert msgpack.unpackb(Account(7, Wei(number)).encode()) == [7, data]


@pytest.mark.parametrize("number", [0, 127, 128, UINT64_MAX])
def test_all_time_energy_may_pass_64_bits(number: int) -> None:
    supply = CttSupply(number, Wh(number), Wh(number << 64), Wh(number << 64))

    assert CttSupply.decode(supply.encode()) == supply


def test_nobody_is_written_as_nothing() -> None:
    """A token without approval, a prosumer without a meter and an order that its owner placed take a byte for it, not
    21."""
    order = Order(ALICE, True, Wh(1), Wei(1), 1, 0, ALICE)
    assert len(order.encode()) == len(order._replace(placer=BOB).encode()) - 20
    assert len(Token(ALICE, 0).encode()) == len(Token(ALICE, 0, approved=BOB).encode()) - 20
    assert len(Prosumer().encode()) == len(Prosumer(meter=BOB).encode()) - 20


KEYS = [
    *records,
    Account.key(BOB),
    Token.key(TokenId(2)),
    Token.key(TokenId(UINT64_MAX)),
    Prosumer.key(BOB),
    ShelfPage.key(ALICE, 1),
    ShelfPage.key(BOB, 0),
    Approval.key(BOB, ALICE),
    Meter.key(BOB),
    Reading.key(BOB, ALICE),
    Role.key(ROLE_TREASURER, ALICE),
    Role.key(ROLE_OPERATOR, BOB),
    EpochSet.key(2),
    EpochSet.key(UINT64_MAX),
    Proposal.key(2),
    Offence.key(2),
    Barred.key(b"\x03" + bytes(32)),
    Booking.key(BOB, bytes(32)),
    Booking.key(ALICE, bytes(31) + b"\x01"),
    BookPage.key(1),
    Standing.key(BOB),
    Order.key(2),
    Auction.key(AUCTIONS_KEPT - 1),
    Mandate.key(BOB, ALICE),
]


def test_no_two_records_share_a_key() -> None:
    assert len(set(KEYS)) == len(KEYS)


def test_no_key_begins_another() -> None:
    """So that a range of keys of one kind holds whole records of this kind only."""
    assert not [(a, b) for a in KEYS for b in KEYS if a != b and b.startswith(a)]


def test_keys_say_the_kind_then_the_name() -> None:
    assert Account.key(ALICE) == b"\x01" + ALICE
    assert Token.key(TokenId(258)) == b"\x04" + bytes(6) + b"\x01\x02"
    assert ShelfPage.key(ALICE, 3) == b"\x06" + ALICE + bytes(7) + b"\x03"
    assert Reading.key(ALICE, BOB) == b"\x09" + ALICE + BOB
    assert Role.key(ROLE_TREASURER, BOB) == b"\x0a\x02" + BOB
    assert Auction.key(AUCTIONS_KEPT + 258) == Auction.key(258) == b"\x15" + bytes(6) + b"\x01\x02"
    assert Mandate.key(ALICE, BOB) == b"\x16" + ALICE + BOB
    assert EpochSet.key(258) == b"\x0b" + bytes(6) + b"\x01\x02"
    assert Proposal.key(3) == b"\x0d" + bytes(7) + b"\x03"
    assert Barred.key(KEY) == b"\x0f" + KEY
    assert Booking.key(ALICE, bytes(32)) == b"\x19" + ALICE + bytes(32)


def test_what_headers_say_of_a_set_is_the_hash_of_its_record() -> None:
    """A-4: so a leaf of the state tree proves the set that a header names."""
    members = (Member(ALICE, KEY), Member(BOB, b"\x03" + bytes(32)))

    assert EpochSet(members).validators == ValidatorSet(members)
    assert sha256(EpochSet(members).encode()) == ValidatorSet(members).hash


def test_an_unknown_kind_is_no_record() -> None:
    with pytest.raises(KeyError):
        decode_record(b"\xff", b"\x90")


def test_a_selling_price_counts_the_energy() -> None:
    """S-9: token price + energy x energy price."""
    token = Token(ALICE, 0, Wh(10_000), token_price_wei=Wei(7), energy_price_wei_per_wh=Wei(3))

    assert token.selling_price_wei == 30_007


def test_a_prosumers_tokens_are_those_of_all_regions() -> None:
    assert Prosumer(full=1, partial=20, empty=300, on_sale=4_000).tokens == 4_321
