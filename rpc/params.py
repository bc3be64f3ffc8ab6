"""Parameters of JSON-RPC methods: what is accepted, and the exact words for what is not.

Strict as Ethereum's execution APIs are: a quantity has no leading zeros, data whole bytes, an address 20. Each kind
carries the JSON schema that describes it, so that the published document cannot disagree with the parser.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ctt_state.crypto import checksum_address
from ctt_state.records import Account
from ctt_state.transaction import MAX_TRANSACTION_BYTES
from ctt_state.units import UINT64_MAX, UINT256_MAX, ZERO_ADDRESS, Address, Hash, Wei
from rpc import schemas
from rpc.errors import InvalidParams
from rpc.jsontext import Json

TOKENS_PAGE_MAX: Final = 100
RECORD_KEYS_MAX: Final = 64
RECORD_KEY_BYTES_MAX: Final = 64  # the longest there is has 41
LOG_ADDRESSES_MAX: Final = 100
LOG_TOPICS_MAX: Final = 4
LOG_TOPIC_CHOICES_MAX: Final = 100  # for one position
PERCENTILES_MAX: Final = 100
SHOWN_CHARS_MAX: Final = 80  # of a refused value, in the error's text

ADDRESS_BYTES: Final = 20

T = TypeVar("T")

_QUANTITY: Final = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]*)", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of parameter. `parse` takes the JSON value and where it stands. Raises: InvalidParams."""

    parse: Callable[[Json, str], T]
    schema: Mapping[str, Any]


class _Required(Enum):
    REQUIRED = "required"


REQUIRED: Final = _Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a method, by position or by name. Without a default it must be there."""

    name: str
    kind: Kind[Any]
    default: Any = REQUIRED


def bind(params: Sequence[Param], given: Json) -> list[Any]:
    """The parsed arguments, in order. An absent or null optional parameter takes its default. Raises: InvalidParams."""
    return [_argument(param, value, where) for param, value, where in _pair(params, given)]


def _pair(params: Sequence[Param], given: Json) -> list[tuple[Param, Json, str]]:
    if given is None:
        given = []
    if isinstance(given, list):
        if len(given) > len(params):
            raise InvalidParams(f"too many parameters: got {len(given)}, at most {len(params)}")
        padded = given + [None] * (len(params) - len(given))
        return [(param, padded[at], f"params[{at}]") for at, param in enumerate(params)]
    if isinstance(given, dict):
        unknown = given.keys() - {param.name for param in params}
        if unknown:
            raise InvalidParams(f"unknown parameter {_show(min(unknown))}")
        return [(param, given.get(param.name), f"params.{param.name}") for param in params]
    raise InvalidParams("params must be an array or object")


def _argument(param: Param, value: Json, where: str) -> Any:
    if value is not None:
        return param.kind.parse(value, where)
    if param.default is REQUIRED:
        raise InvalidParams(f"missing {where} ({param.name})")
    return param.default


def _show(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"


# --- single values -------------------------------------------------------------------------------------------------


def parse_quantity(value: Json, where: str, maximum: int = UINT256_MAX) -> int:
    """`0x0`, `0x41`: hexadecimal without leading zeros."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise InvalidParams(f"{where}: {_show(value)} is not a quantity (0x… without leading zeros)")
    number = int(value, 16)
    if number > maximum:
        raise InvalidParams(f"{where}: {_show(value)} is above {maximum.bit_length()} bits")
    return number


def _parse_uint64(value: Json, where: str) -> int:
    return parse_quantity(value, where, UINT64_MAX)


def parse_data(value: Json, where: str) -> bytes:
    """`0x` and whole bytes."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise InvalidParams(f"{where}: {_show(value)} is not data (0x… with two digits a byte)")
    if len(value) % 2:
        raise InvalidParams(f"{where}: odd number of hex digits")
    if not _HEX.fullmatch(value, 2):
        raise InvalidParams(f"{where}: {_show(value)} has a character that is no hex digit")
    return bytes.fromhex(value[2:])


def _parse_sized(value: Json, where: str, name: str, size: int) -> bytes:
    data = parse_data(value, where)
    if len(data) != size:
        raise InvalidParams(f"{where}: {name} must be {size} bytes, got {len(data)}")
    return data


def parse_address(value: Json, where: str) -> Address:
    """20 bytes; mixed case must be EIP-55's."""
    address = Address(_parse_sized(value, where, "address", ADDRESS_BYTES))
    text = str(value)[2:]
    if text != text.lower() and text != text.upper() and str(value) != checksum_address(address):
        raise InvalidParams(f"{where}: address {value} has a wrong checksum (EIP-55)")
    return address


