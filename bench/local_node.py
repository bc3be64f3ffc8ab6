"""A node of the benchmark's own, in a process and a directory of its own."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 10.0
FLAGS: Final = ("--account-slots", "4096", "--rpc-connections-per-address", "256")


@contextmanager
def local_node(
    genesis: Path, parent: Path | None = None, log_level: str = "warning"
) -> Iterator[tuple[str, int]]:
    """Gives its URL and process id. Raises: RuntimeError when it does not answer."""
    directory = Path(tempfile.mkdtemp(prefix="ctt-bench-", dir=parent))
    command = [sys.executable, "-m", "node.cli.main"]
    data = ("--dir", str(directory / "node"))
    try:
        subprocess.run([*command, "init", *data, "--genesis", str(genesis)], check=True, stdout=sys.stderr)
        port = free_port()
        process = subprocess.Popen(
            [*command, "run", *data, "--rpc-port", str(port), "--log-level", log_level, *FLAGS]
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, process)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(STOP_SECONDS_MAX)
    finally:
        shutil.rmtree(directory)


def wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"the node at {url} does not answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
