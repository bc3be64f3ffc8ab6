"""The chain's pages: what they show is what the node says, and they say when there is nothing new."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from apps.client import decode_log
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.units import hex_of
from tests.explorer.conftest import WAIT_MS_MAX, Chain, violations
from tests.ledger_world import BOB
from tests.live_node import LiveNode

Show = Callable[[str], Page]

PHONE: Final[ViewportSize] = {"width": 360, "height": 740}

PATHS = [
    "",
    "blocks",
    "block/{block}",
    "tx/{refused}",
    "tx/{purchase}",
    "account/{trader}",
    "validators",
    "search/1",
    "token/{token}",
    "tokens",
    "prosumer/{home}",
    "market",
    "supply",
]


def path_of(chain: Chain, path: str) -> str:
    return path.format(
        block=int(chain.call("eth_getTransactionReceipt", chain.purchase)["blockNumber"], 16),
        trader=chain.trader,
        purchase=chain.purchase,
        refused=chain.refused,
        token=token_of(chain)["tokenId"],
        home=chain.owners[0],
    )


def token_of(chain: Chain) -> Any:
    """One of those that the trader bought first: other tests buy more."""
    logs = chain.call("eth_getTransactionReceipt", chain.purchase)["logs"]
    (*_, token_id) = next(log["topics"] for log in logs if len(log["topics"]) == 4)
    return chain.call("ctt_token", int(token_id, 16))


@pytest.fixture
def show(page: Page) -> Show:
    """Opens one of the explorer's pages, and waits until it is there."""

    def show(path: str) -> Page:
        page.goto(f"/#/{path}")
        page.wait_for_selector("main .page, main .notice")
        return page

    return show


def until(page: Page, expression: str, arg: Any = None) -> None:
    """Waits for a JavaScript function to be true. Playwright's own way to wait for one is against the page's policy."""
    deadline = time.monotonic() + WAIT_MS_MAX / 1_000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, (expression, arg, page.url)
        page.wait_for_timeout(50)


def rows(page: Page, caption: str) -> list[list[str]]:
    """The cells of the table with this caption."""
    found = page.locator(f'table:has(caption:text-is("{caption}")) tbody tr')
    return [[cell.inner_text() for cell in row.locator("td").all()] for row in found.all()]


def fact(page: Page, name: str) -> str:
    return page.locator(f'dl.facts > div:has(dt:text-is("{name}")) dd').first.inner_text()


# --- the live chain ------------------------------------------------------------------------------------------------


def test_blocks_arrive_by_themselves(show: Show, chain: Chain) -> None:
    page = show("")
    expect(page.locator("#connection")).to_have_text("live")
    newest = page.locator(
        'table:has(caption:text-is("Newest final blocks")) tbody tr:first-child td:first-child'
    )
    height = int(newest.inner_text().replace(",", ""))
    until(
        page,
        "least => Number(document.querySelector('#main tbody td').textContent.replace(/,/g, '')) >= least",
        height + 4,
    )
    assert [abs(float(each) - 3) < 0.2 for each in [page.locator(".figure .value").nth(1).inner_text()]] == [
        True
    ]
    (validator,) = chain.call("ctt_validators", "latest")["validators"]
    ((name, state, heard, _, made),) = rows(page, "Validators")
    assert name == chain.call("ctt_nodeStatus")["validators"][0]["name"]
    assert state.split("\n") == ["present its turn"] and heard == "this node" and int(made) > 4
    page.get_by_role("link", name=name).first.click()
    expect(page.locator("h1")).to_have_text(validator["address"])


def test_the_newest_transactions_are_shown_with_what_they_do(show: Show, chain: Chain) -> None:
    """None is left out between them. After the street has ended, they are the clearings."""
    page = show("")
    expect(page.locator('caption:text-is("Newest transactions in final blocks")')).to_be_attached()
    shown = rows(page, "Newest transactions in final blocks")
    height = int(shown[0][3].replace(",", ""))
    hashes: list[tuple[str, str]] = []
    while len(hashes) < len(shown):
        block = chain.call("eth_getBlockByNumber", hex(height), False)
        hashes += [(each[:10], f"{height:,}") for each in reversed(block["transactions"])]
        height -= 1
    assert [(row[0].split("…")[0], row[3]) for row in shown] == hashes[: len(shown)]
    assert shown[0][1] == "clears the market"


