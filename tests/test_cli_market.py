"""`ctt market` at a real node: orders, mandates, what stands and what cleared, and what each is refused for."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import address_of
from ctt_state.modules.market import MARKET
from ctt_state.units import PRICE_MAX, UINT64_MAX, hex_of
from node.cli.market import REFUSALS
from node.cli.options import energy_kwh, format_energy, format_price, price_per_kwh
from node.keys import create_key
from tests.cli_world import Ctt, Desk
from tests.ledger_world import BOB_KEY, OWNER_KEYS, OWNERS, document
from tests.live_node import GENESIS, LiveNode

PEOPLE: Final = ("ann", "ben", "cem", "dora")  # prosumers with five charged tokens each
ADDRESS: Final = dict(zip(PEOPLE, map(hex_of, OWNERS), strict=True))
STRANGER: Final = hex_of(address_of(BOB_KEY))  # has money, and no tokens


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    market = json.loads(GENESIS.read_bytes())["market"] | {"auctionBlocks": 6}
    with LiveNode(tmp_path_factory.mktemp("market") / "node", genesis=document(market=market)) as node:
        for name, key in [*zip(PEOPLE, OWNER_KEYS, strict=True), ("stranger", BOB_KEY)]:
            create_key(node.directory.parent / f"{name}.key", key)
        yield node


@pytest.fixture
def stall(capsys: pytest.CaptureFixture[str], node: LiveNode) -> Desk:
    return Desk(Ctt(capsys, "market", one_line=True), node)


# --- orders ---------------------------------------------------------------------------------------------------------


def test_an_order_stands_until_it_is_cancelled(stall: Desk) -> None:
    out = stall.done(
        "bid", "8", "0.10", "--source", "solar=0.12", "--partner", f"{ADDRESS['ben']}=0.13", key="ann"
    )
    assert "sent transaction 0x" in out and "stands until it is served or cancelled" in out
    told = stall.told("orders", ADDRESS["ann"])
    assert told["ask"] is None
    number = told["bid"].pop("orderId")
    assert told["bid"] == {
        "side": "bid",
        "owner": ADDRESS["ann"],
        "platform": None,
        "energyWh": "8000",
        "energy": "8.000 kWh",
        "limitWeiPerWh": "100000000000000",
        "limit": "0.1 per kWh",
        "sources": [{"source": "solar", "limitWeiPerWh": "120000000000000", "limit": "0.12 per kWh"}],
        "partners": [
            {"partner": ADDRESS["ben"], "limitWeiPerWh": "130000000000000", "limit": "0.13 per kWh"}
        ],
        "expiryAuction": str(UINT64_MAX),
    }
    shown = stall.done("orders", ADDRESS["ann"])
    assert "8.000" in shown and "solar 0.12, 0x" in shown and "the owner" in shown

    assert stall.refusal("cancel", number, key="ben") == (
        f"NotOwner: order {number} is of {ADDRESS['ann']}, not of {ADDRESS['ben']}"
    )
    assert stall.told("cancel", number, key="ann").keys() == {"transaction", "block"}
    assert "has no standing order" in stall.done("orders", ADDRESS["ann"])
    assert stall.refusal("cancel", number, key="ann") == (
        f"UnknownOrder: order {number} does not stand, or not any more"
    )


def test_what_an_order_comes_to_is_shown_before_it_is_sent(stall: Desk) -> None:
    """And it comes so."""
    asked = stall.told("ask", "2", "0.16", key="ben")
    foretold = stall.told("bid", "1.5", "0.20", "--dry-run", key="cem")
    assert foretold["dryRun"] and foretold["gas"] > 21_000
    price, share = int(foretold["clearing"]["priceWeiPerWh"]), foretold["clearing"]["share"]
    assert (share["boughtWh"], share["soldWh"]) == ("1500", "0")
    assert (share["paidWei"], share["gridFeeWei"]) == (str(1_500 * price), str(1_500 * 4 * 10**13))
    words = stall.done("bid", "1.5", "0.20", "--dry-run", key="cem")
    assert "of which this account buys 1.500 kWh for 0." in words and "grid fee of 0.06" in words
    assert stall.told("orders", ADDRESS["cem"])["bid"] is None  # nothing was sent

    bought = stall.told("bid", "1.5", "0.20", key="cem")
    cleared = wait_for(lambda: traded(stall, bought["block"]))
    assert (cleared["energyWh"], cleared["priceWeiPerWh"]) == ("1500", str(price))
    assert stall.told("orders", ADDRESS["ben"])["ask"]["energyWh"] == "500"
    listed = stall.done("auctions", "--from", cleared["auction"], "--limit", 1)
    assert listed.splitlines()[1].split()[:4] == [
        str(cleared["auction"]),
        str(cleared["clearedIn"]),
        format_price(price),
        "1.500",
    ]
    stall.done("cancel", asked["orderId"], key="ben")


def test_an_ask_is_foretold_too(stall: Desk) -> None:
    words = stall.done("ask", "1", "0.16", "--partner", f"{ADDRESS['ann']}=0", "--dry-run", key="dora")
    assert "ask of 1.000 kWh at 0.16 per kWh" in words
    assert "this account would trade nothing yet: the order would stand on" in words


def test_an_order_ends_with_its_auction(stall: Desk) -> None:
    while (current := stall.told("show")["market"]["auction"]) < 2:
        time.sleep(0.1)
    stall.done("bid", "1", "0.09", "--auctions", 500, key="dora")
    assert int(stall.told("orders", ADDRESS["dora"])["bid"]["expiryAuction"]) in range(
        current + 500, current + 503
    )
    out = stall.done("bid", "1", "0.09", "--until", 900, key="dora")
    assert "until the end of auction 900" in out
    assert "AuctionOver: auction 1 is over: " in stall.refusal("bid", "1", "0.09", "--until", 1, key="dora")
    stall.done("cancel", stall.told("orders", ADDRESS["dora"])["bid"]["orderId"], key="dora")


def test_a_platform_trades_within_its_mandate(stall: Desk) -> None:
    limits = ("--energy", 10, "--spend", "2.00", "--buy-limit", "0.25", "--sell-limit", "0.15")
    out = stall.done("mandate", "grant", ADDRESS["dora"], *limits, "--until", 1_000, key="ann")
    assert f"{ADDRESS['dora']} may trade for {ADDRESS['ann']} until the end of auction 1000" in out
    shown = stall.done("mandate", "show", ADDRESS["ann"], ADDRESS["dora"])
    assert "may trade 10.000 kWh and spend 2 for" in shown and "at most 0.25 per kWh" in shown

    acting = ("--for", ADDRESS["ann"], "--until", 1_000)
    number = stall.told("bid", "3", "0.09", *acting, key="dora")["orderId"]
    standing = stall.told("orders", ADDRESS["ann"])["bid"]
    assert (standing["orderId"], standing["platform"]) == (number, ADDRESS["dora"])
    outside = stall.refusal("bid", "30", "0.09", *acting, key="dora")
    assert outside.startswith("OutsideMandate: 30000 is asked for; the mandate's limit is 10000")
    stall.done("cancel", number, key="dora")  # its own

    assert "has no mandate any more" in stall.done("mandate", "revoke", ADDRESS["dora"], key="ann")
    gone = stall("mandate", "show", ADDRESS["ann"], ADDRESS["dora"])
    assert (gone.code, "has given" in gone.err) == (66, True)
    assert stall.refusal("mandate", "revoke", ADDRESS["dora"], key="ann").startswith("NoMandate: ")


def test_who_has_no_token_is_told_what_to_do(stall: Desk) -> None:
    assert stall.refusal("bid", "1", "0.20", "--dry-run", key="stranger") == (
        f"NoTokens: {STRANGER} owns no token, so it can neither give nor take energy; ctt token buy gets one"
    )


# --- what stands ----------------------------------------------------------------------------------------------------


def test_the_market_is_shown(stall: Desk) -> None:
    orders = {
        "ann": stall.told("bid", "2", "0.10", "--source", "wind=0.11", key="ann")["orderId"],
        "ben": stall.told("ask", "3", "0.29", key="ben")["orderId"],
        "cem": stall.told("ask", "1", "0.28", key="cem")["orderId"],
    }
    shown = stall.done("show")
    assert "tariff    0.08 to 0.30 per kWh, grid fee 0.04 on top" in shown
    assert "more blocks" in shown and "1 bids, 2 asks; 1000 orders can stand" in shown
    bids, asks = shown.splitlines()[-2:]
    assert bids.split()[1:] == [
        *("wind", "0.11", str(orders["ann"]), "2.000", "0.10"),
        *("0.28", "1.000", str(orders["cem"]), asks_owner("cem")),
    ]
    assert asks.split() == ["0.29", "3.000", str(orders["ben"]), asks_owner("ben")]
    assert "and 1 more: " in stall.done("show", "--orders", 1)

    told = stall.told("show")
    assert told["market"]["orders"] == 3 and told["book"]["askCount"] == 2
    assert told["blockPeriodMs"] == 333
    for name, number in orders.items():
        stall.done("cancel", number, key=name)


def test_on_a_terminal_it_is_asked_for_and_curves_are_drawn(stall: Desk) -> None:
    """In a process of its own, behind a pseudo-terminal."""
    key = stall.node.directory.parent / "ann.key"
    order = ("bid", "2", "0.10", "--source", "solar=0.11", "--key", str(key))
    code, text = on_terminal(stall.node, *order, answer=b"n\n")
    assert code == 77 and "send it? [y/N]" in text and "not confirmed; nothing was sent" in text
    assert "would now come to" in text and stall.told("orders", ADDRESS["ann"])["bid"] is None
    code, text = on_terminal(stall.node, *order, answer=b"y\n")
    assert code == 0 and "sent transaction" in text
    code, text = on_terminal(stall.node, "ask", "2", "0.29", "--key", str(key.with_name("ben.key")), "--yes")
    assert code == 0 and "send it?" not in text

    code, text = on_terminal(stall.node, "show")
    assert " 0.10* " in text  # no room for wishes
    assert code == 0 and "demand ━━━   supply ═══" in text and "━━━━━━" in text.split("wishes apart")[1]
    for name in ("ann", "ben"):
        for order_ in filter(None, (stall.told("orders", ADDRESS[name])[side] for side in ("bid", "ask"))):
            stall.done("cancel", order_["orderId"], key=name)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("bid", "1.2345", "0.2"),
            "1.2345 kWh: energy is in whole Wh, so 0.001 to 18446744073709551.615 with up to 3",
        ),
        (("bid", "0", "0.2"), "0 kWh: energy is in whole Wh, so 0.001 to "),
        (("bid", "-1", "0.2"), "'-1' is no energy in kWh such as 1.25"),
        (("ask", "1", "0.0000000000000001"), "a price is in whole wei per Wh, so 0 to 340282366920938463463"),
        (("ask", "1", "1e3"), "'1e3' is no price per kWh such as 0.19"),
        (("bid", "1", "0.2", "--source", "nuclear=0.1"), "sources: none, solar, wind, hydro, biomass, other"),
        (("bid", "1", "0.2", "--partner", "0x12=0.1"), "'0x12' is no address"),
        (("bid", "1", "0.2", "--partner", ADDRESS["ben"]), "is not ADDRESS=PRICE"),
        (("bid", "1", "0.2", "--until", "5", "--auctions", "5"), "not allowed with"),
        (("ask", "1", "0.2", "--source", "solar=0.1"), "unknown option --source"),
        (("bid", "1", "0.2", "--dryrun"), "did you mean --dry-run?"),
        (("auctions", "--limit", "101"), "101 is more than a page has: 1 to 100"),
        (("mandate", "grant", ADDRESS["ben"]), "--energy"),
    ],
)
def test_wrong_arguments_are_named(stall: Desk, arguments: tuple[str, ...], text: str) -> None:
    result = stall(*arguments, key="" if arguments[0] == "auctions" else "ann")
    assert result.code == 64
    assert text in result.err


def test_two_wishes_for_one_source_are_refused(stall: Desk) -> None:
    twice = ("--source", "solar=0.1", "--source", "solar=0.11")
    assert stall.refusal("bid", "1", "0.1", *twice, key="ann") == (
        "InvalidSource: source 1 is named twice, or there is none above 5"
    )


def test_every_error_of_the_module_has_its_words() -> None:
    assert {error.name for error in MARKET.errors.values()} <= REFUSALS.texts.keys()


@given(st.integers(1, UINT64_MAX), st.integers(0, PRICE_MAX))
def test_figures_come_back_from_their_text(wh: int, wei_per_wh: int) -> None:
    assert energy_kwh(format_energy(wh)) == wh
    assert price_per_kwh(format_price(wei_per_wh)) == wei_per_wh


# --- helpers --------------------------------------------------------------------------------------------------------


def wait_for(found: Callable[[], Any]) -> Any:
    """Asks until there is something."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answer = found()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("it never came")


def traded(stall: Desk, since: int) -> Any:
    """The auction that moved energy after this block, if there is one yet."""
    for each in stall.node.call("ctt_auctions", None, 5)["auctions"]:
        if each["clearedIn"] > since and each["energyWh"] != "0":
            return each
    return None


def asks_owner(name: str) -> str:
    return f"{ADDRESS[name][:6]}…{ADDRESS[name][-4:]}"


def on_terminal(node: LiveNode, *arguments: str, answer: bytes = b"") -> tuple[int, str]:
    """The command's exit code, and all that it wrote to its terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli.main", "market", *arguments, "--rpc", node.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=GENESIS.parent,
        env=os.environ | {"PYTHONPATH": str(GENESIS.parent)},
    )
    os.close(theirs)
    os.write(ours, answer)
    written = b""
    try:
        while chunk := os.read(ours, 65_536):
            written += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(20), written.decode()
