"""`ctt meter certify`, `confirm`, `report`, `revoke`, `replace`, `show`, `qr`: a meter's way into a home and out of it.

Clients of any node's JSON-RPC, for the people who install meters.
"""

import argparse
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import segno

from apps.client import Client
from ctt_state.crypto import checksum_address
from ctt_state.modules.ctt import CTT
from ctt_state.origin import SOURCES
from ctt_state.units import Ms, Wh, hex_of
from node.cli.onboarding import CERTIFY, CONFIRM, REFUSALS, REGISTER, REPORT, find, next_step
from node.cli.options import address, format_kwh, format_time, kwh, positive_int
from node.cli.output import labelled, say, show
from node.cli.transact import Sent, add_command, add_key, bounded, key_of, show_sent, transact
from node.exits import Exit, Failure
from node.keys import load_key

NS_PER_MS: Final = 1_000_000
QR_SCALE: Final = 8
REPLACE: Final = """\
Puts another meter in a meter's place, and loses no reading. The old meter reports where its registers ended, an
operator certifies the new meter for the same source and power, the prosumer names it, it confirms and reports where its
registers begin, and the old one is revoked. Steps whose keys are not given are left to others, and what is done already
is not done again: run it once for each who has a key.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Below `ctt meter`."""
    add = partial(add_command, commands, refusals=REFUSALS)
    certify = add("certify", run_certify, "vouch for a meter (an operator does)")
    certify.add_argument("meter", type=address, metavar="METER")
    certify.add_argument(
        "--source", choices=SOURCES, required=True, help="what its home's production comes from"
    )
    certify.add_argument(
        "--max-power",
        type=positive_int,
        metavar="WATT",
        help="readings above it are refused (default: none are)",
    )
    certify.add_argument("--concentrator", action="store_true", help="it reports for many prosumers")
    add_key(certify)

    revoke = add("revoke", run_revoke, "vouch for it no more (an operator does)")
    revoke.add_argument("meter", type=address, metavar="METER")
    add_key(revoke)

    confirm = add("confirm", run_confirm, "confirm the prosumer that has named this meter (the meter does)")
    confirm.add_argument("prosumer", type=address, metavar="PROSUMER")
    add_key(confirm)

    report = add("report", run_report, "report where the registers stand now (the meter does)")
    report.add_argument("prosumer", type=address, metavar="PROSUMER")
    report.add_argument("import_wh", type=kwh, metavar="IMPORT", help="kWh, OBIS 1.8.0")
    report.add_argument("export_wh", type=kwh, metavar="EXPORT", help="kWh, OBIS 2.8.0")
    add_key(report)

    _add_replace(add("replace", run_replace, "put another meter in a meter's place, and lose no reading"))

    shown = add("show", run_show, "show who certified a meter, and whom it measures")
    shown.add_argument("meter", type=address, metavar="METER")

    qr = commands.add_parser("qr", help="a meter's address as a QR code", description=run_qr.__doc__)
    qr.add_argument("meter", type=address, metavar="METER")
    qr.add_argument("--output", type=Path, metavar="FILE", help="an .svg or .png (default: the terminal)")
    qr.set_defaults(run=run_qr)


def _add_replace(parser: argparse.ArgumentParser) -> None:
    parser.description = REPLACE
    parser.add_argument("prosumer", type=address, metavar="PROSUMER")
    parser.add_argument("old", type=address, metavar="OLD-METER")
    parser.add_argument("new", type=address, metavar="NEW-METER")
    for who in ("old", "operator", "prosumer", "new"):
        parser.add_argument(f"--{who}-key", type=Path, metavar="FILE")
    parser.add_argument(
        "--end", type=kwh, nargs=2, metavar=("IMPORT", "EXPORT"), help="the old registers, kWh"
    )
    parser.add_argument("--end-unknown", action="store_true", help="they cannot be read any more")
    parser.add_argument(
        "--begin", type=kwh, nargs=2, metavar=("IMPORT", "EXPORT"), help="the new registers, kWh"
    )


# --- the steps ------------------------------------------------------------------------------------------------------


