"""The programs of docs/CONNECT.md run as they are written, and print what the page says."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.clients.packages import MODULES, cast_program, install
from tests.ledger_world import CHAIN_ID
from tests.live_node import GENESIS, LiveNode

PAGE: Final = (GENESIS.parent / "docs" / "CONNECT.md").read_text()
SECTIONS: Final = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ADDRESS: Final = "127.0.0.1:8545"
SECONDS_MAX: Final = 60


def programs(section: str) -> dict[str, tuple[str, str]]:
    """By language: all blocks of the section, which continue each other, and all that they print."""
    found: dict[str, tuple[str, str]] = {}
    language = ""
    for kind, text in BLOCK.findall(SECTIONS[section]):
        language = language if kind == "text" else kind
        program, printed = found.get(language, ("", ""))
        found[language] = (program, printed + text) if kind == "text" else (program + text, printed)
    return found


def run(language: str, program: str, directory: Path) -> str:
    """What it prints. It says nothing on standard error."""
    environment = dict(os.environ)
    match language:
        case "python":
            command, name = [sys.executable], "program.py"
        case "js":
            install()
            (directory / "node_modules").symlink_to(MODULES)
            command, name = ["node"], "program.mjs"
        case _:
            if shutil.which("curl") is None:
                pytest.skip("no curl")
            if "cast " in program:
                environment["PATH"] = f"{cast_program().parent}:{environment['PATH']}"
            command, name = ["bash", "-eu"], "program.sh"
    (directory / name).write_text(program)
    done = subprocess.run(
        [*command, directory / name],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        cwd=directory,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("section", ["curl", "web3.py", "ethers", "viem", "cast"])
def test_a_librarys_program_prints_what_the_page_says(section: str, tmp_path: Path) -> None:
    """Only the port differs."""
    ((language, (program, printed)),) = programs(section).items()
    assert ADDRESS in program
    with LiveNode(tmp_path / "node") as node:
        assert run(language, program.replace(ADDRESS, f"127.0.0.1:{node.port}"), tmp_path) == printed


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveNode, str]]:
    """A node that knows its clients by tokens, and an operator's."""
    with LiveNode(Path(tmp_path_factory.mktemp("token")) / "node") as node:
        create = f"{sys.executable} -m node.cli.main access create --role operator --name me --dir"
        made = subprocess.run(
            [*create.split(), node.directory], capture_output=True, text=True, check=True, cwd=GENESIS.parent
        )
        (token,) = re.findall(r"ctt_\S+", made.stdout)
        yield node, token


@pytest.mark.parametrize("language", ["sh", "python", "js"])
def test_a_token_goes_into_a_header(language: str, guarded: tuple[LiveNode, str], tmp_path: Path) -> None:
    """The pool's content is for operators."""
    node, token = guarded
    program, printed = programs("With a token")[language]
    filled = program.replace(ADDRESS, f"127.0.0.1:{node.port}").replace("TOKEN", token)
    assert run(language, filled, tmp_path) == printed


def test_the_wallets_network_is_the_development_network() -> None:
    program, _ = programs("MetaMask")["json"]
    (described,) = json.loads(program)["params"]
    assert int(described["chainId"], 16) == CHAIN_ID
    assert described["rpcUrls"] == [f"http://{ADDRESS}"]
