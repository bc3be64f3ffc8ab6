"""Transactions: the fixed order of refusals with their texts, the edges of each field, and eth-account as a judge."""

import time
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state import rlp
from ctt_state.crypto import SECP256K1_HALF_N, SECP256K1_N, address_of, checksum_address, keccak
from ctt_state.errors import InvalidTransaction
from ctt_state.transaction import (
    ACCESS_LIST,
    DYNAMIC_FEE,
    LEGACY,
    MAX_TRANSACTION_BYTES,
    ContractCreation,
    InvalidSender,
    MalformedTransaction,
    NonceAtMaximum,
    NotReplayProtected,
    OversizedData,
    TipAboveFeeCap,
    Transaction,
    UnsupportedType,
    WrongChainId,
    decode_transaction,
    intrinsic_gas,
    intrinsic_gas_of,
    recover_sender,
    sender_of,
    sign_transaction,
    signature_v,
    signing_hash,
    transaction_hash,
)
from ctt_state.units import UINT64_MAX, UINT256_MAX, hex_of

CHAIN_ID = 1337
KEY = b"\x46" * 32
RECIPIENT = b"\x35" * 20
CALLDATA = bytes.fromhex("a9059cbb") + (7).to_bytes(32, "big") + (42).to_bytes(32, "big")
ACCESS = ((b"\x11" * 20, (bytes(32), b"\x22" * 32)), (b"\x33" * 20, ()))

