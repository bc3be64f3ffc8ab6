"""Keys under a password: keystores of version 3, as Ethereum's tools write and read them (scrypt, AES-128-CTR).

The password comes from a file, from systemd's credentials, or from a person at a terminal; never from a flag or a
variable of the environment, where other processes could read it.
"""

import getpass
import json
import os
import re
import sys
from pathlib import Path
from typing import Final

from node.exits import Exit, Failure

VERSION: Final = 3
PASSWORD_BYTES_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1_024
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # systemd's LoadCredential= puts them there
_DESCRIPTOR: Final = re.compile(r"/dev/fd/([0-9]{1,4})")


def is_keystore(text: bytes) -> bool:
    return text.lstrip().startswith(b"{")


def address_in(text: bytes) -> str:
    """What a keystore says whose it is, unproven; nothing when it does not, or is none."""
    try:
        keystore = json.loads(text)
        return f"0x{bytes.fromhex(keystore['address'].removeprefix('0x')).hex()}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def encrypt_key(key: bytes, password: bytes) -> bytes:
    """A keystore's text. Takes about a second, on purpose."""
    from eth_keyfile.keyfile import create_keyfile_json  # slow to load, and seldom needed

    return (
        json.dumps(create_keyfile_json(key, password, version=VERSION, kdf="scrypt"), indent=2).encode()
        + b"\n"
    )


def decrypt_key(path: Path, text: bytes, password: bytes) -> bytes:
    """Raises: Failure: 65 not a keystore of version 3, 77 the wrong password."""
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        keystore = json.loads(text)
        if keystore["version"] != VERSION:
            raise KeyError("version")
        return bytes(decode_keyfile_json(keystore, password))
    except (KeyError, TypeError, NotImplementedError):
        raise Failure(Exit.DAMAGED, f"{path}: not a keystore of version {VERSION}") from None
    except ValueError as fault:
        if "MAC mismatch" in str(fault):
            raise Failure(Exit.PERMISSION, f"{path}: the password is wrong") from None
        raise Failure(Exit.DAMAGED, f"{path}: not a keystore of version {VERSION}") from None


def known_password(path: Path, file: Path | None) -> bytes:
    """Of the keystore at this path: from `file` (/dev/fd/N is an open descriptor), else from the credential
    NAME.password, else from the terminal. Raises: Failure: 78 when there is none of these, 66 a missing file."""
    if file is not None:
        return _read_password(file)
    credential = (
        Path(os.environ[CREDENTIALS]) / f"{path.name}.password" if CREDENTIALS in os.environ else None
    )
    if credential is not None and credential.exists():
        return _read_password(credential)
    if sys.stdin.isatty():
        return getpass.getpass(f"password of {path}: ").encode()
    raise Failure(
        Exit.CONFIGURATION,
        f"{path} is a keystore: give its password by --password-file, as the credential {path.name}.password, or at "
        "a terminal",
    )


def new_password(path: Path, file: Path | None) -> bytes:
    """For a keystore that is made: from `file`, else from the terminal, twice. Raises: Failure: 78, 66 as above, 64
    one that is too short or not the same twice."""
    if file is not None:
        password = _read_password(file)
    elif sys.stdin.isatty():
        password = getpass.getpass(f"new password of {path}: ").encode()
        if getpass.getpass("the same again: ").encode() != password:
            raise Failure(Exit.USAGE, "the two passwords differ; nothing was written")
    else:
        raise Failure(Exit.CONFIGURATION, f"{path}: give a password by a file, or at a terminal")
    if len(password) < PASSWORD_BYTES_MIN:
        raise Failure(
            Exit.USAGE, f"a password of {len(password)} bytes; a keystore's has at least {PASSWORD_BYTES_MIN}"
        )
    return password


def _read_password(path: Path) -> bytes:
    """The first line. Raises: Failure: 66 missing, 77 open to others."""
    try:
        match = _DESCRIPTOR.fullmatch(str(path))
        with open(int(match[1]) if match else path, "rb", closefd=match is None) as file:
            if match is None and os.fstat(file.fileno()).st_mode & 0o077:
                raise Failure(Exit.PERMISSION, f"{path} is open to others; chmod 600 {path}")
            return file.read(PASSWORD_BYTES_MAX).split(b"\n")[0].rstrip(b"\r")
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such password file") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read the password: {fault.strerror}") from None
