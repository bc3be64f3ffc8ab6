"""The demonstration: its profiles, its screen, and a street that lives on a real node, also the next day."""

import asyncio
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from apps.client import Client, RpcError, Wallet, decode_log
from apps.demo.board import Board, board_json, board_line, draw_picture
from apps.demo.home import FIRST_QUARTER, GIVER, PLATFORMS_CLIENTS, RECEIVER, Kind, News
from apps.demo.network import Head, NetworkWatch, Seen
from apps.demo.play import Scene, play
from apps.demo.profiles import (
    HOUSEHOLD_WH,
    HOUSEHOLD_WITH_PV_WH,
    QUARTERS_A_DAY,
    SUN,
    consumption_wh,
    grid_draw_with_pv_wh,
    production_wh,
    wind_wh,
)
from apps.demo.screen import render, status_json, status_line
from apps.demo.street import POCKET_MONEY_WEI, POOR_WEI, Street
from apps.demo.traders import GRANT, MANDATE_WEI, MANDATE_WH
from apps.demo.trading import SOLAR, Order, Situation, Tariff, make_ask, make_bid
from apps.demo.watch import Auction, HomeState, Trade, Watch, follow_auctions
from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.units import Address, hex_of
from tests.ledger_world import ADMIN_KEY, ALICE_KEY, CHAIN_ID
from tests.live_node import LiveNode

HOMES = 12  # the last one is the farm
URL = "http://127.0.0.1:1"
ADDRESS = Address(bytes(range(20)))


# --- profiles ---


def test_the_profiles_are_those_of_a_whole_day() -> None:
    assert len(HOUSEHOLD_WH) == len(HOUSEHOLD_WITH_PV_WH) == len(SUN) == QUARTERS_A_DAY


def test_the_sun_shines_by_day_only() -> None:
    assert not any(SUN[:20]) and not any(SUN[87:])
    assert SUN.index(max(SUN)) == 53  # 13:15
    assert all(SUN[quarter] > 0 for quarter in range(32, 76))  # 08:00 to 19:00


def test_consumption_and_production_scale() -> None:
    """A home of 4,000 kWh a year uses some 11 kWh on a day in June; PV makes what it is said to make."""
    day = range(QUARTERS_A_DAY)
    assert 9_000 < sum(consumption_wh(quarter, 4_000) for quarter in day) < 13_000
    assert abs(sum(production_wh(quarter, 30.0) for quarter in day) - 30_000) <= QUARTERS_A_DAY
    assert all(0 < grid_draw_with_pv_wh(quarter, 4_000) <= consumption_wh(quarter, 4_000) for quarter in day)
    assert sum(grid_draw_with_pv_wh(quarter, 4_000) for quarter in day) < 7_000
    assert consumption_wh(QUARTERS_A_DAY + 3, 4_000) == consumption_wh(3, 4_000)
    assert production_wh(50, 0.0) == 0


def test_the_wind_never_stops() -> None:
    assert all(wind_wh(quarter, 120.0) > 500 for quarter in range(QUARTERS_A_DAY))
    assert wind_wh(0, 0.0) == 0


# --- orders ---


TARIFF = Tariff(floor=80 * 10**12, ceiling=300 * 10**12)
NOON, EVENING = 53, 76


def test_homes_ask_less_at_noon_than_in_the_evening() -> None:
    at_noon, later = (
        make_ask(Situation(3, quarter, 500, 9_000, 0), TARIFF, None) for quarter in (NOON, EVENING)
    )
    assert at_noon and later and at_noon.limit < later.limit
    assert make_ask(Situation(3, NOON, 500, 2_000, 0), TARIFF, None) is None  # no more than the reserve
    assert make_ask(Situation(3, NOON, 500, 2_100, 0), TARIFF, None) == Order(100, at_noon.limit)
    gift = make_ask(Situation(3, NOON, 500, 9_000, 0), TARIFF, ADDRESS)
    assert gift is not None and gift.partners == ((ADDRESS, 0),)


