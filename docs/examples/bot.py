"""A trader in sixty lines: asks `ctt advise` every hour and does what it says, with the home's key.

python docs/examples/bot.py 0xHOME home.key [--rpc URL] [--database URL] [--dry-run]
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

HOUR_S = 3_600
BLOCKS_PER_HOUR = 3 * HOUR_S
TOKEN_WH = 10_000


def ctt(*words: str) -> Any:
    """What the command says with --json. Raises: CalledProcessError; it has told why on standard error."""
    command = [sys.executable, "-m", "node.cli.main", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def order_of(advice: dict[str, Any], auctions: int) -> list[str]:
    """The command that does what is advised, for so many auctions; none to hold."""
    kwh, limit = f"{advice['energyWh'] / 1_000:.3f}", f"{advice['limitPerKwh'] or 0:.4f}"
    match advice["action"]:
        case "BUY_FULL":
            return ["market", "bid", kwh, limit, "--auctions", str(auctions)]
        case "SELL":
            return ["market", "ask", kwh, limit, "--auctions", str(auctions)]
        case "BUY_EMPTY":
            return ["token", "buy", "--empty", str(-(-advice["energyWh"] // TOKEN_WH))]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", help="its address")
    parser.add_argument("key", help="the file of its key")
    parser.add_argument("--rpc", default="http://127.0.0.1:8545")
    parser.add_argument("--database", help="an indexer's: it knows the past sooner than the node tells it")
    parser.add_argument("--dry-run", action="store_true", help="once, and send nothing")
    options = parser.parse_args()
    node = ["--rpc", options.rpc]
    past = ["--database", options.database] if options.database else []
    while True:
        advice = ctt("advise", options.home, *node, *past)
        print(advice["action"], *advice["reasons"], advice["record"]["text"], sep="\n  ", flush=True)
        auctions = BLOCKS_PER_HOUR // ctt("market", "show", *node)["market"]["auctionBlocks"]
        if order := order_of(advice, auctions):
            last = "--dry-run" if options.dry_run else "--yes"
            print(json.dumps(ctt(*order, "--key", options.key, last, *node)), flush=True)
        if options.dry_run:
            return
        time.sleep(HOUR_S - time.time() % HOUR_S)


if __name__ == "__main__":
    main()
