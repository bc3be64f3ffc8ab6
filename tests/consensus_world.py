"""A set of engines in virtual time, joined by a network that can be cut: for tests that read as conversations."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from ctt_state.block import HEADER_VERSION, NO_EVIDENCE_ROOT, Block, Header, merkle_root
from ctt_state.crypto import address_of, public_key, sha256
from ctt_state.units import ZERO_ADDRESS, ZERO_HASH, Gas, Hash, Height, Ms
from ctt_state.validators import Member, ValidatorSet, boundary_of, epoch_of
from ctt_state.votes import Certificate, Vote, sign_vote
from node.consensus.engine import Engine
from node.consensus.events import (
    Accuse,
    BlockArrived,
    BlockBuilt,
    BlockFinal,
    BlockValidated,
    Broadcast,
    Build,
    Cast,
    Effect,
    Event,
    Fetch,
    Finalize,
    Halt,
    Head,
    Message,
    Now,
    Received,
    Restored,
    Send,
    Tick,
    Validate,
    VoteSigned,
)
from node.consensus.settings import Settings

GENESIS_HASH = Hash(sha256(b"a network of engines"))
EPOCH_BLOCKS = 900
START_MS = 1_000_000
WALL_MS = 1_800_000_000_000
PERIOD_MS = 333


def make_secret(number: int) -> bytes:
    return sha256(b"consensus key %d" % number)


def make_set(size: int) -> tuple[ValidatorSet, list[bytes]]:
    """The set, and the secret keys in its order."""
    secrets = sorted((make_secret(number) for number in range(size)), key=public_key)
    return ValidatorSet(tuple(Member(address_of(each), public_key(each)) for each in secrets)), secrets


def make_header(
    parent: Head | None, *, members: ValidatorSet, epoch: int, view: int, timestamp_ms: int
) -> Header:
    """An empty block's header; its state root follows from where it stands."""
    height = parent.header.height + 1 if parent else 0
    parent_hash = parent.block_hash if parent else ZERO_HASH
    leader = members.members[members.leader(epoch, view)].address if height else ZERO_ADDRESS
    return Header(
        version=HEADER_VERSION,
        genesis_hash=GENESIS_HASH,
        height=Height(height),
        epoch=epoch,
        view=view,
        parent_hash=parent_hash,
        timestamp_ms=Ms(timestamp_ms),
        proposer=leader,
        gas_used=Gas(0),
        transactions_root=merkle_root(()),
        receipts_root=merkle_root(()),
        state_root=Hash(sha256(parent_hash + timestamp_ms.to_bytes(8, "big"))),
        evidence_root=NO_EVIDENCE_ROOT,
        validators_hash=members.hash,
        next_validators_hash=members.hash,
    )


@dataclass
class Machine:
    """An engine with the disk it would have. `final` is the chain, lowest first."""

    number: int
    secret: bytes | None
    final: list[Block]
    engine: Engine
    executed: dict[Hash, Block] = field(default_factory=dict)
    journal: list[Vote | Certificate | Block] = field(default_factory=list)
    finalizations: dict[Hash, Certificate] = field(default_factory=dict)
    halted: str | None = None
    accused: list[Accuse] = field(default_factory=list)
    is_up: bool = True
    life: int = 0  # counts restarts: what was under way before one never arrives


