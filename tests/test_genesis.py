"""The genesis document: each fault once, by its path; its hash; the records of the first state."""

import copy
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account as EthAccount

from ctt_state.audit import audit
from ctt_state.crypto import address_of, public_key, sha256
from ctt_state.document import SAFE_INTEGER_MAX
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import (
    EARLIEST_MS,
    LATEST_MS,
    Genesis,
    development_genesis,
    development_key,
    genesis_block,
    genesis_records,
    load_genesis,
)
from ctt_state.modules.call import MarketRules
from ctt_state.preload import check_generator
from ctt_state.records import (
    ROLE_OPERATOR,
    ROLE_TREASURER,
    Account,
    CttConfig,
    CttSupply,
    EpochSet,
    MarketTariff,
    Meter,
    Prosumer,
    Reading,
    Record,
    Role,
    ShelfPage,
    Token,
)
from ctt_state.units import ZERO_ADDRESS, Address, Hash, Height, Watt, Wei, Wh, hex_of

SHIPPED: Final = Path(__file__).parent.parent / "genesis.json"
DEVELOPMENT_MNEMONIC: Final = "test test test test test test test test test test test junk"
DELETE: Final = object()


def account(number: int) -> str:
    """An address that stands for this number."""
    return hex_of(sha256(b"account %d" % number)[:20])


ALICE, BOB, CAROL, METER, OTHER_METER, CONCENTRATOR = (account(number) for number in range(6))


def validator(index: int, **changes: Any) -> dict[str, Any]:
    key = development_key(index)
    return {
        "name": f"validator-{index + 1}",
        "address": hex_of(address_of(key)),
        "consensusKey": hex_of(public_key(key)),
        "peer": f"10.0.0.{index + 1}:30303",
        "operator": f"operator-{index + 1}",
    } | changes


def make_document(**changes: Any) -> dict[str, Any]:
    """A document for four operators with every member; `DELETE` takes one out."""
    document: dict[str, Any] = {
        "name": "test",
        "development": False,
        "chainId": 5,
        "timestampMs": 1_700_000_000_000,
        "blockPeriodMs": 333,
        "epochBlocks": 900,
        "blockGasLimit": 100_000_000,
        "minimumGasPriceWei": 0,
        "feeReceiver": None,
        "admin": ALICE,
        "operators": [ALICE],
        "treasurers": [BOB],
        "ctt": {
            "name": "Sun",
            "symbol": "SUN",
            "maxSupply": 1_000,
            "capabilityWh": 10_000,
            "emptyTokenPriceWei": "10000000000000000",
        },
        "accounts": {ALICE: {"balanceWei": "1000"}, BOB: {"balanceWei": 5}},
        "validators": [validator(index) for index in range(4)],
        "preload": {},
    } | changes
    return {name: value for name, value in document.items() if value is not DELETE}


def load(document: Any) -> Genesis:
    return load_genesis(json.dumps(document).encode())