FIELDS = {
    LEGACY: ("nonce", "gasPrice", "gas", "to", "value", "input", "v", "r", "s"),
    ACCESS_LIST: (
        *("chainId", "nonce", "gasPrice", "gas", "to", "value", "input", "accessList"),
        *("yParity", "r", "s"),
    ),
    DYNAMIC_FEE: (
        *("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "input"),
        *("accessList", "yParity", "r", "s"),
    ),
}
TYPES = tuple(FIELDS)

# The example of EIP-155 itself, on chain 1.
EIP_155_EXAMPLE = bytes.fromhex(
    "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080"
    "25a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276"
    "a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
)
# Signed by eth-account with KEY: nonce 9, gas 100_000, 1 ether, CALLDATA; types 1 and 2 with ACCESS.
GOLDEN = [  # (type, envelope, hash)
    (
        0,
        (
            "f8b4098504a817c800830186a0943535353535353535353535353535353535353535880de0b6b3a7640000b844a9059c"
            "bb0000000000000000000000000000000000000000000000000000000000000007000000000000000000000000000000"
            "000000000000000000000000000000002a820a95a0028fce28cab4f1f7958eb1fb1d8c08a55bc5979d7c7a8d41d8e386"
            "39053dd9e1a010338a11b2d168c175f179ebb3d92b1cb2c20978eb34964f26716a4fea158d5f"
        ),
        "5e323d621bcad43921544d3ee24e571646c4ad3ef6ae644d568de61b04d26035",
    ),
    (
        1,
        (
            "01f90129820539098504a817c800830186a0943535353535353535353535353535353535353535880de0b6b3a7640000"
            "b844a9059cbb000000000000000000000000000000000000000000000000000000000000000700000000000000000000"
            "0000000000000000000000000000000000000000002af872f859941111111111111111111111111111111111111111f8"
            "42a00000000000000000000000000000000000000000000000000000000000000000a022222222222222222222222222"
            "22222222222222222222222222222222222222d6943333333333333333333333333333333333333333c001a054bd47de"
            "1282bc85c075415b80ad9b364831fc6651009745f147a50165723415a01b184641cb5304aca092802d3c6abc578e22cb"
            "34c3036b33a5de2ca430a3de54"
        ),
        "4fd8083b8195c96f0ee6e6da719bbb472a15c02a51f9860c84b9b551a849297f",
    ),
    (
        2,
        (
            "02f9012e82053909843b9aca008506fc23ac00830186a0943535353535353535353535353535353535353535880de0b6"
            "b3a7640000b844a9059cbb00000000000000000000000000000000000000000000000000000000000000070000000000"
            "00000000000000000000000000000000000000000000000000002af872f8599411111111111111111111111111111111"
            "11111111f842a00000000000000000000000000000000000000000000000000000000000000000a02222222222222222"
            "222222222222222222222222222222222222222222222222d6943333333333333333333333333333333333333333c080"
            "a040e79367f3ecf579f928f4fb0fc88f1455f289ed291f04a6a45fd35a11d045c2a0132d8797f477b05d0972348a293e"
            "7c2d63c957198f574b76cc227b6170f0bd81"
        ),
        "5d47af155ffc99babc777542a7693b6a476a897ee25bf79da82fa6ab4a3c1e5c",
    ),
]


def make_raw(type: int = DYNAMIC_FEE, **changes: Any) -> bytes:
    """A signed transaction with `changes` to its wire fields made after signing."""
    raw = sign_transaction(
        KEY, chain_id=CHAIN_ID, nonce=9, gas_limit=100_000, to=RECIPIENT, data=CALLDATA, type=type
    )
    fields = rlp.decode(raw, start=0 if type == LEGACY else 1)
    assert isinstance(fields, list)
    changed = dict(zip(FIELDS[type], fields, strict=True)) | changes
    return envelope(type, list(changed.values()))


def envelope(type: int, fields: rlp.Encodable) -> bytes:
    return (b"" if type == LEGACY else bytes([type])) + rlp.encode(fields)


def make_raw_of_size(size: int) -> bytes:
    overhead = len(make_raw(input=bytes(60_000))) - 60_000
    short = size - overhead
    raw = make_raw(input=bytes(short))
    return make_raw(input=bytes(short - (len(raw) - size)))


def refusal_of(raw: bytes, chain_id: int = CHAIN_ID) -> InvalidTransaction:
    with pytest.raises(InvalidTransaction) as refusal:
        recover_sender(decode_transaction(raw, chain_id))
    return refusal.value


def wire_fields(transaction: Transaction) -> list[rlp.Encodable]:
    """What the transaction must have looked like, written by hand from the standards."""
    prices: dict[int, list[rlp.Encodable]] = {
        LEGACY: [transaction.nonce, transaction.gas_price],
        ACCESS_LIST: [transaction.chain_id, transaction.nonce, transaction.gas_price],
        DYNAMIC_FEE: [
            transaction.chain_id,
            transaction.nonce,
            transaction.max_priority_fee,
            transaction.max_fee,
        ],
    }
    call: list[rlp.Encodable] = [transaction.gas_limit, transaction.to, transaction.value, transaction.data]
    access: list[rlp.Encodable] = [] if transaction.type == LEGACY else [transaction.access_list]
    signature: list[rlp.Encodable] = [signature_v(transaction), transaction.r, transaction.s]
    return prices[transaction.type] + call + access + signature


@pytest.mark.parametrize(("type", "raw", "hash_"), GOLDEN)
def test_transactions_of_another_library_decode_to_what_it_signed(type: int, raw: str, hash_: str) -> None:
    transaction = decode_transaction(bytes.fromhex(raw), CHAIN_ID)

    assert transaction.type == type
    assert (transaction.chain_id, transaction.nonce, transaction.gas_limit) == (CHAIN_ID, 9, 100_000)
    assert (transaction.to, transaction.value, transaction.data) == (RECIPIENT, 10**18, CALLDATA)
    assert transaction.access_list == (() if type == LEGACY else ACCESS)
    assert transaction.raw.hex() == raw
    assert transaction.hash.hex() == hash_ == transaction_hash(bytes.fromhex(raw)).hex()
    assert checksum_address(recover_sender(transaction)) == "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"


def test_the_example_of_eip_155_has_the_published_signing_hash() -> None:
    transaction = decode_transaction(EIP_155_EXAMPLE, 1)

    assert (
        signing_hash(transaction).hex() == "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"
    )
    assert signature_v(transaction) == 37
    assert recover_sender(transaction).hex() == "9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f"
    assert EIP_155_EXAMPLE == sign_transaction(
        KEY,
        chain_id=1,
        nonce=9,
        gas_price=20 * 10**9,
        gas_limit=21_000,
        to=RECIPIENT,
        value=10**18,
        type=LEGACY,
    )


def test_the_offered_price_of_a_type_2_transaction_is_its_fee_cap() -> None:
    """The three prices of types 0 and 1 are one."""
    dynamic = decode_transaction(bytes.fromhex(GOLDEN[2][1]), CHAIN_ID)
    assert (dynamic.gas_price, dynamic.max_fee, dynamic.max_priority_fee) == (30 * 10**9, 30 * 10**9, 10**9)

    for _, raw, _ in GOLDEN[:2]:
        flat = decode_transaction(bytes.fromhex(raw), CHAIN_ID)
        assert flat.gas_price == flat.max_fee == flat.max_priority_fee == 20 * 10**9


def test_v_carries_the_chain_id_in_type_0_only() -> None:
    """EIP-155: v = 35 + 2 * chain id + parity."""
    by_type = [decode_transaction(bytes.fromhex(raw), CHAIN_ID) for _, raw, _ in GOLDEN]

    assert [signature_v(t) for t in by_type] == [2709, 1, 0]
    assert [t.y_parity for t in by_type] == [0, 1, 0]


def test_gas_before_any_rule_counts_the_calldata_only() -> None:
    legacy, with_access_list, _ = (decode_transaction(bytes.fromhex(raw), CHAIN_ID) for _, raw, _ in GOLDEN)

    assert intrinsic_gas(legacy) == intrinsic_gas(with_access_list) == 21_000 + 16 * 68
    assert intrinsic_gas_of(b"") == 21_000
    assert intrinsic_gas_of(b"\x00") == 21_016


keys = st.integers(1, SECP256K1_N - 1).map(lambda n: n.to_bytes(32, "big"))
addresses = st.binary(min_size=20, max_size=20)
access_lists = st.lists(
    st.tuples(addresses, st.lists(st.binary(min_size=32, max_size=32), max_size=3)), max_size=3
)
amounts = st.sampled_from((0, 1, 127, 128, UINT64_MAX)) | st.integers(0, UINT256_MAX)


@settings(max_examples=200, deadline=None)
@given(
    type=st.sampled_from(TYPES),
    key=keys,
    chain_id=st.sampled_from((1, 45, 46, 1337)) | st.integers(1, 2**53),
    nonce=st.integers(0, UINT64_MAX - 1),
    prices=st.tuples(amounts, amounts).map(sorted),
    gas_limit=st.integers(21_000, UINT64_MAX),
    to=addresses,
    value=amounts,
    data=st.binary(max_size=300),
    access_list=access_lists,
)
def test_eth_account_and_we_sign_and_recover_the_same(
    type: int,
    key: bytes,
    chain_id: int,
    nonce: int,
    prices: list[int],
    gas_limit: int,
    to: bytes,
    value: int,
    data: bytes,
    access_list: list[tuple[bytes, list[bytes]]],
) -> None:
    """Both sign with the deterministic nonce of RFC 6979, so even the bytes are equal."""
    tip, cap = prices
    call = {"chainId": chain_id, "nonce": nonce, "gas": gas_limit, "to": to, "value": value, "data": data}
    theirs: dict[str, object] = {**call, "type": type}
    if type == DYNAMIC_FEE:
        theirs |= {"maxFeePerGas": cap, "maxPriorityFeePerGas": tip}
    else:
        theirs |= {"gasPrice": cap}
    if type != LEGACY:
        theirs |= {
            "accessList": [
                {"address": hex_of(a), "storageKeys": [hex_of(k) for k in slots]} for a, slots in access_list
            ]
        }
    if type == LEGACY:
        del theirs["type"]

    signed = Account.sign_transaction(theirs, key)
    raw = sign_transaction(
        key,
        chain_id=chain_id,
        nonce=nonce,
        gas_limit=gas_limit,
        to=to,
        value=value,
        data=data,
        gas_price=cap,
        max_fee=cap,
        max_priority_fee=tip,
        access_list=access_list,
        type=type,
    )
    transaction = decode_transaction(bytes(signed.raw_transaction), chain_id)

    assert raw == signed.raw_transaction
    assert transaction.hash == signed.hash
    assert (transaction.r, transaction.s, signature_v(transaction)) == (signed.r, signed.s, signed.v)
    assert recover_sender(transaction) == sender_of(raw) == address_of(key)
    assert Account.recover_transaction(raw) == checksum_address(address_of(key))
    assert envelope(type, wire_fields(transaction)) == raw


# Each line has the faults of all lines after it, where its form can hold them: so the first fault is the answer.
CREATION_AND_LATER: dict[str, Any] = {"to": b"", "nonce": UINT64_MAX, "maxPriorityFeePerGas": 1, "s": 0}
MAX_NONCE_AND_LATER: dict[str, Any] = {"nonce": UINT64_MAX, "maxPriorityFeePerGas": 1, "s": 0}
ORDER = [
    (
        b"\x03" + make_raw_of_size(MAX_TRANSACTION_BYTES),
        OversizedData,
        "oversized data: 131073 bytes; limit 131072",
    ),
    (b"\x03\xc2\x00", UnsupportedType, "transaction type not supported"),
    (b"\x02\xc2\x00", MalformedTransaction, "rlp: item overruns its container at byte 1"),
    (b"\x02\xc2\x00\x00", MalformedTransaction, "rlp: 2 fields, not 12"),
    (
        make_raw(
            nonce=b"\x00\x01", chainId=5, **{k: v for k, v in CREATION_AND_LATER.items() if k != "nonce"}
        ),
        MalformedTransaction,
        "rlp: field nonce has a leading zero",
    ),
    (
        make_raw(LEGACY, v=27, to=b"", nonce=UINT64_MAX, s=0),
        NotReplayProtected,
        "only replay-protected (EIP-155) transactions allowed over RPC",
    ),
    (
        make_raw(chainId=5, **CREATION_AND_LATER),
        WrongChainId,
        "invalid chain id for signer: have 5 want 1337",
    ),
    (
        make_raw(**CREATION_AND_LATER),
        ContractCreation,
        "contract creation is not supported: this chain runs native modules",
    ),
    (make_raw(**MAX_NONCE_AND_LATER), NonceAtMaximum, "nonce has max value"),
    (
        make_raw(maxPriorityFeePerGas=1, s=0),
        TipAboveFeeCap,
        "max priority fee per gas higher than max fee per gas",
    ),
    (make_raw(s=0), InvalidSender, "invalid sender"),
]


@pytest.mark.parametrize(("raw", "error", "text"), ORDER, ids=lambda value: getattr(value, "__name__", ""))
def test_the_first_fault_in_the_fixed_order_is_the_answer(
    raw: bytes, error: type[InvalidTransaction], text: str
) -> None:
    refusal = refusal_of(raw)

    assert type(refusal) is error
    assert str(refusal) == text


@pytest.mark.parametrize("type", TYPES)
def test_fields_are_read_in_wire_order(type: int) -> None:
    """With every field malformed the first is named; mended one by one, each of the others in its turn."""
    sound = make_raw(type)
    fields = rlp.decode(sound, start=0 if type == LEGACY else 1)
    assert isinstance(fields, list)

    for position, name in enumerate(FIELDS[type]):
        broken: list[rlp.Item] = [b"" if field == "accessList" else [] for field in FIELDS[type][position:]]
        wanted = "is not a list" if name == "accessList" else "is a list"
        assert str(refusal_of(envelope(type, fields[:position] + broken))) == f"rlp: field {name} {wanted}"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "rlp: no bytes"),
        (b"\x02", "rlp: no item at byte 1"),
        (b"\x80", "rlp: not a list"),
        (b"\x02\x85", "rlp: item overruns its container at byte 1"),
        (b"\xf8\x01\x00", "rlp: long length for a short item at byte 0"),
        (b"\xc0", "rlp: 0 fields, not 9"),
        (b"\x01\xc0", "rlp: 0 fields, not 11"),
        (make_raw() + b"\x00", f"rlp: 1 bytes after the item at byte {len(make_raw())}"),
        (make_raw()[:-1], "rlp: item overruns its container at byte 1"),
        (b"\x02\xc4\xc3\xc2\xc1\xc0", "rlp: lists nested deeper than 4 at byte 5"),
        (b"\x00" + make_raw(), "transaction type not supported"),
        (b"\x04" + make_raw()[1:], "transaction type not supported"),
        (b"\x7f" + make_raw()[1:], "transaction type not supported"),
    ],
)
def test_bytes_that_are_no_transaction_are_refused(raw: bytes, text: str) -> None:
    assert str(refusal_of(raw)) == text