class World:
    """Machines `0..n-1` are the set in order; `followers` more have no key."""

    def __init__(
        self,
        size: int,
        *,
        followers: int = 0,
        epoch_blocks: int = EPOCH_BLOCKS,
        delay_ms: int = 5,
        execute_ms: int = 5,
    ) -> None:
        self.members, secrets = make_set(size)
        self.epoch_blocks, self.delay_ms, self.execute_ms = epoch_blocks, delay_ms, execute_ms
        self.now_ms = START_MS
        self.settings = Settings(PERIOD_MS)
        self.sent: list[tuple[int, int, Message]] = []
        self.lets_through: Callable[[int, int, Message], bool] = lambda source, to, message: True
        self.wall_offsets_ms: dict[int, int] = {}
        self._queue: list[tuple[int, int, int, int, Event]] = []
        self._numbers = count()
        header = make_header(None, members=self.members, epoch=0, view=0, timestamp_ms=WALL_MS - PERIOD_MS)
        self.genesis = Block(header, ())
        keys: list[bytes | None] = [*secrets, *[None] * followers]
        self.machines = [
            Machine(
                number,
                secret,
                [self.genesis],
                self._make_engine(number, secret, [self.genesis], Restored((), (), ())),
            )
            for number, secret in enumerate(keys)
        ]

    def now(self, number: int) -> Now:
        return Now(self.now_ms, Ms(WALL_MS + self.now_ms - START_MS + self.wall_offsets_ms.get(number, 0)))

    def run_ms(self, milliseconds: int) -> None:
        """Lets so much time pass."""
        end_ms = self.now_ms + milliseconds
        while True:
            up = [each for each in self.machines if each.is_up and each.halted is None]
            due_ms, machine = min(
                ((each.engine.deadline_ms, each.number) for each in up), default=(end_ms + 1, 0)
            )
            if self._queue and self._queue[0][0] <= due_ms:
                at_ms, _, number, life, event = heapq.heappop(self._queue)
            else:
                at_ms, number, life, event = due_ms, machine, self.machines[machine].life, Tick()
            if at_ms > end_ms:
                if not isinstance(event, Tick):
                    self._put(at_ms, number, event, life)
                break
            self.now_ms = max(self.now_ms, at_ms)
            self.tell(number, event, life)
        self.now_ms = end_ms

    def tell(self, number: int, event: Event, life: int | None = None) -> None:
        machine = self.machines[number]
        if not machine.is_up or machine.halted or (life is not None and life != machine.life):
            return
        for effect in machine.engine.step(event, self.now(number)):
            self._carry_out(machine, effect)

    def crash(self, number: int) -> None:
        machine = self.machines[number]
        machine.is_up = False
        machine.life += 1
        machine.executed = {}

    def restart(self, number: int) -> None:
        machine = self.machines[number]
        head = machine.final[-1].header
        floor = (head.epoch, head.view)
        restored = Restored(
            tuple(
                each
                for each in machine.journal
                if isinstance(each, Vote) and (each.statement.epoch, each.statement.view) > floor
            ),
            (
                *(
                    each
                    for each in machine.journal
                    if isinstance(each, Certificate) and (each.statement.epoch, each.statement.view) > floor
                ),
                *(each for each in [machine.finalizations.get(machine.final[-1].header.hash)] if each),
            ),
            tuple(
                each
                for each in machine.journal
                if isinstance(each, Block) and each.header.height > head.height
            ),
            floor,
        )
        machine.engine = self._make_engine(number, machine.secret, machine.final, restored)
        machine.is_up = True

    def heights(self) -> list[int]:
        return [machine.final[-1].header.height for machine in self.machines]

    def is_one_chain(self) -> bool:
        chains = sorted(
            ([block.header.hash for block in machine.final] for machine in self.machines), key=len
        )
        return all(chains[-1][: len(chain)] == chain for chain in chains)

    def _make_engine(
        self, number: int, secret: bytes | None, final: list[Block], restored: Restored
    ) -> Engine:
        header = final[-1].header
        return Engine(
            self.settings,
            genesis_hash=GENESIS_HASH,
            epoch_blocks=self.epoch_blocks,
            head=Head(header, header.hash),
            epoch=epoch_of(header.height + 1, self.epoch_blocks),
            validators=self.members,
            consensus_key=public_key(secret) if secret else None,
            restored=restored,
            now=self.now(number),
        )

    def _put(self, at_ms: int, number: int, event: Event, life: int) -> None:
        heapq.heappush(self._queue, (at_ms, next(self._numbers), number, life, event))

    def _later(self, machine: Machine, event: Event, after_ms: int = 0) -> None:
        self._put(self.now_ms + after_ms, machine.number, event, machine.life)

    def _carry_out(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Build(epoch, view, parent_hash, timestamp_ms):
                header = make_header(
                    self._place(machine, parent_hash),
                    members=self.members,
                    epoch=epoch,
                    view=view,
                    timestamp_ms=timestamp_ms,
                )
                machine.executed[header.hash] = Block(header, ())
                self._later(machine, BlockBuilt(Block(header, ())), self.execute_ms)
            case Validate(block):
                self._place(machine, block.header.parent_hash)
                machine.executed[block.header.hash] = block
                expected = sha256(block.header.parent_hash + block.header.timestamp_ms.to_bytes(8, "big"))
                fault = None if block.header.state_root == expected else "state root differs"
                self._later(machine, BlockValidated(block.header.hash, fault), self.execute_ms)
            case Cast(statement, reliance, block):
                if machine.secret is None:
                    raise AssertionError("a follower votes")
                vote = sign_vote(statement, machine.number, machine.secret, GENESIS_HASH)
                machine.journal.extend([*reliance, *([block] if block else []), vote])
                self._later(machine, VoteSigned(vote), 1)
            case Finalize(block_hash, certificate):
                machine.finalizations[block_hash] = certificate
                self._commit(machine, block_hash)
            case Fetch(block_hash, _, _):
                for other in self.machines:
                    held = {**other.executed, **{each.header.hash: each for each in other.final}}.get(
                        block_hash
                    )
                    if held and other.is_up and self.lets_through(other.number, machine.number, Vote):  # type: ignore[arg-type]
                        self._later(machine, BlockArrived(held), 2 * self.delay_ms)
            case Broadcast(message):
                for other in self.machines:
                    if other is not machine:
                        self._send(machine, other.number, message)
            case Send(to, message):
                self._send(machine, to, message)  # type: ignore[arg-type]
            case Accuse():
                machine.accused.append(effect)
            case Halt(reason, _):
                machine.halted = reason

    def _send(self, machine: Machine, to: int, message: Message) -> None:
        self.sent.append((machine.number, to, message))
        other = self.machines[to]
        if other.is_up and self.lets_through(machine.number, to, message):
            signer = machine.number if machine.secret else None
            self._put(self.now_ms + self.delay_ms, to, Received(message, machine.number, signer), other.life)

    def _place(self, machine: Machine, block_hash: Hash) -> Head:
        held = machine.executed.get(block_hash) or machine.final[-1]
        if held.header.hash != block_hash:
            raise AssertionError("executes on a block that is neither the head nor executed")
        return Head(held.header, block_hash)

    def _commit(self, machine: Machine, block_hash: Hash) -> None:
        path = []
        while block_hash != machine.final[-1].header.hash:
            path.append(machine.executed[block_hash])
            block_hash = machine.executed[block_hash].header.parent_hash
        for block in reversed(path):
            machine.final.append(block)
            header = block.header
            is_boundary = header.height == boundary_of(header.epoch, self.epoch_blocks)
            self._later(machine, BlockFinal(Head(header, header.hash), self.members if is_boundary else None))
