"""Who signs a validator's votes: the node itself, or a signer in a process of its own at a Unix socket.

The node's vote journal decides what the node casts (`node.journal`). A signer elsewhere has a journal of its own and
trusts nobody: whoever asks, and whatever for, it never signs two votes that contradict each other. So a key that is in
a signer is safe from a node that was restored, copied or taken over, and a hardware module can stand in its place: the
messages are in docs/SIGNER.md.
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack

from ctt_state.crypto import public_key
from ctt_state.units import Hash, hex_of
from ctt_state.votes import SIGNATURE_BYTES, SIGNERS_MAX, MalformedVote, Statement, Vote, sign_vote
from node.exits import Exit, Failure
from node.journal import DoubleSign, Journal

VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1_024
ANSWER_SECONDS_MAX: Final = 0.3  # the storage thread waits for it
KEPT_VIEWS: Final = (
    256  # behind the newest view that was voted in, or the epoch before; older ones are refused
)
PATH_BYTES_MAX: Final = 107  # of a Unix socket's address
_LENGTH: Final = struct.Struct(">I")
_CREDENTIALS: Final = struct.Struct("3i")  # process, user, group


class SignerAway(Exception):
    """No answer now; there may be one later. Nothing was signed that is known of."""


class SignerRefused(Exception):
    """The signer does not sign this, and says why."""


class VoteSigner(Protocol):
    """A validator's key, wherever it is."""

    public_key: bytes

    def sign(self, statement: Statement, place: int) -> Vote:
        """The vote of the validator at this place of the epoch's set. Raises: SignerAway, SignerRefused."""


class OwnKey:
    """The key in this process."""

    def __init__(self, key: bytes, genesis_hash: Hash) -> None:
        self.public_key = public_key(key)
        self._key = key
        self._genesis_hash = genesis_hash

    def sign(self, statement: Statement, place: int) -> Vote:
        return sign_vote(statement, place, self._key, self._genesis_hash)


class SocketSigner:
    """The signer at a Unix socket. One thread asks; a connection that fails is made anew with the next question."""

    def __init__(self, path: Path, genesis_hash: Hash) -> None:
        """Raises: SignerAway; Failure (78) for a path that cannot be a socket's, or a signer that refuses the chain."""
        check_socket_path(path)
        self._path = path
        self._genesis_hash = genesis_hash
        self._line: socket.socket | None = None
        try:
            self.public_key = self._connect()
        except SignerRefused as reason:
            raise Failure(Exit.CONFIGURATION, f"{path}: the signer refuses: {reason}") from None

    def sign(self, statement: Statement, place: int) -> Vote:
        if self._line is None and self._connect() != self.public_key:
            self.close()
            raise SignerAway(f"{self._path}: the signer has another key now")
        signature = self._ask("sign", tuple(statement), place)
        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            raise self._away("it answers what is no signature")
        return Vote(statement, place, signature)

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connect(self) -> bytes:
        """Gives the key that it signs with. Raises: SignerAway, SignerRefused."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        line.settimeout(ANSWER_SECONDS_MAX)
        self._line = line
        try:
            line.connect(str(self._path))
        except OSError as fault:
            raise self._away(fault.strerror or "no answer in time") from None
        key = self._ask("hello", self._genesis_hash)
        if type(key) is not bytes:
            raise self._away("it answers what is no key")
        return key

    def _ask(self, *question: object) -> Any:
        """What it answers. Raises: SignerAway, SignerRefused."""
        if self._line is None:
            raise AssertionError("asked without a connection")
        try:
            self._line.sendall(encode_frame([VERSION, *question]))
            answer = self._read_frame(self._line)
        except TimeoutError:
            raise self._away(f"no answer in {ANSWER_SECONDS_MAX:g} s") from None
        except OSError as fault:
            raise self._away(fault.strerror or "the connection ended") from None
        except ValueError as fault:
            raise self._away(str(fault)) from None
        if type(answer) is not list or len(answer) != 2 or answer[0] not in ("ok", "refused"):
            raise self._away("it answers what is no answer")
        if answer[0] == "refused":
            raise SignerRefused(str(answer[1])[:200])
        return answer[1]

    @staticmethod
    def _read_frame(line: socket.socket) -> Any:
        """Raises: OSError; ValueError for what is no frame."""

        def read(count: int) -> bytes:
            data = b""
            while len(data) < count:
                part = line.recv(count - len(data))
                if not part:
                    raise ConnectionResetError
                data += part
            return data

        return decode_frame(read(frame_length(read(_LENGTH.size))))

    def _away(self, what: str) -> SignerAway:
        self.close()
        return SignerAway(f"{self._path}: {what}")


def check_socket_path(path: Path) -> None:
    """Raises: Failure (78)."""
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise Failure(
            Exit.CONFIGURATION,
            f"{path}: {len(os.fsencode(path))} bytes; a socket's path has at most {PATH_BYTES_MAX}",
        )


def encode_frame(message: object) -> bytes:
    """Four bytes of length, then MessagePack."""
    data: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(data)) + data


def frame_length(head: bytes) -> int:
    """Raises: ValueError."""
    length: int = _LENGTH.unpack(head)[0]
    if not 0 < length <= FRAME_BYTES_MAX:
        raise ValueError(f"frame of {length:,} bytes; limit {FRAME_BYTES_MAX:,}")
    return length


def decode_frame(data: bytes) -> Any:
    """Raises: ValueError."""
    try:
        return msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        raise ValueError("malformed message") from None


class SigningDesk:
    """What a signer answers: `journal` is its own, and open."""

    def __init__(self, key: bytes, genesis_hash: Hash, journal: Journal) -> None:
        self._own = OwnKey(key, genesis_hash)
        self._genesis_hash = genesis_hash
        self._journal = journal

    def answer(self, data: bytes) -> bytes:
        """The frame in answer to a frame's content. Raises: StorageFailed, after which nothing is signed any more."""
        try:
            return encode_frame(["ok", self._read(data)()])
        except (ValueError, DoubleSign) as refusal:
            return encode_frame(["refused", str(refusal)])

    def _read(self, data: bytes) -> Callable[[], bytes]:
        """What to do. Raises: ValueError, of which a MalformedVote is one."""
        match decode_frame(data):
            case [int(version), *_] if version != VERSION:
                raise ValueError(f"version {version}; this signer speaks {VERSION}")
            case [int(), "hello", bytes(genesis_hash)]:
                if genesis_hash != self._genesis_hash:
                    theirs, ours = hex_of(genesis_hash), hex_of(self._genesis_hash)
                    raise ValueError(f"genesis {theirs}; this signer's is {ours}")
                return lambda: self._own.public_key
            case [int(), "sign", list(statement), int(place)] if 0 <= place < SIGNERS_MAX:
                try:
                    asked = Statement.unpack(tuple(statement))
                except MalformedVote as fault:
                    raise ValueError(f"malformed statement: {fault}") from None
                return lambda: self._sign(asked, place)
            case _:
                raise ValueError("malformed question")

    def _sign(self, statement: Statement, place: int) -> bytes:
        """Raises: DoubleSign, StorageFailed."""
        vote = self._journal.cast(statement, (), None, lambda asked: self._own.sign(asked, place))
        epoch, view = statement.epoch, statement.view - KEPT_VIEWS
        self._journal.advance(*((epoch, view) if view > 0 else (max(0, epoch - 1), 0)), 0)
        return vote.signature


def is_ours(line: socket.socket) -> bool:
    """Whether who has connected is this user, or root."""
    with suppress(OSError):
        packed = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return _CREDENTIALS.unpack(packed)[1] in (os.geteuid(), 0)
    return False
