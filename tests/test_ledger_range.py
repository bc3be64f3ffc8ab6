"""Certificates that are kept, and the ranges of blocks that they prove to a peer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ctt_state.votes import Certificate
from node import ledger as ledger_module
from node import store as store_module
from node.ledger import FinalRange, Ledger
from node.unfinal import Executed
from tests.ledger_world import ALICE_KEY, add_block, finish, make_ledger, make_plan, sign

EPOCH_BLOCKS = 20


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A chain of short epochs."""
    opened = make_ledger(tmp_path / "node", epochBlocks=EPOCH_BLOCKS)
    yield opened
    opened.close()


def add_blocks(ledger: Ledger, count: int, certified: Sequence[int] | None = None) -> list[Executed]:
    """Blocks over the head, those at the given heights with a certificate; all if none are given."""
    added = []
    for _ in range(count):
        height = ledger.head.block.header.height + 1
        executed, _ = ledger.build(make_plan(ledger), [sign(ALICE_KEY, height - 1)])
        finish(ledger, executed, is_certified=certified is None or height in certified)
        added.append(executed)
    return added


def certified_heights(ledger: Ledger) -> list[int]:
    return [
        height for height in range(ledger.head.block.header.height + 1) if ledger.store.certificate(height)
    ]


def covering(ledger: Ledger, height: int) -> int | None:
    found = ledger.store.certificate_covering(height)
    return None if found is None else found[0]


# --- what is kept ---


def test_a_certificate_is_optional_and_covers_the_blocks_below_it(ledger: Ledger) -> None:
    add_blocks(ledger, 12, certified=(4, 9))
    assert certified_heights(ledger) == [4, 9]
    assert [covering(ledger, height) for height in (1, 4, 5, 9, 10)] == [4, 4, 9, 9, None]
    found = ledger.store.certificate_covering(5)
    assert found is not None and found[1] == ledger.store.certificate(9)


def keep_few(monkeypatch: pytest.MonkeyPatch, window: int, apart: int) -> None:
    monkeypatch.setattr(ledger_module, "CERTIFICATES_KEPT", window)
    monkeypatch.setattr(store_module, "CERTIFICATES_APART_MAX", apart)


def test_of_old_certificates_one_in_so_many_and_each_boundarys_are_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_few(monkeypatch, window=10, apart=6)
    add_blocks(ledger, 60)
    assert certified_heights(ledger) == [6, 12, 18, 20, 26, 32, 38, 40, 46, *range(51, 61)]


