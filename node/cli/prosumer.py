"""`ctt prosumer`: name the meter of a home, and see how the home stands.

A client of any node's JSON-RPC.
"""

import argparse
from functools import partial
from typing import Any, Final

from apps.client import Client
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from node.cli.onboarding import REFUSALS, find, next_step
from node.cli.options import address, format_origin, format_time
from node.cli.output import labelled, show
from node.cli.transact import add_command, add_key, bounded, key_of, show_sent, transact
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt prosumer register 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --key home.key
  ctt prosumer show 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "prosumer", help="name a home's meter, and see how it stands", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_command, commands, refusals=REFUSALS)
    register = add("register", run_register, "name the meter, which has yet to confirm")
    register.add_argument("meter", type=address, metavar="METER", help="the meter's address")
    add_key(register)
    shown = add("show", run_show, "show meter, tokens, energy, and what is left to do")
    shown.add_argument("prosumer", type=address, metavar="ADDRESS")


async def run_register(client: Client, options: argparse.Namespace) -> None:
    sent = await transact(client, options, key_of(options), CTT, "register(address)", options.meter)
    prosumer = sent.events["ProsumerRegistered"]["prosumer"]
    step = await bounded(next_step(client, prosumer), options)
    lines = [f"{hex_of(prosumer)} has named {hex_of(options.meter)}", f"next: {step}"]
    members = {"prosumer": hex_of(prosumer), "meter": hex_of(options.meter), "next": step}
    show_sent(options, sent, lines, members)


async def run_show(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (66) for an address that the chain has never seen."""
    home = await bounded(find(client, "ctt_prosumer", options.prosumer), options)
    if not home:
        raise Failure(Exit.MISSING, f"{hex_of(options.prosumer)} has neither tokens nor a meter")
    step = await bounded(next_step(client, options.prosumer), options)
    show(options, labelled(_describe(home, step)), home | {"next": step or None})


def _describe(home: dict[str, Any], step: str) -> dict[str, str]:
    last, tokens = home["lastReading"], home["tokens"]
    return {
        "prosumer": home["address"],
        "meter": f"{home['meter'] or 'none'}{'' if home['confirmed'] else ', not confirmed'}",
        "last reading": f"import {last['import']}, export {last['export']}, {format_time(last['timeMs'])}"
        if last
        else "none",
        "tokens": f"{tokens['count']}: {tokens['full']} full, {tokens['partlyCharged']} partly charged, "
        f"{tokens['empty']} empty, {tokens['onSale']} on sale",
        "energy": f"{home['stored']} stored, room for {home['spare']}",
        "produced": f"{home['everProduced']}, of it {home['everFedToGrid']} fed to the grid",
        "consumed": f"{home['everConsumed']}, of it {home['everBilled']} billed by the operator",
        "covered": f"{home['everCovered']} by tokens{format_origin(home['retired'])}",
        "next": step or "nothing: its readings count",
    }
