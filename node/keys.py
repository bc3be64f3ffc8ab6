"""The validator's consensus key in a file: 32 bytes in hexadecimal, readable by its owner only.

The key signs votes and nothing else. It never appears in a message, a log or an exception.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ctt_state.crypto import SECP256K1_N
from node.exits import Exit, Failure

KEY_FILE: Final = "validator.key"  # in the data directory


def create_key(path: Path, key: bytes | None = None) -> bytes:
    """Writes a new key, or the given one, and gives it. Raises: Failure (73) when the file exists or cannot be made."""
    key = key or _random_key()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{path}: cannot create the key file: {fault.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(descriptor)
    return key


def load_key(path: Path) -> bytes:
    """Raises: Failure: 66 missing, 77 open to others, a link, or another's, 65 not a key."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such key file; 'ctt init' makes one") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the key file: {fault.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise Failure(Exit.PERMISSION, f"{path} is readable by others ({mode:04o}); chmod 600 {path}")
        if status.st_uid != os.geteuid():
            raise Failure(Exit.PERMISSION, f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
        text = file.read(128)
    try:
        key = bytes.fromhex(text.decode().strip())
    except ValueError:
        key = b""
    if len(key) != 32 or not 0 < int.from_bytes(key, "big") < SECP256K1_N:
        raise Failure(Exit.DAMAGED, f"{path}: not a key: expected 64 hexadecimal digits")
    return key


def _random_key() -> bytes:
    while True:
        key = secrets.token_bytes(32)
        if 0 < int.from_bytes(key, "big") < SECP256K1_N:
            return key
