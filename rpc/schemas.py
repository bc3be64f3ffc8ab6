"""What parameters and results look like, as JSON Schema (draft 7): what the published document is made of.

A schema with a title is published once, under its title, and referred to wherever it stands.
"""

from collections.abc import Mapping
from typing import Any, Final

from ctt_state.origin import SOURCES

Schema = dict[str, Any]


def text(title: str, pattern: str, description: str) -> Schema:
    return {"title": title, "type": "string", "pattern": pattern, "description": description}


def shape(title: str, description: str, members: Mapping[str, Schema], *optional: str) -> Schema:
    """An object of exactly these members, all there but the optional ones."""
    return {
        "title": title,
        "description": description,
        "type": "object",
        "properties": members,
        "required": [name for name in members if name not in optional],
        "additionalProperties": False,
    }


def listed(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items} | ({} if most is None else {"maxItems": most})


def keyed(values: Schema) -> Schema:
    """An object whose members' names are data."""
    return {"type": "object", "additionalProperties": values}


def either(*choices: Schema) -> Schema:
    return {"anyOf": list(choices)}


def maybe(schema: Schema) -> Schema:
    """It, or null."""
    return either(schema, {"type": "null"})


def energy(name: str) -> dict[str, Schema]:
    return {f"{name}Wh": FIGURE, name: WORDS}


def power(name: str) -> dict[str, Schema]:
    return {f"{name}W": FIGURE, name: WORDS}


def money(name: str) -> dict[str, Schema]:
    return {f"{name}Wei": FIGURE, name: WORDS}


def energy_price(name: str) -> dict[str, Schema]:
    return {f"{name}WeiPerWh": FIGURE, name: WORDS}


# --- values ---------------------------------------------------------------------------------------------------------

ANYTHING: Final[Schema] = {}
BOOLEAN: Final[Schema] = {"type": "boolean"}
STRING: Final[Schema] = {"type": "string"}
MEASURE: Final[Schema] = {"type": "number"}
QUANTITY: Final = text(
    "Quantity", "^0x(0|[1-9a-fA-F][0-9a-fA-F]*)$", "a number in hexadecimal without leading zeros"
)
DATA: Final = text("Data", "^0x([0-9a-fA-F]{2})*$", "bytes in hexadecimal")
ADDRESS: Final = text("Address", "^0x[0-9a-fA-F]{40}$", "20 bytes; given in mixed case, the case is EIP-55's")
HASH: Final = text("Hash", "^0x[0-9a-fA-F]{64}$", "32 bytes")
BLOOM: Final = text("Bloom", "^0x[0-9a-f]{512}$", "256 bytes: a bloom filter of addresses and topics")
FIGURE: Final = text(
    "Figure", "^(0|[1-9][0-9]*)$", "an exact integer in decimal; its unit ends the member's name"
)
WORDS: Final[Schema] = {
    "title": "Words",
    "type": "string",
    "description": "the same figure for people: kWh, kW, or units of the currency, of which one is 10^18 wei",
}
NUMBER: Final[Schema] = {
    "title": "Number",
    "type": "integer",
    "minimum": 0,
    "description": "what counts: heights, tokens, ids, milliseconds; exact in every JSON reader",
}
TAG: Final[Schema] = {
    "title": "Tag",
    "enum": ["latest", "pending", "safe", "finalized", "earliest"],
    "description": "`earliest` is the oldest whole block here, all others the newest final block",
}
SOURCE: Final[Schema] = {"enum": ["none", "solar", "wind", "hydro", "biomass", "other"]}
FILTER_ID: Final[Schema] = {"title": "Id", "type": "string", "description": "of a filter or a subscription"}

# --- parameters ------------------------------------------------------------------------------------------------------

