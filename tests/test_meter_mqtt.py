"""Meters behind a broker: what devices say in their topics, a real mosquitto with password, ACL and TLS, and the whole
way to the chain through crashes of every part."""

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.meter.dsmr import Framer, crc16, parse
from apps.meter.outbox import Outbox
from apps.meter.reading import Malformed, ReadingRefused, Registers
from apps.meter.sender import Batching
from apps.meter.topics import AGE_MS_MAX, Assembler, InvalidTree, read_tree
from ctt_state.units import Ms, hex_of
from node.keys import create_key
from tests.live_node import LiveNode, free_port
from tests.meter_world import DATA, ROOT, Homes, make_registers, onboard
from tests.test_meter_gateway import MeterCommand, Running, TcpMeter, wait_until, write_settings
from tests.test_meter_sender import send
from tests.test_rpc_access_tls import AUTHORITY, Maker

TREES: Final = tomllib.loads((ROOT / "apps" / "meter" / "trees.toml").read_text())
NOW: Final = Ms(1_800_000_000_000)

# --- topics ---------------------------------------------------------------------------------------------------------


def tell(name: str, *messages: tuple[str, str], now_ms: Ms = NOW) -> Registers | None:
    assembler = Assembler(read_tree(TREES[name], "dev"))
    found = None
    for topic, payload in messages:
        found = assembler.message(topic, payload.encode(), now_ms, is_retained=False) or found
    return found


@pytest.mark.parametrize(
    ("name", "messages", "registers"),
    [
        (
            "dsmr-reader",
            [
                ("dev/reading/electricity_delivered_1", "1234.567"),
                ("dev/reading/electricity_returned_1", "0.001"),
                ("dev/reading/electricity_delivered_2", "1.000"),
                ("dev/reading/electricity_returned_2", "2"),
                ("dev/reading/timestamp", "2027-01-15T09:00:00+01:00"),
            ],
            (1_800_000_000_000, 1_235_567, 2_001),
        ),
        (
            "dsmr-reader-json",
            [
                (
                    "dev/json",
                    (
                        '{"timestamp":"2027-01-15T08:00:00Z","electricity_delivered_1":"1.5","electricity_delivered_2":"0.5",'
                        '"electricity_returned_1":"0.1","electricity_returned_2":"0","voltage":null}'
                    ),
                )
            ],
            (1_800_000_000_000, 2_000, 100),
        ),
        (
            "esphome",
            [
                (f"dev/sensor/energy_{what}_tariff_{n}/state", "3.25")
                for what in ("consumed", "produced")
                for n in "12"
            ],
            (NOW, 6_500, 6_500),
        ),
        (
            "tasmota",
            [("tele/dev/SENSOR", '{"Time":"2027-01-15T08:00:00","ENERGY":{"Total":1.2000000000000002}}')],
            (NOW, 1_200, 0),
        ),
        (
            "tasmota-sml",
            [("tele/dev/SENSOR", '{"SML":{"Total_in":251.0,"Total_out":9,"Power":-3}}')],
            (NOW, 251_000, 9_000),
        ),
        (
            "shelly-3em",
            [
                (f"shellies/dev/emeter/{n}/{what}", "10.6")
                for n in range(3)
                for what in ("total", "total_returned")
            ],
            (NOW, 31, 31),
        ),
        (
            "shelly-pro-3em",
            [("dev/status/emdata:0", '{"id":0,"total_act":6644.90,"total_act_ret":2595.26}')],
            (NOW, 6_644, 2_595),
        ),
        (
            "shelly-pro-em",
            [("dev/status/em1data:0", '{"total_act_energy":6644.9,"total_act_ret_energy":0}')],
            (NOW, 6_644, 0),
        ),
        (
            "shelly-plug",
            [
                ("dev/status/switch:0", '{"output":true}'),
                ("dev/status/switch:0", '{"aenergy":{"total":12.9}}'),
            ],
            (NOW, 12, 0),
        ),
    ],
)
def test_what_each_device_says(
    name: str, messages: list[tuple[str, str]], registers: tuple[int, int, int]
) -> None:
    assert tell(name, *messages) == make_registers(*registers)
    for missing in range(len(messages)):
        if name != "shelly-plug":
            assert tell(name, *messages[:missing], *messages[missing + 1 :]) is None


