"""Files of every container and size come out record by record."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.history.rows import Rejected
from proxy.history.source import Source, SourceError, _records_of

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
OBJECTS = st.dictionaries(st.text(max_size=6), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


def read(data: bytes) -> list[object]:
    return [
        record if isinstance(record, Rejected) else record[1]
        for record in _records_of(io.BytesIO(data))
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=6), st.sampled_from([None, 2]), st.booleans())
def test_a_page_yields_its_elements_whatever_its_layout(
    items: list[dict[str, object]], indent: int | None, repeated: bool
) -> None:
    page = json.dumps({"object": "page", "has_more": False, "data": items}, indent=indent).encode()
    assert read(page * (1 + repeated)) == items * (1 + repeated)
    assert read(json.dumps(items, indent=indent).encode()) == items


@settings(max_examples=150, deadline=None)
@given(st.lists(OBJECTS.filter(lambda held: "data" not in held), min_size=1, max_size=6))
def test_lines_and_one_object_alone(items: list[dict[str, object]]) -> None:
    assert read("".join(json.dumps(item) + "\n" for item in items).encode()) == items
    assert read(json.dumps(items[0], indent=1).encode()) == items[:1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_can_stop_the_reading(data: bytes) -> None:
    try:
        read(data)
    except SourceError as error:
        assert "twice" in str(error) or "neither" in str(error)


def test_elements_larger_than_a_block_and_split_between_blocks() -> None:
    items = [{"id": n, "text": "é" * (700_000 if n == 3 else 10)} for n in range(6)]
    assert read(json.dumps({"data": items, "has_more": True}, ensure_ascii=False).encode()) == items


def test_what_follows_a_broken_line_is_still_read() -> None:
    found = read(b'{"a": 1}\n{"a": \nnonsense\n[1]\n{"a": 2}\n')
    assert [r for r in found if isinstance(r, dict)] == [{"a": 1}, {"a": 2}]
    assert [r.line for r in found if isinstance(r, Rejected)] == [2, 3, 4]


def test_csv_with_quotes_other_separators_and_short_rows() -> None:
    assert read(b'\xef\xbb\xbfa;b\n1;"x;\ny"\n2\n3;z\n') == [
        {"a": "1", "b": "x;\ny"},
        Rejected(4, "1 cells under 2 columns", ["2"]),
        {"a": "3", "b": "z"},
    ]


def test_a_damaged_gzip_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 10_000)[:-9])
    with pytest.raises(SourceError, match="damaged"):
        list(Source(path).records())


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        list(Source(tmp_path / "none").records())


def test_parquet_comes_out_as_it_went_in(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    rows = [{"a": n, "b": None if n % 2 else f"r{n}"} for n in range(10_000)]
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=1000)
    assert [r[1] for r in Source(path).records() if not isinstance(r, Rejected)] == rows


@pytest.mark.parametrize("container", ["lines", "page", "csv"])
def test_memory_stays_flat_over_a_long_file(tmp_path: Path, container: str) -> None:
    """A file of 24 MB is read within a few; the bound is what 24 MB can't fit in."""
    path = tmp_path / "long"
    row = {"id": 0, "text": "x" * 200}
    with path.open("w") as out:
        if container == "csv":
            out.write("id,text\n")
        if container == "page":
            out.write('{"object": "page", "has_more": false, "data": [\n')
        for number in range(100_000):
            if container == "csv":
                out.write(f"{number},{row['text']}\n")
            else:
                comma = "," if container == "page" and number < 99_999 else ""
                out.write(json.dumps({**row, "id": number}) + comma + "\n")
        if container == "page":
            out.write("]}")
    source = Source(path)
    tracemalloc.start()
    try:
        count = sum(not isinstance(record, Rejected) for record in source.records())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 12_000_000
