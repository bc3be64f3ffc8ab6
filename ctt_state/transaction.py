"""Ethereum's signed transactions: decode, check, hash, sender.

Types 0 (with EIP-155), 1 (EIP-2930) and 2 (EIP-1559), so that wallets and libraries work unchanged. This file makes
the checks that need no state; nonce order, funds and the block's gas limit are the ledger's. The checks come in this
order, and the first that fails is the answer:

1. size; 2. type; 3. RLP and its budget; 4. the number of fields; 5. each field's form, in wire order;
6. for type 0 the presence of a chain id in v; 7. chain id; 8. a recipient; 9. the largest nonce; 10. tip against fee
cap; 11. the signature's ranges. That some key made the signature is checked in `recover_sender`, the slow step, which
releases the interpreter lock and belongs on a worker thread.

What a transaction offers for its gas is only ever compared with the chain's minimum gas price: charged is the gas
used at that minimum, never what was offered.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ctt_state import rlp
from ctt_state.crypto import SECP256K1_HALF_N, SECP256K1_N, InvalidSignature, keccak, recover, sign
from ctt_state.errors import InvalidTransaction
from ctt_state.units import UINT64_MAX, ZERO_ADDRESS, Address, Gas, Hash, Wei

LEGACY = 0
ACCESS_LIST = 1
DYNAMIC_FEE = 2
SYSTEM = 0x7E  # what a block itself begins with: no key signs it, and none sends it

MAX_TRANSACTION_BYTES = 131_072
# Lists and strings, access list included: about 1,000 storage keys, decoded in 0.3 ms.
MAX_TRANSACTION_ITEMS = 1_024
# The transaction, its access list, an entry, the entry's keys.
MAX_TRANSACTION_DEPTH = 4

GAS_TRANSACTION = 21_000
GAS_DATA_BYTE = 16

AccessList: TypeAlias = tuple[tuple[Address, tuple[bytes, ...]], ...]


class Transaction(NamedTuple):
    """A transaction in its one canonical form. A tuple and not a dataclass: it is built six times faster.

    For types 0 and 1 the three prices are the same; for type 2 `gas_price` is the fee cap. So `gas_price` is always
    the most that the sender offers for a unit of gas. `raw` is the envelope as it came, `hash` its Keccak-256.
    """

    type: int
    chain_id: int
    nonce: int
    gas_price: Wei
    max_priority_fee: Wei
    max_fee: Wei
    gas_limit: Gas
    to: Address
    value: Wei
    data: bytes
    access_list: AccessList
    y_parity: int
    r: int
    s: int
    hash: Hash
    raw: bytes


class Signed(NamedTuple):
    """A transaction with its sender recovered: what the pool and the ledger take."""

    transaction: Transaction
    sender: Address


class OversizedData(InvalidTransaction):
    """The transaction is longer than the pool and the network carry."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"oversized data: {size_bytes} bytes; limit {MAX_TRANSACTION_BYTES}")


class UnsupportedType(InvalidTransaction):
    """The envelope is none of types 0, 1 and 2."""

    def __init__(self) -> None:
        super().__init__("transaction type not supported")


class MalformedTransaction(InvalidTransaction):
    """The bytes are not canonical RLP of this type's fields."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"rlp: {fault}")


class NotReplayProtected(InvalidTransaction):
    """A transaction from before EIP-155, which names no chain and so is valid on all."""

    def __init__(self) -> None:
        super().__init__("only replay-protected (EIP-155) transactions allowed over RPC")


class WrongChainId(InvalidTransaction):
    """The transaction was signed for another chain."""

    def __init__(self, *, have: int, want: int) -> None:
        super().__init__(f"invalid chain id for signer: have {have} want {want}")


class ContractCreation(InvalidTransaction):
    """The transaction has no recipient, which elsewhere deploys its data as a contract."""

    def __init__(self) -> None:
        super().__init__("contract creation is not supported: this chain runs native modules")


class NonceAtMaximum(InvalidTransaction):
    """The sender's next nonce would not fit 64 bits (EIP-2681)."""

    def __init__(self) -> None:
        super().__init__("nonce has max value")


class TipAboveFeeCap(InvalidTransaction):
    """The tip alone is above the most that the sender is ready to pay."""

    def __init__(self) -> None:
        super().__init__("max priority fee per gas higher than max fee per gas")


