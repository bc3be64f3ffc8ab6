"""Who may speak to whom: handshakes between real identities, and files that are refused with their reason."""

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from ctt_state.units import Address
from node.cli.certificates import Authority, create_authority, encode_key, start_certificate
from p2p.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    FILE_BYTES_MAX,
    KEY_FILE,
    REVOKED_FILE,
    Identity,
    IdentityError,
    IdentityForbidden,
    IdentityInvalid,
    IdentityMissing,
    NoIdentity,
    OtherProtocol,
    PeerIdentity,
    RevokedPeer,
    SelfDial,
    UntrustedPeer,
    load_identity,
    read_identity,
    read_private_key,
    show_serial,
)

NOW: Final = datetime.now(UTC)
ALICE: Final = Address(b"\x0a" * 20)
BOB: Final = Address(b"\x0b" * 20)
BOTH_USAGES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "ca", "Consortium", now=NOW - timedelta(days=60), days=3_650)


def make_identity(
    authority: Authority, name: str, validator: Address | None = None, *, now: datetime = NOW, days: int = 10
) -> Identity:
    """Issued at `now` and loaded then."""
    return load_identity(issue(authority, name, validator, now=now, days=days), now)


def issue(
    authority: Authority, name: str, validator: Address | None = None, *, now: datetime = NOW, days: int = 10
) -> Path:
    out = authority.directory.parent / f"{name}-of-{authority.directory.name}"
    authority.issue(out, name, validator, now=now, days=days)
    return out


