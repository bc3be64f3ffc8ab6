"""A development network of real processes (`ctt devnet`), for tests that put other nodes beside it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tests.live_node import GENESIS

VALIDATORS: Final = 4
STOP_SECONDS_MAX: Final = 15.0
WAIT_SECONDS_MAX: Final = 40.0
POLL_SECONDS: Final = 0.05

T = TypeVar("T")


class LiveNetwork:
    """Four validators with short blocks and epochs. A context manager."""

    def __init__(
        self, directory: Path, *, first_port: int, period_ms: int = 200, epoch_blocks: int = 20
    ) -> None:
        self.directory = directory
        document = directory.parent / f"{directory.name}.json"
        changes = {"blockPeriodMs": period_ms, "epochBlocks": epoch_blocks}
        document.write_text(json.dumps(json.loads(GENESIS.read_bytes()) | changes))
        rpc = free_ports(3 * VALIDATORS, first_port)
        peers = rpc + VALIDATORS
        self.spare_port = peers + VALIDATORS  # the first of as many again, for nodes beside the network
        self._urls = [f"http://127.0.0.1:{rpc + index}" for index in range(VALIDATORS)]
        command = [sys.executable, "-m", "node.cli.main", "devnet", "--validators", str(VALIDATORS)]
        places = ["--dir", str(directory), "--genesis", str(document), "--no-demo", "--json"]
        self._process = subprocess.Popen(
            [*command, *places, "--rpc-port", str(rpc), "--p2p-port", str(peers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=GENESIS.parent,
        )

    def __enter__(self) -> Self:
        stdout = self._process.stdout
        if stdout is None or not stdout.readline():
            raise AssertionError(f"the network did not start: {self._process.communicate()[1]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=STOP_SECONDS_MAX)

    @property
    def genesis(self) -> Path:
        """The document that the validators run."""
        return self.directory / "validator-1.genesis.json"

    def url(self, validator: int = 1) -> str:
        """Of its JSON-RPC; validators count from 1, as in their names."""
        return self._urls[validator - 1]

    def key_file(self, validator: int) -> Path:
        return self.directory / f"validator-{validator}" / "validator.key"

    def call(self, method: str, *params: Any, validator: int = 1) -> Any:
        return call(self.url(validator), method, *params)

    def height(self, validator: int = 1) -> int:
        return int(self.call("eth_blockNumber", validator=validator), 16)


def call(url: str, method: str, *params: Any) -> Any:
    """A JSON-RPC call; an error of the node is an AssertionError with its text."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.loads(response.read())
    assert "error" not in answer, answer["error"]["message"]
    return answer["result"]


def wait_for(what: Callable[[], T | None], seconds_max: float = WAIT_SECONDS_MAX) -> T:
    """Asks until the answer is neither None nor False."""
    deadline = time.monotonic() + seconds_max
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds_max:g} s"
        time.sleep(POLL_SECONDS)
    return found


def free_ports(count: int, first: int) -> int:
    """The first of `count` ports in a row that nobody listens at, from `first` on."""
    return next(
        start
        for start in range(first, first + 1_000, count)
        if all(map(_is_free, range(start, start + count)))
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
