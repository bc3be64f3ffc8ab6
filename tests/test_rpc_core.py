"""The door's first promise: a client learns the chain, sends a transaction, and sees what became of it."""

import pytest

from tests.rpc_world import ALICE_KEY, BOB, served


@pytest.mark.asyncio
async def test_a_client_sends_and_sees_the_receipt() -> None:
    async with served() as node:
        assert await node.call("eth_chainId") == "0x1092"
        assert await node.call("eth_blockNumber") == "0x1"
        raw = node.world.sign(ALICE_KEY, BOB, value=5)

        sent = await node.call("eth_sendRawTransaction", "0x" + raw.hex())
        assert await node.call("eth_getTransactionReceipt", sent) is None
        node.world.make_block()

        receipt = await node.call("eth_getTransactionReceipt", sent)
        assert (receipt["status"], receipt["blockNumber"], receipt["gasUsed"]) == ("0x1", "0x2", "0x5208")
