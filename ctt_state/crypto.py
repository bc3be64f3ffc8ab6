"""Keccak-256, SHA-256 and ECDSA over secp256k1: the only file that knows the libraries behind them.

Pure: signing is deterministic (RFC 6979). libsecp256k1 is called through coincurve's own bindings rather than its
classes, which would convert every signature to DER and back; each call releases the interpreter lock, so `recover`
and `verify` scale over threads. The C library reads past short buffers and aborts the process on a recovery id above
3, so every length and range is checked here, before the call.
"""

from functools import lru_cache
from hashlib import sha256 as _sha256
from typing import Any

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from sha3 import keccak_256

from ctt_state.units import Address, Hash

SECP256K1_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
SECP256K1_HALF_N = SECP256K1_N // 2  # the largest s of a low-s signature

# Enough for every validator of a consortium; a larger set only loses the saved 4 us a vote.
PARSED_PUBLIC_KEYS_MAX = 256

_CONTEXT = GLOBAL_CONTEXT.ctx
_RECOVERABLE = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_SIGNATURE = ffi.typeof("secp256k1_ecdsa_signature *")
_PUBLIC_KEY = ffi.typeof("secp256k1_pubkey *")
_SIZE = ffi.typeof("size_t *")
_INT = ffi.typeof("int *")
_BYTES = ffi.typeof("unsigned char[]")


class InvalidSignature(ValueError):
    """No key made this signature over this digest, or it is not in the one accepted form."""


class InvalidKey(ValueError):
    """The bytes are not a private or public key of secp256k1."""


def keccak(data: bytes) -> Hash:
    """Keccak-256 as Ethereum uses it, with the padding from before SHA-3 was standardised."""
    return Hash(keccak_256(data).digest())


def sha256(data: bytes) -> Hash:
    """SHA-256, for the chain's own hashes: blocks, tree nodes, votes."""
    return Hash(_sha256(data).digest())


def recover(digest: bytes, r: int, s: int, parity: int) -> Address:
    """The address whose key signed `digest`.

    Only the low half of s counts (EIP-2): otherwise anyone could turn a signature into a second valid one.

    Raises: InvalidSignature if r, s or parity is out of range, or no key fits.
    """
    _check_digest(digest)
    if not (0 < r < SECP256K1_N and 0 < s <= SECP256K1_HALF_N and 0 <= parity <= 1):
        raise InvalidSignature("r, s or parity out of range")
    signature = ffi.new(_RECOVERABLE)
    compact = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    lib.secp256k1_ecdsa_recoverable_signature_parse_compact(_CONTEXT, signature, compact, parity)
    key = ffi.new(_PUBLIC_KEY)
    if not lib.secp256k1_ecdsa_recover(_CONTEXT, key, signature, digest):
        raise InvalidSignature("no key fits")
    return _address_of_parsed(key)


def sign(private_key: bytes, digest: bytes) -> tuple[int, int, int]:
    """The recoverable signature (r, s, parity) over `digest`, s in the low half.

    Raises: InvalidKey.
    """
    _check_digest(digest)
    _check_private_key(private_key)
    signature = ffi.new(_RECOVERABLE)
    if not lib.secp256k1_ecdsa_sign_recoverable(_CONTEXT, signature, digest, private_key, ffi.NULL, ffi.NULL):
        raise InvalidKey("private key out of range")
    compact, recovery_id = ffi.new(_BYTES, 64), ffi.new(_INT)
    lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(_CONTEXT, compact, recovery_id, signature)
    r, s = bytes(ffi.buffer(compact, 32)), bytes(ffi.buffer(compact + 32, 32))
    # The recovery id's second bit says that the nonce point's x exceeded n: probability 2**-127.
    return int.from_bytes(r, "big"), int.from_bytes(s, "big"), recovery_id[0] & 1


def sign_compact(private_key: bytes, digest: bytes) -> bytes:
    """The 64-byte signature (r, s) over `digest`, s in the low half.

    Raises: InvalidKey.
    """
    r, s, _ = sign(private_key, digest)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the 64-byte `signature` over `digest` is by the compressed `public_key`.

    A high s, a wrong length and bytes that are no key all answer False.
    """
    _check_digest(digest)
    if len(public_key) != 33 or len(signature) != 64:
        return False
    parsed = ffi.new(_SIGNATURE)
    if not lib.secp256k1_ecdsa_signature_parse_compact(_CONTEXT, parsed, signature):
        return False
    try:
        key = _parse_compressed(public_key)
    except InvalidKey:
        return False
    # libsecp256k1 itself refuses a high s.
    return bool(lib.secp256k1_ecdsa_verify(_CONTEXT, parsed, digest, key))


def public_key(private_key: bytes) -> bytes:
    """The compressed public key, 33 bytes.

    Raises: InvalidKey.
    """
    key = _public_key_of(private_key)
    return _serialize(key, 33, lib.SECP256K1_EC_COMPRESSED)


def address_of(private_key: bytes) -> Address:
    """The address that `private_key` signs for.

    Raises: InvalidKey.
    """
    return _address_of_parsed(_public_key_of(private_key))


def address_of_public_key(public_key: bytes) -> Address:
    """The address of a compressed (33 bytes) or uncompressed (65 bytes) public key.

    Raises: InvalidKey, also for the hybrid form: two encodings a key are enough.
    """
    if (len(public_key), public_key[:1]) not in ((33, b"\x02"), (33, b"\x03"), (65, b"\x04")):
        raise InvalidKey(f"public key of {len(public_key)} bytes in an unknown form")
    return _address_of_parsed(_parse(public_key))


def checksum_address(address: Address) -> str:
    """`address` in EIP-55's mixed case, for people to read."""
    text = address.hex()
    nibbles = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if n >= "8" else c for c, n in zip(text, nibbles[:40], strict=True))


def _check_digest(digest: bytes) -> None:
    if len(digest) != 32:
        raise ValueError(f"digest of {len(digest)} bytes, not 32")


def _check_private_key(private_key: bytes) -> None:
    if len(private_key) != 32:
        raise InvalidKey(f"private key of {len(private_key)} bytes, not 32")


def _public_key_of(private_key: bytes) -> Any:
    _check_private_key(private_key)
    key = ffi.new(_PUBLIC_KEY)
    if not lib.secp256k1_ec_pubkey_create(_CONTEXT, key, private_key):
        raise InvalidKey("private key out of range")
    return key


def _parse(public_key: bytes) -> Any:
    key = ffi.new(_PUBLIC_KEY)
    if not lib.secp256k1_ec_pubkey_parse(_CONTEXT, key, public_key, len(public_key)):
        raise InvalidKey("public key is not on the curve")
    return key


# Votes come from the same few validators; nothing writes to a parsed key.
_parse_compressed = lru_cache(maxsize=PARSED_PUBLIC_KEYS_MAX)(_parse)


def _serialize(key: Any, length: int, form: int) -> bytes:
    serialized = ffi.new(_BYTES, length)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, serialized, ffi.new(_SIZE, length), key, form)
    return bytes(ffi.buffer(serialized))


def _address_of_parsed(key: Any) -> Address:
    point = _serialize(key, 65, lib.SECP256K1_EC_UNCOMPRESSED)
    return Address(keccak_256(point[1:]).digest()[12:])
