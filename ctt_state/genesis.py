"""The first state: what every node of a network agrees on before the first block (docs/GENESIS.md).

The genesis hash is SHA-256 of the document's canonical JSON; votes, peers and headers carry it, so nodes of different
networks cannot mix.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from ctt_state.block import HEADER_VERSION, NO_EVIDENCE_ROOT, Block, Header, merkle_root
from ctt_state.crypto import InvalidKey, address_of, address_of_public_key, public_key, sha256
from ctt_state.document import SAFE_INTEGER_MAX, Field, MalformedJson, canonical_json, parse_json
from ctt_state.errors import InvalidGenesis
from ctt_state.modules.call import ChainParameters, MarketRules
from ctt_state.modules.market.clearing import clearing_gas_max
from ctt_state.preload import Preload, generated_records, listed_records, read_preload
from ctt_state.records import (
    ROLE_OPERATOR,
    ROLE_TREASURER,
    Account,
    CttConfig,
    CttSupply,
    EpochSet,
    MarketTariff,
    Record,
    Role,
    Token,
)
from ctt_state.units import (
    PRICE_MAX,
    UINT64_MAX,
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Gas,
    Hash,
    Height,
    Ms,
    Wei,
    Wh,
    hex_of,
)
from ctt_state.validators import VALIDATORS_MAX, Member, ValidatorSet

EARLIEST_MS: Final = 1_577_836_800_000  # 2020-01-01
LATEST_MS: Final = 4_102_444_800_000  # 2100-01-01
BLOCK_GAS_MIN: Final = 1_000_000
BLOCK_GAS_MAX: Final = 1_000_000_000
BALANCES_MAX: Final = 2**255  # which leaves room for all that treasurers may issue
ROLES_MAX: Final = 1_000  # addresses that hold one role
ORDERS_MAX: Final = 10_000  # that stand at once
TOKENS_MAX: Final = 100_000  # that one clearing may change
PORT_MAX: Final = 65_535

_PEER: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Validator:
    """A member of the first validator set. `operator` says who runs it."""

    name: str
    address: Address
    consensus_key: bytes  # compressed, 33 bytes
    peer: str  # host:port
    operator: str


@dataclass(frozen=True, slots=True)
class Genesis:
    """A checked genesis document."""

    hash: Hash
    parameters: ChainParameters
    time_ms: Ms
    validators: tuple[Validator, ...]  # in the order of the set: by consensus key
    balances: dict[Address, Wei]
    operators: tuple[Address, ...]
    treasurers: tuple[Address, ...]
    config: CttConfig | None
    tariff: MarketTariff | None  # of the market, if there is one
    preload: Preload

    @property
    def is_development(self) -> bool:
        return self.parameters.is_development

    @property
    def epoch_blocks(self) -> int:
        return self.parameters.epoch_blocks

    @property
    def validator_set(self) -> ValidatorSet:
        """That of epoch 0."""
        return ValidatorSet(tuple([Member(each.address, each.consensus_key) for each in self.validators]))

    @property
    def issued_wei(self) -> Wei:
        """All the currency there is at the start."""
        return Wei(sum(self.balances.values()))


def load_genesis(text: bytes) -> Genesis:
    """The document, checked whole. Raises: InvalidGenesis with every fault."""
    root = Field(_parse(text))
    genesis = _read(root)
    if root.faults:
        raise InvalidGenesis(root.faults)
    return genesis


def load_validator(text: bytes) -> Validator:
    """One entry of `validators`, as a document of its own. Raises: InvalidGenesis with every fault."""
    root = Field(_parse(text))
    validator = _read_validator(root, defaultdict(dict))
    if root.faults:
        raise InvalidGenesis(root.faults)
    return validator


def _parse(text: bytes) -> Any:
    try:
        return parse_json(text)
    except MalformedJson as fault:
        raise InvalidGenesis([("$", str(fault))]) from None


def _read(root: Field) -> Genesis:
    part = root.members(
        ("chainId", "timestampMs", "blockGasLimit", "admin", "accounts", "validators"),
        {
            "name": "crypto-trading",
            "development": False,
            "blockPeriodMs": 333,
            "epochBlocks": 900,
            "minimumGasPriceWei": 0,
            "feeReceiver": None,
            "operators": [],
            "treasurers": [],
            "ctt": None,
            "market": None,
            "preload": {},
        },
    )
    part["name"].text()
    development = part["development"].boolean()
    admin = part["admin"].address()
    operators = _read_addresses(part["operators"])
    faults_before = len(root.faults)
    gas_limit = Gas(part["blockGasLimit"].integer(BLOCK_GAS_MIN, BLOCK_GAS_MAX))
    if len(root.faults) > faults_before:
        gas_limit = Gas(BLOCK_GAS_MAX)  # one with a fault bounds nothing
    rules, tariff = _read_market(part["market"], gas_limit, operators[0] if operators else admin)
    genesis_hash = Hash(sha256(canonical_json(root.value)))
    parameters = ChainParameters(
        chain_id=part["chainId"].integer(1),
        genesis_hash=genesis_hash,
        block_period_ms=Ms(part["blockPeriodMs"].integer(50, 60_000)),
        epoch_blocks=part["epochBlocks"].integer(10, 1_000_000),
        is_development=development,
        block_gas_limit=gas_limit,
        minimum_gas_price_wei=part["minimumGasPriceWei"].wei(PRICE_MAX),
        fee_receiver=part["feeReceiver"].address() if part["feeReceiver"].value is not None else None,
        first_admin=admin,
        market=rules,
    )
    config = _read_ctt(part["ctt"], admin) if part["ctt"].value is not None else None
    return Genesis(
        hash=genesis_hash,
        parameters=parameters,
        time_ms=Ms(part["timestampMs"].integer(EARLIEST_MS, LATEST_MS)),
        validators=_read_validators(part["validators"], development=development),
        balances=_read_balances(part["accounts"]),
        operators=operators,
        treasurers=_read_addresses(part["treasurers"]),
        config=config,
        tariff=tariff,
        preload=read_preload(part["preload"], config, operators[0] if operators else admin),
    )


def _read_ctt(ctt: Field, admin: Address) -> CttConfig:
    """One with faults bounds nothing, so that they lead to no others in what is preloaded."""
    faults_before = len(ctt.faults)
    part = ctt.members(("name", "symbol", "maxSupply", "capabilityWh", "emptyTokenPriceWei"), {})
    name, symbol = part["name"].text(), part["symbol"].text()
    supply, capability = part["maxSupply"].integer(1), Wh(part["capabilityWh"].integer(1))
    price = part["emptyTokenPriceWei"].wei(PRICE_MAX)
    if len(ctt.faults) > faults_before:
        supply, capability = SAFE_INTEGER_MAX, Wh(SAFE_INTEGER_MAX)
    elif supply * capability > UINT64_MAX:
        ctt.fault(f"maxSupply x capabilityWh is {supply * capability} Wh; limit {UINT64_MAX}")
    return CttConfig(name, symbol, admin, ZERO_ADDRESS, supply, capability, capability, price)


def _read_market(
    market: Field, block_gas_limit: Gas, operator: Address
) -> tuple[MarketRules | None, MarketTariff | None]:
    """`operator` gets the grid fee when the document names nobody. A clearing takes at most half a block."""
    if market.value is None:
        return None, None
    part = market.members(
        (),
        {
            "auctionBlocks": 2_700,
            "ordersMax": 1_000,
            "tokensMax": 2_000,
            "floorWeiPerWh": 0,
            "ceilingWeiPerWh": str(PRICE_MAX),
            "gridFeeWeiPerWh": 0,
            "gridOperator": None,
        },
    )
    rules = MarketRules(
        auction_blocks=part["auctionBlocks"].integer(1, 1_000_000),
        orders_max=part["ordersMax"].integer(1, ORDERS_MAX),
        tokens_max=part["tokensMax"].integer(1, TOKENS_MAX),
    )
    gas = clearing_gas_max(rules)
    if gas > block_gas_limit // 2:
        market.fault(
            f"clearing ordersMax and tokensMax may take {gas} gas; limit {block_gas_limit // 2}, half a block"
        )
    floor, ceiling = part["floorWeiPerWh"].wei(PRICE_MAX), part["ceilingWeiPerWh"].wei(PRICE_MAX)
    if floor > ceiling:
        part["floorWeiPerWh"].fault(f"{floor} is above the ceiling of {ceiling} wei per Wh")
    named = part["gridOperator"]
    receiver = operator if named.value is None else named.address()
    return rules, MarketTariff(floor, ceiling, part["gridFeeWeiPerWh"].wei(PRICE_MAX), receiver)


def _read_addresses(addresses: Field) -> tuple[Address, ...]:
    seen: dict[Address, str] = {}
    return tuple([item.distinct(item.address(), seen) for item in addresses.items(ROLES_MAX)])


def _read_balances(accounts: Field) -> dict[Address, Wei]:
    seen: dict[Address, str] = {}
    balances = {
        name.distinct(name.address(), seen): value.members(("balanceWei",), {})["balanceWei"].wei()
        for name, value in accounts.entries()
    }
    if sum(balances.values()) > BALANCES_MAX:
        accounts.fault("all balances together are more than 2^255 wei")
    return balances


def _read_validators(validators: Field, *, development: bool) -> tuple[Validator, ...]:
    """In the order of the set. A network that is no development network survives the fault of any one operator."""
    seen: Mapping[str, dict[Any, str]] = defaultdict(dict)
    members = [_read_validator(item, seen) for item in validators.items(VALIDATORS_MAX)]
    count, faulty = len(members), (len(members) - 1) // 3
    if validators.value == []:
        validators.fault("0 validators; need at least 1")
    elif members and not development:
        if faulty == 0:
            tolerate = "1 validator tolerates" if count == 1 else f"{count} validators tolerate"
            validators.fault(f'{tolerate} 0 faults; need at least 4 (or "development": true)')
        for operator, seats in Counter(member.operator for member in members if member.operator).items():
            if seats > max(faulty, 1):
                validators.fault(
                    f"operator {operator!a} holds {seats} of {count} seats; limit {max(faulty, 1)}"
                )
    return tuple(sorted(members, key=lambda member: member.consensus_key))


def _read_validator(item: Field, seen: Mapping[str, dict[Any, str]]) -> Validator:
    part = item.members(("name", "address", "consensusKey", "peer"), {"operator": ""})
    key, peer = part["consensusKey"], part["peer"]
    return Validator(
        name=part["name"].distinct(part["name"].text(), seen["name"]),
        address=part["address"].distinct(part["address"].address(), seen["address"]),
        consensus_key=key.distinct(_read_consensus_key(key), seen["key"]),
        peer=peer.distinct(_read_peer(peer), seen["peer"]),
        operator=part["operator"].text() if part["operator"].value != "" else "",
    )


def _read_consensus_key(key: Field) -> bytes:
    data = key.hexadecimal(33)
    try:
        if data:
            address_of_public_key(data)
    except InvalidKey:
        key.fault(f"{hex_of(data)} is no compressed secp256k1 public key")
        return b""
    return data


def _read_peer(peer: Field) -> str:
    text = peer.text()
    match = _PEER.fullmatch(text)
    if text and not (match and int(match["port"]) <= PORT_MAX):
        peer.fault(f"{text!a} is not host:port")
        return ""
    return text


def genesis_records(genesis: Genesis) -> Iterator[tuple[bytes, Record]]:
    """Every record of the first state, each once; memory does not grow with generated tokens."""
    generator = genesis.preload.generator
    generated = generated_part(genesis, range(generator.prosumers if generator else 0))
    tokens = energy = 0
    for key, record in chain(named_records(genesis), generated):
        if isinstance(record, Token):
            tokens, energy = tokens + 1, energy + record.energy_wh
        yield key, record
    yield from supply_records(genesis, tokens, Wh(energy))


def named_records(genesis: Genesis) -> Iterator[tuple[bytes, Record]]:
    """Those of which the document names each: all but the generator's, and but the supply."""
    for address, balance in genesis.balances.items():
        yield Account.key(address), Account(0, balance)
    for role, members in ((ROLE_OPERATOR, genesis.operators), (ROLE_TREASURER, genesis.treasurers)):
        for address in members:
            yield Role.key(role, address), Role()
    yield EpochSet.key(0), EpochSet(genesis.validator_set.members)
    if genesis.tariff is not None:
        yield MarketTariff.key(), genesis.tariff
    if genesis.config is not None:
        yield CttConfig.key(), genesis.config
        yield from listed_records(genesis.preload, genesis.config, genesis.time_ms)


