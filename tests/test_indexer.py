"""The indexer's tables: what the chain says, in both databases the same, however it is cut into batches."""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

import bench.indexer
from apps.indexer.database import DatabaseAway, Refused, Store, UnknownDatabase, connect
from apps.indexer.rollup import QUARTER_MS, periods_of, sum_readings, sum_trades
from apps.indexer.rows import Batch, OtherChain, Position, Row
from apps.indexer.schema import CHAIN, DAYS, HOURS, METERED, SUMS, TRADED
from apps.indexer.sums import total
from ctt_state.genesis import load_genesis
from ctt_state.units import ZERO_HASH
from tests.indexer_world import (
    CHARGED,
    CONCENTRATOR,
    OWN_TOKENS,
    PRICE,
    PROSUMERS,
    History,
    make_history,
    position_of,
    read_tables,
)
from tests.ledger_world import ADMIN, ALICE, BOB, OWNERS, document
from tests.postgres import running_postgres

UTC: Final = ZoneInfo("UTC")
BERLIN: Final = ZoneInfo("Europe/Berlin")
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

Sums = dict[tuple[bytes, int], Counter[str]]  # by prosumer and start


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/index.db"
    url: str = request.getfixturevalue("postgres")
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    history = make_history(tmp_path_factory.mktemp("chain") / "node")
    yield history
    history.ledger.close()


def write(
    url: str, history: History, cuts: Sequence[int] = (), zone: ZoneInfo = UTC, *, rebuild: bool = False
) -> None:
    """All of the history, in batches that end at these heights; the store is opened anew for each."""
    for end in (*cuts, len(history.fetched)):
        store = Store(url, history.genesis, zone, rebuild=rebuild)
        rebuild = False
        blocks = history.fetched[store.position.height + 1 : end]
        if blocks:
            store.write(Batch(blocks, store.position, store.tariff))
        store.close()


# --- what the tables have ---


def test_the_days_add_up_to_the_totals_of_the_chain(database: str, history: History) -> None:
    write(database, history)
    with connect(database).connect() as connection:
        for owner in PROSUMERS:
            sums = [total(DAYS.c[name]) for name in METERED[1:]]
            row = connection.execute(select(*sums).where(DAYS.c.prosumer == owner)).one()
            prosumer = history.prosumer(owner)
            assert tuple(row) == (
                prosumer.produced_wh,
                prosumer.stored_wh,
                prosumer.consumed_wh,
                prosumer.covered_wh,
            )


def test_what_was_retired_adds_up_by_source(database: str, history: History) -> None:
    """And each row is of a reading, of which it is a part."""
    write(database, history)
    tables = read_tables(database)
    covered = {row[:5]: row[9] for row in tables["readings"]}
    for owner in PROSUMERS:
        found = Counter[int]()
        for *reading, source, energy in (row for row in tables["retired"] if row[0] == owner):
            found[source] += energy
            assert energy <= covered[tuple(reading)]
        assert found == +Counter(dict(enumerate(history.prosumer(owner).retired, 1)))
    assert len({row[:5] for row in tables["retired"]}) >= 3


def test_a_row_is_a_reading_with_the_time_that_its_meter_says(database: str, history: History) -> None:
    """The baseline and one that grew by nothing are rows too, a refused one is none."""
    write(database, history)
    rows = read_tables(database)["readings"]
    times = [int(history.fetched[height].block["timestampMilliseconds"], 16) for height in range(5)]
    now = times[2]
    assert [row[1:5] + row[6:] for row in rows if row[0] == ALICE] == [
        (now, 3, 1, 0, 0, 0, 0, 0),
        (now + 10, 4, 3, 0, 1_000, 1_000, 10, 10),
        (now + 20, 4, 3, 2, 0, 0, 1, 1),
        (now + QUARTER_MS + 1, 4, 3, 4, 1, 1, 29, 29),
    ]
    assert [row[1:5] + row[6:] for row in rows if row[0] == BOB] == [
        (now, 3, 1, 1, 0, 0, 0, 0),
        (now + 10, 4, 3, 3, 5, 5, 5, 5),
    ]
    assert [row[1:5] + row[6:] for row in rows if row[0] == OWNERS[0]] == [
        (now, 3, 0, 0, 0, 0, 0, 0),
        (now + 1, 4, 0, 0, 55, 55, 30, 30),
        (now + QUARTER_MS, 4, 2, 0, 0, 0, 0, 0),
    ]
    assert [row[1:5] for row in rows if row[0] in OWNERS[1:3]] == [(times[3], 3, 3, 0), (times[3], 3, 2, 0)]
    assert {row[5] for row in rows if row[0] in (ALICE, BOB)} == {CONCENTRATOR}


