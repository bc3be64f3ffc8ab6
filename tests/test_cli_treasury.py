"""`ctt treasury`: deposits become money, money is paid back, and the statement adds up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.demo.street import TREASURER_KEY
from ctt_state.crypto import address_of
from ctt_state.modules.treasury import TREASURY
from ctt_state.units import hex_of
from node.cli.options import amount, format_amount
from node.cli.treasury import REFUSALS
from node.keys import create_key
from tests.cli_world import Ctt, Desk
from tests.live_node import LiveNode
from tests.rpc_world import ALICE, BOB, BOB_KEY

HOLDER: Final = hex_of(ALICE)
TREASURER: Final = hex_of(address_of(TREASURER_KEY))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("treasury") / "node") as node:
        create_key(node.directory.parent / "treasurer.key", TREASURER_KEY)
        create_key(node.directory.parent / "stranger.key", BOB_KEY)
        yield node


@pytest.fixture
def desk(capsys: pytest.CaptureFixture[str], node: LiveNode) -> Desk:
    return Desk(Ctt(capsys, "treasury", one_line=True), node, key="treasurer")


def test_a_treasurer_issues_redeems_and_shows_its_books(desk: Desk, node: LiveNode) -> None:
    issued = desk.done("issue", HOLDER, "250.5", "--reference", "deposit 1")
    assert f"{HOLDER} has got 250.50\n" in issued
    assert int(node.call("eth_getBalance", HOLDER, "latest"), 16) == 250_500_000_000_000_000_000
    assert "80.00 are redeemed" in desk.done("redeem", "80", "--reference", "payout 1")

    told = json.loads(desk.done("statement", "--json", key=""))
    assert (told["openingWei"], told["closingWei"]) == ("0", str(170_500_000_000_000_000_000))
    first, second = told["entries"]
    assert (first["to"], first["changeWei"], first["text"]) == (HOLDER, str(250_500 * 10**15), "deposit 1")
    assert (second["to"], second["changeWei"], second["treasurer"]) == (None, str(-80 * 10**18), TREASURER)

    shown = desk.done("statement", "--from", first["block"], "--to", first["block"], key="")
    assert "1 bookings; outstanding after block" in shown
    assert shown.rstrip().endswith("250.50")
    later = json.loads(desk.done("statement", "--from", second["block"], "--json", key=""))
    assert (later["openingWei"], len(later["entries"])) == (first["changeWei"], 1)


def test_what_was_booked_is_not_booked_again(desk: Desk) -> None:
    desk.done("issue", HOLDER, "1", "--reference", "twice")
    assert desk.refusal("issue", HOLDER, "1", "--reference", "twice").startswith(
        "ReferenceUsed: twice was booked in"
    )


def test_refusals_are_told_in_words(desk: Desk) -> None:
    stranger = hex_of(BOB)
    assert desk.refusal("issue", HOLDER, "1", "--reference", "x", key="stranger") == (
        f"NotTreasurer: {stranger} is no treasurer; the admin makes one by ctt treasury allow"
    )
    assert desk.refusal("allow", HOLDER, key="stranger") == f"NotAdmin: {stranger} is not the CTT's admin"
    assert "it can be 0.000000000000000001 to" in desk.refusal("redeem", "99999999999", "--reference", "y")


def test_the_admin_allows_and_dismisses(desk: Desk) -> None:
    stranger = hex_of(BOB)
    assert f"{stranger} is a treasurer" in desk.done("allow", stranger)
    issued = desk.told("issue", HOLDER, "2", "--reference", "another's", key="stranger")
    assert (issued["to"], issued["amountWei"]) == (HOLDER, str(2 * 10**18))
    dismissed = desk.told("dismiss", stranger)
    assert (dismissed["account"], dismissed["isTreasurer"]) == (stranger, False)
    assert dismissed["block"] > issued["block"]
    assert "NotTreasurer" in desk.refusal("issue", HOLDER, "2", "--reference", "z", key="stranger")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("issue", HOLDER, "0", "--reference", "x", "--key", "k"), 64, "'0' is no amount above 0"),
        (
            ("issue", HOLDER, "1.0000000000000000001", "--reference", "x", "--key", "k"),
            64,
            "up to 18 decimals",
        ),
        (("issue", HOLDER, "-1", "--reference", "x", "--key", "k"), 64, "no amount above 0"),
        (
            ("issue", HOLDER, "1", "--reference", "é" * 17, "--key", "k"),
            64,
            "has 34 bytes; a reference has 1 to 32",
        ),
        (("issue", HOLDER, "1", "--reference", "x", "--key", "missing.key"), 66, "no such key file"),
        (("statement", "--from", "9", "--to", "8"), 64, "blocks 9 to 8: there are 1 to"),
        (("statement", "--to", "999999999"), 64, "there are 1 to"),
    ],
)
def test_wrong_arguments_are_named(desk: Desk, arguments: tuple[object, ...], code: int, text: str) -> None:
    result = desk(str(arguments[0]), *arguments[1:])
    assert result.code == code
    assert text in result.err


def test_every_error_of_the_module_has_its_words() -> None:
    assert {error.name for error in TREASURY.errors.values()} <= REFUSALS.texts.keys()


@given(st.integers(1, 2**128))
def test_amounts_come_back_from_their_text(wei: int) -> None:
    assert amount(format_amount(wei)) == wei


def test_a_key_file_is_needed(desk: Desk, tmp_path: Path) -> None:
    result = desk("issue", HOLDER, "1", "--reference", "x")
    assert (result.code, "--key" in result.err) == (64, True)
