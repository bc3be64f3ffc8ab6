"""Transactions that wait for a block: a queue of nonces for each sender, within bounds.

Pure: time and accounts come as arguments. On a chain without fees there is no price to evict by, so room is shared
out instead: each sender has as many places as its role gives, ordinary senders together at most a part of the pool,
and a block takes one transaction of each sender in turn, a part of its places being the meters' own.

A transaction is *pending* when every nonce from the account's up to its own is here, else *queued*. When the pool is
full, a pending one may take the place of the oldest queued one; otherwise the newcomer is refused. Queued ones leave
after `lifetime_ms`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ctt_state.errors import InsufficientFunds, InvalidTransaction, NonceTooHigh, NonceTooLow
from ctt_state.modules.call import ChainParameters
from ctt_state.records import Account
from ctt_state.transaction import Signed
from ctt_state.transition import check_affordable
from ctt_state.units import Address, Ms

REPLACEMENT_PERCENT: Final = 110  # of the fee cap it replaces
METER_TURNS: Final = 3  # of each ten candidates, while meters and others both wait
TURNS: Final = 10


class PoolRole(IntEnum):
    """What a sender is to the pool."""

    ORDINARY = 0
    METER = 1
    CONCENTRATOR = 2
    OPERATOR = 3


@dataclass(frozen=True, slots=True)
class MempoolLimits:
    """The pool's bounds; places are transactions of one sender."""

    transactions_max: int = 20_000
    bytes_max: int = 64 * 1024 * 1024
    ordinary_percent: int = 70  # of both, for all ordinary senders together
    ordinary_places: int = 16
    meter_places: int = 64
    concentrator_places: int = 4_096
    operator_places: int = 1_024
    gap_max: int = 16  # missing nonces before a queued transaction
    lifetime_ms: Ms = Ms(600_000)

    def places(self, role: PoolRole) -> int:
        return (self.ordinary_places, self.meter_places, self.concentrator_places, self.operator_places)[role]


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
    """There is no room, and nothing that may give way."""

    def __init__(self) -> None:
        super().__init__("txpool is full")


class _Queue:
    """One sender's transactions. Those from `nonce` to below `gap` are all here: they are pending."""

    __slots__ = ("by_nonce", "gap", "nonce", "role", "value")

    def __init__(self, nonce: int, role: PoolRole) -> None:
        self.by_nonce: dict[int, Signed] = {}
        self.nonce = nonce  # the account's
        self.gap = nonce
        self.role = role
        self.value = 0  # of all its transactions, in wei

    def close_gap(self) -> None:
        while self.gap in self.by_nonce:
            self.gap += 1


