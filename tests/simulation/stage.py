"""A cluster that plays a script: messages pass as the test says, and puppets say what it puts in their mouths."""

from collections.abc import Callable, Iterator
from random import Random

from ctt_state.block import Block
from ctt_state.units import ZERO_HASH
from ctt_state.votes import Certificate, Kind, Statement, Vote, sign_vote
from node.consensus.events import Message, Proposal, Received, Status
from tests.simulation.behaviours import Behaviour, Said
from tests.simulation.cluster import Cluster, Machine, member_of, secret_of
from tests.simulation.disk import GENESIS_HASH
from tests.simulation.network import Conditions

DELAY_MS = 5
HEAL_MS_MAX = 5_000  # until the first new final block, whatever happened before


class Puppet(Behaviour):
    """Says nothing by itself."""

    def __init__(self) -> None:
        self.chance = Random(0)

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        return []


class Stage(Cluster):
    """Machines have numbers; `at(place)` is the one in that place of the first set, `leader(view)` whose turn it is."""

    def __init__(
        self, size: int = 4, *, puppets: tuple[int, ...] = (), followers: int = 0, epoch_blocks: int = 900
    ) -> None:
        """`puppets` are places in the first set."""
        self.lets_through: Callable[[int, int, Message], bool] = lambda source, to, message: True
        self.sent: list[tuple[int, int, Message]] = []
        order = sorted(range(size), key=lambda number: member_of(number, 0).consensus_key)
        super().__init__(
            0,
            size=size,
            followers=followers,
            epoch_blocks=epoch_blocks,
            behaviours={order[place]: Puppet() for place in puppets},
            keeps_trace=False,
        )
        self.order = order
        self.network.now = Conditions(delay_ms=(DELAY_MS, DELAY_MS))

    # --- who ------------------------------------------------------------------------------------------------------

    def at(self, place: int) -> Machine:
        return self.machines[self.order[place]]

    def leader(self, view: int, epoch: int = 0) -> Machine:
        address = self.sets(epoch).members[self.sets(epoch).leader(epoch, view)].address
        return next(each for each in self.machines if each.address == address)

    @property
    def honest(self) -> list[Machine]:
        return [each for each in self.machines if each.is_honest]

    @property
    def view(self) -> int:
        """The highest that an honest machine is in."""
        return max(each.engine.view for each in self.honest)

    @property
    def heights(self) -> list[int]:
        return [each.disk.head.height for each in self.honest]

    # --- what -----------------------------------------------------------------------------------------------------

    def play_until(self, condition: Callable[[], bool], within_ms: int) -> None:
        assert self.run_ms(within_ms, condition), "it never came"

    def goes_on(self, blocks: int = 5, within_ms: int = HEAL_MS_MAX) -> None:
        """Everyone who is up finalizes so many more blocks, the first within five seconds; nothing was violated."""
        before = self.checker.height
        self.play_until(lambda: self.checker.height > before, within_ms)
        up = [each for each in self.honest if each.is_up]
        self.play_until(
            lambda: min(each.disk.head.height for each in up) >= before + blocks, HEAL_MS_MAX + 1_000 * blocks
        )
        self.holds()

    def stands(self, for_ms: int) -> None:
        """No block becomes final in this time."""
        before = self.checker.height
        self.run_ms(for_ms)
        assert self.checker.height == before
        self.holds()

    def holds(self) -> None:
        self.checker.finish()
        assert self.checker.violations == []

    def crash_all(self) -> None:
        for machine in self.machines:
            self.crash(machine.number, None)

    def restart_all(self) -> None:
        for machine in self.machines:
            self.restart(machine.number)

    def cut(self, *side: Machine) -> None:
        """These and the others do not hear each other."""
        numbers = {each.number for each in side}
        self.lets_through = lambda source, to, message: (source in numbers) == (to in numbers)

    def join(self) -> None:
        self.lets_through = lambda source, to, message: True

    def silence(self) -> None:
        """Nobody hears anybody."""
        self.lets_through = lambda source, to, message: False

    # --- votes ----------------------------------------------------------------------------------------------------

    def votes_of(self, machine: Machine, view: int, epoch: int = 0) -> set[Statement]:
        """All that this machine ever sent or has in its journal of this view."""
        key = machine.key
        place = self.sets(epoch).place_of_key(key)
        shown = {
            vote.statement
            for source, _, message in self.sent
            for vote in votes_in(message)
            if source == machine.number and vote.signer == place
        }
        said = shown | set(machine.disk.journal(key).votes)
        return {each for each in said if (each.epoch, each.view) == (epoch, view)}

    def kinds_of(self, machine: Machine, view: int, epoch: int = 0) -> set[Kind]:
        return {each.kind for each in self.votes_of(machine, view, epoch)}

    def sign(self, place: int, statement: Statement) -> Vote:
        owner = self.at(place).owner
        return sign_vote(statement, place, secret_of(owner, 0), GENESIS_HASH)

    def certify(self, statement: Statement, *places: int) -> Certificate:
        votes = [self.sign(place, statement) for place in sorted(places)]
        return Certificate(statement, tuple((each.signer, each.signature) for each in votes))

    def say(self, place: int, message: Message, *to: Machine) -> None:
        """A puppet speaks, to everyone if not told to whom."""
        puppet = self.at(place)
        self.show_byzantine(puppet, message)
        for machine in to or self.machines:
            if machine is not puppet:
                self._post(puppet, machine.number, message)

    def deliver(self, machine: Machine, received: Received) -> None:
        """At once, past the network. What a puppet signed counts for quorums."""
        self.show_byzantine(machine, received.message)
        self._happen(machine.number, machine.life, received)

    def block_on(self, parent: Block, view: int, *, transaction: bytes = b"x", delay_ms: int = 333) -> Block:
        """A valid block, as the view's leader could make it."""
        return self.make_block(parent.header, view, parent.header.timestamp_ms + delay_ms, transaction)

    def _post(self, machine: Machine, to: int, message: Message, extra_ms: int = 0) -> None:
        self.sent.append((machine.number, to, message))
        if self.lets_through(machine.number, to, message):
            super()._post(machine, to, message, extra_ms)


def votes_in(message: Message) -> Iterator[Vote]:
    match message:
        case Vote():
            yield message
        case Proposal(vote=vote):
            yield vote


def statement_in(message: Message) -> Statement | None:
    """What a vote, a proposal or a certificate is about; of a status, its finalization."""
    match message:
        case Vote(statement=statement) | Certificate(statement=statement):
            return statement
        case Proposal(vote=vote):
            return vote.statement
        case Status(finalization=Certificate(statement=statement)):
            return statement
    return None


def is_about(message: Message, kind: Kind, view: int) -> bool:
    statement = statement_in(message)
    return statement is not None and (statement.kind, statement.view) == (kind, view)


def notarize(block: Block, view: int, parent_view: int = 0) -> Statement:
    return Statement(Kind.NOTARIZE, 0, view, parent_view, block.header.hash)


def nullify(view: int) -> Statement:
    return Statement(Kind.NULLIFY, 0, view, 0, ZERO_HASH)
