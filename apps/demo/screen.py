"""The demonstration on a terminal: a table on a screen, a line now and then on a pipe, JSON lines for scripts."""

import json
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from apps.curves import sparkline
from apps.demo.home import News
from apps.demo.profiles import QUARTERS_A_DAY
from apps.demo.watch import HomeState, Trade, Watch

BAR_CELLS = 16
TRADES_SHOWN = 7
BLOCKS_PER_SECOND_TARGET = 3.0
# Of the table of homes, and how wide the terminal is from which on each is shown.
HOME_COLUMNS: Final = {
    "home": 0,
    "charge": 100,
    "stored": 0,
    "tokens": 80,
    "on sale": 80,
    "produced": 68,
    "consumed": 0,
    "covered": 0,
}
COLUMNS_OF_ALL: Final = 100


def render(watch: Watch, news: News, url: str) -> RenderableType:
    """The whole screen."""
    market = [market_panel(watch)] if watch.auctions else []
    return Group(_chain_panel(watch, news, url), *market, homes_table(watch), _news_text(news))


def status_line(watch: Watch, news: News) -> str:
    """The same in one line, for a pipe."""
    line = (
        f"{clock(news)}  block {watch.height:,}  {watch.blocks_per_second:.2f} blocks/s  "
        f"{watch.transactions_per_second:.0f} tx/s  {watch.tokens:,} tokens hold {_kwh(watch.energy_wh)}  "
        f"covered {_kwh(watch.total('covered_wh'))} of {_kwh(watch.total('consumed_wh'))}"
    )
    for auction in watch.auctions[:1]:
        line += f"  auction {auction.number:,}: {_kwh(auction.energy_wh)} at {_price(auction.price)}"
    return line


def status_json(watch: Watch, news: News) -> str:
    """The same as a JSON line."""
    return json.dumps(status_of(watch, news))


def status_of(watch: Watch, news: News) -> dict[str, Any]:
    """The same for programs, energy in Wh."""
    return {
        "quarter": news.quarter,
        "height": watch.height,
        "blocksPerSecond": round(watch.blocks_per_second, 3),
        "transactionsPerSecond": round(watch.transactions_per_second, 1),
        "transactions": watch.transactions,
        "tokens": watch.tokens,
        "energyWh": watch.energy_wh,
        "producedWh": watch.total("produced_wh"),
        "consumedWh": watch.total("consumed_wh"),
        "coveredWh": watch.total("covered_wh"),
        "sent": news.sent,
        "refused": news.failed,
        "sales": news.sales,
        "auction": _auction_json(watch) if watch.auctions else None,
    }


def _auction_json(watch: Watch) -> dict[str, Any]:
    auction = watch.auctions[0]
    return {
        "number": auction.number,
        "priceWeiPerWh": str(auction.price),
        "energyWh": auction.energy_wh,
        "trades": len(watch.trades),
    }


def _chain_panel(watch: Watch, news: News, url: str) -> Panel:
    rate = watch.blocks_per_second
    colour = "green" if rate >= BLOCKS_PER_SECOND_TARGET * 0.97 else "yellow"
    text = Text.assemble(
        ("block ", "dim"),
        (f"{watch.height:,}", "bold"),
        (f"  {watch.block_hash[:18]}…  ", "dim"),
        (f"{rate:.2f} blocks/s", colour),
        "   ",
        (f"{watch.transactions_per_second:.0f} tx/s", "cyan"),
        (f"   {watch.transactions:,} transactions\n", ""),
        energy_text(watch, news),
    )
    return Panel(text, title=f"Crypto-Trading street, {clock(news)}", subtitle=url, border_style="blue")


def energy_text(watch: Watch, news: News) -> Text:
    """The street's tokens and energy in a line."""
    return Text.assemble(
        (f"{watch.tokens:,}", "bold"),
        (" tokens hold ", "dim"),
        (_kwh(watch.energy_wh), "bold yellow"),
        ("   consumed ", "dim"),
        _kwh(watch.total("consumed_wh")),
        (", covered by tokens ", "dim"),
        (_kwh(watch.total("covered_wh")), "green"),
        (f"   {news.sales} sales", ""),
    )


