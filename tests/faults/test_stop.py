"""A node that is told to stop ends within five seconds, whatever its clients do meanwhile (reliability: I-16)."""

import json
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ctt_state.transaction import sign_transaction
from ctt_state.units import hex_of
from tests.ledger_world import ALICE_KEY, BOB, CHAIN_ID
from tests.live_node import LiveNode

STOP_SECONDS_MAX: Final = 5.0
UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GAP: Final = 1  # a nonce that nobody sends: what comes after it waits for ever


def frame(text: str) -> bytes:
    """One masked text frame; the mask is zero."""
    data = text.encode()
    assert 125 < len(data) < 65_536
    return b"\x81\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data


def call(method: str, *params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params, "padding": "x" * 100})


@contextmanager
def opened(node: LiveNode, *parts: bytes) -> Iterator[socket.socket]:
    """A connection that has sent this, and answers nothing any more, not even that it closes."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as client:
        for part in parts:
            client.sendall(part)
        yield client


def transaction(nonce: int) -> str:
    signed = sign_transaction(
        ALICE_KEY, chain_id=CHAIN_ID, nonce=nonce, gas_limit=21_000, to=BOB, value=1, data=b""
    )
    return hex_of(signed)


def send_waiting(node: LiveNode, nonce: int) -> None:
    """A request that is answered when its transaction is final, or when the node stops."""
    with suppress(urllib.error.URLError, ConnectionError, AssertionError, TimeoutError):
        node.call("eth_sendRawTransactionSync", transaction(nonce), 30_000)


def test_a_node_stops_in_time_whatever_its_clients_do(tmp_path: Path) -> None:
    with LiveNode(tmp_path / "node") as node, ExitStack() as clients:
        subscribe = [frame(call("eth_subscribe", kind)) for kind in ("newHeads", "logs")]
        for _ in range(8):  # that take in nothing of what they asked for
            deaf = clients.enter_context(opened(node, UPGRADE))
            assert b"101" in deaf.recv(15)
            for each in subscribe:
                deaf.sendall(each)
        clients.enter_context(
            opened(node, UPGRADE, *[frame(call("rpc.discover"))] * 100)
        )  # megabytes, unread
        waits = frame(call("eth_sendRawTransactionSync", transaction(GAP + 9), 30_000))
        clients.enter_context(opened(node, UPGRADE, *[waits] * 40))  # more than are at work at once
        for _ in range(4):
            clients.enter_context(opened(node, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le"))
            clients.enter_context(opened(node))
        waiting = [threading.Thread(target=send_waiting, args=(node, GAP + each)) for each in range(1, 9)]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 20
        while node.call("ctt_chainStatus")["pool"]["queued"] <= len(waiting):
            assert time.monotonic() < deadline
            time.sleep(0.02)

        node.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = node.process.wait(timeout=60)
        took_s = time.monotonic() - started
        for thread in waiting:
            thread.join()
    assert code == 0
    assert took_s < STOP_SECONDS_MAX, node.log()
    assert "stopped at block" in node.log().splitlines()[-1]
