"""Setting a tree back: whatever changed since, the nodes that are made again are those that were there."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctt_state.crypto import sha256
from ctt_state.tree import NodeChanges, check_proof, prove, update
from ctt_state.units import Hash
from node import proofs as proofs_module
from node.proofs import _set_back
from node.unfinal import read_through

STATES = st.dictionaries(st.binary(min_size=1, max_size=1), st.binary(max_size=2), max_size=60)


def make_tree(state: dict[bytes, bytes]) -> tuple[Hash, NodeChanges]:
    return update(lambda _: None, [(sha256(key), sha256(value)) for key, value in state.items()])


async def nothing() -> None:
    """No pause."""


@pytest.mark.parametrize("at_once", [1, 3, 64])
@given(before=STATES, after=STATES)
def test_a_tree_set_back_proves_what_was(
    at_once: int, before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    root, _ = make_tree(before)
    _, nodes = make_tree(after)
    replaced = {
        key: before.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proofs_module, "LEAVES_AT_ONCE", at_once)
        made = asyncio.run(_set_back(nodes.get, dict(replaced), nothing))
    read = read_through([made], nodes.get)
    for key in (*before, *after, b"never there"):
        value = before.get(key)
        check_proof(root, sha256(key), None if value is None else sha256(value), prove(read, sha256(key)))
