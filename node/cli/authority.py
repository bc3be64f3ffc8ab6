"""`ctt authority`: who validates, and the validators' votes on who shall.

A client of any node's JSON-RPC: what it sends are transactions to the authority module (docs/PROTOCOL.md, A-1 to A-3).
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp

from apps.client import Client, RpcError, call_object, decode_log
from ctt_state.abi import MalformedCalldata, decode_values
from ctt_state.crypto import InvalidKey, address_of, address_of_public_key, public_key, sign_compact
from ctt_state.genesis import load_genesis
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.proposals import KEY_BYTES, ready_digest
from ctt_state.records import Change, Outcome
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, hex_of
from node.cli.governance import (
    Names,
    Proposal,
    Standing,
    decode_proposal,
    describe_change,
    describe_proposal,
    describe_standing,
    read_standing,
    results,
    summarise_standing,
)
from node.cli.init import read_genesis
from node.cli.options import address, positive_int, seconds
from node.exits import Exit, Failure
from node.keys import load_key
from rpc.errors import EXECUTION_REVERTED, REFUSED

RPC_URL: Final = "http://127.0.0.1:8545"
TIMEOUT_SECONDS: Final = 30.0

EPILOG: Final = """\
--key is the key of the account that sends the transaction: for `propose`, `vote` and `withdraw` that of the address
which the set names for a validator, in a file as `ctt key new` makes it. It is not the consensus key, unless the two
were made one, as in a development network. `ready` may be sent by anyone; what counts is --consensus-key.

examples:
  ctt authority show --genesis genesis.json
  ctt authority propose --add 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 0x02... --key account.key
  ctt authority propose --remove 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 --key account.key
  ctt authority vote 3 --key account.key
  ctt authority ready 3 --consensus-key validator.key --key account.key
  ctt authority withdraw 3 --key account.key
"""

# What the module's refusals say, by its own names for the reasons.
REFUSALS: Final = {
    "NotValidator": "{caller} is no validator in epoch {epoch}",
    "InvalidValidator": "{validator} cannot be a validator",
    "InvalidKeyLength": "the key has {bytes} bytes; it is to have {required}",
    "InvalidNodeKey": "{nodeKey} is no public key",
    "KeyBarred": "the key {nodeKey} is barred for ever, by offence {offence}",
    "KeyTaken": "the key {nodeKey} is that of validator {validator}",
    "NotMember": "{validator} is not in the latest set",
    "TooManyProposals": "{proposer} has {open} open proposals; limit {limit}",
    "UnknownProposal": "there is no proposal {proposal}; the last one is {last}",
    "ProposalClosed": "proposal {proposal} is closed: {outcome}",
    "AlreadyVoted": "{voter} has voted for proposal {proposal}",
    "AlreadyCarried": "proposal {proposal} was carried in block {height}; a majority's will is not withdrawn",
    "NotProposer": "proposal {proposal} is {proposer}'s to withdraw, not {caller}'s",
    "NoKeyProposed": "proposal {proposal} removes a validator: there is no key to show",
    "StaleReady": "block {height} was signed; it is to be one of {oldest} to {newest}",
    "InvalidReadySignature": "the signature for proposal {proposal} at block {height} is not the proposed key's",
    "InvalidLimit": "{limit} at once are asked for; limit {maximum}",
}

Command = Callable[[Client, argparse.Namespace], Coroutine[Any, Any, None]]
T = TypeVar("T")


class Wanted(NamedTuple):
    """What `propose` is to propose."""

    change: Change
    validator: Address
    consensus_key: bytes = b""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "authority",
        help="show the validators, and vote on who validates",
        description=__doc__,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = _add_command(
        commands, "show", run_show, "show the validators, the open proposals and the offences"
    )
    show.add_argument("--genesis", type=Path, metavar="FILE", help="the document that names the validators")
    show.add_argument("--json", action="store_true", help="for programs")
    propose = _add_command(
        commands, "propose", run_propose, "propose a change of the set, and be the first for it"
    )
    _add_changes(propose)
    vote = _add_command(commands, "vote", run_vote, "be for a proposal")
    ready = _add_command(
        commands, "ready", run_ready, "show that a proposed key is held and follows the chain"
    )
    ready.add_argument(
        "--consensus-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the proposed consensus key, which signs",
    )
    withdraw = _add_command(
        commands, "withdraw", run_withdraw, "take back an own proposal that is not carried"
    )
    for command in (vote, ready, withdraw):
        command.add_argument("number", type=positive_int, metavar="N", help="the proposal's number")
    for command in (propose, vote, ready, withdraw):
        command.add_argument(
            "--key", type=Path, required=True, metavar="FILE", help="the key of the account that sends"
        )


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
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
    parser.set_defaults(run=partial(_run, command))
    return parser


def _add_changes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    for option, change, metavar, text in (
        (
            "--add",
            Change.ADD,
            ("ADDRESS", "KEYHEX"),
            "a new validator with this consensus key (ctt key show)",
        ),
        ("--rotate", Change.ROTATE, ("ADDRESS", "KEYHEX"), "another consensus key for a validator"),
        ("--remove", Change.REMOVE, ("ADDRESS",), "a validator"),
    ):
        group.add_argument(
            option,
            action=_WantedAction,
            dest="wanted",
            const=change,
            nargs=len(metavar),
            metavar=metavar,
            help=text,
        )


class _WantedAction(argparse.Action):
    """Reads ADDRESS [KEYHEX]; `const` is the change."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            wanted = Wanted(self.const, address(values[0]), *map(consensus_key, values[1:]))
        except argparse.ArgumentTypeError as fault:
            raise argparse.ArgumentError(self, str(fault)) from None
        setattr(namespace, self.dest, wanted)


