"""The energy market as traders and their programs ask for it: no ABI, figures exact and in words.

Each answer is of the state that one block left, whose height it names; `block` is the newest unless it is given. What
takes orders then is the auction of the block after it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ctt_state.abi import Revert, decode_values
from ctt_state.block import BlockContext, Log
from ctt_state.modules.call import Call, MarketRules
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import NO_BOOK, NO_STANDING, NO_TARIFF, PartnerTraded, Traded, auction_at
from ctt_state.origin import SOURCES
from ctt_state.records import (
    AUCTIONS_KEPT,
    PAGE_ORDERS,
    Auction,
    BookPage,
    Mandate,
    MarketBook,
    MarketTariff,
    Order,
    Standing,
)
from ctt_state.transaction import intrinsic_gas_of
from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address, Height, Wei, Wh, hex_of
from ctt_state.view import Lookup, StateView, find
from rpc import schemas
from rpc.door import Caller
from rpc.errors import ExecutionReverted, InvalidParams, NotSupported, TryLater
from rpc.figures import energy, energy_price, money
from rpc.jsontext import Json
from rpc.methods import Registry
from rpc.params import (
    ADDRESS,
    BLOCK,
    CALL,
    COUNT,
    PAGE_SIZE,
    TOKENS_PAGE_MAX,
    BlockRef,
    CallObject,
    Param,
    Tag,
)
from rpc.turns import Turns

MARKET_METHODS: Final = Registry()

AUCTIONS_LOOKED_AT_MAX: Final = 1_000  # by a page: those in which no order stood left nothing
TRADES_SHOWN_MAX: Final = 100

_BLOCK: Final = Param("block", BLOCK, Tag.LATEST)
_PAGE: Final = (Param("offset", COUNT, 0), Param("limit", PAGE_SIZE, TOKENS_PAGE_MAX))
_TRADE_TOPICS: Final = (Traded.topic, PartnerTraded.topic)
_TRADED: Final = tuple([param for param in Traded.params if not param.indexed])
_CLEAR: Final = MARKET.named("clear()")


class _State(NamedTuple):
    """The records as a block left them, and the market's rules."""

    height: Height
    lookup: Lookup
    rules: MarketRules

    @property
    def auction(self) -> int:
        """That takes what the block after this one says."""
        return auction_at(self.height + 1, self.rules.auction_blocks)


class _Trade(NamedTuple):
    """As its event tells it."""

    buyer: Address
    seller: Address
    energy_wh: Wh
    price_wei_per_wh: Wei

    @classmethod
    def of(cls, log: Log) -> "_Trade":
        moved, price = decode_values(_TRADED, log.data)[:2]
        return cls(Address(log.topics[1][12:]), Address(log.topics[2][12:]), moved, price)


def _state(caller: Caller, block: BlockRef) -> _State | None:
    """None on a chain without a market. Raises: Refused, StatePruned."""
    height = Height(caller.blocks.known_height(block))
    lookup, rules = caller.chain.state(height), caller.chain.parameters.market
    return None if rules is None else _State(height, lookup, rules)


@MARKET_METHODS.method("ctt_market", _BLOCK, result=schemas.maybe(schemas.MARKET))
def market(caller: Caller, block: BlockRef) -> Json:
    """The market: the tariff that bounds every price, how many orders stand and may stand, and the auction that takes
    orders now, until its last block; the block after that begins with the clearing. Null on a chain without one."""
    state = _state(caller, block)
    if state is None:
        return None
    tariff = find(state.lookup, MarketTariff, MarketTariff.key()) or NO_TARIFF
    book = find(state.lookup, MarketBook, MarketBook.key()) or NO_BOOK
    last_block = state.auction * state.rules.auction_blocks
    return {
        "height": state.height,
        **energy_price("floor", tariff.floor_wei_per_wh),
        **energy_price("ceiling", tariff.ceiling_wei_per_wh),
        **energy_price("gridFee", tariff.grid_fee_wei_per_wh),
        "gridOperator": None if tariff.grid_operator == ZERO_ADDRESS else hex_of(tariff.grid_operator),
        "auction": state.auction,
        "lastBlock": last_block,
        "blocksLeft": last_block - state.height,
        "auctionBlocks": state.rules.auction_blocks,
        "orders": book.standing,
        "ordersMax": state.rules.orders_max,
    }


@MARKET_METHODS.method("ctt_orderBook", *_PAGE, _BLOCK, cost=10, result=schemas.maybe(schemas.ORDER_BOOK))
async def order_book(caller: Caller, offset: int, limit: int, block: BlockRef) -> Json:
    """The standing orders, both sides from `offset` on, 1 to 100 of each: bids from the highest limit down, asks from
    the lowest up, equal ones in the order of time. A wish's price may be another than the limit. `next` is null when
    neither side goes on; ask for the next page at this answer's `height`. Null on a chain without a market."""
    state = _state(caller, block)
    if state is None:
        return None
    orders = await _standing(state)
    bids = sorted(
        [each for each in orders if each[1].is_bid], key=lambda each: (-each[1].limit_wei_per_wh, each[0])
    )
    asks = sorted(
        [each for each in orders if not each[1].is_bid], key=lambda each: (each[1].limit_wei_per_wh, each[0])
    )
    end = offset + limit
    return {
        "height": state.height,
        "bidCount": len(bids),
        "askCount": len(asks),
        "bids": [_order(*each) for each in bids[offset:end]],
        "asks": [_order(*each) for each in asks[offset:end]],
        "next": end if end < max(len(bids), len(asks)) else None,
    }


