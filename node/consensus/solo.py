"""Consensus as a function of events and time: `step(event, now) -> effects` (docs/PROTOCOL.md, C-3).

The engine never waits, reads no clock and touches no disk or network. Whoever runs it carries out the effects in
their order and brings back what came of them as events; it calls again when `deadline_ms` has passed.

This is the engine of a set of one validator: its own vote is the quorum, so each view is its own block's. The events
and effects are those of a larger set, whose engine adds the messages of the others.
"""

from dataclasses import dataclass
from typing import NamedTuple

from ctt_state.units import Hash, Height, Ms
from ctt_state.votes import Certificate, Kind, Statement, quorum


class Now(NamedTuple):
    """Two clocks: `mono_ms` never jumps and drives timers, `wall_ms` only stamps blocks."""

    mono_ms: int
    wall_ms: Ms


class Head(NamedTuple):
    """A block on which the next can stand."""

    height: Height
    epoch: int
    view: int
    block_hash: Hash
    timestamp_ms: Ms


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """A `Build` is done: the block was executed and is kept until it is final or dropped."""

    head: Head


@dataclass(frozen=True, slots=True)
class VoteSigned:
    """A `Sign` is done."""

    statement: Statement
    signature: bytes


@dataclass(frozen=True, slots=True)
class BlockFinal:
    """A `Finalize` is done: the block is on disk."""

    head: Head


Event = Tick | BlockBuilt | VoteSigned | BlockFinal


@dataclass(frozen=True, slots=True)
class Build:
    """Make and execute the block of this view on its parent."""

    epoch: int
    view: int
    parent: Head
    timestamp_ms: Ms


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign the statement with the consensus key."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Finalize:
    """Write the block with its certificate, then tell everyone: it can never be taken back."""

    block_hash: Hash
    certificate: Certificate


Effect = Build | Sign | Finalize


class Engine:
    """A validator's share in the protocol. One at a time of: waiting for the slot, building, signing, writing."""

    def __init__(self, head: Head, *, period_ms: Ms, validators: int, signer: int) -> None:
        if quorum(validators) != 1:
            raise ValueError(
                f"{validators} validators need the votes of others; this engine serves a set of one"
            )
        self._head = head
        self._head_seen_ms: int | None = None  # on the monotonic clock; None: before this start
        self._period_ms = period_ms
        self._signer = signer
        self._pending: Head | None = None  # built, not yet final
        self._busy = False

    def deadline_ms(self, now: Now) -> int | None:
        """When to call again without an event, on the monotonic clock; None while an effect is under way."""
        return None if self._busy else now.mono_ms + self._wait_ms(now)

    def step(self, event: Event, now: Now) -> list[Effect]:
        """What to do next. Events that come twice or late have no effect."""
        match event:
            case Tick():
                return self._on_tick(now)
            case BlockBuilt(head) if self._busy and self._pending is None:
                self._pending = head
                return [Sign(self._finalize_statement(head))]
            case VoteSigned(statement, signature) if (
                self._pending is not None and statement == self._finalize_statement(self._pending)
            ):
                certificate = Certificate(statement, ((self._signer, signature),))
                return [Finalize(self._pending.block_hash, certificate)]
            case BlockFinal(head) if head == self._pending:
                self._head, self._head_seen_ms = head, now.mono_ms
                self._pending, self._busy = None, False
        return []

    def _on_tick(self, now: Now) -> list[Effect]:
        if self._busy or self._wait_ms(now) > 0:
            return []
        self._busy = True
        parent = self._head
        return [Build(parent.epoch, parent.view + 1, parent, self._timestamp(now))]

    def _wait_ms(self, now: Now) -> int:
        """Until the next slot by the wall clock, but never longer than a period since the head was seen: a clock
        that was set back must not stop the chain."""
        wait = self._head.timestamp_ms + self._period_ms - now.wall_ms
        if self._head_seen_ms is not None:
            wait = min(wait, self._head_seen_ms + self._period_ms - now.mono_ms)
        return max(wait, 0)

    def _timestamp(self, now: Now) -> Ms:
        """One period after the parent; a validator that is more than a period late starts again from its clock, so
        a short delay is made up for and a long one is not."""
        slot = self._head.timestamp_ms + self._period_ms
        return Ms(slot if now.wall_ms < slot + self._period_ms else now.wall_ms)

    def _finalize_statement(self, head: Head) -> Statement:
        return Statement(Kind.FINALIZE, head.epoch, head.view, self._head.view, head.block_hash)
