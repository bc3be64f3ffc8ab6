"""Who governs the CTT, and the bounds of what the admin sets."""

import pytest

from ctt_state.modules.ctt.module import (
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
    NotCreated,
    NotNextAdmin,
    OperatorSet,
    TokenCapabilitySet,
)
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS
from tests.world import ADMIN, ALICE, BOB, MALLORY, World, check_invariants

CREATE = "createCTT(string,string,uint256,uint256)"
SET_SUPPLY = "setMaxTokenSupply(uint256)"
SET_CAPABILITY = "setTokenCapability(uint256)"
SET_PRICE = "setEmptyTokenPrice(uint256)"
SET_OPERATOR = "setOperator(address,bool)"
UPDATE_ADMIN = "updateAdmin(address)"
ACCEPT_ADMIN = "acceptAdmin()"


def test_the_first_admin_of_genesis_creates_the_ctt() -> None:
    """CRC: with the caller as admin and free empty tokens."""
    world = World(created=False)

    outcome = world.send(ADMIN, CREATE, "Crypto-Trading Token", "CTT", 100_000_000, 10_000)

    assert outcome.emissions == [CTTCreated(ADMIN, "Crypto-Trading Token", "CTT", 100_000_000, 10_000)]
    assert world.call("admin()") == ADMIN
    assert world.call("nextAdmin()") == ZERO_ADDRESS
    assert (world.call("name()"), world.call("symbol()")) == ("Crypto-Trading Token", "CTT")
    assert world.call("maxTokenSupply()") == 100_000_000
    assert world.call("tokenCapability()") == 10_000
    assert world.call("totalEnergySupply()") == 10**12
    assert world.call("emptyTokenPrice()") == 0
    assert world.call("lastTokenId()") == world.call("totalEnergy()") == 0
    check_invariants(world)


def test_creation_is_refused_in_a_fixed_order() -> None:
    """AlreadyCreated, NotAdmin, the name, the symbol, the capability, the supply: each masks those behind it."""
    world = World(created=False)
    long, wrong = "x" * 65, UINT256_MAX

    assert world.refusal(MALLORY, CREATE, long, long, wrong, 0) == NotAdmin(MALLORY)
    assert world.refusal(ADMIN, CREATE, long, "", wrong, 0) == InvalidName(long, 64)
    assert world.refusal(ADMIN, CREATE, "Sun", "", wrong, 0) == InvalidName("", 64)
    assert world.refusal(ADMIN, CREATE, "Sun", "S", wrong, 0) == InvalidAmount(0, 1, UINT64_MAX)
    assert world.refusal(ADMIN, CREATE, "Sun", "S", wrong, 2) == InvalidAmount(wrong, 0, UINT64_MAX // 2)
    world.done(ADMIN, CREATE, "Sun", "S", 1, 1)
    assert world.refusal(MALLORY, CREATE, long, long, wrong, 0) == AlreadyCreated()
    assert world.refusal(ADMIN, CREATE, "Sun", "S", 1, 1) == AlreadyCreated()


@pytest.mark.parametrize("name", ["x", "x" * 64, "é" * 32])
def test_a_name_of_up_to_64_bytes_is_taken(name: str) -> None:
    """Bytes of UTF-8, not characters."""
    world = World(created=False)

    world.done(ADMIN, CREATE, name, name, 1, 1)

    assert world.call("name()") == world.call("symbol()") == name


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 32 + "x"])
def test_a_longer_or_empty_name_is_refused(name: str) -> None:
    world = World(created=False)

    assert world.refusal(ADMIN, CREATE, "Sun", name, 1, 1) == InvalidName(name, 64)


@pytest.mark.parametrize(
    ("supply", "capability"), [(1, UINT64_MAX), (UINT64_MAX, 1), (0, UINT64_MAX), (3, UINT64_MAX // 3)]
)
def test_supply_times_capability_may_just_fit_64_bits(supply: int, capability: int) -> None:
    """S-2."""
    world = World(created=False)

    world.done(ADMIN, CREATE, "Sun", "S", supply, capability)

    assert world.call("totalEnergySupply()") == supply * capability <= UINT64_MAX


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        ("admin()", ()),
        ("nextAdmin()", ()),
        ("name()", ()),
        ("symbol()", ()),
        ("maxTokenSupply()", ()),
        ("tokenCapability()", ()),
        ("emptyTokenPrice()", ()),
        ("totalEnergySupply()", ()),
        ("DOMAIN_SEPARATOR()", ()),
        ("eip712Domain()", ()),
        (UPDATE_ADMIN, (BOB,)),
        (ACCEPT_ADMIN, ()),
        (SET_SUPPLY, (1,)),
        (SET_CAPABILITY, (1,)),
        (SET_PRICE, (1,)),
        (SET_OPERATOR, (BOB, True)),
        ("buyEmptyToken()", ()),
    ],
)
def test_before_creation_there_is_nothing_to_govern(signature: str, arguments: tuple[object, ...]) -> None:
    world = World(created=False)

    assert world.refusal(ADMIN, signature, *arguments) == NotCreated()
    assert world.call("totalSupply()") == world.call("lastTokenId()") == world.call("totalEnergy()") == 0


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        (UPDATE_ADMIN, (BOB,)),
        (SET_SUPPLY, (0,)),
        (SET_CAPABILITY, (0,)),
        (SET_PRICE, (UINT256_MAX,)),
        (SET_OPERATOR, (ZERO_ADDRESS, True)),
    ],
)
def test_only_the_admin_governs(signature: str, arguments: tuple[object, ...]) -> None:
    """Who speaks is checked before what is said; a call without a sender is nobody's."""
    world = World()
    world.give_tokens(ALICE)

    assert world.refusal(MALLORY, signature, *arguments) == NotAdmin(MALLORY)
    assert world.refusal(ZERO_ADDRESS, signature, *arguments) == NotAdmin(ZERO_ADDRESS)


