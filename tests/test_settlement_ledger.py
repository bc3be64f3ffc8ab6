"""Settlement from what the chain tells: the stock that events give is what the tokens hold, and all that was measured,
traded and paid is in it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.abi import Event as Declared
from ctt_state.abi import decode_values
from ctt_state.block import Log
from ctt_state.modules.ctt import CTT
from ctt_state.modules.market import MARKET
from ctt_state.records import Prosumer, Token
from ctt_state.settlement import Event, Kind, Reading, Settlement, Tariff, Trade, settle
from ctt_state.units import Address, Ms, Wei, Wh
from tests.market_world import FOREVER, MarketWorld
from tests.world import ALICE, BOB, CAROL, Outcome

HOMES: Final = (ALICE, BOB, CAROL)
FLOOR, CEILING, FEE = 8, 30, 4
DECLARED: Final = (*CTT.events.values(), *MARKET.events.values())
ASK_PARTNERS: Final = "ask(uint256,uint256,uint64,(address,uint256)[])"


class Told(NamedTuple):
    """A log with its values in the order of its declaration."""

    time_ms: Ms
    values: dict[str, Any]
    name: str


class Street(MarketWorld):
    """Three homes, and all that the chain has told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        super().__init__(floor=FLOOR, ceiling=CEILING, grid_fee=FEE, capability_wh=100)
        for home in HOMES:
            self.settle_in(home, 3, 0)
            with self.at_ctt():
                self.give_meter(home)

    def send(self, sender: Address, signature: str, *arguments: Any, value: int = 0) -> Outcome:
        outcome = super().send(sender, signature, *arguments, value=value)
        self.hear(outcome.logs)
        return outcome

    def hear(self, logs: Iterable[Log]) -> None:
        by_topic: dict[bytes, Declared] = {event.topic: event for event in DECLARED}
        for log in logs:
            event = by_topic.get(log.topics[0])
            if event:
                self.told.append(Told(self.block.time_ms, values_of(event, log), event.name))

    def meter_of(self, home: Address) -> Address:
        prosumer: Prosumer = self.get(Prosumer.key(home))
        return prosumer.meter

    def tokens_of(self, home: Address) -> list[int]:
        with self.at_ctt():
            return list(self.call("tokensOf(address,uint256,uint256)", home, 0, 100))

    def held_wh(self, home: Address) -> int:
        """By the tokens themselves, those on sale included."""
        records = self.overlay.changes.values()
        return sum(each.energy_wh for each in records if isinstance(each, Token) and each.owner == home)


def values_of(event: Declared, log: Log) -> dict[str, Any]:
    indexed = [param for param in event.params if param.indexed]
    plain = [param for param in event.params if not param.indexed]
    words = decode_values(indexed, b"".join(log.topics[1:]))
    names = [param.name for param in (*indexed, *plain)]
    return dict(zip(names, (*words, *decode_values(plain, log.data)), strict=True))


# --- from what was told to the events of a home ---


def events_of(home: Address, told: Sequence[Told], token_prices: Sequence[tuple[int, int]]) -> list[Event]:
    """`token_prices`: of each token sold, in order, its own and that of a Wh."""
    prices = iter(token_prices)
    found: list[Event] = [Tariff(Wei(CEILING), Wei(FLOOR))]
    for time_ms, values, name in told:
        if name == "EnergyRefilled" and values["prosumer"] == home:
            amounts = (values["offered"], values["stored"], Wh(0), Wh(0))
            found.append(Reading(time_ms, values["meter"], *amounts))
        elif name == "EnergyConsumed" and values["prosumer"] == home:
            amounts = (Wh(0), Wh(0), values["requested"], values["covered"])
            found.append(Reading(time_ms, values["meter"], *amounts))
        elif name in ("Trade", "PartnerTrade"):
            kind = Kind.AUCTION if name == "Trade" else Kind.PARTNER
            wei, fee = values["energy"] * values["price"], values["energy"] * FEE
            found += sides(
                home, values, "seller", "buyer", Trade(time_ms, kind, False, values["energy"], wei, fee)
            )
        elif name == "TokenSold":
            token_wei, wei_per_wh = next(prices)
            energy = values["energy"]
            assert values["price"] == token_wei + energy * wei_per_wh
            sale = Trade(time_ms, Kind.TOKEN, False, energy, Wei(energy * wei_per_wh), Wei(0), Wei(token_wei))
            found += sides(home, values, "seller", "buyer", sale)
        elif name == "EnergyTransferred":
            found += sides(
                home, values, "from", "to", Trade(time_ms, Kind.PARTNER, False, values["energy"], Wei(0))
            )
    return found


def sides(home: Address, values: dict[str, Any], giver: str, taker: str, sale: Trade) -> list[Event]:
    if values[giver] == home:
        return [sale]
    return [sale._replace(is_purchase=True)] if values[taker] == home else []


# --- what homes do ---

