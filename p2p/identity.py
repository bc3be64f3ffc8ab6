"""Who a peer is: mutual TLS 1.3 with certificates of the consortium's own authority.

    ca.pem        the authority: the only one that is trusted
    node.pem      this node's certificate
    node.key      its key, readable by its owner only
    revoked.txt   serial numbers in hexadecimal, one a line, that are trusted no more; `#` begins a comment

A certificate names its node in URIs of the subject's alternative names: `ctt:node:NAME`, and of a validator
`ctt:validator:0xADDRESS` with its consensus address. Host names mean nothing: nodes move, names stay.
"""

import os
import re
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ctt_state.units import ZERO_ADDRESS, Address, hex_of

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "node.pem"
KEY_FILE: Final = "node.key"
REVOKED_FILE: Final = "revoked.txt"

PROTOCOL: Final = "ctt/1"  # by ALPN: a later protocol may share the port
NODE_URI: Final = "ctt:node:"
VALIDATOR_URI: Final = "ctt:validator:"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

FILE_BYTES_MAX: Final = 1024 * 1024  # a revocation list of 20,000 lines

_OUR_URI: Final = "ctt:"
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")
_SERIAL: Final = re.compile(r"[0-9a-fA-F]{1,40}")  # at most 20 bytes (RFC 5280, 4.1.2.2)


class IdentityError(ValueError):
    """The files of this node's identity cannot be used: which one, why, and what to do."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path


class IdentityMissing(IdentityError):
    """A file is not there."""


class IdentityForbidden(IdentityError):
    """A file cannot be read, or the key can be read by others."""


class IdentityInvalid(IdentityError):
    """A file is not what it should be, does not belong to the others, or is not valid now."""


class UntrustedPeer(Exception):
    """The other side of a connection is not to be spoken to."""


class OtherProtocol(UntrustedPeer):
    """It did not agree to speak our protocol."""

    def __init__(self, chosen: str | None) -> None:
        super().__init__(f"not our protocol: {PROTOCOL} wanted, {chosen or 'none'} agreed")


class NoIdentity(UntrustedPeer):
    """It showed no certificate, or one that does not say which node it is."""


class RevokedPeer(UntrustedPeer):
    """Its certificate is trusted no more."""

    def __init__(self, peer: "PeerIdentity") -> None:
        super().__init__(f"the certificate {show_serial(peer.serial)} of {peer.name} is revoked")
        self.peer = peer


class SelfDial(UntrustedPeer):
    """It is this node, or one that bears its name or its validator's address."""

    def __init__(self, peer: "PeerIdentity") -> None:
        super().__init__(f"{peer.name} ({show_serial(peer.serial)}) is our own identity")
        self.peer = peer


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a certificate says of its node. Who is no validator has no address."""

    name: str
    validator: Address | None
    serial: int


class Identity:
    """This node's certificate and key, and whom it trusts."""

    def __init__(
        self,
        directory: Path,
        certificate: x509.Certificate,
        authority: x509.Certificate,
        revoked: frozenset[int],
    ) -> None:
        self.own = read_identity(certificate)
        self.expires = min(certificate.not_valid_after_utc, authority.not_valid_after_utc)
        self._directory = directory
        self._revoked = revoked
        self._server = _make_context(ssl.PROTOCOL_TLS_SERVER, directory)
        self._client = _make_context(ssl.PROTOCOL_TLS_CLIENT, directory)

    def server_context(self) -> ssl.SSLContext:
        """For connections that others open."""
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """For connections that this node opens."""
        return self._client

    def expires_in_days(self, now: datetime) -> int:
        """Until the certificate or its authority ends, rounded down; negative when it has ended."""
        return (self.expires - now) // timedelta(days=1)

    def identify(self, connection: ssl.SSLObject | ssl.SSLSocket) -> PeerIdentity:
        """Who the other side is, after the handshake, which has checked that the authority signed its certificate.

        Raises: OtherProtocol, NoIdentity, SelfDial, RevokedPeer.
        """
        protocol = connection.selected_alpn_protocol()
        if protocol != PROTOCOL:
            raise OtherProtocol(protocol)
        certificate = connection.getpeercert(binary_form=True)
        if certificate is None:
            raise NoIdentity("it showed no certificate")
        peer = read_identity(_parse_peer_certificate(certificate))
        if self._is_own(peer):
            raise SelfDial(peer)
        if self.is_revoked(peer):
            raise RevokedPeer(peer)
        return peer

    def is_revoked(self, peer: PeerIdentity) -> bool:
        """For peers that were connected before `reload`."""
        return peer.serial in self._revoked

    def reload(self) -> None:
        """Reads the revoked serial numbers again; what cannot be read changes nothing. Raises: IdentityError."""
        self._revoked = read_revoked(self._directory / REVOKED_FILE)

    def _is_own(self, peer: PeerIdentity) -> bool:
        is_own_seat = peer.validator is not None and peer.validator == self.own.validator
        return is_own_seat or peer.serial == self.own.serial or peer.name == self.own.name


