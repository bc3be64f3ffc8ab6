"""Blocks, transactions, receipts and logs as the JSON of Ethereum's execution APIs.

Written as text at once: every value is a number or bytes in hexadecimal, so nothing needs escaping, and a full block
has tens of thousands of them. What is derived of a block (sums of gas, first log of each transaction, bloom) is kept
with its view.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from typing import Final

from ctt_state.block import FinalBlock, Log
from ctt_state.crypto import keccak
from ctt_state.modules.call import ChainParameters
from ctt_state.transaction import (
    ACCESS_LIST,
    DYNAMIC_FEE,
    LEGACY,
    SYSTEM,
    Signed,
    Transaction,
    decode_included,
    signature_v,
)
from ctt_state.units import MS_PER_SECOND, Height
from rpc.jsontext import RawJson, array, hex_text

BLOOM_BITS: Final = 2_048
BLOOM_VALUES_CACHED_MAX: Final = 16_384  # about 400 bytes each

_FULL_BLOOM: Final = (1 << BLOOM_BITS) - 1
# Keccak-256 of an empty RLP list: the uncles this chain does not have.
_NO_UNCLES: Final = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"
_ZERO_32: Final = "0x" + "00" * 32


@lru_cache(BLOOM_VALUES_CACHED_MAX)
def bloom_bits(value: bytes) -> int:
    """The three bits that an address or a topic sets in a logs bloom (Yellow Paper, 4.3.1)."""
    digest = keccak(value)
    bits = 0
    for at in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") % BLOOM_BITS)
    return bits


def bloom_of(logs: Iterable[Log]) -> int:
    """The bloom of these logs. It stops once every bit is set, as more cannot be."""
    bloom = 0
    for value in {value for log in logs for value in (log.address, *log.topics)}:
        bloom |= bloom_bits(value)
        if bloom == _FULL_BLOOM:
            break
    return bloom


def _bloom_hex(bloom: int) -> str:
    return f"0x{bloom:0512x}"


class BlockView:
    """A final block with what its JSON needs and the block itself does not hold."""

    __slots__ = (
        "_bloom",
        "_cumulative_gas",
        "_first_log",
        "_head",
        "_place",
        "chain",
        "final",
        "hash",
        "height",
        "number",
    )

    def __init__(self, final: FinalBlock, chain: ChainParameters) -> None:
        header = final.block.header
        self.final = final
        self.chain = chain
        self.height: Height = header.height
        self.hash = f"0x{final.hash.hex()}"
        self.number = hex(header.height)
        timestamp = hex(header.timestamp_ms // MS_PER_SECOND)  # floor: Ethereum counts whole seconds
        self._place = (
            f'"blockHash":"{self.hash}","blockNumber":"{self.number}","blockTimestamp":"{timestamp}"'
        )
        self._bloom: int | None = None
        self._head: RawJson | None = None
        self._cumulative_gas: list[int] | None = None
        self._first_log: list[int] = []

    @property
    def count(self) -> int:
        return len(self.final.block.transactions)

    @property
    def bloom(self) -> int:
        if self._bloom is None:
            self._bloom = bloom_of(log for receipt in self.final.receipts for log in receipt.logs)
        return self._bloom

    def _sums(self) -> tuple[list[int], list[int]]:
        """After each transaction the gas used so far; before each the logs so far."""
        if self._cumulative_gas is None:
            receipts = self.final.receipts
            self._cumulative_gas = list(accumulate(receipt.gas_used for receipt in receipts))
            self._first_log = list(accumulate((len(receipt.logs) for receipt in receipts), initial=0))
        return self._cumulative_gas, self._first_log

    def signed(self, index: int) -> Signed:
        raw = self.final.block.transactions[index]
        return Signed(decode_included(raw, self.chain.chain_id), self.final.senders[index])

    def hashes(self) -> RawJson:
        """The transactions' hashes, as a JSON array."""
        return array(map(hex_text, self.final.transaction_hashes))

    def header(self) -> RawJson:
        """The header's members, as `newHeads` tells them."""
        if self._head is None:
            self._head = RawJson("{" + self._header_members() + "}")
        return self._head

    def block(self, transactions: str) -> RawJson:
        """The block with this JSON array of its transactions."""
        return RawJson(f'{{{self._header_members()},"transactions":{transactions},"uncles":[]}}')

    def _header_members(self) -> str:
        header = self.final.block.header
        return (
            f'"number":"{self.number}","hash":"{self.hash}","parentHash":"0x{header.parent_hash.hex()}",'
            f'"nonce":"0x0000000000000000","sha3Uncles":"{_NO_UNCLES}","logsBloom":"{_bloom_hex(self.bloom)}",'
            f'"transactionsRoot":"0x{header.transactions_root.hex()}","stateRoot":"0x{header.state_root.hex()}",'
            f'"receiptsRoot":"0x{header.receipts_root.hex()}","miner":"0x{header.proposer.hex()}",'
            f'"difficulty":"0x0","totalDifficulty":"0x0","extraData":"0x",'
            f'"size":"{hex(len(self.final.block.encode()))}","gasLimit":"{hex(self.chain.block_gas_limit)}",'
            f'"gasUsed":"{hex(header.gas_used)}","timestamp":"{hex(header.timestamp_ms // MS_PER_SECOND)}",'
            f'"timestampMilliseconds":"{hex(header.timestamp_ms)}","mixHash":"{_ZERO_32}",'
            f'"baseFeePerGas":"{hex(self.chain.minimum_gas_price_wei)}","view":"{hex(header.view)}"'
        )

    def transaction(self, index: int) -> RawJson:
        place = f'{self._place},"transactionIndex":"{hex(index)}"'
        signed = self.signed(index)
        return _transaction(signed, self._gas_price(signed), place)

    def receipt(self, index: int) -> RawJson:
        """The receipt; its members are exactly those of the execution APIs, whose schema is closed."""
        receipt = self.final.receipts[index]
        signed = self.signed(index)
        transaction, sender = signed
        cumulative_gas, first_log = self._sums()
        transaction_hash, place = transaction.hash.hex(), f'"transactionIndex":"{hex(index)}"'
        return RawJson(
            f'{{"transactionHash":"0x{transaction_hash}",{place},"blockHash":"{self.hash}",'
            f'"blockNumber":"{self.number}","from":"0x{sender.hex()}","to":"0x{transaction.to.hex()}",'
            f'"cumulativeGasUsed":"{hex(cumulative_gas[index])}","gasUsed":"{hex(receipt.gas_used)}",'
            f'"effectiveGasPrice":"{hex(self._gas_price(signed))}","contractAddress":null,'
            f'"logs":{array(self._logs(index, first_log[index]))},"logsBloom":"{_bloom_hex(bloom_of(receipt.logs))}",'
            f'"status":"{"0x1" if receipt.succeeded else "0x0"}","type":"{hex(transaction.type)}"}}'
        )

    def _gas_price(self, signed: Signed) -> int:
        """What a unit of its gas cost."""
        return 0 if signed.transaction.type == SYSTEM else self.chain.minimum_gas_price_wei

    def _logs(self, index: int, first: int) -> list[str]:
        return [self.log(index, log, first + at) for at, log in enumerate(self.final.receipts[index].logs)]

    def log(self, index: int, log: Log, log_index: int) -> RawJson:
        """One log of transaction `index`; `log_index` counts through the block."""
        return RawJson(
            f'{{"address":"0x{log.address.hex()}","topics":{array(map(hex_text, log.topics))},'
            f'"data":"0x{log.data.hex()}",{self._place},'
            f'"transactionHash":"0x{self.final.transaction_hashes[index].hex()}",'
            f'"transactionIndex":"{hex(index)}","logIndex":"{hex(log_index)}","removed":false}}'
        )


