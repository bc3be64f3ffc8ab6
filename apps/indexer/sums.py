"""Exact sums in SQL of integers of any size, in both databases.

SQLite's own `+` and `sum` make floats of integers above 64 bits, so its connections get functions of Python's.
"""

import sqlite3
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from apps.indexer.schema import Whole, encode_whole


class whole_sum(FunctionElement[int]):  # noqa: N801  # SQL's name
    """The sum of a column of rows, 0 of none."""

    name = "whole_sum"
    type = Whole()
    inherit_cache = True


class whole_add(FunctionElement[int]):  # noqa: N801  # SQL's name
    """Two values added."""

    name = "whole_add"
    type = Whole()
    inherit_cache = True


@compiles(whole_sum)
def _compile_sum(element: FunctionElement[int], compiler: Any, **options: Any) -> str:
    name = element.name if compiler.dialect.name == "sqlite" else "sum"
    return f"coalesce({name}({compiler.process(element.clauses, **options)}), 0)"


@compiles(whole_add)
def _compile_add(element: FunctionElement[int], compiler: Any, **options: Any) -> str:
    left, right = (compiler.process(clause, **options) for clause in element.clauses)
    return f"whole_add({left}, {right})" if compiler.dialect.name == "sqlite" else f"({left} + {right})"


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """`sum(column)`, exact and 0 of no rows."""
    return whole_sum(column)


def teach(connection: sqlite3.Connection) -> None:
    """Gives a connection to SQLite these functions."""
    connection.create_function("whole_add", 2, _add, deterministic=True)
    connection.create_aggregate("whole_sum", 1, _Sum)


def _add(left: int | str, right: int | str) -> int | str | None:
    return encode_whole(int(left) + int(right))


class _Sum:
    def __init__(self) -> None:
        self.sum = 0

    def step(self, value: Any) -> None:
        self.sum += int(value or 0)

    def finalize(self) -> Any:
        return encode_whole(self.sum)
