"""What nodes say to each other (docs/PROTOCOL.md, P-1): one class a message.

A payload is a msgpack array of the fields in their order. `decode` takes hostile bytes: it checks every type, size and
range, and what it gives encodes to the same bytes again. Whether a signature, a root or a height is right is not its
business. Limits on what this node sends are its own to keep; `Transactions.batches` and `BlocksReply.fit` help.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Self

from ctt_state.block import Block, Header
from ctt_state.transaction import MAX_TRANSACTION_BYTES
from ctt_state.units import Hash, Height
from ctt_state.validators import VALIDATORS_MAX, Member, ValidatorSet
from ctt_state.votes import Certificate, Evidence, Vote
from p2p.errors import MalformedMessage, Reason, UnexpectedMessage
from p2p.fields import (
    BLOCK_BYTES_MAX,
    NUMBER_MAX,
    TRANSACTIONS_BYTES_MAX,
    Fields,
    decode_block,
    decode_fields,
    pack,
)
from p2p.framing import encode_frame

VERSION: Final = 1

REQUEST_MAX: Final = 2**32 - 1
AGENT_CHARACTERS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 200
NULLIFICATIONS_MAX: Final = 16
VIEWS_MAX: Final = 64
BLOCKS_MAX: Final = 128
BLOCKS_BYTES_MAX: Final = TRANSACTIONS_BYTES_MAX  # together, unless it is one
EPOCHS_MAX: Final = 64
ROWS_MAX: Final = 8_192
ROWS_BYTES_MAX: Final = 1024 * 1024
ROW_KEY_BYTES_MAX: Final = 256
GOSSIP_TRANSACTIONS_MAX: Final = 1_000
GOSSIP_BYTES_MAX: Final = 1024 * 1024

SHORT_BYTES_MAX: Final = 1_024
CERTIFICATE_BYTES_MAX: Final = 8 * 1_024
MEMBER_BYTES: Final = 64  # 20 and 33, and what announces them


class Priority(IntEnum):
    """What is sent first, and which budget a message counts to."""

    CONTROL = 0
    CONSENSUS = 1
    REQUEST = 2
    REPLY = 3
    TRANSACTIONS = 4


# --- of the session itself ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message each way (P-1). `instance` is a random number of the process: who is heard under two is
    restarted."""

    KIND: ClassVar = 0x01
    NAME: ClassVar = "hello"
    PRIORITY: ClassVar = Priority.CONTROL
    BYTES_MAX: ClassVar = 256

    version: int
    chain_id: int
    genesis_hash: Hash
    instance: int
    agent: str
    height: Height

    def encode(self) -> bytes:
        return pack((self.version, self.chain_id, self.genesis_hash, self.instance, self.agent, self.height))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 6, items_max=7)
        return cls(
            fields.number("version"),
            fields.number("chain_id"),
            fields.hash("genesis_hash"),
            fields.number("instance"),
            fields.text("agent", AGENT_CHARACTERS_MAX),
            Height(fields.number("height")),
        )


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life. Answer: Pong with the same number."""

    KIND: ClassVar = 0x02
    NAME: ClassVar = "ping"
    PRIORITY: ClassVar = Priority.CONTROL
    BYTES_MAX: ClassVar = 16

    number: int

    def encode(self) -> bytes:
        return pack((self.number,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(decode_fields(cls.NAME, payload, 1, items_max=2).number("number"))


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping."""

    KIND: ClassVar = 0x03
    NAME: ClassVar = "pong"
    PRIORITY: ClassVar = Priority.CONTROL
    BYTES_MAX: ClassVar = 16

    number: int

    def encode(self) -> bytes:
        return pack((self.number,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(decode_fields(cls.NAME, payload, 1, items_max=2).number("number"))


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last message: why the sender ends the session."""

    KIND: ClassVar = 0x04
    NAME: ClassVar = "goodbye"
    PRIORITY: ClassVar = Priority.CONTROL
    BYTES_MAX: ClassVar = 4

    reason: Reason

    def encode(self) -> bytes:
        return pack((self.reason,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        number = decode_fields(cls.NAME, payload, 1, items_max=2).number("reason", 1, max(Reason))
        return cls(Reason(number))


# --- of consensus ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProposalMessage:
    """A leader's block and vote, and why the block may stand there."""

    KIND: ClassVar = 0x10
    NAME: ClassVar = "proposal"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = BLOCK_BYTES_MAX + SHORT_BYTES_MAX + CERTIFICATE_BYTES_MAX * (NULLIFICATIONS_MAX + 1)

    block: Block
    vote: Vote
    parent: Certificate | None
    nullifications: tuple[Certificate, ...]

    def encode(self) -> bytes:
        return pack(
            (
                self.block.encode(),
                self.vote,
                None if self.parent is None else self.parent.pack(),
                [each.pack() for each in self.nullifications],
            )
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 4, items_max=256)
        return cls(
            fields.block("block"),
            fields.vote("vote"),
            fields.optional(fields.certificate, "parent"),
            fields.certificates("nullifications", NULLIFICATIONS_MAX),
        )


@dataclass(frozen=True, slots=True)
class VoteMessage:
    """The sender's own vote."""

    KIND: ClassVar = 0x11
    NAME: ClassVar = "vote"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = 256

    vote: Vote

    def encode(self) -> bytes:
        return pack((self.vote,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(decode_fields(cls.NAME, payload, 1, items_max=16).vote("vote"))


@dataclass(frozen=True, slots=True)
class CertificateMessage:
    """A certificate that the sender made or holds."""

    KIND: ClassVar = 0x12
    NAME: ClassVar = "certificate"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = CERTIFICATE_BYTES_MAX

    certificate: Certificate

    def encode(self) -> bytes:
        return pack((self.certificate.pack(),))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(decode_fields(cls.NAME, payload, 1, items_max=16).certificate("certificate"))


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """Where the sender stands (P-3)."""

    KIND: ClassVar = 0x13
    NAME: ClassVar = "status"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = CERTIFICATE_BYTES_MAX + SHORT_BYTES_MAX

    epoch: int
    view: int
    finalized_height: Height
    finalized_hash: Hash
    finalization: Certificate | None

    def encode(self) -> bytes:
        finalization = None if self.finalization is None else self.finalization.pack()
        return pack((self.epoch, self.view, self.finalized_height, self.finalized_hash, finalization))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 5, items_max=24)
        return cls(
            fields.number("epoch"),
            fields.number("view"),
            Height(fields.number("finalized_height")),
            fields.hash("finalized_hash"),
            fields.optional(fields.certificate, "finalization"),
        )


@dataclass(frozen=True, slots=True)
class GetCertificates:
    """Asks for the certificates of these views, both included. Answer: as many CertificateMessages as there are.

    More than `VIEWS_MAX` views are not asked for at once: the first ones are, and the rest another time.
    """

    KIND: ClassVar = 0x14
    NAME: ClassVar = "get certificates"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = 64

    epoch: int
    from_view: int
    to_view: int

    def encode(self) -> bytes:
        return pack((self.epoch, self.from_view, min(self.to_view, self.from_view + VIEWS_MAX - 1)))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=4)
        epoch, first = fields.number("epoch"), fields.number("from_view")
        return cls(epoch, first, fields.number("to_view", first, min(first + VIEWS_MAX - 1, NUMBER_MAX)))


@dataclass(frozen=True, slots=True)
class EvidenceMessage:
    """Two votes of one validator that contradict each other."""

    KIND: ClassVar = 0x15
    NAME: ClassVar = "evidence"
    PRIORITY: ClassVar = Priority.CONSENSUS
    BYTES_MAX: ClassVar = 512

    evidence: Evidence

    def encode(self) -> bytes:
        return pack((self.evidence,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(decode_fields(cls.NAME, payload, 1, items_max=32).evidence("evidence"))


# --- of the chain ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetBlock:
    """Asks for the block of this hash, final or not (P-5). Answer: BlockReply."""

    KIND: ClassVar = 0x20
    NAME: ClassVar = "get block"
    PRIORITY: ClassVar = Priority.REQUEST
    BYTES_MAX: ClassVar = 64

    request: int  # the asker's number for it, 0 to REQUEST_MAX
    block_hash: Hash

    def encode(self) -> bytes:
        return pack((self.request, self.block_hash))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 2, items_max=3)
        return cls(_request(fields), fields.hash("block_hash"))


@dataclass(frozen=True, slots=True)
class BlockReply:
    """The block, or nothing for one that the sender does not have."""

    KIND: ClassVar = 0x21
    NAME: ClassVar = "block"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = BLOCK_BYTES_MAX + SHORT_BYTES_MAX

    request: int
    block: Block | None

    def encode(self) -> bytes:
        return pack((self.request, None if self.block is None else self.block.encode()))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 2, items_max=3)
        return cls(_request(fields), fields.optional(fields.block, "block"))


@dataclass(frozen=True, slots=True)
class GetBlocks:
    """Asks for final blocks from a height up (P-6). Answer: BlocksReply."""

    KIND: ClassVar = 0x22
    NAME: ClassVar = "get blocks"
    PRIORITY: ClassVar = Priority.REQUEST
    BYTES_MAX: ClassVar = 64

    request: int
    from_height: Height  # 1 or more: block 0 is made from the genesis document
    count: int  # 1 to BLOCKS_MAX

    def encode(self) -> bytes:
        return pack((self.request, self.from_height, self.count))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=4)
        return cls(
            _request(fields),
            Height(fields.number("from_height", low=1)),
            fields.number("count", 1, BLOCKS_MAX),
        )


@dataclass(frozen=True, slots=True)
class BlocksReply:
    """Consecutive final blocks, perhaps fewer than were asked for, and the certificate of the last if it has one."""

    KIND: ClassVar = 0x23
    NAME: ClassVar = "blocks"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = BLOCK_BYTES_MAX + CERTIFICATE_BYTES_MAX + SHORT_BYTES_MAX

    request: int
    blocks: tuple[Block, ...]  # 1 to BLOCKS_MAX; encoded at most BLOCKS_BYTES_MAX together, unless it is one
    certificate: Certificate | None

    def encode(self) -> bytes:
        certificate = None if self.certificate is None else self.certificate.pack()
        return pack((self.request, [block.encode() for block in self.blocks], certificate))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=BLOCKS_MAX + 16)
        return cls(_request(fields), _blocks(fields), fields.optional(fields.certificate, "certificate"))

    @staticmethod
    def fit(blocks: Iterable[Block]) -> tuple[Block, ...]:
        """As many of the first blocks as one reply may carry; always one, if there is one."""
        fitting: list[Block] = []
        total = 0
        for block in blocks:
            total += len(block.encode())
            if fitting and (total > BLOCKS_BYTES_MAX or len(fitting) == BLOCKS_MAX):
                break
            fitting.append(block)
        return tuple(fitting)


