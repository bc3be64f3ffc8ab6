"""`ctt genesis check` says no to what `ctt init` would refuse."""

import json
from pathlib import Path
from typing import Final

import pytest

from ctt_state.preload import Generator, preload_address
from ctt_state.units import hex_of
from node.cli.main import main

SHIPPED: Final = Path(__file__).parent.parent / "genesis.json"
GENERATOR: Final = Generator(count=30, seed=1, tokens_per_prosumer=10, is_signing=True)


@pytest.mark.parametrize("command", ["genesis check", "init --dir DIR --genesis"])
def test_a_generated_owner_that_is_listed_too_is_refused_before_and_at_the_start(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(SHIPPED.read_text())
    owner = hex_of(preload_address(GENERATOR, "prosumer", 2))
    document["preload"] = {"tokens": [{"owner": owner}], "generate": {"count": 30, "seed": 1}}
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(document))

    code = main([*command.replace("DIR", str(tmp_path / "node")).split(), str(path)])

    assert code == 78
    assert capsys.readouterr() == (
        "",
        "ctt: the genesis document is refused:\n  $.preload.generate: prosumer 2 or its meter is listed, too\n",
    )