BLOCK_NUMBER: Final = either(QUANTITY, TAG)
BLOCK: Final[Schema] = {
    "title": "BlockReference",
    "description": "a height, a tag, a block's hash, or either in an object (EIP-1898)",
    "anyOf": [
        QUANTITY,
        TAG,
        HASH,
        {"type": "object", "properties": {"blockNumber": BLOCK_NUMBER}, "required": ["blockNumber"]},
        {"type": "object", "properties": {"blockHash": HASH}, "required": ["blockHash"]},
    ],
}
CALL: Final[Schema] = {
    "title": "Call",
    "description": "what to run; other members are ignored, `data` and `input` are the same",
    "type": "object",
    "properties": {
        "from": ADDRESS,
        "to": ADDRESS,
        "gas": QUANTITY,
        "value": QUANTITY,
        "data": DATA,
        "input": DATA,
    },
}
COUNT: Final = either(NUMBER, QUANTITY)
MOMENT: Final[Schema] = {
    "title": "Moment",
    "description": "a height, a tag, or a time in ms since the Unix epoch",
    "anyOf": [
        QUANTITY,
        TAG,
        {
            "type": "object",
            "properties": {"timeMs": COUNT},
            "required": ["timeMs"],
            "additionalProperties": False,
        },
    ],
}


def criteria(addresses_max: int, topics_max: int, choices_max: int) -> dict[str, Schema]:
    """The members that say which logs."""
    topic = maybe(either(HASH, listed(maybe(HASH), choices_max)))
    return {
        "address": maybe(either(ADDRESS, listed(ADDRESS, addresses_max))),
        "topics": maybe(listed(topic, topics_max)),
    }


# --- Ethereum's results ----------------------------------------------------------------------------------------------

