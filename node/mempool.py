"""Transactions that wait for a block: a queue of nonces for each sender, within bounds.

Pure: time, accounts and roles come from the caller. A transaction is *pending* when all nonces from its sender's
account up to its own are here, else *queued*: pending ones can be in the next block, queued ones wait for a nonce.

A chain without fees has no price to evict by, so room is shared out instead. Each sender has as many places as its
role gives. Ordinary senders together fill at most `ordinary_percent` of the pool; the rest is kept for the reserved
lane: meters, concentrators and operators. A block takes one transaction of each sender in turn, and while both lanes
wait the reserved one gets its share of the block's gas too.

What when full:

- A pending transaction never gives way to any other, except to its own replacement.
- A queued newcomer is refused.
- A pending newcomer displaces queued ones, those that wait longest first, and is refused if all of them together are
  not enough. An ordinary sender displaces only ordinary ones; the reserved lane displaces ordinary ones, then its own.
- A pending newcomer whose sender has no place left displaces the queued one that came last of this sender.

So nobody gains room by sending nonces that cannot run, and no transaction in line for the next block loses its place.

A transaction leaves when its nonce is used, when it is replaced, displaced or dropped, and, if queued, after
`lifetime_ms`. All that a sender has here may cost no more than its balance when the last one came. Its balance falls
only by its own transactions, so this holds until a block brings others of the same nonces; then building a block finds
out, and drops.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from ctt_state.errors import InsufficientFunds, InvalidTransaction, NonceTooHigh, NonceTooLow
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Account
from ctt_state.transaction import Signed, intrinsic_gas
from ctt_state.transition import check_affordable
from ctt_state.units import Address, Hash

REPLACEMENT_PERCENT: Final = 110  # of the fee cap it replaces


class PoolRole(IntEnum):
    """What a sender is to the pool."""

    ORDINARY = 0
    METER = 1
    CONCENTRATOR = 2
    OPERATOR = 3  # admin and validators too


@dataclass(frozen=True, slots=True)
class MempoolLimits:
    """The pool's bounds. Places are transactions of one sender, gaps the nonces that may be missing before one."""

    transactions_max: int = 20_000
    bytes_max: int = 67_108_864  # of signed envelopes; decoded they take twice that and about 1 KiB each
    ordinary_percent: int = 70  # of both, for all ordinary senders together; and of a block while others wait
    ordinary_places: int = 16
    meter_places: int = 64
    concentrator_places: int = 4_096
    operator_places: int = 1_024
    gap_max: int = 16
    concentrator_gap_max: int = 256  # it sends in parallel, so its transactions overtake each other
    lifetime_ms: int = 600_000  # of a queued transaction

    def places(self, role: PoolRole) -> int:
        return (self.ordinary_places, self.meter_places, self.concentrator_places, self.operator_places)[role]

    def gap(self, role: PoolRole) -> int:
        return self.concentrator_gap_max if role is PoolRole.CONCENTRATOR else self.gap_max


class AlreadyKnown(InvalidTransaction):
    """The transaction is in the pool or in the chain."""

    def __init__(self) -> None:
        super().__init__("already known")


class ReplacementUnderpriced(InvalidTransaction):
    """Another transaction has this sender and nonce, and the newcomer does not offer a tenth more."""

    def __init__(self) -> None:
        super().__init__("replacement transaction underpriced")


class AccountLimitExceeded(InvalidTransaction):
    """The sender's places are taken."""

    def __init__(self, *, places: int) -> None:
        super().__init__(f"account limit exceeded: {places} pending")


class PoolFull(InvalidTransaction):
    """There is no room, and not enough that may give way."""

    def __init__(self) -> None:
        super().__init__("txpool is full")


class PoolContent(NamedTuple):
    """All transactions by sender, each sender's in nonce order."""

    pending: dict[Address, list[Signed]]
    queued: dict[Address, list[Signed]]


