"""`ctt run`: runs the node of a data directory until it is told to stop."""

import argparse
import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import uvloop

from ctt_state.genesis import load_genesis
from ctt_state.units import Hash, hex_of
from node import VERSION
from node.backup import offer_backups
from node.cli.cable import Cable
from node.cli.door import add_rpc_options, check_exposure, open_door
from node.cli.init import read_genesis
from node.cli.logs import add_log_options, say_failure, start_logging
from node.cli.network import join_network, load_own_identity
from node.cli.options import add_directory, named_peer, port, positive_int
from node.cli.process import prepare_process, tell_service_manager
from node.cli.settings import add_config_option, collect
from node.consensus.settings import Settings
from node.exits import Exit, Failure
from node.interpreter import settle_interpreter
from node.journal import Journal, Marks, Place, is_guarded, journal_path
from node.keys import KEY_FILE, load_key
from node.ledger import Ledger
from node.mempool import MempoolLimits
from node.metrics import NodeMetrics
from node.node import Node
from node.peering import Peering
from node.runner import DiskSilent
from node.signer import OwnKey, SignerAway, SocketSigner, VoteSigner
from node.store import Store
from p2p.identity import Identity

POOL: Final = MempoolLimits()
LISTEN_MS: Final = 2_000
GUARD_SECONDS: Final = 60
EPILOG: Final = """\
It stops cleanly on SIGTERM or Ctrl-C, at once on a second one; either way it goes on where it was.

Peers are the validators of the genesis document, at the addresses it gives, and those of --peer. They know each other
by the certificates in DIR/tls (ctt ca issue). A node whose key is in the validator set votes; any other follows.

examples:
  ctt run --dir data/node
  ctt run --dir /var/lib/ctt --p2p-host 0.0.0.0 --peer grid-2=10.0.0.2:30303
  ctt run --dir /var/lib/ctt --genesis grid.json --rpc-port 8555
  ctt run --dir data/node --rpc-hosts node.example --rpc-origins https://app.example    # behind a TLS proxy
  ctt run --dir data/node --rpc-host 0.0.0.0 --rpc-hosts node.example --rpc-tls-cert node.pem --rpc-tls-key node.key
"""

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run", help="run the node of a data directory", description=__doc__, epilog=EPILOG
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """All that a node may be told, here or by its settings."""
    add_directory(parser)
    add_config_option(parser)
    parser.settings = collect  # type: ignore[attr-defined]
    parser.add_argument(
        "--genesis", type=Path, metavar="FILE", help="refuse to run unless DIR holds this document's chain"
    )
    parser.add_argument(
        "--signer",
        type=Path,
        metavar="SOCKET",
        help="the key that votes is that of the ctt signer at this Unix socket (default: validator.key in DIR)",
    )
    add_log_options(parser)
    add_rpc_options(parser.add_argument_group("JSON-RPC"))
    _add_pool_options(parser.add_argument_group("transactions that wait"))
    _add_peer_options(parser.add_argument_group("peers"))


def _add_peer_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--p2p-host",
        metavar="HOST",
        help="where it listens (default: a validator's own address in the document)",
    )
    group.add_argument(
        "--p2p-port",
        type=port,
        metavar="PORT",
        help="default: that of the document; others do not listen without it",
    )
    group.add_argument(
        "--peer",
        type=named_peer,
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="a peer to keep in touch with, by the name in its certificate; may be repeated",
    )
    group.add_argument(
        "--guard-seconds",
        type=positive_int,
        default=GUARD_SECONDS,
        metavar="N",
        help="after a restore, for how long its key has to be silent before it votes (default: %(default)s; less only "
        "in tests)",
    )
    group.add_argument(
        "--cut-on-signal",
        action="store_true",
        help="SIGUSR1 cuts it off from its peers, SIGUSR2 lets it back: for development networks",
    )


def _add_pool_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--account-slots",
        type=positive_int,
        default=POOL.ordinary_places,
        metavar="N",
        help="transactions of one ordinary sender in the pool (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    start_logging(options)
    check_exposure(options)
    prepare_process()
    expected = load_genesis(read_genesis(options.genesis)).hash if options.genesis else None
    ledger = _open_ledger(options.dir, expected)
    try:
        signer = _find_signer(options, ledger.genesis.hash)
        key = None if signer is None else signer.public_key
        identity = load_own_identity(options.dir, ledger, key)
        if os.geteuid() == 0:
            log.warning("running as root: a user of its own would be safer")
        journal = (
            None
            if key is None
            else _open_journal(options.dir, ledger, key, has_signer=options.signer is not None)
        )
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(options, ledger, signer, journal, identity))
        finally:
            if journal is not None:
                journal.close()
    except DiskSilent as failure:
        _leave_at_once(options, failure)
    finally:
        ledger.close()
    return 0


