"""`ctt block`: a final block, what made it final, and its transactions."""

import argparse
import re
from typing import Any, Final

from apps.client import Client
from node.cli.options import format_time
from node.cli.output import columns, print_table, show
from node.cli.transact import Refusals, add_command, bounded
from node.cli.tx import describe_call
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt block
  ctt block 42
  ctt block 0x78dd70303b385af6f779d4318f0b52fa11af262b2fccd1e59a914dc63d8bcf27 --json
"""
_HASH: Final = re.compile(r"0x[0-9a-f]{64}")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(subparsers, "block", run_show, "show a block and its transactions", Refusals({}))
    parser.epilog = EPILOG
    parser.add_argument(
        "block",
        type=block,
        nargs="?",
        default="latest",
        metavar="HEIGHT|HASH",
        help="default: the newest one",
    )


def block(text: str) -> str:
    """As JSON-RPC takes it."""
    if text == "latest" or _HASH.fullmatch(text):
        return text
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return hex(int(text))
    raise argparse.ArgumentTypeError(f"{text[:80]!a} is no height, no hash of a block and not latest")


async def run_show(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (66) when there is no such block."""
    method = "eth_getBlockByHash" if _HASH.fullmatch(options.block) else "eth_getBlockByNumber"
    found = await bounded(client.call(method, options.block, True), options)
    if found is None:
        raise Failure(Exit.MISSING, f"there is no final block {_named(options.block)}")
    receipts = await bounded(client.call("eth_getBlockReceipts", found["number"]), options)
    if options.json:
        show(options, [], {**found, "receipts": receipts})
        return
    _print_header(found)
    table = columns("transaction", "what", "from", "gas>", "outcome")
    for transaction, receipt in zip(found["transactions"], receipts, strict=True):
        outcome = "done" if int(receipt["status"], 16) else "refused"
        gas = f"{int(receipt['gasUsed'], 16):,}"
        table.add_row(transaction["hash"], describe_call(transaction), transaction["from"], gas, outcome)
    if table.row_count:
        print()
        print_table(table)


def _named(block: str) -> str:
    return block if _HASH.fullmatch(block) else f"{int(block, 16):,}"


def _print_header(found: dict[str, Any]) -> None:
    height, used, limit = (int(found[name], 16) for name in ("number", "gasUsed", "gasLimit"))
    print(f"block {height:,}, final, of {format_time(int(found['timestampMilliseconds'], 16))}")
    print(f"hash         {found['hash']}")
    print(f"parent       {found['parentHash']}")
    print(f"validator    {found['miner']}, view {int(found['view'], 16):,}")
    print(f"state root   {found['stateRoot']}")
    print(f"gas          {used:,} of {limit:,}")
    print(f"transactions {len(found['transactions']):,}")