class Candidates(Iterator[Signed]):
    """Transactions for a block. While both lanes wait, the reserved one gets its percentage of the gas, so that neither
    many nor costly transactions crowd it out: of the intrinsic gas, until `charge` tells what a rule has used."""

    def __init__(self, reserved: Iterable[Signed], ordinary: Iterable[Signed], ordinary_percent: int) -> None:
        self._reserved, self._ordinary = iter(reserved), iter(ordinary)
        self._next_reserved, self._next_ordinary = next(self._reserved, None), next(self._ordinary, None)
        self._ordinary_percent = ordinary_percent
        self._owed = 0  # to the reserved lane, in percent of gas
        self._last_is_reserved = False
        self._last_gas = 0

    def __next__(self) -> Signed:
        reserved, ordinary = self._next_reserved, self._next_ordinary
        self._last_gas = 0
        if reserved and (self._owed >= 0 or not ordinary):
            given, self._next_reserved, self._last_is_reserved = reserved, next(self._reserved, None), True
        elif ordinary:
            given, self._next_ordinary, self._last_is_reserved = ordinary, next(self._ordinary, None), False
        else:
            raise StopIteration
        self.charge(intrinsic_gas(given.transaction))
        return given

    def charge(self, gas: int) -> None:
        """What the last one given has used in all."""
        more, self._last_gas = gas - self._last_gas, gas
        percent = self._ordinary_percent
        self._owed += -more * percent if self._last_is_reserved else more * (100 - percent)


