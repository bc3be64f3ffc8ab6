"""What a node answers its peers from the disk: ends of epochs, a state in pieces, and what a snapshot left out."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctt_state.light import ChainRules, Checkpoint, LightClient
from ctt_state.units import ZERO_HASH, Hash, Height, Ms
from node.consensus.events import Now
from node.ledger import Ledger
from node.peering import Peering
from node.snapshot import HOLD_MS, OFFER_MS
from p2p import messages as wire
from p2p.network import PeerId, PeerInfo
from tests.ledger_world import add_block, finish, make_ledger, make_plan
from tests.test_snapshot import load

EPOCH_BLOCKS = 10
HEIGHT = 34
SOON_S = 5.0
PEER = PeerInfo(PeerId("peer"), None, "127.0.0.1:1", False, 0, "ctt/1", Height(0))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three whole epochs and a part of the fourth."""
    opened = make_ledger(tmp_path / "source", epochBlocks=EPOCH_BLOCKS)
    for _ in range(HEIGHT):
        add_block(opened)
    yield opened
    opened.close()


class World:
    """A node's side of its peers, whose answers are kept. Time stands still unless it is moved."""

    def __init__(self, ledger: Ledger, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.mono_ms = 0
        self.replies: list[wire.Reply] = []
        self.peering = Peering(ledger, lambda: Now(self.mono_ms, Ms(0)))
        self.peering.join(SimpleNamespace(engine=SimpleNamespace(block=lambda block_hash: None)), self)  # type: ignore[arg-type]

    def send(self, peer: PeerId, message: wire.Message) -> None:
        assert peer == PEER.name and isinstance(message, wire.Reply)
        self.replies.append(message)

    def ask(self, *questions: wire.Request) -> list[Any]:
        """The answers, in the order of the questions."""
        self.while_running(lambda: len(self.replies) == len(questions), questions)
        replies, self.replies = self.replies, []
        return replies

    def while_running(self, is_done: Callable[[], bool], questions: Sequence[wire.Request] = ()) -> None:
        self._runner.run(self._run(is_done, questions))

    async def _run(self, is_done: Callable[[], bool], questions: Sequence[wire.Request]) -> None:
        running = asyncio.create_task(self.peering.run())
        for question in questions:
            self.peering.on_message(PEER, question)
        async with asyncio.timeout(SOON_S):
            while not is_done():
                await asyncio.sleep(0.001)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


MakeWorld = Callable[[Ledger], World]


@pytest.fixture
def make_world() -> Iterator[MakeWorld]:
    with asyncio.Runner() as runner:
        yield lambda ledger: World(ledger, runner)


# --- ends of epochs ---------------------------------------------------------------------------------------------------


def test_the_ends_of_epochs_lead_a_light_client_to_the_present_one(
    make_world: MakeWorld, ledger: Ledger
) -> None:
    (reply,) = make_world(ledger).ask(wire.GetEpochs(7, 0, wire.EPOCHS_MAX))

    assert reply.request == 7
    assert [end.header.height for end in reply.epochs] == [10, 20, 30]
    rules = ChainRules(ledger.genesis.hash, EPOCH_BLOCKS, ledger.chain.block_period_ms)
    client = LightClient(rules, Checkpoint(Height(0), ZERO_HASH, ledger.validators(0)))
    for end in reply.epochs:
        client.advance(end.header, end.certificate, end.next_set)
    assert (client.epoch, client.highest[0]) == (3, 30)


def test_no_more_ends_are_given_than_were_asked_for_or_than_there_are(
    make_world: MakeWorld, ledger: Ledger
) -> None:
    world = make_world(ledger)
    counts = {(0, 1): [10], (1, 64): [20, 30], (2, 1): [30], (3, 64): [], (2**64 - 1, 64): []}
    for (first, count), heights in counts.items():
        (reply,) = world.ask(wire.GetEpochs(1, first, count))
        assert [end.header.height for end in reply.epochs] == heights


def test_one_answer_reads_so_much_from_the_disk_and_at_least_one_end(
    make_world: MakeWorld, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.peering.EPOCHS_BYTES_MAX", 0)
    (reply,) = make_world(ledger).ask(wire.GetEpochs(1, 0, 64))
    assert [end.header.height for end in reply.epochs] == [10]


# --- a state in pieces ------------------------------------------------------------------------------------------------


def test_a_state_is_given_in_pieces(make_world: MakeWorld, ledger: Ledger) -> None:
    world = make_world(ledger)
    (offer,) = world.ask(wire.GetSnapshot(1))
    assert (offer.header, offer.height) == (ledger.head.block.header, HEIGHT)
    assert offer.certificate.encode() == ledger.store.certificate(HEIGHT)

    (piece,) = world.ask(wire.GetSnapshotChunk(2, Height(HEIGHT), b""))
    assert piece == wire.SnapshotChunk(2, tuple(ledger.store.state_rows()), is_last=True)
    (rest,) = world.ask(wire.GetSnapshotChunk(3, Height(HEIGHT), piece.rows[4][0]))
    assert rest.rows == piece.rows[5:]


def test_a_state_that_is_not_held_is_refused(make_world: MakeWorld, ledger: Ledger) -> None:
    world = make_world(ledger)
    for height in (0, HEIGHT, HEIGHT + 1):
        (reply,) = world.ask(wire.GetSnapshotChunk(1, Height(height), b""))
        assert reply == wire.Refused(1, f"no snapshot of block {height} is held here; ask which is")


def test_a_head_without_a_certificate_of_its_own_is_not_offered(
    make_world: MakeWorld, ledger: Ledger
) -> None:
    finish(ledger, ledger.build(make_plan(ledger), [])[0], is_certified=False)
    (reply,) = make_world(ledger).ask(wire.GetSnapshot(1))
    assert reply == wire.Refused(1, "the last final block has no certificate of its own; ask again")


def test_two_states_are_held_at_most_and_each_for_ten_minutes(make_world: MakeWorld, ledger: Ledger) -> None:
    world = make_world(ledger)
    chunks = [wire.GetSnapshotChunk(1, Height(height), b"") for height in (HEIGHT, HEIGHT + 2)]
    world.ask(wire.GetSnapshot(1))
    for now_ms, asked in ((OFFER_MS - 1, HEIGHT), (OFFER_MS, HEIGHT + 2)):
        add_block(ledger)
        world.mono_ms = now_ms
        (offer,) = world.ask(wire.GetSnapshot(1))
        assert offer.height == asked

    world.mono_ms = HOLD_MS - 1
    old, new = world.ask(*chunks)
    assert isinstance(old, wire.SnapshotChunk) and isinstance(new, wire.SnapshotChunk)
    world.mono_ms = HOLD_MS
    old, new = world.ask(*chunks)
    assert isinstance(old, wire.Refused) and isinstance(new, wire.SnapshotChunk)


def test_a_state_is_let_go_of_though_nobody_asks(
    make_world: MakeWorld, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(ledger)
    world.ask(wire.GetSnapshot(1))
    monkeypatch.setattr("node.peering.EXPIRY_SECONDS", 0.001)
    expired: list[int] = []
    monkeypatch.setattr(world.peering._snapshots, "expire", expired.append)
    world.mono_ms = HOLD_MS
    world.while_running(lambda: HOLD_MS in expired)


# --- a node that began with a snapshot --------------------------------------------------------------------------------


@pytest.fixture
def pruned(ledger: Ledger, tmp_path: Path) -> Iterator[Ledger]:
    """It has whole blocks from 35 on."""
    opened = load(tmp_path / "pruned", ledger, validators=ledger.validators(3))
    yield opened
    opened.close()


def test_what_lies_below_a_snapshot_is_refused_or_unknown(
    make_world: MakeWorld, ledger: Ledger, pruned: Ledger
) -> None:
    base, older = ledger.head.hash, ledger.store.hash_at(HEIGHT - 1)
    replies = make_world(pruned).ask(
        wire.GetBlock(1, base),
        wire.GetBlock(2, older),
        wire.GetBlocks(3, Height(HEIGHT), 5),
        wire.GetEpochs(4, 2, 5),
        wire.GetEpochs(5, 3, 5),
        wire.GetBlock(6, Hash(b"?" * 32)),
    )
    assert replies == [
        wire.BlockReply(1, None),
        wire.BlockReply(2, None),
        wire.Refused(3, f"no proven blocks from {HEIGHT} on are here"),
        wire.Refused(4, f"epochs that ended before block {HEIGHT} are not known here"),
        wire.EpochsReply(5, ()),
        wire.BlockReply(6, None),
    ]


def test_a_snapshot_at_an_epochs_end_is_one_that_can_be_shown(
    make_world: MakeWorld, ledger: Ledger, tmp_path: Path
) -> None:
    for _ in range(40 - HEIGHT):
        add_block(ledger)
    pruned = load(tmp_path / "pruned", ledger, validators=ledger.validators(3))
    (reply,) = make_world(pruned).ask(wire.GetEpochs(1, 3, 5))
    assert [(end.header, end.next_set) for end in reply.epochs] == [
        (ledger.head.block.header, ledger.validators(4))
    ]
    (offer,) = make_world(pruned).ask(wire.GetSnapshot(1))
    assert offer.header == ledger.head.block.header
    pruned.close()
