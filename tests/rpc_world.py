"""A node in memory for tests of the door: the ledger's real rules, a plain pool, blocks when the test says so.

Nothing here decides what a transaction does: decoding, sender, checks and execution are `ctt_state`'s. Only the pool
is simple: a transaction waits for its nonce, and one nonce holds one transaction.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import aiohttp
import jsonschema

from ctt_state.abi import Module
from ctt_state.block import (
    HEADER_VERSION,
    Block,
    BlockContext,
    FinalBlock,
    Header,
    Place,
    Receipt,
    merkle_root,
)
from ctt_state.crypto import address_of, keccak, public_key, sha256
from ctt_state.errors import BlockPruned, InvalidTransaction, NonceTooLow, StatePruned
from ctt_state.modules.call import ChainParameters, MarketRules
from ctt_state.modules.ctt import CTT
from ctt_state.records import Account, MarketTariff, Record
from ctt_state.transaction import Signed, decode_transaction, recover_sender, sign_transaction
from ctt_state.transition import apply_due, apply_transaction, check_affordable, due_transaction
from ctt_state.tree import prove, update
from ctt_state.units import ZERO_HASH, Address, Gas, Hash, Height, Ms, Wei
from ctt_state.validators import Member, ValidatorSet
from ctt_state.view import Lookup, Overlay
from node.mempool import PoolFull
from node.node import Signer
from node.pulse import Times
from rpc.chain import PoolContent, RecordProof
from rpc.discovery import METHODS
from rpc.server import RpcServer, ServerConfig, ServerLimits

CHAIN_ID: Final = 4_242
BLOCK_GAS_LIMIT: Final = Gas(30_000_000)
START_MS: Final = Ms(1_700_000_000_999)
PERIOD_MS: Final = 333
STATES_KEPT: Final = 512
WEALTH_WEI: Final = Wei(10**24)


def private_key(name: str) -> bytes:
    """The same key for a name in every test."""
    return sha256(name.encode())


ADMIN_KEY, OPERATOR_KEY, ALICE_KEY, BOB_KEY = KEYS = tuple(
    private_key(name) for name in ("admin", "operator", "alice", "bob")
)
ADMIN, OPERATOR, ALICE, BOB = PEOPLE = tuple(address_of(key) for key in KEYS)
POOR_KEY: Final = private_key("poor")
POOR: Final = address_of(POOR_KEY)
PROPOSER: Final = Address(keccak(b"proposer")[12:])
VALIDATORS: Final = ValidatorSet((Member(PROPOSER, public_key(private_key("proposer"))),))


class RpcWorld:
    """A chain with one proposer, who certifies nothing. With `automatic` each submitted transaction gets a block at
    once."""

    def __init__(
        self,
        *,
        automatic: bool = False,
        minimum_gas_price_wei: int = 0,
        market: MarketRules | None = None,
        tariff: MarketTariff | None = None,
    ) -> None:
        self.lag = self.finality_times = Times(0, 0.0, 0.0, 0.0)
        self.parameters = ChainParameters(
            chain_id=CHAIN_ID,
            genesis_hash=ZERO_HASH,
            block_period_ms=Ms(PERIOD_MS),
            epoch_blocks=900,
            is_development=True,
            block_gas_limit=BLOCK_GAS_LIMIT,
            minimum_gas_price_wei=Wei(minimum_gas_price_wei),
            fee_receiver=None,
            first_admin=ADMIN,
            market=market,
        )
        self.client_version = "ctt/test"
        self.automatic = automatic
        self.syncing = False
        self.base = Height(0)  # as if a snapshot of this block had been loaded
        self.hand_overs = 0
        self.room = 1_000  # for so many transactions at once
        self._records: dict[bytes, Record | None] = {
            Account.key(person): Account(0, WEALTH_WEI) for person in PEOPLE
        }
        if tariff is not None:
            self._records[MarketTariff.key()] = tariff
        self._states: list[dict[bytes, Record | None]] = []
        self._nodes: list[dict[bytes, bytes | None]] = []
        self._blocks: list[FinalBlock] = []
        self._heights: dict[bytes, Height] = {}
        self._places: dict[bytes, Place] = {}
        self._pool: dict[Address, dict[int, Signed]] = {}
        self._on_final: list[Callable[[FinalBlock], None]] = []
        self._on_pending: list[Callable[[Signed], None]] = []
        genesis = Overlay(lambda _: None)
        genesis.changes.update(self._records)
        self._seal([], [], genesis)
        self.send_call(ADMIN_KEY, "createCTT(string,string,uint256,uint256)", "Sun", "CTT", 1_000, 10_000)
        self.send_call(ADMIN_KEY, "setOperator(address,bool)", OPERATOR, True)
        self.make_block()

    # --- what the door needs of a node ---

    @property
    def head(self) -> FinalBlock:
        return self._blocks[-1]

    def block(self, height: int) -> FinalBlock | None:
        if 0 <= height <= self.base != 0:
            raise BlockPruned(height=height, base=self.base)
        return self._blocks[height] if 0 <= height < len(self._blocks) else None

    def oldest_block(self) -> Height:
        return Height(self.base + 1 if self.base else 0)

    def height_of(self, block_hash: bytes) -> Height | None:
        height = self._heights.get(block_hash)
        return None if height is None or height < self.base else height

    def place_of(self, transaction_hash: bytes) -> Place | None:
        place = self._places.get(transaction_hash)
        return None if place is None or place.height < self.oldest_block() else place

    def state(self, height: int) -> Lookup:
        if not self.oldest_state() <= height < len(self._blocks):
            raise StatePruned(height=height, kept=STATES_KEPT)
        return self._states[height].get

    def oldest_state(self) -> Height:
        return Height(max(self.base, len(self._blocks) - 1 - STATES_KEPT))

    def header(self, height: int) -> Header:
        if height < self.base:
            raise BlockPruned(height=height, base=self.base)
        return self._blocks[height].block.header

    def certificate(self, height: int) -> tuple[Height, bytes] | None:
        return None

    def validators(self, epoch: int) -> ValidatorSet | None:
        return VALIDATORS if epoch == 0 else None

    async def prove(
        self, height: int, keys: Sequence[bytes], pause: Callable[[], Awaitable[None]]
    ) -> Sequence[RecordProof]:
        lookup, read = self.state(height), self._nodes[height].get
        return [(_encode(lookup(key)), prove(read, sha256(key))) for key in keys]

    def check_room(self, count: int) -> None:
        if count > self.room:
            raise PoolFull

    async def submit(self, raw: bytes) -> Hash:
        self.hand_overs += 1
        return self.take(raw)

    async def submit_many(
        self, raws: Sequence[bytes], pause: Callable[[], Awaitable[None]]
    ) -> list[Hash | ValueError]:
        self.hand_overs += 1
        answers: list[Hash | ValueError] = []
        for raw in raws:
            try:
                answers.append(self.take(raw))
            except InvalidTransaction as refusal:
                answers.append(refusal)
        return answers

    def pending_transaction(self, transaction_hash: bytes) -> Signed | None:
        for waiting in self._pool.values():
            for signed in waiting.values():
                if signed.transaction.hash == transaction_hash:
                    return signed
        return None

    def pending_nonce(self, address: Address) -> int:
        nonce = self._account(address).nonce
        while nonce in self._pool.get(address, {}):
            nonce += 1
        return nonce

    def pool(self) -> PoolContent:
        pending: dict[Address, list[Signed]] = {}
        queued: dict[Address, list[Signed]] = {}
        for sender, waiting in self._pool.items():
            runs_to = self.pending_nonce(sender)
            for nonce, signed in sorted(waiting.items()):
                (pending if nonce < runs_to else queued).setdefault(sender, []).append(signed)
        return pending, queued

    def pool_counts(self) -> tuple[int, int]:
        pending, queued = self.pool()
        return sum(map(len, pending.values())), sum(map(len, queued.values()))

    def peer_count(self) -> int:
        return 3

    def is_syncing(self) -> bool:
        return self.syncing

    def trouble(self) -> str | None:
        return "syncing: the node is syncing: at block 1 of 99" if self.syncing else None

    def on_final(self, listener: Callable[[FinalBlock], None]) -> Callable[[], None]:
        self._on_final.append(listener)
        return lambda: self._on_final.remove(listener)

    def on_pending(self, listener: Callable[[Signed], None]) -> Callable[[], None]:
        self._on_pending.append(listener)
        return lambda: self._on_pending.remove(listener)

    def signers(self) -> Sequence[Signer]:
        return [Signer(PROPOSER, "proposer", None, 0)]

    def not_voting(self) -> None: ...
    def room_bytes(self) -> tuple[int, int]:
        return 20 * 2**30, 100 * 2**30

    def loop_lag(self) -> Times:
        return self.lag

    def finality(self) -> Times:
        return self.finality_times

    def now_ms(self) -> Ms:
        return Ms(START_MS + len(self._blocks) * PERIOD_MS)

    # --- the pool and the blocks ---

    def take(self, raw: bytes) -> Hash:
        """Into the pool. Raises: InvalidTransaction."""
        transaction = decode_transaction(raw, CHAIN_ID)
        signed = Signed(transaction, recover_sender(transaction))
        account = self._account(signed.sender)
        if transaction.nonce < account.nonce:
            raise NonceTooLow(next_nonce=account.nonce, nonce=transaction.nonce)
        check_affordable(account, signed, self.parameters)
        waiting = self._pool.setdefault(signed.sender, {})
        if transaction.nonce in waiting:
            known = waiting[transaction.nonce].transaction.hash == transaction.hash
            raise InvalidTransaction("already known" if known else "replacement transaction underpriced")
        waiting[transaction.nonce] = signed
        for listener in list(self._on_pending):
            listener(signed)
        if self.automatic:
            asyncio.get_running_loop().call_soon(self.make_block)
        return transaction.hash

    def make_block(self) -> FinalBlock:
        """A final block of all that the pool holds and that is next in its sender's order."""
        overlay = Overlay(self._records.get)
        context = BlockContext(Height(len(self._blocks)), self.now_ms(), PROPOSER)
        included: list[Signed] = []
        receipts: list[Receipt] = []
        due = due_transaction(overlay.lookup, context, self.parameters)
        if due is not None:
            included.append(due)
            receipts.append(apply_due(overlay, due, context, self.parameters))
        pending, _ = self.pool()
        for sender, run in pending.items():
            for signed in run:
                receipts.append(apply_transaction(overlay, signed, context, self.parameters))
                included.append(signed)
                del self._pool[sender][signed.transaction.nonce]
        return self._seal(included, receipts, overlay)

    def make_blocks(self, count: int) -> None:
        for _ in range(count):
            self.make_block()

    def sign(self, key: bytes, to: bytes, *, data: bytes = b"", **fields: Any) -> bytes:
        """A transaction with the next nonce."""
        price = self.parameters.minimum_gas_price_wei
        defaults = {"nonce": self.pending_nonce(address_of(key)), "gas_limit": 1_000_000}
        fields = {**defaults, "gas_price": price, "max_fee": price, **fields}
        return sign_transaction(key, chain_id=CHAIN_ID, to=to, data=data, **fields)

    def sign_call(
        self, key: bytes, signature: str, *arguments: Any, module: Module = CTT, **fields: Any
    ) -> bytes:
        data = module.named(signature).encode_arguments(*arguments)
        return self.sign(key, module.address, data=data, **fields)

    def send_call(self, key: bytes, signature: str, *arguments: Any, **fields: Any) -> Hash:
        return self.take(self.sign_call(key, signature, *arguments, **fields))

    def _account(self, address: Address) -> Account:
        found = self._records.get(Account.key(address))
        return found if isinstance(found, Account) else Account()

    def _seal(self, included: list[Signed], receipts: list[Receipt], overlay: Overlay) -> FinalBlock:
        height = Height(len(self._blocks))
        hashes = tuple(signed.transaction.hash for signed in included)
        nodes = self._nodes[-1] if self._nodes else {}
        rows = {key: _encode(record) for key, record in overlay.changes.items()}
        leaves = [(sha256(key), None if row is None else sha256(row)) for key, row in rows.items()]
        state_root, changed = update(nodes.get, leaves)
        self._nodes.append(nodes | changed)
        header = Header(
            version=HEADER_VERSION,
            genesis_hash=ZERO_HASH,
            height=height,
            epoch=0,
            view=height,
            parent_hash=self._blocks[-1].hash if self._blocks else ZERO_HASH,
            timestamp_ms=self.now_ms(),
            proposer=PROPOSER,
            gas_used=Gas(sum(receipt.gas_used for receipt in receipts)),
            transactions_root=merkle_root(hashes),
            receipts_root=merkle_root([receipt.encode() for receipt in receipts]),
            state_root=state_root,
            evidence_root=ZERO_HASH,
            validators_hash=VALIDATORS.hash,
            next_validators_hash=VALIDATORS.hash,
        )
        block = Block(header, tuple(signed.transaction.raw for signed in included))
        senders = tuple(signed.sender for signed in included)
        final = FinalBlock(block, header.hash, tuple(receipts), senders, hashes)
        self._records.update(overlay.changes)
        self._states.append(dict(self._records))
        self._blocks.append(final)
        self._heights[final.hash] = height
        self._places.update({h: Place(height, index) for index, h in enumerate(hashes)})
        for listener in list(self._on_final):
            listener(final)
        return final


