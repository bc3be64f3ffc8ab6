"""Catching up (decisions/0012): each rule alone, then whole networks of bad peers in virtual time."""

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.block import Block
from ctt_state.units import Hash, Height
from ctt_state.validators import boundary_of, epoch_of
from ctt_state.votes import Certificate, quorum
from node.consensus.events import BlockFinal, Head, Status, Tick
from node.sync import (
    ANSWER_MS,
    BUFFER_BYTES_MAX,
    HEDGE_MS,
    RANGES_ASKED_MAX,
    REST_MS,
    STRIKES_MAX,
    TICK_MS,
    WANTS_MAX,
    WINDOW_BLOCKS,
    Applied,
    Apply,
    ApplyFailed,
    Ask,
    BlockReply,
    BlocksReply,
    Deliver,
    Diverged,
    Effect,
    Event,
    GetBlock,
    GetBlocks,
    Misbehaved,
    PeerConnected,
    PeerGone,
    PeerStatus,
    Progress,
    Refused,
    Replied,
    Sync,
    WantBlock,
)
from tests.light_world import RULES, Chain, make_signers

FIRST, SECOND, THIRD = make_signers(0, 1, 2, 3), make_signers(1, 2, 3, 4, 5), make_signers(6, 7, 8, 9)
EPOCH_BLOCKS = 300
LONG = RULES._replace(epoch_blocks=EPOCH_BLOCKS)
CHAIN = Chain((FIRST, SECOND, THIRD), LONG).grow(1_000)
FORK = Chain((FIRST, SECOND, THIRD), LONG, payload_bytes=60).grow(1_000)
FORK.blocks[0] = CHAIN.blocks[0]
START_MS = 50_000
CERTIFIED_APART = 30
CERTIFICATES: dict[int, Certificate] = {}


def certificate_of(height: int) -> Certificate:
    if height not in CERTIFICATES:
        CERTIFICATES[height] = CHAIN.certificate(height)
    return CERTIFICATES[height]


def status_of(height: int, chain: Chain = CHAIN) -> Status:
    block_hash = chain.header(height).hash
    return Status(epoch_of(height + 1, EPOCH_BLOCKS), 1, Height(height), block_hash, None)


def final(height: int) -> BlockFinal:
    header = CHAIN.header(height)
    is_boundary = height == boundary_of(header.epoch, EPOCH_BLOCKS)
    next_set = CHAIN.signers(header.epoch + 1).members if is_boundary else None
    return BlockFinal(Head(header, header.hash), next_set)


def make_sync(height: int = 0, now_ms: int = START_MS) -> Sync:
    header = CHAIN.header(height)
    members = CHAIN.signers(epoch_of(height + 1, EPOCH_BLOCKS)).members
    return Sync(LONG, head=Head(header, header.hash), validators=members, now_ms=now_ms)


def blocks_of(first: int, last: int) -> tuple[Block, ...]:
    return tuple(CHAIN.blocks[first : last + 1])


class Talk:
    """A conversation with one planner: what was asked of whom is remembered."""

    def __init__(self, height: int = 0, **peers: int) -> None:
        """Peers by name with the final height that they claim."""
        self.sync = make_sync(height)
        self.now_ms = START_MS
        self.height = height
        self.asked: dict[str, GetBlocks | GetBlock] = {}
        self.applied: list[Apply] = []
        self.blamed: list[Misbehaved] = []
        for name, claim in peers.items():
            self.connect(name, claim)

    def connect(self, name: str, claim: int) -> list[Effect]:
        self.tell(PeerConnected(name, None))
        return self.tell(PeerStatus(name, status_of(claim)))

    def tell(self, event: Event) -> list[Effect]:
        effects = self.sync.step(event, self.now_ms)
        for effect in effects:
            match effect:
                case Ask(peer, request):
                    self.asked[str(peer)] = request
                case Apply():
                    self.applied.append(effect)
                case Misbehaved():
                    self.blamed.append(effect)
        return effects

    def wait(self, milliseconds: int) -> list[Effect]:
        """Ticks go on."""
        effects = []
        end_ms = self.now_ms + milliseconds
        while self.now_ms < end_ms:
            self.now_ms = min(self.now_ms + TICK_MS, end_ms)
            effects += self.tell(Tick())
        return effects

    def answer(
        self, name: str, blocks: tuple[Block, ...], certificate: Certificate | None = None
    ) -> list[Effect]:
        return self.tell(Replied(name, BlocksReply(self.asked.pop(name).request, blocks, certificate)))

    def serve(self, name: str) -> list[Effect]:
        """The honest answer: all that was asked for, with the certificate of the last."""
        ask = self.asked[name]
        assert isinstance(ask, GetBlocks)
        last = ask.from_height + ask.count - 1
        return self.answer(name, blocks_of(ask.from_height, last), certificate_of(last))

    def finish(self) -> list[Effect]:
        """The runner has applied what it was given."""
        for block in self.applied[-1].blocks:
            self.tell(final(block.header.height))
        return self.tell(Applied())


def asks(effects: list[Effect]) -> list[tuple[object, int, int]]:
    """Whom ranges were asked of, from where and how many."""
    return [
        (effect.peer, effect.request.from_height, effect.request.count)
        for effect in effects
        if isinstance(effect, Ask) and isinstance(effect.request, GetBlocks)
    ]


