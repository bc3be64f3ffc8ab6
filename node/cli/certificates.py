"""The consortium's certificate authority in a directory: who may join the network.

    ca.key        signs certificates; readable by its owner only
    ca.pem        its certificate, which every node trusts
    issued/       a copy of each certificate, named by its serial number
    revoked.txt   what is trusted no more; every node needs a copy (p2p/identity.py)

Keys are of the curve P-256. The authority signs nodes only, no further authorities.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctt_state.units import Address, hex_of
from node.datadir import replace_file, sync_directory, write_all
from node.exits import Exit, Failure
from p2p.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    REVOKED_FILE,
    IdentityError,
    IdentityForbidden,
    IdentityInvalid,
    IdentityMissing,
    NoIdentity,
    PeerIdentity,
    check_time,
    node_uri,
    parse_serial,
    read_authority,
    read_certificate,
    read_file,
    read_identity,
    read_private_key,
    read_revoked,
    show_serial,
    validator_uri,
)

CA_KEY_FILE: Final = "ca.key"
ISSUED: Final = "issued"
CLOCK_SKEW: Final = timedelta(hours=1)  # by which a node's clock may be behind the authority's
REVOKED_HEADER: Final = b"# Serial numbers of revoked certificates. Every node needs this list.\n"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of the authority's."""

    identity: PeerIdentity
    expires: datetime
    is_revoked: bool


