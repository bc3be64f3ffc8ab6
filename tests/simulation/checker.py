"""What must hold in every run, recomputed from what was sent and what is on the disks. Shares nothing with the engine.

The world tells of each vote, certificate and height that goes out, of each item that becomes durable, and of each final
block. The first violation is the one to look at; later ones often follow from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctt_state.block import Block, Header
from ctt_state.crypto import sha256
from ctt_state.units import ZERO_HASH, Hash
from ctt_state.validators import ValidatorSet, boundary_of, epoch_of, fixing_height
from ctt_state.votes import Certificate, Evidence, Kind, Statement, Vote, is_signed

View = tuple[int, int]  # epoch, view
VIOLATIONS_MAX = 20
BLOCKS_MAX = 256
EARLY_MAX = 64
VIEWS_AHEAD = 12  # of the present view, that an engine may keep votes of


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much an engine holds. `views_open` is from the last final view to the present one."""

    rounds: int
    blocks: int
    early: int
    seen: int
    views_open: int


@dataclass
class _Key:
    """What is known of one honest key: what it signed, and what was durable before."""

    signed: dict[View, dict[Kind, Statement]] = field(default_factory=dict)
    votes: set[Statement] = field(default_factory=set)
    relied: set[Statement] = field(default_factory=set)
    blocks: set[Hash] = field(default_factory=set)
    shown: set[Statement] = field(default_factory=set)


