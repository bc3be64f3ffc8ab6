"""The validator's consensus key in a file: 32 bytes in hexadecimal, readable by its owner only.

The key signs votes and nothing else. It never appears in a message, a log or an exception.
"""

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ctt_state.crypto import SECP256K1_N
from node.datadir import sync_directory, write_all
from node.exits import Exit, Failure

KEY_FILE: Final = "validator.key"  # in the data directory


def make_key() -> bytes:
    """A new random key."""
    while not _is_key(key := secrets.token_bytes(32)):
        pass
    return key


def create_key(path: Path, key: bytes) -> None:
    """Writes the key to a new file. Raises: Failure (73) when there is one already or it cannot be made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, key.hex().encode() + b"\n")
            os.fsync(descriptor)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_directory(path.parent)
    except FileExistsError:
        raise Failure(Exit.CANNOT_CREATE, f"{path} exists already; a key is never overwritten") from None
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{path}: cannot create the key file: {fault.strerror}") from None


def load_key(path: Path) -> bytes:
    """Raises: Failure: 66 missing, 77 a link, open to others, or another's, 65 not a key."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such key file") from None
    except OSError as fault:
        cause = "it is a symbolic link" if fault.errno == errno.ELOOP else fault.strerror
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the key file: {cause}") from None
    try:
        _check_private(path, os.fstat(descriptor))
        text = os.read(descriptor, 128)
    finally:
        os.close(descriptor)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if not _is_key(key):
        raise Failure(Exit.DAMAGED, f"{path}: not a key: expected 64 hexadecimal digits")
    return key


def _check_private(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise Failure(Exit.DAMAGED, f"{path}: not a key: no regular file")
    if status.st_uid != os.geteuid():
        raise Failure(Exit.PERMISSION, f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if mode & 0o077:
        raise Failure(Exit.PERMISSION, f"{path} is open to others ({mode:04o}); chmod 600 {path}")


def _is_key(key: bytes) -> bool:
    return len(key) == 32 and 0 < int.from_bytes(key, "big") < SECP256K1_N
