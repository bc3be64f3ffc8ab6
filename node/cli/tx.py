"""`ctt tx`: a transaction: what it asked for, what came of it, and why not."""

import argparse
import re
from collections.abc import Iterator
from typing import Any, Final

from apps.client import Client, RpcError, decode_log
from ctt_state.abi import MalformedCalldata, decode_values
from ctt_state.modules import MODULES
from ctt_state.transaction import SYSTEM
from ctt_state.units import Address, hex_of
from node.cli.options import format_amount
from node.cli.output import show
from node.cli.transact import Refusals, add_command, bounded
from node.exits import Exit, Failure

EPILOG: Final = """\
examples:
  ctt tx 0x78dd70303b385af6f779d4318f0b52fa11af262b2fccd1e59a914dc63d8bcf27
  ctt tx 0x78dd70303b385af6f779d4318f0b52fa11af262b2fccd1e59a914dc63d8bcf27 --json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        subparsers, "tx", run_show, "show a transaction, decoded, and what came of it", Refusals({})
    )
    parser.epilog = EPILOG
    parser.add_argument("hash", type=transaction_hash, metavar="HASH")


def transaction_hash(text: str) -> str:
    if re.fullmatch(r"0x[0-9a-f]{64}", text.lower()) is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is no hash: 0x and 64 hexadecimal digits")
    return text.lower()


async def run_show(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (66) when this node knows no such transaction."""
    transaction = await bounded(client.call("eth_getTransactionByHash", options.hash), options)
    if transaction is None:
        raise Failure(Exit.MISSING, f"{options.rpc} knows no transaction {options.hash}")
    receipt = await bounded(client.call("eth_getTransactionReceipt", options.hash), options)
    is_refused = receipt is not None and not int(receipt["status"], 16)
    reason = await bounded(_reason(client, transaction), options) if is_refused else None
    members = {"transaction": transaction, "receipt": receipt, "reason": reason}
    show(options, _describe(transaction, receipt, reason), members)


def _describe(transaction: dict[str, Any], receipt: Any, reason: str | None) -> Iterator[str]:
    yield f"{describe_call(transaction)}: {_outcome(receipt)}"
    if reason is not None:
        yield f"reason       {reason}"
    yield f"hash         {transaction['hash']}"
    if receipt is not None:
        yield f"block        {int(receipt['blockNumber'], 16):,}, final, place {int(receipt['transactionIndex'], 16)}"
    yield f"from         {transaction['from']}, nonce {int(transaction['nonce'], 16):,}"
    yield f"to           {transaction['to']}"
    yield f"value        {format_amount(int(transaction['value'], 16))}"
    used = "" if receipt is None else f"{int(receipt['gasUsed'], 16):,} of "
    yield f"gas          {used}{int(transaction['gas'], 16):,}"
    called = _called(transaction)
    if called is not None:
        yield from (f"  {name:<12} {value}" for name, value in called[1].items())
    for log in () if receipt is None else receipt["logs"]:
        yield f"event        {_event(log)}"


def _outcome(receipt: Any) -> str:
    if receipt is None:
        return "in the pool, in no block yet"
    return "done" if int(receipt["status"], 16) else "refused"


def describe_call(transaction: dict[str, Any]) -> str:
    """In a word or two."""
    if int(transaction["type"], 16) == SYSTEM:
        return "clears the market"
    called = _called(transaction)
    if called is not None:
        return called[0]
    value = int(transaction["value"], 16)
    return f"pays {format_amount(value)}" if value else "calls nothing known"


def _called(transaction: dict[str, Any]) -> tuple[str, dict[str, str]] | None:
    """Module and function, and the arguments by name; None for what calls no function of a module."""
    module = MODULES.get(Address(bytes.fromhex((transaction["to"] or "0x")[2:])))
    data = bytes.fromhex(transaction["input"][2:])
    function = None if module is None else module.functions.get(data[:4])
    if module is None or function is None:
        return None
    try:
        values = decode_values(function.inputs, data[4:])
    except MalformedCalldata:
        return None
    named = zip([each.name for each in function.inputs], map(_text, values), strict=True)
    return f"{module.name}.{function.name}", dict(named)


def _event(log: dict[str, Any]) -> str:
    for module in MODULES.values():
        if (found := decode_log(module, log)) is not None:
            name, values = found
            return f"{module.name}.{name}({', '.join(f'{each} {_text(value)}' for each, value in values.items())})"
    return f"of {log['address']}, topics {', '.join(log['topics'])}"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return hex_of(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


async def _reason(client: Client, transaction: dict[str, Any]) -> str:
    """What the state before its block says to the same call, which mostly is what it met."""
    request = {name: transaction[name] for name in ("from", "to", "value", "input", "gas")}
    try:
        await client.call("eth_call", request, hex(int(transaction["blockNumber"], 16) - 1))
    except RpcError as refusal:
        return _error(str(refusal.data)) or str(refusal)
    return "something before it in its block was in the way"


def _error(data: str) -> str | None:
    try:
        content = bytes.fromhex(data.removeprefix("0x"))
    except ValueError:
        return None
    for module in MODULES.values():
        if (error := module.errors.get(content[:4])) is not None:
            values = decode_values(error.params, content[4:])
            named = zip([each.name for each in error.params], values, strict=True)
            return f"{error.name}({', '.join(f'{name} {_text(value)}' for name, value in named)})"
    return None
