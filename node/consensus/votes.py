"""What a validator signs, and the certificate that a quorum of such votes makes (docs/PROTOCOL.md, C-1 and C-2).

A statement has a fixed length for each kind and the kind first, so no two statements share their bytes. The consensus
key signs nothing else.
"""

from enum import IntEnum
from typing import Final, NamedTuple, Self

import msgpack

from ctt_state.crypto import sha256, verify
from ctt_state.units import Hash

DOMAIN: Final = b"poa/simplex/v1"
SCHEME_SECP256K1: Final = 1


class Kind(IntEnum):
    """The three votes of the protocol."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


class Statement(NamedTuple):
    """What a vote says. A NULLIFY names no block: its hash is zero and its parent view 0."""

    kind: Kind
    epoch: int
    view: int
    parent_view: int
    block_hash: Hash

    def digest(self, genesis_hash: Hash) -> bytes:
        """The 32 bytes that are signed."""
        place = DOMAIN + bytes((self.kind,)) + genesis_hash + _u64(self.epoch) + _u64(self.view)
        if self.kind is Kind.NULLIFY:
            return sha256(place)
        return sha256(place + _u64(self.parent_view) + self.block_hash)


class Vote(NamedTuple):
    """One validator's signed statement; `signer` is its place in the epoch's set."""

    statement: Statement
    signer: int
    signature: bytes  # 64 bytes, low s


class Certificate(NamedTuple):
    """A statement with the signatures of at least a quorum of the epoch's set, by place."""

    statement: Statement
    signatures: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        encoded: bytes = msgpack.packb((SCHEME_SECP256K1, self.statement, self.signatures))
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: ValueError for bytes that are no certificate of a scheme we know."""
        scheme, statement, signatures = msgpack.unpackb(data, use_list=False)
        if scheme != SCHEME_SECP256K1:
            raise ValueError(f"certificate of signature scheme {scheme}; known: {SCHEME_SECP256K1}")
        kind, *rest = statement
        return cls(Statement(Kind(kind), *rest), signatures)


class InvalidCertificate(ValueError):
    """The certificate does not carry the votes of a quorum."""


def quorum(validators: int) -> int:
    """How many votes decide: n - f, where f = (n - 1) // 3 validators may be faulty."""
    return validators - (validators - 1) // 3


def check_certificate(certificate: Certificate, keys: tuple[bytes, ...], genesis_hash: Hash) -> None:
    """Whether a quorum of distinct validators of the set (their public keys in order) signed the statement.

    Raises: InvalidCertificate.
    """
    signers = [signer for signer, _ in certificate.signatures]
    if sorted(set(signers)) != signers or (signers and not 0 <= signers[0] <= signers[-1] < len(keys)):
        raise InvalidCertificate(
            f"signers {signers} are not distinct members in order of a set of {len(keys)}"
        )
    if len(signers) < quorum(len(keys)):
        raise InvalidCertificate(f"certificate has {len(signers)} signatures of {quorum(len(keys))} needed")
    digest = certificate.statement.digest(genesis_hash)
    for signer, signature in certificate.signatures:
        if not verify(keys[signer], digest, signature):
            raise InvalidCertificate(f"signature of validator {signer} does not verify")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
