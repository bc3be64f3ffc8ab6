"""`ctt authority`: validators come, go and change their keys on a real network; what is refused is said in words."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast

import pytest

from ctt_state.crypto import address_of, public_key
from ctt_state.genesis import development_key
from ctt_state.modules.authority import AUTHORITY
from ctt_state.records import Change, Outcome
from ctt_state.units import ZERO_HASH, Address, Hash, Height, hex_of
from ctt_state.validators import Member, ValidatorSet
from ctt_state.votes import Evidence, Kind, Statement, sign_vote
from node.cli.authority import REFUSALS
from node.cli.governance import Epoch, Offence, Proposal, Standing, describe_standing, summarise_standing
from node.cli.init import initialise
from node.journal import VOTES
from node.keys import KEY_FILE, create_key, load_key
from node.ledger import Ledger
from tests.cli_world import Ctt, Result
from tests.ledger_world import finish, make_plan
from tests.live_network import LiveNetwork, wait_for
from tests.live_node import GENESIS, LiveNode

FIRST_PORT: Final = 9_300
STRANGER: Final = Address(b"\x5a" * 20)
STRANGERS_KEY: Final = hex_of(public_key(bytes(31) + b"\x05"))


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, one_line=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    with LiveNetwork(tmp_path_factory.mktemp("authority") / "net", first_port=FIRST_PORT) as network:
        yield network


class Governance:
    """`ctt authority` at validator 1's door."""

    def __init__(self, ctt: Ctt, network: LiveNetwork) -> None:
        self._ctt = ctt
        self._network = network

    def __call__(self, command: str, *arguments: object, key: Path | int | None = None) -> Result:
        """`key` is a file's or a validator's number."""
        file = self._network.key_file(key) if isinstance(key, int) else key
        flags = () if file is None else ("--key", file)
        return self._ctt("authority", command, *arguments, *flags, "--rpc", self._network.url())

    def done(self, command: str, *arguments: object, key: Path | int) -> str:
        result = self(command, *arguments, key=key)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def propose(self, *arguments: object, by: int) -> int:
        """The new proposal's number."""
        told = json.loads(self.done("propose", *arguments, "--json", key=by))
        assert (told["proposal"]["votes"], told["proposal"]["outcome"]) == (1, "open")
        return int(told["proposal"]["number"])

    def refusal(self, command: str, *arguments: object, key: Path | int) -> str:
        """What it says after 'refused: '."""
        result = self(command, *arguments, key=key)
        assert (result.code, result.out) == (77, ""), result
        return result.err.removeprefix("ctt: refused: ").rstrip("\n")

    def shown(self) -> Any:
        result = self("show", "--json")
        assert (result.code, result.err) == (0, ""), result
        return json.loads(result.out)

    def members(self) -> dict[str, str]:
        """The present set: consensus keys by address."""
        return {each["address"]: each["consensusKey"] for each in self.shown()["validators"]}


@pytest.fixture
def governance(ctt: Ctt, network: LiveNetwork) -> Governance:
    return Governance(ctt, network)


def address_text(validator: int) -> str:
    """Of a development validator."""
    return hex_of(address_of(development_key(validator - 1)))


def key_text(validator: int) -> str:
    return hex_of(public_key(development_key(validator - 1)))