def parse_hash(value: Json, where: str) -> Hash:
    return Hash(_parse_sized(value, where, "hash", 32))


def _parse_bool(value: Json, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"{where}: {_show(value)} is not true or false")
    return value


def _parse_slot(value: Json, where: str) -> bytes:
    """A storage position: a number in any hexadecimal form of up to 32 bytes."""
    if not isinstance(value, str) or not value.startswith("0x") or not 3 <= len(value) <= 66:
        raise InvalidParams(f"{where}: {_show(value)} is not a storage position (0x… up to 32 bytes)")
    return parse_data("0x" + value[2:].rjust(64, "0"), where)


def _parse_raw(value: Json, where: str) -> bytes:
    # Longer than any transaction: the ledger's own refusal names the limit, so only a bound on the work is due here.
    if isinstance(value, str) and len(value) > 4 * MAX_TRANSACTION_BYTES:
        raise InvalidParams(f"{where}: more than {2 * MAX_TRANSACTION_BYTES} bytes")
    return parse_data(value, where)


def _parse_filter_id(value: Json, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidParams(f"{where}: {_show(value)} is not an id")
    return value


def _parse_timeout(value: Json, where: str) -> int:
    """Milliseconds, as the JSON number that libraries send or as a quantity."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    number = parse_quantity(value, where)
    if number == 0:
        raise InvalidParams(f"{where}: the timeout must be above 0 ms")
    return number


def _parse_count(value: Json, where: str) -> int:
    """How many, or which one of many: a quantity, or a JSON number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= UINT64_MAX:
        return value
    return parse_quantity(value, where, UINT64_MAX)


def _parse_page_size(value: Json, where: str) -> int:
    size = _parse_count(value, where)
    if not 1 <= size <= TOKENS_PAGE_MAX:
        raise InvalidParams(f"{where}: a page has 1 to {TOKENS_PAGE_MAX} items, not {size}")
    return size


def _parse_percentiles(value: Json, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) > PERCENTILES_MAX:
        raise InvalidParams(f"{where}: not an array of at most {PERCENTILES_MAX} percentiles")
    previous = 0.0
    for at, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float) or not previous <= item <= 100:
            raise InvalidParams(f"{where}[{at}]: {_show(item)} is not a percentile from {previous:g} to 100")
        previous = float(item)
    return [float(item) for item in value if isinstance(item, int | float)]


# --- blocks --------------------------------------------------------------------------------------------------------


class Tag(Enum):
    """A block by its part. `latest`, `pending`, `safe` and `finalized` are one block: nothing is taken back here."""

    LATEST = "latest"
    PENDING = "pending"
    SAFE = "safe"
    FINALIZED = "finalized"
    EARLIEST = "earliest"


BlockRef = Tag | int | Hash  # by tag, by height, by hash

_TAGS: Final = {tag.value: tag for tag in Tag}


def parse_block_number(value: Json, where: str) -> Tag | int:
    """A tag or a height."""
    if isinstance(value, str) and not value.startswith("0x"):
        tag = _TAGS.get(value)
        if tag is None:
            raise InvalidParams(f"{where}: unknown block tag {_show(value)}")
        return tag
    return parse_quantity(value, where, UINT64_MAX)


def parse_block(value: Json, where: str) -> BlockRef:
    """A tag, a height, a hash, or EIP-1898's object with `blockNumber` or `blockHash`."""
    if isinstance(value, dict):
        return _parse_block_object(value, where)
    if isinstance(value, str) and len(value) == 66:
        return parse_hash(value, where)
    return parse_block_number(value, where)


def _parse_block_object(value: dict[str, Json], where: str) -> BlockRef:
    number, block_hash = value.get("blockNumber"), value.get("blockHash")
    if (number is None) == (block_hash is None):
        raise InvalidParams(f"{where}: give either blockNumber or blockHash")
    if block_hash is not None:
        return parse_hash(block_hash, f"{where}.blockHash")
    return parse_block_number(number, f"{where}.blockNumber")


class Instant(NamedTuple):
    """A time, in ms since the Unix epoch."""

    time_ms: int


Moment = Tag | int | Instant  # an end of a range of blocks


