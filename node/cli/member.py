"""A validator of a development network: its process, `ctt run`, and what a person may do to it."""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import aiohttp

from apps.client import Client, RpcError
from ctt_state.genesis import development_key
from node.cli.init import initialise
from node.datadir import DATABASE
from node.exits import Exit, Failure

READY_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 5.0
GRACE_SECONDS: Final = 1.0
ACCOUNT_SLOTS: Final = 1_024  # of each sender: a development network is there to be loaded
CONNECTIONS_PER_ADDRESS: Final = 256  # all its clients are at one address
# What a restart does not help.
FINAL_CODES: Final = (
    Exit.USAGE,
    Exit.DAMAGED,
    Exit.BROKEN,
    Exit.STORAGE,
    Exit.PERMISSION,
    Exit.CONFIGURATION,
)


class State(StrEnum):
    """How a validator's process is."""

    RUNNING = "running"
    PAUSED = "paused"
    CUT_OFF = "cut off"
    STOPPED = "stopped"
    RESTARTING = "restarting"


class Refused(Exception):
    """An act that makes no sense now; its text says why."""


class Member:
    """A `ctt run` process of this network, which is started again when it ends, unless it was killed by an act."""

    def __init__(
        self, directory: Path, document: bytes, index: int, rpc_port: int, *, is_alone: bool
    ) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{rpc_port}"
        self._document = document
        self._key = development_key(index)
        self._rpc_port = rpc_port
        self._is_alone = is_alone
        self._process: asyncio.subprocess.Process | None = None
        self._phase = State.RESTARTING  # or RUNNING, or STOPPED
        self._is_paused = False
        self._is_cut = False
        self._is_called_back = asyncio.Event()

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def state(self) -> State:
        if self._phase is not State.RUNNING:
            return self._phase
        if _is_suspended(self.process.pid, self._is_paused):
            return State.PAUSED
        return State.CUT_OFF if self._is_cut else State.RUNNING

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        return self._process

    async def start(self) -> None:
        """Starts the process, which refuses to run the chain of another document, and makes its database when there is
        none: the others have the chain. Raises: Failure."""
        self._genesis.parent.mkdir(parents=True, exist_ok=True)
        self._genesis.write_bytes(self._document)
        if not (self.directory / DATABASE).exists():
            initialise(self.directory, self._document, self._key)
        self._is_paused = self._is_cut = False
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "node.cli.main", "run", *self._arguments()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )

    def _arguments(self) -> Sequence[str]:
        return (
            *(
                "--dir",
                str(self.directory),
                "--genesis",
                str(self._genesis),
                "--rpc-port",
                str(self._rpc_port),
            ),
            *("--account-slots", str(ACCOUNT_SLOTS)),
            *("--rpc-connections-per-address", str(CONNECTIONS_PER_ADDRESS)),
            "--cut-on-signal",
        )

    async def wait_ready(self) -> None:
        """Until it answers. Raises: Failure when it ends or does not answer in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS_MAX), Client(self.url) as client:
                while self.process.returncode is None:
                    with suppress(aiohttp.ClientError, RpcError):
                        await client.call("eth_blockNumber")
                        self._phase = State.RUNNING
                        return
                    await asyncio.sleep(0.05)
        raise self._failure()

    async def keep_up(self, tell: Callable[[str], None]) -> None:
        """Starts the process again whenever it ends, but for a reason that would end it again; what was killed by an
        act waits for the act that restarts it. Raises: Failure when the only validator ends by itself."""
        while True:
            code = await self.process.wait()
            if self._phase is State.RUNNING:
                if self._is_alone:
                    raise self._failure()
                tell(str(self._failure()))
                self._phase = State.STOPPED if code in FINAL_CODES else State.RESTARTING
                await asyncio.sleep(GRACE_SECONDS)
            if self._phase is State.STOPPED:
                await self._is_called_back.wait()
            self._is_called_back.clear()
            self._phase = State.RESTARTING
            await self.start()
            try:
                await self.wait_ready()
            except Failure as failure:
                if self.process.returncode is None:
                    tell(str(failure))
                self._phase = State.RUNNING  # its end is told and heeded above

    async def stop(self) -> None:
        """Asks it to end, and makes it end after a while."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
            process.send_signal(signal.SIGCONT)  # should it be paused
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    # What a person may do. Each raises Refused.

    def kill(self) -> None:
        """`kill -9`. It stays away until it is restarted."""
        self._check(State.RUNNING, State.PAUSED, State.CUT_OFF)
        self._phase = State.STOPPED
        self.process.kill()

    async def pause(self) -> None:
        """It hangs as it is, and answers nobody."""
        self._check(State.RUNNING, State.CUT_OFF)
        self._is_paused = True
        self.process.send_signal(signal.SIGSTOP)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while self.state is not State.PAUSED:  # noqa: ASYNC110 -- no event tells of another's pause
                    await asyncio.sleep(0.005)

    def resume(self) -> None:
        """The end of a pause."""
        self._check(State.PAUSED)
        self._is_paused = False
        self.process.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        """It has no peers any more; its JSON-RPC goes on."""
        if self._is_alone:
            raise Refused(f"{self.name} has no peers to be cut off from")
        self._check(State.RUNNING)
        self._is_cut = True
        self.process.send_signal(signal.SIGUSR1)

    def join(self) -> None:
        """It is among its peers again."""
        self._check(State.CUT_OFF)
        self._is_cut = False
        self.process.send_signal(signal.SIGUSR2)

    async def restart(self) -> None:
        """Stops it in an orderly way if it runs, and starts it; it is with its peers then."""
        self._check(State.RUNNING, State.PAUSED, State.CUT_OFF, State.STOPPED)
        self._phase = State.RESTARTING
        self._is_called_back.set()
        await self.stop()

    def _check(self, *states: State) -> None:
        """Raises: Refused."""
        if self.state not in states:
            raise Refused(f"{self.name} is {self.state}")

    # Its files

    @property
    def _genesis(self) -> Path:
        return self.directory.parent / f"{self.name}.genesis.json"

    @property
    def _log(self) -> Path:
        return self.directory.parent / f"{self.name}.log"

    def _failure(self) -> Failure:
        lines = self._log.read_text(errors="replace").splitlines()
        last = lines[-1] if lines else "no word in its log"
        code = self.process.returncode
        end = (
            "does not answer"
            if code is None
            else f"was ended by signal {-code}"
            if code < 0
            else f"ended with code {code}"
        )
        return Failure(code if code and code > 0 else Exit.UNAVAILABLE, f"{self.name} {end}: {last}")


def _is_suspended(pid: int, otherwise: bool) -> bool:
    """Whether a process was stopped by a signal, by whomever; `otherwise` where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return otherwise
