"""Tokens as ERC-721: OpenZeppelin 5's checks in their order, enumeration, pictures, and the shelf under them."""

import json
from base64 import b64decode
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.abi import Revert
from ctt_state.block import Log
from ctt_state.crypto import keccak
from ctt_state.modules import MODULES
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import (
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
    ERC721NonexistentToken,
    ERC721OutOfBoundsIndex,
    InvalidAmount,
    SaleCancelled,
    Transfer,
)
from ctt_state.records import PAGE_TOKENS, Token
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS, Address, TokenId
from tests.world import ADMIN, ALICE, BOB, CAROL, MALLORY, World, check_invariants

TRANSFER = "transferFrom(address,address,uint256)"
SAFE_TRANSFER = "safeTransferFrom(address,address,uint256)"
SAFE_TRANSFER_DATA = "safeTransferFrom(address,address,uint256,bytes)"
APPROVE = "approve(address,uint256)"
APPROVE_ALL = "setApprovalForAll(address,bool)"
OFFER = "setOnSale(uint256,uint256,uint256)"
MODULE = CTT.address


def make_world(tokens: int = 1, energy_wh: int = 0) -> World:
    """Alice owns tokens 1 to `tokens`."""
    world = World(capability_wh=1_000)
    world.give_tokens(ALICE, tokens)
    if energy_wh:
        world.charge(ALICE, energy_wh)
    return world


def transfer(world: World, signature: str, source: Address, to: Address, token_id: int) -> tuple[Any, ...]:
    """The arguments of any of the three transfer functions."""
    extra = (b"\x01\x02",) if signature == SAFE_TRANSFER_DATA else ()
    return (signature, source, to, token_id, *extra)


# --- ERC-165 and views ---


@pytest.mark.parametrize(
    "interface", ["01ffc9a7", "80ac58cd", "5b5e139f", "780e9d63", "49064906", "5604e225", "84b0196e"]
)
def test_interfaces_are_told_within_30_000_gas(interface: str) -> None:
    """ERC-165's limit, before creation as well as after."""
    world = World(created=False)

    outcome = world.send(ALICE, "supportsInterface(bytes4)", bytes.fromhex(interface))

    assert outcome.result is True
    assert outcome.gas_used <= 30_000


@pytest.mark.parametrize("interface", ["ffffffff", "00000000", "d9b67a26"])
def test_other_interfaces_are_denied(interface: str) -> None:
    assert World().call("supportsInterface(bytes4)", bytes.fromhex(interface)) is False


@pytest.mark.parametrize(
    ("interface", "signatures"),
    [
        (
            "80ac58cd",
            (
                "balanceOf(address) ownerOf(uint256) approve(address,uint256) getApproved(uint256) "
                "setApprovalForAll(address,bool) isApprovedForAll(address,address) "
                "transferFrom(address,address,uint256) safeTransferFrom(address,address,uint256) "
                "safeTransferFrom(address,address,uint256,bytes)"
            ),
        ),
        ("5b5e139f", "name() symbol() tokenURI(uint256)"),
        ("780e9d63", "totalSupply() tokenByIndex(uint256) tokenOfOwnerByIndex(address,uint256)"),
        ("01ffc9a7", "supportsInterface(bytes4)"),
        ("5604e225", "permit(address,uint256,uint256,bytes) nonces(uint256) DOMAIN_SEPARATOR()"),
        ("84b0196e", "eip712Domain()"),
    ],
)
def test_every_function_of_a_supported_interface_exists(interface: str, signatures: str) -> None:
    """An interface's id is the exclusive or of its selectors."""
    total = 0
    for signature in signatures.split():
        total ^= int.from_bytes(CTT.named(signature).selector, "big")

    assert total == int(interface, 16)


def test_ownership_is_told() -> None:
    world = make_world(tokens=3)

    assert world.call("balanceOf(address)", ALICE) == 3
    assert world.call("balanceOf(address)", BOB) == 0
    assert world.call("ownerOf(uint256)", 3) == ALICE
    assert world.call("totalSupply()") == 3


