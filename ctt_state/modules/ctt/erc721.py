"""Tokens as ERC-721 with Metadata and Enumerable, ERC-165 and ERC-4906; refusals and their order are OpenZeppelin 5's.

One difference from a Solidity contract: no address holds code but the modules, so only they refuse a safe transfer.
An ordinary transfer to a module succeeds and loses the token.
"""

from typing import Final

from ctt_state.modules.call import Call
from ctt_state.modules.ctt.module import (
    CTT,
    MODULE_ADDRESSES,
    ApprovalForAll,
    ApprovalSet,
    EnergyTransferred,
    ERC721IncorrectOwner,
    ERC721InsufficientApproval,
    ERC721InvalidApprover,
    ERC721InvalidOperator,
    ERC721InvalidOwner,
    ERC721InvalidReceiver,
    ERC721OutOfBoundsIndex,
    InvalidAmount,
    SaleCancelled,
    Transfer,
    config_of,
    prosumer_of,
    supply_of,
    token_of,
)
from ctt_state.modules.ctt.picture import token_uri
from ctt_state.modules.ctt.shelf import add, refresh, remove, token_at
from ctt_state.records import Approval, Prosumer, Token
from ctt_state.units import ZERO_ADDRESS, Address, TokenId

TOKENS_PER_VIEW_MAX: Final = 1_000  # ids in one answer of tokensOf

INTERFACES: Final = frozenset(
    bytes.fromhex(interface)
    for interface in (
        "01ffc9a7",  # ERC-165
        "80ac58cd",  # ERC-721
        "5b5e139f",  # ERC-721 Metadata
        "780e9d63",  # ERC-721 Enumerable
        "49064906",  # ERC-4906 MetadataUpdate
        "5604e225",  # ERC-4494 permit
        "84b0196e",  # ERC-5267 eip712Domain
    )
)


@CTT.function("supportsInterface(bytes4 interfaceId) view returns (bool)")
def supports_interface(call: Call, interface_id: bytes) -> bool:
    """Reads no record, so that it stays below ERC-165's 30,000 gas."""
    return interface_id in INTERFACES


@CTT.function("name() view returns (string)")
def name(call: Call) -> str:
    return config_of(call).name


@CTT.function("symbol() view returns (string)")
def symbol(call: Call) -> str:
    return config_of(call).symbol


@CTT.function("tokenURI(uint256 tokenId) view returns (string)")
def token_uri_of(call: Call, token_id: TokenId) -> str:
    """The token's metadata and picture as a data URI. Raises: ERC721NonexistentToken."""
    token = token_of(call, token_id)
    return token_uri(config_of(call), token_id, token)


@CTT.function("balanceOf(address owner) view returns (uint256)")
def balance_of(call: Call, owner: Address) -> int:
    """How many tokens the owner has. Raises: ERC721InvalidOwner for the zero address."""
    if owner == ZERO_ADDRESS:
        raise ERC721InvalidOwner(owner)
    return prosumer_of(call, owner).tokens


@CTT.function("ownerOf(uint256 tokenId) view returns (address)")
def owner_of(call: Call, token_id: TokenId) -> Address:
    return token_of(call, token_id).owner


@CTT.function("totalSupply() view returns (uint256)")
def total_supply(call: Call) -> int:
    return supply_of(call).last_token_id


@CTT.function("tokenByIndex(uint256 index) view returns (uint256)")
def token_by_index(call: Call, index: int) -> int:
    """The tokens in the order they were minted. Raises: ERC721OutOfBoundsIndex with the zero address."""
    if index >= supply_of(call).last_token_id:
        raise ERC721OutOfBoundsIndex(ZERO_ADDRESS, index)
    return index + 1


@CTT.function("tokenOfOwnerByIndex(address owner,uint256 index) view returns (uint256)")
def token_of_owner_by_index(call: Call, owner: Address, index: int) -> int:
    """The owner's tokens in the order of its shelf, which charging and transfers change.

    Raises: ERC721OutOfBoundsIndex, for the zero address too.
    """
    if index >= prosumer_of(call, owner).tokens:
        raise ERC721OutOfBoundsIndex(owner, index)
    return token_at(call, owner, index)


@CTT.function("tokensOf(address owner,uint256 offset,uint256 limit) view returns (uint256[] tokenIds)")
def tokens_of(call: Call, owner: Address, offset: int, limit: int) -> list[TokenId]:
    """Up to `limit` of the owner's tokens from `offset` on, in the order of its shelf; none behind its end.

    Raises: InvalidAmount for a limit above 1,000.
    """
    if limit > TOKENS_PER_VIEW_MAX:
        raise InvalidAmount(limit, 0, TOKENS_PER_VIEW_MAX)
    end = min(offset + limit, prosumer_of(call, owner).tokens)
    return [token_at(call, owner, slot) for slot in range(offset, end)]


