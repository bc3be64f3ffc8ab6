"""`ctt`: one command for the chain. Each subcommand is a file of this package with `add_parser` and `run`."""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

from ctt_state.errors import InvalidGenesis
from node import VERSION
from node.cli.logs import error_document, say_bug, say_failure, say_refused
from node.cli.settings import Setting
from node.exits import Exit, Failure

COMMANDS: Final = (
    "init",
    "run",
    "config",
    "devnet",
    "status",
    "verify",
    "backup",
    "restore",
    "validators",
    "block",
    "tx",
    "genesis",
    "key",
    "journal",
    "signer",
    "ca",
    "authority",
    "prosumer",
    "meter",
    "treasury",
    "bill",
    "market",
    "token",
    "index",
    "settlement",
    "kpi",
    "advise",
    "advisor",
    "access",
    "abi",
    "completion",
)
EXAMPLE: Final = re.compile(r"^ {2}\S(?:.*\\\n)*.*$", re.MULTILINE)
EPILOG: Final = """\
examples:
  ctt devnet --dir data/devnet                       # a network of one, with a street of homes living on it
  ctt init --dir data/node --genesis genesis.json    # then:
  ctt run --dir data/node

Each command explains itself: ctt COMMAND --help. With --json a command prints one document on standard output, and why
it failed as {"error": ...} on standard error. Exit codes: docs/OPERATIONS.md.
"""


class Parser(argparse.ArgumentParser):
    """Ends with code 64 and one line on a wrong call, and says which option may have been meant."""

    # Of a command that has settings: those of the file and the environment.
    settings: Callable[["Parser", Sequence[str]], Sequence[Setting]] | None = None

    _words: Sequence[str] = ()  # that it was called with

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)  # what is short for one option may later be short for two
        super().__init__(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Each command's parser itself refuses what it does not know, before it misses what was misspelt. Of a command
        that has settings the options also have `sources`: who says each that is no default."""
        self._words = args or ()
        if misspelt := self._find_unknown(args or ()):
            self.error(self._explain_unknown(misspelt))
        found = self.settings(self, args) if self.settings and not {"-h", "--help"} & set(args) else ()
        words = [word for each in found for word in each.words]
        options, unknown = super().parse_known_args([*words, *args] if words else args, namespace)
        if self.settings:
            options.sources = {each.name: each.source for each in found}
        if unknown:
            self.error(self._explain_unknown(unknown[0]))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: {message.removeprefix('argument ')}; see {self.prog} --help"
        self.exit(Exit.USAGE, f"{error_document(Exit.USAGE, text) if '--json' in self._words else text}\n")

    def _find_unknown(self, words: Sequence[str]) -> str | None:
        """An option that is not this parser's, before a subcommand's name and `--`."""
        subcommands = (
            () if self._subparsers is None else tuple(self._subparsers._group_actions[0].choices or ())
        )
        before = ""
        for word in words:
            is_argument = not word.startswith("-")
            if (
                word == "--"
                or (subcommands and is_argument and not before.startswith("-"))
                or word in subcommands
            ):
                return None
            if word.startswith("--") and word.split("=")[0] not in self._option_string_actions:
                return word
            before = word
        return None

    def _explain_unknown(self, argument: str) -> str:
        if not argument.startswith("-"):
            return f"unexpected argument {argument!r}"
        option = argument.split("=")[0]
        close = difflib.get_close_matches(option, sorted(self._option_string_actions), 1)
        return f"unknown option {option}" + (f"; did you mean {close[0]}?" if close else "")


def build_parser(command: str = "") -> Parser:
    """Of all commands, or of this one alone: the others need not be loaded for it."""
    parser = Parser(
        prog="ctt", description="A blockchain node for the Crypto-Trading energy market.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"ctt {VERSION}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in (command,) if command in COMMANDS else () if command == "--version" else COMMANDS:
        importlib.import_module(f"node.cli.{name}").add_parser(subparsers)
    for each in set(subparsers.choices.values()):
        _hand_examples_down(each)
    return parser


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Those of a command, in the order of its help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def examples(parser: argparse.ArgumentParser) -> Sequence[str]:
    """Those in the parser's help, each a line of a shell, or several that end with a backslash."""
    return [each for each in EXAMPLE.findall(parser.epilog or "") if "ctt " in each]


def _hand_examples_down(parser: argparse.ArgumentParser) -> None:
    """A subcommand without an epilog has its part of the examples above."""
    for command in subcommands(parser):
        own = [each for each in examples(parser) if f"{command.prog} " in f"{each} "]
        if command.epilog is None and own:
            command.epilog = "\n".join([f"example{'s' if len(own) > 1 else ''}:", *own])
        _hand_examples_down(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; expected failures are a line on standard error, or one for each fault of a document."""
    words = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(json="--json" in words)
    try:
        options = build_parser(next(iter(words), "")).parse_args(words)
        code: int = options.run(options)
        sys.stdout.flush()
    except Failure as failure:
        say_failure(options, failure)
        return failure.exit_code
    except InvalidGenesis as invalid:
        say_refused(options, invalid)
        return Exit.CONFIGURATION
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; what is still in the buffers would fail again at the end.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return Exit.STORAGE
    except Exception as bug:  # noqa: BLE001  # the root: whatever it is, it is ours, and the exit code says so
        say_bug(options, bug)
        return Exit.BROKEN
    return code


if __name__ == "__main__":
    sys.exit(main())
