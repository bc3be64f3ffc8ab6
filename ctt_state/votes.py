"""What a validator signs, and the certificate that a quorum of such votes makes (docs/PROTOCOL.md, C-1 and C-2).

A statement has a fixed length for each kind and the kind first, so no two statements share their bytes. The consensus
key signs nothing else under this domain. Decoders take hostile bytes: what they give encodes to the same bytes again.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self

import msgpack

from ctt_state.crypto import sha256, sign_compact, verify
from ctt_state.units import UINT64_MAX, ZERO_HASH, Hash

DOMAIN: Final = b"poa/simplex/v1"
SCHEME_SECP256K1: Final = 1
SIGNATURE_BYTES: Final = 64
SIGNERS_MAX: Final = 100

_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack


class Kind(IntEnum):
    """The three votes of the protocol."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


class MalformedVote(ValueError):
    """The bytes are no vote or certificate, or not in the one accepted form."""


class InvalidCertificate(ValueError):
    """The certificate does not carry the votes of a quorum."""


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

    @classmethod
    def unpack(cls, value: Any) -> Self:
        """From what `msgpack.unpackb(..., use_list=False)` gave. Raises: MalformedVote."""
        kind, *numbers, block_hash = _fields(value, 5, "statement")
        if type(kind) is not int or kind not in (1, 2, 3):
            raise MalformedVote(f"vote of kind {kind!r:.20}")
        for name, number in zip(("epoch", "view", "parent view"), numbers, strict=True):
            if type(number) is not int or not 0 <= number <= UINT64_MAX:
                raise MalformedVote(f"{name} {number!r:.40} is no 64-bit number")
        if type(block_hash) is not bytes or len(block_hash) != len(ZERO_HASH):
            raise MalformedVote("block hash is not 32 bytes")
        epoch, view, parent_view = numbers
        if kind == Kind.NULLIFY and (parent_view, block_hash) != (0, ZERO_HASH):
            raise MalformedVote("a NULLIFY names no block")
        if not (parent_view < view):
            raise MalformedVote(f"parent view {parent_view} is not below view {view}")
        return cls(Kind(kind), epoch, view, parent_view, Hash(block_hash))


class Vote(NamedTuple):
    """One validator's signed statement; `signer` is its place in the epoch's set."""

    statement: Statement
    signer: int
    signature: bytes  # 64 bytes, low s

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def unpack(cls, value: Any) -> Self:
        """Raises: MalformedVote."""
        statement, signer, signature = _fields(value, 3, "vote")
        if type(signer) is not int or not 0 <= signer < SIGNERS_MAX:
            raise MalformedVote(f"signer {signer!r:.40} is outside 0-{SIGNERS_MAX - 1}")
        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            raise MalformedVote("signature is not 64 bytes")
        return cls(Statement.unpack(statement), signer, signature)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: MalformedVote."""
        decoded: Self = _decode(data, cls.unpack, cls.encode)
        return decoded


class Certificate(NamedTuple):
    """A statement with the signatures of at least a quorum of the epoch's set, by place."""

    statement: Statement
    signatures: tuple[tuple[int, bytes], ...]  # (signer, signature), in the order of the set

    def pack(self) -> tuple[Any, ...]:
        """As it stands in messages: the signers as a bitmap, lowest bit first, and their signatures in one string."""
        bitmap = sum(1 << signer for signer, _ in self.signatures)
        signers = bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")
        return SCHEME_SECP256K1, self.statement, signers, b"".join([each for _, each in self.signatures])

    def encode(self) -> bytes:
        return _pack(self.pack())

    @classmethod
    def unpack(cls, value: Any) -> Self:
        """Raises: MalformedVote, also for a signature scheme that we do not know."""
        scheme, statement, signers, joined = _fields(value, 4, "certificate")
        if type(scheme) is not int or scheme != SCHEME_SECP256K1:
            raise MalformedVote(f"certificate of signature scheme {scheme!r:.20}; known: {SCHEME_SECP256K1}")
        if type(signers) is not bytes or type(joined) is not bytes:
            raise MalformedVote("signers and signatures are not bytes")
        if len(signers) > (SIGNERS_MAX + 7) // 8 or signers[-1:] == b"\0":
            raise MalformedVote(f"bitmap of signers {signers[:16].hex()} is too long")
        bitmap = int.from_bytes(signers, "little")
        places = [place for place in range(bitmap.bit_length()) if bitmap >> place & 1]
        if len(joined) != SIGNATURE_BYTES * len(places):
            raise MalformedVote(f"{len(joined)} bytes of signatures for {len(places)} signers")
        cuts = range(0, len(joined), SIGNATURE_BYTES)
        signatures = [joined[cut : cut + SIGNATURE_BYTES] for cut in cuts]
        return cls(Statement.unpack(statement), tuple(zip(places, signatures, strict=True)))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: MalformedVote."""
        decoded: Self = _decode(data, cls.unpack, cls.encode)
        return decoded


class Evidence(NamedTuple):
    """Two votes of one signer that no honest validator casts together (docs/PROTOCOL.md, C-12)."""

    first: Vote
    second: Vote

    def encode(self) -> bytes:
        return _pack(self)

    @classmethod
    def unpack(cls, value: Any) -> Self:
        """Raises: MalformedVote, also for two votes that do not contradict each other."""
        first, second = _fields(value, 2, "evidence")
        votes = Vote.unpack(first), Vote.unpack(second)
        if not contradict(*votes):
            raise MalformedVote("the two votes do not contradict each other")
        return cls(*votes)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: MalformedVote."""
        decoded: Self = _decode(data, cls.unpack, cls.encode)
        return decoded


