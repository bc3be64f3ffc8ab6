"""How far long work is, on standard error: a bar a stage on a terminal, elsewhere a line at each tenth."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn

from node.populate import Report

Tell = Callable[[int, int], object]


def bars() -> Progress:
    """Shown on a terminal only."""
    console = Console(stderr=True)
    return Progress(
        *Progress.get_default_columns(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def progress(options: argparse.Namespace) -> Iterator[Tell]:
    """One bar, which is told how much is done, and of how much; until then it just moves. Nothing on a pipe. What the
    command does, it has said by `options.add_progress`."""
    with bars() as shown:
        task = shown.add_task(options.doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def shown_progress() -> Iterator[Report]:
    """Shows what it hears of; nothing when it hears of nothing."""
    with bars() as shown:
        if shown.disable:
            yield _Tenths().report
            return
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage)
            shown.update(tasks[stage], completed=done, total=total)

        yield report


class _Tenths:
    """Lines, of each stage at most eleven."""

    def __init__(self) -> None:
        self._told = ("", -1)

    def report(self, stage: str, done: int, total: int) -> None:
        reached = stage, done * 10 // total if total else 10
        if reached != self._told:
            self._told = reached
            print(f"{stage}: {reached[1] * 10} %", file=sys.stderr, flush=True)
