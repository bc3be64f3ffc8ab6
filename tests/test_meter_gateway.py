"""`ctt meter run` and `import`: the command over files, TCP and a serial line, on a real node's chain."""

import asyncio
import configparser
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import pytest
from eth_account import Account

from apps.demo.street import TREASURER_KEY
from apps.meter.intake import Meter, Tally
from apps.meter.outbox import Outbox
from apps.meter.settings import InvalidSettings, load
from apps.meter.sources import parse_source, telegrams
from ctt_state.units import hex_of
from node.cli.main import build_parser
from node.keys import create_key, load_key
from tests.cli_world import Ctt
from tests.live_node import LiveNode, free_port
from tests.meter_world import DATA, HOME, ROOT, Homes, make_registers, make_telegram, onboard
from tests.rpc_world import private_key

SECONDS_MAX: Final = 30
PASSWORD: Final = "correct horse"
PAGE_SECTIONS: Final = 3  # of docs/METER.md that have commands


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("gateway") / "node") as node:
        onboard(
            Homes(node, "file", max_power=20_000),
            Homes(node, "keystore"),
            Homes(node, "green"),
            Homes(node, "csv"),
            Homes(node, "tcp"),
            Homes(node, "serial"),
            *(Homes(node, f"page {number}") for number in range(PAGE_SECTIONS)),
        )
        yield node


@pytest.fixture
def ctt(capsys: pytest.CaptureFixture[str]) -> Ctt:
    return Ctt(capsys, "meter")


def write_settings(directory: Path, homes: Homes, *meters: str, more: str = "") -> Path:
    """A gateway's file for these homes, each with its lines."""
    key = directory / "meter.key"
    if not key.exists():
        create_key(key, homes.meter_key)
    tables = (
        f'[[meters]]\nprosumer = "{hex_of(prosumer)}"\n{lines}\n'
        for prosumer, lines in zip(homes.prosumers, meters, strict=True)
    )
    path = directory / "gateway.toml"
    path.write_text(
        f'rpc = "{homes.node.url}"\nkey = "meter.key"\noutbox = "outbox"\n{more}\n' + "\n".join(tables)
    )
    return path