Action = Callable[[Street, list[tuple[int, int]]], None]
homes = st.sampled_from(HOMES)
pairs = st.permutations(HOMES).map(lambda order: (order[0], order[1]))


def produce(home: Address, wh: int) -> Action:
    def act(street: Street, _: list[tuple[int, int]]) -> None:
        with street.at_ctt():
            street.send(street.meter_of(home), "refill(uint256,address)", wh, home)

    return act


def consume(home: Address, wh: int) -> Action:
    def act(street: Street, _: list[tuple[int, int]]) -> None:
        with street.at_ctt():
            street.send(street.meter_of(home), "consume(uint256,address)", wh, home)

    return act


def auction(pair: tuple[Address, Address], wh: int, partner_price: int | None) -> Action:
    """The second sells to the first, some of it as a partner where there is a price for that."""

    def act(street: Street, _: list[tuple[int, int]]) -> None:
        buyer, seller = pair
        street.send(buyer, "bid(uint256,uint256,uint64)", wh, 25, FOREVER)
        partners = [] if partner_price is None else [(buyer, partner_price)]
        street.send(seller, ASK_PARTNERS, 2 * wh, 26 if partners else 20, FOREVER, partners)
        while street.block.height % 3:
            street.next_block()
        receipt = street.next_block()
        street.hear(receipt.logs if receipt else ())

    return act


def move_token(pair: tuple[Address, Address], wei: tuple[int, int] | None) -> Action:
    """Its fullest token: sold at these prices, or given away."""

    def act(street: Street, prices: list[tuple[int, int]]) -> None:
        giver, taker = pair
        tokens = street.tokens_of(giver)
        if not tokens:
            return
        with street.at_ctt():
            if wei is None:
                street.send(giver, "transferFrom(address,address,uint256)", giver, taker, tokens[0])
                return
            street.send(giver, "setOnSale(uint256,uint256,uint256)", tokens[0], *wei)
            if street.send(taker, "buyToken(uint256)", tokens[0], value=10**6).revert is None:
                prices.append(wei)

    return act


def offer(home: Address) -> Action:
    def act(street: Street, _: list[tuple[int, int]]) -> None:
        tokens = street.tokens_of(home)
        with street.at_ctt():
            if tokens:
                street.send(home, "setOnSale(uint256)", tokens[-1])

    return act


actions = st.lists(
    st.one_of(
        st.builds(produce, homes, st.integers(1, 250)),
        st.builds(consume, homes, st.integers(1, 250)),
        st.builds(auction, pairs, st.integers(1, 60), st.none() | st.sampled_from((0, 12))),
        st.builds(move_token, pairs, st.none() | st.tuples(st.integers(0, 50), st.integers(0, 20))),
        st.builds(offer, homes),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_the_stock_is_what_the_tokens_hold_and_all_money_is_told(done: list[Action]) -> None:
    street = Street()
    before = {home: street.balance(home) for home in HOMES}
    prices: list[tuple[int, int]] = []
    for act in done:
        act(street, prices)

    for home in HOMES:
        settled, after = settle(events_of(home, street.told, prices))
        record: Prosumer = street.get(Prosumer.key(home))
        assert after.stock.total_wh == street.held_wh(home)
        assert sum(each.produced_wh for each in settled) == record.produced_wh
        assert sum(each.stored_wh for each in settled) == record.stored_wh
        assert sum(each.consumed_wh for each in settled) == record.consumed_wh
        assert sum(each.billed_wh for each in settled) == record.consumed_wh - record.covered_wh
        assert street.balance(home) - before[home] == sum(map(moved_on_chain, settled))


def moved_on_chain(settled: Settlement) -> int:
    """All but what the operator bills and pays apart from the chain."""
    received, paid = settled.received_wei - settled.fed_in_wei, settled.paid_wei - settled.billed_wei
    return received - paid


def test_the_streets_trades_are_of_every_kind() -> None:
    """The property above would hold on a street where nothing is traded."""
    street, prices = Street(), list[tuple[int, int]]()
    for act in (
        produce(ALICE, 200),
        auction((BOB, ALICE), 20, None),
        auction((CAROL, ALICE), 10, 0),
        move_token((ALICE, BOB), (5, 2)),
        move_token((ALICE, CAROL), None),
        consume(BOB, 250),
    ):
        act(street, prices)

    settled, _ = settle(events_of(BOB, street.told, prices))
    names = [each.name for each in street.told]
    assert {
        "Trade",
        "PartnerTrade",
        "TokenSold",
        "EnergyTransferred",
        "EnergyConsumed",
        "EnergyRefilled",
    } <= set(names)
    assert (
        sum(each.auction_bought_wh for each in settled),
        sum(each.token_bought_wh for each in settled),
    ) == (20, 100)
    assert sum(each.auction_used_wh for each in settled) == 120
    assert sum(each.billed_wh for each in settled) == 130
    settled, after = settle(events_of(CAROL, street.told, prices))
    assert sum(each.partner_bought_wh for each in settled) == after.stock.partner_wh == 80
