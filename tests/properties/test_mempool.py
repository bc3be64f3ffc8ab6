"""The pool against a naive one, which keeps a list and works everything out anew after each step."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ctt_state.errors import InsufficientFunds, InvalidTransaction, NonceTooHigh, NonceTooLow
from ctt_state.records import Account
from ctt_state.transaction import Signed
from ctt_state.units import Address, Wei
from node.mempool import (
    AccountLimitExceeded,
    AlreadyKnown,
    Mempool,
    MempoolLimits,
    PoolFull,
    PoolRole,
    ReplacementUnderpriced,
)
from tests.test_mempool import CHAIN, make_transaction
from tests.world import address

SENDERS: Final = tuple(address(name) for name in ("alice", "bob", "meter", "concentrator", "operator"))
LIMITS: Final = MempoolLimits(
    transactions_max=9,
    bytes_max=1_000,
    ordinary_percent=70,
    ordinary_places=3,
    meter_places=4,
    concentrator_places=6,
    operator_places=4,
    gap_max=3,
    concentrator_gap_max=5,
    lifetime_ms=100,
)
PLACES: Final = {
    PoolRole.ORDINARY: 3,
    PoolRole.METER: 4,
    PoolRole.CONCENTRATOR: 6,
    PoolRole.OPERATOR: 4,
}


class Held(NamedTuple):
    """A transaction and when it last became queued, as a step and in ms; that means nothing while it is pending."""

    signed: Signed
    step: int
    since_ms: int


@dataclass
class Sender:
    """What the state says of it, and the role that the pool goes by."""

    account: Account
    role: PoolRole
    pool_role: PoolRole


class NaivePool:
    """The rules of the pool in as many words, at any price."""

    def __init__(self, senders: dict[Address, Sender]) -> None:
        self.senders = senders
        self.held: list[Held] = []
        self.turns: list[Address] = []  # senders with pending ones, the next turn first
        self.step = 0
        self.now_ms = 0

    # --- what is what ---

    def of(self, sender: Address) -> dict[int, Held]:
        return {each.signed.transaction.nonce: each for each in self.held if each.signed.sender == sender}

    def pending(self, sender: Address) -> list[Signed]:
        mine, nonce, run = self.of(sender), self.senders[sender].account.nonce, []
        while nonce in mine:
            run.append(mine[nonce].signed)
            nonce += 1
        return run

    def queued(self) -> list[Held]:
        """All of them, the one that waits longest first."""
        pending = {each for sender in self.senders for each in self.pending(sender)}
        return sorted((each for each in self.held if each.signed not in pending), key=lambda held: held.step)

    def queued_of(self, sender: Address) -> list[Held]:
        return [each for each in self.queued() if each.signed.sender == sender]

    def next_nonce(self, sender: Address) -> int:
        return self.senders[sender].account.nonce + len(self.pending(sender))

    def is_ordinary(self, sender: Address) -> bool:
        return self.senders[sender].pool_role is PoolRole.ORDINARY

    def size_bytes(self) -> int:
        return sum(len(each.signed.transaction.raw) for each in self.held)

    # --- what happens ---

    def add(self, signed: Signed) -> type[InvalidTransaction] | None:
        self.expire()
        transaction, who = signed
        sender = self.senders[who]
        if not self.of(who):
            sender.pool_role = sender.role
        mine, next_nonce = self.of(who), self.next_nonce(who)
        replaced = mine.get(transaction.nonce)
        if any(each.signed.transaction.hash == transaction.hash for each in self.held):
            return AlreadyKnown
        if transaction.nonce < sender.account.nonce:
            return NonceTooLow
        if transaction.value > sender.account.balance:
            return InsufficientFunds
        if transaction.nonce > next_nonce + (5 if sender.pool_role is PoolRole.CONCENTRATOR else 3):
            return NonceTooHigh
        price = replaced.signed.transaction.max_fee if replaced else 0
        if replaced and (transaction.max_fee <= price or 10 * transaction.max_fee < 11 * price):
            return ReplacementUnderpriced
        leaving = [replaced] if replaced else []
        if not replaced and len(mine) >= PLACES[sender.pool_role]:
            if transaction.nonce > next_nonce or not self.queued_of(who):
                return AccountLimitExceeded
            leaving = [self.queued_of(who)[-1]]
        stay = [each for each in mine.values() if each not in leaving]
        if sum(each.signed.transaction.value for each in stay) + transaction.value > sender.account.balance:
            return InsufficientFunds
        giving = [each for each in self.queued() if each not in leaving]
        mine_to_take = [each for each in giving if self.is_ordinary(each.signed.sender)]
        if not self.is_ordinary(who):
            mine_to_take += [each for each in giving if each not in mine_to_take]
        while not self.fits(signed, leaving):
            if transaction.nonce > next_nonce or not mine_to_take:
                return PoolFull
            leaving.append(mine_to_take.pop(0))
        self.change(added=signed, leaving=leaving)
        return None

    def fits(self, signed: Signed, leaving: list[Held]) -> bool:
        after = [signed, *(each.signed for each in self.held if each not in leaving)]
        ordinary = [each for each in after if self.is_ordinary(each.sender)]
        return (
            len(after) <= 9
            and sum(len(each.transaction.raw) for each in after) <= 1_000
            and (
                not self.is_ordinary(signed.sender)
                or (len(ordinary) <= 6 and sum(len(each.transaction.raw) for each in ordinary) <= 700)
            )
        )

    def block(self, nonces: list[tuple[Address, int]]) -> None:
        for who, nonce in nonces:
            sender = self.senders[who]
            if nonce <= sender.account.nonce:
                continue
            queued = self.queued_of(who)
            sender.account = sender.account._replace(nonce=nonce)
            self.change(
                leaving=[each for each in self.of(who).values() if each.signed.transaction.nonce < nonce]
            )
            if who in self.turns:
                self.turns.remove(who)
                self.turns.append(who)
            if self.of(who) and sender.role is not sender.pool_role:
                changed_lane = PoolRole.ORDINARY in (sender.role, sender.pool_role)
                sender.pool_role = sender.role
                if changed_lane:
                    self.requeue([each for each in queued if each in self.queued()])
        self.expire()

    def drop(self, signed: Signed) -> None:
        self.change(leaving=[each for each in self.held if each.signed == signed])

    def expire(self) -> None:
        self.change(leaving=[each for each in self.queued() if self.now_ms - each.since_ms >= 100])

    def change(self, *, leaving: list[Held], added: Signed | None = None) -> None:
        queued = self.queued()
        self.held = [each for each in self.held if each not in leaving]
        if added:
            self.held.append(Held(added, -1, -1))
        newly = [each for each in self.queued() if each not in queued]
        self.requeue(sorted(newly, key=lambda held: held.signed.transaction.nonce))
        ready = [sender for sender in self.senders if self.pending(sender)]
        self.turns = [sender for sender in self.turns if sender in ready]
        self.turns += [sender for sender in ready if sender not in self.turns]

    def requeue(self, queued: list[Held]) -> None:
        for each in queued:
            self.step += 1
            self.held.remove(each)
            self.held.append(Held(each.signed, self.step, self.now_ms))

    def turns_of(self, *, ordinary: bool) -> list[Signed]:
        runs = [self.pending(sender) for sender in self.turns if self.is_ordinary(sender) is ordinary]
        longest = max(map(len, runs), default=0)
        return [run[turn] for turn in range(longest) for run in runs if turn < len(run)]


class PoolMachine(RuleBasedStateMachine):
    """Both pools get the same; after each step they must hold the same and give the same order."""

    def __init__(self) -> None:
        super().__init__()
        roles = (
            PoolRole.ORDINARY,
            PoolRole.ORDINARY,
            PoolRole.METER,
            PoolRole.CONCENTRATOR,
            PoolRole.OPERATOR,
        )
        self.senders = {
            who: Sender(Account(0, Wei(20)), role, role) for who, role in zip(SENDERS, roles, strict=True)
        }
        self.naive = NaivePool(self.senders)
        self.pool = Mempool(CHAIN, LIMITS, lambda who: self.senders[who].role)

    @rule(
        who=st.sampled_from(SENDERS),
        ahead=st.one_of(st.just(0), st.integers(-4, 6)),
        value=st.sampled_from((0, 0, 0, 3, 10, 21)),
        max_fee=st.sampled_from((0, 0, 1, 10, 11)),
        size_bytes=st.sampled_from((1, 100, 100, 150, 400)),
    )
    def add(self, who: Address, ahead: int, value: int, max_fee: int, size_bytes: int) -> None:
        """From four before the next nonce, so used ones and replacements too, to beyond the widest gap."""
        nonce = max(self.naive.next_nonce(who) + ahead, 0)
        signed = make_transaction(who, nonce, value=value, max_fee=max_fee, size_bytes=size_bytes)
        reason: type[InvalidTransaction] | None = None
        account = self.senders[who].account
        try:
            self.pool.add(signed, account, self.naive.now_ms)
        except InvalidTransaction as refusal:
            reason = type(refusal)
        assert reason is self.naive.add(signed)

    @rule(who=st.sampled_from(SENDERS), count=st.integers(2, 6))
    def add_in_order(self, who: Address, count: int) -> None:
        for _ in range(count):
            self.add(who, 0, 0, 0, 50)

    @rule(count=st.integers(0, 6))
    def include_candidates(self, count: int) -> None:
        """A block of our own: the first so many."""
        nonces: dict[Address, int] = {}
        for signed, _ in zip(self.pool.candidates(), range(count), strict=False):
            nonces[signed.sender] = signed.transaction.nonce + 1
        self.block(list(nonces.items()))

    @rule(steps=st.lists(st.tuples(st.sampled_from(SENDERS), st.integers(0, 5)), max_size=3))
    def include_others(self, steps: list[tuple[Address, int]]) -> None:
        """A block from elsewhere, with transactions that the pool may never have seen."""
        self.block([(who, self.senders[who].account.nonce + step) for who, step in steps])

    def block(self, nonces: list[tuple[Address, int]]) -> None:
        self.pool.on_block(nonces, self.naive.now_ms)
        self.naive.block(nonces)

    @precondition(lambda self: self.naive.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        signed = data.draw(st.sampled_from([each.signed for each in self.naive.held]))
        self.pool.drop(signed.transaction.hash)
        self.naive.drop(signed)

    @rule(ms=st.integers(1, 110))
    def wait(self, ms: int) -> None:
        self.naive.now_ms += ms
        self.block([])

    @rule(who=st.sampled_from(SENDERS), role=st.sampled_from(PoolRole))
    def change_role(self, who: Address, role: PoolRole) -> None:
        self.senders[who].role = role

    @rule(who=st.sampled_from(SENDERS), wei=st.integers(0, 30))
    def change_balance(self, who: Address, wei: int) -> None:
        self.senders[who].account = self.senders[who].account._replace(balance=Wei(wei))

    @invariant()
    def both_hold_the_same(self) -> None:
        pending, queued = self.pool.content()
        for who in SENDERS:
            assert pending.get(who, []) == self.naive.pending(who)
            waiting = [each.signed for each in self.naive.queued_of(who)]
            assert queued.get(who, []) == sorted(waiting, key=lambda signed: signed.transaction.nonce)
            assert self.pool.pending_nonce(who, self.senders[who].account.nonce) == self.naive.next_nonce(who)
        for each in self.naive.held:
            assert self.pool.get(each.signed.transaction.hash) is each.signed

    @invariant()
    def counts_and_bytes_are_those_of_the_content_and_within_the_limits(self) -> None:
        queued = len(self.naive.queued())
        assert self.pool.counts() == (len(self.naive.held) - queued, queued)
        assert self.pool.size_bytes() == self.naive.size_bytes() <= LIMITS.bytes_max
        assert len(self.naive.held) <= LIMITS.transactions_max

    @invariant()
    def candidates_are_all_pending_ones_in_turns_with_the_reserved_share(self) -> None:
        candidates = list(self.pool.candidates())
        lanes = [self.naive.is_ordinary(each.sender) for each in candidates]
        for ordinary in (False, True):
            lane = [each for each, is_such in zip(candidates, lanes, strict=True) if is_such is ordinary]
            assert lane == self.naive.turns_of(ordinary=ordinary)
        reserved = lanes.count(False)
        for count in range(len(lanes) + 1):
            assert lanes[:count].count(False) >= min(reserved, count * 3 // 10)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