@pytest.mark.parametrize("type", TYPES)
def test_a_missing_or_extra_field_is_refused(type: int) -> None:
    fields = rlp.decode(make_raw(type), start=0 if type == LEGACY else 1)
    assert isinstance(fields, list)
    count = len(FIELDS[type])

    assert str(refusal_of(envelope(type, fields[:-1]))) == f"rlp: {count - 1} fields, not {count}"
    assert str(refusal_of(envelope(type, [*fields, b""]))) == f"rlp: {count + 1} fields, not {count}"


INTEGER_BYTES_MAX = {
    **dict.fromkeys(("nonce", "gas"), 8),
    **dict.fromkeys(("chainId", "gasPrice", "maxPriorityFeePerGas", "maxFeePerGas", "value"), 32),
    **dict.fromkeys(("v", "yParity", "r", "s"), 32),
}


@pytest.mark.parametrize(
    ("type", "name"), [(type, name) for type in TYPES for name in FIELDS[type] if name in INTEGER_BYTES_MAX]
)
def test_an_integer_has_one_form_and_a_longest(type: int, name: str) -> None:
    longest = INTEGER_BYTES_MAX[name]

    assert str(refusal_of(make_raw(type, **{name: b"\x00"}))) == f"rlp: field {name} has a leading zero"
    assert str(refusal_of(make_raw(type, **{name: b"\x00\x07"}))) == f"rlp: field {name} has a leading zero"
    assert str(refusal_of(make_raw(type, **{name: b"\x01" + bytes(longest)}))) == (
        f"rlp: field {name} is longer than {longest} bytes"
    )


