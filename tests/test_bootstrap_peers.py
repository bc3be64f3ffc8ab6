"""`ctt init --from-peer` against peers that do not give what they should: one line, a code, and nothing left behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

import pytest

from ctt_state.crypto import public_key
from ctt_state.units import Hash, Height, hex_of
from ctt_state.validators import ValidatorSet
from node.cli.asking import _explain
from node.cli.certificates import Authority, create_authority
from node.cli.main import main
from node.exits import Exit
from node.journal import Place, read_journal
from node.keys import KEY_FILE, create_key
from node.ledger import Ledger
from node.peering import Peering
from node.store import StorageMissing, Store
from p2p import messages as wire
from p2p.errors import PeerLeft, Reason
from p2p.identity import REVOKED_FILE, load_identity, show_serial
from p2p.network import Chain, Delivered, Endpoint, Network, PeerInfo
from tests.cli_world import Ctt, Result
from tests.ledger_world import ALICE_KEY, CHAIN_ID, GENESIS, add_block, document, make_ledger, sign
from tests.live_network import wait_for

NOW: Final = datetime.now(UTC)
EPOCH_BLOCKS: Final = 10
HEIGHT: Final = 27  # the next set is fixed, which no end of an epoch has shown yet
SOON_S: Final = 10.0
Lie = Callable[[wire.Request, wire.Reply], wire.Reply | None]


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctt:
    """With little patience."""
    monkeypatch.setattr("node.cli.asking.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("node.cli.asking.CONNECT_SECONDS", 1.5)
    return Ctt(capsys, one_line=True)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A chain of one validator, in its third epoch."""
    opened = make_ledger(tmp_path_factory.mktemp("chain") / "node", epochBlocks=EPOCH_BLOCKS)
    for nonce in range(HEIGHT):
        add_block(opened, [sign(ALICE_KEY, nonce)])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def genesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genesis") / "genesis.json"
    path.write_bytes(document(epochBlocks=EPOCH_BLOCKS))
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("consortium") / "ca"
    return create_authority(directory, "Consortium", now=NOW - timedelta(days=1), days=90)


@pytest.fixture
def home(authority: Authority, tmp_path: Path) -> Path:
    """A directory with nothing but a certificate."""
    issue(authority, tmp_path / "home" / "tls", "newcomer")
    return tmp_path / "home"


def issue(authority: Authority, out: Path, name: str) -> int:
    """The serial number."""
    out.parent.mkdir(exist_ok=True)
    return authority.issue(out, name, None, now=NOW, days=60).serial_number