# --- when and whom ----------------------------------------------------------------------------------------------------


def test_nothing_is_asked_while_consensus_keeps_up() -> None:
    talk = Talk(10, a=12)

    assert talk.asked == {}
    assert not talk.sync.is_syncing(talk.now_ms)
    assert asks(talk.tell(PeerStatus("a", status_of(13)))) == [("a", 11, 3)]


def test_a_head_that_stands_still_is_behind_by_a_single_block() -> None:
    talk = Talk(10, a=11)

    assert talk.asked == {}
    assert asks(talk.wait(2_000)) == [("a", 11, 1)]


def test_ranges_go_to_different_peers_in_their_order() -> None:
    talk = Talk()
    talk.connect("a", 200)
    talk.connect("b", 200)
    talk.connect("c", 800)
    talk.connect("d", 800)

    asked = {
        name: (ask.from_height, ask.count) for name, ask in talk.asked.items() if isinstance(ask, GetBlocks)
    }
    assert asked == {"a": (1, 128), "b": (129, 72), "c": (201, 100)}  # an epoch has 300 blocks


def test_a_proven_range_is_applied_and_the_next_waits_for_it() -> None:
    talk = Talk(a=250, b=250)

    talk.serve("b")
    assert talk.applied == []
    talk.serve("a")

    assert [(each.blocks[0].header.height, len(each.blocks)) for each in talk.applied] == [(1, 128)]
    assert talk.applied[0].certificate == certificate_of(128)
    talk.finish()
    assert talk.applied[1].blocks == blocks_of(129, 250)


def test_the_next_epoch_waits_for_its_set() -> None:
    talk = Talk(290, a=700)
    assert (talk.asked["a"].from_height, talk.asked["a"].count) == (291, 10)  # type: ignore[union-attr]

    assert asks(talk.serve("a")) == []
    assert talk.applied[0].certificate == certificate_of(300)
    talk.finish()

    assert talk.asked["a"].from_height == 301  # type: ignore[union-attr]
    talk.serve("a")
    assert talk.applied[1].blocks == blocks_of(301, 428)


def test_a_short_answer_leaves_a_range_of_its_own() -> None:
    talk = Talk(a=128)

    effects = talk.answer("a", blocks_of(1, 90), certificate_of(90))

    assert asks(effects) == [("a", 91, 38)]
    assert talk.applied[0].blocks == blocks_of(1, 90)


def test_blocks_without_a_certificate_wait_for_one_above() -> None:
    talk = Talk(a=100)

    assert asks(talk.answer("a", blocks_of(1, 40))) == [("a", 41, 60)]
    assert talk.applied == []
    talk.answer("a", blocks_of(41, 60), certificate_of(60))

    assert talk.applied[0].blocks == blocks_of(1, 60)


def test_a_proven_range_proves_the_one_below() -> None:
    talk = Talk(a=250, b=250)

    talk.answer("a", blocks_of(1, 128))
    assert talk.applied == []
    talk.serve("b")

    assert talk.applied[0] == Apply(blocks_of(1, 250), certificate_of(250))


def test_a_proven_range_shows_who_lied_below() -> None:
    talk = Talk(a=250, b=250)
    talk.answer("a", tuple(FORK.blocks[1:129]))

    talk.serve("b")

    assert [each.peer for each in talk.blamed] == ["a"]
    assert "which is not final" in talk.blamed[0].reason
    assert talk.applied == []
    assert talk.asked["b"] == GetBlocks(talk.asked["b"].request, Height(1), 128)


def test_parts_that_do_not_belong_together_are_a_lie() -> None:
    for certificate in (certificate_of(60), None):
        talk = Talk(a=100)
        talk.answer("a", tuple(FORK.blocks[1:41]))

        talk.answer("a", blocks_of(41, 60), certificate)

        assert "block 41 stands on" in talk.blamed[0].reason
        assert talk.asked["a"].from_height == 1  # type: ignore[union-attr]


def test_parts_survive_a_silence_of_their_peer() -> None:
    talk = Talk(a=100)
    talk.answer("a", blocks_of(1, 40))

    assert asks(talk.wait(ANSWER_MS)) == [("a", 41, 60)]


def test_a_peer_may_go_on_to_the_next_certificate() -> None:
    """Beyond what it was asked for, into the range above."""
    talk = Talk(a=160)
    talk.answer("a", blocks_of(1, 100), certificate_of(100))
    assert (talk.asked["a"].from_height, talk.asked["a"].count) == (101, 28)  # type: ignore[union-attr]

    effects = talk.answer("a", blocks_of(101, 150), certificate_of(150))
    talk.finish()

    assert asks(effects) == [("a", 151, 10)]
    assert talk.applied[1].blocks == blocks_of(101, 150)
    assert talk.blamed == []


@pytest.mark.parametrize(("fast", "slow"), ["ab", "ba"])
def test_the_lowest_range_goes_to_the_fastest_peer(fast: str, slow: str) -> None:
    talk = Talk(a=700, b=700)
    talk.now_ms += 100
    talk.serve(fast)
    talk.serve(fast)
    talk.now_ms += 900
    talk.serve(slow)

    while talk.sync._applying is not None:  # to the end of the epoch; then both are free
        talk.finish()

    assert talk.asked[fast].from_height == 301  # type: ignore[union-attr]
    assert talk.asked[slow].from_height == 429  # type: ignore[union-attr]


