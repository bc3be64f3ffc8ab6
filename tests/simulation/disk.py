"""What a machine keeps: a disk that survives, and the executed blocks that do not."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ctt_state.block import HEADER_VERSION, NO_EVIDENCE_ROOT, Block, Header, evidence_root, merkle_root
from ctt_state.crypto import keccak, sha256
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Gas, Hash, Height, Ms
from ctt_state.validators import ValidatorSet, epoch_of, fixing_height
from ctt_state.votes import Certificate, Kind, Statement, Vote, contradict
from node.consensus.events import Restored

GENESIS_HASH = Hash(sha256(b"a simulated network"))
UNFINAL_MAX = 128  # executed blocks above the head

Item = Vote | Certificate | Block
Place = tuple[int, int]


class UnknownParent(Exception):
    """The block stands neither on the head nor on an executed block, or too many are kept."""


def place_of(statement: Statement) -> Place:
    return statement.epoch, statement.view


class Step(NamedTuple):
    """What a journal was asked to write at once, and the items of it that were not there yet."""

    vote: Vote
    reliance: tuple[Certificate, ...]
    block: Block | None
    items: tuple[Item, ...]


@dataclass
class Journal:
    """The votes of one key. A step is written at once and synced at once; what was not synced may be lost."""

    votes: dict[Statement, Vote] = field(default_factory=dict)
    certificates: dict[Statement, Certificate] = field(default_factory=dict)
    blocks: dict[Hash, Block] = field(default_factory=dict)
    marks: dict[Kind, Place] = field(default_factory=dict)
    unsynced: Step | None = None
    floor: Place = (0, 0)
    silent_through: Place = (0, 0)  # after a restore
    height: int = 0
    first_epoch: int = 0  # begun anew in the place of a lost one: no votes of epochs before this
    began_height: int = 0
    past: list[Step | Header] = field(default_factory=list)  # all that was synced, and final heads, in order

    @classmethod
    def begun_anew(cls, first_epoch: int, height: int) -> "Journal":
        place = (first_epoch, 0)
        return cls(
            marks=dict.fromkeys(Kind, place),
            floor=place,
            height=height,
            first_epoch=first_epoch,
            began_height=height,
        )

    def held(self, statement: Statement) -> Vote | None:
        return self.votes.get(statement)

    def refusal(self, statement: Statement) -> str | None:
        """Why the real journal would sign nothing: the vote contradicts one before it."""
        place = place_of(statement)
        for vote in self.votes.values():
            if contradict(vote._replace(statement=statement), vote):
                return f"{statement} after {vote.statement}"
        if statement.kind is not Kind.FINALIZE and place <= self.marks.get(statement.kind, (-1, -1)):
            return f"{statement} at or below the mark {self.marks[statement.kind]}"
        return None

    def write(self, vote: Vote, reliance: tuple[Certificate, ...], block: Block | None) -> None:
        """Appends what is not there yet. Not durable before `sync`."""
        items: list[Item] = [
            each
            for each in reliance
            if place_of(each.statement) > self.floor and each.statement not in self.certificates
        ]
        if block is not None and block.header.height > self.height and block.header.hash not in self.blocks:
            items.append(block)
        self.unsynced = Step(vote, reliance, block, (*items, vote))

    def sync(self) -> tuple[Item, ...]:
        """Gives what has become durable by it."""
        step, self.unsynced = self.unsynced, None
        if step is None:
            return ()
        self.past.append(step)
        for item in step.items:
            match item:
                case Vote():
                    self.votes[item.statement] = item
                    kind = item.statement.kind
                    self.marks[kind] = max(self.marks.get(kind, (-1, -1)), place_of(item.statement))
                case Certificate():
                    self.certificates[item.statement] = item
                case Block():
                    self.blocks[item.header.hash] = item
        return step.items

    def tear(self) -> None:
        """The step was cut short: its checksum fails, so nothing of it counts."""
        self.unsynced = None

    def forget_votes(self, count: int) -> None:
        """A disk that said that it had synced them had not."""
        for statement in list(self.votes)[-count:]:
            del self.votes[statement]
        self.marks = {
            kind: max((place_of(each) for each in self.votes if each.kind is kind), default=self.floor)
            for kind in self.marks
        }

    def advance(self, head: Header) -> None:
        """Forgets what is at or below the final block."""
        self.past.append(head)
        floor = self.floor = max(self.floor, (head.epoch, head.view))
        height = self.height = max(self.height, head.height)
        self.votes = {each: vote for each, vote in self.votes.items() if place_of(each) > floor}
        self.certificates = {each: held for each, held in self.certificates.items() if place_of(each) > floor}
        self.blocks = {each: block for each, block in self.blocks.items() if block.header.height > height}


@dataclass
class Disk:
    """The final chain, lowest first, its certificates by height, and a journal for each key."""

    final: list[Block]
    certificates: dict[int, Certificate] = field(default_factory=dict)
    journals: dict[bytes, Journal] = field(default_factory=dict)
    is_guarded: bool = False  # of a backup: the journals may lack votes

    @property
    def head(self) -> Header:
        return self.final[-1].header

    def journal(self, key: bytes) -> Journal:
        return self.journals.setdefault(key, Journal())

    def restored(self, key: bytes | None) -> Restored:
        """What a starting node reads above its last final block, and that block's certificate."""
        covering = self.certificates.get(self.head.height)
        extra = () if covering is None else (covering,)
        if key is None:
            return Restored((), extra, ())
        journal = self.journal(key)
        journal.advance(self.head)
        return Restored(
            tuple(journal.votes.values()),
            (*journal.certificates.values(), *extra),
            tuple(journal.blocks.values()),
            max(journal.floor, journal.silent_through),
        )

    def backup(self) -> "Disk":
        """What is restored of it as it is now: the chain, and no votes."""
        return Disk(list(self.final), dict(self.certificates), is_guarded=True)