def test_homes_bid_for_what_they_lack_and_have_room_for() -> None:
    use = consumption_wh(EVENING, 4_000)
    bid = make_bid(Situation(2, EVENING, 0, 1_000, 9_000), 4_000, TARIFF, likes_solar=False)
    assert bid is not None and (bid.energy_wh, bid.sources) == (use + 500, ())
    full = Situation(2, EVENING, 0, 10_000, 0)
    assert make_bid(full, 4_000, TARIFF, likes_solar=False) is None
    sunny = make_bid(Situation(6, EVENING, 0, 9_900, 100), 4_000, TARIFF, likes_solar=True)
    assert sunny is not None and (sunny.energy_wh, sunny.sources) == (100, ((SOLAR, TARIFF.ceiling),))


@given(number=st.integers(0, 100), quarter=st.integers(0, 10_000), tariff=st.integers(0, 10**18))
def test_every_limit_lies_within_the_tariff(number: int, quarter: int, tariff: int) -> None:
    """And an account's bid and ask never both: a home is on one side."""
    bounds = Tariff(tariff, tariff + 10**14)
    home = Situation(number, quarter, 400, 5_000, 5_000)
    for order in (make_ask(home, bounds, None), make_bid(home, 3_000, bounds, likes_solar=True)):
        assert order is not None and bounds.floor <= order.limit <= bounds.ceiling


# --- screen ---


def make_watch() -> Watch:
    """Two blocks a third of a second apart, the later one with three transactions."""
    watch = Watch(height=1_234, block_hash="0x" + "ab" * 32, transactions=30, tokens=7, energy_wh=12_345)
    watch.times_ms.extend((1_000, 1_333))
    watch.counts.extend((5, 3))
    watch.homes = {"01 household": HomeState(1, 1, 0, 0, 9_000, 1_000, 0, 800, 600), "02 farm": HomeState()}
    watch.auctions = [
        Auction(411, 1_231, 190 * 10**12, 7_500, 8, 5),
        Auction(410, 1_228, 120 * 10**12, 500, 8, 5),
    ]
    watch.trades = [Trade("01 household", "02 farm", 500, 0), Trade("03 household", "02 farm", 7_000, 1)]
    return watch


def test_a_line_and_json_say_the_same() -> None:
    watch, news = make_watch(), News(quarter=100, sent=9, failed=1, sales=2)
    assert status_line(watch, news) == (
        "day 2, 01:00  block 1,234  3.00 blocks/s  9 tx/s  7 tokens hold 12.3 kWh  covered 0.6 kWh of 0.8 kWh"
        "  auction 411: 7.5 kWh at 0.190"
    )
    status = json.loads(status_json(watch, news))
    assert (status["height"], status["energyWh"], status["blocksPerSecond"]) == (1_234, 12_345, 3.003)
    assert status["auction"] == {
        "number": 411,
        "priceWeiPerWh": "190000000000000",
        "energyWh": 7_500,
        "trades": 2,
    }
    assert json.loads(status_json(Watch(), news))["auction"] is None
    assert (status["sent"], status["refused"], status["sales"], status["coveredWh"]) == (9, 1, 2, 600)


@pytest.mark.parametrize("watch", [make_watch(), Watch()], ids=["in the middle", "before the first block"])
def test_the_screen_draws(watch: Watch) -> None:
    console = Console(record=True, width=108, force_terminal=True, file=StringIO())
    console.print(render(watch, News(lines=["all is well"]), URL))
    text = console.export_text()
    assert "all is well" in text and f"block {watch.height:,}" in text
    if watch.auctions:
        assert "auction 411, cleared in block 1,231" in text
        assert "0.190 per kWh   7.5 kWh in 2 trades of 8 bids and 5 asks" in text
        assert "the last 2 ▁█ 0.120 to 0.190" in text
        assert "02→01 0.50 gift   02→03 7.00" in text


