"""Approval by signature, with eth-account as the wallet that signs."""

from typing import Any

import pytest
from eth_account import Account as Wallet
from eth_account.messages import encode_typed_data

from ctt_state.crypto import SECP256K1_N, keccak
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import (
    ApprovalSet,
    ERC721NonexistentToken,
    InvalidPermitSignature,
    InvalidPermitSigner,
    PermitExpired,
)
from ctt_state.units import UINT256_MAX, ZERO_ADDRESS, Address
from tests.world import BOB, CAROL, CHAIN_ID, MALLORY, START_MS, World

PERMIT = "permit(address,uint256,uint256,bytes)"
TRANSFER = "transferFrom(address,address,uint256)"
NOW_S = START_MS // 1_000

OWNER_WALLET = Wallet.from_key(keccak(b"owner"))
OTHER_WALLET = Wallet.from_key(keccak(b"other"))
OWNER = Address(bytes.fromhex(OWNER_WALLET.address[2:]))
OTHER = Address(bytes.fromhex(OTHER_WALLET.address[2:]))


def make_world() -> World:
    """The wallet's account owns tokens 1 and 2."""
    world = World()
    world.give_tokens(OWNER, 2)
    return world


def typed_data(**changes: Any) -> dict[str, Any]:
    """What a wallet is asked to sign; `changes` replace entries of message or domain."""
    message = {"spender": "0x" + BOB.hex(), "tokenId": 1, "nonce": 0, "deadline": NOW_S}
    domain = {
        "name": "Sun",
        "version": "1",
        "chainId": CHAIN_ID,
        "verifyingContract": "0x" + CTT.address.hex(),
    }
    return {
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
        "message": {key: changes.get(key, value) for key, value in message.items()},
        "domain": {key: changes.get(key, value) for key, value in domain.items()},
    }


def signature(wallet: Any = OWNER_WALLET, **changes: Any) -> bytes:
    """65 bytes: r, s, v."""
    return bytes(wallet.sign_typed_data(full_message=typed_data(**changes)).signature)


def compact(sig: bytes) -> bytes:
    """The same in EIP-2098's 64 bytes."""
    s = int.from_bytes(sig[32:64], "big") | (sig[64] - 27) << 255
    return sig[:32] + s.to_bytes(32, "big")


def test_a_wallets_permit_approves_whoever_sends_it() -> None:
    """ERC-4494."""
    world = make_world()

    outcome = world.send(MALLORY, PERMIT, BOB, 1, NOW_S, signature())

    assert outcome.emissions == [ApprovalSet(OWNER, BOB, 1)]
    assert world.call("getApproved(uint256)", 1) == BOB
    world.done(BOB, TRANSFER, OWNER, BOB, 1)


@pytest.mark.parametrize("deadline", range(NOW_S, NOW_S + 8))
def test_both_lengths_and_both_ways_to_write_v_are_accepted(deadline: int) -> None:
    """Eight deadlines, so that both parities occur."""
    world = make_world()
    sig = signature(deadline=deadline)

    for form in (sig, compact(sig), sig[:64] + bytes((sig[64] - 27,))):
        world.done(MALLORY, PERMIT, BOB, 1, deadline, form)


def test_an_operator_may_sign_and_an_approved_account_may_not() -> None:
    """As with `approve`."""
    world = make_world()
    world.done(OWNER, "approve(address,uint256)", OTHER, 1)
    sig = signature(OTHER_WALLET)

    assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, sig) == InvalidPermitSigner(OTHER, OWNER)
    world.done(OWNER, "setApprovalForAll(address,bool)", OTHER, True)
    world.done(BOB, PERMIT, BOB, 1, NOW_S, sig)