ACCESS_LIST: Final = listed(
    shape("Access", "an entry of an access list", {"address": ADDRESS, "storageKeys": listed(HASH)})
)
_PLACE: Final[dict[str, Schema]] = {"blockHash": HASH, "blockNumber": QUANTITY, "blockTimestamp": QUANTITY}
LOG: Final = shape(
    "Log",
    "an event; `logIndex` counts through the block",
    {
        "address": ADDRESS,
        "topics": listed(HASH, 4),
        "data": DATA,
        **_PLACE,
        "transactionHash": HASH,
        "transactionIndex": QUANTITY,
        "logIndex": QUANTITY,
        "removed": {"const": False},
    },
)
TRANSACTION: Final = shape(
    "Transaction",
    "a transaction; where it stands is null while it is in the pool, and what its type lacks is left out",
    {
        "hash": HASH,
        "type": QUANTITY,
        "nonce": QUANTITY,
        "gas": QUANTITY,
        "from": ADDRESS,
        "to": ADDRESS,
        "value": QUANTITY,
        "input": DATA,
        "chainId": QUANTITY,
        "gasPrice": QUANTITY,
        "maxFeePerGas": QUANTITY,
        "maxPriorityFeePerGas": QUANTITY,
        "accessList": ACCESS_LIST,
        "yParity": QUANTITY,
        "v": QUANTITY,
        "r": QUANTITY,
        "s": QUANTITY,
        **{name: maybe(schema) for name, schema in _PLACE.items()},
        "transactionIndex": maybe(QUANTITY),
    },
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "accessList",
    "yParity",
)
RECEIPT: Final = shape(
    "Receipt",
    "what a transaction did; `effectiveGasPrice` is what was charged",
    {
        "transactionHash": HASH,
        "transactionIndex": QUANTITY,
        "blockHash": HASH,
        "blockNumber": QUANTITY,
        "from": ADDRESS,
        "to": ADDRESS,
        "cumulativeGasUsed": QUANTITY,
        "gasUsed": QUANTITY,
        "effectiveGasPrice": QUANTITY,
        "contractAddress": {"type": "null"},
        "logs": listed(LOG),
        "logsBloom": BLOOM,
        "status": QUANTITY,
        "type": QUANTITY,
    },
)
BLOCK_RESULT: Final = shape(
    "Block",
    "a final block; `timestamp` is in seconds, rounded down, and `view` the round of consensus that made it",
    {
        "number": QUANTITY,
        "hash": HASH,
        "parentHash": HASH,
        "nonce": DATA,
        "sha3Uncles": HASH,
        "logsBloom": BLOOM,
        "transactionsRoot": HASH,
        "stateRoot": HASH,
        "receiptsRoot": HASH,
        "miner": ADDRESS,
        "difficulty": QUANTITY,
        "totalDifficulty": QUANTITY,
        "extraData": DATA,
        "size": QUANTITY,
        "gasLimit": QUANTITY,
        "gasUsed": QUANTITY,
        "timestamp": QUANTITY,
        "timestampMilliseconds": QUANTITY,
        "mixHash": HASH,
        "baseFeePerGas": QUANTITY,
        "view": QUANTITY,
        "transactions": either(listed(HASH), listed(TRANSACTION)),
        "uncles": listed(HASH, 0),
    },
)
SYNCING: Final = either(
    {"const": False},
    shape(
        "Syncing",
        "how far a node that is behind has come",
        {"startingBlock": QUANTITY, "currentBlock": QUANTITY, "highestBlock": QUANTITY},
    ),
)
_KEPT: Final = shape(
    "Kept", "from which block on it is here", {"disabled": BOOLEAN, "oldestBlock": QUANTITY}, "oldestBlock"
)
CAPABILITIES: Final = shape(
    "Capabilities",
    "what the node keeps; proofs of states are by ctt_getProof",
    {
        "head": shape("Head", "the newest final block", {"number": QUANTITY, "hash": HASH}),
        **dict.fromkeys(("state", "tx", "logs", "receipts", "blocks", "stateproofs"), _KEPT),
    },
)
FEE_HISTORY: Final = shape(
    "FeeHistory",
    "the constant price of gas, how full the blocks were, and tips of zero",
    {
        "oldestBlock": QUANTITY,
        "baseFeePerGas": listed(QUANTITY),
        "gasUsedRatio": listed(MEASURE),
        "reward": listed(listed(QUANTITY)),
    },
    "reward",
)
ACCESS_LIST_RESULT: Final = shape(
    "AccessList",
    "an empty list and the gas used; `error` when the call reverts",
    {"accessList": ACCESS_LIST, "gasUsed": QUANTITY, "error": STRING},
    "error",
)
POOL_STATUS: Final = shape(
    "PoolStatus",
    "how many the next blocks can take, and how many wait for an earlier nonce",
    {"pending": QUANTITY, "queued": QUANTITY},
)
_BY_SENDER: Final = keyed(keyed(TRANSACTION))
POOL_CONTENT: Final = shape(
    "PoolContent", "transactions by sender, then by nonce", {"pending": _BY_SENDER, "queued": _BY_SENDER}
)
CHANGES: Final = either(listed(LOG), listed(HASH))

# --- the project's own results ---------------------------------------------------------------------------------------