def test_news_keeps_the_last_lines() -> None:
    news = News()
    for number in range(20):
        news.tell(f"line {number}")
    assert news.lines == [f"line {number}" for number in range(14, 20)]


# --- the network above it ---


class Validator(NamedTuple):
    name: str
    state: str = "running"
    url: str = URL


def make_board(**changes: Any) -> Board:
    """Three of four validators run; ten blocks in 3.333 s, the last of them just now, at 100 s."""
    network = NetworkWatch(turn="validator-3")
    members = [Validator(f"validator-{i}") for i in (1, 2, 3)] + [Validator("validator-4", "stopped")]
    for member in members[:3]:
        network.seen[member.name] = Seen(20, 2, 1.5, 0.2, 40.0, is_live=True)
    network.seen["validator-4"] = None
    for height in range(10, 21):
        network.take_head(Head(height, height * 1_000 // 3, 100 - (20 - height) / 3))
    heard = [{"name": each.name, "heardMs": 50, "votesMissed": 0} for each in members[:3]]
    heard.append({"name": "validator-4", "heardMs": 3_000, "votesMissed": 9})
    network.take_heard("validator-1", 20, heard[1:], 100.0)
    network.take_heard("validator-2", 20, heard[:1], 100.0)
    scene = Scene(URL, make_watch(), News(quarter=100))
    return replace(Board(members, network, scene, 100.0, 0), **changes)


def shown(board: Board, columns: int, rows: int) -> str:
    console = Console(record=True, width=columns, height=rows, force_terminal=True, file=StringIO())
    console.print(board)
    return console.export_text()


@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (80, 24), (60, 30), (60, 13)])
def test_the_board_fits_and_shows_each_validator(columns: int, rows: int) -> None:
    text = shown(make_board(notices=["one", "validator-4 killed; r starts it"]), columns, rows)
    assert len(text.splitlines()) <= rows and max(map(len, text.splitlines())) <= columns
    assert "1-4 choose" in text
    assert "▶ validator-1  running  votes" in text and "validator-4  stopped  silent" in text
    assert "validator-4 killed" in text and "block 20   3.0" in text
    (turn,) = [line for line in text.splitlines() if "●" in line]
    assert "validator-3" in turn
    assert "auction 411" in text


def test_too_small_a_terminal_shows_the_states() -> None:
    text = shown(make_board(), 59, 8)
    assert text.splitlines()[1:] == [
        "validator-1 running",
        "validator-2 running",
        "validator-3 running",
        "validator-4 stopped",
    ]


def test_without_a_street_or_keys_the_board_is_the_network() -> None:
    text = shown(make_board(scene=None, chosen=None), 80, 24)
    assert "Crypto-Trading network" in text and "k kill" not in text and "household" not in text
    assert "More than two thirds" in shown(make_board(is_helping=True), 80, 24)


def test_the_board_as_json_and_as_a_line() -> None:
    told = json.loads(json.dumps(board_json(make_board())))
    network = told.pop("network")
    assert told["height"] == 1_234  # what the street says by itself
    assert (network["height"], network["isLive"], network["turn"]) == (20, True, "validator-3")
    assert (network["blocksPerSecond"], network["finalityMs"]) == (3.0, 40.0)
    first, *_, last = network["validators"]
    assert first == {"name": "validator-1", "url": URL, "state": "running", "votes": "votes", "height": 20, "peers": 2, "roundTripMs": 1.5, "loopLagMs": 0.2}  # fmt: skip
    assert (last["state"], last["votes"], last["height"], last["peers"]) == ("stopped", "silent", None, None)
    line = board_line(make_board())
    assert line.startswith("day 2, 01:00  block 20  3.00 blocks/s  final in 40 ms  validator-4 stopped")