class MeterCommand:
    """`ctt meter` in a process of its own."""

    def __init__(self, log_file: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "node.cli.main", "meter", *map(str, arguments)]
        self.log = log_file
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def stop(self) -> str:
        """SIGTERM; its last line."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=SECONDS_MAX) == 0, self.log.read_text()
        return self.log.read_text().splitlines()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Running(MeterCommand):
    """`ctt meter run`."""

    def __init__(self, settings: Path, *flags: str) -> None:
        super().__init__(settings.with_suffix(".log"), "run", settings, *flags)


def wait_until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.05)


def telegram_of(moment: datetime, import_wh: int, export_wh: int = 0) -> bytes:
    """As a meter of the Netherlands speaks in winter."""
    local = datetime.fromtimestamp(moment.timestamp() + 3_600, UTC)
    return make_telegram(
        "1-3:0.2.8(50)",
        f"0-0:1.0.0({local:%y%m%d%H%M%S}W)",
        f"1-0:1.8.1({import_wh // 1000:06d}.{import_wh % 1000:03d}*kWh)",
        f"1-0:2.8.1({export_wh // 1000:06d}.{export_wh % 1000:03d}*kWh)",
    )


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_thinned_out_to_slots_and_every_refusal_has_its_reason(
    node: LiveNode, tmp_path: Path, ctt: Ctt
) -> None:
    homes = Homes(node, "file")
    start = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC).timestamp()

    def at(seconds: int, wh: int) -> bytes:
        return telegram_of(datetime.fromtimestamp(start + seconds, UTC), wh)

    good = [at(10 * number, 1_000 + number) for number in range(200)]  # 33 minutes
    bad = [
        good[5].replace(b"1.005*", b"9.005*"),
        at(2_000, 900),
        at(1_000, 5_000),
        telegram_of(datetime(2060, 1, 1, tzinfo=UTC), 6_000),
        make_telegram("0-1:24.2.1(000.1*m3)"),
    ]
    (tmp_path / "p1.txt").write_bytes(b"".join([*good, *bad]))
    result = ctt("run", write_settings(tmp_path, homes, 'source = "p1.txt"'))  # beside the settings

    assert (result.code, result.err) == (0, "")
    # The baseline, the last before 10:15 and before 10:30, and where the file ends.
    assert "4 on the chain, 0 waiting" in result.out
    assert "5 not passed on (backwards 1, checksum 1, clock 1, no_registers 1, not_newer 1)" in result.out
    assert homes.last_reading() == make_registers(int(start + 1_990) * 1_000, 1_199)
    consumed = [int(log["data"][2:66], 16) for log in homes.readings()]
    assert consumed == [89, 90, 20]

    again = ctt("run", tmp_path / "gateway.toml")
    assert again.code == 0 and "4 on the chain, 0 waiting; 204 not passed on" in again.out
    assert homes.nonce() == 1 + 4


@pytest.mark.skipif(not DATA.is_dir(), reason="the telegrams of ../shared/data are not here")
def test_a_keystore_is_as_good_as_a_key(node: LiveNode, tmp_path: Path, ctt: Ctt) -> None:
    homes = Homes(node, "keystore")
    keystore = Account.encrypt(homes.meter_key, PASSWORD, kdf="pbkdf2", iterations=1_000)
    for name, text in (("meter.key", json.dumps(keystore)), ("secret", PASSWORD + "\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    source = f'source = "{DATA}/dsmr/telegram_v5.txt"'
    settings = write_settings(tmp_path, homes, source, more='password-file = "secret"')

    assert ctt("run", settings).code == 0
    assert homes.last_reading() == make_registers(1_483_381_202_000, 6_825, 2_444)

    (tmp_path / "secret").write_text("wrong")
    assert ctt("run", settings)[0::2] == (77, f"ctt: {tmp_path}/meter.key: the password is wrong\n")
    assert "give its password by --password-file" in ctt("run", write_settings(tmp_path, homes, source)).err
    (tmp_path / "meter.key").write_text(json.dumps(keystore | {"version": 4}))
    assert (
        "not a keystore of version 3"
        in ctt("run", write_settings(tmp_path, homes, source, more='password-file = "secret"')).err
    )


@pytest.mark.skipif(not DATA.is_dir(), reason="the files of ../shared/data are not here")
def test_days_of_green_button_are_imported_once(node: LiveNode, tmp_path: Path, ctt: Ctt) -> None:
    homes = Homes(node, "green")
    create_key(tmp_path / "meter.key", homes.meter_key)
    days = sorted((DATA / "greenbutton").glob("day_*.xml"))
    more = ("--key", tmp_path / "meter.key", "--outbox", tmp_path / "outbox", "--rpc", node.url)

    first = ctt("import", hex_of(homes.prosumers[0]), days[10], *more)
    assert "93 readings of 1 files" in first.out
    assert first.out.endswith("93 readings are on the chain, 0 were refused by it\n")
    assert homes.last_reading().import_wh == 109_403
    (tmp_path / "outbox").unlink()
    again = ctt("import", hex_of(homes.prosumers[0]), *days[10:12], *more)
    assert "96 readings of 2 files" in again.out
    assert homes.last_reading() == make_registers(1_331_611_200_000, 109_403 + 91_950)
    assert sum(int(log["data"][2:66], 16) for log in homes.readings()) == 109_403 + 91_950


def test_an_import_that_cannot_be_is_refused_before_anything_is_taken(
    node: LiveNode, tmp_path: Path, ctt: Ctt
) -> None:
    homes = Homes(node, "csv")
    create_key(tmp_path / "meter.key", homes.meter_key)
    (tmp_path / "a.csv").write_text("DATE,START TIME,END TIME,USAGE (kWh)\n2026-03-29,00:00,00:15,0.1\n")
    arguments = (
        "import",
        hex_of(homes.prosumers[0]),
        tmp_path / "a.csv",
        "--key",
        tmp_path / "meter.key",
        "--outbox",
        tmp_path / "outbox",
        "--rpc",
        node.url,
    )

    assert "a.csv: of which zone are its times?" in ctt(*arguments).err
    assert ctt(*arguments, "--zone", "Mars/Base").code == 64
    assert ctt(*arguments, "--zone", "Europe/Amsterdam").out.endswith(
        "2 readings are on the chain, 0 were refused by it\n"
    )
    assert homes.last_reading() == make_registers(1_774_739_700_000, 100)
    (tmp_path / "a.csv").write_text("DATE,START TIME,END TIME,USAGE (kWh)\n2026-03-29,00:05,00:20,0.1\n")
    refused = ctt(*arguments, "--zone", "Europe/Amsterdam")
    assert refused.code == 65 and "overlaps what has been counted" in refused.err


# --- TCP and serial -------------------------------------------------------------------------------------------------


class TcpMeter:
    """A network's P1 gateway: whoever connects hears the newest telegram, again and again."""

    def __init__(self) -> None:
        self.telegram = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                while True:
                    connection.sendall(self.telegram)
                    time.sleep(0.05)
            except OSError:
                return

    def close(self) -> None:
        self._server.close()


