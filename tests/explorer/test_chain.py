"""The explorer's pages of the chain show what JSON-RPC answers, in a real browser."""

from playwright.sync_api import Page, expect


def test_the_chain_lives_on_the_home_page(page: Page) -> None:
    """Blocks arrive by themselves, and the page says that they do."""
    page.goto("/")

    expect(page.locator("#connection")).to_have_text("live")
    newest = page.get_by_role("table", name="Blocks").locator("tbody tr a").first
    shown = newest.inner_text()
    expect(newest).not_to_have_text(shown)
