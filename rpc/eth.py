"""Ethereum's methods over the chain's final blocks, state and pool.

There is one newest block: `latest`, `safe`, `finalized` and `pending` name it, as nothing final is ever taken back.
A call at a tag runs as the next block would run it, at the node's time; a call at a height runs in that block's time.
"""

from collections.abc import Sequence
from typing import Any, Final

from ctt_state.block import BlockContext
from ctt_state.crypto import keccak
from ctt_state.errors import InvalidTransaction
from ctt_state.modules import MODULES
from ctt_state.records import Account
from ctt_state.transaction import ContractCreation, Signed, intrinsic_gas_of
from ctt_state.transition import CallResult, call
from ctt_state.units import Address, Gas, Hash, Height, Ms
from rpc import schemas
from rpc.access import Role
from rpc.blocks import Blocks
from rpc.chain import Chain
from rpc.door import Caller
from rpc.errors import ExecutionReverted, NotSupported, NotYetIncluded, Refused
from rpc.jsontext import Json, RawJson, array, hex_text
from rpc.logs import find_logs
from rpc.methods import Registry
from rpc.params import (
    ADDRESS,
    ANYTHING,
    BLOCK,
    BLOCK_NUMBER,
    BOOL,
    CALL,
    COUNT,
    DATA,
    FILTER_ID,
    HASH,
    LOG_QUERY,
    PERCENTILES,
    QUANTITY,
    RAW_TRANSACTION,
    SLOT,
    SUBSCRIPTION,
    TIMEOUT_MS,
    BlockRef,
    CallObject,
    LogQuery,
    Param,
    SubscriptionKind,
    Tag,
    parse_criteria,
)
from rpc.render import BlockView, pending_transaction
from rpc.subscriptions import EVERY_LOG
from rpc.turns import Turns

ETH: Final = Registry()

ESTIMATE_MARGIN: Final = 4  # one part in so many, on top of what a call used
FEE_HISTORY_BLOCKS_MAX: Final = 128
SYNC_TIMEOUT_MS: Final = 5_000  # of eth_sendRawTransactionSync when the client names none
SYNC_TIMEOUT_MS_MAX: Final = 30_000

# What a module's address answers to eth_getCode: the invalid instruction, so that clients see a contract there.
MODULE_CODE: Final = "0xfe"

_BLOCK: Final = Param("block", BLOCK, Tag.LATEST)
_ZERO_SLOT: Final = "0x" + "00" * 32


# --- the node and the chain ----------------------------------------------------------------------------------------


@ETH.method("web3_clientVersion", result=schemas.STRING)
def client_version(caller: Caller) -> str:
    """The node's name and version."""
    return caller.chain.client_version


@ETH.method("web3_sha3", Param("data", DATA), result=schemas.HASH)
def sha3(caller: Caller, data: bytes) -> RawJson:
    """Keccak-256 of the data."""
    return hex_text(keccak(data))


@ETH.method("net_version", result=schemas.STRING)
def network_version(caller: Caller) -> str:
    """The chain id, in decimal."""
    return str(caller.chain.parameters.chain_id)


@ETH.method("net_listening", result=schemas.BOOLEAN)
def is_listening(caller: Caller) -> bool:
    """True: a node always listens for peers."""
    return True


@ETH.method("net_peerCount", result=schemas.QUANTITY)
def peer_count(caller: Caller) -> str:
    """How many peers are connected."""
    return hex(caller.chain.peer_count())


@ETH.method("eth_chainId", result=schemas.QUANTITY)
def chain_id(caller: Caller) -> str:
    """The chain id that transactions are signed for."""
    return hex(caller.chain.parameters.chain_id)


@ETH.method("eth_syncing", result=schemas.SYNCING)
def syncing(caller: Caller) -> Json:
    """False, or how far a node that is behind has come."""
    if not caller.chain.is_syncing():
        return False
    number = block_number(caller)
    return {"startingBlock": "0x0", "currentBlock": number, "highestBlock": number}


