"""`ctt authority`: who validates, and the validators' votes on who shall.

A client of any node's JSON-RPC: what it sends are transactions to the authority module (docs/PROTOCOL.md, A-1 to A-3).
"""

import argparse
import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from apps.client import Client
from ctt_state.crypto import InvalidKey, address_of_public_key, public_key, sign_compact
from ctt_state.genesis import load_genesis
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.proposals import KEY_BYTES, ready_digest
from ctt_state.records import Change, Outcome
from ctt_state.units import Address, hex_of
from node.cli.entry import read_entry
from node.cli.governance import (
    Names,
    Proposal,
    Standing,
    decode_proposal,
    describe_change,
    describe_proposal,
    describe_standing,
    read_standing,
    summarise_proposal,
    summarise_standing,
)
from node.cli.init import read_genesis
from node.cli.options import address, positive_int
from node.cli.output import show
from node.cli.transact import (
    Refusals,
    Sent,
    add_command,
    add_key,
    bounded,
    key_of,
    plain,
    show_sent,
    transact,
)
from node.exits import Exit, Failure
from node.keys import load_key

WAIT_SECONDS: Final = 1.0
SEE: Final = "ctt authority show"
EPILOG: Final = """\
--key is the key of the account that sends the transaction: for `propose`, `vote` and `withdraw` that of the address
which the set names for a validator, in a file as `ctt key new` makes it. It is not the consensus key, unless the two
were made one, as in a development network. `ready` may be sent by anyone; what counts is --consensus-key.

examples:
  ctt authority show --genesis genesis.json
  ctt authority propose --add 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 \\
      0x0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798 --key account.key
  ctt authority propose --add grid-5.json --key account.key    # of ctt genesis validator
  ctt authority propose --remove 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 --key account.key
  ctt authority vote 3 --key account.key
  ctt authority ready 3 --consensus-key validator.key --key account.key
  ctt authority wait 3
  ctt authority withdraw 3 --key account.key
"""


def describe_outcome(outcome: Outcome) -> str:
    return "overtaken by other changes" if outcome is Outcome.VOID else outcome.name.lower()


def _readable(name: str, value: object) -> str:
    return (
        describe_outcome(Outcome(value))
        if name == "outcome" and isinstance(value, int)
        else plain(name, value)
    )


REFUSALS: Final = Refusals(
    {
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
    },
    _readable,
)


class Wanted(NamedTuple):
    """What `propose` is to propose."""

    change: Change
    validator: Address
    consensus_key: bytes = b""


class WantedEntry(NamedTuple):
    """The same, of a validator whose address and key are in a file."""

    change: Change
    path: Path

    def read(self) -> Wanted:
        """Raises: as `read_entry`."""
        entry = read_entry(self.path)
        return Wanted(
            self.change, entry.address, b"" if self.change is Change.REMOVE else entry.consensus_key
        )


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "authority",
        help="show the validators, and vote on who validates",
        description=__doc__,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_command, commands, refusals=REFUSALS)
    shown = add("show", run_show, "show the validators, the open proposals and the offences")
    shown.add_argument("--genesis", type=Path, metavar="FILE", help="the document that names the validators")
    propose = add("propose", run_propose, "propose a change of the set, and be the first for it")
    _add_changes(propose)
    vote = add("vote", run_vote, "be for a proposal")
    ready = add("ready", run_ready, "show that a proposed key is held and follows the chain")
    ready.add_argument(
        "--consensus-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the proposed consensus key, which signs",
    )
    withdraw = add("withdraw", run_withdraw, "take back an own proposal that is not carried")
    wait = add("wait", run_wait, "wait until a proposal's change is in force, however long it takes")
    for command in (vote, ready, withdraw, wait):
        command.add_argument("number", type=positive_int, metavar="N", help="the proposal's number")
    for command in (propose, vote, ready, withdraw):
        add_key(command)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    for option, change, text in (
        ("--add", Change.ADD, "a new validator with this consensus key"),
        ("--rotate", Change.ROTATE, "another consensus key for a validator"),
        ("--remove", Change.REMOVE, "a validator"),
    ):
        group.add_argument(
            option,
            action=_WantedAction,
            dest="wanted",
            const=change,
            nargs=1 if change is Change.REMOVE else "+",
            metavar="ENTRY|ADDRESS" if change is Change.REMOVE else ("ENTRY|ADDRESS", "KEYHEX"),
            help=text,
        )


