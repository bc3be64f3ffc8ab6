"""Hashes and signatures: known answers, the accepted range of a signature, and lengths the C library would not check."""

import hashlib

import pytest
from eth_keys.datatypes import PrivateKey

from ctt_state.crypto import (
    SECP256K1_HALF_N,
    SECP256K1_N,
    InvalidKey,
    InvalidSignature,
    address_of,
    address_of_public_key,
    checksum_address,
    keccak,
    public_key,
    recover,
    sha256,
    sign,
    sign_compact,
    verify,
)
from ctt_state.units import Address

ONE = (1).to_bytes(32, "big")
KEY = bytes(range(1, 33))
DIGEST = hashlib.sha256(b"12 kWh").digest()
GENERATOR_X = 0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798
NOT_AN_X = 5  # 5**3 + 7 is no square modulo p


def compact(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_hashes_give_known_answers() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak(b"Transfer(address,address,uint256)").hex() == (
        "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    )
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_private_key_one_has_the_generator_as_public_key() -> None:
    assert public_key(ONE) == b"\x02" + GENERATOR_X.to_bytes(32, "big")
    assert address_of(ONE).hex() == "7e5f4552091a69125d5dfcb7b8c2659029395bdf"


def test_signing_is_deterministic_with_the_known_answer() -> None:
    """RFC 6979, the vector that other secp256k1 libraries carry."""
    digest = hashlib.sha256(b"Satoshi Nakamoto").digest()

    assert sign_compact(ONE, digest).hex() == (
        "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
        "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
    )


@pytest.mark.parametrize("n", range(1, 33))
def test_another_library_agrees_on_keys_and_signatures(n: int) -> None:
    secret, digest = sha256(bytes([n])), sha256(bytes([n, n]))
    other = PrivateKey(secret)

    r, s, parity = sign(secret, digest)

    assert (parity, r, s) == other.sign_msg_hash(digest).vrs
    assert recover(digest, r, s, parity) == address_of(secret) == other.public_key.to_canonical_address()
    assert public_key(secret) == other.public_key.to_compressed_bytes()
    assert 0 < s <= SECP256K1_HALF_N


def test_the_other_parity_and_another_digest_recover_another_address() -> None:
    r, s, parity = sign(KEY, DIGEST)

    assert recover(DIGEST, r, s, 1 - parity) != address_of(KEY)
    assert recover(sha256(b"other"), r, s, parity) != address_of(KEY)


def test_recover_accepts_both_ends_of_the_range_of_s() -> None:
    r, _, parity = sign(KEY, DIGEST)

    assert len(recover(DIGEST, r, 1, parity)) == 20
    assert len(recover(DIGEST, r, SECP256K1_HALF_N, parity)) == 20


@pytest.mark.parametrize(
    ("r", "s", "parity"),
    [
        (0, 1, 0),
        (-1, 1, 0),
        (SECP256K1_N, 1, 0),
        (2**256, 1, 0),
        (GENERATOR_X, 0, 0),
        (GENERATOR_X, -1, 0),
        (GENERATOR_X, SECP256K1_HALF_N + 1, 0),
        (GENERATOR_X, SECP256K1_N, 0),
        (GENERATOR_X, 2**256, 0),
        (GENERATOR_X, 1, 2),
        (GENERATOR_X, 1, 4),
        (GENERATOR_X, 1, -1),
        (NOT_AN_X, 1, 0),
    ],
)
def test_recover_refuses_what_no_key_could_have_signed(r: int, s: int, parity: int) -> None:
    with pytest.raises(InvalidSignature):
        recover(DIGEST, r, s, parity)


def test_the_mirrored_signature_is_refused() -> None:
    """EIP-2: (r, n - s) with the other parity is valid mathematics for the same key, and not accepted."""
    r, s, parity = sign(KEY, DIGEST)

    with pytest.raises(InvalidSignature):
        recover(DIGEST, r, SECP256K1_N - s, 1 - parity)
    assert not verify(public_key(KEY), DIGEST, compact(r, SECP256K1_N - s))


def test_verify_accepts_the_signer_only() -> None:
    signature = sign_compact(KEY, DIGEST)

    assert verify(public_key(KEY), DIGEST, signature)
    assert not verify(public_key(ONE), DIGEST, signature)
    assert not verify(public_key(KEY), sha256(b"other"), signature)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        bytes(63),
        sign_compact(KEY, DIGEST)[:-1],
        sign_compact(KEY, DIGEST) + b"\x00",
        b"\xff" * 64,
        compact(SECP256K1_N, 1),
        compact(GENERATOR_X, SECP256K1_N),
    ],
)
def test_verify_says_no_to_what_is_no_signature(signature: bytes) -> None:
    assert not verify(public_key(KEY), DIGEST, signature)


@pytest.mark.parametrize("key", [b"", bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(64), bytes(32)])
def test_verify_says_no_to_what_is_no_compressed_key(key: bytes) -> None:
    assert not verify(key, DIGEST, sign_compact(KEY, DIGEST))


@pytest.mark.parametrize("key", [b"", ONE[1:], ONE + b"\x00", bytes(32), SECP256K1_N.to_bytes(32, "big")])
def test_a_private_key_out_of_range_is_refused(key: bytes) -> None:
    for use in (address_of, public_key, lambda bad: sign(bad, DIGEST), lambda bad: sign_compact(bad, DIGEST)):
        with pytest.raises(InvalidKey):
            use(key)


def test_the_largest_private_key_signs() -> None:
    largest = (SECP256K1_N - 1).to_bytes(32, "big")

    assert verify(public_key(largest), DIGEST, sign_compact(largest, DIGEST))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_digest_of_another_length_never_reaches_the_library(length: int) -> None:
    """The library reads 32 bytes whatever it is given."""
    digest = bytes(length)

    with pytest.raises(ValueError, match=f"digest of {length} bytes, not 32"):
        sign(KEY, digest)
    with pytest.raises(ValueError, match=f"digest of {length} bytes, not 32"):
        recover(digest, GENERATOR_X, 1, 0)
    with pytest.raises(ValueError, match=f"digest of {length} bytes, not 32"):
        verify(public_key(KEY), digest, bytes(64))


def test_both_forms_of_a_public_key_have_one_address() -> None:
    uncompressed = b"\x04" + PrivateKey(KEY).public_key.to_bytes()

    assert address_of_public_key(uncompressed) == address_of(KEY)
    assert address_of_public_key(public_key(KEY)) == address_of(KEY)


@pytest.mark.parametrize("prefix", [b"\x06", b"\x07"])
def test_the_hybrid_form_of_a_public_key_is_refused(prefix: bytes) -> None:
    with pytest.raises(InvalidKey):
        address_of_public_key(prefix + PrivateKey(KEY).public_key.to_bytes())


@pytest.mark.parametrize("key", [b"", b"\x02" * 32, b"\x02" + b"\xff" * 32, b"\x04" + bytes(64)])
def test_bytes_off_the_curve_are_no_public_key(key: bytes) -> None:
    with pytest.raises(InvalidKey):
        address_of_public_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_checksum_follows_the_examples_of_the_standard(text: str) -> None:
    """EIP-55."""
    assert checksum_address(Address(bytes.fromhex(text[2:]))) == text
