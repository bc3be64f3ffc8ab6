"""The market module's address, events and errors, and what its rules read first."""

from typing import Final

from ctt_state.abi import Module
from ctt_state.modules.call import Call, MarketRules
from ctt_state.records import MarketBook, MarketTariff, Order, Standing
from ctt_state.units import UINT64_MAX, Address

MARKET: Final = Module("Market", Address(bytes.fromhex("000000000000000000000000000000000000c701")))

OrderPlaced = MARKET.event(
    "OrderPlaced(uint256 indexed orderId,address indexed owner,address indexed placer,bool isBid,uint256 energy,"
    "uint256 price,uint64 expiryAuction)"
)
OrderCancelled = MARKET.event("OrderCancelled(uint256 indexed orderId,address indexed owner,uint256 energy)")
OrderExpired = MARKET.event("OrderExpired(uint256 indexed orderId,address indexed owner,uint256 energy)")
Traded = MARKET.event("Trade(address indexed buyer,address indexed seller,uint256 energy,uint256 price)")
# Between partners, at the price that the seller named; of 0, a gift.
PartnerTraded = MARKET.event(
    "PartnerTrade(address indexed buyer,address indexed seller,uint256 energy,uint256 price)"
)
# Right after the trade of which it is a part, for each source but 0.
OriginTraded = MARKET.event(
    "OriginTraded(address indexed buyer,address indexed seller,uint8 indexed source,uint256 energy)"
)
AuctionCleared = MARKET.event(
    "AuctionCleared(uint256 indexed auction,uint256 price,uint256 energy,uint256 bids,uint256 asks)"
)
TariffSet = MARKET.event(
    "TariffSet(uint256 floor,uint256 ceiling,uint256 gridFee,address indexed gridOperator)"
)
MandateGranted = MARKET.event(
    "MandateGranted(address indexed owner,address indexed platform,uint256 energy,uint256 spend,uint256 buyLimit,"
    "uint256 sellLimit,uint64 expiryAuction)"
)
MandateRevoked = MARKET.event("MandateRevoked(address indexed owner,address indexed platform)")

NotCreated = MARKET.error("NotCreated()")  # the CTT is not
NoMarket = MARKET.error("NoMarket()")
NotAdmin = MARKET.error("NotAdmin(address caller)")
NotTheChain = MARKET.error("NotTheChain(address caller)")
InvalidAmount = MARKET.error("InvalidAmount(uint256 amount,uint256 minimum,uint256 maximum)")
InvalidSource = MARKET.error("InvalidSource(uint8 source,uint8 maximum)")
InvalidPartner = MARKET.error("InvalidPartner(address partner)")
InvalidPlatform = MARKET.error("InvalidPlatform(address platform)")
InvalidGridOperator = MARKET.error("InvalidGridOperator(address gridOperator)")
InvalidLimit = MARKET.error("InvalidLimit(uint256 limit,uint256 maximum)")
TooManyWishes = MARKET.error("TooManyWishes(uint256 wishes,uint256 maximum)")
AuctionOver = MARKET.error("AuctionOver(uint256 auction,uint256 current)")
UnknownAuction = MARKET.error("UnknownAuction(uint256 auction,uint256 oldest,uint256 newest)")
NoTokens = MARKET.error("NoTokens(address owner)")
CrossesOwnOrder = MARKET.error("CrossesOwnOrder(uint256 orderId)")
BookFull = MARKET.error("BookFull(uint256 limit)")
UnknownOrder = MARKET.error("UnknownOrder(uint256 orderId)")
NotOwner = MARKET.error("NotOwner(uint256 orderId,address owner,address caller)")
NotPlacer = MARKET.error("NotPlacer(uint256 orderId,address placer,address caller)")
NoMandate = MARKET.error("NoMandate(address owner,address platform)")
OutsideMandate = MARKET.error("OutsideMandate(uint256 asked,uint256 limit)")

NO_TARIFF: Final = MarketTariff()
NO_BOOK: Final = MarketBook()
NO_STANDING: Final = Standing()


def auction_at(height: int, auction_blocks: int) -> int:
    """The auction that takes what this block says; the first is 1. The block after its last one clears it."""
    return (height - 1) // auction_blocks + 1


def rules_of(call: Call) -> MarketRules:
    """Raises: NoMarket."""
    if call.chain.market is None:
        raise NoMarket()
    return call.chain.market


def auction_now(call: Call) -> int:
    """Raises: NoMarket."""
    return auction_at(call.block.height, rules_of(call).auction_blocks)


def tariff_of(call: Call) -> MarketTariff:
    return call.get(MarketTariff, MarketTariff.key()) or NO_TARIFF


def book_of(call: Call) -> MarketBook:
    return call.get(MarketBook, MarketBook.key()) or NO_BOOK


def standing_of(call: Call, owner: Address) -> Standing:
    return call.get(Standing, Standing.key(owner)) or NO_STANDING


def order_of(call: Call, order_id: int) -> Order:
    """Raises: UnknownOrder for one that does not stand, or not any more."""
    order = call.get(Order, Order.key(order_id)) if order_id <= UINT64_MAX else None
    if order is None:
        raise UnknownOrder(order_id)
    return order
