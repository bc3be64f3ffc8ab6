"""The loop that waits: it brings consensus the time, its peers' messages and what came of its effects, and carries the
effects out.

The only place in a running node that reads a clock. Two tasks: one feeds the engine and never waits for anything but
its inbox and its deadline; the other does, one after the other, what touches the disk (execute, vote, commit, catch up)
on the storage thread, and puts what came of it into the inbox. So votes never wait for a block that is being executed
to be counted, and nothing is told before it is on the disk.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, assert_never

from ctt_state.block import Block, FinalBlock, Header
from ctt_state.errors import InvalidBlock
from ctt_state.transaction import Signed
from ctt_state.units import Address, Hash, Ms, hex_of
from ctt_state.validators import ValidatorSet, boundary_of
from ctt_state.votes import Certificate, Evidence, Statement, Vote
from node.consensus.engine import Engine
from node.consensus.events import (
    Accuse,
    BlockBuilt,
    BlockFinal,
    BlockUnplaced,
    BlockValidated,
    Broadcast,
    Build,
    BuildFailed,
    Cast,
    Effect,
    Event,
    Fetch,
    Finalize,
    Halt,
    Head,
    KeepSilent,
    Message,
    Now,
    Received,
    Send,
    Source,
    Tick,
    Validate,
    VoteSigned,
)
from node.datadir import Space, check_room, free_space
from node.exits import Exit, Failure
from node.journal import BelowFloor, Journal, Place, describe
from node.ledger import BLOCK_TRANSACTIONS_MAX, BlockPlan, Ledger
from node.mempool import Mempool
from node.pulse import BLOCKS_KEPT, Finality, Lately
from node.signer import SignerAway, SignerRefused, VoteSigner
from node.store import StorageFailed
from node.unfinal import Executed, TooManyUnfinal, UnknownParent

STORAGE_SECONDS_MAX: Final = 10.0  # a disk that answers later than this stops the node
STORAGE_STEPS: Final = 10
SPACE_BLOCKS: Final = 30  # how often the free space is looked at: every ten seconds
SIGNER_SECONDS: Final = 0.5  # between two questions to a signer that is away
INBOX_MAX: Final = 10_000  # events; messages beyond are dropped, and asked for or sent again
TURN_EVENTS_MAX: Final = 32  # handled before others on the loop have their turn
TURN_ACCOUNTS_MAX: Final = 512  # likewise: about 2 ms
EVIDENCE_MAX: Final = 64  # proofs that wait for a block

log = logging.getLogger(__name__)


class DiskSilent(StorageFailed):
    """The disk does not answer. The storage thread may hang for ever: nobody may wait for it, nor close the store."""


class Halted(Failure):
    """What a quorum signed and what this node computed differ, or safety is broken: a person has to look."""

    def __init__(self, reason: str) -> None:
        super().__init__(Exit.BROKEN, reason)


class Outside(Protocol):
    """The rest of the network. Everything returns at once."""

    def send(self, to: Source, message: Message) -> None: ...
    def broadcast(self, message: Message | Evidence) -> None: ...
    def fetch(self, fetch: Fetch) -> None:
        """The block comes as `BlockArrived`, or by catching up."""

    def on_final(self, final: BlockFinal) -> None: ...
    def on_applied(self) -> None:
        """The blocks that were last handed to `Runner.apply` are final."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Blocks that a certificate of the last one proves to be the chain above the head, lowest first."""

    blocks: tuple[Block, ...]
    certificate: Certificate


StorageWork = Build | Validate | Cast | Finalize | Apply | KeepSilent
T = TypeVar("T")