def test_a_table_stands_still_while_somebody_is_at_it(show: Show) -> None:
    """Or its links would go away from under the pointer three times a second. The figures go on."""
    page = show("")
    card = page.locator("section.card", has=page.locator("h2", has_text=re.compile("^Blocks$")))
    height = page.locator(".figure .value").first
    card.locator("tbody").hover()
    expect(card.locator(".held")).to_be_visible()
    first, before = card.locator("tbody td").first.inner_text(), height.inner_text()
    expect(height).not_to_have_text(before)
    assert card.locator("tbody td").first.inner_text() == first
    page.locator("footer").hover()
    expect(card.locator(".held")).to_have_count(0)
    expect(card.locator("tbody td").first).not_to_have_text(first)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[LiveNode]:
    with LiveNode(tmp_path / "node") as node:
        yield node


def test_a_chain_that_stands_still_and_a_node_that_is_gone_are_not_called_live(
    browser: Browser, lone: LiveNode
) -> None:
    page = browser.new_page(base_url=lone.url, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(WAIT_MS_MAX)
    page.goto("/")
    sign = page.locator("#connection")
    expect(sign).to_have_text("live")
    lone.process.send_signal(signal.SIGSTOP)
    expect(sign).not_to_have_text("live")
    lone.process.send_signal(signal.SIGCONT)
    expect(sign).to_have_text("live")
    lone.kill()
    expect(sign).to_have_text("connection lost")
    lone.restart()
    expect(sign).to_have_text("live")
    page.close()


def test_no_explorer_where_none_is_wanted(browser: Browser, tmp_path: Path) -> None:
    with LiveNode(tmp_path / "node", flags=("--no-explorer",)) as node:
        page = browser.new_page(base_url=node.url)
        page.goto("/")
        assert re.fullmatch(r"ok height \d+", page.locator("body").inner_text().strip())
        answer = page.goto("/static/app.js")
        assert answer is not None and answer.status == 404
        page.close()


# --- its pages -----------------------------------------------------------------------------------------------------


def test_a_block_is_shown_as_the_node_tells_it(show: Show, chain: Chain) -> None:
    receipt = chain.call("eth_getTransactionReceipt", chain.purchase)
    block = chain.call("eth_getBlockByNumber", receipt["blockNumber"], False)
    page = show(f"block/{int(receipt['blockNumber'], 16)}")
    assert fact(page, "Hash") == block["hash"]
    assert fact(page, "State root") == block["stateRoot"]
    assert fact(page, "Certificate") == "of this very block"
    assert fact(page, "Gas used").startswith(f"{int(block['gasUsed'], 16):,} of ")
    at = int(receipt["transactionIndex"], 16)
    hash_, what, _, gas, outcome = rows(page, "Transactions of this block")[at]
    assert (what, gas, outcome) == ("buyEmptyTokens", f"{int(receipt['gasUsed'], 16):,}", "done")
    assert chain.purchase.startswith(hash_.split("…")[0])
    page.get_by_role("link", name="← before").click()
    expect(page.locator("h1")).to_have_text(f"Block {int(receipt['blockNumber'], 16) - 1}")


def test_a_transaction_is_shown_by_the_abi(show: Show, chain: Chain) -> None:
    page = show(f"tx/{chain.purchase}")
    expect(page.locator("h1")).to_have_text("CTT: buy empty tokens")
    assert rows(page, "Arguments of buyEmptyTokens") == [["count", "uint256", "2"]]
    assert fact(page, "Value") == "0.02"
    logs = chain.call("eth_getTransactionReceipt", chain.purchase)["logs"]
    expect(page.locator(".event h3")).to_have_text(f"CTT · Transfer ({len(logs)})")
    assert [row[0::3] for row in rows(page, "CTT · Transfer")] == [
        [str(int(log["logIndex"], 16)), f"CTT {int(log['topics'][3], 16)}"] for log in logs
    ]
    assert show(f"tx/{chain.payment}").locator("h1").inner_text() == "pays 1.00"


def test_a_clearing_tells_its_trades_in_kwh_and_per_kwh(show: Show, chain: Chain) -> None:
    (trade,) = [event for event in MARKET.events.values() if event.name == "Trade"]
    logs = chain.call("eth_getLogs", {"fromBlock": "0x0", "topics": [hex_of(trade.topic)]})
    of_one = [log for log in logs if log["transactionHash"] == logs[0]["transactionHash"]]
    figures = [decode_log(MARKET, log) for log in of_one]
    expected = [
        [
            f"{values['energy'] / 1000:.3f} kWh",
            f"{Decimal(values['price']).scaleb(-15).normalize():f} per kWh",
        ]
        for _, values in filter(None, figures)
    ]
    page = show(f"tx/{logs[0]['transactionHash']}")
    expect(page.locator("h1")).to_have_text("Market: clear")
    assert fact(page, "Type") == "the block's own"
    assert [row[3:] for row in rows(page, "Market · Trade")] == expected


def test_a_refusal_is_told_in_words(show: Show, chain: Chain) -> None:
    page = show(f"tx/{chain.refused}")
    said = page.locator(".notice").inner_text()
    assert re.fullmatch(r"Refused: ERC721 nonexistent token: tokenId 99999999", said), said
    expect(page.locator(".head .tag")).to_have_text("refused")


def test_an_account_a_module_a_meter(show: Show, chain: Chain) -> None:
    page = show(f"account/{chain.trader}")
    balance = int(chain.call("eth_getBalance", chain.trader, "latest"), 16)
    assert fact(page, "Balance").replace(",", "") == f"{balance // 10**18}.{balance % 10**18:018d}".rstrip(
        "0"
    )
    assert int(fact(page, "Transactions sent")) == int(
        chain.call("eth_getTransactionCount", chain.trader, "latest"), 16
    )
    expect(page.get_by_text("the database of ctt index does")).to_be_visible()
    expect(show(f"account/{hex_of(CTT.address)}").locator(".head .tag")).to_have_text("the module CTT")
    page = show(f"account/{chain.owners[0]}")
    tokens = chain.call("ctt_prosumer", chain.owners[0])["tokens"]["count"]
    assert fact(page, "Tokens").startswith(f"{tokens}, of which")


def test_blocks_come_a_page_at_a_time(show: Show, chain: Chain) -> None:
    page = show("blocks/30")
    assert [row[0] for row in rows(page, "Blocks 30 and below")] == [str(30 - at) for at in range(25)]
    page.get_by_role("link", name="Older →").click()
    page.wait_for_selector('caption:text-is("Blocks 5 and below")', state="attached")
    assert [row[0] for row in rows(page, "Blocks 5 and below")] == ["5", "4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("{purchase}", "#/tx/{purchase}"),
        ("{block_hash}", "#/block/{block}"),
        ("{bob}", "#/account/{bob}"),
        ("{trader}", "#/prosumer/{trader}"),
        ("{owner}", "#/prosumer/{owner}"),
        ("{meter}", "#/account/{meter}"),
        ("CTT 3", "#/token/3"),
        ("{validator}", "#/account/{validator_address}"),
    ],
)
def test_what_is_typed_finds_its_page(page: Page, chain: Chain, typed: str, place: str) -> None:
    receipt = chain.call("eth_getTransactionReceipt", chain.purchase)
    validator = chain.call("ctt_nodeStatus")["validators"][0]
    names: dict[str, Any] = {
        "purchase": chain.purchase,
        "trader": chain.trader,
        "bob": hex_of(BOB),
        "owner": chain.owners[0],
        "meter": chain.meters[0],
        "block": int(receipt["blockNumber"], 16),
        "block_hash": receipt["blockHash"],
        "validator": validator["name"],
        "validator_address": validator["address"],
    }
    page.goto("/")
    page.get_by_label("Search").fill(typed.format(**names))
    page.keyboard.press("Enter")
    until(page, "place => location.hash === place", place.format(**names))