def load_identity(directory: Path, now: datetime) -> Identity:
    """Checks the files of `directory` one by one and against one another; `now` knows its time zone.

    Raises: IdentityMissing, IdentityForbidden, IdentityInvalid.
    """
    authority_path, path = directory / CA_FILE, directory / CERTIFICATE_FILE
    authority = read_authority(authority_path)
    certificate = read_certificate(path)
    key = read_private_key(directory / KEY_FILE)
    revoked = read_revoked(directory / REVOKED_FILE)
    if key.public_key() != certificate.public_key():
        raise IdentityInvalid(directory / KEY_FILE, f"is not the key of {path}")
    if not is_issued_by(certificate, authority):
        raise IdentityInvalid(path, f"is not issued by the authority of {authority_path}")
    check_time(authority_path, authority, now)
    check_time(path, certificate, now)
    if certificate.serial_number in revoked:
        raise IdentityInvalid(
            path, f"is revoked; its serial number {show_serial(certificate.serial_number)} is listed"
        )
    try:
        return Identity(directory, certificate, authority, revoked)
    except NoIdentity as fault:
        raise IdentityInvalid(path, str(fault)) from None
    except OSError as fault:  # of which an ssl.SSLError is one
        raise IdentityInvalid(path, f"TLS does not take it: {fault.strerror}") from None


def read_identity(certificate: x509.Certificate) -> PeerIdentity:
    """What the URIs of a certificate say. Raises: NoIdentity; what we do not know but is ours counts as wrong."""
    names, validators = [], []
    for uri in _read_uris(certificate):
        if uri.startswith(NODE_URI) and NAME.fullmatch(uri.removeprefix(NODE_URI)):
            names.append(uri.removeprefix(NODE_URI))
        elif uri.startswith(VALIDATOR_URI):
            validators.append(_parse_validator(uri))
        elif uri.startswith(_OUR_URI):
            raise NoIdentity(f"its certificate has a malformed URI {uri[:80]!a}")
    if len(names) != 1 or len(validators) > 1:
        raise NoIdentity(
            f"its certificate names {len(names)} nodes and {len(validators)} validators; want 1 and at most 1"
        )
    return PeerIdentity(names[0], validators[0] if validators else None, certificate.serial_number)


def _read_uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise NoIdentity("the extensions of its certificate cannot be read") from None
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _parse_validator(uri: str) -> Address:
    text = uri.removeprefix(VALIDATOR_URI)
    address = Address(bytes.fromhex(text[2:])) if _ADDRESS.fullmatch(text) else ZERO_ADDRESS
    if address == ZERO_ADDRESS:
        raise NoIdentity(f"its certificate has a malformed URI {uri[:80]!a}")
    return address


def node_uri(name: str) -> str:
    return NODE_URI + name


def validator_uri(address: Address) -> str:
    return VALIDATOR_URI + hex_of(address)