@cache
def _validator(method: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(METHODS[method].result)


def check_result(method: str, result: Any) -> None:
    """Whether the answer is what the method says it gives. Raises: jsonschema.ValidationError."""
    _validator(method).validate(result)


def _encode(record: Record | None) -> bytes | None:
    return None if record is None else record.encode()


class RpcClient:
    """Speaks JSON-RPC to a server, as plainly as can be."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http

    async def post(self, body: Any, **headers: str) -> Any:
        """The decoded answer to a body of JSON, or of bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(
            self.url, data=data, headers={"Content-Type": "application/json", **headers}
        ) as response:
            assert response.status in (200, 204), await response.text()
            return json.loads(await response.text()) if response.status == 200 else None

    async def answer(self, method: str, *params: Any) -> Any:
        """The whole reply."""
        return await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})

    async def call(self, method: str, *params: Any) -> Any:
        """The result of a call that succeeds."""
        reply = await self.answer(method, *params)
        assert "error" not in reply, reply
        check_result(method, reply["result"])
        return reply["result"]

    async def error(self, method: str, *params: Any) -> Any:
        """The error of a call that fails."""
        reply = await self.answer(method, *params)
        assert "result" not in reply, reply
        return reply["error"]


class Served(RpcClient):
    """A world with its server and a client."""

    def __init__(self, world: RpcWorld, server: RpcServer, http: aiohttp.ClientSession) -> None:
        super().__init__(server.url, http)
        self.world = world
        self.server = server


@asynccontextmanager
async def served(world: RpcWorld | None = None, config: ServerConfig | None = None) -> AsyncIterator[Served]:
    """A world behind a real server on a free port."""
    world = world or RpcWorld()
    server = RpcServer(world, config or make_config())
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Served(world, server, http)
    finally:
        await server.stop()


def make_config(limits: ServerLimits | None = None, **fields: Any) -> ServerConfig:
    return ServerConfig(port=0, limits=limits or ServerLimits(), **fields)
