"""Settlements and key figures of a real chain, through the indexer: they come to what the chain's state says."""

from collections import Counter
from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from apps.indexer.database import Store
from apps.indexer.rows import Batch
from apps.kpi.factors import read_factors
from apps.kpi.history import History, open_history
from apps.kpi.indicators import Span, Terms, indicators
from ctt_state.origin import by_source
from ctt_state.records import CttSupply, Token
from ctt_state.settlement import Kind, Position, Settlement, Stock, Trade, least_stock_wh, settle
from ctt_state.units import MS_PER_HOUR, Address, TokenId, Wh
from tests.indexer_world import PROSUMERS, make_history
from tests.indexer_world import History as Chain
from tests.postgres import running_postgres

UTC: Final = ZoneInfo("UTC")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    chain = make_history(tmp_path_factory.mktemp("chain") / "node")
    yield chain
    chain.ledger.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def history(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chain: Chain
) -> Iterator[History]:
    if request.param == "sqlite":
        yield from read(f"sqlite:///{tmp_path_factory.mktemp('index')}/index.db", chain)
    else:
        with running_postgres() as url:
            yield from read(url, chain)


def read(url: str, chain: Chain) -> Iterator[History]:
    store = Store(url, chain.genesis, UTC)
    store.write(Batch(chain.fetched, store.position, store.tariff))
    store.close()
    with open_history(url) as history:
        yield history


def held_wh(chain: Chain, owner: Address) -> int:
    """By the tokens themselves."""
    supply = chain.ledger.lookup(CttSupply.key())
    assert isinstance(supply, CttSupply)
    tokens = [chain.ledger.lookup(Token.key(TokenId(number + 1))) for number in range(supply.last_token_id)]
    return sum(token.energy_wh for token in tokens if isinstance(token, Token) and token.owner == owner)


def settled_of(chain: Chain, history: History, owner: Address) -> tuple[list[Settlement], Stock]:
    """From the stock that there was when the chain was born: what is there less what came."""
    events = history.events(owner)
    least = least_stock_wh(events)
    _, position = settle(events, Position(Stock(own_wh=least)))
    opening = least + held_wh(chain, owner) - position.stock.total_wh
    assert opening >= least
    settled, after = settle(events, Position(Stock(own_wh=Wh(opening))))
    return settled, after.stock


@pytest.mark.parametrize("number", range(len(PROSUMERS)))
def test_what_came_and_went_is_what_the_tokens_hold(chain: Chain, history: History, number: int) -> None:
    owner = PROSUMERS[number]
    settled, stock = settled_of(chain, history, owner)
    prosumer = chain.prosumer(owner)
    assert stock.total_wh == held_wh(chain, owner)
    for name in ("produced_wh", "stored_wh", "consumed_wh"):
        assert sum(getattr(each, name) for each in settled) == getattr(prosumer, name)
    assert sum(each.billed_wh for each in settled) == prosumer.consumed_wh - prosumer.covered_wh


def test_all_that_is_sold_is_bought_for_the_same_money(chain: Chain, history: History) -> None:
    settled = [each for owner in PROSUMERS for each in settled_of(chain, history, owner)[0]]
    for kind in ("partner", "auction", "token"):
        for unit in ("wh", "wei"):
            bought, sold = (
                sum(getattr(each, f"{kind}_{side}_{unit}") for each in settled) for side in ("bought", "sold")
            )
            assert bought == sold
    assert sum(each.token_paid_wei for each in settled) == sum(each.token_received_wei for each in settled)
    kinds = {event.kind for owner in PROSUMERS for event in history.events(owner) if isinstance(event, Trade)}
    assert kinds == set(Kind)


def test_the_sources_of_what_was_used_are_those_that_the_chain_retired(
    chain: Chain, history: History
) -> None:
    found: Counter[int] = Counter()
    for home in history.homes(history.days(None, None)):
        prosumer, told = chain.prosumer(Address(home.address)), Counter[int]()
        for retired in home.retired.values():
            told.update(retired)
        retired_wh = by_source(prosumer.retired, prosumer.covered_wh)
        assert told == {source: wh for source, wh in enumerate(retired_wh) if source and wh}
        found += told
    assert found


@pytest.mark.parametrize("by_hour", [False, True])
def test_key_figures_are_those_of_the_settlements(chain: Chain, history: History, by_hour: bool) -> None:
    span = history.days(None, None)
    terms = Terms(history.tariffs(), read_factors())
    rows = indicators(history.homes(span), terms, lambda ms: Span(ms, ms + MS_PER_HOUR) if by_hour else span)
    for owner in PROSUMERS:
        settled, _ = settled_of(chain, history, owner)
        of_home = [row for row in rows if row.home == owner]
        for name in ("consumed_wh", "produced_wh", "stored_wh", "billed_wh", "bought_wh", "sold_wh"):
            assert sum(getattr(row, name) for row in of_home) == sum(getattr(each, name) for each in settled)
    community = [row for row in rows if row.home is None]
    people = [chain.prosumer(owner) for owner in PROSUMERS]
    assert sum(row.consumed_wh - row.billed_wh for row in community) == sum(
        each.covered_wh for each in people
    )
    assert sum(row.bought_wh for row in community) == sum(row.sold_wh for row in community) > 0
    assert {row.home for row in rows} == {*PROSUMERS, None}


def test_a_home_may_be_asked_for_alone(history: History) -> None:
    span = history.days(None, None)
    every = list(history.homes(span))
    assert [home.address for home in every] == sorted(PROSUMERS)
    for home in every:
        assert list(history.homes(span, [home.address])) == [home]
    assert list(history.homes(span, [bytes(20)])) == []


def test_what_is_before_the_span_comes_by_the_day(history: History) -> None:
    span = history.days(None, None)
    later = Span(span.end_ms, span.end_ms + 24 * MS_PER_HOUR)
    for home, after in zip(history.homes(span), history.homes(later), strict=True):
        assert (after.hours, sum(sums.consumed_wh for sums in after.before)) == (
            [],
            sum(sums.consumed_wh for sums in home.hours),
        )