class InvalidSender(InvalidTransaction):
    """The signature is out of range, has a high s (EIP-2), or no key made it."""

    def __init__(self) -> None:
        super().__init__("invalid sender")


def decode_transaction(raw: bytes, chain_id: int) -> Transaction:
    """The transaction in `raw`, checked as far as that needs no state; see the module for the order.

    Raises: OversizedData, UnsupportedType, MalformedTransaction, NotReplayProtected, WrongChainId, ContractCreation,
    NonceAtMaximum, TipAboveFeeCap, InvalidSender.
    """
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise OversizedData(len(raw))
    if not raw:
        raise MalformedTransaction("no bytes")
    if raw[0] >= 0x80:
        transaction = _decode_legacy(raw)
    elif raw[0] in (ACCESS_LIST, DYNAMIC_FEE):
        transaction = _decode_typed(raw)
    else:
        raise UnsupportedType
    _check(transaction, chain_id)
    return transaction


def decode_included(raw: bytes, chain_id: int) -> Transaction:
    """The same for a transaction of a block, which may be its system transaction. Raises: as `decode_transaction`."""
    if raw[:1] != bytes((SYSTEM,)):
        return decode_transaction(raw, chain_id)
    chain, height, gas_limit, to, data = _fields(raw, 1, 5)
    names = _integer("chainId", chain, 32), _integer("height", height, 8), _integer("gas", gas_limit, 8)
    transaction = system_transaction(*names, _recipient(to), _string("input", data))
    if transaction.chain_id != chain_id:
        raise WrongChainId(have=transaction.chain_id, want=chain_id)
    return transaction


def system_transaction(chain_id: int, height: int, gas_limit: int, to: Address, data: bytes) -> Transaction:
    """What the block of this height does by itself: 7e and the RLP of these five. The height stands for the nonce, so
    each has its own hash."""
    raw = bytes((SYSTEM,)) + rlp.encode((chain_id, height, gas_limit, to, data))
    free, name = Wei(0), transaction_hash(raw)
    prices = free, free, free
    return Transaction(
        SYSTEM, chain_id, height, *prices, Gas(gas_limit), to, free, data, (), 0, 0, 0, name, raw
    )


def recover_sender(transaction: Transaction) -> Address:
    """The address whose key signed the transaction; the zero address for the block's own. The slow step, about 35 us.

    Raises: InvalidSender.
    """
    if transaction.type == SYSTEM:
        return ZERO_ADDRESS
    return _recover(transaction.raw, signature_v(transaction), transaction.r, transaction.s)


def sender_of(raw: bytes) -> Address:
    """The same from the envelope of a transaction that was decoded before: only its signature is looked at again.

    Raises: InvalidSender.
    """
    if raw[0] == SYSTEM:
        return ZERO_ADDRESS
    limits = {"depth_max": MAX_TRANSACTION_DEPTH, "items_max": MAX_TRANSACTION_ITEMS}
    fields = _list("transaction", rlp.decode(raw, start=_is_typed(raw), **limits))
    return _recover(raw, *(_integer("signature", each, 32) for each in fields[-3:]))


def _recover(raw: bytes, v: int, r: int, s: int) -> Address:
    y_parity = v if _is_typed(raw) else _split_v(v)[1]
    try:
        return recover(_signing_hash(raw, v, r, s), r, s, y_parity)
    except InvalidSignature:
        raise InvalidSender from None


def transaction_hash(raw: bytes) -> Hash:
    """The name of a transaction everywhere: Keccak-256 of its envelope."""
    return keccak(raw)


def signing_hash(transaction: Transaction) -> Hash:
    """What the sender signed: the envelope without its signature."""
    return _signing_hash(transaction.raw, signature_v(transaction), transaction.r, transaction.s)


def _signing_hash(raw: bytes, v: int, r: int, s: int) -> Hash:
    """The fields' bytes are cut out of `raw`, which is possible because a decoded transaction is canonical."""
    start, stop = rlp.payload_start(raw, _is_typed(raw)), len(raw) - sum(map(_encoded_length, (v, r, s)))
    if _is_typed(raw):
        return keccak(raw[:1] + rlp.encode_list_of(raw[start:stop]))
    chain_id, _ = _split_v(v)
    return keccak(rlp.encode_list_of(raw[start:stop] + rlp.encode(chain_id) + b"\x80\x80"))