def test_old_certificates_that_were_far_apart_are_all_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what one node could fetch by ranges, the next can fetch from it."""
    keep_few(monkeypatch, window=8, apart=6)
    certified = [2, 5, 9, 14, 19, 20, 21, 27]
    add_blocks(ledger, 35, certified)
    assert certified_heights(ledger) == [5, 9, 14, 20, 21, 27]


def test_certificates_go_on_expiring_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_few(monkeypatch, window=10, apart=6)
    make_ledger(tmp_path / "node", epochBlocks=EPOCH_BLOCKS).close()
    for _ in range(10):
        ledger = Ledger.open(tmp_path / "node")
        add_blocks(ledger, 6)
        heights = certified_heights(ledger)
        ledger.close()
    assert heights == [6, 12, 18, 20, 26, 32, 38, 40, 46, *range(51, 61)]


# --- ranges ---


def heights_of(found: FinalRange | None) -> list[int] | None:
    return None if found is None else [block.header.height for block in found.blocks]


def ask(ledger: Ledger, from_height: int, count: int = 128, bytes_max: int = 2**21) -> list[int] | None:
    """The heights that a peer gets; the certificate, if there is one, is for the last of them."""
    found = ledger.range(from_height, count, bytes_max)
    if found is not None:
        if found.certificate is not None:
            certificate = Certificate.decode(found.certificate)
            assert certificate.statement.block_hash == found.blocks[-1].header.hash
        assert [ledger.store.block(block.header.height) for block in found.blocks] == [
            block.encode() for block in found.blocks
        ]
    return heights_of(found)


def test_a_range_ends_at_the_last_certified_block_that_was_asked_for(ledger: Ledger) -> None:
    add_blocks(ledger, 16, certified=(3, 7, 11))
    assert ask(ledger, 1, 8) == list(range(1, 8))
    assert ask(ledger, 1, 7) == list(range(1, 8))
    assert ask(ledger, 1, 6) == [1, 2, 3]
    assert ask(ledger, 4, 128) == list(range(4, 12))


def test_a_range_goes_on_to_the_next_certified_block_when_that_is_further(ledger: Ledger) -> None:
    add_blocks(ledger, 16, certified=(3, 11))
    assert ask(ledger, 4, 2) == list(range(4, 12))
    assert ask(ledger, 1, 1) == [1, 2, 3]


def test_a_range_stays_in_one_epoch(ledger: Ledger) -> None:
    add_blocks(ledger, 45)
    assert ask(ledger, 15) == list(range(15, 21))
    assert ask(ledger, 20) == [20]
    assert ask(ledger, 21) == list(range(21, 41))
    assert ask(ledger, 41) == list(range(41, 46))


def test_no_range_goes_above_the_last_certified_block_or_starts_at_genesis(ledger: Ledger) -> None:
    add_blocks(ledger, 8, certified=(5,))
    for height in (-1, 0, 6, 8, 9, 10**6):
        assert ask(ledger, height) is None
    assert ask(ledger, 5) == [5]


def test_a_range_has_a_greatest_size_unless_it_is_one_block(ledger: Ledger) -> None:
    blocks = add_blocks(ledger, 6)
    sizes = [len(each.final.block.encode()) for each in blocks]
    assert ask(ledger, 1, bytes_max=sum(sizes[:4])) == [1, 2, 3, 4]
    assert ask(ledger, 1, bytes_max=sum(sizes[:4]) - 1) == [1, 2, 3]
    assert ask(ledger, 1, bytes_max=1) == [1]


def test_of_a_range_too_large_for_its_certificate_comes_what_fits(ledger: Ledger) -> None:
    """Whoever asks goes on with the rest, until a certificate proves all of it."""
    blocks = add_blocks(ledger, 6, certified=(4,))
    size = sum(len(each.final.block.encode()) for each in blocks[:4])
    assert ask(ledger, 1, bytes_max=size) == [1, 2, 3, 4]
    assert ask(ledger, 1, bytes_max=size - 1) == [1, 2, 3]
    unproven, proven = ledger.range(1, 128, size - 1), ledger.range(4, 128, size - 1)
    assert unproven is not None and unproven.certificate is None
    assert proven is not None and proven.certificate is not None


def test_a_range_has_a_greatest_number_of_blocks(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "RANGE_BLOCKS_MAX", 5)
    add_blocks(ledger, 15, certified=(5, 11, 15))
    assert ask(ledger, 1, 100) == [1, 2, 3, 4, 5]
    assert ask(ledger, 6, 1) == [6, 7, 8, 9, 10]
    assert ask(ledger, 7, 1) == [7, 8, 9, 10, 11]


def test_ranges_bring_another_node_to_the_head(ledger: Ledger, tmp_path: Path) -> None:
    add_blocks(ledger, 50, certified=(7, 8, 13, 20, 33, 40, 50))
    other = make_ledger(tmp_path / "other", epochBlocks=EPOCH_BLOCKS)
    while (height := other.head.block.header.height) < 50:
        found = ledger.range(height + 1, 10, 2**21)
        assert found is not None
        for block in found.blocks:
            executed = other.execute(block, [sign(ALICE_KEY, block.header.height - 1)])
            other.commit(executed, found.certificate if block is found.blocks[-1] else None)
            other.publish(executed)
    assert other.head == ledger.head
    assert certified_heights(other) == [8, 13, 20, 33, 40, 50]
    add_block(other)
    other.close()