class Authority:
    """An authority whose files were found good."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
        self.directory = directory
        self.certificate = certificate
        self._key = key

    def issue(
        self, out: Path, name: str, validator: Address | None, *, now: datetime, days: int
    ) -> x509.Certificate:
        """Makes the directory `out` with the files of a node's identity, which ends with the authority at the latest.

        Raises: Failure (73) when there is one or it cannot be made, IdentityError when the authority's own files are
        not usable now, Failure (78) when the name or the validator belongs to another certificate.
        """
        if os.path.lexists(out):
            raise Failure(Exit.CANNOT_CREATE, f"{out} exists already; an identity is never overwritten")
        check_time(self.directory / CA_FILE, self.certificate, now)
        self._check_unclaimed(name, validator, now)
        key = generate_private_key(SECP256R1())
        certificate = self._sign(key.public_key(), name, validator, now, days)
        files = {
            KEY_FILE: encode_key(key),
            CERTIFICATE_FILE: certificate.public_bytes(Encoding.PEM),
            CA_FILE: self.certificate.public_bytes(Encoding.PEM),
            REVOKED_FILE: read_file(self.directory / REVOKED_FILE),
        }
        try:
            # Kept before it is given away: what is not known here cannot be revoked.
            issued = self.directory / ISSUED
            write_new(issued / f"{show_serial(certificate.serial_number)}.pem", files[CERTIFICATE_FILE])
            sync_directory(issued)
            write_directory(out, files)
        except OSError as fault:
            raise Failure(
                Exit.CANNOT_CREATE, f"{out}: cannot create the identity: {fault.strerror}"
            ) from None
        return certificate

    def issued(self) -> list[Issued]:
        """All certificates, by name and end. Raises: IdentityError."""
        revoked = read_revoked(self.directory / REVOKED_FILE)
        found = []
        for path in sorted((self.directory / ISSUED).glob("*.pem")):
            certificate = read_certificate(path)
            try:
                identity = read_identity(certificate)
            except NoIdentity as fault:
                raise IdentityInvalid(path, str(fault)) from None
            found.append(Issued(identity, certificate.not_valid_after_utc, identity.serial in revoked))
        return sorted(found, key=lambda item: (item.identity.name, item.expires, item.identity.serial))

    def revoke(self, name_or_serial: str, now: datetime) -> list[PeerIdentity]:
        """Those that were trusted until now: of a name all, which may be none.

        Raises: Failure: 66 nobody is called so, 74 the list cannot be written; IdentityError.
        """
        serial, issued = parse_serial(name_or_serial), self.issued()
        named = [one for one in issued if one.identity.name == name_or_serial]
        named = named or [one for one in issued if one.identity.serial == serial]
        if not named:
            raise Failure(
                Exit.MISSING,
                f"{name_or_serial[:80]!a} is neither the name nor the serial number of a certificate; see ctt ca list",
            )
        revoked = [one.identity for one in named if not one.is_revoked]
        path = self.directory / REVOKED_FILE
        lines = [f"{show_serial(peer.serial)}  # {peer.name}, {now:%Y-%m-%d}\n" for peer in revoked]
        try:
            replace_file(path, ended_line(read_file(path)) + "".join(lines).encode())
        except OSError as fault:
            raise Failure(Exit.STORAGE, f"{path}: cannot write it: {fault.strerror}") from None
        return revoked

    def _check_unclaimed(self, name: str, validator: Address | None, now: datetime) -> None:
        """A name stands for one node, and a validator has one name; a renewal repeats both."""
        for one in self.issued():
            known = one.identity
            is_same_name, is_same_validator = known.name == name, known.validator == validator
            is_taken = not is_same_validator if is_same_name else validator is not None and is_same_validator
            if is_taken and not one.is_revoked and one.expires >= now:
                raise Failure(
                    Exit.CONFIGURATION,
                    f"certificate {show_serial(known.serial)} says that {known.name} is "
                    f"{describe_validator(known.validator)}; revoke it first, or choose another name",
                )

    def _sign(
        self, key: EllipticCurvePublicKey, name: str, validator: Address | None, now: datetime, days: int
    ) -> x509.Certificate:
        uris = [node_uri(name), *([] if validator is None else [validator_uri(validator)])]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        end = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        return (
            start_certificate(name, key, now, end)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]),
                critical=False,
            )
            .sign(self._key, SHA256())
        )


def create_authority(directory: Path, name: str, *, now: datetime, days: int) -> Authority:
    """Makes the authority's key, certificate and lists.

    Raises: Failure (73) when there is one, or it cannot be made.
    """
    for path in (directory / CA_KEY_FILE, directory / CA_FILE, directory / ISSUED, directory / REVOKED_FILE):
        if os.path.lexists(path):
            raise Failure(Exit.CANNOT_CREATE, f"{path} exists already; an authority is never overwritten")
    key = generate_private_key(SECP256R1())
    certificate = (
        start_certificate(name, key.public_key(), now, now + timedelta(days=days))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(is_authority=True), critical=True)
        .sign(key, SHA256())
    )
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        (directory / ISSUED).mkdir(0o700)
        write_new(directory / CA_KEY_FILE, encode_key(key), mode=0o600)
        write_new(directory / REVOKED_FILE, REVOKED_HEADER)
        write_new(directory / CA_FILE, certificate.public_bytes(Encoding.PEM))
        sync_directory(directory)
    except OSError as fault:
        raise Failure(
            Exit.CANNOT_CREATE, f"{directory}: cannot create the authority: {fault.strerror}"
        ) from None
    return Authority(directory, certificate, key)


def open_authority(directory: Path) -> Authority:
    """Raises: IdentityError."""
    certificate = read_authority(directory / CA_FILE)
    key = read_private_key(directory / CA_KEY_FILE)
    if key.public_key() != certificate.public_key():
        raise IdentityInvalid(directory / CA_KEY_FILE, f"is not the key of {directory / CA_FILE}")
    return Authority(directory, certificate, key)


def identity_failure(fault: IdentityError) -> Failure:
    """With the exit code of its kind: 66 missing, 77 not readable or open to others, 65 anything else."""
    match fault:
        case IdentityMissing():
            return Failure(Exit.MISSING, str(fault))
        case IdentityForbidden():
            return Failure(Exit.PERMISSION, str(fault))
        case _:
            return Failure(Exit.DAMAGED, str(fault))


def describe_validator(validator: Address | None) -> str:
    return "no validator" if validator is None else f"validator {hex_of(validator)}"


# What both kinds of certificates share


def start_certificate(
    name: str, key: EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*, is_authority: bool) -> x509.KeyUsage:
    """An authority signs certificates and lists; a node signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def encode_key(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_directory(directory: Path, files: dict[str, bytes]) -> None:
    """A new directory with all of the files or none of them; keys are readable by their owner only. Raises: OSError."""
    new = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of an attempt that was interrupted
    if not new.parent.exists():  # a node's data directory, it may be
        new.parent.mkdir(0o700, parents=True)
    new.mkdir(0o700)
    for name, content in files.items():
        write_new(new / name, content, mode=0o600 if name == KEY_FILE else 0o644)
    sync_directory(new)
    os.rename(new, directory)
    sync_directory(directory.parent)


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Raises: OSError, also when there is such a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ended_line(content: bytes) -> bytes:
    """With the newline that an editor may have left out."""
    return content if content.endswith(b"\n") or not content else content + b"\n"
