"""The anchor: what was final on this node, kept outside the database.

LevelDB opens as an older or an empty database when its log is lost, and reports nothing. The anchor remembers the
last final blocks so that a start on less is refused. It is text, one line a block, written after the block's batch
is on the disk and before the block is called final:

    ctt-anchor-1 <genesis hash> <crc>
    <height> <block hash> <state root> <crc>

Heights are 20 decimal digits, hashes 64 hexadecimal ones, the CRC-32 of the line before it 8; so each line has one
spelling and one length. After a power cut the last line may be short or wrong: it was never acknowledged and counts
as absent. Anything else that is wrong is damage.
"""

import os
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from ctt_state.units import Hash, Height
from node.datadir import RESTORE_REMEDY, StorageDamaged, explain_os_error, replace_file, write_all

ANCHOR_BYTES_MAX: Final = 256 * 1024  # then it starts anew: 1,637 blocks, nine minutes at three a second

_MAGIC: Final = b"ctt-anchor-1"
_HEADER_BYTES: Final = len(_MAGIC) + 1 + 64 + 1 + 8 + 1
_LINE_BYTES: Final = 20 + 1 + 64 + 1 + 64 + 1 + 8 + 1


class Head(NamedTuple):
    """A final block as the anchor and the database name it."""

    height: Height
    block_hash: Hash
    state_root: Hash


class Anchor:
    """The open anchor file; `append` after each block. Used by the storage thread only."""

    def __init__(self, path: Path, genesis_hash: Hash, head: Head) -> None:
        """Writes the file anew with this head. Raises: StorageFailed, StorageForbidden."""
        self._path = path
        self._header = _encode_header(genesis_hash)
        self._descriptor = -1
        self._height = head.height
        try:
            self._restart(head)
        except OSError as error:
            raise explain_os_error("write to", path, error) from None

    def append(self, head: Head) -> None:
        """Makes the head durable. Raises: StorageFailed; the file may then end in half a line."""
        try:
            if self._size + _LINE_BYTES > ANCHOR_BYTES_MAX:
                self._restart(head)
            else:
                write_all(self._descriptor, _encode_line(head))
                os.fdatasync(self._descriptor)
                self._size += _LINE_BYTES
        except OSError as error:
            raise explain_os_error("write to", self._path, error, self._height) from None
        self._height = head.height

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _restart(self, head: Head) -> None:
        content = self._header + _encode_line(head)
        replace_file(self._path, content)
        self.close()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._size = len(content)


def read_anchor(path: Path, genesis_hash: Hash) -> Head:
    """The last final block that this node acknowledged, or one that it was about to.

    Raises: StorageDamaged (missing, another chain's, damaged), StorageForbidden, StorageFailed.
    """
    content = _read(path)
    header, body = content[:_HEADER_BYTES], content[_HEADER_BYTES:]
    if header != _encode_header(genesis_hash):
        found = _decode_header(header)
        if found is None:
            raise _damaged(path, "line 1 is damaged")
        raise StorageDamaged(
            f"{path} belongs to genesis 0x{found.hex()}, the database to 0x{genesis_hash.hex()}; {RESTORE_REMEDY}"
        )
    lines = [body[at : at + _LINE_BYTES] for at in range(0, len(body), _LINE_BYTES)]
    heads = [_decode_line(line) for line in lines]
    if heads and heads[-1] is None:
        heads.pop()
    return _last_of(path, heads)


def _last_of(path: Path, heads: list[Head | None]) -> Head:
    """The last of heads that follow one another."""
    last: Head | None = None
    for number, head in enumerate(heads, start=2):
        if head is None or (last is not None and head.height != last.height + 1):
            raise _damaged(path, f"line {number} is damaged")
        last = head
    if last is None:
        raise _damaged(path, "line 2 is damaged")
    return last


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except OSError as error:
        raise explain_os_error("reading", path, error) from None
    try:
        content = os.read(descriptor, ANCHOR_BYTES_MAX + 1)
    except OSError as error:
        raise explain_os_error("reading", path, error) from None
    finally:
        os.close(descriptor)
    if len(content) > ANCHOR_BYTES_MAX:
        raise _damaged(path, f"it is larger than {ANCHOR_BYTES_MAX:,} bytes")
    return content


def _damaged(path: Path, what: str) -> StorageDamaged:
    return StorageDamaged(
        f"anchor {path}: {what}; whether every final block is still here cannot be told. "
        f"Keep {path.parent} for the record: {RESTORE_REMEDY}"
    )


def _encode_header(genesis_hash: Hash) -> bytes:
    return _with_crc(b"%b %b" % (_MAGIC, genesis_hash.hex().encode()))


def _encode_line(head: Head) -> bytes:
    text = f"{head.height:020d} {head.block_hash.hex()} {head.state_root.hex()}"
    return _with_crc(text.encode())


def _with_crc(text: bytes) -> bytes:
    return b"%b %08x\n" % (text, zlib.crc32(text))


def _decode_header(header: bytes) -> Hash | None:
    """The genesis hash; None for anything that `_encode_header` does not write."""
    try:
        genesis_hash = Hash(bytes.fromhex(header.split(b" ")[1].decode("ascii")))
    except (ValueError, IndexError):
        return None
    return genesis_hash if _encode_header(genesis_hash) == header else None


def _decode_line(line: bytes) -> Head | None:
    """The head; None for anything that `_encode_line` does not write."""
    try:
        height, block_hash, state_root, _ = line.decode("ascii").split(" ")
        head = Head(Height(int(height)), Hash(bytes.fromhex(block_hash)), Hash(bytes.fromhex(state_root)))
    except ValueError:
        return None
    return head if _encode_line(head) == line else None
