"""What stopped, forked or confused other chains, played against ours: each story names where it happened.

The rules that answer them are docs/PROTOCOL.md, C-3 to C-12. Every story is also watched by the checker of the
simulation, so that none of them ends well for a wrong reason.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from ctt_state.units import Height
from ctt_state.validators import boundary_of
from ctt_state.votes import Kind, Vote, quorum
from node.consensus.engine import CERTIFICATES_SENT_MAX, EARLY_MAX, VIEWS_AHEAD_MAX
from node.consensus.events import Build, Halt, Message, Proposal, Received, Restored, Status, Validate
from tests.simulation.cluster import PERIOD_MS, Cluster, Sets, quick_signatures
from tests.simulation.stage import (
    HEAL_MS_MAX,
    Stage,
    is_about,
    notarize,
    nullify,
    statement_in,
    votes_in,
)
from tests.test_engine import Talk, certificate, of

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _signatures() -> Iterator[None]:
    with quick_signatures():
        yield


def everyone_said(stage: Stage, kind: Kind, view: int) -> Callable[[], bool]:
    return lambda: all(kind in stage.kinds_of(each, view) for each in stage.honest)


def without(kind: Kind, view: int) -> Callable[[int, int, Message], bool]:
    """Nothing of this kind about this view passes."""
    return lambda source, to, message: not is_about(message, kind, view)


# --- other implementations of Simplex -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 5, 7])
def test_nullify_votes_that_only_journals_hold_count_again(size: int) -> None:
    """commonware#4275: a quorum had given a view up, all crashed, and none counted its own vote again."""
    stage = Stage(size)
    stage.goes_on(2)
    stage.silence()
    stage.run_ms(4_000)
    stuck = stage.view
    assert everyone_said(stage, Kind.NULLIFY, stuck)()
    stage.crash_all()
    stage.join()
    stage.restart_all()
    stage.goes_on()


def test_notarize_votes_that_only_journals_hold_count_again() -> None:
    """commonware#2043, #2045: votes of before a restart were replayed to nobody."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    stage.lets_through = lambda source, to, message: (
        isinstance(message, Proposal) or not is_about(message, Kind.NOTARIZE, view)
    )
    stage.play_until(everyone_said(stage, Kind.NOTARIZE, view), 3_000)
    stage.crash_all()
    stage.join()
    stage.restart_all()
    stage.goes_on()


def test_finalize_votes_that_only_journals_hold_count_again() -> None:
    """commonware#2050: those who said FINALIZE may not give the view up, so it must still become final."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    stage.lets_through = without(Kind.FINALIZE, view)
    stage.play_until(everyone_said(stage, Kind.FINALIZE, view), 3_000)
    stage.crash_all()
    stage.join()
    stage.restart_all()
    stage.goes_on()
    assert view in {block.header.view for block in stage.at(0).disk.final}


