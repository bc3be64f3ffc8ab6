"""A chain on disk whose set of validators changes, behind the door of a real node, as a light client meets it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from ctt_state.crypto import public_key, sign_compact
from ctt_state.genesis import development_key
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.proposals import ready_digest
from ctt_state.transaction import Signed
from ctt_state.votes import Certificate, Kind, Statement, quorum, sign_vote
from node.consensus.events import Now
from node.ledger import Ledger
from node.mempool import MempoolLimits
from node.node import Node
from node.unfinal import Executed
from rpc.server import RpcServer
from tests.ledger_world import ADMIN_KEY, ALICE, make_plan, sign
from tests.rpc_world import RpcClient, make_config

EPOCH_BLOCKS: Final = 10
SECRETS: Final = {public_key(development_key(index)): development_key(index) for index in range(2)}


def add(
    ledger: Ledger, transactions: Sequence[Signed] = (), *, count: int = 1, is_certified: bool = True
) -> Executed:
    """Blocks over the head, the first with these transactions; the votes are those of the epoch's own set."""
    for at in range(count):
        parent = ledger.head.block.header
        executed, dropped = ledger.build(make_plan(ledger), () if at else transactions)
        assert not dropped
        ledger.commit(executed, certify(ledger, executed, parent.view) if is_certified else None)
        ledger.publish(executed)
    return executed


def certify(ledger: Ledger, executed: Executed, parent_view: int) -> bytes:
    """FINALIZE by as many of the epoch's validators as are needed."""
    header, members = executed.header, ledger.validators(executed.header.epoch)
    statement = Statement(
        Kind.FINALIZE, header.epoch, header.view, min(parent_view, header.view - 1), executed.hash
    )
    votes = [
        sign_vote(statement, place, SECRETS[members.keys[place]], header.genesis_hash)
        for place in range(quorum(len(members.keys)))
    ]
    return Certificate(statement, tuple([(vote.signer, vote.signature) for vote in votes])).encode()


def change_set(ledger: Ledger, nonce: int) -> None:
    """Two blocks, after which the next epoch has a second validator: ALICE, with the second development key. `nonce`:
    the first validator's."""
    first = development_key(0)  # of its account too, on a development network
    propose = AUTHORITY.named("propose(address,bytes,bool)")
    arguments = (ALICE, public_key(development_key(1)), True)
    add(
        ledger, [sign(first, nonce, to=AUTHORITY.address, value=0, data=propose.encode_arguments(*arguments))]
    )
    height = ledger.head.block.header.height
    signature = sign_compact(development_key(1), ready_digest(ledger.genesis.hash, ALICE, 1, height))
    ready = AUTHORITY.named("ready(uint256,uint64,bytes)").encode_arguments(1, height, signature)
    add(ledger, [sign(ADMIN_KEY, 0, to=AUTHORITY.address, value=0, data=ready)])


@asynccontextmanager
async def served_ledger(ledger: Ledger) -> AsyncIterator[RpcClient]:
    """The ledger's node, which follows, with its door on a free port. Its clock shows the head's time."""
    node = Node(
        ledger,
        journal=None,
        signer=None,
        limits=MempoolLimits(),
        clocks=lambda: Now(0, ledger.head.block.header.timestamp_ms),
    )
    server = RpcServer(node, make_config())
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield RpcClient(server.url, http)
    finally:
        await server.stop()
        node._recovery.close()
