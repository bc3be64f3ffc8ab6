"""Buying empty tokens from the admin, and tokens with their energy from each other."""

import pytest

from ctt_state.modules.ctt.module import (
    AlreadyOwner,
    EnergyBelowMinimum,
    ERC721InsufficientApproval,
    ERC721InvalidReceiver,
    ERC721NonexistentToken,
    InsufficientPayment,
    InvalidAmount,
    NotOnSale,
    SaleCancelled,
    SupplyExhausted,
    TokenOnSale,
    TokenSold,
    Transfer,
)
from ctt_state.records import PAGE_TOKENS
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS
from tests.world import ADMIN, ALICE, BOB, CAROL, MALLORY, WEALTH_WEI, World, check_invariants

BUY_EMPTY = "buyEmptyToken()"
BUY_EMPTIES = "buyEmptyTokens(uint256)"
OFFER = "setOnSale(uint256,uint256,uint256)"
OFFER_AGAIN = "setOnSale(uint256)"
CANCEL = "cancelSale(uint256)"
BUY = "buyToken(uint256)"
BUY_AT_LEAST = "buyToken(uint256,uint256)"
PRICE_MAX = 2**128 - 1


def make_offer(*, energy_wh: int = 400, token_price: int = 1_000, energy_price: int = 3) -> World:
    """Alice offers token 1."""
    world = World(capability_wh=1_000)
    world.give_tokens(ALICE)
    if energy_wh:
        world.charge(ALICE, energy_wh)
    world.done(ALICE, OFFER, 1, token_price, energy_price)
    return world


# --- empty tokens ---


def test_an_empty_token_costs_what_the_admin_asks() -> None:
    """BT: the price goes to the admin, what was sent above it returns."""
    world = World()
    world.done(ADMIN, "setEmptyTokenPrice(uint256)", 50)

    outcome = world.send(ALICE, BUY_EMPTY, value=70)

    assert outcome.result == 1
    assert outcome.emissions == [Transfer(ZERO_ADDRESS, ALICE, 1)]
    assert world.call("ownerOf(uint256)", 1) == ALICE
    assert world.token(1).energy_wh == 0
    assert world.balance(ALICE) == WEALTH_WEI - 50
    assert world.balance(ADMIN) == WEALTH_WEI + 50
    check_invariants(world)


def test_several_empty_tokens_come_with_following_ids() -> None:
    world = World()
    world.done(ADMIN, "setEmptyTokenPrice(uint256)", 50)
    world.give_tokens(BOB)

    outcome = world.send(ALICE, BUY_EMPTIES, 3, value=150)

    assert outcome.result == 2
    assert outcome.emissions == [Transfer(ZERO_ADDRESS, ALICE, token_id) for token_id in (2, 3, 4)]
    assert world.call("balanceOf(address)", ALICE) == 3
    assert world.call("lastTokenId()") == 4
    check_invariants(world)


def test_empty_tokens_are_refused_in_a_fixed_order() -> None:
    """No sender, no count, supply, payment: each masks those behind it."""
    world = World(max_supply=5)
    world.done(ADMIN, "setEmptyTokenPrice(uint256)", 50)

    assert world.refusal(ZERO_ADDRESS, BUY_EMPTIES, 0) == ERC721InvalidReceiver(ZERO_ADDRESS)
    assert world.refusal(ALICE, BUY_EMPTIES, 0) == InvalidAmount(0, 1, 5)
    assert world.refusal(ALICE, BUY_EMPTIES, 6, value=1) == SupplyExhausted(5, 0, 6)
    assert world.refusal(ALICE, BUY_EMPTIES, UINT256_MAX) == SupplyExhausted(5, 0, UINT256_MAX)
    assert world.refusal(ALICE, BUY_EMPTIES, 5, value=249) == InsufficientPayment(250, 249)
    world.done(ALICE, BUY_EMPTIES, 5, value=250)
    assert world.refusal(ALICE, BUY_EMPTY, value=50) == SupplyExhausted(5, 5, 1)
    check_invariants(world)


def test_the_admin_may_buy_from_itself() -> None:
    """Payer and payee are one account."""
    world = World()
    world.done(ADMIN, "setEmptyTokenPrice(uint256)", 50)

    world.done(ADMIN, BUY_EMPTY, value=60)

    assert world.balance(ADMIN) == WEALTH_WEI
    check_invariants(world)


def test_minting_fills_pages_of_the_shelf_and_passes_tokens_on_sale() -> None:
    """S-4: new tokens go before those on sale."""
    world = World()
    world.give_tokens(ALICE, PAGE_TOKENS - 1)
    for token_id in (1, 30, 63):
        world.done(ALICE, OFFER_AGAIN, token_id)

    world.give_tokens(ALICE, PAGE_TOKENS + 3)

    assert world.call("balanceOf(address)", ALICE) == 2 * PAGE_TOKENS + 2
    check_invariants(world)