MODULES: Final = keyed(
    shape(
        "Module",
        "a native module",
        {"address": ADDRESS, "abi": {"type": "array", "items": {"type": "object"}}},
    )
)
CHAIN_STATUS: Final = shape(
    "ChainStatus",
    "the chain at a glance; `ctt` is there once the CTT is created",
    {
        "chainId": NUMBER,
        "genesisHash": HASH,
        "height": NUMBER,
        "blockHash": HASH,
        "timeMs": NUMBER,
        "blockPeriodMs": NUMBER,
        "finality": {"enum": ["live", "stalled"]},
        "since": maybe(NUMBER),
        "epoch": NUMBER,
        "view": NUMBER,
        "validators": maybe(NUMBER),
        "notVoting": maybe(STRING),
        "syncing": BOOLEAN,
        "peers": NUMBER,
        "pool": shape("Pool", "as txpool_status, in JSON numbers", {"pending": NUMBER, "queued": NUMBER}),
        "ctt": shape(
            "TokenStatus",
            "the CTT at a glance",
            {
                "name": STRING,
                "symbol": STRING,
                "tokens": NUMBER,
                "maxTokens": FIGURE,
                **energy("tokenCapability"),
                **energy("energyStored"),
            },
        ),
    },
    "ctt",
)
_QUANTILES: Final[dict[str, Schema]] = dict.fromkeys(("p50", "p99", "max"), MEASURE)
NODE_STATUS: Final = shape(
    "NodeStatus",
    "the node, not its chain",
    {
        "clientVersion": STRING,
        "trouble": maybe(STRING),
        "loopLagMs": shape(
            "LoopLag",
            "how late the event loop was in the last minute, ms",
            {"beats": NUMBER, **_QUANTILES},
        ),
        "finalityMs": shape(
            "FinalityTime",
            "from proposals to their certificates in the last minute, ms",
            {"blocks": NUMBER, **_QUANTILES},
        ),
        "validators": listed(
            shape(
                "ValidatorHealth",
                "`heardMs` ago it said anything, null of this node itself; `votesMissed` final views without its vote "
                "in time, null on a follower",
                {
                    "address": ADDRESS,
                    "name": maybe(STRING),
                    "heardMs": maybe(NUMBER),
                    "votesMissed": maybe(NUMBER),
                },
            ),
            100,
        ),
        "storage": maybe(
            shape("Room", "for the data directory, bytes", {"freeBytes": NUMBER, "sizeBytes": NUMBER})
        ),
    },
)
_VALIDATOR: Final = shape(
    "Validator", "who speaks for it, and the key it votes with", {"address": ADDRESS, "consensusKey": DATA}
)
_SET: Final[dict[str, Schema]] = {"hash": HASH, "validators": listed(_VALIDATOR, 100)}
VALIDATORS: Final = shape(
    "Validators",
    "the validators of an epoch, in the order of their places, and how many votes decide",
    {
        "epoch": NUMBER,
        "firstHeight": NUMBER,
        "lastHeight": NUMBER,
        "quorum": NUMBER,
        **_SET,
        "next": maybe(shape("ValidatorSet", "the validators of the next epoch", _SET)),
    },
)
FINALITY: Final = shape(
    "Finality",
    "a header, and what makes it final: the certificate is of the block at `certifiedHeight`, to which `descendants`, "
    "headers too, lead; headers and certificate are the bytes that are hashed and signed",
    {
        "height": NUMBER,
        "blockHash": HASH,
        "epoch": NUMBER,
        "header": DATA,
        "certificate": maybe(DATA),
        "certifiedHeight": maybe(NUMBER),
        "signers": maybe(listed(ADDRESS, 100)),
        "descendants": listed(DATA),
    },
)
PROOF: Final = shape(
    "Proof",
    "records with the nodes of the state tree, from the root towards each",
    {
        "finality": FINALITY,
        "records": listed(
            shape(
                "Record",
                "a record's bytes, null if there is none",
                {"key": DATA, "value": maybe(DATA), "proof": listed(DATA)},
            )
        ),
    },
)
RECEIPT_PROOF: Final = shape(
    "ReceiptProof",
    "a transaction's and a receipt's bytes with the hashes beside their ways to the header's roots",
    {
        "finality": FINALITY,
        "index": NUMBER,
        "count": NUMBER,
        "transaction": DATA,
        "transactionBranch": listed(HASH),
        "receipt": DATA,
        "receiptBranch": listed(HASH),
    },
)
ORIGIN: Final = shape(
    "Origin",
    "energy by source, as the certificates of the meters said when it was stored; `none` is of no known source",
    {name: schema for source in SOURCES for name, schema in energy(source).items()},
)
SUPPLY: Final = shape(
    "Supply",
    "the CTT at a block",
    {
        "height": NUMBER,
        "name": STRING,
        "symbol": STRING,
        "admin": ADDRESS,
        "tokens": NUMBER,
        "maxTokens": FIGURE,
        **energy("tokenCapability"),
        **money("emptyTokenPrice"),
        **energy("energyStored"),
        "origin": ORIGIN,
        **energy("everStored"),
        **energy("everCovered"),
        "retired": ORIGIN,
    },
)
_TOKEN: Final[dict[str, Schema]] = {
    "tokenId": NUMBER,
    "owner": ADDRESS,
    **energy("energy"),
    "origin": ORIGIN,
    "chargePercent": NUMBER,
    "onSale": BOOLEAN,
    **money("tokenPrice"),
    **energy_price("energyPrice"),
    **money("sellingPrice"),
    "approved": maybe(ADDRESS),
    "permitNonce": NUMBER,
    "index": NUMBER,
}
TOKEN: Final = shape(
    "Token", "a token; `index` is its place among its owner's", {"height": NUMBER, **_TOKEN}, "height"
)
TOKENS: Final = shape(
    "Tokens",
    "a page of an owner's tokens",
    {
        "height": NUMBER,
        "owner": ADDRESS,
        "count": NUMBER,
        "tokens": listed(TOKEN, 100),
        "next": maybe(NUMBER),
    },
)
_ENERGY: Final = energy("stored") | energy("spare")
STORED_ENERGY: Final = shape(
    "StoredEnergy", "in an owner's tokens, and what they could still take", {"height": NUMBER, **_ENERGY}
)
PROSUMER: Final = shape(
    "Prosumer",
    "a prosumer at a block",
    {
        "height": NUMBER,
        "address": ADDRESS,
        "meter": maybe(ADDRESS),
        "confirmed": BOOLEAN,
        "tokens": shape(
            "Shelf",
            "how its tokens are charged",
            dict.fromkeys(("count", "full", "partlyCharged", "empty", "onSale"), NUMBER),
        ),
        **_ENERGY,
        **energy("everProduced"),
        **energy("everStored"),
        **energy("everFedToGrid"),
        **energy("everConsumed"),
        **energy("everCovered"),
        "retired": ORIGIN,
        **energy("everBilled"),
        "lastReading": maybe(
            shape("Registers", "of a meter", {"timeMs": NUMBER, **energy("import"), **energy("export")})
        ),
    },
)
METER: Final = shape(
    "Meter",
    "a smart meter at a block",
    {
        "height": NUMBER,
        "address": ADDRESS,
        "operator": ADDRESS,
        "source": SOURCE,
        **{name: maybe(schema) for name, schema in power("maxPower").items()},
        "concentrator": BOOLEAN,
        "certified": BOOLEAN,
        "prosumer": maybe(ADDRESS),
    },
)
_PRODUCTION, _CONSUMPTION = energy("stored") | energy("fedToGrid"), energy("covered") | energy("billed")
READING: Final = shape(
    "Reading",
    "what was measured: stored or fedToGrid if it was produced, covered or billed if it was consumed",
    {
        "kind": {"enum": ["production", "consumption"]},
        "height": NUMBER,
        "timeMs": NUMBER,
        "transactionHash": HASH,
        "meter": ADDRESS,
        **energy("measured"),
        **_PRODUCTION,
        **_CONSUMPTION,
    },
    *_PRODUCTION,
    *_CONSUMPTION,
)
READINGS: Final = shape(
    "Readings",
    "a page of readings",
    {"readings": listed(READING), "to": {"type": "integer", "minimum": -1}, "next": maybe(NUMBER)},
)

