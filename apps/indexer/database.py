"""The database: opened, checked against the chain, and written in whole batches of blocks.

How far it has come stands in the same transaction as the rows, so whatever ends the program, it goes on exactly there.
PostgreSQL takes rows by COPY, and gets a partition of a table for each month that has rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import psycopg
from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Engine,
    Executable,
    Integer,
    LargeBinary,
    NullPool,
    SmallInteger,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from apps.indexer.rollup import sum_readings, sum_trades
from apps.indexer.rows import Batch, Offer, Position, Row, Tariff
from apps.indexer.schema import (
    CHAIN,
    FACTS,
    METADATA,
    METERED_CHANGES,
    METERS,
    ROLL_UPS,
    TARIFFS,
    TOKEN_HISTORY,
    TRADED_CHANGES,
    VERSION,
    Whole,
    encode_whole,
)
from apps.indexer.sums import teach, total, whole_add
from ctt_state.genesis import Genesis
from ctt_state.units import ZERO_HASH, hex_of

CONNECT_SECONDS: Final = 3
SILENCE_MS_MAX: Final = 10_000  # of a server that is to acknowledge what it was sent
MS_PER_SECOND: Final = 1_000
MS_PER_DAY: Final = 86_400_000

_POSTGRESQL: Final = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": SILENCE_MS_MAX}


class Refused(Exception):
    """The database is not one of this chain, or not as this program writes it. One line: what, and what to do."""


class UnknownDatabase(ValueError):
    """The URL is not one of a database that there is a driver for."""


class DatabaseAway(Exception):
    """The database cannot be reached, or cannot take more just now. One line."""


@contextmanager
def _reaching() -> Iterator[None]:
    """Raises: DatabaseAway."""
    try:
        yield
    except (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError) as fault:
        cause = getattr(fault, "orig", None) or fault
        raise DatabaseAway(f"the database: {' '.join(str(cause).split())[:300]}") from fault


def _parse(url: str) -> URL:
    """Raises: UnknownDatabase."""
    try:
        parsed = make_url(url)
    except ArgumentError as fault:
        raise UnknownDatabase(str(fault)) from None
    if parsed.drivername not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise UnknownDatabase(
            f"{parsed.drivername}: a database is sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    return parsed


def connect(url: str) -> Engine:
    """The database, for programs that read it too. Raises: UnknownDatabase."""
    parsed = _parse(url)
    if parsed.drivername != "sqlite":
        return create_engine(parsed, poolclass=NullPool, connect_args=_POSTGRESQL)
    engine = create_engine(parsed, poolclass=NullPool)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # tables too are made in transactions
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    teach(connection)


class Store:
    """An indexer's connection. Its methods block; only `interrupt` may be called meanwhile, from another thread."""

    def __init__(self, url: str, genesis: Genesis, zone: ZoneInfo, *, rebuild: bool = False) -> None:
        """Opens it, with new tables where there are none or `rebuild` says so. Raises: Refused, DatabaseAway."""
        self._zone = zone
        self._partitions: set[str] = set()
        engine = connect(url)
        _make_directory(engine.url)
        with _reaching():
            self._connection = engine.connect()
            self._is_sqlite = self._connection.dialect.name == "sqlite"
            try:
                self._open(genesis, rebuild=rebuild)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, genesis: Genesis, *, rebuild: bool) -> None:
        with self._connection.begin():
            self._check(genesis, rebuild=rebuild)
        with self._connection.begin():
            if not self._is_sqlite:  # a batch that a crash takes from the disk is fetched again
                self._connection.exec_driver_sql("SET synchronous_commit = off")
            for table in _CHANGES:
                table.create(self._connection, checkfirst=False)
            self.position = self._read_position()
            self.tariff = self._read_tariff()

    def close(self) -> None:
        with suppress(DBAPIError):
            self._connection.close()

    def interrupt(self) -> None:
        """Makes a `write` that is at work fail."""
        driver = self._connection.connection.driver_connection
        if driver is not None:
            driver.interrupt() if self._is_sqlite else driver.cancel_safe(timeout=CONNECT_SECONDS)

    def write(self, batch: Batch) -> None:
        """Adds these blocks, all or none; after an error the store is to be closed. Raises: Refused, DatabaseAway."""
        with _reaching(), self._connection.begin():
            self._advance(batch)
            batch.price_sales(self._offer_of)
            for table in FACTS:
                self._fill(table, batch.tables[table.name])
            self._certify(batch)
            self._roll_up(batch)

    # --- what it is ---

    def _check(self, genesis: Genesis, *, rebuild: bool) -> None:
        found = set(inspect(self._connection).get_table_names()) & set(METADATA.tables)
        if found and CHAIN.name not in found:
            raise Refused(
                f"the database has a table {min(found)} that is not an indexer's; give it one of its own"
            )
        if found:
            self._check_same(genesis, rebuild=rebuild)
        if found and rebuild:
            METADATA.drop_all(self._connection)
        if not found or rebuild:
            METADATA.create_all(self._connection)
            self._begin(genesis)

    def _check_same(self, genesis: Genesis, *, rebuild: bool) -> None:
        columns = {column["name"] for column in inspect(self._connection).get_columns(CHAIN.name)}
        if "version" not in columns:
            raise Refused("the database has a table chain that is not an indexer's; give it one of its own")
        version = self._connection.execute(select(CHAIN.c.version)).scalar_one()
        if rebuild:
            return
        if version != VERSION:
            raise Refused(
                f"the tables are of schema {version}, this program's of {VERSION}; begin anew with --rebuild"
            )
        row = self._connection.execute(select(CHAIN)).one()
        if row.genesis_hash != genesis.hash:
            raise Refused(
                f"the database is of another chain: its genesis is {hex_of(row.genesis_hash)}, this one's "
                f"{hex_of(genesis.hash)}"
            )
        if row.time_zone != self._zone.key:
            raise Refused(
                f"its days are those of {row.time_zone}, not of {self._zone.key}; begin anew with --rebuild"
            )

    def _begin(self, genesis: Genesis) -> None:
        self._connection.execute(
            insert(CHAIN).values(
                id=1,
                version=VERSION,
                chain_id=genesis.parameters.chain_id,
                genesis_hash=genesis.hash,
                time_zone=self._zone.key,
                height=-1,
                block_hash=ZERO_HASH,
                time_ms=genesis.time_ms,
            )
        )
        if genesis.tariff is not None:
            self._connection.execute(insert(TARIFFS).values((0, 0, 0, genesis.time_ms, *genesis.tariff)))

    def _read_position(self) -> Position:
        row = self._connection.execute(select(CHAIN.c.height, CHAIN.c.block_hash)).one()
        return Position(*row)

    def _read_tariff(self) -> Tariff | None:
        known = TARIFFS.c
        row = self._connection.execute(
            select(known.floor_wei_per_wh, known.ceiling_wei_per_wh, known.grid_fee_wei_per_wh)
            .order_by(known.height.desc(), known.log_index.desc())
            .limit(1)
        ).one_or_none()
        return Tariff(*row) if row else None

    def _offer_of(self, token: int) -> Offer | None:
        history = TOKEN_HISTORY.c
        row = self._connection.execute(
            select(history.token_price_wei, history.energy_price_wei_per_wh)
            .where(history.token_id == token, history.kind == "offer")
            .order_by(history.height.desc(), history.log_index.desc())
            .limit(1)
        ).one_or_none()
        return Offer(*row) if row else None

    # --- what is written ---

    def _advance(self, batch: Batch) -> None:
        """Comes first: whoever else writes here waits for it, and then finds that the database has gone on."""
        moved = self._connection.execute(
            update(CHAIN)
            .where(CHAIN.c.height == batch.after.height, CHAIN.c.block_hash == batch.after.block_hash)
            .values(height=batch.last.height, block_hash=batch.last.block_hash, time_ms=batch.time_ms)
        )
        if moved.rowcount != 1:
            raise Refused(
                f"the database is no more at block {batch.after.height}: another indexer writes to it"
            )

    def _certify(self, batch: Batch) -> None:
        if batch.meters:
            self._connection.execute(delete(METERS).where(METERS.c.meter.in_(batch.meters)))
            self._fill(METERS, list(batch.meters.values()))
        for meter, height in batch.revoked.items():
            self._connection.execute(
                update(METERS).where(METERS.c.meter == meter).values(certified=False, height=height)
            )

    def _roll_up(self, batch: Batch) -> None:
        self._add_changes(METERED_CHANGES, sum_readings(batch.tables["readings"], self._zone))
        self._add_changes(TRADED_CHANGES, sum_trades(batch.tables["trades"], self._zone))

    def _add_changes(self, changes: Table, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self._fill(changes, rows)
        for place, table in enumerate(ROLL_UPS.values()):
            self._add_partitions(table, {row[place] for row in rows})
            self._connection.execute(_ADD[self._connection.dialect.name, changes.name, table.name])
        if self._is_sqlite:  # PostgreSQL empties it with the transaction
            self._connection.execute(delete(changes))

    def _fill(self, table: Table, rows: Sequence[Row]) -> None:
        if self._is_sqlite:
            if rows:
                self._connection.exec_driver_sql(_INSERT[table.name], list(_encode(table, rows)))
            return
        if not rows:
            return
        if "time_ms" in table.c:
            place = list(table.c.keys()).index("time_ms")
            self._add_partitions(table, {row[place] for row in rows})
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor().copy(_COPY[table.name]) as copy:
            copy.set_types(_TYPES[table.name])
            for row in rows:
                copy.write_row(row)

    def _add_partitions(self, table: Table, times_ms: Iterable[int]) -> None:
        """For the months of these times, where the table has partitions."""
        if self._is_sqlite or not table.dialect_options["postgresql"]["partition_by"]:
            return
        for day in {time_ms // MS_PER_DAY for time_ms in times_ms}:
            first = datetime.fromtimestamp(day * MS_PER_DAY // MS_PER_SECOND, UTC).replace(day=1)
            name = f"{table.name}_{first:%Y_%m}"
            if name in self._partitions:
                continue
            after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
            start, end = (int(each.timestamp()) * MS_PER_SECOND for each in (first, after))
            self._connection.exec_driver_sql(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table.name} FOR VALUES FROM ({start}) TO ({end}) "
                f"WITH (fillfactor = {table.info.get('fillfactor', 100)})"
            )
            self._partitions.add(name)


def _make_directory(url: URL) -> None:
    """Of SQLite's file. Raises: Refused."""
    if url.drivername == "sqlite" and url.database:
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise Refused(f"no place for {url.database}: {fault}") from None


def _encode(table: Table, rows: Iterable[Row]) -> Iterable[Row]:
    """As SQLite's driver takes them."""
    wholes = [isinstance(column.type, Whole) for column in table.c]
    for row in rows:
        yield tuple(
            [encode_whole(value) if whole else value for value, whole in zip(row, wholes, strict=True)]
        )


def _add(changes: Table, start: str, table: Table, upsert: Callable[[Table], Any]) -> Executable:
    """Adds the changes to a roll-up, whose periods' starts are their column `start`."""
    sums = list(changes.c.keys())[len(ROLL_UPS) + 1 :]
    period = (changes.c.prosumer, changes.c[start])
    added = (
        select(*period, *[total(changes.c[name]) for name in sums])
        .where(true())  # without it SQLite takes ON CONFLICT for a join's
        .group_by(*period)
    )
    adding = upsert(table).from_select(["prosumer", "start_ms", *sums], added)
    statement: Executable = adding.on_conflict_do_update(
        index_elements=table.primary_key.columns,
        set_={name: whole_add(table.c[name], adding.excluded[name]) for name in sums},
    )
    return statement


_CHANGES: Final = (METERED_CHANGES, TRADED_CHANGES)
_TABLES: Final = (*FACTS, METERS, *_CHANGES)
_INSERT: Final = {
    table.name: f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(table.c))})" for table in _TABLES
}
_COPY: Final = {table.name: f"COPY {table.name} FROM STDIN (FORMAT BINARY)" for table in _TABLES}
_TYPE_NAMES: Final[Mapping[type[Any], str]] = {
    BigInteger: "int8",
    Integer: "int4",
    SmallInteger: "int2",
    Boolean: "bool",
    LargeBinary: "bytea",
    String: "text",
    Whole: "numeric",
}
_TYPES: Final = {table.name: [_TYPE_NAMES[type(column.type)] for column in table.c] for table in _TABLES}
_ADD: Final = {
    (dialect, changes.name, table.name): _add(changes, start, table, upsert)
    for dialect, upsert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
    for changes in _CHANGES
    for start, table in ROLL_UPS.items()
}
