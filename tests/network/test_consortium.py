"""docs/CONSORTIUM.md does what it says: what it has typed is executed as it stands there, on machines of their own."""

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.live_network import wait_for
from tests.live_node import GENESIS
from tests.network.machines import Machines, Step, read_steps
from tests.network.namespaces import require

pytestmark = pytest.mark.timeout(400)  # a guide takes its time, and more where others work, too

GUIDE: Final = GENESIS.parent / "docs" / "CONSORTIUM.md"
FOUR: Final = ("alpha", "beta", "gamma", "delta")
REMAINING: Final = ("alpha", "beta", "gamma", "epsilon")
MACHINES: Final = (*FOUR, "epsilon", "desk")
BEGINNING: Final = ("The keys", "The document", "The certificates", "The settings", "The start")
PERIOD_MS: Final = 333
BLOCKS: Final = 15
PATIENCE_SECONDS: Final = 60.0
# The guide's own advice for a rehearsal: three changes of the set take seconds rather than a quarter of an hour.
YEARS, REHEARSAL = '"epochBlocks": 900', '"epochBlocks": 20'


def read_guide() -> Mapping[str, Sequence[Step]]:
    """Its steps by section."""
    text = GUIDE.read_text(encoding="utf-8")
    assert text.count(YEARS) == 1
    assert f"`{REHEARSAL}`" in text
    sections: dict[str, list[Step]] = defaultdict(list)
    for step in read_steps(text.replace(YEARS, REHEARSAL)):
        assert step.machines, f"nobody says where this is typed:\n{step.script}"
        assert set(step.machines) <= set(MACHINES)
        sections[step.section].append(step)
    return sections


class Chain:
    """What its nodes say of it."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def height(self, name: str) -> int:
        return int(self._machines.ask(name, "eth_blockNumber"), 16)

    def block(self, name: str, height: int) -> Any:
        return self._machines.ask(name, "eth_getBlockByNumber", hex(height), False)

    def wait(self, name: str, height: int) -> None:
        wait_for(lambda: self.height(name) >= height, PATIENCE_SECONDS)

    def check_same(self, names: Sequence[str]) -> None:
        """All have the first one's newest block, and with it the same state."""
        height = self.height(names[0])
        for name in names:
            self.wait(name, height)
        blocks = [self.block(name, height) for name in names]
        assert len({(block["hash"], block["stateRoot"]) for block in blocks}) == 1

    def check_pace(self, name: str) -> None:
        """Three blocks a second, never more, and not much fewer on a machine that has other things to do."""
        first = self.height(name)
        self.wait(name, first + BLOCKS)
        begin, end = (
            int(self.block(name, height)["timestampMilliseconds"], 16) for height in (first, first + BLOCKS)
        )
        assert BLOCKS * PERIOD_MS <= end - begin <= BLOCKS * PERIOD_MS * 10

    def validators(self, name: str) -> dict[str, str]:
        """Consensus keys by address."""
        members = self._machines.ask(name, "ctt_validators", "latest")["validators"]
        return {each["address"]: each["consensusKey"] for each in members}

    def wait_for_blocks_of(self, addresses: Iterable[str], name: str) -> None:
        """Until each of these validators has made a block from now on."""
        missing, height = set(addresses), self.height(name)
        while missing:
            height += 1
            self.wait(name, height)
            missing.discard(self.block(name, height)["miner"])


def read_entry(path: Path) -> tuple[str, str]:
    entry = json.loads(path.read_text())
    return entry["address"], entry["consensusKey"]


class Consortium(NamedTuple):
    """The four, where there are blocks."""

    machines: Machines
    guide: Mapping[str, Sequence[Step]]
    chain: Chain
    shown: Mapping[str, Mapping[str, str]]  # by section and machine


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    require()
    for program in ("bash", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"the guide needs the program {program}")
    guide = read_guide()
    with Machines(tmp_path_factory.mktemp("consortium"), MACHINES) as machines:
        shown = {section: machines.play(guide[section]) for section in BEGINNING}
        yield Consortium(machines, guide, Chain(machines), shown)


