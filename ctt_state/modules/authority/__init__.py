"""The validators' own module: who is in the set, by the votes of those who are."""

from ctt_state.modules.authority import proposals, views  # noqa: F401  they fill the table
from ctt_state.modules.authority.module import AUTHORITY

__all__ = ["AUTHORITY"]
