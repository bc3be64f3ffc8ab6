"""Anvil with the CTT's contract where a node has the CTT's module, so that the same signed bytes run on both."""

import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from apps.client import Client, Wallet
from apps.demo.street import TREASURER_KEY
from bench.local_node import STOP_SECONDS_MAX, free_port, wait_ready
from bench.peers.contract import anvil_program, compile_contract
from ctt_state.modules.ctt import CTT
from ctt_state.units import hex_of

GAS_LIMIT: Final = (
    30_000_000_000  # of a block: never what ends one; half of it would raise the base fee from 0
)
FLAGS: Final = (
    "--silent",
    "--no-request-size-limit",
    "--disable-min-priority-fee",
    *("--block-base-fee-per-gas", "0"),
    *("--gas-price", "0"),
    *("--gas-limit", str(GAS_LIMIT)),
    *("--order", "fifo"),
)


@contextmanager
def local_anvil(genesis: Path, memory_mib: int) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Gives its URL and process: block period and chain id are those of the genesis document; what it allocates beyond
    the limit ends it. Raises: PackagesMissing; RuntimeError when it does not answer."""
    document = json.loads(genesis.read_bytes())
    port = free_port()
    command = [str(anvil_program()), *FLAGS, "--port", str(port), "--chain-id", str(document["chainId"])]
    process = subprocess.Popen([*command, "--block-time", str(document["blockPeriodMs"] / 1_000)])
    try:
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory_mib * 2**20, memory_mib * 2**20))
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, process)
        yield url, process
    finally:
        process.kill()
        process.wait(STOP_SECONDS_MAX)


async def place_contract(client: Client, document: dict[str, Any]) -> None:
    """Puts the code at the module's address and does what the genesis document says of the CTT: its admin, who is the
    first of the development accounts that anvil has too, creates it, sets the price and may certify meters."""
    await client.call("anvil_setCode", hex_of(CTT.address), hex_of(compile_contract()))
    ctt, admin = document["ctt"], Wallet(client, TREASURER_KEY, document["chainId"])
    create = "createCTT(string,string,uint256,uint256)"
    figures = ctt["maxSupply"], ctt["capabilityWh"]
    hashes = [
        await admin.send(CTT, create, ctt["name"], ctt["symbol"], *figures),
        await admin.send(CTT, "setEmptyTokenPrice(uint256)", int(ctt["emptyTokenPriceWei"])),
        await admin.send(CTT, "setOperator(address,bool)", admin.address, True),
    ]
    for each in hashes:
        if (await client.receipt(each))["status"] != "0x1":
            raise RuntimeError(f"the contract refused to be set up: {each}")
