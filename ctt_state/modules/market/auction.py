"""The auction's arithmetic: what is offered and asked for in, one price and every trade out. No state, no accounts.

Energy of different sources is different only as far as somebody's maximum makes it so: sources are put into groups, and
those that no bid names are one group. A bid has a maximum for each group; at a price it accepts the groups whose
maximum is at least that price. An ask gives its own group's energy when it wants no more than that price.

At each price, what can be moved is the smallest cut between those who give and those who accept: for each set of
groups, the supply outside the set with the demand that accepts something in it (Gale, 1957). With one group these are
just all supply and all demand. Sets of groups are bit masks; there are 6 sources, so at most 64 sets.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple


class Bid(NamedTuple):
    """So much energy, at most at these prices, a group each. Its place in the list is its place in time."""

    energy_wh: int
    limits: tuple[int, ...]


class Ask(NamedTuple):
    """So much energy of this group, at least at this price. Its place in the list is its place in time."""

    energy_wh: int
    limit: int
    group: int = 0


class Trade(NamedTuple):
    """Energy that goes from an ask to a bid, by their places in the lists."""

    bid: int
    ask: int
    energy_wh: int


class Result(NamedTuple):
    """One price for all of these trades; 0 when there are none."""

    price: int
    trades: list[Trade]


Cells = tuple[int, ...]  # sets of groups, as places in a list
Entry = tuple[int, Cells, int]  # an order's place, the cells its energy takes room in, its energy


def clear(bids: Sequence[Bid], asks: Sequence[Ask], groups: int = 1) -> Result:
    """The price that moves the most energy, and who trades at it.

    Of several prices the one with the smallest imbalance between all demand and all supply; of several such the middle,
    rounded down, of the lowest range of them. At that price bids and asks are served by how much better than the price
    their limit is, then by time.
    """
    price = _price(bids, asks, groups)
    if price is None:
        return Result(0, [])
    accepted = [(place, _mask(bid.limits, price)) for place, bid in enumerate(bids)]
    buying = [(place, mask) for place, mask in accepted if mask]
    buying.sort(key=lambda each: -min([limit for limit in bids[each[0]].limits if limit >= price]))
    selling = [place for place, ask in enumerate(asks) if ask.limit <= price]
    selling.sort(key=lambda place: asks[place].limit)

    supply, demand = [0] * groups, [0] * (1 << groups)
    for place in selling:
        supply[asks[place].group] += asks[place].energy_wh
    for place, mask in buying:
        demand[mask] += bids[place].energy_wh
    above, hit = _supersets(groups), _containing(groups)
    bought = _fill(
        [(place, above[mask], bids[place].energy_wh) for place, mask in buying],
        [sum(wh for group, wh in enumerate(supply) if cell >> group & 1) for cell in range(1 << groups)],
    )
    sold = _fill(
        [(place, hit[asks[place].group], asks[place].energy_wh) for place in selling],
        [sum(wh for mask, wh in enumerate(demand) if mask & cell) for cell in range(1 << groups)],
    )
    return Result(price, _pair(bids, asks, dict(accepted), bought, sold, groups))


# --- the price ---


def _price(bids: Sequence[Bid], asks: Sequence[Ask], groups: int) -> int | None:
    """None when no price moves anything. One pass over all limits, from the lowest price up."""
    cut, steps = _steps(bids, asks, groups)
    everything = len(cut) - 1
    best, low, high = (0, 0), 0, -1  # volume and less the imbalance, at the prices from low to high
    start = 0
    for price, batch in groupby(steps, itemgetter(0)):
        # `cut` holds for the prices from `start` up to just below this one.
        if price > start:
            volume = min(cut)
            if volume >= best[0] and volume:
                found = (volume, -abs(cut[everything] - cut[0]))
                if found > best or not best[0]:
                    best, low, high = found, start, price - 1
                elif found == best and high == start - 1:
                    high = price - 1
            start = price
        for _, cells, energy in batch:
            for cell in cells:
                cut[cell] += energy
    return (low + high) // 2 if best[0] else None


def _steps(bids: Sequence[Bid], asks: Sequence[Ask], groups: int) -> tuple[list[int], list[Entry]]:
    """The cuts below every limit, and what each price adds to or takes from which of them, lowest price first.

    A cut is named by the groups whose demand it counts; it counts the supply of the others.
    """
    cells = range(1 << groups)
    outside = [tuple([cell for cell in cells if not cell >> group & 1]) for group in range(groups)]
    touching = [tuple([cell for cell in cells if cell & mask]) for mask in cells]
    cut = [0] * (1 << groups)
    steps: list[Entry] = [(ask.limit, outside[ask.group], ask.energy_wh) for ask in asks]
    losing: dict[tuple[int, int], Cells] = {}  # by the groups that were accepted, and those that still are
    for energy, limits in bids:
        mask = len(cells) - 1
        for cell in touching[mask]:
            cut[cell] += energy
        for limit in sorted(set(limits)) if groups > 1 else limits:
            left = _mask(limits, limit + 1)
            if (mask, left) not in losing:
                losing[mask, left] = tuple([cell for cell in touching[mask] if not cell & left])
            steps.append((limit + 1, losing[mask, left], -energy))
            mask = left
    steps.sort(key=itemgetter(0))
    return cut, steps


# --- who is served ---


def _mask(limits: tuple[int, ...], price: int) -> int:
    """The groups that a bid of these maxima accepts at this price."""
    mask, group = 0, 1
    for limit in limits:
        if limit >= price:
            mask |= group
        group <<= 1
    return mask


def _supersets(groups: int) -> list[Cells]:
    sets = range(1 << groups)
    return [tuple([cell for cell in sets if cell & mask == mask]) for mask in sets]


def _containing(groups: int) -> list[Cells]:
    return [tuple([cell for cell in range(1 << groups) if cell >> group & 1]) for group in range(groups)]


def _fill(entries: Iterable[Entry], room: list[int]) -> list[tuple[int, int]]:
    """Gives each in turn as much as the room in all its cells lets it have, which together is the most there can be:
    the sets that can be served at once are a polymatroid. By place, those that get something."""
    filled = []
    for place, cells, energy in entries:
        got = min(energy, min([room[cell] for cell in cells]))
        if got:
            filled.append((place, got))
            for cell in cells:
                room[cell] -= got
            if not room[-1]:
                break
    return filled


# --- who trades with whom ---


def _pair(
    bids: Sequence[Bid],
    asks: Sequence[Ask],
    masks: dict[int, int],
    bought: list[tuple[int, int]],
    sold: list[tuple[int, int]],
    groups: int,
) -> list[Trade]:
    """Energy of a group goes first to those who prefer it, last to those who prefer another, else in the order in
    which they were served."""
    buyers: dict[int, list[list[int]]] = {}  # by what they accept: place and energy left
    for place, energy in bought:
        buyers.setdefault(masks[place], []).append([place, energy])
    sellers: list[list[list[int]]] = [[] for _ in range(groups)]
    for place, energy in sold:
        sellers[asks[place].group].append([place, energy])
    trades: list[Trade] = []
    for mask, group, energy in _flows(buyers, sellers):
        willing = buyers[mask]
        if groups > 1:
            willing = sorted(willing, key=lambda each: _reluctance(bids[each[0]].limits, group))
        trades += _match(willing, sellers[group], energy)
    return trades


def _reluctance(limits: tuple[int, ...], group: int) -> tuple[int, bool]:
    """What the bid would pay more for what it likes best; then whether there is nothing that it likes less."""
    return max(limits) - limits[group], limits[group] == min(limits)


def _flows(buyers: dict[int, list[list[int]]], sellers: list[list[list[int]]]) -> list[tuple[int, int, int]]:
    """How much of each group goes to those who accept just these groups: as much as can, sets and groups in their
    order, and never so much that others could not be served any more."""
    groups = len(sellers)
    wanted = {mask: sum(energy for _, energy in them) for mask, them in buyers.items()}
    given = [sum(energy for _, energy in them) for them in sellers]
    cells = range(1 << groups)
    spare = [
        sum(energy for group, energy in enumerate(given) if cell >> group & 1)
        - sum(energy for mask, energy in wanted.items() if mask & cell == mask)
        for cell in cells
    ]
    flows = []
    for mask in sorted(wanted):
        for group in range(groups):
            if mask >> group & 1:
                others = [cell for cell in cells if cell >> group & 1 and cell & mask != mask]
                energy = min(wanted[mask], given[group], *[spare[cell] for cell in others])
                for cell in others:
                    spare[cell] -= energy
                wanted[mask] -= energy
                given[group] -= energy
                flows.append((mask, group, energy))
    return flows


def _match(buyers: list[list[int]], sellers: list[list[int]], energy: int) -> list[Trade]:
    """Pairs off so much energy in the order of both lists, and takes it from what each has left."""
    trades: list[Trade] = []
    givers = (seller for seller in sellers if seller[1])
    seller = next(givers, None)
    for buyer in buyers:
        while energy and buyer[1] and seller is not None:
            moved = min(energy, buyer[1], seller[1])
            trades.append(Trade(buyer[0], seller[0], moved))
            energy -= moved
            buyer[1] -= moved
            seller[1] -= moved
            if not seller[1]:
                seller = next(givers, None)
    return trades
