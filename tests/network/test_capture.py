"""Who signed what is read off the wire, and who signed two votes that exclude each other is found."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, product
from pathlib import Path
from typing import Final

import pytest

from ctt_state.crypto import public_key
from ctt_state.genesis import development_key
from ctt_state.units import ZERO_HASH, Hash
from ctt_state.votes import Certificate, Kind, Statement, Vote, contradict, sign_vote
from node.cli.ca import issue_development
from p2p.framing import encode_frame
from p2p.identity import load_identity
from p2p.messages import CertificateMessage, Message, Ping, VoteMessage
from tests.network.capture import FINALIZE, NOTARIZE, Capture, Signatures, Signed
from tests.network.tls import Unreadable

GENESIS_HASH: Final = Hash(b"\x07" * 32)
SEATS: Final = sorted(range(4), key=lambda seat: public_key(development_key(seat)))
KEYS: Final = [public_key(development_key(seat)) for seat in SEATS]
BLOCKS: Final = (Hash(b"\x01" * 32), Hash(b"\x02" * 32))

STATEMENTS: Final = [
    Statement(Kind.NULLIFY, 3, 9, 0, ZERO_HASH),
    *(
        Statement(kind, 3, 9, parent_view, block)
        for kind in (Kind.NOTARIZE, Kind.FINALIZE)
        for parent_view in (7, 8)
        for block in BLOCKS
    ),
]


def cast(statement: Statement, place: int = 1) -> Vote:
    return sign_vote(statement, place, development_key(SEATS[place]), GENESIS_HASH)


class Session:
    """A TLS session of two nodes in memory, whose bytes go to a capture in small pieces."""

    def __init__(self, directory: Path, capture: Capture, name: str) -> None:
        issue_development(directory, [("one", None), ("two", None)])
        ends = [load_identity(directory / each / "tls", datetime.now(UTC)) for each in ("one", "two")]
        contexts = (ends[0].client_context(), ends[1].server_context())
        for context in contexts:
            context.keylog_filename = str(capture.tls_keys)
        wires = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self._wires = {"FORWARD": wires[0], "BACKWARD": wires[1]}
        self._client = contexts[0].wrap_bio(wires[1], wires[0])
        self._server = contexts[1].wrap_bio(wires[0], wires[1], server_side=True)
        self._capture = capture
        self._name = name

        self._greet()

    def say(self, flow: str, message: Message) -> None:
        ends = (self._client, self._server)
        speaker, listener = ends if flow == "FORWARD" else ends[::-1]
        speaker.write(encode_frame(message.KIND, message.encode()))
        self._pass_on(flow)
        listener.read()

    def _greet(self) -> None:
        for _ in range(2):
            for end, flow in ((self._client, "FORWARD"), (self._server, "BACKWARD")):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                self._pass_on(flow)

    def _pass_on(self, flow: str) -> None:
        sent = self._wires[flow].read()
        for start in range(0, len(sent), 100):
            self._capture.write(f"{self._name} {flow}", sent[start : start + 100])
        self._wires[flow].write(sent)


def signatures_in(*messages: object) -> Signatures:
    signatures = Signatures(KEYS, GENESIS_HASH)
    for message in messages:
        signatures.read(message)
    return signatures


def test_what_nodes_say_to_each_other_is_read_from_the_wire(tmp_path: Path) -> None:
    """Two sessions at a time, in one direction each."""
    votes = [cast(statement) for statement in STATEMENTS]
    with Capture(tmp_path) as capture:
        first, second = (Session(tmp_path, capture, f"0 0-1 {number}") for number in (1, 2))
        for number, vote in enumerate(votes):
            first.say("FORWARD", VoteMessage(vote))
            second.say("BACKWARD", Ping(number))

    said = [[(vote,), (number,)] for number, vote in enumerate(votes)]
    assert list(capture.messages()) == list(chain(*said))


def test_a_vote_that_excludes_another_is_found_on_the_wire(tmp_path: Path) -> None:
    """They went to different peers, one of them within a certificate."""
    finalize = Statement(Kind.FINALIZE, 0, 5, 4, BLOCKS[0])
    nullify = Statement(Kind.NULLIFY, 0, 5, 0, ZERO_HASH)
    certificate = Certificate(nullify, tuple((place, cast(nullify, place).signature) for place in (0, 1, 3)))
    with Capture(tmp_path) as capture:
        Session(tmp_path, capture, "0 1-0 1").say("FORWARD", VoteMessage(cast(finalize)))
        Session(tmp_path, capture, "0 1-2 1").say("BACKWARD", CertificateMessage(certificate))

    (found,) = signatures_in(*capture.messages()).contradictions

    assert str(found) == (
        f"validator 1 signed FINALIZE in view 5 of epoch 0 for 0x{'01' * 8} on view 4 and NULLIFY in view 5 of epoch 0"
    )


def test_a_session_without_its_keys_is_told(tmp_path: Path) -> None:
    with Capture(tmp_path) as capture:
        Session(tmp_path, capture, "0 0-1 1").say("FORWARD", Ping(1))
    capture.tls_keys.write_text("")

    with pytest.raises(Unreadable, match="neither end wrote down its SERVER_HANDSHAKE_TRAFFIC_SECRET"):
        list(capture.messages())


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    with Capture(tmp_path) as capture:
        session = Session(tmp_path, capture, "0 0-1 1")
        capture.write("0 0-1 1 FORWARD", b"\x17\x03\x03\x00\x20" + bytes(32))
        session.say("FORWARD", Ping(1))

    with pytest.raises(Unreadable, match="that its keys do not open"):
        list(capture.messages())


def test_what_excludes_what_is_what_the_ledger_punishes() -> None:
    for votes in product(map(cast, STATEMENTS), repeat=2):
        assert bool(signatures_in(*votes).contradictions) == contradict(*votes), votes


def test_votes_of_other_views_epochs_and_validators_exclude_nothing() -> None:
    first = Statement(Kind.NOTARIZE, 3, 9, 8, BLOCKS[0])
    votes = [cast(first), cast(first._replace(view=10)), cast(first._replace(epoch=4)), cast(first, place=2)]

    signatures = signatures_in(*votes)

    assert signatures.count == 4
    assert not signatures.contradictions


def test_who_voted_for_a_block_is_known_by_its_hash() -> None:
    statement = Statement(Kind.NOTARIZE, 0, 1, 0, BLOCKS[0])

    signatures = signatures_in(*(cast(statement, place) for place in (0, 2, 2)))

    assert signatures.signers(NOTARIZE) == {f"0x{BLOCKS[0].hex()}": {0, 2}}
    assert signatures.signers(FINALIZE) == {}


@pytest.mark.parametrize("change", ["place", "statement", "signature"])
def test_a_vote_that_its_key_did_not_sign_counts_for_nobody(change: str) -> None:
    vote = cast(Statement(Kind.NOTARIZE, 0, 1, 0, BLOCKS[0]))
    changed = {
        "place": vote._replace(signer=2),
        "statement": vote._replace(statement=vote.statement._replace(view=2)),
        "signature": vote._replace(signature=bytes(64)),
    }[change]

    signatures = signatures_in(changed)

    assert signatures.forged == [(changed.signer, Signed(*changed.statement))]
    assert signatures.count == 0
