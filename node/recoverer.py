"""The process that finds who signed transactions: `python -m node.recoverer CHAIN_ID`, started by `node.recovery`.

On standard input come lists of envelopes in MessagePack, on standard output goes for each list one of addresses, empty
for an envelope whose signature no key made. It ends when its input does, which is when the node does: signals are for
the node.
"""

import os
import signal
import sys
from typing import Final

import msgpack

from ctt_state.errors import InvalidTransaction
from ctt_state.transaction import decode_included, recover_sender

READ_BYTES_MAX: Final = 1 << 18
NO_SENDER: Final = b""


def recover(raw: bytes, chain_id: int) -> bytes:
    """Of an envelope that the node has decoded before."""
    try:
        return recover_sender(decode_included(raw, chain_id))
    except InvalidTransaction:
        return NO_SENDER


def main() -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    chain_id = int(sys.argv[1])
    requests = msgpack.Unpacker(max_buffer_size=0)  # of the node's own making
    while data := os.read(sys.stdin.fileno(), READ_BYTES_MAX):
        requests.feed(data)
        for raws in requests:
            sys.stdout.buffer.write(msgpack.packb([recover(raw, chain_id) for raw in raws]))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
