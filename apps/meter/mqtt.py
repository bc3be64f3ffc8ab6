"""Meters behind an MQTT broker, with password and TLS.

The session is a new one each time: what a broker had kept while nobody listened would come late, and what is missed
the next message makes up for, as registers go on.
"""

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import aiomqtt

from apps.meter.dsmr import Framer
from apps.meter.intake import Meter, now_ms
from apps.meter.reading import Malformed, ReadingRefused
from apps.meter.topics import PAYLOAD_BYTES_MAX, Assembler, Tree

RECONNECT_S: Final = (1.0, 5.0)
QUEUE_MAX: Final = 10_000
KEEPALIVE_S: Final = 30


class Broker(NamedTuple):
    """Where it is, and who we are. With `ca` the connection is TLS; `certificate` and `key` are our own."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Listener(NamedTuple):
    """A meter that is told of by MQTT: a device's tree, or whole telegrams in a topic."""

    meter: Meter
    tree: Tree | None
    topic: str = ""


async def listen(broker: Broker, listeners: Sequence[Listener], on_state: Callable[[str], None]) -> None:
    """Forever. `on_state` hears why there is no connection, and "" when there is. Raises: OSError with
    their names for files that are none."""
    tls = _tls(broker)
    handlers = _handlers(listeners)
    while True:
        try:
            async with aiomqtt.Client(
                broker.host,
                broker.port,
                username=broker.username,
                password=broker.password,
                tls_context=tls,
                keepalive=KEEPALIVE_S,
                max_queued_incoming_messages=QUEUE_MAX,
            ) as client:
                await client.subscribe([(topic, 1) for topic in handlers])
                on_state("")
                async for message in client.messages:
                    for handle in handlers.get(str(message.topic), ()):
                        handle(str(message.topic), message.payload, message.retain)
        except aiomqtt.MqttError as fault:
            on_state(f"mqtt://{broker.host}:{broker.port}: {fault}")
        await asyncio.sleep(random.uniform(*RECONNECT_S))


def _tls(broker: Broker) -> ssl.SSLContext | None:
    if broker.ca is None:
        return None
    files = [broker.ca]
    try:
        context = ssl.create_default_context(cafile=str(broker.ca))
        if broker.certificate is not None:
            files = [broker.certificate, *filter(None, [broker.key])]
            context.load_cert_chain(broker.certificate, broker.key)
    except OSError as fault:  # of which an ssl.SSLError is one; neither says which file
        raise OSError(fault.errno, fault.strerror, " or ".join(map(str, files))) from None
    return context


Handler = Callable[[str, bytes, bool], None]


def _handlers(listeners: Sequence[Listener]) -> Mapping[str, list[Handler]]:
    handlers: dict[str, list[Handler]] = {}
    for listener in listeners:
        handle = (
            _of_telegrams(listener.meter)
            if listener.tree is None
            else _of_tree(listener.meter, listener.tree)
        )
        for topic in [listener.topic] if listener.tree is None else listener.tree.topics():
            handlers.setdefault(topic, []).append(handle)
    return handlers


def _of_telegrams(meter: Meter) -> Handler:
    def handle(topic: str, payload: bytes, is_retained: bool) -> None:
        found = [] if len(payload) > PAYLOAD_BYTES_MAX else Framer().feed(payload.strip() + b"\r\n")
        for telegram in found:
            meter.telegram(telegram, f"mqtt:{topic}")
        if not found:
            meter.refuse(Malformed("no telegram"), f"mqtt:{topic}")

    return handle


def _of_tree(meter: Meter, tree: Tree) -> Handler:
    assembler = Assembler(tree)

    def handle(topic: str, payload: bytes, is_retained: bool) -> None:
        source = f"mqtt:{topic}"
        try:
            registers = assembler.message(topic, payload, now_ms(), is_retained=is_retained)
        except ReadingRefused as refusal:
            meter.refuse(refusal, source)
        else:
            if registers is not None:
                meter.registers(registers, payload, source)

    return handle
