"""`ctt ca`: who gets a certificate, what is never overwritten, and what an operator reads when something is wrong."""

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ctt_state.crypto import checksum_address
from ctt_state.units import Address, hex_of
from node.cli.ca import issue_development
from node.cli.certificates import create_authority, open_authority
from node.exits import Failure
from p2p.identity import Identity, PeerIdentity, load_identity, show_serial
from tests.cli_world import Ctt, Result

ALICE: Final = Address(bytes.fromhex("b57f333ee9520adf12630bd60fe07169a08a9b20"))
BOB: Final = Address(b"\x0b" * 20)
NOW: Final = datetime.now(UTC)


@pytest.fixture
def ca(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "ca")


@pytest.fixture
def made(ca: Ctt, tmp_path: Path) -> Path:
    """An authority."""
    assert ca("init", "--dir", tmp_path / "ca").code == 0
    return tmp_path / "ca"


def issue(ca: Ctt, made: Path, name: str, *more: object) -> Identity:
    out = made.parent / f"node-{name}" / "tls"
    result = ca("issue", "--dir", made, "--out", out, "--name", name, *more)
    assert result.code == 0, result.err
    return load_identity(out, NOW + timedelta(minutes=1))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_an_authority_signs_nodes_only_and_keeps_its_key_to_itself(ca: Ctt, tmp_path: Path) -> None:
    result = ca("init", "--dir", tmp_path / "ca", "--name", "Sonnenstraße", "--days", 20)

    assert result.code == 0
    end = NOW + timedelta(days=20)
    assert result.out == f"{tmp_path}/ca/ca.pem: Sonnenstraße, valid until {end:%Y-%m-%d}\n"
    certificate = x509.load_pem_x509_certificate((tmp_path / "ca/ca.pem").read_bytes())
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert mode(tmp_path / "ca/ca.key") == 0o600
    assert mode(tmp_path / "ca") == 0o700


def test_a_validator_gets_an_identity_of_its_own(ca: Ctt, made: Path) -> None:
    out = made.parent / "node" / "tls"

    result = ca(
        *("issue", "--dir", made, "--out", out, "--name", "validator-1"),
        *("--validator", checksum_address(ALICE), "--days", 30),
    )

    alice = load_identity(out, NOW)
    assert result == Result(
        0,
        f"{out}: validator-1, validator {hex_of(ALICE)}, serial number {show_serial(alice.own.serial)}, "
        f"valid until {NOW + timedelta(days=30):%Y-%m-%d}\n",
        "",
    )
    assert alice.own == PeerIdentity("validator-1", ALICE, alice.own.serial)
    assert sorted(os.listdir(out)) == ["ca.pem", "node.key", "node.pem", "revoked.txt"]
    assert mode(out / "node.key") == 0o600
    assert mode(out) == mode(out.parent) == 0o700
    assert (out / "ca.pem").read_bytes() == (made / "ca.pem").read_bytes()


def test_a_nodes_certificate_is_for_handshakes_of_both_sides_and_nothing_else(ca: Ctt, made: Path) -> None:
    issue(ca, made, "validator-1")

    certificate = x509.load_pem_x509_certificate((made.parent / "node-validator-1/tls/node.pem").read_bytes())
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    ]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign


