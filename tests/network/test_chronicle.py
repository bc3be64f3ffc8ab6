"""What a node takes back is found; what it has not heard of yet is no fault."""

from tests.network.chronicle import Chronicle


def test_a_chronicle_finds_what_contradicts_it() -> None:
    chronicle = Chronicle()
    chronicle.record("a", 1, "0x1")
    chronicle.record("b", 1, "0x1")
    chronicle.record_height("a", 5)
    chronicle.record_height("a", 5)
    chronicle.record_height("b", 4)
    assert chronicle.contradictions == []

    chronicle.record("b", 2, "0x2")
    chronicle.record("a", 2, "0x3")
    chronicle.record_height("a", 4)

    assert chronicle.contradictions == [
        "block 2 is 0x2 to b, 0x3 to a",
        "a is at block 4 after block 5",
    ]


def test_who_lost_its_data_may_be_behind_but_not_elsewhere() -> None:
    chronicle = Chronicle()
    chronicle.record("a", 1, "0x1")
    chronicle.record_height("a", 5)

    chronicle.forgive("a")
    chronicle.record_height("a", 1)
    assert chronicle.contradictions == []

    chronicle.record("a", 1, "0x2")
    assert chronicle.contradictions == ["block 1 is 0x1 to a, 0x2 to a"]