@MARKET_METHODS.method("ctt_order", Param("orderId", COUNT), _BLOCK, result=schemas.maybe(schemas.ORDER))
def order(caller: Caller, order_id: int, block: BlockRef) -> Json:
    """A standing order, with the energy that is still to be traded. Null for one that does not stand, or not any
    more."""
    state = _state(caller, block)
    return None if state is None else _found(state, order_id)


@MARKET_METHODS.method(
    "ctt_ordersOf", Param("owner", ADDRESS), _BLOCK, result=schemas.maybe(schemas.ORDERS_OF)
)
def orders_of(caller: Caller, owner: Address, block: BlockRef) -> Json:
    """The account's bid and its ask, whoever placed them; it has one of each at most. Null on a chain without a
    market."""
    state = _state(caller, block)
    if state is None:
        return None
    bid, ask = find(state.lookup, Standing, Standing.key(owner)) or NO_STANDING
    return {
        "height": state.height,
        "owner": hex_of(owner),
        "bid": _found(state, bid),
        "ask": _found(state, ask),
    }


@MARKET_METHODS.method(
    "ctt_mandate",
    Param("owner", ADDRESS),
    Param("platform", ADDRESS),
    _BLOCK,
    result=schemas.maybe(schemas.MANDATE),
)
def mandate(caller: Caller, owner: Address, platform: Address, block: BlockRef) -> Json:
    """What is left of what the platform may do in the market for the owner. Null when it has no mandate."""
    state = _state(caller, block)
    found = None if state is None else find(state.lookup, Mandate, Mandate.key(owner, platform))
    if state is None or found is None:
        return None
    return {
        "height": state.height,
        "owner": hex_of(owner),
        "platform": hex_of(platform),
        **energy("energy", found.energy_wh),
        **money("spend", found.spend_wei),
        **energy_price("buyLimit", found.buy_limit_wei_per_wh),
        **energy_price("sellLimit", found.sell_limit_wei_per_wh),
        "expiryAuction": str(found.expiry_auction),
    }


@MARKET_METHODS.method(
    "ctt_auctions",
    Param("from", COUNT, UINT64_MAX),
    Param("limit", PAGE_SIZE, TOKENS_PAGE_MAX),
    _BLOCK,
    cost=5,
    result=schemas.maybe(schemas.AUCTIONS),
)
async def auctions(caller: Caller, first: int, limit: int, block: BlockRef) -> Json:
    """What auctions came to, from number `from` (the newest) backwards, 1 to 100 of them. Those in which no order stood
    are left out; the last 4,096 are kept. A page looks at 1,000 numbers at most, and `next` is the number to go on
    `from`, null at the end. The price is of what was not nominated, 0 when that was nothing. Null on a chain without a
    market."""
    state = _state(caller, block)
    if state is None:
        return None
    newest = auction_at(state.height, state.rules.auction_blocks) - 1 if state.height else 0
    oldest = max(newest - AUCTIONS_KEPT + 1, 1)
    number = min(first, newest)
    end = max(number - AUCTIONS_LOOKED_AT_MAX, oldest - 1)
    found: list[Json] = []
    turns = Turns()
    while number > end and len(found) < limit:
        record = find(state.lookup, Auction, Auction.key(number))
        if record is not None and record.number == number:
            found.append(_auction(record))
        number -= 1
        await turns.pause()
    return {"height": state.height, "auctions": found, "next": number if number >= oldest else None}


@MARKET_METHODS.method(
    "ctt_clearing",
    Param("call", CALL, None),
    Param("account", ADDRESS, None),
    _BLOCK,
    cost=30,
    result=schemas.maybe(schemas.CLEARING),
    errors=(ExecutionReverted,),
)
def clearing(caller: Caller, request: CallObject | None, account: Address | None, block: BlockRef) -> Json:
    """What the current auction would come to if it were cleared now, and changes nothing: it costs no more gas than a
    block has. `call` to the market, a bid say, is made first; its refusal is error 3, with the reason and the ABI
    error. `trades` are the first 100 of `tradeCount`; with `account` given, of its own, and `share` sums them up. Null
    on a chain without a market."""
    state = _state(caller, block)
    if state is None:
        return None
    view = StateView(state.lookup, caller.chain.parameters.block_gas_limit)
    cleared_at = Height(state.auction * state.rules.auction_blocks + 1)
    try:
        if request is not None:
            _run(caller, view, _of_market(request), Height(state.height + 1))
        first = len(view.logs)
        clear = CallObject(ZERO_ADDRESS, MARKET.address, None, Wei(0), _CLEAR.selector)
        price, traded = decode_values(_CLEAR.outputs, _run(caller, view, clear, cleared_at))
    except Revert as revert:
        raise ExecutionReverted(revert) from None
    trades = [_Trade.of(log) for log in view.logs[first:] if log.topics[0] in _TRADE_TOPICS]
    tariff = find(state.lookup, MarketTariff, MarketTariff.key()) or NO_TARIFF
    if account is not None:
        trades = [trade for trade in trades if account in (trade.buyer, trade.seller)]
    return {
        "height": state.height,
        "auction": state.auction,
        **energy_price("price", price),
        **energy("energy", traded),
        "tradeCount": len(trades),
        "trades": [_trade(trade) for trade in trades[:TRADES_SHOWN_MAX]],
        "share": None if account is None else _share(account, trades, tariff.grid_fee_wei_per_wh),
    }


