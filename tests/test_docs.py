"""What the pages say can be typed: every command in them is read by the parser that would read it, and most are run.

Which test runs a page's commands as written stands in `RUN_BY`; what is left is read only, and says why.
"""

import argparse
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from node.cli.handbook import handbook
from node.cli.main import build_parser, subcommands

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN: Final = re.compile(
    r"`(ctt (?!preload |charge |development )[^`]+)`"
)  # which are texts behind generated keys
ADDRESS: Final = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
WORDS: Final = {  # what a reader, or a line above, puts in
    "$HOME_ADDRESS": ADDRESS,
    "$METER": ADDRESS,
    "$NAME": "alpha",
    "$PEER": "10.77.0.1:30303",
    "$NEW": ADDRESS,
    "0xADDRESS": ADDRESS,
    "0x4bae...": ADDRESS,
    "0xCONSENSUSKEY": "0x0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
}
PROGRAMS: Final = {  # that are not ours
    *(
        ".",
        "(sleep",
        "CTT=",
        "KEY=",
        "awk",
        "cast",
        "cat",
        "cp",
        "curl",
        "date",
        "echo",
        "export",
        "install",
        "kill",
    ),
    *(
        "mv",
        "pip",
        "python3",
        "rpc",
        "rpc()",
        "source",
        "systemctl",
        "systemd-run",
        "useradd",
        "/opt/ctt/bin/pip",
    ),
}
RUN_BY: Final = {
    "ADVISOR.md": "test_docs_run",
    "BILL.md": "test_bill_live",
    "CLI.md": "test_cli_tree",
    "CONNECT.md": "clients/test_connect",
    "CONSORTIUM.md": "network/test_consortium",
    "INDEXER.md": "test_docs_run",
    "KPI.md": "test_docs_run",
    "MARKET.md": "test_market_page",
    "METER.md": "test_meter_gateway",
    "SIGNER.md": "test_signer",
    "ONBOARDING.md": "test_cli_onboarding",
    "SETTLEMENT.md": "test_docs_run",
}
READ_ONLY: Final = {
    "OPERATIONS.md": "machines, systemd and accounts of their own; most of its commands are in other tests",
    "README.md": "`make run` and `make test` are this; the others are in tests of their own",
    "CONTRIBUTING.md": "the checks themselves",
}


class Typed(NamedTuple):
    """A command of a page, in words."""

    page: str
    words: list[str]


def typed() -> Iterator[Typed]:
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in re.sub(r"\\\n", " ", without_documents(block)).splitlines():
                yield from commands(page.name, line)


