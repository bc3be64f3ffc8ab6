"""The pages of tokens, homes, market and supply show what the node says."""

from playwright.sync_api import expect

from tests.explorer.conftest import Chain
from tests.explorer.test_chain import Show, fact, rows, show, token_of

__all__ = ["show"]


def test_a_token_tells_charge_owner_and_history(show: Show, chain: Chain) -> None:
    token = token_of(chain)
    page = show(f"token/{token['tokenId']}")
    assert fact(page, "Owner") == chain.trader
    expect(page.locator("svg.battery")).to_have_attribute(
        "aria-label", f"{token['energy']}, {token['chargePercent']} % of what it can hold"
    )
    *_, born = rows(page, "Newest events of this token")
    assert born[1] == "Bought empty or full, for the first time"
    assert chain.purchase.startswith(born[-1].split("…")[0])


def test_tokens_are_listed_newest_first(show: Show, chain: Chain) -> None:
    last = chain.call("ctt_supply")["tokens"]
    page = show("tokens")
    shown = rows(page, f"Token {last} and below")
    assert [row[0] for row in shown] == [f"CTT {last - at}" for at in range(25)]
    assert shown[0][2:4] == ["0.000 kWh", "0 %"]


def test_a_home_tells_what_it_did_with_its_energy(show: Show, chain: Chain) -> None:
    for owner in chain.owners:
        home = chain.call("ctt_prosumer", owner)
        page = show(f"prosumer/{owner}")
        assert fact(page, "Produced") == home["everProduced"]
        assert fact(page, "of that billed") == home["everBilled"]
        assert fact(page, "Address").split()[0] == home["meter"]
        assert len(rows(page, "Its tokens")) == home["tokens"]["count"]
        readings = chain.call("ctt_readings", owner, "0x1", "latest")["readings"]
        page.get_by_text("As a table").first.click()
        curve = rows(page, "Energy of each reading: produced, consumed, and covered by tokens")
        assert len(curve) == len({each["timeMs"] for each in readings})
        kwh = sum(float(row[2].split()[0]) for row in curve)
        assert round(kwh * 1_000) == int(home["everConsumedWh"])
    assert chain.call("ctt_prosumer", f"0x{'12' * 20}") is None
    expect(show(f"prosumer/0x{'12' * 20}").locator(".notice")).to_contain_text("knows no tokens")


def test_the_market_tells_tariff_book_and_auctions(show: Show, chain: Chain) -> None:
    page = show("market")
    tariff = chain.call("ctt_market")
    assert fact(page, "Feed-in and retail price") == f"{tariff['floor']} and {tariff['ceiling']}"
    auctions = chain.call("ctt_auctions", hex(2**63), 100)["auctions"]
    traded = [each for each in auctions if int(each["energyWh"])]
    assert traded
    shown = {row[0]: row for row in rows(page, "Auctions, newest first")}
    for each in traded[:5]:
        _, cleared, _, energy, bids, asks = shown[f"{each['auction']:,}"]
        assert (cleared, energy) == (f"{each['clearedIn']:,}", each["energy"])
        assert (int(bids), int(asks)) == (each["bids"], each["asks"])
    book = chain.call("ctt_orderBook", 0, 100)
    assert fact(page, "Orders").startswith(f"{book['bidCount']} bids, {book['askCount']} asks")


def test_supply_is_tokens_times_what_each_holds(show: Show, chain: Chain) -> None:
    page = show("supply")
    supply = chain.call("ctt_supply")
    terms = [each.split()[0].replace(",", "") for each in page.locator(".equation .value").all_inner_texts()]
    assert int(terms[0]) * float(terms[1]) == float(terms[2])
    assert fact(page, "They hold").startswith(supply["energyStored"])


def test_what_is_not_there_is_said(show: Show) -> None:
    expect(show("token/99999999").locator(".notice")).to_contain_text("There is no token 99,999,999")
