"""`ctt settlement` and `ctt kpi` read what the indexer wrote."""

import csv
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from apps.indexer.database import connect
from apps.indexer.schema import (
    CHAIN,
    DAYS,
    HOURS,
    METADATA,
    READINGS,
    RETIRED,
    SUMS,
    TARIFFS,
    TRADES,
    VERSION,
)
from apps.kpi.export import COLUMNS
from ctt_state.settlement import Kind, Reading, Settlement, Tariff, Trade
from ctt_state.units import MS_PER_HOUR, hex_of
from tests.cli_world import Ctt, Result
from tests.test_kpi import ADA, BEA, STREET
from tests.test_settlement import EXAMPLE, METER, SETTLED, TEN
from tests.world import ALICE, BOB, OPERATOR

HEIGHT: Final = 77
KIND_NAMES: Final = {Kind.AUCTION: "auction", Kind.PARTNER: "partner", Kind.TOKEN: "sale"}
Row = dict[str, Any]


def write(
    url: str, tables: dict[Any, list[Row]], *, zone: str = "UTC", time_ms: int = 24 * MS_PER_HOUR
) -> str:
    engine = connect(url)
    METADATA.create_all(engine)
    chain: Row = {"version": VERSION, "chain_id": 1, "height": HEIGHT}
    chain |= {"genesis_hash": bytes(32), "block_hash": bytes(32)}
    with engine.begin() as connection:
        connection.execute(CHAIN.insert(), {"id": 1, "time_zone": zone, "time_ms": time_ms, **chain})
        for table, rows in tables.items():
            if rows:
                connection.execute(table.insert(), rows)
    engine.dispose()
    return url


def example_rows() -> dict[Any, list[Row]]:
    """The page's example: a block each, but for the last two trades, which share one with the reading after them."""
    rows: dict[Any, list[Row]] = {READINGS: [], TRADES: [], TARIFFS: []}
    for number, event in enumerate(EXAMPLE):
        place = {"height": min(number, 6), "position": number}
        if isinstance(event, Tariff):
            prices = {
                "floor_wei_per_wh": event.feed_in_wei_per_wh,
                "ceiling_wei_per_wh": event.retail_wei_per_wh,
            }
            tariff = {"log_index": 0, "time_ms": 0, "grid_fee_wei_per_wh": 0, "grid_operator": OPERATOR}
            rows[TARIFFS].append({**place, **tariff, **prices})
        elif isinstance(event, Reading):
            rows[READINGS].append({"prosumer": ALICE, "item": 0, **place, **event._asdict()})
        elif isinstance(event, Trade):
            known = event._asdict()
            sides = (ALICE, BOB) if known.pop("is_purchase") else (BOB, ALICE)
            known |= {
                "kind": KIND_NAMES[event.kind],
                "buyer": sides[0],
                "seller": sides[1],
                "price_wei_per_wh": 0,
            }
            rows[TRADES].append({"log_index": 9 - number, **place, **known})
    return rows


def street_rows() -> dict[Any, list[Row]]:
    rows: dict[Any, list[Row]] = {HOURS: [], DAYS: [], TARIFFS: example_rows()[TARIFFS]}
    for home in STREET:
        day: Row = dict.fromkeys(SUMS, 0)
        for sums in home.hours:
            hour = {**dict.fromkeys(SUMS, 0), **sums._asdict(), "prosumer": home.address}
            rows[HOURS].append(hour)
            day = {name: day[name] + hour[name] for name in SUMS}
        rows[DAYS].append({**day, "prosumer": home.address, "start_ms": 0})
    rows[RETIRED] = [
        {
            "prosumer": home.address,
            "time_ms": start_ms + number,
            "source": source,
            "energy_wh": wh // 2,
        }
        | {"height": number, "position": 0, "item": 0}
        for home in STREET
        for start_ms, sources in home.retired.items()
        for source, wh in sources.items()
        for number in (1, MS_PER_HOUR)  # the first moment of the hour, and the last
    ]
    return rows


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, one_line=True)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(f"sqlite:///{tmp_path_factory.mktemp('example')}/index.db", example_rows())


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(f"sqlite:///{tmp_path_factory.mktemp('street')}/index.db", street_rows())


