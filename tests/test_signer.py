"""The signer: it never signs two votes that contradict each other, whoever asks, and a node waits while it is away."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import public_key
from ctt_state.genesis import development_key, load_genesis
from ctt_state.units import ZERO_HASH, Hash
from ctt_state.votes import Kind, Statement, Vote, contradict, is_signed
from node.cli.main import main
from node.journal import Journal
from node.keys import KEY_FILE, create_key
from node.signer import (
    FRAME_BYTES_MAX,
    KEPT_VIEWS,
    SignerAway,
    SignerRefused,
    SigningDesk,
    SocketSigner,
    frame_length,
)
from tests.live_network import wait_for
from tests.live_node import GENESIS, LiveNode, free_port

KEY: Final = development_key(0)
CHAIN: Final = load_genesis(GENESIS.read_bytes()).hash
ONE, OTHER = Hash(b"\x01" * 32), Hash(b"\x02" * 32)


@contextmanager
def opened(directory: Path) -> Iterator[SigningDesk]:
    if not (directory / "votes").exists():
        Journal.create(directory, CHAIN, public_key(KEY))
    journal = Journal.open(directory, CHAIN, public_key(KEY), (0, 0, 0))
    try:
        yield SigningDesk(KEY, CHAIN, journal)
    finally:
        journal.close()


def ask(desk: SigningDesk, *question: object) -> tuple[str, Any]:
    frame = desk.answer(msgpack.packb(question))
    assert frame_length(frame[:4]) == len(frame) - 4
    word, value = msgpack.unpackb(frame[4:])
    return word, value


def statement(kind: Kind, view: int, block: Hash = ONE, epoch: int = 0) -> Statement:
    return Statement(kind, epoch, view, *((0, ZERO_HASH) if kind is Kind.NULLIFY else (view - 1, block)))


def sign(desk: SigningDesk, asked: Statement) -> tuple[str, Any]:
    return ask(desk, 1, "sign", tuple(asked), 0)


def test_it_tells_its_key_to_who_names_its_chain(tmp_path: Path) -> None:
    with opened(tmp_path) as desk:
        assert ask(desk, 1, "hello", CHAIN) == ("ok", public_key(KEY))
        word, text = ask(desk, 1, "hello", b"\x09" * 32)
        assert word == "refused" and text.startswith("genesis 0x0909")


def test_it_signs_a_vote_once_and_again_the_same(tmp_path: Path) -> None:
    asked = statement(Kind.NOTARIZE, 3)
    with opened(tmp_path) as desk:
        word, signature = sign(desk, asked)
        assert word == "ok" and is_signed(Vote(asked, 0, signature), [public_key(KEY)], CHAIN)
    with opened(tmp_path) as desk:
        assert sign(desk, asked) == ("ok", signature)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (statement(Kind.NOTARIZE, 3), statement(Kind.NOTARIZE, 3, OTHER)),
        (statement(Kind.NOTARIZE, 3), statement(Kind.NOTARIZE, 2)),
        (statement(Kind.NULLIFY, 3), statement(Kind.FINALIZE, 3)),
        (statement(Kind.FINALIZE, 3), statement(Kind.NULLIFY, 3)),
        (statement(Kind.FINALIZE, 3), statement(Kind.FINALIZE, 3, OTHER)),
    ],
)
def test_what_contradicts_is_refused_also_after_a_restart(
    tmp_path: Path, first: Statement, second: Statement
) -> None:
    with opened(tmp_path) as desk:
        assert sign(desk, first)[0] == "ok"
        assert sign(desk, second)[0] == "refused"
    with opened(tmp_path) as desk:
        assert sign(desk, second)[0] == "refused"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (statement(Kind.NOTARIZE, KEPT_VIEWS + 9), statement(Kind.FINALIZE, 9)),
        (statement(Kind.NULLIFY, 1, epoch=2), statement(Kind.NULLIFY, 5, epoch=0)),
    ],
)
def test_what_is_old_is_refused(tmp_path: Path, first: Statement, second: Statement) -> None:
    with opened(tmp_path) as desk:
        assert sign(desk, first)[0] == "ok"
        assert sign(desk, second)[0] == "refused"


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ((2, "hello", CHAIN), "version 2; this signer speaks 1"),
        ((1, "hello"), "malformed question"),
        ((1, "sign", [1, 2], 0), "malformed statement"),
        ((1, "sign", list(statement(Kind.NOTARIZE, 3)), 100), "malformed question"),
        ((1, "sign", [1, 0, 3, 3, ONE], 0), "malformed statement: parent view 3 is not below view 3"),
        ((), "malformed question"),
    ],
)
def test_what_is_no_question_is_refused(tmp_path: Path, question: tuple[object, ...], text: str) -> None:
    with opened(tmp_path) as desk:
        word, told = ask(desk, *question)
        assert word == "refused" and text in told
        assert msgpack.unpackb(desk.answer(b"\xc1")[4:]) == ["refused", "malformed message"]


STATEMENTS: Final = st.builds(
    statement, st.sampled_from(Kind), st.integers(1, 4), st.sampled_from([ONE, OTHER]), st.integers(0, 1)
)


@given(st.lists(st.one_of(STATEMENTS, st.none()), max_size=24))
def test_no_two_signatures_ever_contradict(
    tmp_path_factory: pytest.TempPathFactory, asked: list[Statement | None]
) -> None:
    """Whatever any number of nodes ask, and however often the signer is started again (None)."""
    directory = tmp_path_factory.mktemp("signer")
    signed: list[Vote] = []
    runs: list[list[Statement]] = [[]]
    for each in asked:
        runs.append([]) if each is None else runs[-1].append(each)
    for run in runs:
        with opened(directory) as desk:
            for each in run:
                word, value = sign(desk, each)
                if word == "ok":
                    signed.append(Vote(each, 0, value))
    assert not [(one, two) for one in signed for two in signed if contradict(one, two)]


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_has_bounds(length: int) -> None:
    with pytest.raises(ValueError, match=f"frame of {length:,} bytes; limit 1,024"):
        frame_length(length.to_bytes(4, "big"))


# --- processes ----------------------------------------------------------------------------------------------------


class Desk:
    """`ctt signer run` over a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory / "signer", directory / "s.sock"
        create_key(directory / "validator.key", KEY)
        made = ("--dir", self.directory, "--genesis", GENESIS, "--key", directory / "validator.key")
        assert ctt("signer", "init", *made, "--never-voted") == 0
        self.log = (directory / "signer.log").open("ab")
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        command = (
            sys.executable,
            "-m",
            "node.cli.main",
            "signer",
            "run",
            "--dir",
            self.directory,
            "--socket",
            self.path,
        )
        environment = os.environ | {"PYTHONPATH": str(GENESIS.parent)}
        self.process = subprocess.Popen(
            command, env=environment, cwd=GENESIS.parent, stdout=self.log, stderr=self.log
        )
        wait_for(lambda: self.process.poll() is not None or answers(self.path))
        return self.process


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(path)) == 0