def consensus_key(text: str) -> bytes:
    """A compressed public key in hexadecimal, with or without 0x."""
    try:
        key = bytes.fromhex(text.removeprefix("0x"))
        address_of_public_key(key)
    except (ValueError, InvalidKey):
        key = b""
    if len(key) != KEY_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a} is no public key: 66 hexadecimal digits, as ctt key show prints them"
        )
    return key


def rpc_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is no address such as {RPC_URL}")
    return text


def _run(command: Command, options: argparse.Namespace) -> int:
    """Raises: Failure: 77 the chain refuses, 69 the node does not answer as one."""
    asyncio.run(_ask(command, options))
    return 0


async def _ask(command: Command, options: argparse.Namespace) -> None:
    try:
        async with Client(options.rpc) as client:
            await command(client, options)
    except RpcError as refusal:
        raise _explain(refusal) from None
    except (aiohttp.ClientError, json.JSONDecodeError, MalformedCalldata) as fault:
        cause = " ".join(str(fault).split())[:200] or type(fault).__name__
        raise Failure(Exit.UNAVAILABLE, f"{options.rpc} does not answer as a node: {cause}") from None


async def run_show(client: Client, options: argparse.Namespace) -> None:
    standing = await _bounded(read_standing(client), options)
    names = {} if options.genesis is None else _read_names(options.genesis, standing)
    if options.json:
        print(json.dumps(summarise_standing(standing, names), indent=2))
    else:
        print("\n".join(describe_standing(standing, names)))


