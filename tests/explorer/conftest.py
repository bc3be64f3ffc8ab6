"""A node with a street's history, and Debian's Chromium, headless, in front of its explorer."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

from apps.client import Client, Wallet
from apps.demo.street import Street
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from tests.clients import packages
from tests.ledger_world import ALICE_KEY, BOB, CHAIN_ID
from tests.live_node import LiveNode

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
HOMES: Final = 12  # the last one is a solar farm
NOON: Final = 48  # the quarter that the street begins with
QUARTERS: Final = 4
QUARTER_SECONDS: Final = 0.4  # auctions between quarters
WAIT_MS_MAX: Final = 30_000.0

expect.set_options(timeout=WAIT_MS_MAX)

Watch = Callable[..., AbstractContextManager[Page]]


@dataclass(frozen=True)
class Chain:
    """A running node, and what it has to show. Addresses and hashes are hexadecimal."""

    node: LiveNode
    owners: list[str]  # of the street's homes, in its order
    meters: list[str]
    trader: str  # has bought tokens; its key is ALICE_KEY
    payment: str
    purchase: str  # of two empty tokens
    refused: str  # a transfer of a token that nobody has

    @property
    def url(self) -> str:
        return self.node.url

    def call(self, method: str, *params: Any) -> Any:
        return self.node.call(method, *params)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """An hour of a street about noon, its auctions, and a trader's transactions; after that nothing happens but what
    a test does."""
    chromium_program()
    with LiveNode(tmp_path_factory.mktemp("explorer") / "node", flags=("--account-slots", "1024")) as node:
        with ThreadPoolExecutor(1) as thread:  # in its own, for Playwright has a loop in this one
            lived = thread.submit(asyncio.run, _live(node)).result()
        yield lived


async def _live(node: LiveNode) -> Chain:
    async with Client(node.url) as client:
        street = Street(client, CHAIN_ID, HOMES)
        await street.build()
        street.news.quarter = NOON
        for _ in range(QUARTERS):
            await street.live_quarter()
            await asyncio.sleep(QUARTER_SECONDS)
        trader = Wallet(client, ALICE_KEY, CHAIN_ID)
        sent = [
            await trader.send_raw(BOB, 10**18),
            await trader.send(CTT, "buyEmptyTokens(uint256)", 2, value=2 * 10**16),
            await trader.send(CTT, "transferFrom(address,address,uint256)", trader.address, BOB, 99_999_999),
        ]
        receipts = [await client.receipt(each) for each in sent]
        assert [receipt["status"] for receipt in receipts] == ["0x1", "0x1", "0x0"]
        return Chain(
            node,
            [hex_of(home.owner.address) for home in street.homes],
            [hex_of(home.meter.address) for home in street.homes],
            hex_of(trader.address),
            *sent,
        )


def chromium_program() -> str:
    """Without it the test is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium")
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium_program(), args=["--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def watch(browser: Browser, chain: Chain) -> Watch:
    """Opens a page whose test fails with whatever the browser has to complain about: a context manager that takes
    Playwright's options of a context."""

    @contextmanager
    def watched(**options: Any) -> Iterator[Page]:
        context = browser.new_context(base_url=chain.url, locale="en-GB", **options)
        context.set_default_timeout(WAIT_MS_MAX)
        page = context.new_page()
        faults = _collect_faults(page, chain.url)
        yield page
        context.close()
        assert faults == []

    return watched


def _collect_faults(page: Page, url: str) -> list[str]:
    """Errors of the console and of scripts, refusals, and requests to elsewhere, as they come."""
    faults: list[str] = []
    home = (url + "/", url.replace("http", "ws") + "/", "data:", "blob:")

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    def on_request(request: Request) -> None:
        if not request.url.startswith(home):
            faults.append(f"request to {request.url}")

    def on_response(response: Response) -> None:
        if response.status >= 400:
            faults.append(f"{response.status} of {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", on_request)
    page.on("response", on_response)
    page.on(
        "websocket", lambda socket: faults.extend([socket.url] if not socket.url.startswith(home) else [])
    )
    return faults


@pytest.fixture
def page(watch: Watch) -> Iterator[Page]:
    with watch() as opened:
        yield opened


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which finds what people without a mouse or good eyes stumble over."""
    packages.install()
    return (packages.MODULES / "axe-core" / "axe.min.js").read_text()


def violations(page: Page, axe: str) -> list[str]:
    """What axe finds on the page as it is now: rule, and the elements."""
    page.evaluate(axe)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{each['id']}: {[node['html'][:150] for node in each['nodes'][:3]]}" for each in found]
