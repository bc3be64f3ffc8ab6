"""Validators that break the rules: what they say in place of what their engine says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.consensus.events import Message

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Machine

Said = list[tuple[int, Message]]  # after how many ms, what


class Behaviour:
    """An engine that follows the rules, on a machine that is not trusted: one of a pair of twins."""

    def says(self, world: Cluster, machine: Machine, to: int, message: Message) -> Said:
        """What this machine sends to that one in place of the message."""
        return [(0, message)]


ALL: tuple[type[Behaviour], ...] = ()