def test_the_zero_address_has_no_balance() -> None:
    assert make_world().refusal(ALICE, "balanceOf(address)", ZERO_ADDRESS) == ERC721InvalidOwner(ZERO_ADDRESS)


@pytest.mark.parametrize("token_id", [0, 2, UINT64_MAX, UINT64_MAX + 1, UINT256_MAX])
@pytest.mark.parametrize(
    "signature",
    [
        "ownerOf(uint256)",
        "getApproved(uint256)",
        "tokenURI(uint256)",
        "tokens(uint256)",
        "sellingPrice(uint256)",
        "nonces(uint256)",
    ],
)
def test_a_token_that_does_not_exist_is_refused(signature: str, token_id: int) -> None:
    """Also an id that no record's key could hold."""
    assert make_world().refusal(ALICE, signature, token_id) == ERC721NonexistentToken(token_id)


def test_all_of_a_token_is_told() -> None:
    world = make_world(tokens=2, energy_wh=1_400)
    world.done(ALICE, OFFER, 1, 10, 2)
    world.done(ALICE, APPROVE, BOB, 1)

    # On sale, so it is the last of the shelf's two.
    assert world.call("tokens(uint256)", 1) == (ALICE, 1_000, True, 10, 2, 2_010, BOB, 0, 1)
    assert world.call("tokens(uint256)", 2) == (ALICE, 400, False, 0, 0, 0, ZERO_ADDRESS, 0, 0)


def test_enumeration_ends_where_the_tokens_end() -> None:
    world = make_world(tokens=3)

    assert [world.call("tokenByIndex(uint256)", i) for i in range(3)] == [1, 2, 3]
    assert [world.call("tokenOfOwnerByIndex(address,uint256)", ALICE, i) for i in range(3)] == [1, 2, 3]
    for index in (3, UINT256_MAX):
        by_index = world.refusal(ALICE, "tokenByIndex(uint256)", index)
        assert by_index == ERC721OutOfBoundsIndex(ZERO_ADDRESS, index)
        by_owner = world.refusal(ALICE, "tokenOfOwnerByIndex(address,uint256)", ALICE, index)
        assert by_owner == ERC721OutOfBoundsIndex(ALICE, index)
    nobody = world.refusal(ALICE, "tokenOfOwnerByIndex(address,uint256)", ZERO_ADDRESS, 0)
    assert nobody == ERC721OutOfBoundsIndex(ZERO_ADDRESS, 0)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 1_000, range(1, 131)),
        (0, 0, ()),
        (0, PAGE_TOKENS, range(1, PAGE_TOKENS + 1)),
        (63, 3, (64, 65, 66)),
        (129, 1_000, (130,)),
        (130, 5, ()),
        (UINT256_MAX, 1_000, ()),
    ],
)
def test_an_owners_tokens_come_in_slices(offset: int, limit: int, expected: Any) -> None:
    world = make_world(tokens=130)

    assert world.call("tokensOf(address,uint256,uint256)", ALICE, offset, limit) == tuple(expected)


def test_a_slice_has_at_most_1_000_tokens() -> None:
    refusal = make_world().refusal(ALICE, "tokensOf(address,uint256,uint256)", ALICE, 0, 1_001)

    assert refusal == InvalidAmount(1_001, 0, 1_000)


# --- approvals ---


def test_an_approval_is_set_repeated_and_taken_back_with_an_event_each() -> None:
    """Taking back none is told too, as OpenZeppelin does."""
    world = make_world()

    for approved in (BOB, BOB, ZERO_ADDRESS, ZERO_ADDRESS, ALICE):
        outcome = world.send(ALICE, APPROVE, approved, 1)
        assert outcome.emissions == [ApprovalSet(ALICE, approved, 1)]
        assert world.call("getApproved(uint256)", 1) == approved


def test_approving_is_refused_in_a_fixed_order() -> None:
    """Existence, then authority: an approved account has none, an operator has."""
    world = make_world()
    world.done(ALICE, APPROVE, BOB, 1)
    world.done(ALICE, APPROVE_ALL, CAROL, True)

    assert world.refusal(MALLORY, APPROVE, BOB, 2) == ERC721NonexistentToken(2)
    for caller in (MALLORY, BOB, ZERO_ADDRESS):
        assert world.refusal(caller, APPROVE, BOB, 1) == ERC721InvalidApprover(caller)
    assert world.send(CAROL, APPROVE, MALLORY, 1).emissions == [ApprovalSet(ALICE, MALLORY, 1)]


