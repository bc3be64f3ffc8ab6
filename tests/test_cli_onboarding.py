"""`ctt prosumer` and `ctt meter`: a home gets a meter and another one, each step by who has its key."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.demo.street import TREASURER_KEY
from ctt_state.crypto import address_of, checksum_address
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of
from node.cli.onboarding import REFUSALS
from node.cli.options import format_kwh, kwh
from node.keys import create_key
from tests.cli_world import Ctt, Result
from tests.live_node import LiveNode
from tests.rpc_world import private_key

NAMES: Final = ("home", "new-meter", "spare", "flat", "flat-meter", "flat-spare", "stranger")
ROOT: Final = Path(__file__).parent.parent
KEYS: Final = {name: private_key(f"onboarding {name}") for name in NAMES} | {"operator": TREASURER_KEY}
AT: Final = {name: hex_of(address_of(key)) for name, key in KEYS.items()}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """The development genesis: its admin is the operator."""
    with LiveNode(tmp_path_factory.mktemp("onboarding") / "node") as node:
        for name, key in KEYS.items():
            create_key(node.directory.parent / f"{name}.key", key)
        yield node


class Desk:
    """`ctt prosumer` and `ctt meter` at the node's door; names stand for addresses, and for keys behind `--key`."""

    def __init__(self, ctt: Ctt, node: LiveNode) -> None:
        self._ctt, self._node = ctt, node

    def __call__(self, *words: str) -> Result:
        arguments: list[object] = []
        for word in words:
            is_key = bool(arguments) and re.fullmatch(r"--([a-z]+-)?key", str(arguments[-1])) is not None
            arguments.append(self._node.directory.parent / f"{word}.key" if is_key else AT.get(word, word))
        return self._ctt(*arguments, "--rpc", self._node.url)

    def done(self, *words: str) -> str:
        result = self(*words)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def refused(self, *words: str, code: int = 77) -> str:
        result = self(*words)
        assert result.code == code, result
        return result.err

    def onboard(self, prosumer: str, meter: str) -> None:
        self.done(
            "meter", "certify", meter, "--source", "solar", "--max-power", "999999999", "--key", "operator"
        )
        named = json.loads(self.done("prosumer", "register", meter, "--key", prosumer, "--json"))
        assert (named["prosumer"], named["meter"]) == (AT[prosumer], AT[meter])
        confirmed = json.loads(self.done("meter", "confirm", prosumer, "--key", meter, "--json"))
        assert confirmed["next"].startswith("the meter tells where its registers stand")
        assert confirmed["block"] > named["block"]


@pytest.fixture
def desk(capsys: pytest.CaptureFixture[str], node: LiveNode) -> Desk:
    return Desk(Ctt(capsys, one_line=True), node)


def test_each_step_says_who_does_the_next(desk: Desk) -> None:
    register = ("prosumer", "register", "new-meter", "--key", "home")
    assert f"an operator does: ctt meter certify {AT['new-meter']} --source" in desk.refused(*register)
    assert "was never certified" in desk.refused("meter", "show", "new-meter", code=66)
    assert "has neither tokens nor a meter" in desk.refused("prosumer", "show", "home", code=66)
    certify = ("meter", "certify", "new-meter", "--source", "solar", "--max-power", "10000", "--key")
    assert f"NotOperator: {AT['stranger']} is no operator" in desk.refused(*certify, "stranger")
    assert f"ctt prosumer register {AT['new-meter']}" in desk.done(*certify, "operator")
    assert "source     solar\npower      10.000 kW\n" in desk.done("meter", "show", "new-meter")

    confirm = ("meter", "confirm", "home", "--key")
    assert "has named no meter; it does: ctt prosumer register" in desk.refused(*confirm, "new-meter")
    assert f"next: the meter confirms: ctt meter confirm {AT['home']}" in desk.done(*register)
    assert f"has named {AT['new-meter']}, not {AT['stranger']}: is this" in desk.refused(*confirm, "stranger")
    report = ("meter", "report", "home", "12.5", "0", "--key", "new-meter")
    assert "it becomes so: ctt meter confirm" in desk.refused(*report)
    assert "next: the meter tells where its registers stand" in desk.done(*confirm, "new-meter")
    assert "nothing is left to do" in desk.refused(*confirm, "new-meter")

    assert "import 12.500 kWh, export 0.000 kWh: taken" in desk.done(*report)
    shown = desk.done("prosumer", "show", "home")
    assert "last reading  import 12.500 kWh, export 0.000 kWh, 20" in shown
    assert "\ncovered       0.000 kWh by tokens\n" in shown
    assert shown.endswith("next          nothing: its readings count\n")
    assert "the register stood at 12.500 kWh and cannot go back to 12.499 kWh" in desk.refused(
        "meter", "report", "home", "12.499", "0", "--key", "new-meter"
    )
    assert "is more than the certified power allows" in desk.refused(
        "meter", "report", "home", "99999", "0", "--key", "new-meter"
    )

    desk.done("meter", "revoke", "new-meter", "--key", "operator")
    told = json.loads(desk.done("prosumer", "show", "home", "--json"))
    assert told["next"].startswith("an operator certifies the meter again: ctt meter certify")
    assert json.loads(desk.done("meter", "show", "new-meter", "--json"))["certified"] is False


