"""From the outbox to a real node's chain: in order, each reading once, through crashes of either."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from apps.client import Client, Wallet
from apps.meter import sender as sender_module
from apps.meter.outbox import Outbox, Taken
from apps.meter.sender import BACKOFF_S_MAX, Batching, NotNow, Sender
from ctt_state.units import Hash, Ms, hex_of
from node.cli.onboarding import REFUSALS
from tests.live_node import LiveNode
from tests.meter_world import Homes, make_registers, onboard

SECONDS_MAX: Final = 30


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("sender") / "node") as node:
        onboard(
            Homes(node, "plain", max_power=10_000),
            Homes(node, "crash"),
            Homes(node, "foreign"),
            Homes(node, "later", confirm=False),
            Homes(node, "two nodes"),
            Homes(node, "busy"),
            Homes(node, "street", 12, concentrator=True),
            Homes(node, "dear", 4, concentrator=True),
        )
        yield node


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox") as outbox:
        yield outbox


def fill(outbox: Outbox, homes: Homes, *figures: int, number: int = 0) -> None:
    """Readings of these Wh of import, a minute apart from the last."""
    for wh in figures:
        last = outbox.last(homes.prosumers[number])
        registers = make_registers((last.time_ms if last else 1_000_000) + 60_000, wh, wh // 2)
        outbox.take([Taken(homes.prosumers[number], registers, "test", b"raw", Ms(0))])


def make_sender(client: Client, outbox: Outbox, homes: Homes, **options: Any) -> Sender:
    return Sender(client, outbox, homes.meter_key, REFUSALS.explain_revert, **options)


def send(outbox: Outbox, homes: Homes, **options: Any) -> Sender:
    """Until all of it is settled."""

    async def run() -> Sender:
        async with Client(homes.node.url) as client, asyncio.timeout(SECONDS_MAX):
            sender = make_sender(client, outbox, homes, **options)
            await sender.run(until_empty=True)
            return sender

    return asyncio.run(run())


def test_readings_are_on_the_chain_in_order_and_a_refused_one_blocks_no_other(
    node: LiveNode, outbox: Outbox
) -> None:
    homes = Homes(node, "plain")
    fill(outbox, homes, 100, 200)
    send(outbox, homes)
    fill(outbox, homes, 150)
    send(outbox, homes)
    fill(outbox, homes, 300, 10**9, 320)
    sender = send(outbox, homes, window=2)

    assert homes.last_reading() == outbox.last(homes.prosumers[0])
    assert outbox.counts() == (6, 0, 4, 2) and sender.health.sent == 3
    reasons = [reason for _, reason in outbox.refusals(9)]
    assert reasons[0].startswith("ImplausibleReading: 999999.")
    assert (
        reasons[1] == "RegisterRanBackwards: the register stood at 0.200 kWh and cannot go back to 0.150 kWh"
    )
    assert len(homes.readings()) == 3 and homes.nonce() == 1 + 6


def test_after_a_crash_the_same_bytes_are_sent_and_nothing_counts_twice(
    node: LiveNode, outbox: Outbox
) -> None:
    """Killed after signing, and again after sending: in neither case does anyone know what became of it."""
    homes = Homes(node, "crash")
    fill(outbox, homes, 1, 2, 3)

    async def sign_only() -> None:
        async with Client(node.url) as client:
            sender = make_sender(client, outbox, homes)
            sender._send = lambda pending: asyncio.sleep(0)  # type: ignore[method-assign]
            await sender.step()

    asyncio.run(sign_only())
    signed = [each.raw for each in outbox.pending()]
    assert len(signed) == 3 and homes.nonce() == 1

    for raw in signed[:2]:
        node.call("eth_sendRawTransaction", hex_of(raw))
    send(outbox, homes)
    assert homes.nonce() == 1 + 3 and homes.last_reading().import_wh == 3 and len(homes.readings()) == 2
    sent = node.call("eth_getBlockByNumber", "latest", False)
    assert sent is not None and outbox.counts() == (3, 0, 3, 0)


def test_what_another_transaction_of_the_key_displaced_is_signed_anew(node: LiveNode, outbox: Outbox) -> None:
    homes = Homes(node, "foreign")
    fill(outbox, homes, 5, 6)

    async def run() -> None:
        async with Client(node.url) as client:
            sender = make_sender(client, outbox, homes)
            sender._send = lambda pending: asyncio.sleep(0)  # type: ignore[method-assign]
            await sender.step()
            wallet = Wallet(client, homes.meter_key, int(node.call("eth_chainId"), 16))
            for _ in range(2):
                await client.receipt(await wallet.send_raw(homes.meter, 0))

    asyncio.run(run())
    send(outbox, homes)
    assert outbox.counts() == (2, 0, 2, 0) and homes.nonce() == 1 + 2 + 2
    assert homes.last_reading().import_wh == 6


def test_readings_wait_for_who_must_do_something_and_are_then_all_taken(
    node: LiveNode, outbox: Outbox
) -> None:
    homes = Homes(node, "later")
    fill(outbox, homes, 7, 8)

    async def step() -> None:
        async with Client(node.url) as client:
            await make_sender(client, outbox, homes).step()

    with pytest.raises(NotNow, match="readings wait: NotConfirmedMeter: .* it becomes so: ctt meter confirm"):
        asyncio.run(step())
    assert outbox.pending() == [] and homes.nonce() == 0
    onboard(Homes(node, "later"))
    send(outbox, homes)
    assert homes.last_reading().import_wh == 8 and outbox.counts() == (2, 0, 2, 0)


def test_a_node_that_is_behind_is_waited_for(node: LiveNode, outbox: Outbox) -> None:
    """It shows fewer transactions than another had shown as final."""
    homes = Homes(node, "ahead")
    fill(outbox, homes, 1, 2)
    outbox.sign([(7, Hash(bytes(32)), b"", 1, 1)])
    outbox.settle(outbox.pending()[0], 100, [])

    async def step() -> None:
        async with Client(node.url) as client:
            await make_sender(client, outbox, homes).step()

    with pytest.raises(NotNow, match="the node is behind: it knows 0 of 8 transactions"):
        asyncio.run(step())


def test_a_receipt_that_another_node_has_not_yet_is_no_reason_to_sign_anew(
    node: LiveNode, outbox: Outbox
) -> None:
    """Two nodes behind one address: the one counts a transaction that the other has not heard of."""
    homes = Homes(node, "two nodes")
    fill(outbox, homes, 5)

    async def run() -> None:
        async with Client(node.url) as client:
            sender = make_sender(client, outbox, homes)
            sender._send = lambda pending: asyncio.sleep(0)  # type: ignore[method-assign]
            await sender.step()
            with pytest.raises(NotNow, match="the node is behind what another one said"):
                await sender._settle(outbox.pending())

    asyncio.run(run())
    assert len(outbox.pending()) == 1
    send(outbox, homes)
    assert outbox.counts() == (1, 0, 1, 0) and homes.nonce() == 2


# --- back-pressure --------------------------------------------------------------------------------------------------


class Proxy:
    """Stands before a node and refuses, so many times each: 429, 503, and what a node that is full answers."""

    def __init__(self, url: str, *refusals: web.Response) -> None:
        self._url, self._refusals = url, list(refusals)
        self.url = ""

    async def __aenter__(self) -> "Proxy":
        application = web.Application()
        application.router.add_post("/", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self._refusals:
            return self._refusals.pop(0)
        async with Client(self._url) as client:
            return web.json_response(await client._post(body))


def too_busy(ms: int) -> web.Response:
    error = {"code": -32005, "message": "rate limit 5/s for this client", "data": {"retry_after_ms": ms}}
    return web.json_response({"jsonrpc": "2.0", "id": None, "error": error})


def test_the_node_is_given_the_time_that_it_asks_for_and_more_by_chance(
    node: LiveNode, outbox: Outbox
) -> None:
    homes = Homes(node, "busy")
    fill(outbox, homes, 1, 2)
    refusals = (
        web.Response(status=429, headers={"Retry-After": "7"}),
        too_busy(9_000),
        web.Response(status=503, text="down"),
        too_busy(10**9),
    )

    async def run() -> list[float]:
        async with Proxy(node.url, *refusals) as proxy, Client(proxy.url) as client:
            sender = make_sender(client, outbox, homes)
            waits, troubles = [], []
            for _ in range(5):
                waits.append(await sender._try())
                troubles.append(sender.health.trouble)
            assert troubles == [
                "the node refuses: 429 Too Many Requests",
                "the node refuses: rate limit 5/s for this client",
                "the node refuses: 503 Service Unavailable",
                "the node refuses: rate limit 5/s for this client",
                "",
            ]
            return waits

    waits = asyncio.run(run())
    assert 7 <= waits[0] <= 10.5 and 9 <= waits[1] <= 13.5 and 2 <= waits[2] <= 4
    assert BACKOFF_S_MAX <= waits[3] <= 1.5 * BACKOFF_S_MAX
    send(outbox, homes)
    assert outbox.counts() == (2, 0, 2, 0)


def test_waits_grow_and_no_two_gateways_wait_alike(outbox: Outbox, node: LiveNode) -> None:
    homes = Homes(node, "nobody")

    async def run() -> list[list[float]]:
        async with Client("http://127.0.0.1:9") as client:
            senders = [make_sender(client, outbox, homes) for _ in range(5)]
            return [[await sender._try() for _ in range(12)] for sender in senders]

    waits = asyncio.run(run())
    assert all(0.5 <= each[0] <= 1 and 30 <= each[-1] <= 60 for each in waits)
    assert len({each[-1] for each in waits}) == 5


# --- concentrators --------------------------------------------------------------------------------------------------


def test_a_concentrator_reports_for_many_and_one_that_is_refused_stands_alone(
    node: LiveNode, outbox: Outbox
) -> None:
    homes = Homes(node, "street", 12)
    batching = Batching(readings_max=10, wait_s=0)
    for number in range(12):
        fill(outbox, homes, 100 + number, number=number)
    send(outbox, homes, batching=batching)
    fill(outbox, homes, 99, number=3)
    for number in range(12):
        fill(outbox, homes, 200 + number, number=number)
    sender = send(outbox, homes, batching=batching)

    assert [homes.last_reading(number).import_wh for number in range(12)] == [
        200 + number for number in range(12)
    ]
    assert outbox.counts() == (25, 0, 24, 1) and sender.health.sent == 2
    ((row, reason),) = outbox.refusals(9)
    assert row.prosumer == homes.prosumers[3] and reason.startswith(
        "RegisterRanBackwards: the register stood at"
    )
    assert homes.nonce() == 12 + 2 + 2


def test_a_batch_that_runs_out_of_gas_is_cut_in_two(
    node: LiveNode, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = Homes(node, "dear", 4)
    for number in range(4):
        fill(outbox, homes, 100 + number, number=number)
    monkeypatch.setattr(sender_module, "BATCH_GAS", 40_000)
    monkeypatch.setattr(sender_module, "READING_GAS", 1_000)
    send(outbox, homes, batching=Batching(readings_max=4, wait_s=0))

    assert outbox.counts() == (4, 0, 4, 0) and homes.nonce() > 4 + 1
    assert [homes.last_reading(number).import_wh for number in range(4)] == [100, 101, 102, 103]
