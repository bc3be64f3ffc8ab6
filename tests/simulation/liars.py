"""Four validators, one of which lies in one way, on a network that is cut and joined while machines stop and start.

Short runs, many of them: where a seed draws a liar among everything else, these have nothing but one.
"""

from random import Random
from typing import Final

from ctt_state.block import Block
from ctt_state.crypto import sha256
from ctt_state.units import Hash
from ctt_state.validators import epoch_of
from ctt_state.votes import Kind, Vote, sign_vote
from node.consensus.engine import Engine
from node.consensus.events import Message, Proposal
from tests.simulation.behaviours import ALL, Behaviour, Said
from tests.simulation.cluster import Cluster, Machine, quick_signatures
from tests.simulation.disk import GENESIS_HASH
from tests.simulation.network import Conditions
from tests.simulation.world import Outcome

ROUNDS: Final = 4
ROUND_MS: Final = (100, 350, 700, 1_500, 3_000)
AFTER_MS: Final = 10_000
BLOCKS_AFTER: Final = 4
NO_SIGNATURE: Final = bytes(64)


class Forger(Behaviour):
    """Shows votes that nobody signed: its own, and the leader's for a block of its choice."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Vote) or message.statement.kind is not Kind.NOTARIZE:
            return [(0, message)]
        statement = message.statement
        leader = machine.engine.validators.leader(statement.epoch, statement.view)
        voted = machine.engine.block(statement.block_hash)
        said: Said = [(0, message._replace(signature=NO_SIGNATURE))]
        if voted is not None:
            header = voted.header._replace(state_root=Hash(sha256(voted.header.state_root)))
            forged = Vote(statement._replace(block_hash=header.hash), leader, NO_SIGNATURE)
            said.append((0, Proposal(Block(header, voted.transactions), forged, None, ())))
        return said


class WrongParent(Behaviour):
    """Names the highest notarized view as its block's parent, and builds the block on the final head."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        head = machine.disk.head
        if (
            not isinstance(message, Proposal)
            or message.block.header.view != message.vote.statement.view
            or epoch_of(head.height + 1, world.epoch_blocks) != message.vote.statement.epoch
        ):
            return [(0, message)]
        block = world.make_block(head, message.block.header.view, message.block.header.timestamp_ms, b"low")
        statement = message.vote.statement._replace(block_hash=block.header.hash)
        vote = sign_vote(statement, message.vote.signer, machine.secret, GENESIS_HASH)
        return [(0, Proposal(block, vote, message.parent, message.nullifications))]


class BodySwapper(Behaviour):
    """Sends one of the others another body than the rest, which notarize the block."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        if not isinstance(message, Proposal) or to != (machine.number + 1) % world.size:
            return [(0, message)]
        swapped = message.block._replace(transactions=(b"swapped",))
        return [(0, Proposal(swapped, message.vote, message.parent, message.nullifications))]


LIARS: Final[tuple[type[Behaviour], ...]] = (*ALL, Forger, WrongParent, BodySwapper)


def run_liar(case: int, *, engine: type[Engine] = Engine) -> Outcome:
    """Safety throughout, and so many blocks when the faults of the others are over."""
    chance = Random(f"{case} liars")
    with quick_signatures():
        liar = LIARS[case % len(LIARS)](Random(chance.random()))
        place = chance.randrange(4)
        world = Cluster(
            case,
            size=4,
            epoch_blocks=chance.choice([4, 20]),
            behaviours={place: liar},
            engine=engine,
            keeps_trace=False,
        )
        network = world.network
        network.now = Conditions(delay_ms=chance.choice([(1, 20), (20, 150)]))
        for _ in range(ROUNDS):
            network.now.loss = chance.choice([0, 0, 50, 300])
            if chance.random() < 0.5:
                sides = [chance.randrange(2) for _ in world.machines]
                network.now.cut = frozenset(
                    (a, b) for a in range(4) for b in range(4) if sides[a] != sides[b]
                )
            else:
                network.join()
            if chance.random() < 0.3:
                for machine in world.machines:
                    world.arm_crash(machine.number, chance.randrange(1, 30), chance.choice([0, 100]))
            world.run_ms(chance.choice(ROUND_MS))
        network.join()
        network.now.loss = 0
        for machine in world.machines:
            machine.crash_in = 0
            world.restart(machine.number)
        before, healed_ms = world.checker.height, world.at_ms
        came = world.run_ms(AFTER_MS, lambda: world.checker.height > before)
        heal_ms = world.at_ms - healed_ms
        world.run_ms(AFTER_MS, lambda: world.checker.height >= before + BLOCKS_AFTER)
        world.checker.finish()
    violations = world.checker.violations
    if world.checker.height < before + BLOCKS_AFTER:
        violations = [*violations, f"shortfall: {world.checker.height - before} blocks, not {BLOCKS_AFTER}"]
    height = world.checker.height
    return Outcome(violations, world.views, height, world.trace_hash, heal_ms if came else None)