def done(result: Result) -> str:
    assert (result.code, result.err) == (0, ""), result
    return result.out


# --- settlement ---


def settled(ctt: Ctt, database: str, *arguments: object) -> Any:
    return json.loads(done(ctt("settlement", hex_of(ALICE), "--database", database, "--json", *arguments)))


def test_the_pages_example_comes_out_of_the_tables(ctt: Ctt, example: str) -> None:
    told = settled(ctt, example, "--opening", 500)
    assert (told["prosumer"], told["height"]) == (hex_of(ALICE), HEIGHT)
    assert told["opening"] == {"ownWh": "500", "partnerWh": "0", "auctionWh": "0"}
    assert told["closing"] == {"ownWh": "0", "partnerWh": "0", "auctionWh": "200"}
    assert [slot["startMs"] for slot in told["slots"]] == [slot.start_ms for slot in SETTLED]
    for slot, expected in zip(told["slots"], SETTLED, strict=True):
        assert slot["meter"] == hex_of(METER)
        for name in (*Settlement._fields[2:], "paid_wei", "sold_deviation_wh", "consumed_wh"):
            assert slot[camel(name)] == str(getattr(expected, name))


def camel(name: str) -> str:
    return "".join(part.capitalize() if at else part for at, part in enumerate(name.split("_")))


def test_the_table_adds_up(ctt: Ctt, example: str) -> None:
    _, *lines, closing = done(
        ctt("settlement", hex_of(ALICE), "--database", example, "--opening", 500)
    ).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["1970-01-01", "10:00Z"],
        ["1970-01-01", "10:15Z"],
        ["1970-01-01", "10:30Z"],
        ["all", "2,600"],
    ]
    assert lines[1].split()[2:7] == ["2,200", "500", "300", "1,000", "400"]
    assert lines[1].split()[-2:] == ["0.332", "0.152"]
    assert closing == f"tokens after block {HEIGHT}: 0 Wh own, 0 Wh of partners, 200 Wh bought"


def test_the_opening_is_the_least_that_can_be_and_no_less(ctt: Ctt, example: str) -> None:
    """Of the 500 Wh all are needed: 2,200 Wh were consumed at 10:15, of which 1,800 came out of tokens."""
    assert settled(ctt, example)["opening"]["ownWh"] == "500"
    result = ctt("settlement", hex_of(ALICE), "--database", example, "--opening", 499)
    assert (result.code, result.err) == (
        64,
        "ctt: --opening 499 is too small: stock 1799 Wh, 1800 Wh leave it\n",
    )


@pytest.mark.parametrize(
    ("zone", "days", "slots"),
    [
        ("UTC", ("--from", "1970-01-01", "--to", "1970-01-01"), 3),
        ("UTC", ("--from", "1970-01-02"), None),
        ("UTC", ("--from", "0001-01-01", "--to", "9999-12-31"), 3),
        ("Asia/Tokyo", ("--from", "0001-01-01", "--to", "9999-12-31"), 3),
        ("UTC", ("--from", "9999-12-31"), None),
        ("UTC", ("--to", "1969-12-31"), None),
        ("Pacific/Auckland", ("--from", "1970-01-01", "--to", "1970-01-01"), 3),
        ("Asia/Tokyo", ("--to", "1970-01-01"), 3),
    ],
)
def test_days_are_those_of_the_database(
    ctt: Ctt, tmp_path: Path, zone: str, days: tuple[str, ...], slots: int | None
) -> None:
    database = write(f"sqlite:///{tmp_path}/zone.db", example_rows(), zone=zone, time_ms=TEN + MS_PER_HOUR)
    if slots is None:
        result = ctt("settlement", hex_of(ALICE), "--database", database, *days)
        assert (result.code, result.err) == (64, "ctt: --from is after --to, or after all history\n")
    else:
        assert len(settled(ctt, database, *days)["slots"]) == slots