def signature_v(transaction: Transaction) -> int:
    """The wire's v: with the chain id folded in for type 0 (EIP-155), else the parity."""
    if transaction.type == LEGACY:
        return 35 + 2 * transaction.chain_id + transaction.y_parity
    return transaction.y_parity


def intrinsic_gas(transaction: Transaction) -> Gas:
    """Gas for the transaction itself, before any rule runs. Access lists are accepted, do nothing and cost nothing."""
    return intrinsic_gas_of(transaction.data)


def intrinsic_gas_of(data: bytes) -> Gas:
    """The same for a call that is not signed yet: 21_000, and 16 for each byte of `data`, zero bytes too."""
    return Gas(GAS_TRANSACTION + GAS_DATA_BYTE * len(data))


def sign_transaction(
    private_key: bytes,
    *,
    chain_id: int,
    nonce: int,
    gas_limit: int,
    to: bytes,
    value: int = 0,
    data: bytes = b"",
    gas_price: int = 0,
    max_fee: int = 0,
    max_priority_fee: int = 0,
    access_list: Sequence[tuple[bytes, Sequence[bytes]]] = (),
    type: int = DYNAMIC_FEE,
) -> bytes:
    """A signed envelope, ready to send. Checks nothing: the receiver does.

    `gas_price` counts for types 0 and 1, the two fees for type 2, `access_list` for types 1 and 2.

    Raises: InvalidKey.
    """
    call: tuple[rlp.Encodable, ...] = (gas_limit, to, value, data)
    if type == LEGACY:
        fields = (nonce, gas_price, *call)
        r, s, parity = sign(private_key, keccak(rlp.encode((*fields, chain_id, 0, 0))))
        return rlp.encode((*fields, 35 + 2 * chain_id + parity, r, s))
    prices = (gas_price,) if type == ACCESS_LIST else (max_priority_fee, max_fee)
    fields = (chain_id, nonce, *prices, *call, access_list)
    kind = bytes((type,))
    r, s, parity = sign(private_key, keccak(kind + rlp.encode(fields)))
    return kind + rlp.encode((*fields, parity, r, s))


def _check(transaction: Transaction, chain_id: int) -> None:
    if transaction.chain_id != chain_id:
        raise WrongChainId(have=transaction.chain_id, want=chain_id)
    if not transaction.to:
        raise ContractCreation
    if transaction.nonce == UINT64_MAX:
        raise NonceAtMaximum
    if transaction.max_priority_fee > transaction.max_fee:
        raise TipAboveFeeCap
    if transaction.y_parity > 1 or not 0 < transaction.r < SECP256K1_N:
        raise InvalidSender
    if not 0 < transaction.s <= SECP256K1_HALF_N:
        raise InvalidSender


def _decode_legacy(raw: bytes) -> Transaction:
    nonce, gas_price, gas_limit, to, value, data, v, r, s = _fields(raw, 0, 9)
    checked_nonce = _integer("nonce", nonce, 8)
    price = Wei(_integer("gasPrice", gas_price, 32))
    call = _call(gas_limit, to, value, data)
    checked_v, checked_r, checked_s = _integer("v", v, 32), _integer("r", r, 32), _integer("s", s, 32)
    chain_id, y_parity = _split_v(checked_v)
    return Transaction(
        LEGACY,
        chain_id,
        checked_nonce,
        price,
        price,
        price,
        *call,
        (),
        y_parity,
        checked_r,
        checked_s,
        transaction_hash(raw),
        raw,
    )


def _decode_typed(raw: bytes) -> Transaction:
    kind = raw[0]
    fields = _fields(raw, 1, 11 if kind == ACCESS_LIST else 12)
    chain_id, nonce, *prices, gas_limit, to, value, data, access_list, y_parity, r, s = fields
    checked_chain_id, checked_nonce = _integer("chainId", chain_id, 32), _integer("nonce", nonce, 8)
    price, tip, cap = _prices(prices)
    return Transaction(
        kind,
        checked_chain_id,
        checked_nonce,
        price,
        tip,
        cap,
        *_call(gas_limit, to, value, data),
        _access_list(access_list),
        _integer("yParity", y_parity, 32),
        _integer("r", r, 32),
        _integer("s", s, 32),
        transaction_hash(raw),
        raw,
    )


