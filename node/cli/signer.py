"""`ctt signer`: signs a validator's votes in a process of its own, so that the node has no key.

It keeps a journal of its own and never signs two votes that contradict each other, whoever asks. Nodes ask at a Unix
socket, which is its user's (docs/SIGNER.md).
"""

import argparse
import asyncio
import errno
import logging
import os
import socket
from pathlib import Path
from typing import Final

from ctt_state.crypto import public_key
from ctt_state.genesis import load_genesis
from ctt_state.units import Height, hex_of
from node.cli.init import read_genesis
from node.cli.journal import read_exported
from node.cli.logs import add_log_options, start_logging
from node.cli.options import add_leaf, sentence
from node.cli.output import show
from node.cli.process import prepare_process, tell_service_manager, until_signal
from node.exits import Exit, Failure
from node.journal import NO_MARKS, Journal, read_journal
from node.keys import KEY_FILE, create_key_file, load_key, read_key_file
from node.signer import SigningDesk, check_socket_path, frame_length, is_ours

SECONDS_MAX: Final = 5.0  # that a caller may take for the rest of a frame
CALLERS_MAX: Final = 8
EPILOG: Final = """\
`init` moves a key into a signer's directory: a new one, or that of a validator, with the marks of its journal.

examples:
  ctt signer init --dir signer --genesis genesis.json --key validator.key --never-voted
  ctt signer init --dir signer --genesis genesis.json --key old/validator.key --marks marks.json
  ctt signer run --dir signer --socket /run/ctt/signer.sock
  ctt run --dir data/node --signer /run/ctt/signer.sock    # in another terminal; there is no key in data/node
"""

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "signer", help="sign a validator's votes in a process of its own", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    begin = add_leaf(commands, "init", run_init, "make a signer's directory of a key")
    begin.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the signer's directory")
    begin.add_argument(
        "--genesis",
        type=Path,
        default=Path("genesis.json"),
        metavar="FILE",
        help="the network's genesis document",
    )
    begin.add_argument("--key", type=Path, required=True, metavar="FILE", help="the consensus key, copied in")
    begin.add_argument("--never-voted", action="store_true", help="the key has never voted, on no machine")
    begin.add_argument(
        "--marks",
        type=Path,
        metavar="FILE",
        help="what ctt journal export told, of the node that had the key",
    )
    text = "answer nodes at a Unix socket until a signal"
    serve = commands.add_parser("run", help=text, description=sentence(text))
    serve.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the signer's directory")
    serve.add_argument("--socket", type=Path, required=True, metavar="PATH", help="where nodes ask")
    add_log_options(serve)
    serve.set_defaults(run=run)


def run_init(options: argparse.Namespace) -> int:
    """Raises: Failure: 64 neither or both of --never-voted and --marks, and those of the files."""
    if options.never_voted == (options.marks is not None):
        raise Failure(
            Exit.USAGE,
            "signer init needs one of: --never-voted, of a new key; --marks FILE, of one that has voted",
        )
    genesis_hash = load_genesis(read_genesis(options.genesis)).hash
    key = public_key(load_key(options.key))
    marks = NO_MARKS
    if options.marks is not None:
        exported = read_exported(options.marks)
        for name, ours in {"genesisHash": hex_of(genesis_hash), "consensusKey": hex_of(key)}.items():
            if exported[name] != ours:
                raise Failure(Exit.DAMAGED, f"{options.marks}: {name} is {exported[name]!s:.80}, not {ours}")
        marks = exported["marks"]
        marks = marks._replace(floor=marks.highest, height=Height(0))
    try:
        options.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{options.dir}: {fault.strerror}") from None
    create_key_file(options.dir / KEY_FILE, read_key_file(options.key))
    Journal.create(options.dir, genesis_hash, key, marks)
    text = f"{options.dir}: ready; start it with: ctt signer run --dir {options.dir} --socket PATH"
    show(options, [text], {"path": str(options.dir), "consensusKey": hex_of(key)})
    return 0


def run(options: argparse.Namespace) -> int:
    start_logging(options)
    prepare_process()
    check_socket_path(options.socket)
    key = load_key(options.dir / KEY_FILE)
    genesis_hash = read_journal(options.dir).genesis_hash
    journal = Journal.open(options.dir, genesis_hash, public_key(key), (0, 0, 0))
    try:
        listener = _listen(options.socket)
        log.info("signing with %(key)s at %(path)s", {"key": hex_of(public_key(key)), "path": options.socket})
        try:
            asyncio.run(until_signal(_serve(listener, SigningDesk(key, genesis_hash, journal))))
        finally:
            options.socket.unlink(missing_ok=True)
    finally:
        journal.close()
    log.info("stopped")
    return 0


async def _serve(listener: socket.socket, desk: SigningDesk) -> None:
    """For ever. Raises: StorageFailed."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    callers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(callers) < CALLERS_MAX and is_ours(writer.get_extra_info("socket")):
                callers.add(writer)
                await _answer(reader, writer, desk)
            else:
                log.warning("a caller is refused: another user's, or one too many")
        except Failure as failure:
            if not failed.done():
                failed.set_exception(failure)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the caller is gone
        except ValueError as fault:
            log.warning("a caller is refused: %(reason)s", {"reason": fault})
        finally:
            callers.discard(writer)
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=listener)
    tell_service_manager("READY=1")
    try:
        await failed
    finally:
        server.close()
        for writer in callers:
            writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, desk: SigningDesk) -> None:
    """Raises: ValueError for what is no frame; StorageFailed; OSError, IncompleteReadError, TimeoutError."""
    while True:
        head = await reader.readexactly(4)
        async with asyncio.timeout(SECONDS_MAX):
            data = await reader.readexactly(frame_length(head))
            writer.write(desk.answer(data))
            await writer.drain()


def _listen(path: Path) -> socket.socket:
    """Takes the place of a socket that nobody listens at. Raises: Failure (69, 73, 77)."""
    if os.path.lexists(path):
        if not path.is_socket():
            raise Failure(Exit.CANNOT_CREATE, f"{path} is there, and is no socket; it is never overwritten")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            if line.connect_ex(str(path)) != errno.ECONNREFUSED:
                raise Failure(Exit.UNAVAILABLE, f"{path}: a signer listens there already")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as fault:
        listener.close()
        code = Exit.PERMISSION if isinstance(fault, PermissionError) else Exit.CANNOT_CREATE
        raise Failure(code, f"{path}: cannot listen: {fault.strerror}") from None
    finally:
        os.umask(before)
    return listener
