"""How a command says what came of it: lines and tables for people, or with --json one document for programs.

No table is cut to fit a screen. What is printed here is the result, on standard output; why there is none is for
`node.cli.logs`, on standard error.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

TABLE_COLUMNS: Final = 1_000


def show(options: argparse.Namespace, shown: Iterable[str] | Table, members: Any) -> None:
    """The lines or the table for people, or the members as JSON."""
    if options.json:
        print(json.dumps(members, indent=2), flush=True)
    elif isinstance(shown, Table):
        print_table(shown)
    else:
        for line in shown:
            print(line)
        sys.stdout.flush()


def say(options: argparse.Namespace, text: str) -> None:
    """How far it is, for people."""
    if not options.json:
        print(text, flush=True)


def complain(options: argparse.Namespace, text: str) -> None:
    """What is wrong, for people."""
    if not options.json:
        print(text, file=sys.stderr, flush=True)


def labelled(rows: Mapping[str, str]) -> Sequence[str]:
    """A line each, the texts below each other."""
    width = max(map(len, rows))
    return [f"{name:<{width}}  {text}" for name, text in rows.items()]


def columns(*titles: str) -> Table:
    """Columns whose title ends with > are aligned to the right."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title.endswith(">") else "left"
        table.add_column(title.rstrip(">"), justify=justify, no_wrap=True)
    return table


def print_table(table: Table) -> None:
    Console(width=TABLE_COLUMNS, soft_wrap=True, highlight=False).print(table)