def test_operators_are_approved_for_all_tokens() -> None:
    world = make_world()

    for approved in (True, True, False, False):
        outcome = world.send(ALICE, APPROVE_ALL, BOB, approved)
        assert outcome.emissions == [ApprovalForAll(ALICE, BOB, approved)]
        assert world.call("isApprovedForAll(address,address)", ALICE, BOB) is approved
    assert world.call("isApprovedForAll(address,address)", BOB, ALICE) is False


def test_the_zero_address_is_never_an_operator() -> None:
    world = make_world()

    assert world.refusal(ALICE, APPROVE_ALL, ZERO_ADDRESS, True) == ERC721InvalidOperator(ZERO_ADDRESS)


# --- transfers ---


@pytest.mark.parametrize("signature", [TRANSFER, SAFE_TRANSFER, SAFE_TRANSFER_DATA])
def test_a_transfer_carries_energy_clears_the_approval_and_spends_the_nonce(signature: str) -> None:
    """The energy is told, the approval goes without an event."""
    world = make_world(tokens=2, energy_wh=1_300)
    world.done(ALICE, APPROVE, CAROL, 1)

    outcome = world.send(ALICE, *transfer(world, signature, ALICE, BOB, 1))

    assert outcome.emissions == [Transfer(ALICE, BOB, 1), EnergyTransferred(ALICE, BOB, 1, 1_000)]
    token = world.token(1)
    assert (token.owner, token.energy_wh, token.approved, token.permit_nonce) == (BOB, 1_000, ZERO_ADDRESS, 1)
    assert world.call("energyOf(address)", ALICE) == (300, 700)
    assert world.call("energyOf(address)", BOB) == (1_000, 0)
    check_invariants(world)


@pytest.mark.parametrize("signature", [TRANSFER, SAFE_TRANSFER, SAFE_TRANSFER_DATA])
def test_transfers_are_refused_in_openzeppelins_order(signature: str) -> None:
    """Zero receiver, existence, authority, wrong owner."""
    world = make_world()

    def refusal(sender: Address, source: Address, to: Address, token_id: int) -> Revert:
        return world.refusal(sender, *transfer(world, signature, source, to, token_id))

    assert refusal(MALLORY, BOB, ZERO_ADDRESS, 9) == ERC721InvalidReceiver(ZERO_ADDRESS)
    assert refusal(MALLORY, BOB, CAROL, 9) == ERC721NonexistentToken(9)
    assert refusal(MALLORY, BOB, CAROL, 1) == ERC721InsufficientApproval(MALLORY, 1)
    assert refusal(ALICE, BOB, CAROL, 1) == ERC721IncorrectOwner(BOB, 1, ALICE)


def test_a_call_without_sender_moves_nothing() -> None:
    """The zero address is also what stands for "nobody is approved"."""
    world = make_world()

    refusal = world.refusal(ZERO_ADDRESS, TRANSFER, ALICE, BOB, 1)

    assert refusal == ERC721InsufficientApproval(ZERO_ADDRESS, 1)


def test_approved_and_operator_may_transfer_once_and_always() -> None:
    world = make_world(tokens=2)
    world.done(ALICE, APPROVE, BOB, 1)
    world.done(ALICE, APPROVE_ALL, CAROL, True)

    world.done(BOB, TRANSFER, ALICE, ALICE, 1)
    assert world.refusal(BOB, TRANSFER, ALICE, BOB, 1) == ERC721InsufficientApproval(BOB, 1)
    world.done(CAROL, TRANSFER, ALICE, BOB, 1)
    world.done(CAROL, TRANSFER, ALICE, BOB, 2)
    assert world.refusal(CAROL, TRANSFER, BOB, CAROL, 1) == ERC721InsufficientApproval(CAROL, 1)


