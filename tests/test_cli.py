"""The `ctt` command: what it makes, exit codes, and one line without a traceback for whatever is wrong."""

import asyncio
import errno
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import plyvel
import pytest

from ctt_state.crypto import SECP256K1_N, address_of, public_key
from ctt_state.genesis import development_genesis, development_key, load_genesis
from ctt_state.records import Account
from ctt_state.units import Address, Wei, hex_of
from node import VERSION
from node.cli import door as door_command
from node.cli import genesis as genesis_command
from node.cli.main import build_parser, main
from node.cli.process import prepare_process
from node.datadir import DirectoryLock
from node.exits import Exit, Failure
from node.keys import create_key
from rpc.server import ServerConfig
from tests.cli_world import Ctt, Result
from tests.live_node import free_port

SHIPPED: Final = Path(__file__).parent.parent / "genesis.json"
HASH: Final = hex_of(load_genesis(SHIPPED.read_bytes()).hash)
COMMAND: Final = (sys.executable, "-m", "node.cli.main")
ROOT: Final = SHIPPED.parent
STOP_SECONDS_MAX: Final = 5.0
REFUSED: Final = "ctt: the genesis document is refused:\n"


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys)


def spawn(*arguments: object) -> Result:
    """Runs the command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as `ctt init` makes it; copy it before a change."""
    directory = tmp_path_factory.mktemp("made") / "node"
    assert main(["init", "--dir", str(directory), "--genesis", str(SHIPPED)]) == 0
    return directory


@pytest.fixture
def node_dir(made: Path, tmp_path: Path) -> Path:
    """A data directory to work on."""
    return Path(shutil.copytree(made, tmp_path / "node"))


