"""The threat model names only tests that exist and faults that are driven."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tests.chaos.scenarios  # noqa: F401 registers the faults
from tests.chaos.lab import FAULTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| [STRIDE] \|", line)]


def test_every_threat_is_at_a_boundary_with_an_answer_and_a_test() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        _, letter, threat, answer, shown, _ = (part.strip() for part in row.split("|"))
        assert letter and threat and answer
        assert re.search(r"`tests/[\w/.]+`", shown), row


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/.]+)`", TEXT))))
def test_the_test_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_letter_is_asked_at_the_open_boundaries() -> None:
    for boundary in ("Client → data port", "People → admin port"):
        section = TEXT.partition(f"## {boundary}")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| ([STRIDE]) \|", section, re.MULTILINE)) == set("STRIDE")


def test_named_faults_are_driven_where_it_says() -> None:
    groups = {fault.row: f"tests/chaos/scenarios/{fault.group}.py" for fault in FAULTS}
    wrong = {}
    for row in ROWS:
        shown = row.split("|")[4]
        numbers = re.match(r"\s*faults? ([0-9, –]+)", shown)
        named = re.findall(r"`(tests/chaos/scenarios/\w+\.py)`", shown)
        for part in numbers[1].split(",") if numbers else ():
            first, _, last = part.strip().partition("–")
            for number in range(int(first), int(last or first) + 1):
                assert number in groups
                if named and groups[number] not in named:
                    wrong[number] = groups[number]
    assert wrong == {}
