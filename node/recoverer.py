"""The process that finds who signed transactions: `python -m node.recoverer`, started by `node.recovery`.

On standard input come lists of envelopes in MessagePack, on standard output goes for each list one of addresses, empty
for an envelope whose signature no key made. It ends when its input does, which is when the node does: signals are for
the node.
"""

import os
import signal
import sys
from contextlib import suppress
from typing import Final

import msgpack

from ctt_state.errors import InvalidTransaction
from ctt_state.transaction import sender_of

READ_BYTES_MAX: Final = 1 << 18
NO_SENDER: Final = b""


def recover(raw: bytes) -> bytes:
    """Of an envelope that the node has decoded before."""
    try:
        return sender_of(raw)
    except InvalidTransaction:
        return NO_SENDER


def main() -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    requests = msgpack.Unpacker(max_buffer_size=0)  # of the node's own making
    with suppress(ConnectionError):
        while data := os.read(sys.stdin.fileno(), READ_BYTES_MAX):
            requests.feed(data)
            for raws in requests:
                answer(msgpack.packb([recover(raw) for raw in raws]))


def answer(data: bytes) -> None:
    """Raises: ConnectionError when the node is gone."""
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


if __name__ == "__main__":
    main()
