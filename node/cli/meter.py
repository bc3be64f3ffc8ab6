"""`ctt meter`: certify, confirm and replace smart meters, and pass on what they say.

Clients of any node's JSON-RPC, for the people who install and read meters.
"""

import argparse
from typing import Final

from node.cli import certification, gateway

EPILOG: Final = """\
examples:
  ctt meter qr 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --output label.svg
  ctt meter certify 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --source solar --max-power 10000 --key operator.key
  ctt meter confirm 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 --key meter.key
  ctt meter report 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 1234.5 678.9 --key meter.key
  ctt meter show 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ctt meter revoke 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --key operator.key
  ctt meter replace 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 \\
      0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC --end 1234.5 678.9 --begin 0 0 --old-key old.key --new-key new.key
  ctt meter run gateway.toml
  ctt meter import 0xb57F333Ee9520ADF12630bD60Fe07169A08a9B20 2026.xml --outbox home.outbox --key meter.key
  ctt meter simulate --meters 20 --outbox street.outbox --operator-key operator.key
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "meter",
        help="certify, confirm and replace smart meters, and pass on what they say",
        description=__doc__,
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    certification.add_commands(commands)
    gateway.add_commands(commands)