class Mempool:
    """The pool of one node. `role_of` tells a sender's role by the state of now: it is asked when a sender's first
    transaction comes, and again after each block that used one of its nonces and left others here."""

    def __init__(
        self, chain: ChainParameters, limits: MempoolLimits, role_of: Callable[[Address], PoolRole]
    ) -> None:
        self._chain = chain
        self._limits = limits
        self._role_of = role_of
        self._ordinary = _Lane()
        self._reserved = _Lane()
        self._queues: dict[Address, _Queue] = {}  # none is empty
        self._by_hash: dict[Hash, Signed] = {}
        self._now_ms = 0  # as last told

    # --- what comes and goes --------------------------------------------------------------------------------------

    def add(self, signed: Signed, account: Account, now_ms: int) -> None:
        """Takes the transaction in. `account` is the sender's at the head; `now_ms` is of any clock that does not
        jump, the same one in all calls.

        A replacement must offer at least a tenth more for its gas, and more in any case: one that offers nothing
        cannot replace one that offers nothing. When it raises, only what is used up or too old has left.

        Raises: AlreadyKnown, NonceTooLow, those of `check_affordable`, NonceTooHigh, ReplacementUnderpriced,
        AccountLimitExceeded, InsufficientFunds (for all that the sender has here), PoolFull, in that order.
        """
        transaction, sender = signed
        self.on_block(((sender, account.nonce),), now_ms)
        if transaction.hash in self._by_hash:
            raise AlreadyKnown
        queue = self._queues.get(sender)
        first_nonce = queue.nonce if queue else account.nonce
        if transaction.nonce < first_nonce:
            raise NonceTooLow(next_nonce=first_nonce, nonce=transaction.nonce)
        check_affordable(account, signed, self._chain)
        queue = queue or _Queue(sender, account.nonce, self._role_of(sender))
        replaced = queue.get(transaction.nonce)
        displaced = self._check_place(queue, signed, replaced)
        leaving = replaced or displaced
        cost = queue.cost_wei + self._cost_wei(signed) - (self._cost_wei(leaving) if leaving else 0)
        if cost > account.balance:
            raise InsufficientFunds(have_wei=account.balance, want_wei=cost)
        self._make_room(queue, signed, replaced, displaced)

        # Nothing below may fail.
        if replaced is None:
            self._insert(queue, signed)
        else:
            self._swap(queue, replaced, signed)

    def on_block(self, nonces: Iterable[tuple[Address, int]], now_ms: int) -> None:
        """A block is final, made here or elsewhere: these senders' accounts now have these nonces. What is used up
        or too old leaves, what now follows without a gap is pending, and the senders go behind those that wait."""
        for sender, nonce in nonces:
            queue = self._queues.get(sender)
            if queue is not None and nonce > queue.nonce:
                self._advance(queue, nonce)
        self._expire(now_ms)

    def drop(self, transaction_hash: bytes) -> None:
        """Takes out one that cannot be included; what followed it waits for its nonce, from now on."""
        signed = self._by_hash.get(Hash(transaction_hash))
        if signed is None:
            return
        queue = self._queues[signed.sender]
        if signed.transaction.nonce in queue.pending:
            self._demote(queue, signed.transaction.nonce)
        self._remove_queued(signed)

    # --- what it holds --------------------------------------------------------------------------------------------

    def candidates(self, count_max: int | None = None, besides: Container[Hash] = ()) -> "Candidates":
        """The pending ones in the order for a block, at most so many of each lane, without those of `besides`.

        Each lane gives one of each sender in turn, in nonce order, beginning with the sender that waits longest for its
        turn. The pool may change before they are taken.
        """

        def take(lane: _Lane) -> list[Signed]:
            waiting = (each for each in lane.turns() if each.transaction.hash not in besides)
            return list(islice(waiting, count_max))

        return Candidates(take(self._reserved), take(self._ordinary), self._limits.ordinary_percent)

    def get(self, transaction_hash: bytes) -> Signed | None:
        return self._by_hash.get(Hash(transaction_hash))

    def pending_nonce(self, address: Address, account_nonce: int) -> int:
        """The nonce after the sender's pending ones."""
        queue = self._queues.get(address)
        return max(queue.next_nonce, account_nonce) if queue else account_nonce

    def counts(self) -> tuple[int, int]:
        """How many are pending and queued."""
        queued = len(self._ordinary.queued) + len(self._reserved.queued)
        return len(self._by_hash) - queued, queued

    def size_bytes(self) -> int:
        """The length of all signed envelopes here."""
        return self._ordinary.size_bytes + self._reserved.size_bytes

    def content(self) -> PoolContent:
        content = PoolContent({}, {})
        for sender, queue in self._queues.items():
            if queue.pending:
                content.pending[sender] = list(queue.pending.values())
            if queue.queued:
                content.queued[sender] = [queue.queued[nonce] for nonce in sorted(queue.queued)]
        return content

    # --- admission ------------------------------------------------------------------------------------------------

    def _check_place(self, queue: "_Queue", signed: Signed, replaced: Signed | None) -> Signed | None:
        """Gives the sender's own transaction that must leave for this one, if any.

        Raises: NonceTooHigh, ReplacementUnderpriced, AccountLimitExceeded, in that order.
        """
        nonce, next_nonce = signed.transaction.nonce, queue.next_nonce
        if nonce - next_nonce > self._limits.gap(queue.role):
            raise NonceTooHigh(next_nonce=next_nonce, nonce=nonce)
        if replaced is not None:
            price, offered = replaced.transaction.max_fee, signed.transaction.max_fee
            if offered <= price or offered * 100 < price * REPLACEMENT_PERCENT:
                raise ReplacementUnderpriced
            return None
        places = self._limits.places(queue.role)
        if len(queue.pending) + len(queue.queued) < places:
            return None
        if nonce > next_nonce or not queue.queued:
            raise AccountLimitExceeded(places=places)
        return queue.queued[next(reversed(queue.queued))]

    def _make_room(
        self, queue: "_Queue", signed: Signed, replaced: Signed | None, displaced: Signed | None
    ) -> None:
        """Raises: PoolFull; nothing has left then."""
        count, size_bytes = 1, len(signed.transaction.raw)
        if replaced is not None:
            count, size_bytes = 0, size_bytes - len(replaced.transaction.raw)
        lane = self._lane(queue.role)
        if displaced is None and self._fits(lane, count, size_bytes):
            return
        giving = (self._ordinary,) if lane is self._ordinary else (self._ordinary, self._reserved)
        least_count = count - sum(len(each.queued) for each in giving)
        least_bytes = size_bytes - sum(each.queued_bytes for each in giving)
        if signed.transaction.nonce > queue.next_nonce or not self._fits(lane, least_count, least_bytes):
            raise PoolFull
        if displaced is not None:
            self._remove_queued(displaced)
        while not self._fits(lane, count, size_bytes):
            self._remove_queued(next(each for each in giving if each.queued).oldest())

    def _fits(self, lane: "_Lane", count: int, size_bytes: int) -> bool:
        """Whether the lane may have so many transactions and bytes more."""
        limits, ordinary = self._limits, self._ordinary
        if lane is ordinary and (
            100 * (ordinary.count + count) > limits.transactions_max * limits.ordinary_percent
            or 100 * (ordinary.size_bytes + size_bytes) > limits.bytes_max * limits.ordinary_percent
        ):
            return False
        return (
            len(self._by_hash) + count <= limits.transactions_max
            and ordinary.size_bytes + self._reserved.size_bytes + size_bytes <= limits.bytes_max
        )

    def _cost_wei(self, signed: Signed) -> int:
        """The most that the transaction takes from its sender."""
        transaction = signed.transaction
        return transaction.value + transaction.gas_limit * self._chain.minimum_gas_price_wei

    # --- books ----------------------------------------------------------------------------------------------------

    def _lane(self, role: PoolRole) -> "_Lane":
        return self._ordinary if role is PoolRole.ORDINARY else self._reserved

    def _insert(self, queue: "_Queue", signed: Signed) -> None:
        transaction, sender = signed
        lane = self._lane(queue.role)
        self._queues[sender] = queue
        self._by_hash[transaction.hash] = signed
        queue.cost_wei += self._cost_wei(signed)
        lane.count += 1
        lane.size_bytes += len(transaction.raw)
        if transaction.nonce > queue.next_nonce:
            queue.queued[transaction.nonce] = signed
            lane.enqueue(signed, self._now_ms)
        else:
            queue.pending[transaction.nonce] = signed
            lane.ready[sender] = queue
            if queue.queued:
                self._promote(queue)

    def _swap(self, queue: "_Queue", replaced: Signed, signed: Signed) -> None:
        """Puts one transaction into the other's place; a queued one comes last then, and its life begins anew."""
        lane, transaction = self._lane(queue.role), signed.transaction
        del self._by_hash[replaced.transaction.hash]
        self._by_hash[transaction.hash] = signed
        queue.cost_wei += self._cost_wei(signed) - self._cost_wei(replaced)
        lane.size_bytes += len(transaction.raw) - len(replaced.transaction.raw)
        if transaction.nonce in queue.pending:
            queue.pending[transaction.nonce] = signed
        else:
            del queue.queued[transaction.nonce]
            queue.queued[transaction.nonce] = signed
            lane.dequeue(replaced)
            lane.enqueue(signed, self._now_ms)

    def _release(self, queue: "_Queue", signed: Signed) -> None:
        """Forgets one that its queue no longer has."""
        lane, transaction = self._lane(queue.role), signed.transaction
        del self._by_hash[transaction.hash]
        queue.cost_wei -= self._cost_wei(signed)
        lane.count -= 1
        lane.size_bytes -= len(transaction.raw)

    def _remove_queued(self, signed: Signed) -> None:
        queue = self._queues[signed.sender]
        self._lane(queue.role).dequeue(signed)
        self._release(queue, queue.queued.pop(signed.transaction.nonce))
        if not queue.queued and not queue.pending:
            del self._queues[signed.sender]

    def _promote(self, queue: "_Queue") -> None:
        """What follows the pending ones without a gap is pending."""
        lane, nonce = self._lane(queue.role), queue.next_nonce
        while (signed := queue.queued.pop(nonce, None)) is not None:
            queue.pending[nonce] = signed
            lane.dequeue(signed)
            nonce += 1

    def _demote(self, queue: "_Queue", first: int) -> None:
        """The pending ones from this nonce up are queued from now on."""
        lane = self._lane(queue.role)
        for nonce in range(first, queue.next_nonce):
            signed = queue.queued[nonce] = queue.pending.pop(nonce)
            lane.enqueue(signed, self._now_ms)
        if not queue.pending:
            del lane.ready[queue.sender]

    def _advance(self, queue: "_Queue", nonce: int) -> None:
        """The account has reached this nonce."""
        next_nonce, pending = queue.next_nonce, queue.pending
        for used in range(queue.nonce, min(nonce, next_nonce)):
            self._release(queue, pending.pop(used))
        queue.nonce = nonce
        if queue.queued and nonce > next_nonce:
            for used in [each for each in queue.queued if each < nonce]:
                signed = queue.queued.pop(used)
                self._lane(queue.role).dequeue(signed)
                self._release(queue, signed)
            self._promote(queue)
        self._lane(queue.role).ready.pop(queue.sender, None)
        if not pending and not queue.queued:
            del self._queues[queue.sender]
            return
        self._refresh_role(queue)
        if pending:
            self._lane(queue.role).ready[queue.sender] = queue

    def _refresh_role(self, queue: "_Queue") -> None:
        """A sender whose role has changed takes all that it has here along to its lane, even above its new places
        and the lane's share: from then on it is only refused more."""
        before, role = self._lane(queue.role), self._role_of(queue.sender)
        queue.role = role
        after = self._lane(role)
        if after is before:
            return
        for signed in queue.queued.values():
            before.dequeue(signed)
            after.enqueue(signed, self._now_ms)
        size_bytes = sum(
            len(signed.transaction.raw) for part in (queue.pending, queue.queued) for signed in part.values()
        )
        before.size_bytes -= size_bytes
        after.size_bytes += size_bytes
        before.count -= len(queue.pending) + len(queue.queued)
        after.count += len(queue.pending) + len(queue.queued)

    def _expire(self, now_ms: int) -> None:
        """Takes out the queued ones whose life is over: each lane has them in the order in which they came."""
        self._now_ms = now_ms
        for lane in (self._ordinary, self._reserved):
            while lane.queued and now_ms - lane.oldest_since_ms() >= self._limits.lifetime_ms:
                self._remove_queued(lane.oldest())