class Ledger:
    """An abstract state: each root follows from the parent's and from the block's transactions."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.executed: dict[Hash, Block] = {}

    def parent(self, block_hash: Hash) -> Header:
        """Raises: UnknownParent."""
        head = self._disk.final[-1].header
        if block_hash == head.hash:
            return head
        if block_hash not in self.executed or len(self.executed) >= UNFINAL_MAX:
            raise UnknownParent
        return self.executed[block_hash].header

    def path_to(self, block_hash: Hash) -> list[Block]:
        """The executed blocks above the head up to this one, lowest first. Raises: UnknownParent."""
        path: list[Block] = []
        head = self._disk.head.hash
        while block_hash != head:
            block = self.executed.get(block_hash)
            if block is None:
                raise UnknownParent
            path.append(block)
            block_hash = block.header.parent_hash
        return path[::-1]

    def commit(self, block: Block, certificate: Certificate | None) -> None:
        """One synced batch."""
        self._disk.final.append(block)
        if certificate is not None:
            self._disk.certificates[block.header.height] = certificate
        kept: dict[Hash, Block] = {}
        roots = {block.header.hash}
        for block_hash, each in sorted(self.executed.items(), key=lambda item: item[1].header.height):
            if each.header.parent_hash in roots:
                roots.add(block_hash)
                kept[block_hash] = each
        self.executed = kept


def state_root(parent: Header, transactions: tuple[bytes, ...]) -> Hash:
    return Hash(sha256(parent.state_root + b"".join(transactions)))


def make_genesis(members: ValidatorSet, timestamp_ms: int) -> Block:
    header = Header(
        version=HEADER_VERSION,
        genesis_hash=GENESIS_HASH,
        height=Height(0),
        epoch=0,
        view=0,
        parent_hash=ZERO_HASH,
        timestamp_ms=Ms(timestamp_ms),
        proposer=ZERO_ADDRESS,
        gas_used=Gas(0),
        transactions_root=merkle_root(()),
        receipts_root=merkle_root(()),
        state_root=ZERO_HASH,
        evidence_root=NO_EVIDENCE_ROOT,
        validators_hash=members.hash,
        next_validators_hash=members.hash,
    )
    return Block(header, ())


def make_block(
    parent: Header,
    *,
    view: int,
    timestamp_ms: int,
    sets: tuple[ValidatorSet, ValidatorSet],
    epoch_blocks: int,
    transactions: tuple[bytes, ...],
    evidence: tuple[bytes, ...] = (),
) -> Block:
    """The block that stands on the parent; `sets` are those of its epoch and of the next."""
    height = parent.height + 1
    epoch = epoch_of(height, epoch_blocks)
    members, later = sets
    known = later if height >= fixing_height(epoch, epoch_blocks) else members
    header = Header(
        version=HEADER_VERSION,
        genesis_hash=GENESIS_HASH,
        height=Height(height),
        epoch=epoch,
        view=view,
        parent_hash=parent.hash,
        timestamp_ms=Ms(timestamp_ms),
        proposer=members.members[members.leader(epoch, view)].address,
        gas_used=Gas(0),
        transactions_root=merkle_root([keccak(each) for each in transactions]),
        receipts_root=merkle_root(()),
        state_root=state_root(parent, transactions),
        evidence_root=evidence_root(evidence),
        validators_hash=members.hash,
        next_validators_hash=known.hash,
    )
    return Block(header, transactions, evidence)
