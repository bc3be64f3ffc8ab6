"""A concentrator's meters, simulated: homes that live a June day from load profiles, for demonstrations and load tests.

All goes the way of real readings: through an outbox and a sender of `reportBatch`. The homes' keys come from a seed, so
a second run finds the homes of the first. Time runs faster than a home lives, so no power limit is certified.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from apps.client import Client, RpcError, call_object, decode_output
from apps.demo.profiles import consumption_wh, grid_draw_with_pv_wh, production_wh
from apps.meter.intake import now_ms
from apps.meter.outbox import Outbox, Taken
from apps.meter.reading import Registers
from apps.meter.sender import Batching, Sender
from ctt_state.crypto import address_of, sha256
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import sign_transaction
from ctt_state.units import Address, Ms, Wh, hex_of

CALLS_A_REQUEST: Final = 50
TRANSACTIONS_AT_ONCE: Final = 1_000
SUN: Final = 1  # the source that is certified
SETTLED_POLL_S: Final = 0.05
QUARTERS_AHEAD: Final = 8


class Neighbourhood:
    """So many homes behind one concentrator. Every second one has PV."""

    def __init__(self, client: Client, homes: int, seed: int) -> None:
        self._client = client
        self.key = sha256(f"ctt simulate {seed} concentrator".encode())
        self._keys = [sha256(f"ctt simulate {seed} home {number}".encode()) for number in range(homes)]
        self._homes = [address_of(key) for key in self._keys]
        self._meter = address_of(self.key)
        self._registers: list[Registers] = []

    async def build(self, operator_key: bytes) -> None:
        """Certifies the concentrator, registers the homes and confirms them, as far as that is not done. Raises:
        RpcError, TimeoutError."""
        (meter,) = await self._read("meters(address)", [self._meter])
        if not meter[4]:
            call = ("certifyMeter(address,uint8,uint64,bool)", self._meter, SUN, 0, True)
            await self._transact([(operator_key, *call)])
        states = await self._read("prosumers(address)", self._homes)
        await self._transact(
            [
                (key, "register(address)", self._meter)
                for key, state in zip(self._keys, states, strict=True)
                if state[0] != self._meter
            ]
        )
        waiting = [home for home, state in zip(self._homes, states, strict=True) if not state[1]]
        await self._transact([(self.key, "confirm(address)", home) for home in waiting])
        last = await self._read("lastReading(address)", self._homes)
        self._registers = [Registers(Ms(each[0]), Wh(each[1]), Wh(each[2])) for each in last]

    def live(self, quarter: int) -> list[Taken]:
        """A quarter hour of every home, as of now."""
        now = now_ms()
        for number, (time_ms, import_wh, export_wh) in enumerate(self._registers):
            kwh_a_year = 2_500 + number % 30 * 100
            used = drawn = consumption_wh(quarter, kwh_a_year)
            made = 0
            if number % 2:
                drawn = grid_draw_with_pv_wh(quarter, kwh_a_year)
                made = production_wh(quarter, 20 + number % 12)
            exported = max(made - (used - drawn), 0)
            self._registers[number] = Registers(
                max(now, Ms(time_ms + 1)), Wh(import_wh + drawn), Wh(export_wh + exported)
            )
        rows = zip(self._homes, self._registers, strict=True)
        return [Taken(home, registers, "simulated", b"", now) for home, registers in rows]

    async def _read(self, view: str, addresses: Sequence[Address]) -> list[tuple[Any, ...]]:
        function = CTT.named(view)
        calls = [("eth_call", [call_object(CTT, function, each), "latest"]) for each in addresses]
        return [decode_output(function, answer) for answer in await self._ask(calls)]

    async def _transact(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Sends these calls, each with its key, and waits until they are final."""
        for start in range(0, len(calls), TRANSACTIONS_AT_ONCE):
            await self._transact_at_once(calls[start : start + TRANSACTIONS_AT_ONCE])

    async def _transact_at_once(self, calls: Sequence[tuple[Any, ...]]) -> None:
        keys = sorted({key for key, *_ in calls})
        counts = await self._ask(
            [("eth_getTransactionCount", [hex_of(address_of(key)), "latest"]) for key in keys]
        )
        chain_id, price = (
            int(each, 16) for each in await self._ask([("eth_chainId", []), ("eth_gasPrice", [])])
        )
        nonces = {key: count(int(each, 16)) for key, each in zip(keys, counts, strict=True)}
        signed = [
            sign_transaction(
                key,
                chain_id=chain_id,
                nonce=next(nonces[key]),
                gas_limit=1_000_000,
                to=CTT.address,
                value=0,
                data=CTT.named(signature).encode_arguments(*arguments),
                max_fee=price,
            )
            for key, signature, *arguments in calls
        ]
        hashes = await self._ask([("eth_sendRawTransaction", [hex_of(raw)]) for raw in signed])
        for each, (key, signature, *arguments) in zip(hashes, calls, strict=True):
            receipt = await self._client.receipt(each)
            if receipt["status"] != "0x1":
                call = call_object(CTT, CTT.named(signature), *arguments)
                again = call | {"from": hex_of(address_of(key))}
                await self._client.call("eth_call", again, receipt["blockNumber"])  # which says why
                raise RpcError({"message": f"transaction {each} was refused"})

    async def _ask(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(calls), CALLS_A_REQUEST):
            answers += await self._client.batch(calls[start : start + CALLS_A_REQUEST])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return answers


async def play(
    homes: Neighbourhood,
    outbox: Outbox,
    sender: Sender,
    quarters: int,
    pace_s: float,
    tell: Callable[[str], None],
) -> None:
    """So many quarter hours from 06:00 on, one each `pace_s`, until all is on the chain; no more than QUARTERS_AHEAD of
    them wait. Raises, in a group: OutboxFailed, OutboxMismatch."""
    begun, before = time.monotonic(), outbox.counts().final
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(sender.run())
        for quarter in range(24, 24 + quarters):
            outbox.take(readings := homes.live(quarter))
            sender.wake()
            await asyncio.sleep(pace_s)
            await _until_waiting(outbox, len(readings) * QUARTERS_AHEAD)
            tell(
                f"{quarter // 4 % 24:02d}:{quarter % 4 * 15:02d}  {_told(outbox, before, time.monotonic() - begun)}"
            )
        await _until_waiting(outbox, 0)
        tell(f"end    {_told(outbox, before, time.monotonic() - begun)}")
        sending.cancel()


async def _until_waiting(outbox: Outbox, readings_max: int) -> None:
    while outbox.counts().waiting > readings_max:
        await asyncio.sleep(SETTLED_POLL_S)


def _told(outbox: Outbox, before: int, took_s: float) -> str:
    counts = outbox.counts()
    final = counts.final - before
    return f"{final} readings on the chain, {final / took_s:,.0f}/s; {counts.waiting} waiting, {counts.refused} refused"


def make_sender(client: Client, outbox: Outbox, key: bytes, explain: Callable[[str, str], str]) -> Sender:
    return Sender(client, outbox, key, explain, batching=Batching(wait_s=0))
