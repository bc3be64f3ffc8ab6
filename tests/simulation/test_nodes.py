"""Whole nodes in a seeded network that loses, delays, cuts and kills: one chain, nothing lost, and on it goes."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from ctt_state.crypto import sha256
from ctt_state.errors import InvalidTransaction
from ctt_state.units import Hash
from ctt_state.votes import Kind, Statement, sign_vote
from node.consensus.events import Received
from tests.ledger_world import ALICE_KEY, BOB_KEY, sign
from tests.simulation.node_world import NodeWorld, Place, VirtualLoop

SEEDS: Final = int(os.environ.get("NODE_SEEDS", "16"))
QUIET_SECONDS: Final = 8.0  # after the faults: longer than any wait
MEMORY: Final = Path("/dev/shm")


def run(story: Coroutine[Any, Any, str]) -> str:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


async def live(directory: Path, seed: int) -> str:
    """A minute with faults, then peace. Gives a digest of what everyone holds final."""
    world = NodeWorld(directory, seed, validators=4, followers=1, epoch_blocks=20)
    chance = world.random
    world.faults.loss = chance.choice((0.0, 0.0, 0.02, 0.1))
    world.faults.delay_s = chance.choice(((0.001, 0.005), (0.02, 0.06), (0.0, 0.3)))
    world.start()
    nonces = {ALICE_KEY: 0, BOB_KEY: 0}
    try:
        for _ in range(12):
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            for key in nonces:
                place = chance.choice([each for each in world.places if each.is_up])
                signed = sign(key, nonces[key])
                try:
                    await place.node.submit(signed.transaction.raw)
                    nonces[key] += 1
                except InvalidTransaction:
                    pass  # an earlier one has not come this far
            await disturb(world)
        await heal(world)
        start = max(world.heights())
        await asyncio.sleep(QUIET_SECONDS)
        check(world, start)
        return digest(world)
    finally:
        await world.close()


async def disturb(world: NodeWorld) -> None:
    """At most one fault at a time stays."""
    chance = world.random
    down = [place for place in world.places if not place.is_up]
    match chance.randrange(5):
        case 0 if down:
            down[0].start()
        case 0 | 1 if not down:
            await chance.choice(world.places).crash()
        case 2:
            names = [place.name for place in world.places]
            world.set_cuts(set(chance.sample(names, chance.randint(1, len(names) - 1))))
        case 3:
            world.set_cuts(set())
        case 4:
            chance.choice(world.places).wall_offset_ms = chance.choice((-60_000, -300, 0, 300, 60_000))


async def heal(world: NodeWorld) -> None:
    world.set_cuts(set())
    world.faults.loss, world.faults.delay_s = 0.0, (0.001, 0.005)
    for place in world.places:
        place.wall_offset_ms = 0
        if not place.is_up:
            place.start()
    await asyncio.sleep(0.5)
    world.set_cuts(set())


def check(world: NodeWorld, start: int) -> None:
    for place in world.places:
        assert place.failure is None, f"{place.name}: {place.failure!r}"
    assert world.punished == []
    lowest = min(world.heights())
    assert lowest >= start + 8, world.heights()
    chains = {tuple(block_hashes(place, lowest)) for place in world.places}
    assert len(chains) == 1


def block_hashes(place: Place, upto: int) -> list[bytes]:
    blocks = [place.node.block(height) for height in range(upto + 1)]
    return [block.hash for block in blocks if block]


def digest(world: NodeWorld) -> str:
    lowest = min(world.heights())
    return hashlib.sha256(b"".join(block_hashes(world.places[0], lowest))).hexdigest()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nodes_agree_and_go_on_whatever_happened(seed: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        run(live(Path(directory), seed))


def test_one_seed_gives_one_chain() -> None:
    digests = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
            digests.append(run(live(Path(directory), 1)))
    assert digests[0] == digests[1]


async def accuse(directory: Path) -> None:
    """validator-4 signs two blocks in one view; validator-1 hears both."""
    world = NodeWorld(directory, 1, validators=4, epoch_blocks=20)
    world.start()
    try:
        await asyncio.sleep(2.0)
        honest, culprit = world.places[0], world.places[3]
        engine = honest.node.engine
        assert culprit.key and culprit.validator
        signer = engine.validators.place_of_address(culprit.validator)
        assert signer is not None
        for block in (b"one", b"another"):
            statement = Statement(Kind.NOTARIZE, 0, engine.view + 1, engine.view, Hash(sha256(block)))
            vote = sign_vote(statement, signer, culprit.key, world.genesis.hash)
            honest.node.runner.tell(Received(vote, culprit.name, signer, culprit.validator))
        await asyncio.sleep(8.0)
        for place in world.places[:3]:
            assert place.failure is None
            assert place.node.engine.epoch >= 1
            assert place.node.engine.validators.place_of_address(culprit.validator) is None
            assert len(place.node.engine.validators.members) == 3
        blocks = [honest.node.block(height) for height in range(honest.height + 1)]
        assert [len(block.block.evidence) for block in blocks if block and block.block.evidence] == [1]
    finally:
        await world.close()


def test_who_votes_twice_is_out_of_the_next_set(tmp_path: Path) -> None:
    """C-12, A-7: the proof goes into a block, which every node checks and acts on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(accuse(tmp_path))