def _parse_moment(value: Json, where: str) -> Moment:
    """A tag, a height, or `{"timeMs": …}`."""
    if not isinstance(value, dict):
        return parse_block_number(value, where)
    if value.keys() != {"timeMs"}:
        raise InvalidParams(f"{where}: {_show(value)} is not an object with timeMs alone")
    return Instant(_parse_count(value["timeMs"], f"{where}.timeMs"))


# --- objects -------------------------------------------------------------------------------------------------------


def _parse_object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise InvalidParams(f"{where}: {_show(value)} is not an object")
    return value


class CallObject(NamedTuple):
    """What eth_call would run. `gas` None: the block's limit."""

    sender: Address
    to: Address | None
    gas: int | None
    value: Wei
    data: bytes


def _parse_call(value: Json, where: str) -> CallObject:
    """Members that change nothing here (prices, nonce, access list, …) are ignored, as clients send many."""
    members = _parse_object(value, where)

    def member(name: str, parse: Callable[[Json, str], T], default: T) -> T:
        given = members.get(name)
        return default if given is None else parse(given, f"{where}.{name}")

    data, given_input = member("data", parse_data, b""), member("input", parse_data, b"")
    if data and given_input and data != given_input:
        raise InvalidParams(f"{where}: data and input differ")
    return CallObject(
        sender=member("from", parse_address, ZERO_ADDRESS),
        to=member("to", parse_address, None),
        gas=member("gas", _parse_uint64, None),
        value=Wei(member("value", parse_quantity, 0)),
        data=given_input or data,
    )


class LogCriteria(NamedTuple):
    """Which logs: any of the addresses (none: all), and at each position any of the topics (None: all)."""

    addresses: frozenset[Address]
    topics: tuple[frozenset[bytes] | None, ...]


class LogQuery(NamedTuple):
    """Which logs, and where: in one block, or in a range."""

    criteria: LogCriteria
    block_hash: Hash | None
    from_block: Tag | int
    to_block: Tag | int


def parse_criteria(value: Json, where: str) -> LogCriteria:
    members = _parse_object(value, where)
    addresses = members.get("address")
    found = (
        []
        if addresses is None
        else _parse_several(addresses, f"{where}.address", parse_address, LOG_ADDRESSES_MAX)
    )
    return LogCriteria(frozenset(found), _parse_topics(members.get("topics"), f"{where}.topics"))