def test_one_apply_at_a_time_and_each_on_the_head() -> None:
    talk = Talk(a=250, b=250)
    talk.serve("b")
    talk.serve("a")
    for height in range(1, 129):
        talk.tell(final(height))
    assert len(talk.applied) == 1

    talk.tell(Applied())
    assert len(talk.applied) == 2


def test_blocks_that_are_not_final_when_they_were_applied_are_asked_for_again() -> None:
    talk = Talk(a=250, b=250)
    talk.serve("b")
    talk.serve("a")

    effects = talk.tell(Applied())

    assert len(talk.applied) == 1
    assert not [each for each in effects if isinstance(each, Diverged)]
    assert asks(effects)[0][1:] == (1, 128)


def test_what_consensus_finalized_meanwhile_is_cut_off() -> None:
    talk = Talk(a=100)
    for height in range(1, 41):
        talk.tell(final(height))

    talk.serve("a")

    assert talk.applied[0].blocks == blocks_of(41, 100)


def test_an_answer_that_consensus_made_useless_is_forgotten() -> None:
    talk = Talk(a=20)
    for height in range(1, 21):
        talk.tell(final(height))

    effects = talk.serve("a")

    assert effects == [] and talk.blamed == []


def test_an_answer_whose_part_consensus_made_useless_leaves_the_rest() -> None:
    talk = Talk(a=40)
    for height in range(1, 21):
        talk.tell(final(height))

    effects = talk.answer("a", blocks_of(1, 15), certificate_of(15))

    assert asks(effects) == [("a", 21, 20)]


# --- lies -------------------------------------------------------------------------------------------------------------


def forged(height: int) -> Certificate:
    """By one validator less than needed."""
    signers = CHAIN.signers(CHAIN.header(height).epoch)
    return signers.certify(CHAIN.statement(height), *range(quorum(len(signers.secrets)) - 1))


TAMPERED = (*blocks_of(1, 4), CHAIN.blocks[5]._replace(transactions=(b"other",)))


@pytest.mark.parametrize(
    ("blocks", "certificate", "text"),
    [
        ((), None, "sent 0 blocks of 100 that it claims to have from 1"),
        (blocks_of(1, 101), None, "sent 101 blocks of 100"),
        (blocks_of(1, 129), certificate_of(129), "sent 129 blocks of 100"),
        (blocks_of(2, 50), certificate_of(50), "sent blocks from 2, asked for from 1"),
        (blocks_of(1, 50), forged(50), "has 2 signatures of 3 needed"),
        (blocks_of(1, 50), certificate_of(51), "certificate of block"),
        (blocks_of(1, 50), SECOND.certify(CHAIN.statement(50)), "certificate of block 50"),
        ((*blocks_of(1, 20), *blocks_of(22, 50)), certificate_of(50), "block 22 comes after block 20"),
        ((*FORK.blocks[1:20], *blocks_of(20, 50)), certificate_of(50), "block 20 stands on"),
        ((*FORK.blocks[1:20], *blocks_of(20, 50)), None, "block 20 stands on"),
        (TAMPERED, certificate_of(5), "transactions are not those of block 5"),
        (TAMPERED, None, "transactions are not those of block 5"),
    ],
)
def test_a_lie_costs_its_peer_and_the_range_goes_to_the_next(
    blocks: tuple[Block, ...], certificate: Certificate | None, text: str
) -> None:
    talk = Talk(a=100, b=100)

    effects = talk.answer("a", blocks, certificate)

    assert [each.peer for each in talk.blamed] == ["a"]
    assert text in talk.blamed[0].reason
    assert asks(effects) == [("b", 1, 100)]
    assert talk.applied == []


def test_an_epochs_last_block_needs_its_certificate() -> None:
    talk = Talk(290, a=300)

    talk.answer("a", blocks_of(291, 300))

    assert "the last of its epoch, without a finalization" in talk.blamed[0].reason


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (status_of(50), "went down from final block 100 to 50"),
        (status_of(100, FORK), "says that block 100 is"),
        (Status(1, 1, Height(120), Hash(b"?" * 32), None), "says epoch 1 after block 120"),
        (status_of(10, FORK), "went down"),
    ],
)
def test_a_status_that_no_honest_peer_tells_is_a_lie(status: Status, text: str) -> None:
    talk = Talk(10, a=100)

    talk.tell(PeerStatus("a", status))

    assert text in talk.blamed[0].reason
    assert talk.sync.target(talk.now_ms) == 10


def test_a_peer_on_another_chain_is_told_apart_at_our_own_height() -> None:
    talk = Talk(10)
    talk.tell(PeerConnected("a", None))

    talk.tell(PeerStatus("a", status_of(10, FORK)))

    assert "final here is" in talk.blamed[0].reason


def test_who_lies_three_times_rests_for_a_minute() -> None:
    talk = Talk(a=100)
    for _ in range(3):
        talk.answer("a", ())

    assert talk.asked == {}
    assert talk.sync.target(talk.now_ms) == 0
    talk.wait(REST_MS - 1)
    assert talk.asked == {}
    assert asks(talk.wait(1)) == [("a", 1, 100)]


