"""One target under atheris: `python -m tests.fuzz.guided TARGET [libFuzzer's flags]`. `python -m tests.fuzz` calls it."""

import sys

import atheris

with atheris.instrument_imports(include=["ctt_state", "node", "p2p", "rpc"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    check = TARGETS[sys.argv[1]].check
    atheris.Setup(sys.argv[1:], lambda data: check(bytes(data)))
    atheris.Fuzz()
