"""Reads a recorded TLS 1.3 connection with the keys that its ends wrote down (RFC 8446; SSLKEYLOGFILE).

What two nodes said to each other is so known from the wire alone, without their help and without a third node.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HEADER_BYTES: Final = 5  # type, version, length
NONCE_BYTES: Final = 12
RANDOM_BYTES: Final = 32
RANDOM_AT: Final = 6  # in a hello: after its type, length and version
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
AES_256_GCM_SHA384: Final = 0x1302  # OpenSSL's first choice
KEY_BYTES: Final = 32

Secrets = Mapping[tuple[str, bytes], bytes]  # by label and the client's random number


class Unreadable(Exception):
    """The connection cannot be read: a key is missing, or it is not what we think it is."""


def read_secrets(file: Path) -> Secrets:
    """What OpenSSL wrote: label, client's random number and secret in each line."""
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    return {(label, bytes.fromhex(number)): bytes.fromhex(secret) for label, number, secret in lines}


class Keys:
    """Of one direction for a time; each record has a number."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_expand(secret, b"key", KEY_BYTES))
        self._nonce = int.from_bytes(_expand(secret, b"iv", NONCE_BYTES), "big")
        self._records = 0

    def open(self, header: bytes, body: bytes) -> bytes:
        """Raises: InvalidTag."""
        nonce = (self._nonce ^ self._records).to_bytes(NONCE_BYTES, "big")
        content = self._cipher.decrypt(nonce, body, header)
        self._records += 1
        return content


@dataclass
class Side:
    """What one end sent: first under the keys of the handshake, then under those of the application."""

    labels: list[str]
    buffer: bytearray = field(default_factory=bytearray)
    keys: Keys | None = None


class Connection:
    """Fed with what the two ends sent, in any pieces, but nothing before what it answers."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._client = Side(["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0"])
        self._server = Side(["SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"])
        self._random = b""

    def feed(self, chunk: bytes, *, is_client: bool) -> bytes:
        """What the application of this end sent with it. Raises: Unreadable."""
        side = self._client if is_client else self._server
        side.buffer += chunk
        said = b""
        while len(side.buffer) >= HEADER_BYTES:
            header = bytes(side.buffer[:HEADER_BYTES])
            end = HEADER_BYTES + int.from_bytes(header[3:], "big")
            if len(side.buffer) < end:
                break
            body = bytes(side.buffer[HEADER_BYTES:end])
            del side.buffer[:end]
            said += self._read(side, header, body)
        return said

    def _read(self, side: Side, header: bytes, body: bytes) -> bytes:
        if header[0] == HANDSHAKE and body[0] == CLIENT_HELLO:
            self._random = body[RANDOM_AT : RANDOM_AT + RANDOM_BYTES]
        if header[0] == HANDSHAKE and body[0] == SERVER_HELLO:
            at = RANDOM_AT + RANDOM_BYTES
            at += 1 + body[at]  # the session that is not resumed
            cipher = int.from_bytes(body[at : at + 2], "big")
            if cipher != AES_256_GCM_SHA384:
                raise Unreadable(f"cipher suite {cipher:#06x}")
        if header[0] != APPLICATION_DATA:
            return b""
        content = self._open(side, header, body).rstrip(b"\0")
        return content[:-1] if content[-1] == APPLICATION_DATA else b""

    def _open(self, side: Side, header: bytes, body: bytes) -> bytes:
        while True:
            try:
                if side.keys:
                    return side.keys.open(header, body)
            except InvalidTag:
                pass  # the keys that follow may open it
            if not side.labels:
                raise Unreadable("a record that its keys do not open")
            label = side.labels.pop(0)
            secret = self._secrets.get((label, self._random))
            if secret is None:
                raise Unreadable(f"neither end wrote down its {label}")
            side.keys = Keys(secret)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, 7.1, without a context."""
    name = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)
