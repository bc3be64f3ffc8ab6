"""The state tree (B-2): its bytes, its bounds and its proofs, by example."""

from collections.abc import Iterator

import pytest

from ctt_state.crypto import sha256
from ctt_state.tree import (
    DEPTH_MAX,
    EMPTY_ROOT,
    NO_SLOTS,
    InvalidProof,
    MalformedNode,
    build,
    check_proof,
    decode_node,
    encode_node,
    prove,
    update,
)
from ctt_state.units import Hash

ONE, OTHER = bytes(32), bytes(31) + b"\x01"  # alike but for the last nibble: the deepest tree of two leaves

Nodes = dict[bytes, bytes | None]
NOTHING: Nodes = {}


def key(number: int) -> Hash:
    return sha256(number.to_bytes(4, "big"))


def value(number: int) -> Hash:
    return sha256(b"value %d" % number)


def make_tree(count: int) -> tuple[Hash, Nodes]:
    return update(NOTHING.get, [(key(number), value(number)) for number in range(count)])


def kept(nodes: Nodes) -> dict[bytes, bytes]:
    return {path: node for path, node in nodes.items() if node is not None}


# --- bytes --------------------------------------------------------------------------------------------------------

ROOTS = {
    0: "374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb",
    1: "040720d4ce2334e209712d4c7ad5ac2b458e6cf727e54d17ecaad00cad1b9211",
    2: "8ce7889e1d47b25d86d78f75fc8b6973a8020decac83b5fe29407009a47c979e",
    3: "54bdcc958c688b8538a04818583756a75dd956a61233874362ad88368e6dcc0c",
    17: "2194618db7229b0c670c4a5a31f4561cb8d1dc1657889d58654e16bba8fab57e",
    100: "a053fb5e1150a35dcb294345181fda5e94ce22a7243024a7d33536e5c184d5cb",
    1_000: "bf72bb5fdbc49308229702b8be785c3d6affe2490b7716f072549e1c60a8d6ca",
}
NODE_OF_TWO = (
    "00000000000000000000004000400000"
    "b40711a88c7039756fb8a73827eabe2c0fe5a0346ca7e0a104adc0fc764f528d"
    "65da867639080176b5998c77219e2745474aa518a04268522467322f06fbd9d9"
    "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"
    "f2a69722b820ceb39ae47f76059ccbfb57584ae46c37304c6ed77f5f500b81cd"
)


@pytest.mark.parametrize("count", ROOTS)
def test_the_roots_of_some_trees_never_change(count: int) -> None:
    leaves = sorted((key(number), value(number)) for number in range(count))

    assert make_tree(count)[0].hex() == ROOTS[count]
    assert sha256(dict(build(leaves))[b""]).hex() == ROOTS[count]


def test_a_node_is_its_slots_lengths_and_its_slots() -> None:
    _, nodes = make_tree(2)
    slots = decode_node(bytes.fromhex(NODE_OF_TWO))

    assert nodes == {b"": bytes.fromhex(NODE_OF_TWO)}
    assert slots[0xB] == key(1) + value(1) and slots[0xD] == key(0) + value(0)
    assert encode_node(slots).hex() == NODE_OF_TWO


def test_the_empty_tree_is_sixteen_empty_slots() -> None:
    assert update(NOTHING.get, []) == (EMPTY_ROOT, {b"": NO_SLOTS})
    assert list(build([])) == [(b"", bytes(16))]
    assert sha256(bytes(16)) == EMPTY_ROOT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(15),
        bytes(17),
        b"\x20" + bytes(15),
        b"\x20" + bytes(15) + bytes(31),
        b"\x20" + bytes(15) + bytes(33),
        b"\x40" + bytes(15) + bytes(63),
        b"\x40" + bytes(15) + bytes(65),
        b"\x01" + bytes(15) + bytes(1),
        b"\x1f" + bytes(15) + bytes(31),
        b"\x21" + bytes(15) + bytes(33),
        b"\x60" + bytes(15) + bytes(96),
        b"\xff" * 16,
        b"\xff" * 16 + bytes(16 * 255),
    ],
    ids=lambda data: f"{data[:1].hex()}-{len(data)}",
)
def test_bytes_that_are_no_node_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedNode, match=f"{len(data)} bytes with slots of"):
        decode_node(data)