async def run_certify(client: Client, options: argparse.Namespace) -> None:
    source, power = SOURCES.index(options.source), options.max_power or 0
    key, call = key_of(options), "certifyMeter(address,uint8,uint64,bool)"
    sent = await transact(client, options, key, CTT, call, options.meter, source, power, options.concentrator)
    step = f"the prosumer names it: {REGISTER.format(meter=hex_of(options.meter))}"
    members = {"meter": hex_of(options.meter), "certified": True, "next": step}
    show_sent(options, sent, [f"{hex_of(options.meter)} is certified; {step}"], members)


async def run_revoke(client: Client, options: argparse.Namespace) -> None:
    sent = await transact(client, options, key_of(options), CTT, "revokeMeter(address)", options.meter)
    text = f"{hex_of(options.meter)} is certified no more; nothing that it says counts"
    show_sent(options, sent, [text], {"meter": hex_of(options.meter), "certified": False})


async def run_confirm(client: Client, options: argparse.Namespace) -> None:
    sent = await transact(client, options, key_of(options), CTT, "confirm(address)", options.prosumer)
    step = await bounded(next_step(client, options.prosumer), options)
    lines = [f"{hex_of(options.prosumer)} is confirmed", f"next: {step}"]
    show_sent(options, sent, lines, {"prosumer": hex_of(options.prosumer), "next": step})


async def run_report(client: Client, options: argparse.Namespace) -> None:
    registers = (options.import_wh, options.export_wh)
    now, sent = await _report(client, options, key_of(options), registers)
    members = {"timeMs": now, "importWh": str(registers[0]), "exportWh": str(registers[1])}
    show_sent(options, sent, [_taken(now, registers)], members)


