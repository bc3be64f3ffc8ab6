"""Real engines on modelled machines in virtual time: everything that happens follows from one seed.

A machine is an engine, a disk, a queue of storage work and two clocks. It can stop before and after each effect that it
carries out, and between the writing, the syncing and the telling of each thing that goes to the disk.
"""

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import count
from random import Random
from typing import Final, NamedTuple
from unittest.mock import patch

from ctt_state import crypto, votes
from ctt_state.block import Block, Header
from ctt_state.crypto import sha256
from ctt_state.epoch import begin_block
from ctt_state.errors import InvalidBlock
from ctt_state.light import LightRejected, check_body
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Barred, EpochSet, Offence, Record
from ctt_state.succession import VALIDATORS_MIN
from ctt_state.units import ZERO_ADDRESS, Address, Gas, Hash, Ms, Wei
from ctt_state.validators import Member, ValidatorSet, boundary_of, epoch_of, fixing_height
from ctt_state.view import Overlay
from ctt_state.votes import (
    Certificate,
    Evidence,
    InvalidCertificate,
    Kind,
    Vote,
    check_certificate,
    sign_vote,
)
from node.consensus.engine import Engine
from node.consensus.events import (
    Accuse,
    BlockArrived,
    BlockBuilt,
    BlockFinal,
    BlockUnplaced,
    BlockValidated,
    Broadcast,
    Build,
    BuildFailed,
    Cast,
    Effect,
    Event,
    Fetch,
    Finalize,
    GetCertificates,
    Halt,
    Head,
    KeepSilent,
    Message,
    Now,
    Proposal,
    Received,
    Send,
    Status,
    Tick,
    Validate,
    VoteSigned,
)
from node.consensus.settings import Settings
from node.sync import AHEAD_BLOCKS, STALL_MS
from tests.simulation.behaviours import Amnesiac, Behaviour
from tests.simulation.checker import Checker, Sizes
from tests.simulation.damage import agrees, cut_power, flip_bit, read_after
from tests.simulation.disk import (
    GENESIS_HASH,
    Disk,
    Journal,
    Ledger,
    UnknownParent,
    make_block,
    make_genesis,
    state_root,
)
from tests.simulation.network import Network

PERIOD_MS: Final = 333
WALL_MS: Final = 1_800_000_000_000
MONO_MS: Final = 1_000_000
GUARD_MS: Final = 3_000
RANGE_BLOCKS: Final = 128
RANGE_RETRY_MS: Final = 1_000
FETCH_PEERS: Final = 3
CHAIN: Final = ChainParameters(  # what evidence is checked against
    chain_id=1,
    genesis_hash=GENESIS_HASH,
    block_period_ms=Ms(PERIOD_MS),
    epoch_blocks=0,
    is_development=False,
    block_gas_limit=Gas(0),
    minimum_gas_price_wei=Wei(0),
    fee_receiver=None,
    first_admin=ZERO_ADDRESS,
)


@dataclass(frozen=True, slots=True)
class Apply:
    """Final blocks from a peer, and the certificate of the last."""

    blocks: tuple[Block, ...]
    certificate: Certificate


Work = Build | Validate | Cast | Finalize | Apply | KeepSilent


@lru_cache(maxsize=4096)
def secret_of(owner: int, generation: int) -> bytes:
    return sha256(b"consensus key %d %d" % (owner, generation))


@lru_cache(maxsize=4096)
def public_of(secret: bytes) -> bytes:
    return crypto.public_key(secret)


@lru_cache(maxsize=4096)
def member_of(owner: int, generation: int) -> Member:
    """A validator keeps its address when it takes a new consensus key."""
    return Member(crypto.address_of(secret_of(owner, 0)), public_of(secret_of(owner, generation)))


def set_of(owners: dict[int, int]) -> ValidatorSet:
    members = [member_of(owner, generation) for owner, generation in owners.items()]
    return ValidatorSet(tuple(sorted(members, key=lambda each: each.consensus_key)))


@contextmanager
def quick_signatures(are_real: bool = False) -> Iterator[None]:
    """Hashes in place of the curve, a thousand times as fast: nobody in these worlds forges but on purpose."""
    if are_real:
        yield
        return

    def sign(secret: bytes, digest: bytes) -> bytes:
        return hashlib.sha512(public_of(secret) + digest).digest()

    def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        return hashlib.sha512(public_key + digest).digest() == signature

    with patch.object(votes, "sign_compact", sign), patch.object(votes, "verify", verify):
        yield


class State(NamedTuple):
    """The keys that are barred, and who follows in the next epoch once that is fixed."""

    barred: frozenset[bytes] = frozenset()
    following: dict[int, int] | None = None


