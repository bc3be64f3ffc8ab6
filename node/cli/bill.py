"""`ctt bill`: a prosumer's electricity bill, from what the chain has counted, and its proof.

A client of any node's JSON-RPC (docs/BILL.md). `ctt bill verify` needs no node at all.
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final

from apps.bill import collect, prove
from apps.bill.bill import Account, Background, Bill, days_of, document_of, make_bill
from apps.bill.check import PROOF_BYTES_MAX, Trusted, Unproven, check_complete, check_proof, show_proven
from apps.bill.page import show_page
from apps.bill.period import InvalidPeriod, Period, month
from apps.bill.present import Page, page_of
from apps.bill.readings import Reading, Unexplained
from apps.bill.tariff import InvalidTariff, Tariff, load_tariff
from apps.bill.text import show_text
from apps.client import Client
from ctt_state.document import DOCUMENT_BYTES_MAX
from ctt_state.genesis import load_genesis
from ctt_state.records import Prosumer
from ctt_state.units import Address, hex_of
from node.cli.options import add_leaf, add_progress, address, block_of_height, day
from node.cli.output import show
from node.cli.progress import Tell, progress
from node.cli.transact import Refusals, add_command, bounded
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt bill --prosumer 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --month 2026-10 --tariff tariff.json
  ctt bill --prosumer 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --month 2026-10 --tariff tariff.json \\
      --pdf bill.pdf --html bill.html --proof bill.proof
  ctt bill mark --prosumer 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --out marks/2026-10-31.json
  ctt bill verify bill.proof --genesis genesis.json --tariff tariff.json
"""
FILE_BYTES_MAX: Final = 1 << 20  # of a tariff or a mark
TEXT_CHARS_MAX: Final = 64  # of an account's name or number
_MONTH: Final = re.compile(r"(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])")

VERIFY: Final = """\
Checks a bill's proof against the chain's genesis document, without a node: every block, record and receipt in it, that
no reading is missing, and each line.
"""
NO_REFUSALS: Final = Refusals({})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        subparsers, "bill", run_bill, "make a prosumer's electricity bill, and prove or check it", NO_REFUSALS
    )
    parser.description, parser.epilog = __doc__, EPILOG
    parser.add_argument("--prosumer", type=address, metavar="ADDRESS")
    parser.add_argument("--month", type=_month, metavar="YYYY-MM", help="of the calendar")
    parser.add_argument(
        "--from", dest="first", type=day, metavar="DATE", help="the first day, instead of a month"
    )
    parser.add_argument("--to", dest="end", type=day, metavar="DATE", help="the day after the last")
    parser.add_argument("--tariff", type=Path, metavar="FILE", help="what the operator asks (docs/BILL.md)")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="of ctt index: the readings of long periods, origins and key figures",
    )
    parser.add_argument("--name", type=_text, default="", metavar="TEXT", help="the account's name")
    parser.add_argument("--number", type=_text, default="", metavar="TEXT", help="the account's number")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page")
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="write it as a PDF (needs fpdf2)")
    parser.add_argument("--font", type=Path, metavar="FILE", help="a TrueType font for the PDF")
    parser.add_argument("--proof", type=Path, metavar="FILE", help="write it with its proof; .gz compresses")
    parser.add_argument(
        "--mark",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of ctt bill mark, for the proof",
    )
    add_checkpoint(parser)
    add_progress(parser, "reading")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    mark = add_command(
        commands, "mark", run_mark, "keep a prosumer's totals, proven, for later proofs", NO_REFUSALS
    )
    mark.add_argument("--prosumer", type=address, required=True, metavar="ADDRESS")
    mark.add_argument("--out", type=Path, required=True, metavar="FILE")
    verify = add_leaf(commands, "verify", run_verify, "check a proof, offline")
    verify.description = VERIFY
    add_progress(verify, "checking")
    verify.add_argument("file", type=Path, metavar="FILE", help="what --proof wrote")
    verify.add_argument("--genesis", type=Path, required=True, metavar="FILE", help="of the chain")
    verify.add_argument(
        "--tariff", type=Path, metavar="FILE", help="the one agreed on: the bill must be by it"
    )
    add_checkpoint(verify)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=block_of_height,
        metavar="HEIGHT:HASH",
        help="the last block of an epoch that is trusted, to begin the proof at (default: genesis)",
    )