def test_who_was_silent_and_comes_back_is_asked_at_once_but_after_others() -> None:
    """After a partition everyone was silent. Who lies is kept out by its name, which is not the planner's business."""
    talk = Talk(a=100)
    talk.wait(STRIKES_MAX * ANSWER_MS)
    assert talk.sync.target(talk.now_ms) == 0

    talk.tell(PeerGone("a"))
    assert asks(talk.connect("a", 100)) == [("a", 1, 100)]

    talk.connect("b", 100)
    talk.tell(PeerGone("a"))
    assert asks(talk.connect("a", 100)) == []
    assert talk.asked["b"].from_height == 1  # type: ignore[union-attr]


def test_good_answers_make_up_for_bad_ones() -> None:
    talk = Talk(a=200)
    talk.answer("a", ())
    talk.answer("a", ())
    talk.serve("a")
    talk.answer("a", ())

    assert talk.asked["a"].from_height == 129  # type: ignore[union-attr]


def test_who_rests_keeps_no_range() -> None:
    talk = Talk(a=100)
    talk.answer("a", blocks_of(1, 40))
    talk.connect("b", 100)
    asked = []
    for claim in (50, 100, 40, 100, 30):
        asked += asks(talk.tell(PeerStatus("a", status_of(claim))))

    assert len(talk.blamed) == 3
    assert asked == [("b", 1, 100)]


def test_silence_gives_the_range_to_the_next_and_asks_for_less() -> None:
    talk = Talk(a=100, b=100)

    assert asks(talk.wait(ANSWER_MS - 1)) == []
    assert asks(talk.wait(1)) == [("b", 1, 100)]
    talk.tell(PeerGone("b"))

    assert talk.asked["a"].count == 64  # type: ignore[union-attr]
    assert talk.blamed == []


def test_a_late_answer_is_of_use() -> None:
    talk = Talk(a=100, b=100)
    late = talk.asked["a"].request
    talk.wait(ANSWER_MS)

    talk.tell(Replied("a", BlocksReply(late, blocks_of(1, 100), certificate_of(100))))

    assert talk.applied[0].blocks == blocks_of(1, 100)
    assert talk.serve("b") == []


def test_an_answer_after_ten_seconds_is_of_no_use() -> None:
    talk = Talk(a=100)
    late = talk.asked["a"].request
    talk.tell(PeerConnected("b", None))
    talk.wait(10_000)

    assert talk.tell(Replied("a", BlocksReply(late, blocks_of(1, 100), certificate_of(100)))) == []
    assert talk.applied == []


def test_a_late_answer_without_proof_takes_nothing_from_another() -> None:
    talk = Talk(a=100, b=100)
    late = talk.asked["a"].request
    talk.wait(ANSWER_MS)

    talk.tell(Replied("a", BlocksReply(late, tuple(FORK.blocks[1:101]), None)))
    talk.serve("b")

    assert talk.applied[0].blocks == blocks_of(1, 100)


def test_answers_that_nobody_asked_for_are_dropped() -> None:
    talk = Talk(a=100, b=100)
    number = talk.asked["a"].request

    assert talk.tell(Replied("b", BlocksReply(number, blocks_of(1, 100), certificate_of(100)))) == []
    assert talk.tell(Replied("a", BlocksReply(number + 9, blocks_of(1, 100), certificate_of(100)))) == []
    assert talk.tell(Replied("nobody", BlocksReply(number, blocks_of(1, 100), None))) == []
    assert talk.serve("a") != []


def test_an_answer_to_another_question_is_a_lie() -> None:
    talk = Talk(a=100)

    talk.tell(Replied("a", BlockReply(talk.asked["a"].request, CHAIN.blocks[1])))

    assert "another question" in talk.blamed[0].reason


def test_a_refusal_is_no_lie_but_a_pause() -> None:
    talk = Talk(a=100, b=100)

    effects = talk.tell(Replied("a", Refused(talk.asked.pop("a").request)))
    assert asks(effects) == [("b", 1, 100)]
    talk.tell(PeerGone("b"))
    assert talk.asked.get("a") is None
    assert asks(talk.wait(1_000)) == [("a", 1, 100)]
    assert talk.blamed == []


def test_a_peer_that_drips_loses_its_range_to_another() -> None:
    """Every part comes in time, but the range would take for ever."""
    talk = Talk(a=100)
    height = 1
    for _ in range(3):
        talk.wait(1_900)
        talk.answer("a", blocks_of(height, height))
        height += 1
    talk.connect("b", 100)

    talk.wait(1_900)
    effects = talk.answer("a", blocks_of(height, height))

    assert asks(effects) == [("b", 1, 100)]


def test_unproven_blocks_at_the_end_hold_nothing_up() -> None:
    """Junk above the tip, well linked: nothing will ever prove it."""
    talk = Talk(100, a=160)
    talk.answer("a", blocks_of(101, 160))
    assert talk.applied == []
    talk.connect("b", 130)

    effects = talk.wait(6_000)

    assert ("b", 101, 30) in asks(effects)


