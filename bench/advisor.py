"""What following the advice brings: `python -m bench.advisor --homes 24`, JSON out (docs/ADVISOR.md).

Streets are generated: each has its weather, and neighbours whose orders, cleared by the chain's own auction, make the
prices. The homes that are advised are others of the same street. Each is followed by the advice, by holding, by
selling all, and set against the best that anybody who knew the future could have done.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from apps.advisor.backtest import RULES, follow, optimum
from apps.advisor.forecast import LEAST_HOURS
from apps.advisor.optimum import Stock, Terms
from apps.advisor.series import HOURS_A_DAY, History, Hours, Metered, make_history
from apps.demo.profiles import consumption_wh, production_wh
from apps.demo.trading import Situation, Tariff, make_ask, make_bid
from apps.meter.greenbutton import read_espi
from ctt_state.modules.market.auction import Ask, Bid, clear

START_HOUR: Final = 490_896  # 2026-01-01
HOMES_A_STREET: Final = 6
NEIGHBOURS: Final = 60
QUARTERS_AN_HOUR: Final = 4
NEIGHBOUR_TOKENS_WH: Final = 20_000
WEI: Final = 10**15  # a unit of the currency a kWh, in wei per Wh
TERMS: Final = Terms(
    feed_in=0.08, retail=0.30, grid_fee=0.04, fee=0.001, token_kwh=10.0, token_price=0.01
)  # genesis.json's, and a fee, which that leaves at 0


class Metering(NamedTuple):
    """What a home's meter counts, in kWh an hour: what it drew, and what it gave."""

    load: Hours
    production: Hours


def make_street(seed: int, days: int) -> list[tuple[History, Stock]]:
    """Homes with their first stock."""
    chance = random.Random(seed)
    sky = _make_sky(chance, days)
    neighbours = [_make_home(chance, sky, has_pv=number % 2 == 0) for number in range(NEIGHBOURS)]
    price, volume = _trade(neighbours, days)
    street = []
    for number in range(HOMES_A_STREET):
        home = _make_home(chance, sky, has_pv=number % 2 == 0)
        capacity = TERMS.token_kwh * chance.randint(1, 2)
        history = History(START_HOUR, home.load, home.production, price, volume)
        street.append((history, Stock(capacity / 2, capacity)))
    return street


def _make_sky(chance: random.Random, days: int) -> Hours:
    """How much of the sun comes through, an hour each: days that are like the day before, and clouds that pass."""
    clear_sky, sky = 0.6, []
    for _ in range(days):
        clear_sky = min(max(0.6 * clear_sky + 0.4 * chance.betavariate(1.2, 0.9), 0.05), 1.0)
        sky += [min(clear_sky * chance.uniform(0.7, 1.2), 1.0) for _ in range(HOURS_A_DAY)]
    return np.array(sky)


def _make_home(chance: random.Random, sky: Hours, *, has_pv: bool) -> Metering:
    """A household of its own size and hours, with days off and an appliance now and then."""
    kwh_a_year, pv_kwh_a_day = chance.randrange(1_800, 6_500), chance.uniform(15, 50) if has_pv else 0.0
    shift, weekend, appliance = chance.randrange(-6, 7), chance.uniform(0.8, 1.4), chance.uniform(0.5, 2.0)
    load, made = np.zeros(len(sky)), np.zeros(len(sky))
    for hour in range(len(sky)):
        day, quarter = hour // HOURS_A_DAY, hour % HOURS_A_DAY * QUARTERS_AN_HOUR
        use = (
            sum(consumption_wh(quarter + shift + part, kwh_a_year) for part in range(QUARTERS_AN_HOUR))
            / 1_000
        )
        use *= chance.lognormvariate(0, 0.35) * (weekend if day % 7 in (2, 3) else 1.0)
        use += appliance if 6 <= hour % HOURS_A_DAY < 22 and chance.random() < 0.08 else 0.0
        sun = sum(production_wh(quarter + part, pv_kwh_a_day) for part in range(QUARTERS_AN_HOUR)) / 1_000
        net = sun * sky[hour] - use
        load[hour], made[hour] = max(-net, 0.0), max(net, 0.0)
    return Metering(load, made)


