"""Stairs and runs of prices as characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.curves import BARS, BOTH, DEMAND, SUPPLY, Step, sparkline, stairs

SIDES = st.lists(st.builds(Step, st.integers(1, 10**9), st.integers(0, 10**20)), min_size=1, max_size=8)


def test_the_stairs_cross_where_both_sides_are() -> None:
    """Ten columns of 100 Wh: demand 28, 20 and 12, supply 10, 20 and 30."""
    demand = [Step(400, 28), Step(300, 20), Step(300, 12)]
    supply = [Step(300, 30), Step(500, 10), Step(200, 20)]

    rows = stairs(demand, supply, columns=10, rows=11)

    assert [price for price, _ in rows] == [30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10]
    drawn = dict(rows)
    assert drawn[28] == DEMAND * 4
    assert drawn[20] == "    " + DEMAND + BOTH * 2
    assert drawn[30] == " " * 7 + SUPPLY * 3
    assert drawn[12] == " " * 7 + DEMAND * 3
    assert drawn[10] == SUPPLY * 5
    assert drawn[26] == ""


def test_what_lies_on_each_other_is_told() -> None:
    assert stairs([Step(5, 7)], [Step(5, 7)], columns=3, rows=2) == [(7, BOTH * 3), (7, "")]


@pytest.mark.parametrize(
    "sides", [([], [Step(1, 1)]), ([Step(1, 1)], []), ([], []), ([Step(0, 1)], [Step(1, 1)])]
)
def test_without_one_side_there_is_nothing_to_draw(sides: tuple[list[Step], list[Step]]) -> None:
    assert stairs(*sides, columns=10, rows=5) == []


@given(demand=SIDES, supply=SIDES, columns=st.integers(1, 40), rows=st.integers(1, 12))
def test_each_side_has_one_mark_in_a_column_as_far_as_it_goes(
    demand: list[Step], supply: list[Step], columns: int, rows: int
) -> None:
    drawn = [row.ljust(columns) for _, row in stairs(demand, supply, columns=columns, rows=rows)]
    for side, mark in ((demand, DEMAND), (supply, SUPPLY)):
        most = max(sum(step.energy_wh for step in each) for each in (demand, supply))
        own = sum(step.energy_wh for step in side)
        for column in range(columns):
            reaches = (2 * column + 1) * most // (2 * columns) < own
            assert sum(row[column] in (mark, BOTH) for row in drawn) == reaches


def test_a_run_of_prices_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([10, 17, 14]) == BARS[0] + BARS[7] + BARS[4]
    assert sparkline([5, 5]) == BARS[0] * 2
    assert sparkline([]) == ""