class Mempool:
    """The pool of one node. `role_of` tells a sender's role by the state of now."""

    def __init__(
        self, chain: ChainParameters, limits: MempoolLimits, role_of: Callable[[Address], PoolRole]
    ) -> None:
        self._chain = chain
        self._limits = limits
        self._role_of = role_of
        self._queues: dict[Address, _Queue] = {}
        self._by_hash: dict[bytes, Signed] = {}
        self._queued: dict[bytes, Ms] = {}  # hash -> when it came; in that order
        self._bytes = 0
        self._ordinary_count = 0
        self._ordinary_bytes = 0
        self._now_ms = Ms(0)  # as last told

    def add(self, signed: Signed, account: Account, now_ms: Ms) -> None:
        """Takes the transaction in.

        Raises: AlreadyKnown, NonceTooLow, those of `check_affordable`, NonceTooHigh, ReplacementUnderpriced,
        AccountLimitExceeded, InsufficientFunds (for all that the sender has here), PoolFull, in that order.
        """
        transaction, sender = signed
        nonce = transaction.nonce
        self._now_ms = now_ms
        if transaction.hash in self._by_hash:
            raise AlreadyKnown
        if nonce < account.nonce:
            raise NonceTooLow(next_nonce=account.nonce, nonce=nonce)
        check_affordable(account, signed, self._chain)
        queue = self._queues.get(sender) or _Queue(account.nonce, self._role_of(sender))
        if nonce > queue.gap + self._limits.gap_max:
            raise NonceTooHigh(next_nonce=queue.gap, nonce=nonce)
        replaced = queue.by_nonce.get(nonce)
        self._check_place(queue, signed, replaced)
        value = queue.value + transaction.value - (replaced.transaction.value if replaced else 0)
        if value > account.balance:
            raise InsufficientFunds(have_wei=account.balance, want_wei=value)
        if replaced is None:
            self._make_room(queue, signed)
        else:
            self._forget(queue, replaced)
        self._queues[sender] = queue
        self._remember(queue, signed)

    def get(self, transaction_hash: bytes) -> Signed | None:
        return self._by_hash.get(transaction_hash)

    def pending_nonce(self, address: Address, account_nonce: int) -> int:
        """The nonce after the sender's pending ones."""
        queue = self._queues.get(address)
        return max(queue.gap, account_nonce) if queue else account_nonce

    def counts(self) -> tuple[int, int]:
        """How many are pending and queued."""
        return len(self._by_hash) - len(self._queued), len(self._queued)

    def content(self) -> tuple[dict[Address, list[Signed]], dict[Address, list[Signed]]]:
        """All of them by sender and nonce: pending, queued."""
        pending: dict[Address, list[Signed]] = {}
        queued: dict[Address, list[Signed]] = {}
        for sender, queue in self._queues.items():
            for nonce in sorted(queue.by_nonce):
                part = pending if nonce < queue.gap else queued
                part.setdefault(sender, []).append(queue.by_nonce[nonce])
        return pending, queued

    def candidates(self) -> Iterator[Signed]:
        """The pending ones in the order for a block: a turn for each sender, in nonce order; three turns of ten are
        the meters' while both they and others wait."""
        meters: deque[tuple[_Queue, int]] = deque()
        others: deque[tuple[_Queue, int]] = deque()
        for queue in self._queues.values():
            if queue.gap > queue.nonce:
                is_meter = queue.role in (PoolRole.METER, PoolRole.CONCENTRATOR)
                (meters if is_meter else others).append((queue, queue.nonce))
        turn = 0
        while meters or others:
            lane = meters if meters and (turn % TURNS < METER_TURNS or not others) else others
            queue, nonce = lane.popleft()
            yield queue.by_nonce[nonce]
            if nonce + 1 < queue.gap:
                lane.append((queue, nonce + 1))
            turn += 1

    def on_block(self, nonces: Iterable[tuple[Address, int]], now_ms: Ms) -> None:
        """A block is final: these senders' accounts now have these nonces. What is used up or too old leaves."""
        for sender, nonce in nonces:
            queue = self._queues.get(sender)
            if queue is not None:
                self._advance(sender, queue, nonce)
        self._expire(now_ms)

    def drop(self, transaction_hash: bytes) -> None:
        """Takes out one that cannot be included; what followed it waits for its nonce."""
        signed = self._by_hash.get(transaction_hash)
        if signed is None:
            return
        queue = self._queues[signed.sender]
        self._forget(queue, signed)
        self._delete_empty(signed.sender, queue)

    # --------------------------------------------------------------------------------------------------------------

    def _check_place(self, queue: _Queue, signed: Signed, replaced: Signed | None) -> None:
        """Raises: ReplacementUnderpriced, AccountLimitExceeded."""
        places = self._limits.places(queue.role)
        if replaced is not None:
            price, offered = replaced.transaction.max_fee, signed.transaction.max_fee
            if offered <= price or offered * 100 < price * REPLACEMENT_PERCENT:
                raise ReplacementUnderpriced
        elif len(queue.by_nonce) >= places:
            raise AccountLimitExceeded(places=places)

    def _make_room(self, queue: _Queue, signed: Signed) -> None:
        """Raises: PoolFull."""
        size, limits = len(signed.transaction.raw), self._limits
        share = limits.ordinary_percent
        if queue.role is PoolRole.ORDINARY and (
            self._ordinary_count + 1 > limits.transactions_max * share // 100
            or self._ordinary_bytes + size > limits.bytes_max * share // 100
        ):
            raise PoolFull
        while len(self._by_hash) >= limits.transactions_max or self._bytes + size > limits.bytes_max:
            if signed.transaction.nonce > queue.gap or not self._queued:
                raise PoolFull
            self.drop(next(iter(self._queued)))

    def _remember(self, queue: _Queue, signed: Signed) -> None:
        transaction = signed.transaction
        size = len(transaction.raw)
        queue.by_nonce[transaction.nonce] = signed
        queue.value += transaction.value
        self._by_hash[transaction.hash] = signed
        self._bytes += size
        if queue.role is PoolRole.ORDINARY:
            self._ordinary_count += 1
            self._ordinary_bytes += size
        self._queued[transaction.hash] = self._now_ms
        self._promote(queue)

    def _promote(self, queue: _Queue) -> None:
        """What now follows without a gap is pending."""
        first = queue.gap
        queue.close_gap()
        for nonce in range(first, queue.gap):
            self._queued.pop(queue.by_nonce[nonce].transaction.hash, None)

    def _forget(self, queue: _Queue, signed: Signed) -> None:
        """Takes one out; those behind it, if they were pending, are queued from now on."""
        transaction = signed.transaction
        size = len(transaction.raw)
        del queue.by_nonce[transaction.nonce]
        del self._by_hash[transaction.hash]
        since = self._queued.pop(transaction.hash, None)
        queue.value -= transaction.value
        self._bytes -= size
        if queue.role is PoolRole.ORDINARY:
            self._ordinary_count -= 1
            self._ordinary_bytes -= size
        if since is None and transaction.nonce >= queue.nonce:
            for nonce in range(transaction.nonce + 1, queue.gap):
                self._queued[queue.by_nonce[nonce].transaction.hash] = self._now_ms
            queue.gap = transaction.nonce

    def _advance(self, sender: Address, queue: _Queue, nonce: int) -> None:
        """The account has reached this nonce: what is below it leaves."""
        for used in range(queue.nonce, nonce):
            signed = queue.by_nonce.get(used)
            if signed is not None:
                queue.nonce = used + 1  # it leaves in order: nothing behind it loses its place
                self._forget(queue, signed)
        queue.nonce = nonce
        queue.gap = max(queue.gap, nonce)
        self._promote(queue)
        self._delete_empty(sender, queue)

    def _expire(self, now_ms: Ms) -> None:
        self._now_ms = now_ms
        while self._queued:
            transaction_hash, since = next(iter(self._queued.items()))
            if now_ms - since < self._limits.lifetime_ms:
                return
            self.drop(transaction_hash)

    def _delete_empty(self, sender: Address, queue: _Queue) -> None:
        if not queue.by_nonce:
            del self._queues[sender]