def _find_signer(options: argparse.Namespace, genesis_hash: Hash) -> VoteSigner | None:
    """Raises: Failure: 69 no signer answers, 78 for two of them, and those of `load_key`."""
    path = options.dir / KEY_FILE
    if options.signer is None:
        return OwnKey(load_key(path), genesis_hash) if os.path.lexists(path) else None
    if os.path.lexists(path):
        raise Failure(
            Exit.CONFIGURATION, f"{path}: with --signer the key is the signer's; take it away from here"
        )
    try:
        return SocketSigner(options.signer, genesis_hash)
    except SignerAway as away:
        raise Failure(Exit.UNAVAILABLE, f"no signer at {away}; ctt signer run is one") from None


def _leave_at_once(options: argparse.Namespace, failure: Failure) -> NoReturn:
    """Without closing the store or joining the thread that hangs in it."""
    say_failure(options, failure)
    os._exit(failure.exit_code)


def _open_ledger(directory: Path, expected: Hash | None) -> Ledger:
    store = Store.open(directory, expected)
    try:
        return Ledger(store)
    except BaseException:
        store.close()
        raise


def _open_journal(directory: Path, ledger: Ledger, key: bytes, *, has_signer: bool) -> Journal:
    """After a restore it begins here, and the engine's guard keeps it from votes; likewise of a key that is a signer's,
    whose own journal does."""
    header, genesis_hash = ledger.head.block.header, ledger.genesis.hash
    if (is_guarded(directory) or has_signer) and not journal_path(directory).exists():
        marks = Marks(floor=Place(header.epoch, header.view), height=header.height)
        Journal.create(directory, genesis_hash, key, marks)
    final = header.epoch, header.view, header.height
    return Journal.open(directory, genesis_hash, key, final)


async def _run(
    options: argparse.Namespace,
    ledger: Ledger,
    signer: VoteSigner | None,
    journal: Journal | None,
    identity: Identity | None,
) -> None:
    slots = options.account_slots
    limits = replace(POOL, ordinary_places=slots, meter_places=max(slots, POOL.meter_places))
    peering = None if identity is None else Peering(ledger)
    settings = Settings(
        ledger.chain.block_period_ms,
        listen_ms=0 if is_clean(journal) else LISTEN_MS,
        guard_ms=options.guard_seconds * 1_000 if is_guarded(options.dir) else 0,
    )
    node = Node(ledger, journal=journal, signer=signer, limits=limits, outside=peering, settings=settings)
    key = None if signer is None else signer.public_key
    cable = Cable()
    if options.cut_on_signal:
        cable.heed_signals()
    _stop_on_signals(node)
    settle_interpreter()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_door(options, node))
        server.metrics.register(NodeMetrics(node, None if identity is None else identity.expires))
        height = node.head.block.header.height
        log.info(
            "chain %(chain)d at block %(height)d, JSON-RPC at %(url)s",
            {"chain": ledger.chain.chain_id, "height": height, "url": server.url, "version": VERSION},
        )
        _say_role(ledger, key, height)
        if why := node.not_voting():
            log.warning("%(reason)s", {"reason": why})
        await stack.enter_async_context(offer_backups(ledger.store, key or b""))
        if identity is not None and peering is not None:
            await stack.enter_async_context(join_network(options, ledger, node, peering, identity, cable))
        pulse = asyncio.create_task(node.pulse.run())
        stack.callback(pulse.cancel)
        tell_service_manager("READY=1")
        await node.run()
    if journal is not None:
        journal.note_clean()
    log.info("stopped at block %(height)d", {"height": node.head.block.header.height})


def is_clean(journal: Journal | None) -> bool:
    """After a crash a validator first listens whether somebody else votes with its key."""
    return journal is None or journal.was_clean


def _say_role(ledger: Ledger, key: bytes | None, height: int) -> None:
    if key is None:
        log.info("no key: this node follows, and never votes")
    elif ledger.next_validators().place_of_key(key) is None:
        log.info(
            "key %(key)s is not a validator at height %(height)d: following",
            {"key": hex_of(key), "height": height},
        )


def _stop_on_signals(node: Node) -> None:
    """The first asks the node to stop; the second ends the process, which loses nothing that was final."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        log.info("stopping")
        tell_service_manager("STOPPING=1")
        node.stop()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, stop)