class Liar:
    """A peer that answers as every node does (p2p.network.Handler), but for what a lie makes of it: another answer, or
    none. It lives on a thread of its own. A context manager."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        directory: Path,
        lie: Lie | None = None,
        *,
        name: str = "peer",
        chain: Chain | None = None,
        revoked: int | None = None,
    ) -> None:
        self.name = name
        self.asked: list[wire.Request] = []
        self._lie = lie or (lambda question, reply: reply)
        self._peering = Peering(ledger)
        self.serial = issue(authority, directory / name, name)
        if revoked is not None:
            (directory / name / REVOKED_FILE).write_text(show_serial(revoked) + "\n")
        self._network = Network(
            load_identity(directory / name, NOW),
            chain or Chain(CHAIN_ID, ledger.genesis.hash),
            {},
            self,
            listen=Endpoint("127.0.0.1", 0),
            height=lambda: ledger.head.block.header.height,
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            rng=Random(name),
        )
        self.endpoint = self._network.bind()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    @property
    def flag(self) -> tuple[str, str]:
        return "--from-peer", f"{self.name}={self.endpoint}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(SOON_S)
        self._loop.close()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._network.run())
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))

    def on_connected(self, peer: PeerInfo) -> None:
        """As a node does: it says something that was not asked for, and asks something itself."""
        self._network.send(peer.name, wire.StatusMessage(1, 2, Height(3), Hash(b"h" * 32), None))
        self._network.send(peer.name, wire.GetBlocks(1, Height(1), 1))

    def on_message(self, peer: PeerInfo, message: Delivered) -> None:
        if isinstance(message, wire.Refused):
            assert message.text == "no chain is here yet"
        elif isinstance(message, wire.Request):
            self.asked.append(message)
            reply = self._lie(message, self._peering._answer(message))
            if reply is not None:
                self._network.send(peer.name, reply)

    def on_disconnected(self, peer: PeerInfo, reason: str) -> None:
        pass


@pytest.fixture
def make_peer(ledger: Ledger, authority: Authority, tmp_path: Path) -> Callable[..., Liar]:
    def make(lie: Lie | None = None, **options: object) -> Liar:
        return Liar(ledger, authority, tmp_path, lie, **options)  # type: ignore[arg-type]

    return make


MakePeer = Callable[..., Liar]


def check_nothing_begun(home: Path) -> None:
    """What is left, the next call throws away."""
    assert {path.name for path in home.iterdir()} <= {"tls", "node.lock", "db.new"}
    with pytest.raises(StorageMissing):
        Store.open(home)


# --- what an honest peer brings ---------------------------------------------------------------------------------------


def test_a_follower_begins_with_the_peers_block(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    with make_peer() as peer:
        result = ctt("init", "--dir", home, "--genesis", genesis, "--follower", *peer.flag)
        head, records = ledger.head, len(list(ledger.store.state_rows()))
        assert result == (
            0,
            (
                f"{home}: begins with block {HEIGHT} {hex_of(head.hash)} of epoch 2, {records} records from peer\n"
                f"{home}: ready; start it with: ctt run --dir {home}\n"
            ),
            "",
        )
    assert {path.name for path in home.iterdir()} == {"tls", "node.lock", "db", "anchor"}
    begun = Ledger.open(home)
    assert begun.head.block.header == head.block.header
    assert dict(begun.store.state_rows()) == dict(ledger.store.state_rows())
    assert begun.validators(3) == ledger.validators(3)
    begun.close()
    assert ctt("verify", "--dir", home) == (
        0,
        f"{home}: ok: block 27, the state root and every invariant hold\n",
        "",
    )


def test_a_key_without_votes_gets_a_journal_that_begins_above_the_block(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer, tmp_path: Path
) -> None:
    create_key(tmp_path / "new.key", bytes(31) + b"\x09")
    with make_peer() as peer:
        result = ctt("init", "--dir", home, "--genesis", genesis, "--key", tmp_path / "new.key", *peer.flag)
    assert result.code == 0
    header = ledger.head.block.header
    contents = read_journal(home)
    assert (contents.marks.floor, contents.marks.height) == (Place(header.epoch, header.view), header.height)
    assert contents.public_key == public_key(bytes(31) + b"\x09")


def test_a_key_that_was_there_gets_no_journal_and_may_get_one_by_hand(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    """It may have voted: only its owner can know."""
    create_key(home / KEY_FILE, bytes(31) + b"\x09")
    with make_peer() as peer:
        result = ctt("init", "--dir", home, "--genesis", genesis, *peer.flag)
    assert result.code == 0
    assert "the key was here before, its vote journal is not" in result.out
    assert not (home / "votes").exists()
    assert ctt("journal", "init", "--dir", home, "--i-am-sure").code == 0
    header = ledger.head.block.header
    assert read_journal(home).marks.floor == Place(header.epoch, header.view)


def test_a_checkpoint_is_where_proofs_begin(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    checkpoint = f"10:{hex_of(ledger.store.hash_at(10))}"
    with make_peer() as peer:
        result = ctt(
            *("init", "--dir", home, "--genesis", genesis, "--follower", "--checkpoint", checkpoint),
            *peer.flag,
        )
    assert result.code == 0
    asked = [each.from_epoch for each in peer.asked if isinstance(each, wire.GetEpochs)]
    assert asked == [0, 1, 2]


def test_an_epoch_that_ends_meanwhile_is_followed(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    """The peer had not heard yet of what it offers then."""
    hidden = True

    def forget(question: wire.Request, reply: wire.Reply) -> wire.Reply:
        nonlocal hidden
        if isinstance(reply, wire.EpochsReply) and hidden:
            return wire.EpochsReply(reply.request, ())
        hidden = hidden and not isinstance(reply, wire.SnapshotReply)
        return reply

    with make_peer(forget) as peer:
        assert ctt("init", "--dir", home, "--genesis", genesis, "--follower", *peer.flag).code == 0


def test_the_next_peer_is_asked_when_one_fails(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    """What the first has proven need not be proven again."""

    def cut(question: wire.Request, reply: wire.Reply) -> wire.Reply | None:
        return None if isinstance(reply, wire.SnapshotChunk) else reply

    with make_peer(cut, name="one") as one, make_peer(name="two") as two:
        result = ctt("init", "--dir", home, "--genesis", genesis, "--follower", *one.flag, *two.flag)
    assert result.code == 0
    assert result.out.startswith("one: no answer to 'get snapshot chunk' within 0.5 s\n")
    assert "from two\n" in result.out
    assert [each.from_epoch for each in two.asked if isinstance(each, wire.GetEpochs)] == [2]


# --- lies and silence -------------------------------------------------------------------------------------------------


def silent_at(kind: type[wire.Reply]) -> Lie:
    return lambda question, reply: None if isinstance(reply, kind) else reply


def refusing(kind: type[wire.Reply]) -> Lie:
    return lambda question, reply: wire.Refused(reply.request, "no") if isinstance(reply, kind) else reply


def change_row(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotChunk):
        return reply
    (key, _), *rest = reply.rows
    return wire.SnapshotChunk(reply.request, ((key, b"\x00"), *rest), reply.is_last)


def leave_out_row(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotChunk):
        return reply
    return wire.SnapshotChunk(reply.request, reply.rows[1:], reply.is_last)


def never_end(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotChunk):
        return reply
    return wire.SnapshotChunk(reply.request, reply.rows[:2], is_last=False)


def repeat_rows(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotChunk):
        return reply
    large = tuple((b"\x01%06d" % number, b"v" * 100) for number in range(wire.ROWS_MAX))
    return wire.SnapshotChunk(reply.request, large, is_last=False)


def disorder_rows(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotChunk):
        return reply
    return wire.SnapshotChunk(reply.request, reply.rows[::-1], reply.is_last)


def change_root(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotReply):
        return reply
    header = reply.header._replace(state_root=Hash(b"r" * 32))
    return wire.SnapshotReply(reply.request, header, reply.certificate)


def offer_first_block(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotReply):
        return reply
    return wire.SnapshotReply(
        reply.request, reply.header._replace(height=Height(1), epoch=0), reply.certificate
    )


def offer_later_epoch(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.SnapshotReply):
        return reply
    return wire.SnapshotReply(
        reply.request, reply.header._replace(height=Height(57), epoch=5), reply.certificate
    )


def take_other_set(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    if not isinstance(reply, wire.EpochsReply) or not reply.epochs:
        return reply
    first, *rest = reply.epochs
    (member,) = first.next_set.members
    other = ValidatorSet((member._replace(consensus_key=public_key(bytes(31) + b"\x09")),))
    return wire.EpochsReply(reply.request, (wire.EpochEnd(first.header, first.certificate, other), *rest))


def skip_epoch(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    return wire.EpochsReply(reply.request, reply.epochs[1:]) if isinstance(reply, wire.EpochsReply) else reply


def answer_otherwise(question: wire.Request, reply: wire.Reply) -> wire.Reply:
    return wire.BlockReply(reply.request, None)


FAILURES: Final[dict[str, tuple[Lie, int, str]]] = {
    "silent about epochs": (silent_at(wire.EpochsReply), 69, "no answer to 'get epochs' within 0.5 s"),
    "silent about a snapshot": (
        silent_at(wire.SnapshotReply),
        69,
        "no answer to 'get snapshot' within 0.5 s",
    ),
    "silent about rows": (
        silent_at(wire.SnapshotChunk),
        69,
        "no answer to 'get snapshot chunk' within 0.5 s",
    ),
    "no epochs": (refusing(wire.EpochsReply), 69, "refused 'get epochs': no"),
    "no snapshot": (refusing(wire.SnapshotReply), 69, "refused 'get snapshot': no"),
    "no rows": (refusing(wire.SnapshotChunk), 69, "refused 'get snapshot chunk': no"),
    "a changed row": (change_row, 65, "the rows have state root "),
    "a row left out": (leave_out_row, 65, "the rows have state root "),
    "pieces without end": (never_end, 65, "a piece of 2 rows with "),
    "the same rows again": (repeat_rows, 65, "row 01303030303030 comes after row 01303038313931"),
    "rows in disorder": (
        disorder_rows,
        65,
        "malformed snapshot chunk: field 'rows' is not in the order of its keys",
    ),
    "another root": (change_root, 65, "certificate of block "),
    "nothing but block 1": (offer_first_block, 69, "has block 1 only: there is nothing to skip yet"),
    "a block of an unknown epoch": (offer_later_epoch, 65, "block 57 is of epoch 5; known are 0 to 2"),
    "another set": (take_other_set, 65, "set "),
    "an epoch left out": (skip_epoch, 65, "boundary of epoch 1; the client stands in epoch 0"),
    "another answer": (answer_otherwise, 65, "block to request 1, which was get epochs"),
}


@pytest.mark.parametrize("fault", FAILURES)
def test_what_a_peer_may_do_is_said_in_one_line(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer, fault: str
) -> None:
    lie, code, text = FAILURES[fault]
    with make_peer(lie) as peer, make_peer(name="honest") as honest:
        result = ctt("init", "--dir", home, "--genesis", genesis, "--follower", *peer.flag)
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith(f"ctt: peer: {text}")
        check_nothing_begun(home)

        assert ctt("init", "--dir", home, "--genesis", genesis, "--follower", *honest.flag).code == 0


def test_several_failures_stand_in_one_line(ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer) -> None:
    with make_peer(change_row, name="one") as one, make_peer(refusing(wire.EpochsReply), name="two") as two:
        init = ("init", "--dir", home, "--genesis", genesis, "--follower")
        result = ctt(*init, *one.flag, *two.flag)
        assert (result.code, result.out) == (69, "")
        assert result.err.startswith("ctt: one: the rows have state root ")
        assert result.err.endswith("; two: refused 'get epochs': no\n")
        assert ctt(*init, *one.flag, "--from-peer", f"one-again={one.endpoint}").code == 69


# --- who does not even talk -------------------------------------------------------------------------------------------


def init(ctt: Ctt, home: Path, genesis: Path, *flags: str) -> Result:
    return ctt("init", "--dir", home, "--genesis", genesis, "--follower", *flags)


def test_a_peer_of_another_chain_is_named(ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer) -> None:
    other = Hash(b"g" * 32)
    with make_peer(chain=Chain(CHAIN_ID, other)) as peer:
        result = init(ctt, home, genesis, *peer.flag)
    assert result.code == 78
    seen_here = result.err.startswith("ctt: peer: genesis differs: ours 0x")
    assert not seen_here or result.err.endswith(f"theirs {hex_of(other)}\n")
    assert seen_here or result.err == "ctt: peer: it closed the connection: other_chain\n"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (PeerLeft(Reason.OTHER_CHAIN), 78),
        (PeerLeft(Reason.OTHER_VERSION), 78),
        (PeerLeft(Reason.SHUTDOWN), 69),
        (PeerLeft(), 69),
    ],
)
def test_what_a_peer_says_when_it_leaves_has_its_exit_code(fault: PeerLeft, code: int) -> None:
    assert _explain(fault, was_met=False).code == code


def test_another_node_at_the_address_is_named(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    with make_peer() as peer:
        result = init(ctt, home, genesis, "--from-peer", f"other={peer.endpoint}")
    assert result == (78, "", "ctt: other: other was dialled, peer answered\n")


def test_a_revoked_peer_is_not_listened_to(ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer) -> None:
    with make_peer() as peer:
        (home / "tls" / REVOKED_FILE).write_text(show_serial(peer.serial) + "\n")
        result = init(ctt, home, genesis, *peer.flag)
    text = f"ctt: peer: the certificate {show_serial(peer.serial)} of peer is revoked\n"
    assert result == (77, "", text)


def test_a_peer_that_has_revoked_this_node_hangs_up(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    serial = load_identity(home / "tls", NOW).own.serial
    with make_peer(revoked=serial) as peer:
        result = init(ctt, home, genesis, *peer.flag)
    assert (result.code, result.out) == (69, "")
    assert result.err.endswith("; perhaps it does not trust this node's certificate\n")


def test_a_peer_of_another_consortium_is_not_trusted(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, tmp_path: Path
) -> None:
    other = create_authority(tmp_path / "ca", "Others", now=NOW - timedelta(days=1), days=90)
    with Liar(ledger, other, tmp_path) as peer:
        result = init(ctt, home, genesis, *peer.flag)
    assert result == (77, "", "ctt: peer: handshake authentication failed: CERTIFICATE_VERIFY_FAILED\n")


def test_nobody_at_the_address(ctt: Ctt, genesis: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mute = init(ctt, home, genesis, "--from-peer", f"peer=127.0.0.1:{port}")
    gone = init(ctt, home, genesis, "--from-peer", f"peer=127.0.0.1:{port}")
    assert mute == (69, "", "ctt: peer: no connection within 1.5 s\n")
    assert (gone.code, gone.out) == (69, "")
    assert gone.err.startswith("ctt: peer: ") and "onnect" in gone.err


# --- wrong calls ------------------------------------------------------------------------------------------------------


def test_what_is_wrong_here_is_said_before_anyone_is_asked(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer, tmp_path: Path
) -> None:
    with make_peer() as peer:
        bare = init(ctt, tmp_path / "bare", genesis, *peer.flag)
        assert (bare.code, "no certificate to show to peers" in bare.err) == (Exit.MISSING, True)
        itself = init(ctt, home, genesis, "--from-peer", f"newcomer={peer.endpoint}")
        assert (itself.code, "the name in the certificate here" in itself.err) == (Exit.USAGE, True)
        alone = init(ctt, home, genesis, "--checkpoint", f"10:0x{'ab' * 32}")
        assert (alone.code, "--from-peer" in alone.err) == (Exit.USAGE, True)
        middle = init(ctt, home, genesis, *peer.flag, "--checkpoint", f"17:0x{'ab' * 32}")
        assert middle == (
            Exit.USAGE,
            "",
            "ctt: --checkpoint 17: not the last block of an epoch; those are the multiples of 10\n",
        )
        assert init(ctt, tmp_path / "there", genesis).code == 0
        (home / "tls").rename(tmp_path / "there" / "tls")
        there = init(ctt, tmp_path / "there", genesis, *peer.flag)
        assert (there.code, "already holds a chain" in there.err) == (Exit.CANNOT_CREATE, True)
    assert peer.asked == []


@pytest.mark.parametrize(
    "text", ["10", "10:", f"0:0x{'ab' * 32}", f"10:{'ab' * 32}", "10:0xab", f"x:0x{'ab' * 32}"]
)
def test_a_malformed_checkpoint_is_a_wrong_call(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["init", "--dir", "nowhere", "--follower", "--checkpoint", text])
    assert end.value.code == Exit.USAGE
    assert "is not HEIGHT:HASH" in capsys.readouterr().err


def test_another_block_than_the_checkpoint_is_refused(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    wrong = "0x" + "ab" * 32
    with make_peer() as peer:
        other = init(ctt, home, genesis, *peer.flag, "--checkpoint", f"10:{wrong}")
        later = init(ctt, home, genesis, *peer.flag, "--checkpoint", f"30:{wrong}")
    block = f"has block 10 {hex_of(ledger.store.hash_at(10))}, not the checkpoint 10 {wrong}"
    assert other == (65, "", f"ctt: peer: {block}\n")
    assert later == (69, "", "ctt: peer: has no block 30\n")


def test_the_checkpoints_set_is_the_one_it_names(
    ctt: Ctt, ledger: Ledger, genesis: Path, home: Path, make_peer: MakePeer
) -> None:
    with make_peer(take_other_set) as peer:
        result = init(
            ctt, home, genesis, *peer.flag, "--checkpoint", f"10:{hex_of(ledger.store.hash_at(10))}"
        )
    assert result == (65, "", "ctt: peer: shows another set than block 10 names\n")


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_was_interrupted_begins_anew(
    ctt: Ctt, genesis: Path, home: Path, make_peer: MakePeer, number: signal.Signals
) -> None:
    with make_peer(silent_at(wire.SnapshotChunk)) as peer, make_peer(name="honest") as honest:
        arguments = ("init", "--dir", str(home), "--genesis", str(genesis), "--follower", *peer.flag)
        process = subprocess.Popen(
            [sys.executable, "-m", "node.cli.main", *arguments],
            stderr=subprocess.PIPE,
            cwd=GENESIS.parent,
            env=os.environ,
        )
        wait_for(lambda: any(isinstance(each, wire.GetSnapshotChunk) for each in peer.asked))
        process.send_signal(number)
        _, told = process.communicate(timeout=SOON_S)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        assert told == b""
        check_nothing_begun(home)

        assert init(ctt, home, genesis, *honest.flag).code == 0
    assert ctt("verify", "--dir", home).code == 0
