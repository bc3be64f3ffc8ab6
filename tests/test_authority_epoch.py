"""What a block does to the validators besides its transactions: evidence, and the next set (A-4 to A-8)."""

from dataclasses import replace

import pytest

from ctt_state.block import EVIDENCE_MAX
from ctt_state.epoch import SETS_KEPT, apply_evidence, begin_block, close_block, validators_of
from ctt_state.errors import InvalidBlock
from ctt_state.records import Barred, EpochSet, Governance, Offence, Outcome
from ctt_state.succession import LIFETIME_MS, changes_max
from ctt_state.units import Hash, Height, Ms
from ctt_state.validators import boundary_of
from ctt_state.votes import Evidence, Kind, Vote
from tests.authority_world import EPOCH_BLOCKS, Consortium, member, node_key, set_of
from tests.world import address

FOUR = ("ann", "ben", "cat", "dan")
SEVEN = (*FOUR, "eve", "fay", "gus")


def carry(world: Consortium, number: int, *voters: str) -> int:
    world.vote(number, *voters)
    assert world.proposal(number).carried_height
    return number


def carry_addition(world: Consortium, name: str, key: str | None = None) -> int:
    """Carried by the first four, ann proposing, and ready in this block."""
    number = carry(world, world.propose("ann", name, key), "ben", "cat", "dan")
    world.ready(number, key or name)
    return number


def carry_removal(world: Consortium, name: str) -> int:
    return carry(world, world.propose_removal("ann", name), "ben", "cat", "dan")


# --- the sets of epochs (A-4) ---


def test_an_epoch_hands_its_set_on_where_nothing_changes() -> None:
    world = Consortium(*FOUR)

    world.close_until(31)

    assert [world.validators(epoch).members for epoch in range(4)] == [set_of(*FOUR)] * 4
    assert set(world.headers) == {(world.validators().hash, world.validators().hash)}


