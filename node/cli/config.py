"""`ctt config show`: with which settings `ctt run` would run, and where each comes from."""

import argparse
import json
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli import run as run_command
from node.cli.settings import names
from rpc.access import Role

EPILOG: Final = """\
It takes the options of `ctt run`, so put `config show` in the place of `run`.

examples:
  ctt config show --dir /var/lib/ctt
  CTT_RPC_PORT=9545 ctt config show --dir /var/lib/ctt --log-level debug
  ctt config show --dir /var/lib/ctt --json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("config", help="show a node's settings, and where each comes from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = commands.add_parser(
        "show", help="all settings with their sources", description=__doc__, epilog=EPILOG
    )
    run_command.add_options(show)
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(run=lambda options: run(show, options))


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    settings = {
        name: (_text(getattr(options, member)), options.sources.get(name, "default"))
        for name, member in names(parser)
    }
    if options.json:
        members = {name: {"value": value, "source": source} for name, (value, source) in settings.items()}
        print(json.dumps(members, indent=2))
        return 0
    table = Table("setting", "value", "from", box=SIMPLE_HEAD, pad_edge=False)
    for name, (value, source) in settings.items():
        shown = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        table.add_row(name, Text(shown), Text(source, style="dim" if source == "default" else ""))
    Console(soft_wrap=True).print(table)
    return 0


def _text(value: Any) -> Any:
    """As a setting would be written: a peer or a quota as NAME=..."""
    if isinstance(value, list | frozenset):
        return sorted(map(_text, value))
    if isinstance(value, tuple):
        first = value[0].name.lower() if isinstance(value[0], Role) else value[0]
        return f"{first}={':'.join(map(str, value[1:]))}"
    return value if value is None or isinstance(value, bool | int) else str(value)
