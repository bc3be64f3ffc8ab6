"""The tables: one schema for SQLite and PostgreSQL, which partitions by month what grows with the chain.

Times are ms since 1970, energy is in Wh, money in wei; addresses and hashes are bytes. Energy and money may have more
bits than a database's integers: PostgreSQL keeps them as NUMERIC, SQLite as INTEGER where they fit and else as text.
Both are exact, and `whole_sum` adds them up in both.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import NUMERIC, TypeDecorator, TypeEngine

VERSION: Final = 1  # of the schema; a database of another one is rebuilt
METADATA: Final = MetaData()
SQLITE_INTEGER_MAX: Final = 2**63 - 1


class Whole(TypeDecorator[int]):
    """An integer from 0 of up to 256 bits."""

    impl = NUMERIC
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        # A BLOB column takes what comes; a NUMERIC one of SQLite would make an inexact float of a large integer.
        kind: TypeEngine[Any] = LargeBinary() if dialect.name == "sqlite" else NUMERIC()
        return dialect.type_descriptor(kind)

    def bind_processor(self, dialect: Dialect) -> Any:
        return encode_whole if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return lambda value: None if value is None else int(value)


def encode_whole(value: int | None) -> int | str | None:
    """As SQLite keeps it."""
    return str(value) if value is not None and value > SQLITE_INTEGER_MAX else value


def _key(name: str, kind: Any = BigInteger) -> "Column[Any]":
    return Column(name, kind, primary_key=True, autoincrement=False)


def _column(name: str, kind: Any = BigInteger, *, optional: bool = False) -> "Column[Any]":
    return Column(name, kind, nullable=optional)


def _table(name: str, *parts: Any) -> Table:
    return Table(name, METADATA, *parts, sqlite_with_rowid=False)


def _by_time(name: str, *parts: Any, time: str = "time_ms") -> Table:
    """A table that PostgreSQL partitions by a column of its key."""
    return Table(name, METADATA, *parts, sqlite_with_rowid=False, postgresql_partition_by=f"RANGE ({time})")


CHAIN: Final = _table(
    "chain",  # one row: which chain this is, and how far it has come
    _key("id", Integer),
    _column("version", Integer),
    _column("chain_id"),
    _column("genesis_hash", LargeBinary),
    _column("time_zone", String),
    _column("height"),
    _column("block_hash", LargeBinary),
    _column("time_ms"),
)
BLOCKS: Final = _by_time(
    "blocks",
    _key("height"),
    _key("time_ms"),
    _column("hash", LargeBinary),
    _column("proposer", LargeBinary),
    _column("view"),
    _column("transactions", Integer),
    _column("gas_used"),
)
TRANSACTIONS: Final = _by_time(
    "transactions",
    _key("height"),
    _key("position", Integer),
    _key("time_ms"),
    _column("hash", LargeBinary),
    _column("sender", LargeBinary),
    _column("recipient", LargeBinary, optional=True),
    _column("function", String, optional=True),  # of a native module, by name
    _column("value_wei", Whole),
    _column("gas_used"),
    _column("succeeded", Boolean),
)
TOKEN_HISTORY: Final = _by_time(
    "token_history",
    _key("token_id"),
    _key("height"),
    _key("log_index", Integer),
    _key("time_ms"),
    _column("kind", String),  # mint, transfer, offer, withdraw, sale
    _column("owner", LargeBinary, optional=True),  # before it; nobody before a mint
    _column("new_owner", LargeBinary, optional=True),
    _column("token_price_wei", Whole, optional=True),  # of an offer
    _column("energy_price_wei_per_wh", Whole, optional=True),  # of an offer
    _column("price_wei", Whole, optional=True),  # of a sale: all that was paid
    _column("energy_wh", Whole, optional=True),  # of a sale: what the token held
)


def _reading() -> "list[Column[Any]]":
    """What names one."""
    return [
        _key("prosumer", LargeBinary),
        _key("time_ms"),  # when it was measured; the block's where nothing says
        _key("height"),
        _key("position", Integer),  # of the transaction
        _key("item", Integer),  # of the transaction's readings
    ]


READINGS: Final = _by_time(
    "readings",
    *_reading(),
    _column("meter", LargeBinary),
    _column("produced_wh", Whole),
    _column("stored_wh", Whole),
    _column("consumed_wh", Whole),
    _column("covered_wh", Whole),
)
RETIRED: Final = _by_time(
    "retired",  # what of a reading's covered energy came from which known source
    *_reading(),
    _key("source", SmallInteger),
    _column("energy_wh", Whole),
)
TRADES: Final = _by_time(
    "trades",
    _key("height"),
    _key("log_index", Integer),
    _key("time_ms"),
    _column("position", Integer),  # of the transaction
    _column("kind", String),  # auction, partner, gift (of a partner or of a token), sale (of a token)
    _column("auction", optional=True),
    _column("token_id", optional=True),  # with the energy in which it went
    _column("buyer", LargeBinary),
    _column("seller", LargeBinary),
    _column("energy_wh", Whole),
    _column("price_wei_per_wh", Whole),
    _column("energy_wei", Whole),  # energy x price
    _column("token_wei", Whole),  # of a sale: what the token itself cost
    _column("grid_fee_wei", Whole),  # that the buyer paid on top
)
AUCTIONS: Final = _table(
    "auctions",
    _key("auction"),
    _column("height"),
    _column("time_ms"),
    _column("price_wei_per_wh", Whole),
    _column("energy_wh", Whole),
    _column("bids", Integer),
    _column("asks", Integer),
    _column("floor_wei_per_wh", Whole),  # these three as the tariff stood
    _column("ceiling_wei_per_wh", Whole),
    _column("grid_fee_wei_per_wh", Whole),
)
TARIFFS: Final = _table(
    "tariffs",  # from height 0 the genesis document's
    _key("height"),
    _key("log_index", Integer),
    _column("position", Integer),  # of the transaction
    _column("time_ms"),
    _column("floor_wei_per_wh", Whole),
    _column("ceiling_wei_per_wh", Whole),
    _column("grid_fee_wei_per_wh", Whole),
    _column("grid_operator", LargeBinary),
)
BOOKINGS: Final = _table(
    "bookings",  # of the treasury
    _key("height"),
    _key("log_index", Integer),
    _column("time_ms"),
    _column("kind", String),  # issued, redeemed
    _column("treasurer", LargeBinary),
    _column("account", LargeBinary, optional=True),  # that got it
    _column("amount_wei", Whole),
    _column("reference", LargeBinary),
)
METERS: Final = _table(
    "meters",  # as certified last; those of the genesis document are not here
    _key("meter", LargeBinary),
    _column("operator", LargeBinary),
    _column("source", SmallInteger),
    _column("max_power_w", Whole),
    _column("concentrator", Boolean),
    _column("certified", Boolean),
    _column("height"),
)

# Rows of these are only ever added.
FACTS: Final = (BLOCKS, TRANSACTIONS, TOKEN_HISTORY, READINGS, RETIRED, TRADES, AUCTIONS, TARIFFS, BOOKINGS)

METERED: Final = ("readings", "produced_wh", "stored_wh", "consumed_wh", "covered_wh")
TRADED: Final = (
    "auction_bought_wh",
    "auction_bought_wei",
    "auction_sold_wh",
    "auction_sold_wei",
    "partner_bought_wh",
    "partner_bought_wei",
    "partner_sold_wh",
    "partner_sold_wei",
    "token_bought_wh",
    "token_bought_wei",
    "token_sold_wh",
    "token_sold_wei",
    "token_paid_wei",
    "token_received_wei",
    "grid_fee_wei",
)
SUMS: Final = (*METERED, *TRADED)


def _roll_up(name: str) -> Table:
    sums = [Column(each, Whole, nullable=False, server_default=text("0")) for each in SUMS]
    table = _by_time(name, _key("prosumer", LargeBinary), _key("start_ms"), *sums, time="start_ms")
    table.info["fillfactor"] = (
        60  # PostgreSQL changes a row in its own page, and no index, where there is room
    )
    return table


QUARTERS: Final = _roll_up("quarters")
HOURS: Final = _roll_up("hours")
DAYS: Final = _roll_up("days")
ROLL_UPS: Final = {"quarter_ms": QUARTERS, "hour_ms": HOURS, "day_ms": DAYS}

Index("transactions_by_hash", TRANSACTIONS.c.hash)
Index("trades_by_buyer", TRADES.c.buyer, TRADES.c.time_ms)
Index("trades_by_seller", TRADES.c.seller, TRADES.c.time_ms)
# Rows come in the order of time, of which PostgreSQL has a small index.
Index("readings_by_time", READINGS.c.time_ms, postgresql_using="brin")
Index("quarters_by_time", QUARTERS.c.start_ms, postgresql_using="brin")
Index("hours_by_time", HOURS.c.start_ms, postgresql_using="brin")
Index("days_by_time", DAYS.c.start_ms, postgresql_using="brin")


def _changes(name: str, sums: tuple[str, ...]) -> Table:
    """What a batch adds to the roll-ups, for the length of its transaction: a row a quarter and prosumer."""
    return Table(
        name,
        MetaData(),
        *[_column(each) for each in ROLL_UPS],
        _column("prosumer", LargeBinary),
        *[_column(each, Whole) for each in sums],
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DELETE ROWS",
    )


METERED_CHANGES: Final = _changes("metered_changes", METERED)
TRADED_CHANGES: Final = _changes("traded_changes", TRADED)