class RunningNode:
    """A `ctt run` process that has said that it listens."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        self.port = free_port()
        self._log = directory.parent / f"{directory.name}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *COMMAND,
                    "run",
                    "--dir",
                    str(directory),
                    "--rpc-port",
                    str(self.port),
                    *map(str, arguments),
                ],
                stderr=log,
                cwd=ROOT,
            )
        deadline = time.monotonic() + 30
        while "JSON-RPC at" not in self.log:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def call(self, method: str, host: str = "localhost", origin: str | None = None) -> tuple[int, Any]:
        """The HTTP status, and the result or the text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Host": host, "Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []})
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, json.loads(text)["result"] if response.status == 200 else text

    def wait_for_block(self, height: int) -> None:
        deadline = time.monotonic() + 30
        while int(self.call("eth_blockNumber")[1], 16) < height:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def stop(self, number: int) -> int:
        """Sends the signal; gives the exit code of what ends in time."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)


@contextmanager
def running(directory: Path, *arguments: object) -> Iterator[RunningNode]:
    node = RunningNode(directory, *arguments)
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
        assert "Traceback" not in node.log


def make_document(path: Path, **changes: Any) -> Path:
    """The shipped document with changes, as a file."""
    path.write_text(json.dumps(json.loads(SHIPPED.read_text()) | changes))
    return path


def key_file(path: Path, index: int = 0) -> Path:
    create_key(path, development_key(index))
    return path


# --- wrong calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("", "ctt: the following arguments are required: COMMAND; see ctt --help"),
        ("--verison", "ctt: unknown option --verison; did you mean --version?; see ctt --help"),
        ("run --dri x", "ctt run: unknown option --dri; did you mean --dir?; see ctt run --help"),
        ("bill --tarif x", "ctt bill: unknown option --tarif; did you mean --tariff?; see ctt bill --help"),
        ("bill --json mark --ot x", "ctt bill mark: unknown option --ot; did you mean --out?; see ctt bill mark --help"),
        ("key --", "ctt key: the following arguments are required: COMMAND; see ctt key --help"),
        ("run", "ctt run: the following arguments are required: --dir; see ctt run --help"),
        ("run --dir x --rcp-port 1", "ctt run: unknown option --rcp-port; did you mean --rpc-port?; see ctt run --help"),
        ("run --dir x --rcp-port=1", "ctt run: unknown option --rcp-port; did you mean --rpc-port?; see ctt run --help"),
        ("run --dir x --rpc-por 1", "ctt run: unknown option --rpc-por; did you mean --rpc-port?; see ctt run --help"),
        ("run --dir x --xyzzy", "ctt run: unknown option --xyzzy; see ctt run --help"),
        ("verify --dir x --rpc-port 1", "ctt verify: unknown option --rpc-port; see ctt verify --help"),
        ("run --dir x extra", "ctt run: unexpected argument 'extra'; see ctt run --help"),
        ("run --dir", "ctt run: --dir: expected one argument; see ctt run --help"),
        ("run --dir x --rpc-port abc", "ctt run: --rpc-port: 'abc' is not a port (1-65535); see ctt run --help"),
        ("run --dir x --rpc-port 0", "ctt run: --rpc-port: '0' is not a port (1-65535); see ctt run --help"),
        ("run --dir x --rpc-port 70000", "ctt run: --rpc-port: '70000' is not a port (1-65535); see ctt run --help"),
        ("run --dir x --rpc-port -1", "ctt run: --rpc-port: '-1' is not a port (1-65535); see ctt run --help"),
        ("run --dir x --rpc-port \u0661", "ctt run: --rpc-port: '\u0661' is not a port (1-65535); see ctt run --help"),
        (f"run --dir x --rpc-port {'9' * 5_000}", f"ctt run: --rpc-port: '{'9' * 40}' is not a port (1-65535); see ctt run --help"),
        ("run --dir x --account-slots 0", "ctt run: --account-slots: '0' is not a whole number from 1 to 999999999; see ctt run --help"),
        ("run --dir x --rpc-hosts a:80", "ctt run: --rpc-hosts: 'a:80' is no host name without port, or *; see ctt run --help"),
        ("run --dir x --rpc-hosts a,,b", "ctt run: --rpc-hosts: '' is no host name without port, or *; see ctt run --help"),
        ("run --dir x --rpc-origins app.example", "ctt run: --rpc-origins: 'app.example' is no origin such as https://app.example, or *; see ctt run --help"),
        ("run --dir x --rpc-origins https://app.example/", "ctt run: --rpc-origins: 'https://app.example/' is no origin such as https://app.example, or *; see ctt run --help"),
        ("devnet --dir x --for -1", "ctt devnet: --for: '-1' is not a number of seconds above 0; see ctt devnet --help"),
        ("devnet --dir x --for nan", "ctt devnet: --for: 'nan' is not a number of seconds above 0; see ctt devnet --help"),
        ("genesis", "ctt genesis: the following arguments are required: COMMAND; see ctt genesis --help"),
        ("key new", "ctt key new: the following arguments are required: FILE; see ctt key new --help"),
    ],
)  # fmt: skip
def test_a_wrong_call_ends_with_64_and_one_line(ctt: Ctt, call: str, line: str) -> None:
    assert ctt(*call.split()) == (64, "", line + "\n")


@pytest.mark.parametrize("call", ["rnu", "run --dir x --log-level loud", "key show a b"])
def test_a_wrong_choice_ends_with_64(ctt: Ctt, call: str) -> None:
    result = ctt(*call.split())

    assert (result.code, result.err.count("\n")) == (64, 1)


def test_the_version_is_said() -> None:
    assert spawn("--version") == (0, f"ctt {VERSION}\n", "")


@pytest.mark.parametrize("command", ["", "init", "run", "verify", "genesis", "key", "genesis check"])
def test_each_command_explains_itself_with_an_example(ctt: Ctt, command: str) -> None:
    result = ctt(*command.split(), "--help")

    assert (result.code, result.err) == (0, "")
    assert re.search(r"^examples?:\n  ctt ", result.out, re.MULTILINE)


# --- genesis ----------------------------------------------------------------------------------------------------------


def test_a_good_document_is_named_with_its_hash(ctt: Ctt) -> None:
    assert ctt("genesis", "check", SHIPPED) == (
        0,
        f"{SHIPPED}: ok: development chain 7788, 1 validator, hash {HASH}\n",
        "",
    )


def test_a_refused_document_is_explained_fault_by_fault(ctt: Ctt, tmp_path: Path) -> None:
    path = make_document(tmp_path / "genesis.json", chainId=0, admin="me")

    result = ctt("genesis", "check", path)

    assert (result.code, result.out) == (78, "")
    assert result.err.splitlines() == [
        REFUSED.strip(),
        '  $.admin: expected 20 bytes as 0x and 40 digits, got "me"',
        "  $.chainId: 0 is not between 1 and 9007199254740992",
    ]


def test_no_more_faults_are_shown_than_one_reads(ctt: Ctt, tmp_path: Path) -> None:
    path = make_document(tmp_path / "genesis.json", **{f"x{number}": 0 for number in range(150)})

    result = ctt("genesis", "check", path)

    lines = result.err.splitlines()
    assert (result.code, len(lines), lines[-1]) == (78, 102, "  and 50 more")


@pytest.mark.parametrize("command", ["genesis check", "init --dir DIR --genesis", "run --dir DIR --genesis", "devnet --dir DIR --genesis"])  # fmt: skip
@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda path: None, 66, "ctt: {path}: no such genesis file\n"),
        (lambda path: path.mkdir(), 78, "ctt: {path}: the genesis file is a directory\n"),
        (lambda path: path.symlink_to(path), 77, "ctt: {path}: cannot read the genesis file: Too many levels of symbolic links\n"),
        (lambda path: path.write_text("{"), 78, REFUSED + "  $: line 1, column 2: Expecting property name enclosed in double quotes\n"),
        (lambda path: path.symlink_to("/dev/zero"), 78, REFUSED + "  $: larger than 16777216 bytes\n"),
    ],
    ids=["missing", "directory", "loop", "broken", "endless"],
)  # fmt: skip
def test_a_genesis_file_that_cannot_be_used_is_refused_by_every_command(
    ctt: Ctt, tmp_path: Path, command: str, make: Callable[[Path], object], code: int, text: str
) -> None:
    path = tmp_path / "genesis.json"
    make(path)

    result = ctt(*command.replace("DIR", str(tmp_path / "node")).split(), path)

    assert result == (code, "", text.format(path=path))
    assert not (tmp_path / "node").exists()


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_makes_a_database_and_the_key_of_the_development_validator(ctt: Ctt, tmp_path: Path) -> None:
    directory = tmp_path / "a" / "node"

    result = ctt("init", "--dir", directory, "--genesis", SHIPPED)

    assert result == (0, f"{directory}: ready; start it with: ctt run --dir {directory}\n", "")
    assert sorted(os.listdir(directory)) == ["anchor", "db", "node.lock", "validator.key", "votes"]
    assert (directory / "validator.key").read_text() == development_key(0).hex() + "\n"


def test_a_key_is_its_owners_only_whatever_the_umask(ctt: Ctt, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        ctt("init", "--dir", tmp_path / "node", "--genesis", SHIPPED)
    finally:
        os.umask(umask)

    assert stat.S_IMODE((tmp_path / "node" / "validator.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700


def test_init_never_replaces_a_chain(ctt: Ctt, node_dir: Path) -> None:
    before = (node_dir / "anchor").read_bytes()

    result = ctt("init", "--dir", node_dir, "--genesis", SHIPPED)

    refusal = f"ctt: {node_dir} already holds a chain; 'ctt init' never replaces one: move it aside first\n"
    assert result == (73, "", refusal)
    assert (node_dir / "anchor").read_bytes() == before


def test_init_copies_the_key_that_is_given(ctt: Ctt, tmp_path: Path) -> None:
    document = tmp_path / "genesis.json"
    document.write_bytes(development_genesis(SHIPPED.read_bytes(), validators=4, p2p_port=30_303))
    key = key_file(tmp_path / "key", 2)

    result = ctt("init", "--dir", tmp_path / "node", "--genesis", document, "--key", key)

    assert result.code == 0
    assert (tmp_path / "node" / "validator.key").read_bytes() == key.read_bytes()


def test_init_keeps_a_key_that_is_there(ctt: Ctt, tmp_path: Path) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    key_file(directory / "validator.key", 0)

    result = ctt("init", "--dir", directory, "--genesis", SHIPPED)

    assert result.code == 0
    assert f"if it never voted, 'ctt journal init --dir {directory} --i-am-sure'" in result.out
    assert ctt("run", "--dir", directory).code == 65  # it may have voted: no journal is made for it


def test_init_never_replaces_a_key(ctt: Ctt, tmp_path: Path) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    there = key_file(directory / "validator.key", 1)

    result = ctt("init", "--dir", directory, "--genesis", SHIPPED, "--key", key_file(tmp_path / "key", 0))

    assert result == (73, "", f"ctt: {there} holds another key already; a key is never overwritten\n")
    assert os.listdir(directory) == ["validator.key"]


def test_a_key_of_no_validator_may_become_one(ctt: Ctt, tmp_path: Path) -> None:
    key = key_file(tmp_path / "key", 1)

    result = ctt("init", "--dir", tmp_path / "node", "--genesis", SHIPPED, "--key", key)

    assert result.code == 0
    assert {"validator.key", "votes"} <= set(os.listdir(tmp_path / "node"))


def test_a_follower_has_neither_key_nor_journal(ctt: Ctt, tmp_path: Path) -> None:
    result = ctt("init", "--dir", tmp_path / "node", "--genesis", SHIPPED, "--follower")

    assert result.code == 0
    assert not {"validator.key", "votes"} & set(os.listdir(tmp_path / "node"))


def test_a_follower_with_a_key_is_a_contradiction(ctt: Ctt, tmp_path: Path) -> None:
    flags = ("--genesis", SHIPPED, "--follower", "--key", key_file(tmp_path / "key"))

    assert ctt("init", "--dir", tmp_path / "node", *flags) == (64, "", "ctt: a --follower has no --key\n")
    assert not (tmp_path / "node").exists()


def test_only_a_development_network_uses_a_key_that_everyone_knows(ctt: Ctt, tmp_path: Path) -> None:
    document = json.loads(development_genesis(SHIPPED.read_bytes(), validators=4, p2p_port=30_303))
    path = make_document(tmp_path / "genesis.json", **document | {"development": False})

    result = ctt("init", "--dir", tmp_path / "node", "--genesis", path)

    needs = (
        "init needs --key FILE, the validator's consensus key ('ctt key new FILE' makes one), or --follower"
    )
    assert result == (64, "", f"ctt: {needs}\n")


def test_a_chain_cannot_begin_in_the_future(ctt: Ctt, tmp_path: Path) -> None:
    path = make_document(tmp_path / "genesis.json", timestampMs=4_000_000_000_000)

    result = ctt("init", "--dir", tmp_path / "node", "--genesis", path)

    fault = "$.timestampMs: 4000000000000 is in the future by this machine's clock"
    assert (result.code, result.err) == (78, f"{REFUSED}  {fault}\n")


def test_a_directory_that_cannot_be_made_is_named(ctt: Ctt, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = ctt("init", "--dir", tmp_path / "file" / "node", "--genesis", SHIPPED)

    assert (result.code, result.err) == (73, f"ctt: cannot make {tmp_path}/file/node: Not a directory\n")


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_private_and_only_its_public_part_is_shown(ctt: Ctt, tmp_path: Path) -> None:
    path = tmp_path / "key"

    made = ctt("key", "new", path, "--json")

    key = bytes.fromhex(path.read_text())
    assert json.loads(made.out) == {
        "address": hex_of(address_of(key)),
        "consensusKey": hex_of(public_key(key)),
    }
    assert key.hex() not in made.out + made.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ctt("key", "show", path, "--json") == made
    assert [line.split()[-1] for line in ctt("key", "show", path).out.splitlines()] == [
        hex_of(address_of(key)),
        hex_of(public_key(key)),
    ]
    assert ctt("key", "new", path) == (73, "", f"ctt: {path} exists already; a key is never overwritten\n")


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(Failure, match="cannot create the key file: No space left on device") as refusal:
        create_key(tmp_path / "key", development_key(0))

    assert refusal.value.exit_code == 73
    assert os.listdir(tmp_path) == []


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


GOOD_KEY: Final = development_key(0).hex().encode()
NOT_A_KEY: Final = "not a key: expected 64 hexadecimal digits"


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda path: None, 66, "{path}: no such key file"),
        (lambda path: write_private(path, GOOD_KEY, 0o644), 77, "{path} is open to others (0644); chmod 600 {path}"),
        (lambda path: write_private(path, GOOD_KEY, 0o620), 77, "{path} is open to others (0620); chmod 600 {path}"),
        (lambda path: path.symlink_to(key_file(path.parent / "elsewhere")), 77, "{path}: cannot read the key file: it is a symbolic link"),
        (lambda path: path.mkdir(), 65, "{path}: not a key: no regular file"),
        (lambda path: os.mkfifo(path, 0o600), 65, "{path}: not a key: no regular file"),
        (lambda path: write_private(path, b""), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, GOOD_KEY[:-1]), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, GOOD_KEY + b"00"), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, b"0x" + GOOD_KEY), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, b"\xff" * 64), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, b"0" * 64), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, b"%064x" % SECP256K1_N), 65, "{path}: " + NOT_A_KEY),
        (lambda path: write_private(path, b"\0" * 10_000_000), 65, "{path}: " + NOT_A_KEY),
    ],
    ids=["missing", "readable", "writable", "link", "folder", "pipe", "empty", "short", "long", "prefix", "binary", "zero", "order", "huge"],
)  # fmt: skip
def test_a_key_file_that_cannot_be_trusted_is_refused(
    ctt: Ctt, tmp_path: Path, make: Callable[[Path], object], code: int, text: str
) -> None:
    path = tmp_path / "key"
    make(path)

    result = ctt("key", "show", path)

    assert result == (code, "", f"ctt: {text.format(path=path)}\n")
    assert GOOD_KEY.decode() not in result.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_key_is_refused(ctt: Ctt, tmp_path: Path) -> None:
    path = key_file(tmp_path / "key")
    os.chown(path, 12_345, -1)

    assert ctt("key", "show", path) == (77, "", f"ctt: {path} belongs to user 12345, not to 0\n")


@pytest.mark.parametrize("kind", ["missing", "garbage", "foreign"])
def test_run_needs_the_key_of_the_only_validator(ctt: Ctt, node_dir: Path, kind: str) -> None:
    path = node_dir / "validator.key"
    path.unlink()
    if kind != "missing":
        write_private(path, GOOD_KEY[::-1] if kind == "foreign" else b"garbage")

    result = ctt("run", "--dir", node_dir)

    code, text = {
        "missing": (66, f"{node_dir / 'tls'}: no certificate to show to peers"),
        "garbage": (65, f"{path}: {NOT_A_KEY}"),
        "foreign": (66, f"{node_dir / 'tls'}: no certificate to show to peers"),
    }[kind]
    assert result.code == code
    assert text in result.err
    assert result.err.count("\n") == 1
    assert ctt("verify", "--dir", node_dir).code == 0  # and the lock is free again


# --- run: refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "verify"])
def test_no_database_is_never_made_by_running(ctt: Ctt, tmp_path: Path, command: str) -> None:
    directory = tmp_path / "node"

    assert ctt(command, "--dir", directory) == (
        66,
        "",
        f"ctt: no database at {directory}; run 'ctt init' first\n",
    )
    assert not directory.exists()


@pytest.mark.parametrize("command", ["run", "verify", "init"])
def test_a_directory_in_use_is_refused_with_the_process_that_uses_it(
    ctt: Ctt, node_dir: Path, command: str
) -> None:
    lock = DirectoryLock.acquire(node_dir)

    result = ctt(command, "--dir", node_dir, *(("--genesis", SHIPPED) if command == "init" else ()))

    lock.release()
    assert result == (69, "", f"ctt: another node (pid {os.getpid()}) uses {node_dir}\n")


def test_another_documents_chain_is_refused_with_both_hashes(
    ctt: Ctt, node_dir: Path, tmp_path: Path
) -> None:
    other = make_document(tmp_path / "other.json", chainId=9)

    result = ctt("run", "--dir", node_dir, "--genesis", other)

    other_hash = hex_of(load_genesis(other.read_bytes()).hash)
    assert result.code == 65
    assert f"genesis hash {other_hash} differs from database {HASH} in {node_dir}" in result.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "node.example", "", "0"])
def test_rpc_is_not_open_to_the_network_unless_one_says_so(ctt: Ctt, tmp_path: Path, host: str) -> None:
    result = ctt("run", "--dir", tmp_path, "--rpc-host", host)

    assert (result.code, result.out) == (78, "")
    assert result.err == (
        f"ctt: rpc on {host or 'every address'} needs tls or --insecure-rpc: give --rpc-tls-cert and --rpc-tls-key, "
        "or listen on 127.0.0.1 behind a proxy\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_the_loopback_is_open_to_this_machine_only(host: str) -> None:
    arguments = ["run", "--dir", "d", "--rpc-host", host]
    door_command.check_exposure(build_parser().parse_args(arguments))


def test_a_validator_among_others_needs_a_certificate(ctt: Ctt, tmp_path: Path) -> None:
    document = tmp_path / "genesis.json"
    document.write_bytes(development_genesis(SHIPPED.read_bytes(), validators=4, p2p_port=30_303))
    ctt("init", "--dir", tmp_path / "node", "--genesis", document)

    result = ctt("run", "--dir", tmp_path / "node")

    tls = tmp_path / "node" / "tls"
    assert (result.code, result.out) == (66, "")
    assert result.err == (
        f"ctt: {tls}: no certificate to show to peers; whoever has the consortium's authority makes one: "
        f"ctt ca issue --dir CA --out {tls} --name NAME\n"
    )


def test_a_port_in_use_is_named(node_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = spawn("run", "--dir", node_dir, "--rpc-port", port, "--log-level", "error")

    assert result == (69, "", f"ctt: cannot listen on 127.0.0.1:{port}: Address already in use\n")


def test_a_host_that_does_not_resolve_is_named(node_dir: Path) -> None:
    arguments = ("--rpc-host", "nowhere.invalid", "--insecure-rpc", "--log-level", "error")

    result = spawn("run", "--dir", node_dir, *arguments)

    assert result.code == 69
    assert result.err.startswith("ctt: cannot listen on nowhere.invalid:8545: ")
    assert result.err.count("\n") == 1


def test_a_privileged_port_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def refuse(node: object, config: ServerConfig) -> AsyncIterator[None]:
        raise PermissionError(errno.EACCES, "error while attempting to bind on address")
        yield

    async def listen() -> None:
        async with AsyncExitStack() as stack:
            await door_command._listen(stack, None, ServerConfig(port=80))  # type: ignore[arg-type]  # not used

    monkeypatch.setattr(door_command, "serve", refuse)

    with pytest.raises(Failure, match=r"cannot listen on 127\.0\.0\.1:80: Permission denied") as refusal:
        asyncio.run(listen())

    assert refusal.value.exit_code == 77


def test_too_few_open_files_are_refused_before_they_run_out(node_dir: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *COMMAND, "run", "--dir", str(node_dir)]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (
        78,
        "ctt: open files 256; need at least 1024, better 4096 (ulimit -n 4096)\n",
    )


def test_as_many_files_as_the_system_grants_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", asked.__setitem__)

    prepare_process()

    assert asked == {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (4_096, 4_096)}


# --- run: a life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_cleanly_and_it_goes_on_where_it_was(node_dir: Path, number: int) -> None:
    with running(node_dir, "--genesis", SHIPPED) as node:
        node.wait_for_block(3)
        limits = Path(f"/proc/{node.process.pid}/limits").read_text()
        code = node.stop(number)
        stopped = re.search(r"stopped at block (\d+)\n$", node.log)

    assert code == 0
    assert stopped
    assert re.search(r"Max core file size +0 +0 ", limits)
    height = int(stopped[1])
    assert spawn("verify", "--dir", node_dir) == (
        0,
        f"{node_dir}: ok: {height + 1:,} blocks, the state root and every invariant hold\n",
        "",
    )
    with running(node_dir) as node:
        assert f"at block {height}, JSON-RPC" in node.log
        node.wait_for_block(height + 1)


def test_a_client_that_says_no_more_does_not_keep_the_node_from_stopping(node_dir: Path) -> None:
    with running(node_dir) as node, half_a_request(node):
        assert node.stop(signal.SIGTERM) == 0


def test_a_second_signal_ends_the_node_at_once_and_loses_nothing(node_dir: Path) -> None:
    with running(node_dir) as node:
        node.wait_for_block(2)
        with half_a_request(node):  # which a clean stop waits a second for
            node.process.send_signal(signal.SIGTERM)
            while "stopping" not in node.log:
                time.sleep(0.01)
            code = node.stop(signal.SIGTERM)

    assert code in (-signal.SIGTERM, 0)
    assert spawn("verify", "--dir", node_dir).code == 0


@contextmanager
def half_a_request(node: RunningNode) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        time.sleep(0.05)
        yield


def test_a_running_node_keeps_others_from_its_directory(node_dir: Path) -> None:
    with running(node_dir) as node:
        for command in ("run", "verify"):
            result = spawn(command, "--dir", node_dir)
            assert result == (69, "", f"ctt: another node (pid {node.process.pid}) uses {node_dir}\n")
        assert node.stop(signal.SIGTERM) == 0


def test_hosts_and_origins_are_let_in_by_their_flags(node_dir: Path) -> None:
    arguments = ("--rpc-hosts", "Node.Example,other.example", "--rpc-origins", "https://app.example")
    with running(node_dir, *arguments) as node:
        assert node.call("eth_chainId", host="node.example") == (200, "0x1e6c")
        assert node.call("eth_chainId", origin="https://app.example") == (200, "0x1e6c")
        status, text = node.call("eth_chainId", host="evil.example")
        assert (status, text) == (403, "host 'evil.example' is not allowed; see --rpc-hosts\n")
        status, text = node.call("eth_chainId", origin="https://evil.example")
        assert (status, text) == (403, "origin 'https://evil.example' is not allowed; see --rpc-origins\n")


def test_an_open_node_runs_when_one_says_so(node_dir: Path) -> None:
    with running(node_dir, "--rpc-host", "0.0.0.0", "--insecure-rpc") as node:
        assert node.call("eth_chainId") == (200, "0x1e6c")


# --- verify -----------------------------------------------------------------------------------------------------------


def test_a_clean_directory_is_verified(ctt: Ctt, node_dir: Path) -> None:
    result = ctt("verify", "--dir", node_dir)

    assert (result.code, result.out) == (
        0,
        f"{node_dir}: ok: block 0, the state root and every invariant hold\n",
    )


def test_a_damaged_file_is_named(ctt: Ctt, node_dir: Path) -> None:
    (table,) = (node_dir / "db").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 4] ^= 1
    table.write_bytes(content)

    result = ctt("verify", "--dir", node_dir)

    assert result.code == 65
    assert re.match(
        rf"ctt: database {node_dir}/db damaged \(.*\); move it aside and restore a backup", result.err
    )


def test_a_changed_balance_is_found_by_the_root_and_by_the_audit(ctt: Ctt, node_dir: Path) -> None:
    """Changed past all checksums, as an operator could."""
    rich = Address(bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"))
    database = plyvel.DB(str(node_dir / "db"))
    database.put(b"s" + Account.key(rich), Account(0, Wei(10**30)).encode(), sync=True)
    database.close()

    result = ctt("verify", "--dir", node_dir)

    assert (result.code, result.out) == (65, "")
    assert "the records have state root 0x" in result.err
    assert "all balances are" in result.err
    assert result.err.splitlines()[-1].startswith(f"{node_dir}: faults up to block 0: ")


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_creation_that_never_finished_is_no_database(ctt: Ctt, tmp_path: Path, command: str) -> None:
    (tmp_path / "db.new").mkdir()

    assert ctt(command, "--dir", tmp_path) == (
        66,
        "",
        f"ctt: the creation of {tmp_path} was interrupted; run 'ctt init' again\n",
    )


# --- our own mistakes ---------------------------------------------------------------------------------------------------


def test_our_own_mistake_ends_with_70_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genesis_command, "load_genesis", lambda text: 1 / 0)

    code = main(["genesis", "check", str(SHIPPED)])

    lines = capsys.readouterr().err.splitlines()
    assert code == Exit.BROKEN
    assert lines[0].startswith("Traceback")
    assert lines[-1] == (
        "ctt: internal error: ZeroDivisionError('division by zero'); please report it with the lines above"
    )


def test_an_interrupt_ends_with_130(ctt: Ctt, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(text: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(genesis_command, "load_genesis", interrupt)

    assert ctt("genesis", "check", SHIPPED) == (130, "", "")


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [*COMMAND, "genesis", "check", str(SHIPPED)],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip

    os.close(writing)
    assert (done.returncode, done.stderr) == (74, "")
