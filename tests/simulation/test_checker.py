"""The checker by itself: a history without fault passes, and each rule has a history that breaks it alone."""

from collections.abc import Iterator

import pytest

from ctt_state.block import Block, Header
from ctt_state.units import ZERO_HASH, Ms
from ctt_state.validators import ValidatorSet
from ctt_state.votes import Certificate, Evidence, Kind, Statement, Vote, sign_vote
from tests.simulation.checker import Checker, Sizes
from tests.simulation.cluster import PERIOD_MS, WALL_MS, member_of, public_of, quick_signatures, secret_of
from tests.simulation.disk import GENESIS_HASH, make_block, make_genesis

SIZE = 4
EPOCH_BLOCKS = 4
OWNERS = sorted(range(SIZE), key=lambda owner: public_of(secret_of(owner, 0)))
MEMBERS = ValidatorSet(tuple(member_of(owner, 0) for owner in OWNERS))
N, X, F = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_signatures():
        yield


class History:
    """What the honest tell a checker, in the order in which they do it."""

    def __init__(self, byzantine: tuple[int, ...] = (), members: ValidatorSet = MEMBERS) -> None:
        self.members = members
        self.genesis = make_genesis(members, WALL_MS)
        self.checker = Checker(
            self.genesis,
            lambda epoch: members,
            epoch_blocks=EPOCH_BLOCKS,
            period_ms=PERIOD_MS,
            byzantine=frozenset(members.keys[each] for each in byzantine),
        )

    @property
    def first(self) -> str:
        return self.checker.violations[0] if self.checker.violations else ""

    def block(
        self, parent: Block, view: int, transaction: bytes = b"", evidence: tuple[bytes, ...] = ()
    ) -> Block:
        header = parent.header
        return make_block(
            header,
            view=view,
            timestamp_ms=header.timestamp_ms + PERIOD_MS,
            sets=(self.members, self.members),
            epoch_blocks=EPOCH_BLOCKS,
            transactions=(transaction,),
            evidence=evidence,
        )

    def vote(
        self,
        signer: int,
        statement: Statement,
        reliance: tuple[Certificate, ...] = (),
        block: Block | None = None,
        floor: Header | None = None,
    ) -> None:
        """Synced with what it relies on, then sent."""
        vote = _sign(signer, statement)
        blocks = () if block is None else (block,)
        self.checker.on_synced(MEMBERS.keys[signer], (*reliance, *blocks, vote))
        self.checker.on_vote(vote, floor or self.genesis.header)

    def notarize(
        self,
        block: Block,
        parent_view: int,
        reliance: tuple[Certificate, ...] = (),
        by: tuple[int, ...] = (0, 1, 2),
    ) -> Certificate:
        statement = _about(N, block, parent_view)
        self.checker.on_block(block.header)
        for signer in by:
            self.vote(signer, statement, reliance, block)
        return _certify(statement)

    def finalize(self, block: Block, parent_view: int, notarization: Certificate) -> Certificate:
        statement = _about(F, block, parent_view)
        for signer in range(3):
            self.vote(signer, statement, (notarization,))
        return _certify(statement)

    def nullify(self, view: int, by: tuple[int, ...] = (0, 1, 2)) -> Certificate:
        statement = _nullify(view)
        for signer in by:
            self.vote(signer, statement)
        return _certify(statement)


def _sign(signer: int, statement: Statement) -> Vote:
    return sign_vote(statement, signer, secret_of(OWNERS[signer], 0), GENESIS_HASH)


def _about(kind: Kind, block: Block, parent_view: int, view: int | None = None) -> Statement:
    header = block.header
    return Statement(kind, header.epoch, header.view if view is None else view, parent_view, header.hash)


def _nullify(view: int) -> Statement:
    return Statement(X, 0, view, 0, ZERO_HASH)


def _certify(statement: Statement, by: tuple[int, ...] = (0, 1, 2)) -> Certificate:
    return Certificate(statement, tuple((signer, _sign(signer, statement).signature) for signer in by))


def _first_final(history: History) -> tuple[Block, Certificate, Certificate]:
    """Block 1 in view 1, notarized, finalized and durable at machine 0."""
    block = history.block(history.genesis, 1)
    notarization = history.notarize(block, 0)
    final = history.finalize(block, 0, notarization)
    history.checker.on_final(0, block, final)
    return block, notarization, final


