"""What `ctt meter run` is told by its TOML file.

Every fault is told by its place; nothing unknown is passed over. Paths are relative to the file.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from apps.meter.intake import BEHIND_S, SLOT_S
from apps.meter.mqtt import Broker
from apps.meter.sender import Batching
from apps.meter.sources import InvalidSource, Source, parse_source
from apps.meter.topics import InvalidTree, Tree, read_tree
from ctt_state.units import ZERO_ADDRESS, Address

BATCH_MAX: Final = 500
SLOT_S_MAX: Final = 86_400
BEHIND_S_MAX: Final = 2**32
OFFSETS: Final = (-12, 14)


class InvalidSettings(ValueError):
    """The file says what cannot be followed."""


@dataclass(frozen=True)
class MeterSettings:
    """A prosumer's meter, and where it speaks: a stream of telegrams, a tree of topics, or telegrams in a topic."""

    prosumer: Address
    source: Source | None = None
    tree: Tree | None = None
    topic: str = ""


@dataclass(frozen=True)
class Settings:
    """All of it. `batching` None: the key is a meter's own, and each reading a transaction."""

    rpc: str
    key: Path
    outbox: Path
    meters: tuple[MeterSettings, ...]
    password_file: Path | None = None
    token_file: Path | None = None
    broker: Broker | None = None
    batching: Batching | None = None
    slot_s: int = SLOT_S
    standard_offset_h: int = 1
    behind_s: int = BEHIND_S


def load(path: Path) -> Settings:
    """Raises: OSError, InvalidSettings."""
    try:
        return _settings(_Table("", tomllib.loads(path.read_text("utf-8")), path.parent))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InvalidSource, InvalidTree) as fault:
        raise InvalidSettings(str(fault)) from None


class _Table:
    """A table of the file, of which each value is taken once; what is left over nobody knows."""

    def __init__(self, name: str, values: Mapping[str, Any], directory: Path) -> None:
        self.name, self._values, self._directory = name, dict(values), directory

    def take(self, name: str, kind: type, default: Any = ...) -> Any:
        value = self._values.pop(name, default)
        if value is ...:
            raise InvalidSettings(f"{self.name}{name} is missing")
        if value is not default and (
            not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
        ):
            raise InvalidSettings(f"{self.name}{name} is no {kind.__name__}")
        return value

    def whole(self, name: str, least: int, most: int, default: Any = ...) -> int:
        value: int = self.take(name, int, default)
        if not least <= value <= most:
            raise InvalidSettings(f"{self.name}{name} is none of {least} to {most}")
        return value

    def path(self, name: str, default: Any = ...) -> Any:
        value = self.take(name, str, default)
        return value if value is default else self._directory / value

    def source(self) -> Source | None:
        text = self.take("source", str, None)
        source = text and parse_source(text)
        if source and source.kind == "file":
            return source._replace(place=str(self._directory / source.place))
        return source or None

    def table(self, name: str) -> "_Table | None":
        value = self.take(name, dict, None)
        return None if value is None else _Table(f"{self.name}{name}.", value, self._directory)

    def tables(self, name: str) -> list["_Table"]:
        values = self.take(name, list)
        if not values or not all(isinstance(value, dict) for value in values):
            raise InvalidSettings(f"{self.name}{name} is no list of tables, [[{name}]]")
        return [_Table(f"{name}[{at}].", value, self._directory) for at, value in enumerate(values)]

    def take_all(self) -> dict[str, Any]:
        values, self._values = self._values, {}
        return values

    def end(self) -> None:
        if self._values:
            raise InvalidSettings(f"{self.name}{min(self._values)} is unknown")


def _settings(table: _Table) -> Settings:
    batching, broker = table.table("concentrator"), table.table("mqtt")
    trees = table.table("trees")
    trees_known = _own_trees() | (trees.take_all() if trees else {})
    settings = Settings(
        rpc=table.take("rpc", str, "http://127.0.0.1:8545"),
        key=table.path("key"),
        password_file=table.path("password-file", None),
        token_file=table.path("token-file", None),
        outbox=table.path("outbox"),
        meters=tuple(_meter(each, trees_known) for each in table.tables("meters")),
        broker=_broker(broker) if broker else None,
        batching=_batching(batching) if batching else None,
        slot_s=table.whole("every", 0, SLOT_S_MAX, SLOT_S),
        standard_offset_h=table.whole("utc-offset", *OFFSETS, 1),
        behind_s=table.whole("clock-behind", 0, BEHIND_S_MAX, BEHIND_S),
    )
    table.end()
    prosumers = [meter.prosumer for meter in settings.meters]
    if len(set(prosumers)) < len(prosumers):
        raise InvalidSettings("meters: two are of one prosumer")
    if len(prosumers) > 1 and settings.batching is None:
        raise InvalidSettings("meters: only a concentrator reports for several prosumers; see [concentrator]")
    if settings.broker is None and any(meter.source is None for meter in settings.meters):
        raise InvalidSettings("mqtt: a meter needs it, and it is missing")
    return settings


def _own_trees() -> dict[str, Any]:
    return tomllib.loads((files("apps.meter") / "trees.toml").read_text("utf-8"))


def _meter(table: _Table, trees: Mapping[str, Any]) -> MeterSettings:
    prosumer = _address(table)
    source, tree = table.source(), table.take("tree", str, None)
    topic, prefix = table.take("telegrams", str, ""), table.take("prefix", str, "")
    table.end()
    if [source, tree, topic or None].count(None) != 2:
        raise InvalidSettings(f"{table.name} has one of source, tree and telegrams")
    if tree is None:
        return MeterSettings(prosumer, source, None, topic)
    if tree not in trees:
        raise InvalidSettings(f"{table.name}tree is none of {', '.join(sorted(trees))}, nor in [trees]")
    return MeterSettings(prosumer, None, read_tree(trees[tree], prefix))


def _address(table: _Table) -> Address:
    text = table.take("prosumer", str)
    try:
        prosumer = Address(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        prosumer = ZERO_ADDRESS
    if len(prosumer) != 20 or prosumer == ZERO_ADDRESS:
        raise InvalidSettings(f"{table.name}prosumer is no address: 0x and 40 hexadecimal digits")
    return prosumer


def _broker(table: _Table) -> Broker:
    ca = table.path("ca-file", None)
    password_file = table.path("password-file", None)
    broker = Broker(
        host=table.take("host", str),
        port=table.whole("port", 1, 65_535, 8_883 if ca else 1_883),
        username=table.take("username", str, None),
        password=password_file and _read_secret(password_file),
        ca=ca,
        certificate=table.path("certificate-file", None),
        key=table.path("key-file", None),
    )
    table.end()
    return broker


def _read_secret(path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except OSError as fault:
        raise InvalidSettings(f"{path}: {fault.strerror}") from None


def _batching(table: _Table) -> Batching:
    batching = Batching(table.whole("readings", 1, BATCH_MAX, 250), table.whole("seconds", 0, 3_600, 2))
    table.end()
    return batching
