"""What to ask whom for, so that the final chain gets here: `step(event, now_ms) -> effects` (decisions/0012).

A task that never ends and has no modes, also for a validator that votes. Two things are asked for: single blocks near
the tip, which consensus wants by their hashes, and ranges of final blocks when peers are further than the head.

Nobody is believed. A range is handed on only when a quorum of its epoch's set finalized its last block and hash links
lead from that down to its first, which stands on the head. A peer may answer in parts and without a certificate; such
blocks wait until a certificate above proves them. All of a range that is not proven comes from one peer, so it is
plain who lied. Ranges end with the epoch: the set of the next one is known only when the epoch's last block is final.

Like the engine it never waits, reads no clock and touches no disk or network. Every list has a bound.
"""

from dataclasses import dataclass, field
from typing import Final, assert_never

from ctt_state.block import Block
from ctt_state.light import ChainRules, LightRejected, check_body, check_chain, check_final
from ctt_state.units import Address, Hash, Height
from ctt_state.validators import ValidatorSet, boundary_of, epoch_of
from ctt_state.votes import Certificate, quorum
from node.consensus.events import BlockFinal, Head, Source, Status, Tick

TICK_MS: Final = 250  # a `Tick` is due so often

RANGE_BLOCKS_MAX: Final = 128
RANGES_ASKED_MAX: Final = 3  # at once, each from another peer
WINDOW_BLOCKS: Final = 512  # above the head: asked for, buffered or being applied
BUFFER_BYTES_MAX: Final = 16 * 1024 * 1024  # beyond it only the lowest missing range is asked for
UNPROVEN_BYTES_MAX: Final = 64 * 1024 * 1024  # even of that one: thirty of the largest blocks
REPLY_BYTES: Final = 2 * 1024 * 1024  # what one answer may bring
HEADER_BYTES: Final = 1_024

ANSWER_MS: Final = 2_000
LATE_MS: Final = 10_000  # so long an answer is still of use, though it counted as silence
RANGE_MS: Final = 6_000  # a range that its peer has not proven by then goes to another that is free
STALL_MS: Final = 2_000  # a head that stands still so long is behind by one block, one that moves by three
REFUSAL_MS: Final = 1_000
STRIKES_MAX: Final = 3
REST_MS: Final = 60_000
PROGRESS_MS: Final = 1_000

AHEAD_BLOCKS: Final = 2  # by so much peers may be ahead while consensus brings the blocks
SYNCING_BLOCKS: Final = 3

WANTS_MAX: Final = 16
WANT_MS: Final = 5_000  # after it was last wanted
HEDGE_MS: Final = 500  # without an answer, until another peer is asked, too
ASKED_AT_ONCE_MAX: Final = 3  # peers for one wanted block
REQUESTS_MAX: Final = 256
REQUEST_NUMBERS: Final = 2**32


# --- what is said to peers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetBlock:
    """Asks for the block of this hash."""

    request: int
    block_hash: Hash


@dataclass(frozen=True, slots=True)
class GetBlocks:
    """Asks for final blocks from a height up."""

    request: int
    from_height: Height
    count: int


@dataclass(frozen=True, slots=True)
class BlockReply:
    """The block, or None from a peer that does not have it."""

    request: int
    block: Block | None


@dataclass(frozen=True, slots=True)
class BlocksReply:
    """Consecutive blocks, perhaps fewer than were asked for, and the finalization of the last if the peer has it."""

    request: int
    blocks: tuple[Block, ...]
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer does not answer this request."""

    request: int


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """`validator` is the address that the peer has shown to be, None for others."""

    peer: Source
    validator: Address | None


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The peer is not connected any more."""

    peer: Source


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Where a peer says it stands."""

    peer: Source
    status: Status


@dataclass(frozen=True, slots=True)
class WantBlock:
    """Consensus needs this block, which the validators in these places of the set hold."""

    block_hash: Hash
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replied:
    """A peer's answer."""

    peer: Source
    reply: BlockReply | BlocksReply | Refused


@dataclass(frozen=True, slots=True)
class Applied:
    """The blocks of the last `Apply` are final here; their `BlockFinal` came before."""


