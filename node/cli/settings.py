"""Where a node's options come from: the command line, before the environment, before a file, before the defaults.

A setting is named as its option without the dashes in front. The file is TOML, `DIR/node.toml` unless `--config` names
another one: `rpc-port = 8545`. The environment has the name in capitals: `CTT_RPC_PORT=8545`. A list in the file is an
option that may be repeated; paths in the file are relative to it.
"""

import argparse
import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from node.exits import Exit, Failure

FILE: Final = "node.toml"
APART: Final = ("help", "dir", "config", "json")  # say which settings, rather than being some
WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
BYTES_MAX: Final = 65_536


class Setting(NamedTuple):
    """An option's name, its words as they would stand on the command line, and who says so."""

    name: str
    words: list[str]
    source: str


def add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings to begin with, TOML (default: DIR/{FILE}, if any)",
    )


def collect(
    parser: argparse.ArgumentParser, arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> list[Setting]:
    """The file's, the environment's over them, and those that the command line has, which need no words.

    Raises: Failure: 66 no such file; 78 for a file that is no TOML, and a setting that there is not or that is no such
    value, by file or variable, name and value.
    """
    known = {option.removeprefix("--"): action for action in parser._actions for option in _names(action)}
    found: dict[str, Setting] = {}
    for name, value, source, base in (*_of_file(arguments), *_of_environment(known, environment)):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Failure(Exit.CONFIGURATION, f"{source}: there is no setting {name!r}{hint}")
        found[name] = Setting(name, _words(known[name], name, value, source, base), source)
    given = {word.split("=")[0] for word in arguments}
    told = [name for name, action in known.items() if given & set(action.option_strings)]
    return list((found | {name: Setting(name, [], "command line") for name in told}).values())


def names(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each setting with the member of the options that holds it."""
    for action in parser._actions:
        for option in _names(action):
            yield option.removeprefix("--"), action.dest


def _names(action: argparse.Action) -> list[str]:
    """The one long name of an option that is a setting."""
    options = [option for option in action.option_strings if option.startswith("--")]
    return options[:1] if action.dest not in APART else []


def _of_file(arguments: Sequence[str]) -> Iterator[tuple[str, Any, str, Path]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--dir", type=Path, nargs="?")  # what is missing is the parser's to say
    finder.add_argument("--config", type=Path, nargs="?")
    place = finder.parse_known_args(list(arguments))[0]
    path = place.config or (place.dir / FILE if place.dir else None)
    if path is None or (place.config is None and not path.exists()):
        return
    for name, value in _read(path).items():
        yield name, value, str(path), path.parent


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"no such file: {path}") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: {fault.strerror}") from None
    if len(text) > BYTES_MAX:
        raise Failure(Exit.CONFIGURATION, f"{path}: more than {BYTES_MAX:,} bytes")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise Failure(Exit.CONFIGURATION, f"{path}: no TOML: {fault}") from None


def _of_environment(
    known: Mapping[str, argparse.Action], environment: Mapping[str, str]
) -> Iterator[tuple[str, Any, str, Path]]:
    for name, action in known.items():
        variable = f"CTT_{name.upper().replace('-', '_')}"
        if variable not in environment:
            continue
        text = environment[variable]
        value: Any = text
        if action.nargs == 0:
            value = WORDS.get(text.lower(), text)
        elif isinstance(action, argparse._AppendAction):
            value = text.split(",")
        yield name, value, variable, Path()


def _words(action: argparse.Action, name: str, value: Any, source: str, base: Path) -> list[str]:
    """The words of a value that fits. Raises: Failure (78)."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise Failure(Exit.CONFIGURATION, f"{source}: {name} is {value!r:.80}; expected true or false")
        is_switch = isinstance(action, argparse.BooleanOptionalAction)
        return [f"--{name}"] if value else [f"--no-{name}"] if is_switch else []
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int) for each in values):
        raise Failure(
            Exit.CONFIGURATION, f"{source}: {name} is {value!r:.80}; expected a text or a whole number"
        )
    texts = [str(each) for each in values]
    if not isinstance(action, argparse._AppendAction):
        texts = [",".join(texts)]
    if action.type is Path:
        texts = [str(base / each) for each in texts]
    for text in texts:
        _check(action, name, text, source)
    return [f"--{name}={text}" for text in texts]


def _check(action: argparse.Action, name: str, text: str, source: str) -> None:
    try:
        value: Any = action.type(text) if callable(action.type) else text
    except (argparse.ArgumentTypeError, ValueError) as fault:
        raise Failure(Exit.CONFIGURATION, f"{source}: {name}: {fault}") from None
    if action.choices is not None and value not in action.choices:
        allowed = ", ".join(map(str, action.choices))
        raise Failure(Exit.CONFIGURATION, f"{source}: {name} is {text!r:.80}; it can be {allowed}")
