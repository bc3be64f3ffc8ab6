"""Finding logs in final blocks: one block, or a bounded range, a block at a time."""

from collections.abc import Iterable, Iterator
from typing import Final

from ctt_state.block import Log
from rpc.blocks import Blocks
from rpc.errors import InvalidParams, Refused
from rpc.jsontext import RawJson
from rpc.params import LogCriteria, LogQuery
from rpc.render import BlockView, bloom_bits
from rpc.turns import Turns

RANGE_BLOCKS_MAX: Final = 1_000
RESULT_LOGS_MAX: Final = 10_000


def is_match(criteria: LogCriteria, log: Log) -> bool:
    """Whether the log is of one of the addresses and has at each position one of the topics asked for."""
    if criteria.addresses and log.address not in criteria.addresses:
        return False
    if len(criteria.topics) > len(log.topics):
        return False
    return all(
        wanted is None or topic in wanted for wanted, topic in zip(criteria.topics, log.topics, strict=False)
    )


def may_match(criteria: LogCriteria, bloom: int) -> bool:
    """Whether a block with this bloom can hold a match. A bloom has false positives only."""
    wanted: list[Iterable[bytes]] = [criteria.addresses] if criteria.addresses else []
    wanted += [topic for topic in criteria.topics if topic is not None]
    return all(any(bits & ~bloom == 0 for bits in map(bloom_bits, values)) for values in wanted)


def matches(view: BlockView, criteria: LogCriteria) -> Iterator[tuple[int, Log, int]]:
    """The block's logs that match, in order, each between its transaction's index and its own in the block."""
    log_index = 0
    for index, receipt in enumerate(view.final.receipts):
        for log in receipt.logs:
            if is_match(criteria, log):
                yield index, log, log_index
            log_index += 1


def logs_of(view: BlockView, criteria: LogCriteria) -> Iterator[RawJson]:
    """The block's logs that match, in order."""
    return (view.log(index, log, log_index) for index, log, log_index in matches(view, criteria))


def view_with(blocks: Blocks, height: int, criteria: LogCriteria) -> BlockView | None:
    """The block at this height, which is not above the head; None if its bloom rules out a match. Such a block is not
    read again."""
    bloom = blocks.bloom_at(height)
    if bloom is None:
        view = blocks.at(height)
        if view is None:
            raise Refused(f"block {height} is not available")
        blocks.remember_bloom(view)
        bloom = view.bloom
    return blocks.at(height) if may_match(criteria, bloom) else None


def logs_at(blocks: Blocks, height: int, criteria: LogCriteria) -> list[RawJson]:
    """The logs at this height, which is not above the head."""
    view = view_with(blocks, height, criteria)
    return [] if view is None else list(logs_of(view, criteria))


async def find_logs(blocks: Blocks, query: LogQuery) -> list[RawJson]:
    """All logs of the query. Raises: InvalidParams for a range or a result above the limit; Refused."""
    first, last = query_range(blocks, query)
    found: list[RawJson] = []
    turns = Turns()
    for height in range(first, last + 1):
        found += logs_at(blocks, height, query.criteria)
        if len(found) > RESULT_LOGS_MAX:
            raise InvalidParams(f"more than {RESULT_LOGS_MAX:,} logs; limit {RESULT_LOGS_MAX:,}")
        await turns.pause()
    return found


def query_range(blocks: Blocks, query: LogQuery) -> tuple[int, int]:
    """First and last height. Raises: InvalidParams, with the texts that clients know; Refused."""
    if query.block_hash is not None:
        height = blocks.height_of(query.block_hash)
        if height is None:
            raise Refused("unknown block")
        return height, height
    first, last = blocks.height_of(query.from_block), blocks.height_of(query.to_block)
    if first is None or last is None or first > last:
        raise InvalidParams("invalid block range params")
    if last > blocks.chain.head.block.header.height:
        raise InvalidParams("block range extends beyond current head block")
    if last - first + 1 > RANGE_BLOCKS_MAX:
        raise InvalidParams(f"range {last - first + 1:,} blocks; limit {RANGE_BLOCKS_MAX:,}")
    return first, last
