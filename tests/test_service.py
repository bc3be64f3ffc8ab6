"""How a node lives under systemd and in a container: units that systemd takes, and the node's word that it is ready."""

import configparser
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

import pytest

from node.cli.member import FINAL_CODES
from node.exits import Exit
from tests.live_node import LiveNode

ROOT: Final = Path(__file__).parent.parent
NODE: Final = ROOT / "docs" / "operations" / "ctt-node@.service"
SIGNER: Final = ROOT / "docs" / "operations" / "ctt-signer@.service"
METER: Final = ROOT / "apps" / "meter" / "ctt-meter.service"
# The gateway reads a serial line, which these would take from it.
OF_THE_NODE_ALONE: Final = {"privatedevices", "protectclock"}


def service(unit: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(delimiters="=")
    parser.read(unit)
    return dict(parser["Service"])


def hardening(unit: Path) -> dict[str, str]:
    """What comes after the mask, which begins it."""
    settings = service(unit)
    names = list(settings)
    return {name: settings[name] for name in names[names.index("umask") :]}


@pytest.mark.parametrize("unit", [NODE, SIGNER, METER], ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(tmp_path: Path, unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / unit.name.replace("@", "@grid-1")
    copy.write_text(unit.read_text().replace("/opt/ctt/bin/ctt", "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    said = [
        line for line in done.stderr.splitlines() if unit.name.partition("@")[0].partition(".")[0] in line
    ]
    assert (done.returncode, said) == (0, [])


def test_both_units_are_shut_in_alike() -> None:
    node, meter = hardening(NODE), hardening(METER)
    assert {name: value for name, value in node.items() if name not in OF_THE_NODE_ALONE} == meter
    assert len(meter) > 15


def test_no_restart_is_tried_where_none_helps() -> None:
    """The documentation names the same codes; where the development network does not start again, systemd does not."""
    codes = {int(code) for code in service(NODE)["restartpreventexitstatus"].split()}
    assert set(FINAL_CODES) <= codes
    assert codes == set(Exit) - {Exit.UNAVAILABLE, Exit.NOT_READY}
    text = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    assert f"RestartPreventExitStatus={service(NODE)['restartpreventexitstatus']}`" in text
    meter = {int(code) for code in service(METER)["restartpreventexitstatus"].split()}
    assert meter <= codes


def test_a_node_tells_systemd_when_it_serves_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with LiveNode(tmp_path / "node") as node:
            assert manager.recv(64) == b"READY=1"
            assert node.stop() == 0
            assert manager.recv(64) == b"STOPPING=1"


def test_a_manager_that_is_gone_does_not_keep_a_node_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-listens-here")
    with LiveNode(tmp_path / "node") as node:
        assert node.stop() == 0


def test_the_container_installs_what_is_locked_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert "--require-hashes --only-binary :all: -r requirements.lock" in text
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users and int(users[-1]) >= 1_000
    assert text.index("USER") < text.index("ENTRYPOINT")
