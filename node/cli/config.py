"""`ctt config show`: with which settings `ctt run` would run, and where each comes from."""

import argparse
from typing import Any, Final

from rich.text import Text

from node.cli import run as run_command
from node.cli.options import add_json
from node.cli.output import columns, show
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
    parser = subparsers.add_parser(
        "config",
        help="show a node's settings, and where each comes from",
        description="What a node would run with.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    shown = commands.add_parser("show", help="all settings with their sources", description=__doc__)
    run_command.add_options(shown)
    add_json(shown)
    shown.set_defaults(run=lambda options: run(shown, options))


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    settings = {
        name: (_text(getattr(options, member)), options.sources.get(name, "default"))
        for name, member in names(parser)
    }
    table = columns("setting", "value", "from")
    for name, (value, source) in settings.items():
        text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        table.add_row(name, Text(text), Text(source, style="dim" if source == "default" else ""))
    show(
        options,
        table,
        {name: {"value": value, "source": source} for name, (value, source) in settings.items()},
    )
    return 0


def _text(value: Any) -> Any:
    """As a setting would be written: a peer or a quota as NAME=..."""
    if isinstance(value, list | frozenset):
        return sorted(map(_text, value))
    if isinstance(value, tuple):
        first = value[0].name.lower() if isinstance(value[0], Role) else value[0]
        return f"{first}={':'.join(map(str, value[1:]))}"
    return value if value is None or isinstance(value, bool | int) else str(value)
