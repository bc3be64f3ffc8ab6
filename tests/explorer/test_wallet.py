"""Trading from a page, with a wallet that the page finds as any other: it signs with a development key."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Page, expect

from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, hex_of
from tests.explorer.conftest import Chain, Watch, violations
from tests.explorer.test_chain import PHONE
from tests.ledger_world import ALICE_KEY, BOB_KEY, CHAIN_ID

ALICE: Final = hex_of(address_of(ALICE_KEY))
# Announces itself by EIP-6963; what it is asked goes to Python.
WALLET: Final = """
const provider = {
  request: async ({ method, params }) => {
    const { result, error } = await window.askTestWallet(method, params ?? []);
    if (error) throw Object.assign(new Error(error.message), { code: error.code });
    return result;
  },
  on: () => {},
};
const announce = () => dispatchEvent(new CustomEvent("eip6963:announceProvider", {
  detail: { info: { uuid: "1", name: "Test wallet", icon: "", rdns: "test" }, provider },
}));
addEventListener("eip6963:requestProvider", announce);
"""


class Wallet:
    """Knows Alice's account, and at first another chain; `rejects` what it is asked to sign."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._chain_id = "0x1"
        self.rejects = False
        self.asked: list[str] = []

    def ask(self, method: str, params: list[Any]) -> dict[str, Any]:
        self.asked.append(method)
        if self.rejects and method in ("eth_requestAccounts", "eth_sendTransaction"):
            return {"error": {"code": 4001, "message": "User rejected the request."}}
        match method:
            case "eth_requestAccounts":
                return {"result": [ALICE]}
            case "eth_chainId":
                return {"result": self._chain_id}
            case "wallet_switchEthereumChain":
                return {"error": {"code": 4902, "message": "Unrecognized chain"}}
            case "wallet_addEthereumChain":
                self._chain_id = params[0]["chainId"]
                return {"result": None}
            case "eth_sendTransaction":
                return {"result": self._send(params[0])}
        raise AssertionError(method)

    def _send(self, request: dict[str, str]) -> Any:
        raw = sign_transaction(
            ALICE_KEY,
            chain_id=CHAIN_ID,
            nonce=int(self._chain.call("eth_getTransactionCount", ALICE, "pending"), 16),
            gas_limit=int(request["gas"], 16),
            to=Address(bytes.fromhex(request["to"][2:])),
            value=int(request["value"], 16),
            data=bytes.fromhex(request["data"][2:]),
        )
        return self._chain.call("eth_sendRawTransaction", hex_of(raw))


@pytest.fixture
def wallet(chain: Chain) -> Wallet:
    return Wallet(chain)


@pytest.fixture
def desk(watch: Watch, wallet: Wallet) -> Iterator[Page]:
    """The page, with the wallet connected."""
    with watch() as page:
        page.expose_function("askTestWallet", wallet.ask)
        page.add_init_script(WALLET)
        page.goto("/#/wallet")
        page.get_by_role("button", name="Connect Test wallet").click()
        expect(page.get_by_text("connected")).to_be_visible()
        yield page


def fill(page: Page, form: str, **values: str) -> None:
    place = page.get_by_role("form", name=form, exact=True)
    for name, value in values.items():
        place.locator(f"input[name={name}]").fill(value)
    place.get_by_role("button").click()


def told(page: Page, form: str, text: str) -> None:
    """What the form says in the end."""
    place = page.locator(f".deal:has(form[aria-label='{form}']) .told")
    expect(place).to_contain_text(text)


def tokens(chain: Chain) -> int:
    return int(chain.call("ctt_tokensOf", ALICE, 0, 1)["count"])


def test_it_is_connected_and_learns_the_chain(desk: Page, wallet: Wallet) -> None:
    assert wallet.asked == [
        "eth_requestAccounts",
        "eth_chainId",
        "wallet_switchEthereumChain",
        "wallet_addEthereumChain",
    ]
    expect(desk.locator("main")).to_contain_text(ALICE)


def test_empty_tokens_are_bought(desk: Page, chain: Chain) -> None:
    before = tokens(chain)
    desk.get_by_role("form", name="Buy", exact=True).locator("input").fill("3")
    expect(desk.get_by_role("form", name="Buy", exact=True)).to_contain_text(
        "costs 0.03, room for 30.000 kWh"
    )
    fill(desk, "Buy", count="3")
    told(desk, "Buy", "Done: 0x")
    assert tokens(chain) == before + 3


