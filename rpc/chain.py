"""What the door needs of a node. The node provides it; nothing here imports the node."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ctt_state.block import FinalBlock, Header, Place
from ctt_state.modules.call import ChainParameters
from ctt_state.transaction import Signed
from ctt_state.units import Address, Hash, Height, Ms
from ctt_state.validators import ValidatorSet
from ctt_state.view import Lookup

# The pool's content by sender, each in nonce order: what the next blocks can take, and what waits for a gap.
PoolContent = tuple[dict[Address, list[Signed]], dict[Address, list[Signed]]]

# A record's bytes, None if there is none, and the state tree's nodes from the root towards it.
RecordProof = tuple[bytes | None, tuple[bytes, ...]]


class Times(Protocol):
    """How long what happened in the last minute took, in ms."""

    @property
    def count(self) -> int: ...
    @property
    def p50_ms(self) -> float: ...
    @property
    def p99_ms(self) -> float: ...
    @property
    def max_ms(self) -> float: ...


class Signer(Protocol):
    """How a validator is doing, as the node hears it."""

    @property
    def address(self) -> Address: ...
    @property
    def name(self) -> str | None:
        """Of those of the genesis document."""

    @property
    def heard_ms(self) -> int | None:
        """How long ago it said anything; None of the node itself."""

    @property
    def votes_missed(self) -> int | None:
        """How many views became final without its vote in time; None on a follower."""


class Chain(Protocol):
    """A node as JSON-RPC sees it, on the event loop. What is not `async` returns at once."""

    @property
    def parameters(self) -> ChainParameters: ...
    @property
    def client_version(self) -> str: ...
    @property
    def head(self) -> FinalBlock:
        """The newest final block."""

    def block(self, height: int) -> FinalBlock | None:
        """The final block at this height, None above the head. Raises: BlockPruned."""

    def oldest_block(self) -> Height:
        """The lowest height at which `block` answers; above the head when that is not whole here yet."""

    def height_of(self, block_hash: bytes) -> Height | None: ...
    def place_of(self, transaction_hash: bytes) -> Place | None: ...
    def state(self, height: int) -> Lookup:
        """The records as block `height` left them. Raises: StateUnready, upon which a method is run again once it is
        worked out; StatePruned."""

    def oldest_state(self) -> Height:
        """The lowest height at which `state` answers."""

    def header(self, height: int) -> Header:
        """The final block's header. Raises: BlockPruned below what this node began with, LookupError above the head."""

    def certificate(self, height: int) -> tuple[Height, bytes] | None:
        """The lowest certified block from this height on, with its finalization: what makes this height final. None
        when there is none yet."""

    def validators(self, epoch: int) -> ValidatorSet | None:
        """The set of this epoch; None when it is not fixed yet, or from before what this node began with."""

    async def prove(
        self, height: int, keys: Sequence[bytes], pause: Callable[[], Awaitable[None]]
    ) -> Sequence[RecordProof]:
        """A proof for each record key, of its record or of its absence, under the state root of block `height`;
        `pause` is awaited between pieces of work. Raises: StatePruned, ProofPruned."""

    def check_room(self, count: int) -> None:
        """Raises: InvalidTransaction, of which NotTakenNow is one, when so many would be refused whatever they are."""

    async def submit(self, raw: bytes) -> Hash:
        """Checks the transaction and puts it into the pool. Raises: InvalidTransaction, of which NotTakenNow is one."""

    async def submit_many(
        self, raws: Sequence[bytes], pause: Callable[[], Awaitable[None]]
    ) -> list[Hash | ValueError]:
        """The same for each of several, at the price of one hand-over; a refusal stands in its place. `pause` is
        awaited between two of them, and may let others go first."""

    def pending_transaction(self, transaction_hash: bytes) -> Signed | None: ...
    def pending_nonce(self, address: Address) -> int:
        """The next nonce after the pool's own run for this sender, or after the state's."""

    def pool(self) -> PoolContent: ...
    def pool_counts(self) -> tuple[int, int]:
        """How many transactions are pending and queued."""

    def peer_count(self) -> int: ...
    def is_syncing(self) -> bool: ...
    def trouble(self) -> str | None:
        """Why clients had better turn to another node, in a line that begins with one of `syncing:`, `stalled:`,
        `stopping:` and `disk:`; None while all is well."""

    def on_final(self, listener: Callable[[FinalBlock], None]) -> Callable[[], None]:
        """Calls the listener for each new final block, in order, on the event loop, once `head` is this block.
        Gives the way to stop it."""

    def on_pending(self, listener: Callable[[Signed], None]) -> Callable[[], None]:
        """The same for each transaction that enters the pool."""

    def now_ms(self) -> Ms:
        """The node's clock, for calls at the pending block."""

    def signers(self) -> Sequence[Signer]:
        """The validators of the epoch under way, in the order of the set."""

    def not_voting(self) -> str | None:
        """Why this validator casts no votes now, in words; None of one that votes, and of a follower."""

    def room_bytes(self) -> tuple[int, int]:
        """What is free for the data directory, and the size of its file system."""

    def loop_lag(self) -> Times:
        """How late the event loop's beats were."""

    def finality(self) -> Times:
        """From the proposals of blocks, made or received here, to their certificates."""
