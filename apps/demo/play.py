"""Plays the street against a node until it is cancelled, and shows it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

from rich.console import Console
from rich.live import Live

from apps.client import Client
from apps.demo.home import News
from apps.demo.screen import render, status_json, status_line
from apps.demo.street import Street
from apps.demo.watch import Watch, follow_auctions, follow_blocks, follow_homes

HOMES: Final = 24
QUARTER_SECONDS: Final = 1.0
FRAMES_PER_SECOND: Final = 4
LINE_SECONDS: Final = 5.0


@dataclass
class Scene:
    """What there is to show of a street: of another one's after the demonstration went on at another node."""

    url: str = ""
    watch: Watch = field(default_factory=Watch)
    news: News = field(default_factory=News)


async def play(url: str, *, homes: int = HOMES, as_json: bool = False) -> None:
    """Plays, and shows it, until it is cancelled.

    Raises: RpcError, aiohttp.ClientError or TimeoutError when the node goes away."""
    scene = Scene()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(perform(url, scene, homes=homes))
        tasks.create_task(_show(scene, as_json=as_json))


async def perform(url: str, scene: Scene, *, homes: int = HOMES) -> None:
    """Plays without showing it. Raises: as `play`."""
    async with Client(url) as client:
        chain_id = int(await client.call("eth_chainId"), 16)
        street = Street(client, chain_id, homes)
        scene.url, scene.news = url, street.news
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_blocks(client, scene.watch))
            tasks.create_task(_live(client, street, scene.watch, tasks))


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


async def _show(scene: Scene, *, as_json: bool) -> None:
    console = Console()
    if as_json or not console.is_terminal:
        shown: Callable[..., str] = status_json if as_json else status_line
        while True:
            await asyncio.sleep(1.0 if as_json else LINE_SECONDS)
            with suppress(BlockingIOError):
                print(shown(scene.watch, scene.news), flush=True)
    with Live(console=console, refresh_per_second=FRAMES_PER_SECOND, transient=False) as live:
        while True:
            live.update(render(scene.watch, scene.news, scene.url))
            await asyncio.sleep(1 / FRAMES_PER_SECOND)


class _Parser(argparse.ArgumentParser):
    """A wrong call ends with the code of sysexits.h, as for `ctt`."""

    def error(self, message: str) -> NoReturn:
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main() -> int:
    parser = _Parser(prog="python -m apps.demo.play", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8545")
    parser.add_argument("--homes", type=int, default=HOMES)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(play(options.url, homes=options.homes, as_json=options.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