@ETH.method("eth_blockNumber", result=schemas.QUANTITY)
def block_number(caller: Caller) -> str:
    """The height of the newest final block."""
    return hex(caller.chain.head.block.header.height)


@ETH.method("eth_accounts", result=schemas.listed(schemas.ADDRESS, 0))
def accounts(caller: Caller) -> Json:
    """None: the node holds no user's keys."""
    return []


@ETH.method("eth_capabilities", result=schemas.CAPABILITIES)
def capabilities(caller: Caller) -> Json:
    """What the node keeps: blocks, transactions, receipts and logs since its chain began here, and the state of the
    newest blocks."""
    kept: Json = {"disabled": False, "oldestBlock": hex(caller.chain.oldest_block())}
    state: Json = {"disabled": False, "oldestBlock": hex(caller.chain.oldest_state())}
    return {
        "head": {"number": block_number(caller), "hash": "0x" + caller.chain.head.hash.hex()},
        "state": state,
        "tx": kept,
        "logs": kept,
        "receipts": kept,
        "blocks": kept,
        "stateproofs": {"disabled": True},
    }


# --- fees ----------------------------------------------------------------------------------------------------------


@ETH.method("eth_gasPrice", result=schemas.QUANTITY)
def gas_price(caller: Caller) -> str:
    """What a unit of gas costs, in wei: the chain's minimum, which everyone pays."""
    return hex(caller.chain.parameters.minimum_gas_price_wei)


@ETH.method("eth_maxPriorityFeePerGas", result=schemas.QUANTITY)
def max_priority_fee(caller: Caller) -> str:
    """Zero: a tip buys nothing here."""
    return "0x0"


@ETH.method(
    "eth_feeHistory",
    Param("blockCount", COUNT),
    Param("newestBlock", BLOCK_NUMBER),
    Param("rewardPercentiles", PERCENTILES, None),
    cost=10,
    result=schemas.FEE_HISTORY,
)
async def fee_history(caller: Caller, count: int, newest: Tag | int, percentiles: list[float] | None) -> Json:
    """Fees and use of up to 128 blocks: the constant price, and tips of zero."""
    last = caller.blocks.known_height(newest)
    count = min(count, FEE_HISTORY_BLOCKS_MAX, max(last + 1 - caller.chain.oldest_block(), 0))
    limit = caller.chain.parameters.block_gas_limit
    price = hex(caller.chain.parameters.minimum_gas_price_wei)
    ratios: list[Json] = []
    turns = Turns()
    for height in range(last + 1 - count, last + 1):
        final = caller.chain.block(height)
        ratios.append(final.block.header.gas_used / limit if final else 0.0)
        await turns.pause()
    history: dict[str, Json] = {
        "oldestBlock": hex(last + 1 - count),
        "baseFeePerGas": [price] * (count + 1) if count else [],
        "gasUsedRatio": ratios,
    }
    if percentiles is not None:
        history["reward"] = [["0x0"] * len(percentiles) for _ in range(count)]
    return history


# --- blocks --------------------------------------------------------------------------------------------------------


@ETH.method(
    "eth_getBlockByNumber",
    Param("block", BLOCK_NUMBER),
    Param("fullTransactions", BOOL, False),
    cost=2,
    result=schemas.maybe(schemas.BLOCK_RESULT),
)
async def block_by_number(caller: Caller, block: BlockRef, whole: bool) -> RawJson | None:
    """The block with its transactions, or their hashes; null above the head."""
    view = caller.blocks.find(block)
    return None if view is None else await _block(view, whole)


@ETH.method(
    "eth_getBlockByHash",
    Param("blockHash", HASH),
    Param("fullTransactions", BOOL, False),
    cost=2,
    result=schemas.maybe(schemas.BLOCK_RESULT),
)
async def block_by_hash(caller: Caller, block_hash: Hash, whole: bool) -> RawJson | None:
    """The block with its transactions, or their hashes; null when there is none of this hash."""
    view = caller.blocks.find(block_hash)
    return None if view is None else await _block(view, whole)


