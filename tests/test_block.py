"""Blocks, headers and receipts: their bytes (B-1), hashes (B-4) and roots (B-3)."""

import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.block import (
    NO_EVIDENCE_ROOT,
    Block,
    Header,
    Log,
    Receipt,
    evidence_root,
    is_in_merkle_root,
    merkle_branch,
    merkle_root,
)
from ctt_state.units import UINT64_MAX, Address, Gas, Hash, Height, Ms


def make_header(number: int = 1) -> Header:
    """A header none of whose fields equals another."""
    hashes = [Hash(bytes([tag]) * 32) for tag in range(8)]
    return Header(
        version=1,
        genesis_hash=hashes[0],
        height=Height(number),
        epoch=number + 1,
        view=number + 2,
        parent_hash=hashes[1],
        timestamp_ms=Ms(number + 3),
        proposer=Address(b"p" * 20),
        gas_used=Gas(number + 4),
        transactions_root=hashes[2],
        receipts_root=hashes[3],
        state_root=hashes[4],
        evidence_root=hashes[5],
        validators_hash=hashes[6],
        next_validators_hash=hashes[7],
    )


# --- bytes ---


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**32, UINT64_MAX - 4])
def test_a_header_is_the_array_of_its_fields(number: int) -> None:
    """B-1, B-4."""
    header = make_header(number)

    assert header.encode() == msgpack.packb(list(header))
    assert header.hash == hashlib.sha256(header.encode()).digest()
    assert Header.decode(header.encode()) == header


@pytest.mark.parametrize("field", Header._fields)
def test_every_field_of_a_header_is_signed(field: str) -> None:
    header = make_header()
    value = getattr(header, field)
    other: Any = value + 1 if isinstance(value, int) else bytes(len(value) - 1) + b"\xff"
    changes: dict[str, Any] = {field: other}

    assert header._replace(**changes).hash != header.hash


logs = st.builds(
    Log,
    st.binary(min_size=20, max_size=20).map(Address),
    st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    st.binary(max_size=300),
)
receipts = st.builds(
    Receipt,
    st.booleans(),
    st.integers(0, UINT64_MAX).map(Gas),
    st.lists(logs, max_size=3).map(tuple),
    st.binary(),
)


@given(receipt=receipts)
def test_a_receipt_comes_back_from_its_bytes(receipt: Receipt) -> None:
    again = Receipt.decode(receipt.encode())

    assert again == receipt
    assert again.encode() == receipt.encode()
    assert {type(log) for log in again.logs} <= {Log}
    assert {type(log.topics) for log in again.logs} <= {tuple}


raws = st.lists(st.binary(max_size=300), max_size=5).map(tuple)


@given(transactions=raws, evidence=raws)
def test_a_block_comes_back_from_its_bytes(
    transactions: tuple[bytes, ...], evidence: tuple[bytes, ...]
) -> None:
    block = Block(make_header(), transactions, evidence)

    assert Block.decode(block.encode()) == block


def test_a_root_of_evidence_is_zero_where_there_is_none() -> None:
    """B-3: else it is like that of transactions."""
    assert evidence_root(()) == NO_EVIDENCE_ROOT == bytes(32)
    assert evidence_root((b"one", b"two")) == merkle_root((b"one", b"two"))


# --- roots ---


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word: split at the largest power of two below the number of leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_branch(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 6962, 2.1.1: the audit path."""
    if len(leaves) <= 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_branch(leaves[:split], index), naive_root(leaves[split:])]
    return [*naive_branch(leaves[split:], index - split), naive_root(leaves[:split])]


def make_leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


# The test vectors of certificate-transparency-go for these eight leaves, and its roots of the first 0 to 8 of them.
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(9))
def test_roots_are_those_of_certificate_transparency(count: int) -> None:
    """B-3."""
    assert merkle_root(CT_LEAVES[:count]).hex() == CT_ROOTS[count]


@pytest.mark.parametrize("count", [*range(34), 63, 64, 65, 100])
def test_roots_and_branches_are_those_of_rfc_6962(count: int) -> None:
    leaves = make_leaves(count)
    root = merkle_root(leaves)

    assert root == naive_root(leaves)
    for index in range(count):
        branch = merkle_branch(leaves, index)
        assert list(branch) == naive_branch(leaves, index)
        assert is_in_merkle_root(root, leaves[index], index, count, branch)


@pytest.mark.parametrize("count", range(1, 10))
def test_a_branch_shows_nothing_but_its_leaf_in_its_place(count: int) -> None:
    leaves = make_leaves(count)
    root = merkle_root(leaves)
    for index in range(count):
        branch = merkle_branch(leaves, index)
        for other in range(-1, count + 1):
            assert is_in_merkle_root(root, leaves[index], other, count, branch) == (other == index)
        assert not is_in_merkle_root(root, b"another leaf", index, count, branch)
        assert not is_in_merkle_root(root, leaves[index], index, count, (*branch, bytes(32)))
        assert not branch or not is_in_merkle_root(root, leaves[index], index, count, branch[:-1])
        for at in range(len(branch)):
            changed = (*branch[:at], bytes(32), *branch[at + 1 :])
            assert not is_in_merkle_root(root, leaves[index], index, count, changed)


def test_nothing_is_under_the_root_of_nothing() -> None:
    assert not is_in_merkle_root(merkle_root([]), b"", 0, 0, ())


def test_a_node_cannot_pose_as_a_leaf() -> None:
    """B-3: leaves start with 00, nodes with 01."""
    left, right = (hashlib.sha256(b"\0" + leaf).digest() for leaf in (b"a", b"b"))

    assert merkle_root([left + right]) != merkle_root([b"a", b"b"])