def test_a_chain_with_a_skipped_view_and_an_end_of_epoch_passes() -> None:
    history = History()
    block, _, final = _first_final(history)
    gap = history.nullify(2)
    parent, parent_view = block, 1
    reliance: tuple[Certificate, ...] = (final, gap)
    for view in (3, 4, 5):
        parent = history.block(parent, view)
        notarization = history.notarize(parent, parent_view, reliance)
        final = history.finalize(parent, parent_view, notarization)
        history.checker.on_final(0, parent, final)
        parent_view, reliance = view, (notarization,)
    history.notarize(history.block(parent, 1), 0)
    history.checker.on_told(0, 4, parent.header.hash)
    history.checker.finish()
    assert history.checker.violations == []
    assert history.checker.height == 4


def test_an_end_of_epoch_may_be_proposed_again() -> None:
    history = History()
    parent, view = history.genesis, 0
    reliance: tuple[Certificate, ...] = ()
    for height in range(1, 5):
        parent = history.block(parent, height)
        notarization = history.notarize(parent, view, reliance)
        view, reliance = height, (notarization,)
    again = _about(N, parent, 4, view=5)
    for signer in range(3):
        history.vote(signer, again, reliance, parent)
    history.checker.finish()
    assert history.checker.violations == []


# --- sign once ----------------------------------------------------------------------------------------------------------


def test_two_blocks_in_a_view_by_one_honest_key() -> None:
    history = History()
    for transaction in (b"a", b"b"):
        history.notarize(history.block(history.genesis, 1, transaction), 0, by=(3,))
    assert "signs NOTARIZE" in history.first


def test_two_parents_for_a_block_by_one_honest_key() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    statement = _about(N, block, 0, view=2)
    history.checker.on_vote(_sign(0, statement._replace(parent_view=1)), history.genesis.header)
    history.checker.violations.clear()
    history.vote(0, statement, (), block)
    assert any("signs NOTARIZE" in each for each in history.checker.violations)


def test_nullify_and_finalize_by_one_honest_key() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    notarization = history.notarize(block, 0)
    history.nullify(1, by=(3,))
    history.vote(3, _about(F, block, 0), (notarization,))
    assert "signs FINALIZE" in history.first


def test_finalize_of_another_block_than_was_notarized() -> None:
    history = History()
    block, other = (history.block(history.genesis, 1, each) for each in (b"a", b"b"))
    notarization = history.notarize(block, 0)
    history.notarize(other, 0, by=(3,))
    history.vote(3, _about(F, block, 0), (notarization,))
    assert "signs FINALIZE" in history.first


def test_notarize_and_nullify_are_honest_and_a_liar_may_sign_anything() -> None:
    history = History(byzantine=(3,))
    block = history.block(history.genesis, 1)
    history.notarize(block, 0)
    history.nullify(1)
    history.vote(3, _nullify(1))
    history.vote(3, _about(F, block, 0))
    history.checker.on_vote(_sign(3, _about(N, history.block(history.genesis, 1, b"x"), 0)), block.header)
    assert history.checker.violations == []


# --- durable before visible -------------------------------------------------------------------------------------------


def test_a_vote_seen_before_it_is_durable() -> None:
    history = History()
    history.checker.on_vote(_sign(0, _nullify(1)), history.genesis.header)
    assert "before it is durable" in history.first


def test_a_block_voted_for_that_is_not_durable() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    history.vote(0, _about(N, block, 0))
    assert "before its block is durable" in history.first


def test_a_certificate_relied_on_that_is_not_durable() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    history.notarize(block, 0)
    history.vote(0, _about(F, block, 0))
    assert "before the NOTARIZE of view 1 is durable" in history.first


def test_a_final_block_told_before_it_is_durable() -> None:
    history = History()
    block, _, _ = _first_final(history)
    history.checker.on_told(1, 1, block.header.hash)
    assert "before it is durable" in history.first


# --- quorums ----------------------------------------------------------------------------------------------------------


def test_two_notarizations_in_a_view() -> None:
    history = History(byzantine=(0, 1, 2))
    for transaction in (b"a", b"b"):
        history.notarize(history.block(history.genesis, 1, transaction), 0)
    assert "two quorums" in history.first


