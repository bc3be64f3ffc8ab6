"""Between the node and its peers: consensus' messages both ways, blocks that are missing, answers to what peers ask,
and transactions on their way to whoever builds the next block.

Nothing here waits for a peer. What takes a thread is done one after the other by `run`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol, assert_never

from ctt_state.block import Block
from ctt_state.errors import BlockPruned
from ctt_state.light import ChainRules
from ctt_state.units import Hash, Height
from ctt_state.validators import boundary_of
from ctt_state.votes import Certificate, Evidence, Vote
from node import sync
from node.consensus import events
from node.ledger import Ledger
from node.node import Node
from node.recovery import RecoveryBusy
from node.runner import head_of, read_clocks
from node.snapshot import SnapshotGone, SnapshotSource
from p2p import messages as wire
from p2p.network import Delivered, PeerId, PeerInfo

GOSSIP_SECONDS: Final = 0.02  # transactions that come within so long travel together
GOSSIP_WAITING_MAX: Final = 20_000  # that wait to be sent; more are not passed on by this node
BATCHES_WAITING_MAX: Final = 64  # of transactions that peers sent; more are dropped: others hold them too
QUESTIONS_WAITING_MAX: Final = 256  # of all peers; more are refused
EPOCHS_BYTES_MAX: Final = 2 * 1024 * 1024  # of blocks that are read for one answer, unless it is one
EXPIRY_SECONDS: Final = 30.0  # from one look for states that were held for long enough to the next

log = logging.getLogger(__name__)


class Network(Protocol):
    """The part of `p2p.network.Network` that is called here."""

    def send(self, peer: PeerId, message: wire.Message) -> None: ...
    def broadcast(self, message: wire.Message, *, only_validators: bool = False) -> None: ...
    def punish(self, peer: PeerId, text: str) -> None: ...
    def peers(self) -> list[PeerInfo]: ...


class Peering:
    """What the network calls (`p2p.network.Handler`) and what the node calls (`node.node.Outside`)."""

    def __init__(self, ledger: Ledger, clocks: Callable[[], events.Now] = read_clocks) -> None:
        chain, head = ledger.chain, head_of(ledger.head)
        rules = ChainRules(ledger.genesis.hash, chain.epoch_blocks, chain.block_period_ms)
        validators = ledger.next_validators()
        self._sync = sync.Sync(rules, head=head, validators=validators, now_ms=clocks().mono_ms)
        self._ledger = ledger
        self._clocks = clocks
        self._gossip: deque[bytes] = deque()
        self._is_gossiping = False
        self._batches: deque[tuple[PeerInfo, tuple[bytes, ...]]] = deque()
        self._questions: deque[tuple[PeerInfo, wire.Request]] = deque()
        self._work = asyncio.Event()
        self._snapshots = SnapshotSource(ledger)  # on the thread of answers

    def join(self, node: Node, network: Network) -> None:
        """Before anything else is called."""
        self._node = node
        self._network = network

    async def run(self) -> None:
        """Until it is cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="answers") as reader:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_time())
                tasks.create_task(self._keep_up(reader))
                tasks.create_task(self._let_go(reader))

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(sync.TICK_MS / 1_000)
            self._tell_sync(events.Tick())

    async def _keep_up(self, reader: Executor) -> None:
        """What takes a thread: answers from the disk and the senders of others' transactions."""
        loop = asyncio.get_running_loop()
        while True:
            while self._questions or self._batches:
                if self._questions:
                    peer, question = self._questions.popleft()
                    self._network.send(peer.name, await loop.run_in_executor(reader, self._answer, question))
                if self._batches:
                    await self._take_in(*self._batches.popleft())
            self._work.clear()
            await self._work.wait()

    async def _let_go(self, reader: Executor) -> None:
        """States that nobody asks for any more must not hold their rows on the disk."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            await loop.run_in_executor(reader, self._snapshots.expire, self._clocks().mono_ms)

    # --- p2p.network.Handler --------------------------------------------------------------------------------------

    def on_connected(self, peer: PeerInfo) -> None:
        text = "reached %(peer)s at %(address)s" if peer.outbound else "met %(peer)s at %(address)s"
        log.info(text, {"peer": peer.name, "address": peer.address})
        self._tell_sync(sync.PeerConnected(peer.name, peer.validator))
        self._network.send(peer.name, _to_wire(self._node.engine.status()))

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None:
        log.info("lost %(peer)s: %(reason)s", {"peer": peer.name, "reason": reason})
        self._tell_sync(sync.PeerGone(peer.name))

    def on_message(self, peer: PeerInfo, message: Delivered) -> None:
        match message:
            case wire.Transactions(raws):
                if len(self._batches) < BATCHES_WAITING_MAX:
                    self._batches.append((peer, raws))
                    self._work.set()
            case wire.EvidenceMessage(evidence):
                self._node.runner.keep_evidence(evidence)
            case wire.BlockReply(request, block):
                self._tell_sync(sync.Replied(peer.name, sync.BlockReply(request, block)))
            case wire.BlocksReply(request, blocks, certificate):
                self._tell_sync(sync.Replied(peer.name, sync.BlocksReply(request, blocks, certificate)))
            case wire.Refused(request, _):
                self._tell_sync(sync.Replied(peer.name, sync.Refused(request)))
            case (
                wire.ProposalMessage()
                | wire.VoteMessage()
                | wire.CertificateMessage()
                | wire.StatusMessage()
                | wire.GetCertificates()
            ):
                self._on_consensus(peer, _from_wire(message))
            case (
                wire.GetBlock()
                | wire.GetBlocks()
                | wire.GetSnapshot()
                | wire.GetSnapshotChunk()
                | wire.GetEpochs()
            ):
                self._on_question(peer, message)
            case wire.SnapshotReply() | wire.SnapshotChunk() | wire.EpochsReply():
                pass  # only who makes a data directory asks for these
            case _:
                assert_never(message)

    def _on_consensus(self, peer: PeerInfo, message: events.Message) -> None:
        if isinstance(message, events.Status):
            self._tell_sync(sync.PeerStatus(peer.name, message))
        members = self._node.engine.validators
        signer = None if peer.validator is None else members.place_of_address(peer.validator)
        self._node.runner.tell(events.Received(message, peer.name, signer, peer.validator))

    def _on_question(self, peer: PeerInfo, question: wire.Request) -> None:
        if len(self._questions) < QUESTIONS_WAITING_MAX:
            self._questions.append((peer, question))
            self._work.set()
        else:
            self._network.send(peer.name, wire.Refused(question.request, "too many questions at once"))

    # --- node.node.Outside ----------------------------------------------------------------------------------------

    def send(self, to: events.Source, message: events.Message) -> None:
        if to is not None:
            self._network.send(PeerId(str(to)), _to_wire(message))

    def broadcast(self, message: events.Message | Evidence) -> None:
        """Votes are of use to validators only; what they lead to, everyone hears."""
        self._network.broadcast(_to_wire(message), only_validators=isinstance(message, Vote))

    def fetch(self, fetch: events.Fetch) -> None:
        self._tell_sync(sync.WantBlock(fetch.block_hash, fetch.holders))

    def on_final(self, final: events.BlockFinal) -> None:
        self._tell_sync(final)

    def on_applied(self) -> None:
        self._tell_sync(sync.Applied())

    def gossip(self, raw: bytes) -> None:
        if len(self._gossip) >= GOSSIP_WAITING_MAX:
            return
        self._gossip.append(raw)
        if not self._is_gossiping:
            self._is_gossiping = True
            asyncio.get_running_loop().call_later(GOSSIP_SECONDS, self._send_gossip)

    def peer_count(self) -> int:
        return len(self._network.peers())

    def is_syncing(self) -> bool:
        return self._sync.is_syncing(self._clocks().mono_ms)

    def target(self) -> Height:
        return self._sync.target(self._clocks().mono_ms)

    # --- catching up ----------------------------------------------------------------------------------------------

    def _tell_sync(self, event: sync.Event) -> None:
        for effect in self._sync.step(event, self._clocks().mono_ms):
            match effect:
                case sync.Ask(peer, sync.GetBlock(request, block_hash)):
                    self._network.send(PeerId(str(peer)), wire.GetBlock(request, block_hash))
                case sync.Ask(peer, sync.GetBlocks(request, from_height, count)):
                    self._network.send(PeerId(str(peer)), wire.GetBlocks(request, from_height, count))
                case sync.Deliver(block):
                    self._node.runner.tell(events.BlockArrived(block))
                case sync.Apply(blocks, certificate):
                    self._node.runner.apply(blocks, certificate)
                case sync.Misbehaved(peer, reason):
                    self._network.punish(PeerId(str(peer)), reason)
                case sync.Progress(height, target):
                    log.info(
                        "catching up: block %(height)d of %(target)d", {"height": height, "target": target}
                    )
                case sync.Diverged(reason, certificate):
                    self._node.runner.halt(reason, certificate)

    # --- answers and transactions ---------------------------------------------------------------------------------

    def _answer(self, question: wire.Request) -> wire.Reply:
        """On the thread of answers: only the store and what never changes is read."""
        match question:
            case wire.GetBlock(request, block_hash):
                return wire.BlockReply(request, self._find_block(block_hash))
            case wire.GetBlocks(request, from_height, count):
                found = self._ledger.range(from_height, count, wire.BLOCKS_BYTES_MAX)
                if found is None:
                    return wire.Refused(request, f"no proven blocks from {from_height} on are here")
                proof = None if found.certificate is None else Certificate.decode(found.certificate)
                return wire.BlocksReply(request, tuple(found.blocks), proof)
            case wire.GetEpochs(request, from_epoch, count):
                return self._answer_epochs(request, from_epoch, count)
            case wire.GetSnapshot(request):
                offer = self._snapshots.offer(self._clocks().mono_ms)
                if offer is None:
                    return wire.Refused(
                        request, "the last final block has no certificate of its own; ask again"
                    )
                return wire.SnapshotReply(request, offer.header, Certificate.decode(offer.certificate))
            case wire.GetSnapshotChunk(request, height, after_key):
                try:
                    chunk = self._snapshots.chunk(height, after_key, self._clocks().mono_ms)
                except SnapshotGone as fault:
                    return wire.Refused(request, str(fault))
                return wire.SnapshotChunk(request, chunk.rows, chunk.is_last)
            case _:
                assert_never(question)

    def _find_block(self, block_hash: Hash) -> Block | None:
        """Any block that is here: executed, only proposed, or final and whole."""
        executed = self._ledger.executed(block_hash)
        if executed is not None:
            return executed.final.block
        store = self._ledger.store
        height = store.height_of(block_hash)
        if height is None:
            return self._node.engine.block(block_hash)
        with suppress(BlockPruned):
            return Block.decode(store.block(height))
        return None

    def _answer_epochs(self, request: int, from_epoch: int, count: int) -> wire.Reply:
        """The ends of the first of these epochs that have one, as many as may be read at once; perhaps none."""
        store, epoch_blocks = self._ledger.store, self._ledger.chain.epoch_blocks
        if boundary_of(from_epoch, epoch_blocks) < store.base:
            return wire.Refused(request, f"epochs that ended before block {store.base} are not known here")
        ends: list[wire.EpochEnd] = []
        size = 0
        for epoch in range(from_epoch, from_epoch + count):
            height = boundary_of(epoch, epoch_blocks)
            certificate = None if height > store.head.height else store.certificate(height)
            if certificate is None or size > EPOCHS_BYTES_MAX:
                break
            data = store.header_block(height)
            size += len(data)
            header = Block.decode(data).header
            ends.append(
                wire.EpochEnd(header, Certificate.decode(certificate), self._ledger.validators(epoch + 1))
            )
        return wire.EpochsReply(request, tuple(ends))

    async def _take_in(self, peer: PeerInfo, raws: tuple[bytes, ...]) -> None:
        """A validator tells all others itself; what comes from elsewhere is passed on."""
        with suppress(RecoveryBusy):
            await self._node.submit_many(raws, relay=peer.validator is None)

    def _send_gossip(self) -> None:
        self._is_gossiping = False
        raws = tuple(self._gossip)
        self._gossip.clear()
        for batch in wire.Transactions.batches(raws):
            self._network.broadcast(batch, only_validators=True)


def _to_wire(message: events.Message | Evidence) -> wire.Consensus:
    match message:
        case events.Proposal(block, vote, parent, nullifications):
            return wire.ProposalMessage(block, vote, parent, nullifications)
        case Vote():
            return wire.VoteMessage(message)
        case Certificate():
            return wire.CertificateMessage(message)
        case Evidence():
            return wire.EvidenceMessage(message)
        case events.Status(epoch, view, height, block_hash, finalization):
            return wire.StatusMessage(epoch, view, height, block_hash, finalization)
        case events.GetCertificates(epoch, from_view, to_view):
            return wire.GetCertificates(epoch, from_view, min(to_view, from_view + wire.VIEWS_MAX - 1))
        case _:
            assert_never(message)


def _from_wire(
    message: wire.ProposalMessage
    | wire.VoteMessage
    | wire.CertificateMessage
    | wire.StatusMessage
    | wire.GetCertificates,
) -> events.Message:
    match message:
        case wire.ProposalMessage(block, vote, parent, nullifications):
            return events.Proposal(block, vote, parent, nullifications)
        case wire.VoteMessage(vote):
            return vote
        case wire.CertificateMessage(certificate):
            return certificate
        case wire.StatusMessage(epoch, view, height, block_hash, finalization):
            return events.Status(epoch, view, height, block_hash, finalization)
        case wire.GetCertificates(epoch, from_view, to_view):
            return events.GetCertificates(epoch, from_view, to_view)
        case _:
            assert_never(message)
