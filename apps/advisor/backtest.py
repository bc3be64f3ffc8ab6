"""How the advice would have done: hour by hour, each decision from what was sealed before it (docs/ADVISOR.md)."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from apps.advisor.forecast import LEAST_HOURS, SHARE_OF_VOLUME, Outlook
from apps.advisor.optimum import Stock, Terms, solve
from apps.advisor.policy import Action, Advice, advise
from apps.advisor.series import HOURS_A_DAY, History

RECORD_DAYS: Final = 7  # each of them costs a model and 24 plans

Rule = Callable[[History, Stock, Terms], Advice]


class Run(NamedTuple):
    """What a rule came to: money and what is left in the tokens; and what it did, an hour each."""

    value: float
    advices: list[Advice]


class Record(NamedTuple):
    """What a home would have gained against holding, and could have at best, in units of the currency."""

    days: int
    gain: float
    possible: float


def hold(history: History, stock: Stock, terms: Terms) -> Advice:
    return Advice(Action.HOLD, ())


def sell_all(history: History, stock: Stock, terms: Terms) -> Advice:
    """Whatever the tokens hold, at any price that is not below the feed-in's."""
    return (
        Advice(Action.SELL, (), stock.held, terms.feed_in) if stock.held > 0 else hold(history, stock, terms)
    )


RULES: dict[str, Rule] = {"hold": hold, "sell_all": sell_all, "advice": advise}


def follow(rule: Rule, home: History, first_hour: int, stock: Stock, terms: Terms) -> Run:
    """The home by this rule from the hour on. An order is served at the auction's price if that is within its limit, up
    to the home's share of what was traded."""
    value, advices = 0.0, []
    for hour in range(first_hour, home.end_hour):
        place = hour - home.start_hour
        advice = rule(home.until(hour), stock, terms)
        earned, stock = _trade(advice, home.price[place], SHARE_OF_VOLUME * home.volume[place], stock, terms)
        metered, stock = _meter(home.load[place], home.production[place], stock, terms)
        value += earned + metered
        advices.append(advice)
    return Run(float(value + final_price(home, first_hour) * stock.held), advices)


def optimum(home: History, first_hour: int, stock: Stock, terms: Terms) -> float:
    """What nobody could have passed."""
    ahead = [each[first_hour - home.start_hour :] for each in home[1:]]
    load, production, price, volume = ahead
    outlook = Outlook(load, production, price, SHARE_OF_VOLUME * volume)
    return solve(outlook, stock, terms, final_price(home, first_hour)).value


def track_record(home: History, stock: Stock, terms: Terms) -> Record | None:
    """How the home's last days would have gone by the advice, from the tokens and the tariff of now on. None where no
    day is left beside those that advice takes to begin, or nothing was traded before it."""
    days = min((len(home.load) - LEAST_HOURS) // HOURS_A_DAY, RECORD_DAYS)
    first_hour = home.end_hour - days * HOURS_A_DAY
    if days < 1 or np.isnan(home.until(first_hour).price).all():
        return None
    held = follow(hold, home, first_hour, stock, terms).value
    gain = follow(advise, home, first_hour, stock, terms).value - held
    return Record(days, gain, optimum(home, first_hour, stock, terms) - held)


def final_price(home: History, first_hour: int) -> float:
    """What a kWh that is left at the end counts for, for all alike: the median of the prices before the beginning."""
    return float(np.nanmedian(home.until(first_hour).price))


def _trade(advice: Advice, price: float, share: float, stock: Stock, terms: Terms) -> tuple[float, Stock]:
    """The money of it, the fee included: an order costs its fee also when it is not served, and none is where nothing
    was traded."""
    held, capacity = stock
    match advice.action:
        case Action.HOLD:
            return 0.0, stock
        case Action.BUY_EMPTY:
            tokens = round(advice.energy / terms.token_kwh)
            return -tokens * terms.token_price - terms.fee, Stock(held, capacity + tokens * terms.token_kwh)
        case Action.BUY_FULL if price <= advice.limit:
            bought = min(advice.energy, share, capacity - held)
            return -bought * (price + terms.grid_fee) - terms.fee, Stock(held + bought, capacity)
        case Action.SELL if price >= advice.limit:
            sold = min(advice.energy, share, held)
            return sold * price - terms.fee, Stock(held - sold, capacity)
        case _:
            return -terms.fee, stock


def _meter(load: float, production: float, stock: Stock, terms: Terms) -> tuple[float, Stock]:
    """Production is stored before consumption is covered."""
    fed = max(stock.held + production - stock.capacity, 0.0)
    left = stock.held + production - fed - load
    drawn = max(-left, 0.0)
    return terms.feed_in * fed - terms.retail * drawn, stock._replace(held=left + drawn)