class Sets:
    """The validators of each epoch, by the machine that owns the key and the key's generation."""

    def __init__(
        self,
        chance: Random,
        size: int,
        spare: list[int],
        fixed: frozenset[int],
        silent: Callable[[], set[int]],
        changes: bool,
    ) -> None:
        """`fixed` leave only when they are barred; no change makes them and the silent ones more than f."""
        self.owners: list[dict[int, int]] = [dict.fromkeys(range(size), 0)]
        self._frozen_from: int | None = None if changes else 0  # from this epoch on they stay as they are
        self._chance, self._spare, self._fixed, self._silent = chance, spare, fixed, silent
        self._sets: list[ValidatorSet] = [set_of(self.owners[0])]
        self._plans: list[dict[int, int]] = []  # who is to follow each epoch's set, if nobody is barred

    def __call__(self, epoch: int) -> ValidatorSet:
        while len(self._sets) <= epoch:
            self.fix(len(self._sets), self.after(len(self._sets) - 1))
        return self._sets[epoch]

    def known(self) -> list[ValidatorSet]:
        """Those that are fixed."""
        return self._sets

    def after(self, epoch: int, barred: frozenset[bytes] = frozenset()) -> dict[int, int]:
        """Who follows this epoch's set when these keys are barred: their owners leave, but at least four stay."""
        while len(self._plans) <= epoch:
            self._plans.append(self._next(self.owners[len(self._plans)]))
        plan = self._plans[epoch]
        guilty = [owner for owner in plan if member_of(owner, plan[owner]).consensus_key in barred]
        leaving = guilty[: max(len(plan) - VALIDATORS_MIN, 0)]
        return {owner: generation for owner, generation in plan.items() if owner not in leaving}

    def fix(self, epoch: int, owners: dict[int, int]) -> None:
        """The first final block that names the set does so for all."""
        if epoch == len(self._sets):
            self.owners.append(owners)
            self._sets.append(set_of(owners))

    def freeze(self) -> None:
        """What is not planned yet stays as it is."""
        self._frozen_from = len(self._plans) + 1

    def coming(self, epoch: int) -> list[dict[int, int]]:
        """From this epoch on, as far as they are known or planned."""
        return [*self.owners[epoch:], *self._plans[len(self.owners) - 1 :]]

    def _next(self, owners: dict[int, int]) -> dict[int, int]:
        after = dict(owners)
        if self._frozen_from is not None and len(self.owners) >= self._frozen_from:
            return after
        change = self._chance.choice(["add", "remove", "rotate", "nothing"])
        movable = [each for each in owners if each not in self._fixed]
        absent = sorted({*range(len(self.owners[0])), *self._spare} - set(owners))
        if change == "add" and absent:
            after[self._chance.choice(absent)] = 0
        elif change == "remove" and len(owners) > VALIDATORS_MIN and movable:
            del after[self._chance.choice(movable)]
        elif change == "rotate" and movable:
            after[self._chance.choice(movable)] += 1
        faulty = (self._fixed | self._silent()).intersection(after)
        return after if len(faulty) <= (len(after) - 1) // 3 else dict(owners)


@dataclass
class Clock:
    """A machine's two clocks. The monotonic one may run up to some percent off, the other may also jump."""

    started_ms: int = 0
    base_ms: int = MONO_MS
    drift: int = 0  # per mille
    offset_ms: int = 0

    def now(self, at_ms: int) -> Now:
        elapsed = at_ms - self.started_ms
        if self.drift:
            elapsed = elapsed * (1000 + self.drift) // 1000
        return Now(self.base_ms + elapsed, Ms(WALL_MS + at_ms + self.offset_ms))

    def when(self, mono_ms: int) -> int:
        """The true time at which the monotonic clock will show this."""
        if not self.drift:
            return self.started_ms + mono_ms - self.base_ms
        return self.started_ms - (self.base_ms - mono_ms) * 1000 // (1000 + self.drift)


@dataclass
class Machine:
    """`owner` is whose keys it has: its own number, or for a twin that of the other. `life` counts starts: what was
    under way before one never arrives."""

    number: int
    owner: int
    disk: Disk
    ledger: Ledger
    clock: Clock
    engine: Engine
    generation: int = 0
    behaviour: Behaviour | None = None
    is_up: bool = False
    is_halted: bool = False
    life: int = 0
    works: deque[Work] = field(default_factory=deque)
    is_working: bool = False
    tick_at: int = -1
    crash_in: int = 0  # effect boundaries until it stops; 0: it does not
    crash_at: str = ""  # and only those of this name count; "": all
    down_ms: int = 0  # for how long then
    heights: dict[int, int] = field(default_factory=dict)
    moved_ms: int = 0  # when its head did, or it started
    asked_range_ms: int = -1_000_000
    fetches: int = 0
    evidence: dict[tuple[int, int], bytes] = field(default_factory=dict)  # by epoch and signer

    @property
    def is_honest(self) -> bool:
        return self.behaviour is None

    @property
    def secret(self) -> bytes:
        return secret_of(self.owner, self.generation)

    @property
    def key(self) -> bytes:
        return public_of(self.secret)

    @property
    def address(self) -> Address:
        return member_of(self.owner, 0).address