@dataclass(frozen=True, slots=True)
class GetSnapshot:
    """Asks which state can be had in pieces (P-8). Answer: SnapshotReply."""

    KIND: ClassVar = 0x24
    NAME: ClassVar = "get snapshot"
    PRIORITY: ClassVar = Priority.REQUEST
    BYTES_MAX: ClassVar = 16

    request: int

    def encode(self) -> bytes:
        return pack((self.request,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        return cls(_request(decode_fields(cls.NAME, payload, 1, items_max=2)))


@dataclass(frozen=True, slots=True)
class SnapshotReply:
    """The final block whose state the sender offers, and its certificate."""

    KIND: ClassVar = 0x25
    NAME: ClassVar = "snapshot"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = CERTIFICATE_BYTES_MAX + 2 * SHORT_BYTES_MAX

    request: int
    header: Header
    certificate: Certificate

    @property
    def height(self) -> Height:
        return self.header.height

    def encode(self) -> bytes:
        return pack((self.request, self.header, self.certificate.pack()))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=40)
        return cls(_request(fields), fields.header("header"), fields.certificate("certificate"))


@dataclass(frozen=True, slots=True)
class GetSnapshotChunk:
    """Asks for the rows of the state of this height after a key; an empty one asks for the first (P-9). Answer:
    SnapshotChunk."""

    KIND: ClassVar = 0x26
    NAME: ClassVar = "get snapshot chunk"
    PRIORITY: ClassVar = Priority.REQUEST
    BYTES_MAX: ClassVar = 512

    request: int
    height: Height
    after_key: bytes

    def encode(self) -> bytes:
        return pack((self.request, self.height, self.after_key))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=4)
        return cls(
            _request(fields), Height(fields.number("height")), fields.data("after_key", 0, ROW_KEY_BYTES_MAX)
        )


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Rows of a state in ascending order of their keys."""

    KIND: ClassVar = 0x27
    NAME: ClassVar = "snapshot chunk"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = ROWS_BYTES_MAX + 16 * ROWS_MAX

    request: int
    rows: tuple[tuple[bytes, bytes], ...]  # at most ROWS_MAX, of ROWS_BYTES_MAX together
    is_last: bool

    def encode(self) -> bytes:
        return pack((self.request, self.rows, self.is_last))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=3 * ROWS_MAX + 4)
        return cls(_request(fields), _rows(fields), fields.boolean("is_last"))


@dataclass(frozen=True, slots=True)
class GetEpochs:
    """Asks how the sets of validators followed from one another, from an epoch's end up (P-7). Answer: EpochsReply."""

    KIND: ClassVar = 0x28
    NAME: ClassVar = "get epochs"
    PRIORITY: ClassVar = Priority.REQUEST
    BYTES_MAX: ClassVar = 64

    request: int
    from_epoch: int
    count: int  # 1 to EPOCHS_MAX

    def encode(self) -> bytes:
        return pack((self.request, self.from_epoch, self.count))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 3, items_max=4)
        return cls(_request(fields), fields.number("from_epoch"), fields.number("count", 1, EPOCHS_MAX))


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """The last block of an epoch, its certificate, and the set of the epoch after it."""

    header: Header
    certificate: Certificate
    next_set: ValidatorSet


