"""What commands that speak to a node share: a transaction to a native module is tried, sent and awaited, and a refusal
is told in words.

Clients of JSON-RPC like any other; what they send is signed here, with a key of the user's.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp

from apps.client import Client, RpcError, call_object, decode_log
from ctt_state.abi import MalformedCalldata, Module, decode_values
from ctt_state.crypto import address_of
from ctt_state.modules import MODULES
from ctt_state.transaction import sign_transaction
from ctt_state.units import hex_of
from node.cli.governance import results
from node.cli.options import add_leaf, seconds
from node.cli.output import say, show
from node.exits import Exit, Failure
from node.keys import load_key
from rpc.errors import EXECUTION_REVERTED, REFUSED

RPC_URL: Final = "http://127.0.0.1:8545"
TIMEOUT_SECONDS: Final = 30.0

Command = Callable[[Client, argparse.Namespace], Coroutine[Any, Any, None]]
T = TypeVar("T")


def plain(name: str, value: object) -> str:
    return hex_of(value) if isinstance(value, bytes) else str(value)


class Sent(NamedTuple):
    """A transaction that is final, and its module's events by name."""

    transaction: str
    block: int
    events: dict[str, dict[str, Any]]


class Foretold(NamedTuple):
    """What a transaction would come to, in lines for people and as members for programs."""

    lines: Sequence[str]
    members: Mapping[str, Any]


class Refusals(NamedTuple):
    """What a module's refusals say: a text by the error's name, with its figures in braces, and how a figure of some
    name is shown."""

    texts: Mapping[str, str]
    readable: Callable[[str, object], str] = plain

    def explain(self, refusal: RpcError) -> Failure:
        """A refusal of the module in words, any other in the node's."""
        if refusal.code == EXECUTION_REVERTED:
            text = self.explain_revert(str(refusal.data), str(refusal))
            return Failure(Exit.PERMISSION, f"refused: {text}")
        code = Exit.PERMISSION if refusal.code == REFUSED else Exit.UNAVAILABLE
        return Failure(code, f"the node refuses: {refusal}")

    def explain_revert(self, data: str, otherwise: str) -> str:
        """The module's error of these bytes: its name, and what it says of its figures."""
        try:
            content = bytes.fromhex(data.removeprefix("0x"))
        except ValueError:
            return otherwise
        found = (module.errors.get(content[:4]) for module in MODULES.values())
        error = next(filter(None, found), None)
        if error is None or error.name not in self.texts:
            return otherwise
        values = decode_values(error.params, content[4:])
        figures = {
            param.name: self.readable(param.name, value)
            for param, value in zip(error.params, values, strict=True)
        }
        return f"{error.name}: {self.texts[error.name].format(**figures)}"


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Command,
    text: str,
    refusals: Refusals,
) -> argparse.ArgumentParser:
    """A subcommand that asks a node."""
    parser = add_leaf(commands, name, partial(_run, command, refusals), text)
    parser.add_argument(
        "--rpc", type=rpc_url, default=RPC_URL, metavar="URL", help="a node's JSON-RPC (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the node, and as long again for the block (default: %(default)g)",
    )
    return parser


def add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the key of the account that sends, or a keystore",
    )
    add_password(parser)


def add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="of a keystore (default: the terminal is asked)"
    )


def key_of(options: argparse.Namespace) -> bytes:
    """What `add_key` asks for. Raises: as `load_key`."""
    return load_key(options.key, options.password_file)


