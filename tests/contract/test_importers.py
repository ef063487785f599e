"""Every importer keeps the contract; a new one is found by itself.

An importer ``NAME`` has a folder ``importers/NAME`` with sample files and an
``expected.json`` that says what each of them adds up to.
"""

from __future__ import annotations

import gzip
import importlib
import json
import pkgutil
import shutil
from pathlib import Path
from typing import Any

import pytest

from detection.types import Observation
from proxy.history import importers
from proxy.history.reader import RejectedFile, Tally, read_rows
from proxy.history.registry import IMPORTERS, importer_for
from proxy.history.rows import Options, Rejected, Row
from proxy.history.source import Source

FIXTURES = Path(__file__).parent / "importers"
MODULES = [module.name for module in pkgutil.iter_modules(importers.__path__)]
SAMPLES = [
    pytest.param(folder.name, name, wanted, id=f"{folder.name}-{name}")
    for folder in sorted(FIXTURES.iterdir())
    for name, wanted in json.loads((folder / "expected.json").read_text()).items()
]
CANARY = "sk-proj-CANARY0123456789abcdefABCDEF"


def read(path: Path, **options: Any) -> tuple[list[Row], list[Rejected], Tally]:
    rejected: list[Rejected] = []
    tally = Tally()
    rows = list(
        read_rows(Source(path), options=Options(**options), reject=rejected.append, tally=tally)
    )
    return rows, rejected, tally


def calls_of(row: Row) -> int:
    return 1 if isinstance(row, Observation) else row.requests or 0


def test_every_importer_file_is_registered_and_has_samples() -> None:
    names = {importlib.import_module(f"{importers.__name__}.{m}").IMPORTER.name for m in MODULES}
    assert names == set(IMPORTERS)
    assert names == {folder.name for folder in FIXTURES.iterdir()}


@pytest.mark.parametrize(("importer", "name", "wanted"), SAMPLES)
def test_sample_adds_up(importer: str, name: str, wanted: dict[str, Any]) -> None:
    rows, rejected, tally = read(FIXTURES / importer / name, columns=wanted.get("columns", {}))
    found = {
        "rows": len(rows),
        "rejected": len(rejected),
        "skipped": tally.skipped,
        "calls": sum(map(calls_of, rows)),
        "errors": sum(isinstance(row, Observation) and row.error_type is not None for row in rows),
        **{
            field: sum(getattr(row, field) or 0 for row in rows)
            for field in ("input_tokens", "output_tokens", "cost_nano_usd")
        },
    }
    assert found == {name: wanted[name] for name in found}
    assert [bad.reason for bad in rejected] == wanted.get("reasons", [])
    assert (tally.rows, tally.rejected) == (len(rows), len(rejected))


@pytest.mark.parametrize(("importer", "name", "wanted"), SAMPLES)
def test_format_is_recognised_by_the_first_record(
    importer: str, name: str, wanted: dict[str, Any]
) -> None:
    if "columns" in wanted:
        pytest.skip("only its mapping tells what a plain CSV holds")
    first = next(iter(Source(FIXTURES / importer / name).records()))
    assert not isinstance(first, Rejected)
    chosen = importer_for(first[1])
    assert chosen is not None
    assert chosen.name == importer


@pytest.mark.parametrize(("importer", "name", "wanted"), SAMPLES)
def test_ids_are_unique_and_the_same_every_time(
    importer: str, name: str, wanted: dict[str, Any], tmp_path: Path
) -> None:
    path = FIXTURES / importer / name
    columns = wanted.get("columns", {})
    rows, _, _ = read(path, columns=columns)
    packed = tmp_path / f"{name}.gz"
    with path.open("rb") as plain, gzip.open(packed, "wb") as out:
        shutil.copyfileobj(plain, out)
    again, _, _ = read(packed, columns=columns)
    assert again == rows
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize(("importer", "name", "wanted"), SAMPLES)
def test_no_record_can_stop_an_import(importer: str, name: str, wanted: dict[str, Any]) -> None:
    """Each field of each record in turn holds something odd; nothing may raise."""
    known = IMPORTERS[importer]
    options = Options(columns=wanted.get("columns", {}))
    odd: list[Any] = [
        None,
        "",
        "x",
        -1,
        1e400,
        [],
        {},
        [[1]],
        {"a": {"b": 1}},
        True,
        "\x00",
        "9" * 400,
    ]
    for record in Source(FIXTURES / importer / name).records():
        if isinstance(record, Rejected):
            continue
        for field in record[1]:
            for value in odd:
                damaged = {**record[1], field: value}
                rejected: list[Rejected] = []
                source = Source(Path("-"))
                source.records = lambda damaged=damaged: iter([(1, damaged)])  # type: ignore[method-assign]
                rows = list(
                    read_rows(
                        source, format_name=known.name, options=options, reject=rejected.append
                    )
                )
                for row in rows:
                    numbers = [v for v in row if isinstance(v, (int, float))]
                    assert all(number >= 0 and number < 1e18 for number in numbers)


@pytest.mark.parametrize("importer", [name for name in IMPORTERS if name != "focus"])
def test_a_credential_in_the_place_of_a_key_is_hashed(importer: str, tmp_path: Path) -> None:
    columns = {"key": "bot"} if importer == "csv" else {}
    fields = {"key", "api_key", "api_key_id", "api_key_name", "bot", "user_api_key_alias"}
    folder = FIXTURES / importer
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        records = [r for r in Source(folder / name).records() if not isinstance(r, Rejected)]
        target = tmp_path / f"{name}.jsonl"
        with target.open("w") as out:
            for _, data in records:
                out.write(json.dumps(_planted(dict(data), fields)) + "\n")
        mapping = {**wanted.get("columns", {}), **(columns if wanted.get("columns") else {})}
        with RejectedFile(tmp_path / "rejected.jsonl") as reject:
            rows = list(
                read_rows(
                    Source(target),
                    format_name=importer,
                    options=Options(columns=mapping),
                    reject=reject,
                )
            )
        assert CANARY not in repr(rows)
        if (tmp_path / "rejected.jsonl").exists():
            assert CANARY not in (tmp_path / "rejected.jsonl").read_text()


def _planted(data: Any, fields: set[str]) -> Any:
    if isinstance(data, dict):
        return {n: CANARY if n in fields else _planted(v, fields) for n, v in data.items()}
    if isinstance(data, list):
        return [_planted(item, fields) for item in data]
    return data


def test_prompts_are_never_kept() -> None:
    for folder in FIXTURES.iterdir():
        for name, wanted in json.loads((folder / "expected.json").read_text()).items():
            rows, _, _ = read(folder / name, columns=wanted.get("columns", {}))
            assert "never kept" not in repr(rows)
