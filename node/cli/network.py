"""How `ctt run` joins its network: who this node is, where it listens, whom it dials."""

import argparse
import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from ctt_state.genesis import Genesis, Validator
from ctt_state.units import hex_of
from node.cli.ca import TLS
from node.cli.cable import Cable
from node.cli.certificates import identity_failure
from node.exits import Exit, Failure
from node.ledger import Ledger
from node.node import Node
from node.peering import Peering
from node.runner import read_clocks
from p2p.identity import Identity, IdentityError, load_identity
from p2p.network import Chain, Endpoint, Network

REVOKED_SECONDS: Final = 60.0
EXPIRY_DAYS: Final = 30  # from then on each start warns

log = logging.getLogger(__name__)


def load_own_identity(directory: Path, ledger: Ledger, key: bytes | None) -> Identity | None:
    """The certificate in the data directory; None for the only validator of a chain that has none. `key` is the public
    one of the node's votes.

    Raises: Failure: 66 missing, 77 open to others, 65 not usable, 78 another validator's.
    """
    is_alone = key is not None and ledger.next_validators().keys == (key,)
    if is_alone and not (directory / TLS).exists():
        return None
    return load_node_identity(directory, ledger.genesis, key)


def load_node_identity(directory: Path, genesis: Genesis, key: bytes | None) -> Identity:
    """The certificate in the data directory.

    Raises: Failure: 66 missing, 77 open to others, 65 not usable, 78 another validator's.
    """
    tls = directory / TLS
    if not tls.exists():
        raise Failure(
            Exit.MISSING,
            f"{tls}: no certificate to show to peers; whoever has the consortium's authority makes one: "
            f"ctt ca issue --dir CA --out {tls} --name NAME",
        )
    now = datetime.now(UTC)
    try:
        identity = load_identity(tls, now)
    except IdentityError as fault:
        raise identity_failure(fault) from None
    days = identity.expires_in_days(now)
    if days < EXPIRY_DAYS:
        log.warning(
            "the certificate in %(path)s ends in %(days)d days; issue a new one", {"path": tls, "days": days}
        )
    _check_address(tls, identity, genesis, key)
    return identity


def _check_address(tls: Path, identity: Identity, genesis: Genesis, key: bytes | None) -> None:
    """A validator's certificate names its own address. Raises: Failure (78)."""
    validator = _own_validator(genesis, key)
    if validator is not None and identity.own.validator != validator.address:
        named = "no validator" if identity.own.validator is None else hex_of(identity.own.validator)
        raise Failure(
            Exit.CONFIGURATION,
            f"{tls}: the certificate names {named}, the key in this directory votes for {hex_of(validator.address)}",
        )


def _own_validator(genesis: Genesis, key: bytes | None) -> Validator | None:
    """The member of the genesis document with this consensus key."""
    return next((each for each in genesis.validators if each.consensus_key == key), None)


@asynccontextmanager
async def join_network(
    options: argparse.Namespace,
    ledger: Ledger,
    node: Node,
    peering: Peering,
    identity: Identity,
    cable: Cable,
) -> AsyncIterator[None]:
    """Listens and keeps dialling while the context lasts and the cable is whole.

    Raises: Failure (69, 77) when it cannot listen.
    """
    genesis = ledger.genesis
    peers = {each.name: [_endpoint(each.peer)] for each in genesis.validators}
    peers |= {name: [Endpoint(host, number)] for name, host, number in options.peer}
    network = Network(
        identity,
        Chain(ledger.chain.chain_id, genesis.hash),
        peers,
        peering,
        listen=_listening(options, peers.get(identity.own.name)),
        height=lambda: node.head.block.header.height,
        now_ms=lambda: read_clocks().mono_ms,
        rng=Random(secrets.randbits(128)),
    )
    peering.join(node, network)
    try:
        where = network.bind()
    except OSError as fault:
        code = Exit.PERMISSION if isinstance(fault, PermissionError) else Exit.UNAVAILABLE
        raise Failure(
            code,
            f"cannot listen for peers on {_listening(options, peers.get(identity.own.name))}: {fault.strerror}",
        ) from None
    log.info(
        "%(node)s, peers at %(address)s",
        {"node": identity.own.name, "address": where or "nowhere: it only dials"},
    )
    work = (cable.keep(network.run), peering.run(), keep_revoked(identity, network))
    tasks = [supervised(each, node) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep_revoked(identity: Identity, network: Network) -> None:
    """Looks at the list of revoked certificates each minute, and parts with peers that are on it."""
    while True:
        await asyncio.sleep(REVOKED_SECONDS)
        try:
            identity.reload()
        except IdentityError as fault:
            log.error("%(reason)s; the certificates revoked before stay revoked", {"reason": fault})
        else:
            network.drop_revoked()


def supervised(work: Coroutine[None, None, None], node: Node) -> "asyncio.Task[None]":
    """Its end before ours is a mistake of ours, which ends the node."""
    task = asyncio.ensure_future(work)

    def on_done(done: "asyncio.Future[None]") -> None:
        if not done.cancelled():
            node.runner.fail(done.exception() or RuntimeError("the network ended"))

    task.add_done_callback(on_done)
    return task


def _listening(options: argparse.Namespace, own: list[Endpoint] | None) -> Endpoint | None:
    """Where to listen: as told, else at a validator's own address in the genesis document."""
    if options.p2p_port is None and own is None:
        return None
    host, number = own[0] if own else Endpoint("127.0.0.1", 0)
    return Endpoint(options.p2p_host or host, options.p2p_port or number)


def _endpoint(peer: str) -> Endpoint:
    host, _, number = peer.rpartition(":")
    return Endpoint(host.strip("[]"), int(number))