def test_trades_tell_who_paid_whom_what_for_how_much(database: str, history: History) -> None:
    write(database, history)
    rows = read_tables(database)
    price, fee = PRICE * 3 // 2, PRICE // 10
    first, second, _ = OWN_TOKENS
    assert [row[4:] for row in rows["trades"] if row[0] == 7] == [
        ("partner", 2, None, ALICE, OWNERS[0], 800, PRICE // 2, 400 * PRICE, 0, 800 * fee),
        ("gift", 2, None, BOB, OWNERS[0], 100, 0, 0, 0, 100 * fee),
        ("auction", 2, None, BOB, OWNERS[1], 1_400, price, 1_400 * price, 0, 1_400 * fee),
    ]
    assert [row[4:] for row in rows["trades"] if row[0] == 10] == [
        ("sale", None, first, ALICE, OWNERS[2], 10_000, 5, 50_000, 7 * 10**17, 0),
        ("sale", None, second, BOB, OWNERS[2], 4_779, 3, 14_337, 2, 0),
        ("gift", None, CHARGED, BOB, OWNERS[3], 10_000, 0, 0, 0, 0),
    ]
    assert [row[3:] for row in rows["auctions"]][:1] == [(price, 2_300, 2, 2, 0, 3 * PRICE, fee)]
    assert [row[4:7] for row in rows["tariffs"]] == [(8 * 10**13, 3 * PRICE, 4 * 10**13), (0, 3 * PRICE, fee)]


def test_tokens_bookings_and_meters_have_a_history(database: str, history: History) -> None:
    write(database, history)
    rows = read_tables(database)
    kinds = defaultdict(list)
    for token, _, _, _, kind, *_ in rows["token_history"]:
        kinds[token].append(kind)
    assert [kinds[token] for token in OWN_TOKENS] == [
        ["offer", "offer", "transfer", "sale"],
        ["offer", "transfer", "sale"],
        ["offer", "withdraw"],
    ]
    assert kinds[21] == ["mint"]
    assert [row[3:7] for row in rows["bookings"]] == [
        ("issued", ADMIN, ALICE, 10**30),
        ("redeemed", ADMIN, None, 10**18),
    ]
    meters = {row[0]: row[2:] for row in rows["meters"]}
    assert meters == {CONCENTRATOR: (3, 0, True, True, 11), BOB: (2, 5_000, False, False, 2)}
    assert rows["chain"][0][5] == len(history.fetched) - 1
    calls = Counter(row[6] for row in rows["transactions"])
    assert calls["report"] == 4 and calls["clear"] == 2 and calls["transferFrom"] == 1
    assert [row[:2] for row in rows["transactions"] if not row[9]] == [(4, 1)]


def test_both_databases_hold_the_same_rows(tmp_path: Path, postgres: str, history: History) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    write(url, history, zone=BERLIN)
    write(postgres, history, zone=BERLIN, rebuild=True)
    assert read_tables(url) == read_tables(postgres)


@settings(max_examples=8)
@given(cuts=st.sets(st.integers(1, 13)))
def test_no_cut_into_batches_changes_a_row(history: History, whole: dict[str, Any], cuts: set[int]) -> None:
    url = "sqlite:///file:cuts?mode=memory&cache=shared&uri=true"
    keeper = connect(url).connect()  # the database is as long as a connection to it
    write(url, history, sorted(cuts))
    assert read_tables(url) == whole
    keeper.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, history: History) -> dict[str, Any]:
    """The tables, written at once."""
    url = f"sqlite:///{tmp_path_factory.mktemp('whole')}/index.db"
    write(url, history)
    return read_tables(url)


def test_a_batch_is_written_whole_or_not_at_all(database: str, history: History) -> None:
    store = Store(database, history.genesis, UTC)
    first = Batch(history.fetched[:4], store.position, store.tariff)
    store.write(first)
    batch = Batch(history.fetched[4:], first.last, first.tariff)
    batch.tables["bookings"] *= 2
    before = read_tables(database)
    with pytest.raises((IntegrityError, psycopg.IntegrityError)):
        store.write(batch)
    store.close()
    assert read_tables(database) == before
    assert before["chain"][0][5] == 3


# --- roll-ups ---


def test_a_moment_belongs_to_the_period_that_it_ends() -> None:
    assert periods_of(QUARTER_MS, UTC) == (0, 0, 0)
    assert periods_of(QUARTER_MS + 1, UTC) == (QUARTER_MS, 0, 0)
    assert periods_of(DAY_MS, UTC) == (DAY_MS - QUARTER_MS, DAY_MS - HOUR_MS, 0)
    assert periods_of(DAY_MS + 1, UTC) == (DAY_MS, DAY_MS, DAY_MS)


