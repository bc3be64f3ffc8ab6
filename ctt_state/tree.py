"""The state tree: a 16-ary compact Merkle tree over hashed keys, so that one hash stands for every record.

A leaf is a key's hash and a value's hash. It sits at the shallowest depth at which its key hash's nibbles are its
own; so there is a node at a path (a prefix of nibbles) only where two leaves or more share it, and at the root. The
shape depends on the set of leaves alone, never on their history.

A node has sixteen slots: empty, a leaf (64 bytes: key hash, value hash) or the hash of the node below (32 bytes). Its
bytes are the sixteen lengths, one byte each, then the slots; its hash is the SHA-256 of these. Leaves need no hash of
their own. Nodes are kept by path, one byte a nibble.

Pure: nodes come from a function that the caller gives.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from ctt_state.crypto import sha256
from ctt_state.units import Hash

SLOTS: Final = 16
HASH_BYTES: Final = 32
LEAF_BYTES: Final = 64
DEPTH_MAX: Final = 64  # nibbles of a key hash

Node = tuple[bytes, ...]  # sixteen slots
NodeReader = Callable[[bytes], Node | None]
class Written(NamedTuple):
    """A node that an update made, with its bytes."""

    node: Node
    data: bytes


NodeChanges = dict[bytes, Written | None]  # by path; None where there is no node any more
Leaf = tuple[bytes, bytes | None]  # key hash; value hash, or None to delete

NO_LEAVES: Final[Node] = (b"",) * SLOTS


class MalformedNode(ValueError):
    """The bytes are no node's."""


class InvalidProof(ValueError):
    """The proof does not show what it claims to."""


def encode_node(node: Node) -> bytes:
    return bytes(map(len, node)) + b"".join(node)


def decode_node(data: bytes) -> Node:
    """Raises: MalformedNode."""
    slots, at = [], SLOTS
    for length in data[:SLOTS]:
        slots.append(data[at : at + length])
        at += length
    if at != len(data) or len(slots) != SLOTS or not set(data[:SLOTS]) <= {0, HASH_BYTES, LEAF_BYTES}:
        raise MalformedNode(f"{len(data)} bytes with slots of {list(data[:SLOTS])}")
    return tuple(slots)


EMPTY_ROOT: Final = Hash(sha256(encode_node(NO_LEAVES)))


def update(read: NodeReader, leaves: Iterable[Leaf]) -> tuple[Hash, NodeChanges]:
    """The root after these leaves were set or deleted, and every node that differs from what `read` gives.

    Each key hash at most once; deleting what is not there changes nothing.
    """
    changed: NodeChanges = {}
    root = _update_node(read, b"", read(b"") or NO_LEAVES, list(leaves), changed)
    return Hash(root), changed


def _update_node(read: NodeReader, path: bytes, node: Node, leaves: list[Leaf], changed: NodeChanges) -> bytes:
    """Changes the node at this path and gives what stands for it in its parent's slot."""
    slots = list(node)
    for slot, group in _by_slot(leaves, len(path)):
        below = slots[slot]
        if len(below) == HASH_BYTES:
            inner = path + bytes((slot,))
            slots[slot] = _update_node(read, inner, _read_inner(read, inner), group, changed)
        elif len(group) == 1 and (not below or below[:HASH_BYTES] == group[0][0]):
            key_hash, value_hash = group[0]
            slots[slot] = b"" if value_hash is None else key_hash + value_hash
        else:
            slots[slot] = _plant(read, path + bytes((slot,)), below, group, changed)
    return _close(path, tuple(slots), changed)


def _close(path: bytes, node: Node, changed: NodeChanges) -> bytes:
    """Keeps the node if it has two leaves below it, or is the root; else its one leaf moves up."""
    if path:
        only = b"".join(node)
        if len(only) in (0, LEAF_BYTES) and max(map(len, node)) != HASH_BYTES:
            changed[path] = None
            return only
    data = encode_node(node)
    changed[path] = Written(node, data)
    return sha256(data)


def _plant(read: NodeReader, path: bytes, below: bytes, leaves: list[Leaf], changed: NodeChanges) -> bytes:
    """A slot with a leaf or nothing takes several leaves: what is left of them is a leaf or a new node."""
    living = {below[:HASH_BYTES]: below[HASH_BYTES:]} if below else {}
    for key_hash, value_hash in leaves:
        living.pop(key_hash, None)
        if value_hash is not None:
            living[key_hash] = value_hash
    if len(living) < 2:
        return b"".join(key_hash + value_hash for key_hash, value_hash in living.items())
    return _update_node(read, path, NO_LEAVES, list(living.items()), changed)


def _by_slot(leaves: list[Leaf], depth: int) -> Iterable[tuple[int, list[Leaf]]]:
    """The leaves by their nibble at this depth."""
    at, high = depth >> 1, not depth & 1
    groups: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        byte = leaf[0][at]
        slot = byte >> 4 if high else byte & 15
        group = groups.get(slot)
        if group is None:
            groups[slot] = [leaf]
        else:
            group.append(leaf)
    return groups.items()


