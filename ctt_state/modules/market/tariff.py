"""What the operator's tariff makes of the market: no price below what it pays for energy fed in or above what it asks
at retail, and the fee for the grid, which the buyer pays on top."""

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import MODULE_ADDRESSES, config_of
from ctt_state.modules.market.module import (
    MARKET,
    InvalidAmount,
    InvalidGridOperator,
    NotAdmin,
    TariffSet,
    rules_of,
    tariff_of,
)
from ctt_state.records import MarketTariff
from ctt_state.units import PRICE_MAX, ZERO_ADDRESS, Address, Wei


@MARKET.function("setTariff(uint256 floor,uint256 ceiling,uint256 gridFee,address gridOperator)")
def set_tariff(call: Call, floor: Wei, ceiling: Wei, grid_fee: Wei, grid_operator: Address) -> None:
    """From the next clearing on; all prices in wei per Wh.

    Raises: NoMarket, NotCreated of the CTT, NotAdmin, InvalidAmount for ceiling, floor (at most the ceiling) and fee,
    InvalidGridOperator (nobody, or a module), in that order.
    """
    rules_of(call)
    if config_of(call).admin != call.sender:
        raise NotAdmin(call.sender)
    for price, most in ((ceiling, PRICE_MAX), (floor, ceiling), (grid_fee, PRICE_MAX)):
        if price > most:
            raise InvalidAmount(price, 0, most)
    if grid_operator == ZERO_ADDRESS or grid_operator in MODULE_ADDRESSES:
        raise InvalidGridOperator(grid_operator)
    call.put(MarketTariff.key(), MarketTariff(floor, ceiling, grid_fee, grid_operator))
    call.emit(TariffSet(floor, ceiling, grid_fee, grid_operator))


@MARKET.function("tariff() view returns (uint256 floor,uint256 ceiling,uint256 gridFee,address gridOperator)")
def tariff(call: Call) -> MarketTariff:
    """What the next clearing goes by."""
    return tariff_of(call)
