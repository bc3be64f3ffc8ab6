"""From the outbox to the chain: one row of nonces, in order, each reading once in effect.

A transaction is signed, stored, sent, and sent again as the same bytes until its nonce is used. Then its receipt says
what became of it; without one another transaction of this key had the nonce, and the readings are signed anew. The
chain itself takes no reading twice, for each must be newer than the last. All waits have jitter, so that a hundred
thousand gateways do not come back in the same moment.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from apps.client import TRY_LATER, Client, RpcError, call_object, decode_log
from apps.meter.outbox import Outbox, OutboxFailed, Row, Signed
from ctt_state.abi import Function
from ctt_state.crypto import address_of, keccak
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from ctt_state.units import Hash, hex_of

REPORT: Final = CTT.named("report(address,uint64,uint256,uint256)")
REPORT_BATCH: Final = CTT.named("reportBatch((address,uint64,uint256,uint256)[])")
REJECTED: Final = next(
    hex_of(topic) for topic, event in CTT.events.items() if event.name == "ReadingRejected"
)
REPORT_GAS: Final = 4_000_000  # of 256 tokens that it charges and as many that it drains
BATCH_GAS: Final = 200_000
READING_GAS: Final = 60_000  # in a batch; one that needs more in the mean is cut in two

SEND_BYTES_MAX: Final = 262_144  # of signed transactions in one request
RECEIPTS_A_REQUEST: Final = 8  # of a batch one has the events of hundreds of readings
SEND_AGAIN_S: Final = 10.0
POLL_S: Final = 0.3
IDLE_S: Final = 5.0
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0

# What somebody can set right, so that the readings wait for it rather than be refused one by one.
NOT_READY: Final = (
    "NotCreated",
    "NotRegistered",
    "NotConfirmedMeter",
    "MeterNotCertified",
    "NotConcentrator",
    "ReadingInFuture",
)


class NotNow(Exception):
    """The node or the chain takes nothing now; `wait_s` None is as long as it seems right."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Batching:
    """How a concentrator puts readings together: so many at most, or what came in so long."""

    readings_max: int = 250
    wait_s: float = 2.0


@dataclass
class Health:
    """How sending goes, for people and metrics."""

    trouble: str = ""
    sent: int = 0
    sent_again: int = 0
    failures: int = 0  # in a row