@pytest.mark.parametrize("length", [1, 19, 21, 32])
@pytest.mark.parametrize("type", TYPES)
def test_a_recipient_has_20_bytes(type: int, length: int) -> None:
    assert str(refusal_of(make_raw(type, to=bytes(length)))) == f"rlp: field to has {length} bytes, not 20"
    assert isinstance(refusal_of(make_raw(type, to=b"")), ContractCreation)
    assert decode_transaction(make_raw(type, to=bytes(20)), CHAIN_ID).to == bytes(20)


@pytest.mark.parametrize(
    ("access_list", "text"),
    [
        ([b"\x11" * 20], "rlp: field accessList entry is not a list"),
        ([[b"\x11" * 20]], "rlp: field accessList entry has 1 fields, not 2"),
        ([[b"\x11" * 20, [], []]], "rlp: field accessList entry has 3 fields, not 2"),
        ([[b"\x11" * 19, []]], "rlp: field accessList address has 19 bytes, not 20"),
        ([[[], []]], "rlp: field accessList address is a list"),
        ([[b"\x11" * 20, b""]], "rlp: field accessList storageKeys is not a list"),
        ([[b"\x11" * 20, [bytes(31)]]], "rlp: field accessList storageKey has 31 bytes, not 32"),
    ],
)
@pytest.mark.parametrize("type", [ACCESS_LIST, DYNAMIC_FEE])
def test_an_access_list_of_another_shape_is_refused(type: int, access_list: list[Any], text: str) -> None:
    assert str(refusal_of(make_raw(type, accessList=access_list))) == text


