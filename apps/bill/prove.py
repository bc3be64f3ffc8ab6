"""Gathers what proves a bill: a prosumer's totals at two blocks, and between them every transaction that counted.

`check.py` is the other side; docs/BILL.md says what is proven and what is not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from apps.bill.check import MARK_FORMAT, PROOF_FORMAT, Trusted
from apps.bill.collect import (
    BATCH,
    Found,
    HistoryMissing,
    NoBill,
    Span,
    UnknownProsumer,
    check_history,
    in_batches,
)
from apps.bill.period import Period
from apps.client import Client, RpcError
from ctt_state.light import decode_header
from ctt_state.modules.ctt.energy import CLOCK_AHEAD_MAX_MS
from ctt_state.records import Prosumer, Reading
from ctt_state.units import Address, Height, hex_of
from ctt_state.validators import boundary_of, epoch_of

Json = dict[str, Any]


class NotACheckpoint(NoBill):
    """A proof cannot begin at this block."""


class Mark(NamedTuple):
    """A prosumer's totals after a block, with their proof."""

    prosumer: Address
    height: int
    time_ms: int
    document: Json

    @property
    def totals(self) -> Prosumer:
        """Zero for a prosumer that the chain did not know yet."""
        value = self.document["records"][0]["value"]
        return Prosumer() if value is None else Prosumer.decode(bytes.fromhex(value[2:]))


async def take_mark(client: Client, prosumer: Address) -> Mark:
    """Of the newest block with a certificate. Raises: UnknownProsumer."""
    known = await client.call("ctt_prosumer", hex_of(prosumer))
    if known is None:
        raise UnknownProsumer(f"the chain has no prosumer {hex_of(prosumer)}")
    keys = [hex_of(Prosumer.key(prosumer))]
    if known["meter"] is not None:
        keys.append(hex_of(Reading.key(Address(bytes.fromhex(known["meter"][2:])), prosumer)))
    return _mark(await client.call("ctt_getProof", keys, "latest"))


def _mark(proof: Json) -> Mark:
    finality = _finality(proof["finality"])
    return read_mark({"format": MARK_FORMAT, "finality": finality, "records": proof["records"]})


def read_mark(document: Json) -> Mark:
    """A mark that was written before; whether it holds is for `check.py`. Raises: ValueError, LookupError,
    TypeError."""
    if document["format"] != MARK_FORMAT:
        raise ValueError(f"not of the format {MARK_FORMAT}")
    header = decode_header(bytes.fromhex(document["finality"]["header"][2:]))
    key = bytes.fromhex(document["records"][0]["key"][2:])
    return Mark(Address(key[1:]), header.height, header.timestamp_ms, document)


def choose_opening(marks: Sequence[Mark], period: Period) -> Mark | None:
    """The last mark that was taken before any reading of the period could come; None stands for genesis."""
    latest_ms = period.start_ms - CLOCK_AHEAD_MAX_MS
    return max(
        (mark for mark in marks if mark.time_ms <= latest_ms), default=None, key=lambda mark: mark.height
    )


def choose_closing(marks: Sequence[Mark], period: Period) -> Mark | None:
    """The first mark that was taken after the period, if any."""
    return min(
        (mark for mark in marks if mark.time_ms >= period.end_ms), default=None, key=lambda mark: mark.height
    )


def check_begins_before(opening: Mark | None, trusted: Trusted) -> None:
    """Whether the proof's opening lies where its way begins, or after. Raises: NotACheckpoint."""
    height = 0 if opening is None else opening.height
    if height <= trusted.height:
        raise NotACheckpoint(
            f"the totals of the opening are those of block {height}: the checkpoint has to be below it, or a mark from "
            f"after block {trusted.height} and before the period given (--mark)"
        )


async def check_whole(client: Client, span: Span, period: Period) -> None:
    """Whether the node has all that a proof needs. Raises: HistoryMissing."""
    try:
        await check_history(client, span.opening + 1, period)
    except HistoryMissing as fault:
        raise HistoryMissing(
            f"{fault}; or a proof may begin at a mark from before the period (--mark)"
        ) from None


async def prove_transactions(client: Client, found: Sequence[Found]) -> list[Json]:
    """Each transaction and its receipt, with their branches and what makes their block final."""
    proven: list[Json] = []
    async for _, answers in in_batches(client, found, ("ctt_getReceiptProof",)):
        for (answer,) in answers:
            proven.append(answer | {"finality": _finality(answer["finality"])})
    return proven


async def prove_checkpoint(client: Client, trusted: Trusted) -> Json:
    """The header of the block to begin at, and the set of validators that it names. Raises: NotACheckpoint."""
    finality = await client.call("ctt_finalityCertificate", hex(trusted.height))
    if finality is None or finality["blockHash"] != hex_of(trusted.block_hash):
        raise NotACheckpoint(f"{client.url} has no block {trusted}")
    epoch = await client.call("ctt_validators", hex(trusted.height))
    if trusted.height != epoch["lastHeight"]:
        raise NotACheckpoint(
            f"block {trusted.height} is not the last of its epoch: block {epoch['lastHeight']} is"
        )
    return {"header": finality["header"], "members": _members(epoch["next"])}


async def prove_epochs(client: Client, start: int, closing: int) -> list[Json]:
    """Of each epoch after block `start`, which is genesis or ends one, up to that of the closing block: its last block,
    and the set that it names where that changes."""
    epoch = await client.call("ctt_validators", hex(closing))
    epoch_blocks = epoch["lastHeight"] - epoch["firstHeight"] + 1
    between = range(epoch_of(Height(start + 1), epoch_blocks), epoch_of(closing, epoch_blocks))
    last = [boundary_of(each, epoch_blocks) for each in between]
    epochs: list[Json] = []
    for start in range(0, len(last), BATCH):
        heights = last[start : start + BATCH]
        for height, finality in zip(
            heights,
            await client.batch([("ctt_finalityCertificate", [hex(height)]) for height in heights]),
            strict=True,
        ):
            if isinstance(finality, RpcError):
                raise finality
            header = decode_header(bytes.fromhex(finality["header"][2:]))
            members = None
            if header.next_validators_hash != header.validators_hash:
                following = (await client.call("ctt_validators", hex(height)))["next"]
                members = _members(following)
            epochs.append(_certified(finality) | {"members": members})
    return epochs


def _members(members: Json) -> list[list[str]]:
    return [[each["address"], each["consensusKey"]] for each in members["validators"]]


def proof_document(
    bill: Json,
    tariff: Json,
    *,
    checkpoint: Json | None,
    opening: Mark | None,
    closing: Mark,
    epochs: list[Json],
    transactions: list[Json],
) -> Json:
    """The proof file: the bill in it is made of the proven readings alone, without background."""
    return {
        "format": PROOF_FORMAT,
        "bill": bill,
        "tariff": tariff,
        "checkpoint": checkpoint,
        "opening": None if opening is None else opening.document,
        "closing": closing.document,
        "epochs": epochs,
        "transactions": transactions,
    }


def _certified(finality: Json) -> Json:
    return {"header": finality["header"], "certificate": finality["certificate"]}


def _finality(finality: Json) -> Json:
    """What a node says of a block's finality, without what can be worked out from it."""
    return _certified(finality) | {"descendants": finality["descendants"]}
