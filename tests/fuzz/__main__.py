"""Fuzzes the decoders, guided by coverage: `python -m tests.fuzz all --seconds 60`.

Each target runs in a process of its own under atheris; what it finds is written to --findings, one file a finding, and
makes the exit code 1. Without atheris (`pip install atheris`) chance alone looks. JSON on standard output: how often
each target ran, which must be at least --floor.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import mutations
from tests.fuzz.targets import TARGETS

MARGIN_SECONDS = 120.0


def run_guided(name: str, seconds: int, findings: Path) -> dict[str, Any]:
    """In another process, as libFuzzer ends the one that it runs in."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz.guided", name]
        flags = [f"-max_total_time={seconds}", "-print_final_stats=1", "-max_len=8192", "-rss_limit_mb=2048"]
        prefix = f"-artifact_prefix={findings}/{name}-"
        ended = subprocess.run(
            [*command, *flags, prefix, corpus],
            capture_output=True,
            text=True,
            timeout=seconds + MARGIN_SECONDS,
        )
    runs = [line.split()[-1] for line in ended.stderr.splitlines() if "number_of_executed_units" in line]
    result: dict[str, Any] = {"runs": int(runs[0]) if runs else 0, "guided": True}
    if ended.returncode:
        result["finding"] = ended.stderr[-4_000:]
    return result


def run_by_chance(name: str, seconds: int, findings: Path) -> dict[str, Any]:
    chance, ends, runs = Random(), time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        for data in mutations(TARGETS[name].seeds, chance, 100):
            runs += 1
            try:
                TARGETS[name].check(data)
            except Exception as fault:  # noqa: BLE001  whatever it is, it is a finding
                (findings / f"{name}-{runs}").write_bytes(data)
                return {"runs": runs, "guided": False, "finding": f"{type(fault).__name__}: {fault}"[:4_000]}
    return {"runs": runs, "guided": False}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["all", *sorted(TARGETS)])
    parser.add_argument("--seconds", type=int, default=60, help="of each target (default: %(default)s)")
    parser.add_argument(
        "--floor", type=int, default=1_000, help="runs that each target must reach (default: 1,000)"
    )
    parser.add_argument("--findings", type=Path, default=Path("data/fuzz"), help="default: %(default)s")
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    is_guided = find_spec("atheris") is not None
    if not is_guided:
        print("tests.fuzz: no atheris here: chance alone looks", file=sys.stderr)
    run = run_guided if is_guided else run_by_chance
    results = {}
    for name in sorted(TARGETS) if options.target == "all" else [options.target]:
        print(f"tests.fuzz: {name} for {options.seconds} s", file=sys.stderr, flush=True)
        results[name] = run(name, options.seconds, options.findings)
    print(json.dumps(results, indent=2))
    few = [name for name, result in results.items() if result["runs"] < options.floor]
    if few:
        print(f"tests.fuzz: fewer than {options.floor} runs of {', '.join(few)}", file=sys.stderr)
    return 1 if few or any("finding" in result for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
