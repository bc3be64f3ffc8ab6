"""A chain as light clients and nodes that catch up see it: real signatures, epochs and sets that change, no ledger."""

from dataclasses import dataclass, field

from ctt_state.block import HEADER_VERSION, NO_EVIDENCE_ROOT, Block, Header, merkle_root
from ctt_state.crypto import address_of, keccak, public_key, sha256
from ctt_state.light import ChainRules
from ctt_state.tree import update
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Gas, Hash, Height, Ms
from ctt_state.validators import Member, ValidatorSet, boundary_of, epoch_of, fixing_height
from ctt_state.votes import Certificate, Kind, Statement, quorum, sign_vote

RULES = ChainRules(genesis_hash=Hash(sha256(b"a chain for light clients")), epoch_blocks=10, period_ms=333)
START_MS = 1_800_000_000_000
RECORDS = {b"\x01" + bytes((number,)) * 20: b"record %d" % number for number in range(5)}


@dataclass(frozen=True)
class Signers:
    """A set with the secret keys of its members, in its order."""

    members: ValidatorSet
    secrets: tuple[bytes, ...]

    def certify(self, statement: Statement, *places: int, chain: Hash = RULES.genesis_hash) -> Certificate:
        """By the members in these places, or by as many as are needed."""
        chosen = places or range(quorum(len(self.secrets)))
        votes = [sign_vote(statement, place, self.secrets[place], chain) for place in chosen]
        return Certificate(statement, tuple((vote.signer, vote.signature) for vote in votes))


def make_signers(*numbers: int) -> Signers:
    secrets = sorted((sha256(b"light key %d" % number) for number in numbers), key=public_key)
    members = ValidatorSet(tuple(Member(address_of(each), public_key(each)) for each in secrets))
    return Signers(members, tuple(secrets))


def make_receipts(height: int) -> tuple[bytes, ...]:
    return tuple(b"receipt %d of block %d" % (index, height) for index in range(height % 6))


def make_state() -> tuple[Hash, dict[bytes, bytes | None]]:
    """The root and the nodes of a tree of `RECORDS`."""
    return update(lambda _: None, [(sha256(key), sha256(value)) for key, value in RECORDS.items()])


@dataclass
class Chain:
    """Blocks from genesis on; `sets[e]` signs epoch e, and the last goes on for ever. Each view that is a multiple of
    seven brings no block."""

    sets: tuple[Signers, ...]
    rules: ChainRules = RULES
    payload_bytes: int = 20
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state_root, self.nodes = make_state()
        self.blocks.append(Block(self._make_header(()), ()))

    def grow(self, blocks: int) -> "Chain":
        for _ in range(blocks):
            height = len(self.blocks)
            transactions = tuple(
                (b"transaction %d of block %d " % (index, height)).ljust(self.payload_bytes, b".")
                for index in range(height % 6)
            )
            self.blocks.append(Block(self._make_header(transactions), transactions))
        return self

    def signers(self, epoch: int) -> Signers:
        return self.sets[min(epoch, len(self.sets) - 1)]

    def header(self, height: int) -> Header:
        return self.blocks[height].header

    def headers(self, first: int, last: int) -> tuple[Header, ...]:
        return tuple(block.header for block in self.blocks[first : last + 1])

    def statement(self, height: int) -> Statement:
        """FINALIZE in the block's own view."""
        header = self.header(height)
        return Statement(Kind.FINALIZE, header.epoch, header.view, header.view - 1, header.hash)

    def certificate(self, height: int) -> Certificate:
        return self.signers(self.header(height).epoch).certify(self.statement(height))

    def _make_header(self, transactions: tuple[bytes, ...]) -> Header:
        height, rules = len(self.blocks), self.rules
        epoch = epoch_of(height, rules.epoch_blocks)
        parent = self.blocks[-1].header if self.blocks else None
        is_first = parent is None or height == boundary_of(epoch - 1, rules.epoch_blocks) + 1
        view = 0 if parent is None else 1 if is_first else parent.view + 1
        view += bool(view) and view % 7 == 0
        members = self.signers(epoch).members
        is_fixed = height >= fixing_height(epoch, rules.epoch_blocks)
        return Header(
            version=HEADER_VERSION,
            genesis_hash=rules.genesis_hash,
            height=Height(height),
            epoch=epoch,
            view=view,
            parent_hash=parent.hash if parent else ZERO_HASH,
            timestamp_ms=Ms(START_MS + height * rules.period_ms),
            proposer=members.members[members.leader(epoch, view)].address if parent else ZERO_ADDRESS,
            gas_used=Gas(21_000 * len(transactions)),
            transactions_root=merkle_root([keccak(raw) for raw in transactions]),
            receipts_root=merkle_root(make_receipts(height)),
            state_root=self.state_root,
            evidence_root=NO_EVIDENCE_ROOT,
            validators_hash=members.hash,
            next_validators_hash=self.signers(epoch + 1 if is_fixed else epoch).members.hash,
        )
