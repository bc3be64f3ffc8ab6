"""`ctt access`, and how a running node follows what it does."""

import http.client
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from node.cli.main import main
from rpc.access import hash_token
from tests.live_node import LiveNode

TOMORROW: Final = (datetime.now(UTC) + timedelta(days=1)).date()
YESTERDAY: Final = (datetime.now(UTC) - timedelta(days=1)).date()

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def access(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`ctt access COMMAND --dir DIR ...`: code, output, errors."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["access", command, "--dir", str(tmp_path), *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def create(access: Run, role: str, name: str, *more: object) -> str:
    code, out, _ = access("create", "--role", role, "--name", name, *more)
    assert code == 0
    return out.strip()


def listed(access: Run) -> Any:
    code, out, _ = access("list", "--json")
    assert code == 0
    return json.loads(out)


def test_a_token_is_shown_once_and_only_its_hash_is_kept(access: Run, tmp_path: Path) -> None:
    secret = create(access, "meter", "street-7", "--expires", TOMORROW)

    path = tmp_path / "rpc-tokens"
    content = path.read_text()
    assert secret.startswith("ctt_") and len(bytes.fromhex(secret[4:])) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret[4:] not in content and hash_token(secret) in content
    assert listed(access) == [
        {"role": "meter", "name": "street-7", "expires": str(TOMORROW), "state": "valid"}
    ]
    assert create(access, "meter", "street-8") != secret


def test_tokens_are_listed_and_revoked_by_name(access: Run, tmp_path: Path) -> None:
    assert listed(access) == []
    for role in ("public", "platform", "operator"):
        create(access, role, f"a-{role}")
    path = tmp_path / "rpc-tokens"
    path.write_text(path.read_text() + f"{'0' * 64} meter old {YESTERDAY}\n")

    assert access("revoke", "a-platform") == (0, "a-platform: revoked\n", "")

    assert [line.split() for line in access("list")[1].splitlines()] == [
        ["role", "state", "expires", "name"],
        ["public", "valid", "never", "a-public"],
        ["operator", "valid", "never", "a-operator"],
        ["meter", "expired", str(YESTERDAY), "old"],
    ]
    assert [each["state"] for each in listed(access)] == ["valid", "valid", "expired"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("create", "--role", "meter", "--name", "taken"), 73, "there is a token taken already; revoke it, or choose"),
        (("create", "--role", "king", "--name", "x"), 64, "--role: invalid choice: 'king'"),
        (("create", "--role", "meter", "--name", "a b"), 64, "--name: 'a b' is no name"),
        (("create", "--role", "meter"), 64, "the following arguments are required: --name"),
        (("create", "--role", "meter", "--name", "x", "--expires", "soon"), 64, "'soon' is no date such as 2030-01-31"),
        (("create", "--role", "meter", "--name", "x", "--expires", YESTERDAY), 64, "is no day to come"),
        (("revoke", "nobody"), 66, "'nobody' is the name of no token; see ctt access list"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    access: Run, arguments: tuple[Any, ...], code: int, text: str
) -> None:
    create(access, "meter", "taken")

    result = access(*arguments)

    assert result[:2] == (code, "") and text in result[2]
    assert "taken" in access("list")[1]


def test_a_list_open_to_others_is_refused(access: Run, tmp_path: Path) -> None:
    create(access, "meter", "street-7")
    path = tmp_path / "rpc-tokens"
    path.chmod(0o640)

    assert access("list") == (
        77,
        "",
        f"ctt: {path} is open to others (0640); chmod 600 {path}\n".replace(" is", ": is", 1),
    )


def test_a_damaged_list_is_refused(access: Run, tmp_path: Path) -> None:
    path = tmp_path / "rpc-tokens"
    path.touch(0o600)
    path.write_bytes(b"# fine\nmeter\n")

    for command in (("list",), ("revoke", "x"), ("create", "--role", "meter", "--name", "x")):
        code, _, err = access(*command)
        assert code == 65 and err.startswith(f"ctt: {path}: line 2 is no token")
    path.write_bytes(b"\xff")
    assert access("list")[0] == 65


def test_no_directory_is_made(access: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none"
    assert main(["access", "create", "--dir", str(missing), "--role", "meter", "--name", "x"]) == 66
    assert f"{missing}: no data directory" in capsys.readouterr().err and not missing.exists()


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--rpc-quota", "king=5", "'king=5' is not ROLE=N, such as public=50; roles: public, meter, platform, operator"),
        ("--rpc-quota", "public", "'public' is not ROLE=N"),
        ("--rpc-quota", "public=0", "'0' is not a whole number from 1"),
        ("--rpc-quota", "public=-1", "'public=-1' is not ROLE=N"),
        ("--rpc-least-role", "king", "invalid choice: 'king'"),
    ],
)  # fmt: skip
def test_wrong_rules_are_refused(
    option: str, value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="64"):
        main(["run", "--dir", "x", option, value])
    assert text in capsys.readouterr().err


# --- a running node -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    directory = tmp_path_factory.mktemp("access") / "node"
    with LiveNode(directory, flags=("--rpc-quota", "public=2")) as node:
        yield node


def ask(node: LiveNode, method: str, secret: str | None = None) -> tuple[int, Any]:
    """The status, and the reply or the text."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []})
    connection.request("POST", "/", body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text) if response.status == 200 else text


def until(condition: Callable[[], bool], node: LiveNode) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, node.log()
        time.sleep(0.05)


def test_a_running_node_follows_its_list(node: LiveNode) -> None:
    """One story, as a node's start takes a second: no list, a first token, one revoked, a damaged list, none at all."""

    def change(*arguments: str) -> str:
        command, *rest = arguments
        assert main(["access", command, "--dir", str(node.directory), *rest]) == 0
        return ""

    path = node.directory / "rpc-tokens"
    assert "result" in ask(node, "txpool_content")[1]

    secret = "ctt_" + "5" * 64
    path.touch(0o600)
    path.write_text(f"{hash_token(secret)} operator control-room never\n")
    until(lambda: "1 API tokens" in node.log(), node)
    assert ask(node, "txpool_content")[1]["error"]["code"] == -32601
    assert "result" in ask(node, "txpool_content", secret)[1]
    until(lambda: "rate limit 2/s" in str(ask(node, "eth_chainId")[1]), node)

    path.write_text("damaged\n")
    os.kill(node.process.pid, signal.SIGHUP)
    until(lambda: "rpc-tokens: line 1 is no token" in node.log(), node)
    assert "result" in ask(node, "txpool_content", secret)[1]
    path.unlink()
    os.kill(node.process.pid, signal.SIGHUP)
    until(lambda: "rpc-tokens: no such file; the tokens from before stay in use" in node.log(), node)
    assert "result" in ask(node, "txpool_content", secret)[1]

    path.touch(0o600)
    path.write_text(f"{hash_token(secret)} operator control-room never\n")
    change("revoke", "control-room")
    os.kill(node.process.pid, signal.SIGHUP)
    until(lambda: ask(node, "txpool_content", secret) == (401, "unknown token; it may be revoked\n"), node)
    assert node.process.poll() is None
