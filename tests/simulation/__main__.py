"""Many seeds, as JSON: `python -m tests.simulation --seeds 0-1000 --jobs 2 [--twins N] [--disks N] [--restores N]`.

Exits with 1 if any seed violated a rule or fell short, which that seed alone shows again, or if fewer were played than
were asked for.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from tests.simulation.disks import run_disks
from tests.simulation.restores import run_restores
from tests.simulation.twins import run_twins
from tests.simulation.world import Outcome, run_seed

FAILURES_SHOWN = 20

T = TypeVar("T", int, str)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    began = time.monotonic()
    wanted = {
        "seeds": options.seeds,
        "twins": range(options.twins),
        "disks": range(options.disks),
        "restores": range(options.restores),
    }
    tasks = [(number, kind, options) for kind, numbers in wanted.items() for number in numbers]
    ends = began + options.minutes * 60 if options.minutes else None
    done: dict[str, list[tuple[int, Outcome]]] = {kind: [] for kind in wanted}
    busy = 0.0
    for task, outcome, seconds in _all(tasks, options.jobs, ends):
        done[task[1]].append((task[0], outcome))
        busy += seconds
    report = {"asked for": len(tasks), **_report(done, busy)}
    report["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(report, indent=2))
    is_short = sum(map(len, done.values())) < len(tasks)
    return 1 if report["violations"] or is_short or not tasks else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=_span, default=range(0), help="one seed, or first-last")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--twins", type=int, default=0, help="so many cases of four validators with a twin")
    parser.add_argument("--disks", type=int, default=0, help="so many cases of four validators on bad disks")
    parser.add_argument("--restores", type=int, default=0, help="so many cases of validators from backups")
    parser.add_argument("--views", type=int, default=60, help="before the faults of a seed stop")
    parser.add_argument("--minutes", type=float, help="begin no seed after so long")
    parser.add_argument("--real-signatures", action="store_true")
    return parser.parse_args(arguments)


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


Task = tuple[int, str, argparse.Namespace]


def _run(task: Task) -> tuple[Task, Outcome, float]:
    """The outcome and the processor seconds that it took."""
    began = time.process_time()
    outcome = _outcome(task)
    return task, outcome, time.process_time() - began


def _outcome(task: Task) -> Outcome:
    number, kind, options = task
    try:
        if kind == "twins":
            return run_twins(number)
        if kind == "disks":
            return run_disks(number)
        if kind == "restores":
            return run_restores(number)
        return run_seed(number, views=options.views, real_signatures=options.real_signatures)
    except Exception as fault:  # noqa: BLE001 - one broken seed must not hide what the others show
        return Outcome([f"{type(fault).__name__}: {fault}"], 0, 0, "", None)


def _all(tasks: Iterable[Task], jobs: int, ends: float | None) -> Iterator[tuple[Task, Outcome, float]]:
    if jobs == 1:
        yield from map(_run, _until(tasks, ends))
        return
    waiting = _until(tasks, ends)
    with ProcessPoolExecutor(jobs) as pool:
        while batch := list(islice(waiting, 8 * jobs)):
            yield from pool.map(_run, batch)


def _until(tasks: Iterable[Task], ends: float | None) -> Iterator[Task]:
    for task in tasks:
        if ends is not None and time.monotonic() > ends:
            return
        yield task


def _report(done: dict[str, list[tuple[int, Outcome]]], busy: float) -> dict[str, object]:
    played = [(f"{kind} {number}", outcome) for kind, each in done.items() for number, outcome in each]
    outcomes = [outcome for _, outcome in played]
    heals = sorted(outcome.heal_ms for _, outcome in done["seeds"] if outcome.heal_ms is not None)
    failures = [(name, outcome.violations) for name, outcome in played if outcome.violations]
    views = sum(outcome.views for outcome in outcomes)
    return {
        **{kind: len(each) for kind, each in done.items()},
        "views": views,
        "blocks": sum(outcome.blocks for outcome in outcomes),
        "violations": len(failures),
        "failures": dict(failures[:FAILURES_SHOWN]),
        "processor_seconds": round(busy, 1),
        "views_per_processor_second": round(views / busy, 1) if busy else None,
        "heal_ms": {"p50": _share(heals, 50), "p99": _share(heals, 99), "max": _share(heals, 100)},
        "sizes": _sorted(Counter(outcome.size for _, outcome in done["seeds"])),
        "barred": sum(outcome.barred for outcome in outcomes),
        "damages": _sorted(sum((outcome.damages for outcome in outcomes), Counter())),
        "crashes": _sorted(sum((outcome.crashes for outcome in outcomes), Counter())),
    }


def _sorted(counts: Counter[T]) -> dict[T, int]:
    return dict(sorted(counts.items()))


def _share(values: list[int], percent: int) -> int | None:
    """The value that so many percent do not exceed."""
    return values[max(-(-len(values) * percent // 100) - 1, 0)] if values else None


if __name__ == "__main__":
    sys.exit(main())
