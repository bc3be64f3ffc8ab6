"""`ctt key`: bare keys and keystores, their passwords, and who may read them."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from eth_account import Account

from ctt_state.crypto import address_of
from ctt_state.units import hex_of
from node.exits import Failure
from node.keys import create_key, load_key
from node.keystore import CREDENTIALS, PASSWORD_BYTES_MIN
from tests.cli_world import Ctt, Result
from tests.rpc_world import ALICE_KEY

PASSWORD: Final = "correct horse"
OTHER: Final = "battery staple"
ROOT: Final = Path(__file__).parent.parent


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "key", one_line=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with alice.key, alice.json under PASSWORD, as wallets write it, and files of both passwords."""
    create_key(tmp_path / "alice.key", ALICE_KEY)
    keystore = Account.encrypt(ALICE_KEY, PASSWORD, kdf="pbkdf2", iterations=1_000)
    write(tmp_path / "alice.json", json.dumps(keystore))
    write(tmp_path / "password", f"{PASSWORD}\n")
    write(tmp_path / "other", OTHER)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def address_told(result: Result) -> str:
    assert (result.code, result.err) == (0, ""), result
    return result.out.split()[1]


def test_a_new_key_in_a_keystore_is_one_that_wallets_read(ctt: Ctt, home: Path) -> None:
    address = address_told(
        ctt("new", home / "new.json", "--keystore", "--new-password-file", home / "password")
    )
    text = (home / "new.json").read_text()
    assert (home / "new.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(text)["crypto"]["kdf"] == "scrypt"
    key = bytes(Account.decrypt(text, PASSWORD))
    assert hex_of(address_of(key)) == address
    assert key.hex() not in text


def test_a_key_goes_into_a_keystore_and_out_again(ctt: Ctt, home: Path) -> None:
    alice = hex_of(address_of(ALICE_KEY))
    passwords = ("--new-password-file", home / "password")
    assert address_told(ctt("import", home / "in.json", "--from", home / "alice.key", *passwords)) == alice
    read = ("--password-file", home / "password")
    assert address_told(ctt("show", home / "in.json", *read)) == alice
    assert address_told(ctt("export", home / "in.json", "--to", home / "out.key", *read)) == alice
    assert load_key(home / "out.key") == ALICE_KEY
    again = ctt("export", home / "in.json", "--to", home / "out.key", *read)
    assert (again.code, "a key is never overwritten" in again.err) == (73, True)


def test_a_password_is_changed_whole_or_not_at_all(ctt: Ctt, home: Path) -> None:
    keystore, before = home / "alice.json", (home / "alice.json").read_bytes()
    change = ("change", keystore, "--password-file", home / "password", "--new-password-file")
    write(home / "alice.json.new", "what a crash left")
    refused = ctt(*change, home / "other")
    assert (refused.code, f"Remove {keystore}.new" in refused.err) == (73, True)
    assert (keystore.read_bytes(), (home / "alice.json.new").read_text()) == (before, "what a crash left")
    (home / "alice.json.new").unlink()

    assert address_told(ctt(*change, home / "other")) == hex_of(address_of(ALICE_KEY))
    assert ctt("show", keystore, "--password-file", home / "password")[0::2] == (
        77,
        f"ctt: {keystore}: the password is wrong\n",
    )
    assert load_key(keystore, home / "other") == ALICE_KEY
    bare = ctt("change", home / "alice.key", "--new-password-file", home / "other")
    assert (bare.code, "is no keystore; ctt key import" in bare.err) == (65, True)


def test_keys_are_listed_by_what_they_say_of_themselves(ctt: Ctt, home: Path) -> None:
    write(home / "nobody.json", "{}")
    (home / "open.key").write_text(ALICE_KEY.hex())
    told = json.loads(ctt("list", home, "--json").out)
    alice = hex_of(address_of(ALICE_KEY))
    assert told == [
        {"address": alice, "kind": kind, "file": str(home / name)}
        for kind, name in (("keystore", "alice.json"), ("bare", "alice.key"))
    ]
    assert ctt("list", home).out.splitlines()[2].split() == [alice, "bare", f"{home}/alice.key"]
    assert ctt("list", home / "missing").code == 66


def test_the_terminal_is_asked(ctt: Ctt, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [PASSWORD]
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return answers.pop(0)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", answer)
    assert ctt("show", home / "alice.json").code == 0
    assert asked == [f"password of {home}/alice.json: "]
    answers[:] = [PASSWORD, OTHER]
    differs = ctt("new", home / "new.json", "--keystore")
    assert (differs.code, "the two passwords differ" in differs.err) == (64, True)
    assert not (home / "new.json").exists()


def test_a_service_has_its_password_as_a_credential(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "alice.json.password", PASSWORD)
    monkeypatch.setenv(CREDENTIALS, str(home))
    assert load_key(home / "alice.json") == ALICE_KEY


def test_an_open_descriptor_may_have_it(home: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{PASSWORD}\n".encode())
    os.close(writing)
    command = [sys.executable, "-m", "node.cli.main", "key", "show", str(home / "alice.json"), "--json"]
    ran = subprocess.run(
        [*command, "--password-file", f"/dev/fd/{reading}"],
        pass_fds=(reading,),
        cwd=ROOT,
        capture_output=True,
    )
    os.close(reading)
    assert (ran.returncode, json.loads(ran.stdout)["address"]) == (0, hex_of(address_of(ALICE_KEY)))


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("{", 65, "not a keystore of version 3"),
        ("{}", 65, "not a keystore of version 3"),
        ('{"version": 3, "crypto": {"kdf": "md5"}}', 65, "not a keystore of version 3"),
        ('{"version": 1}', 65, "not a keystore of version 3"),
    ],
)
def test_what_is_no_keystore_is_refused(home: Path, text: str, code: int, why: str) -> None:
    write(home / "bad.json", text)
    with pytest.raises(Failure, match=why) as refused:
        load_key(home / "bad.json", home / "password")
    assert refused.value.exit_code == code


def test_passwords_are_private_there_and_long_enough(ctt: Ctt, home: Path) -> None:
    (home / "password").chmod(0o644)
    opened = ctt("show", home / "alice.json", "--password-file", home / "password")
    assert (opened.code, "is open to others; chmod 600" in opened.err) == (77, True)
    assert ctt("show", home / "alice.json", "--password-file", home / "missing").code == 66
    nobody = ctt("show", home / "alice.json")
    assert (nobody.code, "as the credential alice.json.password, or at a terminal" in nobody.err) == (
        78,
        True,
    )
    write(home / "short", "x" * (PASSWORD_BYTES_MIN - 1))
    short = ctt("new", home / "new.json", "--keystore", "--new-password-file", home / "short")
    assert (short.code, "at least 8" in short.err) == (64, True)
    assert not (home / "new.json").exists()