@dataclass(frozen=True, slots=True)
class EpochsReply:
    """The ends of consecutive epochs, perhaps fewer than were asked for."""

    KIND: ClassVar = 0x29
    NAME: ClassVar = "epochs"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = SHORT_BYTES_MAX + EPOCHS_MAX * (
        SHORT_BYTES_MAX + CERTIFICATE_BYTES_MAX + MEMBER_BYTES * VALIDATORS_MAX
    )

    request: int
    epochs: tuple[EpochEnd, ...]  # at most EPOCHS_MAX

    def encode(self) -> bytes:
        epochs = [(each.header, each.certificate.pack(), each.next_set.members) for each in self.epochs]
        return pack((self.request, epochs))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        items_max = 3 + EPOCHS_MAX * (32 + 3 * VALIDATORS_MAX)
        fields = decode_fields(cls.NAME, payload, 2, items_max=items_max)
        request, epochs = _request(fields), fields.array("epochs", 0, EPOCHS_MAX)
        return cls(request, tuple([_epoch_end(cls.NAME, each) for each in epochs]))


@dataclass(frozen=True, slots=True)
class Refused:
    """Answers a request that is not answered (P-2): there is no such block any more, or too much was asked for."""

    KIND: ClassVar = 0x2F
    NAME: ClassVar = "refused"
    PRIORITY: ClassVar = Priority.REPLY
    BYTES_MAX: ClassVar = 256

    request: int
    text: str  # printable ASCII of at most TEXT_CHARACTERS_MAX; what is more or other is replaced when it is sent

    def encode(self) -> bytes:
        text = "".join([each if each.isascii() and each.isprintable() else "?" for each in self.text])
        return pack((self.request, text[:TEXT_CHARACTERS_MAX]))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 2, items_max=3)
        return cls(_request(fields), fields.text("text", TEXT_CHARACTERS_MAX))