def _trade(neighbours: Sequence[Metering], days: int) -> tuple[Hours, Hours]:
    """Price and volume of each hour's auction between them: who produces offers, who does not bids."""
    tariff = Tariff(int(TERMS.feed_in * WEI), int(TERMS.retail * WEI))
    held = [NEIGHBOUR_TOKENS_WH // 2] * len(neighbours)
    yearly = [round(home.load.sum() / days * 365) for home in neighbours]
    prices, volumes = [], []
    for hour in range(days * HOURS_A_DAY):
        bids: list[tuple[int, Bid]] = []
        asks: list[tuple[int, Ask]] = []
        for number, home in enumerate(neighbours):
            made_wh = round(home.production[hour] * 1_000)
            quarter = hour * QUARTERS_AN_HOUR
            situation = Situation(number, quarter, made_wh, held[number], NEIGHBOUR_TOKENS_WH - held[number])
            if number % 2 == 0:
                if ask := make_ask(situation, tariff, None):
                    asks.append((number, Ask(ask.energy_wh, ask.limit)))
            elif bid := make_bid(situation, yearly[number], tariff, likes_solar=False):
                bids.append((number, Bid(bid.energy_wh, (bid.limit,))))
        result = clear([bid for _, bid in bids], [ask for _, ask in asks])
        for trade in result.trades:
            held[bids[trade.bid][0]] += trade.energy_wh
            held[asks[trade.ask][0]] -= trade.energy_wh
        for number, home in enumerate(neighbours):
            stored = min(held[number] + round(home.production[hour] * 1_000), NEIGHBOUR_TOKENS_WH)
            held[number] = max(stored - round(home.load[hour] * 1_000), 0)
        energy = sum(trade.energy_wh for trade in result.trades)
        prices.append(result.price / WEI if energy else np.nan)
        volumes.append(energy / 1_000)
    return np.array(prices), np.array(volumes)


def read_home(folder: Path, street: History) -> tuple[History, Stock]:
    """A real home's readings, as if they were the street's."""
    found = [each for file in sorted(folder.glob("*.xml")) for each in read_espi(file.read_bytes())]
    readings = [Metered(found[0].start_ms, 0, 0), *[Metered(each.end_ms, int(each.wh), 0) for each in found]]
    home = make_history(readings, [], found[-1].end_ms)
    hours = min(len(home.load), len(street.load))
    known = History(
        START_HOUR, home.load[:hours], home.production[:hours], street.price[:hours], street.volume[:hours]
    )
    return known, Stock(TERMS.token_kwh, 2 * TERMS.token_kwh)


def measure(home: History, stock: Stock, terms: Terms) -> dict[str, Any]:
    """What each rule came to, in units of the currency."""
    first = home.start_hour + LEAST_HOURS
    runs = {name: follow(rule, home, first, stock, terms) for name, rule in RULES.items()}
    best = optimum(home, first, stock, terms)
    values = {name: round(run.value, 4) for name, run in runs.items()}
    taken: dict[str, int] = {}
    for advice in runs["advice"].advices:
        taken[advice.action] = taken.get(advice.action, 0) + 1
    return {**values, "optimum": round(best, 4), "actions": taken, "produces": bool(home.production.any())}


def summarise(homes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`captured`: the part of (optimum - hold) that following the advice brought, over all homes together."""
    could = [home["optimum"] - home["hold"] for home in homes]
    gained = [home["advice"] - home["hold"] for home in homes]
    relative = [gain / abs(home["hold"]) for gain, home in zip(gained, homes, strict=True)]
    sold = [home["sell_all"] - home["hold"] for home in homes]
    return {
        "homes": len(homes),
        "captured": round(sum(gained) / sum(could), 4),
        "captured_by_selling_all": round(sum(sold) / sum(could), 4),
        "captured_least": round(min(gain / most for gain, most in zip(gained, could, strict=True)), 4),
        "least_against_hold": round(min(relative), 4),
        "gain_a_home_and_day": round(
            sum(gained) / sum(sum(home["actions"].values()) for home in homes) * 24, 4
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.advisor", description=__doc__)
    parser.add_argument("--streets", type=int, default=4)
    parser.add_argument("--days", type=int, default=14, help="that are followed, after ten to learn from")
    parser.add_argument("--token-price", type=float, default=TERMS.token_price, help="of an empty token")
    parser.add_argument(
        "--greenbutton",
        type=Path,
        metavar="FOLDER",
        help="follow the home of these files instead, at the prices",
    )
    options = parser.parse_args(arguments)
    days = LEAST_HOURS // HOURS_A_DAY + options.days
    terms = TERMS._replace(token_price=options.token_price)
    streets = [make_street(seed, days) for seed in range(options.streets)]
    if options.greenbutton:
        streets = [[read_home(options.greenbutton, street[0][0])] for street in streets]
    homes = [measure(*home, terms) for street in streets for home in street]
    json.dump({"summary": summarise(homes), "homes": homes}, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