def stranger_key(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    create_key(directory / "stranger.key", bytes(31) + b"\x07")
    return directory / "stranger.key"


def wait_for_block_of(network: LiveNetwork, proposer: str) -> int:
    """The height of a block from now on that this validator made."""
    height = network.height()

    def find() -> int | None:
        nonlocal height
        while height < network.height():
            height += 1
            if network.call("eth_getBlockByNumber", hex(height), False)["miner"] == proposer:
                return height
        return None

    return wait_for(find)


# --- what is refused, on a network that stays as it is ----------------------------------------------------------------


def test_who_validates_is_shown_with_names_and_places(governance: Governance, network: LiveNetwork) -> None:
    out = governance("show", "--genesis", network.genesis).out
    shown = governance.shown()

    lines = out.splitlines()
    assert lines[0].startswith("chain 7788 at block ")
    assert lines[1].endswith("; it changes 1 at most")
    assert lines[3] == "4 validators:"
    places = sorted(range(1, 5), key=key_text)
    assert [line.split() for line in lines[4:8]] == [
        [str(place), f"validator-{number}", address_text(number), key_text(number)]
        for place, number in enumerate(places)
    ]
    epoch = shown["epoch"]
    assert epoch["lastHeight"] == 20 * (epoch["number"] + 1)
    assert epoch["nextFixingHeight"] % 20 == 10
    assert epoch["nextFixingHeight"] > shown["height"]
    assert epoch["takesEffectHeight"] == epoch["nextFixingHeight"] + 11
    assert (shown["nextValidators"] is None) == (shown["height"] < epoch["lastHeight"] - 10)


def test_each_refusal_is_said_in_words_and_nothing_is_sent(governance: Governance, tmp_path: Path) -> None:
    stranger = stranger_key(tmp_path)
    strangers = hex_of(address_of(load_key(stranger)))
    number = governance.propose("--remove", address_text(4), by=1)
    first = address_text(1)

    assert governance.refusal("vote", number, key=stranger).startswith(
        f"NotValidator: {strangers} is no validator in"
    )
    assert (
        governance.refusal("vote", number, key=1) == f"AlreadyVoted: {first} has voted for proposal {number}"
    )
    assert governance.refusal("vote", number + 1, key=1) == (
        f"UnknownProposal: there is no proposal {number + 1}; the last one is {number}"
    )
    assert governance.refusal("withdraw", number, key=2) == (
        f"NotProposer: proposal {number} is {first}'s to withdraw, not {address_text(2)}'s"
    )
    assert governance.refusal("ready", number, "--consensus-key", stranger, key=stranger) == (
        f"NoKeyProposed: proposal {number} removes a validator: there is no key to show"
    )
    assert governance.refusal("propose", "--remove", hex_of(STRANGER), key=1) == (
        f"NotMember: {hex_of(STRANGER)} is not in the latest set"
    )
    assert governance.refusal("propose", "--add", hex_of(STRANGER), key_text(3), key=1) == (
        f"KeyTaken: the key {key_text(3)} is that of validator {address_text(3)}"
    )
    out = governance.done("withdraw", number, key=1)
    assert out.endswith(f"proposal {number}: remove {address_text(4)}\n  withdrawn\n")
    assert (
        governance.refusal("vote", number, key=2) == f"ProposalClosed: proposal {number} is closed: withdrawn"
    )


def test_what_a_majority_wants_waits_for_its_key(
    governance: Governance, network: LiveNetwork, tmp_path: Path
) -> None:
    stranger = stranger_key(tmp_path)

    number = governance.propose("--add", hex_of(STRANGER), STRANGERS_KEY, by=1)
    out = governance.done("vote", number, key=2)
    assert f"waits for 1 more vote (ctt authority vote {number}) and for its key" in out
    out = governance.done("vote", number, key=3)

    assert "votes: 3 of 4, 3 carry it" in out
    assert out.endswith(
        f"key: not shown yet\n  waits for its key to be shown (ctt authority ready {number})\n"
    )
    withdrawal = governance.refusal("withdraw", number, key=1)
    assert withdrawal.startswith(f"AlreadyCarried: proposal {number} was carried in block ")
    result = governance("ready", number, "--consensus-key", stranger, key=stranger)
    assert (result.code, result.out) == (78, "")
    assert (
        f"holds key {hex_of(public_key(load_key(stranger)))}; proposal {number} is about {STRANGERS_KEY}"
        in result.err
    )
    (proposal,) = [each for each in governance.shown()["proposals"] if each["number"] == number]
    assert (proposal["votes"], proposal["readyHeight"], proposal["isReady"]) == (3, None, False)
    assert proposal["carriedHeight"] <= network.height()


def test_a_wrong_word_for_the_change_is_no_transaction(governance: Governance) -> None:
    add = governance("propose", "--add", address_text(2), STRANGERS_KEY, key=1)
    rotate = governance("propose", "--rotate", hex_of(STRANGER), STRANGERS_KEY, key=1)

    assert add == (64, "", f"ctt: {address_text(2)} is a validator; --rotate gives it another key\n")
    assert rotate == (64, "", f"ctt: {hex_of(STRANGER)} is no validator; --add makes it one\n")


def test_a_change_may_be_named_by_an_entry(governance: Governance, tmp_path: Path) -> None:
    """Of a validator that is there the entry's own key is taken: so it is what the chain refuses."""
    entry = tmp_path / "grid-3.json"
    members = {
        "name": "grid-3",
        "address": address_text(3),
        "consensusKey": key_text(3),
        "peer": "10.0.0.3:1",
    }
    entry.write_text(json.dumps(members))

    number = governance.propose("--remove", entry, by=1)
    assert f"proposal {number}: remove {address_text(3)}\n" in governance.done("withdraw", number, key=1)
    assert governance.refusal("propose", "--rotate", entry, key=1).startswith(
        f"KeyTaken: the key {key_text(3)} is"
    )
    assert governance("propose", "--add", entry, key=1).err.startswith(
        f"ctt: {address_text(3)} is a validator"
    )
    missing = governance("propose", "--add", tmp_path / "none.json", key=1)
    assert (missing.code, "no such file; ctt genesis validator makes it" in missing.err) == (66, True)
    short = governance("propose", "--add", address_text(3), key=1)
    assert (short.code, "expected ADDRESS KEYHEX, or a file of ctt genesis validator" in short.err) == (
        64,
        True,
    )


def test_nobody_waits_for_what_was_withdrawn(governance: Governance) -> None:
    number = governance.propose("--remove", address_text(4), by=2)
    governance.done("withdraw", number, key=2)

    assert governance("wait", number) == (77, "", f"ctt: proposal {number} is closed: withdrawn\n")


def test_the_names_of_another_chain_are_not_taken(governance: Governance, tmp_path: Path) -> None:
    shipped = Path(__file__).parent.parent / "genesis.json"

    result = governance("show", "--genesis", shipped)

    assert (result.code, result.out) == (65, "")
    assert f"ctt: {shipped} has genesis hash 0x" in result.err


# --- a validator's life ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_validator_joins_another_leaves_and_a_key_is_replaced(
    ctt: Ctt, governance: Governance, network: LiveNetwork
) -> None:
    home = network.directory / "validator-5"
    key_file = network.directory / "validator-5.key"
    assert ctt("key", "new", key_file).code == 0
    fifth, consensus_key = hex_of(address_of(load_key(key_file))), hex_of(public_key(load_key(key_file)))

    assert ctt("init", "--dir", home, "--genesis", network.genesis, "--key", key_file).code == 0
    issue = ("--dir", network.directory / "ca", "--out", home / "tls", "--name", "validator-5")
    assert ctt("ca", "issue", *issue, "--validator", fifth).code == 0
    peers = (
        "--peer",
        f"validator-1=127.0.0.1:{network.spare_port - 4}",
        "--p2p-port",
        str(network.spare_port),
    )
    with LiveNode(home, flags=peers) as node:
        # It joins.
        number = governance.propose("--add", fifth, consensus_key, by=1)
        governance.done("ready", number, "--consensus-key", key_file, key=key_file)
        governance.done("vote", number, key=2)
        governance.done("vote", number, key=3)
        assert json.loads(governance("wait", number, "--json").out)["proposal"] == number
        assert governance.members()[fifth] == consensus_key
        assert len(governance.members()) == 5
        height = wait_for_block_of(network, fifth)
        block = wait_for(lambda: node.call("eth_getBlockByNumber", hex(height), False))
        assert block == network.call("eth_getBlockByNumber", hex(height), False)
        votes = json.loads(ctt("journal", "show", "--dir", home, "--json").out)["marks"]
        assert votes["finalize"]["epoch"] >= 1

        # Another leaves, by the fifth's vote among others, and follows.
        number = governance.propose("--remove", address_text(4), by=1)
        governance.done("vote", number, key=2)
        governance.done("vote", number, key=key_file)
        assert f"proposal {number}: remove {address_text(4)}\n  in force at" in governance("wait", number).out
        assert address_text(4) not in governance.members()
        assert len(governance.members()) == 4
        height = network.height()
        wait_for(lambda: network.height(validator=4) > height)
        tip = hex(network.height(validator=4))
        assert network.call("eth_getBlockByNumber", tip, False, validator=4) == wait_for(
            lambda: network.call("eth_getBlockByNumber", tip, False)
        )

        # The fifth gets another key.
        new_file = network.directory / "validator-5.new.key"
        assert ctt("key", "new", new_file).code == 0
        new_key = hex_of(public_key(load_key(new_file)))
        number = governance.propose("--rotate", fifth, new_key, by=2)
        governance.done("ready", number, "--consensus-key", new_file, key=key_file)
        governance.done("vote", number, key=3)
        governance.done("vote", number, key=key_file)
        assert governance("wait", number).code == 0
        assert governance.members()[fifth] == new_key
        assert node.stop() == 0
        shutil.move(home / VOTES, home.with_name("votes-of-the-old-key"))
        shutil.copy(new_file, home / KEY_FILE)
        assert ctt("journal", "init", "--dir", home, "--i-am-sure").code == 0
        node.restart()
        wait_for_block_of(network, fifth)
        assert node.stop() == 0
    assert "Traceback" not in node.log()
    assert ctt("verify", "--dir", home).code == 0


