"""The best that a home could have done, had it known all: a linear programme (SciPy's HiGHS).

An hour begins with the auction; then production is stored as far as there is room, and consumption is covered as far as
there is energy. Fees of transactions are left out, parts of tokens may be bought, and energy may be fed in or drawn
from the grid by choice: so no rule that plays by the chain can do better.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_array, csr_array, diags_array, eye_array

from apps.advisor.forecast import Outlook
from apps.advisor.series import Hours


class Terms(NamedTuple):
    """What energy and tokens cost, in units of the currency; energy in kWh."""

    feed_in: float  # that the operator pays a kWh
    retail: float  # that it asks
    grid_fee: float  # on top of an auction's price, for who buys
    fee: float  # of a transaction
    token_kwh: float
    token_price: float


class Stock(NamedTuple):
    """What the home's tokens hold, and how much they could hold in all."""

    held: float
    capacity: float


class Plan(NamedTuple):
    """Hour by hour, and what all of it comes to: money earned less money paid, and what is left in the tokens."""

    bought: Hours
    sold: Hours
    value: float
    worth: float  # what one kWh more would be worth now
    tokens: float  # bought at the beginning


def solve(outlook: Outlook, stock: Stock, terms: Terms, final_price: float) -> Plan:
    """`final_price` is what a kWh that is left at the end counts for.

    The variables, an hour each: bought, sold, fed in, drawn from the grid, held after the auction, held after
    production, left at the end of the hour; and one more, the tokens that are bought at the beginning.
    """
    load, production, price, volume = outlook
    hours = len(load)
    none, one = csr_array((hours, hours)), eye_array(hours, format="csr")
    before = diags_array([np.ones(hours - 1)], offsets=[-1], shape=(hours, hours), format="csr")
    no_token, token = csr_array((hours, 1)), csr_array(np.full((hours, 1), -terms.token_kwh))
    balance = [
        [-one, one, none, none, one, none, -before, no_token],
        [none, none, one, none, -one, one, none, no_token],
        [none, none, none, -one, none, -one, one, no_token],
    ]
    room = [
        [none, none, none, none, one, none, none, token],
        [none, none, none, none, none, one, none, token],
    ]
    start = np.zeros(hours)
    start[0] = stock.held
    shown, flat = np.nan_to_num(price), np.ones(hours)
    held = np.zeros(3 * hours)
    held[-1] = -final_price
    costs: Hours = np.concatenate(
        [
            shown + terms.grid_fee,
            -shown,
            -terms.feed_in * flat,
            terms.retail * flat,
            held,
            [terms.token_price],
        ]
    )
    tradable = np.where(np.isnan(price), 0.0, volume)
    upper: Hours = np.concatenate([tradable, tradable, production, load, np.full(3 * hours + 1, np.inf)])
    found = linprog(
        costs,
        A_ub=block_array(room),
        b_ub=np.full(2 * hours, max(stock.capacity, stock.held)),
        A_eq=block_array(balance),
        b_eq=np.concatenate([start, production, -load]),
        bounds=np.column_stack([np.zeros(len(upper)), upper]),
        method="highs",
    )
    if not found.success:
        raise AssertionError(found.message)  # holding is always possible, and nothing is free without bound
    x = found.x
    return Plan(x[:hours], x[hours : 2 * hours], -found.fun, -found.eqlin.marginals[0], x[-1])