async def _report(
    client: Client, options: argparse.Namespace, key: bytes, registers: Sequence[Wh]
) -> tuple[Ms, Sent]:
    now, call = Ms(time.time_ns() // NS_PER_MS), "report(address,uint64,uint256,uint256)"
    return now, await transact(client, options, key, CTT, call, options.prosumer, now, *registers)


def _taken(now: Ms, registers: Sequence[Wh]) -> str:
    return f"import {format_kwh(registers[0])}, export {format_kwh(registers[1])}: taken, {format_time(now)}"


async def run_show(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (66) for an address that was never certified."""
    meter = await bounded(find(client, "ctt_meter", options.meter), options)
    if not meter:
        certify = CERTIFY.format(meter=hex_of(options.meter))
        raise Failure(
            Exit.MISSING, f"{hex_of(options.meter)} was never certified; an operator does: {certify}"
        )
    kind = "concentrator" if meter["concentrator"] else "meter"
    rows = {
        kind: meter["address"],
        "certified": f"{'yes' if meter['certified'] else 'no more'}, by {meter['operator']}",
        "source": meter["source"],
        "power": meter["maxPower"] or "no limit",
        "prosumer": meter["prosumer"] or "none confirmed",
    }
    show(options, labelled(rows), meter)


def run_qr(options: argparse.Namespace) -> int:
    """The address as wallets and phones read it, to be put on the meter: its prosumer scans it."""
    code = segno.make(checksum_address(options.meter), error="m")
    if options.output is None:
        code.terminal(compact=True)
        print(checksum_address(options.meter))
    elif options.output.suffix in (".svg", ".png"):
        try:
            code.save(str(options.output), scale=QR_SCALE)
        except OSError as fault:
            text = f"{options.output}: cannot write it: {fault.strerror}"
            raise Failure(Exit.CANNOT_CREATE, text) from None
    else:
        raise Failure(Exit.USAGE, f"{options.output}: it can be an .svg or a .png")
    return 0


# --- one meter for another ------------------------------------------------------------------------------------------


class Swap(NamedTuple):
    """How far the replacement is: what the node says of the home and of both meters."""

    home: dict[str, Any]
    old: dict[str, Any]
    new: dict[str, Any]

    @property
    def is_old_in_place(self) -> bool:
        return bool(self.home.get("meter") == self.old["address"])


class Step(NamedTuple):
    """A step of the replacement: whose key it takes, and what that person could do instead."""

    what: str
    is_done: Callable[[Swap], bool]
    key: Path | None
    otherwise: str
    act: Callable[[Path], Awaitable[None]]


async def run_replace(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure: 66 a home or meter that is not there, 77 a step whose key is somebody else's."""
    swap = await bounded(_look(client, options), options)
    if swap.is_old_in_place and not (options.end or options.end_unknown):
        raise Failure(
            Exit.USAGE,
            "where did the old registers end? --end IMPORT EXPORT in kWh, or --end-unknown: then what the old meter "
            "measured since its last reading is on no bill of the chain's",
        )
    steps = []
    for step in _steps(client, options, swap):
        is_done = step.is_done(await bounded(_look(client, options), options))
        steps.append({"step": step.what, "wasDone": is_done})
        if is_done:
            say(options, f"done      {step.what}")
        elif step.key is None:
            raise Failure(Exit.PERMISSION, f"next: {step.what}: {step.otherwise}")
        else:
            say(options, f"now       {step.what}")
            await step.act(step.key)
    members = {"prosumer": hex_of(options.prosumer), "meter": hex_of(options.new), "steps": steps}
    show(options, [f"{members['meter']} measures {members['prosumer']}"], members)


async def _look(client: Client, options: argparse.Namespace) -> Swap:
    home = await find(client, "ctt_prosumer", options.prosumer)
    old = await find(client, "ctt_meter", options.old)
    if not home:
        raise Failure(Exit.MISSING, f"{hex_of(options.prosumer)} has neither tokens nor a meter")
    if not old or old["concentrator"]:
        raise Failure(Exit.MISSING, f"{hex_of(options.old)} is no meter that can be replaced")
    if home["meter"] not in (old["address"], hex_of(options.new)):
        raise Failure(
            Exit.MISSING, f"the meter of {home['address']} is {home['meter']}, not {old['address']}"
        )
    return Swap(home, old, await find(client, "ctt_meter", options.new))


def _steps(client: Client, options: argparse.Namespace, swap: Swap) -> list[Step]:
    prosumer, new = hex_of(options.prosumer), hex_of(options.new)

    def transaction(signature: str, *arguments: Any) -> Callable[[Path], Awaitable[None]]:
        async def act(key: Path) -> None:
            await transact(client, options, load_key(key), CTT, signature, *arguments)

        return act

    def reading(registers: Sequence[Wh] | None) -> Callable[[Path], Awaitable[None]]:
        async def act(key: Path) -> None:
            now, _ = await _report(client, options, load_key(key), registers or ())
            say(options, _taken(now, registers or ()))

        return act

    source, power = SOURCES.index(swap.old["source"]), int(swap.old["maxPowerW"] or 0)
    return [
        Step(
            "the old meter reports where its registers ended",
            lambda now: not now.is_old_in_place or not options.end or _stands_at(now, options.end),
            options.old_key,
            f"ctt meter report {prosumer} IMPORT EXPORT --key METER.key",
            reading(options.end),
        ),
        Step(
            "an operator certifies the new meter",
            lambda now: bool(now.new.get("certified")),
            options.operator_key,
            CERTIFY.format(meter=new),
            transaction("certifyMeter(address,uint8,uint64,bool)", options.new, source, power, False),
        ),
        Step(
            "the prosumer names the new meter",
            lambda now: not now.is_old_in_place,
            options.prosumer_key,
            REGISTER.format(meter=new),
            transaction("register(address)", options.new),
        ),
        Step(
            "the new meter confirms",
            lambda now: bool(now.home["confirmed"]),
            options.new_key,
            CONFIRM.format(prosumer=prosumer),
            transaction("confirm(address)", options.prosumer),
        ),
        Step(
            "the new meter reports where its registers begin",
            lambda now: now.home["lastReading"] is not None,
            options.new_key if options.begin else None,
            f"--begin IMPORT EXPORT with --new-key, or {REPORT.format(prosumer=prosumer)}",
            reading(options.begin),
        ),
        Step(
            "an operator revokes the old meter",
            lambda now: not now.old["certified"],
            options.operator_key,
            f"ctt meter revoke {swap.old['address']} --key OPERATOR.key",
            transaction("revokeMeter(address)", options.old),
        ),
    ]


def _stands_at(swap: Swap, registers: Sequence[Wh]) -> bool:
    last = swap.home["lastReading"]
    return last is not None and [int(last["importWh"]), int(last["exportWh"])] == list(registers)
