"""The view of one transaction: gas by first touch (T-4), changes that can be taken back; and the block's overlay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.abi import Emission
from ctt_state.block import Log
from ctt_state.records import Account, Record
from ctt_state.units import Address, Wei
from ctt_state.view import OutOfGas, Overlay, StateView

KEYS = [Account.key(Address(bytes([number]) * 20)) for number in range(4)]
KEY, OTHER_KEY = KEYS[:2]
MODULE = Address(b"m" * 20)
EMISSION = Emission((b"t" * 32,), b"data")
OLD, NEW, NEWER = (Account(0, Wei(amount)) for amount in (1, 2, 3))


def make_view(gas_limit: int = 100_000, records: dict[bytes, Record] | None = None) -> StateView:
    return StateView(({KEY: OLD} if records is None else records).get, gas_limit)


# --- gas ---


def test_a_record_costs_gas_at_its_first_read_and_its_first_write() -> None:
    """T-4: 1,000 and 5,000."""
    view = make_view()
    used = []

    for step in range(2):
        view.get(Account, KEY)
        used.append(view.gas_used)
        view.put(KEY, NEW if step else NEWER)
        used.append(view.gas_used)

    assert used == [1_000, 6_000, 6_000, 6_000]


def test_reading_and_writing_are_counted_apart() -> None:
    view = make_view()

    view.put(KEY, NEW)
    written = view.gas_used
    view.get(Account, KEY)

    assert (written, view.gas_used) == (5_000, 6_000)


def test_a_record_that_is_absent_costs_as_much() -> None:
    view = make_view()

    assert view.get(Account, OTHER_KEY) is None
    view.put(OTHER_KEY, None)

    assert view.gas_used == 6_000


def test_each_record_costs_its_own_gas() -> None:
    view = make_view()

    for key in KEYS:
        view.get(Account, key)
        view.put(key, NEW)

    assert view.gas_used == 6_000 * len(KEYS)


def test_peek_poke_and_prepaid_records_are_free() -> None:
    view = make_view()
    view.prepay(KEY)

    view.put(KEY, view.get(Account, KEY))
    view.poke(OTHER_KEY, view.peek(Account, KEY))

    assert view.gas_used == 0
    assert view.changes == {KEY: OLD, OTHER_KEY: OLD}


@pytest.mark.parametrize(("gas_limit", "enough"), [(6_000, True), (5_999, False)])
def test_the_gas_limit_itself_may_be_used(gas_limit: int, enough: bool) -> None:
    view = make_view(gas_limit)
    view.get(Account, KEY)

    if enough:
        view.put(KEY, NEW)
    else:
        with pytest.raises(OutOfGas) as refusal:
            view.put(KEY, NEW)
        assert refusal.value == OutOfGas(gas_limit)
        assert view.changes == {}
    assert view.gas_used == gas_limit


def test_out_of_gas_uses_the_limit_and_no_more() -> None:
    view = make_view(500)

    with pytest.raises(OutOfGas, match="^out of gas: limit 500$"):
        view.charge(10**9)

    assert view.gas_used == 500


# --- changes ---


def test_a_view_sees_its_own_changes_and_leaves_the_state_below() -> None:
    records: dict[bytes, Record] = {KEY: OLD}
    view = make_view(records=records)

    view.put(KEY, NEW)
    changed = view.get(Account, KEY)
    view.put(KEY, None)

    assert changed == NEW
    assert view.get(Account, KEY) is None
    assert records == {KEY: OLD}
    assert view.changes == {KEY: None}


def test_a_revert_takes_back_changes_and_logs_but_no_gas() -> None:
    view = make_view()
    view.put(KEY, NEW)
    view.emit(MODULE, EMISSION)
    before = view.checkpoint()
    view.put(KEY, NEWER)
    view.put(KEY, None)
    view.put(OTHER_KEY, NEW)
    view.emit(MODULE, EMISSION)
    used = view.gas_used

    view.revert(before)

    assert view.changes == {KEY: NEW}
    assert view.logs == [Log(MODULE, *EMISSION)]
    assert view.gas_used == used
    view.put(OTHER_KEY, NEW)
    assert view.gas_used == used, "the first write was paid, though it was taken back"


def test_checkpoints_nest() -> None:
    view = make_view()
    outer = view.checkpoint()
    view.put(KEY, NEW)
    inner = view.checkpoint()
    view.put(KEY, NEWER)

    view.revert(inner)
    inside = view.get(Account, KEY)
    view.revert(outer)

    assert (inside, view.get(Account, KEY)) == (NEW, OLD)
    assert view.changes == {}


Step = tuple[str, int, Account | None]
steps = st.lists(
    st.tuples(
        st.sampled_from(("put", "poke", "mark", "back")), st.integers(0, 3), st.sampled_from((None, OLD, NEW))
    )
)


@given(steps=steps)
def test_a_view_is_a_dict_that_remembers(steps: list[Step]) -> None:
    """Whatever is put, marked and taken back, the view shows what a copied dict would."""
    view, model = make_view(10**9), dict[bytes, Record | None]()
    marks = [(view.checkpoint(), dict(model))]
    for action, number, account in steps:
        key = KEYS[number]
        if action == "mark":
            marks.append((view.checkpoint(), dict(model)))
        elif action == "back":
            checkpoint, model = marks.pop() if len(marks) > 1 else (marks[0][0], dict(marks[0][1]))
            view.revert(checkpoint)
        else:
            getattr(view, action)(key, account)
            model[key] = account

        assert view.changes == model
        below: dict[bytes, Record] = {KEY: OLD}
        assert [view.peek(Account, key) for key in KEYS] == [{**below, **model}.get(key) for key in KEYS]


# --- overlay ---


def test_an_overlay_shows_what_transactions_changed() -> None:
    overlay = Overlay({KEY: OLD, OTHER_KEY: OLD}.get)
    view = StateView(overlay.lookup, 100_000)
    view.put(KEY, None)
    view.put(KEYS[2], NEW)
    unseen = [overlay.lookup(key) for key in KEYS]

    overlay.absorb(view)

    assert unseen == [OLD, OLD, None, None]
    assert [overlay.lookup(key) for key in KEYS] == [None, OLD, NEW, None]
    assert overlay.changes == {KEY: None, KEYS[2]: NEW}


def test_overlays_stack() -> None:
    """A block over one that is not final yet; what is deleted there stays deleted here."""
    parent = Overlay({KEY: OLD}.get)
    parent.changes[KEY] = None
    child = Overlay(parent.lookup)
    seen = child.lookup(KEY)
    child.changes[KEY] = NEW

    assert (seen, child.lookup(KEY), parent.lookup(KEY)) == (None, NEW, None)


def test_a_later_transaction_sees_the_earlier_one() -> None:
    overlay = Overlay({KEY: OLD}.get)
    first = StateView(overlay.lookup, 100_000)
    first.put(KEY, NEW)
    overlay.absorb(first)

    second = StateView(overlay.lookup, 100_000)

    assert second.get(Account, KEY) == NEW
    assert second.gas_used == 1_000, "each transaction pays for its own first touch"
