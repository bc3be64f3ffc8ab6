"""`ctt genesis` makes a document of what its members agreed on, and says no to what `ctt init` would refuse."""

import json
import time
from pathlib import Path
from typing import Final

import pytest

from ctt_state.genesis import load_genesis
from ctt_state.preload import Generator, preload_address
from ctt_state.units import hex_of
from node.cli.main import main
from tests.cli_world import Ctt, Result

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


# --- a document made of what its members agreed on ---------------------------------------------------------------------

TERMS: Final = {
    name: value
    for name, value in json.loads(SHIPPED.read_text()).items()
    if name not in ("development", "validators")
}


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ctt:
    """In a directory with terms, and the keys and entries of grid-1 to grid-4."""
    monkeypatch.chdir(tmp_path)
    ctt = Ctt(capsys, one_line=True)
    Path("terms.json").write_text(json.dumps(TERMS))
    for number in range(1, 5):
        for kind in ("votes", "account"):
            assert ctt("key", "new", f"{kind}-{number}.key").code == 0
        assert entry_of(ctt, number).code == 0
    return ctt


def entry_of(ctt: Ctt, number: int, file: str = "", peer: str = "") -> Result:
    keys = ("--consensus-key", f"votes-{number}.key", "--account", f"account-{number}.key")
    names = ("--name", f"grid-{number}", "--peer", peer or f"10.0.0.{number}:30303")
    return ctt("genesis", "validator", file or f"grid-{number}.json", *names, *keys)


def make(ctt: Ctt, *entries: str, terms: str = "terms.json") -> Result:
    return ctt("genesis", "make", "grid.json", "--terms", terms, *entries)


ENTRIES: Final = tuple(f"grid-{number}.json" for number in range(1, 5))


def test_a_document_is_made_of_terms_and_entries_and_all_find_its_hash(ctt: Ctt) -> None:
    made = make(ctt, *ENTRIES)

    document = json.loads(Path("grid.json").read_text())
    assert document == TERMS | {"validators": [json.loads(Path(each).read_text()) for each in ENTRIES]}
    hash_text = hex_of(load_genesis(Path("grid.json").read_bytes()).hash)
    assert made == (0, f"grid.json: chain 7788, 4 validators, hash {hash_text}\n", "")
    checked = ctt("genesis", "check", "grid.json", "--json")
    assert json.loads(checked.out)["hash"] == hash_text


def test_an_entry_has_the_public_parts_of_both_keys(ctt: Ctt) -> None:
    shown = [json.loads(ctt("key", "show", f"{kind}-2.key", "--json").out) for kind in ("votes", "account")]
    assert json.loads(Path("grid-2.json").read_text()) == {
        "name": "grid-2",
        "address": shown[1]["address"],
        "consensusKey": shown[0]["consensusKey"],
        "peer": "10.0.0.2:30303",
    }
    assert ctt("key", "show", "account-2.key", "--address").out == f"{shown[1]['address']}\n"


def test_without_a_time_in_the_terms_the_chain_begins_now(ctt: Ctt) -> None:
    before = time.time_ns() // 1_000_000
    terms = {name: value for name, value in TERMS.items() if name != "timestampMs"}
    Path("timeless.json").write_text(json.dumps(terms))

    assert make(ctt, *ENTRIES, terms="timeless.json").code == 0

    assert before <= json.loads(Path("grid.json").read_text())["timestampMs"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    ("entries", "terms", "code", "text"),
    [
        (("none.json",), "terms.json", 66, "none.json: no such file; ctt genesis validator makes it"),
        (("terms.json",), "terms.json", 65, "terms.json is no validator's entry: $.chainId: unknown member"),
        (ENTRIES, str(SHIPPED), 78, "expected a genesis document without its validators"),
        (ENTRIES, "votes-1.key", 78, "votes-1.key: line 1, column "),
        (ENTRIES, "none.json", 66, "none.json: no such genesis file"),
    ],
)
def test_what_cannot_be_joined_is_named(
    ctt: Ctt, entries: tuple[str, ...], terms: str, code: int, text: str
) -> None:
    made = make(ctt, *entries, terms=terms)

    assert (made.code, made.out) == (code, "")
    assert text in made.err
    assert not Path("grid.json").exists()


def test_a_document_that_nobody_would_take_is_not_made(ctt: Ctt, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["genesis", "make", "grid.json", "--terms", "terms.json", *ENTRIES[:3]])

    assert code == 78
    assert "$.validators: 3 validators tolerate 0 faults; need at least 4" in capsys.readouterr().err
    assert not Path("grid.json").exists()


def test_neither_a_document_nor_an_entry_is_overwritten(ctt: Ctt) -> None:
    assert make(ctt, *ENTRIES).code == 0
    assert make(ctt, *ENTRIES) == (73, "", "ctt: grid.json exists already; it is never overwritten\n")
    assert entry_of(ctt, 1).code == 73
    assert entry_of(ctt, 1, "none/grid-1.json").code == 73


def test_an_entry_without_a_place_for_peers_is_refused(ctt: Ctt) -> None:
    refused = entry_of(ctt, 1, "new.json", "10.0.0.1")
    assert refused == (65, "", "ctt: new.json is no validator's entry: $.peer: '10.0.0.1' is not host:port\n")
    assert not Path("new.json").exists()


def test_a_certificate_is_issued_for_an_entry(ctt: Ctt) -> None:
    address = json.loads(Path("grid-1.json").read_text())["address"]
    assert ctt("ca", "init", "--dir", "ca").code == 0

    issued = ctt("ca", "issue", "--dir", "ca", "--out", "tls", "--entry", "grid-1.json", "--json")
    assert (json.loads(issued.out)["name"], json.loads(issued.out)["validator"]) == ("grid-1", address)

    place = ("ca", "issue", "--dir", "ca", "--out", "other", "--entry", "grid-1.json")
    assert ctt(*place, "--validator", address).code == 64
    assert ctt(*place, "--name", "grid-1").code == 64
    Path("grid-1.json").write_text(Path("grid-1.json").read_text().replace("grid-1", "grid one"))
    assert ctt(*place) == (
        65,
        "",
        "ctt: grid-1.json: 'grid one' is no name: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit first\n",
    )


# --- a document with generated homes -------------------------------------------------------------------------------------


def test_a_populated_document_has_the_generator_and_all_that_it_had(ctt: Ctt) -> None:
    rule = ("--tokens", "55", "--tokens-per-home", "6", "--seed", "3", "--no-keys")

    made = ctt("genesis", "populate", "large.json", "--document", str(SHIPPED), *rule)

    expected = json.loads(SHIPPED.read_text())
    generate = {"count": 55, "seed": 3, "tokensPerProsumer": 6, "signing": False}
    assert json.loads(Path("large.json").read_text()) == expected | {
        "preload": expected.get("preload", {}) | {"generate": generate}
    }
    hash_text = hex_of(load_genesis(Path("large.json").read_bytes()).hash)
    assert made == (0, f"large.json: development chain 7788, 1 validator, hash {hash_text}\n", "")
    assert ctt("init", "--dir", "node", "--genesis", "large.json").code == 0


def test_more_tokens_than_there_may_be_are_refused(ctt: Ctt, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["genesis", "populate", "large.json", "--document", str(SHIPPED), "--tokens", "100000001"]

    assert main(arguments) == 78

    assert "the maximum supply is 100000000" in capsys.readouterr().err
    assert not Path("large.json").exists()