@pytest.mark.parametrize(("zone", "day", "hours"), [(BERLIN, 1_774_738_800, 23), (BERLIN, 1_792_879_200, 25)])
def test_days_are_as_long_as_the_clocks_make_them(zone: ZoneInfo, day: int, hours: int) -> None:
    """2026-03-29 and 2026-10-25; each begins at midnight."""
    quarters = range(day * 1_000, day * 1_000 + 30 * HOUR_MS, QUARTER_MS)
    periods = [periods_of(start + QUARTER_MS, zone) for start in quarters]
    assert sum(each.day_ms == day * 1_000 for each in periods) == 4 * hours
    assert Counter(each.hour_ms for each in periods).most_common(1)[0][1] == 4


def test_hours_begin_where_the_zone_says() -> None:
    """In Kathmandu a quarter after UTC's."""
    noon = 1_774_699_200_000
    assert periods_of(noon, ZoneInfo("Asia/Kathmandu")).hour_ms == noon - HOUR_MS + QUARTER_MS


addresses = st.sampled_from([bytes([number]) * 20 for number in range(3)])
times = st.integers(1_774_700_000_000, 1_774_900_000_000)
zeros = st.just(0)
amounts = st.integers(0, 2**70)
kinds = st.sampled_from(["auction", "partner", "gift", "sale"])
readings = st.tuples(addresses, times, zeros, zeros, zeros, addresses, *[amounts] * 4)
trades = st.tuples(zeros, zeros, times, zeros, kinds, zeros, zeros, addresses, addresses, *[amounts] * 5)


def recompute(readings: Sequence[Row], trades: Sequence[Row], start_of: Callable[[int], int]) -> Sums:
    """From the rows one by one; without zeros."""
    sums: Sums = defaultdict(Counter)
    for prosumer, time_ms, _, _, _, _, *amounts in readings:
        sums[prosumer, start_of(time_ms)].update(dict(zip(METERED, (1, *amounts), strict=True)))
    for _, _, time_ms, _, kind, _, _, buyer, seller, energy, _, energy_wei, token_wei, fee in trades:
        way = {"sale": "token", "gift": "partner"}.get(kind, kind)
        for owner, side, money in ((buyer, "bought", "paid"), (seller, "sold", "received")):
            sums[owner, start_of(time_ms)][f"{way}_{side}_wh"] += energy
            sums[owner, start_of(time_ms)][f"{way}_{side}_wei"] += energy_wei
            sums[owner, start_of(time_ms)][f"token_{money}_wei"] += token_wei
        sums[buyer, start_of(time_ms)]["grid_fee_wei"] += fee
    return {key: +row for key, row in sums.items()}


def start_of_day(time_ms: int) -> int:
    """In Berlin."""
    last = datetime.fromtimestamp((time_ms - 1) / 1_000, BERLIN)
    return round(datetime.combine(last.date(), time(), BERLIN).timestamp() * 1_000)


@given(st.lists(readings, max_size=20), st.lists(trades, max_size=20))
def test_roll_ups_are_the_sums_of_their_rows(readings: list[Row], trades: list[Row]) -> None:
    """Around the end of March, when a day has 23 hours."""
    found: Sums = defaultdict(Counter)
    for names, rows in ((METERED, sum_readings(readings, BERLIN)), (TRADED, sum_trades(trades, BERLIN))):
        for _, _, day_ms, prosumer, *figures in rows:
            found[prosumer, day_ms].update(dict(zip(names, figures, strict=True)))
    assert {key: +row for key, row in found.items()} == recompute(readings, trades, start_of_day)


