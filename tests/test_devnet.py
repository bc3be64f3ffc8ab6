"""`ctt devnet` as people and scripts use it: it says when it is ready, lives, and takes its validators along."""

import asyncio
import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from node.cli.cable import Cable
from node.cli.desk import Desk
from node.cli.member import Member
from node.exits import Exit
from tests.live_node import GENESIS, free_port

START_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 8.0
DEMO_SECONDS: Final = 15
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Devnet:
    """The command, its output read line by line."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.port, peers = free_port(), free_port()
        command = [sys.executable, "-m", "node.cli.main", "devnet", "--dir", str(directory)]
        ports = ["--rpc-port", str(self.port), "--p2p-port", str(peers)]
        self.process = subprocess.Popen(
            [*command, *ports, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=GENESIS.parent,
        )

    def line(self) -> Any:
        """The next line of JSON."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def act(self, line: str) -> Any:
        """Tells it to do something, and gives its answer; what it streams before is passed over."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.until(lambda told: "act" in told or "error" in told)

    def until(self, holds: Callable[[Any], bool]) -> Any:
        """The first line of which this holds, soon."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not holds(told := self.line()):
            assert time.monotonic() < deadline, told
        return told

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
        assert (code, err) == (0, "")
        told = [json.loads(line) for line in out.splitlines()]
        assert [each["state"] for each in told[-1]["network"]["validators"]] == ["running"]
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


def test_lines_kill_pause_cut_off_and_restart_while_the_others_go_on(tmp_path: Path) -> None:
    """One after the other, so that three of four always work together."""
    with devnet(tmp_path / "net", "--validators", "4", "--json", "--no-demo") as network:
        assert network.line()["ready"]

        def until(place: int, **wanted: Any) -> Any:
            """Until a validator is like this, and the others have gone on by some blocks since."""
            start = network.height((place + 1) % 4)

            def holds(told: Any) -> bool:
                validator = told["network"]["validators"][place]
                is_so = all(validator[name] == value for name, value in wanted.items())
                return is_so and told["network"]["isLive"] and told["network"]["height"] > start + 3

            return network.until(holds)["network"]["validators"][place]

        network.until(lambda told: told["network"]["height"] > 3)
        assert network.act("cut 2") == {"act": "cut", "validator": 2}
        alone = until(1, state="cut off", peers=0)
        assert alone["height"] > 0  # its JSON-RPC answers
        assert network.act("cut 2") == {"error": "validator-2 is cut off"}
        assert network.act("join 2")["act"] == "join"
        assert network.act("pause 3")["act"] == "pause"
        until(2, state="paused", height=None)  # and three of four can only go on with 2
        assert network.act("resume 3")["act"] == "resume"
        assert network.act("kill 1")["act"] == "kill"
        until(0, state="stopped", votes="silent", height=None)  # likewise with 3
        assert network.act("resume 1") == {"error": "validator-1 is stopped"}
        assert network.act("restart 1")["act"] == "restart"
        until(0, state="running", peers=3, votes="votes")

        assert network.act("quit") == {"act": "quit"}
        code, _, err = network.end(STOP_SECONDS_MAX + START_SECONDS_MAX)
    assert (code, err) == (0, "")


