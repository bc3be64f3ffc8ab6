"""What MQTT messages say of a meter's registers, by a mapping from topics.

Pure. A tree names the parts whose sum a register is. Where a tree has no time of its own a message counts as of when
it comes, so one that the broker had kept (retained) says nothing.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from apps.meter.reading import WH_PER_UNIT, Malformed, Registers, whole_wh
from ctt_state.units import Ms

PAYLOAD_BYTES_MAX: Final = 16_384
AGE_MS_MAX: Final = 900_000  # of the other parts when one comes


class InvalidTree(ValueError):
    """The mapping says nothing that can be followed; the text says where."""


class Part(NamedTuple):
    """A figure: in a topic's payload, or in a field of it, with dots between, if it is JSON."""

    topic: str
    field: str = ""
    unit: str = ""


class Tree(NamedTuple):
    """Where a device tells its registers."""

    imports: tuple[Part, ...]
    exports: tuple[Part, ...] = ()
    time: Part | None = None

    def topics(self) -> list[str]:
        return sorted({part.topic for part in self.parts()})

    def parts(self) -> Iterator[Part]:
        yield from (*self.imports, *self.exports, *([self.time] if self.time else []))


def read_tree(table: Mapping[str, Any], prefix: str) -> Tree:
    """Out of TOML, with `{prefix}` put in. Raises: InvalidTree."""
    if unknown := set(table) - {"import", "export", "time"}:
        raise InvalidTree(f"{min(unknown)} is none of import, export and time")
    imports, exports = (
        tuple(_part(each, prefix, has_unit=True) for each in table.get(name, []))
        for name in ("import", "export")
    )
    if not imports:
        raise InvalidTree("import has no parts")
    return Tree(imports, exports, _part(table["time"], prefix, has_unit=False) if "time" in table else None)


def _part(table: Any, prefix: str, *, has_unit: bool) -> Part:
    names = {"topic", "field", "unit"} if has_unit else {"topic", "field"}
    if (
        not isinstance(table, dict)
        or not set(table) <= names
        or not all(isinstance(v, str) for v in table.values())
    ):
        raise InvalidTree(f"a part is a table of {', '.join(sorted(names))}, not {table!a}"[:200])
    topic = table.get("topic", "").replace("{prefix}", prefix)
    if not topic or any(sign in topic for sign in "+#\0"):
        raise InvalidTree(f"{topic!a} is no topic to listen to")
    if has_unit and table.get("unit") not in WH_PER_UNIT:
        raise InvalidTree(f"the unit of {topic} is none of {', '.join(WH_PER_UNIT)}")
    return Part(topic, table.get("field", ""), table.get("unit", ""))


class Assembler:
    """Puts one device's messages together."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._known: dict[Part, tuple[Any, Ms]] = {}

    def message(self, topic: str, payload: bytes, now_ms: Ms, *, is_retained: bool) -> Registers | None:
        """The registers, once all parts are known; with a time of its own when that comes, else whenever one does.
        Raises: Malformed."""
        tree = self.tree
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise Malformed(f"a message of {len(payload)} bytes")
        if is_retained and tree.time is None:
            return None
        for part in tree.parts():
            if part.topic == topic and (value := _value(payload, part)) is not None:
                self._known[part] = value, now_ms
        if tree.time is not None and tree.time.topic != topic:
            return None
        if not all(self._is_known(part, now_ms) for part in tree.parts()):
            return None
        return Registers(
            now_ms if tree.time is None else _moment(self._known[tree.time][0]),
            whole_wh(_energy(self._known[part][0], part) for part in tree.imports),
            whole_wh(_energy(self._known[part][0], part) for part in tree.exports),
        )

    def _is_known(self, part: Part, now_ms: Ms) -> bool:
        return part in self._known and self._known[part][1] > now_ms - AGE_MS_MAX


def _value(payload: bytes, part: Part) -> Any:
    """None where the field is not in it: a device says different things in one topic. Raises: Malformed."""
    try:
        if not part.field:
            return payload.decode().strip()
        value = json.loads(payload, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError, InvalidOperation):
        raise Malformed(f"{part.topic}: {payload[:40]!a} cannot be read") from None
    for name in part.field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _energy(value: Any, part: Part) -> Decimal:
    """Devices round in binary and say 1.2000000000000002: what is below a Wh does not count. Raises: Malformed."""
    try:
        number = Decimal(value) if isinstance(value, str | Decimal) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 <= number < 10**15:
        raise Malformed(f"{part.topic} {part.field}: {str(value)[:40]!a} is no energy")
    return number * WH_PER_UNIT[part.unit]


def _moment(value: Any) -> Ms:
    """ISO 8601 with its zone, or seconds since 1970 in UTC. Raises: Malformed."""
    try:
        if isinstance(value, Decimal):
            return Ms(int(datetime.fromtimestamp(int(value), UTC).timestamp()) * 1_000)
        moment = datetime.fromisoformat(str(value).strip('"'))
        if moment.tzinfo is None:
            raise ValueError
        return Ms(int(moment.timestamp() * 1_000))
    except (ValueError, OverflowError, OSError):
        raise Malformed(f"{str(value)[:40]!a} is no time with its zone") from None