def quorum(validators: int) -> int:
    """How many votes decide: n - f, where f = (n - 1) // 3 validators may be faulty."""
    return validators - (validators - 1) // 3


def sign_vote(statement: Statement, signer: int, key: bytes, genesis_hash: Hash) -> Vote:
    return Vote(statement, signer, sign_compact(key, statement.digest(genesis_hash)))


def is_signed(vote: Vote, keys: Sequence[bytes], genesis_hash: Hash) -> bool:
    """Whether the validator in this place of the set (its public keys in order) cast the vote."""
    return vote.signer < len(keys) and verify(
        keys[vote.signer], vote.statement.digest(genesis_hash), vote.signature
    )


def check_certificate(certificate: Certificate, keys: Sequence[bytes], genesis_hash: Hash) -> None:
    """Whether a quorum of distinct validators of the set (their public keys in order) signed the statement.

    Raises: InvalidCertificate.
    """
    check_signers(certificate, len(keys))
    digest = certificate.statement.digest(genesis_hash)
    for signer, signature in certificate.signatures:
        if not verify(keys[signer], digest, signature):
            raise InvalidCertificate(f"signature of validator {signer} does not verify")


def check_signers(certificate: Certificate, validators: int) -> None:
    """Whether a quorum of distinct members of a set of this size is named. Raises: InvalidCertificate."""
    signers = [signer for signer, _ in certificate.signatures]
    if sorted(set(signers)) != signers or (signers and not 0 <= signers[0] <= signers[-1] < validators):
        raise InvalidCertificate(
            f"signers {signers} are not distinct members in order of a set of {validators}"
        )
    if len(signers) < quorum(validators):
        raise InvalidCertificate(f"certificate has {len(signers)} signatures of {quorum(validators)} needed")


def contradict(first: Vote, second: Vote) -> bool:
    """Whether no honest validator casts both: two votes for different blocks in one view, or NULLIFY and FINALIZE in
    one view. NOTARIZE and NULLIFY together are honest. Signatures are not looked at."""
    a, b = first.statement, second.statement
    if (first.signer, a.epoch, a.view) != (second.signer, b.epoch, b.view):
        return False
    kinds = {a.kind, b.kind}
    if Kind.NULLIFY in kinds:
        return kinds == {Kind.NULLIFY, Kind.FINALIZE}
    return (a.parent_view, a.block_hash) != (b.parent_view, b.block_hash)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _fields(value: Any, count: int, what: str) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) != count:
        raise MalformedVote(f"{what} is not an array of {count}")
    return value


def _decode(data: bytes, unpack: Callable[[Any], Any], encode: Callable[[Any], bytes]) -> Any:
    try:
        value = unpack(msgpack.unpackb(data, use_list=False, strict_map_key=True))
    except MalformedVote:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as fault:
        raise MalformedVote(f"not msgpack: {fault}") from None
    if encode(value) != data:
        raise MalformedVote("not in the shortest form")
    return value