def test_a_quorum_that_finalized_another_chain_stops_the_node() -> None:
    sync = Sync(
        LONG,
        head=Head(FORK.header(10), FORK.header(10).hash),
        validators=FIRST.members,
        now_ms=START_MS,
    )
    sync.step(PeerConnected("a", None), START_MS)
    (ask,) = sync.step(PeerStatus("a", status_of(50)), START_MS)
    assert isinstance(ask, Ask)

    reply = BlocksReply(ask.request.request, blocks_of(11, 50), certificate_of(50))
    effects = sync.step(Replied("a", reply), START_MS)

    (diverged,) = [each for each in effects if isinstance(each, Diverged)]
    assert "final block 11 stands on" in diverged.reason
    assert not [each for each in effects if isinstance(each, Apply)]
    assert sync.step(PeerStatus("a", status_of(60)), START_MS) == []


def test_blocks_that_cannot_be_applied_are_tried_again_after_a_while() -> None:
    talk = Talk(a=100)
    talk.serve("a")

    assert asks(talk.tell(ApplyFailed())) == []

    assert asks(talk.wait(1_000)) == [("a", 1, 100)]
    assert talk.blamed == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_window_bounds_what_is_asked_ahead() -> None:
    long = Chain((FIRST,), RULES._replace(epoch_blocks=10_000)).grow(700)
    head = Head(long.header(0), long.header(0).hash)
    sync = Sync(long.rules, head=head, validators=FIRST.members, now_ms=START_MS)
    peers = "abcdef"
    asked: dict[str, GetBlocks] = {}
    highest = 0

    def take(effects: list[Effect]) -> None:
        nonlocal highest
        for effect in effects:
            assert not isinstance(effect, Apply)
            if isinstance(effect, Ask) and isinstance(effect.request, GetBlocks):
                asked[str(effect.peer)] = effect.request
                highest = max(highest, effect.request.from_height + effect.request.count - 1)

    for name in peers:
        take(sync.step(PeerConnected(name, None), START_MS))
        status = Status(0, 1, Height(700), long.header(700).hash, None)
        take(sync.step(PeerStatus(name, status), START_MS))
    assert len(asked) == RANGES_ASKED_MAX
    front = next(name for name, ask in asked.items() if ask.from_height == 1)
    while others := [name for name in asked if name != front]:  # the lowest range never comes
        ask = asked.pop(others[0])
        last = ask.from_height + ask.count - 1
        reply = BlocksReply(
            ask.request, tuple(long.blocks[ask.from_height : last + 1]), long.certificate(last)
        )
        take(sync.step(Replied(others[0], reply), START_MS))

    assert highest == WINDOW_BLOCKS


def test_large_blocks_are_not_asked_ahead_beyond_the_buffer() -> None:
    large = Chain((FIRST,), RULES._replace(epoch_blocks=10_000), payload_bytes=60_000).grow(512)
    head = Head(large.header(0), large.header(0).hash)
    sync = Sync(large.rules, head=head, validators=FIRST.members, now_ms=START_MS)
    asked: dict[str, GetBlocks] = {}
    received = 0

    def take(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask) and isinstance(effect.request, GetBlocks):
                asked[str(effect.peer)] = effect.request

    for name in "abc":
        take(sync.step(PeerConnected(name, None), START_MS))
        status = Status(0, 1, Height(512), large.header(512).hash, None)
        take(sync.step(PeerStatus(name, status), START_MS))
    front = next(name for name, ask in asked.items() if ask.from_height == 1)
    while others := [name for name in asked if name != front]:
        ask = asked.pop(others[0])
        blocks = tuple(large.blocks[ask.from_height : ask.from_height + min(ask.count, 12)])
        received += sum(len(raw) for block in blocks for raw in block.transactions)
        reply = BlocksReply(ask.request, blocks, large.certificate(blocks[-1].header.height))
        take(sync.step(Replied(others[0], reply), START_MS))

    assert BUFFER_BYTES_MAX // 2 < received < BUFFER_BYTES_MAX


def test_a_full_buffer_does_not_stop_the_lowest_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.sync.BUFFER_BYTES_MAX", 3 * 2**21)
    talk = Talk(a=300, b=300)
    assert {each.from_height for each in talk.asked.values() if isinstance(each, GetBlocks)} == {1, 129}
    monkeypatch.setattr("node.sync.BUFFER_BYTES_MAX", 0)

    assert asks(talk.serve("b")) == []
    assert asks(talk.answer("a", blocks_of(1, 10))) == [("a", 11, 118)]


def test_blocks_that_nothing_proves_are_given_up_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.sync.UNPROVEN_BYTES_MAX", 40 * 1_100)
    talk = Talk(a=100)

    talk.answer("a", blocks_of(1, 30))
    assert talk.asked["a"].from_height == 31  # type: ignore[union-attr]
    talk.answer("a", blocks_of(31, 60))

    assert talk.asked["a"].from_height == 1  # type: ignore[union-attr]


# --- single blocks ----------------------------------------------------------------------------------------------------


def want(height: int, *holders: int) -> WantBlock:
    return WantBlock(CHAIN.header(height).hash, holders)


def make_want_talk() -> Talk:
    """Peers `v0` to `v3` are the validators, `x` is none."""
    talk = Talk(10, x=10)
    for place, member in enumerate(FIRST.members.members):
        talk.tell(PeerConnected(f"v{place}", member.address))
    return talk