@dataclass(frozen=True, slots=True)
class Transactions:
    """Signed transactions for the pool (P-4)."""

    KIND: ClassVar = 0x30
    NAME: ClassVar = "transactions"
    PRIORITY: ClassVar = Priority.TRANSACTIONS
    BYTES_MAX: ClassVar = GOSSIP_BYTES_MAX + 8 * GOSSIP_TRANSACTIONS_MAX

    raws: tuple[bytes, ...]  # 1 to GOSSIP_TRANSACTIONS_MAX, of at most GOSSIP_BYTES_MAX together

    def encode(self) -> bytes:
        return pack((self.raws,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises: MalformedMessage."""
        fields = decode_fields(cls.NAME, payload, 1, items_max=GOSSIP_TRANSACTIONS_MAX + 2)
        return cls(
            fields.datas(
                "raws",
                counts=(1, GOSSIP_TRANSACTIONS_MAX),
                size_max=MAX_TRANSACTION_BYTES,
                total_max=GOSSIP_BYTES_MAX,
            )
        )

    @classmethod
    def batches(cls, raws: Sequence[bytes]) -> Iterator[Self]:
        """As few messages as carry these transactions, in their order."""
        batch: list[bytes] = []
        size = 0
        for raw in raws:
            if batch and (len(batch) == GOSSIP_TRANSACTIONS_MAX or size + len(raw) > GOSSIP_BYTES_MAX):
                yield cls(tuple(batch))
                batch, size = [], 0
            batch.append(raw)
            size += len(raw)
        if batch:
            yield cls(tuple(batch))


# --------------------------------------------------------------------------------------------------------------------

Control = Hello | Ping | Pong | Goodbye
Consensus = (
    ProposalMessage | VoteMessage | CertificateMessage | StatusMessage | GetCertificates | EvidenceMessage
)
Request = GetBlock | GetBlocks | GetSnapshot | GetSnapshotChunk | GetEpochs
Reply = BlockReply | BlocksReply | SnapshotReply | SnapshotChunk | EpochsReply | Refused
Message = Control | Consensus | Request | Reply | Transactions

MESSAGES: Final[dict[int, type[Message]]] = {
    each.KIND: each
    for each in (
        *(Hello, Ping, Pong, Goodbye),
        *(ProposalMessage, VoteMessage, CertificateMessage, StatusMessage, GetCertificates, EvidenceMessage),
        *(GetBlock, GetBlocks, GetSnapshot, GetSnapshotChunk, GetEpochs),
        *(BlockReply, BlocksReply, SnapshotReply, SnapshotChunk, EpochsReply, Refused),
        Transactions,
    )
}


ANSWERS: Final[dict[type[Request], type[Reply]]] = {
    GetBlock: BlockReply,
    GetBlocks: BlocksReply,
    GetSnapshot: SnapshotReply,
    GetSnapshotChunk: SnapshotChunk,
    GetEpochs: EpochsReply,
}


def message_type(kind: int) -> type[Message]:
    """Raises: UnexpectedMessage."""
    found = MESSAGES.get(kind)
    if found is None:
        raise UnexpectedMessage(f"message of unknown kind {kind:#04x}")
    return found


def decode_message(kind: int, payload: bytes) -> Message:
    """Raises: UnexpectedMessage for a kind that we do not know, MalformedMessage."""
    found = message_type(kind)
    if len(payload) > found.BYTES_MAX:
        raise MalformedMessage(found.NAME, f"has {len(payload):,} bytes; limit {found.BYTES_MAX:,}")
    return found.decode(payload)


def encode_message(message: Message) -> bytes:
    """The message's frame. One that is larger than its kind may be is our own mistake."""
    payload = message.encode()
    if len(payload) > message.BYTES_MAX:
        raise AssertionError(f"{message.NAME} of {len(payload):,} bytes; limit {message.BYTES_MAX:,}")
    return encode_frame(message.KIND, payload)


def _request(fields: Fields) -> int:
    return fields.number("request", 0, REQUEST_MAX)


def _blocks(fields: Fields) -> tuple[Block, ...]:
    blocks = fields.datas(
        "blocks", counts=(1, BLOCKS_MAX), size_max=BLOCK_BYTES_MAX, total_max=BLOCK_BYTES_MAX
    )
    return tuple([decode_block(each) for each in blocks])


def _rows(fields: Fields) -> tuple[tuple[bytes, bytes], ...]:
    rows = fields.array("rows", 0, ROWS_MAX)
    total, last = 0, b""
    for row in rows:
        pair = Fields(SnapshotChunk.NAME, row, 2, field="rows")
        key = pair.data("key", 1, ROW_KEY_BYTES_MAX)
        total += len(key) + len(pair.data("value", 0, ROWS_BYTES_MAX))
        if key <= last:
            raise MalformedMessage(SnapshotChunk.NAME, "is not in the order of its keys", field="rows")
        last = key
    if total > ROWS_BYTES_MAX:
        raise MalformedMessage(
            SnapshotChunk.NAME, f"has {total:,} bytes; limit {ROWS_BYTES_MAX:,}", field="rows"
        )
    return rows


def _epoch_end(kind: str, value: object) -> EpochEnd:
    fields = Fields(kind, value, 3, field="epochs")
    header, certificate = fields.header("header"), fields.certificate("certificate")
    members = tuple([_member(kind, each) for each in fields.array("next_set", low=1, high=VALIDATORS_MAX)])
    keys = [member.consensus_key for member in members]
    if sorted(set(keys)) != keys:
        raise MalformedMessage(kind, "is not in the order of its keys", field="next_set")
    return EpochEnd(header, certificate, ValidatorSet(members))


def _member(kind: str, value: object) -> Member:
    fields = Fields(kind, value, 2, field="next_set")
    return Member(fields.address("address"), fields.data("consensus_key", 33, 33))