def test_a_token_is_offered_withdrawn_and_another_ones_bought(desk: Page, chain: Chain) -> None:
    mine = chain.call("ctt_tokensOf", ALICE, 0, 1)["tokens"][0]["tokenId"]
    fill(desk, "Offer", id=str(mine), token="0.5", energy="0.1")
    told(desk, "Offer", "Done: 0x")
    assert chain.call("ctt_token", mine)["sellingPrice"] == "0.5"
    desk.get_by_role("button", name="Withdraw").first.click()
    expect(desk.get_by_role("button", name="Withdraw")).to_have_count(0)
    assert not chain.call("ctt_token", mine)["onSale"]

    other = sell_of_bob(chain)
    desk.goto(f"/#/token/{other}")
    desk.get_by_role("button", name="Buy for 0.25").click()
    expect(desk.locator("main")).to_contain_text(ALICE)
    assert chain.call("ctt_token", other)["owner"] == ALICE


def sell_of_bob(chain: Chain) -> int:
    """Bob buys an empty token, and offers it."""
    bob = hex_of(address_of(BOB_KEY))

    def send(signature: str, *arguments: int, value: int = 0) -> None:
        nonce = int(chain.call("eth_getTransactionCount", bob, "latest"), 16)
        data = CTT.named(signature).encode_arguments(*arguments)
        raw = sign_transaction(
            BOB_KEY,
            chain_id=CHAIN_ID,
            nonce=nonce,
            gas_limit=1_000_000,
            to=CTT.address,
            value=value,
            data=data,
        )
        assert chain.call("eth_sendRawTransactionSync", hex_of(raw))["status"] == "0x1"

    send("buyEmptyTokens(uint256)", 1, value=10**16)
    token = int(chain.call("ctt_supply")["tokens"])
    send("setOnSale(uint256,uint256,uint256)", token, 25 * 10**16, 10**14)
    return token


def test_a_bid_stands_in_the_book_until_it_is_cancelled(desk: Page, chain: Chain) -> None:
    fill(desk, "Bid", energy="2.5", limit="0.09")
    told(desk, "Bid", "Done: 0x")
    bid = chain.call("ctt_ordersOf", ALICE)["bid"]
    assert (bid["energyWh"], bid["limitWeiPerWh"]) == ("2500", "90000000000000")
    desk.get_by_role("button", name="Cancel").click()
    expect(desk.get_by_role("button", name="Cancel")).to_have_count(0)
    assert chain.call("ctt_ordersOf", ALICE)["bid"] is None


def test_what_the_chain_would_refuse_is_said_before_the_wallet_asks(desk: Page, wallet: Wallet) -> None:
    fill(desk, "Offer", id="1", token="0", energy="0.1")
    told(desk, "Offer", "ERC721 insufficient approval")
    assert "eth_sendTransaction" not in wallet.asked


@pytest.mark.parametrize(
    ("form", "values", "said"),
    [
        ("Buy", {"count": "101"}, "“101” is no whole number from 1 to 100."),
        ("Buy", {"count": "1.5"}, "“1.5” is no whole number from 1 to 100."),
        ("Bid", {"energy": "2.5555", "limit": "0.09"}, "“2.5555” is not kWh, with three decimals at most."),
        ("Bid", {"energy": "2.5", "limit": "-1"}, "“-1” is not a price per kWh."),
    ],
)
def test_what_is_no_such_value_is_named(
    desk: Page, wallet: Wallet, form: str, values: dict[str, str], said: str
) -> None:
    fill(desk, form, **values)
    expect(desk.locator(".told.bad")).to_have_text(said)
    assert "eth_sendTransaction" not in wallet.asked


def test_who_rejects_has_sent_nothing(desk: Page, wallet: Wallet, chain: Chain) -> None:
    before = tokens(chain)
    wallet.rejects = True
    fill(desk, "Buy", count="1")
    told(desk, "Buy", "You rejected it in the wallet.")
    assert tokens(chain) == before


def test_without_a_wallet_the_page_says_what_would_do(page: Page) -> None:
    page.goto("/#/wallet")
    expect(page.locator(".notice")).to_contain_text("This browser has no wallet.")


def test_the_page_is_for_all_to_use(desk: Page, axe: str) -> None:
    assert violations(desk, axe) == []
    desk.set_viewport_size(PHONE)
    assert desk.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