# --- shape --------------------------------------------------------------------------------------------------------


def test_a_lone_leaf_lies_in_the_root() -> None:
    root, nodes = update(NOTHING.get, [(key(0), value(0))])

    node = nodes[b""]
    assert node is not None and list(nodes) == [b""]
    assert [slot for slot in decode_node(node) if slot] == [key(0) + value(0)]
    assert root == sha256(node)


def test_leaves_that_share_63_nibbles_lie_under_64_nodes_until_one_goes() -> None:
    _, nodes = update(NOTHING.get, [(ONE, value(0)), (OTHER, value(1))])
    assert set(nodes) == {bytes(depth) for depth in range(DEPTH_MAX)}
    assert kept(nodes) == dict(build([(ONE, value(0)), (OTHER, value(1))]))

    root, changes = update(nodes.get, [(ONE, None)])

    assert [path for path, node in changes.items() if node is not None] == [b""]
    assert set(changes) == set(nodes)
    assert root == update(NOTHING.get, [(OTHER, value(1))])[0]


def test_a_tree_emptied_leaf_by_leaf_is_the_empty_tree() -> None:
    root, nodes = make_tree(50)

    for number in range(50):
        root, changes = update(nodes.get, [(key(number), None)])
        nodes.update(changes)

    assert root == EMPTY_ROOT
    assert kept(nodes) == {b"": NO_SLOTS}


def test_a_tree_emptied_at_once_is_the_empty_tree() -> None:
    _, nodes = make_tree(50)

    root, changes = update(nodes.get, [(key(number), None) for number in range(50)])

    assert root == EMPTY_ROOT
    assert kept({**nodes, **changes}) == {b"": NO_SLOTS}


@pytest.mark.parametrize("count", [0, 1, 50])
def test_what_is_deleted_without_being_there_changes_nothing(count: int) -> None:
    root, nodes = make_tree(count)

    after, changes = update(nodes.get, [(key(number), None) for number in range(100, 120)])

    assert after == root
    assert kept({**nodes, **changes}) == nodes


def test_only_nodes_on_the_way_to_a_change_are_read() -> None:
    _, nodes = make_tree(5_000)
    asked: list[bytes] = []

    def read(path: bytes) -> bytes | None:
        asked.append(path)
        return nodes.get(path)

    _, changes = update(read, [(key(7), value(0))])

    assert asked == list(reversed(changes))
    assert asked == [bytes(map(int_of, key(7).hex()[:depth])) for depth in range(len(asked))]


def int_of(nibble: str) -> int:
    return int(nibble, 16)


def test_a_node_that_is_missing_is_told_and_not_taken_for_empty() -> None:
    _, nodes = make_tree(50)
    path = next(path for path in nodes if path)
    inside = next(key(number) for number in range(50) if key(number)[0] >> 4 == path[0])
    del nodes[path]

    with pytest.raises(MalformedNode, match=f"no node at {path.hex()}, which its parent names"):
        update(nodes.get, [(inside, value(0))])
    with pytest.raises(MalformedNode, match=f"no node at {path.hex()}"):
        prove(nodes.get, inside)


@pytest.mark.parametrize("order", [(OTHER, ONE), (ONE, ONE), (ONE, OTHER, OTHER), (ONE, OTHER, ONE)])
def test_a_tree_is_built_from_sorted_leaves_only(order: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="not in the order of their key hashes, each once"):
        list(build((each, value(0)) for each in order))


def test_building_gives_nodes_while_leaves_still_come() -> None:
    """So a genesis of millions of records needs no memory for its tree."""
    come = 0

    def leaves() -> Iterator[tuple[bytes, bytes]]:
        nonlocal come
        for key_hash in sorted(key(number) for number in range(1_000)):
            come += 1
            yield key_hash, value(0)

    behind = [come - number for number, _ in enumerate(build(leaves()))]

    assert behind[0] < 20  # leaves, before the first node
    assert come == 1_000


# --- proofs -------------------------------------------------------------------------------------------------------


def test_a_leaf_that_is_there_is_shown_to_be() -> None:
    root, nodes = make_tree(1_000)

    for number in range(1_000):
        check_proof(root, key(number), value(number), prove(nodes.get, key(number)))