def test_a_live_meter_is_read_over_tcp_and_metrics_tell_of_it(node: LiveNode, tmp_path: Path) -> None:
    homes = Homes(node, "tcp")
    meter, port = TcpMeter(), free_port()
    settings = write_settings(tmp_path, homes, f'source = "{meter.url}"', more="every = 0")
    meter.telegram = telegram_of(datetime(2020, 1, 1, tzinfo=UTC), 1)

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with Running(settings, "--metrics-port", str(port)) as running:
        wait_until(lambda: re.search(r'ctt_meter_refused_total\{reason="clock"\} [1-9]', metrics()))
        meter.telegram = telegram_of(datetime.now(UTC), 1_000)
        wait_until(lambda: homes.last_reading().import_wh == 1_000)
        wait_until(lambda: 'ctt_meter_readings{state="final"} 1.0' in metrics())
        assert "1 on the chain, 0 waiting" in running.stop()
    meter.close()


def test_a_serial_line_is_read_as_it_comes(node: LiveNode, tmp_path: Path) -> None:
    homes = Homes(node, "serial")
    meter, line = os.openpty()
    settings = write_settings(tmp_path, homes, f'source = "serial:{os.ttyname(line)}"')
    telegram = telegram_of(datetime.now(UTC), 4_321, 7)

    def is_there() -> bool:
        os.write(meter, telegram)
        return homes.last_reading()[1:] == (4_321, 7)

    with Running(settings) as running:
        wait_until(is_there)
        running.stop()


def test_a_full_disk_is_said_and_what_was_taken_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """SQLite's own error for a disk that is full, which the file's greatest size brings about."""
    tally = Tally()
    with Outbox(tmp_path / "outbox") as outbox:
        meter = Meter(outbox, HOME, tally, slot_s=0, behind_s=None)
        pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
        outbox._database.execute(f"PRAGMA max_page_count = {pages + 2}")
        for number in range(1, 100):
            meter.registers(make_registers(number * 1_000, number), bytes(2_000), "test")
        taken = outbox.counts().taken
        assert "database or disk is full" in tally.full and 0 < taken == tally.accepted < 99

        outbox._database.execute("PRAGMA max_page_count = 100000")
        meter.registers(make_registers(100_000, 100), b"", "test")
        assert tally.full == "" and outbox.counts().taken == taken + 1 and not tally.refused


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("serial:/dev/nowhere", "serial:/dev/nowhere: No such file or directory"),
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9: Connect"),
    ],
)
def test_a_source_that_does_not_answer_is_said(tmp_path: Path, source: str, text: str) -> None:
    async def first() -> str:
        heard: asyncio.Queue[str] = asyncio.Queue()
        stream = telegrams(parse_source(source), heard.put_nowait)
        waiting = asyncio.ensure_future(anext(stream))
        try:
            return await heard.get()
        finally:
            waiting.cancel()

    assert asyncio.run(first()).startswith(text)


