"""Checks a proof file offline: nothing in it is believed, and the genesis document alone says which chain it is.

The way: epoch by epoch from genesis to the closing block; the prosumer's totals at the opening and at the closing
block, by state proofs; every transaction shown, by its branches. What all these readings sum to is what the totals
grew by, so none is missing. Then the bill is made anew from them and compared, line by line.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar

from apps.bill.bill import Account, Bill, document_of, make_bill
from apps.bill.exact import text_of
from apps.bill.period import InvalidPeriod, Period, local_time
from apps.bill.readings import Place, Reading, Unexplained, readings_of
from apps.bill.tariff import InvalidTariff, Tariff, read_tariff
from ctt_state import records
from ctt_state.block import Header, Receipt
from ctt_state.crypto import sha256
from ctt_state.document import MalformedJson, canonical_json, parse_json
from ctt_state.errors import InvalidTransaction
from ctt_state.genesis import Genesis, genesis_block, genesis_records
from ctt_state.light import (
    ChainRules,
    Checkpoint,
    LightClient,
    LightRejected,
    check_receipt,
    check_record,
    check_transaction,
    decode_header,
    genesis_checkpoint,
)
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.energy import CLOCK_AHEAD_MAX_MS
from ctt_state.records import Prosumer
from ctt_state.transaction import decode_transaction
from ctt_state.tree import update
from ctt_state.units import Address, hex_of
from ctt_state.validators import Member, ValidatorSet, boundary_of
from ctt_state.votes import Certificate, MalformedVote

PROOF_FORMAT: Final = "ctt-bill-proof/1"
MARK_FORMAT: Final = "ctt-bill-mark/1"
TOTALS: Final = ("produced_wh", "stored_wh", "consumed_wh", "covered_wh")
VALUE_CHARS_MAX: Final = 60  # of a wrong value, in the line that refuses it
PROOF_BYTES_MAX: Final = 1 << 28  # unpacked
GZIP_MAGIC: Final = b"\x1f\x8b"
GZIP_WINDOW: Final = 31  # zlib's number for a gzip header and the largest window

T = TypeVar("T")


class Unproven(ValueError):
    """The first thing in the file that is not proven or not equal, and why."""

    def __init__(self, where: str, text: object) -> None:
        super().__init__(f"{where}: {text}")


class Proven(NamedTuple):
    """A bill that holds, and what it rests on."""

    bill: Bill
    opening: int  # the block of the first totals; 0 is genesis
    closing: int
    counted: int  # readings between these blocks, also of other periods
    reported_until_ms: int  # by the meter, at the closing block; 0: it has never shown registers

    @property
    def is_settled(self) -> bool:
        """Whether the meter has reported beyond the period, after which no report can fall into it any more."""
        return self.reported_until_ms >= self.bill.period.end_ms


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the file and where it stands."""

    value: Any
    path: str = "$"

    def __getitem__(self, name: str) -> "Field":
        """Raises: Unproven."""
        if not isinstance(self.value, dict) or name not in self.value:
            raise Unproven(f"{self.path}.{name}", "missing")
        return Field(self.value[name], f"{self.path}.{name}")

    def items(self) -> "Iterator[Field]":
        for number, item in enumerate(self.as_(list)):
            yield Field(item, f"{self.path}[{number}]")

    def as_(self, kind: type[T]) -> T:
        """Raises: Unproven."""
        if type(self.value) is not kind:
            raise self.fault(f"expected {kind.__name__}")
        return self.value

    def hexadecimal(self) -> bytes:
        text = self.as_(str)
        try:
            data = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            raise self.fault("expected 0x and hexadecimal digits") from None
        if hex_of(data) != text:
            raise self.fault("expected 0x and small hexadecimal digits")
        return data

    def day(self) -> date:
        try:
            return date.fromisoformat(self.as_(str))
        except ValueError:
            raise self.fault("expected a date") from None

    def fault(self, text: str) -> Unproven:
        return Unproven(self.path, f"{self.value!a:.{VALUE_CHARS_MAX}}: {text}")


class Trusted(NamedTuple):
    """The last block of an epoch, from which on a proof may go instead of from genesis."""

    height: int
    block_hash: bytes

    def __str__(self) -> str:
        return f"{self.height}:{hex_of(self.block_hash)}"


