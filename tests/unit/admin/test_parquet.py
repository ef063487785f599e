"""Tables as Parquet, read back by another implementation of the format."""

from __future__ import annotations

import io
from typing import Any

import pytest

from proxy.admin.tables import to_parquet

parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")


def back(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(io.BytesIO(to_parquet(rows))).to_pylist()
    return found


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20_000])
def test_every_type_with_and_without_nulls(count: int) -> None:
    rows = [
        {
            "whole": n * (-1) ** n * 10**12,
            "share": n / 3 if n % 3 else None,
            "name": None if n % 5 == 0 else "größe " * (n % 4),
            "open": bool(n % 2) if n % 7 else None,
            "nothing": None,
        }
        for n in range(count)
    ]
    assert back(rows) == rows


def test_what_has_no_type_of_its_own_is_text() -> None:
    rows = [{"mixed": 1, "list": [1, 2]}, {"mixed": "a", "list": {"b": 1}}, {"other": 1.5}]
    assert back(rows) == [
        {"mixed": "1", "list": "[1, 2]", "other": None},
        {"mixed": "a", "list": '{"b": 1}', "other": None},
        {"mixed": None, "list": None, "other": 1.5},
    ]


def test_numbers_and_names_beyond_the_usual() -> None:
    assert back([{"n": 1}, {"n": 0.5}]) == [{"n": 1.0}, {"n": 0.5}]
    assert back([{"n": 2**63 - 1}, {"n": -(2**63)}]) == [{"n": 2**63 - 1}, {"n": -(2**63)}]
    assert back([{"lone": "\ud800"}]) == [{"lone": "?"}]
    wide = [{f"column {n}": n for n in range(300)}]
    assert back(wide) == wide
    assert back([{"long": "x" * 300_000}]) == [{"long": "x" * 300_000}]


def test_it_says_who_wrote_it() -> None:
    about = parquet.ParquetFile(io.BytesIO(to_parquet([{"a": 1}]))).metadata
    assert (about.created_by, about.num_rows, about.num_columns) == ("tokenweir", 1, 1)