def test_every_tree_is_held_by_a_test() -> None:
    marks = [mark for mark in test_what_each_device_says.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(TREES)


def test_what_the_broker_had_kept_says_nothing_of_now_unless_it_says_when() -> None:
    payload = b'{"ENERGY":{"Total":1}}'
    tasmota = Assembler(read_tree(TREES["tasmota"], "dev"))
    assert tasmota.message("tele/dev/SENSOR", payload, NOW, is_retained=True) is None
    assert tasmota.message("tele/dev/SENSOR", payload, NOW, is_retained=False) == make_registers(NOW, 1_000)

    shelly = Assembler(read_tree(TREES["shelly-3em"], "dev"))
    for number in range(3):
        shelly.message(f"shellies/dev/emeter/{number}/total", b"1", NOW, is_retained=False)
    for number in range(3):
        late = Ms(NOW + AGE_MS_MAX)
        assert (
            shelly.message(f"shellies/dev/emeter/{number}/total_returned", b"1", late, is_retained=False)
            is None
        )


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "[1]",
        '{"ENERGY":{"Total":-1}}',
        '{"ENERGY":{"Total":true}}',
        '{"ENERGY":{"Total":NaN}}',
        '{"ENERGY":{"Total":"1e99"}}',
    ],
)
def test_a_payload_that_is_none_is_refused_or_says_nothing(payload: str) -> None:
    with suppress(Malformed):
        assert tell("tasmota", ("tele/dev/SENSOR", payload)) is None


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.floats() | st.integers() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["ENERGY", "Total"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_payload_does_more_than_being_refused(payload: bytes) -> None:
    for name in ("tasmota", "dsmr-reader-json"):
        assembler = Assembler(read_tree(TREES[name], "dev"))
        with suppress(ReadingRefused):
            assembler.message(
                "tele/dev/SENSOR" if name == "tasmota" else "dev/json", payload, NOW, is_retained=False
            )


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({}, "import has no parts"),
        ({"import": [{"topic": "a", "unit": "kWh"}], "power": 1}, "power is none of import, export and time"),
        ({"import": [{"topic": "a/+", "unit": "kWh"}]}, "'a/+' is no topic to listen to"),
        ({"import": [{"topic": "a", "unit": "J"}]}, "the unit of a is none of Wh, kWh, MWh"),
        ({"import": ["a"]}, "a part is a table of field, topic, unit"),
    ],
)
def test_a_mapping_that_cannot_be_followed_is_refused(table: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidTree, match=re.escape(fault)):
        read_tree(table, "dev")


# --- a real broker --------------------------------------------------------------------------------------------------

needs_broker = pytest.mark.skipif(
    not (shutil.which("mosquitto") and shutil.which("mosquitto_passwd")), reason="mosquitto is not installed"
)
PASSWORDS: Final = {"gateway": "read", "device": "write", "stranger": "none"}
ACL: Final = (
    "user gateway\ntopic read #\nuser device\ntopic write #\nuser stranger\ntopic write elsewhere/#\n"
)