def test_gas_bounds_how_many_tokens_one_transaction_mints() -> None:
    world = World(max_supply=10**9)

    refusal = world.refusal(ALICE, BUY_EMPTIES, 10**9)

    assert refusal.reason == "out of gas: limit 10000000"
    assert refusal.data == b""
    assert world.call("totalSupply()") == 0


# --- offers ---


def test_an_owner_offers_a_token() -> None:
    """ST: the price is the token's and its energy's. No MetadataUpdate, for the energy is what it was."""
    world = World(capability_wh=1_000)
    world.give_tokens(ALICE)
    world.charge(ALICE, 400)

    outcome = world.send(ALICE, OFFER, 1, 1_000, 3)

    assert outcome.emissions == [TokenOnSale(1, ALICE, 1_000, 3)]
    assert world.call("sellingPrice(uint256)", 1) == 1_000 + 400 * 3
    assert world.token(1).on_sale
    assert world.call("energyOf(address)", ALICE) == (0, 0)
    check_invariants(world)


def test_the_short_form_keeps_the_prices_last_set() -> None:
    """Also those of an earlier owner, and 0 when none was ever set."""
    world = make_offer()
    world.done(ALICE, CANCEL, 1)

    assert world.send(ALICE, OFFER_AGAIN, 1).emissions == [TokenOnSale(1, ALICE, 1_000, 3)]
    world.done(ALICE, "transferFrom(address,address,uint256)", ALICE, BOB, 1)
    assert world.send(BOB, OFFER_AGAIN, 1).emissions == [TokenOnSale(1, BOB, 1_000, 3)]
    world.give_tokens(BOB)
    assert world.send(BOB, OFFER_AGAIN, 2).emissions == [TokenOnSale(2, BOB, 0, 0)]
    check_invariants(world)


def test_an_offer_can_be_repriced() -> None:
    world = make_offer()

    outcome = world.send(ALICE, OFFER, 1, PRICE_MAX, PRICE_MAX)

    assert outcome.emissions == [TokenOnSale(1, ALICE, PRICE_MAX, PRICE_MAX)]
    assert world.call("sellingPrice(uint256)", 1) == 401 * PRICE_MAX
    check_invariants(world)


def test_the_dearest_offer_of_the_fullest_token_is_priced_exactly() -> None:
    """Prices have 128 bits and energy 64, so 256 bits hold every price."""
    world = World(max_supply=1, capability_wh=UINT64_MAX)
    world.give_tokens(ALICE)
    world.charge(ALICE, UINT64_MAX)
    world.done(ALICE, OFFER, 1, PRICE_MAX, PRICE_MAX)

    assert world.call("sellingPrice(uint256)", 1) == (UINT64_MAX + 1) * PRICE_MAX


def test_offers_are_refused_in_a_fixed_order() -> None:
    """Existence, authorisation, token price, energy price."""
    world = World()
    world.give_tokens(ALICE)
    above = PRICE_MAX + 1

    assert world.refusal(MALLORY, OFFER, 2, above, above) == ERC721NonexistentToken(2)
    assert world.refusal(MALLORY, OFFER, 1, above, above) == ERC721InsufficientApproval(MALLORY, 1)
    assert world.refusal(ALICE, OFFER, 1, above, above + 1) == InvalidAmount(above, 0, PRICE_MAX)
    assert world.refusal(ALICE, OFFER, 1, 0, above + 1) == InvalidAmount(above + 1, 0, PRICE_MAX)
    assert world.refusal(MALLORY, OFFER_AGAIN, 2) == ERC721NonexistentToken(2)
    assert world.refusal(MALLORY, OFFER_AGAIN, 1) == ERC721InsufficientApproval(MALLORY, 1)


@pytest.mark.parametrize("signature", [OFFER_AGAIN, CANCEL])
def test_a_call_without_sender_sells_nothing(signature: str) -> None:
    world = make_offer()

    assert world.refusal(ZERO_ADDRESS, signature, 1) == ERC721InsufficientApproval(ZERO_ADDRESS, 1)


def test_approved_and_operators_may_offer_and_cancel() -> None:
    world = World()
    world.give_tokens(ALICE)
    world.done(ALICE, "approve(address,uint256)", BOB, 1)
    world.done(ALICE, "setApprovalForAll(address,bool)", CAROL, True)

    assert world.send(BOB, OFFER, 1, 5, 0).emissions == [TokenOnSale(1, ALICE, 5, 0)]
    assert world.send(CAROL, CANCEL, 1).emissions == [SaleCancelled(1, ALICE)]
    assert world.token(1).approved == BOB


