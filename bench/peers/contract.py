"""The CTT as a contract, compiled by npm's solc. The packages stand beside this file once npm has brought them."""

import json
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"
SOURCE: Final = HERE / "CTT.sol"
INSTALL: Final = "npm install --no-save --ignore-scripts"
COMPILE_SECONDS_MAX: Final = 120.0
SETTINGS: Final = {
    "optimizer": {"enabled": True, "runs": 10_000},
    "viaIR": True,
    "outputSelection": {SOURCE.name: {"CTT": ["abi", "evm.deployedBytecode.object"]}},
}


class PackagesMissing(Exception):
    """What is not there, and how to get it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is missing: run {INSTALL!r} in {HERE} (Node.js 20 or newer)")


def anvil_program() -> Path:
    """Anvil itself, not npm's wrapper of it. Raises: PackagesMissing."""
    found = sorted(MODULES.glob("@foundry-rs/anvil-*/bin/anvil"))
    if not found:
        raise PackagesMissing("anvil (@foundry-rs/anvil)")
    return found[0]


def compile_contract() -> bytes:
    """The contract's code as it stands on a chain. Kept beside the packages until the source or they change.

    Raises: PackagesMissing; RuntimeError with the compiler's words.
    """
    program, node = MODULES / "solc" / "solc.js", shutil.which("node")
    if node is None or not program.exists() or not (MODULES / "@openzeppelin").exists():
        raise PackagesMissing("node" if node is None else "solc or @openzeppelin/contracts")
    digest = sha256(SOURCE.read_bytes() + (HERE / "package-lock.json").read_bytes() + repr(SETTINGS).encode())
    kept = MODULES / f".ctt-{digest.hexdigest()[:16]}"
    if not kept.exists():
        kept.write_text(_compile([node, str(program)]))
    return bytes.fromhex(kept.read_text())


def _compile(solc: list[str]) -> str:
    sources = {SOURCE.name: {"content": SOURCE.read_text()}}
    job = {"language": "Solidity", "sources": sources, "settings": SETTINGS}
    with tempfile.TemporaryFile("w+") as output:  # into a pipe solc writes no more than what fits in it
        subprocess.run(
            [*solc, "--standard-json", "--base-path", str(HERE), "--include-path", str(MODULES)],
            input=json.dumps(job),
            stdout=output,
            text=True,
            timeout=COMPILE_SECONDS_MAX,
            check=True,
        )
        output.seek(0)
        words = output.read()
    told: dict[str, Any] = json.loads(words[words.index("{") :])  # behind what it says of its solvers
    faults = [fault["formattedMessage"] for fault in told.get("errors", []) if fault["severity"] == "error"]
    if faults:
        raise RuntimeError("".join(faults))
    code: str = told["contracts"][SOURCE.name]["CTT"]["evm"]["deployedBytecode"]["object"]
    return code