class _WantedAction(argparse.Action):
    """Reads ADDRESS [KEYHEX], or the name of an entry's file; `const` is the change."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if len(values) == 1 and not values[0].startswith("0x"):
            setattr(namespace, self.dest, WantedEntry(self.const, Path(values[0])))
            return
        if len(values) != (1 if self.const is Change.REMOVE else 2):
            raise argparse.ArgumentError(self, "expected ADDRESS KEYHEX, or a file of ctt genesis validator")
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


async def run_show(client: Client, options: argparse.Namespace) -> None:
    standing = await bounded(read_standing(client), options)
    names = {} if options.genesis is None else _read_names(options.genesis, standing)
    show(options, describe_standing(standing, names), summarise_standing(standing, names))


async def run_propose(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (64) when what is to be added is there, or what is to get another key is not."""
    wanted = options.wanted.read() if isinstance(options.wanted, WantedEntry) else options.wanted
    key = key_of(options)
    standing = await bounded(read_standing(client), options)
    is_member = standing.latest.place_of_address(wanted.validator) is not None
    if wanted.change is Change.ADD and is_member:
        raise Failure(Exit.USAGE, f"{hex_of(wanted.validator)} is a validator; --rotate gives it another key")
    if wanted.change is Change.ROTATE and not is_member:
        raise Failure(Exit.USAGE, f"{hex_of(wanted.validator)} is no validator; --add makes it one")
    is_addition = wanted.change is not Change.REMOVE
    arguments = (wanted.validator, wanted.consensus_key, is_addition)
    sent = await transact(client, options, key, AUTHORITY, "propose(address,bytes,bool)", *arguments, see=SEE)
    await _tell(client, options, sent, sent.events["ValidatorProposed"]["proposal"])


async def run_vote(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    sent = await transact(client, options, key, AUTHORITY, "vote(uint256)", options.number, see=SEE)
    await _tell(client, options, sent, options.number)


async def run_ready(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (78) when the file holds another key than the proposed one."""
    key, new_key = key_of(options), load_key(options.consensus_key)
    proposal = await bounded(_read_proposal(client, options.number), options)
    if proposal.consensus_key and proposal.consensus_key != public_key(new_key):
        raise Failure(
            Exit.CONFIGURATION,
            f"{options.consensus_key} holds key {hex_of(public_key(new_key))}; proposal {options.number} is about "
            f"{hex_of(proposal.consensus_key)}",
        )
    standing = await bounded(read_standing(client), options)
    digest = ready_digest(standing.genesis_hash, proposal.validator, options.number, standing.height)
    arguments = (options.number, standing.height, sign_compact(new_key, digest))
    call = "ready(uint256,uint64,bytes)"
    sent = await transact(client, options, key, AUTHORITY, call, *arguments, see=SEE)
    await _tell(client, options, sent, options.number)


async def run_withdraw(client: Client, options: argparse.Namespace) -> None:
    key = key_of(options)
    sent = await transact(client, options, key, AUTHORITY, "withdraw(uint256)", options.number, see=SEE)
    await _tell(client, options, sent, options.number)


async def run_wait(client: Client, options: argparse.Namespace) -> None:
    """Raises: Failure (77) when the proposal is closed without its change."""
    while True:
        standing = await bounded(read_standing(client), options)
        proposal = await bounded(_read_proposal(client, options.number), options)
        if proposal.outcome not in (Outcome.OPEN, Outcome.APPLIED):
            outcome = describe_outcome(proposal.outcome)
            raise Failure(Exit.PERMISSION, f"proposal {options.number} is closed: {outcome}")
        if proposal.outcome is Outcome.APPLIED and standing.epoch.fixing_height > proposal.closed_height:
            break
        await asyncio.sleep(WAIT_SECONDS)
    epoch, height = standing.epoch.number, standing.height
    lines = [
        f"proposal {options.number}: {describe_change(proposal)}",
        f"  in force at block {height}, in epoch {epoch}",
    ]
    show(options, lines, {"proposal": options.number, "epoch": epoch, "height": height})


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


async def _tell(client: Client, options: argparse.Namespace, sent: Sent, number: int) -> None:
    """How the proposal stands after what was done."""
    standing = await bounded(read_standing(client), options)
    proposal = await bounded(_read_proposal(client, number), options)
    outcome = describe_outcome(proposal.outcome)
    closed = [f"proposal {number}: {describe_change(proposal)}", f"  {outcome}"]
    is_open = proposal.outcome is Outcome.OPEN
    lines = describe_proposal(proposal, standing, {}) if is_open else closed
    members = {"proposal": summarise_proposal(proposal, standing) | {"outcome": outcome}}
    show_sent(options, sent, lines, members)
