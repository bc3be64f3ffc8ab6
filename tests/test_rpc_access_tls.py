"""TLS at JSON-RPC's door: the node's certificate, clients' certificates, and what is no TLS at all."""

import argparse
import asyncio
import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from node.cli.door import check_exposure, make_tls
from node.exits import Failure
from rpc.access import Role
from rpc.server import ServerLimits
from tests.live_node import LiveNode
from tests.rpc_world import RpcWorld, Served, make_config, served
from tests.test_rpc_http import closes_within, post, status_of, until

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)


class Maker:
    """An authority that signs what it is asked to."""

    def __init__(self, name: str = "Authority") -> None:
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key, is_authority=True)

    def _sign(
        self,
        subject: x509.Name,
        key: EllipticCurvePrivateKey,
        *,
        is_authority: bool,
        end: datetime = NOW + DAY * 90,
    ) -> x509.Certificate:
        names = [x509.DNSName("localhost")]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY * 9)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(
        self,
        directory: Path,
        name: str,
        *,
        end: datetime = NOW + DAY * 90,
        encryption: KeySerializationEncryption | None = None,
    ) -> tuple[Path, Path]:
        """A certificate for localhost, and its key, in files."""
        key = generate_private_key(SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, is_authority=False, end=end)
        cert_path, key_path = directory / f"{name}.pem", directory / f"{name}.key"
        cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_path.touch(0o600)
        key_path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
        )
        return cert_path, key_path

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def client(self, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What trusts this authority, and shows a certificate."""
        context = ssl.create_default_context(cadata=self.certificate.public_bytes(Encoding.PEM).decode())
        if own is not None:
            context.load_cert_chain(*own)
        return context


AUTHORITY: Final = Maker()


def make_options(
    cert: Path | None, key: Path | None, client_ca: Path | None = None, **more: Any
) -> argparse.Namespace:
    return argparse.Namespace(
        rpc_tls_cert=cert,
        rpc_tls_key=key,
        rpc_client_ca=client_ca,
        **{"rpc_host": "0.0.0.0", "insecure_rpc": False, **more},
    )


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return make_options(*AUTHORITY.issue(tmp_path, "node"))


def serve(
    options: argparse.Namespace, limits: ServerLimits | None = None, world: RpcWorld | None = None
) -> Any:
    return served(world, make_config(limits, tls=make_tls(options), host="localhost"))


async def chain_id(node: Served, context: ssl.SSLContext, method: str = "eth_chainId") -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": []}
    async with node.http.post(node.url, json=body, ssl=context) as response:
        assert response.status == 200, await response.text()
        return await response.json()


# --- the node's certificate -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_clients_speak_tls(options: argparse.Namespace, version: ssl.TLSVersion) -> None:
    context = AUTHORITY.client()
    context.maximum_version = version
    async with serve(options) as node:
        assert node.url.startswith("https://localhost:")
        for _ in range(3):
            assert (await chain_id(node, context))["result"] == "0x1092"
        async with node.http.ws_connect(node.url, ssl=context) as socket:
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
            assert (await socket.receive_json(timeout=5))["result"] == "0x1092"
        origin = {"Origin": node.url}
        async with node.http.options(node.url, headers=origin, ssl=context) as response:
            assert response.status == 204
    assert node.server.gate.total == 0


@pytest.mark.asyncio
async def test_tls_1_1_is_refused(options: argparse.Namespace) -> None:
    context = AUTHORITY.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serve(options) as node:
        with pytest.raises(aiohttp.ClientConnectorError):
            await chain_id(node, context)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [post(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 100])
async def test_what_is_no_tls_is_closed(options: argparse.Namespace, said: bytes) -> None:
    async with serve(options) as node:
        reader, writer = await asyncio.open_connection("localhost", node.server.port)
        writer.write(said)
        heard = await asyncio.wait_for(reader.read(), 5)
        assert status_of(heard) == 0 and b"HTTP" not in heard
        await until(lambda: node.server.gate.total == 0)
        writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01"])
async def test_a_handshake_has_a_deadline_and_takes_up_a_place(
    options: argparse.Namespace, start: bytes
) -> None:
    limits = ServerLimits(headers_s=0.3, connections_per_address_max=2)
    async with serve(options, limits) as node:
        slow = [await asyncio.open_connection("localhost", node.server.port) for _ in range(2)]
        for _, writer in slow:
            writer.write(start)
        await until(lambda: node.server.gate.total == 2)
        third, writer = await asyncio.open_connection("localhost", node.server.port)
        assert await closes_within(third, 2)
        writer.close()
        for reader, writer in slow:
            assert await closes_within(reader, 2)
            writer.close()
        await until(lambda: node.server.gate.total == 0)
        assert (await chain_id(node, AUTHORITY.client()))["result"] == "0x1092"


@pytest.mark.asyncio
async def test_what_comes_with_the_end_of_the_handshake_is_not_lost(options: argparse.Namespace) -> None:
    """A client may send its first request in the same breath."""
    context = AUTHORITY.client()
    async with serve(options) as node:

        async def one() -> bytes:
            reader, writer = await asyncio.open_connection("localhost", node.server.port, ssl=context)
            writer.write(post())
            said = await reader.readuntil(b"}")
            writer.close()
            return said

        assert all(b"0x1092" in said for said in await asyncio.gather(*[one() for _ in range(30)]))


@pytest.mark.asyncio
async def test_stop_ends_handshakes(options: argparse.Namespace) -> None:
    async with serve(options) as node:
        reader, writer = await asyncio.open_connection("localhost", node.server.port)
        await until(lambda: node.server.gate.total == 1)
        await node.server.stop()
        assert await closes_within(reader, 3)
        writer.close()


@pytest.mark.asyncio
async def test_a_new_certificate_is_for_new_connections(options: argparse.Namespace, tmp_path: Path) -> None:
    other = Maker("Other")
    async with serve(options) as node, node.http.ws_connect(node.url, ssl=AUTHORITY.client()) as old:
        other.issue(tmp_path, "node")
        tls = make_tls(options)
        assert tls is not None
        node.server.set_tls(tls)

        assert (await chain_id(node, other.client()))["result"] == "0x1092"
        await old.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        assert (await old.receive_json(timeout=5))["result"] == "0x1092"


# --- clients' certificates ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_clients_certificate_makes_it_a_platform(options: argparse.Namespace, tmp_path: Path) -> None:
    options.rpc_client_ca = AUTHORITY.write(tmp_path / "ca.pem")
    async with serve(options) as node:
        context = AUTHORITY.client(AUTHORITY.issue(tmp_path, "exchange"))
        assert (await chain_id(node, context))["result"] == "0x1092"
        assert (await chain_id(node, context, "txpool_content"))["error"]["code"] == -32601
        client = node.server.access.client("127.0.0.1", "exchange", [])
        assert client.role is Role.PLATFORM


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "peer did not return a certificate"),
        (
            lambda path: AUTHORITY.issue(path, "late", end=NOW - DAY),
            "the client's certificate: certificate has expired",
        ),
        (
            lambda path: Maker("Other").issue(path, "alien"),
            "the client's certificate: unable to get local issuer certificate",
        ),
    ],
    ids=["none", "expired", "of another authority"],
)
async def test_who_has_no_good_certificate_is_turned_away_and_the_log_says_why(
    options: argparse.Namespace,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], tuple[Path, Path] | None],
    text: str,
) -> None:
    options.rpc_client_ca = AUTHORITY.write(tmp_path / "ca.pem")
    async with serve(options) as node:
        for _ in range(3):
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await chain_id(node, AUTHORITY.client(make(tmp_path)))
        await until(lambda: node.server.gate.total == 0)
    said = [record.getMessage() for record in caplog.records if "no TLS" in record.getMessage()]
    assert len(said) == 1 and text in said[0]  # the other two in the next ten seconds' line


# --- what is refused at the start -----------------------------------------------------------------------------------


def refusal(options: argparse.Namespace) -> tuple[int, str]:
    with pytest.raises(Failure) as caught:
        make_tls(options)
    return caught.value.exit_code, str(caught.value)


def test_a_key_open_to_others_is_refused(options: argparse.Namespace) -> None:
    options.rpc_tls_key.chmod(0o644)
    key = options.rpc_tls_key
    assert refusal(options) == (77, f"{key}: is open to others (0644); chmod 600 {key}")


def test_a_link_to_a_key_is_refused(options: argparse.Namespace, tmp_path: Path) -> None:
    options.rpc_tls_key = tmp_path / "link.key"
    options.rpc_tls_key.symlink_to(tmp_path / "node.key")
    assert refusal(options)[0] == 77


@pytest.mark.parametrize("which", ["rpc_tls_cert", "rpc_tls_key", "rpc_client_ca"])
def test_a_missing_file_is_named(options: argparse.Namespace, tmp_path: Path, which: str) -> None:
    setattr(options, which, tmp_path / "none.pem")
    assert refusal(options) == (66, f"{tmp_path / 'none.pem'}: no such file")


@pytest.mark.parametrize(
    ("which", "text"),
    [("rpc_tls_cert", "is not a certificate: expected PEM"), ("rpc_tls_key", "is not a key: expected PEM"),
     ("rpc_client_ca", "is not a certificate: expected PEM")],
)  # fmt: skip
@pytest.mark.parametrize(
    "content", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_file_is_named(
    options: argparse.Namespace, tmp_path: Path, which: str, text: str, content: bytes
) -> None:
    path = tmp_path / "bad.pem"
    path.touch(0o600)
    path.write_bytes(content)
    setattr(options, which, path)
    assert refusal(options) == (65, f"{path}: {text}")


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    files = AUTHORITY.issue(tmp_path, "node", encryption=BestAvailableEncryption(b"x"))
    assert refusal(make_options(*files)) == (
        65, f"{files[1]}: has a passphrase, for which nobody is there to type it",
    )  # fmt: skip


def test_anothers_key_is_refused(options: argparse.Namespace, tmp_path: Path) -> None:
    _, options.rpc_tls_key = AUTHORITY.issue(tmp_path, "other")
    assert refusal(options) == (65, f"{options.rpc_tls_key}: is not the key of {options.rpc_tls_cert}")


@pytest.mark.parametrize(("days", "level"), [(31, None), (29, "WARNING"), (2, "ERROR"), (-1, "ERROR")])
def test_a_certificate_that_ends_is_said_but_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: int, level: str | None
) -> None:
    """A validator goes on with its clients' trouble."""
    options = make_options(*AUTHORITY.issue(tmp_path, "node", end=NOW + DAY * days + timedelta(hours=1)))

    assert make_tls(options) is not None

    assert [record.levelname for record in caplog.records] == ([level] if level else [])


@pytest.mark.parametrize(
    ("given", "text"),
    [(("c", None, None), "--rpc-tls-cert and --rpc-tls-key need each other"),
     ((None, "k", None), "--rpc-tls-cert and --rpc-tls-key need each other"),
     ((None, None, "a"), "--rpc-client-ca needs --rpc-tls-cert and --rpc-tls-key")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(given: tuple[Any, Any, Any], text: str) -> None:
    with pytest.raises(Failure, match=text) as caught:
        check_exposure(make_options(*given))
    assert caught.value.exit_code == 78


def test_with_tls_the_node_may_be_open_to_the_network() -> None:
    check_exposure(make_options(Path("c"), Path("k")))


# --- a running node -------------------------------------------------------------------------------------------------


class TlsNode(LiveNode):
    """A node with a certificate."""

    authority = AUTHORITY

    def call(self, method: str, *params: Any) -> Any:
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.authority.client(), timeout=10
        )
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        connection.close()
        return reply["result"]

    def hang_up(self, text: str) -> None:
        """Sends SIGHUP, until the log says so."""
        os.kill(self.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while text not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)


def test_a_running_node_reads_its_certificate_again(tmp_path: Path) -> None:
    cert, key = AUTHORITY.issue(tmp_path, "node")
    with TlsNode(tmp_path / "data", flags=("--rpc-tls-cert", str(cert), "--rpc-tls-key", str(key))) as node:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            LiveNode.call(node, "eth_chainId")
        assert f"JSON-RPC at https://127.0.0.1:{node.port}" in node.log()

        key.chmod(0o640)
        node.hang_up(
            f"{key}: is open to others (0640); chmod 600 {key}; the certificate from before stays in use"
        )
        assert node.call("eth_chainId") == "0x1e6c"

        key.chmod(0o600)
        node.authority = Maker("Other")
        node.authority.issue(tmp_path, "node")
        node.hang_up("JSON-RPC's certificate is read again")
        assert node.call("eth_chainId") == "0x1e6c"
        assert node.stop() == 0
