"""The example configuration: it loads, and shows every setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from proxy import config
from tests.rig import ROOT

EXAMPLE = ROOT / "config.example.yaml"


def paths(node: Any, definitions: dict[str, Any], seen: tuple[str, ...] = ()) -> Iterator[str]:
    """The name of every setting, each structure once per way to it."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in seen:
            return
        seen = (*seen, name)
        node = definitions[name]
    for child in (*node.get("anyOf", ()), *node.get("oneOf", ()), *_inner(node)):
        yield from paths(child, definitions, seen)
    for name, child in node.get("properties", {}).items():
        yield name
        for below in paths(child, definitions, seen):
            yield f"{name}.{below}"


def _inner(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield node[word]


def test_it_loads_without_any_variable_set() -> None:
    settings = config.load(EXAMPLE, environment={})
    assert settings.limits
    assert settings.budgets


def test_every_setting_appears_in_its_section() -> None:
    schema = config.schema()
    text = EXAMPLE.read_text()
    sections = dict(re.findall(r"(?ms)^([a-z_]+):(.*?)(?=^[a-z_]+:|\Z)", text))
    missing = []
    for path in paths(schema, schema["$defs"]):
        section, _, rest = path.partition(".")
        if section not in sections:
            missing.append(path)
            continue
        name = rest.rpartition(".")[2]
        if name and not re.search(rf"(?m)(^|[\s{{,#]){name}:", sections[section]):
            missing.append(path)
    assert not missing


@pytest.mark.parametrize("section", ["server", "store", "journal", "blast_radius"])
def test_what_it_says_is_the_default(section: str) -> None:
    shown = yaml.safe_load(EXAMPLE.read_text())[section]
    real = getattr(config.defaults(), section).model_dump(mode="json")
    assert {name: real[name] for name in shown} == shown
