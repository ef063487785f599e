"""YAML text to plain values, with a line and column for each.

Owns: the strict subset of YAML that the configuration speaks, and the
substitution of environment variables. Must never: run a tag, expand an alias
without bound, or put the value of a variable into a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yamlcore import CCoreLoader

_MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_MAX_DEPTH = 32
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{")
_CORE_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the file: 1-based line and column, path, and what."""

    line: int
    column: int
    path: str
    message: str


@dataclass(slots=True)
class Document:
    """What a file says: its values, where each stands, and what is wrong with it."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def dotted(path: Path) -> str:
    """A path in messages.

    >>> dotted(("limits", 0, "per"))
    'limits[0].per'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(text: str, environment: Mapping[str, str]) -> Document:
    """Read a configuration text. Never raises for what the text holds."""
    document = Document()
    if len(text) > _MAX_BYTES:
        document.faults.append(Fault(1, 1, "", f"the file is larger than {_MAX_BYTES} bytes"))
        return document
    loader = CCoreLoader(text)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(str(p) for p in (error.context, error.problem) if p)
        document.faults.append(Fault(line, column, "", f"not valid YAML: {what}"))
        return document
    except (yaml.YAMLError, ValueError) as error:
        document.faults.append(Fault(1, 1, "", f"not valid YAML: {str(error).splitlines()[0]}"))
        return document
    finally:
        loader.dispose()
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        document.faults.append(Fault(1, 1, "", "must be a mapping of sections"))
        return document
    reader = _Reader(loader, document, environment)
    try:
        document.data = reader.mapping(root, ())
    except _TooLargeError as error:
        mark = error.node.start_mark
        document.faults.append(Fault(mark.line + 1, mark.column + 1, "", error.what))
    return document


class _TooLargeError(Exception):
    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.node = node
        self.what = what


class _Reader:
    def __init__(
        self, loader: CCoreLoader, document: Document, environment: Mapping[str, str]
    ) -> None:
        self._loader = loader
        self._document = document
        self._environment = environment
        self._nodes = 0

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _TooLargeError(node, f"more than {_MAX_NODES} values: an alias that multiplies?")
        if len(path) > _MAX_DEPTH:
            raise _TooLargeError(node, f"nested deeper than {_MAX_DEPTH}: an alias inside itself?")
        self._document.marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if node.tag not in _CORE_TAGS:
            self._fault(node, path, f"tag {node.tag!r} is not allowed")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key must be plain text")
                continue
            key = key_node.value
            line = key_node.start_mark.line + 1
            where = (*path, key)
            if key == "<<":
                self._fault(key_node, where, "merging with << is not allowed; write the keys out")
            elif key in found:
                self._fault(
                    key_node, where, f"the key stands twice, on lines {lines[key]} and {line}"
                )
            else:
                lines[key] = line
                found[key] = self._value(value_node, where)
                self._document.marks[where] = (line, key_node.start_mark.column + 1)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if "$" in node.value and node.tag == "tag:yaml.org,2002:str":
            return self._substituted(node, path)
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._fault(node, path, "not a value of its tag")
            return None

    def _substituted(self, node: yaml.Node, path: Path) -> str:
        def replace(found: re.Match[str]) -> str:
            if found.group() == "$$":
                return "$"
            name, _, default = found.groups()
            if name is None:
                self._fault(node, path, "`${` needs NAME} or NAME:-default}; write `$$` for a `$`")
                return ""
            value = self._environment.get(name)
            if value:
                return value
            if default is not None:
                return str(default)
            self._fault(node, path, f"the environment variable {name} is not set")
            return ""

        return _VARIABLE.sub(replace, node.value)

    def _fault(self, node: yaml.Node, path: Path, what: str) -> None:
        mark = node.start_mark
        self._document.faults.append(Fault(mark.line + 1, mark.column + 1, dotted(path), what))
