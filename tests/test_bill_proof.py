"""A bill's proof: made from a node's answers, checked without one. Whatever is changed, left out, added or shown twice
is found, and named; only what the chain cannot know is the operator's word."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio

from apps.bill import check
from apps.bill.bill import Account, document_of, make_bill
from apps.bill.check import Proven, Trusted, Unproven, check_proof
from apps.bill.exact import text_of
from apps.bill.period import Period, midnight_ms
from apps.bill.tariff import read_tariff
from apps.client import Client
from ctt_state.document import DOCUMENT_BYTES_MAX
from ctt_state.genesis import Genesis, load_genesis
from ctt_state.transaction import Signed
from ctt_state.units import Height, hex_of
from node.cli.bill import run_bill, run_mark
from node.cli.main import build_parser
from node.exits import Exit, Failure
from node.ledger import Ledger
from tests.cli_world import Ctt
from tests.ledger_world import ADMIN_KEY, METER_KEYS, OWNERS, document, make_ledger, make_plan, sign_call
from tests.proof_world import EPOCH_BLOCKS, certify, change_set, served_ledger
from tests.rpc_world import ALICE, ALICE_KEY, RpcWorld, served
from tests.test_bill import BERLIN, DAY_AND_NIGHT, DECK

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOME: Final = hex_of(OWNERS[0])
HOUR_MS: Final = 3_600_000
FIRST, END = date(2026, 10, 24), date(2026, 10, 27)  # the day in the middle has 25 hours
START_MS, END_MS = midnight_ms(FIRST, BERLIN), midnight_ms(END, BERLIN)
TARIFF: Final = DECK | {"energy": DAY_AND_NIGHT, "taxes": [{"name": "VAT", "percent": "19"}]}
REPORT: Final = "report(address,uint64,uint256,uint256)"
BATCH: Final = "reportBatch((address,uint64,uint256,uint256)[])"


class Street:
    """Homes whose meters report on a chain with its own clock; the first home's is read every six hours."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._nonces: dict[bytes, int] = {}
        self.imported = self.exported = 0

    def call(self, key: bytes, signature: str, *arguments: Any) -> Signed:
        nonce = self._nonces.get(key, 0)
        self._nonces[key] = nonce + 1
        return sign_call(key, nonce, signature, *arguments)

    def add(
        self, transactions: Sequence[Signed] = (), *, time_ms: int = 0, is_certified: bool = True
    ) -> None:
        """A block at this time, or soon after the last."""
        header = self.ledger.head.block.header
        after_ms = max(time_ms - header.timestamp_ms, self.ledger.genesis.parameters.block_period_ms)
        executed, dropped = self.ledger.build(make_plan(self.ledger, after_ms), transactions)
        assert not dropped
        self.ledger.commit(executed, certify(self.ledger, executed, header.view) if is_certified else None)
        self.ledger.publish(executed)

    def begin(self) -> None:
        """The set of validators grows, the home's meter shows its first registers and amounts."""
        change_set(self.ledger, 0)
        self._nonces[ADMIN_KEY] = 1
        meter = METER_KEYS[0]
        self.add(
            [self.call(meter, REPORT, OWNERS[0], START_MS - 10 * HOUR_MS, 50_000, 7_000)],
            time_ms=START_MS - 9 * HOUR_MS,
        )
        self.add(
            [self.call(meter, "consume(uint256,address)", 900, OWNERS[0])], time_ms=START_MS - 8 * HOUR_MS
        )
        self.imported, self.exported = 50_000, 7_000

    def report(self, time_ms: int, imported: int, exported: int, *, is_certified: bool = True) -> None:
        """In a block five minutes later, beside another home's."""
        self.imported, self.exported = self.imported + imported, self.exported + exported
        mine = self.call(METER_KEYS[0], REPORT, OWNERS[0], time_ms, self.imported, self.exported)
        other = self.call(METER_KEYS[1], "consume(uint256,address)", 77, OWNERS[1])
        self.add([other, mine], time_ms=time_ms + HOUR_MS // 12, is_certified=is_certified)

    def live(self, numbers: range) -> None:
        """Of all 14, the first is from before the period, and the last from after it; between them is one of amounts,
        in a block without a certificate."""
        for number in numbers:
            time_ms = START_MS + number * 6 * HOUR_MS
            self.report(time_ms, 4_321 + 100 * number, 1_500 * (number % 3), is_certified=number % 5 != 2)
            if number == 3:
                self.add(
                    [self.call(METER_KEYS[0], "consume(uint256,address)", 250, OWNERS[0])], is_certified=False
                )


class World(NamedTuple):
    """A chain, and what was written while it grew."""

    client: Client
    checkpoint: str
    genesis: Genesis
    directory: Path
    proof: dict[str, Any]  # from a mark to a mark
    whole: dict[str, Any]  # from genesis on

    def check(self, proof: Any, **rest: Any) -> Proven:
        return check_proof(json.dumps(proof).encode(), self.genesis, **rest)

    def refusal(self, proof: Any) -> str:
        with pytest.raises(Unproven) as refusal:
            self.check(proof)
        return str(refusal.value)


async def run(command: Any, client: Client, *arguments: object) -> None:
    await command(client, build_parser("bill").parse_args(["bill", *map(str, arguments)]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("bill")
    (directory / "tariff.json").write_text(json.dumps(TARIFF))
    (directory / "genesis.json").write_bytes(document(epochBlocks=EPOCH_BLOCKS))
    asked = ("--prosumer", HOME, "--from", FIRST, "--to", END, "--tariff", directory / "tariff.json")
    bill = (*asked, "--name", "Ann", "--number", "0231-1222", "--json")
    marks = [directory / f"mark-{number}.json" for number in range(3)]
    ledger = make_ledger(directory / "node", epochBlocks=EPOCH_BLOCKS)
    try:
        street = Street(ledger)
        street.begin()
        async with served_ledger(ledger) as node, Client(node.url) as client:

            async def take(mark: Path) -> None:
                await run(run_mark, client, "mark", "--prosumer", HOME, "--out", mark)

            await take(marks[0])
            street.live(range(9))
            await take(marks[1])
            street.live(range(9, 14))
            street.add()
            await take(marks[2])
            street.add()
            marked, whole = (directory / f"{name}.proof" for name in ("marked", "whole"))
            await run(run_bill, client, *bill, "--proof", marked, "--mark", marks[2], "--mark", marks[0])
            await run(run_bill, client, *bill, "--proof", whole)
            block = await client.call("eth_getBlockByNumber", hex(EPOCH_BLOCKS), False)
            yield World(
                client,
                f"{EPOCH_BLOCKS}:{block['hash']}",
                load_genesis(document(epochBlocks=EPOCH_BLOCKS)),
                directory,
                json.loads(marked.read_bytes()),
                json.loads(whole.read_bytes()),
            )
    finally:
        ledger.close()


# --- what holds ------------------------------------------------------------------------------------------------------


async def test_the_proof_holds_and_has_every_reading(world: World) -> None:
    """The reading of the first midnight is of the day before; what is after the last midnight is of the day after."""
    proven = world.check(world.proof, tariff=read_tariff(TARIFF))
    bill = proven.bill
    assert bill.consumed_wh == sum(4_321 + 100 * number for number in range(1, 13)) + 250
    assert (len(bill.readings), proven.counted) == (13, 15)
    assert (proven.opening, proven.closing, proven.is_settled) == (4, 20, True)
    assert bill.account == Account("Ann", "0231-1222")
    assert document_of(bill) == world.proof["bill"]
    assert text_of(bill.total_due) == world.proof["bill"]["totalDue"]


async def test_from_genesis_on_the_bill_is_the_same(world: World) -> None:
    proven = world.check(world.whole)
    assert (proven.opening, proven.closing) == (0, 21)
    assert proven.counted == 16  # with the amount before the mark
    assert world.whole["bill"] == world.proof["bill"] | {"asOfBlock": 21}


# `python -m apps.bill` where only `ctt_state` and `apps.bill` are, and none of the libraries that a node needs.
OFFLINE: Final = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in ("node", "rpc", "p2p", "plyvel", "aiohttp", "rich", "fpdf")
        if absent or name.startswith("apps.") and not name.startswith("apps.bill"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
runpy.run_module("apps.bill", run_name="__main__")
"""


def check_offline(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.parametrize("checkpoint", ["abc", "9", "9:0x12", "-1:0x" + "0" * 64])
async def test_a_wrong_checkpoint_is_named_with_what_it_should_be(checkpoint: str) -> None:
    ran = check_offline("bill.proof", "--genesis", "genesis.json", f"--checkpoint={checkpoint}")
    assert ran.returncode == 64
    assert f"'{checkpoint}' is not HEIGHT:HASH, such as 900:0x and 64 hexadecimal digits" in ran.stderr


async def test_a_proof_may_begin_at_a_block_that_is_trusted(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last day's, from a mark after the first epoch on. Who does not trust that block is not convinced."""
    proof = world.directory / "day.proof"
    marks = [part for number in (1, 2) for part in ("--mark", world.directory / f"mark-{number}.json")]
    asked = (
        "--prosumer",
        HOME,
        "--from",
        "2026-10-26",
        "--to",
        END,
        "--tariff",
        world.directory / "tariff.json",
    )
    begin = ("--checkpoint", world.checkpoint)
    await run(run_bill, world.client, *asked, "--proof", proof, *marks, *begin)
    written = json.loads(proof.read_bytes())
    assert written["epochs"] == [] and len(written["checkpoint"]["members"]) == 2

    ctt = Ctt(capsys, "bill", "verify", one_line=True)
    files = (proof, "--genesis", world.directory / "genesis.json")
    assert "4 of the period among 5, all there are in blocks 15 to 20" in ctt(*files, *begin).out
    assert f"the proof begins at block {world.checkpoint}; trusted is genesis alone" in ctt(*files).err
    other = f"{EPOCH_BLOCKS}:0x{'11' * 32}"
    assert f"trusted is {other}" in ctt(*files, "--checkpoint", other).err
    ended = check_offline(*files, *begin)
    assert (ended.returncode, ended.stderr) == (0, "")

    for arguments, text in (
        ((*marks, "--checkpoint", other), f"has no block {other}"),
        (
            (*marks, "--checkpoint", f"9:{await hash_of(world, 9)}"),
            "block 9 is not the last of its epoch: block 10 is",
        ),
        (begin, "the totals of the opening are those of block 0: the checkpoint has to be below it"),
    ):
        with pytest.raises(Failure, match=text):
            await run(run_bill, world.client, *asked, "--proof", world.directory / "none.proof", *arguments)
    assert not (world.directory / "none.proof").exists()


async def hash_of(world: World, height: int) -> str:
    block = await world.client.call("eth_getBlockByNumber", hex(height), False)
    return str(block["hash"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"header": "proof"}, "the proof begins at block"),
        ({"members": []}, "$.checkpoint.members: not the set that the block names"),
        ({"members": [["0x00"]]}, "expected pairs"),
    ],
)
async def test_a_checkpoint_is_what_it_says(world: World, change: dict[str, Any], text: str) -> None:
    """What is trusted is one block: its set has to be the one that it names."""
    boundary = (await world.client.call("ctt_finalityCertificate", hex(EPOCH_BLOCKS)))["header"]
    other = (await world.client.call("ctt_finalityCertificate", hex(9)))["header"]
    forged = {"header": boundary, "members": []} | change
    forged["header"] = other if forged["header"] == "proof" else boundary
    trusted = Trusted(EPOCH_BLOCKS, bytes.fromhex((await hash_of(world, EPOCH_BLOCKS))[2:]))
    with pytest.raises(Unproven) as refusal:
        world.check(world.proof | {"checkpoint": forged}, trusted=trusted)
    assert text in str(refusal.value)


async def test_proofs_may_be_compressed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = world.directory / "packed.proof.gz"
    asked = ("--prosumer", HOME, "--from", FIRST, "--to", END, "--tariff", world.directory / "tariff.json")
    await run(run_bill, world.client, *asked, "--proof", packed)
    data = packed.read_bytes()
    assert len(data) < (world.directory / "whole.proof").stat().st_size // 2
    assert check_proof(data, world.genesis).counted == 16
    for forged, text in ((data[:-9], "the end is missing"), (data[:30] + bytes(9) + data[39:], "not gzip")):
        with pytest.raises(Unproven, match=text):
            check_proof(forged, world.genesis)
    monkeypatch.setattr(check, "PROOF_BYTES_MAX", 100)
    with pytest.raises(Unproven, match="more than 100 bytes"):
        check_proof(data, world.genesis)


async def test_proofs_may_be_larger_than_other_documents(world: World) -> None:
    """Those of a month are."""
    data = (world.directory / "marked.proof").read_bytes()
    assert check_proof(data + b" " * DOCUMENT_BYTES_MAX, world.genesis).counted == 15


async def test_another_homes_mark_is_refused(world: World) -> None:
    other = world.directory / "other-mark.json"
    await run(run_mark, world.client, "mark", "--prosumer", hex_of(OWNERS[1]), "--out", other)
    asked = ("--prosumer", HOME, "--from", FIRST, "--to", END, "--tariff", world.directory / "tariff.json")
    with pytest.raises(Failure, match=f"a mark of {hex_of(OWNERS[1])}, not of {HOME}"):
        await run(run_bill, world.client, *asked, "--proof", world.directory / "none.proof", "--mark", other)
    with pytest.raises(Failure, match="not what ctt bill mark wrote"):
        tariff = world.directory / "tariff.json"
        await run(run_bill, world.client, *asked, "--proof", world.directory / "none.proof", "--mark", tariff)


async def test_it_is_checked_where_no_node_is_installed(world: World) -> None:
    marked, cut = world.directory / "marked.proof", world.directory / "cut.proof"
    genesis = ("--genesis", world.directory / "genesis.json")
    ended = check_offline(marked, *genesis)
    assert (ended.returncode, ended.stderr) == (0, "") and "proven: " in ended.stdout
    cut.write_bytes(marked.read_bytes()[:-200])
    ended = check_offline(cut, *genesis)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (65, "", 1)
    assert "cut.proof: not proven: $: " in ended.stderr
    ended = check_offline(world.directory / "missing", *genesis)
    assert (ended.returncode, ended.stderr) == (66, f"{world.directory}/missing: No such file or directory\n")
    ended = check_offline(marked, "--genesis", marked)
    assert (ended.returncode, ended.stdout) == (78, "")


async def test_the_command_checks_offline(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    ctt = Ctt(capsys, "bill", "verify", one_line=True)
    files = (world.directory / "marked.proof", "--genesis", world.directory / "genesis.json")
    told = ctt(*files, "--tariff", world.directory / "tariff.json")
    assert told.code == 0 and f"proven: {world.proof['bill']['totalDue']} EUR due from {HOME}" in told.out
    assert "13 of the period among 15, all there are in blocks 5 to 20" in told.out
    assert json.loads(ctt(*files, "--json").out)["bill"] == world.proof["bill"]

    other = world.directory / "other.json"
    other.write_text(json.dumps(TARIFF | {"name": "Another"}))
    refused = ctt(*files, "--tariff", other)
    assert (refused.code, "the one given is" in refused.err) == (65, True)
    refused = ctt(world.directory / "tariff.json", "--genesis", world.directory / "genesis.json", "--json")
    assert (refused.code, json.loads(refused.out)["proven"]) == (65, False)
    assert ctt(world.directory / "missing", *files[1:]).code == 66


# --- what does not ---------------------------------------------------------------------------------------------------

# What a customer has to compare with what was agreed on: no chain knows it.
THE_OPERATORS_WORD: Final = {"$.bill.account.name", "$.bill.account.number"}


def leaves(value: Any, path: str = "$") -> Iterator[tuple[str, list[Any]]]:
    """The path of each value that holds no others, and the way to it."""
    if isinstance(value, dict):
        for name in value:
            yield from ((where, [name, *way]) for where, way in leaves(value[name], f"{path}.{name}"))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from ((where, [number, *way]) for where, way in leaves(item, f"{path}[{number}]"))
    else:
        yield path, []


def changed(value: Any) -> Any:
    """Another of its kind."""
    match value:
        case None | []:
            return "0x00"
        case int():
            return value + 1
        case str() if value.startswith("0x"):
            middle = 2 + (len(value) - 2) // 2
            return value[:middle] + format(int(value[middle], 16) ^ 1, "x") + value[middle + 1 :]
        case str() if value[-1:].isdigit():
            return value[:-1] + str((int(value[-1]) + 1) % 10)
    return f"{value}x"


async def test_whatever_is_changed_is_found_and_named(world: World) -> None:
    """Every field of the file; of the bill's lines the refusal says which."""
    believed = set()
    for path, way in leaves(world.proof):
        forged = deepcopy(world.proof)
        holder = forged
        for step in way[:-1]:
            holder = holder[step]
        holder[way[-1]] = changed(holder[way[-1]])
        try:
            world.check(forged)
            believed.add(path)
        except Unproven as refusal:
            text = str(refusal)
            assert "\n" not in text
            if way[:2] == ["bill", "lines"]:
                assert text.startswith(f"line {way[2] + 1}, "), text
            elif way[0] in ("opening", "closing", "epochs", "transactions"):
                assert text.startswith(("$.opening", "$.closing", "$.epochs", "$.transactions")), text
    assert believed == THE_OPERATORS_WORD


OTHER_KINDS: Final[tuple[Any, ...]] = (None, 7, {})


async def test_values_of_another_kind_are_refused_too(world: World) -> None:
    """One of each kind of place in the file, and whatever holds others as well."""

    def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield way
        parts = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for name, part in parts:
            if not isinstance(value, list) or name == len(value) - 1:
                yield from places(part, (*way, name))

    for *way, last in filter(None, places(world.proof)):
        for value in OTHER_KINDS:
            forged = deepcopy(world.proof)
            holder = forged
            for step in way:
                holder = holder[step]
            if holder[last] == value:
                continue
            holder[last] = value
            assert "\n" not in world.refusal(forged), (way, last, value)


async def test_a_price_that_changed_with_its_line_is_found_by_the_tariff_agreed_on(world: World) -> None:
    """The whole bill made anew by another tariff is consistent: only the tariff agreed on tells."""
    dearer = read_tariff(TARIFF | {"meterRental": {"amount": "6.00", "per": "bill"}})
    proven = world.check(world.proof)
    period = Period.between(FIRST, END, BERLIN)
    made = make_bill(
        dearer,
        period,
        OWNERS[0],
        proven.bill.readings,
        as_of_block=proven.closing,
        account=proven.bill.account,
    )
    forged = world.proof | {"tariff": dearer.document, "bill": document_of(made)}
    assert world.check(forged).bill.tariff.digest == dearer.digest
    with pytest.raises(Unproven, match=r"\$.tariff: tariff 0x[0-9a-f]{64}; the one given is 0x"):
        world.check(forged, tariff=read_tariff(TARIFF))


async def test_each_reading_that_is_left_out_is_missed(world: World) -> None:
    for number in range(len(world.proof["transactions"])):
        kept = [each for at, each in enumerate(world.proof["transactions"]) if at != number]
        text = world.refusal(world.proof | {"transactions": kept})
        assert text.startswith("$.transactions: the 14 readings shown have"), text
        assert "between blocks 4 and 20" in text and text.endswith("one is missing")


async def test_a_reading_that_is_shown_twice_is_refused(world: World) -> None:
    shown = world.proof["transactions"]
    assert "a transaction that was shown before" in world.refusal(
        world.proof | {"transactions": [*shown, shown[-1]]}
    )


async def test_what_was_counted_before_the_opening_cannot_be_billed_again(world: World) -> None:
    both = world.whole["transactions"]
    assert "block 4 is not above block 4" in world.refusal(world.proof | {"transactions": both})


async def test_marks_from_the_wrong_time_prove_nothing(world: World) -> None:
    late = world.proof | {"opening": world.proof["closing"]}
    assert "block 20 may already hold readings of the period" in world.refusal(late)
    early = world.proof | {"closing": world.proof["opening"], "transactions": []}
    assert "block 4 is from before the end of the period" in world.refusal(early)


async def test_a_record_that_is_not_shown_is_missed(world: World) -> None:
    forged = deepcopy(world.proof)
    del forged["closing"]["records"][0]
    assert world.refusal(forged).startswith("$.closing.records: record 0x05")
    forged = deepcopy(world.proof)
    del forged["closing"]["records"][1]  # the meter's registers: who knows whether readings may still come?
    assert not world.check(forged).is_settled


async def test_epochs_are_all_needed_and_no_more(world: World) -> None:
    assert "$.epochs: epoch 0 is missing" in world.refusal(world.proof | {"epochs": []})
    more = [*world.proof["epochs"], world.proof["epochs"][-1]]
    assert "an epoch beyond the closing block" in world.refusal(world.proof | {"epochs": more})
    assert any(epoch["members"] for epoch in world.proof["epochs"])


async def test_another_chains_genesis_proves_nothing(world: World) -> None:
    other = load_genesis(document(epochBlocks=EPOCH_BLOCKS, chainId=1))
    with pytest.raises(Unproven, match="is of the chain"):
        check_proof(json.dumps(world.proof).encode(), other)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "ctt-bill-proof/2"}, "expected ctt-bill-proof/1"),
        ({"tariff": {}}, "$.tariff: $: 'name' is a required property"),
        ({"transactions": {}}, "$.transactions: {}: expected list"),
        ({"transactions": [7]}, "$.transactions[0].finality: missing"),
        ({"epochs": None}, "$.epochs: None: expected list"),
        ({"closing": None}, "$.closing.format: missing"),
        ({"bill": None}, "$.bill.prosumer: missing"),
    ],
)
async def test_files_of_another_form_are_refused(world: World, change: dict[str, Any], text: str) -> None:
    assert text in world.refusal(world.proof | change)