class _Queue:
    """One sender's transactions. Pending ones have the nonces from `nonce` on without a gap, in this order; queued
    ones are in the order in which they came."""

    __slots__ = ("cost_wei", "nonce", "pending", "queued", "role", "sender")

    def __init__(self, sender: Address, nonce: int, role: PoolRole) -> None:
        self.sender = sender
        self.nonce = nonce  # the account's
        self.role = role
        self.pending: dict[int, Signed] = {}
        self.queued: dict[int, Signed] = {}
        self.cost_wei = 0  # of all of them

    @property
    def next_nonce(self) -> int:
        return self.nonce + len(self.pending)

    def get(self, nonce: int) -> Signed | None:
        return self.pending.get(nonce) or self.queued.get(nonce)


class _Lane:
    """What the senders of one lane have here together."""

    __slots__ = ("count", "queued", "queued_bytes", "ready", "size_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        # In the order of the times. Taken from the front again and again, which takes a plain dict linear time.
        self.queued: OrderedDict[Hash, tuple[Signed, int]] = OrderedDict()
        self.queued_bytes = 0
        self.ready: OrderedDict[Address, _Queue] = OrderedDict()  # with pending ones; the next turn first

    def enqueue(self, signed: Signed, now_ms: int) -> None:
        self.queued[signed.transaction.hash] = (signed, now_ms)
        self.queued_bytes += len(signed.transaction.raw)

    def dequeue(self, signed: Signed) -> None:
        del self.queued[signed.transaction.hash]
        self.queued_bytes -= len(signed.transaction.raw)

    def oldest(self) -> Signed:
        return self.queued[next(iter(self.queued))][0]

    def oldest_since_ms(self) -> int:
        return self.queued[next(iter(self.queued))][1]

    def turns(self) -> Iterator[Signed]:
        """The pending ones: one of each sender in turn. Looks at no sender before its first turn."""
        waiting: deque[Iterator[Signed]] = deque()
        for queue in self.ready.values():
            run = iter(queue.pending.values())
            yield next(run)
            if len(queue.pending) > 1:
                waiting.append(run)
        while waiting:
            run = waiting.popleft()
            for signed in run:
                yield signed
                waiting.append(run)
                break
