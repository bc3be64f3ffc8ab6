"""`python -m apps.bill FILE --genesis genesis.json`: checks a bill's proof offline, on a machine without a node."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Final, NoReturn

from apps.bill.check import Trusted, Unproven, check_proof, show_proven
from apps.bill.tariff import InvalidTariff, load_tariff
from ctt_state.errors import InvalidGenesis
from ctt_state.genesis import load_genesis

_CHECKPOINT: Final = re.compile(r"([0-9]{1,15}):0x([0-9a-f]{64})")


class _Parser(argparse.ArgumentParser):
    """A wrong call ends with the code of sysexits.h, as for `ctt`."""

    def error(self, message: str) -> NoReturn:
        self.exit(os.EX_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main() -> int:
    """0 when every line is proven, 65 when one is not, 66 for a file that cannot be read, 78 for a genesis or tariff
    document that is none."""
    parser = _Parser(prog="python -m apps.bill", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what ctt bill --proof wrote")
    parser.add_argument(
        "--genesis", type=Path, required=True, metavar="FILE", help="the chain's genesis document"
    )
    parser.add_argument(
        "--tariff", type=Path, metavar="FILE", help="the tariff agreed on: the bill must be by it"
    )
    parser.add_argument(
        "--checkpoint",
        type=_trusted,
        metavar="HEIGHT:HASH",
        help="the last block of an epoch that is trusted",
    )
    options = parser.parse_args()
    try:
        genesis = load_genesis(options.genesis.read_bytes())
        tariff = None if options.tariff is None else load_tariff(options.tariff.read_bytes())
        proof = options.file.read_bytes()
        print(show_proven(check_proof(proof, genesis, tariff=tariff, trusted=options.checkpoint)))
    except Unproven as fault:
        print(f"{options.file}: not proven: {fault}", file=sys.stderr)
        return os.EX_DATAERR
    except OSError as fault:
        print(f"{fault.filename}: {fault.strerror}", file=sys.stderr)
        return os.EX_NOINPUT
    except (InvalidGenesis, InvalidTariff) as fault:
        print(fault, file=sys.stderr)
        return os.EX_CONFIG
    return 0


def _trusted(text: str) -> Trusted:
    match = _CHECKPOINT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text[:100]!a} is not HEIGHT:HASH, such as 900:0x and 64 hexadecimal digits"
        )
    return Trusted(int(match[1]), bytes.fromhex(match[2]))


if __name__ == "__main__":
    sys.exit(main())