def test_a_wanted_block_is_asked_of_who_signed_for_it() -> None:
    talk = make_want_talk()

    (ask,) = talk.tell(want(11, 2, 3))

    assert isinstance(ask, Ask) and ask.peer == "v2"
    effects = talk.tell(Replied("v2", BlockReply(ask.request.request, CHAIN.blocks[11])))
    assert effects == [Deliver(CHAIN.blocks[11])]
    assert talk.wait(3_000) == []


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (CHAIN.blocks[12], "sent block"),
        (CHAIN.blocks[11]._replace(transactions=(b"other",)), "are not those of block 11"),
        (CHAIN.blocks[11]._replace(evidence=(b"other",)), "are not those of block 11"),
    ],
)
def test_another_block_than_the_wanted_one_is_a_lie(block: Block, text: str) -> None:
    talk = make_want_talk()
    (ask,) = talk.tell(want(11, 2, 3))
    assert isinstance(ask, Ask)

    lie, again = talk.tell(Replied("v2", BlockReply(ask.request.request, block)))

    assert isinstance(lie, Misbehaved) and lie.peer == "v2"
    assert text in lie.reason
    assert isinstance(again, Ask) and again.peer == "v3"


def test_who_does_not_have_the_block_or_is_slow_is_not_waited_for() -> None:
    talk = make_want_talk()
    (ask,) = talk.tell(want(11, 2, 3))
    assert isinstance(ask, Ask)

    (second,) = talk.tell(Replied("v2", BlockReply(ask.request.request, None)))
    (third,) = talk.wait(500)

    assert isinstance(second, Ask) and second.peer == "v3"
    assert isinstance(third, Ask) and third.peer not in ("v2", "v3")
    assert talk.blamed == []


def test_three_peers_at_once_are_asked_for_a_block() -> None:
    talk = make_want_talk()
    asked = talk.tell(want(11, 2, 3)) + talk.wait(1_900)

    assert len(asked) == 3
    assert len({each.peer for each in asked if isinstance(each, Ask)}) == 3


def test_a_block_that_all_lack_is_asked_for_when_it_is_wanted_again() -> None:
    talk = Talk(10, a=10)
    (ask,) = talk.tell(want(11))
    assert isinstance(ask, Ask)

    assert talk.tell(Replied("a", BlockReply(ask.request.request, None))) == []

    (again,) = talk.tell(want(11))
    assert isinstance(again, Ask)
    assert [type(each) for each in talk.tell(final(11))] == []
    assert talk.tell(Replied("a", BlockReply(again.request.request, CHAIN.blocks[11]))) == []


def test_a_block_that_came_and_is_wanted_again_owes_nothing_to_who_was_asked_before() -> None:
    """The first peer is silent, another brings the block, and it is wanted once more before the silence counts."""
    talk = Talk(10, a=10, b=10)
    talk.tell(want(11))
    talk.wait(HEDGE_MS)
    request = talk.asked["b"].request
    assert talk.tell(Replied("b", BlockReply(request, CHAIN.blocks[11]))) == [Deliver(CHAIN.blocks[11])]

    talk.tell(want(11))
    effects = talk.wait(ANSWER_MS)

    assert [each.peer for each in effects if isinstance(each, Ask)] == ["b"]
    assert talk.blamed == []


def test_only_so_many_blocks_are_wanted_and_none_for_ever() -> None:
    talk = Talk(10, a=10)
    for height in range(11, 11 + 2 * WANTS_MAX):
        talk.tell(want(height))
        assert len(talk.sync._wants) <= WANTS_MAX
    talk.now_ms += 60_000
    talk.tell(Tick())

    assert len(talk.sync._wants) == 0
    assert len(talk.sync._requests) <= 2 * WANTS_MAX


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_target_is_what_more_validators_claim_than_may_be_faulty() -> None:
    talk = Talk(10, liar=900)
    assert talk.sync.target(talk.now_ms) == 900
    for place, claim in enumerate((950, 40, 30)):
        talk.tell(PeerConnected(f"v{place}", FIRST.members.members[place].address))
        talk.tell(PeerStatus(f"v{place}", status_of(claim)))

    assert talk.sync.target(talk.now_ms) == 40
    assert talk.sync.is_syncing(talk.now_ms)


def test_who_rests_makes_nothing_plausible() -> None:
    talk = Talk(10)
    for place in range(3):
        talk.tell(PeerConnected(f"v{place}", FIRST.members.members[place].address))
    for claim in (300, 299, 300, 298, 300, 297):
        talk.tell(PeerStatus("v0", status_of(claim)))
    talk.tell(PeerStatus("v1", status_of(20)))
    talk.tell(PeerStatus("v2", status_of(12)))
    assert talk.sync.target(talk.now_ms) == 12

    talk.tell(PeerStatus("v0", status_of(500)))
    assert talk.sync.target(talk.now_ms) == 12


def test_the_head_never_goes_down() -> None:
    talk = Talk(10)
    talk.tell(final(11))

    talk.tell(final(9))

    assert talk.sync.target(talk.now_ms) == 11