async def run_propose(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (64) when what is to be added is there, or what is to get another key is not."""
    wanted: Wanted = options.wanted
    key = load_key(options.key)
    standing = await _bounded(read_standing(client), options)
    is_member = standing.latest.place_of_address(wanted.validator) is not None
    if wanted.change is Change.ADD and is_member:
        raise Failure(Exit.USAGE, f"{hex_of(wanted.validator)} is a validator; --rotate gives it another key")
    if wanted.change is Change.ROTATE and not is_member:
        raise Failure(Exit.USAGE, f"{hex_of(wanted.validator)} is no validator; --add makes it one")
    is_addition = wanted.change is not Change.REMOVE
    arguments = (wanted.validator, wanted.consensus_key, is_addition)
    events = await _transact(client, options, key, "propose(address,bytes,bool)", *arguments)
    await _tell(client, options, events["ValidatorProposed"]["proposal"])


async def run_vote(client: Client, options: argparse.Namespace) -> None:
    key = load_key(options.key)
    await _transact(client, options, key, "vote(uint256)", options.number)
    await _tell(client, options, options.number)


async def run_ready(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (78) when the file holds another key than the proposed one."""
    key, new_key = load_key(options.key), load_key(options.consensus_key)
    proposal = await _bounded(_read_proposal(client, options.number), options)
    if proposal.consensus_key and proposal.consensus_key != public_key(new_key):
        raise Failure(
            Exit.CONFIGURATION,
            f"{options.consensus_key} holds key {hex_of(public_key(new_key))}; proposal {options.number} is about "
            f"{hex_of(proposal.consensus_key)}",
        )
    standing = await _bounded(read_standing(client), options)
    digest = ready_digest(standing.genesis_hash, proposal.validator, options.number, standing.height)
    arguments = (options.number, standing.height, sign_compact(new_key, digest))
    await _transact(client, options, key, "ready(uint256,uint64,bytes)", *arguments)
    await _tell(client, options, options.number)


async def run_withdraw(client: Client, options: argparse.Namespace) -> None:
    key = load_key(options.key)
    await _transact(client, options, key, "withdraw(uint256)", options.number)
    await _tell(client, options, options.number)


# --- what is read ---------------------------------------------------------------------------------------------------


def _read_names(path: Path, standing: Standing) -> Names:
    """Of the validators of the genesis document. Raises: Failure (65) for another chain's, InvalidGenesis."""
    genesis = load_genesis(read_genesis(path))
    if genesis.hash != standing.genesis_hash:
        raise Failure(
            Exit.DAMAGED,
            f"{path} has genesis hash {hex_of(genesis.hash)}, the node's chain {hex_of(standing.genesis_hash)}",
        )
    return {each.address: each.name for each in genesis.validators}


async def _read_proposal(client: Client, number: int) -> Proposal:
    """Also one that is closed. Raises: RpcError."""
    (shown,) = await client.read(AUTHORITY, "proposal(uint256)", number)
    return decode_proposal(shown)


async def _tell(client: Client, options: argparse.Namespace, number: int) -> None:
    """How the proposal stands after what was done."""
    standing = await _bounded(read_standing(client), options)
    proposal = await _bounded(_read_proposal(client, number), options)
    if proposal.outcome is Outcome.OPEN:
        print("\n".join(describe_proposal(proposal, standing, {})))
    else:
        print(f"proposal {number}: {describe_change(proposal)}\n  {describe_outcome(proposal.outcome)}")


def describe_outcome(outcome: Outcome) -> str:
    return "overtaken by other changes" if outcome is Outcome.VOID else outcome.name.lower()


# --- what is sent ---------------------------------------------------------------------------------------------------


async def _transact(
    client: Client, options: argparse.Namespace, key: bytes, signature: str, *arguments: Any
) -> dict[str, dict[str, Any]]:
    """Calls the module by a transaction and gives its events, by name, when the block is final.

    What the module would refuse is not sent. Raises: RpcError for a refusal, Failure (69) without a block in time.
    """
    request = call_object(AUTHORITY, AUTHORITY.named(signature), *arguments)
    request["from"] = hex_of(address_of(key))
    transaction_hash = await _bounded(_send(client, key, request), options)
    print(f"sent transaction {transaction_hash}", flush=True)
    try:
        receipt = await client.receipt(transaction_hash, options.timeout)
    except TimeoutError:
        raise Failure(
            Exit.UNAVAILABLE,
            f"transaction {transaction_hash} is in no block after {options.timeout:g} s; it may still come: "
            "see ctt authority show",
        ) from None
    if receipt["status"] != "0x1":
        # What it found when its turn came was not what had been tried: the same call says what.
        await _bounded(client.call("eth_call", request, receipt["blockNumber"]), options)
        raise Failure(Exit.PERMISSION, f"transaction {transaction_hash} was refused when its turn came")
    print(f"final in block {int(receipt['blockNumber'], 16)}", flush=True)
    return dict(filter(None, (decode_log(AUTHORITY, log) for log in receipt["logs"])))


async def _send(client: Client, key: bytes, request: dict[str, str]) -> str:
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
        to=AUTHORITY.address,
        data=bytes.fromhex(request["data"].removeprefix("0x")),
        max_fee=price,
    )
    transaction_hash: str = await client.call("eth_sendRawTransaction", hex_of(raw))
    return transaction_hash


async def _bounded(work: Awaitable[T], options: argparse.Namespace) -> T:
    """Raises: Failure (69) when it takes too long."""
    try:
        async with asyncio.timeout(options.timeout):
            return await work
    except TimeoutError:
        raise Failure(
            Exit.UNAVAILABLE, f"{options.rpc} does not answer within {options.timeout:g} s"
        ) from None


def _explain(refusal: RpcError) -> Failure:
    """A refusal of the module in words, any other in the node's."""
    if refusal.code == EXECUTION_REVERTED:
        return Failure(Exit.PERMISSION, f"refused: {explain_revert(str(refusal.data), str(refusal))}")
    code = Exit.PERMISSION if refusal.code == REFUSED else Exit.UNAVAILABLE
    return Failure(code, f"the node refuses: {refusal}")


def explain_revert(data: str, otherwise: str) -> str:
    """The module's error of these bytes: its name, and what it says of its figures."""
    try:
        content = bytes.fromhex(data.removeprefix("0x"))
    except ValueError:
        return otherwise
    error = AUTHORITY.errors.get(content[:4])
    if error is None:
        return otherwise
    values = decode_values(error.params, content[4:])
    figures = {
        param.name: _readable(param.name, value) for param, value in zip(error.params, values, strict=True)
    }
    return f"{error.name}: {REFUSALS[error.name].format(**figures)}"


def _readable(name: str, value: object) -> str:
    if name == "outcome" and isinstance(value, int):
        return describe_outcome(Outcome(value))
    return hex_of(value) if isinstance(value, bytes) else str(value)
