"""Agreement with recorded traffic, where that is at hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks import wire

_ROOT = Path(__file__).parents[2]
_FILE = Path(os.environ.get("TOKENWEIR_SHARED", _ROOT.parent / "shared")) / (
    "wire/recorded.jsonl.gz"
)
_NAMED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "model_served",
    "finish_reasons",
    "error.type",
    "tool_call_names",
)


@pytest.mark.shared
def test_recorded_traffic_reads_as_expected() -> None:
    if not _FILE.exists():
        pytest.skip("the shared recordings are not here (set TOKENWEIR_SHARED)")
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for record in wire.records_of(_FILE):
        for name, mine, theirs in wire.fields(wire.read(record), record["expected"]):
            if not (wire.is_null(mine) and wire.is_null(theirs)):
                seen[name] += 1
                right[name] += wire.agree(mine, theirs)
    for name in _NAMED:
        assert right[name] / seen[name] >= 0.99, name
    assert sum(right.values()) / sum(seen.values()) >= 0.995
