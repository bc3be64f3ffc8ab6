"""The README's Python example runs as it is written."""

import re
import subprocess
import sys
from pathlib import Path

from tests.live_node import GENESIS, LiveNode

README = GENESIS.parent / "README.md"


def test_the_readmes_first_transaction_works(tmp_path: Path) -> None:
    """Only the address differs: the test's node has a port of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "http://127.0.0.1:8545" in code
    with LiveNode(tmp_path / "node") as node:
        example = tmp_path / "example.py"
        example.write_text(code.replace("http://127.0.0.1:8545", node.url))
        done = subprocess.run(
            [sys.executable, str(example)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 2\n"