def faults_of(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidGenesis) as refusal:
        load(document)
    return list(refusal.value.faults)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with the member at this path, such as `ctt.name` or `validators.0.peer`, set to a value."""
    document = copy.deepcopy(make_document())
    *steps, last = path.split(".")
    place: Any = document
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is DELETE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return document


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_a_document_gives_its_members() -> None:
    genesis = load(make_document())

    assert genesis.parameters.chain_id == 5
    assert genesis.parameters.genesis_hash == genesis.hash
    assert genesis.parameters.first_admin == Address(bytes.fromhex(ALICE[2:]))
    assert genesis.parameters.fee_receiver is None
    assert genesis.issued_wei == 1_005
    assert not genesis.is_development
    assert genesis.config is not None
    assert genesis.config.highest_capability_wh == genesis.config.capability_wh == 10_000
    keys = [member.consensus_key for member in genesis.validators]
    assert keys == sorted(keys)
    assert {member.operator for member in genesis.validators} == {f"operator-{n}" for n in range(1, 5)}


def test_what_is_optional_has_a_default() -> None:
    optional = "name development blockPeriodMs epochBlocks minimumGasPriceWei feeReceiver operators treasurers ctt preload"

    genesis = load(make_document(**dict.fromkeys(optional.split(), DELETE)))

    assert (genesis.parameters.block_period_ms, genesis.epoch_blocks) == (333, 900)
    assert (genesis.parameters.minimum_gas_price_wei, genesis.parameters.fee_receiver) == (0, None)
    assert (genesis.operators, genesis.treasurers, genesis.config, genesis.is_development) == (
        (),
        (),
        None,
        False,
    )
    assert [key[:1] for key, _ in genesis_records(genesis)] == [b"\x01", b"\x01", b"\x0b"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chainId", 1),
        ("chainId", SAFE_INTEGER_MAX),
        ("timestampMs", EARLIEST_MS),
        ("timestampMs", LATEST_MS),
        ("blockPeriodMs", 50),
        ("blockPeriodMs", 60_000),
        ("epochBlocks", 10),
        ("epochBlocks", 1_000_000),
        ("blockGasLimit", 1_000_000),
        ("blockGasLimit", 1_000_000_000),
        ("minimumGasPriceWei", str(2**128 - 1)),
        ("feeReceiver", BOB),
        ("ctt", None),
        ("ctt.name", "é" * 32),
        ("ctt.maxSupply", 1),
        ("ctt.maxSupply", (2**64 - 1) // 10_000),
        ("ctt.capabilityWh", 1),
        ("ctt.emptyTokenPriceWei", str(2**128 - 1)),
        ("accounts", {ALICE: {"balanceWei": str(2**255)}}),
        ("accounts", {}),
        ("operators", [account(number) for number in range(1_000)]),
        ("validators", [validator(index) for index in range(100)]),
        ("validators.0.operator", ""),
        ("validators.0.peer", "node.example:65535"),
        ("validators.0.peer", "[::1]:1"),
        ("preload", {"generate": None}),
        ("preload", {"generate": {"count": 1_000, "seed": 0, "tokensPerProsumer": 1_000_000}}),
        ("preload", {"tokens": [{"owner": ALICE, "count": 1_000, "energyWh": 10_000}]}),
    ],
)  # fmt: skip
def test_a_value_at_its_limit_is_accepted(path: str, value: Any) -> None:
    load(changed(path, value))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_development_network_may_have_few_validators_of_one_operator(count: int) -> None:
    members = [validator(index, operator="me") for index in range(count)]

    assert load(make_document(development=True, validators=members)).is_development


@pytest.mark.parametrize(("count", "seats"), [(4, 1), (6, 1), (7, 2), (100, 33)])
def test_an_operator_may_hold_as_many_seats_as_may_fail(count: int, seats: int) -> None:
    """f of n = 3f + 1 validators: with them gone the others still decide."""
    members = [validator(index, operator="me" if index < seats else "") for index in range(count)]
    load(make_document(validators=members))

    members[seats]["operator"] = "me"

    assert faults_of(make_document(validators=members)) == [
        ("$.validators", f"operator 'me' holds {seats + 1} of {count} seats; limit {seats}")
    ]


# --- each fault, once -------------------------------------------------------------------------------------------------

KEY: Final = validator(0)["consensusKey"]
MEMBERS: Final = (
    "accounts, admin, blockGasLimit, blockPeriodMs, chainId, ctt, development, epochBlocks, feeReceiver, "
    "market, minimumGasPriceWei, name, operators, preload, timestampMs, treasurers, validators"
)
NO_WEI: Final = "is not an amount of wei: its digits in a string, or up to 2**53 a whole number"
NO_ADDRESS: Final = "expected 20 bytes as 0x and 40 digits, got"


@pytest.mark.parametrize(
    ("path", "value", "place", "fault"),
    [
        ("chainId", DELETE, "$.chainId", "missing"),
        ("admin", DELETE, "$.admin", "missing"),
        ("accounts", DELETE, "$.accounts", "missing"),
        ("validators", DELETE, "$.validators", "missing"),
        ("timestampMs", DELETE, "$.timestampMs", "missing"),
        ("blockGasLimit", DELETE, "$.blockGasLimit", "missing"),
        ("chainID", 5, "$.chainID", f"unknown member; known: {MEMBERS}"),
        ("name", "", "$.name", '"" is not 1 to 64 bytes of printable text'),
        ("name", "a\x07", "$.name", '"a\\u0007" is not 1 to 64 bytes of printable text'),
        ("development", 1, "$.development", "expected true or false, got 1"),
        ("chainId", 0, "$.chainId", f"0 is not between 1 and {2**53}"),
        ("chainId", 2**53 + 1, "$.chainId", f"{2**53 + 1} is not between 1 and {2**53}"),
        ("chainId", "5", "$.chainId", 'expected a whole number, got "5"'),
        ("timestampMs", 1_700_000_000, "$.timestampMs", f"1700000000 is not between {EARLIEST_MS} and {LATEST_MS}"),
        ("timestampMs", EARLIEST_MS - 1, "$.timestampMs", f"{EARLIEST_MS - 1} is not between {EARLIEST_MS} and {LATEST_MS}"),
        ("timestampMs", LATEST_MS + 1, "$.timestampMs", f"{LATEST_MS + 1} is not between {EARLIEST_MS} and {LATEST_MS}"),
        ("blockPeriodMs", 49, "$.blockPeriodMs", "49 is not between 50 and 60000"),
        ("blockPeriodMs", 60_001, "$.blockPeriodMs", "60001 is not between 50 and 60000"),
        ("blockPeriodMs", None, "$.blockPeriodMs", "expected a whole number, got null"),
        ("epochBlocks", 9, "$.epochBlocks", "9 is not between 10 and 1000000"),
        ("epochBlocks", 1_000_001, "$.epochBlocks", "1000001 is not between 10 and 1000000"),
        ("blockGasLimit", 999_999, "$.blockGasLimit", "999999 is not between 1000000 and 1000000000"),
        ("blockGasLimit", 10**9 + 1, "$.blockGasLimit", "1000000001 is not between 1000000 and 1000000000"),
        ("minimumGasPriceWei", -1, "$.minimumGasPriceWei", f"-1 {NO_WEI}"),
        ("minimumGasPriceWei", str(2**128), "$.minimumGasPriceWei", f"{2**128} is not between 0 and {2**128 - 1}"),
        ("feeReceiver", "0x", "$.feeReceiver", f'{NO_ADDRESS} "0x"'),
        ("feeReceiver", "0x" + "0" * 40, "$.feeReceiver", "the zero address belongs to nobody"),
        ("admin", ALICE.upper(), "$.admin", f'{NO_ADDRESS} "{ALICE.upper()}"'),
        ("operators", {}, "$.operators", "expected a list, got an object"),
        ("operators", [ALICE, BOB, ALICE], "$.operators[2]", "the same as $.operators[0]"),
        ("operators", [ALICE] * 1_001, "$.operators", "1001 items; limit 1000"),
        ("treasurers", [7], "$.treasurers[0]", f"{NO_ADDRESS} 7"),
        ("ctt", "CTT", "$.ctt", 'expected an object, got "CTT"'),
        ("ctt.name", DELETE, "$.ctt.name", "missing"),
        ("ctt.name", "x" * 65, "$.ctt.name", f'"{"x" * 65}" is not 1 to 64 bytes of printable text'),
        ("ctt.symbol", "C\nT", "$.ctt.symbol", '"C\\nT" is not 1 to 64 bytes of printable text'),
        ("ctt.symbol", ["CTT"], "$.ctt.symbol", "expected a string, got a list"),
        ("ctt.maxSupply", 0, "$.ctt.maxSupply", f"0 is not between 1 and {2**53}"),
        ("ctt.capabilityWh", 0, "$.ctt.capabilityWh", f"0 is not between 1 and {2**53}"),
        ("ctt.maxSupply", (2**64 - 1) // 10_000 + 1, "$.ctt", f"maxSupply x capabilityWh is {((2**64 - 1) // 10_000 + 1) * 10_000} Wh; limit {2**64 - 1}"),
        ("ctt.emptyTokenPriceWei", "0.1", "$.ctt.emptyTokenPriceWei", f'"0.1" {NO_WEI}'),
        ("ctt.emptyTokenPriceWei", str(2**128), "$.ctt.emptyTokenPriceWei", f"{2**128} is not between 0 and {2**128 - 1}"),
        ("ctt.decimals", 0, "$.ctt.decimals", "unknown member; known: capabilityWh, emptyTokenPriceWei, maxSupply, name, symbol"),
        ("accounts", [], "$.accounts", "expected an object, got a list"),
        ("accounts", {"alice": {"balanceWei": 1}}, "$.accounts.alice", f'{NO_ADDRESS} "alice"'),
        ("accounts", {ALICE: 1}, f"$.accounts.{ALICE}", "expected an object, got 1"),
        ("accounts", {ALICE: {}}, f"$.accounts.{ALICE}.balanceWei", "missing"),
        ("accounts", {ALICE: {"balanceWei": -1}}, f"$.accounts.{ALICE}.balanceWei", f"-1 {NO_WEI}"),
        ("accounts", {ALICE: {"balanceWei": str(2**255)}, BOB: {"balanceWei": 1}}, "$.accounts", "all balances together are more than 2^255 wei"),
        ("validators", [], "$.validators", "0 validators; need at least 1"),
        ("validators", {}, "$.validators", "expected a list, got an object"),
        ("validators", [{}] * 101, "$.validators", "101 items; limit 100"),
        ("validators", [validator(0)], "$.validators", '1 validator tolerates 0 faults; need at least 4 (or "development": true)'),
        ("validators", [validator(n) for n in range(2)], "$.validators", '2 validators tolerate 0 faults; need at least 4 (or "development": true)'),
        ("validators", [validator(n) for n in range(3)], "$.validators", '3 validators tolerate 0 faults; need at least 4 (or "development": true)'),
        ("validators.1.operator", "operator-1", "$.validators", "operator 'operator-1' holds 2 of 4 seats; limit 1"),
        ("validators", [validator(n, operator="\u0421") for n in range(4)], "$.validators", "operator '\\u0421' holds 4 of 4 seats; limit 1"),
        ("validators.1.operator", 0, "$.validators[1].operator", "expected a string, got 0"),
        ("validators.1.name", DELETE, "$.validators[1].name", "missing"),
        ("validators.1.name", "validator-1", "$.validators[1].name", "the same as $.validators[0].name"),
        ("validators.3.address", validator(0)["address"], "$.validators[3].address", "the same as $.validators[0].address"),
        ("validators.2.consensusKey", KEY, "$.validators[2].consensusKey", "the same as $.validators[0].consensusKey"),
        ("validators.2.consensusKey", KEY.replace("0x02", "0x04"), "$.validators[2].consensusKey", f"{KEY.replace('0x02', '0x04')} is no compressed secp256k1 public key"),
        ("validators.2.consensusKey", "0x02" + "ff" * 32, "$.validators[2].consensusKey", f"0x02{'ff' * 32} is no compressed secp256k1 public key"),
        ("validators.2.consensusKey", KEY[:-2], "$.validators[2].consensusKey", f'expected 33 bytes as 0x and 66 digits, got "{KEY[:-2]}"'),
        ("validators.2.peer", "10.0.0.1:30303", "$.validators[2].peer", "the same as $.validators[0].peer"),
        ("validators.2.peer", "10.0.0.9", "$.validators[2].peer", "'10.0.0.9' is not host:port"),
        ("validators.2.peer", ":30303", "$.validators[2].peer", "':30303' is not host:port"),
        ("validators.2.peer", "a b:1", "$.validators[2].peer", "'a b:1' is not host:port"),
        ("validators.2.peer", "::1:30303", "$.validators[2].peer", "'::1:30303' is not host:port"),
        ("validators.2.peer", "\u0663:\u0663", "$.validators[2].peer", "'\\u0663:\\u0663' is not host:port"),
        ("validators.2.peer", "a:0", "$.validators[2].peer", "'a:0' is not host:port"),
        ("validators.2.peer", "a:65536", "$.validators[2].peer", "'a:65536' is not host:port"),
        ("validators.2.peer", "a:" + "9" * 5_000, "$.validators[2].peer", f'"a:{"9" * 77}... is not 1 to 64 bytes of printable text'),
    ],
)  # fmt: skip
def test_each_fault_is_told_once_by_its_path(path: str, value: Any, place: str, fault: str) -> None:
    assert faults_of(changed(path, value)) == [(place, fault)]


@pytest.mark.parametrize(
    ("preload", "place", "fault"),
    [
        ([], "", "expected an object, got a list"),
        ({"meter": []}, ".meter", "unknown member; known: generate, meters, prosumers, tokens"),
        ({"meters": {}}, ".meters", "expected a list, got an object"),
        ({"meters": [{"address": METER, "source": 6}]}, ".meters[0].source", "6 is not between 0 and 5"),
        ({"meters": [{"address": METER, "maxPowerW": -1}]}, ".meters[0].maxPowerW", f"-1 is not between 0 and {2**53}"),
        ({"meters": [{"address": METER, "concentrator": 0}]}, ".meters[0].concentrator", "expected true or false, got 0"),
        ({"meters": [{"address": METER}, {"address": METER}]}, ".meters[1].address", "the same as $.preload.meters[0].address"),
        ({"prosumers": [{"address": BOB, "meter": METER}]}, ".prosumers[0].meter", f"{METER} is not among the meters"),
        ({"prosumers": [{"address": BOB, "meter": "x"}]}, ".prosumers[0].meter", f'{NO_ADDRESS} "x"'),
        (
            {"meters": [{"address": METER}], "prosumers": [{"address": BOB, "meter": METER}, {"address": CAROL, "meter": METER}]},
            ".prosumers[1].meter", f"{METER} already serves {BOB}",
        ),
        (
            {"meters": [{"address": METER}], "prosumers": [{"address": BOB, "meter": METER}, {"address": BOB, "meter": METER}]},
            ".prosumers[1].address", "the same as $.preload.prosumers[0].address",
        ),
        ({"tokens": [{}]}, ".tokens[0].owner", "missing"),
        ({"tokens": [{"owner": BOB, "count": 0}]}, ".tokens[0].count", "0 is not between 1 and 100000"),
        ({"tokens": [{"owner": BOB, "energyWh": 10_001}]}, ".tokens[0].energyWh", "10001 is not between 0 and 10000"),
        ({"tokens": [{"owner": BOB, "energyWh": -1}]}, ".tokens[0].energyWh", "-1 is not between 0 and 10000"),
        ({"tokens": [{"owner": BOB, "count": 1_001}]}, "", "1001 tokens; the maximum supply is 1000"),
        ({"tokens": [{"owner": BOB}], "generate": {"count": 1_000, "seed": 1}}, "", "1001 tokens; the maximum supply is 1000"),
        ({"generate": {"seed": 1}}, ".generate.count", "missing"),
        ({"generate": {"count": 0, "seed": 1}}, ".generate.count", "0 is not between 1 and 1000000000"),
        ({"generate": {"count": 1, "seed": "1"}}, ".generate.seed", 'expected a whole number, got "1"'),
        ({"generate": {"count": 1, "seed": 1, "tokensPerProsumer": 0}}, ".generate.tokensPerProsumer", "0 is not between 1 and 1000000"),
        ({"generate": {"count": 1, "seed": 1, "signing": None}}, ".generate.signing", "expected true or false, got null"),
    ],
)  # fmt: skip
def test_each_fault_of_the_preload_is_told_once(preload: Any, place: str, fault: str) -> None:
    assert faults_of(make_document(preload=preload)) == [(f"$.preload{place}", fault)]


def test_listed_tokens_are_bounded_before_they_are_made() -> None:
    """Twelve bytes can ask for 100,000 tokens."""
    document = make_document(preload={"tokens": [{"owner": BOB, "count": 100_000}] * 100_000})
    document["ctt"]["maxSupply"] = 10**9

    assert faults_of(document) == [("$.preload.tokens", "more than 100000 tokens; use the generator")]


def test_there_is_nothing_to_preload_without_a_ctt() -> None:
    document = make_document(ctt=None, preload={"tokens": [{"owner": BOB, "energyWh": 5}]})

    assert faults_of(document) == [("$.preload", "needs the ctt member: there is no CTT yet")]


def test_a_faulty_ctt_leads_to_no_fault_in_the_preload() -> None:
    document = changed("ctt.capabilityWh", "10 kWh")
    document["preload"] = {"tokens": [{"owner": BOB, "count": 2_000, "energyWh": 10_000}]}

    assert faults_of(document) == [("$.ctt.capabilityWh", 'expected a whole number, got "10 kWh"')]


def test_the_same_address_in_two_spellings_is_one_account() -> None:
    checksummed = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    accounts = {checksummed: {"balanceWei": 1}, checksummed.lower(): {"balanceWei": 2}}

    assert faults_of(make_document(accounts=accounts)) == [
        (f"$.accounts.{checksummed.lower()}", f"the same as $.accounts.{checksummed}")
    ]


def test_all_faults_of_a_document_are_told_together() -> None:
    document = make_document(
        chainId=-1, admin="me", extra=1, accounts={ALICE: {"balanceWei": "x"}}, preload={"generate": 5}
    )
    document["validators"][1] = {}
    document["validators"][2] = {}

    paths = [path for path, _ in faults_of(document)]

    members = ("name", "address", "consensusKey", "peer")
    assert sorted(paths) == sorted(
        ["$.extra", "$.admin", "$.chainId", f"$.accounts.{ALICE}.balanceWei", "$.preload.generate"]
        + [f"$.validators[{index}].{member}" for index in (1, 2) for member in members]
    )


def test_faults_come_in_the_same_order_every_time() -> None:
    document = make_document(**dict.fromkeys(("zeta", "alpha", "omega", "beta"), 0))

    assert [path for path, _ in faults_of(document)] == ["$.zeta", "$.alpha", "$.omega", "$.beta"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "line 1, column 1: Expecting value"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark; save it as UTF-8 without one"),
        (b'{"chainId": 1, "chainId": 1}', 'member "chainId" appears twice'),
        (b'{"chainId": 1.5}', "1.5 is not a whole number"),
        (b'{"name": "\\ud800"}', '"\\ud800" holds half a surrogate pair'),
        (b"{" + b" " * 2**24 + b"}", "larger than 16777216 bytes"),
        (b"[]", "expected an object, got a list"),
    ],
)
def test_what_is_no_document_has_one_fault(text: bytes, fault: str) -> None:
    with pytest.raises(InvalidGenesis) as refusal:
        load_genesis(text)

    assert refusal.value.faults == (("$", fault),)
    assert str(refusal.value) == f"$: {fault}"


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_the_hash_of_the_shipped_document_is_known() -> None:
    """It changes only when genesis.json does: then every network made from it is another one."""
    assert load_genesis(SHIPPED.read_bytes()).hash.hex() == (
        "28199620c8c2f6a5c462a55de3f2c717fb07cc6b9775be7d5c28f7152e3b78c3"
    )


def test_the_hash_follows_from_what_is_said_not_from_how_it_is_written() -> None:
    document = make_document()
    backwards = dict(reversed(document.items())) | {"ctt": dict(reversed(document["ctt"].items()))}

    hashes = {
        load(document).hash,
        load(backwards).hash,
        load_genesis(json.dumps(document, indent=4).encode()).hash,
    }

    assert len(hashes) == 1
    assert load(make_document(chainId=6)).hash not in hashes
    assert load(make_document(name="other")).hash not in hashes


# --- the shipped document -----------------------------------------------------------------------------------------------


def test_the_accounts_are_those_of_the_well_known_mnemonic() -> None:
    EthAccount.enable_unaudited_hdwallet_features()
    derived = [
        EthAccount.from_mnemonic(DEVELOPMENT_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").address
        for index in range(10)
    ]

    document = json.loads(SHIPPED.read_text())

    assert list(document["accounts"]) == derived
    assert document["admin"] == document["operators"][0] == document["treasurers"][0] == derived[0]
    assert {entry["balanceWei"] for entry in document["accounts"].values()} == {str(10**24)}


def test_the_validator_is_the_first_development_one() -> None:
    genesis = load_genesis(SHIPPED.read_bytes())

    (member,) = genesis.validators
    assert genesis.is_development
    assert member.consensus_key == public_key(development_key(0))
    assert member.address == address_of(development_key(0))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_development_network_has_as_many_validators_as_asked_for(count: int) -> None:
    genesis = load_genesis(development_genesis(SHIPPED.read_bytes(), validators=count, p2p_port=30_303))

    members = {member.name: member for member in genesis.validators}
    assert sorted(members) == [f"validator-{number}" for number in range(1, count + 1)]
    for index in range(count):
        member = members[f"validator-{index + 1}"]
        assert member.consensus_key == public_key(development_key(index))
        assert member.peer == f"127.0.0.1:{30_303 + index}"
    assert genesis.issued_wei == 10**25


@pytest.mark.parametrize("text", [b"[]", b"{", b"5"])
def test_a_development_network_needs_a_document(text: bytes) -> None:
    with pytest.raises(InvalidGenesis):
        development_genesis(text, validators=1, p2p_port=30_303)


# --- the first state ----------------------------------------------------------------------------------------------------


def records_of(genesis: Genesis) -> dict[bytes, Record]:
    """All of them by key. Asserts that each key comes once, that bytes come back, and that no invariant is broken."""
    pairs = list(genesis_records(genesis))
    records = dict(pairs)
    assert len(records) == len(pairs)
    assert all(type(record).decode(record.encode()) == record for record in records.values())
    assert list(audit(pairs, genesis.issued_wei)) == []
    return records


def fingerprint(records: dict[bytes, Record]) -> str:
    """A short hash over all keys and bytes."""
    return sha256(b"".join(key + records[key].encode() for key in sorted(records))).hex()[:16]


def of_kind(records: dict[bytes, Record], kind: type[Any]) -> list[Any]:
    return [record for record in records.values() if type(record) is kind]


def test_the_first_state_is_accounts_roles_the_first_set_and_the_ctt() -> None:
    genesis = load(make_document())

    records = records_of(genesis)

    alice, bob = (Address(bytes.fromhex(text[2:])) for text in (ALICE, BOB))
    assert records == {
        Account.key(alice): Account(0, genesis.balances[alice]),
        Account.key(bob): Account(0, genesis.balances[bob]),
        Role.key(ROLE_OPERATOR, alice): Role(),
        Role.key(ROLE_TREASURER, bob): Role(),
        EpochSet.key(0): EpochSet(genesis.validator_set.members),
        CttConfig.key(): genesis.config,
        CttSupply.key(): CttSupply(),
    }


def test_listed_tokens_stand_on_their_owners_shelf_by_charge() -> None:
    preload = {
        "meters": [{"address": METER, "source": 2, "maxPowerW": 5_000}],
        "prosumers": [{"address": CAROL, "meter": METER}],
        "tokens": [
            {"owner": BOB, "count": 2},
            {"owner": CAROL, "energyWh": 1},
            {"owner": BOB, "energyWh": 10_000},
            {"owner": BOB, "energyWh": 9_999},
        ],
    }
    genesis = load(make_document(preload=preload))

    records = records_of(genesis)

    bob, carol, meter = (Address(bytes.fromhex(text[2:])) for text in (BOB, CAROL, METER))
    shelf = [(token.owner, token.slot, token.energy_wh) for token in of_kind(records, Token)]
    assert shelf == [(bob, 0, 10_000), (bob, 1, 9_999), (bob, 2, 0), (bob, 3, 0), (carol, 0, 1)]
    assert records[ShelfPage.key(bob, 0)] == ShelfPage((1, 2, 3, 4))
    assert records[CttSupply.key()] == CttSupply(5, Wh(20_000), Wh(20_000), Wh(0))
    for owner, full, partial, empty in ((bob, 1, 1, 2), (carol, 0, 1, 0)):
        prosumer = records[Prosumer.key(owner)]
        assert isinstance(prosumer, Prosumer)
        assert (prosumer.full, prosumer.partial, prosumer.empty) == (full, partial, empty)
        assert (prosumer.meter, prosumer.confirmed) == (
            (meter, True) if owner == carol else (ZERO_ADDRESS, False)
        )
    assert of_kind(records, Meter) == [Meter(genesis.operators[0], 2, Watt(5_000), False, True, carol)]
    time_ms = genesis.time_ms
    assert records[Reading.key(meter, carol)] == Reading(refilled_ms=time_ms, consumed_ms=time_ms)


def test_a_concentrator_serves_many_and_a_prosumer_needs_no_tokens() -> None:
    preload = {
        "meters": [{"address": CONCENTRATOR, "concentrator": True}, {"address": OTHER_METER}],
        "prosumers": [{"address": owner, "meter": CONCENTRATOR} for owner in (ALICE, BOB, CAROL)],
    }

    records = records_of(load(make_document(preload=preload)))

    assert all(prosumer.confirmed for prosumer in of_kind(records, Prosumer))
    assert [meter.prosumer for meter in of_kind(records, Meter)] == [ZERO_ADDRESS, ZERO_ADDRESS]


@pytest.mark.parametrize("tokens_per_prosumer", [1, 10, 63, 64, 65, 200])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 1_000])
def test_any_number_of_tokens_is_generated_whole(count: int, tokens_per_prosumer: int) -> None:
    rule = {"count": count, "seed": 3, "tokensPerProsumer": tokens_per_prosumer, "signing": False}

    records = records_of(load(make_document(preload={"generate": rule})))

    assert len(of_kind(records, Token)) == count
    prosumers = of_kind(records, Prosumer)
    assert len(prosumers) == len(of_kind(records, Meter)) == -(-count // tokens_per_prosumer)
    assert all(prosumer.confirmed and prosumer.tokens <= tokens_per_prosumer for prosumer in prosumers)
    supply = records[CttSupply.key()]
    assert isinstance(supply, CttSupply)
    assert supply.last_token_id == count
    assert supply.refilled_wh == supply.energy_wh > 0


def test_generated_tokens_come_after_the_listed_ones() -> None:
    preload = {"tokens": [{"owner": BOB, "count": 70}], "generate": {"count": 5, "seed": 1}}

    records = records_of(load(make_document(preload=preload)))

    owners = [token.owner.hex() for token in of_kind(records, Token)]
    assert [owner == BOB[2:] for owner in owners] == [True] * 70 + [False] * 5


@pytest.mark.parametrize(("signing", "expected"), [(True, "50330de5cf6e8249"), (False, "98e9f91ee2442b84")])
def test_the_generator_makes_the_same_records_everywhere(signing: bool, expected: str) -> None:
    rule = {"count": 25, "seed": 7, "signing": signing}

    records = records_of(load(make_document(preload={"generate": rule})))

    assert fingerprint(records) == expected


def test_another_seed_makes_other_owners_and_charges() -> None:
    one, two = (
        records_of(load(make_document(preload={"generate": {"count": 50, "seed": seed, "signing": False}})))
        for seed in (1, 2)
    )

    assert not {key for key in one if key[:1] == b"\x05"} & {key for key in two if key[:1] == b"\x05"}
    assert [token.energy_wh for token in of_kind(one, Token)] != [
        token.energy_wh for token in of_kind(two, Token)
    ]


def test_a_signing_meter_is_the_one_whose_key_follows_from_the_seed() -> None:
    """Written out: the rule is public, so that any benchmark can sign as these meters."""
    genesis = load(make_document(preload={"generate": {"count": 1, "seed": 9}}))

    records = records_of(genesis)

    owner, meter = (address_of(sha256(b"ctt preload 9 %b 0" % role)) for role in (b"prosumer", b"meter"))
    prosumer = records[Prosumer.key(owner)]
    assert isinstance(prosumer, Prosumer)
    assert (prosumer.meter, prosumer.confirmed) == (meter, True)
    assert records[Meter.key(meter)] == Meter(genesis.operators[0], 1, Watt(0), False, True, owner)


def test_a_hashed_address_is_the_end_of_the_same_key_hashed() -> None:
    records = records_of(load(make_document(preload={"generate": {"count": 1, "seed": 9, "signing": False}})))

    assert Meter.key(Address(sha256(sha256(b"ctt preload 9 meter 0"))[-20:])) in records


@pytest.mark.parametrize("member", ["meters", "prosumers", "tokens"])
def test_a_generated_address_that_is_listed_too_is_refused(member: str) -> None:
    """Only making the addresses shows it: a key a record would have come twice."""
    meter, prosumer = (
        hex_of(address_of(sha256(b"ctt preload 9 %b 0" % role))) for role in (b"meter", b"prosumer")
    )
    listed: dict[str, dict[str, Any]] = {
        "meters": {"meters": [{"address": meter}]},
        "prosumers": {"meters": [{"address": METER}], "prosumers": [{"address": prosumer, "meter": METER}]},
        "tokens": {"tokens": [{"owner": prosumer}]},
    }
    genesis = load(make_document(preload={"generate": {"count": 1, "seed": 9}} | listed[member]))

    for refuse in (lambda: list(genesis_records(genesis)), lambda: check_generator(genesis.preload)):
        with pytest.raises(InvalidGenesis) as refusal:
            refuse()
        assert refusal.value.faults == (("$.preload.generate", "prosumer 0 or its meter is listed, too"),)


def test_a_generator_beside_other_addresses_or_none_passes_the_check() -> None:
    """With nothing listed there is nothing to compare: a billion tokens are checked at once."""
    many = {"generate": {"count": 10**9, "seed": 9}}
    few = {"generate": {"count": 5, "seed": 9}, "meters": [{"address": METER}], "tokens": [{"owner": BOB}]}
    document = make_document(preload=many)
    document["ctt"]["maxSupply"] = 10**9

    check_generator(load(document).preload)
    check_generator(load(make_document(preload=few)).preload)
    check_generator(load(make_document()).preload)


def test_records_are_made_one_by_one() -> None:
    """Memory follows the largest prosumer, not the number of tokens: 20,000 would take megabytes."""
    document = make_document(preload={"generate": {"count": 20_000, "seed": 1, "signing": False}})
    document["ctt"]["maxSupply"] = 20_000
    genesis = load(document)
    tracemalloc.start()
    try:
        records = sum(1 for _ in genesis_records(genesis))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert records > 20_000
    assert peak_bytes < 256 * 1024


def test_meters_are_certified_by_the_first_operator_or_else_by_the_admin() -> None:
    certifiers: list[Callable[[Genesis], Address]] = [
        lambda it: it.operators[0],
        lambda it: it.parameters.first_admin,
    ]
    for operators, certifier in zip(([BOB, ALICE], []), certifiers, strict=True):
        genesis = load(make_document(operators=operators, preload={"generate": {"count": 1, "seed": 1}}))

        assert [meter.operator for meter in of_kind(records_of(genesis), Meter)] == [certifier(genesis)]


# --- block 0 --------------------------------------------------------------------------------------------------------------


def test_block_0_is_empty_and_names_the_network() -> None:
    genesis = load(make_document())

    block = genesis_block(genesis, Hash(sha256(b"root")))

    header = block.header
    assert (header.height, header.gas_used, block.transactions) == (Height(0), 0, ())
    assert (header.genesis_hash, header.state_root) == (genesis.hash, sha256(b"root"))
    assert header.timestamp_ms == genesis.time_ms
    assert header.validators_hash == header.next_validators_hash == genesis.validator_set.hash


def test_the_set_of_validators_does_not_depend_on_their_order_in_the_document() -> None:
    members = [validator(index) for index in range(4)]
    one, two = (load(make_document(validators=order)) for order in (members, members[::-1]))

    assert one.hash != two.hash
    assert one.validators == two.validators
    assert one.validator_set == two.validator_set


# --- the page -----------------------------------------------------------------------------------------------------------


def test_the_page_names_every_member() -> None:
    document = make_document(x=0)
    document["ctt"]["x"] = document["validators"][0]["x"] = 0
    document["accounts"][ALICE]["x"] = 0
    entries = {"meters": [{"x": 0}], "prosumers": [{"x": 0}], "tokens": [{"x": 0}], "generate": {"x": 0}}
    document["preload"] = {"x": 0} | entries
    document["market"] = {"x": 0}
    page = (SHIPPED.parent / "docs" / "GENESIS.md").read_text()

    known = [
        text.removeprefix("unknown member; known: ")
        for path, text in faults_of(document)
        if path.endswith(".x")
    ]

    assert len(known) == 10
    for member in ", ".join(known).split(", "):
        assert f"`{member}`" in page or f'"{member}"' in page


def test_the_example_of_the_page_is_accepted() -> None:
    page = (SHIPPED.parent / "docs" / "GENESIS.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]

    genesis = load(make_document(**json.loads(f"{{{example}}}")))

    assert len(of_kind(records_of(genesis), Token)) == 3


# --- the market -------------------------------------------------------------------------------------------------------


def test_without_a_market_nobody_trades() -> None:
    genesis = load(make_document())

    assert genesis.parameters.market is None
    assert of_kind(records_of(genesis), MarketTariff) == []


def test_a_market_has_defaults_that_fit_the_shipped_gas_limit() -> None:
    genesis = load(make_document(market={}))

    assert genesis.parameters.market == MarketRules(2_700, 1_000, 2_000)
    operator = Address(bytes.fromhex(ALICE[2:]))
    assert of_kind(records_of(genesis), MarketTariff) == [MarketTariff(grid_operator=operator)]


def test_a_market_is_as_the_document_says() -> None:
    market = {
        "auctionBlocks": 3,
        "ordersMax": 10,
        "tokensMax": 20,
        "floorWeiPerWh": 5,
        "ceilingWeiPerWh": "5",
        "gridFeeWeiPerWh": 2,
        "gridOperator": BOB,
    }

    genesis = load(make_document(market=market))

    assert genesis.parameters.market == MarketRules(3, 10, 20)
    operator = Address(bytes.fromhex(BOB[2:]))
    assert genesis.tariff == MarketTariff(Wei(5), Wei(5), Wei(2), operator)


@pytest.mark.parametrize(
    ("market", "path", "fault"),
    [
        ([], "", "expected an object, got a list"),
        ({"auctionBlocks": 0}, ".auctionBlocks", "0 is not between 1 and 1000000"),
        ({"ordersMax": 0}, ".ordersMax", "0 is not between 1 and 10000"),
        ({"ordersMax": 10_001}, ".ordersMax", "10001 is not between 1 and 10000"),
        ({"tokensMax": 100_001}, ".tokensMax", "100001 is not between 1 and 100000"),
        ({"floorWeiPerWh": 6, "ceilingWeiPerWh": 5}, ".floorWeiPerWh", "6 is above the ceiling of 5 wei per Wh"),
        ({"gridOperator": "0x" + "00" * 20}, ".gridOperator", "the zero address belongs to nobody"),
        (
            {"ordersMax": 1_200},
            "",
            "clearing ordersMax and tokensMax may take 50641000 gas; limit 50000000, half a block",
        ),
    ],
)  # fmt: skip
def test_each_fault_of_a_market_is_told(market: Any, path: str, fault: str) -> None:
    assert faults_of(make_document(market=market)) == [(f"$.market{path}", fault)]


def test_a_gas_limit_with_a_fault_bounds_no_market() -> None:
    assert [path for path, _ in faults_of(make_document(market={}, blockGasLimit=0))] == ["$.blockGasLimit"]
