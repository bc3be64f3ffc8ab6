"""`ctt token` at a real node: bought empty, offered, bought with their energy, withdrawn and handed on."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.origin import from_parts
from ctt_state.units import hex_of
from node.cli.options import format_origin
from node.cli.token import REFUSALS
from node.keys import create_key
from rpc.figures import origin
from tests.cli_world import Ctt, Desk
from tests.ledger_world import ALICE_KEY, BOB, OWNER_KEYS, OWNERS, document
from tests.live_node import LiveNode

ALICE: Final = hex_of(address_of(ALICE_KEY))  # has money
OWNER: Final = hex_of(OWNERS[0])  # has five charged tokens


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("token") / "node", genesis=document()) as node:
        create_key(node.directory.parent / "alice.key", ALICE_KEY)
        create_key(node.directory.parent / "owner.key", OWNER_KEYS[0])
        yield node


@pytest.fixture
def shop(capsys: pytest.CaptureFixture[str], node: LiveNode) -> Desk:
    return Desk(Ctt(capsys, "token", one_line=True), node)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((0,) * 6, ""),
        ((1_000, 5_500, 0, 0, 0, 1), " (1.000 kWh unknown, 5.500 kWh solar, 0.001 kWh other)"),
    ],
)
def test_an_origin_names_what_there_is(parts: tuple[int, ...], words: str) -> None:
    shown: Any = origin("origin", from_parts(parts), sum(parts))["origin"]

    assert format_origin(shown) == words


def test_empty_tokens_are_bought(shop: Desk) -> None:
    foretold = shop.told("buy", "--empty", 2, "--dry-run", key="alice")
    assert (foretold["dryRun"], foretold["costWei"]) == (True, str(2 * 10**16))
    before = shop("show", ALICE)
    assert (before.code, before.err) == (66, f"ctt: {ALICE} has never had a token\n")
    assert "bought 2 empty tokens for 0.02" in shop.done("buy", "--empty", 2, key="alice")
    assert shop.told("show", ALICE)["count"] == 2
    assert shop.done("show", ALICE).splitlines()[-1] == "2 tokens"


def test_a_token_is_offered_and_bought_with_its_energy(shop: Desk) -> None:
    energy_wh = int(shop.told("show", 1)["energyWh"])
    assert energy_wh
    assert "token 1 with" in shop.done("sell", 1, "0.02", "0.10", key="owner")
    shown = shop.done("show", 1)
    whole = 2 * 10**16 + energy_wh * 10**14
    held = shop.told("show", 1)["energy"]
    assert f"holds {held} ({held} unknown), " in shown
    assert f"token 1 of {OWNER}" in shown and "on sale for " in shown and "0.1 per kWh" in shown
    assert "yes" in shop.done("show", OWNER)

    foretold = shop.told("buy", 1, "--dry-run", key="alice")
    assert foretold["costWei"] == str(whole)
    assert int(foretold["balanceWei"]) > whole
    words = shop.done("buy", 1, "--dry-run", key="alice")
    assert "then bought token 1 with" in words and "balance " in words
    shop.done("buy", 1, key="alice")
    assert shop.told("show", 1)["owner"] == ALICE
    assert shop.refusal("buy", 1, key="owner") == "NotOnSale: token 1 is not on sale"


def test_a_token_is_withdrawn_and_handed_on(shop: Desk) -> None:
    shop.done("sell", 2, "0", "0.1234", key="owner")
    assert shop.refusal("withdraw", 2, key="alice") == (
        f"ERC721InsufficientApproval: token 2 is not {ALICE}'s, and its owner has not approved it"
    )
    assert "token 2 is on sale no more" in shop.done("withdraw", 2, key="owner")
    assert shop.refusal("withdraw", 2, key="owner") == "NotOnSale: token 2 is not on sale"
    lost = shop("transfer", 2, hex_of(CTT.address), key="owner")
    assert (lost.code, "a token would be lost there" in lost.err) == (64, True)
    shop.done("transfer", 2, hex_of(BOB), key="owner")
    assert shop.told("show", 2)["owner"] == hex_of(BOB)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("show", "999999"), 66, "there is no token 999999"),
        (("show", "first"), 64, "'first' is no token's number, 1 to 18446744073709551615"),
        (("sell", "1", "-1", "0.1", "--key", "k"), 64, "'-1' is no amount above 0"),
        (("sell", "1", "0.1", "0.00000000000000001", "--key", "k"), 64, "whole wei per Wh"),
        (("buy", "--key", "k"), 64, "one of the arguments"),
        (("buy", "1", "--empty", "1", "--key", "k"), 64, "not allowed with"),
        (("buy", "1", "--key", "missing.key"), 66, "no such key file"),
    ],
)
def test_wrong_arguments_are_named(shop: Desk, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = shop(*arguments)
    assert result.code == code
    assert text in result.err


def test_refusals_name_errors_of_the_module() -> None:
    assert REFUSALS.texts.keys() <= {error.name for error in CTT.errors.values()}
