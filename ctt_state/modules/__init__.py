"""The native modules, by the address at which each answers."""

from typing import Final

from ctt_state.abi import Module
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.modules.treasury import TREASURY
from ctt_state.units import Address

MODULES: Final[dict[Address, Module]] = {
    module.address: module for module in (CTT, MARKET, TREASURY, AUTHORITY)
}
