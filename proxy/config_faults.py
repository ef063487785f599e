"""Validation errors in a person's words, with the nearest valid word.

Owns: the way from a pydantic error to a :class:`Fault`. Must never: repeat a
value that may be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from proxy.config_yaml import Document, Fault, Path, dotted

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_CHOICES = ("literal_error", "enum")
_LISTS = ("tuple_type", "list_type")


def faults_of(error: ValidationError, document: Document, schema: Mapping[str, Any]) -> list[Fault]:
    """All faults of a validation, each at its place in the file."""
    found: dict[tuple[int, int, str], Fault] = {}
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and _has_deeper(item["loc"], items):
            continue
        path, missing = _place(item["loc"], document.data)
        line, column = mark_of(path, document)
        where = (*path, *missing)
        fault = Fault(line, column, dotted(where), _message(item, where, schema))
        found.setdefault((line, column, fault.path), fault)
    return sorted(found.values(), key=lambda f: (f.line, f.column))


def _has_deeper(location: tuple[int | str, ...], items: Iterable[Any]) -> bool:
    """Whether a part of the value is itself at fault; then its length is no news."""
    size = len(location)
    return any(len(i["loc"]) > size and i["loc"][:size] == location for i in items)


def wrap_single_values(error: ValidationError, document: Document) -> bool:
    """Read one word where a list is asked for as a list of it; whether there was any."""
    found = False
    for item in error.errors(include_url=False):
        path, missing = _place(item["loc"], document.data)
        if item["type"] not in _LISTS or missing or not path or not isinstance(item["input"], str):
            continue
        here: Any = document.data
        for step in path[:-1]:
            here = here[step]
        if isinstance(here[path[-1]], str):
            here[path[-1]] = [here[path[-1]]]
            document.marks.setdefault((*path, 0), document.marks.get(path, (1, 1)))
            found = True
    return found


def nearest(word: str, valid: Iterable[str]) -> str:
    """``, did you mean ...?`` for the closest valid word, else the empty string."""
    choices = list(valid)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def _place(location: tuple[int | str, ...], data: Any) -> tuple[Path, Path]:
    """The part of a location that stands in the file, and what is missing below it.

    Pydantic puts the names of union members and validators between the real
    steps; those that the data doesn't have are left out.
    """
    path: list[str | int] = []
    missing: list[str | int] = []
    here = data
    for step in location:
        if _has(here, step):
            here = here[step]
            path.append(step)
        else:
            missing.append(step)
    leaf = missing[-1:] if isinstance(here, dict) and missing else []
    return tuple(path), tuple(s for s in leaf if isinstance(s, str) and s.isidentifier())


def _has(here: Any, step: str | int) -> bool:
    if isinstance(here, list):
        return isinstance(step, int) and 0 <= step < len(here)
    return isinstance(here, dict) and step in here


def mark_of(path: Path, document: Document) -> tuple[int, int]:
    """Line and column of a path, or of what stands nearest above it."""
    for end in range(len(path), -1, -1):
        if path[:end] in document.marks:
            return document.marks[path[:end]]
    return 1, 1


def _message(item: Any, where: Path, schema: Mapping[str, Any]) -> str:
    kind = item["type"]
    if kind in _UNKNOWN:
        valid = list(_properties(where[:-1], schema))
        hint = nearest(str(where[-1]), valid)
        known = "" if hint else f"; known here: {', '.join(sorted(valid))}" if valid else ""
        return f"unknown key{hint or known}"
    if kind in _CHOICES:
        expected = str(item.get("ctx", {}).get("expected", ""))
        given = item.get("input")
        hint = nearest(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else ""
        return f"must be {expected}{hint}"
    if kind in ("missing", "missing_argument"):
        return "is required"
    if kind in _LISTS:
        return "must be a list"
    message = str(item["msg"])
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    return message[:1].lower() + message[1:]


def _properties(path: Path, schema: Mapping[str, Any]) -> Iterable[str]:
    """The keys that the schema knows at a path."""
    definitions = schema.get("$defs", {})
    here: list[Any] = [schema]
    for step in path:
        here = [
            child
            for node in here
            for plain in _resolved(node, definitions)
            for child in _children(plain, step)
        ]
    return {
        name
        for node in here
        for n in _resolved(node, definitions)
        for name in n.get("properties", ())
    }


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield from _resolved(definitions.get(node["$ref"].rpartition("/")[2]), definitions)
    for word in ("anyOf", "oneOf", "allOf"):
        for choice in node.get(word, ()):
            yield from _resolved(choice, definitions)
    yield node


def _children(node: Mapping[str, Any], step: str | int) -> Iterable[Any]:
    if isinstance(step, int):
        yield node.get("items")
    elif step in node.get("properties", {}):
        yield node["properties"][step]
    else:
        yield node.get("additionalProperties")