def test_a_day_keeps_what_was_in_the_tokens_before_it(ctt: Ctt, tmp_path: Path) -> None:
    """In this zone midnight comes after the second of the three slots."""
    rows = example_rows()
    for table in rows.values():
        for row in table:
            row["time_ms"] += (14 * 60 - 30) * 60_000 if row["time_ms"] else 0
    database = write(f"sqlite:///{tmp_path}/two.db", rows, time_ms=30 * MS_PER_HOUR)
    (slot,) = settled(ctt, database, "--from", "1970-01-02")["slots"]
    assert (slot["auctionUsedWh"], slot["resoldWh"]) == ("100", "200")


def test_who_is_unknown_has_no_slots(ctt: Ctt, example: str) -> None:
    told = json.loads(done(ctt("settlement", hex_of(OPERATOR), "--database", example, "--json")))
    assert (told["slots"], told["closing"]["ownWh"]) == ([], "0")
    assert "tokens after block" in done(ctt("settlement", hex_of(OPERATOR), "--database", example))


# --- key figures ---


def figures(ctt: Ctt, database: str, *arguments: object) -> list[Row]:
    told: list[Row] = json.loads(done(ctt("kpi", "--database", database, "--json", *arguments)))
    return told


def test_homes_and_their_community(ctt: Ctt, street: str) -> None:
    ada, bea, community = figures(ctt, street)
    assert (ada["home"], bea["home"], community["home"]) == (hex_of(ADA), hex_of(BEA), None)
    assert (ada["self_consumption"], community["self_sufficiency"]) == ("0.333333", "0.400000")
    assert (community["start"], community["end"]) == ("1970-01-01T00:00:00.000Z", "1970-01-02T00:00:00.000Z")
    assert community["shared_wh"] == "1000"
    assert ada["co2_mg"] == str(400 * 41 + 200 * 363)
    assert bea["co2_mg"] == str(600 * 41 + 1_300 * 363)


def test_rows_may_be_asked_for_by_home_by_time_and_for_the_community(ctt: Ctt, street: str) -> None:
    rows = figures(ctt, street)
    assert figures(ctt, street, "--community") == rows[2:]
    assert [row["home"] for row in figures(ctt, street, "--home", hex_of(BEA))] == [hex_of(BEA)]
    both = figures(ctt, street, "--home", hex_of(BEA), "--home", hex_of(ADA))
    assert [row["home"] for row in both] == [hex_of(ADA), hex_of(BEA)]
    assert figures(ctt, street, "--by", "day") == rows
    hours = figures(ctt, street, "--by", "hour", "--community")
    assert [(row["start"][11:16], row["shared_wh"]) for row in hours] == [
        ("12:00", "1000"),
        ("13:00", "0"),
        ("20:00", "0"),
    ]


def test_the_days_before_count_for_what_tokens_hold(ctt: Ctt, tmp_path: Path) -> None:
    rows = street_rows()
    for hour in [row for row in rows[HOURS] if row["start_ms"] == 20 * MS_PER_HOUR]:
        hour["start_ms"] += 24 * MS_PER_HOUR  # they draw in the evening after
    for day in rows[DAYS]:
        day.update(consumed_wh=1, covered_wh=0)
    database = write(f"sqlite:///{tmp_path}/two.db", rows, time_ms=48 * MS_PER_HOUR)
    bea = figures(ctt, database, "--from", "1970-01-02")[1]
    assert (bea["auction_used_wh"], bea["own_used_wh"], bea["bought_wh"]) == ("600", "0", "0")


