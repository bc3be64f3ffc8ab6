"""What passed between the nodes of a test's network, as it was sent, with the keys to read it afterwards."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack


class Capture:
    """A file of chunks in the order in which they were sent. Between `with` and its end it can be written."""

    def __init__(self, directory: Path) -> None:
        self.tls_keys = directory / "tls-keys.txt"
        self._chunks = directory / "wire.msgpack"
        self._file: Any = None

    def __enter__(self) -> Self:
        self._file = self._chunks.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, flow: str, chunk: bytes) -> None:
        """A Tap."""
        self._file.write(msgpack.packb((flow, chunk)))
