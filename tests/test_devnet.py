"""`ctt devnet` as people and scripts use it: it says when it is ready, lives, and takes its validators along."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from node.exits import Exit
from tests.live_node import GENESIS, free_port

START_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 8.0
DEMO_SECONDS: Final = 15


class Devnet:
    """The command, its output read line by line."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.port, peers = free_port(), free_port()
        command = [sys.executable, "-m", "node.cli.main", "devnet", "--dir", str(directory)]
        ports = ["--rpc-port", str(self.port), "--p2p-port", str(peers)]
        self.process = subprocess.Popen(
            [*command, *ports, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=GENESIS.parent,
        )

    def line(self) -> Any:
        """The next line of JSON."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def end(self, seconds_max: float) -> tuple[int, str, str]:
        """Exit code and what else it said. Nothing may show a traceback."""
        out, err = self.process.communicate(timeout=seconds_max)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err

    def children(self) -> list[int]:
        """Its validators' process ids."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()]

    def height(self, validator: int = 0) -> int:
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port + validator}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(json.loads(response.read())["result"], 16)


@contextmanager
def devnet(directory: Path, *flags: str) -> Iterator[Devnet]:
    network = Devnet(directory, *flags)
    try:
        yield network
    finally:
        if network.process.poll() is None:
            network.process.terminate()
        network.process.communicate(timeout=STOP_SECONDS_MAX)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_says_when_it_is_ready_and_ends_in_time(tmp_path: Path) -> None:
    with devnet(tmp_path / "net", "--for", "3", "--no-demo", "--json") as network:
        assert network.line() == {"ready": True, "rpc": [f"http://127.0.0.1:{network.port}"]}
        children = network.children()
        assert len(children) == 1
        code, out, err = network.end(START_SECONDS_MAX)
        assert (code, out, err) == (0, "", "")
        assert not any(map(is_alive, children))
    assert (tmp_path / "net" / "validator-1.log").exists()


def test_the_demonstration_lives_without_a_refusal(tmp_path: Path) -> None:
    with devnet(tmp_path / "net", "--for", str(DEMO_SECONDS), "--json") as network:
        assert network.line()["ready"]
        code, out, err = network.end(START_SECONDS_MAX + DEMO_SECONDS)
    assert (code, err) == (0, "")
    statuses = [json.loads(line) for line in out.splitlines()]
    last = statuses[-1]
    assert last["sent"] > 100 and last["refused"] == 0
    assert last["energyWh"] > 0 and last["tokens"] > 0 and last["transactions"] > 0
    assert last["height"] > statuses[0]["height"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_its_validators(tmp_path: Path, number: signal.Signals) -> None:
    with devnet(tmp_path / "net", "--json", *(() if number == signal.SIGINT else ("--no-demo",))) as network:
        assert network.line()["ready"]
        children = network.children()
        start = time.monotonic()
        network.process.send_signal(number)
        code, _, err = network.end(STOP_SECONDS_MAX + START_SECONDS_MAX)
        assert time.monotonic() - start < STOP_SECONDS_MAX
        assert (code, err) == (0, "")
        assert children and not any(map(is_alive, children))


def test_nohup_keeps_it_running(tmp_path: Path) -> None:
    """The end of the terminal is nothing to one that was told to ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which processes inherit
    try:
        with devnet(tmp_path / "net", "--json", "--no-demo") as network:
            assert network.line()["ready"]
            network.process.send_signal(signal.SIGHUP)
            height = network.height()
            while network.height() < height + 2:
                time.sleep(0.05)
            assert network.process.poll() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def process_of(directory: Path) -> int:
    """The validator that works in this directory; 0 while there is none."""
    try:
        return int((directory / "node.lock").read_text())
    except (FileNotFoundError, ValueError):
        return 0


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "is_emptied"), [(0, False), (3, True)], ids=["killed", "emptied"])
def test_the_others_go_on_and_the_lost_one_comes_back(tmp_path: Path, victim: int, is_emptied: bool) -> None:
    others = [each for each in range(4) if each != victim]
    directory = tmp_path / "net" / f"validator-{victim + 1}"
    with devnet(tmp_path / "net", "--validators", "4", "--json", "--no-demo") as network:
        assert len(network.line()["rpc"]) == 4
        wait_until(lambda: network.height() >= 3)
        gone = process_of(directory)
        os.kill(gone, signal.SIGKILL)
        if is_emptied:
            for name in ("db", "votes"):
                shutil.rmtree(directory / name)
            for name in ("anchor", "validator.key"):
                (directory / name).unlink()
        height = max(network.height(each) for each in others)

        wait_until(lambda: min(map(network.height, others)) >= height + 9)
        wait_until(lambda: process_of(directory) != gone)
        wait_until(lambda: has_height(network, victim, height + 9))

        network.process.send_signal(signal.SIGINT)
        code, _, err = network.end(STOP_SECONDS_MAX + START_SECONDS_MAX)
    assert code == 0
    assert "was ended by signal 9" in err


def has_height(network: Devnet, validator: int, height: int) -> bool:
    try:
        return network.height(validator) >= height
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("after", ["at once", "while homes live"])
def test_a_lost_validator_ends_it_with_its_last_word(tmp_path: Path, after: str) -> None:
    with devnet(tmp_path / "net", "--json") as network:
        assert network.line()["ready"]
        if after == "while homes live":
            assert network.line()["height"] >= 0
        (validator,) = network.children()
        os.kill(validator, signal.SIGKILL)
        code, _, err = network.end(STOP_SECONDS_MAX)
    assert code == Exit.UNAVAILABLE
    assert err.startswith("ctt: validator-1 was ended by signal 9: ") and err.count("\n") == 1


def test_a_second_run_continues_the_chain(tmp_path: Path) -> None:
    """With its p2p port: it is in the genesis document."""
    flags = ("--no-demo", "--json", "--p2p-port", str(free_port()))
    with devnet(tmp_path / "net", *flags, "--for", "2") as network:
        assert network.line()["ready"]
        network.end(START_SECONDS_MAX)
    log = (tmp_path / "net" / "validator-1.log").read_text()
    stopped_at = int(log.rsplit("stopped at block ", 1)[1].split()[0].replace(",", ""))
    assert stopped_at > 0
    with devnet(tmp_path / "net", *flags) as network:
        assert network.line()["ready"]
        assert network.height() >= stopped_at


def test_another_genesis_document_is_refused(tmp_path: Path) -> None:
    """It would be ignored otherwise: the directory has its own."""
    flags = ("--no-demo", "--json", "--p2p-port", str(free_port()))
    with devnet(tmp_path / "net", *flags, "--for", "0.1") as network:
        assert network.end(START_SECONDS_MAX)[0] == 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(GENESIS.read_bytes()) | {"chainId": 4711}))
    with devnet(tmp_path / "net", *flags, "--genesis", str(other)) as network:
        code, out, err = network.end(START_SECONDS_MAX)
    assert (code, out) == (Exit.DAMAGED, "")
    assert "genesis hash 0x" in err and "differs from database 0x" in err and err.count("\n") == 1


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with devnet(tmp_path / "one", "--no-demo", "--json") as first:
        assert first.line()["ready"]
        with devnet(tmp_path / "two", "--no-demo", "--json", "--rpc-port", str(first.port)) as second:
            code, _, err = second.end(START_SECONDS_MAX)
    assert code == Exit.UNAVAILABLE
    assert "cannot listen on 127.0.0.1" in err and err.count("\n") == 1
