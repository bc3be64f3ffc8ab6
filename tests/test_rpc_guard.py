"""The gate counts connections."""

from rpc.guard import Gate


def test_the_gate_counts_in_all_and_by_address() -> None:
    gate = Gate(3, 2)
    assert [gate.enter(address) for address in "aaabb"] == [True, True, False, True, False]
    gate.leave("a")
    assert gate.enter("b")
    assert (gate.total, gate.refused) == (3, 2)


def test_who_left_is_not_remembered() -> None:
    gate = Gate(10, 1)
    for address in map(str, range(100)):
        assert gate.enter(address)
        gate.leave(address)
    assert gate.total == 0 and not gate._open
