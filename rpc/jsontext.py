"""JSON values, and results that are JSON text already."""

import json
from collections.abc import Iterable
from typing import Final

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

dumps: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


class RawJson(str):
    """A result that is JSON text already."""

    __slots__ = ()


def hex_text(value: bytes) -> RawJson:
    """Bytes as a JSON string."""
    return RawJson(f'"0x{value.hex()}"')


def array(items: Iterable[str]) -> RawJson:
    """A JSON array of texts that are JSON."""
    return RawJson(f"[{','.join(items)}]")
