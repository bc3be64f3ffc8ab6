"""Key figures come back from the files that they were written to."""

import csv
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from apps.kpi.export import COLUMNS, TooLarge, as_json, row_of, write_csv, write_parquet
from apps.kpi.indicators import Indicators, indicators
from tests.test_kpi import STREET, TERMS, by_hour, whole

ROWS = [*indicators(STREET, TERMS, whole), *indicators(STREET, TERMS, by_hour)]


def test_csv_has_every_figure_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "kpi.csv"
    write_csv(ROWS, file)
    with file.open(newline="", encoding="utf-8") as lines:
        header, *read = csv.reader(lines)
    assert tuple(header) == COLUMNS
    for line, row in zip(read, map(row_of, ROWS), strict=True):
        told = dict(zip(COLUMNS, line, strict=True))
        for name, value in zip(COLUMNS, row, strict=True):
            assert told[name] == as_text(value)


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.strftime("%Y-%m-%dT%H:%M:%S.000Z") if hasattr(value, "strftime") else str(value)


def test_json_is_the_same_as_text() -> None:
    for told, row in zip(json.loads(as_json(ROWS)), map(row_of, ROWS), strict=True):
        assert list(told) == list(COLUMNS)
        for name, value in zip(COLUMNS, row, strict=True):
            assert told[name] == (None if value is None else as_text(value))


def test_parquet_comes_back_equal(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for rows in (ROWS, []):
        file = tmp_path / "kpi.parquet"
        write_parquet(rows, file)
        table = parquet.read_table(file)
        assert tuple(table.column_names) == COLUMNS
        read = [tuple(row[name] for name in COLUMNS) for row in table.to_pylist()]
        assert read == [row_of(each) for each in rows]
        assert not any(str(kind) in ("float", "double") for kind in table.schema.types)


def test_parquets_columns_have_their_ends(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    most: Indicators = ROWS[0]._replace(cost_wei=10**38 - 1, cost_without_market_wei=0, consumed_wh=2**63 - 1)
    write_parquet([most], tmp_path / "kpi.parquet")
    for over in (most._replace(cost_wei=10**38), most._replace(consumed_wh=2**63)):
        with pytest.raises(TooLarge):
            write_parquet([over], tmp_path / "kpi.parquet")
        write_csv([over], tmp_path / "kpi.csv")
        assert str(max(over.cost_wei, over.consumed_wh)) in (tmp_path / "kpi.csv").read_text()


def test_without_pyarrow_only_parquet_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_csv(ROWS, tmp_path / "kpi.csv")
    with pytest.raises(ImportError):
        write_parquet(ROWS, tmp_path / "kpi.parquet")


def test_ratios_are_decimals() -> None:
    assert all(isinstance(row.self_sufficiency, Decimal | None) for row in ROWS)