def test_a_view_both_nullified_and_final() -> None:
    history = History(byzantine=(0, 1, 2))
    _first_final(history)
    history.nullify(1)
    assert "both nullified and final" in history.first


def test_a_finalization_without_a_notarization() -> None:
    history = History(byzantine=(0, 1, 2))
    block = history.block(history.genesis, 1)
    history.checker.on_block(block.header)
    history.checker.on_certificate(_certify(_about(F, block, 0)))
    assert "no notarization" in history.first


def test_a_skipped_view_that_was_not_nullified() -> None:
    history = History(byzantine=(0, 1, 2))
    history.notarize(history.block(history.genesis, 2), 0)
    assert "never nullified" in history.first


def test_an_honest_vote_over_a_view_that_was_not_nullified() -> None:
    history = History()
    history.notarize(history.block(history.genesis, 2), 0, by=(0,))
    assert "has no quorum's NULLIFY" in history.first


def test_a_parent_that_is_not_the_block_of_its_view() -> None:
    history = History(byzantine=(0, 1, 2))
    history.notarize(history.block(history.genesis, 1, b"a"), 0)
    history.notarize(history.block(history.block(history.genesis, 1, b"b"), 2), 1)
    assert "does not stand on the block of view 1" in history.first


def test_a_block_beyond_the_end_of_its_epoch() -> None:
    history = History()
    parent, view = history.genesis, 0
    reliance: tuple[Certificate, ...] = ()
    for height in range(1, 5):
        parent = history.block(parent, height)
        reliance = (history.notarize(parent, view, reliance),)
        view = height
    beyond = history.block(parent, 5)
    late = Block(beyond.header._replace(epoch=0), beyond.transactions)
    history.notarize(late, 4, reliance)
    assert "outside the epoch" in history.first


def test_a_later_notarization_that_goes_round_a_final_block() -> None:
    history = History(byzantine=(0, 1, 2))
    _first_final(history)
    history.nullify(1, by=(0, 1, 3))
    history.checker.violations.clear()
    history.notarize(history.block(history.genesis, 2, b"round"), 0)
    history.checker.finish()
    assert any("does not stand on final view 1" in each for each in history.checker.violations)


def test_an_invalid_certificate_at_an_honest_machine() -> None:
    statement = _nullify(1)
    good = _certify(statement)
    for signatures in (
        good.signatures[:2],
        (good.signatures[0],) * 3,
        ((0, bytes(64)), *good.signatures[1:]),
    ):
        history = History(byzantine=(0, 1, 2))
        history.checker.on_certificate(Certificate(statement, signatures))
        assert "invalid certificate" in history.first
        history = History(byzantine=(0, 1, 2))
        history.checker.on_certificate(Certificate(statement, signatures), is_honest=False)
        assert history.first == ""


# --- final chains -----------------------------------------------------------------------------------------------------


def test_two_machines_with_different_final_blocks() -> None:
    history = History()
    _first_final(history)
    history.checker.on_final(1, history.block(history.genesis, 1, b"other"), None)
    assert "another final block 1" in history.first


def test_a_final_block_that_does_not_follow() -> None:
    history = History()
    block, _, final = _first_final(history)
    history.checker.on_final(0, block, final)
    assert "puts block 1 on its block 1" in history.first


def test_a_chain_lost_over_a_restart() -> None:
    history = History()
    block, _, _ = _first_final(history)
    genesis_hash = history.genesis.header.hash
    history.checker.on_restart(0, [genesis_hash, block.header.hash])
    assert history.first == ""
    history.checker.on_restart(0, [genesis_hash])
    assert "does not find the final chain" in history.first


def test_a_final_block_without_a_finalization() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    history.notarize(block, 0)
    history.checker.on_final(0, block, None)
    history.checker.finish()
    assert "without a quorum's FINALIZE" in history.first


def test_a_final_block_that_was_never_notarized() -> None:
    history = History(byzantine=(0, 1, 2))
    block, _, _ = _first_final(history)
    skipped = history.block(block, 3)
    history.checker.on_final(0, skipped, None)
    history.checker.finish()
    assert any("never notarized" in each for each in history.checker.violations)


