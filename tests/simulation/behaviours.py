"""Validators that break the rules: what they say in place of what their engine says.

Each stands on a machine whose engine follows the protocol, so that it stays in the middle of things; only what leaves
the machine is changed. None can sign for others.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Final

from ctt_state.block import Block
from ctt_state.crypto import sha256
from ctt_state.units import ZERO_HASH, Hash, Height, Ms
from ctt_state.validators import boundary_of, epoch_of
from ctt_state.votes import Certificate, Kind, Statement, Vote, sign_vote
from node.consensus.events import GetCertificates, Message, Proposal, Status
from tests.simulation.disk import GENESIS_HASH, UnknownParent

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Machine

Said = list[tuple[int, Message]]  # after how many ms, what
FAR: Final = 1 << 40


class Behaviour:
    """Follows the rules on a machine that is not trusted: one of a pair of twins."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        """What this machine sends to that one in place of the message."""
        return [(0, message)]


class Amnesiac(Behaviour):
    """Follows the rules on a disk that lies: when it stops, its last votes are gone though they were synced."""


class EquivocatingLeader(Behaviour):
    """Proposes one block to some, another to the rest, and both to a few."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal) or message.block.header.view != message.vote.statement.view:
            return [(0, message)]
        header = message.block.header
        try:
            parent = machine.ledger.parent(header.parent_hash)
        except UnknownParent:
            return [(0, message)]
        other = world.make_block(parent, header.view, header.timestamp_ms, b"other")
        second = _with_block(machine, message, other)
        if self.chance.random() < 0.1:
            return [(0, message), (self.chance.randrange(300), second)]
        return [(0, second if to % 2 else message)]


class EquivocatingVoter(Behaviour):
    """Notarizes and finalizes the block of the view to some, what is no block to others."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Vote) or message.statement.kind is Kind.NULLIFY:
            return [(0, message)]
        statement = message.statement
        second = statement._replace(block_hash=Hash(sha256(statement.block_hash)))
        if statement.parent_view and self.chance.random() < 0.5:
            second = statement._replace(parent_view=statement.parent_view - 1)
        both: Said = [(0, message), (0, _sign(machine, second, message.signer))]
        return both if self.chance.random() < 0.2 else [both[to % 2]]


class NullifyAndFinalize(Behaviour):
    """Gives up each view that it finalizes, and finalizes each that it gives up."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Vote):
            return [(0, message)]
        said, statement = [(0, message)], message.statement
        if statement.kind is not Kind.NULLIFY:
            given_up = Statement(Kind.NULLIFY, statement.epoch, statement.view, 0, ZERO_HASH)
            said.append((0, _sign(machine, given_up, message.signer)))
        if statement.kind is not Kind.FINALIZE:
            current = machine.engine._rounds.get(statement.view)
            if current is not None and current.proposal is not None:
                final = current.proposal.vote.statement._replace(kind=Kind.FINALIZE)
                said.append((0, _sign(machine, final, message.signer)))
        return [*said]


class Withholder(Behaviour):
    """Shows its votes and proposals to nobody, or to half of the others."""

    def __init__(self, chance: Random) -> None:
        super().__init__(chance)
        self.modulus = chance.choice([1, 2, 3])

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        is_kept = isinstance(message, Vote | Proposal) and to % self.modulus == 0
        return [] if is_kept else [(0, message)]


class CertificateWithholder(Behaviour):
    """Votes, and keeps to itself what the votes lead to."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        match message:
            case Certificate():
                return []
            case Status(epoch, view, height, block_hash, _):
                return [(0, Status(epoch, view, height, block_hash, None))]
            case _:
                return [(0, message)]


class LateProposer(Behaviour):
    """Proposes near the end of its view, at other times to each."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        late_ms = self.chance.choice([100, 300, 500, 700, 1_200, 4_000])
        return [(late_ms if isinstance(message, Proposal) else 0, message)]


class InvalidRoot(Behaviour):
    """Proposes blocks whose state root is wrong."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal):
            return [(0, message)]
        block = message.block
        header = block.header._replace(state_root=Hash(sha256(block.header.state_root)))
        return [(0, _with_block(machine, message, block._replace(header=header)))]


class StaleParent(Behaviour):
    """Proposes on the final head, as if what was notarized since did not exist."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal):
            return [(0, message)]
        statement, head = message.vote.statement, machine.disk.head
        parent_view = head.view if head.epoch == statement.epoch else 0
        if epoch_of(head.height + 1, world.epoch_blocks) != statement.epoch:
            return [(0, message)]
        timestamp_ms = head.timestamp_ms + world.settings.period_ms
        block = world.make_block(head, statement.view, timestamp_ms, b"stale")
        vote = message.vote._replace(statement=statement._replace(parent_view=parent_view))
        final = machine.disk.certificates.get(head.height)
        return [(0, _with_block(machine, Proposal(block, vote, final, message.nullifications), block))]


class PastTheEnd(Behaviour):
    """Proposes a child of the epoch's last block in the same epoch."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal):
            return [(0, message)]
        header, statement = message.block.header, message.vote.statement
        if header.height != boundary_of(statement.epoch, world.epoch_blocks) or header.view == statement.view:
            return [(0, message)]
        after = world.make_block(header, statement.view, header.timestamp_ms + 333, b"past").header
        beyond = after._replace(epoch=statement.epoch)
        return [(0, _with_block(machine, message, Block(beyond, (b"past",))))]


class OutOfTurn(Behaviour):
    """Proposes a block in each view, whoever leads it."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Vote) or message.statement.kind is not Kind.NOTARIZE:
            return [(0, message)]
        voted = machine.engine.block(message.statement.block_hash)
        if voted is None:
            return [(0, message)]
        header = voted.header._replace(state_root=Hash(sha256(voted.header.state_root)))
        mine = Proposal(voted, message, None, ())
        block = Block(header, voted.transactions)
        return [(0, _with_block(machine, mine, block)), (0, mine), (0, message)]


