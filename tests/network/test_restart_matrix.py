"""Nodes that are killed, paused, robbed and restored: no final block is lost, none is forked, and the chain goes on.

Four validators tolerate one fault. Each test begins with a network under load and ends with one chain: all blocks of
all nodes are the same, none of them takes back what it ever told, and no key signed two votes that exclude each other:
this by the traffic between them, recorded and read by code of its own (P1, P2, P4, P5).

`KILLS=500 PAUSE=60 pytest tests/network/test_restart_matrix.py` for more than the default.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from ctt_state.crypto import public_key
from ctt_state.genesis import development_key
from node.exits import Exit
from tests.network import memory_limit
from tests.network.capture import NOTARIZE, Capture, Signatures
from tests.network.chronicle import LOST
from tests.network.harness import POLL_SECONDS, UNDER_WAY_MAX, Harness
from tests.network.load import Load
from tests.network.memory_limit import MemoryLimit
from tests.network.wiring import ProxyWiring

KILLS: Final = int(os.environ.get("KILLS", "3"))
PAUSE_SECONDS: Final = float(os.environ.get("PAUSE", "5"))

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.slow,
    pytest.mark.timeout(900 + 30 * KILLS),
]

VALIDATORS: Final = 4
QUORUM: Final = 3
LOAD_PER_SECOND: Final = 40.0
START_SECONDS_MAX: Final = 30.0
BACK_SECONDS_MAX: Final = 5.0  # P4, from when more than two thirds can talk again
ALL_BACK_SECONDS_MAX: Final = 10.0  # P4, all at once, their start included
STOP_SECONDS_MAX: Final = 5.0
SYNC_SECONDS_MAX: Final = 30.0  # for a node that begins at block 0
VOTES_SECONDS_MAX: Final = 120.0  # from a restore: the silence, and the rest of this epoch and the next
STARVE_SECONDS_MAX: Final = 30.0
REFUSALS: Final = 50
LATER_EPOCH: Final = 2  # which no test reaches


@asynccontextmanager
async def four_nodes(
    directory: Path, *, more_places: int = 0, epoch_blocks: int | None = None
) -> AsyncIterator[Harness]:
    """They run and are under load; at the end their chains are compared."""
    with Capture(directory) as capture:
        wiring = ProxyWiring(VALIDATORS + more_places, tap=capture.write)
        harness = Harness(
            directory,
            wiring,
            validators=VALIDATORS,
            tls_keys=capture.tls_keys,
            epoch_blocks=epoch_blocks,
        )
        async with under_load(harness) as network:
            yield network
    check_signed_once(capture, harness)


@asynccontextmanager
async def under_load(harness: Harness) -> AsyncIterator[Harness]:
    async with harness as network:
        await network.start()
        await network.wait_for_height(3, seconds_max=START_SECONDS_MAX)
        load = Load([node.client for node in network.nodes], per_second=LOAD_PER_SECOND)
        await load.prepare()
        sending = asyncio.create_task(load.run())
        try:
            yield network
            compared = await network.one_chain()
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        print(f"{compared} blocks compared, {load.accepted} transactions accepted, {load.refused} refused")
        assert load.accepted > 0


def check_signed_once(capture: Capture, network: Harness) -> None:
    """By what went over the wires: no key on one machine signed two votes that exclude each other (C-6, C-7).

    All votes were seen: a quorum of them for every block that any node told of.
    """
    keys = sorted(each.consensus_key for each in network.genesis.validators)
    signatures = Signatures(keys, network.genesis.hash)
    for message in capture.messages():
        signatures.read(message)
    shared = {keys.index(public_key(development_key(seat))) for seat in network.shared_seats()}
    assert not signatures.forged
    assert not [str(each) for each in signatures.contradictions if each.place not in shared]
    notarized = signatures.signers(NOTARIZE)
    told = network.chronicle.told
    unseen = [height for height, block in told.items() if height and len(notarized[block]) < QUORUM]
    assert max(told) - min(unseen, default=max(told) + 1) < UNDER_WAY_MAX, unseen
    print(f"{signatures.count} votes, {len(signatures.contradictions)} contradictions")


async def recover(network: Harness, *nodes: int, seconds_max: float = BACK_SECONDS_MAX) -> None:
    """Two new final blocks at each of the nodes."""
    seconds = await network.wait_for_blocks(2, *nodes, seconds_max=seconds_max)
    print(f"back after {seconds:.1f} s")


def others(*nodes: int) -> list[int]:
    return [node for node in range(VALIDATORS) if node not in nodes]


async def test_r1_any_node_is_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with four_nodes(tmp_path) as network:
        for _ in range(KILLS):
            victim = chance.randrange(VALIDATORS)
            await asyncio.sleep(chance.uniform(0, 1))
            await network.kill(victim)
            await recover(network, *others(victim))
            await network.start(victim)
            await recover(network)


async def test_r2_the_next_leader_is_killed(tmp_path: Path) -> None:
    """A leader that is gone costs its view, and its turn comes again in every round."""
    async with four_nodes(tmp_path) as network:
        for _ in range(KILLS):
            leader = (await network.proposers(0, VALIDATORS))[0]  # it proposed longest ago
            await network.kill(leader)
            await recover(network, *others(leader))
            await network.wait_for_blocks(
                2 * VALIDATORS, *others(leader), seconds_max=2 * VALIDATORS * BACK_SECONDS_MAX
            )
            await network.start(leader)
            await recover(network)


async def test_r3_two_nodes_are_killed_at_once(tmp_path: Path) -> None:
    """Two of four are no quorum: nothing becomes final until one is back."""
    async with four_nodes(tmp_path) as network:
        await network.kill(1, 2)
        await network.check_standstill(0, 3)

        await network.start(1)
        await recover(network, 0, 1, 3)
        await network.start(2)
        await recover(network)


async def test_r4_all_nodes_are_killed_at_once(tmp_path: Path) -> None:
    async with four_nodes(tmp_path) as network:
        for _ in range(KILLS):
            await network.kill()
            start = time.monotonic()
            await network.start()
            await recover(network, seconds_max=ALL_BACK_SECONDS_MAX - (time.monotonic() - start))


async def test_r5_one_node_loses_its_data(tmp_path: Path) -> None:
    """It refuses to run with a key whose votes are forgotten; from a later epoch on it may, and fetches the chain."""
    async with four_nodes(tmp_path) as network:
        await network.kill(3)
        network.empty_data(3)
        await check_refusal(network, 3)
        await recover(network, 0, 1, 2)

        network.begin_journal(3, LATER_EPOCH)
        await network.start(3)

        await network.wait_for_blocks(2, 0, 1, 2, seconds_max=BACK_SECONDS_MAX)
        newest = max(height or 0 for height in await network.heights())
        await network.wait_for_height(newest, seconds_max=SYNC_SECONDS_MAX)


async def test_r6_two_nodes_lose_their_data(tmp_path: Path) -> None:
    """What they voted for is forgotten, so they do not vote, and the chain waits for people rather than fork."""
    async with four_nodes(tmp_path) as network:
        await network.kill(2, 3)
        for node in (2, 3):
            network.empty_data(node)
            await check_refusal(network, node)
        await network.check_standstill(0, 1)


async def test_r6_two_nodes_that_lost_their_data_follow_until_a_later_epoch(tmp_path: Path) -> None:
    async with four_nodes(tmp_path) as network:
        await network.kill(2, 3)
        for node in (2, 3):
            network.empty_data(node)
            network.begin_journal(node, LATER_EPOCH)
        await network.start(2, 3)

        await network.check_standstill(0, 1)
        newest = max(height or 0 for height in await network.heights())
        await network.wait_for_height(newest, seconds_max=SYNC_SECONDS_MAX)


async def check_refusal(network: Harness, node: int) -> None:
    """It ends at once and says why."""
    await network.launch(node)
    assert (await network.wait_ended(node)).code == Exit.DAMAGED
    assert "vote journal" in network.log(node).splitlines()[-1]


@pytest.mark.parametrize("seconds", sorted({0.5, PAUSE_SECONDS}))
async def test_r7_the_next_leader_is_paused(tmp_path: Path, seconds: float) -> None:
    """What it tells when it wakes up is not older than what it told before."""
    async with four_nodes(tmp_path) as network:
        leader = (await network.proposers(0, VALIDATORS))[0]
        network.pause(leader)
        await asyncio.sleep(seconds)
        await recover(network, *others(leader))

        network.resume(leader)

        await recover(network)


async def test_r7_two_nodes_are_paused(tmp_path: Path) -> None:
    """No quorum is awake; whatever the two were about to sign is out of date when they wake up."""
    async with four_nodes(tmp_path) as network:
        network.pause(1)
        network.pause(2)
        await network.check_standstill(0, 3)

        network.resume(1)
        await recover(network, 0, 1, 3)
        network.resume(2)
        await recover(network)


async def test_r8_each_node_is_stopped_in_turn(tmp_path: Path) -> None:
    async with four_nodes(tmp_path) as network:
        for node in range(VALIDATORS):
            ended = await network.terminate(node)
            assert ended.code == 0
            assert ended.seconds <= STOP_SECONDS_MAX
            await recover(network, *others(node))
            await network.start(node)
            await recover(network)


async def test_r9_a_node_is_killed_for_want_of_memory(tmp_path: Path) -> None:
    memory_limit.require()
    async with four_nodes(tmp_path) as network:
        with MemoryLimit() as limit:
            limit.starve(network.pid(2))
            async with asyncio.timeout(STARVE_SECONDS_MAX):
                while network.nodes[2].is_running:
                    await ask_for_much(network, 2)
            assert (await network.wait_ended(2)).code == -signal.SIGKILL

        await recover(network, *others(2))
        await network.start(2)
        await recover(network)


async def test_r9_a_node_is_refused_memory(tmp_path: Path) -> None:
    """It does without, or ends by itself; what it says meanwhile is true."""
    async with four_nodes(tmp_path) as network:
        memory_limit.refuse_more(network.pid(1))
        refusals = 0
        async with asyncio.timeout(STARVE_SECONDS_MAX):
            while network.nodes[1].is_running and refusals < REFUSALS:
                refusals += await ask_for_much(network, 1)

        await recover(network, *others(1))
        if network.nodes[1].is_running:
            await network.kill(1)
        else:
            assert (await network.wait_ended(1)).code == Exit.BROKEN
        await network.start(1)
        await recover(network)


async def ask_for_much(network: Harness, node: int) -> bool:
    """A large request, which needs memory; whether it got no answer."""
    try:
        await network.nodes[node].client.call("web3_sha3", "0x" + "00" * 400_000)
    except LOST:
        return True
    return False


async def test_r10_an_old_backup_is_restored(tmp_path: Path) -> None:
    """It does not vote again where it voted after the backup, and it catches up."""
    async with four_nodes(tmp_path) as network:
        await network.terminate(1)
        network.copy_data(1, tmp_path / "backup")
        await network.start(1)
        await network.wait_for_blocks(30, seconds_max=60)
        await network.kill(1)

        network.restore_data(1, tmp_path / "backup")
        await network.launch(1)

        await recover(network, *others(1))
        await network.wait_for_blocks(2, seconds_max=SYNC_SECONDS_MAX)


async def test_r10_a_backup_of_a_running_node_is_restored(tmp_path: Path) -> None:
    """Its key has voted since, and nothing on its disk says where: it waits, over a kill as well, and then votes."""
    async with four_nodes(tmp_path, epoch_blocks=10) as network:
        await network.back_up(1, tmp_path / "grid.backup")
        await recover(network)
        await network.kill(1)
        network.restore_backup(1, tmp_path / "grid.backup")
        await network.start(1)
        assert "validators heard" in str(await not_voting(network, 1))

        await network.kill(1)
        await network.start(1)
        await wait_for_words(network, 1, "not voting before view")
        await recover(network)
        assert 1 not in await network.proposers(0, 2)

        await wait_for_words(network, 1, None)
        assert not (network.nodes[1].directory / "votes" / "restored").exists()
        await recover(network)
        async with asyncio.timeout(VOTES_SECONDS_MAX):
            while 1 not in await network.proposers(0, 2 * VALIDATORS):
                await recover(network)


async def not_voting(network: Harness, node: int) -> str | None:
    status = await network.nodes[node].client.call("ctt_chainStatus")
    reason: str | None = status["notVoting"]
    return reason


async def wait_for_words(network: Harness, node: int, words: str | None) -> None:
    """Until the node says so of its votes; None: that it casts them."""
    async with asyncio.timeout(VOTES_SECONDS_MAX):
        while (reason := await not_voting(network, node)) is not words and not (
            reason and words and words in reason
        ):
            await asyncio.sleep(POLL_SECONDS)


async def test_r11_a_second_process_is_kept_off_a_directory(tmp_path: Path) -> None:
    async with four_nodes(tmp_path, more_places=1) as network:
        rival = await network.add_rival(0)

        await network.launch(rival)

        assert (await network.wait_ended(rival)).code == Exit.UNAVAILABLE
        assert "another node (pid" in network.log(0)
        await recover(network, *others())


async def test_r12_a_key_is_used_on_two_machines(tmp_path: Path) -> None:
    """One of the two finds out and stops; until then it is one faulty validator, which four tolerate: no fork."""
    async with four_nodes(tmp_path, more_places=1) as network:
        await network.kill(3)
        twin = await network.add_twin(3)
        await network.start(3, twin)

        async with asyncio.timeout(START_SECONDS_MAX):
            while network.nodes[3].is_running and network.nodes[twin].is_running:
                await recover(network, 0, 1, 2)

        stopped = twin if network.nodes[3].is_running else 3
        assert (await network.wait_ended(stopped)).code == Exit.BROKEN
        assert "another process votes with this validator's key" in network.log(stopped).splitlines()[-1]
        await recover(network, 0, 1, 2)
