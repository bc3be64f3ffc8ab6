"""A development network on a terminal: its validators, and under them the street that lives on their chain; lines for a
pipe, JSON for scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from apps.demo.network import RUNNING, Member, NetworkWatch, Seen
from apps.demo.play import Scene
from apps.demo.screen import (
    BLOCKS_PER_SECOND_TARGET,
    clock,
    energy_text,
    homes_table,
    market_line,
    market_panel,
    status_of,
)

COLUMNS_MIN: Final = 60
ROWS_MIN: Final = 13
COLUMNS_OF_TIMES: Final = 72  # from which on round trip and lag are shown
ROWS_BESIDE: Final = 9  # of the network's panel, beside a row a validator
ROWS_OF_MARKET: Final = 30  # from which on there is room for the trades, and for more than one notice
ROWS_OF_HOMES: Final = 4  # of the table at least, with its head
PICTURE_COLUMNS: Final = 108
PICTURE_ROWS: Final = 45
GOOD, WARNING, BAD = "green", "yellow", "red"
COLOURS: Final = {
    RUNNING: GOOD,
    "paused": WARNING,
    "cut off": WARNING,
    "restarting": WARNING,
    "votes": GOOD,
    "misses": WARNING,
}
KEYS: Final = {
    "k": "kill",
    "p": "pause",
    "c": "cut off",
    "r": "restart",
    "?": "help",
    "q": "quit",
}
HELP: Final = """\
1-9 ↑ ↓  choose a validator
k  kill it, as kill -9 does: it stays away until r
p  pause it (SIGSTOP), or let it go on
c  cut it off from its peers, or let it back; its JSON-RPC answers
r  restart it in an orderly way, or start it again
q  quit, and stop them all; with Ctrl-Z only this screen waits
More than two thirds must work together: of four one may be away, without
two the chain stands still until one is back, and loses nothing.
silent: nothing heard for 2 s; misses: none of its last votes came in time."""


@dataclass
class Board:
    """All there is to show. Without a scene no street lives here; `chosen` is None while no keys are read."""

    members: Sequence[Member]
    network: NetworkWatch
    scene: Scene | None
    now_s: float
    chosen: int | None = None
    is_helping: bool = False
    notices: Sequence[str] = field(default_factory=list)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, rows = options.max_width, console.size.height
        if columns < COLUMNS_MIN or rows < ROWS_MIN:
            yield Text(
                "\n".join([_pulse_line(self), *(f"{each.name} {each.state}" for each in self.members)])
            )
            return
        upper = list(_upper(self, columns, rows))
        yield from upper
        left = rows - sum(len(console.render_lines(each, options)) for each in upper)
        if self.scene is not None and self.scene.watch.homes and left > ROWS_OF_HOMES and not self.is_helping:
            yield homes_table(self.scene.watch, left - ROWS_OF_HOMES + 1, columns)


def _upper(board: Board, columns: int, rows: int) -> Iterator[RenderableType]:
    """What stands above the homes."""
    yield _network_panel(board, columns, rows)
    if board.is_helping:
        yield Panel(Text(HELP), title="help", border_style="blue")
    elif board.scene is not None and board.scene.watch.auctions and rows >= ROWS_OF_MARKET:
        yield market_panel(board.scene.watch)


def board_line(board: Board) -> str:
    """The same in one line, for a pipe."""
    away = [f"{each.name} {each.state}" for each in board.members if each.state != RUNNING]
    line = f"{_pulse_line(board)}  {', '.join(away) or 'all validators run'}"
    if board.scene is None:
        return line
    return f"{clock(board.scene.news)}  {line}  {energy_text(board.scene.watch, board.scene.news).plain}"


def board_json(board: Board) -> dict[str, Any]:
    """The same for programs: what the street's own JSON says, and the network; times in ms."""
    street = {} if board.scene is None else status_of(board.scene.watch, board.scene.news)
    network, members = board.network, board.members
    finality_ms = network.finality_ms(members)
    return street | {
        "network": {
            "height": network.height,
            "isLive": network.is_live(members),
            "blocksPerSecond": round(network.blocks_per_second(board.now_s), 3),
            "finalityMs": finality_ms,
            "turn": network.turn or None,
            "validators": [_member_json(board, each) for each in members],
        }
    }


def _member_json(board: Board, member: Member) -> dict[str, Any]:
    seen = board.network.seen.get(member.name)
    return {
        "name": member.name,
        "url": member.url,
        "state": str(member.state),
        "votes": board.network.votes(member.name, board.now_s) or None,
        "height": seen and seen.height,
        "peers": seen and seen.peers,
        "roundTripMs": seen and round(seen.round_trip_ms, 1),
        "loopLagMs": seen and seen.loop_lag_ms,
    }


def draw_picture(board: Board, file: Path) -> None:
    """As an SVG picture."""
    console = Console(
        record=True, width=PICTURE_COLUMNS, height=PICTURE_ROWS, file=StringIO(), force_terminal=True
    )
    console.print(board)
    file.write_text(console.export_svg(title="make run"))