def test_absence_is_shown_by_an_empty_slot_or_by_another_leaf() -> None:
    root, nodes = make_tree(20)
    ends = set()

    for number in range(100, 200):
        proof = prove(nodes.get, key(number))
        check_proof(root, key(number), None, proof)
        ends.add(len(decode_node(proof[-1])[int(key(number).hex()[len(proof) - 1], 16)]))

    assert ends == {0, 64}


def test_everything_is_absent_from_the_empty_tree() -> None:
    assert prove(NOTHING.get, ONE) == (NO_SLOTS,)
    check_proof(EMPTY_ROOT, ONE, None, (NO_SLOTS,))


def test_the_longest_proof_has_64_nodes() -> None:
    root, nodes = update(NOTHING.get, [(ONE, value(0)), (OTHER, value(1))])

    proof = prove(nodes.get, OTHER)

    assert len(proof) == DEPTH_MAX
    check_proof(root, OTHER, value(1), proof)
    with pytest.raises(InvalidProof, match="1 nodes more than the path has"):
        check_proof(root, OTHER, value(1), (*proof, NO_SLOTS))


def test_a_proof_says_why_it_fails() -> None:
    root, nodes = make_tree(1_000)
    proof = prove(nodes.get, key(5))
    there, absent = (root, key(5), value(5)), key(5_000)

    with pytest.raises(InvalidProof, match="the tree holds another value for the key"):
        check_proof(root, key(5), value(6), proof)
    with pytest.raises(InvalidProof, match="the tree holds another value for the key"):
        check_proof(root, key(5), None, proof)
    with pytest.raises(InvalidProof, match="the tree does not hold the key"):
        check_proof(root, absent, value(5), prove(nodes.get, absent))
    with pytest.raises(InvalidProof, match="node 0 does not have the hash that its parent names"):
        check_proof(EMPTY_ROOT, key(5), value(5), proof)
    with pytest.raises(InvalidProof, match="node 1 does not have the hash that its parent names"):
        check_proof(*there, (proof[0], proof[0]))
    with pytest.raises(InvalidProof, match="the path does not end at a leaf or an empty slot"):
        check_proof(*there, proof[:-1])
    with pytest.raises(InvalidProof, match="the path does not end at a leaf or an empty slot"):
        check_proof(*there, ())
    with pytest.raises(InvalidProof, match="2 nodes more than the path has"):
        check_proof(*there, (*proof, proof[0], proof[0]))
    with pytest.raises(InvalidProof, match="a key hash of 31 bytes"):
        check_proof(root, key(5)[:31], None, proof)


def test_every_flipped_byte_of_a_proof_is_noticed() -> None:
    root, nodes = make_tree(100)
    proof = prove(nodes.get, key(5))

    for index, node in enumerate(proof):
        for at in range(len(node)):
            changed = node[:at] + bytes((node[at] ^ 1,)) + node[at + 1 :]
            with pytest.raises(InvalidProof):
                check_proof(root, key(5), value(5), (*proof[:index], changed, *proof[index + 1 :]))


def test_a_node_hidden_in_a_value_hash_does_not_lengthen_a_proof() -> None:
    """Who chooses a record's bytes may choose a node's: its hash then stands in a leaf, where no node is."""
    hidden = encode_node([OTHER + value(1)] + [b""] * 15)
    root, nodes = update(NOTHING.get, [(ONE, sha256(hidden))])
    proof = prove(nodes.get, ONE)

    for claim in (value(1), None):
        with pytest.raises(InvalidProof, match="1 nodes more than the path has"):
            check_proof(root, OTHER, claim, (*proof, hidden))


def test_a_root_of_bytes_that_are_no_node_shows_nothing() -> None:
    data = b"\x01" + bytes(16)

    with pytest.raises(InvalidProof, match="node 0: 17 bytes with slots of"):
        check_proof(sha256(data), ONE, None, (data,))


def test_a_chain_longer_than_a_key_shows_nothing() -> None:
    """Only a root that no tree has could name it."""
    proof = [NO_SLOTS]
    while len(proof) <= DEPTH_MAX:
        proof.insert(0, encode_node([sha256(proof[0])] + [b""] * 15))

    with pytest.raises(InvalidProof, match="node 64 does not have the hash that its parent names"):
        check_proof(sha256(proof[0]), ONE, None, proof)