# --- nodes that do not answer as they should -------------------------------------------------------------------------

TRANSACTION: Final = "0x" + "ab" * 32
ANSWERS: Final = {
    "eth_estimateGas": "0x5208",
    "eth_getTransactionCount": "0x0",
    "eth_gasPrice": "0x0",
    "eth_chainId": "0x1e6c",
    "eth_sendRawTransaction": TRANSACTION,
    "eth_getTransactionReceipt": None,
}
FAILED: Final = {"status": "0x0", "blockNumber": "0x7", "logs": []}


@contextmanager
def server(answers: dict[str, Any]) -> Iterator[str]:
    """JSON-RPC with these answers; what is an exception is raised as an error. Its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = [self.answer(each) for each in body] if isinstance(body, list) else self.answer(body)
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def answer(self, request: Any) -> Any:
            found = answers.get(request["method"], {"code": -32601, "message": "no such method"})
            outcome = "error" if isinstance(found, dict) and "code" in found else "result"
            return {"jsonrpc": "2.0", "id": request["id"], outcome: found}

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


def reverted(error: str, *values: Any) -> dict[str, Any]:
    """The error of a call that the module refuses."""
    revert = {each.name: each for each in AUTHORITY.errors.values()}[error](*values)
    return {"code": 3, "message": f"execution reverted: {revert.reason}", "data": "0x" + revert.data.hex()}


def vote(ctt: Ctt, url: str, tmp_path: Path) -> Result:
    return ctt("authority", "vote", 1, "--key", stranger_key(tmp_path), "--rpc", url, "--timeout", "0.3")


def test_a_transaction_that_comes_into_no_block_is_named(ctt: Ctt, tmp_path: Path) -> None:
    with server(ANSWERS) as url:
        result = vote(ctt, url, tmp_path)

    assert result == (
        69,
        f"sent transaction {TRANSACTION}\n",
        f"ctt: transaction {TRANSACTION} is in no block after 0.3 s; it may still come: see ctt authority show\n",
    )


def test_what_is_refused_when_its_turn_comes_is_explained(ctt: Ctt, tmp_path: Path) -> None:
    """Somebody else was faster."""
    answers = ANSWERS | {"eth_getTransactionReceipt": FAILED}
    with server(answers | {"eth_call": reverted("AlreadyVoted", 1, STRANGER)}) as url:
        explained = vote(ctt, url, tmp_path / "a")
    with server(answers | {"eth_call": "0x"}) as url:
        unexplained = vote(ctt, url, tmp_path / "b")

    assert (explained.code, unexplained.code) == (77, 77)
    assert explained.err == f"ctt: refused: AlreadyVoted: {hex_of(STRANGER)} has voted for proposal 1\n"
    assert unexplained.err == f"ctt: transaction {TRANSACTION} was refused when its turn came\n"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ({"code": -32000, "message": "insufficient funds"}, 77, "the node refuses: insufficient funds"),
        ({"code": -32005, "message": "txpool is full"}, 69, "the node refuses: txpool is full"),
    ],
)
def test_the_nodes_own_refusal_is_passed_on(
    ctt: Ctt, tmp_path: Path, answer: dict[str, Any], code: int, text: str
) -> None:
    with server(ANSWERS | {"eth_sendRawTransaction": answer}) as url:
        assert vote(ctt, url, tmp_path) == (code, "", f"ctt: {text}\n")


def test_what_is_no_node_of_ours_is_said(ctt: Ctt) -> None:
    with server({}) as url:
        other = ctt("authority", "show", "--rpc", url)
    gone = ctt("authority", "show", "--rpc", url)

    assert other == (69, "", "ctt: the node refuses: no such method\n")
    assert gone.code == 69
    assert gone.err.startswith(f"ctt: {url} does not answer as a node: Cannot connect to host 127.0.0.1:")


# --- words -------------------------------------------------------------------------------------------------------------

FIGURES: Final = {"uint": 3, "address": STRANGER, "bytes": b"\x02\x03"}


@pytest.mark.parametrize("error", AUTHORITY.errors.values(), ids=lambda error: error.name)
def test_every_refusal_of_the_module_has_its_words(error: Any) -> None:
    revert = error(*[FIGURES[param.type.kind] for param in error.params])

    text = REFUSALS.explain_revert("0x" + revert.data.hex(), "otherwise")

    assert text.startswith(f"{error.name}: ")
    assert "{" not in text
    shown = {"uint": "3", "address": hex_of(STRANGER), "bytes": "0x0203"}
    for param in error.params:
        assert (
            "applied" if param.name == "outcome" else shown[param.type.kind]
        ) in text or param.name == "epoch"


def test_no_words_are_left_of_refusals_that_are_gone() -> None:
    assert sorted(REFUSALS.texts) == sorted(error.name for error in AUTHORITY.errors.values())


@pytest.mark.parametrize("data", ["None", "0x", "0x12345678", "0xzz"])
def test_a_refusal_that_is_not_the_modules_is_left_as_it_is(data: str) -> None:
    assert REFUSALS.explain_revert(data, "as the node says") == "as the node says"


# --- how it stands -----------------------------------------------------------------------------------------------------


def member(validator: int) -> Member:
    return Member(address_of(development_key(validator - 1)), public_key(development_key(validator - 1)))


def make_standing(height: int, *, following: ValidatorSet | None = None, **changes: Any) -> Standing:
    """Epoch 2 of 20 blocks each, with four validators and one proposal: to give validator 4 the stranger's key."""
    proposal = Proposal(
        number=7,
        change=Change.ROTATE,
        validator=member(4).address,
        consensus_key=bytes.fromhex(STRANGERS_KEY[2:]),
        proposer=member(1).address,
        proposed_height=Height(41),
        expiry_height=Height(9_000),
        voters=(member(1).address, STRANGER),
        carried_height=Height(0),
        ready_height=Height(0),
        outcome=Outcome.OPEN,
        closed_height=Height(0),
    )
    return Standing(
        chain_id=7788,
        genesis_hash=ZERO_HASH,
        height=Height(height),
        epoch=Epoch(2, Height(50), Height(60), ZERO_HASH, ZERO_HASH, 1),
        present=ValidatorSet(tuple(map(member, (1, 2, 3, 4)))),
        following=following,
        proposals=(proposal._replace(**changes),),
        offences=(),
    )


