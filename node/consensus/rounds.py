"""What a node knows of one view: its proposal, votes and certificates, and what it voted itself."""

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

    @property
    def nullification(self) -> Certificate | None:
        return self.certificates.get(Kind.NULLIFY)

    def add(self, vote: Vote) -> Evidence | None:
        """Takes a vote whose signature was checked. Gives the proof if its signer contradicts itself."""
        known = self.votes[vote.statement.kind].setdefault(vote.signer, vote)
        for others in (known, *(votes.get(vote.signer) for votes in self.votes.values())):
            if others is not None and contradict(others, vote):
                return Evidence(others, vote)
        return None

    def tally(self, statement: Statement) -> list[Vote]:
        """The votes for exactly this, in the order of the set."""
        votes = self.votes[statement.kind]
        return [votes[signer] for signer in sorted(votes) if votes[signer].statement == statement]