def test_factors_of_ones_own(ctt: Ctt, street: str, tmp_path: Path) -> None:
    file = tmp_path / "factors.csv"
    file.write_text("source,g_per_kwh\ngrid,100\nsolar,0\n")
    assert figures(ctt, street, "--factors", file)[0]["co2_mg"] == str(200 * 100)
    file.write_text("source,g_per_kwh\ngrid,much\n")
    for name, code, text in (
        (file, 64, "'much' is not a whole number"),
        (tmp_path / "none", 66, "cannot be read"),
    ):
        result = ctt("kpi", "--database", street, "--factors", name)
        assert (result.code, text in result.err) == (code, True)


def test_files_have_what_json_has(ctt: Ctt, street: str, tmp_path: Path) -> None:
    rows = figures(ctt, street)
    assert (
        done(ctt("kpi", "--database", street, "--csv", tmp_path / "kpi.csv"))
        == f"3 rows are in {tmp_path}/kpi.csv\n"
    )
    with (tmp_path / "kpi.csv").open(newline="") as lines:
        assert [{name: value or None for name, value in row.items()} for row in csv.DictReader(lines)] == rows
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    done(ctt("kpi", "--database", street, "--parquet", tmp_path / "kpi.parquet"))
    table = parquet.read_table(tmp_path / "kpi.parquet").to_pylist()
    assert [[row[name] for name in COLUMNS[2:]] for row in table] == [
        [None if row[name] is None else type_of(name)(row[name]) for name in COLUMNS[2:]] for row in rows
    ]


def type_of(name: str) -> Callable[[str], Any]:
    return str if name == "home" else Decimal


def test_the_table_is_for_people(ctt: Ctt, street: str) -> None:
    *_, bea, community = done(ctt("kpi", "--database", street)).splitlines()
    assert community.split() == [
        *(
            "1970-01-01",
            "00:00Z",
            "community",
            "1.200",
            "2.500",
            "83.3",
            "%",
            "40.0",
            "%",
            "40.0",
            "%",
            "1.000",
        ),
        *("0.1960", "0.586", "0.322"),
    ]
    assert bea.split()[5:9] == ["0.0", "%", "31.6", "%"]  # no self-consumption of one who makes nothing


def test_without_pyarrow_it_says_so(
    ctt: Ctt, street: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = ctt("kpi", "--database", street, "--parquet", tmp_path / "kpi.parquet")
    assert (result.code, result.err) == (66, "ctt: pyarrow is not installed; --csv needs nothing more\n")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--csv", "{tmp}/no/folder.csv"), 73, "cannot be written"),
        (("--from", "1970-01-02"), 64, "--from is after --to, or after all history"),
        (("--from", "yesterday"), 64, "'yesterday' is no date"),
        (("--home", "0x12"), 64, "is no address"),
        (("--home", hex_of(ADA), "--community"), 64, "not allowed with"),
        (("--json", "--csv", "x"), 64, "not allowed with"),
        (("--by", "year"), 64, "invalid choice"),
    ],
)
def test_wrong_arguments_are_named(
    ctt: Ctt, street: str, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    result = ctt("kpi", "--database", street, *[each.replace("{tmp}", str(tmp_path)) for each in arguments])
    assert result.code == code
    assert text in result.err


@pytest.mark.parametrize("command", [("kpi",), ("settlement", hex_of(ALICE))])
def test_what_is_no_history_is_named(ctt: Ctt, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "empty.db").touch()
    other = write(f"sqlite:///{tmp_path}/other.db", {})
    with connect(other).begin() as connection:
        connection.execute(CHAIN.update().values(version=VERSION + 1))
    for url, text in (
        (f"sqlite:///{tmp_path}/none.db", f"there is no file {tmp_path}/none.db"),
        (f"sqlite:///{tmp_path}/empty.db", "no such table: chain"),
        (other, f"its tables are of schema {VERSION + 1}, this program's of {VERSION}"),
        ("mysql://here/there", "mysql: a database is sqlite:///FILE or postgresql://"),
        ("postgresql://localhost:1/none", "connection"),
    ):
        result = ctt(*command, "--database", url)
        assert result.code == 69, result
        assert result.err.startswith("ctt: no history in the database: ") and text in result.err
    assert not (tmp_path / "none.db").exists()
