"""A real node in a process of its own, for tests that need one."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ctt_state.genesis import development_key
from node.cli.init import initialise

GENESIS: Final = Path(__file__).parent.parent / "genesis.json"
READY_SECONDS_MAX: Final = 20.0


class LiveNode:
    """`ctt run` over a data directory, which is made when it is not there."""

    def __init__(self, directory: Path, *, genesis: bytes | None = None, flags: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        if not (directory / "db").exists():
            initialise(directory, genesis or GENESIS.read_bytes(), development_key(0))
        self.process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "node.cli.main", "run", "--dir", str(self.directory)]
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--rpc-port", str(self.port), *self._flags],
                stdout=log,
                stderr=log,
                cwd=GENESIS.parent,
                env=os.environ | {"PYTHONPATH": str(GENESIS.parent)},
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.call("eth_blockNumber")
                return process
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        process.kill()
        raise AssertionError(f"the node does not answer: {self.log()[-500:]}")

    def call(self, method: str, *params: Any) -> Any:
        """A JSON-RPC call; an error of the node is an AssertionError with its text."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.loads(response.read())
        assert "error" not in answer, answer["error"]["message"]
        return answer["result"]

    def read(self, path: str) -> str:
        """What the node shows there to GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return str(response.read().decode())

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)

    def log(self) -> str:
        return (self.directory.parent / f"{self.directory.name}.log").read_text(errors="replace")


def free_port() -> int:
    """A port that nobody listens at, and that no connection will get for its own end while its node is down."""
    for port in iter(lambda: random.randrange(12_000, 32_000), None):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")