def test_a_key_is_private_whatever_the_umask(ca: Ctt, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ca("init", "--dir", tmp_path / "ca")
        ca("issue", "--dir", tmp_path / "ca", "--out", tmp_path / "tls", "--name", "a")
    finally:
        os.umask(before)

    assert mode(tmp_path / "ca/ca.key") == mode(tmp_path / "tls/node.key") == 0o600
    assert mode(tmp_path / "tls/node.pem") == 0o644


def test_an_authority_is_never_overwritten(ca: Ctt, made: Path) -> None:
    before = files(made)

    result = ca("init", "--dir", made)

    assert result.code == 73
    assert "exists already; an authority is never overwritten" in result.err
    assert files(made) == before


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "revoked.txt", "issued"])
def test_not_even_a_part_of_an_authority_is_overwritten(ca: Ctt, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("nowhere")

    assert ca("init", "--dir", tmp_path).code == 73

    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_an_identity_is_never_overwritten(
    ca: Ctt, made: Path, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "tls")

    result = ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", "a")

    assert result.code == 73
    assert "tls exists already; an identity is never overwritten" in result.err
    assert list((made / "issued").iterdir()) == []


def test_what_cannot_be_made_is_said(ca: Ctt, made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for arguments in (
        ("init", "--dir", tmp_path / "file" / "ca"),
        ("issue", "--dir", made, "--out", tmp_path / "file" / "tls", "--name", "a"),
    ):
        result = ca(*arguments)
        assert result.code == 73
        assert "cannot create the" in result.err
        assert "Not a directory" in result.err


def test_the_rest_of_an_interrupted_issue_is_no_obstacle(ca: Ctt, made: Path, tmp_path: Path) -> None:
    (tmp_path / "tls.new").mkdir()
    (tmp_path / "tls.new" / "node.key").touch()

    assert ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", "a").code == 0

    assert load_identity(tmp_path / "tls", NOW).own.name == "a"
    assert not (tmp_path / "tls.new").exists()


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--name", "", "'' is no name"),
        ("--name", "a b", "'a b' is no name"),
        ("--name", ".a", "is no name"),
        ("--name", "ä", r"'\xe4' is no name"),
        ("--name", "a" * 64, "is no name: 1 to 63 letters"),
        ("--name", "a\nb", r"'a\nb' is no name"),
        ("--validator", "0x12", "'0x12' is no address: 0x and 40 hexadecimal digits"),
        ("--validator", "0x" + "0" * 40, "is no address"),
        ("--validator", "0x" + "g" * 40, "is no address"),
        ("--validator", "0x" + " 1" * 20, "is no address"),
        ("--validator", "0X" + "0a" * 20, "is no address"),
        ("--validator", "0a" * 21, "is no address"),
        ("--validator", checksum_address(ALICE).replace("b", "B"), "the checksum of"),
        ("--days", "0", "'0' is not a whole number from 1"),
        ("--days", "-1", "'-1' is not a whole number"),
        ("--days", "36501", "36501 days are more than 36500"),
        ("--dais", "1", "unknown option --dais; did you mean --days?"),
    ],
)
def test_a_wrong_option_is_named(
    ca: Ctt, made: Path, tmp_path: Path, option: str, value: str, problem: str
) -> None:
    arguments = {"--dir": made, "--out": tmp_path / "tls", "--name": "a"} | {option: value}

    result = ca("issue", *(f"{name}={text}" for name, text in arguments.items()))

    assert result.code == 64
    assert problem in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["issue"], ["issue", "--dir", "x"], ["init"], ["revoke", "--dir", "x"], ["list"], ["renew"]],
)
def test_a_call_that_lacks_something_ends_with_64(ca: Ctt, arguments: list[str]) -> None:
    assert ca(*arguments).code == 64


@pytest.mark.parametrize("name", ["", "x" * 65, "a\tb"])
def test_a_name_that_no_authority_can_bear_is_refused(ca: Ctt, tmp_path: Path, name: str) -> None:
    result = ca("init", "--dir", tmp_path / "ca", "--name", name)

    assert result.code == 64
    assert "1 to 64 printable characters" in result.err


# An authority that is not usable


@pytest.mark.parametrize("command", ["issue", "list", "revoke"])
@pytest.mark.parametrize(
    ("damage", "code", "problem"),
    [
        (lambda made: (made / "ca.pem").unlink(), 66, "ca.pem: no such file"),
        (lambda made: (made / "ca.key").unlink(), 66, "ca.key: no such file"),
        (lambda made: (made / "revoked.txt").unlink(), 66, "revoked.txt: no such file"),
        (lambda made: (made / "ca.key").chmod(0o640), 77, "ca.key: is open to others (0640); chmod 600"),
        (lambda made: (made / "ca.key").write_text("key"), 65, "ca.key: is not a key"),
        (lambda made: (made / "ca.pem").write_text("ca"), 65, "ca.pem: is not a certificate"),
        (lambda made: (made / "revoked.txt").write_text("bob"), 65, "line 1: 'bob' is no serial number"),
        (lambda made: (made / "issued" / "x.pem").touch(), 65, "x.pem: is not a certificate"),
    ],
)
def test_a_damaged_authority_is_not_used(
    ca: Ctt,
    made: Path,
    tmp_path: Path,
    command: str,
    damage: Callable[[Path], object],
    code: int,
    problem: str,
) -> None:
    damage(made)
    arguments = {"issue": ("--out", tmp_path / "tls", "--name", "a"), "list": (), "revoke": ("a",)}[command]

    result = ca(command, "--dir", made, *arguments)

    assert result.code == code
    assert problem in result.err
    assert not (tmp_path / "tls").exists()


