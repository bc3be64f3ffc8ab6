"""`ctt access`: API tokens, by which a node's JSON-RPC tells meters, platforms and operators from the public."""

import argparse
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from node.cli.ca import node_name
from node.cli.certificates import identity_failure
from node.cli.options import add_directory, add_leaf, day
from node.cli.output import columns, show
from node.datadir import replace_file
from node.exits import Exit, Failure
from p2p.identity import IdentityError, read_file
from rpc.access import ROLES, TOKEN_PREFIX, TOKENS_MAX, Token, hash_token, read_tokens, write_token

TOKENS_FILE: Final = "rpc-tokens"  # in the data directory
HEADER: Final = (
    "# API tokens of this node's JSON-RPC: SHA-256, role, name, the day it expires. See ctt access --help.\n"
)
EPILOG: Final = """\
A client sends its token with each request, and with the upgrade to a WebSocket: 'Authorization: Bearer TOKEN'. The
node keeps hashes only, so a token is shown once. A running node follows within seconds. From the first token on, who
shows none is the public, programs on the node's machine too.

roles, each with all of those before it:
  public     reads, and sends signed transactions
  meter      meters and concentrators: places are kept for them while others flood the node
  platform   asks for many users, with a larger quota
  operator   all methods, without a quota, with places of its own

examples:
  ctt access create --dir data/node --role meter --name street-7
  ctt access create --dir data/node --role platform --name exchange --expires 2030-01-01
  ctt access list --dir data/node
  ctt access revoke --dir data/node exchange
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "access", help="make and revoke API tokens of a node", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = add_leaf(commands, "create", run_create, "make a token, and show it once")
    create.add_argument("--role", choices=tuple(ROLES), required=True)
    create.add_argument("--name", type=node_name, required=True, help="whose it is; no two have the same")
    create.add_argument(
        "--expires", type=day, metavar="DATE", help="the day on which it is good no more (UTC)"
    )
    listed = add_leaf(commands, "list", run_list, "show name, role and end of each token")
    revoke = add_leaf(commands, "revoke", run_revoke, "accept a token no more")
    revoke.add_argument("name", metavar="NAME")
    for command in (create, listed, revoke):
        add_directory(command)


def run_create(options: argparse.Namespace) -> int:
    if options.expires is not None and options.expires <= _today():
        raise Failure(Exit.USAGE, f"--expires {options.expires} is no day to come")
    secret = TOKEN_PREFIX + secrets.token_hex(32)
    token = Token(hash_token(secret), ROLES[options.role], options.name, options.expires)
    with _locked(options.dir):
        tokens = load_tokens(options.dir) or []
        if any(each.name == token.name for each in tokens):
            raise Failure(
                Exit.CANNOT_CREATE,
                f"there is a token {token.name} already; revoke it, or choose another name",
            )
        if len(tokens) == TOKENS_MAX:
            raise Failure(Exit.CANNOT_CREATE, f"there are {TOKENS_MAX:,} tokens; revoke some")
        _save(options.dir, [*tokens, token])
    show(options, [secret], {"token": secret, **_members(token)})
    return 0


def run_list(options: argparse.Namespace) -> int:
    today, members = _today(), []
    table = columns("role", "state", "expires", "name")
    for token in load_tokens(options.dir) or ():
        state = "expired" if token.is_expired(today) else "valid"
        table.add_row(token.role.name.lower(), state, str(token.expires or "never"), token.name)
        members.append({**_members(token), "state": state})
    show(options, table, members)
    return 0


def _members(token: Token) -> dict[str, str | None]:
    expires = None if token.expires is None else str(token.expires)
    return {"role": token.role.name.lower(), "name": token.name, "expires": expires}


def run_revoke(options: argparse.Namespace) -> int:
    with _locked(options.dir):
        tokens = load_tokens(options.dir) or []
        kept = [token for token in tokens if token.name != options.name]
        if len(kept) == len(tokens):
            raise Failure(Exit.MISSING, f"{options.name[:80]!a} is the name of no token; see ctt access list")
        _save(options.dir, kept)
    show(options, [f"{options.name}: revoked"], {"name": options.name, "revoked": True})
    return 0


def load_tokens(directory: Path) -> list[Token] | None:
    """The list in the data directory; None where there is none.

    Raises: Failure: 77 open to others or not readable, 65 damaged.
    """
    path = directory / TOKENS_FILE
    if not os.path.lexists(path):
        return None
    try:
        content = read_file(path, is_private=True)
        return read_tokens(content.decode())
    except IdentityError as fault:
        raise identity_failure(fault) from None
    except ValueError as fault:
        raise Failure(Exit.DAMAGED, f"{path}: {fault}") from None


def _today() -> date:
    return datetime.now(UTC).date()


def _save(directory: Path, tokens: Sequence[Token]) -> None:
    path = directory / TOKENS_FILE
    try:
        replace_file(path, (HEADER + "".join(map(write_token, tokens))).encode())
    except OSError as fault:
        raise Failure(Exit.STORAGE, f"{path}: cannot write it: {fault.strerror}") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Of two commands at once the second waits, so that neither undoes what the other did. Raises: Failure."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise Failure(Exit.MISSING, f"{directory}: no data directory: {fault.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