class _Stopped(Exception):
    """The machine has just crashed; whatever it was doing ends here."""


class Cluster:
    """Machines `0..size-1` are the first set, `followers` have keys that may join it; then come the twins' doubles."""

    def __init__(
        self,
        seed: int,
        *,
        size: int,
        followers: int = 0,
        epoch_blocks: int = 20,
        behaviours: dict[int, Behaviour] | None = None,
        twins: tuple[int, ...] = (),
        set_changes: bool = False,
        damaged: float = 0.0,
        acts_on_evidence: bool = False,
        engine: type[Engine] = Engine,
        settings: Settings | None = None,
        keeps_trace: bool = True,
    ) -> None:
        self.seed, self.size, self.followers, self.epoch_blocks = seed, size, followers, epoch_blocks
        self.chance = Random(f"{seed} world")
        self.settings = settings or Settings(PERIOD_MS)
        self.at_ms = 0
        self.views = 0
        self.crashes: Counter[str] = Counter()
        self.acts_on_evidence = acts_on_evidence
        self._states: dict[Hash, State] = {}  # of the validators, after each executed block
        self.damages: Counter[str] = Counter()
        self.damaged = damaged  # the share of stops that damage the journal; while it is written, all
        self.work_ms: dict[type[object], tuple[int, int]] = {
            Build: (2, 20),
            Validate: (2, 20),
            Cast: (1, 4),
            Finalize: (1, 5),
            Apply: (1, 5),
            KeepSilent: (1, 4),
        }
        self._engine = engine
        self._unwatchful = type("Unwatchful", (engine,), {"_watch_own": lambda *_: None})
        behaviours = dict(behaviours or {})
        byzantine = self.byzantine = frozenset({*behaviours, *twins})
        spare = list(range(size, size + followers))
        self.sets = Sets(Random(f"{seed} sets"), size, spare, byzantine, self.silent, set_changes)
        self.genesis = make_genesis(self.sets(0), WALL_MS - PERIOD_MS)
        self.checker = Checker(
            self.genesis,
            self.sets,
            epoch_blocks=epoch_blocks,
            period_ms=self.settings.period_ms,
            byzantine=frozenset(member_of(each, 0).consensus_key for each in byzantine),
        )
        self._queue: list[tuple[int, int, int, int, object]] = []
        self._numbers = count()
        self._tops: dict[int, int] = {}
        self._trace = hashlib.sha256() if keeps_trace else None
        self.steps = 0
        owners = [*range(size + followers), *twins]
        self.network = Network(Random(f"{seed} network"), len(owners))
        for twin in twins:
            behaviours[twin] = Behaviour(self.chance)
        self.machines = [self._make_machine(*each, behaviours) for each in enumerate(owners)]
        for machine in self.machines:
            self._start(machine)

    # --- time -----------------------------------------------------------------------------------------------------

    def run_ms(self, milliseconds: int, until: Callable[[], bool] | None = None) -> bool:
        """Lets so much time pass, or less if the condition, looked at after each event, holds earlier. Whether it
        held."""
        end_ms = self.at_ms + milliseconds
        queue = self._queue
        while queue and queue[0][0] <= end_ms:
            at_ms, _, number, life, what = heapq.heappop(queue)
            self.at_ms = max(self.at_ms, at_ms)
            self._happen(number, life, what)
            if until is not None and until():
                return True
        self.at_ms = end_ms
        return False

    def _later(self, machine: Machine, what: object, after_ms: int = 0) -> None:
        """For a machine as it is now: after a crash it never happens."""
        heapq.heappush(
            self._queue, (self.at_ms + after_ms, next(self._numbers), machine.number, machine.life, what)
        )

    def _happen(self, number: int, life: int, what: object) -> None:
        machine = self.machines[number]
        if machine.life != life or not machine.is_up:
            if what == "restart" and not machine.is_up and machine.life == life:
                self._start(machine)
            return
        try:
            match what:
                case "tick":
                    if machine.tick_at == self.at_ms:
                        self._tell(machine, Tick())
                case "work":
                    self._do(machine)
                case "rekey":
                    self._crash(machine, 0)
                case _ if callable(what):
                    what()
                case _:
                    self._tell(machine, what)  # type: ignore[arg-type]
        except _Stopped:
            pass

    # --- machines -------------------------------------------------------------------------------------------------

    def _make_machine(self, number: int, owner: int, behaviours: dict[int, Behaviour]) -> Machine:
        disk = Disk([self.genesis])
        machine = Machine(number, owner, disk, Ledger(disk), Clock(), None)  # type: ignore[arg-type]
        machine.behaviour = behaviours.get(owner)
        return machine

    def _start(self, machine: Machine) -> None:
        disk = machine.disk
        head = disk.head
        epoch = epoch_of(head.height + 1, self.epoch_blocks)
        members = self.sets(epoch)
        machine.generation = self.sets.owners[epoch].get(machine.owner, machine.generation)
        machine.clock.started_ms = self.at_ms
        machine.clock.base_ms = MONO_MS + self.chance.randrange(1000)
        machine.ledger = Ledger(disk)
        machine.works.clear()
        machine.heights.clear()
        machine.evidence.clear()
        machine.is_working, machine.is_up, machine.is_halted = False, True, False
        machine.moved_ms = self.at_ms
        machine.asked_range_ms = -1_000_000
        machine.crash_in = 0
        is_member = members.place_of_key(machine.key) is not None
        if machine.is_honest:
            self.checker.on_restart(machine.number, [each.header.hash for each in disk.final])
        make = self._engine if machine.is_honest else self._unwatchful
        machine.engine = make(
            replace(self.settings, guard_ms=GUARD_MS if disk.is_guarded else 0),
            genesis_hash=GENESIS_HASH,
            epoch_blocks=self.epoch_blocks,
            head=Head(head, head.hash),
            epoch=epoch,
            validators=members,
            consensus_key=machine.key,
            restored=disk.restored(machine.key),
            now=self._now(machine),
        )
        self._note(machine, b"start" if is_member else b"follow")
        machine.tick_at = self.at_ms
        self._later(machine, "tick")

    def crash(self, number: int, down_ms: int | None) -> None:
        """At once; None: for good."""
        with suppress(_Stopped):
            self._crash(self.machines[number], down_ms)

    def arm_crash(self, number: int, boundaries: int, down_ms: int, at: str = "") -> None:
        """When the machine has passed so many more effect boundaries, or so many of this name."""
        machine = self.machines[number]
        if machine.is_up and not machine.is_halted:
            machine.crash_in, machine.down_ms, machine.crash_at = boundaries, down_ms, at

    def restart(self, number: int) -> None:
        machine = self.machines[number]
        if not machine.is_up:
            machine.life += 1
            self._start(machine)

    def restore(self, number: int, backup: Disk) -> None:
        """The machine's disk is lost; it starts again with this one."""
        machine = self.machines[number]
        self.crash(number, None)
        machine.disk = backup
        self.checker.on_restored(number, machine.key, len(backup.final))
        self._start(machine)

    def _crash(self, machine: Machine, down_ms: int | None) -> None:
        if machine.is_up:
            machine.is_up, machine.crash_in = False, 0
            self._lose_unsynced(machine)
            self._note(machine, b"crash")
        machine.life += 1
        if down_ms is not None:
            self._later(machine, "restart", down_ms)
        raise _Stopped

    def _lose_unsynced(self, machine: Machine) -> None:
        """What was written and not synced is lost, torn, or on the disk all the same."""
        journal = machine.disk.journal(machine.key)
        if isinstance(machine.behaviour, Amnesiac):
            journal.forget_votes(self.chance.randrange(1, 8))
        is_writing = journal.unsynced is not None
        if self.damaged and machine.is_honest and (is_writing or self.chance.random() < self.damaged):
            self._damage(machine)
        elif is_writing and self.chance.random() < 0.5:
            self._sync(machine)
        journal.tear()

    def _damage(self, machine: Machine) -> None:
        """The power fails, or a bit of the journal flips. As a file the journal must then be what the model is, or be
        refused if more is wrong with it than that its end is missing. No more than f validators shall be refused."""
        journal, head, chance = machine.disk.journal(machine.key), machine.disk.head, self.chance
        can_spare = self._can_spare(machine)
        flips = can_spare and chance.random() < 0.5
        in_order = not can_spare or chance.random() < 0.5
        damage = flip_bit(chance) if flips else cut_power(chance, in_order=in_order)
        found = read_after(damage, journal, machine.key, head)
        journal.advance(head)
        what = "flipped bit" if flips else "power cut" if journal.unsynced is None else "power cut in a write"
        self.damages[what if found else f"{what}, refused"] += 1
        if found is not None and journal.unsynced is not None and journal.unsynced.vote in found.votes:
            self._sync(machine)
        journal.tear()
        is_right = (not in_order or flips) if found is None else not flips and agrees(found, journal)
        if not is_right:
            self.checker.on_misread(machine.number)
        if found is None:
            self._begin_journal_anew(machine)

    def _begin_journal_anew(self, machine: Machine) -> None:
        """As docs/OPERATIONS.md says: votes from the second epoch on after that which others are in."""
        epoch = max([each.engine.epoch for each in self.machines]) + 2
        machine.disk.journals[machine.key] = Journal.begun_anew(epoch, machine.disk.head.height)

    def silent(self) -> set[int]:
        """Honest machines that cannot vote yet, because their journals were begun anew, or were not in a backup."""
        return {
            each.number
            for each in self.machines
            if each.is_honest
            and (
                each.disk.journal(each.key).first_epoch > each.engine.epoch
                or each.disk.is_guarded
                or each.engine.keeps_silent
            )
        }

    def room(self) -> int:
        """How many more may be faulty now and in each set that is known to come."""
        silent = self.silent()
        first = min([each.engine.epoch for each in self.machines if each.is_honest])
        return min(
            [
                (len(owners) - 1) // 3
                - len(self.byzantine.intersection(owners))
                - len(silent.intersection(owners))
                for owners in self.sets.coming(first)
            ]
        )

    def _can_spare(self, machine: Machine) -> bool:
        return machine.number in self.silent() or self.room() > 0

    def _boundary(self, machine: Machine, name: str) -> None:
        """A place where the machine can stop."""
        if machine.crash_in and machine.crash_at in name:
            machine.crash_in -= 1
            if not machine.crash_in:
                self.crashes[name] += 1
                self._crash(machine, machine.down_ms)

    def _now(self, machine: Machine) -> Now:
        return machine.clock.now(self.at_ms)

    # --- a step of an engine --------------------------------------------------------------------------------------

    def _tell(self, machine: Machine, event: Event) -> None:
        if machine.is_halted:
            return
        engine = machine.engine
        self._note_event(machine, event)
        effects = engine.step(event, self._now(machine))
        self._count_views(machine)
        self.steps += 1
        if self.steps % 64 == 0:
            self._measure(machine)
        for effect in effects:
            if machine.crash_in:
                self._boundary(machine, f"before {type(effect).__name__}")
            self._carry_out(machine, effect)
            if machine.crash_in:
                self._boundary(machine, f"after {type(effect).__name__}")
        due_ms = max(machine.clock.when(engine.deadline_ms), self.at_ms)
        if due_ms != machine.tick_at or due_ms == self.at_ms:
            machine.tick_at = due_ms
            self._later(machine, "tick", due_ms - self.at_ms)

    def _count_views(self, machine: Machine) -> None:
        epoch, view = machine.engine.epoch, machine.engine.view
        known = self._tops.get(epoch, 0)
        if view > known and machine.is_honest:
            self.views += view - known
            self._tops[epoch] = view

    def _measure(self, machine: Machine) -> None:
        engine = machine.engine
        if machine.is_honest:
            sizes = Sizes(
                rounds=len(list(engine._rounds)),
                blocks=len(engine._unfinal._blocks),
                early=len(engine._early),
                seen=len(engine._seen_ms),
                views_open=engine.view - engine.finalized_view,
            )
            self.checker.on_sizes(machine.number, sizes)

    def _carry_out(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Build() | Validate() | Cast() | Finalize() | KeepSilent():
                self._give(machine, effect)
            case Fetch():
                self._fetch(machine, effect)
            case Broadcast(message):
                self._say(machine, message)
                for other in self.machines:
                    if other is not machine:
                        self._send(machine, other.number, message)
            case Send(to, message):
                if isinstance(to, int):
                    self._say(machine, message)
                    self._send(machine, to, message)
            case Accuse(evidence):
                accused = self.sets(evidence.first.statement.epoch).keys[evidence.first.signer]
                if machine.is_honest:
                    self.checker.on_accused(accused)
                    self._keep_evidence(machine, evidence)
            case Halt(reason, _):
                machine.is_halted = True
                if machine.is_honest:
                    self.checker.on_halted(machine.number, reason)
                raise _Stopped

    # --- messages -------------------------------------------------------------------------------------------------

    def _say(self, machine: Machine, message: Message) -> None:
        """Shows the checker what an honest machine tells others."""
        if not machine.is_honest:
            return
        checker, head = self.checker, machine.disk.head
        match message:
            case Vote():
                checker.on_vote(message, head)
            case Certificate():
                checker.on_certificate(message)
            case Proposal(block, vote, parent, nullifications):
                checker.on_block(block.header)
                for certificate in (parent, *nullifications):
                    if certificate is not None:
                        checker.on_certificate(certificate)
                checker.on_vote(vote, head)
            case Status(finalized_height=height, finalized_hash=block_hash, finalization=finalization):
                checker.on_told(machine.number, height, block_hash)
                if finalization is not None:
                    checker.on_certificate(finalization)

    def _send(self, machine: Machine, to: int, message: Message) -> None:
        if machine.behaviour is None:
            self._post(machine, to, message)
            return
        for extra_ms, changed in machine.behaviour.says(self, machine, to, message):
            self.show_byzantine(machine, changed)
            self._post(machine, to, changed, extra_ms)

    def show_byzantine(self, machine: Machine, message: Message) -> None:
        """What a faulty machine sends counts for quorums as well."""
        checker, head = self.checker, machine.disk.head
        match message:
            case Vote(statement=statement) if statement.epoch < len(self.sets.known()):
                checker.on_vote(message, head)
            case Certificate(statement=statement) if statement.epoch < len(self.sets.known()):
                checker.on_certificate(message, is_honest=False)
            case Proposal(block, vote, _, _) if vote.statement.epoch < len(self.sets.known()):
                checker.on_block(block.header)
                checker.on_vote(vote, head)

    def _post(self, machine: Machine, to: int, message: Message, extra_ms: int = 0) -> None:
        other = self.machines[to]
        if not other.is_up or (other.owner == machine.owner and other is machine):
            return
        source = machine.number
        for delay_ms in self.network.delays(source, to, self.at_ms):
            self._later(other, lambda: self._receive(other, source, message), delay_ms + extra_ms)

    def _receive(self, machine: Machine, source: int, message: Message) -> None:
        """Links are authenticated: the receiver knows whose they are. It looks that up in its present set."""
        if isinstance(message, Status):
            self._on_height(machine, source, message.finalized_height)
        address = self.machines[source].address
        signer = machine.engine.validators.place_of_address(address)
        self._tell(machine, Received(message, source, signer, address))

    def _keep_evidence(self, machine: Machine, evidence: Evidence) -> None:
        """For the next block that this machine makes. What is new here is told to all once."""
        offender = evidence.first.statement.epoch, evidence.first.signer
        if not self.acts_on_evidence or offender in machine.evidence:
            return
        machine.evidence[offender] = evidence.encode()
        for other in self.machines:
            if other is not machine and other.is_honest and other.is_up:
                for delay_ms in self.network.delays(machine.number, other.number, self.at_ms):
                    self._later(other, partial(self._keep_evidence, other, evidence), delay_ms)

    # --- storage --------------------------------------------------------------------------------------------------

    def _give(self, machine: Machine, work: Work) -> None:
        machine.works.append(work)
        if not machine.is_working:
            self._next_work(machine)

    def _next_work(self, machine: Machine) -> None:
        machine.is_working = bool(machine.works)
        if machine.works:
            low, high = self.work_ms[type(machine.works[0])]
            self._later(machine, "work", low + int(self.chance.random() * (high - low + 1)))

    def _do(self, machine: Machine) -> None:
        work = machine.works.popleft()
        match work:
            case Build():
                event = self._build(machine, work)
                self._boundary(machine, "built")
                self._later(machine, event)
            case Validate(block):
                event = self._validate(machine, block)
                self._boundary(machine, "validated")
                self._later(machine, event)
            case Cast():
                self._cast(machine, work)
            case Finalize(block_hash, certificate):
                try:
                    path = machine.ledger.path_to(block_hash)
                except UnknownParent:
                    path = []  # catching up was faster
                for block in path:
                    self._commit(machine, block, certificate if block is path[-1] else None)
            case Apply(blocks, certificate):
                self._apply(machine, blocks, certificate)
            case KeepSilent(epoch, view):
                self._boundary(machine, "before silence")
                machine.disk.journal(machine.key).silent_through = epoch, view
                self._boundary(machine, "after silence")
                machine.disk.is_guarded = False
        self._next_work(machine)

    def _state_after(self, parent: Header, evidence: tuple[bytes, ...]) -> State:
        """What a block makes of the validators. Raises: InvalidBlock for evidence that is none or of no use."""
        height = parent.height + 1
        epoch = epoch_of(height, self.epoch_blocks)
        barred, following = self._states.get(parent.hash, State())
        if evidence:
            records: dict[bytes, Record] = {Barred.key(key): Barred(0) for key in barred}
            records |= {
                EpochSet.key(each): EpochSet(known.members) for each, known in enumerate(self.sets.known())
            }
            overlay = Overlay(records.get)
            begin_block(overlay, evidence, height, CHAIN)
            barred |= {each.consensus_key for each in overlay.changes.values() if isinstance(each, Offence)}
        fixing = fixing_height(epoch, self.epoch_blocks)
        if height < fixing:
            return State(barred)
        if height == fixing or following is None:
            following = self.sets.after(epoch, barred)
        return State(barred, following)

    def _build(self, machine: Machine, build: Build) -> Event:
        try:
            parent = machine.ledger.parent(build.parent_hash)
        except UnknownParent:
            return BuildFailed(build.epoch, build.view)
        evidence = self._evidence_for(machine, parent)
        block = self.make_block(parent, build.view, build.timestamp_ms, b"%d" % machine.number, evidence)
        machine.ledger.executed[block.header.hash] = block
        return BlockBuilt(block)

    def _evidence_for(self, machine: Machine, parent: Header) -> tuple[bytes, ...]:
        """Of what the machine has that which can still bar a key."""
        taken: tuple[bytes, ...] = ()
        for piece in machine.evidence.values():
            with suppress(InvalidBlock):
                self._state_after(parent, (*taken, piece))
                taken = (*taken, piece)
        return taken

    def make_block(
        self,
        parent: Header,
        view: int,
        timestamp_ms: int,
        transaction: bytes,
        evidence: tuple[bytes, ...] = (),
    ) -> Block:
        """Raises: InvalidBlock."""
        epoch = epoch_of(parent.height + 1, self.epoch_blocks)
        state, members = self._state_after(parent, evidence), self.sets(epoch)
        block = make_block(
            parent,
            view=view,
            timestamp_ms=timestamp_ms,
            sets=(members, members if state.following is None else set_of(state.following)),
            epoch_blocks=self.epoch_blocks,
            transactions=(transaction,),
            evidence=evidence,
        )
        self._states[block.header.hash] = state
        return block

    def _validate(self, machine: Machine, block: Block) -> Event:
        block_hash = block.header.hash
        try:
            fault = self._execute(machine, block)
        except UnknownParent:
            return BlockUnplaced(block_hash)
        return BlockValidated(block_hash, fault)

    def _execute(self, machine: Machine, block: Block) -> str | None:
        """Why the block is invalid, or None. Raises: UnknownParent."""
        header = block.header
        parent = machine.ledger.parent(header.parent_hash)
        try:
            expected = self.make_block(parent, header.view, header.timestamp_ms, b"", block.evidence).header
        except InvalidBlock as fault:
            return str(fault)
        if header.state_root != state_root(parent, block.transactions):
            return "state root differs"
        for name in ("epoch", "height", "validators_hash", "next_validators_hash", "proposer"):
            if getattr(header, name) != getattr(expected, name):
                return f"{name} differs"
        try:
            check_body(block)
        except LightRejected as fault:
            return str(fault)
        machine.ledger.executed[header.hash] = block
        self._states[header.hash] = self._states[expected.hash]
        return None

    def _cast(self, machine: Machine, cast: Cast) -> None:
        """Guard, write, sync, sign, tell: the machine can stop between any two."""
        engine, journal = machine.engine, machine.disk.journal(machine.key)
        if cast.statement.epoch != engine.epoch:
            return  # the epoch ended before its vote's turn
        if engine.me is None:
            raise AssertionError("a follower votes")
        vote = journal.held(cast.statement)
        if vote is None:
            if (cast.statement.epoch, cast.statement.view) <= max(journal.floor, journal.silent_through):
                return  # the block became final before its vote's turn
            refusal = journal.refusal(cast.statement)
            if refusal is not None and machine.is_honest:
                self.checker.on_refused(machine.number, refusal)
            vote = sign_vote(cast.statement, engine.me, machine.secret, GENESIS_HASH)
            self._boundary(machine, "before append")
            journal.write(vote, cast.reliance, cast.block)
            self._boundary(machine, "before sync")
            self._sync(machine)
            self._boundary(machine, "before signed")
        self._later(machine, VoteSigned(vote))

    def _sync(self, machine: Machine) -> None:
        step = machine.disk.journal(machine.key).sync()
        if machine.is_honest:
            self.checker.on_synced(machine.key, step)

    def _apply(self, machine: Machine, blocks: tuple[Block, ...], certificate: Certificate) -> None:
        for block in blocks:
            if block.header.height != machine.disk.head.height + 1:
                continue  # consensus was faster
            try:
                fault = self._execute(machine, block)
            except UnknownParent:
                return
            if fault is not None:
                raise AssertionError(f"block {block.header.height} is final and invalid: {fault}")
            self._commit(machine, block, certificate if block is blocks[-1] else None)
        self._later(machine, Received(certificate, None, None))
        machine.asked_range_ms = -1_000_000

    def _commit(self, machine: Machine, block: Block, certificate: Certificate | None) -> None:
        header = block.header
        self._boundary(machine, "before final block")
        machine.ledger.commit(block, certificate)
        machine.moved_ms = self.at_ms
        following = self._states[header.hash].following
        if following is not None:
            self.sets.fix(header.epoch + 1, following)
        if machine.is_honest:
            self.checker.on_final(machine.number, block, certificate)
        self._boundary(machine, "after final block")
        is_boundary = header.height == boundary_of(header.epoch, self.epoch_blocks)
        next_set = self.sets(header.epoch + 1) if is_boundary else None
        self._later(machine, BlockFinal(Head(header, header.hash), next_set))
        machine.disk.journal(machine.key).advance(header)
        self._boundary(machine, "after prune")
        if next_set is not None:
            owners = self.sets.owners[header.epoch + 1]
            if owners.get(machine.owner, machine.generation) != machine.generation:
                self._later(machine, "rekey", self.chance.choice([0, 1, 300, 2000]))

    # --- getting blocks -------------------------------------------------------------------------------------------

    def _fetch(self, machine: Machine, fetch: Fetch) -> None:
        """Asks three others, those first that should have it; the engine asks again while it needs the block."""
        members = self.sets(machine.engine.epoch).members
        addresses = {members[each].address for each in fetch.holders if each < len(members)}
        others = [each for each in self.machines if each is not machine]
        self.chance.shuffle(others)
        others.sort(key=lambda each: each.address not in addresses)
        machine.fetches += 1
        if machine.fetches % 2 == 0:
            self.chance.shuffle(others)
        for other in others[:FETCH_PEERS]:
            self._ask(machine, other, lambda peer: self._give_block(machine, peer, fetch.block_hash))

    def _ask(self, machine: Machine, other: Machine, answer: Callable[[Machine], None]) -> None:
        if other.is_up:
            for delay_ms in self.network.delays(machine.number, other.number, self.at_ms)[:1]:
                self._later(other, lambda: answer(other), delay_ms)

    def _reply(self, peer: Machine, machine: Machine, what: Callable[[], None]) -> None:
        if machine.is_up:
            for delay_ms in self.network.delays(peer.number, machine.number, self.at_ms)[:1]:
                self._later(machine, what, delay_ms)

    def _give_block(self, machine: Machine, peer: Machine, block_hash: Hash) -> None:
        held = peer.ledger.executed.get(block_hash) or peer.engine.block(block_hash)
        if held is None:
            held = next((each for each in peer.disk.final[-200:] if each.header.hash == block_hash), None)
        if held is not None:
            block = held
            self._reply(peer, machine, lambda: self._tell(machine, BlockArrived(block)))

    def _on_height(self, machine: Machine, source: int, height: int) -> None:
        """Catching up: ranges of final blocks from a peer that is further than consensus explains."""
        machine.heights[source] = height
        head = machine.disk.head.height
        least = head if self.at_ms >= machine.moved_ms + STALL_MS else head + AHEAD_BLOCKS
        ahead = [each for each, known in sorted(machine.heights.items()) if known > least]
        if ahead and self.at_ms >= machine.asked_range_ms + RANGE_RETRY_MS:
            machine.asked_range_ms = self.at_ms
            peer = self.machines[self.chance.choice(ahead)]
            self._ask(machine, peer, lambda other: self._give_range(machine, other, head + 1))

    def _give_range(self, machine: Machine, peer: Machine, first: int) -> None:
        held = peer.disk.certificates
        last = max((each for each in held if first <= each < first + RANGE_BLOCKS), default=0)
        if last:
            blocks, certificate = tuple(peer.disk.final[first : last + 1]), held[last]
            self._reply(peer, machine, lambda: self._on_range(machine, blocks, certificate))

    def _on_range(self, machine: Machine, blocks: tuple[Block, ...], certificate: Certificate) -> None:
        statement, last = certificate.statement, blocks[-1].header
        try:
            check_certificate(certificate, self.sets(statement.epoch).keys, GENESIS_HASH)
        except InvalidCertificate:
            return
        if statement.kind is Kind.FINALIZE and statement.block_hash == last.hash:
            self._give(machine, Apply(blocks, certificate))

    # --- trace ----------------------------------------------------------------------------------------------------

    @property
    def trace_hash(self) -> str:
        return "" if self._trace is None else self._trace.hexdigest()

    def _note(self, machine: Machine, what: bytes) -> None:
        if self._trace is not None:
            self._trace.update(b"%d %d " % (self.at_ms, machine.number) + what)

    def _note_event(self, machine: Machine, event: Event) -> None:
        if self._trace is None:
            return
        what = type(event).__name__
        match event:
            case Received(message, source, signer, _):
                what = f"{source} {signer} {_place(message)}"
            case VoteSigned(vote):
                what = f"signed {_place(vote)}"
            case BlockFinal(head, _):
                what = f"final {head.header.height} {head.block_hash.hex()}"
            case BlockBuilt(block) | BlockArrived(block):
                what = f"{what} {block.header.hash.hex()}"
        self._note(machine, f"{what} {machine.engine.epoch} {machine.engine.view}".encode())


def _place(message: Message) -> str:
    match message:
        case Vote(statement, signer, _):
            return f"{statement.kind} {statement.epoch} {statement.view} {signer} {statement.block_hash!r}"
        case Certificate(statement, _):
            return f"{statement.kind} {statement.epoch} {statement.view} {statement.block_hash!r}"
        case Proposal(_, vote, _, _):
            return _place(vote)
        case Status(epoch, view, height, _, _):
            return f"{epoch} {view} {height}"
        case GetCertificates(epoch, from_view, to_view):
            return f"{epoch} {from_view} {to_view}"
