"""What each Wh that a meter counted in a slot of 15 minutes was, and what it cost (docs/SETTLEMENT.md).

Pure. A prosumer's events in the order of the chain become settlements, by slot and meter. What its tokens hold is kept
apart by how it came there. Energy leaves them in the waterfall's order: own production first, then what came from
partners, then what was bought at an auction or inside a token; what tokens do not cover is the operator's.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ctt_state.units import ZERO_ADDRESS, Address, Ms, Wei, Wh

SLOT_MS: Final = 900_000


class Kind(IntEnum):
    """How energy changes hands. A gift, and a token that is given away, are a partner's for 0 wei."""

    PARTNER = 0
    AUCTION = 1
    TOKEN = 2  # sold as a whole, with the energy that it holds


class Reading(NamedTuple):
    """What a meter counted up to this time. Production is stored before consumption is covered."""

    time_ms: Ms
    meter: Address
    produced_wh: Wh
    stored_wh: Wh  # of the production; the rest was fed to the grid
    consumed_wh: Wh
    covered_wh: Wh  # of the consumption; the operator bills the rest


class Trade(NamedTuple):
    """Energy that the prosumer bought, or sold."""

    time_ms: Ms  # of its block
    kind: Kind
    is_purchase: bool
    energy_wh: Wh
    energy_wei: Wei  # Wh x price
    grid_fee_wei: Wei = Wei(0)  # what the buyer paid on top; a seller's is not looked at
    token_wei: Wei = Wei(0)  # the price of the token itself


class Tariff(NamedTuple):
    """What the operator asks and pays from here on."""

    retail_wei_per_wh: Wei = Wei(0)
    feed_in_wei_per_wh: Wei = Wei(0)


Event = Reading | Trade | Tariff


class Stock(NamedTuple):
    """The energy in a prosumer's tokens, those on sale included, in the order in which it leaves them."""

    own_wh: Wh = Wh(0)
    partner_wh: Wh = Wh(0)
    auction_wh: Wh = Wh(0)  # tokens bought with their energy included

    @property
    def total_wh(self) -> Wh:
        return Wh(sum(self))


class Position(NamedTuple):
    """What is carried from one event to the next."""

    stock: Stock = Stock()
    tariff: Tariff = Tariff()
    meter: Address = ZERO_ADDRESS  # of the last reading: trades count with it


NOTHING_YET: Final = Position()


class Settlement(NamedTuple):
    """A slot of a meter: from after `start_ms` up to 15 minutes later. All figures but the first two are sums.

    Bought and sold are told without grid fee and without the price of tokens themselves.
    """

    start_ms: Ms
    meter: Address
    own_used_wh: Wh = Wh(0)  # these four are what was consumed
    partner_used_wh: Wh = Wh(0)
    auction_used_wh: Wh = Wh(0)
    billed_wh: Wh = Wh(0)
    billed_wei: Wei = Wei(0)
    stored_wh: Wh = Wh(0)  # these two are what was produced
    fed_in_wh: Wh = Wh(0)
    fed_in_wei: Wei = Wei(0)
    partner_bought_wh: Wh = Wh(0)
    partner_bought_wei: Wei = Wei(0)
    auction_bought_wh: Wh = Wh(0)
    auction_bought_wei: Wei = Wei(0)
    token_bought_wh: Wh = Wh(0)
    token_bought_wei: Wei = Wei(0)
    partner_sold_wh: Wh = Wh(0)
    partner_sold_wei: Wei = Wei(0)
    auction_sold_wh: Wh = Wh(0)
    auction_sold_wei: Wei = Wei(0)
    token_sold_wh: Wh = Wh(0)
    token_sold_wei: Wei = Wei(0)
    resold_wh: Wh = Wh(0)  # of what was sold: not own production
    grid_fee_wei: Wei = Wei(0)
    token_paid_wei: Wei = Wei(0)
    token_received_wei: Wei = Wei(0)

    @property
    def consumed_wh(self) -> Wh:
        return Wh(self.own_used_wh + self.partner_used_wh + self.auction_used_wh + self.billed_wh)

    @property
    def produced_wh(self) -> Wh:
        return Wh(self.stored_wh + self.fed_in_wh)

    @property
    def bought_wh(self) -> Wh:
        return Wh(self.partner_bought_wh + self.auction_bought_wh + self.token_bought_wh)

    @property
    def sold_wh(self) -> Wh:
        return Wh(self.partner_sold_wh + self.auction_sold_wh + self.token_sold_wh)

    @property
    def paid_wei(self) -> Wei:
        bought = self.partner_bought_wei + self.auction_bought_wei + self.token_bought_wei
        return Wei(self.billed_wei + bought + self.grid_fee_wei + self.token_paid_wei)

    @property
    def received_wei(self) -> Wei:
        sold = self.partner_sold_wei + self.auction_sold_wei + self.token_sold_wei
        return Wei(self.fed_in_wei + sold + self.token_received_wei)

    @property
    def sold_deviation_wh(self) -> int:
        """Above zero: more was sold than produced."""
        return self.sold_wh - self.produced_wh

    @property
    def bought_deviation_wh(self) -> int:
        """Above zero: more was bought than consumed."""
        return self.bought_wh - self.consumed_wh


