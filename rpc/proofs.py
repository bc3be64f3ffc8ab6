"""What a client needs who executes nothing and trusts no node: final headers, records and receipts with their proofs.

`ctt_state/light.py` is the other side: it takes what these methods give, as the bytes that are signed and hashed.
"""

from collections.abc import Sequence
from typing import Final

from ctt_state.block import merkle_branch
from ctt_state.units import Hash, hex_of
from ctt_state.validators import ValidatorSet, boundary_of
from ctt_state.votes import quorum
from rpc import schemas
from rpc.blocks import Blocks
from rpc.door import Caller
from rpc.finality import finality_of
from rpc.jsontext import Json
from rpc.methods import Registry
from rpc.params import BLOCK, HASH, RECORD_KEYS, BlockRef, Param, Tag
from rpc.turns import Turns

PROOFS: Final = Registry()


@PROOFS.method("ctt_validators", Param("block", BLOCK, Tag.LATEST), result=schemas.maybe(schemas.VALIDATORS))
def validators(caller: Caller, block: BlockRef) -> Json:
    """The validators of the block's epoch, in the order in which certificates name them, and those of the next epoch
    once the chain has fixed them. Null when there is no such block. A node that began with a snapshot has nothing from
    before it: a client that follows the chain from its genesis needs one that has the whole chain."""
    height = _final_height(caller.blocks, block)
    if height is None:
        return None
    epoch, epoch_blocks = caller.chain.header(height).epoch, caller.chain.parameters.epoch_blocks
    members, following = caller.chain.validators(epoch), caller.chain.validators(epoch + 1)
    if members is None:
        return None
    last = boundary_of(epoch, epoch_blocks)
    return {
        "epoch": epoch,
        "firstHeight": last + 1 - epoch_blocks,
        "lastHeight": last,
        "quorum": quorum(len(members.members)),
        **_set(members),
        "next": None if following is None else _set(following),
    }


def _set(members: ValidatorSet) -> dict[str, Json]:
    listed: list[Json] = [
        {"address": hex_of(each.address), "consensusKey": hex_of(each.consensus_key)}
        for each in members.members
    ]
    return {"hash": hex_of(members.hash), "validators": listed}


@PROOFS.method(
    "ctt_finalityCertificate",
    Param("block", BLOCK, Tag.LATEST),
    cost=2,
    result=schemas.maybe(schemas.FINALITY),
)
async def finality_certificate(caller: Caller, block: BlockRef) -> Json:
    """What makes the block final: its header, and the votes of a quorum for it or for a descendant in its epoch, to
    which `descendants` lead. Null when there is no such block. Block 0 has no certificate: it is in the genesis
    document."""
    height = _final_height(caller.blocks, block)
    return None if height is None else await _finality(caller, _certified(caller, height, block), Turns())


@PROOFS.method(
    "ctt_getProof",
    Param("keys", RECORD_KEYS),
    Param("block", BLOCK, Tag.LATEST),
    cost=50,
    result=schemas.PROOF,
)
async def get_proof(caller: Caller, keys: list[bytes], block: BlockRef) -> Json:
    """Records as block `block` left them, each with the nodes of the state tree that prove it under the header's state
    root, and with the block's finality. A record that does not exist is null, and is proven not to exist.

    An address names its account; any other record is named by its key. `latest` is the newest block with a
    certificate of its own. Blocks of the last 512 can be asked for, unless more than 20,000 records have changed
    since: error -32000."""
    turns = Turns()
    height = _certified(caller, caller.blocks.known_height(block), block)
    proofs = await caller.chain.prove(height, keys, turns.pause)
    records: list[Json] = [
        {
            "key": hex_of(key),
            "value": None if value is None else hex_of(value),
            "proof": list(map(hex_of, nodes)),
        }
        for key, (value, nodes) in zip(keys, proofs, strict=True)
    ]
    return {"finality": await _finality(caller, height, turns), "records": records}


@PROOFS.method(
    "ctt_getReceiptProof",
    Param("transactionHash", HASH),
    cost=10,
    result=schemas.maybe(schemas.RECEIPT_PROOF),
)
async def get_receipt_proof(caller: Caller, transaction_hash: Hash) -> Json:
    """A final transaction and its receipt, each with its branch to the header's root, and the block's finality; null
    while the transaction is in no block.

    The header does not say how many transactions there are: `index` and `count` only name the way through the two
    trees. What they prove is that the block has this transaction and this receipt, and that the one belongs to the
    other; not that the transaction is number `index`."""
    place = caller.chain.place_of(transaction_hash)
    final = None if place is None else caller.chain.block(place.height)
    if place is None or final is None:
        return None
    turns = Turns()
    receipts = []
    for receipt in final.receipts:
        receipts.append(receipt.encode())
        await turns.pause()
    return {
        "finality": await _finality(caller, place.height, turns),
        "index": place.index,
        "count": len(receipts),
        "transaction": hex_of(final.block.transactions[place.index]),
        "transactionBranch": _branch(final.transaction_hashes, place.index),
        "receipt": hex_of(receipts[place.index]),
        "receiptBranch": _branch(receipts, place.index),
    }


def _branch(leaves: Sequence[bytes], index: int) -> Json:
    return [hex_of(each) for each in merkle_branch(leaves, index)]


def _final_height(blocks: Blocks, ref: BlockRef) -> int | None:
    """None when there is no such block."""
    height = blocks.height_of(ref)
    return None if height is None or height > blocks.chain.head.block.header.height else height


def _certified(caller: Caller, height: int, ref: BlockRef) -> int:
    """The block's height; for a tag that of the newest block with a certificate of its own, which the head may lack for
    a moment."""
    if isinstance(ref, Tag) and ref is not Tag.EARLIEST:
        while height > caller.chain.oldest_block() and caller.chain.certificate(height) is None:
            height -= 1
    return height


async def _finality(caller: Caller, height: int, turns: Turns) -> Json:
    """The block's header and what makes it final. Raises: BlockPruned."""
    certified, data = (caller.chain.certificate(height) if height else None) or (height, None)
    descendants: list[Json] = []
    for above in range(height + 1, certified + 1):
        descendants.append(hex_of(caller.chain.header(above).encode()))
        await turns.pause()
    return finality_of(caller.chain, height, certified, data, descendants)