@CTT.function(
    "tokens(uint256 tokenId) view returns (address owner,uint256 energy,bool onSale,uint256 tokenPrice,"
    "uint256 energyPrice,uint256 sellingPrice,address approved,uint256 nonce,uint256 index)"
)
def tokens(call: Call, token_id: TokenId) -> tuple[Address | int, ...]:
    """All of a token: energy in Wh, prices in wei and wei per Wh as last set, its permit nonce and its place in
    `tokenOfOwnerByIndex`. Raises: ERC721NonexistentToken."""
    token = token_of(call, token_id)
    prices = (token.token_price_wei, token.energy_price_wei_per_wh, token.selling_price_wei)
    state = (token.owner, token.energy_wh, token.on_sale)
    return (*state, *prices, token.approved, token.permit_nonce, token.slot)


@CTT.function("approve(address to,uint256 tokenId)")
def approve(call: Call, to: Address, token_id: TokenId) -> None:
    """Lets `to` move this token; the zero address takes that back. Only the owner and its operators may.

    Raises: ERC721NonexistentToken, ERC721InvalidApprover, in that order.
    """
    token = token_of(call, token_id)
    if not may_approve(call, token, call.sender):
        raise ERC721InvalidApprover(call.sender)
    set_approved(call, token_id, token, to)


@CTT.function("getApproved(uint256 tokenId) view returns (address)")
def get_approved(call: Call, token_id: TokenId) -> Address:
    return token_of(call, token_id).approved


@CTT.function("setApprovalForAll(address operator,bool approved)")
def set_approval_for_all(call: Call, operator: Address, approved: bool) -> None:
    """Lets the operator move and approve all of the sender's tokens, now and later.

    Raises: ERC721InvalidOperator for the zero address.
    """
    if operator == ZERO_ADDRESS:
        raise ERC721InvalidOperator(operator)
    key = Approval.key(call.sender, operator)
    if (call.get(Approval, key) is not None) != approved:
        call.put(key, Approval() if approved else None)
    call.emit(ApprovalForAll(call.sender, operator, approved))


@CTT.function("isApprovedForAll(address owner,address operator) view returns (bool)")
def is_approved_for_all(call: Call, owner: Address, operator: Address) -> bool:
    return call.get(Approval, Approval.key(owner, operator)) is not None


@CTT.function("transferFrom(address from,address to,uint256 tokenId)")
def transfer_from(call: Call, source: Address, to: Address, token_id: TokenId) -> None:
    """Moves the token with its energy, which `EnergyTransferred` tells unless it stays with its owner; a sale ends with
    `SaleCancelled`.

    Raises: ERC721InvalidReceiver for the zero address, ERC721NonexistentToken, ERC721InsufficientApproval,
    ERC721IncorrectOwner, in that order.
    """
    if to == ZERO_ADDRESS:
        raise ERC721InvalidReceiver(to)
    token = token_of(call, token_id)
    check_authorised(call, token_id, token)
    if token.owner != source:
        raise ERC721IncorrectOwner(source, token_id, token.owner)
    if token.on_sale:
        call.emit(SaleCancelled(token_id, token.owner))
    move_token(call, token_id, token, to)
    if token.energy_wh and to != source:
        call.emit(EnergyTransferred(source, to, token_id, token.energy_wh))


@CTT.function("safeTransferFrom(address from,address to,uint256 tokenId)")
@CTT.function("safeTransferFrom(address from,address to,uint256 tokenId,bytes data)")
def safe_transfer_from(
    call: Call, source: Address, to: Address, token_id: TokenId, data: bytes = b""
) -> None:
    """`transferFrom`, but never to a module, which could not give the token back.

    Raises: as `transferFrom`, then ERC721InvalidReceiver for a module.
    """
    transfer_from(call, source, to, token_id)
    if to in MODULE_ADDRESSES:
        raise ERC721InvalidReceiver(to)


def may_approve(call: Call, token: Token, address: Address) -> bool:
    """Whether the address is the token's owner or one of the owner's operators; the zero address is neither."""
    return address == token.owner or is_approved_for_all(call, token.owner, address)


def check_authorised(call: Call, token_id: TokenId, token: Token) -> None:
    """Raises: ERC721InsufficientApproval unless the sender is owner, approved or operator."""
    # A call without a sender comes from the zero address, which also stands for "nobody is approved".
    is_approved = call.sender == token.approved != ZERO_ADDRESS
    if not (is_approved or may_approve(call, token, call.sender)):
        raise ERC721InsufficientApproval(call.sender, token_id)


def set_approved(call: Call, token_id: TokenId, token: Token, to: Address) -> None:
    """The same approval again, and taking back none, are told too."""
    call.put(Token.key(token_id), token._replace(approved=to))
    call.emit(ApprovalSet(token.owner, to, token_id))


def move_token(call: Call, token_id: TokenId, token: Token, to: Address) -> None:
    """Moves the token with its energy: ends a sale, clears the approval (no event) and spends the permit nonce.
    `to` may be the owner itself. Refuses nothing but the lack of gas."""
    capability = config_of(call).capability_wh
    moved = token._replace(on_sale=False, approved=ZERO_ADDRESS, permit_nonce=token.permit_nonce + 1)
    giver = refresh(prosumer_of(call, token.owner), capability)
    call.put(Prosumer.key(token.owner), remove(call, token.owner, giver, token))
    # Only now: when the owner moves a token to itself, it has just changed.
    taker = refresh(prosumer_of(call, to), capability)
    call.put(Prosumer.key(to), add(call, to, taker, token_id, moved))
    call.emit(Transfer(token.owner, to, token_id))