async def _block(view: BlockView, whole: bool) -> RawJson:
    if not whole:
        return view.block(view.hashes())
    transactions = []
    turns = Turns()
    for index in range(view.count):
        transactions.append(view.transaction(index))
        await turns.pause()
    return view.block(array(transactions))


@ETH.method(
    "eth_getBlockTransactionCountByNumber",
    Param("block", BLOCK_NUMBER),
    result=schemas.maybe(schemas.QUANTITY),
)
def transaction_count_by_number(caller: Caller, block: BlockRef) -> str | None:
    """How many transactions the block has; null above the head."""
    view = caller.blocks.find(block)
    return None if view is None else hex(view.count)


@ETH.method(
    "eth_getBlockTransactionCountByHash", Param("blockHash", HASH), result=schemas.maybe(schemas.QUANTITY)
)
def transaction_count_by_hash(caller: Caller, block_hash: Hash) -> str | None:
    """How many transactions the block has; null when there is none of this hash."""
    return transaction_count_by_number(caller, block_hash)


@ETH.method(
    "eth_getBlockReceipts",
    Param("block", BLOCK),
    cost=10,
    result=schemas.maybe(schemas.listed(schemas.RECEIPT)),
)
async def block_receipts(caller: Caller, block: BlockRef) -> RawJson | None:
    """The receipts of all transactions of the block, in order; null when there is no such block."""
    view = caller.blocks.find(block)
    if view is None:
        return None
    receipts = []
    turns = Turns()
    for index in range(view.count):
        receipts.append(view.receipt(index))
        await turns.pause()
    return array(receipts)


# --- transactions --------------------------------------------------------------------------------------------------


@ETH.method(
    "eth_getTransactionByHash", Param("transactionHash", HASH), result=schemas.maybe(schemas.TRANSACTION)
)
def transaction_by_hash(caller: Caller, transaction_hash: Hash) -> RawJson | None:
    """The transaction, final or in the pool; null when it is unknown."""
    found = _find(caller.blocks, transaction_hash)
    if found is not None:
        view, index = found
        return view.transaction(index)
    pending = caller.chain.pending_transaction(transaction_hash)
    return None if pending is None else pending_transaction(pending)


@ETH.method(
    "eth_getTransactionByBlockNumberAndIndex",
    Param("block", BLOCK_NUMBER),
    Param("index", QUANTITY),
    result=schemas.maybe(schemas.TRANSACTION),
)
def transaction_by_number_and_index(caller: Caller, block: BlockRef, index: int) -> RawJson | None:
    """The transaction at this place, or null."""
    view = caller.blocks.find(block)
    return None if view is None or index >= view.count else view.transaction(index)


@ETH.method(
    "eth_getTransactionByBlockHashAndIndex",
    Param("blockHash", HASH),
    Param("index", QUANTITY),
    result=schemas.maybe(schemas.TRANSACTION),
)
def transaction_by_hash_and_index(caller: Caller, block_hash: Hash, index: int) -> RawJson | None:
    """The transaction at this place, or null."""
    return transaction_by_number_and_index(caller, block_hash, index)


@ETH.method(
    "eth_getTransactionReceipt", Param("transactionHash", HASH), result=schemas.maybe(schemas.RECEIPT)
)
def transaction_receipt(caller: Caller, transaction_hash: Hash) -> RawJson | None:
    """What the transaction did; null until its block is final."""
    found = _find(caller.blocks, transaction_hash)
    if found is None:
        return None
    view, index = found
    return view.receipt(index)


def _find(blocks: Blocks, transaction_hash: Hash) -> tuple[BlockView, int] | None:
    place = blocks.chain.place_of(transaction_hash)
    if place is None:
        return None
    view = blocks.at(place.height)
    return None if view is None else (view, place.index)


async def _send_many(caller: Caller, calls: Sequence[Sequence[Any]]) -> list[RawJson | Exception]:
    """Transactions that stand together in a batch go to the node in one hand-over."""
    answers = await caller.chain.submit_many([raw for (raw,) in calls], Turns().pause)
    return [answer if isinstance(answer, Exception) else hex_text(answer) for answer in answers]