def test_a_transfer_to_oneself_is_a_transfer() -> None:
    world = make_world(tokens=3, energy_wh=1_500)
    for token_id in (1, 2, 3):
        world.done(ALICE, APPROVE, BOB, token_id)

        outcome = world.send(ALICE, TRANSFER, ALICE, ALICE, token_id)

        assert outcome.emissions == [Transfer(ALICE, ALICE, token_id)]
        assert world.call("getApproved(uint256)", token_id) == ZERO_ADDRESS
        assert world.call("nonces(uint256)", token_id) == 1
        check_invariants(world)
    assert world.call("energyOf(address)", ALICE) == (1_500, 1_500)


@pytest.mark.parametrize("to", [ALICE, BOB])
def test_a_transfer_ends_a_sale(to: Address) -> None:
    world = make_world(tokens=2)
    world.done(ALICE, OFFER, 1, 10, 2)

    outcome = world.send(ALICE, TRANSFER, ALICE, to, 1)

    assert outcome.emissions == [SaleCancelled(1, ALICE), Transfer(ALICE, to, 1)]
    assert not world.token(1).on_sale
    check_invariants(world)


@pytest.mark.parametrize("module", sorted(MODULE_ADDRESSES))
def test_a_module_takes_no_token_by_a_safe_transfer(module: Address) -> None:
    """But by a plain one, which loses it."""
    world = make_world()

    for signature in (SAFE_TRANSFER, SAFE_TRANSFER_DATA):
        refusal = world.refusal(ALICE, *transfer(world, signature, ALICE, module, 1))
        assert refusal == ERC721InvalidReceiver(module)
    world.done(ALICE, TRANSFER, ALICE, module, 1)
    assert world.call("ownerOf(uint256)", 1) == module


def test_all_modules_stand_at_reserved_addresses() -> None:
    assert MODULES.keys() <= MODULE_ADDRESSES


def test_a_transfer_log_is_byte_for_byte_erc721s() -> None:
    """Three indexed arguments and no data."""
    world = make_world()

    (log,) = world.send(ALICE, TRANSFER, ALICE, BOB, 1).logs

    topics = (
        keccak(b"Transfer(address,address,uint256)"),
        bytes(12) + ALICE,
        bytes(12) + BOB,
        (1).to_bytes(32, "big"),
    )
    assert log == Log(MODULE, topics, b"")


# --- malformed calls ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\xff\xff\xff\xff",
        CTT.named(TRANSFER).encode_arguments(ALICE, BOB, 1)[:-1],
        CTT.named("ownerOf(uint256)").selector,
        CTT.named("balanceOf(address)").selector + b"\x01" + bytes(31),
        CTT.named(APPROVE_ALL).encode_arguments(BOB, False)[:-1] + b"\x02",
        CTT.named(SAFE_TRANSFER_DATA).encode_arguments(ALICE, BOB, 1, b"x" * 33)[:-32],
    ],
)
def test_a_malformed_call_reverts_with_no_data(data: bytes) -> None:
    """Empty, unknown, short, dirty bits, bool 2, bytes outside the data: as a Solidity contract answers."""
    outcome = make_world().call_raw(ALICE, data)

    assert outcome.revert is not None
    assert (outcome.revert.data, outcome.output) == (b"", b"")


def test_value_to_a_function_that_takes_none_reverts_with_no_data() -> None:
    world = make_world()

    assert world.refusal(ALICE, TRANSFER, ALICE, BOB, 1, value=1).data == b""
    check_invariants(world)


def test_extra_trailing_bytes_are_accepted() -> None:
    data = CTT.named("ownerOf(uint256)").encode_arguments(1) + b"tag"

    assert make_world().call_raw(ALICE, data).output == bytes(12) + ALICE


# --- pictures ---


def metadata_of(world: World, token_id: int) -> tuple[dict[str, Any], ElementTree.Element]:
    """The JSON and the parsed SVG inside it."""
    uri: str = world.call("tokenURI(uint256)", token_id)
    prefix, _, body = uri.partition(",")
    assert prefix == "data:application/json;base64"
    metadata: dict[str, Any] = json.loads(b64decode(body, validate=True))
    image, _, svg = metadata["image"].partition(",")
    assert image == "data:image/svg+xml;base64"
    return metadata, ElementTree.fromstring(b64decode(svg, validate=True))


