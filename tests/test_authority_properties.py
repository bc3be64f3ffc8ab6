"""Any history of proposals, votes, signs of life and double votes: each set follows by the rules from the one before."""

from typing import Final, NamedTuple

from hypothesis import event, given
from hypothesis import strategies as st

from ctt_state.audit import audit
from ctt_state.epoch import apply_evidence
from ctt_state.records import Barred, Change, EpochSet, Outcome, decode_record
from ctt_state.succession import changes_max
from ctt_state.units import Address, Height
from ctt_state.validators import ValidatorSet
from tests.authority_world import PROPOSE, READY, VOTE, WITHDRAW, Consortium, Seen, node_key
from tests.world import address

PEOPLE: Final = tuple(f"person {number}" for number in range(12))
KEYS: Final = (*PEOPLE, *(f"spare key {number}" for number in range(4)))
NAME_OF_KEY: Final = {node_key(name): name for name in KEYS}


class Step(NamedTuple):
    """What somebody does; numbers are taken modulo what there is to choose from."""

    what: str
    who: int
    whom: int
    key: int


# A campaign is a proposal with many votes and a sign of life: rare by chance, and the point of it all.
WHATS: Final = ("campaign",) * 6 + (
    "propose",
    "vote",
    "vote",
    "ready",
    "withdraw",
    "accuse",
    "block",
    "fix",
    "turn",
)
steps = st.builds(Step, st.sampled_from(WHATS), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
histories = st.lists(steps, min_size=5, max_size=80)


class Course:
    """A consortium in which things happen. Each transaction is sent, whether it is refused or not."""

    def __init__(self, founders: int, *, development: bool) -> None:
        self.world = Consortium(*PEOPLE[:founders], development=development)

    def run(self, history: list[Step]) -> None:
        for step in history:
            getattr(self, step.what)(step)
            self.after_each()
        self.fix(history[0])

    def after_each(self) -> None:
        """For a course that does more."""

    def propose(self, step: Step) -> int | None:
        """An addition of a third, a rotation or a removal; gives its number unless it was refused."""
        whom = address(PEOPLE[step.whom % len(PEOPLE)])
        key = b"" if step.key % 3 == 0 else node_key(KEYS[step.key % len(KEYS)])
        sender = self._member(step.who)
        number: int | None = self.world.send(sender, PROPOSE, whom, key, bool(key)).result
        return number

    def campaign(self, step: Step) -> None:
        number = self.propose(step)
        if number is None:
            return
        for place in range(step.who % (len(self._present.members) + 1)):
            self.world.send(self._member(place), VOTE, number)
        if step.whom % 4:
            self._send_ready(number)

    def vote(self, step: Step) -> None:
        self.world.send(self._member(step.who), VOTE, self._number(step.whom))

    def ready(self, step: Step) -> None:
        if self._last:
            self._send_ready(self._number(step.whom))

    def withdraw(self, step: Step) -> None:
        self.world.send(self._member(step.who), WITHDRAW, self._number(step.whom))

    def accuse(self, step: Step) -> None:
        """Of a vote in this epoch or the one before."""
        epoch = max(0, self.world.epoch - step.key % 2)
        members = self.world.validators(epoch).members
        key = members[step.who % len(members)].consensus_key
        evidence = self.world.evidence_against(NAME_OF_KEY[key], view=1 + step.whom, epoch=epoch)
        if self.world.get(Barred.key(key)) is None:
            apply_evidence(self.world.overlay, evidence, self.world.block.height, self.world.chain)

    def block(self, step: Step) -> None:
        self.world.next_block()

    def fix(self, step: Step) -> None:
        """Until the next set is fixed, which is then compared with the one before."""
        if self.world.block.height > self.world.fixing_height:
            self.turn(step)
        self.world.close_until(self.world.fixing_height)
        before = self._present
        open_before = self.world.call("openProposals()")
        self.world.next_block()
        self.after_fixing(before, [self.world.proposal(number) for number in open_before])

    def after_fixing(self, before: ValidatorSet, proposals: list[Seen]) -> None:
        """For a course that does more."""

    def turn(self, step: Step) -> None:
        if self.world.block.height <= self.world.fixing_height:
            self.fix(step)
        self.world.turn()

    @property
    def _present(self) -> ValidatorSet:
        return self.world.validators(self.world.epoch)

    @property
    def _last(self) -> int:
        return len(self.world.call("proposals(uint256,uint256)", 0, 100))

    def _member(self, number: int) -> Address:
        members = self._present.members
        return members[number % len(members)].address

    def _number(self, number: int) -> int:
        return 1 + number % (self._last + 1)

    def _send_ready(self, number: int) -> None:
        if number > self._last:
            return
        height, key = self.world.block.height, self.world.proposal(number).node_key
        name = NAME_OF_KEY.get(key, PEOPLE[0])
        signature = self.world.ready_signature(number, name, height)
        self.world.send(address("passer-by"), READY, number, height, signature)


class JudgedCourse(Course):
    """Asks of each set why it is as it is, from what the views tell."""

    def after_each(self) -> None:
        records = [(key, record) for key, record in self.world.overlay.changes.items() if record is not None]
        assert list(audit(records, self.world.issued_wei)) == []

    def after_fixing(self, before: ValidatorSet, proposals: list[Seen]) -> None:
        after = self.world.validators(self.world.epoch + 1)
        old, new = dict(before.members), dict(after.members)
        changed = {address for address, _ in {*before.members} ^ {*after.members}}
        event(f"{len(changed)} changes")
        assert len(changed) <= changes_max(len(old))
        least = 1 if self.world.chain.is_development else 4
        assert least <= len(new) <= 100
        assert len({*new.values()}) == len(new)
        applied = {it.validator: it for it in proposals if it.outcome == Outcome.APPLIED}
        for it in applied.values():
            assert it.validator in changed
            assert 2 * len({*it.voters} & {*old}) > len(old)
            assert it.change == Change.REMOVE or it.ready_height >= self._fixed_height - 1_000
        for who in changed:
            was_removed = who in applied and applied[who].change == Change.REMOVE
            if who in new:
                assert applied[who].node_key == new[who]
                assert not self._is_barred(new[who])
                assert (applied[who].change == Change.ADD) is (who not in old)
            else:
                assert was_removed or self._is_barred(old[who])
        barred = [who for who, key in new.items() if self._is_barred(key)]
        if barred:
            assert len(changed) == changes_max(len(old)) or len(old) - len({*old} - {*new}) <= least

    @property
    def _fixed_height(self) -> Height:
        return self.world.fixing_height

    def _is_barred(self, key: bytes) -> bool:
        return self.world.get(Barred.key(key)) is not None


class ForgetfulCourse(Course):
    """A node that keeps nothing in memory: each step starts from the records' bytes, in another order."""

    def after_each(self) -> None:
        changes = self.world.overlay.changes
        rows = [(key, record.encode()) for key, record in changes.items() if record is not None]
        changes.clear()
        changes.update({key: decode_record(key, data) for key, data in reversed(rows)})


def check_headers(world: Consortium) -> None:
    """C-11: the set that an epoch's last header names next is the one that the next epoch's headers name."""
    blocks = world.chain.epoch_blocks
    for index, (present, following) in enumerate(world.headers):
        epoch = index // blocks
        assert present == world.validators(epoch).hash
        assert following in (present, world.validators(epoch + 1).hash)
        if index % blocks == blocks - 1 and index + 1 < len(world.headers):
            assert following == world.headers[index + 1][0]


@given(founders=st.integers(4, 10), history=histories)
def test_each_set_follows_from_the_one_before(founders: int, history: list[Step]) -> None:
    """A-4 to A-8"""
    course = JudgedCourse(founders, development=False)

    course.run(history)

    check_headers(course.world)


@given(founders=st.integers(1, 4), history=histories)
def test_each_set_of_a_development_network_follows_from_the_one_before(
    founders: int, history: list[Step]
) -> None:
    """A-4 to A-8"""
    course = JudgedCourse(founders, development=True)

    course.run(history)

    check_headers(course.world)


@given(founders=st.integers(1, 7), history=histories)
def test_the_same_history_leaves_the_same_bytes(founders: int, history: list[Step]) -> None:
    """Whatever is in memory, and in which order."""
    courses = Course(founders, development=True), ForgetfulCourse(founders, development=True)

    for course in courses:
        course.run(history)

    one, other = (
        {key: record.encode() for key, record in course.world.overlay.changes.items() if record is not None}
        for course in courses
    )
    assert one == other
    assert courses[0].world.headers == courses[1].world.headers
    assert EpochSet.key(0) in one