def _check_room(caller: Caller, count: int) -> None:
    caller.chain.check_room(count)


@ETH.method(
    "eth_sendRawTransaction",
    Param("transaction", RAW_TRANSACTION),
    many=_send_many,
    room=_check_room,
    cost=2,
    result=schemas.HASH,
)
async def send_raw_transaction(caller: Caller, raw: bytes) -> RawJson:
    """Takes a signed transaction into the pool and gives its hash."""
    return hex_text(await caller.chain.submit(raw))


def _is_known(chain: Chain, transaction_hash: Hash) -> bool:
    return (
        chain.place_of(transaction_hash) is not None
        or chain.pending_transaction(transaction_hash) is not None
    )


@ETH.method(
    "eth_sendRawTransactionSync",
    Param("transaction", RAW_TRANSACTION),
    Param("timeoutMs", TIMEOUT_MS, SYNC_TIMEOUT_MS),
    cost=2,
    result=schemas.maybe(schemas.RECEIPT),
    errors=(NotYetIncluded,),
)
async def send_raw_transaction_sync(caller: Caller, raw: bytes, timeout_ms: int) -> RawJson | None:
    """Takes a signed transaction into the pool and gives its receipt once it is final (EIP-7966).

    After the time asked for, at most 30 s: error 4 with the hash. A transaction that the node has already is waited
    for like any other, so that a client may ask again.
    """
    transaction_hash = Hash(keccak(raw))
    try:
        await caller.chain.submit(raw)
    except InvalidTransaction:
        if not _is_known(caller.chain, transaction_hash):
            raise
    timeout_s = min(timeout_ms, SYNC_TIMEOUT_MS_MAX) / 1_000
    if caller.chain.place_of(transaction_hash) is None:
        try:
            await caller.door.inclusion.wait(transaction_hash, timeout_s)
        except TimeoutError:
            raise NotYetIncluded("0x" + transaction_hash.hex(), timeout_s) from None
    return transaction_receipt(caller, transaction_hash)


# --- state ---------------------------------------------------------------------------------------------------------


@ETH.method("eth_getBalance", Param("address", ADDRESS), _BLOCK, result=schemas.QUANTITY)
def balance(caller: Caller, address: Address, block: BlockRef) -> str:
    """The balance in wei."""
    return hex(_account(caller, address, block).balance)


@ETH.method("eth_getTransactionCount", Param("address", ADDRESS), _BLOCK, result=schemas.QUANTITY)
def transaction_count(caller: Caller, address: Address, block: BlockRef) -> str:
    """The next nonce; at `pending` after what the pool holds of this sender."""
    if block is Tag.PENDING:
        return hex(caller.chain.pending_nonce(address))
    return hex(_account(caller, address, block).nonce)


@ETH.method("eth_getCode", Param("address", ADDRESS), _BLOCK, result=schemas.DATA)
def code(caller: Caller, address: Address, block: BlockRef) -> str:
    """One byte at the native modules' addresses, nothing elsewhere."""
    caller.blocks.known_height(block)
    return MODULE_CODE if address in MODULES else "0x"


@ETH.method(
    "eth_getStorageAt", Param("address", ADDRESS), Param("position", SLOT), _BLOCK, result=schemas.HASH
)
def storage_at(caller: Caller, address: Address, position: bytes, block: BlockRef) -> str:
    """Zero: native modules keep records and no slots."""
    caller.blocks.known_height(block)
    return _ZERO_SLOT


def _account(caller: Caller, address: Address, block: BlockRef) -> Account:
    found = caller.chain.state(caller.blocks.known_height(block))(Account.key(address))
    return found if isinstance(found, Account) else Account()


# --- calls ---------------------------------------------------------------------------------------------------------