def test_a_number_that_is_a_block_and_a_token_offers_both(show: Show) -> None:
    page = show("search/1")
    assert page.locator("main li a").all_inner_texts()[:2] == ["Block 1", "CTT 1"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("search/no such thing", "Nothing found for “no such thing”"),
        ("block/999999999", "Block 999999999 is not there yet."),
        (f"block/0x{'ab' * 32}", "No final block has this hash."),
        (f"tx/0x{'ab' * 32}", "This node knows no transaction with this hash"),
        ("no/such/page", "There is no page “no/such/page”."),
        ("search/%3Cimg src=x onerror=alert(1)%3E", "Nothing found for “<img src=x onerror=alert(1)>”"),
    ],
)
def test_what_is_not_there_is_said(show: Show, path: str, said: str) -> None:
    assert said in show(path).locator("main").inner_text()


# --- for everybody -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_for_all_to_use(page: Page, show: Show, chain: Chain, axe: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for path in PATHS:
        show(path_of(chain, path))
        assert violations(page, axe) == [], path


def test_pages_fit_a_phone(page: Page, show: Show, chain: Chain) -> None:
    page.set_viewport_size(PHONE)
    for path in PATHS:
        show(path_of(chain, path))
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("main .page")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "() => location.hash === '#/blocks'")
    until(page, "() => document.activeElement.id === 'main'")