# --- settings -------------------------------------------------------------------------------------------------------

MINIMAL: Final = 'key = "k"\noutbox = "o"\n[[meters]]\nprosumer = "0x{0}"\nsource = "p1.txt"\n'.replace(
    "{0}", "11" * 20
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("key = ", "Invalid value"),
        ("", "key is missing"),
        ("nonsense = 1\n" + MINIMAL, "nonsense is unknown"),
        ("every = true\n" + MINIMAL, "every is no int"),
        ("every = 86401\n" + MINIMAL, "every is none of 0 to 86400"),
        (MINIMAL.replace("11" * 20, "zz"), "meters[0].prosumer is no address"),
        (MINIMAL.replace("p1.txt", "tcp://host"), "'tcp://host' is not tcp://HOST:PORT"),
        (MINIMAL.replace("p1.txt", "serial:/dev/x?baud=300"), "is not serial:DEVICE"),
        (MINIMAL + 'tree = "tasmota"', "meters[0]. has one of source, tree and telegrams"),
        (MINIMAL.replace('source = "p1.txt"', 'tree = "abacus"'), "meters[0].tree is none of dsmr-reader,"),
        (MINIMAL.replace('source = "p1.txt"', 'tree = "tasmota"'), "mqtt: a meter needs it"),
        (
            MINIMAL.replace('source = "p1.txt"', 'tree = "tasmota"\nprefix = "#"'),
            "'tele/#/SENSOR' is no topic",
        ),
        (MINIMAL + MINIMAL[MINIMAL.index("[[") :], "two are of one prosumer"),
        (
            MINIMAL + MINIMAL[MINIMAL.index("[[") :].replace("11", "22"),
            "only a concentrator reports for several",
        ),
        (MINIMAL + "[mqtt]\nport = 1", "mqtt.host is missing"),
        (MINIMAL + "[trees.mine]\nimport = []", None),
        (
            "[trees.mine]\nimport = []\n" + MINIMAL.replace('source = "p1.txt"', 'tree = "mine"'),
            "key is missing",
        ),
    ],
)
def test_settings_say_what_is_wrong_and_where(tmp_path: Path, text: str, fault: str | None) -> None:
    (tmp_path / "gateway.toml").write_text(text)
    if fault is None:
        load(tmp_path / "gateway.toml")
        return
    with pytest.raises(InvalidSettings, match=re.escape(fault)):
        load(tmp_path / "gateway.toml")


def test_who_is_called_wrongly_says_so_in_a_line(node: LiveNode, tmp_path: Path, ctt: Ctt) -> None:
    homes = Homes(node, "wrong")
    assert ctt("run", tmp_path / "none.toml")[0::2] == (
        66,
        f"ctt: {tmp_path}/none.toml: No such file or directory\n",
    )
    settings = write_settings(tmp_path, homes, 'source = "nowhere.txt"')
    assert ctt("run", settings)[0::2] == (66, f"ctt: {tmp_path}/nowhere.txt: No such file or directory\n")
    taken = ctt("run", settings, "--metrics-port", node.port)
    assert (taken.code, taken.err) == (
        69,
        f"ctt: cannot serve metrics at 127.0.0.1:{node.port}: Address already in use\n",
    )
    write_settings(tmp_path, homes, 'telegrams = "p1"', more='[mqtt]\nhost = "localhost"\nca-file = "ca.pem"')
    assert ctt("run", settings)[0::2] == (66, f"ctt: {tmp_path}/ca.pem: No such file or directory\n")
    (tmp_path / "ca.pem").write_text("no certificate")
    assert f"ctt: {tmp_path}/ca.pem: " in ctt("run", settings).err
    (tmp_path / "gateway.toml").write_text("every = 1")
    assert ctt("run", settings)[0::2] == (78, f"ctt: {settings}: key is missing\n")
    assert load_key(tmp_path / "meter.key") == homes.meter_key


