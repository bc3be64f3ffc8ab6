"""Who governs the CTT, how many tokens there may be, and what one holds (user stories CRC, USA, STS, STC, ASM).

The maximum supply times the highest capability ever set fits 64 bits, so no sum of energy over tokens can pass them.
"""

from typing import Final

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import (
    CTT,
    AdminUpdated,
    AlreadyCreated,
    BatchMetadataUpdate,
    CTTCreated,
    EmptyTokenPriceSet,
    InvalidAmount,
    InvalidName,
    InvalidOperator,
    MaxSupplyBelowMinted,
    MaxTokenSupplySet,
    NotAdmin,
    NotNextAdmin,
    OperatorSet,
    TokenCapabilitySet,
    config_of,
    supply_of,
)
from ctt_state.records import ROLE_OPERATOR, CttConfig, Role
from ctt_state.units import PRICE_MAX, UINT64_MAX, ZERO_ADDRESS, Address, Wei, Wh

NAME_BYTES_MAX: Final = 64  # of a name or symbol in UTF-8


@CTT.function("createCTT(string name,string symbol,uint256 maxSupply,uint256 capability)")
def create_ctt(call: Call, name: str, symbol: str, max_supply: int, capability: Wh) -> None:
    """Creates the CTT, once, when genesis has not. The caller becomes its admin; empty tokens cost 0 wei until
    `setEmptyTokenPrice`. `capability` is in Wh, above 0.

    Raises: AlreadyCreated, NotAdmin, InvalidName for the name, then for the symbol, InvalidAmount for the
    capability, then for the supply, in that order.
    """
    if call.get(CttConfig, CttConfig.key()) is not None:
        raise AlreadyCreated()
    if call.sender != call.chain.first_admin:
        raise NotAdmin(call.sender)
    for text in (name, symbol):
        if not 1 <= len(text.encode()) <= NAME_BYTES_MAX:
            raise InvalidName(text, NAME_BYTES_MAX)
    _check_amount(capability, 1, UINT64_MAX)
    _check_amount(max_supply, 0, UINT64_MAX // capability)
    config = CttConfig(name, symbol, call.sender, ZERO_ADDRESS, max_supply, capability, capability, Wei(0))
    call.put(CttConfig.key(), config)
    call.emit(CTTCreated(call.sender, name, symbol, max_supply, capability))


@CTT.function("admin() view returns (address)")
def admin(call: Call) -> Address:
    return config_of(call).admin


@CTT.function("nextAdmin() view returns (address)")
def next_admin(call: Call) -> Address:
    """Whom `updateAdmin` has named and who has not accepted yet; zero when nobody."""
    return config_of(call).next_admin


@CTT.function("updateAdmin(address newAdmin)")
def update_admin(call: Call, new_admin: Address) -> None:
    """Names who may accept the role; the zero address withdraws the name. Until then the admin stays.

    Raises: NotCreated, NotAdmin, in that order.
    """
    config = _config_for_admin(call)
    call.put(CttConfig.key(), config._replace(next_admin=new_admin))


@CTT.function("acceptAdmin()")
def accept_admin(call: Call) -> None:
    """The named one takes the role, so it never goes to an address nobody holds the key of.

    Raises: NotCreated, NotNextAdmin, in that order.
    """
    config = config_of(call)
    # A call without a sender comes from the zero address, which also stands for "nobody is named".
    if call.sender != config.next_admin or call.sender == ZERO_ADDRESS:
        raise NotNextAdmin(call.sender)
    call.put(CttConfig.key(), config._replace(admin=call.sender, next_admin=ZERO_ADDRESS))
    call.emit(AdminUpdated(config.admin, call.sender))


@CTT.function("setMaxTokenSupply(uint256 maxSupply)")
def set_max_token_supply(call: Call, max_supply: int) -> None:
    """How many tokens there may ever be (MET).

    Raises: NotCreated, NotAdmin, MaxSupplyBelowMinted, InvalidAmount, in that order.
    """
    config = _config_for_admin(call)
    minted = supply_of(call).last_token_id
    if max_supply < minted:
        raise MaxSupplyBelowMinted(max_supply, minted)
    _check_amount(max_supply, minted, UINT64_MAX // config.highest_capability_wh)
    call.put(CttConfig.key(), config._replace(max_supply=max_supply))
    call.emit(MaxTokenSupplySet(max_supply))


@CTT.function("setTokenCapability(uint256 capability)")
def set_token_capability(call: Call, capability: Wh) -> None:
    """What one token holds (CET), in Wh, above 0. A token above a lowered capability keeps its energy and takes no
    more. Every picture shows its charge against the capability, hence the BatchMetadataUpdate.

    Raises: NotCreated, NotAdmin, InvalidAmount, in that order.
    """
    config = _config_for_admin(call)
    _check_amount(capability, 1, UINT64_MAX // max(config.max_supply, 1))
    highest = max(config.highest_capability_wh, capability)
    call.put(CttConfig.key(), config._replace(capability_wh=capability, highest_capability_wh=highest))
    call.emit(TokenCapabilitySet(capability))
    minted = supply_of(call).last_token_id
    if minted:
        call.emit(BatchMetadataUpdate(1, minted))


@CTT.function("setEmptyTokenPrice(uint256 price)")
def set_empty_token_price(call: Call, price: Wei) -> None:
    """What a new empty token costs, in wei. Raises: NotCreated, NotAdmin, InvalidAmount, in that order."""
    config = _config_for_admin(call)
    _check_amount(price, 0, PRICE_MAX)
    call.put(CttConfig.key(), config._replace(empty_price_wei=price))
    call.emit(EmptyTokenPriceSet(price))


@CTT.function("setOperator(address operator,bool allowed)")
def set_operator(call: Call, operator: Address, allowed: bool) -> None:
    """Who may certify and revoke meters. Raises: NotCreated, NotAdmin, InvalidOperator, in that order."""
    _config_for_admin(call)
    if operator == ZERO_ADDRESS:
        raise InvalidOperator(operator)
    key = Role.key(ROLE_OPERATOR, operator)
    if (call.get(Role, key) is not None) != allowed:
        call.put(key, Role() if allowed else None)
    call.emit(OperatorSet(operator, allowed))


@CTT.function("isOperator(address operator) view returns (bool)")
def is_operator(call: Call, operator: Address) -> bool:
    return call.get(Role, Role.key(ROLE_OPERATOR, operator)) is not None


@CTT.function("maxTokenSupply() view returns (uint256)")
def max_token_supply(call: Call) -> int:
    return config_of(call).max_supply


@CTT.function("tokenCapability() view returns (uint256)")
def token_capability(call: Call) -> Wh:
    return config_of(call).capability_wh


@CTT.function("emptyTokenPrice() view returns (uint256)")
def empty_token_price(call: Call) -> Wei:
    return config_of(call).empty_price_wei


@CTT.function("lastTokenId() view returns (uint256)")
def last_token_id(call: Call) -> int:
    """The id minted last; ids count from 1, so it is also the number of tokens."""
    return supply_of(call).last_token_id


@CTT.function("totalEnergy() view returns (uint256)")
def total_energy(call: Call) -> Wh:
    """The Wh in all tokens."""
    return supply_of(call).energy_wh


@CTT.function("totalEnergySupply() view returns (uint256)")
def total_energy_supply(call: Call) -> Wh:
    """The Wh that all tokens could hold (TES): maximum supply x capability."""
    config = config_of(call)
    return Wh(config.max_supply * config.capability_wh)


def _config_for_admin(call: Call) -> CttConfig:
    config = config_of(call)
    if call.sender != config.admin:
        raise NotAdmin(call.sender)
    return config


def _check_amount(amount: int, minimum: int, maximum: int) -> None:
    if not minimum <= amount <= maximum:
        raise InvalidAmount(amount, minimum, maximum)