def test_four_who_follow_the_guide_have_a_chain(consortium: Consortium) -> None:
    shown = consortium.shown
    checked = {shown["The document"][name] for name in FOUR}
    assert len(checked) == 1
    assert "grid.json: ok: chain 48217, 4 validators, hash 0x" in checked.pop()
    assert "../rpc.pem" in shown["The settings"]["gamma"]
    assert "state       healthy" in shown["The start"]["alpha"]
    assert "validators  4, none is missing" in shown["The start"]["beta"]
    consortium.chain.check_pace("beta")
    consortium.chain.check_same(FOUR)


def test_packets_may_be_late_or_lost(consortium: Consortium) -> None:
    machines, chain = consortium.machines, consortium.chain
    try:
        for name in FOUR:
            machines.shape(name, "netem", "delay", "20ms", "5ms", "loss", "1%")
    except subprocess.CalledProcessError as fault:
        pytest.skip(f"the kernel makes no packets late or lost: {fault.stderr.strip()}")
    try:
        chain.check_pace("beta")
        chain.check_same(FOUR)
    finally:
        for name in FOUR:
            machines.shape(name, "pfifo")


def test_a_machine_goes_away_and_comes_back(consortium: Consortium) -> None:
    machines, guide, chain = consortium.machines, consortium.guide, consortium.chain

    shown = machines.play(guide["One machine goes away, and comes back"])
    assert "missing: delta" in shown["alpha"]
    assert "stalled: " in shown["alpha"]
    assert "ended with 75" in shown["alpha"]
    assert "state       healthy" in shown["delta"]
    chain.check_same(FOUR)


def test_members_and_keys_come_and_go(consortium: Consortium) -> None:
    machines, guide, chain = consortium.machines, consortium.guide, consortium.chain

    machines.play(guide["A fifth member"])
    assert len(chain.validators("gamma")) == 5
    chain.check_same((*FOUR, "epsilon"))

    machines.play(guide["Another key for a validator"])
    shown = machines.play(guide["A member leaves"])
    assert "state       healthy" in shown["alpha"]
    assert "4 validators:" in shown["alpha"]
    files = [
        ("desk", "alpha.json"),
        ("beta", "beta-new.json"),
        ("desk", "gamma.json"),
        ("desk", "epsilon.json"),
    ]
    members = dict(read_entry(machines.home(name) / file) for name, file in files)
    assert chain.validators("gamma") == members
    for name in REMAINING:
        assert "# delta, " in (machines.home(name) / "node" / "tls" / "revoked.txt").read_text()
    chain.check_same(REMAINING)
    chain.wait_for_blocks_of(members, "alpha")
    machines.type("delta", "ctt verify --dir node")


def test_what_fails_on_a_machine_is_told_with_what_it_said(tmp_path: Path) -> None:
    require()
    with Machines(tmp_path, ("alpha",)) as machines:
        assert machines.type("alpha", "HERE=$(pwd)\nfalse || echo went on") == "went on\n"
        assert machines.type("alpha", "cat << END\n$HERE\nEND") == f"{machines.home('alpha')}\n"
        with pytest.raises(AssertionError, match=r"on alpha:\nctt key show none\.key\n"):
            machines.type("alpha", "ctt key show none.key\necho never")


def test_nothing_of_the_machines_is_left(tmp_path: Path) -> None:
    require()
    with Machines(tmp_path, ("alpha",)) as machines:
        machines.type("alpha", "nohup sleep 1000 > /dev/null 2>&1 &\necho $! > sleeper")
        sleeper = Path("/proc", (machines.home("alpha") / "sleeper").read_text().strip())
        assert sleeper.exists()
    wait_for(lambda: not sleeper.exists())
