"""`ctt validators`: who validates, and whether they are there."""

import argparse
from typing import Any, Final

from apps.client import Client
from node.cli.output import columns, print_table, show
from node.cli.transact import Refusals, add_command, bounded

SILENT_MS: Final = 10_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        subparsers, "validators", run_show, "who validates, and whether they are there", Refusals({})
    )
    parser.epilog = "examples:\n  ctt validators\n  ctt validators --rpc http://127.0.0.1:8546 --json\n"


async def run_show(client: Client, options: argparse.Namespace) -> None:
    members = await bounded(client.call("ctt_validators", "latest"), options)
    node = await bounded(client.call("ctt_nodeStatus"), options)
    heard = {each["address"]: each for each in node["validators"]}
    said = {**members, "heard": node["validators"]}
    if options.json:
        show(options, [], said)
        return
    last = members["lastHeight"]
    print(f"epoch {members['epoch']:,}, to block {last:,}; a quorum is {members['quorum']:,}")
    table = columns("validator", "address", "state", "heard>", "votes missed>")
    for each in members["validators"]:
        state = heard.get(each["address"], {})
        table.add_row(state.get("name") or "", each["address"], *_presence(state))
    print_table(table)


def _presence(state: dict[str, Any]) -> tuple[str, str, str]:
    if not state:
        return "unknown", "", ""
    missed = "" if state["votesMissed"] is None else f"{state['votesMissed']:,}"
    if state["heardMs"] is None:
        return "this node", "", missed
    presence = "missing" if state["heardMs"] > SILENT_MS else "present"
    return presence, f"{state['heardMs'] / 1_000:.1f} s ago", missed