def show_serial(serial: int) -> str:
    """As in revoked.txt: 40 digits, or 20 bytes."""
    return f"{serial:040x}"


def parse_serial(text: str) -> int | None:
    """None for what is no serial number."""
    return int(text, 16) if _SERIAL.fullmatch(text) else None


# Files


def read_authority(path: Path) -> x509.Certificate:
    """A certificate that may sign others. Raises: IdentityMissing, IdentityForbidden, IdentityInvalid."""
    certificate = read_certificate(path)
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        is_authority = False
    if not is_authority or not is_issued_by(certificate, certificate):
        raise IdentityInvalid(path, "is not the certificate of an authority, signed by itself")
    return certificate


def read_certificate(path: Path) -> x509.Certificate:
    """The only one of its file. Raises: IdentityMissing, IdentityForbidden, IdentityInvalid."""
    content = read_file(path)
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        certificates = []
    if len(certificates) != 1:
        raise IdentityInvalid(path, "is not a certificate: expected one in PEM")
    return certificates[0]


def read_private_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises: IdentityMissing, IdentityForbidden when others may read it, IdentityInvalid."""
    content = read_file(path, is_private=True)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a passphrase
        key = None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise IdentityInvalid(
            path, "is not a key: expected one of an elliptic curve in PEM, without passphrase"
        )
    return key


def read_revoked(path: Path) -> frozenset[int]:
    """The serial numbers. Raises: IdentityMissing, IdentityForbidden, IdentityInvalid with the line."""
    lines = read_file(path).decode("utf-8", "replace").splitlines()
    revoked = set()
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            serial = parse_serial(text)
            if serial is None:
                raise IdentityInvalid(
                    path, f"line {number}: {text[:80]!a} is no serial number in hexadecimal"
                )
            revoked.add(serial)
    return frozenset(revoked)


def read_file(path: Path, *, is_private: bool = False) -> bytes:
    """A regular file, no link when it is private. Raises: IdentityMissing, IdentityForbidden, IdentityInvalid."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if is_private else 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            _check_status(path, os.fstat(file.fileno()), is_private=is_private)
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise IdentityMissing(
            path, "no such file; 'ctt ca issue' makes the files of a node's identity"
        ) from None
    except OSError as fault:
        raise IdentityForbidden(path, f"cannot read it: {fault.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise IdentityInvalid(path, f"is larger than {FILE_BYTES_MAX:,} bytes")
    return content


def _check_status(path: Path, status: os.stat_result, *, is_private: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise IdentityInvalid(path, "is no regular file")
    if is_private and status.st_uid != os.geteuid():
        raise IdentityForbidden(path, f"belongs to user {status.st_uid}, not to {os.geteuid()}")
    if is_private and mode & 0o077:
        raise IdentityForbidden(path, f"is open to others ({mode:04o}); chmod 600 {path}")


# Checks


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed it and its issuer is the authority's name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def check_time(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    """Raises: IdentityInvalid."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        raise IdentityInvalid(path, f"is not valid before {first:%Y-%m-%d %H:%M} UTC; is the clock right?")
    if now > last:
        raise IdentityInvalid(
            path, f"expired on {last:%Y-%m-%d %H:%M} UTC; a new one is needed (ctt ca --help)"
        )


def _parse_peer_certificate(content: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(content)
    except ValueError:
        raise NoIdentity("its certificate cannot be read") from None


def _make_context(role: int, directory: Path) -> ssl.SSLContext:
    """TLS 1.3 with certificates on both sides, no other authority, and nothing that outlives a connection.

    Raises: OSError.
    """
    context = ssl.SSLContext(role)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a peer is who its certificate says: see `Identity.identify`
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET
    if role == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # without tickets neither resumption nor early data
    context.load_verify_locations(directory / CA_FILE)
    context.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE)
    context.set_alpn_protocols([PROTOCOL])
    return context