def _fields(raw: bytes, start: int, count: int) -> list[rlp.Item]:
    try:
        fields = rlp.decode(
            raw, start=start, depth_max=MAX_TRANSACTION_DEPTH, items_max=MAX_TRANSACTION_ITEMS
        )
    except rlp.MalformedRlp as fault:
        raise MalformedTransaction(str(fault)) from None
    if isinstance(fields, bytes):
        raise MalformedTransaction("not a list")
    if len(fields) != count:
        raise MalformedTransaction(f"{len(fields)} fields, not {count}")
    return fields


def _prices(fields: Sequence[rlp.Item]) -> tuple[Wei, Wei, Wei]:
    """Offered price, tip and fee cap, from the one field of type 1 or the two of type 2."""
    if len(fields) == 1:
        price = Wei(_integer("gasPrice", fields[0], 32))
        return price, price, price
    tip = Wei(_integer("maxPriorityFeePerGas", fields[0], 32))
    cap = Wei(_integer("maxFeePerGas", fields[1], 32))
    return cap, tip, cap


def _call(
    gas_limit: rlp.Item, to: rlp.Item, value: rlp.Item, data: rlp.Item
) -> tuple[Gas, Address, Wei, bytes]:
    return (
        Gas(_integer("gas", gas_limit, 8)),
        _recipient(to),
        Wei(_integer("value", value, 32)),
        _string("input", data),
    )


def _recipient(field: rlp.Item) -> Address:
    """The address, or no bytes for a contract creation, which is refused later."""
    to = _string("to", field)
    if len(to) not in (0, 20):
        raise MalformedTransaction(f"field to has {len(to)} bytes, not 20")
    return Address(to)


def _access_list(field: rlp.Item) -> AccessList:
    if not field and isinstance(field, list):
        return ()
    return tuple([_access_entry(entry) for entry in _list("accessList", field)])


def _access_entry(field: rlp.Item) -> tuple[Address, tuple[bytes, ...]]:
    entry = _list("accessList entry", field)
    if len(entry) != 2:
        raise MalformedTransaction(f"field accessList entry has {len(entry)} fields, not 2")
    address = _string("accessList address", entry[0])
    if len(address) != 20:
        raise MalformedTransaction(f"field accessList address has {len(address)} bytes, not 20")
    return Address(address), tuple([_storage_key(key) for key in _list("accessList storageKeys", entry[1])])


def _storage_key(field: rlp.Item) -> bytes:
    key = _string("accessList storageKey", field)
    if len(key) != 32:
        raise MalformedTransaction(f"field accessList storageKey has {len(key)} bytes, not 32")
    return key


def _integer(name: str, field: rlp.Item, bytes_max: int) -> int:
    if isinstance(field, list):
        raise MalformedTransaction(f"field {name} is a list")
    if len(field) > bytes_max:
        raise MalformedTransaction(f"field {name} is longer than {bytes_max} bytes")
    if field[:1] == b"\x00":
        raise MalformedTransaction(f"field {name} has a leading zero")
    return int.from_bytes(field, "big")


def _string(name: str, field: rlp.Item) -> bytes:
    if isinstance(field, list):
        raise MalformedTransaction(f"field {name} is a list")
    return field


def _list(name: str, field: rlp.Item) -> list[rlp.Item]:
    if isinstance(field, bytes):
        raise MalformedTransaction(f"field {name} is not a list")
    return field


def _split_v(v: int) -> tuple[int, int]:
    """Chain id and parity from type 0's v, which is 35 + 2 * chain id + parity (EIP-155)."""
    if v in (0, 1, 27, 28):
        raise NotReplayProtected
    if v < 35:
        raise InvalidSender
    return (v - 35) // 2, (v - 35) % 2  # both exact: v is 35 or more


def _is_typed(raw: bytes) -> bool:
    """Whether the envelope begins with a byte for its type, which type 0 does not."""
    return raw[0] < 0x80


def _encoded_length(integer: int) -> int:
    """The length of an integer below 2**256 in RLP."""
    return 1 if integer < 0x80 else 1 + (integer.bit_length() + 7) // 8
