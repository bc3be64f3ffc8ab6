"""How `ctt run` opens JSON-RPC: where it listens, with which certificate, for whom."""

import argparse
import asyncio
import errno
import ipaddress
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from apps.explorer import load_pages
from node.cli.access import TOKENS_FILE, load_tokens
from node.cli.certificates import identity_failure
from node.cli.network import supervised
from node.cli.options import host_names, origins, port, positive_int, quota
from node.cli.transact import rpc_url
from node.exits import Exit, Failure
from node.node import Node
from p2p.identity import IdentityError, read_file
from rpc.access import QUOTAS, ROLES, AccessRules
from rpc.server import RpcServer, ServerConfig, ServerLimits, Tls, serve

DOOR: Final = ServerLimits()
LOOK_SECONDS: Final = 2.0  # how often the list of tokens is looked at
WARNING_DAYS: Final = 30
ERROR_DAYS: Final = 3

log = logging.getLogger(__name__)


def add_rpc_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rpc-host", default="127.0.0.1", metavar="HOST", help="where it listens (default: %(default)s)"
    )
    group.add_argument(
        "--rpc-port",
        type=port,
        default=8545,
        metavar="PORT",
        help="HTTP and WebSocket (default: %(default)s)",
    )
    group.add_argument(
        "--explorer",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="serve the explorer's pages to browsers",
    )
    group.add_argument(
        "--insecure-rpc",
        action="store_true",
        help="let --rpc-host be open to the network without TLS, for all to read along",
    )
    group.add_argument(
        "--rpc-hosts",
        type=host_names,
        default=frozenset(),
        metavar="NAME,...",
        help="host names that clients may call it by, besides the loopback's; * for any",
    )
    group.add_argument(
        "--rpc-origins",
        type=origins,
        default=frozenset(),
        metavar="ORIGIN,...",
        help="web pages that may call it, such as https://app.example; * for any",
    )
    group.add_argument(
        "--rpc-connections-per-address",
        type=positive_int,
        default=DOOR.connections_per_address_max,
        metavar="N",
        help="at once (default: %(default)s)",
    )
    group.add_argument(
        "--rpc-quota",
        type=quota,
        action="append",
        default=[],
        metavar="ROLE=N",
        help="cost units a second for each client of a role, ten seconds' worth at once "
        f"(default: {', '.join(f'{role.name.lower()}={units}' for role, units in QUOTAS.items() if units)}); "
        "may be repeated",
    )
    group.add_argument(
        "--rpc-least-role",
        choices=tuple(ROLES),
        default="public",
        help="what a client must be to be served (default: %(default)s); see ctt access --help",
    )
    group.add_argument(
        "--rpc-tls-cert",
        type=Path,
        metavar="FILE",
        help="speak TLS with this certificate (PEM, with its chain)",
    )
    group.add_argument(
        "--rpc-tls-key", type=Path, metavar="FILE", help="its key (PEM, without passphrase, chmod 600)"
    )
    group.add_argument(
        "--rpc-client-ca",
        type=Path,
        metavar="FILE",
        help="serve only clients with a certificate of this authority (PEM): they are platforms",
    )
    group.add_argument(
        "--advisor",
        type=rpc_url,
        metavar="URL",
        help="pass ctt_advise on to this `ctt advisor`, such as http://127.0.0.1:8650",
    )


def check_exposure(options: argparse.Namespace) -> None:
    """Raises: Failure (78) for options that do not go together, or where others than this machine could listen in."""
    cert, key = options.rpc_tls_cert, options.rpc_tls_key
    if (cert is None) != (key is None):
        raise Failure(Exit.CONFIGURATION, "--rpc-tls-cert and --rpc-tls-key need each other")
    if options.rpc_client_ca is not None and cert is None:
        raise Failure(Exit.CONFIGURATION, "--rpc-client-ca needs --rpc-tls-cert and --rpc-tls-key")
    if cert is None and not (options.insecure_rpc or _is_loopback(options.rpc_host)):
        raise Failure(
            Exit.CONFIGURATION,
            f"rpc on {options.rpc_host or 'every address'} needs tls or --insecure-rpc: give --rpc-tls-cert and "
            "--rpc-tls-key, or listen on 127.0.0.1 behind a proxy",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def open_door(options: argparse.Namespace, node: Node) -> AsyncIterator[RpcServer]:
    """A server that follows its files. Raises: Failure: 66, 65, 77 of those; 69, 77 when it cannot listen."""
    config = ServerConfig(
        host=options.rpc_host,
        port=options.rpc_port,
        hosts=options.rpc_hosts,
        origins=options.rpc_origins,
        limits=replace(DOOR, connections_per_address_max=options.rpc_connections_per_address),
        rules=AccessRules(ROLES[options.rpc_least_role], {**QUOTAS, **dict(options.rpc_quota)}),
        tokens=load_tokens(options.dir),
        tls=make_tls(options),
        advisor=options.advisor,
        pages=load_pages() if options.explorer else {},
    )
    async with AsyncExitStack() as stack:
        server = await _listen(stack, node, config)
        keeper = Doorkeeper(server, options)
        watching = supervised(keeper.watch(), node)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, keeper.reload)
        try:
            yield server
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _listen(stack: AsyncExitStack, node: Node, config: ServerConfig) -> RpcServer:
    """Raises: Failure: 77 a port that only the superuser gets, 69 an address that cannot be had."""
    try:
        return await stack.enter_async_context(serve(node, config))
    except OSError as fault:
        code = Exit.PERMISSION if fault.errno in (errno.EACCES, errno.EPERM) else Exit.UNAVAILABLE
        number = fault.errno or 0  # of a name that does not resolve it is negative, and no errno
        cause = os.strerror(number) if number > 0 else fault.strerror
        raise Failure(code, f"cannot listen on {config.host}:{config.port}: {cause}") from None