@ETH.method(
    "eth_call",
    Param("call", CALL),
    _BLOCK,
    Param("stateOverride", ANYTHING, None),
    cost=5,
    result=schemas.DATA,
    errors=(ExecutionReverted, NotSupported),
)
def call_(caller: Caller, request: CallObject, block: BlockRef, override: Json) -> RawJson:
    """What the call gives, and changes nothing. A refusal of its rule is error 3, with the reason and the ABI error."""
    _check_no_override(override)
    result = _run(caller, request, block)
    if result.revert is not None:
        raise ExecutionReverted(result.revert)
    return hex_text(result.output)


@ETH.method(
    "eth_estimateGas",
    Param("call", CALL),
    _BLOCK,
    Param("stateOverride", ANYTHING, None),
    cost=5,
    result=schemas.QUANTITY,
    errors=(ExecutionReverted, NotSupported),
)
def estimate_gas(caller: Caller, request: CallObject, block: BlockRef, override: Json) -> str:
    """The gas that the call uses, and a quarter more when it touches records: others may change the state before it
    is included, so that it touches more. `gas` in the call is the most that may be used."""
    _check_no_override(override)
    result = _run(caller, request._replace(gas=None), block)
    if result.revert is not None:
        raise ExecutionReverted(result.revert)
    used, limit = result.gas_used, caller.chain.parameters.block_gas_limit
    allowed = limit if request.gas is None else min(request.gas, limit)
    if used > allowed:
        raise Refused(f"gas required exceeds allowance ({allowed})")
    margin = 0 if used == intrinsic_gas_of(request.data) else used // ESTIMATE_MARGIN
    return hex(min(used + margin, allowed))


@ETH.method("eth_createAccessList", Param("call", CALL), _BLOCK, cost=5, result=schemas.ACCESS_LIST_RESULT)
def create_access_list(caller: Caller, request: CallObject, block: BlockRef) -> Json:
    """An empty list, as access lists change nothing here, and the gas that the call uses."""
    result = _run(caller, request, block)
    answer: dict[str, Json] = {"accessList": [], "gasUsed": hex(result.gas_used)}
    if result.revert is not None:
        answer["error"] = ExecutionReverted(result.revert).message
    return answer


def _check_no_override(override: Json) -> None:
    if override is not None and override != {}:
        raise NotSupported("state override is not supported: calls run on the chain's own state")


def _run(caller: Caller, request: CallObject, block: BlockRef) -> CallResult:
    """Raises: Refused, StatePruned, InvalidTransaction."""
    if request.to is None:
        raise ContractCreation
    height = caller.blocks.known_height(block)
    parameters = caller.chain.parameters
    gas = parameters.block_gas_limit if request.gas is None else min(request.gas, parameters.block_gas_limit)
    return call(
        caller.chain.state(height),
        request.sender,
        request.to,
        request.value,
        request.data,
        Gas(gas),
        _context(caller, block, height),
        parameters,
    )


def _context(caller: Caller, block: BlockRef, height: int) -> BlockContext:
    """The block a call runs in: the next one for a tag, else the one it names."""
    if isinstance(block, Tag) and block is not Tag.EARLIEST:
        header = caller.chain.head.block.header
        time_ms = max(caller.chain.now_ms(), header.timestamp_ms)
        return BlockContext(Height(height + 1), Ms(time_ms), header.proposer)
    view = caller.blocks.at(height)
    if view is None:
        raise Refused(f"header not found: block {height}")
    header = view.final.block.header
    return BlockContext(header.height, header.timestamp_ms, header.proposer)


# --- logs and filters ----------------------------------------------------------------------------------------------


@ETH.method("eth_getLogs", Param("filter", LOG_QUERY), cost=20, result=schemas.listed(schemas.LOG))
async def get_logs(caller: Caller, query: LogQuery) -> RawJson:
    """The logs that match, of one block or of at most 1,000; at most 10,000 logs."""
    return array(await find_logs(caller.blocks, query))


@ETH.method("eth_newFilter", Param("filter", LOG_QUERY), result=schemas.FILTER_ID)
def new_filter(caller: Caller, query: LogQuery) -> str:
    """A filter of logs; it ends after five minutes unused."""
    return caller.door.filters.add_log_filter(caller.client, query)