def ctt(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    try:
        yield made
    finally:
        made.process.send_signal(signal.SIGCONT)
        made.process.terminate()
        assert made.process.wait(10) in (0, -signal.SIGKILL)
        made.log.close()


def test_a_node_without_a_key_votes_while_its_signer_is_there(desk: Desk, tmp_path: Path) -> None:
    home = tmp_path / "node"
    assert ctt("init", "--dir", home, "--genesis", GENESIS, "--follower") == 0
    with LiveNode(home, flags=("--signer", str(desk.path))) as node:

        def height() -> int:
            return int(node.call("eth_blockNumber"), 16)

        def trouble() -> Any:
            return node.call("ctt_chainStatus")["notVoting"]

        assert not (home / KEY_FILE).exists()
        wait_for(lambda: height() >= 3)
        for away, back in ((signal.SIGKILL, None), (signal.SIGSTOP, signal.SIGCONT)):
            desk.process.send_signal(away)
            told = wait_for(trouble)
            assert told.startswith(f"not voting: no signer at {desk.path}: ")
            before = height()
            time.sleep(1)
            assert height() <= before + 1
            if back is None:
                desk.process.wait()
                desk.start()
            else:
                desk.process.send_signal(back)
            wait_for(lambda at=before: height() >= at + 3)  # type: ignore[misc]
            assert trouble() is None
    assert "the signer is back: voting" in node.log()


def test_two_askers_get_one_truth(desk: Desk) -> None:
    one, two = SocketSigner(desk.path, CHAIN), SocketSigner(desk.path, CHAIN)
    vote = one.sign(statement(Kind.NOTARIZE, 3), 0)
    assert two.sign(statement(Kind.NOTARIZE, 3), 0) == vote
    with pytest.raises(SignerRefused, match="this key has signed NOTARIZE of epoch 0, view 3"):
        two.sign(statement(Kind.NOTARIZE, 3, OTHER), 0)
    one.close()
    two.close()


def test_strange_bytes_end_the_connection_and_nothing_else(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(desk.path))
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert line.recv(100) == b""
    signer = SocketSigner(desk.path, CHAIN)
    assert signer.public_key == public_key(KEY)
    signer.close()
    assert desk.path.stat().st_mode & 0o777 == 0o600


def refusal(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    capsys.readouterr()
    assert ctt(*words) == code
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    return text


def test_what_cannot_be_is_said_in_a_line(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, run = tmp_path / "node", ("signer", "run", "--dir", desk.directory, "--socket")
    assert ctt("init", "--dir", home, "--genesis", GENESIS, "--follower") == 0
    node = ("run", "--dir", home, "--signer")
    assert "no signer at" in refusal(capsys, 69, *node, tmp_path / "nobody.sock")
    assert "at most 107" in refusal(capsys, 78, *node, tmp_path / ("x" * 120))
    assert "at most 107" in refusal(capsys, 78, *run, tmp_path / ("x" * 120))
    assert "uses" in refusal(capsys, 69, *run, tmp_path / "other.sock")  # the journal
    (tmp_path / "file").write_text("mine")
    second = tmp_path / "second"
    made = ("signer", "init", "--dir", second, "--genesis", GENESIS, "--key", tmp_path / "validator.key")
    assert "needs one of" in refusal(capsys, 64, *made)
    assert ctt(*made, "--never-voted") == 0
    assert "never overwritten" in refusal(capsys, 73, *made, "--never-voted")
    run = ("signer", "run", "--dir", second, "--socket")
    assert "is no socket" in refusal(capsys, 73, *run, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert "listens there already" in refusal(capsys, 69, *run, desk.path)
    create_key(home / KEY_FILE, KEY)
    assert "with --signer the key is the signer's" in refusal(capsys, 78, *node, desk.path)


def test_a_socket_that_nobody_serves_is_away(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(tmp_path / "deaf.sock"))
        line.listen()
        with pytest.raises(SignerAway, match=r"no answer in 0.3 s"):
            SocketSigner(tmp_path / "deaf.sock", CHAIN)


def test_the_marks_of_a_node_come_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that has voted in a node: above what it has signed there only."""
    with LiveNode(tmp_path / "node") as node:
        wait_for(lambda: int(node.call("eth_blockNumber"), 16) >= 3)
    capsys.readouterr()
    assert ctt("journal", "export", "--dir", node.directory) == 0
    (tmp_path / "marks.json").write_text(capsys.readouterr().out)
    made = ("--genesis", GENESIS, "--key", node.directory / KEY_FILE, "--marks", tmp_path / "marks.json")
    assert ctt("signer", "init", "--dir", tmp_path / "signer", *made) == 0
    with opened(tmp_path / "signer") as desk:
        assert sign(desk, statement(Kind.NOTARIZE, 1))[0] == "refused"
        assert sign(desk, statement(Kind.NOTARIZE, 10_000))[0] == "ok"


def test_the_page_is_run_as_written(tmp_path: Path) -> None:
    """docs/SIGNER.md, with a node at another port, until it has made blocks."""
    (page,) = re.findall(r"```sh\n(.*?)```", (GENESIS.parent / "docs/SIGNER.md").read_text(), re.DOTALL)
    create_key(tmp_path / "validator.key", KEY)
    (tmp_path / "genesis.json").write_bytes(GENESIS.read_bytes())
    program = f"{sys.executable} -m node.cli.main"
    wait = "trap 'kill $!' EXIT; for _ in $(seq 200); do [ -S signer.sock ] && break; sleep 0.1; done"
    lines = {
        "ctt signer run": f"{program} signer run --dir signer --socket signer.sock & {wait}",
        "ctt run": f"timeout 10 {program} run --dir node --signer signer.sock --rpc-port {free_port()} || true",
    }
    script = [
        next((lines[each] for each in lines if line.startswith(each)), line.replace("ctt ", f"{program} ", 1))
        for line in page.splitlines()
    ]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(["set -eu", *script])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(GENESIS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    stopped = re.search(r"stopped at block ([0-9,]+)", ran.stderr)
    assert stopped and int(stopped[1].replace(",", "")) > 3, ran
