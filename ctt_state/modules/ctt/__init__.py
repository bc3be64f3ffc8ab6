"""The Crypto-Trading Token: a limited, non-fungible, rechargeable energy account, with its meters and its sale."""

from ctt_state.modules.ctt import admin, energy, erc721, permit, prosumer, sale  # noqa: F401  they fill the table
from ctt_state.modules.ctt.module import CTT

__all__ = ["CTT"]
