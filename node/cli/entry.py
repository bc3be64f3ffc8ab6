"""A validator's entry in a file of its own: what its operator gives to the others, and no secret."""

import json
from pathlib import Path
from typing import Final

from ctt_state.crypto import address_of, public_key
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import Validator, load_validator
from ctt_state.units import hex_of
from node.exits import Exit, Failure

ENTRY_BYTES_MAX: Final = 65_536


def read_entry(path: Path) -> Validator:
    """Raises: Failure: 66 no such file, 77 unreadable, 65 no entry."""
    try:
        with path.open("rb") as file:
            text = file.read(ENTRY_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such file; ctt genesis validator makes it") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: {fault.strerror}") from None
    return check_entry(path, text)


def check_entry(path: Path, text: bytes) -> Validator:
    """Raises: Failure (65)."""
    try:
        return load_validator(text)
    except InvalidGenesis as invalid:
        place, fault = invalid.faults[0]
        raise Failure(Exit.DAMAGED, f"{path} is no validator's entry: {place}: {fault}") from None


def encode_entry(name: str, peer: str, consensus_key: bytes, account_key: bytes) -> bytes:
    """Of these two private keys the public parts."""
    members = {
        "name": name,
        "address": hex_of(address_of(account_key)),
        "consensusKey": hex_of(public_key(consensus_key)),
        "peer": peer,
    }
    return json.dumps(members, indent=2).encode() + b"\n"
