"""`ctt devnet`: a network on this machine, with a street of homes living on it.

Each validator is a process of its own, `ctt run`, as in a real network; its log and its genesis document are beside
its data directory. The command starts them, says when they answer, and ends them together with itself. In a network of
several a validator that ends is started again, unless its exit code says that this would not help: kill one and see the
others go on.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Final

import aiohttp

from apps.client import Client, RpcError
from apps.demo.play import play
from ctt_state.genesis import development_genesis, development_key, load_genesis
from ctt_state.validators import VALIDATORS_MAX
from node.cli.ca import issue_development
from node.cli.init import initialise, read_genesis
from node.cli.options import add_directory, port, positive_int, seconds
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
LOST: Final = (aiohttp.ClientError, RpcError, TimeoutError)  # what clients of a lost node see


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("devnet", help="run a development network on this machine")
    add_directory(parser)
    parser.add_argument("--validators", type=positive_int, default=1, metavar="N")
    parser.add_argument(
        "--rpc-port", type=port, default=8545, metavar="PORT", help="validator i listens at PORT + i"
    )
    parser.add_argument(
        "--p2p-port", type=port, default=30303, metavar="PORT", help="validator i listens at PORT + i"
    )
    parser.add_argument("--genesis", type=Path, default=Path("genesis.json"), metavar="FILE")
    parser.add_argument(
        "--demo", action=argparse.BooleanOptionalAction, default=True, help="play a street of homes"
    )
    parser.add_argument("--for", dest="seconds", type=seconds, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.validators > VALIDATORS_MAX:
        raise Failure(Exit.USAGE, f"--validators {options.validators}: at most {VALIDATORS_MAX}")
    if abs(options.rpc_port - options.p2p_port) < options.validators:
        raise Failure(
            Exit.CONFIGURATION,
            f"--rpc-port {options.rpc_port} and --p2p-port {options.p2p_port} are too near for "
            f"{options.validators} validators",
        )
    document = development_genesis(
        read_genesis(options.genesis), validators=options.validators, p2p_port=options.p2p_port
    )
    with suppress(KeyboardInterrupt):
        return asyncio.run(_run(options, document))
    return 0


async def _run(options: argparse.Namespace, document: bytes) -> int:
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:  # which is what nohup asks for
            asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    if options.validators > 1:
        members = {each.name: each.address for each in load_genesis(document).validators}
        issue_development(options.dir, list(members.items()))
    validators = [
        await Validator.start(
            options.dir / f"validator-{index + 1}", document, index, options.rpc_port + index
        )
        for index in range(options.validators)
    ]
    try:
        for validator in validators:
            await validator.wait_ready()
        _say_ready(validators, as_json=options.json)
        await _until_over(options, validators, stopping)
    finally:
        await asyncio.gather(*(validator.stop() for validator in validators))
    return 0


async def _until_over(
    options: argparse.Namespace, validators: "list[Validator]", stopping: asyncio.Event
) -> None:
    """Until the time is over, a signal, or a Failure: the end of a lone validator, or of all."""
    is_alone = len(validators) == 1
    watched = [asyncio.create_task(each.failed() if is_alone else each.keep_up()) for each in validators]
    stop = asyncio.create_task(stopping.wait())
    if options.demo:
        watched.append(asyncio.create_task(_play([each.url for each in validators], as_json=options.json)))
    try:
        done, _ = await asyncio.wait(
            [*watched, stop], timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            await task
    finally:
        for task in (*watched, stop):
            task.cancel()
        await asyncio.gather(*watched, stop, return_exceptions=True)


async def _play(urls: list[str], *, as_json: bool) -> None:
    """The demonstration. When it loses its node it waits a moment, for the node's own word comes first, and goes on
    with the next. Raises: Failure when it has lost the only one."""
    for url in cycle(urls):
        try:
            await play(url, as_json=as_json)
        except (ExceptionGroup, *LOST) as failure:
            fault = _first(failure)
            if not isinstance(fault, LOST):
                raise fault from None
            await asyncio.sleep(GRACE_SECONDS)
            text = f"the demonstration lost the node: {str(fault) or type(fault).__name__}"
            if len(urls) == 1:
                raise Failure(Exit.UNAVAILABLE, text) from None
            print(f"ctt: {text}; it goes on with the next", file=sys.stderr, flush=True)


def _first(fault: Exception) -> Exception:
    """Of a group the first one in it."""
    return _first(fault.exceptions[0]) if isinstance(fault, ExceptionGroup) else fault


def _say_ready(validators: "list[Validator]", *, as_json: bool) -> None:
    urls = [validator.url for validator in validators]
    if as_json:
        print(json.dumps({"ready": True, "rpc": urls}), flush=True)
    else:
        print(f"ready: JSON-RPC and WebSocket at {' '.join(urls)}, explorer at {urls[0]}/", flush=True)


class Validator:
    """A `ctt run` process of this network."""

    def __init__(
        self, directory: Path, url: str, arguments: Sequence[str], document: bytes, key: bytes
    ) -> None:
        self.directory = directory
        self._document = document
        self._key = key
        self.url = url
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    async def start(cls, directory: Path, document: bytes, index: int, rpc_port: int) -> "Validator":
        """Starts the process, which refuses to run the chain of another document. Raises: Failure."""
        genesis = directory.parent / f"{directory.name}.genesis.json"
        genesis.parent.mkdir(parents=True, exist_ok=True)
        genesis.write_bytes(document)
        arguments = (
            *("--dir", str(directory), "--genesis", str(genesis), "--rpc-port", str(rpc_port)),
            *("--account-slots", str(ACCOUNT_SLOTS)),
            *("--rpc-connections-per-address", str(CONNECTIONS_PER_ADDRESS)),
        )
        validator = cls(
            directory, f"http://127.0.0.1:{rpc_port}", arguments, document, development_key(index)
        )
        await validator.spawn()
        return validator

    async def spawn(self) -> None:
        """Starts the process (again), and makes its database when there is none: the others have the chain."""
        if not (self.directory / DATABASE).exists():
            initialise(self.directory, self._document, self._key)
        with _log_file(self.directory).open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "node.cli.main", "run", *self._arguments),
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise AssertionError(f"{self.directory.name} was never started")
        return self._process

    async def keep_up(self) -> None:
        """Starts the process again whenever it ends, but for a reason that would end it again."""
        while True:
            code = await self.process.wait()
            print(f"ctt: {self._failure()}", file=sys.stderr, flush=True)
            if code in FINAL_CODES:
                await asyncio.Event().wait()
            await asyncio.sleep(GRACE_SECONDS)
            await self.spawn()

    async def wait_ready(self) -> None:
        """Until it answers. Raises: Failure when it ends or does not answer in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS_MAX), Client(self.url) as client:
                while self.process.returncode is None:
                    with suppress(aiohttp.ClientError, RpcError):
                        await client.call("eth_blockNumber")
                        return
                    await asyncio.sleep(0.05)
        raise self._failure()

    async def failed(self) -> None:
        """Waits for the end of the process, which is always a Failure."""
        await self.process.wait()
        raise self._failure()

    async def stop(self) -> None:
        """Asks it to end, and makes it end after a while."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def _failure(self) -> Failure:
        lines = _log_file(self.directory).read_text(errors="replace").splitlines()
        last = lines[-1] if lines else "no word in its log"
        code = self.process.returncode
        end = (
            "does not answer"
            if code is None
            else f"was ended by signal {-code}"
            if code < 0
            else f"ended with code {code}"
        )
        return Failure(
            code if code and code > 0 else Exit.UNAVAILABLE, f"{self.directory.name} {end}: {last}"
        )


def _log_file(directory: Path) -> Path:
    return directory.parent / f"{directory.name}.log"
