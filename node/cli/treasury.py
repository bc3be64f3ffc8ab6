"""`ctt treasury`: the settlement currency as a claim on deposits: issue it, redeem it, and show that all adds up.

A client of any node's JSON-RPC (docs/PROTOCOL.md, S-11). Amounts are in the currency's own units with up to 18
decimals, such as 12.50, and exact.
"""

import argparse
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from apps.client import Client, decode_log
from ctt_state.modules.treasury import TREASURY
from ctt_state.units import Wei, hex_of
from node.cli.options import add_progress, address, amount, format_amount, positive_int, reference
from node.cli.output import columns, print_table, show
from node.cli.progress import Tell, progress
from node.cli.transact import Refusals, add_command, add_key, bounded, key_of, plain, show_sent, transact
from node.exits import Exit, Failure

SEE: Final = "ctt treasury statement"
EPILOG: Final = """\
Each issue and each redemption names the booking that it stands for, such as a bank's, by a reference of at most 32
bytes that is used once: what was sent already is refused and not booked again.

examples:
  ctt treasury allow 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 --key admin.key
  ctt treasury dismiss 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 --key admin.key
  ctt treasury issue 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 250.00 --reference "SEPA 2026-11-23 0041" --key bank.key
  ctt treasury redeem 80 --reference "payout 17" --key bank.key
  ctt treasury statement --from 1 --to 100000
"""
LOGS_BLOCKS_MAX: Final = 1_000  # that a node searches at once


def _readable(name: str, value: object) -> str:
    if name in ("amount", "minimum", "maximum", "balance") and isinstance(value, int):
        return format_amount(value)
    return _text_of(value) if isinstance(value, bytes) and len(value) == 32 else plain(name, value)


REFUSALS: Final = Refusals(
    {
        "NotCreated": "there is no CTT yet, so there is no admin either",
        "NotAdmin": "{caller} is not the CTT's admin",
        "NotTreasurer": "{caller} is no treasurer; the admin makes one by ctt treasury allow",
        "InvalidTreasurer": "{treasurer} cannot be a treasurer",
        "InvalidRecipient": "{to} can hold no money",
        "InvalidAmount": "{amount} is asked for; it can be {minimum} to {maximum}",
        "InsufficientBalance": "the treasurer's own balance is {balance}, less than {amount}",
        "ReferenceUsed": "{reference} was booked in block {height}",
    },
    _readable,
)


class Entry(NamedTuple):
    """One booking, as its event tells it."""

    height: int
    treasurer: str
    account: str | None  # that got the money; None for a redemption
    amount_wei: Wei
    reference: bytes

    @property
    def change_wei(self) -> int:
        return -self.amount_wei if self.account is None else self.amount_wei


class Statement(NamedTuple):
    """All bookings of the blocks `first` to `last`, and what was outstanding before them."""

    first: int
    last: int
    opening_wei: int
    entries: list[Entry]

    @property
    def closing_wei(self) -> int:
        return self.opening_wei + sum(entry.change_wei for entry in self.entries)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "treasury",
        help="issue and redeem the settlement currency",
        description=__doc__,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_command, commands, refusals=REFUSALS)
    allow = add("allow", run_allow, "make an account a treasurer (the admin does)")
    dismiss = add("dismiss", run_dismiss, "make an account a treasurer no more (the admin does)")
    for command in (allow, dismiss):
        command.add_argument("account", type=address, metavar="ADDRESS")
    issue = add("issue", run_issue, "create money for a deposit")
    issue.add_argument("to", type=address, metavar="ADDRESS", help="who gets it")
    redeem = add("redeem", run_redeem, "destroy the treasurer's own money for a payment")
    for command in (issue, redeem):
        command.add_argument("amount", type=amount, metavar="AMOUNT")
        command.add_argument("--reference", type=reference, required=True, metavar="TEXT", help="used once")
    for command in (allow, dismiss, issue, redeem):
        add_key(command)
    statement = add("statement", run_statement, "show all bookings, and that they add up")
    add_progress(statement, "blocks")
    statement.add_argument(
        "--from", dest="first", type=positive_int, default=1, metavar="BLOCK", help="default: 1"
    )
    statement.add_argument(
        "--to", dest="last", type=positive_int, metavar="BLOCK", help="default: the newest"
    )


async def run_allow(client: Client, options: argparse.Namespace) -> None:
    await _set_treasurer(client, options, allowed=True)


async def run_dismiss(client: Client, options: argparse.Namespace) -> None:
    await _set_treasurer(client, options, allowed=False)


