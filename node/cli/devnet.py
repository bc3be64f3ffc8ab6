"""`ctt devnet`: a network on this machine, with a street of homes living on it.

Each validator is a process of its own, `ctt run`, as in a real network; its log and its genesis document are beside
its data directory. The command starts them, says when they answer, and ends them together with itself. In a network of
several a validator that ends is started again, unless its exit code says that this would not help: kill one and see the
others go on. On a terminal a screen shows them, and keys kill, pause, cut off and restart them.
"""

import argparse
import asyncio
import json
import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console

from apps.client import RpcError
from apps.demo.board import Board, board_json, board_line, draw_picture
from apps.demo.network import NetworkWatch, follow_network, now_s
from apps.demo.play import LINE_SECONDS, Scene, perform
from apps.demo.terminal import Terminal, has_keys, is_ours
from ctt_state.genesis import development_genesis, load_genesis
from ctt_state.validators import VALIDATORS_MAX
from node.cli.ca import issue_development
from node.cli.desk import Desk
from node.cli.init import read_genesis
from node.cli.member import GRACE_SECONDS, Member, State
from node.cli.options import add_directory, port, positive_int, seconds
from node.exits import Exit, Failure

JSON_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.2  # from one look whether the demonstration's node still runs to the next
LINE_BYTES_MAX: Final = 4_096
LOST: Final = (aiohttp.ClientError, RpcError, TimeoutError)  # what clients of a lost node see
EPILOG: Final = """\
keys: 1-9 or arrows choose a validator, k kills it, p pauses it or lets it go on, c cuts it off from its peers or lets
it back, r restarts it, ? shows help, q quits.

With --json a script does the same by lines on standard input, a pipe or a terminal: kill 2, pause 2, resume 2, cut 2,
join 2, restart 2, quit. Each is answered by a line with "act", or "error". What a slow reader does not take is left
out. A validator that is killed by an act stays away until it is restarted; any other that ends is started again.

examples:
  ctt devnet --dir data/devnet --validators 4
  (sleep 10; echo kill 2; sleep 10; echo quit) | ctt devnet --dir data/devnet --validators 4 --json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "devnet", help="run a development network on this machine", description=__doc__, epilog=EPILOG
    )
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
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a screen, acts by stdin")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write the last screen as an SVG picture"
    )
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
        addresses = {each.name: each.address for each in load_genesis(document).validators}
        issue_development(options.dir, list(addresses.items()))
    members = _members(options, document)
    try:
        for member in members:
            await member.start()
        for member in members:
            await member.wait_ready()
        _say_ready(members, as_json=options.json)
        await _until_over(options, members, stopping)
    finally:
        await asyncio.gather(*(member.stop() for member in members))
    return 0


def _members(options: argparse.Namespace, document: bytes) -> list[Member]:
    is_alone = options.validators == 1
    return [
        Member(options.dir / f"validator-{i + 1}", document, i, options.rpc_port + i, is_alone=is_alone)
        for i in range(options.validators)
    ]


def _say_ready(members: list[Member], *, as_json: bool) -> None:
    urls = [member.url for member in members]
    if as_json:
        print(json.dumps({"ready": True, "rpc": urls}), flush=True)
    else:
        print(f"ready: JSON-RPC and WebSocket at {' '.join(urls)}, explorer at {urls[0]}/", flush=True)


async def _until_over(options: argparse.Namespace, members: list[Member], stopping: asyncio.Event) -> None:
    """Until the time is over, a signal, `quit`, or a Failure: the end of a lone validator."""
    network, scene, desk = NetworkWatch(), Scene() if options.demo else None, Desk(members, stopping)
    console = Console()
    is_screen = not options.json and is_ours(console)

    def board() -> Board:
        chosen = desk.chosen if is_screen and has_keys() else None
        return Board(members, network, scene, now_s(), chosen, desk.is_helping, desk.notices)

    tell = desk.tell if is_screen else _say
    work: list[Coroutine[Any, Any, Any]] = [stopping.wait(), follow_network(members, network)]
    work += [each.keep_up(tell) for each in members]
    if scene is not None:
        work.append(_play(members, scene, tell))
    if options.json:
        work += [_stream(board), _heed_lines(desk)]
    else:
        work.append(Terminal(console, board, desk.on_key).show() if is_screen else _say_lines(board))
    tasks = [asyncio.create_task(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
        if options.picture:
            draw_picture(board(), options.picture)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- the demonstration ---


async def _play(members: list[Member], scene: Scene, tell: Callable[[str], None]) -> None:
    """The demonstration. When it loses its node it waits a moment, for the node's own word comes first, and goes on
    with the next that runs, or with the same when it is alone: that it ended for good is for `keep_up` to say."""
    place = 0
    while True:
        member = members[place % len(members)]
        place += 1
        if member.state is not State.RUNNING:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        try:
            await _while_running(member, perform(member.url, scene))
        except (ExceptionGroup, *LOST) as failure:
            fault = _first(failure)
            if not isinstance(fault, LOST):
                raise fault from None
            await asyncio.sleep(GRACE_SECONDS)
            if member.state is State.RUNNING:
                tell(f"the demonstration lost the node: {str(fault) or type(fault).__name__}; it goes on")


async def _while_running(member: Member, work: Coroutine[Any, Any, None]) -> None:
    """Until the work fails, or the validator runs no more."""
    task = asyncio.create_task(work)
    try:
        while member.state is State.RUNNING and not task.done():
            await asyncio.wait([task], timeout=LOOK_SECONDS)
        if task.done():
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _first(fault: Exception) -> Exception:
    """Of a group the first one in it."""
    return _first(fault.exceptions[0]) if isinstance(fault, ExceptionGroup) else fault


# --- for pipes and scripts ---


def _say(text: str) -> None:
    print(f"ctt: {text}", file=sys.stderr, flush=True)


async def _say_lines(board: Callable[[], Board]) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        with suppress(BlockingIOError):
            print(board_line(board()), flush=True)


async def _stream(board: Callable[[], Board]) -> None:
    while True:
        await asyncio.sleep(JSON_SECONDS)
        _print_json(board_json(board()))


def _print_json(told: dict[str, Any]) -> None:
    """Unless the reader is slow: the network waits for nobody."""
    if select.select([], [sys.stdout], [], 0)[1]:
        with suppress(BlockingIOError):
            print(json.dumps(told), flush=True)


async def _heed_lines(desk: Desk) -> None:
    """Acts by lines on standard input, if that can be waited for; for ever, also after its end."""
    rest = b""
    while _is_readable() and (data := await _read_stdin()):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-LINE_BYTES_MAX:]
        for line in lines:
            _print_json(await desk.on_line(line.decode(errors="replace")))
    await asyncio.Event().wait()


def _is_readable() -> bool:
    """A pipe, or a terminal that no other job of the shell's has."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or has_keys()


async def _read_stdin() -> bytes:
    """What has come, at most a line's maximum; nothing at its end."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
        return os.read(sys.stdin.fileno(), LINE_BYTES_MAX)
    except OSError:
        return b""
    finally:
        loop.remove_reader(sys.stdin.fileno())