def test_an_authority_with_anothers_key_is_refused(ca: Ctt, made: Path, tmp_path: Path) -> None:
    foreign = create_authority(tmp_path / "foreign", "Foreign", now=NOW, days=10)
    (made / "ca.key").write_bytes((foreign.directory / "ca.key").read_bytes())

    result = ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", "a")

    assert result.code == 65
    assert "ca.key: is not the key of" in result.err


def test_a_node_is_no_authority(ca: Ctt, made: Path, tmp_path: Path) -> None:
    issue(ca, made, "a")
    node = tmp_path / "node-a" / "tls"
    (node / "ca.pem").write_bytes((node / "node.pem").read_bytes())
    (node / "ca.key").write_bytes((node / "node.key").read_bytes())
    (node / "ca.key").chmod(0o600)

    result = ca("issue", "--dir", node, "--out", tmp_path / "tls", "--name", "b")

    assert result.code == 65
    assert "not the certificate of an authority" in result.err


def test_an_expired_authority_issues_nothing(ca: Ctt, tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "Old", now=NOW - timedelta(days=10), days=5)

    result = ca("issue", "--dir", tmp_path / "ca", "--out", tmp_path / "tls", "--name", "a")

    assert result.code == 65
    assert "ca.pem: expired on" in result.err


# Names, validators, revocation


def test_a_name_and_a_validator_belong_together(ca: Ctt, made: Path, tmp_path: Path) -> None:
    issue(ca, made, "alice", "--validator", hex_of(ALICE))
    issue(ca, made, "follower-1")

    for name, more in (
        ("alice", ()),
        ("alice", ("--validator", hex_of(BOB))),
        ("bob", ("--validator", hex_of(ALICE))),
        ("follower-1", ("--validator", hex_of(BOB))),
    ):
        result = ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", name, *more)
        assert result.code == 78, (name, more)
        assert "revoke it first, or choose another name" in result.err


def test_renewing_repeats_name_and_validator(ca: Ctt, made: Path, tmp_path: Path) -> None:
    first = issue(ca, made, "alice", "--validator", hex_of(ALICE))

    options = ("--name", "alice", "--validator", hex_of(ALICE))
    assert ca("issue", "--dir", made, "--out", tmp_path / "tls", *options).code == 0

    second = load_identity(tmp_path / "tls", NOW)
    assert second.own == PeerIdentity("alice", ALICE, second.own.serial)
    assert second.own.serial != first.own.serial


def test_revoked_and_expired_names_are_free_again(ca: Ctt, made: Path) -> None:
    issue(ca, made, "alice", "--validator", hex_of(ALICE))
    assert ca("revoke", "--dir", made, "alice").code == 0

    assert issue(ca, made, "bob", "--validator", hex_of(ALICE)).own.validator == ALICE


def test_the_list_says_what_each_certificate_is_worth(ca: Ctt, tmp_path: Path) -> None:
    made = tmp_path / "ca"
    authority = create_authority(made, "Consortium", now=NOW - timedelta(days=60), days=600)
    old = NOW - timedelta(days=30)
    authority.issue(tmp_path / "old", "old", None, now=old, days=5)
    lost = issue(ca, made, "lost")
    alice = issue(ca, made, "alice", "--validator", hex_of(ALICE))
    ca("revoke", "--dir", made, "lost")

    lines = ca("list", "--dir", made).out.splitlines()

    year = f"{NOW + timedelta(days=365):%Y-%m-%d}"
    assert lines[1].split() == [
        show_serial(alice.own.serial),
        "valid",
        year,
        "alice",
        "validator",
        hex_of(ALICE),
    ]
    assert lines[2].split() == [show_serial(lost.own.serial), "revoked", year, "lost", "no", "validator"]
    assert lines[3].split()[1:] == [
        "expired",
        f"{old + timedelta(days=5):%Y-%m-%d}",
        "old",
        "no",
        "validator",
    ]
    assert len(lines) == 4
    told = json.loads(ca("list", "--dir", made, "--json").out)
    assert [each["state"] for each in told] == ["valid", "revoked", "expired"]
    assert told[0] == {
        "serial": show_serial(alice.own.serial),
        "name": "alice",
        "validator": hex_of(ALICE),
        "state": "valid",
        "validUntil": year,
    }