@dataclass(frozen=True, slots=True)
class ApplyFailed:
    """They are not: this machine could not execute what a quorum finalized."""


Event = (
    PeerConnected | PeerGone | PeerStatus | WantBlock | Replied | BlockFinal | Applied | ApplyFailed | Tick
)


# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request to the peer."""

    peer: Source
    request: GetBlock | GetBlocks


@dataclass(frozen=True, slots=True)
class Deliver:
    """A wanted block for consensus: its header has the hash, its body is its header's. It may be invalid."""

    block: Block


@dataclass(frozen=True, slots=True)
class Apply:
    """Execute and commit these final blocks in their order, the last with the certificate; skip what is final by then.

    The first stands on the head. One `Apply` at a time, until `Applied` or `ApplyFailed`.
    """

    blocks: tuple[Block, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """The peer said what no honest peer says."""

    peer: Source
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far catching up is: at most once a second, and when it is done."""

    height: Height
    target: Height


@dataclass(frozen=True, slots=True)
class Diverged:
    """A quorum finalized a block that does not stand on our final head: stop for good, and say why."""

    reason: str
    certificate: Certificate


Effect = Ask | Deliver | Apply | Misbehaved | Progress | Diverged


# --- what is kept -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Peer:
    validator: Address | None
    order: int  # by when it was last asked
    status: Status | None = None
    request: int | None = None  # the range it is asked for
    strikes: int = 0
    resting_until_ms: int = 0
    refusing_until_ms: int = 0
    blocks_max: int = RANGE_BLOCKS_MAX  # to ask for at once: less after silence
    blocks_per_s: int = 0  # of its answers, smoothed

    @property
    def height(self) -> int:
        """What it claims to have."""
        return 0 if self.status is None else self.status.finalized_height

    def is_usable(self, now_ms: int) -> bool:
        return now_ms >= self.resting_until_ms and now_ms >= self.refusing_until_ms


@dataclass(eq=False, slots=True)
class _Range:
    """Heights to get, with the blocks that are here from the first on. All come from `holder` until they are proven."""

    first: int
    last: int
    blocks: list[Block] = field(default_factory=list)
    size: int = 0
    certificate: Certificate | None = None  # proven
    holder: Source | None = None
    since_ms: int = 0  # the holder has it
    request: int | None = None
    tried: list[Source] = field(default_factory=list)

    @property
    def next(self) -> int:
        """The lowest height that is missing."""
        return self.first + len(self.blocks)

    @property
    def is_complete(self) -> bool:
        return self.next > self.last

    def release(self) -> None:
        """To another peer, from the beginning."""
        if self.holder is not None and self.holder not in self.tried:
            self.tried.append(self.holder)
        self.blocks, self.size, self.holder, self.request = [], 0, None, None

    def cut(self, first: int) -> None:
        """Heights below are not needed any more."""
        self.blocks = self.blocks[first - self.first :]
        self.size = sum(map(_size, self.blocks))
        self.first = first


@dataclass(slots=True)
class _Want:
    holders: tuple[int, ...]
    wanted_ms: int
    asked_ms: int = 0
    requests: list[int] = field(default_factory=list)  # that are not answered
    tried: list[Source] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Request:
    peer: Source
    ask: GetBlock | GetBlocks
    asked_ms: int
    range: _Range | None  # of a GetBlocks


class Sync:
    """The planner. `step` takes what happened and gives what to do."""

    def __init__(self, rules: ChainRules, *, head: Head, validators: ValidatorSet, now_ms: int) -> None:
        """`validators` is the set of the block after the head."""
        self._rules = rules
        self._head = head
        self._head_ms = now_ms
        self._epoch = epoch_of(head.header.height + 1, rules.epoch_blocks)
        self._validators = validators
        self._peers: dict[Source, _Peer] = {}
        self._orders = 0
        self._requests: dict[int, _Request] = {}
        self._last_request = 0
        self._late: list[int] = []  # requests that counted as silence
        self._ranges: list[
            _Range
        ] = []  # ascending, without gaps, from the height after what is being applied
        self._applying: _Range | None = None
        self._paused_until_ms = 0
        self._has_diverged = False
        self._wants: dict[Hash, _Want] = {}
        self._progress: tuple[int, int] | None = None  # when it was last told, and of which height
        self._effects: list[Effect] = []

    # --- what the runner calls ----------------------------------------------------------------------------------------

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """What to do next, in this order. `now_ms` is monotonic."""
        self._effects = []
        self._take(event, now_ms)
        self._expire(now_ms)
        if not self._has_diverged:
            self._link(now_ms)
            self._apply()
            self._open_ranges(now_ms)
            self._ask_ranges(now_ms)
            self._ask_blocks(now_ms)
        self._tell_progress(now_ms)
        return self._effects

    def target(self, now_ms: int) -> Height:
        """The highest final height that is plausible: one that more validators claim than may be faulty, if so many are
        connected; else what any peer claims that is not resting. Never below the head."""
        claims = [peer.height for peer in self._peers.values() if now_ms >= peer.resting_until_ms]
        known = {
            peer.validator: peer.height
            for peer in self._peers.values()
            if peer.validator is not None
            and peer.status is not None
            and now_ms >= peer.resting_until_ms
            and self._validators.place_of_address(peer.validator) is not None
        }
        size = len(self._validators.members)
        faulty = size - quorum(size)
        if len(known) > faulty:
            claims = [sorted(known.values(), reverse=True)[faulty]]
        return Height(max([self._head.header.height, *claims]))

    def is_syncing(self, now_ms: int) -> bool:
        """Whether the chain is plausibly more than three blocks ahead."""
        return self.target(now_ms) > self._head.header.height + SYNCING_BLOCKS

    # --- facts --------------------------------------------------------------------------------------------------------

    def _take(self, event: Event, now_ms: int) -> None:
        match event:
            case Tick():
                pass
            case PeerConnected(peer, validator):
                self._on_gone(peer)
                self._peers[peer] = _Peer(validator, self._next_order())
            case PeerGone(peer):
                self._on_gone(peer)
            case PeerStatus(peer, status):
                self._on_status(peer, status, now_ms)
            case WantBlock(block_hash, holders):
                self._on_want(block_hash, holders, now_ms)
            case Replied(peer, reply):
                self._on_reply(peer, reply, now_ms)
            case BlockFinal(head, next_set):
                self._on_final(head, next_set, now_ms)
            case Applied():
                self._applying = None
                self._trim()
            case ApplyFailed():
                # No peer is to blame: the blocks are what a quorum finalized. They are asked for again.
                self._applying = None
                self._paused_until_ms = now_ms + REFUSAL_MS
            case _:
                assert_never(event)

    def _on_gone(self, name: Source) -> None:
        if self._peers.pop(name, None) is None:
            return
        for number in [number for number, request in self._requests.items() if request.peer == name]:
            self._forget_request(number)
        self._release_all(name)

    def _on_status(self, name: Source, status: Status, now_ms: int) -> None:
        peer = self._peers.get(name)
        if peer is None:
            return
        before, peer.status = peer.status, status
        height, block_hash = status.finalized_height, status.finalized_hash
        head = self._head
        if status.epoch != epoch_of(height + 1, self._rules.epoch_blocks):
            fault = f"says epoch {status.epoch} after block {height}"
        elif before is not None and height < before.finalized_height:
            fault = f"went down from final block {before.finalized_height} to {height}"
        elif before is not None and height == before.finalized_height and block_hash != before.finalized_hash:
            fault = (
                f"says that block {height} is {block_hash.hex()}, before it was {before.finalized_hash.hex()}"
            )
        elif height == head.header.height and block_hash != head.block_hash:
            fault = f"says that block {height} is {block_hash.hex()}, final here is {head.block_hash.hex()}"
        else:
            return
        peer.status = None
        self._accuse(name, fault, now_ms)

    def _on_want(self, block_hash: Hash, holders: tuple[int, ...], now_ms: int) -> None:
        if block_hash == self._head.block_hash:
            return
        want = self._wants.get(block_hash)
        if want is None:
            if len(self._wants) == WANTS_MAX:
                self._drop_want(next(iter(self._wants)))
            self._wants[block_hash] = _Want(holders, now_ms)
            return
        want.holders, want.wanted_ms = holders, now_ms
        if not want.requests:
            want.tried.clear()

    def _on_reply(self, name: Source, reply: BlockReply | BlocksReply | Refused, now_ms: int) -> None:
        request = self._requests.get(reply.request)
        if request is None or request.peer != name:
            return  # too late, or never asked for
        self._forget_request(reply.request)
        match reply, request.ask:
            case Refused(), _:
                self._peers[name].refusing_until_ms = now_ms + REFUSAL_MS
                if request.range is not None and request.range.request == reply.request:
                    request.range.release()
            case BlockReply(_, block), GetBlock(_, block_hash):
                if block is not None:
                    self._on_block(name, block_hash, block, now_ms)
            case BlocksReply(), GetBlocks():
                self._on_blocks(name, request, reply, now_ms)
            case _:
                self._fail(name, request, "answered another question than it was asked", now_ms)

    def _on_block(self, name: Source, block_hash: Hash, block: Block, now_ms: int) -> None:
        try:
            if block.header.hash != block_hash:
                raise LightRejected(f"sent block {block.header.hash.hex()} for {block_hash.hex()}")
            check_body(block)
        except LightRejected as fault:
            self._accuse(name, str(fault), now_ms)
            return
        if block_hash in self._wants:
            self._drop_want(block_hash)
            self._effects.append(Deliver(block))

    def _on_blocks(self, name: Source, request: _Request, reply: BlocksReply, now_ms: int) -> None:
        wanted = request.range
        if wanted is None or not self._is_useful(wanted, request, reply):
            return
        try:
            self._check_blocks(wanted, request, reply)
        except LightRejected as fault:
            self._fail(name, request, str(fault), now_ms)
            return
        self._reward(name, len(reply.blocks), now_ms - request.asked_ms)
        self._extend(wanted, name, reply, now_ms)

    def _is_useful(self, wanted: _Range, request: _Request, reply: BlocksReply) -> bool:
        """Whether the blocks are still missing. A late answer may bring what another peer was asked for meanwhile, but
        takes nothing from it unless it proves itself."""
        if wanted.certificate is not None or not any(each is wanted for each in self._ranges):
            return False
        if wanted.request == reply.request:
            return True
        if isinstance(request.ask, GetBlock) or request.ask.from_height != wanted.next:
            return False
        return wanted.holder == request.peer or (reply.certificate is not None and not wanted.blocks)

    def _check_blocks(self, wanted: _Range, request: _Request, reply: BlocksReply) -> None:
        """Raises: LightRejected, for what no honest peer sends."""
        if isinstance(request.ask, GetBlock):
            raise AssertionError("blocks for a request of one")
        blocks, first, count = reply.blocks, request.ask.from_height, request.ask.count
        # To end with a certificate, a peer may go further than it was asked to.
        if not 1 <= len(blocks) <= (count if reply.certificate is None else RANGE_BLOCKS_MAX):
            raise LightRejected(f"sent {len(blocks)} blocks of {count} that it claims to have from {first}")
        if blocks[0].header.height != first:
            raise LightRejected(f"sent blocks from {blocks[0].header.height}, asked for from {first}")
        before = [each.header for each in wanted.blocks]
        headers = [each.header for each in blocks]
        if reply.certificate is not None:
            check_final(self._rules, self._validators, [*before, *headers], reply.certificate)
        else:
            check_chain(self._rules, [*before[-1:], *headers])
            if headers[-1].height == boundary_of(self._epoch, self._rules.epoch_blocks):
                raise LightRejected(
                    f"sent block {headers[-1].height}, the last of its epoch, without a finalization"
                )
        for block in blocks:
            check_body(block)

    def _extend(self, wanted: _Range, name: Source, reply: BlocksReply, now_ms: int) -> None:
        """The range has more blocks. A certificate proves them and ends it: what is missing above is another range."""
        fresh = [block for block in reply.blocks if block.header.height >= wanted.first]
        wanted.request = None
        if not fresh:  # all of it became final meanwhile
            wanted.release()
            return
        wanted.holder = name
        wanted.blocks += fresh
        wanted.size += sum(map(_size, fresh))
        if reply.certificate is not None:
            wanted.certificate = reply.certificate
            wanted.last = wanted.next - 1
            at = 1 + next(i for i, each in enumerate(self._ranges) if each is wanted)
            self._ranges = self._ranges[:at] + _from(self._ranges[at:], wanted.next)
        elif self._buffered_bytes() > UNPROVEN_BYTES_MAX:
            self._give_up_unproven(now_ms)

    def _give_up_unproven(self, now_ms: int) -> None:
        for each in self._ranges:
            if each.blocks and each.certificate is None and each.holder is not None:
                self._strike(each.holder, now_ms)
                each.release()

    def _on_final(self, head: Head, next_set: ValidatorSet | None, now_ms: int) -> None:
        if head.header.height <= self._head.header.height:
            return
        self._head, self._head_ms = head, now_ms
        if next_set is not None:
            self._epoch, self._validators = head.header.epoch + 1, next_set
        self._drop_want(head.block_hash)
        self._trim()

    def _trim(self) -> None:
        """What is final or being applied is not asked for. Answers that are on their way will be of no use."""
        self._ranges = _from(self._ranges, self._next_height)

    @property
    def _next_height(self) -> int:
        applying = 0 if self._applying is None else self._applying.last
        return max(self._head.header.height, applying) + 1

    def _buffered_bytes(self) -> int:
        applying = 0 if self._applying is None else self._applying.size
        return applying + sum(each.size for each in self._ranges)

    # --- who is good for what -----------------------------------------------------------------------------------------

    def _reward(self, name: Source, blocks: int, elapsed_ms: int) -> None:
        peer = self._peers[name]
        peer.strikes = max(peer.strikes - 1, 0)
        peer.blocks_max = min(peer.blocks_max * 2, RANGE_BLOCKS_MAX)
        peer.blocks_per_s = (3 * peer.blocks_per_s + blocks * 1_000 // max(elapsed_ms, 1)) // 4

    def _fail(self, name: Source, request: _Request, reason: str, now_ms: int) -> None:
        """The answer is a lie: its range goes to another peer."""
        if request.range is not None and request.range.holder == name:
            request.range.release()
        self._accuse(name, reason, now_ms)

    def _accuse(self, name: Source, reason: str, now_ms: int) -> None:
        self._effects.append(Misbehaved(name, reason))
        self._peers[name].blocks_per_s = 0
        self._strike(name, now_ms)

    def _strike(self, name: Source, now_ms: int) -> None:
        peer = self._peers[name]
        peer.strikes += 1
        peer.blocks_per_s //= 2
        if peer.strikes >= STRIKES_MAX:
            peer.strikes = 0
            peer.resting_until_ms = now_ms + REST_MS
            self._release_all(name)

    def _release_all(self, name: Source) -> None:
        for each in self._ranges:
            if each.holder == name and each.certificate is None:
                each.release()

    def _expire(self, now_ms: int) -> None:
        """Who did not answer in time is struck; its answer may still come."""
        for number, request in list(self._requests.items()):
            if number in self._late:
                if now_ms >= request.asked_ms + LATE_MS:
                    self._forget_request(number)
            elif now_ms >= request.asked_ms + ANSWER_MS:
                self._late.append(number)
                self._on_silence(number, request, now_ms)
        for number in self._late[: max(len(self._requests) - REQUESTS_MAX, 0)]:
            self._forget_request(number)
        for block_hash in [each for each, want in self._wants.items() if now_ms >= want.wanted_ms + WANT_MS]:
            self._drop_want(block_hash)

    def _on_silence(self, number: int, request: _Request, now_ms: int) -> None:
        peer = self._peers[request.peer]
        if peer.request == number:
            peer.request = None
            peer.blocks_max = max(peer.blocks_max // 2, 1)
        wanted = request.range
        if wanted is not None and wanted.request == number:
            wanted.request = None
            if not wanted.blocks:
                wanted.release()
        self._unlist(number, request)
        self._strike(request.peer, now_ms)

    def _forget_request(self, number: int) -> None:
        request = self._requests.pop(number)
        if number in self._late:
            self._late.remove(number)
        peer = self._peers.get(request.peer)
        if peer is not None and peer.request == number:
            peer.request = None
        self._unlist(number, request)

    def _unlist(self, number: int, request: _Request) -> None:
        """Of what is wanted it is no request any more, if it was: the block may have come and be wanted again."""
        if isinstance(request.ask, GetBlock):
            want = self._wants.get(request.ask.block_hash)
            if want is not None and number in want.requests:
                want.requests.remove(number)

    def _next_order(self) -> int:
        self._orders += 1
        return self._orders

    # --- ranges -------------------------------------------------------------------------------------------------------

    def _link(self, now_ms: int) -> None:
        """A proven range proves the one below that came without a certificate, or shows who lied."""
        for at in range(len(self._ranges) - 1, 0, -1):
            lower, upper = self._ranges[at - 1 : at + 1]
            if upper.certificate is None or lower.certificate is not None or not lower.is_complete:
                continue
            last, first = lower.blocks[-1].header, upper.blocks[0].header
            if first.parent_hash == last.hash:
                lower.blocks += upper.blocks
                lower.size += upper.size
                lower.last, lower.certificate = upper.last, upper.certificate
                del self._ranges[at]
            elif lower.holder is not None:
                name = lower.holder
                lower.release()
                self._accuse(name, f"sent block {last.height} {last.hash.hex()}, which is not final", now_ms)

    def _apply(self) -> None:
        if self._applying is not None or not self._ranges:
            return
        front, head = self._ranges[0], self._head
        if front.certificate is None or front.first != head.header.height + 1:
            return
        stands_on = front.blocks[0].header.parent_hash
        if stands_on != head.block_hash:
            self._has_diverged = True
            reason = (
                f"final block {front.first} stands on {stands_on.hex()}, not on block {head.header.height} "
                f"{head.block_hash.hex()}, which was final here; more than a third of the validators are faulty"
            )
            self._effects.append(Diverged(reason, front.certificate))
            return
        self._applying = self._ranges.pop(0)
        self._effects.append(Apply(tuple(front.blocks), front.certificate))

    def _open_ranges(self, now_ms: int) -> None:
        """When peers are further than consensus explains: all heights of the window that they claim, in ranges."""
        height = self._head.header.height
        best = max((peer.height for peer in self._peers.values() if peer.is_usable(now_ms)), default=0)
        ahead = 0 if now_ms >= self._head_ms + STALL_MS else AHEAD_BLOCKS
        if best <= height + ahead or now_ms < self._paused_until_ms:
            return
        end = min(best, boundary_of(self._epoch, self._rules.epoch_blocks), height + WINDOW_BLOCKS)
        ranges: list[_Range] = []
        at = self._next_height
        for each in self._ranges:
            ranges += _cut_up(at, each.first - 1)
            ranges.append(each)
            at = each.last + 1
        if ranges and ranges[-1].holder is None and at <= end:
            ranges[-1].last = min(ranges[-1].first + RANGE_BLOCKS_MAX - 1, end)
            at = ranges[-1].last + 1
        self._ranges = [*ranges, *_cut_up(at, end)]

    def _ask_ranges(self, now_ms: int) -> None:
        """The lowest first. Far ahead only while there is room for what may come."""
        asked = sum(peer.request is not None for peer in self._peers.values())
        room = BUFFER_BYTES_MAX - self._buffered_bytes() - asked * REPLY_BYTES
        is_lowest = True
        for wanted in self._ranges:
            if asked == RANGES_ASKED_MAX or (room < REPLY_BYTES and not is_lowest):
                return
            if wanted.certificate is None and wanted.request is None:
                name = self._peer_for(wanted, now_ms)
                if name is not None:
                    self._ask_range(wanted, name, now_ms)
                    asked += 1
                    room -= REPLY_BYTES
            is_lowest = is_lowest and wanted.is_complete

    def _peer_for(self, wanted: _Range, now_ms: int) -> Source | None:
        """Whom to ask for what the range lacks: who gave its blocks, unless that takes too long and another is free;
        else the fastest that has not failed with it."""
        holder = wanted.holder
        if holder is not None:
            others = [name for name in self._usable(wanted.first, now_ms) if name != holder]
            if now_ms < wanted.since_ms + RANGE_MS or not any(map(self._is_free, others)):
                may_go_on = holder in self._usable(wanted.next, now_ms) and self._is_free(holder)
                return holder if may_go_on and not wanted.is_complete else None
            self._strike(holder, now_ms)
            wanted.release()
        usable = self._usable(wanted.first, now_ms)
        if usable and all(name in wanted.tried for name in usable):
            wanted.tried.clear()
        fresh = [name for name in usable if name not in wanted.tried and self._is_free(name)]
        return min(fresh, key=self._rank, default=None)

    def _usable(self, height: int, now_ms: int) -> list[Source]:
        """Who claims to have the block of this height and may be asked."""
        return [n for n, peer in self._peers.items() if peer.height >= height and peer.is_usable(now_ms)]

    def _is_free(self, name: Source) -> bool:
        return self._peers[name].request is None

    def _rank(self, name: Source) -> tuple[int, int]:
        peer = self._peers[name]
        return -peer.blocks_per_s, peer.order

    def _ask_range(self, wanted: _Range, name: Source, now_ms: int) -> None:
        peer = self._peers[name]
        first = wanted.next
        count = min(wanted.last, peer.height) - first + 1
        ask = GetBlocks(self._next_request(), Height(first), min(count, peer.blocks_max))
        if wanted.holder != name:
            wanted.holder, wanted.since_ms = name, now_ms
        wanted.request = peer.request = ask.request
        self._send(name, ask, wanted, now_ms)

    def _send(self, name: Source, ask: GetBlock | GetBlocks, wanted: _Range | None, now_ms: int) -> None:
        self._peers[name].order = self._next_order()
        self._requests[ask.request] = _Request(name, ask, now_ms, wanted)
        self._effects.append(Ask(name, ask))

    def _next_request(self) -> int:
        self._last_request = (self._last_request + 1) % REQUEST_NUMBERS
        return self._last_request

    # --- single blocks ------------------------------------------------------------------------------------------------

    def _ask_blocks(self, now_ms: int) -> None:
        """One peer, then another if the first is slow; whoever signed for the block first."""
        for block_hash, want in self._wants.items():
            is_slow = now_ms >= want.asked_ms + HEDGE_MS and len(want.requests) < ASKED_AT_ONCE_MAX
            if want.requests and not is_slow:
                continue
            name = self._holder_for(want, now_ms)
            if name is None:
                continue
            ask = GetBlock(self._next_request(), block_hash)
            want.asked_ms = now_ms
            want.tried.append(name)
            want.requests.append(ask.request)
            self._send(name, ask, None, now_ms)

    def _holder_for(self, want: _Want, now_ms: int) -> Source | None:
        untried = [n for n, peer in self._peers.items() if n not in want.tried and peer.is_usable(now_ms)]
        return min(untried, key=lambda n: (not self._is_holder(n, want), self._peers[n].order), default=None)

    def _is_holder(self, name: Source, want: _Want) -> bool:
        validator = self._peers[name].validator
        return validator is not None and self._validators.place_of_address(validator) in want.holders

    def _drop_want(self, block_hash: Hash) -> None:
        self._wants.pop(block_hash, None)

    # --- for people ---------------------------------------------------------------------------------------------------

    def _tell_progress(self, now_ms: int) -> None:
        height = self._head.header.height
        if self.is_syncing(now_ms):
            told_ms, told_height = self._progress or (now_ms, height)
            if self._progress is None:
                self._progress = now_ms, height
            elif now_ms >= told_ms + PROGRESS_MS and height > told_height:
                self._progress = now_ms, height
                self._effects.append(Progress(Height(height), self.target(now_ms)))
        elif self._progress is not None:
            self._progress = None
            self._effects.append(Progress(Height(height), self.target(now_ms)))


def _from(ranges: list[_Range], first: int) -> list[_Range]:
    """What of the ranges is not below this height."""
    kept = [each for each in ranges if each.last >= first]
    for each in kept:
        if each.first < first:
            each.cut(first)
    return kept


def _cut_up(first: int, last: int) -> list[_Range]:
    starts = range(first, last + 1, RANGE_BLOCKS_MAX)
    return [_Range(start, min(start + RANGE_BLOCKS_MAX - 1, last)) for start in starts]


def _size(block: Block) -> int:
    return HEADER_BYTES + sum(map(len, block.transactions)) + sum(map(len, block.evidence))
