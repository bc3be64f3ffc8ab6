"""Wires that are cut, slow and damaged: what cannot talk makes no blocks, and the chain goes on when it can again.

`OUTAGES="1 10 60 600" pytest tests/network/test_partitions.py` for longer ones.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.network.harness import Harness
from tests.network.proxy import (
    BOTH,
    CONSORTIUM,
    CONTINENT,
    LAN,
    MOBILE,
    SMALL_PACKETS,
    Conditions,
    Direction,
)
from tests.network.wiring import EVERY_WIRING, ProxyWiring, Wiring

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
]

OUTAGES: Final = tuple(float(seconds) for seconds in os.environ.get("OUTAGES", "1 10").split())

VALIDATORS: Final = 4
START_SECONDS_MAX: Final = 30.0
HEAL_SECONDS_MAX: Final = 5.0  # P4
HEAL_SPREAD_SECONDS_MAX: Final = 1.0  # the length of an outage makes no difference


@asynccontextmanager
async def four_nodes(directory: Path, wiring: Wiring) -> AsyncIterator[Harness]:
    async with Harness(directory, wiring, validators=VALIDATORS) as network:
        await network.start()
        await network.wait_for_height(3, seconds_max=START_SECONDS_MAX)
        yield network
        print(f"{await network.one_chain()} blocks compared")


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_one_node_is_cut_off(tmp_path: Path, make: Callable[[int], Wiring]) -> None:
    async with four_nodes(tmp_path, make(VALIDATORS)) as network:
        network.isolate(1)
        await network.wait_for_blocks(8, 0, 2, 3, seconds_max=8 * HEAL_SECONDS_MAX)
        await network.check_standstill(1)

        network.heal()
        await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_two_halves_wait_for_each_other(tmp_path: Path, make: Callable[[int], Wiring]) -> None:
    async with four_nodes(tmp_path, make(VALIDATORS)) as network:
        network.partition([0, 1], [2, 3])
        await network.check_standstill(0, 1, 2, 3)

        network.heal()
        await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_one_direction_is_cut(tmp_path: Path, make: Callable[[int], Wiring]) -> None:
    """A node that is heard by all but one, and one that hears nobody."""
    async with four_nodes(tmp_path, make(VALIDATORS)) as network:
        network.cut(0, 1)
        await network.wait_for_blocks(4, 0, 2, 3, seconds_max=4 * HEAL_SECONDS_MAX)
        network.heal()
        await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)

        for sender in (0, 1, 3):
            network.cut(sender, 2)
        await network.wait_for_blocks(4, 0, 1, 3, seconds_max=4 * HEAL_SECONDS_MAX)
        network.heal()
        await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)


async def test_a_bridge_between_halves_is_enough(tmp_path: Path) -> None:
    """Nodes 0 and 1 reach 3, and so do 1 and 2; 0 and 2 do not reach each other."""
    async with four_nodes(tmp_path, ProxyWiring(VALIDATORS)) as network:
        network.partition([0, 1, 3], [1, 2, 3])

        await network.wait_for_blocks(8, seconds_max=8 * HEAL_SECONDS_MAX)


@pytest.mark.parametrize("make", EVERY_WIRING)
async def test_the_length_of_an_outage_makes_no_difference(
    tmp_path: Path, make: Callable[[int], Wiring]
) -> None:
    healed = []
    async with four_nodes(tmp_path, make(VALIDATORS)) as network:
        for seconds in OUTAGES:
            network.partition()
            await asyncio.sleep(seconds)
            network.heal()
            healed.append(await network.wait_for_blocks(1, seconds_max=HEAL_SECONDS_MAX))
            await network.wait_for_blocks(3, seconds_max=HEAL_SECONDS_MAX)

    print(f"healed after outages of {OUTAGES} s in {healed} s")
    assert max(healed) - min(healed) <= HEAL_SPREAD_SECONDS_MAX


async def test_broken_connections_are_made_anew(tmp_path: Path) -> None:
    wiring = ProxyWiring(VALIDATORS)
    async with four_nodes(tmp_path, wiring) as network:
        for act in ("reset", "half_close", "refuse"):
            for proxy in wiring.proxies.values():
                match act:
                    case "reset":
                        proxy.reset()
                    case "half_close":
                        proxy.half_close(Direction.FORWARD)
                    case _:
                        proxy.refuse()
            await asyncio.sleep(1)
            for proxy in wiring.proxies.values():
                proxy.heal()
            await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)

    assert sum(proxy.resets for proxy in wiring.proxies.values()) > 0


async def test_damage_breaks_a_session_and_no_node(tmp_path: Path) -> None:
    """Each flipped bit ends a TLS session; nothing that was damaged is believed."""
    wiring = ProxyWiring(VALIDATORS)
    async with four_nodes(tmp_path, wiring) as network:
        made = sum(proxy.connections_made for proxy in wiring.proxies.values())
        for _ in range(10):
            for proxy in wiring.proxies.values():
                proxy.corrupt(Direction.FORWARD)
            await asyncio.sleep(0.5)
        for proxy in wiring.proxies.values():
            proxy.heal()
        await network.wait_for_blocks(2, seconds_max=HEAL_SECONDS_MAX)

        lanes = [proxy.lanes[direction] for proxy in wiring.proxies.values() for direction in BOTH]
        assert sum(lane.flipped_bits for lane in lanes) > 0
        assert sum(proxy.connections_made for proxy in wiring.proxies.values()) > made
        assert None not in await network.heights()


@pytest.mark.parametrize(
    "conditions",
    [LAN, CONSORTIUM, CONTINENT, MOBILE, SMALL_PACKETS],
    ids=["LAN", "consortium", "continent", "mobile", "small packets"],
)
async def test_a_chain_goes_on_over_wires_of_every_kind(tmp_path: Path, conditions: Conditions) -> None:
    async with four_nodes(tmp_path, ProxyWiring(VALIDATORS, conditions=conditions)) as network:
        seconds = await network.wait_for_blocks(10, seconds_max=60)

    print(f"10 blocks in {seconds:.1f} s")