def test_permits_are_refused_in_a_fixed_order() -> None:
    """Deadline, existence, signature, signer: each masks those behind it."""
    world = make_world()
    foreign = signature(OTHER_WALLET)

    assert world.refusal(BOB, PERMIT, BOB, 9, NOW_S - 1, b"") == PermitExpired(NOW_S - 1, NOW_S)
    assert world.refusal(BOB, PERMIT, BOB, 9, NOW_S, b"") == ERC721NonexistentToken(9)
    assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, b"") == InvalidPermitSignature()
    assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, foreign) == InvalidPermitSigner(OTHER, OWNER)


def test_a_permit_holds_through_the_second_of_its_deadline() -> None:
    """The block's time is rounded down to seconds."""
    world = make_world()  # at .999 of a second

    world.done(BOB, PERMIT, BOB, 1, NOW_S, signature())
    world.pass_ms(1)
    assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, signature()) == PermitExpired(NOW_S, NOW_S + 1)


def test_a_permit_may_have_no_deadline() -> None:
    world = make_world()

    world.done(BOB, PERMIT, BOB, 1, UINT256_MAX, signature(deadline=UINT256_MAX))


@pytest.mark.parametrize(
    "changes",
    [
        {"spender": "0x" + CAROL.hex()},
        {"tokenId": 2},
        {"nonce": 1},
        {"deadline": NOW_S + 1},
        {"name": "Moon"},
        {"version": "2"},
        {"chainId": CHAIN_ID + 1},
        {"verifyingContract": "0x" + CAROL.hex()},
    ],
)
def test_a_permit_for_anything_else_is_refused(changes: dict[str, Any]) -> None:
    """Every entry of message and domain is signed: the signature then belongs to some other address."""
    world = make_world()

    refusal = world.refusal(MALLORY, PERMIT, BOB, 1, NOW_S, signature(**changes))

    assert refusal.reason.startswith(("InvalidPermitSigner(", "InvalidPermitSignature("))
    assert world.call("getApproved(uint256)", 1) == ZERO_ADDRESS


def test_malformed_signatures_are_refused() -> None:
    """Another length, an odd v, a high s, numbers out of range."""
    world = make_world()
    sig = signature()
    high_s = (SECP256K1_N - int.from_bytes(sig[32:64], "big")).to_bytes(32, "big")
    forms = [sig[:n] for n in (0, 1, 32, 63)] + [
        sig + b"\0",
        bytes(64),
        bytes(65),
        b"\xff" * 64,
        b"\xff" * 65,
    ]
    forms += [sig[:64] + bytes((v,)) for v in (2, 26, 29, 255)]
    forms += [sig[:32] + high_s + bytes((55 - sig[64],))]

    for form in forms:
        assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, form) == InvalidPermitSignature(), form.hex()


def test_a_transfer_ends_every_permit() -> None:
    """The nonce rises, even when the token comes back."""
    world = make_world()
    sig = signature()
    world.done(OWNER, TRANSFER, OWNER, OWNER, 1)

    assert world.call("nonces(uint256)", 1) == 1
    assert world.refusal(BOB, PERMIT, BOB, 1, NOW_S, sig).reason.startswith("InvalidPermitSign")
    world.done(BOB, PERMIT, BOB, 1, NOW_S, signature(nonce=1))


def test_a_permit_holds_until_its_deadline_whatever_is_approved() -> None:
    """The nonce rises with transfers only (ERC-4494)."""
    world = make_world()
    world.done(BOB, PERMIT, BOB, 1, NOW_S, signature())
    world.done(OWNER, "approve(address,uint256)", ZERO_ADDRESS, 1)

    assert world.call("nonces(uint256)", 1) == 0
    world.done(BOB, PERMIT, BOB, 1, NOW_S, signature())


def test_the_domain_is_what_wallets_compute() -> None:
    """ERC-5267: name, version, chain id and contract, no salt, no extensions."""
    world = make_world()

    header = encode_typed_data(full_message=typed_data()).header
    assert world.call("DOMAIN_SEPARATOR()") == header
    expected = (b"\x0f", "Sun", "1", CHAIN_ID, CTT.address, bytes(32), ())
    assert world.call("eip712Domain()") == expected