class Terminal:
    """The command on a terminal of its own: keys go in, what the screen shows comes out."""

    def __init__(self, directory: Path) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.mode = termios.tcgetattr(self.master)
        ports = ["--rpc-port", str(free_port()), "--p2p-port", str(free_port())]
        command = [sys.executable, "-m", "node.cli.main", "devnet", "--dir", str(directory), *ports]
        # The terminal tells its size; what these say would go before it.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            preexec_fn=lambda: os.login_tty(slave),
            cwd=GENESIS.parent,
            env=environment | {"TERM": "xterm"},
        )
        os.close(slave)
        self._shown = ""

    def press(self, keys: bytes) -> None:
        self._shown = ""
        os.write(self.master, keys)

    def wait_for(self, text: str) -> None:
        """Until this was shown since the last key."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while text not in ESCAPES.sub("", self._shown):
            assert time.monotonic() < deadline, self._shown[-3_000:]
            if select.select([self.master], [], [], 0.1)[0]:
                self._shown += self._read()

    def end(self) -> int:
        """Its exit code; what it shows is read until then."""
        wait_until(lambda: self._read_some() and self.process.poll() is not None)
        return self.process.returncode

    def _read_some(self) -> bool:
        while select.select([self.master], [], [], 0)[0] and (data := self._read()):
            self._shown += data
        return True

    def _read(self) -> str:
        with suppress(OSError):  # its other side is closed
            return os.read(self.master, 65_536).decode(errors="replace")
        return ""

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.master) == self.mode

    def is_suspended(self) -> bool:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    @property
    def left_screen(self) -> bool:
        return self._shown.rfind("\x1b[?1049l") > self._shown.rfind("\x1b[?1049h")


@contextmanager
def terminal(directory: Path) -> Iterator[Terminal]:
    shown = Terminal(directory)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            shown.process.send_signal(signal.SIGCONT)
            shown.process.terminate()
            shown.end()
        os.close(shown.master)


def test_keys_of_a_screen_act_on_a_lone_validator_too(tmp_path: Path) -> None:
    """And whatever comes, the terminal is given back: while it is suspended, and at the end."""
    with terminal(tmp_path / "net") as shown:
        shown.wait_for("k kill")
        shown.wait_for("01 household")
        assert not shown.is_as_before()
        shown.press(b"?")
        shown.wait_for("More than two thirds must work together")
        shown.press(b"?c")
        shown.wait_for("validator-1 has no peers to be cut off from")
        shown.press(b"p")
        shown.wait_for("validator-1 paused; p lets it go on")
        shown.press(b"p")
        shown.wait_for("validator-1 goes on")
        shown.press(b"k")
        shown.wait_for("validator-1  stopped")
        shown.press(b"r")
        shown.wait_for("validator-1  running")

        shown.press(b"\x1a")  # Ctrl-Z
        wait_until(shown.is_suspended)
        assert shown.is_as_before()
        os.kill(shown.process.pid, signal.SIGCONT)
        shown.wait_for("validator-1  running")
        assert not shown.is_as_before()

        fcntl.ioctl(shown.master, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 40, 0, 0))
        shown.press(b"1")
        shown.wait_for("\r\nvalidator-1 running")
        shown.press(b"q")
        assert shown.end() == 0
        assert shown.is_as_before() and shown.left_screen


def test_a_signal_and_a_failure_give_the_terminal_back(tmp_path: Path) -> None:
    with terminal(tmp_path / "first") as shown:
        shown.wait_for("k kill")
        shown.process.terminate()
        assert shown.end() == 0
        assert shown.is_as_before() and shown.left_screen
    with terminal(tmp_path / "net") as shown:
        shown.wait_for("k kill")
        os.kill(process_of(tmp_path / "net" / "validator-1"), signal.SIGKILL)
        assert shown.end() == Exit.UNAVAILABLE
        assert shown.is_as_before() and shown.left_screen


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "one of kill, pause"),
        ("stop 1", "one of kill, pause"),
        ("kill", "one of kill, pause"),
        ("kill 1 2", "one of kill, pause"),
        ("kill 0", "no validator 0: 1 to 2"),
        ("kill 3", "no validator 3: 1 to 2"),
        ("kill ²", "no validator ²: 1 to 2"),
        ("kill -1", "no validator -1: 1 to 2"),
        ("kill 2", "validator-2 is restarting"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(tmp_path: Path, line: str, error: str) -> None:
    async def told() -> Any:
        members = [Member(tmp_path / f"validator-{i + 1}", b"", i, 1, is_alone=False) for i in range(2)]
        return await Desk(members, asyncio.Event()).on_line(line)

    assert error in asyncio.run(told())["error"]


def test_a_cut_cable_is_mended(caplog: pytest.LogCaptureFixture) -> None:
    """What runs over it ends with a cut, and runs anew; its own end, and being cancelled, end it all."""
    runs: list[str] = []

    async def run() -> None:
        runs.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            runs.append("ended")

    async def use() -> None:
        cable = Cable()
        keeping = asyncio.create_task(cable.keep(run))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(2):
            cable.cut()
            await asyncio.sleep(0.01)
            assert runs[-1] == "ended"
            cable.mend()
            await asyncio.sleep(0.01)
            assert runs[-1] == "begun"
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    asyncio.run(use())
    assert runs == ["begun", "ended"] * 3
    assert "cut off from the peers" in caplog.text


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
    assert json.loads(err)["error"]["message"].startswith("validator-1 was ended by signal 9: ")


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