def test_progress_is_told_each_second_and_at_the_end() -> None:
    talk = Talk(a=100)
    told = []
    talk.serve("a")
    for height in range(1, 101):
        talk.now_ms += 25
        told += [each for each in talk.tell(final(height)) if isinstance(each, Progress)]

    assert told == [
        Progress(Height(40), Height(100)),
        Progress(Height(80), Height(100)),
        Progress(Height(97), Height(100)),
    ]


# --- networks ---------------------------------------------------------------------------------------------------------


class Honest:
    """Serves what it has, up to a certified block where there is one."""

    loss_percent: ClassVar = 0
    delays_ms: ClassVar = (5, 60)

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def status(self, tip: int) -> Status:
        return status_of(tip)

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        last = min(ask.from_height + ask.count - 1, tip)
        if last < ask.from_height:
            return Refused(ask.request)
        certified = [
            height
            for height in range(ask.from_height, last + 1)
            if height > tip - 64 or height % CERTIFIED_APART == 0 or height % EPOCH_BLOCKS == 0
        ]
        last = certified[-1] if certified else last
        certificate = certificate_of(last) if certified else None
        return BlocksReply(ask.request, blocks_of(ask.from_height, last), certificate)


class Lossy(Honest):
    """Every fifth answer is lost, others take long."""

    loss_percent: ClassVar = 20
    delays_ms: ClassVar = (50, 1_500)


class Slow(Honest):
    """Answers too late, always."""

    delays_ms: ClassVar = (2_100, 4_000)


class Naive(Honest):
    """Does not look for a certified block to end with."""

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        last = min(ask.from_height + ask.count - 1, tip)
        is_certified = last > tip - 64 or last % CERTIFIED_APART == 0 or last % EPOCH_BLOCKS == 0
        return BlocksReply(
            ask.request, blocks_of(ask.from_height, last), certificate_of(last) if is_certified else None
        )


class Reaching(Honest):
    """Goes on to the next certified block if there is none among those asked for."""

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        reply = super().blocks(ask, tip)
        if not isinstance(reply, BlocksReply) or reply.certificate is not None:
            return reply
        last = ask.from_height + ask.count - 1
        last += -last % CERTIFIED_APART
        return BlocksReply(ask.request, blocks_of(ask.from_height, last), certificate_of(last))


class Silent(Honest):
    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return None


class Refusing(Honest):
    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return Refused(ask.request)


class Empty(Honest):
    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return BlocksReply(ask.request, (), None)


class Dripping(Honest):
    """One block at a time, just in time."""

    delays_ms: ClassVar = (1_900, 1_990)

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return BlocksReply(ask.request, blocks_of(ask.from_height, ask.from_height), None)


class Boasting(Honest):
    """Claims what does not exist, and sends it without proof."""

    def status(self, tip: int) -> Status:
        return status_of(999, FORK)

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return BlocksReply(
            ask.request, tuple(FORK.blocks[ask.from_height : ask.from_height + ask.count]), None
        )


class Forging(Honest):
    """Sends another chain under the certificates of too few."""

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        last = min(ask.from_height + ask.count - 1, 999)
        signers = FORK.signers(FORK.header(last).epoch)
        certificate = signers.certify(FORK.statement(last), *range(quorum(len(signers.secrets)) - 1))
        return BlocksReply(ask.request, tuple(FORK.blocks[ask.from_height : last + 1]), certificate)


class Tampering(Honest):
    """Changes the body of one block."""

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        reply = super().blocks(ask, tip)
        if not isinstance(reply, BlocksReply):
            return reply
        at = self.chance.randrange(len(reply.blocks))
        other = reply.blocks[at]._replace(transactions=(b"other",))
        return BlocksReply(
            reply.request, (*reply.blocks[:at], other, *reply.blocks[at + 1 :]), reply.certificate
        )


class Confusing(Honest):
    """Sends anything of what exists: wrong heights, orders, certificates."""

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        first, size = self.chance.randint(1, tip), self.chance.randint(0, 140)
        blocks = list(blocks_of(first, min(first + size, tip)))
        if self.chance.random() < 0.3:
            self.chance.shuffle(blocks)
        certificate = certificate_of(self.chance.randint(1, tip)) if self.chance.random() < 0.5 else None
        return BlocksReply(ask.request, tuple(blocks), certificate)


