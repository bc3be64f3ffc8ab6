"""One example of each wire message, and what they are made of."""

from typing import Final

from ctt_state.block import HEADER_VERSION, NO_EVIDENCE_ROOT, Block, Header, merkle_root
from ctt_state.crypto import public_key, sha256
from ctt_state.units import ZERO_HASH, Address, Gas, Hash, Height, Ms
from ctt_state.validators import Member, ValidatorSet
from ctt_state.votes import Certificate, Evidence, Kind, Statement, Vote
from p2p.errors import Reason
from p2p.messages import (
    BlockReply,
    BlocksReply,
    CertificateMessage,
    EpochEnd,
    EpochsReply,
    EvidenceMessage,
    GetBlock,
    GetBlocks,
    GetCertificates,
    GetEpochs,
    GetSnapshot,
    GetSnapshotChunk,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    ProposalMessage,
    Refused,
    SnapshotChunk,
    SnapshotReply,
    StatusMessage,
    Transactions,
    VoteMessage,
)

GENESIS_HASH: Final = Hash(sha256(b"a network of peers"))
BLOCK_HASH: Final = Hash(b"b" * 32)
SIGNATURE: Final = b"s" * 64  # no signature is looked at on the way


def make_header(height: int = 7) -> Header:
    return Header(
        version=HEADER_VERSION,
        genesis_hash=GENESIS_HASH,
        height=Height(height),
        epoch=1,
        view=9,
        parent_hash=BLOCK_HASH,
        timestamp_ms=Ms(1_800_000_000_000),
        proposer=Address(b"p" * 20),
        gas_used=Gas(21_000),
        transactions_root=merkle_root(()),
        receipts_root=merkle_root(()),
        state_root=ZERO_HASH,
        evidence_root=NO_EVIDENCE_ROOT,
        validators_hash=ZERO_HASH,
        next_validators_hash=ZERO_HASH,
    )


def make_block(height: int = 7, transactions: int = 2, size: int = 110) -> Block:
    raws = tuple(number.to_bytes(size, "big") for number in range(transactions))
    return Block(make_header(height), raws, (b"e" * 300,))


def make_vote(view: int = 9, kind: Kind = Kind.NOTARIZE, block_hash: Hash = BLOCK_HASH) -> Vote:
    if kind is Kind.NULLIFY:
        return Vote(Statement(kind, 1, view, 0, ZERO_HASH), 2, SIGNATURE)
    return Vote(Statement(kind, 1, view, view - 1, block_hash), 2, SIGNATURE)


def make_certificate(view: int = 8, kind: Kind = Kind.NOTARIZE, signers: int = 3) -> Certificate:
    signatures = tuple((signer, SIGNATURE) for signer in range(signers))
    return Certificate(make_vote(view, kind).statement, signatures)


def make_set(size: int) -> ValidatorSet:
    keys = sorted(public_key(sha256(b"%d" % number)) for number in range(size))
    return ValidatorSet(tuple(Member(Address(key[:20]), key) for key in keys))


def make_hello(
    instance: int = 1, chain_id: int = 7, genesis_hash: Hash = GENESIS_HASH, version: int = 1
) -> Hello:
    return Hello(version, chain_id, genesis_hash, instance, "ctt/0.1", Height(6))


EXAMPLES: Final[tuple[Message, ...]] = (
    make_hello(),
    Ping(5),
    Pong(5),
    Goodbye(Reason.SHUTDOWN),
    ProposalMessage(make_block(), make_vote(), make_certificate(), (make_certificate(7, Kind.NULLIFY),)),
    VoteMessage(make_vote()),
    CertificateMessage(make_certificate(signers=100)),
    StatusMessage(1, 9, Height(6), BLOCK_HASH, make_certificate(8, Kind.FINALIZE)),
    GetCertificates(1, 9, 72),
    EvidenceMessage(Evidence(make_vote(), make_vote(block_hash=ZERO_HASH))),
    GetBlock(4, BLOCK_HASH),
    BlockReply(4, make_block()),
    GetBlocks(5, Height(1), 128),
    BlocksReply(5, (make_block(7), make_block(8)), make_certificate(8, Kind.FINALIZE)),
    GetSnapshot(6),
    SnapshotReply(6, make_header(), make_certificate(9, Kind.FINALIZE)),
    GetSnapshotChunk(7, Height(900), b"\x01key"),
    SnapshotChunk(7, ((b"\x01key", b"value"), (b"\x02key", b"")), is_last=True),
    GetEpochs(8, 0, 64),
    EpochsReply(8, (EpochEnd(make_header(900), make_certificate(9, Kind.FINALIZE), make_set(4)),)),
    Refused(9, "no block of height 3 any more"),
    Transactions((b"one", b"two")),
)
