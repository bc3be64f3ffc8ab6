"""What a kWh of each source emits: a table in a file, so that each place and year can have its own."""

import csv
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from ctt_state.origin import SOURCES

NO_SOURCE: Final = 0
RENEWABLE: Final = (1, 2, 3, 4)  # what "other" is, nobody says
GRID: Final = "grid"
FACTOR_MAX: Final = 10_000  # g/kWh; the worst power stations emit a tenth


class InvalidFactors(ValueError):
    """The file is no table of factors."""


class Factors:
    """CO2 in mg/Wh, which are g/kWh: whole numbers, so that sums are exact. What the table does not have counts as the
    grid's."""

    def __init__(self, by_name: Mapping[str, int]) -> None:
        self.grid = by_name[GRID]
        self._by_source = tuple(by_name.get(name, self.grid) for name in SOURCES)

    def of(self, source: int) -> int:
        return self._by_source[source]


def read_factors(path: Path | None = None) -> Factors:
    """Those of the file, else the project's own: CSV with the columns `source`, `g_per_kwh` and more; `grid` must be
    among the sources. Raises: InvalidFactors, OSError."""
    text = (path or files("apps.kpi").joinpath("factors.csv")).read_text(encoding="utf-8")
    by_name: dict[str, int] = {}
    for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
        name, factor = row.get("source") or "", row.get("g_per_kwh") or ""
        if name not in (GRID, *SOURCES) or name in by_name:
            raise InvalidFactors(f"line {number}: {name[:40]!r} is no source, or is there twice")
        if not (factor.isascii() and factor.isdigit() and len(factor) <= 5 and int(factor) <= FACTOR_MAX):
            raise InvalidFactors(
                f"line {number}: {factor[:40]!r} is not a whole number of g/kWh, 0 to {FACTOR_MAX}"
            )
        by_name[name] = int(factor)
    if GRID not in by_name:
        raise InvalidFactors(f"no factor for {GRID!r}")
    return Factors(by_name)