def test_the_tables_of_sums_are_kept_up_to_date(database: str, history: History) -> None:
    store = Store(database, history.genesis, BERLIN)
    after, tariff = store.position, store.tariff
    for fetched in history.fetched:
        batch = Batch([fetched], after, tariff)
        store.write(batch)
        after, tariff = batch.last, batch.tariff
    store.close()
    tables = read_tables(database)
    for name, start_of in (
        ("quarters", lambda time_ms: (time_ms - 1) // QUARTER_MS * QUARTER_MS),
        ("hours", lambda time_ms: (time_ms - 1) // HOUR_MS * HOUR_MS),
        ("days", start_of_day),
    ):
        found = {row[:2]: +Counter(dict(zip(SUMS, row[2:], strict=True))) for row in tables[name]}
        assert found == recompute(tables["readings"], tables["trades"], start_of)


def test_sums_are_exact_above_64_bits(database: str, history: History) -> None:
    write(database, history)
    amount, mine = total(HOURS.c.grid_fee_wei), HOURS.c.prosumer == b"me"
    with connect(database).begin() as connection:
        assert connection.execute(select(amount).where(mine)).scalar_one() == 0
        for start_ms in range(history.time_ms, history.time_ms + 3):
            connection.execute(
                insert(HOURS).values(prosumer=b"me", start_ms=start_ms, grid_fee_wei=2**200 + 1)
            )
        assert connection.execute(select(amount).where(mine)).scalar_one() == 3 * (2**200 + 1)


# --- what is refused ---


def test_a_database_of_another_chain_is_refused(database: str, history: History) -> None:
    write(database, history)
    other = load_genesis(document(chainId=7_789))
    with pytest.raises(Refused, match="another chain"):
        Store(database, other, UTC)
    Store(database, other, UTC, rebuild=True).close()
    assert position_of(database) == -1


def test_days_of_another_time_zone_are_refused(database: str, history: History) -> None:
    write(database, history)
    with pytest.raises(
        Refused, match="days are those of UTC, not of Europe/Berlin; begin anew with --rebuild"
    ):
        Store(database, history.genesis, BERLIN)


def test_another_schema_is_refused_and_rebuilt(database: str, history: History) -> None:
    write(database, history)
    with connect(database).begin() as connection:
        connection.execute(update(CHAIN).values(version=99))
    with pytest.raises(Refused, match="schema 99, this program's of 1; begin anew with --rebuild"):
        Store(database, history.genesis, UTC)
    write(database, history, rebuild=True)
    assert position_of(database) == len(history.fetched) - 1


@pytest.mark.parametrize("table", ["blocks", "chain"])
def test_a_database_of_another_program_is_left_alone(database: str, history: History, table: str) -> None:
    with connect(database).begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} (id INTEGER)"))
    for rebuild in (False, True):
        with pytest.raises(Refused, match=f"a table {table} that is not an indexer's"):
            Store(database, history.genesis, UTC, rebuild=rebuild)


def test_blocks_of_another_chain_do_not_follow(history: History) -> None:
    fetched, after = history.fetched, Position(-1, ZERO_HASH)
    with pytest.raises(OtherChain, match="block 1 does not follow block -1"):
        Batch(fetched[1:], after, None)
    with pytest.raises(OtherChain, match="block 2 does not follow block 0"):
        Batch([fetched[0], fetched[2]], after, None)
    with pytest.raises(OtherChain, match="it is of another chain"):
        Batch(fetched[3:4], Position(2, ZERO_HASH), None)


def test_of_two_indexers_one_ends(database: str, history: History) -> None:
    first, second = (Store(database, history.genesis, UTC) for _ in range(2))
    first.write(Batch(history.fetched[:3], first.position, first.tariff))
    with pytest.raises(Refused, match="no more at block -1: another indexer writes to it"):
        second.write(Batch(history.fetched[:2], second.position, second.tariff))
    first.close()
    second.close()
    assert position_of(database) == 2


@pytest.mark.parametrize("url", ["mysql://host/name", "index.db", "sqlite+aiosqlite:///x"])
def test_what_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(UnknownDatabase):
        connect(url)


def test_a_database_that_is_away_is_said_to_be(history: History, tmp_path: Path) -> None:
    for url in (f"postgresql://nobody@/x?host={tmp_path}", f"sqlite:///{tmp_path}"):
        with pytest.raises(DatabaseAway, match="the database: "):
            Store(url, history.genesis, UTC)


def test_a_file_gets_its_directory_or_is_refused(history: History, tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/new/index.db", history.genesis, UTC).close()
    with pytest.raises(Refused, match=r"no place for .*index.db/index.db"):
        Store(f"sqlite:///{tmp_path}/new/index.db/index.db", history.genesis, UTC)


# --- the page ---

PAGE: Final = Path(__file__).parent.parent / "docs" / "INDEXER.md"
QUERIES: Final = re.findall(r"```sql\n(.*?);\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_the_queries() -> None:
    assert len(QUERIES) == 8


def test_the_queries_of_the_page_find_something(database: str, history: History) -> None:
    write(database, history)
    values = {
        "prosumer": ALICE,
        "account": ALICE,
        "token": OWN_TOKENS[0],
        "from_ms": 0,
        "to_ms": history.time_ms,
        "since_ms": history.time_ms,
    }
    with connect(database).connect() as connection:
        for query in QUERIES:
            named = {name: values[name] for name in re.findall(r":(\w+)", query)}
            assert connection.execute(text(query), named).all(), query


def test_the_benchmark_tells_events_a_second(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small; its figures here mean nothing. Its blocks are such that all of them are taken."""
    genesis = str(PAGE.parent.parent / "genesis.json")
    flags = ["--prosumers", "40", "--events", "100", "--readings", "7,1", "--genesis", genesis]
    monkeypatch.setattr(sys, "argv", ["indexer", "--database", database, *flags])
    assert bench.indexer.main() == 0
    found = json.loads(capsys.readouterr().out)["indexer"]
    assert [each["events"] >= 100 and each["events_per_s"] > 0 for each in found] == [True, True]
    tables = read_tables(database)
    assert len(tables["readings"]) + len(tables["trades"]) + len(tables["auctions"]) == found[1]["events"]
