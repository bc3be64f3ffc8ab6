"""The energy market: sealed intents, cleared at one price at the end of each auction (docs/MARKET.md)."""

from ctt_state.modules.market import clearing, mandates, orders, tariff, views  # noqa: F401  they fill the table
from ctt_state.modules.market.module import MARKET

__all__ = ["MARKET"]