async def _set_treasurer(client: Client, options: argparse.Namespace, *, allowed: bool) -> None:
    key, call = key_of(options), "setTreasurer(address,bool)"
    sent = await transact(client, options, key, TREASURY, call, options.account, allowed)
    text = f"{hex_of(options.account)} is {'a' if allowed else 'no'} treasurer"
    show_sent(options, sent, [text], {"account": hex_of(options.account), "isTreasurer": allowed})


async def run_issue(client: Client, options: argparse.Namespace) -> None:
    key, arguments = key_of(options), (options.to, options.amount, options.reference)
    sent = await transact(
        client, options, key, TREASURY, "issue(address,uint256,bytes32)", *arguments, see=SEE
    )
    text = f"{hex_of(options.to)} has got {format_amount(options.amount)}"
    show_sent(options, sent, [text], {"to": hex_of(options.to), "amountWei": str(options.amount)})


async def run_redeem(client: Client, options: argparse.Namespace) -> None:
    key, arguments = key_of(options), (options.amount, options.reference)
    sent = await transact(client, options, key, TREASURY, "redeem(uint256,bytes32)", *arguments, see=SEE)
    text = f"{format_amount(options.amount)} are redeemed"
    show_sent(options, sent, [text], {"amountWei": str(options.amount)})


async def run_statement(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure: 64 blocks that are not there, 70 when the bookings do not come to what the chain says."""
    with progress(options) as tell:
        statement = await bounded(_read_statement(client, options.first, options.last, tell), options)
    if options.json:
        show(options, [], summarise(statement))
    else:
        _print(statement)
    if statement.first == 1 and statement.opening_wei:
        raise Failure(
            Exit.BROKEN,
            f"the chain's total and its bookings differ by {format_amount(statement.opening_wei)}",
        )


async def _read_statement(client: Client, first: int, last: int | None, tell: Tell) -> Statement:
    """Reckons back from what is outstanding now: the node need not have older states. Raises: Failure (64)."""
    head = int(await client.call("eth_blockNumber"), 16)
    last = head if last is None else last
    if not 1 <= first <= last <= head:
        raise Failure(Exit.USAGE, f"blocks {first} to {last}: there are 1 to {head}")
    entries: list[Entry] = []
    for start in range(first, head + 1, LOGS_BLOCKS_MAX):
        end = min(start + LOGS_BLOCKS_MAX - 1, head)
        tell(start - first, head - first + 1)
        query = {"address": hex_of(TREASURY.address), "fromBlock": hex(start), "toBlock": hex(end)}
        entries += _entries(await client.call("eth_getLogs", query))
    (outstanding,) = await client.read(TREASURY, "outstanding()", block=hex(head))
    opening = outstanding - sum(entry.change_wei for entry in entries)
    return Statement(first, last, opening, [entry for entry in entries if entry.height <= last])


def _entries(logs: Iterable[dict[str, Any]]) -> Iterable[Entry]:
    for log in logs:
        name, told = decode_log(TREASURY, log) or ("", {})
        if name in ("Issued", "Redeemed"):
            account = hex_of(told["to"]) if name == "Issued" else None
            height, treasurer = int(log["blockNumber"], 16), hex_of(told["treasurer"])
            yield Entry(height, treasurer, account, Wei(told["amount"]), told["reference"])


def summarise(statement: Statement) -> dict[str, Any]:
    """Amounts in wei, as text: they pass what JSON's readers take for a number."""
    return {
        "fromBlock": statement.first,
        "toBlock": statement.last,
        "openingWei": str(statement.opening_wei),
        "entries": [
            {
                "block": entry.height,
                "treasurer": entry.treasurer,
                "to": entry.account,
                "changeWei": str(entry.change_wei),
                "reference": hex_of(entry.reference),
                "text": _text_of(entry.reference),
            }
            for entry in statement.entries
        ],
        "closingWei": str(statement.closing_wei),
    }


def _print(statement: Statement) -> None:
    table = columns("block", "treasurer", "reference", "issued>", "redeemed>", "outstanding>")
    outstanding = statement.opening_wei
    table.add_row(f"before {statement.first}", "", "", "", "", format_amount(outstanding))
    for entry in statement.entries:
        outstanding += entry.change_wei
        figures = [format_amount(entry.amount_wei), ""]
        if entry.account is None:
            figures.reverse()
        table.add_row(
            str(entry.height),
            entry.treasurer,
            _text_of(entry.reference),
            *figures,
            format_amount(outstanding),
        )
    print_table(table)
    print(f"{len(statement.entries)} bookings; outstanding after block {statement.last}: ", end="")
    print(format_amount(statement.closing_wei))


def _text_of(reference: bytes) -> str:
    """The text that a reference was made of, or its bytes when it is none."""
    text = reference.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text else hex_of(reference)
