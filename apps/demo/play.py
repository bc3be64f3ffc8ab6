"""Plays the street against a node until it is cancelled, and shows it."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from apps.client import Client
from apps.demo.screen import render, status_json, status_line
from apps.demo.street import Street
from apps.demo.watch import Watch, follow_auctions, follow_blocks, follow_homes

HOMES: Final = 24
QUARTER_SECONDS: Final = 1.0
FRAMES_PER_SECOND: Final = 4
LINE_SECONDS: Final = 5.0
PICTURE_COLUMNS: Final = 108


async def play(url: str, *, homes: int = HOMES, as_json: bool = False, picture: Path | None = None) -> None:
    """Until it is cancelled; then draws its last screen if it is to.

    Raises: RpcError, aiohttp.ClientError or TimeoutError when the node goes away."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(url))
        chain_id = int(await client.call("eth_chainId"), 16)
        street, watch = Street(client, chain_id, homes), Watch()
        if picture:
            stack.callback(draw, watch, street, url, picture)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_blocks(client, watch))
            tasks.create_task(_show(street, watch, url, as_json=as_json))
            tasks.create_task(_live(client, street, watch, tasks))


async def _live(client: Client, street: Street, watch: Watch, tasks: asyncio.TaskGroup) -> None:
    """Builds the street, then a quarter hour a second; a quarter that takes longer delays the next."""
    await street.build()
    tasks.create_task(follow_homes(client, watch, street))
    tasks.create_task(follow_auctions(client, watch, street))
    clock = asyncio.get_running_loop()
    due = clock.time()
    while True:
        await street.live_quarter()
        due = max(due + QUARTER_SECONDS, clock.time())
        await asyncio.sleep(due - clock.time())


async def _show(street: Street, watch: Watch, url: str, *, as_json: bool) -> None:
    console = Console()
    if as_json or not console.is_terminal:
        shown: Callable[..., str] = status_json if as_json else status_line
        while True:
            await asyncio.sleep(1.0 if as_json else LINE_SECONDS)
            with suppress(BlockingIOError):
                print(shown(watch, street.news), flush=True)
    with Live(console=console, refresh_per_second=FRAMES_PER_SECOND, transient=False) as live:
        while True:
            live.update(render(watch, street.news, url))
            await asyncio.sleep(1 / FRAMES_PER_SECOND)


def draw(watch: Watch, street: Street, url: str, file: Path) -> None:
    """Writes the screen of now as an SVG picture."""
    console = Console(record=True, width=PICTURE_COLUMNS, file=StringIO(), force_terminal=True)
    console.print(render(watch, street.news, url))
    file.write_text(console.export_svg(title="make run"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m apps.demo.play", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8545")
    parser.add_argument("--homes", type=int, default=HOMES)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write the last screen as an SVG picture"
    )
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(play(options.url, homes=options.homes, as_json=options.json, picture=options.picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