def without_documents(block: str) -> str:
    """Without comments, what goes into files (<<END), and line ends in what is quoted."""
    block = re.sub(r"^#.*|\s#\s.*", "", block, flags=re.MULTILINE)
    block = re.sub(r"<<(\w+)\n.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), block)


def commands(page: str, line: str) -> Iterator[Typed]:
    """Those of one line: joined, piped, or in a substitution."""
    line = line.strip()
    if (first := line.split(" ")[0]) in PROGRAMS:
        yield Typed(page, [first])
        return
    for inner in re.findall(r"\$\(([^()]+)\)", line):
        yield from commands(page, inner)
    for placeholder, value in WORDS.items():
        line = line.replace(placeholder, value)
    line = re.sub(r"\$\([^()]+\)", "1", line)
    for part in re.split(r"\s(?:\|\|?|&&|;)\s", line):
        part = re.sub(r"\s\d?>.*", "", part).strip().removeprefix("sudo -u ctt ")
        name = part.split(" ")[0]
        if name and "=" not in name:
            try:
                yield Typed(page, shlex.split(part))
            except ValueError:
                print("BAD", page, repr(line), repr(part))


def ours() -> list[Typed]:
    return [Typed(page, words[1:]) for page, words in typed() if Path(words[0]).name == "ctt"]


ALL: Final = list(typed())


def test_there_are_commands_to_look_at() -> None:
    assert len(ours()) > 150
    assert {each.page for each in ours()} >= RUN_BY.keys() - {"CONNECT.md"}


@pytest.mark.parametrize(
    "command", ours(), ids=lambda command: f"{command.page}: {' '.join(command.words)}"[:100]
)
def test_the_parser_takes_it(command: Typed) -> None:
    options = build_parser(command.words[0]).parse_args(command.words)
    assert callable(options.run)


def test_other_programs_are_known_ones() -> None:
    """A misspelt command is none of these. A page that runs as a whole needs no list."""
    names = {words[0] for page, words in ALL if Path(words[0]).name != "ctt" and page != "CONSORTIUM.md"}
    assert names - PROGRAMS - {"make", "python"} == set()


def test_targets_of_make_are_there() -> None:
    made = (ROOT / "Makefile").read_text()
    for page, words in ALL:
        if words[0] == "make":
            for word in words[1:]:
                found = re.search(
                    rf"^{re.escape(word.split('=')[0])}\s*:?=|^{re.escape(word)}:", made, re.MULTILINE
                )
                assert found, f"{page}: make {word}"


def test_programs_of_python_take_their_options() -> None:
    for page, words in ALL:
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), f"{page}: {words[2]}"
            done = subprocess.run(
                [sys.executable, "-m", words[2], "--help"],
                capture_output=True,
                text=True,
                cwd=ROOT,
                check=False,
            )
            for option in [word for word in words[3:] if word.startswith("--")]:
                assert option in done.stdout, f"{page}: python -m {words[2]} {option}"


def test_commands_in_the_text_are_commands() -> None:
    """`ctt key new FILE`: its words are in the tree, its options the command's."""
    seen = 0
    for page in PAGES:
        for span in SPAN.findall(page.read_text()):
            parser, words = descend(build_parser(), shlex.split(span.replace("'", ""))[1:])
            known = parser._option_string_actions
            for word in words:
                assert not word.startswith("--") or word.split("=")[0].rstrip(",.") in known, (
                    f"{page.name}: {span}"
                )
            seen += 1
    assert seen > 100


def descend(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The command that these words name, and the rest of them."""
    below = {each.prog.split()[-1]: each for each in subcommands(parser)}
    if words and words[0] in below:
        return descend(below[words[0]], words[1:])
    assert (
        not below or not words or words[0].isupper() or words[0].startswith(("-", "…")) or "|" in words[0]
    ), words
    return parser, words


def test_every_page_with_commands_is_run_or_says_why_not() -> None:
    pages = {page for page, _ in ALL}
    assert pages <= RUN_BY.keys() | READ_ONLY.keys()
    for page, test in RUN_BY.items():
        told = (ROOT / "tests" / f"{test}.py").read_text()
        assert page in told or page == "CLI.md", f"{test} does not look at {page}"


def test_the_page_of_commands_is_what_the_parsers_say() -> None:
    assert (ROOT / "docs/CLI.md").read_text() == handbook(), "make docs"


def test_every_decision_is_listed() -> None:
    listed = re.findall(
        r"^- \[\d{4}\]\((\S+)\) \S", (ROOT / "docs/decisions/README.md").read_text(), re.MULTILINE
    )
    assert listed == sorted(each.name for each in (ROOT / "docs/decisions").glob("0*.md"))


def test_the_site_has_every_page_and_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "mkdocs"
    if not program.exists() and not shutil.which("mkdocs"):
        pytest.skip("no mkdocs")
    done = subprocess.run(
        [program, "build", "--strict", "--site-dir", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
    html = {each.relative_to(tmp_path).with_suffix("") for each in tmp_path.rglob("*.html")} - {Path("404")}
    assert html == {
        Path(str(page.relative_to(ROOT / "docs").with_suffix("")).replace("README", "index"))
        for page in pages
    }
    outside = [
        link
        for each in tmp_path.rglob("*.html")
        for link in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', each.read_text())
    ]
    assert outside == []