def check_proof(
    data: bytes, genesis: Genesis, *, tariff: Tariff | None = None, trusted: Trusted | None = None
) -> Proven:
    """Whether the bill in the file, JSON or gzip of it, is that of the chain of this genesis; with a tariff, whether it
    is by this one. A proof that begins at a checkpoint holds only if that is trusted.

    Raises: Unproven.
    """
    try:
        root = Field(parse_json(_unpack(data), PROOF_BYTES_MAX))
    except MalformedJson as fault:
        raise Unproven("$", fault) from None
    if root["format"].value != PROOF_FORMAT:
        raise root["format"].fault(f"expected {PROOF_FORMAT}")
    used = _tariff(root["tariff"], tariff)
    bill = root["bill"]
    prosumer = _address(bill["prosumer"])
    period = _period(bill["period"], used)
    account = Account(bill["account"]["name"].as_(str), bill["account"]["number"].as_(str))

    chain = _Chain(genesis, _start(genesis, root["checkpoint"], trusted), root["epochs"])
    before, opening = _opening(chain, root["opening"], prosumer, period)
    readings = _readings(chain, root["transactions"], prosumer, opening)
    after, closing, until_ms = _closing(chain, root["closing"], prosumer, period)
    chain.check_used()
    check_complete(readings, before, after, opening, closing)
    for reading in readings:
        if reading.place.height > closing:
            raise Unproven(
                root["transactions"].path, f"block {reading.place.height} is above block {closing}"
            )

    made = make_bill(used, period, prosumer, readings, as_of_block=closing, account=account)
    _check_equal(bill.value, document_of(made))
    return Proven(made, opening, closing, len(readings), until_ms)


class _Chain:
    """A light client that takes the epochs of the file as it needs them."""

    def __init__(self, genesis: Genesis, start: Checkpoint, epochs: Field) -> None:
        self.genesis = genesis
        self._client = LightClient(_rules(genesis), start)
        self._path = epochs.path
        self._epochs = epochs.items()

    def accept(self, finality: Field) -> Header:
        """The header that this makes final. Headers come in the order of the chain. Raises: Unproven."""
        header = _header(finality["header"])
        while self._client.epoch < header.epoch:
            self._advance()
        descendants = [_header(each) for each in finality["descendants"].items()]
        try:
            self._client.accept(header, _certificate(finality["certificate"]), descendants)
        except LightRejected as fault:
            raise Unproven(finality.path, fault) from None
        return header

    def check_used(self) -> None:
        """Whether no epoch is left over. Raises: Unproven."""
        for epoch in self._epochs:
            raise Unproven(epoch.path, "an epoch beyond the closing block")

    def _advance(self) -> None:
        epoch = next(self._epochs, None)
        if epoch is None:
            raise Unproven(self._path, f"epoch {self._client.epoch} is missing")
        members = epoch["members"]
        following = self._client.validators if members.value is None else _set(members)
        try:
            self._client.advance(_header(epoch["header"]), _certificate(epoch["certificate"]), following)
        except LightRejected as fault:
            raise Unproven(epoch.path, fault) from None


def _rules(genesis: Genesis) -> ChainRules:
    return ChainRules(genesis.hash, genesis.epoch_blocks, genesis.parameters.block_period_ms)


def _start(genesis: Genesis, given: Field, trusted: Trusted | None) -> Checkpoint:
    """Block 0, or the checkpoint of the file if it is the one that is trusted."""
    if given.value is None:
        leaves = [(sha256(key), sha256(record.encode())) for key, record in genesis_records(genesis)]
        root, _ = update(lambda _: None, leaves)
        return genesis_checkpoint(_rules(genesis), genesis_block(genesis, root).header, genesis.validator_set)
    header, members = _header(given["header"]), _set(given["members"])
    found = Trusted(header.height, header.hash)
    if found != trusted:
        raise Unproven(
            given.path, f"the proof begins at block {found}; trusted is {trusted or 'genesis alone'}"
        )
    if header.height != boundary_of(header.epoch, genesis.epoch_blocks):
        raise Unproven(given.path, f"block {header.height} is not the last of its epoch")
    if members.hash != header.next_validators_hash:
        raise Unproven(given["members"].path, "not the set that the block names")
    return Checkpoint(header.height, header.hash, members)


# --- what is proven ------------------------------------------------------------------------------------------------


def _opening(chain: _Chain, mark: Field, prosumer: Address, period: Period) -> tuple[Prosumer, int]:
    """The totals from which on all readings are shown, and their block."""
    if mark.value is None:
        born = {
            key: record for key, record in genesis_records(chain.genesis) if key == Prosumer.key(prosumer)
        }
        found = born.get(Prosumer.key(prosumer), Prosumer())
        return (found, 0) if isinstance(found, Prosumer) else (Prosumer(), 0)
    header, held = _mark(chain, mark)
    if header.timestamp_ms > period.start_ms - CLOCK_AHEAD_MAX_MS:
        raise Unproven(mark.path, f"block {header.height} may already hold readings of the period")
    return _record(mark, held, Prosumer, Prosumer.key(prosumer)) or Prosumer(), header.height


