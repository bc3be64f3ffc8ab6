"""The leaves of a whole state in the order of their key hashes, with little memory: what is too much waits in files
without a name, 64 bytes a leaf."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from ctt_state.crypto import sha256
from ctt_state.tree import HASH_BYTES, LEAF_BYTES
from node.datadir import explain_os_error

_GROUPS: Final = 256  # by the first byte of the key hash; they are sorted one at a time
HELD_BYTES_MAX: Final = 64 * 1024 * 1024  # in memory


class Leaves:
    """Takes records in any order and gives what `ctt_state.tree.build` needs, once. The files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._groups = [bytearray() for _ in range(_GROUPS)]
        self._files: list[IO[bytes]] = []
        self._held_bytes = 0

    def add(self, key: bytes, data: bytes) -> None:
        """Raises: StorageFailed when the disk is full."""
        key_hash = sha256(key)
        self._groups[key_hash[0]] += key_hash + sha256(data)
        self._held_bytes += LEAF_BYTES
        if self._held_bytes >= HELD_BYTES_MAX:
            self._put_away()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Raises: StorageFailed."""
        if self._files:
            self._put_away()
        for number in range(_GROUPS):
            group = self._take(number)
            leaves = sorted(bytes(group[at : at + LEAF_BYTES]) for at in range(0, len(group), LEAF_BYTES))
            for leaf in leaves:
                yield leaf[:HASH_BYTES], leaf[HASH_BYTES:]

    def _put_away(self) -> None:
        try:
            if not self._files:
                self._files = [self._new_file() for _ in range(_GROUPS)]
            for file, group in zip(self._files, self._groups, strict=True):
                file.write(group)
                file.flush()
                group.clear()
        except OSError as error:
            raise explain_os_error("write to", self._directory, error) from None
        self._held_bytes = 0

    def _new_file(self) -> IO[bytes]:
        return TemporaryFile(dir=self._directory)

    def _take(self, number: int) -> bytes | bytearray:
        """All of a group, which is not kept."""
        if not self._files:
            return self._groups[number]
        with self._files[number] as file:
            file.seek(0)
            return file.read()
