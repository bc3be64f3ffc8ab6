"""The subscription `ctt_finalized`: a light client is told what makes blocks final, and needs to believe nobody."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ctt_state.genesis import load_genesis
from ctt_state.light import ChainRules, LightClient, decode_header, genesis_checkpoint
from ctt_state.votes import Certificate
from tests.live_node import GENESIS, LiveNode
from tests.rpc_world import served

pytestmark = pytest.mark.asyncio

BLOCKS = 4


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


async def told_by(url: str, count: int) -> list[Any]:
    """The first so many notifications."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_json(
            {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["ctt_finalized"]}
        )
        identity = (await socket.receive_json(timeout=10))["result"]
        told = [json.loads((await socket.receive(timeout=10)).data)["params"] for _ in range(count)]
    assert {each["subscription"] for each in told} == {identity}
    return [each["result"] for each in told]


async def test_a_light_client_follows_by_what_it_is_told(tmp_path: Path) -> None:
    with LiveNode(tmp_path / "node") as node:
        told = await told_by(node.url, BLOCKS)
        first = node.call("ctt_finalityCertificate", "0x0")
        asked = node.call("ctt_finalityCertificate", hex(told[-1]["height"]))

    genesis = load_genesis(GENESIS.read_bytes())
    rules = ChainRules(genesis.hash, genesis.epoch_blocks, genesis.parameters.block_period_ms)
    start = genesis_checkpoint(rules, decode_header(unhex(first["header"])), genesis.validator_set)
    light = LightClient(rules, start)
    for each in told:
        light.accept(decode_header(unhex(each["header"])), Certificate.decode(unhex(each["certificate"])), [])
    heights = [each["height"] for each in told]
    assert heights == sorted(set(heights))
    assert told[-1] == asked


async def test_blocks_without_a_certificate_of_their_own_are_not_told() -> None:
    """This world's blocks have none: only the head that is also subscribed to comes."""
    async with served() as node, node.http.ws_connect(node.url) as socket:
        for number, kind in enumerate(("ctt_finalized", "newHeads")):
            await socket.send_json(
                {"jsonrpc": "2.0", "id": number, "method": "eth_subscribe", "params": [kind]}
            )
        heads = [(await socket.receive_json(timeout=10))["result"] for _ in range(2)][1]
        node.world.make_block()
        assert (await socket.receive_json(timeout=10))["params"]["subscription"] == heads
