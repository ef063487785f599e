"""The documents say what is there, and nothing that isn't."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from proxy.cli import COMMANDS
from proxy.config import Settings
from proxy.metrics_catalogue import CATALOGUE
from tests.docs.lock import faults

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).exists()]


def test_the_lock_fits_the_project() -> None:
    assert faults() == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in CATALOGUE if name not in text] == []


def setting_names(model: Any, seen: set[Any]) -> set[str]:
    """Every field's name of a settings model and the models within."""
    if model in seen:
        return set()
    seen.add(model)
    names = set()
    fields = (
        {n: (f.annotation, f.alias or n) for n, f in model.model_fields.items()}
        if isinstance(model, type) and issubclass(model, BaseModel)
        else {}
    )
    for annotation, name in fields.values():
        names.add(name)
        for part in flat(annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                names |= setting_names(part, seen)
    return names


def flat(annotation: Any) -> list[Any]:
    parts = [annotation]
    for argument in get_args(annotation):
        parts += flat(argument)
    return parts


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = sorted(n for n in setting_names(Settings, set()) if not re.search(rf"\b{n}\b", text))
    assert missing == []


def test_every_header_of_ours_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    ours = set()
    for path in tracked("proxy/**.py", "proxy/*.py"):
        ours |= set(re.findall(r"\"(x-tokenweir-[a-z-]+[a-z])\"", path.read_text()))
    assert ours
    assert sorted(name for name in ours if name not in text) == []


def test_no_file_is_past_what_a_person_reads_at_once() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("*.py", "*.js")
        if "/vendor/" not in str(path) and (lines := len(path.read_text().splitlines())) > 440
    }
    assert long == {}


def test_modules_open_with_what_they_own() -> None:
    bare = []
    for path in tracked("detection/**.py", "detection/*.py", "proxy/**.py", "proxy/*.py"):
        text = path.read_text()
        if text.strip() and not text.lstrip().startswith('"""'):
            bare.append(str(path.relative_to(ROOT)))
    assert bare == []
