"""The state tree against its definition: from the whole set of leaves, recursively and slowly.

Key hashes come from few clusters that share prefixes of any length, so that nodes split and collapse all the time.
"""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.crypto import sha256
from ctt_state.tree import (
    EMPTY_ROOT,
    InvalidProof,
    build,
    build_above,
    build_below,
    check_proof,
    prove,
    update,
)
from ctt_state.units import Hash

Leaves = dict[bytes, bytes]  # value hash by key hash
Nodes = dict[bytes, bytes]  # bytes by path

CLUSTERS: Final = (b"\x00" * 32, sha256(b"cluster"))
values = st.integers(0, 2).map(lambda number: sha256(bytes((number,))))


@st.composite
def key_hashes(draw: st.DrawFn) -> bytes:
    """A cluster's nibbles up to some depth, any nibble there, and from there on the same ones again."""
    cluster = draw(st.sampled_from(CLUSTERS)).hex()
    depth = draw(st.sampled_from((0, 1, 2, 3, 31, 32, 61, 62, 63)))
    nibble = draw(st.sampled_from("0123456789abcdef"))
    rest = draw(st.sampled_from((cluster, CLUSTERS[0].hex())))
    return bytes.fromhex(cluster[:depth] + nibble + rest[depth + 1 :])


blocks = st.dictionaries(key_hashes(), st.none() | values, max_size=12)
leaf_sets = st.dictionaries(key_hashes(), values, max_size=25)


def nodes_of(leaves: Leaves, path: str = "") -> Nodes:
    """The definition: a slot holds nothing, its one leaf, or the hash of the node made of its two leaves or more."""
    nodes: Nodes = {}
    slots = []
    for nibble in "0123456789abcdef":
        below = {key: value for key, value in leaves.items() if key.hex().startswith(path + nibble)}
        if len(below) < 2:
            slots.append(b"".join(key + value for key, value in below.items()))
        else:
            nodes |= nodes_of(below, path + nibble)
            slots.append(sha256(nodes[stored_path(path + nibble)]))
    nodes[stored_path(path)] = bytes(len(slot) for slot in slots) + b"".join(slots)
    return nodes


def stored_path(path: str) -> bytes:
    return bytes(int(nibble, 16) for nibble in path)


def apply_block(nodes: Nodes, block: dict[bytes, bytes | None]) -> Hash:
    root, changes = update(nodes.get, block.items())
    for path, node in changes.items():
        if node is None:
            nodes.pop(path, None)
        else:
            nodes[path] = node
    return root


@settings(max_examples=150, deadline=None)
@given(history=st.lists(blocks, max_size=8))
def test_any_history_leads_to_the_tree_of_its_leaves(history: list[dict[bytes, bytes | None]]) -> None:
    """Block by block, and node by node: none is left over, none is missing."""
    nodes: Nodes = {}
    leaves: Leaves = {}
    for block in history:
        root = apply_block(nodes, block)
        for key_hash, value_hash in block.items():
            leaves.pop(key_hash, None)
            if value_hash is not None:
                leaves[key_hash] = value_hash

        assert nodes == nodes_of(leaves)
        assert root == sha256(nodes[b""])


@settings(max_examples=150, deadline=None)
@given(leaves=leaf_sets)
def test_building_gives_the_tree_of_its_leaves(leaves: Leaves) -> None:
    built = list(build(sorted(leaves.items())))

    assert dict(built) == nodes_of(leaves)
    assert len(dict(built)) == len(built)
    assert built[-1][0] == b""


@settings(max_examples=100, deadline=None)
@given(leaves=leaf_sets, depth=st.integers(1, 3))
def test_parts_and_what_is_above_them_give_the_tree_of_its_leaves(leaves: Leaves, depth: int) -> None:
    """Each in the order of paths, so that all can be merged."""
    parts = []
    for number in range(16**depth):
        nibbles = f"{number:0{depth}x}"
        below = [leaf for leaf in sorted(leaves.items()) if leaf[0].hex().startswith(nibbles)]
        parts.append(build_below(depth, below))
    above = build_above([entry for entry, _ in parts])
    below = [node for _, nodes in parts for node in nodes]

    assert dict(above) | dict(below) == nodes_of(leaves)
    assert len(above) + len(below) == len(nodes_of(leaves))
    assert above == sorted(above) and below == sorted(below)


