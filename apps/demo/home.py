"""The homes of the street, which of them does what, and what has happened there so far."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from apps.client import Wallet
from apps.demo.profiles import production_wh, wind_wh

FIRST_QUARTER: Final = 24  # the first day begins at 06:00

# Who does what in the auctions, by number from 0.
GIVER, RECEIVER = 1, 0  # what the one has to sell goes to the other first, for nothing
PLATFORMS_CLIENTS: Final = (7, 8)  # one sells, one buys, and a platform orders for both
BUYS_TOKENS: Final = 4  # of six: full tokens rather than energy in auctions
LIKES_SOLAR: Final = 0  # of six, but the receiver of gifts


class Kind(Enum):
    """What a home is, and with which functions its meter speaks."""

    HOUSEHOLD = "household"  # consume
    PV = "household + PV"  # report, the registers of a two-way meter
    FARM = "solar farm"  # refill
    WIND = "wind turbine"  # refill


@dataclass
class Home:
    """A prosumer and its meter."""

    number: int  # from 0
    name: str
    kind: Kind
    owner: Wallet
    meter: Wallet
    kwh_a_year: int
    made_kwh_a_day: float
    import_wh: int = 0  # the meter's registers
    export_wh: int = 0
    last_time_ms: int = 0

    @property
    def produces(self) -> bool:
        return self.kind is not Kind.HOUSEHOLD

    @property
    def buys_tokens(self) -> bool:
        return not self.produces and self.number % 6 == BUYS_TOKENS

    @property
    def likes_solar(self) -> bool:
        return not self.produces and self.number % 6 == LIKES_SOLAR and self.number != RECEIVER

    def produced_wh(self, quarter: int) -> int:
        make = wind_wh if self.kind is Kind.WIND else production_wh
        return make(quarter, self.made_kwh_a_day)


@dataclass
class News:
    """What the street has done so far, for the screen."""

    quarter: int = FIRST_QUARTER
    sent: int = 0
    failed: int = 0
    sales: int = 0  # of tokens
    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        self.lines = [*self.lines[-5:], line]
