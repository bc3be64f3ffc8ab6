"""Homes with meters on a real node's chain, and what the chain says of their readings."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from apps.client import Client, Wallet, decode_output
from apps.demo.street import TREASURER_KEY
from apps.meter.dsmr import crc16
from apps.meter.outbox import Taken
from apps.meter.reading import Registers
from ctt_state.crypto import address_of
from ctt_state.modules.ctt import CTT
from ctt_state.units import Address, Ms, Wh, hex_of
from tests.live_node import LiveNode
from tests.rpc_world import private_key

ROOT: Final = Path(__file__).parent.parent
HOME: Final = Address(b"\x11" * 20)
DATA: Final = ROOT.parent / "shared" / "data"


def make_telegram(*lines: str, checksum: bool = True) -> bytes:
    content = "\r\n".join(["/CTT5TEST", "", *lines, "!"]).encode("latin-1")
    return content + (b"%04X\r\n" % crc16(content) if checksum else b"\r\n")


def make_registers(time_ms: int, import_wh: int = 0, export_wh: int = 0) -> Registers:
    return Registers(Ms(time_ms), Wh(import_wh), Wh(export_wh))


def make_taken(number: int, prosumer: Address = HOME, raw: bytes = b"raw") -> Taken:
    """A reading of that many seconds and Wh."""
    return Taken(prosumer, make_registers(number * 1_000, number), "test", raw, Ms(number))


class Homes:
    """Prosumers behind one meter or concentrator. The same again for a name."""

    def __init__(
        self,
        node: LiveNode,
        name: str,
        count: int = 1,
        *,
        concentrator: bool = False,
        max_power: int = 0,
        confirm: bool = True,
    ) -> None:
        self.node = node
        self.meter_key = private_key(f"{name} meter")
        self.meter = address_of(self.meter_key)
        self.keys = [private_key(f"{name} {number}") for number in range(count)]
        self.prosumers = [address_of(key) for key in self.keys]
        self.concentrator, self.max_power, self.confirm = concentrator, max_power, confirm

    def last_reading(self, number: int = 0) -> Registers:
        function = CTT.named("lastReading(address)")
        data = function.encode_arguments(self.prosumers[number])
        call = {"to": hex_of(CTT.address), "data": hex_of(data)}
        return Registers(*decode_output(function, self.node.call("eth_call", call, "latest")))

    def readings(self, number: int = 0) -> list[dict[str, Any]]:
        """What the chain counted of the prosumer's readings, oldest first."""
        (signature,) = (each for each in CTT.events.values() if each.name == "EnergyConsumed")
        topics = [hex_of(signature.topic), "0x" + self.prosumers[number].hex().rjust(64, "0")]
        logs: Sequence[Any] = self.node.call(
            "eth_getLogs", {"fromBlock": "0x0", "address": hex_of(CTT.address), "topics": topics}
        )
        return list(logs)

    def nonce(self) -> int:
        return int(self.node.call("eth_getTransactionCount", hex_of(self.meter), "latest"), 16)


def onboard(*all_homes: Homes) -> None:
    """Certifies their meters, registers them and lets those confirm that are to: three blocks for all of them."""
    asyncio.run(_onboard(all_homes))


async def _onboard(all_homes: Sequence[Homes]) -> None:
    async with Client(all_homes[0].node.url) as client:
        chain_id = int(await client.call("eth_chainId"), 16)
        operator = Wallet(client, TREASURER_KEY, chain_id)
        certify = "certifyMeter(address,uint8,uint64,bool)"
        sent = [
            await operator.send(CTT, certify, each.meter, 1, each.max_power, each.concentrator)
            for each in all_homes
        ]
        await _settle(client, sent)
        await _settle(
            client,
            [
                await Wallet(client, key, chain_id).send(CTT, "register(address)", each.meter)
                for each in all_homes
                for key in each.keys
            ],
        )
        meters = [(Wallet(client, each.meter_key, chain_id), each) for each in all_homes if each.confirm]
        confirmed = [
            await meter.send(CTT, "confirm(address)", prosumer)
            for meter, each in meters
            for prosumer in each.prosumers
        ]
        await _settle(client, confirmed)


async def _settle(client: Client, sent: Sequence[str]) -> None:
    for each in sent:
        receipt = await client.receipt(each)
        assert receipt["status"] == "0x1"