def make_certificate(
    authority: Authority,
    uris: Sequence[str],
    usages: Sequence[x509.ObjectIdentifier] = BOTH_USAGES,
    *,
    is_authority: bool = False,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate that the authority signed, whatever it says."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = read_private_key(authority.directory / "ca.key")
    builder = (
        start_certificate("somebody", key.public_key(), NOW, NOW + timedelta(days=1))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, SHA256()), key


def put_certificate(directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    (directory / CERTIFICATE_FILE).write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / KEY_FILE).write_bytes(encode_key(key))
    return directory


class Connection:
    """A client and a server that shake hands in memory."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server)
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        waiting: list[ssl.SSLObject] = [self.client, self.server]
        for _ in range(8):
            waiting = [side for side in waiting if not is_through(side)]
        assert not waiting
        self.server.write(b"hello")
        assert self.client.read(5) == b"hello"


def is_through(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def connect(client: Identity, server: Identity) -> Connection:
    return Connection(client.client_context(), server.server_context())


# Handshakes


def test_two_nodes_of_one_authority_know_each_other(authority: Authority) -> None:
    alice, follower = make_identity(authority, "alice", ALICE), make_identity(authority, "follower")

    connection = connect(alice, follower)

    assert follower.identify(connection.server) == alice.own
    assert alice.identify(connection.client) == follower.own
    assert (alice.own.name, alice.own.validator) == ("alice", ALICE)
    assert (follower.own.name, follower.own.validator) == ("follower", None)
    assert connection.client.version() == connection.server.version() == "TLSv1.3"


def test_nothing_outlives_a_connection(authority: Authority) -> None:
    """No ticket, so neither resumption nor early data that could be replayed."""
    connection = connect(make_identity(authority, "alice"), make_identity(authority, "bob"))

    assert connection.client.session is not None
    assert not connection.client.session.has_ticket


@pytest.mark.asyncio
async def test_two_nodes_know_each_other_over_sockets(authority: Authority) -> None:
    alice, bob = make_identity(authority, "alice", ALICE), make_identity(authority, "bob", BOB)
    known: asyncio.Future[PeerIdentity] = asyncio.get_running_loop().create_future()

    async def welcome(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known.set_result(alice.identify(writer.get_extra_info("ssl_object")))
        writer.close()

    server = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=alice.server_context())
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=bob.client_context(), server_hostname=""
    )
    assert bob.identify(writer.get_extra_info("ssl_object")) == alice.own
    assert await known == bob.own

    assert await reader.read() == b""
    writer.close()
    server.close()
    await server.wait_closed()


def test_a_node_of_another_authority_is_refused_by_either_side(authority: Authority, tmp_path: Path) -> None:
    """Also one that calls its authority and its nodes as ours are called."""
    foreign = create_authority(tmp_path / "foreign", "Consortium", now=NOW, days=3_650)
    alice, mallory = make_identity(authority, "alice", ALICE), make_identity(foreign, "bob", BOB)

    for client, server in ((alice, mallory), (mallory, alice)):
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(client, server)


def test_a_client_without_certificate_is_refused(authority: Authority) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE

    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        Connection(client, make_identity(authority, "alice").server_context())


@pytest.mark.parametrize("role", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER])
def test_tls_1_2_is_refused(authority: Authority, role: int) -> None:
    bob = issue(authority, "bob")
    alice = make_identity(authority, "alice")
    old = ssl.SSLContext(role)
    old.check_hostname = False
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_verify_locations(bob / CA_FILE)
    old.load_cert_chain(bob / CERTIFICATE_FILE, bob / KEY_FILE)

    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS"):
        if role == ssl.PROTOCOL_TLS_CLIENT:
            Connection(old, alice.server_context())
        else:
            Connection(alice.client_context(), old)


@pytest.mark.parametrize("protocols", [[], ["h2"]])
def test_a_peer_that_speaks_another_protocol_is_refused(authority: Authority, protocols: list[str]) -> None:
    bob = issue(authority, "bob")
    alice = make_identity(authority, "alice")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(bob / CA_FILE)
    client.load_cert_chain(bob / CERTIFICATE_FILE, bob / KEY_FILE)
    if protocols:
        client.set_alpn_protocols(protocols)

    with pytest.raises(OtherProtocol, match="ctt/1 wanted, none agreed"):
        alice.identify(Connection(client, alice.server_context()).server)


def test_an_expired_peer_is_refused_by_either_side(authority: Authority) -> None:
    past = NOW - timedelta(days=30)
    old, alice = make_identity(authority, "old", now=past, days=5), make_identity(authority, "alice")

    for client, server in ((alice, old), (old, alice)):
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            connect(client, server)


def test_a_peer_of_the_future_is_refused(authority: Authority) -> None:
    early, alice = (
        make_identity(authority, "early", now=NOW + timedelta(days=2)),
        make_identity(authority, "alice"),
    )

    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        connect(early, alice)


@pytest.mark.parametrize("usage", BOTH_USAGES)
def test_a_certificate_for_one_side_only_is_refused_on_the_other(
    authority: Authority, usage: x509.ObjectIdentifier
) -> None:
    certificate, key = make_certificate(authority, ["ctt:node:half"], [usage])
    half = load_identity(put_certificate(issue(authority, "half"), certificate, key), NOW)
    alice = make_identity(authority, "alice")
    is_client = usage == ExtendedKeyUsageOID.CLIENT_AUTH

    good, bad = ((half, alice), (alice, half)) if is_client else ((alice, half), (half, alice))

    connect(*good)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose|usage"):
        connect(*bad)


def test_a_node_cannot_make_nodes(authority: Authority) -> None:
    """A certificate that a node signs for another is refused, even when it sends its own along."""
    node = issue(authority, "node")
    node_key = read_private_key(node / KEY_FILE)
    child_key = ec.generate_private_key(ec.SECP256R1())
    parent = x509.load_pem_x509_certificate((node / CERTIFICATE_FILE).read_bytes())
    child = (
        start_certificate("child", child_key.public_key(), NOW, NOW + timedelta(days=1))
        .issuer_name(parent.subject)
        .sign(node_key, SHA256())
    )
    chain = child.public_bytes(Encoding.PEM) + parent.public_bytes(Encoding.PEM)
    (node / "chain.pem").write_bytes(chain)
    (node / "child.key").write_bytes(encode_key(child_key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(node / CA_FILE)
    context.load_cert_chain(node / "chain.pem", node / "child.key")

    with pytest.raises(ssl.SSLCertVerificationError):
        Connection(context, make_identity(authority, "alice").server_context())


# Who it is


def test_a_revoked_peer_is_refused_as_soon_as_the_list_is_read_again(authority: Authority) -> None:
    alice_files = issue(authority, "alice")
    alice, bob = load_identity(alice_files, NOW), make_identity(authority, "bob", BOB)
    connection = connect(bob, alice)
    assert alice.identify(connection.server) == bob.own
    authority.revoke("bob", NOW)
    (alice_files / REVOKED_FILE).write_bytes((authority.directory / REVOKED_FILE).read_bytes())
    assert not alice.is_revoked(bob.own)

    alice.reload()

    assert alice.is_revoked(bob.own)
    with pytest.raises(RevokedPeer, match=f"certificate {show_serial(bob.own.serial)} of bob is revoked"):
        alice.identify(connection.server)


def test_a_list_that_cannot_be_read_again_changes_nothing(authority: Authority) -> None:
    files, bob = issue(authority, "alice"), make_identity(authority, "bob")
    (files / REVOKED_FILE).write_text(f"{show_serial(bob.own.serial)} # stolen\n")
    alice = load_identity(files, NOW)

    for damage in (lambda: (files / REVOKED_FILE).write_text("bob\n"), (files / REVOKED_FILE).unlink):
        damage()
        with pytest.raises(IdentityError):
            alice.reload()

    assert alice.is_revoked(bob.own)


def test_a_node_does_not_speak_to_itself(authority: Authority) -> None:
    alice = make_identity(authority, "alice", ALICE)

    with pytest.raises(SelfDial, match="is our own identity"):
        alice.identify(connect(alice, alice).client)


def test_a_node_does_not_speak_to_a_second_node_with_its_name(authority: Authority, tmp_path: Path) -> None:
    alice = make_identity(authority, "alice", ALICE)
    authority.issue(tmp_path / "renewed", "alice", ALICE, now=NOW, days=10)
    renewed = load_identity(tmp_path / "renewed", NOW)

    with pytest.raises(SelfDial):
        alice.identify(connect(renewed, alice).server)


@pytest.mark.parametrize(
    ("uris", "problem"),
    [
        ([], "names 0 nodes and 0 validators"),
        (["https://example.org/ctt:node:alice"], "names 0 nodes"),
        ([f"ctt:validator:0x{'0a' * 20}"], "names 0 nodes and 1 validators"),
        (["ctt:node:alice", "ctt:node:bob"], "names 2 nodes"),
        (["ctt:node:alice", "ctt:node:alice"], "names 2 nodes"),
        (["ctt:node:"], "malformed URI 'ctt:node:'"),
        (["ctt:node:a b"], "malformed URI"),
        (["ctt:node:-a"], "malformed URI"),
        (["ctt:node:alice\n"], "malformed URI"),
        ([f"ctt:node:{'a' * 64}"], "malformed URI"),
        (["ctt:node:alice", "ctt:admin:alice"], "malformed URI 'ctt:admin:alice'"),
        (["ctt:node:alice", "ctt:validator:"], "malformed URI"),
        (["ctt:node:alice", f"ctt:validator:{'0a' * 20}"], "malformed URI"),
        (["ctt:node:alice", f"ctt:validator:0x{'0a' * 19}"], "malformed URI"),
        (["ctt:node:alice", f"ctt:validator:0x{'0a' * 21}"], "malformed URI"),
        (["ctt:node:alice", f"ctt:validator:0x{'0A' * 20}"], "malformed URI"),
        (["ctt:node:alice", f"ctt:validator:0x{'00' * 20}"], "malformed URI"),
        (["ctt:node:alice", *[f"ctt:validator:0x{'0a' * 20}"] * 2], "names 1 nodes and 2 validators"),
    ],
)
def test_a_certificate_that_does_not_say_who_it_is_is_refused(
    authority: Authority, uris: list[str], problem: str
) -> None:
    certificate, _ = make_certificate(authority, uris)

    with pytest.raises(NoIdentity, match=problem):
        read_identity(certificate)


def test_a_peer_without_a_name_is_refused_after_the_handshake(authority: Authority) -> None:
    """The authority's signature alone is not enough."""
    alice, files = make_identity(authority, "alice"), issue(authority, "bob")
    put_certificate(files, *make_certificate(authority, ["urn:meter:7"]))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(files / CA_FILE)
    client.load_cert_chain(files / CERTIFICATE_FILE, files / KEY_FILE)
    client.set_alpn_protocols(["ctt/1"])

    with pytest.raises(UntrustedPeer, match="names 0 nodes"):
        alice.identify(Connection(client, alice.server_context()).server)


@pytest.mark.parametrize("name", ["a", "validator-1", "Node_2.example", "9" * 63])
def test_names_up_to_63_letters_are_taken(authority: Authority, name: str) -> None:
    certificate, _ = make_certificate(authority, ["https://example.org", f"ctt:node:{name}"])

    assert read_identity(certificate).name == name


# Files


def garble(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"M", b"N", 3))