@ETH.method("eth_newBlockFilter", result=schemas.FILTER_ID)
def new_block_filter(caller: Caller) -> str:
    """A filter of new blocks' hashes; it ends after five minutes unused."""
    return caller.door.filters.add_block_filter(caller.client)


@ETH.method("eth_newPendingTransactionFilter", result=schemas.FILTER_ID)
def new_pending_filter(caller: Caller) -> str:
    """A filter of hashes of transactions that enter the pool; it ends after five minutes unused."""
    return caller.door.filters.add_pending_filter(caller.client)


@ETH.method("eth_getFilterChanges", Param("filterId", FILTER_ID), cost=5, result=schemas.CHANGES)
async def filter_changes(caller: Caller, identity: str) -> RawJson:
    """What is new since the last time."""
    return array(await caller.door.filters.changes(identity))


@ETH.method("eth_getFilterLogs", Param("filterId", FILTER_ID), cost=20, result=schemas.listed(schemas.LOG))
async def filter_logs(caller: Caller, identity: str) -> RawJson:
    """All logs that match the filter, whatever has been told."""
    return array(await caller.door.filters.logs(identity))


@ETH.method("eth_uninstallFilter", Param("filterId", FILTER_ID), result=schemas.BOOLEAN)
def uninstall_filter(caller: Caller, identity: str) -> bool:
    """Ends a filter; false when there is none of this id."""
    return caller.door.filters.remove(identity)


# --- subscriptions -------------------------------------------------------------------------------------------------


@ETH.method(
    "eth_subscribe", Param("kind", SUBSCRIPTION), Param("options", ANYTHING, None), result=schemas.FILTER_ID
)
def subscribe(caller: Caller, kind: SubscriptionKind, options: Json) -> str:
    """Over WebSocket: tells each new head, each log that matches, each transaction that enters the pool, or, as
    `ctt_finalized`, what makes blocks final: each certificate with its block, as ctt_finalityCertificate gives it. The
    blocks below, down to the last one told, are final by it too."""
    if caller.session is None:
        raise Refused("notifications not supported: subscriptions need a WebSocket")
    if kind is SubscriptionKind.LOGS and options is not None:
        return caller.session.subscribe(kind, parse_criteria(options, "params[1]"))
    return caller.session.subscribe(kind, EVERY_LOG, whole=options is True)


@ETH.method("eth_unsubscribe", Param("subscriptionId", FILTER_ID), result=schemas.BOOLEAN)
def unsubscribe(caller: Caller, identity: str) -> bool:
    """Ends a subscription of this WebSocket; false when it has none of this id."""
    return caller.session is not None and caller.session.unsubscribe(identity)


# --- the pool ------------------------------------------------------------------------------------------------------


@ETH.method("txpool_status", result=schemas.POOL_STATUS)
def pool_status(caller: Caller) -> Json:
    """How many transactions the next blocks can take, and how many wait for an earlier nonce."""
    pending, queued = caller.chain.pool_counts()
    return {"pending": hex(pending), "queued": hex(queued)}


@ETH.method("txpool_content", role=Role.OPERATOR, cost=20, result=schemas.POOL_CONTENT)
async def pool_content(caller: Caller) -> RawJson:
    """The pool's transactions by sender and nonce."""
    pending, queued = caller.chain.pool()
    turns = Turns()
    return RawJson(
        f'{{"pending":{await _by_sender(pending, turns)},"queued":{await _by_sender(queued, turns)}}}'
    )


async def _by_sender(content: dict[Address, list[Signed]], turns: Turns) -> str:
    senders = []
    for sender, signed in content.items():
        listed = [f'"{item.transaction.nonce}":{pending_transaction(item)}' for item in signed]
        senders.append(f'"0x{sender.hex()}":{{{",".join(listed)}}}')
        await turns.pause()
    return "{" + ",".join(senders) + "}"