NAMES: Final = {member(1).address: "grid-1"}


def test_a_proposal_is_shown_with_what_it_waits_for() -> None:
    """The vote of who is not in the set does not count."""
    lines = list(describe_standing(make_standing(49), NAMES))

    first = f"grid-1 ({address_text(1)})"
    assert lines[:2] == [
        "chain 7788 at block 49, in epoch 2 up to block 60",
        "the next set is fixed by block 50 and takes effect with block 61; it changes 1 at most",
    ]
    assert lines[3:5] == ["4 validators:", f"   0  grid-1            {address_text(1)}  {key_text(1)}"]
    assert lines[-5:] == [
        f"proposal 7: give {address_text(4)} the key {STRANGERS_KEY}",
        f"  proposed in block 41 by {first}; open until block 9000",
        f"  votes: 1 of 4, 3 carry it; for it: grid-1, {hex_of(STRANGER)}",
        "  key: not shown yet",
        "  waits for 2 more votes (ctt authority vote 7) and for its key to be shown (ctt authority ready 7)",
    ]


@pytest.mark.parametrize(("height", "fixing", "effective"), [(49, 50, 61), (50, 70, 81), (60, 70, 81)])
def test_what_is_carried_and_ready_is_due_at_the_next_fixing_height(
    height: int, fixing: int, effective: int
) -> None:
    """A-4, A-5."""
    voters = tuple(member(number).address for number in (1, 2, 3))
    standing = make_standing(height, voters=voters, carried_height=44, ready_height=45)

    lines = list(describe_standing(standing, {}))

    assert lines[-2:] == [
        "  key: shown at block 45",
        f"  can be applied by block {fixing}, to take effect with block {effective}",
    ]