def add_dealing(parser: argparse.ArgumentParser) -> None:
    """For a command by which a person trades (see `deal`)."""
    add_key(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what it would come to, and send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask on a terminal before it is sent")


def rpc_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is no address such as {RPC_URL}")
    return text


def read_token(path: Path) -> str:
    """An API token in a file. Raises: Failure (66)."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as fault:
        raise Failure(Exit.MISSING, f"no token in {path}: {fault}") from None


def _run(command: Command, refusals: Refusals, options: argparse.Namespace) -> int:
    """Raises: Failure: 77 the chain refuses, 69 the node does not answer as one."""
    asyncio.run(_ask(command, refusals, options))
    return 0


async def _ask(command: Command, refusals: Refusals, options: argparse.Namespace) -> None:
    try:
        async with Client(options.rpc) as client:
            await command(client, options)
    except RpcError as refusal:
        raise refusals.explain(refusal) from None
    except (aiohttp.ClientError, json.JSONDecodeError, MalformedCalldata) as fault:
        cause = " ".join(str(fault).split())[:200] or type(fault).__name__
        raise Failure(Exit.UNAVAILABLE, f"{options.rpc} does not answer as a node: {cause}") from None


async def bounded(work: Awaitable[T], options: argparse.Namespace) -> T:
    """Raises: Failure (69) when it takes too long."""
    try:
        async with asyncio.timeout(options.timeout):
            return await work
    except TimeoutError:
        raise Failure(
            Exit.UNAVAILABLE, f"{options.rpc} does not answer within {options.timeout:g} s"
        ) from None


# --- what is sent ---------------------------------------------------------------------------------------------------


async def transact(
    client: Client,
    options: argparse.Namespace,
    key: bytes,
    module: Module,
    signature: str,
    *arguments: Any,
    value: int = 0,
    see: str = "",
) -> Sent:
    """Calls the module by a transaction and gives its events when the block is final.

    What the module would refuse is not sent. `see` is the command that shows what became of it. Raises: RpcError for
    a refusal, Failure (69) without a block in time.
    """
    request = _request(key, module, signature, *arguments, value=value)
    transaction_hash = await bounded(_send(client, key, module, request), options)
    say(options, f"sent transaction {transaction_hash}")
    try:
        receipt = await client.receipt(transaction_hash, options.timeout)
    except TimeoutError:
        raise Failure(
            Exit.UNAVAILABLE,
            f"transaction {transaction_hash} is in no block after {options.timeout:g} s; it may still come"
            f"{f': see {see}' if see else ''}",
        ) from None
    if receipt["status"] != "0x1":
        # What it found when its turn came was not what had been tried: the same call says what.
        await bounded(client.call("eth_call", request, receipt["blockNumber"]), options)
        raise Failure(Exit.PERMISSION, f"transaction {transaction_hash} was refused when its turn came")
    block = int(receipt["blockNumber"], 16)
    say(options, f"final in block {block}")
    events = dict(filter(None, (decode_log(module, log) for log in receipt["logs"])))
    return Sent(transaction_hash, block, events)


async def deal(
    client: Client,
    options: argparse.Namespace,
    key: bytes,
    module: Module,
    signature: str,
    *arguments: Any,
    value: int = 0,
    see: str = "",
    foresee: Callable[[dict[str, str]], Awaitable[Foretold]],
) -> Sent | None:
    """`transact`, for a person: what the module would refuse is told first, then `foresee` says what the call would
    come to, and on a terminal it is sent only when that is confirmed. None after a dry run.

    Raises: as `transact`; Failure (77) when it is not confirmed.
    """
    request = _request(key, module, signature, *arguments, value=value)
    gas = int(await bounded(client.call("eth_estimateGas", request), options), 16)
    if options.dry_run:
        foretold = await bounded(foresee(request), options)
        show(options, foretold.lines, {"dryRun": True, "gas": gas, **foretold.members})
        return None
    if not options.yes and sys.stdin.isatty() and sys.stdout.isatty():
        foretold = await bounded(foresee(request), options)
        await _confirm(foretold.lines)
    return await transact(client, options, key, module, signature, *arguments, value=value, see=see)


def show_sent(
    options: argparse.Namespace, sent: Sent, lines: Iterable[str], members: Mapping[str, Any]
) -> None:
    """What is so after the transaction."""
    show(options, lines, {"transaction": sent.transaction, "block": sent.block, **members})


async def _confirm(lines: Sequence[str]) -> None:
    """Raises: Failure (77) for anything but yes."""
    print(*lines, "send it? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    # Not a plain read: Ctrl-C must end it, and the connection may be closed meanwhile.
    loop.add_reader(sys.stdin, answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure(Exit.PERMISSION, "not confirmed; nothing was sent")


def _request(key: bytes, module: Module, signature: str, *arguments: Any, value: int = 0) -> dict[str, str]:
    request = call_object(module, module.named(signature), *arguments)
    return request | {"from": hex_of(address_of(key)), "value": hex(value)}


async def _send(client: Client, key: bytes, module: Module, request: dict[str, str]) -> str:
    """Raises: RpcError, of which a refusal of the module is one."""
    gas, nonce, price, chain_id = [
        int(answer, 16)
        for answer in results(
            await client.batch(
                [
                    ("eth_estimateGas", [request]),
                    ("eth_getTransactionCount", [request["from"], "pending"]),
                    ("eth_gasPrice", []),
                    ("eth_chainId", []),
                ]
            )
        )
    ]
    raw = sign_transaction(
        key,
        chain_id=chain_id,
        nonce=nonce,
        gas_limit=gas,
        to=module.address,
        value=int(request["value"], 16),
        data=bytes.fromhex(request["data"].removeprefix("0x")),
        max_fee=price,
    )
    transaction_hash: str = await client.call("eth_sendRawTransaction", hex_of(raw))
    return transaction_hash
