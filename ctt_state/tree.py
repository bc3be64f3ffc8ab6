"""The state tree: a 16-ary compact Merkle tree over hashed keys, so that one hash stands for every record.

A leaf is a key's hash and a value's hash. It sits at the shallowest depth at which its key hash's nibbles are its
own; so there is a node at a path (a prefix of nibbles) only where two leaves or more share it, and at the root. The
shape depends on the set of leaves alone, never on their history.

A node has sixteen slots: empty, a leaf (64 bytes: key hash, value hash) or the hash of the node below (32 bytes). Its
bytes are the sixteen lengths, one byte each, then the slots; its hash is the SHA-256 of these. Leaves need no hash of
their own. Nodes are kept by path, one byte a nibble.

A proof is the nodes from the root towards the key. Nobody can forge one under the root of a tree that was built here:
each node's hash is named by the one before, so every node must be the tree's own; the key alone says which slot
leads on; and in a node's bytes the length tells a leaf from a hash, so neither passes for the other. That a leaf lies
under its node's path need not be checked, for no other tree was ever hashed.

Pure: nodes come from a function that the caller gives.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ctt_state.crypto import sha256
from ctt_state.units import Hash

SLOTS: Final = 16
HASH_BYTES: Final = 32
LEAF_BYTES: Final = 64
DEPTH_MAX: Final = 64  # nibbles of a key hash

NodeReader = Callable[[bytes], bytes | None]
NodeChanges = dict[bytes, bytes | None]  # bytes by path; None where there is no node any more
Leaf = tuple[bytes, bytes | None]  # key hash; value hash, or None to delete

_SLOT: Final = [bytes((slot,)) for slot in range(SLOTS)]  # as a path has it

NO_SLOTS: Final = bytes(SLOTS)  # the node without leaves, which only the root can be
EMPTY_ROOT: Final = Hash(sha256(NO_SLOTS))


class MalformedNode(ValueError):
    """The bytes are no node's."""


class InvalidProof(ValueError):
    """The proof does not show what it claims to."""


def encode_node(slots: Sequence[bytes]) -> bytes:
    return bytes(map(len, slots)) + b"".join(slots)


def decode_node(data: bytes) -> tuple[bytes, ...]:
    """The sixteen slots. Raises: MalformedNode."""
    slots, at = [], SLOTS
    for length in data[:SLOTS]:
        slots.append(data[at : at + length])
        at += length
    if at != len(data) or not set(data[:SLOTS]) <= {0, HASH_BYTES, LEAF_BYTES}:
        raise MalformedNode(f"{len(data)} bytes with slots of {list(data[:SLOTS])}")
    return tuple(slots)


def update(read: NodeReader, leaves: Iterable[Leaf]) -> tuple[Hash, NodeChanges]:
    """The root after these leaves were set or deleted, and the nodes on the way to them as they now are.

    Each key hash at most once; deleting what is not there changes nothing. Raises: MalformedNode if `read` lacks one.
    """
    changed: NodeChanges = {}
    root = _update_node(read, b"", read(b"") or NO_SLOTS, list(leaves), changed)
    return Hash(root), changed


def _update_node(
    read: NodeReader, path: bytes, node: bytes, leaves: list[Leaf], changed: NodeChanges
) -> bytes:
    """Changes the node at this path and gives what stands for it in its parent's slot.

    The node stays in its bytes: a slot is cut out and put in, which costs less than taking all sixteen apart.
    """
    for slot, group in _by_slot(leaves, len(path)):
        length = node[slot]
        start = SLOTS + sum(node[:slot])
        end = start + length
        if length == HASH_BYTES:
            inner = path + _SLOT[slot]
            entry = _update_node(read, inner, _read_inner(read, inner), group, changed)
        elif len(group) == 1 and (not length or node[start : start + HASH_BYTES] == group[0][0]):
            key_hash, value_hash = group[0]
            entry = b"" if value_hash is None else key_hash + value_hash
        else:
            entry = _plant(read, path + _SLOT[slot], node[start:end], group, changed)
        if len(entry) == length:
            node = node[:start] + entry + node[end:]
        else:
            lengths = node[:slot] + bytes((len(entry),)) + node[slot + 1 : SLOTS]
            node = lengths + node[SLOTS:start] + entry + node[end:]
    if path and len(node) <= SLOTS + LEAF_BYTES and HASH_BYTES not in node[:SLOTS]:
        changed[path] = None  # its one leaf, if there is one, moves up
        return node[SLOTS:]
    changed[path] = node
    return sha256(node)


def _plant(read: NodeReader, path: bytes, below: bytes, leaves: list[Leaf], changed: NodeChanges) -> bytes:
    """A slot with a leaf or nothing takes several leaves: what is left of them is a leaf or a new node."""
    living = {below[:HASH_BYTES]: below[HASH_BYTES:]} if below else {}
    for key_hash, value_hash in leaves:
        living.pop(key_hash, None)
        if value_hash is not None:
            living[key_hash] = value_hash
    if len(living) < 2:
        return b"".join(key_hash + value_hash for key_hash, value_hash in living.items())
    return _update_node(read, path, NO_SLOTS, list(living.items()), changed)