class Checker:
    """`sets` gives the validators of an epoch; `byzantine` are the keys whose holders may do anything."""

    def __init__(
        self,
        genesis: Block,
        sets: Callable[[int], ValidatorSet],
        *,
        epoch_blocks: int,
        period_ms: int,
        byzantine: frozenset[bytes] = frozenset(),
    ) -> None:
        self.violations: list[str] = []
        self.stamp_ms = genesis.header.timestamp_ms  # the latest time of any block
        self._sets, self._epoch_blocks, self._period_ms = sets, epoch_blocks, period_ms
        self._byzantine = byzantine
        self._genesis = genesis
        self._keys: dict[bytes, _Key] = {}
        self._signers: dict[Statement, set[int]] = {}
        self._quorums: dict[View, dict[Kind, list[Statement]]] = {}
        self._headers: dict[Hash, Header] = {genesis.header.hash: genesis.header}
        self._chain: list[Hash] = [genesis.header.hash]
        self._finals: dict[int, list[Hash]] = {}
        self._finalized: set[Hash] = set()
        self._checked: set[Certificate] = set()
        self._barred: set[bytes] = set()  # by the evidence in final blocks
        self._leaving: set[bytes] = set()  # those of them that were barred when the next set was fixed

    @property
    def height(self) -> int:
        """Of the highest block that is final on any honest machine."""
        return len(self._chain) - 1

    @property
    def barred(self) -> int:
        """How many keys final blocks have barred."""
        return len(self._barred)

    # --- what is told ---------------------------------------------------------------------------------------------

    def on_block(self, header: Header) -> None:
        """A block that somebody made or sent."""
        if header.hash not in self._headers:
            self._headers[header.hash] = header
            self.stamp_ms = max(self.stamp_ms, header.timestamp_ms)

    def on_vote(self, vote: Vote, floor: Header) -> None:
        """A vote leaves a machine whose final head is `floor`; what is below that is not in its journal any more."""
        key = self._key_of(vote)
        if key is None:
            return
        if key not in self._byzantine:
            known = self._keys.setdefault(key, _Key())
            if vote.statement not in known.shown:
                known.shown.add(vote.statement)
                self._check_durable(known, vote.statement, floor)
        self._learn(vote, key)

    def on_certificate(self, certificate: Certificate, *, is_honest: bool = True) -> None:
        """A certificate leaves a machine, or stands on its disk."""
        if certificate in self._checked:
            return
        members = self._sets(certificate.statement.epoch).keys
        signers = [signer for signer, _ in certificate.signatures]
        votes = [
            Vote(certificate.statement, signer, signature) for signer, signature in certificate.signatures
        ]
        genuine = [each for each in votes if is_signed(each, members, self._genesis.header.genesis_hash)]
        for vote in genuine:
            self._learn(vote, members[vote.signer])
        if len(genuine) == len(votes) >= _quorum(len(members)) and signers == sorted(set(signers)):
            self._checked.add(certificate)
        elif is_honest:
            self._blame(f"an honest machine holds an invalid certificate: {_words(certificate.statement)}")

    def on_synced(self, key: bytes, items: Sequence[Vote | Certificate | Block]) -> None:
        """These are durable in the journal of this key."""
        known = self._keys.setdefault(key, _Key())
        for item in items:
            match item:
                case Vote():
                    known.votes.add(item.statement)
                    self._learn(item, key)
                case Certificate():
                    known.relied.add(item.statement)
                    self.on_certificate(item, is_honest=key not in self._byzantine)
                case Block():
                    known.blocks.add(item.header.hash)
                    self.on_block(item.header)

    def on_final(self, machine: int, block: Block, certificate: Certificate | None) -> None:
        """An honest machine has this block durably in its final chain."""
        header, block_hash = block.header, block.header.hash
        self.on_block(header)
        chain = self._finals.setdefault(machine, [self._genesis.header.hash])
        if header.height != len(chain) or header.parent_hash != chain[-1]:
            self._blame(f"machine {machine} puts block {header.height} on its block {len(chain) - 1}")
            return
        chain.append(block_hash)
        if header.height < len(self._chain):
            if self._chain[header.height] != block_hash:
                self._blame(f"machine {machine} has another final block {header.height} than others")
        else:
            self._chain.append(block_hash)
            self._check_block(block)
        if certificate is not None:
            self.on_certificate(certificate)
            statement = certificate.statement
            if statement.kind is not Kind.FINALIZE or statement.block_hash != block_hash:
                self._blame(f"machine {machine} keeps {_words(statement)} as proof of block {header.height}")

    def on_restart(self, machine: int, chain: Sequence[Hash]) -> None:
        """What a starting machine finds on its disk, lowest first."""
        if list(chain) != self._finals.get(machine, [self._genesis.header.hash]):
            self._blame(f"machine {machine} does not find the final chain that it had")

    def on_restored(self, machine: int, key: bytes, blocks: int) -> None:
        """Of its final chain a machine has so many blocks again, genesis included, and nothing of the key's journal.
        What the key has signed binds it all the same."""
        del self._finals.setdefault(machine, [self._genesis.header.hash])[blocks:]
        known = self._keys.setdefault(key, _Key())
        for each in (known.votes, known.relied, known.blocks):
            each.clear()

    def on_told(self, machine: int, height: int, block_hash: Hash) -> None:
        """A machine says that this is its final head."""
        chain = self._finals.get(machine, [self._genesis.header.hash])
        if height >= len(chain) or chain[height] != block_hash:
            self._blame(f"machine {machine} tells of final block {height} before it is durable")

    def on_accused(self, key: bytes) -> None:
        if key not in self._byzantine:
            self._blame(f"an honest validator is accused: {key.hex()[:8]}")

    def on_halted(self, machine: int, reason: str) -> None:
        self._blame(f"honest machine {machine} halts: {reason}")

    def on_refused(self, machine: int, reason: str) -> None:
        self._blame(f"the journal of machine {machine} must refuse {reason}")

    def on_misread(self, machine: int) -> None:
        self._blame(f"machine {machine} refuses its journal, or reads it otherwise than it was written")

    def on_sizes(self, machine: int, sizes: Sizes) -> None:
        limits = {
            "rounds": sizes.views_open + VIEWS_AHEAD,
            "blocks": BLOCKS_MAX,
            "early": EARLY_MAX,
            "seen": 2 * BLOCKS_MAX,
        }
        for what, limit in limits.items():
            if getattr(sizes, what) > limit:
                self._blame(f"machine {machine} keeps {getattr(sizes, what)} {what}, over {limit}")

    def finish(self) -> None:
        """What can only be told at the end."""
        heights = [self._headers[each].height for each in self._finalized if each in self._chain]
        if self.height > max(heights, default=0):
            self._blame(f"block {self.height} is final somewhere without a quorum's FINALIZE at or above it")
        for block_hash in self._chain[1:]:
            header = self._headers[block_hash]
            said = self._quorums.get((header.epoch, header.view), {}).get(Kind.NOTARIZE, [])
            if all(each.block_hash != block_hash for each in said):
                self._blame(f"final block {header.height} was never notarized in its view {header.view}")
        self._check_later()

    # --- votes ----------------------------------------------------------------------------------------------------

    def _learn(self, vote: Vote, key: bytes) -> None:
        signers = self._signers.setdefault(vote.statement, set())
        if vote.signer in signers:
            return
        signers.add(vote.signer)
        if key not in self._byzantine:
            self._check_once(key, vote.statement)
        if len(signers) == _quorum(len(self._sets(vote.statement.epoch).members)):
            self._on_quorum(vote.statement)

    def _check_once(self, key: bytes, statement: Statement) -> None:
        """An honest key: one block at most in a view, NOTARIZE and FINALIZE alike, and never NULLIFY with FINALIZE."""
        known = self._keys.setdefault(key, _Key())
        kinds = known.signed.setdefault((statement.epoch, statement.view), {})
        for other in kinds.values():
            is_same = (other.parent_view, other.block_hash) == (statement.parent_view, statement.block_hash)
            pair = {other.kind, statement.kind}
            if pair == {Kind.NULLIFY, Kind.FINALIZE} or (Kind.NULLIFY not in pair and not is_same):
                self._blame(f"key {key.hex()[:8]} signs {_words(statement)} after {_words(other)}")
        kinds.setdefault(statement.kind, statement)

    def _check_durable(self, known: _Key, statement: Statement, floor: Header) -> None:
        """Before a vote is seen it is on the disk, with its block and the certificates it relies on."""
        if (statement.epoch, statement.view) <= (floor.epoch, floor.view):
            return
        if statement not in known.votes:
            self._blame(f"{_words(statement)} is seen before it is durable")
        if statement.kind is Kind.FINALIZE:
            self._check_relied(known, statement, Kind.NOTARIZE, statement.view, floor)
        if statement.kind is not Kind.NOTARIZE:
            return
        header = self._headers.get(statement.block_hash)
        if statement.block_hash not in known.blocks and (header is None or header.height > floor.height):
            self._blame(f"{_words(statement)} is seen before its block is durable")
        if statement.parent_view:
            self._check_relied(known, statement, Kind.NOTARIZE, statement.parent_view, floor)
        for view in range(statement.parent_view + 1, statement.view):
            self._check_relied(known, statement, Kind.NULLIFY, view, floor)

    def _check_relied(self, known: _Key, said: Statement, kind: Kind, view: int, floor: Header) -> None:
        """That a quorum stands behind what the vote relies on, and that the voter has it on its disk."""
        quorums = self._quorums.get((said.epoch, view), {})
        found = quorums.get(kind, [])
        if kind is Kind.NOTARIZE:
            found = [*found, *quorums.get(Kind.FINALIZE, [])]
        if not found:
            self._blame(f"{_words(said)} relies on view {view}, which has no quorum's {kind.name}")
        elif (said.epoch, view) > (floor.epoch, floor.view) and not any(
            each in known.relied for each in found
        ):
            self._blame(f"{_words(said)} is seen before the {kind.name} of view {view} is durable")

    # --- quorums --------------------------------------------------------------------------------------------------

    def _on_quorum(self, statement: Statement) -> None:
        kinds = self._quorums.setdefault((statement.epoch, statement.view), {})
        for other in kinds.get(statement.kind, []):
            self._blame(f"two quorums: {_words(statement)} and {_words(other)}")
        kinds.setdefault(statement.kind, []).append(statement)
        if Kind.NULLIFY in kinds and Kind.FINALIZE in kinds:
            self._blame(f"view {statement.view} of epoch {statement.epoch} is both nullified and final")
        if statement.kind is Kind.FINALIZE:
            self._finalized.add(statement.block_hash)
            if statement._replace(kind=Kind.NOTARIZE) not in kinds.get(Kind.NOTARIZE, []):
                self._blame(f"{_words(statement)} has a quorum and no notarization")
        if statement.kind is not Kind.NULLIFY:
            self._check_ancestry(statement)

    def _check_ancestry(self, statement: Statement) -> None:
        """A certified block stands on the certified block of its parent view, with every view between given up."""
        header = self._headers.get(statement.block_hash)
        if header is None:
            self._blame(f"{_words(statement)} has a quorum, and nobody ever sent the block")
            return
        if header.epoch != statement.epoch or epoch_of(header.height, self._epoch_blocks) != statement.epoch:
            self._blame(f"{_words(statement)}: block {header.height} is outside the epoch")
        for view in range(statement.parent_view + 1, statement.view):
            if not self._quorums.get((statement.epoch, view), {}).get(Kind.NULLIFY):
                self._blame(f"{_words(statement)} skips view {view}, which was never nullified")
        parents = self._certified(statement.epoch, statement.parent_view)
        last = boundary_of(statement.epoch, self._epoch_blocks)
        is_again = header.height == last and statement.block_hash in parents
        if header.parent_hash not in parents and not is_again:
            self._blame(f"{_words(statement)} does not stand on the block of view {statement.parent_view}")

    def _certified(self, epoch: int, view: int) -> list[Hash]:
        """The blocks that a quorum notarized in a view; in view 0 the one that ends the epoch before."""
        if view == 0:
            height = boundary_of(epoch - 1, self._epoch_blocks) if epoch else 0
            return self._chain[height : height + 1]
        kinds = self._quorums.get((epoch, view), {})
        return [each.block_hash for kind in (Kind.NOTARIZE, Kind.FINALIZE) for each in kinds.get(kind, [])]

    def _check_later(self) -> None:
        """Whatever is notarized stands on the final block of the last view below that is final, in its epoch."""
        final: Statement | None = None
        for (epoch, _), kinds in sorted(self._quorums.items()):
            if final is not None and final.epoch == epoch:
                for said in kinds.get(Kind.NOTARIZE, []):
                    if not self._stands_on(said.block_hash, final.block_hash):
                        self._blame(f"{_words(said)} does not stand on final view {final.view}")
            for said in kinds.get(Kind.FINALIZE, []):
                final = said

    def _stands_on(self, block_hash: Hash, ancestor: Hash) -> bool:
        target = self._headers.get(ancestor)
        while target is not None and block_hash != ancestor:
            header = self._headers.get(block_hash)
            if header is None or header.height <= target.height:
                return False
            block_hash = header.parent_hash
        return target is not None

    # --- final blocks ---------------------------------------------------------------------------------------------

    def _check_block(self, block: Block) -> None:
        """The first time that a block is final anywhere: all that its header claims."""
        header = block.header
        epoch = epoch_of(header.height, self._epoch_blocks)
        members, parent = self._sets(epoch), self._headers[header.parent_hash]
        is_fixed = header.height >= fixing_height(epoch, self._epoch_blocks)
        following = self._sets(epoch + 1) if is_fixed else members
        root = sha256(parent.state_root + b"".join(block.transactions))
        self._check_evidence(block)
        if header.height == fixing_height(epoch, self._epoch_blocks):
            self._leaving = set(self._barred)
        claims = {
            "epoch": header.epoch == epoch,
            "time": header.timestamp_ms >= parent.timestamp_ms + self._period_ms,
            "proposer": header.proposer == members.members[members.leader(epoch, header.view)].address,
            "validators": (header.validators_hash, header.next_validators_hash)
            == (members.hash, following.hash),
            "next set": len(following.members) <= 4 or not self._leaving.intersection(following.keys),
            "view": (header.epoch, header.view) > (parent.epoch, parent.view),
            "state root": header.state_root == root,
        }
        for what, holds in claims.items():
            if not holds:
                self._blame(f"final block {header.height} has a wrong {what}")

    def _check_evidence(self, block: Block) -> None:
        """Each piece bars a key that lied, and no key twice."""
        for piece in block.evidence:
            first, second = Evidence.decode(piece)
            members = self._sets(first.statement.epoch).keys
            key = members[first.signer]
            is_genuine = all(
                is_signed(each, members, self._genesis.header.genesis_hash) for each in (first, second)
            )
            if not is_genuine or key not in self._byzantine or key in self._barred:
                self._blame(f"final block {block.header.height} bars {key.hex()[:8]} without a reason")
            self._barred.add(key)

    # --------------------------------------------------------------------------------------------------------------

    def _key_of(self, vote: Vote) -> bytes | None:
        """The key that really signed it, None for a forgery."""
        keys = self._sets(vote.statement.epoch).keys
        known = self._signers.get(vote.statement)
        if known is not None and vote.signer in known:
            return keys[vote.signer]
        return keys[vote.signer] if is_signed(vote, keys, self._genesis.header.genesis_hash) else None

    def _blame(self, what: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX and what not in self.violations:
            self.violations.append(what)


def _quorum(validators: int) -> int:
    """More than two thirds of the honest and the faulty together: n - f."""
    return validators - (validators - 1) // 3


def _words(statement: Statement) -> str:
    block = "" if statement.block_hash == ZERO_HASH else f" of {statement.block_hash.hex()[:8]}"
    return f"{statement.kind.name}{block} in view {statement.epoch}/{statement.view}"
