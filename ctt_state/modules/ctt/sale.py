"""Buying empty tokens from the admin, and tokens with their energy from each other (user stories BT and ST).

A token on sale is neither charged nor drained, so the price a buyer sees is the price that is paid.
"""

from typing import Final

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.erc721 import check_authorised, move_token
from ctt_state.modules.ctt.module import (
    CTT,
    AlreadyOwner,
    EnergyBelowMinimum,
    ERC721InvalidReceiver,
    InsufficientPayment,
    InvalidAmount,
    NotOnSale,
    SaleCancelled,
    SupplyExhausted,
    TokenOnSale,
    TokenSold,
    Transfer,
    config_of,
    prosumer_of,
    supply_of,
    token_of,
)
from ctt_state.modules.ctt.shelf import add, refresh, remove
from ctt_state.records import CttSupply, Prosumer, Token
from ctt_state.units import PRICE_MAX, ZERO_ADDRESS, Address, TokenId, Wei, Wh

NO_ENERGY: Final = Wh(0)


@CTT.function("buyEmptyToken() payable returns (uint256 tokenId)")
def buy_empty_token(call: Call) -> int:
    """`buyEmptyTokens` for one token. Returns its id."""
    return buy_empty_tokens(call, 1)


@CTT.function("buyEmptyTokens(uint256 count) payable returns (uint256 firstTokenId)")
def buy_empty_tokens(call: Call, count: int) -> int:
    """Mints empty tokens to the sender; price x count goes to the admin, what was sent above it returns. Gives the
    first id; the others follow it.

    Raises: NotCreated, ERC721InvalidReceiver for a call without a sender, InvalidAmount for a count of 0,
    SupplyExhausted, InsufficientPayment, in that order.
    """
    config, supply = config_of(call), supply_of(call)
    _check_buyer(call)
    if count == 0:
        raise InvalidAmount(count, 1, config.max_supply)
    if count > config.max_supply - supply.last_token_id:
        raise SupplyExhausted(config.max_supply, supply.last_token_id, count)
    price = Wei(config.empty_price_wei * count)
    _check_payment(call, price)

    _mint(call, supply, count)
    _pay(call, config.admin, price)
    return supply.last_token_id + 1


@CTT.function("setOnSale(uint256 tokenId)")
def set_on_sale(call: Call, token_id: TokenId) -> None:
    """Offers the token at the prices last set for it, by an earlier owner too; 0 wei if none ever were.

    Raises: ERC721NonexistentToken, ERC721InsufficientApproval, in that order.
    """
    token = token_of(call, token_id)
    set_on_sale_at(call, token_id, token.token_price_wei, token.energy_price_wei_per_wh)


@CTT.function("setOnSale(uint256 tokenId,uint256 tokenPrice,uint256 energyPrice)")
def set_on_sale_at(call: Call, token_id: TokenId, token_price: Wei, energy_price: Wei) -> None:
    """Offers the token for `token_price` wei + its energy x `energy_price` wei per Wh. On a token that is on sale
    already it changes the prices.

    Raises: ERC721NonexistentToken, ERC721InsufficientApproval, InvalidAmount for the token price, then for the
    energy price, in that order.
    """
    token = token_of(call, token_id)
    check_authorised(call, token_id, token)
    for price in (token_price, energy_price):
        if price > PRICE_MAX:
            raise InvalidAmount(price, 0, PRICE_MAX)

    priced = token._replace(token_price_wei=token_price, energy_price_wei_per_wh=energy_price)
    if token.on_sale:
        call.put(Token.key(token_id), priced)
    else:
        _reshelve(call, token_id, priced, on_sale=True)
    call.emit(TokenOnSale(token_id, token.owner, token_price, energy_price))


@CTT.function("cancelSale(uint256 tokenId)")
def cancel_sale(call: Call, token_id: TokenId) -> None:
    """Takes the token off the market; its prices stay. It may be charged and drained again.

    Raises: ERC721NonexistentToken, ERC721InsufficientApproval, NotOnSale, in that order.
    """
    token = token_of(call, token_id)
    check_authorised(call, token_id, token)
    if not token.on_sale:
        raise NotOnSale(token_id)
    _reshelve(call, token_id, token, on_sale=False)
    call.emit(SaleCancelled(token_id, token.owner))


@CTT.function("sellingPrice(uint256 tokenId) view returns (uint256)")
def selling_price(call: Call, token_id: TokenId) -> Wei:
    """Token price + energy x energy price in wei, at the prices last set, whether on sale or not.

    Raises: ERC721NonexistentToken.
    """
    return token_of(call, token_id).selling_price_wei


@CTT.function("buyToken(uint256 tokenId) payable")
@CTT.function("buyToken(uint256 tokenId,uint256 minEnergy) payable")
def buy_token(call: Call, token_id: TokenId, min_energy: Wh = NO_ENERGY) -> None:
    """Pays the owner and moves the token, with at least `min_energy` Wh, to the sender; what was sent above the
    price returns. `minEnergy` guards against an owner who takes the token off the market, drains and offers it anew.

    Raises: ERC721InvalidReceiver for a call without a sender, ERC721NonexistentToken, NotOnSale, AlreadyOwner,
    EnergyBelowMinimum, InsufficientPayment, in that order.
    """
    _check_buyer(call)
    token = token_of(call, token_id)
    if not token.on_sale:
        raise NotOnSale(token_id)
    if token.owner == call.sender:
        raise AlreadyOwner(token_id, token.owner)
    if token.energy_wh < min_energy:
        raise EnergyBelowMinimum(min_energy, token.energy_wh)
    price = token.selling_price_wei
    _check_payment(call, price)

    move_token(call, token_id, token, call.sender)
    _pay(call, token.owner, price)
    call.emit(TokenSold(token_id, token.owner, call.sender, price, token.energy_wh))


def _check_buyer(call: Call) -> None:
    if call.sender == ZERO_ADDRESS:
        raise ERC721InvalidReceiver(call.sender)


def _check_payment(call: Call, price: Wei) -> None:
    if call.value < price:
        raise InsufficientPayment(price, call.value)


def _pay(call: Call, to: Address, price: Wei) -> None:
    call.pay(to, price)
    call.pay(call.sender, Wei(call.value - price))


def _mint(call: Call, supply: CttSupply, count: int) -> None:
    """Gas bounds the work: each token writes a record."""
    buyer = call.sender
    owner = refresh(prosumer_of(call, buyer), config_of(call).capability_wh)
    for token_id in range(supply.last_token_id + 1, supply.last_token_id + count + 1):
        owner = add(call, buyer, owner, TokenId(token_id), Token(owner=buyer, slot=owner.tokens))
        call.emit(Transfer(ZERO_ADDRESS, buyer, token_id))
    call.put(Prosumer.key(buyer), owner)
    call.put(CttSupply.key(), supply._replace(last_token_id=supply.last_token_id + count))


def _reshelve(call: Call, token_id: TokenId, token: Token, *, on_sale: bool) -> None:
    """Moves the token to or from its owner's region of tokens on sale."""
    key = Prosumer.key(token.owner)
    owner = refresh(prosumer_of(call, token.owner), config_of(call).capability_wh)
    owner = remove(call, token.owner, owner, token)
    call.put(key, add(call, token.owner, owner, token_id, token._replace(on_sale=on_sale)))