class Broker:
    """mosquitto with password, ACL and TLS."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.port, self._directory = free_port(), directory
        self.ca = AUTHORITY.write(directory / "ca.pem")
        certificate, key = AUTHORITY.issue(directory, "broker")
        for name, password in PASSWORDS.items():
            flags = ["-b"] if (directory / "passwords").exists() else ["-c", "-b"]
            subprocess.run(["mosquitto_passwd", *flags, directory / "passwords", name, password], check=True)
            (directory / f"{name}.password").write_text(password + "\n")
        (directory / "acl").write_text(ACL)
        (directory / "mosquitto.conf").write_text(
            f"listener {self.port} localhost\nuser root\nallow_anonymous false\npassword_file {directory}/passwords\n"
            f"acl_file {directory}/acl\ncafile {self.ca}\ncertfile {certificate}\nkeyfile {key}\n"
        )
        self.start()

    def start(self) -> None:
        command = [str(shutil.which("mosquitto")), "-c", str(self._directory / "mosquitto.conf")]
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def settings(self, user: str = "gateway", ca: Path | None = None) -> str:
        return (
            f'[mqtt]\nhost = "localhost"\nport = {self.port}\nusername = "{user}"\nca-file = "{ca or self.ca}"\n'
            f'password-file = "{self._directory}/{user}.password"\n'
        )

    def publish(self, *messages: tuple[str, bytes], user: str = "device") -> None:
        """Until the broker has them."""

        async def run() -> None:
            client = aiomqtt.Client(
                "localhost",
                self.port,
                username=user,
                password=PASSWORDS[user],
                tls_context=ssl.create_default_context(cafile=str(self.ca)),
            )
            async with client:
                for topic, payload in messages:
                    await client.publish(topic, payload, qos=1)

        while True:
            with suppress(aiomqtt.MqttError):
                asyncio.run(run())
                return
            time.sleep(0.1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(tmp_path_factory.mktemp("mqtt") / "node") as node:
        yield node


@needs_broker
def test_devices_of_several_kinds_are_on_the_chain_by_a_concentrator(node: LiveNode, tmp_path: Path) -> None:
    """Over TLS, with password; a stranger whom the ACL keeps out of the topics says nothing."""
    homes = Homes(node, "several", 3, concentrator=True)
    onboard(homes)
    with Broker(tmp_path / "broker") as broker:
        own = '[trees.own]\nimport = [{ topic = "{prefix}/in", unit = "Wh" }]\n'
        more = f"every = 0\n[concentrator]\nseconds = 0\n{broker.settings()}{own}"
        meters = (
            'tree = "shelly-pro-3em"\nprefix = "hut"',
            'tree = "tasmota"\nprefix = "plug"',
            'tree = "own"\nprefix = "x"',
        )
        with Running(write_settings(tmp_path, homes, *meters, more=more)) as running:

            def are_there() -> bool:
                broker.publish(("x/in", b"999999"), user="stranger")
                broker.publish(
                    ("hut/status/emdata:0", b'{"total_act":6644.90,"total_act_ret":2595.26}'),
                    ("tele/plug/SENSOR", b'{"ENERGY":{"Total":1.234}}'),
                    ("x/in", b"77"),
                )
                return all(homes.last_reading(number).time_ms for number in range(3))

            wait_until(are_there)
            assert "waiting" in running.stop()
    assert [homes.last_reading(number)[1:] for number in range(3)] == [(6_644, 2_595), (1_234, 0), (77, 0)]


@needs_broker
@pytest.mark.parametrize(
    ("user", "is_strange_ca", "text"),
    [("nobody", False, "ot authori[sz]ed"), ("gateway", True, "certificate verify failed")],
)
def test_a_broker_that_is_not_ours_or_does_not_know_us_is_said(
    node: LiveNode, tmp_path: Path, user: str, is_strange_ca: bool, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = Homes(node, "refused")
    with Broker(tmp_path / "broker") as broker:
        (tmp_path / "broker" / "nobody.password").write_text("guess")
        ca = Maker("Another").write(tmp_path / "other.pem") if is_strange_ca else None
        settings = write_settings(tmp_path, homes, 'telegrams = "p1"', more=broker.settings(user, ca))
        with Running(settings) as running:
            time.sleep(2)
            assert re.search(f"mqtt://localhost:{broker.port}: .*{text}", running.stop())


# --- the whole way --------------------------------------------------------------------------------------------------

STEPS: Final = 10
GATEWAY_KILLED, BROKER_KILLED, NODE_KILLED = (1, 3, 4, 6, STEPS), 5, 7


def later(telegram: bytes, step: int) -> bytes:
    """The same meter's telegram so many quarter hours later, its first import register further by 137 Wh each."""

    def register(match: re.Match[bytes]) -> bytes:
        decimals = len(match[2].partition(b".")[2])
        unit = 10**decimals // (1_000 if match[3] == b"kWh" else 1)
        digits = str(int(match[2].replace(b".", b"")) + 137 * step * unit).rjust(
            len(match[2]) - bool(decimals), "0"
        )
        return (
            match[1]
            + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits).encode()
            + b"*"
            + match[3]
        )

    def clock(match: re.Match[bytes]) -> bytes:
        seconds = int(match[2]) * 3_600 + int(match[3]) * 60 + step * 60
        return match[1] + b"%02d%02d" % divmod(seconds // 60, 60)

    telegram = re.sub(rb"(0-0:1\.0\.0\(\d{6})(\d\d)(\d\d)", clock, telegram)
    code = rb"1\.8\.0" if b":1.8.0" in telegram else rb"1\.8\.1"
    telegram = re.sub(rb"(1-0:" + code + rb"(?:\*255)?\()([\d.]+)\*(k?Wh)", register, telegram)
    content = telegram[: telegram.index(b"\n!") + 2]
    has_checksum = len(telegram) > len(content) + 2
    return content + (b"%04X\r\n" % crc16(content) if has_checksum else b"\r\n")


class Importing:
    """`ctt meter import` of all days: a program that ends by itself, and is begun anew when it was killed."""

    def __init__(self, homes: Homes, directory: Path, days: Sequence[Path]) -> None:
        key, outbox = directory / "past.key", directory / "past.outbox"
        create_key(key, homes.meter_key)
        flags = ("--key", key, "--outbox", outbox, "--rpc", homes.node.url)
        self._arguments = ("import", hex_of(homes.prosumers[0]), *days, *flags)
        self._log = directory / "past.log"
        self.start()

    def start(self) -> None:
        self._command = MeterCommand(self._log, *self._arguments)

    def kill(self) -> None:
        self._command.kill()

    def finish(self) -> str:
        """Its last line."""
        assert self._command.process.wait(timeout=60) == 0, self._log.read_text()
        return self._log.read_text().splitlines()[-1]

    def __enter__(self) -> "Importing":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def count_espi(content: bytes) -> tuple[int, int]:
    """How many intervals the file has, and their Wh, without the reader that is tested."""
    values = [
        int(each)
        for each in re.findall(rb"</timePeriod>\s*<value>(\d+)</value>\s*</IntervalReading>", content)
    ]
    return len(values), sum(values)


@needs_broker
@pytest.mark.skipif(not DATA.is_dir(), reason="the telegrams of ../shared/data are not here")
def test_real_meters_reach_the_chain_through_crashes_of_everything(tmp_path: Path) -> None:
    """Telegrams by TCP, by file and by a broker's topics, and two weeks of Green Button files, while both programs are
    killed five times, the broker once and the node once: nothing is lost, nothing counts twice."""
    files = sorted((DATA / "dsmr").glob("*.txt"), reverse=True)  # those first that tell the time
    files = [path for path in files if "unpadded" not in path.name]
    first = [Framer().feed(path.read_bytes())[0] for path in files]
    days = sorted((DATA / "greenbutton").glob("day_*.xml"))
    with ExitStack() as stack:
        node = stack.enter_context(LiveNode(tmp_path / "node"))
        broker = stack.enter_context(Broker(tmp_path / "broker"))
        tcp = stack.enter_context(closing(TcpMeter()))
        homes, past = Homes(node, "whole", len(first), concentrator=True), Homes(node, "past")
        onboard(homes, past)
        sources = [f'source = "{tcp.url}"', 'source = "p1.txt"']
        topics = [f'telegrams = "p1/{number}"' for number in range(len(sources), len(first))]
        more = f"every = 0\nclock-behind = {2**32}\n[concentrator]\nseconds = 0\n{broker.settings()}"
        settings = write_settings(tmp_path, homes, *sources, *topics, more=more)

        def say(step: int) -> None:
            said = [later(each, step) for each in first]
            tcp.telegram = said[0]
            broker.publish(*((f"p1/{at}", said[at]) for at in range(len(sources), len(first))))

        def is_counted(step: int) -> bool:
            say(step)
            return [homes.last_reading(number)[1:] for number in range(len(first))] == [
                parse(later(each, step))[2:] for each in first
            ]

        def start(step: int) -> Running:
            """It reads what its file has by now."""
            (tmp_path / "p1.txt").write_bytes(b"".join(later(first[1], each) for each in range(step + 1)))
            return stack.enter_context(Running(settings))

        say(0)
        gateway = start(0)
        importing = stack.enter_context(Importing(past, tmp_path, days))
        wait_until(lambda: is_counted(0))
        for step in range(1, STEPS + 1):
            say(step)
            time.sleep(0.2)
            if step in GATEWAY_KILLED:
                gateway.kill()
                importing.kill()
                say(step)
                gateway = start(step)
                importing.start()
            if step == BROKER_KILLED:
                broker.kill()
                time.sleep(0.5)
                broker.start()
            if step == NODE_KILLED:
                node.kill()
                say(step)
                node.restart()
        wait_until(lambda: is_counted(STEPS))
        gateway.stop()
        with Outbox(tmp_path / "outbox") as outbox:
            send(outbox, homes, batching=Batching(wait_s=0))  # what it had taken at last
            counts = outbox.counts()
            assert counts.taken == counts.final >= 2 * len(first) and counts.waiting == counts.refused == 0

        for number in range(len(first)):
            counted = sum(int(log["data"][2:66], 16) for log in homes.readings(number))
            assert counted == 137 * STEPS, files[number].name

        intervals, energies = zip(*[count_espi(day.read_bytes()) for day in days], strict=True)
        assert intervals[10] == 92 and len(days) == 14
        readings = 1 + sum(intervals)  # the baseline first
        assert importing.finish() == f"{readings} readings are on the chain, 0 were refused by it"
        assert past.nonce() == 1 + readings
        assert past.last_reading().import_wh == sum(energies)
        assert sum(int(log["data"][2:66], 16) for log in past.readings()) == sum(energies)