class Doorkeeper:
    """Keeps a running server's tokens and certificate as the files have them. What cannot be read changes nothing."""

    def __init__(self, server: RpcServer, options: argparse.Namespace) -> None:
        self._server = server
        self._options = options
        self._path = options.dir / TOKENS_FILE
        self._seen = _version(self._path)
        self._has_list = server.config.tokens is not None

    def reload(self) -> None:
        """On SIGHUP: tokens and certificate."""
        self._reload_tokens()
        try:
            if (tls := make_tls(self._options)) is not None:
                self._server.set_tls(tls)
                log.info("JSON-RPC's certificate is read again")
        except Failure as fault:
            log.error("%(reason)s; the certificate from before stays in use", {"reason": fault})

    async def watch(self) -> None:
        """Looks at the tokens now and then, and parts with clients whose tokens have expired."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if _version(self._path) != self._seen:
                self._reload_tokens()
            self._server.part_with_ended()

    def _reload_tokens(self) -> None:
        self._seen = _version(self._path)
        try:
            tokens = load_tokens(self._options.dir)
            if tokens is None and self._has_list:  # else whoever removes it opens the node
                raise Failure(Exit.MISSING, f"{self._path}: no such file")
        except Failure as fault:
            log.error("%(reason)s; the tokens from before stay in use", {"reason": fault})
            return
        self._has_list = tokens is not None
        self._server.set_tokens(tokens)
        log.info("%(tokens)d API tokens", {"tokens": len(tokens or ())})


def _version(path: Path) -> tuple[int, int] | None:
    """What changes with the file; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


# --- TLS ------------------------------------------------------------------------------------------------------------


def make_tls(options: argparse.Namespace) -> Tls | None:
    """What the files say now; None without TLS. A certificate that has expired is said and used: the node goes on.

    Raises: Failure naming the file: 66 missing, 77 not readable or a key open to others, 65 not what it should be.
    """
    cert, key, client_ca = options.rpc_tls_cert, options.rpc_tls_key, options.rpc_client_ca
    if cert is None:
        return None
    own = _read_certificates(cert)[0]
    _check_key(key, cert, own)
    _say_expiry(cert, own)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")
        if client_ca is not None:
            _read_certificates(client_ca)
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as fault:  # of which an ssl.SSLError is one
        raise Failure(Exit.DAMAGED, f"{cert}: TLS does not take it: {fault.strerror}") from None
    return Tls(context, own.not_valid_after_utc)


def _read_certificates(path: Path) -> list[x509.Certificate]:
    """At least one. Raises: Failure."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise Failure(Exit.DAMAGED, f"{path}: is not a certificate: expected PEM") from None


def _check_key(path: Path, cert: Path, own: x509.Certificate) -> None:
    """Raises: Failure."""
    content = _read(path, is_private=True)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise Failure(
            Exit.DAMAGED, f"{path}: has a passphrase, for which nobody is there to type it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Failure(Exit.DAMAGED, f"{path}: is not a key: expected PEM") from None
    if key.public_key() != own.public_key():
        raise Failure(Exit.DAMAGED, f"{path}: is not the key of {cert}")


def _read(path: Path, *, is_private: bool = False) -> bytes:
    if not os.path.lexists(path):
        raise Failure(Exit.MISSING, f"{path}: no such file")
    try:
        return read_file(path, is_private=is_private)
    except IdentityError as fault:
        raise identity_failure(fault) from None


def _say_expiry(path: Path, certificate: x509.Certificate) -> None:
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left < timedelta(days=WARNING_DAYS):
        level = logging.ERROR if left < timedelta(days=ERROR_DAYS) else logging.WARNING
        ends = certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M")
        text = "%(path)s ends at %(ends)s UTC; put a new one with its key in place and send SIGHUP"
        log.log(level, text, {"path": path, "ends": ends})
