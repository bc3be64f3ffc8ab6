"""The leaves of a whole state in the order of their key hashes, with little memory: 64 bytes each."""

from collections.abc import Iterator
from typing import Final

from ctt_state.crypto import sha256
from ctt_state.tree import HASH_BYTES, LEAF_BYTES

_GROUPS: Final = 256  # by the first byte of the key hash; they are sorted one at a time


class Leaves:
    """Takes records in any order and gives what `ctt_state.tree.build` needs."""

    def __init__(self) -> None:
        self._groups = [bytearray() for _ in range(_GROUPS)]

    def add(self, key: bytes, data: bytes) -> None:
        key_hash = sha256(key)
        self._groups[key_hash[0]] += key_hash + sha256(data)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for group in self._groups:
            leaves = sorted(bytes(group[at : at + LEAF_BYTES]) for at in range(0, len(group), LEAF_BYTES))
            for leaf in leaves:
                yield leaf[:HASH_BYTES], leaf[HASH_BYTES:]
