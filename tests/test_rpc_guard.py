"""The gate counts connections: in all, by address, in a second, and by whose they are."""

import pytest

from rpc.guard import Gate, GateLimits, Place


def make_gate(total: int, per_address: int = 1_000, *, accepts_per_s: int = 1_000, percent: int = 70) -> Gate:
    return Gate(
        GateLimits(total, per_address, accepts_per_s, percent), lambda: 0.0, lambda address: address == "near"
    )


def enter(gate: Gate, address: str = "a", cut: list[str] | None = None) -> Place:
    place = gate.enter(address, lambda: None if cut is None else cut.append(address))
    assert place is not None
    return place


def nothing() -> None:
    """What cannot be cut off."""


def test_the_gate_counts_in_all_and_by_address() -> None:
    gate = make_gate(10, 2)
    places = [gate.enter(address, nothing) for address in "aaabb"]
    assert [place is not None for place in places] == [True, True, False, True, True]
    gate.leave(enter(gate, "c"))
    assert (gate.total, gate.refused) == (4, 1)


def test_a_connection_that_rests_gives_way_to_the_next_of_its_address() -> None:
    gate, cut = make_gate(10, 2), list[str]()
    first, second = (
        gate.enter("a", lambda: cut.append("first")),
        gate.enter("a", lambda: cut.append("second")),
    )
    assert first is not None and second is not None
    gate.rest(first)
    gate.rest(second)
    gate.work(first)
    assert gate.enter("b", nothing) is not None and cut == []
    assert gate.enter("a", nothing) is not None and cut == ["second"]
    assert gate.enter("a", nothing) is None and gate.total == 3


def test_ordinary_connections_that_rest_give_way_when_every_place_is_taken() -> None:
    gate, cut = make_gate(2), list[str]()
    meter, other = enter(gate, "meter", cut), enter(gate, "other", cut)
    for place in (meter, other):
        assert gate.settle(place, is_reserved=place is meter)
        gate.rest(place)
    enter(gate, "new")
    assert cut == ["other"]


def test_who_left_while_at_rest_is_not_remembered() -> None:
    gate = make_gate(2, 1)
    place = enter(gate)
    gate.rest(place)
    gate.leave(place)
    gate.rest(place)
    assert not gate._resting and gate.total == 0


def test_addresses_of_one_ipv6_line_count_together() -> None:
    gate = make_gate(10, 2)
    enter(gate, "2001:db8::1")
    enter(gate, "2001:db8::2")
    assert gate.enter("2001:db8::3", nothing) is None


def test_who_left_is_not_remembered() -> None:
    gate = make_gate(10, 1)
    for number in range(100):
        place = enter(gate, str(number))
        if number % 3:
            assert gate.settle(place, is_reserved=number % 3 == 1)
        gate.leave(place)
    assert gate.total == 0 and not gate._by_network and not gate._unknown


def test_clients_without_reserved_places_have_their_percentage() -> None:
    gate = make_gate(10)
    places = [enter(gate) for _ in range(10)]
    assert [gate.settle(place, is_reserved=False) for place in places] == [True] * 7 + [False] * 3
    assert all(gate.settle(place, is_reserved=True) for place in places[7:])
    assert gate.total == 10


def test_a_connection_may_change_hands() -> None:
    """Behind a proxy many clients share one."""
    gate = make_gate(2, percent=50)
    place, other = enter(gate), enter(gate)
    for is_reserved in (False, True, True, False):
        assert gate.settle(place, is_reserved)
    assert not gate.settle(other, is_reserved=False)
    assert gate.settle(place, is_reserved=True) and gate.settle(other, is_reserved=False)
    gate.leave(place)
    gate.leave(other)
    assert gate.total == 0


def test_a_newcomer_gets_the_place_of_the_longest_unknown() -> None:
    gate = make_gate(3)
    cut = list[str]()
    known, first, _second = (enter(gate, name, cut) for name in ("known", "first", "second"))
    gate.settle(known, is_reserved=False)

    enter(gate, "third", cut)

    assert cut == ["first"]
    assert not gate.settle(first, is_reserved=True)  # its request was under way
    for _ in range(2):
        gate.leave(first)  # its connection ends a little later
    assert gate.total == 3 and gate._by_network == {"known": 1, "second": 1, "third": 1}


def test_known_clients_are_never_cut_off_for_a_newcomer() -> None:
    gate = make_gate(2, percent=100)
    cut = list[str]()
    for _ in range(2):
        gate.settle(enter(gate, "a", cut), is_reserved=False)

    assert gate.enter("a", nothing) is None
    assert not cut and gate.refused == 1


@pytest.mark.parametrize(("address", "count"), [("far", 5), ("near", 9)])
def test_only_so_many_come_in_a_second(address: str, count: int) -> None:
    gate = make_gate(100, accepts_per_s=5)
    assert sum(gate.enter(address, nothing) is not None for _ in range(9)) == count