class StockExceeded(ValueError):
    """More energy leaves the tokens than they hold: the opening stock is too small, or events are missing."""

    def __init__(self, *, have_wh: Wh, need_wh: Wh) -> None:
        super().__init__(f"stock {have_wh} Wh, {need_wh} Wh leave it")
        self.have_wh = have_wh
        self.need_wh = need_wh


def settle(events: Iterable[Event], opening: Position = NOTHING_YET) -> tuple[list[Settlement], Position]:
    """The settlements of all slots in which something happened, by time and meter, and the position after the last
    event. To go on from there and join both gives what all events at once give. Raises: StockExceeded."""
    parts: list[Settlement] = []
    position = opening
    for event in events:
        if isinstance(event, Tariff):
            position = position._replace(tariff=event)
            continue
        stock, part = _read(position, event) if isinstance(event, Reading) else _trade(position, event)
        position = position._replace(stock=stock, meter=part.meter)
        parts.append(part)
    return join(parts), position


def join(settlements: Iterable[Settlement]) -> list[Settlement]:
    """Adds up those of one slot and meter, be they of several prosumers; by time and meter."""
    sums: dict[tuple[Ms, Address], Sequence[int]] = {}
    for start_ms, meter, *figures in settlements:
        known = sums.get((start_ms, meter))
        sums[start_ms, meter] = (
            figures if known is None else [a + b for a, b in zip(known, figures, strict=True)]
        )
    return [Settlement(*key, *sums[key]) for key in sorted(sums)]  # type: ignore[arg-type]  # sums of what they are


def least_stock_wh(events: Iterable[Event]) -> Wh:
    """The smallest opening stock with which these events can be."""
    level = lowest = 0
    for event in events:
        if isinstance(event, Reading):
            level += event.stored_wh - event.covered_wh
        elif isinstance(event, Trade):
            level += event.energy_wh if event.is_purchase else -event.energy_wh
        lowest = min(lowest, level)
    return Wh(-lowest)


def slot_of(time_ms: int) -> Ms:
    """The start of the slot that this moment is in; the one at its end belongs to it, the one at its start does not."""
    return Ms((time_ms - 1) // SLOT_MS * SLOT_MS)


def _read(position: Position, reading: Reading) -> tuple[Stock, Settlement]:
    stock, tariff = position.stock, position.tariff
    stock = stock._replace(own_wh=Wh(stock.own_wh + reading.stored_wh))
    used, left = _draw(stock, reading.covered_wh)
    billed_wh = Wh(reading.consumed_wh - reading.covered_wh)
    fed_in_wh = Wh(reading.produced_wh - reading.stored_wh)
    return left, Settlement(
        slot_of(reading.time_ms),
        reading.meter,
        *used,
        billed_wh=billed_wh,
        billed_wei=Wei(billed_wh * tariff.retail_wei_per_wh),
        stored_wh=reading.stored_wh,
        fed_in_wh=fed_in_wh,
        fed_in_wei=Wei(fed_in_wh * tariff.feed_in_wei_per_wh),
    )


def _trade(position: Position, trade: Trade) -> tuple[Stock, Settlement]:
    slot = Settlement(slot_of(trade.time_ms), position.meter)
    stock, name = position.stock, trade.kind.name.lower()
    if not trade.is_purchase:
        gone, left = _draw(stock, trade.energy_wh)
        sold: dict[str, Any] = {f"{name}_sold_wh": trade.energy_wh, f"{name}_sold_wei": trade.energy_wei}
        resold_wh = Wh(gone.partner_wh + gone.auction_wh)
        return left, slot._replace(resold_wh=resold_wh, token_received_wei=trade.token_wei, **sold)
    if trade.kind is Kind.PARTNER:
        stock = stock._replace(partner_wh=Wh(stock.partner_wh + trade.energy_wh))
    else:
        stock = stock._replace(auction_wh=Wh(stock.auction_wh + trade.energy_wh))
    bought: dict[str, Any] = {f"{name}_bought_wh": trade.energy_wh, f"{name}_bought_wei": trade.energy_wei}
    return stock, slot._replace(grid_fee_wei=trade.grid_fee_wei, token_paid_wei=trade.token_wei, **bought)


def _draw(stock: Stock, amount: Wh) -> tuple[Stock, Stock]:
    """What leaves, and what stays. Raises: StockExceeded."""
    if amount > stock.total_wh:
        raise StockExceeded(have_wh=stock.total_wh, need_wh=amount)
    own = min(amount, stock.own_wh)
    partner = min(amount - own, stock.partner_wh)
    gone = Stock(Wh(own), Wh(partner), Wh(amount - own - partner))
    return gone, Stock(*(Wh(has - leaves) for has, leaves in zip(stock, gone, strict=True)))