def test_a_meter_is_replaced_by_each_in_turn_and_no_energy_is_lost(desk: Desk) -> None:
    desk.onboard("flat", "flat-meter")
    desk.done("meter", "report", "flat", "100", "5", "--key", "flat-meter")
    replace = ("meter", "replace", "flat", "flat-meter", "flat-spare")
    assert "where did the old registers end?" in desk.refused(*replace, code=64)
    end = ("--end", "150", "7.5")
    asked = desk.refused(*replace, *end)
    assert asked.startswith("ctt: next: the old meter reports where its registers ended: ctt meter report")
    assert f"certify {AT['flat-spare']}" in desk.refused(*replace, *end, "--old-key", "flat-meter")
    assert f"ctt prosumer register {AT['flat-spare']}" in desk.refused(
        *replace, *end, "--operator-key", "operator"
    )
    assert "the new meter confirms: ctt meter confirm" in desk.refused(
        *replace, *end, "--prosumer-key", "flat"
    )
    assert "reports where its registers begin: --begin" in desk.refused(*replace, "--new-key", "flat-spare")
    begun = (*replace, "--begin", "0.25", "0", "--new-key", "flat-spare")
    assert f"ctt meter revoke {AT['flat-meter']}" in desk.refused(*begun)
    told = json.loads(desk.done(*replace, "--operator-key", "operator", "--json"))
    assert [step["wasDone"] for step in told["steps"]] == [True] * 5 + [False]
    assert (told["prosumer"], told["meter"]) == (AT["flat"], AT["flat-spare"])
    again = desk.done(*replace)
    assert again.count("done      ") == 6
    assert again.endswith(f"{AT['flat-spare']} measures {AT['flat']}\n")

    read = desk.done("meter", "report", "flat", "1.25", "0.5", "--key", "flat-spare", "--json")
    assert (json.loads(read)["importWh"], json.loads(read)["exportWh"]) == ("1250", "500")
    home = json.loads(desk.done("prosumer", "show", "flat", "--json"))
    assert (home["meter"], home["everConsumedWh"], home["everProducedWh"]) == (
        AT["flat-spare"],
        "51000",
        "3000",
    )
    assert home["next"] is None
    old = json.loads(desk.done("meter", "show", "flat-meter", "--json"))
    assert (old["certified"], old["prosumer"]) == (False, None)
    new = json.loads(desk.done("meter", "show", "flat-spare", "--json"))
    assert (new["source"], new["maxPowerW"]) == ("solar", "999999999")


def test_all_steps_at_once(desk: Desk) -> None:
    """Back again, by one who has all keys; the registers of the old one cannot be read."""
    told = desk.done(
        *("meter", "replace", "flat", "flat-spare", "spare", "--end-unknown", "--begin", "3", "0"),
        *("--operator-key", "operator", "--prosumer-key", "flat", "--new-key", "spare"),
    )
    assert told.count("now       ") == 5
    assert "done      the old meter reports where its registers ended" in told
    assert "is 0x" in desk.refused("meter", "replace", "flat", "flat-meter", "home", code=66)
    assert "is no meter that can be replaced" in desk.refused(
        "meter", "replace", "flat", "stranger", "home", code=66
    )


def test_an_address_for_a_label(desk: Desk, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ctt = Ctt(capsys, "meter", "qr", one_line=True)
    assert ctt(AT["new-meter"]).out.endswith(f"{checksum_address(address_of(KEYS['new-meter']))}\n")
    assert ctt(AT["new-meter"], "--output", tmp_path / "label.svg").code == 0
    assert "<svg" in (tmp_path / "label.svg").read_text()
    result = ctt(AT["new-meter"], "--output", tmp_path / "label.gif")
    assert (result.code, "it can be an .svg or a .png" in result.err) == (64, True)
    nowhere = tmp_path / "none" / "label.png"
    result = ctt(AT["new-meter"], "--output", nowhere)
    assert (result.code, result.err) == (73, f"ctt: {nowhere}: cannot write it: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("certify", "new-meter", "--source", "coal", "--key", "k"), "invalid choice: 'coal'"),
        (
            ("certify", "new-meter", "--source", "solar", "--max-power", "0", "--key", "k"),
            "whole number from 1",
        ),
        (("report", "home", "1.2345", "0", "--key", "k"), "'1.2345' is no energy such as 12.345 kWh"),
        (("report", "home", "-1", "0", "--key", "k"), "IMPORT"),
    ],
)
def test_wrong_arguments_are_named(desk: Desk, arguments: tuple[str, ...], text: str) -> None:
    assert text in desk.refused("meter", *arguments, code=64)


@given(st.integers(0, 10**18 - 1))
def test_energy_comes_back_from_its_text(wh: int) -> None:
    assert kwh(format_kwh(wh).removesuffix(" kWh")) == wh


def test_the_refusals_are_the_modules() -> None:
    assert REFUSALS.texts.keys() <= {error.name for error in CTT.errors.values()}


def test_the_page_is_run_as_written(node: LiveNode, tmp_path: Path) -> None:
    """docs/ONBOARDING.md, with a node at another port."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/ONBOARDING.md").read_text(), re.DOTALL)
    create_key(tmp_path / "operator.key", TREASURER_KEY)
    ctt = (
        f'ctt() {{ if [ "$1" = key ] || [ "$2" = qr ]; then {sys.executable} -m node.cli.main "$@"; '
        f'else {sys.executable} -m node.cli.main "$@" --rpc {node.url}; fi; }}'
    )
    script = "\n".join(["set -eu", ctt, *blocks, "ctt prosumer show $HOME_ADDRESS --json > shown.json"])
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran
    home = json.loads((tmp_path / "shown.json").read_text())
    assert (home["everConsumedWh"], home["everProducedWh"], home["next"]) == ("3", "1", None)
    assert (tmp_path / "label.svg").exists()