def _read_inner(read: NodeReader, path: bytes) -> Node:
    node = read(path)
    if node is None:
        raise MalformedNode(f"the tree has no node at {path.hex()}, which its parent names")
    return node


def build(leaves: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Every node's path and bytes, from leaves in the order of their key hashes; the root comes last.

    Keeps only the nodes on the way to the last leaf in memory.
    """
    stack: list[list[bytes]] = [list(NO_LEAVES)]
    previous, shared_before = b"", 0
    for nibbles, entry, shared_after in _with_shared(leaves):
        while len(stack) - 1 > shared_before:
            yield _pop(stack, previous)
        depth = max(shared_before, shared_after)
        while len(stack) - 1 < depth:
            stack.append(list(NO_LEAVES))
        stack[depth][nibbles[depth]] = entry
        previous, shared_before = nibbles, shared_after
    while len(stack) > 1:
        yield _pop(stack, previous)
    yield b"", encode_node(tuple(stack[0]))


def _pop(stack: list[list[bytes]], nibbles: bytes) -> tuple[bytes, bytes]:
    """Closes the deepest open node, and names it in its parent."""
    data = encode_node(tuple(stack.pop()))
    depth = len(stack)
    stack[-1][nibbles[depth - 1]] = sha256(data)
    return nibbles[:depth], data


def _with_shared(leaves: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes, int]]:
    """Each leaf's nibbles and slot, with how many nibbles it shares with the leaf after it."""
    held: tuple[bytes, bytes] | None = None
    for key_hash, value_hash in leaves:
        nibbles = _nibbles(key_hash)
        if held is not None:
            shared = _shared(held[0], nibbles)
            if shared == DEPTH_MAX or held[0] > nibbles:
                raise ValueError("leaves are not in the order of their key hashes, each once")
            yield (*held, shared)
        held = nibbles, key_hash + value_hash
    if held is not None:
        yield (*held, 0)


def _nibbles(key_hash: bytes) -> bytes:
    return bytes(int(digit, 16) for digit in key_hash.hex())


def _shared(one: bytes, other: bytes) -> int:
    for at in range(DEPTH_MAX):
        if one[at] != other[at]:
            return at
    return DEPTH_MAX


def prove(read: NodeReader, key_hash: bytes) -> tuple[bytes, ...]:
    """The nodes' bytes from the root down to where the key's leaf is, or would be."""
    proof, nibbles = [], _nibbles(key_hash)
    for depth in range(DEPTH_MAX):
        node = read(nibbles[:depth]) or NO_LEAVES
        proof.append(encode_node(node))
        if len(node[nibbles[depth]]) != HASH_BYTES:
            break
    return tuple(proof)


def check_proof(root: Hash, key_hash: bytes, value_hash: bytes | None, proof: tuple[bytes, ...]) -> None:
    """Whether the proof shows this value under the root; with None, that there is none. Raises: InvalidProof."""
    expected, nibbles = bytes(root), _nibbles(key_hash)
    for depth, data in enumerate(proof):
        if depth == DEPTH_MAX or sha256(data) != expected:
            raise InvalidProof(f"node {depth} does not have the hash that its parent names")
        try:
            expected = decode_node(data)[nibbles[depth]]
        except MalformedNode as fault:
            raise InvalidProof(f"node {depth}: {fault}") from None
        if len(expected) != HASH_BYTES:
            if depth != len(proof) - 1:
                raise InvalidProof(f"{len(proof) - 1 - depth} nodes more than the path has")
            break
    else:
        raise InvalidProof("the path does not end at a leaf or an empty slot")
    found = expected[HASH_BYTES:] if expected[:HASH_BYTES] == key_hash else None
    if found != value_hash:
        raise InvalidProof("the tree holds another value for the key" if found else "the tree does not hold the key")


class NodeCache:
    """Nodes read or changed last, decoded: those near the root always, the others in two generations, so never more
    than 4,369 + 2 x `limit` nodes of about 1.5 kB."""

    PINNED_DEPTH = 3

    def __init__(self, read: Callable[[bytes], bytes | None], limit: int = 16_384) -> None:
        self._read = read
        self._limit = limit
        self._pinned: dict[bytes, Node | None] = {}
        self._young: dict[bytes, Node | None] = {}
        self._old: dict[bytes, Node | None] = {}

    def read(self, path: bytes) -> Node | None:
        nodes = self._pinned if len(path) <= self.PINNED_DEPTH else self._young
        try:
            return nodes[path]
        except KeyError:
            pass
        try:
            node = self._old[path]
        except KeyError:
            data = self._read(path)
            node = None if data is None else decode_node(data)
        self._add(path, node)
        return node

    def update(self, changes: NodeChanges) -> None:
        for path, written in changes.items():
            self._add(path, written and written.node)

    def _add(self, path: bytes, node: Node | None) -> None:
        if len(path) <= self.PINNED_DEPTH:
            self._pinned[path] = node
            return
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[path] = node