@settings(max_examples=60, deadline=None)
@given(leaves=leaf_sets, data=st.data())
def test_neither_order_nor_grouping_matters(leaves: Leaves, data: st.DataObject) -> None:
    entries = data.draw(st.permutations(sorted(leaves.items())))
    cut = data.draw(st.integers(0, len(entries)))

    nodes: Nodes = {}
    apply_block(nodes, dict(entries[:cut]))
    apply_block(nodes, dict(entries[cut:]))

    assert nodes == nodes_of(leaves)


@settings(max_examples=60, deadline=None)
@given(leaves=leaf_sets, block=blocks)
def test_a_block_taken_back_leaves_the_tree_as_it_was(
    leaves: Leaves, block: dict[bytes, bytes | None]
) -> None:
    nodes: Nodes = {}
    apply_block(nodes, dict(leaves))
    before = dict(nodes)

    apply_block(nodes, block)
    apply_block(nodes, {key_hash: leaves.get(key_hash) for key_hash in block})

    assert nodes == before


@settings(max_examples=150, deadline=None)
@given(leaves=leaf_sets, asked=key_hashes(), claimed=st.none() | values)
def test_a_proof_shows_what_the_tree_holds_and_nothing_else(
    leaves: Leaves, asked: bytes, claimed: bytes | None
) -> None:
    nodes = nodes_of(leaves)
    root, proof = sha256(nodes[b""]), prove(nodes.get, asked)

    if claimed == leaves.get(asked):
        check_proof(root, asked, claimed, proof)
    else:
        with pytest.raises(InvalidProof):
            check_proof(root, asked, claimed, proof)


def flip_bit(proof: list[bytes], at: int) -> None:
    index = at % len(proof)
    node = bytearray(proof[index])
    node[at % len(node)] ^= 1 << at % 8
    proof[index] = bytes(node)


def drop_node(proof: list[bytes], at: int) -> None:
    del proof[at % len(proof)]


def add_node(proof: list[bytes], at: int) -> None:
    proof.insert(at % (len(proof) + 1), proof[at % len(proof)])


def cut_node(proof: list[bytes], at: int) -> None:
    index = at % len(proof)
    proof[index] = proof[index][: at % len(proof[index])]


def lengthen_node(proof: list[bytes], at: int) -> None:
    proof[at % len(proof)] += bytes((at % 256,))


TAMPERING: Final = (flip_bit, drop_node, add_node, cut_node, lengthen_node)


@settings(max_examples=150, deadline=None)
@given(leaves=leaf_sets, asked=key_hashes(), tamper=st.sampled_from(TAMPERING), at=st.integers(0, 1_000_000))
def test_a_changed_proof_shows_nothing(
    leaves: Leaves, asked: bytes, tamper: Callable[[list[bytes], int], None], at: int
) -> None:
    nodes = nodes_of(leaves)
    root, proof = sha256(nodes[b""]), list(prove(nodes.get, asked))

    tamper(proof, at)

    for claim in (leaves.get(asked), None, sha256(b"a claim")):
        with pytest.raises(InvalidProof):
            check_proof(root, asked, claim, proof)


@settings(max_examples=60, deadline=None)
@given(leaves=leaf_sets, others=leaf_sets, asked=key_hashes())
def test_a_proof_holds_under_its_own_root_only(leaves: Leaves, others: Leaves, asked: bytes) -> None:
    nodes, root = nodes_of(leaves), sha256(nodes_of(others)[b""])
    if leaves == others:
        return

    with pytest.raises(InvalidProof):
        check_proof(root, asked, leaves.get(asked), prove(nodes.get, asked))


@settings(max_examples=60, deadline=None)
@given(leaves=leaf_sets)
def test_two_sets_of_leaves_have_two_roots(leaves: Leaves) -> None:
    """Each leaf taken out, moved to another key or given another value shows in the root."""
    roots = {apply_block({}, dict(leaves))}
    for key_hash in leaves:
        less = {key: value for key, value in leaves.items() if key != key_hash}
        roots.add(apply_block({}, dict(less)))
        roots.add(apply_block({}, {**less, sha256(key_hash): leaves[key_hash]}))
        roots.add(apply_block({}, {**leaves, key_hash: sha256(b"another value")}))

    assert len(roots) == 1 + 3 * len(leaves)
    assert (EMPTY_ROOT in roots) == (len(leaves) < 2)
