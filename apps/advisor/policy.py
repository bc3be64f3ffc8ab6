"""What to do in the auction that takes orders now: buy, sell, make room, or nothing. The same history, the same advice.

The best plan for the expected day proposes; the days that were decide what that is worth: on each of them the action is
set against doing nothing. Where the mean of that is not above the fee, the advice is to hold.
"""

from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from apps.advisor.forecast import HORIZON, LEAST_HOURS, Outlook, forecast
from apps.advisor.optimum import Plan, Stock, Terms, solve
from apps.advisor.series import HOURS_A_DAY, History, Hours

DAYS_TRIED: Final = 28
LEAST_KWH: Final = 0.05  # less is not worth an order
ROUNDING: Final = 1e-9


class Action(StrEnum):
    """BUY_FULL: energy, by a bid. BUY_EMPTY: empty tokens, as room for energy. SELL: energy, by an ask."""

    BUY_FULL = "BUY_FULL"
    BUY_EMPTY = "BUY_EMPTY"
    SELL = "SELL"
    HOLD = "HOLD"


class Advice(NamedTuple):
    """Energy in kWh, of BUY_EMPTY the room; the limit without grid fee, of BUY_EMPTY a token's price. The gain is
    against HOLD, fees taken off."""

    action: Action
    reasons: tuple[str, ...]
    energy: float = 0.0
    limit: float = 0.0
    gain: float = 0.0
    low: float = 0.0  # one day in ten brings less
    high: float = 0.0  # one day in ten brings more


class Days(NamedTuple):
    """Past days from this hour on, a row each."""

    load: Hours
    production: Hours
    price: Hours  # in the first hour; NaN where nothing was traded


def advise(history: History, stock: Stock, terms: Terms) -> Advice:
    """The history ends where the decision falls."""
    hours = len(history.load)
    if hours < LEAST_HOURS:
        return _hold(f"{hours} hours of readings are known, and a forecast takes {LEAST_HOURS}")
    if np.isnan(history.price[-7 * HOURS_A_DAY :]).all():
        return _hold("nothing was traded in the last week, so there is no price to expect")
    outlook = forecast(history)
    final_price = float(np.median(outlook.price))
    plan = solve(outlook, stock, terms, final_price)
    days = _past_days(history)
    advices = [
        _judge(option, days, stock, terms, final_price) for option in _options(plan, outlook, stock, terms)
    ]
    best = max(advices, key=lambda each: each.gain, default=None)
    if best is None:
        return _hold("the expected day asks for no trade now", *_outlook_in_words(outlook, stock))
    if best.gain <= 0:
        return _hold(
            f"to {_verb(best)} would bring {best.gain + terms.fee:.4f} on a mean day, and its fee is {terms.fee:.4f}",
            *_outlook_in_words(outlook, stock),
        )
    return best._replace(reasons=(*_why(best, outlook, terms), *_outlook_in_words(outlook, stock)))


def _hold(*reasons: str) -> Advice:
    return Advice(Action.HOLD, reasons)


def _options(plan: Plan, outlook: Outlook, stock: Stock, terms: Terms) -> list[Advice]:
    """What the plan does in this hour, as orders that could be sent."""
    options = []
    if plan.tokens > ROUNDING:
        room = ceil(plan.tokens - ROUNDING) * terms.token_kwh
        options.append(Advice(Action.BUY_EMPTY, (), room, terms.token_price))
    bought = min(plan.bought[0] - plan.sold[0], max(stock.capacity - stock.held, 0.0))
    sold = min(plan.sold[0] - plan.bought[0], stock.held)
    if bought >= LEAST_KWH:
        limit = min(plan.worth, terms.retail) - terms.grid_fee
        options.append(Advice(Action.BUY_FULL, (), bought, max(limit, outlook.price[0])))
    if sold >= LEAST_KWH:
        limit = max(min(plan.worth, outlook.price[0]), terms.feed_in)
        options.append(Advice(Action.SELL, (), sold, limit))
    return options


def _past_days(history: History) -> Days:
    end = len(history.load)
    count = min(DAYS_TRIED, end // HOURS_A_DAY)
    starts = [end - day * HOURS_A_DAY for day in range(1, count + 1)]
    rows = np.array(starts)[:, np.newaxis] + np.arange(HORIZON)
    return Days(history.load[rows], history.production[rows], history.price[starts])


def _judge(option: Advice, days: Days, stock: Stock, terms: Terms, final_price: float) -> Advice:
    """The option with what it would have brought on these days, if nothing was done after it."""
    nothing = np.zeros(len(days.load))
    held = _play(days, nothing + stock.held, nothing + stock.capacity, terms, final_price)
    if option.action is Action.BUY_EMPTY:
        larger = nothing + stock.capacity + option.energy
        done = _play(days, nothing + stock.held, larger, terms, final_price)
        gains = done - held - option.energy / terms.token_kwh * terms.token_price
    else:
        is_sale = option.action is Action.SELL
        price = np.nan_to_num(days.price)
        met = ~np.isnan(days.price) & ((price >= option.limit) if is_sale else (price <= option.limit))
        moved = np.where(met, -option.energy if is_sale else option.energy, 0.0)
        money = -moved * (price + (0.0 if is_sale else terms.grid_fee))
        done = money + _play(days, stock.held + moved, nothing + stock.capacity, terms, final_price)
        gains = done - held
    gains = gains - terms.fee
    low, high = np.quantile(gains, (0.1, 0.9))
    return option._replace(gain=float(gains.mean()), low=float(low), high=float(high))


def _play(days: Days, held: Hours, capacity: Hours, terms: Terms, final_price: float) -> Hours:
    """What each day comes to when nothing is traded."""
    value = np.zeros(len(held))
    for hour in range(HORIZON):
        held = held + days.production[:, hour]
        fed = np.maximum(held - capacity, 0.0)
        held = held - fed - days.load[:, hour]
        drawn = np.maximum(-held, 0.0)
        held = held + drawn
        value += terms.feed_in * fed - terms.retail * drawn
    return value + final_price * held


# --- in words -------------------------------------------------------------------------------------------------------


def _verb(advice: Advice) -> str:
    match advice.action:
        case Action.BUY_EMPTY:
            return f"buy empty tokens for {advice.energy:.1f} kWh"
        case Action.BUY_FULL:
            return f"buy {advice.energy:.2f} kWh"
        case _:
            return f"sell {advice.energy:.2f} kWh"


def _why(advice: Advice, outlook: Outlook, terms: Terms) -> tuple[str, ...]:
    price = outlook.price[0]
    match advice.action:
        case Action.BUY_EMPTY:
            text = (
                f"production would overflow into the grid at {terms.feed_in:.3f}; "
                f"room costs {advice.limit:.3f} a token"
            )
        case Action.BUY_FULL:
            text = (
                f"about {price:.3f} is expected, {price + terms.grid_fee:.3f} with the grid fee; "
                f"retail is {terms.retail:.3f}"
            )
        case _:
            text = f"about {price:.3f} is expected, and the operator pays {terms.feed_in:.3f}"
    return (text, f"on past days from this hour on, to {_verb(advice)} brought {advice.gain:.4f} in the mean")


def _outlook_in_words(outlook: Outlook, stock: Stock) -> tuple[str, ...]:
    load, production = outlook.load.sum(), outlook.production.sum()
    return (
        f"expected in the next {HORIZON} hours: consumption {load:.1f} kWh, production {production:.1f} kWh",
        f"the tokens hold {stock.held:.1f} kWh of {stock.capacity:.1f} kWh",
    )