def pending_transaction(signed: Signed) -> RawJson:
    """A transaction that is in no block yet: where it stands is null."""
    place = '"blockHash":null,"blockNumber":null,"blockTimestamp":null,"transactionIndex":null'
    return _transaction(signed, signed.transaction.gas_price, place)


def _transaction(signed: Signed, gas_price: int, place: str) -> RawJson:
    """`gas_price`: what was charged for a unit of gas, while pending what is offered at most."""
    transaction, sender = signed
    if transaction.type == LEGACY:
        gas_price = transaction.gas_price
    return RawJson(
        f'{{"hash":"0x{transaction.hash.hex()}","type":"{hex(transaction.type)}",'
        f'"nonce":"{hex(transaction.nonce)}","gas":"{hex(transaction.gas_limit)}",'
        f'"from":"0x{sender.hex()}","to":"0x{transaction.to.hex()}","value":"{hex(transaction.value)}",'
        f'"input":"0x{transaction.data.hex()}","chainId":"{hex(transaction.chain_id)}",'
        f'"gasPrice":"{hex(gas_price)}",{_typed_members(transaction)}"v":"{hex(signature_v(transaction))}",'
        f'"r":"{hex(transaction.r)}","s":"{hex(transaction.s)}",{place}}}'
    )


def _typed_members(transaction: Transaction) -> str:
    """What types 1 and 2 have and type 0 does not."""
    members = ""
    if transaction.type == DYNAMIC_FEE:
        members += (
            f'"maxFeePerGas":"{hex(transaction.max_fee)}",'
            f'"maxPriorityFeePerGas":"{hex(transaction.max_priority_fee)}",'
        )
    if transaction.type in (ACCESS_LIST, DYNAMIC_FEE):
        members += (
            f'"accessList":{array(map(_access_entry, transaction.access_list))},'
            f'"yParity":"{hex(transaction.y_parity)}",'
        )
    return members


def _access_entry(entry: tuple[bytes, tuple[bytes, ...]]) -> str:
    address, keys = entry
    return f'{{"address":"0x{address.hex()}","storageKeys":{array(map(hex_text, keys))}}}'