def generated_part(genesis: Genesis, indexes: range) -> Iterator[tuple[bytes, Record]]:
    """Those of the generated prosumers with these indexes, each part by itself."""
    if genesis.config is not None:
        yield from generated_records(genesis.preload, genesis.config, genesis.time_ms, indexes)


def supply_records(genesis: Genesis, tokens: int, energy_wh: Wh) -> Iterator[tuple[bytes, Record]]:
    """The supply, where there is a CTT: so many tokens in all other records, and the energy in them."""
    if genesis.config is not None:
        yield CttSupply.key(), CttSupply(tokens, energy_wh, energy_wh, Wh(0))


def genesis_block(genesis: Genesis, state_root: Hash) -> Block:
    """Block 0: no transactions, the first state."""
    validators_hash = genesis.validator_set.hash
    header = Header(
        version=HEADER_VERSION,
        genesis_hash=genesis.hash,
        height=Height(0),
        epoch=0,
        view=0,
        parent_hash=ZERO_HASH,
        timestamp_ms=genesis.time_ms,
        proposer=ZERO_ADDRESS,
        gas_used=Gas(0),
        transactions_root=merkle_root(()),
        receipts_root=merkle_root(()),
        state_root=state_root,
        evidence_root=NO_EVIDENCE_ROOT,
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
    )
    return Block(header, ())


def development_key(index: int) -> bytes:
    """The consensus key of a development network's validator. Everyone knows it: it guards nothing."""
    return sha256(b"ctt development validator %d" % index)


def development_genesis(text: bytes, *, validators: int, p2p_port: int) -> bytes:
    """The document with this many development validators on this machine, for networks that live in one place.

    Raises: InvalidGenesis when it cannot be read at all.
    """
    document = _parse(text)
    if not isinstance(document, dict):
        raise InvalidGenesis([("$", "expected an object")])
    members = [
        {
            "name": f"validator-{index + 1}",
            "address": hex_of(address_of(development_key(index))),
            "consensusKey": hex_of(public_key(development_key(index))),
            "peer": f"127.0.0.1:{p2p_port + index}",
        }
        for index in range(validators)
    ]
    return canonical_json(document | {"development": True, "validators": members})
