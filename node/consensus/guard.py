"""The restore guard: when a validator whose journal may lack votes of its key may vote again (docs/PROTOCOL.md, C-14).

What the key voted since its backup is unknown here, but not how far: a vote in a view takes the certificate of the
view before, which a quorum signed. A quorum of the others shares an honest validator with that one, and it was in
that view. So once this node is where each of a quorum of the others said it is, the key has voted at most in the next
view, or in the first of the next epoch if this one may have ended. `GUARD_VIEWS` lie between that and the watermark.

That nobody votes with the key now shows in a time of silence: no certificate comes with a vote of the key that was not
cast here. Each that comes begins it anew.
"""

from collections.abc import Iterable
from typing import Final

from ctt_state.units import Address
from node.consensus.events import Now

Place = tuple[int, int]  # an epoch and a view of it

GUARD_VIEWS: Final = 100


class Guard:
    """Raised until the others are heard and the key was silent for long enough."""

    def __init__(self, silence_ms: int, now: Now) -> None:
        self._silence_ms = silence_ms
        self._told: dict[Address, Place] = {}  # where each validator last said that it is
        self.hear_own(now)

    def hear(self, validator: Address, place: Place) -> None:
        self._told[validator] = place

    def hear_own(self, now: Now) -> None:
        """A vote of the key that was not cast here."""
        self.silent_at_ms = now.mono_ms + self._silence_ms

    def passed(self, place: Place, validators: Iterable[Address]) -> int:
        """How many of these said that they are here or below, so that the certificates they had are known here."""
        return sum(each in self._told and self._told[each] <= place for each in validators)


def watermark(*, epoch: int, view: int, head_view: int, blocks_left: int, is_alone: bool) -> Place:
    """The last place in which the key stays silent, for a node in this view with a final block `blocks_left` below
    the epoch's last. Each block takes a view: so the epoch cannot have ended before `head_view + blocks_left`.

    A validator that is the whole set goes on at once, for without it no view ends; nobody else can have its votes.
    """
    if is_alone:
        return epoch, view - 1
    if head_view + blocks_left <= view + GUARD_VIEWS:
        return epoch + 1, GUARD_VIEWS
    return epoch, view + GUARD_VIEWS