class Sender:
    """`explain` puts a refusal's bytes into words, or gives the text behind them. Without `batching` each reading is a
    `report`; `window` transactions are under way at once."""

    def __init__(
        self,
        client: Client,
        outbox: Outbox,
        key: bytes,
        explain: Callable[[str, str], str],
        *,
        window: int = 32,
        batching: Batching | None = None,
    ) -> None:
        self.health = Health()
        self.address = address_of(key)
        self._client, self._outbox = client, outbox
        self._key, self._explain = key, explain
        self._chain_id: int | None = None
        self._window, self._batching = window, batching
        self._sent_at: dict[Hash, float] = {}
        self._price_wei = 0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    async def run(self, *, until_empty: bool = False) -> None:
        """Until it is cancelled, or everything that is in the outbox has been settled."""
        while True:
            self._wake.clear()
            wait_s = await self._try()
            if until_empty and not self.health.trouble and not self._outbox.counts().waiting:
                return
            if self.health.trouble:
                await asyncio.sleep(wait_s)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()

    async def _try(self) -> float:
        """One round, and how long to wait until the next."""
        health = self.health
        try:
            wait_s = await self.step()
        except NotNow as reason:
            return self._pause(str(reason), reason.wait_s)
        except RpcError as refusal:
            return self._pause(f"the node refuses: {refusal}", _retry_after_s(refusal))
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError, KeyError) as fault:
            return self._pause(
                f"{self._client.url} does not answer: {str(fault) or type(fault).__name__}", None
            )
        except OutboxFailed as fault:
            return self._pause(str(fault), None)
        health.trouble, health.failures = "", 0
        return wait_s

    def _pause(self, text: str, wait_s: float | None) -> float:
        self.health.trouble = " ".join(text.split())[:300]
        self.health.failures += 1
        if wait_s is None:
            wait_s = min(BACKOFF_S_MIN * 2.0 ** min(self.health.failures, 10), BACKOFF_S_MAX)
            return random.uniform(0.5, 1.0) * wait_s
        return min(wait_s, BACKOFF_S_MAX) * random.uniform(1.0, 1.5)

    async def step(self) -> float:
        """Learns what became of what was sent, signs what waits, sends what is due. Returns how long to wait.

        Raises: NotNow, RpcError, aiohttp.ClientError, TimeoutError, OutboxFailed; OutboxMismatch for another chain.
        """
        if self._chain_id is None:
            self._chain_id = await self._meet()
        used, self._price_wei = await self._ask(
            ("eth_getTransactionCount", [hex_of(self.address), "latest"]), ("eth_gasPrice", [])
        )
        if used < self._outbox.settled_nonce():
            raise NotNow(
                f"the node is behind: it knows {used} of {self._outbox.settled_nonce()} transactions"
            )
        await self._settle([each for each in self._outbox.pending() if each.nonce < used])
        pending = self._outbox.pending()
        if not pending:
            await self._check_ready()
        if groups := self._groups(self._window - len(pending)):
            self._outbox.sign(self._signed(groups, max(used, self._outbox.next_nonce())))
        pending = self._outbox.pending()
        await self._send(pending)
        if pending or (self._batching and self._outbox.unsigned(1)):
            return POLL_S
        return IDLE_S

    async def _meet(self) -> int:
        """The chain, which must be the outbox's. Raises: OutboxMismatch."""
        (chain_id,) = await self._ask(("eth_chainId", []))
        genesis = await self._client.call("eth_getBlockByNumber", "0x0", False)
        self._outbox.bind(chain=f"{chain_id} {genesis['hash']}", meter=hex_of(self.address))
        return chain_id

    async def _ask(self, *calls: tuple[str, Sequence[Any]]) -> list[int]:
        answers = await self._client.batch(calls)
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return [int(answer, 16) for answer in answers]

    # --- what became of it ------------------------------------------------------------------------------------------

    async def _settle(self, used: Sequence[Signed]) -> None:
        """The nonces of all these have been used."""
        for start in range(0, len(used), RECEIPTS_A_REQUEST):
            await self._settle_some(used[start : start + RECEIPTS_A_REQUEST])

    async def _settle_some(self, used: Sequence[Signed]) -> None:
        # The count first, and from the node that is asked for receipts: what it counts it has a receipt of.
        count = ("eth_getTransactionCount", [hex_of(self.address), "latest"])
        used_there, *receipts = await self._client.batch(
            [count, *(("eth_getTransactionReceipt", [hex_of(each.hash)]) for each in used)]
        )
        if isinstance(used_there, RpcError):
            raise used_there
        for transaction, receipt in zip(used, receipts, strict=True):
            if isinstance(receipt, RpcError):
                raise receipt
            if receipt is None and transaction.nonce >= int(used_there, 16):
                raise NotNow("the node is behind what another one said")
            if receipt is None:
                self._sign_anew(transaction, [self._outbox.of(transaction)])
            elif receipt["status"] == "0x1":
                self._outbox.settle(
                    transaction, int(receipt["blockNumber"], 16), self._rejected(transaction, receipt)
                )
            else:
                await self._settle_reverted(transaction, receipt)
            self._sent_at.pop(transaction.hash, None)

    def _rejected(self, transaction: Signed, receipt: dict[str, Any]) -> list[tuple[int, str]]:
        """Readings of a batch that stand alone in being refused."""
        rejections = [decode_log(CTT, log) for log in receipt["logs"] if log["topics"][0] == REJECTED]
        return [
            (transaction.first + event[1]["index"], self._explain(hex_of(event[1]["reason"]), "refused"))
            for event in filter(None, rejections)
        ]

    async def _settle_reverted(self, transaction: Signed, receipt: dict[str, Any]) -> None:
        rows, block = self._outbox.of(transaction), int(receipt["blockNumber"], 16)
        # What it found lies between the state before the block and the one after.
        why = await self._why(rows, hex(block - 1)) or await self._why(rows, hex(block))
        if why is None and len(rows) > 1:  # the same call with all of a block's gas succeeds
            half = len(rows) // 2
            self._sign_anew(transaction, [rows[:half], rows[half:]])
            return
        text = why or "it ran out of gas, or the state of then is pruned"
        self._outbox.settle(transaction, block, [(row.id, text) for row in rows])

    async def _why(self, rows: Sequence[Row], block: str) -> str | None:
        """Why the chain refuses these at this block, if it does: the same call says so."""
        request = call_object(CTT, *_call(rows, is_batch=self._batching is not None)) | {
            "from": hex_of(self.address)
        }
        try:
            await self._client.call("eth_call", request, block)
        except RpcError as refusal:
            if refusal.code == TRY_LATER:
                raise
            return self._explain(str(refusal.data), str(refusal))
        return None

    async def _check_ready(self) -> None:
        """Before a first transaction: is this meter to be heard at all? Raises: NotNow."""
        if rows := self._outbox.unsigned(1):
            why = await self._why(rows, "latest")
            if why is not None and why.startswith(NOT_READY):
                raise NotNow(f"readings wait: {why}", IDLE_S)

    # --- signing and sending ----------------------------------------------------------------------------------------

    def _groups(self, places: int) -> list[list[Row]]:
        """Readings that go together, oldest first."""
        if places <= 0:
            return []
        batching = self._batching
        if batching is None:
            return [[row] for row in self._outbox.unsigned(places)]
        rows = self._outbox.unsigned(places * batching.readings_max)
        size = batching.readings_max
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        if groups and len(groups[-1]) < size and _now_ms() < groups[-1][0].taken_ms + batching.wait_s * 1_000:
            groups.pop()
        return groups

    def _sign_anew(self, transaction: Signed, groups: Sequence[Sequence[Row]]) -> None:
        self._outbox.displace(transaction, self._signed(groups, self._outbox.next_nonce()))

    def _signed(self, groups: Iterable[Sequence[Row]], nonce: int) -> list[tuple[int, Hash, bytes, int, int]]:
        if self._chain_id is None:
            raise AssertionError("signed for no chain")
        is_batch, signed = self._batching is not None, []
        for number, rows in enumerate(groups, nonce):
            function, *arguments = _call(rows, is_batch=is_batch)
            raw = sign_transaction(
                self._key,
                chain_id=self._chain_id,
                nonce=number,
                gas_limit=REPORT_GAS if len(rows) == 1 else BATCH_GAS + READING_GAS * len(rows),
                to=CTT.address,
                value=0,
                data=function.encode_arguments(*arguments),
                max_fee=self._price_wei,
            )
            signed.append((number, Hash(keccak(raw)), raw, rows[0].id, rows[-1].id))
        return signed

    async def _send(self, pending: Sequence[Signed]) -> None:
        """Sends in the order of nonces what was not sent lately. Raises: NotNow, RpcError."""
        now = time.monotonic()
        due = [each for each in pending if now >= self._sent_at.get(each.hash, -SEND_AGAIN_S) + SEND_AGAIN_S]
        for group in _requests(due):
            answers = await self._client.batch(
                [("eth_sendRawTransaction", [hex_of(each.raw)]) for each in group]
            )
            for transaction, answer in zip(group, answers, strict=True):
                if isinstance(answer, RpcError) and not str(answer).startswith(
                    ("already known", "nonce too low")
                ):
                    raise answer
                self.health.sent_again += transaction.hash in self._sent_at
                self.health.sent += transaction.hash not in self._sent_at
                self._sent_at[transaction.hash] = now


def _call(rows: Sequence[Row], *, is_batch: bool) -> tuple[Function, *tuple[Any, ...]]:
    readings = [(row.prosumer, *row.registers) for row in rows]
    return (REPORT_BATCH, tuple(readings)) if is_batch or len(rows) > 1 else (REPORT, *readings[0])


def _requests(due: Sequence[Signed]) -> Iterable[list[Signed]]:
    """Groups that fit a request each."""
    group: list[Signed] = []
    for transaction in due:
        if group and sum(len(each.raw) for each in [*group, transaction]) > SEND_BYTES_MAX:
            yield group
            group = []
        group.append(transaction)
    if group:
        yield group


def _retry_after_s(refusal: RpcError) -> float | None:
    wait_ms = refusal.data.get("retry_after_ms") if isinstance(refusal.data, dict) else None
    return wait_ms / 1_000 if isinstance(wait_ms, int) else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
