"""The validator's consensus key in a file: 32 bytes in hexadecimal, readable by its owner only.

The key signs votes and nothing else. It never appears in a message, a log or an exception.
"""

import errno
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ctt_state.crypto import SECP256K1_N
from node.datadir import sync_directory, write_all
from node.exits import Exit, Failure

KEY_FILE: Final = "validator.key"  # in the data directory
KEY_FILE_BYTES_MAX: Final = 8_192
KEYSTORE_VERSION: Final = 3


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
    return _decode_key(path, _read_private(path))


def load_account_key(path: Path, password_file: Path | None = None) -> bytes:
    """A key as `load_key` takes it, or in a keystore (version 3) as Ethereum's tools write it. Raises: Failure: as
    `load_key`; 78 a keystore without password file, 77 the wrong password."""
    text = _read_private(path)
    if not text.lstrip().startswith(b"{"):
        return _decode_key(path, text)
    if password_file is None:
        raise Failure(Exit.CONFIGURATION, f"{path} is a keystore: which file has its password?")
    password = _read_private(password_file).rstrip(b"\r\n")
    try:
        from eth_keyfile.keyfile import decode_keyfile_json  # of an extra that few need

        keystore = json.loads(text)
        if keystore["version"] != KEYSTORE_VERSION:
            raise KeyError("version")
        key = decode_keyfile_json(keystore, password)
    except ModuleNotFoundError as missing:
        raise Failure(Exit.MISSING, f"{missing.name} is not installed, which reads keystores") from None
    except (KeyError, TypeError, NotImplementedError):
        raise Failure(Exit.DAMAGED, f"{path}: not a keystore of version 3") from None
    except ValueError as fault:
        code = Exit.PERMISSION if "MAC mismatch" in str(fault) else Exit.DAMAGED
        what = "the password is wrong" if code is Exit.PERMISSION else "not a keystore of version 3"
        raise Failure(code, f"{path}: {what}") from None
    return key


def _read_private(path: Path) -> bytes:
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
