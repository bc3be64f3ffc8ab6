"""The contract that anvil runs against the native module: the same calls, the same state and refusals."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import bench.peers.__main__ as program
from apps.client import Client, RpcError, Wallet, call_object
from apps.demo.street import TREASURER_KEY
from bench.local_node import local_node
from bench.peers import contract
from bench.peers.anvil import local_anvil, place_contract
from bench.throughput import prepare_meters
from bench.workload import bench_key
from ctt_state.modules.ctt import CTT
from ctt_state.units import ZERO_ADDRESS
from tests.clients.packages import install
from tests.live_node import GENESIS

MEMORY_MIB = 4_096
DOCUMENT = json.loads(GENESIS.read_bytes())
TOKENS = range(1, 9)  # four of each prosumer


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Of a node and of an anvil that has the contract's code."""
    install(contract.HERE)
    try:
        contract.anvil_program()
        contract.compile_contract()
    except contract.PackagesMissing as fault:
        pytest.skip(str(fault))
    with ExitStack() as stack:
        node, _ = stack.enter_context(local_node(GENESIS))
        anvil, _ = stack.enter_context(local_anvil(GENESIS, MEMORY_MIB))
        yield [node, anvil]


async def live(client: Client) -> list[str]:
    """Two prosumers with all that may happen to their tokens: each transaction's status."""
    chain_id = DOCUMENT["chainId"]
    await prepare_meters(client, chain_id, "peers", 2)
    admin = Wallet(client, TREASURER_KEY, chain_id)
    (alice, bob), (meter, other) = (
        [Wallet(client, bench_key("peers", role, number), chain_id) for number in range(2)]
        for role in ("owner", "meter")
    )
    refill, consume = "refill(uint256,address)", "consume(uint256,address)"
    sell, transfer = "setOnSale(uint256,uint256,uint256)", "transferFrom(address,address,uint256)"
    await client.receipt(await admin.send_raw(bob.address, 10**18))
    statuses = []
    for sender, *calls in (
        (meter, (refill, 25_000, alice.address), (consume, 12_000, alice.address)),
        (other, (refill, 100, alice.address), (refill, 50_000, bob.address)),  # not her meter; more than fits
        (alice, (sell, 1, 10**15, 10**10), (sell, 4, 10**15, 0), ("cancelSale(uint256)", 4)),
        (meter, (refill, 3_000, alice.address)),
        (alice, ("approve(address,uint256)", bob.address, 3)),
        (
            bob,
            (transfer, alice.address, bob.address, 3),
            (transfer, alice.address, bob.address, 2),
        ),  # not his
        (admin, ("setTokenCapability(uint256)", 12_000)),
        (other, (refill, 5_000, bob.address), (consume, 100_000, bob.address)),  # more than there is
    ):
        hashes = [await sender.send(CTT, *call) for call in calls]
        statuses += [(await client.receipt(each))["status"] for each in hashes]
    bought = await bob.send(CTT, "buyToken(uint256,uint256)", 1, 1, value=10**17)
    bought_empty = await bob.send(CTT, "buyEmptyToken()", value=10**17)
    return statuses + [(await client.receipt(each))["status"] for each in (bought, bought_empty)]


async def state(client: Client) -> list[tuple[Any, ...]]:
    """All that views tell of the tokens and their owners, but for permits, which the contract does not have."""
    owners = [Wallet(client, bench_key("peers", "owner", number), 0).address for number in range(2)]
    views = [await client.read(CTT, view) for view in ("totalEnergy()", "lastTokenId()", "tokenCapability()")]
    for owner in owners:
        views += [await client.read(CTT, view, owner) for view in ("prosumers(address)", "energyOf(address)")]
        views += [await client.read(CTT, "balanceOf(address)", owner)]
    for token_id in TOKENS:
        *told, _nonce, index = await client.read(CTT, "tokens(uint256)", token_id)
        views.append((*told, index))
    return views


async def refusals(client: Client) -> list[Any]:
    """The ABI errors of calls that are refused."""
    owner = Wallet(client, bench_key("peers", "owner", 0), 0).address
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("refill(uint256,address)", (1, ZERO_ADDRESS)),
        ("refill(uint256,address)", (1, owner)),
        ("buyEmptyTokens(uint256)", (0,)),
        ("buyEmptyTokens(uint256)", (10**9,)),
        ("buyEmptyTokens(uint256)", (1,)),
        ("buyToken(uint256)", (2,)),
        ("cancelSale(uint256)", (99,)),
        ("setTokenCapability(uint256)", (1,)),
        ("certifyMeter(address,uint8,uint64,bool)", (owner, 1, 0, False)),
        ("createCTT(string,string,uint256,uint256)", ("a", "b", 1, 1)),
    ]
    errors = []
    for signature, arguments in calls:
        with pytest.raises(RpcError) as refusal:
            call = call_object(CTT, CTT.named(signature), *arguments)
            await client.call("eth_call", {**call, "from": "0x" + "11" * 20}, "latest")
        errors.append(refusal.value.data)
    return errors


def test_contract_and_module_come_to_the_same_state(urls: list[str]) -> None:
    """S-2 to S-5 and S-9."""

    async def told(url: str, is_anvil: bool) -> list[Any]:
        async with Client(url) as client:
            if is_anvil:
                await place_contract(client, DOCUMENT)
            return [await live(client), await state(client), await refusals(client)]

    async def both() -> tuple[list[Any], list[Any]]:
        return await asyncio.gather(told(urls[0], False), told(urls[1], True))

    node, anvil = asyncio.run(both())
    assert node == anvil
    assert node[0].count("0x0") == 2


def test_what_npm_has_not_brought_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "MODULES", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench.peers"])

    assert program.main() == 69

    told = capsys.readouterr()
    assert told.out == ""
    assert contract.INSTALL in told.err and told.err.count("\n") == 1
