"""Every command of `ctt`: told for programs, explained with examples that it takes, refused by the house's codes."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from node.cli.main import build_parser, examples, subcommands
from tests.cli_world import Ctt
from tests.live_node import GENESIS

ROOT: Final = GENESIS.parent
# Commands that print no result of which there could be a document, and what they do instead.
WITHOUT_JSON: Final = {
    "ctt run": "runs until it is stopped; --log-format json is its log",
    "ctt index": "runs until it is stopped, and logs",
    "ctt advisor": "runs until it is stopped, and logs",
    "ctt meter run": "runs until it is stopped, and logs",
    "ctt signer run": "runs until it is stopped, and logs",
    "ctt meter simulate": "plays for long, and says how far it is",
    "ctt meter qr": "draws a picture",
    "ctt completion": "prints a shell's script",
}
# Commands that can take over a second, as a history, a state or a file is long, and show a bar on a terminal.
LONG: Final = {
    *(
        "ctt init",
        "ctt verify",
        "ctt backup",
        "ctt restore",
        "ctt genesis check",
        "ctt genesis make",
        "ctt genesis populate",
        "ctt index",
    ),
    *("ctt bill", "ctt bill verify", "ctt settlement", "ctt kpi", "ctt advise"),
    *("ctt treasury statement", "ctt meter import"),
}
SHELL: Final = {"|", "||", ">", "(", ")", "<("}


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for command in subcommands(parser):
        yield from walk(command)


ALL: Final = {each.prog: each for each in walk(build_parser())}
COMMANDS: Final = {name: each for name, each in ALL.items() if each.get_default("run")}


def words_of(example: str) -> list[str]:
    """What the command is called with, of a line for a shell."""
    words = shlex.shlex(example.replace("\\\n", " "), posix=True, punctuation_chars=True)
    words.whitespace_split = True
    read = list(words)
    read = read[read.index("ctt") + 1 :]
    ends = [place for place, word in enumerate(read) if word in SHELL]
    return read[: min(ends, default=len(read))]


def told(ctt: Ctt, *words: str) -> tuple[int, str, Any]:
    """Of a call with --json that fails: the code, what is on standard output, and the error."""
    result = ctt(*words, "--json")
    return result.code, result.out, json.loads(result.err)["error"]


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ctt:
    monkeypatch.chdir(tmp_path)
    return Ctt(capsys)


def test_there_is_a_tree_to_walk() -> None:
    assert len(COMMANDS) > 60
    assert {"ctt run", "ctt bill", "ctt bill verify", "ctt market mandate grant"} <= set(COMMANDS)


def test_every_command_has_json_or_a_reason_why_not() -> None:
    without = {name for name, each in COMMANDS.items() if "--json" not in each._option_string_actions}
    assert without == set(WITHOUT_JSON)


def test_commands_that_take_long_have_a_bar() -> None:
    assert {name for name, each in COMMANDS.items() if each.get_default("doing")} == LONG


def test_a_bar_is_for_terminals_only(ctt: Ctt, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {
        "ctt genesis check": ("genesis", "check", str(GENESIS)),
        "ctt verify": ("verify", "--dir", "own"),
    }
    assert ctt("init", "--dir", "own", "--genesis", str(GENESIS)).err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what it writes to for a terminal then
    for name, words in calls.items():
        shown = ctt(*words)
        assert shown.code == 0 and COMMANDS[name].get_default("doing") in shown.err
    monkeypatch.delenv("FORCE_COLOR")
    assert [ctt(*words).err for words in calls.values()] == ["", ""]


@pytest.mark.parametrize("name", ALL)
def test_every_command_is_explained_in_a_sentence_and_by_examples(name: str) -> None:
    parser = ALL[name]
    assert (parser.description or "").rstrip().endswith(".")
    shown = [words_of(each) for each in examples(parser)]
    assert shown
    if name in COMMANDS:
        own = name.split()[1:]
        assert any(words[: len(own)] == own for words in shown)


@pytest.mark.parametrize("name", ALL)
def test_every_example_is_one_that_the_command_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for example in examples(ALL[name]):
        words = words_of(example)
        assert build_parser(words[0]).parse_args(words).run, example


@pytest.mark.parametrize("name", ALL)
def test_an_option_that_is_none_ends_with_64(ctt: Ctt, name: str) -> None:
    line = f"{name}: unknown option --xyzzy; see {name} --help"
    words = name.split()[1:]
    assert ctt(*words, "--xyzzy") == (64, "", f"{line}\n")
    code, out, error = told(ctt, *words, "--xyzzy")
    assert (code, out, error) == (64, "", {"code": 64, "message": line})


@pytest.mark.parametrize(
    "name", [name for name, each in ALL.items() if any(action.required for action in each._actions)]
)
def test_an_argument_that_is_missing_ends_with_64(ctt: Ctt, name: str) -> None:
    result = ctt(*name.split()[1:])
    assert (result.code, result.out, result.err.count("\n")) == (64, "", 1)


@pytest.mark.parametrize(
    "module",
    sorted(
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__main__")
        for path in (ROOT / "apps").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    ),
)
def test_a_program_of_its_own_ends_a_wrong_call_with_64(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--xyzzy"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.count("\n") == 1


def test_a_directory_is_made_and_looked_at_by_a_program(ctt: Ctt, tmp_path: Path) -> None:
    def ask(*words: str) -> Any:
        result = ctt(*words, "--json")
        assert (result.code, result.err) == (0, ""), result
        return json.loads(result.out)

    checked = ask("genesis", "check", str(GENESIS))
    assert (checked["isDevelopment"], checked["validators"]) == (True, 1)
    key = ask("key", "new", "validator.key")
    assert ask("init", "--dir", "own", "--genesis", str(GENESIS), "--key", "validator.key") == {
        "directory": "own",
        "consensusKey": key["consensusKey"],
        "isReady": True,
        "from": None,
    }
    assert ask("verify", "--dir", "own") == {"height": 0, "blocks": 1, "faultCount": 0, "faults": []}
    shutil.rmtree("own/votes")
    assert ask("journal", "init", "--dir", "own", "--i-am-sure")["view"] == 1
    assert ask("journal", "export", "--dir", "own")["consensusKey"] == key["consensusKey"]

    assert ask("ca", "init", "--dir", "ca", "--name", "us")["name"] == "us"
    issued = ask("ca", "issue", "--dir", "ca", "--out", "own/tls", "--name", "follower")
    assert (issued["name"], issued["validator"]) == ("follower", None)
    assert ask("ca", "revoke", "--dir", "ca", "follower")["revoked"][0]["serial"] == issued["serial"]
    token = ask("access", "create", "--dir", "own", "--role", "meter", "--name", "street-7")
    assert token["token"].startswith("ctt_")
    assert ask("access", "revoke", "--dir", "own", "street-7") == {"name": "street-7", "revoked": True}


def test_why_a_command_failed_is_a_document_too(ctt: Ctt, tmp_path: Path) -> None:
    (tmp_path / "genesis.json").write_text("{}")
    code, out, error = told(ctt, "verify", "--dir", "nowhere")
    assert (code, out, error) == (
        66,
        "",
        {"code": 66, "message": "no database at nowhere; run 'ctt init' first"},
    )
    code, out, error = told(ctt, "genesis", "check", "genesis.json")
    assert (code, out, error["message"]) == (78, "", "the genesis document is refused")
    assert {"path": "$.chainId", "text": "missing"} in error["faults"]
