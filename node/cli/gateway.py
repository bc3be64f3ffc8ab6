"""`ctt meter run`, `import`, `simulate`: from meters to the chain.

Clients of any node's JSON-RPC, for the people who run a meter's gateway or a concentrator. Their libraries are an extra
of the package, so they are loaded when they are needed.
"""

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import aiohttp

from apps.client import Client, RpcError
from apps.meter.outbox import Outbox, OutboxFailed, OutboxInUse, OutboxMismatch, Taken
from apps.meter.reading import ReadingRefused, Registers
from ctt_state.modules.ctt import CTT
from ctt_state.units import Address, Ms
from node.cli.onboarding import REFUSALS
from node.cli.options import add_leaf, add_progress, address, format_time, port, positive_int, seconds
from node.cli.output import say, show
from node.cli.progress import progress
from node.cli.transact import RPC_URL, rpc_url
from node.exits import Exit, Failure
from node.keys import load_key

FAILURES: Final[dict[type[Exception], Exit]] = {
    OutboxInUse: Exit.UNAVAILABLE,
    OutboxMismatch: Exit.CONFIGURATION,
    OutboxFailed: Exit.STORAGE,
    aiohttp.ClientError: Exit.UNAVAILABLE,
    TimeoutError: Exit.UNAVAILABLE,
    OSError: Exit.MISSING,
}
EXPECTED: Final[tuple[type[Exception], ...]] = (RpcError, *FAILURES)
RUN: Final = """\
Reads meters and reports to the chain until it is stopped; if all sources are files, until all they say is on the
chain. What was read survives a crash, and is sent once there is a network.
"""
IMPORT: Final = """\
Sums up the intervals of Green Button files to registers and reports these. The first reading is the baseline: an
import of a new meter begins at zero. What has been reported is not reported again.
"""
SIMULATE: Final = """\
Plays homes that live a June day from standard load profiles, every second one with PV, behind one concentrator: as
many readings as there are homes each quarter hour, by reportBatch.
"""
TELL_SECONDS: Final = 0.5
RAW_SHOWN: Final = 200  # characters of an interval's source that are kept with it


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Below `ctt meter`."""
    run = commands.add_parser("run", help="the gateway: pass on what meters say", description=RUN)
    run.add_argument("settings", type=Path, metavar="FILE.toml", help="meters, key and outbox: docs/METER.md")
    run.add_argument(
        "--metrics-port",
        type=port,
        metavar="PORT",
        help="Prometheus metrics at http://127.0.0.1:PORT/metrics",
    )
    run.set_defaults(run=_run)

    past = add_leaf(commands, "import", _import, "report a home's past from Green Button files")
    past.description = IMPORT
    add_progress(past, "sending")
    past.add_argument("prosumer", type=address, metavar="PROSUMER")
    past.add_argument("files", type=Path, nargs="+", metavar="FILE", help="Green Button XML (ESPI) or CSV")
    past.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the meter's key, or a keystore"
    )
    past.add_argument("--password-file", type=Path, metavar="FILE", help="of the keystore")
    past.add_argument(
        "--outbox", type=Path, required=True, metavar="FILE", help="is made where there is none"
    )
    past.add_argument(
        "--zone", type=_zone, metavar="ZONE", help="of the times in CSV, such as Europe/Amsterdam"
    )
    past.add_argument("--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="default: %(default)s")

    play = commands.add_parser(
        "simulate", help="play a neighbourhood's meters, for demonstrations", description=SIMULATE
    )
    play.add_argument("--meters", type=positive_int, default=100, metavar="N", help="default: %(default)s")
    play.add_argument(
        "--quarters", type=positive_int, default=96, metavar="N", help="default: a day, %(default)s"
    )
    play.add_argument(
        "--pace", type=seconds, default=1.0, metavar="SECONDS", help="of a quarter hour; default: %(default)g"
    )
    play.add_argument("--seed", type=positive_int, default=1, metavar="N", help="of the homes' keys")
    play.add_argument(
        "--outbox", type=Path, required=True, metavar="FILE", help="is made where there is none"
    )
    play.add_argument(
        "--operator-key", type=Path, required=True, metavar="FILE", help="certifies the concentrator"
    )
    play.add_argument("--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="default: %(default)s")
    play.set_defaults(run=_simulate)


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is no time zone such as Europe/Amsterdam") from None


def _run(options: argparse.Namespace) -> int:
    try:
        from apps.meter import gateway, settings
    except ModuleNotFoundError as missing:
        raise _not_installed(missing) from None
    try:
        told = settings.load(options.settings)
    except OSError as fault:
        raise Failure(Exit.MISSING, f"{options.settings}: {fault.strerror}") from None
    except settings.InvalidSettings as fault:
        raise Failure(Exit.CONFIGURATION, f"{options.settings}: {fault}") from None
    key = load_key(told.key, told.password_file)
    token = None if told.token_file is None else _read_line(told.token_file)

    async def work(outbox: Outbox) -> None:
        from apps.meter.sender import Sender

        async with Client(told.rpc, token) as client:
            sender = Sender(client, outbox, key, REFUSALS.explain_revert, batching=told.batching)
            try:
                await gateway.Gateway(told, outbox, sender, _tell).run(options.metrics_port)
            except OSError as fault:  # of a source it comes in a group
                text = f"cannot serve metrics at 127.0.0.1:{options.metrics_port}: {fault.strerror}"
                raise Failure(Exit.UNAVAILABLE, text) from None

    return _with_outbox(told.outbox, work)


def _import(options: argparse.Namespace) -> int:
    key = load_key(options.key, options.password_file)
    content = [_read_file(path) for path in options.files]

    async def work(outbox: Outbox) -> None:
        from apps.meter.sender import Sender

        async with Client(options.rpc) as client:
            last = outbox.last(options.prosumer) or await _last_on_chain(client, options.prosumer)
            taken = _imported(options, content, last)
            outbox.take(taken)
            say(options, f"{len(taken)} readings of {len(content)} files are in {options.outbox}")
            sender = Sender(client, outbox, key, REFUSALS.explain_revert)
            sending = asyncio.create_task(sender.run(until_empty=True))
            trouble = ""
            with progress(options) as tell:
                while not (await asyncio.wait([sending], timeout=TELL_SECONDS))[0]:
                    counts = outbox.counts()
                    tell(counts.taken - counts.waiting, counts.taken)
                    if sender.health.trouble not in ("", trouble):
                        trouble = sender.health.trouble
                        say(options, f"{counts.waiting} wait: {trouble}")
            await sending
        _show_imported(options, outbox, len(taken))

    return _with_outbox(options.outbox, work)


def _show_imported(options: argparse.Namespace, outbox: Outbox, taken: int) -> None:
    counts = outbox.counts()
    refused = [(row.registers.time_ms, reason) for row, reason in reversed(outbox.refusals(counts.refused))]
    lines = [f"refused: the reading of {format_time(time_ms)}: {reason}" for time_ms, reason in refused]
    lines.append(f"{counts.final} readings are on the chain, {counts.refused} were refused by it")
    members = {
        "taken": taken,
        "final": counts.final,
        "refused": [{"timeMs": time_ms, "reason": reason} for time_ms, reason in refused],
    }
    show(options, lines, members)


def _simulate(options: argparse.Namespace) -> int:
    from apps.meter import simulate

    operator_key = load_key(options.operator_key)

    async def work(outbox: Outbox) -> None:
        async with Client(options.rpc) as client:
            homes = simulate.Neighbourhood(client, options.meters, options.seed)
            _tell(f"{options.meters} homes come to the chain")
            await homes.build(operator_key)
            sender = simulate.make_sender(client, outbox, homes.key, REFUSALS.explain_revert)
            await simulate.play(homes, outbox, sender, options.quarters, options.pace, _tell)

    return _with_outbox(options.outbox, work)


def _imported(options: argparse.Namespace, content: list[bytes], last: Registers | None) -> list[Taken]:
    """Raises: Failure (65) for a file that is not what it should be."""
    try:
        from apps.meter import greenbutton, intake
    except ModuleNotFoundError as missing:
        raise _not_installed(missing) from None
    intervals = []
    for path, data in zip(options.files, content, strict=True):
        try:
            if data.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
                intervals += greenbutton.read_espi(data)
            elif options.zone is None:
                raise Failure(Exit.USAGE, f"{path}: of which zone are its times? --zone Europe/Amsterdam")
            else:
                intervals += greenbutton.read_csv(data.decode("utf-8-sig", "replace"), options.zone)
        except ReadingRefused as refusal:
            raise Failure(Exit.DAMAGED, f"{path}: {refusal}") from None
    names = ", ".join(path.name for path in options.files)[:RAW_SHOWN]
    try:
        readings = greenbutton.registers(intervals, last)
    except ReadingRefused as refusal:
        raise Failure(Exit.DAMAGED, f"{names}: {refusal}") from None
    now = intake.now_ms()
    return [Taken(options.prosumer, each, "green button", names.encode(), now) for each in readings]


async def _last_on_chain(client: Client, prosumer: Address) -> Registers | None:
    time_ms, import_wh, export_wh = await client.read(CTT, "lastReading(address)", prosumer)
    return Registers(Ms(time_ms), import_wh, export_wh) if time_ms else None


# --- what can go wrong ----------------------------------------------------------------------------------------------


def _with_outbox(path: Path, work: Callable[[Outbox], Coroutine[Any, Any, None]]) -> int:
    """Raises: Failure: 78 the outbox is another chain's or key's, 74 the disk, 69 somebody has it or the node does not
    answer, 66 a source that is not there."""
    try:
        with Outbox(path) as outbox:
            asyncio.run(work(outbox))
    except ExceptionGroup as group:
        raise _failure(group) from None
    except EXPECTED as fault:
        raise _failure(fault) from None
    return 0


def _failure(fault: Exception) -> Exception:
    """What a person is told, of several the first; our own mistakes as they are."""
    while isinstance(fault, ExceptionGroup):
        fault = fault.exceptions[0]
    if isinstance(fault, RpcError):
        return REFUSALS.explain(fault)
    if isinstance(fault, OSError) and fault.filename:
        return Failure(Exit.MISSING, f"{fault.filename}: {fault.strerror}")
    for kind, code in FAILURES.items():
        if isinstance(fault, kind):
            return Failure(code, str(fault))
    return fault


def _not_installed(missing: ModuleNotFoundError) -> Failure:
    return Failure(Exit.MISSING, f"{missing.name} is not installed: pip install 'crypto-trading-node[meter]'")


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise Failure(Exit.MISSING, f"{path}: {fault.strerror}") from None


def _read_line(path: Path) -> str:
    return _read_file(path).decode("utf-8", "replace").strip()


def _tell(line: str) -> None:
    print(line, flush=True)