def test_a_certificate_of_another_block_as_proof() -> None:
    history = History()
    block = history.block(history.genesis, 1)
    notarization = history.notarize(block, 0)
    history.checker.on_final(0, block, notarization)
    assert "as proof of block 1" in history.first


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epoch", 1, "wrong epoch"),
        ("timestamp_ms", Ms(WALL_MS), "wrong time"),
        ("proposer", MEMBERS.members[0].address, "wrong proposer"),
        ("validators_hash", ZERO_HASH, "wrong validators"),
        ("next_validators_hash", ZERO_HASH, "wrong validators"),
        ("view", 0, "wrong view"),
        ("state_root", ZERO_HASH, "wrong state root"),
    ],
)
def test_a_final_header_that_claims_what_is_not(field: str, value: object, said: str) -> None:
    history = History()
    block = history.block(history.genesis, 1)
    header = block.header._replace(**{field: value})  # type: ignore[arg-type]
    history.checker.on_final(0, Block(header, block.transactions), None)
    assert any(said in each for each in history.checker.violations)


def _guilt(history: History, signer: int) -> bytes:
    """Two votes of one validator, for two blocks of view 1."""
    owner = next(each for each in range(9) if public_of(secret_of(each, 0)) == history.members.keys[signer])
    statements = [_about(N, history.block(history.genesis, 1, each), 0) for each in (b"a", b"b")]
    return Evidence(
        *[sign_vote(each, signer, secret_of(owner, 0), GENESIS_HASH) for each in statements]
    ).encode()


@pytest.mark.parametrize(("signers", "is_just"), [((3,), True), ((0,), False), ((3, 3), False)])
def test_a_block_that_bars_an_honest_key_or_one_twice(signers: tuple[int, ...], is_just: bool) -> None:
    history = History(byzantine=(3,))
    evidence = tuple(_guilt(history, each) for each in signers)
    history.checker.on_final(0, history.block(history.genesis, 1, evidence=evidence), None)
    assert any("without a reason" in each for each in history.checker.violations) is not is_just
    assert history.checker.barred == 1


@pytest.mark.parametrize(("size", "told_in", "may_stay"), [(4, 2, True), (5, 2, False), (5, 3, True)])
def test_a_barred_key_in_the_next_set(size: int, told_in: int, may_stay: bool) -> None:
    """Unless the set would be too small, or the block came after the one, here the second, that fixes the next set."""
    members = [member_of(owner, 0) for owner in range(size)]
    ordered = ValidatorSet(tuple(sorted(members, key=lambda each: each.consensus_key)))
    history = History(byzantine=(3,), members=ordered)
    block = history.genesis
    for view in (1, 2, 3):
        evidence = (_guilt(history, 3),) if view == told_in else ()
        block = history.block(block, view, evidence=evidence)
        history.checker.on_final(0, block, None)
    assert any("wrong next set" in each for each in history.checker.violations) is not may_stay


# --- machines ---------------------------------------------------------------------------------------------------------


def test_an_honest_machine_that_halts_or_is_accused_or_refused() -> None:
    history = History(byzantine=(3,))
    history.checker.on_accused(MEMBERS.keys[3])
    assert history.first == ""
    history.checker.on_accused(MEMBERS.keys[0])
    history.checker.on_halted(0, "no reason")
    history.checker.on_refused(0, "a vote")
    history.checker.on_misread(0)
    assert len(history.checker.violations) == 4


@pytest.mark.parametrize(
    "sizes",
    [Sizes(14, 0, 0, 0, 1), Sizes(0, 257, 0, 0, 1), Sizes(0, 0, 65, 0, 1), Sizes(0, 0, 0, 513, 1)],
)
def test_an_engine_that_keeps_too_much(sizes: Sizes) -> None:
    history = History()
    history.checker.on_sizes(0, Sizes(13, 256, 64, 512, 1))
    assert history.first == ""
    history.checker.on_sizes(0, sizes)
    assert "keeps" in history.first


def test_a_forged_vote_counts_for_nothing() -> None:
    history = History()
    forged = Vote(_nullify(1), 0, bytes(64))
    history.checker.on_vote(forged, history.genesis.header)
    for signer in (1, 2):
        history.vote(signer, forged.statement)
    history.notarize(history.block(history.genesis, 2), 0, by=(3,))
    assert "has no quorum's NULLIFY" in history.first