def test_the_role_moves_when_the_new_admin_accepts() -> None:
    """USA: until then the old one stays."""
    world = World()

    assert world.send(ADMIN, UPDATE_ADMIN, BOB).logs == ()
    assert (world.call("admin()"), world.call("nextAdmin()")) == (ADMIN, BOB)
    accepted = world.send(BOB, ACCEPT_ADMIN)

    assert accepted.emissions == [AdminUpdated(ADMIN, BOB)]
    assert (world.call("admin()"), world.call("nextAdmin()")) == (BOB, ZERO_ADDRESS)
    assert world.refusal(ADMIN, SET_SUPPLY, 5) == NotAdmin(ADMIN)
    assert world.refusal(BOB, ACCEPT_ADMIN) == NotNextAdmin(BOB)
    world.done(BOB, SET_SUPPLY, 5)


def test_only_the_named_one_accepts_and_a_name_can_be_withdrawn() -> None:
    world = World()
    world.done(ADMIN, UPDATE_ADMIN, BOB)

    assert world.refusal(MALLORY, ACCEPT_ADMIN) == NotNextAdmin(MALLORY)
    world.done(ADMIN, UPDATE_ADMIN, ZERO_ADDRESS)
    assert world.refusal(BOB, ACCEPT_ADMIN) == NotNextAdmin(BOB)


def test_a_call_without_sender_never_takes_the_role() -> None:
    """The zero address is also what stands for "nobody is named"."""
    world = World()

    assert world.refusal(ZERO_ADDRESS, ACCEPT_ADMIN) == NotNextAdmin(ZERO_ADDRESS)


def test_the_supply_goes_down_to_what_is_minted() -> None:
    """STS."""
    world = World(max_supply=10)
    world.give_tokens(ALICE, 3)

    assert world.refusal(ADMIN, SET_SUPPLY, 2) == MaxSupplyBelowMinted(2, 3)
    assert world.send(ADMIN, SET_SUPPLY, 3).emissions == [MaxTokenSupplySet(3)]
    assert world.call("maxTokenSupply()") == 3


def test_the_supply_is_bounded_by_the_highest_capability_ever() -> None:
    """S-2: lowering the capability does not make room, for tokens keep their energy."""
    world = World(max_supply=2, capability_wh=1_000)
    world.done(ADMIN, SET_CAPABILITY, 10)
    most = UINT64_MAX // 1_000

    assert world.refusal(ADMIN, SET_SUPPLY, most + 1) == InvalidAmount(most + 1, 0, most)
    world.done(ADMIN, SET_SUPPLY, most)
    assert world.call("totalEnergySupply()") == most * 10


def test_the_capability_is_above_zero_and_bounded_by_the_supply() -> None:
    """STC, S-2."""
    world = World(max_supply=7)
    most = UINT64_MAX // 7

    for wrong in (0, most + 1, UINT256_MAX):
        assert world.refusal(ADMIN, SET_CAPABILITY, wrong) == InvalidAmount(wrong, 1, most)
    assert world.send(ADMIN, SET_CAPABILITY, most).emissions == [TokenCapabilitySet(most)]
    world.done(ADMIN, SET_CAPABILITY, 1)
    assert world.call("tokenCapability()") == 1


def test_a_new_capability_announces_every_picture() -> None:
    """ERC-4906: the picture shows the charge against the capability."""
    world = World()
    world.give_tokens(ALICE, 3)

    outcome = world.send(ADMIN, SET_CAPABILITY, 20_000)

    assert outcome.emissions == [TokenCapabilitySet(20_000), BatchMetadataUpdate(1, 3)]


def test_a_token_above_a_lowered_capability_keeps_its_energy_and_takes_no_more() -> None:
    """S-5."""
    world = World(capability_wh=100)
    world.give_tokens(ALICE, 2)
    world.charge(ALICE, 150)
    world.done(ADMIN, SET_CAPABILITY, 40)

    assert world.charge(ALICE, 1_000) == 0

    assert [world.token(i).energy_wh for i in (1, 2)] == [100, 50]
    check_invariants(world)


def test_the_empty_token_price_has_128_bits() -> None:
    world = World()
    most = 2**128 - 1

    assert world.refusal(ADMIN, SET_PRICE, most + 1) == InvalidAmount(most + 1, 0, most)
    assert world.send(ADMIN, SET_PRICE, most).emissions == [EmptyTokenPriceSet(most)]
    assert world.call("emptyTokenPrice()") == most


def test_operators_come_and_go() -> None:
    """ASM. Saying the same again changes nothing but is told."""
    world = World()
    assert world.call("isOperator(address)", BOB) is False

    for allowed in (True, True, False, False):
        outcome = world.send(ADMIN, SET_OPERATOR, BOB, allowed)
        assert outcome.emissions == [OperatorSet(BOB, allowed)]
        assert world.call("isOperator(address)", BOB) is allowed


def test_the_zero_address_is_no_operator() -> None:
    """Else every call without a sender were an operator's."""
    world = World()

    assert world.refusal(ADMIN, SET_OPERATOR, ZERO_ADDRESS, True) == InvalidOperator(ZERO_ADDRESS)