def read_clocks() -> Now:
    """Both clocks, in whole milliseconds."""
    return Now(time.monotonic_ns() // 1_000_000, Ms(time.time_ns() // 1_000_000))


def head_of(final: FinalBlock) -> Head:
    return Head(final.block.header, final.hash)


class Runner:
    """Runs one node's engine over its ledger and pool, until it is stopped or its storage fails."""

    def __init__(
        self,
        ledger: Ledger,
        pool: Mempool,
        engine: Engine,
        *,
        journal: Journal | None,
        signer: VoteSigner | None,
        build_ms: int,
        outside: Outside,
        recover: Callable[[Block], Awaitable[list[Signed]]],
        on_final: Callable[[FinalBlock], None],
        clocks: Callable[[], Now] = read_clocks,
    ) -> None:
        """Without journal and signer the node follows and never votes. A block takes what can be executed in
        `build_ms`. `recover` raises InvalidBlock."""
        self._ledger = ledger
        self._pool = pool
        self._engine = engine
        self._journal = journal
        self._signer = signer
        self.signer_trouble: str | None = None  # why it does not sign now
        self._build_ms = build_ms
        self._outside = outside
        self._recover = recover
        self._on_final = on_final
        self._clocks = clocks
        self._storage = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._inbox: deque[Event] = deque()
        self._work: deque[StorageWork | None] = deque()
        self._news = asyncio.Event()  # in the inbox, of the storage task, or the wish to stop
        self._works = asyncio.Event()
        self._evidence: dict[bytes, Evidence] = {}
        self._failure: BaseException | None = None
        self._is_stopping = False
        self._space = Space.AMPLE
        self.finality = Finality()
        self.proposal_age = Lately(BLOCKS_KEPT)  # by this machine's clock

    # --- what others call, on the loop ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Lets what is under way on the disk end, then ends `run`."""
        self._is_stopping = True
        self._news.set()

    def tell(self, event: Event) -> None:
        """An event for the engine. Messages beyond the bound are dropped: whoever sent them sends them again."""
        if len(self._inbox) < INBOX_MAX or not isinstance(event, Received):
            self._inbox.append(event)
            self._news.set()

    def apply(self, blocks: tuple[Block, ...], certificate: Certificate) -> None:
        """Executes and commits what catching up found, after what is under way."""
        self._give(Apply(blocks, certificate))

    def halt(self, reason: str, certificate: Certificate) -> None:
        """Ends `run`: a person has to look."""
        self.fail(self._halted(reason, (certificate,)))

    def fail(self, failure: BaseException) -> None:
        """Ends `run` with this."""
        self._failure = failure
        self._news.set()

    def keep_evidence(self, evidence: Evidence) -> bool:
        """Keeps a proof of a double vote for the next block this node makes. Whether it is new."""
        encoded = evidence.encode()
        if encoded in self._evidence or len(self._evidence) >= EVIDENCE_MAX:
            return False
        self._evidence[encoded] = evidence
        return True

    @property
    def takes_transactions(self) -> bool:
        """Not while the disk has room for little more than what is already under way."""
        return self._space > Space.NO_CLIENTS

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    async def run(self) -> None:
        """Raises: StorageFailed, Halted; nothing is then signed or written any more."""
        is_answering = True
        storage = asyncio.ensure_future(self._run_storage())
        storage.add_done_callback(lambda _: self._news.set())
        try:
            await self._run_engine(storage)
            self._give(None)
            await storage
        except DiskSilent:
            is_answering = False
            raise
        finally:
            storage.cancel()
            with suppress(asyncio.CancelledError, Failure):
                await storage
            self._storage.shutdown(wait=is_answering)

    # --- the engine's task ----------------------------------------------------------------------------------------

    async def _run_engine(self, storage: "asyncio.Future[None]") -> None:
        handled = 0
        while not self._is_stopping:
            if self._failure is not None:
                raise self._failure
            if storage.done():
                storage.result()
            event = self._inbox.popleft() if self._inbox else await self._wait()
            for effect in self._engine.step(event, self._clocks()):
                self._carry_out(effect)
            handled += 1
            if handled % TURN_EVENTS_MAX == 0:
                await asyncio.sleep(0)

    async def _wait(self) -> Event:
        """Until there is news, or the engine's deadline."""
        wait_ms = self._engine.deadline_ms - self._clocks().mono_ms
        if wait_ms > 0:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1_000):
                    await self._news.wait()
        return self._inbox.popleft() if self._inbox else Tick()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Validate(block):
                now = self._clocks()
                self.finality.propose(block.header.hash, now.mono_ms)
                self.proposal_age.add(now.wall_ms - block.header.timestamp_ms)
                self._give(effect)
            case Finalize(block_hash, _):
                self.finality.finalize(block_hash, self._clocks().mono_ms)
                self._give(effect)
            case Build() | Cast() | KeepSilent():
                self._give(effect)
            case Broadcast(message):
                self._outside.broadcast(message)
            case Send(to, message):
                self._outside.send(to, message)
            case Fetch():
                self._outside.fetch(effect)
            case Accuse(evidence):
                self._accuse(evidence)
            case Halt(reason, certificates):
                raise self._halted(reason, certificates)
            case _:
                assert_never(effect)

    def _halted(self, reason: str, certificates: Sequence[Certificate], block: Block | None = None) -> Halted:
        """Writes down what a person needs to find the fault: never overwritten, so the first one stays."""
        head, engine = self._ledger.head, self._engine
        dump = {
            "reason": reason,
            "head": {"height": head.block.header.height, "hash": hex_of(head.hash)},
            "epoch": engine.epoch,
            "view": engine.view,
            "validators": [hex_of(key) for key in engine.validators.keys],
            "certificates": [hex_of(each.encode()) for each in certificates],
            "block": None if block is None else hex_of(block.encode()),
        }
        path = self._ledger.store.directory / f"halted-{head.block.header.height}.json"
        try:
            with path.open("x") as file:
                json.dump(dump, file, indent=2)
        except OSError as fault:
            log.error("cannot write %(path)s: %(cause)s", {"path": path, "cause": fault.strerror})
        return Halted(f"{reason}; see {path}")

    def _accuse(self, evidence: Evidence) -> None:
        signer, statement = evidence.first.signer, evidence.first.statement
        log.error(
            "validator %(validator)d voted twice in view %(view)d of epoch %(epoch)d; the proof goes into a block",
            {"validator": signer, "view": statement.view, "epoch": statement.epoch},
        )
        if self.keep_evidence(evidence):
            self._outside.broadcast(evidence)

    # --- the storage's task ---------------------------------------------------------------------------------------

    def _give(self, work: StorageWork | None) -> None:
        """None ends the task, after what came before."""
        self._work.append(work)
        self._works.set()

    async def _run_storage(self) -> None:
        while True:
            while self._work:
                work = self._work.popleft()
                if work is None:
                    return
                await self._do(work)
            self._works.clear()
            await self._works.wait()

    async def _do(self, work: StorageWork) -> None:
        match work:
            case Cast():
                await self._cast(work)
            case Build():
                self.tell(await self._build(work))
            case Validate(block):
                self.tell(await self._validate(block))
            case Finalize(block_hash, certificate):
                await self._finalize(block_hash, certificate)
            case Apply(blocks, certificate):
                await self._apply(blocks, certificate)
            case KeepSilent(epoch, view):
                await self._keep_silent(Place(epoch, view))
            case _:
                assert_never(work)

    async def _cast(self, cast: Cast) -> None:
        if cast.statement.epoch != self._engine.epoch:
            return  # the epoch ended before its vote's turn, and in the next one this may be no validator
        journal, signer, place = self._journal, self._signer, self._engine.me
        if journal is None or signer is None or place is None:
            raise AssertionError("a follower has nothing to vote with")

        def sign(statement: Statement) -> Vote:
            return signer.sign(statement, place)

        try:
            vote = await self._on_storage(journal.cast, cast.statement, cast.reliance, cast.block, sign)
        except BelowFloor as late:
            log.debug("%(reason)s", {"reason": late})  # the block became final before its vote's turn
        except SignerRefused as refusal:
            log.error(
                "the signer refuses %(statement)s: %(reason)s",
                {"statement": describe(cast.statement), "reason": refusal},
            )
        except SignerAway as away:
            self._note_signer(str(away))
            asyncio.get_running_loop().call_later(SIGNER_SECONDS, self._give, cast)
        else:
            self._note_signer(None)
            self.tell(VoteSigned(vote))

    def _note_signer(self, trouble: str | None) -> None:
        if trouble is not None and self.signer_trouble is None:
            log.error("not voting: no signer at %(trouble)s; is ctt signer running?", {"trouble": trouble})
        elif trouble is None and self.signer_trouble is not None:
            log.info("the signer is back: voting")
        self.signer_trouble = trouble

    async def _keep_silent(self, through: Place) -> None:
        if self._journal is None:
            raise AssertionError("a follower has no restore guard")
        await self._on_storage(self._journal.keep_silent, through)
        log.warning(
            "not voting before view %(view)d of epoch %(epoch)d (restore guard)",
            {"view": through.view + 1, "epoch": through.epoch},
        )

    async def _build(self, build: Build) -> Event:
        try:
            ancestors = self._ledger.path_to(build.parent_hash)
        except UnknownParent:
            return BuildFailed(build.epoch, build.view)
        taken = {each for executed in ancestors for each in executed.final.transaction_hashes}
        candidates = self._pool.candidates(BLOCK_TRANSACTIONS_MAX, taken)
        members = self._engine.validators
        plan = BlockPlan(
            parent_hash=build.parent_hash,
            epoch=build.epoch,
            view=build.view,
            timestamp_ms=build.timestamp_ms,
            proposer=members.members[members.leader(build.epoch, build.view)].address,
            evidence=tuple(self._evidence),
        )
        try:
            executed, dropped = await self._on_storage(
                self._ledger.build, plan, self._in_time(candidates), candidates.charge
            )
        except (UnknownParent, TooManyUnfinal) as fault:
            log.warning("no block in view %(view)d: %(reason)s", {"view": build.view, "reason": fault})
            return BuildFailed(build.epoch, build.view)
        if not ancestors:  # else the next final block may let it stand
            for signed, reason in dropped:
                log.info(
                    "dropped transaction %(transaction)s: %(reason)s",
                    {"transaction": hex_of(signed.transaction.hash), "reason": reason},
                )
                self._pool.drop(signed.transaction.hash)
        block = executed.final.block
        self.finality.propose(block.header.hash, self._clocks().mono_ms)
        return BlockBuilt(block)

    async def _validate(self, block: Block) -> Event:
        block_hash = block.header.hash
        try:
            transactions = await self._recover(block)
            await self._on_storage(self._ledger.execute, block, transactions)
        except (UnknownParent, TooManyUnfinal):
            return BlockUnplaced(block_hash)
        except InvalidBlock as fault:
            log.warning(
                "block %(height)d %(block)s is refused: %(reason)s",
                {"height": block.header.height, "block": hex_of(block_hash), "reason": fault},
            )
            return BlockValidated(block_hash, str(fault))
        return BlockValidated(block_hash, None)

    async def _finalize(self, block_hash: Hash, certificate: Certificate) -> None:
        """The block and what is below it down to the head, each in its own synced batch."""
        try:
            path = self._ledger.path_to(block_hash)
        except UnknownParent:
            return  # catching up was faster
        for executed in path:
            is_last = executed.final.hash == block_hash
            await self._commit(executed, certificate if is_last else None)

    async def _apply(self, blocks: tuple[Block, ...], certificate: Certificate) -> None:
        """What a quorum made final must execute here to the same roots. Raises: Halted."""
        async with aclosing(self._recover_ahead(blocks)) as recovered:
            async for block, transactions in recovered:
                if block.header.height != self._ledger.head.block.header.height + 1:
                    continue  # consensus was faster
                try:
                    executed = await self._on_storage(self._ledger.execute, block, transactions.result())
                except InvalidBlock as fault:
                    reason = (
                        f"block {block.header.height} is final but invalid here: {fault}; this node's state or "
                        "program differs from the network's"
                    )
                    raise self._halted(reason, (certificate,), block) from None
                await self._commit(executed, certificate if block is blocks[-1] else None)
        self.tell(Received(certificate, None, None))
        self._outside.on_applied()

    async def _recover_ahead(
        self, blocks: Sequence[Block]
    ) -> AsyncGenerator[tuple[Block, "asyncio.Task[list[Signed]]"], None]:
        """Each block with its transactions and their senders, while those of the next are being found."""
        tasks: deque[asyncio.Task[list[Signed]]] = deque()
        try:
            for place, block in enumerate(blocks):
                for each in blocks[place + len(tasks) : place + 2]:
                    tasks.append(asyncio.ensure_future(self._recover(each)))
                await asyncio.wait((tasks[0],))
                yield block, tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _commit(self, executed: Executed, certificate: Certificate | None) -> None:
        encoded = None if certificate is None else certificate.encode()
        await self._on_storage(self._ledger.commit, executed, encoded)
        self._ledger.publish(executed)
        final = executed.final
        await self._advance_pool(executed.nonces)
        for evidence in final.block.evidence:
            self._evidence.pop(evidence, None)
        self._on_final(final)
        header = final.block.header
        next_set = self._next_set(header)
        if next_set is not None:
            self._say_change(header, next_set)
        self.tell(told := BlockFinal(head_of(final), next_set))
        self._outside.on_final(told)
        if self._journal is not None:
            await self._on_storage(self._journal.advance, header.epoch, header.view, header.height)
        if header.height % SPACE_BLOCKS == 0:
            await self._look_at_space()

    def _next_set(self, header: Header) -> ValidatorSet | None:
        """The set of the next epoch, of an epoch's last block."""
        if header.height != boundary_of(header.epoch, self._ledger.genesis.epoch_blocks):
            return None
        return self._ledger.validators(header.epoch + 1)

    def _say_change(self, header: Header, next_set: ValidatorSet) -> None:
        """When an epoch ends whose set this node's key leaves or joins."""
        if self._signer is None:
            return
        key = self._signer.public_key
        was, will = (
            each.place_of_key(key) is not None for each in (self._ledger.validators(header.epoch), next_set)
        )
        if was != will:
            text = "in the set: it votes" if will else "not in the set any more: it follows"
            log.warning(
                "from epoch %(epoch)d on this node's key is %(change)s",
                {"epoch": header.epoch + 1, "change": text},
            )

    async def _look_at_space(self) -> None:
        """Tells the operator when the disk fills up. Raises: StorageFailed when the node must stop while it can."""
        directory = self._ledger.store.directory
        before, self._space = self._space, await self._on_storage(free_space, directory)
        if self._space is Space.STOP:
            await self._on_storage(check_room, directory)
        if self._space < before:
            refused = "" if self.takes_transactions else ", clients' transactions are refused"
            log.warning(
                "%(directory)s: the file system is filling up%(refused)s; free space",
                {"directory": directory, "refused": refused},
            )

    def _in_time(self, candidates: Iterator[Signed]) -> Iterator[Signed]:
        """As many as there is time for, and at least one."""
        end_ms = self._clocks().mono_ms + self._build_ms
        for signed in candidates:
            yield signed
            if self._clocks().mono_ms >= end_ms:
                return

    async def _advance_pool(self, nonces: Mapping[Address, int]) -> None:
        """In parts, between which others on the loop have their turn; no block is built meanwhile."""
        accounts, now_ms = tuple(nonces.items()), self._clocks().mono_ms
        self._pool.on_block(accounts[:TURN_ACCOUNTS_MAX], now_ms)
        for start in range(TURN_ACCOUNTS_MAX, len(accounts), TURN_ACCOUNTS_MAX):
            await asyncio.sleep(0)
            self._pool.on_block(accounts[start : start + TURN_ACCOUNTS_MAX], now_ms)

    async def _on_storage(self, work: Callable[..., T], *arguments: object) -> T:
        """Raises: StorageFailed, also when the disk does not answer in time."""
        answer = asyncio.get_running_loop().run_in_executor(self._storage, work, *arguments)
        try:
            # In steps: a process that is stopped and goes on has lost one of them, however long it was stopped.
            for _ in range(STORAGE_STEPS):
                await asyncio.wait((answer,), timeout=STORAGE_SECONDS_MAX / STORAGE_STEPS)
                if answer.done():
                    return answer.result()
        finally:
            answer.cancel()
        raise DiskSilent(
            f"{self._ledger.store.directory}: the disk does not answer for {STORAGE_SECONDS_MAX:.0f} s; the last "
            f"final block {self._ledger.store.head.height:,} is safe. Check the disk before a restart."
        )