def _closing(chain: _Chain, mark: Field, prosumer: Address, period: Period) -> tuple[Prosumer, int, int]:
    """The totals up to which all readings are shown, their block, and up to when the meter had reported then."""
    header, held = _mark(chain, mark)
    if header.timestamp_ms < period.end_ms:
        raise Unproven(mark.path, f"block {header.height} is from before the end of the period")
    owner = _record(mark, held, Prosumer, Prosumer.key(prosumer))
    if owner is None:
        raise Unproven(mark.path, f"block {header.height} knows no prosumer {hex_of(prosumer)}")
    key = records.Reading.key(owner.meter, prosumer)
    last = _record(mark, held, records.Reading, key) if key in held else None
    return owner, header.height, last.time_ms if last else 0


def _mark(chain: _Chain, mark: Field) -> tuple[Header, dict[bytes, bytes | None]]:
    """The block of a mark, and the records that it proves there."""
    if mark["format"].value != MARK_FORMAT:
        raise mark["format"].fault(f"expected {MARK_FORMAT}")
    header = chain.accept(mark["finality"])
    held: dict[bytes, bytes | None] = {}
    for item in mark["records"].items():
        key = item["key"].hexadecimal()
        value = None if item["value"].value is None else item["value"].hexadecimal()
        try:
            check_record(header, key, value, [node.hexadecimal() for node in item["proof"].items()])
        except LightRejected as fault:
            raise Unproven(item.path, fault) from None
        held[key] = value
    return header, held


R = TypeVar("R", bound=records.Record)


def _record(mark: Field, held: dict[bytes, bytes | None], kind: type[R], key: bytes) -> R | None:
    if key not in held:
        raise Unproven(mark["records"].path, f"record {hex_of(key)} is missing")
    value = held[key]
    return None if value is None else kind.decode(value)


def _readings(chain: _Chain, transactions: Field, prosumer: Address, opening: int) -> list[Reading]:
    """Those of each transaction, which is shown once and lies above the opening block."""
    readings: list[Reading] = []
    seen = set()
    for item in transactions.items():
        header = chain.accept(item["finality"])
        if header.height <= opening:
            raise Unproven(item.path, f"block {header.height} is not above block {opening}")
        raw, found = _readings_of(chain, header, item, prosumer)
        if raw in seen:
            raise Unproven(item.path, "a transaction that was shown before")
        seen.add(raw)
        readings += found
    return readings


def _readings_of(
    chain: _Chain, header: Header, item: Field, prosumer: Address
) -> tuple[bytes, list[Reading]]:
    raw, encoded = item["transaction"].hexadecimal(), item["receipt"].hexadecimal()
    index, count = item["index"].as_(int), item["count"].as_(int)
    try:
        check_transaction(header, raw, index, count, _branch(item["transactionBranch"]))
        check_receipt(header, encoded, index, count, _branch(item["receiptBranch"]))
        sent = decode_transaction(raw, chain.genesis.parameters.chain_id)
        place = Place(header.height, index)
        logs = Receipt.decode(encoded).logs if sent.to == CTT.address else ()
        return raw, readings_of(prosumer, sent.data, logs, place, header.timestamp_ms)
    except (LightRejected, InvalidTransaction, Unexplained) as fault:
        raise Unproven(item.path, fault) from None


def check_complete(
    readings: list[Reading], before: Prosumer, after: Prosumer, opening: int, closing: int
) -> None:
    """Whether the readings shown are all there are between the two blocks: each of the prosumer's four totals only
    ever grows by readings. Raises: Unproven."""
    for name in TOTALS:
        shown = sum(getattr(reading, name) for reading in readings)
        grown = getattr(after, name) - getattr(before, name)
        if shown != grown:
            what = name.removesuffix("_wh")
            raise Unproven(
                "$.transactions",
                f"the {len(readings)} readings shown have {shown} Wh {what}, between blocks {opening} and {closing} "
                f"the chain counted {grown} Wh: {'one is missing' if shown < grown else 'one is too many'}",
            )


# --- what is equal -------------------------------------------------------------------------------------------------


def _check_equal(told: Any, proven: dict[str, Any]) -> None:
    """Raises: Unproven with the first line that differs, or else the first member."""
    lines = told.get("lines")
    for number, line in enumerate(proven["lines"]):
        given = lines[number] if isinstance(lines, list) and number < len(lines) else None
        if not _is_same(given, line):
            raise Unproven(f"line {number + 1}, {line['name']}", _difference(given, line))
    if len(lines) != len(proven["lines"]):
        raise Unproven(f"line {len(proven['lines']) + 1}", "nothing proves it")
    for name, value in proven.items():
        if not _is_same(told.get(name), value):
            raise Unproven(name, _difference(told.get(name), value))
    for name in told:
        if name not in proven:
            raise Unproven(_short(name), "nothing proves it")


