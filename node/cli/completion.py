"""`ctt completion`: what a shell needs to complete commands, options and file names."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import shtab

EPILOG: Final = """\
examples:
  source <(ctt completion bash)                                           # for this shell
  ctt completion bash > ~/.local/share/bash-completion/completions/ctt    # for all to come
  ctt completion zsh > "${fpath[1]}/_ctt"
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "completion", help="complete commands in a shell", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from node.cli.main import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if action.type is Path:
            is_directory = "DIR" in str(action.metavar or action.dest).upper()
            action.complete = shtab.DIRECTORY if is_directory else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of the parser and of all its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