def test_a_key_that_was_shown_too_long_ago_is_to_be_shown_again() -> None:
    """A-3: it is fresh for 1,000 blocks, up to the block that fixes the set."""
    epoch = Epoch(60, Height(1_210), Height(1_220), ZERO_HASH, ZERO_HASH, 1)
    standing = replace(make_standing(1_205, ready_height=210), epoch=epoch)
    stale = replace(make_standing(1_205, ready_height=209), epoch=epoch)

    assert standing.is_ready(standing.proposals[0])
    assert not stale.is_ready(stale.proposals[0])


def test_a_next_set_that_differs_is_shown() -> None:
    following = ValidatorSet(tuple(map(member, (1, 2, 3))))

    lines = list(describe_standing(make_standing(50, following=following), NAMES))
    summary = summarise_standing(make_standing(50, following=following), NAMES)

    assert "from block 61 on: 3 validators:" in lines
    assert [each["address"] for each in cast(list[Any], summary["nextValidators"])] == [
        address_text(number) for number in (1, 2, 3)
    ]
    assert summary["votesNeeded"] == 3


OFFENCES: Final = (
    Offence(1, STRANGER, bytes.fromhex(STRANGERS_KEY[2:]), 0, 4, Height(9)),
    Offence(2, *member(1), 1, 5, Height(30)),
)