def test_a_stalled_chain_has_no_rate_and_no_turn() -> None:
    """The rate falls while no block comes, and is none after a while."""
    board = make_board()
    rates = [board.network.blocks_per_second(now) for now in (100.5, 101.0, 103.0, 106.0)]
    assert rates[0] == rates[1] > rates[2] > rates[3] == 0
    for name, seen in board.network.seen.items():
        board.network.seen[name] = seen and seen._replace(is_live=False)
    text = shown(board, 80, 24)
    assert "the chain stands still" in text and "●" not in text


def test_a_validator_none_of_whose_votes_come_misses() -> None:
    network = NetworkWatch()

    def take(height: int, missed: int) -> str:
        network.take_heard("a", height, [{"name": "b", "heardMs": 0, "votesMissed": missed}], 100.0)
        return network.votes("b", 100.0)

    assert network.votes("b", 100.0) == ""
    assert [take(5, 0), take(15, 9), take(24, 18), take(25, 19)] == ["votes", "votes", "votes", "misses"]
    assert take(26, 0) == "votes"  # the witness is another process
    assert network.votes("b", 102.1) == "silent"


def test_the_picture_is_an_svg(tmp_path: Path) -> None:
    draw_picture(make_board(), tmp_path / "street.svg")
    assert (tmp_path / "street.svg").read_text().startswith("<svg")


# --- on a node ---


async def live(url: str, quarters: int, first_quarter: int | None = None) -> Street:
    """Builds the street, or finds it, and lives some quarters as fast as they go, by default from the time of day that
    it is there."""
    async with Client(url) as client:
        street = Street(client, CHAIN_ID, HOMES)
        await street.build()
        if first_quarter is not None:
            street.news.quarter = first_quarter
        for _ in range(quarters):
            await street.live_quarter()
            await asyncio.sleep(0.4)  # a block, so that clocks of meters and chain go on
    return street


async def read_market(url: str, street: Street) -> tuple[Watch, list[Any]]:
    """The last auction in which energy moved, with its trades; and what stands for the platform's clients."""
    async with Client(url) as client:
        watch = Watch()
        following = asyncio.create_task(follow_auctions(client, watch, street))
        async with asyncio.timeout(10):
            while not watch.trades:
                await asyncio.sleep(0.05)
        following.cancel()
        clients = [hex_of(street.homes[number].owner.address) for number in PLATFORMS_CLIENTS]
        platform = hex_of(street.traders.platform.address)
        return watch, await client.batch([("ctt_mandate", [each, platform]) for each in clients])


async def run_low(url: str) -> None:
    """A home of the street spends nearly all of its money, and nearly nothing is left of a mandate."""
    async with Client(url) as client:
        street = Street(client, CHAIN_ID, HOMES)
        spender, seller = (street.homes[number].owner for number in (2, PLATFORMS_CLIENTS[0]))
        await client.receipt(await spender.send_raw(address_of(ALICE_KEY), POCKET_MONEY_WEI - POOR_WEI))
        limits = (1, MANDATE_WEI, 0, 0, 2**64 - 1)
        await client.receipt(await seller.send(MARKET, GRANT, street.traders.platform.address, *limits))


async def means(url: str) -> tuple[int, int]:
    """What that home has, and what is left of that mandate in Wh."""
    async with Client(url) as client:
        street = Street(client, CHAIN_ID, HOMES)
        spender, seller = (street.homes[number].owner for number in (2, PLATFORMS_CLIENTS[0]))
        platform = street.traders.platform.address
        balance, mandate = await client.batch(
            [
                ("eth_getBalance", [hex_of(spender.address), "latest"]),
                ("ctt_mandate", [hex_of(seller.address), hex_of(platform)]),
            ]
        )
        return int(balance, 16), int(mandate["energyWh"])


async def read_homes(url: str, street: Street) -> list[Any]:
    async with Client(url) as client:
        return [await client.read(CTT, "prosumers(address)", home.owner.address) for home in street.homes]


