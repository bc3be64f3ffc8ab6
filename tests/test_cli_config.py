"""A node's settings: the command line over the environment over a file over the defaults, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.cli.main import build_parser, main
from tests.cli_world import Ctt


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ctt:
    return Ctt(capsys, "config", "show", "--dir", str(tmp_path))


def settings(config: Ctt, *words: object) -> dict[str, Any]:
    result = config(*words, "--json")
    assert (result.code, result.err) == (0, "")
    return {name: (each["value"], each["source"]) for name, each in json.loads(result.out).items()}


def test_each_source_goes_before_the_next(
    config: Ctt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('rpc-port = 9001\naccount-slots = 5\nlog-level = "debug"\np2p-port = 9000\n')
    monkeypatch.setenv("CTT_RPC_PORT", "9002")
    monkeypatch.setenv("CTT_ACCOUNT_SLOTS", "6")
    found = settings(config, "--rpc-port", 9003)
    assert found["rpc-port"] == (9003, "command line")
    assert found["account-slots"] == (6, "CTT_ACCOUNT_SLOTS")
    assert found["log-level"] == ("debug", str(file))
    assert found["p2p-port"] == (9000, str(file))
    assert found["rpc-host"] == ("127.0.0.1", "default")


def test_switches_lists_and_paths(config: Ctt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.toml").write_text(
        'explorer = false\ninsecure-rpc = true\npeer = ["a=h:1", "b=h:2"]\n'
        'rpc-hosts = ["x.example", "y.example"]\nrpc-tls-cert = "tls.pem"\n'
    )
    monkeypatch.setenv("CTT_RPC_QUOTA", "public=7,meter=8")
    found = settings(config)
    assert (found["explorer"][0], found["insecure-rpc"][0]) == (False, True)
    assert found["peer"][0] == ["a=h:1", "b=h:2"]
    assert found["rpc-hosts"][0] == ["x.example", "y.example"]
    assert found["rpc-tls-cert"][0] == str(tmp_path / "tls.pem")
    assert found["rpc-quota"] == (["meter=8", "public=7"], "CTT_RPC_QUOTA")
    # The command line's list stands in the place of the file's.
    found = settings(config, "--peer", "c=h:3", "--explorer")
    assert (found["peer"][0], found["explorer"]) == (["c=h:3"], (True, "command line"))


def test_a_file_may_be_named(config: Ctt, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("rpc-port = 9009\n")
    (tmp_path / "node.toml").write_text("rpc-port = 9001\n")
    assert settings(config, "--config", other)["rpc-port"] == (9009, str(other))


def test_a_person_gets_a_table(config: Ctt) -> None:
    (line,) = [line for line in config("--rpc-port", 9003).out.splitlines() if "rpc-port" in line]
    assert line.split() == ["rpc-port", "9003", "command", "line"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpc-prot = 1\n", "there is no setting 'rpc-prot'; did you mean rpc-port?"),
        ("dir = 'x'\n", "there is no setting 'dir'"),
        ("rpc-port = 70000\n", "rpc-port: '70000' is not a port (1-65535)"),
        ("rpc-port = true\n", "rpc-port is True; expected a text or a whole number"),
        ("rpc-port = 1.5\n", "rpc-port is 1.5; expected a text or a whole number"),
        ("explorer = 'no'\n", "explorer is 'no'; expected true or false"),
        ("log-level = 'loud'\n", "log-level is 'loud'; it can be debug, info, warning, error"),
        ("peer = ['a']\n", "peer: 'a' is not NAME=HOST:PORT"),
        ("rpc-port = \n", "no TOML: "),
        ("a = 1\n" * 12_000, "more than 65,536 bytes"),
    ],
)
def test_what_is_no_setting_is_named(config: Ctt, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    result = config()
    assert (result.code, result.out) == (78, "")
    assert result.err.startswith(f"ctt: {file}: {said}")


def test_the_environment_is_refused_by_its_name(config: Ctt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTT_EXPLORER", "perhaps")
    result = config()
    assert (result.code, result.err) == (
        78,
        "ctt: CTT_EXPLORER: explorer is 'perhaps'; expected true or false\n",
    )


def test_a_file_that_is_named_must_be_there(config: Ctt, tmp_path: Path) -> None:
    result = config("--config", tmp_path / "none.toml")
    assert (result.code, result.err) == (66, f"ctt: no such file: {tmp_path / 'none.toml'}\n")


def test_run_has_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.toml").write_text("rpc-port = 9001\n")
    options = build_parser("run").parse_args(["run", "--dir", str(tmp_path), "--p2p-port", "9000"])
    assert (options.rpc_port, options.p2p_port) == (9001, 9000)
    (tmp_path / "node.toml").write_text("rpc-port = 0\n")
    assert main(["run", "--dir", str(tmp_path)]) == 78
    assert "rpc-port: '0' is not a port" in capsys.readouterr().err