def test_who_voted_twice_is_shown_and_whether_the_key_is_still_in_the_set() -> None:
    """A-7, A-8: of four validators none is put out."""
    lines = list(describe_standing(replace(make_standing(49), offences=OFFENCES), NAMES))

    assert lines[-6:] == [
        "",
        f"offence 1: {hex_of(STRANGER)} voted twice in view 4 of epoch 0",
        f"  key {STRANGERS_KEY} is barred for ever, by block 9",
        f"offence 2: grid-1 ({address_text(1)}) voted twice in view 5 of epoch 1",
        f"  key {key_text(1)} is barred for ever, by block 30",
        f"  it is still in the set: give the validator another one (ctt authority propose --rotate {address_text(1)})",
    ]


@pytest.mark.parametrize("page", [1, 100])
def test_a_chains_offences_are_asked_for(
    ctt: Ctt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: int
) -> None:
    monkeypatch.setattr("node.cli.governance.ITEMS_PER_VIEW_MAX", page)
    with LiveNode(make_chain_of_an_offender(tmp_path / "node")) as node:
        shown = json.loads(ctt("authority", "show", "--json", "--rpc", node.url).out)

    assert shown["offences"] == [
        {
            "number": 1,
            "validator": address_text(1),
            "consensusKey": key_text(1),
            "epoch": 0,
            "view": 7,
            "height": 1,
            "isInSet": True,
        }
    ]