def test_an_access_list_fills_the_budget_and_no_more() -> None:
    """1_024 items: the transaction, its 12 fields, the entry, its address and its list of keys leave 1_008."""
    full = make_raw(accessList=[[b"\x11" * 20, [bytes(32)] * 1_008]])
    assert len(decode_transaction(full, CHAIN_ID).access_list[0][1]) == 1_008

    above = make_raw(accessList=[[b"\x11" * 20, [bytes(32)] * 1_009]])
    assert str(refusal_of(above)).startswith("rlp: more than 1024 items at byte ")
    deeper = make_raw(accessList=[[b"\x11" * 20, [[]]]])
    assert str(refusal_of(deeper)).startswith("rlp: lists nested deeper than 4 at byte ")


def test_a_transaction_of_128_kib_is_the_largest() -> None:
    largest = make_raw_of_size(MAX_TRANSACTION_BYTES)
    assert len(largest) == 131_072
    assert decode_transaction(largest, CHAIN_ID).raw == largest

    assert str(refusal_of(make_raw_of_size(131_073))) == "oversized data: 131073 bytes; limit 131072"


@pytest.mark.parametrize("type", TYPES)
def test_numbers_reach_their_largest_value(type: int) -> None:
    largest = decode_transaction(
        make_raw(type, nonce=UINT64_MAX - 1, gas=UINT64_MAX, value=UINT256_MAX), CHAIN_ID
    )
    assert (largest.nonce, largest.gas_limit, largest.value) == (UINT64_MAX - 1, UINT64_MAX, UINT256_MAX)

    assert str(refusal_of(make_raw(type, nonce=UINT64_MAX))) == "nonce has max value"
    assert str(refusal_of(make_raw(type, nonce=2**64))) == "rlp: field nonce is longer than 8 bytes"
    assert str(refusal_of(make_raw(type, gas=2**64))) == "rlp: field gas is longer than 8 bytes"
    assert str(refusal_of(make_raw(type, value=2**256))) == "rlp: field value is longer than 32 bytes"