@pytest.mark.parametrize("size", [4, 7])
def test_one_with_the_notarization_and_the_others_with_the_nullification_go_on_at_once(size: int) -> None:
    """commonware#4332, #4386, #4625 and Ava Labs Simplex#281: each refused the other's ancestry, view after view."""
    stage = Stage(size)
    stage.goes_on(2)
    view = stage.view + 1
    keeper = stage.leader(view + 1)
    stage.lets_through = lambda source, to, message: (
        not is_about(message, Kind.NOTARIZE, view) or to == keeper.number or isinstance(message, Proposal)
    )
    others = [each for each in stage.machines if each is not keeper]
    stage.play_until(lambda: keeper.engine.view > view, 3_000)
    # The keeper has told of the notarization; nobody heard it, nor what it proposes on it.
    stage.cut(keeper)
    stage.run_ms(5_000)
    for machine in others[: (size - 1) // 3]:  # so that the keeper is needed
        stage.crash(machine.number, None)
    stage.join()
    heard = stage.view
    stage.goes_on()
    assert stage.view <= heard + len(others) + 10


def test_who_gave_a_view_up_never_finalizes_in_it_not_even_when_repeating() -> None:
    """Ava Labs Simplex#280: the path that repeats votes made a FINALIZE without looking for the own NULLIFY."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    late = next(each for each in stage.machines if each is not stage.leader(view))

    def lets_through(source: int, to: int, message: Message) -> bool:
        statement = statement_in(message)
        if statement is None or statement.view < view:
            return True
        if statement.kind is Kind.FINALIZE:
            return False
        return to != late.number or Kind.NULLIFY in stage.kinds_of(late, view)

    stage.lets_through = lets_through
    stage.play_until(lambda: late.engine.view > view, 10_000)
    assert Kind.NULLIFY in stage.kinds_of(late, view)
    stage.run_ms(8_000)  # several times what makes it repeat itself
    stage.crash(late.number, None)
    stage.restart(late.number)
    stage.run_ms(8_000)
    stage.join()
    stage.goes_on()
    assert Kind.FINALIZE not in stage.kinds_of(late, view)


def test_who_gave_a_view_up_still_follows_its_notarization() -> None:
    """commonware#2695: an own NULLIFY ended the interest in the view's block, and no nullification ever came."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    late = next(each for each in stage.machines if each is not stage.leader(view))
    stage.cut(late)
    stage.run_ms(2_000)
    gave_up = late.engine.view
    assert Kind.NULLIFY in stage.kinds_of(late, gave_up)
    stage.join()
    stage.goes_on()
    assert late.disk.head.height >= stage.checker.height - 2


def test_who_notarized_one_block_adopts_the_certificate_of_the_other() -> None:
    """commonware#2107 and Ava Labs Simplex#37: after an equivocating leader the other certificate met an assertion,
    or left its victim behind."""
    stage = Stage(puppets=(1,))
    victim, *others = stage.honest
    blocks = [stage.block_on(stage.genesis, 1, transaction=each) for each in (b"a", b"b")]
    votes = [stage.sign(1, notarize(block, 1)) for block in blocks]
    stage.say(1, Proposal(blocks[0], votes[0], None, ()), victim)
    stage.say(1, Proposal(blocks[1], votes[1], None, ()), *others)
    stage.play_until(lambda: victim.disk.head.height > 0, 3_000)
    assert notarize(blocks[0], 1) in stage.votes_of(victim, 1)
    assert victim.disk.final[1] == blocks[1]
    stage.goes_on()


def test_two_quorums_share_an_honest_validator_whatever_the_size() -> None:
    """commonware#733, celo#253, klaytn#1403, raijin#19: 2f+1 is a quorum of 3f+1 validators and of no other number."""
    for size in range(1, 101):
        faulty = (size - 1) // 3
        assert 2 * quorum(size) - size >= faulty + 1
        assert quorum(size) <= size - faulty


@pytest.mark.parametrize(("size", "side"), [(5, 3), (6, 3), (6, 4), (7, 4), (9, 6), (10, 6)])
def test_less_than_a_quorum_never_finalizes(size: int, side: int) -> None:
    """commonware#733: at five and six validators 2f+1 = 3 of them on either side would fork the chain."""
    stage = Stage(size)
    stage.goes_on(2)
    stage.cut(*stage.machines[:side])
    stage.run_ms(1_000)  # what is on its way
    stage.stands(20_000)
    stage.join()
    stage.goes_on()


@pytest.mark.parametrize("boundaries", range(1, 13))
def test_a_ledger_ahead_of_the_votes_is_no_hindrance(boundaries: int) -> None:
    """commonware#3727, daeji#278, #269, tempo#7255: the state was beyond what consensus remembered after a crash. Here
    even the proof of the last block is gone."""
    stage = Stage()
    stage.goes_on(4)
    for machine in stage.machines:
        stage.arm_crash(machine.number, boundaries, HOUR_MS)
    stage.run_ms(3_000)
    stage.crash_all()
    for machine in stage.machines:
        machine.disk.certificates.clear()
    stage.restart_all()
    stage.goes_on()


@pytest.mark.parametrize("boundaries", range(1, 31))
def test_a_crash_anywhere_around_an_epochs_end_loses_nothing(boundaries: int) -> None:
    """tempo#1020, #3271: a crash at the last height of an epoch lost what the next one needed."""
    stage = Stage(epoch_blocks=10)
    stage.play_until(lambda: max(stage.heights) == 9, 10_000)
    for machine in stage.machines:
        stage.arm_crash(machine.number, boundaries, 100)
    stage.run_ms(3_000)
    stage.goes_on(12)


def test_a_standstill_of_hours_sends_a_bounded_amount() -> None:
    """TON, Catchain 2.0, section 4.3: what is repeated while nothing moves must not grow with what was not heard."""
    stage = Stage(7)
    stage.goes_on(2)
    stage.cut(*stage.machines[:4])
    counts = []
    for _ in range(4):
        before = len(stage.sent)
        stage.run_ms(60_000)
        counts.append(len(stage.sent) - before)
    links = 7 * 6
    assert max(counts[1:]) <= counts[0] * 11 // 10
    assert max(counts) <= links * (60 * 6 + 20 * CERTIFICATES_SENT_MAX)
    stage.join()
    stage.goes_on()


# --- AuRa -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundaries", range(1, 13))
def test_a_leader_that_crashes_while_proposing_makes_no_second_block(boundaries: int) -> None:
    """openethereum#10871: a validator lost its block in an ungraceful restart and sealed another in the same slot."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    leader = stage.leader(view)
    stage.play_until(lambda: leader.engine.view == view, 3_000)
    stage.arm_crash(leader.number, boundaries, 0)
    stage.run_ms(2_000)
    assert len({each for each in stage.votes_of(leader, view) if each.kind is Kind.NOTARIZE}) <= 1
    stage.goes_on()


def test_a_key_on_two_machines_stops_the_one_that_notices() -> None:
    """openethereum#9323: the same key on more than one authority, and nobody was told."""
    stage = Stage()
    stage.goes_on(2)
    victim, view = stage.at(0), stage.view
    stray = stage.sign(0, nullify(view + 2))
    stage.deliver(victim, Received(stray, source=1, signer=0))
    assert victim.is_halted
    assert [each for each in stage.checker.violations if "another process votes" in each]


@pytest.mark.parametrize("offset_ms", [-HOUR_MS, -2_000, 2_000, HOUR_MS])
def test_a_wrong_clock_never_takes_back_a_block(offset_ms: int) -> None:
    """openethereum#9323: unsynchronized clocks led to reorganisations."""
    stage = Stage()
    stage.goes_on(2)
    stage.machines[0].clock.offset_ms = offset_ms
    stage.goes_on(20)


def test_a_late_leader_loses_its_turn_and_not_the_next_ones() -> None:
    """openethereum#11375: steps were skipped though their authorities were there."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    stage.lets_through = lambda source, to, message: (
        not (isinstance(message, Proposal) and message.vote.statement.view == view)
    )
    stage.goes_on(8)
    views = [block.header.view for block in stage.at(0).disk.final]
    assert set(range(view + 1, view + 5)) <= set(views)
    assert view not in views


@pytest.mark.parametrize("sides", [(1, 3), (2, 2), (1, 1, 2), (1, 1, 1, 1)])
def test_a_parted_network_has_one_history(sides: tuple[int, ...]) -> None:
    """openethereum#9926: three histories in a network of four."""
    stage = Stage()
    stage.goes_on(2)
    side_of = [number for number, size in enumerate(sides) for _ in range(size)]
    stage.lets_through = lambda source, to, message: side_of[source] == side_of[to]
    stage.run_ms(30_000)
    stage.join()
    stage.goes_on()


def test_the_turns_after_a_change_of_validators_are_the_same_for_all() -> None:
    """openethereum#9425: the number of validators changed under the arithmetic of steps."""
    stage = Stage(followers=1, epoch_blocks=10)
    plan_sets(stage, {0: 0, 1: 0, 2: 0, 3: 0, 4: 0})
    stage.goes_on(15)
    later = [block.header for block in stage.at(0).disk.final if block.header.epoch == 1]
    assert {each.proposer for each in later} == {each.address for each in stage.sets(1).members}
    assert all(each.proposer == stage.leader(each.view, 1).address for each in later)


def test_each_of_several_changes_takes_effect() -> None:
    """openethereum#11344: of several changes that were begun, all but one were ignored."""
    stage = Stage(5, followers=2, epoch_blocks=10)
    plans = [dict.fromkeys(range(6), 0), dict.fromkeys(range(7), 0), {0: 1, **dict.fromkeys(range(2, 7), 0)}]
    plan_sets(stage, *plans)
    stage.goes_on(35, within_ms=5_000)
    for epoch, owners in enumerate(plans, 1):
        boundary = stage.machines[3].disk.final[boundary_of(epoch - 1, 10)].header
        assert boundary.next_validators_hash == stage.sets(epoch).hash
        assert len(stage.sets(epoch).members) == len(owners)


def test_what_is_final_before_a_restart_is_final_after_it() -> None:
    """nethermind#888, #663: finality was computed anew, and differently."""
    stage = Stage()
    stage.goes_on(6)
    finals = [[block.header.hash for block in each.disk.final] for each in stage.machines]
    stage.crash_all()
    stage.restart_all()
    for machine, final in zip(stage.machines, finals, strict=True):
        status = machine.engine.status()
        assert [block.header.hash for block in machine.disk.final] == final
        assert status.finalized_hash == final[-1]
    stage.goes_on()


def test_blocks_that_take_longer_than_the_period_slow_the_chain_and_do_not_stop_it() -> None:
    """substrate#2050, #3064: with a shorter period production was stuck."""
    stage = Stage()
    for work in (Build, Validate):
        stage.work_ms[work] = (PERIOD_MS, PERIOD_MS + 50)
    stage.goes_on(10)


@pytest.mark.parametrize(("size", "left"), [(4, 1), (5, 2), (7, 3), (7, 2)])
def test_a_cloned_validator_forks_nothing(size: int, left: int) -> None:
    """Ekparinya, Gramoli, Jourjon, "The Attack of the Clones against Proof-of-Authority" (2019): one key on both sides
    of a partition always forked AuRa. Here the clone supports whatever either side says."""
    stage = Stage(size, puppets=(0,))
    lefts = {each.number for each in stage.honest[:left]}
    rights = {each.number for each in stage.honest[left:]}
    stage.lets_through = lambda source, to, message: {source, to} <= lefts or {source, to} <= rights
    heard = 0
    for _ in range(1_000):
        stage.run_ms(10)
        new, heard = stage.sent[heard:], len(stage.sent)
        for number, statement in dict.fromkeys(
            (source, each.statement) for source, _, said in new for each in votes_in(said)
        ):
            side = lefts if number in lefts else rights
            vote = stage.sign(0, statement)
            for other in side:
                stage.deliver(stage.machines[other], Received(vote, source=stage.at(0).number, signer=0))
    stage.holds()
    stage.join()
    stage.goes_on(within_ms=10_000)


# --- Clique ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 6, 8, 10])
def test_two_equal_halves_wait_and_then_go_on(size: int) -> None:
    """go-ethereum#18402, #24705, #16406, #24914: both sides had the same difficulty, and neither could grow again."""
    stage = Stage(size)
    stage.goes_on(2)
    stage.cut(*stage.machines[: size // 2])
    stage.run_ms(20_000)
    stage.join()
    stage.goes_on()


def test_three_validators_go_on_after_each_was_alone() -> None:
    """besu#7437: three signers were locked in blocks of equal difficulty."""
    stage = Stage(3)
    stage.goes_on(2)
    for machine in stage.machines:
        stage.cut(machine)
        stage.run_ms(5_000)
    stage.join()
    stage.goes_on()


@pytest.mark.parametrize("size", [4, 7])
def test_validators_that_come_back_in_any_order_start_the_chain(size: int) -> None:
    """EIPs#1955, #2183, eips-poa#8, #12, #16: test networks halted each week while signers came and went."""
    stage = Stage(size)
    stage.goes_on(2)
    for machine in stage.machines:
        stage.crash(machine.number, None)
        stage.run_ms(700)
    for machine in reversed(stage.machines):
        stage.restart(machine.number)
        stage.run_ms(700)
    stage.goes_on()


def test_the_last_proposer_may_propose_again() -> None:
    """EIPs#1955: who had signed lately was excluded, so that too few were left to sign. Here f may be gone for good."""
    stage = Stage(7)
    stage.goes_on(2)
    for machine in stage.machines[:2]:
        stage.crash(machine.number, None)
    stage.goes_on(30, within_ms=8_000)


def test_a_block_from_the_near_future_is_waited_for_not_refused() -> None:
    """go-ethereum, Clique: a header a moment ahead of the local clock was invalid."""
    stage = Stage()
    for machine in stage.machines:
        machine.clock.offset_ms = 250 if machine.number % 2 else -250
    stage.goes_on(4)
    before = stage.view
    stage.goes_on(20)
    assert stage.view - before <= 24


# --- IBFT and QBFT --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sides"), [(4, 2), (4, 3), (4, 4), (7, 2), (7, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_an_outage_of_any_length_heals_alike(size: int, sides: int, seed: int) -> None:
    """besu#7642, besu-docs#611, #619, quorum-kubernetes#207: timers doubled with each round, "will expire in 4096
    seconds", and the advice was to restart all validators."""
    heals_ms = [heal_after(each, size, sides, seed) for each in (1_000, 10_000, 60_000, 600_000)]
    assert max(heals_ms) <= HEAL_MS_MAX
    assert max(heals_ms) - min(heals_ms) <= 1_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_day_without_a_quorum_is_over_like_a_second() -> None:
    """edge#245: after a long halt the exponential timeouts took days."""
    second_ms, day_ms = (heal_after(each, 4, 4, 0) for each in (1_000, 24 * HOUR_MS))
    assert day_ms <= HEAL_MS_MAX
    assert abs(day_ms - second_ms) <= 1_000


def heal_after(outage_ms: int, size: int, sides: int, seed: int) -> int:
    """From the end of a partition into so many sides, none of which is a quorum, to the first new final block."""
    world = Cluster(seed, size=size, keeps_trace=False)
    world.run_ms(3_000 + 37 * seed)
    world.network.now.cut = frozenset(
        (a, b) for a in range(size) for b in range(size) if a % sides != b % sides
    )
    world.run_ms(outage_ms)
    height, joined_ms = world.checker.height, world.at_ms
    world.network.join()
    assert world.run_ms(2 * HEAL_MS_MAX, lambda: world.checker.height > height)
    assert world.checker.violations == []
    return world.at_ms - joined_ms


def test_validators_with_empty_disks_catch_up_and_vote() -> None:
    """besu#8307: validators with fresh data directories never came to an agreement. Here at most f may lose all."""
    stage = Stage(7)
    stage.goes_on(30)
    for machine in stage.machines[:2]:
        stage.crash(machine.number, None)
        del machine.disk.final[1:]
        machine.disk.certificates.clear()
        stage.checker._finals.pop(machine.number)
        stage.restart(machine.number)
    stage.goes_on()
    views = stage.view
    assert {Kind.NOTARIZE} <= {
        kind for view in range(views - 3, views) for kind in stage.kinds_of(stage.machines[0], view)
    }


def test_a_lone_validator_needs_nobody_to_catch_up_with() -> None:
    """besu#6457: a single node waited to synchronize with itself."""
    stage = Stage(1)
    stage.goes_on(5)
    stage.crash_all()
    stage.restart_all()
    stage.goes_on(5)


def test_a_notarization_that_few_know_does_not_stop_the_rest() -> None:
    """besu#6613: fewer than a third were down, and the others disagreed about what had been prepared."""
    stage = Stage(7)
    stage.goes_on(2)
    view = stage.view + 1
    knowing = stage.machines[0]
    stage.lets_through = lambda source, to, message: (
        not is_about(message, Kind.NOTARIZE, view) or to == knowing.number or isinstance(message, Proposal)
    )
    stage.play_until(lambda: knowing.engine.view > view, 3_000)
    for machine in stage.machines[1:3]:
        stage.crash(machine.number, None)
    stage.join()
    stage.goes_on()


def test_a_quiet_network_gives_no_view_up() -> None:
    """besu#2095: rounds changed before the block period was over."""
    stage = Stage()
    stage.goes_on(60)
    assert not [
        message
        for _, _, message in stage.sent
        if isinstance(message, Vote) and message.statement.kind is Kind.NULLIFY
    ]


def test_times_are_at_least_a_period_apart_and_never_refused_for_it() -> None:
    """besu#2241, #2777, #7588, #6399, #3088: a timestamp only four seconds newer where the least is five; and 0.99 s read
    as 0, a block each 5 ms."""
    stage = Stage()
    stage.goes_on(40)
    times = [block.header.timestamp_ms for block in stage.machines[0].disk.final]
    steps = {later - earlier for earlier, later in pairwise(times)}
    assert min(steps) >= PERIOD_MS


def test_blocks_come_also_when_there_is_nothing_to_say() -> None:
    """besu#10917, #11109, tendermint#2487, #1909, cosmos-sdk#12356: modes without empty blocks held back transactions
    and votes, or never came to rest."""
    stage = Stage()
    stage.goes_on(2)
    before = stage.checker.height
    stage.run_ms(30_000)
    assert stage.checker.height - before >= 30_000 // PERIOD_MS - 2


def test_the_leader_of_the_first_view_may_have_left_with_the_old_epoch() -> None:
    """besu#2894, #2901, #2935, #7660, #8384, #9681, #10727: transitions between sets of validators."""
    stage = Stage(5, epoch_blocks=10)
    leaver = stage.leader(1, 1)
    plan_sets(stage, {number: 0 for number in range(5) if number != leaver.number})
    stage.goes_on(25)
    assert leaver.engine.me is None


def test_the_whole_set_may_change_at_once() -> None:
    """besu#9681: a transition to a disjoint set of validators."""
    stage = Stage(4, followers=4, epoch_blocks=10)
    plan_sets(stage, dict.fromkeys(range(4, 8), 0))
    stage.goes_on(25)
    assert {machine.number for machine in stage.machines if machine.engine.me is not None} == {4, 5, 6, 7}


@pytest.mark.parametrize("down_ms", [1_000, 30_000])
def test_a_restart_of_more_than_f_is_no_halt(down_ms: int) -> None:
    """edge#185, #187: three of seven were restarted, and their rounds never met those of the others again."""
    stage = Stage(7)
    stage.goes_on(2)
    for machine in stage.machines[:3]:
        stage.crash(machine.number, None)
    stage.run_ms(down_ms)
    for machine in stage.machines[:3]:
        stage.restart(machine.number)
    stage.goes_on()


def test_a_vote_for_a_block_binds_nobody_in_later_views() -> None:
    """edge#232: "block locked is incorrect": who had locked a block refused every other proposal."""
    stage = Stage()
    stage.goes_on(2)
    view = stage.view + 1
    stage.lets_through = lambda source, to, message: (
        (isinstance(message, Proposal | Status) and to == stage.machines[0].number)
        or not is_about(message, Kind.NOTARIZE, view)
    )
    stage.goes_on(8)
    assert all(view not in {block.header.view for block in each.disk.final} for each in stage.machines)


def test_validators_voted_in_that_never_come_do_not_stop_the_chain() -> None:
    """edge#1142, #1150: absent validators were voted in and halted the main network. Up to f are borne."""
    stage = Stage(5, followers=2, epoch_blocks=10)
    for machine in stage.machines[5:]:
        stage.crash(machine.number, None)
    plan_sets(stage, dict.fromkeys(range(7), 0))
    stage.goes_on(25)


def test_a_new_node_follows_the_proofs_through_every_change() -> None:
    """edge#968: who joined later could not verify seals of before a change, "not enough seals"."""
    stage = Stage(4, followers=4, epoch_blocks=10)
    newcomer = stage.machines[7]
    stage.crash(newcomer.number, None)
    plan_sets(stage, dict.fromkeys(range(5), 0), dict.fromkeys(range(1, 6), 0), dict.fromkeys(range(2, 7), 0))
    stage.goes_on(45)
    stage.restart(newcomer.number)
    stage.goes_on(5)
    assert newcomer.disk.head.epoch >= 4


# --- Tendermint and CometBFT ----------------------------------------------------------------------------------------


def test_a_torn_last_record_is_a_vote_that_nobody_saw() -> None:
    """tendermint#573, #3295, #1659, #4578, #5422, malachite#1434: logs whose last entry a crash had cut."""
    stage = Stage()
    stage.goes_on(2)
    for machine in stage.machines * 3:
        before = stage.crashes["before sync"]
        while stage.crashes["before sync"] == before:
            stage.arm_crash(machine.number, 1 + stage.crashes.total() % 7, 0)
            stage.run_ms(400)
    stage.goes_on()


def test_nothing_is_said_before_it_is_durable() -> None:
    """aptos-core#18298: signed first and stored then. The checker sees every vote and every synced record."""
    stage = Stage()
    seen: list[str] = []
    for boundaries in range(1, 40):
        stage.arm_crash(stage.machines[boundaries % 4].number, boundaries, 0)
        stage.run_ms(500)
        seen += stage.checker.violations
    assert seen == []
    stage.goes_on()


@pytest.mark.parametrize(("floor", "halts"), [((0, 6), True), ((0, 7), False)])
def test_a_key_without_its_votes_notices_the_first_above_its_floor(
    floor: tuple[int, int], halts: bool
) -> None:
    """tendermint#3418, #4262, #5147, cometbft#5435, tmkms#11, bsc#2598: keys went without what they had signed, and the
    check that should have noticed looked one height short."""
    talk = Talk(restored=Restored((), (), (), floor))
    effects = talk.hear(certificate(Kind.NULLIFY, 7, signers=(0, 1, 2)))
    assert bool(of(effects, Halt)) is halts


def test_more_than_a_third_that_repeat_a_vote_are_heard() -> None:
    """tendermint#8739: more than a third could not sign a replayed prevote again, and the chain halted."""
    stage = Stage(7)
    stage.goes_on(2)
    view = stage.view + 1
    voters = {each.number for each in stage.machines[:3]}
    stage.lets_through = lambda source, to, message: (
        not (is_about(message, Kind.NOTARIZE, view) and source in voters and isinstance(message, Vote))
    )
    stage.play_until(everyone_said(stage, Kind.NOTARIZE, view), 3_000)
    for number in voters:
        stage.crash(number, None)
        stage.restart(number)
    stage.join()
    stage.goes_on()


@pytest.mark.parametrize("behind_ms", [2_000, 20_000, 100_000])
def test_a_node_that_is_behind_gains_on_a_chain_at_full_speed(behind_ms: int) -> None:
    """tendermint#129, cometbft#3372, celestia-core#2729, cosmos-sdk#19242, cronos#2203: "arithmetically unable to
    close the gap"."""
    stage = Stage()
    stage.goes_on(2)
    late = stage.machines[0]
    stage.crash(late.number, None)
    stage.run_ms(behind_ms)
    stage.restart(late.number)
    stage.play_until(lambda: late.disk.head.height >= stage.checker.height - 2, 20_000)
    stage.goes_on()


def test_who_catches_up_never_votes_against_itself() -> None:
    """CometBFT, docs/core/block-sync.md: catching up adaptively carries a warning of equivocation."""
    stage = Stage()
    stage.goes_on(2)
    late = stage.machines[0]
    for gap_ms in (300, 900, 2_000, 5_000, 9_000):
        stage.cut(late)
        stage.run_ms(gap_ms)
        stage.crash(late.number, None)
        stage.restart(late.number)
        stage.join()
        stage.run_ms(1_500)
    stage.goes_on()


def test_a_double_vote_is_told_once_and_nobody_is_cut_off_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """tendermint#5560, sekai#100: evidence was proposed again and again, and peers were disconnected over it."""
    stage = Stage(puppets=(0,))
    accused: list[bytes] = []
    monkeypatch.setattr(stage.checker, "on_accused", accused.append)
    stage.goes_on(2)
    view = stage.view + 2
    one, two = (stage.block_on(stage.genesis, view, transaction=each) for each in (b"a", b"b"))
    for _ in range(5):
        for block in (one, two):
            stage.say(0, stage.sign(0, notarize(block, view)))
        stage.run_ms(50)
    stage.goes_on()
    assert accused == [stage.at(0).key] * len(stage.honest)


@pytest.mark.parametrize("offset_ms", [-10_000, -600, 600, 10_000])
def test_one_clock_out_of_bounds_costs_its_own_slots_only(offset_ms: int) -> None:
    """cometbft#1731, ADR-112: where proposers tell the time, liveness needs clocks within a bound."""
    stage = Stage()
    stage.machines[0].clock.offset_ms = offset_ms
    stage.goes_on(3)
    before = stage.checker.height
    stage.run_ms(30_000)
    assert stage.checker.height - before >= 0.7 * 30_000 / PERIOD_MS
    stage.holds()


# --- incidents of running networks ----------------------------------------------------------------------------------


def test_a_validator_whose_code_drifted_stops_and_does_not_go_on_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """asentum, "code drift": one validator was updated alone and ran on by itself for 200,000 blocks, because the
    committee shrank to those who were there."""
    stage = Stage()
    stage.goes_on(2)
    drifted, execute = stage.machines[0], stage._execute
    monkeypatch.setattr(
        stage,
        "_execute",
        lambda machine, block: "state root differs" if machine is drifted else execute(machine, block),
    )
    height = drifted.disk.head.height
    stage.play_until(lambda: drifted.is_halted, 3_000)
    assert drifted.disk.head.height <= height + 2
    assert all("invalid here" in each for each in stage.checker.violations)
    stage.crash(drifted.number, None)
    stage.play_until(lambda: stage.checker.height >= height + 10, 10_000)
    assert len(stage.checker.violations) == 1


@pytest.mark.parametrize(("size", "dead"), [(4, 2), (5, 2), (6, 2), (7, 3)])
def test_a_quorum_does_not_shrink_to_those_who_are_there(size: int, dead: int) -> None:
    """asentum: quorums were counted of those who were heard lately."""
    stage = Stage(size)
    stage.goes_on(2)
    for machine in stage.machines[:dead]:
        stage.crash(machine.number, None)
    stage.run_ms(1_000)  # what is on its way
    stage.stands(60_000)
    for machine in stage.machines[:dead]:
        stage.restart(machine.number)
    stage.goes_on()


@pytest.mark.parametrize("leaver_is", ["there", "down", "cut off", "back at once"])
def test_a_validator_may_leave_in_any_state(leaver_is: str) -> None:
    """Cosmos Hub v17.1 (2024): a validator that left the set halted the chain for 4 h 40 min."""
    stage = Stage(5, epoch_blocks=10)
    stage.goes_on(2)
    leaver = stage.machines[0]
    plan_sets(stage, dict.fromkeys(range(1, 5), 0))
    if leaver_is == "down":
        stage.crash(leaver.number, None)
    elif leaver_is == "cut off":
        stage.cut(leaver)
    others = [each for each in stage.machines if each is not leaver]
    stage.play_until(lambda: min(each.disk.head.height for each in others) >= 12, 30_000)
    if leaver_is == "back at once":
        stage.crash(leaver.number, None)
    stage.restart(leaver.number)
    stage.join()
    stage.goes_on(15)
    assert leaver.engine.me is None


@pytest.mark.parametrize("are_restarted", [False, True])
def test_validators_in_four_different_views_meet(are_restarted: bool) -> None:
    """Helium (2022): after an outage the nodes were stuck in different rounds for more than four hours."""
    stage = Stage(7)
    stage.goes_on(2)
    gone: set[int] = set()
    last_view = 1 << 60

    def lets_through(source: int, to: int, message: Message) -> bool:
        """No block is notarized. Of the last view's end only machine 2 hears."""
        statement = statement_in(message)
        if gone & {source, to} or isinstance(message, Proposal):
            return False
        return statement is None or statement.view < last_view or to == 2

    stage.lets_through = lets_through
    for number in (0, 1):
        stage.run_ms(3_000)
        gone.add(number)
    stage.run_ms(3_000)
    last_view = stage.view
    stage.run_ms(6_000)
    views = [each.engine.view for each in stage.machines]
    assert len(set(views)) >= 4, views
    if are_restarted:
        stage.crash_all()
        stage.restart_all()
    stage.join()
    stage.goes_on()


@pytest.mark.parametrize("order", ["up", "down"])
@pytest.mark.parametrize(("size", "empty"), [(4, 1), (7, 0), (7, 2)])
def test_f_and_one_more_restart_some_of_them_with_nothing(size: int, empty: int, order: str) -> None:
    """besu#8307, edge#187, sui#5617, radixdlt/babylon-node#243: after such a restart validators never agreed again."""
    stage = Stage(size)
    stage.goes_on(20)
    restarted = stage.machines[: (size - 1) // 3 + 1]
    for machine in restarted:
        stage.crash(machine.number, None)
    stage.run_ms(10_000)
    for machine in restarted[:empty]:
        del machine.disk.final[1:]
        machine.disk.certificates.clear()
        stage.checker._finals.pop(machine.number)
    for machine in restarted if order == "up" else restarted[::-1]:
        stage.restart(machine.number)
        stage.run_ms(300)
    stage.goes_on()


def test_a_flood_of_later_views_fills_no_memory() -> None:
    """Besu, GHSA-23rh-rrqg-wq82: messages for rounds without a bound were all kept."""
    stage = Stage(puppets=(0,))
    stage.goes_on(2)
    for ahead in range(1, 400):
        view = stage.view + ahead
        block = stage.block_on(stage.genesis, view)
        for statement in (nullify(view), notarize(block, view)):
            stage.say(0, stage.sign(0, statement))
        stage.say(0, Status(1, view, block.header.height, block.header.hash, None))
    stage.run_ms(100)
    for machine in stage.honest:
        assert len(list(machine.engine._rounds)) <= 2 * VIEWS_AHEAD_MAX
        assert len(machine.engine._early) <= EARLY_MAX
    stage.goes_on()


def test_a_peer_that_lowers_what_it_tells_of_itself_hinders_nobody() -> None:
    """CometBFT, ASA-2025-001: a node that caught up waited for ever when a peer told a height and then a lower one."""
    stage = Stage(puppets=(0,))
    stage.goes_on(4)
    late = stage.honest[0]
    stage.crash(late.number, None)
    stage.run_ms(10_000)
    stage.restart(late.number)
    for height in (1 << 40, 3, 0):
        stage.say(0, Status(0, 1, Height(height), stage.genesis.header.hash, None), late)
        stage.run_ms(50)
    stage.goes_on()
    assert late.disk.head.height >= stage.checker.height - 2


def plan_sets(stage: Stage, *plans: dict[int, int]) -> None:
    """The sets of the epochs from 1 on: which machine with which of its keys. The last one stays."""
    sets: Sets = stage.sets
    sets._next = lambda owners: dict(plans[min(len(sets.owners), len(plans)) - 1])  # type: ignore[method-assign]
