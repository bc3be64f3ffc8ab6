"""Consensus as a function of events and time: `step(event, now) -> effects` (docs/PROTOCOL.md, C-3 to C-12).

The Simplex protocol of Chan and Pass: in each view one leader proposes, all notarize its block or give the view up, and
finalize what was notarized in time. The engine never waits, reads no clock and touches no disk or network. Whoever runs
it carries out the effects in their order, brings back what came of them as events, and calls again at `deadline_ms`.

A step has two halves. First the event becomes facts: votes, certificates, blocks, the head. Then every rule looks
whether it may act on the facts; a rule that must wait for time says until when. So no rule depends on the order in
which messages came. Rules N1 to N8 and the exclusion of NULLIFY and FINALIZE are what safety rests on; what was voted
stands in `Round.mine` from the moment a `Cast` is asked for, and the journal guards it once more.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, assert_never

from ctt_state.block import Block, Header
from ctt_state.light import LightRejected, check_body
from ctt_state.units import UINT64_MAX, ZERO_HASH, Address, Hash, Ms
from ctt_state.validators import ValidatorSet, boundary_of
from ctt_state.votes import (
    Certificate,
    Evidence,
    InvalidCertificate,
    Kind,
    Statement,
    Vote,
    check_certificate,
    check_signers,
    is_signed,
    quorum,
)
from node.consensus.answers import AnswerBudget
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
    Restored,
    Send,
    Source,
    Status,
    Tick,
    Validate,
    VoteSigned,
)
from node.consensus.guard import Guard, watermark
from node.consensus.rounds import Round, Rounds
from node.consensus.settings import Settings, back_off
from node.consensus.unfinal import Stage, Unfinal

VIEWS_AHEAD_MAX: Final = 10  # votes and proposals further ahead are dropped: certificates will tell
GAPS_INLINE_MAX: Final = 16  # nullifications that a proposal carries; the rest is asked for
CERTIFICATES_SENT_MAX: Final = 64  # in one answer
EARLY_MAX: Final = 64  # messages of the next epoch that wait for its start


class Engine:
    """A node's share in the protocol: a validator's, or, without a key in the set, a follower's."""

    def __init__(
        self,
        settings: Settings,
        *,
        genesis_hash: Hash,
        epoch_blocks: int,
        head: Head,
        epoch: int,
        validators: ValidatorSet,
        consensus_key: bytes | None,
        restored: Restored,
        now: Now,
    ) -> None:
        """`epoch` is the one of the next block and `validators` its set; `consensus_key` is the public one."""
        self._settings = settings
        self._genesis_hash = genesis_hash
        self._epoch_blocks = epoch_blocks
        self._consensus_key = consensus_key
        self._effects: list[Effect] = []
        self._final: Certificate | None = None  # of the highest final view of this epoch
        self._silent_through = restored.forgotten
        is_guarded = settings.guard_ms and consensus_key is not None
        self._guard = Guard(settings.guard_ms, now) if is_guarded else None
        self._halted = False
        self._unfinal = Unfinal(head)
        self._faults: dict[Hash, str] = {}  # of blocks that are invalid here
        # When a block came or was made here, on the monotonic clock; for what was there before, since the start.
        self._seen_ms: dict[Hash, int] = {head.block_hash: now.mono_ms}
        self._answers = AnswerBudget()
        self._missed: dict[Address, int] = {}  # views, by validator; for the operator, no rule looks at it
        self._spoke_ms: dict[Address, int] = {}  # the same of when each was last heard
        self._last_boundary: Certificate | None = None  # the finalization that ended the epoch before
        self._early: deque[Received] = deque(maxlen=EARLY_MAX)
        self._finalizing: Hash | None = None
        self._next_status_ms = now.mono_ms
        self._wake_ms = now.mono_ms
        self._votes_from_ms = now.mono_ms + (settings.listen_ms if len(validators.members) > 1 else 0)
        self._start_epoch(epoch, validators, now)
        self._restore(restored, now)

    # --- what the runner calls ------------------------------------------------------------------------------------

    @property
    def deadline_ms(self) -> int:
        """When to call with a `Tick` if nothing happens before, on the monotonic clock."""
        return self._wake_ms

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def view(self) -> int:
        return self._view

    @property
    def validators(self) -> ValidatorSet:
        """The set of the present epoch."""
        return self._validators

    @property
    def me(self) -> int | None:
        """This node's place in the set, None for a follower."""
        return self._me

    @property
    def guard(self) -> Guard | None:
        """Raised while this node does not know how far its key may have voted."""
        return self._guard

    @property
    def guard_quorum(self) -> int:
        """How many others the guard has to hear."""
        return min(self._quorum, len(self._validators.members) - (self._me is not None))

    @property
    def guard_heard(self) -> int:
        """How many of them this node is level with."""
        others = [each.address for place, each in enumerate(self._validators.members) if place != self._me]
        return 0 if self._guard is None else self._guard.passed((self._epoch, self._view), others)

    @property
    def silent_through(self) -> tuple[int, int]:
        """The epoch and view up to which the key casts nothing."""
        return self._silent_through

    @property
    def keeps_silent(self) -> bool:
        """Whether a vote in the present view might stand against one that is not in the journal."""
        return self._guard is not None or (self._epoch, self._view) <= self._silent_through

    @property
    def finalized_view(self) -> int:
        """The highest view of this epoch that is known to be final; its block may still be on its way."""
        return self._final_view

    def block(self, block_hash: Hash) -> Block | None:
        """A block above the head, executed or only heard of."""
        return self._unfinal.block(block_hash)

    def last_heard_ms(self, signer: int) -> int:
        """When this validator last said anything since it is a member or the start, on the monotonic clock."""
        return self._spoke_ms[self._validators.members[signer].address]

    def votes_missed(self, signer: int) -> int:
        """Of how many views this node saw become final without a vote of this validator in time, since it is a member
        or the start. Only a validator hears all votes."""
        return self._missed[self._validators.members[signer].address]

    def step(self, event: Event, now: Now) -> list[Effect]:
        """What to do next. Events that come twice or late have no effect."""
        self._take(event, now)
        self._act(now)
        effects, self._effects = self._effects, []
        return effects

    # --- facts ----------------------------------------------------------------------------------------------------

    def _take(self, event: Event, now: Now) -> None:
        match event:
            case Tick():
                pass
            case Received():
                self._on_message(event, now)
            case BlockBuilt(block):
                self._on_built(block, now)
            case BuildFailed(epoch, view):
                self._on_build_failed(epoch, view)
            case BlockValidated(block_hash, fault):
                self._on_validated(block_hash, fault)
            case BlockUnplaced(block_hash):
                self._unfinal.unplace(block_hash)
            case VoteSigned(vote):
                self._on_own_vote(vote, now)
            case BlockArrived(block):
                self._add_block(block, now)
            case BlockFinal(head, next_set):
                self._on_final(head, next_set, now)
            case _:
                assert_never(event)

    def _on_message(self, received: Received, now: Now) -> None:
        message, source, signer = received.message, received.source, received.signer
        if signer is not None and signer < len(self._heard_ms):
            if self._heard_ms[signer] <= now.mono_ms - self._settings.skip_ms:
                self._returned_ms = now.mono_ms
            self._heard_ms[signer] = now.mono_ms
            self._spoke_ms[self._validators.members[signer].address] = now.mono_ms
        if self._guard is not None and isinstance(message, Status) and received.address is not None:
            self._guard.hear(received.address, (message.epoch, message.view))
        epoch = _epoch_of(message)
        if epoch > self._epoch:
            if epoch == self._epoch + 1:
                self._early.append(received)
            return
        if epoch < self._epoch:
            if source is not None and self._last_boundary and self._answers.take(source, now.mono_ms):
                self._effects.append(Send(source, self._last_boundary))
            return
        match message:
            case Proposal():
                self._on_proposal(message, source, now)
            case Vote():
                if signer == message.signer:
                    self._on_vote(message, source, now)
            case Certificate():
                self._on_certificate(message, now)
            case Status():
                if message.finalization is not None:
                    self._on_certificate(message.finalization, now)
                self._answer_laggard(source, message.view, now)
            case GetCertificates():
                self._answer(source, message.from_view, message.to_view, now)

    def _on_proposal(self, proposal: Proposal, source: Source, now: Now) -> None:
        """N1: the leader's own vote for the block that came with it."""
        vote, statement = proposal.vote, proposal.vote.statement
        if (
            statement.kind is not Kind.NOTARIZE
            or not self._final_view < statement.view <= self._view + VIEWS_AHEAD_MAX
            or vote.signer != self._leader(statement.view)
            or proposal.block.header.hash != statement.block_hash
            or not self._is_signed(vote)
            or not _is_whole(proposal.block)
        ):
            return
        for certificate in (proposal.parent, *proposal.nullifications[:GAPS_INLINE_MAX]):
            if certificate is not None and certificate.statement.epoch == self._epoch:
                self._on_certificate(certificate, now)
        current = self._rounds[statement.view]
        if current.proposal is None:
            current.proposal, current.proposer = proposal, source
            self._add_block(proposal.block, now)
        self._count(vote, now)

    def _on_vote(self, vote: Vote, source: Source, now: Now) -> None:
        view = vote.statement.view
        if view < self._view and vote.statement.kind is Kind.NULLIFY:
            self._answer_laggard(source, view, now)
        if not self._final_view < view <= self._view + VIEWS_AHEAD_MAX:
            return
        known = self._rounds[view].votes[vote.statement.kind].get(vote.signer)
        if known != vote and self._is_signed(vote):
            self._count(vote, now)

    def _count(self, vote: Vote, now: Now) -> None:
        """A checked vote; a quorum of equal ones is a certificate."""
        statement = vote.statement
        current = self._rounds[statement.view]
        self._watch_own(vote, current, now)
        evidence = current.add(vote)
        if evidence is not None:
            self._on_evidence(evidence, current)
        votes = current.tally(statement)
        if len(votes) >= self._quorum and statement.kind not in current.certificates:
            signatures = tuple((each.signer, each.signature) for each in votes)
            self._hold(Certificate(statement, signatures), now)

    def _on_evidence(self, evidence: Evidence, current: Round) -> None:
        if evidence.first.signer not in current.accused:
            current.accused.add(evidence.first.signer)
            self._effects.append(Accuse(evidence))
        kinds = {evidence.first.statement.kind, evidence.second.statement.kind}
        if kinds == {Kind.NOTARIZE} and evidence.first.signer == self._leader(evidence.first.statement.view):
            current.is_contested = True  # N7

    def _watch_own(self, vote: Vote, current: Round, now: Now) -> None:
        """A vote with this node's key that this node did not cast: somebody else has the key, or had it before a
        restore."""
        if (
            vote.signer == self._me
            and current.mine.get(vote.statement.kind) != vote.statement
            and (vote.statement.epoch, vote.statement.view) > self._silent_through
        ):
            if self._guard is not None:
                self._guard.hear_own(now)
                return
            self._halt(
                f"another process votes with this validator's key: {_describe(vote.statement)} was not cast here; "
                "stop the other process, or replace the key"
            )

    def _on_certificate(self, certificate: Certificate, now: Now) -> None:
        """Self-proving, whoever sent it and however far its view is."""
        statement = certificate.statement
        if statement.epoch != self._epoch:
            return
        if statement.view <= self._final_view:
            if self._final and statement.kind is Kind.FINALIZE and statement.view == self._final_view:
                self._check_agreement(self._final, certificate)
            return
        held = self._rounds[statement.view].certificates.get(statement.kind)
        if held is not None:
            self._check_agreement(held, certificate)
        elif self._is_valid(certificate):
            self._hold(certificate, now)

    def _check_agreement(self, held: Certificate, other: Certificate) -> None:
        """Two quorums for different blocks in one view cannot be while at most f validators are faulty."""
        if held.statement != other.statement and self._is_valid(other):
            self._halt(
                f"two certificates contradict each other: {_describe(held.statement)}, {_describe(other.statement)}; "
                "more than a third of the validators are faulty",
                held,
                other,
            )

    def _is_valid(self, certificate: Certificate) -> bool:
        """Signatures that already came as votes are not checked twice."""
        statement = certificate.statement
        current = self._rounds.get(statement.view)
        votes = current.votes[statement.kind] if current else {}
        try:
            if all(
                signer in votes and votes[signer] == Vote(statement, signer, signature)
                for signer, signature in certificate.signatures
            ):
                check_signers(certificate, len(self._validators.members))
            else:
                check_certificate(certificate, self._keys, self._genesis_hash)
        except InvalidCertificate:
            return False
        return True

    def _hold(self, certificate: Certificate, now: Now) -> None:
        """A valid certificate that is new. Everyone shall have it; its view is over."""
        statement = certificate.statement
        current = self._rounds[statement.view]
        current.certificates[statement.kind] = certificate
        if self._me is not None:
            for signer, signature in certificate.signatures:
                if signer == self._me:
                    self._watch_own(Vote(statement, signer, signature), current, now)
        self._effects.append(Broadcast(certificate))
        if statement.kind is Kind.FINALIZE:
            self._final, self._final_view = certificate, statement.view
            self._final_seen_ms = now.mono_ms
            self._count_missed(current)
        if statement.view >= self._view:
            self._enter(statement.view + 1, certificate, now)
        if statement.kind is Kind.FINALIZE:
            self._rounds.forget_below(self._final_view)

    def _count_missed(self, final: Round) -> None:
        heard = {signer for votes in final.votes.values() for signer in votes}
        for certificate in final.certificates.values():
            heard.update(signer for signer, _ in certificate.signatures)
        for place, member in enumerate(self._validators.members):
            if place not in heard:
                self._missed[member.address] += 1

    def _add_block(self, block: Block, now: Now) -> None:
        self._unfinal.add(block)
        self._seen_ms.setdefault(block.header.hash, now.mono_ms)

    def _on_built(self, block: Block, now: Now) -> None:
        """The view may have ended while the block was made; then nobody needs it."""
        view, current = block.header.view, self._rounds.get(block.header.view)
        if current is None or block.header.epoch != self._epoch or current.building_on is None:
            return
        parent_view, current.building_on = current.building_on, None
        if view != self._view or current.mine or self._halted or parent_view < self._final_view:
            current.is_refused = True
            return
        self._unfinal.add(block, Stage.EXECUTED)
        self._seen_ms.setdefault(block.header.hash, now.mono_ms)
        self._propose(block, parent_view)

    def _on_build_failed(self, epoch: int, view: int) -> None:
        current = self._rounds.get(view)
        if epoch == self._epoch and current is not None and current.building_on is not None:
            current.building_on, current.is_refused = None, True

    def _on_validated(self, block_hash: Hash, fault: str | None) -> None:
        self._unfinal.set_stage(block_hash, Stage.EXECUTED if fault is None else Stage.INVALID)
        if fault is not None and block_hash in self._unfinal:
            self._faults[block_hash] = fault

    def _on_own_vote(self, vote: Vote, now: Now) -> None:
        """On the disk now: it may be counted and shown."""
        statement = vote.statement
        if statement.epoch != self._epoch or statement.view <= self._final_view:
            return
        self._effects.append(Broadcast(self._own_message(vote)))
        self._count(vote, now)

    def _own_message(self, vote: Vote) -> Message:
        """A leader's NOTARIZE goes with its block and what justifies it."""
        statement = vote.statement
        block = self._unfinal.block(statement.block_hash)
        if block is None or statement.kind is not Kind.NOTARIZE or self._leader(statement.view) != self._me:
            return vote
        gaps = self._rounds.nullifications(statement.parent_view, statement.view)
        inline = tuple(gaps[:GAPS_INLINE_MAX])
        return Proposal(block, vote, self._certificate_of(statement.parent_view), inline)

    def _on_final(self, head: Head, next_set: ValidatorSet | None, now: Now) -> None:
        header = head.header
        if header.height <= self._unfinal.head.header.height:
            return
        self._unfinal.move_head(head)
        self._seen_ms = {each: ms for each, ms in self._seen_ms.items() if each in self._unfinal}
        self._seen_ms[head.block_hash] = now.mono_ms
        self._faults = {each: fault for each, fault in self._faults.items() if each in self._unfinal}
        if self._finalizing is not None and self._finalizing not in self._unfinal:
            self._finalizing = None
        if header.epoch == self._epoch:
            self._raise_floor(header.view, now)
        if next_set is not None:
            final = self._final
            at_boundary = final is not None and final.statement.block_hash == head.block_hash
            self._last_boundary = final if at_boundary else None
            self._start_epoch(header.epoch + 1, next_set, now)
            early, self._early = self._early, deque(maxlen=EARLY_MAX)
            for received in early:
                self._on_message(self._with_present_place(received), now)

    def _with_present_place(self, received: Received) -> Received:
        """A message that waited for the epoch: who sent it may have another place in its set, or its first."""
        if received.address is None:
            return received
        return replace(received, signer=self._validators.place_of_address(received.address))

    # --- epochs and views -----------------------------------------------------------------------------------------

    def _start_epoch(self, epoch: int, validators: ValidatorSet, now: Now) -> None:
        """View 0 stands for the block below the epoch, which is the head."""
        self._epoch = epoch
        self._validators = validators
        self._missed = {each.address: self._missed.get(each.address, 0) for each in validators.members}
        self._spoke_ms = {
            each.address: self._spoke_ms.get(each.address, now.mono_ms) for each in validators.members
        }
        self._keys = validators.keys
        self._quorum = quorum(len(validators.members))
        self._faulty = len(validators.members) - self._quorum
        key = self._consensus_key
        self._me = None if key is None else validators.place_of_key(key)
        self._rounds = Rounds()
        self._final, self._final_view = None, 0
        self._final_seen_ms = now.mono_ms
        self._base = self._unfinal.head
        self._heard_ms = [now.mono_ms] * len(validators.members)
        self._returned_ms = now.mono_ms - self._settings.skip_ms  # when a validator was last heard again
        self._stood_still_ms = now.mono_ms
        self._enter(1, None, now)

    def _enter(self, view: int, entry: Certificate | None, now: Now) -> None:
        self._view = view
        self._entry = entry
        self._entered_ms = now.mono_ms
        self._repeated_ms = now.mono_ms
        self._asked_ms: dict[Hash | int, int] = {}
        self._drop_stale(view - VIEWS_AHEAD_MAX)

    def _drop_stale(self, before: int) -> None:
        """Blocks of long gone views that nobody certified; should a certificate come, they can be fetched."""
        for view in self._rounds:
            current = self._rounds[view]
            if view < before and current.proposal is not None and not current.block_certificate:
                self._unfinal.drop(current.proposal.vote.statement.block_hash)
                current.proposal = None

    def _restore(self, restored: Restored, now: Now) -> None:
        """What the journal held, as facts. Own votes count again, and are sent again when the view stands still."""
        head = self._unfinal.head
        for block in restored.blocks:
            self._unfinal.add(block)
        own = [
            vote for vote in restored.votes if vote.statement.epoch == self._epoch and vote.signer == self._me
        ]
        for vote in own:  # first of all, for a certificate may hold them
            self._rounds[vote.statement.view].mine[vote.statement.kind] = vote.statement
        for certificate in restored.certificates:
            statement = certificate.statement
            self._on_certificate(certificate, now)
            if statement.kind is Kind.FINALIZE and statement.epoch == self._epoch - 1:
                self._last_boundary = certificate
        for vote in own:
            if vote.statement.view > self._final_view:
                self._count(vote, now)
        if head.header.height and head.header.epoch == self._epoch:
            self._raise_floor(head.header.view, now)
        self._rounds.forget_below(self._final_view)
        self._effects = [each for each in self._effects if isinstance(each, Halt)]

    def _raise_floor(self, view: int, now: Now) -> None:
        """A block of this view is final, known from the ledger rather than from a certificate."""
        if view <= self._final_view:
            return
        self._final, self._final_view = None, view
        self._final_seen_ms = now.mono_ms
        self._rounds.forget_below(self._final_view)
        if view >= self._view:
            self._enter(view + 1, None, now)

    def _leader(self, view: int) -> int:
        return self._validators.leader(self._epoch, view)

    def _certificate_of(self, view: int) -> Certificate | None:
        """What shows that this view's block may be a parent; None for view 0, which needs nothing."""
        if view == self._final_view and self._final is not None:
            return self._final
        return self._rounds.block_certificate(view)

    def _parent_hash(self, view: int) -> Hash | None:
        """The block that a child in this view's chain stands on, None if no certificate is held."""
        certificate = self._certificate_of(view)
        if certificate is not None:
            return certificate.statement.block_hash
        if view == 0:
            return self._base.block_hash
        head = self._unfinal.head
        return head.block_hash if (head.header.epoch, head.header.view) == (self._epoch, view) else None

    # --- rules ----------------------------------------------------------------------------------------------------

    def _act(self, now: Now) -> None:
        """Every rule that the facts now allow, the most urgent first."""
        self._wake_ms = now.mono_ms + self._settings.status_ms
        if self._halted:
            return
        self._tell_status(now)
        self._commit()
        self._execute_certified(now)
        if self._guard is not None:
            self._lower_guard(self._guard, now)
        if self._me is not None and now.mono_ms < self._votes_from_ms:
            self._wake_at(self._votes_from_ms, now)
        elif self._me is not None and not self.keeps_silent:
            self._cast_finalize()
            self._follow_leader(now)
            self._lead(now)
            self._give_up(now)
            self._repeat(now)
        self._stand_still(now)

    def _lower_guard(self, guard: Guard, now: Now) -> None:
        """C-14: the others are heard and the key was silent. From here on the journal knows how far it may have
        voted."""
        if now.mono_ms < guard.silent_at_ms:
            self._wake_at(guard.silent_at_ms, now)
        elif self.guard_heard >= self.guard_quorum:
            header = self._unfinal.head.header
            mark = watermark(
                epoch=self._epoch,
                view=self._view,
                head_view=header.view if header.epoch == self._epoch else 0,
                blocks_left=boundary_of(self._epoch, self._epoch_blocks) - header.height,
                is_alone=self.guard_quorum == 0,
            )
            self._guard = None
            self._silent_through = max(self._silent_through, mark)
            self._effects.append(KeepSilent(*self._silent_through))

    def _wake_at(self, mono_ms: int, now: Now) -> None:
        self._wake_ms = min(self._wake_ms, max(mono_ms, now.mono_ms + 1))

    def _tell_status(self, now: Now) -> None:
        if now.mono_ms >= self._next_status_ms:
            self._next_status_ms = now.mono_ms + self._settings.status_ms
            self._effects.append(Broadcast(self.status()))
        self._wake_at(self._next_status_ms, now)

    def status(self) -> Status:
        """What this node tells of itself, also to a peer that just connected."""
        head = self._unfinal.head
        return Status(self._epoch, self._view, head.header.height, head.block_hash, self._final)

    def _commit(self) -> None:
        """Final blocks go to the disk as soon as they are executed, one `Finalize` at a time."""
        final = self._final
        if final is None or self._finalizing is not None:
            return
        block_hash = final.statement.block_hash
        if block_hash in self._unfinal and self._unfinal.stage(block_hash) is Stage.EXECUTED:
            self._finalizing = block_hash
            self._effects.append(Finalize(block_hash, final))

    def _execute_certified(self, now: Now) -> None:
        """Blocks with a certificate are executed whatever the view, with the ancestors they need (N8)."""
        for view in self._rounds:
            certificate = self._rounds.block_certificate(view)
            if certificate is None:
                continue
            block_hash = certificate.statement.block_hash
            if self._unfinal.stage(block_hash) is Stage.INVALID:
                fault = f"a quorum signed block {block_hash.hex()}, which is invalid here"
                self._halt(f"{fault}: {self._faults[block_hash]}", certificate)
            else:
                self._execute(block_hash, certificate, now)

    def _execute(self, block_hash: Hash, certificate: Certificate | None, now: Now) -> None:
        """Brings the block one step closer to its execution: fetches what is missing, executes the lowest first.

        Only a chain that reaches down to the head can be executed; a longer way is for catching up.
        """
        head = self._unfinal.head
        while self._unfinal.stage(block_hash) is Stage.KNOWN:
            block = self._unfinal.block(block_hash)
            if block is None:
                return
            parent_hash = block.header.parent_hash
            if self._unfinal.stage(parent_hash) is Stage.EXECUTED:
                self._unfinal.set_stage(block_hash, Stage.EXECUTING)
                self._effects.append(Validate(block))
                return
            if block.header.height <= head.header.height + 1:
                self._check_extends(certificate)
                return
            block_hash = parent_hash
        if self._unfinal.stage(block_hash) is None and self._is_due(block_hash, now):
            signers = () if certificate is None else tuple(signer for signer, _ in certificate.signatures)
            is_final = certificate is not None and certificate.statement.kind is Kind.FINALIZE
            self._effects.append(Fetch(block_hash, signers, certificate if is_final else None))

    def _check_extends(self, certificate: Certificate | None) -> None:
        """A block that does not stand on the final head can be notarized at most, never final."""
        if certificate is not None and certificate.statement.kind is Kind.FINALIZE:
            head = self._unfinal.head
            self._halt(
                f"{_describe(certificate.statement)} does not stand on block {head.header.height} "
                f"{head.block_hash.hex()}, which was final here; more than a third of the validators are faulty",
                certificate,
            )

    def _is_due(self, what: Hash | int, now: Now) -> bool:
        """Whether it is time to ask for this (again)."""
        asked_ms = self._asked_ms.get(what)
        if asked_ms is not None and now.mono_ms < asked_ms + self._settings.retry_ms:
            self._wake_at(asked_ms + self._settings.retry_ms, now)
            return False
        self._asked_ms[what] = now.mono_ms
        self._wake_at(now.mono_ms + self._settings.retry_ms, now)
        return True

    def _cast_finalize(self) -> None:
        """FINALIZE what is notarized and executed, unless this validator gave the view up or notarized another block.
        The view may be over; own votes are remembered for every view above the last finalization."""
        for view in self._rounds:
            current = self._rounds[view]
            notarization = current.certificates.get(Kind.NOTARIZE)
            if notarization is None or view <= self._final_view:
                continue
            if (self._epoch, view) <= self._silent_through:
                continue
            if Kind.NULLIFY in current.mine or Kind.FINALIZE in current.mine:
                continue
            said = notarization.statement
            mine = current.mine.get(Kind.NOTARIZE)
            if mine is not None and mine != said:
                continue
            if self._unfinal.stage(said.block_hash) is Stage.EXECUTED:
                self._cast(said._replace(kind=Kind.FINALIZE), (notarization,), None)

    def _follow_leader(self, now: Now) -> None:
        """NOTARIZE the proposal of this view if rules N1 to N8 hold; give the view up if it can never hold."""
        current = self._rounds.get(self._view)
        if (
            current is None or current.proposal is None or current.is_refused or current.is_contested
        ):  # N1, N7
            return
        if Kind.NOTARIZE in current.mine or Kind.NULLIFY in current.mine:  # N2, N3
            return
        statement = current.proposal.vote.statement
        if statement.parent_view < self._final_view:  # N4
            current.is_refused = True
            return
        if not self._is_justified(statement.parent_view, current.proposer, now):
            return
        parent_hash = self._parent_hash(statement.parent_view)
        parent = None if parent_hash is None else self._unfinal.place(parent_hash)
        if parent_hash is not None and parent is None:
            self._execute(parent_hash, self._certificate_of(statement.parent_view), now)
        if parent is None:
            return
        block = current.proposal.block
        if not self._is_well_placed(block.header, statement, parent):
            current.is_refused = True
        elif self._is_timely(block.header, parent, now):
            if self._unfinal.stage(statement.block_hash) is Stage.INVALID:
                current.is_refused = True
            elif self._unfinal.stage(statement.block_hash) is Stage.EXECUTED:  # N8
                self._cast(statement, self._reliance(statement.parent_view), block)
            else:
                self._unfinal.add(block)
                self._execute(statement.block_hash, None, now)

    def _is_justified(self, parent_view: int, source: Source, now: Now) -> bool:
        """N4 and N5: the parent's certificate and the nullification of every view between are held. What is missing is
        asked for."""
        missing = self._rounds.not_nullified(parent_view, self._view)
        if self._parent_hash(parent_view) is None:
            missing.append(parent_view)
        if missing and source is not None and self._is_due(self._view, now):
            wish = GetCertificates(self._epoch, min(missing), self._view - 1)
            self._effects.append(Send(source, wish))
        return not missing

    def _is_well_placed(self, header: Header, statement: Statement, parent: Head) -> bool:
        """N6. After the epoch's last block only that block itself can be proposed, until it is final. What the header
        says of sets and roots is compared by executing it."""
        if parent.header.height == boundary_of(self._epoch, self._epoch_blocks):
            return statement.block_hash == parent.block_hash
        return (
            header.epoch == self._epoch
            and header.view == statement.view
            and header.parent_hash == parent.block_hash
            and header.height == parent.header.height + 1
            and header.genesis_hash == self._genesis_hash
            and header.timestamp_ms >= parent.header.timestamp_ms + self._settings.period_ms
            and header.proposer == self._validators.members[self._leader(statement.view)].address
        )

    def _is_timely(self, header: Header, parent: Head, now: Now) -> bool:
        """A block from the future is held until our clock is near enough, or refused if that took the whole view.

        One that is not a millisecond later than its parent demands is no leader's fault: it is held no longer than an
        honest leader would have waited. So a chain whose time is ahead of all clocks goes on, and no leader can drive
        it further ahead.
        """
        hold_ms = header.timestamp_ms - now.wall_ms - self._settings.ahead_ms_max
        if header.timestamp_ms == parent.header.timestamp_ms + self._settings.period_ms:
            hold_ms = min(hold_ms, self._patience_ends_ms(parent) - now.mono_ms)
        if hold_ms <= 0:
            return True
        if now.mono_ms + hold_ms > self._entered_ms + self._scale(self._settings.notarize_ms):
            self._rounds[self._view].is_refused = True
        else:
            self._wake_at(now.mono_ms + hold_ms, now)
        return False

    def _patience_ends_ms(self, parent: Head) -> int:
        """When a clock that is behind the chain's time is not waited for any more: a period and an eighth after the
        parent was seen. The eighth lets a chain whose time is ahead of all clocks come back to them; when only one
        clock is behind, the next leader makes up for it."""
        period_ms = self._settings.period_ms
        return self._seen_ms.get(parent.block_hash, self._entered_ms) + period_ms + period_ms // 8

    def _lead(self, now: Now) -> None:
        """In an own view: propose on the highest notarized block, at its time."""
        if self._leader(self._view) != self._me:
            return
        current = self._rounds[self._view]
        if current.mine or current.building_on is not None or current.is_refused:
            return
        parent_view = self._highest_notarized()
        missing = self._rounds.not_nullified(parent_view, self._view)
        if missing:
            if self._is_due(self._view, now):
                self._effects.append(Broadcast(GetCertificates(self._epoch, missing[0], missing[-1])))
            return
        parent_hash = self._parent_hash(parent_view)
        parent = None if parent_hash is None else self._unfinal.place(parent_hash)
        if parent is None or self._unfinal.stage(parent.block_hash) is not Stage.EXECUTED:
            half_ms = self._scale(self._settings.propose_ms) // 2
            if now.mono_ms >= self._entered_ms + half_ms:
                current.is_refused = True
            self._wake_at(self._entered_ms + half_ms, now)
            return
        if parent.header.height == boundary_of(self._epoch, self._epoch_blocks):
            # Until the epoch's last block is final its leaders propose nothing but it.
            block = self._unfinal.block(parent.block_hash)
            if block is not None:
                self._propose(block, parent_view)
            return
        wait_ms = self._wait_ms(parent, now)
        if wait_ms > 0:
            self._wake_at(now.mono_ms + wait_ms, now)
            return
        current.building_on = parent_view
        timestamp = self._timestamp(parent.header, now)
        self._effects.append(Build(self._epoch, self._view, parent.block_hash, timestamp))

    def _highest_notarized(self) -> int:
        views = [view for view in self._rounds if view < self._view and self._rounds.block_certificate(view)]
        return views[-1] if views else self._final_view

    def _wait_ms(self, parent: Head, now: Now) -> int:
        """Until the slot by the wall clock, within patience: a clock that is behind must not stop the chain."""
        slot_ms = parent.header.timestamp_ms + self._settings.period_ms
        return max(min(slot_ms - now.wall_ms, self._patience_ends_ms(parent) - now.mono_ms), 0)

    def _timestamp(self, parent: Header, now: Now) -> Ms:
        """One period after the parent; more than a period late it starts again from the clock, so a short delay is
        made up for and a long one is not."""
        slot_ms = parent.timestamp_ms + self._settings.period_ms
        return Ms(slot_ms if now.wall_ms < slot_ms + self._settings.period_ms else now.wall_ms)

    def _propose(self, block: Block, parent_view: int) -> None:
        """The leader's NOTARIZE. Its block follows when the vote is on the disk."""
        statement = Statement(Kind.NOTARIZE, self._epoch, self._view, parent_view, block.header.hash)
        self._cast(statement, self._reliance(parent_view), block)

    def _reliance(self, parent_view: int) -> tuple[Certificate, ...]:
        """What a NOTARIZE in this view relies on: the certificates of its parent, of the gap, of the view's start."""
        gaps = self._rounds.nullifications(parent_view, self._view)
        held = (self._certificate_of(parent_view), *gaps, self._entry)
        return tuple(dict.fromkeys([each for each in held if each is not None]))

    def _give_up(self, now: Now) -> None:
        """NULLIFY the view when it can bring nothing or its time is over, unless this validator finalized in it."""
        current = self._rounds[self._view]
        if Kind.FINALIZE in current.mine or Kind.NULLIFY in current.mine:
            return
        leader = self._leader(self._view)
        is_leading = current.building_on is not None or Kind.NOTARIZE in current.mine
        has_proposal = is_leading or current.proposal is not None
        # Views that end at once, one after the other, are bounded too: something is wrong with more than the leaders.
        patience_ms = self._settings.period_ms if self._is_long_without_finality() else 0
        overdue_ms = self._entered_ms + self._scale(
            self._settings.notarize_ms if has_proposal else self._settings.propose_ms
        )
        is_hopeless = (
            current.is_refused
            or current.is_contested
            or leader in current.votes[Kind.NULLIFY]
            or (not has_proposal and self._is_silent(leader, now))
        )
        if is_hopeless:
            overdue_ms = min(overdue_ms, self._entered_ms + patience_ms)
        if now.mono_ms >= overdue_ms:
            statement = Statement(Kind.NULLIFY, self._epoch, self._view, 0, ZERO_HASH)
            self._cast(statement, () if self._entry is None else (self._entry,), None)
            self._repeated_ms = now.mono_ms
        else:
            self._wake_at(overdue_ms, now)

    def _is_silent(self, leader: int, now: Now) -> bool:
        """Skip rule: the leader is not waited for if it alone is silent. If too few others are heard, the silence is
        our own, and we wait. When an outage ends not all are heard in the same moment, and who is silent shows only
        when everyone has had the time to tell its status."""
        if now.mono_ms < self._returned_ms + self._settings.status_ms + 2 * self._settings.delay_ms:
            return False
        since_ms = now.mono_ms - self._settings.skip_ms
        others = sum(
            heard_ms > since_ms
            for place, heard_ms in enumerate(self._heard_ms)
            if place not in (self._me, leader)
        )
        return leader != self._me and self._heard_ms[leader] <= since_ms and others >= self._quorum - 1

    def _is_long_without_finality(self) -> bool:
        """For longer than faulty leaders explain."""
        return self._view - self._final_view > self._faulty + 3

    def _scale(self, wait_ms: int) -> int:
        return back_off(wait_ms, self._view - self._final_view, self._faulty)

    def _repeat(self, now: Now) -> None:
        """Given up, and still here: what was said in this view may have been lost."""
        current = self._rounds[self._view]
        if Kind.NULLIFY not in current.mine:
            return
        if now.mono_ms < self._repeated_ms + self._settings.retry_ms:
            self._wake_at(self._repeated_ms + self._settings.retry_ms, now)
            return
        self._repeated_ms = now.mono_ms
        self._wake_at(now.mono_ms + self._settings.retry_ms, now)
        if self._entry is not None:
            self._effects.append(Broadcast(self._entry))
        self._effects.extend(Broadcast(each) for each in self._own_messages(current))

    def _own_messages(self, current: Round) -> Iterator[Message]:
        """This validator's votes of a view that are on the disk."""
        for votes in current.votes.values():
            if self._me in votes:
                yield self._own_message(votes[self._me])

    def _stand_still(self, now: Now) -> None:
        """No finalization for long: send what could be missing elsewhere, within a bound."""
        standstill_ms = self._settings.standstill_ms
        due_ms = max(self._final_seen_ms, self._stood_still_ms) + standstill_ms
        if now.mono_ms < due_ms:
            self._wake_at(due_ms, now)
            return
        self._stood_still_ms = now.mono_ms
        self._wake_at(now.mono_ms + standstill_ms, now)
        self._effects.extend(Broadcast(each) for each in self._certificates_above_final())
        for view in list(self._rounds)[-CERTIFICATES_SENT_MAX:]:
            if self._me is not None and view > self._final_view:
                self._effects.extend(Broadcast(each) for each in self._own_messages(self._rounds[view]))

    def _certificates_above_final(self) -> list[Certificate]:
        """The highest finalization, then the lowest certificates above it."""
        above = self._rounds.certificates(self._final_view + 1, UINT64_MAX)
        final = [] if self._final is None else [self._final]
        return [*final, *above][:CERTIFICATES_SENT_MAX]

    # --- answers --------------------------------------------------------------------------------------------------

    def _answer_laggard(self, source: Source, view: int, now: Now) -> None:
        """A peer shows a view below this node's: send what brings it here."""
        if view < self._view and self._answers.take(source, now.mono_ms):
            self._effects.extend(Send(source, each) for each in self._certificates_above_final())

    def _answer(self, source: Source, from_view: int, to_view: int, now: Now) -> None:
        if self._answers.take(source, now.mono_ms):
            found = self._rounds.certificates(from_view, to_view)[:CERTIFICATES_SENT_MAX]
            self._effects.extend(Send(source, each) for each in found)

    # --------------------------------------------------------------------------------------------------------------

    def _cast(self, statement: Statement, reliance: tuple[Certificate, ...], block: Block | None) -> None:
        self._rounds[statement.view].mine[statement.kind] = statement
        self._effects.append(Cast(statement, reliance, block))

    def _is_signed(self, vote: Vote) -> bool:
        return is_signed(vote, self._keys, self._genesis_hash)

    def _halt(self, reason: str, *certificates: Certificate) -> None:
        if not self._halted:
            self._halted = True
            self._effects.append(Halt(reason, certificates))


def _epoch_of(message: Message) -> int:
    match message:
        case Proposal():
            return message.vote.statement.epoch
        case Vote() | Certificate():
            return message.statement.epoch
        case Status() | GetCertificates():
            return message.epoch
        case _:
            assert_never(message)


def _is_whole(block: Block) -> bool:
    """Whether its body is the one that its header stands for: whoever passes a proposal on could put in another."""
    try:
        check_body(block)
    except LightRejected:
        return False
    return True


def _describe(statement: Statement) -> str:
    block = "" if statement.kind is Kind.NULLIFY else f" of block {statement.block_hash.hex()}"
    return f"{statement.kind.name} in view {statement.view} of epoch {statement.epoch}{block}"
