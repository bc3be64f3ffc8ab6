"""Readings and purchases of a prosumer as a node tells them by JSON-RPC. Believes the node; `check.py` does not."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple

from apps.bill.bill import Purchase
from apps.bill.period import Period, local_time
from apps.bill.readings import Place, Reading, readings_of
from apps.client import Client, RpcError, decode_log
from ctt_state.block import Log
from ctt_state.modules.ctt.energy import CLOCK_AHEAD_MAX_MS
from ctt_state.modules.market import MARKET
from ctt_state.modules.market.module import PartnerTraded, Traded
from ctt_state.units import Address, hex_of

BATCH: Final = 20  # requests sent at once
LOGS_BLOCKS_MAX: Final = 1_000  # that a node searches at once

Tell = Callable[[int, int], object]  # how much is done, and of how much


class NoBill(Exception):
    """There is no bill to be made: why, in one line."""


class PeriodNotOver(NoBill):
    """Readings of the period are still to come."""


class UnknownProsumer(NoBill):
    """The chain has no such prosumer."""


class HistoryMissing(NoBill):
    """The node does not have the blocks in which the period's readings may be."""


class Span(NamedTuple):
    """The blocks in which a period's readings are looked for: those after `opening`, up to `closing`."""

    opening: int
    closing: int


class Found(NamedTuple):
    """A transaction that brought readings."""

    hash: str
    height: int
    block_time_ms: int


async def span_of(client: Client, prosumer: Address, period: Period) -> Span:
    """From the last block that can hold no reading of the period to the newest: a reading may be a minute ahead of its
    block, and late by any time. Raises: PeriodNotOver, UnknownProsumer, HistoryMissing."""
    newest = await client.call("eth_getBlockByNumber", "latest", False)
    check_over(int(newest["timestampMilliseconds"], 16), period)
    before = {"timeMs": period.start_ms - CLOCK_AHEAD_MAX_MS}
    page = await client.call("ctt_readings", hex_of(prosumer), before, before)
    if page is None:
        raise UnknownProsumer(f"the chain has no prosumer {hex_of(prosumer)}")
    opening = max(page["to"], 0)
    await check_history(client, max(opening, 1), period)
    return Span(opening, int(newest["number"], 16))


def check_over(block_time_ms: int, period: Period) -> None:
    """Whether the period had ended by this block. Raises: PeriodNotOver."""
    if block_time_ms < period.end_ms:
        raise PeriodNotOver(
            f"the period ends {_show(period.end_ms, period)}, the newest block is of {_show(block_time_ms, period)}"
        )


async def check_history(client: Client, needed: int, period: Period) -> None:
    """Whether the node has all blocks from this one on. Raises: HistoryMissing."""
    oldest = int((await client.call("eth_capabilities"))["blocks"]["oldestBlock"], 16)
    if oldest <= needed:
        return
    first = await client.call("eth_getBlockByNumber", hex(oldest), False)
    first_ms = int(first["timestampMilliseconds"], 16)
    raise HistoryMissing(
        f"the first block at {client.url} is {oldest}, of {_show(first_ms, period)}; the period needs those from "
        f"{_show(period.start_ms, period)} on: ask a node that has the whole chain (--rpc), or its index "
        "(--database)"
    )


async def find_transactions(client: Client, prosumer: Address, span: Span, tell: Tell) -> list[Found]:
    """Those that brought readings of the prosumer, in the order of the chain, each once."""
    found: dict[str, Found] = {}
    height: int | None = span.opening + 1
    while height is not None and height <= span.closing:
        tell(height - span.opening, span.closing - span.opening)
        page = await client.call("ctt_readings", hex_of(prosumer), hex(height), hex(span.closing))
        for each in page["readings"]:
            transaction = Found(each["transactionHash"], each["height"], each["timeMs"])
            found.setdefault(transaction.hash, transaction)
        height = page["next"]
    return list(found.values())


async def read_transactions(
    client: Client, prosumer: Address, found: Sequence[Found], tell: Tell
) -> list[Reading]:
    """The readings that these transactions brought. Raises: Unexplained."""
    readings: list[Reading] = []
    done = 0
    async for part, answers in in_batches(
        client, found, ("eth_getTransactionByHash", "eth_getTransactionReceipt")
    ):
        done += len(part)
        tell(done, len(found))
        for each, (sent, receipt) in zip(part, answers, strict=True):
            place = Place(each.height, int(receipt["transactionIndex"], 16))
            logs = [_log(log) for log in receipt["logs"]]
            readings += readings_of(prosumer, _bytes(sent["input"]), logs, place, each.block_time_ms)
    return readings


async def find_purchases(client: Client, prosumer: Address, span: Span) -> list[Purchase]:
    """What the prosumer bought in the auction, without the grid fee."""
    topics = [[hex_of(event.topic) for event in (Traded, PartnerTraded)], hex_of(bytes(12) + prosumer)]
    purchases = []
    for first in range(span.opening + 1, span.closing + 1, LOGS_BLOCKS_MAX):
        last = min(first + LOGS_BLOCKS_MAX - 1, span.closing)
        query = {
            "address": hex_of(MARKET.address),
            "topics": topics,
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        for log in await client.call("eth_getLogs", query):
            _, told = decode_log(MARKET, log) or ("", {})
            block = await client.call("eth_getBlockByNumber", log["blockNumber"], False)
            time_ms = int(block["timestampMilliseconds"], 16)
            purchases.append(Purchase(time_ms, told["energy"], told["energy"] * told["price"]))
    return purchases


async def in_batches(
    client: Client, found: Sequence[Found], methods: tuple[str, ...]
) -> AsyncIterator[tuple[Sequence[Found], list[tuple[Any, ...]]]]:
    """Some of the transactions at a time, each with the answers to these methods. Raises: RpcError."""
    for start in range(0, len(found), BATCH):
        part = found[start : start + BATCH]
        answers = await client.batch([(method, [each.hash]) for each in part for method in methods])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        yield part, list(zip(*[iter(answers)] * len(methods), strict=True))


def _show(time_ms: int, period: Period) -> str:
    return f"{local_time(time_ms, period.zone):%Y-%m-%d %H:%M %Z}"


def _log(log: dict[str, Any]) -> Log:
    topics = tuple([_bytes(topic) for topic in log["topics"]])
    return Log(Address(_bytes(log["address"])), topics, _bytes(log["data"]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