@MARKET_METHODS.method(
    "ctt_advise",
    Param("prosumer", ADDRESS),
    cost=30,
    result=schemas.ADVICE,
    errors=(NotSupported, TryLater),
)
async def advise(caller: Caller, prosumer: Address) -> Json:
    """What the prosumer may do in the auction that takes orders now, and how well such advice did for it before, from
    data until the block `height`. An estimate by the advisor that the node's operator names (`ctt run --advisor`),
    outside consensus: figures of energy are in Wh, of money in units of the currency. `limitPerKwh` is that of a bid or
    an ask, `pricePerToken` that of `BUY_EMPTY`; the gain is against holding, P10 and P90 are what nine days in ten and
    one in ten passed. Error -32601 where the node has no advisor, -32005 while it is at work on it: ask again."""
    if caller.door.advisor is None:
        raise NotSupported("this node has no advisor: ctt run --advisor")
    return await caller.door.advisor.advise(prosumer)


def _of_market(request: CallObject) -> CallObject:
    """Raises: InvalidParams for a call to anything else."""
    if request.to != MARKET.address:
        raise InvalidParams(f"call.to: only the market, {hex_of(MARKET.address)}, can be called before")
    return request


def _run(caller: Caller, view: StateView, request: CallObject, height: Height) -> bytes:
    """Raises: Revert."""
    view.charge(intrinsic_gas_of(request.data))
    header = caller.chain.head.block.header
    context = BlockContext(height, header.timestamp_ms, header.proposer)
    call = Call(view, request.sender, MARKET.address, request.value, context, caller.chain.parameters)
    function, returned = call.run(MARKET, request.data)
    return function.encode_result(returned)


async def _standing(state: _State) -> list[tuple[int, Order]]:
    """The whole book; genesis bounds it."""
    book = find(state.lookup, MarketBook, MarketBook.key()) or NO_BOOK
    turns = Turns()
    found: list[tuple[int, Order]] = []
    for page in range(-(-book.standing // PAGE_ORDERS)):
        listed = find(state.lookup, BookPage, BookPage.key(page))
        for order_id in listed.order_ids if listed else ():
            record = find(state.lookup, Order, Order.key(order_id))
            if record is not None:
                found.append((order_id, record))
            await turns.pause()
    return found


def _found(state: _State, order_id: int) -> Json:
    record = find(state.lookup, Order, Order.key(order_id))
    return None if record is None else _order(order_id, record)


def _order(order_id: int, record: Order) -> dict[str, Json]:
    sources: list[Json] = [
        {"source": SOURCES[source], **energy_price("limit", price)} for source, price in record.sources
    ]
    partners: list[Json] = [
        {"partner": hex_of(partner), **energy_price("limit", price)} for partner, price in record.partners
    ]
    return {
        "orderId": order_id,
        "side": "bid" if record.is_bid else "ask",
        "owner": hex_of(record.owner),
        "platform": None if record.placer == record.owner else hex_of(record.placer),
        **energy("energy", record.energy_wh),
        **energy_price("limit", record.limit_wei_per_wh),
        "sources": sources,
        "partners": partners,
        "expiryAuction": str(record.expiry_auction),
    }


def _auction(record: Auction) -> dict[str, Json]:
    return {
        "auction": record.number,
        "clearedIn": record.height,
        **energy_price("price", record.price_wei_per_wh),
        **energy("energy", record.energy_wh),
        "bids": record.bids,
        "asks": record.asks,
    }


def _trade(trade: _Trade) -> dict[str, Json]:
    return {
        "buyer": hex_of(trade.buyer),
        "seller": hex_of(trade.seller),
        **energy("energy", trade.energy_wh),
        **energy_price("price", trade.price_wei_per_wh),
    }


def _share(account: Address, trades: Sequence[_Trade], grid_fee: Wei) -> dict[str, Json]:
    """What an account's trades come to for it."""
    bought = [trade for trade in trades if trade.buyer == account]
    sold = [trade for trade in trades if trade.seller == account]
    bought_wh = sum(trade.energy_wh for trade in bought)
    return {
        **energy("bought", bought_wh),
        **money("paid", sum(trade.energy_wh * trade.price_wei_per_wh for trade in bought)),
        **money("gridFee", bought_wh * grid_fee),
        **energy("sold", sum(trade.energy_wh for trade in sold)),
        **money("earned", sum(trade.energy_wh * trade.price_wei_per_wh for trade in sold)),
    }
