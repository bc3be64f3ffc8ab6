"""`ctt key`: keys in files of their own, bare or under a password."""

import argparse
from functools import partial
from pathlib import Path
from typing import Final

from ctt_state.crypto import address_of, public_key
from ctt_state.units import hex_of
from node.cli.options import add_leaf
from node.cli.output import columns, labelled, show
from node.exits import Exit, Failure
from node.keys import (
    create_key,
    create_key_file,
    load_key,
    make_key,
    read_key_file,
    replace_key_file,
)
from node.keystore import address_in, encrypt_key, is_keystore, new_password

EPILOG: Final = """\
A key file holds the bare key, or is a keystore (version 3) as wallets write them, whose password is asked for or read
from a file. What is printed is public: what the genesis document says of a validator, and an account's address. Two
nodes with one key sign against each other: never copy it to a machine while another runs with it.

examples:
  ctt key new validator.key                   # a bare key, readable by you only
  ctt key new home.json --keystore            # under a password, asked for twice
  ctt key show validator.key --json
  ctt key import home.json --from home.key    # a copy under a password; then home.key can go
  ctt key export home.json --to home.key
  ctt key change home.json                    # another password
  ctt key list keys/
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "key", help="make, show, keep and move keys", description=__doc__, epilog=EPILOG
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(add_leaf, commands)
    new = add("new", run_new, "make a key, and print its public part")
    new.add_argument("--keystore", action="store_true", help="under a password (default: bare)")
    shown = add("show", run_show, "print the public part of a key")
    shown.add_argument("--address", action="store_true", help="print the address alone, as a shell wants it")
    imported = add("import", run_import, "copy a key into a new keystore")
    imported.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="bare, or a keystore"
    )
    export = add("export", run_export, "copy a keystore's key into a new file, bare")
    export.add_argument("--to", type=Path, required=True, metavar="FILE")
    change = add("change", run_change, "give a keystore another password")
    for command in (new, shown, imported, export, change):
        command.add_argument("file", type=Path, metavar="FILE")
    for command in (shown, imported, export, change):
        command.add_argument(
            "--password-file", type=Path, metavar="FILE", help="of the keystore that is read"
        )
    for command in (new, imported, change):
        command.add_argument(
            "--new-password-file", type=Path, metavar="FILE", help="of the keystore that is written"
        )

    listed = add("list", run_list, "list the keys in a directory: address, kind, file")
    listed.add_argument("directory", type=Path, metavar="DIR")


def run_new(options: argparse.Namespace) -> int:
    key = make_key()
    if options.keystore:
        create_key_file(options.file, encrypt_key(key, new_password(options.file, options.new_password_file)))
    else:
        create_key(options.file, key)
    return _show(options, key)


def run_show(options: argparse.Namespace) -> int:
    key = load_key(options.file, options.password_file)
    if options.address and not options.json:
        print(hex_of(address_of(key)))
        return 0
    return _show(options, key)


def run_import(options: argparse.Namespace) -> int:
    key = load_key(options.source, options.password_file)
    create_key_file(options.file, encrypt_key(key, new_password(options.file, options.new_password_file)))
    return _show(options, key)


def run_export(options: argparse.Namespace) -> int:
    key = load_key(options.file, options.password_file)
    create_key(options.to, key)
    return _show(options, key)


def run_change(options: argparse.Namespace) -> int:
    """Raises: Failure (65) for a bare key: it has no password to change."""
    if not is_keystore(read_key_file(options.file)):
        raise Failure(
            Exit.DAMAGED,
            f"{options.file} is no keystore; ctt key import FILE --from {options.file} makes one of it",
        )
    key = load_key(options.file, options.password_file)
    replace_key_file(options.file, encrypt_key(key, new_password(options.file, options.new_password_file)))
    return _show(options, key)


def run_list(options: argparse.Namespace) -> int:
    """Raises: Failure (66) for what is no directory."""
    try:
        files = sorted(
            each for each in options.directory.iterdir() if each.is_file() and not each.is_symlink()
        )
    except OSError as fault:
        raise Failure(Exit.MISSING, f"{options.directory}: {fault.strerror}") from None
    rows = [row for row in map(_describe, files) if row]
    table = columns("address", "kind", "file")
    for row in rows:
        table.add_row(*row.values())
    show(options, table, rows)
    return 0


def _describe(path: Path) -> dict[str, str] | None:
    """None for what is no key of ours to read."""
    try:
        text = read_key_file(path)
        if is_keystore(text):
            address, kind = address_in(text), "keystore"
        else:
            address, kind = hex_of(address_of(load_key(path))), "bare"
    except Failure:
        return None
    return {"address": address, "kind": kind, "file": str(path)} if address else None


def _show(options: argparse.Namespace, key: bytes) -> int:
    address, consensus_key = hex_of(address_of(key)), hex_of(public_key(key))
    lines = labelled({"address": address, "consensus key": consensus_key})
    show(options, lines, {"address": address, "consensusKey": consensus_key})
    return 0
