"""What the work behind a transaction's steps takes at least on this machine: the same bytes through the bare library.

Each function gives a piece of work that does for a whole block what no program in Python could do with less; the
profile times it beside the step.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgpack
import plyvel
import uvloop
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from bench.door import CONTENT_LENGTH, read_calls
from bench.throughput import cpu_seconds
from ctt_state.crypto import keccak
from ctt_state.transaction import Transaction, signing_hash
from node.store import LEVELDB_OPTIONS, BlockWrite

Work = Callable[[], object]

HTTP_CONNECTIONS: Final = 16
ANSWER: Final = b'HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{"jsonrpc":"2.0","id":1,"result":"0x1"}'


def sha256_of(parts: Iterable[bytes]) -> Work:
    """SHA-256 of each."""
    kept = list(parts)
    return lambda: [hashlib.sha256(part).digest() for part in kept]


def keccak_of(parts: Iterable[bytes]) -> Work:
    kept = list(parts)
    return lambda: [keccak(part) for part in kept]


def recovery_of(transactions: Sequence[Transaction]) -> Work:
    """libsecp256k1's part of a recovery: from a parsed signature to a point."""
    context, jobs = GLOBAL_CONTEXT.ctx, []
    for each in transactions:
        signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        compact = each.r.to_bytes(32, "big") + each.s.to_bytes(32, "big")
        lib.secp256k1_ecdsa_recoverable_signature_parse_compact(context, signature, compact, each.y_parity)
        jobs.append((signature, signing_hash(each)))
    key = ffi.new("secp256k1_pubkey *")
    return lambda: [lib.secp256k1_ecdsa_recover(context, key, *job) for job in jobs]


def msgpack_of(value: object) -> Work:
    """One call of msgpack's encoder for all of it."""
    return lambda: msgpack.packb(value)


def msgpack_from(values: Iterable[object]) -> Work:
    """The decoder written in C, one call a value."""
    packed = [msgpack.packb(value) for value in values]
    return lambda: [msgpack.unpackb(each) for each in packed]


def json_from(bodies: Sequence[bytes]) -> Work:
    """The decoder written in C, without limits on what comes."""
    return lambda: [json.loads(body) for body in bodies]


def json_of(values: Sequence[object]) -> Work:
    return lambda: [json.dumps(value) for value in values]


def join_of(parts: Sequence[bytes]) -> Work:
    """A copy of all bytes."""
    return lambda: b"".join(parts)


class BareStore:
    """A LevelDB with the node's options and nothing above it."""

    def __init__(self, directory: Path) -> None:
        self._database: Any = plyvel.DB(str(directory), create_if_missing=True, **LEVELDB_OPTIONS)

    def write_of(self, block: BlockWrite) -> Work:
        """One synced batch of the rows that change with each transaction."""
        rows = [(b"s" + key, value) for key, value in block.state]
        rows += [(b"t" + path, value) for path, value in block.nodes]
        rows += [(b"x" + name, b"\0" * 12) for name in block.transactions]
        rows += [(b"b", block.block), (b"r", block.receipts), (b"u", block.undo)]

        def write() -> None:
            with self._database.write_batch(sync=True) as batch:
                for key, value in rows:
                    if value is None:
                        batch.delete(key)
                    else:
                        batch.put(key, value)

        return write

    def close(self) -> None:
        self._database.close()


def synced_write_of(file: Path, data: bytes) -> Work:
    """The bytes at the end of a file, and on the disk."""

    def write() -> None:
        with file.open("ab", buffering=0) as opened:
            opened.write(data)
            os.fdatasync(opened.fileno())

    return write


# --- HTTP ----------------------------------------------------------------------------------------------------------


def http_us(port: int, pid: int, body_bytes: int, seconds: float) -> float:
    """What a request for the chain id with so long a body costs the process that answers it."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": [], "pad": ""}
    request["pad"] = "0" * (body_bytes - len(json.dumps(request)))
    before = cpu_seconds(pid)
    looked = uvloop.run(read_calls(port, json.dumps(request).encode(), HTTP_CONNECTIONS, seconds))
    answered: float = looked["per_second"] * seconds
    return (cpu_seconds(pid) - before) / answered * 1e6


def bare_http_us(body_bytes: int, seconds: float) -> float:
    """The same of a server that waits for the body's end and gives one fixed answer."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        return http_us(ours.recv(), server.pid or 0, body_bytes, seconds)
    finally:
        server.terminate()
        server.join()


def _serve(told: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answerer, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


class _Answerer(asyncio.Protocol):
    def __init__(self) -> None:
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, _, body = self._request.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        if length and len(body) >= int(length[1]):
            self._request = b""
            self._transport.write(ANSWER)