def _by_slot(leaves: list[Leaf], depth: int) -> Iterable[tuple[int, list[Leaf]]]:
    """The leaves by their nibble at this depth."""
    at, shift = depth >> 1, 0 if depth & 1 else 4
    if len(leaves) == 1:
        return ((leaves[0][0][at] >> shift & 15, leaves),)
    groups: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        slot = leaf[0][at] >> shift & 15
        if slot in groups:
            groups[slot].append(leaf)
        else:
            groups[slot] = [leaf]
    return groups.items()


def _read_inner(read: NodeReader, path: bytes) -> bytes:
    node = read(path)
    if node is None:
        raise MalformedNode(f"the tree has no node at {path.hex()}, which its parent names")
    return node


def build(leaves: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Every node's path and bytes, from leaves in the order of their key hashes; the root comes last.

    Keeps only the nodes on the way to the last leaf in memory.
    """
    stack: list[list[bytes]] = [[b""] * SLOTS]
    previous, shared_before = b"", 0
    for nibbles, entry, shared_after in _with_shared(leaves):
        while len(stack) - 1 > shared_before:
            yield _pop(stack, previous)
        depth = max(shared_before, shared_after)
        while len(stack) - 1 < depth:
            stack.append([b""] * SLOTS)
        stack[depth][nibbles[depth]] = entry
        previous, shared_before = nibbles, shared_after
    while len(stack) > 1:
        yield _pop(stack, previous)
    yield b"", encode_node(stack[0])


def _pop(stack: list[list[bytes]], nibbles: bytes) -> tuple[bytes, bytes]:
    """Closes the deepest open node, and names it in its parent."""
    data = encode_node(stack.pop())
    depth = len(stack)
    stack[-1][nibbles[depth - 1]] = sha256(data)
    return nibbles[:depth], data


def _with_shared(leaves: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes, int]]:
    """Each leaf's nibbles and slot, with how many nibbles it shares with the leaf after it."""
    held: tuple[bytes, bytes, int] | None = None
    for key_hash, value_hash in leaves:
        number = int.from_bytes(key_hash, "big")
        if held is not None:
            if held[2] >= number:
                raise ValueError("leaves are not in the order of their key hashes, each once")
            yield held[0], held[1], DEPTH_MAX - ((held[2] ^ number).bit_length() + 3) // 4
        held = _nibbles(key_hash), key_hash + value_hash, number
    if held is not None:
        yield held[0], held[1], 0


def build_below(depth: int, leaves: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The part of a tree under a path of `depth` nibbles, at least one, from all leaves there in the order of their key
    hashes: what stands for it in the slot of its parent, if that exists, and its nodes in the order of their paths."""
    held = list(leaves)
    if len(held) < 2:
        return b"".join(held[0]) if held else b"", []
    nodes = sorted([node for node in build(held) if len(node[0]) >= depth])
    return sha256(nodes[0][1]), nodes


def build_above(entries: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The nodes above parts that `build_below` gave what stands for them, 16 to the power of their depth in the order
    of paths: the nodes by path, the root first."""
    nodes: dict[bytes, bytes] = {}
    while len(entries) > 1:
        depth = (len(entries).bit_length() - 1) // 4 - 1
        entries = [
            _close(_path_of(number, depth), entries[number * SLOTS : (number + 1) * SLOTS], nodes)
            for number in range(len(entries) // SLOTS)
        ]
    return sorted(nodes.items())


def _close(path: bytes, slots: Sequence[bytes], nodes: dict[bytes, bytes]) -> bytes:
    """What stands for these slots in the parent's: their node or, where it would have one leaf at most, that leaf."""
    living = list(filter(None, slots))
    if path and len(living) < 2 and HASH_BYTES not in map(len, living):
        return b"".join(living)
    nodes[path] = encode_node(slots)
    return sha256(nodes[path])


def _path_of(number: int, depth: int) -> bytes:
    return bytes([number >> 4 * (depth - 1 - at) & 15 for at in range(depth)])


_NIBBLE_OF_DIGIT: Final = bytes.maketrans(b"0123456789abcdef", bytes(range(SLOTS)))


def _nibbles(key_hash: bytes) -> bytes:
    return key_hash.hex().encode().translate(_NIBBLE_OF_DIGIT)


def prove(read: NodeReader, key_hash: bytes) -> tuple[bytes, ...]:
    """The nodes' bytes from the root down to where the key's leaf is, or would be. Raises: MalformedNode if `read`
    lacks one."""
    nibbles = _nibbles(key_hash)
    proof = [read(b"") or NO_SLOTS]
    while proof[-1][nibbles[len(proof) - 1]] == HASH_BYTES:
        proof.append(_read_inner(read, nibbles[: len(proof)]))
    return tuple(proof)


def check_proof(root: Hash, key_hash: bytes, value_hash: bytes | None, proof: Sequence[bytes]) -> None:
    """Whether the proof shows this value under the root; with None, that there is none. Raises: InvalidProof."""
    if len(key_hash) != HASH_BYTES:  # no leaf has it, which would pass for absence
        raise InvalidProof(f"a key hash of {len(key_hash)} bytes")
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
        raise InvalidProof(
            "the tree holds another value for the key" if found else "the tree does not hold the key"
        )