def encrypt(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    secret = BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))


def use_other_curve(path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def double(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def fill(path: Path) -> None:
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))


def open_to_group(path: Path) -> None:
    path.chmod(0o640)


def open_to_all(path: Path) -> None:
    path.chmod(0o604)


@pytest.mark.parametrize(
    ("name", "damage", "kind", "problem"),
    [
        *((name, Path.unlink, IdentityMissing, "no such file") for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE)),
        (REVOKED_FILE, Path.unlink, IdentityMissing, "no such file"),
        (KEY_FILE, open_to_group, IdentityForbidden, r"open to others \(0640\); chmod 600"),
        (KEY_FILE, open_to_all, IdentityForbidden, r"open to others \(0604\)"),
        (KEY_FILE, make_link, IdentityForbidden, "cannot read it"),
        (KEY_FILE, make_pipe, IdentityInvalid, "no regular file"),
        (CA_FILE, make_pipe, IdentityInvalid, "no regular file"),
        (CERTIFICATE_FILE, make_directory, IdentityForbidden, "cannot read it: Is a directory"),
        (CERTIFICATE_FILE, garble, IdentityInvalid, "is not a certificate"),
        (CERTIFICATE_FILE, double, IdentityInvalid, "expected one in PEM"),
        (CERTIFICATE_FILE, fill, IdentityInvalid, "larger than 1,048,576 bytes"),
        (CA_FILE, garble, IdentityInvalid, "is not a certificate"),
        (CA_FILE, double, IdentityInvalid, "expected one in PEM"),
        (KEY_FILE, garble, IdentityInvalid, "is not a key"),
        (KEY_FILE, encrypt, IdentityInvalid, "without passphrase"),
        (KEY_FILE, use_other_curve, IdentityInvalid, "of an elliptic curve"),
        (REVOKED_FILE, lambda path: path.write_text("# a\n12\nxy # b\n"), IdentityInvalid, "line 3: 'xy' is no"),
        (REVOKED_FILE, lambda path: path.write_bytes(b"\xff\xfe"), IdentityInvalid, "line 1"),
        (REVOKED_FILE, lambda path: path.write_text("1" * 41), IdentityInvalid, "line 1"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_good_is_named(
    authority: Authority,
    name: str,
    damage: Callable[[Path], object],
    kind: type[IdentityError],
    problem: str,
) -> None:
    files = issue(authority, "alice")

    damage(files / name)

    with pytest.raises(kind, match=problem) as refused:
        load_identity(files, NOW)
    assert refused.value.path == files / name
    assert str(refused.value).startswith(f"{files / name}: ")


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    alice, bob = issue(authority, "alice"), issue(authority, "bob")
    (alice / KEY_FILE).write_bytes((bob / KEY_FILE).read_bytes())

    with pytest.raises(IdentityInvalid, match="is not the key of"):
        load_identity(alice, NOW)


def test_a_certificate_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """The other one bears the same name."""
    foreign = create_authority(tmp_path / "foreign", "Consortium", now=NOW, days=10)
    files = issue(authority, "alice")
    (files / CA_FILE).write_bytes(foreign.certificate.public_bytes(Encoding.PEM))

    with pytest.raises(IdentityInvalid, match="is not issued by the authority of"):
        load_identity(files, NOW)


def test_a_node_is_no_authority(authority: Authority) -> None:
    files = issue(authority, "alice")
    (files / CA_FILE).write_bytes((files / CERTIFICATE_FILE).read_bytes())

    with pytest.raises(IdentityInvalid, match="not the certificate of an authority"):
        load_identity(files, NOW)


def test_a_node_without_a_name_does_not_start(authority: Authority) -> None:
    files = put_certificate(issue(authority, "alice"), *make_certificate(authority, ["urn:meter:7"]))

    with pytest.raises(IdentityInvalid, match="names 0 nodes"):
        load_identity(files, NOW)


def test_a_revoked_node_does_not_start(authority: Authority) -> None:
    files = issue(authority, "alice")
    authority.revoke("alice", NOW)
    (files / REVOKED_FILE).write_bytes((authority.directory / REVOKED_FILE).read_bytes())

    with pytest.raises(IdentityInvalid, match="is revoked"):
        load_identity(files, NOW)


def test_revoked_serial_numbers_may_have_comments_blank_lines_and_capitals(authority: Authority) -> None:
    files, bob = issue(authority, "alice"), make_identity(authority, "bob")
    serial = show_serial(bob.own.serial).upper()
    (files / REVOKED_FILE).write_text(f"# the list\n\n  {serial}  # bob, lost\r\nff#x")

    alice = load_identity(files, NOW)

    assert alice.is_revoked(bob.own)
    assert alice.is_revoked(PeerIdentity("meter", None, 255))
    assert not alice.is_revoked(alice.own)


# Time


def test_a_certificate_is_good_from_its_first_second_to_its_last(authority: Authority) -> None:
    files = issue(authority, "alice", days=10)
    second = timedelta(seconds=1)
    certificate = x509.load_pem_x509_certificate((files / CERTIFICATE_FILE).read_bytes())
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc

    (files / CA_FILE).write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    load_identity(files, first)
    load_identity(files, last)
    with pytest.raises(IdentityInvalid, match="is not valid before .* UTC; is the clock right"):
        load_identity(files, first - second)
    with pytest.raises(IdentityInvalid, match=r"node\.pem: expired on .* UTC; a new one is needed"):
        load_identity(files, last + second)


def test_the_days_that_are_left_are_counted_down(authority: Authority) -> None:
    alice = make_identity(authority, "alice", days=10)
    day = timedelta(days=1)

    assert [alice.expires_in_days(alice.expires - days * day) for days in (10, 1, 0)] == [10, 1, 0]
    assert alice.expires_in_days(alice.expires - day + timedelta(seconds=1)) == 0
    assert alice.expires_in_days(alice.expires + timedelta(seconds=1)) == -1


def test_an_identity_ends_with_its_authority(tmp_path: Path) -> None:
    short = create_authority(tmp_path / "ca", "Consortium", now=NOW, days=5)

    alice = make_identity(short, "alice", days=365)

    assert alice.expires == short.certificate.not_valid_after_utc


def test_an_expired_authority_is_named(tmp_path: Path) -> None:
    old = create_authority(tmp_path / "ca", "Consortium", now=NOW - timedelta(days=10), days=5)
    files = issue(old, "alice", now=NOW - timedelta(days=9))

    with pytest.raises(IdentityInvalid, match=r"ca\.pem: expired"):
        load_identity(files, NOW)
