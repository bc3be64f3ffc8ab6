"""What a node knows of each view: its proposal, votes and certificates, and what it voted itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ctt_state.votes import Certificate, Evidence, Kind, Statement, Vote, contradict
from node.consensus.events import Proposal, Source


@dataclass(slots=True)
class Round:
    """One view. Bounded: one vote a kind and signer, one certificate a kind, one proposal."""

    proposal: Proposal | None = None
    proposer: Source = None  # who sent the proposal
    is_refused: bool = False  # the proposal breaks a rule
    is_contested: bool = False  # its leader signed two
    building_on: int | None = None  # the view of the parent, while this node makes the view's block
    votes: dict[Kind, dict[int, Vote]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    certificates: dict[Kind, Certificate] = field(default_factory=dict)
    mine: dict[Kind, Statement] = field(default_factory=dict)  # what this node cast, or is casting
    accused: set[int] = field(default_factory=set)  # signers whose contradiction was told

    @property
    def block_certificate(self) -> Certificate | None:
        """What proves that the view's block was notarized: a finalization takes a notarization."""
        return self.certificates.get(Kind.NOTARIZE) or self.certificates.get(Kind.FINALIZE)

    def add(self, vote: Vote) -> Evidence | None:
        """Takes a vote whose signature was checked. Gives the proof if its signer contradicts itself."""
        self.votes[vote.statement.kind].setdefault(vote.signer, vote)
        for votes in self.votes.values():
            other = votes.get(vote.signer)
            if other is not None and contradict(other, vote):
                return Evidence(other, vote)
        return None

    def tally(self, statement: Statement) -> list[Vote]:
        """The votes for exactly this, in the order of the set."""
        votes = self.votes[statement.kind]
        return [votes[signer] for signer in sorted(votes) if votes[signer].statement == statement]


class Rounds:
    """The rounds of an epoch from the last final view up, which may still be a parent; no rule looks below it."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}

    def __iter__(self) -> Iterator[int]:
        """The views, lowest first."""
        return iter(sorted(self._rounds))

    def __getitem__(self, view: int) -> Round:
        """A view not heard of begins empty."""
        current = self._rounds.get(view)
        if current is None:
            current = self._rounds[view] = Round()
        return current

    def get(self, view: int) -> Round | None:
        return self._rounds.get(view)

    def forget_below(self, view: int) -> None:
        self._rounds = {each: current for each, current in self._rounds.items() if each >= view}

    def block_certificate(self, view: int) -> Certificate | None:
        current = self._rounds.get(view)
        return current.block_certificate if current else None

    def nullification(self, view: int) -> Certificate | None:
        current = self._rounds.get(view)
        return current.certificates.get(Kind.NULLIFY) if current else None

    def nullifications(self, after: int, before: int) -> list[Certificate]:
        """Those that are held of the views between."""
        held = [self.nullification(view) for view in range(after + 1, before)]
        return [each for each in held if each is not None]

    def not_nullified(self, after: int, before: int) -> list[int]:
        """The views between whose nullification is missing."""
        return [view for view in range(after + 1, before) if self.nullification(view) is None]

    def certificates(self, from_view: int, to_view: int) -> list[Certificate]:
        """All that are held of these views, both included, lowest first."""
        views = [view for view in self if from_view <= view <= to_view]
        return [each for view in views for each in self._rounds[view].certificates.values()]
