"""Keys in files that only their owner can read: bare, 32 bytes in hexadecimal, or in a keystore under a password.

A key never appears in a message, a log or an exception. A validator's signs votes and nothing else.
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
from node.keystore import decrypt_key, is_keystore, known_password

KEY_FILE: Final = "validator.key"  # in the data directory
KEY_FILE_BYTES_MAX: Final = 8_192


def make_key() -> bytes:
    """A new random key."""
    while not _is_key(key := secrets.token_bytes(32)):
        pass
    return key


def create_key(path: Path, key: bytes) -> None:
    """Writes the bare key to a new file. Raises: as `create_key_file`."""
    create_key_file(path, key.hex().encode() + b"\n")


def create_key_file(path: Path, text: bytes) -> None:
    """A new file, a key or a keystore. Raises: Failure (73) when there is one already or it cannot be made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, text)
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


def replace_key_file(path: Path, text: bytes) -> None:
    """The file that is there is the new one or the old one, whatever happens. A crash may leave the new one beside it,
    which may as well be somebody's: it is theirs to remove. Raises: Failure (73)."""
    beside = path.with_name(f"{path.name}.new")
    if os.path.lexists(beside):
        raise Failure(
            Exit.CANNOT_CREATE,
            f"{beside} is there, perhaps of a change that was interrupted; {path} is as it was. Remove {beside}, "
            "unless it is a key of another name, and try again",
        )
    create_key_file(beside, text)
    try:
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as fault:
        beside.unlink(missing_ok=True)
        raise Failure(Exit.CANNOT_CREATE, f"{path}: cannot be replaced: {fault.strerror}") from None


def load_key(path: Path, password_file: Path | None = None) -> bytes:
    """A bare key, or one in a keystore (see `known_password`).

    Raises: Failure: 66 missing, 77 a link, open to others, or another's, 65 neither a key nor a keystore; 78 and 77 of
    the keystore's password.
    """
    text = read_key_file(path)
    if is_keystore(text):
        return decrypt_key(path, text, known_password(path, password_file))
    return _decode_key(path, text)


def read_key_file(path: Path) -> bytes:
    """Raises: Failure: 66 missing, 77 a link, open to others, or another's, 65 no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such key file") from None
    except OSError as fault:
        cause = "it is a symbolic link" if fault.errno == errno.ELOOP else fault.strerror
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the key file: {cause}") from None
    try:
        _check_private(path, os.fstat(descriptor))
        return os.read(descriptor, KEY_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def _decode_key(path: Path, text: bytes) -> bytes:
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
