"""Energy, power and money as members of an answer, each twice: exact, and for people.

One rule for all `ctt_*` methods: energy, power, money and prices are integers in Wh, W, wei and wei per Wh, written as
decimal strings, as they may pass the 2**53 up to which JSON's readers are exact. The member's name ends with the unit.
The member without the unit says the same in words. What counts (heights, tokens, ids, milliseconds) is a JSON number:
the chain can never hold so many.
"""

from typing import Final

from ctt_state.origin import SOURCES, Origin, by_source
from rpc.jsontext import Json

WH_PER_KWH: Final = 1_000
WEI_PER_COIN: Final = 10**18  # the settlement currency has 18 decimals, as wallets expect


def energy(name: str, wh: int) -> dict[str, Json]:
    return {f"{name}Wh": str(wh), name: f"{_thousandths(wh)} kWh"}


def origin(name: str, of: Origin, wh: int) -> dict[str, Json]:
    """So much energy of this origin, by source."""
    figures: dict[str, Json] = {}
    for source, part in zip(SOURCES, by_source(of, wh), strict=True):
        figures |= energy(source, part)
    return {name: figures}


def power(name: str, watt: int) -> dict[str, Json]:
    return {f"{name}W": str(watt), name: f"{_thousandths(watt)} kW"}


def money(name: str, wei: int) -> dict[str, Json]:
    return {f"{name}Wei": str(wei), name: _coins(wei)}


def energy_price(name: str, wei_per_wh: int) -> dict[str, Json]:
    return {f"{name}WeiPerWh": str(wei_per_wh), name: f"{_coins(wei_per_wh * WH_PER_KWH)} per kWh"}


def _thousandths(number: int) -> str:
    """Exact, three decimals."""
    return f"{number // 1_000:,}.{number % 1_000:03d}"


def _coins(wei: int) -> str:
    """Exact, as many decimals as it takes."""
    whole, part = divmod(wei, WEI_PER_COIN)
    return f"{whole:,}.{part:018d}".rstrip("0").rstrip(".")
