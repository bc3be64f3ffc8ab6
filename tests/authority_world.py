"""A consortium in memory: validators with keys, blocks that are begun and closed as a ledger does it, no tree."""

from typing import Any, Final, NamedTuple

from ctt_state.crypto import public_key, sha256, sign_compact
from ctt_state.epoch import begin_block, close_block, validators_of
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.proposals import ready_digest
from ctt_state.records import Change, EpochSet, Outcome
from ctt_state.units import ZERO_HASH, Address, Hash, Height
from ctt_state.validators import Member, ValidatorSet, epoch_of, fixing_height
from ctt_state.votes import Evidence, Kind, Statement, Vote, sign_vote
from tests.world import World, address

EPOCH_BLOCKS: Final = 10

PROPOSE: Final = "propose(address,bytes,bool)"
VOTE: Final = "vote(uint256)"
READY: Final = "ready(uint256,uint64,bytes)"
WITHDRAW: Final = "withdraw(uint256)"


def secret(name: str) -> bytes:
    """The private consensus key of a name."""
    return sha256(b"consensus key of " + name.encode())


def node_key(name: str) -> bytes:
    return public_key(secret(name))


def member(name: str) -> Member:
    return Member(address(name), node_key(name))


def set_of(*names: str) -> tuple[Member, ...]:
    """The members in the order of a set."""
    return tuple(sorted(map(member, names), key=lambda each: each.consensus_key))


class Seen(NamedTuple):
    """A proposal as `proposal(uint256)` shows it."""

    number: int
    change: Change
    validator: Address
    node_key: bytes
    proposer: Address
    proposed_height: Height
    expiry_height: Height
    voters: tuple[Address, ...]
    carried_height: Height
    ready_height: Height
    outcome: Outcome
    closed_height: Height


class Consortium(World):
    """A chain whose first set are these names. `headers` are the two hashes of sets of each closed block."""

    module = AUTHORITY

    def __init__(self, *names: str, development: bool = False, epoch_blocks: int = EPOCH_BLOCKS) -> None:
        super().__init__(created=False, development=development, epoch_blocks=epoch_blocks)
        self.put(EpochSet.key(0), EpochSet(set_of(*names)))
        self.headers: list[tuple[Hash, Hash]] = []

    # --- blocks ---

    def next_block(self, *evidence: bytes) -> None:
        """Closes the block that is being made and begins one with this evidence."""
        self.headers.append(close_block(self.overlay, self.block.height, self.chain))
        self.pass_ms(self.chain.block_period_ms)
        begin_block(self.overlay, evidence, self.block.height, self.chain)

    def close_until(self, height: int) -> None:
        """Until the block of this height is being made."""
        while self.block.height < height:
            self.next_block()

    def fix(self) -> None:
        """Until the next set is fixed: of this epoch, or where it is, of the next one."""
        epoch = self.epoch if self.block.height <= self.fixing_height else self.epoch + 1
        self.close_until(fixing_height(epoch, self.chain.epoch_blocks) + 1)

    def turn(self) -> None:
        """Until the first block of the next epoch."""
        self.close_until((self.epoch + 1) * self.chain.epoch_blocks + 1)

    @property
    def epoch(self) -> int:
        return epoch_of(self.block.height, self.chain.epoch_blocks)

    @property
    def fixing_height(self) -> Height:
        return fixing_height(self.epoch, self.chain.epoch_blocks)

    def validators(self, epoch: int | None = None) -> ValidatorSet:
        """Those of an epoch; of none, the latest that is fixed."""
        if epoch is None:
            epoch = self.epoch + (self.get(EpochSet.key(self.epoch + 1)) is not None)
        return validators_of(self.overlay.lookup, epoch)

    # --- governance ---

    def propose(self, proposer: str, validator: str, key: str | None = None) -> int:
        """Adds the validator with its own key or, if that is named, another's."""
        number: int = self.done(
            address(proposer), PROPOSE, address(validator), node_key(key or validator), True
        )
        return number

    def propose_removal(self, proposer: str, validator: str) -> int:
        number: int = self.done(address(proposer), PROPOSE, address(validator), b"", False)
        return number

    def vote(self, number: int, *voters: str) -> None:
        for voter in voters:
            self.done(address(voter), VOTE, number)

    def ready_signature(self, number: int, key: str, height: int) -> bytes:
        """The proposed key's, when it is that of this name."""
        digest = ready_digest(ZERO_HASH, self.proposal(number).validator, number, height)
        return sign_compact(secret(key), digest)

    def ready(self, number: int, key: str, height: int | None = None) -> None:
        height = self.block.height if height is None else height
        signature = self.ready_signature(number, key, height)
        self.done(address("passer-by"), READY, number, height, signature)

    def proposal(self, number: int) -> Seen:
        return Seen(*self.call("proposal(uint256)", number))

    def outcome(self, number: int) -> Outcome:
        return Outcome(self.proposal(number).outcome)

    # --- evidence ---

    def vote_of(
        self, name: str, kind: Kind, view: int, block_hash: bytes, *, epoch: int | None = None
    ) -> Vote:
        """A vote that the name's key signs, at its place in the set of that epoch (the present one)."""
        epoch = self.epoch if epoch is None else epoch
        place = self.validators(epoch).place_of_key(node_key(name))
        parent = 0 if kind is Kind.NULLIFY else view - 1
        statement = Statement(kind, epoch, view, parent, Hash(block_hash))
        return sign_vote(statement, place or 0, secret(name), ZERO_HASH)

    def evidence_against(self, name: str, view: int = 1, *, epoch: int | None = None) -> bytes:
        """Two NOTARIZEs of one view."""
        votes = [self.vote_of(name, Kind.NOTARIZE, view, bytes([n]) * 32, epoch=epoch) for n in (1, 2)]
        return Evidence(*votes).encode()


def refused(world: World, sender: str, signature: str, *arguments: Any) -> str:
    """The reason's text."""
    return world.refusal(address(sender), signature, *arguments).reason
