"""The light client (C-11): real signatures over chains whose sets change."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctt_state.block import Header, merkle_branch, merkle_root
from ctt_state.crypto import keccak, sha256
from ctt_state.light import (
    ChainRules,
    Checkpoint,
    LightClient,
    LightRejected,
    check_body,
    check_chain,
    check_final,
    check_receipt,
    check_record,
    check_transaction,
    decode_header,
    genesis_checkpoint,
)
from ctt_state.tree import prove
from ctt_state.units import Hash, Height, Ms
from ctt_state.validators import Member, ValidatorSet
from ctt_state.votes import Certificate, Kind, MalformedVote
from tests.light_world import RECORDS, RULES, Chain, make_receipts, make_signers

OLD, NEW, NEWEST = make_signers(0, 1, 2, 3), make_signers(1, 2, 3, 4, 5), make_signers(6, 7, 8, 9)
CHAIN = Chain((OLD, OLD, NEW, NEWEST)).grow(45)
FORK = Chain((OLD, OLD, NEW, NEWEST))  # the same validators signed other blocks
FORK.payload_bytes = 30
FORK.grow(45)
OTHER = Hash(b"?" * 32)


def make_client(epochs: int = 0) -> LightClient:
    """A client from genesis that has gone through so many epochs."""
    client = LightClient(RULES, genesis_checkpoint(RULES, CHAIN.header(0), OLD.members))
    for epoch in range(epochs):
        height = (epoch + 1) * RULES.epoch_blocks
        client.advance(CHAIN.header(height), CHAIN.certificate(height), CHAIN.signers(epoch + 1).members)
    return client


def make_final(headers: tuple[Header, ...]) -> Certificate:
    """What the old set signs for the last of these headers, whatever they say."""
    last = headers[-1]
    return OLD.certify(
        CHAIN.statement(1)._replace(epoch=last.epoch, view=last.view or 1, block_hash=last.hash)
    )


# --- following --------------------------------------------------------------------------------------------------------


def test_one_header_and_certificate_an_epoch_lead_to_the_tip() -> None:
    client = make_client(epochs=4)

    client.accept(CHAIN.header(45), CHAIN.certificate(45))

    assert client.epoch == 4
    assert client.validators == NEWEST.members
    assert client.highest == (45, CHAIN.header(45).hash)


def test_a_header_is_final_by_its_descendants_certificate() -> None:
    client = make_client()

    client.accept(CHAIN.header(3), CHAIN.certificate(8), CHAIN.headers(4, 8))

    assert client.highest == (8, CHAIN.header(8).hash)


def test_an_earlier_epoch_stays_known() -> None:
    client = make_client(epochs=3)

    client.accept(CHAIN.header(5), CHAIN.certificate(5))
    client.accept(CHAIN.header(25), CHAIN.certificate(30), CHAIN.headers(26, 30))
    client.accept(CHAIN.header(12), CHAIN.certificate(12))

    assert client.highest == (30, CHAIN.header(30).hash)


def test_the_view_of_the_certificate_need_not_be_the_headers() -> None:
    """The last block of an epoch was proposed again in later views."""
    client = make_client()
    again = OLD.certify(CHAIN.statement(10)._replace(view=40, parent_view=39))

    client.advance(CHAIN.header(10), again, OLD.members)

    assert client.epoch == 1


def test_a_checkpoint_stands_for_all_before_it() -> None:
    client = LightClient(RULES, Checkpoint(Height(30), CHAIN.header(30).hash, NEWEST.members))
    client.accept(CHAIN.header(31), CHAIN.certificate(34), CHAIN.headers(32, 34))
    client.advance(CHAIN.header(40), CHAIN.certificate(40), NEWEST.members)

    client.accept(CHAIN.header(44), CHAIN.certificate(44))

    assert client.epoch == 4


def test_a_checkpoint_within_an_epoch_is_accepted_itself() -> None:
    client = LightClient(RULES, Checkpoint(Height(15), CHAIN.header(15).hash, OLD.members))

    client.accept(CHAIN.header(15), CHAIN.certificate(16), CHAIN.headers(16, 16))

    with pytest.raises(LightRejected, match="block 14 is not above the checkpoint, block 15"):
        client.accept(CHAIN.header(14), CHAIN.certificate(16), CHAIN.headers(15, 16))


def test_a_set_of_one_is_a_quorum_of_one() -> None:
    alone = make_signers(0)
    chain = Chain((alone,)).grow(12)
    client = LightClient(RULES, genesis_checkpoint(RULES, chain.header(0), alone.members))

    client.advance(chain.header(10), chain.certificate(10), alone.members)
    client.accept(chain.header(12), chain.certificate(12))

    assert client.highest == (12, chain.header(12).hash)


def test_old_epochs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctt_state.light.EPOCHS_KNOWN_MAX", 2)
    client = make_client(epochs=4)

    client.accept(CHAIN.header(21), CHAIN.certificate(21))

    with pytest.raises(LightRejected, match="block 20 is of epoch 1; known are 2 to 4"):
        client.accept(CHAIN.header(20), CHAIN.certificate(20))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "certificate", "text"),
    [
        (5, OLD.certify(CHAIN.statement(5), 0, 1), "has 2 signatures of 3 needed"),
        (25, NEW.certify(CHAIN.statement(25), 0, 1, 2), "has 3 signatures of 4 needed"),  # 2f + 1 are too few
        (25, OLD.certify(CHAIN.statement(25)), "has 3 signatures of 4 needed"),
        (25, OLD.certify(CHAIN.statement(25), 0, 1, 2, 3), "signature of validator . does not verify"),
        (35, OLD.certify(CHAIN.statement(35)), "signature of validator 0 does not verify"),
        (5, OLD.certify(CHAIN.statement(5), chain=OTHER), "signature of validator 0 does not verify"),
        (5, OLD.certify(CHAIN.statement(5), 1, 0, 2), "not distinct members in order"),
        (5, CHAIN.certificate(6), "certificate of block .*, block 5 is"),
        (5, CHAIN.certificate(15), "certificate of epoch 1 for a block of epoch 0"),
        (5, OLD.certify(CHAIN.statement(5)._replace(kind=Kind.NOTARIZE)), "NOTARIZE proves nothing final"),
    ],
)
def test_a_header_without_its_epochs_quorum_is_refused(
    height: int, certificate: Certificate, text: str
) -> None:
    client = make_client(epochs=4)
    with pytest.raises(LightRejected, match=text):
        client.accept(CHAIN.header(height), certificate)


def test_an_epoch_to_come_is_refused() -> None:
    with pytest.raises(LightRejected, match="block 21 is of epoch 2; known are 0 to 1"):
        make_client(epochs=1).accept(CHAIN.header(21), CHAIN.certificate(21))


def test_block_0_needs_no_certificate_and_takes_none() -> None:
    genesis = CHAIN.header(0)
    with pytest.raises(LightRejected, match="block 0 is never voted on"):
        make_client().accept(genesis, make_final((genesis,)))


@pytest.mark.parametrize(
    ("headers", "certified", "text"),
    [
        (CHAIN.headers(9, 11), 11, "block 11 is of epoch 1, block 9 of 0"),
        (CHAIN.headers(1, 11), 11, "11 headers; an epoch has 10 blocks"),
        ((CHAIN.header(3), CHAIN.header(5)), 5, "block 5 comes after block 3"),
        ((FORK.header(8), CHAIN.header(9)), 9, "block 9 stands on .*, block 8 is"),
        (CHAIN.headers(3, 5), 6, "certificate of block"),
    ],
)
def test_descendants_that_do_not_lead_to_the_certificate_are_refused(
    headers: tuple[Header, ...], certified: int, text: str
) -> None:
    client = make_client(epochs=2)
    with pytest.raises(LightRejected, match=text):
        client.accept(headers[0], CHAIN.certificate(certified), headers[1:])


@pytest.mark.parametrize(
    ("height", "signed", "next_set", "text"),
    [
        (9, 9, OLD.members, "block 9 is not the last of epoch 0, 10 is"),
        (20, 20, NEW.members, "boundary of epoch 1; the client stands in epoch 0"),
        (10, 9, OLD.members, "certificate of block"),
        (10, 10, NEW.members, "is not the one that block 10 names for the next epoch"),
        (10, 10, ValidatorSet(()), "a set of 0 validators; allowed are 1 to 100"),
        (10, 10, ValidatorSet(OLD.members.members * 26), "a set of 104 validators"),
        (
            10,
            10,
            ValidatorSet((Member(OLD.members.members[0].address, b"k"),)),
            "key of validator 0 is b'k', not 33",
        ),
    ],
)
def test_an_epoch_ends_only_with_its_last_block_and_the_set_that_it_names(
    height: int, signed: int, next_set: ValidatorSet, text: str
) -> None:
    client = make_client()

    with pytest.raises(LightRejected, match=text):
        client.advance(CHAIN.header(height), CHAIN.certificate(signed), next_set)

    assert (client.epoch, client.highest[0]) == (0, 0)
    client.advance(CHAIN.header(10), CHAIN.certificate(10), OLD.members)


def test_the_old_set_ends_no_epoch_of_the_new() -> None:
    client = make_client(epochs=3)
    with pytest.raises(LightRejected, match="signature of validator 0 does not verify"):
        client.advance(CHAIN.header(40), OLD.certify(CHAIN.statement(40)), OLD.members)


def test_two_final_blocks_at_one_height_are_told_apart() -> None:
    client = make_client()
    client.accept(CHAIN.header(8), CHAIN.certificate(8))

    for height in (8, 9):
        with pytest.raises(LightRejected, match="block 8 is .* final here is .* faulty"):
            client.accept(FORK.header(height), FORK.certificate(height))
    client.advance(CHAIN.header(10), CHAIN.certificate(10), OLD.members)
    client.accept(CHAIN.header(15), CHAIN.certificate(15))
    for height in (10, 11):
        with pytest.raises(LightRejected, match="block 10 is .* final here is"):
            client.accept(FORK.header(height), FORK.certificate(height))


@pytest.mark.parametrize(
    ("header", "first_set", "text"),
    [
        (CHAIN.header(1), OLD.members, "genesis header has height 1, not 0"),
        (CHAIN.header(0), NEW.members, "genesis header names the set"),
        (CHAIN.header(0)._replace(genesis_hash=OTHER), OLD.members, "block 0 is of the chain 3f3f"),
    ],
)
def test_a_genesis_header_that_does_not_fit_is_refused(
    header: Header, first_set: ValidatorSet, text: str
) -> None:
    with pytest.raises(LightRejected, match=text):
        genesis_checkpoint(RULES, header, first_set)


# --- chains of headers ------------------------------------------------------------------------------------------------


def test_a_whole_chain_with_changing_sets_passes() -> None:
    check_chain(RULES, CHAIN.headers(0, 45))
    check_chain(RULES, ())


@pytest.mark.parametrize(
    ("height", "change", "text"),
    [
        (5, {"version": 2}, "header of version 2; known: 1"),
        (5, {"genesis_hash": OTHER}, "block 5 is of the chain"),
        (5, {"epoch": 1}, "block 5 says epoch 1, it lies in 0"),
        (5, {"height": Height(6)}, "block 6 comes after block 4"),
        (5, {"parent_hash": OTHER}, "block 5 stands on 3f3f.*, block 4 is"),
        (
            5,
            {"timestamp_ms": Ms(CHAIN.header(4).timestamp_ms + 332)},
            f"time of block 5 is {CHAIN.header(4).timestamp_ms + 332} ms, allowed from {CHAIN.header(4).timestamp_ms + 333}",
        ),
        (5, {"view": CHAIN.header(4).view}, "view 4 of block 5 is not above its parent's 4"),
        (
            5,
            {"validators_hash": OTHER, "next_validators_hash": OTHER},
            "block 5 names the set 3f3f.*, its parent says",
        ),
        (4, {"next_validators_hash": OTHER}, "block 4 names another next set before block 5"),
        (6, {"next_validators_hash": OTHER}, "block 6 names another next set than its parent"),
        (21, {"validators_hash": OLD.members.hash}, "block 21 names another next set before block 25"),
        (
            21,
            {"validators_hash": OLD.members.hash, "next_validators_hash": OLD.members.hash},
            "block 21 names the set .*, its parent says",
        ),
        (5, {"height": -1}, "header field height is -1, no 64-bit number"),
        (5, {"view": True}, "header field view is True, no 64-bit number"),
        (5, {"state_root": b"short"}, "header field state_root is b'short', not 32 bytes"),
        (5, {"proposer": "x" * 20}, "header field proposer is 'x+', not 20 bytes"),
    ],
)
def test_a_header_that_does_not_stand_on_its_parent_is_refused(
    height: int, change: dict[str, Any], text: str
) -> None:
    headers = (CHAIN.header(height - 1), CHAIN.header(height)._replace(**change))
    with pytest.raises(LightRejected, match=text):
        check_chain(RULES, headers)


@pytest.mark.parametrize("rules", [RULES._replace(epoch_blocks=9), RULES._replace(period_ms=334)])
def test_another_chains_rules_refuse_it(rules: ChainRules) -> None:
    with pytest.raises(LightRejected):
        check_chain(rules, CHAIN.headers(0, 12))


def test_a_block_may_come_late_and_the_fixing_block_may_change_the_next_set() -> None:
    late = CHAIN.header(4)._replace(timestamp_ms=Ms(CHAIN.header(3).timestamp_ms + 50_000))
    check_chain(RULES, (CHAIN.header(3), late))
    fixing = CHAIN.header(5)._replace(next_validators_hash=OTHER)
    check_chain(RULES, (CHAIN.header(4), fixing))


def test_the_rules_themselves_hold_against_a_quorum_that_breaks_them() -> None:
    """Even what a quorum signed must stand where it says."""
    wrong = (CHAIN.header(1), CHAIN.header(2)._replace(timestamp_ms=Ms(0)))
    with pytest.raises(LightRejected, match="time of block 2"):
        check_final(RULES, OLD.members, wrong, make_final(wrong))
    stranger = (CHAIN.header(1)._replace(validators_hash=OTHER, next_validators_hash=OTHER),)
    with pytest.raises(LightRejected, match="block 1 names the set 3f3f"):
        check_final(RULES, OLD.members, stranger, make_final(stranger))
    with pytest.raises(LightRejected, match="0 headers; an epoch has 10 blocks"):
        check_final(RULES, OLD.members, (), CHAIN.certificate(1))


def test_a_body_that_is_not_its_headers_is_refused() -> None:
    """A block's hash is its header's: whoever passes it on could change the rest."""
    block = CHAIN.blocks[5]
    check_body(block)
    check_body(CHAIN.blocks[0])
    with pytest.raises(LightRejected, match="the 4 transactions are not those of block 5"):
        check_body(block._replace(transactions=block.transactions[:-1]))
    with pytest.raises(LightRejected, match="the 1 pieces of evidence are not those of block 5"):
        check_body(block._replace(evidence=(b"evidence",)))


# --- what roots stand for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", range(1, 12))
def test_every_receipt_and_transaction_is_proven(height: int) -> None:
    header, block, receipts = CHAIN.header(height), CHAIN.blocks[height], make_receipts(height)
    hashes = [keccak(raw) for raw in block.transactions]
    count = len(hashes)
    for index, raw in enumerate(block.transactions):
        check_transaction(header, raw, index, count, merkle_branch(hashes, index))
        check_receipt(header, receipts[index], index, count, merkle_branch(receipts, index))


def test_what_the_block_does_not_have_is_refused() -> None:
    header, block, receipts = CHAIN.header(5), CHAIN.blocks[5], make_receipts(5)
    hashes = [keccak(raw) for raw in block.transactions]
    branch = merkle_branch(hashes, 2)

    with pytest.raises(LightRejected, match="transaction .* is not number 2 of 5 in block 5"):
        check_transaction(header, b"another", 2, 5, branch)
    with pytest.raises(LightRejected, match="is not number 3 of 5"):
        check_transaction(header, block.transactions[2], 3, 5, branch)
    with pytest.raises(LightRejected, match="is not number 5 of 5"):
        check_transaction(header, block.transactions[2], 5, 5, branch)
    with pytest.raises(LightRejected, match="is not number 2 of 5"):
        check_transaction(header, block.transactions[2], 2, 5, (*branch, OTHER))
    with pytest.raises(LightRejected, match="receipt .* is not number 0 of 5 in block 5"):
        check_receipt(header, receipts[0], 0, 5, merkle_branch(receipts, 1))
    with pytest.raises(LightRejected, match="in block 4"):
        check_receipt(CHAIN.header(4), receipts[0], 0, 5, merkle_branch(receipts, 0))


def test_a_receipt_shown_with_a_wrong_count_still_belongs_to_the_transaction_shown_with_it() -> None:
    """A header does not say how many there are: the last of three passes for the second of two, in both trees."""
    height = 3
    header, block, receipts = CHAIN.header(height), CHAIN.blocks[height], make_receipts(height)
    hashes = [keccak(raw) for raw in block.transactions]

    check_transaction(header, block.transactions[2], 1, 2, merkle_branch(hashes, 2))
    check_receipt(header, receipts[2], 1, 2, merkle_branch(receipts, 2))

    for wrong in (0, 1):
        with pytest.raises(LightRejected):
            check_receipt(header, receipts[wrong], 1, 2, merkle_branch(receipts, wrong))


def make_proof(key: bytes) -> tuple[bytes, ...]:
    return prove(CHAIN.nodes.get, sha256(key))


def test_a_record_or_its_absence_is_proven() -> None:
    for key, value in RECORDS.items():
        check_record(CHAIN.header(7), key, value, make_proof(key))
    check_record(CHAIN.header(7), b"\x01" + b"?" * 20, None, make_proof(b"\x01" + b"?" * 20))


def test_a_forged_record_is_refused() -> None:
    header, key, other = CHAIN.header(7), *list(RECORDS)[:2]
    absent = b"\x01" + b"?" * 20
    with pytest.raises(LightRejected, match=f"record {key.hex()} in block 7: the tree holds another value"):
        check_record(header, key, b"forged", make_proof(key))
    with pytest.raises(LightRejected, match="another value"):
        check_record(header, key, None, make_proof(key))
    with pytest.raises(LightRejected, match="does not hold the key|does not end"):
        check_record(header, absent, b"forged", make_proof(absent))
    with pytest.raises(LightRejected):
        check_record(header, key, RECORDS[other], make_proof(other))
    with pytest.raises(LightRejected, match="does not have the hash"):
        check_record(header._replace(state_root=OTHER), key, RECORDS[key], make_proof(key))
    with pytest.raises(LightRejected, match="does not end"):
        check_record(header, key, RECORDS[key], ())


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def test_a_headers_bytes_are_the_header() -> None:
    assert decode_header(CHAIN.header(9).encode()) == CHAIN.header(9)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes are no header"),
        (b"\xc0", "1 bytes are no header"),
        (b"\x90", "1 bytes are no header"),
        (CHAIN.header(9).encode()[:-1], "are no header"),
        (CHAIN.header(9).encode() + b"\0", "are no header"),
        (b"\xaf" + b"x" * 15, "header field version is 'x', no 64-bit number"),
        (b"\x9f\xcc\x01" + CHAIN.header(9).encode()[2:], "not in the shortest form"),
    ],
)
def test_other_bytes_are_no_header(data: bytes, text: str) -> None:
    with pytest.raises(LightRejected, match=text):
        decode_header(data)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    with suppress(LightRejected):
        assert decode_header(data).encode() == data


def flip(data: bytes, bit: int) -> bytes:
    """The bytes with one bit changed; the bit's number may pass their end."""
    at = bit % (8 * len(data))
    return data[: at // 8] + bytes((data[at // 8] ^ 1 << at % 8,)) + data[at // 8 + 1 :]


BITS = st.integers(0, 1 << 20)


@settings(max_examples=200)
@given(bit=BITS, what=st.integers(0, 3), height=st.sampled_from((12, 27, 38)))
def test_no_changed_bit_of_a_finality_proof_passes(bit: int, what: int, height: int) -> None:
    """Header, descendant and certificate, each with a bit changed."""
    client = make_client(epochs=4)
    parts = [CHAIN.header(each).encode() for each in range(height, height + 3)]
    parts.append(CHAIN.certificate(height + 2).encode())
    parts[what] = flip(parts[what], bit)

    with pytest.raises((LightRejected, MalformedVote)):
        first, *rest = [decode_header(each) for each in parts[:3]]
        client.accept(first, Certificate.decode(parts[3]), rest)
    assert client.highest[0] == 40


@given(bit=BITS, what=st.integers(0, 2))
def test_no_changed_bit_ends_an_epoch(bit: int, what: int) -> None:
    client = make_client(epochs=1)
    members = b"".join(address + key for address, key in NEW.members.members)
    parts = [CHAIN.header(20).encode(), CHAIN.certificate(20).encode(), members]
    parts[what] = flip(parts[what], bit)

    with pytest.raises((LightRejected, MalformedVote)):
        rows = [parts[2][at : at + 53] for at in range(0, len(parts[2]), 53)]
        next_set = ValidatorSet(tuple(Member(row[:20], row[20:]) for row in rows))  # type: ignore[arg-type]
        client.advance(decode_header(parts[0]), Certificate.decode(parts[1]), next_set)
    assert client.epoch == 1


@settings(max_examples=100)
@given(bit=BITS, data=st.data(), count=st.integers(1, 40))
def test_no_changed_bit_of_a_merkle_proof_passes(bit: int, data: st.DataObject, count: int) -> None:
    receipts = [b"receipt %d" % number for number in range(count)]
    header = CHAIN.header(1)._replace(receipts_root=merkle_root(receipts))
    index = data.draw(st.integers(0, count - 1))
    parts = [header.receipts_root, receipts[index], *merkle_branch(receipts, index)]
    check_receipt(header, receipts[index], index, count, parts[2:])
    what = data.draw(st.integers(0, len(parts) - 1))
    parts[what] = flip(parts[what], bit)

    with pytest.raises(LightRejected):
        forged = header._replace(receipts_root=Hash(parts[0]))
        check_receipt(forged, parts[1], index, count, parts[2:])


@settings(max_examples=100)
@given(bit=BITS, data=st.data(), key=st.sampled_from([*RECORDS, b"\x01" + b"?" * 20]))
def test_no_changed_bit_of_a_records_proof_passes(bit: int, data: st.DataObject, key: bytes) -> None:
    value, proof = RECORDS.get(key), list(make_proof(key))
    header = CHAIN.header(7)
    where = data.draw(st.sampled_from(["value", "root", "proof"] if value else ["root", "proof"]))
    if where == "value" and value:
        value = flip(value, bit)
    elif where == "root":
        header = header._replace(state_root=Hash(flip(header.state_root, bit)))
    else:
        what = data.draw(st.integers(0, len(proof) - 1))
        proof[what] = flip(proof[what], bit)

    with pytest.raises(LightRejected):
        check_record(header, key, value, proof)
