"""Four validators, two of which hang: the explorer says since when nothing is final, and who is missing."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.explorer.conftest import WAIT_MS_MAX
from tests.live_network import LiveNetwork, wait_for

FIRST_PORT = 21_600


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    with LiveNetwork(tmp_path_factory.mktemp("finality") / "network", first_port=FIRST_PORT) as network:
        wait_for(lambda: network.height() > 1)
        yield network


def test_without_a_quorum_it_says_stalled_and_who_is_missing(browser: Browser, network: LiveNetwork) -> None:
    page = browser.new_page(base_url=network.url(), locale="en-GB")
    page.goto("/")
    sign = page.locator("#connection")
    expect(sign).to_have_text("live", timeout=WAIT_MS_MAX)
    expect(page.locator("main .tag.ok")).to_have_count(4, timeout=WAIT_MS_MAX)
    assert states(page) == {f"validator-{number}": "present" for number in (1, 2, 3, 4)}

    rate = page.locator(".figure .value").nth(1)
    before = float(rate.inner_text())
    hanging = [int((network.key_file(number).parent / "node.lock").read_text()) for number in (3, 4)]
    try:
        for process in hanging:
            os.kill(process, signal.SIGSTOP)
        expect(sign).to_have_text(re.compile(r"^stalled since \d\d:\d\d:\d\d$"), timeout=WAIT_MS_MAX)
        wait_for(lambda: float(rate.inner_text()) < before / 1.2)
        expect(page.locator("main .tag.bad")).to_have_text(["missing"] * 2, timeout=WAIT_MS_MAX)
        assert {name for name, state in states(page).items() if state == "missing"} == {
            "validator-3",
            "validator-4",
        }
    finally:
        for process in hanging:
            os.kill(process, signal.SIGCONT)
    expect(sign).to_have_text("live", timeout=WAIT_MS_MAX)
    expect(page.locator("main .tag.bad")).to_have_count(0, timeout=WAIT_MS_MAX)
    page.close()


def states(page: Page) -> dict[str, str]:
    """What the page says of each validator, but for whose turn it is."""
    found = page.get_by_role("table", name="Validators").locator("tbody tr").all()
    cells = [row.locator("td").all_inner_texts() for row in found]
    return {name: state.split()[0] for name, state, *_ in cells}