def _parse_topics(value: Json, where: str) -> tuple[frozenset[bytes] | None, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidParams(f"{where}: {_show(value)} is not an array")
    if len(value) > LOG_TOPICS_MAX:
        raise InvalidParams(f"{where}: {len(value)} topics; limit {LOG_TOPICS_MAX}")
    return tuple([_parse_topic(topic, f"{where}[{at}]") for at, topic in enumerate(value)])


def _parse_topic(value: Json, where: str) -> frozenset[bytes] | None:
    """A topic, several of which one must match, or null (also among several) for any."""
    if value is None or (isinstance(value, list) and (not value or None in value)):
        return None
    return frozenset(_parse_several(value, where, parse_hash, LOG_TOPIC_CHOICES_MAX))


def _parse_several(value: Json, where: str, parse: Callable[[Json, str], T], maximum: int) -> list[T]:
    """One, or an array of at most `maximum`."""
    if not isinstance(value, list):
        return [parse(value, where)]
    if len(value) > maximum:
        raise InvalidParams(f"{where}: {len(value)} items; limit {maximum}")
    return [parse(item, f"{where}[{at}]") for at, item in enumerate(value)]


def _parse_log_query(value: Json, where: str) -> LogQuery:
    criteria = parse_criteria(value, where)
    members = _parse_object(value, where)
    block_hash, first, last = (members.get(name) for name in ("blockHash", "fromBlock", "toBlock"))
    if block_hash is not None:
        if first is not None or last is not None:
            raise InvalidParams(
                "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"
            )
        return LogQuery(criteria, parse_hash(block_hash, f"{where}.blockHash"), Tag.LATEST, Tag.LATEST)
    return LogQuery(
        criteria,
        None,
        Tag.LATEST if first is None else parse_block_number(first, f"{where}.fromBlock"),
        Tag.LATEST if last is None else parse_block_number(last, f"{where}.toBlock"),
    )


class SubscriptionKind(Enum):
    """What can be subscribed to."""

    NEW_HEADS = "newHeads"
    LOGS = "logs"
    PENDING = "newPendingTransactions"
    FINALIZED = "ctt_finalized"


def _parse_subscription_kind(value: Json, where: str) -> SubscriptionKind:
    for kind in SubscriptionKind:
        if value == kind.value:
            return kind
    raise InvalidParams(
        f"{where}: no subscription {_show(value)}; there are {', '.join(k.value for k in SubscriptionKind)}"
    )


# --- records ---------------------------------------------------------------------------------------------------------


def _parse_record_key(value: Json, where: str) -> bytes:
    """A record's key; 20 bytes are an address, for its account's."""
    data = parse_data(value, where)
    if not 1 <= len(data) <= RECORD_KEY_BYTES_MAX:
        raise InvalidParams(f"{where}: a record's key has 1 to {RECORD_KEY_BYTES_MAX} bytes, got {len(data)}")
    return Account.key(parse_address(value, where)) if len(data) == ADDRESS_BYTES else data


def _parse_record_keys(value: Json, where: str) -> list[bytes]:
    return _parse_several(value, where, _parse_record_key, RECORD_KEYS_MAX)


def _parse_anything(value: Json, where: str) -> Json:
    return value


# --- the kinds, with their schemas ---------------------------------------------------------------------------------

_CRITERIA: Final = schemas.criteria(LOG_ADDRESSES_MAX, LOG_TOPICS_MAX, LOG_TOPIC_CHOICES_MAX)
_RECORD_KEY: Final = {"type": "string", "pattern": f"^0x([0-9a-fA-F]{{2}}){{1,{RECORD_KEY_BYTES_MAX}}}$"}

QUANTITY: Final = Kind(parse_quantity, schemas.QUANTITY)
DATA: Final = Kind(parse_data, schemas.DATA)
RAW_TRANSACTION: Final = Kind(_parse_raw, schemas.DATA)
ADDRESS: Final = Kind(parse_address, schemas.ADDRESS)
HASH: Final = Kind(parse_hash, schemas.HASH)
BOOL: Final = Kind(_parse_bool, schemas.BOOLEAN)
SLOT: Final = Kind(_parse_slot, {"type": "string", "pattern": "^0x[0-9a-fA-F]{1,64}$"})
FILTER_ID: Final = Kind(_parse_filter_id, schemas.FILTER_ID)
TIMEOUT_MS: Final = Kind(_parse_timeout, schemas.either({"type": "integer", "minimum": 1}, schemas.QUANTITY))
COUNT: Final = Kind(_parse_count, schemas.COUNT)
PERCENTILES: Final = Kind(
    _parse_percentiles,
    schemas.listed({"type": "number", "minimum": 0, "maximum": 100}, PERCENTILES_MAX)
    | {"description": "in rising order"},
)
BLOCK_NUMBER: Final = Kind(parse_block_number, schemas.BLOCK_NUMBER)
BLOCK: Final = Kind(parse_block, schemas.BLOCK)
CALL: Final = Kind(_parse_call, schemas.CALL)
CRITERIA: Final = Kind(
    parse_criteria,
    {"title": "LogCriteria", "description": "which logs", "type": "object", "properties": _CRITERIA},
)
LOG_QUERY: Final = Kind(
    _parse_log_query,
    {
        "title": "LogQuery",
        "description": "which logs, in one block or in a range of at most 1,000",
        "type": "object",
        "properties": _CRITERIA
        | dict.fromkeys(("fromBlock", "toBlock"), schemas.maybe(schemas.BLOCK_NUMBER))
        | {"blockHash": schemas.maybe(schemas.HASH)},
    },
)
SUBSCRIPTION: Final = Kind(_parse_subscription_kind, {"enum": [kind.value for kind in SubscriptionKind]})
PAGE_SIZE: Final = Kind(
    _parse_page_size,
    schemas.either({"type": "integer", "minimum": 1, "maximum": TOKENS_PAGE_MAX}, schemas.QUANTITY),
)
MOMENT: Final = Kind(_parse_moment, schemas.MOMENT)
RECORD_KEYS: Final = Kind(
    _parse_record_keys,
    schemas.either(_RECORD_KEY, schemas.listed(_RECORD_KEY, RECORD_KEYS_MAX))
    | {"description": "an address, for its account, or a record's key; or several"},
)
ANYTHING: Final = Kind(_parse_anything, schemas.ANYTHING)