def make_chain_of_an_offender(directory: Path) -> Path:
    """Its only validator voted twice, and the first block tells."""
    initialise(directory, GENESIS.read_bytes(), development_key(0))
    with closing(Ledger.open(directory)) as ledger:
        statements = [Statement(Kind.NOTARIZE, 0, 7, 0, Hash(bytes(31) + end)) for end in (b"1", b"2")]
        votes = [sign_vote(each, 0, development_key(0), ledger.genesis.hash) for each in statements]
        executed, _ = ledger.build(make_plan(ledger, evidence=[Evidence(*votes).encode()]), [])
        finish(ledger, executed)
    return directory


# --- wrong calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("vote --key k", "the following arguments are required: N"),
        ("vote 1", "the following arguments are required: --key"),
        ("vote x --key k", "N: 'x' is not a whole number from 1 to 999999999"),
        ("vote 0 --key k", "N: '0' is not a whole number from 1 to 999999999"),
        ("ready 1 --key k", "the following arguments are required: --consensus-key"),
        ("propose --key k", "one of the arguments --add --rotate --remove is required"),
        (f"propose --key k --add {STRANGERS_KEY}", "--add: expected ADDRESS KEYHEX, or a file of ctt genesis validator"),
        (f"propose --key k --add x {STRANGERS_KEY}", "--add: 'x' is no address: 0x and 40 hexadecimal digits"),
        (f"propose --key k --remove {address_text(1)} --add {address_text(1)} {STRANGERS_KEY}", "--add: not allowed with argument --remove"),
        (f"propose --key k --rotate {address_text(1)} 0x02", "--rotate: '0x02' is no public key: 66 hexadecimal digits, as ctt key show prints them"),
        (f"propose --key k --add {address_text(1)} 0x02{'ff' * 32}", f"--add: '0x02{'ff' * 32}' is no public key: 66 hexadecimal digits, as ctt key show prints them"),
        ("show --rpc localhost:8545", "--rpc: 'localhost:8545' is no address such as http://127.0.0.1:8545"),
        ("show --rpc http://[::1", "--rpc: 'http://[::1' is no address such as http://127.0.0.1:8545"),
        ("show --timeout 0", "--timeout: '0' is not a number of seconds above 0"),
        ("show --key k", "unknown option --key"),
    ],
)  # fmt: skip
def test_a_wrong_call_ends_with_64_and_one_line(ctt: Ctt, call: str, text: str) -> None:
    result = ctt("authority", *call.split())

    assert (result.code, result.out) == (64, "")
    assert result.err.split("; see ")[0].split(": ", 1)[1] == text


def test_a_key_file_that_is_not_there_is_named(ctt: Ctt, tmp_path: Path) -> None:
    result = ctt("authority", "vote", 1, "--key", tmp_path / "key")

    assert result == (66, "", f"ctt: {tmp_path}/key: no such key file\n")


def test_it_explains_itself_with_an_example(ctt: Ctt) -> None:
    result = ctt("authority", "--help")

    assert result.code == 0
    assert "examples:\n  ctt authority show" in result.out
