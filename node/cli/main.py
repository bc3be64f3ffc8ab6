"""`ctt`: one command for the chain. Each subcommand is a file of this package with `add_parser` and `run`."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from node import VERSION
from node.cli import devnet, genesis, init, run, verify
from node.exits import Exit, Failure

COMMANDS = (init, run, devnet, verify, genesis)


class Parser(argparse.ArgumentParser):
    """Ends with code 64 and one line on a wrong call, and says which option may have been meant."""

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            message = self._explain_unknown(message.removeprefix(prefix).split()[0])
        self.exit(Exit.USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _explain_unknown(self, argument: str) -> str:
        known = {option for parser in _parsers(self) for option in parser._option_string_actions}
        close = difflib.get_close_matches(argument.split("=")[0], sorted(known), 1)
        return f"unknown option {argument}" + (f"; did you mean {close[0]}?" if close else "")


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parser and those of its subcommands."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _parsers(child)
    return found


def build_parser() -> Parser:
    parser = Parser(prog="ctt", description="A blockchain node for the Crypto-Trading energy market.")
    parser.add_argument("--version", action="version", version=f"ctt {VERSION}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; expected failures are one line on standard error."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except Failure as failure:
        print(f"ctt: {failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