async def test_members_that_nothing_proves_are_refused(world: World) -> None:
    bill = world.proof["bill"]
    assert world.refusal(world.proof | {"bill": bill | {"paid": "1"}}) == "paid: nothing proves it"
    extra = bill["lines"][-1] | {"name": "Fine", "amount": "9.00"}
    count = len(bill["lines"])
    more, fewer = bill | {"lines": [*bill["lines"], extra]}, bill | {"lines": bill["lines"][:-1]}
    assert world.refusal(world.proof | {"bill": more}) == f"line {count + 1}: nothing proves it"
    assert world.refusal(world.proof | {"bill": fewer}).startswith(
        f"line {count}, Discount: the bill says nothing"
    )


# --- why there is no bill --------------------------------------------------------------------------------------------


async def test_why_there_is_no_bill_is_said_in_a_line(tmp_path: Path) -> None:
    """A node that began with a snapshot: what it does not have, and a period before it."""
    chain = RpcWorld()
    chain.send_call(ALICE_KEY, "buyEmptyTokens(uint256)", 1)
    for _ in range(10):
        chain.make_block()
    (tmp_path / "tariff.json").write_text(json.dumps(DECK | {"timeZone": "UTC"}))
    asked = ("--tariff", tmp_path / "tariff.json", "--prosumer")
    async with served(chain) as node, Client(node.url) as client:

        async def refusal(*arguments: object) -> tuple[int, str]:
            with pytest.raises(Failure) as failure:
                await run(run_bill, client, *asked, *arguments)
            return failure.value.exit_code, str(failure.value)

        alice, before = hex_of(ALICE), ("--from", "2023-11-10", "--to", "2023-11-14")
        assert await refusal(alice, "--month", "2023-11") == (
            Exit.USAGE,
            "the period ends 2023-12-01 00:00 UTC, the newest block is of 2023-11-14 22:13 UTC",
        )
        assert await refusal("0x" + "11" * 20, *before) == (
            Exit.MISSING,
            f"the chain has no prosumer 0x{'11' * 20}",
        )
        await run(run_bill, client, *asked, alice, *before)
        chain.base = Height(chain.head.block.header.height - 4)
        code, text = await refusal(alice, *before)
        assert (code, f"the first block at {node.url} is 8, of 2023-11-14 22:13 UTC" in text) == (69, True)
        code, text = await refusal(alice, *before, "--proof", tmp_path / "x.proof")
        assert (code, "or a proof may begin at a mark" in text) == (69, True)
        assert await refusal(alice) == (
            Exit.USAGE,
            "the period is --month, or --from and --to; see ctt bill --help",
        )
        assert (await refusal(alice, *before, "--month", "2023-10"))[0] == Exit.USAGE
        assert (await refusal(alice, "--from", "2023-11-10"))[0] == Exit.USAGE
        code, text = await refusal(alice, "--from", "2023-11-10", "--to", "2023-11-10")
        assert (code, "are 0 days" in text) == (Exit.USAGE, True)
