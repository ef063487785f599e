"""The reference of every setting in docs/configuration.md, made from the settings' own models.

``python -m tests.docs.reference`` writes it anew. Owns: the part of the page
below its mark. Must never: say a word that the models don't.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy import config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
MARK = "<!-- Made by `python -m tests.docs.reference`. Change the models instead. -->"

Node = dict[str, Any]


class Reference:
    """The tables of one schema: a heading for each structure, a row for each of its fields."""

    def __init__(self, schema: Node) -> None:
        self._schema = schema
        self._definitions: dict[str, Node] = schema["$defs"]
        self._shown: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        """The whole reference."""
        sections = self._schema["properties"]
        plain = [n for n in sections if self._structures(sections[n], n) == []]
        yield "### The file"
        yield from self._table(self._schema, "", plain)
        for name, node in sections.items():
            if name not in plain:
                yield from self._section(node, name)
        yield from ("", "### Words", "", "| type | words |", "| --- | --- |")
        for name, node in self._definitions.items():
            if _long(node):
                yield f"| {name.lower()} | {', '.join(map(_code, node['enum']))} |"

    def _section(self, node: Node, path: str) -> Iterator[str]:
        """The tables of the structures that a field holds, those within after each."""
        for definition, where in self._structures(node, path):
            if definition in self._shown:
                continue
            self._shown[definition] = where
            inner = self._definitions[definition]
            yield ""
            yield f"### {where.replace('<', '&lt;')}"
            about = node.get("description") if where.partition(" ")[0] == path else ""
            yield from ("", about or inner.get("description", ""))
            yield from self._table(inner, where, inner["properties"])
            for name, child in inner["properties"].items():
                yield from self._section(child, f"{where.partition(' ')[0]}.{name}")

    def _structures(self, node: Node, path: str) -> list[tuple[str, str]]:
        """The definitions with fields of their own that a field can hold, and where they stand."""
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return [(name, path)] if "properties" in self._definitions[name] else []
        if "items" in node:
            return self._structures(node["items"], f"{path}[]")
        if isinstance(node.get("additionalProperties"), dict):
            return self._structures(node["additionalProperties"], f"{path}.<name>")
        if "discriminator" in node:
            kinds = node["discriminator"]["mapping"].items()
            return [(ref.rpartition("/")[2], f"{path} of type {kind}") for kind, ref in kinds]
        found = []
        for child in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            found += self._structures(child, path)
        return found

    def _table(self, node: Node, where: str, names: Any) -> Iterator[str]:
        yield from ("", "| setting | type | default | |", "| --- | --- | --- | --- |")
        required = node.get("required", ())
        for name in names:
            field = node["properties"][name]
            default = "*required*" if name in required else self._default(field)
            about = field.get("description") or self._about(field)
            yield f"| `{name}` | {self._type(field)} | {default} | {_cell(about)} |"

    def _about(self, field: Node) -> str:
        found = self._structures(field, "")
        return str(self._definitions[found[0][0]].get("description", "")) if found else ""

    def _default(self, field: Node) -> str:
        if field.get("const") is not None:
            return _code(field["const"])
        if "default" not in field:
            return "see below" if self._structures(field, "") else "none"
        value = field["default"]
        if value is None:
            return "unset"
        if isinstance(value, list | dict) and self._structures(field, ""):
            return "built in" if value else "none"
        return _code(value) if value not in ([], {}, "") else "none"

    def _type(self, field: Node) -> str:
        if "$ref" in field:
            name = field["$ref"].rpartition("/")[2]
            inner = self._definitions[name]
            if _long(inner):
                return f"[{name.lower()}](#words)"
            return "section" if "properties" in inner else self._type(inner)
        if "enum" in field:
            return ", ".join(map(_code, field["enum"]))
        if "const" in field:
            return _code(field["const"])
        if "items" in field:
            return f"list of {_plural(self._type(field['items']))}"
        if isinstance(field.get("additionalProperties"), dict):
            return f"map of names to {_plural(self._type(field['additionalProperties']))}"
        if "patternProperties" in field:
            return "map of names to texts"
        choices = (*field.get("anyOf", ()), *field.get("oneOf", ()))
        if choices:
            kinds = [self._type(c) for c in choices if c.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
        return _scalar(field)


_TYPES = {"string": "text", "integer": "whole number"}
_FORMATS = {"path": "path", "date-time": "time", "password": "secret text"}
_BOUNDS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
)


def _scalar(field: Node) -> str:
    kind = field.get("type", "")
    if kind == "boolean":
        return "`true`, `false`"
    name = _FORMATS.get(field.get("format", ""), _TYPES.get(kind, kind or "any"))
    bounds = [text.format(f"{field[key]:g}") for key, text in _BOUNDS if key in field]
    return " ".join((name, ", ".join(bounds))).strip()


def _plural(kind: str) -> str:
    plurals = {"text": "texts", "section": "sections", "path": "paths", "number": "numbers"}
    return plurals.get(kind, kind)


def _long(node: Node) -> bool:
    return len(node.get("enum", ())) > 8


def _code(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """The page as it should be: what a person wrote, and the reference below the mark."""
    written = PAGE.read_text().partition(MARK)[0]
    return written + MARK + "\n\n" + "\n".join(Reference(config.schema()).lines()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