def test_a_name_is_revoked_with_all_its_certificates(ca: Ctt, made: Path, tmp_path: Path) -> None:
    first, other = issue(ca, made, "alice"), issue(ca, made, "bob")
    ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", "alice")
    second = load_identity(tmp_path / "tls", NOW)

    result = ca("revoke", "--dir", made, "alice")

    assert result.code == 0
    for identity in (first, second):
        assert f"{show_serial(identity.own.serial)}: revoked, alice\n" in result.out
        assert f"{show_serial(identity.own.serial)}  # alice, " in (made / "revoked.txt").read_text()
    assert show_serial(other.own.serial) not in (made / "revoked.txt").read_text()


def test_one_certificate_is_revoked_by_its_serial_number(ca: Ctt, made: Path, tmp_path: Path) -> None:
    first = issue(ca, made, "alice")
    ca("issue", "--dir", made, "--out", tmp_path / "tls", "--name", "alice")

    result = ca("revoke", "--dir", made, show_serial(first.own.serial).upper())

    assert result.code == 0
    assert [one.is_revoked for one in open_authority(made).issued()].count(True) == 1
    assert load_identity(tmp_path / "tls", NOW).own.name == "alice"


def test_revoking_again_changes_nothing(ca: Ctt, made: Path) -> None:
    issue(ca, made, "alice")
    ca("revoke", "--dir", made, "alice")
    before = files(made)

    result = ca("revoke", "--dir", made, "alice")

    assert result.code == 0
    assert "alice: revoked already\n" in result.out
    assert files(made) == before


def test_what_the_authority_did_not_issue_is_not_revoked(ca: Ctt, made: Path) -> None:
    before = files(made)

    for unknown in ("alice", "12ab", "\n", "f" * 50):
        result = ca("revoke", "--dir", made, unknown)
        assert result.code == 66
        assert "is neither the name nor the serial number of a certificate; see ctt ca list" in result.err

    assert files(made) == before


def test_what_an_operator_wrote_to_the_list_stays(ca: Ctt, made: Path) -> None:
    issue(ca, made, "alice")
    (made / "revoked.txt").write_text("# by hand\n12ab # bought, never paid")

    ca("revoke", "--dir", made, "alice")

    lines = (made / "revoked.txt").read_text().splitlines()
    assert lines[:2] == ["# by hand", "12ab # bought, never paid"]
    assert len(lines) == 3


def test_a_new_node_gets_the_list_as_it_is(ca: Ctt, made: Path) -> None:
    alice = issue(ca, made, "alice")
    ca("revoke", "--dir", made, "alice")

    assert issue(ca, made, "bob").is_revoked(alice.own)


# Development networks


def test_a_development_network_gets_what_it_lacks(tmp_path: Path) -> None:
    issue_development(tmp_path, [("validator-1", ALICE)])
    before = files(tmp_path)

    issue_development(tmp_path, [("validator-1", ALICE), ("validator-2", BOB), ("follower", None)])

    assert {path: content for path, content in files(tmp_path).items() if path in before} == before
    own = [
        load_identity(tmp_path / name / "tls", NOW).own for name in ("validator-1", "validator-2", "follower")
    ]
    assert [peer.validator for peer in own] == [ALICE, BOB, None]


def test_a_development_network_with_a_damaged_authority_is_a_failure(tmp_path: Path) -> None:
    issue_development(tmp_path, [])
    (tmp_path / "ca" / "ca.key").chmod(0o644)

    with pytest.raises(Failure, match="open to others") as failure:
        issue_development(tmp_path, [("validator-1", ALICE)])
    assert failure.value.exit_code == 77
