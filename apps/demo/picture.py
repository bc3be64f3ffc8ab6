"""Writes the demonstration's screen as a picture: `python -m apps.demo.picture FILE.svg` while `make run` runs."""

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console

from apps.client import Client
from apps.demo.play import HOMES
from apps.demo.screen import render
from apps.demo.street import Street
from apps.demo.watch import Watch, follow_blocks, follow_homes

COLUMNS = 108
WATCH_SECONDS = 12.0


async def draw(url: str, file: Path) -> None:
    """Watches the street that is being played for a while, then draws it."""
    async with Client(url) as client:
        street = Street(client, int(await client.call("eth_chainId"), 16), HOMES)
        watch = Watch()
        try:
            async with asyncio.timeout(WATCH_SECONDS), asyncio.TaskGroup() as tasks:
                tasks.create_task(follow_blocks(client, watch))
                tasks.create_task(follow_homes(client, watch, street))
        except TimeoutError:
            pass
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(render(watch, street.news, url))
        file.write_text(console.export_svg(title="make run"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m apps.demo.picture", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8545")
    options = parser.parse_args()
    asyncio.run(draw(options.url, options.file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