# --- simulation, service and page -----------------------------------------------------------------------------------


def test_a_simulated_neighbourhood_lives_on_where_it_was(node: LiveNode, tmp_path: Path, ctt: Ctt) -> None:
    create_key(tmp_path / "operator.key", TREASURER_KEY)
    flags: tuple[object, ...] = (
        "--meters",
        5,
        "--quarters",
        2,
        "--pace",
        0.1,
        "--operator-key",
        tmp_path / "operator.key",
    )
    for number in range(2):
        result = ctt("simulate", *flags, "--outbox", tmp_path / f"outbox{number}", "--rpc", node.url)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == "5 homes come to the chain" and lines[2].startswith("06:15  ")
        assert re.fullmatch(r"end    10 readings on the chain, [\d,]+/s; 0 waiting, 0 refused", lines[3])

    create_key(tmp_path / "stranger.key", private_key("stranger"))
    flags = (*flags[:-1], tmp_path / "stranger.key", "--seed", 2, "--outbox", tmp_path / "other")
    refused = ctt("simulate", *flags, "--rpc", node.url)
    assert refused.code == 77 and "is no operator; the CTT's admin makes one" in refused.err


def test_the_service_runs_a_command_that_exists() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "apps/meter/ctt-meter.service")

    program, *words = unit["Service"]["ExecStart"].split()
    options = build_parser().parse_args(words)
    assert Path(program).name == "ctt" and options.settings.parent == Path(
        unit["Service"]["WorkingDirectory"]
    )
    assert options.metrics_port == 9746


def test_the_page_is_run_as_written(node: LiveNode, tmp_path: Path) -> None:
    """docs/METER.md, section by section, each with a home of its own, and another node and meter than it says."""
    page = (ROOT / "docs/METER.md").read_text()
    meter = TcpMeter()
    meter.telegram = telegram_of(datetime.now(UTC), 5_000, 6)
    ctt = (
        f'ctt() {{ if [ $2 = run ]; then timeout --preserve-status 4 {sys.executable} -m node.cli.main "$@"; '
        f'else {sys.executable} -m node.cli.main "$@" --rpc {node.url}; fi; }}'
    )
    found = []
    for number, block in enumerate(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)):
        homes = Homes(node, f"page {number}")
        directory = tmp_path / str(number)
        directory.mkdir()
        create_key(directory / "meter.key", homes.meter_key)
        create_key(directory / "operator.key", TREASURER_KEY)
        script = block.replace("http://127.0.0.1:8545", node.url).replace("tcp://192.168.1.20:23", meter.url)
        ran = subprocess.run(
            ["bash", "-c", f"set -eu\n{ctt}\n{script}"],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HOME_ADDRESS": hex_of(homes.prosumers[0])},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        assert ran.returncode == 0, ran
        found.append((homes.last_reading()[1:], ran.stdout))
    meter.close()
    assert len(found) == PAGE_SECTIONS
    assert [registers for registers, _ in found] == [(5_000, 6), (210, 0), (0, 0)]
    assert (
        "5.000 kWh in, 0.006 kWh out at" in found[0][1] and "end    80 readings on the chain" in found[2][1]
    )


def test_the_pages_tables_are_settings(tmp_path: Path) -> None:
    page = (ROOT / "docs/METER.md").read_text()
    broker, concentrator = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mqtt.password").write_text("secret\n")
    (tmp_path / "gateway.toml").write_text(f'key = "k"\noutbox = "o"\n{concentrator}\n{broker}')

    told = load(tmp_path / "gateway.toml")
    assert told.batching is not None and told.batching.readings_max == 250
    assert told.broker is not None and (told.broker.port, told.broker.password) == (8_883, "secret")
    trees = tomllib.loads((ROOT / "apps/meter/trees.toml").read_text())
    assert all(f"`{name}`" in page for name in trees)