def _pulse_line(board: Board) -> str:
    network = board.network
    finality_ms = network.finality_ms(board.members)
    final = "" if finality_ms is None else f"  final in {finality_ms:.0f} ms"
    rate = network.blocks_per_second(board.now_s)
    state = "" if network.is_live(board.members) or not network.height else "  stands still"
    return f"block {network.height:,}  {rate:.2f} blocks/s{final}{state}"


def _network_panel(board: Board, columns: int, rows: int) -> Panel:
    is_tall = rows >= ROWS_OF_MARKET
    parts: list[RenderableType] = [_pulse(board)]
    title = "Crypto-Trading network"
    if board.scene is not None:
        parts += _street_lines(board.scene, with_market=not is_tall)
        title = f"Crypto-Trading street, {clock(board.scene.news)}"
    parts.append(_members_table(board, columns, rows - ROWS_BESIDE))
    if board.chosen is not None:
        parts.append(_line(*_keys(len(board.members))))
    parts += [_line((text, "dim")) for text in board.notices[None if is_tall else -1 :]]
    door = next((each for each in board.members if each.state == RUNNING), board.members[0])
    is_well = board.network.is_live(board.members) or not board.network.height
    return Panel(
        Group(*parts),
        title=title,
        subtitle=f"explorer at {door.url}/",
        border_style="blue" if is_well else BAD,
    )


def _line(*parts: str | tuple[str, str]) -> Text:
    """That is cut rather than continued on the next."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _pulse(board: Board) -> Text:
    network = board.network
    rate = network.blocks_per_second(board.now_s)
    parts: list[str | tuple[str, str]] = [
        ("block ", "dim"),
        (f"{network.height:,}", "bold"),
        "   ",
        (f"{rate:.2f}", GOOD if rate >= BLOCKS_PER_SECOND_TARGET * 0.97 else WARNING),
        (f" of {BLOCKS_PER_SECOND_TARGET:g} blocks/s", "dim"),
    ]
    finality_ms = network.finality_ms(board.members)
    if network.height and not network.is_live(board.members):
        return _line(*parts, ("   the chain stands still", f"bold {BAD}"))
    if finality_ms is not None:
        parts += [("   final in ", "dim"), f"{finality_ms:.0f} ms"]
    if board.scene is not None:
        parts += [(f"   {board.scene.watch.transactions_per_second:.0f} tx/s", "cyan")]
    return _line(*parts)


def _street_lines(scene: Scene, *, with_market: bool) -> list[RenderableType]:
    """The street's energy; and the last auction, where there is no room for more of it."""
    energy = energy_text(scene.watch, scene.news)
    energy.no_wrap, energy.overflow = True, "ellipsis"
    if not with_market or not scene.watch.auctions:
        return [energy]
    return [energy, market_line(scene.watch)]


def _members_table(board: Board, columns: int, rows_max: int) -> Table:
    """A row a validator; of more than there is room for, those around the chosen one."""
    has_times = columns >= COLUMNS_OF_TIMES
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("  validator", "state", "votes"):
        table.add_column(name, no_wrap=True)
    for name in ("block", "peers", *(("answers in", "loop lag") if has_times else ())):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("turn", no_wrap=True)
    count, room = len(board.members), max(3, rows_max)
    first = max(0, min((board.chosen or 0) - room // 2, count - room))
    for place in range(first, min(count, first + room)):
        member, is_chosen = board.members[place], place == board.chosen
        is_turn = member.name == board.network.turn and board.network.is_live(board.members)
        table.add_row(
            Text(f"{'▶' if is_chosen else ' '} {member.name}", "bold cyan" if is_chosen else ""),
            *_health(board, member),
            *_figures(board.network.seen.get(member.name), has_times=has_times),
            Text("●", "cyan") if is_turn else "",
        )
    return table


def _health(board: Board, member: Member) -> tuple[Text, Text]:
    """Its state, which is `hangs` of one that runs and does not answer; and how it votes."""
    seen, votes = board.network.seen.get(member.name), board.network.votes(member.name, board.now_s)
    is_hanging = member.state == RUNNING and member.name in board.network.seen and seen is None
    state = "hangs" if is_hanging else str(member.state)
    return Text(state, COLOURS.get(state, BAD)), Text(votes, COLOURS.get(votes, BAD))


def _figures(seen: Seen | None, *, has_times: bool) -> tuple[str, ...]:
    if seen is None:
        return ("", "", "", "") if has_times else ("", "")
    times = (f"{seen.round_trip_ms:.0f} ms", f"{seen.loop_lag_ms:g} ms") if has_times else ()
    return f"{seen.height:,}", str(seen.peers), *times


def _keys(count: int) -> Iterator[str | tuple[str, str]]:
    choosing = {f"1-{min(count, 9)}": "choose"} if count > 1 else {}
    for key, what in (choosing | KEYS).items():
        yield from ((key, "bold cyan"), (f" {what}  ", "dim"))
