"""`ctt ca`: the consortium's certificate authority, which decides whose nodes may join the network."""

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from ctt_state.units import Address, hex_of
from node.cli.certificates import (
    Authority,
    create_authority,
    describe_validator,
    identity_failure,
    open_authority,
)
from node.cli.entry import read_entry
from node.cli.options import add_leaf, address, positive_int
from node.cli.output import columns, show
from node.exits import Exit, Failure
from p2p.identity import (
    CA_FILE,
    NAME,
    REVOKED_FILE,
    IdentityError,
    PeerIdentity,
    read_identity,
    show_serial,
)

CA_DAYS: Final = 3_650
NODE_DAYS: Final = 365
DAYS_MAX: Final = 36_500
TLS: Final = "tls"  # in a node's data directory
AUTHORITY_NAME: Final = "Crypto-Trading Consortium"

EPILOG: Final = """\
Keep CA off every node, best off every network: its key lets anyone in. A node needs the directory that `issue` makes
as DIR/tls, and a new copy of revoked.txt after each `revoke`.

examples:
  ctt ca init --dir ca
  ctt ca issue --dir ca --out /var/lib/ctt/tls --name validator-1 --validator 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20
  ctt ca issue --dir ca --out grid-1/tls --entry grid-1.json    # of ctt genesis validator
  ctt ca issue --dir ca --out follower/tls --name follower-1
  ctt ca list --dir ca
  ctt ca revoke --dir ca validator-1
"""

Command = Callable[[argparse.Namespace], int]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "ca", help="make and revoke the certificates of nodes", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = _add_command(commands, "init", run_init, "make an authority: a key and a certificate")
    create.add_argument("--name", type=authority_name, default=AUTHORITY_NAME, help="default: %(default)s")
    _add_days(create, CA_DAYS)
    issue = _add_command(commands, "issue", run_issue, "make a node's key and certificate")
    issue.add_argument("--out", type=Path, required=True, metavar="DIR/tls", help="made; it may not exist")
    named = issue.add_mutually_exclusive_group(required=True)
    named.add_argument("--name", type=node_name, help="of the node, such as validator-1")
    named.add_argument("--entry", type=Path, metavar="FILE", help="a validator's, with name and address")
    issue.add_argument(
        "--validator", type=address, metavar="ADDRESS", help="its address in the set of validators"
    )
    _add_days(issue, NODE_DAYS)
    _add_command(commands, "list", run_list, "show all certificates")
    revoke = _add_command(commands, "revoke", run_revoke, "trust a certificate, or all of a name, no more")
    revoke.add_argument("which", metavar="SERIAL|NAME")


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Command, text: str
) -> argparse.ArgumentParser:
    parser = add_leaf(commands, name, partial(_run, run), text)
    parser.add_argument("--dir", type=Path, required=True, metavar="CA", help="the authority's directory")
    return parser


def _add_days(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--days", type=days, default=default, metavar="N", help="how long it is valid (default: %(default)s)"
    )


def _run(command: Command, options: argparse.Namespace) -> int:
    try:
        return command(options)
    except IdentityError as fault:
        raise identity_failure(fault) from None


def run_init(options: argparse.Namespace) -> int:
    authority = create_authority(options.dir, options.name, now=_now(), days=options.days)
    end, path = f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}", options.dir / CA_FILE
    members = {"file": str(path), "name": options.name, "validUntil": end}
    show(options, [f"{path}: {options.name}, valid until {end}"], members)
    return 0


def run_issue(options: argparse.Namespace) -> int:
    name, validator = _subject(options)
    authority = open_authority(options.dir)
    certificate = authority.issue(options.out, name, validator, now=_now(), days=options.days)
    peer, end = read_identity(certificate), f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    text = (
        f"{options.out}: {peer.name}, {describe_validator(peer.validator)}, "
        f"serial number {show_serial(peer.serial)}, valid until {end}"
    )
    show(options, [text], {"directory": str(options.out), **_members(peer), "validUntil": end})
    return 0


def _subject(options: argparse.Namespace) -> tuple[str, Address | None]:
    """Raises: Failure: 64 for an address beside an entry, 65 for a name that no certificate bears; as `read_entry`."""
    if options.entry is None:
        return options.name, options.validator
    if options.validator is not None:
        raise Failure(Exit.USAGE, "--entry names the validator: say either --entry or --validator")
    entry = read_entry(options.entry)
    try:
        return node_name(entry.name), entry.address
    except argparse.ArgumentTypeError as fault:
        raise Failure(Exit.DAMAGED, f"{options.entry}: {fault}") from None


def run_list(options: argparse.Namespace) -> int:
    now, members = _now(), []
    table = columns("serial", "state", "valid until", "name", "validator")
    for one in open_authority(options.dir).issued():
        state = "revoked" if one.is_revoked else "expired" if one.expires < now else "valid"
        peer, end = one.identity, f"{one.expires:%Y-%m-%d}"
        table.add_row(show_serial(peer.serial), state, end, peer.name, describe_validator(peer.validator))
        members.append({**_members(peer), "state": state, "validUntil": end})
    show(options, table, members)
    return 0


def run_revoke(options: argparse.Namespace) -> int:
    revoked = open_authority(options.dir).revoke(options.which, _now())
    lines = [f"{show_serial(peer.serial)}: revoked, {peer.name}" for peer in revoked]
    path = options.dir / REVOKED_FILE
    done = [
        *(lines or [f"{options.which}: revoked already"]),
        f"copy {path} to the tls directory of every node",
    ]
    show(options, done, {"revoked": [_members(peer) for peer in revoked], "file": str(path)})
    return 0


def _members(peer: PeerIdentity) -> dict[str, str | None]:
    validator = None if peer.validator is None else hex_of(peer.validator)
    return {"serial": show_serial(peer.serial), "name": peer.name, "validator": validator}


def issue_development(directory: Path, members: Sequence[tuple[str, Address | None]]) -> None:
    """An authority in `directory`/ca, and for each name an identity in `directory`/NAME/tls, where there is none yet.

    Raises: Failure.
    """
    try:
        authority = _development_authority(directory / "ca")
        for name, validator in members:
            out = directory / name / TLS
            if not out.exists():
                authority.issue(out, name, validator, now=_now(), days=NODE_DAYS)
    except IdentityError as fault:
        raise identity_failure(fault) from None


def _development_authority(directory: Path) -> Authority:
    if (directory / CA_FILE).exists():
        return open_authority(directory)
    return create_authority(directory, AUTHORITY_NAME, now=_now(), days=CA_DAYS)


def _now() -> datetime:
    return datetime.now(UTC)


# How values are read


def days(text: str) -> int:
    count = positive_int(text)
    if count > DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{count} days are more than {DAYS_MAX}")
    return count


def node_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a} is no name: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return text


def authority_name(text: str) -> str:
    if not (0 < len(text) <= 64 and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text[:80]!a} is no name: 1 to 64 printable characters")
    return text