@pytest.mark.parametrize("epoch_blocks", [10, 11, 121, 900])
def test_the_next_set_is_known_from_the_fixing_height_on(epoch_blocks: int) -> None:
    """A-4: 60 blocks before the epoch's last, half an epoch if that is shorter; headers of both sides say so."""
    world = Consortium(*SEVEN, epoch_blocks=epoch_blocks)
    carry_removal(world, "gus")
    before, fixing = world.validators().hash, boundary_of(0, epoch_blocks) - min(60, epoch_blocks // 2)

    world.close_until(epoch_blocks + 2)

    after = world.validators(1).hash
    assert world.validators(1).members == set_of(*SEVEN[:-1])
    known = epoch_blocks - fixing + 1
    assert world.headers[: fixing - 1] == [(before, before)] * (fixing - 1)
    assert world.headers[fixing - 1 : epoch_blocks] == [(before, after)] * known
    assert world.headers[epoch_blocks:] == [(after, after)]


def test_what_is_carried_after_the_fixing_height_waits_an_epoch() -> None:
    world = Consortium(*SEVEN)
    world.fix()

    carry_removal(world, "gus")
    world.close_until(14)

    assert world.validators().members == set_of(*SEVEN)
    world.fix()
    assert world.validators().members == set_of(*SEVEN[:-1])


def test_what_is_carried_in_the_fixing_block_counts() -> None:
    world = Consortium(*SEVEN)
    world.close_until(world.fixing_height)

    carry_removal(world, "gus")
    world.next_block()

    assert world.validators(1).members == set_of(*SEVEN[:-1])


def test_old_sets_are_dropped() -> None:
    """A-4: 2,000 epochs are kept, and the next."""
    world = Consortium(*FOUR)

    world.close_until(EPOCH_BLOCKS * SETS_KEPT + 2)

    kept = [int.from_bytes(key[1:], "big") for key, record in world.overlay.changes.items()
            if isinstance(record, EpochSet)]  # fmt: skip
    assert sorted(kept) == list(range(1, SETS_KEPT + 1))
    assert len(kept) == 2_001


def test_a_state_without_the_set_is_no_chain_of_ours() -> None:
    world = Consortium(*FOUR)

    with pytest.raises(LookupError, match="no set of epoch 1 "):
        validators_of(world.overlay.lookup, 1)


# --- carried proposals (A-5) ---


def test_an_addition_needs_more_than_half_and_a_ready_key() -> None:
    world = Consortium(*FOUR)
    number = world.propose("ann", "eve")
    world.ready(number, "eve")
    world.vote(number, "ben")
    world.turn()
    assert world.validators().members == set_of(*FOUR)

    world.vote(number, "cat")
    world.turn()

    assert world.validators().members == set_of(*FOUR, "eve")
    found = world.proposal(number)
    assert (found.outcome, found.closed_height) == (Outcome.APPLIED, 15)


def test_a_key_that_is_not_ready_waits() -> None:
    """A-3: no absent validator counts in n."""
    world = Consortium(*FOUR)
    number = carry(world, world.propose("ann", "eve"), "ben", "cat")
    world.turn()
    assert (world.outcome(number), world.validators().members) == (Outcome.OPEN, set_of(*FOUR))

    world.ready(number, "eve")
    world.turn()

    assert world.validators().members == set_of(*FOUR, "eve")


@pytest.mark.parametrize(("height", "is_fresh"), [(1_054, True), (1_053, False)])
def test_a_ready_of_more_than_a_thousand_blocks_ago_is_none(height: int, is_fresh: bool) -> None:
    """A-3: the fixing height of epoch 1 is 2,054."""
    world = Consortium(*FOUR, epoch_blocks=1_057)
    number = carry(world, world.propose("ann", "eve"), "ben", "cat")
    world.close_until(1_058)
    world.ready(number, "eve", height)
    world.close_until(2_055)

    assert (world.outcome(number) is Outcome.APPLIED) is is_fresh


def test_a_rotation_needs_a_ready_key_too() -> None:
    """The member keeps its address and loses the place of its old key."""
    world = Consortium(*FOUR)
    number = carry(world, world.propose("ann", "ben", "new"), "ben", "cat")
    world.turn()
    assert world.validators().members == set_of(*FOUR)

    world.ready(number, "new")
    world.fix()

    latest = world.validators()
    assert latest.place_of_key(node_key("ben")) is None
    assert latest.members[latest.place_of_key(node_key("new")) or 0].address == address("ben")
    assert sorted(latest.keys) == list(latest.keys)


@pytest.mark.parametrize(
    ("validators", "changes"), [(1, 1), (4, 1), (6, 1), (7, 2), (10, 3), (21, 6), (100, 33)]
)
def test_an_epoch_changes_as_many_as_may_be_faulty(validators: int, changes: int) -> None:
    assert changes_max(validators) == changes


def test_proposals_are_applied_in_the_order_in_which_they_were_carried() -> None:
    """A-5: two changes of seven; the third waits for the next epoch."""
    world = Consortium(*SEVEN)
    first, second, third = (world.propose("ann", name) for name in ("hal", "ida", "jim"))
    for number, name in ((first, "hal"), (second, "ida"), (third, "jim")):
        world.ready(number, name)
    carry(world, third, "ben", "cat", "dan")
    world.next_block()
    carry(world, second, "ben", "cat", "dan", "eve")
    carry(world, first, "ben", "cat", "dan")

    world.fix()
    assert world.validators().members == set_of(*SEVEN, "hal", "jim")
    world.fix()
    assert world.validators().members == set_of(*SEVEN, "hal", "ida", "jim")


def test_one_that_waits_does_not_hold_up_the_others() -> None:
    world = Consortium(*FOUR)
    carry(world, world.propose("ann", "hal"), "ben", "cat")
    carry_addition(world, "ida")

    world.fix()

    assert world.validators().members == set_of(*FOUR, "ida")


def test_four_stay() -> None:
    """A-6: a removal waits until there are five."""
    world = Consortium(*FOUR)
    removal = carry_removal(world, "dan")
    world.turn()
    assert (world.outcome(removal), world.validators().members) == (Outcome.OPEN, set_of(*FOUR))

    carry_addition(world, "eve")
    world.fix()
    assert world.validators().members == set_of(*FOUR, "eve")
    world.fix()
    assert world.validators().members == set_of("ann", "ben", "cat", "eve")


def test_on_a_development_network_one_stays() -> None:
    world = Consortium("ann", "ben", development=True)
    carry(world, world.propose_removal("ann", "ben"), "ben")
    world.turn()
    assert world.validators().members == set_of("ann")

    removal = world.propose_removal("ann", "ann")
    world.turn()

    assert (world.outcome(removal), world.validators().members) == (Outcome.OPEN, set_of("ann"))


def test_a_hundred_are_the_most() -> None:
    """A-6: a rotation needs no room."""
    names = [f"validator {number}" for number in range(100)]
    world = Consortium(*names)
    addition, rotation = world.propose(names[0], "eve"), world.propose(names[0], names[1], "new")
    world.ready(addition, "eve")
    world.ready(rotation, "new")
    for number in (addition, rotation):
        carry(world, number, *names[1:51])

    world.fix()

    assert (world.outcome(addition), world.outcome(rotation)) == (Outcome.OPEN, Outcome.APPLIED)
    assert len(world.validators().members) == 100


def test_what_was_done_already_is_void() -> None:
    """A-5: a twin of an applied proposal, carried or not, is closed with it."""
    world = Consortium(*SEVEN)
    first = carry_addition(world, "hal")
    twin, uncarried = carry_addition(world, "hal"), world.propose("ben", "hal", "another")

    world.fix()

    outcomes = [world.outcome(number) for number in (first, twin, uncarried)]
    assert outcomes == [Outcome.APPLIED, Outcome.VOID, Outcome.VOID]
    assert world.call("openProposals()") == ()


def test_a_rotation_of_one_that_left_is_void() -> None:
    """A-5: it does not bring the validator back."""
    world = Consortium(*SEVEN)
    carry_removal(world, "gus")
    rotation = carry_addition(world, "gus", key="new")

    world.fix()

    assert world.outcome(rotation) is Outcome.VOID
    assert world.validators().members == set_of(*SEVEN[:-1])


def test_a_removal_of_one_that_left_is_void() -> None:
    """A-5: whether a twin took it out or its offence did."""
    world = Consortium(*SEVEN, "hal", "ida", "jim")
    removals = [world.propose_removal("ann", name) for name in ("jim", "jim", "ida")]
    for number in removals:
        carry(world, number, "ben", "cat", "dan", "eve", "fay")
    world.next_block(world.evidence_against("ida"))

    world.fix()

    outcomes = [world.outcome(number) for number in removals]
    assert outcomes == [Outcome.APPLIED, Outcome.VOID, Outcome.VOID]
    assert world.validators().members == set_of(*SEVEN, "hal")


def test_a_key_goes_to_one_validator_only() -> None:
    world = Consortium(*SEVEN)
    first, second = carry_addition(world, "hal", key="shared"), carry_addition(world, "ida", key="shared")

    world.fix()

    assert [world.outcome(first), world.outcome(second)] == [Outcome.APPLIED, Outcome.VOID]


def test_who_leaves_takes_its_votes_and_proposals_along() -> None:
    """A-2: and does not bring them back when it returns."""
    world = Consortium(*SEVEN)
    own, other = world.propose("gus", "hal"), world.propose("ann", "ida")
    world.vote(other, "gus", "ben")
    removal = carry_removal(world, "gus")
    world.fix()
    assert [world.outcome(number) for number in (own, other, removal)] == [
        Outcome.OPEN, Outcome.OPEN, Outcome.APPLIED
    ]  # fmt: skip
    world.fix()
    assert world.outcome(own) is Outcome.VOID
    assert world.proposal(other).voters == (address("ann"), address("ben"))

    carry_addition(world, "gus")
    world.turn()
    world.turn()

    assert world.proposal(other).voters == (address("ann"), address("ben"))


def test_a_majority_that_left_carries_no_more() -> None:
    """A-2: four of seven were for it; three of six are not more than half. A new vote carries it anew."""
    world = Consortium(*SEVEN)
    number = world.propose("ann", "hal")
    carry(world, number, "ben", "cat", "gus")
    carry_removal(world, "gus")
    world.fix()
    world.fix()
    assert (world.proposal(number).carried_height, world.outcome(number)) == (0, Outcome.OPEN)

    world.vote(number, "eve")

    assert world.proposal(number).carried_height == world.block.height


def test_a_smaller_set_may_carry_without_another_vote() -> None:
    """A-2: four of eight are not more than half, four of seven are, from the fixing height on."""
    world = Consortium(*SEVEN, "hal")
    number = world.propose("ann", "ida")
    world.vote(number, "ben", "cat", "dan")
    carry(world, world.propose_removal("ann", "hal"), "ben", "cat", "dan", "eve")
    world.fix()
    assert world.proposal(number).carried_height == 0
    world.ready(number, "ida")

    world.fix()

    assert world.proposal(number).carried_height == 15
    assert world.validators().members == set_of(*SEVEN, "ida")


def test_an_expired_proposal_is_closed() -> None:
    world = Consortium(*FOUR)
    number = world.propose("ann", "eve")
    carry(world, number, "ben", "cat")
    world.ready(number, "eve")
    world.chain = replace(world.chain, block_period_ms=Ms(LIFETIME_MS // 3))

    world.fix()

    assert (world.outcome(number), world.proposal(number).closed_height) == (Outcome.EXPIRED, 5)
    assert world.validators().members == set_of(*FOUR)


# --- evidence (A-7, A-8) ---


def test_a_double_vote_bars_the_key_and_takes_the_validator_out() -> None:
    """A-7, A-8: before any proposal, and within the epoch's limit of changes."""
    world = Consortium(*FOUR, "eve")
    addition = carry_addition(world, "fay")

    world.next_block(world.evidence_against("eve", 7))
    world.fix()

    assert world.get(Barred.key(node_key("eve"))) == Barred(1)
    assert world.get(Offence.key(1)) == Offence(*member("eve"), 0, 7, Height(2))
    assert world.get(Governance.key()).last_offence == 1
    assert world.validators().members == set_of(*FOUR)
    assert world.outcome(addition) is Outcome.OPEN
    world.fix()
    assert world.validators().members == set_of(*FOUR, "fay")


@pytest.mark.parametrize(
    "kinds", [(Kind.NOTARIZE, Kind.FINALIZE), (Kind.FINALIZE, Kind.FINALIZE), (Kind.NULLIFY, Kind.FINALIZE)]
)
def test_each_contradiction_is_evidence(kinds: tuple[Kind, Kind]) -> None:
    world = Consortium(*FOUR, "eve")
    first, second = kinds
    hashes = bytes(32) if first is Kind.NULLIFY else b"1" * 32, b"2" * 32
    votes = world.vote_of("eve", first, 3, hashes[0]), world.vote_of("eve", second, 3, hashes[1])

    world.next_block(Evidence(*votes).encode())

    assert world.get(Barred.key(node_key("eve"))) == Barred(1)


def test_offenders_go_in_the_order_of_their_offences() -> None:
    world = Consortium(*SEVEN)
    world.next_block(*(world.evidence_against(name) for name in ("gus", "ann", "fay")))

    world.fix()
    assert world.validators().members == set_of("ben", "cat", "dan", "eve", "fay")
    world.fix()
    assert world.validators().members == set_of("ben", "cat", "dan", "eve")


def test_an_offender_among_four_stays_until_there_is_a_fifth() -> None:
    """A-8: the set does without a fault it could bear otherwise; a new key by vote is the other way out."""
    world = Consortium(*FOUR)
    world.next_block(world.evidence_against("dan"))
    world.turn()
    assert world.validators().members == set_of(*FOUR)

    number = world.propose("ann", "dan", "new")
    carry(world, number, "ben", "cat")
    world.ready(number, "new")
    world.fix()

    place = world.validators().place_of_address(address("dan"))
    assert place == world.validators().place_of_key(node_key("new")) is not None


def test_on_a_development_network_only_the_last_offender_stays() -> None:
    world = Consortium("ann", "ben", development=True)
    world.next_block(world.evidence_against("ann"), world.evidence_against("ben"))

    world.fix()
    assert world.validators().members == set_of("ben")
    world.fix()
    assert world.validators().members == set_of("ben")


def test_a_barred_key_never_returns() -> None:
    """A-7: not even when the vote was before the offence."""
    world = Consortium(*SEVEN)
    carry_removal(world, "gus")
    world.turn()
    number = carry_addition(world, "gus")

    world.next_block(world.evidence_against("gus", epoch=0))
    world.fix()

    assert world.outcome(number) is Outcome.VOID
    assert world.validators().place_of_key(node_key("gus")) is None


def test_an_offender_returns_by_vote_with_another_key() -> None:
    world = Consortium(*SEVEN)
    world.next_block(world.evidence_against("gus"))
    world.turn()
    assert world.validators().place_of_address(address("gus")) is None

    carry_addition(world, "gus", key="new")
    world.fix()

    assert world.validators().place_of_address(address("gus")) is not None


def test_evidence_of_an_earlier_epoch_counts() -> None:
    """A-7: also against a key that its validator has given up."""
    world = Consortium(*FOUR)
    carry_addition(world, "dan", key="new")
    world.turn()

    world.next_block(world.evidence_against("dan", epoch=0))
    world.fix()

    assert world.get(Barred.key(node_key("dan"))) is not None
    assert world.validators().place_of_address(address("dan")) is not None


def test_evidence_of_the_next_epoch_counts_once_its_set_is_fixed() -> None:
    world = Consortium(*SEVEN)
    world.fix()

    world.next_block(world.evidence_against("gus", epoch=1))

    assert world.get(Barred.key(node_key("gus"))) is not None


def tampered(world: Consortium) -> bytes:
    first, second = Evidence.decode(world.evidence_against("ann"))
    return Evidence(first, Vote(second.statement, second.signer, first.signature)).encode()


def test_evidence_is_refused() -> None:
    """A-7: in this order; what is refused has changed nothing."""
    world = Consortium(*FOUR)
    good = world.evidence_against("ann")
    honest = (
        world.vote_of("ann", Kind.NOTARIZE, 1, b"1" * 32),
        world.vote_of("ann", Kind.NULLIFY, 1, bytes(32)),
    )
    place = world.validators().place_of_key(node_key("ann")) or 0
    before = dict(world.overlay.changes)

    def refusal(piece: bytes) -> str:
        with pytest.raises(InvalidBlock) as refused:
            apply_evidence(world.overlay, piece, 2, world.chain)
        assert world.overlay.changes == before
        return str(refused.value)

    first, second = Evidence.decode(good)
    far = [vote._replace(statement=vote.statement._replace(epoch=1)) for vote in (first, second)]
    outside = [vote._replace(signer=4) for vote in (first, second)]
    assert refusal(b"").startswith("evidence: not msgpack")
    assert refusal(good + b"\0").startswith("evidence: not msgpack")
    assert refusal(Evidence(*honest).encode()) == "evidence: the two votes do not contradict each other"
    assert refusal(Evidence(first, first).encode()) == "evidence: the two votes do not contradict each other"
    assert refusal(Evidence(*far).encode()) == "evidence of epoch 1, whose set is not kept"
    assert refusal(Evidence(*outside).encode()) == "evidence against validator 4 of a set of 4"
    unsigned = f"evidence against validator {place} of epoch 0 is not signed by it"
    assert refusal(tampered(world)) == unsigned
    apply_evidence(world.overlay, good, 2, world.chain)
    before = dict(world.overlay.changes)
    barred = f"evidence against key {node_key('ann').hex()}, which is barred already"
    assert refusal(good) == barred
    assert refusal(world.evidence_against("ann", 2)) == barred
    assert refusal(tampered(world)) == barred


def test_evidence_of_another_network_is_none() -> None:
    world = Consortium(*FOUR)
    world.chain = replace(world.chain, genesis_hash=Hash(b"other".ljust(32)))

    with pytest.raises(InvalidBlock, match="is not signed by it"):
        begin_block(world.overlay, [world.evidence_against("ann")], 1, world.chain)


def test_a_block_carries_little_evidence() -> None:
    """A-7: four pieces pass, five do not, and the same twice does not."""
    pieces = [Consortium(*SEVEN).evidence_against(name) for name in SEVEN]
    begin_block(Consortium(*SEVEN).overlay, pieces[:EVIDENCE_MAX], 1, Consortium(*SEVEN).chain)

    world = Consortium(*SEVEN)
    with pytest.raises(InvalidBlock, match="5 pieces of evidence in block 1; limit 4"):
        begin_block(world.overlay, pieces[:5], 1, world.chain)
    with pytest.raises(InvalidBlock, match="which is barred already"):
        begin_block(world.overlay, [pieces[0], pieces[0]], 1, world.chain)


def test_closing_a_block_reads_its_own_changes() -> None:
    """The set's hash in the fixing block's header is that of the record which the same block writes."""
    world = Consortium(*SEVEN)
    world.next_block(world.evidence_against("gus"))
    world.close_until(5)

    _, following = close_block(world.overlay, 5, world.chain)

    assert following == validators_of(world.overlay.lookup, 1).hash != world.validators(0).hash
