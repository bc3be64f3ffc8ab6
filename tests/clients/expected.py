"""What every client is to find on the development network, and what the scripts are given."""

from typing import Any, Final

from eth_account import Account
from web3 import Web3

from ctt_state.modules.ctt import CTT
from tests.clients.recorder import Recorder
from tests.ledger_world import ADMIN_KEY, ALICE_KEY, BOB_KEY, CHAIN_ID

ADMIN, ALICE, BOB = (Account.from_key(key) for key in (ADMIN_KEY, ALICE_KEY, BOB_KEY))
ZERO: Final = "0x" + "00" * 20
CTT_ADDRESS: Final = Web3.to_checksum_address(CTT.address)
PRICE_WEI: Final = 10**16  # of an empty token
DEADLINE: Final = 4_000_000_000  # of permits, in Unix seconds

# What every client lets Alice sign, so that Bob may move her first token (ERC-4494).
PERMIT: Final[dict[str, Any]] = {
    "primaryType": "Permit",
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ],
        "Permit": [
            {"name": "spender", "type": "address"},
            {"name": "tokenId", "type": "uint256"},
            {"name": "nonce", "type": "uint256"},
            {"name": "deadline", "type": "uint256"},
        ],
    },
    "domain": {
        "name": "Crypto-Trading Token",
        "version": "1",
        "chainId": CHAIN_ID,
        "verifyingContract": CTT_ADDRESS,
    },
    "message": {"spender": BOB.address, "tokenId": 1, "nonce": 0, "deadline": DEADLINE},
}


def task(recorder: Recorder) -> dict[str, Any]:
    """What a script is to do it with."""
    return {
        "url": recorder.url,
        "socketUrl": recorder.url.replace("http", "ws"),
        "chainId": CHAIN_ID,
        "adminKey": "0x" + ADMIN_KEY.hex(),
        "aliceKey": "0x" + ALICE_KEY.hex(),
        "bobKey": "0x" + BOB_KEY.hex(),
        "deadline": DEADLINE,
    }


def permit_signature() -> bytes:
    """Of the permit that every client signs, by eth-account: 65 bytes."""
    return bytes(ALICE.sign_typed_data(full_message=PERMIT).signature)


def compact(signature: bytes) -> bytes:
    """The same in EIP-2098's 64 bytes."""
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + s.to_bytes(32, "big")