def test_cancelling_is_refused_in_a_fixed_order() -> None:
    """Existence, authorisation, then whether it is on sale."""
    world = World()
    world.give_tokens(ALICE)

    assert world.refusal(ALICE, CANCEL, 9) == ERC721NonexistentToken(9)
    assert world.refusal(MALLORY, CANCEL, 1) == ERC721InsufficientApproval(MALLORY, 1)
    assert world.refusal(ALICE, CANCEL, 1) == NotOnSale(1)


def test_a_token_on_sale_is_neither_charged_nor_drained() -> None:
    """The price a buyer sees is the price that is paid."""
    world = make_offer(energy_wh=400)
    meter = world.get(b"\x05" + ALICE).meter

    assert world.charge(ALICE, 100) == 0
    assert world.done(meter, "consume(uint256,address)", 100, ALICE) == 0
    assert world.token(1).energy_wh == 400
    world.done(ALICE, CANCEL, 1)
    assert world.charge(ALICE, 100) == 100
    check_invariants(world)


def test_an_offer_survives_a_change_of_capability() -> None:
    """S-5: a token comes back into the region that its charge demands now."""
    world = make_offer(energy_wh=1_000)
    for capability in (2_000, 500):
        world.done(ADMIN, "setTokenCapability(uint256)", capability)
        world.done(ALICE, CANCEL, 1)
        check_invariants(world)
        world.done(ALICE, OFFER_AGAIN, 1)
        check_invariants(world)


# --- buying ---


def test_a_buyer_pays_the_owner_and_gets_the_energy() -> None:
    """BT: the sale ends, the approval goes, what was sent above the price returns."""
    world = make_offer(energy_wh=400, token_price=1_000, energy_price=3)
    world.done(ALICE, "approve(address,uint256)", CAROL, 1)

    outcome = world.send(BOB, BUY, 1, value=5_000)

    assert outcome.emissions == [Transfer(ALICE, BOB, 1), TokenSold(1, ALICE, BOB, 2_200, 400)]
    assert world.balance(ALICE) == WEALTH_WEI + 2_200
    assert world.balance(BOB) == WEALTH_WEI - 2_200
    token = world.token(1)
    assert (token.owner, token.energy_wh, token.on_sale, token.approved) == (BOB, 400, False, ZERO_ADDRESS)
    assert world.call("nonces(uint256)", 1) == 1
    assert world.call("energyOf(address)", BOB) == (400, 600)
    check_invariants(world)


def test_a_free_token_is_bought_for_nothing() -> None:
    world = make_offer(token_price=0, energy_price=0)

    world.done(BOB, BUY, 1)

    assert world.call("ownerOf(uint256)", 1) == BOB
    check_invariants(world)


def test_buying_is_refused_in_a_fixed_order() -> None:
    """No sender, existence, sale, own token, energy, payment: each masks those behind it."""
    world = make_offer(energy_wh=400, token_price=1_000, energy_price=3)
    world.give_tokens(ALICE)

    assert world.refusal(ZERO_ADDRESS, BUY_AT_LEAST, 9, 0) == ERC721InvalidReceiver(ZERO_ADDRESS)
    assert world.refusal(ALICE, BUY_AT_LEAST, 9, 401) == ERC721NonexistentToken(9)
    assert world.refusal(ALICE, BUY_AT_LEAST, 2, 401) == NotOnSale(2)
    assert world.refusal(ALICE, BUY_AT_LEAST, 1, 401) == AlreadyOwner(1, ALICE)
    assert world.refusal(BOB, BUY_AT_LEAST, 1, 401, value=1) == EnergyBelowMinimum(401, 400)
    assert world.refusal(BOB, BUY_AT_LEAST, 1, 400, value=2_199) == InsufficientPayment(2_200, 2_199)
    world.done(BOB, BUY_AT_LEAST, 1, 400, value=2_200)
    assert world.refusal(CAROL, BUY, 1, value=2_200) == NotOnSale(1)
    check_invariants(world)


def test_a_refused_payment_says_both_figures() -> None:
    """A wallet shows the text, a program decodes the data."""
    world = make_offer()

    refusal = world.refusal(BOB, BUY, 1, value=7)

    assert refusal.reason == "InsufficientPayment(required=2200, sent=7)"


def test_an_approved_account_may_buy_too() -> None:
    """It is not the owner."""
    world = make_offer()
    world.done(ALICE, "approve(address,uint256)", BOB, 1)

    world.done(BOB, BUY, 1, value=2_200)

    assert world.call("ownerOf(uint256)", 1) == BOB
