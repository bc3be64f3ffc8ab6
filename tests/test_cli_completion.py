"""`ctt completion` in a real bash."""

import shutil
import subprocess
import sys
from typing import Final

import pytest

from node.cli.main import COMMANDS
from tests.live_node import GENESIS

COMPLETE: Final = """
source <("{python}" -m node.cli.main completion bash)
COMP_WORDS=({words}) COMP_CWORD=$(({count} - 1))
$(complete -p ctt | sed -E 's/.*-F ([^ ]+).*/\\1/') ctt "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = COMPLETE.format(
        python=sys.executable, words=" ".join(f"'{word}'" for word in words), count=len(words)
    )
    done = subprocess.run(
        [bash, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=GENESIS.parent
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [word.strip() for word in done.stdout.split()]


def test_commands_are_completed() -> None:
    assert complete("ctt", "mar") == ["market"]
    assert set(COMMANDS) <= set(complete("ctt", ""))


def test_options_of_a_command_are_completed() -> None:
    assert complete("ctt", "run", "--rpc-po") == ["--rpc-port"]
    assert set(complete("ctt", "market", "")) >= {"show", "bid", "ask", "cancel"}


def test_files_are_completed() -> None:
    assert complete("ctt", "run", "--genesis", "gen") == ["genesis.json"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_theirs(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node.cli.main", "completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=GENESIS.parent,
    )
    assert "ctt" in done.stdout