def market_panel(watch: Watch) -> Panel:
    """The last auction, who traded in it, and the run of prices that led to it."""
    auction, prices = watch.auctions[0], [each.price for each in reversed(watch.auctions)]
    text = Text.assemble(
        (f"{_price(auction.price)} per kWh", "bold"),
        f"   {_kwh(auction.energy_wh)} in {len(watch.trades)} trades",
        (f" of {auction.bids} bids and {auction.asks} asks\n", "dim"),
        (f"the last {len(prices)} ", "dim"),
        (sparkline(prices), "cyan"),
        (f" {_price(min(prices))} to {_price(max(prices))}\n", "dim"),
        *[part for trade in watch.trades[:TRADES_SHOWN] for part in _trade_parts(trade)],
        ("…" if len(watch.trades) > TRADES_SHOWN else "", "dim"),
    )
    return Panel(
        text, title=f"auction {auction.number:,}, cleared in block {auction.height:,}", border_style="cyan"
    )


def market_line(watch: Watch) -> Text:
    """The last auction and the run of prices, in a line."""
    auction = watch.auctions[0]
    return Text.assemble(
        (f"auction {auction.number:,} ", "dim"),
        (f"{_price(auction.price)} per kWh", "bold"),
        f"   {_kwh(auction.energy_wh)} in {len(watch.trades)} trades   ",
        (sparkline([each.price for each in reversed(watch.auctions)]), "cyan"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _trade_parts(trade: Trade) -> tuple[str | tuple[str, str], ...]:
    seller, buyer = trade.seller.partition(" ")[0], trade.buyer.partition(" ")[0]
    return (
        f"{seller}→{buyer} ",
        (f"{trade.energy_wh / 1_000:.2f}", "yellow"),
        ("" if trade.price else " gift", "green"),
        "   ",
    )


def homes_table(watch: Watch, rows_max: int | None = None, columns: int = COLUMNS_OF_ALL) -> Table:
    """A row a home; where there is no room for all, the last row tells of the rest. A narrow one leaves out figures."""
    homes = list(watch.homes.items())
    shown = len(homes) if rows_max is None or len(homes) <= rows_max else max(0, rows_max - 1)
    wanted = [name for name, least in HOME_COLUMNS.items() if columns >= least]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in wanted:
        table.add_column(name, justify="left" if name in ("home", "charge") else "right", no_wrap=True)
    for name, home in homes[:shown]:
        cells: dict[str, str | Text] = {"home": name, **_home_cells(home)}
        table.add_row(*[cells[each] for each in wanted])
    if shown < len(homes):
        table.add_row(Text(f"… {len(homes) - shown} more", "dim"))
    return table


def _home_cells(home: HomeState) -> dict[str, str | Text]:
    return {
        "charge": _bar(home),
        "stored": _kwh(home.stored_wh),
        "tokens": str(home.full + home.partial + home.empty),
        "on sale": str(home.on_sale or ""),
        "produced": _kwh(home.produced_wh) if home.produced_wh else "",
        "consumed": _kwh(home.consumed_wh) if home.consumed_wh else "",
        "covered": f"{home.covered_wh * 100 // home.consumed_wh} %" if home.consumed_wh else "",
    }


def _bar(home: HomeState) -> Text:
    room = home.stored_wh + home.spare_wh
    cells = home.stored_wh * BAR_CELLS // room if room else 0
    return Text.assemble(("█" * cells, "yellow"), ("░" * (BAR_CELLS - cells), "dim"))


def _news_text(news: News) -> Text:
    return Text("\n".join(news.lines), style="dim")


def clock(news: News) -> str:
    day, quarter = divmod(news.quarter, QUARTERS_A_DAY)
    return f"day {day + 1}, {quarter // 4:02d}:{quarter % 4 * 15:02d}"


def _kwh(energy_wh: int) -> str:
    return f"{energy_wh / 1_000:,.1f} kWh"


def _price(wei_per_wh: int) -> str:
    """Of a kWh, to a thousandth."""
    return f"{wei_per_wh / 10**15:.3f}"