def test_a_tip_may_equal_the_fee_cap() -> None:
    equal = decode_transaction(make_raw(maxPriorityFeePerGas=UINT256_MAX, maxFeePerGas=UINT256_MAX), CHAIN_ID)
    assert equal.max_priority_fee == equal.max_fee == UINT256_MAX

    assert isinstance(refusal_of(make_raw(maxPriorityFeePerGas=8, maxFeePerGas=7)), TipAboveFeeCap)


def test_v_of_one_and_of_two_bytes_recovers_the_signer() -> None:
    """On chain 46 v is 127, one byte on the wire, or 128, two: the signing hash is cut out in front of it."""
    seen = set()
    for nonce in range(16):
        raw = sign_transaction(KEY, chain_id=46, nonce=nonce, gas_limit=21_000, to=RECIPIENT, type=LEGACY)
        transaction = decode_transaction(raw, 46)
        assert recover_sender(transaction) == address_of(KEY)
        seen.add(signature_v(transaction))

    assert seen == {127, 128}


@pytest.mark.parametrize("v", [0, 1, 27, 28])
def test_a_signature_without_a_chain_id_is_not_replay_protected(v: int) -> None:
    assert isinstance(refusal_of(make_raw(LEGACY, v=v)), NotReplayProtected)


@pytest.mark.parametrize("v", [2, 26, 29, 34])
def test_a_v_that_no_signer_writes_is_an_invalid_sender(v: int) -> None:
    assert isinstance(refusal_of(make_raw(LEGACY, v=v)), InvalidSender)


@pytest.mark.parametrize(("v", "have"), [(35, 0), (36, 0), (37, 1), (2708, 1336), (2711, 1338)])
def test_type_0_for_another_chain_is_refused(v: int, have: int) -> None:
    assert str(refusal_of(make_raw(LEGACY, v=v))) == f"invalid chain id for signer: have {have} want 1337"


@pytest.mark.parametrize("type", [ACCESS_LIST, DYNAMIC_FEE])
@pytest.mark.parametrize("chain_id", [0, 1336, 1338, UINT256_MAX])
def test_another_chain_id_is_refused(type: int, chain_id: int) -> None:
    text = f"invalid chain id for signer: have {chain_id} want 1337"
    assert str(refusal_of(make_raw(type, chainId=chain_id))) == text


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0},
        {"r": SECP256K1_N},
        {"r": UINT256_MAX},
        {"s": 0},
        {"s": SECP256K1_HALF_N + 1},
        {"s": SECP256K1_N},
        {"s": UINT256_MAX},
    ],
)
def test_a_signature_out_of_range_is_an_invalid_sender(type: int, changes: dict[str, int]) -> None:
    with pytest.raises(InvalidSender, match="^invalid sender$"):
        decode_transaction(make_raw(type, **changes), CHAIN_ID)


@pytest.mark.parametrize("type", [ACCESS_LIST, DYNAMIC_FEE])
@pytest.mark.parametrize("y_parity", [2, 27, 2**255])
def test_a_parity_above_1_is_an_invalid_sender(type: int, y_parity: int) -> None:
    with pytest.raises(InvalidSender, match="^invalid sender$"):
        decode_transaction(make_raw(type, yParity=y_parity), CHAIN_ID)


