"""What passed between the nodes of a test's network, as it was sent, and who signed what in it.

Nothing here is shared with the nodes but the libraries: sessions, frames, votes and signatures are read anew.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256K1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.network.proxy import Direction
from tests.network.tls import Connection, read_secrets

NOTARIZE, NULLIFY, FINALIZE = 1, 2, 3
WORDS: Final = {NOTARIZE: "NOTARIZE", NULLIFY: "NULLIFY", FINALIZE: "FINALIZE"}
SIGNATURE_BYTES: Final = 64


class Capture:
    """A file of what was sent, in its order, and one of the keys. Between `with` and its end it can be written."""

    def __init__(self, directory: Path) -> None:
        self.tls_keys = directory / "tls-keys.txt"
        self._wire = directory / "wire.msgpack"
        self._file: Any = None

    def __enter__(self) -> Self:
        self._file = self._wire.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, flow: str, chunk: bytes) -> None:
        """A Tap."""
        self._file.write(msgpack.packb((flow, chunk)))

    def messages(self) -> Iterator[Any]:
        """All that nodes said to each other. Raises: Unreadable."""
        secrets = read_secrets(self.tls_keys)
        connections: dict[str, Connection] = defaultdict(lambda: Connection(secrets))
        streams: dict[str, bytearray] = defaultdict(bytearray)
        with self._wire.open("rb") as file:
            for flow, chunk in msgpack.Unpacker(file):
                connection, _, direction = flow.rpartition(" ")
                is_client = direction == Direction.FORWARD.name
                streams[flow] += connections[connection].feed(chunk, is_client=is_client)
                yield from cut_frames(streams[flow])


def cut_frames(stream: bytearray) -> Iterator[Any]:
    """The messages that are whole, which are taken off: a length, a kind and msgpack each."""
    while len(stream) >= 4 and len(stream) >= (end := 4 + int.from_bytes(stream[:4], "big")):
        yield msgpack.unpackb(stream[5:end], use_list=False)
        del stream[:end]


class Signed(NamedTuple):
    """What a key signed."""

    kind: int
    epoch: int
    view: int
    parent_view: int
    block_hash: bytes

    def __str__(self) -> str:
        where = f"in view {self.view} of epoch {self.epoch}"
        if self.kind == NULLIFY:
            return f"NULLIFY {where}"
        return f"{WORDS[self.kind]} {where} for 0x{self.block_hash.hex()[:16]} on view {self.parent_view}"

    def digest(self, genesis_hash: bytes) -> bytes:
        content = b"poa/simplex/v1" + bytes((self.kind,)) + genesis_hash
        content += self.epoch.to_bytes(8, "big") + self.view.to_bytes(8, "big")
        if self.kind != NULLIFY:
            content += self.parent_view.to_bytes(8, "big") + self.block_hash
        return hashlib.sha256(content).digest()

    def excludes(self, other: "Signed") -> bool:
        """Whether one key may not sign both (docs/PROTOCOL.md, C-6 and C-7)."""
        if (self.epoch, self.view) != (other.epoch, other.view):
            return False
        if NULLIFY in (self.kind, other.kind):
            return {self.kind, other.kind} == {NULLIFY, FINALIZE}
        return (self.parent_view, self.block_hash) != (other.parent_view, other.block_hash)


class Contradiction(NamedTuple):
    """What the key in this place of the set signed twice."""

    place: int
    first: Signed
    second: Signed

    def __str__(self) -> str:
        return f"validator {self.place} signed {self.first} and {self.second}"


class Signatures:
    """By the place of the key in the set, whose public keys are given in its order."""

    def __init__(self, keys: Sequence[bytes], genesis_hash: bytes) -> None:
        self._keys = [EllipticCurvePublicKey.from_encoded_point(SECP256K1(), key) for key in keys]
        self._genesis_hash = genesis_hash
        self._seen: set[tuple[int, Signed, bytes]] = set()
        self._by_view: dict[tuple[int, int, int], list[Signed]] = defaultdict(list)
        self.forged: list[tuple[int, Signed]] = []
        self.contradictions: list[Contradiction] = []

    def read(self, message: Any) -> None:
        """All votes in it, alone and in certificates."""
        match message:
            case ((int(), int(), int(), int(), bytes()) as statement, int(place), bytes(signature)) if (
                len(signature) == SIGNATURE_BYTES
            ):
                self._add(place, Signed(*statement), signature)
            case (1, (int(), int(), int(), int(), bytes()) as statement, bytes(bitmap), bytes(joined)):
                places = [place for place in range(8 * len(bitmap)) if bitmap[place // 8] >> place % 8 & 1]
                for number, place in enumerate(places):
                    signature = joined[number * SIGNATURE_BYTES : (number + 1) * SIGNATURE_BYTES]
                    self._add(place, Signed(*statement), signature)
            case tuple():
                for part in message:
                    self.read(part)

    @property
    def count(self) -> int:
        return sum(map(len, self._by_view.values()))

    def signers(self, kind: int) -> Mapping[str, set[int]]:
        """By the hash of the block, as JSON-RPC writes it, the places of those who signed so for it."""
        found = defaultdict(set)
        for (place, _, _), statements in self._by_view.items():
            for signed in statements:
                if signed.kind == kind:
                    found[f"0x{signed.block_hash.hex()}"].add(place)
        return found

    def _add(self, place: int, signed: Signed, signature: bytes) -> None:
        if (place, signed, signature) in self._seen:
            return
        self._seen.add((place, signed, signature))
        if not self._is_genuine(place, signed, signature):
            self.forged.append((place, signed))
            return
        earlier = self._by_view[place, signed.epoch, signed.view]
        self.contradictions += [
            Contradiction(place, each, signed) for each in earlier if signed.excludes(each)
        ]
        if signed not in earlier:
            earlier.append(signed)

    def _is_genuine(self, place: int, signed: Signed, signature: bytes) -> bool:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        digest = signed.digest(self._genesis_hash)
        try:
            self._keys[place].verify(encode_dss_signature(r, s), digest, ECDSA(Prehashed(SHA256())))
        except (InvalidSignature, IndexError):
            return False
        return True