class TimeLiar(Behaviour):
    """Proposes blocks that bear times too early, or far ahead."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal) or message.block.header.view != message.vote.statement.view:
            return [(0, message)]
        off_ms = (-1, 600, 700, 600_000)[message.vote.statement.view % 4]
        header = message.block.header
        header = header._replace(timestamp_ms=Ms(header.timestamp_ms + off_ms))
        return [(0, _with_block(machine, message, message.block._replace(header=header)))]


class WrongBody(Behaviour):
    """Sends good headers with transactions that are not theirs."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal):
            return [(0, message)]
        body = message.block._replace(transactions=(b"not in the root",))
        wrong = Proposal(body, message.vote, message.parent, message.nullifications)
        return [(0, wrong)] if to % 2 else [(0, wrong), (self.chance.randrange(200), message)]


class BadCertificate(Behaviour):
    """Sends certificates with too few, doubled, foreign or forged signatures, alone and in proposals."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        match message:
            case Certificate():
                return [(0, self._spoil(message)), (0, message)]
            case Proposal(block, vote, parent, nullifications) if parent is not None:
                spoiled = tuple(self._spoil(each) for each in nullifications)
                return [(0, Proposal(block, vote, self._spoil(parent), spoiled)), (1, message)]
            case _:
                return [(0, message)]

    def _spoil(self, certificate: Certificate) -> Certificate:
        statement, signatures = certificate
        first = signatures[0]
        match self.chance.randrange(6):
            case 0:
                return Certificate(statement, signatures[:-1])
            case 1:
                return Certificate(statement, (first,) * len(signatures))
            case 2:
                return Certificate(statement, ((first[0], bytes(64)), *signatures[1:]))
            case 3:
                return Certificate(statement._replace(view=statement.view + 1), signatures)
            case 4:
                return Certificate(statement, (*signatures, (99, first[1])))
            case _:
                return Certificate(statement, signatures[::-1])


class Replayer(Behaviour):
    """Says again what it said before."""

    def __init__(self, chance: Random) -> None:
        super().__init__(chance)
        self.said: deque[Message] = deque(maxlen=500)

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        self.said.append(message)
        again = [self.chance.choice(self.said) for _ in range(self.chance.choice([0, 0, 1, 3]))]
        return [(0, message), *[(self.chance.randrange(2_000), each) for each in again]]


class FutureFlooder(Behaviour):
    """Votes and proposes for views and epochs to come, and tells of heights that are not."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        said: Said = [(0, message)]
        place, engine = machine.engine.me, machine.engine
        if place is None or self.chance.random() > 0.2:
            return said
        view = engine.view + self.chance.choice([1, 2, 5, 9, 10, 11, 100, FAR])
        epoch = engine.epoch + self.chance.choice([0, 0, 0, 1, 2])
        block_hash = Hash(sha256(b"%d" % self.chance.randrange(1 << 30)))
        for kind in Kind:
            named = (0, ZERO_HASH) if kind is Kind.NULLIFY else (view - 1, block_hash)
            said.append((0, _sign(machine, Statement(kind, epoch, view, *named), place)))
        said.append((0, Status(epoch, view, Height(FAR), block_hash, None)))
        said.append((0, GetCertificates(engine.epoch, 0, FAR)))
        if isinstance(message, Proposal):
            header = message.block.header._replace(view=view)
            statement = message.vote.statement._replace(view=view)
            ahead = Proposal(message.block, message.vote._replace(statement=statement), message.parent, ())
            said.append((0, _with_block(machine, ahead, Block(header, message.block.transactions))))
        return said


class StaleSetVoter(Behaviour):
    """Votes also as if the epoch were another, and from the places that it had or will have there."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        said: Said = [(0, message)]
        if isinstance(message, Vote):
            epoch = max(message.statement.epoch + self.chance.choice([-1, 1]), 0)
            statement = message.statement._replace(epoch=epoch)
            said.append((0, _sign(machine, statement, message.signer)))
            said.append((0, _sign(machine, message.statement, (message.signer + 1) % world.size)))
        return said


ALL: Final[tuple[type[Behaviour], ...]] = (
    EquivocatingLeader,
    EquivocatingVoter,
    NullifyAndFinalize,
    Withholder,
    CertificateWithholder,
    LateProposer,
    InvalidRoot,
    StaleParent,
    PastTheEnd,
    OutOfTurn,
    TimeLiar,
    WrongBody,
    BadCertificate,
    Replayer,
    FutureFlooder,
    StaleSetVoter,
)


def _sign(machine: Machine, statement: Statement, signer: int) -> Vote:
    return sign_vote(statement, signer, machine.secret, GENESIS_HASH)


def _with_block(machine: Machine, proposal: Proposal, block: Block) -> Proposal:
    """The proposal with another block, and the vote for that."""
    statement = proposal.vote.statement._replace(block_hash=block.header.hash)
    vote = _sign(machine, statement, proposal.vote.signer)
    return Proposal(block, vote, proposal.parent, proposal.nullifications)
