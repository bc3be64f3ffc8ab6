"""Votes and certificates (C-1, C-2)."""

import pytest

from ctt_state.crypto import public_key, sha256, sign_compact
from ctt_state.units import Hash
from ctt_state.votes import Certificate, InvalidCertificate, Kind, Statement, check_certificate, quorum

CHAIN = Hash(b"c" * 32)
BLOCK = Hash(b"b" * 32)
SECRETS = [sha256(b"validator %d" % number) for number in range(4)]
KEYS = tuple(public_key(secret) for secret in SECRETS)
STATEMENT = Statement(Kind.FINALIZE, 1, 7, 6, BLOCK)


def make_certificate(*signers: int, statement: Statement = STATEMENT) -> Certificate:
    digest = STATEMENT.digest(CHAIN)
    return Certificate(
        statement, tuple((signer, sign_compact(SECRETS[signer], digest)) for signer in signers)
    )


@pytest.mark.parametrize(
    ("validators", "votes"),
    [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (21, 15), (100, 67)],
)
def test_quorum_is_all_but_the_tolerable_faults(validators: int, votes: int) -> None:
    assert quorum(validators) == votes


@pytest.mark.parametrize("validators", range(1, 101))
def test_two_quorums_share_an_honest_validator(validators: int) -> None:
    faulty = (validators - 1) // 3
    assert 2 * quorum(validators) - validators >= faulty + 1


def test_a_quorum_of_valid_votes_is_accepted() -> None:
    check_certificate(make_certificate(0, 2, 3), KEYS, CHAIN)


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (make_certificate(0, 1), "has 2 signatures of 3 needed"),
        (make_certificate(0, 1, 1), "not distinct"),
        (make_certificate(1, 0, 2), "not distinct members in order"),
        (Certificate(STATEMENT, ((1, b"s" * 64), (2, b"s" * 64), (4, b"s" * 64))), "set of 4"),
        (Certificate(STATEMENT, ((-1, b"s" * 64), (1, b"s" * 64), (2, b"s" * 64))), "set of 4"),
        (make_certificate(0, 1, 2, statement=STATEMENT._replace(view=8)), "validator 0 does not verify"),
    ],
)
def test_a_certificate_without_a_quorum_is_refused(certificate: Certificate, text: str) -> None:
    with pytest.raises(InvalidCertificate, match=text):
        check_certificate(certificate, KEYS, CHAIN)


def test_another_chains_certificate_is_refused() -> None:
    with pytest.raises(InvalidCertificate):
        check_certificate(make_certificate(0, 1, 2), KEYS, Hash(b"d" * 32))


def test_certificates_survive_their_bytes() -> None:
    certificate = make_certificate(0, 1, 2)
    assert Certificate.decode(certificate.encode()) == certificate


def test_statements_of_different_kinds_never_share_their_bytes() -> None:
    digests = {STATEMENT._replace(kind=kind).digest(CHAIN) for kind in Kind}
    assert len(digests) == len(Kind)
