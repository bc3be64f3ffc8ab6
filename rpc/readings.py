"""What a prosumer's meter counted, one reading after the other, out of the blocks' logs."""

from typing import Final

from ctt_state.abi import decode_values, parse_params
from ctt_state.block import Log
from ctt_state.modules.ctt import CTT
from ctt_state.modules.ctt.module import EnergyConsumed, EnergyRefilled
from ctt_state.records import Prosumer
from ctt_state.units import Address, Height, hex_of
from rpc import schemas
from rpc.blocks import Blocks
from rpc.door import Caller
from rpc.figures import energy
from rpc.jsontext import Json
from rpc.logs import RANGE_BLOCKS_MAX, matches, view_with
from rpc.methods import Registry
from rpc.params import ADDRESS, MOMENT, Instant, LogCriteria, Moment, Param, Tag
from rpc.render import BlockView
from rpc.turns import Turns

READINGS: Final = Registry()

READINGS_PAGE_MIN: Final = 500  # with the last block's, so that no block is told in two pieces

_AMOUNTS: Final = parse_params("uint256,uint256")


@READINGS.method(
    "ctt_readings",
    Param("prosumer", ADDRESS),
    Param("from", MOMENT, Tag.EARLIEST),
    Param("to", MOMENT, Tag.LATEST),
    cost=20,
    result=schemas.maybe(schemas.READINGS),
)
async def readings(caller: Caller, prosumer: Address, first: Moment, last: Moment) -> Json:
    """Measured production and consumption, in the order of the chain: what was stored in tokens or covered by them, and
    the rest, which went to the grid or is billed. `from` and `to` are heights, tags or times, both inclusive.

    A page looks through at most 1,000 blocks, up to `to`, and ends with the block that fills it, at 500 readings.
    `next` is the height to go on `from`, null at the end. Null for a prosumer that the chain does not know."""
    if caller.chain.state(caller.blocks.known_height(Tag.LATEST))(Prosumer.key(prosumer)) is None:
        return None
    turns = Turns()
    start = await _first_height(caller.blocks, first, turns)
    end = await _last_height(caller.blocks, last, turns)
    criteria = LogCriteria(
        frozenset((CTT.address,)),
        (frozenset((EnergyRefilled.topic, EnergyConsumed.topic)), frozenset((bytes(12) + prosumer,))),
    )
    found: list[Json] = []
    done = start - 1
    while done < min(end, start + RANGE_BLOCKS_MAX - 1) and len(found) < READINGS_PAGE_MIN:
        done += 1
        view = view_with(caller.blocks, done, criteria)
        if view is not None:
            found += [_reading(view, index, log) for index, log, _ in matches(view, criteria)]
        await turns.pause()
    return {"readings": found, "to": done, "next": done + 1 if done < end else None}


def _reading(view: BlockView, index: int, log: Log) -> dict[str, Json]:
    counted, moved = decode_values(_AMOUNTS, log.data)
    is_production = log.topics[0] == EnergyRefilled.topic
    moved_as, rest_as = ("stored", "fedToGrid") if is_production else ("covered", "billed")
    return {
        "kind": "production" if is_production else "consumption",
        "height": view.height,
        "timeMs": view.final.block.header.timestamp_ms,
        "transactionHash": hex_of(view.final.transaction_hashes[index]),
        "meter": hex_of(log.topics[2][12:]),
        **energy("measured", counted),
        **energy(moved_as, moved),
        **energy(rest_as, counted - moved),
    }


async def _first_height(blocks: Blocks, moment: Moment, turns: Turns) -> int:
    """Of a range, at most the one after the head, which has yet to come. Raises: Refused."""
    if isinstance(moment, Instant):
        return await _first_since(blocks, moment.time_ms, turns)
    following = blocks.known_height(Tag.LATEST) + 1
    return following if moment == following else blocks.known_height(moment)


async def _last_height(blocks: Blocks, moment: Moment, turns: Turns) -> int:
    """Of a range, at most the head."""
    if isinstance(moment, Instant):
        return await _first_since(blocks, moment.time_ms + 1, turns) - 1
    head = blocks.known_height(Tag.LATEST)
    return blocks.known_height(moment) if isinstance(moment, Tag) else min(moment, head)


async def _first_since(blocks: Blocks, time_ms: int, turns: Turns) -> int:
    """The first block that is here and not before this time; the next one when there is none yet."""
    low, high = blocks.chain.oldest_block(), blocks.known_height(Tag.LATEST) + 1
    while low < high:
        middle = (low + high) // 2
        if blocks.chain.header(middle).timestamp_ms < time_ms:
            low = Height(middle + 1)
        else:
            high = middle
        await turns.pause()
    return low