def test_a_street_lives_on_and_finds_itself_again(tmp_path: Path) -> None:
    """Nothing is refused, auctions clear among the homes; the second street sends no set-up, and its registers go on from the chain's."""
    with LiveNode(tmp_path / "node", flags=("--account-slots", "1024")) as node:
        first = asyncio.run(live(node.url, 8, 40))
        assert first.news.failed == 0, first.news.lines
        assert first.news.sent > HOMES * 5
        watch, mandates = asyncio.run(read_market(node.url, first))
        assert watch.auctions[0].energy_wh == sum(trade.energy_wh for trade in watch.trades)
        names = {home.name: home.produces for home in first.homes}
        assert all(names[trade.seller] and not names[trade.buyer] for trade in watch.trades)
        giver, receiver = (first.homes[number].name for number in (GIVER, RECEIVER))
        assert [each[:2] for each in watch.trades if not each.price] == [(receiver, giver)]
        assert int(mandates[1]["spendWei"]) < MANDATE_WEI  # the platform has bought for its client

        asyncio.run(run_low(node.url))
        assert asyncio.run(means(node.url)) < (POOR_WEI, 2)
        second = asyncio.run(live(node.url, 4))
        money, energy_wh = asyncio.run(means(node.url))
        assert money > POCKET_MONEY_WEI and energy_wh > MANDATE_WH * 9 // 10
        assert second.news.quarter > FIRST_QUARTER + 4 + 3  # the day has gone on
        assert second.news.failed == 0, second.news.lines
        assert second.news.sent < HOMES * 9
        homes = asyncio.run(read_homes(node.url, second))
        for before, after in zip(first.homes, second.homes, strict=True):
            assert after.import_wh >= before.import_wh and after.export_wh >= before.export_wh
        for home, prosumer in zip(second.homes, homes, strict=True):
            _, confirmed, full, partial, empty, *_ = prosumer
            assert confirmed and full + partial + empty >= 2
            assert prosumer[6] > 0 or home.kind is not Kind.FARM  # produced
        status = node.call("txpool_status")
        assert int(status["queued"], 16) == 0


def test_the_client_reads_waits_and_is_refused(tmp_path: Path) -> None:
    async def use(url: str) -> None:
        async with Client(url) as client:
            wallet = Wallet(client, ALICE_KEY, CHAIN_ID)
            (price,) = await client.read(CTT, "emptyTokenPrice()")
            bought = await wallet.send(CTT, "buyEmptyTokens(uint256)", 2, value=2 * price)
            receipt = await client.receipt(bought)
            events = [decode_log(CTT, entry) for entry in receipt["logs"]]
            assert [event[1]["tokenId"] for event in events if event] == [1, 2]

            admin = Wallet(client, ADMIN_KEY, CHAIN_ID)
            with pytest.raises(RpcError, match="insufficient funds"):
                await admin.send_raw(wallet.address, 10**40)
            await client.receipt(await admin.send_raw(wallet.address, 1))  # the refused one took no nonce

            count, fault = await client.batch(
                [("eth_getTransactionCount", [hex_of(wallet.address), "latest"]), ("eth_nothing", [])]
            )
            assert int(count, 16) == 1
            assert isinstance(fault, RpcError) and fault.code == -32601
            with pytest.raises(TimeoutError):
                await client.receipt("0x" + "00" * 32, seconds_max=0.3)

    with LiveNode(tmp_path / "node") as node:
        asyncio.run(use(node.url))


def test_playing_ends_when_the_node_is_lost(tmp_path: Path) -> None:
    async def lose(node: LiveNode) -> None:
        playing = asyncio.create_task(play(node.url, homes=4, as_json=True))
        await asyncio.sleep(1.5)
        node.kill()
        with pytest.raises(BaseExceptionGroup):
            await asyncio.wait_for(playing, 20)

    with LiveNode(tmp_path / "node") as node:
        asyncio.run(lose(node))


def test_a_closed_client_says_so() -> None:
    with pytest.raises(RuntimeError, match="use it in 'async with'"):
        asyncio.run(Client(URL).call("eth_chainId"))
