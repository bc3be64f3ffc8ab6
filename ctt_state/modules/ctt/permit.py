"""Approval by signature (ERC-4494), so that someone else may send it and pay for it.

The signed data is EIP-712: the domain is the token's name, version "1", the chain id and this module's address. A
token's nonce rises with every transfer and with nothing else. So a permit holds until its deadline or the token's
next transfer; `approve` does not take it back.
"""

from typing import Final

from ctt_state.abi import encode_values, parse_params
from ctt_state.crypto import InvalidSignature, keccak, recover
from ctt_state.modules.call import Call
from ctt_state.modules.ctt.erc721 import may_approve, set_approved
from ctt_state.modules.ctt.module import (
    CTT,
    InvalidPermitSignature,
    InvalidPermitSigner,
    PermitExpired,
    config_of,
    token_of,
)
from ctt_state.units import MS_PER_SECOND, ZERO_HASH, Address, Hash, TokenId

VERSION: Final = "1"
FIELDS_USED: Final = b"\x0f"  # ERC-5267: name, version, chain id and contract; no salt

_DOMAIN_TYPE: Final = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_DOMAIN_WORDS: Final = parse_params("bytes32,bytes32,bytes32,uint256,address")
_PERMIT_TYPE: Final = keccak(b"Permit(address spender,uint256 tokenId,uint256 nonce,uint256 deadline)")
_PERMIT_WORDS: Final = parse_params("bytes32,address,uint256,uint256,uint256")

_LOW_255_BITS: Final = 2**255 - 1


@CTT.function("permit(address spender,uint256 tokenId,uint256 deadline,bytes sig)")
def permit(call: Call, spender: Address, token_id: TokenId, deadline: int, sig: bytes) -> None:
    """Approves `spender` for the token, as the signer could by `approve`: the owner or one of its operators.
    `deadline` is in seconds and still holds at that block time. `sig` is r, s, v (65 bytes) or EIP-2098's 64 bytes.

    Raises: PermitExpired, ERC721NonexistentToken, InvalidPermitSignature, InvalidPermitSigner, in that order.
    """
    block_time_s = call.block.time_ms // MS_PER_SECOND  # rounded down, as JSON-RPC shows it
    if deadline < block_time_s:
        raise PermitExpired(deadline, block_time_s)
    token = token_of(call, token_id)
    values = (_PERMIT_TYPE, spender, token_id, token.permit_nonce, deadline)
    content = keccak(encode_values(_PERMIT_WORDS, values))
    signer = _recover(keccak(b"\x19\x01" + domain_separator(call) + content), sig)
    if not may_approve(call, token, signer):
        raise InvalidPermitSigner(signer, token.owner)
    set_approved(call, token_id, token, spender)


@CTT.function("nonces(uint256 tokenId) view returns (uint256)")
def nonces(call: Call, token_id: TokenId) -> int:
    """How often the token was transferred, its sales included. Raises: ERC721NonexistentToken."""
    return token_of(call, token_id).permit_nonce


@CTT.function("DOMAIN_SEPARATOR() view returns (bytes32)")
def domain_separator(call: Call) -> Hash:
    """EIP-712's hash of the domain."""
    name, version = keccak(config_of(call).name.encode()), keccak(VERSION.encode())
    values = (_DOMAIN_TYPE, name, version, call.chain.chain_id, call.to)
    return keccak(encode_values(_DOMAIN_WORDS, values))


@CTT.function(
    "eip712Domain() view returns (bytes1 fields,string name,string version,uint256 chainId,"
    "address verifyingContract,bytes32 salt,uint256[] extensions)"
)
def eip712_domain(call: Call) -> tuple[bytes, str, str, int, Address, Hash, tuple[int, ...]]:
    """What a wallet needs to build the domain (ERC-5267)."""
    return FIELDS_USED, config_of(call).name, VERSION, call.chain.chain_id, call.to, ZERO_HASH, ()


def _recover(digest: Hash, sig: bytes) -> Address:
    """Raises: InvalidPermitSignature for another length, a v that is none of 27, 28, 0 and 1, a high s, or numbers
    that no key signs with."""
    r, s = int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:64], "big")
    if len(sig) == 64:
        parity, s = s >> 255, s & _LOW_255_BITS
    elif len(sig) == 65:
        parity = sig[64] - 27 if sig[64] >= 27 else sig[64]
    else:
        raise InvalidPermitSignature()
    try:
        return recover(digest, r, s, parity)
    except InvalidSignature:
        raise InvalidPermitSignature() from None