class Wavering(Honest):
    """Honest half of the time."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.other = chance.choice((Silent, Empty, Tampering, Confusing, Forging))(chance)

    def blocks(self, ask: GetBlocks, tip: int) -> BlocksReply | Refused | None:
        return super().blocks(ask, tip) if self.chance.random() < 0.5 else self.other.blocks(ask, tip)


GOOD: tuple[type[Honest], ...] = (Honest, Lossy, Naive, Reaching)
BAD: tuple[type[Honest], ...] = (
    *(Slow, Silent, Refusing, Empty, Dripping, Boasting, Forging, Tampering, Confusing, Wavering),
)


class Net:
    """One planner among these peers in virtual time. The chain grows at its pace from `tip` to `end`."""

    def __init__(self, seed: int, peers: list[Honest], *, tip: int, end: int, head: int = 0) -> None:
        self.chance = random.Random(seed)
        self.peers = dict(enumerate(peers))
        self.sync = make_sync(head)
        self.start_tip, self.end, self.head = tip, end, head
        self.now_ms = START_MS
        self.is_applying = False
        self.blamed: list[object] = []
        self._numbers = count()
        self._queue: list[tuple[int, int, Callable[[], Event | None]]] = []
        for name in self.peers:
            self._later(self.chance.randint(0, 50), lambda name=name: PeerConnected(name, None))  # type: ignore[misc]
            self._status_of(name, 60)
        self._tick()

    @property
    def tip(self) -> int:
        return min(self.start_tip + (self.now_ms - START_MS) // 333, self.end)

    def run_until_ms(self, end_ms: int) -> bool:
        """Whether the head reached the end of the chain by then."""
        while self.head < self.end and self._queue[0][0] <= START_MS + end_ms:
            self.now_ms, _, make_event = heapq.heappop(self._queue)
            event = make_event()
            if event is not None:
                self._tell(event)
        return self.head == self.end

    def _later(self, after_ms: int, make_event: Callable[[], Event | None]) -> None:
        heapq.heappush(self._queue, (self.now_ms + after_ms, next(self._numbers), make_event))

    def _tick(self) -> None:
        def make_event() -> Event:
            self._tick()
            return Tick()

        self._later(TICK_MS, make_event)

    def _status_of(self, name: int, after_ms: int) -> None:
        def make_event() -> Event:
            self._status_of(name, 1_000)
            return PeerStatus(name, self.peers[name].status(self.tip))

        self._later(after_ms, make_event)

    def _tell(self, event: Event) -> None:
        for effect in self.sync.step(event, self.now_ms):
            match effect:
                case Ask(peer, GetBlocks() as ask):
                    self._check_ask(ask)
                    self._serve(peer, ask)  # type: ignore[arg-type]
                case Apply():
                    self._check_apply(effect)
                case Misbehaved(peer, _):
                    self.blamed.append(peer)
                case Diverged():
                    raise AssertionError(effect.reason)
                case _:
                    pass

    def _check_ask(self, ask: GetBlocks) -> None:
        last = ask.from_height + ask.count - 1
        assert self.head < ask.from_height <= last <= self.head + WINDOW_BLOCKS
        assert epoch_of(last, EPOCH_BLOCKS) == epoch_of(self.head + 1, EPOCH_BLOCKS)
        assert len(self.sync._ranges) <= WINDOW_BLOCKS
        assert sum(len(each.blocks) for each in self.sync._ranges) <= WINDOW_BLOCKS

    def _serve(self, name: int, ask: GetBlocks) -> None:
        peer = self.peers[name]
        reply = peer.blocks(ask, self.tip)
        if reply is not None and self.chance.randrange(100) >= peer.loss_percent:
            found = reply
            self._later(self.chance.randint(*peer.delays_ms), lambda: Replied(name, found))

    def _check_apply(self, effect: Apply) -> None:
        """What is handed on is the chain, from the head on, whatever peers said."""
        last = self.head + len(effect.blocks)
        assert effect.blocks == blocks_of(self.head + 1, last)
        assert effect.certificate == certificate_of(last)
        assert not self.is_applying
        self.is_applying = True
        self._commit(last)

    def _commit(self, last: int) -> None:
        """Four ms a block, as an execution would take."""

        def make_event() -> Event:
            if self.head == last:
                self.is_applying = False
                return Applied()
            self.head += 1
            self._commit(last)
            return final(self.head)

        self._later(4, make_event)


@pytest.mark.parametrize("seed", range(60))
def test_the_tip_is_reached_whoever_else_is_connected(seed: int) -> None:
    """One honest peer, up to five bad ones, three blocks a second to come."""
    chance = random.Random(seed)
    kinds = [chance.choice(GOOD), *chance.choices(BAD, k=chance.randint(0, 5))]
    chance.shuffle(kinds)
    net = Net(seed, [kind(chance) for kind in kinds], tip=chance.randint(200, 700), end=950)

    assert net.run_until_ms(330_000), f"head {net.head} of {net.tip}: {[kind.__name__ for kind in kinds]}"
    honest = [name for name, peer in net.peers.items() if type(peer) in GOOD]
    assert not set(net.blamed) & set(honest)


@pytest.mark.parametrize("bad", BAD)
def test_a_lone_bad_peer_hardly_slows_an_honest_one(bad: type[Honest]) -> None:
    chance = random.Random(1)
    net = Net(1, [bad(chance), Honest(chance)], tip=900, end=900)

    assert net.run_until_ms(60_000)


def test_honest_peers_bring_the_chain_at_the_pace_of_its_execution() -> None:
    chance = random.Random(2)
    net = Net(2, [Honest(chance) for _ in range(3)], tip=900, end=900)

    assert net.run_until_ms(900 * 4 + 1_000)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    good=st.sampled_from(GOOD),
    bad=st.lists(st.sampled_from(BAD), max_size=6),
    head=st.integers(0, 600),
    behind=st.integers(1, 300),
)
def test_any_company_is_survived(
    seed: int, good: type[Honest], bad: list[type[Honest]], head: int, behind: int
) -> None:
    chance = random.Random(seed)
    peers = [good(chance), *(kind(chance) for kind in bad)]
    chance.shuffle(peers)
    net = Net(seed, peers, tip=head + behind, end=head + behind, head=head)

    assert net.run_until_ms(300_000), f"head {net.head}"
