"""What the homes ask and bid in the auctions: by the sun, by what they hold and by their taste. Pure.

Asks are cheap while the sun shines, bids rise with what all use in a quarter hour, and both lie within the tariff: so
the price falls towards noon, rises into the evening, and now and then somebody is left out.
"""

from typing import Final, NamedTuple

from apps.demo.profiles import HOUSEHOLD_WH, QUARTERS_A_DAY, SUN, consumption_wh
from ctt_state.units import Address

SOLAR: Final = 1  # as meters are certified
TASTES: Final = 12
BIDDERS_TARGET_WH: Final = 3_000  # what they like to have in store
RESERVE_WH: Final = 2_000  # what who sells keeps
OFFER_WH: Final = 120  # in a quarter hour, also by night


class Situation(NamedTuple):
    """A home and its tokens, before a quarter hour's auction."""

    number: int
    quarter: int
    produced_wh: int  # in this quarter hour
    stored_wh: int
    spare_wh: int


class Tariff(NamedTuple):
    """In wei per Wh."""

    floor: int
    ceiling: int


class Order(NamedTuple):
    """As the market's functions take it."""

    energy_wh: int
    limit: int
    sources: tuple[tuple[int, int], ...] = ()
    partners: tuple[tuple[Address, int], ...] = ()


def make_bid(home: Situation, kwh_a_year: int, tariff: Tariff, *, likes_solar: bool) -> Order | None:
    """What a home without production lacks, within the room in its tokens. Who likes the sun pays more for it."""
    wanted = consumption_wh(home.quarter, kwh_a_year) + max(BIDDERS_TARGET_WH - home.stored_wh, 0) // 4
    energy_wh = min(wanted, home.spare_wh)
    if not energy_wh:
        return None
    use = HOUSEHOLD_WH[home.quarter % QUARTERS_A_DAY] / max(HOUSEHOLD_WH)
    limit = _price(tariff, 0.20 + 0.55 * use + 0.20 * _taste(home))
    sources = ((SOLAR, _price(tariff, 1.0)),) if likes_solar else ()
    return Order(energy_wh, limit, sources)


def make_ask(home: Situation, tariff: Tariff, gift_to: Address | None) -> Order | None:
    """What a home with production has beyond its reserve, most of it while it produces. `gift_to` is served first,
    for nothing."""
    energy_wh = min(OFFER_WH + home.produced_wh * 3 // 4, home.stored_wh - RESERVE_WH)
    if energy_wh <= 0:
        return None
    sun = SUN[home.quarter % QUARTERS_A_DAY]
    limit = _price(tariff, 0.08 + 0.50 * (1 - sun) + 0.20 * _taste(home))
    return Order(energy_wh, limit, (), ((gift_to, 0),) if gift_to else ())


def _taste(home: Situation) -> float:
    """0 to 1, another one for each of twelve neighbours, and another one each quarter hour."""
    return (home.number + home.quarter) * 7 % TASTES / (TASTES - 1)


def _price(tariff: Tariff, part: float) -> int:
    """So far up from floor to ceiling, in whole thousandths of that way."""
    return tariff.floor + (tariff.ceiling - tariff.floor) * round(part * 1_000) // 1_000