async def run_bill(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure: 64 a period that is none or is not over, 66 an unknown prosumer, 69 missing history, 78 a
    tariff that is none."""
    for name in ("prosumer", "tariff"):
        if getattr(options, name) is None:
            raise Failure(Exit.USAGE, f"--{name} is missing; see ctt bill --help")
    tariff = _read_tariff(options.tariff)
    period = _period(options, tariff)
    with _explained(client), progress(options) as tell:
        if options.database is None or options.proof is not None:
            await bounded(client.call("eth_chainId"), options)
        bill = await _make(client, options, tariff, period, tell)
    page = page_of(bill)
    if options.html is not None:
        _write(options.html, show_page(page).encode())
    if options.pdf is not None:
        _write(options.pdf, _paper(page, options.font))
    show(options, [show_text(page)], document_of(bill))


async def run_mark(client: Client, options: argparse.Namespace) -> None:
    with _explained(client):
        mark = await bounded(prove.take_mark(client, options.prosumer), options)
    _write(options.out, _json(mark.document))
    text = f"{options.out}: the totals after block {mark.height}"
    show(options, [text], {"height": mark.height, "timeMs": mark.time_ms})


def run_verify(options: argparse.Namespace) -> int:
    """Raises: Failure: 65 with the first thing that is not proven."""
    genesis = load_genesis(_read(options.genesis, DOCUMENT_BYTES_MAX))
    tariff = None if options.tariff is None else _read_tariff(options.tariff)
    try:
        proof = _read(options.file, PROOF_BYTES_MAX)
        with progress(options):
            proven = check_proof(proof, genesis, tariff=tariff, trusted=_trusted(options))
    except Unproven as fault:
        show(options, [], {"proven": False, "fault": str(fault)})
        raise Failure(Exit.DAMAGED, f"{options.file}: not proven: {fault}") from None
    told = {
        "proven": True,
        "bill": document_of(proven.bill),
        "openingBlock": proven.opening,
        "closingBlock": proven.closing,
        "readings": proven.counted,
        "settled": proven.is_settled,
    }
    show(options, [show_proven(proven)], told)
    return 0


# --- where a bill comes from -----------------------------------------------------------------------------------------


async def _make(
    client: Client, options: argparse.Namespace, tariff: Tariff, period: Period, tell: Tell
) -> Bill:
    """With a database a node is asked for the proof alone."""
    if options.database is None:
        return await (_prove if options.proof else _collect)(client, options, tariff, period, tell)
    from apps.bill.indexed import read_index  # SQLAlchemy takes a while to load

    indexed = read_index(options.database, options.prosumer, period)
    if not options.proof:
        return _bill(options, tariff, period, indexed.height, indexed.readings, indexed.background)
    bill = await _prove(client, options, tariff, period, tell)
    bill = _bill(options, tariff, period, bill.as_of_block, bill.readings, indexed.background)
    _check_agrees(bill, indexed.height)
    return bill


def _check_agrees(bill: Bill, height: int) -> None:
    """Whether the database has the readings of the bill. Raises: Failure (69)."""
    for each in days_of(bill):
        if each.covered_wh != each.own_wh + each.partner_wh + each.auction_wh:
            raise Failure(
                Exit.UNAVAILABLE,
                f"the index, at block {height}, has other readings of {each.date} than the node, at block "
                f"{bill.as_of_block}: let it catch up",
            )


async def _collect(
    client: Client, options: argparse.Namespace, tariff: Tariff, period: Period, tell: Tell
) -> Bill:
    """As the node tells it."""
    prosumer = options.prosumer
    span = await collect.span_of(client, prosumer, period)
    found = await collect.find_transactions(client, prosumer, span, tell)
    readings = await collect.read_transactions(client, prosumer, found, tell)
    background = Background(tuple(await collect.find_purchases(client, prosumer, span)))
    return _bill(options, tariff, period, span.closing, readings, background)


def _find(options: argparse.Namespace, span: collect.Span) -> tuple[list[collect.Found], collect.Span]:
    """What the database knows of these blocks, and those that it does not."""
    if options.database is None:
        return [], span
    from apps.bill.indexed import find_indexed

    return find_indexed(options.database, options.prosumer, span)


async def _prove(
    client: Client, options: argparse.Namespace, tariff: Tariff, period: Period, tell: Tell
) -> Bill:
    """Writes the proof, too."""
    prosumer, marks = options.prosumer, [_read_mark(path, options.prosumer) for path in options.mark]
    opening, checkpoint = prove.choose_opening(marks, period), None
    trusted = _trusted(options)
    if trusted is not None:
        prove.check_begins_before(opening, trusted)
        checkpoint = await prove.prove_checkpoint(client, trusted)
    closing = prove.choose_closing(marks, period) or await prove.take_mark(client, prosumer)
    collect.check_over(closing.time_ms, period)
    span = collect.Span(opening.height if opening else 0, closing.height)
    await prove.check_whole(client, span, period)
    found, left = _find(options, span)
    found += await collect.find_transactions(client, prosumer, left, tell)
    readings = await collect.read_transactions(client, prosumer, found, tell)
    before = opening.totals if opening else Prosumer()
    check_complete(readings, before, closing.totals, *span)
    background = Background(
        () if options.database else tuple(await collect.find_purchases(client, prosumer, span))
    )
    bill = _bill(options, tariff, period, span.closing, readings, background)
    proof = prove.proof_document(
        document_of(bill._replace(background=None)),
        tariff.document,
        checkpoint=checkpoint,
        opening=opening,
        closing=closing,
        epochs=await prove.prove_epochs(client, trusted.height if trusted else 0, closing.height),
        transactions=await prove.prove_transactions(client, found),
    )
    data = _json(proof)
    if len(data) > PROOF_BYTES_MAX:
        raise Failure(
            Exit.CANNOT_CREATE,
            f"a proof of {len(data):,} bytes; limit {PROOF_BYTES_MAX:,}: bill fewer days at once",
        )
    _write(options.proof, gzip.compress(data, mtime=0) if options.proof.suffix == ".gz" else data)
    return bill


def _bill(
    options: argparse.Namespace,
    tariff: Tariff,
    period: Period,
    height: int,
    readings: Iterable[Reading],
    background: Background,
) -> Bill:
    return make_bill(
        tariff,
        period,
        options.prosumer,
        readings,
        as_of_block=height,
        account=Account(options.name, options.number),
        background=background,
    )


@contextmanager
def _explained(client: Client) -> Iterator[None]:
    """Raises: Failure for what keeps a bill from being made."""
    try:
        yield
    except (collect.PeriodNotOver, prove.NotACheckpoint) as fault:
        raise Failure(Exit.USAGE, str(fault)) from None
    except collect.UnknownProsumer as fault:
        raise Failure(Exit.MISSING, str(fault)) from None
    except collect.HistoryMissing as fault:
        raise Failure(Exit.UNAVAILABLE, str(fault)) from None
    except (Unexplained, Unproven) as fault:
        raise Failure(Exit.UNAVAILABLE, f"{client.url} does not answer as a node: {fault}") from None
    except TimeoutError:
        raise Failure(Exit.UNAVAILABLE, f"{client.url} does not answer") from None


def _month(text: str) -> tuple[int, int]:
    match = _MONTH.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is no month such as 2026-10")
    return int(match["year"]), int(match["month"])


def _text(text: str) -> str:
    if len(text) > TEXT_CHARS_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is not a line of up to {TEXT_CHARS_MAX} characters")
    return text


def _period(options: argparse.Namespace, tariff: Tariff) -> Period:
    """Raises: Failure (64)."""
    ends: tuple[date | None, date | None] = options.first, options.end
    if (options.month is None) == (ends == (None, None)) or (ends[0] is None) != (ends[1] is None):
        raise Failure(Exit.USAGE, "the period is --month, or --from and --to; see ctt bill --help")
    try:
        if options.month is not None:
            year, number = options.month
            return month(year, number, tariff.zone)
        return Period.between(options.first, options.end, tariff.zone)
    except InvalidPeriod as fault:
        raise Failure(Exit.USAGE, str(fault)) from None


# --- files -----------------------------------------------------------------------------------------------------------


def _read_tariff(path: Path) -> Tariff:
    try:
        return load_tariff(_read(path, FILE_BYTES_MAX))
    except InvalidTariff as fault:
        raise Failure(Exit.CONFIGURATION, f"{path}: {fault}") from None


def _read_mark(path: Path, prosumer: Address) -> prove.Mark:
    """Raises: Failure: 65 no mark, 64 another prosumer's."""
    try:
        mark = prove.read_mark(json.loads(_read(path, FILE_BYTES_MAX)))
    except (ValueError, LookupError, TypeError) as fault:
        raise Failure(Exit.DAMAGED, f"{path}: not what ctt bill mark wrote: {fault}") from None
    if mark.prosumer != prosumer:
        raise Failure(Exit.USAGE, f"{path}: a mark of {hex_of(mark.prosumer)}, not of {hex_of(prosumer)}")
    return mark


def _trusted(options: argparse.Namespace) -> Trusted | None:
    return None if options.checkpoint is None else Trusted(*options.checkpoint)


def _paper(page: Page, font: Path | None) -> bytes:
    """Raises: Failure: 66 without the library or for a font that cannot be read, 64 for text that it lacks."""
    try:
        from apps.bill.paper import NotInFont, make_paper
    except ImportError:
        raise Failure(
            Exit.MISSING,
            "a PDF needs fpdf2: pip install 'crypto-trading-node[pdf]'; --html needs nothing",
        ) from None
    try:
        return make_paper(page, font)
    except NotInFont as fault:
        raise Failure(Exit.USAGE, str(fault)) from None
    except (OSError, ValueError) as fault:
        raise Failure(Exit.MISSING, f"{font}: cannot read the font: {fault}") from None


def _read(path: Path, bytes_max: int) -> bytes:
    """Raises: Failure: 66 missing, 77 unreadable, 65 too large."""
    try:
        size = path.stat().st_size
        if size > bytes_max:
            raise Failure(Exit.DAMAGED, f"{path}: {size:,} bytes; limit {bytes_max:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise Failure(Exit.MISSING, f"{path}: no such file") from None
    except OSError as fault:
        raise Failure(Exit.PERMISSION, f"{path}: cannot read it: {fault.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    """Raises: Failure (73)."""
    try:
        path.write_bytes(data)
    except OSError as fault:
        raise Failure(Exit.CANNOT_CREATE, f"{path}: cannot write it: {fault.strerror}") from None


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"