def _difference(given: Any, proven: Any) -> str:
    """Of two members that differ, the first part that does."""
    if isinstance(given, dict) and isinstance(proven, dict):
        for name, value in proven.items():
            if not _is_same(given.get(name), value):
                return f"{name}: {_difference(given.get(name), value)}"
        return f"{_short(next(name for name in given if name not in proven))}: nothing proves it"
    if isinstance(given, list) and isinstance(proven, list):
        for number, value in enumerate(proven):
            if number >= len(given) or not _is_same(given[number], value):
                return f"number {number + 1}: {_difference(given[number] if number < len(given) else None, value)}"
        return f"{len(given)} items, {len(proven)} are proven"
    return f"the bill says {_short(given)}, proven is {_short(proven)}"


def _is_same(given: Any, proven: Any) -> bool:
    """As JSON: 1 is not true."""
    return canonical_json(given) == canonical_json(proven)


def _short(value: Any) -> str:
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value[:VALUE_CHARS_MAX]
    return "nothing" if value is None else f"{value!a:.{VALUE_CHARS_MAX}}"


# --- how it is read ------------------------------------------------------------------------------------------------


def _unpack(data: bytes) -> bytes:
    """What is in a gzip file; other bytes as they are."""
    if not data.startswith(GZIP_MAGIC):
        return data
    unpacking = zlib.decompressobj(GZIP_WINDOW)
    try:
        text = unpacking.decompress(data, PROOF_BYTES_MAX)
    except zlib.error as fault:
        raise Unproven("$", f"not gzip: {fault}") from None
    if not unpacking.eof:
        cause = f"more than {PROOF_BYTES_MAX:,} bytes" if unpacking.unconsumed_tail else "the end is missing"
        raise Unproven("$", f"gzip: {cause}")
    return text


def _tariff(given: Field, expected: Tariff | None) -> Tariff:
    try:
        tariff = read_tariff(given.value)
    except InvalidTariff as fault:
        raise Unproven(given.path, fault) from None
    if expected is not None and expected.digest != tariff.digest:
        raise Unproven(given.path, f"tariff {tariff.digest}; the one given is {expected.digest}")
    return tariff


def _period(given: Field, tariff: Tariff) -> Period:
    try:
        return Period.between(given["from"].day(), given["to"].day(), tariff.zone)
    except InvalidPeriod as fault:
        raise Unproven(given.path, fault) from None


def _address(field: Field) -> Address:
    data = field.hexadecimal()
    if len(data) != 20:
        raise field.fault("expected 20 bytes")
    return Address(data)


def _header(field: Field) -> Header:
    try:
        return decode_header(field.hexadecimal())
    except LightRejected as fault:
        raise Unproven(field.path, fault) from None


def _certificate(field: Field) -> Certificate:
    try:
        return Certificate.decode(field.hexadecimal())
    except MalformedVote as fault:
        raise Unproven(field.path, fault) from None


def _set(members: Field) -> ValidatorSet:
    pairs = [list(member.items()) for member in members.items()]
    if any(len(pair) != 2 for pair in pairs):
        raise members.fault("expected pairs of an address and a key")
    return ValidatorSet(tuple([Member(_address(address), key.hexadecimal()) for address, key in pairs]))


def _branch(field: Field) -> list[bytes]:
    return [node.hexadecimal() for node in field.items()]


def show_proven(proven: Proven) -> str:
    """What was proven, in words."""
    bill = proven.bill
    lines = [
        (
            f"proven: {text_of(bill.total_due)} {bill.tariff.currency} due from {hex_of(bill.prosumer)} "
            f"for {bill.period.first} to {bill.period.end}"
        ),
        (
            f"readings: {len(bill.readings)} of the period among {proven.counted}, all there are in blocks "
            f"{proven.opening + 1} to {proven.closing}"
        ),
        f"tariff: {bill.tariff.name}, {bill.tariff.digest}",
    ]
    if not proven.is_settled:
        lines.append(f"the meter has reported {_until(proven)}: readings of the period may still come")
    return "\n".join(lines)


def _until(proven: Proven) -> str:
    if not proven.reported_until_ms:
        return "no registers"
    return f"up to {local_time(proven.reported_until_ms, proven.bill.period.zone):%Y-%m-%d %H:%M %Z}"