@pytest.mark.parametrize(
    ("energy", "bar", "percent"),
    [(0, "0", "0 %"), (1, "0", "0 %"), (499, "119", "49 %"), (1_000, "240", "100 %")],
)
def test_the_picture_shows_the_charge(energy: int, bar: str, percent: str) -> None:
    """In whole pixels and percent, rounded down."""
    metadata, svg = metadata_of(make_world(energy_wh=energy), 1)

    assert metadata["name"] == "CTT #1"
    assert [item["value"] for item in metadata["attributes"]][:3] == [energy, 1_000, energy // 10]
    assert svg[4].attrib["width"] == bar
    assert svg[5].text == percent
    assert svg[6].text == f"{energy:,} / 1,000 Wh"


def test_the_picture_shows_where_the_energy_comes_from() -> None:
    """A strip as long as the bar, with a piece for each source of which there is some; the last Wh is less than a
    pixel."""
    world = make_world(energy_wh=500)
    token = world.token(1)
    world.put(Token.key(TokenId(1)), token._replace(origin=(250, 1, 0, 124)))

    metadata, svg = metadata_of(world, 1)

    told = {item["trait_type"]: item["value"] for item in metadata["attributes"][3:]}
    assert told == {
        "From solar (Wh)": 250,
        "From wind (Wh)": 1,
        "From biomass (Wh)": 124,
    }
    strip = [(piece.attrib["x"], piece.attrib["width"], piece.attrib["fill"]) for piece in svg[8:]]
    assert strip == [("40", "30", "#a0aec0"), ("70", "60", "#f6c945"), ("130", "30", "#6b8e23")]
    assert len(metadata_of(make_world(energy_wh=0), 1)[1]) == 8


@pytest.mark.parametrize(
    ("energy", "color"), [(199, "#c1121f"), (200, "#d98e04"), (499, "#d98e04"), (500, "#2a9d4a")]
)
def test_the_bar_is_red_below_a_fifth_and_green_from_a_half(energy: int, color: str) -> None:
    _, svg = metadata_of(make_world(energy_wh=energy), 1)

    assert svg[4].attrib["fill"] == color


def test_the_bar_ends_at_full_when_the_capability_was_lowered() -> None:
    world = make_world(energy_wh=1_000)
    world.done(ADMIN, "setTokenCapability(uint256)", 400)

    _, svg = metadata_of(world, 1)

    assert (svg[4].attrib["width"], svg[5].text) == ("240", "250 %")


@pytest.mark.parametrize("name", ["<script>&\"'#", "{0}%s\\", "\x00\x1b\ufffe\t", "Énergie ☀ 🔋"])
def test_any_name_is_shown_as_text(name: str) -> None:
    """It escapes neither from the JSON nor from the SVG."""
    world = World(created=False)
    world.done(ADMIN, "createCTT(string,string,uint256,uint256)", name, name, 10, 10)
    world.give_tokens(ALICE)

    metadata, svg = metadata_of(world, 1)

    assert metadata["name"] == f"{name} #1"
    shown = "".join(char if char >= " " or char == "\t" else "\ufffd" for char in name)
    assert svg[7].text == shown.replace("\ufffe", "\ufffd")


# --- the shelf ---


def regions_of(world: World, owner: Address) -> tuple[int, ...]:
    """How many tokens are full, partly charged, empty and on sale."""
    return tuple(world.call("prosumers(address)", owner)[2:6])


def test_a_token_arrives_in_the_region_of_its_charge() -> None:
    """S-4: a token that is exactly full is full."""
    world = make_world(tokens=4, energy_wh=1_999)
    world.done(ALICE, OFFER, 4, 0, 0)
    assert regions_of(world, ALICE) == (1, 1, 1, 1)

    for token_id, regions in ((3, (0, 0, 1, 0)), (2, (0, 1, 1, 0)), (1, (1, 1, 1, 0)), (4, (1, 1, 2, 0))):
        world.done(ALICE, TRANSFER, ALICE, BOB, token_id)
        assert regions_of(world, BOB) == regions
        check_invariants(world)
    assert regions_of(world, ALICE) == (0, 0, 0, 0)


def test_full_tokens_have_room_again_when_the_capability_was_raised() -> None:
    """S-5, at the next touch."""
    world = make_world(tokens=4, energy_wh=2_500)
    world.done(ADMIN, "setTokenCapability(uint256)", 1_500)

    world.done(ALICE, TRANSFER, ALICE, BOB, 4)

    assert regions_of(world, ALICE) == (0, 3, 0, 0)
    assert world.call("energyOf(address)", ALICE) == (2_500, 2_000)
    check_invariants(world)
    assert world.charge(ALICE, 9_999) == 2_000
    check_invariants(world)


def test_full_tokens_stay_full_when_the_capability_was_lowered() -> None:
    """S-5: a partly charged one above it is full where it arrives."""
    world = make_world(tokens=3, energy_wh=2_500)
    world.done(ADMIN, "setTokenCapability(uint256)", 400)

    world.done(ALICE, TRANSFER, ALICE, ALICE, 1)
    assert regions_of(world, ALICE) == (2, 1, 0, 0)
    world.done(ALICE, TRANSFER, ALICE, BOB, 3)

    assert (regions_of(world, ALICE), regions_of(world, BOB)) == ((2, 0, 0, 0), (1, 0, 0, 0))
    check_invariants(world)


def test_a_shelf_shrinks_across_the_border_of_a_page() -> None:
    world = make_world(tokens=PAGE_TOKENS + 1)

    for token_id in (1, PAGE_TOKENS, 2, 3):
        world.done(ALICE, TRANSFER, ALICE, BOB, token_id)
        check_invariants(world)


# --- histories ---

PERSONS = st.sampled_from((ALICE, BOB, CAROL))
IDS = st.integers(1, 12)
STEPS = st.one_of(
    st.tuples(st.just("buyEmptyTokens(uint256)"), st.integers(1, 4)),
    st.tuples(st.just("transfer"), PERSONS, IDS),
    st.tuples(st.just(OFFER), IDS, st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("cancelSale(uint256)"), IDS),
    st.tuples(st.just("buyToken(uint256)"), IDS),
    st.tuples(st.just("charge"), st.integers(1, 350)),
    st.tuples(st.just("drain"), st.integers(1, 350)),
    st.tuples(st.just("setTokenCapability(uint256)"), st.integers(1, 200)),
)


def run_step(world: World, person: Address, step: tuple[Any, ...]) -> None:
    """Whether it goes through or is refused does not matter here."""
    kind, *arguments = step
    match kind:
        case "transfer":
            to, token_id = arguments
            world.send(person, TRANSFER, person, to, token_id)
        case "charge":
            world.charge(person, arguments[0])
        case "drain":
            meter = world.get(b"\x05" + person)
            world.send(meter.meter if meter else person, "consume(uint256,address)", arguments[0], person)
        case "setTokenCapability(uint256)":
            world.send(ADMIN, kind, *arguments)
        case "buyToken(uint256)":
            world.send(person, kind, *arguments, value=10_000)
        case _:
            world.send(person, kind, *arguments)


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.tuples(PERSONS, STEPS), max_size=40))
def test_no_history_breaks_shelves_energy_or_money(history: list[tuple[Address, tuple[Any, ...]]]) -> None:
    """S-1, S-2, S-4, S-10, after every step."""
    world = World(capability_wh=100, max_supply=12)

    for person, step in history:
        run_step(world, person, step)
        check_invariants(world)


def test_what_was_ever_stored_may_pass_64_bits() -> None:
    """One owner's totals fit them; a token that goes from hand to hand adds up."""
    world = World(max_supply=1, capability_wh=UINT64_MAX)
    world.give_tokens(ALICE)
    world.charge(ALICE, UINT64_MAX)
    world.done(world.get(b"\x05" + ALICE).meter, "consume(uint256,address)", UINT64_MAX, ALICE)
    world.done(ALICE, TRANSFER, ALICE, BOB, 1)

    world.charge(BOB, UINT64_MAX)

    assert world.call("totalEnergy()") == UINT64_MAX
    check_invariants(world)