@pytest.mark.parametrize("type", TYPES)
def test_the_ends_of_the_signature_s_ranges_are_accepted(type: int) -> None:
    for changes in ({"r": 1}, {"r": SECP256K1_N - 1}, {"s": 1}, {"s": SECP256K1_HALF_N}):
        decode_transaction(make_raw(type, **changes), CHAIN_ID)


def test_a_signature_that_no_key_made_is_found_at_recovery() -> None:
    """5 is in range, but no point of the curve has it as its x."""
    transaction = decode_transaction(make_raw(r=5), CHAIN_ID)

    with pytest.raises(InvalidSender, match="^invalid sender$"):
        recover_sender(transaction)


@pytest.mark.parametrize("type", TYPES)
def test_the_same_payment_cannot_return_under_another_hash(type: int) -> None:
    """EIP-2: n - s with the other parity would be the same sender's signature of the same payment."""
    raw = make_raw(type)
    transaction = decode_transaction(raw, CHAIN_ID)
    parity = "v" if type == LEGACY else "yParity"
    other_parity = signature_v(transaction._replace(y_parity=1 - transaction.y_parity))

    mirrored = make_raw(type, s=SECP256K1_N - transaction.s, **{parity: other_parity})

    assert Account.recover_transaction(mirrored) == checksum_address(address_of(KEY))
    assert isinstance(refusal_of(mirrored), InvalidSender)


@settings(max_examples=500, deadline=None)
@given(type=st.sampled_from(TYPES), at=st.integers(0, 200), cut=st.integers(0, 2), new=st.binary(max_size=2))
def test_a_changed_transaction_is_refused_or_another_in_canonical_form(
    type: int, at: int, cut: int, new: bytes
) -> None:
    raw = sign_transaction(
        KEY, chain_id=CHAIN_ID, nonce=9, gas_limit=100_000, to=RECIPIENT, access_list=ACCESS, type=type
    )
    changed = raw[:at] + new + raw[at + cut :]
    try:
        transaction = decode_transaction(changed, CHAIN_ID)
        sender = recover_sender(transaction)
    except InvalidTransaction:
        return

    assert envelope(transaction.type, wire_fields(transaction)) == changed
    assert (sender == address_of(KEY)) == (changed == raw)


@pytest.mark.parametrize("type", TYPES)
def test_a_transaction_cut_short_is_refused(type: int) -> None:
    raw = make_raw(type)

    for end in range(len(raw)):
        assert isinstance(refusal_of(raw[:end]), InvalidTransaction)


def test_hostile_input_costs_next_to_nothing() -> None:
    """128 KiB of one-byte items, of empty lists, of nesting; a full access list is the dearest that is accepted."""
    deep = b""
    for _ in range(1_500):
        deep = rlp.encode_list_of(deep)
    wide = rlp.encode_list_of(b"\x01" * 131_067)
    empties = rlp.encode_list_of(b"\xc0" * 131_067)
    entries = make_raw(accessList=[[b"\x11" * 20, []]] * 2_000)
    for body in (wide, empties, deep, b"\x02" + wide, b"\x01" + empties, b"\x02" + deep, entries):
        assert len(body) <= MAX_TRANSACTION_BYTES
        assert cpu_ms_of_refusal(body) < 5


def cpu_ms_of_refusal(raw: bytes) -> float:
    """The best of three: another process may steal the time of one."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        refusal_of(raw)
        best = min(best, (time.process_time() - start) * 1_000)
    return best


def test_signing_leaves_out_what_the_type_does_not_have() -> None:
    legacy = sign_transaction(
        KEY,
        chain_id=CHAIN_ID,
        nonce=0,
        gas_limit=21_000,
        to=RECIPIENT,
        max_fee=5,
        access_list=ACCESS,
        type=LEGACY,
    )
    transaction = decode_transaction(legacy, CHAIN_ID)

    assert (transaction.gas_price, transaction.access_list) == (0, ())
    assert recover_sender(transaction) == address_of(KEY)
    assert transaction.hash == keccak(legacy)