# --- the market ------------------------------------------------------------------------------------------------------

MARKET: Final = shape(
    "Market",
    "the tariff, and the auction that takes orders",
    {
        "height": NUMBER,
        **energy_price("floor"),
        **energy_price("ceiling"),
        **energy_price("gridFee"),
        "gridOperator": maybe(ADDRESS),
        "auction": NUMBER,
        "lastBlock": NUMBER,
        "blocksLeft": NUMBER,
        "auctionBlocks": NUMBER,
        "orders": NUMBER,
        "ordersMax": NUMBER,
    },
)
ORDER: Final = shape(
    "Order",
    "a standing order: `limit` is the most a bid pays, the least an ask takes; `platform` placed it by a mandate",
    {
        "orderId": NUMBER,
        "side": {"enum": ["bid", "ask"]},
        "owner": ADDRESS,
        "platform": maybe(ADDRESS),
        **energy("energy"),
        **energy_price("limit"),
        "sources": listed(
            shape("SourceWish", "a bid's limit for this source", {"source": SOURCE, **energy_price("limit")})
        ),
        "partners": listed(
            shape(
                "PartnerWish",
                "a bid's limit from, an ask's price for this account",
                {"partner": ADDRESS, **energy_price("limit")},
            )
        ),
        "expiryAuction": FIGURE,
    },
)
ORDER_BOOK: Final = shape(
    "OrderBook",
    "a page of both sides",
    {
        "height": NUMBER,
        "bidCount": NUMBER,
        "askCount": NUMBER,
        "bids": listed(ORDER, 100),
        "asks": listed(ORDER, 100),
        "next": maybe(NUMBER),
    },
)
ORDERS_OF: Final = shape(
    "OrdersOf",
    "an account's standing orders",
    {"height": NUMBER, "owner": ADDRESS, "bid": maybe(ORDER), "ask": maybe(ORDER)},
)
MANDATE: Final = shape(
    "Mandate",
    "what a platform may still do for an owner, until the end of its last auction",
    {
        "height": NUMBER,
        "owner": ADDRESS,
        "platform": ADDRESS,
        **energy("energy"),
        **money("spend"),
        **energy_price("buyLimit"),
        **energy_price("sellLimit"),
        "expiryAuction": FIGURE,
    },
)
AUCTIONS: Final = shape(
    "Auctions",
    "a page of results, newest first",
    {
        "height": NUMBER,
        "auctions": listed(
            shape(
                "Auction",
                "what an auction came to; `bids` and `asks` are how many stood",
                {
                    "auction": NUMBER,
                    "clearedIn": NUMBER,
                    **energy_price("price"),
                    **energy("energy"),
                    "bids": NUMBER,
                    "asks": NUMBER,
                },
            ),
            100,
        ),
        "next": maybe(NUMBER),
    },
)
CLEARING: Final = shape(
    "Clearing",
    "what an auction would come to",
    {
        "height": NUMBER,
        "auction": NUMBER,
        **energy_price("price"),
        **energy("energy"),
        "tradeCount": NUMBER,
        "trades": listed(
            shape(
                "Trade",
                "energy that goes from seller to buyer, grid fee apart",
                {"buyer": ADDRESS, "seller": ADDRESS, **energy("energy"), **energy_price("price")},
            ),
            100,
        ),
        "share": maybe(
            shape(
                "Share",
                "what one account would buy and sell; the grid fee comes on top of what is paid",
                {
                    **energy("bought"),
                    **money("paid"),
                    **money("gridFee"),
                    **energy("sold"),
                    **money("earned"),
                },
            )
        ),
    },
)
ADVICE: Final = shape(
    "Advice",
    "an estimate from the prosumer's own past; `record` is what following such advice for the last `days` would have "
    "gained against holding, and what was `possible` for who knew the future (null and 0 days: too little is known)",
    {
        "home": ADDRESS,
        "height": NUMBER,
        "action": {"enum": ["BUY_FULL", "BUY_EMPTY", "SELL", "HOLD"]},
        "energyWh": NUMBER,
        "limitPerKwh": maybe(MEASURE),
        "pricePerToken": maybe(MEASURE),
        "gain": MEASURE,
        "gainP10": MEASURE,
        "gainP90": MEASURE,
        "reasons": listed(STRING),
        "record": shape(
            "TrackRecord",
            "as `text` has it in words",
            {"days": NUMBER, "gain": maybe(MEASURE), "possible": maybe(MEASURE), "text": STRING},
        ),
    },
)
